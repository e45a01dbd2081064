"""Read a notebook that was handed in: its code cells, and for which assignment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import ast
import json
import re

LARGEST = 50 * 2**20  # bytes of a submission; one full of pictures has some 10 MB
MOST_CELLS = 5000  # of code and of text
LONGEST = 200_000  # characters of a cell that is looked at for what it defines
# takes each character in one way only: another form took time without end
CHECK = re.compile(r"\s*(grader\.check(_all)?\([^()]*\)[\s;]*)+")
NAMED = re.compile(r"""Notebook\(\s*["']([\w.-]+)\.ipynb["']""")


class Refused(Exception):
    """A file that is not a submission to this assignment."""


def check_size(name: str, size: int) -> None:
    if size > LARGEST:
        raise Refused(
            f"{name} has {size / 2**20:.0f} MB; a notebook has at most "
            f"{LARGEST // 2**20}."
        )


def read_cells(data: bytes, assignment: str) -> list[tuple[int, str]]:
    """Number, counted from 1, and source of the code cells to run.

    Those that only call the checker are left out.
    """
    check_size("The file", len(data))
    text = _text(data)
    try:
        nb = json.loads(text)
        cells = _code(nb)
        otter = (nb.get("metadata") or {}).get("otter") or {}
        name = otter.get("assignment_name")
        sources = [source for _, source in cells if source.strip()]
    except Refused:
        raise
    except Exception as error:  # json and whoever wrote the file have many ways to fail
        raise Refused(f"The file is no notebook: {type(error).__name__}.") from error
    named = [found for source in sources for found in NAMED.findall(source)]
    # a platform may drop the notebook's metadata
    name = name or (named[0] if named else None)
    if name != assignment:
        said = (
            f"for the assignment {clean_text(name, 80)!r}"
            if name
            else "without the name of an assignment"
        )
        raise Refused(f"This is a notebook {said}, not for {assignment!r}.")
    return [
        (i, source)
        for i, source in cells
        if source.strip() and not CHECK.fullmatch(source)
    ]


def _code(nb: dict) -> list[tuple[int, str]]:
    """Number and source of a notebook's code cells, in nbformat 4 or 3.

    Colab and hand-made files leave fields out, and what the others hold may be
    anything: nbformat itself needs hundreds of bytes for each value in it.
    """
    sheets = [nb] if "cells" in nb else nb["worksheets"]
    cells = [cell for sheet in sheets for cell in sheet["cells"]]
    if len(cells) > MOST_CELLS:
        raise Refused(
            f"The file has {len(cells)} cells; a notebook has at most {MOST_CELLS}."
        )
    code = [(i, cell) for i, cell in enumerate(cells, 1) if cell["cell_type"] == "code"]
    found = [
        (i, cell["source"] if "source" in cell else cell["input"]) for i, cell in code
    ]
    return [
        (i, "".join([source] if type(source) is str else source)) for i, source in found
    ]


def _text(data: bytes) -> str:
    """The file as text: UTF-8, or what its first bytes say."""
    coding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        raise Refused(
            "The file is not in UTF-8, as notebooks are: some editor has saved it in "
            "another encoding. Ask for the file as Jupyter or Colab saves it. (It is "
            "no notebook as it stands.)"
        ) from error


def defined_twice(cells: Sequence[tuple[int, str]], names: set[str]) -> list[str]:
    """A note for each function among the names that several cells define."""
    where: dict[str, list[int]] = {}
    for i, source in cells:
        try:
            body = ast.parse(source).body if len(source) <= LONGEST else []
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name in {
            node.name for node in body if isinstance(node, ast.FunctionDef)
        } & names:
            where.setdefault(name, []).append(i)
    several = {name: places for name, places in where.items() if len(places) > 1}
    return [
        f"{name} is defined in the cells {listed(places)}: the last counts."
        for name, places in several.items()
    ]


def listed(items: Iterable) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def clean_text(value: object, longest: int = 300) -> str:
    """What a submission says, in characters that every file format can hold."""
    text = str(value)[:longest].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
