"""What Landlock leaves open, closed with seccomp: a filter of system calls that holds
for a process and all its children."""

# The filter is a small program for the kernel (classic BPF, see seccomp(2)), made here
# by hand and set with prctl(2). Changes of rights, owners, times and extended
# attributes "succeed" and do nothing, so that copying a file does not fail; the rest is
# refused with EPERM: memory that no limit counts, looks into other processes, sockets
# but those between processes of this machine, new namespaces, mounts, and corners of
# the kernel that a notebook has no need of.

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct

SET_SECCOMP, FILTER, SET_NO_NEW_PRIVILEGES = 22, 2, 38  # of prctl(2)
ALLOW, FAIL = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # the four instructions used
# where they stand in what the filter sees
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16

# number of each system call on x86-64 and on 64-bit Arm; None where it does not exist
NOTHING_HAPPENS = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip
REFUSED = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "quotactl": (179, 60),
    "shmget": (29, 194), "shmat": (30, 196), "mq_open": (240, 180), "msgget": (68, 186),
    "semget": (64, 190), "init_module": (175, 105), "finit_module": (313, 273),
    "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224),
    "acct": (163, 89), "settimeofday": (170, 170), "clock_settime": (227, 112),
    "fanotify_init": (300, 262), "mknod": (133, None), "mknodat": (259, 33),
}  # fmt: skip
# but of the family of this machine
SOCKET = {"socket": (41, 198), "socketpair": (53, 199)}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def program(machine: str) -> bytes:
    """The filter for a kind of machine, as the kernel reads it."""
    column, architecture = MACHINES[machine]

    def numbers(table: dict) -> list[int]:
        return [row[column] for row in table.values() if row[column] is not None]

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    refuse = step(RETURN, FAIL | errno.EPERM)
    steps = [
        step(LOAD, ARCHITECTURE),
        step(EQUAL, architecture, yes=1),
        refuse,
        step(LOAD, NUMBER),
    ]
    if machine == "x86_64":  # the other numbering, x32
        steps += [step(AT_LEAST, 0x40000000, no=1), refuse]
    for number in numbers(NOTHING_HAPPENS):
        steps += [step(EQUAL, number, no=1), step(RETURN, FAIL)]
    for number in numbers(REFUSED):
        steps += [step(EQUAL, number, no=1), refuse]
    for number in numbers(SOCKET):
        steps += [step(EQUAL, number, no=4), step(LOAD, FIRST_ARGUMENT)]
        steps += [step(EQUAL, socket.AF_UNIX, yes=1), refuse, step(RETURN, ALLOW)]
    return b"".join([*steps, step(RETURN, ALLOW)])


def restrict_calls() -> bool:
    """Set the filter, for this process and what it starts, for good; False where this
    kernel or machine has none."""
    if platform.machine() not in MACHINES:
        return False
    code = program(platform.machine())
    held = ctypes.create_string_buffer(code, len(code))
    whole = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    )
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return prctl(SET_SECCOMP, FILTER, ctypes.addressof(whole), 0, 0) == 0
