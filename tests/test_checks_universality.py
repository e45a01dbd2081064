"""The checks of chapter 14: wrong answers as a student would write them are
recognised, right ones pass."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from ioi_course.checks.universality import (
    first_depth,
    handover,
    parting_template,
    renumbered_distance,
    shared_edges,
)

# --- 14.1 ---


def first_crossing(at_s2, at_end):
    for layer in range(len(at_s2)):
        if at_end[layer] > at_s2[layer]:
            return layer
    return len(at_s2)


def a_half(at_s2, at_end):
    layer = len(at_end)
    while layer and at_end[layer - 1] > 0.5:
        layer -= 1
    return layer


def one_early(at_s2, at_end):
    layer = len(at_end) - 1
    while layer >= 0 and at_end[layer] > at_s2[layer]:
        layer -= 1
    return layer


def widest(at_s2, at_end):
    return np.argmax((at_end - at_s2).numpy())


def not_less(at_s2, at_end):
    layer = len(at_end)
    while layer > 0 and at_end[layer - 1] >= at_s2[layer - 1]:
        layer -= 1
    return layer


def wraps_around(at_s2, at_end):
    answer = len(at_end)
    while answer > 0 and at_end[answer - 1] > at_s2[answer - 1]:
        answer = answer - 1
    return 0 if answer == len(at_end) else answer


def handed_over(at_s2, at_end):
    for layer in range(len(at_s2) + 1):
        if all(end > s2 for s2, end in zip(at_s2[layer:], at_end[layer:], strict=True)):
            return layer


# --- 14.2 ---


def by_count_of_layers(wiki, kind, threshold):
    out = {}
    for model in wiki["model"].unique():
        part = wiki[wiki["model"] == model]
        layers = [row["layer"] for _, row in part.iterrows() if row[kind] >= threshold]
        out[model] = min(layers) / part["layer"].nunique() if layers else float("nan")
    return out


def plain_layer(wiki, kind, threshold):
    good = wiki[wiki[kind] >= threshold].groupby("model")["layer"].min()
    return {model: float(good.get(model, np.nan)) for model in wiki["model"].unique()}


def strictly_above(wiki, kind, threshold):
    good = wiki[wiki[kind] > threshold].groupby("model")["layer"].min()
    return {
        model: good.get(model, np.nan) / part["layer"].max()
        for model, part in wiki.groupby("model")
    }


def of_the_deepest(wiki, kind, threshold):
    return {
        model: layer / wiki["layer"].max()
        for model, layer in plain_layer(wiki, kind, threshold).items()
    }


def of_the_best(wiki, kind, threshold):
    out = {}
    for model, part in wiki.reset_index().groupby("model"):
        best = part.loc[part[kind].idxmax()]
        out[model] = (
            best["layer"] / part["layer"].max() if best[kind] >= threshold else np.nan
        )
    return out


def of_the_last(wiki, kind, threshold):
    good = wiki[wiki[kind] >= threshold]
    last, deepest = (
        good.groupby("model")["layer"].max(),
        wiki.groupby("model")["layer"].max(),
    )
    return {model: last.get(model, np.nan) / deepest[model] for model in deepest.index}


def only_where_found(wiki, kind, threshold):
    good = wiki[wiki[kind] >= threshold]
    return (
        (good.groupby("model")["layer"].min() / wiki.groupby("model")["layer"].max())
        .dropna()
        .to_dict()
    )


def depth_of_first(wiki, kind, threshold):
    deepest = wiki.groupby("model")["layer"].max()
    first = (
        wiki[wiki[kind] >= threshold]
        .groupby("model")["layer"]
        .min()
        .reindex(deepest.index)
    )
    return dict(first / deepest)


# --- 14.3 ---


def same_number(a, b):
    return abs(a - b).mean()


def anywhere(a, b):
    return np.abs(np.sort(a.numpy().ravel()) - np.sort(b.numpy().ravel())).mean()


def wrong_axis(a, b):
    return np.abs(np.sort(a.numpy(), axis=0) - np.sort(b.numpy(), axis=0)).mean()


def nearest(a, b):
    total = 0
    for layer in range(len(a)):
        for head in range(a.shape[1]):
            total += min(
                abs(a[layer, head] - b[layer, other]) for other in range(a.shape[1])
            )
    return total / a.numel()


def means(a, b):
    return abs(a.mean(dim=1) - b.mean(dim=1)).mean().item()


def tried_out(a, b):
    """All renumberings, the best for each layer."""
    best = []
    for one, other in zip(a, b, strict=True):
        best.append(
            min(
                (one - other[list(order)]).abs().mean()
                for order in permutations(range(len(one)))
            )
        )
    return sum(best) / len(best)


# --- 14.4 ---


def edges(table, threshold, signed=True, of=abs):
    found = set()
    for row in table.index:
        for column in table.columns:
            if of(table.loc[row, column]) >= threshold:
                found.add((row, column, table.loc[row, column] > 0 if signed else None))
    return found


def jaccard(one, other):
    return len(one & other) / len(one | other) if one | other else float("nan")


def shared(first, second, threshold):
    return jaccard(edges(first, threshold), edges(second, threshold))


def unsigned(first, second, threshold):
    return jaccard(
        edges(first, threshold, signed=False), edges(second, threshold, signed=False)
    )


def strictly_stronger(first, second, threshold):
    return jaccard(*(edges(table, threshold + 1e-9) for table in (first, second)))


def only_positive(first, second, threshold):
    return jaccard(
        edges(first, threshold, of=float), edges(second, threshold, of=float)
    )


def by_place(first, second, threshold):
    return shared(
        first, pd.DataFrame(second.to_numpy(), first.index, first.columns), threshold
    )


def of_the_first(first, second, threshold):
    one = edges(first, threshold)
    return len(one & edges(second, threshold)) / len(one) if one else np.nan


def of_both_sums(first, second, threshold):
    one, other = edges(first, threshold), edges(second, threshold)
    return len(one & other) / (len(one) + len(other)) if one or other else np.nan


def with_absent(first, second, threshold):
    one, other = edges(first, threshold), edges(second, threshold)
    unlike = len(one | other) - len(one & other)
    return 1 - unlike / first.size if one | other else np.nan


# --- 14.5 ---


def words_before_end(plain):
    return plain.replace("[OBJECT] to", "[OBJECT] in the morning to")


def no_name_comes(plain):
    return plain + " the"


def some_other_one(plain):
    return "When [A] and [B] met near the [PLACE], [S] gave the [OBJECT] to"


def later_and_other(plain):
    return (
        "It was late in the morning. When [A] and [B] met near the [PLACE], [S] gave "
        "the [OBJECT] to"
    )


def other_and_no_name(plain):
    return "When [A] and [B] met near the [PLACE], [S] gave the"


def lower_case_and_later(plain):
    return "In the morning it was late. " + plain[0].lower() + plain[1:]


WRONG = [
    (handover, first_crossing, "first crossing taken for the last"),
    (handover, a_half, "compared with a half instead of with S2"),
    (handover, one_early, "last layer before instead of first after"),
    (handover, widest, "largest gap"),
    (handover, not_less, "a tie counted as more"),
    (handover, wraps_around, "never taken for always"),
    (first_depth, by_count_of_layers, "divided by the number of layers"),
    (first_depth, plain_layer, "layer instead of depth"),
    (first_depth, of_the_deepest, "one depth scale for all models"),
    (first_depth, strictly_above, "the threshold itself left out"),
    (first_depth, of_the_best, "best head instead of the first"),
    (first_depth, of_the_last, "last head instead of the first"),
    (first_depth, only_where_found, "models without such a head dropped"),
    (renumbered_distance, same_number, "heads compared by number"),
    (renumbered_distance, anywhere, "heads moved to other layers"),
    (renumbered_distance, wrong_axis, "layers renumbered instead of heads"),
    (renumbered_distance, nearest, "nearest head taken twice"),
    (renumbered_distance, means, "difference of the means"),
    (shared_edges, unsigned, "sign ignored"),
    (shared_edges, strictly_stronger, "the threshold itself left out"),
    (shared_edges, only_positive, "negative effects forgotten"),
    (shared_edges, by_place, "rows compared by place"),
    (shared_edges, of_the_first, "share of the first model's edges"),
    (shared_edges, of_both_sums, "shared edges counted twice"),
    (shared_edges, with_absent, "absent edges counted as shared"),
    (parting_template, words_before_end, "both explanations expect the same"),
    (parting_template, no_name_comes, "the task is gone"),
    (parting_template, some_other_one, "another sentence"),
    (parting_template, later_and_other, "more than the place was changed"),
    (parting_template, other_and_no_name, "another sentence, and the task is gone"),
]


@pytest.mark.parametrize(
    "exercise, answer, name", WRONG, ids=[name for *_, name in WRONG]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_answers_are_recognised(exercise, answer, name, seed):
    verdict = exercise(answer, seed=seed)
    assert not verdict.passed and verdict.misconception == name, verdict


@pytest.mark.parametrize(
    "exercise, answer",
    [
        (handover, handed_over),
        (first_depth, depth_of_first),
        (renumbered_distance, tried_out),
        (shared_edges, shared),
        (parting_template, lower_case_and_later),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_right_answers_pass(exercise, answer, seed):
    verdict = exercise(answer, seed=seed)
    assert verdict.passed, verdict
