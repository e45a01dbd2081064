"""The circuit's page: its numbers against direct computations, the page as HTML, and
what a browser makes of it."""

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.ablation import ablate
from ioi_course.bundled.answer_key import CIRCUIT
from ioi_course.circuit import nodes, run_without
from ioi_course.drawing import check_edge, possible_edges
from ioi_course.finder_rules import RULES
from ioi_course.heads import head_scores
from ioi_course.interventions import Bench, Intervention, intervene, shared
from ioi_course.movers import copy_scores
from ioi_course.plots import circuit_diagram
from ioi_course.prompts import IOIDataset
from ioi_course.publish import (
    circuit_drawing,
    circuit_page,
    drawn_edges,
    site_command,
    switched_off,
    welcome,
)
from ioi_course.roles import PAPER, Edge
from ioi_course.walkback import POSITIONS

HEADS = [(2, 2), (3, 0), (5, 5), (8, 6), (9, 9), (10, 7), (11, 2)]  # one of each class
runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of the synthetic model, as the command writes it."""
    path = tmp_path_factory.mktemp("page") / "circuit.html"
    result = runner.invoke(
        cli.app, ["circuit-page", "--model", "synthetic", "--out", str(path)]
    )
    assert result.exit_code == 0, result.output
    assert str(path) in result.output.replace("\n", "")
    return path


@pytest.fixture(scope="module")
def data(page):
    """What the page holds."""
    return json.loads(
        re.search(
            r'<script type="application/json" id="data">(.*?)</script>',
            page.read_text(),
            re.S,
        )[1]
    )


@pytest.fixture(scope="module")
def prompts(model):
    return circuit_page.page_prompts(model)


def of_head(data, layer, head):
    return next(each for each in data["heads"] if each["name"] == f"L{layer}H{head}")


# The numbers


def test_prompts_are_those_of_the_page(data, prompts):
    assert [prompt["text"] for prompt in data["prompts"]] == prompts.prompts
    assert len(set(prompts.prompts)) == 8 and prompts.prompts[0].startswith(
        "When John and Mary went to the shops"
    )
    for i, prompt in enumerate(data["prompts"]):
        assert prompt["tokens"] == prompts.str_tokens(i)
        assert prompt["tokens"][prompt["pos"]["IO"]] == f" {prompt['IO']}"
        assert (
            prompt["tokens"][prompt["pos"]["S2"]] == f" {prompt['S']}"
            and prompt["pos"]["END"] == len(prompt["tokens"]) - 1
        )


@pytest.mark.parametrize("i", [0, 3, 7])
def test_attention_and_direct_effects_are_those_of_one_plain_run(
    model, data, prompts, i
):
    """Each prompt alone, without padding, with nothing but the cache."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(
            prompts.tokens[i : i + 1, : prompts.lengths[i]]
        )
    io, s = prompts.answers[i]
    direction = (model.W_U[:, io] - model.W_U[:, s]) * model.ln_final.w
    direction = (direction - direction.mean()) / cache["ln_final.hook_scale"][0, -1]
    assert data["prompts"][i]["diff"] == pytest.approx(
        (logits[0, -1, io] - logits[0, -1, s]).item(), abs=6e-4
    )
    assert data["prompts"][i]["prob"] == pytest.approx(
        logits[0, -1].softmax(-1)[io].item(), abs=6e-4
    )
    pos = {role: int(prompts.pos[role][i]) for role in prompts.pos}
    for layer, head in HEADS:
        view = of_head(data, layer, head)["views"][i]
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, head]
        stored = torch.tensor(view["pattern"]) / 1000
        assert torch.allclose(
            stored.to(pattern),
            pattern[tuple(torch.tril_indices(*pattern.shape))],
            atol=6e-4,
        )
        for query, row in zip(data["queries"], view["roles"], strict=True):
            seen = pattern[pos[query]]
            at = [0, *(pos[key] for key in data["keys"][1:-1])]
            assert row == pytest.approx(
                [*seen[at].tolist(), 1 - seen[at].sum().item()], abs=6e-4
            )
        wrote = (
            cache[f"blocks.{layer}.attn.hook_z"][0, -1, head] @ model.W_O[layer, head]
        )
        assert view["direct"] == pytest.approx((wrote @ direction).item(), abs=6e-4)


@pytest.mark.parametrize("head", [(2, 2), (8, 6), (9, 9), (10, 7)])
def test_ablations_are_those_of_the_library(model, data, prompts, head):
    shown = of_head(data, *head)
    direct = ablate(
        model, prompts, [head], "mean", at=data["classes"][shown["class"]]["at"]
    )
    for i, view in enumerate(shown["views"]):
        assert view["ablated"] == pytest.approx(direct.after[i].item(), abs=6e-4)
        assert view["naive"] == pytest.approx(direct.naive[i].item(), abs=6e-4)
        change = direct.change[i].clone()
        change[head] = 0
        largest = change.abs().flatten().topk(len(view["others"])).values.tolist()
        assert [abs(y - x) for _, _, x, y in view["others"]] == pytest.approx(
            largest, abs=2e-3
        )
        for name, role, x, y in view["others"]:
            place = tuple(map(int, name[1:].split("H")))
            assert role == (CIRCUIT.role_of(*place) or "") and place != head
            assert x == pytest.approx(direct.direct_before[i][place].item(), abs=6e-4)
            assert y == pytest.approx(direct.direct_after[i][place].item(), abs=6e-4)


