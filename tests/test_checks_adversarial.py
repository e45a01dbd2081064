"""The checks of chapter 13 recognise wrong answers as students write them, and let right ones pass in any style."""

import math

import numpy as np
import pytest
import torch

from ioi_course.checks import adversarial as checks
from ioi_course.metrics import logit_diff

# --- 13.1 ---


def turning_by_loops(pattern, data, extra):
    found = []
    for i in range(len(data)):
        row = pattern[i, :, int(data.pos["END"][i])]
        found.append(float(row[:, int(extra[i])].mean() - row[:, int(data.pos["S2"][i])].mean()))
    return np.array(found)


def row_at(pattern, data, end, a, b):
    return [(p[:, e, x] - p[:, e, y]).mean().item() for p, e, x, y in zip(pattern, end, a, b, strict=True)]


def turning_from_s1(pattern, data, extra):
    return row_at(pattern, data, data.pos["END"], extra, data.pos["S1"])


def turning_to_first_io(pattern, data, extra):
    return row_at(pattern, data, data.pos["END"], data.pos["IO"], data.pos["S2"])


def turning_of_columns(pattern, data, extra):
    i = torch.arange(len(data))
    column = pattern[i, :, :, data.pos["END"]].mean(1)
    return column[i, extra] - column[i, data.pos["S2"]]


def turning_at_minus_one(pattern, data, extra):
    i, row = torch.arange(len(data)), pattern.mean(1)[:, -1]
    return row[i, extra] - row[i, data.pos["S2"]]


def turning_without_bos(pattern, data, extra):
    return row_at(pattern, data, data.pos["END"] - 1, extra, data.pos["S2"])


def turning_added_up(pattern, data, extra):
    i = torch.arange(len(data))
    row = pattern[i, :, data.pos["END"]]
    return row[i, :, extra].sum(1) - row[i, :, data.pos["S2"]].sum(1)


def turning_back(pattern, data, extra):
    return row_at(pattern, data, data.pos["END"], data.pos["S2"], extra)


def turning_as_one_number(pattern, data, extra):
    return sum(row_at(pattern, data, data.pos["END"], extra, data.pos["S2"])) / len(data)


# --- 13.2 ---


def prompts_by_logarithm(rate, chance=0.95):
    return math.ceil(math.log(1 - chance) / math.log(1 - rate) - 1e-9)


def prompts_one_over(rate, chance=0.95):
    return int(np.ceil(1 / rate))


def prompts_added(rate, chance=0.95):
    n, total = 0, 0.0
    while total < chance:
        n, total = n + 1, total + rate
    return n


def prompts_none(rate, chance=0.95):
    n = 1
    while (1 - rate) ** n > chance:
        n += 1
    return n


def prompts_floor(rate, chance=0.95):
    return int(math.log(1 - chance) / math.log(1 - rate))


def prompts_good(rate, chance=0.95):
    n = 1
    while 1 - rate**n < chance:
        n += 1
    return n


# --- 13.3 ---


def restoring(model, data, source, heads, change):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(source.tokens, names_filter=names)

    def hook_function(z, hook):
        z = z.clone()
        change(z, cache[hook.name], hook.layer())
        return z

    return model.run_with_hooks(data.tokens, fwd_hooks=[(name, hook_function) for name in names])


def restore_by_loops(model, data, source, heads):
    def change(z, other, layer):
        for i in range(len(data)):
            for head in [h for at, h in heads if at == layer]:
                z[i, data.lengths[i] - 1, head] = other[i, source.lengths[i] - 1, head]

    return logit_diff(restoring(model, data, source, heads, change), data, per_prompt=True).tolist()


def restore_at_source_end(model, data, source, heads):
    def change(z, other, layer):
        i, end = torch.arange(len(data)), source.pos["END"]
        for at, head in heads:
            if at == layer:
                z[i, end, head] = other[i, end, head]

    return logit_diff(restoring(model, data, source, heads, change), data, per_prompt=True)


def restore_whole_layers(model, data, source, heads):
    def change(z, other, layer):
        if layer in [at for at, _ in heads]:
            i = torch.arange(len(data))
            z[i, data.pos["END"]] = other[i, source.pos["END"]]

    return logit_diff(restoring(model, data, source, heads, change), data, per_prompt=True)


def restore_with_a_dictionary(model, data, source, heads):
    head_of = {}
    for layer, head in heads:
        head_of[layer] = head

    def change(z, other, layer):
        if layer in head_of:
            i, h = torch.arange(len(data)), head_of[layer]
            z[i, data.pos["END"], h] = other[i, source.pos["END"], h]

    return logit_diff(restoring(model, data, source, heads, change), data, per_prompt=True)


