"""Amounts of one subject by steps of controlled error, in one loop over steps and events.

The loop holds the amounts, the time since the last group of events and the step length; a step ends at the next group at the
latest, so that doses, ends of infusions and rows are exact times of the solution. Whether a step is accepted and how long the
next one is has no derivative: differentiating the loop differentiates the numerical solution for its own sequence of steps,
event times included (Hairer, Norsett and Wanner 1993, II.6).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nlmefit.declare.solver import AbstractStepping
from nlmefit.solve.runge_kutta import Step
from nlmefit.solve.timeline import Timeline

Derivative = Callable[[Any, Any, Any], Any]
"""(t, A, group) -> dA/dt during the interval that ends at the group, inputs included."""

SMALLEST_SCALE = 1e-6
"""Of the largest amount in any compartment: a compartment that holds less is held to the error of one that holds so much."""


class Solution(NamedTuple):
    """Amounts just before each group (g, c), NaN where the steps ran out before; and the number of steps tried."""

    before: Float[Array, "g c"]
    steps: Int[Array, ""]


class _State(NamedTuple):
    group: Any
    since: Any
    """Time since the group before."""
    amounts: Any
    largest: Any
    step: Any
    count: Any
    stuck: Any
    before: Any


def integrate(
    derivative: Derivative,
    step: Step,
    order: int,
    line: Timeline,
    initial: Float[Array, " c"],
    tolerance: AbstractStepping,
    scale: Any = 0.0,
) -> Solution:
    """Solve along the timeline from `initial` at the subject's start. `scale` (c,) are amounts to come by other ways than the
    timeline's, which the absolute tolerance has to know of beforehand."""
    count, size = line.time.shape[0], initial.shape[0]
    span = lax.stop_gradient(jnp.max(jnp.abs(line.time)) + jnp.sum(line.elapsed))

    def body(s: _State) -> _State:
        g = jnp.minimum(s.group, count - 1)
        left = line.elapsed[g] - s.since
        reaches = s.step >= left * (1 - 1e-12)
        h = jnp.where(reaches, left, s.step)
        t = line.time[g] - left
        after, error = step(lambda t, A: derivative(t, A, g), t, s.amounts, h)
        largest = jnp.maximum(s.largest, lax.stop_gradient(jnp.abs(after)))
        scale = tolerance.rtol * jnp.maximum(jnp.abs(s.amounts), jnp.abs(after)) + tolerance.atol * jnp.maximum(
            largest, SMALLEST_SCALE * jnp.max(largest)
        )
        size_of_error = lax.stop_gradient(jnp.max(jnp.abs(error) / jnp.maximum(scale, 1e-300)))
        size_of_error = jnp.where(jnp.isfinite(size_of_error), size_of_error, jnp.inf)
        good = size_of_error <= 1.0
        factor = jnp.clip(0.9 * jnp.maximum(size_of_error, 1e-12) ** (-1 / order), 0.2, 5.0)
        longer = lax.stop_gradient(jnp.where(reaches & good, jnp.maximum(s.step, h * factor), h * factor))
        arrived = good & reaches
        here = jnp.where(good, after, s.amounts)
        now = jnp.where(arrived, line.keep[g] * here + line.add[g], here)
        return _State(
            s.group + arrived,
            jnp.where(arrived, 0.0, jnp.where(good, s.since + h, s.since)),
            now,
            jnp.where(good, jnp.maximum(largest, lax.stop_gradient(jnp.abs(now))), s.largest),
            longer,
            s.count + 1,
            ~good & (h < 1e-14 * span),
            s.before.at[g].set(jnp.where(arrived, here, s.before[g])),
        )

    def going(s: _State) -> Any:
        return (s.group <= line.last) & (s.count < tolerance.max_steps) & ~s.stuck

    empty = jnp.full((count, size), jnp.nan)
    none, zero = jnp.array(0), jnp.zeros(())
    largest = lax.stop_gradient(jnp.abs(initial) + scale)
    start = _State(none, zero, initial, largest, 1e-3 * span, none, jnp.array(False), empty)
    end = lax.while_loop(going, body, start)
    return Solution(end.before, end.count)
