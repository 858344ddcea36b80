"""Observations below or above a limit of quantification: CENS, LIMIT, and what to make of them."""

from collections.abc import Iterator
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.data.findings import Finding, some, where
from nlmefit.data.records import Records, observation_rows

Blq = Literal["M3", "M1", "M4"]
"""Of observations below the limit: their probability (M3), nothing (M1: they are left out), or their probability with every
observation known to be above 0 (M4). The names are Beal's (2001)."""

_CODES = (-9, -99, -999, -9999)
"""Numbers that files put where a value is missing."""


class Censoring(eqx.Module):
    """Which observations of an endpoint are known by an interval, by row (n,)."""

    flag: Any
    """1 below the limit in DV, -1 above it, 0 observed."""
    limit: Any
    """The interval's other end, NaN where there is none."""
    positive: bool = eqx.field(static=True, default=False)
    """M4: every observation is above 0."""

    def ends(self, value: Float[Array, "n"]) -> tuple[Array, Array]:
        """The interval (n,) that the censored observations lie in; infinite where it has no end."""
        lowest = 0.0 if self.positive else -jnp.inf
        other = jnp.where(jnp.isnan(self.limit), jnp.where(self.flag > 0, lowest, jnp.inf), self.limit)
        return jnp.where(self.flag > 0, other, value), jnp.where(self.flag > 0, value, other)


def is_censored(records: Records) -> np.ndarray:
    """Which records are marked by CENS."""
    return records.column("CENS", 0.0) != 0


def censoring(records: Records, index: np.ndarray, masks: dict[str, np.ndarray], rule: Blq) -> dict[str, Censoring]:
    """Of the endpoints that have censored observations, for the rows at `index` (N, n)."""
    flag, limit = records.column("CENS", 0.0), records.column("LIMIT", np.nan)
    found = {name: Censoring(np.where(mask, flag[index], 0.0), limit[index], rule == "M4") for name, mask in masks.items()}
    return {name: c for name, c in found.items() if c.flag.any()}


def censoring_findings(records: Records, evid: np.ndarray, rule: Blq) -> Iterator[Finding]:
    """What is wrong or worth knowing about the censored ones among the observations."""
    flag, limit, value = records.column("CENS", 0.0), records.column("LIMIT", np.nan), records.frame["DV"].to_numpy(float)
    counted, plain = observation_rows(records, evid), evid == 0
    silenced = records.column("MDV", 0.0) == 1
    strange = counted & ~np.isin(flag, (-1, 0, 1))
    yield from where(
        strange, "E112", f"CENS must be 1 (below the limit in DV), -1 (above it) or 0, got {some(flag[strange])}.", "Correct it."
    )
    if rule != "M1":
        yield from where(
            plain & ~silenced & (flag != 0) & np.isnan(value),
            "E145",
            "CENS says that the observation lies beyond a limit, and DV is empty.",
            "Write the limit (LLOQ) in DV; or leave the record out by CENS 0 and MDV 1, or all such ones by blq='M1'.",
        )
    yield from where(
        plain & silenced & (flag != 0),
        "W213",
        "CENS says that the observation lies beyond a limit, and MDV 1 that there is none; it is left out.",
        "Set MDV to 0 where it is to count by its probability, or CENS to 0.",
    )
    for side, (limit_of, words) in {1: ("LLOQ", "below"), -1: ("ULOQ", "above")}.items():
        unlikely = counted & (flag == side) & _no_limit(records, counted)
        shown = some(value[unlikely])
        yield from where(
            unlikely,
            "W214",
            f"CENS is {side} and DV is {shown}: DV holds the limit ({limit_of}), so that the observation counts as {words} that.",
            "Write the limit in DV, unless it is that one (of logarithms, say).",
        )
    empty = counted & (((flag == 1) & (limit >= value)) | ((flag == -1) & (limit <= value)))
    yield from where(
        empty,
        "E137",
        "LIMIT must be below DV where CENS is 1 and above it where CENS is -1: the observation lies between the two.",
        "Correct it, or leave LIMIT empty where only DV is known.",
    )
    if rule == "M4":
        yield from where(
            counted & (flag == 1) & (value <= 0),
            "E138",
            "M4 takes every observation to be above 0, and the limit in DV is not.",
            "Use M3, or correct DV (it holds the limit where CENS is 1).",
        )
    if rule == "M1":
        yield from where(
            counted & (flag != 0),
            "W209",
            f"{int((counted & (flag != 0)).sum())} observation(s) with CENS are left out (M1).",
            "Estimates are biased where there are many: M3 uses them.",
        )


def _no_limit(records: Records, counted: np.ndarray) -> np.ndarray:
    """Whose DV is hardly a limit: 0, a code for what is missing, or negative where nothing observed of that endpoint is."""
    value = records.frame["DV"].to_numpy(float)
    endpoint = records.frame["DVID"].to_numpy() if records.has("DVID") else np.zeros(len(value))
    negative = pd.Series(counted & ~is_censored(records) & (value < 0)).groupby(endpoint, dropna=False).transform("any")
    return (value == 0) | np.isin(value, _CODES) | (value < 0) & ~negative.to_numpy(bool)
