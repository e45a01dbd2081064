"""Tables on pages: words to the left, and a table for those who hear it, also where a
phone shows its cells below each other."""

import itertools
import re
from collections import Counter

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from quarto import render
from test_accessibility import (  # noqa: F401
    NARROW,
    WIDE,
    axe,
    build,
    look,
    wide,
)

from ioi_course.claims import ClaimTable
from ioi_course.publish.tables import tidy

CLAIMS = "reference/what_holds"
ROLES = {"table", "rowgroup", "row", "columnheader", "rowheader", "cell"}
# What the page calls a table, and shows as something else.
LOST = """[...document.querySelectorAll("main :is(table, thead, tbody, tr, th, td)")]
  .filter((e) => e.offsetParent && !/^table/.test(getComputedStyle(e).display)
    && !e.getAttribute("role")).map((e) => e.outerHTML.slice(0, 80))"""
# Tables that are wider than their page, in no box that scrolls and can be reached.
STUCK = """[...document.querySelectorAll("main table")].filter((table) => {
  let box = table.parentElement;
  while (box && !/auto|scroll/.test(getComputedStyle(box).overflowX))
    box = box.parentElement;
  return table.offsetParent && table.offsetWidth > document.body.clientWidth - 20
    && !(box && (box.tabIndex === 0 || box.scrollWidth <= box.clientWidth));
}).map((e) => e.outerHTML.slice(0, 200))"""


def test_a_table_of_sentences_says_what_each_part_of_it_is():
    plain = ClaimTable("", {})._repr_html_()
    soup = BeautifulSoup(tidy(plain), "html.parser")
    parts = soup.find_all(["table", "thead", "tbody", "tr", "th", "td"])
    assert {part["role"] for part in parts} == ROLES
    heads = [each.get_text() for each in soup.select("[role=columnheader]")]
    assert "synthetic" in heads and all(heads)
    for row in soup.select("tbody [role=row]"):
        assert [each["role"] for each in row.find_all(["th", "td"])] == [
            "rowheader",
            *["cell"] * (len(heads) - 1),
        ]
        named = [cell["data-of"] for cell in row.select("[role=cell]")]
        assert named == heads[1:]


def test_a_corner_without_a_name_is_no_head():
    sentences = pd.DataFrame({"a": ["One."]}, index=["x"]).to_html()
    left = sentences.replace("<td>", '<td style="text-align: left">')
    head = BeautifulSoup(tidy(left), "html.parser").thead
    assert [each.name for each in head.find_all(["td", "th"])] == ["td", "th"]


def test_words_stand_to_the_left_and_numbers_to_the_right():
    """A column with a number in it is one of numbers, whatever else is there."""
    frame = pd.DataFrame(
        {
            "class": ["name mover", "S-inhibition"],
            "found by": ["paths to queries of name mover", ""],
            "change": ["1.00 ± 0.02", "not measured"],
            "minus": ["−1.5", "(none)"],
            "size": [1.5, float("nan")],
            "mark": ["✓", "✗"],
        },
        index=pd.Index(["L9H9", "L8H6"], name="head"),
    )
    for table in (frame, frame.reset_index(drop=True), frame.rename_axis(columns="x")):
        soup = BeautifulSoup(tidy(table.to_html()), "html.parser")
        for row in soup.select("tbody tr"):
            marked = [cell.get("class", []) for cell in row.select("td")]
            assert [bool(each) for each in marked] == [True] * 2 + [False] * 4
        assert len(soup.select("td.long")) == 1
        heads = [each.get_text() for each in soup.select("thead .words")]
        assert [*filter(None, heads)] == ["class", "found by"]
    more = frame.set_index("class", append=True)
    soup = BeautifulSoup(tidy(more.to_html()), "html.parser")
    assert [each.get_text() for each in soup.select("thead .words")] == ["found by"]
    assert "words" not in tidy(pd.DataFrame().to_html())


# In a browser


@pytest.fixture(scope="module")
def page(staged, build):  # noqa: F811
    """Gives a page of the site, in the mock-up of Quarto's frame, or of the course."""

    def make(where: str, name: str):
        if where == "course":
            return build(name)
        (path,) = (
            p for p in staged.glob(f"{name}.*") if p.suffix in {".ipynb", ".qmd"}
        )
        return render(staged, path.relative_to(staged).as_posix(), "light")

    return make


def heard(browser) -> Counter:
    """How often each part of a table is in what a screen reader is told."""
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    found = Counter(node["role"]["value"] for node in nodes if not node["ignored"])
    return Counter({role: found[role] for role in ROLES})


@pytest.mark.parametrize("where", ["site", "course"])
def test_claims_are_a_table_on_a_phone(page, look, where):  # noqa: F811
    """With as many heads, rows and cells as on a desk; and what stands above a sentence
    there is not heard twice."""
    counts = []
    for width in (WIDE, NARROW):
        with wide(look.browser, width):
            report = look(page(where, CLAIMS))
            assert report["problems"] == [] and report["found"] == []
            counts.append(heard(look.browser))
            stacked = look.browser.value(
                "getComputedStyle(document.querySelector('td[data-of]')).display"
            )
            assert stacked == ("block" if width == NARROW else "table-cell")
            assert look.browser.value(LOST) == []
    assert counts[0] == counts[1] and min(counts[0].values()) > 2
    assert counts[0]["cell"] > 400


@pytest.mark.parametrize(
    ("where", "name"),
    [
        *itertools.product(["site"], ["exercises", "notation", "15_smollm2", "index"]),
        *itertools.product(["course"], ["15_smollm2", "reference/published_numbers"]),
    ],
)
def test_other_tables_stay_tables_on_a_phone(page, look, where, name):  # noqa: F811
    """And scroll in a box that the keyboard reaches, where they are too wide."""
    with wide(look.browser, NARROW):
        assert look(page(where, name))["problems"] == []
        assert look.browser.value("document.querySelectorAll('main table').length")
        assert look.browser.value(LOST) == []
        assert look.browser.value(STUCK) == []


def test_markdown_tables_have_a_box_to_scroll_in(page):
    made = page("site", "notation").read_text(encoding="utf-8")
    boxed = re.findall(r'<div class="table-responsive">\s*<table', made)
    assert len(boxed) == made.count("<table") > 0


def test_a_number_stays_with_the_sign_behind_it(page):
    """Also in the cells of Markdown's tables; a word may leave its number."""
    made = page("site", "12_the_circuit").read_text(encoding="utf-8")
    text = BeautifulSoup(made, "html.parser").main
    for part in text(["pre", "code", "script", "style"]):
        part.decompose()
    prose = " ".join(each.get_text() for each in text.select("section > p, li"))
    assert re.findall(r"\d [%±]", prose) == []
    assert len(re.findall("\\d\u00a0[%±]", prose)) > 5
