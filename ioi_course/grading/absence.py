"""Some questions ask for what a part of the library does: while they are graded, that
part's code is not there."""

# A test says so with `without(answer, "patching")`. The grader reads this line
# (`assignments.without_of`) and runs the cells for such questions in a process of their
# own, in which, before the first cell, all functions of the library have lost their
# code (`hollow`), wherever else they are kept, and their files cannot be read: all but
# those of KEPT. What is imported from them can be named, but not called. Nothing looks
# for names in the answer, so no helper and no alias gets around it. And it is not the
# tool alone that goes: what it is made of, what is made of it, and the solutions of
# exercises do the same work under other names, and so would a tool that somebody adds
# tomorrow.

from __future__ import annotations

import gc
import importlib
import linecache
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType

import ioi_course
from ioi_course.grading.asking import Asked


# What stays of the course: prompts, models, the metric, what only looks at a run, and
# what the grader itself needs.
KEPT = frozenset(f"ioi_course.{name}" for name in (
    "attention", "attribution", "batches", "bridge", "checkpoints", "checks.core",
    "claims", "engine.families", "engine.products", "figures", "lens", "metrics",
    "models", "progress", "project", "prompts", "reference", "roles", "shown",
    "smollm2", "statistics", "templates", "terminal", "waiting",
))  # fmt: skip
# of packages only what they import
KEPT |= {"ioi_course", "ioi_course.checks", "ioi_course.engine"}
KEPT_PACKAGES = ("ioi_course.bundled", "ioi_course.grading", "ioi_course.plots")
ELSEWHERE = ("transformer_lens.patching",)  # what other libraries have ready
PARTS = {  # part -> by which names its tools are called, for the check in a notebook
    "patching": frozenset({"sweep", "path_patch", "direct_paths"}),
    "circuit": frozenset(
        {"knock_out", "run_circuit", "run_without", "reference_means"}
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
    ) & set().union(*(PARTS[p] for p in parts))
    assert not used, (
        f"Build it yourself: {' and '.join(sorted(used))} of the library is for "
        "comparison only."
    )


def gone() -> dict[str, Path]:
    """The modules that are not there, and their files: of this course all but KEPT."""
    root = Path(ioi_course.__file__).parent
    found = {name: Path(find_spec(name).origin) for name in ELSEWHERE}
    for path in root.rglob("*.py"):
        at = path.relative_to(root.parent)
        name = ".".join(
            (at.parent if at.stem == "__init__" else at.with_suffix("")).parts
        )
        if name not in KEPT and not any(
            f"{name}.".startswith(f"{kept}.") for kept in KEPT_PACKAGES
        ):
            found[name] = path
    return found


def files_of(parts: Iterable[str]) -> list[str]:
    """Their files, as source and compiled, where parts of the library are gone."""
    found: list[str] = []
    for source in gone().values() if parts else ():
        compiled = source.parent.glob(f"__pycache__/{source.stem}.*")
        found += [str(source), *map(str, compiled)]
    return found


def hollow(parts: Sequence[str]) -> None:
    """Take the code out of all functions that are to be gone, for good."""
    if not parts:
        return
    modules = set(gone())
    for module in modules:
        if not module.startswith(("ioi_course.publish.", "ioi_course.cli")):
            with suppress(ImportError):  # of an extra that is not installed
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
