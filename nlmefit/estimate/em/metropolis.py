"""Metropolis-Hastings transitions of p(z | y_i, theta), all subjects and chains at once.

Each sweep proposes from the prior, by a random walk in every coordinate alone, and by a random walk of the shape of the posterior
so far. Means over a sweep are Rao and Blackwell's: a proposal counts by its probability of acceptance, accepted or not.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites, log_joint
from nlmefit.estimate.problem import Problem
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program

WANTED = 0.4
"""Acceptance of random walks that is steered for."""


class MetropolisChains(NamedTuple):
    """C chains of every subject, and how they move."""

    z: Float[np.ndarray, "N C q"]
    scale: Float[np.ndarray, "N q"]
    """Standard deviations of the walks in one coordinate."""
    root: Float[np.ndarray, "N q q"]
    """Root of the covariance of the walks in all of them."""

    @classmethod
    def started(cls, size: int, chains: int, q: int) -> "MetropolisChains":
        return cls(np.zeros((size, chains, q)), np.full((size, q), 0.5), np.broadcast_to(0.5 * np.eye(q), (size, q, q)).copy())


class Moved(NamedTuple):
    """What a sweep did (N, ...)."""

    z: Any
    accepted: Any
    """Mean probability of acceptance (q + 2,): prior, each coordinate, all coordinates."""
    first: Any
    """Mean of z over the sweep and chains (q,)."""
    second: Any
    """Mean of z z' (q, q)."""


def sweep(problem: Problem, u: np.ndarray, chains: MetropolisChains, rng: np.random.Generator, times: int = 2) -> Moved:
    """`times` rounds of all proposals, from the chains' places."""
    size, count, q = chains.z.shape
    run, at, fixed = _sweep(problem.model), np.asarray(u), problem.fixed
    steps = times * (q + 2)
    noise = rng.standard_normal((size, steps, count, q))
    uniform = np.log(rng.uniform(size=(size, steps, count, 1)))
    shapes = np.concatenate([chains.scale[:, None, :], chains.root], axis=1)

    def one(x: dict[str, np.ndarray], subjects: Any) -> Moved:
        return run(at, fixed, x["z"], x["shapes"], x["noise"], x["uniform"], subjects)

    state = {"z": chains.z, "shapes": shapes, "noise": noise, "uniform": uniform}
    return Moved(*problem.batches.map(one, state))


def adapted(chains: MetropolisChains, moved: Moved, covariance: Float[np.ndarray, "N q q"], gain: float) -> MetropolisChains:
    """The chains after a sweep: walks longer where too much was accepted, and shaped like the posterior so far."""
    q = chains.z.shape[2]
    scale = chains.scale * np.exp(gain * (moved.accepted[:, 1 : q + 1] - WANTED))
    spread = covariance + 1e-6 * np.eye(q)
    root = np.linalg.cholesky(spread) * (2.38 / np.sqrt(max(q, 1)))
    return MetropolisChains(moved.z, np.clip(scale, 1e-4, 10.0), root)


@program
def _sweep(model: AbstractLatentModel) -> Any:
    coordinates = Coordinates(model.parameters())

    def one(
        u: Array, fixed: Theta, z: Array, shapes: Array, noise: Array, uniform: Array, subject: Any
    ) -> tuple[Array, Array, Array, Array]:
        theta = coordinates.theta(u, fixed)
        sites = Sites(model, theta, model.omega(theta), subject)
        q = z.shape[1]
        each = jnp.eye(q)[:, :, None] * jnp.eye(q)[:, None, :] * shapes[0][:, None, None]
        moves = jnp.concatenate([jnp.eye(q)[None], each, shapes[1:][None]])  # (q + 2, q, q)
        stays = jnp.concatenate([jnp.zeros(1), jnp.ones(q + 1)])

        def joint(z: Array) -> Array:
            value = jax.vmap(lambda z: log_joint(sites, z))(z)
            return jnp.where(jnp.isnan(value), -jnp.inf, value)

        def step(state: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Any]:
            z, value = state
            kind, noise, uniform = x
            trial = stays[kind] * z + noise @ moves[kind].T
            new = joint(trial)
            # from the prior, only the observations decide
            balance = jnp.where(kind == 0, 0.5 * jnp.sum(trial**2 - z**2, axis=1), 0.0)
            log_ratio = jnp.where(jnp.isfinite(value), new - value + balance, 0.0)
            take = uniform[:, 0] < log_ratio
            chance = jnp.exp(jnp.minimum(log_ratio, 0.0))[:, None]
            first = jnp.mean(chance * trial + (1 - chance) * z, axis=0)
            second = (chance * trial).T @ trial + ((1 - chance) * z).T @ z
            z = jnp.where(take[:, None], trial, z)
            return (z, jnp.where(take, new, value)), (jnp.mean(chance), first, second / z.shape[0])

        steps = noise.shape[0]
        kinds = jnp.tile(jnp.arange(q + 2), steps // (q + 2))
        (z, _), (chance, first, second) = jax.lax.scan(step, (z, joint(z)), (kinds, noise, uniform))
        return z, jnp.mean(chance.reshape(-1, q + 2), axis=0), jnp.mean(first, axis=0), jnp.mean(second, axis=0)

    return compiled(jax.vmap(one, in_axes=(None, None, 0, 0, 0, 0, 0)))
