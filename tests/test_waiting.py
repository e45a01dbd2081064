"""What waits for an exercise: any use of it says so, and in a
notebook the run goes on."""

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from ioi_course.checks.core import Exercise
from ioi_course.waiting import Unwritten, Waiting, wait_for

USES = {
    "call": lambda x: x(1, b=2),
    "attribute": lambda x: x.shape,
    "item": lambda x: x["a"],
    "set": lambda x: x.__setitem__(0, 1),
    "arithmetic": lambda x: 2 * x - 1,
    "in place": lambda x: torch.ones(2).add_(x),
    "compare": lambda x: x >= 1,
    "equal": lambda x: x == 1,
    "truth": lambda x: bool(x),
    "text": lambda x: f"{x:.2f}",
    "plain text": lambda x: str(x),
    "number": lambda x: float(x),
    "torch": lambda x: torch.allclose(torch.ones(1), x),
    "torch list": lambda x: torch.stack([torch.ones(1), x]),
    "numpy": lambda x: np.mean(x),
    "unpack": lambda x: [*x],
    "length": lambda x: len(x),
    "frame": lambda x: pd.DataFrame({"a": x}),
    "with": lambda x: x.__enter__(),
}


@pytest.mark.parametrize("use", USES)
def test_every_use_names_the_exercise(use):
    with pytest.raises(Waiting, match="This cell waits for exercise 6.2."):
        USES[use](Unwritten("6.2"))


def test_it_can_be_shown():
    assert repr(Unwritten("6.2")) == "<waits for exercise 6.2>" and not hasattr(
        Unwritten("6.2"), "_repr_html_"
    )


def test_outside_of_a_notebook_nothing_is_replaced():
    def answer(x):
        return None

    wait_for(answer, "6.2")
    assert answer(1) is None


def test_a_stand_in_is_still_an_unwritten_answer():
    exercise = Exercise(
        "6.2", "One head", lambda x: x, lambda seed: [(torch.ones(2),)], ()
    )
    verdict = exercise(Unwritten("6.2"))
    assert verdict.kind == "not written" and verdict.message.startswith(
        "not written yet"
    )


CHECK = """from ioi_course.checks.core import Exercise
import torch
check = Exercise("6.2", "Twice", lambda x: 2 * x, lambda seed: [(torch.ones(2),)], ())
kept, stale = 1, 2"""
STUB = "def twice(x):\n    ...\n\ncheck(twice)"
WRITTEN = "def twice(x):\n    return 2 * x\n\ncheck(twice)"
USE = """kept = 5
stale = twice(torch.ones(2))
for step in range(3):
    stale = stale + step
last = stale.sum().item()"""
LATER = "last + 1"


def run(*sources):
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources]
    )
    NotebookClient(nb, timeout=60, kernel_name="python3").execute()
    return [
        "".join(o.get("text") or o["data"]["text/plain"] for o in cell.outputs)
        for cell in nb.cells
    ]


def test_cells_wait_and_then_do_their_work():
    said = run(CHECK, STUB, USE, LATER, "kept", "stale", WRITTEN, USE, LATER)
    waits = "This cell waits for exercise 6.2. Write it, then run the cell again.\n"
    assert "not written yet" in said[1] and said[2] == said[3] == waits
    # what ran is kept, what did not is not the old one
    assert said[4] == "5" and said[5] == "<waits for exercise 6.2>"
    assert said[6].startswith("✓") and said[7:] == ["", "11.0"]


def test_other_errors_still_stop():
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(CHECK, STUB, USE, "1 / 0")


def test_an_error_in_a_written_answer_is_the_students_own():
    with pytest.raises(CellExecutionError, match="KeyError"):
        run(CHECK, "def twice(x):\n    return {}['a']\n\ncheck(twice)", USE)


def test_what_is_filled_waits_too():
    """A dictionary that a waiting cell began to fill is not left half full."""
    fill = "rows = {}\nfor name in 'ab':\n    rows[name] = twice(torch.ones(1))"
    assert run(CHECK, STUB, fill, "rows['a']")[3].startswith(
        "This cell waits for exercise 6.2."
    )
