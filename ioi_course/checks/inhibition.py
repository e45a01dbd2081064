"""Checks of chapter 10: what the S-inhibition heads carry."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset
from ioi_course.templates import IOIPrompt

__all__ = ["signal_levels", "patch_at_end", "two_weights", "share_by_attention", "other_subjects"]


def _level(value: Tensor, of_s: Tensor, of_io: Tensor) -> Float[Tensor, "batch"]:
    return (value == of_s).double() - (value == of_io).double()


def _rolled(data: IOIDataset) -> IOIDataset:
    """The same prompts in another order, so that lengths differ pairwise and the padded width does not."""
    return data[[*range(1, len(data)), 0]]


# --- 10.1 ---


def _position(data: IOIDataset, source: IOIDataset) -> Float[Tensor, "batch"]:
    return _level(source.pos["S1"], data.pos["S1"], data.pos["IO"])


def _token(data: IOIDataset, source: IOIDataset, answer: int = 1) -> Float[Tensor, "batch"]:
    return _level(source.answers[:, answer], data.answers[:, 1], data.answers[:, 0])


def _signal_levels(data: IOIDataset, source: IOIDataset) -> Float[Tensor, "batch 2"]:
    return torch.stack([_position(data, source), _token(data, source)], dim=1)


def _signal_cases(seed: int) -> list[tuple]:
    model = random_model(0)
    data = random_data(model, 6, seed)
    kinds = ("swap_names", "swap_subject", "random_names")
    mixed = [data.counterfactual(kind, seed)[i] for i, kind in enumerate((*kinds, *kinds))]
    cases = [(data, data.counterfactual(kind, seed)) for kind in kinds]
    return [
        *cases,
        (data, IOIDataset.from_prompts(model, mixed)),
        (data, random_data(model, 6, seed + 1)),
        (data, data),
    ]


signal_levels = Exercise(
    number="10.1",
    title="What a source says",
    solution=_signal_levels,
    cases=_signal_cases,
    misconceptions=(
        Misconception(
            "columns exchanged",
            "The first column is the position, the second the token.",
            lambda data, source: _signal_levels(data, source).flip(1),
        ),
        Misconception(
            "IO followed instead of S",
            "Both signals are about the name that is repeated. You followed the other one of the source.",
            lambda data, source: torch.stack(
                [_level(source.pos["IO"], data.pos["S1"], data.pos["IO"]), _token(data, source, 0)], dim=1
            ),
        ),
        Misconception(
            "IO's token taken for S's",
            "`answers` are IO, then S. The token signal is about the name that is repeated.",
            lambda data, source: torch.stack([_position(data, source), _token(data, source, 0)], dim=1),
        ),
        Misconception(
            "random counted as inverted",
            "What is not kept need not be inverted: -1 only if the source points at IO, 0 if it points at neither name.",
            lambda data, source: 2 * (_signal_levels(data, source) == 1).double() - 1,
        ),
        Misconception(
            "inverted counted as random",
            "0 is for a source that points at neither name; if it points at IO, that is -1.",
            lambda data, source: _signal_levels(data, source).clamp(min=0),
        ),
        Misconception(
            "S2 taken for S1",
            "S2 is at the same place in all of these prompts. The signal is where the name stood *first*.",
            lambda data, source: torch.stack(
                [_level(source.pos["S2"], data.pos["S2"], data.pos["IO"]), _token(data, source)], dim=1
            ),
        ),
    ),
)


# --- 10.2 ---


def _cache(model, data: IOIDataset, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
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
    """Hooks that put the heads' z from the source run at the places `of` to the places `to`."""
    z = _cache(model, source, {_z(layer) for layer, _ in heads})[1]
    return [(_z(layer), _put(z[_z(layer)], (*to, head), (*of, head))) for layer, head in heads]


