"""`ioi-course circuit`: find a model's circuit and put it on trial."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ioi_course.project import CourseError
from ioi_course.terminal import check_writable, console, stop, write_report


def circuit(
    model: Annotated[str, typer.Option(help="The model to look into.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            readable=False,
            help="Write roles, evidence and figures to this file.",
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(min=8, help="How many prompts to measure on.")
    ] = 64,
    seed: Annotated[
        int, typer.Option(help="Which prompts: another seed gives others.")
    ] = 0,
) -> None:
    """Find a model's circuit, compare it with the answer key if there is
    one, and put it on trial."""
    from ioi_course.bundled.answer_key import known_circuit
    from ioi_course.trial import on_trial
    from ioi_course.finder import find_circuit
    from ioi_course.models import load_model, model_name
    from ioi_course.prompts import IOIDataset

    try:
        if out is not None:
            check_writable(out)
        bridge = load_model(model)
        data = IOIDataset(bridge, prompts, seed)
        found, key = find_circuit(bridge, data), known_circuit(bridge)
        trial = (
            on_trial(bridge, data, found.circuit, progress=True)
            if len(found.circuit)
            else _NO_TRIAL
        )
    except (CourseError, ValueError) as error:
        raise stop(error) from error
    report = {
        "model": model_name(bridge),
        "prompts": prompts,
        "seed": seed,
        "finder": found.as_dict(key),
        **trial,
    }
    console.print(_circuit_table(report))
    if report["finder"]["evidence"]:
        console.print(_evidence_table(report["finder"]["evidence"]))
    for note in found.notes:
        console.print(f"Note: {note}.", highlight=False, markup=False)
    if trial is not _NO_TRIAL:
        console.print(_trial_table(trial))
    if out is not None:
        write_report(report, out)


_NO_TRIAL = {"faithfulness": {"share": None}, "completeness": {}, "minimality": {}}


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _trial_table(trial: dict) -> Table:
    """The three criteria, as `on_trial` gives them."""
    faithful, complete, minimal = (
        trial[criterion] for criterion in ("faithfulness", "completeness", "minimality")
    )
    table = Table(title="The circuit on trial (logit differences)")
    for column in ("criterion", "knocked out"):
        table.add_column(column)
    for column in ("circuit", "model", ""):
        table.add_column(column, justify="right")
    means = _number(faithful["circuit"]), _number(faithful["model"])
    table.add_row(
        "faithfulness", "all other heads", *means, f"share {_number(faithful['share'])}"
    )
    table.add_section()
    for role, row in complete["class"].items():
        numbers = _number(row["circuit"]), _number(row["model"])
        table.add_row(
            "completeness", role, *numbers, f"apart {_number(row['incompleteness'])}"
        )
    for what in ("random", "greedy"):
        table.add_row(
            "",
            f"{what} sets, at most",
            "",
            "",
            f"apart {_number(complete[what]['largest'])}",
        )
    table.add_section()
    heads = {
        head: share for head, share in minimal["heads"].items() if share is not None
    }
    least = min(heads, key=heads.get, default="")
    table.add_row(
        "minimality",
        f"{least}, which matters least",
        "",
        "",
        f"share {_number(heads.get(least))}",
    )
    return table


def _evidence_table(evidence: dict[str, dict]) -> Table:
    """What decided about each head, with its error."""
    table = Table(title="What decided (effects as shares of the logit difference)")
    for column in ("head", "class", "effect", "share", "looks at", "attention"):
        numeric = column in ("share", "attention")
        table.add_column(column, justify="right" if numeric else "left")
    for head, row in evidence.items():
        share = f"{row['share']:.3f} ± {row['error']:.3f}"
        looks = row["looks at"] or "", _number(row["attention"])
        table.add_row(head, row["class"], row["effect"], share, *looks)
    return table


def _circuit_table(report: dict) -> Table:
    from ioi_course.roles import PAPER

    found = report["finder"]
    rates = found["by_class"]
    table = Table(title=f"What was found in {report['model']}")
    for column in (
        "class",
        "acts at",
        "heads",
        *(("precision", "recall") if rates else ()),
    ):
        table.add_column(
            column, justify="right" if column in ("precision", "recall") else "left"
        )
    shown = {
        r: heads for r, heads in found["roles"].items() if heads or r in PAPER.roles
    }
    for role, heads in shown.items():
        names = " ".join(f"L{layer}H{head}" for layer, head in heads) or "none"
        numbers = (
            [_number(rates[role][rate]) for rate in ("precision", "recall")]
            if rates and role in rates
            else []
        )
        table.add_row(role, found["positions"][role], names, *numbers)
    if rates:
        table.add_section()
        count = sum(map(len, found["roles"].values()))
        table.add_row(
            "all",
            "",
            f"{count} heads",
            _number(found["precision"]),
            _number(found["recall"]),
        )
    return table
