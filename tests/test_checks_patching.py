"""The checks of chapter 6 recognise wrong answers as students write them, and let right
ones pass in any style."""

import numpy as np
import pytest
import torch

from ioi_course import checks
from ioi_course.metrics import logit_diff

# --- 6.1 ---


def stream_run(model, clean, corrupted, layer, put, answers=None):
    _, cache = model.run_with_cache(clean.tokens)

    def hook_function(resid, hook):
        return put(resid.clone(), cache[hook.name])

    name = f"blocks.{layer}.hook_resid_pre"
    return model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, hook_function)])


def stream_everywhere(model, clean, corrupted, layer, pos):
    logits = stream_run(model, clean, corrupted, layer, lambda mine, other: other)
    return logit_diff(logits, clean, per_prompt=True)


def at(pos):
    def put(mine, other):
        mine[:, pos] = other[:, pos]
        return mine

    return put


def stream_into_clean(model, clean, corrupted, layer, pos):
    logits = stream_run(model, corrupted, clean, layer, at(pos))
    return logit_diff(logits, clean, per_prompt=True)


def stream_not_patched(model, clean, corrupted, layer, pos):
    _, cache = model.run_with_cache(clean.tokens)

    def forgot_to_put_it_back(resid, hook):
        new = resid.clone()
        new[:, pos] = cache[hook.name][:, pos]

    logits = model.run_with_hooks(
        corrupted.tokens,
        fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", forgot_to_put_it_back)],
    )
    return [
        (x[e, io] - x[e, s]).item()
        for x, e, (io, s) in zip(logits, clean.pos["END"], clean.answers, strict=True)
    ]


def stream_of_the_cache_of_the_corrupted(model, clean, corrupted, layer, pos):
    logits = stream_run(model, corrupted, corrupted, layer, at(pos))
    return logit_diff(logits, clean, per_prompt=True)


def stream_with_the_others_answers(model, clean, corrupted, layer, pos):
    logits = stream_run(model, clean, corrupted, layer, at(pos))
    return logit_diff(logits, corrupted, per_prompt=True)


def stream_of_the_next_layer(model, clean, corrupted, layer, pos):
    _, cache = model.run_with_cache(clean.tokens)

    def put(resid, hook):
        resid[:, pos, :] = cache[f"blocks.{layer}.hook_resid_post"][:, pos, :]
        return resid

    logits = model.run_with_hooks(
        corrupted.tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", put)]
    )
    return logit_diff(logits, clean, per_prompt=True)


def stream_without_bos(model, clean, corrupted, layer, pos):
    logits = stream_run(model, clean, corrupted, layer, at(pos - 1))
    return logit_diff(logits, clean, per_prompt=True)


def stream_read_at_minus_one(model, clean, corrupted, layer, pos):
    logits = stream_run(model, clean, corrupted, layer, at(pos))[:, -1]
    return (
        logits.gather(1, clean.answers[:, :1])[:, 0]
        - logits.gather(1, clean.answers[:, 1:])[:, 0]
    )


def stream_averaged(model, clean, corrupted, layer, pos):
    return logit_diff(stream_run(model, clean, corrupted, layer, at(pos)), clean)


# --- 6.2 ---


def table_of_runs(
    model, clean, corrupted, places, answers=None, point="pre", into=None
):
    """patched [layer, place, batch], clean and corrupted [batch], as a
    student collects them."""
    answers = answers or clean
    source, run = (clean, corrupted) if into is None else (corrupted, clean)
    _, cache = model.run_with_cache(source.tokens)
    patched = torch.zeros(
        model.cfg.n_layers, len(places), len(clean), dtype=torch.float64
    )
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.hook_resid_{point}"
        for i, pos in enumerate(places):
            hook = (
                name,
                lambda resid, hook, pos=pos: at(pos)(resid.clone(), cache[hook.name]),
            )
            patched[layer, i] = logit_diff(
                model.run_with_hooks(run.tokens, fwd_hooks=[hook]),
                answers,
                per_prompt=True,
            )
    both = [
        logit_diff(model(data.tokens), answers, per_prompt=True)
        for data in (clean, corrupted)
    ]
    return patched, *both


def right_scale(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched - corrupted).mean(-1) / gap, (patched - corrupted).std(-1) / len(
        clean
    ) ** 0.5 / gap.abs()


