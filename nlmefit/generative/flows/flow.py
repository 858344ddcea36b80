"""Normalizing flows: a density by change of variables from the standard normal."""

import math
from typing import ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import ModelError
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractDensity
from nlmefit.generative.flows.bijections import AbstractBijection, Affine, Chain, Linear, Permutation, Repeated
from nlmefit.generative.flows.coupling_layers import AbstractCoupling, SplineCoupling
from nlmefit.generative.rows import Samples


@final
class NormalizingFlow(AbstractDensity):
    """A normalizing flow (Rezende and Mohamed 2015): an invertible map T of data to standard normal noise,

        log p(x | c) = log N(T(x; c); 0, I) + log|det dT/dx|,        x = T^-1(z; c), z ~ N(0, I)

    T standardises the columns (a constant of the model), then alternates a coupling layer with a linear map.

    **Everyday arguments:** `layers` coupling layers; `coupling` their kind, `gen.SplineCoupling(...)`,
    `gen.MixtureCoupling(...)` or `gen.AffineCoupling(...)`, with the network inside.

    **Others:** `mixing` whether the linear maps are learned (P L U; `bijections.Linear`), or else reversals of the coordinates.

    Fitted by `gen.MaximumLikelihood(training=...)`. Raises ModelError for layers that are no whole number from 1 up.
    """

    fitted_by: ClassVar[tuple[str, ...]] = ("MaximumLikelihood",)

    layers: int = eqx.field(static=True, default=6)
    coupling: AbstractCoupling = eqx.field(static=True, default_factory=SplineCoupling)
    mixing: bool = eqx.field(static=True, default=True)
    map: Chain | None = None
    """T, once built."""
    condition: Affine | None = None
    """What standardises c."""

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if isinstance(self.layers, bool) or not isinstance(self.layers, int) or self.layers < 1:
            raise ModelError(f"NormalizingFlow(layers=...) must be a whole number from 1 up, got {self.layers!r}.")
        if not isinstance(self.coupling, AbstractCoupling):
            raise ModelError(
                f"NormalizingFlow(coupling=...) must be gen.SplineCoupling(), gen.MixtureCoupling() or "
                f"gen.AffineCoupling(), got {self.coupling!r}."
            )

    @property
    def dimension(self) -> int | None:
        return None if self.map is None else len(self.map.parts[0].shift)  # type: ignore[attr-defined]

    @property
    def conditions(self) -> int:
        return 0 if self.condition is None else len(self.condition.shift)

    def built(self, data: Samples, key: Array) -> "NormalizingFlow":
        if self.map is not None:
            return self
        size, conditions = data.x.shape[1], data.given.shape[1]
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

        def layer(key: Array) -> AbstractBijection:
            mixing = Linear.rotating(size, generator) if self.mixing else Permutation.reversing(size)
            return Chain.of([self.coupling.build(size, conditions, key), mixing])

        layers = Repeated.of([layer(k) for k in jax.random.split(key, self.layers)])
        map = Chain.of([Affine.standardizing(data.x), layers])
        return NormalizingFlow(self.layers, self.coupling, self.mixing, map, Affine.standardizing(data.given))

    def to_noise(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> tuple[Float[Array, "D"], Scalar]:
        """z = T(x; c) and log|det dT/dx|."""
        assert self.map is not None and self.condition is not None
        return self.map.forward(x, self.condition.forward(given, given)[0])

    def log_density(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Scalar:
        z, log_determinant = self.to_noise(x, given)
        return log_standard_normal(z) + log_determinant

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        assert self.map is not None and self.condition is not None and self.dimension is not None
        z = jax.random.normal(key, (self.dimension,))
        return self.map.inverse(z, self.condition.forward(given, given)[0])[0]


def log_standard_normal(z: Float[Array, "D"]) -> Scalar:
    """log N(z; 0, I)."""
    return -0.5 * jnp.sum(z**2) - 0.5 * z.size * math.log(2 * math.pi)
