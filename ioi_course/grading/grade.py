"""Grade notebooks on this machine, each in processes of its own, and write a table and a report for each student."""

# Otter's tests in the assignment's autograder zip decide. What is ours is the safe place to run them in: a submission is a
# program written by somebody who would like it to score. What is done about that, on Linux:
#
# - A warm server (`ioi_course.grading.worker`) imports torch and the course once and forks for each submission, so that
#   a submission costs seconds. It starts with an almost empty environment and knows neither tests nor other submissions.
# - The kernel confines the fork, whatever runs in it (`ioi_course.grading.sandbox`). Namespaces: no network at all, and no process
#   outlives it. Landlock: it reads Python, its libraries and the system's files, writes in a folder of its own that is
#   removed afterwards, and sees no home directory, submission, report or zip. Limits: memory, size of a file.
# - An audit hook denies and reports what a notebook has no business to do: files elsewhere, network, processes, signals,
#   ctypes, a search through memory, a look into the grader's frames. Such a submission gets the status `review`.
# - The tests reach a process only after all cells have run, over a socket, never as a file. Each question is judged in
#   a fork of its own, which gets that question's tests only, so that what one answer does to its process, and what it
#   learns of its tests, ends with the question. Functions of the course, otter and torch that cells replaced are put back
#   first; and when a question's tests have run, nothing may have been replaced again, and tests whose outcome is known
#   must come out so, or the question gets nothing.
# - A result counts only with the random number that came with the tests. Points are computed here, from the zip.
# - Cells run one by one. A cell that kills its process (os._exit, too much memory, an endless loop until the time limit)
#   is left out and the rest runs again: it costs what depends on it. The same with tests. All of a submission takes at
#   most FACTOR times the time limit.
#
# What a determined attacker can still do: answers run in the process that runs their tests, since the tests call them. Who
# leaves Python's rules (a crafted code object, memory corruption through torch or numpy, a hook that goes around the audit
# hook) can read the tests of the question being judged, take the number from memory and report that they passed. Without
# that effort an answer may also tell that it is being tested and return, say, an object that equals everything; good tests
# look at types. A socket file of the host, such as Docker's, can be reached by who gets around the audit hook, and many
# small files can fill the disk of the temporary folder. Where the kernel lacks namespaces or Landlock (a run says so)
# only the audit hook stands in for them. So: read what has the status `review`; grade as a user with no rights
# worth having; and where a grade decides something, run the whole command in a container or virtual machine without
# network and secrets, and talk to the student about the answer.

from __future__ import annotations

import ast
import csv
import difflib
import hashlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
import psutil

import ioi_course
from ioi_course.publish.run import CourseError, find_root

TIMEOUT = 60  # seconds that a cell, or the tests of a question, may take
START = 60  # seconds; the start of a submission's processes takes less than one on an idle machine
FACTOR = 5  # all of a submission may take so many times that
MEMORY = 4.0  # GB
PROCESSES = 30  # more than that at a time is a fork bomb
LARGEST = 50 * 2**20  # bytes of a submission; a notebook full of pictures has some 10 MB
KEEP = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")  # of the environment
DATA = files("ioi_course") / "data" / "page"
CHECK = re.compile(r"(\s*grader\.check(_all)?\([^()]*\)\s*;?)+")
NAMED = re.compile(r"""Notebook\(\s*["']([\w.-]+)\.ipynb["']""")
ISOLATION = {"namespaces": "apart", "Landlock": "files"}  # of the kernel: how the runner says that it has them
STATUSES = {
    "graded": "all cells ran",
    "errors": "cells or tests stopped with an error or were stopped; the rest counts",
    "review": "tried something that a notebook has no business to do; look at it",
    "refused": "no notebook, or of another assignment; no points",
    "failed": "the grader could not do its work; run it again",
}


@dataclass(frozen=True)
class Assignment:
    """An assignment's name and its tests, as the autograder zip holds them."""

    path: Path  # of the zip
    name: str
    tests: dict[str, str]  # question -> source of otter's test file
    cases: dict[str, list[dict]]  # question -> name, points and hidden of each test case
    answers: dict[str, list[str]]  # question -> the names of the notebook that its tests look at


