"""Two checks of chapter 11: are heads idle or replaced, and which have to keep
still?"""

import random
from collections.abc import Callable
from itertools import combinations

from ioi_course.checks.core import Exercise, Misconception

__all__ = ["idle_or_replaced", "keep_still"]


Head = tuple[int, int]


# --- 11.3 ---


class _Cast:
    """A logit difference to which some heads are needed, some replaced when they are
    silent, and some nothing."""

    def __init__(self, draw: random.Random, heads: list[Head]):
        shuffled = draw.sample(heads, len(heads))
        needed, replaced, idle = shuffled[:2], shuffled[2:4], shuffled[4:]
        self.writes = {head: draw.uniform(1, 2) for head in (*needed, *replaced)}
        # one of them is idle until then
        self.backup = dict(zip(replaced, (idle[0], needed[0]), strict=True))

    def __call__(self, silent: list[Head], frozen: list[Head]) -> float:
        silent, frozen = set(map(tuple, silent)), set(map(tuple, frozen))
        said = sum(size for head, size in self.writes.items() if head not in silent)
        able = {
            head for head, other in self.backup.items() if other not in silent | frozen
        }
        return said + 0.9 * sum(self.writes[head] for head in silent & able)


def _by_costs(
    measure: Callable, heads: list[Head], least: float, alone: Callable, held: Callable
) -> dict[Head, str]:
    labels = {}
    for head in heads:
        others = [other for other in heads if other != head]
        second = "replaced" if held(measure, head, others) >= least else "idle"
        labels[head] = "needed" if alone(measure, head, others) >= least else second
    return labels


def _alone(measure: Callable, head: Head, others: list[Head]) -> float:
    return measure([], []) - measure([head], [])


def _held(measure: Callable, head: Head, others: list[Head]) -> float:
    return measure([], []) - measure([head], others)


def _others_silent(measure: Callable, head: Head, others: list[Head]) -> float:
    return measure(others, []) - measure([head, *others], [])


def _idle_or_replaced(
    measure: Callable, heads: list[Head], least: float
) -> dict[Head, str]:
    return _by_costs(measure, heads, least, _alone, _held)


def _exchanged(measure: Callable, heads: list[Head], least: float) -> dict[Head, str]:
    other = {"idle": "replaced", "replaced": "idle"}
    return {
        head: other.get(label, label)
        for head, label in _idle_or_replaced(measure, heads, least).items()
    }


def _cast_cases(seed: int) -> list[tuple]:
    cases = []
    for i, count in enumerate((6, 7, 8, 6)):
        draw = random.Random(100 * seed + i)
        heads = draw.sample(
            [(layer, head) for layer in (9, 10, 11) for head in range(4)], count
        )
        cases.append((_Cast(draw, heads), heads, 0.3))
    return cases


idle_or_replaced = Exercise(
    number="11.3",
    title="Idle, or replaced?",
    solution=_idle_or_replaced,
    cases=_cast_cases,
    misconceptions=(
        Misconception(
            "each silenced, and no more",
            "A head whose loss costs nothing may be idle, or another may have taken "
            "its place. This experiment has the same result in both cases. What would "
            "have to be kept from happening?",
            lambda measure, heads, least: _by_costs(
                measure, heads, least, _alone, lambda *_: 0.0
            ),
        ),
        Misconception(
            "only with the others frozen",
            "Where nobody may react you learn what a head writes, and not whether the "
            "model can do without it.",
            lambda measure, heads, least: _by_costs(
                measure, heads, least, _held, _held
            ),
        ),
        Misconception(
            "idle and replaced exchanged",
            "A head that is replaced costs something as soon as the others are kept "
            "from reacting. An idle one does not.",
            _exchanged,
        ),
        Misconception(
            "the others silenced, not frozen",
            "With all others silent, a head that only stands in for them goes to work, "
            "so that an idle one looks busy. Freeze the others: they go on as "
            "they were.",
            lambda measure, heads, least: _by_costs(
                measure, heads, least, _alone, _others_silent
            ),
        ),
        Misconception(
            "what is left taken for what is lost",
            "`measure` returns the logit difference of the run. The cost of a head is "
            "by how much that is lower than in the intact run.",
            lambda measure, heads, least: _by_costs(
                measure,
                heads,
                least,
                lambda m, head, _: m([head], []),
                lambda m, head, others: m([head], others),
            ),
        ),
    ),
)


