"""How a result shows itself in a notebook and in a terminal."""

from __future__ import annotations

from html import escape

import pandas as pd


class Shown:
    """A caption, a table rounded for people (if it has rows), and lines below it;
    subclasses say what stands in them."""

    def _caption(self) -> str:
        raise NotImplementedError

    def _rounded(self) -> pd.DataFrame:
        raise NotImplementedError

    def _below(self) -> list[str]:
        return []

    def __repr__(self) -> str:
        table = self._rounded()
        return "\n".join(
            [
                self._caption(),
                *([] if table.empty else [table.to_string()]),
                *self._below(),
            ]
        )

    def _repr_html_(self) -> str:
        table = self._rounded()
        lines = [f"<p>{escape(line)}</p>" for line in (self._caption(), *self._below())]
        return "".join(
            [lines[0], *([] if table.empty else [table.to_html()]), *lines[1:]]
        )
