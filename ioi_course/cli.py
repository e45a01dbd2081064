"""The command `ioi-course`: run the chapters, open them, examine the machine, list the models, build the site."""

from __future__ import annotations

import json
import math
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
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ioi_course.machine import default_jobs, threads_of
from ioi_course.publish.run import (
    CourseError,
    Failure,
    Verdict,
    chapter_name,
    chapters,
    code_cells,
    execute,
    find_root,
    save_outputs,
    write_report,
)

if TYPE_CHECKING:
    from ioi_course.publish.pages import Page

app = typer.Typer(
    help="The IOI course: guided chapters on how GPT-2 small finds the indirect object.",
    no_args_is_help=True,
    add_completion=False,
)
console = Console()
Root = Annotated[Path | None, typer.Option(help="The clone of the course; found from here upwards if not given.")]


def _root(given: Path | None) -> Path:
    try:
        return find_root(given)
    except CourseError as error:
        raise _stop(error) from error


def _stop(error: Exception) -> typer.Exit:
    console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
    return typer.Exit(2)


@app.command()
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

    root = _root(root)
    try:
        paths = chapters(root, names or [])
        resolved = resolve_model(model or "auto")
    except (CourseError, ModelError) as error:
        raise _stop(error) from error
    os.environ["IOI_COURSE_MODEL"] = resolved
    out = root / out
    write_assets(root, out)
    write_text_pages(root, out)
    sources = [nbformat.read(path, as_version=4) for path in paths]
    pages = {chapter_name(path, root): page_of(path, root, nb) for path, nb in zip(paths, sources, strict=True)}
    order = list(pages.values())
    jobs = min(jobs or default_jobs(), len(paths))
    start, results = time.perf_counter(), {}
    with _progress() as progress, ThreadPoolExecutor(jobs) as pool:
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


def _progress(what: str = "cells") -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


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


@app.command()
def lab(root: Root = None) -> None:
    """Open the chapters in JupyterLab."""
    root = _root(root)
    try:
        import jupyterlab  # noqa: F401
    except ImportError as error:
        raise _stop(
            CourseError("JupyterLab is not installed: pip install 'ioi_course[lab]', or make setup.")
        ) from error
    from ioi_course.plots import page_head

    static = root / "build" / "static"
    page_head(static / "ioi_course", "")  # the scripts of the plots, served by Jupyter itself: no network needed
    option = f"--ServerApp.extra_static_paths={[str(static)]}"
    raise typer.Exit(subprocess.call([sys.executable, "-m", "jupyterlab", str(root / "nbs"), option]))


@app.command()
def doctor() -> None:
    """Print what this machine has, and what to do about what is missing."""
    from ioi_course.doctor import examine

    table = Table(title="This machine")
    for column in ["what", "found", "", "what to do"]:
        table.add_column(column, overflow="fold")
    findings = examine()
    mark = {True: "[green]ok[/green]", False: "[red]missing[/red]", None: "[yellow]optional[/yellow]"}
    for f in findings:
        table.add_row(f.what, f.found, mark[f.ok], Text(f.todo))
    console.print(table)
    raise typer.Exit(1 if any(f.ok is False for f in findings) else 0)


