"""Path patching: the fast way against hooks and against TransformerLens, and what
happens to bad input."""

import warnings

import pytest
import torch
from memory import in_a_process, linux
from transformer_lens.patching import get_act_patch_direct_path

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model, random_of
from ioi_course.metrics import logit_diff
from ioi_course.paths import direct_paths, path_patch
from ioi_course.prompts import IOIDataset
from ioi_course.results import Paths

MOVERS, INHIBITION = CIRCUIT.roles["name mover"], CIRCUIT.roles["S-inhibition"]
EARLY = (*CIRCUIT.roles["duplicate token"], *CIRCUIT.roles["induction"])
RECEIVERS = (
    ("logits", None),
    ([(2, 1)], "q"),
    ([(1, 0), (2, 3), (2, 1)], "k"),
    ([(1, 0), (2, 3)], "v"),
    ([(1, 2), (1, 3)], "q"),
)


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def demo(model):
    return IOIDataset.demo(model)


@pytest.fixture(scope="module")
def abc(demo):
    return demo.counterfactual("abc")


class Plain:
    """The four passes with hooks, one sender at a time."""

    def __init__(self, model, base, source, mlps="recompute"):
        self.model, self.base = model, base
        layers = range(model.cfg.n_layers)
        self.names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
        self.names += (
            [f"blocks.{layer}.hook_mlp_out" for layer in layers]
            if mlps == "frozen"
            else []
        )
        self.held, self.new = (
            dict(model.run_with_cache(data.tokens, names_filter=self.names)[1])
            for data in (base, source)
        )

    def three(self, layer, head, also=()):
        def hold(value, hook):
            value = self.held[hook.name].clone()
            if hook.name == self.names[layer]:
                value[:, :, head] = self.new[hook.name][:, :, head]
            return value

        return self.model.run_with_hooks(
            self.base.tokens, fwd_hooks=[*((name, hold) for name in self.names), *also]
        )

    def __call__(self, sender, receivers, component):
        if receivers == "logits":
            return logit_diff(self.three(*sender), self.base, per_prompt=True)
        seen = {}

        def note(value, hook):
            seen[hook.layer()] = value.clone()

        def deliver(value, hook):
            value = value.clone()
            for _, head in [r for r in receivers if r[0] == hook.layer()]:
                value[:, :, head] = seen[hook.layer()][:, :, head]
            return value

        at = [
            f"blocks.{layer}.attn.hook_{component}"
            for layer in {layer for layer, _ in receivers}
        ]
        self.three(*sender, also=[(name, note) for name in at])
        logits = self.model.run_with_hooks(
            self.base.tokens, fwd_hooks=[(name, deliver) for name in at]
        )
        return logit_diff(logits, self.base, per_prompt=True)


def agree(result, plain, receivers, component, senders=None, atol=1e-8):
    for sender in senders or result.heads:
        expected = plain(sender, receivers, component)
        assert torch.allclose(
            result.per_prompt[sender], expected.to(result.per_prompt), atol=atol
        ), sender


@pytest.mark.parametrize("mlps", ["recompute", "frozen"])
@pytest.mark.parametrize("receivers, component", RECEIVERS)
@pytest.mark.parametrize("processing", [None, ()])
@pytest.mark.parametrize("kind, n", [("abc", 5), ("swap_subject", 3), ("abc", 1)])
def test_agrees_with_hooks(processing, receivers, component, mlps, kind, n):
    """Processed and raw weights, prompts of different lengths, several and single
    differences, batch 1."""
    model = (
        random_model(3)
        if processing is None
        else random_model(3, processing=processing)
    )
    base = random_data(model, n, seed=4)
    source = base.counterfactual(kind)
    result = path_patch(
        model, base, source, receivers, component, mlps=mlps, progress=False
    )
    assert n == 1 or base.lengths.unique().numel() > 1
    assert torch.allclose(
        result.base, logit_diff(model(base.tokens), base, per_prompt=True)
    )
    agree(result, Plain(model, base, source, mlps), receivers, component)
    assert result.change[tuple(zip(*result.heads, strict=True))].abs().max() > 1e-4


