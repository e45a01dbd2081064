"""The engine on small random models of each family it serves: the model's own numbers,
at all sites, both ways."""

import itertools
import warnings

import pytest
import torch
from transformer_lens import patching as theirs
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

from ioi_course import patching, paths
from ioi_course.attribution_patching import attribution_patch
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.checks.core import hf_model_of, random_data, random_of
from ioi_course.circuit import knock_out, run_circuit, run_without
from ioi_course.engine import HEAD_SITES, Unsupported, engine_of, run, unsupported
from ioi_course.means import reference_means
from ioi_course.metrics import logit_diff
from ioi_course.models import PROCESSING, wrap_model
from ioi_course.patch_jobs import STREAM_SITES
from ioi_course.patching import sweep
from ioi_course.paths import path_patch

SERVED = ("gpt2", "llama", "mistral", "qwen2", "neox")
CLOSE = {"rtol": 0, "atol": 1e-6}


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(autouse=True)
def honest_float64(monkeypatch):
    """transformers and TransformerLens compute parts of a float64 model in float32;
    here they do not, to compare."""
    softmax = torch.nn.functional.softmax

    def own_dtype(x, dim=None, dtype=None, **others):
        return softmax(
            x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype, **others
        )

    def norm(self, x):
        return torch.nn.functional.rms_norm(
            x, x.shape[-1:], self.weight, self.variance_epsilon
        )

    monkeypatch.setattr(torch.nn.functional, "softmax", own_dtype)
    for module, kind in (
        (modeling_llama, "Llama"),
        (modeling_mistral, "Mistral"),
        (modeling_qwen2, "Qwen2"),
    ):
        monkeypatch.setattr(getattr(module, f"{kind}RMSNorm"), "forward", norm)


@pytest.fixture
def slowly(monkeypatch):
    """A function that does something as if the engine served no model."""

    def do(function):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for module in (patching, paths):
                patch.setattr(module, "unsupported", lambda model: "not asked")
            return function()

    return do


def without_groups(family, seed=0):
    """The same model with a copy of each key and value for every head of a group:
    nothing is shared any more."""
    grouped = hf_model_of(family, seed)
    config, state = grouped.config, grouped.state_dict()
    copies = config.num_attention_heads // config.num_key_value_heads
    for name in [name for name in state if "k_proj" in name or "v_proj" in name]:
        heads = state[name].unflatten(0, (config.num_key_value_heads, -1))
        state[name] = heads.repeat_interleave(copies, dim=0).flatten(0, 1)
    whole = hf_model_of(family, seed, num_key_value_heads=config.num_attention_heads)
    whole.load_state_dict(state)
    return wrap_model(whole, build_tokenizer(), f"{family} without groups")


# --- runs ---


@pytest.mark.parametrize("processing", [PROCESSING, ()], ids=["processed", "raw"])
@pytest.mark.parametrize("family", SERVED)
def test_a_run_is_the_models(family, processing):
    model = random_of(family, processing=processing)
    data = random_data(model, 6, seed=2)
    logits, cache = model.run_with_cache(data.tokens)
    engine = engine_of(model)
    kept = run(engine, data.tokens)
    torch.testing.assert_close(engine.logits(kept.resid_pre[-1]), logits, **CLOSE)
    for layer, site in itertools.product(
        range(model.cfg.n_layers), ("resid_pre", "attn_out", "mlp_out", *HEAD_SITES)
    ):
        name = f"blocks.{layer}.{'attn.' if site in HEAD_SITES else ''}hook_{site}"
        value = getattr(kept, site)[layer]
        value, theirs_ = (
            value.transpose(1, 2) if site in ("z", "q", "k", "v") else value,
            cache[name],
        )
        if engine.turn and site in ("q", "k"):
            theirs_ = engine.turn(theirs_, torch.arange(theirs_.shape[1]))
        torch.testing.assert_close(
            value, theirs_, **CLOSE, msg=lambda text, name=name: f"{name}: {text}"
        )
    partly = run(engine, data.tokens, like=kept, start=3)
    for site in ("resid_pre", *HEAD_SITES):
        for whole, part in zip(getattr(kept, site), getattr(partly, site), strict=True):
            torch.testing.assert_close(part, whole, **CLOSE)


def test_what_the_engine_cannot_reproduce_is_refused_with_the_figures():
    """shared/cases/01: checkpoints that scale attention by layer, as stanford-crfm's,
    were wrong by 1.7 logits."""
    model = random_of("gpt2", scale_attn_by_inverse_layer_idx=True)
    assert "differ from the engine's by up to" in unsupported(model)
    with pytest.raises(Unsupported, match="differ"):
        engine_of(model)
    data = random_data(model, 3)
    with pytest.warns(UserWarning, match="differ from the engine"):
        found = sweep(
            model, data, data.counterfactual("swap_subject"), "z", progress=False
        )
    other = data.counterfactual("swap_subject")
    _, cache = model.run_with_cache(data.tokens)
    plain = theirs.get_act_patch_attn_head_out_all_pos(
        model, other.tokens, cache, lambda x: logit_diff(x, data)
    )
    torch.testing.assert_close(found.per_prompt.mean(-1).to(plain), plain, **CLOSE)


