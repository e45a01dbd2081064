"""The lab's page: the exported graph against PyTorch, the page in Chromium, its tours,
bad input, and axe-core."""

import json
import random
import statistics

import numpy as np
import pytest
import torch
from tabs import Tab
from test_accessibility import axe  # noqa: F401
from test_circuit_page import CHROMIUM
from test_interventions import drawn
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.interventions import HOWS, Bench, Intervention, intervene, shared
from ioi_course.models import load_model
from ioi_course.project import CourseError
from ioi_course.publish import lab_model, lab_page
from ioi_course.templates import NAMES

pytestmark = pytest.mark.usefixtures("no_grad")
runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
SINGLE = "When John and Mary went to the shops, John gave the bag to"
EACH = """async (states, read) => {
  const found = [];
  for (const state of states) {
    const from = performance.now(), view = await ioiLab.engine.run(state);
    found.push(read(view, performance.now() - from));
  }
  return found;
}"""
READY = "!!globalThis.ioiLab && !document.querySelector('#lab[aria-busy]')"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of the synthetic model, as the command writes it; skips where npm does
    not give its runtime."""
    pytest.importorskip(
        "onnx", reason="onnx is not installed: the lab's page cannot be exported"
    )
    try:
        lab_page.runtime()
    except CourseError as error:
        pytest.skip(f"onnxruntime-web is not to be had: {error}")
    path = tmp_path_factory.mktemp("lab") / "lab.html"
    result = runner.invoke(
        cli.app, ["lab-page", "--model", "synthetic", "--out", str(path)]
    )
    assert result.exit_code == 0, result.output
    return path


def thread_time(tab) -> float:
    """The seconds that the page's thread has been at work."""
    return next(
        each["value"]
        for each in tab.call("Performance.getMetrics")["metrics"]
        if each["name"] == "ThreadTime"
    )


@pytest.fixture(scope="module")
def tab(page, tmp_path_factory):
    """The page in Chromium, from the file system, without a network."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the lab was not tried in "
            "a browser"
        )
    browser = Tab(tmp_path_factory.mktemp("browser"))
    browser.open(page)
    browser.call("Performance.enable")
    browser.until(READY, 300)
    browser.loaded = thread_time(browser)
    yield browser
    browser.close()


@pytest.fixture
def fresh(tab):
    """The page with nothing changed in it."""
    tab.value("document.querySelector('.tours .buttons button:last-child')?.click()")
    state = {
        "prompt": SINGLE,
        "other": SINGLE.replace("John gave", "Mary gave"),
        "heads": [],
        "only": False,
        "how": "zero",
        "amount": 1,
        "at": [],
        "stream": [],
    }
    tab.value(f"ioiLab.set({json.dumps(state)})")
    tab.until(READY)
    return tab


@pytest.fixture(scope="module")
def bench(model):
    return Bench(model)


def as_json(what: Intervention) -> str:
    return json.dumps(vars(what))


# The graph, natively


@pytest.mark.parametrize("name", ["synthetic", "tiny"])
def test_graph_gives_the_models_logits(name, tmp_path):
    """With exact weights to rounding; with those of the page within .03."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = load_model(name)
    tokens = torch.tensor([Bench(model).read(SINGLE).tokens])
    expected = model(tokens)[0, -1].numpy()
    exact = lab_model.weights_of(model)
    data = lab_model.packed(exact)
    assert len(data) < lab_page.LARGEST / 2
    graph = lab_model.graph_of(model, exact)
    (tmp_path / "graph.onnx").write_bytes(graph.SerializeToString())
    cfg, n = model.cfg, tokens.shape[1]
    size = cfg.n_layers, cfg.n_heads, n
    feed = {
        "tokens": tokens[0].numpy().astype(np.int32),
        "keep": np.ones(size),
        "stand": np.zeros((*size, cfg.d_head)),
        "stay": np.ones((size[0], n)),
        "stream": np.zeros((size[0], n, exact["embed"].shape[1])),
    }
    feed = {
        key: value if key == "tokens" else value.astype(np.float32)
        for key, value in feed.items()
    }
    for weights, allowed in ((exact, 2e-4), (lab_model.unpacked(data), 0.03)):
        (tmp_path / "weights").write_bytes(
            b"".join(part.astype("<f4").tobytes() for part in weights.values())
        )
        logits = ort.InferenceSession(tmp_path / "graph.onnx").run(["logits"], feed)[0]
        assert np.abs(logits - expected).max() < allowed


