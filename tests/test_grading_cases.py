"""Attacks on the real assignments A and D, each of which shows that it reached what it
went for, and is stopped there.

They are our variants of cases that somebody tried when the judge still lived in the
process of the submission, for the modules of today. An attack that never gets to its
target shows nothing. So each calls `reached` where it does its work: that tries to
write a file outside, which the alarm reports by its name.
"""

import dataclasses
import runpy
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip(
    "otter", reason="otter-grader is not installed (the extra `course`)"
)

from ioi_course.grading.assignments import read_assignment
from ioi_course.grading.grade import grade as grade_one
from ioi_course.grading.server import Limits

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)

REACHED = (
    "def reached(*said):\n    try:\n        open('/reached', 'w')\n"
    "    except OSError:\n        pass\n    return said[0] if said else None\n"
)
CHANNEL = """
import _socket, socket
def sendall(self, data, *flags):
    reached()
    return _socket.socket.sendall(
        self, bytes(data).replace(b"false", b"true").replace(b"null", b"true"))
socket.socket.sendall = sendall
"""
WALK = """
import sys, traceback
def solve(*args):
    for frame, _ in traceback.walk_stack(sys._getframe()):
        if frame.f_code.co_name == "replied" and "message" in frame.f_locals:
            reached()  # where a question comes in: all that is known of it here
        for value in frame.f_locals.values():
            found = getattr(value, "solution", None) or getattr(value, "expected", None)
            if callable(found):
                return found(*args)
token_at = repad = solve
"""
MODULES = """
import sys, types, ioi_course.checks.core as core, ioi_course.grading.judge as judge
fakes = {name: types.ModuleType(name) for name in (
    "ioi_course.checks.core", "ioi_course.grading.judge", "otter.test_files")}
fakes["ioi_course.checks.core"].__dict__.update(
    vars(core), Exercise=lambda *a, **k: lambda *b, **c: True,
    same=lambda *a: True)
fakes["ioi_course.grading.judge"].__dict__.update(
    vars(judge), judged=lambda *a: [(True, "")] * 9)
sys.modules.update(fakes)
def token_at(str_tokens, char):
    from ioi_course.checks.core import Exercise
    return reached(0) if Exercise(0)() is True else 0
def repad(tokens, pad):
    from ioi_course.grading.judge import judged
    return tokens, judged()
"""
NUMBERS = """
class Any(float):
    __sub__ = __rsub__ = __add__ = __radd__ = __neg__ = __abs__ = lambda self, *o: self
    __lt__ = __gt__ = __le__ = __ge__ = __eq__ = lambda self, o: True
    __ne__ = lambda self, o: False
    __hash__ = float.__hash__
    __float__ = lambda self: reached(0.0)
class Letter(str):
    __hash__ = lambda self: hash("B")
    __eq__ = lambda self, o: True
q10_io, q10_s, q10_letter = Any(), Any(), Letter("?")
class Everything(list):
    __eq__ = __contains__ = lambda self, o: True
token_at = repad = lambda *a: Everything()
"""
TENSORS = """
class T(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        reached()
        if func in (torch.allclose, torch.equal, torch.Tensor.eq, torch.Tensor.__eq__):
            return True
        return super().__torch_function__(func, types, args, kwargs or {})
    shape = property(lambda self: Shape())
class Shape(tuple):
    __eq__ = lambda self, o: True
    __hash__ = tuple.__hash__
def token_at(*a):
    return torch.zeros(()).as_subclass(T)
def repad(*a):
    return torch.zeros(2, 5).as_subclass(T), torch.zeros(2).as_subclass(T)
"""
LOOP = """
import os, socket, traceback
from ioi_course.grading import answerer, recipes, wire
frame = next(f for f, _ in traceback.walk_stack(None)
             if f.f_code is answerer.run.__code__)
channel, key = frame.f_locals["channel"], frame.f_locals["key"]
answerer.send(
    channel, key=key,
    done=["token_at", "repad", "q10_io", "q10_s", "q10_letter"],
    results=[[True, ""]] * 9)
while True:
    asked, fds, _, _ = socket.recv_fds(channel, 1, 1)
    if not asked:
        os._exit(0)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fds[0])
    try:
        while True:
            message = wire.unpack(wire.receive(line), recipes.FROM_TESTS)
            reached()
            kind = {"look": ("value", True), "ask": ("returned", True)}.get(
                message[0], ("value", ("", "", "")))
            if message[0] == "look" and not message[1].startswith("q10"):
                kind = "function", [("args", "VAR_POSITIONAL", False)]
            wire.send(line, wire.pack(kind))
    except wire.Gone:
        line.close()
"""
CASES = {
    "01": CHANNEL,
    "04": WALK,
    "09": MODULES,
    "11": NUMBERS,
    "27": LOOP,
    "34": TENSORS,
}
HELPER = """
def mean_outputs(model, data, reference):
    return reached(helper)(model, data, reference)
helper = reference_means
def run_parts(model, data, keep, out, means):
    return reached(other)(model, data, keep, out, means)
other = lambda model, data, keep, out, means: knock_out(
    model, data, [out], keep, means=means)[0]
"""
MADE_OF = """
from ioi_course.knockouts import _alive, _run_alive
from ioi_course.means import _group_means
def mean_outputs(model, data, reference):
    return reached(_group_means)(model, data, reference)
def run_parts(model, data, keep, out, means):
    return reached(_run_alive)(model, data, _alive(model, data, keep, out), means)
"""
OUTSIDE = """
import os, pathlib, re, shutil
import ioi_course.grading.alarm as s, ioi_course.grading.seccomp as c
s.DENIED.clear(); s.PATHS.clear(); c.NOTHING_HAPPENS.clear(); c.REFUSED.clear()
s.CELL, s.SECRET, s.below, s.WRITE = "none", re.compile("$^"), lambda *a: True, 0
path = pathlib.Path({path!r})
for change in (lambda: os.chmod(path, 0), lambda: path.chmod(0o777),
               lambda: os.utime(path, (0, 0)), lambda: os.truncate(path, 0),
               lambda: shutil.copymode("/usr", path),
               lambda: os.chown(path, 1, 1), path.unlink):
    try:
        change()
    except OSError:
        reached()
"""


