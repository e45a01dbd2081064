"""Head scores, composition and wiki: against loops, TransformerLens, the answer
key, and what is refused."""

import re
import weakref

import pandas as pd
import pytest
import torch
from transformer_lens import FactoredMatrix

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_model
from ioi_course.heads import (
    KINDS,
    RepeatedTokens,
    composition_scores,
    head_scores,
    head_wiki,
    load_wiki,
    pattern_scores,
    repeated_tokens,
    save_wiki,
)

ROLES = {
    "previous": "previous token",
    "duplicate": "duplicate token",
    "induction": "induction",
}


@pytest.fixture(scope="module")
def scores(model):
    return head_scores(model)


@pytest.fixture(scope="module")
def small():
    return random_model()


def perfect(n, bos, steps):
    """A pattern that looks so many steps back wherever it can,
    and at itself elsewhere."""
    pattern = torch.zeros(2 * n + bos, 2 * n + bos)
    for dest in range(2 * n + bos):
        pattern[dest, dest - steps if dest >= steps else dest] = 1
    return pattern


def made_up(n, bos, batch=3, heads=4):
    raw = torch.randn(
        batch,
        heads,
        2 * n + bos,
        2 * n + bos,
        generator=torch.Generator().manual_seed(n),
    )
    return raw.masked_fill(
        torch.ones_like(raw, dtype=torch.bool).triu(1), -torch.inf
    ).softmax(-1)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("batch, n", [(1, 2), (3, 10)])
def test_tokens_are_two_copies(model, bos, batch, n):
    repeated = repeated_tokens(model, n, batch, bos=bos)
    tokens = repeated.tokens
    assert tokens.shape == (batch, bos + 2 * n) and len(repeated) == batch
    assert (repeated.n, repeated.bos) == (n, bos)
    assert torch.equal(tokens[:, bos : bos + n], tokens[:, bos + n :])
    assert not bos or (tokens[:, 0] == model.tokenizer.bos_token_id).all()
    assert not torch.isin(
        tokens[:, bos:], torch.tensor(model.tokenizer.all_special_ids)
    ).any()
    assert all(len(set(row.tolist())) == n for row in tokens[:, bos : bos + n])


def test_tokens_by_seed(model):
    before = torch.random.get_rng_state()
    first, again, other = (
        repeated_tokens(model, seed=seed).tokens for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first[0], first[1])  # nor is a sequence the same as the next


def test_tokens_of_a_range(model):
    tokens = repeated_tokens(model, 20, 30, low=100, high=130).tokens[:, 1:]
    assert (tokens.min(), tokens.max()) == (100, 129)
    drawn = repeated_tokens(model, 40, 5, low=100, high=110, distinct=False).tokens[
        :, 1:
    ]
    assert set(drawn.flatten().tolist()) == set(range(100, 110))
    special = model.tokenizer.bos_token_id
    assert (
        repeated_tokens(model, 50, 50, low=special - 50, high=10**6).tokens[:, 1:].max()
        == special - 1
    )


@pytest.mark.gpt2_tokenizer
def test_tokens_of_the_demo(gpt2_tokenizer):
    """The demo's own call draws the same tokens, so that its published corners
    can be compared with."""

    class Stand:
        tokenizer = gpt2_tokenizer
        cfg = type("cfg", (), {"n_ctx": 1024, "d_vocab": 50257, "device": "cpu"})

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        demo = torch.randint(100, 20000, size=(2, 100))
    ours = repeated_tokens(
        Stand, 100, 2, seed=0, bos=False, low=100, high=20000, distinct=False
    )
    assert torch.equal(ours.tokens, demo.repeat(1, 2))


@pytest.mark.parametrize(
    "options, says",
    [
        ({"n": 1}, "n is 1"),
        ({"n": 2.0}, "n is 2.0"),
        ({"batch": 0}, "batch is 0"),
        ({"n": 64}, "n can be 63 at most"),
        ({"n": 65, "bos": False}, "n can be 64 at most"),
        ({"n": 11, "low": 100, "high": 110}, "only 10 lie in 100 to 110"),
        ({"low": 5000}, "only 0"),
    ],
)
def test_tokens_refused(model, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        repeated_tokens(model, **options)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_pattern_scores_against_loops(n, bos):
    pattern, found = made_up(n, bos), pattern_scores(made_up(n, bos), n, bos)
    second = range(bos + n, bos + 2 * n)
    pairs = {
        "previous": [(dest, dest - 1) for dest in range(bos + 1, bos + 2 * n)],
        "duplicate": [(dest, dest - n) for dest in second],
        "induction": [(dest, dest - n + 1) for dest in second],
        "first": [(dest, 0) for dest in second],
    }
    assert [*found] == [*KINDS, "first"]
    for kind, places in pairs.items():
        for head in range(4):
            by_hand = [
                pattern[b, head, dest, src].item()
                for b in range(3)
                for dest, src in places
            ]
            assert found[kind][head].item() == pytest.approx(
                sum(by_hand) / len(by_hand), abs=1e-6
            )


@pytest.mark.parametrize("bos", [True, False])
def test_pattern_scores_of_perfect_heads(bos):
    n = 5
    pattern = torch.stack([perfect(n, bos, steps) for steps in (1, n, n - 1, 2)])[None]
    found = pattern_scores(pattern, n, bos)
    assert torch.stack([found[kind] for kind in KINDS]).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
    ]


