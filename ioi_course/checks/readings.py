"""The check of exercise 3.4: which places say nothing, and which say nothing on
average."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import (
    Exercise,
    Misconception,
)
from ioi_course.checks.inputs import normal, seeded

__all__ = ["what_is_read"]


# --- 3.4 ---


def _errors(x: Float[Tensor, "place pair"]) -> Float[Tensor, "place"]:
    return x.std(dim=1) / x.shape[1] ** 0.5


def _root_mean_square(x: Float[Tensor, "place pair"]) -> Float[Tensor, "place"]:
    return x.pow(2).mean(dim=1).sqrt()


def _verdicts(mean: Tensor, error: Tensor, lean: Tensor) -> list[str]:
    surely = (mean.abs() >= 4 * error) & (mean.abs() >= 0.02 * mean[-1].abs())
    return [
        "answer" if a else "lean" if b else "nothing"
        for a, b in zip(surely, lean >= 0.5, strict=True)
    ]


def _what_is_read(
    clean: Float[Tensor, "place pair"], swapped: Float[Tensor, "place pair"]
) -> list[str]:
    effect = (clean + swapped) / 2
    return _verdicts(
        effect.mean(dim=1), _errors(effect), _root_mean_square((clean - swapped) / 2)
    )


# of each place: mean of the effect and its error; mean of the leans and their deviation
_PLANTED = (
    (0.15, 0.1, 0.0, 0.1),  # nothing
    (0.3, 0.1, 0.0, 0.45),  # three errors are not four, and 0.45 is not half a logit
    (0.05, 0.005, 0.0, 0.2),  # sure, but less than 2 % of the end
    (0.42, 0.1, 0.0, 0.2),  # an answer
    (-0.9, 0.2, 0.0, 0.2),  # against the answer
    (0.1, 0.1, 0.0, 4.0),  # leans that cancel
    (0.1, 0.1, 0.0, 0.55),
    (0.1, 0.1, 2.0, 0.1),  # a lean that is the same in all pairs
    (1.0, 0.15, 0.0, 6.0),  # an answer under large leans
    (4.0, 0.1, 0.0, 1.0),  # the end
)


def _standard(generator: torch.Generator, n: int) -> Float[Tensor, "n"]:
    x = normal(generator, n)
    return (x - x.mean()) / x.std()


def _what_is_read_cases(seed: int) -> list[tuple]:
    generator, cases = seeded(seed), []
    for pairs in (40, 25, 60):
        order = torch.randperm(len(_PLANTED) - 1, generator=generator).tolist()
        readings = []
        for mean, error, shift, deviation in [
            *(_PLANTED[i] for i in order),
            _PLANTED[-1],
        ]:
            effect = mean + error * pairs**0.5 * _standard(generator, pairs)
            lean = shift + deviation * _standard(generator, pairs)
            readings.append((effect + lean, effect - lean))
        cases.append(tuple(map(torch.stack, zip(*readings, strict=True))))
    return cases


def _other(error: Callable = _errors, size: Callable = _root_mean_square) -> Callable:
    """The solution with another error, or another size of the leans."""

    def answer(clean, swapped):
        effect = (clean + swapped) / 2
        return _verdicts(effect.mean(dim=1), error(effect), size((clean - swapped) / 2))

    return answer


def _unpaired(clean: Tensor, swapped: Tensor) -> list[str]:
    both = torch.cat([clean, swapped], dim=1)
    return _verdicts(
        both.mean(dim=1), _errors(both), _root_mean_square((clean - swapped) / 2)
    )


def _lean_first(clean: Tensor, swapped: Tensor) -> list[str]:
    leans = _root_mean_square((clean - swapped) / 2) >= 0.5
    return [
        "lean" if lean else said
        for lean, said in zip(leans, _what_is_read(clean, swapped), strict=True)
    ]


what_is_read = Exercise(
    number="3.4",
    title="Nothing, or nothing on average",
    solution=_what_is_read,
    cases=_what_is_read_cases,
    misconceptions=(
        Misconception(
            "error without the pairs",
            "The error was taken over single prompts, so leans drown the answer. In "
            "half the sum of a pair they cancel.",
            _unpaired,
        ),
        Misconception(
            "mean of the leans",
            "Leans to either name cancel in their mean. Their size is asked for: "
            "square before the mean.",
            _other(size=lambda lean: lean.mean(dim=1).abs()),
        ),
        Misconception(
            "deviation taken for size",
            "A lean that is the same in all pairs has no deviation. Take the root of "
            "the mean square.",
            _other(size=lambda lean: lean.std(dim=1)),
        ),
        Misconception(
            "sum and difference exchanged",
            "What favours the right name, whichever it is, stays in half the sum of a "
            "pair; a lean in half the difference.",
            lambda clean, swapped: _what_is_read(clean, -swapped),
        ),
        Misconception(
            "deviation taken for the error of the mean",
            "The mean is compared with the deviation over pairs. Its error is "
            "smaller, by the root of their number.",
            _other(error=lambda effect: effect.std(dim=1)),
        ),
        Misconception(
            "no error at all",
            "A mean of 2 % may be an accident of these pairs. Compare it with its "
            "error as well.",
            _other(error=lambda effect: torch.zeros(len(effect))),
        ),
        Misconception(
            "lean asked first",
            "A place can do both. First ask whether the answer is read, and only then "
            "for a lean.",
            _lean_first,
        ),
    ),
)