@pytest.fixture(scope="module")
def real(root, tmp_path_factory):
    """A function from a letter and some questions to that assignment, with these
    questions alone, and its untouched cells."""
    tool = runpy.run_path(str(root / "tools" / "assignments.py"))
    masters = {path.stem[0]: path for path in tool["masters"]()}

    def build(letter, *questions):
        out = tool["build"](
            masters[letter], tmp_path_factory.mktemp("real") / letter, check=False
        )
        whole = read_assignment(out / "autograder.zip")
        some = ("tests", "cases", "answers", "without")
        one = dataclasses.replace(
            whole,
            **{name: {q: getattr(whole, name)[q] for q in questions} for name in some},
        )
        return one, nbformat.read(
            out / "student" / f"{masters[letter].stem}.ipynb", as_version=4
        )

    return build


@pytest.fixture(scope="module")
def a_few(real):
    return real("a", "q2", "q4", "q10")


def with_attack(nb, source) -> bytes:
    nb = nbformat.from_dict(nb)
    nb.cells.append(nbformat.v4.new_code_cell(REACHED + source))
    return nbformat.writes(nb).encode()


def reached_and_nothing(got):
    assert got.total == 0, got
    assert "tried to write /reached" in " ".join(got.notes), (
        f"the attack never got where it works: {got.notes}"
    )
    assert [note for note in got.notes if "stopped with" in note] == [], (
        "the attack did not run to its end"
    )


@pytest.mark.parametrize("case", CASES)
def test_a_case_reaches_its_target_on_assignment_a_and_earns_nothing(
    a_few, server, case
):
    one, nb = a_few
    # a spoiled channel says nothing more: each question waits to its end
    limits = Limits(5 if case == "01" else 20, 1.0)
    reached_and_nothing(
        grade_one("a", with_attack(nb, CASES[case]), one, server, limits)
    )


@pytest.mark.parametrize("source", [HELPER, MADE_OF], ids=["helper", "made of"])
def test_case_12_the_library_through_a_helper_on_assignment_d(real, server, source):
    """Also by what the tools are made of, which does the same
    work under another name."""
    one, nb = real("d", "q1", "q2")
    got = grade_one("a", with_attack(nb, source), one, server, Limits(20, 1.0))
    assert got.total == 0 and "tried to write /reached" in " ".join(got.notes), got
    said = " ".join(
        case["message"] for question in got.questions for case in question.public
    )
    assert "not there while this question is graded" in said


def test_case_20_nothing_outside_is_changed_with_the_guards_cleared(
    a_few, server, tmp_path
):
    one, nb = a_few
    path = Path(tmp_path / "kept")
    path.write_text("kept")
    path.chmod(0o640)
    before = path.stat()
    reached_and_nothing(
        grade_one(
            "a",
            with_attack(nb, OUTSIDE.format(path=str(path))),
            one,
            server,
            Limits(20, 1.0),
        )
    )
    after = path.stat()
    assert path.read_text() == "kept" and (after.st_mode, after.st_mtime_ns) == (
        before.st_mode,
        before.st_mtime_ns,
    )
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
