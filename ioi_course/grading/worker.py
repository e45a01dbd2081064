"""The processes that run submissions: a warm server, and for each submission a supervisor, a runner and judges."""

# The server imports torch and the course once, and forks for each submission. The supervisor outlives the runner and kills
# what it leaves behind. The runner executes the cells, and forks a judge for each question: the judge alone gets the
# question's tests, so that whatever they set off ends with it. Messages are lines of JSON over one socket; those of the
# runner carry a key, those of a judge a number used once that came with its tests. `ioi_course.grading` is the other side.

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ioi_course.grading import sandbox

WARM = ("transformer_lens", "otter", "IPython.core.interactiveshell", "ioi_course.checks", "ioi_course.plots")
GUARDED = (
    "builtins",
    "einops",
    "ioi_course",
    "numpy",
    "otter",
    "pandas",
    "torch",
    "transformer_lens",
    "json",
    "inspect",
)
LONGEST = 2000  # characters of one message
CANARY = """
from otter.test_files import test_case
OK_FORMAT = False
name = "canary"

def double(x):
    return 2 * x

def verdict(answer):
    import torch
    from ioi_course.checks.core import Exercise
    return Exercise("0", "canary", double, lambda seed: [(torch.tensor(float(seed)),)], ())(answer, seed=3)

@test_case()
def right():
    assert verdict(lambda x: x + x)

@test_case()
def wrong():
    assert verdict(lambda x: 3 * x)

@test_case()
def never():
    assert False
"""


def send(channel: socket.socket, **message: Any) -> None:
    """Send a message as one line, whatever was sent before it."""
    channel.sendall(b"\n" + json.dumps(message).encode() + b"\n")


def receive(channel: socket.socket) -> dict | None:
    """The next message, read to its end and no further; None when the other side has gone."""
    line = bytearray()
    while not (line.endswith(b"\n") and line.strip()):
        ahead = channel.recv(1 << 16, socket.MSG_PEEK)
        if not ahead:
            return None
        line += channel.recv(ahead.find(b"\n") + 1 or len(ahead))
    return json.loads(line)


def serve(control: int) -> None:
    """Import what submissions need, then fork for each socket that comes over `control`, until it is closed."""
    channel = socket.socket(fileno=control)
    _warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    gc.collect()
    gc.freeze()  # or the collector would write to, and so copy, every page
    channel.sendall(b"r")
    while True:
        asked, fds, _, _ = socket.recv_fds(channel, 1, 1)
        if not asked:
            return
        if os.fork() == 0:
            try:
                channel.close()
                _supervise(socket.socket(fileno=fds[0]))
            finally:
                os._exit(1)
        os.close(fds[0])


def _warm() -> None:
    import torch

    torch.set_num_threads(1)
    for name in WARM:
        importlib.import_module(name)
    from ioi_course.models import load_model

    load_model("synthetic")  # imports the rest of what it needs, and shows a broken installation before it costs marks


def _supervise(channel: socket.socket) -> None:
    """Start the runner; when it has ended, or SIGTERM says that it must, leave nothing behind."""
    import psutil

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sandbox.adopt_orphans(signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(runner, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid, apart = os.getpid(), sandbox.new_namespaces()
    runner = os.fork()
    if runner == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        sandbox.adopt_orphans(signal.SIGKILL)
        try:
            send(channel, supervisor=pid)
            run(channel, apart)
        finally:
            os._exit(1)
    channel.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.waitpid(runner, 0)
    while left := psutil.Process(pid).children(recursive=True):
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=1)
    os._exit(0)


def run(channel: socket.socket, apart: bool) -> None:
    """Execute the cells that the first message brings, then judge question by question as asked."""
    job = receive(channel)
    key, work = job["key"], job["work"]
    _settle(work)
    shell = _shell()
    before = list(_state())
    read = sandbox.readable()
    sys.path[:] = [work, *(p for p in sys.path if any(p == r or p.startswith(r + "/") for r in read))]
    sandbox.limit_memory(job["memory"])
    files = sandbox.restrict_files(read, work)
    sandbox.watch(work, read, job["secret"], judge.__code__, lambda what: send(channel, key=key, tried=what))
    send(channel, key=key, apart=apart, files=files)
    for i, source in job["cells"]:
        send(channel, key=key, cell=i)
        result = shell.run_cell(source, silent=True)
        if error := result.error_before_exec or result.error_in_exec:
            send(channel, key=key, cell=i, error=_said(error))
    send(channel, key=key, replaced=_restore(before))
    send(channel, key=key, defined=sorted(map(str, shell.user_ns)))
    while asked := receive(channel):
        pid = judge(channel, key, before, shell.user_ns)
        os.waitpid(pid, 0)
        send(channel, key=key, judged=asked["question"])
    os._exit(0)


def judge(channel: socket.socket, key: str, before: list, names: dict[str, Any]) -> int:
    """Fork a process that asks for a question's tests, runs them on the names of the notebook, and sends the results."""
    if pid := os.fork():
        return pid
    try:
        send(channel, key=key, ready=True)
        job = receive(channel)
        results = _test(job["tests"], names, messages=True)
        trusted = not _restore(before) and _test(CANARY, {}) == [True, False, False]
        send(channel, nonce=job["nonce"], results=results, trusted=trusted)
    finally:
        os._exit(0)


def _test(source: str, names: dict[str, Any], messages: bool = False) -> list:
    """Which test cases pass, in order; with `messages`, pairs of that and what otter says."""
    import numpy as np
    import torch
    from otter.test_files import ExceptionTestFile

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    file = ExceptionTestFile.from_string(source, "<tests>")
    file.run(names)
    results = file.test_case_results
    return [(r.passed, r.message[:LONGEST]) if messages else r.passed for r in results]


def _settle(work: str) -> None:
    """Move into the submission's folder, and away from the grader's streams."""
    import numpy as np
    import torch

    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(work)
    os.environ |= {"HOME": work, "TMPDIR": work, "IPYTHONDIR": os.path.join(work, ".ipython")}
    sys.argv = [""]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)


def _shell():
    """IPython's shell, so that a cell means what it means in a notebook; it shows nothing and keeps no history."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **kwargs: None
    return shell


def _said(error: BaseException) -> str:
    """An exception in one line; a student's own class may raise while it is shown."""
    try:
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    except BaseException:  # noqa: BLE001
        text = "an exception that cannot be shown"
    return text[:300]


def _state() -> Iterator[tuple[Any, str, Any]]:
    """Each function and class of the guarded modules, and each method of the course's and otter's classes."""
    import torch

    holders: dict[int, Any] = {}
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        if root in GUARDED and isinstance(module, ModuleType):
            holders[id(module)] = module
            own = [value for value in vars(module).values() if isinstance(value, type)]
            if root in ("ioi_course", "otter"):
                holders |= {id(value): value for value in own if value.__module__.partition(".")[0] == root}
    for holder in (*holders.values(), torch.Tensor, torch.nn.Module):
        for attribute, value in list(vars(holder).items()):
            if callable(value) or isinstance(value, property | staticmethod | classmethod):
                yield holder, attribute, value


def _restore(before: list[tuple[Any, str, Any]]) -> list[str]:
    """Put back what was replaced since; returns the names."""
    replaced = []
    for holder, attribute, value in before:
        if vars(holder).get(attribute) is not value:
            setattr(holder, attribute, value)
            replaced.append(f"{holder.__name__}.{attribute}")
    return sorted(set(replaced))
