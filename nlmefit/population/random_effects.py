"""Flows of random effects: T of `nm.Flow`, a triangular monotone map of normal scores, standardised.

    T_k(eta) = ( f_k(eta) - E f_k ) / sd f_k,    f_k(eta) = sum_j exp(s_kj) I_j(eta_k) + sum_{l before k} sum_j s_klj I_j(eta_l)

I_j are integrals of hat functions around equidistant knots c_j, smoothed by a normal kernel, so that densities have all
derivatives (Ramsay's I-splines of 1988, smoothed): the slope of f in eta_k runs from exp(s_kj) to exp(s_k,j+1) between knots and
stays what it is beyond them. The s are polynomials in c_j whose coefficients are the weights. f is linear in what stands before
the I_j, so that its moments under independent normal scores follow from those of the I_j, computed once.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from nlmefit.declare.flow import EDGE, Flow

KNOTS = np.linspace(-EDGE, EDGE, 11)
WIDTH = KNOTS[1] - KNOTS[0]
STEPS = np.diff(np.eye(len(KNOTS)), axis=0)
SMOOTH = 0.5
"""sd of the kernel, in distances between knots."""
FAR = 9.0
"""Beyond this there is no probability left."""
NODES = 16
"""Of Gauss-Legendre's rule between knots."""


def flowed(flow: Flow, theta: Mapping[str, Any], eta: Mapping[str, Any]) -> dict[str, Any]:
    """omega T(eta) of the parameters with a flow, from the normal scores of all of them."""
    known, result = _moments(), {}
    for name in flow.names:
        before = {name: jnp.exp(_polynomial(theta, flow.own_weights(name), 1))}
        before |= {other: _polynomial(theta, flow.shared_weights(name, other), 0) for other in flow.before(name)}
        centred = sum((basis(eta[other]) - known.mean) @ c for other, c in before.items())
        variance = sum(c @ known.covariance @ c for c in before.values())
        result[name] = theta[f"omega_{name}"] * centred / jnp.sqrt(variance)
    return result


def _polynomial(theta: Mapping[str, Any], names: tuple[str, ...], first: int) -> Float[Array, "m"]:
    """sum_k w_k C_k(c_j / 2.25) at the knots, Chebyshev polynomials C_k from degree `first` up."""
    values = np.polynomial.chebyshev.chebvander(KNOTS / EDGE, first + len(names) - 1)[:, first:]
    return jnp.asarray(values) @ jnp.stack([jnp.asarray(theta[name], float) for name in names])


def basis(eta: Any, xp: ModuleType = jnp) -> Any:
    """I_j(eta) (..., m), but for constants: width times second differences over the knots of J((eta - c_j) / width), an integral
    of the smoothed max(r, 0); what goes on before the first knot is r less a difference."""
    r = (xp.asarray(eta)[..., None] - KNOTS) / WIDTH
    return WIDTH * (-(_ramp_integral(r, xp) @ (STEPS.T @ STEPS)) + r[..., :1] * (np.arange(len(KNOTS)) == 0))


def _ramp_integral(r: Any, xp: ModuleType) -> Any:
    """The integral of E max(r + s e, 0), e ~ N(0, 1): ((r^2 + s^2) Phi(r / s) + r s phi(r / s)) / 2."""
    x = r / SMOOTH
    erfc = scipy.special.erfc if xp is np else jax.scipy.special.erfc
    density = xp.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    return 0.5 * ((r**2 + SMOOTH**2) * 0.5 * erfc(-x / math.sqrt(2)) + r * SMOOTH * density)


class Moments(NamedTuple):
    """Of I_j(eta), eta ~ N(0, 1)."""

    mean: Float[np.ndarray, "m"]
    covariance: Float[np.ndarray, "m m"]


@lru_cache
def _moments() -> Moments:
    """By Gauss-Legendre's rule on stretches as long as knots are apart."""
    ends = np.arange(-FAR, FAR + WIDTH, WIDTH)
    x, w = np.polynomial.legendre.leggauss(NODES)
    nodes = (ends[:-1, None] + WIDTH / 2 * (1 + x)).ravel()
    weights = np.tile(w, len(ends) - 1) * np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    values = basis(nodes, np)
    centred = values - weights @ values
    return Moments(weights @ values, centred.T @ (weights[:, None] * centred))