@dataclass
class Question:
    """What came of a question; each case has name, points, hidden, passed and message."""

    name: str
    cases: list[dict]
    note: str = ""

    @property
    def points(self) -> float:
        return sum(case["points"] for case in self.cases if case["passed"])

    @property
    def possible(self) -> float:
        return sum(case["points"] for case in self.cases)

    @property
    def public(self) -> list[dict]:
        return [case for case in self.cases if not case["hidden"]]

    @property
    def hidden(self) -> list[dict]:
        return [case for case in self.cases if case["hidden"]]


@dataclass
class Grade:
    """What came of a submission; `status` is one of STATUSES."""

    student: str
    assignment: str
    status: str
    notes: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)  # what this machine's kernel did not do to isolate it

    @property
    def total(self) -> float:
        return sum(question.points for question in self.questions)

    @property
    def possible(self) -> float:
        return sum(question.possible for question in self.questions)


@dataclass(frozen=True)
class Limits:
    """What a submission may use."""

    timeout: float = TIMEOUT  # seconds for one cell, or the tests of one question
    memory: float = MEMORY  # GB beside what the course itself needs


def find_assignment(name: str, root: Path | None = None) -> Path:
    """The autograder zip: a path that ends in .zip, or the name of an assignment that was built under `root`."""
    if name.endswith(".zip"):
        if not Path(name).is_file():
            raise CourseError(f"There is no file {name}.")
        return Path(name)
    built = sorted(find_root(root).glob("build/assignments/*/autograder.zip"))
    names = {path.parent.name: path for path in built}
    if name in names:
        return names[name]
    if not names:
        raise CourseError(f"There is no assignment {name!r}: none is built. Run `make assignments`, or give a zip.")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise CourseError(f"There is no assignment {name!r}.{hint} Those that are built are: {', '.join(names)}.")


def read_assignment(path: Path) -> Assignment:
    """Read an autograder zip, and with otter's own classes the points of each test case."""
    try:
        from otter.test_files import ExceptionTestFile
    except ImportError as error:
        raise CourseError("otter-grader is not installed: pip install 'ioi_course[course]'.") from error
    try:
        with zipfile.ZipFile(path) as archive:
            name = json.loads(archive.read("otter_config.json"))["assignment_name"]
            sources = {Path(n).stem: archive.read(n).decode() for n in archive.namelist() if n.startswith("tests/")}
        sources = {question: sources[question] for question in sorted(sources, key=_natural) if sources[question]}
        tests = {question: ExceptionTestFile.from_string(source, question) for question, source in sources.items()}
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, SyntaxError) as error:
        raise CourseError(
            f"{path} is not an autograder zip with tests in otter's exception format (ok_format: false): {error}."
        ) from error
    if not tests:
        raise CourseError(f"{path} holds no tests.")
    cases = {
        question: [{"name": c.name, "points": c.points, "hidden": bool(c.hidden)} for c in file.test_cases]
        for question, file in tests.items()
    }
    answers = {q: sorted({n for c in file.test_cases for n in c.body._get_func_params()}) for q, file in tests.items()}
    return Assignment(path, name, sources, cases, answers)


