"""A neural part of a model: a small multilayer perceptron whose weights are population parameters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from nlmefit.core.errors import ModelError
from nlmefit.core.networks import MLP, Activation
from nlmefit.declare.parameters import Theta, check_prior

NEAR_ZERO = 0.1
"""What the random weights of the last layer are multiplied by."""
CALL = "network: "
"""Begins the name under which a network's call is found in a traced computation (`equations.py`)."""


@final
@dataclass(frozen=True)
class Network:
    """A neural network inside of a model, for what its mechanism does not say:

        p.f(x_1, ..., x_n) = W_2 a(W_1 x + b_1) + b_2        (one hidden layer; a: tanh)

    Declared `f = nm.Network(inputs=2)`, it is a function in `dynamics`, `observe`, `dosing` and `initial`, and in `individual` as
    `theta.f`: `p.f(A.central / p.V, p.WT)` is a number (with `outputs` above 1, a tuple of them), for rows of numbers element by
    element. A random effect among the inputs, such as a declared `z = nm.Normal(0, iiv=nm.Fixed(1))`, gives each subject a
    function of its own. The weights are population parameters `f_1`, `f_2`, ..., estimated with all others; they start at random
    (`seed`), those of the last layer near 0: the function begins near 0, so that `p.CL * jnp.exp(p.f(...))` begins near CL.

    **Arguments:** `inputs`, `outputs` how many; `width` units in each of `depth` hidden layers; `activation` "tanh", "silu",
    "softplus", "relu", ...; `prior` a distribution of every weight; `seed` of the start.

    Inputs should be of the order of 1 (divide concentrations and covariates by typical ones). Weights have no meaning one by one,
    and many do the same, so that a maximum of the likelihood is neither unique nor sharp; `nm.MAP(nm.FOCE(interaction=True))` has
    one, with the prior N(0, 1) for the weights unless `prior` says otherwise. FOCE's time grows with the weights: keep to a few
    dozens. (Networks in differential equations: Rackauckas et al. 2020; in NLME models: Janssen et al. 2022.)

    Raises ModelError for options out of range, and for a call with another number of inputs.
    """

    inputs: int
    outputs: int = 1
    width: int = 4
    depth: int = 1
    activation: Activation = "tanh"
    prior: Any = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"Network({name}=...) must be a whole number from 1 up, got {value!r}.")
        MLP(self.width, self.depth, self.activation)  # checks them
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ModelError(f"Network(seed=...) must be a whole number, got {self.seed!r}.")
        check_prior(self.prior, "Network")

    def weights(self, name: str) -> dict[str, Theta]:
        """The weights by name: layer by layer, a layer's matrix by rows, then its constants."""
        return {f"{name}_{k}": Theta(float(x), prior=self.prior) for k, x in enumerate(_built(self).start, 1)}

    def described(self, name: str) -> str:
        """In words."""
        layers = f"{_some(self.depth, 'layer')} of {self.width} {self.activation} units" if self.depth else "affine"
        weights = [*self.weights(name)]
        return f"{_some(self.inputs, 'input')}, {layers}, {_some(self.outputs, 'output')}; weights {weights[0]} to {weights[-1]}"

    def bound(self, name: str, value: Callable[[str], Any]) -> Callable[..., Any]:
        """The network as a function; `value` gives the weights by name."""
        size = len(_built(self).start)

        def call(*inputs: Any) -> Any:
            if len(inputs) != self.inputs:
                raise ModelError(f"network `{name}` has {_some(self.inputs, 'input')}, got {len(inputs)}.")
            weights = [value(f"{name}_{k}") for k in range(1, size + 1)]
            found = _compiled(self, name)(inputs, weights)
            return found[0] if self.outputs == 1 else found

        return call


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class _Built:
    start: tuple[float, ...]
    apply: Callable[[Float[Array, "w"], Float[Array, "i"]], Float[Array, "o"]]


@lru_cache
def _built(network: Network) -> _Built:
    """Weights to start from, and the function of weights and inputs."""
    mlp = MLP(network.width, network.depth, network.activation).build(
        network.inputs, network.outputs, jax.random.key(network.seed)
    )
    mlp = eqx.tree_at(lambda m: m.layers[-1], mlp, replace_fn=lambda last: jax.tree.map(lambda x: NEAR_ZERO * x, last))
    arrays, rest = eqx.partition(mlp, eqx.is_inexact_array)
    flat, rebuild = ravel_pytree(arrays)
    return _Built(tuple(flat.tolist()), lambda weights, x: eqx.combine(rebuild(weights), rest)(x))


@lru_cache
def _compiled(network: Network, name: str) -> Callable[[Any, Any], tuple[Array, ...]]:
    """The call on inputs (each a number or rows of them), under a name that `equations` recognises."""
    apply = jnp.vectorize(_built(network).apply, signature="(w),(i)->(o)")

    def call(inputs: Any, weights: Any) -> tuple[Array, ...]:
        x = jnp.stack(jnp.broadcast_arrays(*(jnp.asarray(v, float) for v in inputs)), axis=-1)
        found = apply(jnp.stack([jnp.asarray(w, float) for w in weights]), x)
        return tuple(found[..., k] for k in range(network.outputs))

    call.__name__ = call.__qualname__ = CALL + name
    return jax.jit(call)
