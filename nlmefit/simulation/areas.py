"""Areas under the predictions, exactly: for each output f an added state X with dX/dt = f(t, A(t), p), X(0) = 0.

The states are solved for like any amount: by the matrix exponential where dynamics and prediction are linear in the amounts, else
along with them by the same steps. They see no dose and have no steady state; where the system is reset, they begin again at 0.
"""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from nlmefit.core.typing import Theta
from nlmefit.declare.dynamics import AbstractDynamics, Route
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.namespace import Values
from nlmefit.declare.solver import AbstractSolver, AbstractStepping, ClosedForm, MatrixExponential
from nlmefit.latent.distribution import mean_of
from nlmefit.simulation.outputs import AbstractShowing, certain
from nlmefit.solve.amounts import Kinetics, rate_matrix
from nlmefit.solve.amounts import amounts as solve
from nlmefit.solve.balance import integrals
from nlmefit.solve.choice import automatic

AREA = "area of "
"""Before an output's name: the site of its area."""


@final
class WithAreas(AbstractDynamics):
    """A model's dynamics with a compartment for the area under each of some outputs behind its own."""

    def __init__(self, model: AbstractModel, of: tuple[str, ...]):
        self._model, self._own, self._of = model, model.specification.dynamics, of

    @property
    def compartments(self) -> tuple[str, ...]:
        own = () if self._own is None else self._own.compartments
        return (*own, *(AREA + name for name in self._of))

    @property
    def parameters(self) -> tuple[str, ...]:
        return () if self._own is None else self._own.parameters

    @property
    def integrals(self) -> int:
        return len(self._of)

    def derivatives(self, t: Any, A: Values, p: Values) -> dict[str, Any]:
        own = {} if self._own is None else {name: A[name] for name in self._own.compartments}
        rates = {} if self._own is None else dict(self._own.derivatives(t, own, p))
        predicted = self._model.predictions(t, own, p)
        return rates | {AREA + name: mean_of(predicted[name]) for name in self._of}

    def initial(self, p: Values) -> dict[str, Any]:
        return {} if self._own is None else self._own.initial(p)

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        return {} if self._own is None else self._own.routes(p)


def _began(subject: Any) -> Float[Array, "n"]:
    """When each row's segment began: at the first record, or at the last reset before it."""
    same = subject.segment[:, None] == subject.segment
    return jnp.min(jnp.where(same, subject.time, jnp.inf), axis=1)


@final
class AreaModel(AbstractShowing):
    """A population model that observes the areas under its predictions from the first record on, and the predictions."""

    of: tuple[str, ...] = eqx.field(static=True)
    """The outputs whose areas are wanted: each costs a state, and one that is infinite somewhere would spoil the others."""

    def structure(self) -> Hashable:
        return self.own.structure(), "areas", self.of

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        model = self.own.model
        predicted = self.own.predict(theta, eta, subject, model.amounts_read)[0]
        areas = self._areas(theta, eta, subject)
        found = {name: predicted[name] for name in self.of}
        found |= {AREA + name: areas[:, i] for i, name in enumerate(self.of)}
        return {name: certain(value, subject) for name, value in found.items()}

    @property
    def solves_ode(self) -> bool:
        return True

    def _areas(self, theta: Theta, eta: Array, subject: Any) -> Float[Array, "n e"]:
        """By mass balance where amounts have a closed form and the predictions are linear in them, else as added states."""
        dynamics = WithAreas(self.own.model, self.of)
        kinetics, solver = self._kinetics(dynamics, theta, eta, subject), self._solver(dynamics, subject)
        own, count = self.own.model.specification.dynamics, dynamics.integrals
        inside = None
        if own is not None and isinstance(self.own._solver, ClosedForm) and isinstance(solver, MatrixExponential):
            inside = integrals(replace(kinetics, dynamics=own))
        if inside is not None:
            system = rate_matrix(dynamics, kinetics.p)
            constant = jnp.zeros(count) if system.input is None else system.input[-count:]
            return inside @ system.matrix[-count:, :-count].T + (subject.time - _began(subject))[:, None] * constant
        return solve(kinetics, solver, dynamics.compartments)[:, -count:]

    def _kinetics(self, dynamics: WithAreas, theta: Theta, eta: Array, subject: Any) -> Kinetics:
        model = self.own.model
        p = self.own._individual(theta, eta, subject, None, None)
        kinetics = self.own._kinetics((theta, eta), subject) if model.specification.dynamics is not None else None
        if kinetics is None:
            return Kinetics(dynamics, p, {}, {}, eqx.tree_at(lambda s: s.doses, subject, None, is_leaf=lambda x: x is None))
        return Kinetics(dynamics, p, kinetics.dosing, kinetics.initial, kinetics.subject, kinetics.along)

    def _solver(self, dynamics: WithAreas, subject: Any) -> AbstractSolver:
        if isinstance(self.own.solver, AbstractStepping):
            return self.own.solver
        spec = self.own.model.specification
        names = [*spec.typical, *self.own.model.covariates]
        return automatic(dynamics, names, subject.course is not None)
