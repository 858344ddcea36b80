"""What a visual predictive check reads off observations and simulations alike: percentiles, shares beyond limits, proportions.

The definitions are in `nlmefit.diagnostics.vpc`.
"""

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from nlmefit.core.errors import MethodError
from nlmefit.diagnostics.bins import places

INTERVAL = (0.5, 0.05, 0.95)
"""Of the simulated data sets' own percentiles: what is reported of them."""


class Measured(NamedTuple):
    """Of d data sets in B bins."""

    percentiles: Float[np.ndarray, "d B k"]
    beyond: Float[np.ndarray, "d B s"]
    proportions: Float[np.ndarray, "d B c"]


@dataclass(frozen=True)
class Group:
    """Observations that are checked together, and what is read off them and off their simulations."""

    endpoint: str
    stratum: Any
    where: Int[np.ndarray, " m"]
    """Among all observations."""
    time: Float[np.ndarray, " m"]
    observed: Float[np.ndarray, " m"]
    censored: Int[np.ndarray, " m"]
    edges: Float[np.ndarray, " e"]
    probabilities: Float[np.ndarray, " k"]
    limits: dict[str, float]
    """By side, "below" and "above"."""
    categories: list[tuple[float, float]] | None
    """Ranges of values, ends included, of an endpoint that is discrete."""
    factor: Float[np.ndarray, " m"]
    """The prediction correction's."""

    @property
    def place(self) -> Int[np.ndarray, " m"]:
        return places(self.time, self.edges)

    @property
    def members(self) -> dict[int, Int[np.ndarray, " b"]]:
        """Where the observations of each bin lie."""
        place = self.place
        return {int(b): np.flatnonzero(place == b) for b in np.unique(place)}

    def measured(self, values: Float[np.ndarray, "d m"]) -> Measured:
        """Of data sets; -inf and inf are known to be beyond the limits."""
        parts = [self._bin(values[:, own], own) for own in self.members.values()]
        return Measured(*(np.stack(part, axis=1) for part in zip(*parts, strict=True)))

    def _bin(self, values: Float[np.ndarray, "d b"], own: Int[np.ndarray, " b"]) -> Measured:
        none = np.zeros((len(values), 0))
        if self.categories is not None:
            shares = [np.mean((values >= low) & (values <= high), axis=1) for low, high in self.categories]
            return Measured(none, none, np.stack(shares, axis=1))
        low, high = self.limits.get("below", -np.inf), self.limits.get("above", np.inf)
        shares = [np.mean(values < low if side == "below" else values > high, axis=1) for side in self.limits]
        factor = self.factor[own]
        known = values * factor
        known = np.where(known < (low * factor).max(), -np.inf, np.where(known > (high * factor).min(), np.inf, known))
        return Measured(quantiles(known, self.probabilities), np.stack(shares, axis=1) if shares else none, none)

    def tables(self, simulated: list[Measured]) -> list[pd.DataFrame]:
        """Percentiles, shares beyond limits, proportions."""
        hidden = np.where(self.censored > 0, -np.inf, np.where(self.censored < 0, np.inf, self.observed))
        observed = self.measured(hidden[None])
        columns: list[tuple[str, list[Any]]] = [
            ("probability", list(self.probabilities) if self.categories is None else []),
            ("side", list(self.limits)),
            ("category", [_range(*ends) for ends in self.categories or ()]),
        ]
        found = []
        for k, (name, labels) in enumerate(columns):
            draws = self._without_failures(np.concatenate([part[k] for part in simulated]))
            middle, lower, upper = np.moveaxis(quantiles(np.moveaxis(draws, 0, -1), np.array(INTERVAL)), -1, 0)
            head = self._head(len(labels)) | {name: labels * len(self.members)}
            if name == "side":
                head["limit"] = [self.limits[side] for side in labels] * len(self.members)
            ends = {"observed": observed[k][0], "simulated": middle, "lower": lower, "upper": upper}
            found.append(pd.DataFrame(head | {name: values.ravel() for name, values in ends.items()}))
        return found

    def _head(self, times: int) -> dict[str, Any]:
        """The columns that say which bin, each of them repeated."""
        bins = list(self.members)
        median = [np.median(self.time[own]) for own in self.members.values()]
        count = [len(own) for own in self.members.values()]
        columns: dict[str, Any] = {
            "bin": bins,
            "TIME": median,
            "start": self.edges[bins],
            "end": self.edges[np.add(bins, 1)],
            "count": count,
        }
        return {"endpoint": self.endpoint, "stratum": self.stratum} | {n: np.repeat(v, times) for n, v in columns.items()}

    def _without_failures(self, draws: Float[np.ndarray, "D B k"]) -> Float[np.ndarray, "D B k"]:
        failed = np.isnan(draws).any(axis=(1, 2))
        if failed.all():
            raise MethodError(f"no simulated data set of `{self.endpoint}` is free of values that are no numbers.")
        if failed.any():
            text = f"{failed.sum()} simulated data sets have values of `{self.endpoint}` that are no numbers and are left out."
            warnings.warn(text, stacklevel=4)
        return draws[~failed]

    def observations(self, ids: np.ndarray) -> pd.DataFrame:
        columns = {"ID": ids, "TIME": self.time, "endpoint": self.endpoint, "stratum": self.stratum, "bin": self.place}
        return pd.DataFrame(columns | {"DV": self.observed * self.factor, "CENS": self.censored})


def quantiles(values: Float[np.ndarray, "... n"], probabilities: Float[np.ndarray, " k"]) -> Float[np.ndarray, "... k"]:
    """Along the last axis, linear between order statistics; infinite where one that counts is. NaN where a value is NaN."""
    ordered = np.sort(values, axis=-1)
    position = probabilities * (values.shape[-1] - 1)
    low = np.floor(position + 1e-12).astype(int)
    share = np.maximum(position - low, 0.0)
    a, b = ordered[..., low], ordered[..., np.minimum(low + 1, values.shape[-1] - 1)]
    with np.errstate(invalid="ignore"):
        between = np.where((share == 0) | (a == b) | np.isneginf(a), a, a + share * (b - a))
    return np.where(np.isnan(ordered[..., -1:]), np.nan, between)


def _range(low: float, high: float) -> str:
    """A range of values in words; that up to 0, of counts, is 0."""
    if low == high or (np.isneginf(low) and high == 0):
        return f"{high:g}"
    if np.isneginf(low):
        return f"{high:g} or less"
    return f"{low:g} or more" if np.isinf(high) else f"{low:g} to {high:g}"
