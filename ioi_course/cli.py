"""The command `ioi-course`. What a command does, and its options,
stand beside what it runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ioi_course.bundled.command import train
from ioi_course.circuit_command import circuit
from ioi_course.discovery.command import discover
from ioi_course.grading.command import grade
from ioi_course.project import CourseError
from ioi_course.publish.command import run
from ioi_course.publish.site_command import circuit_page, docs, lab_page
from ioi_course.terminal import Root, console, root_of, stop
from ioi_course.wiki_command import wiki

app = typer.Typer(
    help=(
        "The IOI course: guided chapters on how GPT-2 small finds the indirect object."
    ),
    no_args_is_help=True,
    add_completion=False,
)


def lab(root: Root = None) -> None:
    """Open the chapters in JupyterLab."""
    root = root_of(root)
    try:
        import jupyterlab  # noqa: F401
    except ImportError as error:
        raise stop(
            CourseError(
                "JupyterLab is not installed: pip install 'ioi_course[lab]', or "
                "make setup."
            )
        ) from error
    from ioi_course.plots import page_head

    static = root / "build" / "static"
    # the scripts of the plots, served by Jupyter itself: no network needed
    page_head(static / "ioi_course", "")
    option = f"--ServerApp.extra_static_paths={[str(static)]}"
    raise typer.Exit(
        subprocess.call([sys.executable, "-m", "jupyterlab", str(root / "nbs"), option])
    )


def doctor() -> None:
    """Print what this machine has, and what to do about what is missing."""
    from ioi_course.doctor import examine

    table = Table(title="This machine")
    for column in ["what", "found", "", "what to do"]:
        table.add_column(column, overflow="fold")
    findings = examine()
    mark = {
        True: "[green]ok[/green]",
        False: "[red]missing[/red]",
        None: "[yellow]optional[/yellow]",
    }
    for f in findings:
        table.add_row(f.what, f.found, mark[f.ok], Text(f.todo))
    console.print(table)
    raise typer.Exit(1 if any(f.ok is False for f in findings) else 0)


models = typer.Typer(help="List the models, or get one: ioi-course models get smollm2.")


@models.callback(invoke_without_command=True)
def list_them(context: typer.Context) -> None:
    """List the models with their size, where they come from, and
    whether they are at hand."""
    if context.invoked_subcommand:
        return
    from ioi_course.models import list_models

    frame = list_models()
    table = Table(title="Models")
    for column in frame.columns:
        table.add_column(str(column), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
    console.print(
        "Choose one with --model NAME, or IOI_COURSE_MODEL=NAME, or load_model(NAME); "
        "any other TransformerLens name or a local Hugging Face directory works too.",
        highlight=False,
    )


@models.command()
def get(
    name: Annotated[
        str, typer.Argument(help="A model's name, such as smollm2 or gpt2-small.")
    ],
) -> None:
    """Fetch a model, so that it loads without a network from then on."""
    from ioi_course.models import ModelError, describe, load_model

    try:
        typer.echo(repr(describe(load_model(name, "cpu"))))
    except ModelError as error:
        raise stop(error) from error


for command in (
    run,
    lab,
    doctor,
    docs,
    circuit_page,
    lab_page,
    circuit,
    discover,
    train,
    wiki,
    grade,
):
    app.command()(command)
app.add_typer(models, name="models")


if __name__ == "__main__":
    app()