def _patched(
    model, data: IOIDataset, source: IOIDataset, heads: Sequence, to=None, of=None, answers=None
) -> Float[Tensor, "batch"]:
    hooks = _patches(model, source, heads, _at(data) if to is None else to, _at(source) if of is None else of)
    return logit_diff(_run(model, data, hooks), data if answers is None else answers, per_prompt=True)


def _patch_at_end(model, data: IOIDataset, source: IOIDataset, heads: list) -> Float[Tensor, "batch"]:
    return _patched(model, data, source, heads)


def _last_head(model, data, source, heads) -> Float[Tensor, "batch"]:
    """As a loop does that makes its hooks with a variable of the loop in them: all of them see its last value."""
    return _patched(model, data, source, [(layer, heads[-1][1]) for layer, _ in heads])


def _patch_cases(seed: int) -> list[tuple]:
    small, other = random_model(0), random_model(1, n_layers=2, n_heads=3, d_model=24)
    pairs = [
        (model, random_data(model, n, seed + i)) for i, (model, n) in enumerate(((small, 5), (other, 4), (small, 1)))
    ]
    heads = [[(0, 1), (1, 3), (1, 0)], [(0, 0), (0, 2)], [(1, 2), (2, 1)]]
    sources = [
        _rolled(pairs[0][1].counterfactual("random_names", seed)),
        _rolled(pairs[1][1].counterfactual("swap_names")),
        pairs[2][1].counterfactual("swap_subject"),
    ]
    return [(*pair, source, some) for pair, source, some in zip(pairs, sources, heads, strict=True)]


_EVERYWHERE = (slice(None), slice(None))

patch_at_end = Exercise(
    number="10.2",
    title="Outputs from elsewhere",
    solution=_patch_at_end,
    cases=_patch_cases,
    misconceptions=(
        Misconception(
            "one END for both datasets",
            "The source's prompt may be longer or shorter: read its outputs at its own END.",
            lambda model, data, source, heads: _patched(model, data, source, heads, of=_at(data)),
        ),
        Misconception(
            "padding taken for END",
            "The last position is END of the longest prompts only; in the others it is padding.",
            lambda model, data, source, heads: _patched(
                model, data, source, heads, (slice(None), -1), (slice(None), -1)
            ),
        ),
        Misconception(
            "patched at all positions",
            "Only END is asked for. The other positions do not even mean the same in the two prompts.",
            lambda model, data, source, heads: _patched(model, data, source, heads, _EVERYWHERE, _EVERYWHERE),
        ),
        Misconception(
            "S2 taken for END",
            "S2 is where these heads look. They write at END.",
            lambda model, data, source, heads: _patched(model, data, source, heads, _at(data, "S2"), _at(source, "S2")),
        ),
        Misconception(
            "last head in every hook",
            "All your hooks patch the same head: they read the loop's variable when they run, and by then the loop is "
            "over. Bind it when the hook is made (`head=head`).",
            _last_head,
        ),
        Misconception(
            "datasets exchanged",
            "The outputs come from `source`; the run that is patched, and its answers, are those of `data`.",
            lambda model, data, source, heads: _patched(model, source, data, heads),
        ),
        Misconception(
            "the source's answers",
            "IO and S are those of the prompt that is run, whatever was put into it.",
            lambda model, data, source, heads: _patched(model, data, source, heads, answers=source),
        ),
    ),
)


# --- 10.3 ---


_LEVEL = {"kept": 1.0, "random": 0.0, "inverted": -1.0}


def _design(positions: Sequence[str], tokens: Sequence[str], level: dict = _LEVEL) -> Float[Tensor, "cell 2"]:
    return torch.tensor([[level[p], level[t]] for p in positions for t in tokens], dtype=torch.float64)


def _solve(design: Tensor, cells: Tensor) -> Tensor:
    return torch.linalg.pinv(design) @ cells.flatten().double()


def _two_weights(cells: Float[Tensor, "position token"], positions: list, tokens: list) -> Float[Tensor, "2"]:
    return _solve(_design(positions, tokens), cells)


