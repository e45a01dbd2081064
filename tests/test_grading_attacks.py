"""Attacks on the grader, by kinds: each runs to its end in a notebook of wrong
answers, and earns nothing.

The table of docs/threats names these kinds. What an attack needs of the grader's
insides is that of today; where it has moved, the attack goes for what is there.
"""

import json
import re
import sys
import zipfile
from importlib import import_module

import pytest
from small import (
    ALL,
    DOUBLE,
    HEAD,
    NAME,
    NOTHING,
    WRONG,
    instead_of,
    notebook,
    with_cell,
)

from ioi_course.checks.core import Exercise
from ioi_course.grading.absence import PARTS, modules_of
from ioi_course.grading.assignments import read_assignment
from ioi_course.grading.grade import grade as grade_one
from ioi_course.grading.server import Limits

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)

TRUE = "data.replace(b'false', b'true').replace(b'False', b'True')"
WALK = (
    "import sys\nframes, at = [], sys._getframe()\nwhile at:\n    frames.append(at)\n"
    "    at = at.f_back\n"
)
EQUAL = (
    "class Any(float):\n"
    "    __sub__ = __rsub__ = __add__ = __radd__ = __mul__ = __abs__ = lambda self, "
    "*o: self\n"
    "    __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __bool__ = lambda self, *o: "
    "True\n    __ne__ = lambda self, *o: False\n    __hash__ = float.__hash__\n"
)
SUBCLASS = (
    "class T(torch.Tensor):\n"
    "    @classmethod\n"
    "    def __torch_function__(cls, func, types, args=(), kwargs=None):\n"
    "        if func in (torch.allclose, torch.equal):\n            return True\n"
    "        return super().__torch_function__(func, types, args, kwargs or {})\n"
)
ATTACKS = {
    "patched channel": [
        (
            "import socket, _socket\n"
            "socket.socket.sendall = lambda self, data: _socket.socket.sendall(self, "
            f"{TRUE})"
        ),
        (
            "import socket, _socket\nsend = _socket.socket.send\n"
            f"socket.socket.send = lambda self, data, *a: send(self, {TRUE}, *a)\n"
            "socket.socket.recv = lambda self, n, *a: _socket.socket.recv(self, n, "
            "*a).replace(b'hidden', b'public')"
        ),
        "from ioi_course.grading import wire\nold = wire.send\n"
        f"wire.send = lambda channel, data: old(channel, {TRUE})",
    ],
    "encoder": [
        (
            "import json\nold = json.dumps\n"
            "json.dumps = lambda *a, **k: old(*a, **k).replace('false', 'true')"
        ),
        (
            "import json.encoder\n"
            'json.encoder.JSONEncoder.encode = lambda self, o: \'{"results": [[true, '
            '""]]}\''
        ),
        (
            "from ioi_course.grading import wire\nold = wire.pack\n"
            "wire.pack = lambda value, *a: old(('returned', True) if value and "
            "value[0] == 'returned' else value, *a)"
        ),
    ],
    "builtins shadowed in the library": [
        (
            "import ioi_course.checks.core as c\nc.isinstance = lambda *a: True\n"
            "c.all = c.any = c.bool = lambda *a: True"
        ),
        (
            "import ioi_course.checks.core as c\nc.same = lambda *a: True\n"
            "c.Verdict.__bool__ = lambda self: True"
        ),
        (
            "import builtins\nbuiltins.AssertionError = int\n"
            "builtins.type = lambda *a: float"
        ),
        (
            "torch.allclose = torch.equal = lambda *a, **k: True\n"
            "torch.Tensor.__eq__ = lambda *a: True"
        ),
    ],
    "fake entries in sys.modules": [
        (
            "import sys, types, ioi_course.checks.core as core\n"
            "fake = types.ModuleType('core')\nfake.__dict__.update(vars(core))\n"
            "fake.Exercise = lambda *a, **k: (lambda *a, **k: True)\n"
            "fake.run = lambda f, case: 2.0\nfake.same = lambda *a: True\n"
            "sys.modules['ioi_course.checks.core'] = fake"
        ),
        (
            "import sys, types\nfake = types.ModuleType('torch')\n"
            "fake.__dict__.update(vars(torch))\nfake.allclose = lambda *a, **k: True\n"
            "sys.modules['torch'] = fake"
        ),
        (
            "import sys\nclass Yes:\n"
            "    __getattr__ = lambda self, name: (lambda *a, **k: True)\n"
            "sys.modules['otter.test_files'] = sys.modules['ioi_course.grading.judge'] "
            "= Yes()"
        ),
    ],
    "frames walked": [
        WALK
        + (
            "def double(x):\n    for f in frames:\n"
            "        if hasattr(f.f_locals.get('self'), 'solution'):\n"
            "            return f.f_locals['self'].solution(x)\n    return 1.0"
        ),
        (
            "import traceback\ndef double(x):\n"
            "    for f, _ in traceback.walk_stack(None):\n"
            "        for value in f.f_locals.values():\n"
            "            if callable(getattr(value, 'solution', None)):\n"
            "                return value.solution(x)\n"
            "        if 'expected' in f.f_locals:\n"
            "            return f.f_locals['expected']\n    return 1.0"
        ),
        (
            "import gc\ndef margin(logits):\n"
            "    found = [o for o in gc.get_objects() if type(o).__name__ == "
            "'Exercise' and o.number == '1']\n"
            "    return found[0].solution(logits) if found else 0"
        ),
    ],
    "guard lists cleared": [
        (
            "import ioi_course.grading.alarm as s\n"
            "s.DENIED.clear(); s.PATHS.clear(); s.CELL = 'none'\n"
            "s.below = lambda *a: True\ns.SECRET = __import__('re').compile('$^')"
        ),
        (
            "import ioi_course.grading.recipes as r\n"
            "r.FROM_TESTS.clear(); r.FROM_ANSWERS['prompts'] = lambda given: True"
        ),
        (
            "import ioi_course.grading.asking as a\na.KINDS.clear()\n"
            "a.Line._error = lambda *x: None\na.Line.look = lambda self, name: (9, 9)"
        ),
    ],
    "caches and module data mutated": [
        (
            "import ioi_course.checks.core as c\nmodel = c.random_model(0)\n"
            "for p in model.parameters():\n    p.data.zero_()\n"
            "c.random_model = lambda *a, **k: model"
        ),
        (
            "import ioi_course.grading.recipes as r\nr.synthetic.cache_clear()\n"
            "r.synthetic = lambda: None\n"
            "r.FUNCTIONS.update({name: lambda *a: (lambda *b: torch.zeros(3)) for name "
            "in r.FUNCTIONS})"
        ),
        (
            "import linecache, functools\nlinecache.cache.clear()\n"
            "functools.cache = lambda f: f"
        ),
    ],
    "properties on test classes": [
        (
            "from otter.test_files import ExceptionTestFile as F\n"
            "F.test_case_results = property(lambda s: [], lambda s, v: None)\n"
            "F.run = lambda self, env: None"
        ),
        (
            "from otter.test_files.abstract_test import TestCaseResult as R\n"
            "R.passed = property(lambda s: True, lambda s, v: None)"
        ),
        (
            "from ioi_course.checks.core import Verdict\n"
            "Verdict.passed = property(lambda s: True)\n"
            "Verdict.kind = property(lambda s: 'passed')"
        ),
    ],
    "objects that equal everything": [
        EQUAL + "double = lambda x: Any()\nmargin = lambda x: Any()\nbest_head = Any()",
        (
            "class Head(tuple):\n    __eq__ = lambda self, other: True\n"
            "    __hash__ = tuple.__hash__\nbest_head = Head((1, 1))"
        ),
        (
            "class All(type):\n    __instancecheck__ = __eq__ = lambda *a: True\n"
            "    __hash__ = type.__hash__\nclass One(metaclass=All):\n"
            "    __eq__ = lambda *a: True\nbest_head = One()\ndouble = lambda x: One()"
        ),
        (
            "from unittest.mock import ANY, MagicMock\nbest_head = ANY\n"
            "double = MagicMock(return_value=ANY)"
        ),
    ],
    "tensor subclasses": [
        SUBCLASS + "margin = lambda x: T(torch.zeros(()))",
        SUBCLASS
        + (
            "T.__eq__ = lambda *a: True\ndouble = lambda x: T(torch.zeros(()))\n"
            "best_head = T(torch.zeros(2))"
        ),
        (
            "class P(torch.nn.Parameter):\n    __eq__ = lambda *a: True\n"
            "    shape = property(lambda s: torch.Size([]))\n"
            "    tolist = lambda s: 2.0\nmargin = lambda x: P(torch.zeros(3))"
        ),
    ],
    "late patches by threads": [
        (
            "import threading, time\ndef late():\n    while True:\n"
            "        time.sleep(0.01)\n        torch.allclose = lambda *a, **k: True\n"
            "threading.Thread(target=late, daemon=True).start()"
        ),
        (
            "import threading\ndef late():\n    import ioi_course.checks.core as c\n"
            "    c.same = lambda *a: True\ndef double(x):\n"
            "    threading.Thread(target=late).start()\n    return 1.0"
        ),
        (
            "import threading, os, json\ndef late():\n    while True:\n"
            "        for fd in range(3, 40):\n            try:\n"
            '                os.write(fd, b\'{"results": [[true, ""]]}\\n\')\n'
            "            except OSError:\n                pass\ndef double(x):\n"
            "    threading.Thread(target=late, daemon=True).start()\n"
            "    import time; time.sleep(0.3)\n    return 1.0"
        ),
    ],
    "at exit, destructors, signals": [
        (
            "import atexit, os\n"
            'atexit.register(lambda: os.write(3, b\'{"results": [[true, ""], [true, '
            '""]]}\\n\'))'
        ),
        (
            "class Last:\n    def __del__(self):\n        import torch\n"
            "        torch.allclose = lambda *a, **k: True\ndef margin(x):\n"
            "    Last()\n    return 0"
        ),
        (
            "import signal\n"
            "signal.signal(signal.SIGALRM, lambda *a: "
            "torch.__dict__.update(allclose=lambda *a, **k: True))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)"
        ),
        (
            "import os, weakref\n"
            "os.register_at_fork(after_in_child=lambda: "
            "torch.__dict__.update(equal=lambda *a: True))"
        ),
    ],
    "the protocol taken over": [
        (
            "import gc, json, os, socket\neach = gc.get_objects()\n"
            "key = next(o for o in each if type(o) is dict and "
            "{'key', 'work', 'cells'} <= set(o))['key']\n"
            "channel = next("
            "o for o in each if type(o) is socket.socket and o.fileno() > 2)\n"
            "def say(**m):\n    channel.sendall("
            "b'\\n' + json.dumps(m | {'key': key}).encode() + b'\\n')\n"
            "say(done=['double', 'margin', 'best_head'])\n"
            "say(results=[[True, '']] * 2)\n"
            "while True:\n    said, fds, _, _ = socket.recv_fds(channel, 1, 1)\n"
            "    if not said:\n        os._exit(0)\n"
            '    os.write(fds[0], b\'{"results": [[true, ""], [true, ""]]}\\n\')\n'
            "    os.close(fds[0])"
        ),
        (
            "from ioi_course.grading import answerer\n"
            "answerer.replied = lambda *a: ('value', True)"
        ),
        (
            "from ioi_course.grading import answerer, wire\n"
            "answerer.replied = lambda message, names: ('missing' if message[0] == "
            "'look' else 'returned', [[True, '']])"
        ),
        "from ioi_course.grading import wire\nwire.pack = lambda *a: b'\\xff' * 99",
    ],
    "sockets peeked": [
        (
            "import socket, json\ndef double(x):\n    for fd in range(3, 40):\n"
            "        try:\n"
            "            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, "
            "fileno=fd)\n            s.setblocking(False)\n"
            "            said = s.recv(1 << 16, socket.MSG_PEEK)\n"
            "            s.detach()\n"
            "            if b'expected' in said or b'secret' in said:\n"
            "                return 82\n        except (OSError, ValueError):\n"
            "            pass\n    return 1.0"
        ),
        (
            "import os\ndef margin(x):\n    for fd in range(3, 60):\n        try:\n"
            "            os.set_blocking(fd, False)\n            os.read(fd, 1 << 16)\n"
            "        except OSError:\n            pass\n    return 0"
        ),
        (
            "import array, socket\nfor fd in range(3, 40):\n    try:\n"
            "        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)\n"
            "        s.setblocking(False)\n"
            "        s.sendmsg([b'q'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, "
            "array.array('i', [0]))])\n        s.detach()\n"
            "    except (OSError, ValueError):\n        pass"
        ),
    ],
    "results written beside": [
        "import json\nfor n in ('results.json', 'results.pkl', '.OTTER_LOG'):\n"
        "    open(n, 'w').write(json.dumps({'q1': 2, 'total': 6}))",
        (
            "import os, shutil\nshutil.rmtree('.ipython')\n"
            "for name in os.listdir('.'):\n    open(name, 'w').write('{}')"
        ),
        (
            "import os\nfor fd in range(3, 64):\n    try:\n"
            '        os.write(fd, b\'{"nonce": "0", "results": [[true, ""], [true, '
            '""]]}\\n\' * 9)\n    except OSError:\n        pass'
        ),
    ],
}
CASES = [
    pytest.param(source, id=f"{kind} {i}")
    for kind, tried in ATTACKS.items()
    for i, source in enumerate(tried, start=1)
]


