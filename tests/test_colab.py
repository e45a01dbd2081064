"""Notebooks on Colab: badges, first cells with and without the course installed, and
the line that installs it."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

import ioi_course
from ioi_course.project import find_root, settings
from ioi_course.publish.badge import BADGE, colab_badge, is_badge
from ioi_course.publish.run import chapters

ROOT = find_root()
CHAPTERS = [path for path in chapters(ROOT) if path.stem != "index"]
NOTEBOOKS = [*chapters(ROOT), *sorted((ROOT / "student").glob("*.ipynb"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in NOTEBOOKS]
PINNED = f"install -q ioi_course=={ioi_course.__version__}"


# Badges


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "badges_tool", ROOT / "tools" / "badges.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_badge_opens_this_chapter(path):
    badges = [
        i
        for i, cell in enumerate(nbformat.read(path, as_version=4).cells)
        if is_badge(cell)
    ]
    assert badges == [1], (
        "run `make notebooks`: tools/badges.py puts the badge below the title"
    )
    meta = settings(ROOT)
    link = re.search(
        r"\]\((https://colab[^)\s]+)\)$",
        nbformat.read(path, as_version=4).cells[1].source,
    )[1]
    where = f"github/{meta['user']}/{meta['repo']}/blob/{meta['branch']}"
    where += f"/{path.relative_to(ROOT).as_posix()}"
    assert link == f"https://colab.research.google.com/{where}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "student").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_student_edition_has_its_own_badge_only(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert text.count(BADGE) == 1
    assert colab_badge(ROOT, f"student/{path.name}") in text


def test_badges_are_made_once(tool):
    """A second run changes nothing, a wrong badge is replaced, and
    all else stays as it is."""
    path = ROOT / "nbs" / "02_logit_difference.ipynb"
    nb = nbformat.read(path, as_version=4)
    others = [cell for cell in nb.cells if not is_badge(cell)]
    once = nbformat.writes(tool.with_badge(nb, ROOT, path))
    nb = nbformat.reads(once, as_version=4)
    assert [cell for cell in nb.cells if not is_badge(cell)] == others
    assert nbformat.writes(tool.with_badge(nb, ROOT, path)) == once
    nb.cells[1].source = BADGE + "(https://example.org/of-a-fork.ipynb)"
    assert nbformat.writes(tool.with_badge(nb, ROOT, path)) == once
    nbformat.validate(nb)


def test_badge_follows_the_settings(tmp_path):
    text = (ROOT / "settings.ini").read_text(encoding="utf-8")
    (tmp_path / "settings.ini").write_text(
        re.sub(r"(?m)^user = .*$", "user = somebody", text), encoding="utf-8"
    )
    assert "/github/somebody/" in colab_badge(tmp_path, "nbs/00_setup.ipynb")


# First cells. One process runs those of all notebooks, each in a namespace of its own,
# as Colab's shell would.

SHELL = '''
import importlib.abc, json, os, sys
from IPython.core.interactiveshell import InteractiveShell
import google.colab  # as Colab's shell does before the first cell

class NotInstalled(importlib.abc.MetaPathFinder):
    """Finds everything but the course, until it is installed."""
    missing = sys.argv[1] == "without"
    def find_spec(self, name, path=None, target=None):
        if self.missing and name.partition(".")[0] == "ioi_course":
            raise ModuleNotFoundError(name)

finder = NotInstalled()
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if finder.missing and name == "ioi_course" else real(name))
sys.meta_path.insert(0, finder)

def pip(line):
    calls.append(line)
    finder.missing = False

report = {}
for name, cells in json.loads(sys.stdin.read()).items():
    finder.missing, calls, shell = sys.argv[1] == "without", [], InteractiveShell()
    for module in [m for m in sys.modules
                   if m.partition(".")[0] == "ioi_course" and finder.missing]:
        del sys.modules[module]
    shell.register_magic_function(pip, "line", "pip")
    error = None
    for source in cells:
        result = shell.run_cell(source, silent=True)
        error = error or result.error_before_exec or result.error_in_exec
    report[name] = {"pip": calls, "error": error and repr(error)}
print("REPORT" + json.dumps(report), flush=True)
# or each shell clears up by itself at the end, which takes longer than all cells
os._exit(0)
'''


def first_cells(path: Path) -> list[str]:
    """The code cells of a notebook up to the first that imports from the course."""
    cells = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            cells.append(cell.source)
            if re.search(r"^(?:from|import) ioi_course\b", cell.source, re.MULTILINE):
                break
    return cells


def run_first_cells(how: str, folder: Path) -> dict[str, dict]:
    (folder / "google" / "colab").mkdir(parents=True)
    (folder / "google" / "colab" / "__init__.py").touch()
    cells = {
        name: first_cells(path) for name, path in zip(NAMES, NOTEBOOKS, strict=True)
    }
    env = os.environ | {
        "IOI_COURSE_MODEL": "synthetic",
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
    }
    command = [sys.executable, "-c", SHELL, how]
    result = subprocess.run(
        command,
        input=json.dumps(cells),
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "REPORT" in result.stdout, result.stderr[-3000:]
    return json.loads(result.stdout.rpartition("REPORT")[2])


@pytest.mark.parametrize("how", ["with", "without"])
def test_first_cells_run_on_colab(how, tmp_path):
    """With the course preinstalled nothing is installed; without it the pinned version
    is, and then it is imported."""
    report = run_first_cells(how, tmp_path)
    assert sorted(report) == sorted(NAMES)
    failed = {name: seen["error"] for name, seen in report.items() if seen["error"]}
    assert not failed
    wanted = [PINNED] if how == "without" else []
    assert {name: seen["pip"] for name, seen in report.items()} == dict.fromkeys(
        NAMES, wanted
    )


# The line that installs the course


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The course as PyPI would hand it out: a wheel built from the source
    distribution, as the release does."""
    pytest.importorskip(
        "build", reason="the package build is not installed: no wheel was built"
    )
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, source / path, follow_symlinks=False)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(out),
        str(source),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return next(out.glob("*.whl"))


