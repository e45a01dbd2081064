"""`ioi-course run`, `docs` and `circuit-page`: execute the chapters, build the site, write a circuit's page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import nbformat
import typer
from rich.progress import Progress, TaskID
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ioi_course.machine import default_jobs, threads_of
from ioi_course.project import CourseError
from ioi_course.publish.run import (
    Failure,
    Verdict,
    chapter_name,
    chapters,
    code_cells,
    execute,
    save_outputs,
    write_report,
)
from ioi_course.terminal import Root, check_writable, console, progress_bar, root_of, stop

if TYPE_CHECKING:
    from ioi_course.publish.pages import Page


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHAPTER]...", help="Chapters by number or name; all if none is given."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to run on; sets IOI_COURSE_MODEL for the chapters.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where pages and report.json go, below the project's folder.")] = Path(
        "build/course"
    ),
    timeout: Annotated[int, typer.Option(min=1, help="Seconds that one cell may take.")] = 600,
    save: Annotated[bool, typer.Option("--save", help="Also store the outputs in nbs/ (for maintainers).")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Chapters at a time; as many as cores and memory allow if not given.")
    ] = None,
    root: Root = None,
) -> None:
    """Execute chapters, each in a fresh kernel; write HTML pages, an index and report.json."""
    from ioi_course.models import ModelError, resolve_model
    from ioi_course.publish.pages import page_of, write_assets, write_index, write_page, write_text_pages

    root = root_of(root)
    try:
        paths = chapters(root, names or [])
        resolved = resolve_model(model or "auto")
    except (CourseError, ModelError) as error:
        raise stop(error) from error
    os.environ["IOI_COURSE_MODEL"] = resolved
    out = root / out
    write_assets(root, out)
    write_text_pages(root, out)
    sources = [nbformat.read(path, as_version=4) for path in paths]
    pages = {chapter_name(path, root): page_of(path, root, nb) for path, nb in zip(paths, sources, strict=True)}
    order = list(pages.values())
    jobs = min(jobs or default_jobs(), len(paths))
    start, results = time.perf_counter(), {}
    with progress_bar() as progress, ThreadPoolExecutor(jobs) as pool:
        bar = progress.add_task("", total=sum(len(code_cells(nb)) for nb in sources))
        tasks = {pool.submit(_execute, path, root, timeout, jobs, progress, bar): i for i, path in enumerate(paths)}
        try:
            for task in as_completed(tasks):
                i = tasks[task]
                nb, verdict, failure = results[i] = task.result()
                progress.advance(bar, len(code_cells(sources[i])) - verdict.cells)  # those that a failure left out
                progress.console.print(_line(verdict))
                write_page(nb, order[i], out, order[i - 1] if i else None, order[i + 1] if i + 1 < len(order) else None)
                if save and failure is None:
                    save_outputs(nb, paths[i])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    verdicts = [results[i][1] for i in range(len(paths))]
    failures = [failure for _, _, failure in (results[i] for i in range(len(paths))) if failure]
    write_report(verdicts, out / "report.json")
    circuit_page = _write_circuit_page(out, resolved) if CIRCUIT_CHAPTER in pages else None
    index = write_index(verdicts, pages, Path(resolved).name, out, circuit_page)
    for failure in failures:
        _show(failure)
    console.print(_table(verdicts, Path(resolved).name))
    console.print(f"Took {time.perf_counter() - start:.0f} s, {jobs} at a time.", highlight=False)
    console.print(f"Pages: {os.path.relpath(index)}", highlight=False)
    raise typer.Exit(1 if failures else 0)


CIRCUIT_CHAPTER = "12_the_circuit"  # the circuit's page is made along with it


def _write_circuit_page(folder: Path, model: str) -> Page | None:
    """Write the page of a model's circuit; None, and the reason on the console, if there is nothing to show."""
    from ioi_course.publish.circuit_page import NAME, write_page
    from ioi_course.publish.pages import Page

    (folder / NAME).unlink(missing_ok=True)
    try:
        write_page(folder / NAME, model, home="index.html")
    except (ValueError, RuntimeError) as error:
        console.print(f"Without {NAME}: {error}", highlight=False, markup=False, soft_wrap=True)
        return None
    return Page("The circuit, head by head", NAME)


def _execute(path: Path, root: Path, timeout: int, jobs: int, progress: Progress, bar: TaskID):
    """Execute a chapter as one of several, and show how far it is."""
    progress.update(bar, description=chapter_name(path, root))
    return execute(path, root, timeout, on_cell=lambda: progress.advance(bar), threads=threads_of(jobs))


def _line(verdict: Verdict) -> str:
    mark = "[green]passed[/green]" if verdict.ok else "[red]failed[/red]"
    return f"{mark}  {verdict.chapter}  ({verdict.cells} cells, {verdict.seconds:.1f} s)"


def _table(verdicts: list[Verdict], model: str) -> Table:
    table = Table(title=f"The course on {model}")
    for column, justify in [("chapter", "left"), ("cells", "right"), ("seconds", "right"), ("verdict", "left")]:
        table.add_column(column, justify=justify)
    for v in verdicts:
        table.add_row(
            v.chapter, str(v.cells), f"{v.seconds:.1f}", "[green]passed[/green]" if v.ok else "[red]failed[/red]"
        )
    failed = sum(not v.ok for v in verdicts)
    table.add_section()
    total = sum(v.cells for v in verdicts), sum(v.seconds for v in verdicts)
    table.add_row(
        "all", str(total[0]), f"{total[1]:.1f}", f"[red]{failed} failed[/red]" if failed else "[green]passed[/green]"
    )
    return table


def _show(failure: Failure) -> None:
    console.rule(f"[red]{failure.chapter}, cell {failure.cell}")
    console.print(Syntax(failure.source, "python", word_wrap=True))
    console.print(Text.from_ansi(failure.reason))


def docs(root: Root = None) -> None:
    """Build the website with nbdev and Quarto into _docs/; without Quarto, stage its pages and say what is missing."""
    from ioi_course.publish.site import prepare, stage

    root = root_of(root)
    if (root / "nbs" / f"{CIRCUIT_CHAPTER}.ipynb").exists():
        _add_circuit_page(root)
    if not shutil.which("quarto"):
        console.print(
            "Quarto is not installed, so the site was not rendered. "
            f"Its pages are staged under {os.path.relpath(stage(root))}.\n"
            "Install Quarto (https://quarto.org/docs/get-started/) and run the command again.",
            highlight=False,
        )
        raise typer.Exit(1)
    prepare(root)
    command = [sys.executable, "-c", "from nbdev.quarto import nbdev_docs; nbdev_docs()"]
    raise typer.Exit(subprocess.call(command, cwd=root))


def _add_circuit_page(root: Path) -> None:
    """Put the circuit's page among those of the site: the one of the course's last run, or else a new one."""
    built = root / "build" / "course" / "circuit.html"
    if built.exists():
        shutil.copyfile(built, root / "nbs" / built.name)
    else:
        _write_circuit_page(root / "nbs", "auto")


def circuit_page(
    model: Annotated[str, typer.Option(help="The model to look into.")] = "auto",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("circuit.html"),
) -> None:
    """Write a model's circuit as one page of HTML: choose a head, see what it does. It needs no server."""
    from ioi_course.publish.circuit_page import write_page

    try:
        check_writable(out)
        page = write_page(out, model)
    except (CourseError, ValueError, RuntimeError, OSError) as error:
        raise stop(error) from error
    console.print(f"{page} ({page.stat().st_size / 1000:.0f} kB)", highlight=False, markup=False, soft_wrap=True)
