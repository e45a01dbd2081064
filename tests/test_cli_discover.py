"""The command `ioi-course discover`: what it prints and writes, and what
it does when it cannot."""

import json

import pytest
from typer.testing import CliRunner

from ioi_course import cli, models
from ioi_course.discovery import exact

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def invoke(*arguments):
    return runner.invoke(cli.app, ["discover", *map(str, arguments)])


@pytest.fixture(scope="module")
def tiny():
    return models.load_model("tiny")


@pytest.fixture
def at_hand(tiny, monkeypatch):
    """The small model, loaded before, whatever is asked for."""
    monkeypatch.setattr(models, "load_model", lambda name: tiny)


def test_scores_circuits_and_a_file(tmp_path, at_hand):
    result = invoke(
        "--model",
        "tiny",
        "--method",
        "eap",
        "--pairs",
        2,
        "--json",
        tmp_path / "found.json",
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["model"] == "tiny" and found["method"] == "eap" and found["key"] == {}
    assert len(found["best"]) == 30 and found["best"][0]["edge"] in result.output
    by_size = found["curves"]["by size"]
    assert (
        by_size["f by edges"][str(found["edges"])] == 1
        and len(by_size["f by edges"]) == 10
    )
    assert (
        f"CMD by size {by_size['CMD']:.3f}" in result.output
        and "answer key" not in result.output
    )


def test_a_method_that_does_not_exist(at_hand):
    result = invoke("--method", "guess")
    assert result.exit_code == 2 and "eap-ig-inputs" in result.output


def test_what_is_wrong_is_said_in_one_line(at_hand):
    result = invoke("--model", "tiny", "--method", "random", "--corrupt", "noise")
    assert (
        result.exit_code == 2 and "There is no counterfactual 'noise'" in result.output
    )


def test_a_stopped_run_says_where_its_scores_are(tmp_path, at_hand, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(exact, "exact_scores", stopped)
    result = invoke("--method", "exact", "--keep", tmp_path / "kept.safetensors")
    assert (
        result.exit_code == 2
        and "goes on from there" in result.output
        and "kept.safetensors" in result.output
    )


def test_a_file_that_cannot_be_written_is_noticed_before_the_work(
    tmp_path, monkeypatch
):
    def fail(*args, **options):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(models, "load_model", fail)
    result = invoke("--json", tmp_path / "no" / "found.json")
    assert result.exit_code == 2 and "found.json" in result.output
