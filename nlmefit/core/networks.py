"""Architectures of networks, as values: what a model's networks look like before any data are seen."""

from dataclasses import dataclass
from typing import Literal, final, get_args

import equinox as eqx
import jax
from jaxtyping import Array

from nlmefit.core.errors import ModelError

Activation = Literal["tanh", "relu", "silu", "gelu", "softplus", "selu"]


@final
@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron with `depth` hidden layers of `width` units; `depth=0` is an affine map.

    Raises ModelError for values out of range.
    """

    width: int = 64
    depth: int = 2
    activation: Activation = "silu"

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("depth", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ModelError(f"MLP({name}=...) must be a whole number from {least} up, got {value!r}.")
        if not isinstance(self.activation, str) or self.activation not in get_args(Activation):
            raise ModelError(f"MLP(activation=...) must be one of {', '.join(get_args(Activation))}, got {self.activation!r}.")

    def build(self, inputs: int, outputs: int, key: Array) -> eqx.nn.MLP:
        """With random weights, uniform in +-1/sqrt(inputs of the layer)."""
        return eqx.nn.MLP(inputs, outputs, self.width, self.depth, getattr(jax.nn, self.activation), key=key)
