"""The student edition: stubs instead of solutions, nothing stored, and what
needs an answer says so."""

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.project import find_root
from ioi_course.publish.exercises import END, SOLUTION, exercises, student_edition
from ioi_course.publish.run import chapters

ROOT = find_root()
CHAPTERS = {
    path.name: nbformat.read(path, as_version=4)
    for path in chapters(ROOT)
    if re.match(r"\d\d_", path.name)
}
STUDENT = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "student").glob("*.ipynb"))
}


def secrets(nb) -> set[str]:
    """Lines that stand in a solution, and nowhere else in the chapter: not in the
    library, not in an example."""
    inside, outside = set(), set()
    for cell in nb.cells:
        if cell.cell_type == "code":
            parts = [found[0] for found in SOLUTION.finditer(cell.source)]
            inside |= {
                line.strip() for part in parts for line in part.splitlines()[1:-1]
            }
            outside |= {
                line.strip() for line in SOLUTION.sub("", cell.source).splitlines()
            }
        else:
            outside |= {line.strip() for line in cell.source.splitlines()}
    return {
        line
        for line in inside - outside
        if len(line) > 8 and line not in {"else:", "return"}
    }


def strings(value) -> Iterator[str]:
    """All text in a notebook: sources, outputs, metadata, keys."""
    if isinstance(value, str):
        yield value
    for part in (
        [*value, *value.values()]
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else ()
    ):
        yield from strings(part)


def leaks(chapter, text: str) -> set[str]:
    """The secret lines of a chapter that a notebook file holds as a line anywhere, or a
    long one as part of a line."""
    found = {
        line.strip()
        for string in strings(json.loads(text))
        for line in string.splitlines()
    }
    return {
        line
        for line in secrets(chapter)
        if line in found or (len(line) > 40 and any(line in x for x in found))
    }


