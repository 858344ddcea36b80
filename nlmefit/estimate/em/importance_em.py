"""EM with its expectations by importance sampling (Wei and Tanner 1990; NONMEM's IMP and IMPMAP), and by the modes alone (ITS).

At iteration k, draw z_i from a t distribution of the shape of p(z | y_i, theta_k), a tenth of them from the prior, weight the
draws by p(y_i, z)/q(z), and maximize the expected complete-data likelihood as in `em.py`. The mean weight is p(y_i | theta_k).
"""

from dataclasses import dataclass, field
from typing import Any, final

import jax
import numpy as np
from jaxtyping import Array

from nlmefit.core.errors import MethodError
from nlmefit.core.options import brief, check_whole
from nlmefit.estimate.em import em
from nlmefit.estimate.em.em_answer import answer
from nlmefit.estimate.method import AbstractMethod, Found, Reporter
from nlmefit.estimate.modes.marginal_likelihood import check_covariance
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.posterior import Weighted
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import Sequence, generator, matched
from nlmefit.estimate.referee.importance import DEGREES, Mixture, Proposal, check_degrees, defended, sample
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.estimate.start import check_support

WINDOW = 10
"""Iterations over which a trend is looked for."""
SMALL = 0.01
"""EM converges linearly, at a rate of 0.98 where data are poor: what it then moves in a window is a fifth of what is left."""


@final
@dataclass(frozen=True)
class ImportanceEM(AbstractMethod):
    """EM by importance sampling: nearly exact, for models that fit in few random effects.

    **Everyday arguments:** `draws` per subject and iteration. **Others:** `modes` how often the proposals are centred anew at the
    modes (1: at every iteration, NONMEM's IMPMAP; None: at the first only, then at the posterior means of the iteration before,
    NONMEM's IMP); `df` degrees of freedom of the proposals (numpy.inf: normal); `sequence` "random", or "quasi" for Sobol
    points (RANMETHOD=S); `limit` most iterations; `covariance` as for `FOCE`, with R by Louis' formula (1982). Raises
    MethodError for other values.
    """

    draws: int = 300
    modes: int | None = 1
    df: float = DEGREES
    sequence: Sequence = "random"
    limit: int = 200
    covariance: Covariance = "sandwich"

    def __post_init__(self) -> None:
        check_covariance(self.covariance)
        for name, least in (("draws", 50), ("limit", 1), ("modes", 1)):
            value = getattr(self, name)
            if value is None and name == "modes":
                continue
            check_whole(name, value, least)
        check_degrees(self.df)
        if not isinstance(self.sequence, str) or self.sequence not in ("random", "quasi"):
            raise MethodError(f"sequence must be 'random' or 'quasi', got {brief(self.sequence)}.")

    @property
    def name(self) -> str:
        return "importance-sampling EM"

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        em.check_scores(problem, self.name)
        steps, last = jax.random.split(key)
        path = _Path(problem.coordinates.start())
        rng = generator(steps)
        posterior: Weighted | None = None

        def expectation(u: np.ndarray) -> tuple[em.Expected, float]:
            nonlocal posterior
            weights = sample(problem, u, self._proposal(problem, u, posterior, len(path.visited)), rng, self.draws, self.sequence)
            posterior = weights.posterior
            return em.expected(problem, u, posterior.points, posterior.weights), -2 * float(weights.log_likelihood.sum())

        stopped = _iterate(problem, path, expectation, self.limit, progress)
        return _answered(problem, path, max(self.draws, 1000), last, self.covariance, stopped, closing=True)

    def evaluate(self, problem: Problem, key: Array) -> Found:
        check_support(problem, problem.coordinates.start())
        return answer(problem, problem.coordinates.start(), max(self.draws, 1000), key, "none", evaluated=True)

    def _proposal(self, problem: Problem, u: np.ndarray, posterior: Weighted | None, iteration: int) -> Mixture:
        if posterior is None or (self.modes is not None and iteration % self.modes == 0):
            found = modes(problem, u)
            return defended(Proposal.at_modes(found.z, found.hessian, self.df))
        spread = posterior.covariance + 1e-6 * np.eye(problem.q)
        return defended(Proposal(posterior.mean, np.linalg.cholesky(spread), self.df))