def test_scores_and_classes(model, data):
    random, copying = head_scores(model), copy_scores(model, progress=False)
    for role, heads in CIRCUIT.roles.items():
        assert [head["name"] for head in data["heads"] if head["class"] == role] == [
            f"L{i}H{j}" for i, j in heads
        ]
        assert data["classes"][role]["at"] == CIRCUIT.positions[role]
        for head in heads:
            scores = of_head(data, *head)["scores"]
            assert [*scores] == [
                "previous",
                "duplicate",
                "induction",
                "copy",
                "negative copy",
            ]
            assert scores["induction"] == pytest.approx(
                random["induction"][head].item(), abs=6e-4
            )
            assert scores["copy"] == pytest.approx(
                copying.copy()[head].item(), abs=6e-4
            )
            assert scores["negative copy"] == pytest.approx(
                copying.negative()[head].item(), abs=6e-4
            )
    assert data["classes"]["induction"]["reads"] == ["previous token (keys)"]
    assert data["classes"]["induction"]["passes"][0] == "S-inhibition (keys, values)"
    hearers = ["negative name mover (queries)", "backup name mover (queries)"]
    assert data["classes"]["name mover"]["passes"] == [*hearers, "logits"]


@pytest.mark.parametrize(
    "edge",
    [("induction", "S-inhibition", "v"), ("previous token", "logits", "residual")],
)
def test_edges_to_be_drawn_are_those_of_the_library(model, data, prompts, edge):
    """Every edge that there can be has its answer, measured on the page's prompts."""
    answers = {tuple(each["edge"]): each for each in data["drawing"]["answers"]}
    assert set(answers) == set(possible_edges(CIRCUIT))
    expected, stored = check_edge(model, prompts, CIRCUIT, *edge), answers[edge]
    assert (stored["verdict"], stored["says"]) == (expected.verdict, repr(expected))
    assert stored["effect"] == pytest.approx(expected.effect, abs=6e-3)


def test_without_an_edge_there_is_nothing_to_draw(model, data, prompts):
    assert drawn_edges.edges_of(model, replace(CIRCUIT, edges=()), prompts) is None
    page = circuit_page.render({**data, "drawing": None}, CIRCUIT)
    assert (
        "Draw the circuit" not in page
        and 'id="draw' not in page
        and not Strict(page).wrong
    )


def test_every_class_is_explained():
    # of the paper, of the walk back, of the finder
    named = {*CIRCUIT.roles, *POSITIONS, *RULES}
    assert set(circuit_page.ABOUT) == named


# The page as HTML

EMPTY = {"meta", "input", "br", "link", "img"}


