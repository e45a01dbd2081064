"""Build the graded assignments into build/assignments/: student
notebooks and autograder zips.

Each master is a notebook in otter-assign's format. A build has the same bytes each
time and downloads nothing; it is Gradescope that installs what environment.yml in
the zip names. Unless told not to, otter runs the solutions as well, and the build
fails if they lose a point.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from otter.assign import main as otter_assign
from otter.nbmeta_config import NBMetadataConfig
from otter.test_files import TestFile, create_test_file

from ioi_course.project import settings

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = "requirements.txt"
SOLUTION = re.compile(
    r"^[ \t]*# BEGIN SOLUTION\n(.*?)^[ \t]*# END SOLUTION$|^(.*\S)[ \t]+# SOLUTION$",
    re.M | re.S,
)
CHAPTER = re.compile(r"\]\(\.\./\.\./nbs/([\w/]+)\.ipynb\)")
ON_GRADESCOPE = '''"""Grades on Gradescope as `ioi-course grade` does: the tests run
where no student's code has run."""

from ioi_course.grading.gradescope import main

main()
'''
TEST_NAME = re.compile(r"def (test_\w+)\(")


class AssignmentError(ValueError):
    """An assignment that must not be handed out."""


def masters(root: Path = ROOT) -> list[Path]:
    """The master notebooks, assignments/NAME/NAME.ipynb, in order."""
    return sorted(
        path
        for path in (root / "assignments").glob("*/*.ipynb")
        if path.stem == path.parent.name
    )


def requirements(root: Path = ROOT) -> str:
    """What the autograder installs: this version of the course, and what it requires as
    constraints.txt has it."""
    names = [
        re.split(r"[<>=\[]", line)[0] for line in settings(root)["requirements"].split()
    ]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.partition(" ;")[0].split("==") for line in lines if "==" in line)
    version = re.search(
        r'__version__ = "(.+)"',
        (root / "ioi_course" / "__init__.py").read_text(encoding="utf-8"),
    )[1]
    rows = [f"{name}=={pinned[name.lower().replace('_', '-')]}" for name in names]
    return "\n".join([f"ioi_course=={version}", *rows]) + "\n"


def test_files(zip_path: Path) -> dict[str, TestFile]:
    """Otter's test file of each question in an autograder zip, in the
    order of the questions."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(zip_path) as archive:
        paths = [
            archive.extract(name, folder)
            for name in archive.namelist()
            if name.startswith("tests/")
        ]
        files = [create_test_file(path, NBMetadataConfig()) for path in paths]
    return {
        file.name: file
        for file in sorted(files, key=lambda file: int(re.sub(r"\D", "", file.name)))
    }


def leaks(student: NotebookNode, master: NotebookNode) -> list[str]:
    """What a student notebook gives away: outputs, markers, lines of a solution,
    names of hidden tests."""
    text = json.dumps(student)
    found = [
        f"an output in the cell {cell.source[:40]!r}"
        for cell in student.cells
        if cell.get("outputs")
    ]
    found += [
        marker
        for marker in ("BEGIN SOLUTION", "END SOLUTION", "# SOLUTION", "hidden: true")
        if marker in text
    ]
    code = [cell.source for cell in master.cells if cell.cell_type == "code"]
    solutions = [
        "".join(parts) for source in code for parts in SOLUTION.findall(source)
    ]
    elsewhere = "\n".join(SOLUTION.sub("", source) for source in code)
    for line in sorted(
        {line.strip() for solution in solutions for line in solution.split("\n")}
    ):
        if len(line) > 15 and line not in elsewhere and json.dumps(line)[1:-1] in text:
            found.append(f"a line of a solution: {line}")
    hidden = [source for source in code if "hidden: true" in source]
    found += [
        name for source in hidden for name in TEST_NAME.findall(source) if name in text
    ]
    return found


def _write_notebook(source: Path, target: Path) -> NotebookNode:
    """Copy a notebook that otter made, with ids that depend on the content alone."""
    nb = nbformat.read(source, as_version=4)
    for i, cell in enumerate(nb.cells):
        cell.id = hashlib.sha256(f"{i} {cell.source}".encode()).hexdigest()[:8]
    target.parent.mkdir(parents=True)
    site = settings(ROOT)["doc_url"]  # a student has this file alone
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = CHAPTER.sub(rf"]({site}\1.html)", cell.source)
    target.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    return nb


def _write_zip(source: Path, target: Path) -> None:
    """Copy a zip in the order of its names, without dates and modes, and with our
    grader in the place of otter's."""
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (
                0o755 if name in ("run_autograder", "setup.sh") else 0o644
            ) << 16
            new.writestr(
                entry, ON_GRADESCOPE if name == "run_otter.py" else old.read(name)
            )


def _write_points(zip_path: Path, target: Path) -> None:
    with target.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["question", "points", "public", "hidden"])
        for name, test in test_files(zip_path).items():
            public = sum(case.points for case in test.test_cases if not case.hidden)
            rows.writerow([name, test.possible, public, test.possible - public])


def build(
    master: Path,
    out: Path,  # the folder of this assignment, made anew
    # run the solutions through otter; RuntimeError if they lose a point
    check: bool = True,
) -> Path:
    """Build one assignment: student/ and instructor/ notebook, autograder.zip,
    points.csv. Returns `out`."""
    name = master.stem
    with tempfile.TemporaryDirectory() as folder:
        staged, made, done = (
            Path(folder, name, master.name),
            Path(folder, "otter"),
            Path(folder, "done"),
        )
        staged.parent.mkdir()
        done.mkdir()
        shutil.copy(master, staged)
        Path(folder, REQUIREMENTS).write_text(requirements(), encoding="utf-8")
        otter_assign(str(staged), str(made), no_pdfs=True, no_run_tests=not check)
        student = _write_notebook(
            made / "student" / master.name, done / "student" / master.name
        )
        if found := leaks(student, nbformat.read(master, as_version=4)):
            raise AssignmentError(
                f"The student notebook of {name} gives away: {'; '.join(found)}."
            )
        _write_notebook(
            made / "autograder" / master.name, done / "instructor" / master.name
        )
        _write_zip(next((made / "autograder").glob("*.zip")), done / "autograder.zip")
        _write_points(done / "autograder.zip", done / "points.csv")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(done, out)
    return out


def main() -> None:
    """Build all assignments, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    known = {path.stem: path for path in masters()}
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(known)}; all without a name",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not run the solutions"
    )
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"no assignment {unknown[0]!r}; there are {', '.join(known)}")
    (ROOT / "assignments" / REQUIREMENTS).write_text(requirements(), encoding="utf-8")
    for name in args.names or known:
        start = time.perf_counter()
        out = build(
            known[name], ROOT / "build" / "assignments" / name, check=not args.no_check
        )
        with (out / "points.csv").open(encoding="utf-8") as file:
            points = [float(row["points"]) for row in csv.DictReader(file)]
        checked = "" if args.no_check else ", the solutions score all of them"
        took = time.perf_counter() - start
        print(
            f"{out.relative_to(ROOT)}: {len(points)} questions, {sum(points):g} "
            f"points{checked} ({took:.0f} s)"
        )


if __name__ == "__main__":
    main()
