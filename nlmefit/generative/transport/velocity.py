"""Velocity fields: models that carry data to a source of noise along an ordinary differential equation, and back.

dx/dt = v(x, t; c),        x(0) the data, x(1) the source
"""

import abc
from typing import Any, ClassVar, Self, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import DataError, ModelError
from nlmefit.core.networks import MLP
from nlmefit.core.options import brief
from nlmefit.core.typing import Scalar
from nlmefit.generative.capability import AbstractSampler, in_blocks
from nlmefit.generative.flows.bijections import Affine
from nlmefit.generative.rows import Samples, matrix
from nlmefit.generative.transport.neural_ode import AbstractSolver, Adaptive


@final
class Dynamics(eqx.Module):
    """du/dt = network(u, t, c) of standardised x and c."""

    network: eqx.nn.MLP
    frame: Affine
    """u = (x - shift) exp(-log_scale), a constant."""
    condition: Affine

    @classmethod
    def of(cls, network: MLP, data: Samples, frame: Affine, key: Array) -> "Dynamics":
        size, conditions = data.x.shape[1], data.given.shape[1]
        return cls(network.build(size + 1 + conditions, size, key), frame, Affine.standardizing(data.given))

    def slope(self, t: Any, u: Float[Array, "D"], given: Float[Array, "C"]) -> Float[Array, "D"]:
        """du/dt."""
        c = self.condition.forward(given, given)[0]
        return self.network(jnp.concatenate([u, jnp.reshape(jnp.asarray(t, u.dtype), 1), c.astype(u.dtype)]))

    def inner(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        """u of x."""
        return (x - self.frame.shift) * jnp.exp(-self.frame.log_scale)

    def outer(self, u: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        """x of u."""
        return u * jnp.exp(self.frame.log_scale) + self.frame.shift


class AbstractVelocity(AbstractSampler):
    """Has a velocity field that carries data (t = 0) to a source (t = 1)."""

    dynamics: eqx.AbstractVar[Dynamics | None]
    solver: eqx.AbstractVar[AbstractSolver]

    @abc.abstractmethod
    def draw_source(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        """One u at t = 1, standardised."""

    @property
    def dimension(self) -> int | None:
        return None if self.dynamics is None else len(self.dynamics.frame.shift)

    @property
    def conditions(self) -> int:
        return 0 if self.dynamics is None else len(self.dynamics.condition.shift)

    def velocity(self, x: Float[Array, "D"], t: Any, given: Float[Array, "C"]) -> Float[Array, "D"]:
        """dx/dt."""
        assert self.dynamics is not None
        return self.dynamics.slope(t, self.dynamics.inner(x), given) * jnp.exp(self.dynamics.frame.log_scale)

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        assert self.dynamics is not None
        u = self.draw_source(key, given)
        return self.dynamics.outer(self.solver.solve(_slope, u, (self.dynamics, given), 1.0, 0.0))

    def velocity_at(self, X: Any, t: float, *, given: Any = None) -> Float[np.ndarray, "N D"]:
        """v(x_i, t; c_i) by row, in units of x. Raises DataError unless 0 <= t <= 1."""
        X = self._rows(X)
        times = np.full(len(X), _times("t", [t])[0])
        return in_blocks(_velocity, self, X, times, self._given(given, len(X)))

    def paths(self, X: Any, times: Any, *, given: Any = None) -> Float[np.ndarray, "T N D"]:
        """Where rows that are at X at times[0] are at each of the times, which rise or fall between 0 and 1.

        Raises DataError for other times. NaN where the equation could not be solved.
        """
        X = self._rows(X)
        times = _times("times", times)
        stretches = np.broadcast_to(times, (len(X), len(times)))
        return np.moveaxis(in_blocks(_path, self, X, stretches, self._given(given, len(X))), 1, 0)

    def from_source(self, Z: Any, *, given: Any = None) -> Float[np.ndarray, "N D"]:
        """Where the flow takes rows of the source (t = 1): samples of the model, if Z are of its source."""
        return self.paths(Z, [1.0, 0.0], given=given)[-1]

    def to_source(self, X: Any, *, given: Any = None) -> Float[np.ndarray, "N D"]:
        """Where the flow takes rows of data (t = 0)."""
        return self.paths(X, [0.0, 1.0], given=given)[-1]

    def using(self, solver: AbstractSolver) -> Self:
        """The same model, its equation solved otherwise: `model.using(gen.Euler(1)).sample(100)`."""
        return eqx.tree_at(
            lambda model: model.solver, self, check_solver(solver), is_leaf=lambda x: isinstance(x, AbstractSolver)
        )


@final
class VelocityField(AbstractVelocity):
    """A flow from any source that there are samples of to the data (Liu et al. 2023, Lipman et al. 2023, Albergo and
    Vanden-Eijnden 2023):

        dx/dt = v(x, t; c),    x(1) a random row of `source`, x(0) the data

    For a normal source, and log p(x), use `gen.CNF`. Lengths are measured in one unit for all columns, which leaves the optimal
    transport as it is.

    **Everyday arguments:** `source` a matrix with a row per sample; `network` of (x, t, c).

    **Others:** `solver` of the equation, `gen.Adaptive(...)`, `gen.RungeKutta(...)` or `gen.Euler(...)`.

    Fitted by `gen.FlowMatching(...)`. Raises DataError for a source that is not finite or has not as many columns as the data.
    """

    fitted_by: ClassVar[tuple[str, ...]] = ("FlowMatching",)

    source: Float[np.ndarray, "M D"]  # type: ignore[misc]
    network: MLP = eqx.field(static=True, default_factory=MLP)
    solver: AbstractSolver = eqx.field(default_factory=Adaptive)
    dynamics: Dynamics | None = None

    def __init__(self, source: Any, network: MLP | None = None, solver: AbstractSolver | None = None, dynamics: Any = None):
        self.source = matrix("source", source)
        self.network = MLP() if network is None else network
        if not isinstance(self.network, MLP):
            raise ModelError(f"VelocityField(network=...) must be gen.MLP(...), got {brief(network)}.")
        self.solver = check_solver(Adaptive() if solver is None else solver)
        self.dynamics = dynamics

    def built(self, data: Samples, key: Array) -> "VelocityField":
        if self.dynamics is not None:
            return self
        if self.source.shape[1] != data.x.shape[1]:
            raise DataError(f"source has {self.source.shape[1]} columns, the data {data.x.shape[1]}: one flows into the other.")
        frame = Affine.standardizing(np.concatenate([data.x, self.source]), common=True)
        return VelocityField(self.source, self.network, self.solver, Dynamics.of(self.network, data, frame, key))

    def draw_source(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        assert self.dynamics is not None
        return self.dynamics.inner(jnp.asarray(self.source)[jax.random.randint(key, (), 0, len(self.source))])


def check_solver(solver: Any) -> AbstractSolver:
    """It, or ModelError where it is no solver."""
    if not isinstance(solver, AbstractSolver):
        raise ModelError(f"solver must be gen.Adaptive(...), gen.RungeKutta(...) or gen.Euler(...), got {brief(solver)}.")
    return solver


def _times(name: str, times: Any) -> Float[np.ndarray, "T"]:
    found = matrix(name, times)[:, 0] if np.ndim(times) == 1 else np.full(1, np.nan)
    steps = np.diff(found)
    if not np.all((found >= 0) & (found <= 1)) or not (np.all(steps > 0) or np.all(steps < 0)):
        raise DataError(f"{name} must rise or fall between 0 (data) and 1 (source), got {times!r}.")
    return found


def _slope(t: Any, u: Float[Array, "D"], theta: tuple[Dynamics, Array]) -> Float[Array, "D"]:
    dynamics, given = theta
    return dynamics.slope(t, u, given)


def _velocity(model: AbstractVelocity, x: Array, t: Scalar, given: Array) -> Array:
    return model.velocity(x, t, given)


def _path(model: AbstractVelocity, x: Array, times: Array, given: Array) -> Array:
    assert model.dynamics is not None
    path = model.solver.path(_slope, model.dynamics.inner(x), (model.dynamics, given), times)
    return model.dynamics.outer(path)