class Strict(HTMLParser):
    """Reads a page and notes what is wrong with its tags; keeps the elements."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.elements, self.words = [], [], [], []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        self.wrong += [
            f"{name} twice in <{tag}>" for name in set(names) if names.count(name) > 1
        ]
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes something else")

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_valid_and_stands_alone(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    parsed = Strict(text)
    assert not parsed.wrong
    attributes = [attrs for _, attrs in parsed.elements]
    ids = [attrs["id"] for attrs in attributes if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = [
        attrs[key]
        for attrs in attributes
        for key in ("for", "aria-labelledby")
        if key in attrs
    ]
    assert named and set(named) <= set(ids)
    assert not [attrs for attrs in attributes if "src" in attrs or "srcset" in attrs]
    assert {attrs["href"] for attrs in attributes if "href" in attrs} == {
        "#panel",
        "#draw",
    }
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {
        "http://www.w3.org/2000/svg"
    }
    assert "@import" not in text and "default-src 'none'" in text
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_page_is_small_and_says_what_it_was_measured_on(page, data):
    assert page.stat().st_size < circuit_page.LARGEST / 2
    text = " ".join("".join(Strict(page.read_text()).words).split())
    assert (
        "Measured on synthetic: bundled stand-in" in text
        and "Nothing on this page was measured on GPT-2." in text
    )
    assert (
        "The circuit of synthetic: 26 heads in 7 classes, written into its weights."
        in text
    )
    assert data["synthetic"] and data["model"]["name"] == "synthetic"


def test_table_without_javascript_has_every_head(page, data):
    table = page.read_text().split("All heads in numbers")[1].split("</table>")[0]
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
    ]
    assert len(rows) == 1 + 26
    by_name = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    for layer, head in HEADS:
        row, shown = by_name[f"L{layer}H{head}"], of_head(data, layer, head)
        assert (row["class"], row["acts at"]) == (
            shown["class"],
            data["classes"][shown["class"]]["at"],
        )
        mean = sum(view["direct"] for view in shown["views"]) / 8
        lost = (
            sum(
                v["ablated"] - p["diff"]
                for v, p in zip(shown["views"], data["prompts"], strict=True)
            )
            / 8
        )
        looks = (
            sum(
                view["roles"][data["queries"].index(row["acts at"])][3 - 1]
                for view in shown["views"]
            )
            / 8
        )
        for column, value in [
            ("direct effect", mean),
            ("without it", lost),
            ("to S1", looks),
        ]:
            assert float(row[column].replace("−", "-")) == pytest.approx(
                value, abs=6e-3
            ), column
    assert (
        float(by_name["L9H9"]["direct effect"]) > 1
        and float(by_name["L9H9"]["to IO"]) > 0.5
    )


def test_a_token_cannot_break_out_of_the_data(data):
    hostile = json.loads(json.dumps(data))
    hostile["prompts"][0]["tokens"][1] = "</script><b>"
    hostile["prompts"][0]["text"] = "<i>&amp;</i>"
    parsed = Strict(circuit_page.render(hostile, CIRCUIT))
    assert not parsed.wrong and not {"b", "i"} & {
        tag for tag, attrs in parsed.elements if attrs != {}
    }
    assert [tag for tag, _ in parsed.elements].count("i") == 0


def luminance(colour):
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_light_and_dark_have_contrast(page):
    ways = {
        "alone, light": r"^\.ioi-tool \{ (color-scheme.*) \}$",
        "alone, dark": r"scheme: dark\) \{ \.ioi-tool \{ (.*) \} \}$",
        "site, light": r"^body\.quarto-light \.ioi-tool \{ (.*) \}$",
        "site, dark": r"^body\.quarto-dark \.ioi-tool \{ (.*) \}$",
    }  # fmt: skip
    text = page.read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#\w+)", re.search(way, text, re.MULTILINE)[1]))
        for way in ways.values()
    ]
    assert themes[:2] == themes[2:] and themes[0]["paper"] != themes[1]["paper"]
    for theme in themes:
        pairs = [("ink", name, 4.5) for name in ("paper", "soft", "seen", "note")]
        pairs += [
            ("dim", "paper", 4.5),
            ("dim", "soft", 4.5),
            ("link", "paper", 4.5),
            ("link", "soft", 4.5),
        ]
        for front, back, least in [
            *pairs,
            ("edge", "paper", 3),
            ("up", "paper", 3),
            ("down", "paper", 3),
        ]:
            low, high = sorted((luminance(theme[front]), luminance(theme[back])))
            assert (high + 0.05) / (low + 0.05) >= least, (front, back)


# Heads that are switched off


@pytest.mark.parametrize(
    "roles",
    [
        ("name mover",),
        ("name mover", "backup name mover"),
        ("induction", "S-inhibition"),
    ],
)
def test_classes_off_are_the_courses_knock_out(model, data, prompts, roles):
    """Each prompt's number is that of a run with hooks; the mean and its error
    are over all prompts."""
    entry = data["off"]["entries"][" + ".join(roles)]
    out = nodes(CIRCUIT, [head for role in roles for head in CIRCUIT.roles[role]])
    assert entry["after"] == pytest.approx(
        run_without(model, prompts, out).tolist(), abs=6e-4
    )
    rest = IOIDataset(model, switched_off.MORE, switched_off.SEED)
    before = torch.cat([run_without(model, some, {}) for some in (prompts, rest)])
    change = (
        torch.cat([run_without(model, some, out) for some in (prompts, rest)]) - before
    )
    assert data["off"]["n"] == len(change) == 40 and data["off"][
        "before"
    ] == pytest.approx(before.mean().item(), abs=6e-4)
    assert entry["effect"] == pytest.approx(change.mean().item(), abs=6e-4)
    assert entry["error"] == pytest.approx(change.std().item() / 40**0.5, abs=6e-4)


def test_every_head_can_be_switched_off(model, data, prompts):
    """Those of the circuit where they act, as the panel says it; others at
    END, as `ablate` says it."""
    entries, names = (
        data["off"]["entries"],
        [f"L{layer}H{head}" for layer in range(12) for head in range(12)],
    )
    assert sorted(key for key in entries if re.fullmatch(r"L\d+H\d+", key)) == sorted(
        names
    )
    for head in data["heads"]:
        assert entries[head["name"]]["after"] == pytest.approx(
            [view["ablated"] for view in head["views"]], abs=2e-3
        )
    for head in [(0, 0), (6, 3), (11, 0)]:
        direct = ablate(model, prompts, [head], "mean", at="END")
        assert entries[f"L{head[0]}H{head[1]}"]["after"] == pytest.approx(
            direct.after.tolist(), abs=6e-4
        )


def test_pairs_say_what_is_beyond_the_sum(data):
    """Movers and backups stand in for each other; induction heads only pass on what
    previous token heads wrote."""
    entries, roles = data["off"]["entries"], list(CIRCUIT.roles)
    pairs = list(itertools.combinations(roles, 2))
    assert len(entries) == len(roles) + len(pairs) + 144
    for a, b in pairs:
        each = entries[f"{a} + {b}"]
        assert each["beyond"][0] == pytest.approx(
            each["effect"] - entries[a]["effect"] - entries[b]["effect"], abs=3e-3
        )
    for pair, sign in [
        ("name mover + backup name mover", -1),
        ("previous token + induction", 1),
    ]:
        beyond, error = entries[pair]["beyond"]
        assert sign * beyond > 10 * error > 0


# Where the boxes stand


def drawings():
    """Answer key; with a tall box in the middle of its last row; published; and as
    finder and chapter 7 find it."""
    roles, edges = CIRCUIT.roles, PAPER.edges
    tall = roles | {
        "negative name mover": roles["backup name mover"],
        "backup name mover": roles["negative name mover"],
    }
    fewer = {
        role: heads for role, heads in roles.items() if role != "backup name mover"
    }
    places = {role: CIRCUIT.positions[role] for role in fewer}
    only = [
        e for e in edges if e.sender != "S-inhibition" or e.receiver == "name mover"
    ]
    chain = [e for e in only if e.sender in fewer] + [
        Edge("name mover", "negative name mover", "q")
    ]
    return {
        "answer key": CIRCUIT,
        "tall in the middle": replace(CIRCUIT, roles=tall),
        "published": PAPER,
        "finder": replace(CIRCUIT, edges=only),
        "chain": replace(CIRCUIT, roles=fewer, positions=places, edges=chain),
    }


DRAWINGS = drawings()


@pytest.mark.parametrize("which", DRAWINGS)
def test_boxes_keep_apart_and_stand_in_the_order_of_the_prompt(which):
    circuit = DRAWINGS[which]
    drawn = circuit_drawing.diagram_of(circuit)
    boxes = [*drawn["boxes"].values(), drawn["goal"]]
    for a, b in itertools.combinations(boxes, 2):
        beside = (
            a.x + circuit_drawing.WIDTH <= b.x or b.x + circuit_drawing.WIDTH <= a.x
        )
        assert beside or a.y + a.height < b.y or b.y + b.height < a.y, (a, b)
    assert [column["at"] for column in drawn["columns"]] == ["S1+1", "S2", "END"]
    ends = [(column["x"], column["x"] + column["width"]) for column in drawn["columns"]]
    assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(ends))
    assert len(drawn["arrows"]) == len(circuit.edges)
    last = {edge.sender for edge in circuit.edges if edge.receiver == "logits"}
    for sender, receiver, _ in circuit.edges:
        if receiver != "logits":
            high, low = drawn["boxes"][sender].y, drawn["boxes"][receiver].y
            assert high == low if {sender, receiver} <= last else high < low


# Wrong input


def test_a_model_without_a_circuit_is_told_so(model, monkeypatch):
    nothing = replace(CIRCUIT, roles={}, positions={}, edges=())
    found = SimpleNamespace(circuit=nothing, notes=("it cannot do the task",))
    monkeypatch.setattr(circuit_page, "known_circuit", lambda model: None)
    monkeypatch.setattr(circuit_page, "kept_circuits", dict)
    monkeypatch.setattr(circuit_page, "find_circuit", lambda *args, **options: found)
    with pytest.raises(ValueError, match="no circuit to show.*proposes none.*cannot"):
        circuit_page.circuit_of(model)


def test_a_model_whose_circuit_is_not_known_gets_the_finders(model, monkeypatch):
    proposed = replace(CIRCUIT, source="proposed by the finder")
    monkeypatch.setattr(circuit_page, "known_circuit", lambda model: None)
    monkeypatch.setattr(circuit_page, "kept_circuits", dict)
    monkeypatch.setattr(
        circuit_page,
        "find_circuit",
        lambda *args, **options: SimpleNamespace(circuit=proposed),
    )
    assert circuit_page.circuit_of(model) is proposed


def test_circuits_that_do_not_fit_are_refused(model, prompts):
    nothing = replace(CIRCUIT, roles={}, positions={}, edges=())
    with pytest.raises(ValueError, match="has no heads"):
        circuit_page.collect(model, nothing, prompts)
    larger = replace(
        CIRCUIT, roles={**CIRCUIT.roles, "name mover": ((12, 0),)}, n_layers=24
    )
    with pytest.raises(ValueError, match=r"\(12, 0\)"):
        circuit_page.collect(model, larger, prompts)
    with pytest.raises(TypeError, match="IOIDataset"):
        circuit_page.collect(model, CIRCUIT, ["When John and Mary"])


def test_a_page_that_is_too_large_is_not_written(
    model, data, prompts, tmp_path, monkeypatch
):
    monkeypatch.setattr(circuit_page, "collect", lambda *args: data)
    monkeypatch.setattr(circuit_page, "LARGEST", 100_000)
    with pytest.raises(
        ValueError, match=r"would have 0.3 MB with 8 prompts and 26 heads.*Give fewer"
    ):
        circuit_page.write_page(tmp_path / "circuit.html", model, CIRCUIT, prompts)
    assert not (tmp_path / "circuit.html").exists()


def test_a_class_that_acts_elsewhere_has_no_row_of_roles(data):
    """At IO, for example, which is no query of `attention_to_roles`:
    the cells stay empty."""
    circuit = replace(CIRCUIT, positions={**CIRCUIT.positions, "previous token": "IO"})
    moved = json.loads(json.dumps(data))
    moved["classes"]["previous token"]["at"] = "IO"
    row = (
        circuit_page.render(moved, circuit)
        .split('<th scope="row">L2H2</th>')[1]
        .split("</tr>")[0]
    )
    assert row.count("<td></td>") == len(data["keys"])


def test_command_says_what_is_wrong(tmp_path, monkeypatch):
    nobody = SimpleNamespace(
        circuit=replace(CIRCUIT, roles={}, positions={}, edges=()), notes=()
    )
    monkeypatch.setattr(circuit_page, "find_circuit", lambda *args, **options: nobody)
    for arguments, message in [
        (["--model", "synthetc"], "synthetic"),
        (["--model", "tiny", "--out", str(tmp_path / "a.html")], "no circuit to show"),
        (["--out", str(tmp_path)], "is a folder"),
        (["--out", str(tmp_path / "none" / "a.html")], "no folder"),
    ]:
        result = runner.invoke(cli.app, ["circuit-page", *arguments])
        assert result.exit_code == 2 and message in result.output, result.output
    assert not list(tmp_path.iterdir())


# In the course and on the site


def test_course_has_the_page_or_the_reason(tmp_path, monkeypatch, capsys):
    def refuse(*args, **options):
        raise ValueError("there is none")

    (tmp_path / "circuit.html").write_text("of another model")
    monkeypatch.setattr(circuit_page, "write_page", refuse)
    assert (
        site_command.write_circuit_page(tmp_path, "tiny") is None
        and not (tmp_path / "circuit.html").exists()
    )
    assert "Without circuit.html: there is none" in capsys.readouterr().out
    monkeypatch.setattr(
        circuit_page, "write_page", lambda path, model, home: path.write_text(home)
    )
    made = site_command.write_circuit_page(tmp_path, "synthetic")
    assert (tmp_path / made.href).read_text() == "index.html"
    sheet = welcome.Sheet([], {}, set(), set(), "synthetic", [], made)
    index = welcome.write_index(sheet, tmp_path).read_text()
    assert '<a href="circuit.html">The circuit, head by head</a>' in index
    sheet = welcome.Sheet([], {}, set(), set(), "tiny", [])
    assert "circuit.html" not in welcome.write_index(sheet, tmp_path).read_text()


def test_site_gets_the_page_of_the_last_run(page, tmp_path, monkeypatch):
    """The page is made, never stored in the repository: so it cannot drift. In the site
    it stands in Quarto's frame."""
    (tmp_path / "nbs").mkdir()
    text = page.read_text(encoding="utf-8")

    def write(folder, model):
        (folder / "circuit.html").write_text(
            text.replace("head by head (synthetic)", f"new ({model})")
        )

    monkeypatch.setattr(site_command, "write_circuit_page", write)
    site_command._add_tools(tmp_path, whole=False)
    assert (
        "pagetitle: The circuit, new (auto)\n"
        in (tmp_path / "nbs" / "circuit.qmd").read_text()
    )
    (tmp_path / "build" / "course").mkdir(parents=True)
    (tmp_path / "build" / "course" / "circuit.html").write_text(text)
    site_command._add_tools(tmp_path, whole=False)
    assert [path.name for path in (tmp_path / "nbs").iterdir()] == ["circuit.qmd"], (
        "Quarto makes circuit.html of it"
    )
    assert (
        "pagetitle: The circuit, head by head (synthetic)\n"
        in (tmp_path / "nbs" / "circuit.qmd").read_text()
    )


