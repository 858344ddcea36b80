"""One step ahead by sequential importance sampling.

The random effects do not change in time, so that one set of weighted draws z_k ~ q of a subject serves all its observations:

    w_kj = p(z_k) / q(z_k) prod_{m <= j} p(y_im | z_k),     p(y_ij | y_i1..y_i,j-1) = sum_k w_kj / sum_k w_k,j-1

and mean, variance and distribution function of y_ij are averages with the weights w_k,j-1. q has to cover the prior and every
posterior on the way to the last one: it is a mixture of the prior and of multivariate t around modes of p(z | y_i1..y_ij), for
some j, with draws of each component in equal parts, the mixture's density below the fraction, and the components' densities as
control variates (Hesterberg 1995; Owen and Zhou 2000, Safe and effective importance sampling).
"""

from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import logsumexp

from nlmefit.core.backend import compiled
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Theta
from nlmefit.estimate import random_numbers
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.observations import Order, Steps, cdf, log_prob, mean, places, rows, through, variance
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import BLOCK, DEGREES, Proposal
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program

ENOUGH = 1 / 20
"""Effective draws after any observation, as a part of all draws, below which a subject gets one more component."""
MOST_ROUNDS = 4
"""Components added at most."""
WIDER = 1.5
"""Those, than the Hessian has it: a posterior that gave uneven weights is not normal."""
LEAST_FACTOR = 0.01
"""Of a weight, by calibration: keeps it above 0."""


@final
@dataclass(frozen=True)
class SequentialImportance:
    """Weighted draws of each subject's random effects, the same for all its observations.

    `draws` of each subject; the Monte Carlo error falls with their square root. Raises MethodError below 100.
    """

    draws: int = 2000

    def __post_init__(self) -> None:
        check_whole("draws", self.draws, 100)

    @property
    def name(self) -> str:
        return f"sequential importance sampling, {self.draws} draws"


def by_importance(
    problem: Problem,
    u: np.ndarray,
    count: int,
    order: Order,
    scored: Bool[np.ndarray, " M"],
    rng: np.random.Generator,
    line: Reporter,
) -> Steps:
    """Steps by weighted draws; a subject whose weights are too uneven somewhere is done again with a component more, there."""
    components = [Proposal(np.zeros((problem.size, problem.q)), np.tile(np.eye(problem.q), (problem.size, 1, 1)), np.inf)]
    needed = np.zeros((problem.size, order.most), bool)
    needed[order.subject[scored], order.place[scored]] = True
    if problem.q:
        for j in _prefixes(int(order.place[scored].min()), order.most):
            line.stage(f"modes given {j} observations")
            components.append(_around(problem, u, order, j))
    line.stage(f"{count} draws")
    width = len(components) + MOST_ROUNDS
    best = latest = _weighed(problem, u, components, rng, count, order.most, width)
    for extra in range(MOST_ROUNDS if problem.q else 0):
        poor = _least(best, needed) < ENOUGH * count
        if not poor.any():
            break
        line.stage(f"{count} draws again for {poor.sum()} subject(s), {extra + 1}")
        worst = np.where(needed, latest.ess, np.inf).argmin(axis=1) + 1
        components.append(_around(problem, u, order, np.where(poor, worst, 0), WIDER))
        found = _weighed(problem, u, components, rng, count, order.most, width, poor)
        latest = _choose(poor, found, latest)
        best = _choose(poor & (_least(latest, needed) > _least(best, needed)), latest, best)
    return best


def _least(steps: Steps, needed: Bool[np.ndarray, "N J"]) -> Float[np.ndarray, " N"]:
    return np.where(needed, steps.ess, np.inf).min(axis=1)


def _choose(which: Bool[np.ndarray, " N"], a: Steps, b: Steps) -> Steps:
    return Steps(*(np.where(which[:, None], x, y) for x, y in zip(a, b, strict=True)))


def _prefixes(first: int, most: int) -> list[int]:
    """Numbers of observations, each about twice the one before: a posterior narrows as their square root."""
    counts = [max(first, 1)]
    while counts[-1] < most:
        counts.append(min(2 * counts[-1], most))
    return counts


def _around(problem: Problem, u: np.ndarray, order: Order, count: int | Int[np.ndarray, " N"], wider: float = 1.0) -> Proposal:
    found = modes(through(problem, order, count), u)
    return Proposal.at_modes(found.z, found.hessian / wider**2, DEGREES)


def _weighed(
    problem: Problem,
    u: np.ndarray,
    components: list[Proposal],
    rng: np.random.Generator,
    count: int,
    most: int,
    width: int,
    only: Bool[np.ndarray, " N"] | None = None,
) -> Steps:
    """Steps from `count` draws of the mixture, in equal parts of the components, of which there may come to be `width`."""
    stratum = np.arange(count) * len(components) // count
    sizes = np.bincount(stratum, minlength=len(components))
    points = np.concatenate([c.draw(rng, int(m)).points for c, m in zip(components, sizes, strict=True)])
    run, at = _steps(problem.model, most), np.asarray(u)

    def batch(who: np.ndarray, subjects: Any) -> Steps:
        own = [Proposal(c.center[who], c.scale[who], c.df) for c in components]
        base, basis = calibrated(own, sizes / count, points[:, who])
        padding = np.zeros((*basis.shape[:2], width - len(components)))  # one shape for all rounds
        basis = np.concatenate([basis, padding], axis=-1)
        return run(at, problem.fixed, stratum, np.swapaxes(points[:, who], 0, 1), base, basis, subjects)

    return Steps(*problem.batches.map(batch, np.arange(problem.size), only))


