"""Checks of chapter 9, name movers; those of what they copy are in `copying`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.copying import copy_score, eigenvalue_score
from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import normal, seeded

__all__ = [
    "along_names",
    "name_correlation",
    "copy_score",
    "probs_without",
    "break_even",
    "eigenvalue_score",
]


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _centred(x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    return x - x.mean(dim=-1, keepdim=True)


def _two_tokens(
    generator: torch.Generator, batch: int, vocab: int
) -> Int[Tensor, "batch 2"]:
    return torch.stack(
        [torch.randperm(vocab, generator=generator)[:2] for _ in range(batch)]
    )


# --- 9.1 ---


def _pick(
    x: Float[Tensor, "batch d_model"], tokens: Int[Tensor, "batch 2"], W_U: Tensor
) -> Float[Tensor, "batch 2"]:
    return (x @ W_U).gather(1, tokens)


def _along_names(
    wrote: Float[Tensor, "batch d_model"],
    tokens: Int[Tensor, "batch 2"],
    W_U: Float[Tensor, "d_model vocab"],
    scale: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch 2"]:
    return _pick(_centred(wrote) / scale, tokens, W_U)


def _along_names_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    return [
        (
            2 * normal(generator, batch, 12) + shift,
            _two_tokens(generator, batch, 20),
            normal(generator, 12, 20) + 0.4,
            0.4 + 2 * _uniform(generator, batch, 1),
        )
        for batch, shift in ((4, 1.0), (1, -1.5), (6, 0.8), (3, -0.6))
    ]


along_names = Exercise(
    number="9.1",
    title="Along a name",
    solution=_along_names,
    cases=_along_names_cases,
    misconceptions=(
        Misconception(
            "final LayerNorm forgotten",
            "Between the stream and the unembedding stands the final LayerNorm, which "
            "centres and divides.",
            lambda wrote, tokens, W_U, scale: _pick(wrote, tokens, W_U),
        ),
        Misconception(
            "mean not subtracted",
            "The division is right. LayerNorm also subtracts something from what "
            "it is given.",
            lambda wrote, tokens, W_U, scale: _pick(wrote / scale, tokens, W_U),
        ),
        Misconception(
            "scale not divided by",
            "The mean is subtracted, but the scale that was handed over is not used.",
            lambda wrote, tokens, W_U, scale: _pick(_centred(wrote), tokens, W_U),
        ),
        Misconception(
            "scale not held",
            "This divides what the head wrote by its own size. The scale is that of "
            "the whole stream, and it is given.",
            lambda wrote, tokens, W_U, scale: _pick(
                torch.nn.functional.layer_norm(wrote, wrote.shape[-1:]), tokens, W_U
            ),
        ),
        Misconception(
            "difference of the names",
            "That is the contribution to the logit difference. Here each name has a "
            "number of its own.",
            lambda wrote, tokens, W_U, scale: (
                -_along_names(wrote, tokens, W_U, scale).diff(dim=1)[:, 0]
            ),
        ),
        Misconception(
            "S taken for IO",
            "The two columns are exchanged: the first of `tokens` is IO, and the "
            "result has the same order.",
            lambda wrote, tokens, W_U, scale: _along_names(
                wrote, tokens.flip(1), W_U, scale
            ),
        ),
        Misconception(
            "softmax applied",
            "These are probabilities. A single head writes a part of the logits; a "
            "softmax of a part means nothing.",
            lambda wrote, tokens, W_U, scale: (
                (_centred(wrote) / scale @ W_U).softmax(dim=-1).gather(1, tokens)
            ),
        ),
    ),
)


# --- 9.2 ---


def _rho(x: Tensor, y: Tensor) -> float:
    x, y = x.flatten() - x.mean(), y.flatten() - y.mean()
    return ((x * y).sum() / (x.pow(2).sum() * y.pow(2).sum()).sqrt()).item()


def _name_correlation(
    attention: Float[Tensor, "batch 2"], projection: Float[Tensor, "batch 2"]
) -> float:
    return _rho(attention, projection)


def _name_correlation_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    cases = []
    for batch, slope, noise in (
        (20, 5.0, 0.5),
        (7, -3.0, 0.4),
        (30, 2.0, 1.0),
        (12, -0.5, 0.5),
    ):
        attention = torch.tensor([0.4, 0.0]) + _uniform(
            generator, batch, 2
        ) * torch.tensor([0.5, 0.3])
        cases.append(
            (attention, slope * attention + noise * normal(generator, batch, 2))
        )
    return cases


def _covariance(attention: Tensor, projection: Tensor) -> float:
    return (
        ((attention - attention.mean()) * (projection - projection.mean()))
        .mean()
        .item()
    )


name_correlation = Exercise(
    number="9.2",
    title="Both names in one cloud",
    solution=_name_correlation,
    cases=_name_correlation_cases,
    misconceptions=(
        Misconception(
            "IO alone",
            "This is the correlation over the first column. The points of S belong to "
            "the same cloud.",
            lambda attention, projection: _rho(attention[:, 0], projection[:, 0]),
        ),
        Misconception(
            "S alone",
            "This is the correlation over the second column. The points of IO belong "
            "to the same cloud.",
            lambda attention, projection: _rho(attention[:, 1], projection[:, 1]),
        ),
        Misconception(
            "each name on its own",
            "This is a mean of two correlations. What lies between the two names, that "
            "one is looked at and written more than the other, is lost. Put the points "
            "together first.",
            lambda attention, projection: (
                sum(_rho(attention[:, i], projection[:, i]) for i in (0, 1)) / 2
            ),
        ),
        Misconception(
            "mean over the wrong axis",
            "IO and S of a prompt have been added or averaged before the correlation: "
            "each is a point of its own.",
            lambda attention, projection: _rho(
                attention.mean(dim=1), projection.mean(dim=1)
            ),
        ),
        Misconception(
            "covariance, not correlation",
            "This depends on the unit. Divide by the spread of both.",
            _covariance,
        ),
        Misconception(
            "slope, not correlation",
            "This is logits per attention: how much, not how reliably. Divide by the "
            "spread of both, not of one.",
            lambda attention, projection: (
                _covariance(attention, projection) / attention.var(correction=0).item()
            ),
        ),
        Misconception(
            "squared",
            "The sign is gone: a negative name mover must come out below zero.",
            lambda attention, projection: _rho(attention, projection) ** 2,
        ),
        Misconception(
            "means not subtracted",
            "This is a cosine. A correlation is one of deviations from the mean.",
            lambda attention, projection: torch.cosine_similarity(
                attention.flatten(), projection.flatten(), 0
            ).item(),
        ),
    ),
)


# --- 9.4 ---


def _contribution(
    wrote: Tensor, W_U: Tensor, scale: Tensor
) -> Float[Tensor, "batch vocab"]:
    return _centred(wrote) / scale @ W_U


def _probs(
    logits: Float[Tensor, "batch vocab"], tokens: Int[Tensor, "batch 2"]
) -> Float[Tensor, "batch 2"]:
    return logits.softmax(dim=-1).gather(1, tokens)


def _probs_without(
    logits: Float[Tensor, "batch vocab"],
    wrote: Float[Tensor, "batch d_model"],
    W_U: Float[Tensor, "d_model vocab"],
    scale: Float[Tensor, "batch 1"],
    tokens: Int[Tensor, "batch 2"],
) -> Float[Tensor, "batch 2"]:
    return _probs(logits - _contribution(wrote, W_U, scale), tokens)


def _only_the_two(logits, wrote, W_U, scale, tokens) -> Float[Tensor, "batch 2"]:
    """As if the head had written on two tokens and on no other."""
    two = _contribution(wrote, W_U, scale).gather(1, tokens)
    return _probs(logits.scatter_add(1, tokens, -two), tokens)


def _probs_without_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    return [
        (
            2 * normal(generator, batch, 15),
            0.7 * normal(generator, batch, 10) + shift,
            normal(generator, 10, 15) + 0.2 * normal(generator, 15),
            0.7 + _uniform(generator, batch, 1),
            _two_tokens(generator, batch, 15),
        )
        for batch, shift in ((4, 0.5), (1, -0.7), (6, 0.4), (3, -0.5))
    ]


probs_without = Exercise(
    number="9.4",
    title="Without a word",
    solution=_probs_without,
    cases=_probs_without_cases,
    misconceptions=(
        Misconception(
            "softmax before the difference",
            "A softmax was taken of the head's contribution, and one probability "
            "subtracted from another. Contributions add up in logits: subtract there, "
            "then one softmax.",
            lambda logits, wrote, W_U, scale, tokens: (
                _probs(logits, tokens)
                - _probs(_contribution(wrote, W_U, scale), tokens)
            ),
        ),
        Misconception(
            "contribution added",
            "The logits contain what the head wrote already. Without it there is "
            "less, not twice as much.",
            lambda logits, wrote, W_U, scale, tokens: _probs(
                logits + _contribution(wrote, W_U, scale), tokens
            ),
        ),
        Misconception(
            "other tokens left as they were",
            "Only the two names' logits have been changed. The head wrote on every "
            "token, and the softmax sums over all of them.",
            _only_the_two,
        ),
        Misconception(
            "softmax over the two names",
            "These two probabilities add up to 1. The other tokens take their "
            "share, too.",
            lambda logits, wrote, W_U, scale, tokens: (
                (logits - _contribution(wrote, W_U, scale))
                .gather(1, tokens)
                .softmax(dim=-1)
            ),
        ),
        Misconception(
            "final LayerNorm forgotten",
            "What the head wrote passes the final LayerNorm, which centres "
            "and divides.",
            lambda logits, wrote, W_U, scale, tokens: _probs(
                logits - wrote @ W_U, tokens
            ),
        ),
        Misconception(
            "mean not subtracted",
            "The division is right. LayerNorm also subtracts something from what "
            "it is given.",
            lambda logits, wrote, W_U, scale, tokens: _probs(
                logits - wrote / scale @ W_U, tokens
            ),
        ),
        Misconception(
            "nothing taken away",
            "These are the probabilities with the head.",
            lambda logits, wrote, W_U, scale, tokens: _probs(logits, tokens),
        ),
    ),
)


# --- 9.5 ---


def _crossing(cost: Tensor, saved: Tensor) -> float:
    return (cost / (cost + saved)).item()


def _break_even(
    with_heads: Float[Tensor, "batch 2"], without: Float[Tensor, "batch 2"]
) -> float:
    gain = (with_heads.log() - without.log()).mean(dim=0)
    return _crossing(-gain[0], gain[1])


def _mean_crossing(
    with_heads: Float[Tensor, "batch 2"], without: Float[Tensor, "batch 2"]
) -> float:
    pairs = zip(with_heads.split(1), without.split(1), strict=True)
    return sum(_break_even(*pair) for pair in pairs) / len(without)


def _break_even_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    cases = []
    for batch in (6, 1, 20, 9):
        io = 0.5 + 0.45 * _uniform(generator, batch)
        without = torch.stack(
            [io, (1 - io) * (0.05 + 0.2 * _uniform(generator, batch))], dim=1
        )
        less = 0.3 + 0.6 * _uniform(generator, batch)
        more = 1.2 + 3 * _uniform(generator, batch)
        cases.append((without * torch.stack([less, more], dim=1), without))
    return cases


break_even = Exercise(
    number="9.5",
    title="When does hedging pay?",
    solution=_break_even,
    cases=_break_even_cases,
    misconceptions=(
        Misconception(
            "probability for loss",
            "The loss is −log p. Differences of probabilities say little where p is "
            "near 0, and that is where it costs.",
            lambda with_heads, without: _crossing(
                *((with_heads - without).mean(dim=0) * torch.tensor([-1, 1]))
            ),
        ),
        Misconception(
            "logarithm of the mean",
            "First the logarithm of each prompt, then the mean: the mean loss is not "
            "the loss of a mean probability.",
            lambda with_heads, without: _crossing(
                *(
                    (with_heads.mean(dim=0).log() - without.mean(dim=0).log())
                    * torch.tensor([-1, 1])
                )
            ),
        ),
        Misconception(
            "share of IO",
            "This is the share of IO at which the lines cross. What was asked is "
            "that of S.",
            lambda with_heads, without: 1 - _break_even(with_heads, without),
        ),
        Misconception(
            "odds for a share",
            "Cost by saving is how many times S per IO. A share is of both together.",
            lambda with_heads, without: (lambda q: q / (1 - q))(
                _break_even(with_heads, without)
            ),
        ),
        Misconception(
            "losses with the heads only",
            "Here the two losses with the heads are compared with each other. Compare "
            "with and without, for each name.",
            lambda with_heads, without: _crossing(*-with_heads.log().mean(dim=0)),
        ),
        Misconception(
            "mean of ratios",
            "A crossing was computed for each prompt and then averaged. The mean loss "
            "is what is to be lowered: average the losses first.",
            _mean_crossing,
        ),
    ),
)
