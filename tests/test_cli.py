"""The command `ioi-course`, on a small course made here and, where it
matters, on the real one."""

import json
import os
import re
import shutil
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from ioi_course import cli, doctor, machine, project
from ioi_course.project import settings
from ioi_course.publish import run as course
from ioi_course.publish import site_command
from ioi_course.publish.finish import with_head

pytestmark = pytest.mark.usefixtures("kernel")  # runs take the warm one that is there

LIBRARY = "#| export\ndef long_function():\n" + "    pass\n" * 20
runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A course of two chapters that pass."""
    monkeypatch.setenv("IOI_COURSE_MODEL", "synthetic")
    write(
        tmp_path,
        "00_setup",
        "# Zero\n\n> Nothing. $a^2$ and [one](01_one.ipynb#x).",
        ["x = 6 * 7\nx", "#| hide\nhidden_value = 1", "#| default_exp setup", LIBRARY],
    )
    write(
        tmp_path,
        "01_one",
        "# One\n\n> Second.",
        ["import os\nos.environ['IOI_COURSE_MODEL']"],
    )
    return tmp_path


def write(root, name, prose, sources):
    path = root / "nbs" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(
        new_notebook(cells=[new_markdown_cell(prose), *map(new_code_cell, sources)]),
        path,
    )
    return path


def invoke(*arguments):
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def test_run_writes_pages_index_and_report(small):
    result = invoke("run", "--root", small)
    assert result.exit_code == 0, result.output
    out = small / "build" / "course"
    report = json.loads((out / "report.json").read_text())
    assert [(row["chapter"], row["cells"], row["ok"]) for row in report] == [
        ("00_setup", 4, True),
        ("01_one", 1, True),
    ]
    assert all(
        set(row) == {"chapter", "cells", "seconds", "ok"} and row["seconds"] > 0
        for row in report
    )
    index = (out / "index.html").read_text()
    assert (
        'href="00_setup.html">Zero</a>' in index
        and "synthetic" in index
        and 'href="report.html"' in index
    )
    assert (
        ">passed</td>" in (out / "report.html").read_text()
        and ">passed</td>" not in index
    )
    page = (out / "00_setup.html").read_text()
    assert "42" in page and "<math" in page and 'href="01_one.html#x"' in page
    assert (
        "<summary>Library code: <code>long_function</code></summary>" in page
        and "#|" not in page
    )
    assert "hidden_value" not in page and 'rel="next" href="01_one.html"' in page
    assert "synthetic" in (out / "01_one.html").read_text(), (
        "the model's name reaches the kernel"
    )
    assert "00_setup" in result.output and "passed" in result.output


def test_run_shows_the_failing_cell_and_goes_on(small):
    write(
        small,
        "00_setup",
        "# Zero\n\n> Fails.",
        [
            "fine = 1",
            "def f():\n    raise ValueError('the reason')\n\n\nf()",
            "after = 1",
        ],
    )
    result = invoke("run", "--root", small)
    assert result.exit_code == 1
    assert (
        "ValueError" in result.output
        and "the reason" in result.output
        and "def f():" in result.output
    )
    report = json.loads((small / "build" / "course" / "report.json").read_text())
    assert [(row["chapter"], row["cells"], row["ok"]) for row in report] == [
        ("00_setup", 1, False),
        ("01_one", 1, True),
    ]
    assert "the reason" in (small / "build" / "course" / "00_setup.html").read_text()


def test_run_stops_an_endless_cell(small):
    write(small, "00_setup", "# Zero\n\n> Endless.", ["while True: pass"])
    result = invoke("run", "00", "--root", small, "--timeout", 1)
    assert result.exit_code == 1 and "stopped after 1 seconds" in result.output


def test_run_survives_a_dead_kernel(small):
    write(small, "00_setup", "# Zero\n\n> Dies.", ["import os\nos._exit(1)"])
    result = invoke("run", "--root", small)
    assert result.exit_code == 1 and "kernel died" in result.output
    assert "1 failed" in result.output


def test_run_chooses_chapters_and_saves_outputs(small):
    path = small / "nbs" / "00_setup.ipynb"
    assert invoke("run", "00", "--root", small, "--save").exit_code == 0
    cell = nbformat.read(path, as_version=4).cells[1]
    assert cell.outputs[0].data["text/plain"] == "42" and cell.execution_count is None
    report = json.loads((small / "build" / "course" / "report.json").read_text())
    assert [row["chapter"] for row in report] == ["00_setup"]


def test_run_leaves_notebooks_alone_without_save(small):
    path = small / "nbs" / "00_setup.ipynb"
    before = path.read_bytes()
    assert invoke("run", "--root", small).exit_code == 0
    assert path.read_bytes() == before


MEET = """import os, pathlib, time
here = pathlib.Path("{mine}"); here.touch()
until = time.time() + 60
while not pathlib.Path("{other}").exists() and time.time() < until: time.sleep(0.05)
assert pathlib.Path("{other}").exists()
os.environ.get("OMP_NUM_THREADS")"""


def test_run_takes_several_chapters_at_a_time(small, monkeypatch):
    """Each chapter waits for the other one: neither would pass alone."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write(
        small, "00_setup", "# Zero\n\n> Meets.", [MEET.format(mine="zero", other="one")]
    )
    write(small, "01_one", "# One\n\n> Meets.", [MEET.format(mine="one", other="zero")])
    result = invoke("run", "--root", small, "--jobs", 2, "--save")
    assert result.exit_code == 0, result.output
    assert "2 at a time" in result.output
    report = json.loads((small / "build" / "course" / "report.json").read_text())
    assert [row["chapter"] for row in report] == ["00_setup", "01_one"]
    threads = str(machine.threads_of(2))
    for name in ("00_setup", "01_one"):
        (output,) = (
            nbformat.read(small / "nbs" / f"{name}.ipynb", as_version=4)
            .cells[1]
            .outputs
        )
        assert output.data["text/plain"] == repr(threads)


