"""What the machine gives: cores and memory, and how many jobs at a time they carry."""

from __future__ import annotations

import os

import psutil

MEMORY = 3.5  # GB that a chapter may need on GPT-2 small


def default_jobs() -> int:
    """How many chapters to run at a time: one per core, fewer if memory is short; one
    if there is a GPU to share."""
    import torch  # takes a second, which other commands save

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return 1
    return max(
        1, min(cores(), int(psutil.virtual_memory().available / 2**30 / MEMORY), 4)
    )


def threads_of(jobs: int) -> int | None:
    """How many threads each of so many chapters may use; None, which leaves it to
    torch, for one chapter."""
    return (
        max(1, cores() // jobs)
        if jobs > 1 and "OMP_NUM_THREADS" not in os.environ
        else None
    )


def cores() -> int:
    """How many cores this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
