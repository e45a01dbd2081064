"""The warm process that forks for each submission, and one submission in its processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
import json
import os
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

import psutil

from ioi_course.grading.submissions import clean_text

TIMEOUT = 60  # seconds that a cell, or the tests of a question, may take
START = 60  # seconds; the start of a submission's processes takes less than one on an idle machine
FACTOR = 5  # all of a submission may take so many times that
MEMORY = 4.0  # GB
PROCESSES = 30  # more than that at a time is a fork bomb
KEEP = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")  # of the environment


@dataclass(frozen=True)
class Limits:
    """What a submission may use."""

    timeout: float = TIMEOUT  # seconds for one cell, or the tests of one question
    memory: float = MEMORY  # GB beside what the course itself needs


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


class Ended(Exception):
    """The processes of a submission ended, or were ended; the message says why, as "it …"."""


class Runner:
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
            raise Ended("ended its process") from error

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
                    self.tried.add(f"tried to {clean_text(message['tried'])}")
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
                    raise Ended("ended its process")
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
            raise Ended(f"was stopped after {self._allowed:g} s")
        if now > self._until and self.doing != "start":  # in our own start it would end the grading
            raise Ended(f"was stopped when the notebook had taken {FACTOR * self._limits.timeout:g} s in all")
        if self._supervisor is None:
            return
        try:
            tree = self._supervisor.children(recursive=True)
            if len(tree) > PROCESSES:
                raise Ended(f"was stopped with {len(tree)} processes")
            room, base = self._limits.memory * 2**30, self._server.resident
            if sum(max(0, process.memory_info().rss - base) for process in tree) > room:
                if sum(process.memory_full_info().pss for process in tree) > room + base:
                    raise Ended(f"was stopped with more than {self._limits.memory:g} GB of memory")
        except psutil.Error:
            pass  # a process that has just ended

    def __enter__(self) -> Runner:
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