def test_site_says_so_where_the_page_could_not_be_made(tmp_path, monkeypatch):
    """The bar leads to it all the same."""
    (tmp_path / "nbs").mkdir()
    monkeypatch.setattr(site_command, "write_circuit_page", lambda folder, model: None)
    site_command._add_tools(tmp_path, whole=False)
    assert "This page was not made" in (tmp_path / "nbs" / "circuit.qmd").read_text()


def test_page_is_not_stored(root):
    stored = subprocess.run(
        ["git", "ls-files", "*circuit.html"], cwd=root, capture_output=True, text=True
    ).stdout
    assert not stored


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = """--headless --hide-scrollbars --no-sandbox --disable-gpu --disable-quic
    --no-first-run
    --disable-background-networking
    --disable-component-update --disable-sync --remote-debugging-pipe""".split()


class Browser:
    """Chromium, spoken to in its DevTools protocol over two pipes."""

    def __init__(self, folder):
        (there, self.out), (self.back, here) = os.pipe(), os.pipe()
        command = [
            CHROMIUM,
            *FLAGS,
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder}",
        ]
        shell = [
            "bash",
            "-c",
            f'exec "$@" 3<&{there} 4>&{here} 2>/dev/null',
            "bash",
            *command,
        ]
        self.process = subprocess.Popen(shell, pass_fds=(there, here))
        os.close(there), os.close(here)
        self.read, self.number, self.events, self.session = (
            os.fdopen(self.back, "rb"),
            0,
            [],
            {},
        )

    def message(self):
        text = bytearray()
        while (byte := self.read.read(1)) != b"\0":
            assert byte, "Chromium has gone"
            text += byte
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        message = {
            "id": self.number,
            "method": method,
            "params": params,
            **self.session,
        }
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self.message()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, path, width=1366, dark=False, scripts=True):
        """A new tab with the page, loaded."""
        self.session, self.events = {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {
            "sessionId": self.call(
                "Target.attachToTarget", targetId=target, flatten=True
            )["sessionId"]
        }
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in [
            event.get("method") for event in self.events
        ]:
            self.events.append(self.message())
        return self

    def evaluate(self, expression):
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector):
        return self.evaluate(
            f"document.querySelector({json.dumps(selector)}).innerText"
        )

    def click(self, selector):
        box = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{box}.scrollIntoView({{block: 'center'}})")
        x, y = self.evaluate(
            "(r => [r.x + r.width / 2, r.y + r.height / "
            f"2])({box}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                clickCount=1,
            )

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
            )

    def complaints(self):
        """What went to the console, and every request but for the page itself."""
        kinds = {
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
        }
        said = [event for event in self.events if event.get("method") in kinds]
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return said + asked[1:]

    def close(self):
        self.session = {}
        self.call("Browser.close")
        os.close(self.out)
        self.process.wait(30)
        self.read.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here (Debian's package chromium): the page was not looked at "
            "in a browser"
        )
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


