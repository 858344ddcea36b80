"""`nm.vpc`: the visual predictive check, numbers. Do data simulated from the model look like the data?

In each bin of time, percentiles of the observations are set beside the same percentiles of K data sets simulated with the data's
own design (doses, covariates, times), new random effects and residual errors: their median, and the interval that holds 90 % of
them (Karlsson and Holford 2008). Of a model that is right, about nine in ten observed percentiles lie inside.

Prediction correction (Bergstrand, Hooker, Wallin and Karlsson 2011) takes out what differs within a bin by design. With PRED the
prediction at eta = 0 and PRED_bin the median of it in the bin, observations and simulations alike become

    pcY_ij = Y_ij PRED_bin / PRED_ij

where PRED is above 0; where it is 0, as before the first dose, Y_ij is left as it is.

Observations below a limit of quantification (CENS 1) count as lower than all that were seen (Bergstrand and Karlsson 2009), as do
all values, observed or simulated, below L, the highest limit of the stratum (of the endpoint, where the stratum has none). A
percentile is known where it lies above L, and the share of values below L is checked as well; for CENS -1 above the lowest upper
limit likewise. Under prediction correction L is multiplied as the observations are, and the highest L in the bin counts.

Percentiles are interpolated linearly between order statistics (Hyndman and Fan's type 7).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.core.errors import DataError, MethodError, unknown
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_numbers, check_truth, check_whole, check_word
from nlmefit.core.progress import Progress
from nlmefit.core.shown import html
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.bins import bin_edges
from nlmefit.diagnostics.fit_problem import bound, discrete, own_or_given
from nlmefit.diagnostics.percentiles import Group
from nlmefit.diagnostics.time_after_dose import time_after_dose
from nlmefit.estimate.observations import Order
from nlmefit.estimate.problem import Problem
from nlmefit.results.fit import Fit
from nlmefit.results.saved import model_name
from nlmefit.simulation.replicates import pieces

LEAST_DRAWS = 20
MOST_STRATA = 20
MOST_CATEGORIES = 6
NUMBERS = 1 << 24
"""Simulated numbers held at once."""
ALL = "all"
"""The stratum where there are none."""


@dataclass(frozen=True)
class VPC:
    """What `nm.vpc` returns. Its tables begin with endpoint, stratum, bin, TIME (the median in the bin), start, end, count (of
    observations), and end with observed, simulated (median of the data sets), lower, upper (90 % of them)."""

    fit: Fit = field(repr=False)
    strata: str | None
    corrected: bool
    draws: int
    percentiles: pd.DataFrame
    """By `probability`. -inf is below the limit of quantification, inf above the upper one: known no better."""
    beyond: pd.DataFrame
    """The share of values beyond a `limit`, by `side` ("below", "above"); empty where no observation is censored."""
    proportions: pd.DataFrame
    """Of counts and categories: the share of each `category`."""
    observations: pd.DataFrame
    """ID, TIME, endpoint, stratum, bin, DV (corrected where asked for; of censored ones the limit), CENS."""
    after_dose: bool = False
    """Whether TIME is the time after the last dose."""

    def __str__(self) -> str:
        head = f"VPC of {model_name(self.fit.model)} by {self.fit.method.name}: {len(self.observations)} observations, "
        head += f"{self.draws} simulated data sets" + (", prediction-corrected" if self.corrected else "")
        tables = [table for table in (self.percentiles, self.beyond, self.proportions) if len(table)]
        return "\n\n".join([head, *(table.to_string(index=False, float_format="{:.4g}".format) for table in tables)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)


def vpc(
    fit: Fit,
    data: pd.DataFrame | Subjects | None = None,
    bins: Literal["auto"] | int | Sequence[float] = "auto",
    strata: str | None = None,
    corrected: bool = False,
    probabilities: Sequence[float] = (0.05, 0.5, 0.95),
    draws: int = 500,
    endpoint: str | None = None,
    key: Key = 0,
    progress: bool = True,
    *,
    after_dose: bool = False,
) -> VPC:
    """Visual predictive check of a fit, by whatever method; `nm.plot.vpc` draws it.

    **Everyday arguments:** `data` None for the fit's own; `bins` "auto" (of about equal counts, cut at the widest gaps between
    times nearby, so that nominal times stay together: see `diagnostics.bins`), a number of bins, or their edges, lower ends
    included; `strata` a column of the data, each value of which is checked by itself; `corrected` prediction correction.

    **Others:** `probabilities` of the percentiles; `draws` simulated data sets; `endpoint` one of several; `key` decides them;
    `after_dose` bins by the time after the last dose, which TIME then is.

    Endpoints of counts and categories give the proportion of each value, or of six ranges of values where there are more.
    Observations below a limit count as such, also where the fit left them out (M1).

    Raises DataError for unusable data, an unknown column, a negative PRED under correction, and edges that leave some out;
    MethodError for options out of range and distributions that cannot be sampled; ModelError and NlmefitError as `nm.diagnose`.
    """
    check_whole("draws", draws, LEAST_DRAWS)
    for option, value in (("corrected", corrected), ("progress", progress), ("after_dose", after_dose)):
        check_truth(option, value)
    levels = _levels(probabilities)
    seed = jax_key(key)
    problem, dataset = _bound(fit, data)
    if endpoint is not None:
        check_word("endpoint", endpoint, problem.families, "endpoint")
    order, u = Order.of(problem), problem.coordinates.start()
    groups = _groups(problem, dataset, order, u, bins, strata, levels, endpoint, after_dose)
    if corrected:
        groups = _corrected(groups, problem, u, order, seed)
    with Progress(progress, "VPC") as line:
        found: list[list[Any]] = [[] for _ in groups]
        for made, simulated in _datasets(problem, u, draws, seed):
            for group, kept in zip(groups, found, strict=True):
                kept.append(group.measured(simulated[group.endpoint][:, order.subject[group.where], order.row[group.where]]))
            line.stage(f"{made} of {draws} simulated data sets")
    tables = [group.tables(kept) for group, kept in zip(groups, found, strict=True)]
    percentiles, beyond, proportions = (pd.concat([t[k] for t in tables], ignore_index=True) for k in range(3))
    observations = pd.concat([group.observations(problem.ids[order.subject[group.where]]) for group in groups])
    return VPC(fit, strata, corrected, draws, percentiles, beyond, proportions, observations, after_dose)


# ---- laying out ------------------------------------------------------------------------------------------------------


def _bound(fit: Any, data: Any) -> tuple[Problem, Subjects]:
    """The fit's model at its estimates, bound to the data with all their censored observations."""
    given = own_or_given(fit, data, "nm.vpc", "a VPC")
    if isinstance(given, Subjects) and given.blq == "M1":
        given = Subjects.from_frame(given.frame, fit.model, given.columns, covariates=given.rule, blq="M3")
    problem, dataset = bound(fit, given)
    if not dataset.observations.any():
        raise DataError("the data has no observation to check the model with.")
    return problem, dataset


