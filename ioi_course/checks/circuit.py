"""The exercises of chapter 12; that of the missing head is in `missing`."""

import random
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.checks.missing import find_missing
from ioi_course.circuit import run_circuit, run_without
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Head
from ioi_course.scrubbing import partners, scrub

__all__ = ["circuit_alone", "incompleteness", "find_missing", "share_given", "scrubbed"]


# Runs of random models with random nodes. What is kept, where, and what
# takes its place differs.


def _run(
    model, data: IOIDataset, means: Sequence[Tensor], change: Callable
) -> Float[Tensor, "batch"]:
    """The logit differences of a run in which `change(z, mean, layer)` is put for z."""

    def hook(z, hook):
        return change(z, means[hook.layer()], hook.layer())

    hooks = [
        (f"blocks.{layer}.attn.hook_z", hook) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )


def _keeping(index: Callable, zero: bool = False) -> Callable:
    """The answer that keeps what `index(data, rows, role, head)` picks,
    of means or of zeros."""

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
    heads = [
        (layer, head)
        for layer in range(model.cfg.n_layers)
        for head in range(model.cfg.n_heads)
    ]
    chosen = dict.fromkeys(sorted(rng.sample(heads, rng.randint(5, 9))))
    roles = ["S1+1", "S2", "END"]
    return {
        head: roles[i] if i < 3 else rng.choice(roles) for i, head in enumerate(chosen)
    }


