"""How results show themselves: tables whole, and in a notebook as HTML what `print` shows as text."""

from html import escape
from typing import Any

import pandas as pd

MOST_ROWS = 60
"""Of a table that prints itself; longer ones show their first and last rows, as pandas does, but all columns."""

FIRST = 5
"""Rows of a finding that are printed."""


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


class Findings(Table):
    """What `nm.check` found: it prints each finding with the first of its rows, and what to do."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Findings

    def __repr__(self) -> str:
        if not {"code", "severity", "rows", "subject", "what", "fix"} <= {*map(str, self.columns)}:
            return Table.__repr__(self)
        if self.empty:
            return "No findings: the data can be used as they are."
        lines = [
            f"{code} {severity}{_place(rows, subject)}\n    {what}\n    {fix}"
            for code, severity, rows, subject, what, fix in zip(
                *(self[name] for name in ("code", "severity", "rows", "subject", "what", "fix")), strict=True
            )
        ]
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html(self)


def _place(rows: Any, subject: Any) -> str:
    """How many rows, the first five, and the first subject."""
    rows = list(rows)
    first = ", ".join(map(str, rows[:FIRST])) + (", ..." if len(rows) > FIRST else "")
    of = "" if not rows else f", row {first}" if len(rows) == 1 else f", {len(rows)} rows: {first}"
    subject = f"{subject:g}" if isinstance(subject, float) and subject == subject else subject
    whose = "" if subject is None or subject != subject else f" ({'first ' if len(rows) > 1 else ''}subject {subject})"
    return of + whose


def whole(frame: pd.DataFrame) -> Table:
    """The same table, printing all its columns."""
    return Table(frame)


def findings(frame: pd.DataFrame) -> Findings:
    """The same findings, printing short."""
    return Findings(frame)


def html(shown: Any) -> str:
    """What `print` shows, for a notebook."""
    return f'<pre style="line-height: 1.25">{escape(str(shown))}</pre>'
