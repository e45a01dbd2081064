"""Checks of chapter 3 about the final LayerNorm: holding its
scale, folding its weight."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, Verdict
from ioi_course.checks.inputs import normal, seeded
from ioi_course.waiting import wait_for

__all__ = ["hold_the_scale", "fold_layer_norm"]


# --- 3.5 ---

_EPS = 1e-5


def _centred(stream: Tensor, centre: bool = True) -> Tensor:
    return stream - stream.mean(dim=-1, keepdim=True) if centre else stream


def _scale(stream: Tensor, centre: bool = True) -> Float[Tensor, "... 1"]:
    return (_centred(stream, centre).pow(2).mean(dim=-1, keepdim=True) + _EPS).sqrt()


def _project(
    stream: Tensor, scale: Tensor, direction: Tensor, centre: bool = True
) -> Float[Tensor, "place batch"]:
    return (_centred(stream, centre) / scale * direction).sum(dim=-1)


def _hold_the_scale(
    stream: Float[Tensor, "place batch d_model"],
    direction: Float[Tensor, "batch d_model"],
    centre: bool,
) -> Float[Tensor, "place batch"]:
    return _project(stream, _scale(stream[-1], centre), direction, centre)


def _hold_the_scale_cases(seed: int) -> list[tuple]:
    generator, cases = seeded(seed), []
    for places, batch, d_model in (
        (7, 3, 16),
        (5, 1, 8),
        (3, 4, 12),
        (9, 2, 32),
        (4, 5, 6),
    ):
        growth = torch.linspace(0.5, 4, places, dtype=torch.float64)[:, None, None]
        prompts = torch.linspace(1, 2, batch, dtype=torch.float64)[:, None]
        stream = growth * prompts * normal(generator, places, batch, d_model) + normal(
            generator, batch, 1
        )
        cases.append((stream, normal(generator, batch, d_model), len(cases) != 1))
    return cases


hold_the_scale = Exercise(
    number="3.5",
    title="Hold the scale",
    solution=_hold_the_scale,
    cases=_hold_the_scale_cases,
    misconceptions=(
        Misconception(
            "scale not held",
            "Each place is divided by its own scale. Take the scale of the last "
            "place, for all of them.",
            lambda stream, direction, centre: _project(
                stream, _scale(stream, centre), direction, centre
            ),
        ),
        Misconception(
            "scale of the first place",
            "The scale is held, but it is that of the first place. The model divides "
            "once, at the end.",
            lambda stream, direction, centre: _project(
                stream, _scale(stream[0], centre), direction, centre
            ),
        ),
        Misconception(
            "one scale for all prompts",
            "The scale was averaged over prompts. Each prompt has its own.",
            lambda stream, direction, centre: _project(
                stream, _scale(stream[-1], centre).mean(), direction, centre
            ),
        ),
        Misconception(
            "no scale at all",
            "The stream is not divided by anything; LayerNorm divides by the scale.",
            lambda stream, direction, centre: _project(
                stream, torch.ones(()), direction, centre
            ),
        ),
        Misconception(
            "mean not subtracted",
            "Where `centre` is true the mean over d_model is subtracted before the "
            "division. These streams have one.",
            lambda stream, direction, centre: (
                stream / _scale(stream[-1], centre) * direction
            ).sum(dim=-1),
        ),
        Misconception(
            "mean always subtracted",
            "RMSNorm (`centre` is false) subtracts nothing, and its scale is taken of "
            "the stream as it is.",
            lambda stream, direction, centre: _hold_the_scale(stream, direction, True),
        ),
        Misconception(
            "length taken for scale",
            "The stream is divided by its length. LayerNorm's scale is the root of "
            "the *mean* square, not of the sum.",
            lambda stream, direction, centre: _project(
                stream,
                _scale(stream[-1], centre) * stream.shape[-1] ** 0.5,
                direction,
                centre,
            ),
        ),
        Misconception(
            "variance taken for scale",
            "The stream is divided by the variance. The scale is its root.",
            lambda stream, direction, centre: _project(
                stream, _scale(stream[-1], centre) ** 2, direction, centre
            ),
        ),
        Misconception(
            "mean over the wrong axis",
            "The mean was taken over the batch. LayerNorm looks at one vector at a "
            "time: mean and scale go over d_model.",
            lambda stream, direction, centre: (
                (stream - stream.mean(dim=1, keepdim=True))
                / _scale(stream[-1], centre)
                * direction
            ).sum(dim=-1),
        ),
    ),
)


# --- 3.7 ---


def _fold_layer_norm(
    weight: Float[Tensor, "d_model"],
    bias: Float[Tensor, "d_model"],
    W_U: Float[Tensor, "d_model vocab"],
    b_U: Float[Tensor, "vocab"],
) -> tuple[Float[Tensor, "d_model vocab"], Float[Tensor, "vocab"]]:
    return weight[:, None] * W_U, bias @ W_U + b_U


def _fold_layer_norm_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    shapes = ((8, 20), (4, 4), (16, 5), (6, 6), (12, 30))
    return [
        (
            1 + 0.5 * normal(generator, d),
            normal(generator, d),
            normal(generator, d, v),
            normal(generator, v),
        )
        for d, v in shapes
    ]


def _in_logits(answer: Callable) -> Callable:
    """What a new W_U and b_U make of vectors that LayerNorm has centred and
    divided, but not weighed."""

    @wraps(answer)
    def logits(weight, bias, W_U, b_U):
        folded = answer(weight, bias, W_U, b_U)
        if folded is None or folded is ...:
            return None
        new_W_U, new_b_U = (
            torch.as_tensor(part, dtype=torch.float64) for part in folded
        )
        if new_W_U.shape != W_U.shape or new_b_U.shape != b_U.shape:
            raise ValueError(
                f"the new W_U is {list(new_W_U.shape)} and b_U {list(new_b_U.shape)}; "
                f"they should be {list(W_U.shape)} and {list(b_U.shape)}"
            )
        vectors = normal(seeded(0), 2 * len(weight), len(weight))
        normed = torch.nn.functional.layer_norm(vectors, vectors.shape[-1:])
        return normed @ new_W_U + new_b_U

    return logits


@dataclass(frozen=True, repr=False)
class _ByLogits(Exercise):
    """A check that compares the logits which new weights give: more than one
    pair of weights is right."""

    def __call__(self, answer: Callable, seed: int = 0) -> Verdict:
        if not callable(answer):  # not written, or no function: the check says which
            return super().__call__(answer, seed)
        known = tuple(
            replace(one, answer=_in_logits(one.answer)) for one in self.misconceptions
        )
        inner = Exercise(
            self.number, self.title, _in_logits(self.solution), self.cases, known
        )
        verdict = inner(_in_logits(answer), seed)
        if verdict.kind == "not written":
            wait_for(answer, self.number)
        return verdict


fold_layer_norm = _ByLogits(
    number="3.7",
    title="Fold the final LayerNorm",
    solution=_fold_layer_norm,
    cases=_fold_layer_norm_cases,
    misconceptions=(
        Misconception(
            "bias of LayerNorm lost",
            "The new bias is the old one. LayerNorm's bias goes through the "
            "unembedding, too, and must end up there.",
            lambda weight, bias, W_U, b_U: (weight[:, None] * W_U, b_U),
        ),
        Misconception(
            "bias of the unembedding lost",
            "The new bias has LayerNorm's part alone; b_U was there before, and stays.",
            lambda weight, bias, W_U, b_U: (weight[:, None] * W_U, bias @ W_U),
        ),
        Misconception(
            "bias put through the folded weight",
            "LayerNorm adds its bias after it has multiplied by its weight: the bias "
            "does not meet that weight.",
            lambda weight, bias, W_U, b_U: (
                weight[:, None] * W_U,
                bias @ (weight[:, None] * W_U) + b_U,
            ),
        ),
        Misconception(
            "divided by the weight",
            "LayerNorm multiplies by its weight; what takes its place must multiply "
            "by it as well.",
            lambda weight, bias, W_U, b_U: (W_U / weight[:, None], bias @ W_U + b_U),
        ),
        Misconception(
            "weight left out",
            "Only the bias was folded. W_U has to do the multiplication with "
            "LayerNorm's weight.",
            lambda weight, bias, W_U, b_U: (W_U, bias @ W_U + b_U),
        ),
    ),
)
