"""What the process of a submission may do: namespaces, Landlock and limits of the kernel's, and an audit hook."""

# The kernel's part holds whatever the code does. The audit hook is Python's own (PEP 578, which says that it is no
# sandbox): it reports what was tried, and denies what the kernel lets through. `ioi_course.grading` has the whole picture.

from __future__ import annotations

import ctypes
import os
import re
import resource
import site
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType

CELL = "<ipython-input-"  # how the file name of a notebook's cell begins
FILE_SIZE = 64 * 2**20  # bytes; what one file may hold
SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
NEW_USER, NEW_NET, NEW_PID, NEW_IPC = 0x10000000, 0x40000000, 0x20000000, 0x08000000
SET_DEATH_SIGNAL, SET_SUBREAPER, SET_NO_NEW_PRIVILEGES = 1, 36, 38  # of prctl(2)


def _libc(name: str, *args) -> int:
    """Call a function of the C library; -1 if it failed."""
    return getattr(ctypes.CDLL(None, use_errno=True), name)(*args)


def adopt_orphans(death_signal: int) -> None:
    """Become the parent of all orphans below this process, and get a signal when its own parent dies."""
    _libc("prctl", SET_DEATH_SIGNAL, death_signal)
    _libc("prctl", SET_SUBREAPER, 1)


def new_namespaces() -> bool:
    """Leave the network and, from the next fork on, all processes outside; False where the system forbids it.

    The next child is the first process of its namespace: when it ends, the kernel kills all that it started.
    """
    uid, gid = os.getuid(), os.getgid()
    if _libc("unshare", NEW_USER | NEW_NET | NEW_PID | NEW_IPC) != 0:
        return False
    for name, text in [("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")]:
        Path("/proc/self", name).write_text(text)
    return True


def readable() -> list[str]:
    """What Python and its libraries read: the interpreter, site-packages, this package and the system's libraries."""
    installed = [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *site.getsitepackages()]
    extra = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    own = os.path.dirname(os.path.dirname(__file__))  # the package
    paths = (os.path.realpath(path) for path in [*SYSTEM, *installed, *extra, own])
    return sorted({path for path in paths if os.path.exists(path) and path != "/"})


def restrict_files(read: list[str], write: str) -> bool:
    """Let the kernel's Landlock deny all other files, TCP, and signals to the outside; False where it is missing."""
    create, add, restrict = 444, 445, 446  # the system calls' numbers, the same on every architecture
    version = _libc("syscall", create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    every = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    of_file = every & (1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15)  # execute, write, read, truncate, ioctl
    to_read = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, list folders
    rules = (ctypes.c_uint64 * 3)(every, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _libc("syscall", create, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    writable = {write: every, "/dev/null": of_file}
    for path, access in {**dict.fromkeys(read, to_read), **writable}.items():
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access &= every if os.path.isdir(path) else of_file
        rule = access.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
        done = _libc("syscall", add, ruleset, 1, rule, 0)
        os.close(fd)
        if done != 0:
            raise OSError(f"Landlock refused a rule for {path}")
    _libc("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = _libc("syscall", restrict, ruleset, 0)
    os.close(ruleset)
    return done == 0


def limit_memory(size: int) -> None:
    """Let this process, and each that it forks, have so many bytes more than it has now; no cores, no huge files.

    RLIMIT_DATA counts private writable memory. RLIMIT_AS would also count the gigabytes of libraries that torch maps
    and never touches.
    """
    kilobytes = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    for what, limit in [
        (resource.RLIMIT_DATA, kilobytes * 1024 + size),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
    ]:
        hard = resource.getrlimit(what)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))


NETWORK = ("connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo")
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
    **dict.fromkeys(("gc.get_objects", "gc.get_referrers", "gc.get_referents"), "search the memory"),
    **dict.fromkeys(("sys._current_frames", "sys._current_exceptions"), "look into the grader's frames"),
    **dict.fromkeys(("sys.settrace", "sys.setprofile"), "trace the grader"),
    **dict.fromkeys(("resource.setrlimit", "resource.prlimit"), "change the limits"),
}
PATHS = {  # events that change a file: which arguments are paths
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), (0,)),
    **dict.fromkeys(("os.rename", "os.link"), (0, 1)),
    "os.symlink": (1,),
}
FRAMES = ("tb_frame", "gi_frame", "cr_frame", "ag_frame")
CODE = ("__code__", "__defaults__", "__kwdefaults__")
SECRET = re.compile(r"/proc/[^/]+/(task/.*)?(mem|environ|maps|fd|fdinfo|root|cwd|map_files)(/|$)")
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(
    work: str,  # the folder in which files may be written
    read: list[str],  # the folders and files that may be read
    secret: list[str],  # and below them those that may not
    forker: CodeType,  # the code of the one function that may fork
    report: Callable[[str], None],  # told what was tried, once each
) -> None:
    """Deny what a submission has no business to do, from here to the end of the process."""
    within = [os.path.realpath(work), *read]
    said: set[str] = set()
    busy: set[int] = set()  # threads in which the hook is at work, whose own events do not count
    get_frame, get_thread, real, denied, paths = sys._getframe, threading.get_ident, os.path.realpath, DENIED, PATHS
    fspath, families = os.fspath, (socket.AF_UNIX,)

    def below(path: str, folders: list[str]) -> bool:
        return any(path == folder or path.startswith(folder + "/") for folder in folders)

    def may_write(path: str) -> bool:
        return below(path, within[:1]) or path == "/dev/null"

    def may_read(path: str) -> bool:
        return below(path, within) and not below(path, secret) and not SECRET.match(path)

    def from_cell() -> bool:
        """Whether the code that caused the event stands in a cell, or is `inspect` at work for one."""
        frame = get_frame(3)
        while frame.f_back and frame.f_code.co_filename.endswith("/inspect.py"):
            frame = frame.f_back
        return frame.f_code.co_filename.startswith(CELL)

    def wrong(event: str, args: tuple) -> str | None:
        """What an event tries that it may not, in words."""
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            path = real(os.fsdecode(fspath(args[0])))
            if (args[2] or 0) & WRITE:
                return None if may_write(path) else f"write {path}"
            return None if may_read(path) else f"read {path}"
        if event in ("os.listdir", "os.scandir") and isinstance(args[0], str | bytes | os.PathLike):
            path = real(os.fsdecode(fspath(args[0])))
            return None if may_read(path) else f"list {path}"
        if event in paths:
            for i in paths[event]:
                path = None if isinstance(args[i], int) else real(os.fsdecode(fspath(args[i])))
                if path is not None and not may_write(path):
                    return f"change {path}"
            return None
        if event == "os.fork" and get_frame(2).f_code is forker:
            return None
        if event in denied:
            return denied[event]
        if event == "socket.__new__":
            return None if args[1] in families else "use the network"
        if event.startswith("ctypes."):
            return "call C through ctypes"
        if event == "sys.addaudithook":
            return "add an audit hook"
        if event in ("sys._getframe", "sys._getframemodulename") or (
            event == "object.__getattr__" and args[1] in FRAMES
        ):
            return "look into the grader's frames" if from_cell() else None
        if event in ("object.__setattr__", "object.__delattr__") and args[1] in CODE:
            return "replace the code of a function" if from_cell() else None
        return None

    def hook(event: str, args: tuple) -> None:
        thread = get_thread()
        if thread in busy:
            return
        busy.add(thread)
        try:
            what = wrong(event, args)
            if what and what not in said and len(said) < 50:
                said.add(what)
                report(what)
        finally:
            busy.discard(thread)
        if what:
            error = RuntimeError if event == "sys.addaudithook" else PermissionError  # the one that Python expects
            raise error(f"While it is graded, a notebook may not {what}.")

    sys.addaudithook(hook)
