"""The badge that opens a notebook in Colab, and the buttons that stand
for it on the website."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.project import settings
from ioi_course.roles import PAPER

NAMED = re.compile(r"\bL(\d+)H(\d+)\b|\((\d+), (\d+)\)")  # heads in text and in code
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"


def colab_badge(root: Path, path: str) -> str:
    """A badge in Markdown that opens a notebook of the repository in Colab; `path` is
    seen from the project's folder."""
    return f"{BADGE}({colab_address(root, path)})"


def colab_address(root: Path, path: str) -> str:
    """The address that opens a notebook of the repository in Colab."""
    meta = settings(root)
    where = f"{meta['user']}/{meta['repo']}/blob/{meta['branch']}/{path}"
    return f"https://colab.research.google.com/github/{where}"


def is_badge(cell: NotebookNode) -> bool:
    """Whether a cell holds a Colab badge and nothing else."""
    return cell.cell_type == "markdown" and bool(
        re.fullmatch(re.escape(BADGE) + r"\([^)\s]+\)", cell.source.strip())
    )


def head_of(cells: Iterable[NotebookNode]) -> str:
    """The head of the published circuit that a notebook names most often, such as
    "L9H9"; empty if it names none."""
    known, count = {head for heads in PAPER.roles.values() for head in heads}, Counter()
    for cell in cells:
        forms = [output.get("data", {}) for output in cell.get("outputs", [])]
        shown = [
            "".join(form.get(kind, ""))
            for form in forms
            for kind in ("text/plain", "text/markdown")
        ]
        for pair in NAMED.findall("\n".join([cell.source or "", *shown])):
            head = tuple(int(number) for number in pair if number)
            count[head] += head in known
    best = max(count, key=count.__getitem__, default=None)
    return f"L{best[0]}H{best[1]}" if best and count[best] else ""


def buttons(root: Path, name: str, exercises: bool, head: str = "") -> str:
    """The buttons of a notebook's page on the website, in Markdown; `name` is its path
    below nbs/ without the ending.

    `head` is the one that the circuit's page shows first.
    """
    meta, path = settings(root), f"nbs/{name}.ipynb"
    lesson, student = not name.startswith("library/"), f"student/{name}.ipynb"
    made = {
        "Open in Colab": lesson and colab_address(root, path),
        "Without solutions": (root / student).is_file()
        and colab_address(root, student),
        "Download notebook": f"{meta['doc_url']}notebooks/{name}.ipynb",
        "View source": f"{meta['git_url']}/blob/{meta['branch']}/{path}",
        "All exercises": exercises
        and f"{'../' * name.count('/')}exercises.qmd#{name.rpartition('/')[2]}",
        "The circuit": name[:1].isdigit() and f"circuit.html{head and f'#{head}'}",
    }
    styles = "{.btn .btn-sm .btn-primary}", "{.btn .btn-sm .btn-outline-primary}"
    shown = [f"[{text}]({href})" for text, href in made.items() if href]
    styled = [f"{link}{styles[i > 0]}" for i, link in enumerate(shown)]
    return "::: {.ioi-buttons}\n" + "\n".join(styled) + "\n:::"
