"""The check of exercise 12.3: models in which a head was planted that the answer key
omits."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ioi_course.breaking import Breaker, class_nodes
from ioi_course.breaking import outside as nodes_outside
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.bundled.planted import Plant, draw_plant, planted_model
from ioi_course.checks.core import Exercise, Misconception
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Head

__all__ = ["find_missing"]


# --- 12.3: models in which a head was planted that the answer key omits


@cache
def _planted(kind: str, seed: int) -> tuple[Plant, TransformerBridge]:
    plant = draw_plant(seed, kind)
    return plant, planted_model(plant)


@cache
def _broken(kind: str, place: int, seed: int) -> Breaker:
    """Kept, since a check asks for the same knock-outs again
    with each misconception."""
    _, model = _planted(kind, place)
    return Breaker(model, IOIDataset(model, 4, seed=seed), CIRCUIT)


def _find_missing(
    broken: Callable[[Sequence[Mapping[Head, str]]], tuple[Tensor, Tensor]],
    classes: Mapping[str, Mapping[Head, str]],
    outside: Sequence[tuple[Head, str]],
) -> tuple[Head, str]:
    return _search(broken, classes, outside)


def _gaps(broken, sets: Sequence[Mapping[Head, str]]) -> Tensor:
    """F(M \\ K) - F(C \\ K)."""
    alone, whole = broken(sets)
    return whole - alone


def _search(
    broken, classes, outside, where=None, judge=lambda gaps: gaps.abs().argmin()
):
    """The node that `judge` picks by the gap without it, once the class `where` (None:
    the worst one) is out as well."""
    names = list(classes)
    if where is None:
        where = names[
            int(_gaps(broken, [classes[name] for name in names]).abs().argmax())
        ]
    return outside[
        int(
            judge(
                _gaps(
                    broken, [{**classes[where], head: role} for head, role in outside]
                )
            )
        )
    ]


def _after_the_heaviest(broken, classes, outside):
    _, whole = broken(list(classes.values()))
    return _search(broken, classes, outside, list(classes)[int(whole.argmin())])


def _inside(broken, classes, outside):
    nodes = [node for some in classes.values() for node in some.items()]
    return nodes[
        int(_gaps(broken, [{head: role} for head, role in nodes]).abs().argmax())
    ]


def _suspects(rng: random.Random, plant: Plant) -> list[tuple[Head, str]]:
    """The planted head at all positions, and others drawn from those outside."""
    others = [head for head in dict(nodes_outside(CIRCUIT)) if head != plant.at]
    suspects = [
        (head, rng.choice(["S1+1", "S2", "END"])) for head in rng.sample(others, 10)
    ]
    suspects += nodes_outside(CIRCUIT, [plant.at])
    rng.shuffle(suspects)
    return suspects


def _missing_cases(seed: int) -> list[tuple]:
    """A model for each kind; with the sleeper, two wrong ways
    end at different heads."""
    rng, cases, classes = random.Random(seed), [], class_nodes(CIRCUIT)
    for kind in (
        "sleeper",
        "S-inhibition",
        "duplicate token",
        "negative name mover",
        "previous token",
    ):
        same = True
        # the place and the prompts are drawn anew, too: with some of them no
        # suspects tell the ways apart
        while same:
            place = rng.randrange(2)
            plant = _planted(kind, place)[0]
            case = (
                _broken(kind, place, rng.randrange(3)),
                classes,
                _suspects(rng, plant),
            )
            same = kind == "sleeper" and _search(*case, "none") in (
                plant.node,
                _after_the_heaviest(*case),
            )
        cases.append(case)
    return cases


find_missing = Exercise(
    number="12.3",
    title="Find what is missing",
    solution=_find_missing,
    cases=_missing_cases,
    misconceptions=(
        Misconception(
            "nothing taken out",
            "You compared circuit and model as they are. A head that waits until "
            "others are gone does not show there: first find the class without which "
            "the two differ most, and look with that class out.",
            lambda broken, classes, outside: _search(broken, classes, outside, "none"),
        ),
        Misconception(
            "the class that matters most",
            "You took out the class without which the model has least. There circuit "
            "and model both fail, so they agree. Take the one without which they are "
            "farthest apart.",
            _after_the_heaviest,
        ),
        Misconception(
            "END only",
            "You looked at END only. What is missing may act at S2 or S1+1: try every "
            "node in `outside`.",
            lambda broken, classes, outside: _search(
                broken, classes, [node for node in outside if node[1] == "END"]
            ),
        ),
        Misconception(
            "lowest instead of closest",
            "You took the node without which the model has least. If the missing head "
            "works against IO, the model has more without it: look for the smallest "
            "distance from the circuit, in size.",
            lambda broken, classes, outside: _search(
                broken, classes, outside, judge=lambda gaps: gaps.argmin()
            ),
        ),
        Misconception(
            "farthest instead of closest",
            "You took the node without which circuit and model are farthest apart. "
            "Without the missing head they agree.",
            lambda broken, classes, outside: _search(
                broken, classes, outside, judge=lambda gaps: gaps.abs().argmax()
            ),
        ),
        Misconception(
            "a head of the circuit",
            "You named a node of the circuit, the one without which the two differ "
            "most. That is where it hurts, and not what is missing: the missing node "
            "is in `outside`.",
            _inside,
        ),
    ),
)
