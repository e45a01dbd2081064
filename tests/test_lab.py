"""The lab as a widget: its messages, and the front end in Chromium at the
other end of the wire."""

import base64
import json

import pytest
from tabs import Tab
from test_circuit_page import CHROMIUM

from ioi_course.interventions import Intervention, intervene, share, shared
from ioi_course.lab import FRONT_END, Lab, front_end
from ioi_course.prompts import IOIDataset

pytestmark = pytest.mark.usefixtures("no_grad")
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>widget</title><style>%s</style></head>
<body><main><div id="el"></div></main>
<script type="module">
%s
globalThis.outbox = [], globalThis.silent = %s;
const ears = {};
const bytes = (text) =>
  new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
globalThis.wire = {
  values: { info: %s, state: %s },
  get: (name) => wire.values[name],
  set: (name, value) => { wire.values[name] = value; },
  save_changes: () => outbox.push({ state: wire.values.state }),
  send: (message) => {
    if (silent) throw new Error("the comm is closed");
    outbox.push({ message });
  },
  on: (name, f) => { ears[name] = f; }, off: (name) => { delete ears[name]; },
  deliver: (content, buffers) => ears["msg:custom"](content, buffers.map(bytes)),
  follow: (state) => { wire.values.state = state; ears["change:state"](); },
};
globalThis.leave = widget.render({ model: wire, el: document.getElementById("el") });
</script></body></html>"""


@pytest.fixture
def lab(model):
    return Lab(model, IOIDataset.demo(model))


def page_of(lab, folder, silent=False):
    script = front_end("dom", "lab", "tours", "widget").replace(
        "export default", "const widget ="
    )
    info, state = (
        json.dumps(each).replace("<", "\\u003c") for each in (lab.info, lab.state)
    )
    css = (FRONT_END / "lab.css").read_text(encoding="utf-8")
    path = folder / "widget.html"
    path.write_text(
        PAGE % (css, script, json.dumps(silent), info, state), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the widget was not tried "
            "in a browser"
        )
    made = Tab(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


def carry(tab, lab):
    """Carry what waits on the wire to the kernel's side, and the answers back, until
    nothing is under way."""
    lab.send = lambda content, buffers=(): tab.value(
        f"wire.deliver({json.dumps(content)}, "
        f"{json.dumps([base64.b64encode(b).decode() for b in buffers])})"
    )
    tab.until("outbox.length > 0 || !document.querySelector('[aria-busy]')")
    while waiting := tab.value("outbox.splice(0)"):
        for each in waiting:
            if "state" in each:
                lab.state = each["state"]
            else:
                lab._asked(lab, each["message"], [])
        tab.until("outbox.length > 0 || !document.querySelector('[aria-busy]')")


def test_widget_and_kernel_agree(browser, lab, tmp_path):
    browser.open(page_of(lab, tmp_path))
    carry(browser, lab)
    for name in ("L9H9", "L9H6"):
        browser.click(f"[role=gridcell][aria-label^={name}]")
        carry(browser, lab)
    assert lab.heads == ((9, 6), (9, 9))
    result = lab.result
    assert browser.text(
        ".diff strong"
    ) == f"{result.diff_before:.2f} → {result.diff_after:.2f}".replace("-", "−")
    assert browser.text(".sentence").startswith(lab.what.prompt)
    end = result.reading.pos["END"]
    best = int(result.pattern_after[9, 6, end].argmax())
    assert f"Most at “{result.reading.words[best].strip()}”" in browser.text(".looks")
    lab.heads = [(2, 2)]
    browser.value(f"wire.follow({json.dumps(lab.state)})")
    carry(browser, lab)
    assert browser.count(".cell[aria-selected=true]") == 1
    assert not browser.complaints()


def test_errors_of_the_kernel_are_shown(browser, lab, tmp_path):
    lab.state = {**lab.state, "prompt": " "}
    browser.open(page_of(lab, tmp_path))
    carry(browser, lab)
    assert "The prompt is empty" in browser.text("[role=alert]")


def test_without_a_kernel_it_says_so(browser, lab, tmp_path):
    browser.open(page_of(lab, tmp_path, silent=True)).until(
        "document.querySelector('[role=alert]').textContent !== ''"
    )
    assert "kernel does not answer" in browser.text("[role=alert]")


def test_leaving_takes_the_listeners_along(browser, lab, tmp_path):
    browser.open(page_of(lab, tmp_path))
    carry(browser, lab)
    browser.value("leave()")
    assert browser.value(
        "(() => { try { wire.deliver({ id: 1 }, []); return false; } catch { return "
        "true; } })()"
    )


def test_share_strings_of_both_sides(browser, lab, tmp_path):
    browser.open(page_of(lab, tmp_path))
    places = {"heads": [(9, 9), (10, 0)], "at": [3, 14], "stream": [(2, 3)]}
    odd = Intervention(
        "Mary & John, “né” = 50 % + #1?",
        "a\nb",
        only=True,
        how="mean",
        amount=-0.35,
        **places,
    )
    module = base64.b64encode(
        front_end("lab").encode() + b";globalThis.both = { share, shared };"
    ).decode()
    for what in (odd, Intervention("x")):
        address = f"data:text/javascript;base64,{module}"
        text = browser.value(
            f"import({json.dumps(address)}).then(() => "
            f"both.share({json.dumps(vars(what))}))"
        )
        assert shared(text) == what
        assert browser.value(f"both.shared({json.dumps(share(what))})") == json.loads(
            json.dumps(vars(what))
        )


def test_what_was_chosen_is_python(lab):
    lab.what = Intervention(
        lab.what.prompt, lab.what.other, heads=[(9, 9)], how="other", amount=0.5
    )
    assert (
        lab.heads == ((9, 9),)
        and lab.result.diff_after == intervene(lab.bench, lab.what).diff_after
    )
    assert repr(lab).startswith("Lab on synthetic: p=When%20")
    lab.heads = ()
    assert lab.result.diff_after == pytest.approx(lab.result.diff_before)


def test_wrong_input(model):
    with pytest.raises(ValueError, match="must be an IOIDataset"):
        Lab(model, ["When John and Mary"])
    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda value, hook: value)]):
        with pytest.raises(ValueError, match="The lab cannot run synthetic: 1 hooks"):
            Lab(model)


def test_an_odd_error_is_told_too(lab):
    sent = []
    lab.send = lambda content, buffers=(): sent.append(content)
    lab._asked(lab, {"id": 7, "state": {"heads": "x"}}, [])
    assert sent[0]["id"] == 7 and "Error" in sent[0]["error"]
