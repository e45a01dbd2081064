"""Wrong answers to the exercises of the lesson on the transformer, written
as students write them."""

import math

import numpy as np
import pytest
import torch
from einops import einsum
from torch.nn.functional import layer_norm, one_hot

from ioi_course import checks

# 0.1


def always_layer_norm(x, rms, eps):
    return layer_norm(x, x.shape[1:], eps=eps)


def always_rms(x, rms, eps):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)


def over_positions(x, rms, eps):
    if not rms:
        x = x - x.mean(0)
    return x / torch.sqrt(x.square().mean(0) + eps)


def everything_together(x, rms, eps):
    return (
        x / torch.sqrt((x**2).mean() + eps) if rms else layer_norm(x, x.shape, eps=eps)
    )


def bessel(x, rms, eps):
    if rms:
        return x / ((x**2).mean(-1, keepdim=True) + eps) ** 0.5
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(
        x.std(-1, keepdim=True) ** 2 + eps
    )


def without_eps(x, rms, eps):
    return (
        always_rms(x, True, 0)
        if rms
        else (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
    )


def eps_after_the_root(x, rms, eps):
    x = x if rms else x - x.mean(1, keepdim=True)
    return x / (x.norm(dim=1, keepdim=True) / x.shape[1] ** 0.5 + eps)


def unit_length(x, rms, eps):
    x = x if rms else x - x.mean(1, keepdim=True)
    return x / torch.sqrt(torch.linalg.norm(x, dim=1, keepdim=True) ** 2 + eps)


def by_the_square(x, rms, eps):
    x = x if rms else x - x.mean(1, keepdim=True)
    return x / ((x**2).sum(1, keepdim=True) / x.shape[1] + eps)


# 0.2


def raw_scores(scores, values):
    return sum(score * value for score, value in zip(scores, values, strict=True))


def without_exp(scores, values):
    shares = scores / torch.sum(scores)
    return torch.einsum("s,sd->d", shares, values)


def not_shares(scores, values):
    return torch.einsum("s,sd->d", torch.exp(scores), values)


def the_best_one(scores, values):
    return (one_hot(scores.argmax(), len(scores)).double()[:, None] * values).sum(0)


def plain_mean(scores, values):
    return torch.stack([values[:, i].mean() for i in range(values.shape[1])])


def each_with_its_share(scores, values):
    return einsum(torch.softmax(scores, 0), values, "s, s d -> s d")


def softmax_last(scores, values):
    mixed = einsum(scores, values, "s, s d -> d")
    return mixed.exp() / mixed.exp().sum()


# 0.3


def unmasked(scores):
    return torch.stack([row.softmax(0) for row in scores])


def masked_late(scores):
    return torch.softmax(scores, 1) * torch.tril(torch.ones(scores.shape))


def zeros_for_the_future(scores):
    return torch.softmax(scores * torch.tril(torch.ones(scores.shape)), dim=1)


def past_masked(scores):
    n = len(scores)
    return torch.tensor(
        [
            [scores[i, j].item() if j >= i else -math.inf for j in range(n)]
            for i in range(n)
        ]
    ).softmax(1)


def not_itself(scores):
    pattern = torch.zeros_like(scores)
    for i in range(1, len(scores)):
        pattern[i, :i] = scores[i, :i].softmax(0)
    return pattern


def columns(scores):
    n = len(scores)
    shares = torch.tril(torch.exp(scores))
    return torch.stack([shares[:, j] / shares[:, j].sum() for j in range(n)], dim=1)


# 0.4


def pattern_of(q, k, scale=None):
    scores = einsum(q, k, "i d, j d -> i j") / math.sqrt(scale or q.shape[1])
    return torch.where(torch.ones_like(scores).tril() > 0, scores, -math.inf).softmax(
        -1
    )


def sees_the_future(x, W_Q, W_K, W_V, W_O):
    scores = einsum(x @ W_Q, x @ W_K, "i d, j d -> i j") / math.sqrt(W_Q.shape[1])
    return scores.softmax(-1) @ (x @ (W_V @ W_O))


def unscaled(x, W_Q, W_K, W_V, W_O):
    return pattern_of(x @ W_Q, x @ W_K, 1) @ (x @ W_V) @ W_O


def scaled_by_d_model(x, W_Q, W_K, W_V, W_O):
    return pattern_of(x @ W_Q, x @ W_K, x.shape[1]) @ (x @ W_V) @ W_O


def key_asks(x, W_Q, W_K, W_V, W_O):
    return pattern_of(x @ W_K, x @ W_Q) @ (x @ W_V) @ W_O


def gathered_only(x, W_Q, W_K, W_V, W_O):
    return pattern_of(x @ W_Q, x @ W_K) @ (x @ W_V)


def with_the_stream(x, W_Q, W_K, W_V, W_O):
    x = x.clone()
    x += pattern_of(x @ W_Q, x @ W_K) @ (x @ W_V) @ W_O
    return x


def hands_over_keys(x, W_Q, W_K, W_V, W_O):
    k = x @ W_K
    return pattern_of(x @ W_Q, k) @ k @ W_O


def from_the_sources_side(x, W_Q, W_K, W_V, W_O):
    return einsum(pattern_of(x @ W_Q, x @ W_K), x @ W_V @ W_O, "i j, i m -> j m")


# 0.5


def walked(looks, keep=True, follow=True):
    """Place by place from the end, with sets of positions."""
    last = looks.shape[1] - 1
    rows, have = [{last}], {last}
    for layer in reversed(range(len(looks))):
        new = {
            s
            for d in (have if follow else {last})
            for s in range(looks.shape[1])
            if looks[layer, d, s]
        }
        have = new | have if keep else new
        rows.append(have)
    return rows


def as_table(rows, looks):
    return torch.tensor([[pos in row for pos in range(looks.shape[1])] for row in rows])


def nothing_kept(looks):
    return as_table(walked(looks, keep=False)[::-1], looks)


def one_look(looks):
    return as_table(walked(looks, follow=False)[::-1], looks)


def forwards(looks):
    return as_table(walked(looks[torch.arange(len(looks) - 1, -1, -1)])[::-1], looks)


def swapped(looks):
    return as_table(walked(torch.stack([layer.T for layer in looks]))[::-1], looks)


def without_the_embedding(looks):
    return as_table(walked(looks)[:-1][::-1], looks)


def end_first(looks):
    return as_table(walked(looks), looks)


WRONG = [
    ("attend", raw_scores, "scores taken for shares"),
    ("attend", without_exp, "divided by the sum, without the exponential"),
    ("attend", not_shares, "not divided by the sum"),
    ("attend", the_best_one, "all of it to the best"),
    ("attend", plain_mean, "every source alike"),
    ("attend", each_with_its_share, "not added up"),
    ("attend", softmax_last, "softmax of the sum"),
    ("causal_pattern", unmasked, "no mask"),
    ("causal_pattern", masked_late, "masked after the softmax"),
    ("causal_pattern", zeros_for_the_future, "score of zero for the future"),
    ("causal_pattern", past_masked, "the past masked"),
    ("causal_pattern", not_itself, "a position may not see itself"),
    ("causal_pattern", columns, "softmax over the wrong axis"),
    ("normalise", always_layer_norm, "mean subtracted by RMSNorm"),
    ("normalise", always_rms, "mean not subtracted by LayerNorm"),
    ("normalise", over_positions, "over positions instead of numbers"),
    ("normalise", everything_together, "one mean for all positions"),
    ("normalise", bessel, "divided by n − 1"),
    ("normalise", without_eps, "eps forgotten"),
    ("normalise", eps_after_the_root, "eps outside the root"),
    ("normalise", unit_length, "divided by the length"),
    ("normalise", by_the_square, "root forgotten"),
    ("one_head", sees_the_future, "mask forgotten"),
    ("one_head", unscaled, "scores not divided by the root of d_head"),
    ("one_head", scaled_by_d_model, "divided by the root of d_model"),
    ("one_head", key_asks, "query and key swapped"),
    ("one_head", gathered_only, "W_O forgotten"),
    ("one_head", with_the_stream, "the stream itself added"),
    ("one_head", hands_over_keys, "keys handed over instead of values"),
    ("one_head", from_the_sources_side, "pattern transposed"),
    ("needed_at_the_end", nothing_kept, "residual stream forgotten"),
    ("needed_at_the_end", one_look, "one look only"),
    ("needed_at_the_end", forwards, "layers in the wrong order"),
    ("needed_at_the_end", swapped, "source and destination swapped"),
    ("needed_at_the_end", without_the_embedding, "one place too few"),
    ("needed_at_the_end", end_first, "places in the order of the walk"),
]


@pytest.mark.parametrize(
    ("check", "answer", "name"),
    WRONG,
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_answer_is_recognised(check, answer, name):
    for seed in range(3):
        verdict = getattr(checks, check)(answer, seed=seed)
        assert verdict.misconception == name, verdict


def test_every_misconception_has_a_wrong_answer():
    names = {
        check: [one.name for one in getattr(checks, check).misconceptions]
        for check, _, _ in WRONG
    }
    assert names == {
        check: [name for c, _, name in WRONG if c == check] for check in names
    }


def attend(scores, values):
    weights = np.exp(scores.numpy())
    return (weights / weights.sum()).astype("float32") @ values.numpy()


def causal_pattern(scores):
    rows = []
    for i, row in enumerate(scores.tolist()):
        weights = [math.exp(score) for score in row[: i + 1]]
        rows.append(
            [weight / sum(weights) for weight in weights] + [0.0] * (len(row) - i - 1)
        )
    return rows


def normalise(x, rms, eps):
    return (
        torch.nn.functional.rms_norm(x, x.shape[1:], eps=eps)
        if rms
        else layer_norm(x, x.shape[1:], eps=eps)
    )


def one_head(x, W_Q, W_K, W_V, W_O):
    q, k, v = (part[None] for part in (x @ W_Q, x @ W_K, x @ W_V @ W_O))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)[0]


def needed_at_the_end(looks):
    """By powers of a matrix, instead of a walk."""
    steps = [
        layer.double() + torch.eye(looks.shape[1], dtype=torch.float64)
        for layer in looks
    ]
    rows = [torch.eye(looks.shape[1], dtype=torch.float64)[-1]]
    for step in reversed(steps):
        rows.append(rows[-1] @ step)
    return (torch.stack(rows[::-1]) > 0).int().tolist()


@pytest.mark.parametrize(
    "answer", [attend, causal_pattern, normalise, one_head, needed_at_the_end]
)
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict


def test_a_lookalike_of_nothing_is_wrong_too():
    """Not every mistake has a name: it is refused all the same."""
    verdict = checks.attend(lambda scores, values: (scores / 2).softmax(0) @ values)
    assert not verdict and verdict.kind == "wrong"
