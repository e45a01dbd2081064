"""Two checks of chapter 16: circuits that look right and have a fault, and a loss that
hides two edges."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations

from ioi_course.checks.core import Exercise, Misconception

__all__ = ["looks_right", "hidden_pair"]


# --- 16.4 ---

Wire = tuple[str, str]


def _touched(wires: Sequence[Wire]) -> set[str]:
    return {end for wire in wires for end in wire} - {"input", "logits"}


def _looks_right(
    edges: Sequence[Wire], f: Callable[[Sequence[Wire]], float], below: float = 0.1
) -> set[Wire]:
    """Take out the edge that is missed most, as long as its
    nodes stay in the drawing."""
    left, nodes = list(edges), _touched(edges)
    while f(left) >= below:
        can = [
            wire
            for wire in left
            if _touched([other for other in left if other != wire]) == nodes
        ]
        left.remove(
            min(can, key=lambda wire: f([other for other in left if other != wire]))
        )
    return set(left)


def _wired(
    weights: dict[Wire, float], order: Sequence[str]
) -> Callable[[Sequence[Wire]], float]:
    """f of a circuit: what flows from the input to the logits along its
    edges, as a share of all."""

    def flow(wires) -> float:
        at = {name: 0.0 for name in order} | {"input": 1.0}
        for name in order[1:]:
            at[name] = sum(
                weights[wire] * at[wire[0]] for wire in wires if wire[1] == name
            )
        return at[order[-1]]

    whole = flow(weights)

    def f(wires) -> float:
        wires = set(wires)
        if wires - set(weights):
            raise ValueError(
                f"There is no edge {sorted(wires - set(weights))[0]!r} here."
            )
        return flow(wires) / whole

    return f


def _wired_cases(seed: int) -> list[tuple]:
    rng, cases = random.Random(seed), []
    for width in (4, 5, 6):
        layers = [[f"L{layer}H{i}" for i in range(width)] for layer in range(3)]
        pairs = [
            (a, b)
            for one, other in zip(layers, layers[1:], strict=False)
            for a in one
            for b in other
        ]
        pairs += [("input", name) for name in layers[0]] + [
            (name, "logits") for name in layers[-1]
        ]
        weights = {pair: rng.uniform(0.2, 1) for pair in pairs}
        cases.append(
            (sorted(weights), _wired(weights, ["input", *sum(layers, []), "logits"]))
        )
    return cases


def _rigged(chosen, edges: Sequence[Wire], f: Callable) -> dict[str, str]:
    """What the choice does."""
    chosen = {tuple(wire) for wire in chosen}
    share, left = len(_touched(chosen & set(edges))) / len(_touched(edges)), f(chosen)
    return {
        "edges": "all" if chosen == set(edges) else "some" if chosen else "none",
        "nodes": "at least 90 %" if share >= 0.9 else "fewer than 90 %",
        "f": "below .1"
        if left < 0.1
        else "below half"
        if left < 0.5
        else "half or more",
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
            "Your circuit has no edges, and so no nodes. Keep at least 90 % of the "
            "nodes in the drawing.",
            lambda edges, f: set(),
        ),
        Misconception(
            "nodes taken out",
            "You took out whole nodes until nothing was left of the work. It is to "
            "fail with the nodes in place.",
            _without_nodes,
        ),
        Misconception(
            "the one most important edge",
            "You left out the edge that is missed most. Others carry on: look at f of "
            "what you return.",
            lambda edges, f: (
                set(edges)
                - {
                    min(
                        edges, key=lambda wire: f([one for one in edges if one != wire])
                    )
                }
            ),
        ),
        Misconception(
            "half of the work",
            "Your circuit keeps the nodes, and between a tenth and a half of the "
            "work. Go on until f is below .1.",
            lambda edges, f: _looks_right(edges, f, 0.5),
        ),
    ),
)


# --- 16.5 ---

Lost = Callable[[Sequence[str]], float]


def _pairs(lost: Lost, edges: Sequence[str], value: Callable) -> set[str]:
    """The pair for which `value(both, one, other)` is largest."""
    alone = {edge: lost([edge]) for edge in edges}
    best = max(
        combinations(edges, 2),
        key=lambda pair: value(lost(pair), *(alone[edge] for edge in pair)),
    )
    return set(best)


def _hidden_pair(edges: Sequence[str], lost: Lost) -> set[str]:
    return _pairs(lost, edges, lambda both, one, other: both - one - other)


def _losing(alone: dict[str, float], extra: dict[frozenset, float]) -> Lost:
    """What is lost with some edges: each one's own, and what a pair loses beyond."""

    def lost(some: Sequence[str]) -> float:
        some = set(some)
        if unknown := some - set(alone):
            raise ValueError(f"There is no edge {sorted(unknown)[0]!r} here.")
        return sum(alone[edge] for edge in some) + sum(
            more for pair, more in extra.items() if pair <= some
        )

    return lost


def _hidden_cases(seed: int) -> list[tuple]:
    rng, cases = random.Random(seed), []
    for n in (8, 9, 10):
        edges = [
            (
                f"L{rng.randrange(6)}H{i} -> "
                f"L{rng.randrange(7, 11)}H{i}.{rng.choice('qkv')}"
            )
            for i in range(n)
        ]
        pair, strong, row, idle = (edges[i : i + 2] for i in (0, 2, 4, 6))
        alone = {edge: rng.uniform(0.1, 0.3) for edge in edges}
        alone |= {edge: rng.uniform(0.01, 0.04) for edge in pair} | {
            edge: rng.uniform(0, 0.005) for edge in idle
        }
        alone |= {edge: rng.uniform(0.9, 1.2) for edge in strong} | {
            edge: rng.uniform(0.65, 0.75) for edge in row
        }
        extra = {
            frozenset(pair): rng.uniform(0.5, 0.6),
            frozenset(strong): -0.9,
            frozenset(row): -1.2,
        }
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
            "These are the two edges that matter most one by one. Edges that hide "
            "each other look small one by one.",
            lambda edges, lost: set(sorted(edges, key=lambda edge: -lost([edge]))[:2]),
        ),
        Misconception(
            "the two smallest scores",
            "Small scores alone are no evidence: an edge that does nothing has one, "
            "too. Remove two at a time.",
            lambda edges, lost: set(sorted(edges, key=lambda edge: lost([edge]))[:2]),
        ),
        Misconception(
            "the largest loss together",
            "This pair loses most together, and it would by its two scores alone. "
            "Hidden is what a pair loses beyond the sum.",
            lambda edges, lost: _pairs(lost, edges, lambda both, one, other: both),
        ),
        Misconception(
            "the other sign",
            "This pair loses least beyond its sum: what one removes, the other cannot "
            "remove again. They stand in a row. Edges that hide each other lose "
            "more together.",
            lambda edges, lost: _pairs(
                lost, edges, lambda both, one, other: one + other - both
            ),
        ),
    ),
)
