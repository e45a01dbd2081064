"""Attacks on the grader, by kinds: each runs to its end in a notebook of wrong
answers, and earns nothing.

The table of docs/threats names these kinds. What an attack needs of the grader's
insides is that of today; where it has moved, the attack goes for what is there.
"""

import json
import os
import re
import socket
import sys
import zipfile
from pathlib import Path

import pytest
from asked import Loop
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

from ioi_course.grading import absence
from ioi_course.grading.assignments import read_assignment
from ioi_course.grading.grade import grade as grade_one
from ioi_course.grading.judge import judge, judged
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
}  # fmt: skip
# several of a kind in one notebook
MORE = {
    "patched channel": (
        "import socket, threading\nreal = socket.recv_fds\ndef relay(a, b, change):\n"
        "    while data := a.recv(1 << 16):\n        b.sendall(change(data))\n"
        "def between(channel, n, most):\n"
        "    said, fds, *rest = real(channel, n, most)\n    if fds:\n"
        "        theirs, (mine, other) = socket.socket(fileno=fds[0]), "
        "socket.socketpair()\n"
        "        yes = lambda data: data.replace(b'1.0', "
        "b'true').replace(b'raised', b'return')\n"
        "        for each in ((theirs, other, bytes), (other, theirs, yes)):\n"
        "            threading.Thread(target=relay, args=each, daemon=True).start()\n"
        "        fds = [mine.detach()]\n    return said, fds, *rest\n"
        "socket.recv_fds = between"
    ),
    "encoder": (
        "import json.encoder\njson.encoder.c_make_encoder = None\n"
        "from ioi_course.grading import wire\n"
        "wire._said = lambda value, describe, tensors, depth: {'tuple': "
        "['returned', {'dict': [['passed', True], [True, True]]}]}\n"
        "wire.MOST = wire.DEEPEST = wire.LARGEST = 2**60\n"
        "wire.Other.__eq__ = lambda *a: True"
    ),
    "builtins shadowed in the library": (
        "import builtins, ioi_course.grading.wire as w, "
        "ioi_course.grading.answerer as a\nw.isinstance = a.len = lambda *x: True\n"
        "a.str = a.callable = w.type = lambda *x: 'passed'\n"
        "builtins.__dict__['issubclass'] = builtins.__dict__['all'] = lambda "
        "*x: True\nimport ioi_course.checks.core as c\n"
        "c.zip = c.len = lambda *x, **k: ()"
    ),
    "fake entries in sys.modules": (
        "import sys, types, importlib.abc, importlib.machinery\n"
        "class Find(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return importlib.machinery.ModuleSpec(name, self)\n"
        "    def create_module(self, spec):\n"
        "        return type('M', (types.ModuleType,), {'__getattr__': lambda "
        "*a: lambda *b, **c: True})(spec.name)\n"
        "    def exec_module(self, module): pass\nsys.meta_path.insert(0, Find())\n"
        "for name in [n for n in sys.modules if n.startswith(('otter', "
        "'ioi_course.checks', 'ioi_course.grading.d'))]:\n    del sys.modules[name]\n"
        "import ioi_course.grading.draws as d\nd.drawn = lambda what: 0"
    ),
    "frames walked": (
        "import sys, threading\nfound = {}\ndef trace(frame, event, arg):\n"
        "    found.update({k: v for k, v in frame.f_locals.items() if k in "
        "('expected', 'solution', 'tests', 'verdict', 'job')})\n    return trace\n"
        "sys.settrace(trace); threading.settrace(trace); sys.setprofile(trace)\n"
        "def double(x):\n    for frame in sys._current_frames().values():\n"
        "        while frame:\n"
        "            found.update(frame.f_locals if 'expected' in "
        "frame.f_locals else {})\n            frame = frame.f_back\n    try:\n"
        "        raise KeyError\n    except KeyError as error:\n"
        "        at = error.__traceback__.tb_frame\n        while at:\n"
        "            found.update({k: v for k, v in at.f_globals.items() if k "
        "== 'solution'})\n            at = at.f_back\n"
        "    return found['solution'](x) if 'solution' in found else "
        "found.get('expected', 1.0)"
    ),
    "guard lists cleared": (
        "import gc\nfor o in gc.get_objects():\n"
        "    if type(o).__name__ == 'function' and o.__module__ == "
        "'ioi_course.grading.alarm' and o.__closure__:\n"
        "        for cell in o.__closure__:\n"
        "            if type(cell.cell_contents) in (dict, set, list):\n"
        "                cell.cell_contents.clear()\n"
        "import ioi_course.grading.judge as j, ioi_course.grading.server as s\n"
        "j.LONGEST = j.ROOM = 2**60\ns.THREADS = s.PROCESSES = 10**9"
    ),
    "caches and module data mutated": (
        "import ioi_course.grading.recipes as r, ioi_course.templates as t, "
        "ioi_course.models as m\n"
        "r._KEPT.update({name: 0 for name in ('A.10 numbers', 'A.10 fall')})\n"
        "r.once = lambda *a: 0\nr.SMALL.clear()\nt.NAMES = t.NAMES[:0]\n"
        "for p in m.load_model('synthetic').parameters():\n"
        "    p.data.fill_(float('nan'))\nimport functools\n"
        "functools._lru_cache_wrapper = lambda f, *a: f"
    ),
    "properties on test classes": (
        "import otter.test_files as f, otter.test_files.abstract_test as t\n"
        "t.TestFile.score = t.TestFile.passed_all = property(lambda s: 6)\n"
        "t.TestCase = t.TestFile = type('T', (), {'hidden': False})\n"
        "f.test_case = lambda *a, **k: lambda g: (lambda *x: None)\n"
        "f.ExceptionTestFile.from_string = classmethod(lambda c, *a: c)"
    ),
    "objects that equal everything": (
        "class C(dict):\n    __class__ = property(lambda s: tuple)\n"
        "    __eq__ = lambda *a: True\n    __iter__ = lambda s: iter((1, 1))\n"
        "    items = lambda s: [(s, s)]\n    __hash__ = lambda s: 0\n"
        "    kind = 'passed'\nimport numpy as np\nclass N(np.ndarray):\n"
        "    __array_ufunc__ = lambda *a, **k: True\n    __eq__ = lambda *a: True\n"
        "best_head = C()\ndouble = lambda x: C()\n"
        "margin = lambda x: np.zeros(3).view(N)"
    ),
    "tensor subclasses": (
        "class W(torch.Tensor):\n    @staticmethod\n    def __new__(cls, x):\n"
        "        return torch.Tensor._make_wrapper_subclass(cls, x.shape, "
        "dtype=x.dtype)\n"
        "    __torch_dispatch__ = classmethod(lambda cls, func, types, "
        "args=(), kwargs=None: True)\ndouble = lambda x: W(torch.zeros(()))\n"
        "best_head = torch.zeros(2, device='meta')\n"
        "margin = lambda x: torch.zeros(0, 1).requires_grad_() if x[0] > 1 "
        "else torch.nested.nested_tensor([torch.zeros(1)])"
    ),
    "late patches by threads": (
        "import threading, concurrent.futures, asyncio, sys\n"
        "sys.setswitchinterval(1e-6)\ndef late():\n"
        "    import ioi_course.grading.answerer as a\n"
        "    a.replied = lambda *x: ('returned', (9, 9))\n"
        "threading.Timer(0.2, late).start()\n"
        "pool = concurrent.futures.ThreadPoolExecutor(2); pool.submit(late)\n"
        "loop = asyncio.new_event_loop(); loop.call_later(0.1, late)\n"
        "threading.Thread(target=loop.run_forever, daemon=True).start()"
    ),
    "at exit, destructors, signals": (
        "import gc, sys, weakref, threading, os, signal\nclass X: pass\nx = X()\n"
        "last = lambda *a, **k: torch.__dict__.update(allclose=lambda *b, "
        "**c: True)\nweakref.finalize(x, last)\ndel x\n"
        "gc.callbacks.append(last); sys.unraisablehook = sys.excepthook = "
        "threading.excepthook = last\nthreading._register_atexit(last)\n"
        "for s in (signal.SIGTERM, signal.SIGCHLD, signal.SIGXCPU):\n"
        "    signal.signal(s, last)\n"
        "os.register_at_fork(before=last, after_in_parent=last)"
    ),
    "the protocol taken over": (
        "from ioi_course.grading import answerer, wire\ndef answer(channel, names):\n"
        "    said = [('function', [('x', 'VAR_POSITIONAL', False)]), "
        "('value', True), ('returned', True), ('changed', -1), ('returned', "
        "[True, ''])]\n    for each in said * 9:\n"
        "        wire.send(channel, wire.pack(each))\n"
        '    channel.sendall(b\'\\n{"results": [[true, ""]]}\\n\' * 9)\n'
        "answerer.answer = answer"
    ),
    "sockets peeked": (
        "import os, socket\ndef double(x):\n    seen = b''\n"
        "    for fd in os.listdir('/proc/self/fd'):\n        try:\n"
        "            s = socket.socket(fileno=os.dup(int(fd)))\n"
        "            s.setblocking(False)\n"
        "            s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)\n"
        "            seen += s.recv(1 << 16, socket.MSG_PEEK)\n"
        "        except (OSError, ValueError):\n            pass\n"
        "    return 2 * x if b'secret' in seen or b'Exercise' in seen else 1.0"
    ),
    "results written beside": (
        "import os, glob\n"
        "for name in ('/dev/shm/x', '/proc/self/fd/3', '/proc/1/fd/1', "
        "'../results.json', '.lock', 'overrides.csv'):\n    try:\n"
        "        open(name, 'w').write('{\"results\": [[true, \"\"]]}')\n"
        "    except OSError:\n        pass\nfor name in glob.glob('/proc/*/fd/*'):\n"
        "    try:\n        os.write(os.open(name, os.O_WRONLY), b'{}')\n"
        "    except OSError:\n        pass"
    ),
}
for kind, source in MORE.items():
    ATTACKS[kind].append(source)
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


