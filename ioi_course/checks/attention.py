"""Checks of chapter 5: attention patterns, and what they carry; that of what would
explain them is in `explanations`."""

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.attention import by_roles
from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.checks.explanations import told_apart
from ioi_course.checks.inputs import seeded
from ioi_course.prompts import IOIDataset

__all__ = [
    "pattern_by_hand",
    "from_end",
    "without_preference",
    "told_apart",
    "source_effects",
    "role_and_place",
]


def _draw(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def _future(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).triu(1)


def _scores(
    q: Float[Tensor, "pos head d_head"], k: Float[Tensor, "pos group d_head"]
) -> Float[Tensor, "head i j"]:
    shared = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    return torch.einsum("ihd,jhd->hij", q, shared) / q.shape[2] ** 0.5


def _softmax(
    scores: Float[Tensor, "head dest src"], dim: int = -1
) -> Float[Tensor, "head dest src"]:
    return scores.masked_fill(_future(scores), -torch.inf).softmax(dim=dim)


def _pattern(
    q: Float[Tensor, "pos head d_head"], k: Float[Tensor, "pos group d_head"]
) -> Float[Tensor, "head i j"]:
    return _softmax(_scores(q, k))


def _groups_in_turn(q: Tensor, k: Tensor) -> Tensor:
    return _softmax(_scores(q, k.repeat(1, q.shape[1] // k.shape[1], 1)))


def _pattern_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    # positions, heads, keys, d_head
    shapes = ((5, 4, 2, 8), (2, 3, 3, 4), (7, 6, 2, 3))
    return [
        (2 * _draw(rng, pos, heads, d), 2 * _draw(rng, pos, keys, d))
        for pos, heads, keys, d in shapes
    ]


pattern_by_hand = Exercise(
    number="5.1",
    title="The patterns of a layer",
    solution=_pattern,
    cases=_pattern_cases,
    misconceptions=(
        Misconception(
            "scores not divided by the root of d_head",
            "The patterns are too sharp: the longer the vectors, the larger "
            "their products.",
            lambda q, k: _softmax(_scores(q, k) * q.shape[2] ** 0.5),
        ),
        Misconception(
            "scores divided by d_head",
            "The patterns are too flat: it is the root of d_head that they are "
            "divided by.",
            lambda q, k: _softmax(_scores(q, k) / q.shape[2] ** 0.5),
        ),
        Misconception(
            "scores divided by the root of the number of positions",
            "A longer prompt does not make the products larger; longer vectors do. "
            "Which axis is d_head?",
            lambda q, k: _softmax(_scores(q, k) * (q.shape[2] / q.shape[0]) ** 0.5),
        ),
        Misconception(
            "scores divided by the root of the number of heads",
            "Each head has its own products, and their size comes from the width of a "
            "head: the last axis of q.",
            lambda q, k: _softmax(_scores(q, k) * (q.shape[2] / q.shape[1]) ** 0.5),
        ),
        Misconception(
            "keys dealt out in turn",
            "Neighbouring heads share a key: with 4 heads and 2 keys, heads 0 and 1 "
            "have key 0, heads 2 and 3 key 1. That is `repeat_interleave`, "
            "not `repeat`.",
            _groups_in_turn,
        ),
        Misconception(
            "causal mask forgotten",
            "A position must not look at those after it, whose keys it could not know.",
            lambda q, k: _scores(q, k).softmax(dim=-1),
        ),
        Misconception(
            "masked after the softmax",
            "The future is zero, but the rows no longer sum to 1: set the scores to "
            "minus infinity, then take the softmax.",
            lambda q, k: _scores(q, k).softmax(dim=-1).tril(),
        ),
        Misconception(
            "softmax over the wrong axis",
            "Each column sums to 1 here. A destination shares out its attention over "
            "sources: each row sums to 1.",
            lambda q, k: _softmax(_scores(q, k), dim=1),
        ),
        Misconception(
            "query and key swapped",
            "Rows are destinations, and a destination has the query.",
            lambda q, k: _softmax(_scores(q, k).transpose(1, 2)),
        ),
    ),
)


def _rows(pattern: Tensor, query: Tensor) -> Float[Tensor, "batch head src"]:
    return pattern[torch.arange(len(pattern)), :, query]


def _from_end(
    pattern: Float[Tensor, "batch head dest src"], data: IOIDataset
) -> Float[Tensor, "batch head key"]:
    return by_roles(pattern, data)[:, :, 0]


def _shared_out(
    row: Float[Tensor, "batch head src"], places: list[Tensor]
) -> Float[Tensor, "batch head key"]:
    there = [row[torch.arange(len(row)), :, place] for place in places]
    return torch.stack([*there, row.sum(dim=-1) - sum(there)], dim=-1)


def _places(data: IOIDataset) -> list[Tensor]:
    return [
        torch.zeros_like(data.lengths),
        *(data.pos[role] for role in ("IO", "S1", "S1+1", "S2")),
    ]


def _by_order(pattern: Tensor, data: IOIDataset) -> Tensor:
    bos, io, s1, *others = _places(data)
    return _shared_out(
        _rows(pattern, data.pos["END"]),
        [bos, torch.minimum(io, s1), torch.maximum(io, s1), *others],
    )


def _all_pairs(
    pattern: Tensor, data: IOIDataset
) -> Float[Tensor, "batch head batch key"]:
    five = torch.stack(
        [pattern[:, :, data.pos["END"], place] for place in _places(data)], dim=-1
    )
    return torch.cat([five, 1 - five.sum(dim=-1, keepdim=True)], dim=-1)


def _layer_cases(seed: int) -> list[tuple]:
    model = random_model(seed % 3)
    cases = []
    for i, n in enumerate((5, 4, 1)):
        data = random_data(model, n, seed=100 * seed + i)
        scores = 2 * _draw(seeded(1000 * seed + i), n, 3, *[data.tokens.shape[1]] * 2)
        cases.append(
            (scores.masked_fill(_future(scores), -torch.inf).softmax(dim=-1), data)
        )
    return cases


from_end = Exercise(
    number="5.2",
    title="From positions to roles",
    solution=_from_end,
    cases=_layer_cases,
    misconceptions=(
        Misconception(
            "all pairs of prompts instead of each with its own",
            "`x[:, :, end, place]` with tensors of positions takes *every* prompt's "
            "places from *each* prompt: one axis too many. Index the batch axis as "
            "well: `x[torch.arange(batch), :, end]`.",
            _all_pairs,
        ),
        Misconception(
            "the first name taken for IO",
            "IO comes first in half of the prompts only. `data.pos` knows where it "
            "is in each.",
            _by_order,
        ),
        Misconception(
            "BOS off by one",
            "The positions are one too early: `data.pos` counts BOS already.",
            lambda pattern, data: _shared_out(
                _rows(pattern, data.pos["END"] - 1),
                [(place - 1).clamp(min=0) for place in _places(data)],
            ),
        ),
        Misconception(
            "padding taken for END",
            "The last row is END of the longest prompt only; in the others it "
            "is padding.",
            lambda pattern, data: _shared_out(pattern[:, :, -1], _places(data)),
        ),
        Misconception(
            "first prompt's positions for all",
            "Sentences differ in length: each prompt has positions of its own.",
            lambda pattern, data: _shared_out(
                pattern[:, :, data.pos["END"][0]],
                [place[:1].expand(len(place)) for place in _places(data)],
            ),
        ),
        Misconception(
            "query and key swapped",
            "Destination first, then source. The other way round every place would "
            "look into the future, at END.",
            lambda pattern, data: _from_end(pattern.transpose(2, 3), data),
        ),
        Misconception(
            "others averaged",
            "`others` is what all other positions have together, so that the six add "
            "up to 1; this is a mean.",
            lambda pattern, data: torch.cat(
                [
                    _from_end(pattern, data)[..., :-1],
                    _from_end(pattern, data)[..., -1:]
                    / (data.lengths - 5)[:, None, None],
                ],
                dim=-1,
            ),
        ),
    ),
)


def _null(
    weights: Float[Tensor, "dest src"], data: IOIDataset
) -> Float[Tensor, "query key"]:
    same = weights.double().expand(len(data), 1, *weights.shape)
    return by_roles(same, data)[:, 0].mean(dim=0)


def _without_preference(data: IOIDataset) -> Float[Tensor, "query key"]:
    allowed = torch.ones([data.tokens.shape[1]] * 2).tril()
    return _null(allowed / allowed.sum(dim=1, keepdim=True), data)


def _of_mean_place(data: IOIDataset) -> Tensor:
    places = [data.pos[query].double().mean() + 1 for query in ("END", "S2", "S1+1")]
    uniform = _without_preference(data)
    once = torch.where(
        uniform > 0, 1 / torch.stack(places)[:, None], torch.zeros_like(uniform)
    )[:, :-1]
    return torch.cat([once, 1 - once.sum(dim=1, keepdim=True)], dim=1)


def _null_cases(seed: int) -> list[tuple]:
    model = random_model(seed % 3)
    return [(random_data(model, n, seed=100 * seed + 50 + n),) for n in (6, 3, 1)]


without_preference = Exercise(
    number="5.3",
    title="A head without preference",
    solution=_without_preference,
    cases=_null_cases,
    misconceptions=(
        Misconception(
            "causal mask forgotten",
            "From S1+1 nobody sees S2, and END sees more places than S1+1 does. Share "
            "out among those at or before the query.",
            lambda data: _null(
                torch.full([data.tokens.shape[1]] * 2, 1 / data.tokens.shape[1]), data
            ),
        ),
        Misconception(
            "the destination left out",
            "A position can look at itself too: from position i there are i + "
            "1 places.",
            lambda data: _null(
                torch.ones([data.tokens.shape[1]] * 2).tril(-1)
                / torch.arange(data.tokens.shape[1]).clamp(min=1)[:, None],
                data,
            ),
        ),
        Misconception(
            "BOS left out",
            "BOS is a place like the others, and has its share.",
            lambda data: _null(
                torch.ones([data.tokens.shape[1]] * 2).tril()
                * (torch.arange(data.tokens.shape[1]) > 0)
                / torch.arange(data.tokens.shape[1]).clamp(min=1)[:, None],
                data,
            ),
        ),
        Misconception(
            "the mean position used for all prompts",
            "The mean of 1/n is not 1 over the mean of n: take each prompt's share "
            "first, then the mean.",
            _of_mean_place,
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
    """Output weights and directions without a mean over d_model, as in a centred model:
    centring again changes nothing."""
    rng = seeded(seed + 50)
    cases = []
    for batch, pos, d_head, d_model in ((3, 5, 4, 9), (1, 4, 3, 7), (4, 6, 5, 8)):
        row = (2 * _draw(rng, batch, pos)).softmax(dim=-1)
        W_O, direction = _draw(rng, d_head, d_model), _draw(rng, batch, d_model)
        scale = 1.5 + torch.rand(batch, 1, generator=rng, dtype=torch.float64)
        W_O, direction = (x - x.mean(dim=-1, keepdim=True) for x in (W_O, direction))
        cases.append((row, _draw(rng, batch, pos, d_head), W_O, direction, scale))
    return cases


source_effects = Exercise(
    number="5.5",
    title="From attention to the answer",
    solution=_source_effects,
    cases=_effect_cases,
    misconceptions=(
        Misconception(
            "scale forgotten",
            "The stream is divided by the final norm's scale before it is unembedded.",
            lambda row, v, W_O, direction, scale: _source_effects(
                row, v, W_O, direction, torch.ones_like(scale)
            ),
        ),
        Misconception(
            "attention forgotten",
            "This is what each source would give if the head looked at it alone.",
            lambda row, v, W_O, direction, scale: _source_effects(
                torch.ones_like(row), v, W_O, direction, scale
            ),
        ),
        Misconception(
            "length instead of projection",
            "A length has no sign. Only the part along the answer direction changes "
            "the logit difference.",
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
            "This is the whole head's contribution; asked for is the part of "
            "each source.",
            lambda row, v, W_O, direction, scale: _source_effects(
                row, v, W_O, direction, scale
            ).sum(dim=-1),
        ),
        Misconception(
            "IO and S exchanged",
            "The signs are reversed: the direction points from S to IO.",
            lambda row, v, W_O, direction, scale: _source_effects(
                row, v, W_O, -direction, scale
            ),
        ),
    ),
)


def _role_and_place(
    clean: Float[Tensor, "batch head 2"], swapped: Float[Tensor, "batch head 2"]
) -> tuple[Float[Tensor, "head"], Float[Tensor, "head"]]:
    before, after = (
        (run[..., 0] - run[..., 1]).mean(dim=0) for run in (clean, swapped)
    )
    return (before - after) / 2, (before + after) / 2


def _preference_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    shapes = ((6, 4), (1, 3), (5, 2))
    return [
        tuple(torch.rand(2, batch, heads, 2, generator=rng, dtype=torch.float64))
        for batch, heads in shapes
    ]


role_and_place = Exercise(
    number="5.6",
    title="Role or place",
    solution=_role_and_place,
    cases=_preference_cases,
    misconceptions=(
        Misconception(
            "role and place exchanged",
            "What stays when the names change their roles goes with the place; what is "
            "reversed goes with the role. The last axis counts places, in both runs.",
            lambda clean, swapped: _role_and_place(clean, swapped)[::-1],
        ),
        Misconception(
            "not halved",
            "Each part is in both runs, so the sum or difference of two runs has "
            "it twice.",
            lambda clean, swapped: tuple(
                2 * part for part in _role_and_place(clean, swapped)
            ),
        ),
        Misconception(
            "each run taken for one part",
            "Both parts are in both runs: the clean preference alone is their sum.",
            lambda clean, swapped: tuple(
                (run[..., 0] - run[..., 1]).mean(dim=0) for run in (clean, swapped)
            ),
        ),
        Misconception(
            "mean over the wrong axis",
            "A number for each head was asked for; this is one for each prompt.",
            lambda clean, swapped: _role_and_place(
                clean.transpose(0, 1), swapped.transpose(0, 1)
            ),
        ),
        Misconception(
            "attention to B left out",
            "Preference is the difference between the two names; attention to A alone "
            "also grows when both do.",
            lambda clean, swapped: (
                (clean[..., 0] - swapped[..., 0]).mean(dim=0) / 2,
                (clean[..., 0] + swapped[..., 0]).mean(dim=0) / 2,
            ),
        ),
    ),
)
