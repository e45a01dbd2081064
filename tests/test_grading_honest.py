"""Honest notebooks are not accused: what stands in many of them leaves the status
"graded", or says what was wrong."""

import os
import sys

import pytest
from small import ALL, CELLS, DOUBLE, MARGIN, instead_of, notebook, with_cell

from ioi_course.grading import answerer

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)

GRADED = {  # a cell -> what a note says
    "%pip": ("%pip install -q einops\nx = 1", "%pip install -q einops (cell 7)"),
    "!pip": ("!pip install einops\nx = 1", "!pip install einops (cell 7)"),
    "!nvidia-smi": ("!nvidia-smi", "!nvidia-smi (cell 7)"),
    "a shell line's output": ("files = !ls\nassert list(files) == []", "!ls (cell 7)"),
    "%ls": ("%ls\n%cd .", "!ls"),
    "%autosave": ("%autosave 60", "%autosave 60 (cell 7)"),
    "%%bash": ("%%bash\necho hello", "%%bash (cell 7)"),
    "%matplotlib": ("%matplotlib inline\nx = 1", ""),
    "%time, %%timeit": ("%time x = 1\n%timeit -n 1 -r 1 x", ""),
    "%prun": ("%prun -q x = sum(range(9))", ""),
    "%load_ext": ("%load_ext autoreload\n%autoreload 2", ""),
    "plotly": (
        "import plotly.express as px\npx.imshow([[1, 2]])\npx.line([1, 2]).show()",
        "",
    ),
    "circuitsvis": (
        (
            "import circuitsvis as cv\n"
            "cv.attention.attention_patterns(tokens=['a'], attention=torch.ones(1, 1, "
            "1))"
        ),
        "",
    ),
    "widgets": (
        (
            "import ipywidgets as w\nfrom IPython.display import display, HTML, Image\n"
            "display(w.IntSlider()); display(HTML('<b>x</b>'))\n@w.interact(x=3)\n"
            "def f(x): print(x)"
        ),
        "",
    ),
    "matplotlib": (
        (
            "import matplotlib.pyplot as plt\nplt.imshow([[1, 2]])\nplt.title('höhe')\n"
            "plt.savefig('plot.png')\nplt.show()"
        ),
        "",
    ),
    "scipy, seaborn, scikit-learn": (
        "import scipy.stats, seaborn, sklearn.linear_model\n"
        "sklearn.linear_model.LinearRegression().fit([[1], [2]], [1, 2])",
        "",
    ),
    "set_default_dtype": ("torch.set_default_dtype(torch.float64)", ""),
    "tempfile": (
        (
            "import tempfile, os\nwith tempfile.NamedTemporaryFile('w') as f:\n"
            "    f.write('x')\nwith tempfile.TemporaryDirectory() as d:\n    print(d)"
        ),
        "",
    ),
    "files of its own": (
        (
            "import shutil, pathlib\npathlib.Path('a.txt').write_text('x')\n"
            "shutil.copy('a.txt', 'b.txt')\ntorch.save(torch.ones(2), 'x.pt')\n"
            "torch.load('x.pt')"
        ),
        "",
    ),
    "the device": (
        (
            "import platform, os, sys, psutil, getpass\n"
            "print(platform.platform(), platform.processor(), platform.node(), "
            "os.cpu_count(), psutil.virtual_memory(),\n"
            "      torch.cuda.is_available(), torch.__config__.parallel_info(), "
            "getpass.getuser(), os.uname())\n"
            "device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')"
        ),
        "",
    ),
    "torch.compile": (
        "f = torch.compile(lambda x: x + 1)\nassert f(torch.ones(1)) == 2",
        "",
    ),
    "breakpoint": ("breakpoint()\nimport pdb\npdb.set_trace()", ""),
    "input": ("name = input('Your name: ')", "input() (cell 7)"),
    "reload": ("import importlib, ioi_course.metrics as m\nimportlib.reload(m)", ""),
    "magics of all kinds": (
        (
            "%%capture out\n%env FOO=1\n%precision 3\n%who\n%history\n%lsmagic\n%pwd\n"
            "%config IPCompleter.use_jedi = False\n"
            "%config InlineBackend.figure_format = 'retina'\n?torch\ntorch.ones?\n"
            "import asyncio\nawait asyncio.sleep(0)\nget_ipython().system('ls')\n"
            "here = !pwd\n_; Out; In[-1]\nopen('helper.py', 'w').write('y = 3')\n"
            "import helper\n%run helper.py"
        ),
        "!ls (cell 7)",
    ),
    "%%html": ("%%html\n<b>x</b>", ""),
    "%%writefile": ("%%writefile helper.py\ny = 3", ""),
    "%%python3": ("%%python3\nprint(1)", "%%python3 (cell 7)"),
    "an extension that is not here": (
        "%load_ext tensorboard\n%matplotlib widget\n%tensorboard --logdir x\nexit",
        "%load_ext tensorboard (cell 7)",
    ),
    "the future, dataclasses, types": (
        (
            "from __future__ import annotations\n"
            "import typing, dataclasses, functools, collections, einops\n"
            "from jaxtyping import Float\n@dataclasses.dataclass(slots=True)\n"
            "class Head:\n    layer: int = 0\n"
            "def f(x: Float[torch.Tensor, 'a b'] | None) -> list[int]:\n"
            "    yield from ()\n@functools.cache\ndef g(): pass"
        ),
        "",
    ),
    "clusters and neighbours": (  # scikit-learn reads which libraries its process has
        (
            "import numpy as np, seaborn as sns\nfrom sklearn.cluster import KMeans\n"
            "from sklearn.manifold import TSNE\n"
            "KMeans(2, n_init=1).fit(np.eye(4)); TSNE(2, "
            "perplexity=2).fit_transform(np.eye(8)); sns.heatmap(np.eye(2))"
        ),
        "",
    ),
    "pandas and paths": (
        (
            "import os, json, pandas as pd\nfrom pathlib import Path\n"
            "df = pd.DataFrame({'a': [1.0]})\ndf.style.format('{:.2f}').to_html()\n"
            "df.to_csv('a.csv'); pd.read_csv('a.csv'); Path.home(); Path.cwd(); "
            "os.makedirs('data/x', exist_ok=True)\n"
            "json.load(open('small.ipynb')); os.environ['CUDA_VISIBLE_DEVICES'] = '0'; "
            "os.path.exists('/content/drive')"
        ),
        "",
    ),
    "torch's settings": (
        (
            "torch.set_grad_enabled(False); torch.set_num_threads(4); "
            "torch.set_num_interop_threads(2)\n"
            "torch.use_deterministic_algorithms(True); "
            "torch.set_default_device('cpu'); torch.cuda.manual_seed_all(0)\n"
            "with torch.profiler.profile(): torch.ones(2) @ torch.ones(2)"
        ),
        "",
    ),
    "50 names": ("for i in range(50): globals()[f'variable_{i}'] = i", ""),
    "100,000 names": ("for i in range(100_000): globals()[f'variable_{i}'] = i", ""),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\nimport threading\n"
        "with ThreadPoolExecutor(4) as pool:\n    print(list(pool.map(abs, range(9))))",
        "",
    ),
    "warnings and logging": (
        (
            "import warnings, logging\nwarnings.filterwarnings('ignore')\n"
            "logging.basicConfig(level=20)\nlogging.info('x')"
        ),
        "",
    ),
    "seeds": (
        (
            "import random, numpy\n"
            "random.seed(1); numpy.random.seed(1); torch.manual_seed(1)"
        ),
        "",
    ),
    "tqdm": ("from tqdm.auto import tqdm\nfor i in tqdm(range(3)): pass", ""),
    "a progress bar of the notebook": (
        "from tqdm.notebook import tqdm\nfor i in tqdm(range(3)): pass",
        "",
    ),
    "inspect": (
        (
            "import inspect, traceback\ninspect.stack()\n"
            "print(inspect.getsource(inspect.stack))"
        ),
        "",
    ),
    "frames and the collector": (
        "import sys, gc\nsys._getframe().f_code\ngc.collect(); len(gc.get_objects())",
        "",
    ),
    "the course": (
        (
            "from ioi_course.models import load_model\n"
            "from ioi_course.prompts import IOIDataset\n"
            "model = load_model('synthetic')\nIOIDataset(model, 2)"
        ),
        "",
    ),
}


