"""Knock-outs: the fast way against hooks, and the three criteria
against their definitions."""

import json
import random
import warnings
from dataclasses import replace

import pytest
import torch

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model, random_of
from ioi_course.circuit import knock_out, nodes, part_of, run_circuit, run_without
from ioi_course.means import reference_means
from ioi_course.metrics import logit_diff
from ioi_course.prompts import ROLES, IOIDataset
from ioi_course.roles import PAPER, Circuit
from ioi_course.trial import (
    Completeness,
    class_sets,
    completeness,
    completeness_plot,
    faithfulness,
    greedy_sets,
    minimality,
    minimality_sets,
    on_trial,
    random_sets,
)

SMALL = Circuit(
    roles={
        "early": ((0, 1), (0, 3), (1, 2)),
        "name mover": ((1, 0), (2, 1)),
        "backup name mover": ((2, 2), (2, 3)),
    },
    positions={"early": "S2", "name mover": "END", "backup name mover": "END"},
    edges=(("early", "name mover", "v"), ("name mover", "logits", "residual")),
    name="small",
    source="a test",
    n_layers=3,
    n_heads=4,
)


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def small():
    """A random model, prompts of different lengths, and means that are nothing like
    what the heads put out."""
    model = random_model()
    data = random_data(model, 5, seed=3)
    generator = torch.Generator().manual_seed(0)
    shape = *data.tokens.shape, 4, 8
    return (
        model,
        data,
        [
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for _ in range(3)
        ],
    )


@pytest.fixture(scope="module")
def trial(model):
    """The synthetic model, 32 prompts and their means."""
    data = IOIDataset(model, 32, seed=2)
    return model, data, reference_means(model, data)


def by_hand(model, data, means, alive):
    """Run with hooks; `alive(layer, head, role)` says whether a head is computed at a
    role, or where role is None."""

    def hook(z, hook):
        layer = hook.layer()
        for i in range(len(data)):
            role_at = {int(at[i]): role for role, at in data.pos.items()}
            for pos in range(z.shape[1]):
                for head in range(z.shape[2]):
                    if not alive(layer, head, role_at.get(pos)):
                        z[i, pos, head] = means[layer][i, pos, head]
        return z

    hooks = [
        (f"blocks.{layer}.attn.hook_z", hook) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )


# Runs


def test_run_circuit_keeps_nodes_only(small):
    model, data, means = small
    keep = nodes(SMALL)
    expected = by_hand(
        model,
        data,
        means,
        lambda layer, head, role: keep.get((layer, head), "") == role,
    )
    assert torch.allclose(run_circuit(model, data, keep, means), expected, atol=1e-10)


def test_run_without_takes_nodes_only(small):
    model, data, means = small
    out = {(0, 1): "S1+1", (1, 2): "S2", (2, 0): "END", (1, 3): "IO"}
    expected = by_hand(
        model, data, means, lambda layer, head, role: out.get((layer, head), "") != role
    )
    assert torch.allclose(run_without(model, data, out, means), expected, atol=1e-10)
    assert torch.allclose(
        run_without(model, data, {}, means),
        logit_diff(model(data.tokens), data, per_prompt=True),
    )


def test_default_means_are_the_reference_means(small):
    model, data, _ = small
    means = reference_means(model, data)
    assert torch.equal(
        run_circuit(model, data, nodes(SMALL)),
        run_circuit(model, data, nodes(SMALL), means),
    )
    assert torch.allclose(
        knock_out(model, data, [{}], nodes(SMALL))[0],
        run_circuit(model, data, nodes(SMALL), means),
        atol=1e-10,
    )


@pytest.mark.parametrize("seed", range(8))
def test_fast_knock_outs_agree_with_hooks(small, seed):
    """Random nodes at random roles, sets that overlap, that have all in common, that
    are not in the circuit."""
    model, data, means = small
    rng = random.Random(seed)
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    keep = {head: rng.choice(ROLES) for head in rng.sample(heads, rng.randint(0, 12))}
    sets = [
        {head: rng.choice(ROLES) for head in rng.sample(heads, rng.randint(0, 5))}
        for _ in range(4)
    ]
    sets += [
        dict(rng.sample(sorted(keep.items()), rng.randint(0, len(keep))))
        for _ in range(4)
    ]
    sets = sets[: rng.randint(1, 8)] if seed % 2 else sets

    def kept(out):
        return {head: role for head, role in keep.items() if out.get(head) != role}

    alone = torch.stack([run_circuit(model, data, kept(out), means) for out in sets])
    whole = torch.stack([run_without(model, data, out, means) for out in sets])
    assert torch.allclose(
        knock_out(model, data, sets, keep, means=means), alone, atol=1e-10
    )
    assert torch.allclose(knock_out(model, data, sets, means=means), whole, atol=1e-10)
    tight = knock_out(model, data, sets, keep, means=means, memory=0.0004)
    assert torch.allclose(tight, alone, atol=1e-10)


