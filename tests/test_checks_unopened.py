"""The exercises of chapter 15: answers written apart from the checks, right ones in
other styles and wrong ones."""

import copy
import re
import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from ioi_course.checks import unopened as checks
from ioi_course.prompts import IOIDataset

SEEDS = range(20)


# 15.1
def look_by_loops(attention, places):
    batch, heads, n = attention.shape
    names = []
    for head in range(heads):
        best, most = None, -1.0
        for place in range(1, n):
            total = sum(
                attention[prompt, head, place].item() for prompt in range(batch)
            )
            if total > most:
                best, most = places[place], total
        names.append(best)
    return names


def look_by_numpy(attention, places):
    mean = attention.numpy().mean(0)
    mean[:, list(places).index("BOS")] = -np.inf
    return [str(place) for place in np.array(places)[mean.argmax(-1)]]


def look_by_einsum(attention, places):
    total = torch.einsum("bhp->hp", attention[:, :, 1:])
    return [places[1:][i] for i in total.topk(1).indices.flatten().tolist()]


def look_by_sort(attention, places):
    rows = attention.sum(0).tolist()
    return [max(zip(row[1:], places[1:], strict=True))[1] for row in rows]


# each prompt names a place, and the most named one wins
def most_votes(attention, places):
    votes = attention[:, :, 1:].argmax(-1)
    return [
        places[1 + Counter(votes[:, head].tolist()).most_common(1)[0][0]]
        for head in range(votes.shape[1])
    ]


def by_median(attention, places):
    return [
        places[1 + i]
        for i in attention[:, :, 1:].median(dim=0).values.argmax(-1).tolist()
    ]


def over_heads(attention, places):  # the mean over the wrong axis
    return [places[1 + i] for i in attention.mean(dim=1)[:, 1:].argmax(-1).tolist()]


def without_end(attention, places):  # "from END", so END left out as well
    return [places[1 + i] for i in attention.mean(0)[:, 1:-1].argmax(-1).tolist()]


def last_prompt(attention, places):
    return [places[1 + i] for i in attention[-1, :, 1:].argmax(-1).tolist()]


# 15.2
def count_by_loops(one, other, total):
    def verdict(column):
        values = column.tolist()
        mean, error = (
            statistics.fmean(values),
            statistics.stdev(values) / len(values) ** 0.5,
        )
        return (
            0
            if abs(mean) < 4 * error or abs(mean) < 0.02 * total
            else (1 if mean > 0 else -1)
        )

    pairs = [(verdict(one[:, h]), verdict(other[:, h])) for h in range(one.shape[1])]
    first = [pair for pair in pairs if pair[0]]
    return sum(a == b for a, b in first) / len(first)


def count_by_numpy(one, other, total, ddof=1, least=0.02, times=4.0):
    signs = []
    for half in (one.numpy(), other.numpy()):
        mean, error = half.mean(0), half.std(0, ddof=ddof) / np.sqrt(half.shape[0])
        signs.append(
            np.where(
                (np.abs(mean) >= times * error) & (np.abs(mean) >= least * total),
                np.sign(mean),
                0,
            )
        )
    chosen = signs[0] != 0
    return float((signs[0][chosen] == signs[1][chosen]).mean())


# the names exchanged, and so is what they stand for
def count_by_product(other, one, total):
    masks = [
        (x.mean(0).abs() / (x.var(0) / x.shape[0]).sqrt() >= 4)
        & (x.mean(0).abs() >= total / 50)
        for x in (other, one)
    ]
    both = masks[0] & masks[1] & (other.mean(0) * one.mean(0) > 0)
    return both.sum() / masks[0].sum()


def count_by_sets(one, other, total):
    def listed(x):
        t = x.mean(0) / (x.std(0) / len(x) ** 0.5)
        return {
            (h, bool(t[h] > 0))
            for h in range(x.shape[1])
            if t[h].abs() >= 4 and x[:, h].mean().abs() >= 0.02 * total
        }

    return len(listed(one) & listed(other)) / len(listed(one))


def spread_for_error(one, other, total):
    keep = [
        (x.mean(0).abs() >= 4 * x.std(0)) & (x.mean(0).abs() >= 0.02 * total)
        for x in (one, other)
    ]
    same = keep[0] & keep[1] & (one.mean(0).sign() == other.mean(0).sign())
    return (same.sum() / keep[0].sum().clamp(min=1)).item()


def of_the_second(one, other, total):
    return count_by_numpy(other, one, total)


