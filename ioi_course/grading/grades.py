"""What came of a submission, how it is kept between runs, and what an instructor
has decided beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
import csv
import io
import json
import math

from ioi_course.grading.notebooks import clean_text, listed
from ioi_course.grading.submissions import file_name

STATUSES = {
    "graded": "all cells ran",
    "errors": "cells or tests stopped with an error or were stopped; the rest counts",
    "review": "tried something that a notebook has no business to do; look at it",
    "refused": "no notebook, or of another assignment; no points",
    "failed": "the grader could not do its work; run it again",
}
OVERRIDES = ["student", "question", "points", "reason"]  # columns of overrides.csv


@dataclass
class Question:
    """What came of a question; each case has name, points,
    hidden, passed and message."""

    name: str
    cases: list[dict]
    note: str = ""
    given: float | None = None  # points that the instructor gives instead
    reason: str = ""  # why

    @property
    def earned(self) -> float:
        """The points of the tests that passed."""
        return sum(case["points"] for case in self.cases if case["passed"])

    @property
    def points(self) -> float:
        return self.earned if self.given is None else self.given

    @property
    def possible(self) -> float:
        """The points of all tests; 0 for a question that is read by a person."""
        return sum(case["points"] for case in self.cases)

    @property
    def public(self) -> list[dict]:
        return [case for case in self.cases if not case["hidden"]]

    @property
    def hidden(self) -> list[dict]:
        return [case for case in self.cases if case["hidden"]]


@dataclass
class Grade:
    """What came of a submission; `status` is one of STATUSES."""

    student: str
    assignment: str
    status: str
    notes: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    # what this machine's kernel did not do to isolate it
    lacking: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of computing that its processes took
    memory: int = 0  # MB that they had at the most
    id: str = ""  # the person's number on the learning platform
    late: bool = False
    # of the hidden tests' inputs; `--seed` grades again with the same
    seed: int | None = None

    @property
    def total(self) -> float:
        return sum(question.points for question in self.questions)

    @property
    def possible(self) -> float:
        return sum(question.possible for question in self.questions)


def save(graded: Grade, folder: Path, key: str) -> None:
    """Keep a result in results/; `key` says of what it came."""
    path = folder / f"{file_name(graded.student)}.json"
    part = path.with_name(f".{path.name}.part")
    part.write_text(
        json.dumps({"key": key, **asdict(graded)}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    part.replace(path)


def load(path: Path) -> tuple[Grade, str] | None:
    """A result and its key; None where there is none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        key = kept.pop("key")
        return Grade(
            **kept
            | {"questions": [Question(**question) for question in kept["questions"]]}
        ), key
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_all(folder: Path) -> list[Grade]:
    """All results of a folder, by the students' names."""
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(
        (each[0] for each in found if each), key=lambda graded: graded.student
    )


def override(grades: Iterable[Grade], path: Path) -> list[str]:
    """Give the points of overrides.csv, where there is one: to questions of the
    autograder, and to others as rubric points.

    Returns what cannot be meant, each with its line: a student who is not there, points
    that are no number. The other lines count.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return [f'{path} is not in UTF-8: save it as "CSV UTF-8".']
    # a spreadsheet writes what its language has in the place of commas
    comma = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.DictReader(
        io.StringIO(text.replace("\0", ""), newline=""), delimiter=comma
    )
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or []}
    if missing := [name for name in OVERRIDES if name not in names]:
        return [
            (
                f"{path} needs the columns {listed(OVERRIDES)}; {listed(missing)} "
                "is missing."
            )
        ]
    students, wrong = {graded.student: graded for graded in grades}, []
    for row in rows:
        student, name, points, reason = (
            (row[names[column]] or "").strip() for column in OVERRIDES
        )
        if not student:
            continue
        # grades.csv has an apostrophe before what looks like a formula
        graded = students.get(student) or students.get(student.removeprefix("'"))
        if graded is None:
            wrong.append(f"there is no student {student!r} among the results")
        elif (given := _points(points)) is None:
            wrong.append(
                f"the points are {points!r}; give a number that is not negative"
            )
        else:
            _give(graded, clean_text(name, 60), given, clean_text(reason))
            continue
        wrong[-1] = f"{path}, line {rows.line_num}: {wrong[-1]}."
    return wrong


def _points(text: str) -> float | None:
    """A number of points, also with a decimal comma; None for what is none."""
    try:
        points = float(text.replace(",", "."))
    except ValueError:
        return None
    return points if math.isfinite(points) and points >= 0 else None


def _give(graded: Grade, name: str, points: float, reason: str) -> None:
    question = next((each for each in graded.questions if each.name == name), None)
    if question is None:
        question = Question(name, [])
        graded.questions.append(question)
    question.given, question.reason = points, reason
