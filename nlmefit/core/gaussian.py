"""Algebra of Gaussian distributions: densities, divergences, conditioning.

A Gaussian is its mean and its root, the lower Cholesky factor of its covariance: N(mean, root root'), as in the seam's `omega`.
Covariances are never formed and never subtracted: a conditional or a posterior takes its root from an orthogonal
triangularization (Bierman 1977, Factorization Methods for Discrete Sequential Estimation), which keeps it positive and
loses no digits. Functions are of one Gaussian; `jax.vmap` makes them functions of many.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar


class Gaussian(NamedTuple):
    """N(mean, root root'), root lower triangular with a positive diagonal."""

    mean: Float[Array, "D"]
    root: Float[Array, "D D"]

    @classmethod
    def of(cls, mean: Float[Array, "D"], covariance: Float[Array, "D D"]) -> "Gaussian":
        """N(mean, covariance); NaN where the covariance is not positive definite."""
        return cls(jnp.asarray(mean, float), jnp.linalg.cholesky(jnp.asarray(covariance, float)))

    @property
    def covariance(self) -> Float[Array, "D D"]:
        return self.root @ self.root.T


# ---- densities and divergences -----------------------------------------------------------------------------------------


def log_density(p: Gaussian, x: Float[Array, "D"]) -> Scalar:
    """log N(x; m, S) = -(x - m)' S^-1 (x - m) / 2 - log|S| / 2 - D log(2 pi) / 2."""
    white = _whiten(p.root, x - p.mean)
    return -0.5 * (white @ white + white.shape[0] * jnp.log(2 * jnp.pi)) - _half_log_determinant(p.root)


def entropy(p: Gaussian) -> Scalar:
    """H(p) = -E_p[log p] = D (1 + log(2 pi)) / 2 + log|S| / 2."""
    return 0.5 * p.mean.shape[0] * (1 + jnp.log(2 * jnp.pi)) + _half_log_determinant(p.root)


def kl(p: Gaussian, q: Gaussian) -> Scalar:
    """KL(p || q) = ( tr(S_q^-1 S_p) + (m_q - m_p)' S_q^-1 (m_q - m_p) - D + log|S_q| - log|S_p| ) / 2."""
    spread, shift = _whiten(q.root, p.root), _whiten(q.root, q.mean - p.mean)
    square = jnp.sum(spread**2) + shift @ shift - shift.shape[0]
    return 0.5 * square + _half_log_determinant(q.root) - _half_log_determinant(p.root)


def kl_diagonal(
    mean: Float[Array, "*D"],
    sd: Float[Array, "*D"],
    prior_mean: Float[Array, "*D"] | float = 0.0,
    prior_sd: Float[Array, "*D"] | float = 1.0,
) -> Scalar:
    """KL of independent normals N(m, s^2) from N(m_0, s_0^2), summed over all of them; from N(0, 1) without a prior:

    sum (m^2 + s^2 - 1 - log s^2) / 2   (Kingma and Welling 2014, appendix B)
    """
    ratio = sd / prior_sd
    return 0.5 * jnp.sum(((mean - prior_mean) / prior_sd) ** 2 + ratio**2 - 1 - 2 * jnp.log(ratio))


def wasserstein_squared(p: Gaussian, q: Gaussian) -> Scalar:
    """W_2^2(p, q) = |m_p - m_q|^2 + tr(S_p + S_q - 2 (S_p^1/2 S_q S_p^1/2)^1/2), the squared distance of Bures for equal means
    (Dowson and Landau 1982).

    The last trace is the nuclear norm of root_p' root_q: both have the square roots of the eigenvalues of S_p S_q.
    """
    shared = jnp.sum(jnp.linalg.svd(p.root.T @ q.root, compute_uv=False)) if p.mean.shape[0] else 0.0
    spread = jnp.sum(p.root**2) + jnp.sum(q.root**2) - 2 * shared
    return jnp.sum((p.mean - q.mean) ** 2) + jnp.maximum(spread, 0.0)  # rounding makes it negative where the two are equal


# ---- parts and conditionals --------------------------------------------------------------------------------------------


def marginal(p: Gaussian, kept: Sequence[int]) -> Gaussian:
    """The Gaussian of the coordinates `kept`, in that order."""
    places = np.asarray(kept, int)
    return Gaussian(p.mean[places], _triangular(p.root[places]))


def condition(p: Gaussian, given: Sequence[int], values: Float[Array, "n"]) -> Gaussian:
    """x_b | x_a = values, where a are the coordinates `given` and b the others in their order:

    mean m_b + S_ba S_aa^-1 (values - m_a), covariance S_bb - S_ba S_aa^-1 S_ab
    """
    first = np.asarray(given, int)
    order = np.concatenate([first, np.setdiff1d(np.arange(p.mean.shape[0]), first)])
    return _condition_on_first(marginal(p, order.tolist()), values)


def observed(prior: Gaussian, Z: Float[Array, "n D"], noise: Float[Array, "n n"]) -> Gaussian:
    """The joint Gaussian of (y, eta): y = Z eta + e, eta ~ prior, e ~ N(0, noise noise').

    Its first n coordinates are y: `marginal` of them is N(Z m, Z S Z' + noise noise'), `condition` on them the posterior.
    """
    size = Z.shape[0]
    rows = jnp.concatenate([Z @ prior.root, prior.root])
    own = jnp.concatenate([noise, jnp.zeros((prior.mean.shape[0], size))])
    return Gaussian(jnp.concatenate([Z @ prior.mean, prior.mean]), _triangular(jnp.concatenate([rows, own], axis=1)))


def posterior(prior: Gaussian, Z: Float[Array, "n D"], noise: Float[Array, "n n"], y: Float[Array, "n"]) -> Gaussian:
    """eta | y where y = Z eta + e, eta ~ prior = N(m, S), e ~ N(0, R), R = noise noise':

    covariance V = (S^-1 + Z' R^-1 Z)^-1, mean V (S^-1 m + Z' R^-1 y)
    """
    return _condition_on_first(observed(prior, Z, noise), y)


def mixture_moments(weights: Float[Array, "K"], parts: Gaussian) -> Gaussian:
    """The Gaussian with the mean and covariance of the mixture sum_k w_k N(m_k, S_k), sum_k w_k = 1:

    mean m = sum_k w_k m_k, covariance sum_k w_k (S_k + (m_k - m)(m_k - m)')

    `parts` holds means (K, D) and roots (K, D, D). Of all Gaussians it is the nearest in KL(mixture || .).
    """
    mean = weights @ parts.mean
    share = jnp.sqrt(weights)
    within = jnp.moveaxis(share[:, None, None] * parts.root, 0, 1).reshape(mean.shape[0], -1)
    between = (share[:, None] * (parts.mean - mean)).T
    return Gaussian(mean, _triangular(jnp.concatenate([within, between], axis=1)))


# ---- triangular matrices -----------------------------------------------------------------------------------------------


def _condition_on_first(joint: Gaussian, values: Float[Array, "n"]) -> Gaussian:
    """With joint root [[A, 0], [B, C]], C is the conditional's root and B A^-1 its gain."""
    size = values.shape[0]
    white = _whiten(joint.root[:size, :size], values - joint.mean[:size])
    return Gaussian(joint.mean[size:] + joint.root[size:, :size] @ white, joint.root[size:, size:])


def _triangular(rows: Float[Array, "D K"]) -> Float[Array, "D D"]:
    """The lower Cholesky factor of rows rows', K >= D."""
    if rows.shape[0] == 0:
        return jnp.zeros((0, 0))
    upper = jnp.linalg.qr(rows.T, mode="r")
    return (upper * jnp.where(jnp.diag(upper) < 0, -1.0, 1.0)[:, None]).T


def _whiten(root: Float[Array, "D D"], x: Float[Array, "D *k"]) -> Float[Array, "D *k"]:
    """root^-1 x."""
    return solve_triangular(root, x, lower=True) if x.shape[0] else x


def _half_log_determinant(root: Float[Array, "D D"]) -> Scalar:
    """log|S| / 2."""
    return jnp.sum(jnp.log(jnp.diag(root)))