def panel(browser):
    return [
        browser.text(selector)
        for selector in ("#name", "#direct", "#without", "#scores", "#status")
    ]


def number(x):
    return f"{x:.2f}".replace("-", "−")


def check_panel(browser, data, name, i):
    """The panel shows this head in this prompt."""
    head = next(each for each in data["heads"] if each["name"] == name)
    view, prompt = head["views"][i], data["prompts"][i]
    at = data["classes"][head["class"]]["at"]
    assert browser.text("#name") == f"{name}, {head['class']} head"
    assert browser.text("#looks-title") == f"Where it looks from {at}"
    assert float(browser.text("#direct").replace("−", "-")) == pytest.approx(
        view["direct"], abs=6e-3
    )
    assert f"{number(prompt['diff'])} → {number(view['ablated'])}" in browser.text(
        "#without"
    )
    n = len(prompt["tokens"])
    squares = browser.evaluate(
        "[...document.querySelectorAll('#pattern [fill-opacity]')].map(e => "
        "+e.getAttribute('fill-opacity'))"
    )
    assert (
        squares == pytest.approx([p / 1000 for p in view["pattern"]])
        and len(squares) == n * (n + 1) // 2
    )
    acting = squares[prompt["pos"][at] * (prompt["pos"][at] + 1) // 2 :][
        : prompt["pos"][at] + 1
    ]
    label = browser.evaluate("document.querySelector('#pattern').ariaLabel")
    assert (
        f"“{(['BOS'] + prompt['tokens'][1:])[acting.index(max(acting))].strip()}”, "
        f"{max(acting):.2f}"
    ) in label
    rows = browser.evaluate(
        "[...document.querySelectorAll('#others tbody tr')].map(e => "
        "e.innerText.split('\\t')[0])"
    )
    assert rows == [other[0] for other in view["others"]]
    assert browser.evaluate("document.querySelectorAll('#tokens tbody tr').length") == n