@pytest.mark.parametrize(
    "receivers, component",
    [
        ("logits", None),
        (list(MOVERS), "q"),
        (list(INHIBITION), "v"),
        (list(EARLY), "k"),
    ],
)
def test_agrees_with_hooks_on_synthetic(model, demo, abc, receivers, component):
    senders = (
        [(0, 1), (2, 2), (4, 11)]
        if component == "k"
        else [(0, 1), (3, 0), (6, 9)]
        if component == "v"
        else [(8, 6), (9, 9)]
    )
    result = path_patch(
        model, demo, abc, receivers, component, senders=senders, progress=False
    )
    agree(result, Plain(model, demo, abc), receivers, component, senders)


@pytest.mark.parametrize("component", ["q", "k", "v"])
@pytest.mark.parametrize("processing", [None, ()])
@pytest.mark.parametrize("kind", ["abc", "swap_subject"])
def test_direct_paths_agree_with_transformer_lens(processing, component, kind):
    model = (
        random_model(5)
        if processing is None
        else random_model(5, processing=processing)
    )
    base = random_data(model, 4, seed=1)
    source = base.counterfactual(kind)
    for sender in ((0, 2), (1, 1)):
        caches = [model.run_with_cache(data.tokens)[1] for data in (source, base)]
        metric = lambda logits: logit_diff(logits, base)  # noqa: E731
        theirs = get_act_patch_direct_path(
            model, base.tokens, *caches, metric, *sender, component, verbose=False
        )
        mine = direct_paths(model, base, source, sender, component, progress=False)
        later = slice(sender[0] + 1, None)
        assert mine.role == "receiver" and mine.heads == [
            (layer, h) for layer in range(sender[0] + 1, 3) for h in range(4)
        ]
        assert torch.allclose(
            mine.per_prompt.mean(-1)[later].float(), theirs[later], atol=1e-5
        )
        assert (mine.change[later].abs().max() > 1e-4) and not mine.change[
            : sender[0] + 1
        ].any()


def test_direct_paths_agree_with_transformer_lens_on_synthetic(model, demo, abc):
    caches = [model.run_with_cache(data.tokens)[1] for data in (abc, demo)]
    metric = lambda logits: logit_diff(logits, demo)  # noqa: E731
    theirs = get_act_patch_direct_path(
        model, demo.tokens, *caches, metric, 9, 9, "q", verbose=False
    )
    mine = direct_paths(model, demo, abc, (9, 9), "q", progress=False)
    assert torch.allclose(mine.per_prompt.mean(-1)[10:].float(), theirs[10:], atol=1e-4)
    assert mine.change.abs().max() > 0.1


@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_one_receiver_is_the_direct_edge(component):
    model = random_model(0)
    base = random_data(model, 3, seed=2)
    source = base.counterfactual("abc")
    edges = direct_paths(model, base, source, (0, 1), component, progress=False)
    for receiver in ((1, 3), (2, 0)):
        one = path_patch(
            model,
            base,
            source,
            [receiver],
            component,
            senders=[(0, 1)],
            mlps="frozen",
            progress=False,
        )
        assert torch.allclose(one.per_prompt[0, 1], edges.per_prompt[receiver])


@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_some_receivers_hear_what_they_hear_among_all(component):
    model = random_model(0)
    base = random_data(model, 3, seed=2)
    source = base.counterfactual("abc")
    every = direct_paths(model, base, source, (0, 1), component, progress=False)
    some = direct_paths(
        model,
        base,
        source,
        (0, 1),
        component,
        receivers=[(2, 0), (1, 3)],
        progress=False,
    )
    assert some.heads == [(1, 3), (2, 0)]
    for layer, head in every.heads:
        expected = (
            every.per_prompt[layer, head] if (layer, head) in some.heads else every.base
        )
        assert torch.allclose(some.per_prompt[layer, head], expected)


