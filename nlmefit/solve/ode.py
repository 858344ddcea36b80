"""Amounts of one subject by steps of controlled error, in one loop over steps and events.

The loop holds the amounts, the time since the last group of events and the step length; a step ends at the next group at the
latest, so that doses, ends of infusions and rows are exact times of the solution. Amounts are jets: their derivatives go through
the same steps, event times included. Whether a step is accepted and how long the next one is is judged by the amounts alone and
has no derivative (Hairer, Norsett and Wanner 1993, II.6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Int

from nlmefit.declare.solver import AbstractStepping
from nlmefit.solve import jets
from nlmefit.solve.jets import Jet
from nlmefit.solve.timeline import Timeline

Rates = Callable[[Any, tuple[Any, ...], Any], tuple[Any, ...]]
"""(t, A, parameters) -> dA/dt, all of them numbers."""


@dataclass(frozen=True)
class Field:
    """dA/dt as a jet, during the interval that ends at one group: what the model makes of amounts and parameters, and inputs."""

    rates: Rates
    parameters: Any
    """A PyTree of jets."""
    input: Jet

    def __call__(self, t: Jet, A: Jet) -> Jet:
        found = jets.apply(self.rates, t, _components(A), self.parameters)
        return jets.stack(found) + self.input

    def jacobian(self, t: Jet, A: Jet) -> Jet:
        """By compartment (c, c)."""
        size = A.value.shape[0]

        def columns(t: Any, A: Any, parameters: Any) -> list[Any]:
            def along(k: int) -> Any:
                unit = tuple(jnp.ones(()) if k == m else jnp.zeros(()) for m in range(size))
                return jax.jvp(lambda A: self.rates(t, A, parameters), (A,), (unit,))[1]

            return [along(k) for k in range(size)]

        found = jets.apply(columns, t, _components(A), self.parameters)
        return jets.stack([jets.stack([column[m] for column in found]) for m in range(size)])

    def drift(self, t: Jet, A: Jet) -> Jet:
        """df/dt."""

        def along(t: Any, A: Any, parameters: Any) -> Any:
            return jax.jvp(lambda t: self.rates(t, A, parameters), (t,), (jnp.ones(()),))[1]

        return jets.stack(jets.apply(along, t, _components(A), self.parameters))


def _components(A: Jet) -> tuple[Jet, ...]:
    return tuple(A[m] for m in range(A.value.shape[0]))


Step = Callable[[Field, Jet, Jet, Jet], tuple[Jet, Any]]
"""(f, t, A, h) -> A after the step h, and the estimate of its error."""

SMALLEST_SCALE = 1e-6
"""Of the largest amount in any compartment: a compartment that holds less is held to the error of one that holds so much."""


class Solution(NamedTuple):
    """Amounts just before each group (g, c), NaN where the steps ran out before; and the number of steps tried."""

    before: Jet
    steps: Int[jax.Array, ""]


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
    field: Callable[[Any], Field],
    step: Step,
    order: int,
    line: Timeline,
    initial: Jet,
    tolerance: AbstractStepping,
    scale: Any = 0.0,
) -> Solution:
    """Solve along the timeline from `initial` (c,) at the subject's start; `field(g)` is dA/dt in the interval that ends at group
    g. `scale` (c,) are amounts to come by other ways than the timeline's, which the absolute tolerance has to know of."""
    count = line.time.value.shape[0]
    span = lax.stop_gradient(jnp.max(jnp.abs(line.time.value)) + jnp.sum(line.elapsed.value))

    def body(s: _State) -> _State:
        g = jnp.minimum(s.group, count - 1)
        left = line.elapsed[g] - s.since
        reaches = s.step >= left.value * (1 - 1e-12)
        h = jets.where(reaches, left, s.step)
        after, error = step(field(g), line.time[g] - left, s.amounts, h)
        largest = jnp.maximum(s.largest, lax.stop_gradient(jnp.abs(after.value)))
        scale = tolerance.rtol * jnp.maximum(jnp.abs(s.amounts.value), jnp.abs(after.value)) + tolerance.atol * jnp.maximum(
            largest, SMALLEST_SCALE * jnp.max(largest)
        )
        size_of_error = lax.stop_gradient(jnp.max(jnp.abs(error) / jnp.maximum(scale, 1e-300)))
        size_of_error = jnp.where(jnp.isfinite(size_of_error), size_of_error, jnp.inf)
        good = size_of_error <= 1.0
        factor = jnp.clip(0.9 * jnp.maximum(size_of_error, 1e-12) ** (-1 / order), 0.2, 5.0)
        longer = lax.stop_gradient(jnp.where(reaches & good, jnp.maximum(s.step, h.value * factor), h.value * factor))
        arrived = good & reaches
        here = jets.where(good, after, s.amounts)
        now = jets.where(arrived, line.keep[g] * here + line.add[g], here)
        return _State(
            s.group + arrived,
            jnp.where(arrived, 0.0, jnp.where(good, s.since + lax.stop_gradient(h.value), s.since)),
            _like(now, s.amounts),
            jnp.where(good, jnp.maximum(largest, lax.stop_gradient(jnp.abs(now.value))), s.largest),
            longer,
            s.count + 1,
            ~good & (h.value < 1e-14 * span),
            jax.tree.map(lambda all, one: all.at[g].set(jnp.where(arrived, one, all[g])), s.before, _like(here, s.amounts)),
        )

    def going(s: _State) -> Any:
        return (s.group <= line.last) & (s.count < tolerance.max_steps) & ~s.stuck

    none, zero = jnp.array(0), jnp.zeros(())
    largest = lax.stop_gradient(jnp.abs(initial.value) + scale)

    def first_step(amounts: Jet) -> Jet:
        return line.keep[0] * step(field(0), line.time[0], amounts, line.elapsed[0])[0] + line.add[0]

    amounts = _like(initial, jax.eval_shape(first_step, initial))
    empty = jax.tree.map(lambda x: jnp.full((count, *x.shape), jnp.nan), amounts)
    start = _State(none, zero, amounts, largest, 1e-3 * span, none, jnp.array(False), empty)
    end = lax.while_loop(going, body, start)
    return Solution(end.before, end.count)


def _like(jet: Jet, other: Any) -> Jet:
    """The jet, with zeros for derivatives that the other has."""
    zeros: Jet = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), other)
    return jets.where(jnp.array(True), jet, zeros)
