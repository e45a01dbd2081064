"""What came of a submission, and how it is kept between runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
import json

STATUSES = {
    "graded": "all cells ran",
    "errors": "cells or tests stopped with an error or were stopped; the rest counts",
    "review": "tried something that a notebook has no business to do; look at it",
    "refused": "no notebook, or of another assignment; no points",
    "failed": "the grader could not do its work; run it again",
}


@dataclass
class Question:
    """What came of a question; each case has name, points, hidden, passed and message."""

    name: str
    cases: list[dict]
    note: str = ""

    @property
    def points(self) -> float:
        return sum(case["points"] for case in self.cases if case["passed"])

    @property
    def possible(self) -> float:
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
    lacking: list[str] = field(default_factory=list)  # what this machine's kernel did not do to isolate it

    @property
    def total(self) -> float:
        return sum(question.points for question in self.questions)

    @property
    def possible(self) -> float:
        return sum(question.possible for question in self.questions)


def save(graded: Grade, path: Path, key: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps({"key": key, **asdict(graded)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def load(path: Path, key: str) -> Grade | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("key") != key:
            return None
        return Grade(**kept | {"questions": [Question(**question) for question in kept["questions"]]})
    except (OSError, ValueError, KeyError, TypeError):
        return None
