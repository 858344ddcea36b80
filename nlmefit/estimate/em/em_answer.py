"""What an EM algorithm's estimates come with: log p(y), the posteriors, standard errors and status, by importance sampling.

The weighted draws give log p(y_i | theta) with its Monte Carlo error, the gradient of log p(y | theta) by Fisher's identity,
which says how far the estimates are from the maximum, and the information matrix by Louis' formula: with both, Newton steps
close the distance that an EM algorithm leaves.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.estimate.em import em
from nlmefit.estimate.method import Found
from nlmefit.estimate.modes.objective import Contributions
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import generator
from nlmefit.estimate.referee.importance import DEGREES, Proposal, Weights, sample_around
from nlmefit.estimate.referee.psis import BELIEVABLE
from nlmefit.estimate.spectrum import smallest
from nlmefit.estimate.standard_errors import Covariance, covariance, without_effect
from nlmefit.estimate.start import check_start
from nlmefit.estimate.status import Status, at_bounds, lost, unused

CLOSING = 4
"""Newton steps at the end, at most."""
LARGE = 0.5
"""A closing step of a coordinate never exceeds this."""
WORTHWHILE = 0.1
"""A predicted fall of -2 log L by one more Newton step, beyond what Monte Carlo error explains, that would still matter."""
EVALUATED = Status("evaluated", ("at the given values, nothing estimated.",))


class _View(NamedTuple):
    """What weighted draws say at some u."""

    u: np.ndarray
    found: Contributions
    weights: Weights
    means: em.Expected

    @classmethod
    def at(cls, problem: Problem, u: np.ndarray, draws: int, key: Array) -> "_View":
        found = modes(problem, u)
        check_start(problem, ~np.isfinite(found.value))
        weights = sample_around(problem, u, Proposal.at_modes(found.z, found.hessian, DEGREES), generator(key), draws)
        posterior = weights.posterior
        return cls(u, found, weights, em.expected(problem, u, posterior.points, posterior.weights))

    @property
    def log_likelihood(self) -> float:
        return float(self.weights.log_likelihood.sum())

    @property
    def idle(self) -> Bool[np.ndarray, " p"]:
        """Which coordinates have no effect."""
        return without_effect(self.means.information.sum(axis=0), self.means.score)

    def _seen(self) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, " p"]]:
        """Information and score of the coordinates that have an effect, and which they are."""
        used = ~self.idle
        return self.means.information.sum(axis=0)[np.ix_(used, used)], self.means.score.sum(axis=0)[used], used

    def newton_step(self) -> Float[np.ndarray, " p"]:
        """Towards the maximum of the likelihood, no coordinate further than LARGE; 0 where the information is not positive
        definite."""
        information, score, used = self._seen()
        step = np.zeros(len(used))
        if len(score) == 0 or smallest(information) <= 0:
            return step
        step[used] = np.linalg.solve(information, score)
        return step * min(1.0, LARGE / max(np.max(np.abs(step)), 1e-300))

    def gain(self) -> tuple[float, float]:
        """The fall of -2 log L that a Newton step predicts, and what the gradient's Monte Carlo error makes of it on average."""
        information, score, used = self._seen()
        if len(score) == 0:
            return 0.0, 0.0
        if smallest(information) <= 0:
            return np.nan, np.nan
        spread = self.means.crossed - self.means.score[:, :, None] * self.means.score[:, None, :]
        noise = np.sum(spread / self.weights.ess[:, None, None], axis=0)[np.ix_(used, used)]
        inverse = np.linalg.inv(information)
        return float(score @ inverse @ score), float(np.trace(inverse @ noise))


def _closed(problem: Problem, view: _View, draws: int, key: Array) -> _View:
    """After Newton steps, halved until the likelihood by the same random numbers does not fall, as long as they promise more
    than Monte Carlo error does."""
    for _ in range(CLOSING):
        gain, noise = view.gain()
        if not gain > noise:
            break
        step = view.newton_step()
        trials = (_View.at(problem, view.u + shrink * step, draws, key) for shrink in (1.0, 0.5, 0.25))
        better = next((trial for trial in trials if trial.log_likelihood >= view.log_likelihood), None)
        if better is None:
            break
        view = better
    return view


def answer(
    problem: Problem,
    u: np.ndarray,
    draws: int,
    key: Array,
    kind: Covariance,
    stopped: str = "",
    drifting: str = "",
    evaluated: bool = False,
    closing: bool = False,
) -> Found:
    """The answer at u, or after `closing` Newton steps from there. `drifting` says what is to be said of iterations that still
    drifted, unless those steps have come to the maximum; `evaluated`, that there were none."""
    view = _View.at(problem, np.asarray(u), draws, key)
    if closing and not stopped:
        view = _closed(problem, view, draws, key)
    weights, means = view.weights, view.means
    final = problem.final(view.u, weights.posterior.mean)
    uncertainty = None
    if kind != "none" and len(view.u):
        information, scores = means.information.sum(axis=0), -2 * means.score
        uncertainty = covariance(kind, 2 * information, scores, final.slope, problem.coordinates.names)
    return Found(
        u=view.u,
        z=weights.posterior.mean,
        posterior=weights.posterior,
        value=-2.0 * weights.log_likelihood,
        error=2.0 * weights.mc_se,
        status=EVALUATED if evaluated else _status(problem, final.theta, view, stopped, drifting),
        kind="estimate",
        converged=view.found.converged,
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


def _status(problem: Problem, theta: dict[str, np.ndarray], view: _View, stopped: str, drifting: str) -> Status:
    doubts, converged = [], view.found.converged
    if not np.all(converged):
        doubts.append(lost(problem.labels(~converged)))
    doubts += unused(problem.coordinates, theta, view.idle)
    gain, noise = view.gain()
    if drifting and not gain <= WORTHWHILE + 3 * noise:
        doubts.append(drifting)
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
