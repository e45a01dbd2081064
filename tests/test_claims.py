"""Claims: sentences that are measured, never stop a reader, and are held to what
is recorded of a model."""

import ast
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest

from ioi_course import claims
from ioi_course.claims import MIME, ClaimChanged, Claims, ClaimTable, recorded
from ioi_course.publish.collect import claims_of, record_claims
from ioi_course.publish.run import execute

pytestmark = pytest.mark.usefixtures("kernel")  # runs take the warm one that is there

ROOT = Path(__file__).resolve().parent.parent
WITH_CLAIMS = [
    path
    for path in sorted(ROOT.glob("nbs/[0-9]*.ipynb"))
    if "import Claims" in path.read_text("utf-8")
]


@pytest.fixture
def claim(model, monkeypatch):
    monkeypatch.delenv("IOI_COURSE_STRICT", raising=False)
    return Claims(model, "99", how="four prompts")


def test_a_claim_reads_as_a_sentence(claim):
    made = claim("mean", "The mean is {mean:.2f}.", True, mean=3.14159)
    assert repr(made) == "The mean is 3.14.\n  ✓ holds on synthetic; four prompts"
    bundle = made._repr_mimebundle_()
    assert bundle["text/html"].startswith(
        '<p class="ioi-claim">The mean is 3.14. <small'
    )
    assert bundle[MIME] == {
        "key": "99.mean",
        "text": "The mean is 3.14.",
        "holds": True,
        "model": "synthetic",
        "how": "four prompts",
        "values": {"mean": 3.142},
    }
    json.dumps(bundle)