def only_helpers(one, other, total):  # without the size: heads that hurt never count
    keep = [
        (x.mean(0) >= 4 * x.std(0) / len(x) ** 0.5) & (x.mean(0) >= 0.02 * total)
        for x in (one, other)
    ]
    return ((keep[0] & keep[1]).sum() / keep[0].sum()).item()


def number_of_heads(one, other, total):
    keep = [
        (x.mean(0).abs() >= 4 * x.std(0) / len(x) ** 0.5)
        & (x.mean(0).abs() >= 0.02 * total)
        for x in (one, other)
    ]
    return (keep[0] & keep[1] & (one.mean(0) * other.mean(0) > 0)).sum().item()


def either_test(one, other, total):  # "or" for "and"
    keep = [
        (x.mean(0).abs() >= 4 * x.std(0) / len(x) ** 0.5)
        | (x.mean(0).abs() >= 0.02 * total)
        for x in (one, other)
    ]
    return (
        (keep[0] & keep[1] & (one.mean(0) * other.mean(0) > 0)).sum() / keep[0].sum()
    ).item()


# 15.3
def by_loops(before, after, name, bystander):
    out = []
    for row, (a, b) in enumerate(zip(name.tolist(), bystander.tolist(), strict=True)):
        gained, beside = after[row][a] - before[row][a], after[row][b] - before[row][b]
        out.append(float(gained - beside))
    return torch.tensor(out, dtype=before.dtype)


def by_gather(before, after, name, bystander):
    def ahead(x):
        return (x.gather(1, name[:, None]) - x.gather(1, bystander[:, None])).squeeze(1)

    return ahead(after) - ahead(before)


def by_one_hot(before, after, name, bystander):
    hot = torch.nn.functional.one_hot(
        name, before.shape[1]
    ) - torch.nn.functional.one_hot(bystander, before.shape[1])
    return torch.einsum("bv,bv->b", after - before, hot.to(before.dtype))


# a difference of two of them is one of logits
def by_log_probabilities(before, after, name, bystander):
    rows, moved = (
        np.arange(len(before)),
        (after.log_softmax(-1) - before.log_softmax(-1)).numpy(),
    )
    return moved[rows, name.numpy()] - moved[rows, bystander.numpy()]


# [batch, batch] by mistake, and its first row
def every_pair(before, after, name, bystander):
    change = after - before
    return (change[:, name] - change[:, bystander])[0]


def first_name_for_all(before, after, name, bystander):
    change = after - before
    return change[:, name[0]] - change[:, bystander[0]]


def summed(before, after, name, bystander):
    rows, change = torch.arange(len(before)), after - before
    return change[rows, name] + change[rows, bystander]


# the bystander's logit is taken from one run only
def bystander_before(before, after, name, bystander):
    rows = torch.arange(len(before))
    return after[rows, name] - before[rows, name] - before[rows, bystander]


def size_of_it(before, after, name, bystander):
    return by_gather(before, after, name, bystander).abs()


# 15.4
def shares_by_sums(circuit, model, templates):
    sums = defaultdict(lambda: [0.0, 0.0])
    for c, m, template in zip(circuit.tolist(), model.tolist(), templates, strict=True):
        sums[template][0] += c
        sums[template][1] += m
    shares = sorted(c / m for c, m in sums.values())
    return shares[0], shares[-1]


def shares_by_numpy(circuit, model, templates):
    names, index = np.unique(templates, return_inverse=True)
    kept = np.bincount(index, circuit.numpy()) / np.bincount(index, model.numpy())
    return [kept.min(), kept.max()]


def shares_by_matrix(circuit, model, templates):
    names = list(dict.fromkeys(templates))
    member = torch.tensor(
        [[name == each for each in templates] for name in names], dtype=circuit.dtype
    )
    share = (member @ circuit) / (member @ model)
    return share.min().item(), share.max().item()


def shares_by_gap(circuit, model, templates):  # 1 less the share that is lost
    lost = []
    for name in sorted(set(templates), reverse=True):
        rows = [i for i, each in enumerate(templates) if each == name]
        lost.append(1 - (model[rows] - circuit[rows]).mean() / model[rows].mean())
    return torch.stack(lost).min(), torch.stack(lost).max()


def high_then_low(circuit, model, templates):
    return shares_by_sums(circuit, model, templates)[::-1]


def median_of_each(circuit, model, templates):
    rows = [
        [i for i, each in enumerate(templates) if each == name]
        for name in set(templates)
    ]
    shares = [(circuit[r].median() / model[r].median()).item() for r in rows]
    return min(shares), max(shares)


