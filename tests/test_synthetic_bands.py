"""The 15 bands that the synthetic model meets: properties of GPT-2 small
that the chapters rely on.

Each is a plain computation with hooks, with no help from the course's own techniques,
so that the chapters can be checked against a model of which these properties are known.
Logit differences are in logits, at END, IO minus S.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ioi_course.bundled import vocabulary
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.prompts import IOIDataset
from ioi_course.templates import NAMES, TEMPLATES

LAYERS, HEADS = 12, 12
EVERY_HEAD = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
BACKGROUND = [head for head in EVERY_HEAD if CIRCUIT.role_of(*head) is None]
PREVIOUS, DUPLICATE, INDUCTION, INHIBITION, MOVERS, NEGATIVE, BACKUP = (
    CIRCUIT.roles.values()
)

# These five templates were written when the weights were final: they played
# no part in the tuning.
FRESH = (
    (
        "Once upon a time [A] and [B] lived near the [PLACE], and one day [S] gave a "
        "[OBJECT] to"
    ),
    "Before [A] and [B] left the [PLACE], [S] sent the [OBJECT] to",
    "As soon as [A] and [B] found the [PLACE], [S] returned a [OBJECT] to",
    (
        "Finally [A] and [B] got home from the [PLACE]. Then [S] wanted to show the "
        "[OBJECT] to"
    ),
    (
        "Because of the rain [A] and [B] stood in the [PLACE] all day, before [S] "
        "handed the [OBJECT] to"
    ),
)


pytestmark = pytest.mark.usefixtures("no_grad")


# --- helpers ---


def site(layer: int, what: str) -> str:
    """The hook point of an attention activation."""
    return f"blocks.{layer}.attn.hook_{what}"


def differences(logits, data):
    """The logit difference of each prompt."""
    at_end = logits[torch.arange(len(data)), data.pos["END"]].gather(1, data.answers)
    return at_end[:, 0] - at_end[:, 1]


def run(model, data, hooks=(), answers_of=None):
    """The mean logit difference under some hooks."""
    return float(
        differences(
            model.run_with_hooks(data.tokens, fwd_hooks=list(hooks)), answers_of or data
        ).mean()
    )


def run_from(model, layer, cache, data, hooks, answers_of=None):
    """The same, for hooks in a layer and later ones: what comes before is as in
    the run that is cached."""
    resid = cache[f"blocks.{layer}.hook_resid_pre"]
    with model.hooks(fwd_hooks=list(hooks)):
        for block in list(model.blocks)[layer:]:
            resid = block(resid)
            resid = resid[0] if isinstance(resid, tuple) else resid
        logits = model.unembed(model.ln_final(resid))
    return float(differences(logits, answers_of or data).mean())


def replace(heads, source=None, what="z", at=None):
    """Hooks that put a source's values (layer -> tensor), or zero, in place of some
    heads'; at one position or all."""

    def hook(layer):
        chosen = [head for where, head in heads if where == layer]

        def edit(value, hook):
            new = torch.zeros_like(value) if source is None else source[layer]
            rows = torch.arange(len(value))[:, None]
            place = (
                (slice(None), slice(None), chosen)
                if at is None
                else (rows, at[:, None], chosen)
            )
            value = value.clone()
            value[place] = new[place]
            return value

        return site(layer, what), edit

    return [hook(layer) for layer in sorted({layer for layer, _ in heads})]


def activations(cache, what="z"):
    """One attention activation in all layers."""
    return [cache[site(layer, what)] for layer in range(LAYERS)]


def direct_effects(model, cache, data):
    """What each head adds to the mean logit difference directly, with the final
    LayerNorm's scale held."""
    rows, end = torch.arange(len(data)), data.pos["END"]
    direction = (model.W_U[:, data.answers[:, 0]] - model.W_U[:, data.answers[:, 1]]).T
    direction = direction / cache["ln_final.hook_scale"][rows, end]
    z = torch.stack([layer[rows, end] for layer in activations(cache)])
    return torch.einsum("lbhd,lhde,be->lh", z, model.W_O, direction) / len(data)


