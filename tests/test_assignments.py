"""The graded assignments: what is built of them, and what right, wrong, empty
and restyled answers score.

Notebooks are graded by otter's own classes in this process. One submission also goes
the whole way, in a kernel, and must score the same; and `make assignments` runs the
solutions of each master in a kernel.

Hidden tests draw their inputs, and the same answer must get the same points whatever
was drawn. Each answer is tried at a seed of its own; with IOI_COURSE_SEEDS=30 in the
environment at thirty, which takes half an hour.
"""

import copy
import csv
import functools
import json
import os
import runpy
import shutil
import sys
import types
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

pytest.importorskip(
    "otter", reason="otter-grader is not installed (the extra `course`)"
)

from asked import Loop
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from otter import Notebook
from otter.api import grade_submission
from otter.execute import Checker
from otter.test_files import GradingResults

from ioi_course import models
from ioi_course.checks import core
from ioi_course.grading import draws, gradescope
from ioi_course.grading.assignments import read_assignment
from ioi_course.grading.grade import grade as grade_one
from ioi_course.grading.judge import judged

ROOT = Path(__file__).resolve().parent.parent
TOOL = types.SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "assignments.py")))
MASTERS = {path.stem: path for path in TOOL.masters()}
ANSWERS = {
    path.stem: runpy.run_path(str(path))
    for path in sorted((ROOT / "tests" / "submissions").glob("*.py"))
}
POINTS = 40  # of each assignment
# of the hidden tests, at which each answer is tried
SEEDS = int(os.environ.get("IOI_COURSE_SEEDS", "1"))
SOLUTION_TAG, STUB_TAG = "otter_assign_solution_cell", "otter_answer_cell"

every_assignment = pytest.mark.parametrize("name", MASTERS)


@pytest.fixture(scope="module", autouse=True)
def one_model():
    """Load the synthetic model once: notebooks and hidden tests ask
    for it again and again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_model", functools.cache(models.load_model))
        yield


class Built:
    """An assignment as it was built, and otter's test files out of its zip."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self.out = TOOL.build(MASTERS[name], folder / name, check=False)
        self.zip = self.out / "autograder.zip"
        with zipfile.ZipFile(self.zip) as archive:
            archive.extractall(folder / "source")
        self.tests_dir = folder / "source" / "tests"
        self.tests = TOOL.test_files(self.zip)
        self.assignment = read_assignment(self.zip)
        self.namespace = None

    def notebook(self, kind: str) -> NotebookNode:
        return nbformat.read(self.out / kind / f"{self.name}.ipynb", as_version=4)

    def after_set_up(self) -> dict:
        """A namespace in which the cells ran that are no answers and no checks."""
        if self.namespace is None:
            self.namespace = {"__name__": "__main__"}
            for cell in code_cells(self.notebook("student")):
                if "grader" not in cell.source and STUB_TAG not in cell.metadata.get(
                    "tags", []
                ):
                    run_cell(cell.source, self.namespace)
        return dict(self.namespace)

    def losses(self, question: str, answer: str, ours: bool = True) -> dict[int, float]:
        """The points that an answer loses, by seed; a cell that raises leaves its names
        undefined, as in a kernel.

        As otter counts in a kernel, and with `ours` as our grader does, which asks by
        messages: the two must agree.
        """
        namespace, test = self.after_set_up(), self.tests[question]
        try:
            run_cell(answer, namespace)
        except Exception:
            pass
        first = zlib.crc32(answer.encode())
        draws.begin(first)
        test.run(namespace)
        lost = {first: round(test.possible - test.score, 6)}
        if ours:
            assert self.lost_by_asking(question, namespace) == lost[first], (
                "otter and our grader do not agree"
            )
        drawing = copy.copy(test)
        drawing.test_cases = [
            case
            for case in test.test_cases
            if "drawn" in case.body.test_func.__code__.co_names
        ]
        failed = [
            result.test_case for result in test.test_case_results if not result.passed
        ]
        same = sum(case.points for case in failed if case not in drawing.test_cases)
        for seed in range(first + 1, first + SEEDS if drawing.test_cases else first):
            draws.begin(seed)
            drawing.run(namespace)
            lost[seed] = round(
                same
                + sum(
                    r.test_case.points
                    for r in drawing.test_case_results
                    if not r.passed
                ),
                6,
            )
        return lost

    def lost_by_asking(self, question: str, namespace: dict) -> float:
        one, lost = self.assignment, 0.0
        for hidden in (False, True):
            line = Loop(namespace, hidden, one.without[question])
            results = judged(one.tests[question], one.answers[question], hidden, line)
            points = [
                case["points"]
                for case in one.cases[question]
                if case["hidden"] == hidden
            ]
            lost += sum(
                p for p, (passed, _) in zip(points, results, strict=True) if not passed
            )
        return lost


