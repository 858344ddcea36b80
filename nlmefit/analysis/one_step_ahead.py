"""`nm.one_step_ahead`: each observation predicted from those of its subject that came before."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from nlmefit.analysis.fit import Data, bind
from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.progress import Progress
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.observations import Order
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee import predictive
from nlmefit.estimate.referee.predictive import DEFAULT, Forecaster
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit


def one_step_ahead(
    model: Model | AbstractLatentModel | Fit,
    data: Data | None = None,
    method: Forecaster = DEFAULT,
    *,
    after_time: float | None = None,
    after_observations: int | None = None,
    key: Key = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Every observation's predictive distribution p(y_ij | y_i1, ..., y_i,j-1, theta), at a fit's estimates or a model's values.

    By the chain rule a subject's log p(y_i | theta) is the sum of its observations' `log_predictive`. In a model that is right
    the `pit` are independent and uniform on (0, 1), those of one subject too (Rosenblatt 1952; Dawid 1984).

    **Arguments:** `data` None for the fit's own; `method` `nm.SequentialImportance(draws=2000)`, which is right but for a known
    Monte Carlo error, or `nm.Laplace()`, the difference of two approximations, with a normal predictive distribution.
    `after_time` scores only observations at a later TIME, `after_observations` only those after each subject's first so many: the
    earlier ones are given, and the sum is log p(all) - log p(the given ones). `key` decides the draws.

    One row per scored observation, each subject's in the order of its records; of a DataFrame, under the record's own label:

    | column | what |
    |---|---|
    | ID, TIME, endpoint, observed | which observation (in a matrix, TIME is the column's place from 0) |
    | log_predictive, mc_se | log p(y_ij, given the earlier ones), and its Monte Carlo standard error (0 by Laplace) |
    | mean, sd | of the predictive distribution, in the endpoint's unit; NaN where its family has none |
    | pit | P(Y_ij <= y_ij); of counts, categories and observations with CENS uniform from `key` over their interval |
    | ess | the smaller of the effective numbers of draws before and after the observation (NaN by Laplace) |

    The Monte Carlo errors of one subject's rows are not independent: its draws are the same. By Laplace the `pit` of counts is
    the normal distribution's too, without randomisation. A `pit` is NaN where NumPyro has no distribution function.

    Raises MethodError for another method, for `after_time` and `after_observations` together or out of range; DataError where
    nothing is left to score, and for `after_time` where the data has no times; and as `nm.fit` does for data and model.
    """
    _check_method(method)
    latent, dataset = bind(model, data)
    problem = Problem(latent, dataset)
    order = Order.of(problem)
    time = _times(dataset, order)
    scored = _scored(dataset, order, time, after_time, after_observations)
    with Progress(progress, "one step ahead") as line:
        found = predictive.one_step_ahead(problem, problem.coordinates.start(), method, order, scored, jax_key(key), line)
    table = pd.DataFrame(
        {
            "ID": problem.ids[order.subject],
            "TIME": time,
            "endpoint": np.array(order.sites, object)[order.site],
            "observed": order.observed,
            **{name: found[name] for name in ("log_predictive", "mean", "sd", "pit", "mc_se", "ess")},
        },
        _labels(dataset, order),
    )
    return table[scored]


def _check_method(method: Any) -> None:
    if isinstance(method, type):
        raise MethodError(f"{method.__name__} is a class; pass a value: nm.{method.__name__}().")
    if not isinstance(method, Forecaster):
        raise MethodError(f"the method must be nm.SequentialImportance(draws=...) or nm.Laplace(), got {method!r}.")


def _times(dataset: Any, order: Order) -> np.ndarray:
    if isinstance(dataset, Subjects):
        return np.asarray(dataset.subjects.time)[order.subject, order.row]
    return order.row.astype(float)


def _labels(dataset: Any, order: Order) -> pd.Index | None:
    return dataset.frame.index[dataset.rows[order.subject, order.row]] if isinstance(dataset, Subjects) else None


def _scored(
    dataset: Any, order: Order, time: np.ndarray, after_time: Any, after_observations: Any
) -> Bool[np.ndarray, " observations"]:
    """Which observations count."""
    if len(order.place) == 0:
        raise DataError("the data has no observation to predict.")
    if after_time is None and after_observations is None:
        return np.ones(len(time), bool)
    if after_time is not None and after_observations is not None:
        raise MethodError("give after_time or after_observations, not both.")
    if after_observations is not None:
        return _beyond("after_observations", after_observations, order.place, order.place >= _count(after_observations))
    if not isinstance(dataset, Subjects):
        raise DataError("the rows of a matrix have no times; use after_observations=, a number of columns.")
    if isinstance(after_time, bool) or not isinstance(after_time, int | float | np.number) or not np.isfinite(after_time):
        raise MethodError(f"after_time must be a number, got {after_time!r}.")
    return _beyond("after_time", after_time, time, time > after_time)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise MethodError(f"after_observations must be a whole number from 0 up, got {value!r}.")
    return int(value)


def _beyond(name: str, value: Any, where: np.ndarray, scored: np.ndarray) -> np.ndarray:
    if not scored.any():
        has = f"the last is at TIME {where.max():g}" if name == "after_time" else f"no subject has more than {where.max() + 1}"
        raise DataError(f"{name}={value} leaves no observation to score: {has}.")
    return scored
