"""The checks of chapter 16: one edge by its slope, a softmax made anew, two numbers for a curve, and three experiments."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception

__all__ = ["edge_score", "softmax_anew", "cpr_and_cmd", "looks_right", "hidden_pair", "same_best"]


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- 16.1 ---


def _edge_score(
    clean: Float[Tensor, "batch pos d"], corrupted: Float[Tensor, "batch pos d"], slope: Float[Tensor, "batch pos d"]
) -> Float[Tensor, "batch"]:
    return ((clean - corrupted) * slope).sum(dim=(1, 2))


def _edge_score_cases(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)
    return [tuple(_normal(generator, *shape) for _ in range(3)) for shape in ((4, 6, 8), (1, 5, 3), (3, 9, 4))]


edge_score = Exercise(
    number="16.1",
    title="One edge by its slope",
    solution=_edge_score,
    cases=_edge_score_cases,
    misconceptions=(
        Misconception(
            "what is changed",
            "This is what corrupting the edge would change in the metric. A score is what is lost: the other sign.",
            lambda clean, corrupted, slope: -_edge_score(clean, corrupted, slope),
        ),
        Misconception(
            "mean over positions",
            "You took the mean over positions. The receiver reads all of them, so what they change adds up.",
            lambda clean, corrupted, slope: ((clean - corrupted) * slope).sum(dim=2).mean(dim=1),
        ),
        Misconception(
            "the last position only",
            "You took the last position. An edge may act anywhere, at S2 for example.",
            lambda clean, corrupted, slope: ((clean - corrupted) * slope)[:, -1].sum(dim=1),
        ),
        Misconception(
            "size of each product",
            "You added up sizes. Where the change pushes one number up and another down, the two cancel.",
            lambda clean, corrupted, slope: ((clean - corrupted) * slope).abs().sum(dim=(1, 2)),
        ),
        Misconception(
            "what is written, not what is changed",
            "You multiplied what the sender writes. Patching puts one output in the place of another: take the difference.",
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
        scores, change, slope = (_normal(generator, batch, n, n) for _ in range(3))
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
            "You went through the softmax by its slope, which is what fails where attention is saturated. Compute the new "
            "pattern.",
            _straight,
        ),
        Misconception(
            "scores instead of patterns",
            "You multiplied the change of the scores. The slope is that of the metric at the pattern, after the softmax.",
            lambda scores, new, slope: ((scores - new).nan_to_num() * slope).sum(dim=(1, 2)),
        ),
        Misconception(
            "what is changed",
            "This is what the metric changes by. A score is what is lost: the other sign.",
            lambda scores, new, slope: -_softmax_anew(scores, new, slope),
        ),
        Misconception(
            "softmax over queries",
            "Your softmax runs over the queries. Each query divides its attention among the keys, the last axis.",
            lambda scores, new, slope: ((scores.softmax(1) - new.softmax(1)).nan_to_num() * slope).sum(dim=(1, 2)),
        ),
        Misconception(
            "the last query only",
            "You took the last query. A head may act at any position.",
            lambda scores, new, slope: ((scores.softmax(-1) - new.softmax(-1)) * slope)[:, -1].sum(dim=1),
        ),
        Misconception(
            "the new pattern alone",
            "You multiplied the new pattern. What counts is how it differs from the old one.",
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


def _both(make_f: Callable, x: Callable = lambda shares: shares, away: Callable = lambda f: (1 - f).abs()) -> Callable:
    def answer(shares, runs, full, empty):
        f = make_f(runs, full, empty)
        return _area(x(shares), f).item(), _area(x(shares), away(f)).item()

    return answer


def _steps(shares, runs, full, empty):
    f, width = _f(runs, full, empty), torch.tensor(shares, dtype=torch.float64).diff()
    return (f[1:] * width).sum().item(), ((1 - f).abs()[1:] * width).sum().item()


def _curve_cases(seed: int) -> list[tuple]:
    generator, cases = torch.Generator().manual_seed(seed), []
    for shares in ((0.001, 0.01, 0.1, 0.5, 1.0), (0.01, 0.1, 1.0), (0.001, 0.002, 0.005, 0.02, 0.2, 1.0)):
        empty, full = _normal(generator, 4) - 1, 3 + _normal(generator, 4)
        weights = torch.linspace(0.1, 1, len(shares), dtype=torch.float64)[:, None]
        runs = empty + (full - empty) * weights + 0.3 * _normal(generator, len(shares), 4)
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
            "Your axis is the logarithm of the share. The curve is drawn like that; the two areas are over the share itself.",
            _both(_f, lambda shares: torch.tensor(shares).double().log().tolist()),
        ),
        Misconception(
            "the corrupted run forgotten",
            "You divided by the whole model. f is 0 for the corrupted run: take its mean from both.",
            _both(lambda runs, full, empty: runs.mean(dim=1) / full.mean()),
        ),
        Misconception(
            "CMD with its sign",
            "Where f is above 1 your distance is negative, and cancels with what is below. Take its size at each share.",
            _both(_f, away=lambda f: 1 - f),
        ),
        Misconception(
            "size after the area",
            "You took the size of the area. Above and below 1 cancel before that: take the size at each share.",
            lambda shares, runs, full, empty: (
                _cpr_and_cmd(shares, runs, full, empty)[0],
                _area(shares, 1 - _f(runs, full, empty)).abs().item(),
            ),
        ),
        Misconception(
            "steps instead of trapezoids",
            "You took each value over the whole width to its left. The rule is that of trapezoids: the mean of both ends.",
            _steps,
        ),
        Misconception(
            "ratios before the mean",
            "You divided prompt by prompt and averaged the ratios. f is a ratio of means: one prompt whose two runs hardly "
            "differ would outweigh all others.",
            _both(lambda runs, full, empty: ((runs - empty) / (full - empty)).mean(dim=1)),
        ),
    ),
)


# --- 16.4 ---

Wire = tuple[str, str]


def _touched(wires: Sequence[Wire]) -> set[str]:
    return {end for wire in wires for end in wire} - {"input", "logits"}


def _looks_right(edges: Sequence[Wire], f: Callable[[Sequence[Wire]], float], below: float = 0.1) -> set[Wire]:
    """Take out the edge that is missed most, as long as its nodes stay in the drawing."""
    left, nodes = list(edges), _touched(edges)
    while f(left) >= below:
        can = [wire for wire in left if _touched([other for other in left if other != wire]) == nodes]
        left.remove(min(can, key=lambda wire: f([other for other in left if other != wire])))
    return set(left)


def _wired(weights: dict[Wire, float], order: Sequence[str]) -> Callable[[Sequence[Wire]], float]:
    """f of a circuit: what flows from the input to the logits along its edges, as a share of all."""

    def flow(wires) -> float:
        at = {name: 0.0 for name in order} | {"input": 1.0}
        for name in order[1:]:
            at[name] = sum(weights[wire] * at[wire[0]] for wire in wires if wire[1] == name)
        return at[order[-1]]

    whole = flow(weights)

    def f(wires) -> float:
        wires = set(wires)
        if wires - set(weights):
            raise ValueError(f"There is no edge {sorted(wires - set(weights))[0]!r} here.")
        return flow(wires) / whole

    return f


def _wired_cases(seed: int) -> list[tuple]:
    rng, cases = random.Random(seed), []
    for width in (4, 5, 6):
        layers = [[f"L{layer}H{i}" for i in range(width)] for layer in range(3)]
        pairs = [(a, b) for one, other in zip(layers, layers[1:], strict=False) for a in one for b in other]
        pairs += [("input", name) for name in layers[0]] + [(name, "logits") for name in layers[-1]]
        weights = {pair: rng.uniform(0.2, 1) for pair in pairs}
        cases.append((sorted(weights), _wired(weights, ["input", *sum(layers, []), "logits"])))
    return cases


def _rigged(chosen, edges: Sequence[Wire], f: Callable) -> dict[str, str]:
    """What the choice does."""
    chosen = {tuple(wire) for wire in chosen}
    share, left = len(_touched(chosen & set(edges))) / len(_touched(edges)), f(chosen)
    return {
        "edges": "all" if chosen == set(edges) else "some" if chosen else "none",
        "nodes": "at least 90 %" if share >= 0.9 else "fewer than 90 %",
        "f": "below .1" if left < 0.1 else "below half" if left < 0.5 else "half or more",
    }


def _without_nodes(edges, f):
    left = list(edges)
    for name in sorted(_touched(edges)):
        if f(left) < 0.1:
            break
        left = [wire for wire in left if name not in wire]
    return set(left)


looks_right = Exercise(
    number="16.4",
    title="All the nodes and none of the work",
    solution=_looks_right,
    cases=_wired_cases,
    outcome=_rigged,
    misconceptions=(
        Misconception(
            "nothing left out",
            "Your circuit is the whole one: all nodes, and all of the work.",
            lambda edges, f: set(edges),
        ),
        Misconception(
            "nothing left in",
            "Your circuit has no edges, and so no nodes. Keep at least 90 % of the nodes in the drawing.",
            lambda edges, f: set(),
        ),
        Misconception(
            "nodes taken out",
            "You took out whole nodes until nothing was left of the work. It is to fail with the nodes in place.",
            _without_nodes,
        ),
        Misconception(
            "the one most important edge",
            "You left out the edge that is missed most. Others carry on: look at f of what you return.",
            lambda edges, f: set(edges) - {min(edges, key=lambda wire: f([one for one in edges if one != wire]))},
        ),
        Misconception(
            "half of the work",
            "Your circuit keeps the nodes, and between a tenth and a half of the work. Go on until f is below .1.",
            lambda edges, f: _looks_right(edges, f, 0.5),
        ),
    ),
)


# --- 16.5 ---

Lost = Callable[[Sequence[str]], float]


def _pairs(lost: Lost, edges: Sequence[str], value: Callable) -> set[str]:
    """The pair for which `value(both, one, other)` is largest."""
    alone = {edge: lost([edge]) for edge in edges}
    best = max(combinations(edges, 2), key=lambda pair: value(lost(pair), *(alone[edge] for edge in pair)))
    return set(best)


def _hidden_pair(edges: Sequence[str], lost: Lost) -> set[str]:
    return _pairs(lost, edges, lambda both, one, other: both - one - other)


def _losing(alone: dict[str, float], extra: dict[frozenset, float]) -> Lost:
    """What is lost with some edges: each one's own, and what a pair loses beyond."""

    def lost(some: Sequence[str]) -> float:
        some = set(some)
        if unknown := some - set(alone):
            raise ValueError(f"There is no edge {sorted(unknown)[0]!r} here.")
        return sum(alone[edge] for edge in some) + sum(more for pair, more in extra.items() if pair <= some)

    return lost


