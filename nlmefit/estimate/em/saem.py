"""Stochastic approximation EM (Delyon, Lavielle and Moulines 1999; Kuhn and Lavielle 2005).

At iteration k, draw z_i by Metropolis-Hastings from p(z | y_i, theta), and let the moments of phi_i = mu_i + eta_i follow,

    s_k = s_k-1 + gamma_k (S(phi_k) - s_k-1)

Typical values, coefficients and Omega maximize the likelihood of these moments exactly; residual sds and parameters without
random effect take Newton steps of the same gain. gamma_k = 1 until the estimates wander around a level, then 1/(k - K1). What
distance from the maximum of the likelihood is left then, Newton steps with Louis' information close (`em_answer.py`).
"""

from dataclasses import dataclass
from typing import final

import jax
import numpy as np
from jaxtyping import Array

from nlmefit.core.options import check_whole
from nlmefit.estimate.em import em
from nlmefit.estimate.em.em_answer import answer
from nlmefit.estimate.em.metropolis import MetropolisChains, Moved, adapted, sweep
from nlmefit.estimate.method import AbstractMethod, Found, Reporter
from nlmefit.estimate.modes.marginal_likelihood import check_covariance
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import generator
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.estimate.start import check_support

WINDOW = 50
"""Iterations whose mean is compared with that of as many before them, to see whether the estimates have settled."""
INDEPENDENT = 2.0
"""As many of those as good as independent: the chains move slowly, and the estimates with them."""
NEARLY_SINGULAR = 4.0
"""Where the coordinate of a correlation (its inverse hyperbolic tangent, for two etas) is held: beyond 0.9993, draws of one eta
hardly say anything of the other, and their noise would carry Omega away."""
CHAINS = 3
"""Of each subject at least, also where there are many: with one, an omega that the data hardly determine drifts to 0."""
WARM = 10
"""Sweeps at the start values before the first iteration."""
COOLING = 0.95
"""A variance falls by no more than this factor per iteration at first (simulated annealing, as in Lavielle 2014)."""


@final
@dataclass(frozen=True)
class SAEM(AbstractMethod):
    """Stochastic approximation EM.

    **Everyday arguments:** none. **Others:** `burn_in` iterations of the first phase at least; it goes on, up to twice as
    long, until the estimates have settled; `smooth` iterations of the second; `chains` per subject, None for 3, or as many as
    make 50 with the subjects; `draws` of the importance sampling that gives log p(y | theta) at the end; `covariance` as for
    `FOCE`, with R by Louis' formula (1982). Raises MethodError for other values.
    """

    burn_in: int = 300
    smooth: int = 200
    chains: int | None = None
    draws: int = 1000
    covariance: Covariance = "sandwich"

    def __post_init__(self) -> None:
        check_covariance(self.covariance)
        for name, least in (("burn_in", 2 * WINDOW), ("smooth", 10), ("draws", 100), ("chains", 1)):
            value = getattr(self, name)
            if value is None and name == "chains":
                continue
            check_whole(name, value, least)

    @property
    def name(self) -> str:
        return "SAEM"

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        em.check_scores(problem, self.name)
        return _Run(problem, self, progress, key).found()

    def evaluate(self, problem: Problem, key: Array) -> Found:
        check_support(problem, problem.coordinates.start())
        return answer(problem, problem.coordinates.start(), self.draws, key, "none", evaluated=True)