def _with_constant(cells, positions, tokens) -> Float[Tensor, "2"]:
    design = _design(positions, tokens)
    return _solve(torch.cat([design, torch.ones(len(design), 1).double()], dim=1), cells)[:2]


def _by_place(cells, positions, tokens) -> Float[Tensor, "2"]:
    """As if the levels ran from kept to inverted in every table."""
    rows, columns = (torch.linspace(1, -1, len(levels)).double() for levels in (positions, tokens))
    return _solve(torch.cartesian_prod(rows, columns), cells)


def _all_cells(cells, positions, tokens) -> Float[Tensor, "2"]:
    return _design(positions, tokens).T @ cells.flatten().double() / cells.numel()


def _each_alone(cells, positions, tokens) -> Float[Tensor, "2"]:
    """One regression for each signal, as if the other were not there."""
    design = _design(positions, tokens)
    return design.T @ cells.flatten().double() / design.pow(2).sum(0)


def _weight_cases(seed: int) -> list[tuple]:
    rng = torch.Generator().manual_seed(seed)
    shapes = [  # in all but the first the levels of neither signal add up to 0, so the two are not independent
        (["kept", "inverted"], ["kept", "random", "inverted"]),
        (["kept", "random"], ["random", "kept"]),
        (["random", "inverted"], ["kept", "random"]),
        (["random", "kept"], ["inverted", "random"]),
        (["kept", "random"], ["random", "inverted"]),
    ]
    return [(3 * torch.randn(len(p), len(t), generator=rng, dtype=torch.float64), p, t) for p, t in shapes]


two_weights = Exercise(
    number="10.3",
    title="Two weights",
    solution=_two_weights,
    cases=_weight_cases,
    misconceptions=(
        Misconception(
            "a constant in the sum",
            "With a third term the weights are others, unless the levels are balanced. Asked for is a sum of two.",
            _with_constant,
        ),
        Misconception(
            "each signal fitted alone",
            "Two fits of one signal each give the weights of the sum only where the levels of one of them add up to 0. "
            "Elsewhere each takes the credit for a part of the other: fit both at once.",
            _each_alone,
        ),
        Misconception(
            "weights exchanged",
            "Position first, then token.",
            lambda cells, positions, tokens: _two_weights(cells, positions, tokens).flip(0),
        ),
        Misconception(
            "inverted taken for 0",
            "Kept, random and inverted are 1, 0 and -1: an inverted signal says the opposite, it does not say nothing.",
            lambda cells, positions, tokens: _solve(
                _design(positions, tokens, {"kept": 1.0, "random": 0.0, "inverted": 0.0}), cells
            ),
        ),
        Misconception(
            "levels taken by their place",
            "Look the levels up by their words: the first row is not always `kept`, nor the last `inverted`.",
            _by_place,
        ),
        Misconception(
            "divided by all cells",
            "A cell in which a signal is 0 says nothing about its weight, and must not count among those to divide by.",
            _all_cells,
        ),
        Misconception(
            "cells read by columns",
            "The cells are [position, token]: when you flatten them, tokens run fastest, and so must your design.",
            lambda cells, positions, tokens: _solve(_design(positions, tokens), cells.T),
        ),
    ),
)


# --- 10.4 ---


