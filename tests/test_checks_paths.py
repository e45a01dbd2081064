"""The exercises of chapter 7: wrong answers as students write them are recognised,
other right answers pass."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ioi_course.checks import paths as checks
from ioi_course.metrics import logit_diff
from ioi_course.paths import path_patch
from ioi_course.prompts import IOIDataset

SEEDS = (0, 1)


# 7.1
def change_by_loop(patched, unpatched):
    before = unpatched.numpy().mean()
    return np.array([row.mean() / before - 1 for row in patched.numpy()])


RELATIVE = {
    "sign of the relative change": lambda p, u: 1 - p.mean(-1) / u.mean(),
    "mean of ratios": lambda p, u: (p / u).mean(-1) - 1,
    "divided by the patched mean": lambda p, u: 1 - u.mean() / p.mean(-1),
    "ratio instead of change": lambda p, u: p.sum(-1) / u.sum(),
    "not divided": lambda p, u: (p - u).mean(-1),
    "divided by the size": lambda p, u: (p - u).mean(-1) / abs(u.mean()),
    "mean over senders": lambda p, u: (p - u).mean() / u.mean(),
}


# 7.4
def count_by_listing(a, b):
    ways = [[]]
    for mlp in range(a, b):
        ways += [[*way, mlp] for way in ways]
    return len(ways)


WAYS = {
    "one MLP at a time": lambda a, b: b - a + 1,
    "direct way not counted": lambda a, b: sum(2**i for i in range(b - a)),
    "MLP of the sender's layer left out": lambda a, b: 2 ** len(range(a + 1, b)),
    "MLP of the receiver's layer counted": lambda a, b: 2 ** (b - a + 1),
    "order counted": lambda a, b: sum(
        int(np.prod(range(b - a - k + 1, b - a + 1))) for k in range(b - a + 1)
    ),
    "frozen heads counted": lambda a, b: 2 ** (2 * (b - a)),
}


# 7.2 and 7.3, with functional style and other names than in the checks
def z_at(layer):
    return f"blocks.{layer}.attn.hook_z"


def outputs(model, data):
    return model.run_with_cache(data.tokens)[1]


def diff(logits, data):
    at_end = logits[torch.arange(len(data)), data.pos["END"]]
    io, s = data.answers.T
    return at_end[torch.arange(len(data)), io] - at_end[torch.arange(len(data)), s]


def holding(model, base, source, sender, mlps=False, freeze=True, whole_layer=False):
    """Hooks of pass three: in each layer every head of the base, but the sender."""
    old, new = outputs(model, base), outputs(model, source)

    def hook_for(layer):
        def hook(z, hook):
            for head in range(z.shape[2]):
                sends = layer == sender[0] and (head == sender[1] or whole_layer)
                if sends:
                    z[:, :, head] = new[z_at(layer)][:, :, head]
                elif freeze:
                    z[:, :, head] = old[z_at(layer)][:, :, head]
            return z

        return hook

    def mlp_hook(value, hook):
        return old[f"blocks.{hook.layer()}.hook_mlp_out"].clone()

    hooks = [(z_at(layer), hook_for(layer)) for layer in range(model.cfg.n_layers)]
    return hooks + [
        (f"blocks.{layer}.hook_mlp_out", mlp_hook)
        for layer in range(model.cfg.n_layers)
        if mlps
    ]


def to_logits(model, base, source, sender, run=None, answers=None, **changed):
    hooks = holding(model, base, source, sender, **changed)
    return diff(
        model.run_with_hooks((run or base).tokens, fwd_hooks=hooks), answers or base
    )


def right_to_logits(model, base, source, sender):
    return to_logits(model, base, source, sender).detach().numpy()


def right_with_the_library(model, base, source, sender):
    return path_patch(model, base, source, senders=[sender], progress=False).per_prompt[
        sender
    ]


def last_position(model, base, source, sender):
    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=holding(model, base, source, sender)
    )[:, -1]
    return logits.gather(1, base.answers) @ torch.tensor(
        [1.0, -1.0], dtype=logits.dtype
    )


TO_LOGITS = {
    "freezing forgotten": lambda *given: to_logits(*given, freeze=False),
    "MLPs frozen": lambda *given: to_logits(*given, mlps=True),
    "sender from the wrong run": lambda model, base, source, sender: to_logits(
        model, base, base, sender
    ),
    "source and base exchanged": lambda model, base, source, sender: to_logits(
        model, source, base, sender
    ),
    "every head of the layer sends": lambda *given: to_logits(*given, whole_layer=True),
    "last position taken for END": last_position,
    "answers of the source": lambda model, base, source, sender: to_logits(
        model, base, source, sender, answers=source
    ),
}


def to_head(
    model,
    base,
    source,
    sender,
    receiver,
    component,
    put=None,
    stay=(),
    all_heads=False,
    **changed,
):
    name, seen = f"blocks.{receiver[0]}.attn.hook_{component}", []
    hooks = holding(model, base, source, sender, **changed)
    model.run_with_hooks(
        base.tokens,
        fwd_hooks=[*hooks, (name, lambda value, hook: seen.append(value.clone()))],
    )
    new = seen[-1] if put is None else put

    def deliver(value, hook):
        mask = torch.zeros(value.shape[2], 1, dtype=value.dtype)
        mask[slice(None) if all_heads else receiver[1]] = 1
        return value * (1 - mask) + new * mask

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[*(hooks[i] for i in stay), (name, deliver)]
    )
    return logit_diff(logits, base, per_prompt=True)


def right_to_head(*given):
    return to_head(*given).tolist()


def right_head_with_the_library(model, base, source, sender, receiver, component):
    given = model, base, source, [receiver], component
    return (
        path_patch(*given, senders=[sender], progress=False).per_prompt[sender].float()
    )


def own_input_of_the_source(model, base, source, sender, receiver, component):
    there = outputs(model, source)[f"blocks.{receiver[0]}.attn.hook_{component}"]
    return to_head(model, base, source, sender, receiver, component, put=there)


def sender_output(model, base, source, sender, receiver, component):
    z = outputs(model, source)[z_at(sender[0])][:, :, [sender[1]]]
    return to_head(model, base, source, sender, receiver, component, put=z)


def frozen_to_the_end(model, base, source, sender, receiver, component):
    later = range(receiver[0] + 1, model.cfg.n_layers)
    return to_head(model, base, source, sender, receiver, component, stay=later)


def sender_still_new(model, base, source, sender, receiver, component):
    """Pass four with the sender's hook left on, that of the free run."""
    z, held = holding(model, base, source, sender, freeze=False)[sender[0]], []
    name = f"blocks.{receiver[0]}.attn.hook_{component}"
    hooks = holding(model, base, source, sender)
    model.run_with_hooks(
        base.tokens,
        fwd_hooks=[*hooks, (name, lambda value, hook: held.append(value.clone()))],
    )

    def deliver(value, hook):
        value[:, :, receiver[1]] = held[0][:, :, receiver[1]]
        return value

    return diff(model.run_with_hooks(base.tokens, fwd_hooks=[z, (name, deliver)]), base)


