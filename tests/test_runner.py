"""A run of the course goes on whatever befalls one chapter, and leaves pages,
index and report behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.publish import pages, runner, welcome
from ioi_course.publish import run as course
from ioi_course.publish.mend import WIDGETS
from ioi_course.publish.run import Verdict
from ioi_course.publish.runner import CourseRun

pytestmark = pytest.mark.usefixtures("kernel")  # runs take the warm one that is there

COLAB = {WIDGETS: {"0a1b": {"model_name": "LayoutModel", "state": {}}}}
invoke = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke


def write(root: Path, name: str, *sources: str, metadata=None) -> Path:
    text = (
        f"# {name[3:].capitalize()}\n\n> About it.\n\n**Which?**\n\n*About 20 minutes.*"
    )
    cells = [new_markdown_cell(text), *map(new_code_cell, sources)]
    path = root / "nbs" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata or {}), path)
    return path


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A course of three chapters, the middle one of which the tests spoil."""
    monkeypatch.setenv("IOI_COURSE_MODEL", "synthetic")
    for i, name in enumerate(("setup", "spoiled", "after")):
        write(tmp_path, f"{i:02}_{name}", f"{i} + 40")
    return tmp_path


def ran(root: Path) -> dict[str, bool]:
    """The verdicts of the report; index, report and each chapter's page
    must be there as well."""
    out = root / "build" / "course"
    report = json.loads((out / "report.json").read_text())
    assert all(set(row) == {"chapter", "cells", "seconds", "ok"} for row in report)
    for name in ("index", "report", *(row["chapter"] for row in report)):
        assert "<h1" in (out / f"{name}.html").read_text(), name
    index = (out / "index.html").read_text()
    assert [row["chapter"] for row in report if not row["ok"]] == [
        name
        for name in (row["chapter"] for row in report)
        if f'report.html#{name}">See why' in index
    ]
    return {row["chapter"]: row["ok"] for row in report}


def only_the_middle_one_failed(root: Path) -> None:
    assert ran(root) == {"00_setup": True, "01_spoiled": False, "02_after": True}
    assert (
        'href="01_spoiled.html"'
        in (root / "build" / "course" / "02_after.html").read_text()
    )


def test_notebook_that_colab_saved_has_its_page(small):
    write(small, "01_spoiled", "6 * 7", metadata={"widgets": COLAB})
    result = invoke(cli.app, ["run", "--root", str(small)])
    assert result.exit_code == 0, result.output
    assert all(ran(small).values())
    assert "42" in (small / "build" / "course" / "01_spoiled.html").read_text()


def test_file_that_is_no_notebook_costs_itself_only(small):
    (small / "nbs" / "01_spoiled.ipynb").write_text("<<<<<<< HEAD")
    result = invoke(cli.app, ["run", "--root", str(small)])
    # the console breaks lines wherever a path is long
    said = "".join(result.output.split())
    assert result.exit_code == 1 and "01_spoiled.ipynbisnotanotebook" in said
    only_the_middle_one_failed(small)
    assert (
        "is not a notebook"
        in (small / "build" / "course" / "01_spoiled.html").read_text()
    )


def test_page_that_cannot_be_written_costs_itself_only(small, monkeypatch):
    def refuse(nb, page, *rest):
        if page.href == "01_spoiled.html":
            raise RuntimeError("the page's reason")
        return pages.write_page(nb, page, *rest)

    monkeypatch.setattr(runner, "write_page", refuse)
    result = invoke(cli.app, ["run", "--root", str(small)])
    told = "The page could not be written: RuntimeError: the page's reason"
    assert result.exit_code == 1 and told in result.output
    only_the_middle_one_failed(small)
    for name in ("01_spoiled", "report"):
        text = (small / "build" / "course" / f"{name}.html").read_text()
        assert "could not be written: RuntimeError" in text


def test_chapter_that_fails_in_an_unforeseen_way_costs_itself_only(small, monkeypatch):
    def fail(path, *rest):
        if path.stem == "01_spoiled":
            raise RecursionError("nobody foresaw this")
        return course.execute(path, *rest)

    monkeypatch.setattr(runner, "execute", fail)
    result = invoke(cli.app, ["run", "--root", str(small)])
    assert (
        result.exit_code == 1 and "RecursionError: nobody foresaw this" in result.output
    )
    only_the_middle_one_failed(small)


def test_outputs_that_cannot_be_stored_cost_their_chapter_only(small, monkeypatch):
    def refuse(nb, path):
        if path.stem == "01_spoiled":
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(runner, "save_outputs", refuse)
    result = invoke(cli.app, ["run", "--save", "--root", str(small)])
    assert (
        result.exit_code == 1
        and "The outputs could not be stored: PermissionError" in result.output
    )
    only_the_middle_one_failed(small)


def fast(root: Path, monkeypatch, *names: str) -> CourseRun:
    """A run whose chapters are not executed: each passes with
    the outputs that it has."""

    def execute(path, root, *rest):
        return nbformat.read(path, as_version=4), Verdict(path.stem, 1, 0.1, True), None

    monkeypatch.setattr(runner, "execute", execute)
    return CourseRun(
        root, root / "build" / "course", course.chapters(root, names), "synthetic"
    )