class _Run:
    """One run: the chains, the moments, and the estimates as they go."""

    def __init__(self, problem: Problem, method: SAEM, progress: Reporter, key: Array):
        self.problem, self.method, self.progress = problem, method, progress
        walk, self.last = jax.random.split(key)
        self.rng = generator(walk)
        check_support(problem, problem.coordinates.start())
        self.u = problem.coordinates.start()
        size, q, p = problem.size, problem.q, len(self.u)
        self.chains = MetropolisChains.started(size, method.chains or max(CHAINS, int(np.ceil(50 / size))), q)
        self.first, self.second = np.zeros((size, q)), np.zeros((q, q))
        self.mean, self.crossed = np.zeros((size, q)), np.broadcast_to(np.eye(q), (size, q, q)).copy()
        self.curvature = np.zeros((p, p))
        self.visited: list[np.ndarray] = []
        self.omegas = problem.coordinates.positive & problem.coordinates.of_kind("omega")
        self.correlations = problem.coordinates.of_kind("correlation")
        self.data = not em.population_coordinates(problem).all()

    def found(self) -> Found:
        stopped, stationary = "", False
        try:
            for _ in range(WARM):
                self._walk()
            done = 0
            while not stationary and done < 2 * self.method.burn_in:
                for _ in range(WINDOW if done else self.method.burn_in):
                    self._iterate(1.0, cool=done == 0 and len(self.visited) < self.method.burn_in // 2)
                done = len(self.visited)
                stationary = em.stationary(self.visited, WINDOW, INDEPENDENT)
            for k in range(1, self.method.smooth + 1):
                self._iterate(1.0 / k, cool=False)
        except KeyboardInterrupt:
            stopped = "interrupted"
        self.progress.stage("log p(y) and standard errors")
        drifting = "" if stopped or stationary else "The estimates were still drifting when the first phase ended: raise burn_in."
        method = self.method
        found = answer(self.problem, self.u, method.draws, self.last, method.covariance, stopped, drifting, closing=True)
        names = self.problem.coordinates.names
        found.history = [{"iteration": k, **dict(zip(names, u, strict=True))} for k, u in enumerate(self.visited)]
        return found

    def _walk(self) -> Moved:
        """A sweep of the chains, and their adaptation."""
        moved = sweep(self.problem, self.u, self.chains, self.rng)
        gain = max(0.02, 1.0 / (1 + len(self.visited)))
        self.mean += gain * (moved.first - self.mean)
        self.crossed += gain * (moved.second - self.crossed)
        spread = self.crossed - self.mean[:, :, None] * self.mean[:, None, :]
        self.chains = adapted(self.chains, moved, spread, max(gain, 0.05))
        return moved

    def _iterate(self, gain: float, cool: bool) -> None:
        moved = self._walk()
        mu, root = em.frame(self.problem, self.u)
        first = mu + moved.first @ root.T
        crossed = np.einsum("ni,nj->ij", mu, moved.first @ root.T)
        second = root @ moved.second.sum(axis=0) @ root.T + crossed + crossed.T + mu.T @ mu
        self.first += gain * (first - self.first)
        self.second += gain * (second - self.second)
        u = self._maximized(gain)
        if cool:
            u = np.where(self.omegas, np.maximum(u, self.u + 0.5 * np.log(COOLING)), u)
        u = np.where(self.correlations, np.clip(u, -NEARLY_SINGULAR, NEARLY_SINGULAR), u)
        new_mu, new_root = em.frame(self.problem, u)
        phi = mu[:, None] + self.chains.z @ root.T - new_mu[:, None]
        self.chains = self.chains._replace(z=np.linalg.solve(new_root, np.swapaxes(phi, 1, 2)).swapaxes(1, 2))
        self.u = u
        self.visited.append(u)
        self.progress.stage(f"iteration {len(self.visited)}")

    def _maximized(self, gain: float) -> np.ndarray:
        """The estimates from the moments so far, and a step of theta_D from the chains' places."""
        u = em.maximize_population(self.problem, self.u, self.first, self.second)
        if not self.data:
            return u
        points = np.swapaxes(self.chains.z, 0, 1)
        means = em.expected(self.problem, self.u, points, np.full(points.shape[:2], 1 / len(points)))
        self.curvature += max(gain, 0.02) * (means.curvature.sum(axis=0) - self.curvature)
        step = em.newton(self.problem, self.u, means.score.sum(axis=0), self.curvature) - self.u
        return u + gain * step
