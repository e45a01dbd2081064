"""Protocols, planted heads, sets broken together and scrubs, each
against a version by hand."""

import pytest
import torch

from ioi_course.breaking import Breaker, class_nodes, outside
from ioi_course.bundled.answer_key import CIRCUIT, known_circuit
from ioi_course.bundled.planted import KINDS, Plant, draw_plant, planted_model
from ioi_course.checks.core import random_data, random_model
from ioi_course.circuit import nodes, run_circuit, run_without
from ioi_course.edges import head_edges, run_with_edges
from ioi_course.means import abc_reference
from ioi_course.metrics import logit_diff
from ioi_course.protocols import (
    CHOICES,
    SIX,
    Protocol,
    in_its_place,
    protocols,
    run_protocol,
)
from ioi_course.roles import Circuit
from ioi_course.scrubbing import partners, scrub, scrubs

SMALL = Circuit(
    roles={"early": ((0, 1), (0, 3), (1, 2)), "late": ((1, 0), (2, 1), (2, 2))},
    positions={"early": "S2", "late": "END"},
    edges=(("early", "late", "v"), ("late", "logits", "residual")),
    name="small",
    source="a test",
    n_layers=3,
    n_heads=4,
)


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def small():
    model = random_model()
    return model, random_data(model, 6, seed=3)


# --- protocols ---


def test_six_protocols_differ_from_the_papers_in_one_choice():
    paper = SIX["the paper's"]
    for name, each in SIX.items():
        assert sum(a != b for a, b in zip(each, paper, strict=True)) == (
            name != "the paper's"
        )
    assert {each.put for each in SIX.values()} == set(CHOICES["put"])


def test_what_takes_a_heads_place(small):
    model, data = small
    zero, mean, resampled = (
        in_its_place(model, data, put) for put in ("zero", "mean", "resample")
    )
    assert not any(each.any() for each in zero) and zero[0].shape == resampled[0].shape
    assert all(torch.equal(each[0], each[4]) for each in mean)
    cache = model.run_with_cache(data.counterfactual("abc", 0).tokens)[1]
    for i, end in enumerate(data.pos["END"].tolist()):
        assert torch.allclose(
            resampled[1][i, : end + 1],
            cache["blocks.1.attn.hook_z"][i, : end + 1],
            atol=1e-8,
        )
    assert not torch.allclose(
        resampled[1], in_its_place(model, data, "resample", seed=1)[1]
    )


def test_a_mean_over_templates_leaves_out_padding(small):
    model, data = small
    reference = abc_reference(data)
    z = model.run_with_cache(reference.tokens)[1]["blocks.2.attn.hook_z"]
    at = int(data.lengths.max()) - 1
    expected = z[reference.lengths > at][:, at].mean(dim=0)
    assert torch.allclose(
        in_its_place(model, data, "mean")[2][0, at], expected, atol=1e-8
    )


def test_protocols_run_what_they_say(small):
    model, data = small
    means = in_its_place(model, data)
    assert torch.equal(
        run_protocol(model, data, SMALL, means=means),
        run_circuit(model, data, nodes(SMALL), means),
    )
    edges = run_protocol(
        model, data, SMALL, Protocol(parts="edges", where="everywhere"), means
    )
    assert torch.equal(
        edges, run_with_edges(model, data, head_edges(SMALL), means=means)
    )

    def hook(z, hook):
        new = means[hook.layer()].clone()
        for head in [head for layer, head in nodes(SMALL) if layer == hook.layer()]:
            new[:, :, head] = z[:, :, head]
        return new

    hooks = [(f"blocks.{layer}.attn.hook_z", hook) for layer in range(3)]
    by_hand = logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
    everywhere = run_protocol(model, data, SMALL, Protocol(where="everywhere"), means)
    assert torch.allclose(everywhere, by_hand, atol=1e-8)


def test_edges_at_roles_with_every_edge_are_nodes(small):
    model, data = small
    keep, means = nodes(SMALL), in_its_place(model, data)
    every = [(a, b, via) for a in keep for b in keep if a[0] < b[0] for via in "qkv"]
    every += [(a, "logits", "residual") for a in keep]
    found = run_with_edges(model, data, every, means=means, at=keep)
    assert torch.allclose(found, run_circuit(model, data, keep, means), atol=1e-8)
    with pytest.raises(ValueError, match="at has L0H1 at 'END2'"):
        run_with_edges(model, data, every, means=means, at={(0, 1): "END2"})


def test_a_table_of_protocols(small):
    model, data = small
    found = protocols(
        model, data, SMALL, {"zero": SIX["zero"], "edges": (SIX["edges"], SMALL)}
    )
    assert list(found.table().index) == ["zero", "edges"] and found.by_template()[
        "prompts"
    ].sum() == len(data)
    assert torch.allclose(
        found.runs["zero"], run_protocol(model, data, SMALL, SIX["zero"])
    )
    assert "2 protocols" in repr(found) and "zero" in found.plot().table
    with pytest.raises(ValueError, match="parts is 'heads'"):
        protocols(model, data, SMALL, {"x": Protocol(parts="heads")})


# --- planted heads ---


def test_a_drawn_plant_is_in_no_class_and_the_same_for_a_seed():
    for seed in range(8):
        for kind in KINDS:
            plant = draw_plant(seed, kind)
            assert (
                plant == draw_plant(seed, kind)
                and plant.at not in CIRCUIT.heads
                and plant.at[0] in KINDS[kind][1]
            )
    assert draw_plant(0, "duplicate token").node[1] == "S2"


def test_the_sleeper_is_awake_without_the_name_movers(model):
    """Faithful with it missing, incomplete without the name movers, and complete
    again without the sleeper."""
    plant = draw_plant(0, "sleeper")
    planted = planted_model(plant)
    assert known_circuit(planted) is None and planted.cfg.n_heads == 12
    broken = Breaker(planted, random_data(planted, 16, seed=5), CIRCUIT)
    movers = class_nodes(CIRCUIT)["name mover"]
    alone, whole = broken([{}, movers, movers | dict([plant.node])])
    gaps = (whole - alone).abs().tolist()
    assert gaps[0] < 0.3 and gaps[1] > 0.6 and gaps[2] < 0.3


@pytest.mark.parametrize(
    "plant, message",
    [
        (Plant((9, 9), (9, 6)), "is taken"),
        (Plant((9, 3), (9, 3)), "in no class"),
        (Plant((0, 12), (9, 6)), "no place"),
    ],
)
def test_plants_that_cannot_be(plant, message):
    with pytest.raises(ValueError, match=message):
        planted_model(plant)


# --- breaking ---


def test_breaking_together(small):
    model, data = small
    broken, means = Breaker(model, data, SMALL), in_its_place(model, data)
    sets = [{}, {(2, 1): "END"}, {(2, 1): "END", (2, 3): "END"}, {(0, 1): "END"}]
    alone, whole = broken.per_prompt(sets)
    left = {head: role for head, role in nodes(SMALL).items() if head != (2, 1)}
    assert torch.allclose(
        alone[1], run_circuit(model, data, left, means)
    ) and torch.equal(alone[1], alone[2])
    # the circuit has this head at S2, and never at END
    assert torch.allclose(alone[3], alone[0])
    assert all(
        torch.allclose(w, run_without(model, data, some, means))
        for w, some in zip(whole, sets, strict=True)
    )
    known = len(broken.known)
    assert (
        torch.equal(broken(sets)[1], whole.mean(dim=1)) and len(broken.known) == known
    )


def test_what_is_outside():
    assert len(outside(SMALL)) == 2 * (12 - len(SMALL)) and list(
        class_nodes(SMALL)
    ) == ["none", "early", "late"]


# --- scrubs ---


def test_partners_agree_where_they_should(small):
    _, data = small
    for agree in ((), ("IO",), ("IO", "S"), ("template", "order"), ("place",)):
        others = partners(data, agree, seed=1)
        for mine, theirs in zip(data, others, strict=True):
            assert mine != theirs and all(
                getattr(mine, name) == getattr(theirs, name) for name in agree
            )
    strangers = partners(data, (), seed=2)
    assert sum(
        a.template == b.template for a, b in zip(data, strangers, strict=True)
    ) < len(data)
    with pytest.raises(ValueError, match="No other prompt agrees"):
        partners(data, ("template", "order", "IO", "S", "place", "object"))


def test_a_scrub_with_oneself_changes_nothing(small):
    model, data = small
    whole = logit_diff(model(data.tokens), data, per_prompt=True)
    assert torch.allclose(scrub(model, data, nodes(SMALL), data), whole)
    with pytest.raises(ValueError, match="2 partners for 6 prompts"):
        scrub(model, data, nodes(SMALL), data[:2])


def test_scrubs_count_from_strangers(small):
    model, data = small
    found = scrubs(
        model, data, nodes(SMALL), {"itself": ("IO", "S", "template", "order")}, draws=2
    )
    table = found.table()
    assert table.loc["nothing", "left"] == pytest.approx(found.nothing.mean().item())
    assert found.nothing.shape == (2, 6) and "2 draws" in repr(found)
