"""Peak memory of a process of its own, as Linux counts it.

Not resource.ru_maxrss: across fork and exec it keeps the peak of the parent, here
pytest's with all its models.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="peak memory is read from /proc, with glibc: Linux"
)


def _status(field: str) -> float:
    """A figure of this process in GB (2**30 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return (
        next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20
    )


def peak() -> float:
    """The peak of this process since it began, or since `restart`."""
    return _status("VmHWM")


def restart() -> float:
    """Give back what is free and let the peak begin anew; returns
    what the process has now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or what comes next would hide in what is free
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def in_a_process(script: str, *arguments: object):
    """What a script prints last, as JSON; it can import this
    module and runs on one thread.

    Large tensors go back to the system as soon as they are freed. Left to itself glibc
    raises the size from which it does that as the process goes on, and the same run
    then peaks at 0.11 GB one time and at 0.15 another.
    """
    path = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        "MALLOC_MMAP_THRESHOLD_": str(2**17),
    }
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
