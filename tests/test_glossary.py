"""The glossary, the notation page, and the links that tools/glossary.py
puts into the chapters."""

import importlib.util
import os
import re
from collections import Counter
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ioi_course.patch_jobs import STREAM_SITES
from ioi_course.project import find_root
from ioi_course.prompts import IOIDataset
from ioi_course.publish.pages import text_pages, write_assets, write_text_page
from ioi_course.publish.run import chapter_name

ROOT = find_root()
# names the text that the glossary's terms, and none of its sentences, come from
SEEDS = "IOI_COURSE_SEED_GLOSSARY"


def _tool():
    spec = importlib.util.spec_from_file_location(
        "glossary_tool", ROOT / "tools" / "glossary.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


tool = _tool()
GLOSSARY = (ROOT / "nbs" / "glossary.qmd").read_text(encoding="utf-8")
NOTATION = (ROOT / "nbs" / "notation.qmd").read_text(encoding="utf-8")
WORDS = tool.words_of(GLOSSARY)
CHAPTERS = {
    chapter_name(path, ROOT): nbformat.read(path, as_version=4)
    for path in tool.to_link(ROOT)
}
LINKED = {  # in memory: the files may not have been linked yet
    name: tool.link_terms(deepcopy(nb), WORDS, "../" * name.count("/"))
    for name, nb in CHAPTERS.items()
}
HEADING = re.compile(r"^#{1,6} .+? \{#([\w-]+)\}$", re.MULTILINE)
ENTRIES = {  # anchor: title and text
    found[2]: (found[1], found[3])
    for found in re.finditer(
        r"^### (.+?) \{#([\w-]+)\}\n(.*?)(?=^##|\Z)", GLOSSARY, re.MULTILINE | re.DOTALL
    )
}


def markdown(nb) -> list[str]:
    return [cell.source for cell in nb.cells if cell.cell_type == "markdown"]


def glossary_links(text: str) -> list[str]:
    return re.findall(r"\]\((?:\.\./)*glossary\.qmd#([\w-]+)\)", text)


def occurs(anchor: str, text: str) -> bool:
    words = "|".join(
        re.escape(word).replace(r"\ ", r"\s+")
        for word, of in WORDS.items()
        if of == anchor
    )
    return (
        re.search(rf"(?<![\w-])(?:{words})(?![\w-])", text, re.IGNORECASE) is not None
    )


# The glossary


def test_terms_have_anchors_of_their_own():
    anchors = HEADING.findall(GLOSSARY)
    assert (
        len(anchors)
        == len(set(anchors))
        == len(ENTRIES)
        == GLOSSARY.count("\n### ")
        >= 60
    )
    assert set(WORDS.values()) == set(ENTRIES), "an entry without words that lead to it"
    assert len({title for title, _ in ENTRIES.values()}) == len(ENTRIES)


@pytest.mark.parametrize("anchor", ENTRIES)
def test_an_entry_says_what_it_is_and_where_it_is_introduced(anchor):
    _, text, *rest = ENTRIES[anchor][1].strip().split("\n\n")
    assert 2 <= len(re.findall(r"[.!?](?=\s|$)", text)) <= 4, text
    chapters = re.findall(r"\]\(([\w/]+)\.ipynb\)", rest[-1])
    assert chapters and len(rest) == 1
    pages = {
        name: nbformat.read(ROOT / "nbs" / f"{name}.ipynb", as_version=4)
        for name in chapters
    }
    assert all(
        occurs(anchor, "\n".join(cell.source for cell in nb.cells))
        for nb in pages.values()
    )


def test_an_ambiguous_word_is_an_error():
    entry = "### {0} {{#{0}}}\n<!-- links: head -->\n"
    with pytest.raises(ValueError, match="'head' leads to one and to two"):
        tool.words_of(entry.format("one") + entry.format("two"))


@pytest.mark.parametrize("name, text", [("glossary", GLOSSARY), ("notation", NOTATION)])
def test_links_of_the_pages_resolve(name, text):
    for path, anchor in re.findall(r"\]\(((?!https?:)[\w./-]*)(?:#([\w-]+))?\)", text):
        target = ROOT / "nbs" / path
        assert target.is_file(), f"{name}: {path}"
        assert not anchor or anchor in HEADING.findall(
            target.read_text(encoding="utf-8")
        ), f"{name}: {path}#{anchor}"


def test_nothing_is_copied():
    """No twelve words in a row are those of the text that the terms come from."""
    if not os.environ.get(SEEDS):
        pytest.skip(f"{SEEDS} names no file with the seeds' glossary")

    def runs(text: str, n: int = 12) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    theirs = runs(Path(os.environ[SEEDS]).read_text(encoding="utf-8"))
    assert len(theirs) > 1000 and not runs(GLOSSARY) & theirs


# Links in the chapters


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_is_linked_as_the_tool_does_it(name):
    path = ROOT / "nbs" / f"{name}.ipynb"
    assert path.read_text(encoding="utf-8") == tool.linked(path, ROOT), (
        "run tools/glossary.py"
    )


@pytest.mark.parametrize("name", LINKED)
def test_links_of_a_chapter(name):
    links = glossary_links("\n".join(markdown(LINKED[name])))
    assert set(links) <= set(ENTRIES)
    assert max(Counter(links).values(), default=1) == 1, (
        "a term is linked at its first use only"
    )
    assert (
        tool.link_terms(deepcopy(LINKED[name]), WORDS, "../" * name.count("/"))
        == LINKED[name]
    )
    for before, after in zip(CHAPTERS[name].cells, LINKED[name].cells, strict=True):
        assert tool.LINK.sub(r"\1", before.source) == tool.LINK.sub(r"\1", after.source)
        assert before.cell_type == "markdown" or before == after
    for path in re.findall(
        r"\]\(([\w./-]+)\.qmd#[\w-]+\)", "\n".join(markdown(LINKED[name]))
    ):
        assert ((ROOT / "nbs" / name).parent / f"{path}.qmd").is_file()


def test_every_term_is_used_and_most_are_linked():
    texts = ["\n".join(cell.source for cell in nb.cells) for nb in CHAPTERS.values()]
    texts.append((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))
    assert [
        anchor for anchor in ENTRIES if not any(occurs(anchor, text) for text in texts)
    ] == []
    linked = {
        anchor
        for nb in LINKED.values()
        for anchor in glossary_links("\n".join(markdown(nb)))
    }
    assert len(linked) >= 0.95 * len(ENTRIES)


class Places(HTMLParser):
    """Counts the links to the glossary in a rendered text, by the element that they
    must not be in, if any."""

    NOT_HERE = {
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "code",
        "pre",
        "a",
        "blockquote",
        "summary",
    }

    def __init__(self):
        super().__init__()
        self.open, self.found = [], Counter()

    def handle_starttag(self, tag, attrs):
        if tag == "a" and "glossary.qmd#" in (dict(attrs).get("href") or ""):
            self.found[
                next((outer for outer in self.open if outer in self.NOT_HERE), "")
            ] += 1
        if tag in self.NOT_HERE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]


