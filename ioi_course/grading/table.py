"""The instructor's table and a page for each student."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
import csv

from ioi_course.grading.grades import Grade


def _cell(value: object) -> str:
    """A field of the table; one that a spreadsheet would take for a formula begins with an apostrophe."""
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


DATA = files("ioi_course") / "data" / "page"


def write_table(grades: Sequence[Grade], path: Path) -> None:
    """Write grades.csv: student, assignment, points of each question, total, status, note."""
    questions = list(dict.fromkeys(question.name for graded in grades for question in graded.questions))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["student", "assignment", *questions, "total", "status", "note"])
        for graded in grades:
            points = {question.name: question.points for question in graded.questions}
            row = [graded.student, graded.assignment, *(points.get(name, "") for name in questions)]
            row += [graded.total if points else "", graded.status, " ".join(graded.notes)]
            rows.writerow(map(_cell, row))


def write_report(graded: Grade, path: Path) -> None:
    """Write a student's page: it stands alone, and gives of hidden tests only how many passed."""
    from jinja2 import Environment

    env = Environment(autoescape=True)
    env.filters["points"] = lambda points: f"{points:g}"
    template = env.from_string((DATA / "grade.html.j2").read_text(encoding="utf-8"))
    css = (DATA / "page.css").read_text(encoding="utf-8")
    path.write_text(template.render(grade=graded, css=css) + "\n", encoding="utf-8")
