"""`ioi-course docs`, `circuit-page` and `lab-page`: build the site, write two of its
pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ioi_course.project import CourseError
from ioi_course.terminal import Root, check_writable, console, root_of, stop

if TYPE_CHECKING:
    from ioi_course.publish.pages import Page

T = TypeVar("T")
CIRCUIT, LAB = "circuit.html", "lab.html"
CIRCUIT_CHAPTER = "12_the_circuit"  # the circuit's page is made along with it
# elsewhere a circuit has to be found first: `ioi-course circuit-page`
WITH_CIRCUIT = ("synthetic", "gpt2-small")


def write_circuit_page(
    folder: Path, model: str, name: str | None = None
) -> Page | None:
    """Write the page of a model's circuit; None, and the reason on the console, if
    there is nothing to show."""
    from ioi_course.publish.circuit_page import NAME, write_page

    name = name or NAME
    (folder / name).unlink(missing_ok=True)
    try:
        write_page(folder / name, model, home="index.html")
    except Exception as error:  # whatever it is, it costs this page only
        console.print(
            f"Without {name}: {error}", highlight=False, markup=False, soft_wrap=True
        )
    return made_page(folder)


def write_lab_page(folder: Path, fetch: bool = True) -> None:
    """Write the lab's page of the synthetic model, to which chapters lead; or one
    that says why there is none.

    Its runtime comes from npm; without `fetch` only from the cache, so that a run of
    the course needs no network.
    """
    from ioi_course.publish.lab_page import NAME, runtime, write_lab, write_without

    try:
        runtime(fetch=fetch)
        write_lab(folder / NAME, "synthetic", home="index.html")
    except Exception as error:  # whatever it is, it costs this page only
        write_without(folder / NAME, str(error), home="index.html")
        if fetch:
            console.print(
                f"Without {NAME}: {error}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def made_page(folder: Path) -> Page | None:
    """The circuit's page, if it is there."""
    from ioi_course.publish.circuit_page import NAME
    from ioi_course.publish.pages import Page

    return Page("The circuit, head by head", NAME) if (folder / NAME).exists() else None


def docs(root: Root = None) -> None:
    """Build the website with nbdev and Quarto into _docs/; without Quarto, stage its
    pages and say what is missing."""
    from ioi_course.publish.finish import finish
    from ioi_course.publish.site import stage

    root = root_of(root)
    if (root / "nbs" / f"{CIRCUIT_CHAPTER}.ipynb").exists():
        _add_tools(root, whole=bool(shutil.which("quarto")))
    pages = _timed("Staged the pages", lambda: stage(root))
    if not shutil.which("quarto"):
        console.print(
            "Quarto is not installed, so the site was not rendered. Its pages are "
            f"staged under {os.path.relpath(pages)}.\n"
            "Install Quarto (https://quarto.org/docs/get-started/) and run the command "
            "again.",
            highlight=False,
        )
        raise typer.Exit(1)
    site, made = root / "_docs", pages / "_docs"
    # one process: two were slower
    command = ["quarto", "render", "--no-cache", "--output-dir", str(made)]
    # what it says is shown
    code = _timed("Rendered with Quarto", lambda: subprocess.call(command, cwd=pages))
    if code:
        raise typer.Exit(code)
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(made, site)
    _timed(
        "Added notebooks to download and the pages' heads", lambda: finish(root, site)
    )
    console.print(f"Site: {os.path.relpath(site / 'index.html')}", highlight=False)


def _timed(what: str, step: Callable[[], T]) -> T:
    """Take a step, and say how long it took."""
    start = time.perf_counter()
    result = step()
    console.print(f"{what} in {time.perf_counter() - start:.0f} s.", highlight=False)
    return result


SMOLLM2 = "circuit_smollm2.html"  # where SmolLM2 is at hand


def _add_tools(root: Path, whole: bool) -> None:
    """Write the circuit's page and the lab into nbs/ as pages of the site.

    The circuit's is that of the course's last run, or else a new one. Without
    `whole` only that is done.
    """
    from ioi_course.models import in_cache

    nbs, built, also = root / "nbs", root / "build" / "course" / CIRCUIT, None
    if whole and in_cache("smollm2"):
        _timed(
            "Made the circuit's page of SmolLM2",
            lambda: write_circuit_page(nbs, "smollm2", SMOLLM2),
        )
        if (nbs / SMOLLM2).exists():
            also = "The same of SmolLM2", SMOLLM2
            _frame(nbs / SMOLLM2, "The circuit of SmolLM2", None)
    if built.exists():
        shutil.copyfile(built, nbs / CIRCUIT)
    else:
        _timed("Made the circuit's page", lambda: write_circuit_page(nbs, "auto"))
    _frame(nbs / CIRCUIT, "The circuit, head by head", also)
    if whole:
        _timed("Made the lab", lambda: write_lab_page(nbs))
        _frame(nbs / LAB, "The lab", None)


def _frame(page: Path, title: str, also: tuple[str, str] | None) -> None:
    """Put a page that stands alone into the site's frame: Quarto makes it
    again, at the same address."""
    from ioi_course.publish.framed import framed, missing

    text = (
        framed(page.read_text(encoding="utf-8"), also)
        if page.exists()
        else missing(title, "its command says why")
    )
    page.with_suffix(".qmd").write_text(text, encoding="utf-8")
    page.unlink(missing_ok=True)


def circuit_page(
    model: Annotated[str, typer.Option(help="The model to look into.")] = "auto",
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The page to write.")
    ] = Path("circuit.html"),
) -> None:
    """Write a model's circuit as one page of HTML: choose a head, see what it
    does. It needs no server."""
    from ioi_course.publish.circuit_page import write_page

    try:
        check_writable(out)
        page = write_page(out, model)
    except (CourseError, ValueError, RuntimeError, OSError) as error:
        raise stop(error) from error
    console.print(
        f"{page} ({page.stat().st_size / 1000:.0f} kB)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def lab_page(
    model: Annotated[
        str, typer.Option(help="The model that runs in the page: synthetic or tiny.")
    ] = "synthetic",
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The page; a folder 'lab' beside it holds the model."
        ),
    ] = Path("lab.html"),
) -> None:
    """Write the lab as a page: a model that runs in the browser, to intervene in by
    hand. It needs no server."""
    from ioi_course.publish.lab_page import write_lab

    try:
        check_writable(out)
        sizes = write_lab(out, model)
    except (CourseError, ValueError, RuntimeError, OSError) as error:
        raise stop(error) from error
    for name, size in sizes.items():
        console.print(
            f"{out.parent / name} ({size / 1e6:.1f} MB)",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
