"""Covariance of the estimates: R, S and the sandwich, carried to the natural scale by the delta method.

With F = -2 log L, R = 1/2 d2F/du du' and S = 1/4 sum_i g_i g_i' (g_i the subjects' gradients of F):

    sandwich  R^-1 S R^-1  (White 1982; NONMEM's default),     "R"  R^-1,     "S"  S^-1
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from nlmefit.estimate.spectrum import eigenvalues, smallest, spectrum

Covariance = Literal["sandwich", "R", "S", "posterior", "none"]


@dataclass(frozen=True)
class Uncertainty:
    """The covariance matrix of the named estimates, and how it was made."""

    kind: Covariance
    covariance: Float[np.ndarray, "k k"]
    """Of the reported scalars, NaN throughout where it could not be made; 0 in rows of fixed parameters."""
    unconstrained: Float[np.ndarray, "p p"]
    """Of the free coordinates (logs of positive parameters and so on)."""
    condition: float
    """Largest over smallest eigenvalue of the correlation matrix of the free coordinates."""
    note: str
    """What was done where a matrix was not positive definite; empty if nothing."""


def covariance(
    kind: Covariance,
    hessian: Float[np.ndarray, "p p"] | None,
    by_subject: Float[np.ndarray, "N p"],
    slope: Float[np.ndarray, "k p"],
    names: tuple[str, ...],
    prior: bool = False,
) -> Uncertainty:
    """The covariance of the reported scalars. `hessian` is d2F/du du' at the estimates (with a `prior`'s part or without),
    `slope` the Jacobian of the reported scalars in u, `names` those of the coordinates."""
    idle = without_effect(hessian, by_subject)
    used = np.flatnonzero(~idle)
    part = hessian if hessian is None else hessian[np.ix_(used, used)]
    inner, note, kind = _unconstrained(kind, part, by_subject[:, used], tuple(names[k] for k in used), prior)
    reached = np.any(slope[:, idle] != 0, axis=1)
    natural = np.where(np.logical_or.outer(reached, reached), np.nan, _carried(inner, slope[:, used]))
    unconstrained = np.full((len(names),) * 2, np.nan)
    unconstrained[np.ix_(used, used)] = inner
    return Uncertainty(kind, natural, unconstrained, _condition(inner), note)


def _carried(covariance: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """J C J', NaN throughout where C is not known."""
    return slope @ covariance @ slope.T if np.all(np.isfinite(covariance)) else np.full((len(slope),) * 2, np.nan)


def without_effect(hessian: Float[np.ndarray, "p p"] | None, by_subject: Float[np.ndarray, "N p"]) -> Bool[np.ndarray, "p"]:
    """Which coordinates change neither a subject's likelihood nor anything else of the objective: the model does not use them."""
    flat = np.all(np.abs(by_subject) < 1e-9, axis=0)
    return flat if hessian is None else flat & np.all(np.abs(hessian) < 1e-6, axis=0)


def _unconstrained(
    kind: Covariance, hessian: np.ndarray | None, by_subject: np.ndarray, names: tuple[str, ...], prior: bool
) -> tuple[np.ndarray, str, Covariance]:
    """The covariance of the coordinates, a note where it is not what was asked for, and the kind that it is."""
    p = by_subject.shape[1]
    nothing = np.full((p, p), np.nan)
    if kind == "none" or p == 0:
        return nothing, "", kind
    S = 0.25 * by_subject.T @ by_subject
    if kind == "S":
        if not _positive(S):
            return nothing, "S is singular (too few subjects, or parameters without effect): no standard errors.", kind
        return np.linalg.inv(S), "", kind
    if hessian is None:
        return nothing, "the search ended before R was known: no standard errors.", kind
    R = 0.5 * hessian
    if _positive(R):
        inverse = np.linalg.inv(R)
        if kind == "R":
            return inverse, "", kind
        if _positive(S):
            return inverse @ S @ inverse, "", kind
        if different(by_subject) <= p:
            note = f"S is singular ({_subjects(by_subject)}, {p} parameters): standard errors are from R^-1 instead."
            return inverse, note, "R"
        if prior:
            return inverse, f"the data say nothing {culprits(S, names)}: standard errors are from R^-1, with the prior.", "R"
        note = f"S is singular ({culprits(S, names)}): the data do not determine those parameters; no standard errors."
        return nothing, note, kind
    blame = f"R is not positive definite ({culprits(R, names)})"
    if _positive(S):
        return np.linalg.inv(S), f"{blame}: standard errors are from S instead.", "S"
    return nothing, f"{blame} and S is singular: no standard errors.", kind


def _positive(matrix: np.ndarray) -> bool:
    """Positive definite beyond rounding."""
    return smallest(matrix) > 1e-10


def different(by_subject: Float[np.ndarray, "N p"]) -> int:
    """How many subjects differ from all others in their gradients: a subject that occurs twice (in a bootstrap's sample) says
    nothing more about S's rank."""
    size = np.max(np.abs(by_subject), axis=0, initial=0.0)
    with np.errstate(invalid="ignore"):
        rounded = np.round(by_subject / np.where(size > 0, size, 1.0), 7)
    return len(np.unique(rounded + 0.0, axis=0))


def _subjects(by_subject: Float[np.ndarray, "N p"]) -> str:
    count = different(by_subject)
    return f"{count} subjects" if count == len(by_subject) else f"{count} different subjects"


def culprits(matrix: np.ndarray, names: tuple[str, ...]) -> str:
    """The coordinates that make up the direction of least curvature."""
    if not np.all(np.isfinite(matrix)):
        return "it is not finite"
    weight = np.abs(spectrum(matrix).vectors[:, 0])
    chosen = [names[k] for k in np.argsort(-weight) if weight[k] > 0.3][:3]
    return "along " + ", ".join(chosen)


def _condition(matrix: np.ndarray) -> float:
    """Largest over smallest eigenvalue on the correlation scale; NaN of what is no covariance, infinite of a singular one."""
    if not np.all(np.isfinite(matrix)) or np.any(np.diag(matrix) <= 0):
        return np.nan
    values = eigenvalues(matrix)
    return float(values[-1] / values[0]) if values[0] > 0 else np.inf
