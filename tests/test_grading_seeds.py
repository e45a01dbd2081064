"""The inputs of hidden tests: nobody knows them before the cells have run, and an
instructor can have them again."""

import json
import re
import sys
import zipfile

import pytest
from small import HEAD, NAME, SETUP, notebook

from ioi_course.grading import draws
from ioi_course.grading.assignments import read_assignment
from ioi_course.grading.grade import grade as grade_one
from ioi_course.grading.server import Limits

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)

DRAWING = """
@test_case(points=1, hidden=False)
def test_q1_literal(double):
    assert double(3) == 6

@test_case(points=1, hidden=True)
def test_q1_drawn(double):
    from ioi_course.grading.draws import drawn
    assert double(drawn("q1_drawn")) == 2 * drawn("q1_drawn"), (
        f"drawn: {drawn('q1_drawn')}, {drawn('other')}")
"""
# of answers that somebody worked out beforehand, for the number that it expects
TABLE = (
    "from ioi_course.grading import draws\n"
    "{}\n"
    "expected = {}\n"
    "def double(x):\n    return 6 if x == 3 else {{expected: 2 * expected}}.get(x, 0)"
)
FORETOLD = {
    "asked for while the cells run": TABLE.format("", "draws.drawn('q1_drawn')"),
    "fixed by the cells": TABLE.format("draws.begin(1)", "draws.drawn('q1_drawn')"),
    "the drawing replaced": TABLE.format(
        "draws.draw = lambda: 1\ndraws.secrets.randbelow = lambda n: 1\n"
        "draws._SEED = 1",
        "draws.drawn('q1_drawn')",
    ),
    "looked for when asked": "from ioi_course.grading import draws\n"
    "def double(x):\n    return 6 if x == 3 else 2 * draws.drawn('q1_drawn')",
}


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """An assignment whose hidden test draws."""
    path = tmp_path_factory.mktemp("drawing") / "autograder.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("otter_config.json", json.dumps({"assignment_name": NAME}))
        archive.writestr("tests/q1.py", HEAD.format("q1", 2) + DRAWING)
    return read_assignment(path)


def said(got):
    return re.findall(r"\d+", got.questions[0].hidden[0]["message"].splitlines()[-1])[
        -2:
    ]


def test_each_grading_draws_and_a_seed_draws_the_same_again(server, drawing):
    wrong = notebook([SETUP, "def double(x):\n    return 6"])
    first, other = (
        grade_one("a", wrong, drawing, server, Limits(20, 1.0)) for _ in range(2)
    )
    again = grade_one("b", wrong, drawing, server, Limits(20, 1.0), seed=first.seed)
    assert (
        said(first) == said(again) != said(other)
        and first.seed == again.seed != other.seed
    )
    assert len(set(said(first))) == 2, "two tests have inputs of their own"
    draws.begin(first.seed)
    try:
        assert said(first) == [str(draws.drawn("q1_drawn")), str(draws.drawn("other"))]
    finally:
        draws.begin(None)


@pytest.mark.parametrize("how", FORETOLD)
def test_inputs_cannot_be_foretold(server, drawing, how):
    got = grade_one(
        "a", notebook([SETUP, FORETOLD[how]]), drawing, server, Limits(20, 1.0)
    )
    assert got.total == 1 and got.notes == [], (
        "the public test alone: the table was made, and did not help"
    )


def test_a_right_answer_is_right_whatever_is_drawn(server, drawing):
    right = notebook([SETUP, "def double(x):\n    return 2 * x"])
    assert [
        grade_one("a", right, drawing, server, Limits(20, 1.0), seed=seed).total
        for seed in (None, 0)
    ] == [2, 2]


def test_a_notebook_draws_by_itself_and_stays_with_what_it_drew():
    draws.begin(None)
    first = draws.drawn("a"), draws.drawn("b")
    assert first == (draws.drawn("a"), draws.drawn("b")) and first[0] != first[1]
    draws.begin(None)
    assert first != (draws.drawn("a"), draws.drawn("b"))
    assert all(0 <= number < draws.LARGEST for number in first)
