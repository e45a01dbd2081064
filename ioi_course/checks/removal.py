"""Checks of chapter 4 about taking a part of the model out: silent heads, and the final
stream without a part."""

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.attribution import _centred, _dot
from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.checks.inputs import normal, seeded

__all__ = ["without_heads", "removed"]


# --- 4.5 ---


def _without_heads(
    model, data, layer: int, heads: list[int], pos: str | None = None, role: str = "END"
) -> Tensor:
    rows = torch.arange(len(data))

    def silence(z, hook):
        z = z.clone()
        if pos is None:
            z[:, :, heads] = 0
        else:
            for head in heads:
                z[rows, data.pos[pos], head] = 0
        return z

    with (
        torch.no_grad(),
        model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_z", silence)]),
    ):
        logits = model(data.tokens)
    at = logits[:, -1] if role == "padding" else logits[rows, data.pos[role]]
    io, s = at.gather(1, data.answers).unbind(dim=1)
    return io - s


def _without_heads_cases(seed: int) -> list[tuple]:
    models = random_model(seed), random_model(seed + 1, processing=())
    chosen = (
        (models[0], 5, 0, [1, 3]),
        (models[1], 4, 1, [2, 0, 1]),
        (models[0], 3, 2, [1]),
        (models[0], 4, 1, [3, 2]),
    )
    return [
        (model, random_data(model, n, seed + i), layer, heads)
        for i, (model, n, layer, heads) in enumerate(chosen)
    ]


without_heads = Exercise(
    number="4.5",
    title="Silence",
    solution=lambda model, data, layer, heads: _without_heads(
        model, data, layer, heads
    ),
    cases=_without_heads_cases,
    misconceptions=(
        Misconception(
            "silenced at END only",
            "The heads still speak at all positions but END, and later heads hear "
            "them there. Silence them everywhere.",
            lambda model, data, layer, heads: _without_heads(
                model, data, layer, heads, "END"
            ),
        ),
        Misconception(
            "nothing silenced",
            "This is the model's own logit difference. A hook acts through what "
            "it returns.",
            lambda model, data, layer, heads: _without_heads(model, data, layer, []),
        ),
        Misconception(
            "the whole layer silenced",
            "All heads of the layer are silent. Only those in `heads` should be.",
            lambda model, data, layer, heads: _without_heads(
                model, data, layer, list(range(model.cfg.n_heads))
            ),
        ),
        Misconception(
            "the other heads silenced",
            "The heads in `heads` are the ones that are left. They are the ones "
            "to silence.",
            lambda model, data, layer, heads: _without_heads(
                model,
                data,
                layer,
                [h for h in range(model.cfg.n_heads) if h not in heads],
            ),
        ),
        Misconception(
            "the first head only",
            "Only the first head of the list is silent.",
            lambda model, data, layer, heads: _without_heads(
                model, data, layer, heads[:1]
            ),
        ),
        Misconception(
            "padding taken for END",
            "The last position is read, which is padding in all but the longest "
            "prompts. Each prompt has its own END.",
            lambda model, data, layer, heads: _without_heads(
                model, data, layer, heads, role="padding"
            ),
        ),
        Misconception(
            "the fall, not what is left",
            "This is by how much the difference falls. Asked for is the logit "
            "difference that is left.",
            lambda model, data, layer, heads: (
                _without_heads(model, data, layer, [])
                - _without_heads(model, data, layer, heads)
            ),
        ),
        Misconception(
            "mean over prompts",
            "One number came back for all prompts. Asked for is one per prompt.",
            lambda model, data, layer, heads: _without_heads(
                model, data, layer, heads
            ).mean(),
        ),
    ),
)


# --- 4.6 ---


def _final(
    x: Float[Tensor, "batch d_model"], centre: bool
) -> Float[Tensor, "batch d_model"]:
    """LayerNorm, or RMSNorm where nothing is centred; without weight or bias."""
    return (_centred(x) if centre else x) / _scale_of(x, centre)


def _scale_of(x: Tensor, centre: bool) -> Tensor:
    return (
        (_centred(x) if centre else x)
        .pow(2)
        .mean(dim=-1, keepdim=True)
        .add(1e-5)
        .sqrt()
    )


def _removed(
    final: Float[Tensor, "batch d_model"],
    wrote: Float[Tensor, "batch d_model"],
    direction: Float[Tensor, "batch d_model"],
    centre: bool,
) -> Float[Tensor, "batch"]:
    return _dot(_final(final, centre) - _final(final - wrote, centre), direction)


def _held(
    wrote: Tensor, direction: Tensor, scale: Tensor, centre: bool
) -> Float[Tensor, "batch"]:
    return _dot((_centred(wrote) if centre else wrote) / scale, direction)


def _removed_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    cases = []
    for batch, size in ((4, 1.0), (1, 2.0), (5, 0.5), (3, 3.0)):
        wrote = size * normal(generator, batch, 16) + 0.3
        final = 2 * normal(generator, batch, 16) + 0.5 + wrote
        cases.append(
            (final, wrote, normal(generator, batch, 16) + 0.5, len(cases) != 2)
        )
    return cases


removed = Exercise(
    number="4.6",
    title="Take it out",
    solution=_removed,
    cases=_removed_cases,
    misconceptions=(
        Misconception(
            "scale held",
            "This is the direct contribution, with the scale as it was. Without the "
            "part the stream has another size, and everything else is divided by that.",
            lambda final, wrote, direction, centre: _held(
                wrote, direction, _scale_of(final, centre), centre
            ),
        ),
        Misconception(
            "scale of what is left, for both",
            "The stream as it was is divided by its own scale; only what is left is "
            "divided by the new one.",
            lambda final, wrote, direction, centre: _held(
                wrote, direction, _scale_of(final - wrote, centre), centre
            ),
        ),
        Misconception(
            "LayerNorm of the part alone",
            "The part is divided by its own size. What is asked is how the LayerNorm "
            "of the whole changes without it.",
            lambda final, wrote, direction, centre: _dot(
                _final(wrote, centre), direction
            ),
        ),
        Misconception(
            "mean always subtracted",
            "RMSNorm (`centre` is false) subtracts nothing, and its scale is taken of "
            "the stream as it is.",
            lambda final, wrote, direction, centre: _removed(
                final, wrote, direction, True
            ),
        ),
        Misconception(
            "opposite sign",
            "A part that helped gives a negative number here. Before minus after.",
            lambda final, wrote, direction, centre: (
                -_removed(final, wrote, direction, centre)
            ),
        ),
        Misconception(
            "added once more",
            "The part was added to a stream that has it already. Take it away.",
            lambda final, wrote, direction, centre: _dot(
                _final(final + wrote, centre) - _final(final, centre), direction
            ),
        ),
        Misconception(
            "what is left taken for the change",
            "This is the logit difference without the part. Asked is by how much "
            "it is less.",
            lambda final, wrote, direction, centre: _dot(
                _final(final - wrote, centre), direction
            ),
        ),
        Misconception(
            "final LayerNorm forgotten",
            "Without LayerNorm nothing would depend on the rest of the stream.",
            lambda final, wrote, direction, centre: _dot(wrote, direction),
        ),
    ),
)
