"""Plain data between judge and answerer: what goes over keeps its type and value, and
nothing else gets through."""

import enum
import math
import socket

import numpy as np
import pytest
import torch
from asked import Loop

from ioi_course.checks.core import random_model
from ioi_course.grading import recipes, wire
from ioi_course.grading.asking import Line, SideEffect
from ioi_course.prompts import IOIDataset
from ioi_course.roles import PAPER


def there_and_back(value):
    return wire.unpack(wire.pack(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -(2**70),
        1.5,
        -0.0,
        math.inf,
        "",
        "ö\ud800\n",
        [],
        [1, [2.0, None]],
        (),
        (1, (2, "x")),
        {"a": 1, (9, 9): "END", None: [], 3: 2.5},
        {"x", "y"},
        {(9, 9), (10, 0)},
        ...,
    ],
)
def test_plain_values_come_back_as_they_were(value):
    def written(some):
        """The order of a set says nothing: two strings of it can share a place."""
        return sorted(map(repr, some)) if isinstance(some, set) else repr(some)

    found = there_and_back(value)
    assert found == value and type(found) is type(value)
    assert written(found) == written(value)


def test_nan_is_kept_and_tensors_come_back_bit_by_bit():
    assert math.isnan(there_and_back({"x": math.nan})["x"])
    for dtype in wire.DTYPES.values():
        for shape in ((), (0, 3), (2, 3)):
            tensor = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
            found = there_and_back([tensor, 1])[0]
            assert (
                found.dtype == dtype
                and found.shape == tensor.shape
                and torch.equal(found, tensor)
            )
    strange = torch.tensor([math.nan, -0.0, math.inf])[::2]
    assert torch.equal(
        there_and_back(strange).view(torch.int32),
        strange.contiguous().view(torch.int32),
    )


def test_what_is_nearly_plain_becomes_plain():
    class Number(int):
        __eq__ = lambda *a: True  # noqa: E731
        __hash__ = int.__hash__

    class Text(str, enum.Enum):
        X = "x"  # str() would give its name

    parameter = torch.nn.Parameter(torch.ones(2))
    found = there_and_back(
        [
            Number(3),
            Text.X,
            parameter,
            np.float64(2),
            np.int64(3),
            np.ones((2, 1)),
            np.bool_(True),
        ]
    )
    assert [type(each) for each in found] == [
        int,
        str,
        torch.Tensor,
        float,
        *[torch.Tensor] * 3,
    ]
    assert (
        found[:2] == [3, "x"]
        and not found[2].requires_grad
        and found[4].item() == 3
        and found[5].shape == (2, 1)
    )
    assert there_and_back({np.int64(3): 1, (np.int64(1), torch.tensor(2)): 2}) == {
        3: 1,
        (1, 2): 2,
    }


@pytest.mark.parametrize(
    "value", [object(), (i for i in "ab"), lambda x: x, range(3), np.array([object()])]
)
def test_what_is_no_plain_data_is_named_and_equals_nothing(value):
    found = there_and_back([value])[0]
    assert (
        type(found) is wire.Other and found != value and found != wire.Other(found.kind)
    )


def message(text: str, data: bytes = b"") -> bytes:
    return len(text.encode()).to_bytes(4, "big") + text.encode() + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\xff" * 40,
        message("{"),
        message("[" * 100_000),
        message('{"tuple": 3}'),
        message('{"a": 1, "b": 2}'),
        message('{"set": [[1]]}'),
        message('{"dict": [[1]]}'),
        message('{"dict": [[{"set": []}, 1]]}'),
        message('{"pickle": "x"}'),
        message('{"recipe": ["model", "synthetic"]}'),
        message('{"recipe": ["os.system", "true"]}'),
        message('{"tensor": ["float32", [2], 8]}'),
        message('{"tensor": ["float32", [3], 8]}', bytes(8)),
        message('{"tensor": ["float32", [-2, -1], 8]}', bytes(8)),
        message('{"tensor": ["object", [1], 8]}', bytes(8)),
        message(f'{{"tensor": ["float64", [{"1," * 10**5}1], 8]}}', bytes(8)),
        message(f'{{"tensor": ["float64", [{2**62}, {2**62}, 0], 0]}}'),
        message('{"tensor": ["float32", [1e300], 8]}', bytes(8)),
        message('{"tensor": ["int64", [true], 8]}', bytes(8)),
        message("1", b"left over"),
        message("1" * 5000),
        message("[" * 60 + "]" * 60),
    ],
)
def test_what_is_no_message_is_refused(body):
    with pytest.raises(wire.NotPlain):
        wire.unpack(body)


