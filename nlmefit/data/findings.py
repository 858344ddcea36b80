"""What a check reports: coded findings, as text and as a table.

E codes are errors (the data cannot be used as they are), W codes warnings (they can, in the way stated).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError


@dataclass(frozen=True)
class Finding:
    """One thing found in the data; `rows` are positions in the user's frame, from 0, `subject` the first one concerned."""

    code: str
    what: str
    fix: str
    rows: tuple[int, ...] = ()
    subject: Any = None

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "error" if self.code.startswith("E") else "warning"

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:5])) + (f", ... ({len(self.rows)} rows)" if len(self.rows) > 5 else "")
        first = (
            ""
            if self.subject is None
            else f", subject {self.subject}"
            if len(self.rows) == 1
            else f", first subject {self.subject}"
        )
        where = f" [{'row' if len(self.rows) == 1 else 'rows'} {shown}{first}]" if self.rows else ""
        return f"{self.code} {self.what}{where} {self.fix}"


def where(mask: np.ndarray, code: str, what: str, fix: str) -> Iterator[Finding]:
    """One finding about the rows of `mask`, if there are any."""
    if mask.any():
        yield Finding(code, what, fix, tuple(int(i) for i in np.flatnonzero(mask)))


def some(values: Iterable[Any]) -> str:
    """The different values among `values`, at most five, in words."""
    different = sorted({f"{v:g}" if isinstance(v, float) else str(v) for v in values}, key=lambda text: (len(text), text))
    return ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")


def table(found: Sequence[Finding]) -> pd.DataFrame:
    """Findings as a DataFrame: code, severity, rows, subject, what, fix."""
    rows = [(f.code, f.severity, list(f.rows), f.subject, f.what, f.fix) for f in found]
    return pd.DataFrame(rows, columns=["code", "severity", "rows", "subject", "what", "fix"])


def raise_errors(found: Sequence[Finding]) -> None:
    """DataError with every error among the findings, if there is one."""
    errors = [str(f) for f in found if f.severity == "error"]
    if errors:
        raise DataError("the data cannot be used:\n  " + "\n  ".join(errors))
