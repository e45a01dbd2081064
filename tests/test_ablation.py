"""Ablation: what is put in, what is read, the sums, the known circuit's self-repair,
odd datasets, errors."""

from collections import defaultdict

import pandas as pd
import pytest
import torch

from ioi_course import batches
from ioi_course.ablation import Ablation, ablate, said_scores
from ioi_course.attribution import direct_attribution
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model
from ioi_course.means import abc_reference, reference_means
from ioi_course.metrics import logit_diff
from ioi_course.models import load_model
from ioi_course.plots import Plot
from ioi_course.prompts import IOIDataset
from ioi_course.templates import TEMPLATES, IOIPrompt

MOVERS, NEGATIVES, BACKUPS = (
    list(CIRCUIT.roles[f"{kind}name mover"]) for kind in ("", "negative ", "backup ")
)
WAYS = ("zero", "mean", "resample")


@pytest.fixture(scope="module")
def small():
    return random_model(0)


@pytest.fixture(scope="module")
def data(small):
    return IOIDataset(small, 12, seed=1, templates=TEMPLATES[:3])


@pytest.fixture(scope="module")
def demo(model):
    return IOIDataset.demo(model)


@pytest.fixture(scope="module")
def hole(model, demo):
    return ablate(model, demo, [(9, 9)])


def hooks_on(model) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


def by_hand(model, data, z_of, heads, at):
    """Logit differences prompt by prompt, without padding, with z of some heads
    replaced at one role or everywhere."""
    found = []
    for i in range(len(data)):
        one = data[[i]]
        where = slice(None) if at == "everywhere" else [int(data.pos[at][i])]
        new = {layer: z_of(i, layer)[: one.tokens.shape[1]] for layer, _ in heads}

        def put(z, hook, where=where, new=new):
            z = z.clone()
            for layer, head in heads:
                if layer == hook.layer():
                    z[0, where, head] = new[layer][where, head]
            return z

        hooks = [
            (f"blocks.{layer}.attn.hook_z", put)
            for layer in {layer for layer, _ in heads}
        ]
        found.append(logit_diff(model.run_with_hooks(one.tokens, fwd_hooks=hooks), one))
    return torch.stack(found)


def z_alone(model, prompts):
    """z of one prompt in every layer, [layer, pos, head, d_head]."""
    _, cache = model.run_with_cache(prompts.tokens)
    return torch.stack(
        [cache[f"blocks.{layer}.attn.hook_z"][0] for layer in range(model.cfg.n_layers)]
    )


# --- the reference ---


def test_abc_prompts_are_enough_for_every_template_and_order(data):
    reference = abc_reference(data, least=5)
    counts = defaultdict(int)
    for prompt in reference:
        assert len(set(prompt.names)) == 3
        counts[prompt.template, prompt.order] += 1
    assert set(counts) == {(prompt.template, prompt.order) for prompt in data}
    assert min(counts.values()) >= 5
    assert abc_reference(data, least=5).prompts == reference.prompts


def test_no_more_abc_prompts_than_are_needed(data):
    pair = data[[0, 0, 1]]
    reference = abc_reference(pair, least=4)
    assert [prompt.order for prompt in reference].count(data[1].order) == 4
    assert len(reference) == 8 and len(set(reference.prompts)) == 8


@pytest.mark.parametrize("least", [0, -1, 2.5, True])
def test_a_bad_number_of_reference_prompts(data, least):
    with pytest.raises(ValueError, match="least is"):
        abc_reference(data, least)


@pytest.mark.parametrize("kind", ["abc", "random_names"])
def test_means_are_those_of_the_same_template_and_order(small, data, kind):
    reference = data._like(
        [p for seed in (3, 4) for p in data.counterfactual(kind, seed)]
    )
    means = reference_means(small, data, reference)
    alone = [z_alone(small, reference[[j]]) for j in range(len(reference))]
    for i, prompt in enumerate(data):
        same = [
            j
            for j, p in enumerate(reference)
            if (p.template, p.order) == (prompt.template, prompt.order)
        ]
        assert len(same) >= 2
        expected = torch.stack([alone[j] for j in same]).mean(dim=0)
        for layer, mean in enumerate(means):
            torch.testing.assert_close(mean[i, : int(data.lengths[i])], expected[layer])


def test_means_by_default_are_over_the_abc_reference(small, data):
    for mine, theirs in zip(
        reference_means(small, data),
        reference_means(small, data, abc_reference(data)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
    assert mine.shape == (
        len(data),
        data.tokens.shape[1],
        small.cfg.n_heads,
        small.cfg.d_head,
    )


def test_reference_prompts_of_other_templates_do_not_count(small, data):
    reference = abc_reference(data)
    more = reference._like([*reference, *IOIDataset(small, 5, templates=TEMPLATES[9:])])
    for mine, theirs in zip(
        reference_means(small, data, more),
        reference_means(small, data, reference),
        strict=True,
    ):
        for i, end in enumerate(data.lengths.tolist()):
            torch.testing.assert_close(mine[i, :end], theirs[i, :end])


def test_means_in_small_batches(small, data):

    whole = reference_means(small, data)
    each = batches._bytes_per_prompt(small, data, ["blocks.0.attn.hook_z"] * 3) / 2**30
    for mine, theirs in zip(
        reference_means(small, data, memory=4 * each), whole, strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_places_of_several_tokens_are_not_mixed(small):
    """Two prompts of one template whose places differ in length: their positions
    do not mean the same."""
    template = "When [A] and [B] went to the [PLACE], [S] gave the [OBJECT] to"
    records = [
        IOIPrompt(template, "Mary", "John", "ABBA", place, "bag")
        for place in ("park", "park and the shop")
    ]
    data = IOIDataset.from_prompts(small, records)
    assert data.lengths[0] != data.lengths[1]
    reference = abc_reference(data, least=3)
    assert len(reference) == 6
    means = reference_means(small, data, reference)
    expected = torch.stack(
        [
            z_alone(small, reference[[j]])
            for j, p in enumerate(reference)
            if p.place == "park"
        ]
    )
    torch.testing.assert_close(
        means[2][0, : int(data.lengths[0])], expected[:, 2].mean(dim=0)
    )


# --- what is put in ---


@pytest.mark.parametrize("at", ["END", "S2", "everywhere"])
@pytest.mark.parametrize("how", WAYS)
def test_it_is_what_hooks_give_prompt_by_prompt(small, data, how, at):
    heads = [(0, 1), (1, 3), (1, 0)]
    means, abc = reference_means(small, data), data.counterfactual("abc")
    z_of = {
        "zero": lambda i, layer: torch.zeros_like(means[layer][i]),
        "mean": lambda i, layer: means[layer][i],
        "resample": lambda i, layer: z_alone(small, abc[[i]])[layer],
    }[how]
    found = ablate(small, data, heads, how, at)
    torch.testing.assert_close(found.after, by_hand(small, data, z_of, heads, at))
    torch.testing.assert_close(
        found.before, logit_diff(small(data.tokens), data, per_prompt=True)
    )


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_a_reference_of_ones_own(small, data, how):
    swapped = data.counterfactual("swap_names") if how == "resample" else data
    found = ablate(small, data, [(1, 2)], how, reference=swapped)
    if how == "resample":
        expected = by_hand(
            small,
            data,
            lambda i, layer: z_alone(small, swapped[[i]])[layer],
            [(1, 2)],
            "END",
        )
    else:
        means = reference_means(small, data, data)
        expected = by_hand(
            small, data, lambda i, layer: means[layer][i], [(1, 2)], "END"
        )
    torch.testing.assert_close(found.after, expected)


def test_a_run_resampled_from_itself_stays_as_it_is(small, data):
    found = ablate(
        small, data, [(0, 0), (2, 3)], "resample", "everywhere", reference=data
    )
    torch.testing.assert_close(found.after, found.before)
    torch.testing.assert_close(found.naive, found.before)
    assert found.change.abs().max() < 1e-9


@pytest.mark.parametrize("how", WAYS)
def test_in_small_batches_it_is_the_same(small, data, how, monkeypatch):

    arguments = (small, data, [(1, 1)], how)
    names = ["blocks.2.attn.hook_pattern"]
    whole = ablate(*arguments, names=names)
    monkeypatch.setattr(batches, "_LARGEST_BATCH", 5)
    parts = ablate(*arguments, names=names)
    for field in (
        "before",
        "after",
        "direct_before",
        "direct_after",
        "mlp_after",
        "scale_after",
        "bias",
    ):
        torch.testing.assert_close(getattr(parts, field), getattr(whole, field))
    for mine, theirs in zip(parts.kept[names[0]], whole.kept[names[0]], strict=True):
        assert mine.shape == theirs.shape
        for i, end in enumerate(data.lengths.tolist()):
            torch.testing.assert_close(mine[i, :, :end, :end], theirs[i, :, :end, :end])


def test_a_head_named_twice_counts_once(small, data):
    twice, once = (
        ablate(small, data[:4], heads) for heads in ([(1, 1), [1, 1]], [(1, 1)])
    )
    assert twice.heads == once.heads == ((1, 1),)
    torch.testing.assert_close(twice.naive, once.naive)


# --- what is read ---


def test_direct_effects_are_those_of_direct_attribution(small, data):
    found = ablate(small, data, [(1, 1)])
    torch.testing.assert_close(
        found.direct_before, direct_attribution(small, data, by="head").values
    )

    def silence(z, hook):
        z = z.clone()
        z[torch.arange(len(z)), end, 1] = 0
        return z

    same_length = data[
        [i for i in range(len(data)) if data.lengths[i] == data.lengths[0]]
    ]
    end = int(same_length.pos["END"][0])
    with small.hooks(fwd_hooks=[("blocks.1.attn.hook_z", silence)]):
        expected = direct_attribution(small, same_length, by="head").values
    torch.testing.assert_close(
        ablate(small, same_length, [(1, 1)]).direct_after, expected
    )


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("at", ["END", "S1+1", "everywhere"])
def test_the_changes_add_up(which, how, at):
    small = [random_model(0), random_model(1, processing=())][which]
    data = random_data(small, 6, seed=2)
    found = ablate(small, data, [(0, 2), (1, 1)], how, at)
    torch.testing.assert_close(found.by_output + found.by_scale, found.change)
    torch.testing.assert_close(found.change, found.direct_after - found.direct_before)
    steps = (
        found.by_output.sum(dim=(1, 2))
        + found.mlp_effect.sum(dim=1)
        + found.scale_effect
    )
    torch.testing.assert_close(found.before + steps, found.after)
    assert found.scale_effect.abs().max() > 1e-3 and found.mlp_effect.abs().max() > 1e-3
    table = found.repair()
    assert table["mean"].iloc[:-1].sum() == pytest.approx(table["mean"].iloc[-1])
    assert table.index[0] == "naive" and list(table.index[-3:]) == [
        "MLPs",
        "final scale",
        "measured",
    ]


def test_by_output_is_the_change_on_the_old_scale(small, data):
    found = ablate(small, data, [(1, 1)])
    wrote_before = found.direct_before * found.scale_before[:, None, None]
    wrote_after = found.direct_after * found.scale_after[:, None, None]
    torch.testing.assert_close(
        found.by_output,
        (wrote_after - wrote_before) / found.scale_before[:, None, None],
    )


def test_the_naive_prediction_is_what_is_left_without_the_direct_effect(small, data):
    found = ablate(small, data, [(1, 1), (2, 0)])
    removed = found.direct_before[:, 1, 1] + found.direct_before[:, 2, 0]
    torch.testing.assert_close(found.naive, found.before - removed)
    elsewhere = ablate(small, data, [(1, 1)], at="S2")
    torch.testing.assert_close(elsewhere.naive, elsewhere.before)


def test_earlier_heads_do_not_change(small, data):
    found = ablate(small, data, [(1, 1)])
    assert found.by_output[:, 0].abs().max() < 1e-9
    others = [0, 2, 3]
    assert (
        found.by_output[:, 1, others].abs().max() < 1e-9
        and found.by_output[:, 2].abs().max() > 1e-3
    )


def test_the_last_layer_leaves_only_the_mlp_and_the_scale(small, data):
    found = ablate(small, data, [(2, 1)])
    assert list(found.repair().index) == ["naive", "MLPs", "final scale", "measured"]


def test_activations_by_name(small, data):
    name = "blocks.2.hook_resid_pre"
    found = ablate(small, data, [(1, 1)], names=[name, name])
    before, after = found.kept[name]
    _, cache = small.run_with_cache(data.tokens)
    torch.testing.assert_close(before, cache[name])
    end = data.pos["END"]
    changed = (before - after).abs().amax(dim=-1) > 1e-9
    assert changed[torch.arange(len(data)), end].all() and not changed[:, 0].any()


def test_frozen_heads_do_not_look_elsewhere(small, data):
    name = "blocks.2.attn.hook_pattern"
    free, frozen = (
        ablate(small, data, [(1, 1)], frozen=heads, names=[name])
        for heads in ([], [(2, 0), (2, 3)])
    )
    moved = [
        (run.kept[name][1] - run.kept[name][0]).abs().amax(dim=(0, 2, 3)) > 1e-9
        for run in (free, frozen)
    ]
    assert [part.tolist() for part in moved] == [[True] * 4, [False, True, True, False]]
    torch.testing.assert_close(free.before, frozen.before)
    assert "attention of L2H0, L2H3 frozen" in frozen.what


def test_one_prompt(small, data):
    found = ablate(small, data[:1], [(1, 1)], "mean")
    assert list(found.repair().columns) == ["mean"]
    assert "1 prompt;" in repr(found)


def test_without_bos(small):
    data = IOIDataset(small, 4, bos=False)
    found = ablate(small, data, [(1, 1)], "mean", "everywhere")
    torch.testing.assert_close(
        found.before, logit_diff(small(data.tokens), data, per_prompt=True)
    )


# --- the known circuit ---


def test_the_best_name_mover_is_nearly_made_up_for(hole):
    summary = hole.summary
    assert summary["before"] - summary["measured"] < 0.4 * (
        summary["before"] - summary["naive"]
    )
    rise = hole.change.mean(dim=0)
    assert sum(rise[head] > 0.1 for head in BACKUPS) >= 5
    assert all(rise[head] > 0.1 for head in NEGATIVES)
    assert hole.repaired == pytest.approx(0.96, abs=0.01)


def test_the_repair_by_class(hole):
    table = hole.repair(CIRCUIT)["mean"]
    assert table["backup name mover"] == pytest.approx(1.99, abs=0.02)
    assert table["negative name mover"] == pytest.approx(1.11, abs=0.02)
    assert table["final scale"] == pytest.approx(0.007, abs=0.002)
    assert "induction" not in table.index
    by_layer = hole.repair()["mean"]
    assert by_layer["heads of layer 10"] + by_layer[
        "heads of layer 11"
    ] == pytest.approx(
        table["backup name mover"]
        + table["negative name mover"]
        + table["name mover"]
        + table["no class"]
    )


def test_with_attention_frozen_nothing_is_repaired(model, demo):
    late = [(layer, head) for layer in (10, 11) for head in range(12)]
    frozen = ablate(model, demo, [(9, 9)], frozen=late).summary
    assert frozen["measured"] == pytest.approx(frozen["naive"], abs=0.01)


def test_nobody_is_left_who_reacts(model, demo):
    everyone = ablate(model, demo, MOVERS + BACKUPS + NEGATIVES).summary
    assert everyone["measured"] == pytest.approx(everyone["naive"], abs=0.01)


def test_the_reference_decides_what_is_taken_out(model):
    data = IOIDataset(model, 16, templates=TEMPLATES[:2])
    heads = list(CIRCUIT.roles["S-inhibition"])
    kept = {
        name: ablate(model, data, heads, "mean", reference=reference).after.mean()
        for name, reference in (
            ("abc", None),
            ("ioi", data.counterfactual("random_names")),
        )
    }
    assert kept["abc"] < 0.5 and kept["ioi"] > 3


def test_who_reads_what_has_been_said(model):
    said = said_scores(model, (9, 9))
    assert said[:10].abs().max() == 0
    reading = {head for head in BACKUPS + NEGATIVES if head[0] > 9}
    assert {
        divmod(i, 12) for i in said.flatten().abs().topk(8).indices.tolist()
    } == reading
    assert all(
        (said[head] > 3) if head in NEGATIVES else (said[head] < -3) for head in reading
    )
    assert said.flatten().abs().sort().values[-9] < 0.3


def test_said_scores_are_the_diagonal_of_a_table(small):
    names = ["Mary", "John", "Tom", "James", "Anna"]
    bos = small.tokenizer.bos_token_id
    ids = [
        small.tokenizer.encode(f" {name}", add_special_tokens=False)[0]
        for name in names
    ]
    _, cache = small.run_with_cache(torch.tensor([[bos, i] for i in ids]))
    stream = cache["blocks.0.hook_resid_post"][:, 1]

    def norm(x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=small.cfg.eps)

    written = norm(stream) @ small.W_V[1, 2] @ small.W_O[1, 2]
    table = (norm(written) @ small.W_Q[2, 3]) @ (norm(stream) @ small.W_K[2, 3]).T
    beside = table[~torch.eye(5, dtype=torch.bool)]
    expected = (table.diagonal().mean() - beside.mean()) / beside.std()
    found = said_scores(small, (1, 2), names)
    assert found.shape == (3, 4) and found[:2].abs().max() == 0
    torch.testing.assert_close(found[2, 3].double(), expected, rtol=1e-4, atol=1e-5)


# --- how it shows itself ---


def test_tables_and_plots(hole):
    table = hole.table(3, CIRCUIT)
    assert list(table.index) == ["L9H9", "L10H7", "L10H10"]
    assert list(table["class"]) == [
        "name mover",
        "negative name mover",
        "backup name mover",
    ]
    assert (table["by output"] + table["by scale"]).tolist() == pytest.approx(
        table["change"].tolist()
    )
    assert isinstance(hole.plot(), Plot) and isinstance(hole.scatter(CIRCUIT), Plot)
    assert "L9H9 set to zero at END" in repr(hole) and "measured 3.70" in repr(hole)
    assert (
        "<table" in hole._repr_html_() and "naive prediction 0.57" in hole._repr_html_()
    )
    assert isinstance(hole, Ablation) and isinstance(hole.summary, pd.Series)


def test_nothing_predicted_has_no_share(small, data):
    assert (
        ablate(small, data, [(1, 1)], at="S2").repaired
        != ablate(small, data, [(1, 1)], at="S2").repaired
    )


def test_many_heads_are_counted(small, data):
    heads = [(layer, head) for layer in range(3) for head in range(2)]
    assert (
        ablate(small, data[:2], heads, "mean", "everywhere").what
        == "6 heads set to the mean everywhere"
    )


@pytest.mark.parametrize("k", [0, 1.5, True])
def test_a_bad_number_of_rows(hole, k):
    with pytest.raises(ValueError, match="k is"):
        hole.table(k)


def test_a_circuit_of_another_size(small, data):
    found = ablate(small, data[:2], [(1, 1)])
    for show in (found.table, found.repair):
        with pytest.raises(
            ValueError, match="12 layers of 12 heads; the model has 3 of 4"
        ):
            show(circuit=CIRCUIT)


# --- errors ---


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"heads": []}, ValueError, "heads is empty"),
        ({"heads": [(3, 0)]}, ValueError, "no head"),
        ({"heads": [(0, 4)]}, ValueError, "no head"),
        ({"heads": [7]}, ValueError, "no head"),
        ({"frozen": [(9, 9)]}, ValueError, "no head"),
        ({"how": "zeros"}, ValueError, "did you mean 'zero'"),
        ({"how": None}, ValueError, "how is None"),
        ({"at": "end"}, ValueError, "Give one of 'IO'"),
        ({"at": "IO2"}, ValueError, "at is 'IO2'"),
        ({"names": "blocks.0.hook_resid_pre"}, TypeError, "must be a list"),
        ({"names": ["blocks.0.hook_resid_pr"]}, ValueError, "Did you mean"),
        ({"memory": 0}, ValueError, "memory is 0"),
        ({"memory": 1e-9}, ValueError, "One prompt takes"),
        ({"data": "When Mary"}, TypeError, "must be an IOIDataset"),
    ],
)
def test_bad_input(small, data, changed, error, message):
    arguments = {"model": small, "data": data, "heads": [(1, 1)]} | changed
    with pytest.raises(error, match=message):
        ablate(**arguments)
    assert not hooks_on(small)


