"""Walking back from the logits of an unknown model, the second look at each name, and
circuits that are kept."""

import json

import pandas as pd
import pytest
import torch

from ioi_course.attribution import direct_attribution
from ioi_course.batches import cached_batches
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_of
from ioi_course.circuit import SMOLLM2
from ioi_course.kept_circuits import (
    Dossier,
    kept_circuit,
    kept_circuits,
    load_dossier,
    save_dossier,
)
from ioi_course.metrics import logit_diff
from ioi_course.paths import path_patch
from ioi_course.plots import circuit_diagram
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit, Edge
from ioi_course.second_look import bystanders, stranger_says
from ioi_course.selection import that_count
from ioi_course.walkback import (
    POSITIONS,
    exchanged_at,
    look_and_write,
    walk_back,
    writer_class,
)

pytestmark = pytest.mark.usefixtures("no_grad")


def by_hooks(model, data, other, at, layer, head):
    """Logits at END with one head's output at a role from the other prompts."""
    point, rows = f"blocks.{layer}.attn.hook_z", torch.arange(len(data))
    _, cache = model.run_with_cache(other.tokens, names_filter=[point])

    def put(z, hook):
        z[rows, data.pos[at], head] = cache[point][rows, other.pos[at], head]
        return z

    return model.run_with_hooks(data.tokens, fwd_hooks=[(point, put)])


@pytest.mark.parametrize(
    "family", ["gpt2", "llama"]
)  # with a key for each head, and with shared ones
@pytest.mark.parametrize("at", ["END", "S2"])
def test_exchanged_outputs_agree_with_hooks(family, at):
    model = random_of(family)
    data = IOIDataset(model, 5, seed=2)
    other = data.counterfactual("abc")
    found = exchanged_at(model, data, other, at, heads=[(0, 1), (2, 3)])[0]
    base = logit_diff(model(data.tokens), data, per_prompt=True)
    for layer, head in ((0, 1), (2, 3)):
        expected = (
            logit_diff(
                by_hooks(model, data, other, at, layer, head), data, per_prompt=True
            )
            - base
        )
        torch.testing.assert_close(
            found[:, layer, head].double(), expected, atol=1e-5, rtol=1e-4
        )
    assert found[:, 1].abs().max() == 0  # those that were not asked for


def test_a_stranger_speaks_against_a_bystander():
    model = random_of("llama")
    data = IOIDataset(model, 6, seed=4)
    stranger = data.counterfactual("random_names", 0)
    beside, rows, end = bystanders(data, stranger), torch.arange(6), data.pos["END"]
    for i, (one, two) in enumerate(zip(data, stranger, strict=True)):
        assert model.tokenizer.decode([int(beside[i])]).strip() not in {
            *one.names,
            *two.names,
        }
    said = stranger_says(model, data, [(1, 2)])
    change = (by_hooks(model, data, stranger, "END", 1, 2) - model(data.tokens))[
        rows, end
    ]
    for which in (0, 1):
        expected = change[rows, stranger.answers[:, which]] - change[rows, beside]
        torch.testing.assert_close(
            said[which, :, 0].double(), expected, atol=1e-5, rtol=1e-4
        )


def test_what_heads_write_is_their_share_of_the_difference(model):
    data = IOIDataset(model, 12, seed=5)
    seen = look_and_write(model, data)
    direct = direct_attribution(model, data, "head").mean
    apart = (seen.writes[..., 0] - seen.writes[..., 1]).double()
    torch.testing.assert_close(apart, direct.double(), atol=1e-4, rtol=1e-3)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    [(batch, _, cache)] = cached_batches(model, data, names, memory=2)
    rows, end = torch.arange(12), data.pos["END"]
    own = cache[names[9]][rows, :, end, end].mean(dim=0)
    torch.testing.assert_close(
        seen.looks["END"][9, :, -1], own.to(seen.looks["END"]), atol=1e-5, rtol=1e-3
    )


@pytest.mark.parametrize(
    "place, helps, role",
    [
        ("IO", True, "name mover"),
        ("IO", False, "negative name mover"),
        ("S1", True, "subject lowerer"),
        ("S2", True, "subject lowerer"),
        ("S2", False, "subject raiser"),
        ("END", True, "amplifier"),
        ("END", False, "damper"),
        ("S1+1", True, "unplaced writer"),
        ("S1+1", False, "unplaced writer"),
    ],
)
def test_writers_are_named_by_what_they_do(place, helps, role):
    assert writer_class(place, helps) == role and POSITIONS[role] == "END"


def test_the_walk_finds_what_was_written_into_the_synthetic_model(model):
    found = walk_back(model, IOIDataset(model, 24, seed=3), few=4)
    known = {head: role for role, heads in CIRCUIT.roles.items() for head in heads}
    main = {
        head
        for head, role in known.items()
        if role in ("name mover", "negative name mover", "S-inhibition")
    }
    assert all(found.circuit.role_of(*head) == known[head] for head in main)
    assert (
        len(set(found.circuit.heads) & set(known)) >= 20
        and len(set(found.circuit.heads) - set(known)) <= 1
    )
    assert Edge("S-inhibition", "name mover", "q") in found.circuit.edges
    assert (
        found.evidence.loc["L9H9", "effect"] > 2
        and found.evidence.loc["L10H7", "effect"] < -1
    )
    assert (found.evidence["effect"].abs() >= 4 * found.evidence["error"]).all()


def test_what_cannot_be_walked_is_refused(model):
    data = IOIDataset(model, 12)
    with pytest.raises(ValueError, match="two draws or more"):
        walk_back(model, data, draws=1)
    with pytest.raises(ValueError, match="two prompts each"):
        walk_back(model, data[:5], draws=3)
    with pytest.raises(ValueError, match="does not do the task"):
        wrong = IOIDataset(model, 12)
        wrong.answers = wrong.answers.flip(1)
        wrong.batches = lambda size: iter([wrong])
        walk_back(model, wrong)
    with pytest.raises(ValueError, match="at is 'S3'"):
        exchanged_at(model, data, data.counterfactual("abc"), "S3")


def a_dossier() -> Dossier:
    circuit = Circuit(
        {"damper": ((1, 2),)},
        {"damper": "END"},
        [Edge("damper", "logits", "residual")],
        "m",
        "s",
        3,
        4,
    )
    rows = pd.DataFrame(
        {"class": ["damper"], "effect": [-0.5], "error": [float("nan")]}, ["L1H2"]
    )
    return Dossier(circuit, rows, {"model": "m", "prompts": 4}, ("nothing else",))


def test_a_dossier_survives_its_file(tmp_path):
    one, two = (
        a_dossier(),
        load_dossier(save_dossier(a_dossier(), tmp_path / "new" / "m.json")),
    )
    assert (
        two.circuit.roles == one.circuit.roles
        and two.circuit.edges == one.circuit.edges
    )
    assert two.notes == one.notes and two.about == {"model": "m", "prompts": 4}
    assert two.evidence.loc["L1H2", "effect"] == -0.5 and pd.isna(
        two.evidence.loc["L1H2", "error"]
    )
    assert (
        json.loads((tmp_path / "new" / "m.json").read_text())["evidence"]["L1H2"][
            "error"
        ]
        is None
    )
    with pytest.raises(ValueError, match="each head needs one row"):
        Dossier(one.circuit, one.evidence[:0], {})


@pytest.mark.parametrize("name", kept_circuits())
def test_what_is_kept_says_how_it_was_found(name):
    kept = kept_circuit(name)
    assert {
        "date",
        "versions",
        "prompts",
        "draws",
        "few",
        "rule",
        "logit_diff",
        "accuracy",
    } <= set(kept.about)
    found = kept.evidence
    assert (
        found["effect"].abs() >= 4 * found[["error", "over draws"]].max(axis=1) - 1e-3
    ).all()
    assert (found["share"].abs() >= 0.02 - 1e-3).all() and found[
        "confirmed"
    ].notna().sum() >= len(found) / 2
    for head in kept.circuit.heads:
        row = found.loc[f"L{head[0]}H{head[1]}"]
        assert row["class"] == kept.circuit.role_of(*head)
        if row["found by"] == "paths to the logits":
            assert row["class"] == writer_class(row["looks at"], row["effect"] > 0)
    assert "L" in circuit_diagram(kept.circuit).summary


def test_a_circuit_that_is_not_kept():
    with pytest.raises(ValueError, match="No circuit is kept of 'gpt5'"):
        kept_circuit("gpt5")


def test_smollm2_is_among_those_that_are_kept():
    kept = kept_circuit("smollm2")
    assert (
        SMOLLM2 is kept.circuit
        and kept.about["prompts"] >= 200
        and kept.about["draws"] >= 3
    )
    assert (SMOLLM2.n_layers, SMOLLM2.n_heads) == (30, 9)


def test_a_fresh_measurement_on_smollm2_agrees(smollm2_model):
    """The kept writers with a tenth of the difference or more: same sign, and alike
    within four errors of both."""
    kept = kept_circuit("smollm2").evidence
    large = kept[
        (kept["found by"] == "paths to the logits") & (kept["share"].abs() >= 0.1)
    ]
    heads = [tuple(map(int, name[1:].split("H"))) for name in large.index]
    data = IOIDataset(smollm2_model, 24, seed=77)
    paths = path_patch(
        smollm2_model,
        data,
        data.counterfactual("abc", 5),
        senders=heads,
        progress=False,
    )
    found = that_count(
        (paths.base - paths.per_prompt).permute(2, 0, 1), paths.base.mean().item()
    )
    assert len(heads) >= 2
    for head, (effect, *errors) in zip(
        heads, large[["effect", "error", "over draws"]].to_numpy(), strict=True
    ):
        mean, error = found.mean[head].item(), found.over_prompts[head].item()
        assert (
            mean * effect > 0
            and abs(mean - effect) <= 4 * (error**2 + max(errors) ** 2) ** 0.5
        ), head
