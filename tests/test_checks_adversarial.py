"""The checks of chapter 13 recognise wrong answers as students write them, and let
right ones pass in any style."""

import math
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from ioi_course.checks import adversarial as checks
from ioi_course.prompts import IOIDataset

# --- 13.1 ---


def turning_by_loops(pattern, data, extra):
    found = []
    for i in range(len(data)):
        row = pattern[i, :, int(data.pos["END"][i])]
        found.append(
            float(row[:, int(extra[i])].mean() - row[:, int(data.pos["S2"][i])].mean())
        )
    return np.array(found)


def row_at(pattern, data, end, a, b):
    return [
        (p[:, e, x] - p[:, e, y]).mean().item()
        for p, e, x, y in zip(pattern, end, a, b, strict=True)
    ]


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
    return sum(row_at(pattern, data, data.pos["END"], extra, data.pos["S2"])) / len(
        data
    )


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


def with_names(broken, wanted):
    """The distractor's name exchanged, by its place in the text of the template."""
    records = []
    for record in broken:
        before, after = record.template.split(record.IO)
        records.append(
            replace(record, template=before + wanted(broken, record) + after)
        )
    return IOIDataset.from_prompts(broken.tokenizer, records, broken.bos, broken.names)


def control_drawn(broken):
    dice = random.Random(3)
    return with_names(
        broken,
        lambda data, record: dice.choice(sorted({*data.names} - {record.IO, record.S})),
    )


def control_last_name(broken):
    return with_names(
        broken,
        lambda data, record: [n for n in data.names if n not in (record.IO, record.S)][
            -1
        ],
    )


def control_nothing(broken):
    return broken[list(range(len(broken)))]


def control_s(broken):
    return with_names(broken, lambda data, record: record.S)


def control_plain(broken):
    cut = (
        r"(One day \w+ had a good time\. |, where \w+ had a good time| that \w+ liked)"
    )
    records = [
        replace(record, template=re.sub(cut, "", record.template)) for record in broken
    ]
    return IOIDataset.from_prompts(broken.tokenizer, records, broken.bos, broken.names)


def control_other_io(broken):
    records = []
    for record in broken:
        name = next(n for n in broken.names if n not in (record.IO, record.S))
        records.append(
            replace(record, IO=name, template=record.template.replace(record.IO, name))
        )
    return IOIDataset.from_prompts(broken.tokenizer, records, broken.bos, broken.names)


# --- 13.4 ---


def auc_by_ranks(scores, failed):
    ranks = [
        sum((other < x) + 0.5 * (other == x) for other in scores.tolist()) + 0.5
        for x in scores.tolist()
    ]
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
    return loop_pairs(
        scores,
        failed,
        lambda a, b: a > b,
        0.5,
        count=len(scores) * (len(scores) - 1) / 2,
    )


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
    return (
        means.mean(),
        means.topk(k, largest=largest).values.mean(),
        scores.var(1).mean(),
        means.var(),
    )


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
    (checks.control_for, control_nothing, "the broken prompts themselves"),
    (checks.control_for, control_plain, "the clause is gone"),
    (checks.control_for, control_s, "S is said again"),
    (checks.control_for, control_other_io, "another IO"),
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
    (checks.control_for, control_drawn),
    (checks.control_for, control_last_name),
    (checks.auc_from_pairs, auc_by_ranks),
    (checks.expect_afresh, afresh_in_numpy),
]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("exercise", "answer"), RIGHT, ids=lambda x: getattr(x, "__name__", "")
)
def test_right_answers_pass(exercise, answer, seed):
    verdict = exercise(answer, seed=seed)
    assert verdict, verdict


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("exercise", "answer", "name"), WRONG, ids=lambda x: getattr(x, "__name__", "")
)
def test_wrong_answers_are_recognised(exercise, answer, name, seed):
    verdict = exercise(answer, seed=seed)
    assert not verdict and verdict.misconception == name, verdict


def test_every_misconception_has_an_independent_wrong_answer():
    for name in checks.__all__:
        exercise = getattr(checks, name)
        tested = {wrong for of, _, wrong in WRONG if of is exercise}
        assert tested == {one.name for one in exercise.misconceptions}


def test_a_chance_that_is_met_exactly_is_enough():
    """1 − 0.9² is 0.19, though not in binary floating point: two
    prompts do, not three."""
    assert checks.prompts_to_see.solution(0.1, 0.19) == 2
    assert (
        checks.prompts_to_see.solution(0.2, 0.36) == 2
        and checks.prompts_to_see.solution(0.2, 0.361) == 3
    )
    # the cases keep off such borders, so that no right way of reckoning is refused
    for seed in range(6):
        for rate, chance in checks.prompts_to_see.cases(seed):
            exact = math.log(1 - chance) / math.log(1 - rate)
            assert abs(exact - round(exact)) > 1e-6