def test_chapters_at_a_time_depend_on_cores_and_memory(monkeypatch):
    available = lambda gigabytes: SimpleNamespace(available=gigabytes * 2**30)  # noqa: E731
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for gigabytes, jobs in [(100, 4), (8, 2), (1, 1)]:
        monkeypatch.setattr(
            machine.psutil,
            "virtual_memory",
            lambda gigabytes=gigabytes: available(gigabytes),
        )
        assert machine.default_jobs() == jobs
    assert [machine.threads_of(jobs) for jobs in (1, 2, 3, 8, 20)] == [None, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.threads_of(2) is None, "what the user has set counts"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "01_on"], None),
        (["run", "01_oen"], "Did you mean '01_one'"),
        (["run", "--model", "synthetc"], "synthetic"),
    ],
)
def test_run_explains_what_it_cannot_find(small, arguments, message):
    result = invoke(*arguments, "--root", small)
    assert result.exit_code == (2 if message else 0)
    assert message is None or message in result.output


def test_commands_say_where_they_must_be_run(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "__file__", str(tmp_path / "package" / "project.py"))
    result = invoke("run", "--root", tmp_path)
    assert result.exit_code == 2 and "clone" in result.output


def test_chapters_of_the_real_course_are_in_reading_order(root):
    names = [course.chapter_name(path, root) for path in course.chapters(root)]
    assert names[:2] == ["index", "00_setup"] and names.index(
        "01_tokenization"
    ) < names.index("02_logit_difference")
    assert "appendix/a_synthetic_model" in names and names[-1].startswith("reference/")
    assert not [name for name in names if name.startswith("library/")]
    assert course.chapters(root, ["appendix/a"]) == [
        root / "nbs" / "appendix" / "a_synthetic_model.ipynb"
    ]


NOTEBOOKS = """index 00_setup 00_transformer 01_one 07_seven 10_ten 14_fourteen
    16_sixteen
    appendix/a_first appendix/b_second reference/numbers
    library/metrics library/metrics_more library/00_inner
    library/.ipynb_checkpoints/metrics-checkpoint
    drafts/idea""".split()


