"""`ioi-course discover`: let a method look for a model's circuit, and say what
its scores are worth."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.table import Table

from ioi_course.project import CourseError
from ioi_course.terminal import check_writable, console, stop, write_report


class Method(str, Enum):
    """How edges are scored."""

    eap = "eap"
    eap_ig_inputs = "eap-ig-inputs"
    eap_ig_activations = "eap-ig-activations"
    eap_qk = "eap-qk"
    exact = "exact"
    random = "random"


def discover(
    model: Annotated[str, typer.Option(help="The model to look into.")] = "auto",
    method: Annotated[
        Method, typer.Option(help="How edges are scored.")
    ] = Method.eap_ig_inputs,
    out: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            readable=False,
            help="Write scores and figures to this file, too.",
        ),
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(
            min=1, help="How many pairs of prompts to score on; as many others judge."
        ),
    ] = 16,
    corrupt: Annotated[
        str, typer.Option(help="The counterfactual: 'abc', 'swap_subject', …")
    ] = "abc",
    seed: Annotated[
        int, typer.Option(help="Which prompts: another seed gives others.")
    ] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep exact scores here, and go on from what is there."
        ),
    ] = None,
) -> None:
    """Score every edge of a model, run the circuits of the best, and compare them with
    the answer key if there is one."""
    from ioi_course.models import load_model

    try:
        if out is not None:
            check_writable(out)
        report = _discovered(
            load_model(model), method.value, pairs, corrupt, seed, keep
        )
    except (CourseError, ValueError) as error:
        raise stop(error) from error
    except KeyboardInterrupt:
        kept = (
            f" What was found is in {keep}; the same command goes on from there."
            if keep
            else ""
        )
        raise stop(CourseError(f"Stopped.{kept}")) from None
    _show(report)
    if out is not None:
        write_report(report, out)


def _discovered(
    bridge, method: str, pairs: int, corrupt: str, seed: int, keep: Path | None
) -> dict:
    """Scores of one method, and what they are worth, as plain numbers."""
    from ioi_course.bundled.answer_key import known_circuit
    from ioi_course.discovery.curves import against_key, curve, key_edges
    from ioi_course.discovery.exact import exact_scores
    from ioi_course.discovery.gradients import gradient_scores
    from ioi_course.discovery.runs import Runner
    from ioi_course.discovery.scores import random_scores
    from ioi_course.models import model_name
    from ioi_course.prompts import IOIDataset

    data = IOIDataset(bridge, 2 * pairs, seed)
    seen, unseen = data[:pairs], data[pairs:]
    start = perf_counter()
    if method == "random":
        scores = random_scores(bridge, seed)
    elif method == "exact":
        scores = exact_scores(
            bridge, seen, seen.counterfactual(corrupt, seed), keep=keep
        )
    else:
        scores = gradient_scores(
            bridge, seen, seen.counterfactual(corrupt, seed), method
        )
    seconds = perf_counter() - start
    runner = Runner(bridge, unseen, unseen.counterfactual(corrupt, seed + 1))
    curves = {
        name: curve(runner, scores, signed=name == "signed")
        for name in ("by size", "signed")
    }
    known = known_circuit(bridge)
    key = (
        against_key(scores, key_edges(scores.graph, known))
        if known and known.name == model_name(bridge)
        else {}
    )
    best = scores.table(30)
    return {
        "model": model_name(bridge), "method": method, "pairs": pairs,
        "counterfactual": corrupt, "seed": seed,
        "edges": len(scores.graph), "seconds": round(seconds, 2),
        "curves": {name: _curve(one) for name, one in curves.items()},
        "key": {"circuit": known.source, "edges": "between heads and to the logits",
                **_rounded(key)} if key else {},
        "best": [{"edge": edge, **_rounded(row)}
                 for edge, row in best.to_dict("index").items()],
    }  # fmt: skip


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {
        name: round(value, 4) if value == value else None
        for name, value in values.items()
    }


def _curve(one) -> dict:
    f = dict(zip(one.edges, (round(value, 4) for value in one.f.tolist()), strict=True))
    return {
        "CPR": round(one.cpr, 4),
        "CMD": round(one.cmd, 4),
        "errors": _rounded(one.errors),
        "f by edges": f,
    }


def _show(report: dict) -> None:
    table = Table(title=f"The best edges of {report['model']} by {report['method']}")
    for column, justify in (("edge", "left"), ("score", "right"), ("error", "right")):
        table.add_column(column, justify=justify)
    for row in report["best"][:12]:
        error = "" if row["error"] is None else f"{row['error']:.3f}"
        table.add_row(row["edge"], f"{row['score']:.3f}", error)
    console.print(table)
    sized, signed = report["curves"]["by size"], report["curves"]["signed"]
    table = Table(
        title=f"Circuits on {report['pairs']} other pairs ({report['counterfactual']})"
    )
    for column in ("edges", "f by size", "f signed"):
        table.add_column(column, justify="right")
    for n, value in sized["f by edges"].items():
        table.add_row(f"{n:,}", f"{value:.2f}", f"{signed['f by edges'][n]:.2f}")
    console.print(table)
    console.print(
        f"CMD by size {sized['CMD']:.3f}, CPR signed {signed['CPR']:.3f}",
        highlight=False,
    )
    if report["key"]:
        figures = ", ".join(
            f"{name} {report['key'][name]:.2f}"
            for name in ("AUROC", "AUPRC", "precision", "recall")
        )
        console.print(
            f"Beside the answer key, {report['key']['edges']}: {figures}",
            highlight=False,
        )
    console.print(
        f"Scored {report['edges']:,} edges in {report['seconds']:.1f} s",
        highlight=False,
    )