def _natural(name: str) -> list:
    """A key that sorts q2 before q10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def find_submissions(paths: Iterable[Path], assignment: str) -> dict[str, Path]:
    """Student -> notebook. A folder may hold notebooks, or a folder for each student, as learning platforms export.

    A student is called as the file is, or as the folder where the file alone would not tell.
    """
    found: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_file():
            found.append((path.resolve().parent.name if path.stem == assignment else path.stem, path))
            continue
        if not path.is_dir():
            raise CourseError(f"There is no file or folder {path}.")
        inside = sorted(p for p in path.rglob("*.ipynb") if not any(x[0] == "." for x in p.relative_to(path).parts))
        if not inside:
            raise CourseError(f"The folder {path} holds no notebook.")
        heads = Counter(p.relative_to(path).parts[0] for p in inside)
        for p in inside:
            head = p.relative_to(path).parts[0]
            alone = p.parent == path or heads[head] > 1
            prefix = "" if p.parent == path else f"{head}_"
            found.append((prefix + p.stem if alone else head, p))
    students: dict[str, Path] = {}
    for student, path in ((_text(name), path) for name, path in found):
        if student in students and students[student].resolve() != path.resolve():
            raise CourseError(f"Two submissions are of {student!r}: {students[student]} and {path}. Rename one.")
        students[student] = path
    return dict(sorted(students.items()))


class _Refused(Exception):
    """A file that is not a submission to this assignment."""


def _read_cells(data: bytes, assignment: str) -> list[tuple[int, str]]:
    """Number, counted from 1, and source of the code cells to run: not those that only call the checker."""
    if len(data) > LARGEST:
        raise _Refused(f"The file has {len(data) / 2**20:.0f} MB; a notebook has at most {LARGEST // 2**20}.")
    try:
        nb = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
        cells = [(i, cell.source) for i, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
        otter = nb.metadata.get("otter") or {}
        name = otter.get("assignment_name")
        sources = [source for _, source in cells if source.strip()]
    except Exception as error:  # nbformat, json and whoever wrote the file have many ways to fail
        raise _Refused(f"The file is no notebook: {type(error).__name__}.") from error
    named = [found for source in sources for found in NAMED.findall(source)]
    name = name or (named[0] if named else None)  # a platform may drop the notebook's metadata
    if name != assignment:
        said = f"for the assignment {name!r}" if name else "without the name of an assignment"
        raise _Refused(f"This is a notebook {said}, not for {assignment!r}.")
    return [(i, source) for i, source in cells if source.strip() and not CHECK.fullmatch(source)]


def _defined_twice(cells: Sequence[tuple[int, str]], names: set[str]) -> list[str]:
    """A note for each function among the names that several cells define."""
    where: dict[str, list[int]] = {}
    for i, source in cells:
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name in {node.name for node in body if isinstance(node, ast.FunctionDef)} & names:
            where.setdefault(name, []).append(i)
    several = {name: places for name, places in where.items() if len(places) > 1}
    return [f"{name} is defined in the cells {_list(places)}: the last counts." for name, places in several.items()]


def _list(items: Iterable) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


class GradingError(Exception):
    """The grader itself could not go on; no fault of the submission."""


class Server:
    """The warm process that forks for each submission; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="ioi-grade-")
        kept = {name: os.environ[name] for name in KEEP if name in os.environ}
        fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
                 "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": self._folder.name,
                 "IOI_COURSE_MODEL": "synthetic", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
        self._control, theirs = socket.socketpair()
        with theirs, open(Path(self._folder.name) / "stderr", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from ioi_course.grading.worker import serve; serve({theirs.fileno()})"],
                cwd=self._folder.name, env=kept | fixed, pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        self._warm = False

    def fork(self, stop: threading.Event) -> socket.socket:
        """The socket to a new runner."""
        with self._lock:
            while not self._warm and not select.select([self._control], [], [], 0.2)[0]:
                if stop.is_set():
                    raise KeyboardInterrupt
            if not self._warm and self._control.recv(1) != b"r":
                log = (Path(self._folder.name) / "stderr").read_text(errors="replace").strip().splitlines()
                raise GradingError(f"The grading process did not start: {log[-1] if log else 'it said nothing'}.")
            if not self._warm:
                self._warm, self.resident = True, psutil.Process(self._process.pid).memory_info().rss
            mine, theirs = socket.socketpair()
            with theirs:
                socket.send_fds(self._control, [b"f"], [theirs.fileno()])
            return mine

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # the kernel then kills what it forked
        self._process.wait()
        self._control.close()
        self._folder.cleanup()


class _Ended(Exception):
    """The processes of a submission ended, or were ended; the message says why, as "it …"."""


class _Runner:
    """The processes of one submission, from our side of the socket; a context manager that leaves none behind."""

    def __init__(self, server: Server, limits: Limits, until: float, stop: threading.Event) -> None:
        self.doing = "start"  # "start", "cells", "tests"
        self.cell: int | None = None
        self.tried: set[str] = set()
        self._limits, self._until, self._stop = limits, until, stop
        self._key, self._server, self._supervisor = secrets.token_hex(16), server, None
        self._work = tempfile.mkdtemp(prefix="ioi-grade-")
        self._buffer = b""
        self._channel = server.fork(stop)
        self._channel.settimeout(limits.timeout)  # for who does not read what we send
        self.touch(START)

    def start(self, name: str, notebook: bytes, cells: Sequence[tuple[int, str]], secret: list[str]) -> dict:
        """Have the cells run from here on; returns what isolates them."""
        (Path(self._work) / f"{name}.ipynb").write_bytes(notebook)
        work = os.path.realpath(self._work)
        memory = int(self._limits.memory * 2**30)
        self._send(key=self._key, work=work, cells=cells, memory=memory, secret=secret)
        return self.wait_for("apart")

    def touch(self, seconds: float | None = None) -> None:
        """What is being waited for has its time, or so many seconds, from now on."""
        self._allowed = seconds or self._limits.timeout
        self._deadline = time.monotonic() + self._allowed

    def ask(self, question: str, tests: str) -> dict | None:
        """Have a question judged; returns the judge's message, None if it ended without one."""
        self.doing, nonce = "tests", secrets.token_hex(16)
        self.touch()
        self._send(question=question)
        self.wait_for("ready")
        self._send(nonce=nonce, tests=tests)
        result = self._next(lambda m: m.get("nonce") == nonce or (self._ours(m) and "judged" in m))
        if "nonce" not in result:
            return None
        self.wait_for("judged")
        return result

    def wait_for(self, what: str) -> dict:
        return self._next(lambda message: self._ours(message) and what in message)

    def messages(self):
        """The messages while the cells run."""
        while True:
            yield self._next(self._ours)

    def _ours(self, message: dict) -> bool:
        return message.get("key") == self._key

    def _send(self, **message: Any) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise _Ended("ended its process") from error

    def _next(self, wanted: Callable[[dict], bool]) -> dict:
        """The next message that is wanted; on the way watch time, memory and what was tried."""
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                if not line:
                    continue
                message = self._parse(line)
                if self._supervisor is None and "supervisor" in message:  # the first, before any cell
                    self._supervisor = psutil.Process(message["supervisor"])
                elif self._ours(message) and "tried" in message:
                    self.tried.add(f"tried to {_text(message['tried'])}")
                elif wanted(message):
                    return message
                elif not self._ours(message):
                    self.tried.add("wrote to the grader's channel")
            if len(self._buffer) > 2**20:
                self._buffer = b"-"  # of a line too long to be ours
                self.tried.add("wrote to the grader's channel")
            self._watch()
            if select.select([self._channel], [], [], 0.2)[0]:
                try:
                    data = self._channel.recv(1 << 16)
                except OSError:
                    data = b""
                if not data:
                    raise _Ended("ended its process")
                self._buffer += data

    @staticmethod
    def _parse(line: bytes) -> dict:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        return message if isinstance(message, dict) else {}

    def _watch(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if now > self._deadline:
            raise _Ended(f"was stopped after {self._allowed:g} s")
        if now > self._until and self.doing != "start":  # in our own start it would end the grading
            raise _Ended(f"was stopped when the notebook had taken {FACTOR * self._limits.timeout:g} s in all")
        if self._supervisor is None:
            return
        try:
            tree = self._supervisor.children(recursive=True)
            if len(tree) > PROCESSES:
                raise _Ended(f"was stopped with {len(tree)} processes")
            room, base = self._limits.memory * 2**30, self._server.resident
            if sum(max(0, process.memory_info().rss - base) for process in tree) > room:
                if sum(process.memory_full_info().pss for process in tree) > room + base:
                    raise _Ended(f"was stopped with more than {self._limits.memory:g} GB of memory")
        except psutil.Error:
            pass  # a process that has just ended

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        if self._supervisor is not None:
            try:
                self._supervisor.send_signal(signal.SIGTERM)
                self._supervisor.wait(10)
            except psutil.NoSuchProcess:
                pass
            except psutil.TimeoutExpired:
                self._supervisor.kill()
        shutil.rmtree(self._work, ignore_errors=True)


def grade(
    student: str,
    data: bytes,  # the submission's file
    assignment: Assignment,
    server: Server,
    limits: Limits = Limits(),  # noqa: B008
    secret: Sequence[Path] = (),  # files and folders that must not be read
    stop: threading.Event | None = None,  # set: give up with KeyboardInterrupt
) -> Grade:
    """Grade one submission."""
    questions = {name: Question(name, [case | _FAILED for case in cases]) for name, cases in assignment.cases.items()}
    graded = Grade(student, assignment.name, "graded", [], list(questions.values()))
    try:
        cells = _read_cells(data, assignment.name)
    except _Refused as refused:
        graded.status, graded.notes = "refused", [str(refused)]
        return graded
    until = time.monotonic() + FACTOR * limits.timeout
    hidden = sorted({os.path.realpath(path) for path in secret})
    left_out: dict[int, str] = {}
    errors: dict[int, str] = {}
    tried: set[str] = set()
    left = list(questions)
    defined: set[str] = set()
    while left and time.monotonic() < until:
        with _Runner(server, limits, until, stop or threading.Event()) as runner:
            try:
                have = runner.start(assignment.name, data, [cell for cell in cells if cell[0] not in left_out], hidden)
                graded.lacking = [what for what, key in ISOLATION.items() if not have[key]]
                runner.doing = "cells"
                errors, defined = _run_cells(runner)
                while left:
                    _judge(runner, questions[left[0]], assignment)
                    left.pop(0)
            except _Ended as ended:
                if runner.doing == "start":
                    raise GradingError(f"{student}: the grading process {ended}.") from ended
                if runner.doing == "tests":
                    questions[left.pop(0)].note = f"The answer {ended} when it was tested."
                elif runner.cell is not None:
                    left_out[runner.cell] = f"{ended}, and was left out"
            finally:
                tried |= runner.tried
    for name in left:
        questions[name].note = f"Not tested: the notebook took more than {FACTOR * limits.timeout:g} s."
    for question in graded.questions:
        missing = [name for name in assignment.answers[question.name] if name != "env" and name not in defined]
        if missing and not question.note:
            question.note = f"The notebook does not define {_list(missing)}."
    _take_notes(graded, dict(cells), errors | left_out, tried)
    graded.notes += _defined_twice(cells, {name for names in assignment.answers.values() for name in names})
    return graded


_FAILED = {"passed": False, "message": ""}


def _run_cells(runner: _Runner) -> tuple[dict[int, str], set[str]]:
    """Follow the cells: those that failed with the reason, and the names that are defined in the end."""
    errors = {}
    runner.touch()
    for message in runner.messages():
        if "replaced" in message:
            runner.tried |= {f"replaced {_text(name)}" for name in message["replaced"][:10]}
            continue
        if "defined" in message:
            return errors, set(message["defined"])
        runner.cell = message["cell"]
        if "error" in message:
            errors[runner.cell] = f"stopped with {_text(message['error'])}"
        else:
            runner.touch()


def _judge(runner: _Runner, question: Question, assignment: Assignment) -> None:
    """Have a question judged and enter what came of it."""
    result = runner.ask(question.name, assignment.tests[question.name])
    if result is None:
        question.note = "The answer ended its process when it was tested."
        return
    if not result["trusted"] or len(result["results"]) != len(question.cases):
        runner.tried.add("made tests come out wrong")
        question.note = "Not counted: the notebook changes how tests come out."
        return
    for case, (passed, message) in zip(question.cases, result["results"], strict=True):
        case["passed"] = passed is True
        case["message"] = _text(message, 2000).removeprefix("❌ Test case failed\n")


def _take_notes(graded: Grade, cells: dict[int, str], errors: dict[int, str], tried: set[str]) -> None:
    shown = [f"Cell {i} ({_first_line(cells[i])}) {why}." for i, why in sorted(errors.items())]
    if len(shown) > 5:
        shown[5:] = [f"{len(shown) - 5} more cells stopped with an error."]
    stopped = [question.name for question in graded.questions if question.note.startswith(("The answer", "Not tested"))]
    if shown or stopped:
        graded.status = "errors"
    if tried:
        graded.status = "review"
    graded.notes += [f"The notebook {_list(sorted(tried))}."] if tried else []
    graded.notes += shown
    graded.notes += [f"{question.name}: {question.note}" for question in graded.questions if question.note]


def _first_line(source: str) -> str:
    line = next(line for line in source.splitlines() if line.strip()).strip()
    return _text(line if len(line) <= 40 else f"{line[:39]}…")


def _text(value: object, longest: int = 300) -> str:
    """What a submission says, in characters that every file format can hold."""
    text = str(value)[:longest].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def default_jobs(memory: float = MEMORY) -> int:
    """How many submissions to grade at a time: one per core, fewer if memory is short."""
    return max(1, min(len(os.sched_getaffinity(0)), int(psutil.virtual_memory().available / 2**30 / memory)))


def grade_all(
    submissions: dict[str, Path],  # student -> notebook
    assignment: Assignment,
    out: Path,
    jobs: int,
    limits: Limits = Limits(),  # noqa: B008
    on_grade: Callable[[Grade, bool], None] = lambda grade, new: None,  # called after each, in any order
) -> list[Grade]:
    """Grade all that changed since the last run with this `out`; write grades.csv, reports/ and results/.

    results/ is for the instructor: it also holds what the hidden tests said.
    """
    if not sys.platform.startswith("linux"):
        raise CourseError(
            "Grading isolates submissions with means of Linux. Use WSL 2, a container or a Linux machine."
        )
    for folder in (out / "results", out / "reports"):
        folder.mkdir(parents=True, exist_ok=True)
    base = hashlib.sha256(assignment.path.read_bytes() + repr((limits, ioi_course.__version__)).encode())
    grades: dict[str, Grade] = {}
    waiting: dict[str, tuple[bytes, str]] = {}
    for student, path in submissions.items():
        data = path.read_bytes()
        key = base.copy()
        key.update(student.encode() + b"\0" + data)
        if (known := _load(out / "results" / f"{student}.json", key.hexdigest())) is not None:
            grades[student] = known
            on_grade(known, False)
        else:
            waiting[student] = data, key.hexdigest()
    if waiting:
        secret = [assignment.path, out, *submissions.values()]
        stop = threading.Event()
        with Server() as server, ThreadPoolExecutor(min(jobs, len(waiting))) as pool:

            def work(student: str) -> Grade:
                data, key = waiting[student]
                try:
                    graded = grade(student, data, assignment, server, limits, secret, stop)
                except Exception as error:  # one submission must not end the run
                    return Grade(student, assignment.name, "failed", [f"{type(error).__name__}: {_text(error)}"])
                _save(graded, out / "results" / f"{student}.json", key)
                return graded

            tasks = [pool.submit(work, student) for student in waiting]
            try:
                for task in as_completed(tasks):
                    graded = grades[task.result().student] = task.result()
                    on_grade(graded, True)
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    ordered = [grades[student] for student in submissions]
    write_table(ordered, out / "grades.csv")
    for graded in ordered:
        write_report(graded, out / "reports" / f"{graded.student}.html")
    return ordered


def _save(graded: Grade, path: Path, key: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps({"key": key, **asdict(graded)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _load(path: Path, key: str) -> Grade | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("key") != key:
            return None
        return Grade(**kept | {"questions": [Question(**question) for question in kept["questions"]]})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cell(value: object) -> str:
    """A field of the table; one that a spreadsheet would take for a formula begins with an apostrophe."""
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_table(grades: Sequence[Grade], path: Path) -> None:
    """Write grades.csv: student, assignment, points of each question, total, status, note."""
    questions = list(dict.fromkeys(question.name for graded in grades for question in graded.questions))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["student", "assignment", *questions, "total", "status", "note"])
        for graded in grades:
            points = {question.name: question.points for question in graded.questions}
            row = [graded.student, graded.assignment, *(points.get(name, "") for name in questions)]
            row += [graded.total if points else "", graded.status, " ".join(graded.notes)]
            rows.writerow(map(_cell, row))


def write_report(graded: Grade, path: Path) -> None:
    """Write a student's page: it stands alone, and gives of hidden tests only how many passed."""
    from jinja2 import Environment

    env = Environment(autoescape=True)
    env.filters["points"] = lambda points: f"{points:g}"
    template = env.from_string((DATA / "grade.html.j2").read_text(encoding="utf-8"))
    css = (DATA / "page.css").read_text(encoding="utf-8")
    path.write_text(template.render(grade=graded, css=css) + "\n", encoding="utf-8")
