"""Checks of chapter 10: what the S-inhibition heads carry; those that carry it over to
another prompt are in `transplants`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.checks.transplants import patch_at_end, share_by_attention
from ioi_course.prompts import IOIDataset
from ioi_course.templates import IOIPrompt

__all__ = [
    "signal_levels",
    "patch_at_end",
    "two_weights",
    "share_by_attention",
    "other_subjects",
]


def _level(value: Tensor, of_s: Tensor, of_io: Tensor) -> Float[Tensor, "batch"]:
    return (value == of_s).double() - (value == of_io).double()


# --- 10.1 ---


def _position(data: IOIDataset, source: IOIDataset) -> Float[Tensor, "batch"]:
    return _level(source.pos["S1"], data.pos["S1"], data.pos["IO"])


def _token(
    data: IOIDataset, source: IOIDataset, answer: int = 1
) -> Float[Tensor, "batch"]:
    return _level(source.answers[:, answer], data.answers[:, 1], data.answers[:, 0])


def _signal_levels(data: IOIDataset, source: IOIDataset) -> Float[Tensor, "batch 2"]:
    return torch.stack([_position(data, source), _token(data, source)], dim=1)


def _signal_cases(seed: int) -> list[tuple]:
    model = random_model(0)
    data = random_data(model, 6, seed)
    kinds = ("swap_names", "swap_subject", "random_names")
    mixed = [
        data.counterfactual(kind, seed)[i] for i, kind in enumerate((*kinds, *kinds))
    ]
    cases = [(data, data.counterfactual(kind, seed)) for kind in kinds]
    return [
        *cases,
        (data, IOIDataset.from_prompts(model, mixed)),
        (data, random_data(model, 6, seed + 1)),
        (data, data),
    ]


signal_levels = Exercise(
    number="10.1",
    title="What a source says",
    solution=_signal_levels,
    cases=_signal_cases,
    misconceptions=(
        Misconception(
            "columns exchanged",
            "The first column is the position, the second the token.",
            lambda data, source: _signal_levels(data, source).flip(1),
        ),
        Misconception(
            "IO followed instead of S",
            "Both signals are about the name that is repeated. You followed the other "
            "one of the source.",
            lambda data, source: torch.stack(
                [
                    _level(source.pos["IO"], data.pos["S1"], data.pos["IO"]),
                    _token(data, source, 0),
                ],
                dim=1,
            ),
        ),
        Misconception(
            "IO's token taken for S's",
            "`answers` are IO, then S. The token signal is about the name that "
            "is repeated.",
            lambda data, source: torch.stack(
                [_position(data, source), _token(data, source, 0)], dim=1
            ),
        ),
        Misconception(
            "random counted as inverted",
            "What is not kept need not be inverted: -1 only if the source points at "
            "IO, 0 if it points at neither name.",
            lambda data, source: 2 * (_signal_levels(data, source) == 1).double() - 1,
        ),
        Misconception(
            "inverted counted as random",
            "0 is for a source that points at neither name; if it points at IO, "
            "that is -1.",
            lambda data, source: _signal_levels(data, source).clamp(min=0),
        ),
        Misconception(
            "S2 taken for S1",
            "S2 is at the same place in all of these prompts. The signal is where the "
            "name stood *first*.",
            lambda data, source: torch.stack(
                [
                    _level(source.pos["S2"], data.pos["S2"], data.pos["IO"]),
                    _token(data, source),
                ],
                dim=1,
            ),
        ),
    ),
)


# --- 10.3 ---


_LEVEL = {"kept": 1.0, "random": 0.0, "inverted": -1.0}


def _design(
    positions: Sequence[str], tokens: Sequence[str], level: dict = _LEVEL
) -> Float[Tensor, "cell 2"]:
    return torch.tensor(
        [[level[p], level[t]] for p in positions for t in tokens], dtype=torch.float64
    )


def _solve(design: Tensor, cells: Tensor) -> Tensor:
    return torch.linalg.pinv(design) @ cells.flatten().double()


def _two_weights(
    cells: Float[Tensor, "position token"], positions: list, tokens: list
) -> Float[Tensor, "2"]:
    return _solve(_design(positions, tokens), cells)


def _with_constant(cells, positions, tokens) -> Float[Tensor, "2"]:
    design = _design(positions, tokens)
    return _solve(
        torch.cat([design, torch.ones(len(design), 1).double()], dim=1), cells
    )[:2]


def _by_place(cells, positions, tokens) -> Float[Tensor, "2"]:
    """As if the levels ran from kept to inverted in every table."""
    rows, columns = (
        torch.linspace(1, -1, len(levels)).double() for levels in (positions, tokens)
    )
    return _solve(torch.cartesian_prod(rows, columns), cells)


def _all_cells(cells, positions, tokens) -> Float[Tensor, "2"]:
    return _design(positions, tokens).T @ cells.flatten().double() / cells.numel()


def _each_alone(cells, positions, tokens) -> Float[Tensor, "2"]:
    """One regression for each signal, as if the other were not there."""
    design = _design(positions, tokens)
    return design.T @ cells.flatten().double() / design.pow(2).sum(0)


def _weight_cases(seed: int) -> list[tuple]:
    rng = torch.Generator().manual_seed(seed)
    # in all but the first the levels of neither signal add up to 0, so the
    # two are not independent
    shapes = [
        (["kept", "inverted"], ["kept", "random", "inverted"]),
        (["kept", "random"], ["random", "kept"]),
        (["random", "inverted"], ["kept", "random"]),
        (["random", "kept"], ["inverted", "random"]),
        (["kept", "random"], ["random", "inverted"]),
    ]
    return [
        (3 * torch.randn(len(p), len(t), generator=rng, dtype=torch.float64), p, t)
        for p, t in shapes
    ]


two_weights = Exercise(
    number="10.3",
    title="Two weights",
    solution=_two_weights,
    cases=_weight_cases,
    misconceptions=(
        Misconception(
            "a constant in the sum",
            "With a third term the weights are others, unless the levels are "
            "balanced. Asked for is a sum of two.",
            _with_constant,
        ),
        Misconception(
            "each signal fitted alone",
            "Two fits of one signal each give the weights of the sum only where the "
            "levels of one of them add up to 0. Elsewhere each takes the credit for a "
            "part of the other: fit both at once.",
            _each_alone,
        ),
        Misconception(
            "weights exchanged",
            "Position first, then token.",
            lambda cells, positions, tokens: _two_weights(
                cells, positions, tokens
            ).flip(0),
        ),
        Misconception(
            "inverted taken for 0",
            "Kept, random and inverted are 1, 0 and -1: an inverted signal says the "
            "opposite, it does not say nothing.",
            lambda cells, positions, tokens: _solve(
                _design(
                    positions, tokens, {"kept": 1.0, "random": 0.0, "inverted": 0.0}
                ),
                cells,
            ),
        ),
        Misconception(
            "levels taken by their place",
            "Look the levels up by their words: the first row is not always `kept`, "
            "nor the last `inverted`.",
            _by_place,
        ),
        Misconception(
            "divided by all cells",
            "A cell in which a signal is 0 says nothing about its weight, and must "
            "not count among those to divide by.",
            _all_cells,
        ),
        Misconception(
            "cells read by columns",
            "The cells are [position, token]: when you flatten them, tokens run "
            "fastest, and so must your design.",
            lambda cells, positions, tokens: _solve(
                _design(positions, tokens), cells.T
            ),
        ),
    ),
)


# --- 10.5 ---


def _other_subjects(data: IOIDataset, names: list[str]) -> list[IOIPrompt]:
    return [replace(record, S=name) for record, name in zip(data, names, strict=True)]


def _changed(change: Callable[[IOIPrompt, str], dict]) -> Callable:
    def answer(data: IOIDataset, names: list[str]) -> list[IOIPrompt]:
        return [
            replace(record, **change(record, name))
            for record, name in zip(data, names, strict=True)
        ]

    return answer


def _subject_cases(seed: int) -> list[tuple]:
    model = random_model(0)
    cases = []
    for i, n in enumerate((4, 1, 5)):
        data = random_data(model, n, seed + i)
        used = {name for record in data for name in record.names}
        cases.append((data, [name for name in data.names if name not in used][:n]))
    return cases


other_subjects = Exercise(
    number="10.5",
    title="Change S alone",
    solution=_other_subjects,
    cases=_subject_cases,
    misconceptions=(
        Misconception(
            "IO replaced",
            "You replaced the name that is mentioned once. The subject is the one "
            "that is repeated.",
            _changed(lambda record, name: {"IO": name}),
        ),
        Misconception(
            "second mention only",
            "With `third` the new name stands only at S2, and no name is repeated any "
            "more: that is an ABC prompt.",
            _changed(lambda record, name: {"third": name}),
        ),
        Misconception(
            "order turned round",
            "The order must stay, or the position changes with the token.",
            _changed(
                lambda record, name: {
                    "S": name,
                    "order": "BABA" if record.order == "ABBA" else "ABBA",
                }
            ),
        ),
        Misconception(
            "old S made IO",
            "IO is to stay as it is; in your prompts the old subject is IO.",
            _changed(lambda record, name: {"IO": record.S, "S": name}),
        ),
        Misconception(
            "one name for all",
            "Each prompt has a new name of its own, in the order of the list.",
            lambda data, names: _other_subjects(data, names[:1] * len(names)),
        ),
        Misconception(
            "texts instead of prompts",
            "Return the records themselves, not their `text`: a dataset is made "
            "from records.",
            lambda data, names: [
                record.text for record in _other_subjects(data, names)
            ],
        ),
    ),
)
