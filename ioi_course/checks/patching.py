"""Checks of chapter 6, activation patching."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

__all__ = ["patch_stream", "sweep_stream", "patch_attention", "estimate_heads"]

_ALL = slice(None)


def _models() -> tuple:
    return random_model(0), random_model(1, n_layers=2, n_heads=3, d_model=24), random_model(2, processing=())


def _pair(model, n: int, seed: int, kind: str) -> tuple[IOIDataset, IOIDataset]:
    """Prompts of different lengths, and their counterfactuals; with one prompt, padding is put behind it."""
    data = random_data(model, n, seed)
    return data, data.counterfactual(kind, seed=seed)


def _cache(model, tokens: Tensor, name: str) -> ActivationCache:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=[name])[1]


def _run(model, tokens: Tensor, name: str, source: Tensor, index: tuple) -> Float[Tensor, "batch pos vocab"]:
    """The logits of a run with a part of one activation from elsewhere."""

    def patch(value, hook):
        value[index] = source[index]
        return value

    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(name, patch)])


# --- 6.1 ---


def _patch_stream(model, clean: IOIDataset, corrupted: IOIDataset, layer: int, pos: int) -> Float[Tensor, "batch"]:
    return _streams(model, clean, corrupted, layer, (_ALL, pos))


def _streams(model, clean, corrupted, layer, index, site="hook_resid_pre", answers=None) -> Float[Tensor, "batch"]:
    name = f"blocks.{layer}.{site}"
    logits = _run(model, corrupted.tokens, name, _cache(model, clean.tokens, name)[name], index)
    return logit_diff(logits, clean if answers is None else answers, per_prompt=True)


def _patch_stream_cases(seed: int) -> list[tuple]:
    small, other, raw = _models()
    return [
        (small, *_pair(small, 5, seed, "abc"), 1, 5),
        (raw, *_pair(raw, 4, seed + 1, "random_names"), 2, 4),
        (other, *_pair(other, 1, seed + 2, "abc"), 1, 6),
        (small, *_pair(small, 4, seed + 3, "swap_names"), 0, 3),
    ]


def _at_the_last_position(model, clean, corrupted, layer, pos):
    name = f"blocks.{layer}.hook_resid_pre"
    logits = _run(model, corrupted.tokens, name, _cache(model, clean.tokens, name)[name], (_ALL, pos))[:, -1]
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
            "The stream is put in at every position, which is the whole clean run from there on. One position was asked for.",
            lambda model, clean, corrupted, layer, pos: _streams(model, clean, corrupted, layer, (_ALL, _ALL)),
        ),
        Misconception(
            "the wrong run patched",
            "Here the clean run is patched. Clean activations go into the corrupted run: look at which tokens each run gets.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, corrupted, clean, layer, (_ALL, pos), answers=clean
            ),
        ),
        Misconception(
            "patched from the wrong run",
            "This is the corrupted run with nothing changed: its own activation was put into it, or the hook returned what "
            "it got. The activation comes from the clean run.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, corrupted, corrupted, layer, (_ALL, pos), answers=clean
            ),
        ),
        Misconception(
            "answers of the corrupted prompts",
            "The logit difference is read with the corrupted prompts' answers. The measure stays the same in all runs: "
            "that of the clean answers.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, clean, corrupted, layer, (_ALL, pos), answers=corrupted
            ),
        ),
        Misconception(
            "after the layer",
            "The stream is patched after this layer, or before its MLP. `hook_resid_pre` is before the layer's attention.",
            lambda model, clean, corrupted, layer, pos: _streams(
                model, clean, corrupted, layer, (_ALL, pos), "hook_resid_post"
            ),
        ),
        Misconception(
            "position off by one",
            "The position before is patched. Positions count from 0 and BOS has one: take nothing off.",
            lambda model, clean, corrupted, layer, pos: _streams(model, clean, corrupted, layer, (_ALL, pos - 1)),
        ),
        Misconception(
            "padding taken for END",
            "The logits are read at the last position, which is padding in all but the longest prompts. `logit_diff` finds "
            "each prompt's END.",
            _at_the_last_position,
        ),
        Misconception(
            "mean over prompts",
            "One number for each prompt was asked for: `per_prompt=True`.",
            lambda model, clean, corrupted, layer, pos: _patch_stream(model, clean, corrupted, layer, pos).mean(),
        ),
    ),
)


# --- 6.2 ---

Table = Float[Tensor, "layer place"]


def _runs(model, clean: IOIDataset, corrupted: IOIDataset, positions: list[int], answers=None, site="resid_pre"):
    """Logit differences of all patched runs [layer, place, batch], and of the clean and the corrupted run [batch]."""
    answers = clean if answers is None else answers
    patched = [
        [_streams(model, clean, corrupted, layer, (_ALL, pos), f"hook_{site}", answers) for pos in positions]
        for layer in range(model.cfg.n_layers)
    ]
    with torch.no_grad():
        both = [logit_diff(model(data.tokens), answers, per_prompt=True) for data in (clean, corrupted)]
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


def _apart(model, n: int, seed: int, kind: str, sign: int) -> tuple[IOIDataset, IOIDataset]:
    """A pair whose clean mean lies well above (or below) the corrupted one: the scale hangs on no small number."""
    for k in range(40):
        clean, corrupted = _pair(model, n, seed + 100 * k, kind)
        with torch.no_grad():
            means = [logit_diff(model(data.tokens), clean).item() for data in (clean, corrupted)]
        if sign * (means[0] - means[1]) > 0.3:
            break
    return clean, corrupted


def _sweep_stream_cases(seed: int) -> list[tuple]:
    small, other, raw = _models()
    chosen = ((small, 5, "abc", 1, [4, 6]), (other, 4, "random_names", -1, [5, 3, 7]), (raw, 3, "swap_subject", 1, [9]))
    return [(model, *_apart(model, n, seed + n, kind, sign), at) for model, n, kind, sign, at in chosen]


def _mean_of_ratios(patched, clean, corrupted):
    ratios = (patched - corrupted) / (clean - corrupted)
    return ratios.mean(dim=-1), _error(ratios)


def _scaled(patched, clean, corrupted, error):
    value, _ = _value_and_error(patched, clean, corrupted)
    return value, error / (clean.mean() - corrupted.mean()).abs()


def _reversed(patched, clean, corrupted):
    return _value_and_error(patched, corrupted, clean)[0], _value_and_error(patched, clean, corrupted)[1]


def _relative(patched, clean, corrupted):
    return (patched - corrupted).mean(dim=-1) / clean.mean(), _error(patched - corrupted) / clean.mean().abs()


def _signed(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched - corrupted).mean(dim=-1) / gap, _error(patched - corrupted) / gap


def _then(score):
    """The sweep as somebody writes it who makes this of its runs."""
    return lambda model, clean, corrupted, positions: score(*_runs(model, clean, corrupted, positions))


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
            "Place i of the table is patched at position i. It belongs to `positions[i]`.",
            lambda model, clean, corrupted, positions: _sweep_stream(
                model, clean, corrupted, list(range(len(positions)))
            ),
        ),
        Misconception(
            "after the layer",
            "Row i is patched after layer i. `hook_resid_pre` is before the layer's attention.",
            lambda model, clean, corrupted, positions: _value_and_error(
                *_runs(model, clean, corrupted, positions, site="resid_post")
            ),
        ),
        Misconception(
            "answers of the corrupted prompts",
            "The logit differences are read with the corrupted prompts' answers. The measure stays the same in all runs: "
            "that of the clean answers.",
            lambda model, clean, corrupted, positions: _value_and_error(
                *_runs(model, clean, corrupted, positions, answers=corrupted)
            ),
        ),
        Misconception(
            "the wrong run patched",
            "Here corrupted vectors go into the clean run. Asked for is the other direction: which run do the tokens of the "
            "patched run belong to?",
            lambda model, clean, corrupted, positions: _into_clean(model, clean, corrupted, positions),
        ),
        _wrong_sweep(
            "axes exchanged",
            "Layers run across and places down. A row of the table is a layer.",
            lambda *runs: tuple(x.T for x in _value_and_error(*runs)),
        ),
        _wrong_sweep(
            "direction reversed",
            "0 and 1 are exchanged: the corrupted run should be 0, and the clean one 1.",
            _reversed,
        ),
        _wrong_sweep(
            "divided by the clean run",
            "The change is right, but it is divided by the clean logit difference. The scale goes from corrupted to clean.",
            _relative,
        ),
        _wrong_sweep(
            "mean of ratios",
            "Each prompt is put on a scale of its own. Prompts with a small difference then rule: take means first.",
            _mean_of_ratios,
        ),
        _wrong_sweep(
            "error not paired",
            "The error is that of the patched logit differences, which vary between prompts with or without a patch. It is the "
            "change that counts.",
            lambda patched, clean, corrupted: _scaled(patched, clean, corrupted, _error(patched)),
        ),
        _wrong_sweep(
            "deviation taken for the error",
            "This is the standard deviation over prompts. The error of a mean is smaller: divide by the root of their number.",
            lambda patched, clean, corrupted: _scaled(patched, clean, corrupted, (patched - corrupted).std(dim=-1)),
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
            "The standard deviation divides by n; over a sample of prompts it is n − 1 (`std` without `correction=0`).",
            lambda patched, clean, corrupted: _scaled(
                patched, clean, corrupted, (patched - corrupted).std(dim=-1, correction=0) / len(clean) ** 0.5
            ),
        ),
        _wrong_sweep(
            "a negative error",
            "Where clean lies below corrupted, the errors come out negative. The size of the scale counts, not its sign.",
            _signed,
        ),
    ),
)


def _into_clean(model, clean, corrupted, positions):
    patched, other, mine = _runs(model, corrupted, clean, positions, answers=clean)
    gap = mine.mean() - other.mean()
    return (patched.mean(dim=-1) - other.mean()) / gap, _error(patched - mine) / gap.abs()


# --- 6.3 ---


def _head(model, tokens, cache, layer, index, site="z") -> Float[Tensor, "batch pos vocab"]:
    name = f"blocks.{layer}.attn.hook_{site}"
    return _run(model, tokens, name, cache[name], index)


def _whole_cache(model, tokens: Tensor) -> ActivationCache:
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.split(".")[-1] in _KEPT)
    return cache


_KEPT = ("hook_z", "hook_v", "hook_q", "hook_pattern")


def _head_cases(seed: int) -> list[tuple]:
    """Model, the clean and the corrupted prompts, a layer that is not the last, and a head."""
    small, other, raw = _models()
    chosen = ((small, 4, "abc", 1, 2), (raw, 3, "random_names", 0, 1), (other, 1, "abc", 0, 2), (small, 2, "abc", 1, 1))
    return [(model, *_pair(model, n, seed + n, kind), layer, head) for model, n, kind, layer, head in chosen]


def _patch_attention(
    model, data: IOIDataset, tokens: Int[Tensor, "batch pos"], cache: ActivationCache, layer: int, head: int
) -> Float[Tensor, "batch"]:
    rows = torch.arange(len(data))
    return _attention(model, data, tokens, cache, layer, (rows, head, data.pos["END"]))


def _attention(model, data, tokens, cache, layer, index, site="pattern") -> Float[Tensor, "batch"]:
    return logit_diff(_head(model, tokens, cache, layer, index, site), data, per_prompt=True)


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
            "A column is patched: what is paid to END, by later positions. A row says where END looks: the pattern is "
            "[batch, head, destination, source].",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (torch.arange(len(data)), head, _ALL, data.pos["END"])
            ),
        ),
        Misconception(
            "all destinations patched",
            "The head's whole pattern is patched. Only the row of END was asked for.",
            lambda model, data, tokens, cache, layer, head: _attention(model, data, tokens, cache, layer, (_ALL, head)),
        ),
        Misconception(
            "padding taken for END",
            "The last row is patched, which is padding in all but the longest prompts. END is in `data.pos`.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (_ALL, head, -1)
            ),
        ),
        Misconception(
            "END off by one",
            "The row before END is patched. The positions in `data.pos` count from 0 and count BOS: take nothing off.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (torch.arange(len(data)), head, data.pos["END"] - 1)
            ),
        ),
        Misconception(
            "all heads patched",
            "The row of END is patched in every head of the layer. One head was asked for.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (torch.arange(len(data)), _ALL, data.pos["END"])
            ),
        ),
        Misconception(
            "END of every prompt in every prompt",
            "Each prompt is patched at the ENDs of all prompts. Pair them: row i of the batch with END of prompt i.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (_ALL, head, data.pos["END"])
            ),
        ),
        Misconception(
            "output for the attention",
            "The head's output at END is patched, and with it what it moves. Only where it looks was asked for.",
            lambda model, data, tokens, cache, layer, head: _attention(
                model, data, tokens, cache, layer, (torch.arange(len(data)), data.pos["END"], head), "z"
            ),
        ),
    ),
)


# --- 6.5 ---


def _estimate_heads(model, clean: IOIDataset, corrupted: IOIDataset, layer: int) -> Float[Tensor, "head"]:
    new, old = (_z(model, data, layer) for data in (clean, corrupted))
    return ((new - old) * _gradient(model, corrupted, clean, layer)).sum(dim=(0, 1, 3))


def _z(model, data: IOIDataset, layer: int) -> Float[Tensor, "batch pos head d_head"]:
    name = f"blocks.{layer}.attn.hook_z"
    return _cache(model, data.tokens, name)[name]


def _gradient(model, run: IOIDataset, answers: IOIDataset, layer: int, measure=logit_diff) -> Tensor:
    """The gradient of the mean logit difference with respect to a layer's z in one run."""
    kept = []

    def watch(z, hook):
        kept.append(z.detach().requires_grad_())
        return kept[0]

    with torch.enable_grad():
        logits = model.run_with_hooks(run.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", watch)])
        (gradient,) = torch.autograd.grad(measure(logits, answers), kept[0])
    return gradient


def _estimate_heads_cases(seed: int) -> list[tuple]:
    small, other, raw = _models()
    return [
        (small, *_pair(small, 4, seed, "abc"), 1),
        (raw, *_pair(raw, 3, seed + 1, "swap_subject"), 0),
        (other, *_pair(other, 1, seed + 2, "random_names"), 0),
        (small, *_pair(small, 5, seed + 3, "swap_names"), 2),
    ]


def _per_position(model, clean, corrupted, layer):
    change = (_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(model, corrupted, clean, layer)
    return change.sum(dim=-1).mean(dim=(0, 1))


def _at_end(model, clean, corrupted, layer):
    change = (_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(model, corrupted, clean, layer)
    return change[torch.arange(len(clean)), clean.pos["END"]].sum(dim=(0, 2))


estimate_heads = Exercise(
    number="6.5",
    title="The gradient's estimate",
    solution=_estimate_heads,
    cases=_estimate_heads_cases,
    misconceptions=(
        Misconception(
            "difference reversed",
            "The sizes are right and the signs are opposite: the activation goes from its corrupted to its clean value.",
            lambda model, clean, corrupted, layer: -_estimate_heads(model, clean, corrupted, layer),
        ),
        Misconception(
            "gradient of the clean run",
            "The gradient is taken in the clean run. The corrupted run is the one that the patch would change.",
            lambda model, clean, corrupted, layer: (
                (_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(model, clean, clean, layer)
            ).sum(dim=(0, 1, 3)),
        ),
        Misconception(
            "activation for its change",
            "The gradient is multiplied by the clean activation itself. What counts is by how much the patch changes it.",
            lambda model, clean, corrupted, layer: (
                _z(model, clean, layer) * _gradient(model, corrupted, clean, layer)
            ).sum(dim=(0, 1, 3)),
        ),
        Misconception(
            "answers of the corrupted prompts",
            "The gradient is that of the corrupted prompts' answers. The measure stays that of the clean ones.",
            lambda model, clean, corrupted, layer: (
                (_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(model, corrupted, corrupted, layer)
            ).sum(dim=(0, 1, 3)),
        ),
        Misconception(
            "sum over prompts for the mean",
            "This is the change of the sum over prompts; asked for is that of the mean. The gradient of a mean contains the "
            "division already, that of a sum does not.",
            lambda model, clean, corrupted, layer: len(clean) * _estimate_heads(model, clean, corrupted, layer),
        ),
        Misconception(
            "mean over positions",
            "The products are averaged over prompts and positions. The gradient of the mean contains the division by the "
            "number of prompts, and over positions the changes add up: sum both.",
            _per_position,
        ),
        Misconception(
            "END only",
            "Only what happens at END is counted. The patch is at all positions.",
            _at_end,
        ),
        Misconception(
            "absolute values",
            "The products are added without their signs. Changes for and against the answer cancel in a patch.",
            lambda model, clean, corrupted, layer: (
                ((_z(model, clean, layer) - _z(model, corrupted, layer)) * _gradient(model, corrupted, clean, layer))
                .abs()
                .sum(dim=(0, 1, 3))
            ),
        ),
    ),
)
