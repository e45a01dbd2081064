"""Notebooks as other programs leave them: each is read whole and becomes a page."""

import copy
import json
import logging

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ioi_course.publish.mend import WIDGETS, mended, presentable, read_notebook
from ioi_course.publish.pages import Page, write_page

VIEW = "application/vnd.jupyter.widget-view+json"
LAYOUT = {
    "model_module": "@jupyter-widgets/base",
    "model_name": "LayoutModel",
    "state": {},
}


def code(**cell) -> dict:
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "source": "1",
        "outputs": [],
    } | cell


def shown(**data) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": data}


def book(*cells, **metadata) -> dict:
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": metadata,
        "cells": list(cells),
    }


ODD = {
    "widgets of Colab, without a state": book(
        code(), widgets={WIDGETS: {"0a1b": LAYOUT}}
    ),
    "widgets that are a list": book(code(), widgets=[1]),
    "widgets with a state that is none": book(
        code(), widgets={WIDGETS: {"state": None}}
    ),
    "widgets under another name": book(code(), widgets={"application/x": {}}),
    "a widget's view without its model": book(
        code(outputs=[shown(**{VIEW: {"version_major": 2}})])
    ),
    "a widget's view that is text": book(code(outputs=[shown(**{VIEW: "0a1b"})])),
    "no metadata": {"nbformat": 4, "nbformat_minor": 5, "cells": [code()]},
    "no version": {"cells": [code()], "metadata": {}},
    "a minor version that is text": book(code()) | {"nbformat_minor": "five"},
    "a language that is text": book(code(), language_info="python", kernelspec=3),
    "a language without a name": book(
        code(), language_info={"pygments_lexer": "no such language"}
    ),
    "a cell without anything": book({}),
    "a cell that is none": book(None, code()),
    "a cell of an unknown type": book(
        {"cell_type": "heading", "source": "Title", "metadata": {}}
    ),
    "a code cell without outputs": book(
        {"cell_type": "code", "source": "1", "metadata": {}}
    ),
    "a code cell without metadata": book(
        {"cell_type": "code", "source": "1", "outputs": []}
    ),
    "a code cell with a type and no more": book({"cell_type": "code"}),
    "outputs that are none": book(code(outputs=None)),
    "a source of lines": book(code(source=["a = 1\n", "a"])),
    "a source that is a number": book(code(source=3)),
    "tags that are text": book(
        code(metadata={"tags": "raises-exception", "magics_language": 3})
    ),
    "an output without a type": book(code(outputs=[{"data": {"text/plain": "1"}}])),
    "an output that is text": book(code(outputs=["1"])),
    "an output of an unknown type": book(
        code(outputs=[{"output_type": "update", "data": {}}])
    ),
    "an output without data": book(code(outputs=[{"output_type": "display_data"}])),
    "a result without data": book(code(outputs=[{"output_type": "execute_result"}])),
    "data that is none": book(code(outputs=[shown() | {"data": None}])),
    "data without a form": book(code(outputs=[shown()])),
    "an unknown form": book(code(outputs=[shown(**{"application/x-odd": "1"})])),
    "a form that is none": book(
        code(outputs=[shown(**{"text/html": None, "text/plain": "1"})])
    ),
    "a form of lines": book(code(outputs=[shown(**{"text/html": ["<b>", "1</b>"]})])),
    "a form that is a number": book(code(outputs=[shown(**{"text/plain": 3})])),
    "JSON, a script and a PDF": book(
        code(
            outputs=[shown(**{"application/json": {"a": 1}, "application/pdf": "JVBE"})]
        ),
        code(outputs=[shown(**{"application/javascript": "alert(1)"})]),
    ),
    "formulas": book(
        code(outputs=[shown(**{"text/latex": "$x^2$", "text/plain": "x**2"})])
    ),
    "a picture that is none": book(code(outputs=[shown(**{"image/png": None})])),
    "a stream without text": book(code(outputs=[{"output_type": "stream"}])),
    "a stream that is a number": book(
        code(outputs=[{"output_type": "stream", "text": 1}])
    ),
    "an error without a traceback": book(code(outputs=[{"output_type": "error"}])),
    "a traceback that is text": book(
        code(outputs=[{"output_type": "error", "traceback": "x"}])
    ),
    "half a character": book(
        code(outputs=[shown(**{"text/plain": "\ud83d"})], source="'\ud83d'")
    ),
    "a formula without an end": book(
        {"cell_type": "markdown", "source": r"# T $\frac{1$ and $$^$$"}
    ),
    "an attachment that is none": book(
        {"cell_type": "markdown", "source": "T", "attachments": None}
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_notebook_is_read_and_becomes_a_page(name, tmp_path, caplog):
    """From a file, and straight: pages are also made of what a kernel has
    just put into a notebook."""
    path = tmp_path / "nb.ipynb"
    path.write_text(json.dumps(ODD[name]), encoding="utf-8")
    with caplog.at_level(logging.ERROR):
        nb = read_notebook(path)
    assert not caplog.records, "nbformat has nothing to complain of"
    assert write_page(nb, Page("Odd", "odd.html"), tmp_path).read_text(encoding="utf-8")
    raw = nbformat.from_dict(copy.deepcopy(ODD[name]))
    assert write_page(raw, Page("Raw", "raw.html"), tmp_path).read_text(
        encoding="utf-8"
    )


def test_a_page_shows_the_html_of_an_output_as_it_is(tmp_path):
    """End tags of cells may be left out: a second reading put each cell into
    the one before it."""
    table = "<table><tr><th>a<th>b<tbody><tr><td>1<td>2</table>"
    output = new_output("display_data", {"text/html": table})
    nb = new_notebook(cells=[new_code_cell("show()", outputs=[output])])
    page = write_page(nb, Page("Table", "table.html"), tmp_path)
    assert table in page.read_text(encoding="utf-8")


def fields(nb: dict) -> list[tuple]:
    """The way to each field and each item of a notebook, from the outside in."""
    ways = []

    def walk(value, way):
        items = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for key, inner in items:
            ways.append((*way, key))
            walk(inner, (*way, key))

    walk(nb, ())
    return ways


def whole() -> dict:
    """A small notebook with each kind of cell and output."""
    outputs = [
        new_output("stream", text="text\n"),
        new_output("display_data", data={"text/html": "<b>1</b>", "text/plain": "1"}),
        new_output("execute_result", data={"image/png": "AAAA"}),
        new_output("error", ename="E", evalue="e", traceback=["line"]),
    ]
    cells = [new_markdown_cell("# T\n\n> S"), new_code_cell("1", outputs=outputs)]
    widgets = {
        WIDGETS: {"state": {"0a1b": LAYOUT}, "version_major": 2, "version_minor": 0}
    }
    return json.loads(
        json.dumps(new_notebook(cells=cells, metadata={"widgets": widgets}))
    )


@pytest.mark.parametrize("put", ["nothing", None, 3, [], {}], ids=str)
def test_any_field_may_be_missing_or_of_another_kind(put, tmp_path):
    """But for the list of cells, without which a file is no notebook."""
    path, count = tmp_path / "nb.ipynb", 0
    for way in fields(whole()):
        nb = whole()
        place = nb
        for key in way[:-1]:
            place = place[key]
        if put == "nothing":
            del place[way[-1]]
        else:
            place[way[-1]] = put
        if not isinstance(nb.get("cells"), list):
            continue
        path.write_text(json.dumps(nb), encoding="utf-8")
        try:
            read = read_notebook(path)
            write_page(read, Page("Odd", "odd.html"), tmp_path)
        except Exception as error:
            raise AssertionError(f"{way} = {put}") from error
        count += 1
    assert count > 40


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[]", "3", "{}", '{"cells": 3}', '{"nbformat": 4}']
)
def test_what_is_no_notebook_is_said_to_be_none(text, tmp_path):
    path = tmp_path / "nb.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match="nb.ipynb is not a notebook"):
        read_notebook(path)


def test_bytes_that_are_no_text_are_no_notebook(tmp_path):
    path = tmp_path / "nb.ipynb"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a notebook"):
        read_notebook(path)


def test_a_whole_notebook_is_left_as_it_is():
    before = whole()
    assert mended(copy.deepcopy(before)) == before


def test_an_old_notebook_is_brought_up_to_date(tmp_path):
    path = tmp_path / "nb.ipynb"
    cells = [
        {
            "cell_type": "code",
            "input": "1",
            "outputs": [],
            "language": "python",
            "metadata": {},
        }
    ]
    path.write_text(
        json.dumps(
            {
                "nbformat": 3,
                "nbformat_minor": 0,
                "metadata": {},
                "worksheets": [{"cells": cells}],
            }
        )
    )
    assert [cell.source for cell in read_notebook(path).cells] == ["1"]


def test_a_page_shows_the_form_that_it_can_show():
    view = {VIEW: {"model_id": "0a1b"}, "text/plain": "slider"}
    assert presentable(view) == {"text/plain": "slider"}
    assert "application/x-odd" in presentable({"application/x-odd": 1})["text/plain"]
    assert presentable({"text/html": ["<b>", "1</b>"]}) == {"text/html": "<b>1</b>"}


def test_page_of_a_formula_that_cannot_be_read_shows_it_as_written(tmp_path):
    nb = new_notebook(
        cells=[
            new_markdown_cell(r"# T" + "\n\n" + r"Before $\left($ after, and $x^2$.")
        ]
    )
    text = write_page(nb, Page("T", "t.html"), tmp_path).read_text()
    assert r"<code>\left(</code>" in text and "after" in text and "<math" in text


def test_a_link_to_the_lab_leads_to_the_website(tmp_path):
    """The lab is a page of the website, and the circuit's page may be: beside the pages
    of a run there can be none."""
    links = "[lab](lab.html#tour=writer), [draw](circuit.html#draw), [next](b.ipynb#a)"
    nb = new_notebook(cells=[new_markdown_cell(f"# T\n\n{links}")])
    text = write_page(
        nb, Page("T", "t.html"), tmp_path, site="https://some.site/"
    ).read_text()
    assert (
        'href="https://some.site/lab.html#tour=writer"' in text
        and 'href="b.html#a"' in text
    )
    assert 'href="https://some.site/circuit.html#draw"' in text
