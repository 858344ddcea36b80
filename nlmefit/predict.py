"""`nm.predict`: the data's records with predictions and amounts."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro.distributions import Distribution

from nlmefit.backend import compiled
from nlmefit.data.subjects import Subjects
from nlmefit.errors import DataError, ModelError, unknown
from nlmefit.model import Model
from nlmefit.population import PopulationModel, check_constant_dynamics
from nlmefit.results import Fit


def predict(
    model: Model | Fit,
    data: pd.DataFrame,
    eta: pd.DataFrame | Mapping[Any, Mapping[str, float]] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The records of `data`, in their order, with a column per endpoint (its predicted mean) and `A_compartment` amounts.

    **Arguments:** `model` a model at its values, or a fit; `data` in NONMEM's columns, DV not needed; `eta` random effects by
    subject (a fit's `eta`, or a mapping from ID), None for eta = 0, the typical subject with each subject's covariates;
    `columns` maps your column names to standard ones.

    Raises DataError for unusable data, or where `eta` lacks a subject or a name.
    """
    model = model.model if isinstance(model, Fit) else model
    if not isinstance(model, Model):
        raise ModelError(f"predict needs an nm.Model or its fit, got {type(model).__name__}.")
    subjects = Subjects.from_frame(data, model, columns, every_record=True)
    check_constant_dynamics(model, subjects.subjects)
    latent = PopulationModel(model)
    theta = {name: jnp.asarray(p.start, float) for name, p in latent.parameters().items()}

    def one(eta: Any, subject: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        predicted, amounts = latent.predict(theta, eta, subject, model.specification.compartments)
        return {n: v.mean if isinstance(v, Distribution) else v for n, v in predicted.items()}, amounts

    values, amounts = compiled(jax.vmap(one))(_effects(eta, subjects.ids, latent.eta_names()), subjects.subjects)
    result = data.copy()
    real = subjects.rows >= 0
    order = np.argsort(subjects.rows[real])
    for name in model.endpoints:
        result[name] = np.asarray(values[name])[real][order]
    for name in model.specification.compartments:
        result[f"A_{name}"] = np.asarray(amounts[name])[real][order]
    return result


def _effects(eta: Any, ids: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    if eta is None:
        return np.zeros((len(ids), len(names)))
    table = eta if isinstance(eta, pd.DataFrame) else pd.DataFrame.from_dict(eta, orient="index")
    for name in names:
        if name not in table:
            raise DataError("eta: " + unknown("random effect", name, map(str, table.columns)))
    missing = [who for who in ids if who not in table.index]
    if missing:
        raise DataError(f"eta has no row for subject {missing[0]!r}; its index must hold the data's IDs.")
    return table.loc[list(ids), list(names)].to_numpy(float)
