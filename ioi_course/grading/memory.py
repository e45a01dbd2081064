"""A limit on the memory of a submission: a control group of the kernel's (cgroup v2),
where whoever grades may make one."""

# A group counts all that its processes touch first, private, shared or in files. When
# that is too much, the kernel ends the largest of them, which costs the cell or the
# question that it is at. Pages that a fork shares with the server were touched by the
# server, and do not count. Who may not make groups has two other limits: one on the
# private memory of each process (`sandbox.limit_memory`, which also holds inside a
# group, and makes of too large a tensor an error in its cell), and a look at all
# processes together, five times a second (`server`).

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
BY_GROUP = (
    "Memory: the kernel counted and limited what all processes of a submission had "
    "together (cgroup v2)."
)
BY_WATCH = (
    "Memory: limited for each process, and watched over all of a submission's; this "
    "machine lets the grader make no control groups (cgroup v2)."
)


@cache
def home() -> Path | None:
    """The control group in which we may make groups for submissions, tried out;
    None where there is none.

    A group with members cannot have groups of its own that count memory, so where
    nobody has arranged that, this process moves into one beside them. It works in a
    scope of our own: `systemd-run --user --scope -p Delegate=yes ioi-course grade …`.
    """
    try:
        own = next(
            line for line in OWN.read_text().splitlines() if line.startswith("0::")
        )
        base = ROOT / own.removeprefix("0::").strip().lstrip("/")
        if "memory" not in (base / "cgroup.controllers").read_text().split():
            return None
        if "memory" not in (base / "cgroup.subtree_control").read_text().split():
            (base / "grader").mkdir(exist_ok=True)
            (base / "grader" / "cgroup.procs").write_text(str(os.getpid()))
            (base / "cgroup.subtree_control").write_text("+memory")
        with Group(base, 2**30):
            return base
    except (OSError, StopIteration):
        return None


def sentence() -> str:
    """Which of the two limits counts on this machine."""
    return BY_WATCH if home() is None else BY_GROUP


class Group:
    """A control group with a limit in bytes; a context manager that takes it away once
    its processes have ended."""

    def __init__(self, base: Path, size: int):
        self.path = Path(tempfile.mkdtemp(prefix="ioi-grade-", dir=base))
        (self.path / "memory.max").write_text(str(size))
        (self.path / "memory.swap.max").write_text("0")

    def door(self) -> int:
        """A file descriptor: the process that writes 0 to it joins the group, with
        all that it will fork."""
        return os.open(
            self.path / "cgroup.procs", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        )

    @property
    def peak(self) -> int:
        """Bytes that its processes had at the most; 0 where
        this kernel does not say."""
        with suppress(OSError, ValueError):
            return int((self.path / "memory.peak").read_text())
        return 0

    @property
    def overran(self) -> bool:
        """Whether the kernel has ended its processes."""
        with suppress(OSError, ValueError):
            said = dict(
                line.split()
                for line in (self.path / "memory.events").read_text().splitlines()
            )
            return int(said.get("oom_kill", 0)) > 0
        return False

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for _ in range(20):
            with suppress(OSError):
                # of the kernel's; what looks like files in it needs no deleting
                self.path.rmdir()
                return
            time.sleep(0.05)
