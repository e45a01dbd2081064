"""`ioi-course wiki`: what the heads of many models do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ioi_course.project import CourseError
from ioi_course.terminal import check_writable, console, stop


def wiki(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Models by name, or folders; see `ioi-course models`.",
        ),
    ],
    where: Annotated[
        str,
        typer.Option(
            help="serial, processes, or the address of a Dask scheduler, such as "
            "tcp://127.0.0.1:8786."
        ),
    ] = "serial",
    cache: Annotated[
        Path,
        typer.Option(
            help="The folder that keeps what is measured: a run that was stopped goes "
            "on from there."
        ),
    ] = Path("build/wiki"),
    out: Annotated[
        Path | None, typer.Option(help="Write all heads to this .csv file.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="A folder for each model's scores as .csv, with date and versions "
            "beside them."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw a tile per model into this .svg file.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What to draw: previous, duplicate, induction or first.")
    ] = "induction",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes at a time, with --where processes."),
    ] = None,
    n: Annotated[int, typer.Option(min=2, help="Random tokens in one copy.")] = 50,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of random tokens.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="That tokens and prompts are drawn with.")
    ] = 0,
    prompts: Annotated[
        int, typer.Option(min=1, help="IOI prompts to measure the task with.")
    ] = 32,
) -> None:
    """Measure where the heads of many models look, model by model; see chapter 14."""
    from ioi_course.heads import KINDS, save_wiki
    from ioi_course.universality import wiki
    from ioi_course.wiki_kept import keep_wiki

    try:
        for path in (out, picture):
            if path is not None:
                check_writable(path)
        if picture is not None and picture.suffix != ".svg":
            raise CourseError(f"A picture is saved as .svg; got {picture}.")
        if kind not in (*KINDS, "first"):
            raise CourseError(
                f"There is no score {kind!r}; choose from {', '.join(KINDS)} and first."
            )
        found = wiki(
            models,
            where,
            cache,
            n=n,
            batch=batch,
            seed=seed,
            prompts=prompts,
            jobs=jobs,
        )
        if out is not None:
            save_wiki(found.heads, out)
        if keep is not None:
            keep_wiki(found, keep)
        if picture is not None and len(found.heads):
            found.plot(kind).save(picture)
    except (CourseError, ValueError, OSError, ModuleNotFoundError) as error:
        raise stop(error) from error
    table = Table(
        title="Models, and how many of their heads score 0.5 or more",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown = (
        found.models.drop(columns="note")
        .join(found.count().astype("Int64"))
        .round(2)
        .astype(object)
        .fillna("")
    )
    table.add_column("model", overflow="fold")
    for column in (
        "layers",
        "heads",
        "right",
        "diff",
        "from",
        "prev.",
        "dupl.",
        "ind.",
    ):
        table.add_column(column, no_wrap=True)
    for row in shown.itertuples():
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
    for name, note in found.models["note"][
        lambda notes: notes.fillna("") != ""
    ].items():
        console.print(f"{name}: {note}", soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(1 if (found.models["came from"] == "failed").any() else 0)
