"""The site's pages in Chromium, in a mock-up of Quarto's frame: on a desk and on a
phone, light and dark."""

import itertools
import json
import shutil

import pytest
from bs4 import BeautifulSoup
from quarto import render
from test_accessibility import NARROW, OVERFLOW, WIDE, axe, look  # noqa: F401

from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.project import CourseError
from ioi_course.publish import circuit_page, lab_page, switched_off
from ioi_course.publish.framed import framed

LESSONS = ["05_attention_patterns.ipynb", "00_transformer.ipynb"]
SHOWN = [
    "index.ipynb",
    *LESSONS,
    "library/selection.ipynb",
    "gallery.qmd",
    "glossary.qmd",
    "notation.qmd",
    "circuit.qmd",
    "lab.qmd",
]
FRONT = ["index.ipynb", "circuit.qmd", "lab.qmd"]  # pages of a layout of their own
# In all four: one page of each kind, so that a colour that does
# depend on the width is seen.
EVERY = [
    "index.ipynb",
    LESSONS[0],
    "library/selection.ipynb",
    "circuit.qmd",
    "lab.qmd",
]
WAYS = [(NARROW, "dark"), (WIDE, "light")]
LOOKS = [
    *itertools.product(SHOWN, WAYS),
    *itertools.product(EVERY, [(NARROW, "light"), (WIDE, "dark")]),
]
PAGE_WIDTH = "document.querySelector('main').getBoundingClientRect().width"
# Lines of code, words of tables and buttons that do not fit their box. Outputs
# scroll within themselves.
CUT = """[...document.querySelectorAll("pre code, .ioi-buttons, .gallery figcaption")]
  .filter((e) => e.clientHeight && e.scrollWidth > e.clientWidth + 1)
  .map((e) => e.textContent.slice(0, 60))"""
# Words of code in tables that go on in the next line.
BROKEN = """[...document.querySelectorAll("main :is(th, td) code:not(.sourceCode)")]
  .filter((e) => !e.textContent.includes(" ") && e.getClientRects().length > 1)
  .map((e) => e.textContent)"""
# Lines of code whose rest, once they are wrapped, stands further out than they begin.
HANGING = """[...document.querySelectorAll("code.sourceCode > span")].filter((line) => {
  const range = document.createRange();
  const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
  let node = walker.nextNode();
  while (node && !/\\S/.test(node.data)) node = walker.nextNode();
  if (!node) return false;
  const at = node.data.search(/\\S/);
  range.setStart(node, at);
  range.setEnd(node, at + 1);
  const first = range.getBoundingClientRect();
  range.selectNodeContents(line);
  const out = (b) => b.top > first.bottom - 2 && b.left < first.left - 1;
  return [...range.getClientRects()].some(out);
}).map((line) => line.textContent)"""
# Words of drawn plots that stand outside their figure.
OUTSIDE = """[...document.querySelectorAll("figure.ioi-plot")].flatMap((figure) => {
  const box = figure.getBoundingClientRect();
  return [...figure.querySelectorAll(".main-svg text")].filter((text) => {
    const b = text.getBoundingClientRect();
    return b.width && getComputedStyle(figure.querySelector("div")).overflowX !== "auto"
      && (b.left < box.left - 2 || b.right > box.right + 2);
  }).map((text) => text.textContent);
})"""


LAB_IS_THERE = """new Promise((done) => {
  const timer = setInterval(() => globalThis.ioiLab && done(clearInterval(timer)), 50);
})"""
# What axe-core finds in a page as it now is.
AXE = """axe.run(document, { resultTypes: ["violations"] }).then((found) =>
  Object.fromEntries(found.violations.map((rule) => [rule.id,
    rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))])))"""


@pytest.fixture(scope="module")
def page(staged, model, tmp_path_factory):
    """Gives the mock-up of a staged page; the circuit's is made with a few prompts, in
    a copy, since other tests count the pages that are staged."""
    made = {}
    copy = tmp_path_factory.mktemp("browsed") / "_proc"
    staged = shutil.copytree(staged, copy, symlinks=True)

    def make(name: str, scheme: str):
        if name == "circuit.qmd" and not (staged / name).is_file():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(switched_off, "MORE", 2)
                data = circuit_page.collect(
                    model, CIRCUIT, circuit_page.page_prompts(model, 3)
                )
            text = circuit_page.render(data, CIRCUIT, "index.html", "lab.html")
            (staged / name).write_text(
                framed(text, ("The same of SmolLM2", "circuit_smollm2.html")),
                encoding="utf-8",
            )
        if name == "lab.qmd" and not (staged / name).is_file():
            _add_lab(staged)
        if (name, scheme) not in made:
            made[name, scheme] = render(staged, name, scheme)
        return made[name, scheme]

    return make