def _pattern(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


def _three_runs(model, data, source, heads, later, patterns_of=None, whole=False, z=True) -> tuple[Tensor, ...]:
    """Logit differences per prompt: unpatched, patched, and patched with attention held as in the run on `patterns_of`."""
    names = {_pattern(layer) for layer, _ in later}
    logits, own = _cache(model, data, names)
    held = own if patterns_of is None else _cache(model, patterns_of, names)[1]
    patch = _patches(model, source, heads, _at(data), _at(source))
    places = [(layer, (slice(None),) if whole else (slice(None), head)) for layer, head in later]
    hold = [(_pattern(layer), _put(held[_pattern(layer)], place, place)) for layer, place in places]
    runs = logits, _run(model, data, patch), _run(model, data, [*(patch if z else []), *hold])
    return tuple(logit_diff(run, data, per_prompt=True) for run in runs)


def _share(base: Tensor, patched: Tensor, held: Tensor) -> Float[Tensor, ""]:
    return 1 - (held - base).mean() / (patched - base).mean()


def _share_by_attention(model, data: IOIDataset, source: IOIDataset, heads: list, later: list) -> Float[Tensor, ""]:
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
        (model, first, _rolled(first.counterfactual("swap_names")), [(0, 1), (1, 3)], [(2, 0), (2, 2)]),
        (model, second, second.counterfactual("random_names", seed), [(0, 0), (0, 2)], [(1, 1), (2, 3)]),
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
            "Held over patched is what is left of the effect. Asked for is what has gone.",
            lambda *case: 1 - _share_by_attention(*case),
        ),
        Misconception(
            "mean of the prompts' shares",
            "The share is that of the means. A mean of ratios is ruled by the prompts in which the patch does little.",
            _mean_of_shares,
        ),
        Misconception(
            "effect counted from zero",
            "The effect of a patch is a *change*: subtract the logit difference of the unpatched run from both.",
            _from_zero,
        ),
        Misconception(
            "attention held as in the source",
            "The patterns to hold are those of the unpatched run on `data`, not those of the source.",
            lambda model, data, source, heads, later: _share(
                *_three_runs(model, data, source, heads, later, patterns_of=source)
            ),
        ),
        Misconception(
            "patch lost in the third run",
            "In your third run nothing is patched, so all of the effect seems to go: it needs both kinds of hooks.",
            lambda model, data, source, heads, later: _share(*_three_runs(model, data, source, heads, later, z=False)),
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


# --- 10.5 ---


def _other_subjects(data: IOIDataset, names: list[str]) -> list[IOIPrompt]:
    return [replace(record, S=name) for record, name in zip(data, names, strict=True)]


def _changed(change: Callable[[IOIPrompt, str], dict]) -> Callable:
    def answer(data: IOIDataset, names: list[str]) -> list[IOIPrompt]:
        return [replace(record, **change(record, name)) for record, name in zip(data, names, strict=True)]

    return answer


def _subject_cases(seed: int) -> list[tuple]:
    model = random_model(0)
    cases = []
    for i, n in enumerate((4, 1, 5)):
        data = random_data(model, n, seed + i)
        used = {name for record in data for name in record.names}
        cases.append((data, [name for name in data.names if name not in used][:n]))
    return cases


other_subjects = Exercise(
    number="10.5",
    title="Change S alone",
    solution=_other_subjects,
    cases=_subject_cases,
    misconceptions=(
        Misconception(
            "IO replaced",
            "You replaced the name that is mentioned once. The subject is the one that is repeated.",
            _changed(lambda record, name: {"IO": name}),
        ),
        Misconception(
            "second mention only",
            "With `third` the new name stands only at S2, and no name is repeated any more: that is an ABC prompt.",
            _changed(lambda record, name: {"third": name}),
        ),
        Misconception(
            "order turned round",
            "The order must stay, or the position changes with the token.",
            _changed(lambda record, name: {"S": name, "order": "BABA" if record.order == "ABBA" else "ABBA"}),
        ),
        Misconception(
            "old S made IO",
            "IO is to stay as it is; in your prompts the old subject is IO.",
            _changed(lambda record, name: {"IO": record.S, "S": name}),
        ),
        Misconception(
            "one name for all",
            "Each prompt has a new name of its own, in the order of the list.",
            lambda data, names: _other_subjects(data, names[:1] * len(names)),
        ),
        Misconception(
            "texts instead of prompts",
            "Return the records themselves, not their `text`: a dataset is made from records.",
            lambda data, names: [record.text for record in _other_subjects(data, names)],
        ),
    ),
)