def first_prompt_of_each(circuit, model, templates):
    first = [list(templates).index(name) for name in set(templates)]
    shares = (circuit[first] / model[first]).tolist()
    return min(shares), max(shares)


def mean_and_spread(circuit, model, templates):
    rows = [
        [i for i, each in enumerate(templates) if each == name]
        for name in set(templates)
    ]
    shares = [(circuit[r].mean() / model[r].mean()).item() for r in rows]
    return statistics.fmean(shares), statistics.pstdev(shares)


def clipped(circuit, model, templates):  # "a share is between 0 and 1"
    low, high = shares_by_sums(circuit, model, templates)
    return max(0.0, min(low, 1.0)), max(0.0, min(high, 1.0))


# the lowest circuit over the lowest model
def extremes_apart(circuit, model, templates):
    rows = [
        [i for i, each in enumerate(templates) if each == name]
        for name in set(templates)
    ]
    c, m = ([x[r].mean().item() for r in rows] for x in (circuit, model))
    return min(c) / min(m), max(c) / max(m)


# 15.5
def made(data, change):
    return IOIDataset.from_prompts(
        data.tokenizer, [change(record) for record in data], data.bos, data.names
    )


def by_pattern(data):
    return made(
        data,
        lambda r: replace(
            r, template=re.sub(r"(?<=\[A\] )and(?= \[B\])", "with", r.template)
        ),
    )


def by_split(data):
    def change(record):
        head, tail = record.template.split("[A] and [B]")
        return replace(record, template=f"{head}[A] with [B]{tail}")

    return made(data, change)


def by_copy(data):
    records = []
    for record in data:
        new = copy.copy(record)
        object.__setattr__(
            new, "template", record.template.replace("[A] and", "[A] with")
        )
        records.append(new)
    return IOIDataset.from_prompts(
        data.tokenizer, records, bos=data.bos, names=data.names
    )


def by_fields(data):
    kind = (
        type(data[0]) if not isinstance(data[0], IOIDataset) else type(next(iter(data)))
    )
    fields = [
        asdict(record) | {"template": record.template.replace(" and [B]", " with [B]")}
        for record in data
    ]
    return IOIDataset.from_prompts(
        data.tokenizer, [kind(**some) for some in fields], data.bos, data.names
    )


def capital(data):
    return made(
        data,
        lambda r: replace(
            r, template=r.template.replace("[A] and [B]", "[A] With [B]")
        ),
    )


def names_turned(data):  # [B] and [A] for [A] and [B]
    return made(
        data,
        lambda r: replace(
            r, template=r.template.replace("[A] and [B]", "[B] with [A]")
        ),
    )


def another_word(data):
    return made(
        data,
        lambda r: replace(r, template=r.template.replace("[A] and [B]", "[A] or [B]")),
    )


def word_dropped(data):
    return made(
        data,
        lambda r: replace(r, template=r.template.replace("[A] and [B]", "[A] [B]")),
    )


# the last *and* of a sentence, which is the one between the names where there is no
# other
def last_and(data):
    return made(
        data,
        lambda r: replace(r, template=" with ".join(r.template.rsplit(" and ", 1))),
    )


def first_half(data):
    records = [
        r
        if i % 2
        else replace(r, template=r.template.replace("[A] and [B]", "[A] with [B]"))
        for i, r in enumerate(data)
    ]
    return IOIDataset.from_prompts(data.tokenizer, records, data.bos, data.names)


# 15.6
def role_by_numpy(repeated, new, k=2.0):
    a, b = repeated.numpy(), new.numpy()

    def t(x):
        return x.mean() / (x.std(ddof=1) / np.sqrt(x.size))

    stays, falls = bool(t(b) > k and b.mean() >= 0.5 * a.mean()), bool(t(a - b) > k)
    return [["open", "repetition"], ["role", "both"]][stays][falls]


def role_by_loops(repeated, new, k=2.0):
    fall = [float(a) - float(b) for a, b in zip(repeated, new, strict=True)]
    left = [float(b) for b in new]

    def clear(values):
        return (
            statistics.fmean(values) > k * statistics.stdev(values) / len(values) ** 0.5
        )

    stays = (
        clear(left)
        and statistics.fmean(left) >= statistics.fmean(repeated.tolist()) / 2
    )
    if stays and clear(fall):
        return "both"
    return "role" if stays else "repetition" if clear(fall) else "open"


def role_by_match(repeated, new, k=2.0):
    gone = repeated - new
    key = (
        bool(new.sum() > k * (new.var() * len(new)).sqrt())
        and bool(2 * new.sum() >= repeated.sum()),
        bool(gone.sum() > k * (gone.var() * len(gone)).sqrt()),
    )
    return {
        (True, False): "role",
        (True, True): "both",
        (False, True): "repetition",
        (False, False): "open",
    }[key]