def test_packed_weights_come_back_row_by_row():
    rng = np.random.default_rng(0)
    large = rng.standard_normal((100, 67)) * 10.0 ** rng.integers(-3, 3, (100, 1))
    weights = {"a": large, "b": rng.standard_normal(5)}
    weights["a"][3] = 0
    back = lab_model.unpacked(lab_model.packed(weights))
    assert (
        np.abs(back["a"] - weights["a"])
        <= np.abs(weights["a"]).max(1, keepdims=True) / 60000 + 1e-12
    ).all()
    assert np.allclose(back["b"], weights["b"], atol=1e-6) and [*back] == ["a", "b"]


# In the browser


def test_tokens_are_those_of_the_tokenizer(tab, tokenizer):
    """Random texts: words of the prompts, names, pieces, punctuation, other scripts,
    spaces, the special token."""
    rng = random.Random(0)
    odd = [
        "’t",
        "Zoltán",
        "日本",
        "🙂",
        "42",
        "<|endoftext|>",
        "\t",
        "don't",
        "  ",
        "\n",
    ]  # noqa: RUF001
    parts = [*NAMES[:30], " went", " to", "the", ",", "'s", *odd]
    texts = [
        "".join(
            rng.choice(parts) + rng.choice(["", " "]) for _ in range(rng.randrange(12))
        )
        for _ in range(150)
    ]
    found = tab.value(
        f"{json.dumps(texts)}.map((text) => ioiLab.engine.tokenizer.encode(text))"
    )
    assert found == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts
    ]
    ids = list(range(len(tokenizer)))
    assert tab.value(f"{ids}.map((id) => ioiLab.engine.tokenizer.decode(id))") == [
        tokenizer.decode([i]) for i in ids
    ]


def test_two_hundred_interventions_are_those_of_pytorch(tab, bench):
    """Every head by itself, and 56 drawn ones of all kinds: logits within .03,
    the same heads on top."""
    places = [
        (layer, head)
        for layer in range(bench.n_layers)
        for head in range(bench.n_heads)
    ]
    rng = random.Random(1)
    asked = [Intervention(SINGLE, heads=[place], at=[14]) for place in places]
    asked += [drawn(bench, rng, how) for how in HOWS for _ in range(14)]
    assert len(asked) == 200
    states = f"[{','.join(map(as_json, asked))}]"
    read = (
        "[[...view.logits], view.diff, view.words, [...view.pattern(9, 9, true)], "
        "view.top[0][0]]"
    )
    found, moved = tab.value(f"({EACH})({states}, (view) => {read})"), [[], []]
    furthest = 0.0
    for what, (logits, diff, words, pattern, top) in zip(asked, found, strict=True):
        result = intervene(bench, what)
        off = (torch.tensor(logits) - result.after).abs().max().item()
        furthest = max(furthest, off)
        assert off < 0.03, what
        assert diff == pytest.approx([result.diff_before, result.diff_after], abs=0.03)
        assert words == list(result.reading.words)
        assert torch.tensor(pattern) == pytest.approx(
            result.pattern_after[9, 9].flatten(), abs=0.01
        )
        two = result.after.topk(2).values
        assert top == result.top(1).token[0] or two[0] - two[1] < 0.03
        moved[0].append(diff[1] - diff[0])
        moved[1].append(result.diff_after - result.diff_before)
    order = [sorted(range(144), key=lambda i: -abs(each[i]))[:10] for each in moved]
    assert order[0] == order[1], "the ten heads that move the difference most"
    print(f"largest difference of a logit: {furthest:.4f}")


def test_times_and_sizes(tab, page):
    """The first answer within 3 s, an intervention within 150 ms: time
    of the page's own thread.

    It is what the reader waits for on a machine that does nothing else; a clock would
    measure the other tests, too.
    """
    first = thread_time(tab)
    assert tab.loaded < 3, "seconds until the first answer"
    states = [
        Intervention(SINGLE, heads=[(layer, head)], how="zero")
        for layer in range(2, 12)
        for head in (0, 5, 9)
    ]
    times = tab.value(
        f"({EACH})([{','.join(map(as_json, states))}], (view, time) => time)"
    )
    each = 1000 * (thread_time(tab) - first) / len(times)
    clock = statistics.median(times)
    print(
        f"first answer {tab.loaded:.2f} s, intervention {each:.0f} ms; by the clock "
        f"{clock:.0f} ms"
    )
    assert each < 150
    assert (page.parent / "lab" / "synthetic.js").stat().st_size < lab_page.LARGEST
    assert page.stat().st_size < 200_000


