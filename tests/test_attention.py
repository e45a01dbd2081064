"""Attention to roles: against plain loops, on prompts of different lengths,
with and without BOS."""

import pytest
import torch

from ioi_course.attention import (
    KEYS,
    QUERIES,
    attention_to_roles,
    by_roles,
    value_lengths,
)
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.checks.core import random_data, random_model
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset


@pytest.fixture(scope="module")
def looks(model):
    return attention_to_roles(model, IOIDataset(model, 40, seed=3))


def loop(model, data, weighted):
    """The same with a loop over prompts, heads and roles, one prompt at a
    time and without padding."""
    found = torch.zeros(
        len(data),
        model.cfg.n_layers,
        model.cfg.n_heads,
        len(QUERIES),
        len(KEYS),
        dtype=torch.float64,
    )
    for i in range(len(data)):
        tokens = data.tokens[i : i + 1, : data.lengths[i]]
        _, cache = model.run_with_cache(tokens)
        places = {role: data.pos[role][i].item() for role in ("IO", "S1", "S1+1", "S2")}
        if data.bos:
            places["BOS"] = 0
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                pattern = cache["pattern", layer][0, head]
                if weighted:
                    pattern = pattern * (
                        cache["v", layer][0, :, head] @ model.W_O[layer, head]
                    ).norm(dim=-1)
                for j, query in enumerate(QUERIES):
                    row = pattern[data.pos[query][i]]
                    for k, key in enumerate(KEYS[:-1]):
                        found[i, layer, head, j, k] = (
                            row[places[key]] if key in places else torch.nan
                        )
                    found[i, layer, head, j, -1] = row.sum() - sum(
                        row[place] for place in places.values()
                    )
    return found


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("processing", [True, False])
def test_equals_a_plain_loop_without_padding(bos, processing):
    model = random_model(1) if processing else random_model(1, processing=())
    data = IOIDataset(model, 5, seed=2, bos=bos)
    assert len(set(data.lengths.tolist())) > 1
    looks = attention_to_roles(model, data)
    assert torch.allclose(
        looks.attention, loop(model, data, False), atol=1e-9, equal_nan=True
    )
    assert torch.allclose(
        looks.weighted, loop(model, data, True), atol=1e-9, equal_nan=True
    )


def test_rows_sum_to_one_and_nothing_looks_ahead(looks):
    assert torch.allclose(looks.attention.sum(dim=-1), torch.ones(()).double())
    ahead = looks.attention[..., QUERIES.index("S1+1"), KEYS.index("S2")]
    assert ahead.abs().max() == 0


def test_batches_do_not_matter():
    model = random_model()
    data = random_data(model, 9)
    whole = attention_to_roles(model, data)
    small = attention_to_roles(model, data, memory=2e-3)
    assert torch.allclose(whole.attention, small.attention) and torch.allclose(
        whole.weighted, small.weighted
    )


@pytest.mark.parametrize(
    ("glance", "classes"),
    [
        (("S1+1", "S1"), ["previous token"]),
        (("S2", "S1+1"), ["induction"]),
        (("S2", "S1"), ["duplicate token"]),
        (("END", "S2"), ["S-inhibition"]),
        (("END", "IO"), ["name mover", "negative name mover"]),
    ],
)
def test_each_glance_finds_its_classes_on_the_synthetic_model(looks, glance, classes):
    wanted = {head for name in classes for head in CIRCUIT.roles[name]}
    order = looks.mean(*glance).flatten().argsort(descending=True)[: len(wanted)]
    assert {divmod(i, 12) for i in order.tolist()} == wanted


def test_the_tables_say_what_the_tensors_hold(looks):
    top = looks.top("END", "IO", k=3)
    layer, head = (int(part) for part in top.index[0][1:].split("H"))
    values = looks.attention[:, layer, head, 0, KEYS.index("IO")]
    assert top["mean"].iloc[0] == pytest.approx(values.mean().item())
    assert top["error"].iloc[0] == pytest.approx(values.std().item() / 40**0.5)
    assert looks.head(layer, head).loc["END", "IO"] == pytest.approx(
        values.mean().item()
    )
    assert (
        "40 prompts" in repr(looks)
        and top.index[0] in repr(looks)
        and "synthetic" in looks._repr_html_()
    )
    assert top.index[0] in looks.plot("END", "IO").summary


def test_lengths_of_values():
    v, W_O = torch.randn(2, 3, 4, 5).double(), torch.randn(4, 5, 7).double()
    expected = torch.einsum("bphd,hdm->bhpm", v, W_O).norm(dim=-1)
    assert torch.allclose(value_lengths(v, W_O), expected)


def test_a_model_in_single_precision_agrees(model):
    data = IOIDataset(model, 4)
    single = attention_to_roles(load_model("synthetic", dtype=torch.float32), data)
    assert torch.allclose(
        single.attention.double(), attention_to_roles(model, data).attention, atol=1e-4
    )


def test_wrong_requests_are_refused(looks):
    with pytest.raises(ValueError, match="query is 'IO'; choose from END, S2, S1\\+1"):
        looks.mean("IO", "END")
    with pytest.raises(ValueError, match="key is 'S3'"):
        looks.top("END", "S3")
    model = random_model()
    data = random_data(model, 3)
    with pytest.raises(ValueError, match="values must be \\[3, 'head', "):
        by_roles(torch.zeros(3, 4, 5, 5), data)
    with pytest.raises(ValueError, match="the shape is \\[3, 4\\]"):
        by_roles(torch.zeros(3, 4), data)
