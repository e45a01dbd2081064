"""Predictions: a guess before the look, what came out, and never an
error for the reader."""

import ast
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from ioi_course.predictions import Predictions

ROOT = Path(__file__).parents[1]
COMPARED = [
    (path, call)
    for path in sorted(ROOT.glob("nbs/[0-9]*.ipynb"))
    for call in ("predict.score(", "reference.check(")
    if call in path.read_text("utf-8")
]


@pytest.fixture
def predict():
    return Predictions("6")


def test_an_empty_guess_costs_nothing(predict):
    assert (
        repr(predict("6.a", ..., "Which layer?"))
        == "○ 6.a · Which layer?\n  write your guess in place of the dots"
    )
    assert (
        repr(predict.score("6.a", 8))
        == "○ 6.a · Which layer?\n  measured: 8 · no guess"
    )
    assert "You made no predictions" in repr(predict.ledger())


@pytest.mark.parametrize(
    ("guess", "measured", "within", "verdict"),
    [
        (8, 8, 0, "right"),
        (7, 8, 1, "right"),
        (5, torch.tensor(8), 1, "off by 3"),
        (0.5, np.float64(0.25), 0.1, "off by 0.25"),
        ("L9H9", (9, 9), 0, "right"),
        ("l9h9", {"L9H9", "L9H6"}, 0, "right"),
        ((9, 6), {(9, 9), (9, 6)}, 0, "right"),
        ("9.9", "L9H9", 0, "right"),
        ("END", "end", 0, "right"),
        ("  the subject ", "the subject", 0, "right"),
        (True, "yes", 0, "right"),
        ("many", 8, 0, "not this time"),
        (8, "L9H9", 0, "not this time"),
        (None, 8, 0, "not this time"),
        ([1, 2, 3], 8, 0, "not this time"),
        (float("nan"), 8, 1, "off by nan"),
    ],
)
def test_a_guess_of_any_kind_is_compared(predict, guess, measured, within, verdict):
    predict("6.a", guess, "What?")
    assert predict.score("6.a", measured, within).verdict == verdict
    repr(predict.ledger()), predict.ledger()._repr_html_()


def test_the_first_guess_counts(predict):
    predict("6.a", 3, "What?")
    predict("6.a", 4, "What?")  # before the look one may think again
    predict.score("6.a", 8)
    shown = predict("6.a", 8, "What?")
    assert (
        shown.guess == 4
        and "changed later" in repr(shown)
        and "changed later" in repr(predict.ledger())
    )


def test_a_cell_may_run_again(predict):
    for _ in range(2):
        predict("6.a", 4, "What?")
        predict.score("6.a", 8, within=4)
    assert not predict.made["6.a"].changed and "1 came out as you said" in repr(
        predict.ledger()
    )


def test_a_result_that_waits_says_so_at_once(predict):
    from ioi_course.waiting import Unwritten, Waiting

    predict("6.a", 4, "What?")
    with pytest.raises(Waiting, match="exercise 6.2"):
        predict.score("6.a", Unwritten("6.2"))
    assert predict.made["6.a"].measured is ... and "What?" in repr(predict.ledger())


def test_slips_of_the_author_are_errors(predict):
    with pytest.raises(ValueError, match="'6.a'"):
        predict("7.a", 1, "What?")
    with pytest.raises(ValueError, match="none yet"):
        predict.score("6.a", 1)


def test_markup_is_shown_as_text(predict):
    assert "<b>x" not in predict("6.a", "<b>x</b>", "Is 1 < 2?")._repr_html_()


@pytest.mark.parametrize(("path", "call"), COMPARED)
def test_every_comparison_is_shown(path, call):
    """One that is neither the last thing in its cell nor given to `display` compares a
    guess or a published figure, and nobody sees it."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or call not in cell.source:
            continue
        tree = ast.parse(cell.source)
        dropped = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr)
            and ast.unparse(node).startswith(call)
            and node is not tree.body[-1]
        ]
        assert not dropped, cell.source
