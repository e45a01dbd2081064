"""What S-inhibition carries: sources and their signals, patched runs against plain
hooks, fits, and bad input."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ioi_course import inhibition
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model
from ioi_course.inhibition import (
    KEYS,
    PARTS,
    attention_path,
    end_attention,
    patch_heads,
    published_heads,
)
from ioi_course.metrics import logit_diff
from ioi_course.patching import sweep
from ioi_course.paths import path_patch
from ioi_course.prompts import IOIDataset
from ioi_course.reference import published
from ioi_course.signals import (
    LEVELS,
    POSITIONS,
    TOKENS,
    fit_signals,
    signal_source,
    signal_table,
    signals,
    split_signals,
)

INHIBITION, MOVERS = CIRCUIT.roles["S-inhibition"], CIRCUIT.roles["name mover"]
READERS = sorted(
    head
    for role, heads in CIRCUIT.roles.items()
    if role.endswith("name mover")
    for head in heads
)
HEADS, LATER = [(0, 1), (1, 0), (1, 3)], [(2, 0), (2, 3)]  # of the random model
QUIET = {"progress": False}


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def small():
    return random_model(0)


@pytest.fixture(scope="module")
def few(small):
    return random_data(small, 6, seed=3)


@pytest.fixture(scope="module")
def data(model):
    return IOIDataset(model, 32, seed=0)


@pytest.fixture(scope="module")
def cells(model, data):
    return signal_table(model, data, **QUIET)


def hooks_on(model) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


def in_front(words, record):
    return replace(
        record, template=words + record.template[0].lower() + record.template[1:]
    )


# --- sources ---


def by_hand(data, source, i):
    """Position and token signal of one pair of prompts, from the words."""
    words = source.tokens[i, : source.lengths[i]].tolist()
    said = words[source.pos["S2"][i]]
    first = words.index(said)
    io, s = data.answers[i].tolist()
    where = {data.pos["S1"][i].item(): 1, data.pos["IO"][i].item(): -1}
    return where.get(first, 0), {s: 1, io: -1}.get(said, 0)


@pytest.mark.parametrize(("position", "token"), product(LEVELS, LEVELS))
def test_each_source_has_the_signals_it_is_named_after(tokenizer, position, token):
    for data in (
        IOIDataset(tokenizer, 24, seed=5),
        IOIDataset.demo(tokenizer),
        IOIDataset(tokenizer, 5, bos=False),
    ):
        source = signal_source(data, position, token, seed=2)
        found = signals(data, source)
        expected = [LEVELS[position], LEVELS[token]]
        for i in range(len(data)):
            assert (
                found[["position", "token"]].iloc[i].tolist()
                == expected
                == list(by_hand(data, source, i))
            )
        assert (found["distance"] == LEVELS[position]).all()
        if position != "random":
            assert (found["order"] == LEVELS[position]).all()
            changed = (data.tokens != source.tokens).sum(dim=1)
            assert [r.template for r in data] == [
                r.template for r in source
            ] and changed.max() <= 3
        else:
            assert found["order"].abs().eq(1).all()


def test_what_each_counterfactual_says(tokenizer):
    data = IOIDataset(tokenizer, 12, seed=1)
    expected = {"swap_subject": (-1, -1), "swap_names": (-1, 1), "random_names": (1, 0)}
    for kind, levels in expected.items():
        found = signals(data, data.counterfactual(kind))
        assert tuple(found[["position", "token"]].mean()) == levels
    assert signals(data, data.counterfactual("abc")).isna().all(axis=None)
    assert (signals(data, data) == 1).all(axis=None)


def test_words_in_front_move_the_position_alone(tokenizer):
    data = IOIDataset(tokenizer, 12, seed=1)
    moved = [in_front("Well, it was on that day, and ", record) for record in data]
    found = signals(data, IOIDataset.from_prompts(tokenizer, moved)).mean()
    assert found.tolist() == [0, 1, 1, 1]


def test_a_source_is_the_same_for_the_same_seed_and_may_have_no_slots(tokenizer):
    data = IOIDataset(
        tokenizer, 6, templates=["Then [A] and [B] ate, and [S] spoke to"], seed=4
    )
    one, again, other = (
        signal_source(data, "random", "random", seed) for seed in (0, 0, 1)
    )
    assert one.prompts == again.prompts != other.prompts
    assert (signals(data, one)["position"] == 0).all()


def test_bad_sources(tokenizer, few, monkeypatch):
    data = IOIDataset(tokenizer, 2)
    with pytest.raises(
        ValueError, match="position is 'flipped'; give 'kept', 'random', 'inverted'"
    ):
        signal_source(data, "flipped")
    with pytest.raises(ValueError, match="token is 1"):
        signal_source(data, token=1)
    for call in (signal_source, lambda abc: signals(abc, data)):
        with pytest.raises(ValueError, match="three different names"):
            call(data.counterfactual("abc"))
        with pytest.raises(TypeError, match="IOIDataset, not list"):
            call(["When Mary and John went"])
    with pytest.raises(ValueError, match="2 prompts, but 1 in the source"):
        signals(data, data[:1])
    monkeypatch.setattr("ioi_course.signals.TEMPLATES", (data[0].template,))
    with pytest.raises(ValueError, match="No template puts S1 elsewhere"):
        signal_source(data[:1], "random")


def test_published_heads(model, small):
    assert published_heads(model, "S-inhibition") == sorted(INHIBITION)
    with pytest.raises(
        ValueError, match="there is no L7H3 in 3 layers of 4 heads.*Say which heads"
    ):
        published_heads(small, "S-inhibition")
    with pytest.raises(
        ValueError, match="no class 'inhibition' of heads; the classes: previous token"
    ):
        published_heads(model, "inhibition")


# --- patched runs ---


class Plain:
    """Runs with everything cached and a hook per head, for comparison."""

    def __init__(self, model, data):
        self.model, self.data = model, data
        self.own = model.run_with_cache(data.tokens)[1]

    def __call__(self, hooks):
        logits, cache = None, {}

        def keep(value, hook):
            cache[hook.name] = value.clone()

        names = [
            f"blocks.{layer}.attn.hook_{what}"
            for layer in range(3)
            for what in ("pattern", "q")
        ]
        logits = self.model.run_with_hooks(
            self.data.tokens, fwd_hooks=[*hooks, *((name, keep) for name in names)]
        )
        return logit_diff(logits, self.data, per_prompt=True), cache

    def put(self, site, heads, values, to, of):
        """One hook per head and prompt; `to` and `of` are
        positions, or None for all."""
        hooks = []
        for layer, head in heads:

            def hook(value, hook, head=head):
                value = value.clone()
                for i in range(len(value)):
                    if to is None and site == "pattern":
                        value[i, head] = values[hook.name][i, head]
                    elif to is None:
                        value[i, :, head] = values[hook.name][i, :, head]
                    else:
                        value[i, to[i], head] = values[hook.name][i, of[i], head]
                return value

            hooks.append((f"blocks.{layer}.attn.hook_{site}", hook))
        return hooks

    def looks(self, cache, heads):
        rows = [
            [
                [
                    cache[f"blocks.{layer}.attn.hook_pattern"][
                        i, head, self.data.pos["END"][i], self.data.pos[key][i]
                    ]
                    for key in KEYS
                ]
                for layer, head in heads
            ]
            for i in range(len(self.data))
        ]
        return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("at", ("END", "S2", "everywhere"))
@pytest.mark.parametrize("hold", ((), ((2, 3), (1, 1))))
def test_patched_runs_agree_with_plain_hooks(small, few, at, hold):
    sources = {
        "names": few.counterfactual("random_names"),
        "turned": few.counterfactual("swap_names"),
    }
    if at != "everywhere":
        sources["elsewhere"] = signal_source(few, "random", "inverted")
    found = patch_heads(small, few, sources, HEADS, LATER, at=at, hold=hold, **QUIET)
    plain = Plain(small, few)
    assert torch.allclose(
        found.base, logit_diff(small(few.tokens), few, per_prompt=True)
    )
    assert torch.allclose(found.base_attention, plain.looks(plain.own, LATER))
    assert found.sources == tuple(sources) and found.held == sorted(hold)
    for i, source in enumerate(sources.values()):
        given = small.run_with_cache(source.tokens)[1]
        to, of = (None, None) if at == "everywhere" else (few.pos[at], source.pos[at])
        diff, cache = plain(
            [
                *plain.put("z", HEADS, given, to, of),
                *plain.put("pattern", hold, plain.own, None, None),
            ]
        )
        assert torch.allclose(found.per_prompt[i], diff, atol=1e-9)
        assert torch.allclose(found.attention[i], plain.looks(cache, LATER), atol=1e-9)
    assert hooks_on(small) == 0


def test_batches_change_nothing(small, few):
    sources = {
        "a": signal_source(few, "random", "random"),
        "b": few.counterfactual("swap_subject"),
    }
    whole = patch_heads(small, few, sources, HEADS, LATER, hold=[(2, 3)], **QUIET)
    calls = []
    small_batches = pytest.MonkeyPatch()
    small_batches.setattr(inhibition, "_batch_size", lambda *args: calls.append(1) or 4)
    try:
        parts = patch_heads(small, few, sources, HEADS, LATER, hold=[(2, 3)], **QUIET)
        path = attention_path(small, few, sources["a"], LATER, HEADS)
    finally:
        small_batches.undo()
    assert len(calls) == 2
    for name in ("per_prompt", "base", "attention", "base_attention"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), atol=1e-9), (
            name
        )
    assert torch.allclose(
        path.per_prompt,
        attention_path(small, few, sources["a"], LATER, HEADS).per_prompt,
        atol=1e-9,
    )


def test_the_four_runs_of_a_path(small, few):
    source, plain = signal_source(few, "random", "random"), Plain(small, few)
    found = attention_path(small, few, source, LATER, HEADS)
    given, end = small.run_with_cache(source.tokens)[1], few.pos["END"]
    patch = plain.put("z", HEADS, given, end, source.pos["END"])
    patched, cache = plain(patch)
    expected = [
        (patched, cache),
        plain([*patch, *plain.put("pattern", LATER, plain.own, None, None)]),
        plain(plain.put("pattern", LATER, cache, None, None)),
        plain(plain.put("q", LATER, cache, end, end)),
    ]
    assert (
        found.sources
        == PARTS
        == ("patched", "attention held", "attention alone", "queries alone")
    )
    for i, (diff, cache) in enumerate(expected):
        assert torch.allclose(found.per_prompt[i], diff, atol=1e-9), PARTS[i]
        assert torch.allclose(
            found.attention[i], plain.looks(cache, LATER), atol=1e-9
        ), PARTS[i]
    assert (found.change.abs().mean(dim=1) > 1e-3).all() and hooks_on(small) == 0
    assert torch.allclose(found.attention[1], found.base_attention)
    assert torch.allclose(found.attention[2], found.attention[0])


def test_attention_from_end(small, few):
    cache = small.run_with_cache(few.tokens)[1]
    assert torch.allclose(
        end_attention(small, few, LATER), Plain(small, few).looks(cache, LATER)
    )


def test_tables_of_patched_runs(small, few):
    found = patch_heads(
        small, few, {"a": few.counterfactual("abc")}, HEADS, LATER, **QUIET
    )
    table, change = found.table(), (found.per_prompt[0] - found.base).numpy()
    assert (
        table.index.tolist() == ["unpatched", "a"] and table["change"].tolist()[0] == 0
    )
    assert table.loc["a", "change error"] == pytest.approx(change.std(ddof=1) / 6**0.5)
    assert table.loc["a", "IO above S"] == (found.per_prompt[0] > 0).double().mean()
    looks = found.looks((2, 3))
    assert looks.loc["a", "S1"] == pytest.approx(
        found.attention[0, :, 1, 1].mean().item()
    )
    assert found.looks().loc["unpatched", "IO error"] == pytest.approx(
        found.base_attention[:, :, 0].mean(1).std().item() / 6**0.5
    )
    with pytest.raises(ValueError, match="attention of these was kept: L2H0 L2H3"):
        found.looks((0, 0))
    assert (
        "outputs of L0H1 L1H0 L1H3 at END from other prompts" in repr(found)
        and "±" in found._repr_html_()
    )
    one = patch_heads(
        small, few[:1], {"a": few[:1].counterfactual("abc")}, HEADS, LATER, **QUIET
    )
    assert (
        one.table()["error"].isna().all()
        and "±" not in repr(one).split("\n", 1)[1]
        and "1 prompt;" in repr(one)
    )


BAD = (
    ({"sources": [1]}, TypeError, "dictionary of names and datasets, not list"),
    ({"sources": {}}, ValueError, "No sources"),
    ({"sources": "itself"}, ValueError, "Prompt 0 of 'a' is the prompt itself"),
    ({"sources": "short"}, ValueError, "6 prompts, but 2 in 'a'"),
    ({"heads": [(3, 0)]}, ValueError, "heads: there is no L3H0 in 3 layers of 4 heads"),
    ({"heads": []}, ValueError, "give a list of heads"),
    ({"heads": None}, ValueError, "there is no L7H3.*Say which heads"),
    ({"movers": [(0, 4)]}, ValueError, "movers: there is no L0H4"),
    ({"hold": [(-1, 0)]}, ValueError, "hold: there is no L-1H0"),
    (
        {"at": "END+1"},
        ValueError,
        "at is 'END\\+1'; give a role \\(IO, S1, S1\\+1, S2, END\\) or 'everywhere'",
    ),
    ({"sources": "elsewhere", "at": "everywhere"}, ValueError, "do not align"),
    ({"memory": 0}, ValueError, "memory is 0"),
    ({"data": "text"}, TypeError, "must be an IOIDataset, not str"),
)


@pytest.mark.parametrize(
    ("change", "error", "message"), BAD, ids=[str(change) for change, *_ in BAD]
)
def test_bad_patches(small, few, change, error, message):
    named = {
        "itself": {"a": few},
        "short": {"a": few.counterfactual("abc")[:2]},
        "elsewhere": {"a": signal_source(few, "random")},
    }
    given = {
        "sources": {"a": few.counterfactual("abc")},
        "heads": HEADS,
        "movers": LATER,
        "data": few,
    } | change
    if isinstance(given["sources"], str):
        given["sources"] = named[given["sources"]]
    with pytest.raises(error, match=message):
        patch_heads(small, **given, **QUIET)
    assert hooks_on(small) == 0


def test_a_path_leads_to_later_heads(small, few):
    with pytest.raises(
        ValueError,
        match="L1H1 is not after all of L0H1 L1H0 L1H3: give heads of later layers",
    ):
        attention_path(small, few, few.counterfactual("abc"), [(1, 1), (2, 0)], HEADS)
    with pytest.raises(ValueError, match="is the prompt itself"):
        attention_path(small, few, few, LATER, HEADS)


def test_hooks_are_gone_after_an_exception(small, few, monkeypatch):
    def fail(*args):
        raise RuntimeError("on the way")

    monkeypatch.setattr(inhibition, "_looks", fail)
    with pytest.raises(RuntimeError, match="on the way"):
        patch_heads(small, few, {"a": few.counterfactual("abc")}, HEADS, LATER, **QUIET)
    assert hooks_on(small) == 0


# --- fits ---


@pytest.mark.parametrize("constant", (False, True))
def test_a_fit_is_that_of_every_prompt_and_of_their_mean(constant):
    levels = ("inverted", "kept", "random"), ("kept", "random")
    values = torch.randn(
        3, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    fit = fit_signals(values, *levels, constant=constant)
    rows = [
        [LEVELS[p], LEVELS[t], *([1] if constant else [])]
        for p in levels[0]
        for t in levels[1]
    ]
    for i in range(7):
        weights, *_ = np.linalg.lstsq(
            np.array(rows, float), values[..., i].flatten().numpy(), rcond=None
        )
        assert np.allclose(fit.weights[:, i], weights)
        assert np.allclose(
            fit.residuals[..., i].flatten(),
            values[..., i].flatten() - np.array(rows) @ weights,
        )
    mean = fit_signals(values.mean(dim=-1, keepdim=True), *levels, constant=constant)
    assert np.allclose(fit.table()["weight"], mean.weights[:, 0])
    assert np.allclose(
        fit.table()["error"], fit.weights.numpy().std(axis=1, ddof=1) / 7**0.5
    )
    assert fit.misfit == pytest.approx(mean.residuals.abs().mean().item())
    assert fit.residual_table().shape == (3, 2) and fit.terms[-1] == (
        "constant" if constant else "token"
    )
    assert "·position" in repr(fit) and "·constant" not in repr(fit)


def test_the_papers_weights_follow_from_its_cells():
    cells = torch.tensor(published("paper.signals").values, dtype=torch.float64).view(
        2, 3, 1
    )
    weights = fit_signals(cells, POSITIONS, TOKENS).weights[:, 0].numpy()
    assert np.allclose(weights, published("paper.signal_fit").values, atol=0.006)


def test_bad_fits():
    with pytest.raises(
        ValueError,
        match=r"\[position, token, batch\] = \[2, 3, batch\]; the shape is \[3, 2, 4\]",
    ):
        fit_signals(torch.zeros(3, 2, 4), POSITIONS, TOKENS)
    with pytest.raises(ValueError, match="do not tell 2 weights apart"):
        fit_signals(torch.zeros(1, 3, 4), ["random"], TOKENS)
    with pytest.raises(ValueError, match="do not tell 3 weights apart"):
        fit_signals(torch.zeros(1, 3, 4), ["kept"], TOKENS, constant=True)


# --- the table ---


def test_the_table_is_made_of_its_sources(small, few):
    table = signal_table(
        small,
        few,
        HEADS,
        LATER,
        positions=["inverted", "kept"],
        tokens=["kept", "random"],
        **QUIET,
    )
    assert torch.equal(table.cells[1, 0], table.base) and torch.equal(
        table.attention[2], table.base_attention
    )
    for i, j, position, token in (
        (0, 0, "inverted", "kept"),
        (0, 1, "inverted", "random"),
        (1, 1, "kept", "random"),
    ):
        source = {"a": signal_source(few, position, token)}
        alone = patch_heads(small, few, source, HEADS, LATER, **QUIET)
        assert torch.allclose(table.cells[i, j], alone.per_prompt[0])
        assert torch.allclose(table.attention[2 * i + j], alone.attention[0])
        assert table.means().iloc[i, j] == pytest.approx(alone.per_prompt.mean().item())
        assert table.errors().iloc[i, j] == pytest.approx(
            alone.per_prompt.std().item() / 6**0.5
        )
    assert table.table().index.tolist()[1] == "position inverted, token kept"
    assert (
        table.plot().table.shape == (2, 2)
        and "position inverted" in repr(table)
        and "<table" in table._repr_html_()
    )


def test_bad_levels(small, few):
    for levels in ("kept", [], ["kept", "kept"], ["same"]):
        with pytest.raises(
            ValueError,
            match="tokens is .*; give a list of different levels among kept, random",
        ):
            signal_table(small, few, HEADS, LATER, tokens=levels, **QUIET)


def test_the_synthetic_model_carries_both_signals_and_position_above_all(cells):
    means = cells.cells.mean(dim=-1)
    assert torch.allclose(
        means,
        torch.tensor([[4.22, 3.89, 3.41], [-3.90, -4.40, -4.65]]).double(),
        atol=0.01,
    )
    assert (cells.cells[0] > 0).all() and (cells.cells[1] < 0).all()
    position, token = cells.fit().table()["weight"]
    assert position == pytest.approx(4.08, abs=0.01) and token == pytest.approx(
        0.39, abs=0.01
    )


def test_a_random_position_takes_the_position_signal_away(model, data, cells):
    row = signal_table(model, data, positions=["random"], **QUIET).cells[0].mean(dim=-1)
    assert row.abs().max() < 0.25 * cells.base.mean() and row[0] > row[1] > row[2]


def test_each_head_carries_its_share(model, data, cells):
    split = split_signals(model, data[:12], progress=False)
    table = split.table()
    assert split.weights.shape == (5, 2, 12) and table.index.tolist()[-2:] == [
        "sum of these",
        "all together",
    ]
    whole = signal_table(model, data[:12], tokens=["kept", "inverted"], **QUIET).fit()
    assert torch.allclose(split.weights[-1], whole.weights)
    alone = signal_table(
        model, data[:12], [INHIBITION[1]], tokens=["kept", "inverted"], **QUIET
    ).fit()
    assert torch.allclose(split.weights[1], alone.weights)
    assert table.loc["sum of these", "position"] == pytest.approx(
        table["position"].iloc[:4].sum()
    )
    assert (table["position"].iloc[:4] > 0.6).all() and table["token"].iloc[:4].between(
        0.04, 0.16
    ).all()
    assert "L8H10" in repr(split) and "±" in split._repr_html_()


def test_all_of_it_goes_by_the_queries_of_those_who_move_names(model, data):
    some = data[:16]
    found = attention_path(
        model, some, signal_source(some, "inverted", "inverted"), READERS
    )
    patched, held, alone, queries = found.change.mean(dim=-1)
    assert (
        patched < -7
        and abs(held) < 0.02
        and abs(alone - patched) < 0.02
        and abs(queries - patched) < 0.02
    )
    movers = attention_path(
        model, some, signal_source(some, "inverted", "inverted"), MOVERS
    )
    patched, held, alone, _ = movers.change.mean(dim=-1)
    assert 0.4 < held / patched < 0.6 and 0.4 < alone / patched < 0.6


def test_the_answers_to_the_closing_questions(model, data):
    demo = IOIDataset.demo(model)
    turned = path_patch(
        model, demo, demo.counterfactual("swap_names"), MOVERS, "q", **QUIET
    )
    assert set(turned.strongest(4)) == set(INHIBITION)
    z = sweep(model, demo, demo.counterfactual("swap_subject"), "z", **QUIET)
    assert all(z.values[head] > 0.15 for head in INHIBITION)

    moved = (
        [in_front(words, r) for r in data]
        for words in ("Then, ", "Well, it was on that day, and ")
    )
    two, eight = (IOIDataset.from_prompts(model, records) for records in moved)
    found = patch_heads(
        model, data, {"two": two, "eight": eight}, **QUIET
    ).per_prompt.mean(dim=-1)
    assert (signals(data, two)["position"] == -1).sum() == 15 and found[0] < found[
        1
    ] - 0.5