def until_the_lab_is_there(look) -> None:  # noqa: F811
    """The model is fetched, its runtime compiled, and the heads can be chosen."""
    look.browser.call("Emulation.setVirtualTimePolicy", policy="advance")
    look.browser.value(LAB_IS_THERE)


def _add_lab(staged) -> None:
    """Put the lab into the staged pages; skips where it cannot be made."""
    pytest.importorskip(
        "onnx", reason="onnx is not installed: the lab's page cannot be exported"
    )
    try:
        lab_page.runtime()
    except CourseError as error:
        pytest.skip(f"onnxruntime-web is not to be had: {error}")
    lab_page.write_lab(staged / "lab.html", "synthetic", home="index.html")
    (staged / "lab.qmd").write_text(
        framed((staged / "lab.html").read_text(encoding="utf-8")), encoding="utf-8"
    )


@pytest.fixture
def sized(look):  # noqa: F811
    """Gives a window its width; afterwards it has the usual one again."""

    def give(width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        look.browser.call("Emulation.setDeviceMetricsOverride", **size)

    yield give
    look.browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize(("name", "way"), LOOKS)
def test_page_of_the_site(page, look, sized, name, way):  # noqa: F811
    """Nothing cut off and nothing that axe-core finds; the text is as
    wide as it should be."""
    width, scheme = way
    sized(width)
    seen = look(page(name, scheme), scheme)
    assert seen["problems"] == []
    assert {each["rule"]: each["where"] for each in seen["found"]} == {}
    if name == "lab.qmd":
        until_the_lab_is_there(look)
        assert look.browser.value(AXE) == {}
    assert look.browser.value(OVERFLOW) <= 0
    assert look.browser.value(CUT) == []
    assert look.browser.value(BROKEN) == []
    assert look.browser.value(HANGING) == []
    assert look.browser.value(OUTSIDE) == []
    if width == WIDE and name not in FRONT:
        assert 860 <= look.browser.value(PAGE_WIDTH) <= 960
    if name == "index.ipynb":
        bottom = "document.querySelector('.ioi-do a').getBoundingClientRect().bottom"
        assert look.browser.value(bottom) < 800, (
            "headline, sentence and a button on the first screen"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sites_switch_gives_a_tool_its_colours(page, look, sized, scheme):  # noqa: F811
    """Not the system's: whoever switches the site sees the
    circuit in the same colours."""
    sized(WIDE)
    look(page("circuit.qmd", scheme), {"light": "dark", "dark": "light"}[scheme])
    colour = (
        "(selector) => "
        "getComputedStyle(document.querySelector(selector)).backgroundColor"
    )
    paper = "rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)"
    for selector in (".ioi-tool", "body", ".ioi-lab"):
        assert look.browser.value(f"({colour})({json.dumps(selector)})") == paper, (
            selector
        )


def test_tools_and_frame_keep_their_styles_apart(page, look, sized):  # noqa: F811
    """The frame looks the same with a tool in it, and the tool as it does alone."""
    sized(WIDE)
    frame = """["#quarto-header a", "#quarto-header button", "#quarto-header",
      "body"].map((selector) => {
      const style = getComputedStyle(document.querySelector(selector));
      return [style.color, style.backgroundColor, style.fontSize, style.padding,
        style.margin, style.display].join();
    })"""
    look(page("glossary.qmd", "light"))
    plain = look.browser.value(frame)
    own = """["h1", "h2", "h3", "#heads th", "#heads td", "legend", "fieldset label",
      "summary", "select",
      ".board > svg"].map((selector) => {
        const style = getComputedStyle(document.querySelector(`.ioi-tool ${selector}`));
        const size = parseFloat(style.fontSize);
        return [selector, style.color, style.backgroundColor, style.borderBottomWidth,
          style.float, style.display,
          style.fontWeight, style.textAlign,
          (parseFloat(style.marginTop) / size).toFixed(2)].join();
      })"""
    look(page("circuit.qmd", "light"))
    assert look.browser.value(frame) == plain
    framed_style = look.browser.value(own)
    alone = page("circuit.qmd", "light").with_name("alone.html")
    text = page("circuit.qmd", "light").read_text(encoding="utf-8")
    start, end = text.index('<style class="own">'), text.rindex("</main>")
    alone.write_text(
        "<!doctype html><html lang=en><meta "
        f"charset=utf-8><title>x</title><body>{text[start:end]}</main>"
    )
    look(alone)
    assert look.browser.value(own) == framed_style


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_labs_heads_stand_close_together(page, look, sized, width):  # noqa: F811
    """The frame calls what holds code a cell, and the lab a head's button: the space
    below the one would tear the other's rows apart."""
    sized(width)
    look(page("lab.qmd", "light"))
    until_the_lab_is_there(look)
    rows = """[...document.querySelectorAll(".ioi-lab .grid.heads [role=row]")]
      .filter((row) => row.querySelector(".cell")).map((row) => {
        const box = (e) => e.getBoundingClientRect();
        const cell = box(row.querySelector(".cell")), label = box(row.firstChild);
        return [box(row).height - cell.height,
          Math.abs(cell.top + cell.bottom - label.top - label.bottom) / 2];
      })"""
    found = look.browser.value(rows)
    assert len(found) == 12 and max(map(max, found)) < 2


def test_search_finds_what_a_page_of_its_own_layout_says(page):
    """Quarto's search reads <main> without scripts and styles."""
    for name in FRONT[:2]:
        main = BeautifulSoup(
            page(name, "light").read_text(encoding="utf-8"), "html.parser"
        ).main
        for part in main(["script", "style"]):
            part.decompose()
        assert (
            main.h1
            and len(main.get_text().split()) > 300
            and "const " not in main.get_text()
        )


def test_sections_of_a_chapter_are_as_wide_as_its_opening(page, look, sized):  # noqa: F811
    """The first page's frames are its own: Pandoc puts every section of a chapter below
    <main>, as its sections are."""
    sized(WIDE)
    look(page(LESSONS[0], "light"))
    lefts = (
        "[...document.querySelectorAll('main > :is(p, section), main > section > "
        "p')].map((e) => "
    )
    inner = (
        "(s => e.getBoundingClientRect().left + "
        "parseFloat(s.paddingLeft))(getComputedStyle(e)))"
    )
    found = look.browser.value(lefts + inner)
    assert len(found) > 20 and max(found) - min(found) < 1
    code = "[...document.querySelectorAll('main > section pre.sourceCode')]"
    framed = (
        f"{code}.filter((e) => parseFloat(getComputedStyle(e).borderTopWidth)).length"
    )
    assert look.browser.value(framed) == 0, (
        "the frame of a code cell is that of its box"
    )


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_words_of_the_first_pages_drawing_can_be_read(page, look, sized, width):  # noqa: F811
    """On a phone they would be too small: it has the drawing without
    them, as wide as the text."""
    sized(width)
    look(page("index.ipynb", "light"))
    box = "(e) => e.getBoundingClientRect()"
    words = (
        "[...document.querySelectorAll('.ioi-picture svg text')].filter((e) => "
        "e.textContent)"
    )
    heights = look.browser.value(
        f"{words}.map({box}).map((b) => b.height).filter(Boolean)"
    )
    picture = look.browser.value(
        f"({box})(document.querySelector('.ioi-small img')).width"
    )
    assert (picture > 300 and not heights) == (width == NARROW)
    assert width == NARROW or min(heights) >= 8


def test_words_of_the_drawings_boxes_stand_in_them(page, look, sized):  # noqa: F811
    """As large as the boxes let them be."""
    sized(WIDE)
    look(page("index.ipynb", "light"))
    rooms = """[...document.querySelectorAll('.ioi-picture svg g[fill="#222"]')].map(
      (words) => {
        const box = words.previousElementSibling.getBoundingClientRect();
        const word = words.getBoundingClientRect();
        return [word.left - box.left, box.right - word.right, word.top - box.top,
          box.bottom - word.bottom];
      })"""
    found = look.browser.value(rooms)
    assert len(found) == 8 and min(map(min, found)) > 2
    drawing = "document.querySelector('.ioi-picture svg')"
    size = f"parseFloat(getComputedStyle({drawing}).fontSize)"
    assert look.browser.value(f"{size} * {drawing}.getScreenCTM().a") > 8.4


@pytest.mark.parametrize("name", ["06_activation_patching.ipynb", "index.ipynb"])
def test_text_is_not_glued_to_the_code_above_it(page, look, sized, name):  # noqa: F811
    """Neither what a cell says nor the paragraph after a block of code."""
    sized(WIDE)
    look(page(name, "light"))
    gaps = """[...document.querySelectorAll("main div.sourceCode")].flatMap((code) => {
      const next = code.nextElementSibling;
      const said = next?.matches(".cell-output");
      const text = said ? next.querySelector(":scope > p") : next;
      if (!text?.matches("p") || !text.offsetParent) return [];
      return [text.getBoundingClientRect().top - code.getBoundingClientRect().bottom];
    })"""
    found = look.browser.value(gaps)
    assert found and min(found) > 10


def test_first_screen_is_not_glued_to_the_bar(page, look, sized):  # noqa: F811
    """The rule for the width of all parts was stronger than that for the
    space above the first."""
    sized(WIDE)
    look(page("index.ipynb", "light"))
    style = "getComputedStyle(document.querySelector('.ioi-hero')).paddingTop"
    assert look.browser.value(f"parseFloat({style})") >= 16


def test_tables_are_as_wide_as_what_is_in_them(page, look, sized):  # noqa: F811
    """Quarto gives those of Markdown and of pandas Bootstrap's class, which makes
    them as wide as the page."""
    sized(WIDE)
    look(page(LESSONS[0], "light"))
    tables = (
        "[...document.querySelectorAll('main table.table')].filter((e) => "
        "e.clientHeight)"
    )
    of = (
        f"{tables}.map((e) => [e.offsetWidth, "
        "getComputedStyle(e.querySelector('td')).paddingLeft])"
    )
    found = look.browser.value(of)
    assert found and min(width for width, _ in found) < 400
    assert {float(left[:-2]) > 8 for _, left in found} == {True}


# The keyboard


def press(browser, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
        typed = {"text": text} if text and kind == "keyDown" else {}
        browser.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            code=key,
            windowsVirtualKeyCode=code,
            **typed,
        )


STOP = """(() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const box = e.getBoundingClientRect();
  const shown = e.matches("input") && e.nextElementSibling
    ? getComputedStyle(e.nextElementSibling) : style;
  const seen = [style, shown].some(
    (s) => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2);
  const places = { bar: "#quarto-header", sidebar: "#quarto-sidebar", main: "main" };
  return { tag: e.tagName,
    text: (e.ariaLabel || e.textContent || e.id).trim().slice(0, 60),
    seen: seen || e.matches("a:has(circle)"), // whose circle gets a thick line
    place: Object.keys(places).find((name) => e.closest(places[name])) ?? "skip",
    inside: box.width === 0 || (box.right > 0 && box.left < innerWidth) };
})()"""


def stops(browser, most: int = 400) -> list[dict]:
    """Every stop of the Tab key from the top of the page on."""
    browser.value(
        "(getSelection().removeAllRanges(), document.activeElement.blur(), "
        "scrollTo(0, 0))"
    )
    found = []
    for _ in range(most):
        press(browser, "Tab", 9)
        stop = browser.value(STOP)
        # it goes round
        if stop["tag"] == "BODY" or (found and stop["place"] == "skip"):
            return found
        found.append(stop)
    raise AssertionError(f"no end of stops: {found[-3:]}")


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(
    "name",
    [LESSONS[0], "library/selection.ipynb", *FRONT],
)
def test_tab_walks_through_a_page(page, look, sized, name, width):  # noqa: F811
    """First past the bar, then menu, links and search, then the sidebar, then the
    content; each stop is seen."""
    sized(width)
    look(page(name, "light"))
    if name == "lab.qmd":
        until_the_lab_is_there(look)
    found = stops(look.browser)
    places = [place for place, _ in itertools.groupby(each["place"] for each in found)]
    sidebar = ["sidebar"] * (width == WIDE and name not in FRONT)
    assert places == ["skip", "bar", *sidebar, "main"]
    assert found[0]["text"] == "Skip to the content"
    bar = [each["text"] for each in found if each["place"] == "bar"]
    assert (
        bar[0] == "Toggle navigation" and bar[-1] == "Search" and "The circuit" in bar
    )
    assert [each for each in found if not each["seen"]] == [], (
        "a focus that nobody sees"
    )
    assert [each for each in found if not each["inside"]] == []


def test_the_first_stop_leads_past_the_bar(page, look, sized):  # noqa: F811
    sized(WIDE)
    look(page(LESSONS[0], "light"))
    browser = look.browser
    press(browser, "Tab", 9)
    top = "document.activeElement.getBoundingClientRect().top"
    assert browser.value(top) >= 0, "it is seen when it has the focus"
    press(browser, "Enter", 13, "\r")
    assert browser.value("document.activeElement.tagName") == "MAIN"
    press(browser, "Tab", 9)
    assert browser.value(STOP)["place"] == "main"


def test_folds_open_with_enter(page, look, sized):  # noqa: F811
    sized(WIDE)
    look(page(LESSONS[0], "light"))
    browser = look.browser
    fold = "document.querySelector('details.code-fold')"
    browser.value(f"{fold}.querySelector('summary').focus()")
    for opened in (True, False):
        press(browser, "Enter", 13, "\r")
        assert browser.value(f"{fold}.open") == opened