def restore_the_other_way(model, data, source, heads):
    return restore_by_loops(model, source, data, heads)


def restore_nothing(model, data, source, heads):
    def change(z, other, layer):
        z = other  # noqa: F841 (a new name, not a change)

    return logit_diff(restoring(model, data, source, heads, change), data, per_prompt=True)


def right_change(data, source, heads, off=0):
    def change(z, other, layer):
        i = torch.arange(len(data))
        for at, head in heads:
            if at == layer:
                z[i, data.pos["END"] - off, head] = other[i, source.pos["END"] - off, head]

    return change


def restore_read_at_minus_one(model, data, source, heads):
    logits = restoring(model, data, source, heads, right_change(data, source, heads))
    return [(x[-1, io] - x[-1, s]).item() for x, (io, s) in zip(logits, data.answers, strict=True)]


def restore_without_bos(model, data, source, heads):
    logits = restoring(model, data, source, heads, right_change(data, source, heads, off=1))
    return logit_diff(logits, data, per_prompt=True)


def restore_mean(model, data, source, heads):
    return logit_diff(restoring(model, data, source, heads, right_change(data, source, heads)), data)


# --- 13.4 ---


def auc_by_ranks(scores, failed):
    ranks = [sum((other < x) + 0.5 * (other == x) for other in scores.tolist()) + 0.5 for x in scores.tolist()]
    bad = [rank for rank, f in zip(ranks, failed.tolist(), strict=True) if f]
    n, m = len(bad), len(failed) - len(bad)
    return (sum(bad) - n * (n + 1) / 2) / (n * m)


def loop_pairs(scores, failed, right, tie, count=None):
    total = n = 0
    for a, f in zip(scores.tolist(), failed.tolist(), strict=True):
        for b, g in zip(scores.tolist(), failed.tolist(), strict=True):
            if f == 1 and g == 0:
                n += 1
                total += tie if a == b else float(right(a, b))
    return total / (count or n)


def auc_reversed(scores, failed):
    return loop_pairs(scores, failed, lambda a, b: a < b, 0.5)


def auc_strict(scores, failed):
    return loop_pairs(scores, failed, lambda a, b: a > b, 0)


def auc_not_strict(scores, failed):
    return (scores[failed == 1][:, None] >= scores[failed == 0]).float().mean()


def auc_as_accuracy(scores, failed):
    return np.mean((scores.numpy() > 0) == failed.numpy().astype(bool))


def auc_over_all(scores, failed):
    return loop_pairs(scores, failed, lambda a, b: a > b, 0.5, count=len(scores) * (len(scores) - 1) / 2)


def auc_as_correlation(scores, failed):
    return np.corrcoef(scores.numpy(), failed.numpy())[0, 1]


# --- 13.5 ---


def afresh_in_numpy(scores, k):
    x = scores.numpy()
    means = x.mean(1)
    real = max(0, 1 - x.var(1, ddof=1).mean() / x.shape[1] / means.var(ddof=1))
    return (1 - real) * means.mean() + real * np.sort(means)[:k].mean()


def afresh_as_found(scores, k):
    return scores.mean(1).topk(k, largest=False).values.mean()


def afresh_grand_mean(scores, k):
    return scores.mean()


def afresh_parts(scores, k, largest=False):
    means = scores.mean(1)
    return means.mean(), means.topk(k, largest=largest).values.mean(), scores.var(1).mean(), means.var()


def afresh_not_divided(scores, k):
    grand, low, luck, whole = afresh_parts(scores, k)
    return grand + max(0, 1 - luck / whole) * (low - grand)


def afresh_below_zero(scores, k):
    grand, low, luck, whole = afresh_parts(scores, k)
    return grand + (1 - luck / scores.shape[1] / whole) * (low - grand)


def afresh_highest(scores, k):
    grand, high, luck, whole = afresh_parts(scores, k, largest=True)
    return grand + max(0, 1 - luck / scores.shape[1] / whole) * (high - grand)


def afresh_root(scores, k):
    grand, low, luck, whole = afresh_parts(scores, k)
    return grand + max(0, 1 - luck / scores.shape[1] / whole) ** 0.5 * (low - grand)


def afresh_luck(scores, k):
    grand, low, luck, whole = afresh_parts(scores, k)
    return grand + min(1, luck / scores.shape[1] / whole) * (low - grand)


