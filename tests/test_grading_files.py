"""What is handed in, and the instructor's table: one odd file costs one
student, and nobody is lost."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext

import pytest
from small import ALL, CELLS, NAME, notebook
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.grading import grades, run, sandbox, submissions, table
from ioi_course.grading.grades import Grade, Question
from ioi_course.project import CourseError

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)


@pytest.fixture
def class_run(small, tmp_path, monkeypatch):
    """Grade a folder without running anything: who has a notebook that can be
    read gets all points."""
    graded = []

    def all_right(student, data, assignment, server, limits, secret, stop, seed):
        graded.append(student)
        submissions.read_cells(data, assignment.name)
        cases = {
            q: [case | {"passed": True, "message": ""} for case in cases]
            for q, cases in small.cases.items()
        }
        questions = [Question(q, each) for q, each in cases.items()]
        return Grade(
            student, NAME, "graded", [], questions, seed=7 if seed is None else seed
        )

    monkeypatch.setattr(run, "grade", all_right)
    monkeypatch.setattr(run, "Server", lambda: nullcontext())

    def start(folder, out=tmp_path / "out", seed=None):
        graded.clear()
        found = submissions.find_submissions([folder], NAME)
        run.grade_all(found, small, out, 2, seed=seed)
        with (out / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = {row["student"]: row for row in csv.DictReader(file)}
        return rows, list(graded)

    return start


def put(folder, name, data=None):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(notebook() if data is None else data)
    return path


def zipped(members) -> bytes:
    import io

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in members.items():
            archive.writestr(
                zipfile.ZipInfo(name, (2026, 1, 1 + len(archive.namelist()), 0, 0, 0)),
                data,
            )
    return held.getvalue()


def bare() -> bytes:
    """A notebook whose cells have neither outputs nor metadata."""
    nb = json.loads(notebook())
    for cell in nb["cells"]:
        (
            cell.pop("outputs", None),
            cell.pop("metadata", None),
            cell.pop("execution_count", None),
        )
    return json.dumps(nb).encode()


def older() -> bytes:
    """The same in nbformat 3."""
    nb = json.loads(notebook())
    cells = [
        {
            "cell_type": "code",
            "language": "python",
            "outputs": [],
            "input": cell["source"],
        }
        if cell["cell_type"] == "code"
        else {"cell_type": "markdown", "source": cell["source"]}
        for cell in nb["cells"]
    ]
    sheets = [{"cells": cells[:4]}, {"cells": cells[4:]}]
    return json.dumps(
        {
            "nbformat": 3,
            "nbformat_minor": 0,
            "metadata": {"name": ""},
            "worksheets": sheets,
        }
    ).encode()


def stuffed(**more) -> bytes:
    """With more in the notebook's metadata."""
    nb = json.loads(notebook())
    nb["metadata"] |= more
    return json.dumps(nb).encode()


