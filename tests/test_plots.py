"""The plots: what they hold, that they are the same every time, and how
a browser shows them."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import circuitsvis
import numpy as np
import pytest
import torch
from circuitsvis.attention import attention_heads as circuitsvis_attention_heads
from plotly.io._utils import plotly_cdn_url

from ioi_course import plots
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.plots import charts, core

TOKENS = [
    "<|endoftext|>",
    "When",
    " John",
    " and",
    " Mary",
    "</script><b>",
    " &amp;",
    " John",
    "\n",
    " to",
]
PLACES = [f"{layer}_{site}" for layer in range(12) for site in ("pre", "mid")] + [
    "final_post"
]
PLOTLY = {
    "head_heatmap",
    "patch_heatmap",
    "three_panels",
    "token_heatmap",
    "labelled_heatmap",
    "residual_line",
    "two_lines",
    "head_scatter",
}


def per_head() -> torch.Tensor:
    values = torch.linspace(-0.05, 0.05, 144).reshape(12, 12).clone()
    values[9, 9], values[10, 7] = 2.91847, -1.6
    return values


def patterns() -> torch.Tensor:
    previous = torch.diag(torch.ones(9), -1)
    previous[0, 0] = 1
    uniform = torch.ones(10, 10).tril()
    return torch.stack([previous, uniform / uniform.sum(-1, keepdim=True)])


def every_plot() -> dict[str, plots.Plot]:
    heads, model = per_head(), "synthetic"
    places = torch.sin(torch.arange(120.0)).reshape(12, 10)
    line = torch.linspace(-1, 3.7, 25)
    return {
        "head_heatmap": plots.head_heatmap(
            heads, "Direct effect", "logits", model=model
        ),
        "patch_heatmap": plots.patch_heatmap(
            places, TOKENS, "Recovered", "share", model=model
        ),
        "three_panels": plots.patch_heatmap(
            {"resid_pre": places, "attn_out": 3 * places, "mlp_out": -places},
            TOKENS,
            "Recovered",
            "share",
            model=model,
        ),
        "token_heatmap": plots.token_heatmap(
            torch.linspace(0, 1, 120).reshape(12, 10),
            [TOKENS] * 12,
            PLACES[:12],
            TOKENS,
            "Likeliest",
            model=model,
        ),
        "labelled_heatmap": plots.labelled_heatmap(
            places.reshape(12, 10),
            [f"row {i}" for i in range(12)],
            TOKENS,
            ("row", "source"),
            "Shares",
            "logits",
            model=model,
        ),
        "residual_line": plots.residual_line(
            line, PLACES, "Logit lens", "logits", model=model
        ),
        "two_lines": plots.residual_line(
            {"clean": line, "corrupted": -line},
            PLACES,
            "Logit lens",
            "logits",
            model=model,
        ),
        "head_scatter": plots.head_scatter(
            heads.abs() / 3,
            heads,
            "attention",
            "effect (logits)",
            model=model,
            circuit=CIRCUIT,
            diagonal=True,
        ),
        "attention_heads": plots.attention_heads(
            patterns(), TOKENS, [(2, 2), "L0H1"], model=model
        ),
        "circuit_diagram": plots.circuit_diagram(CIRCUIT),
    }


NAMES = sorted(every_plot())


@pytest.fixture(scope="module")
def shown() -> dict[str, plots.Plot]:
    return every_plot()


# What a plot holds


def payload(plot: plots.Plot) -> dict:
    """What the script of a plot's HTML is given."""
    return json.loads(
        re.search(
            r'<script type="application/json">(.*?)</script>', plot._repr_html_(), re.S
        )[1]
    )


