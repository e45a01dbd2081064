"""The finder: its rules on made-up scores, what it measures, and unseen circuits."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2LMHeadModel

from ioi_course import finder
from ioi_course.ablation import ablate
from ioi_course.attention import attention_to_roles
from ioi_course.attribution import direct_attribution
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.bundled.heads import background_head, class_head, mover_head
from ioi_course.bundled.synthetic import build_model
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.checks.core import random_data, random_model
from ioi_course.finder import find_circuit
from ioi_course.finder_rules import RULES, Thresholds, conditions, propose
from ioi_course.looks import lead
from ioi_course.messages import Into, keep_runs, messages
from ioi_course.metrics import logit_diff
from ioi_course.models import wrap_model
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit

QUICK = {"progress": False, "path_prompts": 12, "draws": 2}


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def data(model):
    """The prompts of `found`."""
    return IOIDataset(model, 20, seed=3)


def hooks_on(model):
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


# What it finds


def test_it_finds_every_head_of_the_synthetic_model_and_no_other(found):
    proposed = {role: set(heads) for role, heads in found.circuit.roles.items()}
    assert proposed == {role: set(heads) for role, heads in CIRCUIT.roles.items()}
    assert dict(found.circuit.positions) == dict(CIRCUIT.positions)
    table = found.evaluate(CIRCUIT)
    assert (table[["precision", "recall"]] == 1).all(axis=None)
    assert len(found.mistakes(CIRCUIT)) == 0 and found.accuracy == 1 and not found.notes


def test_its_edges_are_paths_that_it_has_measured_and_that_are_written(found):
    edges = set(found.circuit.edges)
    assert edges <= set(CIRCUIT.edges)
    assert ("previous token", "induction", "k") in edges
    assert ("S-inhibition", "name mover", "q") in edges
    assert ("S-inhibition", "negative name mover", "q") not in edges, "not measured"


def test_a_plan_that_it_has_not_seen():
    """No negative heads, S-inhibition heads elsewhere, and a head that lowers S."""
    lowerer = {"name": 4, "repeated": 4, "position": 1.2, "rest": 7.0, "gain": -0.45}
    gone = [*CIRCUIT.roles["negative name mover"], *CIRCUIT.roles["S-inhibition"]]
    plan = {head: background_head(*head) for head in gone}
    moved = {(7, 3): (7, 0), (7, 9): (7, 1), (8, 6): (8, 0), (8, 10): (8, 1)}
    plan |= {new: class_head(old, new[0]) for old, new in moved.items()}
    plan[9, 2] = mover_head(**lowerer)
    changed = wrap_model(build_model(plan), build_tokenizer(), "unseen")
    got = find_circuit(changed, IOIDataset(changed, 24, seed=9), **QUICK)
    assert set(got.circuit.roles["S-inhibition"]) == set(moved.values())
    assert got.circuit.roles["subject lowerer"] == ((9, 2),)
    assert "negative name mover" not in got.circuit.roles
    assert got.circuit.roles["duplicate token"] == CIRCUIT.roles["duplicate token"]


def test_it_does_not_know_the_answer_key():
    known = [name for name, value in vars(finder).items() if value is CIRCUIT]
    assert not known and "CIRCUIT" not in vars(finder)


@pytest.fixture(scope="module")
def random():
    """The synthetic model's shape and tokenizer, and random weights."""
    torch.manual_seed(0)
    hf_model = GPT2LMHeadModel(build_model().config).eval()
    return wrap_model(hf_model, build_tokenizer(), "random")


def test_in_random_weights_there_is_nothing_and_it_says_so(random):
    nothing = find_circuit(random, IOIDataset(random, 64, seed=0), **QUICK)
    assert len(nothing.circuit) == 0 and "cannot do the task" in nothing.notes[0]
    assert "cannot" in repr(nothing)
    report = nothing.as_dict(CIRCUIT)
    assert report["precision"] is None and report["recall"] == 0
    assert report["evidence"] == {}
    with pytest.raises(ValueError, match="nothing to draw.*cannot do the task"):
        nothing.plot()


def test_prompts_that_random_weights_happen_to_get_right_do_not_mislead_it(random):
    data = IOIDataset(random, 64, seed=0)
    lucky = data[logit_diff(random(data.tokens), data, per_prompt=True) > 0]
    nothing = find_circuit(random, lucky, **QUICK)
    assert nothing.accuracy == 1 and nothing.base > 0 and "to logits" in nothing.scores
    assert len(nothing.circuit) == 0 and "no head above layer 0" in nothing.notes[0]


# What it measures