LATIN = notebook([*CELLS, "# Zoë"]).replace("ë".encode(), "ë".encode("latin-1"))
ODD = {  # files of a student -> status, and what the note says
    "empty": ({}, "refused", "No notebook was handed in, no file."),
    "pdf": (
        {"answers.pdf": b"%PDF"},
        "refused",
        "No notebook was handed in, only answers.pdf.",
    ),
    "python": ({"answers.py": b"x = 1"}, "refused", "only answers.py"),
    "zip of nothing": (
        {"all.zip": zipped({"notes.txt": b"x"})},
        "refused",
        "only all.zip",
    ),
    "broken zip": ({"all.zip": b"PK\x03\x04 broken"}, "refused", "only all.zip"),
    "capitals": ({"SMALL.IPYNB": None}, "graded", "Read from SMALL.IPYNB."),
    "text": ({"small.ipynb.txt": None}, "graded", "Read from small.ipynb.txt."),
    "in a zip": (
        {
            "all.zip": zipped(
                {"x/small.ipynb": notebook(), "__MACOSX/x/._small.ipynb": b"x"}
            )
        },
        "graded",
        "Read from all.zip: x/small.ipynb.",
    ),
    "two in a zip": (
        {"all.zip": zipped({"a.ipynb": notebook(), "b.ipynb": notebook()})},
        "graded",
        ("2 notebooks were handed in; all.zip: b.ipynb is the newest that fits."),
    ),
    "one of another assignment": (
        {"a.ipynb": None, "b.ipynb": notebook(name="other")},
        "graded",
        ("2 notebooks were handed in; a.ipynb is the newest that fits."),
    ),
    "none fits": (
        {"a.ipynb": b"{}", "b.ipynb": notebook(name="other")},
        "refused",
        "None of 2 notebooks fits.",
    ),
    "too large": (
        {"small.ipynb": b" " * (submissions.LARGEST + 1)},
        "refused",
        "has 50 MB; a notebook has at most 50",
    ),
    "bomb": (
        {"all.zip": zipped({"small.ipynb": b" " * (submissions.LARGEST + 1)})},
        "refused",
        "at most 50",
    ),
    "byte order mark": ({"small.ipynb": b"\xef\xbb\xbf" + notebook()}, "graded", ""),
    "sixteen bits": (
        {"small.ipynb": notebook().decode().encode("utf-16")},
        "graded",
        "",
    ),
    "latin one": (
        {"small.ipynb": LATIN},
        "refused",
        "some editor has saved it in another encoding",
    ),
    "bare cells": ({"small.ipynb": bare()}, "graded", ""),
    "no json": (
        {"small.ipynb": b"hello"},
        "refused",
        "The file is no notebook: JSONDecodeError.",
    ),
    "nbformat 3": ({"small.ipynb": older()}, "graded", ""),
    "a comma too many": (
        {"small.ipynb": notebook().rstrip()[:-1] + b",}"},
        "refused",
        "is no notebook",
    ),
    "many cells": (
        {"small.ipynb": notebook(["x = 1"] * 6000)},
        "refused",
        "has 6001 cells; a notebook has at most 5000",
    ),
    "much in the metadata": ({"small.ipynb": stuffed(x=[{}] * 10**6)}, "graded", ""),
    "much output": (
        {
            "small.ipynb": notebook().replace(
                b'"outputs": []', b'"outputs": [%s]' % (b"{}," * 10**5 + b"{}"), 1
            )
        },
        "graded",
        "",
    ),
    "no code": ({"small.ipynb": notebook([])}, "graded", ""),
    "checks without end": (
        {"small.ipynb": notebook([*CELLS, "grader.check()   " * 30 + "x"])},
        "graded",
        "",
    ),
    "a zip that is too large": (
        {"all.zip": b"PK" + bytes(submissions.LARGEST)},
        "refused",
        "all.zip has 50 MB",
    ),
    "a zip in a zip": (
        {"all.zip": zipped({"in.zip": zipped({"small.ipynb": notebook()})})},
        "refused",
        "only all.zip",
    ),
    "a zip of odd paths": (
        {"all.zip": zipped({"../../small.ipynb": notebook(), "/etc/b.ipynb": b"x"})},
        "graded",
        (
            "2 notebooks were handed in; all.zip: ../../small.ipynb is the newest "
            "that fits."
        ),
    ),
    "📓 of mine": ({"📓 \n\u202e.ipynb": None, "b.pdf": b"%PDF"}, "graded", ""),
    "nothing in it": ({"small.ipynb": b""}, "refused", "The file is no notebook"),
}


