"""Put a badge that opens it in Colab below the title of each chapter; the address
comes from settings.ini."""

import hashlib
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from ioi_course.publish.badge import colab_badge, is_badge
from ioi_course.publish.run import chapters

ROOT = Path(__file__).resolve().parent.parent


def with_badge(nb: NotebookNode, root: Path, path: Path) -> NotebookNode:
    """The notebook with its badge made anew; changed in place. The first page has none:
    it lists the chapters'."""
    where = path.relative_to(root).as_posix()
    nb.cells = [cell for cell in nb.cells if not is_badge(cell)]
    if path.stem != "index":
        name = hashlib.sha256(f"badge of {where}".encode()).hexdigest()[:8]
        nb.cells.insert(1, new_markdown_cell(colab_badge(root, where), id=name))
    return nb


if __name__ == "__main__":
    for path in chapters(ROOT):
        before = path.read_text(encoding="utf-8")
        nb = with_badge(nbformat.reads(before, as_version=4), ROOT, path)
        after = nbformat.writes(nb) + "\n"
        if after != before:
            path.write_text(after, encoding="utf-8")
