"""A small GPT-2 for the browser: a graph in ONNX whose inputs are interventions, and
its weights in 16 bits."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from ioi_course.bundled.codes import SPACES, space
from ioi_course.engine import engine_of
from ioi_course.models import is_synthetic, model_name
from ioi_course.project import CourseError

OPSET, WEIGHTS = 17, "weights"  # the name under which the graph looks for its weights
SMALL = 4096  # numbers; tensors below it are kept in float32
GELU, CUBE = np.sqrt(2 / np.pi), 0.044715  # of GPT-2's activation


def the_onnx():
    """The package `onnx`, which only this export needs;
    CourseError says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise CourseError(
            "The lab's page needs onnx to write the model: pip install "
            "'ioi_course[page]'."
        ) from error
    return onnx


# The weights


def basis_of(model) -> np.ndarray:
    """Orthonormal directions [d_model, k] in which the stream is written down.

    The synthetic model's own subspaces: half of its weights are exactly zero there. Any
    other model's as they are.
    """
    return space(*SPACES) if is_synthetic(model) else np.eye(model.cfg.d_model)


def weights_of(model) -> dict[str, np.ndarray]:
    """The weights in float64, folded as far as they can be: of LayerNorm only a
    division by the stream's size is left.

    CourseError for a model that is no GPT-2, or whose stream has a mean: without its
    removal LayerNorm can be left out.
    """
    if model.cfg.architecture != "GPT2LMHeadModel":
        raise CourseError(
            f"The lab's page runs GPT-2's architecture; {model_name(model)} is "
            f"{model.cfg.architecture}."
        )
    engine, turn = engine_of(model), basis_of(model)

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().double().cpu().numpy()

    def reading(norm, weight, bias) -> tuple[np.ndarray, np.ndarray]:
        """What reads the stream through a LayerNorm, with the
        norm's own weights in it."""
        gain, shift = array(norm[0]), array(norm[1])
        centred = gain[:, None] * array(weight)
        return turn.T @ (centred - centred.mean(axis=0)), array(bias) + shift @ array(
            weight
        )

    found = {
        "embed": array(engine.embed[0]) @ turn,
        "places": array(engine.embed[1]) @ turn,
    }
    for i, block in enumerate(engine.blocks):
        qkv, bias = reading(block.ln1, *block.qkv)
        scale = np.ones(qkv.shape[1])
        scale[: qkv.shape[1] // 3] = block.d_head**-0.5  # of attention scores
        found |= {f"{i}.qkv": qkv * scale, f"{i}.qkv_bias": bias * scale}
        found |= {
            f"{i}.out": array(block.out[0]) @ turn,
            f"{i}.out_bias": array(block.out[1]) @ turn,
        }
        found[f"{i}.mlp_in"], found[f"{i}.mlp_in_bias"] = reading(
            block.ln2, *block.mlp_in
        )
        found |= {
            f"{i}.mlp_out": array(block.mlp_out[0]) @ turn,
            f"{i}.mlp_out_bias": array(block.mlp_out[1]) @ turn,
        }
    found["unembed"], found["unembed_bias"] = reading(engine.ln_final, *engine.unembed)
    _check_centred(engine, model)
    return {
        name: np.where(np.abs(value) < 1e-6, 0, value) for name, value in found.items()
    }


def _check_centred(engine, model) -> None:
    written = [
        *engine.embed,
        *(part for block in engine.blocks for part in (*block.out, *block.mlp_out)),
    ]
    if max(part.mean(dim=-1).abs().max().item() for part in written) > 1e-4:
        raise CourseError(
            f"The stream of {model_name(model)} has a mean: load it with "
            "center_writing_weights."
        )


def packed(weights: dict[str, np.ndarray]) -> bytes:
    """Weights as one compressed file: a list of tensors in JSON, then numbers.

    Large tensors in 16 bits with a scale for each row, so that the largest number of a
    row is 32767; others in float32.
    """
    tensors, parts = [], []
    for name, value in weights.items():
        large = value.size >= SMALL
        tensors.append(
            {"name": name, "shape": value.shape, "bits": 16 if large else 32}
        )
        if large:
            scale = np.maximum(np.abs(value).max(axis=1, keepdims=True), 1e-30) / 32767
            parts += [scale.astype("<f4"), np.rint(value / scale).astype("<i2")]
        else:
            parts.append(value.astype("<f4"))
    head = json.dumps(tensors).encode()
    head += b" " * (-len(head) % 4)
    body = b"".join(part.tobytes() + b"\0" * (-part.nbytes % 4) for part in parts)
    return gzip.compress(len(head).to_bytes(4, "little") + head + body, 6, mtime=0)


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The weights of a packed file in float32, as the browser has them."""
    data, found = gzip.decompress(data), {}
    at = 4 + int.from_bytes(data[:4], "little")
    for tensor in json.loads(data[4:at]):
        shape = tuple(tensor["shape"])
        pieces = (
            [((shape[0], 1), "<f4"), (shape, "<i2")]
            if tensor["bits"] == 16
            else [(shape, "<f4")]
        )
        arrays = []
        for size, kind in pieces:
            count = int(np.prod(size))
            arrays.append(
                np.frombuffer(data, kind, count, at).reshape(size).astype(np.float32)
            )
            at += count * int(kind[-1]) + -count * int(kind[-1]) % 4
        found[tensor["name"]] = arrays[0] if len(arrays) == 1 else arrays[0] * arrays[1]
    return found


# The graph


@dataclass
class _Graph:
    """Nodes as they come; a value is called by its name."""

    onnx: object
    nodes: list = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(
        self, op: str, *inputs: str | float | list[int], name: str = "", **attributes
    ) -> str:
        """A node with one output."""
        name = name or f"{op}_{len(self.nodes)}"
        given = [
            each if isinstance(each, str) else self.constant(each) for each in inputs
        ]
        self.nodes.append(self.onnx.helper.make_node(op, given, [name], **attributes))
        return name

    def constant(self, value: float | list[int] | np.ndarray) -> str:
        array = np.asarray(value, np.float32 if isinstance(value, float) else None)
        for name, known in self.constants.items():
            if (
                known.dtype == array.dtype
                and known.shape == array.shape
                and (known == array).all()
            ):
                return name
        self.constants[name := f"constant_{len(self.constants)}"] = array
        return name

    def normed(self, x: str, d_model: int, eps: float) -> str:
        squares = self("ReduceSumSquare", x, axes=[-1], keepdims=1)
        return self(
            "Div",
            x,
            self("Sqrt", self("Add", self("Div", squares, float(d_model)), float(eps))),
        )

    def linear(self, x: str, name: str) -> str:
        return self("Add", self("MatMul", x, name), f"{name}_bias")

    def mixed(self, own: str, kept: str, other: str) -> str:
        """kept · own + (1 − kept) · other."""
        return self(
            "Add", self("Mul", own, kept), self("Mul", self("Sub", 1.0, kept), other)
        )

    def gelu(self, x: str) -> str:
        cubed = self("Mul", self("Mul", x, x), x)
        inner = self(
            "Mul", self("Add", x, self("Mul", cubed, float(CUBE))), float(GELU)
        )
        return self("Mul", self("Mul", x, 0.5), self("Add", self("Tanh", inner), 1.0))


def _layer(g: _Graph, i: int, x: str, cfg, future: str) -> tuple[str, dict[str, str]]:
    """One layer; the stream after it, and what is put out."""
    heads, d_head, index = cfg.n_heads, cfg.d_head, np.array(i, np.int64)
    stay = g("Unsqueeze", g("Gather", "stay", index, axis=0), [-1])
    x = g.mixed(x, stay, g("Gather", "stream", index, axis=0))
    qkv = g.linear(g.normed(x, cfg.d_model, cfg.eps), f"{i}.qkv")
    # q, k, v; head; pos
    parts = g("Transpose", g("Reshape", qkv, [0, 3, heads, d_head]), perm=[1, 2, 0, 3])
    q, k, v = (g("Gather", parts, np.array(n, np.int64), axis=0) for n in range(3))
    scores = g("MatMul", q, g("Transpose", k, perm=[0, 2, 1]))
    pattern = g("Softmax", g("Where", future, -1e9, scores), axis=-1)
    keep = g("Unsqueeze", g("Gather", "keep", index, axis=0), [-1])
    z = g.mixed(g("MatMul", pattern, v), keep, g("Gather", "stand", index, axis=0))
    together = g("Reshape", g("Transpose", z, perm=[1, 0, 2]), [0, heads * d_head])
    after = g("Add", x, g.linear(together, f"{i}.out"))
    hidden = g.gelu(g.linear(g.normed(after, cfg.d_model, cfg.eps), f"{i}.mlp_in"))
    out = {"resid": x, "pattern": pattern, "z": z}
    return g("Add", after, g.linear(hidden, f"{i}.mlp_out")), {
        n: g("Unsqueeze", v, [0]) for n, v in out.items()
    }


def graph_of(model, weights: dict[str, np.ndarray]):
    """The model as an ONNX graph; its weights are expected beside it, in float32, in
    the order in which they are given.

    In: tokens [pos]; of each head's z how much is kept [layer, head, pos] and
    what stands in for the rest [layer, head, pos, d_head]; of the stream before
    each layer how much stays [layer, pos] and what stands in for the rest [layer,
    pos, k]. Out: the logits at END; z, pattern and stream (`resid`) of every
    layer, after the changes.
    """
    onnx, cfg = the_onnx(), model.cfg
    if cfg.act_fn not in ("gelu_new", "gelu_pytorch_tanh"):
        raise CourseError(
            f"The lab's page knows GPT-2's activation; {model_name(model)} uses "
            f"{cfg.act_fn}."
        )
    g, helper, width = _Graph(onnx), onnx.helper, weights["embed"].shape[1]
    size = g("Shape", "tokens")
    x = g(
        "Add",
        g("Gather", "embed", "tokens", axis=0),
        g("Slice", "places", [0], size, [0]),
    )
    row = g("Range", np.array(0, np.int64), g("Squeeze", size), np.array(1, np.int64))
    future = g("Greater", g("Unsqueeze", row, [0]), g("Unsqueeze", row, [1]))
    layers = []
    for i in range(cfg.n_layers):
        x, out = _layer(g, i, x, cfg, future)
        layers.append(out)
    for name in ("z", "pattern", "resid"):
        g("Concat", *(out[name] for out in layers), name=name, axis=0)
    end = g("Gather", x, np.array([-1], np.int64), axis=0)
    g(
        "Squeeze",
        g.linear(g.normed(end, cfg.d_model, cfg.eps), "unembed"),
        [0],
        name="logits",
    )
    L, H, f = cfg.n_layers, cfg.n_heads, onnx.TensorProto.FLOAT
    shapes = {
        "keep": [L, H, "pos"],
        "stand": [L, H, "pos", cfg.d_head],
        "stay": [L, "pos"],
        "stream": [L, "pos", width],
    }
    outs = {
        "logits": [cfg.d_vocab],
        "z": shapes["stand"],
        "pattern": [L, H, "pos", "pos"],
        "resid": shapes["stream"],
    }
    values = helper.make_tensor_value_info
    inputs = [
        values("tokens", onnx.TensorProto.INT32, ["pos"]),
        *(values(n, f, s) for n, s in shapes.items()),
    ]
    constants = [
        onnx.numpy_helper.from_array(value, name) for name, value in g.constants.items()
    ]
    graph = helper.make_graph(
        g.nodes,
        "lab",
        inputs,
        [values(n, f, s) for n, s in outs.items()],
        [*constants, *_beside(onnx, weights)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
    )


def _beside(onnx, weights: dict[str, np.ndarray]) -> Iterator:
    """The weights as tensors that lie in another file, one after the other."""
    offset = 0
    for name, value in weights.items():
        tensor = onnx.TensorProto(
            name=name, dims=value.shape, data_type=onnx.TensorProto.FLOAT
        )
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, part in (
            ("location", WEIGHTS),
            ("offset", offset),
            ("length", 4 * value.size),
        ):
            tensor.external_data.add(key=key, value=str(part))
        offset += 4 * value.size
        yield tensor
