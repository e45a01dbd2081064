"""Plain data between the process that runs a submission and the one that judges it, in
a format that is written down."""

# A message is its length in 8 bytes (big-endian), and then a body: the length of a JSON
# text in 4 bytes, the JSON text in UTF-8, and the bytes of its tensors, one after the
# other. In the JSON text
#
#   None, True, False, numbers, text    stand for themselves (NaN and Infinity as
#                                       Python writes them);
#   [..]                                is a list;
#   {"tuple": [..]}, {"set": [..]}      are those;
#   {"dict": [[key, value], ..]}        is a dictionary; a key is None, a truth value, a
#                                       number, a text, or a tuple of keys;
#   {"tensor": [dtype, shape, n]}       is a tensor of the next n bytes, in the order of
#                                       the text;
#   {"...": 0}                          is Ellipsis, which stands where an answer is
#                                       still to be written;
#   {"recipe": [name, value]}           is something that the reader makes itself, see
#                                       `ioi_course.grading.recipes`;
#   {"other": text}                     is what can't be handed over, and of which kind
#                                       it was.
#
# The reader trusts nothing: what it makes has exactly these types, of what a writer
# calls so and of nothing else, and a message that is too large, too deep or not in this
# form raises `NotPlain`. Nothing is ever looked up by its name, but the dtypes below
# and the recipes that the reader passes in.

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

LARGEST = 256 * 2**20  # bytes of a question, which may bring a whole cache
ANSWER = 64 * 2**20  # and of what is said to it; the judge needs some ten times that
DEEPEST = 40  # values inside values
MOST = 2_000_000  # values in one message
AXES = 64  # of a tensor; torch itself computes with no more
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64,
        torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64,
        torch.complex128,
    )
}  # fmt: skip


class NotPlain(ValueError):
    """Bytes that are not a message, or a value that is too large for one."""


class Other:
    """In the place of a value that is no plain data: equal to nothing, and
    without any behaviour."""

    def __init__(self, kind: str):
        self.kind = kind

    def __repr__(self) -> str:
        return f"something that cannot be handed over: {self.kind}"


def pack(
    value: Any,
    describe: Callable[[Any], tuple[str, Any] | None] = lambda value: None,
    most: int | None = None,  # bytes; LARGEST if not given
) -> bytes:
    """The body of a message; `describe` gives name and value of a recipe,
    or None for plain data."""
    most = most or LARGEST
    tensors: list[bytes] = []
    text = json.dumps(
        _said(value, describe, tensors, 0), separators=(",", ":")
    ).encode()
    body = len(text).to_bytes(4, "big") + text + b"".join(tensors)
    if len(body) > most:
        raise NotPlain(
            f"{len(body) / 2**20:.0f} MB are too much to be handed over; "
            f"{most // 2**20} are the most."
        )
    return body


def _said(value: Any, describe: Callable, tensors: list[bytes], depth: int) -> Any:
    if depth > DEEPEST:
        raise NotPlain("The value is nested too deeply to be handed over.")

    def each(items):
        return [_said(item, describe, tensors, depth + 1) for item in items]

    if value is None or value is True or value is False:
        return value
    if value is ...:
        return {"...": 0}
    if isinstance(value, torch.Tensor):
        return _tensor(value, tensors)
    if isinstance(value, np.ndarray | np.generic) and not isinstance(
        value, float | str
    ):
        return _array(value, tensors)
    for kind in (int, float, str):
        if isinstance(value, kind):  # of a text that is an Enum, str() gives its name
            return kind(value) if kind is not str else str.__str__(value)
    if isinstance(value, list):
        return each(value)
    if isinstance(value, tuple):
        return {"tuple": each(value)}
    if isinstance(value, set | frozenset):
        return {"set": each(value)}
    if (recipe := describe(value)) is not None:
        return {"recipe": [recipe[0], _said(recipe[1], describe, tensors, depth + 1)]}
    if isinstance(value, Mapping):
        return {"dict": [each(pair) for pair in value.items()]}
    return {"other": type(value).__name__[:100]}


def _tensor(value: torch.Tensor, tensors: list[bytes]) -> dict:
    plain = value.detach().cpu()
    if (
        plain.layout != torch.strided
        or (kind := str(plain.dtype).removeprefix("torch.")) not in DTYPES
    ):
        return {"other": f"a tensor of {plain.dtype}"}
    plain = plain.resolve_conj().resolve_neg()
    # a single number may have stride 0
    plain = plain.clone(memory_format=torch.contiguous_format)
    data = plain.flatten().view(torch.uint8).numpy().tobytes()
    tensors.append(data)
    return {"tensor": [kind, list(plain.shape), len(data)]}


