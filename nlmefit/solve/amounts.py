"""Amounts of one subject from individual parameters: the solver that a model asks for, or the automatic choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.solver import (
    AbstractSolver,
    AbstractStepping,
    ClosedForm,
    Diffrax,
    MatrixExponential,
    Rosenbrock,
    RungeKutta,
)
from nlmefit.solve import diffrax_driver, jets, linear, ode, superposition
from nlmefit.solve.arrivals import Arrivals, arrivals
from nlmefit.solve.epochs import chosen, constant
from nlmefit.solve.jets import Jet
from nlmefit.solve.rosenbrock import rodas5p
from nlmefit.solve.runge_kutta import ORDER, tsit5
from nlmefit.solve.steady_linear import Repeated, repeated
from nlmefit.solve.steady_ode import steady_state
from nlmefit.solve.timeline import Timeline, steady_doses, timeline

Parameters = Mapping[str, Any]
"""Individual parameters and covariates that enter the amounts: numbers, or vectors by epoch."""


@dataclass(frozen=True)
class Kinetics:
    """What has to be solved for one subject."""

    dynamics: AbstractDynamics
    p: Parameters
    dosing: Mapping[str, Dosing]
    initial: Mapping[str, Any]
    subject: Any
    along: Callable[[Any, Any], Parameters] | None = None
    """The parameters as a function of time and epoch, where covariates run linearly between records."""


def amounts(kinetics: Kinetics, solver: AbstractSolver, wanted: Sequence[str]) -> Float[Array, "n w"]:
    """A(t) of the wanted compartments at the subject's rows."""
    names = kinetics.dynamics.compartments
    places = [names.index(name) for name in wanted]
    if not wanted:
        return jnp.zeros((kinetics.subject.time.shape[0], 0))
    if carries_derivatives(solver):
        return stepped(lambda x: kinetics, jnp.zeros(0), solver, 0)[0].value[:, jnp.asarray(places)]
    coming, initial = prepared(kinetics)
    dynamics, p, subject = kinetics.dynamics, kinetics.p, kinetics.subject
    if isinstance(solver, ClosedForm):
        assert isinstance(dynamics, AbstractCompartments)
        if superposes(kinetics, coming):
            return superposition.amounts(dynamics, p, coming, subject, places)
        return linear.amounts(partial(_closed_form, dynamics), p, coming, initial, subject)[:, jnp.asarray(places)]
    if isinstance(solver, MatrixExponential):
        found = linear.amounts(partial(rate_matrix, dynamics), p, coming, initial, subject, dynamics.integrals)
        return found[:, jnp.asarray(places)]
    assert isinstance(solver, Diffrax)
    return _by_diffrax(kinetics, solver)[:, jnp.asarray(places)]


def carries_derivatives(solver: AbstractSolver) -> TypeGuard[RungeKutta | Rosenbrock]:
    """Whether the solver computes derivatives along with the amounts."""
    return isinstance(solver, RungeKutta | Rosenbrock)


def expanded_amounts(
    kinetics: Callable[[Array], Kinetics],
    center: Float[Array, "k"],
    solver: AbstractSolver,
    wanted: Sequence[str],
    order: int,
) -> Jet:
    """A(t) of the wanted compartments at the subject's rows (n, w), with its derivatives in what the kinetics are made from, up
    to that order (2 at most)."""
    if not carries_derivatives(solver):
        return jets.expanded(lambda x: amounts(kinetics(x), solver, wanted), center, order)
    names = kinetics(center).dynamics.compartments
    return stepped(kinetics, center, solver, order)[0][:, np.array([names.index(name) for name in wanted])]


def steps(kinetics: Kinetics, solver: AbstractStepping) -> Int[Array, ""]:
    """How many steps the subject takes; the most that the solver tries where it gives up."""
    assert carries_derivatives(solver)
    return stepped(lambda x: kinetics, jnp.zeros(0), solver, 0)[1]


