"""Run the package's tests and three chapters on every Python that the course claims and this machine has.

    python tools/pythons.py [3.12 …]      all of them, or only those named

Each gets an environment of its own under .venvs/. Left out are the tests of the repository as a whole, which do not
depend on the version: stored outputs, pages, student editions, assignments and their grading.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ("1", "6", "12")
WHOLE = """notebooks project workflows site accessibility colab student exercises glossary house assignments grading
    circuit_page""".split()


def claimed() -> list[str]:
    """The versions that the workflow tests and the README names."""
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    return re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", workflow)[1])


def interpreter(version: str) -> str | None:
    """Where a version of Python is, also among pyenv's that are not switched on; None if it is not here."""
    installed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for found in (*map(str, reversed(installed)), shutil.which(f"python{version}")):
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    return None


def environment(version: str, python: str) -> Path:
    """The folder of an environment's commands; made anew if requirements or constraints have changed since."""
    home = ROOT / ".venvs" / version
    stamp, needs = home / ".set-up", [ROOT / name for name in ("settings.ini", "setup.py", "constraints.txt")]
    if not stamp.exists() or stamp.stat().st_mtime < max(path.stat().st_mtime for path in needs):
        subprocess.run([python, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, "torch"], check=True)
        subprocess.run([*pip, "--editable", f"{ROOT}[dev]"], check=True)
        stamp.touch()
    return home / "bin"


def run(name: str, command: list) -> tuple[bool, str]:
    """Whether a command passed, and its last line with the seconds that it took."""
    start = time.perf_counter()
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    lines = result.stdout.strip().splitlines() or [""]
    if result.returncode:
        print(f"--- {name}\n{result.stdout[-6000:]}{result.stderr[-2000:]}", flush=True)
    return result.returncode == 0, f"{lines[-1].strip('= ')} ({time.perf_counter() - start:.0f} s)"


def check(version: str, python: str) -> bool:
    """Test one version; prints what came of it."""
    tools = environment(version, python)
    ignored = [f"--ignore=tests/test_{name}.py" for name in WHOLE]
    pytest = [tools / "python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider"]
    chapters = [tools / "ioi-course", "run", *CHAPTERS, "--model", "synthetic", "--out", f"build/pythons/{version}"]
    jobs = {"tests": [*pytest, *ignored], "chapters": chapters}
    outcomes = {what: run(f"Python {version}, {what}", command) for what, command in jobs.items()}
    for what, (passed, said) in outcomes.items():
        print(f"Python {version}  {what:8}  {'passed' if passed else 'FAILED'}  {said}", flush=True)
    return all(passed for passed, _ in outcomes.values())


def main() -> int:
    """0 if every version that is here passes, and at least one is."""
    here = {version: interpreter(version) for version in sys.argv[1:] or claimed()}
    for version in [version for version, python in here.items() if python is None]:
        print(f"Python {version} is not on this machine: not run.")
    passed = [check(version, python) for version, python in here.items() if python]
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
