"""The exercises of chapter 8: wrong answers as students write them are recognised,
other right answers pass."""

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ioi_course.checks import heads as checks
from ioi_course.heads import head_scores, repeated_tokens

SEEDS = (0, 1)


# 8.1
def half_again(second):
    """The answer that writes BOS and the drawn tokens by a loop, and then
    `second` of each row's list."""

    def answer(drawn, bos):
        return torch.tensor([[bos, *row, *second(row)] for row in drawn.tolist()])

    return answer


def random_order(drawn, bos):
    generator = torch.Generator().manual_seed(7)
    orders = torch.stack(
        [torch.randperm(drawn.shape[1], generator=generator) for _ in drawn]
    )
    return torch.cat(
        [torch.full((len(drawn), 1), bos), drawn, drawn.gather(1, orders)], dim=1
    )


# asked for is every token twice; which order comes first is free
def both_halves_in_another_order(drawn, bos):
    return torch.cat([torch.full((len(drawn), 1), bos), drawn.flip(1), drawn], dim=1)


SEPARATING = {
    "the same order again": lambda drawn, bos: torch.cat(
        [torch.full((len(drawn), 1), bos), drawn, drawn], dim=1
    ),
    "the second copy rotated": half_again(lambda row: row[1:] + row[:1]),
    "each token directly after its copy": lambda drawn, bos: torch.tensor(
        [[bos, *(token for token in row for _ in range(2))] for row in drawn.tolist()]
    ),
    "other tokens in the second half": half_again(
        lambda row: [token + 77 for token in row]
    ),
    "BOS left out": lambda drawn, bos: random_order(drawn, bos)[:, 1:],
    "only the first sequence told apart": lambda drawn, bos: torch.tensor(
        [
            [bos, *row, *(row if i else row[::-1])]
            for i, row in enumerate(drawn.tolist())
        ]
    ),
}


# 8.2
def look_back(pattern, n, steps, start=None):
    start = n + 1 if start is None else start
    return torch.stack(
        [pattern[:, :, dest, dest - steps] for dest in range(start, 2 * n + 1)]
    ).mean(dim=(0, 1))


def induction_by_loop(pattern, n):
    total = np.zeros(pattern.shape[1])
    for one in pattern.numpy():
        for i in range(n):
            total += one[:, n + 1 + i, i + 2]
    return total / n / len(pattern)


def induction_by_block(pattern, n):
    return pattern[:, :, 1 + n :, 2 : n + 2].diagonal(0, -2, -1).mean(-1).mean(0)


INDUCTION = {
    "offset n": lambda p, n: look_back(p, n, n),
    "offset n + 1": lambda p, n: p[:, :, 1 + n :, :n].diagonal(0, -2, -1).mean((0, 2)),
    "first copy not excluded": lambda p, n: einops.reduce(
        p.diagonal(n - 1, -1, -2), "b h d -> h", "mean"
    ),
    "BOS off by one": lambda p, n: look_back(p, n, n - 1, start=n),
    "query and key swapped": lambda p, n: (
        p.transpose(-1, -2)[:, :, n + 1 :].diagonal(2, -2, -1).mean((0, 2))
    ),
    "mean over all positions": lambda p, n: look_back(p, n, n - 1) * n / p.shape[-1],
    "mean over the wrong axis": lambda p, n: (
        p[:, :, 1 + n :, 2 : n + 2].diagonal(0, -2, -1).mean(-1).mean(1)
    ),
}


# 8.3
def per_token(logits, tokens):
    """Loss on tokens 1, 2, ... of each sequence."""
    return F.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
    )


def copies_of(tokens):
    return tokens.shape[1] // 2


def saved_by_loop(logits, tokens):
    n, found = copies_of(tokens), []
    for one, ids in zip(logits.softmax(-1), tokens.tolist(), strict=True):
        loss = {
            place: -one[place - 1, ids[place]].log().item()
            for place in range(1, len(ids))
        }
        first, second = range(2, n + 1), range(n + 2, 2 * n + 1)
        found.append(
            sum(loss[i] for i in first) / (n - 1)
            - sum(loss[i] for i in second) / (n - 1)
        )
    return found


def saved_by_cross_entropy(logits, tokens):
    _, first, _, second = per_token(logits, tokens).split(
        [1, copies_of(tokens) - 1] * 2, dim=1
    )
    return first.mean(1) - second.mean(1)


def saved_not_shifted(logits, tokens):
    n, loss = (
        copies_of(tokens),
        F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none"),
    )
    return loss[:, 2 : n + 1].mean(1) - loss[:, n + 2 :].mean(1)


def saved_all_tokens(logits, tokens):
    first, second = per_token(logits, tokens).chunk(2, dim=1)
    return first.mean(1) - second.mean(1)


def saved_without_bos(logits, tokens):
    n, loss = copies_of(tokens), per_token(logits, tokens)
    return loss[:, : n - 1].mean(1) - loss[:, n : 2 * n - 1].mean(1)


