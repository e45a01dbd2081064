"""The wing that looks for circuits: the graph, gradients that are derivatives, circuits
run as such, exact scores."""

import re

import pytest
import torch

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_of
from ioi_course.discovery.curves import SHARES, against_key, curve, key_edges, sizes
from ioi_course.discovery.exact import exact_scores
from ioi_course.discovery.gradients import GRADIENTS, gradient_scores
from ioi_course.discovery.graph import Graph, graph_of
from ioi_course.discovery.pruning import acdc
from ioi_course.discovery.runs import Runner
from ioi_course.discovery.scores import Scores, best, greedy, random_scores
from ioi_course.engine import Unsupported
from ioi_course.metrics import logit_diff
from ioi_course.prompts import IOIDataset

pytestmark = pytest.mark.usefixtures("no_grad")
FAMILIES = ("gpt2", "llama", "neox")


@pytest.fixture(scope="module", params=FAMILIES)
def small(request):
    """A random model of each family, three pairs and their runner."""
    model = random_of(request.param)
    clean = random_data(model, 3)
    corrupted = clean.counterfactual("abc")
    return model, clean, corrupted, Runner(model, clean, corrupted)


def some_edges(graph):
    """An edge into each kind of receiver, from each kind of sender."""
    last = graph.n_layers - 1
    heads = {via: graph.receivers[graph.inputs(last)[via][-1]] for via in "qkv"}
    into = [f"input -> {heads['q']}", f"L0H1 -> {heads['k']}", f"MLP0 -> {heads['v']}"]
    return [
        *into,
        f"L{last - 1}H0 -> MLP{last}",
        f"MLP{last} -> logits",
        f"L{last}H1 -> logits",
        "input -> MLP0",
    ]


def test_gpt2_small_has_the_published_number_of_edges():
    assert len(Graph(12, 12, 12)) == 32_491


def test_smollm2_has_an_edge_for_a_group():
    graph = Graph(30, 9, 3)
    by_layer = [
        (9 + 3 + 3) * (1 + 10 * layer) + (1 + 10 * layer + 9) for layer in range(30)
    ]
    assert len(graph) == sum(by_layer) + 301 == 70_651
    assert graph.receiver((5, 7), "k") == graph.receivers.index("L5G2.k")


def test_gradients_are_finite_differences(small):
    """To a thousandth of the slope, at every kind of receiver."""
    model, clean, corrupted, runner = small
    eap, step = gradient_scores(model, clean, corrupted, "eap", progress=False), 1e-4
    for edge in some_edges(runner.graph):
        weights = runner.graph.real.double()
        weights[runner.graph[edge]] += step
        more = runner(weights)
        weights[runner.graph[edge]] -= 2 * step
        slope = (more - runner(weights)) / (2 * step)
        found = eap.per_prompt[(slice(None), *runner.graph[edge])]
        assert torch.allclose(
            found, slope, rtol=1e-3, atol=1e-3 * slope.abs().max().item() + 1e-9
        ), edge


def test_integrated_gradients_on_activations_are_exact_on_the_way_of_one_sender(small):
    """A sender's edges together, with many steps, are the whole effect of its output
    (the integral of a slope)."""
    model, clean, corrupted, runner = small
    scores = gradient_scores(
        model, clean, corrupted, "eap-ig-activations", steps=20, progress=False
    )
    for name in ("MLP1", "MLP2"):
        sender = runner.graph.senders.index(name)
        without = runner.graph.real.clone()
        without[sender] = False
        lost = runner.full - runner(without)
        assert torch.allclose(
            scores.per_prompt[:, sender].sum(dim=-1), lost, atol=0.01
        ), name


def test_exact_scores_are_runs_without_one_edge(small):
    model, clean, corrupted, runner = small
    exact = exact_scores(model, clean, corrupted, progress=False)
    for edge in some_edges(runner.graph):
        without = runner.graph.real.clone()
        without[runner.graph[edge]] = False
        found = exact.per_prompt[(slice(None), *runner.graph[edge])]
        assert torch.allclose(runner.full - runner(without), found, atol=1e-5), edge


def test_the_recomputed_softmax_is_exact_up_to_the_pattern(small):
    """For the last layer's queries at a value that only END reads, what comes after the
    pattern is nearly straight."""
    model, clean, corrupted, runner = small
    qk = gradient_scores(model, clean, corrupted, "eap-qk", progress=False)
    eap = gradient_scores(model, clean, corrupted, "eap", progress=False)
    exact = exact_scores(model, clean, corrupted, progress=False)
    last = runner.graph.inputs(runner.graph.n_layers - 1)["q"]
    columns = slice(last.start, last.stop)
    off = [
        (one.per_prompt - exact.per_prompt)[:, :, columns].abs().mean()
        for one in (qk, eap)
    ]
    assert off[0] < 0.8 * off[1]


@pytest.mark.parametrize("method", GRADIENTS)
def test_scores_do_not_depend_on_the_memory(small, method):
    model, clean, corrupted, _ = small
    whole, tight = (
        gradient_scores(
            model, clean, corrupted, method, steps=2, memory=memory, progress=False
        )
        for memory in (0.5, 0.003)
    )
    assert torch.allclose(whole.per_prompt, tight.per_prompt, atol=1e-9)


def test_a_circuit_grows_from_the_corrupted_run_to_the_clean_one(small):
    model, clean, corrupted, runner = small
    ends = [
        logit_diff(model(data.tokens), clean, per_prompt=True)
        for data in (corrupted, clean)
    ]
    assert torch.allclose(runner(runner.graph.real & False), ends[0], atol=1e-5)
    assert torch.allclose(runner(runner.graph.real), ends[1], atol=1e-5)


