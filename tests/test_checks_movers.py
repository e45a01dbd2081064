"""Wrong answers to the exercises of chapter 9, written as students write them, and what
the checks make of them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ioi_course import checks
from ioi_course.checks import movers

# --- 9.1 ---


def along_raw(wrote, tokens, W_U, scale):
    return torch.stack([wrote[i] @ W_U[:, tokens[i]] for i in range(len(wrote))])


def along_not_centred(wrote, tokens, W_U, scale):
    logits = (wrote / scale) @ W_U
    rows = torch.arange(len(wrote))[:, None]
    return logits[rows, tokens]


def along_not_divided(wrote, tokens, W_U, scale):
    x = wrote - wrote.mean(1)[:, None]
    return torch.stack([x[i] @ W_U[:, tokens[i]] for i in range(len(wrote))])


def along_own_scale(wrote, tokens, W_U, scale):
    x = wrote - wrote.mean(1, keepdim=True)
    x = x / x.std(1, correction=0, keepdim=True)
    return torch.gather(x @ W_U, 1, tokens)


def along_difference(wrote, tokens, W_U, scale):
    x = (wrote - wrote.mean(1, keepdim=True)) / scale
    direction = (W_U[:, tokens[:, 0]] - W_U[:, tokens[:, 1]]).T
    return (x * direction).sum(1)


def along_probabilities(wrote, tokens, W_U, scale):
    x = (wrote - wrote.mean(1, keepdim=True)) / scale
    return torch.gather(F.softmax(x @ W_U, 1), 1, tokens)


# --- 9.2 ---


def rho_io(attention, projection):
    return np.corrcoef(attention[:, 0], projection[:, 0])[0, 1]


def rho_s(attention, projection):
    return np.corrcoef(attention[:, 1], projection[:, 1])[0, 1]


def rho_mean_of_two(attention, projection):
    return np.mean(
        [np.corrcoef(attention[:, i], projection[:, i])[0, 1] for i in range(2)]
    )


def rho_of_prompt_sums(attention, projection):
    return np.corrcoef(attention.sum(1), projection.sum(1))[0, 1]


def rho_covariance(attention, projection):
    return np.cov(attention.flatten(), projection.flatten(), ddof=0)[0, 1]


def rho_slope(attention, projection):
    return np.polyfit(attention.flatten().numpy(), projection.flatten().numpy(), 1)[0]


def rho_squared(attention, projection):
    return np.corrcoef(attention.flatten(), projection.flatten())[0, 1] ** 2


def rho_cosine(attention, projection):
    x, y = attention.flatten(), projection.flatten()
    return x @ y / (x.norm() * y.norm())


# --- 9.3 ---


def read(states, W_V, W_O, W_U):
    return torch.einsum("nm,mh,hd,dv->nv", states, W_V, W_O, W_U)


def score_argmax(states, W_V, W_O, W_U, tokens, k):
    return (read(states, W_V, W_O, W_U).argmax(1) == tokens).float().mean().item()


def score_one_too_many(states, W_V, W_O, W_U, tokens, k):
    top = read(states, W_V, W_O, W_U).topk(k + 1).indices.tolist()
    return sum(
        token in row for token, row in zip(tokens.tolist(), top, strict=True)
    ) / len(tokens)


def score_lowest(states, W_V, W_O, W_U, tokens, k):
    low = read(states, W_V, W_O, W_U).topk(k, largest=False).indices.tolist()
    return sum(
        token in row for token, row in zip(tokens.tolist(), low, strict=True)
    ) / len(tokens)


def score_any_name(states, W_V, W_O, W_U, tokens, k):
    top, names = (
        read(states, W_V, W_O, W_U).topk(k).indices.tolist(),
        set(tokens.tolist()),
    )
    return sum(bool(names & set(row)) for row in top) / len(tokens)


def score_among_names(states, W_V, W_O, W_U, tokens, k):
    top = read(states, W_V, W_O, W_U[:, tokens]).topk(k).indices.tolist()
    return sum(i in row for i, row in enumerate(top)) / len(tokens)


def score_wrong_axis(states, W_V, W_O, W_U, tokens, k):
    logits = read(states, W_V, W_O, W_U)
    top = logits.topk(k, dim=0).indices  # [k, vocab]
    return sum(
        i in top[:, token].tolist() for i, token in enumerate(tokens.tolist())
    ) / len(tokens)


def score_without_head(states, W_V, W_O, W_U, tokens, k):
    top = (states @ W_U).topk(k).indices
    return (top == tokens[:, None]).any(1).float().mean()


def score_columns(states, W_V, W_O, W_U, tokens, k):
    wrote = ((W_V @ W_O) @ states.T).T
    return ((wrote @ W_U).topk(k).indices == tokens[:, None]).any(1).float().mean()


def score_count(states, W_V, W_O, W_U, tokens, k):
    return (read(states, W_V, W_O, W_U).topk(k).indices == tokens[:, None]).sum().item()


# --- 9.4 ---


def head_logits(wrote, W_U, scale):
    x = wrote - wrote.mean(1, keepdim=True)
    return torch.einsum("bd,dv->bv", x / scale, W_U)


def without_probs_subtracted(logits, wrote, W_U, scale, tokens):
    difference = F.softmax(logits, 1) - F.softmax(head_logits(wrote, W_U, scale), 1)
    return torch.gather(difference, 1, tokens)


def without_added(logits, wrote, W_U, scale, tokens):
    return torch.gather(
        F.softmax(logits + head_logits(wrote, W_U, scale), 1), 1, tokens
    )


def without_on_two(logits, wrote, W_U, scale, tokens):
    logits = logits.clone()
    change = head_logits(wrote, W_U, scale)
    for i, pair in enumerate(tokens.tolist()):
        for token in pair:
            logits[i, token] -= change[i, token]
    return torch.gather(F.softmax(logits, 1), 1, tokens)


def without_two_way(logits, wrote, W_U, scale, tokens):
    io, s = torch.gather(logits - head_logits(wrote, W_U, scale), 1, tokens).T
    return torch.stack([torch.sigmoid(io - s), torch.sigmoid(s - io)], dim=1)


def without_norm(logits, wrote, W_U, scale, tokens):
    return torch.gather(F.softmax(logits - wrote @ W_U, 1), 1, tokens)


def without_centring(logits, wrote, W_U, scale, tokens):
    return torch.gather(F.softmax(logits - (wrote / scale) @ W_U, 1), 1, tokens)


def without_nothing(logits, wrote, W_U, scale, tokens):
    return torch.gather(F.softmax(logits, 1), 1, tokens)


# --- 9.5 ---


def even_of_probabilities(with_heads, without):
    cost = (without[:, 0] - with_heads[:, 0]).mean()
    saved = (with_heads[:, 1] - without[:, 1]).mean()
    return cost / (cost + saved)


def even_log_of_mean(with_heads, without):
    cost = without[:, 0].mean().log() - with_heads[:, 0].mean().log()
    saved = with_heads[:, 1].mean().log() - without[:, 1].mean().log()
    return cost / (cost + saved)


def even_for_io(with_heads, without):
    cost = (without[:, 0] / with_heads[:, 0]).log().mean()
    saved = (with_heads[:, 1] / without[:, 1]).log().mean()
    return saved / (cost + saved)


def even_ratio(with_heads, without):
    cost = (without[:, 0] / with_heads[:, 0]).log().mean()
    saved = (with_heads[:, 1] / without[:, 1]).log().mean()
    return cost / saved


def even_with_only(with_heads, without):
    if_io, if_s = -with_heads.log().mean(0)
    return if_io / (if_io + if_s)


def even_per_prompt(with_heads, without):
    cost = (without[:, 0] / with_heads[:, 0]).log()
    saved = (with_heads[:, 1] / without[:, 1]).log()
    return (cost / (cost + saved)).mean()


# --- 9.6 ---


def eigen_singular(E, W_V, W_O, U):
    values = torch.linalg.svdvals(E @ W_V @ W_O @ U)
    return values.sum() / values.abs().sum()


def eigen_symmetric(E, W_V, W_O, U):
    values = np.linalg.eigvalsh((E @ W_V @ W_O @ U).numpy())
    return values.sum() / np.abs(values).sum()


def eigen_half_sum(E, W_V, W_O, U):
    M = E @ W_V @ W_O @ U
    values = torch.linalg.eigvalsh(0.5 * (M.T + M))
    return values.sum() / values.abs().sum()


def eigen_trace(E, W_V, W_O, U):
    return torch.trace(E @ W_V @ W_O @ U)


def eigen_real_parts(E, W_V, W_O, U):
    values = torch.linalg.eigvals(W_O @ U @ E @ W_V).real
    return values.sum() / values.abs().sum()


def eigen_signs(E, W_V, W_O, U):
    values = torch.linalg.eigvals(W_O @ U @ E @ W_V).real
    return ((values > 0).sum() - (values < 0).sum()) / len(values)


def eigen_largest(E, W_V, W_O, U):
    values = sorted(np.linalg.eigvals((W_O @ U @ E @ W_V).numpy()), key=abs)
    return values[-1].real / abs(values[-1])


WRONG = {
    "along_names": {
        "final LayerNorm forgotten": along_raw,
        "mean not subtracted": along_not_centred,
        "scale not divided by": along_not_divided,
        "scale not held": along_own_scale,
        "difference of the names": along_difference,
        "softmax applied": along_probabilities,
    },
    "name_correlation": {
        "IO alone": rho_io,
        "S alone": rho_s,
        "each name on its own": rho_mean_of_two,
        "mean over the wrong axis": rho_of_prompt_sums,
        "covariance, not correlation": rho_covariance,
        "slope, not correlation": rho_slope,
        "squared": rho_squared,
        "means not subtracted": rho_cosine,
    },
    "copy_score": {
        "only the top counts": score_argmax,
        "k off by one": score_one_too_many,
        "bottom for top": score_lowest,
        "any name counts": score_any_name,
        "top among names only": score_among_names,
        "names compete for a token": score_wrong_axis,
        "OV left out": score_without_head,
        "OV transposed": score_columns,
        "count, not share": score_count,
    },
    "probs_without": {
        "softmax before the difference": without_probs_subtracted,
        "contribution added": without_added,
        "other tokens left as they were": without_on_two,
        "softmax over the two names": without_two_way,
        "final LayerNorm forgotten": without_norm,
        "mean not subtracted": without_centring,
        "nothing taken away": without_nothing,
    },
    "break_even": {
        "probability for loss": even_of_probabilities,
        "logarithm of the mean": even_log_of_mean,
        "share of IO": even_for_io,
        "odds for a share": even_ratio,
        "losses with the heads only": even_with_only,
        "mean of ratios": even_per_prompt,
    },
    "eigenvalue_score": {
        "singular values": eigen_singular,
        "treated as symmetric": eigen_symmetric,
        "made symmetric": eigen_half_sum,
        "trace, not scaled": eigen_trace,
        "imaginary part left out below": eigen_real_parts,
        "signs counted": eigen_signs,
        "largest eigenvalue alone": eigen_largest,
    },
}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, wrong) for name, answers in WRONG.items() for wrong in answers],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_wrong_answers_are_recognised(name, wrong, seed):
    verdict = getattr(checks, name)(WRONG[name][wrong], seed)
    assert verdict.kind == "misconception" and verdict.misconception == wrong, verdict


@pytest.mark.parametrize("name", movers.__all__)
def test_an_exercise_has_the_number_of_its_chapter(name):
    assert getattr(checks, name).number.startswith("9.")


def test_names_exchanged():
    def exchanged(wrote, tokens, W_U, scale):
        logits = (wrote - wrote.mean(1, keepdim=True)) / scale @ W_U
        return [
            [logits[i, s].item(), logits[i, io].item()]
            for i, (io, s) in enumerate(tokens.tolist())
        ]

    assert checks.along_names(exchanged).misconception == "S taken for IO"


# --- right answers, written in other ways ---


def right_along(wrote, tokens, W_U, scale):
    directions = W_U.T[tokens]  # [batch, 2, d_model]
    directions = (directions - directions.mean(-1, keepdim=True)) / scale[:, None]
    return torch.einsum("bd,bnd->bn", wrote, directions).numpy()


def right_rho(attention, projection):
    return np.corrcoef(attention.T.numpy().ravel(), projection.T.numpy().ravel())[0, 1]


def right_score(states, W_V, W_O, W_U, tokens, k):
    hits = 0
    for state, token in zip(states, tokens.tolist(), strict=True):
        logits = state @ W_V @ (W_O @ W_U)
        hits += token in logits.argsort(descending=True)[:k].tolist()
    return hits / len(tokens)


def right_without(logits, wrote, W_U, scale, tokens):
    rest = logits.float() - head_logits(wrote, W_U, scale).float()
    return [[(row[token] - row.logsumexp(0)).exp().item() for token in pair]
            for row, pair in zip(rest, tokens.tolist(), strict=True)]  # fmt: skip


def right_even(with_heads, without):
    """By bisection of the mean loss."""
    low, high = 0.0, 1.0
    for _ in range(40):
        q = (low + high) / 2
        losses = [
            -((1 - q) * p[:, 0].log() + q * p[:, 1].log()).mean()
            for p in (with_heads, without)
        ]
        low, high = (q, high) if losses[0] > losses[1] else (low, q)
    return q


def right_eigen(E, W_V, W_O, U):
    values = np.linalg.eigvals((E @ W_V @ W_O @ U).numpy())
    return sum(value.real for value in values) / sum(abs(value) for value in values)


RIGHT = {
    "along_names": right_along,
    "name_correlation": right_rho,
    "copy_score": right_score,
    "probs_without": right_without,
    "break_even": right_even,
    "eigenvalue_score": right_eigen,
}


@pytest.mark.parametrize("name", movers.__all__)
@pytest.mark.parametrize("seed", [0, 3])
def test_right_answers_pass(name, seed):
    assert getattr(checks, name)(RIGHT[name], seed)


def test_an_answer_nobody_foresaw_is_wrong():
    verdict = checks.copy_score(lambda *case: 0.123)
    assert verdict.kind == "wrong" and "expected" in verdict.message


def test_a_changed_argument_is_noticed():
    def in_place(logits, wrote, W_U, scale, tokens):
        logits -= head_logits(wrote, W_U, scale)
        return torch.gather(F.softmax(logits, 1), 1, tokens)

    assert checks.probs_without(in_place).kind == "side effect"
