"""The check of exercise 6.4: the reader's choice of counterfactuals, tried on
activations whose content is known."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import torch

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import Exercise, Misconception
from ioi_course.metrics import logit_diff
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset, check_aligned
from ioi_course.templates import IOIPrompt

__all__ = ["what_it_carries"]

SLIGHT = 0.1  # of the clean logit difference; a smaller change counts as none


@dataclass(frozen=True)
class _Planted:
    """An activation whose content is known: it holds two names back, one
    by token, one by place."""

    token: float
    place: float

    def __repr__(self) -> str:
        return (
            f"an activation with {self.token:.1f} of the token and {self.place:.1f} of "
            "the position"
        )

    def __call__(self, clean: IOIDataset, other: IOIDataset) -> float:
        check_aligned(clean, other)
        pairs = list(zip(clean.records, other.records, strict=True))
        whole = sum(self._diff(mine, mine) for mine, _ in pairs)
        return (sum(self._diff(mine, given) for mine, given in pairs) - whole) / whole

    def _diff(self, mine: IOIPrompt, given: IOIPrompt) -> float:
        """The difference in a prompt with the activation of a given one: 1 that does
        not depend on it, and the rest."""
        repeated = not given.third
        held = {mine.S: 0.0, mine.IO: 0.0}
        first = {"BABA": mine.S, "ABBA": mine.IO}[mine.order]
        second = mine.IO if first == mine.S else mine.S
        name = given.third or given.S
        if name in held:
            held[name] += self.token
        if repeated:
            held[first if given.order == "BABA" else second] += self.place
        return 1 + held[mine.S] - held[mine.IO]


@dataclass(frozen=True)
class _Real:
    """An activation of the synthetic model, whose content follows
    from how it was made."""

    site: str
    layer: int
    head: int = 0

    def __repr__(self) -> str:
        part = f" of head {self.head}" if self.site == "attn.hook_z" else ""
        return (
            f"the synthetic model's {self.site.split('hook_')[1]}{part} in layer "
            f"{self.layer} at S2"
        )

    def __call__(self, clean: IOIDataset, other: IOIDataset) -> float:
        check_aligned(clean, other)
        return _effect(self, tuple(clean.records), tuple(other.records))


@lru_cache(maxsize=1024)
def _effect(
    activation: _Real, mine: tuple[IOIPrompt, ...], given: tuple[IOIPrompt, ...]
) -> float:
    """The relative change of the difference; kept, since a check asks for the same
    again with each misconception."""
    model, site, layer = _synthetic(), activation.site, activation.layer
    clean, other = (
        IOIDataset.from_prompts(model, list(records)) for records in (mine, given)
    )
    name, place = f"blocks.{layer}.{site}", (torch.arange(len(clean)), clean.pos["S2"])
    index = (*place, activation.head) if site == "attn.hook_z" else place
    with torch.no_grad():
        _, cached = model.run_with_cache(other.tokens, names_filter=[name])
        whole = logit_diff(model(clean.tokens), clean)

        def patch(value, hook):
            value[index] = cached[name][index]
            return value

        return (
            logit_diff(
                model.run_with_hooks(clean.tokens, fwd_hooks=[(name, patch)]), clean
            )
            / whole
            - 1
        ).item()


@cache
def _synthetic():
    return load_model("synthetic", device="cpu")


def _what_it_carries(
    experiment: Callable[[IOIDataset, IOIDataset], float], clean: IOIDataset
) -> str:
    return _named(
        *(
            abs(experiment(clean, clean.counterfactual(kind)))
            for kind in ("random_names", "swap_names")
        )
    )


def _named(token: float, position: float) -> str:
    found = [
        name
        for name, size in (("token", token), ("position", position))
        if size >= SLIGHT
    ]
    return "both" if len(found) == 2 else found[0] if found else "neither"


def _what_it_carries_cases(seed: int) -> list[tuple]:
    draw = random.Random(seed)
    planted = [(draw.uniform(1, 2), draw.uniform(1, 2)) for _ in range(3)]
    (t, _), (_, p), both = planted
    experiments = [_Planted(t, 0), _Planted(0, p), _Planted(*both), _Planted(0, 0)]
    # tells where the name was before, whatever it is
    induction = CIRCUIT.roles["induction"][0]
    experiments += [
        _Real("hook_resid_pre", 0),
        _Real("hook_resid_pre", 1),
        _Real("attn.hook_z", *induction),
    ]
    return [
        (experiment, IOIDataset(_synthetic(), 2, seed=seed + i))
        for i, experiment in enumerate(experiments)
    ]


def _by(token: str, position: str):
    """The answer with these two counterfactuals."""
    return lambda experiment, clean: _named(
        *(
            abs(experiment(clean, clean.counterfactual(kind)))
            for kind in (token, position)
        )
    )


what_it_carries = Exercise(
    number="6.4",
    title="Token or position",
    solution=_what_it_carries,
    cases=_what_it_carries_cases,
    misconceptions=(
        Misconception(
            "both changed at once",
            "In `swap_subject` the repeated name differs, and so does its place; in "
            "`abc` nothing is repeated any more. An activation that carries only one "
            "of the two changes as much as one that carries both.",
            _by("swap_subject", "swap_subject"),
        ),
        Misconception(
            "the token's counterfactual moves the position too",
            "For the position this is right. For the token you need prompts in which "
            "the repeated name is another one and its place the same.",
            _by("swap_subject", "swap_names"),
        ),
        Misconception(
            "the position's counterfactual changes the token too",
            "For the token this is right. For the position you need prompts in which "
            "the repeated name is the same one, at the other place.",
            _by("random_names", "swap_subject"),
        ),
        Misconception(
            "token and position exchanged",
            "The two are exchanged. Which of your counterfactuals leaves the repeated "
            "name as it is?",
            _by("swap_names", "random_names"),
        ),
        Misconception(
            "one experiment, position or else token",
            "A change with `swap_names` shows that the position is carried. It does "
            "not show that the token is not, and no change does not show that it is. "
            "That takes an experiment of its own.",
            lambda experiment, clean: (
                "position"
                if abs(experiment(clean, clean.counterfactual("swap_names"))) >= SLIGHT
                else "token"
            ),
        ),
        Misconception(
            "one experiment, token or else position",
            "A change with `random_names` shows that the token is carried. It does not "
            "show that the position is not, and no change does not show that it is. "
            "That takes an experiment of its own.",
            lambda experiment, clean: (
                "token"
                if abs(experiment(clean, clean.counterfactual("random_names")))
                >= SLIGHT
                else "position"
            ),
        ),
        Misconception(
            "only gains counted",
            "A foreign activation lowers the logit difference as a rule: the change "
            "is negative. Its size counts.",
            lambda experiment, clean: _named(
                *(
                    experiment(clean, clean.counterfactual(kind))
                    for kind in ("random_names", "swap_names")
                )
            ),
        ),
    ),
)
