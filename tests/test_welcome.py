"""The welcome page of an executed course, and the report beside it: what they say, and
where they take it from."""

import re

import pytest
from bs4 import BeautifulSoup

from ioi_course.publish.pages import Page
from ioi_course.publish.run import Failure, Verdict, chapters
from ioi_course.publish.runner import CourseRun
from ioi_course.publish.welcome import (
    Entry,
    Outcome,
    Sheet,
    bare_page,
    duration,
    minutes_of,
    plain,
    question_of,
    write_index,
    write_report_page,
)

ENTRIES = [
    Entry("index", "the-course", "introduction.html", "What it is about.", None),
    Entry("00_setup", "Setup <1>", "00_setup.html", "Which model?", 25),
    Entry("01_two", "Two & more", "01_two.html", "How?", 50),
    Entry("02_three", "Three", "02_three.html", "", None),
    Entry("appendix/a_key", "The key", "appendix/a_key.html", "Why?", 60),
    Entry("library/metrics", "Metrics", "library/metrics.html", "", None),
]
FAILURE = Failure("01_two", 4, "x = 1 < 2", "\x1b[31mValueError\x1b[0m: the <reason>")
OUTCOMES = {
    "index": Outcome(Verdict("index", 4, 3.0, True)),
    "00_setup": Outcome(Verdict("00_setup", 10, 1.5, True)),
    "01_two": Outcome(Verdict("01_two", 3, 2.0, False), FAILURE),
}


def sheet(**changed) -> Sheet:
    everything = {entry.name for entry in ENTRIES} - {"library/metrics"}
    texts = [Page("Glossary", "glossary.html")]
    kept = {
        "outcomes": OUTCOMES,
        "wanted": everything,
        "shown": set(OUTCOMES),
        "texts": texts,
    }
    return Sheet(ENTRIES, model="synthetic", extra=None, **(kept | changed))


def soup(path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def row(page: BeautifulSoup, name: str) -> str:
    return " ".join(page.find(id=name).get_text(" ").split())


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (
            "# T\n\n> S.\n\n**The question:** which one, and\nwhy?\n\n**Time:** 3",
            "Which one, and why?",
        ),
        (
            "# T\n\n> S.\n\n**Where along the [stream](a.qmd#b) is it?**\n",
            "Where along the stream is it?",
        ),
        ("# T\n\n> S.\n\n**Says it ` Mary`, *or* not?**", "Says it Mary, or not?"),
        (
            "# T\n\n> All of `a_b` and *more*.\n\nIs **this** one? No.",
            "All of a_b and more.",
        ),
        ("# T", ""),
    ],
)
def test_question_is_that_of_the_first_cell(text, question):
    assert question_of(text) == question


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("**Time:** 25 minutes.", 25),
        ("*About 90 minutes, exercises included. Before it*", 90),
        ("*Fifteen minutes, or a page to look up*", 15),
        ("a few minutes", None),
    ],
)
def test_minutes_are_those_of_the_first_cell(text, minutes):
    assert minutes_of(text) == minutes


def test_every_chapter_of_the_course_says_its_question_and_its_time(root, tmp_path):
    run = CourseRun(root, tmp_path, chapters(root), "synthetic")
    course = [entry for entry in run.entries if re.match(r"\d\d_", entry.name)]
    assert len(course) >= 15
    for entry in course:
        assert entry.question.endswith("?") and 10 <= entry.minutes <= 150, entry
    for entry in run.entries:
        assert (
            entry.title
            and entry.question
            and not re.search(r"[*`\[\]]", entry.title + entry.question)
        ), entry


def test_the_second_page_of_a_chapter_has_a_letter(root, tmp_path):
    run = CourseRun(root, tmp_path, chapters(root), "synthetic")
    labels = [entry.label for entry in run.entries if re.match(r"\d\d_", entry.name)]
    assert labels[:3] == ["0", "0b", "1"] and len(set(labels)) == len(labels)
    assert [entry.label for entry in run.entries if entry.name.startswith("appendix/")][
        :3
    ] == ["A", "B", "C"]


def test_durations_read_as_people_say_them():
    assert [duration(m) for m in (0, 25, 60, 61, 120, 135, 960)] == [
        "0 minutes",
        "25 minutes",
        "1 hour",
        "1 hour 1 minute",
        "2 hours",
        "2 hours 15 minutes",
        "16 hours",
    ]


