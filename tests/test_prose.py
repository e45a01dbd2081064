"""The English of the lessons: turns that a native teacher would not use (found by
readers), and how sentences run."""

import re
from pathlib import Path

import nbformat
import pytest

from ioi_course.claims import MIME

ROOT = Path(__file__).resolve().parent.parent
REWRITTEN = [ROOT / "nbs/index.ipynb", *sorted(ROOT.glob("nbs/[01]*.ipynb"))]
AVOID = {  # a turn: what to write in its place
    r"(?<!at a )\bglanc\w+": "look, attend to, attention",
    r"\bstands?\b(?!-in\b| (?:for|in for|out|apart|still)\b)": "is, sits, appears",
    r"\bas ever\b": "as before, or nothing",
    r"\bby its (?:values|keys|queries)\b": "through its values",
    r"\bof above\b": "above, or name the thing",
    r"\bat hand\b": "you are running",
    r"\bholds? back\b": "suppresses, lowers, or keeps, whichever you mean",
    r"\bhole\b": "what is missing, by name",
    r"\bturns? round\b": "flips",
    r"\btwo times\b": "twice",
    r"\bfrom where\b": "where … from",
    r"\bcomes? about\b": "happens",
    r"\bso-called\b": "nothing",
    r"\bin the following\b": "below, or nothing",
    r"\bwe (?:will|shall) see\b": "say it, or say where",
    r"\bis not there for the show\b": "is a control",
    r"\bof GPT-2 small there\b": "GPT-2 small has",
    r"\bby which way\b": "by which route",
    r"\bneither was to be seen\b": "you could not have seen either",
    r"\bwhich whoever\b": "which you need in order to",
    r"\bbelong into\b": "belong in",
    r"!(?=\s|$)": "a full stop",
}


def prose(path: Path) -> list[str]:
    """What a reader reads: Markdown without code, formulas and links' addresses, and
    the sentences of claims."""
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            text = re.sub(
                r"```.*?```|`[^`]*`|\$[^$]*\$|<[^>]+>|\]\([^)]*\)|!\[",
                " ",
                cell.source,
                flags=re.DOTALL,
            )
            texts.append(text)
        else:
            data = [output.get("data", {}).get(MIME) for output in cell.outputs]
            texts += [claim["text"] for claim in data if claim]
    return texts


@pytest.mark.parametrize("path", REWRITTEN, ids=lambda path: path.stem)
def test_no_turn_that_tires_the_reader(path):
    found = []
    for text in prose(path):
        for turn, better in AVOID.items():
            for hit in re.finditer(turn, text, re.IGNORECASE):
                around = " ".join(
                    text[max(0, hit.start() - 50) : hit.end() + 30].split()
                )
                found.append(f"{hit[0]!r} (write: {better}) in: {around}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", REWRITTEN, ids=lambda path: path.stem)
def test_markdown_speaks_of_no_one_model(path):
    """A measured sentence is a claim: "on the synthetic model it is …" in Markdown is
    untrue beside other numbers."""
    one = re.compile(
        r"[^.]*\bon the (?:bundled |synthetic )+model\b[^.]*", re.IGNORECASE
    )
    assert not [hit[0].strip() for text in prose(path) for hit in one.finditer(text)]


def test_the_list_sees_what_it_is_for(tmp_path):
    text = "Each glance finds what stands there, as ever."
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]),
        tmp_path / "x.ipynb",
    )
    with pytest.raises(AssertionError, match="'glance'"):
        test_no_turn_that_tires_the_reader(tmp_path / "x.ipynb")