def test_one_odd_file_costs_one_student(class_run, tmp_path):
    downloads = tmp_path / "downloads"
    for student, (files, *_) in ODD.items():
        (downloads / student).mkdir(parents=True)
        for i, (name, data) in enumerate(files.items()):
            os.utime(put(downloads / student, name, data), (1_700_000_000 + i,) * 2)
    outside = put(tmp_path / "elsewhere", "secret.ipynb")
    for student in ("folder", "dangling", "pipe", "link", "unreadable", "fine"):
        (downloads / student).mkdir()
    (downloads / "folder" / "small.ipynb").mkdir()
    (downloads / "dangling" / "small.ipynb").symlink_to(tmp_path / "nowhere")
    os.mkfifo(downloads / "pipe" / "small.ipynb")
    (downloads / "link" / "small.ipynb").symlink_to(outside)
    put(downloads / "fine", "small.ipynb")
    (
        put(downloads, "alone.ipynb"),
        put(downloads, "only.pdf", b"%PDF"),
        put(downloads, "README.txt", b"by hand"),
    )
    rows, graded = class_run(downloads)
    assert set(rows) == {
        *ODD,
        "folder",
        "dangling",
        "pipe",
        "link",
        "unreadable",
        "fine",
        "alone",
        "only",
    }
    for student, (_, status, note) in ODD.items():
        assert rows[student]["status"] == status and note in rows[student]["note"], (
            rows[student]
        )
        assert rows[student]["total"] == ("6" if status == "graded" else "0")
    for student, note in {
        "folder": "small.ipynb has a notebook's name and is no file.",
        "pipe": "is no file",
        "dangling": "is a link to another file, which is not followed.",
        "link": "is a link to another file",
        "unreadable": "no file",
        "only": "only only.pdf",
    }.items():
        assert rows[student]["status"] == "refused" and note in rows[student]["note"], (
            rows[student]
        )
    assert rows["fine"]["total"] == rows["alone"]["total"] == "6" and {
        "fine",
        "alone",
    } <= set(graded)
    assert all(row["of"] == "6" for row in rows.values())
    reports = {path.stem for path in (tmp_path / "out" / "reports").glob("*.html")}
    assert len(reports) == len(rows), "everybody has a page"


def test_an_unreadable_file_is_a_reason(tmp_path, monkeypatch):
    path = put(tmp_path, "ann.ipynb")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", denied)  # root reads everything
    with pytest.raises(
        submissions.Refused, match="ann.ipynb cannot be read: Permission denied."
    ):
        submissions.Upload(path).read()


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = put(tmp_path, "ann.ipynb", b"")
    os.truncate(path, 2**40)
    monkeypatch.setattr(
        type(path), "read_bytes", lambda self: pytest.fail("it was read")
    )
    with pytest.raises(submissions.Refused, match="at most 50"):
        submissions.Upload(path).read()


def test_of_very_much_not_everything_is_read(tmp_path, monkeypatch, class_run):
    """A zip of a few kilobytes can hold a thousand files of 50 MB."""
    monkeypatch.setattr(submissions, "ALTOGETHER", 10)
    os.utime(put(tmp_path / "all" / "ann", "a.ipynb"), (1, 1))
    put(tmp_path / "all" / "ann", "b.ipynb", notebook(name="other"))
    note = class_run(tmp_path / "all")[0]["ann"]["note"]
    assert "None of 1 notebooks fits, and the other 1 were not read." in note


