"""What nbdev hands to Quarto of a notebook: every cell that a reader needs, and
nothing that only tools read.

pyproject.toml names `Lesson` and `PageHead` among nbdev's processors, and leaves out
those that they replace: nbdev's own drop exported cells with the imports in them, run
what is left to look up signatures, and drop a page's opening text.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import yaml

from ioi_course.publish.badge import buttons, head_of, is_badge
from ioi_course.publish.exercises import BEGIN, END
from ioi_course.publish.figures import readable
from ioi_course.publish.framed import FRONT, raw
from ioi_course.publish.navigation import course, page_title
from ioi_course.publish.signatures import module_of, signatures
from ioi_course.publish.tables import tidy

LONG = 20  # lines; longer cells are folded
MARKER = re.compile(rf"^[ \t]*(?:{BEGIN}|{END})\n?", re.MULTILINE)
FOLD = re.compile(r"^#\| *code-fold:", re.MULTILINE)
# one that is nothing to Quarto, such as export
DIRECTIVE = re.compile(r"^#\|(?! *code-).*\n?", re.MULTILINE)
PICTURE = re.compile(r"^!\[(?P<words>[^\]]+)\]\((?P<path>[^)\s]+)\)$", re.MULTILINE)
# names no column: a table's corner
EMPTY_HEADER = re.compile(r"<th(?: scope=col)?>(?:\s*</th>|(?=<th))")
UNSHOWN = {"default_exp", "hide"}  # directives of cells that only tools read


class Lesson:
    """nbdev's step that chooses what is shown: exported cells stay, the longest and
    mere checks are folded."""

    def __init__(self, nb):
        self.nb = nb

    def begin(self) -> None:
        from fastcore.nbio import mk_cell

        root, name = place_of(self.nb)
        has_exercises = any(BEGIN in cell.source for cell in self.nb.cells)
        cells = [cell for cell in self.nb.cells if not is_badge(cell)]
        if name != "index":
            cells.insert(
                1,
                mk_cell(buttons(root, name, has_exercises, head_of(cells)), "markdown"),
            )
        for cell in cells:
            if cell.cell_type == "code":
                hidden = UNSHOWN & set(cell.directives_)
                # nbdev drops cells without a source
                cell.source = None if hidden else shown(cell.source)
                for output in cell.get("outputs", []):
                    if "data" in output:
                        output.data = one_form(output.data)
            elif cell.cell_type == "markdown":
                cell.source = uncaptioned(cell.source)
        if name.startswith("library/") and (module := module_of(f"{name}.ipynb", root)):
            if section := signatures(module.read_text(encoding="utf-8")):
                cells.append(mk_cell(section, "markdown"))
        self.nb.cells = cells


def place_of(nb) -> tuple[Path, str]:
    """The project's folder, and the notebook's path below nbs/ without its ending."""
    path = Path(nb.path_).resolve()
    nbs = next(folder for folder in path.parents if folder.name == "nbs")
    return nbs.parent, path.relative_to(nbs).with_suffix("").as_posix()


def shown(source: str) -> str:
    """A cell's source as the site shows it: no marks that only tools read; folded if it
    is long or only checks."""
    source = DIRECTIVE.sub("", MARKER.sub("", source)).strip("\n")
    if FOLD.search(source):
        return source
    code = "\n".join(line for line in source.splitlines() if not line.startswith("#|"))
    label = _checks(code) or (_contents(code) if code.count("\n") >= LONG else "")
    return (
        f"#| code-fold: true\n#| code-summary: {json.dumps(label)}\n{source}"
        if label
        else source
    )


def one_form(data: dict) -> dict:
    """An output's only form on the site. HTML is passed through Markdown: where
    a notebook has outputs of the kind text/html, Quarto loads jQuery and
    RequireJS from the network.
    """
    for kind in (
        "text/markdown",
        "text/html",
        "image/svg+xml",
        "image/png",
        "text/plain",
    ):
        if (text := data.get(kind)) is None:
            continue
        text = "".join(text)
        if kind == "text/html":
            text = EMPTY_HEADER.sub("<td></td>", tidy(readable(text.strip())))
            return {"text/markdown": f"{raw(text)}\n"}
        return {kind: text}
    return data


def uncaptioned(text: str) -> str:
    """A paragraph that is a picture, with its words as alternative text only: Pandoc
    would print them below it, too."""

    def picture(found: re.Match) -> str:
        words = " ".join(found["words"].split()).replace('"', "'")
        return f'![]({found["path"]}){{fig-alt="{words}"}}'

    return PICTURE.sub(picture, text)


def _parsed(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except SyntaxError:  # IPython's magics
        return []


def _checks(code: str) -> str:
    """What a fold says above a cell that only asserts; empty for other cells."""
    body = _parsed(code)
    if not body or not all(isinstance(each, ast.Assert) for each in body):
        return ""
    return (
        f"Check: {ast.unparse(body[0].test)}"
        if len(body) == 1
        else f"{len(body)} checks"
    )


def _contents(code: str) -> str:
    """What a fold says above a long cell: what it defines, or else how long it is."""
    body, names = _parsed(code), []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [
                target.id for target in node.targets if isinstance(target, ast.Name)
            ]
    count = f"{code.count(chr(10)) + 1} lines"
    if (
        not names
        and body
        and all(isinstance(each, ast.Import | ast.ImportFrom) for each in body)
    ):
        return f"Imports ({count})"
    return (
        f"{', '.join(names[:3])}{', …' * (len(names) > 3)} ({count})"
        if names
        else f"Code ({count})"
    )


class PageHead:
    """nbdev's last step on a page: title and summary of its first cell become Quarto's,
    and the rest of the cell stays.

    nbdev's own step throws that rest away and renames 02_lens to lens.
    """

    def __init__(self, nb):
        self.nb = nb

    def begin(self) -> None:
        from fastcore.nbio import mk_cell

        first = self.nb.cells[0]
        head = re.match(r"# +(?P<title>.+)\n+> +(?P<description>.+)\n*", first.source)
        if head is None:
            raise ValueError(
                f"{self.nb.path_} must begin with a line '# title' and a line '> what "
                "it is about'."
            )
        root, name = place_of(self.nb)
        fields = {
            "title": page_title(name, head["title"], course(root)),
            "description": head["description"],
        }
        if name == "index":
            self._first_page(root)
            fields = FRONT | {
                "pagetitle": f"{head['title']}: {fields['description']}",
                **fields,
            }
            del fields["title"]  # the page has a heading of its own
        else:
            # nbdev drops cells without a source
            first.source = first.source[head.end() :] or None
        front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
        self.nb.cells.insert(0, mk_cell(f"---\n{front}---\n", "raw"))

    def _first_page(self, root: Path) -> None:
        """Put the landing page in front of the index notebook's own cells, in place of
        what it says already."""
        from fastcore.nbio import mk_cell

        from ioi_course.publish.landing import first_page

        texts = [cell.source for cell in self.nb.cells if cell.cell_type == "markdown"]
        start, stay, end = first_page(root, texts)
        kept = [
            cell
            for cell in self.nb.cells
            if cell.cell_type == "code" or cell.source in stay
        ]
        ends = [mk_cell(text, "markdown") for text in (start, end)]
        self.nb.cells = [ends[0], *kept, ends[1]]
