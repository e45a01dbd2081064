"""Runs with some edges: against the model, hooks, path patching and
circuits; and what is refused."""

import itertools

import pytest
import torch

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model, random_of
from ioi_course.circuit import run_circuit
from ioi_course.edges import (
    HeadEdge,
    edge_shares,
    head_edges,
    run_with_edges,
    run_without_edges,
)
from ioi_course.engine import Unsupported, engine_of, run
from ioi_course.means import reference_means
from ioi_course.metrics import logit_diff
from ioi_course.paths import path_patch
from ioi_course.prompts import IOIDataset
from ioi_course.roles import PAPER, Edge

pytestmark = pytest.mark.usefixtures("no_grad")


def every_edge(model) -> list[HeadEdge]:
    """All edges between two heads, and between a head and the logits."""
    heads = list(itertools.product(range(model.cfg.n_layers), range(model.cfg.n_heads)))
    pairs = [
        (a, b, via)
        for a, b, via in itertools.product(heads, heads, "qkv")
        if a[0] < b[0]
    ]
    return [
        HeadEdge(*edge)
        for edge in [*pairs, *((head, "logits", "residual") for head in heads)]
    ]


FAMILIES = ["gpt2", "llama", "neox"]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_are_the_model(family):
    model = random_of(family)
    data = random_data(model, 3)
    usual = logit_diff(model(data.tokens), data, per_prompt=True)
    means = reference_means(model, data)
    for found in (
        run_with_edges(model, data, means=means),
        run_with_edges(model, data, keep=every_edge(model), means=means),
    ):
        assert torch.allclose(
            found, usual, atol=1e-4 * max(1, usual.abs().max().item())
        )


def by_hand(model, data, missing, means):
    """The same by a forward pass written out, one head and one input at a time."""
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    start, spoken = model.embed(data.tokens) + model.W_pos[: data.tokens.shape[1]], {}

    def stream(layer, receiver, via):
        """What one input reads before a layer, with MLPs of its own."""
        x = start
        for below in range(layer):
            for head in range(n_heads):
                gone = ((below, head), receiver, via) in missing
                z = means[below][:, :, head] if gone else spoken[below, head]
                x = x + z @ model.W_O[below, head]
            x = x + model.b_O[below]
            x = x + model.blocks[below].mlp(model.blocks[below].ln2(x))
        return x

    for layer in range(n_layers):
        ln1 = model.blocks[layer].ln1
        for head in range(n_heads):
            q, k, v = (ln1(stream(layer, (layer, head), via)) for via in "qkv")
            q = q @ model.W_Q[layer, head] + model.b_Q[layer, head]
            k = k @ model.W_K[layer, head] + model.b_K[layer, head]
            v = v @ model.W_V[layer, head] + model.b_V[layer, head]
            scores = q @ k.mT / model.cfg.d_head**0.5
            future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
            spoken[layer, head] = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    logits = model.unembed(model.ln_final(stream(n_layers, "logits", "residual")))
    return logit_diff(logits, data, per_prompt=True)


def test_any_edges_missing_as_by_hand():
    """Half of all edges of a random model, drawn anew three times, kept and dropped."""
    model = random_model()
    data = random_data(model, 3)
    means, edges = reference_means(model, data), every_edge(model)
    for seed in range(3):
        drawn = (
            torch.rand(len(edges), generator=torch.Generator().manual_seed(seed)) < 0.5
        )
        missing = {edge for edge, out in zip(edges, drawn.tolist(), strict=True) if out}
        expected = by_hand(model, data, missing, means)
        kept = [edge for edge in edges if edge not in missing]
        assert torch.allclose(
            run_with_edges(model, data, drop=missing, means=means), expected, atol=1e-6
        )
        assert torch.allclose(
            run_with_edges(model, data, keep=kept, means=means), expected, atol=1e-6
        )
        assert torch.allclose(
            run_with_edges(model, data, keep=edges, drop=missing, means=means),
            expected,
            atol=1e-6,
        )
    whole = logit_diff(model(data.tokens), data, per_prompt=True)
    assert not torch.allclose(expected, whole, atol=1e-3), "it makes a difference"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_edge_is_path_patching(family):
    model = random_of(family)
    data = random_data(model, 3)
    abc = data.counterfactual("abc")
    other = [z.transpose(1, 2) for z in run(engine_of(model), abc.tokens).z]
    last = model.cfg.n_layers - 1
    for receiver, via in [*(((last, 1), via) for via in "qkv"), ("logits", "residual")]:
        to = receiver if receiver == "logits" else [receiver]
        patched = path_patch(
            model,
            data,
            abc,
            to,
            None if to == "logits" else via,
            senders=[(0, 1)],
            progress=False,
        )
        ours = run_with_edges(model, data, drop=[((0, 1), receiver, via)], means=other)
        assert torch.allclose(
            ours.double(), patched.per_prompt[0, 1].double(), atol=1e-4
        )


