"""What is added to the website after Quarto has rendered it: notebooks to download,
llms.txt, and each page's head."""

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
CARD = "images/card.png"  # what other sites show with a link to ours


def finish(root: Path, site: Path) -> None:
    """Complete the rendered site in this folder."""
    for name in [*course(root), *library(root)]:
        target = site / "notebooks" / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "nbs" / f"{name}.ipynb", target)
    (site / "llms.txt").write_text(llms(root), encoding="utf-8")
    address = settings(root)["doc_url"]
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        page.write_text(
            with_head(text, page.relative_to(site).as_posix(), address),
            encoding="utf-8",
        )


def with_head(text: str, href: str, address: str) -> str:
    """A page with the address that it has on the web, and the card for links to it; as
    it is if it has them."""
    if 'rel="canonical"' in text or (title := TITLE.search(text)) is None:
        return text
    there = address + re.sub(r"(^|/)index\.html$", r"\1", href)
    said = {
        "og:type": "website",
        "og:url": there,
        "og:title": html.unescape(title[1].strip()),
        "og:image": address + CARD,
    }
    if about := DESCRIPTION.search(text):
        said["og:description"] = html.unescape(about[1])
    rows = [f'<link rel="canonical" href="{html.escape(there)}">']
    rows += [
        f'<meta property="{key}" content="{html.escape(value)}">'
        for key, value in said.items()
    ]
    rows.append('<meta name="twitter:card" content="summary_large_image">')
    return text.replace("</head>", "\n".join(rows) + "\n</head>", 1)


def llms(root: Path) -> str:
    """The site's contents for language models (llmstxt.org): each page with
    its address and summary."""
    meta, names = settings(root), course(root)
    parts = [f"# {meta['repo']}\n\n> {meta['description']}"]
    groups = {
        "Chapters": "",
        "Appendices": "appendix",
        "Reference": "reference",
        "Library": "library",
    }
    pages = {
        name: nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4)
        for name in [*names, *library(root)]
    }
    for heading, folder in groups.items():
        rows = []
        for name, nb in pages.items():
            if (
                name != "index"
                and (name.partition("/")[0] if "/" in name else "") == folder
            ):
                title = page_title(name, title_of(nb, name), names)
                about = SUMMARY.search(nb.cells[0].source)
                rows.append(
                    f"- [{title}]({meta['doc_url']}{name}.html)"
                    + (f": {about[1]}" if about else "")
                )
        parts.append(f"## {heading}\n\n" + "\n".join(rows))
    rows = []
    for path in sorted((root / "nbs").rglob("*.qmd")):
        said = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
        href = path.relative_to(root / "nbs").with_suffix(".html").as_posix()
        rows.append(
            f"- [{said.get('title') or said['pagetitle']}]({meta['doc_url']}{href}): "
            f"{said['description']}"
        )
    return "\n\n".join([*parts, "## More\n\n" + "\n".join(rows)]) + "\n"