def role_by_stack(first, second, k=2.0):
    both = torch.stack([second, first - second])
    far = both.mean(1) > k * both.std(1) / both.shape[1] ** 0.5
    stays, falls = (
        far & torch.tensor([second.mean() >= first.mean() / 2, True])
    ).tolist()
    return (
        ("both" if falls else "role") if stays else ("repetition" if falls else "open")
    )


def half_forgotten(repeated, new, k=2.0):
    gone = repeated - new
    stays, falls = (bool(x.mean() > k * x.std() / len(x) ** 0.5) for x in (new, gone))
    return ["open", "repetition", "role", "both"][2 * stays + falls]


def fall_reversed(repeated, new, k=2.0):
    gone = new - repeated
    falls = bool(gone.mean() > k * gone.std() / len(gone) ** 0.5)
    stays = bool(
        new.mean() > k * new.std() / len(new) ** 0.5
        and new.mean() >= repeated.mean() / 2
    )
    return ["open", "repetition", "role", "both"][2 * stays + falls]


def role_for_both(repeated, new, k=2.0):
    return role_by_numpy(repeated, new, k).replace("both", "role")


def no_open(repeated, new, k=2.0):
    return role_by_numpy(repeated, new, k).replace("open", "repetition")


# the fall beside the error of the ordinary prompts
def error_of_repeated(repeated, new, k=2.0):
    error = repeated.std() / len(repeated) ** 0.5
    stays = bool(
        new.mean() > k * new.std() / len(new) ** 0.5
        and new.mean() >= repeated.mean() / 2
    )
    return ["open", "repetition", "role", "both"][
        2 * stays + bool((repeated - new).mean() > k * error)
    ]


RIGHT = {
    "looks_most": (look_by_loops, look_by_numpy, look_by_einsum, look_by_sort),
    "counts_in_both": (count_by_loops, count_by_numpy, count_by_product, count_by_sets),
    "against_bystander": (by_loops, by_gather, by_one_hot, by_log_probabilities),
    "spread_of_shares": (
        shares_by_sums,
        shares_by_numpy,
        shares_by_matrix,
        shares_by_gap,
    ),
    "with_for_and": (by_pattern, by_split, by_copy, by_fields),
    "role_or_repeat": (role_by_numpy, role_by_loops, role_by_match, role_by_stack),
}
WRONG = {
    "looks_most": (most_votes, by_median, over_heads, without_end, last_prompt),
    "counts_in_both": (
        spread_for_error,
        of_the_second,
        only_helpers,
        number_of_heads,
        either_test,
    ),
    "against_bystander": (
        every_pair,
        first_name_for_all,
        summed,
        bystander_before,
        size_of_it,
    ),
    "spread_of_shares": (
        high_then_low,
        median_of_each,
        first_prompt_of_each,
        mean_and_spread,
        clipped,
        extremes_apart,
    ),  # fmt: skip
    "with_for_and": (
        capital,
        names_turned,
        another_word,
        word_dropped,
        last_and,
        first_half,
    ),
    "role_or_repeat": (
        half_forgotten,
        fall_reversed,
        role_for_both,
        no_open,
        error_of_repeated,
    ),
}
# the same mistake as one that the check knows; the rest have no name
NAMED = {error_of_repeated: "unpaired errors"}


@pytest.mark.parametrize(
    "name, answer",
    [(name, answer) for name, answers in RIGHT.items() for answer in answers],
)
def test_right_answers_pass(name, answer):
    for seed in SEEDS:
        verdict = getattr(checks, name)(answer, seed=seed)
        assert verdict.passed, (seed, verdict)


@pytest.mark.parametrize(
    "name, answer",
    [(name, answer) for name, answers in WRONG.items() for answer in answers],
)
def test_wrong_answers_do_not_pass(name, answer):
    verdicts = {seed: getattr(checks, name)(answer, seed=seed) for seed in SEEDS}
    assert not any(
        verdict.passed or verdict.kind == "not written" for verdict in verdicts.values()
    ), verdicts
    assert {verdict.misconception for verdict in verdicts.values()} <= {
        None,
        NAMED.get(answer),
    }, verdicts


def test_every_exercise_is_tried():
    assert set(RIGHT) == set(WRONG) == set(checks.__all__)
    assert all(
        len(answers) >= 4 for tried in (RIGHT, WRONG) for answers in tried.values()
    )