def test_markup_in_a_claim_is_shown_as_text(claim):
    assert (
        "&lt;b&gt;"
        in claim("x", "A {name}.", True, name="<b>")._repr_mimebundle_()["text/html"]
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_makes_no_claim_true(claim, value):
    assert not claim("x", "The share is {share:.1f}.", True, share=value).holds


def test_a_slip_in_a_claim_is_an_error(claim):
    with pytest.raises(
        ValueError, match=r"places for \['b'\], and values are given for \['a'\]"
    ):
        claim("x", "It is {b}.", True, a=1)
    claim("y", "It is {a:.0f}.", True, a=1)
    claim("y", "It is {a:.0f}.", True, a=1)  # the cell once more
    with pytest.raises(ValueError, match="was made before"):
        claim("y", "It is {a:.0f}.", True, a=2)


def test_only_strict_runs_stop(claim, model, monkeypatch):
    monkeypatch.setattr(
        claims,
        "recorded",
        lambda: {"synthetic": {"claims": {"99.x": {"holds": True, "text": "was"}}}},
    )
    assert not claim("x", "It is {a:.0f}.", False, a=1).holds
    monkeypatch.setenv("IOI_COURSE_STRICT", "1")
    with pytest.raises(ClaimChanged, match="held on synthetic when it was recorded"):
        Claims(model, "99")("x", "It is {a:.0f}.", False, a=1)
    Claims(model, "99")("x", "It is {a:.0f}.", True, a=2)
    Claims(model, "99")("new", "It is {a:.0f}.", False, a=2)


def test_the_table_fills_gaps_with_published_figures(claim):
    claim("a", "IO wins in {share:.0%}.", True, share=0.5, reference="paper.accuracy")
    table = claim.table().table()
    assert list(table.columns) == ["synthetic", "gpt2-small (published)"]
    assert table.loc["99.a", "gpt2-small (published)"].startswith(
        "0.993 (Wang et al. 2022"
    )


# --- records ---


def test_records_are_complete():
    for name, each in recorded().items():
        assert (
            each["model"] == name
            and len(each["date"]) == 10
            and "torch" in each["versions"]
        )
        for key, record in each["claims"].items():
            assert (
                record["key"] == key
                and record["model"] == name
                and record["how"]
                and "{" not in record["text"]
            )
    assert {"synthetic", "smollm2", "tiny"} == set(recorded())
    assert ClaimTable("", {}).table().shape[0] == len(recorded()["synthetic"]["claims"])


# prompts over its 32 tokens; the last compares other models with it
NOT_ON_TINY = {"8", "10", "13", "14", "15"}


@pytest.mark.parametrize("path", WITH_CLAIMS, ids=lambda path: path.stem)
def test_stored_outputs_and_records_agree(path):
    """And every model has the claims that the chapter makes: none is left
    over, none is missing."""
    stored = claims_of(nbformat.read(path, as_version=4))
    chapter = next(iter(stored)).partition(".")[0]
    # ten minutes have fewer findings
    assert (3 if path.stem == "00_setup" else 5) <= len(stored) <= 12
    of = {name: {k: r for k, r in each["claims"].items() if k.startswith(f"{chapter}.")}
          for name, each in recorded().items()}  # fmt: skip
    assert of["synthetic"] == stored
    assert of["smollm2"].keys() == stored.keys()
    assert of["tiny"].keys() in (stored.keys(), set()) and bool(of["tiny"]) == (
        chapter not in NOT_ON_TINY
    )


EMPTY = dict(key="", text="", holds=True, model="m", how="", values={})


def test_a_recording_replaces_the_chapters_that_were_run(tmp_path):
    record_claims(tmp_path, "m", {"1.a": EMPTY, "2.a": EMPTY, "2.b": EMPTY})
    path = record_claims(tmp_path, "m", {"2.c": EMPTY})
    assert list(json.loads(path.read_text())["claims"]) == ["1.a", "2.c"]


def test_claims_are_in_the_order_of_the_chapters(tmp_path):
    path = record_claims(
        tmp_path,
        "m",
        dict.fromkeys(["10.a", "0b.z", "x.a", "1.a", "0.b", "0b.a"], EMPTY),
    )
    assert list(json.loads(path.read_text())["claims"]) == [
        "0.b",
        "0b.z",
        "0b.a",
        "1.a",
        "10.a",
        "x.a",
    ]


@pytest.mark.parametrize("path", WITH_CLAIMS[:2], ids=lambda path: path.stem)
def test_smollm2_says_what_is_recorded(path, smollm2_model, monkeypatch):
    """From top to bottom on a real language model: claims hold as recorded, and their
    figures are the same."""
    monkeypatch.setenv("IOI_COURSE_MODEL", "smollm2")
    monkeypatch.setenv("IOI_COURSE_STRICT", "1")
    nb, verdict, failure = execute(path, ROOT, threads=1)
    assert verdict.ok, failure
    for key, found in claims_of(nb).items():
        known = recorded()["smollm2"]["claims"][key]
        assert found["holds"] == known["holds"]
        for name, value in found["values"].items():
            assert value == known["values"][name] or abs(
                value - known["values"][name]
            ) <= 0.01 * max(abs(value), 0.1)


def test_the_package_carries_the_records(tmp_path):
    assert (files("ioi_course") / "data" / "claims" / "smollm2.json").is_file()
    code = "from ioi_course.claims import recorded; print(sorted(recorded()))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "smollm2" in said.stdout


def test_a_run_writes_its_claims(tmp_path):
    """`ioi-course run` leaves build/course/claims.json beside its report."""
    from ioi_course.publish.runner import CourseRun

    (tmp_path / "nbs").mkdir()
    cells = [
        "from ioi_course.claims import Claims",
        "from ioi_course.models import load_model",
        "claim = Claims(load_model('tiny'), '1', how='its shape')",
        "claim('layers', 'It has {n:.0f} layers.', True, n=6)",
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One")])
    nb.cells += map(nbformat.v4.new_code_cell, cells)
    nbformat.write(nb, tmp_path / "nbs" / "01_one.ipynb")
    run = CourseRun(
        tmp_path, tmp_path / "out", [tmp_path / "nbs" / "01_one.ipynb"], "tiny"
    )
    run.execute()
    run.finish()
    found = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert (
        found["model"] == "tiny"
        and found["claims"]["1.layers"]["text"] == "It has 6 layers."
    )


def is_claim(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim"


@pytest.mark.parametrize("path", WITH_CLAIMS, ids=lambda path: path.stem)
def test_every_claim_is_shown(path):
    """One that is not the last thing in its cell would be made, counted in the
    table, and read by nobody."""
    for source in (
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and "claim(" in cell.source
    ):
        tree = ast.parse(source)
        last = tree.body[-1]
        assert sum(map(is_claim, ast.walk(tree))) == (
            isinstance(last, ast.Expr) and is_claim(last.value)
        ), source
