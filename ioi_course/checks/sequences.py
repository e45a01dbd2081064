"""The check of exercise 8.1: the reader's choice of sequences, on which a head that
only counts steps is told apart."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception

__all__ = ["separating_tokens"]


def _again(order: Callable[[Tensor], Tensor]) -> Callable:
    """The answer that writes BOS, the drawn tokens, and what `order` makes of them."""

    def answer(drawn: Int[Tensor, "batch n"], bos: int) -> Int[Tensor, "batch pos"]:
        return torch.cat(
            [torch.full_like(drawn[:, :1], bos), drawn, order(drawn)], dim=1
        )

    return answer


def _separating_tokens(
    drawn: Int[Tensor, "batch n"], bos: int
) -> Int[Tensor, "batch pos"]:
    return _again(lambda drawn: drawn.flip(1))(drawn, bos)


def _counted(tokens: Int[Tensor, "batch pos"]) -> tuple[int, Float[Tensor, "batch"]]:
    """The number of steps back that most often leads to what followed the earlier copy,
    and how often in each row."""
    earlier = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)
    # nothing wraps: nothing comes after the last position
    wanted = earlier.roll(1, dims=2)
    shares = torch.stack(
        [wanted.diagonal(-steps, 1, 2).sum(1) for steps in range(tokens.shape[1])]
    )
    shares = shares.double() / earlier.any(2).sum(1).clamp(min=1)
    best = shares.mean(1).argmax().item()
    return best, shares[best]


def _exposed(choice: Tensor, drawn: Tensor, bos: int) -> dict[str, str | bool]:
    """What the chosen sequences do: is a head that only counts steps told apart on
    them, and are they what was asked?"""
    if not isinstance(choice, Tensor) or choice.ndim != 2 or len(choice) != len(drawn):
        raise TypeError(
            f"return a tensor [batch, pos] with a row for each of the {len(drawn)} "
            "rows of `drawn`."
        )
    front = bool((choice[:, 0] == bos).all())
    rest = choice[:, int(front) :]
    wanted = drawn.repeat(1, 2).sort(1).values
    twice = rest.shape == wanted.shape and bool((rest.sort(1).values == wanted).all())
    steps, shares = _counted(rest)
    fooled = shares > 0.5
    where = "on all sequences" if fooled.all() else "on some sequences"
    back = (
        f"finds it {where}, n {steps - drawn.shape[1]:+d} steps back"
        if fooled.any()
        else "is told apart"
    )
    return {
        "a head that counts steps": back,
        "every drawn token twice": twice,
        "BOS in front": front,
    }


def _first_row_only(drawn, bos):
    return torch.cat(
        [
            _separating_tokens(drawn[:1], bos),
            _again(lambda drawn: drawn)(drawn[1:], bos),
        ]
    )


def _drawn_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    sizes = ((3, 9), (4, 12), (2, 8), (5, 16))
    return [
        (torch.stack([torch.randperm(50, generator=g)[:n] for _ in range(batch)]), 50)
        for batch, n in sizes
    ]


separating_tokens = Exercise(
    number="8.1",
    title="A head that only counts",
    solution=_separating_tokens,
    cases=_drawn_cases,
    misconceptions=(
        Misconception(
            "the same order again",
            "What followed the first copy is n − 1 steps back for every token of the "
            "second: a head that counts is right everywhere, without reading a token.",
            _again(lambda drawn: drawn),
        ),
        Misconception(
            "the second copy rotated",
            "The number of steps is another one now, but still the same for nearly all "
            "tokens. A head that counts so far would be right. Which order gives each "
            "token a number of its own?",
            _again(lambda drawn: drawn.roll(-1, 1)),
        ),
        Misconception(
            "each token directly after its copy",
            "What follows the first copy is then the second copy itself, zero steps "
            "back, for every token.",
            lambda drawn, bos: torch.cat(
                [torch.full_like(drawn[:, :1], bos), drawn.repeat_interleave(2, 1)],
                dim=1,
            ),
        ),
        Misconception(
            "other tokens in the second half",
            "Without a repetition there is nothing that an induction head could find "
            "either, so both score 0.",
            _again(lambda drawn: drawn + 100),
        ),
        Misconception(
            "BOS left out",
            "Position 0 is to be BOS, so that a head that finds nothing has "
            "somewhere to rest.",
            lambda drawn, bos: _separating_tokens(drawn, bos)[:, 1:],
        ),
        Misconception(
            "only the first sequence told apart",
            "On the others the head that counts is right as before, and the mean says "
            "little. Change every sequence.",
            _first_row_only,
        ),
    ),
    outcome=_exposed,
)
