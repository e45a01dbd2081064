"""A process that judges a question: it holds the tests and asks; it never runs, or
unpickles, a student's code."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import socket
from contextlib import suppress

from ioi_course.grading import asking, draws, sandbox, wire

LONGEST = 2000  # characters of one message
ROOM = 8 * 2**30  # bytes
GRACE = 5  # seconds for the last word of a judge whose time is over


def serve(channel: socket.socket) -> None:
    """Take in the tests of an assignment, and fork a judge for each two sockets
    that come over `channel`.

    The first line brings the tests of each question. Each is run once with no
    answer at all, so that what tests compute with `recipes.once` is computed
    here, and every judge has it.
    """
    sandbox.adopt_orphans(signal.SIGKILL)
    for tests, names in json.loads(channel.makefile("rb", buffering=0).readline()):
        for hidden in (False, True):
            with suppress(Exception):
                judged(tests, names, hidden, Nobody())
    gc.collect()
    gc.freeze()
    channel.sendall(b"r")
    while True:
        asked, fds, _, _ = socket.recv_fds(channel, 1, 2)
        if not asked:
            return
        if os.fork() == 0:
            try:
                channel.close()
                judge(*(socket.socket(fileno=fd) for fd in fds))
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)


class Nobody:
    """In the place of `asking.Line`: no answer is there."""

    def look(self, name: str) -> None:
        return None


class TooLong(BaseException):
    """The time of a judge is over. No test may take it for an answer's error."""


def _over(*_: object) -> None:
    raise TooLong


def judge(control: socket.socket, channel: socket.socket) -> None:
    """Judge what the first line of `control` asks for, by questions over `channel`, and
    say over `control` what came of it.

    The line brings the tests of a question, the names that they look at, whether the
    hidden ones are meant, the seed, and the seconds of computing that a judge has: an
    answer is data, and data can be made that take for ever to compare.
    """
    sandbox.adopt_orphans(signal.SIGKILL)
    sandbox.limit_memory(ROOM)
    job = json.loads(control.makefile("rb").readline())
    draws.begin(job["seed"])
    signal.signal(signal.SIGXCPU, _over)
    seconds = int(job["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + GRACE))
    try:
        results = judged(
            job["tests"],
            job["names"],
            job["hidden"],
            asking.Line(channel, job["hidden"]),
        )
        said = {"results": results}
    except wire.Gone:
        said = {"gone": True}
    except TooLong:
        said = {"long": True}
    control.sendall(json.dumps(said).encode() + b"\n")


def judged(
    tests: str, names: list[str], hidden: bool, line: asking.Line | Nobody
) -> list[tuple[bool, str]]:
    """For each test case of that kind, in order, whether it
    passed, and what otter says."""
    import numpy as np
    import torch
    from otter.test_files import ExceptionTestFile

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    file = ExceptionTestFile.from_string(tests, "<tests>")
    file.test_cases = [case for case in file.test_cases if bool(case.hidden) == hidden]
    file.test_case_results = []
    if file.test_cases:
        file.run({name: line.look(name) for name in names})
    return [
        (result.passed is True, result.message[:LONGEST])
        for result in file.test_case_results
    ]
