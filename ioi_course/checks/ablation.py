"""Checks of chapter 11, backup name movers; those about what backups do for each
other are in `backups`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.backups import idle_or_replaced, keep_still
from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import normal, seeded

__all__ = [
    "knock_out",
    "repaired_share",
    "idle_or_replaced",
    "by_output_and_scale",
    "by_attention_and_value",
    "keep_still",
]


def _uniform(
    generator: torch.Generator, low: float, high: float, *shape: int
) -> Tensor:
    return low + (high - low) * torch.rand(
        *shape, generator=generator, dtype=torch.float64
    )


# --- 11.1 ---


def _zeroed(z: Tensor, *index) -> Tensor:
    z = z.clone()
    z[index] = 0
    return z


def _knock_out(
    z: Float[Tensor, "batch pos head d_head"], head: int, end: Int[Tensor, "batch"]
) -> Float[Tensor, "batch pos head d_head"]:
    return _zeroed(z, torch.arange(len(z)), end, head)


def _only_head(z: Tensor, head: int, end: Tensor) -> Tensor:
    others = [i for i in range(z.shape[2]) if i != head]
    return _zeroed(
        z, torch.arange(len(z))[:, None], end[:, None], torch.tensor(others)[None]
    )


def _knock_out_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    return [
        (
            normal(generator, batch, pos, 4, 3),
            head,
            torch.cat(
                [
                    torch.tensor([pos - 2]),
                    torch.randint(2, pos - 1, (batch - 1,), generator=generator),
                ]
            ),
        )
        for batch, pos, head in ((4, 9, 1), (1, 8, 0), (5, 7, 3), (3, 10, 2))
    ]


knock_out = Exercise(
    number="11.1",
    title="Knock it out",
    solution=_knock_out,
    cases=_knock_out_cases,
    misconceptions=(
        Misconception(
            "padding taken for END",
            "The last position is padding in all but the longest prompts. `end` says "
            "where each one ends.",
            lambda z, head, end: _zeroed(z, slice(None), -1, head),
        ),
        Misconception(
            "END off by one",
            "The position before END is zero. `end` is an index already, not a length.",
            lambda z, head, end: _zeroed(z, torch.arange(len(z)), end - 1, head),
        ),
        Misconception(
            "every prompt's END in every prompt",
            "`z[:, end, head]` takes all the positions in `end` for each prompt. Pair "
            "each row with its own.",
            lambda z, head, end: _zeroed(z, slice(None), end, head),
        ),
        Misconception(
            "every position ablated",
            "The head is zero everywhere; asked for was END alone.",
            lambda z, head, end: _zeroed(z, slice(None), slice(None), head),
        ),
        Misconception(
            "every head ablated",
            "At END all heads of the layer are zero; asked for was one of them.",
            lambda z, head, end: _zeroed(z, torch.arange(len(z)), end),
        ),
        Misconception(
            "the other heads ablated",
            "This keeps the one head and takes out all the others.",
            _only_head,
        ),
    ),
)


# --- 11.2 ---


def _repaired_share(
    before: Float[Tensor, "batch"],
    after: Float[Tensor, "batch"],
    direct: Float[Tensor, "batch"],
) -> float:
    return (1 - (before - after).mean() / direct.mean()).item()


def _repaired_share_cases(seed: int) -> list[tuple]:
    generator, cases = seeded(seed), []
    for batch, repaired in ((6, 0.8), (3, 0.3), (8, 1.2), (5, -0.2)):
        before = _uniform(generator, 2, 5, batch)
        direct = torch.cat([torch.tensor([0.05]), _uniform(generator, 1, 4, batch - 1)])
        after = before - direct * (1 - repaired) + 0.3 * normal(generator, batch)
        cases.append((before, after, direct))
    return cases


repaired_share = Exercise(
    number="11.2",
    title="How much is repaired",
    solution=_repaired_share,
    cases=_repaired_share_cases,
    misconceptions=(
        Misconception(
            "mean of ratios",
            "Each prompt's share is taken, and then the mean. A prompt with a small "
            "direct effect dominates that: take the means first.",
            lambda before, after, direct: (1 - (before - after) / direct).mean().item(),
        ),
        Misconception(
            "share lost taken for share repaired",
            "This is the part of the predicted loss that did come about.",
            lambda before, after, direct: (
                (before - after).mean() / direct.mean()
            ).item(),
        ),
        Misconception(
            "what is left of the logit difference",
            "This compares the model with and without the head. The question is about "
            "the loss that was predicted from the direct effect.",
            lambda before, after, direct: (after.mean() / before.mean()).item(),
        ),
        Misconception(
            "sign of the loss",
            "After minus before is negative when something is lost; the direct effect "
            "is positive. Which loss is it?",
            lambda before, after, direct: (
                1 - (after - before).mean() / direct.mean()
            ).item(),
        ),
        Misconception(
            "in logits, not as a share",
            "This is how many logits were repaired. Relative to what was predicted "
            "to be lost?",
            lambda before, after, direct: (after - (before - direct)).mean().item(),
        ),
        Misconception(
            "relative to the logit difference",
            "The repaired logits are right, and they are divided by the logit "
            "difference before. Divide by the loss that was predicted.",
            lambda before, after, direct: (
                (after - before + direct).mean() / before.mean()
            ).item(),
        ),
    ),
)


# --- 11.4 ---


def _by_output_and_scale(
    before: Float[Tensor, "batch head"],
    after: Float[Tensor, "batch head"],
    scale_before: Float[Tensor, "batch"],
    scale_after: Float[Tensor, "batch"],
) -> Float[Tensor, "2 batch head"]:
    held = after * (scale_after / scale_before)[:, None]
    return torch.stack([held - before, after - held])


def _with_mean_ratio(
    before: Tensor, after: Tensor, scale_before: Tensor, scale_after: Tensor
) -> Tensor:
    ratio = (scale_before / scale_after).mean()
    return torch.stack([after / ratio - before, after - after / ratio])


def _scale_first(
    before: Tensor, after: Tensor, scale_before: Tensor, scale_after: Tensor
) -> Tensor:
    grown = before * (scale_before / scale_after)[:, None]
    return torch.stack([after - grown, grown - before])


def _by_output_and_scale_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    return [
        (
            normal(generator, batch, heads),
            normal(generator, batch, heads),
            _uniform(generator, 15, 20, batch),
            _uniform(generator, 10, 14, batch),
        )
        for batch, heads in ((4, 3), (1, 4), (5, 2), (3, 6))
    ]


by_output_and_scale = Exercise(
    number="11.4",
    title="By output, by scale",
    solution=_by_output_and_scale,
    cases=_by_output_and_scale_cases,
    misconceptions=(
        Misconception(
            "scale not held",
            "The whole change is called output, so what the scale does is in it. Put "
            "both runs on the scale before.",
            lambda before, after, scale_before, scale_after: torch.stack(
                [after - before, torch.zeros_like(before)]
            ),
        ),
        Misconception(
            "ratio upside down",
            "To undo the division by the new scale, multiply by the new one; then "
            "divide by the old one.",
            lambda before, after, scale_before, scale_after: _by_output_and_scale(
                before, after, scale_after, scale_before
            ),
        ),
        Misconception(
            "held at the scale after",
            "These add up as well, but here the scale changes first and the output "
            "second. Asked for was the output's change with the scale before.",
            _scale_first,
        ),
        Misconception(
            "one ratio for all prompts",
            "Each prompt has its own scales; the mean ratio is right for none of them.",
            _with_mean_ratio,
        ),
        Misconception(
            "the two in the other order",
            "The two parts are right. First comes the one by output.",
            lambda before, after, scale_before, scale_after: _by_output_and_scale(
                before, after, scale_before, scale_after
            ).flip(0),
        ),
        Misconception(
            "scales applied once more",
            "The direct effects are divided by their scales already. This "
            "divides again.",
            lambda before, after, scale_before, scale_after: torch.stack(
                [
                    (after - before) / scale_before[:, None],
                    after * (1 / scale_after - 1 / scale_before)[:, None],
                ]
            ),
        ),
    ),
)


# --- 11.5 ---


def _by_attention_and_value(
    attention_before: Float[Tensor, "batch pos"],
    attention_after: Float[Tensor, "batch pos"],
    worth_before: Float[Tensor, "batch pos"],
    worth_after: Float[Tensor, "batch pos"],
) -> Float[Tensor, "2 batch"]:
    from_attention = ((attention_after - attention_before) * worth_before).sum(dim=-1)
    from_value = (attention_after * (worth_after - worth_before)).sum(dim=-1)
    return torch.stack([from_attention, from_value])


def _crossed(
    attention_before: Tensor,
    attention_after: Tensor,
    worth_before: Tensor,
    worth_after: Tensor,
) -> Tensor:
    attention, worth = attention_after - attention_before, worth_after - worth_before
    return torch.stack(
        [(attention * worth_before).sum(dim=-1), (attention_before * worth).sum(dim=-1)]
    )


def _value_first(
    attention_before: Tensor,
    attention_after: Tensor,
    worth_before: Tensor,
    worth_after: Tensor,
) -> Tensor:
    attention, worth = attention_after - attention_before, worth_after - worth_before
    return torch.stack(
        [(attention * worth_after).sum(dim=-1), (attention_before * worth).sum(dim=-1)]
    )


def _attention_alone(
    attention_before: Tensor,
    attention_after: Tensor,
    worth_before: Tensor,
    worth_after: Tensor,
) -> Tensor:
    moved = (attention_after - attention_before).abs().sum(dim=-1)
    return torch.stack([moved, (worth_after - worth_before).abs().sum(dim=-1)])


def _by_attention_and_value_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    return [
        (
            normal(generator, batch, pos).softmax(dim=-1),
            normal(generator, batch, pos).softmax(dim=-1),
            2 * normal(generator, batch, pos),
            2 * normal(generator, batch, pos),
        )
        for batch, pos in ((4, 6), (1, 5), (5, 7), (3, 9))
    ]


by_attention_and_value = Exercise(
    number="11.5",
    title="Attention or value",
    solution=_by_attention_and_value,
    cases=_by_attention_and_value_cases,
    misconceptions=(
        Misconception(
            "cross term lost",
            "Each factor is changed alone, so the two do not add up to the change: "
            "where both change, something is missing. Let the second factor meet the "
            "new state of the first.",
            _crossed,
        ),
        Misconception(
            "values changed first",
            "These add up, but attention is changed at the new values. Asked for was "
            "attention with the values as they were.",
            _value_first,
        ),
        Misconception(
            "the two in the other order",
            "The two parts are right. First comes the one from attention.",
            lambda *given: _by_attention_and_value(*given).flip(0),
        ),
        Misconception(
            "how much attention moved",
            "This is how far each factor moved, whatever it is worth. The question is "
            "about logits.",
            _attention_alone,
        ),
        Misconception(
            "mean over positions",
            "A head's output is the sum over sources, not the mean.",
            lambda attention_before, attention_after, worth_before, worth_after: (
                _by_attention_and_value(
                    attention_before, attention_after, worth_before, worth_after
                )
                / worth_before.shape[-1]
            ),
        ),
        Misconception(
            "before minus after",
            "The size is right and the sign is not: a head that rises has a "
            "positive change.",
            lambda *given: -_by_attention_and_value(*given),
        ),
    ),
)
