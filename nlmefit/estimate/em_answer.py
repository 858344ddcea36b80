"""What an EM algorithm's estimates come with: log p(y), the posteriors, standard errors and status, by importance sampling.

The weighted draws give log p(y_i | theta) with its Monte Carlo error, the gradient of log p(y | theta) by Fisher's identity,
which says how far the estimates are from the maximum, and the information matrix by Louis' formula.
"""

import jax
import numpy as np
from jaxtyping import Array

from nlmefit.estimate import em
from nlmefit.estimate.draws import generator
from nlmefit.estimate.importance import DEGREES, Proposal, Weights, sample
from nlmefit.estimate.method import Found
from nlmefit.estimate.modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.psis import BELIEVABLE
from nlmefit.estimate.spectrum import smallest
from nlmefit.estimate.standard_errors import Covariance, covariance
from nlmefit.estimate.start import check_start
from nlmefit.estimate.status import Status, at_bounds, lost

LOUIS = 200
"""Draws per subject for gradient and information."""
WORTHWHILE = 0.1
"""A predicted fall of -2 log L by one more Newton step, beyond what Monte Carlo error explains, that would still matter."""
EVALUATED = Status("evaluated", ("at the given values, nothing estimated.",))


def answer(
    problem: Problem,
    u: np.ndarray,
    draws: int,
    key: Array,
    kind: Covariance,
    stopped: str = "",
    settled: bool = True,
    evaluated: bool = False,
) -> Found:
    """The answer at u. `settled` says whether the iterations had stopped drifting; `evaluated`, that there were none."""
    found = modes(problem, u)
    check_start(problem, ~np.isfinite(found.value))
    sampling, resampling = jax.random.split(key)
    weights = sample(problem, u, Proposal.at_modes(found.z, found.hessian, DEGREES), generator(sampling), draws)
    points = weights.posterior.draws(resampling, LOUIS)
    means = em.expected(problem, u, points, np.full(points.shape[:2], 1 / LOUIS))
    final = problem.final(u, weights.posterior.mean)
    uncertainty = None
    if kind != "none" and len(u):
        information, scores = means.information.sum(axis=0), -2 * means.score
        uncertainty = covariance(kind, 2 * information, scores, final.slope, problem.coordinates.names)
    return Found(
        u=np.asarray(u),
        z=weights.posterior.mean,
        posterior=weights.posterior,
        value=-2.0 * weights.log_likelihood,
        error=2.0 * weights.mc_se,
        status=EVALUATED if evaluated else _status(problem, final.theta, means, found.converged, stopped, settled),
        kind="estimate",
        converged=found.converged,
        uncertainty=uncertainty,
        notes={"log p(y)": _how(problem, weights), "etas": "posterior means"},
    )


def _how(problem: Problem, weights: Weights) -> str:
    said = f"by importance sampling, {len(weights.log)} draws per subject"
    doubtful = problem.labels(weights.khat > BELIEVABLE)
    if not doubtful:
        return said
    shown = ", ".join(map(str, doubtful[:8])) + (", ..." if len(doubtful) > 8 else "")
    return f"{said}; its error is larger than it looks for {len(doubtful)} subject(s), k-hat above {BELIEVABLE}: {shown}"


def _status(
    problem: Problem,
    theta: dict[str, np.ndarray],
    means: em.Expected,
    converged: np.ndarray,
    stopped: str,
    settled: bool,
) -> Status:
    doubts = []
    if not np.all(converged):
        doubts.append(lost(problem.labels(~converged)))
    gain, noise = _gain(means)
    if not settled:
        doubts.append("The estimates were still drifting when the first phase ended: raise burn_in.")
    if np.isnan(gain):
        doubts.append("The information matrix is not positive definite: parameters that the data do not determine, or a saddle.")
    elif gain > WORTHWHILE + 3 * noise:
        doubts.append(f"One more Newton step promises to lower -2 log L by {gain:.2g} (Monte Carlo error explains {noise:.2g}).")
    doubts += at_bounds(problem.coordinates, theta)
    if stopped:
        return Status("failed", (f"{stopped[0].upper()}{stopped[1:]}; these are the last values.", *doubts))
    if doubts:
        return Status("uncertain", tuple(doubts))
    return Status("converged", (f"one more Newton step would gain {gain:.1e}, of which Monte Carlo error explains {noise:.1e}.",))


def _gain(means: em.Expected) -> tuple[float, float]:
    """The fall of -2 log L that a Newton step predicts, and what the Monte Carlo error of the gradient makes of it on average."""
    information, score = means.information.sum(axis=0), means.score.sum(axis=0)
    if len(score) == 0:
        return 0.0, 0.0
    if smallest(information) <= 0:
        return np.nan, np.nan
    noise = np.sum(means.crossed - means.score[:, :, None] * means.score[:, None, :], axis=0) / LOUIS
    inverse = np.linalg.inv(information)
    return float(score @ inverse @ score), float(np.trace(inverse @ noise))
