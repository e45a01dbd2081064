"""The pictures: well-formed, described in words, and in a browser no word over another,
none cut, all readable."""

import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from ioi_course.plots import knockouts, pictures

FOUND = [
    pictures.Moved("S1", "S2", "a name seen before", (3, 5)),
    ("S1", "S1+1", "the token before", (2, 4)),
    ("S1+1", "S2", "what followed last time", (5, 6)),
    ("S2", "END", "which name to avoid", (7, 8)),
    ("IO", "END", "the name itself", (9, 11)),
    ("END", "logits", "the answer", (9, 11)),
    ("S1", "END", "not there", None),
]
PICTURES = {
    "nothing known": lambda: pictures.stream(),
    "known": lambda: pictures.stream(FOUND, model="synthetic"),
    "known in 30 layers": lambda: pictures.stream(FOUND, layers=30),
    "all in one layer": lambda: pictures.stream(
        [("S1", "S2", f"fact {i}", 5) for i in range(12)]
    ),
    "last layer": lambda: pictures.stream(
        [("S2", "S2", "kept", 11), ("S2", "END", "moved", 11)] * 4
    ),
    "patch": pictures.patch,
    "node or edge": pictures.node_or_edge,
    "four passes": pictures.four_passes,
    "five patterns": pictures.five_patterns,
    "four runs": knockouts.four_runs,
    "lens": pictures.lens,
    "sum": lambda: pictures.sum_of_parts(
        {"embedding": 0.25, "attention": -4.5, "a part with a very long name": 2.0}
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_well_formed_and_described(name):
    picture = PICTURES[name]()
    assert (
        repr(picture) == repr(PICTURES[name]())
        and "\n" not in repr(picture)
        and len(repr(picture)) > 80
    )
    assert picture._repr_html_() == PICTURES[name]()._repr_html_()
    assert not re.search(r"\bid=|<script", picture._repr_html_())
    for panel in picture.panels:
        svg = ElementTree.fromstring(panel)
        assert (
            svg.get("role") == "img"
            and svg[0].tag.endswith("title")
            and svg[1].tag.endswith("desc")
        )
        assert (
            svg[0].text and svg[1].text and svg[1].text.split(".")[0] in repr(picture)
        )
    ElementTree.fromstring(picture._repr_html_())


def words(picture) -> set[str]:
    return {
        text.text
        for panel in picture.panels
        for text in ElementTree.fromstring(panel).iter()
        if text.text
    }


def test_nothing_of_the_circuit_by_default():
    html = pictures.stream()._repr_html_()
    assert html.count(">?</text>") == 5 and "<ol" not in html and "rx='3'" not in html


def test_only_what_was_found_is_drawn():
    picture = pictures.stream(FOUND)
    assert (
        len(picture.notes) == 7
        and {"1", "2", "3", "4", "5", "6"} <= words(picture)
        and "7" not in picture.notes
    )
    # a band for each record that was found
    assert picture._repr_html_().count("rx='3'") == 6
    assert "S1 to END: not there (not found)" in picture.notes and "?" not in words(
        picture
    )
    assert pictures.stream([("S1", "S2", "x", 4)])._repr_html_().count(">?</text>") == 3


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (4, "layer 4"),
        ((3, 5), "layers 3 to 5"),
        ([9, 7, 7], "layers 7 to 9"),
        ({2}, "layer 2"),
        ([], "not found"),
    ],
)
def test_layers_of_a_record(layers, said):
    assert str(pictures.Moved("S1", "S2", "x", layers)) == f"S1 to S2: x ({said})"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (("END", "S2", "x", 3), "only looks back"),
        (("S2", "END", "x", 12), "outside 0 to 11"),
        (("S2", "END", "x", -1), "outside 0 to 11"),
        (("nowhere", "END", "x", 1), "no position of the sentence"),
        (("logits", "END", "x", 1), "no position of the sentence"),
    ],
)
def test_bad_records(record, message):
    with pytest.raises(ValueError, match=message):
        pictures.stream([record])


def test_a_model_says_how_many_layers_it_has(model):
    picture = pictures.stream([("S2", "END", "x", model.cfg.n_layers - 1)], model=model)
    assert "Measured on" in picture.caption
    with pytest.raises(ValueError, match="outside"):
        pictures.stream([("S2", "END", "x", model.cfg.n_layers)], model=model)


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking
    --disable-component-update --disable-sync --window-size=1000,900
    --dump-dom""".split()
# A box of its own width stands for the window, which a browser without a screen does
# not make narrower than 500 px.
REPORT = """<script>addEventListener("load", () => {
  const box = (e) => {
    const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom];
  };
  const report = [...document.querySelectorAll("figure")].map((figure) => ({
    figure: box(figure), wide: figure.scrollWidth - figure.clientWidth,
    panels: [...figure.querySelectorAll("svg")].map((svg) => ({
      box: box(svg),
      scale: svg.getBoundingClientRect().width / svg.viewBox.baseVal.width,
      texts: [...svg.querySelectorAll("text")].map((text) => ({
        text: text.textContent, box: box(text), fill: getComputedStyle(text).fill,
        size: parseFloat(getComputedStyle(text).fontSize) })) })) }));
  document.body.innerHTML = `<pre>${JSON.stringify(report)}</pre>`;
})</script>"""


def shown(folder, width: int, colours: str) -> dict[str, dict]:
    """What a browser makes of the pictures in a column of this
    width, in these colours."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the pictures were not "
            "looked at in a browser"
        )
    body = "".join(make()._repr_html_() for make in PICTURES.values())
    page = folder / "page.html"
    style = (
        "font-family:sans-serif;margin:0;padding:0 "
        f"16px;box-sizing:border-box;width:{width}px;{colours}"
    )
    page.write_text(
        f"<!doctype html><meta charset=utf-8><body style='{style}'>{body}{REPORT}",
        encoding="utf-8",
    )
    command = [
        CHROMIUM,
        *FLAGS,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder}",
        page.as_uri(),
    ]
    dom = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    return dict(
        zip(
            PICTURES,
            json.loads(re.search(r"<pre>(\[.*\])</pre>", dom, re.S)[1]),
            strict=True,
        )
    )


def overlap(a: list[float], b: list[float]) -> bool:
    return (
        min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 3
    )  # a line's box is tall


@pytest.mark.parametrize("width", [900, 390])
def test_no_word_over_another_or_cut(tmp_path, width):
    for name, figure in shown(tmp_path, width, "").items():
        assert figure["wide"] <= 0 and figure["figure"][2] <= width, name
        for panel in figure["panels"]:
            left, top, right, bottom = panel["box"]
            assert right <= width - 15, name
            for i, text in enumerate(panel["texts"]):
                assert text["size"] * panel["scale"] >= 11, (name, text)
                x0, y0, x1, y1 = text["box"]
                assert left <= x0 and x1 <= right and top <= y0 and y1 <= bottom, (
                    name,
                    text,
                )
                over = [
                    each["text"]
                    for each in panel["texts"][:i]
                    if overlap(each["box"], text["box"])
                ]
                assert not over, (name, text["text"], over)


def luminance(colour: tuple[int, ...]) -> float:
    parts = [c / 255 for c in colour]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


BLUE, ORANGE = (
    (int(c[1:3], 16), int(c[3:5], 16), int(c[5:], 16))
    for c in (pictures._BLUE, pictures._ORANGE)
)
PAGES = {
    "light": ((33, 33, 33), (255, 255, 255)),
    "dark": ((224, 224, 224), (17, 17, 17)),
}


@pytest.mark.parametrize("page", PAGES)
def test_readable_in_light_and_dark(tmp_path, page):
    ink, paper = PAGES[page]
    figures = shown(tmp_path, 900, f"color:rgb{ink};background:rgb{paper}")
    for name, figure in figures.items():
        for text in (text for panel in figure["panels"] for text in panel["texts"]):
            fill = tuple(map(int, re.findall(r"\d+", text["fill"])))
            if fill == (255, 255, 255):  # a number in its filled circle
                assert (
                    text["text"].isdigit()
                    and min(contrast(fill, BLUE), contrast(fill, ORANGE)) >= 4.5
                )
            else:
                assert fill == ink and contrast(fill, paper) >= 4.5, (name, text)
    assert min(contrast(BLUE, paper), contrast(ORANGE, paper)) >= 3  # lines and shapes


@pytest.mark.parametrize("name", ["four runs", "four passes"])
def test_four_drawings_are_two_by_two_and_alike(tmp_path, name):
    """Where the column fits three, the fourth was alone in its row, and larger."""
    boxes = [panel["box"] for panel in shown(tmp_path, 900, "")[name]["panels"]]
    assert [round(box[0]) for box in boxes[:2]] == [round(box[0]) for box in boxes[2:]]
    assert boxes[0][1] == boxes[1][1] < boxes[2][1] == boxes[3][1]
    assert len({round(box[2] - box[0]) for box in boxes}) == 1
