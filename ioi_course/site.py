"""The website: what Quarto is given, with the repository's address filled in from settings.ini."""

from __future__ import annotations

import os
from configparser import ConfigParser
from pathlib import Path

import yaml


def settings(root: Path) -> dict[str, str]:
    """The metadata of settings.ini, the one place where the repository and its owner are named."""
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


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


def stage(root: Path) -> Path:
    """Let nbdev prepare the pages for Quarto; returns the folder of the staged pages."""
    from nbdev.serve import proc_nbs

    write_site_metadata(root)
    before = Path.cwd()
    os.chdir(root)  # nbdev finds its configuration from the current folder
    try:
        return Path(proc_nbs(n_workers=0, force=True))
    finally:
        os.chdir(before)