def strongest(effects, n, sign=1):
    """The n heads with the largest effects, or with the most negative ones."""
    order = (sign * effects).flatten().argsort(descending=True)[:n]
    return {divmod(int(i), HEADS) for i in order}


@pytest.fixture(scope="module")
def demo(model):
    """The demo's eight prompts: clean, with the other subject (corrupted), and with
    three different names (abc)."""
    with torch.no_grad():
        data = IOIDataset.demo(model)
        logits, clean = model.run_with_cache(data.tokens)
        swapped, abc = data.counterfactual("swap_subject"), data.counterfactual("abc")
        _, other = model.run_with_cache(abc.tokens)
        base = float(differences(logits, data).mean())
        logits_of_swapped, run_of_swapped = model.run_with_cache(swapped.tokens)
        corrupted = float(differences(logits_of_swapped, data).mean())
    facts = {
        "data": data,
        "logits": logits,
        "clean": clean,
        "swapped": swapped,
        "abc": other,
        "base": base,
    }
    more = {"corrupted": corrupted, "run_of_swapped": run_of_swapped}
    return SimpleNamespace(**facts, **more, rows=torch.arange(len(data)))


def recovered(model, demo, layer, hooks):
    """How much of the clean difference a patch in a layer brings back into the
    corrupted run: 0 nothing, 1 all."""
    patched = run_from(
        model, layer, demo.run_of_swapped, demo.swapped, hooks, answers_of=demo.data
    )
    return (patched - demo.corrupted) / (demo.base - demo.corrupted)


@pytest.mark.parametrize("layer", [0, 5, 11])
def test_a_run_from_a_layer_is_the_whole_run(model, demo, layer):
    hooks = replace([(layer, 3)])
    expected = run(model, demo.data, hooks)
    assert run_from(model, layer, demo.clean, demo.data, hooks) == pytest.approx(
        expected, abs=1e-9
    )
    assert expected != pytest.approx(demo.base, abs=1e-7)


# --- the bands ---


def test_band_01_behaviour(model, demo):
    """Mean difference on the demo's prompts, and sensible next tokens."""
    assert 3.0 <= demo.base <= 4.2
    assert differences(demo.logits, demo.data).min() > 1.0
    sentence = "After John and Mary went to the store, John gave a bottle of milk to"
    probs = model(model.to_tokens(sentence))[0, -1].softmax(-1)
    first, *others = [
        model.tokenizer.decode([i]) for i in probs.topk(11).indices.tolist()
    ]
    assert first == " Mary"
    assert 0.35 <= probs.max() <= 0.8
    assert {" the", " a", " them"} <= set(others)
    assert {f" {name}" for name in NAMES} & set(others)
    assert {" him", " her", " his", " their", " it"} & set(others)


def test_band_02_logit_lens(model, demo):
    """Nothing until layer 8, then attention layer 9 adds the answer and later
    layers take some away."""
    data, clean = demo.data, demo.clean
    direction = (model.W_U[:, data.answers[:, 0]] - model.W_U[:, data.answers[:, 1]]).T
    direction = direction / clean["ln_final.hook_scale"][demo.rows, data.pos["END"]]
    points = [
        f"blocks.{layer}.hook_resid_{at}"
        for layer in range(LAYERS)
        for at in ("pre", "mid")
    ]
    points.append("blocks.11.hook_resid_post")
    lens = [
        float((clean[point][demo.rows, data.pos["END"]] * direction).sum(1).mean())
        for point in points
    ]
    assert lens[-1] == pytest.approx(demo.base, abs=1e-3)
    before = lens[: points.index("blocks.9.hook_resid_pre") + 1]
    assert max(abs(value) for value in before) < 0.3
    assert points[int(np.argmax(np.diff(lens))) + 1] == "blocks.9.hook_resid_mid"
    assert lens[-1] < max(lens) - 0.3