def prepared(kinetics: Kinetics) -> tuple[Arrivals | None, Float[Array, " c"]]:
    """The subject's doses as they arrive, and its initial amounts."""
    names, doses = kinetics.dynamics.compartments, kinetics.subject.doses
    routes = kinetics.dynamics.routes(kinetics.p)
    coming = None if doses is None else arrivals(names, kinetics.dosing, routes, doses)
    return coming, jnp.stack([jnp.asarray(kinetics.initial.get(name, 0.0), float) for name in names])


def superposes(kinetics: Kinetics, coming: Arrivals | None) -> bool:
    """Whether the subject's amounts are a plain sum of its doses' responses."""
    if not constant(kinetics.p) or kinetics.initial:
        return False
    return coming is None or coming.steady is None or coming.overlap <= 1


def _closed_form(dynamics: AbstractCompartments, p: Parameters) -> linear.ClosedForm:
    return linear.ClosedForm(superposition.disposition(dynamics, p))


def vector_field(dynamics: AbstractDynamics, t: Any, A: Any, p: Parameters) -> tuple[Any, ...]:
    """dA/dt by compartment, in their order."""
    rates = dynamics.derivatives(t, dict(zip(dynamics.compartments, A, strict=True)), p)
    return tuple(jnp.asarray(rates[name], float) for name in dynamics.compartments)


def rate_matrix(dynamics: AbstractDynamics, p: Parameters) -> linear.MatrixExponential:
    """K and b of dynamics that are linear in the amounts."""

    def twice(A: Any) -> tuple[Any, Any]:
        rate = jnp.stack(vector_field(dynamics, 0.0, A, p))
        return rate, rate

    matrix, rate = jax.jacfwd(twice, has_aux=True)(jnp.zeros(len(dynamics.compartments)))
    return linear.MatrixExponential(matrix, rate)


def stepped(
    kinetics: Callable[[Array], Kinetics], center: Float[Array, "k"], solver: RungeKutta | Rosenbrock, order: int
) -> tuple[Jet, Int[Array, ""]]:
    """Amounts at the rows (n, c), with their derivatives in x around the center, and the number of steps."""

    def prepare(x: Array) -> tuple[Any, ...]:
        made = kinetics(x)
        line, initial, coming = _events(made, solver)
        p = made.p if line.epoch is None else chosen(made.p, line.epoch)
        doses = None if coming is None or coming.transit is None else GammaInput.of(coming, initial.shape[0])
        return line, initial, (None if made.along else p), (x if made.along else None), doses, _to_come(coming, initial.shape[0])

    line, initial, by_group, x, doses, scale = jets.expanded(prepare, center, order)
    dynamics = kinetics(center).dynamics

    def field(g: Any) -> ode.Field:
        epoch, segment = None if line.epoch is None else line.epoch[g], line.segment[g].value

        def rates(t: Any, A: tuple[Any, ...], given: Any) -> tuple[Any, ...]:
            p, x, doses = given
            if x is not None:
                along = kinetics(x).along
                assert along is not None
                p = along(t, epoch)
            found = vector_field(dynamics, t, A, p)
            return found if doses is None else tuple(a + b for a, b in zip(found, doses.at(t, segment), strict=True))

        p = None if by_group is None else {name: v[g] if v.value.ndim else v for name, v in by_group.items()}
        return ode.Field(rates, (p, x, doses), line.rate[g])

    step = rodas5p if isinstance(solver, Rosenbrock) else tsit5
    found = ode.integrate(field, step, ORDER, line, initial, solver, scale.value)
    return line.at_rows(found.before), found.steps


def _events(kinetics: Kinetics, solver: AbstractStepping) -> tuple[Timeline, Float[Array, " c"], Arrivals | None]:
    coming, initial = prepared(kinetics)
    states = None
    if coming is not None and coming.steady is not None:
        states = _steady_states(kinetics, solver, coming, initial)
    return timeline(kinetics.subject, coming, initial, states, stops=True), initial, coming


