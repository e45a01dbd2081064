"""`ioi-course grade` on broken and hostile submissions: each costs what it should, never the run."""

import csv
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.grading import assignments, submissions
from ioi_course.grading import grade as grading
from ioi_course.grading import server as server_module
from ioi_course.project import CourseError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="grading isolates with means of Linux")

NAME = "small"
HEAD = 'from otter.test_files import test_case\nOK_FORMAT = False\nname = "{}"\npoints = {}\n'
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
    verdict = Exercise("1", "Double", lambda x: 2 * x, lambda seed: [(seed,), (-1.5,)], ())(double, seed=41)
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
    assert same(run(margin, (torch.tensor([3.0, 1.0]),)), plain(2.0), 1e-6), "3 − 1 is 2"

@test_case(points=2, hidden=True)
def test_q2_secret(margin):
    import torch
    x = torch.tensor([0.25, -4.0], requires_grad=True)
    out = margin(x)
    out.backward()
    assert torch.allclose(x.grad, torch.tensor([1.0, -1.0]))
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
CELLS = [SETUP, "import torch", DOUBLE, 'grader.check("q1")', MARGIN, 'grader.check("q2")', BEST, "grader.check_all()"]


def notebook(sources=CELLS, name=NAME) -> bytes:
    nb = new_notebook(cells=[new_markdown_cell("# Small"), *map(new_code_cell, sources)])
    for i, cell in enumerate(nb.cells):
        cell.id = f"cell-{i}"
    public = HEAD.format("q1", 2) + TESTS["q1"][1].split("\n\n")[0]
    nb.metadata["otter"] = {"OK_FORMAT": False, "assignment_name": name, "tests": {"q1": public}}
    return nbformat.writes(nb).encode()


def with_cell(source: str) -> bytes:
    """All answers right, and a cell before the last answer."""
    return notebook([*CELLS[:5], source, *CELLS[5:]])


def instead_of(cell: str, source: str) -> bytes:
    return notebook([source if each == cell else each for each in CELLS])


@pytest.fixture(scope="module")
def assignment(tmp_path_factory):
    path = tmp_path_factory.mktemp("assignment") / "autograder.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("otter_config.json", json.dumps({"assignment_name": NAME}))
        for question, (points, source) in TESTS.items():
            archive.writestr(f"tests/{question}.py", HEAD.format(question, points) + source)
    return assignments.read_assignment(path)


@pytest.fixture(scope="module")
def server():
    with grading.Server() as server:
        yield server


@pytest.fixture(scope="module")
def grade(server, assignment):
    """Grade one submission with small limits; returns its grade and the points by question."""

    def grade(data, timeout=20, memory=0.5):
        got = grading.grade("a", data, assignment, server, server_module.Limits(timeout, memory), [assignment.path])
        assert psutil.Process(server._process.pid).children(recursive=True) == [], "processes were left behind"
        return got, {question.name: question.points for question in got.questions}

    return grade


ALL = {"q1": 2, "q2": 3, "q10": 1}


def test_the_right_answers_score_everything_and_twice_the_same(grade):
    first, points = grade(notebook())
    assert (points, first.status, first.notes) == (ALL, "graded", [])
    assert first.total == first.possible == 6
    assert asdict(grade(notebook())[0]) == asdict(first)


def test_an_untouched_notebook_scores_nothing(grade):
    stubs = [SETUP, "import torch", "def double(x):\n    ...", "def margin(logits):\n    ...", "best_head = ..."]
    got, points = grade(notebook(stubs))
    assert (points, got.status, got.notes) == (dict.fromkeys(ALL, 0), "graded", [])


