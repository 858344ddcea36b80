"""Importance sampling of p(y_i | theta) = E_q[p(y_i, z) / q(z)], subject by subject.

Proposals are multivariate t (or normal) around a center with a scale, as a rule the mode of p(z | y_i, theta) and the inverse
root of its Hessian. A share of the points comes from the prior: p(y_i, z)/q(z) is then bounded by p(y_i | z)/share however far
p(z | y_i, theta) is from normal (a defensive mixture; Hesterberg 1995). Where the weights' tail says that this is not enough (a
second mode, a kink as of a lag time that meets an observation), a t with the mean and covariance of the weighted points joins in.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError
from nlmefit.core.options import brief, is_number
from nlmefit.core.typing import Theta
from nlmefit.estimate import random_numbers
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites, log_joint
from nlmefit.estimate.posterior import Weighted
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.psis import BELIEVABLE, khat
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program

BLOCK = 250
"""Draws of every subject that are evaluated at once."""


DEGREES = 8.0
"""Of freedom of the t proposals: tails heavy enough for posteriors that are not normal."""


DEFENSIVE = 0.1
"""Share of the points that comes from the prior."""
ADAPTATIONS = 4
"""Most times that points are drawn anew."""


def check_degrees(df: Any) -> None:
    """MethodError unless these are degrees of freedom of a t with a covariance, or numpy.inf for a normal."""
    if not (is_number(df) or isinstance(df, float) and df == np.inf) or not df > 2:
        raise MethodError(f"df must be above 2, got {brief(df)}; numpy.inf is a normal distribution.")


class Proposal(NamedTuple):
    """z = center + scale x, x a standard t of `df` degrees of freedom (normal where infinite)."""

    center: Float[np.ndarray, "N q"]
    scale: Float[np.ndarray, "N q q"]
    df: float

    @classmethod
    def at_modes(cls, mode: Float[np.ndarray, "N q"], hessian: Float[np.ndarray, "N q q"], df: float) -> "Proposal":
        """Around the modes, with scale L'^-1 where H = L L'; where H is not positive definite, the prior's spread."""
        q = mode.shape[1]
        if q == 0:
            return cls(mode, np.zeros((len(mode), 0, 0)), df)
        finite = np.all(np.isfinite(hessian), axis=(1, 2)) & np.all(np.isfinite(mode), axis=1)
        finite[finite] = np.linalg.eigvalsh(hessian[finite])[:, 0] > 1e-8
        root = np.linalg.cholesky(np.where(finite[:, None, None], hessian, np.eye(q)))
        return cls(np.where(finite[:, None], mode, 0.0), np.swapaxes(np.linalg.inv(root), 1, 2), df)

    def draw(self, rng: np.random.Generator, count: int, sequence: random_numbers.Sequence = "random") -> "Drawn":
        """`count` draws by subject, with log q at each."""
        size, q = self.center.shape
        x = random_numbers.normal(rng, count, size, q, sequence)
        x = x if np.isinf(self.df) else random_numbers.student(rng, x, self.df)
        volume = np.linalg.slogdet(self.scale)[1] if q else np.zeros(size)
        return Drawn(self.center + np.einsum("nij,knj->kni", self.scale, x), random_numbers.log_density(x, self.df) - volume)

    def log_density(self, points: Float[np.ndarray, "K N q"]) -> Float[np.ndarray, "K N"]:
        """log q at any points."""
        x = np.linalg.solve(self.scale, (points - self.center)[..., None])[..., 0]
        volume = np.linalg.slogdet(self.scale)[1] if self.center.shape[1] else np.zeros(len(self.center))
        return random_numbers.log_density(x, self.df) - volume


class Mixture(NamedTuple):
    """Several proposals, each drawn from in proportion to its share."""

    parts: tuple[Proposal, ...]
    shares: tuple[float, ...]

    def draw(self, rng: np.random.Generator, count: int, sequence: random_numbers.Sequence = "random") -> "Drawn":
        """`count` draws by subject, with the mixture's log density at each."""
        ends = np.round(np.cumsum([0.0, *self.shares]) * count).astype(int)
        sizes = [int(k) for k in np.diff(ends)]
        points = np.concatenate([p.draw(rng, k, sequence).points for p, k in zip(self.parts, sizes, strict=True) if k])
        terms = [np.log(k / count) + p.log_density(points) for p, k in zip(self.parts, sizes, strict=True) if k]
        return Drawn(points, np.logaddexp.reduce(terms, axis=0))


class Drawn(NamedTuple):
    """Points (K, N, q) and the log density (K, N) that they were drawn from."""

    points: Float[np.ndarray, "K N q"]
    log_density: Float[np.ndarray, "K N"]


