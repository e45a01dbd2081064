"""Tables of pandas on pages: one row of heads, short cells in one line, words to the
left, and sentences that know their column."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEAD = re.compile(
    r"<thead>\s*<tr[^>]*>(?P<columns>.*?)</tr>\s*<tr>(?P<names>.*?)</tr>\s*</thead>",
    re.DOTALL,
)
TABLE = re.compile(r'<table [^>]*class="dataframe">.*?</table>', re.DOTALL)
STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)  # pages have their own
ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
VALUE = re.compile(r"<td\b[^>]*>(.*?)</td>", re.DOTALL)
ANY = re.compile(
    r"<(?P<tag>t[hd])\b(?P<more>[^>]*)>(?P<text>.*?)(?=</t[hd]>)", re.DOTALL
)
SHORT = re.compile(r"(<t[hd][^>]*>)([^<>]{2,14})(?=</t[hd]>)")
SENTENCES = '<td style="text-align: left'  # as `claims.ClaimTable` writes them
LONG = 14  # letters; what is shorter stays in one line
WORD = re.compile(r"[^\W\d_]{2}")
NUMBER = re.compile(r"\s*[-−+±]?\d")
EMPTY = re.compile(r"<th(\b[^>]*)>\s*</th>")
ROLES = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row"}
OPENED = re.compile(r"<(table|thead|tbody|tr|th|td)\b")


def tidy(html: str) -> str:
    """HTML with its tables of pandas made fit for a page; everything else as it is."""
    return TABLE.sub(lambda found: _tidy(found[0]), STYLE.sub("", html))


def _tidy(table: str) -> str:
    table = HEAD.sub(_one_head, table)
    head, end, body = table.partition("</thead>")
    body = SHORT.sub(lambda cell: cell[1] + cell[2].replace(" ", "\u00a0"), body)
    if SENTENCES in body:
        names = CELL.findall(head)
        body = ROW.sub(lambda row: _named(row[0], names), body)
        return _with_roles(head, "columnheader") + end + _with_roles(body, "rowheader")
    words = _columns_of_words(ROW.findall(body))
    head, body = (
        ROW.sub(lambda row: _marked(row[0], words), part) for part in (head, body)
    )
    return head + end + body


def _one_head(found: re.Match) -> str:
    """One row of heads in place of two, where pandas gives the index's
    names a row of their own."""
    columns, names = CELL.findall(found["columns"]), CELL.findall(found["names"])
    pairs = list(zip(columns, names, strict=False))
    if len(columns) != len(names) or any(all(pair) for pair in pairs):
        return found[0]
    row = "".join(f"<th>{column or name}</th>" for column, name in pairs)
    return f"<thead><tr>{row}</tr></thead>"


def _columns_of_words(rows: Sequence[str]) -> list[bool]:
    """For each column but the index: does it hold words, and no number?"""
    columns = zip(*(VALUE.findall(row) for row in rows), strict=False)
    return [
        any(map(WORD.search, cells)) and not any(map(NUMBER.match, cells))
        for cells in columns
    ]


def _marked(row: str, words: Sequence[bool]) -> str:
    """A row whose cells in columns of words have a class: words are read from the left,
    and long ones need room."""
    first = len(ANY.findall(row)) - len(words)
    marks = iter([False] * max(first, 0) + list(words))

    def mark(cell: re.Match) -> str:
        if not next(marks, False):
            return cell[0]
        long = " long" * (len(cell["text"]) > LONG)
        return f'<{cell["tag"]} class="words{long}"{cell["more"]}>{cell["text"]}'

    return ANY.sub(mark, row)


def _named(row: str, names: list[str]) -> str:
    """A row whose sentences carry the names of their columns: a phone shows
    them below each other."""
    cells = iter(names[row.count("<th") :])
    return re.sub(re.escape(SENTENCES), lambda found: _with_name(next(cells, "")), row)


def _with_name(name: str) -> str:
    return f'<td data-of="{name}" {SENTENCES[4:]}'


def _with_roles(part: str, head: str) -> str:
    """Part of a table that says what each element of it is: where a style shows rows
    as blocks, some browsers take a table for no table any more."""
    part = EMPTY.sub(r"<td\1></td>", part)  # a corner names no column
    roles = ROLES | {"th": head, "td": "cell"}
    return OPENED.sub(lambda tag: f'{tag[0]} role="{roles[tag[1]]}"', part)
