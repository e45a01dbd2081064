"""Pictures of plots and drawings, made readable on light and on
dark pages."""

from __future__ import annotations

import base64
import json
import re
from importlib.resources import files

from ioi_course.plots.core import SCALE, _colour

EMBEDDED = re.compile(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"')
ROOT = re.compile(r"(<svg [^>]*>)(?!<style>)")
# No one grey has a contrast of 4.5 on white and on our dark page. The browser asks by
# the scheme of the page around.
INK, INK_BY_NIGHT = "#57606a", "#a8b0ba"
# A plot in a notebook has one scale, near white at zero, and so it stays. On a dark
# page that would be the brightest thing there, so pages give each colour of SCALE
# another one: near the page's own at zero, and the brighter, the farther from it.
NIGHT_SCALE = (
    "#ffb59c",
    "#d0664b",
    "#6e3a30",
    "#2b3038",
    "#2f4f72",
    "#4485c4",
    "#9ccfff",
)
NIGHT = dict(zip(SCALE, NIGHT_SCALE, strict=True))


def _mixed(level: float) -> str:
    """The colour by night of a level from −1 to 1."""
    left = min(int(3 * (level + 1)), 5)
    share = 3 * (level + 1) - left
    one, two = (
        [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        for colour in NIGHT_SCALE[left : left + 2]
    )
    return "#" + "".join(
        f"{round(a + share * (b - a)):02x}" for a, b in zip(one, two, strict=True)
    )


# By night, what stands in a picture: a shade of a heatmap, a word in its cells (dark on
# the weak ones, white on the strong ones, which are bright now), a box of the circuit.
INSTEAD = {
    **{f'[fill="{_colour(i / 16)}"]': _mixed(i / 16) for i in range(-16, 17)},
    '[style="fill:#444"]': "#fff!important",
    '[style="fill:#fff"]': "#0b0d10!important",
    'rect[fill="#fff"]': "#16181c",
    'g[fill="#222"]': "#e4e6ea",
}
TINT = 'fill-opacity=".15"', 'rect[fill-opacity=".15"]{fill-opacity:.3}'  # of a box


def for_both(svg: str) -> str:
    """A static picture whose words are dark on light pages and light on dark ones, as
    are the cells of its heatmaps where they say little."""
    plain = svg.replace("'", '"')
    rules = "".join(
        f"{where}{{fill:{colour}}}"
        for where, colour in INSTEAD.items()
        if where[where.index("[") + 1 : -1] in plain
    )
    rules += TINT[1] * (TINT[0] in plain)
    dark = f"svg{{fill:{INK_BY_NIGHT}}}{rules}"
    style = (
        f"<style>svg{{fill:{INK}}}@media(prefers-color-scheme:dark){{{dark}}}</style>"
    )
    return ROOT.sub(lambda found: found[1] + style, svg, count=1)


def readable(html: str) -> str:
    """HTML with each static picture of a plot made readable in both."""

    def picture(found: re.Match) -> str:
        svg = for_both(base64.b64decode(found[1]).decode())
        return (
            f'src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"'
        )

    return EMBEDDED.sub(picture, html)


def night_script() -> str:
    """The script that gives a page's interactive plots their colours by night."""
    source = files("ioi_course") / "data" / "page" / "night.js"
    return f"const NIGHT = {json.dumps(NIGHT)};\n{source.read_text(encoding='utf-8')}"
