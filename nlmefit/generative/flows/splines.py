"""Monotone rational-quadratic splines on the line (Gregory and Delbourgo 1982; Durkan et al. 2019, Neural Spline Flows).

A spline runs through knots (x_k, y_k), k = 0..K, from (-bound, -bound) to (bound, bound) with slopes d_k > 0 there, and is the
identity outside. In bin k, with w = x_{k+1} - x_k, s = (y_{k+1} - y_k) / w and r = (x - x_k) / w,

    y = y_k + (y_{k+1} - y_k) (s r^2 + d_k r (1 - r)) / (s + (d_{k+1} + d_k - 2 s) r (1 - r))
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST = 1e-3
"""Least width and height of a bin, as a share of all, and least slope."""


class Knots(NamedTuple):
    """Where a spline runs through, and its slopes there."""

    x: Float[Array, "*n K+1"]
    y: Float[Array, "*n K+1"]
    slope: Float[Array, "*n K+1"]


def knots(free: Float[Array, "*n 3K-1"], bound: float) -> Knots:
    """From free parameters, K widths, K heights and K - 1 inner slopes; all 0 is the identity."""
    bins = (free.shape[-1] + 1) // 3
    widths, heights, slopes = jnp.split(free, [bins, 2 * bins], axis=-1)
    level = jnp.log(jnp.expm1(1.0 - LEAST))  # softplus of it is 1 - LEAST: a slope of 1
    inner = LEAST + jax.nn.softplus(slopes + level.astype(free.dtype))
    ends = jnp.ones((*inner.shape[:-1], 1), free.dtype)
    return Knots(_edges(widths, bound), _edges(heights, bound), jnp.concatenate([ends, inner, ends], axis=-1))


def _edges(free: Float[Array, "*n K"], bound: float) -> Float[Array, "*n K+1"]:
    bins = free.shape[-1]
    shares = LEAST + (1 - LEAST * bins) * jax.nn.softmax(free, axis=-1)
    inner = 2 * bound * jnp.cumsum(shares, axis=-1)[..., :-1] - bound
    end = jnp.full((*inner.shape[:-1], 1), bound, free.dtype)
    return jnp.concatenate([-end, inner, end], axis=-1)


def forward(x: Float[Array, "*n"], at: Knots, bound: float) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """y, and log dy/dx."""
    inside = jnp.abs(x) < bound
    x_0, width, y_0, height, d_0, d_1 = _bin(jnp.where(inside, x, 0.0), at.x, at)
    r = (jnp.where(inside, x, 0.0) - x_0) / width
    s = height / width
    below = s + (d_1 + d_0 - 2 * s) * r * (1 - r)
    y = y_0 + height * (s * r**2 + d_0 * r * (1 - r)) / below
    return jnp.where(inside, y, x), jnp.where(inside, _log_slope(r, s, below, d_0, d_1), 0.0)


def inverse(y: Float[Array, "*n"], at: Knots, bound: float) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """x, and log dx/dy: the root in [0, 1] of a quadratic in r, in the form without cancellation."""
    inside = jnp.abs(y) < bound
    x_0, width, y_0, height, d_0, d_1 = _bin(jnp.where(inside, y, 0.0), at.y, at)
    rise = jnp.where(inside, y, 0.0) - y_0
    s = height / width
    bend = rise * (d_1 + d_0 - 2 * s)
    a, b, c = height * (s - d_0) + bend, height * d_0 - bend, -s * rise
    r = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0)))
    below = s + (d_1 + d_0 - 2 * s) * r * (1 - r)
    return jnp.where(inside, x_0 + r * width, y), jnp.where(inside, -_log_slope(r, s, below, d_0, d_1), 0.0)


def _log_slope(r: Array, s: Array, below: Array, d_0: Array, d_1: Array) -> Array:
    return 2 * jnp.log(s) + jnp.log(d_1 * r**2 + 2 * s * r * (1 - r) + d_0 * (1 - r) ** 2) - 2 * jnp.log(below)


def _bin(value: Float[Array, "*n"], edges: Float[Array, "*n K+1"], at: Knots) -> tuple[Array, ...]:
    """x_k, w, y_k, height, d_k, d_{k+1} of the bin that the value lies in; picked by a mask, whose gradient is cheaper than that
    of an index."""
    here = (value[..., None] >= edges[..., :-1]) & (value[..., None] < edges[..., 1:])

    def pick(of: Array) -> Array:
        return jnp.sum(jnp.where(here, of, 0.0), axis=-1)

    low, high = (Knots(*(k[..., :-1] for k in at)), Knots(*(k[..., 1:] for k in at)))
    x_0, y_0 = pick(low.x), pick(low.y)
    return x_0, pick(high.x - low.x), y_0, pick(high.y - low.y), pick(low.slope), pick(high.slope)