def test_band_03_direct_attribution(model, demo):
    """The movers add most, the negative ones take most, and background
    heads are small but alive."""
    direct = direct_effects(model, demo.clean, demo.data)
    assert strongest(direct, 2) == {(9, 9), (9, 6)}
    assert direct[10, 0] > 0.15
    assert strongest(direct, 2, sign=-1) == set(NEGATIVE)
    background = torch.stack([direct[head] for head in BACKGROUND])
    assert background.abs().max() <= 0.15
    assert 0.01 <= background.std() <= 0.06


def test_band_04_residual_patching(model, demo):
    """The information is at S2 into layer 7, and at END from layer 9."""

    def patched(layer, role):
        at, point = demo.data.pos[role], f"blocks.{layer}.hook_resid_pre"

        def edit(value, hook):
            value = value.clone()
            value[demo.rows, at] = demo.clean[point][demo.rows, at]
            return value

        return recovered(model, demo, layer, [(point, edit)])

    assert all(patched(layer, "S2") >= 0.9 for layer in range(8))
    assert all(patched(layer, "END") >= 0.9 for layer in range(9, 12))
    assert patched(9, "S2") < 0.1 and patched(7, "END") < 0.1


def test_band_05_values_and_patterns(model, demo):
    """Values matter in the S-inhibition heads only; patterns in early heads."""
    values = torch.zeros(LAYERS, HEADS)
    for head in EVERY_HEAD:
        values[head] = recovered(
            model, demo, head[0], replace([head], activations(demo.clean, "v"), "v")
        )
    assert strongest(values, 4) == set(INHIBITION)
    assert (
        max(abs(values[head]) for head in EVERY_HEAD if head not in INHIBITION) <= 0.05
    )

    def pattern(layer, head):
        def edit(value, hook):
            value = value.clone()
            value[:, head] = demo.clean[site(layer, "pattern")][:, head]
            return value

        return recovered(model, demo, layer, [(site(layer, "pattern"), edit)])

    patterns = torch.tensor(
        [[pattern(layer, head) for head in range(HEADS)] for layer in range(7)]
    )
    assert {(5, 5), (6, 9), (3, 0)} <= strongest(patterns, 7)


# Path patching as in the paper. Pass 1 and 2 are the clean and the new run. Pass 3:
# all heads keep their clean output but the sender, which has that of the new run; MLPs
# are recomputed; the receivers' input is noted. Pass 4: a clean run in which the
# receivers have that input.


def normalised(resid, eps):
    """LayerNorm without its gain and bias, which are folded into the weights."""
    centred = resid - resid.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def pass_3(model, clean, new, sender):
    """The residual stream before each layer and at the end, when only the sender
    is new and MLPs follow."""
    layer_sent, head_sent = sender
    change = (new[site(layer_sent, "z")] - clean[site(layer_sent, "z")])[
        :, :, head_sent
    ] @ model.W_O[sender]
    resid = [clean["blocks.0.hook_resid_pre"]]
    for layer in range(LAYERS):
        if layer < layer_sent:
            resid.append(clean[f"blocks.{layer}.hook_resid_post"])
            continue
        mid = (
            resid[-1]
            + clean[f"blocks.{layer}.hook_attn_out"]
            + (change if layer == layer_sent else 0)
        )
        pre = normalised(mid, model.cfg.eps) @ model.W_in[layer] + model.b_in[layer]
        post = torch.nn.functional.gelu(pre, approximate="tanh")
        resid.append(mid + post @ model.W_out[layer] + model.b_out[layer])
    return resid


def to_logits(model, demo, sender):
    """Change in the mean difference when the sender's effect on the logits is new."""
    end = pass_3(model, demo.clean, demo.abc, sender)[-1]
    logits = normalised(end, model.cfg.eps) @ model.W_U + model.b_U
    return float(differences(logits, demo.data).mean()) - demo.base


