"""Name movers: projections and correlations, copy scores, transplants, odd
models, hooks, errors."""

import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ioi_course.attribution import direct_attribution
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model
from ioi_course.models import PROCESSING, load_model, wrap_model
from ioi_course.movers import (
    EMBEDDINGS,
    NameProjection,
    copy_scores,
    extended_embedding,
    name_directions,
    name_projection,
    own_ranks,
)
from ioi_course.plots import Plot
from ioi_course.prompts import IOIDataset, single_token_names
from ioi_course.templates import NAMES
from ioi_course.transplant import stranger_prompts, transplant

MOVERS, NEGATIVE = CIRCUIT.roles["name mover"], CIRCUIT.roles["negative name mover"]
BACKUPS = CIRCUIT.roles["backup name mover"]


@pytest.fixture(scope="module")
def data(model):
    return IOIDataset(model, 24)


@pytest.fixture(scope="module")
def projection(model, data):
    return name_projection(model, data)


@pytest.fixture(scope="module")
def scores(model):
    return copy_scores(model)


@pytest.fixture(scope="module")
def small():
    return random_model(0)


def hooks(model) -> int:
    return sum(
        len(point.fwd_hooks) + len(point.bwd_hooks)
        for point in model.hook_dict.values()
    )


# --- attention and projection ---


@pytest.mark.parametrize("processing", [None, ()])
def test_projection_by_hand(processing):
    """Each prompt alone, with loops, from the whole cache."""
    some = (
        random_model(3)
        if processing is None
        else random_model(3, processing=processing)
    )
    prompts = random_data(some, 5, seed=1)
    found = name_projection(some, prompts)
    assert found.attention.shape == found.projection.shape == (5, 3, 4, 2)
    for i in range(5):
        one = prompts[i : i + 1]
        _, cache = some.run_with_cache(one.tokens)
        end = int(one.pos["END"])
        for layer in range(3):
            for head in range(4):
                row = cache[f"blocks.{layer}.attn.hook_pattern"][0, head, end]
                wrote = (
                    cache[f"blocks.{layer}.attn.hook_z"][0, end, head]
                    @ some.W_O[layer, head]
                )
                normed = (
                    (wrote - wrote.mean())
                    / cache["ln_final.hook_scale"][0, end]
                    * some.ln_final.w
                )
                for n, places in enumerate((["IO"], ["S1", "S2"])):
                    looks = sum(row[int(one.pos[place])] for place in places)
                    writes = normed @ some.W_U[:, one.answers[0, n]]
                    torch.testing.assert_close(
                        found.attention[i, layer, head, n], looks
                    )
                    torch.testing.assert_close(
                        found.projection[i, layer, head, n], writes
                    )


def test_difference_of_projections_is_the_direct_contribution(model, data, projection):
    direct = direct_attribution(model, data, by="head").values
    io, s = projection.projection.unbind(dim=-1)
    torch.testing.assert_close(io - s, direct, rtol=1e-9, atol=1e-9)


def test_attention_counts_every_mention(model, data):
    """A distractor that repeats IO adds to the attention to IO."""
    extra = data.counterfactual("extra_io")
    found = name_projection(model, extra)
    _, cache = model.run_with_cache(
        extra.tokens[:1], names_filter=["blocks.9.attn.hook_pattern"]
    )
    row = cache["blocks.9.attn.hook_pattern"][0, 9, extra.pos["END"][0]]
    places = (extra.tokens[0] == extra.answers[0, 0]).nonzero()[:, 0]
    assert len(places) == 2
    torch.testing.assert_close(found.attention[0, 9, 9, 0], row[places].sum())


def test_batches_and_memory_change_nothing(model, data, projection):
    again = name_projection(model, data[3:17], memory=0.02)
    torch.testing.assert_close(
        again.projection, projection.projection[3:17], rtol=1e-9, atol=1e-9
    )


def test_rho_is_pooled_over_prompts_and_names(projection):
    for layer, head in (*MOVERS, (4, 0)):
        x, y = (
            values[:, layer, head].flatten()
            for values in (projection.attention, projection.projection)
        )
        assert projection.rho[layer, head].item() == pytest.approx(
            torch.corrcoef(torch.stack([x, y]))[0, 1].item()
        )


