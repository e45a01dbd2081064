"""What an autograder's tests ask with: models and prompts that both processes make for
themselves, and named functions."""

# A test hands a model, prompts, a cache, a circuit or a function to an answer. The
# answer runs in another process, so what crosses is a recipe: a name and plain data
# (`ioi_course.grading.wire`), from which the other side makes its own copy.

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import astuple
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from ioi_course.bridge import model_name
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.checks.core import random_model
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit
from ioi_course.templates import IOIPrompt

Head = tuple[int, int]
RANDOM = re.compile(r"random weights, seed (\d+)")
PROMPTS = 5000  # the most that an answer may return


@cache
def synthetic() -> TransformerBridge:
    """The synthetic model, made once per process."""
    return load_model("synthetic")


# another one, which the server makes for the cells of a submission
SPARE: list[TransformerBridge] = []


SMALL = {3: 8, 4: 4}  # layers of small models -> how many of them the server makes


def small_model(seed: int, n_layers: int = 3) -> TransformerBridge:
    """One of a few small models with random weights, which both processes have from the
    start: making one takes long.

    Which one depends on the seed. A test draws prompts as well, or
    it would have few cases.
    """
    return random_model(seed % SMALL[n_layers], n_layers)


def small_data(model: TransformerBridge, n: int, seed: int) -> IOIDataset:
    """IOI prompts in which each role, END among them, stands at more than one
    position (but for n = 1).

    With all prompts alike, who takes the last column for END would be right. They are
    those of the first seed, from this one on, that gives such prompts.
    """
    data = IOIDataset(model, n, seed=seed)
    told_apart = n == 1 or all(
        len(set(where.tolist())) > 1 for where in data.pos.values()
    )
    return data if told_apart else small_data(model, n, seed + 1)


@cache
def tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer as it is built, or as a model has it, which adds BOS by itself."""
    return synthetic().tokenizer if bos else build_tokenizer()


_KEPT: dict[str, Any] = {}


def once(name: str, compute: Callable[[], Any]) -> Any:
    """What `compute` returns, computed once per process: for what takes a test seconds
    and is the same for everybody.

    A test asks for it before it looks at the answer; then our grader
    computes it once for a class.
    """
    if name not in _KEPT:
        _KEPT[name] = compute()
    return _KEPT[name]


# --- functions that tests hand to an answer


def _table(values: dict) -> Callable:
    def look_up(*key):
        return values[key].clone()

    return look_up


def _alive(keep: dict | None, out: dict, every: dict) -> list[Head]:
    return [
        h
        for h, role in (every if keep is None else keep).items()
        if out.get(h) != role and every.get(h) == role
    ]


def _adding_up(every: dict[Head, str], weights: dict[Head, float]) -> Callable:
    def run(keep, out):
        total = sum(weights[head] for head in _alive(keep, out, every))
        return torch.tensor(
            [total - 1.0, total + 1.0, 0.5 * total], dtype=torch.float64
        )

    return run


def _standing_in(mover: Head, backup: Head, against: Head) -> Callable:
    def run(keep, out):
        alive = {head for head, role in keep.items() if out.get(head) != role}
        name = 3.0 if mover in alive else 2.0 * (backup in alive)
        return torch.tensor([name - 0.5, name + 0.5]) - 4.0 * (against in alive)

    return run


def _in_pairs(pool: list[Head], weight: Tensor) -> Callable:
    def run(keep, out):
        alive = torch.tensor(
            [h in keep and out.get(h) != keep[h] for h in pool], dtype=torch.float64
        )
        return torch.einsum("i,ijb,j->b", alive, weight, alive)

    return run


FUNCTIONS = {
    "table": _table,
    "adding up": _adding_up,
    "standing in": _standing_in,
    "in pairs": _in_pairs,
}


class Named:
    """A function of the library above, with what it is made of; both processes have it,
    so its name can be handed over."""

    def __init__(self, name: str, *given: Any):
        self.name, self.given, self._function = name, given, FUNCTIONS[name](*given)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._function(*args, **named)


def table(values: Mapping[tuple, Any]) -> Named:
    """A function that looks its arguments up: `values[arguments]`, as a tensor."""
    return Named(
        "table", {key: torch.as_tensor(value) for key, value in values.items()}
    )


def adding_up(every: dict[Head, str], weights: dict[Head, float]) -> Named:
    """A made-up run(keep, out) in which each node that is alive adds its weight."""
    return Named("adding up", every, weights)


def standing_in(mover: Head, backup: Head, against: Head) -> Named:
    """A made-up run(keep, out) in which a backup speaks only where the mover is out,
    and one head speaks against."""
    return Named("standing in", mover, backup, against)


def in_pairs(pool: list[Head], weight: Tensor) -> Named:
    """A made-up run(keep, out) in which each pair of nodes that are both alive adds
    something of its own."""
    return Named("in pairs", pool, weight)


# --- recipes


def describe(value: Any) -> tuple[str, Any] | None:
    """Name and plain data of what the other process is to make; None for
    what is no such thing."""
    if isinstance(value, TransformerBridge):
        found, cfg = RANDOM.fullmatch(model_name(value)), value.cfg
        if found:
            return "random model", (
                int(found[1]),
                cfg.n_layers,
                cfg.n_heads,
                cfg.d_model,
            )
        return ("model", "synthetic") if model_name(value) == "synthetic" else None
    if isinstance(value, IOIDataset):
        fields = value.bos, tuple(value.names), _adds_bos(value.tokenizer)
        return "prompts", ([astuple(record) for record in value.records], *fields)
    if isinstance(value, ActivationCache):
        return "cache", (dict(value.cache_dict), value.model)
    if isinstance(value, Circuit):
        fields = (
            dict(value.roles),
            dict(value.positions),
            [tuple(edge) for edge in value.edges],
        )
        return "circuit", (
            *fields,
            value.name,
            value.source,
            value.n_layers,
            value.n_heads,
        )
    if isinstance(value, Named):
        return "function", (value.name, value.given)
    if isinstance(value, PreTrainedTokenizerFast) and len(value) == len(tokenizer()):
        return "tokenizer", _adds_bos(value)
    return None


def _adds_bos(value: PreTrainedTokenizerFast) -> bool:
    return len(value.encode("")) > 0


def _prompts(given: tuple) -> IOIDataset:
    records, bos, names, adds_bos = given
    if len(records) > PROMPTS:
        raise ValueError(f"{len(records)} prompts are too many to be handed over.")
    records = [IOIPrompt(*map(_text, record)) for record in records]
    return IOIDataset.from_prompts(
        tokenizer(adds_bos is True), records, bos is True, tuple(map(_text, names))
    )


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 10_000:
        raise ValueError("A prompt is made of texts.")
    return value


def _random(given: tuple) -> TransformerBridge:
    return random_model(*given)


FROM_ANSWERS = {"prompts": _prompts}  # all that the judge makes of what an answer says
FROM_TESTS = {
    **FROM_ANSWERS,
    "model": lambda name: synthetic(),
    "random model": _random,
    "tokenizer": tokenizer,
    "cache": lambda given: ActivationCache(given[0], given[1]),
    "circuit": lambda given: Circuit(*given),
    "function": lambda given: Named(given[0], *given[1]),
}
