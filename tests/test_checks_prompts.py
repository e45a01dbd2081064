"""Wrong answers to the exercises of chapter 1, written as students write them, and what
the checks make of them."""

import numpy as np
import pytest
import torch

from ioi_course import checks


def end_is_minus_one(tokens, pad):
    return [tokens.shape[1] - 1 for _ in tokens]


def end_by_counting(tokens, pad):
    return [sum(1 for token in row.tolist() if token != pad) - 1 for row in tokens]


def end_one_too_far(tokens, pad):
    return (tokens != pad).sum(-1) + 1


def end_from_the_first_pad(tokens, pad):
    return torch.tensor([row.tolist().index(pad) - 1 for row in tokens])


def end_before_the_next_pad(tokens, pad):
    out = []
    for row in tokens.tolist():
        rest = row[1:]
        out.append(rest.index(pad) if pad in rest else 0)
    return out


def end_as_a_negative_index(tokens, pad):
    ends = []
    for row in tokens.tolist():
        i = -1
        while row[i] == pad:
            i -= 1
        ends.append(i)
    return ends


def subject_by_argmax(tokens, s):
    first = (tokens == s.unsqueeze(1)).int().argmax(dim=1)
    return torch.stack([first, first], dim=1)


def subject_from_the_right(tokens, s):
    last = tokens.shape[1] - 1 - (tokens == s.unsqueeze(1)).flip(1).int().argmax(dim=1)
    return torch.stack([last, last], dim=1)


def subject_backwards(tokens, s):
    out = []
    for row, name in zip(tokens.tolist(), s.tolist(), strict=True):
        out.append([i for i in range(len(row) - 1, -1, -1) if row[i] == name])
    return out


def subject_without_bos(tokens, s):
    out = []
    for row, name in zip(tokens[:, 1:].tolist(), s.tolist(), strict=True):
        out.append([i for i, token in enumerate(row) if token == name])
    return out


def subject_plus_one(tokens, s):
    hits = (tokens == s[:, None]).nonzero()[:, 1].reshape(-1, 2)
    return hits + 1


def swap_all(tokens, io, s):
    out = tokens.clone()
    for row in range(len(out)):
        out[row][out[row] == s[row]] = io[row]
    return out


def swap_names(tokens, io, s):
    out = tokens.tolist()
    for row, a, b in zip(out, io.tolist(), s.tolist(), strict=True):
        row[:] = [b if token == a else a if token == b else token for token in row]
    return out


def swap_first(tokens, io, s):
    out = tokens.tolist()
    for row, a, b in zip(out, io.tolist(), s.tolist(), strict=True):
        row[row.index(b)] = a
    return out


def swap_io(tokens, io, s):
    out = tokens.clone()
    for row in range(len(out)):
        out[row][out[row] == io[row]] = s[row]
    return out


def swap_in_a_block(tokens, io, s):
    out = tokens.clone()
    s2 = [
        row.index(name, row.index(name) + 1)
        for row, name in zip(tokens.tolist(), s.tolist(), strict=True)
    ]
    out[:, s2] = io
    return out


def swap_in_a_copy(tokens, io, s):
    for row, name in zip(tokens.tolist(), io.tolist(), strict=True):
        row[-1] = name
    return tokens


def difference_by_argmax(clean, corrupted):
    return np.argmax(clean.numpy() != corrupted.numpy(), axis=1)


def difference_by_nonzero_last(clean, corrupted):
    out = []
    for a, b in zip(clean, corrupted, strict=True):
        places = (a != b).nonzero().flatten().tolist()
        out.append(places[-1] if places else len(a))
    return out


def difference_by_sum(clean, corrupted):
    return (clean != corrupted).sum(-1)


def difference_of_the_batch(clean, corrupted):
    columns = (clean != corrupted).any(dim=0).nonzero().flatten()
    return [columns[0].item()] * len(clean)


def difference_too_early(clean, corrupted):
    out = []
    for a, b in zip(clean.tolist(), corrupted.tolist(), strict=True):
        i = 0
        while i < len(a) and a[i] == b[i]:
            i += 1
        out.append(i - 1)
    return out


@pytest.mark.parametrize(
    ("check", "answer", "name"),
    [
        ("find_end", end_is_minus_one, "last column taken for END"),
        ("find_end", end_by_counting, "BOS off by one"),
        ("find_end", end_one_too_far, "first padding taken for END"),
        ("find_end", end_from_the_first_pad, "first padding found at BOS"),
        ("find_end", end_before_the_next_pad, "a row without padding"),
        ("find_end", end_as_a_negative_index, "END counted from the right"),
        ("find_subject", subject_by_argmax, "S1 taken for S2"),
        ("find_subject", subject_from_the_right, "S2 taken for S1"),
        ("find_subject", subject_backwards, "S1 and S2 exchanged"),
        ("find_subject", subject_without_bos, "BOS off by one"),
        ("find_subject", subject_plus_one, "S1+1 taken for S1"),
        ("swap_subject", swap_all, "both mentions of S replaced"),
        ("swap_subject", swap_names, "IO and S exchanged everywhere"),
        ("swap_subject", swap_first, "S1 taken for S2"),
        ("swap_subject", swap_io, "IO replaced by S"),
        ("swap_subject", swap_in_a_block, "every row changed at every row's S2"),
        ("swap_subject", swap_in_a_copy, "nothing replaced"),
        (
            "first_difference",
            difference_by_argmax,
            "identical pair said to differ at 0",
        ),
        (
            "first_difference",
            difference_by_nonzero_last,
            "last difference taken for the first",
        ),
        ("first_difference", difference_by_sum, "differences counted"),
        (
            "first_difference",
            difference_of_the_batch,
            "one position for the whole batch",
        ),
        (
            "first_difference",
            difference_too_early,
            "last agreement taken for the first difference",
        ),
    ],
)
def test_a_wrong_answer_is_recognised(check, answer, name):
    verdict = getattr(checks, check)(answer)
    assert verdict.misconception == name, verdict


def find_end(tokens, pad):
    return [
        max(i for i, token in enumerate(row) if token != pad) for row in tokens.tolist()
    ]


def find_subject(tokens, s):
    return (tokens == s[:, None]).nonzero()[:, 1].view(-1, 2).numpy()


def swap_subject(tokens, io, s):
    out = tokens.numpy().copy()
    for row, a, b in zip(out, io.tolist(), s.tolist(), strict=True):
        row[np.flatnonzero(row == b)[-1]] = a
    return out


def first_difference(clean, corrupted):
    return ((clean == corrupted).cumprod(dim=1)).sum(dim=1)


@pytest.mark.parametrize(
    "answer", [find_end, find_subject, swap_subject, first_difference]
)
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict
