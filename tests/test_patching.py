"""Activation patching: what a sweep returns, its budget, models without the engine,
gradients, bad input."""

import re
import warnings

import numpy as np
import pytest
import torch
from memory import in_a_process, linux
from transformer_lens import ActivationCache

from ioi_course import progress
from ioi_course.attribution_patching import attribution_patch
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model, random_of
from ioi_course.engine import HEAD_SITES, Engine, Unsupported
from ioi_course.metrics import logit_diff, prob_io
from ioi_course.models import load_model
from ioi_course.patch_jobs import STREAM_SITES, _Job, _need, _plan
from ioi_course.patching import sweep
from ioi_course.prompts import IOIDataset
from ioi_course.results import Sweep

SITES = (*STREAM_SITES, *HEAD_SITES)
S_INHIBITION = {(7, 3): 0.22, (7, 9): 0.25, (8, 6): 0.28, (8, 10): 0.29}


def quiet(*args, **options) -> Sweep:
    return sweep(*args, progress=False, **options)


@pytest.fixture(scope="module")
def small():
    return random_model(0)


@pytest.fixture(scope="module")
def pair(small):
    clean = random_data(small, 5, seed=1)
    return clean, clean.counterfactual("swap_subject")


@pytest.fixture(scope="module")
def demo(model):
    clean = IOIDataset.demo(model)
    return clean, clean.counterfactual("swap_subject")


@pytest.fixture(scope="module")
def demo_z(model, demo):
    return quiet(model, *demo, "z")


# --- the synthetic model's circuit ---


def test_the_information_moves_from_s2_to_end(model, demo):
    values = quiet(model, *demo, "resid_pre").by_role().values
    assert values[:8, 3].min() > 0.9 and values[9:, 4].min() > 0.9
    assert (
        values[:7, 4].abs().max() < 0.1
        and values[9:, 3].abs().max() < 0.1
        and values[:, :3].abs().max() < 1e-9
    )


def test_heads_by_output_and_by_value(model, demo, demo_z):
    v, pattern = (quiet(model, *demo, site) for site in ("v", "pattern"))
    for head, value in S_INHIBITION.items():
        assert v.values[head].item() == pytest.approx(value, abs=0.02)
    others = v.values.clone()
    others[tuple(np.transpose(list(S_INHIBITION)))] = 0
    assert others.abs().max() < 0.05
    early = pattern.values[:7].flatten().abs().argsort(descending=True)[:7].tolist()
    assert {(5, 5), (6, 9), (3, 0)} <= {divmod(i, 12) for i in early}
    assert (v.values + pattern.values - demo_z.values).abs().max() < 0.02


def test_each_head_acts_where_the_answer_key_says(model, demo):
    clean = demo[0][:2]
    result = quiet(
        model, clean, clean.counterfactual("swap_subject"), "z", by_pos=True
    ).by_role()
    assert result.axes == ("layer", "head", "role") and result.values.shape == (
        12,
        12,
        5,
    )
    for layer, head, role in (result.values.abs() > 0.1).nonzero().tolist():
        assert CIRCUIT.positions[CIRCUIT.role_of(layer, head)] == result.labels[2][role]


def test_the_directions_mirror_each_other_where_the_datasets_are_the_same_prompts(
    model, demo, demo_z
):
    needed = quiet(model, *demo, "z", into="clean")
    torch.testing.assert_close(needed.values, 1 - demo_z.values)
    torch.testing.assert_close(needed.clean, demo_z.clean)
    assert torch.equal(needed.base, needed.clean)


def test_what_suffices_is_not_what_is_needed(model, demo):
    clean = demo[0][:4]
    suffices, needed = (
        quiet(model, clean, clean.counterfactual("abc"), "z", into=into)
        for into in ("corrupted", "clean")
    )
    # a backup steps in
    assert suffices.values[9, 9] > 0.5 and needed.values[9, 9] > 0.9
    assert suffices.values[8, 10].abs() < 0.1 and needed.values[8, 10] < 0.8


