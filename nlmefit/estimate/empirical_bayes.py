"""Empirical Bayes: the mode of p(z | y, theta) for one subject, found deterministically.

Newton's method on -log p(y, z) with exact second derivatives (forward mode), pivots of the Hessian kept positive, step
length bounded, sufficient decrease required. It always starts where it is told to, never where the last call ended, so
that the objective is a function of theta alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
    failures: Int[Array, ""]
    """Points at which the density could not be computed."""


class _State(NamedTuple):
    z: Array
    value: Array
    gradient: Array
    hessian: Array
    change: Array
    """What the Hessian lacks, learnt from the gradients seen, where it is an approximation."""
    step: Array
    decrement: Array
    shrink: Array
    done: Array
    iterations: Array
    failures: Array


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


def find_mode(
    objective: Callable[[Array], Scalar],
    start: Float[Array, "q"],
    limit: int = 100,
    *,
    expanded: Callable[[Array], tuple[Scalar, Array, Array]] | None = None,
    noise: float = 0.0,
) -> Mode:
    """Minimize `objective` from `start`; NaN counts as infinitely bad.

    `expanded(z)`, where given, is the objective's value, gradient and an approximation of its Hessian, in place of exact
    derivatives (the steps are then Gauss and Newton's). `noise` is the relative error of its values, below which a rise is none.
    """
    if start.shape[0] == 0:
        yes, none = jnp.array(True), jnp.array(0)
        return Mode(start, objective(start), jnp.zeros((0, 0)), yes, none, none)

    def direction(gradient: Array, hessian: Array) -> tuple[Array, Array]:
        step = -solve(factorize(hessian, floor=1e-6), gradient)
        decrement = -gradient @ step
        length = jnp.sqrt(step @ step)
        return step * jnp.minimum(1.0, LONGEST_STEP / jnp.maximum(length, 1e-300)), decrement

    def body(s: _State) -> _State:
        trial = s.z + s.shrink * s.step
        value, gradient, hessian = expand(objective, trial) if expanded is None else expanded(trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        slope = s.gradient @ s.step
        better = value - noise * (1.0 + jnp.abs(value)) <= s.value + 1e-4 * s.shrink * slope
        last = s.decrement < SMALL_DECREMENT + 1e-15 * jnp.abs(s.value)
        accept = finite & (better | last)
        change = s.change if expanded is None else _secant(s, trial - s.z, gradient - s.gradient, hessian)
        step, decrement = direction(gradient, hessian + change)
        stalled = ~accept & ((s.shrink < 1e-12) | (s.iterations == 0))

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(accept, new, old)

        return _State(
            choose(trial, s.z),
            choose(value, s.value),
            choose(gradient, s.gradient),
            choose(hessian, s.hessian),
            choose(change, s.change),
            choose(step, s.step),
            choose(decrement, s.decrement),
            jnp.where(accept, 1.0, 0.3 * s.shrink),
            (accept & last) | stalled,
            s.iterations + 1,
            s.failures + ~finite,
        )

    # The first pass through the loop evaluates the start itself (a step of length 0), so that the model is compiled once here.
    q = start.shape[0]
    endless, none = jnp.array(jnp.inf), jnp.array(0)
    first = _State(
        start,
        endless,
        jnp.zeros(q),
        jnp.eye(q),
        jnp.zeros((q, q)),
        jnp.zeros(q),
        endless,
        jnp.ones(()),
        jnp.array(False),
        none,
        none,
    )
    end = jax.lax.while_loop(lambda s: ~s.done & (s.iterations < limit), body, first)
    small = end.decrement < 1e-8 * jnp.maximum(1.0, jnp.abs(end.value) * 1e-3)
    converged = small & is_positive(factorize(end.hessian)) & jnp.isfinite(end.value)
    return Mode(end.z, end.value, end.hessian, converged, end.iterations, end.failures)


def _secant(s: _State, moved: Array, rise: Array, hessian: Array) -> Array:
    """The symmetric rank-one update of what the Hessian lacks (Conn, Gould and Toint 1991), left out where it is not defined."""
    lacking = rise - (hessian + s.change) @ moved
    along = lacking @ moved
    defined = jnp.isfinite(s.value) & (jnp.abs(along) > 1e-8 * jnp.sqrt((lacking @ lacking) * (moved @ moved)))
    return s.change + jnp.where(defined, jnp.outer(lacking, lacking) / jnp.where(defined, along, 1.0), 0.0)


POLISHED = 1e-5
"""A move of the mode, in prior standard deviations, below which its polynomial's error (of second order in it) is none."""


def find_costly_mode(
    near: Callable[[Array, int], Any], objective: Callable[[Any, Array], Scalar], start: Float[Array, "q"], order: int
) -> tuple[Mode, Any]:
    """The mode where derivatives are costly, and the polynomial model of that order around it.

    `near(z, order)` makes a polynomial model around z, and `objective(model, z)` is the function to minimize by it. First steps
    with first derivatives only, to within their linear convergence; then the mode of the polynomial of the order that the method
    needs anyway, around the last point, until it stays where the polynomial is made.
    """
    close = find_mode(
        lambda z: objective(near(z, 1), z),
        start,
        limit=30,
        expanded=lambda z: expand(partial(objective, near(z, 1)), z),
        noise=1e-6,
    )

    around = jax.jit(lambda z: near(z, order))  # traced once for the loop and its first state

    class Polish(NamedTuple):
        model: Any
        mode: Mode
        moved: Array
        passes: Array

    def body(s: Polish) -> Polish:
        model = around(s.mode.z)
        mode = find_mode(partial(objective, model), s.mode.z, limit=20)
        moved = jnp.max(jnp.abs(mode.z - s.mode.z), initial=0.0)
        moved = jnp.where(jnp.isfinite(mode.value), moved, 0.0)
        return Polish(model, mode._replace(failures=s.mode.failures + ~jnp.isfinite(mode.value)), moved, s.passes + 1)

    shape = jax.eval_shape(around, start)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    first = Polish(empty, close, jnp.array(jnp.inf), jnp.array(0))
    end = jax.lax.while_loop(lambda s: (s.moved > POLISHED) & (s.passes < 8), body, first)
    settled = end.mode.converged & (end.moved < 100 * POLISHED)
    return end.mode._replace(converged=settled, iterations=close.iterations + end.passes), end.model
