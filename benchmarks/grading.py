"""Grade the same submissions twice, with other hidden inputs each time: the
tables must be the same.

Each submission has for every question one of the known answers, right or wrong, of
tests/submissions. Which points it must get is known, so that is checked as well.
Seconds and memory are told beside it.
"""

from __future__ import annotations

import argparse
import random
import runpy
import statistics
import tempfile
import time
from pathlib import Path

import nbformat

from ioi_course.grading.assignments import Assignment, read_assignment
from ioi_course.grading.grades import Grade
from ioi_course.grading.run import grade_all
from ioi_course.grading.server import Limits
from ioi_course.grading.submissions import find_submissions

ROOT = Path(__file__).resolve().parent.parent
STUB_TAG = "otter_answer_cell"


def submission(
    student: nbformat.NotebookNode, assignment: Assignment, answers: dict, seed: int
) -> tuple[bytes, float]:
    """A notebook with some answer to each question, and its points."""
    rng, nb, points = random.Random(seed), nbformat.from_dict(student), 0.0
    stubs = [cell for cell in nb.cells if STUB_TAG in cell.metadata.get("tags", [])]
    for (question, cases), cell in zip(assignment.cases.items(), stubs, strict=False):
        wrong = list(answers["WRONG"].get(question, {}).values())
        right = [
            (0, source) for source in answers["RESTYLED"].get(question, {}).values()
        ]
        lost, cell.source = rng.choice(
            rng.choice([some for some in (wrong, right) if some])
        )
        points += sum(case["points"] for case in cases) - lost
    return nbformat.writes(nb).encode(), points


def graded_twice(name: str, count: int, jobs: int, folder: Path) -> list[Grade]:
    """Grade so many submissions twice; AssertionError where points differ, or are
    others than they must be."""
    tool = runpy.run_path(str(ROOT / "tools" / "assignments.py"))
    out = tool["build"](
        ROOT / "assignments" / name / f"{name}.ipynb", folder / name, check=False
    )
    assignment, student = (
        read_assignment(out / "autograder.zip"),
        nbformat.read(out / "student" / f"{name}.ipynb", 4),
    )
    answers, expected = (
        runpy.run_path(str(ROOT / "tests" / "submissions" / f"{name}.py")),
        {},
    )
    for i in range(count):
        data, expected[f"s{i}"] = submission(student, assignment, answers, i)
        (folder / f"in-{name}" / f"s{i}").mkdir(parents=True)
        (folder / f"in-{name}" / f"s{i}" / f"{name}.ipynb").write_bytes(data)
    found = find_submissions([folder / f"in-{name}"], name)
    first, second = (
        grade_all(
            found, assignment, folder / f"{name}-{i}", jobs, Limits(isolation=False)
        )
        for i in (1, 2)
    )
    for one, other in zip(first, second, strict=True):
        assert {q.name: q.points for q in one.questions} == {
            q.name: q.points for q in other.questions
        }, one.student
        assert one.total == expected[one.student] and one.seed != other.seed, (
            one.student,
            one.total,
            expected[one.student],
        )
    return [*first, *second]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "counts",
        nargs="*",
        default=["a=24", "b=24", "c=6", "d=6"],
        metavar="LETTER=COUNT",
    )
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    names = {
        path.parent.name[0]: path.parent.name
        for path in (ROOT / "assignments").glob("*/*.ipynb")
    }
    with tempfile.TemporaryDirectory() as folder:
        for letter, count in (each.split("=") for each in args.counts):
            start = time.perf_counter()
            found = graded_twice(names[letter], int(count), args.jobs, Path(folder))
            seconds, most = (
                [one.seconds for one in found],
                max(one.memory for one in found),
            )
            wall = (time.perf_counter() - start) / len(found)
            print(
                f"{names[letter]}: {count} submissions twice, the same table; each "
                f"{statistics.mean(seconds):.1f} s of"
            )
            print(
                f"  computing (at most {max(seconds):.1f}), {wall:.1f} s by the clock "
                f"with {args.jobs} jobs; {most} MB"
            )


if __name__ == "__main__":
    main()
