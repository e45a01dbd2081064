"""The exercises of chapter 12: wrong answers as students write them are recognised, other right answers pass."""

import numpy as np
import pytest
import torch

from ioi_course.checks import circuit as checks
from ioi_course.circuit import run_circuit

SEEDS = (0, 1)


# 12.1
def means_by_dictionary(z, groups):
    rows = {}
    for i, group in enumerate(groups.tolist()):
        rows.setdefault(group, []).append(z[i].numpy())
    return np.array([np.mean(rows[group], axis=0) for group in groups.tolist()])


def means_by_matrix(z, groups):
    same = (groups[:, None] == groups).to(z)
    return torch.einsum("bc,cphd->bphd", same / same.sum(1, keepdim=True), z).float()


def means_of_others(z, groups):
    out = z.clone()
    for i in range(len(z)):
        rows = [j for j in range(len(z)) if groups[j] == groups[i] and j != i]
        if rows:
            out[i] = z[rows].mean(0)
    return out


def mean_over_positions(z, groups):
    out = torch.empty_like(z)
    for i in range(len(z)):
        out[i] = z[groups == groups[i]].mean(dim=(0, 1))
    return out


def weighted(z, groups, divide):
    same = (groups[:, None] == groups).to(z)
    return torch.einsum("bc,cphd->bphd", same, z) / divide


GROUPS = {
    "mean over all prompts": lambda z, g: z.mean(0).repeat(len(z), 1, 1, 1),
    "mean over the wrong axis": mean_over_positions,
    "sum for a mean": lambda z, g: weighted(z, g, 1),
    "one row for each group": lambda z, g: torch.stack([z[g == i].mean(0) for i in sorted(set(g.tolist()))]),
    "divided by all prompts": lambda z, g: weighted(z, g, len(g)),
    "own prompt left out": means_of_others,
}


# 12.2, prompt by prompt, and with a mask
def diffs(logits, data):
    ends = [logits[i, int(end)] for i, end in enumerate(data.pos["END"])]
    return torch.stack([row[io] - row[s] for row, (io, s) in zip(ends, data.answers.tolist(), strict=True)])


def run_masked(model, data, keep, means, place, invert=False, zero=False, layer_wide=False):
    """`place(prompt, role)` gives the positions at which a kept head is alive."""
    masks = [torch.zeros(*data.tokens.shape, model.cfg.n_heads, 1) for _ in means]
    for (layer, head), role in keep.items():
        for i in range(len(data)):
            heads = slice(None) if layer_wide else head
            masks[layer][i, place(i, role), heads] = 1
    masks = [1 - mask for mask in masks] if invert else masks

    def hook(z, hook):
        mask = masks[hook.layer()].to(z)
        return z * mask + (0 if zero else means[hook.layer()] * (1 - mask))

    names = lambda name: name.endswith("attn.hook_z")  # noqa: E731
    return diffs(model.run_with_hooks(data.tokens, fwd_hooks=[(names, hook)]), data)


def masked(place=None, **options):
    def answer(model, data, keep, means):
        at = place or (lambda data, i, role: data.pos[role][i])
        return run_masked(model, data, keep, means, lambda i, role: at(data, i, role), **options)

    return answer


def alone_as_list(model, data, keep, means):
    return masked()(model, data, keep, means).tolist()


ALONE = {
    "kept at every position": masked(lambda data, i, role: slice(None)),
    "circuit and rest exchanged": masked(invert=True),
    "END for every head": masked(lambda data, i, role: data.pos["END"][i]),
    "positions of the first prompt": masked(lambda data, i, role: data.pos[role][0]),
    "zero instead of the mean": masked(zero=True),
    "S1 taken for S1+1": masked(lambda data, i, role: data.pos["S1" if role == "S1+1" else role][i]),
    "whole layer kept": masked(layer_wide=True),
}


# 12.3
def gap_by_loop(circuit, model):
    return [abs(float(np.mean(a.numpy()) - np.mean(b.numpy()))) for a, b in zip(circuit, model, strict=True)]


GAPS = {
    "absolute value before the mean": lambda c, m: torch.mean(torch.abs(m - c), dim=-1),
    "sign kept": lambda c, m: (c - m).mean(-1),
    "share instead of logits": lambda c, m: ((c.mean(-1) - m.mean(-1)) / m.mean(-1)).abs(),
    "mean over the wrong axis": lambda c, m: (c - m).mean(0).abs(),
    "difference of sizes": lambda c, m: (m.mean(-1).abs() - c.mean(-1).abs()).abs(),
}


# 12.4
def search(gap, draws):
    """With indices and a record of everything."""
    now, record = frozenset(), []
    for draw in draws:
        scored = [(gap(list(now | {head})), head) for head in draw if head not in now]
        if scored:
            value, head = max(scored)
            now = now | {head}
            record.append((value, now))
    return max(record, key=lambda pair: pair[0])[1]


def search_last(gap, draws):
    now = []
    for draw in draws:
        now.append(max((head for head in draw if head not in now), key=lambda head: gap([*now, head])))
    return set(now)


