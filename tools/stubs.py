"""Make the stub of each exercise from its solution, in every chapter,
and fold the solutions."""

from pathlib import Path

import nbformat

from ioi_course.publish.exercises import with_stubs
from ioi_course.publish.run import chapters

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    for path in chapters(ROOT):
        before = path.read_text(encoding="utf-8")
        nb = with_stubs(nbformat.reads(before, as_version=4))
        after = nbformat.writes(nb) + "\n"
        if after != before:
            path.write_text(after, encoding="utf-8")
