"""The site's first screen: the model's answer, and a button that takes out the
heads that write it, live."""

import json
import re
import shutil

import pytest
from quarto import render
from tabs import Tab
from test_accessibility import NARROW, WIDE, axe  # noqa: F401
from test_circuit_page import CHROMIUM
from test_lab_page import page  # noqa: F401

from ioi_course.bundled.answer_key import known_circuit
from ioi_course.interventions import Bench, Intervention, intervene, shared
from ioi_course.publish import lab_page
from ioi_course.publish.landing import opening

pytestmark = pytest.mark.usefixtures("no_grad")
IDLE = "!document.querySelector('#ioi-lab[aria-busy]')"
ROWS = (
    "[...document.querySelectorAll('#ioi-lab tbody tr')].map((row) => "
    "row.innerText.split(/\\s+/).slice(0, 2))"
)
BUTTON = "#ioi-lab button"
ORDER = ("name mover", "backup name mover")


@pytest.fixture(scope="module")
def site(staged, page, tmp_path_factory):  # noqa: F811
    """The first page in a mock-up of Quarto's frame, light and dark,
    with the lab beside it."""
    folder = tmp_path_factory.mktemp("site")
    for scheme in ("light", "dark"):
        shutil.copy2(render(staged, "index.ipynb", scheme), folder / f"{scheme}.html")
    for each in staged.iterdir():
        if each.name != "lab":
            (folder / each.name).symlink_to(each)
    shutil.copytree(page.parent / "lab", folder / "lab")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the first screen was not "
            "tried in a browser"
        )
    tab = Tab(tmp_path_factory.mktemp("browser"))
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def expected(model):
    """What the library says of the sentence: as it is, without the name movers,
    without their backups, too."""
    roles, found = known_circuit(model).roles, []
    for heads in (
        [],
        roles[ORDER[0]],
        [head for kind in ORDER for head in roles[kind]],
    ):
        result = intervene(
            Bench(model),
            Intervention(lab_page.SENTENCE, heads=sorted(heads), how="zero"),
        )
        found.append((result.top(1).iloc[0], result.diff_after))
    return found


def step(browser, keyboard=False):
    """Press the button, and wait for what the model says then."""
    if keyboard:
        browser.value(f"document.querySelector('{BUTTON}').focus()")
        browser.enter()
    else:
        browser.click(BUTTON)
    browser.until(IDLE, 120)
    return (
        dict(browser.value(ROWS)),
        browser.text("#ioi-lab [role=status]"),
        browser.text(BUTTON),
    )


def wrong(browser) -> list:
    """What the console has of scripts and of the lab; a mock-up lacks the pictures
    of the chapters' cards."""
    said = [each for each in browser.complaints() if isinstance(each, dict)]
    return [
        each
        for each in said
        if each["method"] != "Log.entryAdded" or "/lab/" in str(each["params"])
    ]


def test_its_sentence_is_that_of_the_page(root):
    index = json.loads((root / "nbs" / "index.ipynb").read_text(encoding="utf-8"))
    said = opening("".join(index["cells"][0]["source"]))
    assert (
        said["sentence"].rstrip(" …") == lab_page.SENTENCE and said["answer"] == "Mary"
    )


@pytest.mark.parametrize(
    ("width", "scheme", "keyboard"), [(WIDE, "light", False), (NARROW, "dark", True)]
)
def test_heads_go_and_come_back(browser, site, expected, axe, width, scheme, keyboard):  # noqa: F811
    """Live numbers are the library's, at a desk with the mouse and on a phone with the
    keyboard; above the fold."""
    browser.open(site / f"{scheme}.html", width=width, dark=scheme == "dark")
    for what in (BUTTON, ".ioi-do a"):
        bottom = f"document.querySelector('{what}').getBoundingClientRect().bottom"
        assert browser.value(bottom) < 844, f"{what} is on the first screen"
    before = browser.text("#ioi-lab [role=status]")
    assert "“Mary”" in before and f"{expected[0][1]:.2f}" in before
    assert dict(browser.value(ROWS))["Mary"] == f"{100 * expected[0][0].after:.0f}"
    for number in (1, 2, 0):
        words, said, _ = step(browser, keyboard)
        best, diff = expected[number]
        assert (
            f"“{best.token.strip()}”" in said
            and words[best.token.strip()] == f"{100 * best.after:.0f}"
        )
        shown = float(said.replace("−", "-").rstrip(".").split()[-1])
        assert shown == pytest.approx(diff, abs=0.03)
        target = browser.value(
            "document.querySelector('#ioi-lab a').getAttribute('href')"
        )
        what = shared(target)
        assert target.startswith("lab.html#") and what.prompt == lab_page.SENTENCE
        assert len(what.heads) == (0, 3, 11)[number]
        assert browser.value(
            "document.documentElement.scrollWidth <= "
            "document.documentElement.clientWidth"
        )
    assert (
        browser.value(
            "document.querySelector('#ioi-lab').getBoundingClientRect().bottom"
        )
        < 900
    )
    assert wrong(browser) == []
    step(browser, keyboard)
    browser.value(f"{axe.read_text(encoding='utf-8')}\n0")
    rules = "all.violations.map((rule) => [rule.id, rule.nodes[0].html.slice(0, 200)])"
    assert (
        browser.value(
            f"axe.run(document.querySelector('#ioi-lab')).then((all) => {rules})"
        )
        == []
    )


def test_it_is_the_model_that_answers(browser, site):
    """Nothing is fetched before the button is pressed, and what is said
    afterwards was computed then."""
    browser.open(site / "light.html", width=WIDE)
    browser.value("new Promise((done) => setTimeout(done, 300))")
    assert not [
        each
        for each in browser.complaints()
        if "runtime.js" in str(each) or "synthetic.js" in str(each)
    ]
    step(browser)
    asked = [
        each
        for each in browser.complaints()
        if re.search(r"lab/(runtime|synthetic)\.js$", str(each))
    ]
    assert len(asked) == 2


@pytest.mark.parametrize(
    "broken", ["lab is not built", "no WebAssembly", "model does not arrive"]
)
def test_where_it_cannot_run_the_picture_stays(browser, site, tmp_path, broken):
    folder = tmp_path / "site"
    shutil.copytree(site, folder, symlinks=True)
    text = (folder / "light.html").read_text(encoding="utf-8")
    if broken == "lab is not built":
        lab_page.write_without(
            folder / "lab.html", "npm is not installed", home="index.html"
        )
    elif broken == "no WebAssembly":
        without = "<head><script>delete globalThis.WebAssembly</script>"
        (folder / "light.html").write_text(
            text.replace("<head>", without), encoding="utf-8"
        )
    else:
        (folder / "lab" / "synthetic.js").unlink()
    browser.open(folder / "light.html", width=WIDE)
    assert (
        browser.value(
            "document.querySelector('.ioi-picture svg').getBoundingClientRect().height"
        )
        > 200
    )
    if broken == "model does not arrive":
        _, said, button = step(browser)
        assert "lab/synthetic.js did not arrive" in said and "head by head" in said
        link = "document.querySelector('#ioi-lab [role=status] a').getAttribute('href')"
        assert browser.value(link) == "circuit.html"
        assert button == "Take out the heads that write it"
    else:
        assert browser.value("document.querySelector('#ioi-lab').hidden")
