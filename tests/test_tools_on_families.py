"""Every tool on models that are not GPT-2: RMSNorm, rotary positions, shared keys and
values, MLPs beside attention.

A model in which groups of heads share keys and values computes what a model computes in
which each head has a copy. So each tool that speaks of heads must say the same of both:
that is its test, beside sums that must come out.
"""

import pytest
import torch
from test_families import honest_float64, without_groups  # noqa: F401

from ioi_course.ablation import ablate, said_scores
from ioi_course.adversarial import WHERE, WHO, distract
from ioi_course.attention import attention_to_roles
from ioi_course.attribution import direct_attribution, source_attribution
from ioi_course.attribution_patching import attribution_patch
from ioi_course.checks.core import random_data, random_of
from ioi_course.failures import observe
from ioi_course.heads import composition_scores, head_scores
from ioi_course.inhibition import attention_path, patch_heads
from ioi_course.lens import residual_lens, stream_places, vocabulary_lens
from ioi_course.messages import Into, keep_runs, messages
from ioi_course.metrics import logit_diff
from ioi_course.movers import copy_scores, name_projection
from ioi_course.patching import sweep
from ioi_course.paths import path_patch
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit
from ioi_course.signals import split_signals
from ioi_course.transplant import stranger_prompts, transplant
from ioi_course.trial import completeness, faithfulness, minimality

SERVED = ("gpt2", "llama", "mistral", "qwen2", "neox")
CLOSE = {"rtol": 0, "atol": 1e-6}
LATE, MIDDLE = [(2, 1), (2, 4)], [(1, 3)]


pytestmark = pytest.mark.usefixtures("no_grad")


def made_up(model) -> Circuit:
    roles = {
        "name mover": ((2, 1), (2, 4)),
        "S-inhibition": ((1, 3),),
        "duplicate token": ((0, 5),),
    }
    at = {"name mover": "END", "S-inhibition": "END", "duplicate token": "S2"}
    return Circuit(
        roles,
        at,
        (),
        "any",
        "made up",
        n_layers=model.cfg.n_layers,
        n_heads=model.cfg.n_heads,
    )