def test_walk_on_synthetic(model, demo, abc):
    """Band 6: every step gives the published senders, and nobody else comes near."""
    quick = dict(progress=False)
    logits = path_patch(model, demo, abc, **quick)
    assert set(logits.strongest(3)) == set(MOVERS)
    assert set(logits.strongest(2, sign=1)) == set(CIRCUIT.roles["negative name mover"])
    movers = path_patch(model, demo, abc, MOVERS, "q", **quick)
    assert set(movers.strongest(4)) == set(INHIBITION)
    values = path_patch(model, demo, abc, INHIBITION, "v", **quick)
    assert set(values.strongest(7)) == set(EARLY)
    keys = path_patch(model, demo, abc, CIRCUIT.roles["induction"], "k", **quick)
    assert keys.strongest(2) == [(4, 11), (2, 2)]
    assert keys.values[4, 11].item() == pytest.approx(-0.118, abs=0.01)
    assert keys.values[2, 2].item() == pytest.approx(-0.093, abs=0.01)
    for result, k in ((movers, 4), (values, 7), (keys, 2)):
        rest = [head for head in result.heads if head not in result.strongest(k)]
        assert max(abs(result.values[head].item()) for head in rest) < 0.01


# Things that must hold whatever the model


def test_only_heads_below_a_receiver_change_anything():
    model = random_model(0)
    base = random_data(model, 3)
    result = path_patch(
        model, base, base.counterfactual("abc"), [(1, 2), (2, 0)], "q", progress=False
    )
    assert result.heads == [(layer, head) for layer in (0, 1) for head in range(4)]
    assert torch.equal(result.per_prompt[2], result.base.expand(4, -1))


def test_senders_and_receivers_in_any_order():
    model = random_model(0)
    base = random_data(model, 3)
    source = base.counterfactual("abc")
    every = path_patch(model, base, source, [(2, 3), (1, 1)], "v", progress=False)
    again = path_patch(
        model,
        base,
        source,
        [(1, 1), (2, 3), (1, 1)],
        "v",
        senders=[(1, 2), (0, 3)],
        progress=False,
    )
    assert again.heads == [(0, 3), (1, 2)]
    assert all(
        torch.allclose(again.per_prompt[head], every.per_prompt[head])
        for head in again.heads
    )
    assert torch.equal(again.per_prompt[0, 0], again.base)


def test_which_run_is_the_base():
    """A sender that says what it says in the base run changes nothing, and base and
    source cannot be exchanged."""
    model = random_model(0)
    base = random_data(model, 3)
    source = base.counterfactual("swap_subject")
    result = path_patch(model, base, source, progress=False)
    plain = Plain(model, base, source)
    plain.new = plain.held
    assert torch.allclose(plain((0, 0), "logits", None), result.base)
    back = path_patch(model, source, base, progress=False)
    assert not torch.allclose(result.per_prompt, back.per_prompt)


def test_each_prompt_by_itself():
    """A prompt's numbers do not depend on the others, nor on padding."""
    model = random_model(1)
    base = random_data(model, 5, seed=3)
    source = base.counterfactual("abc")
    together = path_patch(model, base, source, [(2, 1), (1, 1)], "k", progress=False)
    for i in range(len(base)):
        one = path_patch(
            model,
            base[i : i + 1],
            source[i : i + 1],
            [(2, 1), (1, 1)],
            "k",
            progress=False,
        )
        assert torch.allclose(one.per_prompt[..., 0], together.per_prompt[..., i])


# Results


@pytest.fixture(scope="module")
def result():
    model = random_model(0)
    base = random_data(model, 4)
    with torch.no_grad():
        return path_patch(model, base, base.counterfactual("abc"), progress=False)


