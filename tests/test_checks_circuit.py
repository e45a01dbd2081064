"""The exercises of chapter 12: wrong answers as students write them are recognised,
other right answers pass."""

import numpy as np
import pytest
import torch

from ioi_course.checks import circuit as checks
from ioi_course.circuit import run_circuit

SEEDS = (0, 1)


# 12.1, prompt by prompt, and with a mask
def diffs(logits, data):
    ends = [logits[i, int(end)] for i, end in enumerate(data.pos["END"])]
    return torch.stack(
        [
            row[io] - row[s]
            for row, (io, s) in zip(ends, data.answers.tolist(), strict=True)
        ]
    )


def run_masked(
    model, data, keep, means, place, invert=False, zero=False, layer_wide=False
):
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
        return run_masked(
            model, data, keep, means, lambda i, role: at(data, i, role), **options
        )

    return answer


def alone_as_list(model, data, keep, means):
    return masked()(model, data, keep, means).tolist()


ALONE = {
    "kept at every position": masked(lambda data, i, role: slice(None)),
    "circuit and rest exchanged": masked(invert=True),
    "END for every head": masked(lambda data, i, role: data.pos["END"][i]),
    "positions of the first prompt": masked(lambda data, i, role: data.pos[role][0]),
    "zero instead of the mean": masked(zero=True),
    "S1 taken for S1+1": masked(
        lambda data, i, role: data.pos["S1" if role == "S1+1" else role][i]
    ),
    "whole layer kept": masked(layer_wide=True),
}


# 12.2
def gap_by_loop(circuit, model):
    return [
        abs(float(np.mean(a.numpy()) - np.mean(b.numpy())))
        for a, b in zip(circuit, model, strict=True)
    ]


GAPS = {
    "absolute value before the mean": lambda c, m: torch.mean(torch.abs(m - c), dim=-1),
    "sign kept": lambda c, m: (c - m).mean(-1),
    "share instead of logits": lambda c, m: (
        (c.mean(-1) - m.mean(-1)) / m.mean(-1)
    ).abs(),
    "mean over the wrong axis": lambda c, m: (c - m).mean(0).abs(),
    "difference of sizes": lambda c, m: (m.mean(-1).abs() - c.mean(-1).abs()).abs(),
}


# 12.3, without the search of the checks
def distances(broken, sets):
    alone, whole = broken(sets)
    return [abs(float(a) - float(b)) for a, b in zip(alone, whole, strict=True)]


def by_class_and_node(broken, classes, outside):
    """Every class with every node: the node that makes up for most, wherever."""
    best = {}
    for some in classes.values():
        before = distances(broken, [some])[0]
        after = distances(broken, [dict([*some.items(), node]) for node in outside])
        best |= {
            (before - left, node): node
            for left, node in zip(after, outside, strict=True)
        }
    return best[max(best, key=lambda key: key[0])]


