"""The lab's engine: interventions against TransformerLens' own hooked runs, share
strings, and wrong input."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ioi_course.ablation import ablate
from ioi_course.interventions import (
    HOWS,
    Bench,
    Intervention,
    abc_tokens,
    intervene,
    share,
    shared,
)
from ioi_course.metrics import logit_diff
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
from ioi_course.templates import IOIPrompt

pytestmark = pytest.mark.usefixtures("no_grad")
PAIR = {
    "prompt": "When John and Mary went to the shops, John gave the bag to",
    "other": "When John and Mary went to the shops, Mary gave the bag to",
}


@pytest.fixture(scope="module")
def bench(model):
    return Bench(model)


def hooked(model, bench, what: Intervention) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits at END and all patterns of TransformerLens' run with hooks that
    do what is asked for."""
    reading = bench.read(what.prompt)
    tokens = torch.tensor([reading.tokens])
    at = list(what.at) or list(range(len(reading.tokens)))
    every = [
        (layer, head)
        for layer in range(bench.n_layers)
        for head in range(bench.n_heads)
    ]
    heads = (
        [place for place in every if place not in what.heads]
        if what.only
        else what.heads
    )
    other = (
        model.run_with_cache(torch.tensor([bench.read(what.other).tokens]))[1]
        if what.other
        else None
    )
    mean = (
        model.run_with_cache(abc_tokens(reading, bench.names))[1]
        if what.how == "mean"
        else None
    )

    def put_z(z, hook):
        z = z.clone()
        for layer, head in heads:
            if layer == hook.layer():
                own = z[0, at, head]
                new = {
                    "zero": lambda own=own: 0 * own,
                    "keep": lambda own=own: own,
                    "mean": lambda head=head: mean[hook.name][:, at, head].mean(0),
                    "other": lambda head=head: other[hook.name][0, at, head],
                }[what.how]()
                z[0, at, head] = (1 - what.amount) * own + what.amount * new
        return z

    def put_stream(x, hook):
        x = x.clone()
        for layer, place in what.stream:
            if layer == hook.layer():
                x[0, place] = other[hook.name][0, place]
        return x

    layers = range(bench.n_layers)
    hooks = [(f"blocks.{i}.attn.hook_z", put_z) for i in layers]
    hooks += [(f"blocks.{i}.hook_resid_pre", put_stream) for i in layers]
    with model.hooks(fwd_hooks=hooks):
        logits, cache = model.run_with_cache(tokens)
    return logits[0, -1], torch.stack(
        [cache[f"blocks.{i}.attn.hook_pattern"][0] for i in layers]
    )


def drawn(bench, rng: random.Random, how: str) -> Intervention:
    """An intervention by chance on one of the course's pairs of prompts."""
    data = IOIDataset(bench.model, 1, rng.randrange(1000))
    record = data.records[0]
    other = data.counterfactual(
        rng.choice(["swap_subject", "abc", "random_names"]), rng.randrange(99)
    ).records[0]
    n = len(bench.read(record.text).tokens)
    place = lambda: (rng.randrange(bench.n_layers), rng.randrange(bench.n_heads))  # noqa: E731
    return Intervention(
        record.text,
        other.text,
        [place() for _ in range(rng.randrange(1, 9))],
        rng.random() < 0.2,
        how,
        rng.choice([1.0, 0.5, -0.5]),
        rng.choice([(), (n - 1,), (3, n - 1)]),
        [
            (rng.randrange(bench.n_layers), rng.randrange(n))
            for _ in range(rng.randrange(3))
        ],
    )


@pytest.mark.parametrize("how", HOWS)
def test_interventions_are_what_hooks_do(bench, model, how):
    rng, changed = random.Random(how), []
    for _ in range(3):
        what = drawn(bench, rng, how)
        result, (logits, patterns) = intervene(bench, what), hooked(model, bench, what)
        assert torch.allclose(result.after, logits, atol=1e-4), what
        assert torch.allclose(result.pattern_after, patterns, atol=1e-5), what
        changed.append(not torch.allclose(result.before, logits, atol=1e-3))
    assert any(changed) or how == "keep", "nothing that was drawn changed anything"


def test_difference_is_that_of_the_dataset(bench, model):
    data = IOIDataset(model, 6, seed=5)
    logits = [
        model(row[None, :n])[0, -1]
        for row, n in zip(data.tokens, data.lengths, strict=True)
    ]
    for text, expected in zip(
        data.prompts,
        logit_diff(torch.stack(logits), data, per_prompt=True),
        strict=True,
    ):
        assert intervene(bench, Intervention(text)).diff_before == pytest.approx(
            expected.item(), abs=1e-3
        )