def test_uploads_of_one_person_are_joined(tmp_path, class_run):
    canvas, moodle, gradescope = (
        tmp_path / "canvas",
        tmp_path / "moodle",
        tmp_path / "gradescope",
    )
    old, new = notebook([*CELLS, "# old"]), notebook([*CELLS, "# new"])
    put(canvas, "doejane_71_1001_small.ipynb", old)
    put(canvas, "doejane_LATE_71_1002_small-1.ipynb", new)
    put(canvas, "doejane_72_1003_small.ipynb")  # another person of this name
    put(moodle, "Jane Doe_501_assignsubmission_file_/small.ipynb", new)
    put(moodle, "Jane Doe_501_assignsubmission_onlinetext_/onlinetext.html", b"<p>")
    put(moodle, "José Ruiz_502_assignsubmission_file_small.ipynb")
    people = {"submission_100": "Ann", "submission_101": "Ann", "submission_102": "Bob"}
    for name in people:
        put(gradescope, f"{name}/small.ipynb", old if name == "submission_100" else new)
    said = [
        f"{name}:\n  :submitters:\n  - :name: {who}\n    :email: x@y\n"
        for name, who in people.items()
    ]
    put(gradescope, "submission_metadata.yml", "".join(said).encode())
    found = {one.student: one for one in submissions.find_submissions([canvas], NAME)}
    assert {name: (one.id, one.late) for name, one in found.items()} == {
        "doejane": ("71", True), "doejane 72": ("72", False),
    }  # fmt: skip
    data, note = found["doejane"].chosen(NAME)
    assert data == new and note == (
        "2 notebooks were handed in; doejane_LATE_71_1002_small-1.ipynb is the "
        "newest that fits."
    )
    found = {one.student: one for one in submissions.find_submissions([moodle], NAME)}
    assert {name: one.id for name, one in found.items()} == {
        "Jane Doe": "501",
        "José Ruiz": "502",
    }
    assert found["Jane Doe"].chosen(NAME) == (new, "")
    found = {
        one.student: one for one in submissions.find_submissions([gradescope], NAME)
    }
    assert sorted(found) == ["Ann", "Bob"] and found["Ann"].chosen(NAME)[0] == new
    rows, _ = class_run(canvas)
    assert rows["doejane"]["late"] == "late" and rows["doejane 72"]["late"] == ""


def test_students_are_called_as_their_files_or_folders(tmp_path):
    for path in (
        "ann.ipynb",
        "Bob_1/small.ipynb",
        "two/x.ipynb",
        "two/y.ipynb",
        ".ipynb_checkpoints/z.ipynb",
    ):
        put(tmp_path / "a", path)
    found = submissions.find_submissions([tmp_path / "a"], NAME)
    assert [one.student for one in found] == ["Bob_1", "ann", "two"] and len(
        found[2].uploads
    ) == 2
    assert [
        one.student
        for one in submissions.find_submissions(
            [tmp_path / "a" / "Bob_1" / "small.ipynb"], NAME
        )
    ] == ["Bob_1"]
    other = put(tmp_path / "b", "ann.ipynb")
    assert [
        one.student
        for one in submissions.find_submissions(
            [tmp_path / "a" / "ann.ipynb", other], NAME
        )
    ] == [
        "ann",
        "ann (2)",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match="Nothing was handed in"):
        submissions.find_submissions([tmp_path / "empty"], NAME)
    with pytest.raises(CourseError, match="no file or folder"):
        submissions.find_submissions([tmp_path / "nothing"], NAME)


def test_names_that_no_file_can_have_or_that_become_equal(tmp_path, class_run):
    names = ["x" * 240, "x" * 239 + "y", "a:b", "a*b", "Ann", "ann", "_", "..."]
    assert len({submissions.file_name(name).lower() for name in names}) == len(names)
    assert all(len(submissions.file_name(name).encode()) < 120 for name in names)
    for name in names[:-1]:
        put(tmp_path / "all", f"{name}.ipynb")
    put(tmp_path / "all", "\udcff.ipynb")
    rows, graded = class_run(tmp_path / "all")
    assert len(rows) == len(names) and len(set(graded)) == len(names) and "?" in rows


# --- the table


def test_one_student_graded_again_keeps_the_others(class_run, tmp_path):
    put(tmp_path / "all", "ann.ipynb"), put(tmp_path / "all", "bob.ipynb")
    assert class_run(tmp_path / "all")[1] == ["ann", "bob"]
    rows, graded = class_run(
        put(tmp_path / "again", "bob.ipynb", notebook([*CELLS, "# better"])).parent
    )
    assert list(rows) == ["ann", "bob"] and graded == ["bob"]
    assert class_run(tmp_path / "again")[1] == []


