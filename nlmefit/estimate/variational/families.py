"""Families of variational posteriors: invertible maps z = T(xi; phi) of standard normal draws xi, one phi per subject.

phi = 0 is the frame (center z0, scale S0) that a family starts from; log|det dT/dxi| comes with the point.
"""

import abc
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.estimate.factor import factorize, solve_upper


class Frame(NamedTuple):
    """z = center + scale t."""

    center: Float[Array, "q"]
    scale: Float[Array, "q q"]
    log_volume: Scalar


class AbstractFamily(abc.ABC):
    """A family; a hashable value."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As users read it."""

    draws: ClassVar[int] = 64
    """Points that a bound of this family needs: enough for phi not to be fitted to them in place of the posterior."""

    @abc.abstractmethod
    def size(self, q: int) -> int:
        """Length of phi."""

    @abc.abstractmethod
    def transform(self, phi: Float[Array, "v"], xi: Float[Array, "q"]) -> tuple[Float[Array, "q"], Scalar]:
        """t and log|det dt/dxi|."""

    def frame(self, mode: Float[Array, "q"], hessian: Float[Array, "q q"]) -> Frame:
        """Laplace's approximation: the scale is the lower Cholesky factor of H^-1, by factoring H from its last row up.

        A lower triangular map after a lower triangular scale is one again, so that the best T does not depend on the frame: only
        then is theta's gradient the partial one.
        """
        factor = factorize(hessian[::-1, ::-1], floor=1e-6)
        root = 1 / jnp.sqrt(factor.pivots)
        return Frame(mode, solve_upper(factor, jnp.diag(root))[::-1, ::-1], jnp.sum(jnp.log(root)))


def _affine(phi: Float[Array, "v"], x: Float[Array, "q"]) -> tuple[Float[Array, "q"], Scalar]:
    """a + B x with B lower triangular of positive diagonal 1 + d: phi = (a, d, what is below the diagonal)."""
    q = x.shape[0]
    shift, diagonal, below = phi[:q], 1.0 + phi[q : 2 * q], phi[2 * q :]
    lower = jnp.zeros((q, q)).at[jnp.tril_indices(q, -1)].set(below)
    return shift + diagonal * x + lower @ x, jnp.sum(jnp.log(diagonal))


@final
@dataclass(frozen=True)
class FullRank(AbstractFamily):
    """Normal with any mean and covariance: t = a + B xi, B lower triangular."""

    name = "full-rank normal"

    def size(self, q: int) -> int:
        return 2 * q + q * (q - 1) // 2

    def transform(self, phi: Float[Array, "v"], xi: Float[Array, "q"]) -> tuple[Float[Array, "q"], Scalar]:
        return _affine(phi, xi)


@final
@dataclass(frozen=True)
class MeanField(AbstractFamily):
    """Normal and independent between the (whitened) random effects."""

    name = "mean-field normal"

    def size(self, q: int) -> int:
        return 2 * q

    def transform(self, phi: Float[Array, "v"], xi: Float[Array, "q"]) -> tuple[Float[Array, "q"], Scalar]:
        q = xi.shape[0]
        return phi[:q] + (1.0 + phi[q:]) * xi, jnp.sum(jnp.log(1.0 + phi[q:]))

    def frame(self, mode: Float[Array, "q"], hessian: Float[Array, "q q"]) -> Frame:
        """The curvatures one by one: the best independent normal of a normal posterior."""
        root = 1 / jnp.sqrt(jnp.maximum(jnp.abs(jnp.diag(hessian)), 1e-6))
        return Frame(mode, jnp.diag(root), jnp.sum(jnp.log(root)))


@final
@dataclass(frozen=True)
class TriangularFlow(AbstractFamily):
    """A flow: a lower triangular map whose entries are one-layer networks with fixed hidden units (a Knothe-Rosenblatt map;
    Marzouk, Moselhy, Parno and Spantini 2016),

        t_k = a_k + sum_{l <= k} ( B_kl xi_l + sum_j W_klj tanh(xi_l - c_j) ),    c_j = `units` places between -1.5 and 1.5

    for skewed, heavy-tailed and curved posteriors. It is linear in phi, so that the bound has one maximum where log p(y, z) is
    concave. Raises MethodError unless units is a whole number from 1 up.
    """

    draws: ClassVar[int] = 1000
    units: int = 3

    def __post_init__(self) -> None:
        check_whole("units", self.units, 1)

    @property
    def name(self) -> str:
        return f"triangular flow, {self.units} units"

    def size(self, q: int) -> int:
        return q + q * (q + 1) // 2 * (1 + self.units)

    def transform(self, phi: Float[Array, "v"], xi: Float[Array, "q"]) -> tuple[Float[Array, "q"], Scalar]:
        q = xi.shape[0]
        weights = jnp.zeros((q, q, 1 + self.units)).at[jnp.tril_indices(q)].set(phi[q:].reshape(-1, 1 + self.units))
        hidden = jnp.tanh(xi[:, None] - self._places)
        features = jnp.concatenate([xi[:, None], hidden], axis=1)
        slopes = jnp.concatenate([jnp.ones((q, 1)), 1.0 - hidden**2], axis=1)
        own = weights[jnp.arange(q), jnp.arange(q)]
        return xi + phi[:q] + jnp.einsum("klj,lj->k", weights, features), jnp.sum(jnp.log(1.0 + jnp.sum(own * slopes, axis=1)))

    @property
    def _places(self) -> Float[Array, " j"]:
        return jnp.linspace(-1.5, 1.5, self.units) if self.units > 1 else jnp.zeros(1)
