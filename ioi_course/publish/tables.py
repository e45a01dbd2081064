"""Tables of pandas on the website: one row of heads, short cells in one line, sentences
that know their column."""

from __future__ import annotations

import re

HEAD = re.compile(
    r"<thead>\s*<tr[^>]*>(?P<columns>.*?)</tr>\s*<tr>(?P<names>.*?)</tr>\s*</thead>",
    re.DOTALL,
)
TABLE = re.compile(r'<table [^>]*class="dataframe">.*?</table>', re.DOTALL)
STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)  # the site has its own
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<th[^>]*>(.*?)</th>", re.DOTALL)
SHORT = re.compile(r"(<t[hd][^>]*>)([^<>]{2,14})(?=</t[hd]>)")
SENTENCES = '<td style="text-align: left'  # as `claims.ClaimTable` writes them


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


def _named(row: str, names: list[str]) -> str:
    """A row whose sentences carry the names of their columns: a phone shows
    them below each other."""
    cells = iter(names[row.count("<th") :])
    return re.sub(re.escape(SENTENCES), lambda found: _with_name(next(cells, "")), row)


def _with_name(name: str) -> str:
    return f'<td data-of="{name}" {SENTENCES[4:]}'
