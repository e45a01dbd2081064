"""How long it takes to score every edge: gradients on both models, exact patching against hooked runs: `make bench`.

Gradients: EAP-IG on inputs, 5 steps, 16 pairs, all edges, with the most memory that the process took. Exact: all edges
of the synthetic model on 4 pairs, beside a loop over runs of the model with hooks that cut one edge each. The loop is
timed on a sample of edges (the table says of how many), and its time is scaled to all; both must give the same scores.
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
EXACT_LIMIT, LEAST_RATIO, MOST_GB = 240, 20, 4


def gradients(model) -> dict:
    """Seconds for all edges by EAP-IG on inputs, and the most memory so far."""
    clean = IOIDataset(model, PAIRS)
    start = time.perf_counter()
    scores = gradient_scores(model, clean, clean.counterfactual("abc"), steps=STEPS, progress=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"edges": len(scores.graph), "pairs": PAIRS, "seconds": seconds, "peak_gb": peak}


def cut_by_hook(model, side, edge: tuple[int, int], changes: torch.Tensor) -> torch.Tensor:
    """The logit differences of a run in which one head's query, key or value, or one MLP, reads a cut stream.

    Everything that all cuts share is given, so that the loop is timed and not its preparation.
    """
    graph, (s, r) = side.graph, edge
    layer, at = divmod(r, graph.n_heads + 2 * graph.n_kv + 1)
    block = side.engine.blocks[layer]
    if r in graph.inputs(layer)["mlp"]:
        x = side.clean.resid_mid[layer] + changes[s]
        new = block.mlp(x.flatten(0, 1)).view_as(x)
        hook = f"blocks.{layer}.hook_mlp_out", lambda value, hook: new
    else:
        via, head = "qkv"[at // graph.n_heads], at % graph.n_heads
        x = block.norm(side.clean.resid_pre[layer] + changes[s], "ln1")
        (part,) = block.heads(x, torch.arange(x.shape[1]), via)

        def put(value, hook):
            value[:, :, head] = part[:, :, head]
            return value

        hook = f"blocks.{layer}.attn.hook_{via}", put
    logits = model.run_with_hooks(side.tokens[0], fwd_hooks=[hook])
    return logit_diff(logits, side.data, per_prompt=True)


def exact(model, sample: int) -> dict:
    """All edges by the engine, a sample of them by hooks."""
    clean = IOIDataset(model, EXACT_PAIRS)
    corrupted = clean.counterfactual("abc")
    start = time.perf_counter()
    scores = exact_scores(model, clean, corrupted, progress=False)
    ours = time.perf_counter() - start
    side = sides(check_pairs(model, clean, corrupted), scores.graph, clean, corrupted)
    changes, last = side.differences(), len(scores.graph.receivers) - 1
    edges = [tuple(at) for at in scores.graph.real.nonzero().tolist() if at[1] != last]
    edges = random.Random(0).sample(edges, sample)
    whole, worst = logit_diff(model(side.tokens[0]), clean, per_prompt=True), 0.0
    start = time.perf_counter()
    for edge in edges:
        lost = whole - cut_by_hook(model, side, edge, changes)
        worst = max(worst, (lost - scores.per_prompt[(slice(None), *edge)]).abs().max().item())
    by_hooks = (time.perf_counter() - start) / sample * len(scores.graph)
    return {"edges": len(scores.graph), "pairs": EXACT_PAIRS, "seconds": ours, "by_hooks_s": by_hooks,
            "ratio": by_hooks / ours, "sample": sample, "max_diff": worst}  # fmt: skip


def shown(result: dict) -> bool:
    """Print the table; whether everything is within its limit."""
    table = Table(title="Scores for all edges, 2 threads")
    for column in ("model", "method", "edges", "pairs", "seconds", "limit", "beside"):
        table.add_column(column, justify="left" if column in ("model", "method", "beside") else "right")
    kept = True
    for name, row in result["gradients"].items():
        cells = str(row["edges"]), str(row["pairs"]), f"{row['seconds']:.1f}", str(LIMITS[name])
        table.add_row(name, "EAP-IG, inputs", *cells, f"{row['peak_gb']:.1f} GB at most")
        kept &= row["seconds"] <= LIMITS[name] and row["peak_gb"] <= MOST_GB
    if row := result.get("exact"):
        said = f"hooks {row['by_hooks_s']:.0f} s (from {row['sample']}), {row['ratio']:.0f} times"
        cells = str(row["edges"]), str(row["pairs"]), f"{row['seconds']:.1f}", str(EXACT_LIMIT)
        table.add_row("synthetic", "exact", *cells, f"{said}; apart {row['max_diff']:.0e}")
        kept &= row["seconds"] <= EXACT_LIMIT and row["ratio"] >= LEAST_RATIO
    Console(width=120).print(table)
    print("Everything is within its limit." if kept else "Something is over its limit, or too slow beside hooks.")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench-discovery.json"))
    parser.add_argument("--only", choices=("gradients", "exact"))
    parser.add_argument("--model", choices=tuple(LIMITS), action="append", help="for gradients; both unless given")
    parser.add_argument("--sample", type=int, default=150, help="how many edges the loop over hooks cuts")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    assert len(Graph(12, 12, 12)) == 32491
    result = {"machine": {"processor": platform.machine(), "threads": 2, "torch": torch.__version__}, "gradients": {}}
    for name in (given.model or LIMITS) if given.only != "exact" else ():
        try:
            result["gradients"][name] = gradients(load_model(name))
        except ModelError as error:
            print(f"{name} was not measured: {error}")
    if given.only != "gradients":
        result["exact"] = exact(load_model("synthetic"), given.sample)
    result["within_limits"] = shown(result)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