def sweep_of_the_first_positions(model, clean, corrupted, positions):
    return right_scale(*table_of_runs(model, clean, corrupted, range(len(positions))))


def sweep_after_the_layers(model, clean, corrupted, positions):
    return right_scale(*table_of_runs(model, clean, corrupted, positions, point="post"))


def sweep_with_the_others_answers(model, clean, corrupted, positions):
    return right_scale(
        *table_of_runs(model, clean, corrupted, positions, answers=corrupted)
    )


def sweep_into_clean(model, clean, corrupted, positions):
    patched, up, down = table_of_runs(model, clean, corrupted, positions, into="clean")
    gap = up.mean() - down.mean()
    return (patched.mean(-1) - down.mean()) / gap, (patched - up).std(-1) / len(
        clean
    ) ** 0.5 / abs(gap)


def sweep_on_its_side(model, clean, corrupted, positions):
    value, error = right_scale(*table_of_runs(model, clean, corrupted, positions))
    return value.T, error.T


def scale_reversed(patched, clean, corrupted):
    value = (clean.mean() - patched.mean(-1)) / (clean.mean() - corrupted.mean())
    error = (
        (patched - corrupted).std(-1)
        / np.sqrt(len(clean))
        / abs(clean.mean() - corrupted.mean())
    )
    return value, error


def scale_of_the_clean_run(patched, clean, corrupted):
    change = (patched - corrupted) / clean.mean()
    return change.mean(-1), change.std(-1) / len(clean) ** 0.5


def scale_per_prompt(patched, clean, corrupted):
    ratio = (patched - corrupted) / (clean - corrupted)
    return ratio.mean(-1), ratio.std(-1) / len(clean) ** 0.5


def scale_error_of_patched(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched.mean(-1) - corrupted.mean()) / gap, patched.std(-1) / len(
        clean
    ) ** 0.5 / gap.abs()


def scale_deviation(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched.mean(-1) - corrupted.mean()) / gap, (patched - corrupted).std(
        -1
    ) / gap.abs()


def scale_error_in_logits(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched.mean(-1) - corrupted.mean()) / gap, (patched - corrupted).std(
        -1
    ) / len(clean) ** 0.5


def scale_by_numpy_std(patched, clean, corrupted):
    gap = (clean.mean() - corrupted.mean()).item()
    change = (patched - corrupted).numpy()
    return change.mean(-1) / gap, change.std(-1) / len(clean) ** 0.5 / abs(gap)


def scale_with_a_sign(patched, clean, corrupted):
    gap = clean.mean() - corrupted.mean()
    return (patched - corrupted).mean(-1) / gap, ((patched - corrupted) / gap).std(
        -1
    ) / len(clean) ** 0.5 * gap.sign()


def scored(score):
    def sweep(model, clean, corrupted, positions):
        return score(*table_of_runs(model, clean, corrupted, positions))

    sweep.__name__ = score.__name__
    return sweep


# --- 6.3 ---


def head_run(model, tokens, cache, layer, put, site="z"):
    return model.run_with_hooks(
        tokens,
        fwd_hooks=[
            (
                f"blocks.{layer}.attn.hook_{site}",
                lambda value, hook: put(value.clone(), cache[hook.name]),
            )
        ],
    )


def row_run(model, data, tokens, cache, layer, put, site="pattern"):
    return logit_diff(
        head_run(model, tokens, cache, layer, put, site), data, per_prompt=True
    )


def row_as_a_column(model, data, tokens, cache, layer, head):
    def put(mine, other):
        for i, end in enumerate(data.pos["END"]):
            mine[i, head, :, end] = other[i, head, :, end]
        return mine

    return row_run(model, data, tokens, cache, layer, put)


def row_of_every_destination(model, data, tokens, cache, layer, head):
    return row_run(model, data, tokens, cache, layer, at(head))


def row_at_minus_one(model, data, tokens, cache, layer, head):
    def put(mine, other):
        mine[:, head, -1, :] = other[:, head, -1, :]
        return mine

    return row_run(model, data, tokens, cache, layer, put)


def row_before_end(model, data, tokens, cache, layer, head):
    def put(mine, other):
        for i in range(len(data)):
            end = data.pos["END"][i] - 1
            mine[i, head, end] = other[i, head, end]
        return mine

    return row_run(model, data, tokens, cache, layer, put)


