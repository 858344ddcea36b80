"""Amounts of one subject by diffrax's own driver, from group to group of events: a reference, and any solver that diffrax has."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nlmefit.declare.solver import Diffrax
from nlmefit.solve.timeline import Timeline

Derivative = Callable[[Any, Any, Any], Any]
"""(t, A, group) -> dA/dt during the interval that ends at the group, inputs included."""


def integrate(
    derivative: Derivative, driver: Diffrax, line: Timeline, initial: Float[Array, " c"], to_come: Any = 0.0
) -> Float[Array, "g c"]:
    """Amounts just before each group (g, c); NaN after an interval that takes more than `max_steps` steps.

    `atol` is relative to the largest amount that was ever put into a compartment; `to_come` (c,) are put in by other ways than
    the timeline's.
    """
    solver = diffrax.Tsit5(scan_kind="lax") if driver.solver is None else driver.solver
    given = jnp.sum(jnp.abs(line.rate) * line.elapsed[:, None], axis=0)
    scale = lax.stop_gradient(jnp.max(jnp.maximum(jnp.abs(initial) + to_come, jnp.max(jnp.abs(line.add), axis=0) + given)))

    def interval(now: Any, group: Any) -> tuple[Any, Any]:
        end = line.time[group]
        term = diffrax.ODETerm(lambda t, A, args: derivative(t, A, group))
        solution = diffrax.diffeqsolve(
            term,
            solver,
            end - line.elapsed[group],
            end,
            None,
            now,
            stepsize_controller=diffrax.PIDController(rtol=driver.rtol, atol=driver.atol * scale),
            adjoint=diffrax.ForwardMode(),
            max_steps=driver.max_steps,
            throw=False,
        )
        assert solution.ys is not None
        # a solve that gave up returns the finite state that it had reached
        before = jnp.where(solution.result == diffrax.RESULTS.successful, solution.ys[0], jnp.nan)
        before = jnp.where(line.elapsed[group] > 0, before, now)
        return line.keep[group] * before + line.add[group], before

    before: Array = lax.scan(interval, initial, jnp.arange(line.time.shape[0]))[1]
    return before