def saved_raw(logits, tokens):
    n, right = (
        copies_of(tokens),
        logits[:, :-1].gather(-1, tokens[:, 1:].unsqueeze(-1)).squeeze(-1),
    )
    return right[:, n + 1 :].mean(1) - right[:, 1:n].mean(1)


def saved_sum(logits, tokens):
    n, loss = copies_of(tokens), per_token(logits, tokens)
    return loss[:, 1:n].sum(1) - loss[:, n + 1 :].sum(1)


SAVED = {
    "prediction not shifted": saved_not_shifted,
    "first token of each copy counted": saved_all_tokens,
    "BOS off by one": saved_without_bos,
    "second copy minus first": lambda logits, tokens: (
        -saved_by_cross_entropy(logits, tokens)
    ),
    "logits taken for log probabilities": saved_raw,
    "sum for a mean": saved_sum,
}


# 8.4
def pairs_where(tokens, looks):
    ids, size = tokens.tolist(), len(tokens)
    return torch.tensor(
        [[float(looks(ids, dest, src)) for src in range(size)] for dest in range(size)]
    )


def targets_by_loop(tokens):
    return pairs_where(tokens, lambda t, d, s: 1 <= s <= d and t[s - 1] == t[d]).numpy()


def targets_as_bools(tokens):
    found = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for dest in range(len(tokens)):
        found[dest, (tokens[:dest] == tokens[dest]).nonzero().flatten() + 1] = True
    return found


def targets_rolled(tokens):
    same = torch.eq(tokens.unsqueeze(0), tokens.unsqueeze(1)).int()
    return torch.tril(torch.roll(same, shifts=1, dims=-1))


def targets_latest(tokens):
    found = torch.zeros(len(tokens), len(tokens))
    for dest, token in enumerate(tokens.tolist()):
        before = tokens[:dest].tolist()
        if token in before:
            found[dest, len(before) - before[::-1].index(token)] = 1
    return found


TARGETS = {
    "duplicates, not what follows them": lambda t: pairs_where(
        t, lambda t, d, s: s < d and t[s] == t[d]
    ),
    "shifted the wrong way": lambda t: pairs_where(
        t, lambda t, d, s: s + 1 < d and t[s + 1] == t[d]
    ),
    "wraps around": targets_rolled,
    "future not masked": lambda t: pairs_where(
        t, lambda t, d, s: s >= 1 and t[s - 1] == t[d]
    ),
    "rows and columns swapped": lambda t: targets_as_bools(t).transpose(0, 1),
    "latest copy only": targets_latest,
}


# 8.5
def k_by_einsum(W_V, W_O, W_Q, W_K):
    ov, kq = torch.einsum("ar,rb->ab", W_V, W_O), torch.einsum("bs,cs->bc", W_K, W_Q)
    return (
        (ov @ kq).pow(2).sum().sqrt() / ov.pow(2).sum().sqrt() / kq.pow(2).sum().sqrt()
    )


def k_by_thin_factors(W_V, W_O, W_Q, W_K):
    grams = W_V.T @ W_V, W_Q.T @ W_Q
    square = torch.trace(grams[0] @ (W_O @ W_K) @ grams[1] @ (W_O @ W_K).T)
    sizes = torch.trace(grams[0] @ W_O @ W_O.T) * torch.trace(grams[1] @ W_K.T @ W_K)
    return float((square / sizes).sqrt())


def ratio(product, *parts, **norm):
    return np.linalg.norm(product, **norm) / np.prod(
        [np.linalg.norm(part, **norm) for part in parts]
    )


def numbers(W_V, W_O, W_Q, W_K):
    return (W_V @ W_O).numpy(), (W_Q @ W_K.T).numpy()


def as_student(formula):
    return lambda *weights: formula(*numbers(*weights))


K = {
    "Q-composition": as_student(lambda ov, qk: ratio(ov @ qk, ov, qk)),
    "W_OV transposed": as_student(lambda ov, qk: ratio(qk.T @ ov, ov, qk)),
    "wrong order": as_student(lambda ov, qk: ratio(qk @ ov, ov, qk)),
    "not divided by the norms": as_student(lambda ov, qk: ratio(ov @ qk.T)),
    "spectral norm": as_student(lambda ov, qk: ratio(ov @ qk.T, ov, qk, ord=2)),
    "norms of the thin factors": lambda *w: ratio(
        np.dot(numbers(*w)[0], numbers(*w)[1].T), *w
    ),
}


# 8.6
def run_with(model, tokens, n, hooks):
    kept = {}

    def keep(pattern, hook):
        kept[hook.layer()] = pattern.detach()

    hooks = [
        *hooks,
        *((f"blocks.{i}.attn.hook_pattern", keep) for i in range(model.cfg.n_layers)),
    ]
    model.run_with_hooks(tokens, fwd_hooks=hooks)
    return torch.stack(
        [induction_by_block(kept[i], n) for i in range(model.cfg.n_layers)]
    )