def rendered(texts: list[str]) -> Counter:
    places = Places()
    places.feed(
        "\n".join(
            MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(text)
            for text in texts
        )
    )
    return places.found


@pytest.mark.parametrize("name", LINKED)
def test_every_link_is_a_link_in_prose(name):
    """By the judgement of a Markdown parser: in code or a formula it would not be a
    link, in a heading it is seen."""
    texts = markdown(LINKED[name])
    count = len(glossary_links("\n".join(texts)))
    assert rendered(texts) == ({"": count} if count else {})


NOT_LINKED = """# The residual stream

> A summary with the residual stream in it.

## Residual stream again
`the residual stream` and ``a `residual stream` ``
and [the residual stream](03_logit_lens.ipynb) and $residual stream$,
$$\\text{residual stream}$$

![a picture of
the residual stream](images/x.svg) <!-- residual stream -->
[batch, residual stream] [residual stream]

<details><summary>The residual stream</summary>

```
residual stream
```

</details>

pre-residual streams, residual streaming, residual

stream
"""


def test_what_is_not_prose_is_left_alone():
    nb = new_notebook(
        cells=[new_markdown_cell(NOT_LINKED), new_code_cell("# residual stream")]
    )
    assert tool.link_terms(deepcopy(nb), WORDS) == nb
    nb.cells.append(
        new_markdown_cell(
            "At last: **the residual\nstream**. Residual stream; residual stream."
        )
    )
    after = tool.link_terms(deepcopy(nb), WORDS, "../")
    want = (
        "At last: **the [residual\n"
        "stream](../glossary.qmd#residual-stream)**. Residual stream; residual stream."
    )
    assert after.cells[:2] == nb.cells[:2] and after.cells[2].source == want


