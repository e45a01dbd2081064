"""Two checks of chapter 6: patches of the stream, and what makes their sweep a
share."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

__all__ = ["patch_stream", "sweep_stream"]


ALL = slice(None)


def three_models() -> tuple:
    return (
        random_model(0),
        random_model(1, n_layers=2, n_heads=3, d_model=24),
        random_model(2, processing=()),
    )


def pair_of(model, n: int, seed: int, kind: str) -> tuple[IOIDataset, IOIDataset]:
    """Prompts of different lengths, and their counterfactuals; with one prompt,
    padding is put behind it."""
    data = random_data(model, n, seed)
    return data, data.counterfactual(kind, seed=seed)


def cached(model, tokens: Tensor, name: str) -> ActivationCache:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=[name])[1]


def patched_run(
    model, tokens: Tensor, name: str, source: Tensor, index: tuple
) -> Float[Tensor, "batch pos vocab"]:
    """The logits of a run with a part of one activation from elsewhere."""

    def patch(value, hook):
        value[index] = source[index]
        return value

    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(name, patch)])


# --- 6.1 ---


def _patch_stream(
    model, clean: IOIDataset, corrupted: IOIDataset, layer: int, pos: int
) -> Float[Tensor, "batch"]:
    return _streams(model, clean, corrupted, layer, (ALL, pos))


def _streams(
    model, clean, corrupted, layer, index, site="hook_resid_pre", answers=None
) -> Float[Tensor, "batch"]:
    name = f"blocks.{layer}.{site}"
    logits = patched_run(
        model, corrupted.tokens, name, cached(model, clean.tokens, name)[name], index
    )
    return logit_diff(logits, clean if answers is None else answers, per_prompt=True)


def _patch_stream_cases(seed: int) -> list[tuple]:
    small, other, raw = three_models()
    return [
        (small, *pair_of(small, 5, seed, "abc"), 1, 5),
        (raw, *pair_of(raw, 4, seed + 1, "random_names"), 2, 4),
        (other, *pair_of(other, 1, seed + 2, "abc"), 1, 6),
        (small, *pair_of(small, 4, seed + 3, "swap_names"), 0, 3),
    ]


def _at_the_last_position(model, clean, corrupted, layer, pos):
    name = f"blocks.{layer}.hook_resid_pre"
    logits = patched_run(
        model,
        corrupted.tokens,
        name,
        cached(model, clean.tokens, name)[name],
        (ALL, pos),
    )[:, -1]
    io, s = clean.answers.unbind(dim=1)
    rows = torch.arange(len(clean))
    return logits[rows, io] - logits[rows, s]


patch_stream = Exercise(
    number="6.1",
    title="One vector",
    solution=_patch_stream,
    cases=_patch_stream_cases,
    misconceptions=(
        Misconception(
            "all positions patched",
            "The stream is put in at every position, which is the whole clean run "
            "from there on. One position was asked for.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, clean, corrupted, layer, (ALL, ALL)
            ),
        ),
        Misconception(
            "the wrong run patched",
            "Here the clean run is patched. Clean activations go into the corrupted "
            "run: look at which tokens each run gets.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, corrupted, clean, layer, (ALL, pos), answers=clean
            ),
        ),
        Misconception(
            "patched from the wrong run",
            "This is the corrupted run with nothing changed: its own activation was "
            "put into it, or the hook returned what it got. The activation comes from "
            "the clean run.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, corrupted, corrupted, layer, (ALL, pos), answers=clean
            ),
        ),
        Misconception(
            "answers of the corrupted prompts",
            "The logit difference is read with the corrupted prompts' answers. The "
            "measure stays the same in all runs: that of the clean answers.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, clean, corrupted, layer, (ALL, pos), answers=corrupted
            ),
        ),
        Misconception(
            "after the layer",
            "The stream is patched after this layer, or before its MLP. "
            "`hook_resid_pre` is before the layer's attention.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, clean, corrupted, layer, (ALL, pos), "hook_resid_post"
            ),
        ),
        Misconception(
            "position off by one",
            "The position before is patched. Positions count from 0 and BOS has one: "
            "take nothing off.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, clean, corrupted, layer, (ALL, pos - 1)
            ),
        ),
        Misconception(
            "padding taken for END",
            "The logits are read at the last position, which is padding in all but the "
            "longest prompts. `logit_diff` finds each prompt's END.",
            _at_the_last_position,
        ),
        Misconception(
            "mean over prompts",
            "One number for each prompt was asked for: `per_prompt=True`.",
            lambda model, clean, corrupted, layer, pos: _patch_stream(
                model, clean, corrupted, layer, pos
            ).mean(),
        ),
    ),
)


# --- 6.2 ---

Table = Float[Tensor, "layer place"]


def _runs(
    model,
    clean: IOIDataset,
    corrupted: IOIDataset,
    positions: list[int],
    answers=None,
    site="resid_pre",
):
    """Logit differences of all patched runs [layer, place, batch], and of the clean and
    the corrupted run [batch]."""
    answers = clean if answers is None else answers
    patched = [
        [
            _streams(
                model, clean, corrupted, layer, (ALL, pos), f"hook_{site}", answers
            )
            for pos in positions
        ]
        for layer in range(model.cfg.n_layers)
    ]
    with torch.no_grad():
        both = [
            logit_diff(model(data.tokens), answers, per_prompt=True)
            for data in (clean, corrupted)
        ]
    return torch.stack([torch.stack(row) for row in patched]), *both


def _sweep_stream(
    model, clean: IOIDataset, corrupted: IOIDataset, positions: list[int]
) -> tuple[Float[Tensor, "layer place"], Float[Tensor, "layer place"]]:
    return _value_and_error(*_runs(model, clean, corrupted, positions))


def _value_and_error(patched, clean, corrupted) -> tuple[Table, Table]:
    change, gap = patched - corrupted, clean.mean() - corrupted.mean()
    return change.mean(dim=-1) / gap, _error(change) / gap.abs()


def _error(values: Float[Tensor, "... batch"]) -> Float[Tensor, "..."]:
    return values.std(dim=-1) / values.shape[-1] ** 0.5


def _apart(
    model, n: int, seed: int, kind: str, sign: int
) -> tuple[IOIDataset, IOIDataset]:
    """A pair whose clean mean lies well above (or below) the corrupted one: the scale
    hangs on no small number."""
    for k in range(40):
        clean, corrupted = pair_of(model, n, seed + 100 * k, kind)
        with torch.no_grad():
            means = [
                logit_diff(model(data.tokens), clean).item()
                for data in (clean, corrupted)
            ]
        if sign * (means[0] - means[1]) > 0.3:
            break
    return clean, corrupted


def _sweep_stream_cases(seed: int) -> list[tuple]:
    small, other, raw = three_models()
    chosen = (
        (small, 5, "abc", 1, [4, 6]),
        (other, 4, "random_names", -1, [5, 3, 7]),
        (raw, 3, "swap_subject", 1, [9]),
    )
    return [
        (model, *_apart(model, n, seed + n, kind, sign), at)
        for model, n, kind, sign, at in chosen
    ]


def _mean_of_ratios(patched, clean, corrupted):
    ratios = (patched - corrupted) / (clean - corrupted)
    return ratios.mean(dim=-1), _error(ratios)


def _scaled(patched, clean, corrupted, error):
    value, _ = _value_and_error(patched, clean, corrupted)
    return value, error / (clean.mean() - corrupted.mean()).abs()


def _reversed(patched, clean, corrupted):
    return _value_and_error(patched, corrupted, clean)[0], _value_and_error(
        patched, clean, corrupted
    )[1]


def _relative(patched, clean, corrupted):
    return (patched - corrupted).mean(dim=-1) / clean.mean(), _error(
        patched - corrupted
    ) / clean.mean().abs()


def _signed(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched - corrupted).mean(dim=-1) / gap, _error(patched - corrupted) / gap


def _then(score):
    """The sweep as somebody writes it who makes this of its runs."""
    return lambda model, clean, corrupted, positions: score(
        *_runs(model, clean, corrupted, positions)
    )


def _wrong_sweep(name: str, advice: str, score) -> Misconception:
    return Misconception(name, advice, _then(score))


sweep_stream = Exercise(
    number="6.2",
    title="The sweep",
    solution=_sweep_stream,
    cases=_sweep_stream_cases,
    misconceptions=(
        Misconception(
            "index for the position",
            "Place i of the table is patched at position i. It belongs to "
            "`positions[i]`.",
            lambda model, clean, corrupted, positions: _sweep_stream(
                model, clean, corrupted, list(range(len(positions)))
            ),
        ),
        Misconception(
            "after the layer",
            "Row i is patched after layer i. `hook_resid_pre` is before the layer's "
            "attention.",
            lambda model, clean, corrupted, positions: _value_and_error(
                *_runs(model, clean, corrupted, positions, site="resid_post")
            ),
        ),
        Misconception(
            "answers of the corrupted prompts",
            "The logit differences are read with the corrupted prompts' answers. The "
            "measure stays the same in all runs: that of the clean answers.",
            lambda model, clean, corrupted, positions: _value_and_error(
                *_runs(model, clean, corrupted, positions, answers=corrupted)
            ),
        ),
        Misconception(
            "the wrong run patched",
            "Here corrupted vectors go into the clean run. Asked for is the other "
            "direction: which run do the tokens of the patched run belong to?",
            lambda model, clean, corrupted, positions: _into_clean(
                model, clean, corrupted, positions
            ),
        ),
        _wrong_sweep(
            "axes exchanged",
            "Layers run across and places down. A row of the table is a layer.",
            lambda *runs: tuple(x.T for x in _value_and_error(*runs)),
        ),
        _wrong_sweep(
            "direction reversed",
            "0 and 1 are exchanged: the corrupted run should be 0, and the clean "
            "one 1.",
            _reversed,
        ),
        _wrong_sweep(
            "divided by the clean run",
            "The change is right, but it is divided by the clean logit difference. "
            "The scale goes from corrupted to clean.",
            _relative,
        ),
        _wrong_sweep(
            "mean of ratios",
            "Each prompt is put on a scale of its own. Prompts with a small "
            "difference then rule: take means first.",
            _mean_of_ratios,
        ),
        _wrong_sweep(
            "error not paired",
            "The error is that of the patched logit differences, which vary between "
            "prompts with or without a patch. It is the change that counts.",
            lambda patched, clean, corrupted: _scaled(
                patched, clean, corrupted, _error(patched)
            ),
        ),
        _wrong_sweep(
            "deviation taken for the error",
            "This is the standard deviation over prompts. The error of a mean is "
            "smaller: divide by the root of their number.",
            lambda patched, clean, corrupted: _scaled(
                patched, clean, corrupted, (patched - corrupted).std(dim=-1)
            ),
        ),
        _wrong_sweep(
            "error not on the scale",
            "The values are on the scale, but the errors are still in logits.",
            lambda patched, clean, corrupted: (
                _value_and_error(patched, clean, corrupted)[0],
                _error(patched - corrupted),
            ),
        ),
        _wrong_sweep(
            "error without Bessel's correction",
            "The standard deviation divides by n; over a sample of prompts it is n − "
            "1 (`std` without `correction=0`).",
            lambda patched, clean, corrupted: _scaled(
                patched,
                clean,
                corrupted,
                (patched - corrupted).std(dim=-1, correction=0) / len(clean) ** 0.5,
            ),
        ),
        _wrong_sweep(
            "a negative error",
            "Where clean lies below corrupted, the errors come out negative. The size "
            "of the scale counts, not its sign.",
            _signed,
        ),
    ),
)


def _into_clean(model, clean, corrupted, positions):
    patched, other, mine = _runs(model, corrupted, clean, positions, answers=clean)
    gap = mine.mean() - other.mean()
    return (patched.mean(dim=-1) - other.mean()) / gap, _error(
        patched - mine
    ) / gap.abs()
