"""Messages from a head at one position to an input of a head at one position."""

import pytest
import torch
from test_families import honest_float64  # noqa: F401

from ioi_course.checks.core import random_data, random_of
from ioi_course.messages import Into, answers_of, keep_runs, messages
from ioi_course.metrics import logit_diff
from ioi_course.paths import path_patch

SERVED = ("gpt2", "llama", "neox")
CLOSE = {"rtol": 0, "atol": 1e-6}


pytestmark = pytest.mark.usefixtures("no_grad", "honest_float64")


def heads_below(model, layer):
    return [(i, head) for i in range(layer) for head in range(model.cfg.n_heads)]


def lost(found):
    """The effect on the logit difference, for the first draw: [batch, sender]."""
    return found[0, ..., 0] - found[0, ..., 1]


@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize("part", ["", "q"])
def test_from_end_it_is_path_patching(family, part):
    """To the logits, and to queries in the last layer, nothing but END counts."""
    model = random_of(family)
    data, last = random_data(model, 4, seed=3), model.cfg.n_layers - 1
    receivers = ((last, 1), (last, 4)) if part else ()
    senders = heads_below(model, last if part else last + 1)
    found = messages(keep_runs(model, data), senders, Into(receivers, part))
    paths = path_patch(model, data, data.counterfactual("abc"), receivers or "logits",
                       part or None, progress=False)  # fmt: skip
    expected = torch.stack([paths.base - paths.per_prompt[head] for head in senders], 1)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(lost(found), expected.double().cpu(), **CLOSE)


def long_way(model, data, sender, receiver, part, at, read):
    """By hooks, in three runs: the message, what is read, what comes of it."""
    rows, place, act = torch.arange(len(data)), data.pos[read], data.pos[at]
    old = model.run_with_cache(data.tokens)[1]
    new = model.run_with_cache(data.counterfactual("abc").tokens)[1]

    def freeze(z, hook):
        z = old[hook.name].clone()
        if hook.layer() == sender[0]:
            its = new[hook.name][rows, place, sender[1]]
            z[rows, place, sender[1]] = its
        return z

    def put(x, hook):
        x = old[name].clone()
        x[rows, place, receiver[1]] = seen[name][rows, place, receiver[1]]
        return x

    name, points = f"blocks.{receiver[0]}.attn.hook_{part}", range(model.cfg.n_layers)
    every = [(f"blocks.{i}.attn.hook_z", freeze) for i in points]
    with model.hooks(fwd_hooks=every):
        seen = model.run_with_cache(data.tokens)[1]
    z = f"blocks.{receiver[0]}.attn.hook_z"
    with model.hooks(fwd_hooks=[(name, put)]):
        its = model.run_with_cache(data.tokens)[1][z][rows, act, receiver[1]]

    def answer(x, hook):
        x = x.clone()
        x[rows, act, receiver[1]] = its
        return x

    logits = model.run_with_hooks(data.tokens, fwd_hooks=[(z, answer)])
    return logit_diff(model(data.tokens), data, True) - logit_diff(logits, data, True)


@pytest.mark.parametrize("family", ["gpt2", "neox"])
@pytest.mark.parametrize(("part", "at", "read"), [
    ("k", "END", "S2"), ("v", "END", "S2"), ("k", "S2", "S1+1"), ("q", "S2", "S2"),
])  # fmt: skip
def test_it_is_what_hooks_do(family, part, at, read):
    model = random_of(family)
    data = random_data(model, 4, seed=5)
    for sender, receiver in (((0, 2), (1, 3)), ((0, 1), (2, 1))):
        into = Into((receiver,), part, at, read)
        found = messages(keep_runs(model, data), [sender], into)
        expected = long_way(model, data, sender, receiver, part, at, read)
        torch.testing.assert_close(lost(found)[:, 0], expected.double().cpu(), **CLOSE)


def test_order_draws_and_memory():
    model = random_of("gpt2")
    data, senders = random_data(model, 3), heads_below(model, 2)
    runs = keep_runs(model, data, draws=2)
    into = Into(((2, 0), (1, 1)), "v", "END", "S2")
    found = messages(runs, senders, into)
    assert found.shape == (2, 3, len(senders), 2)
    back = messages(runs, senders[::-1], into, memory=1e-9)
    torch.testing.assert_close(back.flip(2), found, **CLOSE)
    assert not torch.allclose(found[0], found[1]), "other names"
    again = messages(keep_runs(model, data, seed=1), senders, into)
    torch.testing.assert_close(again[0], found[1], **CLOSE)


def test_the_readings_are_of_two_names_and_give_the_difference():
    model = random_of("llama")
    data = random_data(model, 4)
    both = answers_of(keep_runs(model, data))
    expected = logit_diff(model(data.tokens), data, per_prompt=True).to(both)
    torch.testing.assert_close(both[:, 0] - both[:, 1], expected, **CLOSE)


def test_a_sender_above_reaches_nobody():
    model = random_of("gpt2")
    runs = keep_runs(model, random_data(model, 3))
    assert not messages(runs, [(1, 1), (2, 0)], Into(((1, 0),), "q")).any()


@pytest.mark.parametrize("into", [
    Into(((1, 0),), "z"), Into(((1, 0),), "q", "END", "S2"), Into((), "v"),
    Into(((1, 0),), ""),
])  # fmt: skip
def test_what_is_no_input(into):
    model = random_of("gpt2")
    with pytest.raises(ValueError, match="is no input|are read there"):
        messages(keep_runs(model, random_data(model, 3)), [(0, 0)], into)
