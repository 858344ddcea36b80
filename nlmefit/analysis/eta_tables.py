"""Tables of random effects by subject, given to a data set.

`kappa_CL_1` is the effect of a subject's first occasion in a data set. Another data set may begin with another occasion, so that
effects are carried by what the occasions are called.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError


def by_id(table: pd.DataFrame, ids: np.ndarray, where: str) -> pd.DataFrame:
    """The table by ID, and by draw where it has several, also where these are columns. DataError for one that says nothing of
    IDs: the numbers of its rows are none."""
    if "ID" in table:
        return table.set_index([name for name in ("ID", "draw") if name in table])
    counted = isinstance(table.index, pd.RangeIndex) and table.index.name is None
    if counted and not np.array_equal(table.index, ids):
        raise DataError(f"{where} has neither a column ID nor an index of IDs; without either, its rows belong to nobody.")
    return table


_KAPPA = re.compile(r"kappa_(.+)_(\d+)")


def at_occasions(eta: pd.DataFrame, known: Any, wanted: Any, names: Sequence[str]) -> pd.DataFrame:
    """`eta` (by ID, or by ID and draw) with the columns `names`. `known` are the occasions that it is of and `wanted` those it is
    for (`Subjects.occasions`, a row of labels by ID); the effect of one that `eta` does not know is 0. Without labels, of a fit
    from an old file, occasions go by their number."""
    kappas = {name: match for name in names if (match := _KAPPA.fullmatch(str(name)))}
    result = eta.drop(columns=[name for name in eta if _KAPPA.fullmatch(str(name)) and name not in kappas])
    if known is None or wanted is None:
        return result.assign(**{name: eta[name].fillna(0.0) if name in eta else 0.0 for name in kappas})
    ids = eta.index.get_level_values(0)
    places = {who: _places(known.loc[who], wanted.loc[who]) for who in ids.unique() if who in known.index and who in wanted.index}
    for name, match in kappas.items():
        effect, number = match[1], int(match[2])
        values = np.zeros(len(eta))
        for who, found in places.items():
            column = f"kappa_{effect}_{found.get(number)}"
            if column in eta:
                rows = ids == who
                values[rows] = eta[column].to_numpy(float)[rows]
        result[name] = np.nan_to_num(values)
    return result


def _places(known: pd.Series, wanted: pd.Series) -> dict[int, int]:
    """By the number of a wanted occasion, that of the known one of the same label."""
    numbers = dict(zip(known, known.index, strict=True))
    return {number: numbers[label] for number, label in wanted.dropna().items() if label in numbers}  # type: ignore[misc]
