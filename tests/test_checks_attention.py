"""Wrong answers to the exercises of chapter 5, written as students write them, and what the checks make of them."""

import math

import numpy as np
import pytest
import torch
from einops import einsum

from ioi_course import checks


def masked(scores):
    n = len(scores)
    return torch.tensor([[scores[i, j].item() if j <= i else -math.inf for j in range(n)] for i in range(n)]).double()


def pattern_unscaled(q, k):
    return masked(einsum(q, k, "i d, j d -> i j")).softmax(-1)


def pattern_over_d_head(q, k):
    return masked(einsum(q, k, "i d, j d -> i j") / q.shape[-1]).softmax(-1)


def pattern_without_mask(q, k):
    scores = (q @ k.T / math.sqrt(q.shape[-1])).exp()
    return scores / scores.sum(1, keepdim=True)


def pattern_masked_late(q, k):
    pattern = torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), 1)
    return pattern * torch.ones_like(pattern).tril()


def pattern_columns(q, k):
    scores = masked(q @ k.T / math.sqrt(q.shape[-1])).exp()
    return scores / scores.sum(0, keepdim=True)


def pattern_key_first(q, k):
    return masked(einsum(k, q, "i d, j d -> i j") / math.sqrt(q.shape[-1])).softmax(-1)


def end_to(role, pattern, data):
    return torch.stack([pattern[i, :, data.pos["END"][i], data.pos[role][i]] for i in range(len(data))])


def s1_for_s2(pattern, data):
    return end_to("S1", pattern, data).mean(0)


def io_for_s2(pattern, data):
    return end_to("IO", pattern, data).mean(0)


def bos_forgotten(pattern, data):
    rows = [pattern[i, :, data.pos["END"][i] - 1, data.pos["S2"][i] - 1] for i in range(len(data))]
    return sum(rows) / len(rows)


def last_row(pattern, data):
    rows = [pattern[i, :, -1, data.pos["S2"][i]] for i in range(len(data))]
    return sum(rows) / len(rows)


def first_prompt(pattern, data):
    return pattern.mean(0)[:, data.pos["END"][0], data.pos["S2"][0]]


def source_first(pattern, data):
    rows = [pattern[i, :, data.pos["S2"][i], data.pos["END"][i]] for i in range(len(data))]
    return sum(rows) / len(rows)


def mean_of_heads(pattern, data):
    return end_to("S2", pattern, data).mean(-1)


def plain_values(pattern, v, W_O):
    return einsum(pattern, v.norm(dim=-1), "b i j, b j -> b i j")


def of_destination(pattern, v, W_O):
    return einsum(pattern, (v @ W_O).norm(dim=-1), "b i j, b i -> b i j")


def squares(pattern, v, W_O):
    return pattern * ((v @ W_O) ** 2).sum(-1).unsqueeze(1)


def product_of_norms(pattern, v, W_O):
    return pattern * (v.norm(dim=-1) * torch.linalg.norm(W_O)).unsqueeze(1)


def normalised_again(pattern, v, W_O):
    moved = pattern * (v @ W_O).norm(dim=-1).unsqueeze(1)
    return torch.nn.functional.normalize(moved, p=1, dim=-1)


def no_scale(row, v, W_O, direction, scale):
    return row * ((v @ W_O) @ direction[:, :, None])[..., 0]


def no_attention(row, v, W_O, direction, scale):
    return ((v @ W_O) @ direction[:, :, None])[..., 0] / scale


def lengths(row, v, W_O, direction, scale):
    return (row[..., None] * (v @ W_O)).norm(dim=-1) / scale


def unit_direction(row, v, W_O, direction, scale):
    return row * torch.cosine_similarity(v @ W_O, direction[:, None], dim=-1) * (v @ W_O).norm(dim=-1) / scale


def whole_head(row, v, W_O, direction, scale):
    z = einsum(row, v, "b j, b j d -> b d")
    return ((z @ W_O) * direction).sum(-1) / scale[:, 0]


def reversed_sign(row, v, W_O, direction, scale):
    return einsum(row, v @ W_O, direction, "b j, b j m, b m -> b j") / -scale


def exchanged(clean, swapped):
    a, b = clean[..., 0] - clean[..., 1], swapped[..., 0] - swapped[..., 1]
    return ((a + b) / 2).mean(0), ((a - b) / 2).mean(0)


