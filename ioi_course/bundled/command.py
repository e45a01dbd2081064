"""`ioi-course train`: train `tiny` from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ioi_course.terminal import console, stop


def train(
    out: Annotated[
        Path,
        typer.Option(help="The folder for the run's state and, in the end, the model."),
    ] = Path("build/tiny"),
    until: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after this step; train to the end if not given."
        ),
    ] = None,
) -> None:
    """Train the model `tiny` from scratch; after an interruption the same command goes
    on where it was saved."""
    from ioi_course.bundled import training

    recipe = training.Recipe()
    state = out / "run" / training.STATE
    console.print(
        f"{recipe.steps:,} steps on one core, about {_minutes(recipe)} on an idle "
        f"machine. Every {recipe.save_every} steps the run is saved in {state}. Press "
        "Ctrl-C to stop; the same command goes on from there.",
        highlight=False,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
    )
    try:
        with Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as progress:
            bar = progress.add_task("training", total=recipe.steps)
            run = training.train(
                out / "run",
                recipe,
                until,
                on_step=lambda run: _show_step(run, progress, bar),
            )
        table = training.write_model(run, out / "model")
    except training.TrainingError as error:
        raise stop(error) from error
    except KeyboardInterrupt as error:
        console.print(
            "Stopped. What was saved is kept, and the same command goes on from there.",
            highlight=False,
        )
        raise typer.Exit(130) from error
    console.print(table.round(3).to_string(), highlight=False)
    console.print(
        f"The model and its card are in {out / 'model'}: "
        f"load_model({str(out / 'model')!r}).",
        highlight=False,
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
        said = (
            "step {step:>5,}  loss {loss:.2f}  held out: accuracy {accuracy:.1%}, "
            "logit difference {logit_diff:.2f}"
        )
        progress.console.print(said.format(**last), highlight=False)
    progress.update(bar, completed=run.step)
