"""Wrong answers to the exercises of chapter 5, written as students write them, and what
the checks make of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import einsum, rearrange, repeat

from ioi_course import checks
from ioi_course.checks.core import random_data, random_model
from ioi_course.prompts import IOIDataset


def products(q, k):
    per_key = q.shape[1] // k.shape[1]
    heads = [
        einsum(q[:, h], k[:, h // per_key], "i d, j d -> i j")
        for h in range(q.shape[1])
    ]
    return torch.stack(heads)


def masked(scores):
    n = scores.shape[-1]
    mask = torch.tensor(
        [[0.0 if j <= i else -math.inf for j in range(n)] for i in range(n)]
    )
    return scores.double() + mask


def unscaled(q, k):
    return masked(products(q, k)).softmax(-1)


def over_d_head(q, k):
    return masked(products(q, k) / q.shape[-1]).softmax(-1)


def over_root_of_positions(q, k):
    return masked(products(q, k) / math.sqrt(len(q))).softmax(-1)


def over_root_of_heads(q, k):
    n_heads, d_head = q.shape[1:]  # and then the wrong one of the two
    return masked(products(q, k) / math.sqrt(n_heads)).softmax(-1)


def keys_tiled(q, k):
    k = repeat(k, "j g d -> j (n g) d", n=q.shape[1] // k.shape[1])
    return masked(
        einsum(q, k, "i h d, j h d -> h i j") / math.sqrt(q.shape[-1])
    ).softmax(-1)


def without_mask(q, k):
    scores = (products(q, k) / math.sqrt(q.shape[-1])).exp()
    return scores / scores.sum(-1, keepdim=True)


def masked_late(q, k):
    pattern = torch.softmax(products(q, k) / math.sqrt(q.shape[-1]), -1)
    return pattern * torch.ones_like(pattern).tril()


def columns(q, k):
    scores = masked(products(q, k) / math.sqrt(q.shape[-1])).exp()
    return scores / scores.sum(1, keepdim=True)


def key_first(q, k):
    scores = rearrange(products(q, k), "h i j -> h j i") / math.sqrt(q.shape[-1])
    return masked(scores).softmax(-1)


ROLES = ("IO", "S1", "S1+1", "S2")


def one_by_one(pattern, data, end=None, places=None):
    rows = []
    for i in range(len(data)):
        row = pattern[i, :, data.pos["END"][i] if end is None else end[i]]
        at = (
            [0, *(data.pos[role][i] for role in ROLES)]
            if places is None
            else [place[i] for place in places]
        )
        known = torch.stack([row[:, j] for j in at], dim=-1)
        rows.append(
            torch.cat(
                [known, row.sum(-1, keepdim=True) - known.sum(-1, keepdim=True)], dim=-1
            )
        )
    return torch.stack(rows)


def all_pairs(pattern, data):
    end, zero = data.pos["END"], torch.zeros_like(data.lengths)
    found = [
        pattern[:, :, end, zero],
        *(pattern[:, :, end, data.pos[role]] for role in ROLES),
    ]
    return torch.stack([*found, pattern[:, :, end].sum(-1) - sum(found)], dim=-1)


def first_name_is_io(pattern, data):
    a = torch.stack([data.pos["IO"], data.pos["S1"]]).amin(0)
    b = torch.stack([data.pos["IO"], data.pos["S1"]]).amax(0)
    return one_by_one(
        pattern,
        data,
        places=[torch.zeros_like(a), a, b, data.pos["S1+1"], data.pos["S2"]],
    )


def bos_not_counted(pattern, data):
    places = [torch.zeros_like(data.lengths), *(data.pos[role] - 1 for role in ROLES)]
    return one_by_one(pattern, data, data.pos["END"] - 1, places)


def last_row(pattern, data):
    return one_by_one(
        pattern, data, torch.full_like(data.lengths, pattern.shape[-1] - 1)
    )


def places_of_the_first(pattern, data):
    row = pattern[:, :, data.pos["END"][0]]
    known = [row[..., 0], *(row[..., data.pos[role][0]] for role in ROLES)]
    return torch.stack([*known, row.sum(-1) - sum(known)], dim=-1)


def source_first(pattern, data):
    return one_by_one(pattern.transpose(-1, -2), data)


def mean_of_others(pattern, data):
    found = one_by_one(pattern, data).clone()
    found[..., -1] /= (data.lengths - 5).unsqueeze(1)
    return found


def null_table(data, share):
    """Rows of QUERIES, columns of KEYS; `share(i, j)`: what position
    i gives to position j."""
    rows = []
    for query in ("END", "S2", "S1+1"):
        per_prompt = []
        for n in range(len(data)):
            i = data.pos[query][n].item()
            at = [0, *(data.pos[role][n].item() for role in ROLES)]
            shares = [share(i, j) for j in at]
            per_prompt.append(
                [
                    *shares,
                    sum(share(i, j) for j in range(data.tokens.shape[1])) - sum(shares),
                ]
            )
        rows.append(np.mean(per_prompt, axis=0))
    return torch.tensor(np.array(rows))


def null_without_mask(data):
    width = data.tokens.shape[1]
    return null_table(data, lambda i, j: 1 / width)


def null_without_itself(data):
    return null_table(data, lambda i, j: 1 / i if j < i else 0)


def null_without_bos(data):
    return null_table(data, lambda i, j: 1 / i if 1 <= j <= i else 0)


def null_at_the_mean_place(data):
    rows = []
    for query, sees in (
        ("END", (1, 1, 1, 1, 1)),
        ("S2", (1, 1, 1, 1, 1)),
        ("S1+1", (1, None, 1, 1, 0)),
    ):
        share = 1 / (data.pos[query].float().mean().item() + 1)
        sees = [
            (data.pos["IO"] <= data.pos[query]).any().item() if one is None else one
            for one in sees
        ]
        row = [share * one for one in sees]
        rows.append([*row, 1 - sum(row)])
    return torch.tensor(rows)


def subject_swapped(data):
    return data.counterfactual("swap_subject")


def left_as_they_are(data):
    return data


def other_names(data):
    return data.counterfactual("random_names", seed=4)


def first_two_exchanged(data):
    return data.counterfactual("swap_names")


def another_draw_of_sentences(data):
    return IOIDataset(random_model(), len(data), seed=77).counterfactual("abc")


def names_also_of_other_words(data):
    return data.counterfactual("abc")[list(range(len(data)))[::-1]]


def every_other_prompt(data):
    new = list(data.counterfactual("abc"))
    mixed = [new[i] if i % 2 else prompt for i, prompt in enumerate(data)]
    return IOIDataset.from_prompts(random_model(), mixed)


def a_distractor(data):
    return data.counterfactual("extra_io")


def no_scale(row, v, W_O, direction, scale):
    return row * ((v @ W_O) @ direction[:, :, None])[..., 0]


def no_attention(row, v, W_O, direction, scale):
    return ((v @ W_O) @ direction[:, :, None])[..., 0] / scale


def lengths(row, v, W_O, direction, scale):
    return (row[..., None] * (v @ W_O)).norm(dim=-1) / scale


def unit_direction(row, v, W_O, direction, scale):
    return (
        row
        * torch.cosine_similarity(v @ W_O, direction[:, None], dim=-1)
        * (v @ W_O).norm(dim=-1)
        / scale
    )


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
        ("pattern_by_hand", unscaled, "scores not divided by the root of d_head"),
        ("pattern_by_hand", over_d_head, "scores divided by d_head"),
        (
            "pattern_by_hand",
            over_root_of_positions,
            "scores divided by the root of the number of positions",
        ),
        (
            "pattern_by_hand",
            over_root_of_heads,
            "scores divided by the root of the number of heads",
        ),
        ("pattern_by_hand", keys_tiled, "keys dealt out in turn"),
        ("pattern_by_hand", without_mask, "causal mask forgotten"),
        ("pattern_by_hand", masked_late, "masked after the softmax"),
        ("pattern_by_hand", columns, "softmax over the wrong axis"),
        ("pattern_by_hand", key_first, "query and key swapped"),
        ("from_end", all_pairs, "all pairs of prompts instead of each with its own"),
        ("from_end", first_name_is_io, "the first name taken for IO"),
        ("from_end", bos_not_counted, "BOS off by one"),
        ("from_end", last_row, "padding taken for END"),
        ("from_end", places_of_the_first, "first prompt's positions for all"),
        ("from_end", source_first, "query and key swapped"),
        ("from_end", mean_of_others, "others averaged"),
        ("without_preference", null_without_mask, "causal mask forgotten"),
        ("without_preference", null_without_itself, "the destination left out"),
        ("without_preference", null_without_bos, "BOS left out"),
        (
            "without_preference",
            null_at_the_mean_place,
            "the mean position used for all prompts",
        ),
        ("told_apart", subject_swapped, "both explanations expect the same"),
        ("told_apart", left_as_they_are, "both explanations expect the same"),
        ("told_apart", other_names, "both explanations expect the same"),
        ("told_apart", first_two_exchanged, "both explanations expect the same"),
        ("told_apart", another_draw_of_sentences, "more than names was changed"),
        ("told_apart", names_also_of_other_words, "more than names was changed"),
        (
            "told_apart",
            a_distractor,
            "the explanations agree, and more than names was changed",
        ),
        ("told_apart", every_other_prompt, "only some of the prompts decide"),
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
    for seed in range(3):
        verdict = getattr(checks, check)(answer, seed=seed)
        assert verdict.misconception == name, verdict


def pattern_by_hand(q, k):
    q, k = q.numpy(), k.numpy()
    pos, heads, d_head = q.shape
    pattern = np.zeros((heads, pos, pos), dtype="float32")
    for h in range(heads):
        key = k[:, h * k.shape[1] // heads]
        for i in range(pos):
            weights = np.exp(key[: i + 1] @ q[i, h] / np.sqrt(d_head))
            pattern[h, i, : i + 1] = weights / weights.sum()
    return pattern


def from_end(pattern, data):
    return one_by_one(pattern, data).tolist()


def without_preference(data):
    return null_table(data, lambda i, j: 1 / (i + 1) if j <= i else 0)


def source_effects(row, v, W_O, direction, scale):
    read = einsum(W_O, direction / scale, "d m, b m -> b d")
    return (row.unsqueeze(-1) * v * read.unsqueeze(1)).sum(-1).float()


def role_and_place(clean, swapped):
    a, b = -clean.diff(dim=-1).squeeze(-1), -swapped.diff(dim=-1).squeeze(-1)
    both = torch.stack([a - b, a + b]) / 2
    return both.mean(dim=1).tolist()


ANSWERS = [
    pattern_by_hand,
    from_end,
    without_preference,
    source_effects,
    role_and_place,
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict


@pytest.mark.parametrize("what", ["written", "direction", "both"])
def test_centring_what_is_centred_is_accepted(what):
    """The weights are centred, says the exercise, so taking the mean out of what is
    written is right, if needless."""

    def centred(x):
        return x - x.mean(dim=-1, keepdim=True)

    def answer(row, v, W_O, direction, scale):
        written = v @ W_O if what == "direction" else centred(v @ W_O)
        towards = direction if what == "written" else centred(direction)
        return row * einsum(written, towards / scale, "b j m, b m -> b j")

    for seed in range(3):
        verdict = checks.source_effects(answer, seed=seed)
        assert verdict.passed, verdict


def three_new_names(data):
    return data.counterfactual("abc", seed=5)


def only_the_last_name_new(data):
    """The smallest change: the first two names stay, and the subject of the last
    clause is somebody new."""
    fresh = ({"Mary", "John", "Tom"} - {p.IO, p.S} for p in data)
    prompts = [
        replace(p, third=sorted(names)[0]) for p, names in zip(data, fresh, strict=True)
    ]
    return IOIDataset.from_prompts(random_model(), prompts)


@pytest.mark.parametrize("answer", [three_new_names, only_the_last_name_new])
def test_prompts_count_by_what_they_do(answer):
    for seed in range(3):
        verdict = checks.told_apart(answer, seed=seed)
        assert verdict.passed, verdict


def test_a_choice_that_is_none_says_so():
    assert checks.told_apart(lambda data: None).kind == "not written"
    right = {
        "the two explanations differ": "on all prompts",
        "only names were changed": True,
    }
    assert checks.told_apart(lambda data: right).kind == "raised", (
        "the result itself is no choice of prompts"
    )
    verdict = checks.told_apart(lambda data: "abc")
    assert verdict.kind == "raised" and "IOIDataset" in verdict.message, verdict
    assert checks.told_apart(lambda: None).kind == "raised"


def test_the_two_heads_agree_on_the_task_and_only_there():
    data = random_data(random_model(), 6, seed=3)
    last, repeated = checks.explanations._two_heads(data)
    at_s2 = torch.arange(len(data)), data.pos["S2"]
    assert last[at_s2].min() > 0.99 and repeated[at_s2].min() > 0.99
    last, repeated = checks.explanations._two_heads(data.counterfactual("abc"))
    assert last[at_s2].min() > 0.99 and repeated[at_s2].max() < 0.01