def test_fast_knock_outs_agree_on_the_circuit(trial):
    model, data, means = trial
    keep, sets = (
        nodes(CIRCUIT),
        [nodes(CIRCUIT, heads) for heads in class_sets(CIRCUIT).values()],
    )
    sets.append(nodes(CIRCUIT, [(2, 2), (5, 5), (9, 9)]))
    alone = knock_out(model, data, sets, keep, means=means, progress=False)
    whole = knock_out(model, data, sets, means=means, progress=False)
    for i in (0, 3, 8):
        left = {head: role for head, role in keep.items() if head not in sets[i]}
        assert torch.allclose(
            alone[i], run_circuit(model, data, left, means).to(alone), atol=1e-8
        )
        assert torch.allclose(
            whole[i], run_without(model, data, sets[i], means).to(whole), atol=1e-8
        )


def test_other_architectures_run_with_hooks():
    model = random_of("phi")
    data = random_data(model, 3)
    means = reference_means(model, data)
    keep, sets = {(0, 1): "S2", (1, 2): "END"}, [{}, {(1, 2): "END"}]
    with pytest.warns(UserWarning, match="once per set"):
        found = knock_out(model, data, sets, keep, means=means)
    assert torch.allclose(found[0], run_circuit(model, data, keep, means))
    assert torch.allclose(found[1], run_circuit(model, data, {(0, 1): "S2"}, means))


def test_hooks_are_off_after_an_error(small):
    model, data, means = small
    broken = [*means[:2], means[2].clone()]
    broken[2] = broken[2].as_subclass(Refusing)
    with pytest.raises(RuntimeError, match="refused"):
        run_circuit(model, data, nodes(SMALL), broken)
    assert not sum(len(point.fwd_hooks) for point in model.hook_dict.values())


class Refusing(torch.Tensor):
    """A tensor that cannot be moved."""

    def to(self, *args, **kwargs):
        raise RuntimeError("refused")


# Circuits as data


def test_the_papers_circuit():
    assert (PAPER.roles, PAPER.positions) == (CIRCUIT.roles, CIRCUIT.positions)
    assert set(PAPER.edges) < set(CIRCUIT.edges) and len(PAPER.edges) == 9, (
        "the key holds more than the drawing"
    )
    assert (
        len(PAPER) == 26 and PAPER.name == "gpt2-small" and "2211.00593" in PAPER.source
    )


def test_nodes():
    assert (
        nodes(PAPER)[5, 5] == "S2"
        and nodes(PAPER)[2, 2] == "S1+1"
        and len(nodes(PAPER)) == 26
    )
    assert nodes(PAPER, [[9, 9]]) == {(9, 9): "END"}
    with pytest.raises(ValueError, match="L5H6 is not in the circuit of gpt2-small"):
        nodes(PAPER, [(5, 6)])
    with pytest.raises(ValueError, match="not in the circuit"):
        nodes(PAPER, [(9,)])


def test_part_of():
    part = part_of(PAPER, [(9, 9), (5, 5), (9, 6)])
    assert part.roles == {"induction": ((5, 5),), "name mover": ((9, 6), (9, 9))}
    assert part.edges == (("name mover", "logits", "residual"),)
    assert "3 of 26" in part.source and part.n_layers == 12
    assert not len(part_of(PAPER, []))


def test_sets():
    assert (
        list(class_sets(SMALL)) == ["none", *SMALL.roles]
        and class_sets(SMALL)["none"] == ()
    )
    assert (
        random_sets(PAPER, 3, 1) == random_sets(PAPER, 3, 1) != random_sets(PAPER, 3, 2)
    )
    drawn = [len(heads) for heads in random_sets(PAPER, 400).values()]
    assert abs(sum(drawn) / len(drawn) - 13) < 0.5
    sets = minimality_sets(PAPER)
    assert list(sets) == [head for heads in PAPER.roles.values() for head in heads]
    assert (
        sets[5, 5] == ((5, 8), (5, 9), (6, 9))
        and sets[9, 6] == ()
        and sets[10, 0] == ((9, 6), (9, 9))
    )
    assert set(sets[9, 0]) == {
        *PAPER.roles["name mover"],
        *PAPER.roles["backup name mover"],
    } - {(9, 0)}