def row_of_all_heads(model, data, tokens, cache, layer, head):
    def put(mine, other):
        for i in range(len(data)):
            end = data.pos["END"][i]
            mine[i, :, end] = other[i, :, end]
        return mine

    return row_run(model, data, tokens, cache, layer, put)


def row_without_pairing(model, data, tokens, cache, layer, head):
    def put(mine, other):
        mine[:, head, data.pos["END"]] = other[:, head, data.pos["END"]]
        return mine

    return row_run(model, data, tokens, cache, layer, put)


def row_by_output(model, data, tokens, cache, layer, head):
    def put(mine, other):
        for i in range(len(data)):
            end = data.pos["END"][i]
            mine[i, end, head] = other[i, end, head]
        return mine

    return row_run(model, data, tokens, cache, layer, put, "z")


# --- 6.4 ---


def decide(token, position, threshold=0.1):
    return {
        (True, True): "both",
        (True, False): "token",
        (False, True): "position",
    }.get((token >= threshold, position >= threshold), "neither")


def carries_by_the_subject(experiment, clean):
    change = abs(experiment(clean, clean.counterfactual("swap_subject")))
    return "both" if change >= 0.1 else "neither"


def carries_by_abc(experiment, clean):
    change = abs(experiment(clean, clean.counterfactual("abc", seed=3)))
    return decide(change, change)


def carries_token_by_the_subject(experiment, clean):
    return decide(
        *(
            abs(experiment(clean, clean.counterfactual(kind)))
            for kind in ("swap_subject", "swap_names")
        )
    )


def carries_position_by_the_subject(experiment, clean):
    return decide(
        *(
            abs(experiment(clean, clean.counterfactual(kind)))
            for kind in ("random_names", "swap_subject")
        )
    )


def carries_exchanged(experiment, clean):
    return decide(
        *(
            abs(experiment(clean, clean.counterfactual(kind)))
            for kind in ("swap_names", "random_names")
        )
    )


def carries_position_or_token(experiment, clean):
    return (
        "token"
        if abs(experiment(clean, clean.counterfactual("swap_names"))) < 0.1
        else "position"
    )


def carries_token_or_position(experiment, clean):
    return (
        "position"
        if abs(experiment(clean, clean.counterfactual("random_names"))) < 0.1
        else "token"
    )


def carries_only_if_it_rises(experiment, clean):
    return decide(
        *(
            experiment(clean, clean.counterfactual(kind))
            for kind in ("random_names", "swap_names")
        )
    )


# --- 6.5 ---


def gradient_parts(model, clean, corrupted, layer, run, answers, total=False):
    """new, old and the gradient, as a student gets at them with one hook."""
    name = f"blocks.{layer}.attn.hook_z"
    new = model.run_with_cache(clean.tokens)[1][name]
    old = model.run_with_cache(corrupted.tokens)[1][name]
    kept = {}

    def keep(z, hook):
        kept["z"] = z.detach().clone().requires_grad_(True)
        return kept["z"]

    logits = model.run_with_hooks(run.tokens, fwd_hooks=[(name, keep)])
    diff = logit_diff(logits, answers, per_prompt=True)
    (diff.sum() if total else diff.mean()).backward()
    return new, old, kept["z"].grad


