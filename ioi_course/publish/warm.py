"""Kernels that start in a tenth of a second: a process that has made the slow
imports forks for each of them.

A kernel needs five seconds before its first cell: torch, transformers and
TransformerLens are imported, always alike. Here one process imports them once, and
each kernel is a fork of it with a name space, folder and environment of its own. What
looks at its surroundings when it is imported (plotly, which asks whether a notebook
shows it) is left to the kernels.

Jupyter knows nothing of this. It starts `warm_client.py`, as the kernel specification
says, which asks for a fork and then stands for it: signals go on to the fork, the
fork's end is its end, and its own end is the fork's.

Only on Linux. Elsewhere a fork after these imports is not safe, and `warm_kernels`
gives the name of the ordinary kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

ORDINARY, WARM = "python3", "ioi-course-warm"
IMPORTS = (
    "torch",
    "transformers.models.gpt2.modeling_gpt2",
    "transformer_lens.model_bridge",
    "pandas",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "ioi_course.engine",
    "ioi_course.batches",
    "ioi_course.metrics",
)
BACKLOG = 64
_servers: list[subprocess.Popen] = []  # of this process


@contextlib.contextmanager
def warm_kernels(
    shared: bool = False,  # take those that this process has already, if it has any
) -> Iterator[str]:
    """The name of a kernel to run notebooks with, as long as this lasts; found by
    Jupyter through JUPYTER_PATH."""
    if not sys.platform.startswith("linux"):
        yield ORDINARY
        return
    if shared and _servers and _servers[-1].poll() is None:
        yield WARM
        return
    with tempfile.TemporaryDirectory(prefix="ioi-warm-") as folder:
        # its end tells the server that nobody needs it any more
        ours, theirs = socket.socketpair()
        with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(folder, "socket"))
            # from now on clients can ask: they wait until the imports are made
            listener.listen(BACKLOG)
            _write_specification(Path(folder))
            code = (
                "from ioi_course.publish.warm import serve; "
                f"serve({listener.fileno()}, {theirs.fileno()})"
            )
            threads = {
                name: "1"
                for name in (
                    "OMP_NUM_THREADS",
                    "MKL_NUM_THREADS",
                    "OPENBLAS_NUM_THREADS",
                )
            }
            # read once, when torch is loaded: a kernel's threads that wait leave their
            # core to the kernel beside it
            threads["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
            server = subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | threads,
                start_new_session=True,
                pass_fds=[listener.fileno(), theirs.fileno()],
            )
            theirs.close()
            before = os.environ.get("JUPYTER_PATH")
            os.environ["JUPYTER_PATH"] = os.pathsep.join(
                [folder, *filter(None, [before])]
            )
            _servers.append(server)
            try:
                yield WARM
            finally:
                _servers.remove(server)
                os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(
                    JUPYTER_PATH=before
                )
                ours.close()
                server.wait()


def _write_specification(folder: Path) -> None:
    """Tell Jupyter how to start such a kernel."""
    client = Path(__file__).with_name("warm_client.py")
    argv = [
        sys.executable,
        "-S",
        "-E",
        str(client),
        str(folder / "socket"),
        "{connection_file}",
    ]
    place = folder / "kernels" / WARM
    place.mkdir(parents=True)
    specification = {"argv": argv, "display_name": "Python, warm", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")


def serve(listener_fd: int, control_fd: int) -> None:
    """Make the imports, then fork a kernel for everybody who asks, until the
    control socket is closed."""
    import importlib
    import selectors

    # Ctrl-C is for who started us; it closes the control socket
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTS:
        importlib.import_module(name)
    # nobody waits for the forks: their clients see them end
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    forks = []
    listener = socket.socket(fileno=listener_fd)
    control = socket.socket(fileno=control_fd)
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        ready.register(control, selectors.EVENT_READ)
        while control not in [key.fileobj for key, _ in ready.select()]:
            channel, _ = listener.accept()
            forks.append(os.fork())
            if not forks[-1]:
                ready.close()
                listener.close()
                control.close()
                _become_kernel(channel)
            channel.close()
    for pid in filter(_is_ours, forks):
        os.kill(pid, signal.SIGKILL)


def _is_ours(pid: int) -> bool:
    """Whether a process still runs and is a child of this one."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(status.rpartition(")")[2].split()[1]) == os.getpid()


def _become_kernel(channel: socket.socket) -> None:
    """In the fork: take over what the client was started with, and run a
    kernel until its end."""
    import random

    import numpy
    import pandas
    import torch
    from ipykernel.kernelapp import IPKernelApp

    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        data, fds, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        while not data.endswith(b"\n"):
            data += channel.recv(1 << 20)
        for to, fd in enumerate(fds):
            os.dup2(fd, to)
            os.close(fd)
        given = json.loads(data)
        os.environ.clear()
        os.environ.update(given["env"])
        os.environ.pop("JPY_PARENT_PID", None)  # that is the client's parent
        os.chdir(given["cwd"])
        # the current folder, which Jupyter's launcher takes away, too
        sys.path[:] = filter(None, sys.path)
        torch.set_num_threads(
            int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
        )
        # as where it is imported in a kernel
        pandas.set_option("display.max_columns", 20)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
            # imported anew, it finds this environment and this notebook
            del sys.modules[name]
        for reseed in (random.seed, numpy.random.seed, torch.seed):
            reseed()  # no two kernels draw the same by accident
        # when the warm process ends, kernels do too
        watch = f"--IPKernelApp.parent_handle={os.getppid()}"
        sys.argv = [
            "ipykernel",
            "-f",
            given["connection_file"],
            watch,
            *given["arguments"],
        ]
        channel.sendall(f"{os.getpid()}\n".encode())
        threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
        IPKernelApp.launch_instance(argv=sys.argv[1:])
        status = 0
    except SystemExit as error:
        status = (
            error.code if isinstance(error.code, int) else int(error.code is not None)
        )
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            channel.sendall(f"{status}\n".encode())
        os._exit(status)


def _end_with(channel: socket.socket) -> None:
    """End this process when the client's end of the channel is closed."""
    while channel.recv(1):
        pass
    os._exit(1)
