"""How fast the patching engine is: beside TransformerLens' sweeps on GPT-2 small's
shape, and on SmolLM2: `make bench`.

Random weights in GPT-2 small's shape, and SmolLM2-135M's own weights; 16 pairs of 15
tokens that differ at one position, float32, 2 threads. Both sides compute the same
numbers in the same process, one after the other; `max_diff` is their largest difference
in logits. The floor is the time that the head sweep's multiply-adds take at the rate
measured for one product of that size. On SmolLM2 the reference is a loop over runs with
hooks, timed on every ninth patch (the table says of how many), and the time is scaled.
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from transformer_lens import patching as theirs
from transformers import GPT2Config, GPT2LMHeadModel

from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.metrics import logit_diff
from ioi_course.models import ModelError, load_model, wrap_model
from ioi_course.patching import sweep
from ioi_course.paths import direct_paths, path_patch
from ioi_course.prompts import IOIDataset

SENDER = (5, 5)


@dataclass
class Row:
    """One comparison."""

    reference_s: float  # for all patches
    ours_s: float
    ratio: float
    max_diff: float  # in logits, over the patches that the reference computed
    patches: int
    # how many of them the reference was timed on; the time is scaled to all
    reference_patches: int


def build():
    """A model with random weights in GPT-2 small's shape."""
    torch.manual_seed(0)
    hf_model = GPT2LMHeadModel(GPT2Config()).eval()
    return wrap_model(
        hf_model, build_tokenizer(), "random weights in GPT-2 small's shape"
    )


def pairs(model):
    """The clean and the corrupted prompts."""
    demo = IOIDataset.demo(model)
    clean = IOIDataset.from_prompts(
        model, [*demo, *demo.counterfactual("random_names")]
    )
    corrupted = clean.counterfactual("swap_subject")
    assert (
        clean.tokens.shape == (16, 15)
        and ((clean.tokens != corrupted.tokens).sum(dim=1) == 1).all()
    )
    return clean, corrupted


