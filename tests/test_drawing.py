"""Edges that a reader draws: against a pass written out, against the answer key, and
the board in Chromium."""

import json

import pytest
import torch
from tabs import Tab
from test_accessibility import axe  # noqa: F401
from test_circuit_page import CHROMIUM
from test_edges import by_hand

from ioi_course.attribution import direct_attribution
from ioi_course.bundled.answer_key import CIRCUIT, SHARES
from ioi_course.checks.core import random_data, random_model
from ioi_course.drawing import (
    Drawing,
    NoEdge,
    _Board,
    answers_of,
    board_css,
    board_of,
    check_edge,
    edge_table,
    possible_edges,
)
from ioi_course.edges import head_edges
from ioi_course.lab import front_end
from ioi_course.means import reference_means
from ioi_course.metrics import logit_diff
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit, Edge

pytestmark = pytest.mark.usefixtures("no_grad")
PROMPTS = 8


@pytest.fixture(scope="module")
def small():
    """A random model, prompts, and classes made up for it: one head low, two in
    the middle, two on top."""
    model = random_model()
    top, n_heads = model.cfg.n_layers - 1, model.cfg.n_heads
    roles = {"low": ((0, 1),), "middle": ((0, 0), (1, 1)), "top": ((top, 0), (top, 1))}
    edges = [Edge("low", "top", "q"), Edge("top", "logits", "residual")]
    circuit = Circuit(
        roles, dict.fromkeys(roles, "END"), edges, "random", "made up", top + 1, n_heads
    )
    return model, random_data(model, 4), circuit


@pytest.fixture(scope="module")
def table(model):
    """Every edge of the synthetic model, measured once for this file."""
    with torch.no_grad():
        return edge_table(model, IOIDataset(model, PROMPTS, seed=1), CIRCUIT).set_index(
            ["sender", "receiver", "via"]
        )


# Against other computations


WRITTEN_OUT = [
    ("low", "top", "q"),
    ("middle", "top", "k"),
    ("middle", "middle", "v"),
    ("top", "logits", "residual"),
]


@pytest.mark.parametrize("edge", WRITTEN_OUT)
def test_an_edge_is_what_a_forward_pass_written_out_says(small, edge):
    model, data, circuit = small
    means = reference_means(model, data)
    answer = check_edge(model, data, circuit, *edge)
    expected = by_hand(model, data, set(head_edges(circuit, [Edge(*edge)])), means)
    before = logit_diff(model(data.tokens), data, per_prompt=True)
    assert torch.allclose(answer.after, expected, atol=1e-6) and torch.allclose(
        answer.before, before, atol=1e-6
    )
    change = (expected - before).double()
    assert answer.effect == pytest.approx(change.mean().item(), abs=1e-6)
    assert answer.error == pytest.approx(
        (change.var() / len(change)).sqrt().item(), abs=1e-6
    )
    sure = (
        abs(answer.effect) >= 4 * answer.error
        and abs(answer.effect) >= 0.02 * before.mean().abs()
    )
    assert answer.counts == bool(sure) and answer.known == (
        Edge(*edge) in circuit.edges
    )
    assert answer.share == pytest.approx(
        1 - expected.mean().item() / before.mean().item(), abs=1e-4
    )


def test_means_that_are_given_are_used(small):
    model, data, circuit = small
    zeros = [torch.zeros_like(mean) for mean in reference_means(model, data)]
    expected = by_hand(
        model, data, set(head_edges(circuit, [Edge("middle", "top", "v")])), zeros
    )
    assert torch.allclose(
        check_edge(model, data, circuit, "middle", "top", "v", zeros).after,
        expected,
        atol=1e-6,
    )


# Against the answer key


def test_edges_outside_the_answer_key_do_not_count(model, table):
    """But for one, which acts through the final LayerNorm alone: these heads write
    nothing that the logits read."""
    outside = table[~table["in the circuit"]]
    assert len(outside) == len(table) - len(CIRCUIT.edges) > 70
    counted = outside[outside["counts"]]
    assert [*counted.index] == [("S-inhibition", "logits", "residual")] and (
        counted["share"].abs() < 0.05
    ).all()
    with_the_scale_held = direct_attribution(
        model, IOIDataset(model, PROMPTS, seed=1), "head"
    ).values
    assert (
        max(
            with_the_scale_held[:, layer, head].abs().max()
            for layer, head in CIRCUIT.roles["S-inhibition"]
        )
        < 1e-3
    )
    assert set(outside["verdict"]) == {"refuted", "one more"}


