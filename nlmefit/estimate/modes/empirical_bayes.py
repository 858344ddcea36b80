"""Empirical Bayes: the mode of p(z | y, theta) for one subject, found deterministically.

Newton's method on -log p(y, z) with exact second derivatives (forward mode) inside a trust region, whose radius grows and
shrinks by how well the quadratic model predicts the fall: it finds the mode of the valley that it starts in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nlmefit.core.typing import Scalar
from nlmefit.estimate.factor import factorize, is_positive, solve, solve_lower

FIRST_RADIUS, LONGEST_STEP = 1.0, 4.0
"""How far the first step and any step may go, in units of the random effects' prior sd: farther, exponentials of etas
overflow."""
SMALL_DECREMENT = 1e-10
"""Newton decrement below which the next full step ends the search (its error is then quadratically smaller)."""


class Start(NamedTuple):
    """Where a search for a mode begins, and what is known of the curvature there."""

    z: Any
    """(q,), or (N, q) of all subjects, as is what follows."""
    hessian: Any
    """(q, q): that of -log p(y, z | theta) at a mode for a theta close by, where `known`."""
    known: Any

    @classmethod
    def cold(cls, z: Float[np.ndarray, "*N q"]) -> "Start":
        """From z, with nothing known."""
        z = np.asarray(z, float)
        return cls(z, np.broadcast_to(np.eye(z.shape[-1]), (*z.shape, z.shape[-1])), np.zeros(z.shape[:-1], bool))


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
    gain: Array
    """The fall of the objective that the quadratic model predicts for the step."""
    decrement: Array
    radius: Array
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
) -> Mode:
    """Minimize `objective` from `start`; NaN counts as infinitely bad.

    `expanded(z)`, where given, is the objective's value, gradient and an approximation of its Hessian, in place of exact
    derivatives (the steps are then Gauss and Newton's).
    """
    if start.shape[0] == 0:
        yes, none = jnp.array(True), jnp.array(0)
        return Mode(start, objective(start), jnp.zeros((0, 0)), yes, none, none)
    end = _descent(expanded or partial(expand, objective), start, limit, None if expanded is None else _nothing_lacking)
    small = end.decrement < 1e-8 * jnp.maximum(1.0, jnp.abs(end.value) * 1e-3)
    converged = small & is_positive(factorize(end.hessian)) & jnp.isfinite(end.value)
    return Mode(end.z, end.value, end.hessian, converged, end.iterations, end.failures)


Lacking = Callable[[Array], Array]
"""What an approximate Hessian lacks at the start of a search, given the approximation there."""


def _nothing_lacking(hessian: Array) -> Array:
    return jnp.zeros_like(hessian)


def _descent(
    expanded: Callable[[Array], tuple[Scalar, Array, Array]],
    start: Float[Array, "q"],
    limit: int,
    lacking: Lacking | None,
    noise: float = 0.0,
    enough: Scalar | float = -1.0,
) -> _State:
    """Steps inside a trust region until they end. With `lacking` the Hessian of `expanded` is an approximation, and what it lacks
    is learnt from step to step. `noise` is the relative error of its values, below which a rise is none. A decrement below
    `enough` ends the search before the step that it belongs to."""

    def body(s: _State) -> _State:
        trial = s.z + s.step
        value, gradient, hessian = expanded(trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        fall = s.value - value + noise * (1.0 + jnp.abs(value))
        last = s.decrement < SMALL_DECREMENT + 1e-15 * jnp.abs(s.value)
        accept = finite & ((fall >= 1e-4 * s.gain) | last)
        change = s.change
        if lacking is not None:
            learnt = _secant(s, trial - s.z, gradient - s.gradient, hessian)
            change = jnp.where(s.iterations == 0, lacking(hessian), learnt)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(accept, new, old)

        length = jnp.sqrt(s.step @ s.step)
        far = (fall > 0.75 * s.gain) & (length > 0.8 * s.radius)
        grown = jnp.where(far, jnp.minimum(2.0 * s.radius, LONGEST_STEP), s.radius)
        radius = jnp.where(accept & ~(fall < 0.25 * s.gain), grown, 0.25 * jnp.minimum(length, s.radius))
        radius = jnp.where(accept, jnp.maximum(radius, 1e-3), radius)
        gradient, hessian, change = choose(gradient, s.gradient), choose(hessian, s.hessian), choose(change, s.change)
        step, gain, decrement = bounded_step(gradient, hessian + change, radius)
        stalled = ~accept & ((radius < 1e-12) | (s.iterations == 0))
        return _State(
            choose(trial, s.z),
            choose(value, s.value),
            gradient,
            hessian,
            change,
            step,
            gain,
            decrement,
            radius,
            (accept & (last | (decrement < enough))) | stalled,
            s.iterations + 1,
            s.failures + ~finite,
        )

    # The first pass through the loop evaluates the start itself (a step of length 0), so that the model is compiled once here.
    q = start.shape[0]
    endless, none = jnp.array(jnp.inf), jnp.array(0)
    zeros, first_radius = jnp.zeros(q), jnp.array(FIRST_RADIUS)
    first = _State(
        start,
        endless,
        zeros,
        jnp.eye(q),
        jnp.zeros((q, q)),
        zeros,
        jnp.zeros(()),
        endless,
        first_radius,
        jnp.array(False),
        none,
        none,
    )
    return jax.lax.while_loop(lambda s: ~s.done & (s.iterations < limit), body, first)


class _Damped(NamedTuple):
    damping: Array
    lower: Array
    upper: Array
    step: Array
    done: Array
    tries: Array


def bounded_step(
    gradient: Float[Array, "q"], hessian: Float[Array, "q q"], radius: Scalar
) -> tuple[Float[Array, "q"], Scalar, Scalar]:
    """The step s of length <= radius that lowers g's + 1/2 s'Hs most, that fall, and Newton's decrement g'H^-1 g.

    s = -(H + d I)^-1 g with the smallest damping d >= 0 for which H + d I is positive definite and s short enough, within a
    tenth (More and Sorensen 1983). Where H is not positive definite it follows the curvature down, which the step of a Hessian
    with its pivots turned positive does not: that one can lead over a ridge into a far-away mode. The decrement is then g'g, or
    the fall where that is more, so that a search does not end at a saddle.
    """
    identity = jnp.eye(gradient.shape[0])
    factor = factorize(hessian)
    newton = -solve(factor, gradient)
    positive = is_positive(factor)
    norm = jnp.sqrt(gradient @ gradient)
    enough = positive & (newton @ newton <= radius**2)
    most = norm / jnp.maximum(radius, 1e-300) + jnp.sqrt(jnp.sum(hessian**2))  # by its smallest eigenvalue, surely enough

    def shorter(s: _Damped) -> _Damped:
        factor = factorize(hessian + s.damping * identity)
        step = -solve(factor, gradient)
        length = jnp.sqrt(step @ step)
        convex = is_positive(factor)
        inside = convex & (length <= radius)
        lower, upper = jnp.where(inside, s.lower, s.damping), jnp.where(inside, s.damping, s.upper)
        whitened = solve_lower(factor, step)
        slope = jnp.sum(whitened**2 / factor.pivots)
        newton = s.damping + (length**2 / slope) * (length - radius) / radius
        between = jnp.maximum(jnp.sqrt(lower * upper), lower + 1e-3 * (upper - lower))
        next_ = jnp.where(convex & (newton > lower) & (newton < upper), newton, between)
        done = convex & (jnp.abs(length - radius) <= 0.1 * radius)
        kept = inside | done
        return _Damped(jnp.where(done, s.damping, next_), lower, upper, jnp.where(kept, step, s.step), s.done | done, s.tries + 1)

    surely = -gradient * (radius / jnp.maximum(norm, 1e-300))
    start = _Damped(
        jnp.where(positive, 0.0, 1e-3 * most), jnp.zeros(()), most, jnp.where(enough, newton, surely), enough, jnp.array(0)
    )
    step = jax.lax.while_loop(lambda s: ~s.done & (s.tries < 30), shorter, start).step
    length = jnp.sqrt(step @ step)
    step = step * jnp.where(enough, 1.0, jnp.minimum(1.0, radius / jnp.maximum(length, 1e-300)))
    gain = -(gradient @ step + 0.5 * step @ hessian @ step)
    return step, gain, jnp.where(positive, -gradient @ newton, jnp.maximum(norm**2, gain))


def _secant(s: _State, moved: Array, rise: Array, hessian: Array) -> Array:
    """The symmetric rank-one update of what the Hessian lacks (Conn, Gould and Toint 1991), left out where it is not defined."""
    lacking = rise - (hessian + s.change) @ moved
    along = lacking @ moved
    defined = jnp.isfinite(s.value) & (jnp.abs(along) > 1e-8 * jnp.sqrt((lacking @ lacking) * (moved @ moved)))
    return s.change + jnp.where(defined, jnp.outer(lacking, lacking) / jnp.where(defined, along, 1.0), 0.0)


POLISHED = 1e-5
"""A move of the mode, in prior standard deviations, below which its polynomial's error (of second order in it) is none."""
CLOSE = 1e-7
"""A decrement at which one more step with a known curvature comes within POLISHED of the mode."""


def find_mode_by_expansion(
    expand_at: Callable[[Array, int], Any], objective: Callable[[Any, Array], Scalar], start: Start, order: int
) -> tuple[Mode, Any]:
    """The mode where the model solves differential equations, and the polynomial model of that order around it.

    `expand_at(z, order)` makes a polynomial model around z, and `objective(model, z)` is the function to minimize by it. First
    steps with first derivatives only, to within their linear convergence; then the mode of the polynomial of the order that the
    method needs anyway, around the last point, until it stays where the polynomial is made.
    """

    def first_order(z: Array) -> tuple[Scalar, Array, Array]:
        return expand(partial(objective, expand_at(z, 1)), z)

    def lacking(hessian: Array) -> Array:
        return jnp.where(start.known, start.hessian - hessian, 0.0)

    close = _descent(first_order, start.z, 30, lacking, noise=1e-6, enough=jnp.where(start.known, CLOSE, SMALL_DECREMENT))
    nearby = close.z + jnp.where(close.decrement < CLOSE, 1.0, 0.0) * close.step

    around = jax.jit(lambda z: expand_at(z, order))  # traced once for the loop and its first state

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

    shape = jax.eval_shape(around, start.z)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    mode = Mode(nearby, close.value, close.hessian, jnp.array(False), close.iterations, close.failures)
    first = Polish(empty, mode, jnp.array(jnp.inf), jnp.array(0))
    end = jax.lax.while_loop(lambda s: (s.moved > POLISHED) & (s.passes < 8), body, first)
    converged = end.mode.converged & (end.moved < 100 * POLISHED)
    return end.mode._replace(converged=converged, iterations=close.iterations + end.passes), end.model
