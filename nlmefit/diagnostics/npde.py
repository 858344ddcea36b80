"""Normalised prediction distribution errors: each observation's place among simulations of the same design.

K data sets are simulated from the model, with new random effects and residual errors. NPD is the observation's rank among its own
simulations, as a normal score (Mentré and Escolano 2006):

    pd_ij = (number of y_ij^(k) below y_ij + U) / (K + 1),   U ~ uniform(0, 1),   NPD = Phi^-1(pd)

Observations of one subject are correlated, and so are their NPD. NPDE ranks y_i* = S_i^(-1/2) (y_i - m_i) among the simulations
treated alike, with m_i and S_i their empirical mean and covariance (Brendel et al. 2006; Comets, Brendel and Mentré 2008). The
root of S_i is Cholesky's (NPDE: the order of the observations matters, each is freed of those before) or the symmetric one
(NPDE_inverse: NONMEM's and the R package's "inverse").

An observation known to lie in an interval (below a limit of quantification) gets a pd uniform between the interval's ends'
(Nguyen, Comets and Mentré 2012), and a value there for the decorrelation. Simulated values in the same interval are exchanged at
random, so that they too are known no better. Under M4 the interval is taken from minus infinity on.

Counts and categories have NPD, with ties broken at random; they are not decorrelated, nor do they enter others' decorrelation.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import ndtri

from nlmefit.diagnostics.fit_problem import discrete
from nlmefit.diagnostics.residuals import by_subject, symmetric_inverse_root
from nlmefit.estimate import random_numbers
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.observations import Order, Part
from nlmefit.estimate.problem import Problem
from nlmefit.simulation.replicates import replicates

NUMBERS = 1 << 24
"""Simulated numbers held at once."""


class Errors(NamedTuple):
    """By observation; NaN where a family has none."""

    NPDE: Float[np.ndarray, " M"]
    NPDE_inverse: Float[np.ndarray, " M"]
    NPD: Float[np.ndarray, " M"]


class Intervals(NamedTuple):
    """By observation an interval of which only membership is seen, from low to high; NaN where there is none."""

    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]
    inside: Bool[np.ndarray, " M"]
    """Whether the observation itself lies there."""

    def at(self, where: Int[np.ndarray, " m"]) -> "Intervals":
        return Intervals(*(x[where] for x in self))


def npde(problem: Problem, u: Float[np.ndarray, " p"], draws: int, order: Order, key: Array, line: Reporter) -> Errors:
    """At theta(u), from `draws` simulated data sets, of which there must be more than a subject has observations."""
    simulating, placing = jax.random.split(key)
    rng = random_numbers.generator(placing)
    continuous = ~discrete(problem, u)[order.site]
    hidden = _hidden(problem, order)
    found = Errors(*(np.full(len(order.place), np.nan) for _ in Errors._fields))
    for where, simulated in _simulated(problem, u, draws, order, simulating, line):
        y = order.observed[where].copy()
        sides = [side.at(where) for side in hidden]
        low, high = y, y
        for side in sides:
            low, high = np.where(side.inside, side.low, low), np.where(side.inside, side.high, high)
        found.NPD[where] = _score(simulated, low, high, rng)
        for side in sides:
            _impute(simulated, y, side, rng)
        for own in by_subject(order.subject[where], continuous[where]):
            found.NPDE[where[own]], found.NPDE_inverse[where[own]] = _decorrelated(simulated[:, own], y[own], rng)
    return found


def _simulated(
    problem: Problem, u: np.ndarray, draws: int, order: Order, key: Array, line: Reporter
) -> Iterator[tuple[np.ndarray, Float[np.ndarray, "K m"]]]:
    """Subjects in blocks: where their observations lie among all, and these simulated."""
    rows = next(iter(problem.subjects.mask.values())).shape[1]
    width = max(1, NUMBERS // (draws * rows * len(order.sites)))
    for block, start in enumerate(range(0, problem.size, width)):
        line.stage(f"{draws} simulated data sets of subjects {start + 1} to {min(start + width, problem.size)}")
        who = slice(start, start + width)
        subjects = jax.tree.map(lambda x, who=who: np.asarray(x)[who], problem.subjects)
        part = Problem(problem.model, Part(subjects, problem.ids[who], np.zeros(len(problem.ids[who]), int)))
        found = replicates(part, u, draws, jax.random.fold_in(key, block))
        where = np.flatnonzero((order.subject >= start) & (order.subject < start + width))
        values = np.empty((draws, len(where)))
        for site, name in enumerate(order.sites):
            own = order.site[where] == site
            at = where[own]
            values[:, own] = found[name][:, order.subject[at] - start, order.row[at]]
        yield where, values


def _score(
    simulated: Float[np.ndarray, "K m"], low: Float[np.ndarray, " m"], high: Float[np.ndarray, " m"], rng: np.random.Generator
) -> Float[np.ndarray, " m"]:
    """The normal score of an observation's place among K simulated ones, uniform between those of `low` and `high`; NaN where the
    simulated are no numbers."""
    below = (simulated < low).sum(axis=0)
    within = ((simulated >= low) & (simulated <= high)).sum(axis=0)
    place = (below + rng.uniform(size=len(low)) * (within + 1)) / (len(simulated) + 1)
    return ndtri(np.where(np.all(np.isfinite(simulated), axis=0), place, np.nan))


def _decorrelated(
    simulated: Float[np.ndarray, "K n"], y: Float[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """One subject's NPDE, by Cholesky's root and by the symmetric one; NaN where the covariance is not positive definite."""
    nothing = np.full(len(y), np.nan)
    center, covariance = simulated.mean(axis=0), np.atleast_2d(np.cov(simulated, rowvar=False))
    symmetric = symmetric_inverse_root(covariance)
    if np.isnan(symmetric).any():
        return nothing, nothing
    roots = np.linalg.inv(np.linalg.cholesky(covariance)), symmetric
    places = ((root @ (y - center), (simulated - center) @ root.T) for root in roots)
    lower, inverse = (_score(others, own, own, rng) for own, others in places)
    return lower, inverse


# ---- observations beyond a limit -------------------------------------------------------------------------------------


def _hidden(problem: Problem, order: Order) -> list[Intervals]:
    """What lies below a limit and what above one, where there is any. An observation that was seen has the interval that it would
    have been reported in: that of its endpoint's lowest limit (of those above, the highest)."""
    sides = (_side(problem, order, flag) for flag in (1, -1))
    return [side for side in sides if side.inside.any()]


