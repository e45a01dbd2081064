"""`ioi-course run`: execute the chapters."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ioi_course.machine import default_jobs
from ioi_course.project import CourseError
from ioi_course.publish.run import Failure, Verdict, chapters
from ioi_course.publish.site_command import (
    CIRCUIT_CHAPTER,
    WITH_CIRCUIT,
    made_page,
    write_circuit_page,
    write_lab_page,
)
from ioi_course.terminal import Root, console, progress_bar, root_of, stop

if TYPE_CHECKING:
    from ioi_course.publish.runner import CourseRun
    from ioi_course.publish.welcome import Outcome


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHAPTER]...",
            help="Chapters by number, name or path; all if none is given.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to run on; sets IOI_COURSE_MODEL for the chapters."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Where pages and report.json go, below the project's folder."
        ),
    ] = Path("build/course"),
    timeout: Annotated[
        int, typer.Option(min=1, help="Seconds that one cell may take.")
    ] = 600,
    save: Annotated[
        bool,
        typer.Option(
            "--save", help="Also store the outputs in nbs/ (for maintainers)."
        ),
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Also keep the chapters' claims with the package (for maintainers).",
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Chapters at a time; as many as cores and memory allow if not given.",
        ),
    ] = None,
    root: Root = None,
) -> None:
    """Execute chapters, each in a fresh kernel; write HTML pages, an
    index and report.json."""
    from ioi_course.models import ModelError, resolve_model
    from ioi_course.publish.collect import record_claims
    from ioi_course.publish.runner import CourseRun

    root = root_of(root)
    try:
        paths = chapters(root, names or [])
        resolved = resolve_model(model or "auto")
        course_run = CourseRun(
            root, root / out, paths, Path(resolved).name, timeout, save
        )
        course_run.prepare()
    except (CourseError, ModelError, OSError) as error:
        raise stop(error) from error
    os.environ["IOI_COURSE_MODEL"] = resolved
    jobs = min(jobs or default_jobs(), len(paths))
    start = time.perf_counter()
    stopped = False
    try:
        _execute(course_run, jobs)
        if CIRCUIT_CHAPTER in course_run.outcomes and resolved in WITH_CIRCUIT:
            write_circuit_page(course_run.out, resolved)
        if CIRCUIT_CHAPTER in course_run.outcomes:
            write_lab_page(course_run.out, fetch=False)
    except KeyboardInterrupt:
        stopped = True
    finally:
        index = course_run.finish(made_page(course_run.out))
    if record and not stopped and not course_run.failures:
        record_claims(root, course_run.model, course_run.claims)
    _tell(
        course_run,
        index,
        f"Took {time.perf_counter() - start:.0f} s, {jobs} at a time.",
    )
    if stopped:
        told = "Stopped. What was done until then is in the pages and in report.json."
        console.print(told, highlight=False)
        raise typer.Exit(130)
    raise typer.Exit(1 if course_run.failures or course_run.problems else 0)


def _execute(course_run: CourseRun, jobs: int) -> None:
    """Execute the chapters of a run, and show how far they are."""
    with progress_bar() as progress:
        bar = progress.add_task("", total=sum(course_run.cells.values()))

        def done(outcome: Outcome) -> None:
            passed = outcome.verdict.cells
            every = course_run.cells[outcome.verdict.chapter]
            progress.advance(bar, every - passed)  # those that a failure left out
            progress.console.print(_line(outcome.verdict))

        course_run.execute(
            jobs,
            on_start=lambda name: progress.update(bar, description=name),
            on_cell=lambda: progress.advance(bar),
            on_outcome=done,
        )


def _tell(course_run: CourseRun, index: Path, took: str) -> None:
    """Print what came of a run."""
    for failure in course_run.failures:
        _show(failure)
    console.print(_table(course_run.verdicts, course_run.model))
    for problem in course_run.problems:
        console.print(
            problem, style="red", highlight=False, markup=False, soft_wrap=True
        )
    console.print(took, highlight=False)
    console.print(f"Pages: {os.path.relpath(index)}", highlight=False)


def _line(verdict: Verdict) -> str:
    mark = "[green]passed[/green]" if verdict.ok else "[red]failed[/red]"
    return (
        f"{mark}  {verdict.chapter}  ({verdict.cells} cells, {verdict.seconds:.1f} s)"
    )


def _table(verdicts: list[Verdict], model: str) -> Table:
    table = Table(title=f"The course on {model}")
    for column, justify in [
        ("chapter", "left"),
        ("cells", "right"),
        ("seconds", "right"),
        ("verdict", "left"),
    ]:
        table.add_column(column, justify=justify)
    for v in verdicts:
        table.add_row(
            v.chapter,
            str(v.cells),
            f"{v.seconds:.1f}",
            "[green]passed[/green]" if v.ok else "[red]failed[/red]",
        )
    failed = sum(not v.ok for v in verdicts)
    table.add_section()
    total = sum(v.cells for v in verdicts), sum(v.seconds for v in verdicts)
    table.add_row(
        "all",
        str(total[0]),
        f"{total[1]:.1f}",
        f"[red]{failed} failed[/red]" if failed else "[green]passed[/green]",
    )
    return table


def _show(failure: Failure) -> None:
    place = (
        ""
        if failure.cell is None
        else f", cell {failure.cell + 1} (text cells counted)"
    )
    console.rule(f"[red]{failure.chapter}{place}")
    if failure.source:
        console.print(Syntax(failure.source, "python", word_wrap=True))
    console.print(Text.from_ansi(failure.reason))
