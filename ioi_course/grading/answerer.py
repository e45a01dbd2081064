"""The process that runs a submission: first its cells, and then, in a fork for each
question, calls of its answers."""

# Everything in this process belongs to the student from the first cell on, and nothing
# that it says is believed: neither which cells failed nor what was tried counts for
# points, and an answer is compared by its judge, in another process.

from __future__ import annotations

import ast
import functools
import inspect
import json
import linecache
import os
import pdb
import random
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from ioi_course import models
from ioi_course.grading import absence, alarm, asking, recipes, sandbox, wire
from ioi_course.grading.shell import make_shell

SAID = 300  # characters of an error


def send(channel: socket.socket, **message: Any) -> None:
    """Send a message as one line, whatever was sent before it."""
    channel.sendall(b"\n" + json.dumps(message).encode() + b"\n")


def run(channel: socket.socket, apart: bool) -> None:
    """Execute the cells that the first message brings, then answer, question by
    question, over the sockets that come."""
    job = json.loads(channel.makefile("rb", buffering=0).readline())
    key, work = job["key"], job["work"]
    _settle(work)
    shell = make_shell(lambda what: send(channel, key=key, passed_over=what))
    read = sandbox.readable(absence.files_of(job["without"]))
    absence.hollow(job["without"])
    sys.path[:] = [work, *importable(read)]
    sandbox.limit_memory(job["memory"])
    lacking = [*([] if apart else ["namespaces"]), *sandbox.isolate(work, read)]
    if lacking and job["required"]:
        os._exit(1)
    alarm.watch(
        work,
        [*read, "/proc"],
        job["secret"],
        _fork.__code__,
        lambda what: send(channel, key=key, tried=what),
    )
    send(channel, key=key, lacking=lacking)
    for i, source in job["cells"]:
        send(channel, key=key, cell=i)
        if error := run_cell(shell, source, whole=not job["without"]):
            send(channel, key=key, cell=i, error=_said(error))
    names = shell.user_ns
    send(channel, key=key, done=[name for name in job["names"] if name in names])
    while True:
        asked, fds, _, _ = socket.recv_fds(channel, 1, 1)
        if not asked:
            os._exit(0)
        if (pid := _fork()) == 0:
            try:
                answer(
                    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fds[0]),
                    names,
                )
            finally:
                os._exit(0)
        os.close(fds[0])
        os.waitpid(pid, 0)


def importable(read: list[str]) -> list[str]:
    """Where modules are looked for, as far as it may be read; a way there may lead over
    a link, such as that of an environment's folder."""
    return [path for path in sys.path if sandbox.below(os.path.realpath(path), read)]


def run_cell(shell: Any, source: str, whole: bool = True) -> BaseException | None:
    """Run a cell; returns its error. Where the library is not whole, go on behind
    a statement that stopped.

    A call of what is not there must not cost the function that is defined
    below it in the same cell.
    """
    result = shell.run_cell(source, silent=True)
    error = result.error_before_exec or result.error_in_exec
    while not whole and result.error_in_exec is not None:
        source = shell.transform_cell(source)
        places = [
            f.lineno
            for f in traceback.extract_tb(result.error_in_exec.__traceback__)
            if f.name == "<module>"
        ]
        below = [
            node.lineno
            for node in ast.parse(source).body
            if places and node.lineno > places[0]
        ]
        if not below:
            break
        lines = source.splitlines()
        source = "\n".join([""] * (below[0] - 1) + lines[below[0] - 1 :])
        result = shell.run_cell(source, silent=True)
    return error


def _fork() -> int:
    """The one function that may fork, see `alarm.watch`."""
    return os.fork()


def answer(channel: socket.socket, names: dict[str, Any]) -> None:
    """Answer calls until the other side closes the channel."""
    import torch

    torch.set_num_threads(1)
    _seed()
    while True:
        try:
            asked = wire.receive(channel)
        except wire.Gone:
            return
        try:
            message = wire.unpack(asked, recipes.FROM_TESTS)
            body = wire.pack(replied(message, names), recipes.describe, wire.ANSWER)
        # a value too large or too deep, or one that raises when it is looked at
        except Exception as error:
            body = wire.pack(
                (
                    "raised",
                    (["TypeError"], f"{asking.NOT_PLAIN}: {_said(error)}", "", 0),
                )
            )
        wire.send(channel, body)


def replied(message: tuple, names: dict[str, Any]) -> tuple[str, Any]:
    """What is said to one message of `asking.Line`."""
    kind, *rest = message
    if kind == "generators":
        return "value", asking.states()
    name, *arguments = rest
    if kind == "look":
        found = names.get(name)
        return ("function", _parameters(found)) if callable(found) else ("value", found)
    args, named = arguments
    before = [_kept(value) for value in args]
    models = [value for value in args if hasattr(value, "hook_points")]
    try:
        returned = names[name](*args, **named)
    except Exception as error:
        return "raised", _raised(error, names[name])
    finally:
        left = [
            point
            for model in models
            for point in model.hook_points()
            if point.fwd_hooks or point.bwd_hooks
        ]
        for model in models if left else []:
            model.reset_hooks()
    if left:
        return "changed", -1
    changed = [
        i
        for i, kept in enumerate(before)
        if kept is not None and kept != _kept(args[i])
    ]
    return ("changed", changed[0]) if changed else ("returned", returned)


def _kept(value: Any) -> bytes | None:
    """The bytes of an argument that an answer might change; None for what goes by
    a recipe and numbers."""
    import torch

    return (
        wire.pack(value, lambda _: ("", 0))
        if isinstance(value, torch.Tensor | list | dict)
        else None
    )


def _parameters(function: Callable) -> list[tuple] | None:
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [(one.name, one.kind.name, one.default is not one.empty) for one in found]


def _raised(error: Exception, function: Callable) -> tuple:
    """An exception: the names of its class and of those above it, its text, and the
    line of the answer's own cell."""
    names = [kind.__name__ for kind in type(error).__mro__]
    code = getattr(function, "__code__", None)
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if code and f.filename == code.co_filename
    ]
    line = (
        linecache.getline(frames[-1].filename, frames[-1].lineno).strip()
        if frames
        else ""
    )
    return names, _text(error), line, frames[-1].lineno if frames else 0


def _text(error: BaseException) -> str:
    """What an exception says, on one line; a student's own class may
    raise while it is shown."""
    try:
        return (str(error).strip().splitlines() or [""])[0][:SAID]
    except BaseException:  # noqa: BLE001
        return "it cannot be shown"


def _said(error: BaseException) -> str:
    """An exception in one line."""
    try:
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    except BaseException:  # noqa: BLE001
        text = "an exception that cannot be shown"
    return text[:SAID]


def _seed() -> None:
    import numpy as np
    import torch

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)


def _settle(work: str) -> None:
    """Move into the submission's folder, and away from the grader's streams."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(work)
    os.environ |= {
        "HOME": work,
        "TMPDIR": work,
        "IPYTHONDIR": os.path.join(work, ".ipython"),
    }
    tempfile.tempdir, sys.argv = None, [""]
    pdb.set_trace = lambda **options: None
    _lend(recipes.SPARE)
    _seed()


def _lend(spare: list) -> None:
    """Let the first `load_model("synthetic")` take a model that the server has
    made, which saves seconds."""
    load = models.load_model

    @functools.wraps(load)
    def load_model(*args: Any, **named: Any) -> Any:
        return (
            spare.pop()
            if spare and (args, named) == (("synthetic",), {})
            else load(*args, **named)
        )

    models.load_model = load_model
