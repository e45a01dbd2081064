"""What is added to the website after Quarto has rendered it: notebooks to download, llms.txt, and each page's head."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import nbformat
import yaml

from ioi_course.project import settings
from ioi_course.publish.navigation import course, library, page_title
from ioi_course.publish.pages import title_of

DESCRIPTION = re.compile(r'<meta name="description" content="([^"]*)"')
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
SUMMARY = re.compile(r"^> *(.+)$", re.MULTILINE)
NAV = re.compile(r'<nav aria-label="Course">.*?</nav>\n?', re.DOTALL)
ALONE = ("circuit.html", "lab.html")  # pages that Quarto only copies
SMOLLM2 = "circuit_smollm2.html"  # another of them, where SmolLM2 was at hand
BAR = """<style>
.site-bar { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: .6rem 1.2rem; border: 0; background: #12304f; }
.site-bar a { color: #e6edf5; text-decoration: none; }
.site-bar a:is(:hover, :focus-visible, [aria-current]) { color: #fff; text-decoration: underline; }
</style>
"""
CARD = "images/card.png"  # what other sites show with a link to ours


def finish(root: Path, site: Path) -> None:
    """Complete the rendered site in this folder."""
    for name in [*course(root), *library(root)]:
        target = site / "notebooks" / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "nbs" / f"{name}.ipynb", target)
    (site / "llms.txt").write_text(llms(root), encoding="utf-8")
    address = settings(root)["doc_url"]
    alone = [name for name in (*ALONE, SMOLLM2) if (site / name).is_file()]
    bar = top_bar(root) if alone else []
    bar += [("The circuit of SmolLM2", SMOLLM2)] * (SMOLLM2 in alone)
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        if page.relative_to(site).as_posix() in alone:
            text = with_bar(text, page.name, bar)
        page.write_text(with_head(text, page.relative_to(site).as_posix(), address), encoding="utf-8")


def top_bar(root: Path) -> list[tuple[str, str]]:
    """The links of the site's top bar, each with the address of its page."""
    bar = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["website"]["navbar"]["left"]
    return [(each["text"], re.sub(r"\.(ipynb|qmd)$", ".html", each["href"])) for each in bar]


def with_bar(text: str, href: str, bar: list[tuple[str, str]]) -> str:
    """A page that stands alone, with the site's top bar in the place of its link to the course."""
    links = [
        f'<a href="{html.escape(address)}"{" aria-current=page" * (address == href)}>{html.escape(name)}</a>'
        for name, address in bar
    ]
    made = f'<nav class="site-bar" aria-label="Site">{"".join(links)}</nav>\n'
    return NAV.sub(lambda found: made, text, count=1).replace("</head>", f"{BAR}</head>", 1)


def with_head(text: str, href: str, address: str) -> str:
    """A page with the address that it has on the web, and the card for links to it; as it is if it has them."""
    if 'rel="canonical"' in text or (title := TITLE.search(text)) is None:
        return text
    there = address + re.sub(r"(^|/)index\.html$", r"\1", href)
    said = {"og:type": "website", "og:url": there, "og:title": html.unescape(title[1].strip()), "og:image": address + CARD}
    if about := DESCRIPTION.search(text):
        said["og:description"] = html.unescape(about[1])
    rows = [f'<link rel="canonical" href="{html.escape(there)}">']
    rows += [f'<meta property="{key}" content="{html.escape(value)}">' for key, value in said.items()]
    rows.append('<meta name="twitter:card" content="summary_large_image">')
    return text.replace("</head>", "\n".join(rows) + "\n</head>", 1)


def llms(root: Path) -> str:
    """The site's contents for language models (llmstxt.org): each page with its address and summary."""
    meta, names = settings(root), course(root)
    parts = [f"# {meta['repo']}\n\n> {meta['description']}"]
    groups = {"Chapters": "", "Appendices": "appendix", "Reference": "reference", "Library": "library"}
    pages = {name: nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4) for name in [*names, *library(root)]}
    for heading, folder in groups.items():
        rows = []
        for name, nb in pages.items():
            if name != "index" and (name.partition("/")[0] if "/" in name else "") == folder:
                title = page_title(name, title_of(nb, name), names)
                about = SUMMARY.search(nb.cells[0].source)
                rows.append(f"- [{title}]({meta['doc_url']}{name}.html)" + (f": {about[1]}" if about else ""))
        parts.append(f"## {heading}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"
