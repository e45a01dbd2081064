"""The badge that opens a notebook in Colab."""

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.project import settings

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"


def colab_badge(root: Path, path: str) -> str:
    """A badge in Markdown that opens a notebook of the repository in Colab; `path` is seen from the project's folder."""
    meta = settings(root)
    return (
        f"{BADGE}(https://colab.research.google.com/github/{meta['user']}/{meta['repo']}/blob/{meta['branch']}/{path})"
    )


def is_badge(cell: NotebookNode) -> bool:
    """Whether a cell holds a Colab badge and nothing else."""
    return cell.cell_type == "markdown" and bool(re.fullmatch(re.escape(BADGE) + r"\([^)\s]+\)", cell.source.strip()))