def end_only(model, base, source, sender, receiver, component):
    """New at END, old elsewhere."""
    old = outputs(model, base)[f"blocks.{receiver[0]}.attn.hook_{component}"].clone()
    name, seen = f"blocks.{receiver[0]}.attn.hook_{component}", []
    hooks = holding(model, base, source, sender)
    model.run_with_hooks(
        base.tokens,
        fwd_hooks=[*hooks, (name, lambda value, hook: seen.append(value.clone()))],
    )
    for i, end in enumerate(base.pos["END"].tolist()):
        old[i, end] = seen[-1][i, end]
    return to_head(model, base, source, sender, receiver, component, put=old)


TO_HEAD = {
    "receiver's input from the source run": own_input_of_the_source,
    "receiver patched with the sender's output": sender_output,
    "freezing forgotten": lambda *given: to_head(*given, freeze=False),
    "MLPs frozen": lambda *given: to_head(*given, mlps=True),
    "still frozen in pass four": frozen_to_the_end,
    "sender still new in pass four": sender_still_new,
    "whole layer receives": lambda *given: to_head(*given, all_heads=True),
    "delivered at END only": end_only,
    "source and base exchanged": lambda model, base, source, *rest: to_head(
        model, source, base, *rest
    ),
    "nothing delivered": lambda model, base, source, *rest: to_head(
        model, base, base, *rest
    ),
}


