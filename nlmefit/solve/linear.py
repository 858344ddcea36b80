"""Amounts of one subject in a system linear in its amounts, dA/dt = K A + b, from event to event and without error.

Between events amounts move by exp(K t): in closed form for one, two and three compartments, by the matrix exponential for any
other. All intervals are computed at once, then chained. Steady states are solved for, not approached.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nlmefit.solve import closed_form, matrix_exponential
from nlmefit.solve.arrivals import Arrivals
from nlmefit.solve.closed_form import Disposition
from nlmefit.solve.epochs import chosen
from nlmefit.solve.matrix_exponential import Flow
from nlmefit.solve.steady_linear import repeated, steady_state
from nlmefit.solve.timeline import Timeline, steady_doses, timeline

Amounts = Float[Array, " c"]


class AbstractLinear(eqx.Module):
    """dA/dt = K A + b with K and b constant."""

    @abc.abstractmethod
    def flow(self, rate: Amounts, time: Any) -> Flow:
        """exp(K t), and what an input `rate` makes of empty compartments in that time (b left out)."""

    @abc.abstractmethod
    def periodic(self, amounts: Amounts, interval: Any) -> Amounts:
        """(I - exp(K interval))^-1 amounts: what a series of them at that interval comes to."""

    @abc.abstractmethod
    def stationary(self, rate: Amounts) -> Amounts:
        """-K^-1 rate: what a constant input comes to."""

    @abc.abstractmethod
    def constant(self) -> Amounts | None:
        """b, where there is one."""

    def without(self, integrals: int) -> "AbstractLinear":
        """The system of the other compartments, which does not depend on the last `integrals`."""
        assert integrals == 0
        return self


@final
class ClosedForm(AbstractLinear):
    """One, two or three compartments, with or without a depot."""

    disposition: Disposition

    def flow(self, rate: Amounts, time: Any) -> Flow:
        columns = closed_form.propagate(self.disposition, jnp.eye(rate.shape[0]), jnp.broadcast_to(time, rate.shape))
        return Flow(columns.T, closed_form.infuse(self.disposition, rate, time))

    def periodic(self, amounts: Amounts, interval: Any) -> Amounts:
        return closed_form.steady_bolus(self.disposition, amounts, interval)

    def stationary(self, rate: Amounts) -> Amounts:
        return closed_form.steady_constant(self.disposition, rate)

    def constant(self) -> None:
        return None


@final
class MatrixExponential(AbstractLinear):
    """Any K; b may be None."""

    matrix: Float[Array, "c c"]
    input: Amounts | None

    def flow(self, rate: Amounts, time: Any) -> Flow:
        return matrix_exponential.flow(self.matrix, rate, time)

    def periodic(self, amounts: Amounts, interval: Any) -> Amounts:
        size = amounts.shape[0]
        transition = matrix_exponential.flow(self.matrix, jnp.zeros(size), interval).transition
        return jnp.linalg.solve(jnp.eye(size) - transition, amounts)

    def stationary(self, rate: Amounts) -> Amounts:
        return jnp.linalg.solve(-self.matrix, rate)

    def constant(self) -> Amounts | None:
        return self.input

    def without(self, integrals: int) -> "MatrixExponential":
        size = self.matrix.shape[0] - integrals
        return MatrixExponential(self.matrix[:size, :size], None if self.input is None else self.input[:size])


def amounts(
    system: Callable[[Mapping[str, Any]], AbstractLinear],
    p: Mapping[str, Any],
    arrivals: Arrivals | None,
    initial: Amounts,
    subject: Any,
    integrals: int = 0,
) -> Float[Array, "n c"]:
    """A(t) at the subject's rows. `system` builds the linear system from individual parameters; those in `p` are numbers, or
    vectors by epoch. The last `integrals` compartments have no steady state: they are 0 at its record."""
    states = None
    if arrivals is not None and arrivals.steady is not None:
        steady = steady_doses(arrivals)
        at_doses = p if steady.epoch is None else chosen(p, steady.epoch)
        doses = repeated(steady, initial.shape[0] - integrals)
        found = over(lambda q, dose: steady_state(system(q).without(integrals), dose, arrivals.overlap), at_doses, doses)
        states = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, integrals))), found)
    line = timeline(subject, arrivals, initial, states)
    return line.at_rows(_chained(system, p if line.epoch is None else chosen(p, line.epoch), line, initial))


def _chained(
    system: Callable[[Mapping[str, Any]], AbstractLinear], p: Mapping[str, Any], line: Timeline, initial: Amounts
) -> Any:
    """Amounts just before each group (g, c)."""

    def interval(q: Mapping[str, Any], rate: Amounts, time: Any) -> Flow:
        s = system(q)
        own = s.constant()
        return s.flow(rate if own is None else rate + own, time)

    flows = over(interval, p, line.rate, line.elapsed)

    def step(now: Amounts, group: tuple[Flow, Any, Any]) -> tuple[Amounts, Amounts]:
        flow, keep, add = group
        before = jnp.sum(flow.transition * now, axis=1) + flow.response
        return keep * before + add, before

    return lax.scan(step, initial, (flows, line.keep, line.add))[1]


def over(function: Callable[..., Any], p: Mapping[str, Any], *each: Any) -> Any:
    """`function(p, *x)` for each x; of p the values that are vectors go along, numbers are the same for all."""
    axes = {name: 0 if jnp.ndim(v) else None for name, v in p.items()}
    return jax.vmap(function, in_axes=(axes, *(0 for _ in each)))(p, *each)
