"""Find the chapters, execute each in a fresh kernel, and report what happened."""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ioi_course.project import CourseError
from ioi_course.publish.mend import read_notebook


@dataclass(frozen=True)
class Verdict:
    """What came of one chapter: `cells` counts the code cells that passed, `seconds` is
    wall time with the kernel."""

    chapter: str
    cells: int
    seconds: float
    ok: bool


@dataclass(frozen=True)
class Failure:
    """The cell at which a chapter stopped, and why; None where none had
    begun or all had passed."""

    chapter: str
    cell: int | None
    source: str
    reason: str


def chapters(root: Path, names: Iterable[str] = ()) -> list[Path]:
    """Paths of the notebooks of the course in reading order; with `names`,
    of those notebooks only.

    Without names: index, chapters, appendices and references. A name is a chapter's
    number ("7"), an appendix' letter ("a"), a notebook's name below nbs/ or the
    beginning of one ("library/metrics", "07_path"), or a path.
    """
    course, names = _course(root / "nbs"), list(names)
    chosen = [path for name in names for path in _named(name, root, course)]
    return list(dict.fromkeys(chosen)) if names else course


# Below nbs/, in reading order.
GROUPS = ("index.ipynb", "[0-9]*.ipynb", "appendix/*.ipynb", "reference/*.ipynb")


def _course(nbs: Path) -> list[Path]:
    return [path for group in GROUPS for path in sorted(nbs.glob(group))]


def _named(name: str, root: Path, course: list[Path]) -> list[Path]:
    """The notebooks that a name means; those of the course come before
    those of nbs/library/."""
    nbs = root / "nbs"
    if (path := _existing(name, root)) and path.is_file():
        return [path]
    wanted = path.relative_to(nbs).as_posix() if path else name.removeprefix("./")
    wanted = wanted.removeprefix("nbs/").removesuffix(".ipynb").rstrip("/")
    if wanted == ".":
        return course
    library = sorted(nbs.glob("library/**/*.ipynb"))
    library = [path for path in library if ".ipynb_checkpoints" not in path.parts]
    for among in (course, library):
        if wanted and (found := _matching(wanted, among, nbs)):
            return found
    names = [chapter_name(path, root) for path in course + library]
    raise CourseError(_no_chapter(name, wanted, names))


def _existing(name: str, root: Path) -> Path | None:
    """The notebook or folder below nbs/ with this path, seen from
    here, the clone or nbs/."""
    nbs = root / "nbs"
    for base in (Path.cwd(), root, nbs):
        for path in (base / name, base / f"{name}.ipynb"):
            inside = path.resolve().is_relative_to(nbs.resolve())
            if (
                inside
                and (path.is_dir() or path.is_file() and path.suffix == ".ipynb")
                and name
            ):
                return nbs / path.resolve().relative_to(nbs.resolve())
    return None


def _matching(wanted: str, paths: list[Path], nbs: Path) -> list[Path]:
    """Chapters by number, an appendix by letter, else notebooks that are
    called so or begin so."""
    if wanted.isdecimal():
        return [
            p
            for p in paths
            if p.parent == nbs and re.match(rf"0*{int(wanted)}(?!\d)", p.stem)
        ]
    if len(wanted) == 1:
        wanted = f"appendix/{wanted.lower()}_"
    names = {
        path: (path.relative_to(nbs).with_suffix("").as_posix(), path.stem)
        for path in paths
    }
    exact = [path for path, both in names.items() if wanted in both]
    begins = [
        p for p, both in names.items() if any(name.startswith(wanted) for name in both)
    ]
    return exact or begins


