"""Simulated profiles as a data set in NONMEM's columns."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

OF_DOSES = ("AMT", "RATE", "DUR", "II", "ADDL", "SS")
DEFAULTS = {**dict.fromkeys(OF_DOSES, 0.0), "CMT": 1.0}
"""What a record says that lacks the column; a column that says nothing else is left out."""
FIRST = ("ID", "TIME", "EVID", "MDV", "DV", "DVID", "AMT", "CMT", "RATE", "DUR", "II", "ADDL", "SS")


def written(records: pd.DataFrame, values: Mapping[str, Float[np.ndarray, " k"]]) -> pd.DataFrame:
    """A scenario's records with the values by endpoint as DV of the rows that are seen, one after the other."""
    rows = np.arange(len(records))
    seen = records["seen"].to_numpy(bool)
    plain = records.drop(columns=["rank", "seen", "CENS", "LIMIT", "DVID"], errors="ignore")
    parts = [plain[~seen].assign(DV=np.nan, MDV=1, at=rows[~seen])]
    for number, (_, value) in enumerate(values.items(), 1):
        parts.append(plain[seen].assign(DV=value, MDV=0, EVID=0.0, DVID=number, at=rows[seen]))
    table = pd.concat(parts).sort_values("at", kind="stable", ignore_index=True).drop(columns="at")
    for name in OF_DOSES:
        if name in table:
            table[name] = np.where(table["EVID"].isin((1, 4)), table[name], 0.0)
    if "AMT" not in table:  # no doses (a placebo arm beside others)
        table["AMT"] = 0.0
    table["EVID"] = table["EVID"].astype(int)
    if len(values) == 1:
        table = table.drop(columns="DVID")
    said = [name for name, default in DEFAULTS.items() if name in table and not table[name].fillna(default).eq(default).all()]
    table = table.drop(columns=[name for name in DEFAULTS if name in table and name not in (*said, "AMT")])
    return table[[*(name for name in FIRST if name in table), *(name for name in table if name not in FIRST)]]
