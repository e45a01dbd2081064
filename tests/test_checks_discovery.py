"""The exercises of chapter 16: wrong answers as students write them are recognised,
other right answers pass."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from ioi_course.checks import discovery as checks

SEEDS = (0, 1)


# 16.1, by loops and by einsum
def by_loop(clean, corrupted, slope):
    return [
        sum(float((c - k) @ s) for c, k, s in zip(a, b, g, strict=True))
        for a, b, g in zip(clean, corrupted, slope, strict=True)
    ]


SLOPES = {
    "what is changed": lambda c, k, s: torch.einsum("bpd,bpd->b", k - c, s),
    "mean over positions": lambda c, k, s: (
        torch.einsum("bpd,bpd->b", c - k, s) / c.shape[1]
    ),
    "the last position only": lambda c, k, s: torch.einsum(
        "bd,bd->b", (c - k)[:, -1], s[:, -1]
    ),
    "size of each product": lambda c, k, s: torch.einsum(
        "bpd,bpd->b", (c - k).abs(), s.abs()
    ),
    "what is written, not what is changed": lambda c, k, s: torch.einsum(
        "bpd,bpd->b", c, s
    ),
    "all prompts together": lambda c, k, s: torch.einsum("bpd,bpd->", c - k, s),
}


# 16.2, with numpy
def soft(x, axis=-1):
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)


def anew(scores, new, slope):
    a, b, g = (x.numpy() for x in (scores, new, slope))
    return (soft(a) * g).sum((1, 2)) - (soft(b) * g).sum((1, 2))


def over_queries(scores, new, slope):
    a, b, g = (x.numpy() for x in (scores, new, slope))
    return (np.nan_to_num(soft(a, 1) - soft(b, 1)) * g).sum((1, 2))


def by_autograd(scores, new, slope):
    x = scores.clone().requires_grad_()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad((x.softmax(-1) * slope).sum(), x)
    moved = torch.where(scores.isinf(), 0, scores - new)
    return torch.einsum("bqk,bqk->b", moved, grad)


ANEW = {
    "the softmax's slope": by_autograd,
    "scores instead of patterns": lambda a, b, g: (
        torch.where(a.isinf(), 0, a - b) * g
    ).sum((1, 2)),
    "what is changed": lambda a, b, g: -anew(a, b, g),
    "softmax over queries": over_queries,
    "the last query only": lambda a, b, g: anew(a[:, -1:], b[:, -1:], g[:, -1:]),
    "the new pattern alone": lambda a, b, g: -(soft(b.numpy()) * g.numpy()).sum((1, 2)),
}


# 16.3, by a loop
def loop(
    shares, f, away=lambda y: abs(1 - y), x=lambda k: k, rule=lambda a, b: (a + b) / 2
):
    x = [x(share) for share in shares]
    f = [float(y) for y in f]
    widths = [b - a for a, b in zip(x, x[1:], strict=False)]
    return tuple(
        sum(w * rule(a, b) for w, a, b in zip(widths, ys, ys[1:], strict=False))
        for ys in (f, [away(y) for y in f])
    )


def scaled(runs, full, empty):
    return [
        (float(r.mean()) - float(empty.mean()))
        / (float(full.mean()) - float(empty.mean()))
        for r in runs
    ]


CURVES = {
    "logarithmic axis": lambda k, r, a, e: loop(k, scaled(r, a, e), x=math.log),
    "the corrupted run forgotten": lambda k, r, a, e: loop(
        k, [float(row.mean() / a.mean()) for row in r]
    ),
    "CMD with its sign": lambda k, r, a, e: loop(
        k, scaled(r, a, e), away=lambda y: 1 - y
    ),
    "size after the area": lambda k, r, a, e: (
        loop(k, scaled(r, a, e))[0],
        abs(loop(k, scaled(r, a, e), away=lambda y: 1 - y)[1]),
    ),
    "steps instead of trapezoids": lambda k, r, a, e: loop(
        k, scaled(r, a, e), rule=lambda a, b: b
    ),
    "ratios before the mean": lambda k, r, a, e: loop(
        k, [float(((row - e) / (a - e)).mean()) for row in r]
    ),
}


# 16.5
def by_difference(edges, lost):
    """What removing the second costs once the first is out,
    less what it costs alone."""
    gain = {
        (a, b): lost([a, b]) - lost([a]) - lost([b])
        for a, b in combinations(sorted(edges), 2)
    }
    return frozenset(max(gain, key=gain.get))


def by_rank(reverse, skip=0):
    return lambda edges, lost: sorted(edges, key=lambda e: lost([e]), reverse=reverse)[
        skip : skip + 2
    ]


HIDDEN = {
    "the two largest scores": lambda e, lost: set(by_rank(True)(e, lost)),
    "the two smallest scores": lambda e, lost: set(by_rank(False)(e, lost)),
    "the largest loss together": lambda e, lost: set(max(combinations(e, 2), key=lost)),
    "the other sign": lambda e, lost: set(
        min(combinations(e, 2), key=lambda p: lost(p) - lost(p[:1]) - lost(p[1:]))
    ),
}


# 16.4
def no_logits(edges, f):
    """Cut all that leads to the logits: the heads are still in the drawing,
    by the edges into them."""
    return [edge for edge in edges if edge[1] != "logits"]


def no_input(edges, f):
    return {edge for edge in edges if edge[0] != "input"}


def heads_out(edges, f):
    names = {a for a, b in edges if b == "logits"}
    return {edge for edge in edges if not names & set(edge)}


def down_to_a_third(edges, f):
    left = list(edges)
    while f(left) > 0.4:
        last = [edge for edge in left if edge[1] == "logits"]
        left.remove(
            min(last, key=lambda edge: f([other for other in left if other != edge]))
        )
    return left


LOOKS = {
    "nothing left out": lambda edges, f: list(edges),
    "nothing left in": lambda edges, f: [],
    "nodes taken out": heads_out,
    "the one most important edge": lambda edges, f: min(
        ([o for o in edges if o != e] for e in edges), key=f
    ),
    "half of the work": down_to_a_third,
}


# 16.6, with pandas-free numpy
def tops(values, n):
    return {int(i) for i in np.argsort(-values, kind="stable")[:n]}


def halves(per_prompt, n, rank=lambda half: np.abs(half.mean(axis=0))):
    values = per_prompt.numpy()
    return tops(rank(values[0::2]), n), tops(rank(values[1::2]), n)


def share(per_prompt, n, **options):
    a, b = halves(per_prompt, n, **options)
    return sum(i in b for i in a) / n


def same_place(per_prompt, n):
    lists = [
        np.argsort(-np.abs(per_prompt.numpy()[i::2].mean(axis=0)))[:n] for i in (0, 1)
    ]
    return float(np.mean(lists[0] == lists[1]))


BEST = {
    "signed": lambda p, n: share(p, n, rank=lambda half: half.mean(axis=0)),
    "size before the mean": lambda p, n: share(
        p, n, rank=lambda half: np.abs(half).mean(axis=0)
    ),
    "share of the union": lambda p, n: (
        len(set.intersection(*halves(p, n))) / len(set.union(*halves(p, n)))
    ),
    "a half against all": lambda p, n: (
        len(halves(p, n)[0] & tops(np.abs(p.numpy().mean(axis=0)), n)) / n
    ),
    "place by place": same_place,
}

RIGHT = {
    "edge_score": (by_loop, lambda c, k, s: torch.einsum("bpd,bpd->b", c - k, s)),
    "softmax_anew": (
        anew,
        lambda a, b, g: torch.einsum(
            "bqk,bqk->b", a.softmax(2) - b.softmax(2), g
        ).tolist(),
    ),
    "cpr_and_cmd": (
        lambda k, r, a, e: loop(k, scaled(r, a, e)),
        lambda k, r, a, e: list(loop(k, scaled(r, a, e))),
    ),
    "hidden_pair": (by_difference,),
    "looks_right": (no_logits, no_input),
    "same_best": (share,),
}
WRONG = {
    "edge_score": SLOPES,
    "softmax_anew": ANEW,
    "cpr_and_cmd": CURVES,
    "hidden_pair": HIDDEN,
    "looks_right": LOOKS,
    "same_best": BEST,
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "name, answer",
    [(name, answer) for name, answers in RIGHT.items() for answer in answers],
)
def test_right_answers_pass(name, answer, seed):
    verdict = getattr(checks, name)(answer, seed=seed)
    assert verdict.passed, verdict


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "name, said", [(name, said) for name, answers in WRONG.items() for said in answers]
)
def test_wrong_answers_are_recognised(name, said, seed):
    verdict = getattr(checks, name)(WRONG[name][said], seed=seed)
    assert verdict.kind == "misconception" and verdict.misconception == said, verdict


def test_every_exercise_and_every_misconception_is_tested():
    assert set(RIGHT) == set(WRONG) == set(checks.__all__)
    for name, answers in WRONG.items():
        assert set(answers) == {
            one.name for one in getattr(checks, name).misconceptions
        }
        assert len(answers) >= 4


def test_other_wrong_answers_are_wrong():
    """Nothing is misnamed: a wrong answer that no misconception
    explains is merely wrong."""
    assert (
        checks.edge_score(lambda clean, corrupted, slope: slope.sum(dim=(1, 2))).kind
        == "wrong"
    )
    assert (
        checks.softmax_anew(lambda scores, new, slope: slope[:, 0, 0]).kind == "wrong"
    )
    assert (
        checks.cpr_and_cmd(lambda shares, runs, full, empty: (0.0, 0.0)).kind == "wrong"
    )
    assert checks.hidden_pair(lambda edges, lost: set(edges)).kind == "wrong"
    assert checks.same_best(lambda per_prompt, n: -1.0).kind == "wrong"