def test_an_architecture_outside_the_families_is_refused_by_name():
    assert "PhiForCausalLM" in unsupported(random_of("phi"))
    with pytest.raises(Unsupported, match="PhiForCausalLM"):
        engine_of(random_of("phi"))


CONFIGURATIONS = [
    ("gpt2", {"activation_function": "gelu"}),
    ("gpt2", {"activation_function": "relu"}),
    ("gpt2", {"n_inner": 100}),
    ("gpt2", {"layer_norm_epsilon": 0.1}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True}),
    ("llama", {"head_dim": 16}),
    ("llama", {"hidden_act": "gelu"}),
    ("llama", {"rms_norm_eps": 0.1}),
    ("llama", {"num_key_value_heads": 1}),
    (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    ("mistral", {"sliding_window": 300, "max_position_embeddings": 400}),
    ("neox", {"use_parallel_residual": False}),
    ("neox", {"rotary_pct": 1.0}),
    ("neox", {"hidden_act": "gelu_new"}),
]


@pytest.mark.parametrize("family, config", CONFIGURATIONS, ids=str)
def test_switches_of_a_configuration_are_served_right(family, config, slowly):
    model = wrap_model(
        hf_model_of(family, **config), build_tokenizer(), "with switches"
    )
    assert unsupported(model) == ""
    data = random_data(model, 3, seed=1)

    def measure():
        return sweep(
            model, data, data.counterfactual("swap_subject"), "z", progress=False
        ).per_prompt

    torch.testing.assert_close(measure(), slowly(measure).double(), **CLOSE)


@pytest.mark.parametrize("window", [4, 14, 20])
def test_attention_that_looks_back_a_few_positions_only_is_refused(window):
    """A window longer than the run that is compared, and shorter than a prompt, was
    wrong by a logit, silently."""
    model = wrap_model(
        hf_model_of("mistral", sliding_window=window),
        build_tokenizer(),
        "short-sighted",
    )
    assert f"looks back {window} positions only" in unsupported(model)


def test_a_text_beyond_the_window_is_refused():
    config = {"sliding_window": 300, "max_position_embeddings": 400}
    engine = engine_of(
        wrap_model(hf_model_of("mistral", **config), build_tokenizer(), "windowed")
    )
    tokens = torch.randint(1306, (1, 301))
    assert len(run(engine, tokens[:, :300]).z) == 3
    with pytest.raises(
        ValueError, match="301 positions, and the engine computes 300 at most for this"
    ):
        run(engine, tokens)


# --- sweeps ---


@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize("site", [*STREAM_SITES, *HEAD_SITES])
def test_sweeps_agree_with_hooks(family, site, slowly):
    model = random_of(family)
    clean = random_data(model, 4, seed=1)
    corrupted = clean.counterfactual("abc" if site == "k" else "swap_subject")
    for by_pos, into in ((False, "corrupted"), (True, "clean")):

        def measure(by_pos=by_pos, into=into):
            return sweep(
                model, clean, corrupted, site, by_pos=by_pos, into=into, progress=False
            )

        if family == "neox" and site == "resid_mid":
            with pytest.raises(ValueError, match="resid_mid"):
                measure()
            continue
        fast, slow = measure(), slowly(measure)
        assert fast.labels == slow.labels
        torch.testing.assert_close(
            fast.per_prompt, slow.per_prompt.to(fast.per_prompt), **CLOSE
        )
        assert (fast.per_prompt - fast.clean).abs().max() > 0.01


@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize("site", ["z", "pattern", "resid_pre"])
def test_sweeps_agree_with_transformer_lens(family, site):
    model = random_of(family)
    clean = random_data(model, 4, seed=3)
    corrupted = clean.counterfactual("swap_subject")
    _, cache = model.run_with_cache(clean.tokens)
    name = {"z": "attn_head_out_all_pos", "pattern": "attn_head_pattern_all_pos"}.get(
        site, site
    )
    function = getattr(theirs, f"get_act_patch_{name}")
    plain = function(
        model, corrupted.tokens, cache, lambda logits: logit_diff(logits, clean)
    )
    fast = sweep(model, clean, corrupted, site, progress=False).per_prompt.mean(-1)
    torch.testing.assert_close(fast.to(plain), plain, **CLOSE)


