"""The tables of a fit: standard errors, intervals, Omega, shrinkage, information criteria."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.estimate.mcmc.mixing import described
from nlmefit.estimate.mcmc.nuts import Draws
from nlmefit.results.record import FitRecord
from nlmefit.results.saved import traits

NORMAL_95 = 1.959963984540054


def wald(estimate: float, se: float, lower: float = -np.inf, upper: float = np.inf) -> tuple[float, float]:
    """The 95 % interval, on a scale on which the parameter has no bounds."""
    below, above = estimate - lower, upper - estimate
    if not np.isfinite(se) or below <= 0 or above <= 0:
        return np.nan, np.nan
    half = NORMAL_95 * se
    with np.errstate(over="ignore"):
        if np.isfinite(lower) and np.isfinite(upper):
            logit, width = np.log(below / above), half * (1 / below + 1 / above)
            share = 1 / (1 + np.exp(-np.array([logit - width, logit + width])))
            low, high = lower + (upper - lower) * share
            return low, high
        if np.isfinite(lower):
            return lower + below / np.exp(half / below), lower + below * np.exp(half / below)
        if np.isfinite(upper):
            return upper - above * np.exp(half / above), upper - above / np.exp(half / above)
    return estimate - half, estimate + half


def covariance(fit: FitRecord) -> pd.DataFrame:
    """Covariance matrix of the estimates, natural scale (NaN where it was not asked for or could not be made)."""
    names = list(fit.estimates.index)
    matrix = np.full((len(names),) * 2, np.nan) if fit.uncertainty is None else fit.uncertainty.covariance
    return pd.DataFrame(matrix, names, names)


def correlation(fit: FitRecord) -> pd.DataFrame:
    """Correlation matrix of the estimates that are not fixed."""
    free = [name for name in fit.estimates.index if name not in fit.fixed]
    matrix = covariance(fit).loc[free, free]
    scale = np.sqrt(np.diag(matrix))
    return matrix.div(np.outer(scale, scale))


def standard_errors(fit: FitRecord) -> pd.Series:
    """Standard errors by name, natural scale; NaN for fixed parameters."""
    with np.errstate(invalid="ignore"):
        se = pd.Series(np.sqrt(np.diag(covariance(fit))), fit.estimates.index, name="se")
    se[list(fit.fixed)] = np.nan
    return se


def summary(fit: FitRecord) -> pd.DataFrame:
    """Estimate, unit, se, relative se (%), 95 % interval and shrinkage by parameter.

    The interval is Wald's, on the log scale for parameters with one bound, the logit scale for those with two
    (Fisher's z for correlations), the natural scale for others. Of a NUTS fit it goes from the 2.5 % to the 97.5 % quantile
    of the draws, and there are their mean, median, R-hat and effective number (ESS), too; `se` is their sd.
    """
    units = [fit.units.get(str(name), "") for name in fit.estimates.index]
    table = pd.DataFrame({"estimate": fit.estimates, "unit": units, "se": standard_errors(fit)})
    table["rse"] = 100 * (table["se"] / table["estimate"]).abs()
    ends = [_interval(fit, str(name), x, se) for name, x, se in zip(table.index, table["estimate"], table["se"], strict=True)]
    table["lower"], table["upper"] = np.reshape(ends, (-1, 2)).T
    shrunk = {symbol: _shrinkage(fit, columns) for symbol, columns in _effects(fit).items()}
    table["shrinkage"] = pd.Series(shrunk, dtype=float).reindex(table.index)
    if drawn(fit):
        of_draws = pd.DataFrame.from_dict(described_draws(fit), orient="index").reindex(table.index)
        table = table.assign(mean=of_draws["mean"], median=of_draws["50 %"], r_hat=of_draws["R-hat"], ess=of_draws["ESS"])
    return table


def _interval(fit: FitRecord, name: str, estimate: float, se: float) -> tuple[float, float]:
    if name in drawn(fit) and name not in fit.fixed:
        low, high = np.quantile(drawn(fit)[name], (0.025, 0.975))
        return float(low), float(high)
    return wald(estimate, se, *_bounds(fit, name))


def _bounds(fit: FitRecord, name: str) -> tuple[float, float]:
    population = getattr(fit.model, "population", None)
    parameter = None if population is None else population().get(name)
    return (-np.inf, np.inf) if parameter is None else (parameter.lower, parameter.upper)


def drawn(fit: FitRecord) -> Mapping[str, np.ndarray]:
    """Draws from the parameters' posterior by name, where the method made such."""
    posterior = None if fit.found is None else fit.found.posterior
    return posterior.report if isinstance(posterior, Draws) else {}


def described_draws(fit: FitRecord) -> dict[str, dict[str, float]]:
    """Of a NUTS fit: what the draws of each parameter that is not fixed say."""
    return {name: described(x) for name, x in drawn(fit).items() if name not in fit.fixed}


def shrinkage(fit: FitRecord) -> pd.Series:
    """Eta shrinkage in percent: 100 (1 - sd(eta modes) / omega)."""
    return pd.Series({c: _shrinkage(fit, [c]) for c in fit.eta.columns}, name="shrinkage", dtype=float)


def _shrinkage(fit: FitRecord, columns: list[Any]) -> float:
    """That of random effects with a common sd (those of all occasions) together."""
    sd = np.sqrt(fit.omega.loc[columns[0], columns[0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(100 * (1 - np.nanstd(fit.eta[columns].to_numpy()) / sd))


def _effects(fit: FitRecord) -> dict[str, list[str]]:
    """Columns of `eta` by the sd that they share."""
    found: dict[str, list[str]] = {}
    for column in fit.eta.columns:
        name, _, number = str(column).removeprefix("kappa_").rpartition("_")
        symbol = f"gamma_{name}" if str(column).startswith("kappa_") and number.isdigit() else f"omega_{column}"
        found.setdefault(symbol, []).append(column)
    return found


def omega_table(fit: FitRecord) -> pd.DataFrame:
    """Random effects: variance, sd, CV % (log-normal: sqrt(exp(variance) - 1)), shrinkage %; `kappa` are the occasions'.

    Of a parameter with a flow: omega's, and the shrinkage of its normal scores."""
    known, rows = traits(fit.model), {}
    for symbol, columns in _effects(fit).items():
        level, _, name = symbol.partition("_")
        variance = float(np.diag(fit.omega)[fit.omega.columns.get_loc(columns[0])])
        flowed = name in known.scores
        if flowed:
            variance = float(fit.estimates[symbol]) ** 2
        cv = 100 * np.sqrt(np.expm1(variance)) if name in known.log_normal and not flowed else np.nan
        rows[name if level == "omega" else f"kappa_{name}"] = (variance, np.sqrt(variance), cv, _shrinkage(fit, columns))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["variance", "sd", "cv", "shrinkage"])


def observations(fit: FitRecord) -> int:
    """Number of observations."""
    return int(fit.contributions["observations"].sum())


def aic(fit: FitRecord) -> float:
    """-2 log L + 2 (number of estimated parameters). Of maximum likelihood: NUTS has no maximum, and its print no AIC."""
    return -2 * fit.log_likelihood + 2 * free(fit)


def bic(fit: FitRecord) -> float:
    """-2 log L + log(number of observations) (number of estimated parameters)."""
    return -2 * fit.log_likelihood + np.log(observations(fit)) * free(fit)


def free(fit: FitRecord) -> int:
    return len(fit.estimates) - len(fit.fixed)
