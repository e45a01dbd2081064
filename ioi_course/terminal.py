"""What the commands of `ioi-course` share: the console, how one stops with a reason,
and files written whole."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from ioi_course.project import CourseError, find_root

console = Console()
Root = Annotated[
    Path | None,
    typer.Option(help="The clone of the course; found from here upwards if not given."),
]


def root_of(given: Path | None) -> Path:
    try:
        return find_root(given)
    except CourseError as error:
        raise stop(error) from error


def stop(error: Exception) -> typer.Exit:
    console.print(
        str(error), style="red", highlight=False, markup=False, soft_wrap=True
    )
    return typer.Exit(2)


def progress_bar(what: str = "cells") -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def check_writable(path: Path) -> None:
    """Raise CourseError if a file cannot be written here, before the work begins."""
    folder = path.absolute().parent
    if path.is_dir():
        raise CourseError(
            f"{path} is a folder. Name a file in it, such as {path / 'circuit.json'}."
        )
    if not folder.is_dir():
        raise CourseError(
            f"There is no folder {folder} to write {path.name} in. Make it first."
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise CourseError(f"{path} cannot be written: permission denied.")
    try:
        _part(path).touch()
        _part(path).unlink()
    except OSError as error:
        raise CourseError(f"{path} cannot be written: {error.strerror}.") from error


def _part(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_json(report: dict, path: Path) -> None:
    """Write all of it or nothing: a file that was there stays until
    the new one is complete."""
    text = json.dumps(_plain(report), indent=2, allow_nan=False) + "\n"
    try:
        _part(path).write_text(text, encoding="utf-8")
        os.replace(_part(path), path)
    finally:
        _part(path).unlink(missing_ok=True)


def write_report(report: dict, path: Path) -> None:
    """As `write_json`, for a command: say where it is, or stop with what went wrong."""
    try:
        write_json(report, path)
    except OSError as error:
        raise stop(
            CourseError(f"{path} could not be written: {error.strerror}.")
        ) from error
    console.print(f"Written to {path}", highlight=False, markup=False)


def _plain(value):
    """The value in JSON's own types; null for a number that JSON does
    not have, such as NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):  # of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
