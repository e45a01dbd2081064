"""The website as far as it can be seen without Quarto: configuration, staged pages, links, made pages, the guide."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from typer.testing import CliRunner

from ioi_course import checks, cli, plots
from ioi_course.checks.core import Exercise
from ioi_course.project import find_root, settings
from ioi_course.publish.exercises import exercises
from ioi_course.publish.made_pages import EXPORTED, described, pictures
from ioi_course.publish.pages import slug
from ioi_course.publish.run import chapter_name, chapters
from ioi_course.publish.site import PageHead
from ioi_course.roles import PAPER

ROOT = find_root()
NBS = ROOT / "nbs"
NOTEBOOKS = {chapter_name(path, ROOT): nbformat.read(path, as_version=4) for path in chapters(ROOT)}
GUIDE = (NBS / "instructor_guide.qmd").read_text(encoding="utf-8")
CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
MADE = {"gallery.qmd", "exercises.qmd", "circuit.html", "lab.html"}  # written by `ioi-course docs`, not by hand
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]+)?\)")
# What Quarto 1.7 allows in these places (quarto-cli, src/resources/schema/definitions.yml and document-*.yml).
ALLOWED = {
    "": "project metadata-files execute lang format website",
    "project": "type title output-dir render resources pre-render post-render preview lib-dir",
    "execute": "enabled eval echo output warning include cache freeze",
    "format": "html",
    "format.html": "theme respect-user-color-scheme css toc toc-depth code-copy code-fold html-math-method",
    "format.html.theme": "light dark",
    "website": "title description favicon site-url site-path repo-url repo-subdir repo-branch repo-actions reader-mode "
    "search navbar sidebar page-navigation back-to-top-navigation bread-crumbs page-footer open-graph code-links",
    "website.navbar": "title logo background foreground search pinned collapse collapse-below left right tools",
    "website.sidebar": "id title logo search tools contents style background foreground border alignment "
    "collapse-level pinned header footer",
}
ITEM = set("text href icon aria-label menu rel target section contents auto".split())


def items(contents) -> list:
    """The entries of a sidebar or navbar, those of sections included."""
    found = []
    for item in contents:
        found.append(item)
        if isinstance(item, dict) and isinstance(item.get("contents"), list):
            found += items(item["contents"])
    return found


def targets(contents) -> list[str]:
    """What the entries lead to."""
    return [item if isinstance(item, str) else item["href"] for item in items(contents) if item_leads(item)]


def item_leads(item) -> bool:
    return isinstance(item, str) or "href" in item


# Configuration


def test_configuration_is_what_quarto_knows():
    site = yaml.safe_load((NBS / "site.yml").read_text()) if (NBS / "site.yml").exists() else {}
    for config in (CONFIG, site):
        for place, allowed in ALLOWED.items():
            part = config
            for key in filter(None, place.split(".")):
                part = part.get(key, {})
            assert set(part) <= set(allowed.split()), f"unknown keys in {place or '_quarto.yml'}"
    for item in items(CONFIG["website"]["sidebar"]["contents"]) + CONFIG["website"]["navbar"]["left"]:
        assert isinstance(item, str) or set(item) <= ITEM
    assert (NBS / "_quarto.yml").is_symlink() and (NBS / "_quarto.yml").resolve() == ROOT / "_quarto.yml"


def test_site_offers_what_a_reader_needs():
    site, form = CONFIG["website"], CONFIG["format"]["html"]
    assert site["search"] and site["navbar"]["search"] and site["page-navigation"]
    assert set(form["theme"]) == {"light", "dark"}
    assert site["repo-actions"] == ["source", "issue"]
    sections = [item["section"] for item in site["sidebar"]["contents"]]
    assert sections == ["Start", "Chapters", "Exercises and assignments", "Reference", "Appendix", "Library"]
    assert not CONFIG["execute"]["enabled"], "pages show stored outputs"


def test_sidebar_names_every_page_once():
    listed = targets(CONFIG["website"]["sidebar"]["contents"])
    written = {f"{name}.ipynb" for name in NOTEBOOKS} | {
        path.relative_to(NBS).as_posix() for folder in (NBS, NBS / "reference") for path in folder.glob("*.qmd")
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == written | MADE
    assert set(targets(CONFIG["website"]["navbar"]["left"])) <= set(listed)
    chapter_rows = [name for name in listed if re.match(r"\d\d_", name)]
    assert chapter_rows == sorted(chapter_rows), "chapters in reading order: next and previous follow it"


# What nbdev hands to Quarto


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    """The staged pages of a copy of this project."""
    copy = tmp_path_factory.mktemp("copy")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    script = "from pathlib import Path; from ioi_course.publish.site import stage; stage(Path('.').resolve())"
    env = os.environ | {"PYTHONPATH": str(copy)}
    result = subprocess.run([sys.executable, "-c", script], cwd=copy, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return copy / "_proc"


def pages(staged: Path) -> dict[Path, str]:
    """The Markdown of every staged page, outputs in Markdown left out."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(staged.rglob("*.qmd"))}
    for path in sorted(staged.rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path] = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] != "code")
    return texts


