"""Write student/: each chapter with stubs instead of solutions and without outputs."""

import re
from pathlib import Path

import nbformat

from ioi_course.project import settings
from ioi_course.publish.badge import colab_badge
from ioi_course.publish.exercises import student_edition
from ioi_course.publish.run import chapters

ROOT = Path(__file__).resolve().parent.parent


def editions(root: Path) -> dict[str, str]:
    """The text of each file in student/, by name."""
    made = {}
    for path in chapters(root):
        if path.parent.name == "nbs" and re.match(r"\d\d_", path.name):
            nb = nbformat.read(path, as_version=4)
            badge = colab_badge(root, f"student/{path.name}")
            student = student_edition(nb, path.stem, settings(root)["doc_url"], badge)
            made[path.name] = nbformat.writes(student) + "\n"
    return made


if __name__ == "__main__":
    folder, made = ROOT / "student", editions(ROOT)
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.ipynb"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
