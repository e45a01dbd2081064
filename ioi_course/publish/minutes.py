"""How long a lesson takes, counted from what is in it: words,
lines of code, exercises."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nbformat import NotebookNode

from ioi_course.publish.badge import is_badge
from ioi_course.publish.exercises import HEADING, exercises

# of text that is worked through, tables and plots looked at on the way
WORDS_A_MINUTE = 150
LINES_A_MINUTE = 27  # of code, of 88 columns at most, that is read and run, not written
EXERCISE = {"★": 5, "★★": 10, "★★★": 20}  # minutes to solve one
STARS = re.compile(r"\((★{1,3})\)$", re.MULTILINE)
HIDDEN = re.compile(r"^#\| *hide *$", re.MULTILINE)
# what is folded, tags, links' addresses
UNREAD = re.compile(r"<details>.*?</details>|<[^>]+>|\]\([^)]*\)", re.DOTALL)
WORD = re.compile(r"[^\W_]+(?:['’.,-][^\W_]+)*")
SAID = re.compile(r"\d+(?= minutes)")


@dataclass(frozen=True)
class Content:
    """What there is to do in a lesson."""

    words: int  # hints and answers, which are folded, left out
    lines: int  # of code, the exercises' own and what a page hides left out
    stars: tuple[str, ...]  # of its exercises, in order

    @property
    def minutes(self) -> int:
        """The time at the stated rates, to the next five minutes."""
        exact = (
            self.words / WORDS_A_MINUTE
            + self.lines / LINES_A_MINUTE
            + sum(EXERCISE[one] for one in self.stars)
        )
        return 5 * round(exact / 5)


def content(nb: NotebookNode) -> Content:
    """Count what a lesson has. Raises `ExerciseError` where an exercise is not
    written as it should be."""
    found = exercises(nb)
    own = {cell.id for each in found for cell in (each.stub, each.solution)}
    words = lines = 0
    for cell in nb.cells:
        if cell.cell_type == "markdown" and not is_badge(cell):
            words += len(WORD.findall(UNREAD.sub(" ", cell.source)))
        elif (
            cell.cell_type == "code"
            and cell.id not in own
            and not HIDDEN.search(cell.source)
        ):
            lines += sum(1 for line in cell.source.splitlines() if line.strip())
    return Content(words, lines, tuple(stars(each.text) for each in found))


def stars(text: NotebookNode) -> str:
    """How hard the exercise with this text is."""
    return STARS.search(HEADING.search(text.source)[0])[1]


def with_minutes(nb: NotebookNode) -> NotebookNode:
    """The notebook with the counted minutes in its first cell; changed in
    place, if it says any."""
    nb.cells[0].source = SAID.sub(str(content(nb).minutes), nb.cells[0].source, count=1)
    return nb


# day, chapters, minutes
ROW = re.compile(r"^\| (\d+) \| (\d+)(?:–(\d+))? \| \d+ \|", re.MULTILINE)


def with_schedules(guide: str, times: dict[int, int]) -> str:
    """The instructor guide with the minutes of these chapters in its schedules."""

    def row(found: re.Match) -> str:
        day, first, last = found.groups()
        total = sum(
            times[number] for number in range(int(first), int(last or first) + 1)
        )
        return f"| {day} | {first}{f'–{last}' if last else ''} | {total} |"

    return with_hours(ROW.sub(row, guide), times.values())


def with_hours(text: str, times: Iterable[int]) -> str:
    """A text that says how many hours all chapters take."""
    return re.sub(
        r"\btake \d+ hours", f"take {round(sum(times) / 60)} hours", text, count=1
    )
