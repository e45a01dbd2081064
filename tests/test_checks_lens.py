"""The checks of chapter 3 against answers as students write them: wrong ones are named, right ones pass."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import einsum

from ioi_course.checks.lens import (
    fold_layer_norm,
    hold_the_scale,
    largest_step,
    lens_at_end,
    read_stream,
    settled_at,
)

SEEDS = (0, 1, 7)


def assert_named(exercise, answer, name):
    for seed in SEEDS:
        verdict = exercise(answer, seed=seed)
        assert verdict.kind == "misconception", verdict
        assert verdict.misconception == name
        assert name in verdict.message and not verdict


def assert_passes(exercise, answer):
    for seed in SEEDS:
        verdict = exercise(answer, seed=seed)
        assert verdict.passed, verdict


@pytest.mark.parametrize(
    "exercise", [read_stream, lens_at_end, largest_step, hold_the_scale, settled_at, fold_layer_norm], ids=repr
)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_misconceptions_are_wrong_and_differ(exercise, seed):
    assert exercise(exercise.solution, seed=seed).passed
    for one in exercise.misconceptions:
        assert exercise(one.answer, seed=seed).misconception == one.name


# --- 3.1 read_stream ---


def unembed_only(resid, model):
    return einsum(resid, model.W_U, "batch d, d vocab -> batch vocab") + model.b_U


def normalise_by_hand(resid, model):
    x = resid - resid.mean(-1, keepdim=True)
    x = x / torch.sqrt((x**2).mean(-1, keepdim=True) + model.cfg.eps)
    return x @ model.W_U + model.b_U


def weight_only(resid, model):
    return torch.matmul(model.ln_final(resid), model.W_U)


def norm_last(resid, model):
    logits = resid @ model.W_U + model.b_U
    return (logits - logits.mean(-1, keepdim=True)) / (logits.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def last_block_norm(resid, model):
    return model.unembed(model.blocks[model.cfg.n_layers - 1].ln2(resid))


def probabilities(resid, model):
    return F.softmax(model.unembed(model.ln_final(resid)), dim=-1)


@pytest.mark.parametrize(
    "answer, name",
    [
        (unembed_only, "final LayerNorm forgotten"),
        (normalise_by_hand, "final LayerNorm without its weight and bias"),
        (weight_only, "bias of the unembedding forgotten"),
        (norm_last, "LayerNorm after the unembedding"),
        (last_block_norm, "LayerNorm of a block taken for the final one"),
        (probabilities, "softmax of the logits"),
    ],
)
def test_read_stream_names_what_is_wrong(answer, name):
    assert_named(read_stream, answer, name)


def test_read_stream_passes_when_written_differently():
    def prompt_by_prompt(resid, model):
        return [model.unembed(model.ln_final(x[None, None]))[0, 0].float().tolist() for x in resid]

    def by_hand(resid, model):
        x = F.layer_norm(resid, [model.cfg.d_model], model.ln_final.weight, model.ln_final.bias, model.cfg.eps)
        return (x @ model.W_U).add(model.b_U).numpy()

    assert_passes(read_stream, prompt_by_prompt)
    assert_passes(read_stream, by_hand)


def test_read_stream_with_sum_for_mean_is_wrong_without_a_name():
    verdict = read_stream(lambda resid, model: model.ln_final(resid.flip(0)) @ model.W_U + model.b_U)
    assert verdict.kind == "wrong"


# --- 3.2 lens_at_end ---


def to_logits(resid, model):
    return model.unembed(model.ln_final(resid))


def last_position(resid, data, model):
    logits = to_logits(resid, model)[:, -1]
    return torch.stack([logits[i, io] - logits[i, s] for i, (io, s) in enumerate(data.answers)])


def bos_subtracted(resid, data, model):
    logits, differences = to_logits(resid, model), []
    for i, (io, s) in enumerate(data.answers):
        end = data.pos["END"][i] - 1
        differences.append(logits[i, end, io] - logits[i, end, s])
    return torch.stack(differences)


def length_minus_two(resid, data, model):
    logits = to_logits(resid[torch.arange(len(data)), data.lengths - 2], model)
    return logits.gather(1, data.answers[:, :1])[:, 0] - logits.gather(1, data.answers[:, 1:])[:, 0]


def at_s2(resid, data, model):
    logits = to_logits(resid, model)[torch.arange(len(data)), data.pos["S2"]]
    both = logits.gather(1, data.answers)
    return both[:, 0] - both[:, 1]


def s_minus_io(resid, data, model):
    logits = to_logits(resid, model)[torch.arange(len(data)), data.pos["END"]]
    return logits.gather(1, data.answers).diff(dim=1)[:, 0]


def direction_without_norm(resid, data, model):
    end = resid[torch.arange(len(data)), data.lengths - 1]
    direction = model.W_U[:, data.answers[:, 0]] - model.W_U[:, data.answers[:, 1]]
    bias = model.b_U[data.answers[:, 0]] - model.b_U[data.answers[:, 1]]
    return einsum(end, direction, "batch d, d batch -> batch") + bias


def probability_difference(resid, data, model):
    probs = to_logits(resid, model).softmax(-1)[torch.arange(len(data)), data.pos["END"]]
    return probs[torch.arange(len(data)), data.answers[:, 0]] - probs[torch.arange(len(data)), data.answers[:, 1]]


def averaged(resid, data, model):
    logits = to_logits(resid, model)[torch.arange(len(data)), data.pos["END"]]
    both = logits.gather(1, data.answers)
    return both[:, 0].mean() - both[:, 1].mean()


def direction_without_bias(resid, data, model):
    end = model.ln_final(resid)[torch.arange(len(data)), data.pos["END"]]
    direction = model.W_U[:, data.answers[:, 0]] - model.W_U[:, data.answers[:, 1]]
    return (end * direction.T).sum(-1)


@pytest.mark.parametrize(
    "answer, name",
    [
        (last_position, "padding taken for END"),
        (bos_subtracted, "BOS off by one"),
        (length_minus_two, "BOS off by one"),
        (at_s2, "S2 taken for END"),
        (s_minus_io, "IO and S exchanged"),
        (direction_without_norm, "final LayerNorm forgotten"),
        (probability_difference, "softmax before the difference"),
        (averaged, "mean over prompts"),
        (direction_without_bias, "bias of the unembedding forgotten"),
    ],
)
def test_lens_at_end_names_what_is_wrong(answer, name):
    assert_named(lens_at_end, answer, name)


def test_lens_at_end_passes_when_written_differently():
    def with_the_direction(resid, data, model):
        end = model.ln_final(resid)[range(len(data)), data.lengths - 1]
        io, s = data.answers.T
        return (end @ (model.W_U[:, io] - model.W_U[:, s])).diagonal() + model.b_U[io] - model.b_U[s]

    def with_log_probabilities(resid, data, model):
        logs, differences = to_logits(resid, model).log_softmax(-1), []
        for i, (io, s) in enumerate(data.answers.tolist()):
            end = int(data.lengths[i]) - 1
            differences.append(float(logs[i, end, io] - logs[i, end, s]))
        return np.array(differences)

    assert_passes(lens_at_end, with_the_direction)
    assert_passes(lens_at_end, with_log_probabilities)


# --- 3.3 largest_step ---


@pytest.mark.parametrize(
    "answer, name",
    [
        (
            lambda values, labels: labels[int(np.argmax(values.mean(1).numpy()))],
            "the highest place, not the largest step",
        ),
        (lambda values, labels: labels[values.diff(dim=0).mean(dim=1).argmax()], "the place before the step"),
        (lambda values, labels: labels[values.diff(dim=0).mean(1).abs().argmax() + 1], "a loss taken for a gain"),
        (lambda values, labels: labels[1 + torch.diff(values[:, 0]).argmax()], "the first prompt only"),
    ],
)
def test_largest_step_names_what_is_wrong(answer, name):
    assert_named(largest_step, answer, name)


def test_largest_step_over_the_wrong_axis():
    def wrong_axis(values, labels):
        mean = values.mean(0)
        step = torch.argmax(mean[1:] - mean[:-1]).item()
        return labels[1:][step % (len(labels) - 1)]

    assert_named(largest_step, wrong_axis, "mean over the wrong axis")


def test_largest_step_passes_when_written_differently():
    def loop(values, labels):
        means = [sum(row) / len(row) for row in values.tolist()]
        steps = {label: after - before for label, before, after in zip(labels[1:], means, means[1:], strict=False)}
        return max(steps, key=steps.get)

    assert_passes(largest_step, loop)
    assert_passes(largest_step, lambda values, labels: labels[int(values.diff(dim=0).sum(1).argmax()) + 1])


# --- 3.4 hold_the_scale ---


def own_scales(stream, direction):
    return einsum(F.layer_norm(stream, stream.shape[-1:]), direction, "place batch d, batch d -> place batch")


def first_scale(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    return ((x / (x[0].var(-1, unbiased=False) + 1e-5).sqrt()[:, None]) * direction).sum(-1)


def one_scale(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    scale = torch.sqrt(x[-1].pow(2).mean(-1) + 1e-5)
    return (x * direction).sum(-1) / scale.mean()


def only_centred(stream, direction):
    return ((stream - stream.mean(-1, keepdim=True)) * direction[None]).sum(-1)


def only_scaled(stream, direction):
    scale = torch.sqrt(stream[-1].var(dim=-1, unbiased=False) + 1e-5)
    return (stream * direction).sum(-1) / scale


def by_length(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    return (x * direction).sum(-1) / x[-1].norm(dim=-1)


def by_variance(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    return (x * direction).sum(-1) / (x[-1].var(dim=-1, correction=0) + 1e-5)


def batch_mean(stream, direction):
    x = stream - stream.mean(1, keepdim=True)
    scale = (stream[-1].var(dim=-1, correction=0) + 1e-5).sqrt()
    return (x * direction).sum(-1) / scale


@pytest.mark.parametrize(
    "answer, name",
    [
        (own_scales, "scale not held"),
        (first_scale, "scale of the first place"),
        (one_scale, "one scale for all prompts"),
        (only_centred, "no scale at all"),
        (only_scaled, "mean not subtracted"),
        (by_length, "length taken for scale"),
        (by_variance, "variance taken for scale"),
        (batch_mean, "mean over the wrong axis"),
    ],
)
def test_hold_the_scale_names_what_is_wrong(answer, name):
    assert_named(hold_the_scale, answer, name)


def test_hold_the_scale_passes_when_written_differently():
    def centre_the_direction(stream, direction):
        """The mean may be taken from the direction instead."""
        direction = direction - direction.mean(-1, keepdim=True)
        scale = np.sqrt(np.var(stream[-1].numpy(), axis=-1) + 1e-5)
        return np.einsum("pbd,bd->pb", stream.numpy(), direction.numpy()) / scale

    def loop(stream, direction):
        rows = []
        for place in stream:
            row = []
            for i, x in enumerate(place):
                scale = float((stream[-1, i].var(correction=0) + 1e-5) ** 0.5)
                row.append(float((x - x.mean()) @ direction[i]) / scale)
            rows.append(row)
        return rows

    assert_passes(hold_the_scale, centre_the_direction)
    assert_passes(hold_the_scale, loop)


# --- 3.5 settled_at ---


def tops(logits, answers):
    return (logits.argmax(-1) == answers).tolist()


def first_time(logits, answers):
    top = tops(logits, answers)
    return [next((p for p in range(len(top)) if top[p][i]), len(top)) for i in range(len(answers))]


def last_time_not(logits, answers):
    top = tops(logits, answers)
    return [max((p for p in range(len(top)) if not top[p][i]), default=-1) for i in range(len(answers))]


def how_often(logits, answers):
    return [sum(row[i] for row in tops(logits, answers)) for i in range(len(answers))]


def how_long(logits, answers):
    lengths = []
    for column in zip(*tops(logits, answers), strict=True):
        n = 0
        while n < len(column) and column[-1 - n]:
            n += 1
        lengths.append(n)
    return lengths


def never_is_last(logits, answers):
    return [len(logits) - max(n, 1) for n in how_long(logits, answers)]


def least(logits, answers):
    return [len(logits) - n for n in how_long(-logits, answers)]


@pytest.mark.parametrize(
    "answer, name",
    [
        (first_time, "on top once taken for settled"),
        (last_time_not, "the last place before it settles"),
        (how_often, "places counted, not found"),
        (how_long, "counted from the end"),
        (never_is_last, "never settled taken for settled at the end"),
        (least, "the least likely token looked for"),
    ],
)
def test_settled_at_names_what_is_wrong(answer, name):
    assert_named(settled_at, answer, name)


def test_settled_at_passes_when_written_differently():
    def ranks(logits, answers):
        own = logits.gather(-1, answers.expand(len(logits), -1)[..., None])
        behind = (logits > own).sum(-1) > 0
        return [int(max(column.nonzero()[:, 0].tolist(), default=-1)) + 1 for column in behind.T]

    assert_passes(settled_at, ranks)
    assert_passes(settled_at, lambda logits, answers: np.array(last_time_not(logits, answers)) + 1.0)


# --- 3.6 fold_layer_norm ---


@pytest.mark.parametrize(
    "answer, name",
    [
        (lambda w, b, W_U, b_U: (torch.diag(w) @ W_U, b_U), "bias of LayerNorm lost"),
        (lambda w, b, W_U, b_U: ((W_U.T * w).T, W_U.T @ b), "bias of the unembedding lost"),
        (lambda w, b, W_U, b_U: (W_U * w[:, None], (w * b) @ W_U + b_U), "bias put through the folded weight"),
        (lambda w, b, W_U, b_U: (torch.diag(1 / w) @ W_U, b_U + W_U.T @ b), "divided by the weight"),
        (lambda w, b, W_U, b_U: (W_U, b_U + einsum(b, W_U, "d, d v -> v")), "weight left out"),
    ],
)
def test_fold_layer_norm_names_what_is_wrong(answer, name):
    assert_named(fold_layer_norm, answer, name)


def test_fold_layer_norm_passes_when_written_differently():
    def einsums(w, b, W_U, b_U):
        return [einsum(w, W_U, "d, d v -> d v").numpy(), (b_U + torch.mv(W_U.T, b)).numpy()]

    assert_passes(fold_layer_norm, einsums)


def test_fold_layer_norm_along_the_vocabulary_is_wrong():
    """It fails on square matrices without an error of its own, and on others with one."""
    verdict = fold_layer_norm(lambda w, b, W_U, b_U: (W_U * w, b @ W_U + b_U))
    assert verdict.kind in ("raised", "wrong") and not verdict
