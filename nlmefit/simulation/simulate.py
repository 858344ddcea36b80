"""`nm.simulate`: new populations, or the same subjects, under other regimens."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from nlmefit.data.regimen import Regimen
from nlmefit.data.scenario import scenario
from nlmefit.data.subjects import Subjects
from nlmefit.errors import DataError, MethodError, ModelError
from nlmefit.estimate.problem import Problem
from nlmefit.keys import Key, jax_key
from nlmefit.model import Model
from nlmefit.population import PopulationModel
from nlmefit.results import Fit
from nlmefit.simulation.covariate_model import CovariateModel
from nlmefit.simulation.draws import Draws, Effects, Layer
from nlmefit.simulation.people import people_of
from nlmefit.simulation.profiles import Simulation

MANY = 200
"""Draws where random effects or parameters are uncertain, unless told."""


def simulate(
    model: Model | Fit,
    regimens: Regimen | Mapping[str, Regimen] | None = None,
    *,
    times: Sequence[float] | np.ndarray | None = None,
    subjects: int | pd.DataFrame | Subjects | None = None,
    covariates: pd.DataFrame | Mapping[str, float] | CovariateModel | None = None,
    eta: Effects | pd.DataFrame = "population",
    draws: int | None = None,
    uncertainty: Layer | pd.DataFrame | None = None,
    residual: bool = False,
    key: Key = 0,
    progress: bool = True,
) -> Simulation:
    """Profiles of subjects under one or several regimens, at a model's values or a fit's estimates.

    **Everyday arguments:** `regimens` a `nm.Regimen`, or several by name; None means the subjects' own doses
    (`nm.Regimen.observed()`). `times` at which
    they are seen (None: at their own observations); a time at which a dose is given shows the system just after it. `subjects` a
    number of new ones, or a data set; None means the fit's own. `eta` says whose random effects:

    | eta | what |
    |---|---|
    | "population" | new ones, N(0, Omega), of each subject and draw |
    | "individual" | draws from p(eta | y) of subjects with observations (`nm.posterior`) |
    | "mode" | the fit's empirical-Bayes estimates |
    | "typical" | 0 |
    | a DataFrame | given by ID |

    **Others:** `covariates` of new subjects: the same for all, or a table with a row per subject, from which rows are drawn
    where `subjects` asks for another number, or a model that draws them (`nm.covariate_model`); without it they are drawn from
    the fit's data. `draws` of each subject (1; 200 where `eta="individual"` or `uncertainty` is given). `uncertainty` of the
    parameters: "covariance", a normal distribution of the free coordinates with the fit's covariance; "posterior", the draws of
    NUTS; or a table with a draw of the parameters in each row (`nm.bootstrap`). With `eta="individual"` the random effects follow
    the parameters. `residual` adds residual error; else the predictions are given (means, of counts and categories).

    Regimens are compared by common random numbers: draw d of subject i has the same parameters, random effects and residual noise
    under each of them, whatever else is simulated. Nothing is computed until it is asked for: `.frame()`, `.bands()` or
    `nm.exposure(simulation)` go through the profiles in pieces of bounded memory.

    Raises DataError for wrong times, covariates, regimens or subjects; MethodError for wrong options.
    """
    fit = model if isinstance(model, Fit) else None
    bare = _model_of(model)
    arms = _named(regimens)
    at = None if times is None else _times(times)
    _check_residual(residual)
    seed = jax_key(key)
    people, rule = people_of(bare, fit, subjects, covariates, jax.random.fold_in(seed, 1))
    own = isinstance(people, Subjects)
    if not own and (at is None or any(r.own for r in arms.values())):
        raise DataError("new subjects have no doses and no times of their own: give regimens and times=.")
    first = scenario(bare, people, next(iter(arms.values())), at, rule=rule)
    problem = Problem(PopulationModel.of(bare, first.data), first.data)
    count = _count(draws, eta, uncertainty)
    drawn = Draws(bare, fit, people, problem, eta, uncertainty, count, jax.random.fold_in(seed, 2))
    u, effects = drawn.found()
    return Simulation(bare, arms, people, rule, at, u, effects, residual, jax.random.fold_in(seed, 3), progress)


def _model_of(model: Any) -> Model:
    bare = model.model if isinstance(model, Fit) else model
    if isinstance(bare, type) and issubclass(bare, Model):
        raise ModelError(f"{bare.__name__} is a class; pass an instance: {bare.__name__}().")
    if not isinstance(bare, Model):
        raise ModelError(f"simulate needs an nm.Model or a fit of one, got {type(model).__name__}.")
    return bare


def _named(regimens: Any) -> dict[str, Regimen]:
    if regimens is None:
        return {"observed": Regimen.observed()}
    if isinstance(regimens, Regimen):
        return {"regimen": regimens}
    if not isinstance(regimens, Mapping) or not regimens:
        raise DataError(f"regimens must be an nm.Regimen, or several by name {{'low': nm.Regimen(...)}}, got {regimens!r}.")
    for name, regimen in regimens.items():
        if not isinstance(regimen, Regimen):
            raise DataError(f"regimen {name!r} must be an nm.Regimen (nm.Regimen.observed(): own doses), got {regimen!r}.")
    return {str(name): regimen for name, regimen in regimens.items()}


def _times(times: Any) -> np.ndarray:
    try:
        found = np.asarray(times, float)
    except (TypeError, ValueError):
        raise DataError(f"times must be numbers, got {times!r}.") from None
    if found.ndim != 1 or len(found) == 0 or not np.all(np.isfinite(found)):
        raise DataError(f"times must be a list of finite numbers, got {times!r}.")
    if np.any(np.diff(found) <= 0):
        i = int(np.flatnonzero(np.diff(found) <= 0)[0])
        raise DataError(f"times must increase: {found[i]:g} is followed by {found[i + 1]:g}.")
    return found


def _check_residual(residual: Any) -> None:
    if not isinstance(residual, bool):
        raise MethodError(f"residual must be True or False, got {residual!r}.")


def _count(draws: Any, eta: Any, uncertainty: Any) -> int:
    if draws is None:
        return MANY if uncertainty is not None or (isinstance(eta, str) and eta == "individual") else 1
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise MethodError(f"draws must be a whole number from 1 up, got {draws!r}.")
    return int(draws)
