"""Count how long each chapter takes, and write it where it is said: its first cell, the
first page, the guide."""

from pathlib import Path

import nbformat

from ioi_course.publish.minutes import content, with_hours, with_minutes, with_schedules

NBS = Path(__file__).resolve().parent.parent / "nbs"


def write(path: Path, text: str) -> None:
    if text != path.read_text(encoding="utf-8"):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    times: dict[int, int] = {}
    for path in sorted(NBS.glob("[0-9]*.ipynb")) + sorted(NBS.glob("appendix/*.ipynb")):
        nb = nbformat.read(path, as_version=4)
        if path.parent == NBS:  # chapter 0 has two pages
            times[int(path.name[:2])] = (
                times.get(int(path.name[:2]), 0) + content(nb).minutes
            )
        write(path, nbformat.writes(with_minutes(nb)) + "\n")
    first = nbformat.read(NBS / "index.ipynb", as_version=4)
    first.cells[0].source = with_hours(first.cells[0].source, times.values())
    write(NBS / "index.ipynb", nbformat.writes(first) + "\n")
    guide = NBS / "instructor_guide.qmd"
    write(guide, with_schedules(guide.read_text(encoding="utf-8"), times))
