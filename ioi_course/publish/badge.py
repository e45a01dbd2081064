"""The badge that opens a notebook in Colab, and the buttons that stand for it on the website."""

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.project import settings

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"


def colab_badge(root: Path, path: str) -> str:
    """A badge in Markdown that opens a notebook of the repository in Colab; `path` is seen from the project's folder."""
    return f"{BADGE}({colab_address(root, path)})"


def colab_address(root: Path, path: str) -> str:
    """The address that opens a notebook of the repository in Colab."""
    meta = settings(root)
    return f"https://colab.research.google.com/github/{meta['user']}/{meta['repo']}/blob/{meta['branch']}/{path}"


def is_badge(cell: NotebookNode) -> bool:
    """Whether a cell holds a Colab badge and nothing else."""
    return cell.cell_type == "markdown" and bool(re.fullmatch(re.escape(BADGE) + r"\([^)\s]+\)", cell.source.strip()))


def buttons(root: Path, name: str, exercises: bool) -> str:
    """The buttons of a notebook's page on the website, in Markdown; `name` is its path below nbs/ without the ending."""
    meta, path = settings(root), f"nbs/{name}.ipynb"
    lesson, student = not name.startswith("library/"), f"student/{name}.ipynb"
    made = {
        "Open in Colab": lesson and colab_address(root, path),
        "Without solutions": (root / student).is_file() and colab_address(root, student),
        "Download notebook": f"{meta['doc_url']}notebooks/{name}.ipynb",
        "View source": f"{meta['git_url']}/blob/{meta['branch']}/{path}",
        "All exercises": exercises and f"{'../' * name.count('/')}exercises.qmd#{name.rpartition('/')[2]}",
    }
    styles = "{.btn .btn-sm .btn-primary}", "{.btn .btn-sm .btn-outline-primary}"
    shown = [f"[{text}]({href})" for text, href in made.items() if href]
    styled = [f"{link}{styles[i > 0]}" for i, link in enumerate(shown)]
    return "::: {.ioi-buttons}\n" + "\n".join(styled) + "\n:::"