BROKEN = {  # what -> the submission, points lost by question, what a note says
    "a crash between answers": (with_cell("1 / 0"), {}, "Cell 7 (1 / 0) stopped with ZeroDivisionError"),
    "a crash in an answer's cell": (instead_of(DOUBLE, "1 / 0\n" + DOUBLE), {"q1": 2}, "does not define double"),
    "an answer that raises": (instead_of(DOUBLE, "def double(x):\n    raise KeyError(x)"), {"q1": 2}, None),
    "a syntax error": (instead_of(MARGIN, "def margin(logits)\n    return 0"), {"q2": 3}, "SyntaxError"),
    "a missing question": (notebook([c for c in CELLS if c != MARGIN]), {"q2": 3}, "q2: The notebook does not define"),
    "a cell copied whole": (notebook([*CELLS, DOUBLE]), {}, "double is defined in the cells 4 and 10: the last counts"),
    "an old answer copied below": (notebook([*CELLS, "def double(x):\n    return 0"]), {"q1": 2}, "the last counts"),
    "sys.exit": (with_cell("import sys\nsys.exit(0)"), {}, "SystemExit"),
    "os._exit": (with_cell("import os\nos._exit(0)"), {}, "ended its process, and was left out"),
    "os._exit where an answer stands": (
        instead_of(MARGIN, MARGIN + "\nimport os; os._exit(0)"),
        {"q2": 3},
        "q2: The notebook does not define margin",
    ),
    "an answer that ends its process": (
        instead_of(DOUBLE, "def double(x):\n    import os\n    os._exit(0)"),
        {"q1": 2},
        "q1: The answer ended its process when it was tested",
    ),
    "an answer that raises SystemExit": (
        instead_of(DOUBLE, "def double(x):\n    raise SystemExit"),
        {"q1": 2},
        "q1: The answer ended its process",
    ),
    "a segmentation fault": (with_cell("import faulthandler\nfaulthandler._read_null()"), {}, "ended its process"),
    "an exception that cannot be shown": (
        with_cell("class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E"),
        {},
        "an exception that cannot be shown",
    ),
    "half a surrogate in an error": (with_cell('raise ValueError("\\ud800<b>\\0")'), {}, "ValueError: ?<b>?"),
    "megabytes of output": (with_cell("for _ in range(50):\n    print('x' * 2**20)"), {}, None),
    "too much memory": (with_cell("x = torch.ones(2**28)"), {}, "RuntimeError"),
    "too much memory in an answer": (
        instead_of(DOUBLE, "def double(x):\n    torch.ones(2**28)\n    return 2 * x"),
        {"q1": 2},
        None,
    ),
    "too much shared memory": (
        with_cell("import mmap\nm = mmap.mmap(-1, 2**30)\nfor i in range(0, 2**30, 4096):\n    m[i] = 1\n"
                  "import time\ntime.sleep(60)"),
        {},
        "was stopped with more than 0.5 GB of memory",
    ),
    "a huge file": (with_cell("with open('x', 'wb') as f:\n    f.write(bytes(2**27))"), {}, "OSError"),
    "a cell that is no Python": (with_cell("%%time\ny = 1\n!true"), {}, "tried to start a process"),
    "more threads": (with_cell("torch.set_num_threads(2)\ntorch.ones(900, 900) @ torch.ones(900, 900)"), {}, None),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_costs_what_depends_on_it(grade, what):
    data, lost, note = BROKEN[what]
    got, points = grade(data)
    assert points == {name: ALL[name] - lost.get(name, 0) for name in ALL}
    assert got.status == ("review" if "tried" in (note or "") else "graded" if not got.notes else got.status)
    if note is None:
        assert got.notes == []
    else:
        assert note in " ".join(got.notes)


def test_an_endless_cell_costs_itself_and_an_endless_answer_its_question(grade):
    loop = "while True:\n    pass"
    start = time.monotonic()
    got, points = grade(with_cell(loop), timeout=4)
    assert points == ALL and got.notes == ["Cell 7 (while True:) was stopped after 4 s, and was left out."]
    got, points = grade(instead_of(DOUBLE, "def double(x):\n    while True:\n        pass"), timeout=4)
    assert points == ALL | {"q1": 0} and got.status == "errors"
    assert got.notes == ["q1: The answer was stopped after 4 s when it was tested."]
    assert time.monotonic() - start < 60


def test_a_submission_as_a_whole_has_a_limit(grade):
    start = time.monotonic()
    got, points = grade(notebook([SETUP, *["while True:\n    pass"] * 9]), timeout=1)
    assert sum(points.values()) == 0 and got.status == "errors"
    assert "Not tested: the notebook took more than 5 s." in " ".join(got.notes)
    assert time.monotonic() - start < 60


def test_a_submission_whose_time_ends_while_its_processes_start_is_graded(grade, monkeypatch):
    start = server_module.Runner.start

    def late(self, *arguments):
        time.sleep(1.1)  # past the limit of 5 × 0.2 s
        return start(self, *arguments)

    monkeypatch.setattr(server_module.Runner, "start", late)
    got, points = grade(notebook(), timeout=0.2)
    assert sum(points.values()) == 0 and got.status == "errors"
    assert [note for note in got.notes if "Not tested: the notebook took more than 1 s." in note] == got.notes[-3:]


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"", "no notebook"),
        (b"\x00\xff\xfe", "no notebook"),
        (b"hello", "no notebook"),
        (b"[1, 2]", "no notebook"),
        (b"{}", "no notebook"),
        (b'{"nbformat": 4, "cells": 3}', "no notebook"),
        (b"[" * 100_000, "no notebook"),
        (notebook(name="other"), "'other', not for 'small'"),
        (notebook([DOUBLE], name=None), "without the name of an assignment"),
        (b" " * (submissions.LARGEST + 1), "MB"),
    ],
)
def test_what_is_no_submission_to_this_assignment_is_refused(grade, data, note):
    got, points = grade(data)
    assert got.status == "refused" and points == dict.fromkeys(ALL, 0) and note in got.notes[0]


