"""The instructor's table, the same for learning platforms, and a
page for each student."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
import csv
import re

from ioi_course.grading.grades import Grade

DATA = files("ioi_course") / "data" / "page"
# where a spreadsheet would begin a formula
FORMULA = re.compile(r"(^|[;,|\t])(\s*)(?=[=+\-@＝＋－＠])")


def _cell(value: object) -> str:
    """A field of a table: on one line, and with an apostrophe before whatever a
    spreadsheet takes for a formula."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    return FORMULA.sub(
        r"\1\2'", re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", str(value))
    )


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [list(map(_cell, row)) for row in rows]
        )
    part.replace(path)


def write_table(grades: Sequence[Grade], path: Path) -> None:
    """Write grades.csv: for each student points and points possible of each question,
    total, status, late, notes.

    A question that only overrides.csv knows is one that a person read: it has
    points and none possible.
    """
    possible: dict[str, float] = {}
    for graded in grades:
        for question in graded.questions:
            possible[question.name] = max(
                possible.get(question.name, 0.0), question.possible
            )
    names = [
        part
        for name, most in possible.items()
        for part in ((name, f"{name} of") if most else (name,))
    ]
    rows: list[list[object]] = [
        ["student", "assignment", *names, "total", "of", "status", "late", "note"]
    ]
    for graded in grades:
        points = {question.name: question.points for question in graded.questions}
        row: list[object] = [graded.student, graded.assignment]
        for name, most in possible.items():
            row += [points.get(name, ""), most] if most else [points.get(name, "")]
        notes = [
            f"{q.name}: {q.given:g} points given: {q.reason}"
            for q in graded.questions
            if q.given is not None
        ]
        if graded.lacking:
            notes.append(f"Graded without {' and '.join(graded.lacking)}.")
        row += [
            graded.total if points else "",
            sum(possible.values()),
            graded.status,
            "late" if graded.late else "",
        ]
        rows.append([*row, " ".join([*notes, *graded.notes])])
    _write(path, rows)


def write_platform_tables(grades: Sequence[Grade], folder: Path) -> None:
    """Write canvas.csv and moodle.csv: the totals in the columns that the
    platforms' imports want."""
    assignment = grades[0].assignment if grades else "assignment"
    done = [graded for graded in grades if graded.questions]
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment]
    _write(
        folder / "canvas.csv",
        [head, *([g.student, g.id, "", "", "", g.total] for g in done)],
    )
    head = ["Identifier", "Full name", "Grade", "Maximum grade"]
    rows = [
        [f"Participant {g.id}" if g.id else "", g.student, g.total, g.possible]
        for g in done
    ]
    _write(folder / "moodle.csv", [head, *rows])


def write_report(graded: Grade, path: Path) -> None:
    """Write a student's page: it stands alone, and gives of hidden tests
    only how many passed."""
    from jinja2 import Environment

    env = Environment(autoescape=True)
    env.filters["points"] = lambda points: f"{points:g}"
    template = env.from_string((DATA / "grade.html.j2").read_text(encoding="utf-8"))
    css = (DATA / "page.css").read_text(encoding="utf-8")
    path.write_text(template.render(grade=graded, css=css) + "\n", encoding="utf-8")
