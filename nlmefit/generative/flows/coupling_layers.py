"""Coupling layers: some of the coordinates stay, the others move one by one as a network of those that stay says.

    y_a = x_a,    y_b = tau(x_b; network(x_a, c))        tau monotone in each coordinate

Both directions cost one evaluation of the network, and the Jacobian is triangular (Dinh, Sohl-Dickstein and Bengio 2017).
"""

import abc
from dataclasses import dataclass, field
from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import ModelError
from nlmefit.core.networks import MLP
from nlmefit.core.options import check_whole
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.flows import mixture_cdf, splines
from nlmefit.generative.flows.bijections import AbstractBijection, Mapped


class AbstractCoupling(abc.ABC):
    """A kind of coupling layer, as a value: what moves a coordinate, and the network that says how."""

    network: MLP

    @property
    @abc.abstractmethod
    def parameters(self) -> int:
        """P, the numbers that move a coordinate; all 0 leaves it where it is, or about there."""

    @abc.abstractmethod
    def forward(self, x: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        """y and log|dy/dx|."""

    @abc.abstractmethod
    def inverse(self, y: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        """x and log|dx/dy|."""

    def build(self, size: int, conditions: int, key: Array) -> "CouplingLayer":
        """A layer for that many coordinates, of which the first half stays; it starts as the identity, or about so."""
        kept = size // 2
        network = self.network.build(kept + conditions, (size - kept) * self.parameters, key)
        return CouplingLayer(self, kept, vanishing(network))


@final
@dataclass(frozen=True)
class AffineCoupling(AbstractCoupling):
    """y = x exp(l) + m with l = limit tanh(free / limit) (RealNVP; Dinh, Sohl-Dickstein and Bengio 2017).

    Raises ModelError unless the limit of a layer's log scale is positive.
    """

    network: MLP = field(default_factory=MLP)
    limit: float = 1.0

    def __post_init__(self) -> None:
        check_kinds(self)
        if not self.limit > 0:
            raise ModelError(f"AffineCoupling(limit=...) must be positive, got {self.limit!r}.")

    @property
    def parameters(self) -> int:
        return 2

    def forward(self, x: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Array, Array]:
        log_scale = self.limit * jnp.tanh(free[:, 0] / self.limit)
        return x * jnp.exp(log_scale) + free[:, 1], log_scale

    def inverse(self, y: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Array, Array]:
        log_scale = self.limit * jnp.tanh(free[:, 0] / self.limit)
        return (y - free[:, 1]) * jnp.exp(-log_scale), -log_scale


@final
@dataclass(frozen=True)
class SplineCoupling(AbstractCoupling):
    """A rational-quadratic spline of `bins` bins on [-bound, bound], the identity outside (Durkan et al. 2019).

    Raises ModelError unless the bound is positive, MethodError unless bins is a whole number from 2 up.
    """

    network: MLP = field(default_factory=MLP)
    bins: int = 8
    bound: float = 4.0

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("bins", self.bins, 2)
        if not self.bound > 0:
            raise ModelError(f"SplineCoupling(bound=...) must be positive, got {self.bound!r}.")

    @property
    def parameters(self) -> int:
        return 3 * self.bins - 1

    def forward(self, x: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Array, Array]:
        return splines.forward(x, splines.knots(free, self.bound), self.bound)

    def inverse(self, y: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Array, Array]:
        return splines.inverse(y, splines.knots(free, self.bound), self.bound)


@final
@dataclass(frozen=True)
class MixtureCoupling(AbstractCoupling):
    """y = Q(F(x)): what is a mixture of `components` normals, given the coordinates that stay, becomes one normal
    (`mixture_cdf.py`; Ho et al. 2019). Smooth, and sparing where the data are bumps around curves.

    Raises MethodError unless components is a whole number from 2 up.
    """

    network: MLP = field(default_factory=MLP)
    components: int = 4

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("components", self.components, 2)

    @property
    def parameters(self) -> int:
        return 3 * self.components

    def forward(self, x: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Array, Array]:
        return mixture_cdf.forward(x, mixture_cdf.components(free))

    def inverse(self, y: Float[Array, "n"], free: Float[Array, "n P"]) -> tuple[Array, Array]:
        return mixture_cdf.inverse(y, mixture_cdf.components(free))


@final
class CouplingLayer(AbstractBijection):
    """y_a = x_a, y_b = tau(x_b; network(x_a, c)); a are the first `kept` coordinates."""

    kind: AbstractCoupling = eqx.field(static=True)
    kept: int = eqx.field(static=True)
    network: eqx.nn.MLP

    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        y, log_slope = self.kind.forward(x[self.kept :], self._free(x, given))
        return jnp.concatenate([x[: self.kept], y]), jnp.sum(log_slope)

    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        x, log_slope = self.kind.inverse(y[self.kept :], self._free(y, given))
        return jnp.concatenate([y[: self.kept], x]), jnp.sum(log_slope)

    def _free(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Float[Array, "n P"]:
        return self.network(jnp.concatenate([x[: self.kept], given])).reshape(-1, self.kind.parameters)


def vanishing(network: eqx.nn.MLP) -> eqx.nn.MLP:
    """The network with a last layer of zeros."""
    return eqx.tree_at(lambda n: (n.layers[-1].weight, n.layers[-1].bias), network, replace_fn=jnp.zeros_like)
