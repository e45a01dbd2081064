"""Distractors, intervals, predictions, repair and the search for failing tails."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ioi_course import adversarial, failures
from ioi_course.adversarial import (
    WHERE,
    WHO,
    Prediction,
    distract,
    distractions,
    extra_position,
)
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.failures import AT_END, cell_scores, observe, search_lowest
from ioi_course.metrics import logit_diff, prob_io
from ioi_course.prompts import IOIDataset, check_aligned
from ioi_course.statistics import auc, bootstrap, rank_correlation, wilson
from ioi_course.templates import TEMPLATES, sample_prompts

INHIBITION, MOVERS = CIRCUIT.roles["S-inhibition"], CIRCUIT.roles["name mover"]


@pytest.fixture(scope="module")
def data(model):
    return IOIDataset(model, 12, seed=13)


def hooks_on(model):
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


# --- prompts ---


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("who", WHO)
def test_a_distractor_names_whom_it_should_and_leaves_the_roles_alone(data, who, where):
    distracted = distract(data, who, where)
    extra = extra_position(distracted)
    for i, (old, new) in enumerate(zip(data, distracted, strict=True)):
        tokens = distracted.str_tokens(i)
        named = tokens[extra[i]].strip()
        assert named == {"IO": new.IO, "S": new.S}.get(who, named)
        assert who != "other" or named not in (new.IO, new.S)
        assert (new.IO, new.S, new.order, new.place, new.object) == (
            old.IO,
            old.S,
            old.order,
            old.place,
            old.object,
        )
        for role, name in (("IO", new.IO), ("S1", new.S), ("S2", new.S), ("END", "to")):
            assert tokens[distracted.pos[role][i]].strip() == name
        words = distracted.prompts[i].replace(",", " ").replace(".", " ").split()
        counts = {"IO": (2, 2), "S": (1, 3), "other": (1, 2)}[who]
        assert (words.count(new.IO), words.count(new.S)) == counts
    assert distracted.answers.equal(data.answers)


def test_the_clause_stands_where_it_says(data):
    spots = {where: extra_position(distract(data, "IO", where)) for where in WHERE}
    roles = {where: distract(data, "IO", where).pos for where in WHERE}
    assert (
        spots["before"] < torch.minimum(roles["before"]["IO"], roles["before"]["S1"])
    ).all()
    assert (
        spots["between"] > torch.maximum(roles["between"]["IO"], roles["between"]["S1"])
    ).all()
    assert (spots["between"] < roles["between"]["S2"]).all()
    assert (roles["last"]["S2"] < spots["last"]).all() and (
        spots["last"] < roles["last"]["END"]
    ).all()


@pytest.mark.parametrize("where", WHERE)
def test_in_one_place_the_prompts_differ_in_one_token(data, where):
    versions = [distract(data, who, where) for who in WHO]
    for other in versions[1:]:
        check_aligned(versions[0], other)
        assert (versions[0].tokens != other.tokens).sum(dim=1).tolist() == [1] * len(
            data
        )


def test_between_the_clauses_is_what_the_counterfactuals_have(data):
    for who, kind in (("IO", "extra_io"), ("S", "extra_s")):
        ready = data.counterfactual(kind)
        assert distract(data, who).prompts == ready.prompts
        assert extra_position(ready).equal(extra_position(distract(data, who)))


def test_third_names_are_seeded(data):
    first, same, other = (
        distract(data, "other", seed=seed).prompts for seed in (1, 1, 2)
    )
    assert first == same and first != other


def test_slices_and_prompts_without_bos_keep_the_extra_position(model, data):
    whole = distract(data, "S", "last")
    assert extra_position(whole[3:5]).equal(extra_position(whole)[3:5])
    bare = distract(IOIDataset(model, 12, seed=13, bos=False), "S", "last")
    assert extra_position(bare).equal(extra_position(whole) - 1)


def test_bad_distractors_are_refused(model, data):
    with pytest.raises(ValueError, match="who is 'io'"):
        distract(data, "io")
    with pytest.raises(ValueError, match="where is 'behind'"):
        distract(data, "IO", "behind")
    with pytest.raises(ValueError, match="counterfactual already"):
        distract(data.counterfactual("abc"), "IO")
    with pytest.raises(ValueError, match="counterfactual already"):
        distract(data.counterfactual("extra_io"), "IO")
    bare = IOIDataset(
        model, 2, templates=["Then [A] and [B] met, and [S] gave the [OBJECT] to"]
    )
    with pytest.raises(ValueError, match=r"goes after \[PLACE\]"):
        distract(bare, "IO", "between")
    assert len(distract(bare, "IO", "last")) == 2
    with pytest.raises(ValueError, match="0 names beside"):
        extra_position(data)
    with pytest.raises(ValueError, match="2 names beside"):
        extra_position(distract(distract(data, "IO", "before"), "S", "last"))
    prompts = IOIDataset.from_prompts(model, [data[0]], names=[data[0].IO, data[0].S])
    with pytest.raises(ValueError, match="no third name"):
        distract(prompts, "other")


# --- intervals and predictions ---


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_values(count, n, low, high):
    assert wilson(count, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_covers_the_rate_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for rate in (0.05, 0.3):
        counts = rng.binomial(60, rate, size=2000)
        inside = [
            low <= rate <= high
            for low, high in (wilson(int(count), 60) for count in counts)
        ]
        assert 0.92 < np.mean(inside) < 0.98


def test_bootstrap_agrees_with_the_standard_error_of_a_mean_and_is_seeded():
    values = torch.randn(
        200, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    low, high = bootstrap(torch.mean, values, draws=2000)
    assert (high - low) / 2 == pytest.approx(
        1.96 * values.std().item() / 200**0.5, rel=0.1
    )
    assert (
        bootstrap(torch.mean, values)
        == bootstrap(torch.mean, values)
        != bootstrap(torch.mean, values, seed=1)
    )
    wide = bootstrap(torch.mean, values, level=0.99)
    assert wide[0] < low and wide[1] > high


def test_bootstrap_draws_prompts_in_pairs():
    x = torch.arange(30.0)
    assert bootstrap(lambda a, b: (a - b).abs().max(), x, x.clone()) == (0.0, 0.0)


def test_bad_input_of_the_statistics():
    for count, n in ((-1, 5), (6, 5), (0, 0), (0.5, 3)):
        with pytest.raises(ValueError, match="whole numbers"):
            wilson(count, n)
    with pytest.raises(ValueError, match="above 0"):
        wilson(1, 2, z=0)
    with pytest.raises(ValueError, match="same prompts"):
        bootstrap(lambda a, b: a.mean(), torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="same prompts"):
        bootstrap(torch.mean, torch.ones(1))
    with pytest.raises(ValueError, match="level"):
        bootstrap(torch.mean, torch.ones(3), level=95)
    with pytest.raises(ValueError, match="not a number"):
        bootstrap(lambda a: math.nan, torch.ones(3))


def test_a_prediction_is_judged_by_the_whole_interval():
    above = Prediction("x", "y", low=0.5)
    assert above.test(0.7, (0.6, 0.8)).verdict == "held"
    assert above.test(0.7, (0.4, 0.8)).verdict == "open"
    assert above.test(0.3, (0.2, 0.4)).verdict == "failed"
    between = Prediction("x", "y", 0, 1)
    spans = {(0.1, 0.9): "held", (-1, 0.5): "open", (0.5, 2): "open", (2, 3): "failed"}
    assert {span: between.test(0.5, span).verdict for span in spans} == spans
    assert (
        Prediction("x", "y", high=1).bounds == "below 1"
        and above.bounds == "above 0.5"
        and between.bounds == "0 to 1"
    )
    row = above.test(0.7, (0.6, 0.8)).row()
    assert list(row.values()) == ["x", "above 0.5", "0.70", "0.60 to 0.80", "held"]


def test_predictions_that_nothing_could_contradict_are_refused():
    with pytest.raises(ValueError, match="contradict"):
        Prediction("x", "y")
    with pytest.raises(ValueError, match="contradict"):
        Prediction("x", "y", 1, 0)
    with pytest.raises(ValueError, match="reason"):
        Prediction("x", "", low=0)
    with pytest.raises(ValueError, match="interval"):
        Prediction("x", "y", low=0).test(1, (2, 1))
    with pytest.raises(ValueError, match="interval"):
        Prediction("x", "y", low=0).test(math.nan, (0, 1))
    with pytest.raises(ValueError, match="interval"):
        Prediction("x", "y", low=0).test(1, (math.nan, math.nan))


def test_rank_correlation_and_auc_by_hand():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(x, x**3) == pytest.approx(1) and rank_correlation(
        x, -x
    ) == pytest.approx(-1)
    # by the formula, with ties
    assert rank_correlation([1, 2, 3, 4], [1, 1, 2, 2]) == pytest.approx(2 / 5**0.5)
    assert math.isnan(rank_correlation(x, torch.ones(4)))
    assert auc([0.9, 0.1, 0.5, 0.5], [1, 0, 0, 1]) == pytest.approx((2 + 1.5) / 4)
    assert auc(x, x > 2) == 1 and auc(-x, x > 2) == 0 and math.isnan(auc(x, x > 9))


def test_auc_is_the_share_of_pairs():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 5, (40,), generator=generator)
    failed = torch.rand(40, generator=generator) < 0.3
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a in scores[failed].tolist()
        for b in scores[~failed].tolist()
    ]
    assert auc(scores, failed) == pytest.approx(sum(pairs) / len(pairs))


def test_bad_input_of_rankings():
    with pytest.raises(ValueError, match="same two or more prompts"):
        rank_correlation(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation([1, math.nan], [1, 2])
    with pytest.raises(ValueError, match="0 or 1"):
        auc([1, 2], [0, 2])


# --- measuring ---


@pytest.fixture(scope="module")
def found(model, data):
    return distractions(model, data, where=("between", "last"), progress=False)


def test_distractions_are_what_the_model_does(model, data, found):
    assert found.diff.shape == (7, 12) and found.conditions[0] == ("nobody", "nowhere")
    for condition, prompts in (
        (("nobody", "nowhere"), data),
        (("IO", "last"), distract(data, "IO", "last")),
        (("other", "between"), distract(data, "other")),
    ):
        logits = model(prompts.tokens)
        assert torch.allclose(
            found.of(*condition),
            logit_diff(logits, prompts, per_prompt=True),
            atol=1e-6,
        )
        assert torch.allclose(
            found.prob[found.conditions.index(condition)],
            prob_io(logits, prompts, per_prompt=True),
        )


def test_table_and_share(found):
    table = found.table()
    usual, late = found.of("nobody", "nowhere"), found.of("IO", "last")
    row = table.loc[("IO", "last")]
    assert row["difference"] == pytest.approx(late.mean().item())
    assert row["change"] == pytest.approx((late - usual).mean().item())
    assert row["its error"] == pytest.approx((late - usual).std().item() / 12**0.5)
    wrong = int((late < 0).sum())
    assert (row["S above IO"], row["low"], row["high"]) == pytest.approx(
        (wrong / 12, *wilson(wrong, 12))
    )
    share, (low, high) = found.share("IO", "last")
    assert (
        share == pytest.approx((late.mean() / usual.mean()).item())
        and low < share < high
    )
    assert "12 prompts" in repr(found) and "12 prompts" in found._repr_html_()
    assert found.plot().table.loc["IO", "last"] == pytest.approx(
        late.mean().item(), abs=0.01
    )


def test_repeating_io_is_what_hurts(found):
    assert (
        found.share("IO")[0] < 0.5
        and found.share("IO", "last")[0] < found.share("IO")[0]
    )
    assert found.share("S")[0] > 0.6 and found.share("other")[0] > 0.75


def test_bad_input_of_distractions(model, data, found):
    with pytest.raises(ValueError, match="at least one"):
        distractions(model, data, who=())
    with pytest.raises(ValueError, match="who is 'X'"):
        distractions(model, data, who=("X",))
    with pytest.raises(ValueError, match="Not measured"):
        found.of("IO", "before")


def test_one_prompt_has_no_error(model, data):
    one = distractions(model, data[:1], ("IO",), ("last",), progress=False)
    assert one.table()["error"].isna().all() and one.table()["difference"].notna().all()


# --- watching and repairing ---


def test_observe_keeps_the_pattern_at_end(model, data):
    prompts = distract(data, "IO")
    seen = observe(model, prompts, INHIBITION)
    logits, cache = model.run_with_cache(prompts.tokens)
    assert torch.allclose(
        seen.diff, logit_diff(logits, prompts, per_prompt=True), atol=1e-6
    )
    extra = extra_position(prompts)
    for j, (layer, head) in enumerate(INHIBITION):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        for i in range(len(prompts)):
            row = pattern[i, head, prompts.pos["END"][i]]
            spots = [
                0,
                *(int(prompts.pos[role][i]) for role in ("IO", "S1", "S2")),
                int(extra[i]),
            ]
            assert torch.allclose(seen.attention[i, j], row[spots])
    assert torch.allclose(
        seen.mean("extra"), seen.attention[:, :, AT_END.index("extra")].mean(dim=1)
    )
    assert (
        seen.table().shape == (4, 5)
        and "L7H3" in repr(seen)
        and "L7H3" in seen._repr_html_()
    )


def test_restoring_is_the_same_by_hand_for_sources_of_other_lengths(model, data):
    prompts, heads = distract(data, "IO", "before"), [(7, 3), (8, 6), (8, 10)]
    mended = observe(model, prompts, MOVERS, source=data, restore=heads)
    _, cache = model.run_with_cache(data.tokens)
    expected = []
    for i in range(len(data)):  # prompt by prompt, without padding
        tokens = prompts.tokens[i : i + 1, : prompts.lengths[i]]

        def put(z, hook, i=i):
            for layer, head in heads:
                if layer == hook.layer():
                    z[0, -1, head] = cache[hook.name][i, data.lengths[i] - 1, head]
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", put) for layer in (7, 8)]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1]
        expected.append(
            (logits[data.answers[i, 0]] - logits[data.answers[i, 1]]).item()
        )
    assert mended.diff.tolist() == pytest.approx(expected, abs=1e-6)


def test_restoring_from_itself_changes_nothing_and_batches_do_not_matter(
    model, data, monkeypatch
):
    prompts, other = distract(data, "IO"), distract(data, "other")
    plain = observe(model, prompts, MOVERS)
    assert torch.allclose(
        observe(model, prompts, MOVERS, source=prompts, restore=INHIBITION).diff,
        plain.diff,
    )
    whole = observe(model, prompts, MOVERS, source=other, restore=INHIBITION)
    monkeypatch.setattr(adversarial, "_batch_size", lambda *_: 5)
    pieces = observe(model, prompts, MOVERS, source=other, restore=INHIBITION)
    assert torch.allclose(pieces.diff, whole.diff) and torch.allclose(
        pieces.attention, whole.attention
    )


def test_s_inhibition_heads_repair_the_answer(model, data, found):
    prompts, other = distract(data, "IO"), distract(data, "other")
    mended = observe(model, prompts, MOVERS, source=other, restore=INHIBITION)
    lost = (found.of("other") - found.of("IO")).mean()
    assert (mended.diff - found.of("IO")).mean() > 0.8 * lost
    background = observe(
        model, prompts, MOVERS, source=other, restore=[(7, 0), (7, 1), (8, 0), (8, 1)]
    )
    assert (background.diff - found.of("IO")).mean().abs() < 0.1 * lost


def test_hooks_are_off_after_an_error(model, data, monkeypatch):
    prompts, calls = distract(data, "IO"), []

    def broken(*arguments):
        calls.append(arguments)
        # the source has run (up to its last activation), the hooks are on
        if len(calls) == 1:
            assert hooks_on(model) > before
            raise RuntimeError("stop")
        return original(*arguments)

    before, original = hooks_on(model), failures._forward
    monkeypatch.setattr(failures, "_forward", broken)
    with pytest.raises(RuntimeError, match="stop"):
        observe(model, prompts, MOVERS, source=data, restore=INHIBITION)
    assert len(calls) == 1 and hooks_on(model) == before


def test_bad_input_of_observe(model, data):
    prompts = distract(data, "IO")
    with pytest.raises(ValueError, match="There is no head"):
        observe(model, prompts, [(12, 0)])
    with pytest.raises(ValueError, match="heads is empty"):
        observe(model, prompts, [])
    with pytest.raises(ValueError, match="There is no head"):
        observe(model, prompts, MOVERS, source=data, restore=[(0, 12)])
    for arguments in ({"source": data}, {"restore": INHIBITION}):
        with pytest.raises(ValueError, match="give both"):
            observe(model, prompts, MOVERS, **arguments)
    with pytest.raises(ValueError, match="in pairs"):
        observe(model, prompts, MOVERS, source=data[:3], restore=INHIBITION)
    with pytest.raises(ValueError, match="0 names beside"):
        observe(model, data, MOVERS)
    with pytest.raises(ValueError, match="place is 'S3'"):
        observe(model, prompts[:2], MOVERS).mean("S3")
    with pytest.raises(TypeError, match="IOIDataset"):
        observe(model, prompts.tokens, MOVERS)


def test_without_bos_there_is_no_attention_to_it(model):
    bare = distract(IOIDataset(model, 3, seed=1, bos=False), "IO")
    seen = observe(model, bare, MOVERS)
    assert (
        seen.attention[:, :, 0].isnan().all()
        and not seen.attention[:, :, 1:].isnan().any()
    )


# --- searching ---


def test_cell_scores_are_logit_differences(model):
    contexts = sample_prompts(3, seed=2)
    cells = [("Mary", "John", TEMPLATES[3]), ("Dan", "Amy", "")]
    scores = cell_scores(model, cells, contexts)
    for i, (io, s, template) in enumerate(cells):
        records = [
            replace(c, IO=io, S=s, template=template or c.template) for c in contexts
        ]
        prompts = IOIDataset.from_prompts(model, records)
        expected = logit_diff(model(prompts.tokens), prompts, per_prompt=True)
        assert torch.allclose(scores[i], expected, atol=1e-6)


@pytest.fixture(scope="module")
def search(model):
    return search_lowest(
        model, tries=6, contexts=2, width=5, keep=3, fresh=4, seed=1, progress=False
    )


def test_search_goes_down_and_measures_afresh(model, search):
    assert search.tried["how"].value_counts().to_dict() == {
        "random": 6,
        "IO": 5,
        "S": 5,
        "template": 15,
    }
    table = search.table()
    assert (
        table["in search"].tolist() == sorted(search.tried["mean"])[:3]
        and table["in search"].is_monotonic_increasing
    )
    assert table["in search"][0] <= search.scores.mean(dim=1).min()
    assert search.fresh.shape == (3, 4) and search.scores.shape == (6, 2)
    assert table["afresh"].tolist() == pytest.approx(search.fresh.mean(dim=1).tolist())
    assert (
        "lowest of 31 cells" in repr(search)
        and "lowest of 31 cells" in search._repr_html_()
    )


def test_fresh_contexts_are_not_those_of_the_search(model, monkeypatch):
    seen = []

    def spy(model, cells, contexts, memory=0.5):
        seen.append(list(contexts))
        return original(model, cells, contexts, memory)

    original = failures.cell_scores
    monkeypatch.setattr(failures, "cell_scores", spy)
    search_lowest(
        model,
        tries=2,
        contexts=2,
        width=1,
        keep=1,
        fresh=3,
        templates=TEMPLATES[:2],
        progress=False,
    )
    assert all(contexts == seen[0] for contexts in seen[:-1]) and not set(
        seen[-1]
    ) & set(seen[0])


def test_one_part_changes_at_a_time(search):
    best = None
    rows = list(search.tried.itertuples(index=False))
    for how, part in (("IO", 0), ("S", 1), ("template", 2)):
        at = next(i for i, row in enumerate(rows) if row.how == how)
        best = min(rows[:at], key=lambda row: row.mean)
        for row in (row for row in rows if row.how == how):
            changed = [a != b for a, b in zip(row[:3], best[:3], strict=True)]
            assert changed == [i == part for i in range(3)]


def test_search_is_seeded(model, search):
    again = search_lowest(
        model, tries=6, contexts=2, width=5, keep=3, fresh=4, seed=1, progress=False
    )
    assert again.tried.equals(search.tried) and again.fresh.equal(search.fresh)


def test_bad_input_of_the_search(model):
    for name in ("tries", "contexts", "width", "rounds", "keep", "fresh"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            search_lowest(model, **{name: 0})
    with pytest.raises(ValueError, match="contexts is 1"):
        search_lowest(model, contexts=1)
    with pytest.raises(ValueError, match="tries is True"):
        search_lowest(model, tries=True)
    with pytest.raises(ValueError, match="three or more"):
        search_lowest(model, names=("Mary", "John"))
    with pytest.raises(ValueError, match="needs templates with"):
        search_lowest(
            model, templates=["Then [A] and [B] met, and [S] gave the [OBJECT] to"]
        )
    with pytest.raises(ValueError, match="cells is empty"):
        cell_scores(model, [], sample_prompts(2))
    with pytest.raises(ValueError, match="A cell is a tuple"):
        cell_scores(model, [("Mary", "John")], sample_prompts(2))
    with pytest.raises(ValueError, match="contexts is empty"):
        cell_scores(model, [("Mary", "John", "")], [])
