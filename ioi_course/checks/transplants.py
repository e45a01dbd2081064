"""Two checks of chapter 10: what heads wrote, put into the run of another prompt."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

__all__ = ["patch_at_end", "share_by_attention"]


def _rolled(data: IOIDataset) -> IOIDataset:
    """The same prompts in another order, so that lengths differ pairwise and the
    padded width does not."""
    return data[[*range(1, len(data)), 0]]


# --- 10.2 ---


def _cache(
    model, data: IOIDataset, names: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.no_grad():
        logits, cache = model.run_with_cache(data.tokens, names_filter=list(names))
    return logits, dict(cache)


def _run(model, data: IOIDataset, hooks: list) -> Tensor:
    with torch.no_grad():
        return model.run_with_hooks(data.tokens, fwd_hooks=hooks)


def _z(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


def _put(values: Tensor, to: tuple, of: tuple) -> Callable:
    def hook(activation: Tensor, hook) -> Tensor:
        activation = activation.clone()
        activation[to] = values[of]
        return activation

    return hook


def _at(data: IOIDataset, role: str = "END") -> tuple:
    return torch.arange(len(data)), data.pos[role]


def _patches(model, source: IOIDataset, heads: Sequence, to: tuple, of: tuple) -> list:
    """Hooks that put the heads' z from the source run at the places
    `of` to the places `to`."""
    z = _cache(model, source, {_z(layer) for layer, _ in heads})[1]
    return [
        (_z(layer), _put(z[_z(layer)], (*to, head), (*of, head)))
        for layer, head in heads
    ]


def _patched(
    model,
    data: IOIDataset,
    source: IOIDataset,
    heads: Sequence,
    to=None,
    of=None,
    answers=None,
) -> Float[Tensor, "batch"]:
    hooks = _patches(
        model,
        source,
        heads,
        _at(data) if to is None else to,
        _at(source) if of is None else of,
    )
    return logit_diff(
        _run(model, data, hooks), data if answers is None else answers, per_prompt=True
    )


def _patch_at_end(
    model, data: IOIDataset, source: IOIDataset, heads: list
) -> Float[Tensor, "batch"]:
    return _patched(model, data, source, heads)


def _last_head(model, data, source, heads) -> Float[Tensor, "batch"]:
    """As a loop does that makes its hooks with a variable of the loop in them: all of
    them see its last value."""
    return _patched(model, data, source, [(layer, heads[-1][1]) for layer, _ in heads])


def _patch_cases(seed: int) -> list[tuple]:
    small, other = random_model(0), random_model(1, n_layers=2, n_heads=3, d_model=24)
    pairs = [
        (model, random_data(model, n, seed + i))
        for i, (model, n) in enumerate(((small, 5), (other, 4), (small, 1)))
    ]
    heads = [[(0, 1), (1, 3), (1, 0)], [(0, 0), (0, 2)], [(1, 2), (2, 1)]]
    sources = [
        _rolled(pairs[0][1].counterfactual("random_names", seed)),
        _rolled(pairs[1][1].counterfactual("swap_names")),
        pairs[2][1].counterfactual("swap_subject"),
    ]
    return [
        (*pair, source, some)
        for pair, source, some in zip(pairs, sources, heads, strict=True)
    ]


_EVERYWHERE = (slice(None), slice(None))


patch_at_end = Exercise(
    number="10.2",
    title="Outputs from elsewhere",
    solution=_patch_at_end,
    cases=_patch_cases,
    misconceptions=(
        Misconception(
            "one END for both datasets",
            "The source's prompt may be longer or shorter: read its outputs at "
            "its own END.",
            lambda model, data, source, heads: _patched(
                model, data, source, heads, of=_at(data)
            ),
        ),
        Misconception(
            "padding taken for END",
            "The last position is END of the longest prompts only; in the others it "
            "is padding.",
            lambda model, data, source, heads: _patched(
                model, data, source, heads, (slice(None), -1), (slice(None), -1)
            ),
        ),
        Misconception(
            "patched at all positions",
            "Only END is asked for. The other positions do not even mean the same in "
            "the two prompts.",
            lambda model, data, source, heads: _patched(
                model, data, source, heads, _EVERYWHERE, _EVERYWHERE
            ),
        ),
        Misconception(
            "S2 taken for END",
            "S2 is where these heads look. They write at END.",
            lambda model, data, source, heads: _patched(
                model, data, source, heads, _at(data, "S2"), _at(source, "S2")
            ),
        ),
        Misconception(
            "last head in every hook",
            "All your hooks patch the same head: they read the loop's variable when "
            "they run, and by then the loop is over. Bind it when the hook is made "
            "(`head=head`).",
            _last_head,
        ),
        Misconception(
            "datasets exchanged",
            "The outputs come from `source`; the run that is patched, and its "
            "answers, are those of `data`.",
            lambda model, data, source, heads: _patched(model, source, data, heads),
        ),
        Misconception(
            "the source's answers",
            "IO and S are those of the prompt that is run, whatever was put into it.",
            lambda model, data, source, heads: _patched(
                model, data, source, heads, answers=source
            ),
        ),
    ),
)


# --- 10.4 ---


def _pattern(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


def _three_runs(
    model, data, source, heads, later, patterns_of=None, whole=False, z=True
) -> tuple[Tensor, ...]:
    """Logit differences per prompt: unpatched, patched, and patched with attention held
    as in the run on `patterns_of`."""
    names = {_pattern(layer) for layer, _ in later}
    logits, own = _cache(model, data, names)
    held = own if patterns_of is None else _cache(model, patterns_of, names)[1]
    patch = _patches(model, source, heads, _at(data), _at(source))
    places = [
        (layer, (slice(None),) if whole else (slice(None), head))
        for layer, head in later
    ]
    hold = [
        (_pattern(layer), _put(held[_pattern(layer)], place, place))
        for layer, place in places
    ]
    runs = (
        logits,
        _run(model, data, patch),
        _run(model, data, [*(patch if z else []), *hold]),
    )
    return tuple(logit_diff(run, data, per_prompt=True) for run in runs)


def _share(base: Tensor, patched: Tensor, held: Tensor) -> Float[Tensor, ""]:
    return 1 - (held - base).mean() / (patched - base).mean()


def _share_by_attention(
    model, data: IOIDataset, source: IOIDataset, heads: list, later: list
) -> Float[Tensor, ""]:
    return _share(*_three_runs(model, data, source, heads, later))


def _mean_of_shares(*case) -> Float[Tensor, ""]:
    base, patched, held = _three_runs(*case)
    return (1 - (held - base) / (patched - base)).mean()


def _from_zero(*case) -> Float[Tensor, ""]:
    _, patched, held = _three_runs(*case)
    return 1 - held.mean() / patched.mean()


def _share_cases(seed: int) -> list[tuple]:
    model = random_model(0)
    first, second = random_data(model, 5, seed), random_data(model, 4, seed + 50)
    return [
        (
            model,
            first,
            _rolled(first.counterfactual("swap_names")),
            [(0, 1), (1, 3)],
            [(2, 0), (2, 2)],
        ),
        (
            model,
            second,
            second.counterfactual("random_names", seed),
            [(0, 0), (0, 2)],
            [(1, 1), (2, 3)],
        ),
        (model, first, _rolled(first), [(1, 0)], [(2, 1)]),
    ]


share_by_attention = Exercise(
    number="10.4",
    title="Attention held",
    solution=_share_by_attention,
    cases=_share_cases,
    misconceptions=(
        Misconception(
            "the share that is left",
            "Held over patched is what is left of the effect. Asked for is what "
            "has gone.",
            lambda *case: 1 - _share_by_attention(*case),
        ),
        Misconception(
            "mean of the prompts' shares",
            "The share is that of the means. A mean of ratios is ruled by the prompts "
            "in which the patch does little.",
            _mean_of_shares,
        ),
        Misconception(
            "effect counted from zero",
            "The effect of a patch is a *change*: subtract the logit difference of "
            "the unpatched run from both.",
            _from_zero,
        ),
        Misconception(
            "attention held as in the source",
            "The patterns to hold are those of the unpatched run on `data`, not those "
            "of the source.",
            lambda model, data, source, heads, later: _share(
                *_three_runs(model, data, source, heads, later, patterns_of=source)
            ),
        ),
        Misconception(
            "patch lost in the third run",
            "In your third run nothing is patched, so all of the effect seems to go: "
            "it needs both kinds of hooks.",
            lambda model, data, source, heads, later: _share(
                *_three_runs(model, data, source, heads, later, z=False)
            ),
        ),
        Misconception(
            "whole layers held",
            "You held every head of these layers. Hold the given heads only.",
            lambda model, data, source, heads, later: _share(
                *_three_runs(model, data, source, heads, later, whole=True)
            ),
        ),
    ),
)