def _groups(
    problem: Problem,
    data: Subjects,
    order: Order,
    u: np.ndarray,
    bins: Any,
    strata: Any,
    levels: np.ndarray,
    endpoint: str | None,
    after_dose: bool,
) -> list[Group]:
    times = np.asarray(data.subjects.time)[order.subject, order.row]
    times = time_after_dose(data, order.subject, order.row) if after_dose else times
    labels, values = _strata(data, order, strata)
    counted, found = discrete(problem, u), []
    for site, name in enumerate(order.sites):
        if endpoint not in (None, name):
            continue
        own = order.site == site
        flag = np.zeros(len(own), int)
        if name in data.subjects.censoring:
            flag = np.where(own, np.asarray(data.subjects.censoring[name].flag)[order.subject, order.row], 0).astype(int)
        categories = _categories(order.observed[own]) if counted[site] and own.any() else None
        for value in values:
            where = np.flatnonzero(own & (labels == value))
            if not len(where):
                continue
            time = times[where]
            group = Group(
                endpoint=name,
                stratum=value,
                where=where,
                time=time,
                observed=order.observed[where],
                censored=flag[where],
                edges=bin_edges(time, order.subject[where], bins),
                probabilities=levels,
                limits=_limits(order.observed, flag, where),
                categories=categories,
                factor=np.ones(len(where)),
            )
            found.append(group)
    if not found:
        raise DataError(f"the data has no observation of `{endpoint}`.")
    return found


