"""The workflows: GitHub's schema, names that exist, least permissions, and the steps
that can be run here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner as ClickRunner
from typer.testing import CliRunner

import ioi_course
from ioi_course import cli
from ioi_course.project import find_root

ROOT = find_root()
FILES = {
    path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
FLOWS = {
    name: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    for name, path in FILES.items()
}  # `on` stays
JOBS = [(name, job) for name, flow in FLOWS.items() for job in flow["jobs"]]
SIMPLE = {"github.ref", "github.workspace", "runner.os"}


def steps(name: str, job: str | None = None) -> list[dict]:
    jobs = FLOWS[name]["jobs"]
    return [step for key in jobs if job in (None, key) for step in jobs[key]["steps"]]


def run_of(name: str, step: str) -> str:
    return next(
        each["run"] for each in steps(name) if each.get("name", "").startswith(step)
    )


def test_the_three_are_there():
    assert set(FLOWS) == {"test", "docs", "release"}


def check_schema(path: Path):
    """What GitHub's own schema says of a workflow, as the package
    check-jsonschema brings it along."""
    tool = pytest.importorskip(
        "check_jsonschema",
        reason="check-jsonschema is not installed: schema not looked at",
    )
    return ClickRunner().invoke(
        tool.main, ["--builtin-schema", "vendor.github-workflows", str(path)]
    )


@pytest.mark.parametrize("name", FLOWS)
def test_schema(name):
    result = check_schema(FILES[name])
    assert result.exit_code == 0, result.output


def test_schema_notices_a_mistake(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(FILES["test"].read_text().replace("runs-on:", "run-on:"))
    result = check_schema(wrong)
    assert result.exit_code == 1 and "run-on" in result.output


@pytest.mark.parametrize("name", FLOWS)
def test_yamllint(name):
    pytest.importorskip(
        "yamllint", reason="yamllint is not installed: style not looked at"
    )
    rules = (
        "{extends: default, rules: {line-length: {max: 120}, document-start: disable, "
        "truthy: {check-keys: false}}}"
    )
    command = [
        sys.executable,
        "-m",
        "yamllint",
        "--strict",
        "-d",
        rules,
        str(FILES[name]),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", FLOWS)
def test_actionlint(name):
    if not shutil.which("actionlint"):
        pytest.skip("actionlint is not installed: its rules were not applied")
    result = subprocess.run(
        ["actionlint", str(FILES[name])], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("name", "job"), JOBS, ids="-".join)
def test_job_refers_to_what_exists(name, job):
    """Each job has a time limit, names jobs and steps that exist,
    and asks for no secret."""
    body = FLOWS[name]["jobs"][job]
    assert int(body["timeout-minutes"]) <= 120
    assert body.get("needs", job) in FLOWS[name]["jobs"]
    matrix = body.get("strategy", {}).get("matrix", {})
    ids = {step["id"] for step in body["steps"] if "id" in step}
    for expression in re.findall(r"\$\{\{\s*(.*?)\s*\}\}", str(body)):
        if expression.startswith("matrix."):
            assert expression.removeprefix("matrix.") in matrix
        elif expression.startswith("steps."):
            assert expression.split(".")[1] in ids
        else:
            assert expression in SIMPLE, expression
    for step in body["steps"]:
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w./-]+@(v\d+|release/v1)", step["uses"]), (
                "an action is used at a version"
            )


@pytest.mark.parametrize("name", FLOWS)
def test_least_permissions(name):
    """Nothing may write but the two jobs that publish, and these only
    what publishing takes."""
    assert FLOWS[name]["permissions"] == {"contents": "read"}
    given = {
        job: FLOWS[name]["jobs"][job].get("permissions") for job in FLOWS[name]["jobs"]
    }
    wanted = {
        "test": {"test": None},
        "docs": {"build": None, "deploy": {"pages": "write", "id-token": "write"}},
        "release": {"build": None, "publish": {"id-token": "write"}},
    }
    assert given == wanted[name]


@pytest.mark.parametrize("name", FLOWS)
def test_scripts_are_shell_and_call_what_exists(name):
    targets = set(
        re.findall(
            r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    scripts = [step["run"] for step in steps(name) if "run" in step]
    assert scripts
    for script in scripts:
        result = subprocess.run(
            ["bash", "-n"], input=script, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert set(re.findall(r"\bmake (\w+)", script)) <= targets
        for command in re.findall(
            r"ioi-course (\w[\w-]*)((?: --?\w+[\w-]*(?: [\w-]+)?)*)", script
        ):
            help_text = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(
                cli.app, [command[0], "--help"]
            )
            assert help_text.exit_code == 0, f"there is no command {command[0]}"
            for option in re.findall(r"--\w[\w-]*", command[1]):
                assert option in help_text.output, (
                    f"{command[0]} has no option {option}"
                )


def test_matrix():
    """Linux and macOS, all Pythons that settings.ini and the classifiers allow, and the
    command that README names."""
    matrix = FLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {
        "os": ["ubuntu-latest", "macos-latest"],
        "python": ["3.10", "3.11", "3.12", "3.13"],
    }
    assert f"min_python = {matrix['python'][0]}\n" in (ROOT / "settings.ini").read_text(
        encoding="utf-8"
    )
    assert steps("test")[-1]["run"] == "make test"


def test_strict_where_figures_are_held_to_something():
    step = next(
        step for step in steps("docs", "build") if "--record" in step.get("run", "")
    )
    assert step["env"] == {"IOI_COURSE_STRICT": "1"}
    assert "gpt2-small.json" in next(
        s["with"]["path"]
        for s in steps("docs")
        if "upload-artifact" in s.get("uses", "")
    )


def test_docs_run_on_gpt2_before_they_are_rendered():
    """Cache, set-up, chapters on GPT-2 small, claims, render, upload: in this order."""
    scripts = "\n".join(
        step.get("run") or step["uses"] for step in steps("docs", "build")
    )
    order = [
        "actions/cache@",
        "make setup",
        "run --model gpt2-small --save --record",
        "run reference/what_holds --model gpt2-small --save",
        "upload-artifact@",
        "ioi-course docs",
        "upload-pages-artifact@",
    ]
    places = [scripts.index(part) for part in order]
    assert places == sorted(places)
    cached = next(
        step["with"]["path"]
        for step in steps("docs")
        if step.get("uses", "").startswith("actions/cache")
    )
    assert FLOWS["docs"]["jobs"]["build"]["env"]["HF_HOME"].endswith(f"/{cached}"), (
        "what is kept is the hub's cache"
    )
    output = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))[
        "project"
    ]["output-dir"]
    assert (
        next(
            s["with"]["path"]
            for s in steps("docs")
            if "pages-artifact" in s.get("uses", "")
        )
        == output
    )


def test_release_wants_a_tag_that_is_the_version():
    """The step itself, run here with the right tag and with a wrong one."""
    script = run_of("release", "The tag is the version")
    for tag, code in (
        (f"v{ioi_course.__version__}", 0),
        (f"v{ioi_course.__version__}1", 1),
        ("v9.9.9", 1),
    ):
        result = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=ROOT,
            env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"},
        )
        assert result.returncode == code, tag


def test_release_publishes_without_a_password():
    publish = FLOWS["release"]["jobs"]["publish"]
    assert publish["environment"]["name"] == "pypi" and publish["needs"] == "build"
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "with" not in publish["steps"][-1], "trusted publishing takes no password"
    text = FILES["release"].read_text(encoding="utf-8")
    assert "secrets." not in text and "password" not in text


def test_python_versions_match_the_package():
    """What is built is what is tested: the release and the site use a
    Python of the matrix."""
    pythons = FLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    used = {
        step["with"]["python-version"]
        for name in ("docs", "release")
        for step in steps(name)
        if step.get("uses", "").startswith("actions/setup-python")
    }
    assert used <= set(pythons)


def test_hooks_are_valid():
    hooks = yaml.safe_load(
        Path(ROOT, ".pre-commit-config.yaml").read_text(encoding="utf-8")
    )["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"nbdev-clean", "nbdev-export", "ruff"}
