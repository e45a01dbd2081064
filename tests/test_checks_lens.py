"""The checks of chapter 3 against answers as students write them: wrong ones are
named, right ones pass."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import einsum

from ioi_course.checks.lens import (
    largest_step,
    lens_at_end,
    lens_of_prompt,
    settled_at,
    what_is_read,
)
from ioi_course.checks.scale import fold_layer_norm, hold_the_scale

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


# --- 3.1 lens_of_prompt ---


def streams(model, tokens):
    """The stream at the last position, in all places."""
    _, cache = model.run_with_cache(tokens)
    names = []
    for layer in range(model.cfg.n_layers):
        names += [f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.hook_resid_mid"]
    names.append(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
    return [cache[name][0, -1] for name in names]


def difference(logits, answers):
    io, s = answers.tolist()
    return float(logits[io] - logits[s])


def each(model, tokens, answers, to_logits):
    return [difference(to_logits(x), answers) for x in streams(model, tokens)]


def unembed_only(model, tokens, answers):
    return each(
        model,
        tokens,
        answers,
        lambda x: einsum(x, model.W_U, "d, d vocab -> vocab") + model.b_U,
    )


def normalise_by_hand(model, tokens, answers):
    def read(x):
        x = x if model.ln_final.uses_rms_norm else x - x.mean()
        return x / torch.sqrt((x**2).mean() + model.cfg.eps) @ model.W_U + model.b_U

    return each(model, tokens, answers, read)


def weight_only(model, tokens, answers):
    return each(
        model,
        tokens,
        answers,
        lambda x: torch.matmul(model.ln_final(x[None, None])[0, 0], model.W_U),
    )


def last_block_norm(model, tokens, answers):
    norm = model.blocks[model.cfg.n_layers - 1].ln2
    return each(
        model, tokens, answers, lambda x: model.unembed(norm(x[None, None]))[0, 0]
    )


def probabilities(model, tokens, answers):
    return each(
        model,
        tokens,
        answers,
        lambda x: model.unembed(model.ln_final(x[None, None]))[0, 0].softmax(-1),
    )


def half_layers(model, tokens, answers):
    x, *more = streams(model, tokens)
    parts = [
        x,
        *[after - before for before, after in zip([x, *more], more, strict=False)],
    ]
    return [
        difference(model.unembed(model.ln_final(part[None, None]))[0, 0], answers)
        for part in parts
    ]


def at_bos(model, tokens, answers):
    return lens_right(model, tokens[:, :1], answers)


def lens_right(model, tokens, answers):
    return each(
        model,
        tokens,
        answers,
        lambda x: model.unembed(model.ln_final(x[None, None]))[0, 0],
    )


@pytest.mark.parametrize(
    "answer, name",
    [
        (unembed_only, "final normalisation forgotten"),
        (normalise_by_hand, "final LayerNorm without its weight and bias"),
        (weight_only, "bias of the unembedding forgotten"),
        (last_block_norm, "LayerNorm of a block taken for the final one"),
        (probabilities, "softmax before the difference"),
        (half_layers, "what a half layer added, not the stream"),
        (at_bos, "the first position"),
        (lambda *args: [-x for x in lens_right(*args)], "IO and S exchanged"),
        (lambda *args: lens_right(*args)[::2], "only whole layers"),
    ],
)
def test_lens_of_prompt_names_what_is_wrong(answer, name):
    assert_named(lens_of_prompt, answer, name)


def test_lens_of_prompt_passes_when_written_differently():
    def accumulated(model, tokens, answers):
        _, cache = model.run_with_cache(tokens)
        stack = cache.accumulated_resid(incl_mid=True, pos_slice=-1)[:, 0]
        logits = model.ln_final(stack) @ model.W_U + model.b_U
        return logits[:, answers[0]].sub(logits[:, answers[1]]).numpy()

    assert_passes(lens_of_prompt, accumulated)
    assert_passes(lens_of_prompt, lens_right)


def test_lens_of_prompt_without_the_last_place_is_wrong():
    verdict = lens_of_prompt(lambda *args: lens_right(*args)[:-1])
    assert verdict.kind == "wrong" and "shape" in verdict.message


# --- 3.2 lens_at_end ---


def to_logits(resid, model):
    return model.unembed(model.ln_final(resid))


def last_position(resid, data, model):
    logits = to_logits(resid, model)[:, -1]
    return torch.stack(
        [logits[i, io] - logits[i, s] for i, (io, s) in enumerate(data.answers)]
    )


def bos_subtracted(resid, data, model):
    logits, differences = to_logits(resid, model), []
    for i, (io, s) in enumerate(data.answers):
        end = data.pos["END"][i] - 1
        differences.append(logits[i, end, io] - logits[i, end, s])
    return torch.stack(differences)


def length_minus_two(resid, data, model):
    logits = to_logits(resid[torch.arange(len(data)), data.lengths - 2], model)
    return (
        logits.gather(1, data.answers[:, :1])[:, 0]
        - logits.gather(1, data.answers[:, 1:])[:, 0]
    )


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
    probs = to_logits(resid, model).softmax(-1)[
        torch.arange(len(data)), data.pos["END"]
    ]
    return (
        probs[torch.arange(len(data)), data.answers[:, 0]]
        - probs[torch.arange(len(data)), data.answers[:, 1]]
    )


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
        return (
            (end @ (model.W_U[:, io] - model.W_U[:, s])).diagonal()
            + model.b_U[io]
            - model.b_U[s]
        )

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
        (
            lambda values, labels: labels[values.diff(dim=0).mean(dim=1).argmax()],
            "the place before the step",
        ),
        (
            lambda values, labels: labels[
                values.diff(dim=0).mean(1).abs().argmax() + 1
            ],
            "a loss taken for a gain",
        ),
        (
            lambda values, labels: labels[1 + torch.diff(values[:, 0]).argmax()],
            "the first prompt only",
        ),
        (
            lambda v, labels: labels[1 + v.median(1).values.diff().argmax()],
            "the median taken for the mean",
        ),
    ],
)
def test_largest_step_names_what_is_wrong(answer, name):
    assert_named(largest_step, answer, name)


@pytest.mark.parametrize("seed", SEEDS)
def test_largest_step_is_not_that_of_the_middle_prompt(seed):
    assert not largest_step(
        lambda v, labels: labels[1 + v.diff(dim=0).median(1)[0].argmax()], seed=seed
    )


def test_largest_step_over_the_wrong_axis():
    def wrong_axis(values, labels):
        mean = values.mean(0)
        step = torch.argmax(mean[1:] - mean[:-1]).item()
        return labels[1:][step % (len(labels) - 1)]

    assert_named(largest_step, wrong_axis, "mean over the wrong axis")


def test_largest_step_passes_when_written_differently():
    def loop(values, labels):
        means = [sum(row) / len(row) for row in values.tolist()]
        steps = {
            label: after - before
            for label, before, after in zip(labels[1:], means, means[1:], strict=False)
        }
        return max(steps, key=steps.get)

    assert_passes(largest_step, loop)
    assert_passes(
        largest_step,
        lambda values, labels: labels[int(values.diff(dim=0).sum(1).argmax()) + 1],
    )


# --- 3.4 what_is_read ---


def say(answer, lean):
    return [
        "answer" if a else ("lean" if b else "nothing")
        for a, b in zip(answer.tolist(), lean.tolist(), strict=True)
    ]


def parts(clean, swapped):
    effect, lean = (clean + swapped) / 2, (clean - swapped) / 2
    mean = effect.mean(1)
    return (
        effect,
        mean.abs(),
        effect.std(1) / effect.shape[1] ** 0.5,
        torch.sqrt((lean**2).mean(1)),
    )


def single_prompts(clean, swapped):
    both = torch.cat([clean, swapped], 1)
    mean, error = both.mean(1).abs(), both.std(1) / both.shape[1] ** 0.5
    return say(
        (mean >= 4 * error) & (mean >= mean[-1] / 50), parts(clean, swapped)[3] >= 0.5
    )


def with_other(question):
    def answer(clean, swapped):
        effect, mean, error, size = parts(clean, swapped)
        lean = (clean - swapped) / 2
        sure, leans = (mean >= 4 * error) & (mean >= 0.02 * mean[-1]), size >= 0.5
        if question == "mean":
            leans = lean.mean(1).abs() >= 0.5
        elif question == "std":
            leans = lean.std(1) >= 0.5
        elif question == "deviation":
            sure = (mean >= 4 * effect.std(1)) & (mean >= mean[-1] / 50)
        elif question == "tiny":
            sure = mean >= 4 * error
        elif question == "no error":
            sure = mean >= 0.02 * mean[-1]
        elif question == "positive":
            sure = sure & (effect.mean(1) > 0)
        elif question == "lean first":
            return [
                "lean" if b else said
                for b, said in zip(leans.tolist(), say(sure, leans), strict=True)
            ]
        return say(sure, leans)

    return answer


@pytest.mark.parametrize(
    "answer, name",
    [
        (single_prompts, "error without the pairs"),
        (with_other("mean"), "mean of the leans"),
        (with_other("std"), "deviation taken for size"),
        (
            lambda clean, swapped: with_other("")(clean, -swapped),
            "sum and difference exchanged",
        ),
        (with_other("deviation"), "deviation taken for the error of the mean"),
        (with_other("no error"), "no error at all"),
        (with_other("lean first"), "lean asked first"),
    ],
)
def test_what_is_read_names_what_is_wrong(answer, name):
    assert_named(what_is_read, answer, name)


@pytest.mark.parametrize("answer", [with_other("tiny"), with_other("positive")])
def test_what_is_read_refuses_half_of_the_rule(answer):
    assert all(what_is_read(answer, seed=seed).kind == "wrong" for seed in SEEDS)


def test_what_is_read_passes_when_written_differently():
    def place_by_place(clean, swapped):
        sums, said = ((clean + swapped) / 2).numpy(), []
        for both, lean in zip(sums, ((clean - swapped) / 2).numpy(), strict=True):
            least = max(
                4 * np.std(both, ddof=1) / np.sqrt(len(both)),
                0.02 * abs(sums[-1].mean()),
            )
            if abs(both.mean()) >= least:
                said.append("answer")
            else:
                said.append("lean" if np.sqrt(np.mean(lean**2)) >= 0.5 else "nothing")
        return said

    assert_passes(what_is_read, place_by_place)


@pytest.mark.parametrize("errors", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_read_wants_four_errors(errors, seed):
    def other(clean, swapped):
        _, mean, error, size = parts(clean, swapped)
        return say((mean >= errors * error) & (mean >= 0.02 * mean[-1]), size >= 0.5)

    assert not what_is_read(other, seed=seed)


# --- 3.5 hold_the_scale ---


def ready(answer):
    """An answer that thinks of LayerNorm alone, made right for RMSNorm: there
    is no mean to subtract."""

    def both(stream, direction, centre):
        if centre:
            return answer(stream, direction)
        twice, zeros = torch.cat([stream, -stream], dim=-1), torch.zeros_like(direction)
        # the mean of x and −x is 0
        return answer(twice, torch.cat([direction, zeros], dim=-1))

    return both


def own_scales(stream, direction):
    return einsum(
        F.layer_norm(stream, stream.shape[-1:]),
        direction,
        "place batch d, batch d -> place batch",
    )


def first_scale(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    return (
        (x / (x[0].var(-1, unbiased=False) + 1e-5).sqrt()[:, None]) * direction
    ).sum(-1)


def one_scale(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    scale = torch.sqrt(x[-1].pow(2).mean(-1) + 1e-5)
    return (x * direction).sum(-1) / scale.mean()


def only_centred(stream, direction):
    return ((stream - stream.mean(-1, keepdim=True)) * direction[None]).sum(-1)


def only_scaled(stream, direction):
    scale = torch.sqrt(stream[-1].var(dim=-1, unbiased=False) + 1e-5)
    return (stream * direction).sum(-1) / scale


def by_length(stream, direction, centre):
    x = stream - stream.mean(-1, keepdim=True) if centre else stream
    return (x * direction).sum(-1) / x[-1].norm(dim=-1)


def by_variance(stream, direction):
    x = stream - stream.mean(-1, keepdim=True)
    return (x * direction).sum(-1) / (x[-1].var(dim=-1, correction=0) + 1e-5)


def batch_mean(stream, direction, centre):
    x = stream - stream.mean(1, keepdim=True)
    last = stream[-1] - stream[-1].mean(-1, keepdim=True) * centre
    scale = (last.pow(2).mean(-1) + 1e-5).sqrt()
    return (x * direction).sum(-1) / scale


@pytest.mark.parametrize(
    "answer, name",
    [
        (ready(own_scales), "scale not held"),
        (ready(first_scale), "scale of the first place"),
        (ready(one_scale), "one scale for all prompts"),
        (ready(only_centred), "no scale at all"),
        (ready(only_scaled), "mean not subtracted"),
        (by_length, "length taken for scale"),
        (ready(by_variance), "variance taken for scale"),
        (batch_mean, "mean over the wrong axis"),
    ],
)
def test_hold_the_scale_names_what_is_wrong(answer, name):
    assert_named(hold_the_scale, answer, name)


def test_hold_the_scale_for_rms_norm_subtracts_nothing():
    def layer_norm_only(stream, direction, centre):
        x = stream - stream.mean(-1, keepdim=True)
        return (x * direction).sum(-1) / torch.sqrt(x[-1].pow(2).mean(-1) + 1e-5)

    assert_named(hold_the_scale, layer_norm_only, "mean always subtracted")


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

    assert_passes(hold_the_scale, ready(centre_the_direction))
    assert_passes(hold_the_scale, ready(loop))


# --- 3.6 settled_at ---


def tops(logits, answers):
    return (logits.argmax(-1) == answers).tolist()


def first_time(logits, answers):
    top = tops(logits, answers)
    return [
        next((p for p in range(len(top)) if top[p][i]), len(top))
        for i in range(len(answers))
    ]


def last_time_not(logits, answers):
    top = tops(logits, answers)
    return [
        max((p for p in range(len(top)) if not top[p][i]), default=-1)
        for i in range(len(answers))
    ]


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
        return [
            int(max(column.nonzero()[:, 0].tolist(), default=-1)) + 1
            for column in behind.T
        ]

    assert_passes(settled_at, ranks)
    assert_passes(
        settled_at,
        lambda logits, answers: np.array(last_time_not(logits, answers)) + 1.0,
    )


# --- 3.7 fold_layer_norm ---


@pytest.mark.parametrize(
    "answer, name",
    [
        (lambda w, b, W_U, b_U: (torch.diag(w) @ W_U, b_U), "bias of LayerNorm lost"),
        (
            lambda w, b, W_U, b_U: ((W_U.T * w).T, W_U.T @ b),
            "bias of the unembedding lost",
        ),
        (
            lambda w, b, W_U, b_U: (W_U * w[:, None], (w * b) @ W_U + b_U),
            "bias put through the folded weight",
        ),
        (
            lambda w, b, W_U, b_U: (torch.diag(1 / w) @ W_U, b_U + W_U.T @ b),
            "divided by the weight",
        ),
        (
            lambda w, b, W_U, b_U: (W_U, b_U + einsum(b, W_U, "d, d v -> v")),
            "weight left out",
        ),
    ],
)
def test_fold_layer_norm_names_what_is_wrong(answer, name):
    assert_named(fold_layer_norm, answer, name)


def test_fold_layer_norm_passes_when_written_differently():
    def einsums(w, b, W_U, b_U):
        return [
            einsum(w, W_U, "d, d v -> d v").numpy(),
            (b_U + torch.mv(W_U.T, b)).numpy(),
        ]

    def centred(w, b, W_U, b_U):
        """As TransformerLens does it: x has the mean 0, so the mean of a
        column changes no logit."""
        folded = w[:, None] * W_U
        return folded - folded.mean(dim=0), b @ W_U + b_U

    assert_passes(fold_layer_norm, einsums)
    assert_passes(fold_layer_norm, centred)


def test_fold_layer_norm_centred_over_the_vocabulary_changes_logits():
    def center_unembed(w, b, W_U, b_U):
        folded = w[:, None] * W_U
        return folded - folded.mean(dim=1, keepdim=True), b @ W_U + b_U

    assert fold_layer_norm(center_unembed).kind == "wrong"


def test_fold_layer_norm_not_written_or_in_another_form():
    assert fold_layer_norm(lambda weight, bias, W_U, b_U: ...).kind == "not written"
    verdict = fold_layer_norm(lambda weight, bias, W_U, b_U: (W_U.T, b_U))
    assert verdict.kind == "raised" and "should be" in verdict.message


def test_fold_layer_norm_along_the_vocabulary_is_wrong():
    """It fails on square matrices without an error of its own,
    and on others with one."""
    verdict = fold_layer_norm(lambda w, b, W_U, b_U: (W_U * w, b @ W_U + b_U))
    assert verdict.kind in ("raised", "wrong") and not verdict
