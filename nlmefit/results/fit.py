"""What a fit returns: estimates, standard errors, random effects, objective, status, and how it came about."""

import importlib
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.core import archive
from nlmefit.core.errors import NlmefitError
from nlmefit.core.shown import html
from nlmefit.data.reading import Reading
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.mcmc.mixing import described
from nlmefit.estimate.mcmc.nuts import Draws
from nlmefit.estimate.method import Found, Kind
from nlmefit.estimate.standard_errors import Uncertainty
from nlmefit.estimate.status import Status
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.results.saved import Traits, content, model_title, traits

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


@dataclass(frozen=True)
class Fit:
    """A fitted (or evaluated) model. Everything is named as in the model.

    `ofv` is NONMEM's objective: -2 log L without n log(2 pi) of normal observations (NaN where the method has but a bound).
    `log_likelihood` is log p(y | theta) as the method has it; `kind` says what that is.
    """

    model: Any
    """The model at the estimates."""
    method: Any
    status: Status
    log_likelihood: float
    ofv: float
    estimates: pd.Series
    units: Mapping[str, str]
    fixed: tuple[str, ...]
    uncertainty: Uncertainty | None
    contributions: pd.DataFrame
    """By subject: ofv, log_likelihood, observations, converged, iterations."""
    eta: pd.DataFrame
    """Empirical-Bayes estimates of the random effects (modes), by subject."""
    eta_covariance: np.ndarray
    """Posterior covariance of eta by subject (N, q, q), from the inner Hessian."""
    individual: pd.DataFrame
    """Individual parameters at the modes, by subject (at the first record's covariates)."""
    omega: pd.DataFrame
    """Omega as a covariance matrix."""
    history: pd.DataFrame
    conventions: Mapping[str, str]
    seconds: Mapping[str, float]
    findings: tuple[Any, ...] = ()
    latent: AbstractLatentModel | None = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)
    kind: Kind = "approximation"
    """What `log_likelihood` says of log p(y | theta)."""
    mc_se: float = 0.0
    """Monte Carlo standard error of `log_likelihood`."""
    found: Found | None = field(default=None, repr=False)
    """The method's answer on its own scale: free coordinates, whitened random effects, their posterior."""
    key: np.ndarray | None = field(default=None, repr=False)
    """The random key that decided every draw: `nm.fit(..., key=jax.numpy.asarray(fit.key))` makes the same."""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Of a loaded fit: the versions of the packages that made it, the data's SHA-256 and number of rows."""

    @property
    def reading(self) -> Reading:
        """The rules by which the fit's data were read; every call that is given further data reads them so."""
        if isinstance(self.data, Subjects):
            return self.data.reading
        return Reading(**self.provenance.get("data", {}).get("reading", {}))

    @property
    def covariance(self) -> pd.DataFrame:
        """Covariance matrix of the estimates, natural scale (NaN where it was not asked for or could not be made)."""
        names = list(self.estimates.index)
        matrix = np.full((len(names),) * 2, np.nan) if self.uncertainty is None else self.uncertainty.covariance
        return pd.DataFrame(matrix, names, names)

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation matrix of the estimates that are not fixed."""
        free = [name for name in self.estimates.index if name not in self.fixed]
        matrix = self.covariance.loc[free, free]
        scale = np.sqrt(np.diag(matrix))
        return matrix / np.outer(scale, scale)

    @property
    def standard_errors(self) -> pd.Series:
        """Standard errors by name, natural scale; NaN for fixed parameters."""
        with np.errstate(invalid="ignore"):
            se = pd.Series(np.sqrt(np.diag(self.covariance)), self.estimates.index, name="se")
        se[list(self.fixed)] = np.nan
        return se

    def summary(self) -> pd.DataFrame:
        """Estimate, unit, se, relative se (%), 95 % interval and shrinkage by parameter.

        The interval is Wald's, on the log scale for parameters with one bound, the logit scale for those with two
        (Fisher's z for correlations), the natural scale for others. Of a NUTS fit it goes from the 2.5 % to the 97.5 % quantile
        of the draws, and there are their mean, median, R-hat and effective number (ESS), too; `se` is their sd.
        """
        units = [self.units.get(str(name), "") for name in self.estimates.index]
        table = pd.DataFrame({"estimate": self.estimates, "unit": units, "se": self.standard_errors})
        table["rse"] = 100 * (table["se"] / table["estimate"]).abs()
        ends = [self._interval(str(name), x, se) for name, x, se in zip(table.index, table["estimate"], table["se"], strict=True)]
        table["lower"], table["upper"] = (np.array(end) for end in zip(*ends, strict=True)) if ends else ([], [])
        shrunk = {symbol: self._shrinkage(columns) for symbol, columns in self._effects().items()}
        table["shrinkage"] = pd.Series(shrunk, dtype=float).reindex(table.index)
        if self._drawn:
            drawn = pd.DataFrame.from_dict(self._described(), orient="index").reindex(table.index)
            table = table.assign(mean=drawn["mean"], median=drawn["50 %"], r_hat=drawn["R-hat"], ess=drawn["ESS"])
        return table

    def _described(self) -> dict[str, dict[str, float]]:
        """Of a NUTS fit: what the draws of each parameter that is not fixed say."""
        return {name: described(x) for name, x in self._drawn.items() if name not in self.fixed}

    def _interval(self, name: str, estimate: float, se: float) -> tuple[float, float]:
        if name in self._drawn and name not in self.fixed:
            low, high = np.quantile(self._drawn[name], (0.025, 0.975))
            return float(low), float(high)
        return wald(estimate, se, *self._bounds(name))

    @property
    def by_draws(self) -> bool:
        """Whether the parameters have draws from their posterior (NUTS) rather than a maximum."""
        return bool(self._drawn)

    @property
    def _drawn(self) -> Mapping[str, np.ndarray]:
        """Draws from the parameters' posterior by name, where the method made such."""
        posterior = None if self.found is None else self.found.posterior
        return posterior.report if isinstance(posterior, Draws) else {}

    def _bounds(self, name: str) -> tuple[float, float]:
        parameter = getattr(self.model, "population", dict)().get(name)
        return (-np.inf, np.inf) if parameter is None else (parameter.lower, parameter.upper)

    @property
    def shrinkage(self) -> pd.Series:
        """Eta shrinkage in percent: 100 (1 - sd(eta modes) / omega)."""
        return pd.Series({c: self._shrinkage([c]) for c in self.eta.columns}, name="shrinkage", dtype=float)

    def _shrinkage(self, columns: list[Any]) -> float:
        """That of random effects with a common sd (those of all occasions) together."""
        sd = np.sqrt(self.omega.loc[columns[0], columns[0]])
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(100 * (1 - np.nanstd(self.eta[columns].to_numpy()) / sd))

    def _effects(self) -> dict[str, list[str]]:
        """Columns of `eta` by the sd that they share."""
        found: dict[str, list[str]] = {}
        for column in self.eta.columns:
            name, _, number = str(column).removeprefix("kappa_").rpartition("_")
            symbol = f"gamma_{name}" if str(column).startswith("kappa_") and number.isdigit() else f"omega_{column}"
            found.setdefault(symbol, []).append(column)
        return found

    def omega_table(self) -> pd.DataFrame:
        """Random effects: variance, sd, CV % (log-normal: sqrt(exp(variance) - 1)), shrinkage %; `kappa` are the occasions'.

        Of a parameter with a flow: omega's, and the shrinkage of its normal scores."""
        known, rows = self.traits, {}
        for symbol, columns in self._effects().items():
            level, _, name = symbol.partition("_")
            variance = float(np.diag(self.omega)[self.omega.columns.get_loc(columns[0])])
            flowed = name in known.scores
            if flowed:
                variance = float(self.estimates[symbol]) ** 2
            cv = 100 * np.sqrt(np.expm1(variance)) if name in known.log_normal and not flowed else np.nan
            rows[name if level == "omega" else f"kappa_{name}"] = (variance, np.sqrt(variance), cv, self._shrinkage(columns))
        return pd.DataFrame.from_dict(rows, orient="index", columns=["variance", "sd", "cv", "shrinkage"])

    @property
    def observations(self) -> int:
        """Number of observations."""
        return int(self.contributions["observations"].sum())

    @property
    def aic(self) -> float:
        """-2 log L + 2 (number of estimated parameters). Of maximum likelihood: NUTS has no maximum, and its print no AIC."""
        return -2 * self.log_likelihood + 2 * self._free

    @property
    def bic(self) -> float:
        """-2 log L + log(number of observations) (number of estimated parameters)."""
        return -2 * self.log_likelihood + np.log(self.observations) * self._free

    @property
    def _free(self) -> int:
        return len(self.estimates) - len(self.fixed)

    def __str__(self) -> str:
        return "\n".join([*self._header(), "", *self._parameters(), "", *self._random_effects(), *self._footer()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)

    def _header(self) -> list[str]:
        lines = [f"{model_title(self.model)} by {self.method.name}", f"  status          {self.status}"]
        lines.append(f"  data            {len(self.contributions)} subjects, {self.observations} observations")
        lines += self._objective()
        lines += [f"  {key:15s} {value}" for key, value in self.conventions.items()]
        return lines

    def _objective(self) -> list[str]:
        error = f" +- {self.mc_se:.2g}" if self.mc_se else ""
        if self.kind == "bound":
            return [f"  log p(y)        at least {self.log_likelihood:.4f}{error}   (a bound, never comparable with an OFV)"]
        twice = f" +- {2 * self.mc_se:.2g}" if self.mc_se else ""
        decimals = 3 if self.mc_se else 6
        likelihood = f"log L {self.log_likelihood:.{decimals}f}"
        if not self._drawn:  # AIC and BIC are of a maximum, which draws have not
            likelihood += f", AIC {self.aic:.3f}, BIC {self.bic:.3f}"
        return [f"  OFV             {self.ofv:.{decimals}f}{twice}   (-2 log L without n log 2pi; {likelihood})"]

    @property
    def traits(self) -> Traits:
        """What tables need to know of the model."""
        return traits(self.model)

    def shown(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """`summary` without the weights of networks, and what stands for these: a line by network."""
        table, lines = self.summary(), {}
        for name, weights in self.traits.networks.items():
            size = float(np.sqrt(np.mean(self.estimates[weights] ** 2)))
            table = table.drop(index=weights)
            lines[name] = f"{len(weights)} weights, {weights[0]} to {weights[-1]}, root mean square {size:.3g}"
        return table, lines

    def _parameters(self) -> list[str]:
        table, networks = self.shown()
        lines = self._drawn_lines(table) if self._drawn else self._estimate_lines(table)
        width = max([9, *map(len, table.index)])
        return lines + [f"  {name:{width}s} network: {text}" for name, text in networks.items()]

    def _drawn_lines(self, table: pd.DataFrame) -> list[str]:
        """Of a NUTS fit."""
        known, width, unit = self._described(), max([9, *map(len, table.index)]), max([4, *map(len, table["unit"])])
        titles = ["mean", "sd", "2.5 %", "50 %", "97.5 %"]
        head = "".join(f" {title:>10s}" for title in titles)
        lines = [f"  {'parameter':{width}s} {'unit':{unit}s}{head} {'R-hat':>7s} {'ESS':>6s}"]
        for name, row in table.iterrows():
            start = f"  {name:{width}s} {row['unit']:{unit}s}"
            if str(name) not in known:
                lines.append(f"{start} {row['estimate']:>10.5g} {'fixed':>10s}")
                continue
            of = known[str(name)]
            numbers = "".join(f" {of[title]:>10.4g}" for title in titles)
            hat, size = (f"{of[key]:{form}}" if np.isfinite(of[key]) else "-" for key, form in (("R-hat", ".3f"), ("ESS", ".0f")))
            lines.append(f"{start}{numbers} {hat:>7s} {size:>6s}")
        return lines

    def _estimate_lines(self, table: pd.DataFrame) -> list[str]:
        width = max(map(len, table.index), default=9)
        unit = max([4, *map(len, table["unit"])])
        interval = "95 % interval"
        lines = [f"  {'parameter':{max(width, 9)}s} {'unit':{unit}s} {'estimate':>11s} {'se':>11s} {'rse %':>7s}   {interval}"]
        for name, row in table.iterrows():
            head = f"  {name:{max(width, 9)}s} {row['unit']:{unit}s} {row['estimate']:>11.5g} "
            if name in self.fixed:
                lines.append(head + f"{'fixed':>11s}")
            elif np.isfinite(row["se"]):
                rse = f"{row['rse']:.1f}" if np.isfinite(row["rse"]) else "-"
                lines.append(head + f"{row['se']:>11.4g} {rse:>7s}   {row['lower']:.5g} to {row['upper']:.5g}")
            else:
                lines.append(head + f"{'-':>11s}")
        return lines

    def _random_effects(self) -> list[str]:
        if self.eta.shape[1] == 0:
            return []
        table = self.omega_table()
        width = max(9, *map(len, table.index))
        lines = [f"  {'eta':{width}s} {'variance':>11s} {'sd':>9s} {'CV %':>7s} {'shrinkage %':>12s}"]
        for name, row in table.iterrows():
            cv = f"{row['cv']:.1f}" if np.isfinite(row["cv"]) else "-"
            lines.append(f"  {name:{width}s} {row['variance']:>11.5g} {row['sd']:>9.4g} {cv:>7s} {row['shrinkage']:>12.1f}")
        return [*lines, ""]

    def _footer(self) -> list[str]:
        lines = []
        if self.uncertainty is not None and self.uncertainty.kind != "none":
            how = {"sandwich": "R^-1 S R^-1", "R": "R^-1", "S": "S^-1", "posterior": "the posterior draws"}[self.uncertainty.kind]
            lines.append(f"  standard errors from {how}; condition number {self.uncertainty.condition:.3g}")
            if self.uncertainty.note:
                lines.append(f"  note: {self.uncertainty.note}")
        lines += [f"  data: {finding}" for finding in self.findings]
        spent = ", ".join(f"{key} {value:.2f}" for key, value in self.seconds.items())
        return [*lines, f"  seconds: {spent}"]

    def parameters_at(self) -> dict[str, float]:
        """The estimates as a plain dictionary, for `model.at(...)`."""
        return {str(name): float(value) for name, value in self.estimates.items()}

    def subject(self, label: Any) -> pd.Series:
        """One subject's contribution and random effects. Raises NlmefitError where there is no such subject."""
        if isinstance(label, bool) or not isinstance(label, Hashable) or label not in self.contributions.index:
            first = ", ".join(map(str, self.contributions.index[:5]))
            raise NlmefitError(f"there is no subject {label!r}; the first are {first}.")
        return pd.concat([self.contributions.loc[label], self.eta.loc[label]])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that the tables and the print need to one file, for `nm.load`: numbers and text, no code, no data.

        An older file is replaced at the end, in one step. Raises NlmefitError where `path` is a folder, lies in none, or cannot
        be written.
        """
        archive.write(path, content(self))

    def to_arviz(self, draws: int | None = None, *, key: Any = 0, inner: int = 50) -> Any:
        """The fit as an `arviz.InferenceData`: draws of parameters and random effects, and their log-likelihoods.

        **Arguments:** `draws` how many (None: all those of NUTS, 1000 of another method's normal approximation); `key` decides
        them; `inner` the importance samples per draw and subject for log p(y_i | theta), 0 to leave that out.

        Groups: `posterior` (parameters by name; `eta` by ID and effect), `log_likelihood` (by endpoint and observation;
        `subject`, with the random effects integrated out), `observed_data`, `constant_data`. The attributes of `posterior` say
        which approximation it is. Raises NlmefitError without arviz, and of a loaded fit, which has no data.
        """
        # Through importlib: a heavy library above this layer, which only this call needs.
        return importlib.import_module("nlmefit.interop.arviz").to_arviz(self, draws, key=key, inner=inner)
