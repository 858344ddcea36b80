"""Ordinary differential equations whose field is a network: how they are solved, and differentiated.

    dz/dt = f(t, z; theta),        z(T1) = z(T0) + int_T0^T1 f(t, z(t); theta) dt

A residual network z + f(z) is one step of Euler's of length 1 (Chen et al. 2018, Neural Ordinary Differential Equations). Solvers
are values; states z and parameters theta may be any PyTrees of arrays, and times may run backward.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds

Field = Callable[[Any, Any, Any], Any]
"""f(t, z, theta) -> dz/dt."""
Gradient = Literal["checkpointed", "backsolve"]

MOST_STEPS = 4096
"""Steps of an adaptive solver; one that needs more gives NaN."""


class AbstractSolver(abc.ABC):
    """How an equation is solved; a hashable value."""

    @abc.abstractmethod
    def solve(self, field: Field, z: Any, theta: Any, start: Any, end: Any) -> Any:
        """z(end) from z(start) = z, differentiable in z and theta."""

    def path(self, field: Field, z: Any, theta: Any, times: Float[Array, "T"]) -> Any:
        """z at each of the times, from z(times[0]) = z; steps do not reach over them."""

        def on(z: Any, stretch: tuple[Array, Array]) -> tuple[Any, Any]:
            z = self.solve(field, z, theta, *stretch)
            return z, z

        _, later = jax.lax.scan(on, z, (times[:-1], times[1:]))
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), z, later)


@final
@dataclass(frozen=True)
class Euler(AbstractSolver):
    """`steps` equal steps z + h f(t, z). Raises MethodError unless that is a whole number from 1 up."""

    steps: int = 1

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("steps", self.steps, 1)

    def solve(self, field: Field, z: Any, theta: Any, start: Any, end: Any) -> Any:
        return _fixed(lambda t, h, z: _moved(z, h, field(t, z, theta)), z, start, end, self.steps)


@final
@dataclass(frozen=True)
class RungeKutta(AbstractSolver):
    """`steps` equal steps of the classical method of order 4 (Kutta 1901), four evaluations of f each.

    Raises MethodError unless that is a whole number from 1 up.
    """

    steps: int = 8

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("steps", self.steps, 1)

    def solve(self, field: Field, z: Any, theta: Any, start: Any, end: Any) -> Any:
        def step(t: Any, h: Any, z: Any) -> Any:
            a = field(t, z, theta)
            b = field(t + h / 2, _moved(z, h / 2, a), theta)
            c = field(t + h / 2, _moved(z, h / 2, b), theta)
            d = field(t + h, _moved(z, h, c), theta)
            return _moved(z, h, jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, a, b, c, d))

        return _fixed(step, z, start, end, self.steps)


@final
@dataclass(frozen=True)
class Adaptive(AbstractSolver):
    """Dormand and Prince's method of order 5 (1980) with steps chosen for errors within `tolerance`, absolute and relative, by
    diffrax. Over 4096 steps give NaN.

    `gradient` is "checkpointed", of the steps taken (exact, memory grows with the logarithm of their number), or "backsolve", by
    the adjoint equations (memory that does not grow; see `adjoint`). Raises MethodError for options out of range.
    """

    tolerance: float = 1e-5
    gradient: Gradient = "checkpointed"

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 0 < self.tolerance < 1:
            raise MethodError(f"tolerance must be a number between 0 and 1, got {self.tolerance!r}.")
        if self.gradient not in get_args(Gradient):
            raise MethodError(f"gradient must be 'checkpointed' or 'backsolve', got {self.gradient!r}.")

    def solve(self, field: Field, z: Any, theta: Any, start: Any, end: Any) -> Any:
        backsolve = self.gradient == "backsolve"
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            start,
            end,
            None,
            z,
            theta,
            stepsize_controller=diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance),
            adjoint=diffrax.BacksolveAdjoint() if backsolve else diffrax.RecursiveCheckpointAdjoint(),
            max_steps=MOST_STEPS,
            throw=False,
        )
        solved = solution.result == diffrax.RESULTS.successful
        return jax.tree.map(lambda z: jnp.where(solved, z[-1], jnp.nan), solution.ys)


def _fixed(step: Callable[[Any, Any, Any], Any], z: Any, start: Any, end: Any, steps: int) -> Any:
    h = (end - start) / steps
    return jax.lax.fori_loop(0, steps, lambda k, z: step(start + k * h, h, z), z)


def _moved(z: Any, h: Any, slope: Any) -> Any:
    return jax.tree.map(lambda z, s: z + jnp.asarray(h, z.dtype) * s, z, slope)


class Adjoint(NamedTuple):
    """Gradients of a loss L(z(T1)) in what z(T1) follows from."""

    z: Any
    """dL/dz(T0)."""
    theta: Any
    start: Scalar
    """dL/dT0."""
    end: Scalar


def adjoint(field: Field, z: Any, slope: Any, theta: Any, start: Any, end: Any, solver: AbstractSolver) -> Adjoint:
    """Gradients by the adjoint equations (Pontryagin; Chen et al. 2018), from z = z(T1) and slope = dL/dz(T1): backward in time

        dz/dt = f,    da/dt = -a' df/dz,    da_theta/dt = -a' df/dtheta,        a(T1) = slope, a_theta(T1) = 0

    a(T0) and a_theta(T0) are dL/dz(T0) and dL/dtheta; dL/dT1 = a(T1)' f(T1) and dL/dT0 = -a(T0)' f(T0). No state between is kept.
    """
    weights, rest = eqx.partition(theta, eqx.is_inexact_array)

    def back(t: Any, state: Any, weights: Any) -> Any:
        z, a, _ = state
        dz, pull = jax.vjp(lambda z, w: field(t, z, eqx.combine(w, rest)), z, weights)
        by_z, by_theta = pull(a)
        return dz, jax.tree.map(jnp.negative, by_z), jax.tree.map(jnp.negative, by_theta)

    state = (z, slope, jax.tree.map(jnp.zeros_like, weights))
    first, a, by_theta = solver.solve(back, state, weights, end, start)
    return Adjoint(a, by_theta, -_inner(a, field(start, first, theta)), _inner(slope, field(end, z, theta)))


def _inner(a: Any, b: Any) -> Scalar:
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), a, b)), jnp.zeros(()))