def test_a_click_and_a_key_choose_a_head(browser, page, data):
    browser.open(page)
    check_panel(browser, data, "L9H9", 0)  # the largest direct effect comes first
    before = panel(browser)
    index = [head["name"] for head in data["heads"]].index("L8H6")
    browser.click(f"input[value='{index}'] + span")
    check_panel(browser, data, "L8H6", 0)
    assert all(a != b for a, b in zip(before, panel(browser), strict=True))
    browser.press("ArrowRight", 39)
    check_panel(browser, data, data["heads"][index + 1]["name"], 0)
    browser.press("ArrowUp", 38)
    browser.press("ArrowUp", 38)
    check_panel(browser, data, data["heads"][index - 1]["name"], 0)
    outline = "getComputedStyle(document.activeElement.nextElementSibling).outline"
    assert "solid 3px" in browser.evaluate(outline), "the focus is seen"
    browser.evaluate("document.querySelector('#prompt').focus()")
    browser.press("ArrowDown", 40)
    assert browser.evaluate("document.querySelector('#prompt').value") == "1"
    check_panel(browser, data, data["heads"][index - 1]["name"], 1)
    assert data["prompts"][1]["IO"] in browser.text("#answer")
    assert not browser.complaints()


def test_heads_are_filtered_drawn_by_two_numbers_and_found_by_address(
    browser, page, data
):
    """A point for each head where its two columns say; one class alone; a point and a
    row lead to the head."""
    browser.open(page)
    points = (
        "[...document.querySelectorAll('#scatter a')].map((a) => "
        "[a.getAttribute('href'), a.ariaLabel])"
    )
    shown = dict(browser.evaluate(points))
    assert len(shown) == len(data["heads"]) == 26
    head = of_head(data, 9, 9)
    lost = (
        sum(
            v["ablated"] - p["diff"]
            for v, p in zip(head["views"], data["prompts"], strict=True)
        )
        / 8
    )
    direct = sum(view["direct"] for view in head["views"]) / 8
    assert shown["#L9H9"] == (
        f"L9H9, name mover: direct effect {number(direct)}, without it {number(lost)}"
    )
    circles = "[...document.querySelectorAll('#scatter circle')]"
    places = browser.evaluate(
        f"{circles}.map((c) => [+c.getAttribute('cx'), +c.getAttribute('cy')])"
    )
    assert (
        all(60 <= x <= 580 and 20 <= y <= 330 for x, y in places)
        and len({tuple(place) for place in places}) > 20
    )
    choose = """(({{id, value}}) => {{
      const e = document.getElementById(id);
      e.value = value;
      e.dispatchEvent(new Event('change', {{bubbles: true}}));
    }})({})"""
    browser.evaluate(choose.format(json.dumps({"id": "kind", "value": "induction"})))
    assert {link for link, _ in browser.evaluate(points)} == {
        "#L5H5",
        "#L5H8",
        "#L5H9",
        "#L6H9",
    }
    assert (
        browser.evaluate(
            "document.querySelectorAll('#heads tbody tr:not([hidden])').length"
        )
        == 4
    )
    copy = browser.evaluate(
        "[...document.querySelectorAll('#down option')].find((e) => e.text === "
        "'copy').value"
    )
    browser.evaluate(choose.format(json.dumps({"id": "down", "value": copy})))
    assert all("copy " in words for _, words in browser.evaluate(points))
    browser.click("#scatter a[href='#L6H9'] circle")
    until = time.monotonic() + 10  # the page hears of its new address a moment later
    while not browser.text("#name").startswith("L6H9") and time.monotonic() < until:
        time.sleep(0.02)
    check_panel(browser, data, "L6H9", 0)
    assert browser.evaluate("location.hash") == "#L6H9"
    assert not browser.complaints()


def until(browser, expression):
    end = time.monotonic() + 10  # the page hears of a new address a moment later
    while not browser.evaluate(expression) and time.monotonic() < end:
        time.sleep(0.02)
    assert browser.evaluate(expression), expression


def test_states_have_addresses(browser, page, data):
    """Prompt, head and what is off: from what is chosen to the address, and back."""
    browser.open(page)
    assert browser.evaluate("location.hash") == "", "nothing is chosen yet"
    browser.click("input[value='13'] + span")
    browser.evaluate("document.querySelector('#prompt').focus()")
    browser.press("ArrowDown", 40)
    browser.click("[name=off][value='name mover']")
    browser.click("[name=off][value='S-inhibition']")
    name, address = data["heads"][13]["name"], browser.evaluate("location.hash")
    assert address == f"#{name}&prompt=2&off=S-inhibition&off=name+mover"
    said = panel(browser)[:-1], browser.text("#off-what"), browser.text("#off-result")
    assert "S-inhibition and name mover (7 heads)" in said[1]
    links = set(
        browser.evaluate(
            "[...document.querySelectorAll('#heads a')].map((a) => "
            "a.getAttribute('href'))"
        )
    )
    assert address in links and len(links) == 26, (
        "a link to a head keeps the rest of the state"
    )
    browser.open(page).evaluate(f"location.hash = {json.dumps(address)}")
    until(browser, "document.querySelectorAll('[name=off]:checked').length === 2")
    assert (
        panel(browser)[:-1],
        browser.text("#off-what"),
        browser.text("#off-result"),
    ) == said
    browser.evaluate("location.hash = '#L9H6'")
    until(browser, "document.querySelector('#name').textContent.startsWith('L9H6')")
    check_panel(browser, data, "L9H6", 0)
    assert browser.text("#off-what") == "Nothing is off"
    for strange in (
        "#L99H9&off=nothing&prompt=77",
        "#off=name+mover+%2B+induction",
        "#draw",
        "#%00&off=L0H0&off=L1H1",
    ):
        browser.evaluate(f"location.hash = {json.dumps(strange)}")
    until(browser, "document.querySelector('#off-what').textContent.includes('L0H0')")
    assert not browser.complaints()