def test_every_page_has_title_and_summary(staged):
    for path, text in pages(staged).items():
        front = yaml.safe_load(text.split("---\n")[1])
        assert front["title"] and front["description"], path.name
        assert "output-file" not in front, "a page is called as its notebook is"


def test_opening_paragraphs_stay(staged):
    """All of a chapter's first cell but title and summary, which Quarto shows from the front matter."""
    for name, nb in NOTEBOOKS.items():
        cells = json.loads((staged / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        rest = nb.cells[0].source.split("\n> ", 1)[1].partition("\n")[2].strip()
        assert rest in text, name


def test_page_without_a_summary_is_refused():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title only")])
    nb.path_ = "nbs/x.ipynb"
    with pytest.raises(ValueError, match="x.ipynb must begin with a line '# title' and a line '> "):
        PageHead(nb).begin()


def anchors(text: str) -> set[str]:
    """What a link into a page may name: the anchors that headings give themselves, and those that Quarto makes."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    named = set(re.findall(r"\{#([\w-]+)\}", prose))
    return named | {slug(plain(title)) for title in re.findall(r"^#{1,6} (.+)$", prose, re.MULTILINE)}


def plain(markdown: str) -> str:
    """A heading without the addresses of its links."""
    return re.sub(r"\]\([^)]*\)", "]", markdown)


def test_no_dead_link_inside_the_site(staged):
    """Pages, pictures and anchors; what the sidebar lists is there, too."""
    texts, dead = pages(staged), []
    count = 0
    for path, text in texts.items():
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        for target, anchor in LINK.findall(prose):
            count += 1
            there = (path.parent / target).resolve() if target else path
            if there in (staged / "circuit.html", staged / "lab.html"):
                continue
            if not there.is_file():
                dead.append(f"{path.name}: {target}")
            elif anchor and anchor[1:] not in anchors(texts[there]):
                dead.append(f"{path.name}: {target}{anchor}")
    assert count > 200 and not dead
    for target in targets(CONFIG["website"]["sidebar"]["contents"]):
        assert target in ("circuit.html", "lab.html") or (staged / target).is_file(), target


def test_student_edition_leads_to_pages_that_exist(staged):
    address = settings(ROOT)["doc_url"]
    links = set()
    for path in (ROOT / "student").glob("*.ipynb"):
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        links |= set(re.findall(re.escape(address) + r"([\w/.]*)", text))
    assert links
    for link in links - {"lab.html"}:
        name = re.sub(r"\.html$", "", link)
        assert any((staged / f"{name}{end}").is_file() for end in (".ipynb", ".qmd")), f"{address}{link}"


def test_figures_are_staged_with_picture_and_table(staged):
    for name, nb in NOTEBOOKS.items():
        alone = list(pictures(nb))
        assert list(pictures(nbformat.read(staged / f"{name}.ipynb", as_version=4))) == alone, name


def test_site_names_the_repository_of_the_settings(staged):
    site = yaml.safe_load((staged / "site.yml").read_text())["website"]
    meta = settings(ROOT)
    assert site["repo-url"] == meta["git_url"] and site["site-url"] == meta["doc_url"]
    assert site["repo-branch"] == meta["branch"] and site["repo-subdir"] == "nbs"


# Made pages


def test_gallery_shows_every_plot(staged):
    text = (staged / "gallery.qmd").read_text(encoding="utf-8")
    shown = [(n, picture) for n, nb in NOTEBOOKS.items() for _, picture in pictures(nb)]
    files = re.findall(r"\]\((gallery/[\w-]+\.svg)\)", text)
    assert len(files) == len(set(files)) == len(shown) > 30
    assert sorted((staged / name).read_bytes() for name in files) == sorted(picture for _, picture in shown)
    alternatives = re.findall(r"\[!\[(.*?)\]\(gallery/", text)
    assert len(alternatives) == len(files) and all(len(alt) > 30 for alt in alternatives)


def test_every_exported_module_has_a_page(staged):
    """Each public function and class stands on its module's page with its signature."""
    modules = [path for path in (ROOT / "ioi_course").rglob("*.py") if EXPORTED.search(path.read_text("utf-8"))]
    assert len(modules) == len(list((staged / "api").glob("*.qmd"))) > 15
    for path in modules:
        tree = ast.parse(path.read_text("utf-8"))
        name = ".".join(path.relative_to(ROOT / "ioi_course").with_suffix("").parts)
        text = (staged / "api" / f"{name}.qmd").read_text(encoding="utf-8")
        public = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"}
        assert public == set(re.findall(r"^## (\w+) \{", text, re.MULTILINE)), name


def test_signature_and_docstring():
    source = '''class Pair:
    """Two of them.

    More."""

    left: int  # the first
    right: int = 0

    @property
    def both(self): return self.left + self.right


def add(
    a: int,  # one
    b: int = 1,
) -> int:
    """The sum."""
    return a + b
'''
    pair, add = ast.parse(source).body
    lines = source.splitlines()
    fields = "class Pair:\n    left: int  # the first\n    right: int = 0"
    assert described(lines, pair) == [f"```python\n{fields}\n```", "Two of them.\n\nMore."]
    head = "def add(\n    a: int,  # one\n    b: int = 1,\n) -> int:"
    assert described(lines, add) == [f"```python\n{head}\n```", "The sum."]
    assert described(lines, pair.body[-1]) == ["```python\ndef both(self): return self.left + self.right\n```"]


def test_exercises_are_listed(staged):
    text = (staged / "exercises.qmd").read_text(encoding="utf-8")
    wanted = [found.number for nb in NOTEBOOKS.values() for found in exercises(nb)]
    assert re.findall(r"(?:\| |<br>)(\d+\.\d+) ", text) == wanted
    assert f"{len(wanted)} exercises" in text
    masters = [path for path in (ROOT / "assignments").glob("*/*.ipynb")]
    assert len(re.findall(r"^\| .* \| About .* points \|$", text, re.MULTILINE)) == len(masters)


# The first page


def test_first_page_fits_a_screen():
    """What one learns, where to begin and the circuit as it was published, in few words."""
    first = NOTEBOOKS["index"].cells[0].source
    words = re.sub(r"!\[[^\]]*\]\(.*?\)|\]\(.*?\)", "", first).split()
    assert len(words) < 210
    assert "learn to" in first and "(00_setup.ipynb)" in first
    picture = re.search(r"!\[([^\]]{100,})\]\((images/\S+)\)", first)
    assert (NBS / picture[2]).read_text(encoding="utf-8").strip() == plots.circuit_diagram(PAPER).svg


# The instructor guide


def minutes() -> dict[int, int]:
    """How long each chapter says that it takes."""
    found = {}
    for name, nb in NOTEBOOKS.items():
        if re.match(r"\d\d_", name):
            found.setdefault(int(name[:2]), 0)  # chapter 0 has two pages
            found[int(name[:2])] += int(re.search(r"(\d+) minutes", nb.cells[0].source)[1])
    return found


def test_schedules_add_up():
    """In each of the three schedules the minutes are those of the chapters, and each assignment is due once."""
    times = minutes()
    tables = re.findall(r"^\| (?:day|week) \|.*?(?=\n\n)", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(tables) == 3
    for table, last in zip(tables, (12, 14, 14), strict=True):
        taught = []
        for first, end, total in re.findall(r"^\| \d+ \| (\d+)(?:–(\d+))? \| (\d+) \|", table, re.MULTILINE):
            rows = list(range(int(first), int(end or first) + 1))
            assert sum(times[number] for number in rows) == int(total), rows
            taught += rows
        assert taught == list(range(last + 1))
        assert re.findall(r"\| ([A-D]) \|$", table, re.MULTILINE) == list("ABCD")
    assert f"take {round(sum(times.values()) / 60)} hours" in GUIDE
    assert f"take {round(sum(times.values()) / 60)} hours" in NOTEBOOKS["index"].cells[0].source


def test_mistakes_are_those_of_the_checks():
    """Each name in the guide's table is a misconception that so many exercises' checks know."""
    known = [check for check in vars(checks).values() if isinstance(check, Exercise)]
    names = [{mistake.name for mistake in check.misconceptions} for check in known]
    total = sum(len(check.misconceptions) for check in known)
    assert f"The checks of the {len(known)} exercises recognise {total} wrong answers" in GUIDE
    rows = re.findall(r"^\| (\w[^|]+) \| [^|]+ \| (\d+) \|$", GUIDE.partition("## Mistakes")[2], re.MULTILINE)
    assert len(rows) > 10
    for name, count in rows:
        assert sum(name in each for each in names) == int(count), name


def test_guide_names_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (\w+)", GUIDE):
        assert target in {"a", "an"} or re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.app, ["grade", "--help"]).output
    for option in set(re.findall(r"(?<=[ `])--[a-z]+", GUIDE.partition("## Grade")[2])):
        assert option in shown, option
