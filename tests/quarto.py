"""A mock-up of what Quarto makes of a staged page: Pandoc's HTML in a frame like
Quarto's, with the site's own styles.

The classes and the columns are those of Quarto 1.9's pages, and so are the rules
that reach into a page: those of Bootstrap for plain elements and for tables, and
Quarto's own `.hidden` and `.column`. Quarto makes Pandoc's tables and those of
pandas tables of Bootstrap's kind. A page of the layout "custom" gets no <main>.
When the document is there, Quarto's script reads the address of each link as text;
links in a drawing have none.
"""

import html
import json
import re
from pathlib import Path

import nbformat
import pypandoc
import yaml
from bs4 import BeautifulSoup

from ioi_course.publish.framed import MAIN

FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="quarto:offset" content="{up}"><title>{title}</title>
<style>{frame}</style><style>{theme}</style>
<link rel="stylesheet" href="{up}styles.css">{header}</head>
<body class="nav-sidebar floating nav-fixed quarto-{scheme}">
<script>
addEventListener("DOMContentLoaded", () => {{
  for (const link of document.querySelectorAll("a"))
    link.href = link.href.replace("/index.html", "/");
}});
addEventListener("hashchange", () =>
  scrollTo(0, scrollY - document.querySelector("#quarto-header").clientHeight));
</script>
<header id="quarto-header" class="fixed-top">
<nav class="navbar navbar-expand-lg" aria-label="Site">
<button class="navbar-toggler" type="button" aria-label="Toggle navigation"
  >☰</button>{bar}
<button class="quarto-search" type="button" aria-label="Search"
  >⌕</button></nav></header>
<div id="quarto-content" class="quarto-container {layout}">
{sidebar}
{body}
</div></body></html>
"""
STYLE = """
*, ::before, ::after { box-sizing: border-box; }
html { font-size: 17px; }
body { margin: 0; font-family: system-ui, "Segoe UI", Roboto, sans-serif;
  line-height: 1.5; color: var(--ioi-ink);
  background: var(--ioi-paper); }
