"""Direct logit attribution: sums, agreement with other computations,
batches, odd models, errors."""

import pandas as pd
import pytest
import torch
from transformer_lens import ActivationCache

from ioi_course.attribution import (
    Attribution,
    direct_attribution,
    held_direction,
    recovery,
    source_attribution,
)
from ioi_course.bundled.answer_key import CIRCUIT, known_circuit
from ioi_course.checks.core import random_data, random_model
from ioi_course.lens import answer_direction, residual_lens
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

MOVERS = {"L9H9": 3.28, "L9H6": 2.05, "L10H7": -1.81, "L11H10": -1.12, "L10H0": 0.83}
ROLES = ["IO", "S1", "S1+1", "S2", "END"]


@pytest.fixture(scope="module")
def demo(model):
    return IOIDataset.demo(model)


@pytest.fixture(scope="module")
def by_head(model, demo):
    return direct_attribution(model, demo, by="head")


def small_models():
    yield random_model(0)
    yield random_model(1, processing=())
    yield random_model(2, n_layers=2, n_heads=2, d_model=16)


# --- the sum ---


@pytest.mark.parametrize("which", range(3))
def test_the_parts_add_up_to_the_logit_difference(which):
    small = list(small_models())[which]
    data = random_data(small, 7, seed=which)
    parts = direct_attribution(small, data)
    diff = logit_diff(small(data.tokens), data, per_prompt=True)
    assert parts.axes == ("part",) and parts.values.shape == (
        7,
        3 + 3 * small.cfg.n_layers,
    )
    torch.testing.assert_close(parts.values.sum(dim=1), diff, rtol=1e-9, atol=1e-9)


