"""Try the course on each Python beside this one: the package's
tests and three chapters.

`make test-pythons` calls it. Each Python gets an environment of its own under
.venvs/, with the versions of constraints.txt that it supports. The results are
printed, and written to build/pythons/results.json. A Python that is not on
this machine is passed over.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
CHAPTERS = ("1", "7", "12")
# Not the package's: notebooks, site and repository as wholes, and pages in
# a browser: `make test`.
LEFT_OUT = """accessibility assignments circuit_page colab glossary notebooks
    project pythons site
    student workflows""".split()
SHOWN = ("torch", "numpy", "pandas", "transformers", "transformer-lens", "ipython")


class Broken(Exception):
    """A Python on which something failed; the message says what."""


@dataclass
class Result:
    """What came of one Python."""

    version: str
    python: str = ""  # the full version
    packages: dict[str, str] = field(default_factory=dict)
    tests: dict[str, int] = field(default_factory=dict)
    test_seconds: float = 0.0
    chapters: list[dict] = field(default_factory=list)
    wrong: str = ""

    def line(self) -> str:
        """The result in one line."""
        tests = ", ".join(f"{count} {what}" for what, count in self.tests.items())
        chapters = ", ".join(
            (
                f"{row['chapter']} {'passed' if row['ok'] else 'FAILED'} "
                f"({row['seconds']:.0f} s)"
            )
            for row in self.chapters
        )
        parts = [f"tests: {tests} ({self.test_seconds:.0f} s)"] * bool(tests)
        parts += [chapters] * bool(chapters) + [f"FAILED: {self.wrong}"] * bool(
            self.wrong
        )
        return f"Python {self.python or self.version}: {'; '.join(parts)}"


def find_python(version: str) -> str | None:
    """A Python of this version that runs: from PATH, or pyenv's newest."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(
        pyenv.glob(f"{version}.*/bin/python"), key=lambda path: _patch(path.parts[-3])
    )
    candidates = [shutil.which(f"python{version}"), *map(str, reversed(found))]
    return next((path for path in candidates if path and _says(path) == version), None)


def _patch(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _says(python: str) -> str | None:
    """The version that a Python gives of itself; None if it does not run,
    as a bare pyenv shim."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        result = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=60
        )
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def environment(version: str, python: str) -> Path:
    """The environment's Python, made anew when the requirements have changed since."""
    folder = ROOT / ".venvs" / version
    stamp, made = folder / ".set-up", folder / "bin" / "python"
    needs = [
        ROOT / name
        for name in ("settings.ini", "setup.py", "pyproject.toml", "constraints.txt")
    ]
    if stamp.exists() and all(
        stamp.stat().st_mtime > path.stat().st_mtime for path in needs
    ):
        return made
    shutil.rmtree(folder, ignore_errors=True)
    _call([python, "-m", "venv", folder], "the environment cannot be made")
    install = [
        made,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "constraints.txt",
    ]
    _call([*install, "torch"], "torch cannot be installed")
    _call(
        [*install, "--editable", f"{ROOT}[lab,dev]"], "the course cannot be installed"
    )
    stamp.touch()
    return made


def _call(command: list, wrong: str, **options) -> None:
    """Run a command; `Broken` if it fails, for its output stands above."""
    if subprocess.run([str(part) for part in command], cwd=ROOT, **options).returncode:
        raise Broken(wrong)


def run_tests(python: Path, out: Path, result: Result) -> None:
    """Run the package's tests, two at a time."""
    report, start = out / "tests.xml", time.perf_counter()
    report.unlink(missing_ok=True)
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "worksteal",
        f"--junitxml={report}",
    ]
    command += [f"--ignore=tests/test_{name}.py" for name in LEFT_OUT]
    try:
        _call(command, "tests", env=_clean())
    finally:
        result.test_seconds = round(time.perf_counter() - start, 1)
        if report.exists():
            result.tests = count(report)
    if not result.tests.get("passed"):
        raise Broken("no test passed")


def count(report: Path) -> dict[str, int]:
    """How many tests of a JUnit report passed, were skipped, and failed."""
    suites = list(xml.parse(report).getroot().iter("testsuite"))
    total = {
        key: sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "skipped", "failures", "errors")
    }
    failed = total["failures"] + total["errors"]
    return {
        "passed": total["tests"] - total["skipped"] - failed,
        "skipped": total["skipped"],
        "failed": failed,
    }


def run_chapters(python: Path, out: Path, result: Result) -> None:
    """Run three chapters on the synthetic model."""
    report = out / "course" / "report.json"
    report.unlink(missing_ok=True)
    command = [
        python,
        "-m",
        "ioi_course.cli",
        "run",
        *CHAPTERS,
        "--model",
        "synthetic",
        "--out",
        report.parent,
    ]
    try:
        _call(command, "chapters", env=_clean())
    finally:
        if report.exists():
            result.chapters = json.loads(report.read_text(encoding="utf-8"))
    if len(result.chapters) < len(CHAPTERS):
        raise Broken("chapters are missing from the report")


def _clean() -> dict[str, str]:
    """The environment's variables without those that would lead to another
    tree or another Python."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "PYENV_VERSION", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if key not in left_out}


def versions_of(python: Path) -> dict:
    """The full version of a Python and those of the packages that matter most."""
    code = (
        "import json, platform; from importlib.metadata import "
        "version;print(json.dumps([platform.python_version(), {n: version(n) for n "
        f"in {SHOWN}}}]))"
    )
    found = subprocess.run(
        [str(python), "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=_clean(),
    )
    full, packages = json.loads(found.stdout)
    return {"python": full, "packages": packages}


def attempt(version: str, python: str) -> Result:
    """Set one Python up and try everything there; what went wrong first and what
    followed are in the result."""
    result, out, wrong = Result(version), ROOT / "build" / "pythons" / version, []
    out.mkdir(parents=True, exist_ok=True)
    try:
        made = environment(version, python)
        result.__dict__.update(versions_of(made))
        for step in (run_chapters, run_tests):
            try:
                step(made, out, result)
            except Broken as error:
                wrong.append(str(error))
    except (Broken, subprocess.CalledProcessError) as error:
        wrong.append(str(error))
    result.wrong = ", ".join(wrong)
    return result


def main(wanted: list[str]) -> int:
    """Try the Pythons that are named, or all but the one that runs this; 0 if at least
    one was there and none broke."""
    ours = ".".join(map(str, sys.version_info[:2]))
    results = []
    for version in wanted or [each for each in VERSIONS if each != ours]:
        if (python := find_python(version)) is None:
            print(f"Python {version} is not on this machine: passed over.", flush=True)
            continue
        print(f"Python {version}: {python}", flush=True)
        results.append(attempt(version, python))
    if not results:
        print("None of these Pythons is on this machine, so nothing was tried.")
        return 1
    kept = ROOT / "build" / "pythons" / "results.json"
    kept.write_text(
        json.dumps([asdict(result) for result in results], indent=2) + "\n",
        encoding="utf-8",
    )
    print("\n".join(result.line() for result in results))
    return 1 if any(result.wrong for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
