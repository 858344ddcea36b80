"""Continuous normalizing flows: the density of what an ordinary differential equation makes of normal noise.

log p(x) = log N(z(1)) + int_0^1 tr( dv/dz )(z(t), t) dt,    dz/dt = v(z, t), z(0) = x        (Chen et al. 2018)
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core import gaussian
from nlmefit.core.errors import MethodError, ModelError
from nlmefit.core.gaussian import Gaussian
from nlmefit.core.networks import MLP
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractDensity
from nlmefit.generative.flows.bijections import Affine
from nlmefit.generative.rows import Samples
from nlmefit.generative.transport.neural_ode import AbstractSolver, Adaptive
from nlmefit.generative.transport.velocity import AbstractVelocity, Dynamics, check_solver

Law = Literal["rademacher", "normal"]


@final
@dataclass(frozen=True)
class Hutchinson:
    """tr A = E[e' A e] for any e with E[e e'] = I (Hutchinson 1990), by the mean over `probes` draws of e, of signs
    ("rademacher", variance 2 (|A|^2 - sum_i A_ii^2) for symmetric A) or "normal" (2 |A|^2).

    Raises MethodError for options out of range.
    """

    probes: int = 1
    law: Law = "rademacher"

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("probes", self.probes, 1)
        if self.law not in get_args(Law):
            raise MethodError(f"law must be 'rademacher' or 'normal', got {self.law!r}.")

    def draw(self, key: Array, size: int, dtype: Any = float) -> Float[Array, "k D"]:
        draw = jax.random.rademacher if self.law == "rademacher" else jax.random.normal
        return draw(key, (self.probes, size), dtype)

    @staticmethod
    def trace(function: Any, u: Float[Array, "D"], probes: Float[Array, "k D"]) -> tuple[Float[Array, "D"], Scalar]:
        """function(u), and the estimate of the trace of its Jacobian."""
        values, products = jax.vmap(lambda e: jax.jvp(function, (u,), (e,)))(probes)
        return values[0], jnp.mean(jnp.sum(probes * products, axis=1))


@final
class CNF(AbstractVelocity, AbstractDensity):
    """A continuous normalizing flow (Chen et al. 2018; Grathwohl et al. 2019): a velocity field from the data at t = 0 to normal
    noise at t = 1,

        dx/dt = v(x, t; c),        log p(x | c) = log N(x(1)) + int_0^1 tr(dv/dx) dt

    The columns are standardised first (a constant of the model), v is a network of (x, t, c).

    **Everyday arguments:** `network` of (x, t, c).

    **Others:** `solver` of the equation, in training by likelihood too: `gen.Adaptive(...)`, `gen.RungeKutta(...)`,
    `gen.Euler(...)`; `trace` in training by likelihood, exact (D products with the Jacobian) or `gen.Hutchinson(...)`; the
    density that `log_prob` gives is by the exact trace always; `standardize` whether columns are.

    Fitted by `gen.FlowMatching(...)`, a regression (much the faster), or by `gen.MaximumLikelihood(training=...)`.
    """

    fitted_by: ClassVar[tuple[str, ...]] = ("FlowMatching", "MaximumLikelihood")

    network: MLP = eqx.field(static=True, default_factory=MLP)
    solver: AbstractSolver = eqx.field(default_factory=Adaptive)
    trace: Hutchinson | None = eqx.field(static=True, default=None)
    standardize: bool = eqx.field(static=True, default=True)
    dynamics: Dynamics | None = None
    source: Gaussian | None = None
    """The law at t = 1, of standardised x: N(0, I) unless a learned coupling found another."""

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        check_solver(self.solver)

    def built(self, data: Samples, key: Array) -> "CNF":
        if self.dynamics is not None:
            return self
        size = data.x.shape[1]
        frame = Affine.standardizing(data.x) if self.standardize else Affine.identity(size)
        dynamics = Dynamics.of(self.network, data, frame, key)
        source = Gaussian(np.zeros(size), np.eye(size))  # type: ignore[arg-type]
        return dataclasses.replace(self, dynamics=dynamics, source=source)

    @property
    def source_gap(self) -> float:
        """KL(source || N(0, I)) in nats: how far a learned coupling took the source from what it is pulled to; 0 without one."""
        if self.source is None:
            self._rows(None)
        assert self.source is not None
        size = len(self.source.mean)
        return float(gaussian.kl(self.source, Gaussian(jnp.zeros(size), jnp.eye(size))))

    def draw_source(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        assert self.source is not None
        mean, root = self.source
        return mean + root @ jax.random.normal(key, mean.shape, given.dtype)

    def log_density(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Scalar:
        return self._log_density(x, given, jnp.eye(x.shape[0], dtype=x.dtype), x.shape[0])

    def noisy_log_density(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        """Without bias, by `trace`."""
        if self.trace is None:
            return self.log_density(x, given)
        return self._log_density(x, given, self.trace.draw(key, x.shape[0], x.dtype), 1)

    def _log_density(self, x: Array, given: Array, probes: Float[Array, "k D"], times: int) -> Scalar:
        """With the unit vectors as probes, `times` = D makes their mean the exact trace."""
        assert self.dynamics is not None and self.source is not None
        state = (self.dynamics.inner(x), jnp.zeros((), x.dtype))
        theta = (self.dynamics, given, probes)
        z, mean = self.solver.solve(_with_trace, state, theta, 0.0, 1.0)
        return gaussian.log_density(self.source, z) + times * mean - jnp.sum(self.dynamics.frame.log_scale)


def _with_trace(t: Any, state: tuple[Array, Array], theta: tuple[Dynamics, Array, Array]) -> tuple[Array, Array]:
    dynamics, given, probes = theta
    return Hutchinson.trace(lambda u: dynamics.slope(t, u, given), state[0], probes)
