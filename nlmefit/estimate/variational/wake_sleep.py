"""Training of an encoder and of theta by stochastic gradients: the bound on the data, and the model's own simulations.

    wake:   E_q[ log p(y_i, z | theta) - log q(z | y_i) ],  z = m_i + S_i eps                  raised in theta and the encoder
    sleep:  E[ log q(z | y) ],  z ~ N(0, I),  y ~ p(y | theta, z) at the designs of the data    raised in the encoder

The wake phase is the reparametrised bound of Kingma and Welling (2014), its gradient in the encoder taken along z only, which is
without noise where q is the posterior (Roeder, Wu and Duvenaud 2017). The sleep phase (Hinton, Dayan, Frey and Neal 1995) needs
no derivative of the model, starts the encoder near the posterior, and keeps a few real subjects from being learned by heart; half
of its subjects have observations left out at random, so that new subjects may have fewer than the data's.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled_module
from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites, log_joint
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import matched
from nlmefit.estimate.variational.encoder import Reader
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program

BLOCK, ODE_BLOCK = 100, 20
"""Steps between two signs of life, the second number where the model is solved step by step."""
THETA_RATE = 5.0
"""Learning rate of theta in units of the encoder's."""

OPTIMIZER = optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam()), 1_000_000_000)


class State(NamedTuple):
    """Where training is: free coordinates, encoder, optimizer."""

    u: Float[Array, "p"]
    network: Any
    memory: Any

    @classmethod
    def start(cls, u: Float[np.ndarray, "p"], network: Any) -> "State":
        return cls(jnp.asarray(u), network, OPTIMIZER.init((jnp.asarray(u), eqx.filter(network, eqx.is_inexact_array))))

    @property
    def skipped(self) -> int:
        """Steps without a finite gradient."""
        return int(self.memory.total_notfinite)


class Settings(NamedTuple):
    """What a compiled block of steps depends on."""

    batch: int
    draws: int
    """Of every subject in the wake phase; 0: the sleep phase alone."""
    simulated: float
    """Weight of the sleep phase."""
    steps: int
    """In a block."""


class Trainer:
    """A problem laid out for training."""

    def __init__(self, problem: Problem, reader: Reader, batch: int, simulated: float):
        self.problem, self.reader, self.batch, self.simulated = problem, reader, batch, simulated
        self.subjects = jax.device_put(problem.subjects)
        self.scale = np.ones(problem.coordinates.size)
        """A large step of each coordinate."""
        self.block = ODE_BLOCK if problem.model.solves_ode else BLOCK

    def run(
        self, state: State, key: Array, rates: Float[np.ndarray, "S 2"], draws: int, repeats: int = 1
    ) -> Iterator[tuple[State, Float[np.ndarray, " s"], Float[np.ndarray, "s p"]]]:
        """Block by block the state, the bound (`draws` 0, the sleep phase alone: mean log q) by step, and u by step. `rates` are
        those of theta and of the encoder by step; a step goes along the mean of `repeats` gradients."""
        settings = Settings(self.batch, draws, self.simulated, self.block)
        advance = _advance(self.problem.model, settings)
        for begin in range(0, len(rates), self.block):
            now = rates[begin : begin + self.block]
            padded = np.concatenate([now, np.zeros((self.block - len(now), 2))])  # one shape, compiled once
            keys = jax.random.split(jax.random.fold_in(key, begin), self.block)
            state, values, path = advance(
                state, self.reader, self.subjects, self.problem.fixed, self.scale, keys, padded, repeats
            )
            yield state, np.asarray(values)[: len(now)], np.asarray(path)[: len(now)]

    def score(self, state: State, count: int) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p p"]]:
        """Gradient of the bound in u with every q held, and the information: sum_i E_q[ s s' ], s = d log p(y_i, z | u) / du.

        Over points of exact second moments: the noise of random ones would hide a gradient near 0."""
        run = _score(self.problem.model)
        found = run(state, self.reader, self.subjects, self.problem.fixed, matched(count, self.problem.q))
        return np.asarray(found[0]), np.asarray(found[1])

    def simulate(self, u: Float[np.ndarray, "p"], key: Array, count: int) -> Any:
        """Subjects with the designs of the data and simulated observations."""
        run = _simulated(self.problem.model, count)
        return run(jnp.asarray(u), self.subjects, self.problem.fixed, key)[0]


