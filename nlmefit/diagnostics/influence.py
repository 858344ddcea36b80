"""What single subjects do to a fit.

The estimates without subject i, by one step from those with all (u free coordinates, F_i = -2 log L_i, g_i and H_i its gradient
and Hessian, H = sum H_i, plus the prior's where it counts):

    u_(-i) - u = (H - H_i / 2)^-1 g_i

It lies halfway between the infinitesimal jackknife's step (with H: too short) and Newton's (with H - H_i: too long where a
subject has much influence on variances); of the logarithm of a variance the mean of the two curvatures is right to second order.
H_i are central differences of the exact gradients. The step's size is Cook's, sqrt((u_(-i) - u)' R (u_(-i) - u)) with R = H/2,
the inverse covariance of the estimates.

How well the others predict the subject, the leave-one-subject-out predictive density (Vehtari, Gelman and Gabry 2017):

    log p(y_i | y_-i) = log [ sum_s w_is p(y_i | u_s) / sum_s w_is ],    w_is = 1 / p(y_i | u_s),    u_s ~ N(u, R^-1)

(of a NUTS fit with the covariance of its draws), the weights' tail smoothed by a generalized Pareto distribution (PSIS). Its
index k-hat above 0.7 says that the subject moves the estimates too far for this to be believed. p(y_i | u) is Laplace's.
"""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import brentq
from scipy.special import logsumexp

from nlmefit.core.backend import compiled
from nlmefit.estimate import random_numbers
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.modes import map as posterior_mode
from nlmefit.estimate.modes.fo import FO
from nlmefit.estimate.modes.foce import FOCE
from nlmefit.estimate.modes.laplace import Laplace
from nlmefit.estimate.modes.marginal_likelihood import AbstractMarginalLikelihood
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.modes.quadrature import Quadrature
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.psis import khat
from nlmefit.results.saved import SavedMethod

LEAST = 25
"""Draws of the parameters below which there is no predictive density."""
STEP = 1e-4
"""Of the central differences of the gradient, in free coordinates, relative to the larger of 1 and the coordinate."""
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (FO, FOCE, Laplace, Quadrature)}
_BY_NAME: dict[str, AbstractMarginalLikelihood] = {m.name: m for m in (FO(), FOCE(), FOCE(interaction=True), Laplace())}
"""Of files that say no more of their method than how it is called."""


class Change(NamedTuple):
    """By subject, what leaving it out does to the estimates."""

    report: Float[np.ndarray, "N k"]
    """Change of the named estimates, natural scale."""
    cook: Float[np.ndarray, " N"]
    covariance: Float[np.ndarray, "p p"]
    """R^-1, of the estimates in free coordinates; NaN where R is not positive definite."""


def left_out(problem: Problem, u: Float[np.ndarray, " p"], method: Any, line: Reporter) -> Change:
    """By the gradients of the fit's own method where that maximizes FO's, FOCE's, Laplace's or quadrature's likelihood, else of
    Laplace's. NaN where the Hessian is not positive definite."""
    name = str(method.name)
    objective = Objective(problem, _likelihood(method), _penalty(problem, name))
    total, own = _curvatures(objective, u, line)
    gradient = objective.contributions(u).gradient
    steps = np.array([_step(total - 0.5 * mine, slope) for mine, slope in zip(own, gradient, strict=True)]).reshape(
        problem.size, -1
    )
    report = _reported(problem, np.vstack([u, u + steps]))
    cook = np.sqrt(np.maximum(0.5 * np.einsum("ni,ij,nj->n", steps, total, steps), 0.0))
    usable = np.all(np.isfinite(total)) and np.linalg.eigvalsh(total).min(initial=np.inf) > 0
    return Change(report[1:] - report[0], cook, 2 * np.linalg.inv(total) if usable else np.full_like(total, np.nan))


def _likelihood(method: Any) -> AbstractMarginalLikelihood:
    if isinstance(method, SavedMethod):
        method = _as_saved(method.options.get("method"), _as_saved(_parts_of(method), method))
    inner = getattr(method, "method", method)  # that of nm.MAP
    if isinstance(inner, FO | FOCE | Laplace | Quadrature):
        return inner
    return _BY_NAME.get(str(method.name).removeprefix("MAP by "), Laplace())


def _parts_of(method: SavedMethod) -> dict[str, Any]:
    return {"kind": method.kind or method.text.partition("(")[0], "options": method.options}


def _as_saved(parts: Any, otherwise: Any) -> Any:
    """The method of a loaded fit, from its class and options; `otherwise` where that is not one of maximum likelihood."""
    if not isinstance(parts, Mapping) or parts.get("kind") not in _KINDS:
        return otherwise
    kind = _KINDS[parts["kind"]]
    known = {f.name for f in fields(kind)}
    return kind(**{name: value for name, value in parts["options"].items() if name in known})


def _penalty(problem: Problem, name: str) -> Any:
    return posterior_mode.penalty(problem) if name.startswith("MAP by ") else None


