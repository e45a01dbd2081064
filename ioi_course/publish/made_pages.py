"""Pages of the website that are made from the notebooks: the gallery and
the list of exercises."""

from __future__ import annotations

import base64
import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from ioi_course.publish.run import chapter_name, chapters, code_cells
from ioi_course.publish.exercises import HEADING, ExerciseCells, exercises
from ioi_course.publish.figures import for_both
from ioi_course.publish.navigation import course, page_title
from ioi_course.publish.minutes import EXERCISE, stars
from ioi_course.publish.pages import slug, title_of
from ioi_course.publish.badge import colab_address
from ioi_course.publish.cards import card, wordless

PICTURE = re.compile(
    r'<figure class="ioi-plot".*?alt="([^"]*)" '
    r'src="data:image/svg\+xml;base64,([^"]+)">'
)
WIDTH = re.compile(r"<svg [^>]*?width='(\d+)'")
# pixels; wider pictures have a row of their own, so that their words can be read
NARROW = 600
TITLE = re.compile(r"<text [^>]*?text-anchor='start' font-size='15'>[^<]*</text>")
BUTTON = "{.btn .btn-sm .btn-outline-primary}"
FUNCTION = re.compile(r"^[a-z_]+: ")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#$@^~|])")


def write_pages(root: Path) -> None:
    """Write gallery.qmd and exercises.qmd into nbs/, with the pictures of the
    gallery in nbs/gallery/."""
    nbs = root / "nbs"
    notebooks = {path: nbformat.read(path, as_version=4) for path in chapters(root)}
    shutil.rmtree(nbs / "api", ignore_errors=True)  # pages of earlier versions
    shutil.rmtree(nbs / "gallery", ignore_errors=True)
    (nbs / "gallery").mkdir()
    write(nbs / "gallery.qmd", gallery(root, notebooks))
    drawing = (nbs / "images" / "circuit.svg").read_text(encoding="utf-8")
    write(nbs / "gallery" / "circuit-card.svg", for_both(wordless(drawing)))
    for path, nb in notebooks.items():
        if path.parent == nbs and path.stem[:1].isdigit():
            first = next((picture.decode() for _, picture in pictures(nb)), None)
            write(
                nbs / "gallery" / f"{path.stem}-card.svg",
                for_both(card(path.stem, first)),
            )
    write(nbs / "exercises.qmd", exercise_list(root, notebooks))


def write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def front(title: str, description: str) -> str:
    """What a page of Quarto's begins with."""
    fields = {
        "title": title,
        "description": description,
        "repo-actions": False,  # it has no source to look at
    }
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{text}---\n"


def plain(text: str) -> str:
    """Text in which Markdown sees no markup."""
    return SPECIAL.sub(r"\\\1", text)


def name_of(root: Path, path: Path, nb: NotebookNode) -> str:
    """What the site calls a notebook's page."""
    return page_title(chapter_name(path, root), title_of(nb, path.stem), course(root))


# The gallery


def pictures(nb: NotebookNode) -> Iterator[tuple[str, bytes]]:
    """The static picture of each plot that is stored in a notebook, with the
    text that stands for it."""
    for cell in code_cells(nb):
        for output in cell.outputs:
            data = output.get("data", {})
            for alt, picture in PICTURE.findall(
                "".join(data.get("text/html") or data.get("text/markdown", ""))
            ):
                yield html.unescape(alt), base64.b64decode(picture)


def gallery(root: Path, notebooks: dict[Path, NotebookNode]) -> str:
    """Every plot that the chapters show, by chapter; the pictures are
    written to nbs/gallery/."""
    said = "Every plot of the course; a picture leads to the chapter that explains it."
    parts = [
        front("Gallery", said),
        "[How to read the plots](library/plots/core.ipynb), and how to draw your own.",
    ]
    for path, nb in notebooks.items():
        shown = list(pictures(nb))
        if not shown:
            continue
        name, figures = chapter_name(path, root), []
        for i, (alt, picture) in enumerate(shown, 1):
            file = f"gallery/{path.stem}-{i}.svg"
            title, words = captions(alt, picture)
            drawn = for_both(untitled(picture.decode()))
            write(root / "nbs" / file, drawn)
            image = f'<img src="{file}" alt="{html.escape(words)}" loading="lazy">'
            link = f'<a href="{name}.html">{image}</a>'
            caption = f"<figcaption>{html.escape(title)}</figcaption>"
            kind = ' class="wide"' * (int(WIDTH.search(drawn)[1]) > NARROW)
            figures.append(f"<figure{kind}>{link}{caption}</figure>")
        heading = f"## [{plain(name_of(root, path, nb))}]({name}.ipynb)"
        body = "\n".join(figures)
        parts.append(
            f'{heading}\n\n```{{=html}}\n<div class="gallery">\n{body}\n</div>\n```'
        )
    return "\n\n".join(parts)