def test_nothing_has_drifted():
    spec = importlib.util.spec_from_file_location(
        "student_tool", ROOT / "tools" / "student.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.editions(ROOT) == STUDENT, "run `make student`"


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_solution_leaks(name):
    found = exercises(CHAPTERS[name])
    assert not leaks(CHAPTERS[name], STUDENT[name])
    assert (
        END not in STUDENT[name]
        and "<summary>Answer" not in STUDENT[name]
        and "Thoughts</summary>" not in STUDENT[name]
    )
    if found:
        assert secrets(CHAPTERS[name]), "a chapter with exercises has something to hide"
        nb = nbformat.reads(STUDENT[name], as_version=4)
        line = sorted(secrets(CHAPTERS[name]))[0]
        for place in ("source", "output", "metadata"):
            leaky = nbformat.from_dict(json.loads(json.dumps(nb)))
            cell = next(cell for cell in leaky.cells if cell.cell_type == "code")
            if place == "source":
                cell.source += f"\n    {line}"
            elif place == "output":
                cell.outputs = [nbformat.v4.new_output("stream", text=line)]
            else:
                cell.metadata["note"] = line
            assert leaks(CHAPTERS[name], nbformat.writes(leaky)), (
                "the check itself sees a leak"
            )


@pytest.mark.parametrize("name", STUDENT)
def test_nothing_is_stored(name):
    nb = nbformat.reads(STUDENT[name], as_version=4)
    nbformat.validate(nb)
    for cell in nb.cells:
        assert not re.search(r"^#\|", cell.source, re.MULTILINE), (
            "nbdev's directives mean nothing to a student"
        )
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert cell.metadata == {}
    assert set(nb.metadata) <= {"kernelspec"}


@pytest.mark.parametrize("name", STUDENT)
def test_every_exercise_is_there_with_its_stub_and_hint(name):
    nb = nbformat.reads(STUDENT[name], as_version=4)
    sources = [cell.source for cell in nb.cells]
    for found in exercises(CHAPTERS[name]):
        at = sources.index(found.stub.source)
        assert f"### Exercise {found.number} · {found.title}" in sources[at - 1]
        assert (
            found.text.source.count("<summary>Hint")
            == sources[at - 1].count("<summary>Hint")
            == 1
        )
    assert f"blob/main/student/{name}" in sources[1] and "colab-badge.svg" in sources[1]
    assert "google.colab" in sources[2] and "pip install" in sources[2]


@pytest.mark.parametrize("name", STUDENT)
def test_links_lead_to_the_student_edition_or_to_the_website(name):
    for target in re.findall(
        r"\]\(([^)\s]+)\)",
        "\n".join(c.source for c in nbformat.reads(STUDENT[name], 4).cells),
    ):
        if not re.match(r"https?://|#|mailto:", target):
            assert target.split("#")[0] in STUDENT, f"{target} in {name}"


def test_what_needs_an_answer_says_so():
    """Of all cells after a stub those, and only those, that use the exercise's
    function; a word in a text is no use."""
    for name, text in STUDENT.items():
        defined = set()
        for cell in nbformat.reads(text, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            if "...  # your code" in cell.source:
                tree = ast.parse(cell.source)
                defined |= {
                    node.name
                    for node in tree.body
                    if isinstance(node, ast.FunctionDef | ast.ClassDef)
                }
            else:
                tree = ast.parse(
                    re.sub(r"^( *)%.*", r"\1pass", cell.source, flags=re.MULTILINE)
                )
                used = {
                    node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
                }
                uses = defined & used - {
                    node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)
                }
                assert bool(uses) == cell.source.startswith("# Needs your answer"), name


def test_a_chapter_runs_with_answers(tmp_path, monkeypatch):
    """With each solution in the place of its stub nothing waits and nothing fails."""
    monkeypatch.setenv("IOI_COURSE_MODEL", "synthetic")
    name = "02_logit_difference.ipynb"
    solved = nbformat.reads(STUDENT[name], as_version=4)
    solutions = {
        found.stub.source: found.solution.source for found in exercises(CHAPTERS[name])
    }
    for cell in solved.cells:
        cell.source = solutions.pop(cell.source, cell.source)
    assert not solutions
    NotebookClient(
        solved, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()  # raises otherwise
    assert "waits for exercise" not in nbformat.writes(solved)


@pytest.fixture(scope="module")
def dwarf(tmp_path_factory) -> Path:
    """A model of 36 heads with random weights and the course's vocabulary, in which a
    chapter takes seconds."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, tokenizer = tmp_path_factory.mktemp("dwarf") / "dwarf", build_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    size = {
        "n_layer": 6,
        "n_head": 6,
        "n_embd": 72,
        "n_positions": 256,
        "vocab_size": len(tokenizer),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # it has opinions, of no use
        model = GPT2LMHeadModel(GPT2Config(**size, **ends, initializer_range=0.2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", STUDENT)
def test_run_all_never_stops(name, tmp_path, monkeypatch, kernel, dwarf):
    """As it is handed out no cell ends in an error; those that need an answer say for
    which exercise they wait.

    On a dwarf: the chapter that it comes from, which differs in the solutions only,
    runs on `synthetic` in test_notebooks.
    """
    monkeypatch.setenv("IOI_COURSE_MODEL", str(dwarf))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    nb = nbformat.reads(STUDENT[name], as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    # raises otherwise
    NotebookClient(nb, timeout=300, kernel_name=kernel, resources=resources).execute()
    answers = set()
    for cell in nb.cells:
        if cell.cell_type == "code" and "...  # your code" in cell.source:
            answers |= {
                node.name
                for node in ast.parse(cell.source).body
                if hasattr(node, "name")
            }
        elif cell.source.startswith("# Needs your answer") and uses_for_sure(
            cell.source, answers
        ):
            said = "".join(output.get("text", "") for output in cell.outputs)
            assert re.search(r"This cell waits for exercise \d+\.\d+\.", said), (
                cell.source
            )


def uses_for_sure(source: str, names: set[str]) -> bool:
    """Whether a cell needs an answer on every model: not only in a branch or
    in a function's body."""
    tree = ast.parse(re.sub(r"^( *)%.*", r"\1pass", source, flags=re.MULTILINE))

    def uses(node: ast.AST) -> bool:
        if isinstance(node, ast.FunctionDef | ast.If):
            return False
        return (
            isinstance(node, ast.Name)
            and node.id in names
            or any(map(uses, ast.iter_child_nodes(node)))
        )

    return uses(tree)


def test_student_edition_leaves_the_chapter_as_it_is():
    nb = CHAPTERS["02_logit_difference.ipynb"]
    before = nbformat.writes(nb)
    student_edition(
        nb,
        "02_logit_difference",
        "https://example.org/",
        "[badge](https://example.org/x.ipynb)",
    )
    assert nbformat.writes(nb) == before
