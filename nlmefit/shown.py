"""How results show themselves: tables whole, and in a notebook as HTML what `print` shows as text."""

from html import escape
from typing import Any

import pandas as pd

MOST_ROWS = 60
"""Of a table that prints itself; longer ones show their first and last rows, as pandas does, but all columns."""


class Table(pd.DataFrame):
    """A DataFrame that prints all its columns: pandas hides the middle ones of a wide one."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Table

    def __repr__(self) -> str:
        shown = self.to_string(max_rows=MOST_ROWS, line_width=None, max_cols=None)
        return shown if len(self) <= MOST_ROWS else f"{shown}\n\n[{len(self)} rows x {self.shape[1]} columns]"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.to_html(max_rows=MOST_ROWS, max_cols=None, border=0, escape=True)


def whole(frame: pd.DataFrame) -> Table:
    """The same table, printing all its columns."""
    return Table(frame)


def html(shown: Any) -> str:
    """What `print` shows, for a notebook."""
    return f'<pre style="line-height: 1.25">{escape(str(shown))}</pre>'