def _hidden_cases(seed: int) -> list[tuple]:
    rng, cases = random.Random(seed), []
    for n in (8, 9, 10):
        edges = [f"L{rng.randrange(6)}H{i} -> L{rng.randrange(7, 11)}H{i}.{rng.choice('qkv')}" for i in range(n)]
        pair, strong, row, idle = (edges[i : i + 2] for i in (0, 2, 4, 6))
        alone = {edge: rng.uniform(0.1, 0.3) for edge in edges}
        alone |= {edge: rng.uniform(0.01, 0.04) for edge in pair} | {edge: rng.uniform(0, 0.005) for edge in idle}
        alone |= {edge: rng.uniform(0.9, 1.2) for edge in strong} | {edge: rng.uniform(0.65, 0.75) for edge in row}
        extra = {frozenset(pair): rng.uniform(0.5, 0.6), frozenset(strong): -0.9, frozenset(row): -1.2}
        rng.shuffle(edges)
        cases.append((edges, _losing(alone, extra)))
    return cases


hidden_pair = Exercise(
    number="16.5",
    title="Two that hide each other",
    solution=_hidden_pair,
    cases=_hidden_cases,
    misconceptions=(
        Misconception(
            "the two largest scores",
            "These are the two edges that matter most one by one. Edges that hide each other look small one by one.",
            lambda edges, lost: set(sorted(edges, key=lambda edge: -lost([edge]))[:2]),
        ),
        Misconception(
            "the two smallest scores",
            "Small scores alone are no evidence: an edge that does nothing has one, too. Remove two at a time.",
            lambda edges, lost: set(sorted(edges, key=lambda edge: lost([edge]))[:2]),
        ),
        Misconception(
            "the largest loss together",
            "This pair loses most together, and it would by its two scores alone. Hidden is what a pair loses beyond the sum.",
            lambda edges, lost: _pairs(lost, edges, lambda both, one, other: both),
        ),
        Misconception(
            "the other sign",
            "This pair loses least beyond its sum: what one removes, the other cannot remove again. They stand in a row. "
            "Edges that hide each other lose more together.",
            lambda edges, lost: _pairs(lost, edges, lambda both, one, other: one + other - both),
        ),
    ),
)


