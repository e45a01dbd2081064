"""The warm process that forks for each submission, and what a submission may use."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ioi_course.grading.memory import Group

SUBMISSION, JUDGE = b"s", b"j"  # what the warm process is asked to fork
TIMEOUT = 60  # seconds of computing that a cell, or the tests of a question, may take
# and so many times that by the clock, for who waits, and for a machine that is busy
# with others
WALL = 5
FACTOR = 5  # all of a submission may take so many times that
MEMORY = 4.0  # GB
# of the environment: what the server takes over, and what is set for it
KEEP = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
FIXED = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "", "IOI_COURSE_MODEL": "synthetic",
    "PYTHONDONTWRITEBYTECODE": "1", "PYTHONBREAKPOINT": "0",
    "TORCHDYNAMO_DISABLE": "1", "MPLBACKEND": "agg", "USER": "student",
    "LOGNAME": "student",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a submission may use."""

    # seconds of computing for one cell, or the tests of one question
    timeout: float = TIMEOUT
    memory: float = MEMORY  # GB beside what the course itself needs
    isolation: bool = True  # run nothing where the kernel cannot keep it in


@dataclass
class Spent:
    """What a submission has used so far, over all of its processes."""

    limits: Limits
    seconds: float = 0.0  # of computing
    memory: float = 0.0  # bytes, at the most
    began: float = field(default_factory=time.monotonic)

    def out(self, now: float = 0.0) -> bool:
        """Whether there is no time left, with so many seconds more."""
        most = FACTOR * self.limits.timeout
        return self.seconds + now > most or time.monotonic() > self.began + WALL * most


class GradingError(Exception):
    """The grader itself could not go on; no fault of the submission."""


class Server:
    """The warm process that forks for each submission; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="ioi-grade-")
        kept = {name: os.environ[name] for name in KEEP if name in os.environ}
        fixed = FIXED | {"HOME": self._folder.name}
        self._control, theirs = socket.socketpair()
        with theirs, open(Path(self._folder.name) / "stderr", "wb") as log:
            begin = "from ioi_course.grading.worker import serve; "
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"{begin}serve({theirs.fileno()})"],
                cwd=self._folder.name,
                env=kept | fixed,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._warm, self._judges = False, {}

    def fork(
        self, what: bytes, stop: threading.Event, group: Group | None = None
    ) -> socket.socket:
        """The socket to a new process, for a submission or a server of judges; it
        begins by joining the group."""
        with self._lock:
            return self._fork(what, stop, group)

    def _fork(
        self, what: bytes, stop: threading.Event, group: Group | None = None
    ) -> socket.socket:
        if not self._warm:
            self._wait(self._control, stop)
            self._warm, self.resident = (
                True,
                psutil.Process(self._process.pid).memory_info().rss,
            )
        mine, theirs = socket.socketpair()
        door = [group.door()] if group else []
        with theirs:
            socket.send_fds(self._control, [what], [theirs.fileno(), *door])
        for fd in door:
            os.close(fd)
        return mine

    def judge(
        self,
        tests: Sequence[tuple[str, list[str]]],
        stop: threading.Event,
        answers: int,
    ) -> socket.socket:
        """The socket to a new judge, of an assignment whose tests these are; `answers`
        is its socket to the answers."""
        with self._lock:
            line = json.dumps(tests).encode() + b"\n"
            if line not in self._judges:
                self._judges[line] = judges = self._fork(JUDGE, stop)
                judges.sendall(line)
                self._wait(judges, stop)
            mine, theirs = socket.socketpair()
            with theirs:
                socket.send_fds(self._judges[line], [b"j"], [theirs.fileno(), answers])
            return mine

    def shared_out(self, sizes: Sequence[int]) -> float:
        """What processes of these sizes (PSS) have beside what they share
        with the warm process."""
        # its pages, divided by how many share them
        own = psutil.Process(self._process.pid).memory_full_info().pss
        return sum(max(0, size - own) for size in sizes)

    def _wait(self, channel: socket.socket, stop: threading.Event) -> None:
        """Wait until a process says that it is ready."""
        while not select.select([channel], [], [], 0.2)[0]:
            if stop.is_set():
                raise KeyboardInterrupt
        if channel.recv(1) != b"r":
            log = (
                (Path(self._folder.name) / "stderr")
                .read_text(errors="replace")
                .strip()
                .splitlines()
            )
            raise GradingError(
                "The grading process did not start: "
                f"{log[-1] if log else 'it said nothing'}."
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # the kernel then kills what it forked
        self._process.wait()
        for channel in (self._control, *self._judges.values()):
            channel.close()
        self._folder.cleanup()