def test_a_notebook_that_lost_its_metadata_is_known_by_its_first_cell(grade):
    assert grade(notebook(name=None))[1] == ALL


def hostile(body: str) -> bytes:
    """A cell that tries each line, whatever becomes of the one before, in a notebook whose answers are right."""
    tries = "".join(f"try:\n    {line}\nexcept BaseException:\n    pass\n" for line in body.strip().splitlines())
    return with_cell("import os, sys, socket, subprocess, glob, ctypes, pathlib\n" + tries)


def test_hidden_tests_and_files_outside_are_out_of_reach(grade, assignment, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    got, points = grade(
        hostile(
            f"stolen = open({str(assignment.path)!r}).read()\n"
            f"stolen = os.listdir({str(assignment.path.parent)!r})\n"
            f"stolen = open({str(kept)!r}).read()\n"
            "stolen = open('/proc/self/mem', 'rb').read(1)\n"
            "stolen = list(pathlib.Path('/').rglob('autograder.zip'))[0]\n"
            f"open({str(tmp_path / 'new.txt')!r}, 'w').write('x')\n"
            f"os.remove({str(kept)!r})\n"
            f"os.rename({str(kept)!r}, 'mine')\n"
            f"os.symlink({str(kept)!r}, 'link'); open('link', 'a').write('x')\n"
            f"os.mkdir({str(tmp_path / 'folder')!r})\n"
            "open('allowed.txt', 'w').write('x'); os.mkdir('folder'); os.rename('allowed.txt', 'folder/y')\n"
            "assert os.path.exists('folder/y'); allowed = True\n"
        )
        .replace(b"best_head = (9, 9)", b"best_head = (9, 9) if 'stolen' not in globals() and allowed else 'stolen'")
    )  # fmt: skip
    assert points == ALL and got.status == "review"
    for tried in [
        f"read {assignment.path}", f"list {assignment.path.parent}", f"read {kept}", "list /", f"change {kept}",
        f"write {tmp_path / 'new.txt'}", f"write {kept}", f"change {tmp_path / 'folder'}",
    ]:  # fmt: skip
        assert f"tried to {tried}" in got.notes[0]
    assert kept.read_text() == "kept" and os.listdir(tmp_path) == ["kept.txt"]


def test_the_network_is_out_of_reach(grade):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        got, points = grade(
            hostile(
                f"socket.create_connection(('127.0.0.1', {port}), 2)\n"
                f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}', timeout=2)\n"
                "socket.getaddrinfo('example.org', 80)\n"
                f"import _socket; _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).connect(('127.0.0.1', {port}))\n"
            )
        )
        assert not select.select([listener], [], [], 0)[0]
    assert points == ALL and "tried to use the network" in got.notes[0] and got.status == "review"