def test_edges_of_the_answer_key_count_or_are_explained(model):
    """What does not count alone is what early classes say to the movers' keys: two say
    it, to three classes."""
    board = _Board(model, IOIDataset(model, 24, seed=1), CIRCUIT)
    board.ask(CIRCUIT.edges)
    assert {answer.verdict for answer in board.asked.values()} == {"holds", "silent"}
    silent = [edge for edge, answer in board.asked.items() if not answer.counts]
    keys = {
        Edge(early, mover, "k")
        for early in ("duplicate token", "induction")
        for mover in CIRCUIT.roles
    }
    assert 0 < len(silent) < 5 and set(silent) < keys
    for edge in silent:
        said, answer = repr(board.asked[edge]), board.asked[edge]
        assert (
            "by itself the edge does not count. The circuit has it all the same "
            "(written into its weights)"
        ) in said
        assert (
            "less than 2 % of the difference" in said
            and abs(answer.effect) < 0.02 * answer.rule.total
        )
    for edge, answer in board.asked.items():
        assert answer.share == pytest.approx(SHARES[edge], abs=2e-3), edge


def test_a_wrong_edge_is_answered_with_its_experiment(model):
    answer = check_edge(
        model, IOIDataset(model, 6), CIRCUIT, "previous token", "logits"
    )
    before, after = (f"{x.mean().item():.2f}" for x in (answer.before, answer.after))
    said = (
        "Every message from the previous token heads to the logits was replaced by its "
        f"ABC mean; the logit difference went from {before} to {after} ("
    )
    assert repr(answer).startswith(said) and "6 prompts" in repr(answer)
    assert repr(answer).endswith(
        "of the difference: nothing that counts travels along this edge."
    )


def test_an_edge_that_works_against_the_answer_says_so(model):
    answer = check_edge(
        model, IOIDataset(model, 6), CIRCUIT, "name mover", "backup name mover", "q"
    )
    assert answer.verdict == "holds" and answer.share < 0
    assert repr(answer).endswith(
        "The edge counts, and the circuit has it; without it the difference is larger."
    )


def test_one_more_edge_than_the_circuit_has(model):
    """The published way of drawing it lacks the edge: it counts all the same."""
    fewer = Circuit(
        CIRCUIT.roles, CIRCUIT.positions, CIRCUIT.edges[:1], "synthetic", "one edge"
    )
    answer = check_edge(model, IOIDataset(model, 6), fewer, "name mover", "logits")
    assert answer.verdict == "one more" and repr(answer).endswith(
        "The edge counts, and the circuit does not have it."
    )


# What can be, and what cannot


def test_possible_edges_are_those_with_a_sender_below(small):
    *_, circuit = small
    pairs = {("low", "middle"), ("low", "top"), ("middle", "middle"), ("middle", "top")}
    logits = {Edge(role, "logits", "residual") for role in circuit.roles}
    assert (
        set(possible_edges(circuit))
        == {Edge(*pair, via) for pair in pairs for via in "qkv"} | logits
    )


@pytest.mark.parametrize(
    ("edge", "says"),
    [
        (
            ("name movers", "logits", "residual"),
            "sender 'name movers' is no class .* did you mean 'name mover'",
        ),
        (
            ("name mover", "x", "q"),
            "receiver 'x' is no class .* give one of previous token, .*, logits",
        ),
        (("logits", "name mover", "q"), "Make them the receiver"),
        (("name mover", "logits", "q"), "give 'residual'"),
        (
            ("S-inhibition", "name mover", "residual"),
            "give 'q', 'k' or 'v', the input of the name mover heads",
        ),
        (
            ("S-inhibition", "induction", "q"),
            "layers 7 and 8, the induction heads in layers 5 and 6.*other way round",
        ),
        (("induction", "duplicate token", "q"), "There is no such edge"),
    ],
)
def test_what_is_no_edge_is_refused(model, edge, says):
    with pytest.raises(ValueError, match=says):
        check_edge(model, IOIDataset(model, 2), CIRCUIT, *edge)


