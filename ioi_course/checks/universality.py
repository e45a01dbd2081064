"""The checks of chapter 14: handover, depths, distances up to renumbering, shared
edges, and prompts that tell apart."""

import random
import re
from functools import cache

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.metrics import accuracy
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
from ioi_course.templates import TEMPLATES

__all__ = [
    "handover",
    "first_depth",
    "renumbered_distance",
    "shared_edges",
    "parting_template",
]


def _curves(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Shares of the effect at S2 and at END by layer: some cross once, some go
    back, some never cross."""
    g = torch.Generator().manual_seed(seed)
    noise = lambda n: 0.04 * torch.rand(n, generator=g, dtype=torch.float64)  # noqa: E731
    at_end = [
        [0, 0, 0.2, 0.7, 0.9, 1],
        [0, 0.7, 0.2, 0.3, 0.8, 0.9, 1],  # crosses, goes back, crosses for good
        [0, 0.1, 0.2, 0.3],  # never
        [0, 0.1, 0.4, 0.45, 0.9],  # above S2 before it is above a half
        [0.8, 0.9, 1.0],  # from the beginning
    ]
    at_s2 = [
        [1, 1, 0.8, 0.3, 0.1, 0],
        [1, 0.4, 0.8, 0.7, 0.2, 0.1, 0],
        [1, 0.9, 0.8, 0.7],
        [1, 0.8, 0.2, 0.1, 0],
        [0.2, 0.1, 0.0],
    ]
    pairs = [
        [torch.tensor(curve, dtype=torch.float64) for curve in pair]
        for pair in zip(at_s2, at_end, strict=True)
    ]
    made = [(s2 + noise(len(s2)), end + noise(len(end))) for s2, end in pairs]
    s2, end = (curve.clone() for curve in made[0])
    end[2] = s2[2]  # as much as S2 has is not more; in the next layer END is ahead
    return [*made, (s2, end)]


def _handover(at_s2: Float[Tensor, "layer"], at_end: Float[Tensor, "layer"]) -> int:
    behind = (at_end <= at_s2).nonzero().flatten()
    return int(behind[-1]) + 1 if len(behind) else 0


def _first(condition: Tensor) -> int:
    return int(condition.nonzero()[0]) if condition.any() else len(condition)


handover = Exercise(
    number="14.1",
    title="The handover",
    solution=_handover,
    cases=_curves,
    misconceptions=(
        Misconception(
            "first crossing taken for the last",
            "In one of the cases END is ahead for one layer, and then S2 again. You "
            "stop at the first time.",
            lambda at_s2, at_end: _first(at_end > at_s2),
        ),
        Misconception(
            "compared with a half instead of with S2",
            "You ask when END has more than half of the effect. Asked is when it has "
            "more than S2 has.",
            lambda at_s2, at_end: _handover(torch.full_like(at_end, 0.5), at_end),
        ),
        Misconception(
            "last layer before instead of first after",
            "You return the last layer at which S2 is still ahead. One more.",
            lambda at_s2, at_end: _handover(at_s2, at_end) - 1,
        ),
        Misconception(
            "a tie counted as more",
            "In one layer of one case END has exactly as much as S2. Asked is where "
            "it has more.",
            lambda at_s2, at_end: _handover(at_s2 - 1e-12, at_end),
        ),
        Misconception(
            "largest gap",
            "You return the layer at which END is farthest ahead, which comes later "
            "than the handover.",
            lambda at_s2, at_end: int((at_end - at_s2).argmax()),
        ),
        Misconception(
            "never taken for always",
            "Where END never overtakes S2 the answer is the number of layers: no "
            "layer of this model.",
            lambda at_s2, at_end: _handover(at_s2, at_end) % len(at_s2),
        ),
    ),
)


def _made_wiki(
    sizes: dict[str, tuple[int, int]], rng: np.random.Generator
) -> pd.DataFrame:
    rows = [
        {
            "layer": layer,
            "head": head,
            "previous": rng.uniform(),
            "induction": rng.uniform() ** 2,
            "model": name,
        }
        for name, (layers, heads) in sizes.items()
        for layer in range(layers)
        for head in range(heads)
    ]
    names = [f"L{row['layer']}H{row['head']}" for row in rows]
    return pd.DataFrame(rows, index=pd.Index(names, name="name"))


def _wikis(seed: int) -> list[tuple[pd.DataFrame, str, float]]:
    rng = np.random.default_rng(seed)
    sizes = {"zeta": (12, 4), "alpha": (6, 8), "deep": (24, 2)}
    wikis = [_made_wiki(sizes, rng) for _ in range(3)]
    # nothing in the first layer, so that the first head is not at depth 0 everywhere
    for wiki in wikis:
        wiki.loc[wiki["layer"] < 2, ["previous", "induction"]] *= 0.3
        wiki.loc[(wiki["model"] == "deep") & (wiki["layer"] == 17), "induction"] = 0.99
    # one model has no such head
    wikis[1].loc[wikis[1]["model"] == "alpha", "induction"] *= 0.5
    late = wikis[2]["layer"] == wikis[2].groupby("model")["layer"].transform("max")
    wikis[2].loc[~late, "induction"] *= 0.4  # only in the last layer
    wikis[2].loc[late, "induction"] = 0.6
    wikis[0].loc[
        (wikis[0]["model"] == "zeta") & (wikis[0]["layer"] == 2), "previous"
    ] = 0.7  # no more and no less
    return [
        (wiki, kind, threshold)
        for wiki in wikis
        for kind, threshold in (("induction", 0.55), ("previous", 0.7))
    ]


def _depths(
    wiki: pd.DataFrame, kind: str, threshold: float, choose="min", last=1, strict=True
) -> dict[str, float]:
    depths = {}
    for name, rows in wiki.groupby("model", sort=False):
        good = rows[rows[kind] >= threshold]
        if len(good) or strict:
            depths[name] = getattr(good["layer"], choose)() / (
                rows["layer"].max() + 1 - last
            )
    return depths


def _best_depth(wiki: pd.DataFrame, kind: str, threshold: float) -> dict[str, float]:
    depths = _depths(wiki, kind, threshold)
    for name, rows in wiki.groupby("model", sort=False):
        if depths[name] == depths[name]:
            top = rows.iloc[int(rows[kind].to_numpy().argmax())]
            depths[name] = top["layer"] / rows["layer"].max()
    return depths


first_depth = Exercise(
    number="14.4",
    title="Depth of the first head",
    solution=_depths,
    cases=_wikis,
    misconceptions=(
        Misconception(
            "divided by the number of layers",
            "The last layer of a model has depth 1, so the divisor is the number of "
            "its last layer.",
            lambda wiki, kind, threshold: _depths(wiki, kind, threshold, last=0),
        ),
        Misconception(
            "layer instead of depth",
            "You return numbers of layers. Layer 5 is the middle of one model and the "
            "end of another.",
            lambda wiki, kind, threshold: {
                name: depth * wiki.loc[wiki["model"] == name, "layer"].max()
                for name, depth in _depths(wiki, kind, threshold).items()
            },
        ),
        Misconception(
            "one depth scale for all models",
            "You divide by the last layer of the deepest model. Each model has its "
            "own depth.",
            lambda wiki, kind, threshold: {
                name: depth
                * wiki.loc[wiki["model"] == name, "layer"].max()
                / wiki["layer"].max()
                for name, depth in _depths(wiki, kind, threshold).items()
            },
        ),
        Misconception(
            "the threshold itself left out",
            "A head whose score is exactly the threshold counts: asked is *at least*.",
            lambda wiki, kind, threshold: _depths(
                wiki, kind, np.nextafter(threshold, 2)
            ),
        ),
        Misconception(
            "best head instead of the first",
            "You take the head with the highest score. Asked is the first that "
            "reaches the threshold.",
            _best_depth,
        ),
        Misconception(
            "last head instead of the first",
            "You take the last layer with such a head, not the first.",
            lambda wiki, kind, threshold: _depths(wiki, kind, threshold, choose="max"),
        ),
        Misconception(
            "models without such a head dropped",
            "A model in which no head reaches the threshold is a finding, too: keep "
            "it, with NaN.",
            lambda wiki, kind, threshold: _depths(wiki, kind, threshold, strict=False),
        ),
    ),
)


def _pairs(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Score maps of two models of one shape; the second is in part the first with
    its heads renumbered."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for layers, heads, mix in [
        (3, 4, 1.0),
        (5, 2, 0.5),
        (2, 6, 0.8),
        (4, 4, 0.0),
        (1, 3, 0.7),
    ]:
        a, other = torch.rand(2, layers, heads, generator=g, dtype=torch.float64) ** 2
        order = torch.stack([torch.randperm(heads, generator=g) for _ in range(layers)])
        made.append((a, (1 - mix) * a.gather(1, order) + mix * other))
    return made


def _sorted_distance(
    a: Float[Tensor, "layer head"], b: Float[Tensor, "layer head"]
) -> Float[Tensor, ""]:
    return (a.sort(dim=1).values - b.sort(dim=1).values).abs().mean()


renumbered_distance = Exercise(
    number="14.5",
    title="Distance up to renumbering",
    solution=_sorted_distance,
    cases=_pairs,
    misconceptions=(
        Misconception(
            "heads compared by number",
            "You compare head 0 with head 0. Nothing but the order in which the "
            "weights were drawn gave it that number.",
            lambda a, b: (a - b).abs().mean(),
        ),
        Misconception(
            "heads moved to other layers",
            "You let heads change their layer, too. A head can be renumbered within "
            "its layer only: the next layer reads what it wrote.",
            lambda a, b: (
                (a.flatten().sort().values - b.flatten().sort().values).abs().mean()
            ),
        ),
        Misconception(
            "layers renumbered instead of heads",
            "You sort along the wrong axis: layers have an order, heads of a layer "
            "have none.",
            lambda a, b: (a.sort(dim=0).values - b.sort(dim=0).values).abs().mean(),
        ),
        Misconception(
            "one renumbering for all layers",
            "You order all layers by the same renumbering. Each layer of heads "
            "has its own.",
            lambda a, b: (
                (a[:, a.mean(0).argsort()] - b[:, b.mean(0).argsort()]).abs().mean()
            ),
        ),
        Misconception(
            "nearest head taken twice",
            "You compare each head with the nearest one of the other model, which may "
            "serve several heads at once. A renumbering uses each head once.",
            lambda a, b: (a[:, :, None] - b[:, None, :]).abs().amin(dim=2).mean(),
        ),
        Misconception(
            "difference of the means",
            "You compare the layers' means, in which large and small scores cancel.",
            lambda a, b: (a.mean(1) - b.mean(1)).abs().mean(),
        ),
    ),
)


_CLASSES = (
    "duplicate token",
    "induction",
    "S-inhibition",
    "name mover",
    "negative name mover",
)


def _edges(seed: int) -> list[tuple[pd.DataFrame, pd.DataFrame, float]]:
    """Effects of paths between classes in two models: rows in another order, some
    effects of the other sign."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(5):
        a = pd.DataFrame(rng.normal(0, 0.3, (5, 5)), _CLASSES, _CLASSES)
        same = rng.uniform(size=(5, 5)) < 0.5
        b = a.where(same, rng.normal(0, 0.3, (5, 5)))
        b.iloc[0] = -a.iloc[0]
        made.append(
            (a, b.loc[rng.permutation(_CLASSES), rng.permutation(_CLASSES)], 0.2)
        )
        both = a.index[1], a.columns[1 + len(made) % 4]
        # exactly as strong as the threshold
        made[-1][0].loc[both], made[-1][1].loc[both] = (0.2, 0.2)
    few = pd.DataFrame(0.01, _CLASSES[:2], _CLASSES)
    made.append((few, few.iloc[::-1], 0.2))
    return made


def _signs(effects: pd.DataFrame, threshold: float) -> pd.DataFrame:
    return np.sign(effects).where(effects.abs() >= threshold, 0)


def _shares(
    first: pd.DataFrame, second: pd.DataFrame, threshold: float
) -> tuple[float, float, float, float]:
    """Edges of both, of either, of the first, and how many places there are."""
    a = _signs(first, threshold)
    b = _signs(second, threshold).loc[first.index, first.columns]
    both = ((a == b) & (a != 0)).to_numpy().sum()
    return (
        both,
        (a != 0).to_numpy().sum() + (b != 0).to_numpy().sum() - both,
        (a != 0).to_numpy().sum(),
        a.size,
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _shared(first: pd.DataFrame, second: pd.DataFrame, threshold: float) -> float:
    both, either, _, _ = _shares(first, second, threshold)
    return _ratio(both, either)


shared_edges = Exercise(
    number="14.3",
    title="Shared edges",
    solution=_shared,
    cases=_edges,
    misconceptions=(
        Misconception(
            "sign ignored",
            "You count an edge as shared although it raises the logit difference in "
            "one model and lowers it in the other.",
            lambda first, second, threshold: _shared(
                first.abs(), second.abs(), threshold
            ),
        ),
        Misconception(
            "the threshold itself left out",
            "An effect of exactly the threshold's size is an edge: asked is "
            "*at least*.",
            lambda first, second, threshold: _shared(
                first, second, np.nextafter(threshold, 2)
            ),
        ),
        Misconception(
            "negative effects forgotten",
            "You ask for effects above the threshold. A path that carries the answer "
            "has a negative effect when it is cut.",
            lambda first, second, threshold: _shared(
                first.clip(lower=0), second.clip(lower=0), threshold
            ),
        ),
        Misconception(
            "rows compared by place",
            "The two tables list their classes in different orders, and you compare "
            "the first row with the first row.",
            lambda first, second, threshold: _shared(
                first,
                second.set_axis(first.index).set_axis(first.columns, axis=1),
                threshold,
            ),
        ),
        Misconception(
            "share of the first model's edges",
            "You divide by the first model's edges, so a second model that has every "
            "edge would share all of them. Divide by the edges that either has.",
            lambda first, second, threshold: _ratio(
                _shares(first, second, threshold)[0],
                _shares(first, second, threshold)[2],
            ),
        ),
        Misconception(
            "absent edges counted as shared",
            "You count the places where neither model has an edge. With a high enough "
            "threshold any two models agree so.",
            lambda first, second, threshold: (
                float("nan")
                if not _shares(first, second, threshold)[1]
                else 1
                - (
                    _shares(first, second, threshold)[1]
                    - _shares(first, second, threshold)[0]
                )
                / _shares(first, second, threshold)[3]
            ),
        ),
        Misconception(
            "shared edges counted twice",
            "You divide by the edges of the first plus those of the second, in which "
            "a shared edge is counted twice.",
            lambda first, second, threshold: _ratio(
                _shares(first, second, threshold)[0],
                sum(_shares(first, second, threshold)[:2]),
            ),
        ),
    ),
)


@cache
def _model(name: str):
    return load_model(name)


@cache
def _right(template: str, name: str) -> str:
    """How one of the two models fares on prompts of this template."""
    data = IOIDataset(_model(name), 24, seed=14, templates=[template])
    with torch.no_grad():
        share = accuracy(_model(name)(data.tokens), data)
    return "right" if share >= 0.85 else "not right"


def _words(template: str) -> list[str]:
    return re.findall(r"\[\w+\]|\w+|[^\w\s]", template.lower())


def _parted(template: str, plain: str) -> dict[str, str]:
    """What a template does to the two models, and whether words were only
    added to the plain one."""
    if not isinstance(template, str):
        raise TypeError(
            "return a template, a text with the slots of the plain one, not a "
            f"{type(template).__name__}"
        )
    rest = iter(_words(template))
    return {
        "synthetic, which goes by repetition": _right(template, "synthetic"),
        "tiny, which goes by place": _right(template, "tiny"),
        "the sentence is still there": "yes"
        if all(word in rest for word in _words(plain))
        else "no",
    }


def _plain_templates(seed: int) -> list[tuple[str]]:
    usable = [each for each in TEMPLATES if not each.startswith("It was late")]
    return [(template,) for template in random.Random(seed).sample(usable, 3)]


def _in_front(plain: str, words: str = "It was late in the morning.") -> str:
    return f"{words} {plain}"


def _another(plain: str) -> str:
    return TEMPLATES[(TEMPLATES.index(plain) + 1) % len(TEMPLATES)]


parting_template = Exercise(
    number="14.2",
    title="Tell two mechanisms apart",
    solution=_in_front,
    cases=_plain_templates,
    outcome=_parted,
    misconceptions=(
        Misconception(
            "both explanations expect the same",
            "Both models are right on your prompts, so these prompts cannot tell them "
            "apart. Where is S2 in them, counted from the beginning, and where was it "
            "in the plain ones?",
            lambda plain: plain,
        ),
        Misconception(
            "the task is gone",
            "Neither model is right. What comes after your prompts is no longer a "
            "name, or not that of one who gets something, so nothing follows about how "
            "a name is chosen.",
            lambda plain: f"{plain} the",
        ),
        Misconception(
            "another sentence",
            "Both models are right, and the sentence is another one. Keep the plain "
            "sentence whole; add to it.",
            _another,
        ),
        Misconception(
            "more than the place was changed",
            "The two models differ on your prompts, but the sentence is another one, "
            "too. Which of the two changes did it? Keep the plain sentence whole, and "
            "add words only.",
            lambda plain: _in_front(_another(plain)),
        ),
        Misconception(
            "another sentence, and the task is gone",
            "Neither model is right, and the sentence is not the plain one. Keep it "
            "whole and its ending, too.",
            lambda plain: f"{_another(plain)} the",
        ),
    ),
)
