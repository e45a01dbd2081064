"""What students hand in: find the notebooks, read their cells, refuse what is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
import ast
import re

import nbformat

from ioi_course.project import CourseError

LARGEST = 50 * 2**20  # bytes of a submission; a notebook full of pictures has some 10 MB
CHECK = re.compile(r"(\s*grader\.check(_all)?\([^()]*\)\s*;?)+")
NAMED = re.compile(r"""Notebook\(\s*["']([\w.-]+)\.ipynb["']""")


def find_submissions(paths: Iterable[Path], assignment: str) -> dict[str, Path]:
    """Student -> notebook. A folder may hold notebooks, or a folder for each student, as learning platforms export.

    A student is called as the file is, or as the folder where the file alone would not tell.
    """
    found: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_file():
            found.append((path.resolve().parent.name if path.stem == assignment else path.stem, path))
            continue
        if not path.is_dir():
            raise CourseError(f"There is no file or folder {path}.")
        inside = sorted(p for p in path.rglob("*.ipynb") if not any(x[0] == "." for x in p.relative_to(path).parts))
        if not inside:
            raise CourseError(f"The folder {path} holds no notebook.")
        heads = Counter(p.relative_to(path).parts[0] for p in inside)
        for p in inside:
            head = p.relative_to(path).parts[0]
            alone = p.parent == path or heads[head] > 1
            prefix = "" if p.parent == path else f"{head}_"
            found.append((prefix + p.stem if alone else head, p))
    students: dict[str, Path] = {}
    for student, path in ((clean_text(name), path) for name, path in found):
        if student in students and students[student].resolve() != path.resolve():
            raise CourseError(f"Two submissions are of {student!r}: {students[student]} and {path}. Rename one.")
        students[student] = path
    return dict(sorted(students.items()))


class Refused(Exception):
    """A file that is not a submission to this assignment."""


def read_cells(data: bytes, assignment: str) -> list[tuple[int, str]]:
    """Number, counted from 1, and source of the code cells to run: not those that only call the checker."""
    if len(data) > LARGEST:
        raise Refused(f"The file has {len(data) / 2**20:.0f} MB; a notebook has at most {LARGEST // 2**20}.")
    try:
        nb = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
        cells = [(i, cell.source) for i, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
        otter = nb.metadata.get("otter") or {}
        name = otter.get("assignment_name")
        sources = [source for _, source in cells if source.strip()]
    except Exception as error:  # nbformat, json and whoever wrote the file have many ways to fail
        raise Refused(f"The file is no notebook: {type(error).__name__}.") from error
    named = [found for source in sources for found in NAMED.findall(source)]
    name = name or (named[0] if named else None)  # a platform may drop the notebook's metadata
    if name != assignment:
        said = f"for the assignment {name!r}" if name else "without the name of an assignment"
        raise Refused(f"This is a notebook {said}, not for {assignment!r}.")
    return [(i, source) for i, source in cells if source.strip() and not CHECK.fullmatch(source)]


def defined_twice(cells: Sequence[tuple[int, str]], names: set[str]) -> list[str]:
    """A note for each function among the names that several cells define."""
    where: dict[str, list[int]] = {}
    for i, source in cells:
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name in {node.name for node in body if isinstance(node, ast.FunctionDef)} & names:
            where.setdefault(name, []).append(i)
    several = {name: places for name, places in where.items() if len(places) > 1}
    return [f"{name} is defined in the cells {listed(places)}: the last counts." for name, places in several.items()]


def listed(items: Iterable) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def clean_text(value: object, longest: int = 300) -> str:
    """What a submission says, in characters that every file format can hold."""
    text = str(value)[:longest].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