# --- properties that hold in any model ---


@pytest.mark.parametrize("site", HEAD_SITES)
def test_a_run_patched_with_its_own_activations_stays_as_it_is(small, pair, site):
    clean, corrupted = pair
    names = [f"blocks.{layer}.attn.hook_{site}" for layer in range(3)]
    _, own = small.run_with_cache(corrupted.tokens, names_filter=names)
    for by_pos in (False, True):
        result = quiet(small, clean, corrupted, site, cache=own, by_pos=by_pos)
        assert (result.per_prompt - result.corrupted).abs().max() < 1e-9


def test_the_last_stream_at_end_is_the_whole_run(small, pair):
    clean, corrupted = pair
    result = quiet(small, clean, corrupted, "mlp_out", by_pos=True).by_role()
    stream = quiet(small, clean, corrupted, "resid_mid").by_role()
    _, cache = small.run_with_cache(clean.tokens)
    for i in range(len(clean)):
        assert stream.per_prompt[2, 4, i] == pytest.approx(
            stream.clean[i].item(), abs=1e-9
        )
    assert not torch.allclose(result.per_prompt[2, 4], result.clean)


def test_values_are_zero_and_one_at_the_ends(small, pair):
    for into, base in (("corrupted", 0.0), ("clean", 1.0)):
        result = quiet(small, *pair, "resid_pre", into=into)
        before = result.values[:, :4]  # no prompt differs there
        torch.testing.assert_close(
            before, torch.full_like(before, base), atol=1e-9, rtol=0
        )


def test_the_ends_are_the_models_own_logit_differences(small, pair):
    clean, corrupted = pair
    result = quiet(small, clean, corrupted, "z")
    for data, found in ((clean, result.clean), (corrupted, result.corrupted)):
        torch.testing.assert_close(
            found,
            logit_diff(small(data.tokens), clean, per_prompt=True),
            rtol=1e-9,
            atol=1e-9,
        )


# --- the result ---


@pytest.mark.parametrize("site", SITES)
def test_axes_labels_and_shapes(small, pair, site):
    pos = pair[0].tokens.shape[1]
    result = quiet(small, *pair, site)
    heads = site in HEAD_SITES
    assert result.axes == (("layer", "head") if heads else ("layer", "pos"))
    assert (
        result.per_prompt.shape == (3, 4 if heads else pos, 5)
        and result.values.shape == result.per_prompt.shape[:-1]
    )
    assert [len(labels) for labels in result.labels] == list(result.values.shape)
    assert result.site == site and result.into == "corrupted" and result.data is pair[0]


def test_errors_are_those_of_the_change_over_prompts(demo_z):
    changes = (demo_z.per_prompt - demo_z.corrupted).numpy()
    gap = (demo_z.clean.mean() - demo_z.corrupted.mean()).item()
    np.testing.assert_allclose(
        demo_z.errors, changes.std(-1, ddof=1) / 8**0.5 / gap, atol=1e-12
    )
    np.testing.assert_allclose(demo_z.change, changes.mean(-1), atol=1e-12)
    np.testing.assert_allclose(demo_z.values, changes.mean(-1) / gap, atol=1e-9)


def test_one_prompt_has_no_error(small, pair):
    clean, corrupted = pair
    result = quiet(small, clean[:1], corrupted[:1], "z")
    assert result.errors.isnan().all()
    assert list(result.table(3).columns) == ["value", "change"]


def test_the_table_lists_what_changes_most(demo_z):
    table = demo_z.table(4, CIRCUIT)
    assert list(table.columns) == ["value", "error", "change", "class"]
    assert (
        table.index[0] == "L11H10" and table["class"].iloc[0] == "negative name mover"
    )
    assert (
        table["change"].abs().is_monotonic_decreasing
        and len(demo_z.table(10**6)) == 144
    )


