"""The website: what nbdev and Quarto are given, with the repository's address filled
in from settings.ini."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from ioi_course.project import settings
from ioi_course.publish.figures import night_script
from ioi_course.publish.made_pages import write_pages
from ioi_course.publish.navigation import sidebars


def write_site_metadata(root: Path) -> Path:
    """Write nbs/site.yml, what _quarto.yml takes from settings.ini, and the sidebars
    with the pages that there are."""
    meta = settings(root)
    website = {
        "title": meta["repo"],
        "description": meta["description"],
        "site-url": meta["doc_url"],
        "repo-url": meta["git_url"],
        "repo-branch": meta["branch"],
        "repo-subdir": "nbs",
        "sidebar": sidebars(root),
    }
    path = root / "nbs" / "site.yml"
    path.write_text(
        yaml.safe_dump({"website": website}, sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )
    return path


def prepare(root: Path) -> None:
    """Write into nbs/ what the site has beside the chapters: its metadata, the plots'
    libraries, and the pages that are made."""
    from ioi_course.plots import page_head

    write_site_metadata(root)
    assets = root / "nbs" / "assets"
    page_head(assets, "assets/")  # copies plotly.js and circuitsvis there
    (assets / "night.js").write_text(night_script(), encoding="utf-8")
    write_pages(root)


def stage(root: Path) -> Path:
    """Let nbdev prepare the pages for Quarto; returns the
    folder of the staged pages."""
    from nbdev.serve import proc_nbs

    prepare(root)
    before = Path.cwd()
    os.chdir(root)  # nbdev finds its configuration from the current folder
    try:
        return Path(proc_nbs(n_workers=0, force=True))
    finally:
        os.chdir(before)
