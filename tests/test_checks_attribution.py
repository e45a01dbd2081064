"""Wrong answers to the exercises of chapter 4, written as students write them, and what
the checks make of them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ioi_course import checks
from ioi_course.metrics import logit_diff
from ioi_course.selection import that_count

# --- 4.2 ---


def heads_at_minus_one(z, W_O, direction, end):
    out = torch.einsum("bphd,hdm->bphm", z, W_O)[:, -1]
    return torch.einsum("bhm,bm->bh", out, direction)


def heads_before_end(z, W_O, direction, end):
    out = torch.einsum("bphd,hdm->bphm", z, W_O)
    return [
        [(out[i, end[i] - 1, h] @ direction[i]).item() for h in range(z.shape[2])]
        for i in range(len(z))
    ]


def heads_everywhere(z, W_O, direction, end):
    out = torch.einsum("bphd,hdm->bphm", z, W_O)
    return torch.einsum("bphm,bm->bh", out, direction)


def heads_together(z, W_O, direction, end):
    rows = torch.arange(len(z))
    attn_out = (z[rows, end].flatten(1)) @ W_O.flatten(0, 1)
    return (attn_out * direction).sum(1)


def heads_averaged(z, W_O, direction, end):
    rows = torch.arange(len(z))
    out = torch.einsum("bhd,hdm->bhm", z[rows, end], W_O)
    return torch.einsum("bhm,bm->h", out, direction) / len(z)


def heads_along_the_mean_direction(z, W_O, direction, end):
    rows = torch.arange(len(z))
    return torch.einsum("bhd,hdm,m->bh", z[rows, end], W_O, direction.mean(0))


# --- 4.1 ---


def parts_at(cache, rows, end, n_layers):
    total = cache["hook_embed"][rows, end] + cache["hook_pos_embed"][rows, end]
    for layer in range(n_layers):
        total = total + cache[f"blocks.{layer}.hook_attn_out"][rows, end]
        total = total + cache[f"blocks.{layer}.hook_mlp_out"][rows, end]
    return total


def difference(model, data, x):
    rows = torch.arange(len(data))
    io, s = data.answers[:, 0], data.answers[:, 1]
    return (
        (x * (model.W_U[:, io] - model.W_U[:, s]).T).sum(1),
        model.b_U[io] - model.b_U[s],
        rows,
    )


def held_norm(cache, x, rows, end):
    return (x - x.mean(1, keepdim=True)) / cache["ln_final.hook_scale"][rows, end]


def add_up_without_biases(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = held_norm(cache, parts_at(cache, rows, end, model.cfg.n_layers), rows, end)
    return difference(model, data, x * model.ln_final.w)[0]


def add_up_without_b_U(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = held_norm(cache, parts_at(cache, rows, end, model.cfg.n_layers), rows, end)
    return difference(model, data, x * model.ln_final.w + model.ln_final.b)[0]


def add_up_without_weight(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = held_norm(cache, parts_at(cache, rows, end, model.cfg.n_layers), rows, end)
    diff, bias, _ = difference(model, data, x + model.ln_final.b)
    return diff + bias


def add_up_without_layer_norm(cache, data, model):
    diff, bias, _ = difference(
        model,
        data,
        parts_at(cache, torch.arange(len(data)), data.pos["END"], model.cfg.n_layers),
    )
    return diff + bias


def add_up_own_scales(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    normed = 0
    for name in cache:
        if "scale" not in name:
            normed = normed + F.layer_norm(
                cache[name][rows, end], (model.cfg.d_model,), eps=1e-5
            )
    diff, bias, _ = difference(
        model, data, normed * model.ln_final.w + model.ln_final.b
    )
    return diff + bias


def add_up_without_positions(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = (
        parts_at(cache, rows, end, model.cfg.n_layers)
        - cache["hook_pos_embed"][rows, end]
    )
    diff, bias, _ = difference(
        model,
        data,
        held_norm(cache, x, rows, end) * model.ln_final.w + model.ln_final.b,
    )
    return diff + bias


def add_up_at_minus_one(cache, data, model):
    x = sum(cache[name][:, -1] for name in cache if "scale" not in name)
    x = (x - x.mean(1, keepdim=True)) / cache["ln_final.hook_scale"][:, -1]
    diff, bias, _ = difference(model, data, x * model.ln_final.w + model.ln_final.b)
    return diff + bias


def add_up_probabilities(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = held_norm(cache, parts_at(cache, rows, end, model.cfg.n_layers), rows, end)
    probs = torch.softmax(
        (x * model.ln_final.w + model.ln_final.b) @ model.W_U + model.b_U, dim=1
    )
    return probs[rows, data.answers[:, 0]] - probs[rows, data.answers[:, 1]]


def add_up_s_minus_io(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = held_norm(cache, parts_at(cache, rows, end, model.cfg.n_layers), rows, end)
    diff, bias, _ = difference(model, data, x * model.ln_final.w + model.ln_final.b)
    return -(diff + bias)


# --- 4.4 ---


def written(v, W_O, direction):
    return ((v @ W_O) * direction[:, None]).sum(-1)  # batch src


def roles_s1_s2_swapped(pattern, v, W_O, direction, pos):
    rows = torch.arange(len(v))
    found = pattern[rows, pos["END"]] * written(v, W_O, direction)
    return torch.stack(
        [found[rows, pos["IO"]], found[rows, pos["S2"]], found[rows, pos["S1"]]], 1
    )


def roles_from_a_column(pattern, v, W_O, direction, pos):
    rows = torch.arange(len(v))
    found = pattern[rows, :, pos["END"]] * written(v, W_O, direction)
    return torch.stack([found[rows, pos[role]] for role in ("IO", "S1", "S2")], 1)


def roles_attention_only(pattern, v, W_O, direction, pos):
    return [
        [pattern[i, pos["END"][i], pos[role][i]].item() for role in ("IO", "S1", "S2")]
        for i in range(len(pattern))
    ]


def roles_value_only(pattern, v, W_O, direction, pos):
    return [
        [
            (v[i, pos[role][i]] @ W_O @ direction[i]).item()
            for role in ("IO", "S1", "S2")
        ]
        for i in range(len(pattern))
    ]


def roles_of_the_last_row(pattern, v, W_O, direction, pos):
    rows = torch.arange(len(v))
    found = pattern[:, -1] * written(v, W_O, direction)
    return torch.stack([found[rows, pos[role]] for role in ("IO", "S1", "S2")], 1)


def roles_before_end(pattern, v, W_O, direction, pos):
    rows = torch.arange(len(v))
    found = pattern[rows, pos["END"] - 1] * written(v, W_O, direction)
    return torch.stack([found[rows, pos[role]] for role in ("IO", "S1", "S2")], 1)


def roles_without_bos(pattern, v, W_O, direction, pos):
    rows = torch.arange(len(v))
    found = pattern[rows, pos["END"]] * written(v, W_O, direction)
    return torch.stack([found[rows, pos[role] - 1] for role in ("IO", "S1", "S2")], 1)


# --- 4.3 ---


def listed(mean, keep):
    order = mean.abs().flatten().argsort(descending=True).tolist()
    heads = mean.shape[1]
    return [(i // heads, i % heads) for i in order if keep.flatten()[i]]


def surely(values, k=4, correction=1):
    error = values.std(0, correction=correction) / np.sqrt(len(values))
    return values.mean(0).abs() / error >= k


def counting_by_deviation(values, total):
    mean, deviation = values.mean(0), values.std(0)
    return listed(mean, (mean.abs() >= abs(total) / 50) & (mean.abs() >= 4 * deviation))


def counting_without_correction(values, total):
    mean = values.mean(0)
    return listed(mean, (mean.abs() >= abs(total) / 50) & surely(values, correction=0))


def counting_over_heads(values, total):
    mean, error = values.mean(-1), values.std(-1) / values.shape[-1] ** 0.5
    return listed(mean, (mean.abs() >= abs(total) / 50) & (mean.abs() >= 4 * error))


def counting_positive(values, total):
    mean = values.mean(0)
    return listed(mean, (mean >= abs(total) / 50) & surely(values))


def counting_without_error(values, total):
    mean = values.mean(0)
    return listed(mean, mean.abs() >= abs(total) / 50)


def counting_three_errors(values, total):
    mean = values.mean(0)
    return listed(mean, (mean.abs() >= abs(total) / 50) & surely(values, 3))


def counting_without_size(values, total):
    return listed(values.mean(0), surely(values))


def counting_right(values, total):
    mean = values.mean(0)
    return listed(mean, (mean.abs() >= abs(total) / 50) & surely(values))


def counting_reversed(values, total):
    return sorted(
        counting_right(values, total), key=lambda at: abs(values.mean(0)[at].item())
    )


def counting_by_sign(values, total):
    return sorted(
        counting_right(values, total),
        key=lambda at: values.mean(0)[at].item(),
        reverse=True,
    )


def counting_exchanged(values, total):
    return counting_right(values.transpose(1, 2), total)


# --- 4.5 ---


def silent(model, data, layer, change, end=None):
    def hook(z, hook):
        z = z.clone()
        change(z)
        return z

    logits = model.run_with_hooks(
        data.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", hook)]
    )
    out = []
    for i, (io, s) in enumerate(data.answers.tolist()):
        at = data.pos["END"][i] if end is None else end
        out.append((logits[i, at, io] - logits[i, at, s]).item())
    return torch.tensor(out)


def zero(heads):
    def change(z):
        for head in heads:
            z[:, :, head] = 0

    return change


def silent_at_end(model, data, layer, heads):
    def change(z):
        for i, end in enumerate(data.pos["END"].tolist()):
            z[i, end, heads] = 0

    return silent(model, data, layer, change)


def silent_not(model, data, layer, heads):
    return silent(model, data, layer, lambda z: None)


def silent_layer(model, data, layer, heads):
    return silent(model, data, layer, lambda z: z.zero_())


def silent_others(model, data, layer, heads):
    return silent(model, data, layer, zero(set(range(model.cfg.n_heads)) - set(heads)))


def silent_first(model, data, layer, heads):
    return silent(model, data, layer, zero([heads[0]]))


def silent_at_minus_one(model, data, layer, heads):
    return silent(model, data, layer, zero(heads), end=-1)


def silent_fall(model, data, layer, heads):
    return silent(model, data, layer, zero([])) - silent(
        model, data, layer, zero(heads)
    )


def silent_averaged(model, data, layer, heads):
    return silent(model, data, layer, zero(heads)).mean()


# --- 4.6 ---


def ln(x, centre):
    x = x - x.mean(-1, keepdim=True) * centre
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5)


def size_of(x, centre):
    return torch.sqrt(
        (x - x.mean(-1, keepdim=True) * centre).pow(2).mean(-1, keepdim=True) + 1e-5
    )


def removed_held(final, wrote, direction, centre):
    return (
        (wrote - wrote.mean(-1, keepdim=True) * centre)
        / size_of(final, centre)
        * direction
    ).sum(-1)


def removed_new_scale(final, wrote, direction, centre):
    return (
        (wrote - wrote.mean(-1, keepdim=True) * centre)
        / size_of(final - wrote, centre)
        * direction
    ).sum(-1)


def removed_alone(final, wrote, direction, centre):
    return (ln(wrote, centre) * direction).sum(-1)


def removed_layer_norm_only(final, wrote, direction, centre):
    return ((ln(final, True) - ln(final - wrote, True)) * direction).sum(-1)


def removed_after_minus_before(final, wrote, direction, centre):
    return (ln(final - wrote, centre) * direction).sum(-1) - (
        ln(final, centre) * direction
    ).sum(-1)


def removed_but_added(final, wrote, direction, centre):
    return (ln(final + wrote, centre) * direction).sum(-1) - (
        ln(final, centre) * direction
    ).sum(-1)


def removed_rest(final, wrote, direction, centre):
    return (ln(final - wrote, centre) * direction).sum(-1)


def removed_without_layer_norm(final, wrote, direction, centre):
    return (final * direction).sum(-1) - ((final - wrote) * direction).sum(-1)


WRONG = [
    ("heads_at_end", heads_at_minus_one, "padding taken for END"),
    ("heads_at_end", heads_before_end, "END off by one"),
    ("heads_at_end", heads_everywhere, "summed over positions"),
    ("heads_at_end", heads_together, "summed over heads"),
    ("heads_at_end", heads_averaged, "mean over prompts"),
    ("heads_at_end", heads_along_the_mean_direction, "one direction for all prompts"),
    ("add_up", add_up_without_biases, "bias forgotten"),
    ("add_up", add_up_without_b_U, "bias of the unembedding forgotten"),
    ("add_up", add_up_without_weight, "weight of the final LayerNorm forgotten"),
    ("add_up", add_up_without_layer_norm, "final LayerNorm forgotten"),
    ("add_up", add_up_own_scales, "scale not held"),
    ("add_up", add_up_without_positions, "position embedding forgotten"),
    ("add_up", add_up_at_minus_one, "padding taken for END"),
    ("add_up", add_up_probabilities, "softmax before the difference"),
    ("add_up", add_up_s_minus_io, "IO and S exchanged"),
    ("from_roles", roles_s1_s2_swapped, "S1 taken for S2"),
    ("from_roles", roles_from_a_column, "source and destination exchanged"),
    ("from_roles", roles_attention_only, "attention alone"),
    ("from_roles", roles_value_only, "value alone"),
    ("from_roles", roles_of_the_last_row, "padding taken for END"),
    ("from_roles", roles_before_end, "END off by one"),
    ("from_roles", roles_without_bos, "BOS off by one"),
    ("heads_that_count", counting_by_deviation, "deviation taken for the error"),
    ("heads_that_count", counting_without_correction, "deviation divided by n"),
    ("heads_that_count", counting_over_heads, "mean over the wrong axis"),
    ("heads_that_count", counting_positive, "heads that take away forgotten"),
    ("heads_that_count", counting_without_error, "error not looked at"),
    ("heads_that_count", counting_three_errors, "another number of errors"),
    ("heads_that_count", counting_without_size, "size not looked at"),
    ("heads_that_count", counting_reversed, "weakest first"),
    ("heads_that_count", counting_by_sign, "sorted by sign"),
    ("heads_that_count", counting_exchanged, "layer and head exchanged"),
    ("without_heads", silent_at_end, "silenced at END only"),
    ("without_heads", silent_not, "nothing silenced"),
    ("without_heads", silent_layer, "the whole layer silenced"),
    ("without_heads", silent_others, "the other heads silenced"),
    ("without_heads", silent_first, "the first head only"),
    ("without_heads", silent_at_minus_one, "padding taken for END"),
    ("without_heads", silent_fall, "the fall, not what is left"),
    ("without_heads", silent_averaged, "mean over prompts"),
    ("removed", removed_held, "scale held"),
    ("removed", removed_new_scale, "scale of what is left, for both"),
    ("removed", removed_layer_norm_only, "mean always subtracted"),
    ("removed", removed_alone, "LayerNorm of the part alone"),
    ("removed", removed_after_minus_before, "opposite sign"),
    ("removed", removed_but_added, "added once more"),
    ("removed", removed_rest, "what is left taken for the change"),
    ("removed", removed_without_layer_norm, "final LayerNorm forgotten"),
]


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    WRONG,
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_answer_is_recognised(exercise, answer, name):
    for seed in range(3):
        verdict = getattr(checks, exercise)(answer, seed=seed)
        assert not verdict and verdict.misconception == name, verdict


def test_every_exercise_has_four_wrong_answers():
    tried = [exercise for exercise, _, _ in WRONG]
    assert (
        all(tried.count(exercise) >= 4 for exercise in set(tried))
        and len(set(tried)) == 6
    )


# --- right answers in another style ---


def heads_at_end(z, W_O, direction, end):
    out = np.zeros((z.shape[0], z.shape[2]), dtype="float32")
    for i, pos in enumerate(end.tolist()):
        for head in range(z.shape[2]):
            out[i, head] = z[i, pos, head] @ (W_O[head] @ direction[i])
    return out


def add_up(cache, data, model):
    diffs = []
    names = [name for name in cache if "scale" not in name]
    for i, (io, s) in enumerate(data.answers.tolist()):
        end = data.pos["END"][i]
        direction = model.W_U[:, io] - model.W_U[:, s]
        seen = direction * model.ln_final.w
        seen = (seen - seen.mean()) / cache["ln_final.hook_scale"][i, end]
        parts = [(cache[name][i, end] @ seen).item() for name in names]
        diffs.append(
            sum(parts)
            + (model.ln_final.b @ direction + model.b_U[io] - model.b_U[s]).item()
        )
    return diffs


def from_roles(pattern, v, W_O, direction, pos):
    result = []
    for i in range(len(v)):
        row = pattern[i, pos["END"][i]]
        result.append(
            [
                (row[p] * v[i, p] @ W_O @ direction[i]).item()
                for p in (pos[r][i] for r in ("IO", "S1", "S2"))
            ]
        )
    return result


def heads_that_count(values, total):
    found = []
    for layer in range(values.shape[1]):
        for head in range(values.shape[2]):
            x = values[:, layer, head].numpy()
            if abs(x.mean()) >= max(
                abs(total) / 50, 4 * x.std(ddof=1) / np.sqrt(len(x))
            ):
                found.append([abs(x.mean()), layer, head])
    return [[layer, head] for _, layer, head in sorted(found, reverse=True)]


def library_rule(values, total):
    return that_count(values, total).heads


def without_heads(model, data, layer, heads):
    W_O = model.blocks[layer].attn.W_O  # what is silent writes nothing

    def hook(attn_out, hook):
        return attn_out - torch.einsum(
            "bphd,hdm->bpm", kept["z"][:, :, heads], W_O[heads]
        )

    kept = {}
    hooks = [
        (f"blocks.{layer}.attn.hook_z", lambda z, hook: kept.update(z=z)),
        (f"blocks.{layer}.hook_attn_out", hook),
    ]
    logits = model.run_with_hooks(data.tokens, fwd_hooks=hooks)
    return logit_diff(logits, data, per_prompt=True).tolist()


def removed(final, wrote, direction, centre):
    def normed(x):
        if centre:
            return F.layer_norm(x, x.shape[1:])
        return F.rms_norm(x, x.shape[1:], eps=1e-5)

    return torch.einsum(
        "bd,bd->b", normed(final) - normed(final - wrote), direction
    ).numpy()


@pytest.mark.parametrize("errors", [1, 2, 3, 3.9, 4.1, 5])
def test_heads_that_count_wants_four_errors(errors):
    def other(values, total):
        mean = values.mean(0)
        return listed(mean, (mean.abs() >= abs(total) / 50) & surely(values, errors))

    for seed in range(3):
        assert not checks.heads_that_count(other, seed=seed)


@pytest.mark.parametrize("share", [0.01, 0.019, 0.021, 0.03])
def test_heads_that_count_wants_two_percent(share):
    def other(values, total):
        mean = values.mean(0)
        return listed(mean, (mean.abs() >= share * abs(total)) & surely(values))

    for seed in range(3):
        assert not checks.heads_that_count(other, seed=seed)


def test_the_rule_of_the_course_passes():
    assert all(checks.heads_that_count(library_rule, seed=seed) for seed in range(3))


@pytest.mark.parametrize(
    "answer",
    [heads_at_end, add_up, from_roles, heads_that_count, without_heads, removed],
)
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict
