"""Plots on dark pages: dark where they say nothing, and readable; on light pages and in
notebooks as they are."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from quarto import render
from test_accessibility import (  # noqa: F401
    ROOT,
    axe,
    build,
    look,
)

from ioi_course import plots
from ioi_course.plots.core import SCALE, _colour
from ioi_course.publish.figures import (
    INSTEAD,
    NIGHT,
    NIGHT_SCALE,
    for_both,
    night_script,
)
from ioi_course.roles import PAPER

PAGES = ["03_logit_lens", "05_attention_patterns", "06_activation_patching"]
SITE = {"light": "#ffffff", "dark": "#16181c"}
SOFT = {"light": "#f5f6f8", "dark": "#20242a"}  # of cards
RULE = re.compile(r"([^{}]+)\{fill:([^{}!]+)(?:!important)?\}")


def luminance(colour) -> float:
    """Relative luminance (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance).

    Takes "#rrggbb" or an array whose last axis has red, green and blue from 0 to 1.
    """
    if isinstance(colour, str):
        full = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
        colour = [int(full[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    part = np.asarray(colour, dtype=float)
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, two) -> float:
    high, low = sorted([luminance(one), luminance(two)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def night(svg: str) -> dict[str, str]:
    """What a picture's own style says for dark pages."""
    style = re.search(r"prefers-color-scheme:dark\)\{(.*)\}</style>", svg)[1]
    return dict(RULE.findall(style))


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """A static picture of each kind that has cells or boxes."""
    values = np.linspace(-1, 1, 144).reshape(12, 12)
    tokens, probs = ["When", " John", " and"], np.array([[0.0, 0.59, 0.9]] * 2)
    pattern = np.tril(np.ones((3, 3))) / np.arange(1, 4)[:, None]
    return {
        "heads": plots.head_heatmap(values, "Effect", "logits", model="x").svg,
        "tokens": plots.token_heatmap(
            probs, [tokens] * 2, ["a", "b"], tokens, "Next", model="x"
        ).svg,
        "attention": plots.attention_heads(pattern[None], tokens, ["a"], model="x").svg,
        "circuit": plots.circuit_diagram(PAPER).svg,
    }


def test_the_scale_by_night_is_that_of_the_day_upside_down():
    """Zero is near the page and near a card, yet seen; lightness rises on both sides of
    it, alike; and what is far from zero stands out as it does by day."""
    assert list(NIGHT) == list(SCALE) and len(NIGHT_SCALE) == len(SCALE)
    for paper in (SITE["dark"], SOFT["dark"]):
        assert 1.1 < contrast(NIGHT_SCALE[3], paper) < 1.5
    light = [luminance(colour) for colour in NIGHT_SCALE]
    assert light[:4] == sorted(light[:4], reverse=True) and light[3:] == sorted(
        light[3:]
    )
    for i, colour in enumerate(NIGHT_SCALE):
        assert contrast(colour, NIGHT_SCALE[-1 - i]) < 1.1, "both signs are alike"
        by_day = contrast(SCALE[i], SITE["light"])
        assert contrast(colour, SITE["dark"]) > min(0.9 * by_day, 9)


def test_every_shade_and_word_of_a_picture_has_a_colour_by_night(drawn):
    for name, svg in drawn.items():
        rules = night(for_both(svg))
        for fill in set(re.findall(r"fill='(rgb\([^']+\))'", svg)):
            assert f'[fill="{fill}"]' in rules, (name, fill)
        for rule, colour in rules.items():
            if rule != "svg":
                assert rule[rule.index("[") + 1 : -1] in svg.replace("'", '"'), rule
                assert re.fullmatch(r"#[0-9a-f]{3}(?:[0-9a-f]{3})?", colour)
    assert night(for_both(drawn["heads"]))[f'[fill="{_colour(0)}"]'] == NIGHT_SCALE[3]
    boxes = night(for_both(drawn["circuit"]))
    assert contrast(boxes['rect[fill="#fff"]'], SITE["dark"]) < 1.1
    assert contrast(boxes['g[fill="#222"]'], boxes['rect[fill="#fff"]']) > 10


def test_words_in_cells_can_be_read_by_night():
    """A word is white up to a probability of 0.6, and nearly black above it."""
    shades = [INSTEAD[f'[fill="{_colour(i / 16)}"]'] for i in range(17)]
    weak, strong = (
        INSTEAD[f'[style="fill:{colour}"]'].removesuffix("!important")
        for colour in ("#444", "#fff")
    )
    for i, shade in enumerate(shades):  # 0.6 is nearly the tenth of sixteen
        words = [weak] * (i <= 10) + [strong] * (i >= 10)
        assert min(contrast(word, shade) for word in words) > 4, (i, shade)


def test_a_picture_is_given_its_style_once(drawn):
    once = for_both(drawn["heads"])
    assert for_both(once) == once and once.count("<style>") == 1
    assert once.replace(re.search(r"<style>.*?</style>", once)[0], "") == drawn["heads"]