def test_pattern_scores_forgetting_bos_is_refused():
    with pytest.raises(ValueError, match=r"\[batch, head, 10, 10\].*\[3, 4, 11, 11\]"):
        pattern_scores(made_up(5, True), 5, False)
    with pytest.raises(ValueError, match="pattern must be"):
        pattern_scores(made_up(5, True)[0], 5, True)


def test_scores_find_the_answer_key(scores):
    """Each score puts its class on top, and the gap is wide."""
    for kind, role in ROLES.items():
        heads = set(CIRCUIT.roles[role])
        assert set(scores.best(kind, len(heads))) == heads
        values = sorted(scores[kind].flatten().tolist(), reverse=True)
        assert values[len(heads) - 1] > 0.5 > 0.1 > values[len(heads)]


def test_scores_against_the_whole_cache(small):
    repeated = repeated_tokens(small, 6, 4)
    with torch.no_grad():
        _, cache = small.run_with_cache(repeated.tokens)
    found = head_scores(small, repeated)
    for layer in range(small.cfg.n_layers):
        expected = pattern_scores(cache["pattern", layer], 6, True)
        for kind in (*KINDS, "first"):
            assert torch.allclose(found[kind][layer], expected[kind], atol=1e-6)


@pytest.mark.parametrize("per_pass", [1, 3, 100])
def test_scores_do_not_depend_on_the_passes(small, per_pass):
    repeated = repeated_tokens(small, 6, 4)
    one, many = (
        head_scores(small, repeated),
        head_scores(small, repeated, per_pass=per_pass),
    )
    assert all(
        torch.allclose(one[kind], many[kind], atol=1e-6) for kind in (*KINDS, "first")
    )


def test_scores_default_fits_a_short_context(small):
    found = head_scores(small)
    assert small.cfg.n_ctx == 64 and found.repeated.tokens.shape == (10, 63)


def test_scores_leave_the_model_alone(small):
    def broken(z, hook):
        raise RuntimeError("stop")

    repeated = repeated_tokens(small, 4, 2)
    before = head_scores(small, repeated).induction
    with pytest.raises(RuntimeError, match="stop"):
        head_scores(small, repeated, [("blocks.1.attn.hook_z", broken)])
    assert not any(point.fwd_hooks for point in small.hook_dict.values())
    assert torch.equal(head_scores(small, repeated).induction, before)


def test_scores_keep_no_patterns(model):
    """Memory grows with one pass, not with the passes: the bridge itself keeps each
    layer's last pattern."""
    seen, alive = [], []

    def watch(pattern, hook):
        alive.append(sum(one() is not None for one in seen))
        seen.append(weakref.ref(pattern))

    hooks = [
        (f"blocks.{layer}.attn.hook_pattern", watch)
        for layer in range(model.cfg.n_layers)
    ]
    head_scores(model, repeated_tokens(model, 10, 4), hooks, per_pass=1)
    assert len(alive) == 4 * model.cfg.n_layers and max(alive) <= model.cfg.n_layers


def test_scores_with_other_hooks(model, scores):
    """Without the previous-token heads the induction scores are gone, and the duplicate
    scores are as before."""

    def zero(layer, head):
        def hook(z, hook):
            z = z.clone()
            z[:, :, head] = 0
            return z

        return f"blocks.{layer}.attn.hook_z", hook

    after = head_scores(
        model,
        scores.repeated,
        [zero(*head) for head in CIRCUIT.roles["previous token"]],
    )
    for head in CIRCUIT.roles["induction"]:
        assert scores.induction[head] > 0.9 and after.induction[head] < 0.05
    for head in CIRCUIT.roles["duplicate token"]:
        assert after.duplicate[head] == pytest.approx(
            scores.duplicate[head].item(), abs=0.02
        )


