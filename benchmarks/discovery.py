"""How long it takes to score every edge: gradients on both models, exact patching
against hooked runs: `make bench`.

Gradients: EAP-IG on inputs, 5 steps, 16 pairs, all edges, with the most memory that
the process took. Exact: all edges of the synthetic model on 4 pairs, beside a loop
over runs of the model with hooks that cut one edge each. The loop is timed on a sample
of edges of every kind (the table says of how many), and the time of each kind is
scaled to all edges of that kind; both must give the same scores. With `--shared`, for
a machine that others use at the same time, seconds are those of one thread on the
processor, not those of the clock.
"""

import argparse
import json
import platform
import random
import resource
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ioi_course.discovery.exact import exact_scores
from ioi_course.discovery.gradients import gradient_scores
from ioi_course.discovery.graph import Graph
from ioi_course.discovery.streams import check_pairs, sides
from ioi_course.metrics import logit_diff
from ioi_course.models import ModelError, load_model
from ioi_course.prompts import IOIDataset

STEPS, PAIRS, EXACT_PAIRS = 5, 16, 4
LIMITS = {"synthetic": 20, "smollm2": 180}  # seconds for all edges by gradients
EXACT_LIMIT, LEAST_RATIO, MOST_GB, MOST_APART = 240, 20, 4, 1e-4


def gradients(model, clock) -> dict:
    """Seconds for all edges by EAP-IG on inputs, and the most memory so far."""
    clean = IOIDataset(model, PAIRS)
    start = clock()
    scores = gradient_scores(
        model, clean, clean.counterfactual("abc"), steps=STEPS, progress=False
    )
    seconds = clock() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "edges": len(scores.graph),
        "pairs": PAIRS,
        "seconds": seconds,
        "peak_gb": peak,
    }