@pytest.mark.parametrize("source", CASES)
def test_an_attack_earns_nothing(grade, source):
    got, points = grade(notebook([*WRONG, source]), timeout=5)
    assert points == NOTHING, got
    odd = [note for note in got.notes if "stopped with" in note]
    assert odd == [], "the attack did not run to its end, so it shows nothing"


def test_each_kind_has_three_variants():
    assert len(ATTACKS) >= 15 and all(len(tried) >= 3 for tried in ATTACKS.values()), (
        list(ATTACKS)
    )


@pytest.mark.parametrize(
    "said",
    [
        "raise ValueError(str(x))",
        "raise type(f'got_{x}', (Exception,), {})(x)",
        "return str(x) * 9",
    ],
)
def test_what_a_hidden_test_brings_is_in_no_report(grade, small, tmp_path, said):
    """Answers say what they were given, by exceptions, their types and results; 41 is
    in the hidden test alone."""
    from ioi_course.grading.table import write_report

    keep = (
        "kept = []\ndef double(x):\n    kept.append(x)\n    x = list(kept)\n    " + said
    )
    got, points = grade(instead_of(DOUBLE, keep))
    assert points == ALL | {"q1": 0}
    write_report(got, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text().partition("</style>")[2]
    assert "41" not in text and ("[3]" in text or "return" in said)
    hidden = next(q for q in got.questions if q.name == "q1").hidden[0]["message"]
    assert (
        "raise" not in said
        or ("ValueError" in hidden or "Exception" in hidden)
        and "[41]" not in hidden.splitlines()[-1]
    )


def test_public_tests_are_judged_before_any_hidden_one(grade):
    """So that nothing a hidden test brought can be in what a student reads, also not
    under another question."""
    keep = "kept = []\ndef double(x):\n    kept.append(x)\n    return 2 * x"
    tell = "def margin(logits):\n    raise ValueError(json.dumps(kept))"
    got, _ = grade(notebook([WRONG[0], "import torch, json", keep, tell]))
    assert (
        "ValueError: []"
        in next(q for q in got.questions if q.name == "q2").public[0]["message"]
    )


BUILT = """
@test_case(points=1, hidden=False)
def test_q1_stream(patched):
    import torch
    from ioi_course.checks.core import random_data, random_model
    from ioi_course.grading.absence import without
    from ioi_course.patching import sweep
    without(patched, "patching")
    model = random_model(1)
    clean = random_data(model, 2, 1)
    corrupted = clean.counterfactual("swap_subject")
    expected = sweep(model, clean, corrupted, "resid_pre").values[1]
    assert torch.allclose(patched(model, clean, corrupted), expected)
"""
OWN = """
from ioi_course.metrics import logit_diff
def patched(model, clean, corrupted):
    name, found = 'blocks.1.hook_resid_pre', []
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    for pos in range(clean.tokens.shape[1]):
        def put(value, hook):
            value[:, pos] = cache[name][:, pos]
            return value
        found.append(logit_diff(
            model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, put)]), clean))
    low, high = (logit_diff(model(data.tokens), clean) for data in (corrupted, clean))
    return (torch.stack(found) - low) / (high - low)
"""
CALLED = (
    "def patched(model, clean, corrupted):\n"
    "    return found(model, clean, corrupted, 'resid_pre').values[1]"
)
LIBRARY = {
    "by its name": "from ioi_course.patching import sweep as found\n" + CALLED,
    "through a helper": (
        "import ioi_course.patching as p\nhelper = lambda *a: p.sweep(*a)\n"
        "found = helper\n"
    )
    + CALLED,
    "out of memory": (
        "import gc, ioi_course.patching\n"
        "found = [f for f in gc.get_objects() if getattr(f, '__name__', '') == "
        "'sweep'][0]\n"
    )
    + CALLED,
    "loaded again": (
        "import importlib, ioi_course.patching as p\ntry:\n"
        "    p = importlib.reload(p)\nexcept OSError:\n    pass\nfound = p.sweep\n"
    )
    + CALLED,
    "from its source": (
        "import inspect, ioi_course.patching as p\nfound = p.sweep\ntry:\n"
        "    exec(open(p.__file__).read(), globals())\n    found = sweep\n"
        "except OSError:\n    pass\n"
    )
    + CALLED,
    "from a check's solution": (
        "import ioi_course.checks.patching as c\nfound = c.sweep_stream.solution\n"
    )
    + CALLED,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "autograder.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("otter_config.json", json.dumps({"assignment_name": NAME}))
        archive.writestr("tests/q1.py", HEAD.format("q1", 1) + BUILT)
    return read_assignment(path)


CHECKED = OWN.replace(
    "def patched",
    "from ioi_course.patching import sweep\nexpected = sweep(1, 2, 3)\n\ndef patched",
    1,
)


@pytest.mark.parametrize("how", [*LIBRARY, "own", "own, checked against the library"])
def test_what_is_to_be_built_is_not_there(server, built, how):
    """Who builds it gets the point, and who calls the library does
    not, by whatever way."""
    assert built.without == {"q1": ("patching",)}
    data = notebook(
        [
            WRONG[0],
            "import torch",
            LIBRARY.get(how, CHECKED if "checked" in how else OWN),
        ]
    )
    got = grade_one("a", data, built, server, Limits(20, 1.0))
    assert got.total == (how not in LIBRARY), got


@pytest.mark.parametrize("part", PARTS)
def test_a_check_that_is_not_there_has_no_solution_elsewhere(part):
    """A check may have its exercises from modules beside it: their code is gone too."""
    modules = modules_of([part])
    solutions = [
        exercise.solution.__module__
        for module in modules
        for exercise in vars(import_module(module)).values()
        if isinstance(exercise, Exercise)
    ]
    assert len(solutions) > 5 and set(solutions) <= set(modules)


FORGE = (
    "import gc, json, os, socket\neach = gc.get_objects()\n"
    "key = next(o for o in each if type(o) is dict and {'key', 'work', 'cells'} <= "
    "set(o))['key']\n"
    "channel = next(o for o in each if type(o) is socket.socket and o.fileno() > 2)\n"
    "def say(**m):\n"
    "    channel.sendall(b'\\n' + json.dumps(m | {'key': key}).encode() + b'\\n')\n"
)
FORGED = {
    "a cell that is not there": "say(cell=999, error='x')\nos._exit(0)",
    "no cell": "say(nothing=1)\nsay(cell=None)\nos._exit(0)",
    "a cell of another type": (
        "say(cell=[1])\nsay(cell={})\nsay(cell=True, error=3)\nsay(cell='1')"
    ),
    "what is done, as no list": "say(done=7)\nsay(done=None)",
    "nothing passed over": (
        "say(passed_over='')\nsay(passed_over='\\n')\nsay(passed_over=[])"
    ),
    "much that was tried": "for i in range(500):\n    say(tried=str(i) * 99)",
    "a flood": "for i in range(300):\n    channel.sendall(b'{}\\n' * 1000)",
    "a long line": "channel.sendall(b'x' * 2**22)",
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_message_costs_nothing_but_its_cell(grade, what):
    """The answers are right, and keep their points; the grader neither fails nor runs
    the cells again and again."""
    got, points = grade(with_cell(FORGE + FORGED[what]))
    assert points == ALL and got.status in ("graded", "errors", "review"), got
    assert got.seconds < 10 and sum(map(len, got.notes)) < 20_000
    if what in ("a cell that is not there", "a flood"):
        assert got.status == "review" and "was left out" in " ".join(got.notes)


def test_hostile_notebooks_leave_right_answers_their_points(grade):
    patch = (
        "import ioi_course.checks.core as c\nc.same = lambda *a: False\n"
        "torch.allclose = lambda *a: False"
    )
    got, points = grade(instead_of("import torch", "import torch\n" + patch))
    assert (points, got.status) == (ALL, "graded"), json.dumps(got.notes)


def test_the_table_of_threats_names_each_kind_and_tests_that_are_there(root):
    text = (root / "docs" / "threats.md").read_text(encoding="utf-8")
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in (root / "tests").glob("test_*.py")
    )
    named = set(re.findall(r"`(test_\w+)(?:\[(.+?) \d\])?`", text)) - {
        ("test_grading_attacks", "")
    }
    assert len(named) > 30
    assert [name for name, _ in named if f"def {name}(" not in tests] == []
    assert {kind for _, kind in named if kind} == set(ATTACKS)