def test_many_sets_at_once_are_each_by_itself():
    """Half of all edges, some that begin late, to the logits alone, and none; with
    prompts in two batches."""
    model = random_model()
    data = random_data(model, 4)
    means, edges = reference_means(model, data), every_edge(model)
    late = [edge for edge in edges if edge.sender[0] == 1 and edge.via == "k"]
    drops = [
        edges[::2],
        late,
        [edge for edge in edges if edge.receiver == "logits"],
        edges[:1],
        (),
    ]
    each = torch.stack([by_hand(model, data, set(drop), means) for drop in drops])
    assert torch.allclose(run_without_edges(model, data, drops, means), each, atol=1e-6)
    assert torch.allclose(
        run_without_edges(model, data, drops, means, memory=0.001), each, atol=1e-6
    )
    with pytest.raises(ValueError, match="drops is empty"):
        run_without_edges(model, data, [])
    with pytest.raises(ValueError, match="is not below"):
        run_without_edges(model, data, [[((1, 0), (1, 1), "q")]])


def test_heads_that_nobody_hears_are_knocked_out(model):
    """All edges from two heads, and no others, are a run of these heads
    alone, at every position."""
    data = IOIDataset(model, 4, seed=2)
    means = reference_means(model, data)
    kept = [edge for edge in every_edge(model) if edge.sender in ((3, 0), (9, 9))]
    heard = run_with_edges(model, data, keep=kept, means=means)
    nobody = run_with_edges(model, data, keep=[], means=means)
    assert torch.allclose(nobody, run_circuit(model, data, {}, means), atol=1e-3)
    assert not torch.allclose(heard, nobody, atol=1e-2)


def test_batches_and_prompts_of_different_lengths(model):
    data = IOIDataset(model, 6, seed=3)
    assert len(set(data.lengths.tolist())) > 1
    edges, means = head_edges(PAPER), reference_means(model, data)
    at_once = run_with_edges(model, data, edges, means=means)
    little = run_with_edges(model, data, edges, means=means, memory=0.01)
    assert torch.allclose(at_once, little, atol=1e-4) and at_once.shape == (6,)
    with pytest.raises(ValueError, match="a prompt takes .* GB. Give memory="):
        run_with_edges(model, data, edges, means=means, memory=1e-6)


def test_edges_of_classes():
    edges = head_edges(CIRCUIT)
    assert len(edges) == len(set(edges)) and all(
        b == "logits" or a[0] < b[0] for a, b, _ in edges
    )
    assert HeadEdge((10, 0), (10, 7), "q") not in edges, "the same layer does not hear"
    with pytest.raises(
        ValueError, match="'nobody' is no class of the circuit; it has previous token"
    ):
        head_edges(CIRCUIT, [Edge("nobody", "logits", "residual")])


@pytest.mark.parametrize(
    ("edge", "says"),
    [
        (((9, 9), (9, 6), "q"), "L9H9 is not below L9H6"),
        (((9, 9), (10, 7), "residual"), "give 'q' or 'k' or 'v' for this receiver"),
        (((9, 9), "logits", "v"), "give 'residual' for this receiver"),
        (
            ((9, 12), "logits", "residual"),
            r"there is no head \(9, 12\) in 12 layers of 12 heads",
        ),
        (((9, 9), "logit", "residual"), "there is no head 'logit'"),
        (((9, 9), "logits"), r"give \(sender, receiver, via\)"),
    ],
)
def test_edges_that_cannot_be(model, edge, says):
    data = IOIDataset(model, 1)
    for words in ({"keep": [edge]}, {"drop": [edge]}):
        with pytest.raises(ValueError, match=says):
            run_with_edges(model, data, **words)


def test_shares_are_of_the_mean_difference(model, monkeypatch):
    edge, calls = Edge("name mover", "logits", "residual"), []

    def runs(model, data, keep, drop, means):
        calls.append((keep, tuple(drop)))
        return torch.tensor([4.0, 2.0] if not calls[-1][1] else [1.0, 0.5])

    monkeypatch.setattr("ioi_course.edges.run_with_edges", runs)
    data = IOIDataset(model, 2)
    assert edge_shares(model, data, PAPER, [edge]) == {edge: 0.75}
    assert edge_shares(model, data, PAPER, [tuple(edge)], within=True) == {edge: 0.75}
    assert calls[1] == (None, head_edges(PAPER, [edge])) and calls[3][0] == head_edges(
        PAPER
    )
    monkeypatch.setattr(
        "ioi_course.edges.run_with_edges", lambda *_: torch.tensor([-1.0, 0.5])
    )
    with pytest.raises(
        ValueError, match="is -0.25 before any edge is removed; it must be positive"
    ):
        edge_shares(model, data, PAPER)


def test_a_model_that_the_engine_does_not_serve(model):
    with model.hooks(
        fwd_hooks=[("blocks.0.hook_resid_pre", lambda value, hook: value)]
    ):
        with pytest.raises(Unsupported, match="1 hooks are on it"):
            run_with_edges(model, IOIDataset(model, 1))