def gaussian(network: Any, reader: Reader, subjects: Any) -> tuple[Float[Array, "N q"], Float[Array, "N q q"]]:
    """m_i and S_i."""
    return jax.vmap(lambda s: network(reader(s)))(subjects)


def check_simulation(problem: Problem) -> None:
    """MethodError where a site's distribution cannot be sampled."""

    def once(u: Array, subjects: Any, key: Array) -> Array:
        return _sleep(problem.model, problem.coordinates.theta(u, problem.fixed), subjects, 1, key)[1]

    try:
        jax.eval_shape(once, problem.coordinates.start(), problem.subjects, jax.random.key(0))
    except NotImplementedError as error:
        raise MethodError(
            "the encoder's training simulates from the model, and a distribution in `observe` has no `sample`. Use simulated=0, "
            "which trains on the data alone."
        ) from error


def _log_q(mean: Array, root: Array, z: Array) -> Scalar:
    white = solve_triangular(root, z - mean, lower=True)
    return -0.5 * (white @ white) - jnp.sum(jnp.log(jnp.diag(root))) - 0.5 * z.shape[0] * jnp.log(2 * jnp.pi)


def _bounds(model: AbstractLatentModel, theta: Theta, mean: Array, root: Array, subjects: Any, eps: Array) -> Array:
    """The bound of each subject (b,) over draws eps (b, K, q) and their negatives."""
    factor = model.omega(theta)

    def one(mean: Array, root: Array, subject: Any, eps: Array) -> Array:
        sites = Sites(model, theta, factor, subject)
        still = jax.lax.stop_gradient((mean, root))
        z = mean + jnp.concatenate([eps, -eps]) @ root.T
        return jnp.mean(jax.vmap(lambda z: log_joint(sites, z) - _log_q(*still, z))(z))

    return jax.vmap(one)(mean, root, subjects, eps)


def _sleep(model: AbstractLatentModel, theta: Theta, subjects: Any, count: int, key: Array) -> tuple[Any, Array]:
    """`count` subjects of the data's designs with simulated observations, and the z (count, q) that these came from."""
    which, noise = jax.random.split(key)
    chosen = jax.random.randint(which, (count,), 0, len(next(iter(subjects.mask.values()))))
    root = model.omega(theta)

    def one(subject: Any, key: Array) -> tuple[Any, Array]:
        first, second, third = jax.random.split(key, 3)
        z = jax.random.normal(first, (root.shape[0],))
        sites = model.observe(theta, root @ z, subject)
        keys = dict(zip(sites, jax.random.split(second, len(sites)), strict=True))
        y = {n: jnp.asarray(d.sample(keys[n]), float) for n, d in sites.items()}
        mask = _thinned(subject.mask, third) if getattr(subject, "time", None) is not None else subject.mask
        y = {n: jnp.where(mask[n], jnp.broadcast_to(v, mask[n].shape), 0.0) for n, v in y.items()}
        return eqx.tree_at(lambda s: (s.observed, s.mask), subject, (y, mask)), z

    simulated, z = jax.vmap(one)(jax.tree.map(lambda x: x[chosen], subjects), jax.random.split(noise, count))
    return simulated, z


def _thinned(mask: dict[str, Array], key: Array) -> dict[str, Array]:
    """The observations of half of the subjects thinned out, by a share that is uniform between none and all."""
    whether, share, *keys = jax.random.split(key, 2 + len(mask))
    kept = jnp.where(jax.random.bernoulli(whether), 1.0, jax.random.uniform(share))
    return {n: m & jax.random.bernoulli(k, kept, m.shape) for k, (n, m) in zip(keys, mask.items(), strict=True)}


def _sleep_value(network: Any, reader: Reader, simulated: Any, z: Array) -> Scalar:
    """The mean of log q(z | y); simulations that are no number are left out."""
    usable = jnp.all(jnp.stack([jnp.all(jnp.isfinite(v), axis=1) for v in simulated.observed.values()]), axis=0)
    clean = eqx.tree_at(lambda s: s.observed, simulated, {n: jnp.nan_to_num(v) for n, v in simulated.observed.items()})
    mean, root = gaussian(network, reader, clean)
    found = jax.vmap(_log_q)(mean, root, z)
    return jnp.sum(jnp.where(usable, found, 0.0)) / jnp.maximum(usable.sum(), 1)


