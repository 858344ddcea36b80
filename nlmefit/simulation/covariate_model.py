"""A generative model of covariates: new subjects who are like those of a table, and not copies of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
import numpy as np
import pandas as pd

from nlmefit.analysis.fit import fit
from nlmefit.core.errors import DataError, MethodError, unknown
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.shown import html
from nlmefit.data.frames import as_pandas
from nlmefit.estimate.random_numbers import generator
from nlmefit.generative.capability import AbstractSampler
from nlmefit.generative.trainer import GenerativeFit

LEVELS = 40
"""Values of a category that are too many to be one."""


@final
@dataclass(frozen=True)
class CovariateModel:
    """p(categories) from their frequencies, p(numbers | categories) from a generative model; made by `nm.covariate_model`.

    `nm.simulate(..., covariates=this, subjects=1000)` draws each subject's covariates from it.
    """

    fit: GenerativeFit
    """Of the generative model; its `.status` says whether to trust it."""
    table: pd.DataFrame
    """What it was fitted to: a row per subject."""
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    logs: tuple[str, ...]
    """Numbers that are positive throughout, and so modelled on the log scale."""

    def sample(self, n: int, *, key: Key = 0) -> pd.DataFrame:
        """Covariates of n new subjects. Raises MethodError unless n is a whole number from 1 up."""
        check_whole("n", n, 1)
        choose, draw = jax.random.split(jax_key(key))
        rows = generator(choose).integers(len(self.table), size=n)
        found = self.table.loc[:, list(self.categories)].iloc[rows].reset_index(drop=True)
        given = _coded(found, _levels(self.table, self.categories)) if self.categories else None
        values = pd.DataFrame(self.fit.model.sample(n, key=draw, given=given), columns=list(self.numbers))  # type: ignore[attr-defined]
        for name in self.logs:
            values[name] = np.exp(values[name])
        return pd.concat([values, found], axis=1)[list(self.table.columns)]

    def compared(self, n: int = 10_000, *, key: Key = 0) -> pd.DataFrame:
        """How draws resemble the table: mean, sd, 5 %, 50 % and 95 % quantiles of each number, of the data and drawn."""
        drawn, rows = self.sample(n, key=key), {}
        for name in self.numbers:
            for label, frame in (("data", self.table), ("drawn", drawn)):
                x = frame[name].to_numpy(float)
                rows[name, label] = (x.mean(), x.std(ddof=1), *np.quantile(x, (0.05, 0.5, 0.95)))
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", "5 %", "50 %", "95 %"]).set_axis(
            pd.MultiIndex.from_tuples(list(rows), names=["covariate", ""])
        )

    def __str__(self) -> str:
        kinds = [f"{name} (log)" if name in self.logs else name for name in self.numbers]
        given = f" given {', '.join(self.categories)}" if self.categories else ""
        return f"Covariates {', '.join(kinds)}{given}, from {len(self.table)} subjects\n{self.fit}\n\n{self.compared().round(3)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)


def covariate_model(
    table: pd.DataFrame,
    model: AbstractSampler,
    method: Any,
    *,
    columns: Sequence[str] | None = None,
    categories: Sequence[str] = (),
    key: Key = 0,
    progress: bool = True,
) -> CovariateModel:
    """Fit a generative model to subjects' covariates, so that new subjects can be drawn for `nm.simulate`:

        people = nm.covariate_model(data, gen.NormalizingFlow(), gen.MaximumLikelihood(),
                                    columns=["WT", "AGE", "SEX"], categories=["SEX"])
        nm.simulate(fit, regimens, times=times, subjects=1000, covariates=people)

    **Arguments:** `table` a row per subject, or a data set with `ID`, of which each subject's first record counts; `model` any
    generative model that can draw samples (`gen.NormalizingFlow`, `gen.VAE`, ...) and `method` that fits it; `columns` of the
    table, None for all but ID; `categories` those of them whose values are codes: their joint frequencies stay those of the
    table, and the numbers are modelled given them (so the model must be one that takes conditions). Numbers that are positive
    throughout are modelled on the log scale.

    Raises DataError for missing columns and values, for a column that is constant and for too many categories; MethodError for a
    model that cannot draw.
    """
    chosen = _chosen(table, columns, categories)
    for name in categories:
        if name not in chosen:
            raise DataError("categories=: " + unknown("column", str(name), map(str, chosen.columns)))
    numbers = tuple(str(name) for name in chosen if name not in categories)
    if not numbers:
        raise DataError("all columns are categories; nm.simulate draws such from the table itself: covariates=table.")
    if not isinstance(model, AbstractSampler):
        raise MethodError(f"covariate_model needs a generative model that can draw samples, got {type(model).__name__}.")
    values = chosen[list(numbers)].to_numpy(float)
    constant = [name for name, sd in zip(numbers, values.std(axis=0), strict=True) if sd == 0]
    if constant:
        raise DataError(f"{constant[0]} is the same for all {len(values)} subjects; leave it out of columns, and set it after.")
    logs = tuple(name for name, least in zip(numbers, values.min(axis=0), strict=True) if least > 0)
    values = np.where([name in logs for name in numbers], np.log(np.where(values > 0, values, 1.0)), values)
    levels = _levels(chosen, tuple(categories))
    data = (values, _coded(chosen, levels)) if categories else values
    found = fit(model, data, method, key=key, progress=progress)  # type: ignore[arg-type]
    return CovariateModel(found, chosen, numbers, tuple(str(c) for c in categories), logs)


def _chosen(table: Any, columns: Sequence[str] | None, categories: Sequence[str]) -> pd.DataFrame:
    """A finite number in every cell of the columns (or a text, of a category), a row per subject."""
    table = as_pandas(table, "covariate_model's table")
    if len(table) < 2:
        raise DataError("covariate_model needs a DataFrame with a row per subject, two subjects at least.")
    if "ID" in table:
        table = table.groupby("ID", sort=False).first().reset_index()
    names = [str(c) for c in table if c != "ID"] if columns is None else list(columns)
    for name in names:
        if name not in table:
            raise DataError("columns=: " + unknown("column", str(name), map(str, table.columns)))
    texts = [name for name in categories if name in names and not pd.api.types.is_numeric_dtype(table[name])]
    found = table[names].apply(lambda x: x if x.name in texts else pd.to_numeric(x, errors="coerce"))
    known = found.apply(lambda x: x.notna() if x.name in texts else np.isfinite(x.to_numpy(float, na_value=np.nan)))
    bad = np.argwhere(~known.to_numpy(bool))
    if len(bad):
        row, column = bad[0]
        name, value = names[column], str(table[names[column]].iloc[row])
        what = "missing" if name in texts else "not a number"
        raise DataError(f"{name} of row {row} is {value!r}, {what}: leave the subject or the column out.")
    return found.reset_index(drop=True)


def _levels(table: pd.DataFrame, categories: tuple[str, ...]) -> dict[str, np.ndarray]:
    levels = {name: np.unique(table[name]) for name in categories}
    for name, values in levels.items():
        if len(values) > LEVELS:
            raise DataError(f"{name} has {len(values)} values, too many for a category: take it as a number.")
    return levels


def _coded(table: pd.DataFrame, levels: dict[str, np.ndarray]) -> np.ndarray:
    """Indicators of all levels but each category's first (a lone level has one that is 0)."""
    columns = [(table[name].to_numpy() == v).astype(float) for name, values in levels.items() for v in values[1:]]
    return np.column_stack(columns) if columns else np.zeros((len(table), 1))