def test_sizes_of_mib():
    assert sizes(Graph(12, 12, 12)) == [
        32,
        64,
        162,
        324,
        649,
        1624,
        3249,
        6498,
        16245,
        32491,
    ]
    assert SHARES[0] == 0.001 and SHARES[-1] == 1
    with pytest.raises(ValueError, match=r"A share of 0.001 is 0 of \d+ edges"):
        sizes(Graph(1, 2, 2))


def test_greedy_circuits_are_connected_and_best_ones_need_not_be():
    model = random_of("gpt2")
    scores = random_scores(model, 5)
    for n in (1, 7, 40):
        assert greedy(scores, n).sum() == best(scores, n).sum() == n
    assert greedy(scores, 1)[:, -1].sum() == 1


def test_the_synthetic_model_is_found(model):
    """On four pairs: integrated gradients find most of what was written,
    and a lot finds nothing."""
    clean = IOIDataset(model, 4)
    scores = gradient_scores(
        model, clean, clean.counterfactual("abc"), steps=3, progress=False
    )
    key = key_edges(scores.graph, CIRCUIT)
    found, lot = against_key(scores, key), against_key(random_scores(model), key)
    assert found["AUROC"] > 0.95 and found["AUPRC"] > 0.6
    assert abs(lot["AUROC"] - 0.5) < 0.08 and lot["AUPRC"] < 0.03


@pytest.mark.parametrize(
    "edge, said",
    [
        ("L9H9 -> L8H6.q", "L9H9 is not computed before L8H6.q is read"),
        (
            "L9H9 -> L12H0.q",
            "nothing that reads is called 'L12H0.q'. The nearest is 'L9H9 -> L",
        ),
        (
            "L9H99 -> logits",
            "nothing that writes is called 'L9H99'. The nearest is 'L9H9 -> logits'",
        ),
        ("L9H9", "an edge is written as 'L5H5 -> L8H6.v'"),
    ],
)
def test_an_edge_that_does_not_exist_is_named_with_the_nearest(edge, said):
    graph = Graph(12, 12, 12)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        graph[edge]
    nearest = re.search(r"The nearest is '(.+)'", str(error.value))[1]
    assert graph.real[graph[nearest]]


def test_what_cannot_be_is_refused(small):
    model, clean, corrupted, runner = small
    with pytest.raises(ValueError, match="must give one number for each prompt"):
        gradient_scores(
            model, clean, corrupted, metric=lambda logits, data: logits, progress=False
        )
    with pytest.raises(ValueError, match="has no gradient"):
        counted = lambda logits, data: (logits.argmax(dim=1) == 0).double()  # noqa: E731
        gradient_scores(model, clean, corrupted, metric=counted, progress=False)
    with pytest.raises(ValueError, match="do not align"):
        gradient_scores(model, clean, clean.counterfactual("extra_io"), progress=False)
    scores = random_scores(model)
    with pytest.raises(ValueError, match="0 edges are no circuit"):
        best(scores, 0)
    with pytest.raises(ValueError, match="too close for a scale"):
        near = Runner(
            model, clean, corrupted, metric=lambda logits, data: logits[:, 0] * 0 + 1
        )
        curve(near, scores, (0.5, 1.0), progress=False)
    with pytest.raises(ValueError, match="The scores are of another graph"):
        curve(
            runner,
            Scores(torch.zeros(1, *Graph(1, 2, 2).real.shape), Graph(1, 2, 2), "", ""),
            (1.0,),
        )
    with pytest.raises(ValueError, match="more than 0"):
        acdc(runner, -1)


def test_a_family_that_is_not_served_is_named():
    model = random_of("phi")
    with pytest.raises(
        ValueError, match="The architecture PhiForCausalLM is not served"
    ):
        graph_of(model)
    clean = random_data(model, 2)
    with pytest.raises(ValueError, match="not served"):
        gradient_scores(model, clean, clean.counterfactual("abc"))


def test_a_model_with_hooks_is_refused(small):
    model, clean, corrupted, _ = small
    with model.hooks(fwd_hooks=[("hook_embed", lambda value, hook: value)]):
        with pytest.raises(Unsupported, match="hooks are on it"):
            gradient_scores(model, clean, corrupted)


def test_a_caller_without_gradients_gets_them(small):
    model, clean, corrupted, _ = small
    plain = gradient_scores(model, clean, corrupted, "eap", progress=False)
    with torch.inference_mode():
        inside = gradient_scores(model, clean, corrupted, "eap", progress=False)
    assert torch.equal(plain.per_prompt, inside.per_prompt)


def test_a_stopped_run_goes_on_where_it_was(small, tmp_path):
    """Ctrl-C: what was found is written, and is not computed again."""
    model, clean, corrupted, runner = small
    asked = []

    def first_name(logits, data):
        asked.append(1)
        if len(asked) == 60:
            raise KeyboardInterrupt
        return logits.gather(1, data.answers)[:, 0]

    options = {
        "metric": first_name,
        "keep": tmp_path / "kept.safetensors",
        "progress": False,
    }
    with pytest.raises(KeyboardInterrupt):
        exact_scores(model, clean, corrupted, **options)
    assert (tmp_path / "kept.safetensors").exists()
    stopped = len(asked)
    scores = exact_scores(model, clean, corrupted, **options)
    second = len(asked) - stopped
    asked.clear()
    asked += [1] * 100  # past the point at which it stops
    fresh = exact_scores(model, clean, corrupted, metric=first_name, progress=False)
    assert torch.equal(scores.per_prompt, fresh.per_prompt)
    assert second < len(asked) - 100
    with pytest.raises(
        ValueError, match="of another model, of other prompts or another metric"
    ):
        exact_scores(
            model, clean[:2], corrupted[:2], keep=tmp_path / "kept.safetensors"
        )