def by_halves(broken, classes, outside):
    """With the worst class out, take out half of the suspects at a time."""
    worst = max(classes.values(), key=lambda some: distances(broken, [some])[0])
    left = list(outside)
    while len(left) > 1:
        halves = left[: len(left) // 2], left[len(left) // 2 :]
        gaps = []
        for half in halves:
            # a set has one node of a head: the same head at other positions goes
            # into the next set
            waves = [half]
            while any(len(dict(wave)) < len(wave) for wave in waves):
                waves = [part for wave in waves for part in (wave[::2], wave[1::2])]
            gaps.append(
                min(
                    distances(broken, [dict([*worst.items(), *wave]) for wave in waves])
                )
            )
        left = halves[gaps.index(min(gaps))]
    return left[0]


def without_a_class(broken, classes, outside, some, pick):
    return outside[pick(broken, [{**some, head: role} for head, role in outside])]


def worst_class(broken, classes):
    gaps = distances(broken, list(classes.values()))
    return list(classes.values())[gaps.index(max(gaps))]


def nearest(broken, sets):
    gaps = distances(broken, sets)
    return gaps.index(min(gaps))


def farthest(broken, sets):
    gaps = distances(broken, sets)
    return gaps.index(max(gaps))


def lowest(broken, sets):
    return broken(sets)[1].tolist().index(min(broken(sets)[1].tolist()))


def least_left(broken, classes, outside):
    left = {name: float(broken([some])[1]) for name, some in classes.items()}
    return without_a_class(
        broken, classes, outside, classes[min(left, key=left.get)], nearest
    )


def at_the_end(broken, classes, outside):
    some = [(head, role) for head, role in outside if role == "END"]
    return without_a_class(broken, classes, some, worst_class(broken, classes), nearest)


def member(broken, classes, outside):
    nodes = [(head, role) for some in classes.values() for head, role in some.items()]
    return nodes[farthest(broken, [dict([node]) for node in nodes])]


MISSING = {
    "nothing taken out": lambda b, c, o: without_a_class(b, c, o, {}, nearest),
    "the class that matters most": least_left,
    "END only": at_the_end,
    "lowest instead of closest": lambda b, c, o: without_a_class(
        b, c, o, worst_class(b, c), lowest
    ),
    "farthest instead of closest": lambda b, c, o: without_a_class(
        b, c, o, worst_class(b, c), farthest
    ),
    "a head of the circuit": member,
}


# 12.4
def parts(model, data, keep, others, head, means):
    """Logit differences: circuit, without K, without K and v, model."""
    runs = [keep, {h: r for h, r in keep.items() if h not in others}]
    runs.append({h: r for h, r in runs[1].items() if h != head})
    return [
        *(run_circuit(model, data, run, means) for run in runs),
        diffs(model(data.tokens), data),
    ]


def share(formula):
    return lambda *case: formula(*parts(*case))


def share_in_model(model, data, keep, others, head, means):
    out = [{h: keep[h] for h in heads} for heads in (others, [*others, head])]
    before, after = (
        masked(invert=True)(model, data, some, means).mean() for some in out
    )
    return abs((after - before) / diffs(model(data.tokens), data).mean())


NEEDED = {
    "K forgotten": lambda m, d, keep, k, v, means: share(
        lambda c, b, a, w: abs((c - a).mean() / w.mean())
    )(m, d, keep, [], v, means),
    "measured from the whole circuit": share(
        lambda c, b, a, w: abs((c - a).mean() / w.mean())
    ),
    "measured in the model": share_in_model,
    "sign kept": share(lambda c, b, a, w: (a - b).mean() / abs(w.mean())),
    "absolute value before the mean": share(
        lambda c, b, a, w: (a - b).abs().mean() / abs(w.mean())
    ),
    "divided by the circuit": share(lambda c, b, a, w: abs((a - b).mean() / b.mean())),
    "not divided": share(lambda c, b, a, w: abs((a - b).mean())),
}


# 12.5, prompt by prompt
def exchange(model, data, places, others, read, write, whole_layer=False, answers=None):
    """`read(i, role)` and `write(i, role)` give positions in the
    partner and in the prompt."""
    cache = model.run_with_cache(others.tokens)[1]

    def hook(z, hook):
        new = z.clone()
        for (layer, head), role in places.items():
            heads = slice(None) if whole_layer else head
            for i in range(len(data) if layer == hook.layer() else 0):
                at = min(read(i, role), others.tokens.shape[1] - 1)
                to = write(i, role)
                to = to if isinstance(to, slice) else min(to, z.shape[1] - 1)
                new[i, to, heads] = cache[hook.name][i, at, heads]
        return new

    logits = model.run_with_hooks(
        data.tokens, fwd_hooks=[(lambda name: name.endswith("attn.hook_z"), hook)]
    )
    rows = [logits[i, int(end)] for i, end in enumerate(data.pos["END"])]
    answers = data.answers if answers is None else answers
    return torch.stack(
        [row[io] - row[s] for row, (io, s) in zip(rows, answers.tolist(), strict=True)]
    )


def exchanged(read=None, write=None, whole_layer=False, of_others=False):
    def answer(model, data, places, others):
        theirs, mine = (
            lambda i, role, d=d: int(d.pos[role][i]) for d in (others, data)
        )
        from_ = theirs if read is None else lambda i, role: read(data, others, i, role)
        to = mine if write is None else lambda i, role: write(data, others, i, role)
        answers = others.answers if of_others else None
        return exchange(model, data, places, others, from_, to, whole_layer, answers)

    return answer


SCRUBBED = {
    "own position in the partner": exchanged(
        read=lambda data, others, i, role: int(data.pos[role][i])
    ),
    "the partner's position in the prompt": exchanged(
        write=lambda data, others, i, role: int(others.pos[role][i])
    ),
    "answers of the partners": exchanged(of_others=True),
    "prompt and partner exchanged": lambda model, data, places, others: exchanged()(
        model, others, places, data
    ),
    "at every position": exchanged(write=lambda data, others, i, role: slice(None)),
    "whole layer exchanged": exchanged(whole_layer=True),
    "END for every head": lambda model, data, places, others: exchanged()(
        model, data, dict.fromkeys(places, "END"), others
    ),
}

RIGHT = {
    "circuit_alone": (masked(), alone_as_list),
    "incompleteness": (gap_by_loop, lambda c, m: (m - c).mean(-1).abs().numpy()),
    "find_missing": (by_class_and_node, by_halves),
    "share_given": (
        share(lambda c, b, a, w: abs((a - b).mean() / w.mean())),
        share(
            lambda c, b, a, w: float(
                abs(np.mean(a.numpy()) - np.mean(b.numpy())) / abs(np.mean(w.numpy()))
            )
        ),
    ),
    "scrubbed": (exchanged(), lambda *case: exchanged()(*case).numpy()),
}
WRONG = {
    "circuit_alone": ALONE,
    "incompleteness": GAPS,
    "find_missing": MISSING,
    "share_given": NEEDED,
    "scrubbed": SCRUBBED,
}


pytestmark = pytest.mark.usefixtures("no_grad")


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
        checks.incompleteness(lambda circuit, model: circuit.mean(-1)).kind == "wrong"
    )
    assert (
        checks.scrubbed(lambda model, data, places, others: torch.zeros(len(data))).kind
        == "wrong"
    )
    assert (
        checks.find_missing(lambda broken, classes, outside: outside[0]).kind == "wrong"
    )
    assert (
        checks.share_given(lambda model, data, keep, others, head, means: 0.0).kind
        == "wrong"
    )


def test_changed_means_are_noticed():
    def careless(model, data, keep, means):
        for mean in means:
            mean.zero_()
        return torch.zeros(len(data))

    assert checks.circuit_alone(careless).kind == "side effect"