@functools.cache
def built(name: str, base: Path) -> Built:
    return Built(name, base / name)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("assignments")


@pytest.fixture
def assignment(name, base) -> Built:
    return built(name, base)


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def run_cell(source: str, namespace: dict) -> None:
    exec(
        compile(TransformerManager().transform_cell(source), "<cell>", "exec"),
        namespace,
    )


@contextmanager
def grading_mode(tests_dir: Path) -> Iterator[None]:
    """Otter's grading mode: checks use the given tests, and their results are kept."""
    Notebook.init_grading_mode(str(tests_dir))
    try:
        yield
    finally:
        Notebook._grading_mode, Notebook._tests_dir_override = False, None
        Checker.disable_tracking()
        Checker.clear_results()


def grade(
    nb: NotebookNode, assignment: Built, folder: Path, monkeypatch
) -> tuple[GradingResults, list[str]]:
    """What a notebook scores, and the errors of its cells: as otter grades
    in a kernel, but here."""
    monkeypatch.chdir(folder)
    nbformat.write(nb, f"{assignment.name}.ipynb")
    namespace, errors = {"__name__": "__main__"}, []
    with grading_mode(assignment.tests_dir):
        for cell in code_cells(nb):
            try:
                run_cell(cell.source, namespace)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
        for path in sorted(assignment.tests_dir.glob("*.py")):
            Checker.check_if_not_already_checked(str(path), namespace)
        return GradingResults(Checker.get_results()), errors


def scores(results: GradingResults) -> dict[str, float]:
    return {question: results.get_score(question) for question in results.test_files}


# --- what is built


def test_every_master_has_its_answers():
    assert list(MASTERS) == list(ANSWERS) and len(MASTERS) == 4


@every_assignment
def test_master_keeps_the_common_format(name):
    nb = nbformat.read(MASTERS[name], as_version=4)
    first = nbformat.read(next(iter(MASTERS.values())), as_version=4)
    config, expected = (yaml.safe_load(each.cells[0].source) for each in (nb, first))
    assert config == {**expected, "name": name}
    assert not any(cell.get("outputs") for cell in nb.cells), (
        "a master keeps no outputs"
    )
    text = nb.cells[1].source
    assert (
        text.startswith("# Assignment ")
        and "\n> " in text
        and "40 points" in text
        and "*About " in text
    )
    assert nb.cells[2].source == first.cells[2].source, (
        "the cell for Colab is the same everywhere"
    )
    assert f'otter.Notebook("{name}.ipynb")' in nb.cells[3].source


@every_assignment
def test_points_and_tests_of_each_question(assignment):
    assert list(assignment.tests) == [
        f"q{i}" for i in range(1, len(assignment.tests) + 1)
    ]
    assert 8 <= len(assignment.tests) <= 12
    assert sum(test.possible for test in assignment.tests.values()) == POINTS
    for question, test in assignment.tests.items():
        public = [case.points for case in test.test_cases if not case.hidden]
        hidden = [case.points for case in test.test_cases if case.hidden]
        assert public and hidden and sum(public) <= sum(hidden), question
    with (assignment.out / "points.csv").open() as file:
        assert {
            row["question"]: float(row["points"]) for row in csv.DictReader(file)
        } == {question: test.possible for question, test in assignment.tests.items()}


