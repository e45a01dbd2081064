"""The exercises in the chapters: stubs made from solutions, checks that stop a
stub and pass a solution."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ioi_course import checks
from ioi_course.checks.core import Exercise
from ioi_course.project import find_root
from ioi_course.publish.exercises import (
    ExerciseError,
    exercises,
    is_solution,
    stub_source,
    with_stubs,
)
from ioi_course.publish.pages import Page, write_page
from ioi_course.publish.run import chapter_name, chapters

ROOT = find_root()
NOTEBOOKS = {
    chapter_name(path, ROOT): nbformat.read(path, as_version=4)
    for path in chapters(ROOT)
}
WITH_EXERCISES = [
    name for name in NOTEBOOKS if re.match(r"\d\d_", name) and name != "00_setup"
]
SOLUTION = '''#| code-fold: true
#| code-summary: "Solution"
def double(x):
    """Twice x."""
    # BEGIN SOLUTION
    y = x
    return x + y
    # END SOLUTION


checks.double(double)'''
STUB = '''def double(x):
    """Twice x."""
    ...  # your code


checks.double(double)'''


def small() -> nbformat.NotebookNode:
    text = "### Exercise 9.1 · Double (★)\nReturn twice x."
    return new_notebook(
        cells=[new_markdown_cell(text), new_code_cell(SOLUTION, id="abcd1234")]
    )


def shown(cell) -> str:
    return "".join(
        output.get("data", {}).get("text/plain", "") for output in cell.outputs
    )


def test_stub_keeps_the_signature_and_loses_the_solution():
    assert stub_source(SOLUTION) == STUB


def test_several_marked_parts_each_leave_a_gap():
    source = (
        "a = 1\n# BEGIN SOLUTION\nb = 2\n# END SOLUTION\nc = 3\n# BEGIN SOLUTION\n"
        "d = 4\n# END SOLUTION"
    )
    assert stub_source(source) == "a = 1\n...  # your code\nc = 3\n...  # your code"


@pytest.mark.parametrize("line", ["    # BEGIN SOLUTION\n", "    # END SOLUTION\n"])
def test_markers_that_do_not_pair_up_are_refused(line):
    with pytest.raises(ExerciseError, match="do not pair up"):
        stub_source(SOLUTION.replace(line, ""))


def test_stubs_are_made_once_and_follow_their_solution():
    nb = with_stubs(small())
    assert [cell.source for cell in nb.cells[1:]] == [STUB, SOLUTION]
    nb.cells[1].outputs = [nbformat.v4.new_output("stream", text="○")]
    again = with_stubs(nb)
    assert len(again.cells) == 3 and again.cells[1].outputs, (
        "an unchanged stub keeps its output"
    )
    again.cells[2].source = SOLUTION.replace("double", "twice")
    assert "def twice" in with_stubs(again).cells[1].source and len(again.cells) == 3
    assert again.cells[2].metadata == {
        "cellView": "form",
        "jupyter": {"source_hidden": True},
    }


def test_a_solution_without_its_text_is_refused():
    nb = with_stubs(new_notebook(cells=[new_code_cell("1"), new_code_cell(SOLUTION)]))
    with pytest.raises(ExerciseError, match="wants a text cell with a heading"):
        exercises(nb)


def test_page_folds_the_solution_and_shows_the_stub(tmp_path):
    write_page(with_stubs(small()), Page("Small", "small.html"), tmp_path)
    html = (tmp_path / "small.html").read_text()
    folded = re.search(
        r"<details[^>]*><summary>Solution</summary>(.*?)</details>", html, re.DOTALL
    )
    assert (
        folded
        and "return" in folded[1]
        and "SOLUTION" not in html
        and "your code" not in folded[1]
    )
    assert "your code" in html


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stubs_in_the_chapter_are_those_of_its_solutions(name):
    nb = NOTEBOOKS[name]
    before = nbformat.writes(nb)
    assert (
        nbformat.writes(with_stubs(nbformat.reads(before, as_version=4))) == before
    ), "run tools/stubs.py"


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_chapter_has_exercises_whose_checks_work(name):
    found = exercises(NOTEBOOKS[name])
    assert 3 <= len(found) <= 8
    assert [each.number for each in found] == [
        f"{int(name[:2])}.{i}" for i in range(1, len(found) + 1)
    ]
    for each in found:
        check = getattr(checks, each.check)
        assert (check.number, check.title) == (each.number, each.title)
        assert "<summary>Hint</summary>" in each.text.source, each.number
        assert shown(each.stub).startswith("○"), (
            f"{each.number}: the stub is not called unwritten"
        )
        assert shown(each.solution).startswith("✓"), (
            f"{each.number}: the solution does not pass"
        )


def test_every_check_has_its_exercise():
    used = [
        each.check for name in WITH_EXERCISES for each in exercises(NOTEBOOKS[name])
    ]
    assert sorted(used) == sorted(
        name for name, value in vars(checks).items() if isinstance(value, Exercise)
    )


def test_solutions_are_folded_everywhere():
    for nb in NOTEBOOKS.values():
        for cell in filter(is_solution, nb.cells):
            assert cell.source.startswith(
                '#| code-fold: true\n#| code-summary: "Solution"\n'
            )  # Quarto's way
            assert (
                cell.metadata.jupyter.source_hidden and cell.metadata.cellView == "form"
            )
