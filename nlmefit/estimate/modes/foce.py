"""First-order conditional estimation (Lindstrom and Bates 1990), with or without interaction (NONMEM's FOCE, FOCEI).

    -2 log L_i = 2 l_i(z*) + log|H|,   H = I + J' V^-1 J + 1/2 C' C,   C = (dV/dz) / V

J is the Jacobian of the predictions at the mode z*. With interaction V and l_i are those at z*. Without, the residual
variance is that at eta = 0 in the inner and the outer problem, and C = 0.
"""

from dataclasses import dataclass
from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar
from nlmefit.estimate.density import Moments, gaussian_log_likelihood
from nlmefit.estimate.factor import factorize, log_determinant
from nlmefit.estimate.modes.at_mode import LocalSites, SitesAt, implicitly, two_log_integral
from nlmefit.estimate.modes.empirical_bayes import Mode
from nlmefit.estimate.modes.interaction import AbstractWithInteraction, normal_inner, normal_moments
from nlmefit.latent.program import log_prior


@final
@dataclass(frozen=True)
class FOCE(AbstractWithInteraction):
    """First-order conditional estimation; `interaction=True` is NONMEM's FOCEI.

    `covariance` chooses the standard errors: "sandwich" (NONMEM's default), "R", "S" or "none".

    Random effects are sought from eta = 0, as NONMEM does; a fit's status names subjects that have a better mode elsewhere.
    `all_modes=True` seeks every subject's best mode from many starts, at 1 + 4q times the work.
    """

    interaction: bool = False

    @property
    def name(self) -> str:
        return "FOCE with interaction" if self.interaction else "FOCE"

    def inner(self, sites: LocalSites, z: Float[Array, "q"]) -> Scalar:
        return normal_inner(sites, z, self.interaction, "FOCE")

    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array, Array]:
        return implicitly(self._linearized, sites_at, u, mode.z)

    def _linearized(self, sites: LocalSites, z: Float[Array, "q"]) -> tuple[Scalar, Float[Array, "q"]]:
        """-2 log L_i, and the gradient of `inner`, from one Jacobian."""

        def spread(z: Array) -> tuple[tuple[Array, Array], Moments]:
            m = normal_moments(sites, z, self.interaction, "FOCE")
            return (m.mean, m.variance), m

        (slope, widening), m = jax.jacfwd(spread, has_aux=True)(z)
        counted = m.mask[:, None]
        slope, widening = jnp.where(counted, slope, 0.0), jnp.where(counted, widening, 0.0)
        weight = jnp.where(m.mask, 1.0 / m.variance, 0.0)
        relative = weight[:, None] * widening
        hessian = jnp.eye(z.shape[0]) + slope.T @ (weight[:, None] * slope) + 0.5 * relative.T @ relative
        error = m.value - m.mean
        gradient = z - slope.T @ (weight * error) + 0.5 * relative.T @ jnp.where(m.mask, 1.0 - weight * error**2, 0.0)
        value = -gaussian_log_likelihood(m) - log_prior(z)
        return two_log_integral(value, log_determinant(factorize(hessian)), z.shape[0]), gradient