@program
def _advance(model: AbstractLatentModel, settings: Any) -> Any:
    """A block of steps, compiled."""
    coordinates, batch = Coordinates(model.parameters()), settings.batch

    def loss(parts: Any, reader: Reader, subjects: Any, fixed: Theta, key: Array) -> tuple[Scalar, Scalar]:
        u, network = parts
        choose, draw, dream = jax.random.split(key, 3)
        size = len(next(iter(subjects.mask.values())))
        dreamt: Any = 0.0
        if settings.simulated > 0:
            theta = coordinates.theta(jax.lax.stop_gradient(u), fixed)
            dreamt = _sleep_value(network, reader, *jax.lax.stop_gradient(_sleep(model, theta, subjects, batch, dream)))
        if not settings.draws:
            return -dreamt, dreamt
        if batch < size:
            chosen = jax.random.choice(choose, size, (batch,), replace=False)
            subjects = jax.tree.map(lambda x: x[chosen], subjects)
        mean, root = gaussian(network, reader, subjects)
        eps = jax.random.normal(draw, (len(mean), settings.draws // 2, mean.shape[1]))
        bound = jnp.mean(_bounds(model, coordinates.theta(u, fixed), mean, root, subjects, eps))
        return -bound - settings.simulated * dreamt, bound * size

    def block(
        state: State, reader: Reader, subjects: Any, fixed: Theta, scale: Array, keys: Array, rates: Array, repeats: Array
    ) -> tuple[State, Array, Array]:
        weights, rest = eqx.partition(state.network, eqx.is_inexact_array)

        def step(carry: Any, at: Any) -> tuple[Any, tuple[Array, Array]]:
            (u, weights), memory = carry
            key, rate = at

            def value(parts: Any, key: Array) -> tuple[Scalar, Scalar]:
                moved, weights = parts
                return loss((u + scale * (moved - u), eqx.combine(weights, rest)), reader, subjects, fixed, key)

            def another(count: Array, total: Any) -> Any:
                (_, bound), gradient = jax.value_and_grad(value, has_aux=True)((u, weights), jax.random.fold_in(key, count))
                return jax.tree.map(lambda a, b: a + b / repeats, total, (bound, gradient))

            # repeated rather than drawn at once: few draws early and many late are then one program
            nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, (u, weights))
            bound, gradient = jax.lax.fori_loop(0, repeats, another, nothing)
            change, memory = OPTIMIZER.update(gradient, memory)
            u = u - rate[0] * scale * change[0]
            weights = jax.tree.map(lambda w, c: w - rate[1] * c, weights, change[1])
            return ((u, weights), memory), (bound, u)

        ((u, weights), memory), (bounds, path) = jax.lax.scan(step, ((state.u, weights), state.memory), (keys, rates))
        return State(u, eqx.combine(weights, rest), memory), bounds, path

    return compiled_module(block)


@program
def _score(model: AbstractLatentModel) -> Any:
    coordinates = Coordinates(model.parameters())

    def score(state: State, reader: Reader, subjects: Any, fixed: Theta, eps: Array) -> tuple[Array, Array]:
        mean, root = gaussian(state.network, reader, subjects)

        def one(mean: Array, root: Array, subject: Any) -> tuple[Array, Array]:
            def joint(u: Array, z: Array) -> Scalar:
                theta = coordinates.theta(u, fixed)
                return log_joint(Sites(model, theta, model.omega(theta), subject), z)

            s = jax.vmap(jax.grad(joint), in_axes=(None, 0))(state.u, mean + eps @ root.T)
            return jnp.mean(s, axis=0), s.T @ s / len(s)

        slope, information = jax.vmap(one)(mean, root, subjects)
        return jnp.sum(slope, axis=0), jnp.sum(information, axis=0)

    return compiled_module(score)


@program
def _simulated(model: AbstractLatentModel, count: Any) -> Any:
    coordinates = Coordinates(model.parameters())

    def simulated(u: Array, subjects: Any, fixed: Theta, key: Array) -> tuple[Any, Array]:
        return _sleep(model, coordinates.theta(u, fixed), subjects, count, key)

    return compiled_module(simulated)