def _by_diffrax(kinetics: Kinetics, solver: Diffrax) -> Float[Array, "n c"]:
    line, initial, coming = _events(kinetics, solver)
    by_group = kinetics.p if line.epoch is None else chosen(kinetics.p, line.epoch)
    size = initial.shape[0]
    doses = None if coming is None or coming.transit is None else GammaInput.of(coming, size)

    def derivative(t: Any, A: Any, group: Any) -> Any:
        p: Parameters = {name: v[group] if jnp.ndim(v) else v for name, v in by_group.items()}
        if kinetics.along is not None:
            p = kinetics.along(t, None if line.epoch is None else line.epoch[group])
        rate = jnp.stack(vector_field(kinetics.dynamics, t, A, p)) + line.rate[group]
        return rate if doses is None else rate + jnp.stack(doses.at(t, line.segment[group]))

    return line.at_rows(diffrax_driver.integrate(derivative, solver, line, initial, _to_come(coming, size)))


def _to_come(coming: Arrivals | None, size: int) -> Any:
    """The largest dose (c,) that arrives by transit: a system that is empty until then has no other scale."""
    if coming is None or coming.transit is None:
        return 0.0
    into = (coming.compartment[:, None] == jnp.arange(size)) & (coming.transit[0] > -1)[:, None]
    return jnp.max(jnp.where(into, coming.amount[:, None], 0.0), axis=0)


def _steady_states(kinetics: Kinetics, solver: AbstractStepping, coming: Arrivals, initial: Any) -> tuple[Any, Any]:
    """Amounts and inputs at the records of steady-state doses; parameters are those of the dose's record. Integrals are 0."""
    doses = steady_doses(coming)
    integrals = kinetics.dynamics.integrals
    kept = initial.shape[0] - integrals
    at_doses = kinetics.p if doses.epoch is None else chosen(kinetics.p, doses.epoch)

    def flow(line: Timeline, amounts: Any, given: tuple[Parameters, Any]) -> Any:
        p, start = given

        def rates(t: Any, A: tuple[Any, ...], _: None) -> tuple[Any, ...]:
            return vector_field(kinetics.dynamics, start + t, (*A, *[jnp.zeros(())] * integrals), p)[:kept]

        if isinstance(solver, Diffrax):
            by_diffrax = diffrax_driver.integrate(
                lambda t, A, group: jnp.stack(rates(t, A, None)) + line.rate[group], solver, line, amounts
            )
            return line.at_rows(by_diffrax)[0]
        step, known = rodas5p if isinstance(solver, Rosenbrock) else tsit5, jets.constants(line)
        found = ode.integrate(lambda g: ode.Field(rates, None, known.rate[g]), step, ORDER, known, Jet(amounts), solver)
        return known.at_rows(found.before).value[0]

    def one(p: Parameters, time: Any, dose: Repeated) -> tuple[Any, Any]:
        return steady_state(flow, (p, time), initial[:kept], dose, coming.overlap, solver)

    found = linear.over(one, at_doses, doses.known, repeated(doses, kept))
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, integrals))), found)


class GammaInput(NamedTuple):
    """Doses (d,) that arrive as gamma densities of the time since them (Savic 2007)."""

    time: Any
    segment: Any
    into: Any
    """(d, c): amounts."""
    shape: Any
    rate: Any
    whole: Any
    """log of the density's constant."""

    @classmethod
    def of(cls, doses: Arrivals, size: int) -> "GammaInput":
        assert doses.transit is not None
        n, rate = doses.transit
        through = n > -1
        shape, rate = jnp.where(through, n, 0.0), jnp.where(through, rate, 1.0)
        whole = jnp.log(rate) * (shape + 1.0) - jax.lax.lgamma(shape + 1.0)
        into = jnp.where((doses.compartment[:, None] == jnp.arange(size)) & through[:, None], doses.amount[:, None], 0.0)
        return cls(doses.time, doses.segment, into, shape, rate, whole)

    def at(self, t: Any, segment: Any) -> tuple[Any, ...]:
        """Input into each compartment."""
        since = t - self.time
        arrived = (self.segment == segment) & (since > 0)
        s = jnp.where(arrived, since, 1.0)
        density = jnp.where(arrived, jnp.exp(self.whole + self.shape * jnp.log(s) - self.rate * s), 0.0)
        return tuple(jnp.sum(self.into[:, m] * density) for m in range(self.into.shape[1]))
