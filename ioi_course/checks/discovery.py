"""The checks of chapter 16: one edge by its slope, a softmax made anew, two numbers for
a curve, and three experiments; two of these are in `rigged`."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import normal
from ioi_course.checks.rigged import hidden_pair, looks_right

__all__ = [
    "edge_score",
    "softmax_anew",
    "cpr_and_cmd",
    "looks_right",
    "hidden_pair",
    "same_best",
]


# --- 16.1 ---


def _edge_score(
    clean: Float[Tensor, "batch pos d"],
    corrupted: Float[Tensor, "batch pos d"],
    slope: Float[Tensor, "batch pos d"],
) -> Float[Tensor, "batch"]:
    return ((clean - corrupted) * slope).sum(dim=(1, 2))


def _edge_score_cases(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(normal(generator, *shape) for _ in range(3))
        for shape in ((4, 6, 8), (1, 5, 3), (3, 9, 4))
    ]


edge_score = Exercise(
    number="16.1",
    title="One edge by its slope",
    solution=_edge_score,
    cases=_edge_score_cases,
    misconceptions=(
        Misconception(
            "what is changed",
            "This is what corrupting the edge would change in the metric. A score is "
            "what is lost: the other sign.",
            lambda clean, corrupted, slope: -_edge_score(clean, corrupted, slope),
        ),
        Misconception(
            "mean over positions",
            "You took the mean over positions. The receiver reads all of them, so "
            "what they change adds up.",
            lambda clean, corrupted, slope: (
                ((clean - corrupted) * slope).sum(dim=2).mean(dim=1)
            ),
        ),
        Misconception(
            "the last position only",
            "You took the last position. An edge may act anywhere, at S2 for example.",
            lambda clean, corrupted, slope: ((clean - corrupted) * slope)[:, -1].sum(
                dim=1
            ),
        ),
        Misconception(
            "size of each product",
            "You added up sizes. Where the change pushes one number up and another "
            "down, the two cancel.",
            lambda clean, corrupted, slope: (
                ((clean - corrupted) * slope).abs().sum(dim=(1, 2))
            ),
        ),
        Misconception(
            "what is written, not what is changed",
            "You multiplied what the sender writes. Patching puts one output in the "
            "place of another: take the difference.",
            lambda clean, corrupted, slope: (clean * slope).sum(dim=(1, 2)),
        ),
        Misconception(
            "all prompts together",
            "One number came back for all prompts. Asked for is one per prompt.",
            lambda clean, corrupted, slope: ((clean - corrupted) * slope).sum(),
        ),
    ),
)


# --- 16.2 ---


def _softmax_anew(
    scores: Float[Tensor, "batch query key"],
    new: Float[Tensor, "batch query key"],
    slope: Float[Tensor, "batch query key"],
) -> Float[Tensor, "batch"]:
    return ((scores.softmax(dim=-1) - new.softmax(dim=-1)) * slope).sum(dim=(1, 2))


def _straight(scores: Tensor, new: Tensor, slope: Tensor) -> Tensor:
    """By the softmax's own slope."""
    pattern = scores.softmax(dim=-1)
    back = pattern * (slope - (pattern * slope).sum(dim=-1, keepdim=True))
    return ((scores - new).nan_to_num() * back).sum(dim=(1, 2))


def _softmax_cases(seed: int) -> list[tuple]:
    generator, cases = torch.Generator().manual_seed(seed), []
    for batch, n in ((3, 6), (1, 4), (5, 5)):
        future = torch.ones(n, n).triu(1).bool()
        scores, change, slope = (normal(generator, batch, n, n) for _ in range(3))
        scores = (4 * scores).masked_fill(future, -torch.inf)
        cases.append((scores, scores + 5 * change, slope))
    return cases