# Criteria


def test_faithfulness(small):
    model, data, means = small
    found = faithfulness(model, data, SMALL, means=means)
    whole = logit_diff(model(data.tokens), data, per_prompt=True)
    alone = run_circuit(model, data, nodes(SMALL), means)
    assert torch.allclose(found.model, whole) and torch.allclose(found.circuit, alone)
    assert found.gap == pytest.approx((whole.mean() - alone.mean()).item())
    assert found.share == pytest.approx((alone.mean() / whole.mean()).item())
    table = found.table()
    assert table["error"]["gap"] == pytest.approx((whole - alone).std().item() / 5**0.5)
    assert "Faithfulness of 7 heads" in repr(found) and "<table" in found._repr_html_()


def test_error_of_a_share_is_that_of_a_ratio():
    """Against a bootstrap, on numbers in which circuit and model go together."""
    generator = torch.Generator().manual_seed(0)
    whole = 3 + torch.randn(400, generator=generator, dtype=torch.float64)
    alone = 0.8 * whole + 0.3 * torch.randn(
        400, generator=generator, dtype=torch.float64
    )
    found = replace_diffs(whole, alone)
    rows = torch.randint(400, (3000, 400), generator=generator)
    spread = (alone[rows].mean(1) / whole[rows].mean(1)).std().item()
    assert found.table()["error"]["share"] == pytest.approx(spread, rel=0.1)


def replace_diffs(whole, alone):
    model = random_model()
    return replace(
        faithfulness(model, random_data(model, 2), SMALL), model=whole, circuit=alone
    )


def test_share_of_nothing_is_nan():
    whole = torch.tensor([1.0, -1.0, 0.5, -0.5])
    found = replace_diffs(whole, whole + 1)
    assert found.share != found.share and found.gap == pytest.approx(-1)
    assert found.table()["value"].isna().to_dict() == {
        "model": False,
        "circuit": False,
        "gap": False,
        "share": True,
    }


def test_completeness(small):
    model, data, means = small
    sets = {"none": (), "some": [(0, 1), (2, 1)]}
    found = completeness(model, data, SMALL, sets, means=means, progress=False)
    left = {
        head: role for head, role in nodes(SMALL).items() if head not in sets["some"]
    }
    assert torch.allclose(found.circuit[1], run_circuit(model, data, left, means))
    assert torch.allclose(
        found.model[1], run_without(model, data, nodes(SMALL, sets["some"]), means)
    )
    expected = (found.circuit.mean(1) - found.model.mean(1)).abs()
    assert torch.allclose(found.incompleteness, expected)
    assert found.worst == list(sets)[int(expected.argmax())]
    assert found.table()["heads"].tolist() == [0, 2]
    faith = faithfulness(model, data, SMALL, means=means)
    assert found.incompleteness[0].item() == pytest.approx(abs(faith.gap))
    assert list(completeness(model, data, SMALL, means=means).sets) == list(
        class_sets(SMALL)
    )


def test_completeness_plot(small):
    model, data, means = small
    found = completeness(model, data, SMALL, means=means)
    plot = found.plot("a title")
    assert "a title" in plot.summary and len(plot.table) == 4
    assert plot.table["circuit without K"].tolist() == pytest.approx(
        found.circuit.mean(1).tolist(), abs=1e-4
    )
    both = completeness_plot({"a": found, "b": found})
    assert len(both.table) == 8 and "<script" not in both.summary
    with pytest.raises(ValueError, match="empty"):
        completeness_plot({})


def test_greedy_search_finds_the_best_pair(small):
    """With all candidates at each of two steps, the second step is the best
    extension of the best head."""
    model, data, means = small
    options = {"means": means, "progress": False}

    def gaps(sets):
        named = {str(i): heads for i, heads in enumerate(sets)}
        values = completeness(model, data, SMALL, named, **options).incompleteness
        return dict(zip(map(frozenset, sets), values.tolist(), strict=True))

    heads = SMALL.heads
    one = gaps([(head,) for head in heads])
    (first,) = max(one, key=one.get)
    two = gaps([(first, head) for head in heads if head != first])
    best = max((one | two), key=(one | two).get)
    found = greedy_sets(
        model, data, SMALL, restarts=2, steps=2, candidates=7, **options
    )
    assert list(found) == ["greedy 0", "greedy 1"]
    assert all(frozenset(heads) == best for heads in found.values())


