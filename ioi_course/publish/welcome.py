"""The first page of an executed course, which welcomes its reader, and
the report beside it."""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.publish.run import Failure, Verdict, write_file
from ioi_course.publish.pages import DATA, Page, template

QUESTIONS = (
    re.compile(r"\*\*(?:The )?question:?\*\*:?\s+(.+?\?)", re.IGNORECASE | re.DOTALL),
    re.compile(r"^\*\*(.+?\?)\*\*$", re.MULTILINE),
)
SUMMARY = re.compile(r"^> *(.+)$", re.MULTILINE)
NUMBERS = {
    "five": 5,
    "ten": 10,
    "fifteen": 15,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
}
MINUTES = re.compile(rf"\b(\d+|{'|'.join(NUMBERS)}) minutes", re.IGNORECASE)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
MARKS = re.compile(r"\*\*|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)|`")
GROUPS = {  # the folder below nbs/: what its notebooks are called on the page
    "": "Chapters",
    "appendix": "Appendices",
    "reference": "To look things up",
}


@dataclass(frozen=True)
class Entry:
    """What the welcome page says of a notebook: all of it stands in the
    notebook's first cell."""

    name: str
    title: str
    href: str
    question: str  # or the summary, of a notebook that asks none
    minutes: int | None
    part: str = ""  # "b" for the second page of a chapter

    @property
    def label(self) -> str:
        """A chapter's number, an appendix' letter, or nothing."""
        if found := re.match(r"(\d+)_", self.name):
            return str(int(found[1])) + self.part
        found = re.match(r"appendix/([a-z])_", self.name)
        return found[1].upper() if found else ""

    @property
    def group(self) -> str:
        """The heading that it is listed under."""
        folder = self.name.rpartition("/")[0]
        return GROUPS.get(folder, folder.capitalize())


@dataclass(frozen=True)
class Outcome:
    """What came of a chapter, and why it stopped if it did."""

    verdict: Verdict
    failure: Failure | None = None


@dataclass(frozen=True)
class Sheet:
    """What the welcome page and the report are made from."""

    entries: list[Entry]
    outcomes: dict[str, Outcome]  # of the notebooks that this run executed
    wanted: set[str]  # the notebooks that this run set out to execute
    shown: set[str]  # those that have a page, from this run or an earlier one
    model: str
    texts: list[Page]  # glossary, notation, instructor guide
    extra: Page | None = None  # the circuit's page

    def failed(self, name: str) -> bool:
        """Whether this run executed a notebook and it did not get through."""
        return name in self.outcomes and not self.outcomes[name].verdict.ok


def plain(markdown: str) -> str:
    """Markdown's text without links, emphasis and line breaks."""
    return " ".join(MARKS.sub("", LINK.sub(r"\1", markdown)).split())


def question_of(text: str) -> str:
    """The question that a chapter's first cell says it answers;
    failing that, its summary."""
    for pattern in QUESTIONS:
        if found := pattern.search(text):
            asked = plain(found[1])
            return asked[:1].upper() + asked[1:]
    found = SUMMARY.search(text)
    return plain(found[1]) if found else ""


def minutes_of(text: str) -> int | None:
    """The minutes that a chapter's first cell says it takes."""
    if (found := MINUTES.search(text)) is None:
        return None
    return int(found[1]) if found[1].isdecimal() else NUMBERS[found[1].lower()]


def entries(
    notebooks: dict[str, NotebookNode | None], pages: dict[str, Page]
) -> list[Entry]:
    """The entries of notebooks by name, in order; one that could not be
    read has only its name."""
    made, pages_of = [], Counter()
    for name, nb in notebooks.items():
        text = (
            next((cell.source for cell in nb.cells if cell.cell_type == "markdown"), "")
            if nb
            else ""
        )
        title = re.sub(r"^Appendix \w+ · ", "", plain(pages[name].title))
        number = name.partition("_")[0]
        part = (
            chr(ord("a") + pages_of[number])
            if number.isdigit() and pages_of[number]
            else ""
        )
        pages_of[number] += 1
        made.append(
            Entry(
                name, title, pages[name].href, question_of(text), minutes_of(text), part
            )
        )
    return made


def duration(minutes: int) -> str:
    """Minutes as a reader says them."""
    hours, rest = divmod(minutes, 60)
    parts = [(hours, "hour")] * bool(hours) + [(rest, "minute")] * bool(
        rest or not hours
    )
    return " ".join(f"{count} {unit}{'s' * (count != 1)}" for count, unit in parts)


def write_index(sheet: Sheet, out: Path) -> Path:
    """Write index.html: what to read first, how to read a page, the
    chapters, and progress."""
    groups: dict[str, list[Entry]] = {}
    for entry in sheet.entries:
        if entry.name != "index":
            groups.setdefault(entry.group, []).append(entry)
    course = groups.get("Chapters", [])
    body = template("welcome").render(
        sheet=sheet,
        introduction=next(
            (entry for entry in sheet.entries if entry.name == "index"), None
        ),
        first=next((entry for entry in course if entry.name in sheet.shown), None),
        groups=groups,
        course=course,
        total=sum(entry.minutes or 0 for entry in course),
        failed=[entry for entry in sheet.entries if sheet.failed(entry.name)],
        unfinished=[
            e for e in sheet.entries if e.name in sheet.wanted - sheet.outcomes.keys()
        ],
        duration=duration,
    )
    return _write(
        "Welcome to the course",
        body,
        sheet,
        out / "index.html",
        (DATA / "welcome.js").read_text("utf-8"),
    )


def write_report_page(sheet: Sheet, out: Path) -> Path:
    """Write report.html: seconds, cells and verdict of each chapter of the
    run, and why it failed."""
    rows = [
        (entry, sheet.outcomes[entry.name])
        for entry in sheet.entries
        if entry.name in sheet.outcomes
    ]
    body = template("report").render(rows=rows, sheet=sheet, plain_reason=plain_reason)
    return _write("The run: seconds and verdicts", body, sheet, out / "report.html")


def plain_reason(reason: str) -> str:
    """A traceback without a terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", reason)


def _write(title: str, body: str, sheet: Sheet, path: Path, script: str = "") -> Path:
    """Write a page that holds its styles and script itself."""
    css = "".join(
        (DATA / name).read_text(encoding="utf-8")
        for name in ("page.css", "welcome.css")
    )
    text = template("frame").render(
        title=title, body=body, sheet=sheet, css=css, script=script, here=path.name
    )
    return write_file(path, text)


BARE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def bare_page(title: str, *lines: str | tuple[str, str], home: str = "") -> str:
    """A page that needs no template, for where one is broken: lines of
    text, or text and address."""
    rows = [(line, "") if isinstance(line, str) else line for line in lines]
    rows += [("All chapters", home)] * bool(home)
    body = []
    for text, href in rows:
        text = html.escape(plain_reason(text))
        body.append(
            f'<p><a href="{html.escape(href)}">{text}</a></p>'
            if href
            else f"<pre>{text}</pre>"
        )
    return BARE.format(title=html.escape(title), body="\n".join(body))
