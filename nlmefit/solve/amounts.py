"""Amounts of one subject from individual parameters: the solver that a model asks for, or the automatic choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.solver import AbstractSolver, AbstractStepping, ClosedForm, Diffrax, MatrixExponential, Rosenbrock
from nlmefit.solve import diffrax_driver, linear, ode, superposition
from nlmefit.solve.arrivals import Arrivals, arrivals
from nlmefit.solve.epochs import chosen, constant
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
    assert isinstance(solver, AbstractStepping)
    return _stepped(kinetics, solver, coming, initial)[0][:, jnp.asarray(places)]


def steps(kinetics: Kinetics, solver: AbstractStepping) -> Int[Array, ""]:
    """How many steps the subject takes; the most that the solver tries where it gives up."""
    coming, initial = prepared(kinetics)
    return _stepped(kinetics, solver, coming, initial)[1]


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


def vector_field(dynamics: AbstractDynamics, t: Any, A: Any, p: Parameters) -> Any:
    """dA/dt as a vector, in the order of the compartments."""
    rates = dynamics.derivatives(t, dict(zip(dynamics.compartments, A, strict=True)), p)
    return jnp.stack([jnp.asarray(rates[name], float) for name in dynamics.compartments])


def rate_matrix(dynamics: AbstractDynamics, p: Parameters) -> linear.MatrixExponential:
    """K and b of dynamics that are linear in the amounts."""

    def twice(A: Any) -> tuple[Any, Any]:
        rate = vector_field(dynamics, 0.0, A, p)
        return rate, rate

    matrix, rate = jax.jacfwd(twice, has_aux=True)(jnp.zeros(len(dynamics.compartments)))
    return linear.MatrixExponential(matrix, rate)


def _stepped(kinetics: Kinetics, solver: AbstractStepping, coming: Arrivals | None, initial: Any) -> tuple[Any, Any]:
    """Amounts at the rows, and the number of steps."""
    states = None
    if coming is not None and coming.steady is not None:
        states = _steady_states(kinetics, solver, coming, initial)
    line = timeline(kinetics.subject, coming, initial, states, stops=True)
    by_group = kinetics.p if line.epoch is None else chosen(kinetics.p, line.epoch)
    gamma = None if coming is None or coming.transit is None else _gamma_input(coming, initial.shape[0])

    def derivative(t: Any, A: Any, group: Any) -> Any:
        p: Parameters = {name: v[group] if jnp.ndim(v) else v for name, v in by_group.items()}
        if kinetics.along is not None:
            p = kinetics.along(t, None if line.epoch is None else line.epoch[group])
        rate = vector_field(kinetics.dynamics, t, A, p) + line.rate[group]
        return rate if gamma is None else rate + gamma(t, line.segment[group])

    found = _solution(derivative, solver, line, initial, _to_come(coming, initial.shape[0]))
    return line.at_rows(found.before), found.steps


def _solution(
    derivative: ode.Derivative, solver: AbstractStepping, line: Timeline, initial: Any, scale: Any = 0.0
) -> ode.Solution:
    if isinstance(solver, Diffrax):
        return diffrax_driver.integrate(derivative, solver, line, initial, scale)
    step = rodas5p if isinstance(solver, Rosenbrock) else tsit5
    return ode.integrate(derivative, step, ORDER, line, initial, solver, scale)


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

        def derivative(t: Any, A: Any, group: Any) -> Any:
            return vector_field(kinetics.dynamics, start + t, jnp.pad(A, (0, integrals)), p)[:kept] + line.rate[group]

        return line.at_rows(_solution(derivative, solver, line, amounts).before)[0]

    def one(p: Parameters, time: Any, dose: Repeated) -> tuple[Any, Any]:
        return steady_state(flow, (p, time), initial[:kept], dose, coming.overlap, solver)

    found = linear.over(one, at_doses, doses.known, repeated(doses, kept))
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, integrals))), found)


def _gamma_input(doses: Arrivals, size: int) -> Callable[[Any, Any], Any]:
    """(t, segment) -> input (c,) of all doses that arrive as gamma densities of the time since them (Savic 2007)."""
    assert doses.transit is not None
    n, rate = doses.transit
    through = n > -1
    shape = jnp.where(through, n, 0.0)
    whole = jnp.log(jnp.where(through, rate, 1.0)) * (shape + 1.0) - jax.lax.lgamma(shape + 1.0)
    into = jnp.where(doses.compartment[:, None] == jnp.arange(size), doses.amount[:, None], 0.0)

    def at(t: Any, segment: Any) -> Any:
        since = t - doses.time
        arrived = through & (doses.segment == segment) & (since > 0)
        s = jnp.where(arrived, since, 1.0)
        density = jnp.where(arrived, jnp.exp(whole + shape * jnp.log(s) - rate * s), 0.0)
        return jnp.sum(into * density[:, None], axis=0)

    return at