def _limits(observed: np.ndarray, flag: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """The highest limit of CENS 1 and the lowest of CENS -1, of the stratum, or else of the endpoint."""
    found = {}
    for side, sign, extreme in (("below", 1, np.max), ("above", -1, np.min)):
        own = where[flag[where] == sign]
        marked = own if len(own) else np.flatnonzero(flag == sign)
        if len(marked):
            found[side] = float(extreme(observed[marked]))
    return found


def _strata(data: Subjects, order: Order, strata: Any) -> tuple[np.ndarray, list[Any]]:
    """The stratum of every observation, and all strata in order."""
    if strata is None:
        return np.full(len(order.place), ALL, object), [ALL]
    if not isinstance(strata, str) or strata not in data.frame:
        raise DataError("strata=: " + unknown("column", str(strata), map(str, data.frame.columns)))
    column = data.frame[strata].iloc[data.rows[order.subject, order.row]]
    if column.isna().any():
        raise DataError(f"strata=: `{strata}` is missing on {int(column.isna().sum())} observations; fill it or leave them out.")
    values = sorted(column.unique(), key=lambda v: (str(type(v)), v))
    if len(values) > MOST_STRATA:
        raise DataError(f"strata=: `{strata}` has {len(values)} values, {MOST_STRATA} at most; make classes of it (pandas.cut).")
    return column.to_numpy(object), values


def _levels(probabilities: Any) -> Float[np.ndarray, " k"]:
    values = check_numbers("probabilities", probabilities, "numbers that increase, between 0 and 1")
    if values.ndim != 1 or not len(values) or not np.all((values > 0) & (values < 1)) or np.any(np.diff(values) <= 0):
        raise MethodError(f"probabilities must increase, between 0 and 1, got {probabilities!r}.")
    return values


def _categories(observed: Float[np.ndarray, " m"]) -> list[tuple[float, float]]:
    """Each value observed, or ranges of them with about equal counts where there are many; the outer ones are open."""
    values = np.unique(observed)
    if len(values) <= MOST_CATEGORIES:
        return [(v, v) for v in values]
    ends = np.unique(np.quantile(observed, np.arange(1, MOST_CATEGORIES) / MOST_CATEGORIES, method="lower"))
    starts = [-np.inf, *(values[values > end].min() for end in ends if end < values[-1])]
    lasts = [*(end for end in ends if end < values[-1]), np.inf]
    return list(zip(starts, lasts, strict=True))


# ---- from the model --------------------------------------------------------------------------------------------------


def _datasets(
    problem: Problem, u: np.ndarray, draws: int, key: Array
) -> Iterator[tuple[int, dict[str, Float[np.ndarray, "d N n"]]]]:
    """Simulated data sets, some at a time: how many there are so far, and these by endpoint."""
    shape = next(iter(problem.subjects.mask.values())).shape
    depth = max(1, NUMBERS // (shape[0] * shape[1] * len(problem.families)))
    for first in range(0, draws, depth):
        count = min(depth, draws - first)
        found = {name: np.empty((count, *shape)) for name in problem.families}
        try:
            for piece in pieces(problem, np.tile(u, (count, 1)), key, residual=True, first=first):
                for name, values in piece.values.items():
                    found[name][piece.draws, piece.subjects] = values
        except NotImplementedError as error:
            raise MethodError(
                "a distribution that `observe` returns has no `sample`, without which nothing is simulated."
            ) from error
        _check_numbers(problem, found)
        yield first + count, found


def _check_numbers(problem: Problem, simulated: dict[str, Float[np.ndarray, "d N n"]]) -> None:
    """DataError for an observation that is simulated as no number."""
    for name, values in simulated.items():
        bad = np.isnan(values) & np.asarray(problem.subjects.mask[name], bool)
        if bad.any():
            _, who, row = np.argwhere(bad)[0]
            raise DataError(
                f"`{name}` of subject {problem.ids[who]} at TIME {np.asarray(problem.subjects.time)[who, row]:g} is simulated as "
                f"no number in {int(bad.any(axis=(1, 2)).sum())} of {len(values)} data sets: the model has no answer at some "
                "random effects. Look at its parameters there (one out of its range?)."
            )


def _corrected(groups: list[Group], problem: Problem, u: np.ndarray, order: Order, key: Array) -> list[Group]:
    """With the factors of the prediction correction, for the endpoints that are continuous."""
    if all(group.categories is not None for group in groups):
        raise MethodError("corrected=True is for continuous endpoints; proportions of categories have no prediction correction.")
    shape = next(iter(problem.subjects.mask.values())).shape
    typical = {name: np.empty(shape) for name in problem.families}
    for piece in pieces(problem, u[None], key, np.zeros((1, problem.size, problem.q)), residual=False):
        for name, values in piece.values.items():
            typical[name][piece.subjects] = values[0]
    found = []
    for group in groups:
        if group.categories is not None:
            found.append(group)
            continue
        pred = typical[group.endpoint][order.subject[group.where], order.row[group.where]]
        if not np.all(pred >= 0):
            raise DataError(
                f"corrected=True divides by PRED, which is negative or no number on {int(np.sum(~(pred >= 0)))} observations of "
                f"`{group.endpoint}`."
            )
        center = np.empty(len(pred))
        for own in group.members.values():
            center[own] = np.median(pred[own])
        usable = (pred > 0) & (center > 0)
        factor = np.where(usable, center, 1.0) / np.where(usable, pred, 1.0)
        found.append(replace(group, factor=factor))
    return found
