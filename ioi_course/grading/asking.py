"""How the tests of an assignment ask an answer: the same words in a notebook, on
Gradescope and in our own grader."""

# A test case takes the names of answers, as otter wants it, and calls them. In a
# notebook and on Gradescope these are the student's functions and values
# themselves. In our grader they are stand-ins in a process that ran no student's
# code: calling one is `ask(name, *args)`, which has the answer called in another
# process and returns plain data.

from __future__ import annotations

import builtins
import hashlib
import inspect
import random
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ioi_course.grading import recipes, wire

TEXT = 2000  # characters of what an answer says
KINDS = {kind.name: kind for kind in inspect._ParameterKind}
NOT_PLAIN = "it returned what cannot be handed over"


class SideEffect(Exception):
    """An answer changed what it was given."""


class Line:
    """The connection from a judge to the process that answers."""

    def __init__(self, channel: socket.socket, hidden: bool):
        self._channel, self._hidden = channel, hidden

    def look(self, name: str) -> Any:
        """What stands under a name: a value, a stand-in for a function, or None
        where there is nothing."""
        try:
            kind, said = self._send("look", name)
        except TypeError as error:
            return wire.Other(str(error))
        return (
            Asked(self, name, _signature(said))
            if kind == "function"
            else said
            if kind == "value"
            else None
        )

    def ask(self, name: str, *args: Any, **named: Any) -> Any:
        """What the answer returns for these arguments, or its exception; SideEffect if
        it changed one of them."""
        kind, said = self._send("ask", name, args, named)
        if kind == "returned":
            return said
        if kind == "changed":
            raise SideEffect(
                f"it changed its argument {said} in place: work on a copy"
                if said >= 0
                else "it left hooks on the model: take off what you put on"
            )
        raise self._error(said)

    def generators(self) -> tuple:
        return self._send("generators")[1]

    def _send(self, *message: Any) -> tuple[str, Any]:
        wire.send(self._channel, wire.pack(message, recipes.describe))
        try:
            body = wire.receive(self._channel, wire.ANSWER)
            kind, said = wire.unpack(body, recipes.FROM_ANSWERS)
        except wire.NotPlain as error:
            raise TypeError(f"{NOT_PLAIN}: {error}") from error
        except (TypeError, ValueError) as error:
            raise wire.Gone from error
        expected = {
            "look": ("function", "value", "missing"),
            "ask": ("returned", "changed", "raised"),
        }
        if kind not in expected.get(message[0], ("value",)) or (
            kind == "changed" and type(said) is not int
        ):
            raise wire.Gone
        return kind, said

    def _error(self, said: Any) -> Exception:
        """The exception, as the built-in one that it is, or is a kind of. In a hidden
        test it says only which."""
        try:
            names, text, line, number = said
            kinds = [
                getattr(builtins, name, None) for name in names if type(name) is str
            ]
            kind = next(
                (
                    kind
                    for kind in kinds
                    if isinstance(kind, type) and issubclass(kind, Exception)
                ),
                Exception,
            )
            if issubclass(kind, StopIteration | StopAsyncIteration):
                kind = (
                    RuntimeError  # as from a generator: it would end the loop of a test
                )
            if self._hidden:
                return _made(kind, f"at line {int(number)} of its cell")
            return _made(
                kind,
                str(text)[:TEXT]
                + (f", at the line `{str(line)[:200]}`" if line else ""),
            )
        except (TypeError, ValueError) as error:
            raise wire.Gone from error


def _made(kind: type[Exception], text: str) -> Exception:
    try:
        return kind(text)
    except TypeError:  # a few want more than a text
        return Exception(text)


def _signature(said: Any) -> inspect.Signature | None:
    """The parameters of an answer, as it says that they are."""
    try:
        empty = inspect.Parameter.empty
        return inspect.Signature(
            [
                inspect.Parameter(name, KINDS[kind], default=None if has else empty)
                for name, kind, has in said[:100]
            ]
        )
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


class Asked:
    """Stands for an answer in the judge's process: it is called like the answer, and
    asks for what that returns."""

    def __init__(self, line: Line, name: str, signature: inspect.Signature | None):
        self._line, self.__name__ = line, name
        self.__signature__ = signature or inspect.Signature(
            [inspect.Parameter("args", KINDS["VAR_POSITIONAL"])]
        )

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._line.ask(self.__name__, *args, **named)


def generators(answer: Callable) -> tuple:
    """The state of Python's, NumPy's and torch's own generators in the process of an
    answer, as a short text each."""
    return answer._line.generators() if isinstance(answer, Asked) else states()


def states() -> tuple[str, str, str]:
    """The same, of this process."""
    numpy = np.random.get_state()
    found = (
        repr(random.getstate()),
        repr((numpy[1].tobytes(), numpy[2:])),
        repr(torch.get_rng_state().numpy().tobytes()),
    )
    return tuple(hashlib.sha256(each.encode()).hexdigest()[:16] for each in found)