def test_plain_text_keeps_names_with_underscores():
    assert plain(
        "the `logit_diff` of *this* **model**, [as](x.html) said_\n there"
    ) == ("the logit_diff of this model, as said there")


def test_index_lists_chapters_with_question_and_time(tmp_path):
    page = soup(
        write_index(
            sheet(outcomes={}, wanted=set(), shown={"00_setup", "01_two"}), tmp_path
        )
    )
    assert page.h1.text == "Welcome to the-course"
    assert row(page, "00_setup").startswith(
        "0 Setup <1> Which model?"
    ) and "25 minutes" in row(page, "00_setup")
    assert row(page, "appendix/a_key").startswith("A The key Why?")
    assert [h.text for h in page("h2")][-3:] == ["Chapters", "Appendices", "Library"]
    assert "all of them together take about 1 hour 15 minutes" in " ".join(
        page.text.split()
    )
    assert page.find("a", href="report.html") and page.find("a", href="glossary.html")
    assert not page.find("a", href="02_three.html"), (
        "a page that is not there is not linked"
    )
    assert "ioi-course run 02_three" in row(page, "02_three")
    assert not page("link") and not page("script", src=True) and page.style, (
        "all in one file"
    )
    assert (
        page.html["lang"] and page.main and page.nav["aria-label"] and page.title.text
    )


def test_index_says_what_failed_and_what_was_not_reached(tmp_path):
    page = soup(write_index(sheet(), tmp_path))
    notices = [" ".join(notice.text.split()) for notice in page(class_="notice")]
    assert notices[0].startswith(
        "One chapter did not get through in this run: Two & more."
    )
    assert notices[1] == (
        "The run was stopped before its end. 2 chapters were not finished: Three "
        "and The key."
    )
    assert "Failed in this run, at cell 5. See why" in row(page, "01_two")
    assert page.find("a", href="report.html#01_two") and "Failed" not in row(
        page, "00_setup"
    )
    assert "Not finished: the run was stopped before." in row(page, "02_three")


def test_index_of_a_good_run_has_no_notice(tmp_path):
    passed = {e.name: Outcome(Verdict(e.name, 1, 1.0, True)) for e in ENTRIES}
    page = soup(
        write_index(
            sheet(outcomes=passed, wanted=set(passed), shown=set(passed)), tmp_path
        )
    )
    assert not page(class_="notice") and not page(class_="failed")
    assert "earlier run" not in page.text and "Not run yet" not in page.text


def test_progress_needs_the_script_and_nothing_else_does(tmp_path):
    """Without JavaScript the boxes and the bar, which could do
    nothing, are not shown."""
    page = soup(write_index(sheet(), tmp_path))
    assert page.find(id="progress").has_attr("hidden")
    boxes = page("input")
    assert [box["data-chapter"] for box in boxes] == ["00_setup", "01_two", "02_three"]
    assert all(
        box.parent.name == "label" and box.parent.has_attr("hidden") for box in boxes
    )


def test_report_has_seconds_verdicts_and_reasons(tmp_path):
    page = soup(write_report_page(sheet(), tmp_path))
    cells = [[cell.text for cell in line("td")] for line in page.tbody("tr")]
    assert cells[1] == ["Setup <1>", "passed", "1.5", "10", "00_setup"]
    assert cells[2] == ["Two & more", "failed", "2.0", "3", "01_two"]
    assert "2 of 3 passed; the run was stopped before the other 2." in page.text
    assert [cell.text for cell in page.tfoot("td")] == ["1 failed", "6.5", "17", ""]
    section = page.find(id="01_two").parent
    assert [pre.text for pre in section("pre")] == [
        "x = 1 < 2",
        "ValueError: the <reason>",
    ]


def test_bare_page_escapes_what_it_is_told():
    page = BeautifulSoup(
        bare_page("A <b>", "it's <i>", ("to & fro", "x.html"), home="../index.html"),
        "html.parser",
    )
    assert page.h1.text == "A <b>" and page.pre.text == "it's <i>"
    assert [(a.text, a["href"]) for a in page("a")] == [
        ("to & fro", "x.html"),
        ("All chapters", "../index.html"),
    ]