def test_direct_effects_and_the_knock_out_are_those_of_the_chapters(model, data, found):
    base = logit_diff(model(data.tokens), data).item()
    assert found.base == pytest.approx(base) and found.prompts == 20
    direct = direct_attribution(model, data, "head").mean.flatten() / base
    assert np.allclose(found.scores["direct"], direct)
    movers, names = found.circuit.roles["name mover"], ["blocks.10.attn.hook_pattern"]
    out = ablate(model, data, movers, "mean", at="END", names=names)
    after = found.scores["direct after knock-out"] * found.base
    expected = out.direct_after.mean(dim=0).flatten()
    assert np.allclose(after, expected, atol=1e-6)
    error = out.direct_after.flatten(1).std(dim=0) / 20**0.5
    given = found.scores["direct after knock-out error"] * found.base
    assert np.allclose(given, error, atol=1e-6)
    rows = torch.arange(len(data))
    pattern = out.kept[names[0]][1][rows, 10, data.pos["END"], data.pos["IO"]]
    seen = found.scores.at["L10H10", "END after knock-out attention"]
    assert seen == pytest.approx(pattern.mean().item())
    assert found.scores.at["L10H10", "END attention"] < seen, "it looks at IO more"


def test_effects_and_errors_are_those_of_its_messages(model, data, found):
    runs = keep_runs(model, data[-12:], 2)
    movers = found.circuit.roles["name mover"]
    sent = messages(runs, [(8, 6), (8, 10)], Into(movers, "q"))
    effect = (sent[..., 0] - sent[..., 1]) / found.base
    row = found.scores.loc[["L8H6", "L8H10"]]
    assert np.allclose(row["name mover q"], effect.mean(dim=(0, 1)))
    prompts = effect.mean(dim=0).std(dim=0) / 12**0.5
    draws = effect.mean(dim=1).std(dim=0) / 2**0.5
    assert np.allclose(row["name mover q error"], torch.maximum(prompts, draws))
    assert (row["to queries via"] == "name mover q").all()
    assert np.allclose(row["to queries"], row["name mover q"])
    assert np.isnan(found.scores.loc["L10H0", "name mover q"]), "no path from there"


def test_where_heads_look(model, data, found):
    attention = attention_to_roles(model, data)
    for head, query, role in [
        ((9, 9), "END", "IO"),
        ((8, 6), "END", "S2"),
        ((5, 5), "S2", "S1+1"),
        ((2, 2), "S1+1", "S1"),
    ]:
        row = found.scores.loc[f"L{head[0]}H{head[1]}"]
        assert row[f"{query} looks at"] == role and row[f"{query} lead"] > 4
        expected = attention.mean(query, role)[head].item()
        assert row[f"{query} attention"] == pytest.approx(expected)


def test_a_lead_counts_errors_over_the_nearest_rival():
    attention = torch.tensor([[0.5, 0.2, 0.1], [0.7, 0.3, 0.6], [0.6, 0.4, 0.1]])
    best, mean, ahead = lead(attention, torch.full((3,), 0.05))
    gaps = [attention[:, 0] - attention[:, rival] for rival in (1, 2)]
    leads = [(gap.mean() / (gap.std() / 3**0.5)).item() for gap in gaps]
    assert best == 0 and mean == pytest.approx(0.6)
    assert ahead == pytest.approx(min(leads))
    as_even = lead(attention, torch.full((3,), 0.6))[2]
    assert as_even == pytest.approx(0, abs=1e-5), "even attention is as much"


# The rules


EFFECTS = ("to logits", "to logits IO", "to logits S", "to queries", "from S2",
           "from S1+1", "direct after knock-out")  # fmt: skip
PLACES = ("END", "S2", "S1+1", "END after knock-out")


def background(n=40):
    """Scores of heads that do nothing in particular, measured well."""
    quiet = np.linspace(-0.003, 0.003, n)
    scores = {effect: quiet for effect in EFFECTS}
    scores |= {f"{effect} error": np.full(n, 0.002) for effect in EFFECTS}
    for place in PLACES:
        scores |= {f"{place} looks at": ["IO"] * n, f"{place} lead": np.full(n, 0.5)}
    scores |= {f"{kind} lead": 0.5 for kind in ("previous", "duplicate", "induction")}
    return pd.DataFrame(scores, [f"L0H{i}" for i in range(n)])


def looking(place, at):
    return {f"{place} looks at": at, f"{place} lead": 9.0}


