"""The exercises of chapter 12."""

import random
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.circuit import run_circuit, run_without
from ioi_course.roles import Head
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

__all__ = ["group_means", "circuit_alone", "incompleteness", "greedy_set", "share_given"]


def _group_means(
    z: Float[Tensor, "batch pos head d_head"], groups: Int[Tensor, "batch"]
) -> Float[Tensor, "batch pos head d_head"]:
    return torch.stack([z[groups == group].mean(0) for group in groups])


def _others_mean(z: Tensor, groups: Tensor) -> Tensor:
    """As `_group_means`, but each prompt is left out of its own mean (unless it is alone)."""
    total = torch.stack([z[groups == group].sum(0) for group in groups])
    count = (groups[:, None] == groups).sum(1)[:, None, None, None]
    return torch.where(count > 1, (total - z) / (count - 1).clamp(min=1), z)


def _group_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    labels = [3, 0, 3, 7, 0, 3], [1, 1], [5], [2, 0, 1, 0], [4, 4, 9, 9, 4]
    shapes = (5, 2, 3), (4, 3, 2), (3, 2, 2), (6, 1, 3), (2, 4, 1)
    return [
        (torch.randn(len(some), *shape, generator=g, dtype=torch.float64), torch.tensor(some))
        for some, shape in zip(labels, shapes, strict=True)
    ]


group_means = Exercise(
    number="12.1",
    title="The mean of its kind",
    solution=_group_means,
    cases=_group_cases,
    misconceptions=(
        Misconception(
            "mean over all prompts",
            "You averaged over all prompts. Position 12 is S2 in one template and a comma in the next: take the mean "
            "over prompts of the same group only.",
            lambda z, groups: z.mean(0, keepdim=True).expand_as(z),
        ),
        Misconception(
            "mean over the wrong axis",
            "You averaged over positions as well, so every position gets the same. What a head puts out at S2 says "
            "nothing about END: keep the axis.",
            lambda z, groups: _group_means(z, groups).mean(1, keepdim=True).expand_as(z),
        ),
        Misconception(
            "sum for a mean",
            "You added the prompts of a group up. Divide by their number.",
            lambda z, groups: torch.stack([z[groups == group].sum(0) for group in groups]),
        ),
        Misconception(
            "one row for each group",
            "You have the right means, one for each group. Every prompt needs its own row, with the mean of its group.",
            lambda z, groups: torch.stack([z[groups == group].mean(0) for group in groups.unique()]),
        ),
        Misconception(
            "divided by all prompts",
            "You added the prompts of a group up and divided by the number of all prompts.",
            lambda z, groups: torch.stack([z[groups == group].sum(0) for group in groups]) / len(z),
        ),
        Misconception(
            "own prompt left out",
            "You left each prompt out of its own mean. That is a good idea when the means are of the prompts that you "
            "run. Here they are of a reference: all of its prompts count.",
            _others_mean,
        ),
    ),
)


# Runs of random models with random nodes. What is kept, where, and what takes its place differs.


def _run(model, data: IOIDataset, means: Sequence[Tensor], change: Callable) -> Float[Tensor, "batch"]:
    """The logit differences of a run in which `change(z, mean, layer)` is put for z."""

    def hook(z, hook):
        return change(z, means[hook.layer()], hook.layer())

    hooks = [(f"blocks.{layer}.attn.hook_z", hook) for layer in range(model.cfg.n_layers)]
    return logit_diff(model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True)


def _keeping(index: Callable, zero: bool = False) -> Callable:
    """The answer that keeps what `index(data, rows, role, head)` picks, of means or of zeros."""

    def answer(model, data, keep, means):
        rows = torch.arange(len(data))

        def change(z, mean, layer):
            new = torch.zeros_like(z) if zero else mean.clone()
            for (at, head), role in keep.items():
                if at == layer:
                    chosen = index(data, rows, role, head)
                    new[chosen] = z[chosen]
            return new

        return _run(model, data, means, change)

    return answer


def _node(data: IOIDataset, rows: Tensor, role: str, head: int) -> tuple:
    return rows, data.pos[role], head


