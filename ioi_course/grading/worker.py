"""The warm server: it imports torch and the course once, and forks for submissions and
judges. It runs no submission."""

# For a submission it forks a supervisor, which outlives the answerer and kills what
# that leaves behind. For an assignment it forks a server of judges, which takes in the
# tests. Neither a test nor a line of a student's code is ever in the server itself.
# `ioi_course.grading` has the whole picture.

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
from contextlib import suppress

from ioi_course.grading import answerer, judge, recipes, sandbox
from ioi_course.grading.server import SUBMISSION
from ioi_course.models import load_model

WARM = (
    "transformer_lens",
    "otter",
    "IPython.core.interactiveshell",
    "ioi_course.checks",
    "ioi_course.plots",
)


def serve(control: int) -> None:
    """Import what submissions need, then fork for each socket that comes over
    `control`, until it is closed."""
    channel = socket.socket(fileno=control)
    _warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    gc.collect()
    gc.freeze()  # or the collector would write to, and so copy, every page
    channel.sendall(b"r")
    while True:
        asked, fds, _, _ = socket.recv_fds(channel, 1, 2)
        if not asked:
            return
        if os.fork() == 0:
            try:
                channel.close()
                for door in fds[1:]:
                    # into the group that limits its memory, see `memory`
                    os.write(door, b"0")
                    os.close(door)
                theirs = socket.socket(fileno=fds[0])
                _supervise(theirs) if asked == SUBMISSION else judge.serve(theirs)
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)


def _warm() -> None:
    import torch

    torch.set_num_threads(1)
    for name in WARM:
        importlib.import_module(name)
    with suppress(ImportError):
        # which looks for fonts for seconds
        importlib.import_module("matplotlib.font_manager")
    recipes.tokenizer()
    for n_layers, count in recipes.SMALL.items():
        for seed in range(count):
            recipes.small_model(seed, n_layers)
    recipes.SPARE.append(load_model("synthetic"))
    recipes.synthetic()  # and shows a broken installation before it costs marks


def _supervise(channel: socket.socket) -> None:
    """Start the answerer; when it has ended, or SIGTERM says that it must,
    leave nothing behind."""
    import psutil

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sandbox.adopt_orphans(signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid, apart = os.getpid(), sandbox.new_namespaces()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        sandbox.adopt_orphans(signal.SIGKILL)
        try:
            answerer.send(channel, supervisor=pid)
            answerer.run(channel, apart)
        finally:
            os._exit(1)
    channel.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.waitpid(child, 0)
    while left := psutil.Process(pid).children(recursive=True):
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=1)
    os._exit(0)