@pytest.mark.parametrize("name", NAMES)
def test_bundle(shown, name):
    plot = shown[name]
    bundle = plot._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"} | (
        {core._PLOTLY_MIME} if name in PLOTLY else set()
    )
    assert bundle["text/plain"] == repr(plot) == plot.summary
    assert "\n" not in plot.summary
    if name != "circuit_diagram":
        assert (
            plot.summary.endswith("model synthetic") and "model: synthetic" in plot.svg
        )
    if name in PLOTLY:
        spec = payload(plot)["spec"]
        assert spec == bundle[core._PLOTLY_MIME]
        assert "model: synthetic" in [
            note["text"] for note in spec["layout"]["annotations"]
        ]
        assert spec["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_twice_and_small(shown, name):
    bundle = json.dumps(shown[name]._repr_mimebundle_())
    assert bundle == json.dumps(every_plot()[name]._repr_mimebundle_())
    assert len(bundle) < 70_000
    assert "uuid" not in bundle and "circuits-vis-" not in bundle
    assert not re.search(r"\bat 0x[0-9a-f]+", bundle)


@pytest.mark.parametrize("name", NAMES)
def test_static_picture(shown, name):
    """The picture is well-formed SVG, says what it is, and stands in the HTML with the
    same words beside it."""
    plot = shown[name]
    svg = ElementTree.fromstring(plot.svg)
    assert svg.get("role") == "img" and svg.find("{*}title").text
    page = plot._repr_html_()
    assert (
        base64.b64decode(
            re.search(r"data:image/svg\+xml;base64,([^\"]+)", page)[1]
        ).decode()
        == plot.svg
    )
    width, height = float(svg.get("width")), float(svg.get("height"))
    for text in svg.findall(".//{*}text"):
        assert (
            0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height
        ), text.text
    assert html.unescape(re.search(r'alt="([^"]+)"', page)[1]) == plot.summary


@pytest.mark.parametrize("name", NAMES)
def test_table_in_the_html(shown, name):
    plot = shown[name]
    page = plot._repr_html_()
    assert page.count("<tr>") == len(plot.table) + 1
    assert page.count("<td>") == plot.table.size


def test_values_are_rounded_and_in_place(shown):
    plot = shown["head_heatmap"]
    assert plot.table.loc["L9", "H9"] == 2.92 and plot.table.loc["L10", "H7"] == -1.6
    z = np.array(plot.figure.data[0].z)
    assert np.array_equal(z, plot.table.to_numpy()) and z[9, 9] == 2.92
    axis = plot.figure.layout.coloraxis
    assert axis.cmin == -axis.cmax == -2.92
    assert plot.figure.layout.yaxis.autorange == "reversed"
    assert "max L9H9 2.92, min L10H7 −1.60" in plot.summary
    assert "L%{y}H%{x}" in plot.figure.data[0].hovertemplate


def cells(svg: str) -> list[dict[tuple[int, int], str]]:
    """The coloured cells (row, column) of each heatmap in a
    picture, the colour bar last."""
    groups = [
        group
        for group in ElementTree.fromstring(svg).findall(".//{*}g")
        if group.get("shape-rendering")
    ]
    squares = [
        [(path.get("fill"), path.get("d")) for path in list(group)[1:]]
        for group in groups
    ]
    corner = re.compile(r"M(\d+) (\d+)h1v1")
    return [
        {(int(y), int(x)): fill for fill, d in paths for x, y in corner.findall(d)}
        for paths in squares
    ]


def test_static_colours(shown):
    heads, bar = cells(shown["head_heatmap"].svg)
    assert heads[9, 9] == bar[0, 0] == "rgb(33,102,172)"  # blue: the largest
    red, green, blue = map(int, re.findall(r"\d+", heads[10, 7]))
    assert red > blue  # red: below zero
    # the middle is the colour of nothing
    assert bar[32, 0] == "rgb(178,24,43)" and (16, 0) not in bar


def test_panels_share_one_scale(shown):
    *panels, _ = cells(shown["three_panels"].svg)
    values = torch.sin(torch.arange(120.0)).reshape(12, 10)
    where = np.unravel_index(values.abs().argmax(), values.shape)
    assert len({panel[where] for panel in panels}) == 3
    figure = shown["three_panels"].figure
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert [note.text for note in figure.layout.annotations][:3] == [
        "resid_pre",
        "attn_out",
        "mlp_out",
    ]


def test_all_zero():
    plot = plots.head_heatmap(torch.zeros(2, 3), "Nothing", "logits", model="none")
    assert "max L0H0 0, min L0H0 0" in plot.summary
    plots.residual_line([0.0, 0.0], ["a", "b"], "Nothing", "logits", model="none")
    plots.head_scatter(
        torch.zeros(2, 3), torch.zeros(2, 3), "x", "y", model="none", diagonal=True
    )


@pytest.mark.parametrize(
    "kind", [torch.float16, torch.bfloat16, torch.float64, "numpy", "list", "grad"]
)
def test_kinds_of_numbers(kind):
    values = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    given = {
        "numpy": values.numpy(),
        "list": values.tolist(),
        "grad": values.clone().requires_grad_(),
    }
    given = given[kind] if kind in given else values.to(kind)
    assert (
        plots.head_heatmap(given, "Effect", "logits", model="m")
        .table.to_numpy()
        .tolist()
        == values.tolist()
    )


def test_labels(shown):
    labels = plots.token_labels(TOKENS)
    assert labels[2] == " John@2" and labels[7] == " John@7" and labels[8] == "\\n@8"
    assert len(set(labels)) == len(TOKENS)
    x = shown["patch_heatmap"].figure.data[0].x
    assert x[0] == "&lt;|endoftext|&gt;@0"  # plotly would take <|…|> for a tag
    assert list(shown["patch_heatmap"].table.columns) == labels


def test_tokens_cannot_end_the_script(shown):
    for name in ("patch_heatmap", "attention_heads"):
        assert shown[name]._repr_html_().count("</script>") == 2
    assert payload(shown["attention_heads"])["spec"]["props"]["tokens"] == TOKENS


def test_scatter_roles(shown):
    plot = shown["head_scatter"]
    assert {trace.name for trace in plot.figure.data} == {"other heads", *CIRCUIT.roles}
    assert sum(len(trace.x) for trace in plot.figure.data) == 144
    for trace in plot.figure.data:
        for name in trace.customdata:
            layer, head = map(int, re.findall(r"\d+", name))
            assert (
                (CIRCUIT.role_of(layer, head) or "other heads")
                == trace.name
                == plot.table.loc[name, "role"]
            )
    assert plot.summary.count("L9H9") == 1
    assert "L9H9" in [text for trace in plot.figure.data for text in trace.text]


def test_attention_is_what_circuitsvis_is_given(shown):
    """The same element and props as circuitsvis' own Python side passes on."""
    spec = payload(shown["attention_heads"])["spec"]
    theirs = circuitsvis_attention_heads(
        np.round(patterns().double().numpy(), 3), TOKENS, ["L2H2", "L0H1"]
    ).show_code()
    assert spec["element"] in theirs
    assert spec["props"] == json.loads(
        re.search(r"^\s*(\{\"attention.*\})\s*$", theirs, re.M)[1]
    )
    table = shown["attention_heads"].table
    assert table.iloc[3].tolist() == ["L2H2", " and@3", " John@2", 1.0]


def test_addresses():
    assert core._PLOTLY_CDN == plotly_cdn_url()
    assert f"circuitsvis@{circuitsvis.__version__}/" in core._CIRCUITSVIS_CDN


def test_diagram_shows_the_whole_circuit(shown, tmp_path):
    plot = shown["circuit_diagram"]
    words = " ".join(
        text.text or ""
        for text in ElementTree.fromstring(plot.svg).findall(".//{*}text")
    )
    for role, heads in CIRCUIT.roles.items():
        assert (
            role in words and plot.table.loc[role, "acts at"] == CIRCUIT.positions[role]
        )
        for layer, head in heads:
            assert f"L{layer}H{head}" in words.split()
    assert plot.svg.count("marker-end") == len({edge[:2] for edge in CIRCUIT.edges}), (
        "an arrow for each two classes"
    )
    assert (
        plot.save(tmp_path / "circuit.svg").read_text(encoding="utf-8").strip()
        == plot.svg
    )
    assert "<script" not in plot._repr_html_()
    with pytest.raises(
        ValueError, match=r"\.svg picture; got the name '.*circuit.png'"
    ):
        plot.save(tmp_path / "circuit.png")


def test_page_head(tmp_path):
    head = plots.page_head(tmp_path / "assets", "../assets/")
    assert '"../assets/"' in head and len(head) < 200
    assert sorted(p.name for p in (tmp_path / "assets").iterdir()) == [
        "CircuitsVis.js",
        "Plotly.js",
    ]
    before = (tmp_path / "assets" / "Plotly.js").stat().st_mtime_ns
    plots.page_head(tmp_path / "assets", "assets/")
    assert (tmp_path / "assets" / "Plotly.js").stat().st_mtime_ns == before


# Bad input


def nan_at(layer: int, head: int) -> torch.Tensor:
    values = per_head()
    values[layer, head] = float("nan")
    return values


WORDS = dict(title="Effect", unit="logits", model="m")
BAD = {
    "axes": (
        lambda: plots.head_heatmap(torch.zeros(12), **WORDS),
        r"axes \[layer, head\].*got the shape \[12\]",
    ),
    "empty": (
        lambda: plots.head_heatmap(torch.zeros(0, 12), **WORDS),
        r"none of them empty; got the shape \[0, 12\]",
    ),
    "nan": (
        lambda: plots.head_heatmap(nan_at(3, 7), **WORDS),
        r"1 of the 144 .* nan at layer 3, head 7",
    ),
    "title": (
        lambda: plots.head_heatmap(per_head(), "", "logits", model="m"),
        "needs a title",
    ),
    "inf": (
        lambda: plots.residual_line([0, float("inf")], ["a", "b"], **WORDS),
        "inf at place 1",
    ),
    "places": (
        lambda: plots.residual_line([0, 1], ["a"], **WORDS),
        "one string per place: expected 2, got 1",
    ),
    "no line": (lambda: plots.residual_line({}, [], **WORDS), "one line or more"),
    "named line": (
        lambda: plots.residual_line({"a": [0], "b": [[0]]}, ["x"], **WORDS),
        r"values\['b'\]",
    ),
    "tokens": (
        lambda: plots.patch_heatmap(torch.ones(2, 3), ["a", "b"], **WORDS),
        "per position: expected 3, got 2",
    ),
    "a string": (
        lambda: plots.patch_heatmap(torch.ones(2, 3), "abc", **WORDS),
        "the string 'abc'",
    ),
    "panels": (
        lambda: plots.patch_heatmap(
            {"a": torch.ones(2, 3), "b": torch.ones(2, 2)}, ["a"] * 3, **WORDS
        ),
        r"of one shape; got \{'a': \[2, 3\], 'b': \[2, 2\]\}",
    ),
    "a row of tokens": (
        lambda: plots.token_heatmap(
            torch.ones(2, 3), [["a"] * 3], ["0", "1"], ["a"] * 3, "x", model="synthetic"
        ),
        "2 rows of 3",
    ),
    "no panel": (lambda: plots.patch_heatmap({}, [], **WORDS), "one panel or more"),
    "two shapes": (
        lambda: plots.head_scatter(
            torch.ones(2, 3), torch.ones(3, 2), "x", "y", model="m"
        ),
        "the same heads",
    ),
    "scores": (
        lambda: plots.attention_heads(3 * patterns(), TOKENS, ["a", "b"], model="m"),
        r"a from '<\|endoftext\|>@0' sums to 3.000",
    ),
    "negative": (
        lambda: plots.attention_heads(
            [[[1, 0], [2, -1]]], ["a", "b"], ["h"], model="m"
        ),
        "smallest entry of -1.000",
    ),
    "names": (
        lambda: plots.attention_heads(patterns(), TOKENS, ["a"], model="m"),
        "per head: expected 2, got 1",
    ),
    "short": (
        lambda: plots.attention_heads(patterns(), TOKENS[1:], ["a", "b"], model="m"),
        "expected 10, got 9",
    ),
    "not square": (
        lambda: plots.attention_heads(patterns()[:, 1:], TOKENS, ["a", "b"], model="m"),
        "9 destinations, 10 sources",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking
    --disable-component-update --disable-sync
    --virtual-time-budget=20000 --window-size=1000,900 --dump-dom""".split()
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
REPORT = """<script>addEventListener("load", () => setTimeout(() => {
  const size = (e) => e &&
    [e.getBoundingClientRect().width, e.getBoundingClientRect().height].map(Math.round);
  const report = [...document.querySelectorAll("figure")].map((figure) => ({
    picture: size(figure.querySelector("img")),
    complete: figure.querySelector("img").naturalWidth > 0,
    plotly: size(figure.querySelector(".main-svg")),
    label: figure.querySelector("[role=img]")?.ariaLabel ?? null,
    canvases: [...figure.querySelectorAll("canvas")].map(size),
    table: !!figure.querySelector("details table td"),
    words: [...figure.querySelectorAll(".gtitle, .xtick text")].map(
      (e) => getComputedStyle(e).fill),
  }));
  const scripts = [...document.querySelectorAll("script[src]")].map(
    (e) => e.src.split("/").pop());
  document.body.innerHTML = `<pre>${JSON.stringify({ report, scripts })}</pre>`;
}, 10000))</script>"""


def look(
    folder: Path, head: str, shown: dict[str, plots.Plot], style: str = ""
) -> tuple[dict[str, dict], list[str]]:
    """What a browser without a network makes of a page with these plots."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the plots were not looked "
            "at in a browser"
        )
    page = folder / "page.html"
    body = "".join(plot._repr_html_() for plot in shown.values())
    page.write_text(
        f"<!doctype html><meta charset=utf-8>{head}<body "
        f"style='{style}'>{body}{REPORT}",
        encoding="utf-8",
    )
    command = [
        CHROMIUM,
        *FLAGS,
        NO_NETWORK,
        f"--user-data-dir={folder / 'browser'}",
        page.as_uri(),
    ]
    dom = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = re.search(r"<pre>(\{.*\})</pre>", dom, re.S)
    assert found, dom[-2000:]
    result = json.loads(found[1])
    return dict(zip(shown, result["report"], strict=True)), result["scripts"]


def check_drawn(
    seen: dict[str, dict], scripts: list[str], shown: dict[str, plots.Plot]
) -> None:
    for name, plot in shown.items():
        report = seen[name]
        assert report["table"], name
        if name == "circuit_diagram":
            assert report["complete"] and report["picture"][0] > 500
            continue
        assert report["picture"] == [0, 0], (
            f"{name}: the static picture still stands beside the plot"
        )
        assert report["label"] == plot.summary
        if name == "attention_heads":
            assert len(report["canvases"]) == 3  # two small patterns and the large one
            assert report["canvases"][-1][0] > 300
        else:
            width, height = report["plotly"]
            assert width > 300 and height > 300, name
            assert set(report["words"]) == {"rgb(10, 200, 30)"}  # the page's own colour
    # each once, for eight plots
    assert sorted(scripts) == ["CircuitsVis.js", "Plotly.js"]


def test_browser_with_the_libraries_beside_the_page(shown, tmp_path):
    head = plots.page_head(tmp_path / "assets", "assets/")
    seen, scripts = look(tmp_path, head, shown, "color: rgb(10, 200, 30)")
    check_drawn(seen, scripts, shown)


def test_browser_in_jupyter(shown, tmp_path):
    """JupyterLab names its address in the page; the server may serve the libraries
    below static/ioi_course."""
    plots.page_head(tmp_path / "static" / "ioi_course", "")
    config = json.dumps({"baseUrl": f"{tmp_path.as_uri()}/"})
    head = f'<script id="jupyter-config-data" type="application/json">{config}</script>'
    seen, scripts = look(tmp_path, head, shown, "color: rgb(10, 200, 30)")
    check_drawn(seen, scripts, shown)


def test_browser_without_the_libraries(shown, tmp_path):
    """No library beside the page and none from the network:
    pictures and tables stay."""
    seen, scripts = look(tmp_path, "", shown)
    for name, report in seen.items():
        assert report["complete"] and min(report["picture"]) > 250, name
        assert (
            report["table"] and report["plotly"] is None and report["canvases"] == []
        ), name
    assert sorted(scripts) == sorted(
        address.rsplit("/", 1)[1]
        for address in (core._CIRCUITSVIS_CDN, core._PLOTLY_CDN)
    )


LONG = (
    "Heads by position, two prompts (share of the whole effect that comes back when "
    "one activation is carried over)"
)
BOXES = """<script>addEventListener("load", () => setTimeout(() => {
  const box = (e) => {
    const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom];
  };
  const report = [...document.querySelectorAll("figure")].map((figure) => ({
    plot: box(figure.querySelector(".main-svg")),
    wide: figure.parentElement.scrollWidth,
    texts: [...figure.querySelectorAll(".main-svg text")].filter(
      (e) => e.textContent.trim()).flatMap(
      (e) => (e.querySelector("tspan.line")
        ? [...e.querySelectorAll("tspan.line")] : [e]).map((t) =>
        ({ text: t.textContent.replace(/[<>&]/g, ''),
          title: !!e.closest(".gtitle"), box: box(t) }))) }));
  document.body.innerHTML = `<pre>${JSON.stringify({ report, scripts: [] })}</pre>`;
}, 10000))</script>"""


def crowded() -> plots.Plot:
    """Many heads at almost one place, as in chapter 6."""
    heads = per_head() / 100
    heads[8, :8] = 2 + torch.arange(8) / 50
    return plots.head_scatter(
        heads, heads, "attention", "effect (logits)", model="synthetic", circuit=CIRCUIT
    )


def test_label_stands_where_it_hides_no_other_point():
    """On the right it would be read as the name of the point beside it."""
    x, y = np.array([0.1, 0.2, 0.5, 0.53]), np.array([0.1, 0.2, 0.5, 0.5])
    names = ["far", "near", "L8H6", "L7H9"]
    chart = charts._Chart(
        [charts._Series("heads", x, y, names, "#000")], "x", "y", named=["L8H6"]
    )
    side = charts._beside(chart)["L8H6"]
    room = [
        charts._label_box(*chart.place(0.5, 0.5, wide), "L8H6", side)
        for wide in charts._WIDTHS
    ]
    places = [
        [chart.place(*point, wide) for point in zip(x, y, strict=True)]
        for wide in charts._WIDTHS
    ]
    assert side != "middle right" and charts._under(room, places) == 0
    right = charts._label_box(*chart.place(0.5, 0.5), "L8H6", "middle right")
    assert charts._under([right], [places[1]]) == 1


@pytest.mark.parametrize("width", [900, 390])
def test_browser_no_title_cut_and_no_label_over_another(
    shown, tmp_path, monkeypatch, width
):
    drawn = {name: shown[name] for name in sorted(PLOTLY)} | {"crowded": crowded()}
    drawn["long"] = plots.head_heatmap(per_head(), LONG, "", model="synthetic")
    every = [f"{layer}_{site}" for layer in range(30) for site in ("pre", "mid")]
    both = {"own scale": torch.rand(61), "final scale held": torch.rand(61)}
    drawn["smollm2"] = plots.residual_line(
        both, [*every, "final_post"], "Two lenses", "logits", model="smollm2"
    )
    monkeypatch.setitem(globals(), "REPORT", BOXES)
    head = plots.page_head(tmp_path / "assets", "assets/")
    seen, _ = look(tmp_path, head, drawn, f"margin:0;width:{width}px")
    for name, report in seen.items():
        left, _, right, _ = report["plot"]
        assert report["wide"] <= width and (right - left > 0.85 * width), (
            name,
            left,
            right,
        )
        texts = report["texts"]
        assert any(text["title"] for text in texts)
        for i, text in enumerate(texts):
            x0, y0, x1, y1 = text["box"]
            if text["title"]:
                assert left <= x0 and x1 <= right and report["plot"][1] <= y0, (
                    name,
                    text,
                )
            over = [
                each["text"] for each in texts[:i]
                if min(each["box"][2], x1) - max(each["box"][0], x0) > 1
                and min(each["box"][3], y1) - max(each["box"][1], y0) > 3
            ]  # fmt: skip
            assert not over, (name, text["text"], over)