def kind_of(graph: Graph, receiver: int) -> str:
    """What reads there: "q", "k", "v", "mlp" or "logits"."""
    if receiver == len(graph.receivers) - 1:
        return "logits"
    inputs = graph.inputs(receiver // (graph.n_heads + 2 * graph.n_kv + 1))
    return next(kind for kind, places in inputs.items() if receiver in places)


def cut_by_hook(
    model, side, edge: tuple[int, int], changes: torch.Tensor
) -> torch.Tensor:
    """The logit differences of a run in which one head's query, key or value, or one
    MLP, reads a cut stream.

    Everything that all cuts share is given, so that the loop is timed
    and not its preparation.
    """
    graph, (s, r) = side.graph, edge
    layer, at = divmod(r, graph.n_heads + 2 * graph.n_kv + 1)
    kind, block = kind_of(graph, r), side.engine.blocks[min(layer, graph.n_layers - 1)]
    if kind == "logits":
        hook = (
            f"blocks.{graph.n_layers - 1}.hook_resid_post",
            lambda value, hook: value + changes[s],
        )
    elif kind == "mlp":
        x = side.clean.resid_mid[layer] + changes[s]
        new = block.mlp(x.flatten(0, 1)).view_as(x)
        hook = f"blocks.{layer}.hook_mlp_out", lambda value, hook: new
    else:
        head = at % graph.n_heads
        x = block.norm(side.clean.resid_pre[layer] + changes[s], "ln1")
        (part,) = block.heads(x, torch.arange(x.shape[1]), kind)

        def put(value, hook):
            value[:, :, head] = part[:, :, head]
            return value

        hook = f"blocks.{layer}.attn.hook_{kind}", put
    logits = model.run_with_hooks(side.tokens[0], fwd_hooks=[hook])
    return logit_diff(logits, side.data, per_prompt=True)


def exact(model, sample: int, clock) -> dict:
    """All edges by the engine, a sample of each kind by hooks."""
    clean = IOIDataset(model, EXACT_PAIRS)
    corrupted = clean.counterfactual("abc")
    start = clock()
    scores = exact_scores(model, clean, corrupted, progress=False)
    ours = clock() - start
    side = sides(check_pairs(model, clean, corrupted), scores.graph, clean, corrupted)
    changes, kinds = side.differences(), {}
    for edge in scores.graph.real.nonzero().tolist():
        kinds.setdefault(kind_of(scores.graph, edge[1]), []).append(tuple(edge))
    whole, worst, by_hooks = (
        logit_diff(model(side.tokens[0]), clean, per_prompt=True),
        0.0,
        0.0,
    )
    for edges in kinds.values():
        some = random.Random(0).sample(edges, sample // len(kinds))
        start = clock()
        lost = [whole - cut_by_hook(model, side, edge, changes) for edge in some]
        by_hooks += (clock() - start) / len(some) * len(edges)
        apart = [
            (one - scores.per_prompt[(slice(None), *edge)]).abs().max()
            for one, edge in zip(lost, some, strict=True)
        ]
        worst = max(worst, *map(float, apart))
    found = {
        "edges": len(scores.graph),
        "pairs": EXACT_PAIRS,
        "seconds": ours,
        "by_hooks_s": by_hooks,
    }
    return found | {
        "ratio": by_hooks / ours,
        "sample": {kind: sample // len(kinds) for kind in kinds},
        "max_diff": worst,
    }


def shown(result: dict, seconds: str) -> bool:
    """Print the table; whether everything is within its limit."""
    table = Table(
        title=f"Scores for all edges, {result['machine']['threads']} threads, {seconds}"
    )
    for column in ("model", "method", "edges", "pairs", "seconds", "limit", "beside"):
        table.add_column(
            column,
            justify="left" if column in ("model", "method", "beside") else "right",
        )
    kept = True
    for name, row in result["gradients"].items():
        cells = (
            str(row["edges"]),
            str(row["pairs"]),
            f"{row['seconds']:.1f}",
            str(LIMITS[name]),
        )
        table.add_row(
            name, "EAP-IG, inputs", *cells, f"{row['peak_gb']:.1f} GB at most"
        )
        kept &= row["seconds"] <= LIMITS[name] and row["peak_gb"] <= MOST_GB
    if row := result.get("exact"):
        of = " + ".join(f"{n} {kind}" for kind, n in row["sample"].items())
        said = f"hooks {row['by_hooks_s']:.0f} s ({of} edges), {row['ratio']:.0f} times"
        cells = (
            str(row["edges"]),
            str(row["pairs"]),
            f"{row['seconds']:.1f}",
            str(EXACT_LIMIT),
        )
        table.add_row(
            "synthetic", "exact", *cells, f"{said}; apart {row['max_diff']:.0e}"
        )
        kept &= (
            row["seconds"] <= EXACT_LIMIT
            and row["ratio"] >= LEAST_RATIO
            and row["max_diff"] <= MOST_APART
        )
    Console(width=140).print(table)
    print(
        "Everything is within its limit."
        if kept
        else "Something is over its limit, or too slow beside hooks."
    )
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench-discovery.json"))
    parser.add_argument("--only", choices=("gradients", "exact"))
    parser.add_argument(
        "--model",
        choices=tuple(LIMITS),
        action="append",
        help="for gradients; both unless given",
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=150,
        help="how many edges the loop over hooks cuts, all kinds together",
    )
    parser.add_argument(
        "--shared", action="store_true", help="one thread, and seconds of the processor"
    )
    given = parser.parse_args()
    clock, threads = (time.process_time, 1) if given.shared else (time.perf_counter, 2)
    seconds = "seconds on the processor" if given.shared else "seconds on the clock"
    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    assert len(Graph(12, 12, 12)) == 32491
    result = {
        "machine": {
            "processor": platform.machine(),
            "threads": threads,
            "torch": torch.__version__,
        }
    }
    result |= {"seconds": seconds, "gradients": {}}
    for name in (given.model or LIMITS) if given.only != "exact" else ():
        try:
            result["gradients"][name] = gradients(load_model(name), clock)
        except ModelError as error:
            print(f"{name} was not measured: {error}")
    if given.only != "gradients":
        result["exact"] = exact(load_model("synthetic"), given.sample, clock)
    result["within_limits"] = shown(result, seconds)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