def test_rho_of_the_synthetic_model(projection):
    assert all(projection.rho[head] > 0.9 for head in MOVERS)
    assert all(projection.rho[head] < -0.9 for head in NEGATIVE)


def test_rho_is_nan_where_nothing_varies():
    flat = NameProjection(
        torch.full((4, 1, 2, 2), 0.5), torch.randn(4, 1, 2, 2), "none"
    )
    assert flat.rho.isnan().all()


def test_table_of_heads(projection):
    table = projection.table(13, CIRCUIT)
    assert list(table.columns) == [
        "looks at IO",
        "looks at S",
        "writes IO",
        "writes S",
        "rho",
        "class",
    ]
    assert table.index[0] == "L9H9" and set(table["class"]) <= {
        "name mover",
        "negative name mover",
        "backup name mover",
    }
    assert table["looks at IO"].iloc[0] == pytest.approx(
        projection.attention[:, 9, 9, 0].mean().item()
    )
    assert "24 prompts" in repr(projection) and "L9H9" in projection._repr_html_()


def test_points_are_plotted_as_they_are(projection):
    plot = projection.plot(9, 9)
    assert isinstance(plot, Plot) and len(plot.table) == 48 and "rho 0.9" in repr(plot)
    assert plot.table.loc["prompt 3 S", "attention"] == pytest.approx(
        projection.attention[3, 9, 9, 1].item(), abs=0.01
    )
    assert "rho −0.9" in repr(projection.plot(10, 7))


def test_bad_questions_about_projections(model, data, projection, small):
    with pytest.raises(ValueError, match="no head"):
        projection.plot(12, 0)
    with pytest.raises(ValueError, match="k is 0"):
        projection.table(0)
    with pytest.raises(ValueError, match="shapes are"):
        name_directions(model, data.answers, torch.ones(3, 1))
    with pytest.raises(TypeError, match="IOIDataset"):
        name_projection(model, data.tokens)
    with pytest.raises(ValueError, match="vocabulary"):
        big = IOIDataset(model, 4)
        big.tokens = big.tokens + 10**6
        name_projection(small, big)


# --- copy scores ---


def naive_ranks(model, layer, head, state, token):
    """From the definition, with every step of its own."""
    block = model.blocks[layer]
    x = state - state.mean()
    x = x / (x.pow(2).mean() + model.cfg.eps).sqrt() * block.ln1.w
    wrote = x @ model.W_V[layer, head] @ model.W_O[layer, head]
    logits = (wrote - wrote.mean()) * model.ln_final.w @ model.W_U
    return (
        int((logits > logits[token]).sum()),
        int((logits < logits[token]).sum()),
        logits[token] - logits.mean(),
    )