@pytest.fixture
def many(tmp_path):
    """A course of many empty notebooks, in a folder of its own."""
    for name in NOTEBOOKS:
        path = tmp_path / "clone" / "nbs" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "clone"


def named(root, *names):
    return [course.chapter_name(path, root) for path in course.chapters(root, names)]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("", NOTEBOOKS[:11]),
        ("1", ["01_one"]),
        ("01", ["01_one"]),
        ("7", ["07_seven"]),
        ("10", ["10_ten"]),
        ("16", ["16_sixteen"]),
        ("0", ["00_setup", "00_transformer"]),
        ("00", ["00_setup", "00_transformer"]),
        ("00_t", ["00_transformer"]),
        ("7 1 07", ["07_seven", "01_one"]),
        ("a B", ["appendix/a_first", "appendix/b_second"]),
        ("appendix", ["appendix/a_first", "appendix/b_second"]),
        ("numbers", ["reference/numbers"]),
        ("library/metrics", ["library/metrics"]),
        ("library/metrics.ipynb", ["library/metrics"]),
        ("nbs/library/metrics_m", ["library/metrics_more"]),
        ("library", ["library/00_inner", "library/metrics", "library/metrics_more"]),
        ("nbs/07_seven.ipynb", ["07_seven"]),
        ("nbs/07_seven", ["07_seven"]),
        ("./nbs/07", ["07_seven"]),
        ("nbs/drafts/idea.ipynb", ["drafts/idea"]),
        ("nbs", NOTEBOOKS[:11]),
    ],
)
def test_chapters_go_by_number_letter_name_or_path(many, names, found):
    assert named(many, *names.split()) == found


def test_paths_to_chapters_are_seen_from_where_one_stands(many, monkeypatch):
    absolute = str(many / "nbs" / "07_seven")
    for folder, names in [
        (
            many.parent,
            [
                "clone/nbs/07_seven.ipynb",
                "./clone/nbs/07_seven",
                "nbs/07_seven.ipynb",
                "7",
            ],
        ),
        (many, ["nbs/07_seven.ipynb", "./nbs/07_seven.ipynb", "nbs/../nbs/07_seven"]),
        (
            many / "nbs",
            ["07_seven.ipynb", "./07_seven.ipynb", "./07_seven", "07_seven", "./07"],
        ),
        (many / "nbs" / "appendix", ["../07_seven.ipynb", "nbs/07_seven.ipynb"]),
    ]:
        monkeypatch.chdir(folder)
        for name in [*names, absolute, f"{absolute}.ipynb"]:
            assert named(many, name) == ["07_seven"], (folder, name)
    assert named(many, "a_first.ipynb") == ["appendix/a_first"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "There is no chapter ''"),
        ("2", "There is no chapter '2'"),
        ("70", "There is no chapter '70'"),
        ("z", "There is no chapter 'z'"),
        ("07_sevne", "Did you mean '07_seven'?"),
        ("metrisc", "Did you mean 'metrics'?"),
        ("nbs/07_sevne.ipynb", "Did you mean '07_seven'?"),
        ("elsewhere.ipynb", "elsewhere.ipynb is not below the course's nbs/"),
        ("..", ".. is not below the course's nbs/"),
    ],
)
def test_names_that_mean_nothing_are_explained(many, name, message, monkeypatch):
    monkeypatch.chdir(many)
    (many / "elsewhere.ipynb").touch()
    with pytest.raises(project.CourseError, match=re.escape(message)):
        course.chapters(many, [name])


