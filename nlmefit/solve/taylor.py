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


def expansion(function: Callable[[Array], Array], center: Float[Array, " k"], order: int) -> Expansion:
    """The polynomial of that order around `center`."""

    def level(m: int) -> Callable[[Array], tuple[Array, ...]]:
        if m == 0:
            return lambda x: (function(x),)
        below = level(m - 1)

        def highest(x: Array) -> tuple[Array, tuple[Array, ...]]:
            found = below(x)
            return found[-1], found

        def both(x: Array) -> tuple[Array, ...]:
            top, found = jax.jacfwd(highest, has_aux=True)(x)
            return (*found, top)

        return both

    return Expansion(center, level(order)(center))


def by_forward_mode(function: Callable[[Array, Any], Array]) -> Callable[[Array, Any], Array]:
    """`function(x, data)` with its derivative in x by forward mode also where it is asked for in reverse: its Jacobian is
    computed along with it, so that loops inside of it are no obstacle (NUTS and SVI differentiate in reverse)."""

    @eqx.filter_custom_jvp
    def wrapped(x: Array, data: Any) -> Array:
        return function(x, data)

    @wrapped.def_jvp
    def rule(primals: tuple[Array, Any], tangents: tuple[Array | None, Any]) -> tuple[Array, Array]:
        x, data = primals

        def twice(x: Array) -> tuple[Array, Array]:
            value = function(x, data)
            return value, value

        jacobian, value = jax.jacfwd(twice, has_aux=True)(x)
        return value, jnp.zeros_like(value) if tangents[0] is None else jacobian @ tangents[0]

    return wrapped
