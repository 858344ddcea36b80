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

from nlmefit.core.options import check_truth
from nlmefit.core.typing import Scalar
from nlmefit.estimate.density import Moments, Sites, gaussian_log_likelihood, moments
from nlmefit.estimate.factor import factorize, log_determinant
from nlmefit.estimate.modes.at_mode import AbstractAtMode, SitesAt, implicitly, two_log_integral
from nlmefit.estimate.modes.empirical_bayes import Mode
from nlmefit.estimate.modes.marginal_likelihood import check_covariance
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.latent.program import log_prior


@final
@dataclass(frozen=True)
class FOCE(AbstractAtMode):
    """First-order conditional estimation; `interaction=True` is NONMEM's FOCEI.

    `covariance` chooses the standard errors: "sandwich" (NONMEM's default), "R", "S" or "none".

    Random effects are sought from eta = 0, as NONMEM does; a fit's status names subjects that have a better mode elsewhere.
    `all_modes=True` seeks every subject's best mode from many starts, at 1 + 4q times the work.
    """

    interaction: bool = False
    covariance: Covariance = "sandwich"
    all_modes: bool = False

    def __post_init__(self) -> None:
        check_truth("interaction", self.interaction)
        check_truth("all_modes", self.all_modes)
        check_covariance(self.covariance)

    @property
    def order(self) -> int:
        return 2

    @property
    def at_origin(self) -> bool:
        return not self.interaction

    @property
    def name(self) -> str:
        return "FOCE with interaction" if self.interaction else "FOCE"

    @property
    def notes(self) -> dict[str, str]:
        return interaction_note(self.interaction)

    def inner(self, sites: Sites, z: Float[Array, "q"]) -> Scalar:
        return inner(sites, z, self.interaction, "FOCE")

    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array]:
        return implicitly(self._linearized, sites_at, u, mode.z)

    def _linearized(self, sites: Sites, z: Float[Array, "q"]) -> tuple[Scalar, Float[Array, "q"]]:
        """-2 log L_i, and the gradient of `inner`, from one Jacobian."""

        def spread(z: Array) -> tuple[tuple[Array, Array], Moments]:
            m = frozen(sites, z, self.interaction, "FOCE")
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


def interaction_note(interaction: bool) -> dict[str, str]:
    """Where the residual variance is taken, in words."""
    where = "the individual prediction" if interaction else "eta = 0, in the inner and the outer problem"
    return {"interaction": f"residual variance at {where}"}


def frozen(sites: Sites, z: Float[Array, "q"], interaction: bool, method: str) -> Moments:
    """Moments at z; without interaction the variance is that at z = 0."""
    m = moments(sites(z), method)
    if interaction:
        return m
    return m._replace(variance=moments(sites.origin(jnp.zeros_like(z)), method).variance)


def inner(sites: Sites, z: Float[Array, "q"], interaction: bool, method: str) -> Scalar:
    """-log p(y, z) of normal observations."""
    return -gaussian_log_likelihood(frozen(sites, z, interaction, method)) - log_prior(z)