def test_a_seed_grades_again_who_had_another_and_is_kept(class_run, tmp_path):
    put(tmp_path / "in" / "ann", "small.ipynb")
    put(tmp_path / "in" / "bob", "essay.pdf", b"x")

    def seeds():
        kept = [
            json.loads(path.read_text())
            for path in sorted((tmp_path / "out" / "results").glob("*.json"))
        ]
        return {one["student"]: one["seed"] for one in kept}

    assert class_run(tmp_path / "in")[1] == ["ann"] and seeds() == {
        "ann": 7,
        "bob": None,
    }
    assert class_run(tmp_path / "in", seed=7)[1] == []
    assert class_run(tmp_path / "in", seed=8)[1] == ["ann"] and seeds() == {
        "ann": 8,
        "bob": None,
    }
    assert class_run(tmp_path / "in")[1] == [] and seeds()["ann"] == 8


def test_a_mended_check_and_a_mended_autograder_grade_again(
    class_run, small, tmp_path, monkeypatch
):
    put(tmp_path / "all", "ann.ipynb")
    class_run(tmp_path / "all")
    assert class_run(tmp_path / "all")[1] == []
    course = tmp_path / "course"
    (course / "checks").mkdir(parents=True)
    (course / "__init__.py").write_text("")
    monkeypatch.setattr(run.ioi_course, "__file__", str(course / "__init__.py"))
    assert class_run(tmp_path / "all")[1] == ["ann"]
    (course / "checks" / "core.py").write_text("mended = True")
    assert class_run(tmp_path / "all")[1] == ["ann"]
    assert class_run(tmp_path / "all")[1] == []
    limits = run.Limits()
    before = run.key_of(small, limits)
    small.path.write_bytes(small.path.read_bytes() + b"\x00")
    assert run.key_of(small, limits) != before


