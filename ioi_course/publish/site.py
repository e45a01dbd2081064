"""The website: what nbdev and Quarto are given, with the repository's address filled in from settings.ini."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml
from nbformat import NotebookNode

from ioi_course.project import settings
from ioi_course.publish.made_pages import write_pages

def write_site_metadata(root: Path) -> Path:
    """Write nbs/site.yml, the part of the site's configuration that comes from settings.ini, for _quarto.yml."""
    meta = settings(root)
    website = {
        "title": meta["repo"],
        "description": meta["description"],
        "site-url": meta["doc_url"],
        "repo-url": meta["git_url"],
        "repo-branch": meta["branch"],
        "repo-subdir": "nbs",
    }
    path = root / "nbs" / "site.yml"
    path.write_text(yaml.safe_dump({"website": website}, sort_keys=False), encoding="utf-8")
    return path


def prepare(root: Path) -> None:
    """Write into nbs/ what the site has beside the chapters: its metadata and the pages that are made, not written."""
    write_site_metadata(root)
    write_pages(root)


def stage(root: Path) -> Path:
    """Let nbdev prepare the pages for Quarto; returns the folder of the staged pages."""
    from nbdev.serve import proc_nbs

    prepare(root)
    before = Path.cwd()
    os.chdir(root)  # nbdev finds its configuration from the current folder
    try:
        return Path(proc_nbs(n_workers=0, force=True))
    finally:
        os.chdir(before)


class PageHead:
    """nbdev's last step on a page: title and summary of its first cell become Quarto's, and the rest of the cell stays.

    pyproject.toml names it in place of nbdev's own step, which throws that rest away and renames 02_lens to lens.
    """

    def __init__(self, nb: NotebookNode):
        self.nb = nb

    def begin(self) -> None:
        from fastcore.nbio import mk_cell

        first = self.nb.cells[0]
        head = re.match(r"# +(?P<title>.+)\n+> +(?P<description>.+)\n*", first.source)
        if head is None:
            raise ValueError(f"{self.nb.path_} must begin with a line '# title' and a line '> what it is about'.")
        first.source = first.source[head.end() :] or None  # nbdev drops cells without a source
        front = yaml.safe_dump(head.groupdict(), sort_keys=False, allow_unicode=True)
        self.nb.cells.insert(0, mk_cell(f"---\n{front}---\n", "raw"))
