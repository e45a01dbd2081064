"""The pages in a browser: no error, figures drawn, a picture and a table without a script, and what axe-core finds."""

import functools
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from ioi_course.course import Verdict, chapter_name, chapters, find_root
from ioi_course.pages import Page, page_of, write_assets, write_index, write_page

ROOT = find_root()
NOTEBOOKS = {chapter_name(path, ROOT): path for path in chapters(ROOT)}
LARGEST = 2_000_000  # bytes of a page
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --virtual-time-budget=40000 --window-size=1000,900 --dump-dom""".split()
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
LISTEN = """<script>window.problems = [];
addEventListener("error", (e) => problems.push(e.message || `cannot load ${e.target.src || e.target.href}`), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
console.error = (...words) => problems.push(words.join(" "));</script>"""
REPORT = """<script src="AXE"></script><script>addEventListener("load", () => setTimeout(async () => {
  const size = (e) => e ? [e.getBoundingClientRect().width, e.getBoundingClientRect().height].map(Math.round) : [0, 0];
  const figures = [...document.querySelectorAll("figure.ioi-plot")].map((figure) => ({
    alt: figure.querySelector("img").alt, picture: size(figure.querySelector("img")),
    drawn: [...figure.querySelectorAll(".main-svg, canvas")].map(size) }));
  const found = (await axe.run(document, { resultTypes: ["violations"] })).violations.map((rule) =>
    ({ rule: rule.id, where: rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)) }));
  const scripts = [...document.querySelectorAll("script[src]")].map((e) => e.src.split("/").pop());
  const report = { problems, figures, found, scripts };
  document.body.innerHTML = "<pre id='report'></pre>";
  document.getElementById("report").textContent = JSON.stringify(report);
}, 8000))</script>"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> Path:
    """axe-core's script: the one that IOI_COURSE_AXE names, or a fresh one from npm."""
    if named := os.environ.get("IOI_COURSE_AXE"):
        return Path(named)
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: axe-core did not look at the pages (IOI_COURSE_AXE may name axe.min.js)")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "axe-core@4"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode:
        pytest.skip(f"npm cannot install axe-core here: {result.stderr[-300:]}")
    return folder / "node_modules" / "axe-core" / "axe.min.js"


def look(page: Path, axe: Path, *flags: str) -> dict:
    """What a browser without a network makes of a page, and what axe-core finds in it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian's package chromium): the pages were not looked at in a browser")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{LISTEN}", 1)
    copy = page.with_name(f"_{page.name}")
    copy.write_text(text.replace("</body>", REPORT.replace("AXE", axe.as_uri()) + "</body>"), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, *flags, NO_NETWORK, f"--user-data-dir={page.parent / 'browser'}", copy.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = re.search(r'<pre id="report">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Callable[[str], Path]:
    """Gives the page of a chapter, made once, from its stored outputs, with neighbours on both sides."""
    out = tmp_path_factory.mktemp("pages")
    write_assets(ROOT, out)

    @functools.cache
    def page(name: str) -> Path:
        nb = nbformat.read(NOTEBOOKS[name], as_version=4)
        before, after = Page("The one before", "before.html"), Page("The one after", "after.html")
        return write_page(nb, page_of(NOTEBOOKS[name], ROOT, nb), out, before, after)

    return page


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_in_a_browser(name, axe, build):
    seen = look(build(name), axe)
    assert seen["problems"] == []
    assert seen["found"] == []
    for figure in seen["figures"]:
        width, height = max([figure["picture"], *figure["drawn"]])
        assert width > 200 and height > 80, figure
    for library in ("Plotly.js", "CircuitsVis.js"):
        assert seen["scripts"].count(library) <= 1, "each library is loaded once, however many figures there are"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_without_a_script(name, build):
    """Each figure is a picture with alternative text and a table; the page is small, and well formed as an outline."""
    page = build(name)
    assert page.stat().st_size < LARGEST
    soup = BeautifulSoup(page.read_bytes(), "html.parser")
    for script in soup("script"):
        script.decompose()
    for figure in soup.select("figure.ioi-plot"):
        assert len(figure.img["alt"]) > 30 and figure.img["src"].startswith("data:image/svg+xml;base64,")
        assert figure.details.table("td"), "the numbers"
    for picture in soup("img"):
        assert picture.get("alt"), "a picture without alternative text"
    headings = [heading for heading in soup(re.compile("^h[1-6]$")) if not heading.find_parent(class_="output")]
    levels = [int(heading.name[1]) for heading in headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False)), levels
    assert soup.html["lang"] and soup.main and soup.nav["aria-label"] and soup.title.string


def test_index_in_a_browser(axe, tmp_path):
    write_assets(ROOT, tmp_path)
    verdicts = [Verdict("00_setup", 10, 1.5, True), Verdict("01_tokenization", 3, 2.0, False)]
    pages = {"00_setup": Page("Setup", "00_setup.html"), "01_tokenization": Page("Tokens", "01_tokenization.html")}
    seen = look(write_index(verdicts, pages, "synthetic", tmp_path), axe)
    assert seen["problems"] == [] and seen["found"] == []


def test_page_in_the_dark(axe, build):
    """Contrast holds for readers whose system asks for dark pages, too."""
    dark = look(build("05_attention_patterns"), axe, "--blink-settings=preferredColorScheme=0")
    assert dark["found"] == []


def test_axe_and_the_listener_see_mistakes(axe, tmp_path):
    """A picture without a text, pale words, a missing file and an error in a script are all noticed."""
    page = tmp_path / "bad.html"
    body = '<p style="color:#ccc">pale</p><img src="missing.png"><script>undefined.x</script>'
    page.write_text(f"<!doctype html><html lang=en><head><title>x</title></head><body>{body}</body></html>")
    seen = look(page, axe)
    assert {"color-contrast", "image-alt"} <= {each["rule"] for each in seen["found"]}
    assert any("missing.png" in each for each in seen["problems"]) and len(seen["problems"]) == 2
