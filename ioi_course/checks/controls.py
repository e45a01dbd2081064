"""The check of exercise 13.3: the reader's control for prompts with a clause that
distracts."""

import re
from dataclasses import replace
from functools import cache

from torch import Tensor

from ioi_course.adversarial import WHERE, distract
from ioi_course.bundled.answer_key import known_circuit
from ioi_course.checks.core import Exercise, Misconception
from ioi_course.failures import observe
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset

__all__ = ["control_for"]


# --- 13.3 ---


@cache
def _synthetic():
    """The model with a known circuit, and its S-inhibition heads and name movers."""
    model = load_model("synthetic")
    roles = known_circuit(model).roles
    return model, list(roles["S-inhibition"]), list(roles["name mover"])


def _again(
    broken: IOIDataset, templates: list[str], names: list[str] | None = None
) -> IOIDataset:
    """The prompts with other templates, and IO's names exchanged if some are given."""
    records = [
        replace(record, template=template)
        for record, template in zip(broken, templates, strict=True)
    ]
    if names is not None:
        records = [
            replace(record, IO=name)
            for record, name in zip(records, names, strict=True)
        ]
    return IOIDataset.from_prompts(broken.tokenizer, records, broken.bos, broken.names)


def _fresh(broken: IOIDataset) -> list[str]:
    """For each prompt a name that does not occur in it."""
    return [
        next(name for name in broken.names if name not in record.names)
        for record in broken
    ]


def _renamed(broken: IOIDataset, names: list[str]) -> list[str]:
    """The templates with another name in the distractor than IO's."""
    pairs = zip(broken, names, strict=True)
    return [
        re.sub(rf"\b{record.IO}\b", name, record.template) for record, name in pairs
    ]


def _without_clause(broken: IOIDataset) -> list[str]:
    clauses = [
        [text.replace("[X]", record.IO) for text, *_ in WHERE.values()]
        for record in broken
    ]
    return [
        min((r.template.replace(c, "") for c in each), key=len)
        for r, each in zip(broken, clauses, strict=True)
    ]


def _said(choice: IOIDataset, broken: IOIDataset) -> str:
    """Whose name the sentences say once more than the task does: IO
    is said once, S twice."""
    found = set()
    for i, record in enumerate(broken):
        words = [token.strip() for token in choice.str_tokens(i)]
        found |= {
            who
            for who, usual in (("IO", 1), ("S", 2))
            if words.count(getattr(record, who)) > usual
        }
    return " and ".join(sorted(found)) or "nobody"


def _differs(choice: IOIDataset, broken: IOIDataset) -> str:
    if choice.tokens.shape != broken.tokens.shape:
        return "more than a word"
    counts = (choice.tokens != broken.tokens).sum(dim=1)
    return (
        "nothing"
        if not counts.any()
        else "one word"
        if (counts == 1).all()
        else "more than a word"
    )


@cache
def _ends(broken: IOIDataset) -> list[Tensor]:
    """The means of the broken prompts and of harmless ones, kept for the next answer to
    the same case."""
    model, _, movers = _synthetic()
    harmless = _again(broken, _renamed(broken, _fresh(broken)))
    return [
        observe(model, prompts, movers).diff.mean() for prompts in (broken, harmless)
    ]


def _controls(choice: IOIDataset, broken: IOIDataset) -> dict[str, str]:
    """What the chosen prompts are, beside the broken ones, and how much they repair
    on the synthetic model."""
    if not isinstance(choice, IOIDataset) or len(choice) != len(broken):
        raise TypeError(
            f"return an IOIDataset of {len(broken)} prompts, one for each of the "
            "broken ones"
        )
    model, inhibition, movers = _synthetic()
    found = observe(
        model, broken, movers, source=choice, restore=inhibition
    ).diff.mean()
    low, high = _ends(broken)
    share = ((found - low) / (high - low)).item()
    return {
        "repaired": "more than half" if share > 0.5 else "less than half",
        "differs from the broken prompts in": _differs(choice, broken),
        "said once too often": _said(choice, broken),
    }


def _control_cases(seed: int) -> list[tuple[IOIDataset]]:
    model = _synthetic()[0]
    return [
        (distract(IOIDataset(model, 16, seed=10 * seed + i), "IO", where),)
        for i, where in enumerate(WHERE)
    ]


control_for = Exercise(
    number="13.3",
    title="A control for the repair",
    solution=lambda broken: _again(broken, _renamed(broken, _fresh(broken))),
    cases=_control_cases,
    outcome=_controls,
    misconceptions=(
        Misconception(
            "the broken prompts themselves",
            "Your prompts are the broken ones, so nothing is put right. IO must not "
            "be said again in them.",
            lambda broken: broken,
        ),
        Misconception(
            "the clause is gone",
            "Without the clause your prompts are shorter, and every name after it is "
            "somewhere else. If the repair fails, is it the place or the name? Keep "
            "the clause, and change whom it names.",
            lambda broken: _again(broken, _without_clause(broken)),
        ),
        Misconception(
            "S is said again",
            "The clause names S now. One word was changed, but the prompts still say "
            "somebody once too often. Take a name that is nowhere else in the prompt.",
            lambda broken: _again(
                broken, _renamed(broken, [record.S for record in broken])
            ),
        ),
        Misconception(
            "another IO",
            "You have changed IO's name everywhere, so the new name is said again. "
            "Only the mention in the clause should change.",
            lambda broken: _again(
                broken, _renamed(broken, _fresh(broken)), _fresh(broken)
            ),
        ),
    ),
)