def test_overrides_are_applied_and_shown(class_run, tmp_path):
    put(tmp_path / "all", "ann.ipynb"), put(tmp_path / "all", "bob.ipynb")
    class_run(tmp_path / "all")
    out = tmp_path / "out"
    (out / "overrides.csv").write_text(
        "student,question,points,reason\nann,q1,0.5,half right\n"
        "ann,verdict,8,read by EK\n,,,\n",
        encoding="utf-8-sig",
    )
    rows, graded = class_run(tmp_path / "all")
    assert graded == [] and (
        rows["ann"]["q1"],
        rows["ann"]["total"],
        rows["ann"]["verdict"],
    ) == ("0.5", "12.5", "8")
    assert (
        "q1: 0.5 points given: half right" in rows["ann"]["note"]
        and rows["bob"]["verdict"] == ""
    )
    page = (out / "reports" / "ann.html").read_text()
    assert "half right" in page and "read by EK" in page and "12.5 of 6 points" in page
    assert (
        json.loads((out / "results" / "ann.json").read_text())["questions"][0]["given"]
        is None
    )
    for line, said in {
        "anne,q1,1,": "there is no student 'anne'",
        "ann,q1,many,": "the points are 'many'", "ann,q1,-1,": "not negative",
        "ann,q1,nan,": "the points are 'nan'",
    }.items():  # fmt: skip
        (out / "overrides.csv").write_text(f"student,question,points,reason\n{line}\n")
        with pytest.raises(CourseError, match=f"overrides.csv, line 2: .*{said}"):
            class_run(tmp_path / "all")
    (out / "overrides.csv").write_text(  # the other lines count, and everybody is there
        "anne,q1,1,\nann,q1,0,\n".join(
            ["student,question,points,reason\n", "bob,q1,1,x"]
        )
    )
    with pytest.raises(CourseError, match="line 2: there is no student 'anne'"):
        class_run(tmp_path / "all")
    with (out / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [row["q1"] for row in csv.DictReader(file)] == ["0", "1"]
    (out / "overrides.csv").write_text("student,points\n")
    with pytest.raises(CourseError, match="question and reason is missing"):
        class_run(tmp_path / "all")


@pytest.mark.parametrize(
    "data",
    [
        "student;question;points;reason\r\nann;q1;0,5;für Zoë\r\n".encode("utf-8-sig"),
        (b'Student,Question,Points,Reason,\r\n"ann","q1","0,5","zwei\nZeilen",\r\n'),
        b"student\tquestion\tpoints\treason\n'ann\tq1\t0.5\tx\n",
    ],
)
def test_overrides_are_read_as_spreadsheets_write_them(class_run, tmp_path, data):
    put(tmp_path / "all", "ann.ipynb")
    put(tmp_path / "out", "overrides.csv", data)
    assert class_run(tmp_path / "all")[0]["ann"]["q1"] == "0.5"


def test_overrides_in_another_encoding_are_named_and_the_table_is_written(
    class_run, tmp_path
):
    put(tmp_path / "all", "ann.ipynb")
    rows = "student,question,points,reason\nann,q1,0,Zoë\n".encode("latin-1")
    put(tmp_path / "out", "overrides.csv", rows)
    with pytest.raises(CourseError, match="overrides.csv is not in UTF-8"):
        class_run(tmp_path / "all")
    assert (tmp_path / "out" / "grades.csv").exists()


def test_a_namesake_who_is_graded_alone_takes_nobodys_place(class_run, tmp_path):
    for number in (70, 72):
        put(tmp_path / "all", f"doejane_{number}_1003_small.ipynb")
    assert set(class_run(tmp_path / "all")[0]) == {"doejane", "doejane 72"}
    put(tmp_path / "new", "doejane_72_1009_small.ipynb", notebook([*CELLS, "# new"]))
    rows, graded = class_run(tmp_path / "new")
    assert set(rows) == {"doejane", "doejane 72"} and graded == ["doejane 72"]
    put(tmp_path / "later", "doejane_69_1010_small.ipynb")
    assert set(class_run(tmp_path / "later")[0]) == {*rows, "doejane 69"}


def test_two_runs_do_not_share_a_folder(class_run, tmp_path):
    put(tmp_path / "all", "ann.ipynb")
    out = tmp_path / "out"
    out.mkdir()
    with (
        run.locked(out),
        pytest.raises(CourseError, match="Another run is grading into"),
    ):
        class_run(tmp_path / "all")
    class_run(tmp_path / "all")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "x;=1",
        "a\n=cmd",
        "x, -1",
        "a;  @b",
        "＝1",
    ],
)
def test_no_cell_is_taken_for_a_formula(tmp_path, text):
    graded = Grade(text, NAME, "graded", [text])
    table.write_table([graded], tmp_path / "grades.csv")
    raw = (tmp_path / "grades.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf"), "spreadsheets know UTF-8 by its mark"
    assert raw.count(b"\n") == 2 and b"\r" not in raw and b"\t" not in raw
    for separator in ",;\t":
        with (tmp_path / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
            cells = [
                cell for row in csv.reader(file, delimiter=separator) for cell in row
            ]
        assert not any(re.match(r"\s*[=+\-@＝]", cell) for cell in cells), (
            separator,
            cells,
        )


def test_tables_for_canvas_and_moodle(tmp_path):
    questions = [
        Question(
            "q1",
            [
                {
                    "name": "a",
                    "points": 2,
                    "hidden": False,
                    "passed": True,
                    "message": "",
                }
            ],
        )
    ]
    table.write_platform_tables(
        [
            Grade("Doe, Jane", NAME, "graded", [], questions, id="71"),
            Grade("x", NAME, "failed"),
        ],
        tmp_path,
    )
    with (tmp_path / "canvas.csv").open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.reader(file)) == [
            ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", NAME],
            ["Doe, Jane", "71", "", "", "", "2"],
        ]
    with (tmp_path / "moodle.csv").open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.reader(file))[1] == ["Participant 71", "Doe, Jane", "2", "2"]


