"""exp(K t) and its integral for small matrices, many at once, in forward mode.

Scaling and squaring of a Taylor polynomial (Higham 2008, ch. 10). The diagonal is shifted so that a compartment model's
matrix has no negative entry: then nothing cancels, and each entry is accurate relative to itself.
"""

from math import factorial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LARGEST_NORM = 0.25
"""Norm of the scaled matrix; degree 12 then leaves 1e-17."""
MOST_SQUARINGS = 60


class Flow(NamedTuple):
    """What a linear system does in a time: A becomes transition A + response."""

    transition: Float[Array, "*b n n"]
    response: Float[Array, "*b n"]


def flow(matrix: Float[Array, "n n"], rate: Float[Array, " n"], time: Float[Array, ""]) -> Flow:
    """exp(K t) and integral_0^t exp(K s) ds rate, for dA/dt = K A + rate."""
    size = matrix.shape[0]
    whole = matrix * time
    norm = lax.stop_gradient(jnp.max(jnp.sum(jnp.abs(whole), axis=0)))
    squarings = jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(norm, 1e-300) / LARGEST_NORM)), 0, MOST_SQUARINGS)
    scale = 2.0**-squarings
    x = whole * scale
    shift = lax.stop_gradient(jnp.max(-jnp.diagonal(x)))
    first = Flow(jnp.exp(-shift) * _taylor(x + shift * jnp.eye(size)), time * scale * _integral(x, rate))

    def double(carry: tuple[Any, Flow]) -> tuple[Any, Flow]:
        left, now = carry
        response = now.response + _times(now.transition, now.response)
        return left - 1, Flow(product(now.transition, now.transition), response)

    return lax.while_loop(lambda carry: carry[0] > 0, double, (squarings, first))[1]


def product(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """a b, written as a sum: for matrices this small a call to BLAS costs more than it does."""
    return jnp.sum(a[:, :, None] * b[None, :, :], axis=1)


def _times(a: Float[Array, "n n"], x: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.sum(a * x[None, :], axis=1)


def _taylor(x: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """sum_k x^k / k!, k = 0..12, in five products (Paterson and Stockmeyer 1973)."""
    powers = [jnp.eye(x.shape[0]), x, product(x, x)]
    cube = product(powers[2], x)
    value = cube / factorial(12)
    for block in reversed(range(4)):
        part = sum(power / factorial(3 * block + k) for k, power in enumerate(powers))
        value = (value if block == 3 else product(value, cube)) + part
    return value


def _integral(x: Float[Array, "n n"], rate: Float[Array, " n"]) -> Float[Array, " n"]:
    """sum_k x^k rate / (k + 1)!, k = 0..12."""
    value = rate / factorial(13)
    for k in reversed(range(12)):
        value = _times(x, value) + rate / factorial(k + 1)
    return value