@every_assignment
def test_student_notebook_gives_nothing_away(assignment):
    master, student = (
        nbformat.read(MASTERS[assignment.name], as_version=4),
        assignment.notebook("student"),
    )
    assert TOOL.leaks(student, master) == []
    assert sorted(student.metadata.otter.tests) == sorted(assignment.tests)
    assert student.metadata.otter.assignment_name == assignment.name
    assert all(
        "..." in cell.source
        for cell in code_cells(student)
        if STUB_TAG in cell.metadata.get("tags", [])
    )
    points = "\n".join(
        cell.source for cell in student.cells if cell.cell_type == "markdown"
    )
    by_hand = sum(
        "manual: true" in cell.source
        for cell in master.cells
        if cell.cell_type == "raw"
    )
    assert points.count("_Points:_") == len(assignment.tests) + by_hand
    lines = [line for cell in code_cells(student) for line in cell.source.split("\n")]
    assert max(map(len, lines)) <= 88, max(lines, key=len)
    assert "](../" not in points, (
        "a link that leads nowhere from where a student has the file"
    )


def test_leaks_are_found(base):
    name = next(iter(MASTERS))
    master = nbformat.read(MASTERS[name], as_version=4)
    sources = [cell.source for cell in code_cells(master)]
    solution = next(found[1] for found in map(TOOL.SOLUTION.search, sources) if found)
    hidden = next(
        TOOL.TEST_NAME.search(source)[1]
        for source in sources
        if "hidden: true" in source
    )
    for give_away, said in (
        (
            lambda nb: nb.cells[-1].outputs.append(
                nbformat.v4.new_output("stream", text="40")
            ),
            "an output",
        ),
        (lambda nb: nb.metadata.otter.tests.update(q1=f"def {hidden}(f): ..."), hidden),
        (
            lambda nb: nb.cells.append(nbformat.v4.new_code_cell("a = 1  # SOLUTION")),
            "# SOLUTION",
        ),
        (lambda nb: nb.metadata.update(note=solution), "a line of a solution"),
    ):
        student = built(name, base).notebook("student")
        give_away(student)
        assert any(said in found for found in TOOL.leaks(student, master)), said


@every_assignment
def test_zip_is_what_gradescope_wants(assignment):
    with zipfile.ZipFile(assignment.zip) as archive:
        names = set(archive.namelist())
        config = json.loads(archive.read("otter_config.json"))
        environment = yaml.safe_load(archive.read("environment.yml"))
    tests = {f"tests/{question}.py" for question in assignment.tests}
    assert names == tests | {
        "run_autograder",
        "run_otter.py",
        "setup.sh",
        "environment.yml",
        "otter_config.json",
    }
    assert (
        config["assignment_name"] == assignment.name
        and not config.get("show_hidden")
        and "token" not in config
    )
    pip = environment["dependencies"][-1]["pip"]
    assert pip[0].startswith("otter-grader[") and pip[1:] == TOOL.requirements().split()
    assert all("==" in requirement for requirement in pip)
    version = runpy.run_path(str(ROOT / "ioi_course" / "__init__.py"))["__version__"]
    assert f"ioi_course=={version}" in pip


def test_requirements_are_up_to_date():
    assert (
        ROOT / "assignments" / "requirements.txt"
    ).read_text() == TOOL.requirements(), "run make assignments"


@every_assignment
def test_builds_are_identical(assignment, tmp_path):
    again = TOOL.build(MASTERS[assignment.name], tmp_path / "again", check=False)
    files = sorted(
        path.relative_to(assignment.out)
        for path in assignment.out.rglob("*")
        if path.is_file()
    )
    assert files == sorted(
        path.relative_to(again) for path in again.rglob("*") if path.is_file()
    )
    assert all(
        (again / path).read_bytes() == (assignment.out / path).read_bytes()
        for path in files
    )


# --- what answers score


@every_assignment
def test_solutions_score_everything_wherever_they_stand(
    assignment, tmp_path, monkeypatch
):
    """In the order of the questions `make assignments` runs them; here they come last,
    the last question first."""
    nb = assignment.notebook("instructor")
    answers = [
        cell for cell in nb.cells if SOLUTION_TAG in cell.metadata.get("tags", [])
    ]
    assert len(answers) >= len(assignment.tests)
    nb.cells = [
        cell
        for cell in nb.cells
        if cell not in answers and "grader.check" not in cell.source
    ] + answers[::-1]
    results, errors = grade(nb, assignment, tmp_path, monkeypatch)
    assert (results.total, errors) == (POINTS, []), results.summary()


