"""Critics: networks f that tell rows of data from samples, by high values for data; what is left to tell measures a divergence.

A critic may look at m rows at once, so that samples too alike give themselves away (packing; Lin, Khetan, Fanti and Oh 2018).
"""

from functools import partial
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import ModelError
from nlmefit.core.networks import MLP
from nlmefit.core.typing import Scalar

LOOKED = np.linspace(-10.0, 10.0, 100_001)
"""Where an activation function's steepest slope is looked for."""


@final
class Critic(eqx.Module):
    """f(x_1, c_1, ..., x_m, c_m) of m rows x_k in R^D with their conditions c_k in R^C, all standardised."""

    network: eqx.nn.MLP
    packing: int = eqx.field(static=True, default=1)

    @classmethod
    def of(cls, architecture: MLP, packing: int, columns: int, conditions: int, key: Array) -> "Critic":
        return cls(architecture.build(packing * (columns + conditions), 1, key), packing)

    def __call__(self, x: Float[Array, "m D"], given: Float[Array, "m C"]) -> Scalar:
        return self.network(jnp.concatenate([x, given], axis=1).ravel())[0]

    def values(self, x: Float[Array, "k m D"], given: Float[Array, "k m C"]) -> Float[Array, "k"]:
        return jax.vmap(self)(x, given)

    def steepness(self, x: Float[Array, "k m D"], given: Float[Array, "k m C"]) -> Float[Array, "k"]:
        """|df/dx|, over all of the m rows together."""
        slopes = jax.vmap(jax.grad(self))(x, given)
        return jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2)) + 1e-12)  # whose own slope at 0 is not infinite

    def packed(self, rows: Float[Array, "n E"]) -> Float[Array, "k m E"]:
        """As many groups of m rows as there are, in order."""
        count = len(rows) // self.packing
        return rows[: count * self.packing].reshape(count, self.packing, rows.shape[1])


def lipschitz_bound(network: eqx.nn.MLP) -> float:
    """An upper bound of sup |f(x) - f(y)| / |x - y|: the product of the layers' largest singular values, and of the activation's
    steepest slope as often as it is applied (Szegedy et al. 2014, section 4.3). Often far above the least such bound. A GAN's
    critic is `model.players.critic.network`. Raises ModelError for what is no multilayer perceptron.
    """
    if not isinstance(network, eqx.nn.MLP):
        raise ModelError(f"lipschitz_bound is of a network, such as model.players.critic.network, got {type(network).__name__}.")
    slopes = jax.vmap(jax.grad(partial(_scalar, network.activation)))(LOOKED)
    spectral = [float(np.linalg.norm(np.asarray(layer.weight), 2)) for layer in network.layers]
    return float(np.prod(spectral) * float(jnp.max(jnp.abs(slopes))) ** network.depth)


def _scalar(activation: object, x: Scalar) -> Scalar:
    return jnp.reshape(activation(x), ())  # type: ignore[operator]
