"""The engine: the same numbers as TransformerLens, run by run and patch by patch, and
the models that it refuses."""

import pytest
import torch
from transformer_lens import patching as theirs

from ioi_course.checks.core import random_data, random_model
from ioi_course.engine import (
    HEAD_SITES,
    Engine,
    Unsupported,
    Window,
    first_differences,
    propagate,
    run,
    unsupported,
    windows_at,
    windows_from,
)
from ioi_course.metrics import logit_diff
from ioi_course.patch_jobs import STREAM_SITES
from ioi_course.patching import sweep
from ioi_course.prompts import IOIDataset

KINDS = ("swap_subject", "swap_names", "abc")


pytestmark = pytest.mark.usefixtures("no_grad")


def reference(model, clean, base, cache, site, by_pos=False):
    """TransformerLens' sweep of the site, axes in our order."""

    def metric(logits):
        return logit_diff(logits, clean)

    if site in STREAM_SITES:
        return getattr(theirs, f"get_act_patch_{site}")(
            model, base.tokens, cache, metric
        )
    name = {"z": "out"}.get(site, site)
    function = getattr(
        theirs, f"get_act_patch_attn_head_{name}_{'by_pos' if by_pos else 'all_pos'}"
    )
    found = function(model, base.tokens, cache, metric)
    return (
        found.transpose(1, 2)
        if by_pos and found.shape[1] == base.tokens.shape[1]
        else found
    )


def small_models():
    return {
        "processed": random_model(0),
        "raw": random_model(1, processing=()),
        "two layers": random_model(2, n_layers=2, n_heads=3, d_model=24),
    }


# --- the unpatched run ---