# --- 11.6 ---


def _keep_still(measure: Callable, heads: list[Head], k: int) -> list[Head]:
    chosen = []
    for _ in range(k):
        rest = [head for head in heads if head not in chosen]
        chosen.append(min(rest, key=lambda head: measure([*chosen, head])))
    return chosen


def _by_alone(measure: Callable, heads: list[Head], k: int) -> list[Head]:
    return sorted(heads, key=lambda head: measure([head]))[:k]


def _highest(measure: Callable, heads: list[Head], k: int) -> list[Head]:
    chosen = []
    for _ in range(k):
        rest = [head for head in heads if head not in chosen]
        chosen.append(max(rest, key=lambda head: measure([*chosen, head])))
    return chosen


def _all_others(measure: Callable, heads: list[Head], k: int) -> list[Head]:
    """Thaw from the end: what is missed least is dropped first."""
    kept = list(heads)
    while len(kept) > k:
        kept.remove(
            min(
                kept,
                key=lambda head: measure([other for other in kept if other != head]),
            )
        )
    return kept


def _best_set(measure: Callable, heads: list[Head], k: int) -> list[Head]:
    return list(min(combinations(heads, k), key=lambda some: measure(list(some))))


class _Team:
    """A logit difference that falls as heads are frozen, less so where they
    stand in for each other."""

    def __init__(self, draw: random.Random, heads: list[Head]):
        self.alone = {head: draw.uniform(1, 2) for head in heads}
        self.shared = {
            frozenset(pair): draw.choice((0, 0, 0.4, 1))
            for pair in combinations(heads, 2)
        }

    def __call__(self, heads: list[Head]) -> float:
        frozen = set(map(tuple, heads))
        overlap = sum(size for pair, size in self.shared.items() if pair <= frozen)
        return 9 - sum(self.alone[head] for head in frozen) + overlap


def _tells_apart(measure: Callable, heads: list[Head], k: int) -> bool:
    """Do the four ways of choosing end with four sets?"""
    ways = (_keep_still, _by_alone, _all_others, _best_set)
    return len({frozenset(way(measure, heads, k)) for way in ways}) == len(ways)


def _keep_still_cases(seed: int) -> list[tuple]:
    cases = []
    for i, (count, k) in enumerate(((6, 3), (7, 4), (7, 3), (8, 4))):
        heads = [(layer, head) for layer in (9, 10, 11) for head in range(4)]
        draw = random.Random(seed + i)
        heads = draw.sample(heads, count)
        teams = (_Team(draw, heads) for _ in range(10_000))
        cases.append(
            (next(team for team in teams if _tells_apart(team, heads, k)), heads, k)
        )
    return cases


keep_still = Exercise(
    number="11.6",
    title="Who has to keep still",
    solution=_keep_still,
    cases=_keep_still_cases,
    misconceptions=(
        Misconception(
            "ranked once",
            "The heads are sorted by what each does alone. Two heads that do the same "
            "are then both taken: measure each candidate together with those "
            "chosen before.",
            _by_alone,
        ),
        Misconception(
            "highest taken for lowest",
            "In each step this takes the head that stops the least. Lower is what you "
            "are after.",
            _highest,
        ),
        Misconception(
            "order lost",
            "The heads are right. Return them in the order in which they were chosen.",
            lambda measure, heads, k: sorted(_keep_still(measure, heads, k)),
        ),
        Misconception(
            "only the last one",
            "Return the list of all heads that were chosen, not the one that "
            "came last.",
            lambda measure, heads, k: _keep_still(measure, heads, k)[-1],
        ),
        Misconception(
            "every set tried",
            "This is the best set of k heads, found by trying all of them. It can be "
            "better than what a greedy search finds, and costs as many measurements as "
            "there are sets. Asked for is the greedy one: add one head at a time.",
            _best_set,
        ),
        Misconception(
            "dropped, not chosen",
            "This starts with all heads and drops those whose loss lowers the "
            "measure. The search was to start with none.",
            _all_others,
        ),
    ),
)
