"""Find the chapters, execute each in a fresh kernel, and report what happened."""

from __future__ import annotations

import difflib
import json
import os
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
    """Paths of the notebooks of the course in reading order; with `names`, of those chapters only.

    A name is a notebook's stem or the beginning of one ("01" or "01_tokenization" or "appendix/a_synthetic_model").
    """
    nbs = root / "nbs"
    groups = [
        nbs.glob("index.ipynb"),
        nbs.glob("[0-9]*.ipynb"),
        nbs.glob("appendix/*.ipynb"),
        nbs.glob("reference/*.ipynb"),
    ]
    every = [path for group in groups for path in sorted(group)]
    if not (names := list(names)):
        return every
    stems = {chapter_name(path, root): path for path in every}
    chosen = []
    for name in names:
        wanted = name.removeprefix("nbs/").removesuffix(".ipynb")
        found = [path for stem, path in stems.items() if stem.startswith(wanted) or path.stem.startswith(wanted)]
        if not found:
            near = difflib.get_close_matches(wanted, [*stems, *(p.stem for p in every)], n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise CourseError(f"There is no chapter {name!r}.{hint} The chapters are: {', '.join(stems)}.")
        chosen += [path for path in found if path not in chosen]
    return chosen


def chapter_name(path: Path, root: Path) -> str:
    """How a chapter is called: its path below nbs/ without the suffix."""
    return path.relative_to(root / "nbs").with_suffix("").as_posix()


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that a kernel executes."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def execute(
    path: Path,  # the notebook
    root: Path,  # the project's folder
    timeout: int = 600,  # seconds that one cell may take
    on_cell: Callable[[], None] = lambda: None,  # called after each code cell
    threads: int | None = None,  # how many torch may use; None: as it chooses
) -> tuple[NotebookNode, Verdict, Failure | None]:
    """Execute a notebook in a fresh kernel in its own folder; the copy returned holds outputs up to a failing cell."""
    nb = nbformat.read(path, as_version=4)
    name, seen, start = chapter_name(path, root), [], time.perf_counter()

    def executed(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        if execute_reply["content"]["status"] == "ok":
            seen.append(cell_index)
            on_cell()

    client = NotebookClient(
        nb,
        timeout=timeout,
        kernel_name="python3",
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

    nb.metadata.pop("widgets", None)  # of progress bars, with random ids; no chapter keeps a widget
    nbformat.write(nb, path)
    nbdev_clean.__wrapped__(fname=os.fspath(path))