softmax_anew = Exercise(
    number="16.2",
    title="The softmax, made anew",
    solution=_softmax_anew,
    cases=_softmax_cases,
    misconceptions=(
        Misconception(
            "the softmax's slope",
            "You went through the softmax by its slope, which is what fails where "
            "attention is saturated. Compute the new pattern.",
            _straight,
        ),
        Misconception(
            "scores instead of patterns",
            "You multiplied the change of the scores. The slope is that of the metric "
            "at the pattern, after the softmax.",
            lambda scores, new, slope: ((scores - new).nan_to_num() * slope).sum(
                dim=(1, 2)
            ),
        ),
        Misconception(
            "what is changed",
            "This is what the metric changes by. A score is what is lost: the "
            "other sign.",
            lambda scores, new, slope: -_softmax_anew(scores, new, slope),
        ),
        Misconception(
            "softmax over queries",
            "Your softmax runs over the queries. Each query divides its attention "
            "among the keys, the last axis.",
            lambda scores, new, slope: (
                (scores.softmax(1) - new.softmax(1)).nan_to_num() * slope
            ).sum(dim=(1, 2)),
        ),
        Misconception(
            "the last query only",
            "You took the last query. A head may act at any position.",
            lambda scores, new, slope: ((scores.softmax(-1) - new.softmax(-1)) * slope)[
                :, -1
            ].sum(dim=1),
        ),
        Misconception(
            "the new pattern alone",
            "You multiplied the new pattern. What counts is how it differs from "
            "the old one.",
            lambda scores, new, slope: -(new.softmax(dim=-1) * slope).sum(dim=(1, 2)),
        ),
    ),
)


# --- 16.3 ---


def _area(x: Sequence[float], y: Tensor) -> Tensor:
    return torch.trapezoid(y, torch.tensor(x, dtype=y.dtype))


def _f(runs: Tensor, full: Tensor, empty: Tensor) -> Tensor:
    return (runs.mean(dim=1) - empty.mean()) / (full.mean() - empty.mean())


def _cpr_and_cmd(
    shares: Sequence[float],
    runs: Float[Tensor, "size batch"],
    full: Float[Tensor, "batch"],
    empty: Float[Tensor, "batch"],
) -> tuple[float, float]:
    f = _f(runs, full, empty)
    return _area(shares, f).item(), _area(shares, (1 - f).abs()).item()


def _both(
    make_f: Callable,
    x: Callable = lambda shares: shares,
    away: Callable = lambda f: (1 - f).abs(),
) -> Callable:
    def answer(shares, runs, full, empty):
        f = make_f(runs, full, empty)
        return _area(x(shares), f).item(), _area(x(shares), away(f)).item()

    return answer


def _steps(shares, runs, full, empty):
    f, width = _f(runs, full, empty), torch.tensor(shares, dtype=torch.float64).diff()
    return (f[1:] * width).sum().item(), ((1 - f).abs()[1:] * width).sum().item()


def _curve_cases(seed: int) -> list[tuple]:
    generator, cases = torch.Generator().manual_seed(seed), []
    for shares in (
        (0.001, 0.01, 0.1, 0.5, 1.0),
        (0.01, 0.1, 1.0),
        (0.001, 0.002, 0.005, 0.02, 0.2, 1.0),
    ):
        empty, full = normal(generator, 4) - 1, 3 + normal(generator, 4)
        weights = torch.linspace(0.1, 1, len(shares), dtype=torch.float64)[:, None]
        runs = (
            empty + (full - empty) * weights + 0.3 * normal(generator, len(shares), 4)
        )
        runs[-2] += 0.7 * (full - empty)  # above the whole model, over the widest step
        cases.append((list(shares), torch.cat([runs[:-1], full[None]]), full, empty))
    return cases


