"""Where the parts of the circuit's drawing stand on its page: boxes of heads, arrows
between them, columns of positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ioi_course.plots.diagram import _INPUTS, _depths, _lanes
from ioi_course.prompts import ROLES
from ioi_course.roles import Circuit

# in rem
WIDTH, BESIDE, AISLE, BELOW, ALONG, TOP, MARGIN = (9.8, 0.5, 1.8, 2.6, 1.5, 4.0, 0.7)


@dataclass(frozen=True)
class _Box:
    """The box of a class of heads."""

    role: str
    at: str
    x: float
    y: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + WIDTH / 2


def _boxes(circuit: Circuit) -> dict[str, _Box]:
    """A column for each position, in the order of the prompt; a row for each step on
    the way to the logits."""
    depth, x, y = _depths(circuit), 0.0, TOP
    rows = [
        [role for role in depth if depth[role] == d]
        for d in range(max(depth.values()) + 1)
    ]
    heights = {
        role: 2.3 + 2 * -(-len(heads) // 2) for role, heads in circuit.roles.items()
    }
    tops = {}
    for row, lanes in zip(rows, _lanes(circuit, depth), strict=True):
        tops |= dict.fromkeys(row, y)
        y += max(heights[role] for role in row) + BELOW + ALONG * lanes
    boxes = {}
    for at in [role for role in ROLES if role in circuit.positions.values()]:
        here = [[role for role in row if circuit.positions[role] == at] for row in rows]
        most = max(map(len, here))
        for row in here:
            left = x + (most - len(row)) * (WIDTH + BESIDE) / 2
            for i, role in enumerate(row):
                boxes[role] = _Box(
                    role, at, left + i * (WIDTH + BESIDE), tops[role], heights[role]
                )
        x += most * (WIDTH + BESIDE) - BESIDE + AISLE
    return {role: boxes[role] for role in circuit.roles}


def _goal(circuit: Circuit, boxes: Mapping[str, _Box]) -> _Box | None:
    """The box of the logits, below the classes that write to them."""
    writers = [
        boxes[edge.sender] for edge in circuit.edges if edge.receiver == "logits"
    ]
    if not writers:
        return None
    bottom = (
        max(box.y + box.height for box in boxes.values())
        + BELOW
        + ALONG * _lanes(circuit, _depths(circuit))[-1]
    )
    return _Box(
        "logits", "END", sum(box.x for box in writers) / len(writers), bottom, 2.2
    )


def _between(source: _Box, target: _Box, boxes: Sequence[_Box]) -> list[_Box]:
    """The boxes that a line straight down from one box would meet before it is
    beside or above another."""
    end = target.y if source.at == target.at else target.y + target.height
    return [
        box for box in boxes if abs(box.x - source.x) < WIDTH and source.y < box.y < end
    ]


def _along(
    source: _Box, target: _Box, boxes: Sequence[_Box]
) -> tuple[str, float, float, str] | None:
    """As `_arrow`, along a row of boxes: below it from one of them, above it from
    elsewhere; else None."""
    row = [box for box in boxes if (box.at, box.y) == (target.at, target.y)]
    if source in row:
        x0 = source.x + 1.4
        x1 = target.x + WIDTH - 3.2
        line = max(box.y + box.height for box in row) + 1.4
        y0, y1 = source.y + source.height, target.y + target.height + 0.1
        return f"M{x0:g} {y0:g}V{line:g}H{x1:g}V{y1:g}", x1 + 0.4, line - 0.35, "start"
    if source.at == target.at or len(row) == 1:
        return None
    x0, x1, y1, line = source.middle - 2, target.x + 1.2, target.y - 0.1, target.y - 2.2
    out = f"M{x0:g} {source.y + source.height:g}"
    if _between(source, target, boxes):
        right = max(box.x for box in boxes if box.at == source.at) + WIDTH + MARGIN / 2
        out = f"M{source.x + WIDTH:g} {source.y + source.height - 0.6:g}H{right:g}"
    return f"{out}V{line:g}H{x1:g}V{y1:g}", x1 - 0.4, y1 - 0.75, "end"


def _arrow(
    source: _Box, target: _Box, shift: float, boxes: Sequence[_Box]
) -> tuple[str, float, float, str]:
    """A path, and where its word stands: the place of the text and its anchor.

    Within a position from bottom to top, past all boxes of the row; to another one
    down and into the side, or along a row of boxes. If a box is in the way, out of
    the side and into the top.
    """
    if along := _along(source, target, boxes):
        return along
    x0 = source.middle
    y0 = source.y + source.height
    x1 = target.middle + shift
    y1 = target.y - 0.1
    side, word = (
        ("end", x1 - 0.5) if source.at == target.at and x1 < x0 else ("start", x1 + 0.5)
    )
    if between := _between(source, target, boxes):
        x0, y0 = source.x + WIDTH, source.y + source.height / 2
        if source.at == target.at:
            right = max(box.x for box in between) + WIDTH + MARGIN / 2
            return (
                f"M{x0:g} {y0:g}H{right:g}V{y1 - 1.3:g}H{x1:g}V{y1:g}",
                word,
                y1 - 0.45,
                side,
            )
        return (
            f"M{x0:g} {y0:g}H{x1 - 1:g}Q{x1:g} {y0:g} {x1:g} {y0 + 1:g}V{y1:g}",
            word,
            y1 - 0.75,
            side,
        )
    if source.at == target.at:
        row = max(
            box.y + box.height
            for box in boxes
            if (box.at, box.y) == (source.at, source.y)
        )
        bend = (row + y1) / 2
        return (
            f"M{x0:g} {y0:g}V{row:g}C{x0:g} {bend:g} {x1:g} {bend:g} {x1:g} {y1:g}",
            word,
            y1 - 0.75,
            side,
        )
    x1, y1 = target.x - 0.1, target.y + target.height / 2
    return (
        f"M{x0:g} {y0:g}V{y1 - 1:g}Q{x0:g} {y1:g} {x0 + 1:g} {y1:g}H{x1:g}",
        x1 - 0.6,
        y1 - 0.4,
        "end",
    )


def _arrows(
    circuit: Circuit, boxes: Mapping[str, _Box], goal: _Box | None
) -> Iterator[dict]:
    """The edges as arrows, side by side where they come to one box from above; each
    word once, with all its inputs."""
    every, shown = list(boxes.values()), set()
    for sender, receiver, _ in circuit.edges:
        source = boxes[sender]
        target = goal if receiver == "logits" else boxes[receiver]
        senders = {
            boxes[edge.sender] for edge in circuit.edges if edge.receiver == receiver
        }
        above = [box for box in senders if box.at == target.at and box.y < target.y]
        above.sort(key=lambda box: (bool(_between(box, target, every)), box.x))
        shift = (
            2 * (above.index(source) - (len(above) - 1) / 2) if source in above else 0
        )
        path, x, y, anchor = _arrow(source, target, shift, every)
        word = ", ".join(
            _INPUTS[edge.via]
            for edge in circuit.edges
            if edge[:2] == (sender, receiver)
        )
        fresh = "" if (word, x, y) in shown else word
        shown.add((word, x, y))
        yield {
            "from": sender,
            "to": receiver,
            "path": path,
            "word": fresh,
            "x": x,
            "y": y,
            "anchor": anchor,
        }


def diagram_of(circuit: Circuit) -> dict:
    """Boxes, arrows and columns, with their places."""
    boxes = _boxes(circuit)
    goal = _goal(circuit, boxes)
    every = [*boxes.values(), *([goal] if goal else [])]
    columns = []
    for at in [role for role in ROLES if role in {box.at for box in every}]:
        lefts = [box.x for box in every if box.at == at]
        columns.append(
            {
                "at": at,
                "x": min(lefts) - MARGIN,
                "width": max(lefts) - min(lefts) + WIDTH + 2 * MARGIN,
            }
        )
    size = max(box.x for box in every) + WIDTH, max(box.y + box.height for box in every)
    arrows = list(_arrows(circuit, boxes, goal))
    return {
        "boxes": boxes,
        "goal": goal,
        "columns": columns,
        "arrows": arrows,
        "size": size,
    }
