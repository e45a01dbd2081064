"""The section of the circuit's page in which the reader draws edges, and each is
answered by what was measured."""

from __future__ import annotations

from markupsafe import Markup

from ioi_course.drawing import answers_of, board_css, board_of
from ioi_course.engine import unsupported
from ioi_course.lab import front_end
from ioi_course.plots.diagram import _INPUTS
from ioi_course.prompts import IOIDataset
from ioi_course.roles import Circuit


def edges_of(model, circuit: Circuit, data: IOIDataset) -> dict | None:
    """All that a drawing is answered with; None where there is no edge to find, or
    the engine can try none."""
    if not circuit.edges or unsupported(model) or len(data) < 2:
        return None
    return board_of(circuit) | answers_of(model, data, circuit)


def parts() -> dict[str, object]:
    """What the section needs in the page's template: the front end,
    and the inputs in words."""
    return {
        "inputs": _INPUTS,
        "draw_css": Markup(board_css()),
        "draw_script": Markup(front_end("dom", "draw")),
    }