def search_singly(gap, draws):
    now, best = [], []
    for draw in draws:
        now = [*now, max((head for head in draw if head not in now), key=lambda head: gap([head]))]
        best = now if not best or gap(now) > gap(best) else best
    return set(best)


def search_smallest(gap, draws):
    now, best = [], []
    for draw in draws:
        now = [*now, min((head for head in draw if head not in now), key=lambda head: gap([*now, head]))]
        best = now if not best or gap(now) > gap(best) else best
    return set(best)


def search_uphill(gap, draws):
    now, value = [], -1
    for draw in draws:
        head = max((head for head in draw if head not in now), key=lambda head: gap([*now, head]))
        if gap([*now, head]) < value:
            return set(now)
        now, value = [*now, head], gap([*now, head])
    return set(now)


def search_first(gap, draws):
    now, best = [], []
    for draw in draws:
        if draw[0] not in now:
            now = [*now, draw[0]]
            best = now if not best or gap(now) > gap(best) else best
    return set(best)


SEARCHES = {
    "last set instead of the best": search_last,
    "heads judged alone": search_singly,
    "smallest gap": search_smallest,
    "stopped at the first fall": search_uphill,
    "first candidate each time": search_first,
}


# 12.5
def parts(model, data, keep, others, head, means):
    """Logit differences: circuit, without K, without K and v, model."""
    runs = [keep, {h: r for h, r in keep.items() if h not in others}]
    runs.append({h: r for h, r in runs[1].items() if h != head})
    return [*(run_circuit(model, data, run, means) for run in runs), diffs(model(data.tokens), data)]


def share(formula):
    return lambda *case: formula(*parts(*case))


def share_in_model(model, data, keep, others, head, means):
    out = [{h: keep[h] for h in heads} for heads in (others, [*others, head])]
    before, after = (masked(invert=True)(model, data, some, means).mean() for some in out)
    return abs((after - before) / diffs(model(data.tokens), data).mean())


NEEDED = {
    "K forgotten": lambda m, d, keep, k, v, means: share(lambda c, b, a, w: abs((c - a).mean() / w.mean()))(
        m, d, keep, [], v, means
    ),
    "measured from the whole circuit": share(lambda c, b, a, w: abs((c - a).mean() / w.mean())),
    "measured in the model": share_in_model,
    "sign kept": share(lambda c, b, a, w: (a - b).mean() / abs(w.mean())),
    "absolute value before the mean": share(lambda c, b, a, w: (a - b).abs().mean() / abs(w.mean())),
    "divided by the circuit": share(lambda c, b, a, w: abs((a - b).mean() / b.mean())),
    "not divided": share(lambda c, b, a, w: abs((a - b).mean())),
}

RIGHT = {
    "group_means": (means_by_dictionary, means_by_matrix),
    "circuit_alone": (masked(), alone_as_list),
    "incompleteness": (gap_by_loop, lambda c, m: (m - c).mean(-1).abs().numpy()),
    "greedy_set": (search, lambda gap, draws: {tuple(head) for head in search(gap, draws)}),
    "share_given": (
        share(lambda c, b, a, w: abs((a - b).mean() / w.mean())),
        share(lambda c, b, a, w: float(abs(np.mean(a.numpy()) - np.mean(b.numpy())) / abs(np.mean(w.numpy())))),
    ),
}
WRONG = {
    "group_means": GROUPS,
    "circuit_alone": ALONE,
    "incompleteness": GAPS,
    "greedy_set": SEARCHES,
    "share_given": NEEDED,
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name, answer", [(name, answer) for name, answers in RIGHT.items() for answer in answers])
def test_right_answers_pass(name, answer, seed):
    verdict = getattr(checks, name)(answer, seed=seed)
    assert verdict.passed, verdict


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name, said", [(name, said) for name, answers in WRONG.items() for said in answers])
def test_wrong_answers_are_recognised(name, said, seed):
    verdict = getattr(checks, name)(WRONG[name][said], seed=seed)
    assert verdict.kind == "misconception" and verdict.misconception == said, verdict


def test_every_exercise_and_every_misconception_is_tested():
    assert set(RIGHT) == set(WRONG) == set(checks.__all__)
    for name, answers in WRONG.items():
        assert set(answers) == {one.name for one in getattr(checks, name).misconceptions}
        assert len(answers) >= 4


def test_other_wrong_answers_are_wrong():
    """Nothing is misnamed: a wrong answer that no misconception explains is merely wrong."""
    assert checks.incompleteness(lambda circuit, model: circuit.mean(-1)).kind == "wrong"
    assert checks.group_means(lambda z, groups: z.flip(0)).kind == "wrong"
    assert checks.greedy_set(lambda gap, draws: {tuple(head) for draw in draws for head in draw}).kind == "wrong"
    assert checks.share_given(lambda model, data, keep, others, head, means: 0.0).kind == "wrong"


def test_changed_means_are_noticed():
    def careless(model, data, keep, means):
        for mean in means:
            mean.zero_()
        return torch.zeros(len(data))

    assert checks.circuit_alone(careless).kind == "side effect"
