"""First-order estimation (Beal and Sheiner 1982): the model linearized in eta at 0, residual variance at eta = 0.

    y_i ~ N(f(0), J J' + V(0)),   J = df/dz at z = 0

log|J J' + V| and the quadratic form by the q x q matrix I + J' V^-1 J (Woodbury).
"""

from dataclasses import dataclass
from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar
from nlmefit.estimate.density import Moments, gaussian_log_likelihood, moments
from nlmefit.estimate.factor import factorize, log_determinant, solve
from nlmefit.estimate.modes.at_mode import AbstractAtMode, LocalSites, SitesAt
from nlmefit.estimate.modes.empirical_bayes import Mode
from nlmefit.estimate.modes.interaction import normal_inner
from nlmefit.estimate.modes.marginal_likelihood import check_covariance
from nlmefit.estimate.standard_errors import Covariance


@final
@dataclass(frozen=True)
class FO(AbstractAtMode):
    """First-order estimation. Random effects reported afterwards are the modes at the final estimates (post hoc).

    `covariance` as for `FOCE`.
    """

    covariance: Covariance = "sandwich"

    def __post_init__(self) -> None:
        check_covariance(self.covariance)

    @property
    def order(self) -> int:
        return 2

    @property
    def at_origin(self) -> bool:
        return True

    @property
    def name(self) -> str:
        return "FO"

    @property
    def has_modes(self) -> bool:
        return False

    def inner(self, sites: LocalSites, z: Float[Array, "q"]) -> Scalar:
        return normal_inner(sites, z, False, "FO")

    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array, Array]:
        origin = jnp.zeros_like(mode.z)

        def both(u: Array) -> tuple[Scalar, Scalar]:
            value = _linearized(sites_at(u), origin)
            return value, value

        gradient, value = jax.jacfwd(both, has_aux=True)(u)
        return value, gradient, jnp.zeros((mode.z.shape[0], u.shape[0]))


def _linearized(sites: LocalSites, origin: Float[Array, "q"]) -> Scalar:
    """-2 log L_i."""

    def mean(z: Array) -> tuple[Array, Moments]:
        m = moments(sites.zero(z), "FO")
        return m.mean, m

    slope, m = jax.jacfwd(mean, has_aux=True)(origin)
    slope = jnp.where(m.mask[:, None], slope, 0.0)
    weight = jnp.where(m.mask, 1.0 / m.variance, 0.0)
    factor = factorize(jnp.eye(origin.shape[0]) + slope.T @ (weight[:, None] * slope))
    right = slope.T @ (weight * (m.value - m.mean))
    explained = right @ solve(factor, right)
    return -2.0 * gaussian_log_likelihood(m) - explained + log_determinant(factor)