def tracked(*below: str) -> list[Path]:
    """The files of the project, seen from its folder."""
    command = [
        "git",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *below,
    ]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [
        Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()
    ]


@pytest.fixture(scope="module")
def without_the_course(tmp_path_factory) -> Path:
    """A Python that has what this one has, but not the course."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=False, symlinks=True)
    target = Path(
        sysconfig.get_path(
            "purelib", "venv", {"base": str(folder), "platbase": str(folder)}
        )
    )
    for here in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(here).iterdir():
            if not re.match(
                r"(__editable__|ioi_course|ioi-course|easy-install)",
                path.name,
                re.IGNORECASE,
            ):
                if not (target / path.name).exists():
                    (target / path.name).symlink_to(path)
    return folder / "bin" / "python"


def install(
    python: Path, wheel: Path, line: str, constraints: Path, report: Path
) -> subprocess.CompletedProcess:
    """Try the line that Colab runs, in which pip sees the wheel and what is
    installed, and no index."""
    command = [
        python,
        "-m",
        "pip",
        *line.split(),
        "--dry-run",
        "--no-index",
        "--find-links",
        wheel.parent,
    ]
    command += ["--constraint", constraints, "--report", report]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120
    )


def test_pinned_line_resolves_against_the_constraints(
    without_the_course, wheel, tmp_path
):
    """Whatever the wheel requires is among the versions of constraints.txt, so that
    nothing else is installed."""
    result = install(
        without_the_course,
        wheel,
        PINNED,
        ROOT / "constraints.txt",
        tmp_path / "report.json",
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = [
        each["metadata"]
        for each in json.loads((tmp_path / "report.json").read_text())["install"]
    ]
    assert [(each["name"], each["version"]) for each in found] == [
        ("ioi_course", ioi_course.__version__)
    ]


def test_a_constraint_that_does_not_fit_is_noticed(without_the_course, wheel, tmp_path):
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (tmp_path / "constraints.txt").write_text(
        re.sub(r"(?m)^einops==.*$", "einops==0.7.0", text), encoding="utf-8"
    )
    result = install(
        without_the_course,
        wheel,
        PINNED,
        tmp_path / "constraints.txt",
        tmp_path / "report.json",
    )
    assert result.returncode != 0 and "conflicting dependencies" in result.stderr


def test_the_wheel_holds_what_is_needed(wheel):
    """All modules and data files, byte for byte, and nothing but them."""
    archive = zipfile.ZipFile(wheel)
    inside = {
        name: archive.read(name)
        for name in archive.namelist()
        if ".dist-info/" not in name
    }
    wanted = {
        path.as_posix(): (ROOT / path).read_bytes() for path in tracked("ioi_course")
    }
    assert inside == wanted
