"""Write README.md from nbs/index.ipynb, and the circuit's picture that both show."""

import re
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

from ioi_course.plots import circuit_diagram
from ioi_course.project import settings
from ioi_course.publish.pages import title_of
from ioi_course.publish.run import chapters
from ioi_course.roles import PAPER

ROOT = Path(__file__).resolve().parent.parent
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def colab_links() -> str:
    """One badge per chapter, with the repository's address from settings.ini."""
    meta = settings(ROOT)
    rows = []
    for path in chapters(ROOT):
        if path.parent.name == "nbs" and path.stem != "index":
            title = title_of(nbformat.read(path, as_version=4), path.stem)
            where = f"{meta['user']}/{meta['repo']}/blob/{meta['branch']}/nbs/"
            where += quote(path.name)
            where = f"https://colab.research.google.com/github/{where}"
            rows.append(f"- [![Open in Colab]({BADGE})]({where}) {title}")
    return "\n".join(rows)


def readme() -> str:
    """The index notebook as Markdown, with its links seen from the project's folder."""
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    nb.cells = [
        cell
        for cell in nb.cells
        if not re.match(r"#\|\s*hide\s*$", cell.source.partition("\n")[0])
    ]
    nb.metadata.language_info = {"name": "python"}
    priority = ["text/markdown", "text/html", "image/svg+xml", "text/plain"]
    config = Config(NbConvertBase={"display_data_priority": priority})
    text, _ = MarkdownExporter(config=config).from_notebook_node(nb)
    text = re.sub(r"\]\((?!https?:|#|/)([^)]+)\)", r"](nbs/\1)", text)
    # made with the site
    text = text.replace("](nbs/lab.html)", f"]({settings(ROOT)['doc_url']}lab.html)")
    text = text.replace("<!-- colab -->", colab_links())
    text = (
        "<!-- Written by tools/readme.py from nbs/index.ipynb: edit that, then `make "
        "notebooks`. -->\n\n"
    ) + text.strip()
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"


if __name__ == "__main__":
    picture = ROOT / "nbs" / "images" / "circuit.svg"
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(circuit_diagram(PAPER).svg + "\n", encoding="utf-8")
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
