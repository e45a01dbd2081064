"""The answer without a class of heads, two, or any head: for the circuit's page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch.nn.functional import pad
from jaxtyping import Float
from torch import Tensor

from ioi_course.circuit import knock_out, nodes
from ioi_course.means import Means, reference_means
from ioi_course.plots import head_name
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit

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
    template and order, those of the circuit where they act, other heads at END;
    everything after them is computed anew. Effects are changes of the mean logit
    difference in logits, with the standard error over prompts.
    """
    others = IOIDataset(model, MORE if more is None else more, SEED)
    every = IOIDataset.from_prompts(model, [*data.records, *others.records])
    means = _joined(means, reference_means(model, others), every.tokens.shape[1])
    places = nodes(circuit)
    sets = {role: nodes(circuit, heads) for role, heads in circuit.roles.items()}
    pairs = list(itertools.combinations(sets, 2))
    sets |= {AND.join(pair): sets[pair[0]] | sets[pair[1]] for pair in pairs}
    layers, count = range(model.cfg.n_layers), range(model.cfg.n_heads)
    for head in itertools.product(layers, count):
        sets[head_name(*head)] = {head: places.get(head, "END")}
    every_set = [{}, *sets.values()]
    before, *after = knock_out(model, every, every_set, means=means, progress=False)
    found = dict(zip(sets, after, strict=True))
    entries = {key: _entry(value, before, len(data)) for key, value in found.items()}
    for a, b in pairs:
        beyond = found[AND.join((a, b))] + before - found[a] - found[b]
        entries[AND.join((a, b))]["beyond"] = _mean_and_error(beyond)
    found = {"n": len(every), "before": _plain(before.mean()), "entries": entries}
    return found | {"layers": model.cfg.n_layers, "heads": model.cfg.n_heads}


def _joined(first: Means, second: Means, width: int) -> Means:
    """The means of two datasets as those of both together, with so many positions."""
    pairs = zip(first, second, strict=True)
    return Means(
        torch.cat([pad(z, (0, 0, 0, 0, 0, width - z.shape[1])) for z in pair])
        for pair in pairs
    )


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