@pytest.mark.parametrize("processing", [None, ()])
def test_ranks_by_hand(processing):
    some = (
        random_model(4)
        if processing is None
        else random_model(4, processing=processing)
    )
    tokens = torch.tensor([5, 77, 300])
    states = torch.randn(
        3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    found = own_ranks(some, states, tokens)
    assert found.above.shape == found.below.shape == found.logit.shape == (3, 3, 4)
    for i in range(3):
        for layer in range(3):
            for head in range(4):
                above, below, logit = naive_ranks(
                    some, layer, head, states[i], tokens[i]
                )
                assert (found.above[i, layer, head], found.below[i, layer, head]) == (
                    above,
                    below,
                )
                torch.testing.assert_close(found.logit[i, layer, head], logit)


def test_processing_of_the_weights_changes_no_rank():
    """Folding and centering are other ways to write the same model."""
    folded, raw = random_model(5), random_model(5, processing=())
    tokens = torch.arange(20, 40)
    ranks = [
        own_ranks(each, extended_embedding(each, tokens), tokens)
        for each in (folded, raw)
    ]
    assert torch.equal(ranks[0].above, ranks[1].above) and torch.equal(
        ranks[0].below, ranks[1].below
    )


def test_states_for_each_layer(small):
    tokens = torch.tensor([3, 9])
    states = torch.randn(
        3, 2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    found = own_ranks(small, states, tokens)
    for layer in range(3):
        assert torch.equal(
            found.above[:, layer],
            own_ranks(small, states[layer], tokens).above[:, layer],
        )


def test_some_heads(small):
    tokens = torch.tensor([3, 9, 50])
    states, heads = extended_embedding(small, tokens), [(2, 1), (0, 3)]
    some, every = (
        own_ranks(small, states, tokens, heads),
        own_ranks(small, states, tokens),
    )
    assert some.above.shape == (3, 2)
    for i, (layer, head) in enumerate(heads):
        assert torch.equal(some.below[:, i], every.below[:, layer, head])
        torch.testing.assert_close(some.logit[:, i], every.logit[:, layer, head])
    with pytest.raises(ValueError, match="no head"):
        own_ranks(small, states, tokens, [(3, 0)])


def test_many_states_go_in_parts(small, monkeypatch):
    tokens = torch.arange(50)
    whole = own_ranks(small, extended_embedding(small, tokens), tokens)
    sizes = []
    split = torch.Tensor.split
    monkeypatch.setattr(
        torch.Tensor,
        "split",
        lambda x, size, dim=0: sizes.append(size) or split(x, 7, dim),
    )
    parts = own_ranks(small, extended_embedding(small, tokens), tokens)
    assert (
        sizes
        and torch.equal(whole.above, parts.above)
        and torch.allclose(whole.logit, parts.logit)
    )


def test_extended_embedding_is_the_stream_after_mlp_0_without_attention(model):
    """In a run of one token with attention 0 and the position embedding silenced it is
    what the model computes."""
    tokens = torch.tensor(
        [model.to_single_token(" Mary"), model.to_single_token(" John")]
    )
    hush = [
        (name, lambda x, hook: torch.zeros_like(x))
        for name in ("hook_pos_embed", "blocks.0.hook_attn_out")
    ]
    with model.hooks(fwd_hooks=hush):
        _, cache = model.run_with_cache(
            tokens[:, None], names_filter=["blocks.0.hook_resid_post"]
        )
    torch.testing.assert_close(
        extended_embedding(model, tokens), cache["blocks.0.hook_resid_post"][:, 0]
    )


def test_copy_scores_of_the_synthetic_model(model, scores):
    assert scores.names == single_token_names(model)
    copy, negative = scores.copy(), scores.negative()
    assert all(copy[head] >= 0.95 for head in (*MOVERS, *BACKUPS))
    assert all(negative[head] >= 0.95 and copy[head] == 0 for head in NEGATIVE)
    assert (
        scores.average_without(MOVERS)[0] < 0.2
        and scores.average_without(NEGATIVE)[1] < 0.2
    )
    assert all(scores.logit()[head] > 0.5 for head in MOVERS) and all(
        scores.logit()[head] < -0.5 for head in NEGATIVE
    )


def test_scores_follow_from_the_ranks(model):
    some = copy_scores(model, ["Mary", "John", "Anna"])
    token = torch.tensor([model.to_single_token(f" {name}") for name in some.names])
    for embedding, states in zip(
        EMBEDDINGS, (extended_embedding(model, token), model.W_E[token]), strict=True
    ):
        ranks = own_ranks(model, states, token)
        assert torch.equal(some.copy(embedding), (ranks.above < 5).double().mean(dim=0))
        assert torch.equal(
            some.negative(embedding, k=2), (ranks.below <= 1).double().mean(dim=0)
        )
        torch.testing.assert_close(some.logit(embedding), ranks.logit.mean(dim=0))


def test_the_plain_embedding_has_half_the_logit(scores):
    for head in (*MOVERS, *NEGATIVE):
        assert scores.logit("plain")[head] / scores.logit()[head] == pytest.approx(
            0.5, abs=0.02
        )


def test_average_leaves_out_what_it_is_told(scores):
    copy = scores.copy()
    assert scores.average_without([])[0] == pytest.approx(copy.mean().item())
    left = (copy.sum() - copy[9, 9]) / 143
    assert scores.average_without([(9, 9)])[0] == pytest.approx(left.item())
    with pytest.raises(ValueError, match="no head"):
        scores.average_without([(12, 0)])


def test_scores_show_themselves(scores):
    table = scores.table(6, CIRCUIT, by="negative")
    assert table["negative"].is_monotonic_decreasing and set(table.index[:2]) == {
        "L10H7",
        "L11H10",
    }
    assert scores.table(3)[
        "logit"
    ].abs().is_monotonic_decreasing and "class" not in scores.table(3)
    assert (
        f"{len(scores.names)} names" in repr(scores) and "L9H9" in scores._repr_html_()
    )
    for which in ("copy", "negative"):
        plot = scores.plot(which)
        assert plot.table.shape == (12, 12) and "share of names" in repr(plot)
    assert scores.plot("negative").table.loc["L10", "H7"] == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("Mary", "list of different"),
        ([], "at least one"),
        (["Mary", "Mary"], "different"),
        (["Mary", "Xqzzw"], "Xqzzw"),
    ],
)
def test_bad_names(model, names, message):
    with pytest.raises(ValueError, match=message):
        copy_scores(model, names)


