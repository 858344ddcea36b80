"""The steady state of repeated doses in any system: the amounts X that one interval of dosing leaves as they are, Phi(X) = X.

Found by Newton's method on Phi(X) - X, the flow's Jacobian by forward mode. Its derivatives in the parameters come from further
steps with that Jacobian held fixed: each makes one more order of them exact (the error of order h^k becomes one of h^(k+1)).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nlmefit.declare.solver import AbstractStepping
from nlmefit.solve.steady_linear import Repeated
from nlmefit.solve.timeline import Events, Timeline, grouped

NEWTON_STEPS = 60
EXACT_ORDERS = 3


class _Interval(NamedTuple):
    """What `grouped` reads of a subject, for one interval of dosing."""

    start: Any
    time: Any
    boundary: None = None


def steady_state(
    flow: Callable[[Timeline, Any, Any], Any],
    parameters: Any,
    guess: Any,
    dose: Repeated,
    overlap: int,
    tolerance: AbstractStepping,
) -> tuple[Any, Any]:
    """Amounts and inputs (c,) just before the record of a steady-state dose, by `flow(timeline, amounts, parameters)`, the
    amounts at the timeline's only row. NaN where no steady state is found (there may be none: a dose rate above the maximal
    elimination)."""
    line, inputs, known = _interval(dose, overlap)
    constant = lax.stop_gradient((line, parameters))  # the search itself has no derivative

    def after(amounts: Any) -> Any:
        return flow(constant[0], amounts, constant[1])

    found, jacobian, converged = _newton(lax.stop_gradient(guess), after, tolerance)
    frozen = jnp.eye(found.shape[0]) - jacobian

    def correct(_: Any, x: Any) -> Any:
        return x + jnp.linalg.solve(frozen, flow(line, x, parameters) - x)

    exact = lax.fori_loop(0, EXACT_ORDERS, correct, found)
    good = converged & known
    return jnp.where(good, exact, jnp.nan), jnp.where(good, inputs, jnp.nan)


def _interval(dose: Repeated, overlap: int) -> tuple[Timeline, Any, Any]:
    """One interval from the record on: the inputs that still run, the dose's arrival and the end of its infusion."""
    size, tau = dose.amount.shape[0], dose.interval
    running = dose.duration > 0
    rate = jnp.where(running, dose.amount / jnp.where(running, dose.duration, 1.0), 0.0)
    ends = [dose.lag + dose.duration - number * tau for number in range(1, overlap + 2)]
    inputs = rate * sum((end > 0).astype(float) for end in ends[:-1])
    stops = dose.lag + dose.duration
    stops = stops - tau * lax.stop_gradient(jnp.ceil(stops / tau) - 1.0)  # its place in (0, tau]
    nothing = jnp.zeros(size)
    events = Events(
        segment=jnp.zeros(4),
        time=jnp.stack([jnp.asarray(tau, float), jnp.zeros(()), jnp.asarray(dose.lag, float), jnp.where(running, stops, tau)]),
        rank=jnp.array([9.0, -9.0, 0.0, -2.0]),
        keep=jnp.ones(4),
        add=jnp.stack([nothing, nothing, jnp.where(running, 0.0, dose.amount), nothing]),
        rate=jnp.stack([nothing, inputs + dose.endless, rate, -rate]),
    )
    line = grouped(events, _Interval(jnp.zeros(()), jnp.reshape(jnp.asarray(tau, float), 1)))
    return line, inputs, ~running | (ends[-1] <= 0)


def _newton(guess: Any, after: Callable[[Any], Any], tolerance: AbstractStepping) -> tuple[Any, Any, Any]:
    """The fixed point, the flow's Jacobian there, and whether it was found.

    The first two passes look at the guess and at what one interval makes of it (a Newton step with Jacobian 0), so that the flow
    stands in the program once.
    """

    def expanded(x: Any) -> tuple[Any, Any]:
        def twice(x: Any) -> tuple[Any, Any]:
            y = after(x)
            return y, y

        jacobian, y = jax.jacfwd(twice, has_aux=True)(x)
        return y - x, jacobian

    def size(x: Any, gap: Any) -> Any:
        """The gap in units of the solver's own error, a tenfold of which is a steady state."""
        scale = tolerance.rtol * jnp.abs(x) + tolerance.atol * jnp.max(jnp.abs(x))
        return jnp.max(jnp.abs(gap) / jnp.maximum(scale, 1e-300))

    class State(NamedTuple):
        x: Any
        gap: Any
        jacobian: Any
        shrink: Any
        count: Any

    def body(s: State) -> State:
        step = jnp.linalg.solve(jnp.eye(s.x.shape[0]) - s.jacobian, s.gap)
        trial = s.x + s.shrink * step
        gap, jacobian = expanded(trial)
        better = (jnp.sum(jnp.abs(gap)) < jnp.sum(jnp.abs(s.gap))) | (size(trial, gap) < 10) | (s.count < 2)
        better &= jnp.all(jnp.isfinite(gap)) & jnp.all(jnp.isfinite(jacobian))
        jacobian = jnp.where(s.count == 0, 0.0, jacobian)
        pick = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        return State(
            pick(trial, s.x), pick(gap, s.gap), pick(jacobian, s.jacobian), jnp.where(better, 1.0, s.shrink / 2), s.count + 1
        )

    def going(s: State) -> Any:
        return (s.count < 2) | ((size(s.x, s.gap) > 1.0) & (s.count < NEWTON_STEPS) & (s.shrink > 1e-6))

    nothing = jnp.zeros((guess.shape[0],) * 2)
    end = lax.while_loop(going, body, State(guess, jnp.zeros_like(guess), nothing, jnp.ones(()), jnp.array(0)))
    return end.x, end.jacobian, size(end.x, end.gap) < 10