def test_notes_and_errors_are_those_of_python(fresh, bench):
    longer = SINGLE.replace("the shops", "the small shops")
    heads = [(1, 1)]
    for what in (
        Intervention("  "),
        Intervention("and " * 300),
        Intervention(SINGLE, heads=heads, how="other"),
        Intervention(SINGLE, longer, stream=heads),
        Intervention("They went", heads=heads, how="mean"),
        Intervention("Mary " * 120 + " to", heads=heads, how="mean"),
    ):
        with pytest.raises(ValueError) as expected:
            intervene(bench, what)
        found = fresh.value(
            f"ioiLab.engine.run({as_json(what)}).then(() => '', (error) => "
            "error.message)"
        )
        assert found == str(expected.value)
    for text in (
        "Zoltan met Mary and John near the zebra ",
        "They went to the",
        SINGLE,
    ):
        reading = bench.read(text)
        found = fresh.value(f"ioiLab.engine.read({json.dumps(text)})")
        assert (found["notes"], found["pos"]) == (list(reading.notes), reading.pos)
        assert found["answers"] == (reading.answers and list(reading.answers))


def test_mouse_keyboard_undo_and_share(fresh, bench):
    cell = "[role=gridcell][aria-label^=L9H9]"
    fresh.click(cell)
    fresh.until(READY)
    shown = [
        float(x.replace("−", "-")) for x in fresh.text(".diff strong").split(" → ")
    ]
    expected = intervene(bench, Intervention(SINGLE, heads=[(9, 9)]))
    assert shown == pytest.approx([expected.diff_before, expected.diff_after], abs=0.03)
    assert (
        "Where L9H9 looks" in fresh.text(".result h3")
        and fresh.text(".result").count("“Mary”") >= 1
    )
    for _ in range(3):
        fresh.press("ArrowLeft", 37)
    assert fresh.value("document.activeElement.getAttribute('aria-label')").startswith(
        "L9H6"
    )
    fresh.enter()
    fresh.until(READY)
    assert fresh.value("ioiLab.state.heads") == [[9, 6], [9, 9]]
    address = fresh.value("location.href")
    assert shared(address) == Intervention(
        SINGLE, SINGLE.replace("John gave", "Mary gave"), [(9, 6), (9, 9)]
    )
    fresh.button("Undo")
    fresh.until(READY)
    assert fresh.value("ioiLab.state.heads") == [[9, 9]]
    fresh.button("Reset")
    fresh.until(READY)
    assert (
        fresh.value("ioiLab.state.heads") == []
        and fresh.count("[aria-selected=true].cell") == 0
    )
    fresh.value(f"location.hash = {json.dumps(address.partition('#')[2])}")
    fresh.until("ioiLab.state.heads.length === 2")


def test_the_stream_is_patched_by_cell(fresh, bench):
    fresh.button("Residual stream")
    fresh.value(
        "document.querySelectorAll('.grid.stream .cell')[3 * 15 + 10].dataset.wanted "
        "= ''"
    )  # layer 3, S2
    fresh.click("[data-wanted]")
    fresh.until(READY)
    assert fresh.value("ioiLab.state.stream") == [[3, 10]]
    expected = intervene(
        bench,
        Intervention(
            SINGLE, SINGLE.replace("John gave", "Mary gave"), stream=[(3, 10)]
        ),
    )
    assert expected.diff_after < 0
    assert fresh.value("ioiLab.view.diff[1]") == pytest.approx(
        expected.diff_after, abs=0.03
    )
    fresh.button("Heads")


def write(tab, selector, text):
    """Put a text into a field, and leave it."""
    field = f"document.querySelector({json.dumps(selector)})"
    tab.value(
        f"{field}.value = {json.dumps(text)}, {field}.dispatchEvent(new "
        "Event('change'))"
    )
    tab.until(READY)