def test_bad_questions_about_scores(scores, model, small):
    with pytest.raises(ValueError, match="extended, plain"):
        scores.copy("MLP")
    with pytest.raises(ValueError, match="k is 0"):
        scores.negative(k=0)
    with pytest.raises(ValueError, match="by is"):
        scores.table(by="size")
    with pytest.raises(ValueError, match="which is"):
        scores.plot("both")
    with pytest.raises(ValueError, match="shapes are"):
        own_ranks(small, torch.zeros(4, 16), torch.arange(4))
    with pytest.raises(ValueError, match="shapes are"):
        own_ranks(small, torch.zeros(4, 32), torch.arange(3))
    with pytest.raises(ValueError, match="ids below"):
        own_ranks(small, torch.zeros(1, 32), torch.tensor([10**6]))


def test_gpt2_shape_in_float32(random_gpt2):
    gpt2 = load_model(str(random_gpt2))
    prompts = IOIDataset(gpt2, 4)
    found = name_projection(gpt2, prompts)
    direct = direct_attribution(gpt2, prompts, by="head").values
    torch.testing.assert_close(
        found.projection.diff(dim=-1)[..., 0], -direct, rtol=1e-3, atol=1e-5
    )


def test_copy_scores_in_float32(tokenizer):
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=24, n_layer=2, n_head=2
    )
    config.bos_token_id = config.eos_token_id = tokenizer.bos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        some = wrap_model(
            GPT2LMHeadModel(config), tokenizer, "random", "random weights", PROCESSING
        )
    assert some.W_V.dtype == torch.float32
    scores = copy_scores(some, ["Mary", "John"])
    token = some.to_single_token(" John")
    state = extended_embedding(some, torch.tensor([token]))[0]
    for layer in (0, 1):
        for head in (0, 1):
            above, _, logit = naive_ranks(some, layer, head, state, token)
            ranks = scores.ranks["extended"]
            assert abs(ranks.above[1, layer, head] - above) <= 1  # near ties in float32
            torch.testing.assert_close(
                ranks.logit[1, layer, head], logit, rtol=1e-3, atol=1e-6
            )


# --- a name that is nowhere ---


def test_strangers_are_in_no_prompt(data):
    strangers = stranger_prompts(data, seed=3)
    used = {name for prompt in data for name in prompt.names}
    for ours, theirs in zip(data, strangers, strict=True):
        assert theirs.IO not in used and (theirs.S, theirs.template, theirs.order) == (
            ours.S,
            ours.template,
            ours.order,
        )
    assert strangers.prompts == stranger_prompts(data, seed=3).prompts
    assert strangers.prompts != stranger_prompts(data, seed=4).prompts


def test_no_stranger_left(model):
    crowd = IOIDataset(model, 6, names=NAMES[:3])
    with pytest.raises(ValueError, match="none is left"):
        stranger_prompts(crowd)