def test_mean_is_that_of_a_dataset_of_the_same_texts(bench, model):
    """The chapter's knock-out, with the lab's ABC texts as its reference."""
    template = "When [A] and [B] went to the [PLACE], [S] gave the [OBJECT] to"
    record = IOIPrompt(template, "Mary", "John", "BABA", "shops", "bag")
    names = lambda row: [bench.names[int(row[at])] for at in (2, 4, 10)]  # noqa: E731
    rows = map(names, abc_tokens(bench.read(PAIR["prompt"]), bench.names))
    texts = [
        IOIPrompt(record.template, io, s, "BABA", "shops", "bag", third)
        for s, io, third in rows
    ]
    data, reference = (
        IOIDataset.from_prompts(model, each) for each in ([record], texts)
    )
    heads = [(9, 9), (9, 6), (10, 0)]
    end = data.pos["END"].item()
    found = intervene(
        bench, Intervention(PAIR["prompt"], heads=heads, how="mean", at=[end])
    ).diff_after
    assert found == pytest.approx(
        ablate(model, data, heads, "mean", "END", reference).after.item(), abs=1e-4
    )


def test_only_the_circuit_still_answers(bench):
    kept = intervene(
        bench,
        Intervention(PAIR["prompt"], heads=bench.circuit.heads, only=True, how="mean"),
    )
    nothing = intervene(bench, Intervention(PAIR["prompt"], only=True, how="mean"))
    assert (
        kept.top(1).token[0] == " Mary" and kept.diff_after > 0.5 * kept.diff_before > 0
    )
    assert abs(nothing.diff_after) < 0.25 * kept.diff_before


def test_runs_on_another_model_and_on_one_without_a_key():
    bench = Bench(load_model("tiny"))
    assert bench.circuit is None
    result = intervene(bench, Intervention(**PAIR, heads=[(1, 0)], how="other"))
    assert (
        result.pattern_after.shape[0] == bench.n_layers == 6
        and result.diff_after != result.diff_before
    )


@pytest.mark.parametrize("how", ["zero", "mean", "other"])
def test_heads_that_share_keys_and_turned_positions(smollm2_model, how):
    """SmolLM2: RMSNorm, rotary positions, three heads to a key."""
    bench = Bench(smollm2_model)
    what = Intervention(
        **PAIR, heads=[(12, 3), (20, 7)], how=how, amount=0.5, stream=[(5, 10)]
    )
    result, (logits, patterns) = (
        intervene(bench, what),
        hooked(smollm2_model, bench, what),
    )
    assert torch.allclose(result.after, logits, atol=2e-3)
    assert torch.allclose(result.pattern_after, patterns, atol=1e-4)
    assert result.diff_after < result.diff_before and bench.circuit is None


# Share strings


places = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=5)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    texts,
    texts,
    places,
    st.booleans(),
    st.sampled_from(list(HOWS)),
    st.integers(-20, 20),
    st.lists(st.integers(0, 30), max_size=4),
    places,
)
def test_share_and_back(prompt, other, heads, only, how, twentieths, at, stream):
    what = Intervention(prompt, other, heads, only, how, twentieths / 20, at, stream)
    assert shared(share(what)) == what == shared(f"file:///lab.html#{share(what)}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no prompt"),
        ("p=a&how=gone", "'keep', 'zero'"),
        ("p=a&h=9.x", "no state"),
        ("p=a&a=7", "from -1 to 1"),
        ("p=a&s=3", "Copy the whole"),
    ],
)
def test_broken_strings_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        shared(text)


# Wrong input


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"prompt": "  "}, "empty"),
        ({"prompt": "and " * 300}, "reads 128 at most"),
        ({"heads": [(9, 12)]}, "no head L9H12"),
        ({"stream": [(12, 1)]}, "layer 12"),
        ({"stream": [(3, 99)]}, "position 99"),
        ({"at": [99]}, "no position 99"),
        ({"other": "", "how": "other"}, "no counterfactual"),
        ({"other": "Mary gave", "stream": [(1, 1)]}, "has 4 tokens and the prompt 15"),
        (
            {"prompt": "They went to the", "how": "mean"},
            "has none that the model knows",
        ),
        ({"prompt": "Mary " * 120 + " to", "how": "mean"}, "mentions of names"),
    ],
)
def test_what_cannot_be_done_is_said(bench, changed, message):
    with pytest.raises(ValueError, match=message):
        intervene(bench, Intervention(**{**PAIR, "heads": [(9, 9)], **changed}))


def test_words_without_a_token_are_named(bench):
    assert bench.read(PAIR["prompt"]).notes == ()
    notes = " ".join(bench.read("Zoltan met Mary and John near the zebra ").notes)
    assert (
        "“zebra”" in notes
        and "Zoltan" in notes
        and "Mary" not in notes
        and "ends in a space" in notes
    )


def test_remembered_runs_do_not_leak_between_prompts(bench):
    first = intervene(bench, Intervention(**PAIR, heads=[(9, 9)], how="mean")).after
    for name in ("Tom", "Dan", "Sid", "Amy", "Paul", "Anna", "Emma", "Mark", "Lisa"):
        intervene(
            bench,
            Intervention(
                PAIR["prompt"].replace("Mary", name), heads=[(9, 9)], how="mean"
            ),
        )
    assert torch.equal(
        intervene(bench, Intervention(**PAIR, heads=[(9, 9)], how="mean")).after, first
    )
    assert len(bench._runs) <= 8
