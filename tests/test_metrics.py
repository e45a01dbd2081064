"""Metrics: against loops in plain Python, their invariances, and what is refused."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ioi_course.metrics import (
    accuracy,
    logit_diff,
    next_tokens,
    normalise,
    prob_io,
    scalar,
)
from ioi_course.prompts import IOIDataset

PROMPT = "After John and Mary went to the store, John gave a bottle of milk to"


@pytest.fixture(scope="module")
def data(tokenizer):
    """Prompts of different lengths, so that END is not the last column."""
    data = IOIDataset(tokenizer, 12, seed=1)
    assert data.lengths.min() < data.lengths.max()
    return data


def made_up(data, seed=0, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*data.tokens.shape, len(data.tokenizer), generator=g)


def naive(logits, data):
    """Per prompt: logit difference and probability of IO, in loops and plain floats."""
    diffs, probs = [], []
    for i, prompt in enumerate(data):
        io, s = (
            data.tokenizer.encode(f" {name}", add_special_tokens=False)[0]
            for name in prompt.names
        )
        row = logits[
            i,
            len(data.tokenizer.encode(prompt.text, add_special_tokens=False))
            - 1
            + data.bos,
        ].tolist()
        diffs.append(row[io] - row[s])
        probs.append(math.exp(row[io]) / sum(map(math.exp, row)))
    return diffs, probs


def mean(values):
    return sum(values) / len(values)


def test_against_loops(data):
    logits = made_up(data)
    diffs, probs = naive(logits, data)
    assert logit_diff(logits, data, per_prompt=True).tolist() == pytest.approx(
        diffs, abs=1e-5
    )
    assert logit_diff(logits, data).item() == pytest.approx(mean(diffs), abs=1e-5)
    assert prob_io(logits, data, per_prompt=True).tolist() == pytest.approx(
        probs, rel=1e-4
    )
    assert prob_io(logits, data).item() == pytest.approx(mean(probs), rel=1e-4)
    assert accuracy(logits, data) == mean([diff > 0 for diff in diffs])
    assert 0 < accuracy(logits, data) < 1


def test_logits_at_end_give_the_same(data):
    logits = made_up(data)
    end = logits[torch.arange(len(data)), data.pos["END"]]
    for metric in (logit_diff, prob_io, accuracy):
        assert metric(end, data) == metric(logits, data)


def test_only_end_counts(data):
    logits = made_up(data)
    elsewhere = logits.clone()
    elsewhere[torch.arange(data.tokens.shape[1]) != data.pos["END"][:, None]] = float(
        "nan"
    )
    assert logit_diff(elsewhere, data) == logit_diff(logits, data)


def test_ties_are_not_right(data):
    assert accuracy(torch.zeros(len(data), len(data.tokenizer)), data) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), constant=st.floats(-50, 50))
def test_constants_and_normalisers_cancel(data, seed, constant):
    logits = made_up(data, seed)
    for same in (logits + constant, logits.log_softmax(dim=-1)):
        torch.testing.assert_close(
            logit_diff(same, data, per_prompt=True),
            logit_diff(logits, data, per_prompt=True),
            atol=2e-4,
            rtol=0,
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), lean=st.floats(-20, 20))
def test_a_lean_to_one_name_cancels_in_pairs(tokenizer, seed, lean):
    demo = IOIDataset.demo(tokenizer)
    logits = made_up(demo, seed)
    leaning = logits.clone()
    leaning[..., demo.answers[0, 1]] += lean
    torch.testing.assert_close(
        logit_diff(leaning, demo), logit_diff(logits, demo), atol=1e-4, rtol=0
    )
    moved = logit_diff(leaning, demo, per_prompt=True) - logit_diff(
        logits, demo, per_prompt=True
    )
    torch.testing.assert_close(
        moved, torch.tensor([-lean, lean] + [0.0] * 6), atol=1e-4, rtol=0
    )


def test_gradients_flow(data):
    logits = made_up(data).requires_grad_()
    logit_diff(logits, data).backward()
    assert logits.grad.count_nonzero() == 2 * len(data)


def test_slices_and_batches(data):
    logits = made_up(data)
    per_prompt = logit_diff(logits, data, per_prompt=True)
    parts = [
        logit_diff(
            logits[start : start + 5, : batch.tokens.shape[1]], batch, per_prompt=True
        )
        for start, batch in zip(range(0, 12, 5), data.batches(5), strict=True)
    ]
    assert torch.cat(parts).equal(per_prompt)


def test_the_corrupted_mean_is_minus_the_clean_one(model):
    demo = IOIDataset.demo(model)
    with torch.inference_mode():
        clean = logit_diff(model(demo.tokens), demo)
        corrupted = logit_diff(model(demo.counterfactual("swap_subject").tokens), demo)
    assert clean.item() > 1 and corrupted.item() == pytest.approx(
        -clean.item(), abs=1e-4
    )


def test_bfloat16_logits(data):
    logits = made_up(data).bfloat16()
    assert logit_diff(logits, data).isfinite() and 0 <= prob_io(logits, data) <= 1


# --- refused


@pytest.mark.parametrize("metric", [logit_diff, prob_io, accuracy])
@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda x: x.tolist(),
            TypeError,
            "logits must be a tensor [batch, pos, vocab] or [batch, vocab], not list",
        ),
        (lambda x: x.numpy(), TypeError, "not ndarray"),
        (lambda x: None, TypeError, "not NoneType"),
        (lambda x: x[0, 0], ValueError, "must have the axes"),
        (lambda x: x[None], ValueError, "must have the axes"),
        (lambda x: x[:5], ValueError, "logits of 5 prompts, but the dataset has 12"),
        (lambda x: x[:, 1:], ValueError, "both with BOS?"),
        (
            lambda x: x[..., :3],
            ValueError,
            "logits for 3 tokens, fewer than an answer's id",
        ),
        (
            lambda x: x[:, -1, :3],
            ValueError,
            "logits for 3 tokens, fewer than an answer's id",
        ),
        (
            lambda x: torch.full_like(x, float("nan")),
            ValueError,
            "at END of 12 of 12 prompts, first in prompt 0",
        ),
    ],
)
def test_bad_logits(data, metric, change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        metric(change(made_up(data)), data)


def test_one_nan_at_end(data):
    logits = made_up(data)
    logits[4, data.pos["END"][4], 7] = float("nan")
    with pytest.raises(
        ValueError, match="at END of 1 of 12 prompts, first in prompt 4"
    ):
        logit_diff(logits, data)


# --- normalise and scalar


@settings(max_examples=60, deadline=None)
@given(clean=st.floats(-10, 10), corrupted=st.floats(-10, 10), share=st.floats(-2, 3))
def test_normalise(clean, corrupted, share):
    if abs(clean - corrupted) < 0.01:
        clean += 1
    patched = corrupted + share * (clean - corrupted)
    assert normalise(patched, clean, corrupted).item() == pytest.approx(share, abs=1e-2)
    assert (
        normalise(clean, clean, corrupted) == 1
        and normalise(corrupted, clean, corrupted) == 0
    )


def test_normalise_many():
    patched = torch.tensor([[3.0, -3.0], [0.0, 6.0]])
    assert normalise(patched, 3.0, torch.tensor(-3.0)).tolist() == [
        [1.0, 0.0],
        [0.5, 1.5],
    ]


@pytest.mark.parametrize(
    "args, message",
    [
        ((1.0, 2.0, 2.0), "the same but for rounding"),
        ((1.0, 2.0, 2.00001), "the same but for rounding"),
        (
            (1.0, torch.ones(8), 2.0),
            "clean must be one number, not [8] of them: take the mean",
        ),
        ((1.0, 2.0, torch.ones(8)), "corrupted must be one number, not [8] of them"),
        ((1.0, float("nan"), 2.0), "clean is nan; it must be a finite number"),
        ((1.0, 1.0, float("inf")), "corrupted is inf"),
    ],
)
def test_normalise_refuses(args, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        normalise(*args)


def test_scalar(data):
    assert scalar(3) == 3 and scalar(torch.tensor(2.5)).item() == 2.5
    with pytest.raises(
        ValueError, match=re.escape("the metric must be one number, not [12] of them")
    ):
        scalar(logit_diff(made_up(data), data, per_prompt=True))


# --- next_tokens


@pytest.mark.parametrize("bos", [True, False])
def test_next_tokens(model, bos):
    shown = next_tokens(model, PROMPT, " Mary", k=7, bos=bos)
    with torch.inference_mode():
        logits = model(model.to_tokens(PROMPT, prepend_bos=bos))[0, -1]
    top = logits.topk(7)
    table = shown.table[:7]
    assert table["rank"].tolist() == list(range(7))
    assert table["token"].tolist() == [
        model.tokenizer.decode([i]) for i in top.indices.tolist()
    ]
    assert table["logit"].tolist() == pytest.approx(top.values.tolist(), abs=1e-5)
    assert table["probability"].tolist() == pytest.approx(
        logits.softmax(-1)[top.indices].tolist(), abs=1e-6
    )
    assert shown.rank == int((logits > logits[model.to_single_token(" Mary")]).sum())
    assert shown.str_tokens == model.to_str_tokens(PROMPT, prepend_bos=bos)


def test_an_answer_below_the_top_gets_a_row(model):
    shown = next_tokens(model, PROMPT, " shops", k=3)
    last = shown.table.iloc[-1]
    assert shown.rank > 3 and len(shown.table) == 4
    assert last["token"] == " shops" and last["rank"] == shown.rank
    assert shown.table["logit"].is_monotonic_decreasing


@pytest.mark.parametrize("k, rows", [(3, 4), (4, 4), (5, 5)])
def test_an_answer_at_the_edge_of_the_table(model, k, rows):
    fourth = next_tokens(model, PROMPT).table["token"][3]
    shown = next_tokens(model, PROMPT, fourth, k=k)
    assert shown.rank == 3 and shown.table["rank"].tolist() == list(range(rows))


def test_without_answer_and_more_than_the_vocabulary(model):
    shown = next_tokens(model, PROMPT, k=10**6)
    assert shown.rank is None and shown.answer is None
    assert len(shown.table) == model.cfg.d_vocab and shown.table[
        "probability"
    ].sum() == pytest.approx(1, abs=1e-4)
    assert "rank of" not in repr(shown)


def test_next_tokens_shows_itself(model):
    shown = next_tokens(model, PROMPT, " Mary", k=3)
    assert f"rank of ' Mary': {shown.rank}" in repr(
        shown
    ) and "| John| and| Mary|" in repr(shown)
    assert repr(shown).count("%") == len(shown.table)
    page = shown._repr_html_()
    assert (
        page.count("<tr") == len(shown.table) + 1
        and "&lt;|" in page
        and "<|" not in page
    )


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(prompt=""), "give one text that is not empty"),
        (dict(prompt=["a", "b"]), "give one text that is not empty"),
        (dict(k=0), "k is 0"),
        (dict(k=2.5), "k is 2.5"),
        (
            dict(answer=" Lakshmi"),
            "' Lakshmi' is not one token but 2: [' Laksh', 'mi']",
        ),
        (dict(answer=""), "'' is not one token but 0"),
    ],
)
def test_next_tokens_refuses(model, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        next_tokens(model, **({"prompt": PROMPT} | given))
