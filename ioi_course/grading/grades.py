"""What came of a submission, how it is kept between runs, and what an instructor
has decided beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
import csv
import json
import math

from ioi_course.grading.submissions import clean_text, file_name, listed
from ioi_course.project import CourseError

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


def override(grades: Iterable[Grade], path: Path) -> None:
    """Give the points of overrides.csv, where there is one: to questions of the
    autograder, and to others as rubric points.

    CourseError with the line for what cannot be meant: a student who is not there,
    points that are no number.
    """
    if not path.exists():
        return
    students = {graded.student: graded for graded in grades}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if missing := [
            name for name in OVERRIDES if name not in (rows.fieldnames or [])
        ]:
            raise CourseError(
                f"{path} needs the columns {listed(OVERRIDES)}; {listed(missing)} "
                "is missing."
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if not (row["student"] or "").strip():
                continue
            graded = students.get(row["student"].strip())
            if graded is None:
                raise CourseError(
                    f"{where}: there is no student {row['student']!r} among "
                    "the results."
                )
            try:
                points = float(row["points"])
            except (TypeError, ValueError):
                points = math.nan
            if not (math.isfinite(points) and points >= 0):
                raise CourseError(
                    f"{where}: the points are {row['points']!r}; give a number that is "
                    "not negative."
                )
            name = clean_text((row["question"] or "").strip(), 60)
            question = next(
                (each for each in graded.questions if each.name == name), None
            )
            if question is None:
                question = Question(name, [])
                graded.questions.append(question)
            question.given, question.reason = (
                points,
                clean_text((row["reason"] or "").strip()),
            )