def test_values(result):
    mean = result.base.mean()
    assert torch.allclose(result.values, (result.per_prompt.mean(-1) - mean) / mean)
    change = result.per_prompt - result.base
    assert torch.allclose(result.errors, change.std(-1) / 4**0.5 / mean.abs())


def test_strongest(result):
    lowest = result.strongest(12)
    changes = [result.change[head].item() for head in lowest]
    assert changes == sorted(changes) and len(set(lowest)) == 12
    assert result.strongest(12, sign=1) == lowest[::-1]
    for wrong in (0, 13, True, 2.0):
        with pytest.raises(ValueError, match="from 1|at least 1"):
            result.strongest(wrong)
    with pytest.raises(ValueError, match="sign is 0"):
        result.strongest(1, sign=0)


def test_table(result):
    table = result.table(3)
    assert (
        list(table.columns) == ["value", "error", "change"]
        and table.index.name == "sender"
        and len(table) == 3
    )
    assert table["change"].abs().is_monotonic_decreasing
    assert "class" in result.table(3, CIRCUIT)
    with pytest.raises(ValueError, match="k is -1"):
        result.table(-1)


def test_shows_itself(result):
    text = repr(result)
    assert (
        "paths to the logits, by sender (4 prompts" in text and "random weights" in text
    )
    assert "<table" in result._repr_html_() and "&lt;" not in result._repr_html_()
    assert "paths to the logits" in repr(result.plot()) and "mine" in repr(
        result.plot("mine")
    )


def test_unscaled():
    """A mean of nothing cannot be divided by; changes can still be shown."""
    per_prompt = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    flat = Paths(
        per_prompt,
        torch.tensor([1.0, -1.0]),
        [(0, 1), (1, 2)],
        "sender",
        None,
        "m",
        "paths to the logits",
    )
    with pytest.raises(ValueError, match="too near 0"):
        flat.values  # noqa: B018
    assert list(flat.table().columns) == ["change"] and len(flat.table()) == 2
    assert "logits" in repr(flat.plot())


def test_one_prompt_has_no_error():
    model = random_model(0)
    base = random_data(model, 1)
    result = path_patch(model, base, base.counterfactual("abc"), progress=False)
    assert (
        result.errors.isnan().all()
        and "error" not in result.table()
        and "1 prompt," in repr(result)
    )


# Memory and models that the engine does not serve


@pytest.mark.parametrize(
    "receivers, component, budgets",
    [
        ("logits", None, (0.5, 8e-4, 3.5e-4)),
        ([(1, 0), (2, 3)], "k", (0.5, 1.6e-3, 6.5e-4)),
    ],
)
def test_little_memory_same_numbers(receivers, component, budgets, monkeypatch):
    import ioi_course.paths as module

    model = random_model(0)
    base = random_data(model, 4)
    source = base.counterfactual("abc")
    plans, plan = [], module._plan
    monkeypatch.setattr(
        module, "_plan", lambda *given: plans.append(plan(*given)) or plans[-1]
    )
    given = (model, base, source, receivers, component)
    much, little, least = (
        path_patch(*given, memory=memory, progress=False) for memory in budgets
    )
    assert torch.allclose(much.per_prompt, little.per_prompt) and torch.allclose(
        much.per_prompt, least.per_prompt
    )
    assert (
        plans[0][0] == 4 > plans[1][0] >= plans[2][0] == 1 and plans[2][1] < plans[1][1]
    )
    with pytest.raises(
        ValueError, match="too little for one prompt and one path: it takes .* GB"
    ):
        path_patch(*given, memory=1e-6, progress=False)


def test_direct_paths_with_little_memory():
    model = random_model(0)
    base = random_data(model, 4)
    source = base.counterfactual("abc")
    much, little = (
        direct_paths(model, base, source, (0, 1), "k", memory=m, progress=False)
        for m in (0.5, 6.5e-4)
    )
    assert torch.allclose(much.per_prompt, little.per_prompt)