def timed(work: Callable, repeats: int = 1):
    """The result and the least time of so many runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return result, min(times)


def row(
    ours: Callable,
    reference: Callable,
    reference_patches: int | None = None,
    pick=lambda values: values,
) -> Row:
    """Time both; `pick` takes from our result the patches that
    the reference computed."""
    # first calls are slower on either side; the reference has thousands of calls
    ours()
    mine, ours_s = timed(ours, repeats=2)
    expected, seconds = timed(reference)
    patches, count = mine.numel(), reference_patches or mine.numel()
    seconds *= patches / count
    return Row(
        seconds,
        ours_s,
        seconds / ours_s,
        (pick(mine) - expected).abs().max().item(),
        patches,
        count,
    )


def mean(result) -> torch.Tensor:
    return result.per_prompt.mean(dim=-1)


def by_hooks(model, clean, corrupted, senders, merged=False):
    """Path patching to the logits by the paper's four passes,
    one sender after the other.

    Passes one and two keep every head's output in both runs, once for all senders.
    Three holds all heads and notes the stream at the end, four runs the prompts with
    that stream. With `merged` pass three is read at once, without four.
    """
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    caches = [
        model.run_with_cache(data.tokens, names_filter=names)[1]
        for data in (clean, corrupted)
    ]

    end, seen = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", {}

    def note(resid, hook):
        seen["end"] = resid.clone()

    def deliver(resid, hook):
        resid[:] = seen["end"]
        return resid

    def patched(layer, head):
        def freeze(z, hook):
            z = caches[1][hook.name].clone()
            if hook.layer() == layer:
                z[:, :, head] = caches[0][hook.name][:, :, head]
            return z

        logits = model.run_with_hooks(
            corrupted.tokens,
            fwd_hooks=[*((name, freeze) for name in names), (end, note)],
        )
        if not merged:
            logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(end, deliver)])
        return logit_diff(logits, corrupted)

    return torch.stack([patched(*sender) for sender in senders])


def measure(model, clean, corrupted) -> dict[str, Row]:
    """Every comparison."""
    caches = [model.run_with_cache(data.tokens)[1] for data in (clean, corrupted)]
    metric = partial(logit_diff, dataset=clean)
    given = (model, corrupted.tokens, caches[0], metric)
    quick = dict(progress=False)
    rows = {
        "head_sweep": row(
            lambda: mean(sweep(model, clean, corrupted, "z", **quick)),
            lambda: theirs.get_act_patch_attn_head_out_all_pos(*given),
        ),
        "resid_pre": row(
            lambda: mean(sweep(model, clean, corrupted, "resid_pre", **quick)),
            lambda: theirs.get_act_patch_resid_pre(*given),
        ),
    }
    n_layers, n_heads, n_pos = (
        model.cfg.n_layers,
        model.cfg.n_heads,
        clean.tokens.shape[1],
    )
    every = [
        (layer, pos, head)
        for layer in range(n_layers)
        for pos in range(n_pos)
        for head in range(n_heads)
    ]
    some = every[::31]  # 70 of 2160, spread over layers, positions and heads
    index = pd.DataFrame(some, columns=["layer", "pos", "head"])
    layers, positions, heads = map(list, zip(*some, strict=True))
    rows["z_by_pos"] = row(
        lambda: mean(sweep(model, clean, corrupted, "z", by_pos=True, **quick)),
        lambda: theirs.generic_activation_patch(
            *given,
            patch_setter=theirs.layer_pos_head_vector_patch_setter,
            activation_name="z",
            index_df=index,
        ),
        len(some),
        lambda values: values[layers, heads, positions],
    )
    rows["pattern"] = row(
        lambda: mean(sweep(model, clean, corrupted, "pattern", **quick)),
        lambda: theirs.get_act_patch_attn_head_pattern_all_pos(*given),
    )
    later = slice(SENDER[0] + 1, None)
    # paths are measured by the answers of the prompts that are run
    answer = partial(logit_diff, dataset=corrupted)
    rows["direct_path"] = row(
        lambda: mean(direct_paths(model, corrupted, clean, SENDER, "q", **quick))[
            later
        ],
        lambda: theirs.get_act_patch_direct_path(
            *given[:3], caches[1], answer, *SENDER, "q", verbose=False
        )[later],
    )
    senders = list(product(range(n_layers), range(n_heads)))
    rows["path_to_logits"] = row(
        lambda: mean(path_patch(model, corrupted, clean, "logits", **quick)),
        lambda: by_hooks(model, clean, corrupted, senders).view(n_layers, n_heads),
    )
    rows["path_to_logits_merged"] = row(
        lambda: mean(path_patch(model, corrupted, clean, "logits", **quick)),
        lambda: by_hooks(model, clean, corrupted, senders[::3], merged=True),
        len(senders[::3]),
        lambda values: values.flatten()[::3],
    )
    return rows


def looped(model, clean, corrupted, site: str, places: list[tuple]) -> torch.Tensor:
    """The mean logit difference of the corrupted prompts with a part of an activation
    from the clean ones, per run."""
    names = sorted({f"blocks.{layer}.{site}" for layer, *_ in places})
    _, cache = model.run_with_cache(clean.tokens, names_filter=names)

    def patched(layer, index):
        def put(value, hook):
            value[index] = cache[name][index]
            return value

        name = f"blocks.{layer}.{site}"
        return logit_diff(
            model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, put)]), clean
        )

    return torch.stack([patched(*place) for place in places])


def measure_smollm2(model, clean, corrupted) -> dict[str, Row]:
    """The three sweeps of which everything else is made, on a real model."""
    n_layers, n_heads, n_pos, quick = (
        model.cfg.n_layers,
        model.cfg.n_heads,
        clean.tokens.shape[1],
        {"progress": False},
    )
    everything = slice(None)
    heads = list(product(range(n_layers), range(n_heads)))[::9]
    spots = list(product(range(n_layers), range(n_pos)))[::9]
    by_head = [(layer, (everything, everything, head)) for layer, head in heads]
    by_pos = [(layer, (everything, pos)) for layer, pos in spots]
    return {
        "head_sweep": row(
            lambda: mean(sweep(model, clean, corrupted, "z", **quick)),
            lambda: looped(model, clean, corrupted, "attn.hook_z", by_head),
            len(heads),
            lambda values: values.flatten()[::9],
        ),
        "resid_pre": row(
            lambda: mean(sweep(model, clean, corrupted, "resid_pre", **quick)),
            lambda: looped(model, clean, corrupted, "hook_resid_pre", by_pos),
            len(spots),
            lambda values: values.flatten()[::9],
        ),
        "path_to_logits": row(
            lambda: mean(path_patch(model, corrupted, clean, "logits", **quick)),
            lambda: by_hooks(model, clean, corrupted, heads),
            len(heads),
            lambda values: values.flatten()[::9],
        ),
    }


def head_sweep_floor(model, clean, corrupted) -> tuple[float, float]:
    """Seconds for the multiply-adds of the head sweep at the best measured rate, and
    that rate in 1e9 per second.

    From a patch on, per row: its own layer's MLP, and all of each later layer. In the
    last layer the rows before END need keys and values only. Attention between rows,
    normalisation and the MLP's function are not counted.
    """
    cfg, layers = model.cfg, model.cfg.n_layers
    d, heads, kv = (
        cfg.d_model,
        cfg.n_heads * cfg.d_head,
        model.W_K.shape[1] * cfg.d_head,
    )
    mlp = (2 if model.blocks[0].mlp.W_gate is None else 3) * d * cfg.d_mlp
    first = int((clean.tokens != corrupted.tokens).int().argmax(dim=1)[0])
    ends = len(clean) * cfg.n_heads
    rows = ends * (clean.tokens.shape[1] - first)
    whole, products = d * heads + 2 * d * kv + heads * d + mlp, 0
    for layer in range(layers):
        if layer == layers - 1:
            products += ends * mlp
        else:
            products += rows * (
                mlp + whole * (layers - 2 - layer) + 2 * d * kv
            ) + ends * (whole - 2 * d * kv)
    a, b = torch.randn(rows, d), torch.randn(d, 4 * d)
    a @ b
    _, seconds = timed(lambda: [a @ b for _ in range(20)], repeats=5)
    rate = 20 * rows * d * 4 * d / seconds
    return products / rate, rate / 1e9


def shown(title: str, rows: dict[str, Row], floor: tuple[float, float]) -> dict:
    """Print one model's table; its numbers for the file."""
    table = Table(title=f"{title}, 16 pairs of 15 tokens, 2 threads")
    for column in (
        "sweep",
        "patches",
        "reference, s",
        "ours, s",
        "ratio",
        "largest difference",
    ):
        table.add_column(column, justify="left" if column == "sweep" else "right")
    for name, one in rows.items():
        scaled = (
            ""
            if one.patches == one.reference_patches
            else f" (from {one.reference_patches})"
        )
        cells = (
            f"{one.reference_s:.1f}{scaled}",
            f"{one.ours_s:.2f}",
            f"{one.ratio:.1f}",
            f"{one.max_diff:.1e}",
        )
        table.add_row(name, str(one.patches), *cells)
    Console(width=100).print(table)
    seconds, rate = floor
    times, peak = (
        rows["head_sweep"].ours_s / seconds,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )
    speed = f"{rate:.0f} billion multiply-adds per second"
    print(
        f"head_sweep: the floor is {seconds:.2f} s at {speed}; ours is {times:.2f} "
        "times that"
    )
    print(f"The process took {peak:.1f} GB at most so far, weights included")
    result = {name: asdict(one) for name, one in rows.items()}
    return result | {
        "floor": {"head_sweep_s": seconds, "rate_1e9": rate, "times_floor": times},
        "peak_gb": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument(
        "--only", choices=("gpt2", "smollm2"), help="one of the two models"
    )
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    result = {
        "machine": {
            "processor": platform.machine(),
            "threads": 2,
            "torch": torch.__version__,
        }
    }
    if given.only != "gpt2":
        try:
            model = load_model("smollm2")
            prompts = pairs(model)
            rows = measure_smollm2(model, *prompts)
            result["smollm2"] = shown(
                "Patching on SmolLM2-135M", rows, head_sweep_floor(model, *prompts)
            )
        except ModelError as error:
            print(f"SmolLM2 was not measured: {error}")
    if given.only != "smollm2":
        model = build()
        prompts = pairs(model)
        rows = measure(model, *prompts)
        result |= shown(
            "Patching on GPT-2 small's shape", rows, head_sweep_floor(model, *prompts)
        )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
