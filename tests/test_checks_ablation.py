"""Wrong answers to the exercises of chapter 11, written as students write them, and
what the checks make of them."""

import itertools

import numpy as np
import pytest
import torch

from ioi_course import checks

# --- 11.1 ---


def knock_out_last(z, head, end):
    z = z.clone()
    z[:, -1, head, :] = 0
    return z


def knock_out_before_end(z, head, end):
    z = z.clone()
    for i in range(z.shape[0]):
        z[i, end[i] - 1, head] = 0.0
    return z


def knock_out_all_ends(z, head, end):
    z = z.clone()
    z[:, end, head] = 0
    return z


def knock_out_everywhere(z, head, end):
    mask = torch.ones(z.shape[2], dtype=z.dtype)
    mask[head] = 0
    return z * mask[None, None, :, None]


def knock_out_the_layer(z, head, end):
    out = z.clone()
    for row, e in zip(out, end, strict=True):
        row[e] = 0
    return out


def knock_out_the_others(z, head, end):
    out = z.clone()
    for i, e in enumerate(end.tolist()):
        for h in range(z.shape[2]):
            if h != head:
                out[i, e, h] = 0
    return out


# --- 11.2 ---


def share_of_each_prompt(before, after, direct):
    loss = before - after
    return sum((1 - loss[i] / direct[i]).item() for i in range(len(loss))) / len(loss)


def share_lost(before, after, direct):
    return (before.mean() - after.mean()) / direct.mean()


def share_left(before, after, direct):
    return float(after.sum() / before.sum())


def share_with_the_wrong_sign(before, after, direct):
    change = after.mean() - before.mean()
    return (direct.mean() - change) / direct.mean()


def repaired_logits(before, after, direct):
    naive = before - direct
    return float((after - naive).mean())


def share_of_the_whole(before, after, direct):
    naive = before - direct
    return float((after - naive).mean() / before.mean())


# --- 11.3 ---


def labels(measure, heads, least, second):
    """By hand: silence each head, then whatever `second` makes of it."""
    intact, found = measure([], []), {}
    for head in heads:
        rest = [h for h in heads if h != head]
        if intact - measure([head], []) >= least:
            found[head] = "needed"
        else:
            found[head] = second(intact, head, rest)
    return found


def cast_by_silence(measure, heads, least):
    return labels(measure, heads, least, lambda *_: "idle")


def cast_frozen_only(measure, heads, least):
    intact = measure([], [])
    costs = {h: intact - measure([h], [o for o in heads if o != h]) for h in heads}
    return {h: "needed" if cost >= least else "idle" for h, cost in costs.items()}


def cast_exchanged(measure, heads, least):
    return labels(
        measure,
        heads,
        least,
        lambda i, h, rest: "idle" if i - measure([h], rest) >= least else "replaced",
    )


def cast_in_an_empty_house(measure, heads, least):
    nothing = measure(heads, [])
    return labels(
        measure,
        heads,
        least,
        lambda i, h, rest: (
            "replaced" if measure(rest, []) - nothing >= least else "idle"
        ),
    )


def cast_by_what_is_left(measure, heads, least):
    return {
        head: "needed" if measure([head], []) >= least else "idle" for head in heads
    }


def cast_by_sets(measure, heads, least):
    """The right answer with sets, and the intact run measured
    with everything frozen."""
    intact = measure([], heads)
    needed = {h for h in heads if intact - measure([h], []) >= least}
    writes = {h for h in heads if intact - measure([h], set(heads) - {h}) >= least}
    return {
        h: "needed" if h in needed else "replaced" if h in writes else "idle"
        for h in heads
    }


# --- 11.4 ---


def split_without_holding(before, after, scale_before, scale_after):
    return torch.stack([after - before, 0 * after])


def split_upside_down(before, after, scale_before, scale_after):
    held = after * scale_before[:, None] / scale_after[:, None]
    return torch.stack([held - before, after - held])


def split_scale_first(before, after, scale_before, scale_after):
    wrote = before * scale_before[:, None]
    on_new = wrote / scale_after[:, None]
    return torch.stack([after - on_new, on_new - before])


def split_by_the_mean_ratio(before, after, scale_before, scale_after):
    r = torch.mean(scale_before / scale_after)
    output = after / r - before
    return torch.stack([output, after - before - output])


def split_the_other_way_round(before, after, scale_before, scale_after):
    output = after * scale_after[:, None] / scale_before[:, None] - before
    return torch.stack([after - before - output, output])


