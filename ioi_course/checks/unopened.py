"""Checks of chapter 15, a model that nobody has opened; that of prompts written anew is
in `rewriting`."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.rewriting import with_for_and

__all__ = [
    "looks_most",
    "counts_in_both",
    "against_bystander",
    "spread_of_shares",
    "with_for_and",
    "role_or_repeat",
]

# --- 15.1 ---

_PLACES = ("BOS", "IO", "S1", "S1+1", "S2", "END")


def _looks_most(
    attention: Float[Tensor, "batch head place"], places: Sequence[str]
) -> list[str]:
    mean = attention.mean(dim=0)[:, 1:]
    return [places[1 + int(i)] for i in mean.argmax(dim=1)]


def _looks_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    cases = []
    for batch, heads in ((4, 6), (1, 3), (5, 8), (7, 5)):
        x = (
            torch.randn(batch, heads, len(_PLACES), generator=g, dtype=torch.float64)
            * 2
        )
        x[..., 0] += 4  # idle heads look at BOS
        x[:, 1, -1] += 6  # one looks at END itself
        if batch > 2:  # one prompt that shouts
            x[0, :, 2] += 3
            x[1:, 0, 4] += 2
        cases.append((x.softmax(dim=-1), _PLACES))
    return cases


looks_most = Exercise(
    number="15.1",
    title="Where does it look?",
    solution=_looks_most,
    cases=_looks_cases,
    misconceptions=(
        Misconception(
            "BOS counted",
            "BOS is in it. A head that has nothing to do looks there, and most of "
            "them would be called heads of BOS.",
            lambda attention, places: [
                places[int(i)] for i in attention.mean(dim=0).argmax(dim=1)
            ],
        ),
        Misconception(
            "off by one",
            "The places have moved by one: after BOS was cut off, index 0 is the "
            "second of `places`.",
            lambda attention, places: [
                places[int(i)] for i in attention.mean(dim=0)[:, 1:].argmax(dim=1)
            ],
        ),
        Misconception(
            "largest in any prompt",
            "You took the largest single attention. One odd prompt then names the "
            "head; take the mean over prompts.",
            lambda attention, places: [
                places[1 + int(i)] for i in attention.amax(dim=0)[:, 1:].argmax(dim=1)
            ],
        ),
        Misconception(
            "first prompt only",
            "This is the first prompt. Take the mean over all of them.",
            lambda attention, places: [
                places[1 + int(i)] for i in attention[0, :, 1:].argmax(dim=1)
            ],
        ),
        Misconception(
            "least instead of most",
            "These are the places that the heads look at least.",
            lambda attention, places: [
                places[1 + int(i)] for i in attention.mean(dim=0)[:, 1:].argmin(dim=1)
            ],
        ),
    ),
)

# --- 15.2 ---


def _counts(effects: Tensor, total: float, k: float, share: float) -> Tensor:
    error = effects.std(dim=0) / len(effects) ** 0.5
    mean = effects.mean(dim=0)
    return (mean.abs() >= k * error) & (mean.abs() >= share * abs(total))


def _counts_in_both(
    one: Float[Tensor, "batch head"], other: Float[Tensor, "batch head"], total: float
) -> float:
    first, again = (_counts(effects, total, 4, 0.02) for effects in (one, other))
    same = first & again & (one.mean(dim=0).sign() == other.mean(dim=0).sign())
    return same.sum().item() / first.sum().item()


def _both_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    cases = []
    for batch, heads, total in (
        (6, 12, 4.0),
        (9, 20, 2.0),
        (5, 16, 3.0),
        (12, 24, 4.0),
    ):
        true = torch.randn(heads, generator=g, dtype=torch.float64) * 0.3
        true[:4] = torch.tensor([1.0, -1.0, 0.8, 0.05]) * total / 4
        noise = 0.15 * torch.randn(2, batch, heads, generator=g, dtype=torch.float64)
        one, other = true + noise
        other[:, 2] -= 2 * true[2]  # counts in both, and changes its sign
        for half in (one, other):  # sure in both, and too small
            half[:, 4] = total / 100 + noise[0, :, 4] / 1000
        other[:, 0] += 0.9 * torch.linspace(-2, 2, batch, dtype=torch.float64) * total
        cases.append((one, other, total))
    return cases


def _rate(judge: Callable) -> Callable:
    def answer(one, other, total):
        return judge(
            one,
            other,
            total,
            _counts(one, total, 4, 0.02),
            _counts(other, total, 4, 0.02),
        )

    return answer


counts_in_both = Exercise(
    number="15.2",
    title="Would it come out again?",
    solution=_counts_in_both,
    cases=_both_cases,
    misconceptions=(
        Misconception(
            "sign forgotten",
            "A head that helps in one half and hurts in the other has not come out "
            "again. Compare the signs, too.",
            _rate(
                lambda one, other, total, a, b: (a & b).sum().item() / a.sum().item()
            ),
        ),
        Misconception(
            "share of all heads",
            "You divided by all heads. Most of them count in neither half; divide by "
            "those that count in the first.",
            lambda one, other, total: (
                _counts_in_both(one, other, total)
                * _counts(one, total, 4, 0.02).sum().item()
                / one.shape[1]
            ),
        ),
        Misconception(
            "share of the union",
            "You divided by the heads that count in either half. That is overlap; "
            "asked is how many of the first half's come out again.",
            lambda one, other, total: (
                _counts_in_both(one, other, total)
                * _counts(one, total, 4, 0.02).sum().item()
                / (_counts(one, total, 4, 0.02) | _counts(other, total, 4, 0.02))
                .sum()
                .item()
            ),
        ),
        Misconception(
            "halves pooled",
            "You asked which heads count in both halves together. The second half then "
            "confirms nothing: it has been used to choose.",
            lambda one, other, total: (
                _counts(torch.cat([one, other]), total, 4, 0.02).sum().item()
                / _counts(one, total, 4, 0.02).sum().item()
            ),
        ),
        Misconception(
            "no errors",
            "You asked for the share alone. An effect also has to be four of its "
            "standard errors from zero.",
            lambda one, other, total: (
                (
                    (one.mean(0).abs() >= 0.02 * total)
                    & (other.mean(0).abs() >= 0.02 * total)
                    & (one.mean(0).sign() == other.mean(0).sign())
                )
                .sum()
                .item()
                / (one.mean(0).abs() >= 0.02 * total).sum().item()
            ),
        ),
    ),
)

# --- 15.3 ---


def _against(before: Tensor, after: Tensor, name: Tensor, bystander: Tensor) -> Tensor:
    rows = torch.arange(len(before))
    change = after - before
    return change[rows, name] - change[rows, bystander]


def _against_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    cases = []
    for batch, vocab in ((4, 9), (1, 5), (6, 12)):
        before, after = 3 * torch.randn(
            2, batch, vocab, generator=g, dtype=torch.float64
        )
        # all logits move
        after = after + torch.linspace(1, 3, batch, dtype=torch.float64)[:, None]
        order = torch.stack([torch.randperm(vocab, generator=g) for _ in range(batch)])
        cases.append((before, after, order[:, 0], order[:, 1]))
    return cases


def _rows(x: Tensor, at: Tensor) -> Tensor:
    return x[torch.arange(len(x)), at]


against_bystander = Exercise(
    number="15.3",
    title="Against a bystander",
    solution=_against,
    cases=_against_cases,
    misconceptions=(
        Misconception(
            "no bystander",
            "This is how the name's logit moves by itself. If a head moves all logits "
            "alike, nothing has been said of this name.",
            lambda before, after, name, by: _rows(after - before, name),
        ),
        Misconception(
            "after only",
            "This is the difference after the exchange. The name may have been ahead "
            "before: take off what was there.",
            lambda before, after, name, by: _rows(after, name) - _rows(after, by),
        ),
        Misconception(
            "before less after",
            "The sign is reversed: a name that gains should have a positive number.",
            lambda before, after, name, by: -_against(before, after, name, by),
        ),
        Misconception(
            "mean over all tokens as bystander",
            "You compared with the mean over the vocabulary. A head that raises all "
            "*names* would then seem to raise this one; the bystander is a name.",
            lambda before, after, name, by: (
                _rows(after - before, name) - (after - before).mean(dim=1)
            ),
        ),
        Misconception(
            "probabilities",
            "These are probabilities. They fall for one name when any other rises; "
            "compare logits.",
            lambda before, after, name, by: _against(
                before.softmax(1), after.softmax(1), name, by
            ),
        ),
        Misconception(
            "mean over prompts",
            "One number for each prompt was asked for.",
            lambda before, after, name, by: _against(before, after, name, by).mean(),
        ),
    ),
)

# --- 15.4 ---


def _spread(
    circuit: Tensor, model: Tensor, templates: Sequence[str]
) -> tuple[float, float]:
    shares = []
    for template in sorted(set(templates)):
        rows = torch.tensor([each == template for each in templates])
        shares.append((circuit[rows].mean() / model[rows].mean()).item())
    return min(shares), max(shares)


def _spread_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    cases = []
    for counts in ((3, 5, 2), (1, 6), (4, 4, 3, 1)):
        templates = [f"template {i}" for i, n in enumerate(counts) for _ in range(n)]
        order = torch.randperm(len(templates), generator=g).tolist()
        templates = [templates[i] for i in order]
        level = torch.tensor([1.0 + int(t[-1]) for t in templates], dtype=torch.float64)
        model = 3 + level + torch.rand(len(templates), generator=g, dtype=torch.float64)
        # most on the templates that are hard for the model, and more than all of it
        share = 1.6 - 0.3 * level
        circuit = model * share + 0.5 * torch.randn(
            len(templates), generator=g, dtype=torch.float64
        )
        cases.append((circuit, model, templates))
    return cases


def _by(share: Callable) -> Callable:
    def answer(circuit, model, templates):
        rows = [
            torch.tensor([each == t for each in templates])
            for t in sorted(set(templates))
        ]
        values = [float(share(circuit[r], model[r])) for r in rows]
        return min(values), max(values)

    return answer


spread_of_shares = Exercise(
    number="15.4",
    title="Faithful on average",
    solution=_spread,
    cases=_spread_cases,
    misconceptions=(
        Misconception(
            "mean of ratios",
            "You divided prompt by prompt. The prompts with the smallest difference "
            "then rule; take both means first.",
            _by(lambda c, m: (c / m).mean()),
        ),
        Misconception(
            "by prompt instead of template",
            "These are the lowest and the highest single prompt. Gather prompts by "
            "template first.",
            lambda c, m, t: ((c / m).min().item(), (c / m).max().item()),
        ),
        Misconception(
            "divided by the overall mean",
            "You divided by the model's mean over all templates. A template that is "
            "hard for the model then seems to be one on which the circuit is "
            "unfaithful.",
            lambda c, m, t: _by(lambda a, _: a.mean() / m.mean())(c, m, t),
        ),
        Misconception(
            "model over circuit",
            "The share is upside down: circuit over model.",
            _by(lambda c, m: m.mean() / c.mean()),
        ),
        Misconception(
            "gap instead of share",
            "These are gaps in logits. Asked is the share of the model's difference "
            "that the circuit has.",
            _by(lambda c, m: (m - c).mean()),
        ),
    ),
)


# --- 15.6 ---


def _role_or_repeat(
    repeated: Float[Tensor, "batch"], new: Float[Tensor, "batch"], k: float = 2.0
) -> str:
    kept, gone = new.mean(), (repeated - new).mean()
    errors = new.std() / len(new) ** 0.5, (repeated - new).std() / len(new) ** 0.5
    there = bool(kept > k * errors[0] and kept >= repeated.mean() / 2)
    fell = bool(gone > k * errors[1])
    return (
        "role"
        if there and not fell
        else "both"
        if there
        else "repetition"
        if fell
        else "open"
    )


def _role_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)

    def draw(n, a, b, noise, common):
        shared = common * torch.randn(n, generator=g, dtype=torch.float64)
        each = noise * torch.randn(2, n, generator=g, dtype=torch.float64)
        return a + shared + each[0] - each[0].mean(), b + shared + each[1] - each[
            1
        ].mean()

    return [
        draw(24, 0.6, 0.6, 0.05, 0.02), draw(24, 0.6, 0.45, 0.04, 0.15),
        draw(24, 0.6, 0.05, 0.04, 0.01), draw(4, 0.3, 0.1, 0.6, 0.02),
        draw(30, 0.7, 0.65, 0.03, 0.3), draw(24, 0.6, 0.2, 0.03, 0.01),
        draw(24, 0.6, 0.15, 0.3, 0.0), draw(5, 0.3, 0.25, 0.6, 0.02),
    ]  # fmt: skip


def _unpaired(repeated: Tensor, new: Tensor, k: float = 2.0) -> str:
    """With the errors of the two means added, as of different prompts."""
    gone = repeated.mean() - new.mean()
    error = ((repeated.var() + new.var()) / len(new)) ** 0.5
    there = bool(
        new.mean() > k * new.std() / len(new) ** 0.5
        and new.mean() >= repeated.mean() / 2
    )
    fell = bool(gone > k * error)
    return (
        "role"
        if there and not fell
        else "both"
        if there
        else "repetition"
        if fell
        else "open"
    )


role_or_repeat = Exercise(
    number="15.6",
    title="Role or repetition?",
    solution=_role_or_repeat,
    cases=_role_cases,
    misconceptions=(
        Misconception(
            "larger wins",
            "You only asked whether attention falls. If most of it stays when nothing "
            "is repeated, the head reads a role as well.",
            lambda a, b, k=2.0: "repetition" if a.mean() > b.mean() else "role",
        ),
        Misconception(
            "any fall is all",
            "You called every fall a sign of repetition. Most of the attention may "
            "have stayed: then it is both.",
            lambda a, b, k=2.0: {"both": "repetition"}.get(
                _role_or_repeat(a, b, k), _role_or_repeat(a, b, k)
            ),
        ),
        Misconception(
            "unpaired errors",
            "You compared two means as if they came from different prompts. Each pair "
            "is one sentence: take the error of the difference, pair by pair.",
            _unpaired,
        ),
        Misconception(
            "no errors",
            "You compared means without their errors. With four prompts and such "
            "noise nothing can be told.",
            lambda a, b, k=2.0: _role_or_repeat(a, b, 0.0),
        ),
        Misconception(
            "spread instead of error",
            "You took the spread over prompts for the error of the mean. The error is "
            "the spread over the root of how many there are.",
            lambda a, b, k=2.0: _role_or_repeat(a, b, k * len(a) ** 0.5),
        ),
    ),
)