def test_stored_outputs_know_nothing_of_it():
    """The colours of the night belong to pages: a notebook keeps the plain picture."""
    for name in PAGES:
        text = (ROOT / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8")
        assert SCALE[3] in text and NIGHT_SCALE[3] not in text


def test_every_picture_of_the_site_is_for_both(staged):
    """Those in chapters, in the gallery and on cards."""
    files = list((staged / "gallery").glob("*.svg"))
    found = [path.read_text(encoding="utf-8") for path in files]
    embedded = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")
    for path in staged.rglob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                text = "".join(output.get("data", {}).get("text/markdown", ""))
                found += [base64.b64decode(e).decode() for e in embedded.findall(text)]
    assert len(found) > 100
    for svg in found:
        fills = set(re.findall(r"fill=['\"](rgb\([^'\"]+\))['\"]", svg))
        assert fills <= {rule[7:-2] for rule in night(svg)}
    assert (staged / "assets" / "night.js").read_text("utf-8") == night_script()


# In a browser

HOSTS = "[...document.querySelectorAll('figure.ioi-plot:has(script) > div')]"


@pytest.fixture(scope="module")
def site(staged):
    """Gives a chapter of the site in the mock-up of Quarto's frame."""
    return lambda name, scheme: render(staged, f"{name}.ipynb", scheme)


def seen(browser, element: str) -> np.ndarray:
    """The pixels of an element, [row, column, RGB] from 0 to 1."""
    browser.value(f"{element}.scrollIntoView({{block: 'center'}})")
    box = browser.value(
        f"(({{left, top, width, height}}) => [left, top, width, height])"
        f"({element}.getBoundingClientRect())"
    )
    x, y, width, height = box
    clip = {"x": max(x, 0), "y": max(y, 0), "width": width, "height": height}
    at = browser.value("[scrollX, scrollY]")
    clip |= {"x": clip["x"] + at[0], "y": clip["y"] + at[1], "scale": 1}
    shot = browser.call("Page.captureScreenshot", format="png", clip=clip)
    return imread(io.BytesIO(base64.b64decode(shot["data"])))[..., :3]


def pixels(browser, still: bool) -> list[np.ndarray]:
    """The figures of the page that shows: as drawn, or with their static pictures."""
    count = browser.value(f"{HOSTS}.length")
    if still:
        swap = "f.children[0].hidden = true, f.querySelector('img').hidden = false"
        browser.value(
            f"document.querySelectorAll('figure.ioi-plot:has(script)').forEach((f) => "
            f"{{ {swap}; }})"
        )
    part = "parentNode.querySelector('img')" if still else "parentNode.children[0]"
    return [seen(browser, f"{HOSTS}[{i}].{part}") for i in range(count)]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("where", ["site", "course"])
def test_no_plot_is_a_bright_plane_on_a_dark_page(site, build, look, name, where):  # noqa: F811
    """As drawn by its library, and as a picture: most of a plot is about as dark as the
    page around it, and by day as bright."""
    for scheme in ("dark", "light"):
        page = site(name, scheme) if where == "site" else build(name)
        assert look(page, scheme)["problems"] == []
        shown = pixels(look.browser, still=False) + pixels(look.browser, still=True)
        assert len(shown) >= 2
        for figure in shown:
            middle = np.median(luminance(figure))
            if scheme == "dark":
                assert middle < 0.06 and np.mean(luminance(figure) > 0.5) < 0.2
            else:
                assert middle > 0.7


@pytest.mark.parametrize("name", ["03_logit_lens", "06_activation_patching"])
def test_plots_follow_the_sites_switch(site, look, name):  # noqa: F811
    """Whatever the system says, and back again."""
    look(site(name, "light"), "dark")
    browser = look.browser
    scale = (
        "[...document.querySelectorAll('.js-plotly-plot')].flatMap((plot) => "
        "(plot.layout.coloraxis?.colorscale ?? []).map((stop) => stop[1]))"
    )
    by_day = browser.value(scale)
    assert by_day and set(by_day) <= set(SCALE)
    turn = "document.body.classList.replace('quarto-{}', 'quarto-{}')"
    wait = "new Promise((done) => setTimeout(done, 500))"
    for colours, words in (
        ([NIGHT[each] for each in by_day], ("light", "dark")),
        (by_day, ("dark", "light")),
    ):
        browser.value(turn.format(*words))
        browser.value(wait)
        assert browser.value(scale) == colours


def test_words_in_cells_have_no_edge(site, look):  # noqa: F811
    """The words around a plot are drawn over its lines; those in cells would be
    blotted by the page's colour."""
    for scheme in SITE:
        look(site("03_logit_lens", scheme), scheme)
        edges = (
            "[...new Set([...document.querySelectorAll('.heatmap-label text')].map("
            "(e) => getComputedStyle(e).stroke))]"
        )
        assert look.browser.value(edges) == ["none"]
