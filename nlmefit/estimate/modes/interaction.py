"""Where the residual variance of normal observations is taken: at the individual prediction (interaction), or at eta = 0."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.options import check_truth
from nlmefit.core.typing import Scalar
from nlmefit.estimate.density import Moments, gaussian_log_likelihood, moments
from nlmefit.estimate.modes.at_mode import AbstractAtMode, LocalSites
from nlmefit.estimate.modes.marginal_likelihood import check_covariance
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.latent.program import log_prior


@dataclass(frozen=True)
class AbstractWithInteraction(AbstractAtMode):
    """FOCE and Laplace, with or without interaction."""

    interaction: bool
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
    def notes(self) -> dict[str, str]:
        return interaction_note(self.interaction)


def interaction_note(interaction: bool) -> dict[str, str]:
    """Where the residual variance is taken, in words."""
    where = "the individual prediction" if interaction else "eta = 0, in the inner and the outer problem"
    return {"interaction": f"residual variance at {where}"}


def normal_moments(sites: LocalSites, z: Float[Array, "q"], interaction: bool, method: str) -> Moments:
    """Moments at z; without interaction the variance is that at z = 0."""
    m = moments(sites.mode(z), method)
    if interaction:
        return m
    return m._replace(variance=moments(sites.zero(jnp.zeros_like(z)), method).variance)


def normal_inner(sites: LocalSites, z: Float[Array, "q"], interaction: bool, method: str) -> Scalar:
    """-log p(y, z) of normal observations."""
    return -gaussian_log_likelihood(normal_moments(sites, z, interaction, method)) - log_prior(z)