def _curvatures(
    objective: Objective, u: Float[np.ndarray, " p"], line: Reporter
) -> tuple[Float[np.ndarray, "p p"], Float[np.ndarray, "N p p"]]:
    """H, and every subject's H_i."""
    prior, own = [], []
    for k in range(len(u)):
        line.stage(f"curvature in coordinate {k + 1} of {len(u)}")
        step = np.zeros(len(u))
        step[k] = STEP * max(1.0, abs(u[k]))
        ends = (u + step, u - step)
        forward, backward = (objective.contributions(end).gradient for end in ends)
        own.append((forward - backward) / (2 * step[k]))
        above, below = (objective.penalty(end)[1] for end in ends)
        prior.append((above - below) / (2 * step[k]))
    mine = np.stack(own, axis=1) if own else np.zeros((objective.size, 0, 0))
    mine = 0.5 * (mine + np.swapaxes(mine, 1, 2))
    extra = np.stack(prior) if prior else np.zeros((0, 0))
    return mine.sum(axis=0) + 0.5 * (extra + extra.T), mine


def _step(hessian: Float[np.ndarray, "p p"], gradient: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    if not (np.all(np.isfinite(hessian)) and np.all(np.isfinite(gradient))):
        return np.full(len(gradient), np.nan)
    if len(gradient) and np.linalg.eigvalsh(hessian)[0] <= 0:
        return np.full(len(gradient), np.nan)
    return np.linalg.solve(hessian, gradient)


def _reported(problem: Problem, u: Float[np.ndarray, "K p"]) -> Float[np.ndarray, "K k"]:
    """The named estimates at many u."""

    def report(u: Array) -> Array:
        return problem.model.reported(problem.coordinates.theta(u, problem.fixed))

    return np.asarray(compiled(jax.vmap(report))(u))


# ---- how well the others predict a subject ---------------------------------------------------------------------------


class LeftOutDensity(NamedTuple):
    """By subject, log p(y_i | y_-i) and the tail index of its weights."""

    log_predictive: Float[np.ndarray, " N"]
    khat: Float[np.ndarray, " N"]


def left_out_density(
    problem: Problem, u: Float[np.ndarray, " p"], covariance: Float[np.ndarray, "p p"], draws: int, key: Array, line: Reporter
) -> LeftOutDensity:
    """From `draws` of u ~ N(u, covariance); NaN throughout where that is not known."""
    if not np.all(np.isfinite(covariance)):
        return LeftOutDensity(np.full(problem.size, np.nan), np.full(problem.size, np.nan))
    values, vectors = np.linalg.eigh(covariance)
    points = u + random_numbers.generator(key).standard_normal((draws, len(u))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    log_density = np.empty((draws, problem.size))
    for k, point in enumerate(points):
        line.stage(f"likelihood of every subject at draw {k + 1} of {draws} of the parameters")
        log_density[k] = -0.5 * modes(problem, point).value
    lost = int(np.sum(~np.all(np.isfinite(log_density), axis=1)))
    if lost:
        warnings.warn(
            f"{lost} of {draws} draws of the parameters have no likelihood for some subject and are left out: log_predictive is "
            "of the others.",
            stacklevel=5,
        )
    return leave_one_out(log_density)


def leave_one_out(log_density: Float[np.ndarray, "S N"]) -> LeftOutDensity:
    """PSIS from log p(y_i | u_s) at draws u_s given all data. Draws at which that is no number are left out; NaN where few
    remain."""
    usable = np.all(np.isfinite(log_density), axis=1)
    if usable.sum() < LEAST:
        return LeftOutDensity(np.full(log_density.shape[1], np.nan), np.full(log_density.shape[1], np.nan))
    log_density = log_density[usable]
    tails = khat(-log_density)
    found = []
    for column, k in zip(log_density.T, tails, strict=True):
        weights = smoothed(-column, float(k))
        found.append(logsumexp(weights + column) - logsumexp(weights))
    return LeftOutDensity(np.array(found), tails)


def smoothed(log_weights: Float[np.ndarray, " S"], k: float) -> Float[np.ndarray, " S"]:
    """With the largest min(0.2 S, 3 sqrt(S)) weights replaced by the expected order statistics of a generalized Pareto
    distribution of that index, none above the largest (Vehtari et al. 2024). The scale is the likeliest one at index k."""
    if not np.isfinite(k):
        return log_weights
    tail = int(np.ceil(min(0.2 * len(log_weights), 3 * np.sqrt(len(log_weights)))))
    order = np.argsort(log_weights)
    result = log_weights - log_weights[order[-1]]
    cutoff = np.exp(result[order[-tail - 1]])
    excess = np.exp(result[order[-tail:]]) - cutoff
    probability = (np.arange(1, tail + 1) - 0.5) / tail
    quantile = -np.log1p(-probability) if abs(k) < 1e-8 else np.expm1(-k * np.log1p(-probability)) / k
    result[order[-tail:]] = np.minimum(np.log(cutoff + _scale(excess, k) * quantile), 0.0)
    return result


def _scale(excess: Float[np.ndarray, " n"], k: float) -> float:
    """sigma of a generalized Pareto distribution of known index k: the root of  sum (1 + k) x / (sigma + k x) = n."""

    def slope(log_sigma: float) -> float:
        return float(np.mean((1 + k) * excess / (np.exp(log_sigma) + k * excess)) - 1)

    least = max(-k, 1e-9) * excess.max() * (1 + 1e-9)
    low, high = np.log(least), np.log(excess.max() * (2 + abs(k)))
    return float(np.exp(brentq(slope, low, high))) if slope(low) > 0 > slope(high) else float(np.exp(low))
