"""Executed chapters as HTML pages that open from the file
system and need no network."""

from __future__ import annotations

import html
import re
import shutil
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml
from jinja2 import Template
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode, from_dict
from nbformat.v4 import new_markdown_cell, new_notebook
from pygments.formatters import HtmlFormatter

from ioi_course.publish.run import chapter_name, write_file
from ioi_course.publish.figures import night_script, readable
from ioi_course.publish.exercises import BEGIN, END, is_solution
from ioi_course.publish.mend import mended, presentable
from ioi_course.plots import page_head
from ioi_course.publish.badge import is_badge
from ioi_course.publish.tables import tidy

DATA = files("ioi_course") / "data" / "page"
HIDDEN = re.compile(r"^#\|\s*(hide|include:\s*false)\s*$", re.MULTILINE)
DIRECTIVE = re.compile(r"^#\|.*\n?", re.MULTILINE)
EXPORTED = re.compile(r"^#\|\s*export\s*$", re.MULTILINE)
DEFINED = re.compile(r"^(?:def|class) (\w+)|^([A-Z][A-Z_]+)(?=[ :,])", re.MULTILINE)
MARKER = re.compile(rf"^[ \t]*({BEGIN}|{END})\n", re.MULTILINE)
# names no column: a table's corner
EMPTY_HEADER = re.compile(r"<th(?: scope=col)?>(?:\s*</th>|(?=<th))")
LONG = 12  # lines; longer library cells are folded
# pages that the website has, and a run need not
ON_THE_SITE = re.compile(r"\]\(((?:lab|circuit)\.html[^)\s]*)\)")
NOTEBOOK_LINK = re.compile(r"(\]\([^)\s]*?)\.(?:ipynb|qmd)(#[^)\s]*)?\)")
TEXT_PAGES = (  # .qmd below nbs/ that pages lead to
    "glossary",
    "notation",
    "instructor_guide",
    "reference/questions",
    "reference/since_2022",
)
FRONT = re.compile(r"\A---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
ANCHORED = re.compile(r"^(#+) (.+?) \{#([\w-]+)\}$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """Where a chapter's page stands below the output folder, and what it is called."""

    title: str
    href: str


def slug(heading: str) -> str:
    """The anchor that Quarto gives a heading: letters, digits and _-. in lower case,
    from the first letter on."""
    kept = "".join(
        c for c in html.unescape(heading).lower() if c.isalnum() or c in "_-. "
    )
    return re.sub(r"^[^a-z]+", "", "-".join(kept.split()))


class _Renderer(IPythonRenderer):
    """Headings with the anchors of the website, tables that scroll in a box of their
    own, and formulas as MathML, drawn without a script.

    A formula that cannot be read is shown as written.
    """

    def heading(self, text: str, level: int) -> str:
        anchor = slug(re.sub(r"<[^>]+>", "", text))
        link = f'<a class="anchor-link" href="#{anchor}">¶</a>'
        return f'<h{level} id="{anchor}">{text}{link}</h{level}>\n'

    def table(self, text: str) -> str:
        return f'<div class="wide"><table>\n{text}</table></div>\n'

    def block_math(self, body: str) -> str:
        return f'<div class="formula">{_formula(body, "block")}</div>\n'

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")


def _formula(body: str, display: str) -> str:
    try:
        found = latex_to_mathml(body, display=display)
    except Exception:
        # the converter has many ways to say no; one formula is not worth a page
        return f"<code>{html.escape(body)}</code>"
    # its sign for \setminus is in few fonts, and is no operator; ours is Pandoc's
    return found.replace("<mi>&#x029F5;</mi>", "<mo>∖</mo>")


class _Exporter(HTMLExporter):
    def default_filters(self):
        yield from super().default_filters()
        yield (
            "markdown2html",
            lambda source: MarkdownWithMath(renderer=_Renderer(escape=False)).render(
                source
            ),
        )

    def from_notebook_node(self, nb: NotebookNode) -> tuple[str, dict]:
        """As HTMLExporter's, which then reads the whole page once more, for two things
        that these pages do not need, and takes most of its time there."""
        python = Highlight2HTML(pygments_lexer="ipython3", parent=self)
        self.register_filter("highlight_code", python)
        return TemplateExporter.from_notebook_node(self, nb)


def title_of(nb: NotebookNode, default: str) -> str:
    """A notebook's first heading."""
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (
            found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)
        ):
            return found[1].strip()
    return default


def page_of(path: Path, root: Path, nb: NotebookNode) -> Page:
    """The page of a chapter; nbs/index.ipynb's is
    introduction.html: index.html welcomes."""
    name = chapter_name(path, root)
    return Page(
        title_of(nb, name), "introduction.html" if name == "index" else f"{name}.html"
    )


def _for_reading(nb: NotebookNode, site: str) -> NotebookNode:
    """The notebook as a reader sees it: no badge, hidden cells or directives, solutions
    and long library code folded."""
    nb = from_dict(mended(deepcopy(nb)))
    nb.metadata = NotebookNode(
        language_info={"name": "python", "pygments_lexer": "ipython3"}
    )
    nb.cells = [
        c
        for c in nb.cells
        if not (is_badge(c) or c.cell_type == "code" and HIDDEN.search(c.source))
    ]
    for cell in nb.cells:
        if cell.cell_type == "code":
            exported = EXPORTED.search(cell.source)
            solution = is_solution(cell)
            cell.metadata = NotebookNode()
            for output in cell.outputs:
                if "data" in output:
                    output.data = presentable(output.data)
            cell.source = MARKER.sub("", DIRECTIVE.sub("", cell.source)).strip()
            if solution:
                cell.metadata.folded = "Solution"
            elif exported and cell.source.count("\n") >= LONG:
                cell.metadata.folded = "Library code: "
                cell.metadata.defines = (
                    ", ".join(a or b for a, b in DEFINED.findall(cell.source))
                    or "imports"
                )
        else:
            cell.source = ON_THE_SITE.sub(
                rf"]({site}\1)", NOTEBOOK_LINK.sub(r"\1.html\2)", cell.source)
            )
    nb.cells = [cell for cell in nb.cells if cell.source]
    return nb


def template(name: str) -> Template:
    """A template of the package."""
    return Template((DATA / f"{name}.html.j2").read_text(encoding="utf-8"))


def write_assets(root: Path, out: Path) -> None:
    """Write what the pages share: the style sheet, two scripts, and the
    pictures of nbs/images."""
    (out / "assets").mkdir(parents=True, exist_ok=True)
    if (images := root / "nbs" / "images").is_dir():
        shutil.copytree(images, out / "images", dirs_exist_ok=True)
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    colours = HtmlFormatter(style="xcode").get_style_defs(".highlight")
    css = (DATA / "page.css").read_text(encoding="utf-8") + colours
    css += (
        f"\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"
        f".highlight {{ background: none !important; }}\n"
    )
    (out / "assets" / "page.css").write_text(css, encoding="utf-8")
    script = (DATA / "page.js").read_text(encoding="utf-8")
    (out / "assets" / "page.js").write_text(script, encoding="utf-8")
    (out / "assets" / "night.js").write_text(night_script(), encoding="utf-8")


def write_page(
    nb: NotebookNode,  # executed
    page: Page,
    out: Path,  # the folder that the page's address is seen from
    previous: Page | None = None,
    next: Page | None = None,
    notice: str | None = None,  # a sentence that stands above everything else
    site: str = "",  # the address of the published website, ending in /
) -> Path:
    """Write one executed notebook as a page below `out`, with
    links to its neighbours."""
    exporter = _Exporter(
        template_name="basic",
        raw_template=(DATA / "notebook.html.j2").read_text(encoding="utf-8"),
    )
    body, _ = exporter.from_notebook_node(_for_reading(nb, site))
    up = "../" * page.href.count("/")
    head = page_head(out / "assets", f"{up}assets/")
    body = readable(EMPTY_HEADER.sub("<td></td>", tidy(body)))
    text = template("page").render(
        title=page.title,
        up=up,
        head=head,
        body=body,
        previous=previous,
        next=next,
        notice=notice,
    )
    return write_file(out / page.href, text)


def text_pages(root: Path) -> dict[Path, Page]:
    """The pages without code that the chapters lead to, by their files in nbs/."""
    paths = [root / "nbs" / f"{name}.qmd" for name in TEXT_PAGES]
    there = [path for path in paths if path.is_file()]
    return {
        p: Page(p.stem.replace("_", " ").capitalize(), _text_href(p)) for p in there
    }


def _text_href(path: Path) -> str:
    return next(
        f"{name}.html"
        for name in TEXT_PAGES
        if path.with_suffix("").as_posix().endswith(f"/{name}")
    )


def write_text_page(path: Path, out: Path) -> Page:
    """Write a page without code, with the anchors that its headings name."""
    text = path.read_text(encoding="utf-8")
    if (front := FRONT.match(text)) is None:
        raise ValueError(
            f"{path} must begin with a front matter that gives title and description."
        )
    meta = yaml.safe_load(front[1])
    page = Page(meta["title"], _text_href(path))
    text = ANCHORED.sub(
        lambda h: f'<h{len(h[1])} id="{h[3]}">{h[2]}</h{len(h[1])}>',
        text[front.end() :],
    )
    text = f"# {page.title}\n\n> {meta['description']}\n\n{text}"
    write_page(new_notebook(cells=[new_markdown_cell(text)]), page, out)
    return page
