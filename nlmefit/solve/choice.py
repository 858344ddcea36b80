"""Which solver a model's dynamics allow, read off their traced computation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nlmefit.core.dependence import reached
from nlmefit.core.errors import ModelError
from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.solver import AbstractSolver, ClosedForm, MatrixExponential, RungeKutta
from nlmefit.solve.amounts import vector_field


def automatic(dynamics: AbstractDynamics, names: Sequence[str], running: bool = False) -> AbstractSolver:
    """Closed form, else matrix exponential, else Runge-Kutta. `names` are the parameters and covariates that the dynamics read;
    `running` says that some of them run linearly between records, which neither of the first two can follow."""
    if running or has_transit(dynamics, names):
        return RungeKutta()
    if isinstance(dynamics, AbstractCompartments) and dynamics.closed_form:
        return ClosedForm()
    return MatrixExponential() if is_linear(dynamics, names) else RungeKutta()


def check_solver(model: AbstractModel) -> None:
    """ModelError where the model asks for a solver that its dynamics do not allow."""
    spec = model.specification
    name, dynamics = type(model).__name__, spec.dynamics
    if dynamics is None:
        return
    if isinstance(spec.solver, ClosedForm) and not (isinstance(dynamics, AbstractCompartments) and dynamics.closed_form):
        raise ModelError(
            f"{name}: nm.ClosedForm() is for nm.OneCompartment, nm.TwoCompartment and nm.ThreeCompartment with first-order, "
            "zero-order or no absorption. Leave out `solver`: the choice is then automatic."
        )
    if isinstance(spec.solver, MatrixExponential):
        if has_transit(dynamics, model.dynamics_reads):
            raise ModelError(
                f"{name}: nm.MatrixExponential() cannot follow doses that arrive as a gamma density. Leave out `solver`."
            )
        if not is_linear(dynamics, model.dynamics_reads):
            raise ModelError(
                f"{name}: nm.MatrixExponential() needs dynamics that are linear in the amounts, with coefficients that depend "
                "neither on them nor on t; these are not. Leave out `solver`."
            )


def has_transit(dynamics: AbstractDynamics, names: Sequence[str]) -> bool:
    """Whether doses arrive as gamma densities, which depend on the time since each dose."""
    routes = dynamics.routes(dict.fromkeys(names, 1.0))
    return any(route.transit is not None for routes_ in routes.values() for route in routes_)


def is_linear(dynamics: AbstractDynamics, names: Sequence[str]) -> bool:
    """Whether dA/dt = K A + b with K and b the same at all times: the Jacobian in the amounts depends neither on them nor on
    time, and nor does b on time. Decided by what each number is computed from, not by trying values."""
    size = len(dynamics.compartments)

    def jacobian(t: Any, A: Any, p: Any) -> Any:
        return jax.jacfwd(lambda A: jnp.stack(vector_field(dynamics, t, A, dict(zip(names, p, strict=True)))))(A)

    def at_zero(t: Any, p: Any) -> Any:
        return jnp.stack(vector_field(dynamics, t, jnp.zeros(size), dict(zip(names, p, strict=True))))

    p = [1.0] * len(names)
    moved = depends(lambda t, A: jacobian(t, A, p), 1.0, jnp.ones(size))
    return not any(moved) and not any(depends(lambda t: at_zero(t, p), 1.0))


def depends(function: Callable[..., Any], *arguments: Any) -> list[bool]:
    """By output: whether it is computed from any of the arguments."""
    return reached(jax.make_jaxpr(function)(*arguments).jaxpr)


def depending(function: Callable[[Any], Mapping[str, Any]], argument: Any) -> list[str]:
    """The names of the values that are computed from the argument."""
    names: list[str] = []

    def values(x: Any) -> list[Any]:
        found = function(x)
        names[:] = found
        return [jnp.asarray(v) for v in found.values()]

    return [name for name, used in zip(names, depends(values, argument), strict=True) if used]
