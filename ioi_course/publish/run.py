"""Find the chapters, execute each in a fresh kernel, and report what happened."""

from __future__ import annotations

import difflib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ioi_course.project import CourseError


@dataclass(frozen=True)
class Verdict:
    """What came of one chapter: `cells` counts the code cells that passed, `seconds` is wall time with the kernel."""

    chapter: str
    cells: int
    seconds: float
    ok: bool


@dataclass(frozen=True)
class Failure:
    """The cell at which a chapter stopped, and why."""

    chapter: str
    cell: int
    source: str
    reason: str


def chapters(root: Path, names: Iterable[str] = ()) -> list[Path]:
    """Paths of the lessons, appendices and references in reading order; with `names`, of those notebooks only.

    A name is a number ("1", which is chapter 1), the beginning of a notebook's name below nbs/ ("01_tok", "appendix/a",
    "library/metrics"), or a path to it.
    """
    nbs = root / "nbs"
    groups = ("index.ipynb", "[0-9]*.ipynb", "appendix/*.ipynb", "reference/*.ipynb")
    every = [path for group in groups for path in sorted(nbs.glob(group))]
    if not (names := list(names)):
        return every
    library = sorted(nbs.glob("library/**/*.ipynb"))
    found = [path for name in names for path in _named(name, root, every, library)]
    return list(dict.fromkeys(found))


def _named(name: str, root: Path, every: list[Path], library: list[Path]) -> list[Path]:
    """The notebooks that a name stands for; `CourseError` with the nearest name if there is none."""
    nbs = (root / "nbs").resolve()
    for folder in (Path.cwd(), root, nbs):
        for path in (folder / name, folder / f"{name}.ipynb"):
            if path.is_file() and path.suffix == ".ipynb" and path.resolve().is_relative_to(nbs):
                return [root / "nbs" / path.resolve().relative_to(nbs)]
    wanted = name.removeprefix("./").removeprefix("nbs/").removesuffix(".ipynb")
    if wanted.isdecimal():
        found = [path for path in every if re.match(rf"0*{int(wanted)}_", path.stem)]
    else:
        found = [path for path in [*every, *library] if chapter_name(path, root).startswith(wanted)]
        found = found or [path for path in every if path.stem.startswith(wanted)]
    if not found:
        stems = [chapter_name(path, root) for path in every]
        near = difflib.get_close_matches(wanted, [*stems, *(path.stem for path in every)], n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise CourseError(f"There is no chapter {name!r}.{hint} The chapters are: {', '.join(stems)}.")
    return found


def chapter_name(path: Path, root: Path) -> str:
    """How a chapter is called: its path below nbs/ without the suffix."""
    return path.relative_to(root / "nbs").with_suffix("").as_posix()


def read(path: Path) -> NotebookNode:
    """A notebook as it may have been saved elsewhere: with what other programs leave out, without what they break.

    Colab stores the state of widgets in a form that nbconvert cannot read; no chapter needs it. Raises `CourseError`.
    """
    try:
        nb = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        nb.metadata.pop("widgets", None)
        for cell in nb.cells:
            cell.setdefault("metadata", {})
            cell.source = "".join(cell.get("source", ""))
            if cell.cell_type == "code":
                cell.setdefault("execution_count", None)
                cell.outputs = []
    except Exception as error:  # whoever wrote the file has many ways to fail
        raise CourseError(f"{path.name} is no notebook that can be read: {type(error).__name__}: {error}") from error
    return nb


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that a kernel executes."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def execute(
    path: Path,  # the notebook
    root: Path,  # the project's folder
    timeout: int = 600,  # seconds that one cell may take
    on_cell: Callable[[], None] = lambda: None,  # called after each code cell
    threads: int | None = None,  # how many torch may use; None: as it chooses
    kernel: str = "python3",  # its name; `warm_kernels` has one that starts faster
) -> tuple[NotebookNode, Verdict, Failure | None]:
    """Execute a notebook in a fresh kernel in its own folder; the copy returned holds outputs up to a failing cell."""
    nb = read(path)
    name, seen, start = chapter_name(path, root), [], time.perf_counter()

    def executed(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        if execute_reply["content"]["status"] == "ok":
            seen.append(cell_index)
            on_cell()

    client = NotebookClient(
        nb,
        timeout=timeout,
        kernel_name=kernel,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=lambda cell, cell_index: started.append(cell_index),
        on_cell_executed=executed,
    )
    started: list[int] = []
    failure = None
    limits = {"TQDM_DISABLE": "1"}  # progress bars are no outputs to keep
    if threads:
        limits |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    try:
        client.execute(env=os.environ | limits)
    except CellExecutionError as error:
        failure = Failure(name, started[-1], nb.cells[started[-1]].source, error.traceback or str(error))
    except CellTimeoutError:
        reason = f"The cell was stopped after {timeout} seconds; --timeout allows more."
        failure = Failure(name, started[-1], nb.cells[started[-1]].source, reason)
    except DeadKernelError:
        reason = "The kernel died in this cell; most often the machine ran out of memory (see `ioi-course doctor`)."
        failure = Failure(name, started[-1] if started else 0, nb.cells[started[-1] if started else 0].source, reason)
    return nb, Verdict(name, len(seen), round(time.perf_counter() - start, 1), failure is None), failure


def write_report(verdicts: list[Verdict], path: Path) -> None:
    """Write report.json: a list of {chapter, cells, seconds, ok}."""
    path.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n", encoding="utf-8")


def save_outputs(nb: NotebookNode, path: Path) -> None:
    """Write an executed notebook back to its place in nbs/, as nbdev cleans it (no counts, no volatile metadata)."""
    from nbdev.clean import nbdev_clean

    nbformat.write(nb, path)
    nbdev_clean.__wrapped__(fname=os.fspath(path))
