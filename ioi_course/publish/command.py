"""`ioi-course run`, `docs` and `circuit-page`: execute the chapters, build the site, write a circuit's page."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nbformat import NotebookNode
from nbformat.v4 import new_notebook
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
    read,
    save_outputs,
    write_report,
)
from ioi_course.publish.warm import warm_kernels
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
    """Execute chapters, each in a fresh kernel; write HTML pages, a first page, a report and report.json."""
    from ioi_course.models import ModelError, resolve_model

    root = root_of(root)
    try:
        paths = chapters(root, names or [])
        resolved = resolve_model(model or "auto")
    except (CourseError, ModelError) as error:
        raise stop(error) from error
    os.environ["IOI_COURSE_MODEL"] = resolved
    start, jobs = time.perf_counter(), min(jobs or default_jobs(), len(paths))
    course, stopped = _Course(paths, root, root / out, Path(resolved).name), False
    try:
        _run_all(course, timeout, jobs, save)
        extra = _write_circuit_page(root / out, resolved) if course.ran(CIRCUIT_CHAPTER) else None
    except KeyboardInterrupt:
        stopped, extra = True, None
    index = course.write(extra)
    for _, failure in course.results.values():
        if failure:
            _show(failure)
    verdicts = [verdict for verdict, _ in course.results.values()]
    console.print(_table(verdicts, course.model))
    if stopped:
        console.print("Stopped. What had been run is in the pages and the report.", highlight=False)
    console.print(f"Took {time.perf_counter() - start:.0f} s, {jobs} at a time.", highlight=False)
    console.print(f"Pages: {os.path.relpath(index)}", highlight=False)
    raise typer.Exit(130 if stopped else int(not all(verdict.ok for verdict in verdicts)))


class _Course:
    """The notebooks of a run, their pages, and what has come of them so far."""

    def __init__(self, paths: list[Path], root: Path, out: Path, model: str):
        from ioi_course.publish.pages import page_of, write_assets, write_text_pages

        self.root, self.out, self.model = root, out, model
        self.paths = {chapter_name(path, root): path for path in paths}
        self.sources: dict[str, NotebookNode] = {}
        self.found: dict[str, tuple[Verdict, Failure | None]] = {}
        every = {chapter_name(path, root): path for path in chapters(root)} | self.paths
        for name, path in every.items():
            with contextlib.suppress(CourseError):  # told when its turn comes
                self.sources[name] = read(path)
        empty = new_notebook()
        self.pages = {name: page_of(path, root, self.sources.get(name, empty)) for name, path in every.items()}
        write_assets(root, out)
        write_text_pages(root, out)

    @property
    def results(self) -> dict[str, tuple[Verdict, Failure | None]]:
        """What came of the notebooks that were run, in their order."""
        return {name: self.found[name] for name in self.paths if name in self.found}

    def cells(self, name: str) -> int:
        return len(code_cells(self.sources[name])) if name in self.sources else 0

    def ran(self, name: str) -> bool:
        return name in self.found

    def keep(self, name: str, nb: NotebookNode, verdict: Verdict, failure: Failure | None) -> Verdict:
        """Write a notebook's page and note what came of it; a page that cannot be written fails this notebook only."""
        from ioi_course.publish.pages import write_page

        order = list(self.paths)
        before, after = order.index(name) - 1, order.index(name) + 1
        neighbours = [self.pages[order[i]] if 0 <= i < len(order) else None for i in (before, after)]
        try:
            write_page(nb, self.pages[name], self.out, *neighbours)
        except Exception as error:  # what a notebook may hold has no end
            (self.out / self.pages[name].href).unlink(missing_ok=True)
            failure = failure or Failure(name, 0, "", f"Its page cannot be written: {type(error).__name__}: {error}")
        self.found[name] = verdict = replace(verdict, ok=failure is None), failure
        return verdict[0]

    def write(self, extra: Page | None) -> Path:
        """Write report.json, the report's page and the first page; returns the path of the latter."""
        from ioi_course.publish.welcome import chapter_of, write_report_page, write_welcome

        write_report([verdict for verdict, _ in self.results.values()], self.out / "report.json")
        rows = [(verdict, self.pages[name], failure) for name, (verdict, failure) in self.results.items()]
        write_report_page(rows, self.model, self.out)
        verdicts = {name: verdict for name, (verdict, _) in self.results.items()}
        known = [chapter_of(self.sources.get(name, new_notebook()), name, page, self.out, verdicts.get(name))
                 for name, page in self.pages.items()]  # fmt: skip
        return write_welcome(known, self.model, self.out, extra)


def _run_all(course: _Course, timeout: int, jobs: int, save: bool) -> None:
    """Run the notebooks, several at a time, and keep what comes of each as soon as it is done."""
    with progress_bar() as progress, ThreadPoolExecutor(jobs) as pool, warm_kernels() as kernel:
        bar = progress.add_task("", total=sum(map(course.cells, course.paths)))
        tasks = {
            pool.submit(_execute, path, course.root, timeout, jobs, kernel, progress, bar): name
            for name, path in course.paths.items()
        }
        try:
            for task in as_completed(tasks):
                name = tasks[task]
                try:
                    nb, verdict, failure = task.result()
                except Exception as error:  # one notebook must not end the run
                    reason = str(error) if isinstance(error, CourseError) else f"{type(error).__name__}: {error}"
                    nb, verdict = new_notebook(), Verdict(name, 0, 0.0, False)
                    failure = Failure(name, 0, "", reason)
                verdict = course.keep(name, nb, verdict, failure)
                progress.advance(bar, course.cells(name) - verdict.cells)  # those that a failure left out
                progress.console.print(_line(verdict))
                if save and verdict.ok:
                    save_outputs(nb, course.paths[name])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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


def _execute(path: Path, root: Path, timeout: int, jobs: int, kernel: str, progress: Progress, bar: TaskID):
    """Execute a chapter as one of several, and show how far it is."""
    progress.update(bar, description=chapter_name(path, root))
    return execute(path, root, timeout, lambda: progress.advance(bar), threads_of(jobs), kernel)


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
    if failure.source:
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