def gradient_backwards(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(model, clean, corrupted, layer, corrupted, clean)
    return ((old - new) * grad).sum((0, 1, 3))


def gradient_in_the_clean_run(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(model, clean, corrupted, layer, clean, clean)
    return torch.einsum("bphd,bphd->h", new - old, grad)


def gradient_times_activation(model, clean, corrupted, layer):
    new, _, grad = gradient_parts(model, clean, corrupted, layer, corrupted, clean)
    return torch.einsum("bphd,bphd->h", new, grad)


def gradient_of_the_others_answers(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(
        model, clean, corrupted, layer, corrupted, corrupted
    )
    return torch.einsum("bphd,bphd->h", new - old, grad)


def gradient_of_the_sum(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(
        model, clean, corrupted, layer, corrupted, clean, total=True
    )
    return torch.einsum("bphd,bphd->h", new - old, grad)


def gradient_averaged(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(model, clean, corrupted, layer, corrupted, clean)
    return ((new - old) * grad).sum(3).mean((0, 1))


def gradient_at_end(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(model, clean, corrupted, layer, corrupted, clean)
    return sum(
        ((new - old) * grad)[i, end].sum(-1) for i, end in enumerate(clean.pos["END"])
    )


def gradient_without_signs(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(model, clean, corrupted, layer, corrupted, clean)
    return ((new - old).abs() * grad.abs()).sum((0, 1, 3))


WRONG = [
    ("patch_stream", stream_everywhere, "all positions patched"),
    ("patch_stream", stream_into_clean, "the wrong run patched"),
    ("patch_stream", stream_not_patched, "patched from the wrong run"),
    (
        "patch_stream",
        stream_of_the_cache_of_the_corrupted,
        "patched from the wrong run",
    ),
    (
        "patch_stream",
        stream_with_the_others_answers,
        "answers of the corrupted prompts",
    ),
    ("patch_stream", stream_of_the_next_layer, "after the layer"),
    ("patch_stream", stream_without_bos, "position off by one"),
    ("patch_stream", stream_read_at_minus_one, "padding taken for END"),
    ("patch_stream", stream_averaged, "mean over prompts"),
    ("sweep_stream", sweep_of_the_first_positions, "index for the position"),
    ("sweep_stream", sweep_after_the_layers, "after the layer"),
    ("sweep_stream", sweep_with_the_others_answers, "answers of the corrupted prompts"),
    ("sweep_stream", sweep_into_clean, "the wrong run patched"),
    ("sweep_stream", sweep_on_its_side, "axes exchanged"),
    ("patch_attention", row_as_a_column, "source and destination exchanged"),
    ("patch_attention", row_of_every_destination, "all destinations patched"),
    ("patch_attention", row_at_minus_one, "padding taken for END"),
    ("patch_attention", row_before_end, "END off by one"),
    ("patch_attention", row_of_all_heads, "all heads patched"),
    ("patch_attention", row_without_pairing, "END of every prompt in every prompt"),
    ("patch_attention", row_by_output, "output for the attention"),
    ("sweep_stream", scored(scale_reversed), "direction reversed"),
    ("sweep_stream", scored(scale_of_the_clean_run), "divided by the clean run"),
    ("sweep_stream", scored(scale_per_prompt), "mean of ratios"),
    ("sweep_stream", scored(scale_error_of_patched), "error not paired"),
    ("sweep_stream", scored(scale_deviation), "deviation taken for the error"),
    ("sweep_stream", scored(scale_error_in_logits), "error not on the scale"),
    ("sweep_stream", scored(scale_by_numpy_std), "error without Bessel's correction"),
    ("sweep_stream", scored(scale_with_a_sign), "a negative error"),
    ("what_it_carries", carries_by_the_subject, "both changed at once"),
    ("what_it_carries", carries_by_abc, "both changed at once"),
    (
        "what_it_carries",
        carries_token_by_the_subject,
        "the token's counterfactual moves the position too",
    ),
    (
        "what_it_carries",
        carries_position_by_the_subject,
        "the position's counterfactual changes the token too",
    ),
    ("what_it_carries", carries_exchanged, "token and position exchanged"),
    (
        "what_it_carries",
        carries_position_or_token,
        "one experiment, position or else token",
    ),
    (
        "what_it_carries",
        carries_token_or_position,
        "one experiment, token or else position",
    ),
    ("what_it_carries", carries_only_if_it_rises, "only gains counted"),
    ("estimate_heads", gradient_backwards, "difference reversed"),
    ("estimate_heads", gradient_in_the_clean_run, "gradient of the clean run"),
    ("estimate_heads", gradient_times_activation, "activation for its change"),
    (
        "estimate_heads",
        gradient_of_the_others_answers,
        "answers of the corrupted prompts",
    ),
    ("estimate_heads", gradient_of_the_sum, "sum over prompts for the mean"),
    ("estimate_heads", gradient_averaged, "mean over positions"),
    ("estimate_heads", gradient_at_end, "END only"),
    ("estimate_heads", gradient_without_signs, "absolute values"),
]
EXERCISES = sorted({exercise for exercise, _, _ in WRONG})


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
        all(tried.count(exercise) >= 4 for exercise in EXERCISES)
        and len(EXERCISES) == 5
    )


# --- side effects ---


def leaves_its_hook(model, clean, corrupted, layer, pos):
    _, cache = model.run_with_cache(clean.tokens)
    name = f"blocks.{layer}.hook_resid_pre"
    model.add_hook(name, lambda resid, hook: at(pos)(resid, cache[name]))
    return logit_diff(model(corrupted.tokens), clean, per_prompt=True)


def writes_into_the_cache(model, data, tokens, cache, layer, head):
    def put(pattern, hook):
        other = cache[hook.name]
        for i, end in enumerate(data.pos["END"].tolist()):
            mine = other[i, head, end].clone()
            other[i] = pattern[i]
            other[i, head, end] = mine
        return other

    logits = model.run_with_hooks(
        tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", put)]
    )
    return logit_diff(logits, data, per_prompt=True)


def test_a_hook_that_is_left_is_noticed_and_taken_off():
    verdict = checks.patch_stream(leaves_its_hook)
    assert verdict.kind == "side effect" and "hooks on the model" in verdict.message
    assert checks.patch_stream(patch_stream).passed


def test_a_cache_that_is_written_into_is_noticed():
    verdict = checks.patch_attention(writes_into_the_cache)
    assert verdict.kind == "side effect" and "'cache' in place" in verdict.message


# --- right answers in another style ---


def patch_stream(model, clean, corrupted, layer, pos):
    name, result = f"blocks.{layer}.hook_resid_pre", []
    for i in range(len(clean)):
        end = int(clean.pos["END"][i])
        _, cache = model.run_with_cache(clean.tokens[i : i + 1, : end + 1])
        hook = (
            name,
            lambda resid, hook, cache=cache: at(pos)(resid.clone(), cache[name]),
        )
        logits = model.run_with_hooks(
            corrupted.tokens[i : i + 1, : end + 1], fwd_hooks=[hook]
        )[0, -1]
        io, s = clean.answers[i]
        result.append((logits[io] - logits[s]).item())
    return result


def sweep_stream(model, clean, corrupted, positions):
    patched, up, down = (
        x.numpy() for x in table_of_runs(model, clean, corrupted, list(positions))
    )
    gap = up.mean() - down.mean()
    value = (patched.mean(-1) - down.mean()) / gap
    return [value, np.std((patched - down) / gap, axis=-1, ddof=1) / np.sqrt(up.size)]


def patch_attention(model, data, tokens, cache, layer, head):
    def put(pattern, hook):
        pattern = pattern.clone()
        for i, end in enumerate(data.pos["END"].tolist()):
            pattern[i, head, end, : end + 1] = cache[hook.name][i, head, end, : end + 1]
        return pattern

    logits = model.run_with_hooks(
        tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", put)]
    )
    rows = torch.arange(len(data))
    at_end = logits[rows, data.pos["END"]]
    return (
        at_end[rows, data.answers[:, 0]] - at_end[rows, data.answers[:, 1]]
    ).tolist()


def what_it_carries(experiment, clean):
    one_fixed = {"position": "swap_names", "token": "random_names"}
    effects = {
        what: experiment(clean, clean.counterfactual(kind, 5))
        for what, kind in one_fixed.items()
    }
    found = [what for what, effect in effects.items() if not -0.1 < effect < 0.1]
    return "both" if len(found) == 2 else (found or ["neither"])[0]


def estimate_heads(model, clean, corrupted, layer):
    new, old, grad = gradient_parts(model, clean, corrupted, layer, corrupted, clean)
    heads = [
        sum(((new - old)[:, :, h] * grad[:, :, h]).flatten().tolist())
        for h in range(new.shape[2])
    ]
    return np.array(heads, dtype="float32")


@pytest.mark.parametrize(
    "answer",
    [patch_stream, sweep_stream, patch_attention, what_it_carries, estimate_heads],
)
def test_a_right_answer_in_another_style_passes(answer):
    for seed in range(3):
        verdict = getattr(checks, answer.__name__)(answer, seed=seed)
        assert verdict.passed, verdict


def test_a_counterfactual_that_moves_positions_is_named():
    verdict = checks.what_it_carries(
        lambda experiment, clean: experiment(clean, clean.counterfactual("extra_s"))
    )
    assert verdict.kind == "raised" and "do not align" in verdict.message


def test_always_the_same_word_is_not_enough():
    for word in ("token", "position", "both", "neither"):
        assert not checks.what_it_carries(lambda experiment, clean, word=word: word)