MEMBERS = {  # columns of a head that is a member
    "previous token": {"from S1+1": 0.2, "previous lead": 9.0, **looking("S1+1", "S1")},
    "duplicate token": {"from S2": 0.2, "duplicate lead": 9.0, **looking("S2", "S1")},
    "induction": {"from S2": 0.2, "induction lead": 9.0, **looking("S2", "S1+1")},
    "S-inhibition": {"to queries": 0.2, **looking("END", "S2")},
    "name mover": {"to logits": 0.2, "to logits IO": 0.2, **looking("END", "IO")},
    "negative name mover": {
        "to logits": -0.2,
        "to logits IO": -0.2,
        **looking("END", "IO"),
    },  # fmt: skip
    "backup name mover": {
        "direct after knock-out": 0.2,
        **looking("END after knock-out", "IO"),
    },  # fmt: skip
    "subject lowerer": {
        "to logits": 0.2,
        "to logits S": -0.2,
        **looking("END", "S2"),
    },  # fmt: skip
    "amplifier": {"to logits": 0.2, **looking("END", "END")},
    "damper": {"to logits": -0.2, **looking("END", "END")},
    "unplaced writer": {"to logits": -0.2},
    "unplaced messenger": {"to queries": -0.2},
    "unplaced at S2": {"from S2": 0.2},
    "unplaced at S1+1": {"from S1+1": -0.2},
}


@pytest.mark.parametrize("role", RULES)
def test_a_member_is_proposed_and_every_condition_counts(role):
    scores, member = background(), MEMBERS[role]
    scores.loc["L0H7", list(member)] = list(member.values())
    proposed = propose(scores)
    assert proposed["L0H7"] == role and (proposed != "").sum() == 1
    assert conditions(scores, role).loc["L0H7"].all()
    for column in member:
        without = scores.copy()
        without.loc["L0H7", column] = background().loc["L0H7", column]
        if not (column.endswith("looks at") and member[column] == "IO"):
            assert propose(without)["L0H7"] != role, f"without {column}"
    effect = RULES[role].effect
    noisy = scores.assign(**{f"{effect} error": 0.06})
    assert (propose(noisy) == "").all(), "less than four errors from zero"
    assert (propose(scores.drop(columns=f"{effect} error")) == "").all(), "no error"
    assert (propose(scores.drop(columns=effect)) == "").all(), "not measured"


@pytest.mark.parametrize("role", [role for role, rule in RULES.items() if rule.sign])
def test_the_wrong_direction_is_another_class(role):
    scores, member = background(), MEMBERS[role]
    turned = [-v if c in EFFECTS else v for c, v in member.items()]
    scores.loc["L0H7", list(member)] = turned
    assert propose(scores)["L0H7"] != role


def test_effects_must_be_sure_and_large():
    for error, effect, thresholds, role in [
        (0.001, 0.019, Thresholds(), ""),  # sure, but too small
        (0.001, 0.021, Thresholds(), "S-inhibition"),
        (0.2, 0.5, Thresholds(), ""),  # large, but not sure
        (0.2, 0.5, Thresholds(errors=2), "S-inhibition"),
        (0.001, 0.021, Thresholds(share=0.03), ""),
    ]:
        scores = background()
        columns = ["to queries", "to queries error", "END looks at", "END lead"]
        scores.loc["L0H7", columns] = effect, error, "S2", 9.0
        assert propose(scores, thresholds)["L0H7"] == role


def test_a_name_mover_writes_a_tenth():
    scores, member = background(), MEMBERS["name mover"] | {"to logits": 0.09}
    scores.loc["L0H7", list(member)] = list(member.values())
    assert propose(scores)["L0H7"] == "unplaced writer"
    assert propose(scores, Thresholds(main=0.08))["L0H7"] == "name mover"


def test_the_larger_effect_decides_between_two_classes():
    scores = background()
    both = MEMBERS["S-inhibition"] | MEMBERS["subject lowerer"]
    for queries, role in ((0.3, "S-inhibition"), (0.1, "subject lowerer")):
        both["to queries"] = queries
        scores.loc["L0H7", list(both)] = list(both.values())
        assert propose(scores)["L0H7"] == role


def test_unknown_class():
    with pytest.raises(ValueError, match="No rules for 'mover'; choose from previous"):
        conditions(background(), "mover")


# Its result


def small_circuit(**roles):
    roles = {role.replace("_", " "): heads for role, heads in roles.items()}
    return Circuit(roles, dict.fromkeys(roles, "END"), (), "m", "test")