def test_processes_are_denied_and_what_gets_around_that_ends_with_the_submission(grade):
    around = "sys.audit = lambda *a: None; subprocess.Popen(['sleep', '98765'], start_new_session=True); began = True"
    got, points = grade(
        hostile(
            "os.fork()\nos.system('true')\nsubprocess.run(['true'])\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\n"
            "ctypes.CDLL(None).getpid()\nimport multiprocessing; multiprocessing.Process(target=print).start()\n"
            f"{around}\n"
        ).replace(b"best_head = (9, 9)", b"best_head = (9, 9) if began else 0")
    )
    assert points == ALL and got.status == "review"
    for tried in ("start a process", "send a signal", "call C through ctypes"):
        assert f"tried to {tried}" in got.notes[0]
    left = [p for p in psutil.process_iter(["cmdline"]) if "98765" in (p.info["cmdline"] or [])]
    assert left == []


WRONG = [SETUP, "import torch", "def double(x):\n    return 1.0", "def margin(logits):\n    return 0", "best_head = 0"]
OTTER = "from otter.test_files import ExceptionTestFile as F\n"
FORGED = '{"nonce": "0", "results": [[true, ""], [true, ""]], "trusted": true}\\n'


@pytest.mark.parametrize(
    ("patch", "note"),
    [
        ("import ioi_course.checks.core as c\nc.same = lambda *a: True\nc.Verdict.__bool__ = lambda self: True",
         "replaced ioi_course.checks.core.same"),
        ("torch.allclose = torch.equal = lambda *a, **k: True", "replaced torch.allclose"),
        (OTTER + "F.run = lambda self, env: None", "ExceptionTestFile.run"),
        ("def double(x):\n    import ioi_course.checks.core as c\n    c.same = lambda *a: True\n    return 6",
         "q1: Not counted: the notebook changes how tests come out"),
        ("import builtins\nbuiltins.AssertionError = builtins.len = int", "replaced builtins.AssertionError"),
        (OTTER + "source = 'def run(self, env): self.test_case_results = []\\nF.run.__code__ = run.__code__'\n"
         "exec(compile(source, 'x.py', 'exec'))",
         "made tests come out wrong"),
        (OTTER + "F.run.__code__ = (lambda self, env: None).__code__",
         "tried to replace the code of a function"),
        ("import sys\nsys._getframe(1).f_locals", "tried to look into the grader's frames"),
        ("import inspect\ninspect.stack()", "tried to look into the grader's frames"),
        ("import gc\ngc.get_objects()", "tried to search the memory"),
        ("import sys\nsys.addaudithook(print)", "tried to add an audit hook"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_DATA, (-1, -1))", "tried to change the limits"),
        ("import json\nfor n in ('results.json', 'results.pkl', '.OTTER_LOG'):\n"
         "    open(n, 'w').write(json.dumps({'q1': 2, 'total': 6}))", None),
        ("import os, json\nfor fd in range(3, 64):\n    try:\n"
         f"        os.write(fd, b'{FORGED}' * 9)\n"
         "    except OSError:\n        pass", "wrote to the grader's channel"),
        ("import os\nos.closerange(3, 256)", "ended its process"),
    ],
)  # fmt: skip
def test_meddling_with_the_grader_gains_nothing(grade, patch, note):
    got, points = grade(notebook([*WRONG, patch]))
    assert points == dict.fromkeys(ALL, 0)
    assert note is None or note in " ".join(got.notes)
    assert got.status == ("graded" if note is None else "errors" if "ended" in note else "review")


