"""Grade notebooks on this machine, each in processes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
import os
import threading

import psutil

from ioi_course.grading import draws
from ioi_course.grading.assignments import Assignment
from ioi_course.grading.grades import Grade, Question
from ioi_course.grading.processes import Ended, Runner, Waited
from ioi_course.grading.server import (
    FACTOR,
    GradingError,
    Limits,
    MEMORY,
    Server,
    Spent,
)
from ioi_course.grading.notebooks import (
    Refused,
    clean_text,
    defined_twice,
    listed,
    read_cells,
)


# questions whose answers never come; then the rest is not asked, or one
# submission holds up the class
WAITS = 2


def grade(
    student: str,
    data: bytes,  # the submission's file
    assignment: Assignment,
    server: Server,
    limits: Limits = Limits(),  # noqa: B008
    secret: Sequence[Path] = (),  # files and folders that must not be read
    stop: threading.Event | None = None,  # set: give up with KeyboardInterrupt
    seed: int
    | None = None,  # of the hidden tests, to grade again as before; drawn if not given
) -> Grade:
    """Grade one submission, whose file's bytes are `data`."""
    questions = {question.name: question for question in untested(assignment)}
    graded = Grade(student, assignment.name, "graded", [], list(questions.values()))
    try:
        cells = read_cells(data, assignment.name)
    except Refused as refused:
        graded.status, graded.notes = "refused", [str(refused)]
        return graded
    spent, stop, graded.seed = Spent(limits), stop or threading.Event(), seed
    hidden = sorted({os.path.realpath(path) for path in secret})
    saw, waits = Seen(), 0
    groups: dict[tuple[str, ...], list[tuple[str, bool]]] = {}
    # nothing that a hidden test brings can be carried into what a public one says
    for is_hidden in (False, True):
        for name, without in assignment.without.items():
            groups.setdefault(without, []).append((name, is_hidden))
    for without, left in groups.items():
        while left and not spent.out() and waits < WAITS:
            with Runner(server, spent, stop) as runner:
                try:
                    chosen = [cell for cell in cells if cell[0] not in saw.left_out]
                    names = sorted(
                        {
                            name
                            for names in assignment.answers.values()
                            for name in names
                        }
                    )
                    have = runner.start(
                        assignment.name,
                        data,
                        hidden,
                        cells=chosen,
                        names=names,
                        without=without,
                    )
                    graded.lacking = [clean_text(what) for what in have["lacking"]]
                    runner.doing = "cells"
                    _run_cells(runner, saw, not without, {i for i, _ in chosen})
                    if graded.seed is None:
                        # now that nothing can tell the cells
                        graded.seed = draws.draw()
                    while left:
                        name, is_hidden = left[0]
                        _judge(
                            runner, questions[name], assignment, is_hidden, graded.seed
                        )
                        left.pop(0)
                except Ended as ended:
                    if runner.doing == "start":
                        raise GradingError(
                            f"{student}: the grading process {ended}."
                        ) from ended
                    if runner.doing == "tests":
                        waits += isinstance(ended, Waited)
                        name, _ = left[0]
                        questions[name].note = f"The answer {ended} when it was tested."
                        left[:] = [each for each in left if each[0] != name]
                    elif runner.cell is not None:
                        saw.left_out[runner.cell] = f"{ended}, and was left out"
                finally:
                    saw.tried |= runner.tried
        for name in dict.fromkeys(name for name, _ in left):
            waited = f"Not tested: the answers to {WAITS} questions never came."
            took = (
                f"Not tested: the notebook took more than {FACTOR * limits.timeout:g} "
                "s."
            )
            questions[name].note = waited if waits >= WAITS else took
    for question in graded.questions:
        missing = [
            name
            for name in assignment.answers[question.name]
            if name != "env" and name not in saw.defined
        ]
        if missing and not question.note:
            question.note = f"The notebook does not define {listed(missing)}."
    graded.seconds, graded.memory = round(spent.seconds, 1), round(spent.memory / 2**20)
    _take_notes(graded, dict(cells), saw)
    graded.notes += defined_twice(
        cells, {name for names in assignment.answers.values() for name in names}
    )
    return graded


FAILED = {"passed": False, "message": ""}


def untested(assignment: Assignment) -> list[Question]:
    """The questions of an assignment, with no test passed."""
    return [
        Question(name, [case | FAILED for case in cases])
        for name, cases in assignment.cases.items()
    ]


@dataclass
class Seen:
    """What was seen of a submission's cells, over all of its runs. None of
    it counts for points."""

    left_out: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    passed_over: dict[int, str] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)


def _run_cells(runner: Runner, saw: Seen, whole: bool, cells: set[int]) -> None:
    """Follow the cells; only a run with the whole library says which of them
    fail and what they define.

    Messages come out of the student's process, so of each no more is
    believed than it can do no harm.
    """
    if whole:
        saw.errors, saw.passed_over = {}, {}
    runner.touch()
    for message in runner.messages():
        if type(message.get("done")) is list:
            saw.defined |= set(map(str, message["done"]))
            return
        if "passed_over" in message and runner.cell is not None:
            saw.passed_over.setdefault(
                runner.cell, clean_text(message["passed_over"], 60).partition("\n")[0]
            )
            continue
        if type(message.get("cell")) is not int or message["cell"] not in cells:
            runner.suspect("wrote to the grader's channel")
            continue
        runner.cell = message["cell"]
        if "error" not in message:
            runner.touch()
        elif whole:
            saw.errors[runner.cell] = f"stopped with {clean_text(message['error'])}"


def _judge(
    runner: Runner, question: Question, assignment: Assignment, hidden: bool, seed: int
) -> None:
    """Have a question's public or hidden cases judged, and enter what came of it."""
    cases = question.hidden if hidden else question.public
    if not cases:
        return
    results = runner.judge(assignment, question.name, hidden, seed)
    if results is None:
        question.note = "The answer ended its process when it was tested."
        return
    for case, (passed, message) in zip(cases, results, strict=True):
        case["passed"] = passed is True
        case["message"] = clean_text(message, 2000).removeprefix(
            "❌ Test case failed\n"
        )


def _take_notes(graded: Grade, cells: dict[int, str], saw: Seen) -> None:
    shown = [
        f"Cell {i} ({_first_line(cells[i])}) {why.rstrip('.')}."
        for i, why in sorted((saw.errors | saw.left_out).items())
    ]
    if len(shown) > 5:
        shown[5:] = [f"{len(shown) - 5} more cells stopped with an error."]
    stopped = [
        question.name
        for question in graded.questions
        if question.note.startswith(("The answer", "Not tested"))
    ]
    if shown or stopped:
        graded.status = "errors"
    if saw.tried:
        graded.status = "review"
        graded.notes += [f"The notebook {listed(sorted(saw.tried))}."]
    graded.notes += shown
    if saw.passed_over:
        graded.notes.append(
            "Not run while grading: "
            f"{listed(f'{w} (cell {i})' for i, w in saw.passed_over.items())}."
        )
    graded.notes += [
        f"{question.name}: {question.note}"
        for question in graded.questions
        if question.note
    ]


def _first_line(source: str) -> str:
    line = next(line for line in source.splitlines() if line.strip()).strip()
    return clean_text(line if len(line) <= 40 else f"{line[:39]}…")


def default_jobs(memory: float = MEMORY) -> int:
    """How many submissions to grade at a time: one per core,
    fewer if memory is short."""
    return max(
        1,
        min(
            len(os.sched_getaffinity(0)),
            int(psutil.virtual_memory().available / 2**30 / memory),
        ),
    )