def test_each_kind_has_four_variants():
    assert len(ATTACKS) >= 15 and all(len(tried) >= 4 for tried in ATTACKS.values()), (
        list(ATTACKS)
    )


@pytest.mark.parametrize(
    "said",
    [
        "raise ValueError(str(x))",
        "raise type(f'got_{x}', (Exception,), {})(x)",
        "return str(x) * 9",
        "open('/got-' + str(x), 'w')",
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
    "by other importers": (
        "import importlib.util, marshal, pkgutil, runpy\n"
        "import ioi_course.patching as p\nfound = p.sweep\n"
        "def by_loader():\n    m = importlib.util.module_from_spec(p.__spec__)\n"
        "    p.__spec__.loader.exec_module(m)\n    return m.sweep\n"
        "def by_text():\n"
        "    exec(pkgutil.get_data('ioi_course', 'patching.py'), globals())\n"
        "    return sweep\n"
        "def by_code():\n    code = open(p.__cached__, 'rb').read()[16:]\n"
        "    exec(marshal.loads(code), globals())\n    return sweep\n"
        "def by_run():\n"
        "    return runpy.run_module('ioi_course.patching')['sweep']\n"
        "for way in (by_loader, by_text, by_code, by_run):\n"
        "    try:\n        found = way()\n"
        "    except (OSError, ImportError):\n        pass\n"
    )
    + CALLED,
    "from a check's solution": (
        "import ioi_course.checks.stream_patching as c\n"
        "found = c.sweep_stream.solution\n"
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


def test_an_exception_ends_no_loop_of_a_test():
    """StopIteration out of an answer would end what `map` goes through, and
    all of nothing is right."""
    tests = HEAD.format("q1", 1) + (
        "@test_case(points=1, hidden=False)\n"
        "def test_q1(double):\n    assert all(map(double, [1, 2]))\n"
    )
    for kind in (StopIteration, StopAsyncIteration, type("S", (StopIteration,), {})):

        def double(x, kind=kind):
            raise kind

        ((passed, said),) = judged(tests, ["double"], False, Loop({"double": double}))
        assert not passed and "RuntimeError" in said


def test_a_judge_has_its_time():
    """What an answer returns can be made to take for ever: keys of one hash. The
    judge says so, and ends."""
    ours, control = socket.socketpair()
    tests = HEAD.format("q1", 1) + (
        "@test_case(points=1, hidden=False)\n"
        "def test_q1():\n    try:\n        set(i * (2**61 - 1) for i in range(10**6))\n"
        "    except Exception:\n        pass\n"
    )
    job = {"tests": tests, "names": [], "hidden": False, "seed": 0, "seconds": 1}
    ours.sendall(json.dumps(job).encode() + b"\n")
    if (pid := os.fork()) == 0:
        try:
            judge(control, socket.socketpair()[0])
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert json.loads(ours.recv(1000)) == {"long": True}


def test_what_stays_of_the_library_sets_no_hooks(root):
    """A tool that somebody adds tomorrow is gone as well; what stays runs a model at
    most, and changes nothing in it."""
    stays = {str(path) for path in (root / "ioi_course").rglob("*.py")}
    stays -= set(map(str, absence.gone().values()))
    sets = re.compile(r"\b(run_with_hooks|add_hook|hooks)\(")
    hooking = {Path(path).stem for path in stays if sets.search(Path(path).read_text())}
    assert hooking <= {"batches", "core"}, "these two keep activations, and count hooks"
    assert "ioi_course.knockouts" in absence.gone() and len(stays) > 60


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