def without(zero):
    """The answer that puts zero where `zero(z, head)` does, one hook per head."""

    def answer(model, tokens, n, heads):
        def hook_for(head):
            def hook(z, hook):
                z = z.clone()
                zero(z, head)
                return z

            return hook

        hooks = [
            (f"blocks.{layer}.attn.hook_z", hook_for(head)) for layer, head in heads
        ]
        return run_with(model, tokens, n, hooks)

    return answer


def without_in_place(model, tokens, n, heads):
    def hook_for(head):
        def hook(z, hook):
            z[:, :, head, :] *= 0

        return hook

    hooks = [(f"blocks.{layer}.attn.hook_z", hook_for(head)) for layer, head in heads]
    return run_with(model, tokens, n, hooks).numpy()


def without_by_head_scores(model, tokens, n, heads):
    """With the library's function, and an output that is taken off again behind z."""
    repeated = repeated_tokens(model, n, len(tokens))
    object.__setattr__(repeated, "tokens", tokens)

    def hook(z, hook):
        keep = torch.tensor(
            [(hook.layer(), head) not in heads for head in range(z.shape[2])]
        )
        return z * keep[:, None]

    return head_scores(
        model,
        repeated,
        [(f"blocks.{i}.attn.hook_z", hook) for i in {layer for layer, _ in heads}],
    ).induction


def without_late_binding(model, tokens, n, heads):
    hooks = []
    for layer, head in heads:

        def hook(z, hook):
            z = z.clone()
            z[:, :, head] = 0  # noqa: B023 - this is the mistake
            return z

        hooks.append((f"blocks.{layer}.attn.hook_z", hook))
    return run_with(model, tokens, n, hooks)


def zero_position(z, head):
    z[:, head] = 0


def zero_all(z, head):
    z.zero_()


def zero_last(z, head):
    z[:, -1, head] = 0


def without_return(model, tokens, n, heads):
    def hook(z, hook):
        z = z.clone()
        z[:, :, 0] = 0  # and forgotten

    return run_with(
        model, tokens, n, [(f"blocks.{layer}.attn.hook_z", hook) for layer, _ in heads]
    )


def without_first(model, tokens, n, heads):
    layer, head = heads[0]

    def hook(z, hook):
        return torch.cat(
            [z[:, :, :head], torch.zeros_like(z[:, :, :1]), z[:, :, head + 1 :]], dim=2
        )

    return run_with(model, tokens, n, [(f"blocks.{layer}.attn.hook_z", hook)])


WITHOUT = {
    "wrong head axis": without(zero_position),
    "every head of the layer": without(zero_all),
    "only the last position": without(zero_last),
    "last head of the list everywhere": without_late_binding,
    "nothing knocked out": without_return,
    "only the first head of the list": without_first,
}

WRONG = {
    "separating_tokens": SEPARATING,
    "induction_score": INDUCTION,
    "loss_saved": SAVED,
    "induction_targets": TARGETS,
    "k_composition": K,
    "induction_without": WITHOUT,
}
RIGHT = {
    "separating_tokens": (random_order, both_halves_in_another_order),
    "induction_score": (induction_by_loop, induction_by_block),
    "loss_saved": (saved_by_loop, saved_by_cross_entropy),
    "induction_targets": (targets_by_loop, targets_as_bools),
    "k_composition": (k_by_einsum, k_by_thin_factors),
    "induction_without": (without_in_place, without_by_head_scores),
}


def pairs(answers):
    return [(exercise, name) for exercise in answers for name in answers[exercise]]


def test_every_exercise_is_tried():
    assert set(WRONG) == set(RIGHT) == set(checks.__all__)
    for name, answers in WRONG.items():
        assert len(answers) >= 4
        assert set(answers) == {
            one.name for one in getattr(checks, name).misconceptions
        }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("exercise", checks.__all__)
def test_the_solution_passes(exercise, seed):
    check = getattr(checks, exercise)
    assert check(check.solution, seed).kind == "passed"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("exercise, name", pairs(WRONG))
def test_wrong_answers_are_recognised(exercise, name, seed):
    verdict = getattr(checks, exercise)(WRONG[exercise][name], seed)
    assert (verdict.kind, verdict.misconception) == ("misconception", name), (
        verdict.message
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("exercise, answer", pairs(RIGHT))
def test_other_right_answers_pass(exercise, answer, seed):
    verdict = getattr(checks, exercise)(answer, seed)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize("seed", SEEDS)
def test_one_head_of_the_list_fails_wherever_there_are_more(seed):
    """Leaving all but the first head in was once right on four of five cases."""
    check = checks.induction_without
    for case in check.cases(seed):
        right, first = check.solution(*case), torch.as_tensor(without_first(*case))
        assert torch.allclose(right, first.to(right), atol=1e-5) == (len(case[3]) == 1)


def test_a_wrong_answer_of_no_known_kind():
    verdict = checks.induction_score(
        lambda pattern, n: look_back(pattern, n, n - 1) * 0.7
    )
    assert (verdict.kind, verdict.misconception) == ("wrong", None)