@app.command()
def models() -> None:
    """List the models with their size, where they come from, and whether they are at hand."""
    from ioi_course.models import list_models

    frame = list_models()
    table = Table(title="Models")
    for column in frame.columns:
        table.add_column(str(column), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
    console.print(
        "Choose one with --model NAME, or IOI_COURSE_MODEL=NAME, or load_model(NAME); any other TransformerLens name "
        "or a local Hugging Face directory works too.",
        highlight=False,
    )


@app.command()
def docs(root: Root = None) -> None:
    """Build the website with nbdev and Quarto into _docs/; without Quarto, stage its pages and say what is missing."""
    from ioi_course.publish.site import prepare, stage

    root = _root(root)
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


@app.command()
def circuit_page(
    model: Annotated[str, typer.Option(help="The model to look into.")] = "auto",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("circuit.html"),
) -> None:
    """Write a model's circuit as one page of HTML: choose a head, see what it does. It needs no server."""
    from ioi_course.publish.circuit_page import write_page

    try:
        _check_writable(out)
        page = write_page(out, model)
    except (CourseError, ValueError, RuntimeError, OSError) as error:
        raise _stop(error) from error
    console.print(f"{page} ({page.stat().st_size / 1000:.0f} kB)", highlight=False, markup=False, soft_wrap=True)


@app.command()
def circuit(
    model: Annotated[str, typer.Option(help="The model to look into.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", readable=False, help="Write roles and figures to this file, too."),
    ] = None,
    prompts: Annotated[int, typer.Option(min=8, help="How many prompts to measure on.")] = 64,
    seed: Annotated[int, typer.Option(help="Which prompts: another seed gives others.")] = 0,
) -> None:
    """Find a model's circuit, compare it with the answer key if there is one, and put it on trial."""
    from ioi_course.bundled.answer_key import known_circuit
    from ioi_course.trial import on_trial
    from ioi_course.finder import find_circuit
    from ioi_course.models import load_model, model_name
    from ioi_course.prompts import IOIDataset

    try:
        if out is not None:
            _check_writable(out)
        bridge = load_model(model)
        data = IOIDataset(bridge, prompts, seed)
        found, key = find_circuit(bridge, data), known_circuit(bridge)
        trial = on_trial(bridge, data, found.circuit, progress=True) if len(found.circuit) else _NO_TRIAL
    except (CourseError, ValueError) as error:
        raise _stop(error) from error
    report = {"model": model_name(bridge), "prompts": prompts, "seed": seed, "finder": found.as_dict(key), **trial}
    console.print(_circuit_table(report))
    for note in found.notes:
        console.print(f"Note: {note}.", highlight=False, markup=False)
    if trial is not _NO_TRIAL:
        console.print(_trial_table(trial))
    if out is not None:
        try:
            _write_json(report, out)
        except OSError as error:
            raise _stop(CourseError(f"{out} could not be written: {error.strerror}.")) from error
        console.print(f"Written to {out}", highlight=False, markup=False)


_NO_TRIAL = {"faithfulness": {"share": None}, "completeness": {}, "minimality": {}}


def _check_writable(path: Path) -> None:
    """Raise CourseError if a file cannot be written here, before the work begins."""
    folder = path.absolute().parent
    if path.is_dir():
        raise CourseError(f"{path} is a folder. Name a file in it, such as {path / 'circuit.json'}.")
    if not folder.is_dir():
        raise CourseError(f"There is no folder {folder} to write {path.name} in. Make it first.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise CourseError(f"{path} cannot be written: permission denied.")
    try:
        _part(path).touch()
        _part(path).unlink()
    except OSError as error:
        raise CourseError(f"{path} cannot be written: {error.strerror}.") from error


def _part(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _write_json(report: dict, path: Path) -> None:
    """Write all of it or nothing: a file that was there stays until the new one is complete."""
    text = json.dumps(_plain(report), indent=2, allow_nan=False) + "\n"
    try:
        _part(path).write_text(text, encoding="utf-8")
        os.replace(_part(path), path)
    finally:
        _part(path).unlink(missing_ok=True)


def _plain(value):
    """The value in JSON's own types; null for a number that JSON does not have, such as NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):  # of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _trial_table(trial: dict) -> Table:
    """The three criteria, as `on_trial` gives them."""
    faithful, complete, minimal = (trial[criterion] for criterion in ("faithfulness", "completeness", "minimality"))
    table = Table(title="The circuit on trial (logit differences)")
    for column, justify in [("criterion", "left"), ("knocked out", "left"), ("circuit", "right"), ("model", "right"),
                            ("", "right")]:  # fmt: skip
        table.add_column(column, justify=justify)
    means = _number(faithful["circuit"]), _number(faithful["model"])
    table.add_row("faithfulness", "all other heads", *means, f"share {_number(faithful['share'])}")
    table.add_section()
    for role, row in complete["class"].items():
        numbers = _number(row["circuit"]), _number(row["model"])
        table.add_row("completeness", role, *numbers, f"apart {_number(row['incompleteness'])}")
    for what in ("random", "greedy"):
        table.add_row("", f"{what} sets, at most", "", "", f"apart {_number(complete[what]['largest'])}")
    table.add_section()
    heads = {head: share for head, share in minimal["heads"].items() if share is not None}
    least = min(heads, key=heads.get, default="")
    table.add_row("minimality", f"{least}, which matters least", "", "", f"share {_number(heads.get(least))}")
    return table


def _circuit_table(report: dict) -> Table:
    found = report["finder"]
    rates = found["by_class"]
    table = Table(title=f"What was found in {report['model']}")
    for column in ("class", "acts at", "heads", *(("precision", "recall") if rates else ())):
        table.add_column(column, justify="right" if column in ("precision", "recall") else "left")
    for role, heads in found["roles"].items():
        names = " ".join(f"L{layer}H{head}" for layer, head in heads) or "none"
        numbers = [_number(rates[role][rate]) for rate in ("precision", "recall")] if rates and role in rates else []
        table.add_row(role, found["positions"][role], names, *numbers)
    if rates:
        table.add_section()
        count = sum(map(len, found["roles"].values()))
        table.add_row("all", "", f"{count} heads", _number(found["precision"]), _number(found["recall"]))
    return table


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="The folder for the run's state and, in the end, the model.")] = Path(
        "build/tiny"
    ),
    until: Annotated[
        int | None, typer.Option(min=1, help="Stop after this step; train to the end if not given.")
    ] = None,
) -> None:
    """Train the model `tiny` from scratch; after an interruption the same command goes on where it was saved."""
    from ioi_course.bundled import training

    recipe = training.Recipe()
    state = out / "run" / training.STATE
    console.print(
        f"{recipe.steps:,} steps on one core, about {_minutes(recipe)} on an idle machine. Every {recipe.save_every} "
        f"steps the run is saved in {state}. Press Ctrl-C to stop; the same command goes on from there.",
        highlight=False,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    try:
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True
        ) as progress:
            bar = progress.add_task("training", total=recipe.steps)
            run = training.train(out / "run", recipe, until, on_step=lambda run: _show_step(run, progress, bar))
        table = training.write_model(run, out / "model")
    except training.TrainingError as error:
        raise _stop(error) from error
    except KeyboardInterrupt as error:
        console.print("Stopped. What was saved is kept, and the same command goes on from there.", highlight=False)
        raise typer.Exit(130) from error
    console.print(table.round(3).to_string(), highlight=False)
    console.print(
        f"The model and its card are in {out / 'model'}: load_model({str(out / 'model')!r}).", highlight=False
    )


def _minutes(recipe) -> str:
    """How long a recipe takes: a step of 32 sequences was measured at 0.12 s."""
    minutes = round(recipe.steps * recipe.batch / 32 * 0.12 / 60)
    return "a minute" if minutes <= 1 else f"{minutes} minutes"


def _show_step(run, progress: Progress, bar: TaskID) -> None:
    """Move the bar; after a save also say how the model does."""
    last = run.log[-1]
    if progress.tasks[0].completed == 0 and run.step > 1:
        progress.console.print(f"going on after step {run.step - 1:,}", highlight=False)
    if "accuracy" in last:
        said = "step {step:>5,}  loss {loss:.2f}  held out: accuracy {accuracy:.1%}, logit difference {logit_diff:.2f}"
        progress.console.print(said.format(**last), highlight=False)
    progress.update(bar, completed=run.step)


@app.command()
def wiki(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Models by name, or folders; see `ioi-course models`.")
    ],
    where: Annotated[
        str, typer.Option(help="serial, processes, or the address of a Dask scheduler, such as tcp://127.0.0.1:8786.")
    ] = "serial",
    cache: Annotated[
        Path, typer.Option(help="The folder that keeps what is measured: a run that was stopped goes on from there.")
    ] = Path("build/wiki"),
    out: Annotated[Path | None, typer.Option(help="Write all heads to this .csv file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw a tile per model into this .svg file.")] = None,
    kind: Annotated[str, typer.Option(help="What to draw: previous, duplicate, induction or first.")] = "induction",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes at a time, with --where processes.")] = None,
    n: Annotated[int, typer.Option(min=2, help="Random tokens in one copy.")] = 50,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of random tokens.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="That tokens and prompts are drawn with.")] = 0,
    prompts: Annotated[int, typer.Option(min=1, help="IOI prompts to measure the task with.")] = 32,
) -> None:
    """Measure where the heads of many models look, model by model; see chapter 14."""
    from ioi_course.heads import KINDS, save_wiki
    from ioi_course.universality import wiki

    try:
        for path in (out, picture):
            if path is not None:
                _check_writable(path)
        if picture is not None and picture.suffix != ".svg":
            raise CourseError(f"A picture is saved as .svg; got {picture}.")
        if kind not in (*KINDS, "first"):
            raise CourseError(f"There is no score {kind!r}; choose from {', '.join(KINDS)} and first.")
        found = wiki(models, where, cache, n=n, batch=batch, seed=seed, prompts=prompts, jobs=jobs)
        if out is not None:
            save_wiki(found.heads, out)
        if picture is not None and len(found.heads):
            found.plot(kind).save(picture)
    except (CourseError, ValueError, OSError, ModuleNotFoundError) as error:
        raise _stop(error) from error
    table = Table(title="Models, and how many of their heads score 0.5 or more", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = found.models.drop(columns="note").join(found.count().astype("Int64")).round(2).astype(object).fillna("")
    table.add_column("model", overflow="fold")
    for column in ("layers", "heads", "right", "diff", "from", "prev.", "dupl.", "ind."):
        table.add_column(column, no_wrap=True)
    for row in shown.itertuples():
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
    for name, note in found.models["note"][lambda notes: notes.fillna("") != ""].items():
        console.print(f"{name}: {note}", soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(1 if (found.models["came from"] == "failed").any() else 0)


@app.command()
def grade(
    submissions: Annotated[
        list[Path], typer.Argument(metavar="SUBMISSION...", help="Notebooks, and folders that hold notebooks.")
    ],
    assignment: Annotated[
        str, typer.Option(help="The name of an assignment that `make assignments` built, or an autograder zip.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for grades.csv, reports/ and results/.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Submissions at a time; as many as cores and memory allow if not given.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one cell, or the tests of one question.")] = 60,
    memory: Annotated[float, typer.Option(min=0.1, help="GB that a submission may use.")] = 4,
    root: Root = None,
) -> None:
    """Grade notebooks, each in processes of its own without network; a second run grades only what changed."""
    from ioi_course.grading import grade as grading

    start, news = time.perf_counter(), []
    try:
        tests = grading.read_assignment(grading.find_assignment(assignment, root))
        found = grading.find_submissions(submissions, tests.name)
        jobs = jobs or grading.default_jobs(memory)
        with _progress("submissions") as progress:
            bar = progress.add_task("grading", total=len(found))

            def show(graded: grading.Grade, new: bool) -> None:
                progress.advance(bar)
                news.append(new)

            grades = grading.grade_all(found, tests, out, jobs, grading.Limits(timeout, memory), show)
    except (CourseError, grading.GradingError, OSError) as error:
        raise _stop(error) from error
    except KeyboardInterrupt as error:
        console.print("Stopped. What was graded is kept, and the same command goes on from there.", highlight=False)
        raise typer.Exit(130) from error
    console.print(_grade_table(grades))
    console.print(
        f"Graded {sum(news)} of {len(news)}, the others had not changed; took {time.perf_counter() - start:.0f} s. "
        f"The points are in {out / 'grades.csv'}, the reports in {out / 'reports'}.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if lacking := sorted({what for graded in grades for what in graded.lacking}):
        console.print(
            f"This machine's kernel does not allow {' and '.join(lacking)}: submissions were kept in by Python's audit "
            "hook only, which is no sandbox. Grade in a container or on another machine.",
            style="yellow",
        )
    raise typer.Exit(1 if any(graded.status == "failed" for graded in grades) else 0)


def _grade_table(grades: list) -> Table:
    table = Table(title="Grades")
    for column, justify in [("student", "left"), ("total", "right"), ("of", "right"), ("status", "left")]:
        table.add_column(column, justify=justify, overflow="fold")
    colour = {"graded": "green", "failed": "red"}
    for graded in grades:
        points = f"{graded.total:g}", f"{graded.possible:g}"
        table.add_row(Text(graded.student), *points, Text(graded.status, colour.get(graded.status, "yellow")))
    return table


if __name__ == "__main__":
    app()