def test_a_sweep_shows_itself(demo_z, model, demo):
    shown = repr(demo_z)
    assert (
        "z from the clean run into the corrupted one" in shown
        and "8 prompts; model synthetic" in shown
    )
    assert (
        "corrupted −3.85 is 0 on the scale, clean 3.85 is 1" in shown
        and "L8H10" in shown
    )
    assert "<table" in demo_z._repr_html_() and "-0.0 " not in shown
    by_pos = quiet(model, demo[0][:1], demo[1][:1], "resid_pre")
    assert "John@10" in repr(by_pos) and "1 prompt;" in repr(by_pos)


def test_without_a_scale_the_change_is_shown(model, demo):
    clean = demo[0][:4]
    result = quiet(
        model, clean, clean.counterfactual("swap_names"), "resid_pre", into="clean"
    ).by_role()
    assert (
        not result.scaled
        and list(result.table(2).columns) == ["change"]
        and "too close" in repr(result)
    )
    assert result.change[9, 4] < -5
    assert "logit" in repr(result.plot())


def test_plots(small, pair, demo_z):
    assert "head_heatmap" in repr(demo_z.plot()) and "mine" in repr(demo_z.plot("mine"))
    stream, by_pos = (
        quiet(small, *pair, "resid_pre"),
        quiet(small, *pair, "q", by_pos=True),
    )
    assert "patch_heatmap" in repr(stream.plot())
    for result in (stream.by_role(), by_pos, by_pos.by_role()):
        assert result.axes[-1] in result.plot()._repr_html_()


def test_roles_are_gathered_prompt_by_prompt(small, pair):
    clean, _ = pair
    result = quiet(small, *pair, "z", by_pos=True)
    roles = result.by_role()
    for r, role in enumerate(("IO", "S1", "S1+1", "S2", "END")):
        for i, pos in enumerate(clean.pos[role].tolist()):
            assert torch.equal(
                roles.per_prompt[:, :, r, i], result.per_prompt[:, :, pos, i]
            )


def test_roles_need_positions(demo_z):
    with pytest.raises(ValueError, match="by_pos=True"):
        demo_z.by_role()


# --- metric, cache, memory ---


@pytest.mark.parametrize("site", ["resid_pre", "mlp_out", "z", "pattern"])
def test_a_metric_of_ones_own(small, pair, site):
    clean, corrupted = pair
    plain = quiet(small, clean, corrupted, site)
    mine = quiet(
        small,
        clean,
        corrupted,
        site,
        metric=lambda logits: logit_diff(logits, clean),
        memory=0.004,
    )
    torch.testing.assert_close(
        mine.per_prompt[..., 0], plain.per_prompt.mean(dim=-1), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(mine.values, plain.values, rtol=1e-6, atol=1e-9)
    assert (
        mine.clean.shape == (1,)
        and mine.errors.isnan().all()
        and "error" not in mine.table(2)
    )


def test_another_metric_gets_the_logits_of_all_prompts_at_end(small, pair):
    clean, corrupted = pair
    shapes = set()

    def metric(logits):
        shapes.add(tuple(logits.shape))
        return prob_io(logits, clean)

    result = quiet(small, clean, corrupted, "z", metric=metric)
    assert shapes == {(5, small.cfg.d_vocab)}
    assert result.clean.item() == pytest.approx(
        prob_io(small(clean.tokens), clean).item()
    )
    with pytest.raises(ValueError, match="metric over all prompts"):
        quiet(small, clean, corrupted, "resid_pre", metric=metric).by_role()


@pytest.mark.parametrize("site", SITES)
def test_a_cache_gives_the_same_as_the_run_it_is_of(small, pair, site):
    clean, corrupted = pair
    for into, source in (("corrupted", clean), ("clean", corrupted)):
        _, cache = small.run_with_cache(source.tokens)
        before = {name: value.clone() for name, value in cache.items()}
        given = quiet(
            small, clean, corrupted, site, into=into, cache=cache, by_pos=True
        )
        torch.testing.assert_close(
            given.per_prompt,
            quiet(small, clean, corrupted, site, into=into, by_pos=True).per_prompt,
            rtol=1e-9,
            atol=1e-9,
        )
        assert all(torch.equal(value, before[name]) for name, value in cache.items())


def test_a_cache_may_hold_activations_of_another_kind(small, pair):
    """Such as means: patches then begin at the first position, not at the first
    difference of the prompts."""
    clean, corrupted = pair
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(3)]
    _, cache = small.run_with_cache(clean.tokens, names_filter=names)
    means = ActivationCache(
        {n: v.mean(dim=(0, 1), keepdim=True).expand_as(v) for n, v in cache.items()},
        small,
    )
    found = quiet(small, clean, corrupted, "z", cache=means).per_prompt[1, 2]

    def patch(value, hook):
        value[:, :, 2] = means[hook.name][:, :, 2]
        return value

    logits = small.run_with_hooks(corrupted.tokens, fwd_hooks=[(names[1], patch)])
    torch.testing.assert_close(
        found, logit_diff(logits, clean, per_prompt=True), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("site", "by_pos"), [("resid_pre", True), ("z", False), ("k", True)]
)
def test_a_small_budget_gives_the_same(small, site, by_pos):
    clean = random_data(small, 7, seed=5)
    corrupted = clean.counterfactual("abc")
    job = _Job(small, clean, corrupted, clean, site, by_pos, None, None, 0.5)
    least = _need(job, Engine(small), 1, 1) / 2**30
    whole = quiet(small, clean, corrupted, site, by_pos=by_pos)
    for memory in (least * 1.01, least * 2.5, least * 6):
        part = quiet(small, clean, corrupted, site, by_pos=by_pos, memory=memory)
        torch.testing.assert_close(
            part.per_prompt, whole.per_prompt, rtol=1e-9, atol=1e-9
        )
    with pytest.raises(
        ValueError, match=r"too little for one prompt and one layer: it takes \d"
    ):
        quiet(small, clean, corrupted, site, by_pos=by_pos, memory=least * 0.9)


