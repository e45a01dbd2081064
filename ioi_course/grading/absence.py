"""Some questions ask for what a part of the library does: while they are graded, that
part's code is not there."""

# A test says so with `without(answer, "patching")`. The grader reads this line
# (`assignments.without_of`) and runs the cells for such questions in a process of their
# own, in which, before the first cell, all functions of its modules have lost their
# code (`hollow`), wherever else they are kept, and their files cannot be read. What is
# imported from them can be named, but not called. Nothing looks for names in the
# answer, so no helper and no alias gets around it.

from __future__ import annotations

import gc
import importlib
import linecache
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType

from ioi_course.grading.asking import Asked


@dataclass(frozen=True)
class Part:
    """A part of the library that does the work of some question."""

    modules: tuple[str, ...]
    names: frozenset[str]  # by which it is called, for the check in a notebook


PARTS = {
    "patching": Part(
        ("ioi_course.patching", "ioi_course.paths", "ioi_course.attribution_patching",
         "ioi_course.transplant", "ioi_course.engine.forward",
         "ioi_course.engine.patches", "ioi_course.checks.patching",
         "ioi_course.checks.stream_patching", "ioi_course.checks.paths",
         "ioi_course.checks.refuting", "transformer_lens.patching"),
        frozenset({"sweep", "path_patch", "direct_paths"}),
    ),
    "circuit": Part(
        ("ioi_course.circuit", "ioi_course.means", "ioi_course.ablation",
         "ioi_course.checks.circuit", "ioi_course.checks.missing",
         "ioi_course.checks.ablation", "ioi_course.checks.backups",
         "ioi_course.engine.forward", "ioi_course.engine.patches"),
        frozenset({"knock_out", "run_circuit", "run_without", "reference_means"}),
    ),
}  # fmt: skip


def without(answer: Callable, *parts: str) -> None:
    """State, in a test, that an answer has to do without these PARTS of the library.

    In a notebook and on Gradescope, where they are there, AssertionError if the
    answer's own code names them.
    """
    if isinstance(answer, Asked):
        return
    used = set(
        getattr(getattr(answer, "__code__", None), "co_names", ())
    ) & set().union(*(PARTS[p].names for p in parts))
    assert not used, (
        f"Build it yourself: {' and '.join(sorted(used))} of the library is for "
        "comparison only."
    )


def modules_of(parts: Iterable[str]) -> list[str]:
    """The modules of parts."""
    return sorted({module for part in parts for module in PARTS[part].modules})


def files_of(parts: Iterable[str]) -> list[str]:
    """Their files, as source and compiled, which are not to be read."""
    found: list[str] = []
    for module in modules_of(parts):
        source = Path(find_spec(module).origin)
        found += [
            str(source),
            *map(str, source.parent.glob(f"__pycache__/{source.stem}.*")),
        ]
    return found


def hollow(parts: Sequence[str]) -> None:
    """Take the code out of all functions of parts, in this process and for good."""
    if not parts:
        return
    modules = modules_of(parts)
    for module in modules:
        importlib.import_module(module)
    gc.unfreeze()  # the server has put what it imported out of the collector's sight
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__module__ in modules:
            function.__code__ = _empty(function.__code__)
    linecache.clearcache()
    gc.freeze()


def _empty(code: CodeType) -> CodeType:
    """Code that only raises, for a function with the same variables
    of functions around it."""

    def nothing(*args, **named):
        raise RuntimeError(
            "this function of the library is not there while this question is graded: "
            "build it yourself"
        )

    return nothing.__code__.replace(co_freevars=code.co_freevars)
