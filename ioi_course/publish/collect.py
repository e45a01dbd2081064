"""The claims that executed notebooks hold: collected for a run, and
recorded with the package."""

from __future__ import annotations

import json
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.claims import MIME
from ioi_course.publish.run import write_file

PACKAGES = ("ioi_course", "torch", "transformers", "transformer-lens")


def claims_of(nb: NotebookNode) -> dict[str, dict]:
    """The claims among a notebook's outputs, by key."""
    outputs = (
        output
        for cell in nb.cells
        if cell.cell_type == "code"
        for output in cell.get("outputs", [])
    )
    found = (
        output["data"][MIME] for output in outputs if MIME in output.get("data", {})
    )
    return {record["key"]: dict(record) for record in found}


def claims_file(model: str, claims: dict[str, dict]) -> dict:
    """What is written: the model, the day, the versions, and the claims."""
    versions = {name: version(name) for name in PACKAGES}
    about = {"model": model, "date": date.today().isoformat(), "versions": versions}
    return about | {"claims": {key: claims[key] for key in sorted(claims, key=_order)}}


def _order(key: str) -> tuple[int, str]:
    """By chapter (0, 0b, 1, …); within one, as the chapter makes them."""
    number, letter = re.match(r"(\d*)(\w*)", key).groups()
    return (int(number) if number else 99), letter


def write_claims(path: Path, model: str, claims: dict[str, dict]) -> Path:
    """Write the claims of a run."""
    return write_file(
        path,
        json.dumps(claims_file(model, claims), indent=1, ensure_ascii=False) + "\n",
    )


def record_claims(root: Path, model: str, claims: dict[str, dict]) -> Path:
    """Keep claims with the package: those of the chapters that were run take the place
    of what was recorded of them."""
    path = root / "ioi_course" / "data" / "claims" / f"{model}.json"
    known = (
        json.loads(path.read_text(encoding="utf-8"))["claims"] if path.exists() else {}
    )
    again = {key.partition(".")[0] for key in claims}
    kept = {
        key: record
        for key, record in known.items()
        if key.partition(".")[0] not in again
    }
    return write_claims(path, model, kept | claims)
