"""Pages that stand alone, the circuit's and the lab's, in the website's frame."""

from __future__ import annotations

import html
import re
from importlib.resources import files

import yaml
from jinja2 import Template

# Of a page with nothing but the bar around it. Quarto leaves it to such a page to have
# a <main>, which its search looks for.
FRONT = {"page-layout": "custom", "toc": False, "sidebar": False, "repo-actions": False}
MAIN = '<main class="content" id="quarto-document-content">'
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
ABOUT = re.compile(r'<meta name="description" content="([^"]*)">')
OWN = re.compile(r'<style class="own">.*?</style>', re.DOTALL)


def tool_css() -> str:
    """The styles that these pages share, all below one class."""
    source = files("ioi_course") / "data" / "page" / "tool.css.j2"
    return Template(source.read_text(encoding="utf-8")).render()


def raw(text: str) -> str:
    """HTML as a block of Markdown that is passed through."""
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text) or [""]))
    return f"{fence}{{=html}}\n{text}\n{fence}"


def framed(
    page: str,  # of HTML, standing alone
    also: tuple[str, str] | None = None,  # text and address of a link below its heading
) -> str:
    """The page as Markdown for Quarto: its <main> with its own styles.

    ValueError for a page that is not made as the course makes them.
    """
    start, end, own = page.find(MAIN), page.rfind("</main>"), OWN.search(page)
    title, about = TITLE.search(page), ABOUT.search(page)
    if start < 0 or end < start or not (own and title and about):
        parts = "title, description, <style class=own> and <main>"
        raise ValueError(f"The page has not all of {parts} as the course makes them.")
    body = page[start : end + len("</main>")]
    if also:
        words, href = map(html.escape, also)
        body = body.replace(
            "</header>", f'<p><a href="{href}">{words}</a></p>\n</header>', 1
        )
    name, words = html.unescape(title[1].strip()), html.unescape(about[1])
    fields = FRONT | {"pagetitle": name, "description": words}
    return f"{front(fields)}\n{raw(own[0])}\n\n{raw(body)}\n"


def front(fields: dict) -> str:
    """What a page of Quarto's begins with."""
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def missing(title: str, why: str) -> str:
    """A page in the place of one that could not be made."""
    about = "This page was not made with the site."
    fields = {"title": title, "description": about, "repo-actions": False}
    said = raw(f"<p>This page was not made: {html.escape(why)}.</p>")
    return f"{front(fields)}\n{said}\n"
