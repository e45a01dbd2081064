"""Exercises in a chapter: the cell that holds a solution, the stub that is made from
it, and the student edition."""

from __future__ import annotations

import ast
import hashlib
import re
from copy import deepcopy
from dataclasses import dataclass

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from ioi_course.publish.badge import is_badge

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
SOLUTION = re.compile(rf"^([ \t]*){BEGIN}\n.*?^[ \t]*{END}$", re.MULTILINE | re.DOTALL)
DIRECTIVES = re.compile(r"^#\|.*\n?", re.MULTILINE)
HEADING = re.compile(
    r"^### Exercise (?P<number>\d+\.\d+) · (?P<title>.+?) \(★{1,3}\)$", re.MULTILINE
)
CHECK = re.compile(r"^checks\.(\w+)\((\w+)\)$", re.MULTILINE)
DEFINED = re.compile(r"^(?:def|class) (\w+)", re.MULTILINE)
# Colab's way and JupyterLab's way to fold a cell
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}


class ExerciseError(ValueError):
    """A chapter's exercise is not written as the tools expect it."""


@dataclass(frozen=True)
class ExerciseCells:
    """Where an exercise stands in a notebook: the text with its hint, then the
    stub, then the solution."""

    number: str
    title: str
    check: str  # the name in `ioi_course.checks`
    text: NotebookNode
    stub: NotebookNode
    solution: NotebookNode


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell holds a solution between the markers."""
    return cell.cell_type == "code" and BEGIN in cell.source


def stub_source(solution: str) -> str:
    """The source of the stub: the solution's cell without directives, and `...` in
    place of what the markers enclose."""
    source, count = SOLUTION.subn(
        lambda found: f"{found[1]}...  # your code", DIRECTIVES.sub("", solution)
    )
    if not count or BEGIN in source or END in source:
        raise ExerciseError(
            f"A solution's markers do not pair up: a line {BEGIN!r}, then a line "
            f"{END!r}, in\n{solution}"
        )
    return source


def _stub_id(solution: NotebookNode) -> str:
    return hashlib.sha256(f"stub of {solution.id}".encode()).hexdigest()[:8]


def with_stubs(nb: NotebookNode) -> NotebookNode:
    """The notebook with each solution's cell folded and the stub before it made
    anew; changed in place."""
    stubs = {_stub_id(cell): cell for cell in nb.cells if is_solution(cell)}
    outputs = {cell.id: cell.outputs for cell in nb.cells if cell.id in stubs}
    cells = []
    for cell in nb.cells:
        if cell.id in stubs:
            continue
        if is_solution(cell):
            stub = new_code_cell(stub_source(cell.source), id=_stub_id(cell))
            stub.outputs = outputs.get(stub.id, [])
            cells.append(stub)
            cell.metadata.update(FOLDED)
        cells.append(cell)
    nb.cells = cells
    return nb


def exercises(nb: NotebookNode) -> list[ExerciseCells]:
    """The exercises of a notebook in order; raises `ExerciseError` where one is not
    text, stub and solution in a row."""
    found = []
    for i, cell in enumerate(nb.cells):
        if not is_solution(cell):
            continue
        text, stub = nb.cells[i - 2 : i] if i >= 2 else (None, None)
        heading = (
            HEADING.search(text.source)
            if text is not None and text.cell_type == "markdown"
            else None
        )
        check = CHECK.search(cell.source)
        if heading is None or check is None or stub.id != _stub_id(cell):
            raise ExerciseError(
                "A solution wants a text cell with a heading such as '### Exercise 3.1 "
                "· Read the stream (★)' and its stub before it, and ends with a call "
                f"such as checks.read_stream(read_stream):\n{cell.source}"
            )
        found.append(
            ExerciseCells(
                heading["number"], heading["title"], check[1], text, stub, cell
            )
        )
    return found


ANSWER = re.compile(
    r"<details>\s*<summary>(?:An )?(?:Answer|answer|Thoughts)</summary>.*?</details>",
    re.DOTALL,
)
LINK = re.compile(
    r"\]\((?!\w+:|#)(?P<path>[\w./-]+?)\.(?:ipynb|qmd|html)(?P<anchor>#[\w=-]*)?\)"
)
CHAPTER = re.compile(r"\d\d_\w+")


def student_edition(
    nb: NotebookNode,  # a chapter with its stubs; it is left as it is
    name: str,  # the chapter's name, such as 03_logit_lens
    site: str,  # the address of the published website, ending in /
    badge: str,  # that opens the student edition in Colab, in Markdown
) -> NotebookNode:
    """The chapter as a student gets it: stubs without solutions, no folded answers, no
    outputs, and a Colab badge.

    A cell that uses the student's own answer says so. While the answer is missing it is
    passed over (`waiting`).
    """
    answers = {found.solution.id: found for found in exercises(nb)}
    numbers: dict[str, str] = {}  # what a solution defines: the exercise's number
    cells = []
    for cell in deepcopy(nb.cells):
        if is_badge(cell):
            continue
        if cell.id in answers:
            numbers |= dict.fromkeys(
                DEFINED.findall(cell.source), answers[cell.id].number
            )
            continue
        if cell.cell_type == "markdown":
            hidden = f"*[The published chapter]({site}{name}.html) has an answer.*"
            cell.source = _linked(ANSWER.sub(hidden, cell.source), site)
        else:
            cell.source, cell.outputs, cell.execution_count = (
                DIRECTIVES.sub("", cell.source).strip("\n"),
                [],
                None,
            )
            cell.metadata = NotebookNode()
            used = sorted(
                {numbers[name] for name in _names(cell.source) if name in numbers},
                key=_order,
            )
            if used and not CHECK.search(cell.source):
                cell.source = (
                    f"# Needs your answer to exercise {' and '.join(used)}.\n"
                    f"{cell.source}"
                )
        if cell.source:
            cells.append(cell)
    note = (
        f"{badge}\n\n"
        "*The student edition: exercises without solutions. "
        f"[The published chapter]({site}{name}.html) shows every output.*"
    )
    cells.insert(
        1,
        new_markdown_cell(
            note, id=hashlib.sha256(f"note of {name}".encode()).hexdigest()[:8]
        ),
    )
    return NotebookNode(nb | {"cells": cells})


def _names(source: str) -> set[str]:
    """The names that a cell uses: no words in texts, no parameters. Empty for a cell
    that is not plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    nodes = list(ast.walk(tree))
    used = {
        node.id
        for node in nodes
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    return used - {node.arg for node in nodes if isinstance(node, ast.arg)}


def _order(number: str) -> tuple[int, ...]:
    return tuple(map(int, number.split(".")))


def _linked(text: str, site: str) -> str:
    """Chapters stand side by side in the student edition, too; all other pages are
    those of the website."""

    def link(found: re.Match) -> str:
        path = found["path"]
        return (
            found[0]
            if CHAPTER.fullmatch(path)
            else f"]({site}{path}.html{found['anchor'] or ''})"
        )

    return LINK.sub(link, text)