def test_a_grader_that_fails_costs_a_row_and_is_tried_again(
    class_run, tmp_path, monkeypatch
):
    put(tmp_path / "all", "ann.ipynb"), put(tmp_path / "all", "bob.ipynb")
    whole = run.grade

    def fails(student, *rest):
        if student == "ann":
            raise RuntimeError("out of luck")
        return whole(student, *rest)

    monkeypatch.setattr(run, "grade", fails)
    rows, _ = class_run(tmp_path / "all")
    assert (
        rows["ann"]["status"] == "failed"
        and "out of luck" in rows["ann"]["note"]
        and rows["bob"]["total"] == "6"
    )
    monkeypatch.setattr(run, "grade", whole)
    rows, graded = class_run(tmp_path / "all")
    assert graded == ["ann"] and rows["ann"]["status"] == "graded"


def test_results_that_cannot_be_read_are_made_again(class_run, tmp_path):
    put(tmp_path / "all", "ann.ipynb")
    class_run(tmp_path / "all")
    (tmp_path / "out" / "results" / "ann.json").write_text("{")
    assert (
        class_run(tmp_path / "all")[1] == ["ann"]
        and grades.load_all(tmp_path / "out" / "results")[0].total == 6
    )


# --- where it may run


def invoke(path, small, *more):
    arguments = [
        "grade",
        str(path),
        "--assignment",
        str(small.path),
        "--out",
        str(path.parent / "out"),
        *more,
    ]
    return CliRunner(env={"COLUMNS": "400", "TERM": "dumb"}).invoke(cli.app, arguments)


def test_on_a_mac_and_on_windows_it_says_how_before_anything_else(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "platform", "darwin")
    result = invoke(tmp_path / "nothing", small)
    assert (
        result.exit_code == 2
        and "container with Linux" in result.output
        and "WSL 2" in result.output
    )
    assert not (tmp_path / "out").exists()


def test_it_refuses_to_run_as_root_and_without_the_kernels_isolation(
    small, class_run, tmp_path, monkeypatch
):
    path = put(tmp_path / "all", "ann.ipynb").parent
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = invoke(path, small)
    assert (
        result.exit_code == 2
        and "You are root" in result.output
        and "--as-root" in result.output
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sandbox, "lacking", lambda: ["namespaces", "Landlock"])
    result = invoke(path, small)
    assert (
        result.exit_code == 2
        and "does not allow namespaces and Landlock" in result.output
    )
    assert not (tmp_path / "out").exists()
    result = invoke(path, small, "--no-isolation")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("calls", "missing"),
    [([272], "namespaces"), ([444], "Landlock"), ([157], "seccomp")],
)
def test_what_the_kernel_lacks_is_found_by_trying(calls, missing):
    """A kernel without unshare, without Landlock, without prctl: a filter of
    ours takes the call away."""
    if sandbox.lacking() or os.uname().machine != "x86_64":
        pytest.skip("this machine lacks more than the test takes away")
    code = f"""
from ioi_course.grading import seccomp, sandbox
seccomp.NOTHING_HAPPENS, seccomp.SOCKET = {{}}, {{}}
seccomp.REFUSED = {{str(i): (i, i) for i in {calls}}}
assert seccomp.restrict_calls()
print(sandbox.lacking())
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert missing in said.stdout, said


def test_nothing_is_left_behind_when_it_is_stopped(small, tmp_path):
    """SIGTERM, as a batch system sends it: no process, no temporary folder, and the
    same exit code as after Ctrl-C."""
    path = put(
        tmp_path / "all",
        "ann.ipynb",
        notebook([*CELLS, "import time\ntime.sleep(500)"]),
    ).parent
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [
        sys.executable,
        "-m",
        "ioi_course.cli",
        "grade",
        str(path),
        "--assignment",
        str(small.path),
        "--out",
        str(tmp_path / "out"),
        "--as-root",
    ]
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE
    )
    until = time.monotonic() + 150
    # the server's folder and the submission's
    while len(list(temporary.iterdir())) < 2:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130 and list(temporary.iterdir()) == []
    assert ALL and not list((tmp_path / "out" / "results").glob("*.json"))
