"""The site's pages in Chromium, in a mock-up of Quarto's frame: on a desk and on a phone, light and dark."""

import pytest
from quarto import render
from test_accessibility import NARROW, OVERFLOW, WIDE, axe, look  # noqa: F401

LESSONS = ["05_attention_patterns.ipynb", "00_transformer.ipynb"]
SHOWN = [*LESSONS, "library/selection.ipynb", "gallery.qmd", "glossary.qmd"]
PAGE_WIDTH = "document.querySelector('main').getBoundingClientRect().width"
# Lines of code, words of tables and buttons that do not fit their box. Outputs scroll within themselves.
CUT = """[...document.querySelectorAll("pre code.sourceCode, .ioi-buttons, .gallery figcaption")]
  .filter((e) => e.clientHeight && e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent.slice(0, 60))"""
# Words of drawn plots that stand outside their figure.
OUTSIDE = """[...document.querySelectorAll("figure.ioi-plot")].flatMap((figure) => {
  const box = figure.getBoundingClientRect();
  return [...figure.querySelectorAll(".main-svg text")].filter((text) => {
    const b = text.getBoundingClientRect();
    return b.width && getComputedStyle(figure.querySelector("div")).overflowX !== "auto"
      && (b.left < box.left - 2 || b.right > box.right + 2);
  }).map((text) => text.textContent);
})"""


@pytest.fixture(scope="module")
def page(staged):
    """Gives the mock-up of a staged page."""
    made = {}

    def make(name: str, scheme: str):
        if (name, scheme) not in made:
            made[name, scheme] = render(staged, name, scheme)
        return made[name, scheme]

    return make


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SHOWN)
def test_page_of_the_site(page, look, name, scheme):  # noqa: F811
    """Nothing cut off and nothing that axe-core finds; the text is as wide as it should be."""
    for width in (NARROW, WIDE):
        sized = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        look.browser.call("Emulation.setDeviceMetricsOverride", **sized)
        try:
            seen = look(page(name, scheme), scheme)
            assert seen["problems"] == [], width
            assert [each for each in seen["found"] if each["rule"] not in FRAMES_OWN] == [], width
            assert look.browser.value(OVERFLOW) <= 0, width
            assert look.browser.value(CUT) == [], width
            assert look.browser.value(OUTSIDE) == [], width
            if width == WIDE:
                assert 860 <= look.browser.value(PAGE_WIDTH) <= 960
        finally:
            look.browser.call("Emulation.clearDeviceMetricsOverride")


FRAMES_OWN = {"heading-order"}  # of library pages, whose levels Quarto's title block shifts
