"""`ioi-course run`, `docs`, `circuit-page` and `lab-page`: execute the chapters, build the site, write two of its pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ioi_course.machine import default_jobs
from ioi_course.project import CourseError
from ioi_course.publish.run import Failure, Verdict, chapters
from ioi_course.terminal import Root, check_writable, console, progress_bar, root_of, stop

T = TypeVar("T")

if TYPE_CHECKING:
    from ioi_course.publish.pages import Page
    from ioi_course.publish.runner import CourseRun
    from ioi_course.publish.welcome import Outcome


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHAPTER]...", help="Chapters by number, name or path; all if none is given."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to run on; sets IOI_COURSE_MODEL for the chapters.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where pages and report.json go, below the project's folder.")] = Path(
        "build/course"
    ),
    timeout: Annotated[int, typer.Option(min=1, help="Seconds that one cell may take.")] = 600,
    save: Annotated[bool, typer.Option("--save", help="Also store the outputs in nbs/ (for maintainers).")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Also keep the chapters' claims with the package (for maintainers).")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Chapters at a time; as many as cores and memory allow if not given.")
    ] = None,
    root: Root = None,
) -> None:
    """Execute chapters, each in a fresh kernel; write HTML pages, an index and report.json."""
    from ioi_course.models import ModelError, resolve_model
    from ioi_course.publish.collect import record_claims
    from ioi_course.publish.runner import CourseRun

    root = root_of(root)
    try:
        paths = chapters(root, names or [])
        resolved = resolve_model(model or "auto")
        course_run = CourseRun(root, root / out, paths, Path(resolved).name, timeout, save)
        course_run.prepare()
    except (CourseError, ModelError, OSError) as error:
        raise stop(error) from error
    os.environ["IOI_COURSE_MODEL"] = resolved
    jobs, start, stopped = min(jobs or default_jobs(), len(paths)), time.perf_counter(), False
    try:
        _execute(course_run, jobs)
        if CIRCUIT_CHAPTER in course_run.outcomes and resolved in WITH_CIRCUIT:
            _write_circuit_page(course_run.out, resolved)
        if CIRCUIT_CHAPTER in course_run.outcomes:
            _write_lab(course_run.out, fetch=False)
    except KeyboardInterrupt:
        stopped = True
    finally:
        index = course_run.finish(_circuit_page(course_run.out))
    if record and not stopped and not course_run.failures:
        record_claims(root, course_run.model, course_run.claims)
    _tell(course_run, index, f"Took {time.perf_counter() - start:.0f} s, {jobs} at a time.")
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
            passed, every = outcome.verdict.cells, course_run.cells[outcome.verdict.chapter]
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
        console.print(problem, style="red", highlight=False, markup=False, soft_wrap=True)
    console.print(took, highlight=False)
    console.print(f"Pages: {os.path.relpath(index)}", highlight=False)


CIRCUIT, LAB = "circuit.html", "lab.html"
CIRCUIT_CHAPTER = "12_the_circuit"  # the circuit's page is made along with it
WITH_CIRCUIT = ("synthetic", "gpt2-small")  # elsewhere a circuit has to be found first: `ioi-course circuit-page`


def _write_circuit_page(folder: Path, model: str, name: str | None = None) -> Page | None:
    """Write the page of a model's circuit; None, and the reason on the console, if there is nothing to show."""
    from ioi_course.publish.circuit_page import NAME, write_page

    name = name or NAME
    (folder / name).unlink(missing_ok=True)
    try:
        write_page(folder / name, model, home="index.html")
    except Exception as error:  # whatever it is, it costs this page only
        console.print(f"Without {name}: {error}", highlight=False, markup=False, soft_wrap=True)
    return _circuit_page(folder)


def _write_lab(folder: Path, fetch: bool = True) -> None:
    """Write the lab's page of the synthetic model, to which chapters lead; or one that says why there is none.

    Its runtime comes from npm; without `fetch` only from the cache, so that a run of the course needs no network.
    """
    from ioi_course.publish.lab_page import NAME, runtime, write_lab, write_without

    try:
        runtime(fetch=fetch)
        write_lab(folder / NAME, "synthetic", home="index.html")
    except Exception as error:  # whatever it is, it costs this page only
        write_without(folder / NAME, str(error), home="index.html")
        if fetch:
            console.print(f"Without {NAME}: {error}", highlight=False, markup=False, soft_wrap=True)


def _circuit_page(folder: Path) -> Page | None:
    """The circuit's page, if it is there."""
    from ioi_course.publish.circuit_page import NAME
    from ioi_course.publish.pages import Page

    return Page("The circuit, head by head", NAME) if (folder / NAME).exists() else None


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
    place = "" if failure.cell is None else f", cell {failure.cell + 1} (text cells counted)"
    console.rule(f"[red]{failure.chapter}{place}")
    if failure.source:
        console.print(Syntax(failure.source, "python", word_wrap=True))
    console.print(Text.from_ansi(failure.reason))


def docs(root: Root = None) -> None:
    """Build the website with nbdev and Quarto into _docs/; without Quarto, stage its pages and say what is missing."""
    from ioi_course.publish.finish import finish
    from ioi_course.publish.site import stage

    root = root_of(root)
    if (root / "nbs" / f"{CIRCUIT_CHAPTER}.ipynb").exists():
        _add_tools(root, whole=bool(shutil.which("quarto")))
    pages = _timed("Staged the pages", lambda: stage(root))
    if not shutil.which("quarto"):
        console.print(
            "Quarto is not installed, so the site was not rendered. "
            f"Its pages are staged under {os.path.relpath(pages)}.\n"
            "Install Quarto (https://quarto.org/docs/get-started/) and run the command again.",
            highlight=False,
        )
        raise typer.Exit(1)
    site, made = root / "_docs", pages / "_docs"
    command = ["quarto", "render", "--no-cache", "--output-dir", str(made)]  # one process: two were slower
    code = _timed("Rendered with Quarto", lambda: subprocess.call(command, cwd=pages))  # what it says is shown
    if code:
        raise typer.Exit(code)
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(made, site)
    _timed("Added notebooks to download and the pages' heads", lambda: finish(root, site))
    console.print(f"Site: {os.path.relpath(site / 'index.html')}", highlight=False)


def _timed(what: str, step: Callable[[], T]) -> T:
    """Take a step, and say how long it took."""
    start = time.perf_counter()
    result = step()
    console.print(f"{what} in {time.perf_counter() - start:.0f} s.", highlight=False)
    return result


SMOLLM2 = "circuit_smollm2.html"  # where SmolLM2 is at hand


def _add_tools(root: Path, whole: bool) -> None:
    """Write the circuit's page and the lab into nbs/ as pages of the site.

    The circuit's is that of the course's last run, or else a new one. Without `whole` only that is done.
    """
    from ioi_course.models import in_cache

    nbs, built, also = root / "nbs", root / "build" / "course" / CIRCUIT, None
    if whole and in_cache("smollm2"):
        _timed("Made the circuit's page of SmolLM2", lambda: _write_circuit_page(nbs, "smollm2", SMOLLM2))
        if (nbs / SMOLLM2).exists():
            also = "The same of SmolLM2", SMOLLM2
            _frame(nbs / SMOLLM2, "The circuit of SmolLM2", None)
    if built.exists():
        shutil.copyfile(built, nbs / CIRCUIT)
    else:
        _timed("Made the circuit's page", lambda: _write_circuit_page(nbs, "auto"))
    _frame(nbs / CIRCUIT, "The circuit, head by head", also)
    if whole:
        _timed("Made the lab", lambda: _write_lab(nbs))
        _frame(nbs / LAB, "The lab", None)


def _frame(page: Path, title: str, also: tuple[str, str] | None) -> None:
    """Put a page that stands alone into the site's frame: Quarto makes it again, at the same address."""
    from ioi_course.publish.framed import framed, missing

    text = framed(page.read_text(encoding="utf-8"), also) if page.exists() else missing(title, "its command says why")
    page.with_suffix(".qmd").write_text(text, encoding="utf-8")
    page.unlink(missing_ok=True)


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


def lab_page(
    model: Annotated[str, typer.Option(help="The model that runs in the page: synthetic or tiny.")] = "synthetic",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page; a folder 'lab' beside it holds the model.")] = Path(
        "lab.html"
    ),
) -> None:
    """Write the lab as a page: a model that runs in the browser, to intervene in by hand. It needs no server."""
    from ioi_course.publish.lab_page import write_lab

    try:
        check_writable(out)
        sizes = write_lab(out, model)
    except (CourseError, ValueError, RuntimeError, OSError) as error:
        raise stop(error) from error
    for name, size in sizes.items():
        console.print(f"{out.parent / name} ({size / 1e6:.1f} MB)", highlight=False, markup=False, soft_wrap=True)
