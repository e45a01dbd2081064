"""The pages in a browser: no error, figures drawn, a picture and a table without a
script, and what axe-core finds."""

import contextlib
import functools
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from ioi_course.project import find_root
from ioi_course.publish.pages import Page, page_of, write_assets, write_page
from ioi_course.publish.run import Failure, Verdict, chapter_name, chapters
from ioi_course.publish.runner import CourseRun
from ioi_course.publish.welcome import Outcome

ROOT = find_root()
NOTEBOOKS = {chapter_name(path, ROOT): path for path in chapters(ROOT)}
LARGEST = 2_000_000  # bytes of a page
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking
    --disable-component-update --disable-sync --remote-debugging-pipe
    --window-size=1000,900""".split()
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
LISTEN = """window.problems = [];
addEventListener("error", (e) =>
  problems.push(e.message || `cannot load ${e.target.src || e.target.href}`),
  true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
console.error = (...words) => problems.push(words.join(" "));"""
LOADED = "!window.left && document.readyState === 'complete'"
DRAWN = f"""{LOADED}
    && [...document.querySelectorAll("figure.ioi-plot:has(script) img")].every(
        (img) => img.hidden)"""
# The page's time is virtual: eight seconds pass as soon as it has nothing to do.
REPORT = """(async () => {
  await new Promise((done) => setTimeout(done, 8000));
  const size = (e) => e
    ? [e.getBoundingClientRect().width,
       e.getBoundingClientRect().height].map(Math.round)
    : [0, 0];
  const figures = [...document.querySelectorAll("figure.ioi-plot")].map((figure) => ({
    alt: figure.querySelector("img").alt, picture: size(figure.querySelector("img")),
    drawn: [...figure.querySelectorAll(".main-svg, canvas")].map(size) }));
  const found = (await axe.run(
    document, { resultTypes: ["violations"] })).violations.map((rule) =>
    ({ rule: rule.id,
       where: rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)) }));
  const scripts = [...document.querySelectorAll("script[src]")].map(
    (e) => e.src.split("/").pop());
  return { problems, figures, found, scripts };
})()"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> Path:
    """axe-core's script: the one that IOI_COURSE_AXE names, or a fresh one from npm."""
    if named := os.environ.get("IOI_COURSE_AXE"):
        return Path(named)
    if not shutil.which("npm"):
        pytest.skip(
            "npm is not installed: axe-core did not look at the pages (IOI_COURSE_AXE "
            "may name axe.min.js)"
        )
    folder = tmp_path_factory.mktemp("npm")
    command = [
        "npm",
        "install",
        "--prefix",
        str(folder),
        "--no-audit",
        "--no-fund",
        "axe-core@4",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode:
        pytest.skip(f"npm cannot install axe-core here: {result.stderr[-300:]}")
    return folder / "node_modules" / "axe-core" / "axe.min.js"


class Browser:
    """One Chromium without a network for all pages, one after the other; it is told
    what to do through a pipe."""

    session: dict = {}  # of the tab, once there is one

    def __init__(self, profile: Path):
        to_browser, self.orders = os.pipe()
        self.answers, from_browser = os.pipe()
        # the numbers that Chromium wants
        pipes = f'exec "$0" "$@" 3</dev/fd/{to_browser} 4>/dev/fd/{from_browser}'
        command = [
            "sh",
            "-c",
            pipes,
            CHROMIUM,
            *FLAGS,
            NO_NETWORK,
            f"--user-data-dir={profile}",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser), **quiet
        )
        os.close(to_browser)
        os.close(from_browser)
        self.received, self.numbers = b"", itertools.count()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {
            "sessionId": self.call(
                "Target.attachToTarget", targetId=target, flatten=True
            )["sessionId"]
        }
        self.call("Page.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=LISTEN)
        self.call("Emulation.setVirtualTimePolicy", policy="advance")

    def call(self, method: str, **params) -> dict:
        """What a method of the DevTools protocol returns."""
        number = next(self.numbers)
        order = {"id": number, "method": method, "params": params, **self.session}
        os.write(self.orders, json.dumps(order).encode() + b"\0")
        while (answer := self.receive()).get("id") != number:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def receive(self) -> dict:
        while b"\0" not in self.received:
            assert select.select([self.answers], [], [], 240)[0], (
                "Chromium does not answer"
            )
            more = os.read(self.answers, 1 << 20)
            assert more, "Chromium has ended"
            self.received += more
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def value(self, expression: str):
        """What an expression comes to on the page."""
        found = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def close(self) -> None:
        os.close(self.orders)  # Chromium ends with it
        os.close(self.answers)
        self.process.wait(timeout=30)


WIDE, NARROW = 1400, 390
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextlib.contextmanager
def wide(browser: Browser, width: int) -> Iterator[None]:
    """The window is so many pixels wide meanwhile."""
    sized = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **sized)
    try:
        yield
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.fixture(scope="module")
def look(axe, tmp_path_factory) -> Iterator[Callable[..., dict]]:
    """Gives what a browser makes of a page, and what axe-core finds in it."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the pages were not looked "
            "at in a browser"
        )
    browser, rules = (
        Browser(tmp_path_factory.mktemp("browser")),
        axe.read_text(encoding="utf-8"),
    )

    def report(page: Path, scheme: str = "light") -> dict:
        browser.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        browser.value("window.left = true")  # marks the page before
        went = browser.call("Page.navigate", url=page.as_uri())
        assert "errorText" not in went, went
        until = time.monotonic() + 60
        while not browser.value(DRAWN) and time.monotonic() < until:
            time.sleep(0.05)
        assert browser.value(LOADED), f"{page} does not load"
        browser.value(f"{rules}\n0")
        return browser.value(REPORT)

    report.browser = browser
    yield report
    browser.close()


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Callable[[str], Path]:
    """Gives the page of a chapter, made once, from its stored outputs, with
    neighbours on both sides."""
    out = tmp_path_factory.mktemp("pages")
    write_assets(ROOT, out)

    @functools.cache
    def page(name: str) -> Path:
        nb = nbformat.read(NOTEBOOKS[name], as_version=4)
        before, after = (
            Page("The one before", "before.html"),
            Page("The one after", "after.html"),
        )
        return write_page(nb, page_of(NOTEBOOKS[name], ROOT, nb), out, before, after)

    return page


@pytest.fixture(scope="module", params=NOTEBOOKS)
def page(request, build) -> Path:
    """The page of each chapter; pytest runs the tests of a page side by side, so that a
    worker makes it once."""
    return build(request.param)


def test_page_in_a_browser(page, look):
    seen = look(page)
    assert seen["problems"] == []
    assert seen["found"] == []
    for figure in seen["figures"]:
        width, height = max([figure["picture"], *figure["drawn"]])
        assert width > 200 and height > 80, figure
    for library in ("Plotly.js", "CircuitsVis.js"):
        assert seen["scripts"].count(library) <= 1, (
            "each library is loaded once, however many figures there are"
        )
    with wide(look.browser, NARROW):
        assert look.browser.value(OVERFLOW) <= 0, "it scrolls sideways on a phone"


def test_page_without_a_script(page):
    """Each figure is a picture with alternative text and a table; the page is small,
    and well formed as an outline."""
    assert page.stat().st_size < LARGEST
    soup = BeautifulSoup(page.read_bytes(), "html.parser")
    for script in soup("script"):
        script.decompose()
    for figure in soup.select("figure.ioi-plot"):
        assert len(figure.img["alt"]) > 30 and figure.img["src"].startswith(
            "data:image/svg+xml;base64,"
        )
        assert figure.details.table("td"), "the numbers"
    for picture in soup("img"):
        assert picture.get("alt"), "a picture without alternative text"
    headings = [
        heading
        for heading in soup(re.compile("^h[1-6]$"))
        if not heading.find_parent(class_="output")
    ]
    levels = [int(heading.name[1]) for heading in headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(
        after - before <= 1 for before, after in zip(levels, levels[1:], strict=False)
    ), levels
    assert (
        soup.html["lang"] and soup.main and soup.nav["aria-label"] and soup.title.string
    )


@pytest.fixture(scope="module")
def first_pages(tmp_path_factory) -> Path:
    """The folder of a run of the whole course in which one chapter failed and the last
    ones were not reached."""
    run = CourseRun(ROOT, tmp_path_factory.mktemp("run"), chapters(ROOT), "synthetic")
    run.prepare()
    for name in list(run.paths)[:-3]:
        failure = (
            Failure(name, 4, "x = 1", "ValueError: no")
            if name == "01_tokenization"
            else None
        )
        run.outcomes[name] = Outcome(Verdict(name, 10, 1.5, failure is None), failure)
        (run.out / run.pages[name].href).parent.mkdir(exist_ok=True)
        (run.out / run.pages[name].href).touch()
    run.finish()
    assert not run.problems
    return run.out


@pytest.mark.parametrize("name", ["index", "report"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_first_pages_in_a_browser(look, first_pages, name, scheme, width):
    """Nothing that axe-core finds, in light and dark, and no page that scrolls
    sideways, on a desk and on a phone."""
    with wide(look.browser, width):
        seen = look(first_pages / f"{name}.html", scheme)
        assert seen["problems"] == [] and seen["found"] == []
        assert look.browser.value(OVERFLOW) <= 0


def test_reader_finds_the_ticks_again(look, first_pages):
    """Ticks are counted, kept by the browser, and lead to the first
    chapter that is not ticked."""
    said = "document.getElementById('progress-text').textContent"
    look(first_pages / "index.html")
    browser, chapter = look.browser, "document.querySelectorAll('input[data-chapter]')"
    count = browser.value(f"{chapter}.length")
    each = (
        "[...document.querySelectorAll('li[data-minutes]')].map((li) => "
        "Number(li.dataset.minutes))"
    )
    hours = sum(browser.value(each)) // 60
    assert hours >= 16 and count >= 15
    assert browser.value(said).startswith(
        f"0 of {count} chapters read, about {hours} hours"
    )
    browser.value(f"{chapter}[0].click(), {chapter}[2].click()")
    time.sleep(0.5)  # no reader is faster; Chromium stores in another process
    look(first_pages / "index.html")
    assert browser.value(f"[...{chapter}].map((box) => box.checked).slice(0, 4)") == [
        True,
        False,
        True,
        False,
    ]
    assert browser.value(said).startswith(f"2 of {count} chapters read, about ")
    assert browser.value(
        "document.querySelector('#progress-text a').textContent"
    ) in browser.value(f"{chapter}[1].closest('li').textContent")
    assert browser.value("document.querySelector('#progress progress').value") == 2
    browser.value(
        f"[...{chapter}].filter((box) => !box.checked).forEach((box) => box.click())"
    )
    assert (
        browser.value(said)
        == f"{count} of {count} chapters read. That was the whole course: well done."
    )
    browser.value(f"[...{chapter}].forEach((box) => box.click())")
    look(first_pages / "index.html")
    assert browser.value(said).startswith(f"0 of {count}")


def test_ticks_count_where_the_browser_keeps_nothing(look, first_pages):
    """And what it keeps may be anything."""
    said = "document.getElementById('progress-text').textContent"
    blocked = (
        "Object.defineProperty(window, 'localStorage', {get() { throw new "
        "Error('denied'); }});"
    )
    wrong = "localStorage.setItem('ioi-course.read', '{\"not\": \"a list\"}');"
    for source, remembered in ((blocked, False), (wrong, True)):
        made = look.browser.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        try:
            assert look(first_pages / "index.html")["problems"] == []
            look.browser.value("document.querySelector('input[data-chapter]').click()")
            assert look.browser.value(said).startswith("1 of ")
            where = look.browser.value(
                "document.getElementById('progress-where').textContent"
            )
            assert ("remembers" in where) == remembered
        finally:
            look.browser.call("Page.removeScriptToEvaluateOnNewDocument", **made)
    look.browser.value("localStorage.clear()")


def test_page_in_the_dark(look, build):
    """Contrast holds for readers whose system asks for dark pages, too."""
    dark = look(build("05_attention_patterns"), "dark")
    assert dark["found"] == []


def test_axe_and_the_listener_see_mistakes(look, tmp_path):
    """A picture without a text, pale words, a missing file and an error in a
    script are all noticed."""
    page = tmp_path / "bad.html"
    body = (
        '<p style="color:#ccc">pale</p><img '
        'src="missing.png"><script>undefined.x</script>'
    )
    page.write_text(
        "<!doctype html><html "
        f"lang=en><head><title>x</title></head><body>{body}</body></html>"
    )
    seen = look(page)
    assert {"color-contrast", "image-alt"} <= {each["rule"] for each in seen["found"]}
    assert (
        any("missing.png" in each for each in seen["problems"])
        and len(seen["problems"]) == 2
    )
