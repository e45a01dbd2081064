"""Checks of chapter 6, activation patching: heads, one by one and by an estimate. Those
of the stream are in `stream_patching`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.stream_patching import (
    ALL,
    cached,
    pair_of,
    patch_stream,
    patched_run,
    sweep_stream,
    three_models,
)
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

__all__ = ["patch_stream", "sweep_stream", "patch_attention", "estimate_heads"]


# --- 6.3 ---


def _head(
    model, tokens, cache, layer, index, site="z"
) -> Float[Tensor, "batch pos vocab"]:
    name = f"blocks.{layer}.attn.hook_{site}"
    return patched_run(model, tokens, name, cache[name], index)


def _whole_cache(model, tokens: Tensor) -> ActivationCache:
    with torch.no_grad():
        _, cache = model.run_with_cache(
            tokens, names_filter=lambda name: name.split(".")[-1] in _KEPT
        )
    return cache


_KEPT = ("hook_z", "hook_v", "hook_q", "hook_pattern")


def _head_cases(seed: int) -> list[tuple]:
    """Model, the clean and the corrupted prompts, a layer that is not
    the last, and a head."""
    small, other, raw = three_models()
    chosen = (
        (small, 4, "abc", 1, 2),
        (raw, 3, "random_names", 0, 1),
        (other, 1, "abc", 0, 2),
        (small, 2, "abc", 1, 1),
    )
    return [
        (model, *pair_of(model, n, seed + n, kind), layer, head)
        for model, n, kind, layer, head in chosen
    ]


def _patch_attention(
    model,
    data: IOIDataset,
    tokens: Int[Tensor, "batch pos"],
    cache: ActivationCache,
    layer: int,
    head: int,
) -> Float[Tensor, "batch"]:
    rows = torch.arange(len(data))
    return _attention(model, data, tokens, cache, layer, (rows, head, data.pos["END"]))


def _attention(
    model, data, tokens, cache, layer, index, site="pattern"
) -> Float[Tensor, "batch"]:
    return logit_diff(
        _head(model, tokens, cache, layer, index, site), data, per_prompt=True
    )


def _patch_attention_cases(seed: int) -> list[tuple]:
    return [
        (model, clean, corrupted.tokens, _whole_cache(model, clean.tokens), layer, head)
        for model, clean, corrupted, layer, head in _head_cases(seed)
    ]


patch_attention = Exercise(
    number="6.3",
    title="One row of attention",
    solution=_patch_attention,
    cases=_patch_attention_cases,
    misconceptions=(
        Misconception(
            "source and destination exchanged",
            "A column is patched: what is paid to END, by later positions. A row says "
            "where END looks: the pattern is [batch, head, destination, source].",
            lambda model, data, tokens, cache, layer, head: _attention(
                model,
                data,
                tokens,
                cache,
                layer,
                (torch.arange(len(data)), head, ALL, data.pos["END"]),
            ),
        ),
        Misconception(
            "all destinations patched",
            "The head's whole pattern is patched. Only the row of END was asked for.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (ALL, head)
            ),
        ),
        Misconception(
            "padding taken for END",
            "The last row is patched, which is padding in all but the longest "
            "prompts. END is in `data.pos`.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (ALL, head, -1)
            ),
        ),
        Misconception(
            "END off by one",
            "The row before END is patched. The positions in `data.pos` count from 0 "
            "and count BOS: take nothing off.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model,
                data,
                tokens,
                cache,
                layer,
                (torch.arange(len(data)), head, data.pos["END"] - 1),
            ),
        ),
        Misconception(
            "all heads patched",
            "The row of END is patched in every head of the layer. One head was "
            "asked for.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model,
                data,
                tokens,
                cache,
                layer,
                (torch.arange(len(data)), ALL, data.pos["END"]),
            ),
        ),
        Misconception(
            "END of every prompt in every prompt",
            "Each prompt is patched at the ENDs of all prompts. Pair them: row i of "
            "the batch with END of prompt i.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (ALL, head, data.pos["END"])
            ),
        ),
        Misconception(
            "output for the attention",
            "The head's output at END is patched, and with it what it moves. Only "
            "where it looks was asked for.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model,
                data,
                tokens,
                cache,
                layer,
                (torch.arange(len(data)), data.pos["END"], head),
                "z",
            ),
        ),
    ),
)


# --- 6.5 ---


def _estimate_heads(
    model, clean: IOIDataset, corrupted: IOIDataset, layer: int
) -> Float[Tensor, "head"]:
    new, old = (_z(model, data, layer) for data in (clean, corrupted))
    return ((new - old) * _gradient(model, corrupted, clean, layer)).sum(dim=(0, 1, 3))


def _z(model, data: IOIDataset, layer: int) -> Float[Tensor, "batch pos head d_head"]:
    name = f"blocks.{layer}.attn.hook_z"
    return cached(model, data.tokens, name)[name]


def _gradient(
    model, run: IOIDataset, answers: IOIDataset, layer: int, measure=logit_diff
) -> Tensor:
    """The gradient of the mean logit difference with respect to a
    layer's z in one run."""
    kept = []

    def watch(z, hook):
        kept.append(z.detach().requires_grad_())
        return kept[0]

    with torch.enable_grad():
        logits = model.run_with_hooks(
            run.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", watch)]
        )
        (gradient,) = torch.autograd.grad(measure(logits, answers), kept[0])
    return gradient