def _array(value: np.ndarray | np.generic, tensors: list[bytes]) -> dict:
    try:
        return _tensor(torch.as_tensor(np.array(value)), tensors)
    except (TypeError, ValueError):
        return {"other": f"an array of {value.dtype}"}


def unpack(body: bytes, make: Mapping[str, Callable[[Any], Any]] = {}) -> Any:  # noqa: B006
    """The value of a message's body; `make` holds the recipes that may stand in it."""
    try:
        size = int.from_bytes(body[:4], "big")
        said = json.loads(body[4 : 4 + size].decode())
        reader = _Reader(memoryview(body)[4 + size :], make)
        value = reader.read(said, 0)
    except NotPlain:
        raise
    except Exception as error:  # whoever wrote the bytes has many ways to be wrong
        raise NotPlain(f"Not a message: {type(error).__name__}.") from error
    if reader.left:
        raise NotPlain(f"Not a message: {len(reader.left)} bytes are left over.")
    return value


class _Reader:
    def __init__(self, left: memoryview, make: Mapping[str, Callable[[Any], Any]]):
        self.left, self.make, self.seen = left, make, 0

    def read(self, said: Any, depth: int) -> Any:
        self.seen += 1
        if self.seen > MOST or depth > DEEPEST:
            raise NotPlain(
                "Not a message: too many values, or values inside too many others."
            )
        if type(said) is list:
            return [self.read(item, depth + 1) for item in said]
        if type(said) is not dict:
            return said  # None, a truth value, a number or a text: json makes no others
        ((kind, inside),) = said.items()
        if kind == "tuple":
            return tuple(self.read(_list(inside), depth))
        if kind == "set":
            return {self.key(item) for item in self.read(_list(inside), depth)}
        if kind == "dict":
            return {
                self.key(self.read(key, depth + 1)): self.read(item, depth + 1)
                for key, item in _list(inside)
            }
        if kind == "tensor":
            return self.tensor(*inside)
        if kind == "...":
            return ...
        if kind == "other":
            return Other(str(inside)[:100])
        if kind == "recipe":
            name, value = inside
            return self.make[name](self.read(value, depth + 1))
        raise NotPlain("Not a message: an unknown kind of value.")

    def key(self, value: Any) -> Any:
        if type(value) is tuple:
            return tuple(map(self.key, value))
        if type(value) in (str, int, float, bool, type(None)):
            return value
        # a number of torch's or NumPy's
        if type(value) is torch.Tensor and value.ndim == 0:
            return value.item()
        raise NotPlain(
            "Not a message: a key or member that is neither text nor number."
        )

    def tensor(self, kind: str, shape: list[int], size: int) -> torch.Tensor:
        dtype = DTYPES[kind]
        if len(shape) > AXES:
            raise NotPlain("Not a message: a tensor with too many axes.")
        if any(type(n) is not int or n < 0 for n in [*shape, size]) or size > len(
            self.left
        ):
            raise NotPlain("Not a message: a tensor of an impossible shape.")
        if math.prod(shape) * torch.empty(0, dtype=dtype).element_size() != size:
            raise NotPlain("Not a message: a tensor whose bytes do not fill its shape.")
        data, self.left = self.left[:size], self.left[size:]
        if size == 0:
            return torch.zeros(shape, dtype=dtype)
        if dtype is torch.bool:  # any other byte would be a truth value of its own
            return (
                torch.frombuffer(bytearray(data), dtype=torch.uint8)
                .ne(0)
                .reshape(shape)
            )
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _list(value: Any) -> list:
    if type(value) is not list:
        raise NotPlain("Not a message: a list is missing.")
    return value


class Gone(BaseException):
    """The other side has closed the channel, or sent what is no message. No test may
    take it for an answer's error."""


def send(channel: socket.socket, body: bytes) -> None:
    """Send a body that `pack` made."""
    try:
        channel.sendall(len(body).to_bytes(8, "big") + body)
    except OSError as error:
        raise Gone from error


def receive(channel: socket.socket, most: int | None = None) -> bytes:
    """The next body; Gone if it has more than `most` bytes."""
    size = int.from_bytes(_exactly(channel, 8), "big")
    if size > (most or LARGEST) + 2**10:
        raise Gone
    return bytes(_exactly(channel, size))


def _exactly(channel: socket.socket, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        try:
            part = channel.recv(min(1 << 20, size - len(data)))
        except OSError as error:
            raise Gone from error
        if not part:
            raise Gone
        data += part
    return data