@pytest.mark.parametrize("name", small_models())
def test_a_run_keeps_what_transformer_lens_caches(name):
    model = small_models()[name]
    tokens = random_data(model, 5, seed=3).tokens
    logits, cache = model.run_with_cache(tokens)
    engine = Engine(model)
    kept = run(engine, tokens)
    for layer in range(model.cfg.n_layers):
        for site in (
            "resid_pre",
            "resid_mid",
            "attn_out",
            "mlp_out",
            "pattern",
            "z",
            "q",
            "k",
            "v",
        ):
            hook = f"blocks.{layer}.{'attn.' if site in HEAD_SITES else ''}hook_{site}"
            value = getattr(kept, site)[layer]
            value = value.transpose(1, 2) if site in ("z", "q", "k", "v") else value
            torch.testing.assert_close(value, cache[hook], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        engine.logits(kept.resid_pre[-1]), logits, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("start", [1, 4])
def test_a_run_like_another_takes_over_what_comes_before_the_first_difference(start):
    model, engine = random_model(0), Engine(random_model(0))
    data = random_data(model, 4, seed=5)
    other = data.tokens.clone()
    other[:, start:] = data.tokens[[1, 2, 3, 0], start:]
    whole, partly = (
        run(engine, other),
        run(engine, other, like=run(engine, data.tokens), start=start),
    )
    for name, values in vars(whole).items():
        for mine, expected in zip(getattr(partly, name), values, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


# --- patches ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", small_models())
def test_every_site_of_every_layer_agrees_with_transformer_lens(name, kind):
    model = small_models()[name]
    clean = random_data(model, 4, seed=1)
    corrupted = clean.counterfactual(kind)
    assert len(set(clean.lengths.tolist())) > 1  # padded
    for into, base, source in (
        ("corrupted", corrupted, clean),
        ("clean", clean, corrupted),
    ):
        _, cache = model.run_with_cache(source.tokens)
        for site in (*STREAM_SITES, *HEAD_SITES):
            ours = sweep(model, clean, corrupted, site, into=into, progress=False)
            expected = reference(model, clean, base, cache, site)
            assert (ours.per_prompt.mean(dim=-1) - expected).abs().max() < 1e-6, (
                site,
                into,
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", HEAD_SITES)
def test_heads_by_position_agree_with_transformer_lens(site, kind):
    model = random_model(2, n_layers=2, n_heads=3, d_model=24)
    clean = random_data(model, 3, seed=2)
    corrupted = clean.counterfactual(kind)
    _, cache = model.run_with_cache(clean.tokens)
    ours = sweep(model, clean, corrupted, site, by_pos=True, progress=False)
    expected = reference(model, clean, corrupted, cache, site, by_pos=True)
    assert ours.axes == ("layer", "head", "pos") and ours.per_prompt.shape == (
        *expected.shape,
        3,
    )
    assert (ours.per_prompt.mean(dim=-1) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("site", (*STREAM_SITES, *HEAD_SITES))
def test_each_prompt_of_a_batch_is_as_if_alone(site):
    model = random_model(0)
    clean = random_data(model, 5, seed=4)
    corrupted = clean.counterfactual("abc")
    together = sweep(model, clean, corrupted, site, by_pos=True, progress=False)
    for i in range(len(clean)):
        alone = sweep(
            model,
            clean[i : i + 1],
            corrupted[i : i + 1],
            site,
            by_pos=True,
            progress=False,
        )
        mine = together.per_prompt[..., i : i + 1][..., : alone.per_prompt.shape[-2], :]
        torch.testing.assert_close(alone.per_prompt, mine, rtol=1e-9, atol=1e-9)


SYNTHETIC = (
    ("swap_subject", (*STREAM_SITES, *HEAD_SITES)),
    ("abc", ("resid_pre", "z", "pattern")),
)


@pytest.mark.parametrize(
    ("kind", "site"), [(kind, site) for kind, sites in SYNTHETIC for site in sites]
)
def test_the_synthetic_model_in_float32_agrees_with_plain_hooks(float32, kind, site):
    clean = IOIDataset.demo(float32)[1:4]
    compare_with_hooks(float32, clean, clean.counterfactual(kind), site)


@pytest.fixture(scope="module")
def float32():
    from ioi_course.models import load_model

    return load_model("synthetic", dtype=torch.float32)


def compare_with_hooks(
    model, clean, corrupted, site, heads=((0, 1), (5, 5), (8, 6), (11, 10))
):
    """A sample of patches by hooks as anybody would write them,
    against the sweep; float32."""
    _, cache = model.run_with_cache(clean.tokens)
    ours = sweep(model, clean, corrupted, site, progress=False).per_prompt
    s2, end = int(clean.pos["S2"][0]), int(clean.pos["END"][0])
    places = heads if site in HEAD_SITES else [(0, s2), (5, s2), (8, end), (11, end)]
    for layer, other in places:
        axis = {"pattern": (slice(None), other)}.get(
            site, (slice(None), slice(None), other)
        )
        index = axis if site in HEAD_SITES else (slice(None), other)
        name = f"blocks.{layer}.{'attn.' if site in HEAD_SITES else ''}hook_{site}"

        def patch(value, hook, index=index, name=name):
            value[index] = cache[name][index]
            return value

        logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
        expected = logit_diff(logits, clean, per_prompt=True)
        assert (ours[layer, other] - expected).abs().max() < 1e-4, (site, layer, other)


def test_transformer_lens_on_the_synthetic_model_in_float32(float32):
    """Whole sweeps of TransformerLens, two prompts; the other
    sites by a sample above."""
    clean = IOIDataset.demo(float32)[:2]
    corrupted = clean.counterfactual("swap_subject")
    _, cache = float32.run_with_cache(clean.tokens)
    for site in ("resid_pre", "z"):
        ours = sweep(float32, clean, corrupted, site, progress=False).per_prompt.mean(
            dim=-1
        )
        assert (
            ours - reference(float32, clean, corrupted, cache, site)
        ).abs().max() < 1e-4


@pytest.mark.gpt2_tokenizer
def test_gpt2_shapes_agree_with_plain_hooks(random_gpt2):
    from ioi_course.models import load_model

    model = load_model(str(random_gpt2))
    clean = IOIDataset.demo(model)[:2]
    for site in ("z", "pattern", "resid_pre"):
        compare_with_hooks(
            model,
            clean,
            clean.counterfactual("swap_subject"),
            site,
            heads=((0, 1), (9, 9)),
        )
    clean = IOIDataset(model, 2)
    compare_with_hooks(model, clean, clean.counterfactual("abc"), "v", heads=((7, 9),))


# --- windows ---


def test_windows_cover_each_prompt_from_its_first_difference():
    one, other = (
        torch.zeros(4, 6, dtype=torch.long),
        torch.zeros(4, 6, dtype=torch.long),
    )
    other[0, 2] = other[1, 4] = other[2, 2] = 1
    first, end = first_differences(one, other), torch.tensor([5, 4, 3, 5])
    assert first.tolist() == [2, 4, 2, 6]
    assert [
        (w.start, w.prompts.tolist(), w.end.tolist()) for w in windows_from(first, end)
    ] == [
        (2, [0, 2], [5, 3]),
        (4, [1], [4]),
    ]
    places = {w.start: w.prompts.tolist() for w in windows_at(first, end)}
    assert places == {2: [0, 2], 3: [0, 2], 4: [0, 1], 5: [0]}


def test_propagate_without_a_change_is_the_unpatched_run():
    model = random_model(0)
    data = random_data(model, 3)
    engine = Engine(model)
    kept, end = run(engine, data.tokens), data.pos["END"]
    for only_end in (False, True):
        window = Window(torch.arange(3), 4, end, only_end=only_end)

        def begin(window, layer, stage):
            return (
                window.rows(kept.resid_mid[1])[None]
                if (layer, stage) == (1, "mid")
                else None
            )

        (found,) = propagate(engine, kept, [window], begin, frozen=only_end)
        torch.testing.assert_close(
            found[0], kept.resid_pre[-1][torch.arange(3), end], rtol=1e-9, atol=1e-9
        )


def test_given_values_replace_those_of_a_head():
    """Queries, keys and values handed to a later layer act like a patch there."""
    model = random_model(0)
    clean = random_data(model, 3)
    corrupted = clean.counterfactual("abc")
    engine = Engine(model)
    base, source = run(engine, corrupted.tokens), run(engine, clean.tokens)
    end, first = corrupted.pos["END"], first_differences(clean.tokens, corrupted.tokens)
    for site in ("q", "k", "v"):
        expected = sweep(model, clean, corrupted, site, progress=False).per_prompt[2, 1]
        (window,) = [Window(torch.arange(3), int(first.min()), end)]
        values = getattr(source, site)[2][:, 1, window.start : int(end.max()) + 1]
        window.given = {2: [(site, 1, values[None])]}

        def begin(window, layer, stage):
            return (
                window.rows(base.resid_pre[1])[None]
                if (layer, stage) == (1, "pre")
                else None
            )

        (found,) = propagate(engine, base, [window], begin)
        torch.testing.assert_close(
            engine.logit_diff(found[0], clean.answers), expected, rtol=1e-9, atol=1e-9
        )


# --- what it does not serve ---


def test_hooks_make_a_model_unsupported_and_taking_them_off_supported():
    model = random_model(3)
    assert unsupported(model) == ""
    model.add_hook("blocks.0.hook_attn_out", lambda value, hook: value)
    try:
        assert "on it" in unsupported(model)
        with pytest.raises(Unsupported, match="hooks"):
            Engine(model)
    finally:
        model.reset_hooks()
    assert unsupported(model) == ""


def test_another_architecture_is_unsupported():
    from types import SimpleNamespace

    for config, why in (
        (dict(architecture="PhiForCausalLM", act_fn="silu"), "architecture"),
        (dict(architecture="GPT2LMHeadModel", act_fn="relu2"), "relu2"),
    ):
        model = SimpleNamespace(cfg=SimpleNamespace(**config), hook_dict={})
        assert why in unsupported(model)
        with pytest.raises(Unsupported, match=why):
            Engine(model)