def _estimate_heads_cases(seed: int) -> list[tuple]:
    small, other, raw = three_models()
    return [
        (small, *pair_of(small, 4, seed, "abc"), 1),
        (raw, *pair_of(raw, 3, seed + 1, "swap_subject"), 0),
        (other, *pair_of(other, 1, seed + 2, "random_names"), 0),
        (small, *pair_of(small, 5, seed + 3, "swap_names"), 2),
    ]


def _per_position(model, clean, corrupted, layer):
    change = (_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(
        model, corrupted, clean, layer
    )
    return change.sum(dim=-1).mean(dim=(0, 1))


def _at_end(model, clean, corrupted, layer):
    change = (_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(
        model, corrupted, clean, layer
    )
    return change[torch.arange(len(clean)), clean.pos["END"]].sum(dim=(0, 2))


estimate_heads = Exercise(
    number="6.5",
    title="The gradient's estimate",
    solution=_estimate_heads,
    cases=_estimate_heads_cases,
    misconceptions=(
        Misconception(
            "difference reversed",
            "The sizes are right and the signs are opposite: the activation goes from "
            "its corrupted to its clean value.",
            lambda model, clean, corrupted, layer: (
                -_estimate_heads(model, clean, corrupted, layer)
            ),
        ),
        Misconception(
            "gradient of the clean run",
            "The gradient is taken in the clean run. The corrupted run is the one "
            "that the patch would change.",
            lambda model, clean, corrupted, layer: (
                (_z(model, clean, layer) - _z(model, corrupted, layer))
                * _gradient(model, clean, clean, layer)
            ).sum(dim=(0, 1, 3)),
        ),
        Misconception(
            "activation for its change",
            "The gradient is multiplied by the clean activation itself. What counts "
            "is by how much the patch changes it.",
            lambda model, clean, corrupted, layer: (
                _z(model, clean, layer) * _gradient(model, corrupted, clean, layer)
            ).sum(dim=(0, 1, 3)),
        ),
        Misconception(
            "answers of the corrupted prompts",
            "The gradient is that of the corrupted prompts' answers. The measure "
            "stays that of the clean ones.",
            lambda model, clean, corrupted, layer: (
                (_z(model, clean, layer) - _z(model, corrupted, layer))
                * _gradient(model, corrupted, corrupted, layer)
            ).sum(dim=(0, 1, 3)),
        ),
        Misconception(
            "sum over prompts for the mean",
            "This is the change of the sum over prompts; asked for is that of the "
            "mean. The gradient of a mean contains the division already, that of a "
            "sum does not.",
            lambda model, clean, corrupted, layer: (
                len(clean) * _estimate_heads(model, clean, corrupted, layer)
            ),
        ),
        Misconception(
            "mean over positions",
            "The products are averaged over prompts and positions. The gradient of the "
            "mean contains the division by the number of prompts, and over positions "
            "the changes add up: sum both.",
            _per_position,
        ),
        Misconception(
            "END only",
            "Only what happens at END is counted. The patch is at all positions.",
            _at_end,
        ),
        Misconception(
            "absolute values",
            "The products are added without their signs. Changes for and against the "
            "answer cancel in a patch.",
            lambda model, clean, corrupted, layer: (
                (
                    (_z(model, clean, layer) - _z(model, corrupted, layer))
                    * _gradient(model, corrupted, clean, layer)
                )
                .abs()
                .sum(dim=(0, 1, 3))
            ),
        ),
    ),
)
