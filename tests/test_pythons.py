"""The tools behind `make test-pythons` and `make constraints`: which Pythons are found,
that one which breaks fails, and which versions are for which Python."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str):
    """A program of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look a module up
    spec.loader.exec_module(module)
    return module


pythons, constraints = tool("pythons"), tool("constraints")

REPORT = """<testsuites><testsuite tests="10" skipped="2" failures="{failures}"
    errors="1" /></testsuites>"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """No Python on PATH or of pyenv, and results in a folder of the test's own."""
    monkeypatch.setattr(pythons, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(path: Path, says: str = "", rc: int = 0) -> Path:
    """A program that prints its version, or fails as a shim of pyenv does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says}\nexit {rc}\n")
    path.chmod(0o755)
    return path


def test_python_is_found_on_path_or_among_pyenvs_newest_first(here):
    assert pythons.find_python("3.12") is None
    put(here / "pyenv/versions/3.12.9/bin/python", "3.12")
    newest = put(here / "pyenv/versions/3.12.10/bin/python", "3.12")
    assert pythons.find_python("3.12") == str(newest)
    put(here / "bin/python3.12", "pyenv: python3.12: command not found", rc=127)
    assert pythons.find_python("3.12") == str(newest), (
        "a shim without a version behind it is no Python"
    )
    real = put(here / "bin/python3.12", "3.12")
    assert pythons.find_python("3.12") == str(real)
    assert pythons.find_python("3.1") is None


def test_tests_of_a_report_are_counted(tmp_path):
    (tmp_path / "tests.xml").write_text(REPORT.format(failures=3))
    assert pythons.count(tmp_path / "tests.xml") == {
        "passed": 4,
        "skipped": 2,
        "failed": 4,
    }


@pytest.fixture
def played(here, monkeypatch):
    """Everything but the commands themselves; `broken` holds a word of the command that
    fails, or is left out."""
    broken = []

    def call(command, wrong, **options):
        said = [str(part) for part in command]
        if "venv" in said:
            Path(said[-1]).mkdir(parents=True)
        elif "pytest" in said:
            path = Path(
                next(part for part in command if "junitxml" in str(part)).partition(
                    "="
                )[2]
            )
            path.write_text(REPORT.format(failures=0))
        elif "ioi_course.cli" in said and "no report" not in broken:
            rows = [
                {"chapter": name, "cells": 1, "seconds": 1.0, "ok": True}
                for name in pythons.CHAPTERS
            ]
            path = Path(command[-1]) / "report.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows))
        if any(word in said for word in broken):
            raise pythons.Broken(wrong)

    monkeypatch.setattr(pythons, "_call", call)
    monkeypatch.setattr(
        pythons, "versions_of", lambda python: {"python": "3.12.1", "packages": {}}
    )
    for name in ("settings.ini", "setup.py", "pyproject.toml", "constraints.txt"):
        (here / name).touch()
    put(here / "bin/python3.12", "3.12")
    return broken


def test_results_are_told_and_kept(played, here, capsys):
    assert pythons.main(["3.12", "3.13"]) == 0
    told = capsys.readouterr().out
    assert "Python 3.13 is not on this machine: passed over." in told
    assert (
        "Python 3.12.1: tests: 7 passed, 2 skipped, 1 failed" in told
        and "7 passed (1 s)" in told
    )
    (row,) = json.loads((here / "build/pythons/results.json").read_text())
    assert row["version"] == "3.12" and len(row["chapters"]) == 3 and not row["wrong"]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("pytest", "FAILED: tests"),
        ("ioi_course.cli", "FAILED: chapters"),
        ("no report", "FAILED: chapters are missing from the report"),
        ("venv", "FAILED: the environment cannot be made"),
        ("--editable", "FAILED: the course cannot be installed"),
    ],
)
def test_what_breaks_fails_loudly(played, broken, told, here, capsys):
    played.append(broken)
    assert pythons.main(["3.12"]) == 1
    assert told in capsys.readouterr().out


def test_no_python_at_all_is_a_failure(here, capsys):
    assert pythons.main([]) == 1
    told = capsys.readouterr().out
    assert (
        told.count("passed over") == len(pythons.VERSIONS) - 1
        and "nothing was tried" in told
    )


def test_environment_is_made_once_and_anew_after_a_change(here, monkeypatch):
    commands = []

    def call(command, wrong, **options):
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)

    monkeypatch.setattr(pythons, "_call", call)
    names = ("settings.ini", "setup.py", "pyproject.toml", "constraints.txt")
    for name in names:
        (here / name).touch()
    made = pythons.environment("3.12", "python3.12")
    assert made == here / ".venvs/3.12/bin/python" and len(commands) == 3
    stamp = here / ".venvs/3.12/.set-up"
    changed = stamp.stat().st_mtime
    for name in names:
        os.utime(here / name, (changed - 10, changed - 10))
    pythons.environment("3.12", "python3.12")
    assert len(commands) == 3
    os.utime(here / "constraints.txt", (changed + 10, changed + 10))
    pythons.environment("3.12", "python3.12")
    assert len(commands) == 6


def test_every_test_that_is_left_out_is_there():
    """So that a renamed file does not slip into the package's tests unnoticed."""
    for name in pythons.LEFT_OUT:
        assert (ROOT / "tests" / f"test_{name}.py").exists(), name


class Release:
    """What is installed, as importlib.metadata tells it."""

    def __init__(self, needs: str, *tags: str):
        self.metadata = {"Requires-Python": needs}
        self.wheel = "".join(f"Tag: {tag}\n" for tag in tags)

    def read_text(self, name: str) -> str:
        assert name == "WHEEL"
        return self.wheel


@pytest.mark.parametrize(
    ("needs", "tag", "there", "limit"),
    [
        (">=3.9", "py3-none-any", [], ""),
        (">=3.11", "py3-none-any", [], ' ; python_version >= "3.11"'),
        (">=3.9", "cp39-abi3-manylinux_2_28_x86_64", [], ""),
        # onnxruntime 1.32.0, which made the course impossible to install on 3.10
        (
            ">=3.10",
            "cp311-cp311-manylinux_2_28_x86_64",
            ["3.11", "3.12", "3.13"],
            ' ; python_version >= "3.11"',
        ),
        (
            ">=3.10",
            "cp311-cp311-manylinux_2_28_x86_64",
            ["3.11", "3.12"],
            ' ; python_version >= "3.11" and python_version <= "3.12"',
        ),
    ],
)
def test_a_version_is_for_the_pythons_that_have_it(
    needs, tag, there, limit, monkeypatch
):
    has = {python: ["1.31.0", "1.32.0"] for python in there}
    monkeypatch.setattr(
        constraints, "wheels", lambda name, python: has.get(python, ["1.23.2"])
    )
    found = constraints.pythons_of("onnxruntime", "1.32.0", Release(needs, tag))
    assert constraints.marker(found) == limit


def test_a_version_that_no_python_has_is_told():
    with pytest.raises(SystemExit, match="no Python can install"):
        constraints.marker([])
