"""A small assignment, and submissions to it, for the tests of grading."""

import json
import zipfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAME = "small"
HEAD = (
    'from otter.test_files import test_case\nOK_FORMAT = False\nname = "{}"\n'
    "points = {}\n"
)
TESTS = {
    "q1": (
        2,
        """
@test_case(points=1, hidden=False)
def test_q1_three(double):
    assert double(3) == 6, "double(3) is 6"

@test_case(points=1, hidden=True)
def test_q1_secret(double):
    from ioi_course.checks.core import Exercise
    verdict = Exercise(
        "1", "Double", lambda x: 2 * x, lambda seed: [(seed,), (-1.5,)], ()
    )(double, seed=41)
    assert verdict, verdict
""",
    ),
    "q2": (
        3,
        """
@test_case(points=1, hidden=False)
def test_q2_literal(margin):
    import torch
    from ioi_course.checks.core import run, same, plain
    three_one = torch.tensor([3.0, 1.0])
    assert same(run(margin, (three_one,)), plain(2.0), 1e-6), "3 − 1 is 2"

@test_case(points=2, hidden=True)
def test_q2_secret(margin):
    import torch
    rows = torch.tensor([[0.25, -4.0], [7.5, torch.inf]])
    margins = torch.stack([margin(row) for row in rows])
    assert torch.allclose(margins, torch.tensor([4.25, -torch.inf]))
""",
    ),
    "q10": (
        1,
        """
@test_case(points=1, hidden=True)
def test_q10_secret(best_head):
    assert best_head == (9, 9)
""",
    ),
}
SETUP = 'import otter\n\ngrader = otter.Notebook("small.ipynb")'
DOUBLE = "def double(x):\n    return 2 * x"
MARGIN = "def margin(logits):\n    return logits[0] - logits[1]"
BEST = "best_head = (9, 9)"
CELLS = [
    SETUP,
    "import torch",
    DOUBLE,
    'grader.check("q1")',
    MARGIN,
    'grader.check("q2")',
    BEST,
    "grader.check_all()",
]
WRONG = [
    SETUP,
    "import torch",
    "def double(x):\n    return 1.0",
    "def margin(logits):\n    return 0",
    "best_head = 0",
]
ALL = {"q1": 2, "q2": 3, "q10": 1}
NOTHING = dict.fromkeys(ALL, 0)


def notebook(sources=CELLS, name=NAME) -> bytes:
    nb = new_notebook(
        cells=[new_markdown_cell("# Small"), *map(new_code_cell, sources)]
    )
    for i, cell in enumerate(nb.cells):
        cell.id = f"cell-{i}"
    public = HEAD.format("q1", 2) + TESTS["q1"][1].split("\n\n")[0]
    nb.metadata["otter"] = {
        "OK_FORMAT": False,
        "assignment_name": name,
        "tests": {"q1": public},
    }
    return nbformat.writes(nb).encode()


def with_cell(source: str) -> bytes:
    """All answers right, and a cell before the last answer."""
    return notebook([*CELLS[:5], source, *CELLS[5:]])


def instead_of(cell: str, source: str) -> bytes:
    return notebook([source if each == cell else each for each in CELLS])


def write_zip(path: Path) -> Path:
    """The autograder zip."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("otter_config.json", json.dumps({"assignment_name": NAME}))
        for question, (points, source) in TESTS.items():
            archive.writestr(
                f"tests/{question}.py", HEAD.format(question, points) + source
            )
    return path