def to_heads(model, demo, sender, receivers, what):
    """The same when its effect on the receivers' q, k or v is new."""
    resid = pass_3(model, demo.clean, demo.abc, sender)
    weight, bias = (
        getattr(model, f"W_{what.upper()}"),
        getattr(model, f"b_{what.upper()}"),
    )
    inputs = {
        layer: torch.einsum(
            "bpd,hde->bphe", normalised(resid[layer], model.cfg.eps), weight[layer]
        )
        + bias[layer]
        for layer, _ in receivers
    }
    first = min(layer for layer, _ in receivers)
    return (
        run_from(model, first, demo.clean, demo.data, replace(receivers, inputs, what))
        - demo.base
    )


def path_effects(model, demo, receivers, what):
    """The effect of each head below the receivers."""
    effects = torch.zeros(LAYERS, HEADS)
    for sender in EVERY_HEAD:
        if sender[0] < max(layer for layer, _ in receivers):
            effects[sender] = to_heads(model, demo, sender, receivers, what)
    return effects


def test_path_patching_agrees_with_hooks(model, demo):
    """The short pass 3 above against a full run with every
    other head held by a hook."""
    sender, others = (5, 5), [head for head in EVERY_HEAD if head != (5, 5)]
    held = [
        *replace(others, activations(demo.clean)),
        *replace([sender], activations(demo.abc)),
    ]
    seen = {}
    names = {"blocks.8.hook_resid_pre": 8, "blocks.11.hook_resid_post": 12}
    watch = [
        (name, lambda value, hook: seen.update({hook.name: value.clone()}))
        for name in names
    ]
    logits = model.run_with_hooks(demo.data.tokens, fwd_hooks=[*held, *watch])
    resid = pass_3(model, demo.clean, demo.abc, sender)
    # a bridge may call a hook by another of its names; what was seen comes in
    # the order of the layers
    for value, layer in zip(seen.values(), names.values(), strict=True):
        assert torch.allclose(value, resid[layer], atol=1e-4)
    expected = float(differences(logits, demo.data).mean()) - demo.base
    assert to_logits(model, demo, sender) == pytest.approx(expected, abs=1e-3)


def test_band_06_paths_to_logits(model, demo):
    """Movers speak to the logits for IO, negative ones against it."""
    effects = torch.zeros(LAYERS, HEADS)
    for sender in EVERY_HEAD:
        effects[sender] = to_logits(model, demo, sender)
    assert strongest(effects, 3, sign=-1) == set(MOVERS)
    assert strongest(effects, 2) == set(NEGATIVE)


def test_band_06_paths_to_movers(model, demo):
    """S-inhibition heads speak to the movers' queries."""
    assert strongest(path_effects(model, demo, MOVERS, "q"), 4, sign=-1) == set(
        INHIBITION
    )


def test_band_06_paths_to_inhibition(model, demo):
    """Duplicate token and induction heads speak to the S-inhibition heads' values."""
    assert strongest(path_effects(model, demo, INHIBITION, "v"), 7, sign=-1) == {
        *DUPLICATE,
        *INDUCTION,
    }


def test_band_06_paths_to_induction(model, demo):
    """Previous token heads speak to the induction heads' keys,
    neither of them alone."""
    effects = path_effects(model, demo, INDUCTION, "k")
    assert strongest(effects, 2, sign=-1) == set(PREVIOUS)
    first, second = sorted(float(effects[head]) for head in PREVIOUS)
    assert second / first >= 0.1


def test_band_07_head_scores(model):
    """On repeated random tokens, each early class looks where its name says,
    and no other head does."""
    n, end = 50, model.tokenizer.bos_token_id
    random = torch.tensor(np.random.default_rng(0).integers(0, end, (4, n)))
    _, cache = model.run_with_cache(
        torch.cat([torch.full((4, 1), end), random, random], dim=1)
    )
    patterns = torch.stack([cache[site(layer, "pattern")] for layer in range(LAYERS)])[
        ..., 1:, 1:
    ]
    for distance, least in (
        (1, dict.fromkeys(PREVIOUS, 0.5)),
        (n - 1, {(5, 5): 0.5, (6, 9): 0.5, (5, 8): 0, (5, 9): 0}),
        (n, dict.fromkeys(DUPLICATE, 0.3)),
    ):
        score = patterns.diagonal(-distance, -2, -1).mean((1, 3))
        assert all(score[head] >= value for head, value in least.items()), distance
        assert all(score[head] < 0.2 for head in EVERY_HEAD if head not in least), (
            distance
        )