def split_divided_again(before, after, scale_before, scale_after):
    a, b = scale_before.unsqueeze(1), scale_after.unsqueeze(1)
    return torch.stack([(after - before) / a, after / b - after / a])


# --- 11.5 ---


def causes_without_the_cross_term(
    attention_before, attention_after, worth_before, worth_after
):
    da, dw = attention_after - attention_before, worth_after - worth_before
    return torch.stack(
        [
            torch.einsum("bp,bp->b", da, worth_before),
            torch.einsum("bp,bp->b", attention_before, dw),
        ]
    )


def causes_value_first(attention_before, attention_after, worth_before, worth_after):
    value = (attention_before * worth_after).sum(1) - (
        attention_before * worth_before
    ).sum(1)
    attention = (attention_after * worth_after).sum(1) - (
        attention_before * worth_after
    ).sum(1)
    return torch.stack([attention, value])


def causes_the_other_way_round(
    attention_before, attention_after, worth_before, worth_after
):
    attention = (attention_after * worth_before).sum(1) - (
        attention_before * worth_before
    ).sum(1)
    value = (attention_after * worth_after).sum(1) - (
        attention_after * worth_before
    ).sum(1)
    return torch.stack([value, attention])


def causes_in_distance(attention_before, attention_after, worth_before, worth_after):
    return torch.stack(
        [
            (attention_before - attention_after).abs().sum(1),
            (worth_before - worth_after).abs().sum(1),
        ]
    )


def causes_averaged(attention_before, attention_after, worth_before, worth_after):
    attention = ((attention_after - attention_before) * worth_before).mean(1)
    value = (attention_after * (worth_after - worth_before)).mean(1)
    return torch.stack([attention, value])


def causes_before_minus_after(
    attention_before, attention_after, worth_before, worth_after
):
    attention = ((attention_before - attention_after) * worth_before).sum(1)
    value = (attention_after * (worth_before - worth_after)).sum(1)
    return torch.stack([attention, value])


# --- 11.6 ---


def still_sorted(measure, heads, k):
    scores = {head: measure([head]) for head in heads}
    return [head for head, _ in sorted(scores.items(), key=lambda item: item[1])][:k]


def still_highest(measure, heads, k):
    found = []
    while len(found) < k:
        best, score = None, -1e9
        for head in heads:
            if head not in found and measure(found + [head]) > score:
                best, score = head, measure(found + [head])
        found.append(best)
    return found


def greedily(measure, heads, k):
    found = []
    while len(found) < k:
        scores = [
            (measure(found + [head]), head) for head in heads if head not in found
        ]
        found.append(min(scores)[1])
    return found


def still_in_order_of_layers(measure, heads, k):
    return sorted(set(greedily(measure, heads, k)))


def still_the_last(measure, heads, k):
    return greedily(measure, heads, k)[-1]


def still_every_set(measure, heads, k):
    sets = sorted(
        itertools.combinations(heads, k), key=lambda some: measure(list(some))
    )
    return list(sets[0])


def still_dropped(measure, heads, k):
    left = list(heads)
    for _ in range(len(heads) - k):
        scores = [measure([h for h in left if h != head]) for head in left]
        left.pop(int(np.argmin(scores)))
    return left