def _random_means(model, data: IOIDataset, seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = *data.tokens.shape, model.cfg.n_heads, model.cfg.d_head
    return [
        torch.randn(shape, generator=g, dtype=torch.float64)
        for _ in range(model.cfg.n_layers)
    ]


def _run_cases(seed: int) -> list[tuple]:
    cases, rng = [], random.Random(seed)
    for i, n in enumerate((4, 3, 5, 1, 4)):
        model = random_model(i % 2)
        data = random_data(model, n, seed=seed + i)
        cases.append(
            (
                model,
                data,
                _random_keep(rng, model),
                _random_means(model, data, seed + i),
            )
        )
    return cases


def _circuit_alone(
    model,
    data: IOIDataset,
    keep: Mapping[Head, str],
    means: Sequence[Float[Tensor, "batch pos head d_head"]],
) -> Float[Tensor, "batch"]:
    return run_circuit(model, data, keep, means)


circuit_alone = Exercise(
    number="12.1",
    title="The circuit alone",
    solution=_circuit_alone,
    cases=_run_cases,
    misconceptions=(
        Misconception(
            "kept at every position",
            "You keep whole heads. A node is a head at one position: everywhere else "
            "the head puts out its mean, too.",
            _keeping(lambda data, rows, role, head: (slice(None), slice(None), head)),
        ),
        Misconception(
            "circuit and rest exchanged",
            "You knocked the circuit out of the model, F(M \\ C). Here the circuit "
            "stays, and all else goes.",
            _exchanged,
        ),
        Misconception(
            "END for every head",
            "You keep every head at END. An induction head of the circuit acts at S2: "
            "`keep` says where each one acts.",
            _keeping(lambda data, rows, role, head: (rows, data.pos["END"], head)),
        ),
        Misconception(
            "positions of the first prompt",
            "You took the first prompt's positions for all. Prompts have different "
            "lengths: use a position per prompt.",
            _keeping(
                lambda data, rows, role, head: (
                    slice(None),
                    int(data.pos[role][0]),
                    head,
                )
            ),
        ),
        Misconception(
            "zero instead of the mean",
            "You set the rest to zero. Put the means there.",
            _keeping(_node, zero=True),
        ),
        Misconception(
            "S1 taken for S1+1",
            "You keep the heads of S1+1 at S1. The previous-token heads of the "
            "circuit write at the token after S1.",
            _keeping(
                lambda data, rows, role, head: (
                    rows,
                    data.pos[role.removesuffix("+1")],
                    head,
                )
            ),
        ),
        Misconception(
            "whole layer kept",
            "At a node's position you keep all heads of its layer. Only the one "
            "head stays.",
            _keeping(lambda data, rows, role, head: (rows, data.pos[role])),
        ),
    ),
)


def _incompleteness(
    circuit: Float[Tensor, "set batch"], model: Float[Tensor, "set batch"]
) -> Float[Tensor, "set"]:
    return (circuit.mean(1) - model.mean(1)).abs()


def _difference_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    shapes = (4, 6), (3, 2), (5, 1), (1, 7), (2, 4)
    return [
        tuple(
            torch.randn(shape, generator=g, dtype=torch.float64) + shift
            for shift in (1.0, 1.2)
        )
        for shape in shapes
    ]


incompleteness = Exercise(
    number="12.2",
    title="Incompleteness",
    solution=_incompleteness,
    cases=_difference_cases,
    misconceptions=(
        Misconception(
            "absolute value before the mean",
            "You took the size of the difference prompt by prompt. Then noise of "
            "either sign adds up. F is a mean over prompts: take both means, subtract, "
            "and then the size.",
            lambda circuit, model: (circuit - model).abs().mean(1),
        ),
        Misconception(
            "sign kept",
            "A circuit that has too little without K is as incomplete as one that has "
            "too much: take the size.",
            lambda circuit, model: circuit.mean(1) - model.mean(1),
        ),
        Misconception(
            "share instead of logits",
            "You divided by F(M \\ K). Where K breaks the model that is next to "
            "nothing, and the ratio means nothing.",
            lambda circuit, model: (
                _incompleteness(circuit, model) / model.mean(1).abs()
            ),
        ),
        Misconception(
            "mean over the wrong axis",
            "You averaged over sets and have a number for each prompt. One for each "
            "set should be left.",
            lambda circuit, model: (circuit.mean(0) - model.mean(0)).abs(),
        ),
        Misconception(
            "difference of sizes",
            "You compared the sizes of the two logit differences. Where one is below 0 "
            "and the other above, they are far apart, and their sizes may be the same.",
            lambda circuit, model: (circuit.mean(1).abs() - model.mean(1).abs()).abs(),
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
    return (
        (after.mean() - before.mean()).abs() / _whole(model, data).mean().abs()
    ).item()


def _without(keep: Mapping[Head, str], heads: Sequence[Head]) -> dict[Head, str]:
    return {head: role for head, role in keep.items() if head not in heads}


def _before_and_after(
    model, data, keep, others, head, means
) -> list[Float[Tensor, "batch"]]:
    return [
        run_circuit(model, data, _without(keep, out), means)
        for out in (others, [*others, head])
    ]


def _whole(model, data: IOIDataset) -> Float[Tensor, "batch"]:
    return logit_diff(model(data.tokens), data, per_prompt=True)


def _in_model(model, data, keep, others, head, means):
    outs = others, [*others, head]
    before, after = (
        run_without(model, data, {h: keep[h] for h in out}, means).mean()
        for out in outs
    )
    return (after - before).abs() / _whole(model, data).mean().abs()


def _own_measure(measure: Callable) -> Callable:
    """An answer made from the circuit's logit differences without K, without K
    and v, and the model's."""

    def answer(model, data, keep, others, head, means):
        before, after = _before_and_after(model, data, keep, others, head, means)
        return measure(
            before, after, _whole(model, data), run_circuit(model, data, keep, means)
        )

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
    number="12.4",
    title="Is it needed?",
    solution=_share_given,
    cases=_share_cases,
    misconceptions=(
        Misconception(
            "K forgotten",
            "You took v out of the whole circuit. With K in place others do v's work, "
            "and it seems to do nothing.",
            lambda model, data, keep, others, head, means: _share_given(
                model, data, keep, [], head, means
            ),
        ),
        Misconception(
            "measured from the whole circuit",
            "You compared C \\ (K ∪ v) with the whole circuit. That is the effect of K "
            "and v together; compare with C \\ K.",
            _own_measure(
                lambda before, after, whole, full: (
                    (after.mean() - full.mean()).abs() / whole.mean().abs()
                )
            ),
        ),
        Misconception(
            "measured in the model",
            "You knocked K and v out of the whole model. Minimality is about the "
            "circuit: all else is out as well.",
            _in_model,
        ),
        Misconception(
            "sign kept",
            "Without a negative name mover the circuit gets better, and that shows as "
            "well that the head does something: take the size of the change.",
            _own_measure(
                lambda before, after, whole, full: (
                    (after.mean() - before.mean()) / whole.mean().abs()
                )
            ),
        ),
        Misconception(
            "absolute value before the mean",
            "You took the size of the change prompt by prompt. F is a mean over "
            "prompts: take the means first.",
            _own_measure(
                lambda before, after, whole, full: (
                    (after - before).abs().mean() / whole.mean().abs()
                )
            ),
        ),
        Misconception(
            "divided by the circuit",
            "You divided by F(C \\ K). All shares are of the same whole, F(M): else a "
            "head looks the larger the less is left beside it.",
            _own_measure(
                lambda before, after, whole, full: (
                    (after.mean() - before.mean()).abs() / before.mean().abs()
                )
            ),
        ),
        Misconception(
            "not divided",
            "This is the change in logits. Divide it by the size of F(M).",
            _own_measure(
                lambda before, after, whole, full: (after.mean() - before.mean()).abs()
            ),
        ),
    ),
)


# --- 12.5: an output from another prompt, at that prompt's own position


def _scrubbed(
    model, data: IOIDataset, places: Mapping[Head, str], others: IOIDataset
) -> Float[Tensor, "batch"]:
    return scrub(model, data, places, others)


def _exchanging(
    mine: Callable, theirs: Callable, answers: str = "data", every_head: bool = False
) -> Callable:
    """The answer that writes at `mine(data, others, role)` what it reads at
    `theirs(data, others, role)`."""

    def answer(model, data, places, others):
        rows = torch.arange(len(data))
        names = [f"blocks.{at}.attn.hook_z" for at in range(model.cfg.n_layers)]
        _, cache = model.run_with_cache(others.tokens, names_filter=names)

        def put(z, hook):
            for (layer, head), role in places.items():
                if layer == hook.layer():
                    some = slice(None) if every_head else slice(head, head + 1)
                    read = theirs(data, others, role).clamp(
                        max=others.tokens.shape[1] - 1
                    )
                    value = cache[hook.name][rows, read, some]
                    to = mine(data, others, role)
                    if to is None:
                        z[:, :, some] = value[:, None]
                    else:
                        z[rows, to.clamp(max=z.shape[1] - 1), some] = value
            return z

        logits = model.run_with_hooks(
            data.tokens, fwd_hooks=[(name, put) for name in names]
        )
        end, (io, s) = (
            logits[rows, data.pos["END"]],
            (data if answers == "data" else others).answers.T,
        )
        return end[rows, io] - end[rows, s]

    return answer


def _own(data, others, role):
    return data.pos[role]


def _partners(data, others, role):
    return others.pos[role]


def _scrub_cases(seed: int) -> list[tuple]:
    """Partners of other lengths, with other answers."""
    cases, rng = [], random.Random(seed)
    for i, n in enumerate((4, 3, 5, 2)):
        model = random_model(i % 2)
        data, longer = random_data(model, n, seed=seed + i), False
        while not longer:
            others = partners(
                data, rng.choice([["IO"], ["S", "order"], []]), rng.randrange(1000)
            )
            longer = any(
                not torch.equal(data.pos[role], others.pos[role])
                for role in ("S2", "END")
            )
        cases.append((model, data, _random_keep(rng, model), others))
    return cases


scrubbed = Exercise(
    number="12.5",
    title="One scrub",
    solution=_scrubbed,
    cases=_scrub_cases,
    misconceptions=(
        Misconception(
            "own position in the partner",
            "You read the partner at the positions of the prompt. The partner is "
            "another sentence: its END is at `others.pos`.",
            _exchanging(_own, _own),
        ),
        Misconception(
            "the partner's position in the prompt",
            "You wrote at the partner's positions. Read there, and write at those "
            "of `data`.",
            _exchanging(_partners, _partners),
        ),
        Misconception(
            "answers of the partners",
            "You measured the partners' names. The prompt is that of `data`, and so "
            "is the question.",
            _exchanging(_own, _partners, answers="others"),
        ),
        Misconception(
            "prompt and partner exchanged",
            "You ran the partners and gave them outputs of the prompts. It is the "
            "other way round.",
            lambda model, data, places, others: scrub(model, others, places, data),
        ),
        Misconception(
            "at every position",
            "You wrote the partner's output at all positions. A node is a head at one "
            "position; elsewhere the head stays.",
            _exchanging(lambda data, others, role: None, _partners),
        ),
        Misconception(
            "whole layer exchanged",
            "You exchanged all heads of the layer. Only the one head is under the "
            "hypothesis.",
            _exchanging(_own, _partners, every_head=True),
        ),
        Misconception(
            "END for every head",
            "You exchanged every head at END. `places` says where each one acts.",
            _exchanging(
                lambda data, others, role: data.pos["END"],
                lambda data, others, role: others.pos["END"],
            ),
        ),
    ),
)