cpr_and_cmd = Exercise(
    number="16.3",
    title="Two numbers for a curve",
    solution=_cpr_and_cmd,
    cases=_curve_cases,
    misconceptions=(
        Misconception(
            "logarithmic axis",
            "Your axis is the logarithm of the share. The curve is drawn like that; "
            "the two areas are over the share itself.",
            _both(_f, lambda shares: torch.tensor(shares).double().log().tolist()),
        ),
        Misconception(
            "the corrupted run forgotten",
            "You divided by the whole model. f is 0 for the corrupted run: take its "
            "mean from both.",
            _both(lambda runs, full, empty: runs.mean(dim=1) / full.mean()),
        ),
        Misconception(
            "CMD with its sign",
            "Where f is above 1 your distance is negative, and cancels with what is "
            "below. Take its size at each share.",
            _both(_f, away=lambda f: 1 - f),
        ),
        Misconception(
            "size after the area",
            "You took the size of the area. Above and below 1 cancel before that: "
            "take the size at each share.",
            lambda shares, runs, full, empty: (
                _cpr_and_cmd(shares, runs, full, empty)[0],
                _area(shares, 1 - _f(runs, full, empty)).abs().item(),
            ),
        ),
        Misconception(
            "steps instead of trapezoids",
            "You took each value over the whole width to its left. The rule is that "
            "of trapezoids: the mean of both ends.",
            _steps,
        ),
        Misconception(
            "ratios before the mean",
            "You divided prompt by prompt and averaged the ratios. f is a ratio of "
            "means: one prompt whose two runs hardly differ would outweigh all others.",
            _both(
                lambda runs, full, empty: ((runs - empty) / (full - empty)).mean(dim=1)
            ),
        ),
    ),
)


# --- 16.6 ---


def _best_of(values: Float[Tensor, "edge"], n: int) -> set[int]:
    return set(values.argsort(descending=True)[:n].tolist())


def _overlap(
    per_prompt: Tensor, n: int, rank: Callable = lambda half: half.mean(dim=0).abs()
) -> tuple[set, set]:
    return tuple(
        _best_of(rank(half), n) for half in (per_prompt[::2], per_prompt[1::2])
    )


def _same_best(per_prompt: Float[Tensor, "batch edge"], n: int) -> float:
    one, other = _overlap(per_prompt, n)
    return len(one & other) / n


def _share_of(rank: Callable) -> Callable:
    def answer(per_prompt, n):
        one, other = _overlap(per_prompt, n, rank)
        return len(one & other) / n

    return answer


def _jaccard(per_prompt, n):
    one, other = _overlap(per_prompt, n)
    return len(one & other) / len(one | other)


def _half_and_all(per_prompt, n):
    one = _best_of(per_prompt[::2].mean(dim=0).abs(), n)
    other = _best_of(per_prompt.mean(dim=0).abs(), n)
    return len(one & other) / n


def _by_place(per_prompt, n):
    one, other = (
        half.mean(dim=0).abs().argsort(descending=True)[:n]
        for half in (per_prompt[::2], per_prompt[1::2])
    )
    return (one == other).double().mean().item()


def _ranking_cases(seed: int) -> list[tuple]:
    """Drawn until every misconception comes to another number."""
    generator, cases = torch.Generator().manual_seed(seed), []
    wrong = (
        _share_of(lambda half: half.mean(dim=0)),
        _share_of(lambda half: half.abs().mean(dim=0)),
        _jaccard,
        _half_and_all,
        _by_place,
    )
    while len(cases) < 4:
        batch, edges, n = ((8, 40, 10), (6, 30, 6), (12, 50, 12), (10, 25, 8))[
            len(cases)
        ]
        case = 0.5 * normal(generator, edges) + normal(generator, batch, edges), n
        if all(abs(one(*case) - _same_best(*case)) > 1e-3 for one in wrong):
            cases.append(case)
    return cases


same_best = Exercise(
    number="16.6",
    title="Would other prompts have found the same?",
    solution=_same_best,
    cases=_ranking_cases,
    misconceptions=(
        Misconception(
            "signed",
            "You ranked by the score with its sign. Best are the scores that are "
            "largest in size, also negative ones.",
            _share_of(lambda half: half.mean(dim=0)),
        ),
        Misconception(
            "size before the mean",
            "You took sizes prompt by prompt and then their mean. Noise has size, "
            "too, and does not cancel any more.",
            _share_of(lambda half: half.abs().mean(dim=0)),
        ),
        Misconception(
            "share of the union",
            "You divided by the size of the union (Jaccard). Asked for is the share "
            "of the n that both have.",
            _jaccard,
        ),
        Misconception(
            "a half against all",
            "You compared half of the prompts with all of them, and so partly with "
            "themselves. Compare two halves.",
            _half_and_all,
        ),
        Misconception(
            "place by place",
            "You compared the lists place by place. It counts whether an edge is "
            "among the n, not at which place.",
            _by_place,
        ),
    ),
)
