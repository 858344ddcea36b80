"""The Taylor polynomial of a function that takes long to compute, in its place.

What a structural model makes of individual parameters takes long; how those depend on population parameters and random effects
does not. So that part is differentiated alone, by forward mode in its own few arguments, once per point. Whatever a
method differentiates after that is a polynomial: gradients in all parameters follow by the chain rule, exact up to the
polynomial's order, and nothing compiles it again.
"""

from collections.abc import Callable
from math import factorial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.solve.jets import Jet, full


class Expansion(eqx.Module):
    """sum_m D^m f(center)[x - center, ...] / m!."""

    center: Float[Array, " k"]
    derivatives: tuple[Array, ...]
    """f and its derivatives at the center, of shapes (...), (..., k), (..., k, k), ..."""

    def __call__(self, x: Float[Array, " k"]) -> Array:
        step = x - self.center
        total: Any = 0.0
        for order, tensor in enumerate(self.derivatives):
            term = tensor
            for _ in range(order):
                term = term @ step
            total = total + term / factorial(order)
        return total


Expand = Callable[[Array, int], Jet]
"""(center, order) -> the function there with its derivatives, two at most."""


def expansion(expand: Expand, center: Float[Array, " k"], order: int) -> Expansion:
    """The polynomial of that order around `center`."""

    def derivatives(x: Array, order: int) -> tuple[Array, ...]:
        if order <= 2:
            return _tensors(expand(x, order), x.shape[0], order)

        def highest(x: Array) -> tuple[Array, tuple[Array, ...]]:
            found = derivatives(x, order - 1)
            return found[-1], found

        top, found = jax.jacfwd(highest, has_aux=True)(x)
        return (*found, top)

    return Expansion(center, derivatives(center, order))


def _tensors(jet: Jet, k: int, order: int) -> tuple[Array, ...]:
    """Value, gradient and matrix of second derivatives, zeros for those that there are not."""
    shape = jet.value.shape
    first = jnp.zeros((*shape, k)) if jet.first is None else jet.first
    second = jnp.zeros((*shape, k, k)) if jet.second is None else full(jet.second, k)
    return (jet.value, first, second)[: order + 1]


def by_forward_mode(
    function: Callable[[Array, Any], Array], expand: Callable[[Array, Any], Jet]
) -> Callable[[Array, Any], Array]:
    """`function(x, data)` with its derivative in x by forward mode also where it is asked for in reverse: `expand` computes its
    Jacobian along with it, so that loops inside of it are no obstacle (NUTS and SVI differentiate in reverse)."""

    @eqx.filter_custom_jvp
    def wrapped(x: Array, data: Any) -> Array:
        return function(x, data)

    @wrapped.def_jvp
    def rule(primals: tuple[Array, Any], tangents: tuple[Array | None, Any]) -> tuple[Array, Array]:
        x, data = primals
        value, jacobian = _tensors(expand(x, data), x.shape[0], 1)
        return value, jnp.zeros_like(value) if tangents[0] is None else jacobian @ tangents[0]

    return wrapped