def test_the_plan_takes_less_at_a_time_the_less_memory_there_is(model):
    clean = IOIDataset(model, 50)
    engine, plans = Engine(model), []
    for memory in (8.0, 0.5, 0.1, 0.03):
        job = _Job(
            model,
            clean,
            clean.counterfactual("abc"),
            clean,
            "z",
            False,
            None,
            None,
            memory,
        )
        plans.append(_plan(job, engine))
        assert _need(job, engine, *plans[-1]) <= memory * 2**30
    assert (
        plans == sorted(plans, reverse=True)
        and plans[0] == (50, 12)
        and plans[-1][0] == 1
        and plans[-1][1] < 12
    )


MEASURE = """
import memory
from ioi_course.models import load_model
from ioi_course.patching import sweep
from ioi_course.prompts import IOIDataset
model = load_model("synthetic")
clean = IOIDataset(model, 24)
corrupted = clean.counterfactual("swap_subject")
peaks = []
for budget in (0.1, 2):
    before = memory.restart()
    sweep(model, clean, corrupted, "z", memory=budget, progress=False)
    peaks.append(memory.peak() - before)
print(peaks)
"""


@linux
def test_the_budget_is_kept():
    little, much = in_a_process(MEASURE)
    assert little < 0.15 < much < 2


# --- models that the engine does not serve ---


@pytest.mark.parametrize("into", ["corrupted", "clean"])
@pytest.mark.parametrize("site", SITES)
def test_with_a_hook_on_it_the_model_itself_is_run_and_the_numbers_are_the_same(
    pair, site, into
):
    model = random_model(0)
    fast = quiet(model, *pair, site, into=into, by_pos=site in ("z", "pattern"))
    model.add_hook("blocks.1.hook_attn_out", lambda value, hook: value)
    try:
        with pytest.warns(UserWarning, match="once per patch"):
            slow = quiet(model, *pair, site, into=into, by_pos=site in ("z", "pattern"))
        assert len(model.hook_dict["blocks.1.hook_attn_out"].fwd_hooks) == 1
    finally:
        model.reset_hooks()
    torch.testing.assert_close(slow.per_prompt, fast.per_prompt, rtol=1e-9, atol=1e-9)
    assert slow.axes == fast.axes and slow.labels == fast.labels