def test_texts_of_ones_own(fresh):
    write(fresh, "input[type=text]", "When Tom and Zelda saw the zebra, Tom spoke to")
    assert "“zebra”" in fresh.text(".notes") and "no logit difference" in fresh.text(
        ".notes"
    )
    write(fresh, "input[type=text]", " ")
    assert "The prompt is empty" in fresh.text("[role=alert]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_nothing(fresh, axe, width, scheme):  # noqa: F811
    fresh.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )
    fresh.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    fresh.value(f"{axe.read_text(encoding='utf-8')}\n0")
    fresh.click("[role=gridcell][aria-label^=L9H9]")
    fresh.until(READY)
    rules = "all.violations.map((rule) => [rule.id, rule.nodes[0].html.slice(0, 200)])"
    look = f"axe.run(document).then((all) => {rules})"
    for tab in ("Heads", "Residual stream"):
        fresh.button(tab)
        assert fresh.value(look) == [], tab
    fresh.button("Heads")
    assert fresh.value(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    fresh.call(
        "Emulation.setDeviceMetricsOverride",
        width=1366,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )


# Tours


def go(tab, tour):
    tab.value(f"ioiLab.startTour({json.dumps(tour)})")
    tab.until(READY)


def choose(tab, kind):
    """Choose a whole class by its button in the legend."""
    found = f"find((e) => e.textContent.startsWith({json.dumps(kind + ' (')}))"
    tab.value(f"[...document.querySelectorAll('.legend button')].{found}.click()")
    tab.until(READY)


def look_at(tab, name):
    tab.value(
        f"document.querySelector('[role=gridcell][aria-label^=\"{name}\"]').focus()"
    )


def done(tab):
    return tab.count(".tours .done") == 1


def test_tour_of_the_writer(fresh):
    go(fresh, "writer")
    assert not done(fresh)
    look_at(fresh, "L0H3")
    assert not done(fresh)
    look_at(fresh, "L9H9")
    assert done(fresh)
    fresh.button("Next")
    look_at(fresh, "L9H9")
    fresh.value("document.activeElement.click()")
    fresh.until("document.querySelectorAll('.tours .done').length === 1")
    fresh.button("Next")
    choose(fresh, "name mover")
    assert done(fresh)
    fresh.button("Next")
    assert "→" in fresh.text(".tours .said")
    fresh.button("Finish")
    assert fresh.count(".tours li") == 5


def test_tour_of_the_backups(fresh):
    go(fresh, "backups")
    before = fresh.value("ioiLab.view.diff")
    assert before[1] > 0, "the backups hold the answer"
    fresh.button("Next")
    look_at(fresh, "L10H10")
    assert done(fresh)
    fresh.button("Next")
    assert not done(fresh)
    choose(fresh, "backup name mover")
    assert done(fresh) and fresh.value("ioiLab.view.diff[1]") < before[1]


def test_tour_of_inhibition(fresh):
    go(fresh, "inhibition")
    look_at(fresh, "L8H6")
    assert done(fresh)
    fresh.button("Next")
    choose(fresh, "S-inhibition")
    assert not done(fresh)
    fresh.value("document.querySelector('input[value=other]').click()")
    fresh.until("document.querySelectorAll('.tours .done').length === 1")
    assert fresh.value("ioiLab.view.diff[1] < 0.5 * ioiLab.view.diff[0]")


def test_tour_of_the_distractor(fresh):
    go(fresh, "distractor")
    with_clause = fresh.value("ioiLab.view.diff[0]")
    fresh.button("Next")
    write(fresh, "select", "0")
    fresh.until("document.querySelectorAll('.tours .done').length === 1")
    assert fresh.value("ioiLab.view.diff[0]") > with_clause


def test_game_of_the_smallest_circuit(fresh):
    go(fresh, "smallest")
    assert not done(fresh) and "0 heads" in fresh.text(".tours .score")
    for kind in (
        "name mover",
        "S-inhibition",
        "induction",
        "duplicate token",
        "previous token",
        "backup name mover",
    ):
        choose(fresh, kind)
    assert done(fresh), fresh.text(".tours")
    assert fresh.text(".tours .score").startswith("24 heads")


def test_console_is_silent(tab):
    complaints = [
        each
        for each in tab.complaints()
        if not str(each).startswith(("file:", "blob:", "data:"))
    ]
    assert complaints == []


# Where it cannot run


@pytest.mark.parametrize(
    "broken, sentence",
    [
        ("delete globalThis.WebAssembly", "no WebAssembly"),
        ("delete globalThis.DecompressionStream", "too old to unpack"),
        ("", "lab/gone.js did not arrive"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(page, tmp_path, broken, sentence):
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    (tmp_path / "lab").symlink_to(page.parent / "lab")
    copy = tmp_path / "lab.html"
    text = page.read_text(encoding="utf-8").replace(
        "<style>", f"<script>{broken}</script><style>", 1
    )
    text = text if broken else text.replace("lab/synthetic.js", "lab/gone.js")
    copy.write_text(text, encoding="utf-8")
    browser = Tab(tmp_path / "profile")
    try:
        browser.open(copy).until("!!document.querySelector('[role=alert]')", 30)
        said = browser.text("[role=alert]")
        assert sentence in said and "The lab cannot run here" in said
        assert (
            browser.value(
                "document.querySelector('[role=alert] a').getAttribute('href')"
            )
            == "circuit.html"
        )
    finally:
        browser.close()


def test_commands_errors(tmp_path, monkeypatch):
    for arguments, message in [
        (["--model", "synthetc"], "synthetic"),
        (["--out", str(tmp_path)], "is a folder"),
        (["--out", str(tmp_path / "none" / "a.html")], "no folder"),
    ]:
        result = runner.invoke(cli.app, ["lab-page", *arguments])
        assert result.exit_code == 2 and message in result.output, result.output
    monkeypatch.setattr(lab_page.shutil, "which", lambda name: None)
    with pytest.raises(CourseError, match="npm is not installed.*put ort.wasm"):
        lab_page.runtime(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(CourseError, match=r"pip install 'ioi_course\[page\]'"):
        lab_model.the_onnx()