def _no_chapter(name: str, wanted: str, names: list[str]) -> str:
    """What to say where a name means nothing."""
    if name and Path(name).exists() and not wanted.isdecimal():
        outside = f"{name} is not below the course's nbs/, where its notebooks are."
        return f"{outside} The chapters are: {', '.join(names)}."
    stems = [each.split("/")[-1] for each in names]
    near = difflib.get_close_matches(wanted, [*names, *stems], n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no chapter {name!r}.{hint} The chapters are: {', '.join(names)}."


def chapter_name(path: Path, root: Path) -> str:
    """How a chapter is called: its path below nbs/ without the suffix."""
    return path.relative_to(root / "nbs").with_suffix("").as_posix()


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that a kernel executes."""
    return [
        cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()
    ]


def execute(
    path: Path,  # the notebook
    root: Path,  # the project's folder
    timeout: int = 600,  # seconds that one cell may take
    on_cell: Callable[[], None] = lambda: None,  # called after each code cell
    threads: int | None = None,  # how many torch may use; None: as it chooses
    stop: threading.Event
    | None = None,  # when set, the kernel ends: `asyncio.CancelledError`
    kernel: str = "python3",  # its name; `warm_kernels` has one that starts faster
) -> tuple[NotebookNode, Verdict, Failure | None]:
    """Execute a notebook in a fresh kernel in its own folder; the copy returned holds
    outputs up to a failing cell.

    A kernel that ends before its first cell is started once more: two that start at the
    same time may draw one port.
    """
    nb = read_notebook(path)
    name, start = chapter_name(path, root), time.perf_counter()
    seen: list[int] = []
    started: list[int] = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = []

    def executed(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        if execute_reply["content"]["status"] == "ok":
            seen.append(cell_index)
            on_cell()

    def run() -> str | None:
        client = NotebookClient(
            nb,
            timeout=timeout,
            kernel_name=kernel,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=lambda cell, cell_index: started.append(cell_index),
            on_cell_executed=executed,
        )
        try:
            work = client.async_execute(env=os.environ | _limits(threads))
            asyncio.run(_until(stop or threading.Event(), client, work))
        except Exception as error:
            return _reason(error, timeout)
        return None

    reason = run()
    if reason and not started:
        reason = run()
    verdict = Verdict(
        name, len(seen), round(time.perf_counter() - start, 1), reason is None
    )
    return nb, verdict, _failure(name, nb, started, reason)


async def _until(
    stop: threading.Event, client: NotebookClient, work: Coroutine
) -> None:
    """Wait for a client's work; as soon as another thread says stop, end
    its kernel and raise."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait({task}, timeout=0.2)
        if stop.is_set():
            client.shutdown_kernel = "immediate"
            task.cancel()  # once: a second time would cut the kernel's own end short
            break
    try:
        await task
    except Exception as error:  # nbclient takes a cancelled cell for a dead kernel
        if stop.is_set():
            raise asyncio.CancelledError from error
        raise


def _limits(threads: int | None) -> dict[str, str]:
    """What the kernel finds in its environment beside the user's own."""
    limits = {"TQDM_DISABLE": "1"}  # progress bars are no outputs to keep
    if threads:
        limits |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return limits


def _reason(error: Exception, timeout: int) -> str:
    """Why an execution stopped, in words for the reader."""
    if isinstance(error, CellExecutionError):
        return error.traceback or str(error)
    if isinstance(error, CellTimeoutError):
        return f"The cell was stopped after {timeout} seconds; --timeout allows more."
    if isinstance(error, DeadKernelError):
        return (
            "The kernel died in this cell; most often the machine ran out of memory "
            "(see `ioi-course doctor`)."
        )
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _failure(
    name: str, nb: NotebookNode, started: list[int], reason: str | None
) -> Failure | None:
    if reason is None:
        return None
    if not started:
        return Failure(name, None, "", reason)
    return Failure(name, started[-1], nb.cells[started[-1]].source, reason)


def write_report(verdicts: list[Verdict], path: Path) -> None:
    """Write report.json: a list of {chapter, cells, seconds, ok}."""
    write_file(
        path, json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n"
    )


def write_file(path: Path, text: str) -> Path:
    """Write a file whole or not at all, whatever interrupts it, and
    the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    # a cell may print half a character
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)
    return path


def save_outputs(nb: NotebookNode, path: Path) -> None:
    """Write an executed notebook back to its place in nbs/, as nbdev cleans it (no
    counts, no volatile metadata)."""
    from nbdev.clean import nbdev_clean

    # of progress bars, with random ids; no chapter keeps a widget
    nb.metadata.pop("widgets", None)
    nbformat.write(nb, path)
    nbdev_clean.__wrapped__(fname=os.fspath(path))
