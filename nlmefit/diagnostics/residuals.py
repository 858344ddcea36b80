"""Residuals of every observation, raw and weighted.

With f(eta) the prediction, V(eta) its residual variance, F = df/deta, eta* the subject's random effects as the fit has them:

    PRED = f(0)        RES = y - PRED      WRES  = Cov0^(-1/2) (y - f(0)),              Cov0 = F(0) Omega F(0)' + V(0)
    IPRED = f(eta*)    IRES = y - IPRED    CWRES = Cov*^(-1/2) (y - f(eta*) + F* eta*),  Cov* = F* Omega F*' + V
                                           IWRES = IRES / sqrt(V(eta*))

WRES is that of the first-order approximation, CWRES that of the conditional one (Hooker, Staatz and Karlsson 2007). V in Cov* is
V(eta*) with interaction and V(0) without, as in the fit; V in IWRES is V(eta*) always. A^(-1/2) is the inverse of the symmetric
(spectral) root, NONMEM's choice: unlike a Cholesky factor's it does not depend on the order of the observations.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nlmefit.analysis.conditional import omega_root
from nlmefit.diagnostics.linearized import Linearized, linearized
from nlmefit.estimate.observations import Order
from nlmefit.estimate.problem import Problem


class Residuals(NamedTuple):
    """By observation; NaN where a family has no such number, and of observations known by an interval only."""

    PRED: Float[np.ndarray, " M"]
    IPRED: Float[np.ndarray, " M"]
    RES: Float[np.ndarray, " M"]
    WRES: Float[np.ndarray, " M"]
    CWRES: Float[np.ndarray, " M"]
    IRES: Float[np.ndarray, " M"]
    IWRES: Float[np.ndarray, " M"]


def residuals(
    problem: Problem,
    u: Float[np.ndarray, " p"],
    eta: Float[np.ndarray, "N q"],
    order: Order,
    seen: Bool[np.ndarray, " M"],
    interaction: bool,
) -> Residuals:
    """At theta(u) and `eta`. Observations that are not `seen` (beyond a limit) have predictions only, and do not enter the
    weights of others; nor do those that are not normal."""
    normal = np.array([gaussian or kind == "CensoredNormal" for kind, gaussian in problem.families.values()], bool)
    counted = seen & normal[order.site]
    origin, mode = linearized(problem, u, np.zeros_like(eta), order), linearized(problem, u, eta, order)
    root, own = omega_root(problem, u), eta[order.subject]
    y = np.where(seen, order.observed, np.nan)
    around = mode._replace(
        mean=mode.mean - np.einsum("mi,mi->m", mode.slope, own), variance=mode.variance if interaction else origin.variance
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = (y - mode.mean) / np.sqrt(mode.variance)
    return Residuals(
        PRED=origin.mean,
        IPRED=mode.mean,
        RES=y - origin.mean,
        WRES=_standardized(order, y, origin, root, counted),
        CWRES=_standardized(order, y, around, root, counted),
        IRES=y - mode.mean,
        IWRES=weighted,
    )


def _standardized(
    order: Order, y: Float[np.ndarray, " M"], model: Linearized, root: Float[np.ndarray, "q q"], counted: Bool[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    """(F Omega F' + V)^(-1/2) (y - mean), subject by subject."""
    found, spread = np.full(len(y), np.nan), model.slope @ root
    for own in by_subject(order.subject, counted):
        covariance = spread[own] @ spread[own].T + np.diag(model.variance[own])
        found[own] = symmetric_inverse_root(covariance) @ (y[own] - model.mean[own])
    return found


def by_subject(subject: Int[np.ndarray, " M"], counted: Bool[np.ndarray, " M"]) -> list[Int[np.ndarray, " n"]]:
    """Where the observations that count lie, of every subject that has any."""
    where = np.flatnonzero(counted)
    ends = np.flatnonzero(np.diff(subject[where])) + 1
    return np.split(where, ends) if len(where) else []


def symmetric_inverse_root(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """A^(-1/2) by the spectral decomposition; NaN where A is not positive definite."""
    nothing = np.full_like(covariance, np.nan)
    if not np.all(np.isfinite(covariance)):
        return nothing
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= 0:
        return nothing
    return (vectors / np.sqrt(values)) @ vectors.T