def test_wrong_input(model):
    with pytest.raises(ValueError, match="two prompts or more"):
        check_edge(model, IOIDataset(model, 1), CIRCUIT, "name mover", "logits")
    with pytest.raises(ValueError, match="two prompts or more"):
        Drawing(model, ["When John and Mary"])
    with pytest.raises(ValueError, match="No circuit of tiny is known"):
        Drawing(load_model("tiny"), IOIDataset(model, 2))
    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda value, hook: value)]):
        with pytest.raises(
            ValueError, match="Edges of synthetic cannot be tried: 1 hooks"
        ):
            Drawing(model, IOIDataset(model, 2))


# The board in a browser

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>drawing</title><style>:root { color-scheme: light dark; }
body { margin: .5rem; } %s</style></head>
<body><main><h1>Draw</h1><h2>The circuit</h2><div id="el"></div></main>
<script type="module">
%s
globalThis.outbox = [], globalThis.silent = %s;
const ears = {};
globalThis.wire = {
  values: { info: %s, drawn: %s },
  get: (name) => wire.values[name],
  set: (name, value) => {
    wire.values[name] = value;
    if (ears["change:drawn"]) ears["change:drawn"]();
  },
  save_changes: () => outbox.push({ drawn: wire.values.drawn }),
  send: (message) => {
    if (silent) throw new Error("the comm is closed");
    outbox.push({ message });
  },
  on: (name, f) => { ears[name] = f; }, off: (name) => { delete ears[name]; },
  deliver: (content) => ears["msg:custom"](content, []),
};
globalThis.leave = widget.render({ model: wire, el: document.getElementById("el") });
</script></body></html>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the board was not tried "
            "in a browser"
        )
    made = Tab(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture
def drawing(small):
    model, data, circuit = small
    return Drawing(model, data, circuit)


def page_of(drawing, folder, silent=False):
    script = front_end("dom", "draw", "draw_widget").replace(
        "export default", "const widget ="
    )
    parts = (
        json.dumps(each).replace("<", "\\u003c")
        for each in (silent, drawing.info, drawing.drawn)
    )
    path = folder / "drawing.html"
    path.write_text(PAGE % (board_css(), script, *parts), encoding="utf-8")
    return path


def carry(tab, drawing):
    """Carry what waits on the wire to the kernel's side, and the answers back, until
    nothing is under way."""
    drawing.send = lambda content, buffers=None: tab.value(
        f"wire.deliver({json.dumps(content)})"
    )
    tab.until("outbox.length > 0 || !document.querySelector('[aria-busy]')")
    while waiting := tab.value("outbox.splice(0)"):
        for each in waiting:
            if "drawn" in each:
                drawing.drawn = each["drawn"]
            else:
                drawing._asked(drawing, each["message"], [])
        tab.until("outbox.length > 0 || !document.querySelector('[aria-busy]')")


def choose(tab, sender, receiver, via=None):
    """With the mouse: the box that sends, the box that hears, the
    input, and the button."""
    names = tab.value(
        "[...document.querySelectorAll('.class b')].map((e) => e.textContent)"
    )
    for name in (sender, receiver):
        tab.click(f".class:nth-child({names.index(name) + 1})")
    if via:
        tab.click(f"input[value={via}] + span")
    tab.button("Draw the edge")


def test_with_the_mouse(browser, drawing, tmp_path):
    """An edge that is drawn is measured, and comes back as Python; one that cannot be
    is answered too; and undone."""
    browser.open(page_of(drawing, tmp_path))
    choose(browser, "middle", "top", "k")
    carry(browser, drawing)
    edge = Edge("middle", "top", "k")
    assert drawing.edges == (edge,) and repr(drawing.answers[edge]) in browser.text(
        "[role=status]"
    )
    choose(browser, "top", "low", "q")
    carry(browser, drawing)
    assert "There is no such edge" in browser.text(
        "[role=status]"
    ) and "Cannot be" in browser.text(".list li")
    choose(browser, "top", "logits")
    carry(browser, drawing)
    assert "1 of 2 edges of the circuit found" in browser.text(".count")
    assert (
        browser.count("path.way[data-edge='top → logits']") == 1
        and browser.count(".list li") == 3
    )
    assert [*drawing.answers] == [edge, Edge("top", "logits", "residual")] and len(
        drawing.edges
    ) == 3
    choose(browser, "top", "logits")
    assert "already" in browser.text("[role=status]")
    browser.button("Undo")
    carry(browser, drawing)
    assert len(drawing.edges) == 2 and browser.count(".list li") == 2
    browser.button("Show the rest")
    carry(browser, drawing)
    assert (
        "0 of 2 edges of the circuit found; 2 shown" in browser.text(".count")
        and len(drawing.edges) == 2
    )
    browser.button("Reset")
    carry(browser, drawing)
    assert drawing.edges == () and browser.count(".list li") == 0
    assert not browser.complaints()


def test_with_the_keyboard_alone(browser, drawing, tmp_path):
    browser.open(page_of(drawing, tmp_path))
    browser.value("document.querySelector('select').focus()")
    tab, down, right = ("Tab", 9), ("ArrowDown", 40), ("ArrowRight", 39)
    for key, code in (down, tab, down, tab, right, right, tab):
        browser.press(key, code)
    assert browser.value("document.activeElement.textContent") == "Draw the edge"
    browser.enter()
    carry(browser, drawing)
    assert drawing.edges == (Edge("middle", "top", "v"),)
    assert browser.value("document.activeElement.textContent") == "Draw the edge", (
        "the focus stays"
    )
    assert not browser.complaints()


def test_what_python_draws_is_shown(browser, drawing, tmp_path):
    drawing.edges = [("low", "top", "q"), ("top", "logits", "residual")]
    browser.open(page_of(drawing, tmp_path))
    carry(browser, drawing)
    assert "2 of 2 edges" in browser.text(".count")
    browser.value("wire.set('drawn', [['low', 'top', 'q']])")
    carry(browser, drawing)
    assert "1 of 2 edges" in browser.text(".count")
    browser.value("leave()")
    assert browser.value(
        "(() => { try { wire.deliver({ id: 1 }); return false; } catch { return true; "
        "} })()"
    )


def test_a_kernel_that_fails_or_is_silent(browser, drawing, tmp_path, monkeypatch):
    def refuse(self, *edge):
        raise RuntimeError("out of memory")

    browser.open(page_of(drawing, tmp_path))
    monkeypatch.setattr("ioi_course.drawing._Board.answer", refuse)
    choose(browser, "low", "top")
    carry(browser, drawing)
    assert (
        "RuntimeError: out of memory" in browser.text("[role=alert]")
        and drawing.edges == ()
    )
    browser.open(page_of(drawing, tmp_path, silent=True))
    choose(browser, "low", "top")
    assert "run the cell that made the drawing again" in browser.text("[role=alert]")


VIOLATIONS = """axe.run(document, { resultTypes: ["violations"] }).then(
  (r) => r.violations.map(
    (v) => `${v.id} ${v.nodes.slice(0, 3).map((n) => n.html)}`))"""


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, False), (390, True)])
def test_narrow_wide_light_dark_and_axe(browser, drawing, tmp_path, axe, width, dark):  # noqa: F811
    drawing.edges = [*possible_edges(drawing.board.circuit), Edge("top", "low", "k")]
    browser.open(page_of(drawing, tmp_path), width=width, dark=dark)
    carry(browser, drawing)
    assert browser.value("document.documentElement.scrollWidth") <= width
    tops = (
        "[...document.querySelectorAll('.side')].map((e) => "
        "Math.round(e.getBoundingClientRect().top))"
    )
    sides = browser.value(tops)
    assert (sides[0] == sides[1]) == (width == 1400)
    browser.value(axe.read_text(encoding="utf-8") + "; 0")
    assert browser.value(VIOLATIONS) == []
    assert not browser.complaints()


def test_every_answer_of_a_page(small):
    model, data, circuit = small
    page, board = answers_of(model, data, circuit), board_of(circuit)
    assert [tuple(each["edge"]) for each in page["answers"]] == [
        *possible_edges(circuit)
    ]
    ends = [
        (a["name"], b) for a in board["classes"] for b in (*circuit.roles, "logits")
    ]
    never = {tuple(each["edge"]) for each in page["never"]}
    assert never == set(ends) - {edge[:2] for edge in possible_edges(circuit)}
    one = next(each for each in page["answers"] if each["edge"] == ["low", "top", "q"])
    answer = check_edge(model, data, circuit, "low", "top", "q")
    assert one["says"] == repr(answer) and one["verdict"] == answer.verdict
    with pytest.raises(NoEdge):
        check_edge(model, data, circuit, *page["never"][0]["edge"], "q")