def _exchanged(model, data, keep, means):
    """Nodes of the circuit out, all else as it is."""
    rows = torch.arange(len(data))

    def change(z, mean, layer):
        for (at, head), role in keep.items():
            if at == layer:
                z[rows, data.pos[role], head] = mean[rows, data.pos[role], head]
        return z

    return _run(model, data, means, change)


def _random_keep(rng: random.Random, model) -> dict[Head, str]:
    heads = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    chosen = dict.fromkeys(sorted(rng.sample(heads, rng.randint(5, 9))))
    roles = ["S1+1", "S2", "END"]
    return {head: roles[i] if i < 3 else rng.choice(roles) for i, head in enumerate(chosen)}


def _random_means(model, data: IOIDataset, seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = *data.tokens.shape, model.cfg.n_heads, model.cfg.d_head
    return [torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(model.cfg.n_layers)]


def _run_cases(seed: int) -> list[tuple]:
    cases, rng = [], random.Random(seed)
    for i, n in enumerate((4, 3, 5, 1, 4)):
        model = random_model(i % 2)
        data = random_data(model, n, seed=seed + i)
        cases.append((model, data, _random_keep(rng, model), _random_means(model, data, seed + i)))
    return cases


def _circuit_alone(
    model, data: IOIDataset, keep: Mapping[Head, str], means: Sequence[Float[Tensor, "batch pos head d_head"]]
) -> Float[Tensor, "batch"]:
    return run_circuit(model, data, keep, means)


circuit_alone = Exercise(
    number="12.2",
    title="The circuit alone",
    solution=_circuit_alone,
    cases=_run_cases,
    misconceptions=(
        Misconception(
            "kept at every position",
            "You keep whole heads. A node is a head at one position: everywhere else the head puts out its mean, too.",
            _keeping(lambda data, rows, role, head: (slice(None), slice(None), head)),
        ),
        Misconception(
            "circuit and rest exchanged",
            "You knocked the circuit out of the model, F(M \\ C). Here the circuit stays, and all else goes.",
            _exchanged,
        ),
        Misconception(
            "END for every head",
            "You keep every head at END. An induction head of the circuit acts at S2: `keep` says where each one acts.",
            _keeping(lambda data, rows, role, head: (rows, data.pos["END"], head)),
        ),
        Misconception(
            "positions of the first prompt",
            "You took the first prompt's positions for all. Prompts have different lengths: use a position per prompt.",
            _keeping(lambda data, rows, role, head: (slice(None), int(data.pos[role][0]), head)),
        ),
        Misconception(
            "zero instead of the mean",
            "You set the rest to zero. Put the means there.",
            _keeping(_node, zero=True),
        ),
        Misconception(
            "S1 taken for S1+1",
            "You keep the heads of S1+1 at S1. The previous-token heads of the circuit write at the token after S1.",
            _keeping(lambda data, rows, role, head: (rows, data.pos[role.removesuffix("+1")], head)),
        ),
        Misconception(
            "whole layer kept",
            "At a node's position you keep all heads of its layer. Only the one head stays.",
            _keeping(lambda data, rows, role, head: (rows, data.pos[role])),
        ),
    ),
)


def _incompleteness(circuit: Float[Tensor, "set batch"], model: Float[Tensor, "set batch"]) -> Float[Tensor, "set"]:
    return (circuit.mean(1) - model.mean(1)).abs()


def _difference_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    shapes = (4, 6), (3, 2), (5, 1), (1, 7), (2, 4)
    return [
        tuple(torch.randn(shape, generator=g, dtype=torch.float64) + shift for shift in (1.0, 1.2)) for shape in shapes
    ]


incompleteness = Exercise(
    number="12.3",
    title="Incompleteness",
    solution=_incompleteness,
    cases=_difference_cases,
    misconceptions=(
        Misconception(
            "absolute value before the mean",
            "You took the size of the difference prompt by prompt. Then noise of either sign adds up. F is a mean over "
            "prompts: take both means, subtract, and then the size.",
            lambda circuit, model: (circuit - model).abs().mean(1),
        ),
        Misconception(
            "sign kept",
            "A circuit that has too little without K is as incomplete as one that has too much: take the size.",
            lambda circuit, model: circuit.mean(1) - model.mean(1),
        ),
        Misconception(
            "share instead of logits",
            "You divided by F(M \\ K). Where K breaks the model that is next to nothing, and the ratio means nothing.",
            lambda circuit, model: _incompleteness(circuit, model) / model.mean(1).abs(),
        ),
        Misconception(
            "mean over the wrong axis",
            "You averaged over sets and have a number for each prompt. One for each set should be left.",
            lambda circuit, model: (circuit.mean(0) - model.mean(0)).abs(),
        ),
        Misconception(
            "difference of sizes",
            "You compared the sizes of the two logit differences. Where one is below 0 and the other above, they are far "
            "apart, and their sizes may be the same.",
            lambda circuit, model: (circuit.mean(1).abs() - model.mean(1).abs()).abs(),
        ),
    ),
)


def _greedy_set(gap: Callable[[Sequence[Head]], float], draws: Sequence[Sequence[Head]]) -> set[Head]:
    return set(_climb(gap, draws, gap, best=True))


def _climb(gap: Callable, draws: Sequence[Sequence[Head]], score: Callable, best: bool, stop: bool = False) -> tuple:
    """Sets head by head by a score; returns the best that was met by the gap, or the last."""
    chosen, met = (), []
    for candidates in draws:
        tried = [(*chosen, head) for head in candidates if head not in chosen]
        if not tried:
            continue
        new = max(tried, key=score)
        if stop and chosen and gap(new) < gap(chosen):
            break
        chosen = new
        met.append(chosen)
    return max(met, key=gap) if best else chosen


def _search_case(rng: random.Random, steps: int) -> tuple:
    """A gap of heads and of pairs of heads, and candidates for each step."""
    heads = [(layer, head) for layer in range(4) for head in range(3)]
    alone = {head: rng.gauss(0, 1) for head in heads}
    both = {(a, b): rng.gauss(0, 1) for a in heads for b in heads if a < b}

    def gap(chosen) -> float:
        chosen = sorted(set(map(tuple, chosen)))
        pairs = [both[a, b] for a in chosen for b in chosen if a < b]
        return abs(sum(alone[head] for head in chosen) + sum(pairs))

    return gap, [rng.sample(heads, 4) for _ in range(steps)]


def _search_cases(seed: int) -> list[tuple]:
    """Searches in which the gap falls on the way: to the end in one half, and to rise again in the other."""
    cases, rng = [], random.Random(seed)
    for i, steps in enumerate((5, 4, 6, 3, 5, 6)):
        falls = False
        while not falls:
            gap, draws = _search_case(rng, steps)
            best = _greedy_set(gap, draws)
            falls = best != set(_climb(gap, draws, gap, best=i % 2 == 0, stop=i % 2 == 0))
        cases.append((gap, draws))
    return cases


greedy_set = Exercise(
    number="12.4",
    title="A greedy search",
    solution=_greedy_set,
    cases=_search_cases,
    misconceptions=(
        Misconception(
            "last set instead of the best",
            "You returned the set of the last step. The gap can fall on the way, because every step must add a head: "
            "return the best set that you have met.",
            lambda gap, draws: set(_climb(gap, draws, gap, best=False)),
        ),
        Misconception(
            "heads judged alone",
            "You chose the candidate with the largest gap of its own. What counts is the gap of K with it: heads that "
            "do nothing alone may do much together.",
            lambda gap, draws: set(_climb(gap, draws, lambda heads: gap(heads[-1:]), best=True)),
        ),
        Misconception(
            "smallest gap",
            "You took the candidate that makes the gap smallest. The search looks for where the circuit fails.",
            lambda gap, draws: set(_climb(gap, draws, lambda heads: -gap(heads), best=True)),
        ),
        Misconception(
            "stopped at the first fall",
            "You stopped when no candidate made the gap larger. It may rise again with the next heads: go on to the "
            "last step.",
            lambda gap, draws: set(_climb(gap, draws, gap, best=True, stop=True)),
        ),
        Misconception(
            "first candidate each time",
            "You added the first candidate of each step without trying the others.",
            lambda gap, draws: set(_climb(gap, [[c for c in d][:1] for d in draws], gap, best=True)),
        ),
    ),
)


def _share_given(
    model,
    data: IOIDataset,
    keep: Mapping[Head, str],
    others: Sequence[Head],
    head: Head,
    means: Sequence[Float[Tensor, "batch pos head d_head"]],
) -> float:
    before, after = _before_and_after(model, data, keep, others, head, means)
    return ((after.mean() - before.mean()).abs() / _whole(model, data).mean().abs()).item()


def _without(keep: Mapping[Head, str], heads: Sequence[Head]) -> dict[Head, str]:
    return {head: role for head, role in keep.items() if head not in heads}


def _before_and_after(model, data, keep, others, head, means) -> list[Float[Tensor, "batch"]]:
    return [run_circuit(model, data, _without(keep, out), means) for out in (others, [*others, head])]


def _whole(model, data: IOIDataset) -> Float[Tensor, "batch"]:
    return logit_diff(model(data.tokens), data, per_prompt=True)


def _in_model(model, data, keep, others, head, means):
    outs = others, [*others, head]
    before, after = (run_without(model, data, {h: keep[h] for h in out}, means).mean() for out in outs)
    return (after - before).abs() / _whole(model, data).mean().abs()


def _own_measure(measure: Callable) -> Callable:
    """An answer made from the circuit's logit differences without K, without K and v, and the model's."""

    def answer(model, data, keep, others, head, means):
        before, after = _before_and_after(model, data, keep, others, head, means)
        return measure(before, after, _whole(model, data), run_circuit(model, data, keep, means))

    return answer


def _share_cases(seed: int) -> list[tuple]:
    """Heads whose loss makes the logit difference rise and fall in turn."""
    rng, cases = random.Random(seed), []
    for i, (model, data, keep, means) in enumerate(_run_cases(seed)):
        for head in rng.sample(sorted(keep), len(keep)):
            others = rng.sample([other for other in sorted(keep) if other != head], 3)
            before, after = _before_and_after(model, data, keep, others, head, means)
            if (after.mean() - before.mean()) * (1 if i % 2 else -1) > 0.01:
                break
        cases.append((model, data, keep, others, head, means))
    return cases


share_given = Exercise(
    number="12.5",
    title="Is it needed?",
    solution=_share_given,
    cases=_share_cases,
    misconceptions=(
        Misconception(
            "K forgotten",
            "You took v out of the whole circuit. With K in place others do v's work, and it seems to do nothing.",
            lambda model, data, keep, others, head, means: _share_given(model, data, keep, [], head, means),
        ),
        Misconception(
            "measured from the whole circuit",
            "You compared C \\ (K ∪ v) with the whole circuit. That is the effect of K and v together; compare with "
            "C \\ K.",
            _own_measure(lambda before, after, whole, full: (after.mean() - full.mean()).abs() / whole.mean().abs()),
        ),
        Misconception(
            "measured in the model",
            "You knocked K and v out of the whole model. Minimality is about the circuit: all else is out as well.",
            _in_model,
        ),
        Misconception(
            "sign kept",
            "Without a negative name mover the circuit gets better, and that shows as well that the head does something: "
            "take the size of the change.",
            _own_measure(lambda before, after, whole, full: (after.mean() - before.mean()) / whole.mean().abs()),
        ),
        Misconception(
            "absolute value before the mean",
            "You took the size of the change prompt by prompt. F is a mean over prompts: take the means first.",
            _own_measure(lambda before, after, whole, full: (after - before).abs().mean() / whole.mean().abs()),
        ),
        Misconception(
            "divided by the circuit",
            "You divided by F(C \\ K). All shares are of the same whole, F(M): else a head looks the larger the less is "
            "left beside it.",
            _own_measure(lambda before, after, whole, full: (after.mean() - before.mean()).abs() / before.mean().abs()),
        ),
        Misconception(
            "not divided",
            "This is the change in logits. Divide it by the size of F(M).",
            _own_measure(lambda before, after, whole, full: (after.mean() - before.mean()).abs()),
        ),
    ),
)