def off_said(browser, data, key, i):
    """What the section says of this set in this prompt."""
    entry, before = data["off"]["entries"][key], data["prompts"][i]["diff"]
    text = browser.text("#off-result")
    assert f"{number(before)} → {number(entry['after'][i])}" in text
    assert (
        f"{number(abs(entry['effect']))} ± {number(entry['error'])}" in text
        and "Mean over 40 prompts" in text
    )
    return text


@pytest.mark.parametrize("width", [1366, 390])
def test_heads_are_switched_off_with_the_keyboard(browser, page, data, width):
    """Classes by the space bar, the third takes the first's place; heads in a grid that
    is one stop of the Tab key."""
    browser.open(page, width=width)
    browser.evaluate("document.querySelector('[name=off]').focus()")

    def space():
        for kind in ("keyDown", "keyUp"):
            browser.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=" ",
                code="Space",
                windowsVirtualKeyCode=32,
                text=" ",
            )

    space()
    off_said(browser, data, "previous token", 0)
    for _ in range(2):
        browser.press("Tab", 9)
    space()
    text = off_said(browser, data, "previous token + induction", 0)
    alone = [
        data["off"]["entries"][role]["effect"]
        for role in ("previous token", "induction")
    ]
    assert (
        f"{number(sum(alone))} if effects added up" in text
        and "higher than that" in text
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('.box.out')].map((e) => e.dataset.class)"
    ) == ["previous token", "induction"]
    browser.press("Tab", 9)
    space()
    off_said(browser, data, "induction + S-inhibition", 0)
    for _ in range(4):
        browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.dataset.name") == "L0H0"
    assert "solid 3px" in browser.evaluate(
        "getComputedStyle(document.activeElement).outline"
    ), "the focus is seen"
    codes = {"ArrowDown": 40, "ArrowRight": 39, "End": 35, "Home": 36, "ArrowLeft": 37}
    for key in ["ArrowDown", *codes]:
        browser.press(key, codes[key])
    assert browser.evaluate("document.activeElement.dataset.name") == "L2H0"
    space()
    off_said(browser, data, "L2H0", 0)
    assert "outside the circuit, at END" in browser.text("#off-what")
    assert "L2H0" in browser.text("#status")
    assert (
        browser.evaluate("document.querySelectorAll('[name=off]:checked').length") == 0
    )
    browser.press("Tab", 9)
    while browser.evaluate("document.activeElement.id") != "off-none":
        assert browser.evaluate("document.activeElement.closest('.off-form') !== null")
        browser.press("Tab", 9)
    space()
    assert (
        browser.text("#off-what") == "Nothing is off"
        and browser.evaluate("document.activeElement.name") == "off"
    )
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert not browser.complaints()


def test_the_lab_gets_the_same_heads(browser, data, tmp_path, model):
    """The link's address is a state of the lab in which these heads, where they
    act, put out their means."""
    path = tmp_path / "circuit.html"
    path.write_text(
        circuit_page.render(data, CIRCUIT, "index.html", "lab.html"), encoding="utf-8"
    )
    browser.open(path)
    movers, negative, induction = (
        CIRCUIT.roles[role]
        for role in ("name mover", "negative name mover", "induction")
    )
    for address, heads, roles in [
        ("off=name+mover&off=negative+name+mover", [*movers, *negative], ["END"]),
        ("off=induction&off=name+mover", [*induction, *movers], ["S2", "END"]),
        ("off=L2H2", [(2, 2)], ["S1+1"]),
        ("off=L0H3", [(0, 3)], ["END"]),
    ]:
        browser.evaluate(f"location.hash = '#L9H9&prompt=3&{address}'")
        last = json.dumps(address.split("=")[-1].replace("+", " "))
        until(
            browser, f"document.querySelector('#off-what').textContent.includes({last})"
        )
        what = shared(browser.evaluate("document.querySelector('#off-result a').href"))
        pos = data["prompts"][2]["pos"]
        wanted = Intervention(
            data["prompts"][2]["text"],
            heads=heads,
            how="mean",
            at=[pos[role] for role in roles],
        )
        assert what == wanted
        assert ("at both places" in browser.text("#off-result")) == (len(roles) > 1)
    assert intervene(Bench(model), what).diff_before == pytest.approx(
        data["prompts"][2]["diff"], abs=2e-3
    )
    assert "lab.html" not in circuit_page.render(data, CIRCUIT)


def test_tab_reaches_the_heads_once(browser, page):
    browser.open(page)
    stops = []
    for _ in range(4):
        browser.press("Tab", 9)
        stops.append(
            browser.evaluate(
                "document.activeElement.id || document.activeElement.name || "
                "document.activeElement.tagName"
            )
        )
    assert stops[:2] == ["prompt", "head"] and "head" not in stops[2:]


def test_light_dark_and_narrow(browser, page):
    look = """({
        paper: getComputedStyle(
            document.querySelector('.ioi-tool')).backgroundColor,
        wide: document.documentElement.scrollWidth,
        arrows: document.querySelector('.board > svg').getBoundingClientRect().width,
        passes: document.querySelector('.passes').getBoundingClientRect().width})"""
    light = browser.open(page).evaluate(look)
    dark = browser.open(page, dark=True).evaluate(look)
    narrow = browser.open(page, width=400).evaluate(look)
    assert light["paper"] == "rgb(255, 255, 255)" and dark["paper"] == "rgb(22, 24, 28)"
    assert light["arrows"] > 700 and light["passes"] <= 1
    assert narrow["wide"] == 400 and narrow["arrows"] == 0 and narrow["passes"] > 200, (
        "arrows become words"
    )
    assert not browser.complaints()


