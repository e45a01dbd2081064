"""The house keeps its walls: imports run one way, rooms stay small, lessons
hold no library code."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import pytest

from ioi_course.publish.run import code_cells

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ioi_course"
BASE = """shown machine project terminal progress statistics roles templates checkpoints
    smollm2 bridge models
    prompts metrics figures reference claims predictions waiting batches""".split()
WINGS = [
    "base",
    "engine",
    "plots",
    "bundled",
    "tools",
    "checks",
    "publish",
    "grading",
    "cli",
]
APART = {
    ("publish", "grading"),
    ("grading", "publish"),
    ("engine", "plots"),
    ("plots", "engine"),
}
LESSONS = [
    path
    for at in ("[0-9]*", "appendix/*", "reference/*")
    for path in sorted(ROOT.glob(f"nbs/{at}.ipynb"))
]
LIBRARY = sorted(ROOT.glob("nbs/library/**/*.ipynb"))
MASTERS = sorted(ROOT.glob("assignments/*/*.ipynb"))
COLUMNS = 88  # of a line of code in a notebook: what a page shows without a scroll bar
WIDE = """assignments/a_tokens_and_metric/a_tokens_and_metric assignments/b_lens_and_attribution/b_lens_and_attribution
    assignments/c_patching/c_patching assignments/d_circuit/d_circuit""".split()  # still to be broken: it only shrinks


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ioi_course; a package is
    called as its folder."""
    paths = [
        path
        for path in PACKAGE.rglob("*.py")
        if path.name != "_modidx.py" and path != PACKAGE / "__init__.py"
    ]
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in paths
    }


MODULES = modules()


def wing(module: str) -> str:
    """Which wing a module stands in: its folder; of those that lie flat, the base or
    the tools of the chapters."""
    first = module.partition(".")[0]
    return first if first in WINGS else "base" if first in BASE else "tools"


def imported(path: Path, module: str) -> set[str]:
    """The modules of the package that a module imports, at its top
    or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            at = node.module or ""
            if node.level:
                package = ["ioi_course", *module.split(".")][
                    : -node.level if path.name != "__init__.py" else None
                ]
                at = ".".join([*package, *filter(None, [at])])
            found |= {at, *(f"{at}.{alias.name}" for alias in node.names)}
    names = {
        name.removeprefix("ioi_course.")
        for name in found
        if name.startswith("ioi_course.")
    }
    return (names & set(MODULES)) - {module}


IMPORTS = {module: imported(path, module) for module, path in MODULES.items()}


def test_imports_are_seen():
    """The reader of imports sees all forms: absolute and relative, of a module and from
    one, inside functions."""
    assert {"engine", "progress", "batches"} <= IMPORTS["patching"]
    assert {"plots.core", "plots.heatmaps"} <= IMPORTS["plots"]
    assert "doctor" in IMPORTS["cli"] and "plots" in IMPORTS["cli"]
    assert sum(map(len, IMPORTS.values())) > 200


def test_there_is_no_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_run_one_way(module):
    """What every lesson uses, engine and plots, bundled models, tools, checks,
    publishing and grading, the command."""
    here = wing(module)
    for other in IMPORTS[module]:
        there = wing(other)
        assert WINGS.index(there) <= WINGS.index(here), (
            f"{module} ({here}) imports {other} ({there})"
        )
        assert (here, there) not in APART, (
            f"{module} ({here}) imports {other} ({there})"
        )


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_too_long(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= (550 if module.startswith("checks.") else 400), (
        f"{lines} lines: split it where its subject splits"
    )


@pytest.mark.parametrize(
    "path",
    [ROOT / "nbs/index.ipynb", *LESSONS, *LIBRARY, *MASTERS],
    ids=lambda path: path.stem,
)
def test_code_fits_on_a_page(path):
    """No line of code in a notebook is wider than a page shows; a notebook that got
    there leaves the list."""
    lines = [
        line
        for cell in code_cells(nbformat.read(path, as_version=4))
        for line in cell.source.splitlines()
    ]
    wide = [line for line in lines if len(line) > COLUMNS]
    if path.relative_to(ROOT).with_suffix("").as_posix() in WIDE:
        assert wide, "all of its lines fit: take it off WIDE"
    else:
        assert not wide, (
            f"{len(wide)} lines over {COLUMNS} columns, the first: {wide[0]}"
        )


def test_the_wide_notebooks_are_there():
    assert all((ROOT / f"{name}.ipynb").is_file() for name in WIDE)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_holds_no_library_code(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert not re.search(
            r"^#\| *(export|default_exp)", cell.source, re.MULTILINE
        ), "library code in a lesson"
        lines = len(cell.source.splitlines())
        assert lines <= 20, f"a code cell of {lines} lines:\n{cell.source[:300]}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_library_notebook_makes_the_module_of_its_place(path):
    """One notebook, one module, at the same place below nbs/library and ioi_course;
    checked beside its code."""
    cells = code_cells(nbformat.read(path, as_version=4))
    module = ".".join(path.relative_to(ROOT / "nbs" / "library").with_suffix("").parts)
    named = [cell.source for cell in cells if "default_exp" in cell.source]
    assert named == [f"#| default_exp {module}"] and module in MODULES
    examples = "\n".join(
        cell.source for cell in cells if not cell.source.startswith("#|")
    )
    assert re.search(r"^ *assert ", examples, re.MULTILINE), "nothing is checked"


def test_every_exported_module_has_its_notebook():
    made = {
        name
        for name, path in MODULES.items()
        if "AUTOGENERATED" in path.read_text(encoding="utf-8")[:500]
    }
    assert made == {
        ".".join(path.relative_to(ROOT / "nbs" / "library").with_suffix("").parts)
        for path in LIBRARY
    }