def test_bad_references(small, data):
    with pytest.raises(ValueError, match="Zero takes no reference"):
        ablate(small, data, [(1, 1)], "zero", reference=data)
    with pytest.raises(ValueError, match="do not align"):
        ablate(small, data, [(1, 1)], "resample", reference=data[::-1])
    with pytest.raises(ValueError, match="do not align"):
        ablate(small, data, [(1, 1)], "resample", reference=data[:3])
    other = IOIDataset(small, 6, templates=TEMPLATES[5:6])
    for call in (lambda: ablate(small, data, [(1, 1)], "mean", reference=other),
                 lambda: reference_means(small, data, other)):  # fmt: skip
        with pytest.raises(ValueError, match="The reference has nothing for"):
            call()
    with pytest.raises(TypeError, match="must be an IOIDataset"):
        reference_means(small, data, "abc")
    with pytest.raises(ValueError, match="three different names"):
        reference_means(small, data.counterfactual("abc"))


def test_another_models_tokens(small, gpt2_tokenizer):
    with pytest.raises(ValueError, match="another model's tokenizer"):
        ablate(small, IOIDataset(gpt2_tokenizer, 2), [(1, 1)])


def test_said_scores_need_names_and_a_head(small):
    with pytest.raises(ValueError, match="three are needed"):
        said_scores(small, (1, 1), ["Mary", "John"])
    with pytest.raises(ValueError, match="no head"):
        said_scores(small, (5, 1))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupt_leaves_the_model_clean(small, data, error):
    def stop(value, hook):
        raise error("stopped")

    with (
        pytest.raises(error),
        small.hooks(fwd_hooks=[("blocks.2.hook_resid_post", stop)]),
    ):
        ablate(small, data, [(1, 1)], "mean", frozen=[(2, 1)])
    assert not hooks_on(small)
    assert not torch.is_inference_mode_enabled()