def test_the_parts_add_up_in_float32(random_gpt2):
    from ioi_course.models import load_model

    gpt2 = load_model(str(random_gpt2))
    data = IOIDataset(gpt2, 6)
    parts = direct_attribution(gpt2, data)
    diff = logit_diff(gpt2(data.tokens), data, per_prompt=True)
    assert parts.values.dtype == torch.float32
    assert (
        parts.values.sum(dim=1) - diff
    ).abs().max() < 1e-4 * diff.abs().mean().clamp(min=1)
    heads = direct_attribution(gpt2, data, by="head").values.sum(dim=2)
    torch.testing.assert_close(
        heads, parts.values[:, 2:-1].reshape(6, 12, 3)[..., 0], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("which", range(3))
def test_heads_and_neurons_add_up_to_their_layers(which):
    small = list(small_models())[which]
    data = random_data(small, 5, seed=which)
    parts, heads, neurons = (
        direct_attribution(small, data, by=by) for by in ("part", "head", "neuron")
    )
    of_layers = parts.values[:, 2:-1].reshape(5, small.cfg.n_layers, 3)
    torch.testing.assert_close(
        heads.values.sum(dim=2), of_layers[..., 0], rtol=1e-9, atol=1e-9
    )
    with torch.no_grad():
        _, cache = small.run_with_cache(
            data.tokens, names_filter=["ln_final.hook_scale"]
        )
    scale = cache["ln_final.hook_scale"][torch.arange(5), data.pos["END"]]
    held = held_direction(small, data, scale)
    for bias, column in (
        (small.b_O, 1),
        (torch.stack([block.mlp.b_out for block in small.blocks]), None),
    ):
        of_bias = held @ bias.T
        expected = (
            of_layers[..., 1]
            if column == 1
            else of_layers[..., 2] - neurons.values.sum(dim=2)
        )
        torch.testing.assert_close(of_bias, expected, rtol=1e-9, atol=1e-9)


def test_raw_weights_have_a_bias_that_no_layer_wrote():
    raw = random_model(1, processing=())
    data = random_data(raw, 4)
    assert raw.ln_final.b.abs().max() > 0.1
    bias = direct_attribution(raw, data).values[:, -1]
    torch.testing.assert_close(
        bias, answer_direction(raw, data) @ raw.ln_final.b, rtol=1e-9, atol=1e-9
    )


# --- against other computations ---


def test_steps_of_the_lens_with_the_scale_held_are_the_parts(model, demo):
    steps = residual_lens(model, demo, scale="final").values.diff(dim=0).T
    of_layers = direct_attribution(model, demo).values[:, 2:-1].reshape(8, 12, 3)
    torch.testing.assert_close(
        of_layers[..., :2].sum(dim=2), steps[:, ::2], rtol=0, atol=1e-8
    )
    torch.testing.assert_close(of_layers[..., 2], steps[:, 1::2], rtol=0, atol=1e-8)


@pytest.mark.parametrize("processing", [None, ()])
def test_transformer_lens_agrees(processing):
    small = (
        random_model(3)
        if processing is None
        else random_model(3, processing=processing)
    )
    data = random_data(small, 5, seed=2)
    data = data[(data.lengths == data.lengths[0]).tolist()]
    with torch.no_grad():
        _, cache = small.run_with_cache(data.tokens)
        results = cache.stack_head_results(layer=-1, pos_slice=-1)
        normed = cache.apply_ln_to_stack(results, layer=-1, pos_slice=-1)
    theirs = (normed * small.ln_final.w * answer_direction(small, data)).sum(dim=-1).T
    ours = direct_attribution(small, data, by="head").values
    torch.testing.assert_close(ours.flatten(1), theirs, rtol=1e-9, atol=1e-9)


def test_a_head_is_what_its_removal_from_the_stream_takes_away_at_a_held_scale():
    small = random_model(4)
    data = random_data(small, 6, seed=1)
    names = ["blocks.1.attn.hook_z", "blocks.2.hook_resid_post", "ln_final.hook_scale"]
    rows, end = torch.arange(6), data.pos["END"]
    with torch.no_grad():
        _, cache = small.run_with_cache(data.tokens, names_filter=names)
    z, final, scale = (cache[name][rows, end] for name in names)

    def read(x):
        return logit_diff(
            (x - x.mean(dim=-1, keepdim=True)) / scale @ small.W_U + small.b_U,
            data,
            per_prompt=True,
        )

    expected = torch.stack(
        [
            read(final) - read(final - z[:, head] @ small.W_O[1, head])
            for head in range(4)
        ],
        dim=1,
    )
    ours = direct_attribution(small, data, by="head").values[:, 1]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_neurons_one_by_one():
    small = random_model(0)
    data = random_data(small, 3, seed=5)
    rows, end = torch.arange(3), data.pos["END"]
    with torch.no_grad():
        _, cache = small.run_with_cache(
            data.tokens, names_filter=["blocks.2.mlp.hook_post", "ln_final.hook_scale"]
        )
    act, scale = (
        cache["blocks.2.mlp.hook_post"][rows, end],
        cache["ln_final.hook_scale"][rows, end],
    )
    ours = direct_attribution(small, data, by="neuron").values[:, 2]
    W_U = small.W_U - small.W_U.mean(dim=0)
    for prompt in range(3):
        io, s = data.answers[prompt].tolist()
        for neuron in (0, 17, 127):
            wrote = act[prompt, neuron] * small.blocks[2].mlp.W_out[neuron]
            assert torch.isclose(
                ours[prompt, neuron],
                wrote @ (W_U[:, io] - W_U[:, s]) / scale[prompt, 0],
            )


# --- batches ---


def test_batches_change_nothing():
    small = random_model(0)
    data = random_data(small, 9, seed=3)
    for by in ("part", "head", "neuron"):
        whole = direct_attribution(small, data, by=by).values
        tight = direct_attribution(small, data, by=by, memory=0.001).values
        single = torch.cat(
            [direct_attribution(small, data[i : i + 1], by=by).values for i in range(9)]
        )
        torch.testing.assert_close(whole, tight, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(whole, single, rtol=1e-9, atol=1e-9)


def test_no_gradients_and_no_hooks_stay(model, demo):
    result = direct_attribution(model, demo[:2], by="head")
    assert not result.values.requires_grad and result.values.device.type == "cpu"
    assert all(not point.fwd_hooks for point in model.hook_dict.values())


# --- sources ---


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("bos", [True, False])
def test_sources_add_up_to_the_head(which, bos):
    small = list(small_models())[which]
    data = IOIDataset(small, 6, seed=which, bos=bos)
    heads = [(0, 1), (1, 0), (1, 1)]
    sources = source_attribution(small, data, heads)
    by_head = direct_attribution(small, data, by="head").values
    expected = torch.stack([by_head[:, layer, head] for layer, head in heads], dim=1)
    assert sources.labels[1] == [*(["BOS"] if bos else []), *ROLES, "others"]
    torch.testing.assert_close(
        sources.values.sum(dim=2), expected, rtol=1e-9, atol=1e-9
    )


def test_each_source_is_what_its_value_moves():
    small = random_model(2, n_layers=2, n_heads=2, d_model=16)
    data = random_data(small, 4, seed=7)
    rows = torch.arange(4)
    end = data.pos["END"]
    sources = source_attribution(small, data, [(1, 1)])
    names = [
        "blocks.1.attn.hook_pattern",
        "blocks.1.attn.hook_v",
        "ln_final.hook_scale",
    ]
    with torch.no_grad():
        _, cache = small.run_with_cache(data.tokens, names_filter=names)
    held = held_direction(small, data, cache["ln_final.hook_scale"][rows, end])
    for role, pos in {"BOS": torch.zeros(4, dtype=torch.long), **data.pos}.items():
        weight = cache["blocks.1.attn.hook_pattern"][rows, 1, end, pos]
        wrote = (
            weight[:, None]
            * cache["blocks.1.attn.hook_v"][rows, pos, 1]
            @ small.W_O[1, 1]
        )
        column = sources.labels[1].index(role)
        torch.testing.assert_close(
            sources.values[:, 0, column],
            (wrote * held).sum(dim=1),
            rtol=1e-9,
            atol=1e-9,
        )


def test_name_movers_copy_from_io(model, demo):
    sources = source_attribution(model, demo, CIRCUIT.roles["name mover"]).mean
    assert (sources[:, 1] > 0.8 * sources.abs().sum(dim=1)).all()


# --- the synthetic model's answer key ---


def test_the_largest_heads_of_the_synthetic_model(by_head):
    assert by_head.top(5)["mean"].round(2).to_dict() == MOVERS
    outside = torch.tensor(
        [
            [CIRCUIT.role_of(layer, head) is None for head in range(12)]
            for layer in range(12)
        ]
    )
    assert by_head.mean[outside].abs().max() == pytest.approx(0.084, abs=0.001)


def test_recovery_on_the_synthetic_model(model):
    table = recovery(
        direct_attribution(model, IOIDataset(model, 60, seed=4), by="head").mean,
        CIRCUIT,
        13,
    )
    assert (
        table.loc["name mover", "recall"]
        == table.loc["negative name mover", "recall"]
        == 1
    )
    assert table.loc["S-inhibition", "recall"] == table.loc["induction", "recall"] == 0
    assert table.loc["any class", "precision"] > 0.75


def test_recovery_counts():
    scores = torch.zeros(12, 12)
    scores[9, 9], scores[10, 7], scores[0, 0], scores[8, 6] = 3, -2, 1, 0.5
    table = recovery(scores, CIRCUIT, 4)
    assert table["in the top 4"].to_dict() == {
        "previous token": 0,
        "duplicate token": 0,
        "induction": 0,
        "S-inhibition": 1,
        "name mover": 1,
        "negative name mover": 1,
        "backup name mover": 0,
        "any class": 3,
    }
    assert table.loc["name mover", "precision"] == 0.25 and table.loc[
        "name mover", "recall"
    ] == pytest.approx(1 / 3)
    assert table.loc["any class", "precision"] == 0.75 and table.loc[
        "any class", "recall"
    ] == pytest.approx(3 / 26)


def test_known_circuit(model):
    assert known_circuit(model) is CIRCUIT
    assert known_circuit(random_model(0)) is None


def test_known_circuit_of_gpt2_small_cites_the_paper(monkeypatch, model):
    monkeypatch.setattr(
        "ioi_course.bundled.answer_key.is_gpt2_small", lambda model: True
    )
    circuit = known_circuit(model)
    assert (
        circuit.heads == CIRCUIT.heads
        and circuit.name == "gpt2-small"
        and "2211.00593" in circuit.source
    )


# --- how a result shows itself ---


def test_mean_and_error(by_head):
    values = by_head.values[:, 9, 6]
    assert by_head.mean[9, 6] == values.mean()
    torch.testing.assert_close(by_head.error[9, 6], values.std() / 8**0.5)


def test_top_sorts_by_distance_from_zero_and_adds_classes(by_head):
    top = by_head.top(3, CIRCUIT)
    assert list(top.index) == ["L9H9", "L9H6", "L10H7"]
    assert list(top["class"]) == ["name mover", "name mover", "negative name mover"]
    assert len(by_head.top(1000)) == 144


def test_repr_says_what_and_what_is_left_out(by_head, model, demo):
    text = repr(by_head)
    assert (
        "mean of 8 prompts; model synthetic" in text
        and "L9H9" in text
        and "134 others" in text
    )
    assert "<table" in by_head._repr_html_() and "134 others" in by_head._repr_html_()
    alone = direct_attribution(model, demo[:1], by="head")
    assert "1 prompt;" in repr(alone) and "error" not in repr(alone)
    few = Attribution(torch.ones(2, 3), ("part",), (["a", "b", "c"],), "m")
    assert "others" not in repr(few) and "all 3: 3.00" in repr(few)


def test_tables_carry_names(model, demo):
    parts = direct_attribution(model, demo)
    assert (
        list(parts.table.index[:3]) == ["embed", "pos_embed", "0_heads"]
        and parts.table.index[-1] == "bias"
    )
    assert direct_attribution(model, demo, by="neuron").table.index[64] == "L1N0"
    assert source_attribution(model, demo, [(9, 9)]).table.index[1] == "L9H9 IO"


def test_plots_carry_the_numbers(model, demo, by_head):
    pd.testing.assert_index_equal(
        by_head.plot().table.index, pd.Index([f"L{i}" for i in range(12)])
    )
    assert by_head.plot().table.iloc[9, 9] == pytest.approx(3.28)
    assert "39 places" in direct_attribution(model, demo).plot().summary
    plot = source_attribution(model, demo, [(9, 9), (10, 7)]).plot("From where")
    assert plot.table.loc["L9H9", "IO"] == pytest.approx(3.86) and "<svg" in plot.svg
    assert "From where (logits)" in plot.summary and len(plot.figure.data) == 1
    with pytest.raises(ValueError, match="768 neurons make no picture"):
        direct_attribution(model, demo, by="neuron").plot()


# --- what is refused ---


def test_an_unknown_kind(model, demo):
    with pytest.raises(ValueError, match="give one of 'part', 'head', 'neuron'"):
        direct_attribution(model, demo, by="layer")


@pytest.mark.parametrize("k", [0, 1.5, "3"])
def test_a_number_of_rows(by_head, k):
    with pytest.raises(ValueError, match="number of rows"):
        by_head.top(k)


def test_classes_are_for_heads(model, demo):
    with pytest.raises(ValueError, match="contributions by part"):
        direct_attribution(model, demo).top(3, CIRCUIT)


def test_heads_that_do_not_exist(model, demo):
    for heads in ([(12, 0)], [(0, 12)], [(-1, 0)], [(9, 9, 9)]):
        with pytest.raises(ValueError, match="There is no head"):
            source_attribution(model, demo, heads)
    with pytest.raises(ValueError, match="heads is empty"):
        source_attribution(model, demo, [])
    with pytest.raises(ValueError, match="There is no head 9"):
        source_attribution(model, demo, (9, 9))


def test_a_scale_of_another_shape(model, demo):
    with pytest.raises(ValueError, match=r"scale must be \[batch, 1\]"):
        held_direction(model, demo, torch.ones(8))
    with pytest.raises(ValueError, match=r"scale must be \[batch, 1\]"):
        held_direction(model, demo, torch.ones(7, 1))


def test_scores_of_another_model_and_lists_of_no_length():
    with pytest.raises(ValueError, match=r"\[12, 12\]; the shape is \[3, 4\]"):
        recovery(torch.ones(3, 4), CIRCUIT, 2)
    for k in (0, 145, 2.0):
        with pytest.raises(ValueError, match="number of heads from 1 to 144"):
            recovery(torch.ones(12, 12), CIRCUIT, k)


def test_parts_that_do_not_add_up_are_refused(monkeypatch):
    small = random_model(0)
    data = random_data(small, 3)

    # as if the model did something to its logits
    def capped(logits, batch, per_prompt):
        return (
            30 * torch.tanh(logit_diff(logits, batch, per_prompt=per_prompt) / 30) + 1
        )

    monkeypatch.setattr("ioi_course.attribution.logit_diff", capped)
    with pytest.raises(RuntimeError, match="The parts miss the logit difference by"):
        direct_attribution(small, data)


def test_the_cache_of_another_run_is_never_taken(model, demo):
    with pytest.raises(TypeError, match="IOIDataset"):
        direct_attribution(model, ActivationCache({}, model))