a { color: var(--ioi-link); }
h1, h2, h3, h4 { line-height: 1.2; margin: 0 0 0.5rem; font-weight: 500; }
h2 { margin-top: 2rem; padding-bottom: 0.5rem;
  border-bottom: 1px solid #888; opacity: 0.9; }
p { margin: 0 0 1rem; }
figure { margin: 0 0 1rem; }
legend { float: left; width: 100%; padding: 0;
  margin-bottom: 0.5rem; font-size: calc(1.275rem + 0.3vw); }
label { display: inline-block; }
small { font-size: 0.875em; }
caption { padding: 0.5rem 0; color: #999; }
.table { width: 100%; margin-bottom: 1rem; vertical-align: top; border-color: #888; }
.table > :not(caption) > * > * { padding: 0.5rem; color: inherit;
  background-color: transparent; border-bottom-width: 1px;
  box-shadow: inset 0 0 0 9999px transparent; }
.table > thead { vertical-align: bottom; border-bottom: 1px solid #888; }
.table { border-top: 1px solid #888; border-bottom: 1px solid #888; }
.table-sm > :not(caption) > * > * { padding: 0.25rem; }
.table a { word-break: break-word; }
.small { font-size: 0.875em; }
img, svg { vertical-align: middle; }
button, input, select { margin: 0; font: inherit; }
div.column { flex: auto; overflow-x: auto; }
.cell { margin-bottom: 1rem; }
.fixed-top { position: sticky; top: 0; z-index: 1030; }
.navbar button { background: none; border: 0; color: #e6edf5; }
.navbar { background: #12304f; padding: 0.5rem 1rem;
  display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; }
.navbar a { color: #e6edf5; }
.btn { display: inline-block; padding: 0.25rem 0.5rem;
  border: 1px solid transparent; border-radius: 4px;
  text-decoration: none; font-size: 0.875rem; }
.btn-lg { padding: 0.5rem 1rem; font-size: 1.15rem; }
.hidden, [hidden] { display: none !important; }
#quarto-content { display: grid; grid-template-columns: 1.5em 5fr
  minmax(22px, 44px) minmax(44px, 132px)
  minmax(22px, 44px) 1rem minmax(500px, calc(960px - 3em)) 1rem
  minmax(18px, 36px) minmax(36px, 108px)
  minmax(18px, 36px) 5fr 1.5em; }
#quarto-sidebar { grid-column: 3 / 6; font-size: 0.85rem; padding-top: 1rem; }
#quarto-sidebar ul { list-style: none; padding: 0; }
main.content { grid-column: 7; min-width: 0; padding-top: 1rem; }
#quarto-content.page-layout-custom { display: block; }
#quarto-content.page-layout-custom main { padding: 0; }
@media (max-width: 991px) {
  #quarto-content { grid-template-columns: 1em minmax(0, 1fr) 1em; }
  #quarto-sidebar { display: none; }
  main.content { grid-column: 2; }
}
"""


def theme(folder: Path, scheme: str) -> str:
    """The rules of a theme's file, which are plain CSS."""
    return (
        (folder / f"{scheme}.scss")
        .read_text(encoding="utf-8")
        .partition("/*-- scss:rules --*/")[2]
    )


def markdown(path: Path) -> str:
    """A staged page as the Markdown that Quarto hands to Pandoc."""
    if path.suffix == ".qmd":
        return path.read_text(encoding="utf-8")
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts += _code(cell) if cell.cell_type == "code" else [cell.source]
    return "\n\n".join(parts)


def bootstrapped(made: str) -> str:
    """HTML after Quarto's work on its tables, in format-html-bootstrap.ts."""
    page = BeautifulSoup(made, "html.parser")
    first = page.select("tbody > tr:first-child.odd")
    pandoc = [id(row.find_parent("table")) for row in first]
    changed = []
    for table in page.find_all("table"):
        pandas = "dataframe" in table.get("class", [])
        if pandas or id(table) in pandoc:
            del table["style"], table["border"]
            computed = pandas or table.find_parent(class_="cell")
            more = ["table-sm", "table-striped", "small"] if computed else []
            table["class"] = [*table.get("class", []), "table", *more]
            for row in table.find_all("tr") if pandas else []:
                del row["style"]
        changed.append(str(table))
    # Only tables are written anew: drawings would lose the case of their attributes.
    left = iter(changed)
    return re.sub(r"<table\b.*?</table>", lambda _: next(left), made, flags=re.DOTALL)


def _code(cell) -> list[str]:
    source = "\n".join(
        line for line in cell.source.splitlines() if not line.startswith("#|")
    )
    summary = re.search(r'^#\| code-summary: (".*")$', cell.source, re.MULTILINE)
    parts = [f"````{{.python .cell-code}}\n{source}\n````"]
    if summary:
        heading = html.escape(json.loads(summary[1]))
        fold = (
            f'```{{=html}}\n<details class="code-fold"><summary>{heading}</summary>\n'
            "```"
        )
        parts = [fold, *parts, "```{=html}\n</details>\n```"]
    for output in cell.outputs:
        data = output.get("data", {"text/plain": "".join(output.get("text", ""))})
        shown = (
            data.get("text/markdown")
            or f"````\n{''.join(data.get('text/plain', ''))}\n````"
        )
        parts.append(f":::: {{.cell-output .cell-output-display}}\n\n{shown}\n\n::::")
    return [":::::: {.cell}", *parts, "::::::"]


def render(folder: Path, page: str, scheme: str) -> Path:
    """Write a staged page (its path below `folder`) as HTML in one colour scheme,
    beside it; returns the file."""
    path = folder / page
    text = markdown(path)
    front = yaml.safe_load(text.split("---\n")[1])
    config = yaml.safe_load((folder / "_quarto.yml").read_text(encoding="utf-8"))
    body, filters = text.split("---\n", 2)[2], config["filters"]
    made = pypandoc.convert_text(
        body,
        "html5",
        format="markdown",
        extra_args=["--wrap=none", "--section-divs"],
        filters=[str(folder / each) for each in filters],
    )
    made = bootstrapped(made)
    made = re.sub(r'href="([^":]+)\.(?:ipynb|qmd)', r'href="\1.html', made)
    site = yaml.safe_load((folder / "site.yml").read_text(encoding="utf-8"))["website"]
    up = "../" * page.count("/") or "./"
    links = "".join(
        f'<a href="{up}{re.sub("(ipynb|qmd)$", "html", item["href"])}">'
        f"{item['text']}</a>"
        for item in config["website"]["navbar"]["left"]
    )
    custom = front.get("page-layout") == "custom"
    bar = next((bar for bar in site["sidebar"] if page in str(bar["contents"])), None)
    pages = [
        each for each in (bar or {"contents": []})["contents"] if isinstance(each, str)
    ]
    rows = "".join(
        f'<li><a href="#">{each.partition(".")[0]}</a></li>' for each in pages
    )
    title = front.get("title") or front["pagetitle"]
    head = (
        f'<h1 class="title">{title}</h1><p '
        f'class="description">{front["description"]}</p>'
    )
    out = path.with_suffix(f".{scheme}.html")
    out.write_text(
        FRAME.format(
            up=up,
            title=title,
            frame=STYLE,
            theme=theme(folder, scheme),
            bar=links,
            body=made if custom else f"{MAIN}{head}{made}</main>",
            scheme=scheme,
            header=(folder / "assets.html").read_text(encoding="utf-8"),
            layout="page-layout-custom" if custom else "page-layout-article",
            sidebar=f'<nav id="quarto-sidebar" aria-label="Pages"><ul>{rows}</ul></nav>'
            if bar and not custom
            else "",
        ),
        encoding="utf-8",
    )
    return out
