"""Monotone maps of the line that turn a mixture of normals into one normal (Flow++, Ho et al. 2019, has logistic ones).

    y = Q(F(x)),    F(x) = sum_k w_k Phi((x - m_k) / s_k),    log dy/dx = log F'(x) - log N(y; 0, 1)

Q is the normal quantile. F and 1 - F are both computed as sums of small numbers, in logs, so that the tails are exact: far out y
is x standardized by the widest component there.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp
from jaxtyping import Array, Float
from scipy.special import ndtri

SPREAD = 0.6
"""sd of the means where all free parameters are 0; the components' own then makes the variance 1."""
LIMIT = 4.0
"""Of the log scales' distance from where they start."""
NEWTON = 3
"""Steps to the quantile, from its asymptotic value: as many as float64 needs."""
HALVINGS = 60
"""Of the interval that the inverse lies in, before Newton's last steps."""


class Components(NamedTuple):
    """A mixture of normals."""

    log_weight: Float[Array, "*n K"]
    mean: Float[Array, "*n K"]
    log_scale: Float[Array, "*n K"]


def components(free: Float[Array, "*n 3K"]) -> Components:
    """From free parameters: K logits of the weights, K means, K log scales; where all are 0, about N(0, 1)."""
    logits, means, scales = jnp.split(free, 3, axis=-1)
    count = logits.shape[-1]
    places = ndtri((np.arange(count) + 0.5) / count)
    places = places * (SPREAD / max(float(np.std(places)), SPREAD) if count > 1 else 0.0)
    own = 0.5 * math.log(1 - np.var(places))
    log_scale = LIMIT * jnp.tanh(scales / LIMIT) + own
    return Components(jax.nn.log_softmax(logits, axis=-1), means + jnp.asarray(places, free.dtype), log_scale)


def forward(x: Float[Array, "*n"], known: Components) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """y and log dy/dx."""
    r = (x[..., None] - known.mean) * jnp.exp(-known.log_scale)
    below = logsumexp(known.log_weight + log_ndtr(r), axis=-1)
    above = logsumexp(known.log_weight + log_ndtr(-r), axis=-1)
    low = below < above
    y = jnp.where(low, 1.0, -1.0) * quantile(jnp.where(low, below, above))
    density = logsumexp(known.log_weight - 0.5 * r**2 - known.log_scale, axis=-1)
    return y, density + 0.5 * y**2


def inverse(y: Float[Array, "*n"], known: Components) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """x and log dx/dy. x lies between the components' own quantiles of Phi(y)."""
    each = known.mean + jnp.exp(known.log_scale) * y[..., None]
    still = jax.lax.stop_gradient
    target, fixed = still(y), jax.tree.map(still, known)

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        right = forward(middle, fixed)[0] < target
        return jnp.where(right, middle, low), jnp.where(right, high, middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halved, (still(jnp.min(each, -1)), still(jnp.max(each, -1))))
    x = 0.5 * (low + high)
    reached, log_slope = forward(x, known)
    x = x - (reached - y) * jnp.exp(-still(log_slope))  # Newton's step: x moves with y and the components as it should
    return x, -forward(x, known)[1]


@jax.custom_jvp
def quantile(log_p: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """z with log Phi(z) = log_p, for log_p <= log(1/2): Newton's steps from the asymptotic value."""
    twice = -2 * log_p
    far = -jnp.sqrt(jnp.maximum(twice - jnp.log(jnp.maximum(twice, 1.0) * 2 * jnp.pi), 1e-12))
    near = jax.scipy.special.ndtri(jnp.exp(jnp.maximum(log_p, -30.0)))
    z = jnp.where(log_p > -20.0, near, far)
    for _ in range(NEWTON):
        log = log_ndtr(z)
        z = z - (log - log_p) * jnp.exp(log + 0.5 * z**2) * jnp.sqrt(2 * jnp.pi).astype(z.dtype)
    return z


@quantile.defjvp
def _quantile_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    z = quantile(*primals)
    return z, jnp.exp(primals[0] + 0.5 * z**2) * jnp.sqrt(2 * jnp.pi).astype(z.dtype) * tangents[0]