def test_the_longest_word_wins_and_links_move_with_the_text():
    first = new_notebook(
        cells=[new_markdown_cell("Negative name movers and name movers.")]
    )
    want = (
        "[Negative name movers](glossary.qmd#negative-name-mover) and [name "
        "movers](glossary.qmd#name-mover)."
    )
    assert tool.link_terms(first, WORDS).cells[0].source == want
    first.cells.insert(0, new_markdown_cell("A name mover."))
    after = tool.link_terms(first, WORDS)
    assert [cell.source for cell in after.cells] == [
        "A [name mover](glossary.qmd#name-mover).",
        "[Negative name movers](glossary.qmd#negative-name-mover) and name movers.",
    ]


# Notation


def rows(section: str) -> list[list[str]]:
    """The rows of the table below a heading of the notation page."""
    text = re.search(
        rf"^## .*\{{#{section}\}}\n(.*?)(?=^##|\Z)", NOTATION, re.MULTILINE | re.DOTALL
    )[1]
    return [
        [cell.strip(" `") for cell in line.strip("|").split(" |")]
        for line in text.splitlines()
        if "|" in line
    ][2:]


def test_axes_have_the_sizes_of_the_models(model):
    cfg, sizes = model.cfg, {row[0]: row[2:4] for row in rows("axes") if len(row) > 3}
    named = {
        "d_model": "d_model",
        "d_head": "d_head",
        "d_mlp": "d_mlp",
        "vocab": "d_vocab",
        "pos": "n_ctx",
    }
    named |= {"layer": "n_layers", "head": "n_heads"}
    assert {axis: int(sizes[axis][1].split()[-1]) for axis in named} == {
        a: getattr(cfg, n) for a, n in named.items()
    }
    from transformers import GPT2Config

    gpt2 = GPT2Config()  # the defaults are GPT-2 small
    known = {
        "d_model": gpt2.n_embd,
        "d_head": gpt2.n_embd // gpt2.n_head,
        "d_mlp": 4 * gpt2.n_embd,
    }
    known |= {
        "vocab": gpt2.vocab_size,
        "pos": gpt2.n_positions,
        "layer": gpt2.n_layer,
        "head": gpt2.n_head,
    }
    assert {axis: int(sizes[axis][0].split()[-1]) for axis in known} == known


def test_places_are_hook_points_with_these_shapes(model):
    data = IOIDataset.demo(model)[:2]
    _, cache = model.run_with_cache(data.tokens)
    cfg, (batch, pos) = model.cfg, data.tokens.shape
    sizes = {
        "batch": batch,
        "pos": pos,
        "dest": pos,
        "src": pos,
        "head": cfg.n_heads,
        "d_model": cfg.d_model,
    }
    sizes |= {"d_head": cfg.d_head, "d_mlp": cfg.d_mlp, "1": 1}
    places = rows("sites")
    for _, name, _, shape in places:
        assert [*cache[name].shape] == [
            sizes[axis] for axis in shape.strip("[]").split(", ")
        ], name
    assert {short for short, *_ in places[:9]} == {
        *STREAM_SITES,
        "q",
        "k",
        "v",
        "z",
        "pattern",
    }


def test_counterfactuals_are_all_of_them(model):
    data = IOIDataset.demo(model)[:2]
    from ioi_course.prompts import misalignment

    for kind, _, _, aligned in rows("counterfactuals"):
        assert (misalignment(data, data.counterfactual(kind)) == "") == (
            aligned == "yes"
        ), kind


# The pages that need no network


def test_offline_pages_keep_the_anchors(tmp_path):
    write_assets(ROOT, tmp_path)
    assert [write_text_page(path, tmp_path).href for path in text_pages(ROOT)] == [
        "glossary.html",
        "notation.html",
        "instructor_guide.html",
        "reference/questions.html",
        "reference/since_2022.html",
    ]
    glossary, notation = (
        (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        for name in ("glossary", "notation")
    )
    assert set(re.findall(r'<h3 id="([\w-]+)">', glossary)) == set(ENTRIES)
    assert set(re.findall(r'<h2 id="([\w-]+)">', notation)) >= set(
        HEADING.findall(NOTATION)
    )
    assert (
        "<h1" in glossary
        and ".qmd" not in glossary + notation
        and 'href="notation.html#sites"' in glossary
    )
    assert (
        "title: " not in glossary
        and "<math" in glossary
        and "<mo>∖</mo>" in glossary  # \setminus, in a sign that fonts have
        and notation.count("<table") == 8
    )
