"""Checks of chapter 5: attention patterns, and what they carry."""

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.prompts import IOIDataset

__all__ = ["pattern_by_hand", "end_to_s2", "value_weighted", "source_effects", "role_and_place"]


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draw(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def _future(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).triu(1)


def _pattern(q: Float[Tensor, "pos d_head"], k: Float[Tensor, "pos d_head"]) -> Float[Tensor, "dest src"]:
    scores = q @ k.T / q.shape[1] ** 0.5
    return scores.masked_fill(_future(scores), -torch.inf).softmax(dim=-1)


def _pattern_cases(seed: int) -> list[tuple]:
    rng = _rng(seed)
    return [(2 * _draw(rng, pos, width), 2 * _draw(rng, pos, width)) for pos, width in ((5, 8), (2, 4), (7, 3))]


pattern_by_hand = Exercise(
    number="5.1",
    title="A pattern by hand",
    solution=_pattern,
    cases=_pattern_cases,
    misconceptions=(
        Misconception(
            "scores not divided by the root of d_head",
            "The pattern is too sharp: the longer the vectors, the larger their products.",
            lambda q, k: _pattern(q * q.shape[1] ** 0.5, k),
        ),
        Misconception(
            "scores divided by d_head",
            "The pattern is too flat: it is the root of d_head that they are divided by.",
            lambda q, k: _pattern(q / q.shape[1] ** 0.5, k),
        ),
        Misconception(
            "causal mask forgotten",
            "A position must not look at those after it, whose keys it could not know.",
            lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(dim=-1),
        ),
        Misconception(
            "masked after the softmax",
            "The future is zero, but the rows no longer sum to 1: set the scores to minus infinity, then take the softmax.",
            lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(dim=-1).tril(),
        ),
        Misconception(
            "softmax over the wrong axis",
            "Each column sums to 1 here. A destination shares out its attention over sources: each row sums to 1.",
            lambda q, k: (q @ k.T / q.shape[1] ** 0.5).masked_fill(_future(q @ k.T), -torch.inf).softmax(dim=0),
        ),
        Misconception(
            "query and key swapped",
            "Rows are destinations, and a destination has the query.",
            lambda q, k: _pattern(k, q),
        ),
    ),
)


def _from_to(pattern: Tensor, data: IOIDataset, query: Tensor, key: Tensor) -> Float[Tensor, "batch head"]:
    return pattern[torch.arange(len(data)), :, query, key]


def _end_to_s2(pattern: Float[Tensor, "batch head dest src"], data: IOIDataset) -> Float[Tensor, "head"]:
    return _from_to(pattern, data, data.pos["END"], data.pos["S2"]).mean(dim=0)


def _layer_cases(seed: int) -> list[tuple]:
    model = random_model(seed % 3)
    cases = []
    for i, n in enumerate((5, 4, 1)):
        data = random_data(model, n, seed=100 * seed + i)
        rng = _rng(1000 * seed + i)
        scores = 2 * _draw(rng, n, 3, *[data.tokens.shape[1]] * 2)
        cases.append((scores.masked_fill(_future(scores), -torch.inf).softmax(dim=-1), data))
    return cases


end_to_s2 = Exercise(
    number="5.2",
    title="From END to S2",
    solution=_end_to_s2,
    cases=_layer_cases,
    misconceptions=(
        Misconception(
            "S1 taken for S2",
            "This is attention to the first mention of the subject. S2 is the second one.",
            lambda pattern, data: _from_to(pattern, data, data.pos["END"], data.pos["S1"]).mean(dim=0),
        ),
        Misconception(
            "IO taken for S2",
            "This is the name movers' glance, from END to the indirect object.",
            lambda pattern, data: _from_to(pattern, data, data.pos["END"], data.pos["IO"]).mean(dim=0),
        ),
        Misconception(
            "BOS off by one",
            "Both positions are one too early: `data.pos` counts BOS already.",
            lambda pattern, data: _from_to(pattern, data, data.pos["END"] - 1, data.pos["S2"] - 1).mean(dim=0),
        ),
        Misconception(
            "padding taken for END",
            "The last row is END of the longest prompt only; in the others it is padding.",
            lambda pattern, data: _from_to(pattern, data, torch.full_like(data.lengths, -1), data.pos["S2"]).mean(
                dim=0
            ),
        ),
        Misconception(
            "first prompt's positions for all",
            "Sentences differ in length: each prompt has positions of its own.",
            lambda pattern, data: pattern[:, :, data.pos["END"][0], data.pos["S2"][0]].mean(dim=0),
        ),
        Misconception(
            "query and key swapped",
            "Destination first, then source. The other way round S2 would look into the future, at END.",
            lambda pattern, data: _from_to(pattern, data, data.pos["S2"], data.pos["END"]).mean(dim=0),
        ),
        Misconception(
            "mean over the wrong axis",
            "The mean over heads leaves a number per prompt; asked for is one per head.",
            lambda pattern, data: _from_to(pattern, data, data.pos["END"], data.pos["S2"]).mean(dim=1),
        ),
    ),
)


def _value_weighted(
    pattern: Float[Tensor, "batch dest src"], v: Float[Tensor, "batch src d_head"], W_O: Float[Tensor, "d_head d_model"]
) -> Float[Tensor, "batch dest src"]:
    return pattern * (v @ W_O).norm(dim=-1)[:, None]


def _head_cases(seed: int) -> list[tuple]:
    rng = _rng(seed)
    cases = []
    for batch, pos, d_head, d_model in ((3, 5, 4, 9), (1, 4, 3, 7), (4, 6, 5, 8)):
        scores = 2 * _draw(rng, batch, pos, pos)
        pattern = scores.masked_fill(_future(scores), -torch.inf).softmax(dim=-1)
        cases.append((pattern, _draw(rng, batch, pos, d_head), _draw(rng, d_head, d_model)))
    return cases


value_weighted = Exercise(
    number="5.3",
    title="What is carried along",
    solution=_value_weighted,
    cases=_head_cases,
    misconceptions=(
        Misconception(
            "value without W_O",
            "The length of v itself says little: W_O may stretch it or send it to nothing. The stream sees v W_O.",
            lambda pattern, v, W_O: pattern * v.norm(dim=-1)[:, None],
        ),
        Misconception(
            "length of the destination's value",
            "The length belongs to the source, the last axis of the pattern.",
            lambda pattern, v, W_O: pattern * (v @ W_O).norm(dim=-1)[:, :, None],
        ),
        Misconception(
            "squared length",
            "This is the sum of squares; the length is its root.",
            lambda pattern, v, W_O: pattern * (v @ W_O).pow(2).sum(dim=-1)[:, None],
        ),
        Misconception(
            "length of W_O times length of v",
            "The length of a product is not the product of lengths: it depends on the direction of v.",
            lambda pattern, v, W_O: pattern * v.norm(dim=-1)[:, None] * W_O.norm(),
        ),
        Misconception(
            "rows made to sum to 1 again",
            "The shares are right, but how much is moved altogether is lost.",
            lambda pattern, v, W_O: (
                _value_weighted(pattern, v, W_O) / _value_weighted(pattern, v, W_O).sum(dim=-1, keepdim=True)
            ),
        ),
    ),
)


def _source_effects(
    row: Float[Tensor, "batch src"],
    v: Float[Tensor, "batch src d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    direction: Float[Tensor, "batch d_model"],
    scale: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch src"]:
    return row * torch.einsum("bsd,dm,bm->bs", v, W_O, direction) / scale


def _effect_cases(seed: int) -> list[tuple]:
    rng = _rng(seed + 50)
    cases = []
    for pattern, v, W_O in _head_cases(seed):
        batch = len(v)
        scale = 1.5 + torch.rand(batch, 1, generator=rng, dtype=torch.float64)
        cases.append((pattern[:, -1], v, W_O, _draw(rng, batch, W_O.shape[1]), scale))
    return cases


source_effects = Exercise(
    number="5.4",
    title="From a glance to the answer",
    solution=_source_effects,
    cases=_effect_cases,
    misconceptions=(
        Misconception(
            "scale forgotten",
            "The stream is divided by the final LayerNorm's scale before it is unembedded.",
            lambda row, v, W_O, direction, scale: _source_effects(row, v, W_O, direction, torch.ones_like(scale)),
        ),
        Misconception(
            "attention forgotten",
            "This is what each source would give if the head looked at it alone.",
            lambda row, v, W_O, direction, scale: _source_effects(torch.ones_like(row), v, W_O, direction, scale),
        ),
        Misconception(
            "length instead of projection",
            "A length has no sign. Only the part along the answer direction changes the logit difference.",
            lambda row, v, W_O, direction, scale: row * (v @ W_O).norm(dim=-1) / scale,
        ),
        Misconception(
            "direction made a unit vector",
            "The length of the direction is part of the logit: leave it as it is.",
            lambda row, v, W_O, direction, scale: _source_effects(
                row, v, W_O, direction / direction.norm(dim=-1, keepdim=True), scale
            ),
        ),
        Misconception(
            "sum over sources",
            "This is the whole head's contribution; asked for is the part of each source.",
            lambda row, v, W_O, direction, scale: _source_effects(row, v, W_O, direction, scale).sum(dim=-1),
        ),
        Misconception(
            "IO and S exchanged",
            "The signs are reversed: the direction points from S to IO.",
            lambda row, v, W_O, direction, scale: _source_effects(row, v, W_O, -direction, scale),
        ),
    ),
)


def _role_and_place(
    clean: Float[Tensor, "batch head 2"], swapped: Float[Tensor, "batch head 2"]
) -> tuple[Float[Tensor, "head"], Float[Tensor, "head"]]:
    before, after = ((run[..., 0] - run[..., 1]).mean(dim=0) for run in (clean, swapped))
    return (before - after) / 2, (before + after) / 2


def _preference_cases(seed: int) -> list[tuple]:
    rng = _rng(seed)
    shapes = ((6, 4), (1, 3), (5, 2))
    return [tuple(torch.rand(2, batch, heads, 2, generator=rng, dtype=torch.float64)) for batch, heads in shapes]


role_and_place = Exercise(
    number="5.5",
    title="Role or place",
    solution=_role_and_place,
    cases=_preference_cases,
    misconceptions=(
        Misconception(
            "role and place exchanged",
            "What stays when the names change their roles goes with the place; what turns round goes with the role. The last "
            "axis counts places, in both runs.",
            lambda clean, swapped: _role_and_place(clean, swapped)[::-1],
        ),
        Misconception(
            "not halved",
            "Each part is in both runs, so the sum or difference of two runs has it twice.",
            lambda clean, swapped: tuple(2 * part for part in _role_and_place(clean, swapped)),
        ),
        Misconception(
            "each run taken for one part",
            "Both parts are in both runs: the clean preference alone is their sum.",
            lambda clean, swapped: tuple((run[..., 0] - run[..., 1]).mean(dim=0) for run in (clean, swapped)),
        ),
        Misconception(
            "mean over the wrong axis",
            "A number for each head was asked for; this is one for each prompt.",
            lambda clean, swapped: _role_and_place(clean.transpose(0, 1), swapped.transpose(0, 1)),
        ),
        Misconception(
            "attention to B left out",
            "Preference is the difference between the two names; attention to A alone also grows when both do.",
            lambda clean, swapped: (
                (clean[..., 0] - swapped[..., 0]).mean(dim=0) / 2,
                (clean[..., 0] + swapped[..., 0]).mean(dim=0) / 2,
            ),
        ),
    ),
)
