"""What each page of the website is called, and the sidebars that list the pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ioi_course.publish.run import chapter_name, chapters

LABELLED = re.compile(r"(\d+)_")
TEXTS = {  # pages that are only text, by the sidebar that lists them first
    "exercises": ("exercises.qmd", "instructor_guide.qmd"),
    "reference": ("glossary.qmd", "notation.qmd"),
}
WINGS = {  # folders of the library
    "engine": "The patching engine",
    "plots": "Plots",
    "bundled": "Bundled models",
    "checks": "Checks of exercises",
}


def number(name: str, names: Sequence[str]) -> str:
    """A chapter's number, with a letter for the second notebook of one: "0", "0b", "1";
    empty for other pages."""
    if (found := LABELLED.match(name)) is None:
        return ""
    pages = sorted(each for each in names if each.startswith(found[0]))
    place = pages.index(name)
    return f"{int(found[1])}{chr(ord('a') + place) if place else ''}"


def page_title(name: str, title: str, names: Sequence[str]) -> str:
    """What a page is called in its title, sidebars and links: "5 · Attention patterns",
    "metrics · How to measure".

    `name` is the notebook's path below nbs/ without its ending;
    `names` those of the course.
    """
    if label := number(name, names):
        return f"{label} · {title}"
    folder, _, module = name.partition("/")
    return f"{module.replace('/', '.')} · {title}" if folder == "library" else title


def course(root: Path) -> list[str]:
    """The names of the course's notebooks in reading order."""
    return [chapter_name(path, root) for path in chapters(root)]


def library(root: Path) -> list[str]:
    """The names of the library's notebooks."""
    found = sorted((root / "nbs" / "library").rglob("*.ipynb"))
    return [
        chapter_name(path, root)
        for path in found
        if ".ipynb_checkpoints" not in path.parts
    ]


def sidebars(root: Path) -> list[dict]:
    """One sidebar for each part of the site, all pages listed once: the one that holds
    a page stands beside it.

    No sidebar holds the first page or the circuit's: a link of the top bar is
    highlighted on all pages of its sidebar.
    """
    nbs = root / "nbs"
    pages = [f"{name}.ipynb" for name in course(root)]
    appendices = [page for page in pages if page.startswith("appendix/")]
    reference = [page for page in pages if page.startswith("reference/")]
    reference += sorted(
        path.relative_to(nbs).as_posix() for path in (nbs / "reference").glob("*.qmd")
    )
    return [
        _sidebar("chapters", "Chapters", [
            *[page for page in pages if LABELLED.match(page)],
            *[{"section": "Appendices", "contents": appendices}] * bool(appendices),
        ]),
        _sidebar("exercises", "Exercises and assignments", list(TEXTS["exercises"])),
        _sidebar("reference", "Reference",
                 [*TEXTS["reference"], *reference, "gallery.qmd"]),
        _sidebar("library", "Library", _modules(root)),
    ]  # fmt: skip


def _sidebar(name: str, title: str, contents: list) -> dict:
    return {
        "id": name,
        "title": title,
        "style": "floating",
        "collapse-level": 2,
        "contents": contents,
    }


def _modules(root: Path) -> list:
    """The modules, then those in folders; at the end what was tried and given up."""
    pages = [f"{name}.ipynb" for name in library(root)]
    folders = [page.split("/")[1] if page.count("/") > 1 else "" for page in pages]
    contents: list = [
        page for page, folder in zip(pages, folders, strict=True) if not folder
    ]
    for wing in sorted(set(folders) - {""}, key=[*WINGS, *folders].index):
        inside = [
            page for page, folder in zip(pages, folders, strict=True) if folder == wing
        ]
        contents.append(
            {"section": WINGS.get(wing, wing.capitalize()), "contents": inside}
        )
    return (
        contents + ["library/log.md"] * (root / "nbs" / "library" / "log.md").is_file()
    )
