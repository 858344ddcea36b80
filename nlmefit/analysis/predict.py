"""`nm.predict`: the data's records with predictions and amounts."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from nlmefit.analysis.eta_tables import at_occasions, by_id
from nlmefit.analysis.fit import own_data
from nlmefit.core.backend import compiled
from nlmefit.core.errors import DataError, unknown
from nlmefit.core.typing import Theta
from nlmefit.data.frames import if_table
from nlmefit.data.reading import Reading
from nlmefit.data.records import check_columns, event_types
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.stiff_fallback import with_stiff_fallback
from nlmefit.latent.distribution import mean_of
from nlmefit.latent.programs import program
from nlmefit.population.latent import PopulationModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit


def predict(
    model: Model | Fit,
    data: pd.DataFrame | Subjects | None = None,
    eta: Fit | pd.DataFrame | Mapping[Any, Mapping[str, float]] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The records of `data`, in their order, with a column per endpoint (its predicted mean) and `A_compartment` amounts.

    **Arguments:** `model` a model at its values, or a fit; `data` in NONMEM's columns, DV not needed (or `nm.Subjects`, by their
    own rules; None for the fit's own data); `eta` random effects by subject (a fit, its `eta`, or a mapping from ID), None for
    eta = 0, the typical subject with each subject's covariates; `columns` maps your column names to standard ones. At a fit,
    `data` are read by the fit's own rules (columns, covariates, BLQ). An occasion that the fit has not seen of a subject has the
    occasion's eta 0.

    A dose's record shows the system just after the dose (a bolus counts, an infusion begins), as in NONMEM.

    Raises DataError for unusable data, where `eta` lacks a subject or a name, where `data` has a column of a name that the
    result needs, and where a prediction is not a number (or, at an observation, infinite).
    """
    data = own_data(model) if data is None else data
    reading = model.reading.of(data) if isinstance(model, Fit) else Reading()
    model = model.model if isinstance(model, Fit) else model
    if columns is not None:
        check_columns(columns)
        reading = Reading(columns, reading.covariates, reading.blq)
    given = data.frame if isinstance(data, Subjects) and columns is not None else data
    subjects = Subjects.of(given, model, reading, every_record=True)
    data = subjects.frame
    latent = PopulationModel.of(model, subjects)
    theta: Theta = {name: jnp.asarray(p.start, float) for name, p in latent.parameters().items()}
    if isinstance(eta, Fit):
        eta = at_occasions(eta.eta, eta.occasions, subjects.occasions, latent.eta_names()).fillna(0.0)
    effects = _effects(eta, subjects.ids, latent.eta_names())
    values = with_stiff_fallback(latent, lambda latent: _predictions(latent)(theta, effects, subjects.subjects))
    names = [*model.outputs, *(f"A_{name}" for name in model.specification.compartments)]
    for name in names:
        if name in data:
            raise DataError(
                f"the data has a column `{name}`, where the prediction would go; rename it, or drop it by "
                f"data.drop(columns={name!r})."
            )
    real = subjects.rows >= 0
    order = np.argsort(subjects.rows[real])
    result = data.assign(**{name: np.asarray(values[name])[real][order] for name in names})
    _check_numbers(latent, theta, effects, result, subjects)
    return result


@program
def _predictions(latent: Any) -> Any:
    """Compiled once for models that differ in values only."""

    def one(theta: Theta, eta: Any, subject: Any) -> dict[str, Any]:
        predicted, amounts = latent.predict(theta, eta, subject, latent.model.specification.compartments)
        return {n: mean_of(v) for n, v in predicted.items()} | {f"A_{n}": amount for n, amount in amounts.items()}

    return compiled(jax.vmap(one, in_axes=(None, 0, 0)))


def _check_numbers(latent: PopulationModel, theta: Theta, effects: np.ndarray, result: pd.DataFrame, subjects: Subjects) -> None:
    """DataError at the first prediction that is not a number (of an endpoint with a residual model), or that is infinite at an
    observation's record (before a dose or at it, the log of an amount may well be)."""
    observed = event_types(subjects.records) == 0
    for name in latent.model.specification.residuals:
        bad = np.flatnonzero(np.isnan(result[name]) | np.isinf(result[name]) & observed)
        if len(bad):
            label, time = (subjects.records.frame[name].iloc[bad[0]] for name in ("ID", "TIME"))
            who = int(np.flatnonzero(subjects.ids == label)[0])
            why = latent.reasons(theta, effects[who], jax.tree.map(lambda x, who=who: x[who], subjects.subjects))
            raise DataError(
                f"the prediction of `{name}` is not a finite number on {len(bad)} record(s), first row {bad[0]}, "
                f"subject {label}, TIME {time:g}. Check the model's values, the covariates and `eta` "
                f"there{why}."
            )


def _kinds(who: Any, index: pd.Index) -> str:
    """Where only the kind of the label differs."""
    same = str(who) in set(map(str, index))
    kinds = ("text", "a number") if isinstance(who, str) else ("a number", "text")
    return f" There {who} is {kinds[1]}, in the data {kinds[0]}." if same else ""


def _effects(eta: Any, ids: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """The random effects by subject (N, q), in the order of the data's subjects."""
    if eta is None:
        return np.zeros((len(ids), len(names)))
    eta = if_table(eta)
    if not isinstance(eta, pd.DataFrame) and not (isinstance(eta, Mapping) and all(isinstance(v, Mapping) for v in eta.values())):
        raise DataError(
            f"eta must be a fit, a table with a row per ID and the columns {', '.join(names) or 'none'}, or a mapping "
            f"{{ID: {{name: value}}}}, got {type(eta).__name__}."
        )
    table = by_id(eta, ids, "eta") if isinstance(eta, pd.DataFrame) else pd.DataFrame.from_dict(dict(eta), orient="index")
    lacking = [name for name in names if name not in table]
    if lacking:
        raise DataError(
            f"eta lacks {', '.join(lacking)}: it needs {', '.join(names)} and has {', '.join(map(str, table.columns)) or 'none'}."
        )
    for column in table:
        if column not in names:
            raise DataError("eta: " + unknown("random effect", str(column), names))
    if table.index.nlevels > 1:
        raise DataError(
            "eta has several draws of each subject; nm.predict takes a row per ID, such as nm.posterior(...).mean. "
            "nm.simulate(..., eta=draws) shows the draws, each with its own subject."
        )
    if table.index.has_duplicates:
        raise DataError(f"eta has two rows for subject {table.index[table.index.duplicated()][0]}.")
    missing = [who for who in ids if who not in table.index]
    if missing:
        raise DataError(
            f"eta has no row for subject {missing[0]}; its index (or column ID) must hold the data's IDs."
            f"{_kinds(missing[0], table.index)}"
        )
    return table.loc[list(ids), list(names)].to_numpy(float)
