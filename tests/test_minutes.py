"""How long a lesson takes is counted, and every place that says it says the count."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ioi_course.project import find_root
from ioi_course.publish.exercises import with_stubs
from ioi_course.publish.minutes import (
    EXERCISE,
    LINES_A_MINUTE,
    WORDS_A_MINUTE,
    Content,
    content,
    with_hours,
    with_minutes,
    with_schedules,
)

ROOT = find_root()
LESSONS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb")) + sorted(
    (ROOT / "nbs").glob("appendix/*.ipynb")
)
SOLVED = """#| code-fold: true
#| code-summary: "Solution"
def add(a, b):
    # BEGIN SOLUTION
    return a + b
    # END SOLUTION


checks.add(add)"""


def lesson(*cells):
    return with_stubs(new_notebook(cells=list(cells)))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_what_is_counted(path):
    nb = nbformat.read(path, as_version=4)
    assert (
        int(re.search(r"(\d+) minutes", nb.cells[0].source)[1]) == content(nb).minutes
    ), "run tools/minutes.py"


def test_words_lines_and_stars_are_counted():
    text = (
        "### Exercise 3.1 · Add (★★)\nAdd two.\n\n<details><summary>Hint</summary>\n\n"
        "Which sign?\n\n</details>"
    )
    nb = lesson(
        new_markdown_cell("Four words, [one link](glossary.qmd#many-more-words-here)."),
        new_code_cell("a = 1\n\nb = 2"),
        new_code_cell("#| hide\nimport sys"),
        new_markdown_cell(text),
        new_code_cell(SOLVED),
    )
    assert content(nb) == Content(words=4 + 5, lines=2, stars=("★★",))


def test_minutes_are_the_sum_at_the_stated_rates():
    assert Content(0, 0, ()).minutes == 0
    assert Content(WORDS_A_MINUTE * 10, LINES_A_MINUTE * 10, ()).minutes == 20
    assert Content(0, 0, ("★", "★★", "★★★")).minutes == sum(EXERCISE.values())
    assert (
        Content(WORDS_A_MINUTE * 7, 0, ()).minutes == 5
        and Content(WORDS_A_MINUTE * 8, 0, ()).minutes == 10
    )


def test_a_longer_lesson_says_so():
    nb = lesson(
        new_markdown_cell(
            "# T\n\n*About 5 minutes. Then 10 minutes more.* " + "word " * 3000
        )
    )
    assert (
        with_minutes(nb)
        .cells[0]
        .source.startswith("# T\n\n*About 20 minutes. Then 10 minutes more.*")
    )


def test_the_guide_and_the_first_page_follow():
    guide = (
        "The chapters take 9 hours.\n\n| 1 | 0–1 | 5 | |\n| 2 | 2 | 5 | A |\n\n"
        "| softmax | 5 |"
    )
    want = (
        "The chapters take 3 hours.\n\n| 1 | 0–1 | 75 | |\n| 2 | 2 | 100 | A |\n\n"
        "| softmax | 5 |"
    )
    assert with_schedules(guide, {0: 30, 1: 45, 2: 100}) == want
    assert (
        with_hours("all of them take 9 hours", [100, 31]) == "all of them take 2 hours"
    )


def test_the_guide_states_the_rates():
    guide = (ROOT / "nbs" / "instructor_guide.qmd").read_text(encoding="utf-8")
    one, two, three = EXERCISE.values()
    assert (
        f"{WORDS_A_MINUTE} words of text a minute" in guide
        and f"{LINES_A_MINUTE} lines of code a minute" in guide
    )
    assert (
        f"{one} minutes with one star, {two} with two and {three} with three" in guide
    )