def test_meddling_leaves_right_answers_their_points(grade):
    got, points = grade(with_cell("import ioi_course.checks.core as c\nc.same = lambda *a: False"))
    assert points == ALL and got.notes == ["The notebook replaced ioi_course.checks.core.same."]


def test_the_kernel_alone_keeps_a_process_in(tmp_path):
    """Without the audit hook: files outside are denied by Landlock, the network is gone with the namespace."""
    (tmp_path / "work").mkdir()
    (tmp_path / "secret").write_text("x")
    code = f"""
import os, socket, sys
from ioi_course.grading import sandbox
have = sandbox.new_namespaces(), sandbox.restrict_files(sandbox.readable(), {str(tmp_path / "work")!r})
print(*have)
def denied(do):
    try: do()
    except OSError: return True
open({str(tmp_path / "work" / "fine")!r}, "w").close()
print(denied(lambda: open({str(tmp_path / "secret")!r})), denied(lambda: open({str(tmp_path / "new")!r}, "w")),
      denied(lambda: os.listdir("/")), denied(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
      [name for _, name in socket.if_nameindex()])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    if said[0] != "True True":
        pytest.skip(f"this kernel lacks namespaces or Landlock: {said[0]}")
    assert said[1] == "True True True True ['lo']"


class _Page(HTMLParser):
    """Which elements a page has, and that they are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_run_is_stopped_goes_on_and_grades_only_what_changed(assignment, server, tmp_path, monkeypatch):
    subs, out = tmp_path / "subs", tmp_path / "out"
    for student, data in {
        "ann": notebook(),
        "bob": instead_of(DOUBLE, "def double(x):\n    assert False, '<script>alert(1)</script>'"),
        "=cmd": with_cell("raise ValueError('-')"),
        "slow": with_cell("import time\ntime.sleep(500)"),
        "other": notebook(name="other"),
    }.items():
        (subs / student).mkdir(parents=True)
        (subs / student / f"{NAME}.ipynb").write_bytes(data)
    command = [sys.executable, "-m", "ioi_course.cli", "grade", str(subs), "--assignment", str(assignment.path),
               "--out", str(out), "--jobs", "2", "--timeout", "100", "--memory", "0.5"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
    )  # fmt: skip
    until = time.monotonic() + 150
    while len(list((out / "results").glob("*.json"))) < 4 and time.monotonic() < until:
        time.sleep(0.1)
        assert process.poll() is None, process.stdout.read()
    while len(tree := psutil.Process(process.pid).children(recursive=True)) < 3:  # server, supervisor, runner
        assert time.monotonic() < until, tree
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and "Stopped" in said
    assert psutil.wait_procs(tree, timeout=4)[1] == []

    monkeypatch.setattr(grading, "Server", lambda: nullcontext(server))  # a warm one
    (subs / "slow" / f"{NAME}.ipynb").write_bytes(notebook([*CELLS, "# quicker"]))
    arguments = [*command[3:-4], "--timeout", "100", "--memory", "0.5"]
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "Graded 1 of 5" in result.output

    with (out / "grades.csv").open(newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["'=cmd", "ann", "bob", "other", "slow"]
    assert list(rows["ann"]) == ["student", "assignment", "q1", "q2", "q10", "total", "status", "note"]
    assert list(rows["ann"].values()) == ["ann", NAME, "2", "3", "1", "6", "graded", ""]
    assert list(rows["slow"].values()) == ["slow", NAME, "2", "3", "1", "6", "graded", ""]
    assert list(rows["bob"].values()) == ["bob", NAME, "0", "3", "1", "4", "graded", ""]
    assert rows["other"]["total"] == "0" and rows["other"]["status"] == "refused"
    assert rows["'=cmd"]["total"] == "6" and "ValueError: -" in rows["'=cmd"]["note"]

    text = (out / "reports" / "bob.html").read_text()
    page = _Page(text)
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text  # the public test's message, escaped
    assert "secret" not in text and "41" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)  # nothing hidden
    assert "Hidden tests: 0 passed, 1 failed." in text and "bob</strong>: 4 of 6 points" in text
    assert ("html", {"lang": "en"}) in page.tags and [tag for tag, _ in page.tags].count("h1") == 1
    assert all(attrs.get("href", "#").startswith("#") and "src" not in attrs for _, attrs in page.tags)
    assert {attrs.get("scope") for tag, attrs in page.tags if tag == "th"} == {"col", "row"}

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.app, arguments)
    assert again.exit_code == 0 and "Graded 0 of 5" in again.output
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_students_are_called_as_their_files_or_folders(tmp_path):
    for path in ("ann.ipynb", "Bob_1/small.ipynb", "two/x.ipynb", "two/y.ipynb", ".ipynb_checkpoints/z.ipynb"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    found = submissions.find_submissions([tmp_path], NAME)
    assert list(found) == ["Bob_1", "ann", "two_x", "two_y"]
    assert list(submissions.find_submissions([tmp_path / "Bob_1" / "small.ipynb"], NAME)) == ["Bob_1"]
    with pytest.raises(CourseError, match="Two submissions are of 'x'"):
        submissions.find_submissions([tmp_path / "two" / "x.ipynb", _touch(tmp_path / "x.ipynb")], NAME)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match="holds no notebook"):
        submissions.find_submissions([tmp_path / "empty"], NAME)
    with pytest.raises(CourseError, match="no file or folder"):
        submissions.find_submissions([tmp_path / "nothing"], NAME)


