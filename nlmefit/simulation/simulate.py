"""`nm.simulate`: new populations, or the same subjects, under other regimens."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from nlmefit.analysis.posterior import Posterior
from nlmefit.core.errors import DataError, MethodError, ModelError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_numbers, check_truth, check_whole
from nlmefit.data.frames import if_table
from nlmefit.data.regimen import Regimen
from nlmefit.data.scenario import scenario
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.problem import Problem
from nlmefit.population.latent import PopulationModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.simulation.covariate_model import CovariateModel
from nlmefit.simulation.draws import Draws, Effects, Layer
from nlmefit.simulation.given_effects import given_effects
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
    eta: Effects | pd.DataFrame | Posterior = "population",
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
    | a DataFrame | given: a row per ID; or several draws of each, as `nm.posterior(...).draws` has them (index ID, draw) |

    **Others:** `covariates` of new subjects: the same for all, or a table with a row per subject, from which rows are drawn
    where `subjects` asks for another number, or a model that draws them (`nm.covariate_model`); without it they are drawn from
    the fit's data. `draws` of each subject (1; 200 where `eta="individual"` or `uncertainty` is given; those of a table of
    draws). `uncertainty` of the parameters: "covariance", a normal distribution of the free coordinates with the fit's
    covariance; "posterior", the draws of NUTS; or a table with a draw of the parameters in each row (`nm.bootstrap`). With
    `eta="individual"` the random effects follow the parameters. `residual` adds residual error; else the predictions are given
    (means, of counts and categories).

    Regimens are compared by common random numbers: draw d of subject i has the same parameters, random effects and residual noise
    under each of them, whatever else is simulated. Nothing is computed until it is asked for: `.frame()`, `.bands()` or
    `nm.exposure(simulation)` go through the profiles in pieces of bounded memory.

    Raises DataError for wrong times, covariates, regimens, subjects or random effects; MethodError for wrong options. A profile
    that is not a number (a covariate drives a parameter out of its range) is a DataError of whatever computes it, which names the
    subject, the time and its parameters.
    """
    fit = model if isinstance(model, Fit) else None
    bare = _model_of(model)
    arms = _named(regimens, bare)
    at = None if times is None else _times(times)
    check_truth("residual", residual)
    check_truth("progress", progress)
    seed = jax_key(key)
    people, rule = people_of(bare, fit, subjects, covariates, jax.random.fold_in(seed, 1))
    own = isinstance(people, Subjects)
    if own and regimens is None:
        arms = {"observed": Regimen.observed()}
    if not own and (at is None or any(r.own for r in arms.values())):
        doses = bool(bare.specification.compartments)
        raise DataError(
            f"new subjects have no {'doses and no ' if doses else ''}times of their own: give "
            f"{'regimens (nm.Regimen(0) for no dose) and ' if doses else ''}times=."
        )
    first = scenario(bare, people, next(iter(arms.values())), at, rule=rule)
    problem = Problem(PopulationModel.of(bare, first.data), first.data)
    given, uncertainty = given_effects(eta, problem), if_table(uncertainty)
    count = _count(draws, given, uncertainty)
    drawn = Draws(bare, fit, people, problem, given, uncertainty, count, jax.random.fold_in(seed, 2))
    u, effects = drawn.found()
    return Simulation(bare, arms, people, rule, at, u, effects, bool(residual), jax.random.fold_in(seed, 3), progress)


def _model_of(model: Any) -> Model:
    bare = model.model if isinstance(model, Fit) else model
    if isinstance(bare, type) and issubclass(bare, Model):
        raise ModelError(f"{bare.__name__} is a class; pass an instance: {bare.__name__}().")
    if not isinstance(bare, Model):
        raise ModelError(f"simulate needs an nm.Model or a fit of one, got {type(model).__name__}.")
    return bare


def _named(regimens: Any, model: Model) -> dict[str, Regimen]:
    if regimens is None and not model.specification.compartments:
        return {"undosed": Regimen.of(())}
    if regimens is None:
        return {"observed": Regimen.observed()}
    if isinstance(regimens, Regimen):
        return {"regimen": regimens}
    if not isinstance(regimens, Mapping) or not regimens:
        raise DataError(f"regimens must be an nm.Regimen, or several by name {{'low': nm.Regimen(...)}}, got {regimens!r}.")
    for name, regimen in regimens.items():
        if not isinstance(regimen, Regimen):
            raise DataError(
                f"regimens: regimen {name!r} must be an nm.Regimen (nm.Regimen.observed(): own doses), got {regimen!r}."
            )
    if len({str(name) for name in regimens}) < len(regimens):
        raise DataError(f"regimens: two have the same name: {', '.join(map(str, regimens))}.")
    return {str(name): regimen for name, regimen in regimens.items()}


def _times(times: Any) -> np.ndarray:
    found = check_numbers("times", times, "numbers, finite and in a list (in the model's unit of time)", DataError)
    if np.ndim(times) != 1 or len(found) == 0:
        raise DataError(f"times must be a list of finite numbers, got {times!r}.")
    if np.any(np.diff(found) <= 0):
        i = int(np.flatnonzero(np.diff(found) <= 0)[0])
        raise DataError(f"times must increase: {found[i]:g} is followed by {found[i + 1]:g}.")
    return found


def _count(draws: Any, eta: Any, uncertainty: Any) -> int:
    several = len(eta) if isinstance(eta, np.ndarray) and len(eta) > 1 else None
    if draws is None:
        return several or (MANY if uncertainty is not None or (isinstance(eta, str) and eta == "individual") else 1)
    count = check_whole("draws", draws, 1)
    if several is not None and count > several:
        raise MethodError(f"draws={count}, but eta= has {several} draws of each subject; give as many, or fewer.")
    return count
