"""Print the versions installed here as pip constraints, each limited to the Pythons
that have it.

A release says in its metadata which Pythons it is for. Compiled ones say less than the
truth: there may be no wheel for a Python that they name. So the index is asked for
those.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

SUPPORTED = ["3.10", "3.11", "3.12", "3.13"]
OURS = {"ioi-course", "pip", "setuptools"}


def main() -> None:
    """Print them all."""
    print(
        "# Written by `make constraints`: the versions that the tests passed with "
        "(Python 3.11)."
    )
    rows = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    for name, dist in sorted(rows.items()):
        if name not in OURS:
            version = Version(dist.version).public
            print(f"{name}=={version}{marker(pythons_of(name, version, dist))}")


def pythons_of(name: str, version: str, dist: Distribution) -> list[str]:
    """Those of `SUPPORTED` that can install this version."""
    needs = SpecifierSet(dist.metadata.get("Requires-Python") or "")
    meant = [python for python in SUPPORTED if needs.contains(python + ".99")]
    if not for_one_python(dist.read_text("WHEEL") or ""):
        return meant
    return [python for python in meant if version in wheels(name, python)]


def for_one_python(wheel: str) -> bool:
    """Whether a wheel's tags name one CPython alone, as those of most compiled
    packages do."""
    tags = re.findall(r"^Tag: (\S+?)-(\S+?)-", wheel, re.MULTILINE)
    return bool(tags) and all(re.fullmatch(r"cp3\d+", abi) for _, abi in tags)


def wheels(name: str, python: str) -> list[str]:
    """The versions that the index has as wheels for this Python, newest first."""
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--pre"]
    only = ["--python-version", python, "--only-binary", ":all:"]
    found = subprocess.run([*command, *only], capture_output=True, text=True)
    line = re.search(r"^Available versions: (.+)$", found.stdout, re.MULTILINE)
    if line is None:
        raise SystemExit(f"pip says nothing of {name} for {python}: {found.stderr}")
    return [version.partition("+")[0] for version in line[1].split(", ")]


def marker(pythons: list[str]) -> str:
    """What limits a constraint to these Pythons, which are neighbours."""
    if not pythons:
        raise SystemExit("A version is installed that no Python can install.")
    bounds = [("first", ">=", pythons[0]), ("last", "<=", pythons[-1])]
    ends = {"first": SUPPORTED[0], "last": SUPPORTED[-1]}
    told = [
        f'python_version {sign} "{python}"'
        for end, sign, python in bounds
        if python != ends[end]
    ]
    return f" ; {' and '.join(told)}" if told else ""


if __name__ == "__main__":
    main()