def _touch(path: Path) -> Path:
    path.write_text("")
    return path


def test_an_assignment_is_a_zip_or_a_name(tmp_path, assignment):
    (tmp_path / "nbs").mkdir()
    _touch(tmp_path / "nbs" / "00_setup.ipynb")
    with pytest.raises(CourseError, match="none is built"):
        assignments.find_assignment("a_tokens", tmp_path)
    built = tmp_path / "build" / "assignments" / "a_tokens" / "autograder.zip"
    built.parent.mkdir(parents=True)
    shutil.copy(assignment.path, built)
    assert assignments.find_assignment("a_tokens", tmp_path) == built
    with pytest.raises(CourseError, match="Did you mean 'a_tokens'"):
        assignments.find_assignment("a_token", tmp_path)
    with pytest.raises(CourseError, match="no file"):
        assignments.find_assignment("nothing.zip", tmp_path)
    with pytest.raises(CourseError, match="not an autograder zip"):
        assignments.read_assignment(_touch(tmp_path / "empty.zip"))


def test_points_and_names_are_read_in_the_order_of_the_questions(assignment):
    assert list(assignment.tests) == ["q1", "q2", "q10"] and assignment.name == NAME
    assert assignment.cases["q2"] == [
        {"name": "q2 - 1", "points": 1, "hidden": False},
        {"name": "q2 - 2", "points": 2, "hidden": True},
    ]
    assert assignment.answers == {"q1": ["double"], "q2": ["margin"], "q10": ["best_head"]}


def test_a_built_assignment_solution_and_untouched(root, server, tmp_path):
    """One of the course's own, built by tools/assignments.py: its solutions score everything, its stubs nothing."""
    spec = importlib.util.spec_from_file_location("assignments", root / "tools" / "assignments.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    built = tool.build(tool.masters()[0], tmp_path / "built", check=False)
    assignment = assignments.read_assignment(built / "autograder.zip")
    for folder, share in (("instructor", 1), ("student", 0)):
        data = (built / folder / f"{assignment.name}.ipynb").read_bytes()
        got = grading.grade("a", data, assignment, server)
        assert got.total == share * got.possible and got.possible == 40, got.notes
        assert got.status == "graded" and got.notes == []