def untitled(svg: str) -> str:
    """A plot without the lines that say its title: the caption says it."""
    return TITLE.sub("", svg)


def captions(alt: str, picture: bytes) -> tuple[str, str]:
    """A plot's title, and the text that stands for it without the name of the
    function that drew it."""
    words = FUNCTION.sub("", alt)
    title = re.search(rb"<title>(.*?)</title>", picture, re.DOTALL)
    return _short(html.unescape(title[1].decode()) if title else words), words


def _short(title: str) -> str:
    """A title without the function's name and, of the circuit's drawing, without
    the heads that it lists."""
    return re.sub(r", [^,;]*?(?: L\d+H\d+)+;.*$", "", FUNCTION.sub("", title))


# Exercises and assignments


def exercise_list(root: Path, notebooks: dict[Path, NotebookNode]) -> str:
    """The exercises of each chapter with its student edition, and
    the graded assignments."""
    rows = ["| chapter | exercises |", "|---|---|"]
    count = 0
    for path, nb in notebooks.items():
        if found := exercises(nb):
            count += len(found)
            name = chapter_name(path, root)
            listed = "<br>".join(link(f"{name}.ipynb", each) for each in found)
            cell = f"[{plain(name_of(root, path, nb))}]({name}.ipynb){{#{path.stem}}}"
            if path.parent.name == "nbs":
                student = colab_address(root, f"student/{path.name}")
                cell += f"<br>[Without solutions]({student}){BUTTON}"
            rows.append(f"| {cell} | {listed} |")
    times = ", ".join(f"{each} about {minutes}" for each, minutes in EXERCISE.items())
    text = [
        front(
            "Exercises and assignments",
            "What there is to do, chapter by chapter, and the four graded assignments.",
        ),
        (
            f"{count} exercises, each with a hint, a folded solution and a check that "
            "names the misconception behind a wrong answer ([how checks "
            f"work](library/checks/core.ipynb)). Stars say how long one takes: {times} "
            "minutes. *Without solutions* opens the student edition in Colab: no "
            "solutions and no outputs."
        ),
        "\n".join(rows),
    ]
    masters = sorted((root / "assignments").glob("*/*.ipynb"))
    if masters:
        text.append(
            "## Graded assignments\n\n"
            "Public tests teach, hidden tests grade. Instructors build and hand them "
            "out, as the [instructor guide](instructor_guide.qmd) says."
        )
        text.append(
            "\n".join(
                [
                    "| assignment | about | time and points |",
                    "|---|---|---|",
                    *map(assignment, masters),
                ]
            )
        )
    return "\n\n".join(text)


def link(page: str, exercise: ExerciseCells) -> str:
    """An exercise's number, title and stars, leading to it; the stars stay
    beside the last word."""
    heading = HEADING.search(exercise.text.source)[0].removeprefix("### ")
    title = f"{exercise.number} {plain(exercise.title)}"
    return f"[{title}]({page}#{slug(heading)})\u00a0{stars(exercise.text)}"


def assignment(path: Path) -> str:
    """A row of the table: title, summary line and what the title cell
    says of time and points."""
    nb = nbformat.read(path, as_version=4)
    first = next(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    about = re.search(r"^> +(.+)$", first, re.MULTILINE)
    effort = re.search(r"About [^;*]+; \d+ points", first)
    return (
        f"| {title_of(nb, path.stem)} | {about[1] if about else ''} | "
        f"{effort[0] if effort else ''} |"
    )