@dataclass
class Weights:
    """Points of each subject with log p(y_i, z) - log q(z), grown block by block."""

    points: Float[np.ndarray, "K N q"]
    log: Float[np.ndarray, "K N"]

    @property
    def log_likelihood(self) -> Float[np.ndarray, "N"]:
        """log of the mean weight: log p(y_i | theta)."""
        return logsumexp(self.log, axis=0) - np.log(len(self.log))

    @property
    def mc_se(self) -> Float[np.ndarray, "N"]:
        """Monte Carlo standard error of `log_likelihood` (delta method)."""
        relative = np.exp(self.log - self.log_likelihood)
        return np.std(relative, axis=0, ddof=1) / np.sqrt(len(self.log))

    @property
    def ess(self) -> Float[np.ndarray, "N"]:
        """Effective number of draws, (sum w)^2 / sum w^2."""
        return np.exp(2 * logsumexp(self.log, axis=0) - logsumexp(2 * self.log, axis=0))

    @property
    def khat(self) -> Float[np.ndarray, "N"]:
        """Tail index of the weights, see `psis.py`."""
        return khat(self.log)

    @property
    def posterior(self) -> Weighted:
        """The points weighted to represent p(z | y_i, theta)."""
        return Weighted(self.points, np.exp(self.log - logsumexp(self.log, axis=0)))


def sample(
    problem: Problem,
    u: np.ndarray,
    proposal: Proposal | Mixture,
    rng: np.random.Generator,
    count: int,
    sequence: random_numbers.Sequence = "random",
) -> Weights:
    """`count` weighted points of every subject at u. A point at which the density is no number has weight 0."""
    drawn = proposal.draw(rng, count, sequence)
    return Weights(drawn.points, joint_in_blocks(problem, u, drawn.points) - drawn.log_density)


def sample_around(problem: Problem, u: np.ndarray, proposal: Proposal, rng: np.random.Generator, count: int) -> Weights:
    """`count` weighted points from `proposal` and the prior, adapted where the weights are not to be believed."""
    weights = sample(problem, u, defended(proposal), rng, count)
    for _ in range(ADAPTATIONS):
        if not np.any(weights.khat > BELIEVABLE):
            break
        weights = sample(problem, u, defended(proposal, _moments_of(weights, proposal)), rng, count)
    return weights


def defended(*proposals: Proposal) -> Mixture:
    """Proposals in equal shares, and the prior."""
    q, center = proposals[0].center.shape[1], proposals[0].center
    prior = Proposal(np.zeros_like(center), np.broadcast_to(np.eye(q), (len(center), q, q)), np.inf)
    return Mixture((*proposals, prior), (*[(1 - DEFENSIVE) / len(proposals)] * len(proposals), DEFENSIVE))


def _moments_of(weights: Weights, proposal: Proposal) -> Proposal:
    """A t with the weighted points' mean and covariance; few effective points leave the latter near `proposal`'s."""
    found = weights.posterior
    spread = proposal.scale @ np.swapaxes(proposal.scale, 1, 2)
    doubt = proposal.center.shape[1] / weights.ess[:, None, None]
    return Proposal(found.mean, np.linalg.cholesky(found.covariance + doubt * spread), proposal.df)


def joint_in_blocks(problem: Problem, u: np.ndarray, points: Float[np.ndarray, "K N q"]) -> Float[np.ndarray, "K N"]:
    """`joint` for any number of points, in bounded memory."""
    return np.concatenate([joint(problem, u, points[k : k + BLOCK]) for k in range(0, len(points), BLOCK)])


def joint(problem: Problem, u: np.ndarray, points: Float[np.ndarray, "K N q"]) -> Float[np.ndarray, "K N"]:
    """log p(y_i, z | theta) at K points of every subject; -inf where it is no number."""
    run, at = _joint(problem.model), np.asarray(u)
    (found,) = problem.batches.map(lambda z, s: (run(at, problem.fixed, z, s),), np.swapaxes(points, 0, 1))
    return np.where(np.isnan(found), -np.inf, found).T


@program
def _joint(model: AbstractLatentModel) -> Any:
    coordinates = Coordinates(model.parameters())

    def one(u: Array, fixed: Theta, points: Array, subject: Any) -> Array:
        theta = coordinates.theta(u, fixed)
        sites = Sites(model, theta, model.omega(theta), subject)
        return jax.vmap(lambda z: log_joint(sites, z))(points)

    return compiled(jax.vmap(one, in_axes=(None, None, 0, 0)))
