"""The finder: its rules on made-up scores, its measurements against plain hooks, and circuits it has not seen."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2LMHeadModel

from ioi_course import finder, finder_rules
from ioi_course.ablation import ablate
from ioi_course.attention import attention_to_roles
from ioi_course.attribution import direct_attribution
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.bundled.synthetic import build_model
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.checks.core import random_data, random_model
from ioi_course.finder import evaluate, find_circuit
from ioi_course.finder_rules import RULES, Thresholds, conditions, propose, robust_z
from ioi_course.metrics import logit_diff
from ioi_course.models import wrap_model
from ioi_course.paths import path_patch
from ioi_course.prompts import IOIDataset
from ioi_course.roles import PAPER, Circuit

QUIET = {"progress": False}


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def data(model):
    return IOIDataset(model, 12, seed=3)


@pytest.fixture(scope="module")
def found(model, data):
    return find_circuit(model, data, path_prompts=4, progress=False)


def other_model(change, name="changed"):
    """The synthetic model with its weights changed, in float32."""
    hf_model = build_model()
    return wrap_model(change(hf_model) or hf_model, build_tokenizer(), name)


def hooks_on(model):
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


# What it finds


def test_it_finds_every_head_of_the_synthetic_model_and_no_other(found):
    assert {role: set(heads) for role, heads in found.circuit.roles.items()} == {
        role: set(heads) for role, heads in CIRCUIT.roles.items()
    }
    assert dict(found.circuit.positions) == dict(CIRCUIT.positions)
    table = found.evaluate(CIRCUIT)
    assert (table[["precision", "recall"]] == 1).all(axis=None) and len(found.mistakes(CIRCUIT)) == 0
    assert found.accuracy == 1 and not found.notes


def test_its_edges_are_the_paths_that_it_has_measured(found):
    edges = set(found.circuit.edges)
    assert edges <= set(PAPER.edges)
    unmeasured = {("S-inhibition", "negative name mover", "q"), ("S-inhibition", "backup name mover", "q")}
    assert set(PAPER.edges) - edges == unmeasured


@pytest.mark.parametrize(("seed", "n", "words"), [(12, 9, {"order": "BABA"}), (13, 8, {"bos": False})])
def test_other_prompts_give_the_same_circuit(seed, n, words):
    small = other_model(lambda hf_model: None)
    data = IOIDataset(small, n, seed, **words)
    table = find_circuit(small, data, path_prompts=3, **QUIET).evaluate(CIRCUIT)
    if words.get("bos", True):
        assert table.loc["all classes", ["proposed", "right"]].tolist() == [26, 26]
    else:  # the heads of this model rest on BOS: without it, not all of the circuit works
        assert table.loc["all classes", "precision"] >= 0.9


def test_heads_are_found_wherever_they_are():
    """Heads are dealt out anew in each layer, here by turning the axis of heads around and rolling it."""

    def move(hf_model):
        n = hf_model.config.n_head
        for layer, block in enumerate(hf_model.transformer.h):
            attn = block.attn
            shape = -1, 3, n, hf_model.config.n_embd // n
            weight = attn.c_attn.weight.view(shape).flip(2).roll(layer, dims=2)
            attn.c_attn.weight.data = weight.reshape(attn.c_attn.weight.shape).contiguous()
            attn.c_attn.bias.data = attn.c_attn.bias.view(shape).flip(2).roll(layer, dims=2).flatten()
            rows = attn.c_proj.weight.view(n, shape[-1], -1).flip(0).roll(layer, dims=0)
            attn.c_proj.weight.data = rows.reshape(attn.c_proj.weight.shape).contiguous()

    moved, data = other_model(move), IOIDataset(build_tokenizer(), 8, seed=5)
    roles = {
        role: [(layer, (11 - head + layer) % 12) for layer, head in heads] for role, heads in CIRCUIT.roles.items()
    }
    key = Circuit(roles, CIRCUIT.positions, CIRCUIT.edges, "moved", "test")
    diff = logit_diff(moved(data.tokens), data)
    assert (diff - logit_diff(other_model(lambda hf_model: None)(data.tokens), data)).abs() < 1e-3, "the same model"
    got = find_circuit(moved, data, path_prompts=3, **QUIET)
    assert got.evaluate(key).loc["all classes", ["proposed", "right"]].tolist() == [26, 26]
    assert got.evaluate(CIRCUIT).loc["all classes", "right"] < 6


def test_it_does_not_know_the_answer_key():
    assert not [name for name, value in vars(finder).items() if value is CIRCUIT or name == "CIRCUIT"]


def random_weights(hf_model):
    torch.manual_seed(0)
    return GPT2LMHeadModel(hf_model.config).eval()


def test_in_random_weights_there_is_nothing_and_it_says_so():
    random = other_model(random_weights)
    data = IOIDataset(random, 64, seed=0)
    nothing = find_circuit(random, data, **QUIET)
    assert len(nothing.circuit) == 0 and "cannot do the task" in nothing.notes[0] and "cannot" in repr(nothing)
    assert nothing.as_dict(CIRCUIT)["precision"] is None and nothing.as_dict(CIRCUIT)["recall"] == 0
    with pytest.raises(ValueError, match="nothing to draw.*cannot do the task"):
        nothing.plot()


@pytest.mark.parametrize("seed", [0, 1])
def test_prompts_that_random_weights_happen_to_get_right_do_not_mislead_it(seed):
    random = other_model(random_weights)
    data = IOIDataset(random, 64, seed)
    lucky = data[logit_diff(random(data.tokens), data, per_prompt=True) > 0]
    nothing = find_circuit(random, lucky, path_prompts=4, **QUIET)
    assert nothing.accuracy == 1 and nothing.base > 0 and "to logits" in nothing.scores
    assert len(nothing.circuit) == 0 and "no head passes as name mover" in nothing.notes[0]


def test_a_head_without_effect_loses_its_role():
    def silence(hf_model):
        hf_model.transformer.h[8].attn.c_proj.weight.data[6 * 32 : 7 * 32] = 0

    silent = other_model(silence)
    got = find_circuit(silent, IOIDataset(silent, 8, seed=1), path_prompts=2, **QUIET)
    assert list(got.mistakes(CIRCUIT).index) == ["L8H6"]
    assert got.mistakes(CIRCUIT).loc["L8H6", "not met"].startswith("to queries: robust z ≥ 6; to queries: ≥ 1 %")


# What it measures


def test_effects_are_those_of_the_chapters(model, data, found):
    base = logit_diff(model(data.tokens), data).item()
    assert (
        found.base == pytest.approx(base) and found.prompts == 12 and list(found.scores.index[:2]) == ["L0H0", "L0H1"]
    )
    direct = direct_attribution(model, data, "head").mean.flatten() / base
    assert np.allclose(found.scores["direct"], direct)
    few = data[:4]
    receivers = found.circuit.roles["name mover"]
    queries = path_patch(model, few, few.counterfactual("abc"), receivers, "q", **QUIET)
    expected = (-queries.change / base).flatten()
    measured = torch.tensor(found.scores["to queries"].to_numpy())
    assert torch.allclose(measured[:120], expected[:120]) and measured[120:].isnan().all(), "no path from layer 10 on"


def test_where_heads_look(model, data, found):
    attention = attention_to_roles(model, data)
    for head, query, role in [
        ((9, 9), "END", "IO"),
        ((8, 6), "END", "S2"),
        ((5, 5), "S2", "S1+1"),
        ((2, 2), "S1+1", "S1"),
    ]:
        name = f"L{head[0]}H{head[1]}"
        assert found.scores.at[name, f"{query} looks at"] == role
        assert found.scores.at[name, f"{query} attention"] == pytest.approx(attention.mean(query, role)[head].item())
    assert set(found.scores["S2 looks at"]) <= {"IO", "S1", "S1+1"}, "not at itself, nor at BOS"


def test_the_knock_out_is_that_of_chapter_11(model, data, found):
    movers, names = found.circuit.roles["name mover"], [f"blocks.{layer}.attn.hook_pattern" for layer in (10, 11)]
    out = ablate(model, data, movers, "mean", at="END", names=names)
    after = torch.tensor(found.scores["direct after knock-out"].to_numpy()).view(12, 12) * found.base
    assert torch.allclose(after, out.direct_after.mean(dim=0), atol=1e-6)
    rows = torch.arange(len(data))
    for layer, head in [(10, 10), (10, 1), (11, 2)]:
        pattern = out.kept[f"blocks.{layer}.attn.hook_pattern"][1]
        to_io = pattern[rows, head, data.pos["END"], data.pos["IO"]].mean().item()
        assert found.scores.at[f"L{layer}H{head}", "END after knock-out attention"] == pytest.approx(to_io)
        assert found.scores.at[f"L{layer}H{head}", "END attention"] < to_io, "it looks at IO more than before"
        assert after[layer, head] > found.scores.at[f"L{layer}H{head}", "direct"] * found.base + 0.2, "and rises"
    assert all(abs(after[head]) < 0.1 for head in movers)


def test_batches_do_not_matter(model, data):
    few, walks = data[:6], []
    for memory in (0.02, 0.5):
        walk = finder._Walk(model, few, few[:2], Thresholds(), memory, pd.DataFrame(index=range(144)), 1.0)
        for step in list(finder._STEPS.values())[:3]:
            step(walk)
        walks.append(walk)
    pd.testing.assert_frame_equal(walks[0].scores, walks[1].scores, atol=1e-8)
    assert "direct after knock-out" in walks[0].scores


# The rules


def background(n=40):
    """Scores of heads that do nothing in particular."""
    quiet = np.linspace(-0.003, 0.003, n)
    effects = dict.fromkeys([*finder_rules.WALK, "direct", "direct after knock-out"], quiet)
    looks = {f"{place} looks at": [""] * n for place in ("END", "S2", "S1+1", "END after knock-out")}
    scores = dict.fromkeys(("previous", "duplicate", "induction"), quiet + 0.01)
    return pd.DataFrame(effects | looks | scores, [f"L0H{i}" for i in range(n)])


MEMBERS = {  # columns of a head that is a member
    "previous token": {"to keys": 0.2, "S1+1 looks at": "S1", "previous": 0.8},
    "duplicate token": {"to values": 0.2, "S2 looks at": "S1", "duplicate": 0.8},
    "induction": {"to values": 0.2, "S2 looks at": "S1+1", "induction": 0.8},
    "S-inhibition": {"to queries": 0.2, "END looks at": "S2"},
    "name mover": {"direct": 0.2, "to logits": 0.2, "END looks at": "IO"},
    "negative name mover": {"direct": -0.2, "to logits": -0.2, "END looks at": "IO"},
    "backup name mover": {"direct after knock-out": 0.2, "END after knock-out looks at": "IO"},
}


@pytest.mark.parametrize("role", RULES)
def test_a_member_is_proposed_and_every_condition_counts(role):
    scores = background()
    scores.loc["L0H7", list(MEMBERS[role])] = list(MEMBERS[role].values())
    proposed = propose(scores)
    assert proposed["L0H7"] == role and (proposed != "").sum() == 1
    assert conditions(scores, role).loc["L0H7"].all()
    for column in MEMBERS[role]:
        without = scores.copy()
        without.loc["L0H7", column] = background().loc["L0H7", column]
        assert (propose(without) == "").all(), f"without {column}"
        assert not conditions(without, role).loc["L0H7"].all()
    assert (propose(scores.drop(columns=list(MEMBERS[role])[0])) == "").all(), "what was not measured is not met"


@pytest.mark.parametrize("role", RULES)
def test_the_wrong_direction_is_no_effect(role):
    scores, member = background(), MEMBERS[role]
    scores.loc["L0H7", list(member)] = [-v if isinstance(v, float) and k not in scores.columns[-3:] else v
                                        for k, v in member.items()]  # fmt: skip
    assert propose(scores)["L0H7"] != role


def test_effects_must_be_large_and_stand_out():
    for spread, effect, thresholds, role in [
        (1e-6, 0.009, Thresholds(), ""),  # stands out, but too small
        (1e-6, 0.011, Thresholds(), "S-inhibition"),
        (0.2, 0.5, Thresholds(), ""),  # large, but so are others
        (0.2, 0.5, Thresholds(outlier=2), "S-inhibition"),
        (1e-6, 0.011, Thresholds(share=0.02), ""),
    ]:
        scores = background()
        scores["to queries"] = np.linspace(-spread, spread, len(scores))
        scores.loc["L0H7", ["to queries", "END looks at"]] = effect, "S2"
        assert propose(scores, thresholds)["L0H7"] == role


def test_a_name_mover_writes_a_tenth():
    scores = background()
    scores.loc["L0H7", ["direct", "to logits", "END looks at"]] = 0.09, 0.09, "IO"
    assert propose(scores)["L0H7"] == "" and propose(scores, Thresholds(main=0.08))["L0H7"] == "name mover"


def test_unknown_class():
    with pytest.raises(ValueError, match="no rules for 'mover'; choose from previous token"):
        conditions(background(), "mover")


def test_robust_z():
    values = pd.Series([1.0, 2, 3, 4, 100, np.nan], list("abcdef"))
    z = robust_z(values)  # median 3; distances 2 1 0 1 97, median 1
    assert z.iloc[:5].tolist() == pytest.approx([-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826, 97 / 1.4826])
    assert math.isnan(z["f"]) and list(z.index) == list("abcdef")
    same = robust_z(pd.Series([2.0, 2, 2, 2, 3, 1]))
    assert same.tolist() == [0, 0, 0, 0, np.inf, -np.inf]
    assert robust_z(pd.Series([np.nan, np.nan])).isna().all()


# Its result


def small_circuit(**roles):
    roles = {role.replace("_", " "): heads for role, heads in roles.items()}
    return Circuit(roles, dict.fromkeys(roles, "END"), (), "m", "test")


def test_precision_and_recall_by_hand():
    key = small_circuit(name_mover=[(9, 9), (9, 6), (10, 0)], induction=[(5, 5)], previous_token=[(2, 2)])
    proposed = small_circuit(name_mover=[(9, 9), (5, 5)], induction=[(5, 1)])
    table = evaluate(proposed, key)
    assert table.loc["name mover"].tolist() == pytest.approx([3, 2, 1, 1 / 2, 1 / 3])
    assert table.loc["induction"].tolist() == [1, 1, 0, 0, 0]
    assert table.loc["previous token", "recall"] == 0 and math.isnan(table.loc["previous token", "precision"])
    assert table.loc["all classes"].tolist() == pytest.approx([5, 3, 1, 1 / 3, 1 / 5])
    assert table.loc["any class"].tolist() == pytest.approx([5, 3, 2, 2 / 3, 2 / 5])
    extra = evaluate(key, proposed)
    assert math.isnan(extra.loc["previous token", "recall"]) and extra.loc["previous token", "precision"] == 0


def test_a_key_for_another_shape():
    other = Circuit({"induction": [(0, 1)]}, {"induction": "S2"}, (), "m", "test", n_layers=2, n_heads=2)
    with pytest.raises(ValueError, match="12 layers of 12 heads, but the key is for 2 layers of 2 heads"):
        evaluate(CIRCUIT, other)


def test_mistakes_and_explain(found):
    roles = {role: list(heads) for role, heads in CIRCUIT.roles.items()}
    roles["name mover"].remove((9, 6))
    roles["induction"].append((9, 6))
    roles["duplicate token"].append((1, 1))
    roles["something else"] = [roles["S-inhibition"].pop()]
    key = Circuit(roles, {**CIRCUIT.positions, "something else": "END"}, (), "m", "test")
    mistakes = found.mistakes(key)
    assert mistakes.index.tolist() == ["L1H1", "L8H10", "L9H6"]
    assert mistakes.loc["L9H6", ["in the key", "proposed"]].tolist() == ["induction", "name mover"]
    assert "induction score" in mistakes.loc["L9H6", "not met"] and mistakes.loc["L8H10", "not met"] == ""
    assert mistakes.loc["L1H1", "proposed"] == ""
    assert found.explain(9, 9, "name mover").all() and not found.explain(9, 9, "S-inhibition")["END: looks at S2"]
    with pytest.raises(ValueError, match="no L12H0 in 12 layers of 12 heads"):
        found.explain(12, 0, "induction")


def test_how_it_shows_itself(found):
    table = found.table()
    assert len(table) == 26 and table.loc["L9H9", ["class", "acts at", "looks at"]].tolist() == [
        "name mover",
        "END",
        "IO",
    ]
    assert table.loc["L10H7", "share"] < -0.1 and table.loc["L10H10", "effect"] == "direct after knock-out"
    text = repr(found)
    assert text.startswith("26 heads with a role (model synthetic; 12 prompts, logit difference") and "L8H10" in text
    assert "<table" in found._repr_html_() and "L8H10" in found._repr_html_()
    assert "L8H10" in repr(found.plot())


def test_it_becomes_json(found):
    back = json.loads(json.dumps(found.as_dict(CIRCUIT), allow_nan=False))
    assert back["precision"] == back["recall"] == 1 and back["roles"]["name mover"] == [[9, 6], [9, 9], [10, 0]]
    assert back["by_class"]["induction"] == {"precision": 1, "recall": 1} and back["thresholds"]["share"] == 0.01
    without = found.as_dict()
    assert (
        without["precision"] is without["recall"] is without["by_class"] is None
        and without["positions"]["induction"] == "S2"
    )
    some = small_circuit(induction=[(0, 0)])
    partial = found.as_dict(some)["by_class"]
    assert partial["name mover"] == {"precision": 0, "recall": None}


# What cannot be


@pytest.mark.parametrize("path_prompts", [0, -1, 2.5, True, "4"])
def test_a_wrong_number_of_prompts(model, data, path_prompts):
    with pytest.raises(ValueError, match="path_prompts is .*at least 1"):
        find_circuit(model, data, path_prompts=path_prompts)


def test_prompts_that_it_cannot_use(model, data):
    with pytest.raises(TypeError, match="IOIDataset"):
        find_circuit(model, data.tokens)
    with pytest.raises(ValueError):
        find_circuit(model, data.counterfactual("abc"), **QUIET)
    with pytest.raises(ValueError, match="memory"):
        find_circuit(model, data, memory=0, **QUIET)


def test_another_shape_of_model():
    """Three layers of four heads with random weights, few prompts: it runs to the end or stops with a reason."""
    model, data = random_model(), random_data(random_model(), 8)
    lucky = data[logit_diff(model(data.tokens), data, per_prompt=True) > 0]
    got = find_circuit(model, lucky, path_prompts=2, **QUIET)
    assert got.scores.shape[0] == 12 and (got.notes or len(got.circuit))


@pytest.mark.parametrize("at", ["path_patch", "by_roles", "head_scores"])
def test_no_hooks_stay_behind_when_it_fails(model, data, monkeypatch, at):
    before = hooks_on(model)

    def fail(*args, **options):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(finder, at, fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        find_circuit(model, data[:6], path_prompts=2, **QUIET)
    assert hooks_on(model) == before


def test_receivers_in_the_first_layer_are_fed_by_no_head(model, data, monkeypatch):
    walk = finder._Walk(model, data, data[:2], Thresholds(), 0.5, pd.DataFrame(index=["L0H0"]), 1.0)
    monkeypatch.setattr(finder._Walk, "heads", lambda self, role: [(0, 3)])
    finder._follow(walk, "to keys")
    assert walk.notes == ["all induction heads are in layer 0, so no head feeds them"] and "to keys" not in walk.scores