def test_the_slow_way_reads_the_hooked_model(pair):
    model = random_model(0)
    plain = quiet(model, *pair, "z")
    model.add_hook("blocks.2.hook_mlp_out", lambda value, hook: value * 0)
    try:
        with pytest.warns(UserWarning):
            hooked = quiet(model, *pair, "z")
        expected = logit_diff(model(pair[0].tokens), pair[0], per_prompt=True)
    finally:
        model.reset_hooks()
    torch.testing.assert_close(hooked.clean, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(hooked.values, plain.values, atol=1e-3)


def test_another_architecture_is_run_once_per_patch():
    model = random_of("phi", processing=())
    clean = random_data(model, 3)
    corrupted = clean.counterfactual("abc")
    _, cache = model.run_with_cache(clean.tokens)
    for site in ("resid_pre", "attn_out", "mlp_out", "z", "q", "v", "pattern"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = quiet(model, clean, corrupted, site)
        assert len([w for w in caught if "does not serve" in str(w.message)]) == 1
        name, index = {
            True: (
                f"blocks.1.attn.hook_{site}",
                (slice(None), 2)
                if site == "pattern"
                else (slice(None), slice(None), 2),
            ),
            False: (f"blocks.1.hook_{site}", (slice(None), 2)),
        }[site in HEAD_SITES]

        def patch(value, hook, index=index):
            value[index] = cache[hook.name][index]
            return value

        logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
        expected = logit_diff(logits, clean, per_prompt=True)
        torch.testing.assert_close(
            found.per_prompt[1, 2], expected, rtol=1e-6, atol=1e-6
        )
    with pytest.warns(UserWarning):
        given = quiet(
            model,
            clean,
            corrupted,
            "z",
            cache=cache,
            metric=lambda logits: logit_diff(logits, clean),
        )
    with pytest.warns(UserWarning):
        found = quiet(model, clean, corrupted, "z")
    torch.testing.assert_close(
        given.per_prompt[..., 0], found.per_prompt.mean(-1), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(ValueError, match="no site 'resid_mid'"):
        quiet(model, clean, corrupted, "resid_mid")
    with pytest.raises(Unsupported, match="Phi"):
        attribution_patch(model, clean, corrupted, "z")


def test_the_slow_way_takes_prompts_in_batches(pair):
    model = random_model(0)
    fast = quiet(model, *pair, "z")
    model.add_hook("blocks.1.hook_attn_out", lambda value, hook: value)
    try:
        with pytest.warns(UserWarning):
            slow = quiet(model, *pair, "z", memory=0.002)
    finally:
        model.reset_hooks()
    torch.testing.assert_close(slow.per_prompt, fast.per_prompt, rtol=1e-9, atol=1e-9)


# --- nothing is left behind ---


def hooks(model):
    return sum(
        len(point.fwd_hooks) + len(point.bwd_hooks)
        for point in model.hook_dict.values()
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_the_model_clean(pair, error):
    model, calls = random_model(4), []
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def metric(logits):
        calls.append(len(logits))
        if len(calls) == 7:
            raise error("stop")
        return logit_diff(logits, pair[0])

    with pytest.raises(error):
        quiet(model, *pair, "z", metric=metric)
    assert hooks(model) == 0
    model.add_hook("blocks.0.hook_mlp_out", lambda value, hook: value)
    mine, calls[:] = hooks(model), []
    with pytest.warns(UserWarning), pytest.raises(error):
        quiet(model, *pair, "z", metric=metric)
    assert hooks(model) == mine
    model.reset_hooks()
    assert all(
        torch.equal(value, before[name]) for name, value in model.state_dict().items()
    )


def test_gradients_stay_off(small, pair):
    assert torch.is_grad_enabled()
    result, estimate = quiet(small, *pair, "z"), attribution_patch(small, *pair, "z")
    assert (
        torch.is_grad_enabled()
        and not result.per_prompt.requires_grad
        and not estimate.per_prompt.requires_grad
    )
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in small.parameters()
    )


def test_no_bar_on_a_short_sweep(small, pair, capsys):
    sweep(small, *pair, "resid_pre")
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_long_sweep_and_none_if_not_wanted(small, pair, capsys, monkeypatch):
    monkeypatch.setattr(progress, "tqdm", _Impatient)
    sweep(small, *pair, "resid_pre")
    shown = capsys.readouterr().err
    assert "resid_pre: 100%" in shown and "3/3" in shown
    sweep(small, *pair, "resid_pre", progress=False)
    assert capsys.readouterr() == ("", "")


class _Impatient(progress.tqdm):
    """A bar that waits for nothing."""

    def __init__(self, *args, **options):
        super().__init__(
            *args, **(options | {"delay": 0, "mininterval": 0, "miniters": 1})
        )


# --- attribution patching ---


@pytest.mark.parametrize("into", ["corrupted", "clean"])
@pytest.mark.parametrize("processing", [None, ()])
@pytest.mark.parametrize("site", SITES)
def test_the_estimate_is_the_derivative_of_the_patch(site, processing, into):
    """A patch that goes a thousandth of the way changes a
    thousandth of the estimate."""
    model = random_model(0) if processing is None else random_model(1, processing=())
    clean = random_data(model, 3, seed=3)
    corrupted = clean.counterfactual("abc")
    estimate = attribution_patch(model, clean, corrupted, site, into=into, by_pos=True)
    base, source = (corrupted, clean) if into == "corrupted" else (clean, corrupted)
    names = [
        f"blocks.{i}.{'attn.' if site in HEAD_SITES else ''}hook_{site}"
        for i in range(3)
    ]
    (_, old), (_, new) = (
        model.run_with_cache(data.tokens, names_filter=names) for data in (base, source)
    )
    step = 1e-4
    mixed = ActivationCache(
        {name: old[name] + step * (new[name] - old[name]) for name in names}, model
    )
    exact = quiet(model, clean, corrupted, site, into=into, by_pos=True, cache=mixed)
    slope = (exact.per_prompt - exact.base) / step
    found = estimate.per_prompt - estimate.base
    assert (slope - found).abs().max() < 1e-2 * found.abs().max()
    torch.testing.assert_close(estimate.clean, exact.clean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        estimate.corrupted, exact.corrupted, rtol=1e-9, atol=1e-9
    )


def test_the_estimate_adds_up_over_positions(small, pair):
    for site in HEAD_SITES:
        whole, parts = (
            attribution_patch(small, *pair, site, by_pos=by_pos)
            for by_pos in (False, True)
        )
        assert whole.axes == ("layer", "head") and parts.axes == (
            "layer",
            "head",
            "pos",
        )
        change = (parts.per_prompt - parts.base).sum(dim=2)
        torch.testing.assert_close(
            whole.per_prompt - whole.base, change, rtol=1e-9, atol=1e-9
        )


def test_the_estimate_is_good_for_outputs_and_bad_for_queries(model, demo, demo_z):
    estimate = attribution_patch(model, *demo, "z")
    assert np.corrcoef(demo_z.values.flatten(), estimate.values.flatten())[0, 1] > 0.99
    assert "estimate" in repr(estimate)
    clean = demo[0][:2]
    queries = [
        f(model, clean, clean.counterfactual("swap_subject"), "q").values
        for f in (quiet, attribution_patch)
    ]
    assert queries[0][5, 5] > 0.1 and queries[1][5, 5].abs() < 0.01


def test_the_estimate_in_batches(small):
    clean = random_data(small, 6)
    corrupted = clean.counterfactual("abc")
    whole = attribution_patch(small, clean, corrupted, "pattern")
    part = attribution_patch(small, clean, corrupted, "pattern", memory=0.0015)
    torch.testing.assert_close(whole.per_prompt, part.per_prompt, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="too little for one prompt"):
        attribution_patch(small, clean, corrupted, "pattern", memory=1e-5)


# --- bad input ---


@pytest.mark.parametrize("function", [quiet, attribution_patch])
def test_bad_input(small, pair, function):
    clean, corrupted = pair
    cases = (
        (dict(site="resid_per"), "did you mean 'resid_pre'"),
        (dict(site="Z!"), "There is no site 'Z!'"),
        (dict(site="z", into="corupted"), "'corrupted' .what suffices."),
        (dict(site="z", memory=0), "memory is 0"),
        (dict(site="z", memory=True), "memory is True"),
        (dict(site="z", memory="1"), "memory is '1'"),
    )
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            function(small, clean, corrupted, **options)
    for other, message in (
        (clean, "the same in 5 of 5 prompts"),
        (corrupted[:4], "do not align: 5 prompts against 4"),
        (clean.counterfactual("extra_io"), "do not align"),
        (IOIDataset.from_prompts(small, corrupted.records, bos=False), "do not align"),
        (random_data(small, 5, seed=9), "do not align"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(small, clean, other, "z")
    with pytest.raises(TypeError, match="must be an IOIDataset"):
        function(small, clean.tokens, corrupted, "z")


def test_one_pair_of_identical_prompts_is_named(small, pair):
    clean, corrupted = pair
    mixed = IOIDataset.from_prompts(
        small, [*corrupted.records[:2], clean.records[2], *corrupted.records[3:]]
    )
    with pytest.raises(ValueError, match="1 of 5 prompts, first in prompt 2"):
        quiet(small, clean, mixed, "z")


@pytest.mark.parametrize("hooked", [False, True])
def test_bad_metrics(pair, hooked):
    model = random_model(0)
    clean, _ = pair
    if hooked:
        model.add_hook("blocks.1.hook_attn_out", lambda value, hook: value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="the metric must be one number, not"):
                quiet(
                    model,
                    *pair,
                    "z",
                    metric=lambda logits: logit_diff(logits, clean, per_prompt=True),
                )
            with pytest.raises(ValueError, match="must be a finite number"):
                quiet(
                    model, *pair, "z", metric=lambda logits: logits.sum() * float("nan")
                )
            with pytest.raises(
                TypeError, match="metric must be a function of the logits"
            ):
                quiet(model, *pair, "z", metric="logit_diff")
    finally:
        model.reset_hooks()


def test_bad_caches(small, pair):
    clean, corrupted = pair
    _, whole = small.run_with_cache(clean.tokens)
    _, wrong_run = small.run_with_cache(corrupted.tokens)
    _, few = small.run_with_cache(clean.tokens[:3])
    _, short = small.run_with_cache(clean.tokens[:, :-2])
    _, part = small.run_with_cache(clean.tokens, names_filter=["blocks.0.attn.hook_z"])
    for cache, message in (
        (few, "a cache from another batch"),
        (short, "a cache from another batch"),
        (part, "has no 'blocks.1.attn.hook_z'"),
        (wrong_run, "of other tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            quiet(small, clean, corrupted, "z", cache=cache)
    with pytest.raises(ValueError, match="of other tokens"):
        quiet(small, clean, corrupted, "z", into="clean", cache=whole)
    quiet(small, clean, corrupted, "z", cache=whole)


def test_another_models_tokens(small):
    from types import SimpleNamespace

    tiny = load_model("synthetic")
    clean = random_data(tiny, 2)
    stub = SimpleNamespace(cfg=SimpleNamespace(d_vocab=50, n_ctx=64, n_layers=3))
    with pytest.raises(ValueError, match="vocabulary ends at 49"):
        quiet(stub, clean, clean.counterfactual("abc"), "z")


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_bad_tables(demo_z, k):
    with pytest.raises(ValueError, match="number of rows"):
        demo_z.table(k)


def test_a_circuit_has_no_positions(small, pair):
    with pytest.raises(ValueError, match="classes of heads"):
        quiet(small, *pair, "resid_pre").table(3, CIRCUIT)
