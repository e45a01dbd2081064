"""Wrong answers to the exercises of chapter 2, written as students write them, and what
the checks make of them."""

import statistics

import numpy as np
import pytest
import torch

from ioi_course import checks


def diff_at_minus_one(logits, answers, end):
    last = logits[:, -1]
    return torch.stack(
        [row[io] - row[s] for row, (io, s) in zip(last, answers.tolist(), strict=True)]
    )


def diff_before_end(logits, answers, end):
    return [
        (
            logits[i, end[i] - 1, answers[i, 0]] - logits[i, end[i] - 1, answers[i, 1]]
        ).item()
        for i in range(len(logits))
    ]


def diff_s_minus_io(logits, answers, end):
    rows = torch.arange(len(end))
    return logits[rows, end, answers[:, 1]] - logits[rows, end, answers[:, 0]]


def diff_of_probabilities(logits, answers, end):
    exp = logits.exp()
    probs = exp / exp.sum(-1, keepdim=True)
    rows = torch.arange(len(end))
    return probs[rows, end, answers[:, 0]] - probs[rows, end, answers[:, 1]]


def diff_io_only(logits, answers, end):
    return [logits[i, end[i], answers[i, 0]].item() for i in range(len(logits))]


def diff_averaged(logits, answers, end):
    rows = torch.arange(len(end))
    return (logits[rows, end, answers[:, 0]] - logits[rows, end, answers[:, 1]]).mean()


def scale_reversed(patched, clean, corrupted):
    return 1 - (patched - corrupted) / (clean - corrupted)


def scale_unshifted(patched, clean, corrupted):
    gap = clean - corrupted
    return patched / gap


def scale_undivided(patched, clean, corrupted):
    return patched.numpy() - corrupted


def scale_share(patched, clean, corrupted):
    return (patched * (1 / clean)).tolist()


def scale_abs(patched, clean, corrupted):
    return (patched - corrupted) / np.abs(clean - corrupted)


def error_as_deviation(diff):
    values = diff.tolist()
    return statistics.mean(values), statistics.stdev(values)


def error_over_n(diff):
    values = diff.tolist()
    return [statistics.mean(values), statistics.stdev(values) / len(values)]


def error_of_variance(diff):
    mean = diff.sum() / len(diff)
    return mean, ((diff - mean) ** 2).sum() / (len(diff) - 1) / np.sqrt(len(diff))


def error_with_numpy(diff):
    return np.mean(diff.numpy()), np.std(diff.numpy()) / np.sqrt(len(diff))


def error_around_the_median(diff):
    ordered = sorted(diff.tolist())
    return ordered[(len(ordered) - 1) // 2], statistics.stdev(ordered) / len(
        ordered
    ) ** 0.5


def effect_as_lean(clean, swapped):
    return 0.5 * (clean - swapped), 0.5 * (clean + swapped)


def effect_doubled(clean, swapped):
    effect = swapped + clean
    return effect, effect - 2 * swapped


def lean_of_the_swapped(clean, swapped):
    effect = (clean + swapped) / 2
    return effect, swapped - effect


def lean_absolute(clean, swapped):
    effect = torch.stack([clean, swapped]).mean(dim=0)
    return effect, abs(clean - effect)


def effect_averaged(clean, swapped):
    return (clean.mean() + swapped.mean()) / 2, (clean.mean() - swapped.mean()) / 2


@pytest.mark.parametrize(
    ("check", "answer", "name"),
    [
        ("diff_at_end", diff_at_minus_one, "last column taken for END"),
        ("diff_at_end", diff_before_end, "END off by one"),
        ("diff_at_end", diff_s_minus_io, "IO and S exchanged"),
        ("diff_at_end", diff_of_probabilities, "softmax before the difference"),
        ("diff_at_end", diff_io_only, "S was not subtracted"),
        ("diff_at_end", diff_averaged, "mean over prompts"),
        ("on_scale", scale_reversed, "scale upside down"),
        ("on_scale", scale_unshifted, "zero left where it was"),
        ("on_scale", scale_undivided, "not divided by the gap"),
        ("on_scale", scale_share, "share of the clean value"),
        ("on_scale", scale_abs, "gap without its sign"),
        ("mean_and_error", error_as_deviation, "deviation taken for the error"),
        ("mean_and_error", error_over_n, "divided by n, not by its root"),
        ("mean_and_error", error_of_variance, "variance taken for the deviation"),
        ("mean_and_error", error_with_numpy, "deviation of these prompts only"),
        ("mean_and_error", error_around_the_median, "median taken for the mean"),
        ("effect_and_lean", effect_as_lean, "effect and lean exchanged"),
        ("effect_and_lean", effect_doubled, "not halved"),
        ("effect_and_lean", lean_of_the_swapped, "lean in the wrong direction"),
        ("effect_and_lean", lean_absolute, "lean without its sign"),
        ("effect_and_lean", effect_averaged, "mean over prompts"),
    ],
)
def test_a_wrong_answer_is_recognised(check, answer, name):
    verdict = getattr(checks, check)(answer)
    assert verdict.misconception == name, verdict


def diff_at_end(logits, answers, end):
    rows = np.arange(len(end))
    at_end = logits.numpy().astype("float32")[rows, end.numpy()]
    return at_end[rows, answers[:, 0].numpy()] - at_end[rows, answers[:, 1].numpy()]


def on_scale(patched, clean, corrupted):
    return 1 + (patched - clean) / (clean - corrupted)


def mean_and_error(diff):
    values = diff.tolist()
    return [
        statistics.fmean(values),
        (statistics.variance(values) / len(values)) ** 0.5,
    ]


def effect_and_lean(clean, swapped):
    effect = torch.stack([clean, swapped]).mean(dim=0)
    return torch.stack([effect, clean - effect])


@pytest.mark.parametrize(
    "answer", [diff_at_end, on_scale, mean_and_error, effect_and_lean]
)
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict
