"""Energy-based models: p(x) = exp(-E(x)) / Z, with E a network and Z unknown (LeCun et al. 2006).

They have no latent variables and no samples for free: what they share with the other models is the score -dE/dx, which does not
depend on Z. Z and samples take annealed importance sampling (Neal 2001): particles begin as normal noise and are led to the model
through (1 - beta) log N(u; 0, I) - beta E(x(u)), beta from 0 to 1, by Hamiltonian steps.
"""

import abc
from functools import partial
from typing import Any, ClassVar, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from nlmefit.core.backend import compiled_module
from nlmefit.core.errors import DataError, ModelError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.networks import MLP
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractGenerative, in_blocks
from nlmefit.generative.divergence import Estimate
from nlmefit.generative.rows import Samples
from nlmefit.generative.standard import Standard

LEAPS = 5
ACCEPTED = 0.7
"""Share of Hamiltonian proposals that step sizes are tuned for."""
LEAST = 500
"""Particles that samples are chosen from."""


class AbstractEnergy(AbstractGenerative):
    """Can compute -log p(x) but for a constant."""

    @abc.abstractmethod
    def energy(self, x: Float[Array, "D"]) -> Scalar:
        """E(x)."""

    @property
    def units(self) -> Standard | None:
        """In which x is of the order of 1."""
        return None

    def unnormalized_log_prob(self, X: Any) -> Float[np.ndarray, "N"]:
        """-E(x_i) by row: log p(x_i) + log Z."""
        return -in_blocks(_energy, self, self._rows(X))

    def stein_score(self, X: Any) -> Float[np.ndarray, "N D"]:
        """d log p(x) / dx = -dE/dx by row; Z has no part in it."""
        return -in_blocks(_force, self, self._rows(X))

    def log_normalizer(self, *, draws: int = 1000, temperatures: int = 200, key: Key = 0) -> Estimate:
        """log Z by annealed importance sampling, of that many particles and temperatures: the log of an unbiased estimate of Z,
        with its Monte Carlo error. log p(x) is `unnormalized_log_prob` less this.

        Raises MethodError for options out of range, ModelError before a fit.
        """
        check_whole("draws", draws, 2)
        check_whole("temperatures", temperatures, 2)
        particles = self._annealed(draws, temperatures, key)
        relative = np.exp(particles.log_weight - np.max(particles.log_weight))
        error = float(np.std(relative, ddof=1) / np.mean(relative) / np.sqrt(draws))
        return Estimate(float(logsumexp(particles.log_weight) - np.log(draws)), error)

    def sample(self, n: int, *, temperatures: int = 200, key: Key = 0) -> Float[np.ndarray, "n D"]:
        """n draws: annealed particles chosen by their weights, all the nearer to p(x) the more `temperatures`.

        Raises MethodError for options out of range, ModelError before a fit.
        """
        check_whole("n", n, 1)
        check_whole("temperatures", temperatures, 2)
        particles = self._annealed(max(n, LEAST), temperatures, key)
        weights = np.exp(particles.log_weight - logsumexp(particles.log_weight))
        generator = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(jax_key(key), 1))))
        chosen = np.searchsorted(np.cumsum(weights), (generator.random() + np.arange(n)) / n)
        return generator.permutation(particles.x[np.minimum(chosen, len(weights) - 1)])

    def _annealed(self, count: int, temperatures: int, key: Key) -> "Particles":
        if self.dimension is None:
            self._rows(None)
        first, second = jax.random.split(jax_key(key))
        steps = jnp.full(temperatures, 0.3)
        tuned = _anneal(self, first, steps, min(count, 200), True)[2]  # weights are unbiased with steps fixed beforehand
        u, log_weight, _ = _anneal(self, second, tuned, count, False)
        units = self._scaled()
        return Particles(np.asarray(jax.vmap(units.back)(u)), np.asarray(log_weight) + float(units.log_volume))

    def _scaled(self) -> Standard:
        size = self.dimension or 0
        return self.units or Standard(np.zeros(size), np.ones(size), np.zeros(0), np.ones(0))


class Particles(NamedTuple):
    """Draws with weights, whose mean estimates Z."""

    x: Float[np.ndarray, "K D"]
    log_weight: Float[np.ndarray, "K"]


@final
class EnergyModel(AbstractEnergy):
    """p(x) = exp(-E(x)) / Z with E(x) = |u|^2 / 2 + f(u), u the standardised x and f a network: normal far from the data.

    **Arguments:** `network`, smooth (`gen.MLP` with "silu", "tanh" or "softplus"). Fitted by `gen.ScoreMatching`.
    """

    network: MLP = MLP(64, 2, "softplus")
    standard: Standard | None = None
    correction: Any = None
    fitted_by: ClassVar[tuple[str, ...]] = ("ScoreMatching",)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)

    @property
    def dimension(self) -> int | None:
        return None if self.standard is None else len(self.standard.center)

    @property
    def units(self) -> Standard | None:
        return self.standard

    def built(self, data: Samples, key: Array) -> "EnergyModel":
        if data.given.shape[1]:
            raise DataError("EnergyModel is of x alone: give a matrix, not a pair (X, given).")
        if self.standard is not None:
            return self
        return EnergyModel(self.network, Standard.of(data), self.network.build(data.x.shape[1], 1, key))

    def energy(self, x: Float[Array, "D"]) -> Scalar:
        assert self.standard is not None
        u = self.standard.x(x)
        return 0.5 * u @ u + self.correction(u)[0]


def _energy(model: AbstractEnergy, x: Array) -> Scalar:
    return model.energy(x)


def _force(model: AbstractEnergy, x: Array) -> Array:
    return jax.grad(model.energy)(x)


def _anneal(model: AbstractEnergy, key: Array, steps: Float[Array, "T"], count: int, tune: bool) -> Any:
    return _compiled(model, key, steps, jnp.zeros(count), tune)


@compiled_module
def _compiled(model: AbstractEnergy, key: Array, steps: Float[Array, "T"], places: Float[Array, "K"], tune: bool) -> Any:
    """Particles (K, D) led to the model, their log weights, and the step sizes that were used, or `tune`d on the way."""
    units, size, count = model._scaled(), model.dimension or 0, len(places)
    beta = jnp.linspace(0.0, 1.0, len(steps) + 1)

    def log_normal(u: Array) -> Scalar:
        return -0.5 * (u @ u + size * jnp.log(2 * jnp.pi))

    def log_density(u: Array, beta: Array) -> Scalar:
        return (1 - beta) * log_normal(u) - beta * model.energy(units.back(u))

    def at(state: Any, now: Any) -> Any:
        u, log_weight, tuned = state
        before, beta, step, key = now
        step = jnp.where(tune, tuned, step)
        log_weight += jax.vmap(lambda u: (beta - before) * (-model.energy(units.back(u)) - log_normal(u)))(u)
        moved, accepted = jax.vmap(partial(_hamiltonian, partial(log_density, beta=beta), step))(u, jax.random.split(key, count))
        tuned = jnp.clip(step * jnp.exp(0.5 * (jnp.mean(accepted) - ACCEPTED)), 1e-4, 2.0)
        return (moved, log_weight, tuned), step

    start, walk = jax.random.split(key)
    u = jax.random.normal(start, (count, size))
    course = (beta[:-1], beta[1:], steps, jax.random.split(walk, len(steps)))
    (u, log_weight, _), used = jax.lax.scan(at, (u, jnp.zeros(count), steps[0]), course)
    return u, log_weight, used


def _hamiltonian(log_density: Any, step: Array, u: Float[Array, "D"], key: Array) -> tuple[Array, Array]:
    """One proposal by leapfrog steps (Duane, Kennedy, Pendleton and Roweth 1987): where it leads, and how likely it was taken."""
    draw, choose = jax.random.split(key)
    slope = jax.grad(log_density)
    momentum = jax.random.normal(draw, u.shape)

    def leap(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        u, p = state
        half = p + 0.5 * step * slope(u)
        moved = u + step * half
        return moved, half + 0.5 * step * slope(moved)

    moved, p = jax.lax.fori_loop(0, LEAPS, leap, (u, momentum))
    gain = log_density(moved) - log_density(u) - 0.5 * (p @ p - momentum @ momentum)
    accepted = jnp.where(jnp.isfinite(gain), jnp.exp(jnp.minimum(gain, 0.0)), 0.0)
    return jnp.where(jax.random.uniform(choose) < accepted, moved, u), accepted
