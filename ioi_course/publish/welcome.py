"""The first page of the executed course, made from the notebooks, and the report of the run on a page of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.publish.pages import Page, template
from ioi_course.publish.run import Failure, Verdict

NUMBERS = {"five": 5, "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30}
MINUTES = re.compile(rf"(\d+|{'|'.join(NUMBERS)})\s+minutes", re.IGNORECASE)
QUESTION = re.compile(r"^\*\*(?!Time)(?:The question:\*\*\s*)?(.+?)(?:\*\*)?$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True)
class Chapter:
    """What the first page says of a notebook."""

    name: str  # below nbs/, without the suffix
    page: Page
    question: str = ""
    minutes: int | None = None
    ready: bool = True  # whether its page is there
    verdict: Verdict | None = None  # None if it was not run this time

    @property
    def group(self) -> str:
        """Under which heading it stands."""
        kinds = {"appendix": "Appendices", "reference": "To look things up"}
        return kinds.get(self.name.partition("/")[0], "Library" if self.name.startswith("library/") else "Chapters")


def chapter_of(nb: NotebookNode, name: str, page: Page, out: Path, verdict: Verdict | None) -> Chapter:
    """Read a chapter's question and time from its first cell."""
    text = next((LINK.sub(r"\1", cell.source) for cell in nb.cells if cell.cell_type == "markdown"), "")
    minutes = MINUTES.search(text)
    number = minutes and (NUMBERS.get(minutes[1].lower()) or int(minutes[1]))
    questions = [found.strip().strip("*").strip() for found in QUESTION.findall(text)]
    question = next((found for found in questions if found.endswith("?")), "")
    question = question[:1].upper() + question[1:]
    return Chapter(name, page, question, number, (out / page.href).is_file(), verdict)


def write_welcome(chapters: Sequence[Chapter], model: str, out: Path, extra: Page | None = None) -> Path:
    """Write index.html: where to begin, what each chapter asks, how long it takes, and how far the reader is."""
    groups: dict[str, list[Chapter]] = {}
    for chapter in chapters:
        if chapter.name != "index":
            groups.setdefault(chapter.group, []).append(chapter)
    first = next((chapter for chapter in groups.get("Chapters", []) if chapter.ready), None)
    hours = round(sum(chapter.minutes or 0 for chapter in groups.get("Chapters", [])) / 60)
    body = template("index").render(groups=groups, model=model, extra=extra, first=first, hours=hours,
                                    welcome=any(chapter.name == "index" and chapter.ready for chapter in chapters),
                                    failed=[c for c in chapters if c.verdict and not c.verdict.ok])  # fmt: skip
    path = out / "index.html"
    path.write_text(template("page").render(title="The IOI course", up="", head="", body=body), encoding="utf-8")
    return path


def write_report_page(rows: Sequence[tuple[Verdict, Page, Failure | None]], model: str, out: Path) -> Path:
    """Write report.html: a row per chapter that was run, with its verdict and why it stopped."""
    body = template("report").render(rows=rows, model=model, plain=lambda text: re.sub(r"\x1b\[[0-9;]*m", "", text))
    path = out / "report.html"
    html = template("page").render(title="What was run", up="", head="", body=body)
    path.write_text(html, encoding="utf-8")
    return path