@every_assignment
def test_empty_notebook_scores_nothing(assignment, tmp_path, monkeypatch):
    results, errors = grade(
        assignment.notebook("student"), assignment, tmp_path, monkeypatch
    )
    assert scores(results) == dict.fromkeys(assignment.tests, 0)
    assert errors == [], "a notebook without answers runs to its end"


WRONG = [
    pytest.param(
        name, question, source, lost, i == 0, id=f"{name[0]}-{question}-{mistake}"
    )
    for name, answers in ANSWERS.items()
    for question, wrong in answers["WRONG"].items()
    for i, (mistake, (lost, source)) in enumerate(wrong.items())
]
RESTYLED = [
    pytest.param(name, question, source, id=f"{name[0]}-{question}-{style}")
    for name, answers in ANSWERS.items()
    for question, restyled in answers["RESTYLED"].items()
    for style, source in restyled.items()
]


@pytest.mark.parametrize("name, question, source, lost, ours", WRONG)
def test_wrong_answer_loses_its_points(assignment, question, source, lost, ours):
    found = assignment.losses(question, source, ours)
    assert {seed: each for seed, each in found.items() if each != lost} == {}, (
        f"{lost} expected at every seed"
    )
    assert lost > 0


@pytest.mark.parametrize("name, question, source", RESTYLED)
def test_restyled_answer_keeps_its_points(assignment, question, source):
    found = assignment.losses(question, source)
    assert {seed: each for seed, each in found.items() if each} == {}, assignment.tests[
        question
    ].summary()


@every_assignment
def test_there_are_enough_wrong_answers(assignment):
    wrong = ANSWERS[assignment.name]["WRONG"]
    assert set(wrong) == set(assignment.tests), "a question without a wrong answer"
    assert (
        sum(map(len, wrong.values())) >= 12
        and len(ANSWERS[assignment.name]["RESTYLED"]) >= 5
    )


@every_assignment
def test_there_are_answers_in_every_style(assignment):
    styles = [
        style
        for answers in ANSWERS[assignment.name]["RESTYLED"].values()
        for style in answers
    ]
    assert {"numpy", "lambda", "class", "slow but right"} <= set(styles)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)
def test_gradescope_otter_and_our_grader_score_a_submission_the_same(
    base, server, tmp_path, monkeypatch
):
    """The last wrong answer to every other question, nothing in the rest: in a kernel,
    by processes, in a container."""
    assignment = built(next(iter(MASTERS)), base)
    nb, lost = assignment.notebook("student"), {}
    stubs = [
        cell for cell in code_cells(nb) if STUB_TAG in cell.metadata.get("tags", [])
    ]
    for question, cell in list(zip(assignment.tests, stubs, strict=True))[::2]:
        lost[question], cell.source = list(
            ANSWERS[assignment.name]["WRONG"][question].values()
        )[-1]
    nbformat.write(nb, tmp_path / f"{assignment.name}.ipynb")
    monkeypatch.chdir(tmp_path)
    results = grade_submission(
        f"{assignment.name}.ipynb", str(assignment.zip), quiet=True
    )
    possible = {question: test.possible for question, test in assignment.tests.items()}
    expected = {
        question: possible[question] - lost.get(question, possible[question])
        for question in possible
    }
    assert scores(results) == pytest.approx(expected)
    data = Path(f"{assignment.name}.ipynb").read_bytes()
    local = grade_one("a", data, assignment.assignment, server)
    assert {
        question.name: question.points for question in local.questions
    } == pytest.approx(expected)
    found = on_gradescope(assignment, server, tmp_path, data, monkeypatch)
    for question in local.questions:
        said = [
            entry
            for entry in found["tests"]
            if entry["name"].startswith(f"{question.name},")
        ]
        assert sum(entry["score"] for entry in said) == question.points
        assert [entry["visibility"] for entry in said] == ["visible", "hidden"]