def calibrated(
    components: list[Proposal], part: Float[np.ndarray, " C"], points: Float[np.ndarray, "K N q"]
) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, "N K r"]]:
    """log(c_k p(z_k) / q(z_k)), and an orthonormal basis of the control variates a_c(z_k) = q_c(z_k) / q(z_k) - 1.

    The mean of each a_c under q is known to be 0. c is what regression on them (Owen and Zhou 2000) comes to: 1 less its
    projection on them, so that sum_k c_k a_c(z_k) = 0 for each component, and the mean weight of the prior is 1.
    """
    logs = np.stack([_log_density(c, points).T for c in components], axis=-1)
    mixture = logsumexp(logs, axis=-1, b=part)
    a = np.exp(logs - mixture[..., None]) - 1.0
    values, vectors = np.linalg.eigh(np.swapaxes(a, 1, 2) @ a)
    kept = values > 1e-8 * np.maximum(values[:, -1:], 1e-8 * len(points))  # one is 0: the parts' sum of a_c is
    basis = a @ vectors * np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)[:, None, :]
    factor = np.maximum(1.0 - np.einsum("nkr,nr->nk", basis, basis.sum(axis=1)), LEAST_FACTOR)
    factor /= factor.mean(axis=1, keepdims=True)
    return random_numbers.log_density(points, np.inf).T - mixture + np.log(factor), basis


def _log_density(proposal: Proposal, points: Float[np.ndarray, "K N q"]) -> Float[np.ndarray, "K N"]:
    x = np.einsum("nij,knj->kni", np.linalg.inv(proposal.scale), points - proposal.center)
    return random_numbers.log_density(x, proposal.df) - (np.linalg.slogdet(proposal.scale)[1] if points.shape[-1] else 0.0)


@program
def _steps(model: AbstractLatentModel, most: Any) -> Any:
    coordinates = Coordinates(model.parameters())

    def one(theta: Theta, root: Array, stratum: Array, points: Array, base: Array, basis: Array, subject: Any) -> Steps:
        sites = Sites(model, theta, root, subject)
        where, real = places(sites(points[0]), most)

        def draw(z: Array) -> tuple[Array, ...]:
            found = sites(z)
            return tuple(rows(found, read)[where] for read in (log_prob, mean, variance, cdf))

        return weigh(base, basis, stratum, real, *jax.lax.map(draw, points, batch_size=BLOCK))

    def batch(u: Array, fixed: Theta, stratum: Array, points: Array, base: Array, basis: Array, subjects: Any) -> Steps:
        theta = coordinates.theta(u, fixed)
        root = model.omega(theta)  # subject after subject: what is held of one is draws x observations
        return jax.lax.map(lambda x: one(theta, root, stratum, *x), (points, base, basis, subjects))

    return compiled(batch)


def weigh(
    base: Float[Array, "K"],
    basis: Float[Array, "K r"],
    stratum: Int[Array, "K"],
    real: Bool[Array, "J"],
    log_density: Float[Array, "K J"],
    center: Float[Array, "K J"],
    spread: Float[Array, "K J"],
    below: Float[Array, "K J"],
) -> Steps:
    """A subject's steps from draws with log weights `base` of the prior, and what the model says at each of its observations.

    The error is the ratio estimator's (delta method), of what regression on the control variates' `basis` leaves. A draw at which
    the density is no number has weight 0 from the first observation on.
    """
    log_density = jnp.where(real, log_density, 0.0)
    failed = jnp.any(jnp.isnan(log_density), axis=1, keepdims=True)
    log_weight = base[:, None] + jnp.cumsum(jnp.where(failed, -jnp.inf, log_density), axis=1)
    log_weight = jnp.concatenate([base[:, None], log_weight], axis=1)
    total = jax.scipy.special.logsumexp(log_weight, axis=0)
    weight = jnp.exp(log_weight - total)
    before = jnp.where(failed, 0.0, weight[:, :-1])
    before = before / before.sum(axis=0)

    def average(x: Array) -> Array:
        return jnp.sum(before * jnp.where(failed, 0.0, x), axis=0)

    mean = average(center)
    sd = jnp.sqrt(average(spread) + average((center - mean) ** 2))
    ess = 1.0 / jnp.sum(weight**2, axis=0)
    change = len(base) * (weight[:, 1:] - weight[:, :-1])
    error = _stratified_error(change - basis @ (basis.T @ change), stratum, basis.shape[1])
    return Steps(total[1:] - total[:-1], mean, sd, average(below), error, jnp.minimum(ess[1:], ess[:-1]))


def _stratified_error(x: Float[Array, "K J"], stratum: Int[Array, "K"], strata: int) -> Float[Array, "J"]:
    """Standard error of the mean of x, drawn stratum by stratum: what differs between strata's means is no error."""

    def by_stratum(x: Array) -> Array:
        return jax.ops.segment_sum(x, stratum, strata)

    size = jnp.maximum(by_stratum(jnp.ones(len(x))), 2.0)[:, None]
    off = x - (by_stratum(x) / size)[stratum]
    return jnp.sqrt(jnp.sum(by_stratum(off**2) * size / (size - 1), axis=0)) / len(x)