def test_scores_show_themselves(scores):
    table = scores.table()
    assert (
        list(table.columns) == [*KINDS, "first"]
        and table.index[14] == "L1H2"
        and len(table) == 144
    )
    assert table.loc["L5H5", "induction"] == scores["induction"][5, 5].item()
    assert scores.top(2).loc[1, "previous"] == "L4H11 0.99"
    assert "synthetic: 10 × BOS + 50 random tokens of seed 0 + the same again" in repr(
        scores
    )
    assert "L4H11 0.99" in scores._repr_html_()
    plot = scores.plot("previous")
    assert plot.table.loc["L4", "H11"] == pytest.approx(
        scores.previous[4, 11].item(), abs=0.01
    )
    with pytest.raises(KeyError, match="previous, duplicate, induction and first"):
        scores["copying"]


def test_scores_refuse_a_bad_batch_size(small):
    with pytest.raises(ValueError, match="per_pass is 0"):
        head_scores(small, repeated_tokens(small, 4, 2), per_pass=0)


@pytest.mark.parametrize("kind", "QKV")
def test_composition_against_transformerlens(small, kind):
    found, theirs = (
        composition_scores(small, kind),
        small.all_composition_scores(kind).scores,
    )
    assert found.shape == (3, 4, 3, 4)
    assert torch.allclose(found, theirs.double(), atol=1e-6)
    assert found[0, :, 1].min() > 0 and not found[1, :, :2].any()


@pytest.mark.parametrize("kind", "QKV")
def test_composition_against_whole_matrices(small, kind):
    sender, receiver = (0, 3), (2, 1)
    ov = FactoredMatrix(small.W_V, small.W_O).AB
    qk = FactoredMatrix(small.W_Q, small.W_K.mT).AB
    read = {"Q": qk[receiver], "K": qk[receiver].T, "V": ov[receiver]}[kind]
    expected = (ov[sender] @ read).norm() / (ov[sender].norm() * read.norm())
    assert composition_scores(small, kind)[
        (*sender, *receiver)
    ].item() == pytest.approx(expected.item(), abs=1e-8)


def test_composition_finds_the_answer_key(model):
    found = composition_scores(model, "K")
    places = [
        torch.unravel_index(i, found.shape) for i in found.flatten().topk(8).indices
    ]
    pairs = {tuple(int(i) for i in place) for place in places}
    assert pairs == {
        (*a, *b)
        for a in CIRCUIT.roles["previous token"]
        for b in CIRCUIT.roles["induction"]
    }
    assert min(found[pair] for pair in pairs) > 3 / model.cfg.d_model**0.5


def test_composition_refuses_other_kinds(small):
    with pytest.raises(ValueError, match="'k'.*'Q', 'K' or 'V'"):
        composition_scores(small, "k")


def test_wiki(model, scores):
    wiki = head_wiki(model, scores)
    assert wiki.shape == (144, 10) and wiki.index.is_unique
    row = wiki.loc["L5H5"]
    assert (row["layer"], row["head"], row["class"], row["class from"]) == (
        5,
        5,
        "induction",
        "answer key",
    )
    assert (
        row["induction"] == scores.induction[5, 5].item()
        and row["model"] == "synthetic"
    )
    assert "50 random tokens" in row["measured on"]
    assert (wiki["class"] != "").sum() == len(CIRCUIT) and not wiki.isna().any(
        axis=None
    )
    assert wiki.loc["L0H0", "class"] == wiki.loc["L0H0", "class from"] == ""


def test_wiki_of_a_model_that_nobody_has_sorted(small):
    wiki = head_wiki(small)
    assert (
        len(wiki) == 12
        and (wiki["class"] == "").all()
        and (wiki["class from"] == "").all()
    )


def test_wiki_refuses_scores_of_another_model(model, small, scores):
    with pytest.raises(ValueError, match="scores are of synthetic"):
        head_wiki(small, scores)


def test_wiki_survives_a_round_trip(model, scores, tmp_path):
    wiki = head_wiki(model, scores).assign(
        note=["", "NA", "a, b", "1", '"'] + ["nan"] * 139
    )
    save_wiki(wiki, tmp_path / "heads.csv")
    back = load_wiki(str(tmp_path / "heads.csv"))
    pd.testing.assert_frame_equal(back, wiki, check_exact=True)
    assert back.loc["L2H2", "previous"] == wiki.loc["L2H2", "previous"]


def test_wiki_files_refused(tmp_path, scores):
    with pytest.raises(ValueError, match="Not a head wiki"):
        save_wiki(scores.table(), tmp_path / "heads.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a head wiki: its columns are a, b"):
        load_wiki(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError):
        load_wiki(tmp_path / "missing.csv")


def test_repeated_tokens_repr():
    tokens = torch.zeros(3, 8)
    assert (
        repr(RepeatedTokens(tokens, 4, False, 7))
        == "3 × 4 random tokens of seed 7 + the same again"
    )
    assert (
        repr(RepeatedTokens(tokens, 4, True)) == "3 × BOS + 4 tokens + the same again"
    )
