"""Checks of the lesson on the transformer: norms, attention, the causal mask, one head,
and what the end needs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ioi_course.checks.attention import _draw, _future
from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import seeded

__all__ = ["normalise", "attend", "causal_pattern", "one_head", "needed_at_the_end"]


def _centred(
    x: Float[Tensor, "pos d_model"], rms: bool
) -> Float[Tensor, "pos d_model"]:
    return x if rms else x - x.mean(dim=-1, keepdim=True)


def _mean_square(x: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos 1"]:
    return x.pow(2).mean(dim=-1, keepdim=True)


def _normalise(
    x: Float[Tensor, "pos d_model"], rms: bool, eps: float
) -> Float[Tensor, "pos d_model"]:
    x = _centred(x, rms)
    return x / (_mean_square(x) + eps).sqrt()


def _for_all_positions(x: Tensor, rms: bool, eps: float) -> Tensor:
    x = x if rms else x - x.mean()
    return x / (x.pow(2).mean() + eps).sqrt()


def _over_n_minus_1(x: Tensor, rms: bool, eps: float) -> Tensor:
    size = _mean_square(x) if rms else x.var(dim=-1, keepdim=True)
    return _centred(x, rms) / (size + eps).sqrt()


def _normalise_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    shapes = (
        (3, 5, False, 0.1),
        (4, 4, True, 0.1),
        (2, 6, True, 0.01),
        (5, 3, False, 0.02),
    )
    return [(_draw(rng, pos, width) + 0.7, rms, eps) for pos, width, rms, eps in shapes]


normalise = Exercise(
    number="0.1",
    title="LayerNorm and RMSNorm",
    solution=_normalise,
    cases=_normalise_cases,
    misconceptions=(
        Misconception(
            "mean subtracted by RMSNorm",
            "RMSNorm divides and does nothing else. Only LayerNorm subtracts the "
            "mean first.",
            lambda x, rms, eps: _normalise(x, False, eps),
        ),
        Misconception(
            "mean not subtracted by LayerNorm",
            "LayerNorm moves the numbers of a vector until their mean is 0, and "
            "then divides.",
            lambda x, rms, eps: _normalise(x, True, eps),
        ),
        Misconception(
            "over positions instead of numbers",
            "Each position is normalised by itself: the mean runs over its own "
            "numbers, the last axis.",
            lambda x, rms, eps: _normalise(x.T, rms, eps).T,
        ),
        Misconception(
            "one mean for all positions",
            "Each position is normalised by itself. This takes the mean over all "
            "positions together.",
            _for_all_positions,
        ),
        Misconception(
            "divided by n − 1",
            "`std` divides by n − 1 unless it is told not to. Here the squares are "
            "averaged: the sum divided by n.",
            _over_n_minus_1,
        ),
        Misconception(
            "eps forgotten",
            "A little is added under the root, so that a vector of zeros is not "
            "divided by zero.",
            lambda x, rms, eps: _normalise(x, rms, 0.0),
        ),
        Misconception(
            "eps outside the root",
            "The little that keeps the root from zero is added before the root "
            "is taken.",
            lambda x, rms, eps: (
                _centred(x, rms) / (_mean_square(_centred(x, rms)).sqrt() + eps)
            ),
        ),
        Misconception(
            "divided by the length",
            "The length is the root of the *sum* of squares. Here it is the root of "
            "their mean.",
            lambda x, rms, eps: (
                _centred(x, rms)
                / (_centred(x, rms).pow(2).sum(dim=-1, keepdim=True) + eps).sqrt()
            ),
        ),
        Misconception(
            "root forgotten",
            "This divides by the mean square. Doubling the vector would halve the "
            "result instead of leaving it alone.",
            lambda x, rms, eps: (
                _centred(x, rms) / (_mean_square(_centred(x, rms)) + eps)
            ),
        ),
    ),
)


def _attend(
    scores: Float[Tensor, "source"], values: Float[Tensor, "source d_head"]
) -> Float[Tensor, "d_head"]:
    return scores.softmax(dim=0) @ values


def _attend_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    return [
        (2 * _draw(rng, n), _draw(rng, n, width) + 1)
        for n, width in ((3, 2), (5, 5), (4, 7))
    ]


attend = Exercise(
    number="0.2",
    title="Attention by hand",
    solution=_attend,
    cases=_attend_cases,
    misconceptions=(
        Misconception(
            "scores taken for shares",
            "Scores may be of any size and sign. Make shares of them first: positive, "
            "and 1 in all.",
            lambda scores, values: scores @ values,
        ),
        Misconception(
            "divided by the sum, without the exponential",
            "Scores can be negative, and so can their sum. Take the exponential of "
            "each before you divide by the sum.",
            lambda scores, values: scores / scores.sum() @ values,
        ),
        Misconception(
            "not divided by the sum",
            "The exponentials are positive, but they do not add up to 1 yet.",
            lambda scores, values: scores.exp() @ values,
        ),
        Misconception(
            "all of it to the best",
            "Softmax is softer than a maximum: the second best source gets a share "
            "as well.",
            lambda scores, values: values[scores.argmax()],
        ),
        Misconception(
            "every source alike",
            "This is the plain mean of the values. The scores say how much of each "
            "is taken.",
            lambda scores, values: values.mean(dim=0),
        ),
        Misconception(
            "not added up",
            "These are the values, each with its share. What the head gathers is "
            "their sum: one vector.",
            lambda scores, values: scores.softmax(dim=0)[:, None] * values,
        ),
        Misconception(
            "softmax of the sum",
            "The softmax belongs to the scores. The values are what is shared out, "
            "and stay as they are.",
            lambda scores, values: (scores @ values).softmax(dim=0),
        ),
    ),
)


def _pattern(scores: Float[Tensor, "dest src"]) -> Float[Tensor, "dest src"]:
    return scores.masked_fill(_future(scores), -torch.inf).softmax(dim=-1)


def _strict(scores: Tensor) -> Tensor:
    """Without the position itself; the first, which is left with nothing
    to look at, gets zeros."""
    blocked = torch.ones_like(scores, dtype=torch.bool).triu(0)
    return scores.masked_fill(blocked, -torch.inf).softmax(dim=-1).nan_to_num()


causal_pattern = Exercise(
    number="0.3",
    title="The causal mask",
    solution=_pattern,
    cases=lambda seed: [(2 * _draw(seeded(seed + n), n, n),) for n in (4, 2, 6)],
    misconceptions=(
        Misconception(
            "no mask",
            "Row by row this sums to 1, but the first position looks at tokens that "
            "come after it.",
            lambda scores: scores.softmax(dim=-1),
        ),
        Misconception(
            "masked after the softmax",
            "The future is zero, but the rows no longer sum to 1. Take the future out "
            "of the scores, then the softmax.",
            lambda scores: scores.softmax(dim=-1).tril(),
        ),
        Misconception(
            "score of zero for the future",
            "A score of 0 is not nothing: its exponential is 1. Which score has an "
            "exponential of 0?",
            lambda scores: scores.tril().softmax(dim=-1),
        ),
        Misconception(
            "the past masked",
            "Rows are those who look, columns those who are looked at. Here each "
            "position sees what comes after it.",
            lambda scores: scores.masked_fill(_future(scores).T, -torch.inf).softmax(
                dim=-1
            ),
        ),
        Misconception(
            "a position may not see itself",
            "A position may look at itself: it knows its own token. The first one has "
            "nothing else to look at.",
            _strict,
        ),
        Misconception(
            "softmax over the wrong axis",
            "Here each column sums to 1. A position shares out its own attention: "
            "each row sums to 1.",
            lambda scores: scores.masked_fill(_future(scores), -torch.inf).softmax(
                dim=0
            ),
        ),
    ),
)


def _head(
    x: Float[Tensor, "pos d_model"],
    W_Q: Float[Tensor, "d_model d_head"],
    W_K: Float[Tensor, "d_model d_head"],
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
) -> Float[Tensor, "pos d_model"]:
    q, k, v = x @ W_Q, x @ W_K, x @ W_V
    return _pattern(q @ k.T / q.shape[1] ** 0.5) @ v @ W_O


def _head_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    cases = []
    for pos, wide, narrow in ((5, 8, 3), (3, 6, 4), (6, 5, 5)):
        read = [_draw(rng, wide, narrow) / wide**0.25 for _ in range(3)]
        cases.append((_draw(rng, pos, wide), *read, _draw(rng, narrow, wide)))
    return cases


one_head = Exercise(
    number="0.4",
    title="One head of one layer",
    solution=_head,
    cases=_head_cases,
    misconceptions=(
        Misconception(
            "mask forgotten",
            "A position must not look at those after it: in a text that is being "
            "written they are not there yet.",
            lambda x, W_Q, W_K, W_V, W_O: (
                (x @ W_Q @ (x @ W_K).T / W_Q.shape[1] ** 0.5).softmax(-1)
                @ x
                @ W_V
                @ W_O
            ),
        ),
        Misconception(
            "scores not divided by the root of d_head",
            "The wider a head, the larger its products. Divide the scores by the root "
            "of d_head before the softmax.",
            lambda x, W_Q, W_K, W_V, W_O: _head(
                x, W_Q * W_Q.shape[1] ** 0.5, W_K, W_V, W_O
            ),
        ),
        Misconception(
            "divided by the root of d_model",
            "It is the width of the head that counts, d_head: so many products are "
            "added up in a score.",
            lambda x, W_Q, W_K, W_V, W_O: _head(
                x, W_Q * (W_Q.shape[1] / len(W_Q)) ** 0.5, W_K, W_V, W_O
            ),
        ),
        Misconception(
            "query and key swapped",
            "Who looks has the query. Rows of the scores are queries, columns "
            "are keys.",
            lambda x, W_Q, W_K, W_V, W_O: _head(x, W_K, W_Q, W_V, W_O),
        ),
        Misconception(
            "W_O forgotten",
            "This is what the head has gathered. It has d_head numbers and has not "
            "been written into the stream yet.",
            lambda x, W_Q, W_K, W_V, W_O: (
                _pattern(x @ W_Q @ (x @ W_K).T / W_Q.shape[1] ** 0.5) @ x @ W_V
            ),
        ),
        Misconception(
            "the stream itself added",
            "The head's own contribution was asked for. It is added to the stream "
            "later, beside those of other heads.",
            lambda x, W_Q, W_K, W_V, W_O: x + _head(x, W_Q, W_K, W_V, W_O),
        ),
        Misconception(
            "keys handed over instead of values",
            "Keys are for being found. What is handed over are the values.",
            lambda x, W_Q, W_K, W_V, W_O: _head(x, W_Q, W_K, W_K, W_O),
        ),
        Misconception(
            "pattern transposed",
            "Each row of the pattern belongs to the position that looks, and mixes "
            "the values of the sources.",
            lambda x, W_Q, W_K, W_V, W_O: (
                _pattern(x @ W_Q @ (x @ W_K).T / W_Q.shape[1] ** 0.5).T @ x @ W_V @ W_O
            ),
        ),
    ),
)


def _needed(looks: Bool[Tensor, "layer dest src"]) -> Bool[Tensor, "place pos"]:
    places = [torch.arange(looks.shape[1]) == looks.shape[1] - 1]
    for layer in range(len(looks) - 1, -1, -1):
        sources = (looks[layer] & places[0][:, None]).any(dim=0)
        places.insert(0, places[0] | sources)
    return torch.stack(places)


def _forgetful(looks: Tensor) -> Tensor:
    """As if a position that does not look at itself lost what it had."""
    places = [torch.arange(looks.shape[1]) == looks.shape[1] - 1]
    for layer in range(len(looks) - 1, -1, -1):
        places.insert(0, (looks[layer] & places[0][:, None]).any(dim=0))
    return torch.stack(places)


def _one_step(looks: Tensor) -> Tensor:
    """As if only what the last position itself looks at counted."""
    places = torch.zeros(len(looks) + 1, looks.shape[1], dtype=torch.bool)
    places[:, -1] = True
    for layer in range(len(looks)):
        places[layer] |= looks[layer:, -1].any(dim=0)
    return places


def _looks_cases(seed: int) -> list[tuple]:
    """A chain of two looks that has to be followed backwards, then random
    ones, sparse and denser."""
    rng = seeded(seed)
    chain = torch.zeros(3, 6, 6, dtype=torch.bool)
    chain[1, 3, 1] = chain[2, 5, 3] = chain[0, 5, 4] = chain[0, 4, 2] = chain[
        2, 2, 0
    ] = True
    cases = [(chain,)]
    for layers, pos, share in ((3, 7, 0.15), (4, 6, 0.2), (2, 5, 0.3)):
        cases.append(
            (torch.rand(layers, pos, pos, generator=rng).tril(-1) > 1 - share,)
        )
    return cases


needed_at_the_end = Exercise(
    number="0.5",
    title="What the end needs",
    solution=_needed,
    cases=_looks_cases,
    misconceptions=(
        Misconception(
            "residual stream forgotten",
            "A position keeps what it has, whether it looks at itself or not: the "
            "layer adds to the stream.",
            _forgetful,
        ),
        Misconception(
            "one look only",
            "What the end looks at may have looked elsewhere in an earlier layer. "
            "Follow every source further back.",
            _one_step,
        ),
        Misconception(
            "layers in the wrong order",
            "Start at the end of the model, with the last layer, and walk back to "
            "the first.",
            lambda looks: _needed(looks.flip(0)),
        ),
        Misconception(
            "source and destination swapped",
            "Rows look, columns are looked at: from a needed row go to its columns.",
            lambda looks: _needed(looks.transpose(1, 2)),
        ),
        Misconception(
            "one place too few",
            "A model of three layers has four places: before each layer, and "
            "after the last.",
            lambda looks: _needed(looks)[1:],
        ),
        Misconception(
            "places in the order of the walk",
            "The first row is the place before the first layer, the last row the "
            "place after the last one.",
            lambda looks: _needed(looks).flip(0),
        ),
    ),
)
