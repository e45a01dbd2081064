"""What the kernel lets the process of a submission do: namespaces, Landlock, limits."""

# This holds whatever the code does; what the kernel lets through, `alarm` looks at.
# `ioi_course.grading` has the whole picture.

from __future__ import annotations

import ctypes
import os
import re
import resource
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ioi_course.grading.seccomp import restrict_calls

FILE_SIZE = 64 * 2**20  # bytes; what one file may hold
FOLDER = "size=256m,nr_inodes=20000,mode=700"  # what a submission's folder may hold
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/sys/devices/system",
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
)
ETC = (
    "alternatives",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
)
PROC = (
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "self",
    "stat",
    "sys/kernel",
    "uptime",
    "version",
)
NEW_USER = 0x10000000
NEW_NET = 0x40000000
NEW_PID = 0x20000000
NEW_IPC = 0x08000000
NEW_MOUNTS = 0x00020000
MS_REC, MS_PRIVATE, MS_SAFE = 0x4000, 0x40000, 0xE  # of mount(2)
SET_DEATH_SIGNAL, SET_SUBREAPER, SET_NO_NEW_PRIVILEGES = 1, 36, 38  # of prctl(2)


def _libc(name: str, *args) -> int:
    """Call a function of the C library; -1 if it failed."""
    return getattr(ctypes.CDLL(None, use_errno=True), name)(*args)


def adopt_orphans(death_signal: int) -> None:
    """Become the parent of all orphans below this process, and get a signal
    when its own parent dies."""
    _libc("prctl", SET_DEATH_SIGNAL, death_signal)
    _libc("prctl", SET_SUBREAPER, 1)


def new_namespaces() -> bool:
    """Leave the network and, from the next fork on, all processes outside; False
    where the system forbids it.

    The next child is the first process of its namespace: when it ends, the kernel
    kills all that it started.
    """
    uid, gid = os.getuid(), os.getgid()
    if _libc("unshare", NEW_USER | NEW_NET | NEW_PID | NEW_IPC) != 0:
        return False
    for name, text in [
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ]:
        Path("/proc/self", name).write_text(text)
    return True


def hide_processes() -> bool:
    """Show in /proc the processes of this namespace only; False where the system
    forbids it. For its first process."""
    if (
        _libc("unshare", NEW_MOUNTS) != 0
        or _libc("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0
    ):
        return False
    return _libc("mount", b"proc", b"/proc", b"proc", MS_SAFE, None) == 0


def limit_folder(work: str) -> bool:
    """Put a file system in memory over this folder, with what is in it.

    So no files fill the disk, and none stay behind.
    """
    within = sorted(Path(work).rglob("*"))
    held = {path: path.read_bytes() if path.is_file() else None for path in within}
    if _libc("mount", b"none", work.encode(), b"tmpfs", MS_SAFE, FOLDER.encode()) != 0:
        return False
    for path, data in held.items():
        path.mkdir() if data is None else path.write_bytes(data)
    os.chdir(work)  # or this process would still be in the folder below
    return True


def isolate(work: str, read: list[str]) -> list[str]:
    """Confine this process to its folder, after `new_namespaces`; returns what
    the kernel does not do."""
    hidden = hide_processes()
    if hidden:
        limit_folder(work)
    proc = ["/proc"] if hidden else [f"/proc/{name}" for name in PROC]
    found = {
        "Landlock": restrict_files(
            [*read, *(path for path in proc if os.path.exists(path))], work
        )
    }
    return [
        name
        for name, have in (found | {"seccomp": restrict_calls()}).items()
        if not have
    ]


def lacking() -> list[str]:
    """What this machine's kernel lacks to keep a submission in, tried out in a process
    that ends with the trial."""
    code = "from ioi_course.grading import sandbox; print(*sandbox._tried(), sep=',')"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    if said.returncode != 0:
        return ["a trial of its own"]
    return [name for name in said.stdout.strip().split(",") if name]


def _tried() -> list[str]:
    """In a process of its own: what is lacking."""
    with tempfile.TemporaryDirectory() as work:
        reader, writer = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            try:
                apart = new_namespaces()
                if (first := os.fork()) == 0:
                    missing = (
                        isolate(work, readable())
                        if apart
                        else ["namespaces", *isolate(work, readable())]
                    )
                    os.write(writer, ",".join(missing).encode())
                    os._exit(0)
                os.waitpid(first, 0)
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(keeper, 0)
        return os.read(reader, 1000).decode().split(",")


def readable(without: Iterable[str] = ()) -> list[str]:
    """What Python and its libraries read: the interpreter, site-packages, this package
    and the system's libraries.

    Where one of the files `without` lies in a folder, the folder's other entries
    are listed instead of it.
    """
    installed = [
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        *site.getsitepackages(),
    ]
    extra = [
        path for path in sys.path if path.endswith(("site-packages", "dist-packages"))
    ]
    own = os.path.dirname(os.path.dirname(__file__))  # the package
    paths = {
        os.path.realpath(path)
        for path in [
            *SYSTEM,
            *(f"/etc/{name}" for name in ETC),
            *installed,
            *extra,
            own,
        ]
    }
    paths -= {"/"}
    for left_out in map(os.path.realpath, without):
        while holders := [path for path in paths if below(left_out, [path])]:
            for path in holders:
                paths.remove(path)
                paths |= (
                    {os.path.realpath(entry.path) for entry in os.scandir(path)}
                    if os.path.isdir(path)
                    else set()
                )
    return sorted(path for path in paths if os.path.exists(path))


def below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of the folders, or in one of them."""
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def restrict_files(read: list[str], write: str) -> bool:
    """Let the kernel's Landlock deny all other files, TCP, and signals to the outside;
    False where it is missing."""
    # the system calls' numbers, the same on every architecture
    create, add, restrict = (444, 445, 446)
    version = _libc("syscall", create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    every = (
        1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)
    ) - 1
    # execute, write, read, truncate, ioctl
    of_file = every & (1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15)
    to_read = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, list folders
    rules = (ctypes.c_uint64 * 3)(
        every, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0
    )
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
    """Let this process, and each that it forks, have so many bytes more than it has
    now; no cores, no huge files.

    RLIMIT_DATA counts private writable memory. RLIMIT_AS would also count the gigabytes
    of libraries that torch maps and never touches.
    """
    kilobytes = int(
        re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    )
    for what, limit in [
        (resource.RLIMIT_DATA, kilobytes * 1024 + size),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
    ]:
        hard = resource.getrlimit(what)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))