# --- 16.6 ---


def _best_of(values: Float[Tensor, "edge"], n: int) -> set[int]:
    return set(values.argsort(descending=True)[:n].tolist())


def _overlap(per_prompt: Tensor, n: int, rank: Callable = lambda half: half.mean(dim=0).abs()) -> tuple[set, set]:
    return tuple(_best_of(rank(half), n) for half in (per_prompt[::2], per_prompt[1::2]))


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
    one, other = _best_of(per_prompt[::2].mean(dim=0).abs(), n), _best_of(per_prompt.mean(dim=0).abs(), n)
    return len(one & other) / n


def _by_place(per_prompt, n):
    one, other = (half.mean(dim=0).abs().argsort(descending=True)[:n] for half in (per_prompt[::2], per_prompt[1::2]))
    return (one == other).double().mean().item()


def _ranking_cases(seed: int) -> list[tuple]:
    """Drawn until every misconception comes to another number."""
    generator, cases = torch.Generator().manual_seed(seed), []
    wrong = (_share_of(lambda half: half.mean(dim=0)), _share_of(lambda half: half.abs().mean(dim=0)), _jaccard,
             _half_and_all, _by_place)  # fmt: skip
    while len(cases) < 4:
        batch, edges, n = ((8, 40, 10), (6, 30, 6), (12, 50, 12), (10, 25, 8))[len(cases)]
        case = 0.5 * _normal(generator, edges) + _normal(generator, batch, edges), n
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
            "You ranked by the score with its sign. Best are the scores that are largest in size, also negative ones.",
            _share_of(lambda half: half.mean(dim=0)),
        ),
        Misconception(
            "size before the mean",
            "You took sizes prompt by prompt and then their mean. Noise has size, too, and does not cancel any more.",
            _share_of(lambda half: half.abs().mean(dim=0)),
        ),
        Misconception(
            "share of the union",
            "You divided by the size of the union (Jaccard). Asked for is the share of the n that both have.",
            _jaccard,
        ),
        Misconception(
            "a half against all",
            "You compared half of the prompts with all of them, and so partly with themselves. Compare two halves.",
            _half_and_all,
        ),
        Misconception(
            "place by place",
            "You compared the lists place by place. It counts whether an edge is among the n, not at which place.",
            _by_place,
        ),
    ),
)
