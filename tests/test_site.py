"""The website as far as it can be seen without Quarto: configuration, staged pages,
links, made pages, the guide."""

import ast
import html
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from ioi_course import checks, cli, plots
from ioi_course.checks.core import Exercise
from ioi_course.claims import ClaimTable
from ioi_course.project import find_root, settings
from ioi_course.publish.cards import wordless
from ioi_course.publish.exercises import exercises
from ioi_course.publish.figures import for_both
from ioi_course.publish.finish import llms
from ioi_course.publish.framed import MAIN, framed, missing
from ioi_course.publish.lab_page import FIRST
from ioi_course.publish.landing import ABOUT, measured, opening
from ioi_course.publish.made_pages import pictures, untitled
from ioi_course.publish.navigation import sidebars
from ioi_course.publish.pages import slug
from ioi_course.publish.run import chapter_name, chapters
from ioi_course.publish.signatures import EXPORTED, described
from ioi_course.publish.staging import LONG, MARKER, PageHead, shown, uncaptioned
from ioi_course.publish.tables import tidy
from ioi_course.roles import PAPER

ROOT = find_root()
NBS = ROOT / "nbs"
NOTEBOOKS = {
    chapter_name(path, ROOT): nbformat.read(path, as_version=4)
    for path in chapters(ROOT)
}
PAGES = NOTEBOOKS | {
    path.relative_to(NBS).with_suffix("").as_posix(): nbformat.read(path, as_version=4)
    for path in sorted((NBS / "library").rglob("*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts
}
GUIDE = (NBS / "instructor_guide.qmd").read_text(encoding="utf-8")
CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
SIDEBARS = {bar["id"]: bar["contents"] for bar in sidebars(ROOT)}
# written by `ioi-course docs`, not by hand
MADE = {"gallery.qmd", "exercises.qmd", "circuit.qmd", "lab.qmd"}
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]+)?\)")
# What Quarto 1.9 allows in these places (quarto-cli,
# src/resources/schema/definitions.yml and document-*.yml).
ALLOWED = {
    "": "project metadata-files execute lang format filters website",
    "project": (
        "type title output-dir render resources pre-render post-render preview lib-dir"
    ),
    "execute": "enabled eval echo output warning include cache freeze",
    "format": "html",
    "format.html": (
        "theme respect-user-color-scheme css grid toc toc-depth code-copy code-fold "
        "code-overflow html-math-method html-table-processing include-in-header"
    ),
    "format.html.grid": "sidebar-width body-width margin-width gutter-width",
    "format.html.theme": "light dark",
    "website": (
        "title description favicon site-url site-path repo-url repo-subdir repo-branch "
        "repo-actions reader-mode search navbar sidebar page-navigation "
        "back-to-top-navigation bread-crumbs page-footer open-graph code-links"
    ),
    "website.navbar": (
        "title logo background foreground search pinned collapse collapse-below left "
        "right tools"
    ),
    "website.sidebar": (
        "id title logo search tools contents style background foreground border "
        "alignment collapse-level pinned header footer"
    ),
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
    return [
        item if isinstance(item, str) else item["href"]
        for item in items(contents)
        if item_leads(item)
    ]


def item_leads(item) -> bool:
    return isinstance(item, str) or "href" in item


# Configuration


def test_configuration_is_what_quarto_knows(staged):
    site = yaml.safe_load((staged / "site.yml").read_text(encoding="utf-8"))
    for config in (CONFIG, site):
        for place, allowed in ALLOWED.items():
            part = config
            for key in filter(None, place.split(".")):
                part = part.get(key, {})
            for each in part if isinstance(part, list) else [part]:
                assert set(each) <= set(allowed.split()), (
                    f"unknown keys in {place or '_quarto.yml'}"
                )
    bars = [bar["contents"] for bar in site["website"]["sidebar"]]
    for item in (
        items([each for bar in bars for each in bar])
        + CONFIG["website"]["navbar"]["left"]
    ):
        assert isinstance(item, str) or set(item) <= ITEM
    assert (NBS / "_quarto.yml").is_symlink() and (
        NBS / "_quarto.yml"
    ).resolve() == ROOT / "_quarto.yml"


def test_site_offers_what_a_reader_needs():
    site, form = CONFIG["website"], CONFIG["format"]["html"]
    assert site["search"] and site["navbar"]["search"] and site["page-navigation"]
    assert set(form["theme"]) == {"light", "dark"}
    assert site["repo-actions"] == ["source", "issue"]
    assert not CONFIG["execute"]["enabled"], "pages show stored outputs"


def test_sidebars_name_every_page_once():
    """All but the first page, the circuit's and the lab, which belong to none."""
    listed = [target for bar in SIDEBARS.values() for target in targets(bar)]
    written = {f"{name}.ipynb" for name in PAGES} | {"library/log.md"}
    written |= {
        path.relative_to(NBS).as_posix()
        for path in NBS.rglob("*.qmd")
        if "circuit" not in path.stem
    } | MADE
    assert len(listed) == len(set(listed))
    assert set(listed) == written - {"index.ipynb", "circuit.qmd", "lab.qmd"}
    chapter_rows = [name for name in SIDEBARS["chapters"] if isinstance(name, str)]
    assert chapter_rows == sorted(chapter_rows) and len(chapter_rows) == sum(
        n[0].isdigit() for n in NOTEBOOKS
    )


def test_top_bar_says_where_one_is():
    """Quarto highlights a link on each page of the sidebar that holds its target: each
    has a sidebar of its own."""
    links = {item["text"]: item["href"] for item in CONFIG["website"]["navbar"]["left"]}
    holders = {
        text: [name for name, bar in SIDEBARS.items() if href in targets(bar)]
        for text, href in links.items()
    }
    assert all(holders.pop(text) == [] for text in ("Start", "The circuit", "The lab"))
    assert sorted(holders.values()) == sorted([name] for name in SIDEBARS)
    for name, found in SIDEBARS.items():
        assert targets(found)[0] in links.values(), (
            f"the bar leads to the first page of {name}"
        )


def test_one_name_for_a_page(staged):
    """Titles have the chapter's number, and the first page's table, gallery and
    exercises call pages by them."""
    titles = {}
    for path, text in pages(staged).items():
        titles[path.relative_to(staged).as_posix()] = yaml.safe_load(
            text.split("---\n")[1]
        ).get("title")
    chapters_of = {
        name: title for name, title in titles.items() if re.match(r"\d\d_", name)
    }
    assert (
        titles["00_transformer.ipynb"].startswith("0b · ")
        and titles["05_attention_patterns.ipynb"][:4] == "5 · "
    )
    assert all(
        int(title.split(" ")[0].rstrip("b")) == int(name[:2])
        for name, title in chapters_of.items()
    )
    appendices = [
        title for name, title in titles.items() if name.startswith("appendix/")
    ]
    assert sorted(title[:13] for title in appendices) == [
        f"Appendix {letter} · " for letter in "ABC"
    ]
    table = NOTEBOOKS["index"].cells
    rows = [
        row
        for cell in table
        for row in re.findall(r"^\| \[([^\]]+)\]\(([^)]+)\)", cell.source, re.MULTILINE)
    ]
    assert {target for _, target in rows} >= set(chapters_of)
    for made in ("gallery.qmd", "exercises.qmd"):
        text = (staged / made).read_text(encoding="utf-8")
        rows += re.findall(r"^(?:##|\|) \[([^\]]+)\]\(([^)#]+)\)", text, re.MULTILINE)
    assert len(rows) > 50
    for text, target in rows:
        assert text == titles[target], target


def test_buttons_below_the_opening_text(staged):
    """Colab, the student edition where there is one, the notebook, its source. No
    image, which Pandoc frames."""
    for name in PAGES:
        cells = nbformat.read(staged / f"{name}.ipynb", as_version=4).cells
        found = [
            i
            for i, cell in enumerate(cells)
            if cell.source.startswith("::: {.ioi-buttons}")
        ]
        if name == "index":
            assert not found
            continue
        (place,) = found
        before = [cell for cell in cells[:place] if cell.cell_type == "code"]
        assert not before and not any(
            "colab-badge.svg" in cell.source for cell in cells
        ), name
        links = dict(
            re.findall(
                r"^\[(.+?)\]\((.+?)\)\{\.btn .+\}$", cells[place].source, re.MULTILINE
            )
        )
        student = (ROOT / "student" / f"{name}.ipynb").is_file()
        assert ("Without solutions" in links) == student, name
        assert ("Open in Colab" in links) == (not name.startswith("library/")), name
        assert links["View source"].endswith(
            f"/blob/{settings(ROOT)['branch']}/nbs/{name}.ipynb"
        )
        assert (
            links["Download notebook"]
            == f"{settings(ROOT)['doc_url']}notebooks/{name}.ipynb"
        )


def test_the_circuit_is_reached_on_a_head_of_the_chapter(staged):
    """Where the chapter's text, code and outputs name one: the
    one that they name most."""
    heads = {}
    for name in (name for name in NOTEBOOKS if re.match(r"\d", name)):
        text = "\n".join(
            cell.source
            for cell in nbformat.read(staged / f"{name}.ipynb", as_version=4).cells
        )
        heads[int(name[:2]), name[3:]] = re.search(
            r"\[The circuit\]\(circuit\.html(?:#(\w+))?\)", text
        )[1]
    assert (
        heads[5, "attention_patterns"] == heads[9, "name_movers"] == "L9H9"
        and heads[8, "induction_heads"] == "L5H5"
    )
    assert heads[10, "s_inhibition"] in {
        f"L{layer}H{head}" for layer, head in PAPER.roles["S-inhibition"]
    }
    assert heads[0, "setup"] is None


def test_tokens_are_written_as_code(staged):
    """Pandoc turns the quotation marks of a token that begins with a
    space the wrong way round."""
    for path, text in pages(staged).items():
        prose = re.sub(
            r"```.*?```|`[^`\n]*`|\$[^$\n]*\$|<[^>\n]+>", "", text, flags=re.DOTALL
        )
        assert not re.findall(r'(?<![\w"])" [A-Za-z]+"(?![\w"])', prose), path.name


# What nbdev hands to Quarto


def pages(staged: Path) -> dict[Path, str]:
    """The Markdown of every staged page, outputs in Markdown left out."""
    texts = {
        path: path.read_text(encoding="utf-8") for path in sorted(staged.rglob("*.qmd"))
    }
    for path in sorted(staged.rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path] = "\n\n".join(
            "".join(c["source"]) for c in cells if c["cell_type"] != "code"
        )
    return texts


def test_every_page_has_title_and_summary(staged):
    for path, text in pages(staged).items():
        front = yaml.safe_load(text.split("---\n")[1])
        assert front.get("title") or front["pagetitle"], path.name
        assert front["description"], path.name
        assert "output-file" not in front, "a page is called as its notebook is"


def test_opening_paragraphs_stay(staged):
    """All of a chapter's first cell but title and summary, which Quarto shows
    from the front matter."""
    for name, nb in NOTEBOOKS.items():
        cells = json.loads((staged / f"{name}.ipynb").read_text(encoding="utf-8"))[
            "cells"
        ]
        text = "\n\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
        rest = nb.cells[0].source.split("\n> ", 1)[1].partition("\n")[2].strip()
        assert name == "index" or uncaptioned(rest) in text, name


NOTHING = re.compile(r"^#\|")  # a line that only tools read


def lines_of(source: str) -> list[str]:
    """The lines of code in a cell, without directives and the markers of a solution."""
    lines = MARKER.sub("", source).splitlines()
    return [line for line in lines if line.strip() and not NOTHING.match(line)]


def only_for_tools(cell) -> bool:
    return bool(re.search(r"^#\|\s*(hide|default_exp\b.*)$", cell.source, re.MULTILINE))


def test_every_line_of_code_is_staged(staged):
    """In its order, in lessons and in the library; only cells that install the
    course or name a module go."""
    count = 0
    for name, nb in PAGES.items():
        cells = [cell for cell in nb.cells if cell.cell_type == "code"]
        wanted = [
            line
            for cell in cells
            if not only_for_tools(cell)
            for line in lines_of(cell.source)
        ]
        page = nbformat.read(staged / f"{name}.ipynb", as_version=4)
        found = [
            line
            for cell in page.cells
            if cell.cell_type == "code"
            for line in lines_of(cell.source)
        ]
        assert found == wanted, name
        count += len(found)
        text = "\n".join(cell.source for cell in page.cells)
        assert not re.search(
            r"^#\| *export|show_doc\(|__main__|BEGIN SOLUTION|END SOLUTION",
            text,
            re.MULTILINE,
        ), name
    assert count > 10_000


def imported(cell) -> set[str]:
    """The names that a cell binds by importing."""
    try:
        nodes = list(ast.walk(ast.parse(cell.source)))
    except SyntaxError:  # IPython's magics
        return set()
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in imports
        for alias in node.names
    }


def test_every_import_that_a_page_needs_is_shown(staged):
    """What the hidden cells import is used by no cell that is shown, unless a
    shown one imports it, too."""
    for name, nb in PAGES.items():
        every = [cell for cell in nb.cells if cell.cell_type == "code"]
        page = nbformat.read(staged / f"{name}.ipynb", as_version=4)
        seen = [cell for cell in page.cells if cell.cell_type == "code"]
        missing = set().union(*map(imported, every)) - set().union(
            set(), *map(imported, seen)
        )
        used = set()
        for cell in seen:
            try:
                used |= {
                    node.id
                    for node in ast.walk(ast.parse(cell.source))
                    if isinstance(node, ast.Name)
                }
            except SyntaxError:
                continue
        assert not missing & used, name


def test_long_cells_and_mere_checks_are_folded(staged):
    count = 0
    for name in PAGES:
        for cell in nbformat.read(staged / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                long = len(lines_of(cell.source)) > LONG
                count += long
                assert (
                    not long or "#| code-fold: true\n#| code-summary:" in cell.source
                ), (name, cell.source[:80])
    assert count > 20


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("assert a == b", "Check: a == b"),
        ("# why\nassert a\nassert b, 'no'", "2 checks"),
        ("def f():\n" + "    x\n" * 20 + "y = f()", "f, y (22 lines)"),
        ("import a\n" * 21, "Imports (21 lines)"),
        ("%run x\n" * 21, "Code (21 lines)"),
        ("f()\nassert a", None),
        ("x = 1", None),
    ],
)
def test_what_a_fold_says(source, label):
    head = "" if label is None else f'#| code-fold: true\n#| code-summary: "{label}"\n'
    assert shown(source) == head + source.strip()
    assert shown(shown(source)) == shown(source)


def test_markers_of_a_solution_are_not_shown():
    source = (
        "def f():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION\n\n"
        "checks.f(f)"
    )
    assert shown(source) == "def f():\n    return 1\n\nchecks.f(f)"


def test_page_without_a_summary_is_refused():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title only")])
    nb.path_ = "nbs/x.ipynb"
    with pytest.raises(
        ValueError, match="x.ipynb must begin with a line '# title' and a line '> "
    ):
        PageHead(nb).begin()


def anchors(text: str) -> set[str]:
    """What a link into a page may name: the anchors that headings give themselves, and
    those that Quarto makes."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    named = set(re.findall(r"\{#([\w-]+)\}", prose))
    return named | {
        slug(plain(title))
        for title in re.findall(r"^#{1,6} (.+)$", prose, re.MULTILINE)
    }


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
            # of circuit.qmd and lab.qmd
            if there in (staged / "circuit.html", staged / "lab.html"):
                continue
            if not there.is_file():
                dead.append(f"{path.name}: {target}")
            elif anchor and anchor[1:] not in anchors(texts[there]):
                dead.append(f"{path.name}: {target}{anchor}")
    assert count > 200 and not dead
    for bar in SIDEBARS.values():
        for target in targets(bar):
            assert (staged / target).is_file(), target


def test_student_edition_leads_to_pages_that_exist(staged):
    address = settings(ROOT)["doc_url"]
    links = set()
    for path in (ROOT / "student").glob("*.ipynb"):
        text = "\n".join(
            cell.source for cell in nbformat.read(path, as_version=4).cells
        )
        links |= set(re.findall(re.escape(address) + r"([\w/.]*)", text))
    assert links
    for link in links - {"circuit.html", "lab.html"}:
        name = re.sub(r"\.html$", "", link)
        assert any((staged / f"{name}{end}").is_file() for end in (".ipynb", ".qmd")), (
            f"{address}{link}"
        )


def test_figures_are_staged_with_picture_and_table(staged):
    for name, nb in NOTEBOOKS.items():
        alone = [
            (alt, for_both(picture.decode()).encode()) for alt, picture in pictures(nb)
        ]
        page = nbformat.read(staged / f"{name}.ipynb", as_version=4)
        assert list(pictures(page)) == alone, name
        outputs = [
            output
            for cell in page.cells
            if cell.cell_type == "code"
            for output in cell.outputs
        ]
        kinds = {kind for output in outputs for kind in output.get("data", {})}
        assert kinds <= {"text/markdown", "text/plain"}, (
            "for others Quarto loads jQuery and RequireJS"
        )


def test_site_names_the_repository_of_the_settings(staged):
    site = yaml.safe_load((staged / "site.yml").read_text())["website"]
    meta = settings(ROOT)
    assert site["repo-url"] == meta["git_url"] and site["site-url"] == meta["doc_url"]
    assert site["repo-branch"] == meta["branch"] and site["repo-subdir"] == "nbs"


# Made pages


def test_gallery_shows_every_plot(staged):
    """Each with one caption, its title, and words for those who do not see it;
    neither names a function."""
    text = (staged / "gallery.qmd").read_text(encoding="utf-8")
    shown = [(n, picture) for n, nb in NOTEBOOKS.items() for _, picture in pictures(nb)]
    rows = re.findall(
        r'<figure(?: class="wide")?><a href="([\w/]+)\.html"><img '
        r'src="(gallery/[\w-]+\.svg)" alt="([^"]+)" loading="lazy"></a>'
        r"<figcaption>(.+?)</figcaption></figure>",
        text,
    )
    files = [file for _, file, _, _ in rows]
    assert len(files) == len(set(files)) == len(shown) > 30 and text.count(
        "<figure"
    ) == len(rows)
    assert [name for name, *_ in rows] == [name for name, _ in shown]
    kept = sorted((staged / name).read_text(encoding="utf-8") for name in files)
    wanted = [for_both(untitled(picture.decode())) for _, picture in shown]
    assert kept == sorted(f"{picture.rstrip()}\n" for picture in wanted)
    for _, file, alt, caption in rows:
        drawn = (staged / file).read_text(encoding="utf-8")
        words = html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]+)</text>", drawn)))
        assert caption not in words, "the caption says the title, and the picture too"
        assert "font-size='15'" not in drawn or "circuit_diagram" in drawn, (
            "the rest of a title in two lines"
        )
        wide = int(re.search(r"width='(\d+)'", drawn)[1]) > 600
        assert (
            'class="wide"><a href="'
            in re.search(rf'<figure[^>]*><a href="[^"]+"><img src="{file}"', text)[0]
        ) == wide
        assert len(alt) > 30 and 5 < len(caption) < 120 and alt != caption
        assert not re.match(r"[a-z]+_[a-z]+: ", alt) and not re.match(
            r"[a-z]+_[a-z]+: ", caption
        )


def test_no_page_loads_a_picture_from_the_network(staged):
    """Where that is blocked, the console has an error, and a
    reader a broken picture."""
    for path, text in pages(staged).items():
        assert not re.findall(r"!\[[^\]]*\]\(https?:[^)]*\)", text), path.name
        assert not re.findall(r"<(?:img|script|link)[^>]+(?:src|href)=.https?:", text)


def test_cards_have_a_picture_without_words(staged):
    """Each chapter one, cut to what is drawn; words would be too small to read."""
    cards = {path.stem: path for path in (staged / "gallery").glob("*-card.svg")}
    chapters_of = {name for name in NOTEBOOKS if re.match(r"\d", name)}
    assert set(cards) == {f"{name}-card" for name in chapters_of} | {"circuit-card"}
    for path in cards.values():
        picture = path.read_text(encoding="utf-8")
        assert "<text" not in picture and "<title" not in picture, path
        _, _, width, height = map(
            float, re.search(r'viewBox=["\'](.+?)["\']', picture)[1].split()
        )
        assert 100 < width < 1000 and 60 < height < 1000, path


def test_a_wordless_picture_is_cut_to_its_shapes():
    text = "<text x='9' y='9'>far away</text>"
    shapes = "<g transform='translate(20 30) scale(10 5)'><path d='M0 0h4v2h-4z'/></g>"
    svg = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 900'>{}</svg>"
    for drawn, box in {
        shapes: "14 24 52 22",
        "<circle cx='50' cy='50' r='4'/>": "40 40 20 20",
        "<path d='M10 20H110V70M10 20Q60 -20 110 20'/>": "4 -26 112 102",
        (
            "<defs><path d='M0 0L900 900'/></defs><rect x='1' y='2' "
            "width='8' height='8'/>"
        ): "-5 -4 20 20",
    }.items():
        assert f'viewBox="{box}"' in wordless(svg.format(drawn + text)), drawn
    with pytest.raises(ValueError, match="nothing but words"):
        wordless(svg.format(text))


def test_tables_of_pandas_are_made_fit_for_a_page():
    """One row of heads, short cells in one line, no style of their own, and each
    sentence with its column's name."""
    rows = [["L9H9", "1.00 ± 0.02"], ["a much longer label", "0.5"]]
    frame = pd.DataFrame(rows, columns=["head", "the effect"]).set_index("head")
    made = tidy(frame.to_html())
    assert made.count("<tr") == 3 and "<th>head</th><th>the effect</th>" in made
    assert "<td>1.00\u00a0±\u00a00.02</td>" in made and "a much longer" in made
    assert "<style" not in tidy(frame._repr_html_())
    plain_frame = frame.reset_index().to_html()
    assert tidy(plain_frame).count("<th></th>") == 1, "no names of an index: no change"
    both = frame.rename_axis(columns="both named")
    assert tidy(both.to_html()).count("<tr") == 4, "two names: both rows stay"
    claims = ClaimTable("", {})._repr_html_()
    names = set(re.findall(r'data-of="([^"]+)" style="text-align: left', tidy(claims)))
    assert {"synthetic", "smollm2"} <= names and claims.count("<td") == tidy(
        claims
    ).count("data-of")
    assert tidy("<table><tr><td>1 ± 2</td></tr></table>").count("\u00a0") == 0


def test_landing_page_explains_the_models_that_it_counts():
    assert set(measured(ROOT)) <= set(ABOUT)


def test_every_exported_module_has_a_page(staged):
    """Its notebook: the source, then each public function and class with its signature,
    where nbdev's links lead."""
    modules = [
        path
        for path in (ROOT / "ioi_course").rglob("*.py")
        if EXPORTED.search(path.read_text("utf-8"))
    ]
    assert len(modules) > 50
    for path in modules:
        tree = ast.parse(path.read_text("utf-8"))
        name = path.relative_to(ROOT / "ioi_course").with_suffix("")
        cells = nbformat.read(staged / "library" / f"{name}.ipynb", as_version=4).cells
        public = {
            n.name
            for n in tree.body
            if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"
        }
        assert public == set(
            re.findall(r"^### (\w+) \{#\1\}$", cells[-1].source, re.MULTILINE)
        ), name


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
    assert described(lines, pair) == [
        f"```python\n{fields}\n```",
        "Two of them.\n\nMore.",
    ]
    head = "def add(\n    a: int,  # one\n    b: int = 1,\n) -> int:"
    assert described(lines, add) == [f"```python\n{head}\n```", "The sum."]
    assert described(lines, pair.body[-1]) == [
        "```python\ndef both(self): return self.left + self.right\n```"
    ]


def test_exercises_are_listed(staged):
    text = (staged / "exercises.qmd").read_text(encoding="utf-8")
    wanted = [found.number for nb in NOTEBOOKS.values() for found in exercises(nb)]
    found = re.findall(
        r"(?:\| |<br>)\[(\d+\.\d+) [^\]]+\]\([\w/]+\.ipynb#(.+?)\)", text
    )
    assert [number for number, _ in found] == wanted
    assert all(anchor.startswith(f"exercise-{number}-") for number, anchor in found)
    assert f"{len(wanted)} exercises" in text
    masters = [path for path in (ROOT / "assignments").glob("*/*.ipynb")]
    assert len(re.findall(r"^\| .* \| About .* points \|$", text, re.MULTILINE)) == len(
        masters
    )


# The first page


def test_landing_page_says_what_the_index_says(staged):
    """Headline, sentence and answer, as README has them, and a card for each
    chapter with its minutes."""
    page = nbformat.read(staged / "index.ipynb", as_version=4)
    front = yaml.safe_load(page.cells[0].source.split("---\n")[1])
    assert (
        front["page-layout"] == "custom"
        and front["sidebar"] is False
        and "title" not in front
    )
    text = "\n\n".join(
        cell.source for cell in page.cells if cell.cell_type == "markdown"
    )
    for said in opening(NOTEBOOKS["index"].cells[0].source).values():
        assert html.escape(said, quote=False) in html.unescape(text).replace(
            "&", "&amp;"
        ), said
        assert said in (ROOT / "README.md").read_text(encoding="utf-8"), said
    cards = text.partition('class="ioi-cards"')[2].partition("</ol>")[0]
    for name in NOTEBOOKS:
        assert (f'href="{name}.html"' in cards) == bool(re.match(r"\d", name)), name
    assert (
        cards.count(" minutes</p>") == len(SIDEBARS["chapters"]) - 1
        and "None" not in text
    )
    for target in re.findall(r'(?:href|src)="(?!https?:|#)([^"#]+)', text):
        page_of = [
            target,
            re.sub(r"html$", "ipynb", target),
            re.sub(r"html$", "qmd", target),
        ]
        assert re.sub("html$", "qmd", target) in MADE | {FIRST} or any(
            (staged / each).is_file() for each in page_of
        ), target
    assert (
        text.index("ioi-promise")
        < text.index('id="ioi-lab"')
        < text.index("ioi-cards")
        < text.index("make course")
    )
    assert (
        text.index('id="ioi-lab"')
        < text.index("learn to\n")
        < text.index("Who it is for")
    )
    assert (
        "| chapter | the question" not in text and "images/circuit.svg" not in text
    ), "shown once"


def test_pages_that_stand_alone_are_framed():
    """What is in their <main>, with their own styles, in a page that Quarto
    has nothing to add to."""
    alone = f"""<!DOCTYPE html><html lang="en"><head><title>A &amp; B</title>
<meta name="description" content="What &quot;it&quot; is.">
<style>body {{ margin: 0; }}</style>
<style class="own">.ioi-tool {{ top: 0 }}</style></head>
<body><nav aria-label="Course"><a href="index.html">All</a></nav>
{MAIN}<header><h1>A</h1></header><script>const a = `x${{"```"}}`;</script></main>
</body></html>"""
    made = framed(alone, ("Another", "b.html"))
    front, _, body = made[4:].partition("---\n")
    fields = yaml.safe_load(front)
    assert (
        fields["pagetitle"] == "A & B"
        and fields["description"] == 'What "it" is.'
        and "title" not in fields
    )
    assert fields["page-layout"] == "custom" and fields["sidebar"] is False
    assert (
        "<nav" not in body
        and "margin: 0" not in body
        and ".ioi-tool { top: 0 }" in body
    )
    assert '<p><a href="b.html">Another</a></p>\n</header>' in body
    assert body.count("````") == 2, "a fence longer than theirs"
    for broken in (
        "<html></html>",
        alone.replace("<main", "<div"),
        alone.replace('class="own"', ""),
    ):
        with pytest.raises(ValueError, match="not all of title, description"):
            framed(broken)
    assert "title: The lab\n" in missing("The lab", "a < b") and "a &lt; b" in missing(
        "The lab", "a < b"
    )


def test_every_page_of_ones_own_layout_has_a_main(staged):
    """Quarto leaves it out of the layout "custom", and its search looks for it."""
    for path, text in pages(staged).items():
        custom = yaml.safe_load(text.split("---\n")[1]).get("page-layout") == "custom"
        assert text.count("<main") == text.count("</main>") == int(custom), path.name
    assert "page-layout: custom" in (staged / "index.ipynb").read_text(encoding="utf-8")


def test_no_link_in_a_drawing_stands_in_a_page(staged):
    """Quarto's script reads each link's address as text once the page is there; in
    a drawing it is none."""
    for path, text in pages(staged).items():
        for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            assert "<a " not in drawing, path.name


def test_llms_txt_has_every_page(staged):
    """Also those that are only text, and the tools."""
    (staged.parent / "nbs" / "lab.qmd").write_text(
        "---\npagetitle: The lab\ndescription: It runs.\n---\n"
    )
    text, address = llms(staged.parent), settings(ROOT)["doc_url"]
    (staged.parent / "nbs" / "lab.qmd").unlink()
    assert f"- [The lab]({address}lab.html): It runs." in text
    for path in [*pages(staged)]:
        href = path.relative_to(staged).with_suffix(".html").as_posix()
        assert f"]({address}{href})" in text or href == "index.html", href


def test_first_page_fits_a_screen():
    """What one learns, where to begin and the circuit as it was
    published, in few words."""
    first = NOTEBOOKS["index"].cells[0].source
    words = re.sub(r"!\[[^\]]*\]\(.*?\)|\]\(.*?\)", "", first).split()
    assert len(words) < 210
    assert "learn to" in first and "(00_setup.ipynb)" in first
    picture = re.search(r"!\[([^\]]{100,})\]\((images/\S+)\)", first)
    assert (NBS / picture[2]).read_text(
        encoding="utf-8"
    ).strip() == plots.circuit_diagram(PAPER).svg


# The instructor guide


def minutes() -> dict[int, int]:
    """How long each chapter says that it takes."""
    found = {}
    for name, nb in NOTEBOOKS.items():
        if re.match(r"\d\d_", name):
            found.setdefault(int(name[:2]), 0)  # chapter 0 has two pages
            found[int(name[:2])] += int(
                re.search(r"(\d+) minutes", nb.cells[0].source)[1]
            )
    return found


def test_schedules_add_up():
    """In each of the three schedules the minutes are those of the chapters, and each
    assignment is due once."""
    times = minutes()
    tables = re.findall(
        r"^\| (?:day|week) \|.*?(?=\n\n)", GUIDE, re.MULTILINE | re.DOTALL
    )
    assert len(tables) == 3
    for table, last in zip(tables, (12, max(times), max(times)), strict=True):
        taught = []
        for first, end, total in re.findall(
            r"^\| \d+ \| (\d+)(?:–(\d+))? \| (\d+) \|", table, re.MULTILINE
        ):
            rows = list(range(int(first), int(end or first) + 1))
            assert sum(times[number] for number in rows) == int(total), rows
            taught += rows
        assert taught == list(range(last + 1))
        assert re.findall(r"\| ([A-D]) \|$", table, re.MULTILINE) == list("ABCD")
    assert f"take {round(sum(times.values()) / 60)} hours" in GUIDE
    assert (
        f"take {round(sum(times.values()) / 60)} hours"
        in NOTEBOOKS["index"].cells[0].source
    )


def test_mistakes_are_those_of_the_checks():
    """Each name in the guide's table is a misconception that so many
    exercises' checks know."""
    known = [check for check in vars(checks).values() if isinstance(check, Exercise)]
    names = [{mistake.name for mistake in check.misconceptions} for check in known]
    total = sum(len(check.misconceptions) for check in known)
    assert (
        f"The checks of the {len(known)} exercises recognise {total} wrong answers"
        in GUIDE
    )
    rows = re.findall(
        r"^\| (\w[^|]+) \| [^|]+ \| (\d+) \|$",
        GUIDE.partition("## Mistakes")[2],
        re.MULTILINE,
    )
    assert len(rows) > 10
    for name, count in rows:
        assert sum(name in each for each in names) == int(count), name


def test_guide_names_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (\w+)", GUIDE):
        assert target in {"a", "an"} or re.search(
            rf"^{target}:", makefile, re.MULTILINE
        ), f"make {target}"
    shown = (
        CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
        .invoke(cli.app, ["grade", "--help"])
        .output
    )
    ours = re.sub(
        r"systemd-run [^`]*?(?=ioi-course)", "", GUIDE.partition("## Grade")[2]
    )  # it has options of its own
    for option in set(re.findall(r"(?<=[ `])--[a-z]+", ours)):
        assert option in shown, option