PEAK = """
import memory
from ioi_course.checks.core import random_model, random_data
from ioi_course.paths import path_patch
model = random_model(0, n_layers=4, n_heads=8, d_model=512)
base = random_data(model, 24)
source = base.counterfactual("abc")
path_patch(model, base[:1], source[:1], [(3, 1)], "q", senders=[(0, 1)], progress=False)
before = memory.restart()
path_patch(model, base, source, [(3, 1), (2, 2)], "q", memory=0.15, progress=False)
print(memory.peak() - before)
"""


@linux
def test_memory_budget_is_kept():
    """The peak of a process above what it had before, with the engine's own copy
    of q, k and v weights."""
    assert in_a_process(PEAK) < 0.15


@pytest.mark.parametrize(
    "receivers, component", [("logits", None), ([(1, 0), (2, 3)], "v")]
)
@pytest.mark.parametrize("mlps", ["recompute", "frozen"])
def test_a_model_with_hooks_is_run_plainly(receivers, component, mlps):
    """The same numbers, a warning, and the hook is still on it afterwards."""
    model = random_model(0)
    base = random_data(model, 5)
    source = base.counterfactual("abc")
    fast = path_patch(
        model, base, source, receivers, component, mlps=mlps, progress=False
    )
    point = model.hook_dict["blocks.1.hook_mlp_out"]
    point.add_hook(lambda value, hook: None)
    try:
        with pytest.warns(UserWarning, match="does not serve this model"):
            slow = path_patch(
                model, base, source, receivers, component, mlps=mlps, progress=False
            )
        with pytest.warns(UserWarning, match="does not serve this model"):
            edges = direct_paths(model, base, source, (1, 1), "q", progress=False)
        assert point.has_hooks()
    finally:
        model.reset_hooks()
    assert torch.allclose(fast.per_prompt, slow.per_prompt)
    assert torch.allclose(
        edges.per_prompt,
        direct_paths(model, base, source, (1, 1), "q", progress=False).per_prompt,
    )


@pytest.mark.parametrize("component", ["q", "v"])
def test_another_architecture(component):
    """Attention and MLP side by side, rotary positions: hooks do it, and agree
    with TransformerLens."""
    model = random_of("phi", processing=())
    base = random_data(model, 3)
    source = base.counterfactual("abc")
    caches = [model.run_with_cache(data.tokens)[1] for data in (source, base)]
    metric = lambda logits: logit_diff(logits, base)  # noqa: E731
    theirs = get_act_patch_direct_path(
        model, base.tokens, *caches, metric, 0, 1, component, verbose=False
    )
    with pytest.warns(UserWarning, match="Phi"):
        mine = direct_paths(model, base, source, (0, 1), component, progress=False)
    assert torch.allclose(mine.per_prompt.mean(-1)[1:].float(), theirs[1:], atol=1e-6)
    assert mine.change.abs().max() > 1e-5


