"""`ioi-course grade` on broken and hostile submissions: each costs what it
should, never the run."""

import csv
import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from small import (
    ALL,
    CELLS,
    DOUBLE,
    MARGIN,
    NAME,
    NOTHING,
    SETUP,
    instead_of,
    notebook,
    with_cell,
)
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.grading import assignments, run, submissions
from ioi_course.grading import grade as grading
from ioi_course.project import CourseError

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)


def test_the_right_answers_score_everything_and_twice_the_same(grade):
    first, points = grade(notebook())
    assert (points, first.status, first.notes) == (ALL, "graded", [])
    assert first.total == first.possible == 6
    again = asdict(grade(notebook())[0])
    other = {"seconds": 0, "memory": 0, "seed": 0}
    assert again | other == asdict(first) | other and again["seed"] != first.seed
    assert 0 < first.seconds < 20 and 100 < first.memory < 2000  # of computing, and MB


def test_an_untouched_notebook_scores_nothing(grade):
    stubs = [
        SETUP,
        "import torch",
        "def double(x):\n    ...",
        "def margin(logits):\n    ...",
        "best_head = ...",
    ]
    got, points = grade(notebook(stubs))
    assert (points, got.status, got.notes) == (dict.fromkeys(ALL, 0), "graded", [])


BROKEN = {  # what -> the submission, points lost by question, what a note says
    "a crash between answers": (
        with_cell("1 / 0"),
        {},
        "Cell 7 (1 / 0) stopped with ZeroDivisionError",
    ),
    "a crash in an answer's cell": (
        instead_of(DOUBLE, "1 / 0\n" + DOUBLE),
        {"q1": 2},
        "does not define double",
    ),
    "an answer that raises": (
        instead_of(DOUBLE, "def double(x):\n    raise KeyError(x)"),
        {"q1": 2},
        None,
    ),
    "a syntax error": (
        instead_of(MARGIN, "def margin(logits)\n    return 0"),
        {"q2": 3},
        "SyntaxError",
    ),
    "a missing question": (
        notebook([c for c in CELLS if c != MARGIN]),
        {"q2": 3},
        "q2: The notebook does not define",
    ),
    "a cell copied whole": (
        notebook([*CELLS, DOUBLE]),
        {},
        "double is defined in the cells 4 and 10: the last counts",
    ),
    "an old answer copied below": (
        notebook([*CELLS, "def double(x):\n    return 0"]),
        {"q1": 2},
        "the last counts",
    ),
    "sys.exit": (with_cell("import sys\nsys.exit(0)"), {}, "SystemExit"),
    "os._exit": (
        with_cell("import os\nos._exit(0)"),
        {},
        "ended its process, and was left out",
    ),
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
    "a segmentation fault": (
        with_cell("import faulthandler\nfaulthandler._read_null()"),
        {},
        "ended its process",
    ),
    "an exception that cannot be shown": (
        with_cell(
            "class E(Exception):\n    def __str__(self):\n        raise SystemExit\n"
            "raise E"
        ),
        {},
        "an exception that cannot be shown",
    ),
    "half a surrogate in an error": (
        with_cell('raise ValueError("\\ud800<b>\\0")'),
        {},
        "ValueError: ?<b>?",
    ),
    "megabytes of output": (
        with_cell("for _ in range(50):\n    print('x' * 2**20)"),
        {},
        None,
    ),
    "too much memory": (with_cell("x = torch.ones(2**28)"), {}, "RuntimeError"),
    "too much memory in an answer": (
        instead_of(DOUBLE, "def double(x):\n    torch.ones(2**28)\n    return 2 * x"),
        {"q1": 2},
        None,
    ),
    "too much shared memory": (
        with_cell(
            "import mmap\nm = mmap.mmap(-1, 2**30)\nfor i in range(0, 2**30, 4096):\n"
            "    m[i] = 1\nimport time\ntime.sleep(60)"
        ),
        {},
        "was stopped with more than 0.5 GB of memory",
    ),
    "a huge file": (
        with_cell("with open('x', 'wb') as f:\n    f.write(bytes(2**27))"),
        {},
        "OSError",
    ),
    "files without end": (
        with_cell(
            "for i in range(9):\n    open(str(i), 'wb').write(bytes(60 * 2**20))"
        ),
        {},
        "No space left",
    ),
    "folders without end": (
        with_cell(
            "import os\nos.mkdir('closed', 0)\n"
            "for i in range(3000):\n    os.mkdir('a'); os.chdir('a')"
        ),
        {},
        "Cell 7 (import os) stopped with",
    ),
    "threads without end": (
        with_cell(
            "import threading, time\nthreading.stack_size(2**15)\nwhile True:\n"
            "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
        ),
        {},
        "was stopped with more than 1000 threads",
    ),
    "a cell that is no Python": (
        with_cell("%%time\ny = 1\n!true"),
        {},
        "Not run while grading: !true (cell 7).",
    ),
    "more threads": (
        with_cell(
            "torch.set_num_threads(2)\ntorch.ones(900, 900) @ torch.ones(900, 900)"
        ),
        {},
        None,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_costs_what_depends_on_it(grade, what):
    data, lost, note = BROKEN[what]
    got, points = grade(data)
    assert points == {name: ALL[name] - lost.get(name, 0) for name in ALL}
    assert got.status in ("graded", "errors")
    if note is None:
        assert got.notes == []
    else:
        assert note in " ".join(got.notes)


def test_an_endless_cell_costs_itself_and_an_endless_answer_its_question(grade):
    loop = "while True:\n    pass"
    start = time.monotonic()
    got, points = grade(with_cell(loop), timeout=4)
    assert points == ALL and got.notes == [
        "Cell 7 (while True:) was stopped after 4 s, and was left out."
    ]
    got, points = grade(
        instead_of(DOUBLE, "def double(x):\n    while True:\n        pass"), timeout=4
    )
    assert points == ALL | {"q1": 0} and got.status == "errors"
    assert got.notes == ["q1: The answer was stopped after 4 s when it was tested."]
    assert time.monotonic() - start < 60


def test_answers_that_never_come_do_not_hold_up_the_class(grade):
    """A message that is cut short: the judge waits for its end,
    twice, and then no more."""
    cut = (
        "from ioi_course.grading import wire\n"
        "wire.send = lambda channel, body: channel.sendall(bytes(7) + b'\\x09')"
    )
    start = time.monotonic()
    got, points = grade(with_cell(cut), timeout=1)
    assert (
        points == NOTHING and got.status == "errors" and time.monotonic() - start < 60
    )
    assert "q10: Not tested: the answers to 2 questions never came." in got.notes, (
        got.notes
    )


def test_a_submission_as_a_whole_has_a_limit(grade):
    start = time.monotonic()
    got, points = grade(notebook([SETUP, *["while True:\n    pass"] * 9]), timeout=1)
    assert sum(points.values()) == 0 and got.status == "errors"
    assert "Not tested: the notebook took more than 5 s." in " ".join(got.notes)
    assert time.monotonic() - start < 60


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
    assert (
        got.status == "refused"
        and points == dict.fromkeys(ALL, 0)
        and note in got.notes[0]
    )


def test_a_notebook_that_lost_its_metadata_is_known_by_its_first_cell(grade):
    assert grade(notebook(name=None))[1] == ALL


def hostile(body: str) -> bytes:
    """A cell that tries each line, whatever becomes of the one before, in a notebook
    whose answers are right."""
    tries = "".join(
        f"try:\n    {line}\nexcept BaseException:\n    pass\n"
        for line in body.strip().splitlines()
    )
    return with_cell(
        "import os, sys, socket, subprocess, glob, ctypes, pathlib\n" + tries
    )


def test_hidden_tests_and_files_outside_are_out_of_reach(grade, small, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    got, points = grade(
        hostile(
            f"stolen = open({str(small.path)!r}).read()\n"
            f"stolen = os.listdir({str(small.path.parent)!r})\n"
            f"stolen = open({str(kept)!r}).read()\n"
            "stolen = open('/proc/self/mem', 'rb').read(1)\n"
            "stolen = list(pathlib.Path('/').rglob('autograder.zip'))[0]\n"
            f"open({str(tmp_path / 'new.txt')!r}, 'w').write('x')\n"
            f"os.remove({str(kept)!r})\nos.rename({str(kept)!r}, 'mine')\n"
            f"os.symlink({str(kept)!r}, 'link'); open('link', 'a').write('x')\n"
            f"os.mkdir({str(tmp_path / 'folder')!r})\n"
            "open('allowed.txt', 'w').write('x'); os.mkdir('folder'); "
            "os.rename('allowed.txt', 'folder/y')\n"
            "assert os.path.exists('folder/y'); allowed = True\n"
        ).replace(
            b"best_head = (9, 9)",
            b"best_head = (9, 9) if 'stolen' not in globals() and allowed "
            b"else 'stolen'",
        )
    )
    assert points == ALL and got.status == "review"
    for tried in [
        f"read {small.path}",
        f"list {small.path.parent}",
        f"read {kept}",
        "list /",
        f"change {kept}",
        f"write {tmp_path / 'new.txt'}",
        f"write {kept}",
        f"change {tmp_path / 'folder'}",
    ]:
        assert f"tried to {tried}" in got.notes[0]
    assert kept.read_text() == "kept" and os.listdir(tmp_path) == ["kept.txt"]


def test_the_network_is_out_of_reach(grade):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        got, points = grade(
            hostile(
                f"socket.create_connection(('127.0.0.1', {port}), 2)\n"
                "import urllib.request; "
                f"urllib.request.urlopen('http://127.0.0.1:{port}', timeout=2)\n"
                "socket.getaddrinfo('example.org', 80)\n"
                "import _socket; _socket.socket(_socket.AF_INET, "
                f"_socket.SOCK_STREAM).connect(('127.0.0.1', {port}))\n"
            )
        )
        assert not select.select([listener], [], [], 0)[0]
    assert (
        points == ALL
        and "tried to use the network" in got.notes[0]
        and got.status == "review"
    )


def test_processes_are_denied_and_what_gets_around_that_ends_with_the_submission(grade):
    around = (
        "sys.audit = lambda *a: None; subprocess.Popen(['sleep', '98765'], "
        "start_new_session=True); began = True"
    )
    got, points = grade(
        hostile(
            "os.fork()\nos.system('true')\nsubprocess.run(['true'])\n"
            "os.kill(os.getppid(), 9)\nos.kill(1, 9)\nctypes.CDLL(None).getpid()\n"
            "import multiprocessing; multiprocessing.Process(target=print).start()\n"
            f"{around}\n"
        ).replace(b"best_head = (9, 9)", b"best_head = (9, 9) if began else 0")
    )
    assert points == ALL and got.status == "review"
    for tried in ("start a process", "send a signal", "call C through ctypes"):
        assert f"tried to {tried}" in got.notes[0]
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if "98765" in (p.info["cmdline"] or [])
    ]
    assert left == []


def test_the_kernel_alone_keeps_a_process_in(tmp_path):
    """Without the audit hook: files outside are denied by Landlock, the network is
    gone with the namespace."""
    (tmp_path / "work").mkdir()
    (tmp_path / "secret").write_text("x")
    code = f"""
import os, socket, sys
from ioi_course.grading import sandbox
apart = sandbox.new_namespaces()
if first := os.fork():
    os.waitpid(first, 0)
    os._exit(0)
print(apart, sandbox.isolate({str(tmp_path / "work")!r}, sandbox.readable()))
def denied(do):
    try: do()
    except OSError: return True
open({str(tmp_path / "work" / "fine")!r}, "w").close()
print(denied(lambda: open({str(tmp_path / "secret")!r})),
      denied(lambda: open({str(tmp_path / "new")!r}, "w")),
      denied(lambda: os.listdir("/")),
      denied(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
      denied(lambda: os.listdir("/etc")), denied(lambda: open("/etc/passwd")),
      denied(lambda: os.memfd_create("x")))
os.chmod({str(tmp_path / "secret")!r}, 0o777)
os.utime({str(tmp_path / "secret")!r}, (0, 0))
print([name for name in os.listdir("/proc") if name.isdigit()],
      os.stat({str(tmp_path / "secret")!r}).st_mtime > 0)
sys.stdout.flush()
os._exit(0)
"""
    (tmp_path / "secret").chmod(0o600)
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if said[0] != "True []":
        pytest.skip(f"this kernel lacks what keeps a submission in: {said[0]}")
    assert said[1] == " ".join(["True"] * 7)
    assert (
        said[2] == "['1'] True"
        and (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    )


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


def test_a_run_is_stopped_goes_on_and_grades_only_what_changed(
    small, server, tmp_path, monkeypatch
):
    subs, out = tmp_path / "subs", tmp_path / "out"
    for student, data in {
        "ann": notebook(),
        "bob": instead_of(
            DOUBLE, "def double(x):\n    assert False, '<script>alert(1)</script>'"
        ),
        "=cmd": with_cell("raise ValueError('-')"),
        "slow": with_cell("import time\ntime.sleep(500)"),
        "other": notebook(name="other"),
    }.items():
        (subs / student).mkdir(parents=True)
        (subs / student / f"{NAME}.ipynb").write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "ioi_course.cli",
        "grade",
        str(subs),
        "--assignment",
        str(small.path),
        "--out",
        str(out),
        "--as-root",
        "--jobs",
        "2",
        "--timeout",
        "100",
        "--memory",
        "0.5",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # which a shell's background job ignores
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 150
    while (
        len(list((out / "results").glob("[!.]*.json"))) < 4 and time.monotonic() < until
    ):
        time.sleep(0.1)
        assert process.poll() is None, process.stdout.read()
    # server, supervisor, runner
    while len(tree := psutil.Process(process.pid).children(recursive=True)) < 3:
        assert time.monotonic() < until, tree
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and "Stopped" in said
    assert psutil.wait_procs(tree, timeout=4)[1] == []

    monkeypatch.setattr(run, "Server", lambda: nullcontext(server))  # a warm one
    (subs / "slow" / f"{NAME}.ipynb").write_bytes(notebook([*CELLS, "# quicker"]))
    arguments = [*command[3:-4], "--timeout", "100", "--memory", "0.5"]
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(
        cli.app, arguments
    )
    assert result.exit_code == 0, result.output
    assert "Graded 1 of 5" in result.output

    with (out / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["'=cmd", "ann", "bob", "other", "slow"]
    points = ["q1", "q1 of", "q2", "q2 of", "q10", "q10 of", "total", "of"]
    columns = ["student", "assignment", *points, "status", "late", "note"]
    full, less = "2 2 3 3 1 1 6 6".split(), "0 2 3 3 1 1 4 6".split()
    assert list(rows["ann"]) == columns
    for student, got in {"ann": full, "slow": full, "bob": less}.items():
        expected = [student, NAME, *got, "graded", "", ""]
        assert list(rows[student].values()) == expected
    assert rows["other"]["total"] == "0" and rows["other"]["status"] == "refused"
    assert rows["'=cmd"]["total"] == "6" and "ValueError: -" in rows["'=cmd"]["note"]

    text = (out / "reports" / "bob.html").read_text()
    page = _Page(text)
    # the public test's message, escaped
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert "secret" not in text and "41" not in re.sub(
        r"<style>.*?</style>", "", text, flags=re.S
    )  # nothing hidden
    assert (
        "Hidden tests: 0 passed, 1 failed." in text
        and "bob</strong>: 4 of 6 points" in text
    )
    assert ("html", {"lang": "en"}) in page.tags and [
        tag for tag, _ in page.tags
    ].count("h1") == 1
    assert all(
        attrs.get("href", "#").startswith("#") and "src" not in attrs
        for _, attrs in page.tags
    )
    assert {attrs.get("scope") for tag, attrs in page.tags if tag == "th"} == {
        "col",
        "row",
    }

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.app, arguments)
    assert again.exit_code == 0 and "Graded 0 of 5" in again.output
    assert {
        path: path.read_bytes() for path in out.rglob("*") if path.is_file()
    } == before


def _touch(path: Path) -> Path:
    path.write_text("")
    return path


def test_an_assignment_is_a_zip_or_a_name(tmp_path, small):
    (tmp_path / "nbs").mkdir()
    _touch(tmp_path / "nbs" / "00_setup.ipynb")
    with pytest.raises(CourseError, match="none is built"):
        assignments.find_assignment("a_tokens", tmp_path)
    built = tmp_path / "build" / "assignments" / "a_tokens" / "autograder.zip"
    built.parent.mkdir(parents=True)
    shutil.copy(small.path, built)
    assert assignments.find_assignment("a_tokens", tmp_path) == built
    with pytest.raises(CourseError, match="Did you mean 'a_tokens'"):
        assignments.find_assignment("a_token", tmp_path)
    with pytest.raises(CourseError, match="no file"):
        assignments.find_assignment("nothing.zip", tmp_path)
    with pytest.raises(CourseError, match="not an autograder zip"):
        assignments.read_assignment(_touch(tmp_path / "empty.zip"))


def test_points_and_names_are_read_in_the_order_of_the_questions(small):
    assignment = small
    assert list(assignment.tests) == ["q1", "q2", "q10"] and assignment.name == NAME
    assert assignment.cases["q2"] == [
        {"name": "q2 - 1", "points": 1, "hidden": False},
        {"name": "q2 - 2", "points": 2, "hidden": True},
    ]
    assert assignment.answers == {
        "q1": ["double"],
        "q2": ["margin"],
        "q10": ["best_head"],
    }


def test_a_built_assignment_solution_and_untouched(root, server, tmp_path):
    """One of the course's own, built by tools/assignments.py: its solutions score
    everything, its stubs nothing."""
    spec = importlib.util.spec_from_file_location(
        "assignments", root / "tools" / "assignments.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    built = tool.build(tool.masters()[0], tmp_path / "built", check=False)
    assignment = assignments.read_assignment(built / "autograder.zip")
    for folder, share in (("instructor", 1), ("student", 0)):
        data = (built / folder / f"{assignment.name}.ipynb").read_bytes()
        got = grading.grade("a", data, assignment, server)
        assert got.total == share * got.possible and got.possible == 40, got.notes
        assert got.status == "graded" and got.notes == []
