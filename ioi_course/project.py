"""The project's folder, and errors that the user can put right."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path


class CourseError(Exception):
    """Something that the user can put right; the message says how."""


def find_root(start: Path | None = None) -> Path:
    """The project's folder: the nearest from `start` upwards, or the package's own,
    that holds nbs/00_setup.ipynb."""
    start = (start or Path.cwd()).resolve()
    for folder in [start, *start.parents, Path(__file__).resolve().parent.parent]:
        if (folder / "nbs" / "00_setup.ipynb").is_file():
            return folder
    raise CourseError(
        f"There are no chapters here: neither {start} nor a folder above it holds "
        "nbs/00_setup.ipynb.\n"
        "Run the command inside a clone of the course, or name the clone with --root."
    )


def settings(root: Path) -> dict[str, str]:
    """The metadata of settings.ini, the one place where the repository
    and its owner are named."""
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])
