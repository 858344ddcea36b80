"""Empirical Bayes: the mode of p(z | y, theta) for one subject, found deterministically.

Newton's method on -log p(y, z) with exact second derivatives (forward mode), pivots of the Hessian kept positive, step
length bounded, sufficient decrease required. It always starts where it is told to, never where the last call ended, so
that the objective is a function of theta alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nlmefit.estimate.factor import factorize, is_positive, solve
from nlmefit.typing import Scalar

LONGEST_STEP = 4.0
"""In units of the random effects' prior sd: farther, exponentials of etas overflow."""
SMALL_DECREMENT = 1e-10
"""Newton decrement below which the next full step ends the search (its error is then quadratically smaller)."""


class Mode(NamedTuple):
    """The mode, and what was found there."""

    z: Float[Array, "q"]
    value: Scalar
    """-log p(y, z)."""
    hessian: Float[Array, "q q"]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]


class _State(NamedTuple):
    z: Array
    value: Array
    gradient: Array
    hessian: Array
    step: Array
    decrement: Array
    shrink: Array
    done: Array
    iterations: Array


def expand(objective: Callable[[Array], Scalar], z: Float[Array, "q"]) -> tuple[Scalar, Array, Array]:
    """Value, gradient and Hessian by forward mode, in one pass."""

    def gradient(z: Array) -> tuple[Array, tuple[Array, Array]]:
        def twice(z: Array) -> tuple[Array, Array]:
            value = objective(z)
            return value, value

        g, value = jax.jacfwd(twice, has_aux=True)(z)
        return g, (value, g)

    hessian, (value, g) = jax.jacfwd(gradient, has_aux=True)(z)
    return value, g, hessian


def find_mode(objective: Callable[[Array], Scalar], start: Float[Array, "q"], limit: int = 100) -> Mode:
    """Minimize `objective` from `start`; NaN counts as infinitely bad."""
    if start.shape[0] == 0:
        yes, none = jnp.array(True), jnp.array(0)
        return Mode(start, objective(start), jnp.zeros((0, 0)), yes, none)

    def direction(gradient: Array, hessian: Array) -> tuple[Array, Array]:
        step = -solve(factorize(hessian, floor=1e-6), gradient)
        decrement = -gradient @ step
        length = jnp.sqrt(step @ step)
        return step * jnp.minimum(1.0, LONGEST_STEP / jnp.maximum(length, 1e-300)), decrement

    def body(s: _State) -> _State:
        trial = s.z + s.shrink * s.step
        value, gradient, hessian = expand(objective, trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        slope = s.gradient @ s.step
        better = value <= s.value + 1e-4 * s.shrink * slope
        last = s.decrement < SMALL_DECREMENT + 1e-15 * jnp.abs(s.value)
        accept = finite & (better | last)
        step, decrement = direction(gradient, hessian)
        stalled = ~accept & ((s.shrink < 1e-12) | (s.iterations == 0))

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(accept, new, old)

        return _State(
            choose(trial, s.z),
            choose(value, s.value),
            choose(gradient, s.gradient),
            choose(hessian, s.hessian),
            choose(step, s.step),
            choose(decrement, s.decrement),
            jnp.where(accept, 1.0, 0.3 * s.shrink),
            (accept & last) | stalled,
            s.iterations + 1,
        )

    # The first pass through the loop evaluates the start itself (a step of length 0), so that the model is compiled once here.
    q = start.shape[0]
    endless = jnp.array(jnp.inf)
    first = _State(start, endless, jnp.zeros(q), jnp.eye(q), jnp.zeros(q), endless, jnp.ones(()), jnp.array(False), jnp.array(0))
    end = jax.lax.while_loop(lambda s: ~s.done & (s.iterations < limit), body, first)
    small = end.decrement < 1e-8 * jnp.maximum(1.0, jnp.abs(end.value) * 1e-3)
    converged = small & is_positive(factorize(end.hessian)) & jnp.isfinite(end.value)
    return Mode(end.z, end.value, end.hessian, converged, end.iterations)