def test_labels_name_the_heads_of_a_group():
    model = random_of("llama")
    data = random_data(model, 3)
    found = sweep(model, data, data.counterfactual("swap_subject"), "k", progress=False)
    assert found.labels[1] == ["H0-2", "H3-5"]
    assert sweep(
        model, data, data.counterfactual("swap_subject"), "q", progress=False
    ).labels[1][:2] == ["H0", "H1"]


@pytest.mark.parametrize("site", ["q", "k"])
def test_a_cache_holds_queries_and_keys_before_they_are_turned(site):
    model = random_of("llama")
    data = random_data(model, 3)
    other = data.counterfactual("swap_subject")
    _, cache = model.run_with_cache(data.tokens)
    given = sweep(model, data, other, site, cache=cache, progress=False)
    torch.testing.assert_close(
        given.per_prompt,
        sweep(model, data, other, site, progress=False).per_prompt,
        **CLOSE,
    )


# --- paths ---


@pytest.mark.parametrize("mlps", ["recompute", "frozen"])
@pytest.mark.parametrize("component", [None, "q", "k", "v"])
@pytest.mark.parametrize("family", SERVED)
def test_paths_agree_with_hooks_on_a_model_in_which_nothing_is_shared(
    family, component, mlps, slowly
):
    model = random_of(family)
    same = (
        without_groups(family) if engine_of(model).n_kv < model.cfg.n_heads else model
    )
    data = random_data(model, 4, seed=5)
    source, receivers = (
        data.counterfactual("abc"),
        "logits" if component is None else [(2, 1), (2, 4), (1, 3)],
    )

    def measure(model):
        return path_patch(
            model, data, source, receivers, component, mlps=mlps, progress=False
        )

    fast, slow = measure(model), slowly(lambda: measure(same))
    torch.testing.assert_close(
        fast.per_prompt, slow.per_prompt.to(fast.per_prompt), **CLOSE
    )
    assert (fast.per_prompt - fast.base).abs().max() > 0.01


# --- circuits ---


@pytest.mark.parametrize("family", SERVED)
def test_knock_outs_agree_with_hooks(family):
    model = random_of(family)
    data = random_data(model, 5, seed=7)
    means = reference_means(model, data)
    sets = [
        {},
        {(0, 1): "S2", (2, 3): "END"},
        {(1, 0): "END"},
        {(0, 5): "S1+1", (1, 4): "S2", (2, 0): "END"},
    ]
    for places, found in zip(
        sets, knock_out(model, data, sets, means=means, progress=False), strict=True
    ):
        torch.testing.assert_close(
            found, run_without(model, data, places, means).to(found), **CLOSE
        )
    keep = {(0, 1): "S2", (0, 4): "S1+1", (1, 0): "END", (2, 3): "END", (2, 5): "END"}
    kept = knock_out(model, data, sets[:3], keep, means=means, progress=False)
    for places, found in zip(sets[:3], kept, strict=True):
        left = {head: role for head, role in keep.items() if head not in places}
        torch.testing.assert_close(
            found, run_circuit(model, data, left, means).to(found), **CLOSE
        )


# --- gradients ---


@pytest.mark.parametrize("family", SERVED)
def test_gradients_are_those_of_small_patches(family):
    """An attribution is the slope: a patch of a thousandth of the change moves
    by a thousandth of it."""
    model = random_of(family)
    data = random_data(model, 3, seed=9)
    other = data.counterfactual("swap_subject")
    found = attribution_patch(model, data, other, "z")
    _, cache = model.run_with_cache(data.tokens)
    _, changed = model.run_with_cache(other.tokens)
    step = 1e-4

    def nudge(layer, head):
        def add(z, hook):
            z[:, :, head] += step * (cache[hook.name] - changed[hook.name])[:, :, head]
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", add)]
        return logit_diff(
            model.run_with_hooks(other.tokens, fwd_hooks=hooks), data, per_prompt=True
        )

    for layer, head in ((0, 1), (1, 4), (2, 5)):
        slope = (
            nudge(layer, head) - logit_diff(model(other.tokens), data, per_prompt=True)
        ) / step
        torch.testing.assert_close(
            found.per_prompt[layer, head] - found.corrupted, slope, rtol=1e-2, atol=1e-3
        )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradients_inside_inference_mode(family):
    plain = random_of(family)
    data = random_data(plain, 3)
    expected = attribution_patch(plain, data, data.counterfactual("swap_subject"), "z")
    with torch.inference_mode():
        model = wrap_model(hf_model_of(family), build_tokenizer(), "in inference mode")
        within = random_data(model, 3)
        found = attribution_patch(
            model, within, within.counterfactual("swap_subject"), "z"
        )
    torch.testing.assert_close(found.per_prompt, expected.per_prompt, **CLOSE)
