"""Checks of chapter 13, adversarial prompts; that of the reader's control is in
`controls`."""

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.adversarial import distract, extra_position
from ioi_course.checks.controls import control_for
from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.prompts import IOIDataset

__all__ = [
    "turning",
    "prompts_to_see",
    "control_for",
    "auc_from_pairs",
    "expect_afresh",
]

# --- 13.1 ---


def _turning(
    pattern: Float[Tensor, "batch head dest src"],
    data: IOIDataset,
    extra: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    return _look(pattern, data, data.pos["END"], extra) - _look(
        pattern, data, data.pos["END"], data.pos["S2"]
    )


def _look(pattern: Tensor, data: IOIDataset, dest, src) -> Float[Tensor, "batch"]:
    """The attention from one position to another, the mean over heads."""
    return pattern[torch.arange(len(data)), :, dest, src].mean(dim=1)


def _turning_cases(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for i, (n, heads, who, where) in enumerate(
        (
            (5, 3, "IO", "between"),
            (3, 2, "S", "before"),
            (1, 4, "IO", "last"),
            (4, 2, "other", "between"),
        )
    ):
        data = distract(random_data(random_model(), n, seed + i), who, where)
        if n == 1:  # padding behind the only prompt
            data.tokens = torch.cat([data.tokens, data.tokens[:, :2]], dim=1)
        length = data.tokens.shape[1]
        scores = torch.randn(
            n, heads, length, length, generator=generator, dtype=torch.float64
        )
        cases.append((scores.softmax(dim=-1), data, extra_position(data)))
    return cases


def _from(dest) -> Callable:
    """The answer with another destination than END; `dest` is a
    function of the data."""

    def answer(pattern, data, extra):
        return _look(pattern, data, dest(data), extra) - _look(
            pattern, data, dest(data), data.pos["S2"]
        )

    return answer


def _to(first, second) -> Callable:
    """The answer with other sources than the distractor's name and S2."""

    def answer(pattern, data, extra):
        end = data.pos["END"]
        return _look(pattern, data, end, first(data, extra)) - _look(
            pattern, data, end, second(data, extra)
        )

    return answer


turning = Exercise(
    number="13.1",
    title="From S2 to the distractor",
    solution=_turning,
    cases=_turning_cases,
    misconceptions=(
        Misconception(
            "S1 taken for S2",
            "The attention to S1 is taken off. S2 is the subject of the last clause.",
            _to(lambda data, extra: extra, lambda data, extra: data.pos["S1"]),
        ),
        Misconception(
            "IO taken for the distractor's name",
            "This is the mention of IO in the first clause. The name in the "
            "distractor stands at `extra`.",
            _to(lambda data, extra: data.pos["IO"], lambda data, extra: data.pos["S2"]),
        ),
        Misconception(
            "source and destination exchanged",
            "This is what END gets, from later positions. The pattern is [batch, head, "
            "destination, source], and END is the destination.",
            lambda pattern, data, extra: _turning(
                pattern.transpose(-1, -2), data, extra
            ),
        ),
        Misconception(
            "padding taken for END",
            "The last row is padding in all but the longest prompts. END is in "
            "`data.pos`.",
            _from(lambda data: -1),
        ),
        Misconception(
            "END off by one",
            "This is the row before END. Positions in `data.pos` count from 0 and "
            "count BOS: take nothing off.",
            _from(lambda data: data.pos["END"] - 1),
        ),
        Misconception(
            "sum over heads",
            "The heads are added up. Take their mean, or the number grows with how "
            "many there are.",
            lambda pattern, data, extra: (
                _turning(pattern, data, extra) * pattern.shape[1]
            ),
        ),
        Misconception(
            "sign reversed",
            "This is S2 less the distractor. The number should rise when heads turn "
            "to the distractor.",
            lambda pattern, data, extra: -_turning(pattern, data, extra),
        ),
        Misconception(
            "mean over prompts",
            "One number for each prompt was asked for.",
            lambda pattern, data, extra: _turning(pattern, data, extra).mean(),
        ),
    ),
)


# --- 13.2 ---


def _prompts_to_see(rate: float, chance: float = 0.95) -> int:
    """Reckoned with the decimals that are written: in binary 1 - 0.9 ** 2 is less than
    0.19, and so would take one more."""
    unseen, wanted = 1 - Fraction(str(rate)), 1 - Fraction(str(chance))
    n = max(1, math.floor(_exactly(rate, chance)) - 1)
    while unseen**n > wanted:
        n += 1
    return n


def _exactly(rate: float, chance: float) -> float:
    return math.log(1 - chance) / math.log(1 - rate)


def _prompts_to_see_cases(seed: int) -> list[tuple]:
    rates = 0.002 + 0.3 * torch.rand(
        4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    chances = (0.95, 0.9, 0.99, 0.6)
    return [
        (0.013, 0.95),
        (0.7, 0.5),
        (0.25, 0.7),
        *((round(r, 3), c) for r, c in zip(rates.tolist(), chances, strict=True)),
    ]


prompts_to_see = Exercise(
    number="13.2",
    title="How many prompts?",
    solution=_prompts_to_see,
    cases=_prompts_to_see_cases,
    misconceptions=(
        Misconception(
            "one over the rate",
            "After one over the rate you expect one failure on average, but often "
            "enough there is none among so many. How probable is none?",
            lambda rate, chance: math.ceil(1 / rate),
        ),
        Misconception(
            "chances added up",
            "The chances of single prompts do not add up: two prompts can fail at "
            "once. Work with the probability that none does.",
            lambda rate, chance: math.ceil(chance / rate),
        ),
        Misconception(
            "chance of no failure",
            "With so many prompts no failure has the probability `chance`. It should "
            "have the rest.",
            lambda rate, chance: max(
                1, math.ceil(math.log(chance) / math.log(1 - rate))
            ),
        ),
        Misconception(
            "rounded down",
            "One prompt short: round up, or the chance is not reached.",
            lambda rate, chance: _prompts_to_see(rate, chance) - 1,
        ),
        Misconception(
            "success taken for failure",
            "This is how long you wait for a prompt that goes *well*: `rate` is the "
            "share that fails.",
            lambda rate, chance: max(
                1, math.ceil(math.log(1 - chance) / math.log(rate))
            ),
        ),
    ),
)


# --- 13.4 ---


def _auc_from_pairs(
    scores: Float[Tensor, "batch"], failed: Float[Tensor, "batch"]
) -> float:
    return _pairs(scores, failed, 0.5)


def _pairs(scores: Tensor, failed: Tensor, tie: float) -> float:
    """The share of pairs in the right order, with this worth of a tie."""
    bad, good = scores[failed == 1][:, None], scores[failed == 0][None]
    return ((bad > good).double() + tie * (bad == good).double()).mean().item()


def _auc_cases(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for n, wrong in ((12, 4), (9, 6), (20, 3), (6, 1)):
        failed = torch.zeros(n, dtype=torch.float64)
        failed[torch.randperm(n, generator=generator)[:wrong]] = 1
        scores = (
            torch.randint(-3, 4, (n,), generator=generator).double()
            + 0.7 * failed.round()
        )
        scores[:2] = scores[failed == 1][0] if n > 6 else scores[:2]  # ties
        cases.append((scores, failed))
    return cases


def _accuracy_at_zero(scores, failed) -> float:
    return ((scores > 0) == (failed == 1)).double().mean().item()


def _every_pair(scores, failed) -> float:
    """Divided by the number of all pairs, also of one kind."""
    n, bad = len(failed), int(failed.sum())
    return _auc_from_pairs(scores, failed) * bad * (n - bad) / (n * (n - 1) / 2)


auc_from_pairs = Exercise(
    number="13.4",
    title="AUC",
    solution=_auc_from_pairs,
    cases=_auc_cases,
    misconceptions=(
        Misconception(
            "direction reversed",
            "These are the pairs in which the prompt that did *not* fail has the "
            "higher score.",
            lambda scores, failed: 1 - _auc_from_pairs(scores, failed),
        ),
        Misconception(
            "ties count nothing",
            "A pair with equal scores counts half.",
            lambda s, f: _pairs(s, f, 0.0),
        ),
        Misconception(
            "ties count whole",
            "A pair with equal scores counts half, not whole.",
            lambda s, f: _pairs(s, f, 1.0),
        ),
        Misconception(
            "accuracy at zero",
            "This takes a score above 0 as a prediction of failure. The order of "
            "scores was asked for, without a threshold.",
            _accuracy_at_zero,
        ),
        Misconception(
            "divided by all pairs",
            "Divided by the number of all pairs. Only pairs of one prompt that failed "
            "and one that did not are compared.",
            _every_pair,
        ),
        Misconception(
            "correlation",
            "This is the correlation of the scores with failing, from −1 to 1. A "
            "share of pairs was asked for.",
            lambda scores, failed: torch.corrcoef(torch.stack([scores, failed]))[
                0, 1
            ].item(),
        ),
    ),
)


# --- 13.5 ---


def _expect_afresh(scores: Float[Tensor, "cell context"], k: int) -> float:
    return _shrunk(scores, k, _reliability(scores))


def _reliability(scores: Tensor) -> float:
    luck = scores.var(dim=1).mean() / scores.shape[1]
    return max(0.0, 1 - (luck / scores.mean(dim=1).var()).item())


def _shrunk(scores: Tensor, k: int, share: float, largest: bool = False) -> float:
    """The overall mean, plus this share of the distance of the chosen cells from it."""
    means = scores.mean(dim=1)
    chosen = means.sort(descending=largest).values[:k].mean()
    return (means.mean() + share * (chosen - means.mean())).item()


def _expect_cases(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for cells, contexts, real, k in (
        (12, 4, 0.6, 3),
        (8, 3, 1.2, 1),
        (20, 6, 0.4, 5),
        (10, 2, 0.0, 2),
    ):
        level = 4 + real * torch.randn(
            cells, 1, generator=generator, dtype=torch.float64
        )
        noise = torch.randn(cells, contexts, generator=generator, dtype=torch.float64)
        if not real:  # means closer together than luck alone would have them
            noise -= 0.8 * noise.mean(dim=1, keepdim=True)
        cases.append((level + noise, k))
    return cases


def _of_single_scores(scores, k):
    """Luck not divided by the number of contexts."""
    return _shrunk(
        scores,
        k,
        max(0.0, 1 - (scores.var(dim=1).mean() / scores.mean(dim=1).var()).item()),
    )


def _below_zero(scores, k):
    luck = scores.var(dim=1).mean() / scores.shape[1]
    return _shrunk(scores, k, 1 - (luck / scores.mean(dim=1).var()).item())


expect_afresh = Exercise(
    number="13.5",
    title="What will be left of it?",
    solution=_expect_afresh,
    cases=_expect_cases,
    misconceptions=(
        Misconception(
            "no regression",
            "This is the mean that the search measured. A part of it is luck, which "
            "will not come again.",
            lambda scores, k: _shrunk(scores, k, 1.0),
        ),
        Misconception(
            "all the way",
            "This is the overall mean, as if nothing about the picked cells were "
            "real. Some of their distance stays.",
            lambda scores, k: _shrunk(scores, k, 0.0),
        ),
        Misconception(
            "luck of one context",
            "The luck is that of a single score. A mean over m contexts has less of "
            "it: divide by m.",
            _of_single_scores,
        ),
        Misconception(
            "reliability below zero",
            "The reliability came out negative, and the cells were put on the other "
            "side of the mean. It cannot be below 0.",
            _below_zero,
        ),
        Misconception(
            "highest for lowest",
            "These are the cells with the highest means. The lowest were picked.",
            lambda scores, k: _shrunk(scores, k, _reliability(scores), largest=True),
        ),
        Misconception(
            "root of the reliability",
            "The distance is multiplied by the root of the reliability. The root is "
            "the correlation with the truth; what is left of a distance is the "
            "reliability itself.",
            lambda scores, k: _shrunk(scores, k, _reliability(scores) ** 0.5),
        ),
        Misconception(
            "luck for what is real",
            "This keeps the share that is luck, and drops what is real.",
            lambda scores, k: _shrunk(scores, k, 1 - _reliability(scores)),
        ),
    ),
)