def on_gradescope(assignment, server, folder, data, monkeypatch) -> dict:
    """results.json of the zip's run_otter.py, which finds everything in a folder as
    Gradescope's container has it."""
    monkeypatch.setattr(gradescope, "Server", lambda: nullcontext(server))  # a warm one
    place = folder / "autograder"
    (place / "submission").mkdir(parents=True, exist_ok=True)
    shutil.copytree(assignment.tests_dir.parent, place / "source", dirs_exist_ok=True)
    (place / "submission" / "work.ipynb").write_bytes(data)
    start = (place / "source" / "run_otter.py").read_text()
    assert start.endswith("main()\n") and "otter.run" not in start
    exec(start.replace("main()", f"main({str(place)!r})"), {})
    return json.loads((place / "results" / "results.json").read_text())


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)
def test_on_gradescope_the_tests_are_out_of_a_notebooks_reach(
    base, server, tmp_path, monkeypatch, capsys
):
    """What fools a check in the notebook's own process, and otter's, has another
    process to work on there."""
    assignment = built(next(iter(MASTERS)), base)
    nb = assignment.notebook("student")
    patch = (
        "import ioi_course.checks.core as core\n"
        "core.run = lambda f, case: torch.zeros(2)\n"
    )
    patch += "core.same = lambda *a: True\n"
    patch += (
        "core.Exercise.__call__ = lambda *a, **k: True\n"
        "torch.allclose = torch.equal = lambda *a, **k: True"
    )
    nb.cells.insert(5, nbformat.v4.new_code_cell(patch))
    data = nbformat.writes(nb).encode()
    patched = [
        (core, "run"),
        (core, "same"),
        (core.Exercise, "__call__"),
        (torch, "allclose"),
        (torch, "equal"),
    ]
    for owner, name in patched:
        # so that what the attack does to this process is undone
        monkeypatch.setattr(owner, name, getattr(owner, name))
    shared, _ = grade(nb, assignment, tmp_path, monkeypatch)
    monkeypatch.undo()
    assert shared.total > 10, (
        "the attack works where notebook and tests share a process"
    )
    found = on_gradescope(assignment, server, tmp_path, data, monkeypatch)
    assert (
        sum(entry["score"] for entry in found["tests"]) == 0
        and found["stdout_visibility"] == "hidden"
    )
    assert "drawn from the seed" in capsys.readouterr().out


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)
def test_on_gradescope_a_submission_without_a_notebook_has_a_reason(
    base, server, tmp_path, monkeypatch
):
    assignment = built(next(iter(MASTERS)), base)
    found = on_gradescope(assignment, server, tmp_path, b"", monkeypatch)
    assert (
        "no notebook" in found["output"]
        and sum(entry["score"] for entry in found["tests"]) == 0
    )


def test_student_reads_what_is_wrong(base, tmp_path, monkeypatch):
    """Without the zip, in the student's own folder: the public tests
    come out of the notebook."""
    assignment = built("a_tokens_and_metric", base)
    monkeypatch.chdir(tmp_path)
    nbformat.write(assignment.notebook("student"), "a_tokens_and_metric.ipynb")
    namespace = assignment.after_set_up()
    run_cell(
        'import otter\ngrader = otter.Notebook("a_tokens_and_metric.ipynb")', namespace
    )
    run_cell(
        ANSWERS["a_tokens_and_metric"]["WRONG"]["q2"]["BOS off by one"][1], namespace
    )
    run_cell('result = grader.check("q2")', namespace)
    assert "AssertionError: BOS off by one: the first word has position 1" in repr(
        namespace["result"]
    )
    assert [
        case.test_case.hidden for case in namespace["result"].test_case_results
    ] == [False]


def test_colab_cell_lays_the_tests_beside_the_notebook(base, tmp_path, monkeypatch):
    student = built(next(iter(MASTERS)), base).notebook("student")
    message = types.SimpleNamespace(blocking_request=lambda what: {"ipynb": student})
    installed = []
    shell = types.SimpleNamespace(
        run_line_magic=lambda magic, line: installed.append(f"{magic} {line}")
    )
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(
        sys.modules, "google.colab", types.SimpleNamespace(_message=message)
    )
    monkeypatch.chdir(tmp_path)
    cell = next(cell for cell in code_cells(student) if "google.colab" in cell.source)
    run_cell(cell.source, {"get_ipython": lambda: shell})
    assert installed == ['pip install -q "ioi_course[course]==0.1.0"']
    assert {path.stem: path.read_text() for path in Path("tests").glob("*.py")} == dict(
        student.metadata.otter.tests
    )
