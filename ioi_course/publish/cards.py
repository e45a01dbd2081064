"""Small pictures for the cards of the first page: a chapter's first plot without
its words, or a drawing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from ioi_course.plots.charts import _role_colours
from ioi_course.roles import PAPER

NUMBER = r"-?\d+(?:\.\d+)?"
STEP = re.compile(rf"([A-Za-z])((?:\s*{NUMBER})*)")
MOVED = re.compile(
    rf"translate\(({NUMBER}) ({NUMBER})\)(?: scale\(({NUMBER}) ({NUMBER})\))?"
)
MARGIN = 6  # around what is drawn
SVG = "http://www.w3.org/2000/svg"
GREY = "#7a7a7a"
TINTS = _role_colours(PAPER)


def wordless(svg: str) -> str:
    """A plot without title, labels and legend, cut to what is left: words cannot be
    read at the size of a card.

    ValueError if nothing is left.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for part in list(parent):
            if part.tag in (f"{{{SVG}}}text", f"{{{SVG}}}title"):
                parent.remove(part)
    points = list(_points(root))
    if not points:
        raise ValueError("The picture holds nothing but words.")
    xs, ys = zip(*points, strict=True)
    left, top = min(xs) - MARGIN, min(ys) - MARGIN
    width, height = max(xs) + MARGIN - left, max(ys) + MARGIN - top
    root.set("viewBox", f"{left:g} {top:g} {width:g} {height:g}")
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    return ElementTree.tostring(root, encoding="unicode")


def _points(node: ElementTree.Element) -> Iterator[tuple[float, float]]:
    """Corners between which the shapes of a picture lie."""
    for part in node:
        kind, here = part.tag.removeprefix(f"{{{SVG}}}"), list(_corners(part))
        if kind != "defs":
            here += _points(part)
        yield from _moved(part.get("transform", ""), here)


def _moved(transform: str, points: list) -> Iterator[tuple[float, float]]:
    if (found := MOVED.match(transform)) is None:
        yield from points
        return
    x, y, wide, high = (float(each or 1) for each in found.groups())
    yield from ((x + wide * a, y + high * b) for a, b in points)


def _corners(part: ElementTree.Element) -> Iterator[tuple[float, float]]:
    kind = part.tag.removeprefix(f"{{{SVG}}}")
    value = {key: float(part.get(key, 0)) for key in ("x", "y", "cx", "cy", "r")}
    if kind == "circle":
        yield value["cx"] - value["r"], value["cy"] - value["r"]
        yield value["cx"] + value["r"], value["cy"] + value["r"]
    elif kind == "rect":
        yield value["x"], value["y"]
        yield (
            value["x"] + float(part.get("width")),
            value["y"] + float(part.get("height")),
        )
    elif kind == "path":
        yield from _along(part.get("d"))


def _along(path: str) -> Iterator[tuple[float, float]]:
    """The points that a path names, those that steer its curves included."""
    x = y = 0.0
    for letter, numbers in STEP.findall(path):
        values = [float(each) for each in re.findall(NUMBER, numbers)]
        start = (x, y) if letter.islower() else (0.0, 0.0)
        if letter in "hH":
            x = start[0] + values[-1]
            yield x, y
        elif letter in "vV":
            y = start[1] + values[-1]
            yield x, y
        elif letter not in "zZ":
            for a, b in zip(values[::2], values[1::2], strict=True):
                x, y = start[0] + a, start[1] + b
                yield x, y


# Chapters whose plots are tables


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    body = "".join(parts)
    return (
        f"<svg xmlns='{SVG}' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}'>{body}</svg>"
    )


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='3' "
        f"fill='{fill}' stroke='{GREY}' stroke-width='0.8'/>"
    )


def _heads() -> str:
    """GPT-2 small's heads, those of the published circuit in the
    colours of their classes."""
    tint = {head: TINTS[role] for role, heads in PAPER.roles.items() for head in heads}
    cells = [
        _box(3 + 18 * head, 3 + 11 * layer, 15, 8, tint.get((layer, head), "none"))
        for layer in range(12)
        for head in range(12)
    ]
    return _svg(219, 135, cells)


def _tokens() -> str:
    """A sentence in tokens: the name that occurs twice, the other one, and the end."""
    io, s, end = (TINTS[k] for k in ("name mover", "duplicate token", "induction"))
    widths = [38, 34, 28, 34, 36, 22, 26, 40, 12, 34, 34, 26, 28, 22]
    tints, parts, x, y = {1: s, 3: io, 9: s, 13: end}, [], 3, 3
    for i, width in enumerate(widths):
        if x + width > 217:
            x, y = 3, y + 34
        parts.append(_box(x, y, width, 24, tints.get(i, "none")))
        x += width + 4
    return _svg(220, y + 27, parts)


def _difference() -> str:
    """Two logits, and how far apart they are."""
    bars = [_box(60, 16, 36, 102, TINTS["name mover"])]
    bars += [_box(132, 64, 36, 54, TINTS["duplicate token"])]
    arrow = "M150 18V62M144 26L150 18L156 26M144 54L150 62L156 54"
    lines = {f"M20 118H200{arrow}": "", "M96 16H170": " stroke-dasharray='3 3'"}
    drawn = [
        f"<path d='{path}' fill='none' stroke='{GREY}' stroke-width='1.5'{style}/>"
        for path, style in lines.items()
    ]
    return _svg(220, 124, [*bars, *drawn])


DRAWN = {
    "00_setup": _heads,
    "01_tokenization": _tokens,
    "02_logit_difference": _difference,
}


def card(name: str, first: str | None) -> str:
    """The picture of a chapter's card, given its first plot if it has one."""
    return DRAWN[name]() if name in DRAWN else wordless(first)
