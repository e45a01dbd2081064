"""The processes of one submission, from our side: what they say, what they use, and why
they ended."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ioi_course.grading import memory
from ioi_course.grading.assignments import Assignment
from ioi_course.grading.memory import Group
from ioi_course.grading.server import (
    FACTOR,
    SUBMISSION,
    WALL,
    GradingError,
    Server,
    Spent,
)
from ioi_course.grading.notebooks import clean_text

# seconds; the start of a submission's processes takes less than one on an idle machine
START = 60
JUDGING = 60  # seconds of computing for a judge, at the least
# from the processes of one run of a submission; an honest notebook makes some for each
# cell
MESSAGES = 100_000
TRIED = 50  # kinds of things that it tried; the hook in its process reports no more
HIDDEN = "what it may not, when a hidden test asked"
PROCESSES = 30  # more than that at a time is a fork bomb
THREADS = 1000  # and so many of them would leave others none


def _remove(folder: str) -> None:
    """Remove a submission's folder, however deep it is and whatever the rights in it
    are."""
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder], capture_output=True)


class Ended(Exception):
    """The processes of a submission ended, or were ended; the message says why, as
    "it …"."""


class Waited(Ended):
    """They were ended by the clock, and had not computed for their time."""


class Runner:
    """The processes of one submission, from our side of the socket; a context manager
    that leaves none behind."""

    def __init__(self, server: Server, spent: Spent, stop: threading.Event) -> None:
        self.doing = "start"  # "start", "cells", "tests"
        self.cell: int | None = None
        self.tried: set[str] = set()
        self._limits, self._spent, self._stop = spent.limits, spent, stop
        self._key, self._server, self._supervisor = secrets.token_hex(16), server, None
        self._buffer, self._waiting, self._heard = b"", deque(), 0
        self._group = (
            Group(base, int(self._limits.memory * 2**30))
            if (base := memory.home())
            else None
        )
        self._channel = server.fork(SUBMISSION, stop, self._group)
        self._work = tempfile.mkdtemp(prefix="ioi-grade-")
        # for who does not read what we send
        self._channel.settimeout(self._limits.timeout)
        self._hidden = False  # whether hidden tests are judged
        self._used = 0.0  # seconds of computing
        self.touch(START)

    def start(self, name: str, notebook: bytes, secret: list[str], **job: Any) -> dict:
        """Have the cells run from here on; returns what isolates them."""
        (Path(self._work) / f"{name}.ipynb").write_bytes(notebook)
        work, memory = os.path.realpath(self._work), int(self._limits.memory * 2**30)
        line = json.dumps(
            {
                "key": self._key,
                "work": work,
                "memory": memory,
                "secret": secret,
                "required": self._limits.isolation,
                **job,
            }
        )
        try:
            self._channel.sendall(line.encode() + b"\n")
        except OSError as error:
            raise Ended("ended its process") from error
        return self.wait_for("lacking")

    def touch(self, seconds: float | None = None) -> None:
        """What is being waited for has its time, or so many seconds, from now on."""
        self._allowed = seconds or self._limits.timeout
        self._since, self._deadline = (
            self._used,
            time.monotonic() + WALL * self._allowed,
        )

    def judge(
        self, assignment: Assignment, question: str, hidden: bool, seed: int
    ) -> list | None:
        """Have a question's public or hidden cases judged; what came of each, None if
        the answer's process ended."""
        self.doing = "tests"
        tests = [
            (source, assignment.answers[name])
            for name, source in assignment.tests.items()
        ]
        theirs, ours = socket.socketpair()
        with theirs, ours:
            judge = self._server.judge(tests, self._stop, ours.fileno())
            self.touch()
            try:
                socket.send_fds(self._channel, [b"q"], [theirs.fileno()])
            except OSError as error:
                judge.close()
                raise self._gone() from error
        names = assignment.answers[question]
        job = {
            "tests": assignment.tests[question],
            "names": names,
            "hidden": hidden,
            "seed": seed,
            "seconds": max(JUDGING, self._limits.timeout),
        }
        self._hidden = hidden
        with judge:
            judge.sendall(json.dumps(job).encode() + b"\n")
            said = b""
            while not said.endswith(b"\n"):
                self._watch()
                ready = select.select([judge, self._channel], [], [], 0.2)[0]
                if self._channel in ready and not self._receive():
                    raise self._gone()
                if judge in ready:
                    part = judge.recv(1 << 16)
                    if not part:
                        raise GradingError("the judge ended without a word")
                    said += part
                for message in self._lines():
                    self._hear(message)
        said = json.loads(said)
        if "long" in said:
            raise Waited("returned what takes too long to compare")
        return said.get("results")

    def wait_for(self, what: str) -> dict:
        return self._next(lambda message: self._ours(message) and what in message)

    def messages(self):
        """The messages while the cells run."""
        while True:
            yield self._next(self._ours)

    def suspect(self, what: str) -> None:
        """Take note of what a notebook has no business to do; of
        very much, the first."""
        if len(self.tried) < TRIED:
            self.tried.add(what)

    def _ours(self, message: dict) -> bool:
        return message.get("key") == self._key

    def _next(self, wanted: Callable[[dict], bool]) -> dict:
        """The next message that is wanted; on the way watch time,
        memory and what was tried."""
        while True:
            for message in self._lines():
                if self._hear(message):
                    continue
                if wanted(message):
                    return message
            self._watch()
            if select.select([self._channel], [], [], 0.2)[0] and not self._receive():
                raise self._gone()

    @property
    def _too_much(self) -> str:
        return f"was stopped with more than {self._limits.memory:g} GB of memory"

    def _gone(self) -> Ended:
        """Why its processes are no longer there."""
        return Ended(
            self._too_much
            if self._group and self._group.overran
            else "ended its process"
        )

    def _receive(self) -> bool:
        """Read what there is; False if the other side has gone."""
        try:
            data = self._channel.recv(1 << 16)
        except OSError:
            data = b""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._waiting.extend(filter(None, lines))
        self._heard += len(lines)
        if len(self._buffer) > 2**20:
            self._buffer = b"-"  # of a line too long to be ours
            self.suspect("wrote to the grader's channel")
        if self._heard > MESSAGES:
            self.suspect("wrote to the grader's channel")
            raise Ended("was stopped after more messages than a notebook makes")
        return bool(data)

    def _lines(self):
        while self._waiting:
            yield self._parse(self._waiting.popleft())

    def _hear(self, message: dict) -> bool:
        """Take note of a message that may come at any time."""
        # the first, before any cell
        if self._supervisor is None and "supervisor" in message:
            self._supervisor = psutil.Process(message["supervisor"])
        elif not self._ours(message):
            self.suspect("wrote to the grader's channel")
        elif "tried" in message:
            what = f"to {clean_text(message['tried'])}"
            # or what a hidden test brought would stand in a note that a student reads
            self.suspect(f"tried {HIDDEN if self._hidden else what}")
        else:
            return False
        return True

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
        if self._supervisor is not None:
            self._count()
        if self._used - self._since > self._allowed:
            raise Ended(f"was stopped after {self._allowed:g} s")
        if time.monotonic() > self._deadline:
            raise Waited(
                f"was stopped after {WALL * self._allowed:g} s, most of which it waited"
            )
        # in our own start it would end the grading
        if self.doing != "start" and self._spent.out(self._used):
            raise Ended(
                "was stopped when the notebook had taken "
                f"{FACTOR * self._limits.timeout:g} s in all"
            )

    def _count(self) -> None:
        """Seconds and memory of all processes of the submission."""
        try:
            tree = self._supervisor.children(recursive=True)
            times = [process.cpu_times() for process in tree]
            # with those of children that ended
            self._used = max(self._used, sum(sum(each[:4]) for each in times))
            if len(tree) > PROCESSES:
                raise Ended(f"was stopped with more than {PROCESSES} processes")
            if sum(process.num_threads() for process in tree) > THREADS:
                raise Ended(f"was stopped with more than {THREADS} threads")
            if self._group:
                self._spent.memory = max(
                    self._spent.memory, self._server.resident + self._group.peak
                )
                return
            room, base = self._limits.memory * 2**30, self._server.resident
            more = sum(max(0, process.memory_info().rss - base) for process in tree)
            if (
                more > room
                and self._server.shared_out(
                    [process.memory_full_info().pss for process in tree]
                )
                > room
            ):
                raise Ended(self._too_much)
            self._spent.memory = max(self._spent.memory, more + base)
        except psutil.Error:
            pass  # a process that has just ended

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._supervisor is not None:
            try:
                self._count()
            except Ended:
                pass
        self._spent.seconds += self._used
        self._channel.close()
        if self._supervisor is not None:
            try:
                self._supervisor.send_signal(signal.SIGTERM)
                self._supervisor.wait(10)
            except psutil.NoSuchProcess:
                pass
            except psutil.TimeoutExpired:
                self._supervisor.kill()
        if self._group:
            self._group.__exit__()
        _remove(self._work)