def test_greedy_search_is_seeded(small):
    model, data, means = small
    options = {
        "means": means,
        "progress": False,
        "restarts": 4,
        "steps": 2,
        "candidates": 2,
    }
    runs = [greedy_sets(model, data, SMALL, seed=seed, **options) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_greedy_search_can_use_up_all_heads(small):
    model, data, means = small
    part = part_of(SMALL, [(1, 0), (2, 1)])
    found = greedy_sets(
        model, data, part, restarts=1, steps=9, means=means, progress=False
    )
    assert set(found["greedy 0"]) <= {(1, 0), (2, 1)}


def test_minimality(small):
    model, data, means = small
    found = minimality(model, data, SMALL, means=means, progress=False)
    whole = logit_diff(model(data.tokens), data)
    for i, (head, others) in enumerate(minimality_sets(SMALL).items()):
        without = {h: role for h, role in nodes(SMALL).items() if h not in others}
        before = run_circuit(model, data, without, means).mean()
        after = run_circuit(
            model, data, {h: r for h, r in without.items() if h != head}, means
        ).mean()
        assert found.change[i].item() == pytest.approx((after - before).item())
        assert found.shares[i].item() == pytest.approx(
            ((after - before) / whole).abs().item()
        )
    assert found.table()["K"]["L2H2"] == "L1H0 L2H1 L2H3"
    assert found.table()["class"]["L0H1"] == "early"
    assert "3 layers × 4 heads" in found.plot().summary
    one = minimality(model, data, SMALL, {(1, 0): [(0, 1)]}, means=means)
    assert one.shares.shape == (1,)


# The synthetic model


def test_verdict_on_the_answer_key(trial):
    model, data, means = trial
    faith = faithfulness(model, data, CIRCUIT, means=means)
    assert 0.8 < faith.share < 1.1
    classes = completeness(model, data, CIRCUIT, means=means, progress=False)
    assert classes.incompleteness.max() < 0.1 * faith.model.mean()
    assert classes.model[4].mean() / faith.model.mean() < 0.15  # S-inhibition
    assert (
        minimality(model, data, CIRCUIT, means=means, progress=False).shares.min()
        >= 0.01
    )


def test_idle_heads_are_not_minimal(trial):
    model, data, means = trial
    idle = {"idle": ((3, 5), (6, 2), (8, 1))}
    padded = replace(
        CIRCUIT,
        roles={**CIRCUIT.roles, **idle},
        positions={**CIRCUIT.positions, "idle": "END"},
    )
    found = minimality(
        model,
        data,
        padded,
        {head: () for head in idle["idle"]},
        means=means,
        progress=False,
    )
    assert found.shares.max() < 0.005
    assert abs(faithfulness(model, data, padded, means=means).share - 1) < 0.1


def test_a_circuit_without_backups_is_incomplete(trial):
    model, data, means = trial
    part = part_of(
        CIRCUIT,
        [
            head
            for head in CIRCUIT.heads
            if CIRCUIT.role_of(*head) != "backup name mover"
        ],
    )
    movers = {"movers": CIRCUIT.roles["name mover"]}
    full, lacking = (
        completeness(model, data, c, movers, means=means).incompleteness[0]
        for c in (CIRCUIT, part)
    )
    assert full < 0.3 and lacking > 2


def test_means_over_ioi_hide_who_finds_the_duplicate(trial):
    model, data, means = trial
    records = [
        record
        for seed in range(4)
        for record in data.counterfactual("random_names", seed)
    ]
    wrong = reference_means(model, data, IOIDataset.from_prompts(model, records))
    late = part_of(CIRCUIT, [head for head in CIRCUIT.heads if head[0] > 6])
    assert faithfulness(model, data, late, means=wrong).share > 0.85
    assert faithfulness(model, data, late, means=means).share < 0.3


# On trial


def test_on_trial_gives_plain_numbers(model):
    data = IOIDataset(model, 8, seed=1)
    verdict = on_trial(model, data, CIRCUIT, progress=False)
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    faith = faithfulness(model, data, CIRCUIT)
    assert verdict["faithfulness"]["share"] == pytest.approx(faith.share, abs=1e-5)
    assert verdict["faithfulness"]["circuit"] == pytest.approx(
        faith.circuit.mean().item(), abs=1e-5
    )
    assert list(verdict["completeness"]) == ["class", "random", "greedy"]
    assert set(verdict["completeness"]["class"]) == {"none", *CIRCUIT.roles}
    assert len(verdict["minimality"]["heads"]) == 26
    assert verdict["minimality"]["least"] == min(
        verdict["minimality"]["heads"].values()
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_on_trial_with_few_prompts(n):
    model = random_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = on_trial(model, random_data(model, n), SMALL, progress=False)
    json.dumps(verdict, allow_nan=False)
    assert verdict["faithfulness"]["model"] is not None


def test_on_trial_of_an_empty_circuit(small):
    model, data, _ = small
    verdict = on_trial(model, data, part_of(SMALL, []), progress=False)
    assert verdict["completeness"] == verdict["minimality"] == {}
    means = reference_means(model, data)
    assert verdict["faithfulness"]["circuit"] == pytest.approx(
        run_circuit(model, data, {}, means).mean().item(), abs=1e-5
    )


# Bad input


def test_bad_nodes(small):
    model, data, means = small
    with pytest.raises(TypeError, match="say where each head acts"):
        run_circuit(model, data, [(0, 1)], means)
    with pytest.raises(
        ValueError, match=r"keep has the head \(3, 0\); there are 3 layers of 4 heads"
    ):
        run_circuit(model, data, {(3, 0): "END"}, means)
    with pytest.raises(
        ValueError, match="L1H1 at 'S3'; a position is one of IO, S1, S1\\+1, S2, END"
    ):
        run_without(model, data, {(1, 1): "S3"}, means)
    with pytest.raises(ValueError, match="sets has the head"):
        knock_out(model, data, [{(0, 9): "END"}], means=means)
    with pytest.raises(ValueError, match="at least one set"):
        knock_out(model, data, [], means=means)


def test_bad_circuits(small):
    model, data, means = small
    with pytest.raises(TypeError, match="must be a Circuit"):
        faithfulness(model, data, nodes(SMALL), means=means)
    with pytest.raises(ValueError, match="there are 3 layers of 4 heads"):
        completeness(model, data, PAPER, means=means)
    with pytest.raises(ValueError, match="L2H0 is not in the circuit"):
        completeness(model, data, SMALL, {"bad": [(2, 0)]}, means=means)
    with pytest.raises(ValueError, match="must be without"):
        minimality(model, data, SMALL, {(1, 0): [(1, 0)]}, means=means)
    with pytest.raises(ValueError, match="no head to test"):
        minimality(model, data, SMALL, {}, means=means)


def test_bad_means(small):
    model, data, means = small
    with pytest.raises(ValueError, match="means must have 3 tensors .* got 2 tensors"):
        run_circuit(model, data, {}, means[:2])
    with pytest.raises(ValueError, match="of other prompts"):
        faithfulness(model, data[:3], SMALL, means=means)


@pytest.mark.parametrize("memory", [0, -1, True, "1"])
def test_bad_memory(small, memory):
    model, data, means = small
    with pytest.raises(ValueError, match="memory is"):
        knock_out(model, data, [{}], means=means, memory=memory)


def test_too_little_memory(small):
    model, data, means = small
    with pytest.raises(ValueError, match="too little for one prompt"):
        knock_out(model, data, [{}], means=means, memory=1e-6)


@pytest.mark.parametrize("what", ["restarts", "steps", "candidates"])
def test_bad_search(small, what):
    model, data, means = small
    with pytest.raises(ValueError, match=f"{what} is 0"):
        greedy_sets(model, data, SMALL, means=means, **{what: 0})
    with pytest.raises(ValueError, match="n is 0"):
        random_sets(SMALL, 0)


def test_other_models_data(small):
    model, data, means = small
    with pytest.raises(TypeError, match="IOIDataset"):
        run_circuit(model, data.tokens, {}, means)


def test_a_completeness_is_worst_where_it_is_farthest(small):
    model, data, _ = small
    sets = {"a": (), "b": ((1, 0),)}
    whole, alone = (
        torch.tensor([[1.0, 3.0], [2.0, 2.0]]),
        torch.tensor([[1.0, 2.0], [0.0, 1.0]]),
    )
    found = Completeness(sets, whole, alone, SMALL, "m")
    assert found.incompleteness.tolist() == [0.5, 1.5] and found.worst == "b"