@pytest.mark.parametrize("what", GRADED)
def test_an_honest_cell_is_not_accused(grade, what):
    source, note = GRADED[what]
    got, points = grade(with_cell(source), memory=2)
    assert (points, got.status) == (ALL, "graded"), got.notes
    assert note in " ".join(got.notes) and (note or got.notes == []), got.notes
    assert all("\n" not in each for each in got.notes), "notes are one line each"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pandas as pd\npd.read_csv('data.csv')", "FileNotFoundError"),
        ("open('/tmp/plot.png', 'w')", "may not write /tmp/plot.png"),
        (
            "import pandas as pd\npd.read_csv('/content/drive/data.csv')",
            "FileNotFoundError",
        ),
        (
            "from ioi_course.models import load_model\nbig = load_model('gpt2-small')",
            "Error",
        ),
        (
            (
                "import urllib.request\n"
                "urllib.request.urlopen('http://example.org', timeout=1)"
            ),
            "",
        ),
        (
            "from google.colab import drive\ndrive.mount('/content/drive')",
            "ModuleNotFoundError",
        ),
    ],
)
def test_what_cannot_work_here_is_an_error_and_no_accusation(grade, source, said):
    got, points = grade(with_cell(source), memory=2)
    assert points == ALL and said in " ".join(got.notes)
    assert got.status == ("errors" if "urllib" not in source else "review"), got.notes