def _side(problem: Problem, order: Order, flag: int) -> Intervals:
    found = Intervals(*(np.full(len(order.place), fill) for fill in (np.nan, np.nan, False)))
    for name, marked in getattr(problem.subjects, "censoring", {}).items():
        here = np.flatnonzero(order.site == order.sites.index(name))
        at = order.subject[here], order.row[here]
        own = np.asarray(marked.flag)[at] == flag
        if not own.any():
            continue
        near, far = order.observed[here], np.asarray(marked.limit)[at]
        usual = np.flatnonzero(own)[np.argmin(flag * near[own])]
        near, far = (np.where(own, end, end[usual]) for end in (near, np.where(np.isnan(far), -flag * np.inf, far)))
        found.low[here], found.high[here] = (far, near) if flag > 0 else (near, far)
        found.inside[here] = own
    return found


def _impute(simulated: Float[np.ndarray, "K m"], y: Float[np.ndarray, " m"], side: Intervals, rng: np.random.Generator) -> None:
    """Exchange the simulated values within an interval at random, and give an observation there one of them, in place. An
    observation in an interval that no simulation reaches stays at the limit."""
    for k in np.flatnonzero(~np.isnan(side.low)):
        within = (simulated[:, k] >= side.low[k]) & (simulated[:, k] <= side.high[k])
        values = simulated[within, k]
        simulated[within, k] = rng.permutation(values)
        if side.inside[k] and len(values):
            y[k] = rng.choice(values)