WRONG = [
    (checks.knock_out, knock_out_last, "padding taken for END"),
    (checks.knock_out, knock_out_before_end, "END off by one"),
    (checks.knock_out, knock_out_all_ends, "every prompt's END in every prompt"),
    (checks.knock_out, knock_out_everywhere, "every position ablated"),
    (checks.knock_out, knock_out_the_layer, "every head ablated"),
    (checks.knock_out, knock_out_the_others, "the other heads ablated"),
    (checks.repaired_share, share_of_each_prompt, "mean of ratios"),
    (checks.repaired_share, share_lost, "share lost taken for share repaired"),
    (checks.repaired_share, share_left, "what is left of the logit difference"),
    (checks.repaired_share, share_with_the_wrong_sign, "sign of the loss"),
    (checks.repaired_share, repaired_logits, "in logits, not as a share"),
    (checks.repaired_share, share_of_the_whole, "relative to the logit difference"),
    (checks.idle_or_replaced, cast_by_silence, "each silenced, and no more"),
    (checks.idle_or_replaced, cast_frozen_only, "only with the others frozen"),
    (checks.idle_or_replaced, cast_exchanged, "idle and replaced exchanged"),
    (
        checks.idle_or_replaced,
        cast_in_an_empty_house,
        "the others silenced, not frozen",
    ),
    (
        checks.idle_or_replaced,
        cast_by_what_is_left,
        "what is left taken for what is lost",
    ),
    (checks.by_output_and_scale, split_without_holding, "scale not held"),
    (checks.by_output_and_scale, split_upside_down, "ratio upside down"),
    (checks.by_output_and_scale, split_scale_first, "held at the scale after"),
    (checks.by_output_and_scale, split_by_the_mean_ratio, "one ratio for all prompts"),
    (
        checks.by_output_and_scale,
        split_the_other_way_round,
        "the two in the other order",
    ),
    (checks.by_output_and_scale, split_divided_again, "scales applied once more"),
    (checks.by_attention_and_value, causes_without_the_cross_term, "cross term lost"),
    (checks.by_attention_and_value, causes_value_first, "values changed first"),
    (
        checks.by_attention_and_value,
        causes_the_other_way_round,
        "the two in the other order",
    ),
    (checks.by_attention_and_value, causes_in_distance, "how much attention moved"),
    (checks.by_attention_and_value, causes_averaged, "mean over positions"),
    (checks.by_attention_and_value, causes_before_minus_after, "before minus after"),
    (checks.keep_still, still_sorted, "ranked once"),
    (checks.keep_still, still_highest, "highest taken for lowest"),
    (checks.keep_still, still_in_order_of_layers, "order lost"),
    (checks.keep_still, still_the_last, "only the last one"),
    (checks.keep_still, still_every_set, "every set tried"),
    (checks.keep_still, still_dropped, "dropped, not chosen"),
]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    WRONG,
    ids=[answer.__name__ for _, answer, _ in WRONG],
)
def test_a_wrong_answer_is_recognised(exercise, answer, name, seed):
    verdict = exercise(answer, seed)
    assert verdict.misconception == name, verdict


# --- right answers, written otherwise ---


def knock_out_with_a_mask(z, head, end):
    mask = torch.arange(z.shape[1])[None] == end[:, None]
    kept = torch.ones_like(z)
    kept[:, :, head] = (~mask).to(z.dtype)[..., None]
    return (z * kept).numpy()


def share_from_the_prediction(before, after, direct):
    naive = (before - direct).sum()
    return (after.sum() - naive) / (before.sum() - naive)


def split_by_what_was_written(before, after, scale_before, scale_after):
    found = np.zeros((2, *before.shape))
    for i in range(before.shape[0]):
        for h in range(before.shape[1]):
            a, a_new = before[i, h] * scale_before[i], after[i, h] * scale_after[i]
            found[0, i, h] = (a_new - a) / scale_before[i]
            found[1, i, h] = a_new * (1 / scale_after[i] - 1 / scale_before[i])
    return found


def causes_by_difference(attention_before, attention_after, worth_before, worth_after):
    total = torch.einsum("bp,bp->b", attention_after, worth_after) - torch.einsum(
        "bp,bp->b", attention_before, worth_before
    )
    attention = torch.einsum(
        "bp,bp->b", attention_after - attention_before, worth_before
    )
    return [attention.tolist(), (total - attention).tolist()]


RIGHT = [
    (checks.knock_out, knock_out_with_a_mask),
    (checks.repaired_share, share_from_the_prediction),
    (checks.idle_or_replaced, cast_by_sets),
    (checks.by_output_and_scale, split_by_what_was_written),
    (checks.by_attention_and_value, causes_by_difference),
    (checks.keep_still, greedily),
]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    ("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT]
)
def test_a_right_answer_written_otherwise_passes(exercise, answer, seed):
    verdict = exercise(answer, seed)
    assert verdict, verdict


def test_every_misconception_has_a_wrong_answer_of_its_own():
    named = {(exercise.number, name) for exercise, _, name in WRONG}
    exercises = {exercise for exercise, _ in RIGHT}
    assert len(exercises) == 6
    assert named == {
        (exercise.number, one.name)
        for exercise in exercises
        for one in exercise.misconceptions
    }


def test_z_changed_in_place_is_noticed():
    def in_place(z, head, end):
        z[torch.arange(len(z)), end, head] = 0
        return z

    verdict = checks.knock_out(in_place)
    assert verdict.kind == "side effect" and "'z'" in verdict.message
