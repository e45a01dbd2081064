"""Grade notebooks on this machine, each in processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
import hashlib
import os
import sys
import threading
import time

import psutil

from ioi_course.grading.assignments import Assignment
from ioi_course.grading.grades import Grade, Question, load, save
from ioi_course.grading.server import Ended, FACTOR, GradingError, Limits, MEMORY, Runner, Server
from ioi_course.grading.submissions import Refused, clean_text, defined_twice, listed, read_cells
from ioi_course.grading.table import write_report, write_table
from ioi_course.project import CourseError
import ioi_course

ISOLATION = {"namespaces": "apart", "Landlock": "files"}  # of the kernel: how the runner says that it has them


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
    questions = {name: Question(name, [case | FAILED for case in cases]) for name, cases in assignment.cases.items()}
    graded = Grade(student, assignment.name, "graded", [], list(questions.values()))
    try:
        cells = read_cells(data, assignment.name)
    except Refused as refused:
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
        with Runner(server, limits, until, stop or threading.Event()) as runner:
            try:
                have = runner.start(assignment.name, data, [cell for cell in cells if cell[0] not in left_out], hidden)
                graded.lacking = [what for what, key in ISOLATION.items() if not have[key]]
                runner.doing = "cells"
                errors, defined = _run_cells(runner)
                while left:
                    _judge(runner, questions[left[0]], assignment)
                    left.pop(0)
            except Ended as ended:
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
            question.note = f"The notebook does not define {listed(missing)}."
    _take_notes(graded, dict(cells), errors | left_out, tried)
    graded.notes += defined_twice(cells, {name for names in assignment.answers.values() for name in names})
    return graded


FAILED = {"passed": False, "message": ""}


def _run_cells(runner: Runner) -> tuple[dict[int, str], set[str]]:
    """Follow the cells: those that failed with the reason, and the names that are defined in the end."""
    errors = {}
    runner.touch()
    for message in runner.messages():
        if "replaced" in message:
            runner.tried |= {f"replaced {clean_text(name)}" for name in message["replaced"][:10]}
            continue
        if "defined" in message:
            return errors, set(message["defined"])
        runner.cell = message["cell"]
        if "error" in message:
            errors[runner.cell] = f"stopped with {clean_text(message['error'])}"
        else:
            runner.touch()


def _judge(runner: Runner, question: Question, assignment: Assignment) -> None:
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
        case["message"] = clean_text(message, 2000).removeprefix("❌ Test case failed\n")


def _take_notes(graded: Grade, cells: dict[int, str], errors: dict[int, str], tried: set[str]) -> None:
    shown = [f"Cell {i} ({_first_line(cells[i])}) {why}." for i, why in sorted(errors.items())]
    if len(shown) > 5:
        shown[5:] = [f"{len(shown) - 5} more cells stopped with an error."]
    stopped = [question.name for question in graded.questions if question.note.startswith(("The answer", "Not tested"))]
    if shown or stopped:
        graded.status = "errors"
    if tried:
        graded.status = "review"
    graded.notes += [f"The notebook {listed(sorted(tried))}."] if tried else []
    graded.notes += shown
    graded.notes += [f"{question.name}: {question.note}" for question in graded.questions if question.note]


def _first_line(source: str) -> str:
    line = next(line for line in source.splitlines() if line.strip()).strip()
    return clean_text(line if len(line) <= 40 else f"{line[:39]}…")


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
        if (known := load(out / "results" / f"{student}.json", key.hexdigest())) is not None:
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
                    return Grade(student, assignment.name, "failed", [f"{type(error).__name__}: {clean_text(error)}"])
                save(graded, out / "results" / f"{student}.json", key)
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
