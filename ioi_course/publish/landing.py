"""The website's first page: made from nbs/index.ipynb, whose text README.md has, too,
and from the chapters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ioi_course.project import settings
from ioi_course.publish.badge import colab_address
from ioi_course.publish.exercises import exercises
from ioi_course.publish.framed import MAIN, raw
from ioi_course.publish.navigation import number
from ioi_course.publish.pages import page_of, template
from ioi_course.publish.run import chapter_name, chapters
from ioi_course.publish.welcome import Entry, duration, entries

# The first cell: title, summary, headline, then the sentence and its answer.
OPENING = re.compile(
    r"# .+\n+> (?P<description>.+)\n+\*\*(?P<headline>.+?)\*\*\n+"
    r"\*(?P<sentence>[^*]+)\* The next word is \*\*(?P<answer>\w+)\*\*",
)
PICTURE = re.compile(r"^!\[[^\]]*\]\(images/circuit\.svg\)(?:\{.*\})?$", re.MULTILINE)
TABLE = re.compile(r"^\| chapter \| the question", re.MULTILINE)
ABOUT = {  # what a model is, for those who meet its name here first
    "gpt2-small": "the model of the paper",
    "smollm2": (
        "a trained language model (Hugging Face, 2024) of 135 million parameters"
    ),
    "synthetic": "the published circuit, written into its weights by hand",
    "tiny": "six layers, trained by us on sentences of our own",
}
WEEKEND = "04_direct_logit_attribution"  # the last chapter of the weekend's route


def opening(text: str) -> dict[str, str]:
    """Headline, sentence, answer and summary of the index notebook's first cell;
    ValueError if it is otherwise."""
    if (found := OPENING.match(text)) is None:
        raise ValueError(
            "nbs/index.ipynb must begin with '# title', '> summary', '**headline**', "
            "and '*sentence* The next word is **answer**'; it begins with "
            f"{text[:200]!r}."
        )
    return found.groupdict()


def first_page(root: Path, index: list[str]) -> tuple[str, set[str], str]:
    """The first page around the index notebook's own cells: what comes before, which
    texts stay, what comes after.

    `index` has the notebook's texts. What its first cell says more than the
    headline follows that at once.
    """
    said = opening(index[0])
    more = index[0][OPENING.match(index[0]).start("sentence") - 1 :]
    more = PICTURE.sub("", more).strip()
    first, _, then = _body(root, said).partition("<!-- more -->")
    start = [
        raw(f"{MAIN}\n{first}"),
        "::::: {.ioi-more}\n\n## What you will learn",
        more,
        ":::::",
        raw(then),
        "::::: {.ioi-more}",
    ]
    stay = {text for text in index[1:] if not TABLE.search(text)}
    return "\n\n".join(start), stay, f":::::\n\n{raw('</main>')}"


def _body(root: Path, said: dict[str, str]) -> str:
    meta = settings(root)
    notebooks = {
        chapter_name(path, root): nbformat.read(path, as_version=4)
        for path in chapters(root)
    }
    named = list(notebooks)
    lessons = [
        entry for entry in _entries(root, notebooks) if number(entry.name, named)
    ]
    last = [entry.name for entry in lessons].index(WEEKEND)
    return template("landing").render(
        **said,
        chapters=lessons,
        weekend=lessons[1 : last + 1],
        duration=duration,
        picture=_drawing(
            (root / "nbs" / "images" / "circuit.svg").read_text(encoding="utf-8"),
            said["sentence"],
        ),
        source="Wang et al. (2022)",
        colab=colab_address(root, f"nbs/{lessons[0].name}.ipynb"),
        exercises=sum(len(exercises(nb)) for nb in notebooks.values()),
        mistakes=_mistakes(),
        claims=max((count for count, _ in measured(root).values()), default=0),
        measured=measured(root),
        about=ABOUT,
        assignments=len(list((root / "assignments").glob("*/*.ipynb"))),
        repo=meta["repo"],
        author=meta["author"],
        licence=meta["license"],
        branch=meta["branch"],
        source_url=meta["git_url"],
    )


def _entries(root: Path, notebooks: dict[str, NotebookNode]) -> list[Entry]:
    pages = {
        name: page_of(root / "nbs" / f"{name}.ipynb", root, nb)
        for name, nb in notebooks.items()
    }
    return entries(notebooks, pages)


def _drawing(svg: str, sentence: str) -> str:
    """The circuit's drawing for a page that holds it: its words take the page's
    colours, and it says what it shows.

    The drawing names IO before S. Where the sentence has them the other way
    round, so has the drawing.
    """
    said = "The circuit: classes of heads, and what each passes on to the next"
    svg = re.sub(
        r"<title>.*?</title>",
        f"<title>{said}</title>",
        svg.strip(),
        count=1,
        flags=re.DOTALL,
    )
    places = {
        word: found[1]
        for word in ("Mary", "and", "John")
        if (found := _word(word).search(svg))
    }
    if len(places) < 3 or sentence.index("Mary") < sentence.index("John"):
        return svg
    moved = {
        "Mary": "John",
        "IO": "John",
        "John": "Mary",
        "S1": "Mary",
        r"S1\+1": "and",
    }
    for word, to in moved.items():
        svg = _word(word).sub(
            lambda found, x=places[to]: found[0].replace(f"'{found[1]}'", f"'{x}'", 1),
            svg,
            count=1,
        )
    return svg


def _word(word: str) -> re.Pattern:
    """The first place where a word stands in a drawing."""
    return re.compile(rf"<text x='([\d.]+)'[^>]*>{word}</text>")


def _mistakes() -> int:
    """How many wrong answers the checks of the exercises recognise."""
    from ioi_course import checks
    from ioi_course.checks.core import Exercise

    return sum(
        len(each.misconceptions)
        for each in vars(checks).values()
        if isinstance(each, Exercise)
    )


def measured(root: Path) -> dict[str, tuple[int, int]]:
    """For each model on which the chapters' claims were recorded: how many, and
    how many of them hold."""
    found = {}
    for path in sorted((root / "ioi_course" / "data" / "claims").glob("*.json")):
        claims = json.loads(path.read_text(encoding="utf-8"))["claims"].values()
        found[path.stem] = len(claims), sum(bool(claim["holds"]) for claim in claims)
    return dict(sorted(found.items(), key=lambda item: (-item[1][0], item[0])))