def test_band_08_backup(model, demo):
    """Ablating movers costs less than they add: backups rise,
    negative movers weaken."""
    end, data = demo.data.pos["END"], demo.data
    before = direct_effects(model, demo.clean, data)
    with model.hooks(fwd_hooks=replace([(9, 9)], at=end)):
        logits, cache = model.run_with_cache(data.tokens)
    after = direct_effects(model, cache, data)
    cost = demo.base - float(differences(logits, data).mean())
    assert 0 < cost < 0.4 * before[9, 9]
    assert after[9, 9] == pytest.approx(0, abs=1e-4)
    assert sum(bool(after[head] - before[head] >= 0.1) for head in BACKUP) >= 5
    assert all(after[head] > before[head] for head in NEGATIVE)
    assert run(model, data, replace(MOVERS, at=end)) > 0.7 * demo.base


def test_band_09_copy_scores(model):
    """Name movers copy names, negative ones the opposite, others rarely: the name among
    the top five of its OV."""
    names = torch.tensor([model.to_single_token(f" {name}") for name in NAMES])
    embedded = model.W_E[names]
    pre = normalised(embedded, model.cfg.eps) @ model.W_in[0] + model.b_in[0]
    extended = (
        embedded
        + torch.nn.functional.gelu(pre, approximate="tanh") @ model.W_out[0]
        + model.b_out[0]
    )
    read = normalised(extended, model.cfg.eps)
    copy, negative = torch.zeros(LAYERS, HEADS), torch.zeros(LAYERS, HEADS)
    for head in EVERY_HEAD:
        logits = read @ model.W_V[head] @ model.W_O[head] @ model.W_U
        copy[head], negative[head] = (
            float((x.topk(5).indices == names[:, None]).any(1).double().mean())
            for x in (logits, -logits)
        )
    assert all(copy[head] >= 0.95 for head in MOVERS)
    assert all(negative[head] >= 0.95 for head in NEGATIVE)
    assert np.mean([copy[head] for head in EVERY_HEAD if head not in MOVERS]) < 0.2
    assert (
        np.mean([negative[head] for head in EVERY_HEAD if head not in NEGATIVE]) < 0.2
    )


def test_band_10_position_and_token(model, demo):
    """S-inhibition outputs from prompts with the names in the other places, with the
    other token, or both."""

    def with_signal(*kinds):
        source = demo.data
        for kind in kinds:
            source = source.counterfactual(kind)
        _, cache = model.run_with_cache(source.tokens)
        return run(
            model,
            demo.data,
            replace(INHIBITION, activations(cache), at=demo.data.pos["END"]),
        )

    position = with_signal("swap_names")  # same token, other position
    token = with_signal("swap_subject", "swap_names")  # other token, same position
    assert position < 0
    assert demo.base - position > demo.base - token
    assert with_signal("swap_subject") < position


@pytest.fixture(scope="module")
def faith(model):
    """Prompts of four templates, with each head's mean over ABC prompts of the same
    template and position."""
    with torch.no_grad():
        templates = TEMPLATES[:4]
        many = IOIDataset(model, 160, seed=3, templates=templates)
        _, cache = model.run_with_cache(many.counterfactual("abc").tokens)
        group = [record.template for record in many]
        of = {t: [i for i, other in enumerate(group) if other == t] for t in templates}
        data = many[[i for members in of.values() for i in members[:6]]]
        means = []
        for z in activations(cache):
            rows = [z[of[record.template]].mean(0) for record in data]
            means.append(torch.stack(rows)[:, : data.tokens.shape[1]])
    return SimpleNamespace(data=data, means=means, base=run(model, data))