def test_mistakes_and_explain(found):
    roles = {role: list(heads) for role, heads in CIRCUIT.roles.items()}
    roles["name mover"].remove((9, 6))
    roles["induction"].append((9, 6))
    roles["duplicate token"].append((1, 1))
    roles["something else"] = [roles["S-inhibition"].pop()]
    positions = {**CIRCUIT.positions, "something else": "END"}
    mistakes = found.mistakes(Circuit(roles, positions, (), "m", "test"))
    assert mistakes.index.tolist() == ["L1H1", "L8H10", "L9H6"]
    said = mistakes.loc["L9H6", ["in the key", "proposed"]].tolist()
    assert said == ["induction", "name mover"]
    assert "induction score" in mistakes.loc["L9H6", "not met"]
    assert mistakes.loc["L8H10", "not met"] == ""
    assert mistakes.loc["L1H1", "proposed"] == ""
    assert found.explain(9, 9, "name mover").all()
    assert not found.explain(9, 9, "S-inhibition")["END: looks at S2"]
    with pytest.raises(ValueError, match="no L12H0 in 12 layers of 12 heads"):
        found.explain(12, 0, "induction")


def test_how_it_shows_itself(found):
    table = found.table()
    told = table.loc["L9H9", ["class", "acts at", "looks at"]].tolist()
    assert len(table) == 26 and told == ["name mover", "END", "IO"]
    assert table.loc["L10H7", "share"] < -0.1 and (table["error"] > 0).all()
    assert table.loc["L10H10", "effect"] == "direct after knock-out"
    text = repr(found)
    assert text.startswith("26 heads with a role (model synthetic; 20 prompts, logit")
    assert "L8H10" in text and "L8H10" in repr(found.plot())
    assert "<table" in found._repr_html_() and "L8H10" in found._repr_html_()


def test_it_becomes_json_with_the_evidence_of_each_head(found):
    back = json.loads(json.dumps(found.as_dict(CIRCUIT), allow_nan=False))
    assert back["precision"] == back["recall"] == 1
    assert back["roles"]["name mover"] == [[9, 6], [9, 9], [10, 0]]
    assert back["by_class"]["induction"] == {"precision": 1, "recall": 1}
    assert back["thresholds"] == {"errors": 4, "share": 0.02, "main": 0.1}
    assert len(back["evidence"]) == 26
    for evidence in back["evidence"].values():
        assert abs(evidence["share"]) >= 4 * evidence["error"] > 0
    mover = back["evidence"]["L9H9"]
    assert mover["class"] == "name mover" and mover["to logits IO"] > 0.1
    without = found.as_dict()
    assert without["precision"] is without["recall"] is without["by_class"] is None
    assert without["positions"]["induction"] == "S2"
    partial = found.as_dict(small_circuit(induction=[(0, 0)]))["by_class"]
    assert partial["name mover"] == {"precision": 0, "recall": None}


# What cannot be


@pytest.mark.parametrize("path_prompts", [0, 1, -1, 2.5, True, "4"])
def test_a_wrong_number_of_prompts(model, data, path_prompts):
    with pytest.raises(ValueError, match="path_prompts is .*at least 2"):
        find_circuit(model, data, path_prompts=path_prompts)


def test_prompts_that_it_cannot_use(model, data):
    with pytest.raises(TypeError, match="IOIDataset"):
        find_circuit(model, data.tokens)
    with pytest.raises(ValueError):
        find_circuit(model, data.counterfactual("abc"), **QUICK)
    with pytest.raises(ValueError, match="memory"):
        find_circuit(model, data, memory=0, **QUICK)
    with pytest.raises(ValueError, match="draws is 0; give a number, at least 1"):
        find_circuit(model, data, draws=0)
    with pytest.raises(ValueError, match="1 prompt has no error"):
        find_circuit(model, data[:1])


def test_a_model_that_the_engine_does_not_serve(model, data, monkeypatch):
    monkeypatch.setattr(finder, "unsupported", lambda model: "it is odd")
    with pytest.raises(ValueError, match="Only the engine patches.*but it is odd"):
        find_circuit(model, data)


def test_another_shape_of_model():
    """Three layers of four heads with random weights: it ends, or says why not."""
    model, data = random_model(), random_data(random_model(), 8)
    lucky = data[logit_diff(model(data.tokens), data, per_prompt=True) > 0]
    got = find_circuit(model, lucky, **QUICK)
    assert got.scores.shape[0] == 12 and (got.notes or len(got.circuit))


@pytest.mark.parametrize("at", ["messages", "looks", "scores_on_repeats"])
def test_no_hooks_stay_behind_when_it_fails(model, data, monkeypatch, at):
    before = hooks_on(model)

    def fail(*args, **options):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(finder, at, fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        find_circuit(model, data[:10], **QUICK)
    assert hooks_on(model) == before
