"""The answer without a class of heads, two, or any head: for the circuit's page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import pad
from jaxtyping import Float
from torch import Tensor

from ioi_course.circuit import knock_out, nodes
from ioi_course.engine import attend, engine_of, run, spread, unsupported
from ioi_course.means import Means, reference_means
from ioi_course.plots import head_name
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit, Head

MORE, SEED = 32, 1  # prompts beside those of the page
AND = " + "  # between two classes in the key of a pair


def switched_off(
    model,  # a TransformerBridge
    circuit: Circuit,
    data: IOIDataset,  # the page's prompts
    means: Means,  # `reference_means(model, data)`
    more: int | None = None,  # further prompts; None: `MORE`
) -> dict:
    """For each class, pair of classes and head: logit differences without it.

    The course's knock-out: heads put out their mean over ABC prompts of the same
    template and order. Heads of the circuit do so where they act, other heads at every
    position; everything after them is computed anew. Effects are changes of the mean
    logit difference in logits, with the standard error over prompts. Where the engine
    does not serve the model, heads outside the circuit are left out.
    """
    others = IOIDataset(model, MORE if more is None else more, SEED)
    every = IOIDataset.from_prompts(model, [*data.records, *others.records])
    means = _joined(means, reference_means(model, others), every.tokens.shape[1])
    places = nodes(circuit)
    sets = {role: nodes(circuit, heads) for role, heads in circuit.roles.items()}
    pairs = list(itertools.combinations(sets, 2))
    sets |= {AND.join(pair): sets[pair[0]] | sets[pair[1]] for pair in pairs}
    sets |= {head_name(*head): {head: at} for head, at in places.items()}
    before, *after = knock_out(
        model, every, [{}, *sets.values()], means=means, progress=False
    )
    found = dict(zip(sets, after, strict=True))
    if not unsupported(model):
        layers, count = range(model.cfg.n_layers), range(model.cfg.n_heads)
        outside = [
            head for head in itertools.product(layers, count) if head not in places
        ]
        found |= without_each(model, every, outside, means)
    entries = {key: _entry(value, before, len(data)) for key, value in found.items()}
    for a, b in pairs:
        beyond = found[AND.join((a, b))] + before - found[a] - found[b]
        entries[AND.join((a, b))]["beyond"] = _mean_and_error(beyond)
    size = {"layers": model.cfg.n_layers, "heads": model.cfg.n_heads}
    return {
        "n": len(every),
        "before": _plain(before.mean()),
        **size,
        "entries": entries,
    }


def _joined(first: Means, second: Means, width: int) -> Means:
    """The means of two datasets as those of both together, with so many positions."""
    pairs = zip(first, second, strict=True)
    return Means(
        torch.cat([pad(z, (0, 0, 0, 0, 0, width - z.shape[1])) for z in pair])
        for pair in pairs
    )


def without_each(
    model,  # a TransformerBridge that the engine serves
    data: IOIDataset,
    heads: Sequence[Head],
    means: Sequence[Float[Tensor, "batch pos head d_head"]],  # from `reference_means`
) -> dict[str, Float[Tensor, batch]]:
    """Each prompt's logit difference if one of these heads puts out its mean everywhere."""
    engine = engine_of(model)
    device = engine.embed[0].device
    at, rows = (torch.arange(n, device=device) for n in reversed(data.tokens.shape))
    answers, end, found = data.answers.to(device), data.pos["END"].to(device), {}
    with torch.no_grad():
        base = run(engine, data.tokens.to(device))
        for layer, head in heads:
            block, x = engine.blocks[layer], base.resid_pre[layer]
            change = means[layer][:, :, head].to(x) - base.z[layer][:, head]
            own = block.out[0].unflatten(0, (engine.n_heads, -1))[head]
            x = _after(block, x, base.attn_out[layer] + change @ own)
            for later in engine.blocks[layer + 1 :]:
                parts = later.heads(later.norm(x, "ln1"), at)
                q, k, v = (part.transpose(1, 2) for part in parts)
                z = (attend(q, k) @ spread(v, later.n_heads, dim=-3)).transpose(1, 2)
                x = _after(later, x, z.flatten(2) @ later.out[0] + later.out[1])
            after = engine.logit_diff(x[rows, end], answers)
            found[head_name(layer, head)] = after.cpu()
    return found


def _after(
    block,
    x: Float[Tensor, "batch pos d_model"],
    attention: Float[Tensor, "batch pos d_model"],
) -> Tensor:
    """The stream after a layer, given what its attention adds."""
    after = x + attention
    return after + block.mlp((x if block.parallel else after).flatten(0, 1)).view_as(x)


def _plain(value: Tensor | float) -> float:
    return round(float(value), 3) + 0.0


def _mean_and_error(change: Float[Tensor, batch]) -> list[float]:
    """A mean and its standard error over prompts."""
    return [_plain(change.mean()), _plain(change.std() / len(change) ** 0.5)]


def _entry(
    after: Float[Tensor, batch], before: Float[Tensor, batch], shown: int
) -> dict:
    """What the page has of a set: mean change, error, and the prompts that it shows."""
    effect, error = _mean_and_error(after - before)
    return {
        "effect": effect,
        "error": error,
        "after": [_plain(value) for value in after[:shown]],
    }


def rows_of(circuit: Circuit, found: Mapping) -> list[dict]:
    """Classes and pairs as rows of a table: what is off, and what comes of it."""
    sizes = {role: len(heads) for role, heads in circuit.roles.items()}
    entries = found["entries"]
    rows = [{"what": (role,), "heads": sizes[role], **entries[role]} for role in sizes]
    for pair in itertools.combinations(sizes, 2):
        each = [entries[role]["effect"] for role in pair]
        rows.append(
            {"what": pair, "heads": sum(sizes[role] for role in pair), "sum": sum(each)}
            | entries[AND.join(pair)]
        )
    return rows