def test_without_javascript_the_tables_are_there(browser, page):
    """What a screen reader is told where scripts are switched off."""
    browser.open(page, scripts=False)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    words = [
        node["name"]["value"]
        for node in tree
        if not node.get("ignored") and node.get("name", {}).get("value")
    ]
    assert "L11H9" in words and "All heads in numbers" in words
    assert any("switch JavaScript on" in word for word in words)
    assert (
        "Draw the circuit yourself" in words
        and words.count("refuted") > 50
        and "Draw the edge" not in words
    )
    assert "Where it looks" not in words and "Prompt" not in words


@pytest.mark.parametrize("width", [1366, 390])
def test_edges_are_drawn_by_the_reader(browser, page, data, width):
    """Chosen from lists, on a desk and on a phone: one edge that holds, one that is
    refuted, and the rest shown."""
    browser.open(page, width=width)
    assert not browser.evaluate("document.querySelector('#edges').open"), (
        "the table would give the game away"
    )
    for sender, receiver, verdict in [
        ("name mover", "logits", "holds"),
        ("induction", "logits", "refuted"),
    ]:
        browser.evaluate(f"""(([from, to]) => {{
          from.value = {json.dumps(sender)};
          to.value = {json.dumps(receiver)};
          to.dispatchEvent(new Event('change'));
        }})(document.querySelectorAll('#drawing select'))""")
        browser.click("#drawing .add")
        answer = next(
            each
            for each in data["drawing"]["answers"]
            if each["edge"][:2] == [sender, receiver]
        )
        assert answer["verdict"] == verdict and answer["says"] in browser.text(
            "#drawing [role=status]"
        )
    assert browser.text("#drawing .count").startswith(
        "1 of 23 edges of the circuit found"
    )
    arrows = (
        "[...document.querySelectorAll('#drawing .way[data-edge]')].map((e) => "
        "e.getBoundingClientRect().right)"
    )
    assert len(browser.evaluate(arrows)) == 1
    browser.click("#drawing .buttons button:nth-child(2)")
    assert (
        len(browser.evaluate(arrows)) == 23 and max(browser.evaluate(arrows)) <= width
    )
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert not browser.complaints()


CROSSINGS = """(paths, boxes) =>
[...document.querySelectorAll(paths)].map((path, i) => {
  const matrix = path.getScreenCTM(), length = path.getTotalLength();
  const places = [...Array(99).keys()].map(
    k => path.getPointAtLength(length * (k + 1) / 100).matrixTransform(matrix));
  const met = [...document.querySelectorAll(boxes)].map(
    e => e.getBoundingClientRect()).filter(r => places.some(
    p => p.x > r.x + 2 && p.x < r.right - 2 && p.y > r.y + 2 && p.y < r.bottom - 2));
  return met.length;
})"""


@pytest.mark.parametrize("which", DRAWINGS)
def test_no_arrow_runs_behind_a_box(browser, data, tmp_path, which):
    circuit, page = DRAWINGS[which], tmp_path / "page.html"
    of_circuit = json.loads(json.dumps(data))
    role_of = {
        f"L{layer}H{head}": role
        for role, heads in circuit.roles.items()
        for layer, head in heads
    }
    of_circuit["heads"] = [
        {**head, "class": role_of[head["name"]]}
        for head in data["heads"]
        if head["name"] in role_of
    ]
    page.write_text(circuit_page.render(of_circuit, circuit), encoding="utf-8")
    browser.open(page)
    assert browser.evaluate(f"({CROSSINGS})('.board path[data-from]', '.box')") == [
        0
    ] * len(circuit.edges)
    spill = (
        "[...document.querySelectorAll('.box h3')].filter(e => e.scrollWidth > "
        "e.clientWidth + 1).map(e => e.innerText)"
    )
    assert browser.evaluate(spill) == [], "a title is wider than its box"


@pytest.mark.parametrize("which", DRAWINGS)
def test_no_arrow_of_the_plot_runs_behind_a_box_and_words_keep_apart(
    browser, tmp_path, which
):
    """The same of `circuit_diagram`, the picture in the chapters."""
    picture = tmp_path / "circuit.svg"
    picture.write_text(circuit_diagram(DRAWINGS[which]).svg, encoding="utf-8")
    browser.open(picture)
    crossed = browser.evaluate(
        f"({CROSSINGS})('path[marker-end]', 'rect[fill=\"#fff\"]')"
    )
    assert crossed == [0] * len({edge[:2] for edge in DRAWINGS[which].edges})
    rects = "[...document.querySelectorAll('text')].map(e => e.getBoundingClientRect())"
    edges = browser.evaluate(rects + ".map(r => [r.left, r.top, r.right, r.bottom])")
    assert min(min(rect[:2]) for rect in edges) >= 0
    assert max(rect[2] for rect in edges) <= browser.evaluate(
        "document.documentElement.getBoundingClientRect().right"
    )
    for a, b in itertools.combinations(edges, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 1 or b[3] <= a[1] + 1, (
            "one word covers another"
        )


def test_demo_prompts_are_left_out_where_their_names_are_not_tokens(model, monkeypatch):
    class Drawn(IOIDataset):
        def __init__(self, source, n, seed=0):
            super().__init__(source, n, seed, names=("Paul", "Laura", "Anna", "Peter"))

    monkeypatch.setattr(circuit_page, "IOIDataset", Drawn)
    chosen = circuit_page.page_prompts(model, 4)
    assert len(chosen) == 4 and not any("Mary" in text for text in chosen.prompts)