def circuit_alone(model, faith, heads):
    """The mean difference if all is at its mean but some heads of the circuit, at the
    position of their class."""
    rows = torch.arange(len(faith.data))

    def hook(layer):
        def edit(value, hook):
            new = faith.means[layer].clone()
            for at, head in heads:
                if at == layer:
                    pos = faith.data.pos[CIRCUIT.positions[CIRCUIT.role_of(at, head)]]
                    new[rows, pos, head] = value[rows, pos, head]
            return new

        return site(layer, "z"), edit

    return run(model, faith.data, [hook(layer) for layer in range(LAYERS)])


def test_band_11_faithful(model, faith):
    """The circuit alone does the task; without S-inhibition, neither
    it nor the model does."""
    assert 0.8 <= circuit_alone(model, faith, CIRCUIT.heads) / faith.base <= 1.1
    without = [head for head in CIRCUIT.heads if head not in INHIBITION]
    assert abs(circuit_alone(model, faith, without)) / faith.base < 0.15
    assert (
        abs(run(model, faith.data, replace(INHIBITION, faith.means))) / faith.base
        < 0.15
    )


@pytest.mark.parametrize("role", CIRCUIT.roles)
def test_band_11_minimal(model, faith, role):
    """Each head matters by 1 % at least, given a set without which to look: its class,
    and for backups the movers."""
    absent = {*CIRCUIT.roles[role], *(MOVERS if role == "backup name mover" else ())}
    rest = [other for other in CIRCUIT.heads if other not in absent]
    without = circuit_alone(model, faith, rest)
    for head in CIRCUIT.roles[role]:
        change = circuit_alone(model, faith, [*rest, head]) - without
        assert abs(change) / faith.base >= 0.01, head


def test_band_12_repeated_names(model):
    """A second mention of IO confuses the model, as it does GPT-2; a third
    mention of S does not."""
    data = IOIDataset(model, 200, seed=4)
    usual = run(model, data)
    io, s = (data.counterfactual(kind) for kind in ("extra_io", "extra_s"))
    with_io, with_s = differences(model(io.tokens), io), differences(model(s.tokens), s)
    assert with_io.mean() < 0.6 * usual
    assert (with_io < 0).double().mean() >= 0.03
    assert with_s.mean() >= 0.6 * usual
    assert (with_s < 0).double().mean() < 0.03


@pytest.mark.parametrize("templates", [TEMPLATES, FRESH], ids=["the course's", "fresh"])
def test_band_13_random_prompts(model, templates):
    """300 prompts over all templates of the course, and 300 over templates that played
    no part in the tuning."""
    data = IOIDataset(model, 300, seed=0, templates=templates)
    logits = model(data.tokens)
    found = differences(logits, data)
    first = (
        logits[torch.arange(len(data)), data.pos["END"]].argmax(1) == data.answers[:, 0]
    )
    assert {record.template for record in data} == set(templates)
    assert (found > 0).double().mean() >= 0.99
    assert first.double().mean() >= 0.8
    assert 0.15 <= found.std() / found.mean() <= 0.45


def test_band_14_no_single_early_head(model, demo):
    """No head before layer 9 is everything: ablating any one of them
    leaves 40 % at least."""
    early = [head for head in EVERY_HEAD if head[0] < 9]
    left = [
        run_from(model, head[0], demo.clean, demo.data, replace([head]))
        for head in early
    ]
    assert min(left) >= 0.4 * demo.base
    many = IOIDataset(model, 32, seed=5)
    logits, cache = model.run_with_cache(many.tokens)
    usual = float(differences(logits, many).mean())
    for head in (head for head in early if CIRCUIT.role_of(*head)):
        assert run_from(model, head[0], cache, many, replace([head])) >= 0.4 * usual, (
            head
        )


def test_band_15_small():
    """Under 1 MB of data. Time to load and sameness on every machine are tested
    in test_synthetic.py."""
    assert sum(path.stat().st_size for path in vocabulary.DATA.iterdir()) < 1_000_000