@final
@dataclass(frozen=True)
class ITS(AbstractMethod):
    """Iterative two-stage (Steimer, Mallet, Golmard and Boisvieux 1984): EM with the normal at its mode for p(z | y_i, theta).

    Cheap, and biased as FOCE is; a start for the others. Arguments as for `ImportanceEM`.
    """

    limit: int = 200
    covariance: Covariance = "sandwich"

    def __post_init__(self) -> None:
        check_covariance(self.covariance)
        check_whole("limit", self.limit, 1)

    @property
    def name(self) -> str:
        return "iterative two-stage"

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        em.check_scores(problem, self.name)
        path = _Path(problem.coordinates.start())
        x = matched(4 * max(problem.q, 1), problem.q)

        def expectation(u: np.ndarray) -> tuple[em.Expected, float]:
            found = modes(problem, u)
            proposal = Proposal.at_modes(found.z, found.hessian, np.inf)
            points = proposal.center + np.einsum("nij,kj->kni", proposal.scale, x)
            return em.expected(problem, u, points, np.full(points.shape[:2], 1 / len(x))), float(found.value.sum())

        stopped = _iterate(problem, path, expectation, self.limit, progress)
        found = _answered(problem, path, 1000, key, self.covariance, stopped)
        found.notes = {
            **found.notes,
            "objective": "log p(y) at estimates that are not its maximum: EM with normal posteriors is biased",
        }
        return found

    def evaluate(self, problem: Problem, key: Array) -> Found:
        return ImportanceEM().evaluate(problem, key)


@dataclass
class _Path:
    """Where an iteration has been."""

    u: np.ndarray
    visited: list[np.ndarray] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)
    small: Any = 0.0
    """A trend that does not matter: SMALL of a standard error at known random effects."""

    @property
    def stationary(self) -> bool:
        """Whether the last iterations' estimates have no trend beyond their scatter."""
        return len(self.visited) >= 3 * WINDOW and em.stationary(self.visited, WINDOW, WINDOW, self.small)

    @property
    def estimate(self) -> np.ndarray:
        """The mean of the last iterations, over which Monte Carlo error averages out."""
        return np.mean(self.visited[-WINDOW:], axis=0) if self.stationary else (self.visited[-1] if self.visited else self.u)


def _iterate(problem: Problem, path: _Path, expectation: Any, limit: int, progress: Reporter) -> str:
    """Iterate until the estimates have settled, `limit` times at most; why it stopped before, if the user did that."""
    check_support(problem, path.u)
    try:
        while not path.stationary and len(path.visited) < limit:
            means, objective = expectation(path.u)
            u = em.maximize_population(problem, path.u, means.first, means.second.sum(axis=0))
            score, curvature = means.score.sum(axis=0), means.curvature.sum(axis=0)
            path.u = u + em.newton(problem, path.u, score, curvature) - path.u
            path.small = SMALL / np.sqrt(np.maximum(np.abs(np.diag(curvature)), 1e-12))
            path.visited.append(path.u)
            path.objectives.append(objective)
            progress.stage(f"iteration {len(path.visited)}, -2 log L {objective:.2f}")
    except KeyboardInterrupt:
        return "interrupted"
    return ""


def _answered(
    problem: Problem, path: _Path, draws: int, key: Array, kind: Covariance, stopped: str, closing: bool = False
) -> Found:
    drifting = "" if stopped or path.stationary else f"Not settled after {len(path.visited)} iterations: raise limit."
    found = answer(problem, path.estimate, draws, key, kind, stopped, drifting, closing=closing)
    names = problem.coordinates.names
    found.history = [
        {"iteration": k, "objective": value, **dict(zip(names, u, strict=True))}
        for k, (u, value) in enumerate(zip(path.visited, path.objectives, strict=True))
    ]
    return found