STYLES = {
    "numpy": (
        DOUBLE,
        "import numpy as np\ndef double(x):\n    return np.float64(2) * np.asarray(x)",
    ),
    "lambda": (DOUBLE, "double = lambda x: x + x"),
    "a class": (
        DOUBLE,
        (
            "class Double:\n    def __call__(self, x):\n        return 2 * x\n"
            "double = Double()"
        ),
    ),
    "a partial function": (
        DOUBLE,
        (
            "from functools import partial\nimport operator\n"
            "double = partial(operator.mul, 2)"
        ),
    ),
    "a method": (
        MARGIN,
        (
            "class A:\n    def margin(self, logits):\n"
            "        return logits[0] - logits[1]\nmargin = A().margin"
        ),
    ),
    "decorated": (
        DOUBLE,
        "import functools\n@functools.cache\ndef double(x):\n    return 2 * x",
    ),
    "jit": (
        MARGIN,
        "@torch.no_grad()\ndef margin(logits):\n    return logits.diff()[0].neg()",
    ),
    "annotated": (
        MARGIN,
        (
            "from torch import Tensor\n"
            "def margin(logits: Tensor, *, flip: bool = False) -> Tensor:\n"
            "    return logits[0] - logits[1]"
        ),
    ),
    "slow": (
        DOUBLE,
        "def double(x):\n    import time\n    time.sleep(0.7)\n    return sum([x, x])",
    ),
    "with a helper below": (
        DOUBLE,
        "def double(x):\n    return twice(x)\ndef twice(x):\n    return x * 2",
    ),
    "a list for a tuple": (
        "best_head = (9, 9)",
        "import numpy as np\nbest_head = tuple(map(int, np.array([9, 9])))",
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_may_be_written_in_many_ways(grade, style):
    cell, source = STYLES[style]
    got, points = grade(instead_of(cell, source), timeout=5)
    assert (points, got.status) == (ALL, "graded"), got


def test_star_imports_are_not_accused(grade):
    """Above the answers: NumPy has a `double` of its own, and the
    last definition counts."""
    source = (
        "import torch\nfrom ioi_course.metrics import *\nfrom torch import *\n"
        "from numpy import *"
    )
    got, points = grade(instead_of("import torch", source))
    assert (points, got.status, got.notes) == (ALL, "graded", [])


def test_cells_may_stand_in_another_order(grade):
    got, points = grade(notebook([CELLS[0], CELLS[6], CELLS[4], CELLS[1], CELLS[2]]))
    assert (points, got.status) == (ALL, "graded"), got.notes


def test_a_busy_machine_costs_nobody_points(grade):
    """A cell and an answer that wait are under the limit of computing, though
    over it by the clock."""
    wait = "import time\ntime.sleep(2.5)"
    got, points = grade(with_cell(wait), timeout=1)
    assert (points, got.status) == (ALL, "graded"), got.notes


def test_modules_are_found_where_the_environment_is_a_link(tmp_path, monkeypatch):
    """The kernel is told real paths; of a link's path nothing could be imported."""
    (real := tmp_path / "real" / "site-packages").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    way = str(tmp_path / "link" / "site-packages")
    monkeypatch.setattr(sys, "path", [way, str(tmp_path), ""])
    assert answerer.importable([os.path.realpath(real)]) == [way]
