"""The exercises of chapter 7; that of the refuting source is in `refuting`."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.checks.refuting import refuting_source
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

__all__ = [
    "relative_change",
    "count_ways",
    "path_to_logits",
    "path_to_head",
    "refuting_source",
]


def _relative_change(
    patched: Float[Tensor, "sender batch"], unpatched: Float[Tensor, "batch"]
) -> Float[Tensor, "sender"]:
    return (patched.mean(1) - unpatched.mean()) / unpatched.mean()


def _difference_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    # senders, prompts, mean of the unpatched
    shapes = ((3, 4, 3.0), (5, 1, 2.0), (4, 4, -2.5), (1, 6, 3.5), (6, 2, -4.0))
    unpatched = [
        mean + torch.randn(batch, generator=g, dtype=torch.float64)
        for _, batch, mean in shapes
    ]
    return [
        (base + torch.randn(senders, len(base), generator=g, dtype=torch.float64), base)
        for base, (senders, _, _) in zip(unpatched, shapes, strict=True)
    ]


relative_change = Exercise(
    number="7.1",
    title="Relative change",
    solution=_relative_change,
    cases=_difference_cases,
    misconceptions=(
        Misconception(
            "sign of the relative change",
            "You took patched from unpatched. In the paper's sign a message that "
            "speaks for IO gets a negative number: without it the logit difference "
            "is smaller.",
            lambda patched, unpatched: -_relative_change(patched, unpatched),
        ),
        Misconception(
            "mean of ratios",
            "You divided prompt by prompt, so the prompts with the smallest logit "
            "difference rule. Take both means first, then divide once.",
            lambda patched, unpatched: ((patched - unpatched) / unpatched).mean(1),
        ),
        Misconception(
            "divided by the patched mean",
            "The change is a share of what was there before the patch. You divided by "
            "what is there after it.",
            lambda patched, unpatched: (
                (patched.mean(1) - unpatched.mean()) / patched.mean(1)
            ),
        ),
        Misconception(
            "ratio instead of change",
            "Patched over unpatched is 1 where nothing happens. The change is 0 there.",
            lambda patched, unpatched: patched.mean(1) / unpatched.mean(),
        ),
        Misconception(
            "not divided",
            "This is the change in logits. Divide it by the unpatched mean.",
            lambda patched, unpatched: patched.mean(1) - unpatched.mean(),
        ),
        Misconception(
            "divided by the size",
            "You divided by the absolute value. Where the unpatched mean is negative "
            "that turns the sign: there a patch that brings it nearer to 0 must have a "
            "negative change, too.",
            lambda patched, unpatched: (
                (patched.mean(1) - unpatched.mean()) / unpatched.mean().abs()
            ),
        ),
        Misconception(
            "mean over senders",
            "You averaged senders as well as prompts. One number for each sender "
            "should be left.",
            lambda patched, unpatched: (
                (patched.mean() - unpatched.mean()) / unpatched.mean()
            ),
        ),
    ),
)


def _count_ways(sender_layer: int, receiver_layer: int) -> int:
    return 2 ** (receiver_layer - sender_layer)


count_ways = Exercise(
    number="7.4",
    title="How many ways",
    solution=_count_ways,
    cases=lambda seed: [
        (0, 1),
        (0, 4),
        (2, 7),
        (7, 9),
        (9, 12),
        (3 + seed % 3, 10 + seed % 2),
    ],
    misconceptions=(
        Misconception(
            "one MLP at a time",
            "You counted the direct way and one way for each MLP. But a way may lead "
            "through several: what one MLP writes, the next one reads.",
            lambda sender_layer, receiver_layer: 1 + receiver_layer - sender_layer,
        ),
        Misconception(
            "direct way not counted",
            "The way through no MLP at all is one of them.",
            lambda sender_layer, receiver_layer: (
                _count_ways(sender_layer, receiver_layer) - 1
            ),
        ),
        Misconception(
            "MLP of the sender's layer left out",
            "In a layer attention comes first: the MLP of the sender's own layer "
            "hears the sender.",
            lambda sender_layer, receiver_layer: (
                _count_ways(sender_layer, receiver_layer) // 2
            ),
        ),
        Misconception(
            "MLP of the receiver's layer counted",
            "In a layer attention comes first: the MLP of the receiver's own layer "
            "speaks after the receiver has listened.",
            lambda sender_layer, receiver_layer: (
                2 * _count_ways(sender_layer, receiver_layer)
            ),
        ),
        Misconception(
            "order counted",
            "You counted the orders in which MLPs can be passed. There is one only: "
            "from lower to higher layers.",
            lambda sender_layer, receiver_layer: _arrangements(
                receiver_layer - sender_layer
            ),
        ),
        Misconception(
            "frozen heads counted",
            "Heads between sender and receiver are frozen: whatever reaches them, "
            "they pass nothing on. Only MLPs do.",
            lambda sender_layer, receiver_layer: 4 ** (receiver_layer - sender_layer),
        ),
    ),
)


def _arrangements(n: int) -> int:
    """The number of ways to put some of n things in order."""
    return 1 if n == 0 else 1 + n * _arrangements(n - 1)


# Runs with hooks. What is held, sent and read differs between the solution and
# the ways to get it wrong.


def _sites(model, site: str) -> list[str]:
    return [f"blocks.{layer}.{site}" for layer in range(model.cfg.n_layers)]


@cache
def _kept(model, data: IOIDataset) -> dict[str, Tensor]:
    """Everything of an unpatched run that is held or delivered anywhere below."""
    names = [
        name
        for site in ("attn.hook_z", "attn.hook_q", "attn.hook_k", "attn.hook_v")
        for name in _sites(model, site)
    ]
    with torch.no_grad():
        return dict(
            model.run_with_cache(
                data.tokens, names_filter=[*names, *_sites(model, "hook_mlp_out")]
            )[1]
        )


def _set(name: str, values: Tensor, index=...):
    """A hook that takes a part of an activation from elsewhere."""

    def hook(value, hook):
        value = value.clone()
        value[index] = values[index]
        return value

    return name, hook


def _head(head: int) -> tuple:
    return slice(None), slice(None), head


def _pass_three(
    model, base, source, sender, freeze=True, mlps="recompute", sent=None, index=_head
) -> list:
    """The hooks of the third pass: all heads held, then the sender's z, from the source
    unless said otherwise."""
    layer, head = sender
    held, new = _kept(model, base), _kept(model, source) if sent is None else sent
    names = (_sites(model, "attn.hook_z") if freeze else []) + (
        _sites(model, "hook_mlp_out") if mlps == "frozen" else []
    )
    at = f"blocks.{layer}.attn.hook_z"
    return [*(_set(name, held[name]) for name in names), _set(at, new[at], index(head))]


def _read(model, data, hooks, at=None) -> Float[Tensor, "batch"]:
    with torch.no_grad():
        logits = model.run_with_hooks(data.tokens, fwd_hooks=hooks)
    return logit_diff(logits if at is None else logits[:, at], data, per_prompt=True)


def _path_to_logits(
    model, base: IOIDataset, source: IOIDataset, sender: tuple[int, int]
) -> Float[Tensor, "batch"]:
    return _read(model, base, _pass_three(model, base, source, sender))


def _wrong_to_logits(**changed):
    return lambda model, base, source, sender: _read(
        model, base, _pass_three(model, base, source, sender, **changed)
    )


def _wrong_answers(model, base, source, sender):
    with torch.no_grad():
        logits = model.run_with_hooks(
            base.tokens, fwd_hooks=_pass_three(model, base, source, sender)
        )
    return logit_diff(logits, source, per_prompt=True)


@cache
def _pair(seed: int, model_seed: int, n: int, kind: str):
    model = random_model(model_seed)
    base = random_data(model, n, seed)
    return model, base, base.counterfactual(kind, seed=seed)


def _logit_cases(seed: int) -> list[tuple]:
    chosen = (
        ((0, 1), 4, "abc"),
        ((1, 3), 3, "abc"),
        ((0, 2), 1, "abc"),
        ((1, 0), 4, "random_names"),
        ((2, 2), 3, "abc"),
    )
    return [
        (*_pair(seed + i, seed + i % 2, n, kind), sender)
        for i, (sender, n, kind) in enumerate(chosen)
    ]


path_to_logits = Exercise(
    number="7.2",
    title="One sender to the logits",
    solution=_path_to_logits,
    cases=_logit_cases,
    misconceptions=(
        Misconception(
            "freezing forgotten",
            "This is an ordinary patch: later heads hear the sender and react. Hold "
            "the z of every other head at the base run.",
            _wrong_to_logits(freeze=False),
        ),
        Misconception(
            "MLPs frozen",
            "This is the direct edge. In the paper's path patching the MLPs are "
            "recomputed: hold the heads only.",
            _wrong_to_logits(mlps="frozen"),
        ),
        Misconception(
            "sender from the wrong run",
            "Nothing has changed: your sender says what it says in the base run. Take "
            "its z from the source run (z is [batch, pos, head, d_head]), and see that "
            "no later hook sets it back.",
            lambda model, base, source, sender: _read(model, base, []),
        ),
        Misconception(
            "source and base exchanged",
            "You ran the source prompts with the base run's message. Run the base "
            "prompts; the message alone comes from the source.",
            lambda model, base, source, sender: _read(
                model, source, _pass_three(model, source, base, sender)
            ),
        ),
        Misconception(
            "every head of the layer sends",
            "All heads of the sender's layer say what they say in the source run. Take "
            "one head's z from there: z is [batch, pos, head, d_head].",
            _wrong_to_logits(index=lambda head: ...),
        ),
        Misconception(
            "last position taken for END",
            "Prompts differ in length and are padded on the right, so the last "
            "position is padding in the shorter ones. Read at each prompt's END, as "
            "logit_diff does.",
            lambda model, base, source, sender: _read(
                model, base, _pass_three(model, base, source, sender), at=-1
            ),
        ),
        Misconception(
            "answers of the source",
            "You asked for the names of the source prompts. The answers that count "
            "are those of the base.",
            _wrong_answers,
        ),
    ),
)


def _deliver(
    model, base, hooks, receiver, component, index=_head, seen=None, also=()
) -> Float[Tensor, "batch"]:
    """The fourth pass: what the receiver gets is what it computes under these hooks."""
    layer, head = receiver
    at = f"blocks.{layer}.attn.hook_{component}"
    if seen is None:
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            seen = model.run_with_cache(base.tokens, names_filter=[at])[1][at]
    return _read(model, base, [*also, _set(at, seen, index(head))])


def _path_to_head(
    model,
    base: IOIDataset,
    source: IOIDataset,
    sender: tuple[int, int],
    receiver: tuple[int, int],
    component: str,
) -> Float[Tensor, "batch"]:
    return _deliver(
        model, base, _pass_three(model, base, source, sender), receiver, component
    )


def _wrong_to_head(**changed):
    def answer(model, base, source, sender, receiver, component):
        return _deliver(
            model,
            base,
            _pass_three(model, base, source, sender, **changed),
            receiver,
            component,
        )

    return answer


def _source_input(model, base, source, sender, receiver, component):
    seen = _kept(model, source)[f"blocks.{receiver[0]}.attn.hook_{component}"]
    return _deliver(model, base, [], receiver, component, seen=seen)


def _output_as_input(model, base, source, sender, receiver, component):
    z = _kept(model, source)[f"blocks.{sender[0]}.attn.hook_z"][:, :, sender[1], None]
    return _deliver(
        model,
        base,
        [],
        receiver,
        component,
        seen=z.expand(-1, -1, model.cfg.n_heads, -1),
    )


def _still_frozen(model, base, source, sender, receiver, component):
    held = _kept(model, base)
    others = [
        _set(name, held[name])
        for name in _sites(model, "attn.hook_z")[receiver[0] + 1 :]
    ]
    return _deliver(
        model,
        base,
        _pass_three(model, base, source, sender),
        receiver,
        component,
        also=others,
    )


def _sends_again(model, base, source, sender, receiver, component):
    hooks = _pass_three(model, base, source, sender)
    return _deliver(model, base, hooks, receiver, component, also=hooks[-1:])


def _at_end_only(model, base, source, sender, receiver, component):
    at = torch.arange(len(base)), base.pos["END"]
    hooks = _pass_three(model, base, source, sender)
    return _deliver(
        model, base, hooks, receiver, component, index=lambda head: (*at, head)
    )


def _head_cases(seed: int) -> list[tuple]:
    chosen = (
        ((0, 1), (1, 2), "q", 3),
        ((0, 3), (1, 0), "k", 4),
        ((0, 2), (1, 1), "v", 1),
        ((0, 0), (2, 3), "v", 3),
        ((1, 3), (2, 1), "q", 4),
    )
    return [
        (*_pair(seed + i, seed + i % 2, n, "abc"), *ends)
        for i, (*ends, n) in enumerate(chosen)
    ]


path_to_head = Exercise(
    number="7.3",
    title="One sender to one receiver",
    solution=_path_to_head,
    cases=_head_cases,
    misconceptions=(
        Misconception(
            "receiver's input from the source run",
            "You gave the receiver what it gets in the source run, from everybody. It "
            "must be what it gets in pass three, where only the sender is new.",
            _source_input,
        ),
        Misconception(
            "receiver patched with the sender's output",
            "The sender's z is not the receiver's query, key or value, though it has "
            "the same shape. Let the receiver compute its own, in pass three, and "
            "note that.",
            _output_as_input,
        ),
        Misconception(
            "freezing forgotten",
            "In your pass three the heads between sender and receiver heard the sender "
            "and passed it on. Hold their z at the base run.",
            _wrong_to_head(freeze=False),
        ),
        Misconception(
            "MLPs frozen",
            "This is the direct edge. In the paper's path patching the MLPs are "
            "recomputed in pass three.",
            _wrong_to_head(mlps="frozen"),
        ),
        Misconception(
            "still frozen in pass four",
            "In pass four the heads behind the receiver must be free to hear it. Take "
            "all hooks of pass three off.",
            _still_frozen,
        ),
        Misconception(
            "sender still new in pass four",
            "In pass four the sender speaks to everybody. It must say what it says in "
            "the base run; only the receiver's input is new.",
            _sends_again,
        ),
        Misconception(
            "whole layer receives",
            "You delivered the new input to all heads of the receiver's layer. Only "
            "one of them is the receiver.",
            lambda model, base, source, sender, receiver, component: _deliver(
                model,
                base,
                _pass_three(model, base, source, sender),
                receiver,
                component,
                index=lambda head: ...,
            ),
        ),
        Misconception(
            "delivered at END only",
            "Only END of the receiver's input is new. Others read its keys and values, "
            "and later heads its output, at every position: deliver all of them.",
            _at_end_only,
        ),
        Misconception(
            "source and base exchanged",
            "You ran the source prompts with the base run's message. Run the base "
            "prompts; the message alone comes from the source.",
            lambda model, base, source, *rest: _path_to_head(
                model, source, base, *rest
            ),
        ),
        Misconception(
            "nothing delivered",
            "This is the unpatched run. Is the sender's z that of the source run in "
            "pass three, and is the receiver's input among the hooks of pass four?",
            lambda model, base, source, sender, receiver, component: _read(
                model, base, []
            ),
        ),
    ),
)