def test_an_interrupt_in_the_ablated_run_leaves_the_model_clean(
    small, data, monkeypatch
):
    from ioi_course import ablation

    def broken(heads, cache):
        def stop(value, hook):
            raise RuntimeError("stopped")

        return [("blocks.2.hook_resid_post", stop)]

    monkeypatch.setattr(ablation, "_freezing", broken)
    with pytest.raises(RuntimeError, match="stopped"):
        ablate(small, data, [(1, 1)])
    assert not hooks_on(small)


def test_parts_that_do_not_add_up_are_refused(small, data):
    """A model that does something else at the end: direct effects would explain
    another logit difference."""

    def more(value, hook):
        return value * 1.5

    with (
        small.hooks(fwd_hooks=[("ln_final.hook_normalized", more)]),
        pytest.raises(RuntimeError, match="misses"),
    ):
        ablate(small, data, [(1, 1)])
    assert not hooks_on(small)


def test_in_float32_on_gpt2s_shape(random_gpt2):
    gpt2 = load_model(str(random_gpt2))
    data = IOIDataset(gpt2, 2, templates=TEMPLATES[:1])
    found = ablate(gpt2, data, [(9, 9)], "resample")
    torch.testing.assert_close(
        found.by_output + found.by_scale, found.change, rtol=1e-4, atol=1e-5
    )
    assert found.by_output[:, :9].abs().max() < 1e-4
    assert said_scores(gpt2, (9, 9)).isfinite().all()