def test_doctor_says_what_to_do(monkeypatch):
    monkeypatch.setattr(doctor, "hub_answers", lambda: False)
    monkeypatch.setattr(doctor, "in_cache", lambda name: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    for text in (
        "torch",
        "memory",
        "no answer",
        "synthetic",
        "Quarto",
        "Chromium",
        "Node",
        "optional",
    ):
        assert text in result.output


def test_doctor_fails_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(doctor, "hub_answers", lambda: True)
    monkeypatch.setattr(doctor, "NEEDED_GB", 1e6)
    result = invoke("doctor")
    assert result.exit_code == 1 and "missing" in result.output


def test_models_lists_what_is_at_hand():
    result = invoke("models")
    assert result.exit_code == 0, result.output
    assert (
        "synthetic" in result.output
        and "gpt2-small" in result.output
        and "bundled" in result.output
    )


def test_lab_says_how_to_get_jupyterlab(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    result = invoke("lab", "--root", small)
    assert result.exit_code == 2 and "ioi_course[lab]" in result.output


def test_lab_opens_the_chapters(small, monkeypatch):
    calls = []
    monkeypatch.setattr(
        cli.subprocess, "call", lambda command: calls.append(command) or 0
    )
    assert invoke("lab", "--root", small).exit_code == 0
    static = small / "build" / "static"
    assert calls == [
        [
            sys.executable,
            "-m",
            "jupyterlab",
            str(small / "nbs"),
            f"--ServerApp.extra_static_paths=['{static}']",
        ]
    ]
    assert (static / "ioi_course" / "Plotly.js").stat().st_size > 1_000_000


def test_docs_says_that_quarto_is_missing(root, monkeypatch, tmp_path):
    monkeypatch.setattr(site_command.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        "ioi_course.publish.site.stage", lambda root: tmp_path / "_proc"
    )
    result = invoke("docs", "--root", root)
    assert (
        result.exit_code == 1
        and "Quarto is not installed" in result.output
        and "quarto.org" in result.output
    )


def test_docs_renders_with_quarto_in_one_process(small, root, monkeypatch, tmp_path):
    """What Quarto says goes to the terminal, each step says how long it took, and
    notebooks and heads are added."""
    calls, pages = [], tmp_path / "_proc"
    shutil.copy(root / "settings.ini", small)

    def render(command, cwd):
        calls.append((command, cwd))
        (pages / "_docs").mkdir(parents=True)
        head = (
            '<meta name="description" content="An &amp; '
            'more"><title>One</title></head><body>'
        )
        (pages / "_docs" / "index.html").write_text(
            f"<html><head>{head}", encoding="utf-8"
        )
        return 0

    monkeypatch.setattr(site_command.shutil, "which", lambda name: "/usr/bin/quarto")
    monkeypatch.setattr("ioi_course.publish.site.stage", lambda root: pages)
    monkeypatch.setattr(site_command.subprocess, "call", render)
    result = invoke("docs", "--root", small)
    assert result.exit_code == 0, result.output
    assert calls == [
        (
            ["quarto", "render", "--no-cache", "--output-dir", str(pages / "_docs")],
            pages,
        )
    ]
    for said in ("Staged the pages in 0 s.", "Rendered with Quarto in 0 s.", "Site: "):
        assert said in result.output
    text = (small / "_docs" / "index.html").read_text(encoding="utf-8")
    address = settings(small)["doc_url"]
    assert (
        f'<link rel="canonical" href="{address}">' in text
        and f'content="{address}images/card.png"' in text
    )
    assert (
        '<meta property="og:description" content="An &amp; more">' in text
        and text.count("</head>") == 1
    )
    assert with_head(text, "index.html", address) == text
    chapters = [path.name for path in (small / "nbs").glob("[0-9]*.ipynb")]
    assert chapters and sorted(
        path.name for path in (small / "_docs" / "notebooks").glob("0*")
    ) == sorted(chapters)
    assert f"]({address}{chapters[0][:-6]}.html)" in (
        small / "_docs" / "llms.txt"
    ).read_text(encoding="utf-8")


def test_docs_fails_where_quarto_does(small, monkeypatch, tmp_path):
    monkeypatch.setattr(site_command.shutil, "which", lambda name: "/usr/bin/quarto")
    monkeypatch.setattr("ioi_course.publish.site.stage", lambda root: tmp_path)
    monkeypatch.setattr(site_command.subprocess, "call", lambda command, cwd: 3)
    assert invoke("docs", "--root", small).exit_code == 3
    assert not (small / "_docs").exists()


def test_command_is_installed():
    assert os.access(
        os.path.join(os.path.dirname(sys.executable), "ioi-course"), os.X_OK
    )
