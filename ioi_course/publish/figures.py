"""Pictures of plots and drawings, made readable on the website's
light and dark pages."""

from __future__ import annotations

import base64
import re

EMBEDDED = re.compile(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"')
ROOT = re.compile(r"(<svg [^>]*>)(?!<style>)")
# No one grey has a contrast of 4.5 on white and on our dark page. The browser asks by
# the scheme of the page around.
INK = (
    "<style>svg{fill:#57606a}"
    "@media(prefers-color-scheme:dark){svg{fill:#a8b0ba}}</style>"
)


def for_both(svg: str) -> str:
    """A static picture whose words are dark on light pages and light on dark ones."""
    return ROOT.sub(rf"\1{INK}", svg, count=1)


def readable(html: str) -> str:
    """HTML with each static picture of a plot made readable in both."""

    def picture(found: re.Match) -> str:
        svg = for_both(base64.b64decode(found[1]).decode())
        return (
            f'src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"'
        )

    return EMBEDDED.sub(picture, html)
