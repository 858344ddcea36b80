"""Variational inference by alternating steps, each of which raises the bound (minorize and maximize; Neal and Hinton 1998).

    phi_i <- argmax bound_i(phi, theta)  for every subject;     theta <- argmax sum_i bound_i(phi_i, theta)

The second is EM's M-step at the points of the q_i: exact for typical values, coefficients and Omega, a Newton step with
backtracking for the rest. A step that would lower the bound is not taken.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from nlmefit.estimate.em import em
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import joint_in_blocks

LIMIT = 200
GAIN = 1e-5
"""A rise of the bound, in units of log p, that ends the steps."""

Points = Float[np.ndarray, "K N q"]


def alternate(
    problem: Problem, posteriors: Callable[[np.ndarray], tuple[Points, float]], progress: Reporter
) -> tuple[np.ndarray, list[float]]:
    """u after the steps, and the bound before each. `posteriors(u)` optimizes every phi_i at u: its points, and the bound."""
    u, bounds = problem.coordinates.start(), []
    for iteration in range(LIMIT):
        points, bound = posteriors(u)
        bounds.append(bound)
        progress.stage(f"step {iteration}, bound {bound:.4f}")
        if len(bounds) > 1 and bounds[-1] - bounds[-2] < GAIN:
            break
        u = raised(problem, u, points)
    return u, bounds


def raised(problem: Problem, u: np.ndarray, points: Points) -> np.ndarray:
    """theta at a larger bound for fixed q_i, of which `points` are equally likely values."""
    means = em.expected(problem, u, points, np.full(points.shape[:2], 1 / len(points)))
    target = em.maximize_population(problem, u, means.first, means.second.sum(axis=0))
    target = target + em.newton(problem, u, means.score.sum(axis=0), means.curvature.sum(axis=0)) - u
    before = _complete(problem, u, u, points)
    for _ in range(30):
        if _complete(problem, u, target, points) >= before:
            return target
        target = u + 0.5 * (target - u)
    return u


def _complete(problem: Problem, u: np.ndarray, new: np.ndarray, points: Points) -> float:
    """Mean over the points of log p(y, phi; new), phi = mu + L z at u."""
    (mu, root), (new_mu, new_root) = em.frame(problem, u), em.frame(problem, new)
    phi = mu + points @ root.T
    moved = np.linalg.solve(new_root, np.swapaxes(phi - new_mu, 1, 2)).swapaxes(1, 2) if problem.q else points
    volume = np.sum(np.log(np.diag(new_root)))
    value = joint_in_blocks(problem, new, moved).mean(axis=0).sum() - problem.size * volume
    return float(value) if np.isfinite(value) else -np.inf
