"""Kernels forked from a warm process: as fresh as others, in all
that a notebook can see."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ioi_course.publish import warm
from ioi_course.publish.warm import ORDINARY, WARM, warm_kernels

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="kernels are forked on Linux only"
)


@pytest.fixture(scope="module")
def kernel():
    with warm_kernels() as name:
        yield name


def outputs(kernel: str, folder: Path, *sources: str, **env: str) -> list[str]:
    """The plain text of each cell's output."""
    nb = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = NotebookClient(
        nb,
        kernel_name=kernel,
        timeout=120,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | env)
    return [
        "".join(o.get("text") or o["data"]["text/plain"] for o in cell.outputs)
        for cell in nb.cells
    ]


WIDE = (
    "import pandas as pd\n"
    "pd.DataFrame([range(1000, 1030)], columns=[f'column {i}' for i in range(30)])"
)
SEEN = (
    "sorted(name for name in globals() if not name.startswith('_'))",
    (
        "import os, sys\n"
        "os.getcwd(), os.environ['MINE'], sys.path[0], 'plotly' in sys.modules"
    ),
    WIDE,
    "import plotly.io\nplotly.io.renderers.default",
    "import torch\ntorch.get_num_threads()",
    "print('out'); print('err', file=sys.stderr)",
    "from tqdm.auto import tqdm\nlist(tqdm(range(3)))",
)


def test_a_notebook_sees_what_it_sees_in_an_ordinary_kernel(kernel, tmp_path):
    asked = {"MINE": "42", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    assert kernel == WARM
    assert outputs(kernel, tmp_path, *SEEN, **asked) == outputs(
        ORDINARY, tmp_path, *SEEN, **asked
    )


def test_nothing_passes_from_one_kernel_to_the_next(kernel, tmp_path):
    outputs(
        kernel,
        tmp_path,
        "import os, torch\ntorch.leak = x = 1\nos.environ['LEAK'] = '1'\nx",
    )
    look = (
        "import os, torch\n"
        "[hasattr(torch, 'leak'), 'x' in globals(), 'LEAK' in os.environ]"
    )
    assert outputs(kernel, tmp_path, look) == ["[False, False, False]"]


def test_kernels_draw_numbers_of_their_own(kernel, tmp_path):
    draw = (
        "import random, numpy, torch\n"
        "random.random(), numpy.random.rand(), torch.rand(1).item()"
    )
    assert outputs(kernel, tmp_path, draw) != outputs(kernel, tmp_path, draw)


def test_it_is_much_faster(kernel, tmp_path):
    outputs(kernel, tmp_path, "1")  # the imports are made once
    source = "import torch, transformer_lens\n1"
    took = []
    for name in (kernel, ORDINARY):
        start = time.perf_counter()
        outputs(name, tmp_path, source)
        took.append(time.perf_counter() - start)
    assert took[0] < took[1] / 2, took


def test_interrupts_and_kills_reach_it(kernel):
    manager, client = start_new_kernel(kernel_name=kernel, startup_timeout=120)
    try:
        client.execute_interactive("import os; pid = os.getpid()", timeout=60)
        # An error aborts what is asked right behind it, unless the request says not to.
        asked = client.execute(
            "import time\nwhile True: time.sleep(0.01)", stop_on_error=False
        )
        time.sleep(0.5)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)
        while reply["parent_header"].get("msg_id") != asked:
            reply = client.get_shell_msg(timeout=60)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        reply = client.execute_interactive(
            "", user_expressions={"pid": "pid"}, timeout=60
        )
        pid = int(reply["content"]["user_expressions"]["pid"]["data"]["text/plain"])
        os.kill(pid, 0)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert gone(pid)


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_kernels_end_with_who_started_them(tmp_path):
    """Also when that is killed: nothing is left behind."""
    script = """
import os, sys, time
from jupyter_client.manager import start_new_kernel
from ioi_course.publish.warm import warm_kernels
with warm_kernels() as name:
    manager, client = start_new_kernel(kernel_name=name, startup_timeout=120)
    reply = client.execute_interactive(
        "import os", user_expressions={"pid": "os.getpid()"}, timeout=60)
    print(reply["content"]["user_expressions"]["pid"]["data"]["text/plain"], flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(pid)


def test_elsewhere_kernels_are_ordinary(monkeypatch):
    monkeypatch.setattr(warm.sys, "platform", "darwin")
    before = os.environ.get("JUPYTER_PATH")
    with warm_kernels() as name:
        assert name == ORDINARY and os.environ.get("JUPYTER_PATH") == before


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "/mine")
    with warm_kernels():
        assert os.environ["JUPYTER_PATH"].endswith(":/mine")
    assert os.environ["JUPYTER_PATH"] == "/mine"


def test_threads_that_wait_leave_their_core(kernel, tmp_path):
    """Two threads on one core, as beside another kernel: those that spin while they
    wait take many times as long."""
    crowd = (
        "import os, time, torch\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "x = torch.rand(100_000)"
    )
    run = (
        "torch.set_num_threads({})\nt = time.process_time()\n"
        "for _ in range(300): x.exp()\ntime.process_time() - t"
    )
    alone, shared = map(
        float, outputs(kernel, tmp_path, crowd, run.format(1), run.format(2))[1:]
    )
    assert shared < 5 * alone
