"""Whom to simulate: the subjects of a data set, or new ones with covariates given, from a table, or drawn from data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Array

from nlmefit.core.errors import DataError, unknown
from nlmefit.core.options import is_number
from nlmefit.data.epochs import Rule
from nlmefit.data.frames import if_table
from nlmefit.data.needs import Needs, needs_of
from nlmefit.data.reading import Reading
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.random_numbers import generator
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.simulation.covariate_model import CovariateModel


def people_of(model: Model, fit: Fit | None, subjects: Any, covariates: Any, key: Array) -> tuple[pd.DataFrame | Subjects, Rule]:
    """The subjects, and how their covariates run between records. Raises DataError where they are not known."""
    subjects, covariates = if_table(subjects), if_table(covariates)
    if isinstance(subjects, pd.DataFrame | Subjects):
        if covariates is not None:
            raise DataError("subjects= is a data set, which has its covariates; leave covariates= out.")
        return _own(subjects, model, Reading() if fit is None else fit.reading.of(subjects))
    if subjects is None and covariates is None:
        if fit is None or fit.data is None:
            raise DataError("whom to simulate? Give subjects=, a number of new ones or a data set.")
        return _own(fit.data, model, fit.reading)
    if subjects is not None and (isinstance(subjects, bool) or not isinstance(subjects, int | np.integer) or subjects < 1):
        raise DataError(f"subjects must be a number of subjects or a data set, got {subjects!r}.")
    return _new(model, fit, None if subjects is None else int(subjects), covariates, key), "nocb"


def _own(data: pd.DataFrame | Subjects, model: Model, reading: Reading) -> tuple[Subjects, Rule]:
    if isinstance(data, Subjects):
        return data, data.rule
    design = reading.is_design(data)
    found = Subjects.of(data.drop(columns=reading.observed(data)) if design else data, model, reading, every_record=design)
    return found, found.rule


def _new(model: Model, fit: Fit | None, count: int | None, covariates: Any, key: Array) -> pd.DataFrame:
    needs = needs_of(model)
    if isinstance(covariates, CovariateModel):
        if count is None:
            raise DataError("how many subjects? A model of covariates draws as many as subjects= says.")
        covariates = covariates.sample(count, key=key)
    table = _table(covariates, needs, fit)
    size = count if count is not None else len(table)
    if len(table) == size and count is None or isinstance(covariates, pd.DataFrame) and len(table) == size:
        found = table.reset_index(drop=True)
    else:
        found = table.iloc[generator(key).integers(len(table), size=size)].reset_index(drop=True)
    if "ID" not in found or found["ID"].duplicated().any():
        found["ID"] = np.arange(1, size + 1)
    return found


def _table(covariates: Any, needs: Needs, fit: Fit | None) -> pd.DataFrame:
    """A row of covariates per subject to choose from."""
    needed = needs.columns
    if covariates is None:
        if needed and (fit is None or fit.data is None):
            raise DataError(
                f"the model reads {', '.join(needed)}: give covariates= for new subjects, a table with a row each or one value "
                "for all."
            )
        if not needed:
            return pd.DataFrame(index=range(1))
        assert fit is not None
        frame = fit.data.records.frame
        return frame.groupby("ID", sort=False)[list(needed)].first().reset_index(drop=True)
    if isinstance(covariates, Mapping):
        several = [name for name, value in covariates.items() if np.ndim(value) > 0]
        if several:
            raise DataError(
                f"covariates=: {several[0]} has several values; by name a covariate is the same for all. Give a table with a row "
                "per subject: pd.DataFrame({...})."
            )
        covariates = pd.DataFrame([dict(covariates)])
    if not isinstance(covariates, pd.DataFrame):
        raise DataError(f"covariates must be a table with a row per subject, or values by name, got {covariates!r}.")
    if len(covariates) == 0:
        raise DataError("covariates= has no rows; give a table with a row per subject.")
    for name in needed:
        if name not in covariates:
            raise DataError("covariates=: " + unknown("column", name, map(str, covariates.columns)))
        texts = name in needs.labels
        wrong = np.flatnonzero([not is_number(value) and not (texts and isinstance(value, str)) for value in covariates[name]])
        if len(wrong):
            raise DataError(f"covariates=: {name} of row {wrong[0]} is {covariates[name].iloc[wrong[0]]}, not a number.")
    return covariates