def test_no_warning_and_no_hooks_left_on_a_model_that_is_served():
    model = random_model(0)
    base = random_data(model, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path_patch(
            model, base, base.counterfactual("abc"), [(2, 0)], "q", progress=False
        )
    assert not any(point.has_hooks() for point in model.hook_dict.values())


def test_an_exception_leaves_the_model_clean(monkeypatch):
    import ioi_course.paths as module

    model = random_model(0)
    base = random_data(model, 2)
    point = model.hook_dict["blocks.1.hook_mlp_out"]
    point.add_hook(lambda value, hook: None)

    def interrupt(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "logit_diff", interrupt)
    try:
        with pytest.warns(UserWarning), pytest.raises(KeyboardInterrupt):
            path_patch(
                model, base, base.counterfactual("abc"), [(2, 0)], "q", progress=False
            )
        assert (
            sum(
                len(p.fwd_hooks)
                for p in {id(p): p for p in model.hook_dict.values()}.values()
            )
            == 1
        )
    finally:
        model.reset_hooks()


# Bad input


BAD = [
    (dict(receivers="logit"), "receivers is 'logit'; give 'logits'"),
    (dict(receivers=[]), "receivers is"),
    (dict(receivers=(2, 1), component="q"), "give a list of heads"),
    (
        dict(receivers=[(2, 4)], component="q"),
        "receivers: there is no L2H4 in 3 layers of 4 heads",
    ),
    (dict(receivers=[(-1, 0)], component="q"), "there is no L-1H0"),
    (dict(receivers=[(1, 1, 1)], component="q"), "give a list of heads"),
    (dict(receivers=[(2, 1)]), "component is None; give 'q', 'k' or 'v'"),
    (dict(receivers=[(2, 1)], component="query"), "did you mean 'q'"),
    (dict(receivers=[(2, 1)], component="z"), "component is 'z'"),
    (dict(component="q"), "The logits have no 'q'"),
    (dict(receivers=[(0, 1)], component="q"), "All receivers are in layer 0"),
    (
        dict(receivers=[(1, 1)], component="q", senders=[(1, 0)]),
        "L1H0 reaches no receiver",
    ),
    (
        dict(receivers=[(1, 1)], component="q", senders=[(0, 0), (2, 0)]),
        "L2H0 reaches no receiver",
    ),
    (dict(senders=[(3, 0)]), "senders: there is no L3H0"),
    (dict(senders=[]), "senders is"),
    (dict(mlps="freeze"), "mlps is 'freeze'; give 'recompute'"),
    (dict(memory=0), "memory is 0"),
    (dict(memory=True), "memory is True"),
]


@pytest.mark.parametrize("given, message", BAD)
def test_bad_arguments(given, message):
    model = random_model(0)
    base = random_data(model, 2)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        path_patch(model, base, base.counterfactual("abc"), progress=False, **given)


def test_bad_arguments_of_direct_paths():
    model = random_model(0)
    base = random_data(model, 2)
    source = base.counterfactual("abc")
    for sender, component, message in (
        ((2, 1), "q", "L2H1 is in the last layer"),
        ((0, 4), "q", "there is no L0H4"),
        (3, "q", "sender is"),
        ((0, 1), None, "component is None"),
        ((0, 1), "values", "did you mean 'v'"),
    ):
        with pytest.raises(ValueError, match=message):
            direct_paths(model, base, source, sender, component, progress=False)
    for receivers, message in (
        ([(2, 0), (0, 3)], "L0H3 is not behind L0H1"),
        ([(1, 4)], "there is no L1H4"),
        ([], "receivers is"),
        ("logits", "receivers is"),
    ):
        with pytest.raises(ValueError, match=message):
            direct_paths(
                model, base, source, (0, 1), "q", receivers=receivers, progress=False
            )


@pytest.mark.parametrize(
    "patch", [path_patch, lambda *given: direct_paths(*given, (0, 1), "q")]
)
def test_bad_pairs(patch):
    model = random_model(0)
    base = random_data(model, 4)
    with pytest.raises(ValueError, match="do not align: 4 prompts against 3"):
        patch(model, base, base.counterfactual("abc")[:3])
    with pytest.raises(ValueError, match="do not align"):
        patch(model, base, base.counterfactual("extra_io"))
    with pytest.raises(
        ValueError,
        match="base and source are the same in 4 of 4 prompts, first in prompt 0",
    ):
        patch(model, base, base)
    mixed = IOIDataset.from_prompts(
        model, [*base.counterfactual("abc")[:3], base.records[3]]
    )
    with pytest.raises(
        ValueError, match="the same in 1 of 4 prompts, first in prompt 3"
    ):
        patch(model, base, mixed)
    with pytest.raises(TypeError, match="must be an IOIDataset"):
        patch(model, base.tokens, base)
