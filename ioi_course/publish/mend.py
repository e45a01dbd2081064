"""Notebooks as other programs leave them, made whole: what the
format wants is filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

WIDGETS = "application/vnd.jupyter.widget-state+json"
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
SHOWN = (
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook from a file, whole; `ValueError`, which says what is
    wrong, if it holds none."""
    try:
        nb = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not a notebook: it is not JSON in UTF-8 ({error})."
        ) from error
    if isinstance(nb, dict) and "worksheets" in nb:
        return nbformat.read(path, as_version=4)  # of version 3
    if not isinstance(nb, dict) or not isinstance(nb.get("cells"), list):
        raise ValueError(f"{path} is not a notebook: it has no list of cells.")
    return nbformat.reads(json.dumps(mended(nb)), as_version=4)


def mended(nb: dict) -> dict:
    """The notebook with what nbformat 4 wants and without what it
    forbids; changed in place."""
    nb["nbformat"], nb["nbformat_minor"] = 4, _of(nb.get("nbformat_minor"), int, 5)
    metadata = nb["metadata"] = _of(nb.get("metadata"), dict, {})
    widgets = metadata.get("widgets")
    if not (
        isinstance(widgets, dict) and all(_has_state(each) for each in widgets.values())
    ):
        metadata.pop("widgets", None)
    for key, needed in (
        ("language_info", ["name"]),
        ("kernelspec", ["name", "display_name"]),
    ):
        found = _of(metadata.get(key), dict, {})
        if not all(isinstance(found.get(each), str) for each in needed):
            metadata.pop(key, None)
    nb["cells"] = [_cell(cell) for cell in nb["cells"] if isinstance(cell, dict)]
    if nb["nbformat_minor"] >= 5:
        _name_cells(nb["cells"])
    return nb


def _has_state(widgets: Any) -> bool:
    return isinstance(widgets, dict) and isinstance(widgets.get("state"), dict)


def _name_cells(cells: list[dict]) -> None:
    """Give each cell an id of its own where it has none."""
    taken: set[str] = set()
    for i, cell in enumerate(cells):
        given = cell.get("id")
        if not isinstance(given, str) or not ID.fullmatch(given) or given in taken:
            cell["id"] = f"cell-{i}"
        taken.add(cell["id"])


def _of(value: Any, kind: type, default: Any) -> Any:
    return value if isinstance(value, kind) else default


def _text(value: Any) -> str:
    """Text as notebooks hold it: a string, or a list of lines."""
    if isinstance(value, list):
        return "".join(map(_text, value))
    return (
        "" if value is None else value if isinstance(value, str) else json.dumps(value)
    )


def _cell(cell: dict) -> dict:
    kind = cell.get("cell_type")
    cell["cell_type"] = kind if kind in ("markdown", "code", "raw") else "raw"
    cell["metadata"] = _of(cell.get("metadata"), dict, {})
    cell["source"] = _text(cell.get("source"))
    if not isinstance(cell["metadata"].get("tags", []), list):
        del cell["metadata"]["tags"]
    if "attachments" in cell:
        bundles = _of(cell["attachments"], dict, {})
        cell["attachments"] = {
            name: _forms(_of(each, dict, {})) for name, each in bundles.items()
        }
    if kind == "code":
        cell["execution_count"] = _of(cell.get("execution_count"), int, None)
        found = map(_output, _of(cell.get("outputs"), list, []))
        cell["outputs"] = [output for output in found if output]
    return cell


def _forms(data: dict) -> dict:
    """An output's forms by type; all but JSON are text."""
    as_it_is = {kind: value for kind, value in data.items() if kind.endswith("json")}
    return {
        k: v if k in as_it_is else _text(v) for k, v in data.items() if v is not None
    }


def _output(output: Any) -> dict | None:
    """An output with its fields; None for what is no output at all."""
    kind = output.get("output_type") if isinstance(output, dict) else None
    if kind == "stream":
        output |= {
            "name": _of(output.get("name"), str, "stdout"),
            "text": _text(output.get("text")),
        }
    elif kind == "error":
        output |= {key: _text(output.get(key)) for key in ("ename", "evalue")}
        output["traceback"] = [
            _text(line) for line in _of(output.get("traceback"), list, [])
        ]
    elif kind in ("display_data", "execute_result"):
        output["data"] = _forms(_of(output.get("data"), dict, {}))
        output["metadata"] = _of(output.get("metadata"), dict, {})
        if kind == "execute_result":
            output["execution_count"] = _of(output.get("execution_count"), int, None)
    else:
        return None
    return output


def presentable(data: dict) -> dict[str, str]:
    """Of an output's forms those that a page without scripts can show, or a
    sentence without any."""
    found = {kind: _text(data[kind]) for kind in SHOWN if data.get(kind)}
    kinds = _listed(data) or "it is empty"
    return found or {"text/plain": f"(An output that a page cannot show: {kinds}.)"}


def _listed(kinds: Iterable) -> str:
    return ", ".join(sorted(map(str, kinds)))
