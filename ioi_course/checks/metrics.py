"""Checks of chapter 2: the logit difference and its scale."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import seeded

__all__ = ["diff_at_end", "on_scale", "mean_and_error", "effect_and_lean"]


def _diff_at_end(
    logits: Float[Tensor, "batch pos vocab"],
    answers: Int[Tensor, "batch 2"],
    end: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    io, s = logits[torch.arange(len(logits)), end].gather(1, answers).unbind(dim=1)
    return io - s


def _logit_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    cases = []
    for batch, pos in ((4, 9), (1, 7), (6, 8)):
        logits = 3 * torch.randn(batch, pos, 12, generator=rng, dtype=torch.float64)
        answers = torch.stack(
            [torch.randperm(12, generator=rng)[:2] for _ in range(batch)]
        )
        end = torch.randint(3, pos - 1, (batch,), generator=rng)
        cases.append((logits, answers, end))
    return cases


diff_at_end = Exercise(
    number="2.1",
    title="The difference at END",
    solution=_diff_at_end,
    cases=_logit_cases,
    misconceptions=(
        Misconception(
            "last column taken for END",
            "Position -1 is END of the longest prompt only; in the others it "
            "is padding.",
            lambda logits, answers, end: _diff_at_end(
                logits, answers, torch.full_like(end, logits.shape[1] - 1)
            ),
        ),
        Misconception(
            "END off by one",
            "These are the logits one position before END, which predict END's "
            "own token.",
            lambda logits, answers, end: _diff_at_end(logits, answers, end - 1),
        ),
        Misconception(
            "IO and S exchanged",
            "The difference has the opposite sign: IO is the first column of answers.",
            lambda logits, answers, end: _diff_at_end(logits, answers.flip(1), end),
        ),
        Misconception(
            "softmax before the difference",
            "A difference of probabilities depends on all the other tokens; take the "
            "difference of the logits.",
            lambda logits, answers, end: _diff_at_end(
                logits.softmax(dim=-1), answers, end
            ),
        ),
        Misconception(
            "S was not subtracted",
            "This is the logit of IO alone, which moves with every constant that the "
            "model adds to all logits.",
            lambda logits, answers, end: logits[torch.arange(len(logits)), end].gather(
                1, answers
            )[:, 0],
        ),
        Misconception(
            "mean over prompts",
            "One number for each prompt was asked for; the mean comes later.",
            lambda logits, answers, end: _diff_at_end(logits, answers, end).mean(),
        ),
    ),
)


def _on_scale(
    patched: Float[Tensor, "..."], clean: float, corrupted: float
) -> Float[Tensor, "..."]:
    return (patched - corrupted) / (clean - corrupted)


def _scale_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    clean = 3 + torch.rand(3, generator=rng).double()
    corrupted = -1 - torch.rand(3, generator=rng).double()
    shapes = ((3, 4), (5,), (2, 3))
    patched = [
        3 * torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes
    ]
    ends = [
        (clean[0], corrupted[0]),
        (corrupted[1], clean[1]),
        (clean[2], clean[2] / 4),
    ]
    return [
        (values, one.item(), zero.item())
        for values, (one, zero) in zip(patched, ends, strict=True)
    ]


on_scale = Exercise(
    number="2.2",
    title="A scale from 0 to 1",
    solution=_on_scale,
    cases=_scale_cases,
    misconceptions=(
        Misconception(
            "scale upside down",
            "Here the clean run gives 0 and the corrupted one 1.",
            lambda patched, clean, corrupted: _on_scale(patched, corrupted, clean),
        ),
        Misconception(
            "zero left where it was",
            "The corrupted run must give 0: shift before dividing.",
            lambda patched, clean, corrupted: patched / (clean - corrupted),
        ),
        Misconception(
            "not divided by the gap",
            "The shift is right; the clean run must give 1.",
            lambda patched, clean, corrupted: patched - corrupted,
        ),
        Misconception(
            "share of the clean value",
            "This divides by the clean value. On a metric that changes its sign that "
            "is no share of anything.",
            lambda patched, clean, corrupted: patched / clean,
        ),
        Misconception(
            "gap without its sign",
            "With the size of the gap the scale runs backwards wherever the corrupted "
            "value is the larger one.",
            lambda patched, clean, corrupted: (
                (patched - corrupted) / abs(clean - corrupted)
            ),
        ),
    ),
)


def _mean_and_error(diff: Float[Tensor, "batch"]) -> tuple[float, float]:
    return diff.mean().item(), diff.std().item() / len(diff) ** 0.5


def _diff_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    return [
        (3 + 2 * torch.randn(n, generator=rng, dtype=torch.float64),)
        for n in (5, 30, 8)
    ]


mean_and_error = Exercise(
    number="2.3",
    title="The error of a mean",
    solution=_mean_and_error,
    cases=_diff_cases,
    misconceptions=(
        Misconception(
            "deviation taken for the error",
            "The deviation says how much prompts differ, and stays as it is with more "
            "of them. The error of a mean shrinks.",
            lambda diff: (diff.mean(), diff.std()),
        ),
        Misconception(
            "divided by n, not by its root",
            "Four times the prompts halve the error; here they quarter it.",
            lambda diff: (diff.mean(), diff.std() / len(diff)),
        ),
        Misconception(
            "variance taken for the deviation",
            "A variance has the unit logits squared.",
            lambda diff: (diff.mean(), diff.var() / len(diff) ** 0.5),
        ),
        Misconception(
            "deviation of these prompts only",
            "Divide the squares by n - 1: the prompts are a sample, and their own "
            "mean fits them a little too well.",
            lambda diff: (diff.mean(), diff.std(correction=0) / len(diff) ** 0.5),
        ),
        Misconception(
            "median taken for the mean",
            "The formula for the error is that of the mean.",
            lambda diff: (diff.median(), diff.std() / len(diff) ** 0.5),
        ),
    ),
)


def _effect_and_lean(
    clean: Float[Tensor, "batch"], swapped: Float[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    return (clean + swapped) / 2, (clean - swapped) / 2


def _pair_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    return [
        tuple(3 + 2 * torch.randn(2, n, generator=rng, dtype=torch.float64))
        for n in (4, 7, 2)
    ]


effect_and_lean = Exercise(
    number="2.4",
    title="Effect and lean",
    solution=_effect_and_lean,
    cases=_pair_cases,
    misconceptions=(
        Misconception(
            "effect and lean exchanged",
            "Each run is measured for its own answers, so a rule that finds IO adds to "
            "both; a lean to one name adds to one and takes from the other.",
            lambda clean, swapped: _effect_and_lean(clean, swapped)[::-1],
        ),
        Misconception(
            "not halved",
            "Two runs were added up: each contains the effect once.",
            lambda clean, swapped: (clean + swapped, clean - swapped),
        ),
        Misconception(
            "lean in the wrong direction",
            "Positive should mean a lean to the name that is IO in the clean prompt.",
            lambda clean, swapped: ((clean + swapped) / 2, (swapped - clean) / 2),
        ),
        Misconception(
            "lean without its sign",
            "Without the sign nobody can tell to which name the model leans, and the "
            "leans no longer cancel in a mean.",
            lambda clean, swapped: ((clean + swapped) / 2, (clean - swapped).abs() / 2),
        ),
        Misconception(
            "mean over prompts",
            "One effect and one lean for each pair: the mean of the leans hides them.",
            lambda clean, swapped: tuple(
                part.mean() for part in _effect_and_lean(clean, swapped)
            ),
        ),
    ),
)