BROKEN = {
    "page.html.j2": "{% for",
    "notebook.html.j2": "{% block",
    "page.css": None,
    "page.js": None,
    "frame.html.j2": "{{ nothing.of.the.kind }}",
    "welcome.html.j2": "{% if",
    "report.html.j2": None,
    "welcome.css": None,
    "welcome.js": None,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_asset_leaves_report_and_index(name, small, monkeypatch, tmp_path):
    """Templates, styles and scripts of the package that are
    missing or cannot be read."""
    data = tmp_path / "page"
    data.mkdir()
    for path in pages.DATA.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / name).unlink() if BROKEN[name] is None else (data / name).write_text(
        BROKEN[name]
    )
    for module in (pages, welcome):
        monkeypatch.setattr(module, "DATA", data)
    run = fast(small, monkeypatch)
    run.prepare()
    run.execute()
    index = run.finish()
    out = small / "build" / "course"
    assert run.failures or run.problems, "it is told"
    assert len(json.loads((out / "report.json").read_text())) == 3
    text = index.read_text()
    for chapter in ("00_setup", "01_spoiled", "02_after"):
        assert f'href="{chapter}.html"' in text and (out / f"{chapter}.html").exists()
    assert (out / "report.html").exists()


def test_broken_text_page_costs_itself_only(small, monkeypatch):
    (small / "nbs" / "glossary.qmd").write_text("no front matter")
    (small / "nbs" / "notation.qmd").write_text(
        "---\ntitle: Notation\ndescription: Signs.\n---\n\n## A {#a}\n"
    )
    run = fast(small, monkeypatch)
    run.prepare()
    run.execute()
    text = run.finish().read_text()
    assert (
        len(run.problems) == 1
        and "glossary.qmd must begin with a front matter" in run.problems[0]
    )
    assert "notation.html" in text and "glossary.html" not in text and not run.failures


def test_run_of_one_chapter_keeps_its_neighbours_and_the_other_pages(
    small, monkeypatch
):
    fast(small, monkeypatch).execute()
    run = fast(small, monkeypatch, "1")
    run.execute()
    text, page = run.finish().read_text(), (run.out / "01_spoiled.html").read_text()
    assert (
        'rel="prev" href="00_setup.html"' in page
        and 'rel="next" href="02_after.html"' in page
    )
    assert text.count("The page is of an earlier run.") == 2
    assert [verdict.chapter for verdict in run.verdicts] == ["01_spoiled"]


def test_notebooks_of_the_library_run_when_they_are_named(small, monkeypatch):
    write(small, "library/metrics", "1")
    assert "library/metrics" not in fast(small, monkeypatch).paths
    run = fast(small, monkeypatch, "library/metrics")
    run.execute()
    text = run.finish().read_text()
    assert (
        list(run.paths) == ["library/metrics"] and 'href="library/metrics.html"' in text
    )
    assert 'href="../index.html"' in (run.out / "library" / "metrics.html").read_text()
    assert "Library</h2>" in text


def test_failed_chapter_shows_no_outputs_of_another_run(small):
    path = write(small, "01_spoiled", "1 / 0", "'later'")
    nb = nbformat.read(path, as_version=4)
    nb.cells[2].outputs = [nbformat.v4.new_output("stream", text="of another run")]
    nbformat.write(nb, path)
    invoke(cli.app, ["run", "1", "--root", str(small)])
    page = (small / "build" / "course" / "01_spoiled.html").read_text()
    assert "of another run" not in page and "division by zero" in page
    assert "In this run the chapter stopped at cell 2" in page


@pytest.mark.parametrize("times", [1, 2])
def test_a_kernel_that_ends_before_its_first_cell_is_started_once_more(
    small, monkeypatch, times
):
    """Jupyter draws ports before the kernel takes them, so two kernels can
    be given the same one."""
    begun, ends = [], course.NotebookClient.async_execute

    async def unlucky(client, **given):
        begun.append(client)
        if len(begun) <= times:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return await ends(client, **given)

    monkeypatch.setattr(course.NotebookClient, "async_execute", unlucky)
    path = write(small, "01_plain", "6 * 7")
    nb, verdict, failure = course.execute(path, small)
    assert len(begun) == 2
    assert verdict.ok == (times == 1) and (failure is None) == (times == 1)
    assert times == 1 or "Kernel died" in failure.reason


def test_execution_ends_when_it_is_told_to(small):
    path, stop = (
        write(small, "01_spoiled", "import time; time.sleep(60)"),
        threading.Event(),
    )
    threading.Timer(5, stop.set).start()
    start = time.monotonic()
    with pytest.raises(BaseException, match="^$") as caught:
        course.execute(path, small, stop=stop)
    assert (
        type(caught.value).__name__ == "CancelledError"
        and time.monotonic() - start < 40
    )


def test_an_interrupt_while_a_page_is_written_loses_no_chapter(small, monkeypatch):
    run = fast(small, monkeypatch)
    record, calls = run._record, []

    def interrupted(name, *rest):
        calls.append(name)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return record(name, *rest)

    monkeypatch.setattr(run, "_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.execute()
    assert calls[0] in run.outcomes and run.outcomes[calls[0]].verdict.ok


def test_ctrl_c_keeps_what_was_done(small):
    """The chapter that sleeps is ended with its kernel; report and index
    have the one before it."""
    mark = small / "mark"
    sleep = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(300)"
    )
    write(small, "01_spoiled", sleep)
    command = [
        sys.executable,
        "-c",
        (
            "import signal; signal.signal(signal.SIGINT, "
            "signal.default_int_handler);from ioi_course.cli import app; app()"
        ),
        "run",
        "--jobs",
        "1",
        "--root",
        str(small),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    until = time.monotonic() + 120
    while not (mark.exists() and mark.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert (
        "Stopped. What was done until then is in the pages and in report.json."
        in output
    )
    assert ran(small) == {"00_setup": True}
    index = (small / "build" / "course" / "index.html").read_text()
    assert (
        "The run was stopped before its end. 2 chapters were not finished: Spoiled "
        "and After."
    ) in index
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