# 7.5
def with_first_names_exchanged(base):
    """Without `swap_names`: the tokens at IO and S1 change places, word by word."""
    new, rows = copy(base), torch.arange(len(base))
    new.tokens = base.tokens.clone()
    new.tokens[rows, base.pos["IO"]], new.tokens[rows, base.pos["S1"]] = (
        base.tokens[rows, base.pos["S1"]],
        base.tokens[rows, base.pos["IO"]],
    )
    return new


def with_a_new_name_for_io(base):
    """Accepted once: S2 and its first mention are as asked, but IO is
    somebody who is in no prompt."""
    used = {name for record in base.records for name in record.names}
    new = next(name for name in base.names if name not in used)
    records = [
        replace(record, IO=new, order={"ABBA": "BABA", "BABA": "ABBA"}[record.order])
        for record in base.records
    ]
    return IOIDataset.from_prompts(base.tokenizer, records)


SOURCES = {
    "the repetition is gone": lambda base: base.counterfactual("abc", seed=5),
    "the name at S2 is another": lambda base: base.counterfactual(
        "swap_subject", seed=3
    ),
    "another name in the same place": lambda base: base.counterfactual(
        "random_names", seed=7
    ),
    "another word has changed, too": with_a_new_name_for_io,
    "nothing differs": lambda base: base[list(range(len(base)))],
}

RIGHT = [
    (checks.relative_change, change_by_loop),
    (checks.relative_change, lambda p, u: (p.mean(-1) / u.mean() - 1).tolist()),
    (checks.count_ways, count_by_listing),
    (
        checks.count_ways,
        lambda sender_layer, receiver_layer: 1 << receiver_layer - sender_layer,
    ),
    (checks.path_to_logits, right_to_logits),
    (checks.path_to_logits, right_with_the_library),
    (checks.path_to_head, right_to_head),
    (checks.path_to_head, right_head_with_the_library),
    (checks.refuting_source, lambda base: base.counterfactual("swap_names", seed=9)),
    (checks.refuting_source, with_first_names_exchanged),
]
WRONG = {
    checks.relative_change: RELATIVE,
    checks.count_ways: WAYS,
    checks.path_to_logits: TO_LOGITS,
    checks.path_to_head: TO_HEAD,
    checks.refuting_source: SOURCES,
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("exercise, answer", RIGHT)
def test_right_answers_pass(exercise, answer, seed):
    verdict = exercise(answer, seed)
    assert verdict, verdict


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "exercise, name",
    [(exercise, name) for exercise, wrong in WRONG.items() for name in wrong],
)
def test_wrong_answers_are_named(exercise, name, seed):
    verdict = exercise(WRONG[exercise][name], seed)
    assert verdict.misconception == name, verdict


def test_every_misconception_is_tried():
    for exercise, wrong in WRONG.items():
        assert list(wrong) == [one.name for one in exercise.misconceptions]


def test_nonsense_is_wrong_without_a_name():
    for exercise, answer in (
        (checks.relative_change, lambda p, u: p.amax(1)),
        (checks.count_ways, lambda a, b: a + b),
        (
            checks.path_to_logits,
            lambda model, base, source, sender: torch.zeros(len(base)),
        ),
        (checks.path_to_head, lambda model, base, source, *rest: torch.ones(len(base))),
    ):
        assert exercise(answer).kind == "wrong"


def test_a_source_of_another_shape_is_refused_with_a_reason():
    for choose in (
        lambda base: base[:2],
        lambda base: base.counterfactual("extra_s"),
        lambda base: "swap_names",
    ):
        assert checks.refuting_source(choose).kind == "raised"