WRONG = [
    (checks.turning, turning_from_s1, "S1 taken for S2"),
    (checks.turning, turning_to_first_io, "IO taken for the distractor's name"),
    (checks.turning, turning_of_columns, "source and destination exchanged"),
    (checks.turning, turning_at_minus_one, "padding taken for END"),
    (checks.turning, turning_without_bos, "END off by one"),
    (checks.turning, turning_added_up, "sum over heads"),
    (checks.turning, turning_back, "sign reversed"),
    (checks.turning, turning_as_one_number, "mean over prompts"),
    (checks.prompts_to_see, prompts_one_over, "one over the rate"),
    (checks.prompts_to_see, prompts_added, "chances added up"),
    (checks.prompts_to_see, prompts_none, "chance of no failure"),
    (checks.prompts_to_see, prompts_floor, "rounded down"),
    (checks.prompts_to_see, prompts_good, "success taken for failure"),
    (checks.restore_heads, restore_at_source_end, "END of the source in both"),
    (checks.restore_heads, restore_whole_layers, "all heads of the layer"),
    (checks.restore_heads, restore_with_a_dictionary, "one head per layer"),
    (checks.restore_heads, restore_the_other_way, "runs exchanged"),
    (checks.restore_heads, restore_nothing, "nothing replaced"),
    (checks.restore_heads, restore_read_at_minus_one, "padding taken for END"),
    (checks.restore_heads, restore_without_bos, "END off by one"),
    (checks.restore_heads, restore_mean, "mean over prompts"),
    (checks.auc_from_pairs, auc_reversed, "direction reversed"),
    (checks.auc_from_pairs, auc_strict, "ties count nothing"),
    (checks.auc_from_pairs, auc_not_strict, "ties count whole"),
    (checks.auc_from_pairs, auc_as_accuracy, "accuracy at zero"),
    (checks.auc_from_pairs, auc_over_all, "divided by all pairs"),
    (checks.auc_from_pairs, auc_as_correlation, "correlation"),
    (checks.expect_afresh, afresh_as_found, "no regression"),
    (checks.expect_afresh, afresh_grand_mean, "all the way"),
    (checks.expect_afresh, afresh_not_divided, "luck of one context"),
    (checks.expect_afresh, afresh_below_zero, "reliability below zero"),
    (checks.expect_afresh, afresh_highest, "highest for lowest"),
    (checks.expect_afresh, afresh_root, "root of the reliability"),
    (checks.expect_afresh, afresh_luck, "luck for what is real"),
]
RIGHT = [
    (checks.turning, turning_by_loops),
    (checks.prompts_to_see, prompts_by_logarithm),
    (checks.restore_heads, restore_by_loops),
    (checks.auc_from_pairs, auc_by_ranks),
    (checks.expect_afresh, afresh_in_numpy),
]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=lambda x: getattr(x, "__name__", ""))
def test_right_answers_pass(exercise, answer, seed):
    verdict = exercise(answer, seed=seed)
    assert verdict, verdict


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("exercise", "answer", "name"), WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_wrong_answers_are_recognised(exercise, answer, name, seed):
    verdict = exercise(answer, seed=seed)
    assert not verdict and verdict.misconception == name, verdict


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_misconceptions_differ_from_the_solution_and_from_each_other(seed):
    for name in checks.__all__:
        exercise = getattr(checks, name)
        assert len(exercise.misconceptions) >= 4
        for one in exercise.misconceptions:
            verdict = exercise(one.answer, seed=seed)
            assert verdict.misconception == one.name, (exercise, one.name, verdict)


def test_every_misconception_has_an_independent_wrong_answer():
    for name in checks.__all__:
        exercise = getattr(checks, name)
        tested = {wrong for of, _, wrong in WRONG if of is exercise}
        assert tested == {one.name for one in exercise.misconceptions}


def test_a_chance_that_is_met_exactly_is_enough():
    """1 − 0.9² is 0.19, though not in binary floating point: two prompts do, not three."""
    assert checks.prompts_to_see.solution(0.1, 0.19) == 2
    assert checks.prompts_to_see.solution(0.2, 0.36) == 2 and checks.prompts_to_see.solution(0.2, 0.361) == 3
    for seed in range(6):  # the cases keep off such borders, so that no right way of reckoning is refused
        for rate, chance in checks.prompts_to_see.cases(seed):
            exact = math.log(1 - chance) / math.log(1 - rate)
            assert abs(exact - round(exact)) > 1e-6
