"""The answer key is the whole truth: its edges are those written, they suffice, and
each is worth its stated share."""

import itertools

import pytest
import torch

from ioi_course.bundled.answer_key import CIRCUIT, SHARES, known_circuit, written_edges
from ioi_course.edges import head_edges, run_with_edges
from ioi_course.means import reference_means
from ioi_course.prompts import IOIDataset
from ioi_course.roles import PAPER, Edge

PROMPTS, SEED = 24, 1  # those on which SHARES were measured


@pytest.fixture(scope="module")
def prompts(model):
    """Prompts, their means, and the whole model's logit differences."""
    with torch.no_grad():
        data = IOIDataset(model, PROMPTS, seed=SEED)
        means = reference_means(model, data)
        return data, means, run_with_edges(model, data, means=means)


def other_edges() -> set:
    """Every edge between heads of the circuit, or to the
    logits, that is not in the key.

    Without the one from the S-inhibition heads to the logits: what they write has no
    direction that is read there, but it makes the stream longer, so that LayerNorm
    shrinks the rest by 2 %.
    """
    longer = head_edges(CIRCUIT, [Edge("S-inhibition", "logits", "residual")])
    heads = CIRCUIT.heads
    pairs = {
        (a, b, via)
        for a, b, via in itertools.product(heads, heads, "qkv")
        if a[0] < b[0]
    }
    return {*pairs, *((head, "logits", "residual") for head in heads)} - {
        *head_edges(CIRCUIT),
        *longer,
    }


def test_the_key_has_the_edges_that_the_design_of_the_heads_has():
    assert set(written_edges()) == set(head_edges(CIRCUIT))
    assert len(set(CIRCUIT.edges)) == len(CIRCUIT.edges) == 23


@pytest.mark.parametrize("edge", CIRCUIT.edges, ids=" ".join)
def test_a_key_without_an_edge_is_seen_to_be_wrong(edge):
    fewer = [other for other in CIRCUIT.edges if other != edge]
    assert set(head_edges(CIRCUIT, fewer)) != set(written_edges())


def test_the_published_drawing_is_part_of_it_and_is_unchanged():
    assert set(PAPER.edges) < set(CIRCUIT.edges) and len(PAPER.edges) == 9
    assert {edge.via for edge in set(CIRCUIT.edges) - set(PAPER.edges)} == {"q", "k"}


def test_gpt2_small_has_the_published_circuit(model, monkeypatch):
    monkeypatch.setattr(
        "ioi_course.bundled.answer_key.is_gpt2_small", lambda model: True
    )
    assert known_circuit(model) is PAPER


def test_the_keys_edges_alone_keep_the_difference(model, prompts):
    data, means, whole = prompts
    alone = run_with_edges(model, data, head_edges(CIRCUIT), means=means)
    assert 0.95 <= alone.mean() / whole.mean() <= 1.1
    assert (alone > 0.7 * whole).all(), "in every prompt, too"


def test_the_published_edges_alone_do_not(model, prompts):
    data, means, whole = prompts
    assert (
        run_with_edges(model, data, head_edges(PAPER), means=means).mean()
        / whole.mean()
        < 0
    )


def test_no_other_edge_between_its_heads_matters(model, prompts):
    data, means, whole = prompts
    without = run_with_edges(model, data, drop=other_edges(), means=means)
    assert abs(without.mean() / whole.mean() - 1) < 0.02


def test_each_class_of_edges_is_worth_its_share(model, prompts):
    """As stated, and more than four standard errors from nothing: an edge that is not
    there would be worth nothing."""
    data, means, whole = prompts
    assert tuple(SHARES) == CIRCUIT.edges
    for edge, share in SHARES.items():
        lost = (
            whole
            - run_with_edges(model, data, drop=head_edges(CIRCUIT, [edge]), means=means)
        ) / whole.mean()
        assert lost.mean().item() == pytest.approx(share, abs=0.004), edge
        assert abs(lost.mean()) > 4 * lost.std() / len(data) ** 0.5, edge


def test_edges_into_the_movers_keys_are_weak_even_together(model, prompts):
    data, means, whole = prompts
    to_keys = [
        Edge(*edge)
        for edge in CIRCUIT.edges
        if edge.via == "k" and edge.receiver.endswith("name mover")
    ]
    lost = (
        1
        - run_with_edges(
            model, data, drop=head_edges(CIRCUIT, to_keys), means=means
        ).mean()
        / whole.mean()
    )
    assert len(to_keys) == 6 and lost < 0.15, "the queries do the work"