TOOLS = {
    "heads": lambda m, d: direct_attribution(m, d, by="head").values,
    "sources": lambda m, d: source_attribution(m, d, LATE).values,
    "roles": lambda m, d: attention_to_roles(m, d).weighted,
    "scores": lambda m, d: head_scores(m).induction,
    "composition Q": lambda m, d: composition_scores(m, "Q"),
    "composition K": lambda m, d: composition_scores(m, "K"),
    "composition V": lambda m, d: composition_scores(m, "V"),
    "projection": lambda m, d: name_projection(m, d).projection,
    "copy": lambda m, d: copy_scores(m, progress=False).logit(),
    "copied": lambda m, d: copy_scores(m, progress=False).copy(),
    "transplant written": lambda m, d: (
        transplant(m, d, stranger_prompts(d), LATE).written
    ),
    "transplant said": lambda m, d: (
        transplant(m, d, stranger_prompts(d), [(0, 2), (1, 3), *LATE]).probs
    ),
    "said": lambda m, d: said_scores(m, (1, 3)),
    "zero": lambda m, d: ablate(m, d, LATE, "zero").after,
    "mean": lambda m, d: ablate(m, d, MIDDLE, "mean").after,
    "resample": lambda m, d: ablate(m, d, MIDDLE, "resample").after,
    "patched": lambda m, d: (
        patch_heads(
            m, d, {"x": d.counterfactual("abc")}, MIDDLE, LATE, progress=False
        ).per_prompt
    ),
    "attention": lambda m, d: (
        attention_path(m, d, d.counterfactual("abc"), LATE, MIDDLE).per_prompt
    ),
    "signals": lambda m, d: split_signals(m, d, MIDDLE, progress=False).weights,
    "messages q": lambda m, d: messages(
        keep_runs(m, d), [(0, 2), (1, 3)], Into(((2, 1), (2, 4)), "q")
    ),
    "messages k": lambda m, d: messages(
        keep_runs(m, d), [(0, 2)], Into(((1, 3), (2, 4)), "k", "END", "S2")
    ),
    "messages v": lambda m, d: messages(
        keep_runs(m, d), [(0, 2)], Into(((1, 3), (2, 4)), "v", "S2", "S1+1")
    ),
    "observed": lambda m, d: (
        observe(m, distract(d, WHO[0], next(iter(WHERE)), 0), LATE).attention
    ),
    "faithfulness": lambda m, d: faithfulness(m, d, made_up(m)).circuit,
    "completeness": lambda m, d: completeness(m, d, made_up(m), progress=False).circuit,
    "minimality": lambda m, d: torch.tensor(
        minimality(m, d, made_up(m), progress=False).table()["share"].to_numpy()
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_sharing_keys_and_values_changes_nothing(family, tool):
    shared, own = random_of(family), without_groups(family)
    data = random_data(shared, 4, seed=11)
    found, expected = TOOLS[tool](shared, data), TOOLS[tool](own, data)
    assert found.nan_to_num().abs().max() > 0
    torch.testing.assert_close(found, expected, **CLOSE, equal_nan=True)


# --- inference mode ---


@pytest.mark.parametrize("tool", [*TOOLS, "sweep", "paths"])
def test_inference_mode_changes_nothing(tool):
    more = {
        "sweep": lambda m, d: (
            sweep(m, d, d.counterfactual("abc"), "q", progress=False).per_prompt
        ),
        "paths": lambda m, d: (
            path_patch(
                m, d, d.counterfactual("abc"), LATE, "k", progress=False
            ).per_prompt
        ),
    }
    measure, model = (TOOLS | more)[tool], random_of("llama", seed=5)
    data = random_data(model, 3, seed=2)
    with torch.inference_mode():
        within = measure(model, random_data(model, 3, seed=2))
    torch.testing.assert_close(within, measure(model, data), **CLOSE, equal_nan=True)


def test_an_engine_that_was_made_in_inference_mode_gives_gradients():
    model = random_of("llama", seed=6)
    data = random_data(model, 3)
    with torch.inference_mode():
        sweep(model, data, data.counterfactual("abc"), "z", progress=False)
    assert torch.isfinite(
        attribution_patch(model, data, data.counterfactual("abc"), "z").per_prompt
    ).all()


# --- sums ---


def check_sums(model, data, close: float) -> None:
    near = {"rtol": 0, "atol": close}
    diff = logit_diff(model(data.tokens), data, per_prompt=True).cpu()
    parts = direct_attribution(model, data)
    torch.testing.assert_close(parts.values.sum(dim=1), diff, **near)
    heads = direct_attribution(model, data, by="head").values
    of_layer = [
        i for i, label in enumerate(parts.labels[0]) if label.endswith("_heads")
    ]
    torch.testing.assert_close(heads.sum(dim=2), parts.values[:, of_layer], **near)
    neurons = direct_attribution(model, data, by="neuron").values
    of_mlp = [
        i for i, label in enumerate(parts.labels[0]) if label.endswith("_mlp_out")
    ]
    bias = torch.stack(
        [
            torch.zeros(1) if b.mlp.b_out is None else b.mlp.b_out.abs().max()[None]
            for b in model.blocks
        ]
    )
    if not bias.any():
        torch.testing.assert_close(neurons.sum(dim=2), parts.values[:, of_mlp], **near)
    last = model.cfg.n_layers - 1
    sources = source_attribution(model, data, [(last, 0), (last, 1)]).values
    torch.testing.assert_close(sources.sum(dim=2), heads[:, last, :2], **near)
    projected = name_projection(model, data).projection
    torch.testing.assert_close(projected[..., 0] - projected[..., 1], heads, **near)
    held, own = (residual_lens(model, data, scale) for scale in ("final", "own"))
    for lens in (held, own):
        torch.testing.assert_close(lens.values[-1], diff, **near)
    table = held.table
    steps = table[
        [column for column in ("attention", "MLP", "both at once") if column in table]
    ].sum(axis=1)
    assert abs(table["before"] + steps - table["after"]).max() < close


@pytest.mark.parametrize("family", SERVED)
def test_parts_add_up(family, honest_float64):  # noqa: F811
    model = random_of(family)
    check_sums(model, random_data(model, 5, seed=4), 1e-6)


@pytest.mark.parametrize("family", SERVED)
def test_the_vocabulary_lens_ends_in_what_the_model_says(family):
    model = random_of(family)
    data = random_data(model, 2)
    found = vocabulary_lens(model, data.prompts[0], half_layers=True)
    logits = model(model.to_tokens(data.prompts[0], prepend_bos=True))[0]
    assert [cell[0] for cell in found.top[-1]] == [
        model.tokenizer.decode([i]) for i in logits.argmax(dim=-1)
    ]
    assert len(found.labels) == len(stream_places(model))


def test_parts_add_up_on_smollm2(smollm2_model):
    data = IOIDataset(smollm2_model, 16, seed=3)
    check_sums(smollm2_model, data, 1e-4)
