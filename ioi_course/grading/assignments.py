"""An assignment: its autograder zip, its tests and their points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import ast
import difflib
import json
import re
import zipfile

from ioi_course.project import CourseError, find_root


@dataclass(frozen=True)
class Assignment:
    """An assignment's name and its tests, as the autograder zip holds them."""

    path: Path  # of the zip
    name: str
    tests: dict[str, str]  # question -> source of otter's test file
    # question -> name, points and hidden of each test case
    cases: dict[str, list[dict]]
    # question -> the names of the notebook that its tests look at
    answers: dict[str, list[str]]
    # question -> parts of the library not there for it
    without: dict[str, tuple[str, ...]]


def find_assignment(name: str, root: Path | None = None) -> Path:
    """The autograder zip: a path that ends in .zip, or the name of an assignment that
    was built under `root`."""
    if name.endswith(".zip"):
        if not Path(name).is_file():
            raise CourseError(f"There is no file {name}.")
        return Path(name)
    built = sorted(find_root(root).glob("build/assignments/*/autograder.zip"))
    names = {path.parent.name: path for path in built}
    if name in names:
        return names[name]
    if not names:
        raise CourseError(
            f"There is no assignment {name!r}: none is built. Run `make assignments`, "
            "or give a zip."
        )
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise CourseError(
        f"There is no assignment {name!r}.{hint} Those that are built are: "
        f"{', '.join(names)}."
    )


def read_assignment(path: Path) -> Assignment:
    """Read an autograder zip, and with otter's own classes the
    points of each test case."""
    try:
        from otter.test_files import ExceptionTestFile
    except ImportError as error:
        raise CourseError(
            "otter-grader is not installed: pip install 'ioi_course[course]'."
        ) from error
    try:
        with zipfile.ZipFile(path) as archive:
            name = json.loads(archive.read("otter_config.json"))["assignment_name"]
            sources = {
                Path(n).stem: archive.read(n).decode()
                for n in archive.namelist()
                if n.startswith("tests/")
            }
        sources = {
            question: sources[question]
            for question in sorted(sources, key=_natural)
            if sources[question]
        }
        tests = {
            question: ExceptionTestFile.from_string(source, question)
            for question, source in sources.items()
        }
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, SyntaxError) as error:
        raise CourseError(
            f"{path} is not an autograder zip with tests in otter's exception format "
            f"(ok_format: false): {error}."
        ) from error
    if not tests:
        raise CourseError(f"{path} holds no tests.")
    cases = {
        question: [
            {"name": c.name, "points": c.points, "hidden": bool(c.hidden)}
            for c in file.test_cases
        ]
        for question, file in tests.items()
    }
    answers = {
        q: sorted({n for c in file.test_cases for n in c.body._get_func_params()})
        for q, file in tests.items()
    }
    return Assignment(
        path,
        name,
        sources,
        cases,
        answers,
        {q: without_of(source) for q, source in sources.items()},
    )


def without_of(tests: str) -> tuple[str, ...]:
    """The parts of the library that the tests of a question name in `without`, see
    `ioi_course.grading.absence`."""
    calls = [node for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Call)]
    calls = [
        call
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "without"
    ]
    return tuple(
        sorted(
            {
                arg.value
                for call in calls
                for arg in call.args[1:]
                if isinstance(arg, ast.Constant)
            }
        )
    )


def _natural(name: str) -> list:
    """A key that sorts q2 before q10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
    ]