def test_transplant_by_hand():
    """One prompt, two heads: what they write, and the run with the exchanged values."""
    some = random_model(6)
    one = random_data(some, 1, seed=2)
    other = stranger_prompts(one)
    heads = [(1, 2), (2, 0)]
    found = transplant(some, one, other, heads)
    (_, ours), (_, theirs) = (some.run_with_cache(each.tokens) for each in (one, other))
    end, io = int(one.pos["END"]), int(one.pos["IO"])
    names = [*one.answers[0].tolist(), int(other.answers[0, 0])]
    for j, (layer, head) in enumerate(heads):
        v = ours[f"blocks.{layer}.attn.hook_v"][0, :, head].clone()
        for when in (0, 1):
            z = ours[f"blocks.{layer}.attn.hook_pattern"][0, head, end] @ v
            wrote = z @ some.W_O[layer, head]
            normed = (
                (wrote - wrote.mean())
                / ours["ln_final.hook_scale"][0, end]
                * some.ln_final.w
            )
            torch.testing.assert_close(
                found.written[when, 0, j], normed @ some.W_U[:, names]
            )
            v[io] = theirs[f"blocks.{layer}.attn.hook_v"][0, io, head]

    def give(value, hook):
        layer = int(hook.name.split(".")[1])
        for at, head in heads:
            if at == layer:
                value[:, io, head] = theirs[hook.name][:, io, head]
        return value

    logits = some.run_with_hooks(
        one.tokens,
        fwd_hooks=[(f"blocks.{layer}.attn.hook_v", give) for layer in (1, 2)],
    )
    torch.testing.assert_close(
        found.probs[0, 0], some(one.tokens)[0, end].softmax(dim=-1)[names]
    )
    torch.testing.assert_close(found.probs[1, 0], logits[0, end].softmax(dim=-1)[names])


def test_name_movers_say_the_stranger(model, data):
    found = transplant(model, data, stranger_prompts(data), MOVERS)
    before, after = found.written.mean(dim=1)
    assert ((after[:, 2] - before[:, 0]).abs() < 0.1 * before[:, 0]).all() and (
        after[:, 0].abs() < 0.3
    ).all()
    assert found.probs[1, :, 2].mean() > 0.4 > 0.01 > found.probs[0, :, 2].mean()
    table = found.table
    assert list(table.index) == [
        "L9H6",
        "L9H9",
        "L10H0",
        "probability",
    ] and table.shape == (4, 6)
    assert (
        isinstance(table, pd.DataFrame)
        and "24 prompts" in repr(found)
        and "L9H9" in found._repr_html_()
    )


def test_transplant_in_small_batches(model, data):
    donor = stranger_prompts(data)
    whole, parts = (
        transplant(model, data, donor, MOVERS, memory=memory) for memory in (0.5, 0.02)
    )
    torch.testing.assert_close(whole.written, parts.written, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(whole.probs, parts.probs, rtol=1e-9, atol=1e-9)


def test_values_before_the_difference_change_nothing(model):
    """At S1, where it comes before IO, both runs are the same."""
    baba = IOIDataset(model, 4, order="BABA")
    found = transplant(model, baba, stranger_prompts(baba), MOVERS, role="S1")
    torch.testing.assert_close(found.probs[0], found.probs[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.written[0], found.written[1], rtol=1e-9, atol=1e-9)


def test_bad_transplants(model, data):
    donor = stranger_prompts(data)
    for arguments, message in [
        ((donor, [(12, 0)]), "no head"),
        ((donor, []), "empty"),
        ((donor, [(9, 9), (9, 9)]), "twice"),
        ((donor, MOVERS, "S3"), "role is 'S3'"),
        ((data, MOVERS), "name of the prompt in 24"),
        ((data.counterfactual("swap_subject"), MOVERS), "name of the prompt"),
        ((donor[:5], MOVERS), "do not align"),
        ((data.counterfactual("extra_s"), MOVERS), "do not align"),
    ]:
        with pytest.raises(ValueError, match=message):
            transplant(model, data, *arguments)
    assert hooks(model) == 0


def test_no_hook_is_left_behind(model, data, monkeypatch):
    """Also if the run with the exchanged values fails."""
    donor = stranger_prompts(data)
    transplant(model, data, donor, MOVERS)
    assert hooks(model) == 0

    def fail(*arguments):
        raise RuntimeError("no run")

    monkeypatch.setattr("ioi_course.transplant._forward", fail)
    with pytest.raises(RuntimeError, match="no run"):
        transplant(model, data, donor, MOVERS)
    assert hooks(model) == 0
