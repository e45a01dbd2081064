"""What a module offers, in Markdown: each public function and class with its
signature and docstring."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

EXPORTED = re.compile(r"AUTO[A-Z]+! DO NOT EDIT! File to edit: [./]*nbs/(\S+\.ipynb)")


def module_of(notebook: str, root: Path) -> Path | None:
    """The module that a notebook writes (library/plots/core.ipynb:
    ioi_course/plots/core.py), if there is one."""
    path = (
        root / "ioi_course" / Path(notebook).relative_to("library").with_suffix(".py")
    )
    return (
        path
        if path.is_file() and EXPORTED.search(path.read_text(encoding="utf-8"))
        else None
    )


def signatures(source: str) -> str:
    """A section of Markdown about a module's public functions and classes; each has
    its name for an anchor."""
    parts = ["## Signatures {#signatures}"]
    for heading, lines in _entries(source):
        parts += [heading, *lines]
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _entries(source: str) -> Iterator[tuple[str, list[str]]]:
    tree, lines = ast.parse(source), source.splitlines()
    exported = public_names(tree)
    for node in tree.body:
        if (
            not isinstance(node, ast.FunctionDef | ast.ClassDef)
            or node.name not in exported
        ):
            continue
        yield f"### {node.name} {{#{node.name}}}", described(lines, node)
        methods = node.body if isinstance(node, ast.ClassDef) else []
        for method in methods:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                name = f"{node.name}.{method.name}"
                yield f"#### {name} {{#{name}}}", described(lines, method)


def public_names(tree: ast.Module) -> list[str]:
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            getattr(target, "id", "") == "__all__" for target in node.targets
        ):
            return ast.literal_eval(node.value)
    return []


def described(lines: list[str], node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """A function's signature, or a class's fields, as they stand in the
    source; then the docstring."""
    doc = node.body[0] if ast.get_docstring(node) is not None else None
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    if isinstance(node, ast.ClassDef):
        starts = [d.lineno for m in methods[:1] for d in (m, *m.decorator_list)]
        end = min(starts or [node.end_lineno + 1])
    else:
        end = max(node.body[0].lineno, node.lineno + 1)
    inside = range(doc.lineno, doc.end_lineno + 1) if doc else ()
    kept = [lines[i - 1] for i in range(node.lineno, end) if i not in inside]
    head = textwrap.dedent("\n".join(kept)).strip()
    head = re.sub(r":\n\n+", ":\n", head, count=1)  # where the docstring stood
    about = [inspect.cleandoc(ast.get_docstring(node))] if doc else []
    return [f"```python\n{head}\n```", *about]