def test_what_is_too_large_is_refused_by_writer_and_reader(monkeypatch):
    monkeypatch.setattr(wire, "LARGEST", 1000)
    with pytest.raises(wire.NotPlain, match="too much"):
        wire.pack(torch.zeros(1000))
    deep = []
    for _ in range(60):
        deep = [deep]
    with pytest.raises(wire.NotPlain, match="deeply"):
        wire.pack(deep)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall((2**40).to_bytes(8, "big"))
        with pytest.raises(wire.Gone):
            wire.receive(ours)
        monkeypatch.setattr(wire, "ANSWER", 100)  # an answer has less room
        theirs.sendall((2000).to_bytes(8, "big"))
        with pytest.raises(wire.Gone):
            Line(ours, hidden=False).look("x")


def test_a_byte_that_is_no_truth_value_becomes_one():
    found = wire.unpack(message('{"tensor": ["bool", [2], 2]}', b"\x00\x07"))
    assert torch.equal(found.to(torch.int8), torch.tensor([0, 1], dtype=torch.int8))


def test_models_prompts_caches_circuits_and_functions_go_as_recipes():
    model = random_model(3, n_layers=2)
    data = IOIDataset(model, 3, seed=5).counterfactual("extra_io")
    _, cache = model.run_with_cache(data.tokens)
    table = recipes.table({(0, "S2"): [1.0, 2.0]})
    sent = wire.pack(
        (model, data, cache, PAPER, table, model.tokenizer), recipes.describe
    )
    copy, prompts, kept, circuit, function, tokenizer = wire.unpack(
        sent, recipes.FROM_TESTS
    )
    assert torch.equal(copy(data.tokens), model(data.tokens))
    assert (
        prompts.prompts == data.prompts
        and prompts.names == data.names
        and torch.equal(prompts.tokens, data.tokens)
    )
    assert all(torch.equal(prompts.pos[role], data.pos[role]) for role in data.pos)
    assert kept.keys() == cache.keys() and all(
        torch.equal(kept[name], cache[name]) for name in cache
    )
    assert circuit.roles == PAPER.roles and circuit.edges == PAPER.edges
    assert function(0, "S2").tolist() == [1.0, 2.0] and tokenizer.encode(
        " Mary"
    ) == model.tokenizer.encode(" Mary")
    # of all these an answer may return prompts alone
    with pytest.raises(wire.NotPlain):
        wire.unpack(wire.pack(model, recipes.describe), recipes.FROM_ANSWERS)
    assert (
        wire.unpack(wire.pack(data, recipes.describe), recipes.FROM_ANSWERS).prompts
        == data.prompts
    )


def test_made_up_runs_are_those_of_the_tests():
    every, weights = {(1, 1): "END", (2, 0): "S2"}, {(1, 1): 3.0, (2, 0): 5.0}
    run = recipes.adding_up(every, weights)
    assert run(None, {}).tolist() == [7.0, 9.0, 4.0] and run(
        {(1, 1): "END"}, {}
    ).tolist() == [2.0, 4.0, 1.5]
    # out at another role: still there
    assert run(None, {(2, 0): "END"}).tolist() == [7.0, 9.0, 4.0]
    both = recipes.in_pairs([(1, 1), (2, 0)], torch.ones(2, 2, 3, dtype=torch.float64))
    assert (
        both(every, {}).tolist() == [4.0] * 3
        and both(every, {(2, 0): "S2"}).tolist() == [1.0] * 3
    )
    backup = recipes.standing_in((9, 9), (10, 6), (10, 7))
    keep = dict.fromkeys([(9, 9), (10, 6), (10, 7)], "END")
    assert backup(keep, {}).tolist() == [-1.5, -0.5] and backup(
        keep, {(9, 9): "END"}
    ).tolist() == [-2.5, -1.5]


def test_an_answer_is_asked_and_its_side_effects_are_seen():
    def answer(x, *, add=0.0):
        return x + add

    def changes(x):
        x += 1
        return x

    def fails(x):
        raise LookupError("nothing\nthere")

    class Own(ValueError):
        pass

    def own(x):
        raise Own("mine")

    line = Loop(
        {"answer": answer, "changes": changes, "fails": fails, "own": own, "n": 3}
    )
    assert line.look("n") == 3 and line.look("missing") is None
    asked = line.look("answer")
    assert str(asked.__signature__) == "(x, *, add=None)" and asked(
        torch.ones(2), add=0.5
    ).tolist() == [1.5, 1.5]
    given = torch.zeros(2)
    with pytest.raises(SideEffect, match="argument 0 in place"):
        line.look("changes")(given)
    assert given.tolist() == [0.0, 0.0]
    with pytest.raises(LookupError, match="nothing, at the line `raise LookupError"):
        line.look("fails")(1)
    with pytest.raises(ValueError, match="mine"):
        line.look("own")(1)
    hidden = Loop(line.names, hidden=True)
    with pytest.raises(LookupError, match=r"^at line \d+ of its cell$"):
        hidden.look("fails")(1)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3,), (2, 1)])
def test_an_expanded_tensor_crosses(shape):
    """Also of one number, which counts as contiguous and has the stride 0."""
    value = torch.tensor(2.5, dtype=torch.float64).expand(shape)
    back = wire.unpack(wire.pack(value))
    assert torch.equal(back, value) and back.dtype == value.dtype