def doubled(clean, swapped):
    a, b = clean[..., 0] - clean[..., 1], swapped[..., 0] - swapped[..., 1]
    return (a - b).mean(0), (a + b).mean(0)


def one_run_each(clean, swapped):
    return [-run.diff(dim=-1).mean(dim=0)[:, 0] for run in (clean, swapped)]


def over_heads(clean, swapped):
    a, b = clean[..., 0] - clean[..., 1], swapped[..., 0] - swapped[..., 1]
    return ((a - b) / 2).mean(1), ((a + b) / 2).mean(1)


def only_a(clean, swapped):
    a, b = clean[..., 0].mean(0), swapped[..., 0].mean(0)
    return (a - b) / 2, (a + b) / 2


@pytest.mark.parametrize(
    ("check", "answer", "name"),
    [
        ("pattern_by_hand", pattern_unscaled, "scores not divided by the root of d_head"),
        ("pattern_by_hand", pattern_over_d_head, "scores divided by d_head"),
        ("pattern_by_hand", pattern_without_mask, "causal mask forgotten"),
        ("pattern_by_hand", pattern_masked_late, "masked after the softmax"),
        ("pattern_by_hand", pattern_columns, "softmax over the wrong axis"),
        ("pattern_by_hand", pattern_key_first, "query and key swapped"),
        ("end_to_s2", s1_for_s2, "S1 taken for S2"),
        ("end_to_s2", io_for_s2, "IO taken for S2"),
        ("end_to_s2", bos_forgotten, "BOS off by one"),
        ("end_to_s2", last_row, "padding taken for END"),
        ("end_to_s2", first_prompt, "first prompt's positions for all"),
        ("end_to_s2", source_first, "query and key swapped"),
        ("end_to_s2", mean_of_heads, "mean over the wrong axis"),
        ("value_weighted", plain_values, "value without W_O"),
        ("value_weighted", of_destination, "length of the destination's value"),
        ("value_weighted", squares, "squared length"),
        ("value_weighted", product_of_norms, "length of W_O times length of v"),
        ("value_weighted", normalised_again, "rows made to sum to 1 again"),
        ("source_effects", no_scale, "scale forgotten"),
        ("source_effects", no_attention, "attention forgotten"),
        ("source_effects", lengths, "length instead of projection"),
        ("source_effects", unit_direction, "direction made a unit vector"),
        ("source_effects", whole_head, "sum over sources"),
        ("source_effects", reversed_sign, "IO and S exchanged"),
        ("role_and_place", exchanged, "role and place exchanged"),
        ("role_and_place", doubled, "not halved"),
        ("role_and_place", one_run_each, "each run taken for one part"),
        ("role_and_place", over_heads, "mean over the wrong axis"),
        ("role_and_place", only_a, "attention to B left out"),
    ],
)
def test_a_wrong_answer_is_recognised(check, answer, name):
    for seed in range(2):
        verdict = getattr(checks, check)(answer, seed=seed)
        assert verdict.misconception == name, verdict


def pattern_by_hand(q, k):
    q, k = q.numpy(), k.numpy()
    pattern = np.zeros((len(q), len(q)), dtype="float32")
    for i in range(len(q)):
        weights = np.exp(k[: i + 1] @ q[i] / np.sqrt(q.shape[1]))
        pattern[i, : i + 1] = weights / weights.sum()
    return pattern


def end_to_s2(pattern, data):
    return [float(end_to("S2", pattern, data)[:, head].mean()) for head in range(pattern.shape[1])]


def value_weighted(pattern, v, W_O):
    written = einsum(pattern, v, W_O, "b i j, b j d, d m -> b i j m")
    return written.norm(dim=-1)


def source_effects(row, v, W_O, direction, scale):
    read = einsum(W_O, direction / scale, "d m, b m -> b d")
    return (row.unsqueeze(-1) * v * read.unsqueeze(1)).sum(-1).float()


def role_and_place(clean, swapped):
    a, b = -clean.diff(dim=-1).squeeze(-1), -swapped.diff(dim=-1).squeeze(-1)
    both = torch.stack([a - b, a + b]) / 2
    return both.mean(dim=1).tolist()


@pytest.mark.parametrize("answer", [pattern_by_hand, end_to_s2, value_weighted, source_effects, role_and_place])
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict
