"""Two pages that lead into the chapters.

Open questions: each question that the course began with has an entry, and each entry
leads somewhere. Since 2022: each entry of the reading list says what was found, by
whom, what it changes, and where it is tried.
"""

import os
import re
from pathlib import Path

import nbformat
import pytest

from ioi_course.claims import recorded
from ioi_course.project import find_root
from ioi_course.publish.pages import slug
from ioi_course.reference import published

NBS = find_root() / "nbs"
PAGE = NBS / "reference" / "questions.qmd"
TEXT = PAGE.read_text(encoding="utf-8")
# names a reader's notes; no sentence of the page comes from them
NOTES = "IOI_COURSE_SEED_NOTES"
# a question, in those notes
MARKED = re.compile(r"GUESS:|WHY\?|\(\?\)|\?\?\?|causal tracing\?|\(where in the code")
NOTE_LINES = {  # the notes' line with a question, and its entry
    13: "causal-tracing",
    21: "steps",
    49: "patching-and-backups",
    53: "why-induction",
    89: "recomputed",
    97: "ov-identity",
    166: "why-values",
    169: "why-keys",
    171: "query-at-end",
    173: "query-at-end",
    210: "passes",
    214: "passes",
}
IN_PASSING = """
which-counterfactual noise all-paths mediators sign zero mean circle single-tokens qkv
directions copying-is-not-moving
attention-and-projection negative token-or-position disentangle distributed
always-parallel dropout memory skip
memorised repeat-io larger-models punctuation other-models
""".split()  # asked in the notes without a mark
DEMO = """why-backups why-negative-less final-scale mlp-0 tied anti-induction
    unused-induction""".split()
ASKED = {*NOTE_LINES.values(), *IN_PASSING, *DEMO}
ENTRY = re.compile(
    r"^### (.+?) \{#([\w-]+)\}\n\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL
)
ENTRIES = {found[2]: (found[1], found[3].strip()) for found in ENTRY.finditer(TEXT)}
LINK = re.compile(r"\]\(([\w./]+\.(?:ipynb|qmd))(?:#([\w.-]+))?\)")
READING = (NBS / "reference" / "since_2022.qmd").read_text(encoding="utf-8")
READ = {found[2]: (found[1], found[3].strip()) for found in ENTRY.finditer(READING)}


def test_every_question_has_an_entry():
    assert set(ENTRIES) == ASKED
    assert (
        len(ENTRIES)
        == TEXT.count("\n### ")
        == len(set(re.findall(r"\{#([\w-]+)\}", TEXT)))
    )
    assert all(title.endswith("?") for title, _ in ENTRIES.values())


@pytest.mark.parametrize("question", sorted(ASKED))
def test_an_entry_answers_and_says_where_the_evidence_is(question):
    answer, evidence = ENTRIES[question][1].rsplit("\n\n", 1)
    still_open = answer.startswith("*Open")
    assert 2 <= len(re.findall(r"[.?](?=\s|$)", answer)) <= 7
    assert still_open == ("What would answer it: " in answer)
    assert evidence.startswith("Evidence so far: " if still_open else "Evidence: ")
    assert any(anchor for _, anchor in LINK.findall(evidence)), (
        "a chapter alone is too far a field to look in"
    )


def headings(path: Path) -> set[str]:
    if path.suffix == ".qmd":
        return set(
            re.findall(
                r"^#+ .+ \{#([\w-]+)\}$", path.read_text(encoding="utf-8"), re.MULTILINE
            )
        )
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    titles = re.findall(
        r"^#{1,6} (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    return {slug(re.sub(r"\]\([^)]*\)", "]", title)) for title in titles}


@pytest.mark.parametrize(
    "target", sorted({path for path, _ in LINK.findall(TEXT + READING)})
)
def test_links_lead_to_sections_that_exist(target):
    path = (PAGE.parent / target).resolve()
    wanted = {
        anchor for at, anchor in LINK.findall(TEXT + READING) if at == target and anchor
    }
    assert path.is_file() and (not wanted or wanted <= headings(path)), (
        wanted - headings(path)
    )


@pytest.mark.parametrize("question", sorted(ASKED))
def test_a_link_is_called_as_its_section_is(question):
    """*The section's title* → #the-sections-title; a title may be cut where a
    reader still knows it."""
    for title, anchor in re.findall(
        r"\*([^*]+)\*\]\([\w./]+#([\w.-]+)\)", ENTRIES[question][1]
    ):
        assert slug(title) in anchor, (title, anchor)


@pytest.mark.skipif(NOTES not in os.environ, reason=f"{NOTES} names no notes")
def test_no_question_of_the_notes_is_left_out():
    lines = Path(os.environ[NOTES]).read_text(encoding="utf-8").splitlines()
    assert {i for i, line in enumerate(lines, 1) if MARKED.search(line)} <= {
        *NOTE_LINES
    }


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("The scale's share", "the-scales-share"),
        ("Exercise 7.4 · How many ways (★★)", "exercise-7.4-how-many-ways"),
        ('What would "universal" mean?', "what-would-universal-mean"),
        ("3 things: that must be true", "things-that-must-be-true"),
        ("Attention &amp; MLP", "attention-mlp"),
    ],
)
def test_anchors_are_those_of_the_website(heading, anchor):
    assert slug(heading) == anchor


def test_the_reading_list_is_in_order():
    assert [int(title.split(".")[0]) for title, _ in READ.values()] == list(
        range(1, len(READ) + 1)
    ) and len(READ) >= 15
    assert READING.count("\n### ") == len(READ)


@pytest.mark.parametrize("entry", READ)
def test_an_entry_says_who_found_it_what_it_changes_and_where_to_try_it(entry):
    found, *_, changes, tried = re.sub(
        r"\n\n\|.*?\|\n(?=\n)", "", READ[entry][1], flags=re.DOTALL
    ).split("\n\n")
    assert re.search(r"\[20\d\d\]\(https://", found), "its source, with the year"
    assert changes.startswith("*What it changes:* ")
    assert re.match(r"Tried in|Close to it:", tried) and "](../" in tried


def test_the_reading_list_calls_sections_and_claims_by_their_names():
    for title, anchor in re.findall(r"\*([^*]+)\*\]\([\w./]+#([\w.-]+)\)", READING):
        assert slug(title) in anchor, (title, anchor)
    claims = {key for model in recorded().values() for key in model["claims"]}
    named = set(re.findall(r"`(\d+\.\w+)`", READING))
    assert len(named) > 15 and named <= claims, named - claims


def test_figures_of_the_reading_list_are_those_of_the_course():
    model, circuit = (
        published(f"nainani.{who}_by_mentions").values[2]
        for who in ("model", "circuit")
    )
    rare, pair = (
        published("tails.failures").values[0],
        published("tails.katie_lisa").values[0],
    )
    share = 100 * published("paper.faithfulness").values[0]
    for figure in (
        f"{circuit} logits",
        f"has {model}",
        f"{100 * rare:.3f} %",
        f"is {pair}.",
        f"paper's {share:.0f} %",
    ):
        assert figure in READING, figure
