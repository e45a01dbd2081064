"""The command `ioi-course circuit`: what it prints and writes, and what
it does when it cannot."""

import json
import os
import re

import pytest
from typer.testing import CliRunner

from ioi_course import cli, finder, models, terminal
from ioi_course import trial as trial_module
from ioi_course.bundled import answer_key
from ioi_course.bundled.answer_key import CIRCUIT

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def invoke(*arguments):
    return runner.invoke(cli.app, ["circuit", *map(str, arguments)])


@pytest.fixture
def no_work(monkeypatch):
    """No model may be loaded."""

    def fail(*args, **options):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(models, "load_model", fail)


@pytest.fixture
def quick(model, found, monkeypatch):
    """The session's model, in which the circuit has been found before."""
    monkeypatch.setattr(models, "load_model", lambda name: model)
    monkeypatch.setattr(finder, "find_circuit", lambda model, data: found)


def trial(model, data, found, progress):
    """As from `on_trial`."""
    row = {"circuit": 1.25, "model": 1.5, "incompleteness": float("nan")}
    return {
        "faithfulness": {
            "model": 4.0,
            "circuit": 3.9,
            "gap": 0.1,
            "share": 0.975,
            "error": 0.01,
        },
        "completeness": {
            "class": {"induction": row},
            "random": {"mean": 0.1, "largest": 0.31},
            "greedy": {"largest": 1.7},
        },
        "minimality": {
            "heads": {"L9H9": 0.5, "L5H8": 0.02, "L0H0": None},
            "least": 0.02,
        },
    }


def test_the_whole_way_on_the_synthetic_model(tmp_path, quick):
    """All of it but the walk, which tests/test_finder.py has."""
    path = tmp_path / "found.json"
    result = invoke("--model", "synthetic", "--json", path, "--prompts", 8)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert (
        report["model"] == "synthetic"
        and report["prompts"] == 8
        and report["seed"] == 0
    )
    assert report["finder"]["precision"] == report["finder"]["recall"] == 1
    roles = {
        role: {tuple(head) for head in heads}
        for role, heads in report["finder"]["roles"].items()
        if heads
    }
    assert roles == {role: set(heads) for role, heads in CIRCUIT.roles.items()}
    assert set(report["finder"]["by_class"]) == set(CIRCUIT.roles)
    assert 0.8 < report["faithfulness"]["share"] < 1.1
    assert report["completeness"] and report["minimality"]
    evidence = report["finder"]["evidence"]
    assert len(evidence) == 26 and evidence["L9H9"]["class"] == "name mover"
    assert all(abs(row["share"]) >= 4 * row["error"] > 0 for row in evidence.values())
    for text in (
        "name mover",
        "L9H6 L9H9 L10H0",
        "What decided",
        "name mover q",
        "26 heads",
        "1.00",
        "faithfulness",
        "share",
        "minimality",
        "Written to",
    ):
        assert text in result.output
    assert os.listdir(tmp_path) == ["found.json"]


def test_the_tables(model, quick, monkeypatch):
    monkeypatch.setattr(trial_module, "on_trial", trial)
    result = invoke("--prompts", 8)
    assert result.exit_code == 0, result.output
    assert re.search(r"faithfulness .* 3\.90 .* 4\.00 .* share 0\.97", result.output)
    assert re.search(
        r"completeness .*induction .* 1\.25 .* 1\.50 .* apart ", result.output
    )
    assert "apart 0.31" in result.output and "apart 1.70" in result.output
    assert (
        "L5H8, which matters least" in result.output and "share 0.02" in result.output
    )
    assert "Written" not in result.output


def test_a_model_without_a_key_has_neither_precision_nor_recall(
    tmp_path, quick, monkeypatch
):
    monkeypatch.setattr(trial_module, "on_trial", trial)
    monkeypatch.setattr(answer_key, "known_circuit", lambda model: None)
    path = tmp_path / "found.json"
    result = invoke("--json", path, "--prompts", 8)
    assert (
        result.exit_code == 0
        and "precision" not in result.output
        and "26 heads" not in result.output
    )
    report = json.loads(path.read_text())
    assert (
        report["finder"]["precision"]
        is report["finder"]["recall"]
        is report["finder"]["by_class"]
        is None
    )
    assert len(report["finder"]["roles"]["backup name mover"]) == 8
    assert report["completeness"]["class"]["induction"]["incompleteness"] is None, (
        "JSON has no NaN"
    )


def test_where_nothing_is_found_nothing_is_tried(tmp_path, monkeypatch):
    from ioi_course.checks.core import random_model

    monkeypatch.setattr(models, "load_model", lambda name: random_model())
    monkeypatch.setattr(trial_module, "on_trial", None)
    path = tmp_path / "nothing.json"
    result = invoke("--json", path, "--prompts", 40)
    assert result.exit_code == 0, result.output
    assert "cannot do the task" in result.output and "none" in result.output
    assert (
        "unplaced writer" not in result.output and "What decided" not in result.output
    )
    report = json.loads(path.read_text())
    assert (
        not any(report["finder"]["roles"].values())
        and "cannot" in report["finder"]["notes"][0]
    )
    assert report["faithfulness"]["share"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder"),
        ("missing/found.json", "There is no folder"),
        ("file/found.json", "There is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_before_the_work(
    tmp_path, no_work, name, message
):
    (tmp_path / "file").touch()
    result = invoke("--json", tmp_path / name)
    assert result.exit_code == 2 and message in result.output, result.output
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("refused", ["folder", "file", "touch"])
def test_no_permission(tmp_path, no_work, monkeypatch, refused):
    path = tmp_path / "found.json"
    path.write_text("old")
    if refused == "touch":
        read_only = OSError(30, "Read-only file system")
        monkeypatch.setattr(
            terminal.Path, "touch", lambda self: (_ for _ in ()).throw(read_only)
        )
    else:
        path = path if refused == "file" else tmp_path / "new.json"
        monkeypatch.setattr(os, "access", lambda place, mode: False)
    result = invoke("--json", path)
    assert result.exit_code == 2 and re.search(
        "permission denied|Read-only file system", result.output
    )
    assert (tmp_path / "found.json").read_text() == "old"


@pytest.mark.parametrize("at", ["dumps", "replace"])
def test_writing_is_all_or_nothing(tmp_path, quick, monkeypatch, at):
    monkeypatch.setattr(trial_module, "on_trial", trial)
    path = tmp_path / "found.json"
    path.write_text("old")

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(terminal.json if at == "dumps" else terminal.os, at, fail)
    result = invoke("--json", path, "--prompts", 8)
    assert (
        result.exit_code == 2
        and "No space left" in result.output
        and "name mover" in result.output
    )
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["found.json"]


def test_the_file_is_as_readable_as_any_other(tmp_path):
    terminal.write_json({"a": float("inf"), "b": (1, 2)}, tmp_path / "made.json")
    (tmp_path / "plain").touch()
    assert json.loads((tmp_path / "made.json").read_text()) == {"a": None, "b": [1, 2]}
    assert (tmp_path / "made.json").stat().st_mode == (
        tmp_path / "plain"
    ).stat().st_mode


def test_an_unknown_model():
    result = invoke("--model", "synthetc")
    assert result.exit_code == 2 and "Did you mean 'synthetic'" in result.output


def test_too_few_prompts(no_work):
    assert invoke("--prompts", 4).exit_code == 2
