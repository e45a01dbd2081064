"""How fast the patching engine is, beside TransformerLens' sweeps, on GPT-2 small's shape: `make bench`.

Random weights, 16 pairs of 15 tokens that differ at one position, float32, 2 threads. Both sides compute the same
numbers in the same process, one after the other; `max_diff` is their largest difference in logits. The floor is the
time that the head sweep's multiply-adds take at the rate measured for one product of that size.
"""

import argparse
import json
import platform
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
from ioi_course.models import wrap_model
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
    reference_patches: int  # how many of them the reference was timed on; the time is scaled to all


def build():
    """The model, and the clean and corrupted prompts."""
    torch.manual_seed(0)
    hf_model = GPT2LMHeadModel(GPT2Config()).eval()
    model = wrap_model(hf_model, build_tokenizer(), "random weights in GPT-2 small's shape")
    demo = IOIDataset.demo(model)
    clean = IOIDataset.from_prompts(model, [*demo, *demo.counterfactual("random_names")])
    corrupted = clean.counterfactual("swap_subject")
    assert clean.tokens.shape == (16, 15) and ((clean.tokens != corrupted.tokens).sum(dim=1) == 1).all()
    return model, clean, corrupted


def timed(work: Callable, repeats: int = 1):
    """The result and the least time of so many runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return result, min(times)


def row(ours: Callable, reference: Callable, reference_patches: int | None = None, pick=lambda values: values) -> Row:
    """Time both; `pick` takes from our result the patches that the reference computed."""
    ours()  # first calls are slower on either side; the reference has thousands of calls
    mine, ours_s = timed(ours, repeats=2)
    expected, seconds = timed(reference)
    patches, count = mine.numel(), reference_patches or mine.numel()
    seconds *= patches / count
    return Row(seconds, ours_s, seconds / ours_s, (pick(mine) - expected).abs().max().item(), patches, count)


def mean(result) -> torch.Tensor:
    return result.per_prompt.mean(dim=-1)


def by_hooks(model, clean, corrupted, senders, merged=False):
    """Path patching to the logits by the paper's four passes, one sender after the other.

    Passes one and two keep every head's output in both runs, once for all senders. Three holds all heads and notes the
    stream at the end, four runs the prompts with that stream. With `merged` pass three is read at once, without four.
    """
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    caches = [model.run_with_cache(data.tokens, names_filter=names)[1] for data in (clean, corrupted)]

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

        logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[*((name, freeze) for name in names), (end, note)])
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
    n_layers, n_heads, n_pos = model.cfg.n_layers, model.cfg.n_heads, clean.tokens.shape[1]
    every = [(layer, pos, head) for layer in range(n_layers) for pos in range(n_pos) for head in range(n_heads)]
    some = every[::31]  # 70 of 2160, spread over layers, positions and heads
    index = pd.DataFrame(some, columns=["layer", "pos", "head"])
    layers, positions, heads = map(list, zip(*some, strict=True))
    rows["z_by_pos"] = row(
        lambda: mean(sweep(model, clean, corrupted, "z", by_pos=True, **quick)),
        lambda: theirs.generic_activation_patch(
            *given, patch_setter=theirs.layer_pos_head_vector_patch_setter, activation_name="z", index_df=index
        ),
        len(some),
        lambda values: values[layers, heads, positions],
    )
    rows["pattern"] = row(
        lambda: mean(sweep(model, clean, corrupted, "pattern", **quick)),
        lambda: theirs.get_act_patch_attn_head_pattern_all_pos(*given),
    )
    later = slice(SENDER[0] + 1, None)
    answer = partial(logit_diff, dataset=corrupted)  # paths are measured by the answers of the prompts that are run
    rows["direct_path"] = row(
        lambda: mean(direct_paths(model, corrupted, clean, SENDER, "q", **quick))[later],
        lambda: theirs.get_act_patch_direct_path(*given[:3], caches[1], answer, *SENDER, "q", verbose=False)[later],
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


def head_sweep_floor(model, clean, corrupted) -> tuple[float, float]:
    """Seconds for the multiply-adds of the head sweep at the best measured rate, and that rate in 1e9 per second.

    From a patch on, per row: 8 d² in its own layer's MLP, 12 d² in each later layer. In the last layer the rows before
    END need keys and values only, 2 d². Attention between rows, LayerNorm and gelu are not counted.
    """
    d, layers, heads = model.cfg.d_model, model.cfg.n_layers, model.cfg.n_heads
    first = int((clean.tokens != corrupted.tokens).int().argmax(dim=1)[0])
    ends = len(clean) * heads
    rows = ends * (clean.tokens.shape[1] - first)
    products = 0
    for layer in range(layers):
        if layer == layers - 1:
            products += ends * 8 * d * d
        else:
            products += rows * (8 + 12 * (layers - 2 - layer) + 2) * d * d + ends * 10 * d * d
    a, b = torch.randn(rows, d), torch.randn(d, 4 * d)
    a @ b
    _, seconds = timed(lambda: [a @ b for _ in range(20)], repeats=5)
    rate = 20 * rows * d * 4 * d / seconds
    return products / rate, rate / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    out = parser.parse_args().out
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    model, clean, corrupted = build()
    floor, rate = head_sweep_floor(model, clean, corrupted)
    rows = measure(model, clean, corrupted)
    table = Table(title="Patching on GPT-2 small's shape, 16 pairs of 15 tokens, 2 threads")
    for column in ("sweep", "patches", "reference, s", "ours, s", "ratio", "largest difference"):
        table.add_column(column, justify="left" if column == "sweep" else "right")
    for name, one in rows.items():
        scaled = "" if one.patches == one.reference_patches else f" (from {one.reference_patches})"
        cells = (f"{one.reference_s:.1f}{scaled}", f"{one.ours_s:.2f}", f"{one.ratio:.1f}", f"{one.max_diff:.1e}")
        table.add_row(name, str(one.patches), *cells)
    Console(width=100).print(table)
    times = rows["head_sweep"].ours_s / floor
    speed = f"{rate:.0f} billion multiply-adds per second"
    print(f"head_sweep: the floor is {floor:.2f} s at {speed}; ours is {times:.2f} times that")
    result = {name: asdict(one) for name, one in rows.items()}
    result["floor"] = {"head_sweep_s": floor, "rate_1e9": rate, "times_floor": times}
    result["machine"] = {"processor": platform.machine(), "threads": 2, "torch": torch.__version__}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {out}")


if __name__ == "__main__":
    main()
