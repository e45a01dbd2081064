"""Wrong answers to the exercises of chapter 4, written as students write them, and what the checks make of them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ioi_course import checks

# --- 4.1 ---


def contribution_without_layer_norm(wrote, direction, scale):
    return torch.stack([w @ d for w, d in zip(wrote, direction, strict=True)])


def contribution_not_centred(wrote, direction, scale):
    return torch.einsum("bd,bd->b", wrote, direction) / scale[:, 0]


def contribution_not_divided(wrote, direction, scale):
    return torch.einsum("bd,bd->b", wrote - wrote.mean(1)[:, None], direction)


def contribution_own_scale(wrote, direction, scale):
    x = wrote - wrote.mean(1, keepdim=True)
    x = x / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    return (x * direction).sum(1)


def contribution_root_of_scale(wrote, direction, scale):
    x = wrote - wrote.mean(1, keepdim=True)
    return (x * direction).sum(1) / np.sqrt(scale).squeeze(1)


def contribution_averaged(wrote, direction, scale):
    x = (wrote - wrote.mean(1, keepdim=True)) / scale
    return (x * direction).sum() / len(x)


# --- 4.2 ---


def heads_at_minus_one(z, W_O, direction, end):
    out = torch.einsum("bphd,hdm->bphm", z, W_O)[:, -1]
    return torch.einsum("bhm,bm->bh", out, direction)


def heads_before_end(z, W_O, direction, end):
    out = torch.einsum("bphd,hdm->bphm", z, W_O)
    return [[(out[i, end[i] - 1, h] @ direction[i]).item() for h in range(z.shape[2])] for i in range(len(z))]


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


# --- 4.3 ---


def parts_at(cache, rows, end, n_layers):
    total = cache["hook_embed"][rows, end] + cache["hook_pos_embed"][rows, end]
    for layer in range(n_layers):
        total = total + cache[f"blocks.{layer}.hook_attn_out"][rows, end]
        total = total + cache[f"blocks.{layer}.hook_mlp_out"][rows, end]
    return total


def difference(model, data, x):
    rows = torch.arange(len(data))
    io, s = data.answers[:, 0], data.answers[:, 1]
    return (x * (model.W_U[:, io] - model.W_U[:, s]).T).sum(1), model.b_U[io] - model.b_U[s], rows


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
        model, data, parts_at(cache, torch.arange(len(data)), data.pos["END"], model.cfg.n_layers)
    )
    return diff + bias


def add_up_own_scales(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    normed = 0
    for name in cache:
        if "scale" not in name:
            normed = normed + F.layer_norm(cache[name][rows, end], (model.cfg.d_model,), eps=1e-5)
    diff, bias, _ = difference(model, data, normed * model.ln_final.w + model.ln_final.b)
    return diff + bias


def add_up_without_positions(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = parts_at(cache, rows, end, model.cfg.n_layers) - cache["hook_pos_embed"][rows, end]
    diff, bias, _ = difference(model, data, held_norm(cache, x, rows, end) * model.ln_final.w + model.ln_final.b)
    return diff + bias


def add_up_at_minus_one(cache, data, model):
    x = sum(cache[name][:, -1] for name in cache if "scale" not in name)
    x = (x - x.mean(1, keepdim=True)) / cache["ln_final.hook_scale"][:, -1]
    diff, bias, _ = difference(model, data, x * model.ln_final.w + model.ln_final.b)
    return diff + bias


def add_up_probabilities(cache, data, model):
    rows, end = torch.arange(len(data)), data.pos["END"]
    x = held_norm(cache, parts_at(cache, rows, end, model.cfg.n_layers), rows, end)
    probs = torch.softmax((x * model.ln_final.w + model.ln_final.b) @ model.W_U + model.b_U, dim=1)
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
    return torch.stack([found[rows, pos["IO"]], found[rows, pos["S2"]], found[rows, pos["S1"]]], 1)


def roles_from_a_column(pattern, v, W_O, direction, pos):
    rows = torch.arange(len(v))
    found = pattern[rows, :, pos["END"]] * written(v, W_O, direction)
    return torch.stack([found[rows, pos[role]] for role in ("IO", "S1", "S2")], 1)


def roles_attention_only(pattern, v, W_O, direction, pos):
    return [
        [pattern[i, pos["END"][i], pos[role][i]].item() for role in ("IO", "S1", "S2")] for i in range(len(pattern))
    ]


def roles_value_only(pattern, v, W_O, direction, pos):
    return [
        [(v[i, pos[role][i]] @ W_O @ direction[i]).item() for role in ("IO", "S1", "S2")] for i in range(len(pattern))
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


# --- 4.5 ---


def listed(mean, keep):
    order = mean.abs().flatten().argsort(descending=True).tolist()
    heads = mean.shape[1]
    return [(i // heads, i % heads) for i in order if keep.flatten()[i]]


def reliable_by_deviation(values, least):
    mean, deviation = values.mean(0), values.std(0)
    return listed(mean, (mean.abs() > least) & (mean.abs() > 3 * deviation))


def reliable_over_heads(values, least):
    mean, error = values.mean(-1), values.std(-1) / values.shape[-1] ** 0.5
    return listed(mean, (mean.abs() > least) & (mean.abs() > 3 * error))


def reliable_positive(values, least):
    mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
    return listed(mean, (mean > least) & (mean > 3 * error))


def reliable_without_error(values, least):
    mean = values.mean(0)
    return listed(mean, mean.abs() > least)


def reliable_without_size(values, least):
    mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
    return listed(mean, mean.abs() / error > 3)


def reliable_reversed(values, least):
    mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
    keep = listed(mean, (mean.abs() > least) & (mean.abs() > 3 * error))
    return sorted(keep, key=lambda at: abs(mean[at].item()))


def reliable_by_sign(values, least):
    mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
    keep = listed(mean, (mean.abs() > least) & (mean.abs() > 3 * error))
    return sorted(keep, key=lambda at: mean[at].item(), reverse=True)


def reliable_exchanged(values, least):
    mean, error = values.mean(0).T, values.std(0).T / len(values) ** 0.5
    return listed(mean, (mean.abs() > least) & (mean.abs() > 3 * error))


# --- 4.6 ---


def ln(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)


def removed_held(final, wrote, direction):
    scale = torch.sqrt(final.var(-1, correction=0, keepdim=True) + 1e-5)
    return ((wrote - wrote.mean(-1, keepdim=True)) / scale * direction).sum(-1)


def removed_new_scale(final, wrote, direction):
    scale = torch.sqrt((final - wrote).var(-1, correction=0, keepdim=True) + 1e-5)
    return ((wrote - wrote.mean(-1, keepdim=True)) / scale * direction).sum(-1)


def removed_alone(final, wrote, direction):
    return (ln(wrote) * direction).sum(-1)


def removed_after_minus_before(final, wrote, direction):
    return (ln(final - wrote) * direction).sum(-1) - (ln(final) * direction).sum(-1)


def removed_but_added(final, wrote, direction):
    return (ln(final + wrote) * direction).sum(-1) - (ln(final) * direction).sum(-1)


def removed_rest(final, wrote, direction):
    return (ln(final - wrote) * direction).sum(-1)


def removed_without_layer_norm(final, wrote, direction):
    return (final * direction).sum(-1) - ((final - wrote) * direction).sum(-1)


WRONG = [
    ("contribution", contribution_without_layer_norm, "final LayerNorm forgotten"),
    ("contribution", contribution_not_centred, "mean not subtracted"),
    ("contribution", contribution_not_divided, "scale not divided by"),
    ("contribution", contribution_own_scale, "scale not held"),
    ("contribution", contribution_root_of_scale, "variance taken for the scale"),
    ("contribution", contribution_averaged, "mean over prompts"),
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
    ("reliable_heads", reliable_by_deviation, "deviation taken for the error"),
    ("reliable_heads", reliable_over_heads, "mean over the wrong axis"),
    ("reliable_heads", reliable_positive, "heads that take away forgotten"),
    ("reliable_heads", reliable_without_error, "error not looked at"),
    ("reliable_heads", reliable_without_size, "size not looked at"),
    ("reliable_heads", reliable_reversed, "weakest first"),
    ("reliable_heads", reliable_by_sign, "sorted by sign"),
    ("reliable_heads", reliable_exchanged, "layer and head exchanged"),
    ("removed", removed_held, "scale held"),
    ("removed", removed_new_scale, "scale of what is left, for both"),
    ("removed", removed_alone, "LayerNorm of the part alone"),
    ("removed", removed_after_minus_before, "opposite sign"),
    ("removed", removed_but_added, "added once more"),
    ("removed", removed_rest, "what is left taken for the change"),
    ("removed", removed_without_layer_norm, "final LayerNorm forgotten"),
]


@pytest.mark.parametrize(("exercise", "answer", "name"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_a_wrong_answer_is_recognised(exercise, answer, name):
    for seed in range(3):
        verdict = getattr(checks, exercise)(answer, seed=seed)
        assert not verdict and verdict.misconception == name, verdict


def test_every_exercise_has_four_wrong_answers():
    tried = [exercise for exercise, _, _ in WRONG]
    assert all(tried.count(exercise) >= 4 for exercise in set(tried)) and len(set(tried)) == 6


@pytest.mark.parametrize("exercise", sorted({exercise for exercise, _, _ in WRONG}))
def test_each_misconception_is_told_from_the_solution_and_from_the_others(exercise):
    check = getattr(checks, exercise)
    for one in check.misconceptions:
        for seed in range(3):
            assert check(one.answer, seed=seed).misconception == one.name


# --- right answers in another style ---


def contribution(wrote, direction, scale):
    out = []
    for w, d, s in zip(wrote.numpy(), direction.numpy(), scale.numpy(), strict=True):
        out.append(float(np.dot(w, d - d.mean()) / s[0]))
    return out


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
        diffs.append(sum(parts) + (model.ln_final.b @ direction + model.b_U[io] - model.b_U[s]).item())
    return diffs


def from_roles(pattern, v, W_O, direction, pos):
    result = []
    for i in range(len(v)):
        row = pattern[i, pos["END"][i]]
        result.append([(row[p] * v[i, p] @ W_O @ direction[i]).item() for p in (pos[r][i] for r in ("IO", "S1", "S2"))])
    return result


def reliable_heads(values, least):
    found = []
    for layer in range(values.shape[1]):
        for head in range(values.shape[2]):
            x = values[:, layer, head].numpy()
            if abs(x.mean()) > max(least, 3 * x.std(ddof=1) / np.sqrt(len(x))):
                found.append([abs(x.mean()), layer, head])
    return [[layer, head] for _, layer, head in sorted(found, reverse=True)]


def removed(final, wrote, direction):
    size = final.shape[1:]
    after = F.layer_norm(final - wrote, size)
    return torch.einsum("bd,bd->b", F.layer_norm(final, size) - after, direction).numpy()


@pytest.mark.parametrize("answer", [contribution, heads_at_end, add_up, from_roles, reliable_heads, removed])
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict
