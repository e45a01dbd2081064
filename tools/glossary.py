"""Link each glossary term from its first use in every chapter to its
entry in nbs/glossary.qmd."""

import re
from pathlib import Path

import nbformat

from ioi_course.publish.run import chapters

ROOT = Path(__file__).resolve().parent.parent
ENTRY = re.compile(
    r"^### (?P<title>.+?) \{#(?P<id>[\w-]+)\}\n<!-- links: (?P<words>.+?) -->$",
    re.MULTILINE,
)
LINK = re.compile(r"\[([^\[\]]+)\]\((?:\.\./)*glossary\.qmd#[\w-]+\)")
NOT_PROSE = re.compile(
    r"""^```.*?^```            # a block of code
    | (?P<ticks>`+).+?(?P=ticks)
    | \$\$.*?\$\$ | \$[^$\n]+\$
    | ^\#+[ ].*?$              # a heading
    | ^>.*?$                   # a quotation; the first one becomes a module's docstring
    | <!--.*?--> | <summary>.*?</summary> | <[^<>\n]+>
    # a link, a picture, or a shape such as [batch, pos]
    | !?\[(?:[^\[\]]|\[[^\[\]]*\])*\](?:\([^)]*\))?
    | https?://\S+""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


def words_of(glossary: str) -> dict[str, str]:
    """The words that lead to an entry, each with the entry's anchor. Each entry names
    its words in a comment."""
    words = {}
    for entry in ENTRY.finditer(glossary):
        for word in entry["words"].split(" | "):
            if words.setdefault(word, entry["id"]) != entry["id"]:
                raise ValueError(
                    f"{word!r} leads to {words[word]} and to {entry['id']}; in "
                    "glossary.qmd, choose one."
                )
    return words


def pattern_of(words: dict[str, str]) -> re.Pattern:
    """Finds what is not prose, or a word, also over two lines or with a
    capital; longer words first."""

    def alternative(word: str) -> str:
        first = (
            f"[{word[0]}{word[0].upper()}]" if word[0].islower() else re.escape(word[0])
        )
        return first + re.escape(word[1:]).replace(r"\ ", r"(?:[ ]+|[ ]*\n[ ]*)")

    either = "|".join(map(alternative, sorted(words, key=len, reverse=True)))
    flags = re.MULTILINE | re.DOTALL | re.VERBOSE
    return re.compile(
        rf"{NOT_PROSE.pattern} | (?<![\w-])(?P<word>{either})(?![\w-])", flags
    )


def link_terms(
    nb: nbformat.NotebookNode, words: dict[str, str], up: str = ""
) -> nbformat.NotebookNode:
    """The notebook with its links to glossary entries made anew; changed in place. `up`
    leads to the glossary."""
    pattern, met = pattern_of(words), set()

    def link(found: re.Match) -> str:
        if found["word"] is None:
            return found[0]
        word = " ".join(found["word"].split())
        anchor = words.get(word) or words[word[0].lower() + word[1:]]
        if anchor in met:
            return found[0]
        met.add(anchor)
        return f"[{found[0]}]({up}glossary.qmd#{anchor})"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = pattern.sub(link, LINK.sub(r"\1", cell.source))
    return nb


def linked(path: Path, root: Path) -> str:
    """The text of a chapter's file with its terms linked."""
    words = words_of((root / "nbs" / "glossary.qmd").read_text(encoding="utf-8"))
    up = "../" * (len(path.relative_to(root / "nbs").parts) - 1)
    return (
        nbformat.writes(link_terms(nbformat.read(path, as_version=4), words, up)) + "\n"
    )


def to_link(root: Path) -> list[Path]:
    """The notebooks whose terms are linked: all but the index,
    which README is made from."""
    return [
        path
        for path in (*chapters(root), *chapters(root, ["library"]))
        if path.stem != "index"
    ]


if __name__ == "__main__":
    for path in to_link(ROOT):
        text = linked(path, ROOT)
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
