"""Grade on Gradescope: one submission in a container, by the same judge as
`ioi-course grade`, in processes of its own."""

# Gradescope starts run_otter.py of the autograder zip, which calls `main`. Otter would
# run notebook and tests in one process. Here the answerer and the judge are apart as
# they are at home, so the same notebook gets the same points. What is less is the wall
# around the answerer: a container seldom allows namespaces, and everything in it is
# root. Landlock and seccomp hold where its kernel has them, and what is missing is
# printed, for instructors only. Otter's own grading of the same zip gives an honest
# notebook the same points (tests/test_assignments.py).

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ioi_course.grading.assignments import Assignment, read_assignment
from ioi_course.grading.grade import grade
from ioi_course.grading.grades import Grade, Question
from ioi_course.grading.run import grade_nothing
from ioi_course.grading.server import Limits, Server
from ioi_course.grading.notebooks import Refused
from ioi_course.grading.submissions import find_submissions


def main(folder: str | Path = "/autograder") -> None:
    """Grade submission/ with the autograder in source/, and write
    results/results.json."""
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as made:
        assignment = read_assignment(
            _zip(folder / "source", Path(made, "autograder.zip"))
        )
        shutil.copytree(
            folder / "submission", Path(made, "class", "student"), symlinks=True
        )
        graded = _graded(Path(made, "class"), assignment, [folder, Path(made)])
    print(f"The hidden inputs were drawn from the seed {graded.seed}.")
    if graded.lacking:
        print(
            f"Graded without {' and '.join(graded.lacking)}, which this container does "
            "not allow."
        )
    (folder / "results").mkdir(exist_ok=True)
    text = json.dumps(results(graded), indent=1, ensure_ascii=False)
    (folder / "results" / "results.json").write_text(text + "\n", encoding="utf-8")


def _zip(source: Path, path: Path) -> Path:
    """The autograder zip as it was before Gradescope unpacked it: what it says of the
    assignment, and the tests."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in [
            source / "otter_config.json",
            *sorted((source / "tests").glob("*.py")),
        ]:
            archive.write(file, file.relative_to(source))
    return path


def _graded(folder: Path, assignment: Assignment, secret: list[Path]) -> Grade:
    one = find_submissions([folder], assignment.name)[0]
    try:
        data, note = one.chosen(assignment.name)
    except Refused as error:
        return grade_nothing(one, assignment, str(error))
    with Server() as server:
        graded = grade(
            one.student, data, assignment, server, Limits(isolation=False), secret
        )
    graded.notes = [note, *graded.notes] if note else graded.notes
    return graded


def results(graded: Grade) -> dict[str, Any]:
    """What Gradescope reads: public tests with what they say, hidden ones
    for instructors only."""
    shown = [
        _entry(question, question.public, "public", "visible")
        for question in graded.questions
    ]
    hidden = [
        _entry(question, question.hidden, "hidden", "hidden")
        for question in graded.questions
    ]
    return {
        "output": "\n".join(graded.notes),
        "stdout_visibility": "hidden",
        "tests": [
            entry for pair in zip(shown, hidden, strict=True) for entry in pair if entry
        ],
    }


def _entry(
    question: Question, cases: list[dict], kind: str, visibility: str
) -> dict[str, Any] | None:
    if not cases:
        return None
    said = [case["message"] for case in cases if not case["passed"] and case["message"]]
    score = sum(case["points"] for case in cases if case["passed"])
    return {
        "name": f"{question.name}, {kind} tests",
        "score": score,
        "max_score": sum(case["points"] for case in cases),
        "visibility": visibility,
        "output": "\n\n".join(said),
    }
