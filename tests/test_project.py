"""The tree agrees with itself: generated files are up to date, versions and
addresses stand in one place."""

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import requires, version
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import ioi_course
from ioi_course.publish.run import chapters

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = [path for path in chapters(ROOT) if path.stem != "index"]
COLAB = """#| hide
# On Colab this installs the course; anywhere else it does nothing.
import importlib.util, sys
if "google.colab" in sys.modules and importlib.util.find_spec("ioi_course") is None:
    %pip install -q ioi_course=={version}"""


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [
        ROOT / name for name in listing.split("\0") if name and (ROOT / name).exists()
    ]


def settings() -> dict[str, str]:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    return dict(config["DEFAULT"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of what git tracks, exported and cleaned by nbdev, with
    its README made anew."""
    target = tmp_path_factory.mktemp("copy") / "course"
    for path in tracked():
        place = target / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place, follow_symlinks=False)
    env = os.environ | {"PYTHONPATH": str(target)}
    tools = Path(sys.executable).parent
    for command in (
        [tools / "nbdev-export"],
        [tools / "nbdev-clean"],
        [sys.executable, "tools/readme.py"],
    ):
        subprocess.run(
            [str(part) for part in command],
            cwd=target,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
    return target


def test_export_clean_and_readme_change_nothing(copy):
    changed = [
        path.relative_to(ROOT).as_posix()
        for path in tracked()
        if path.suffix in {".ipynb", ".py", ".md", ".svg"}
        and path.read_bytes() != (copy / path.relative_to(ROOT)).read_bytes()
    ]
    assert not changed, f"`make notebooks` would change {changed}"
    made = {
        path.relative_to(copy).as_posix() for path in (copy / "ioi_course").glob("*.py")
    }
    assert made <= {path.relative_to(ROOT).as_posix() for path in tracked()}, (
        "an exported module is not committed"
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_starts_with_the_colab_cell(path):
    code = next(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
    )
    assert code == COLAB.format(version=ioi_course.__version__)


def test_owner_is_named_in_settings_only():
    meta = settings()
    address = re.compile(
        rf"(github\.com/{meta['user']}/|{meta['user']}\.github\.io"
        rf"|blob/{meta['branch']}/nbs)"
    )
    named = [
        path.name
        for path in tracked()
        if path.suffix not in {".safetensors", ".png"}
        and address.search(path.read_text("utf-8"))
    ]
    notebooks = {path.name for path in tracked() if path.suffix == ".ipynb"}
    # README and badges are generated: other tests see them drift
    assert set(named) <= {"README.md", *notebooks}, named


def test_installed_metadata_is_that_of_settings():
    meta = settings()
    assert version("ioi_course") == ioi_course.__version__
    installed = {
        Requirement(text).name
        for text in requires("ioi_course")
        if "extra ==" not in text
    }
    assert installed == {
        Requirement(line).name
        for line in meta["requirements"].split("\n")
        if line.strip()
    }


def test_constraints_satisfy_the_requirements():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned[requirement.name.replace("_", "-").lower()] = requirement
    meta = settings()
    for key in ("requirements", "lab_requirements", "dev_requirements"):
        for line in filter(str.strip, meta[key].split("\n")):
            wanted = Requirement(line)
            pin = pinned[wanted.name.replace("_", "-").lower()]
            assert wanted.specifier.contains(str(pin.specifier).removeprefix("==")), (
                f"{pin} does not satisfy {wanted}"
            )


def test_ci_calls_what_the_readme_names():
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
    readme = (ROOT / "README.md").read_text()
    assert (
        readme.index("make course") < readme.index("make test") < readme.index("Colab")
    )


def test_workflow_and_hooks_are_valid_yaml():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == "make test"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0][
        "hooks"
    ]
    assert {hook["id"] for hook in hooks} == {"nbdev-clean", "nbdev-export", "ruff"}
