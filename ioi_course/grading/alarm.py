"""What a cell has no business to try: an audit hook, which reports and denies it."""

# The hook is Python's own (PEP 578, which says that it is no sandbox): it reports what
# was tried, and denies what the kernel (`sandbox`) lets through.

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from types import CodeType

from ioi_course.grading.sandbox import below

CELL = "<ipython-input-"  # how the file name of a notebook's cell begins
NETWORK = (
    "connect",
    "bind",
    "sendto",
    "sendmsg",
    "getaddrinfo",
    "gethostbyname",
    "gethostbyaddr",
    "getnameinfo",
)
DENIED = {
    **{f"socket.{event}": "use the network" for event in NETWORK},
    **dict.fromkeys(
        (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.spawn",
            "os.fork",
            "os.forkpty",
            "pty.spawn",
        ),
        "start a process",
    ),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pthread_kill"), "send a signal"),
    **dict.fromkeys(("resource.setrlimit", "resource.prlimit"), "change the limits"),
    "sys.addaudithook": "add an audit hook",
}
PATHS = {  # events that change a file: which arguments are paths
    **dict.fromkeys(
        (
            "os.remove",
            "os.rmdir",
            "os.mkdir",
            "os.truncate",
            "os.chmod",
            "os.chown",
            "os.utime",
        ),
        (0,),
    ),
    **dict.fromkeys(("os.rename", "os.link"), (0, 1)),
    "os.symlink": (1,),
}
SECRET = re.compile(
    r"/proc/[^/]+/(task/.*)?(mem|environ|maps|fd|fdinfo|root|cwd|map_files)(/|$)"
)
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# of the standard library: they start programs of their own
OWN_ACCOUNT = ("/platform.py", "/uuid.py", "/ctypes/util.py")
STDLIB = os.path.dirname(os.__file__) + "/"


def watch(
    work: str,  # the folder in which files may be written
    read: list[str],  # the folders and files that may be read
    secret: list[str],  # and below them those that may not
    forker: CodeType,  # the code of the one function that may fork
    report: Callable[[str], None],  # told what was tried, once each
) -> None:
    """Deny what a submission has no business to do, from here to the end of the
    process, and report what a cell tried.

    An alarm, no wall: the kernel is the wall. What a library tries on its own account
    is denied and not reported.
    """
    inside = [os.path.realpath(work)]
    # busy: threads in which the hook is at work
    within, said, busy = ([*inside, *read], set(), set())
    get_frame = sys._getframe
    get_thread = threading.get_ident
    get_pid = os.getpid
    real = os.path.realpath
    fspath = os.fspath
    denied, paths, lies, there = dict(DENIED), dict(PATHS), below, os.path.lexists
    parent = os.path.dirname
    cell = CELL
    stdlib = STDLIB
    hidden = SECRET
    write = WRITE
    decode = os.fsdecode
    own_account = OWN_ACCOUNT

    def path_of(value: object) -> str:
        return real(decode(fspath(value)))

    def is_path(value: object) -> bool:
        return isinstance(value, str | bytes | os.PathLike)

    def may_write(path: str) -> bool:
        return lies(path, inside) or path == "/dev/null"

    def may_read(path: str) -> bool:
        # its own maps are where scikit-learn looks for its libraries
        own_maps = path == f"/proc/{get_pid()}/maps"
        return not there(path) or (
            lies(path, within)
            and not lies(path, secret)
            and (own_maps or not hidden.match(path))
        )

    def from_cell() -> bool:
        """Whether a cell caused the event, be it through the standard library or
        IPython's own `open`."""
        frame = get_frame(3)
        while frame.f_back:
            name = frame.f_code.co_filename
            passes = (
                name.startswith(stdlib)
                and "-packages/" not in name
                and not name.endswith(own_account)
            )
            if not passes and not name.endswith("interactiveshell.py"):
                break
            frame = frame.f_back
        return frame.f_code.co_filename.startswith(cell)

    def wrong(event: str, args: tuple) -> tuple[str | None, bool]:
        """What an event tries that it may not, in words, and whether
        that is worth a report."""
        if event == "open" and is_path(args[0]):
            path = path_of(args[0])
            if (args[2] or 0) & write:
                if may_write(path):
                    return None, False
                # many an honest notebook keeps a picture there
                return f"write {path}", parent(path) != "/tmp" and from_cell()
            return (
                (None, False)
                if may_read(path)
                else (f"read {path}", lies(path, secret) or from_cell())
            )
        if event in ("os.listdir", "os.scandir") and is_path(args[0]):
            path = path_of(args[0])
            return (None, False) if may_read(path) else (f"list {path}", from_cell())
        if event in paths:
            for i in paths[event]:
                path = None if isinstance(args[i], int) else path_of(args[i])
                if path is not None and not may_write(path):
                    return f"change {path}", from_cell()
            return None, False
        if event == "os.fork" and get_frame(2).f_code is forker:
            return None, False
        if event in denied:
            return denied[event], from_cell()
        if event == "socket.__new__" and args[1] != socket.AF_UNIX:
            return "use the network", from_cell()
        if event.startswith("ctypes.") and from_cell():
            return "call C through ctypes", True
        return None, False

    def hook(event: str, args: tuple) -> None:
        thread = get_thread()
        if thread in busy:
            return
        busy.add(thread)
        try:
            what, tell = wrong(event, args)
            if what and tell and what not in said and len(said) < 50:
                said.add(what)
                report(what)
        finally:
            busy.discard(thread)
        if what:
            # the one that Python expects
            error = RuntimeError if event == "sys.addaudithook" else PermissionError
            raise error(f"While it is graded, a notebook may not {what}.")

    sys.addaudithook(hook)
