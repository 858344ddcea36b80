"""What a method reads of one subject at given theta: the joint density of (y, z), and Gaussian moments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution, Normal

from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar, Theta
from nlmefit.latent.censored import CensoredNormal
from nlmefit.latent.distribution import family, unwrapped
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.program import Site, log_likelihood, log_prior, observed_sites


class Sites:
    """The observed sites of one subject as a function of z, at fixed theta."""

    def __init__(self, model: AbstractLatentModel, theta: Theta, root: Any, subject: Any):
        self.model, self.theta, self.root, self.subject = model, theta, root, subject

    def __call__(self, z: Float[Array, "q"]) -> dict[str, Site]:
        return observed_sites(self.model, self.theta, self.root, z, self.subject)

    def by(self, model: AbstractLatentModel) -> "Sites":
        """The same of another model of the subject: one that is expanded."""
        return Sites(model, self.theta, self.root, self.subject)

    def taylor_expanded(self, z: Float[Array, "q"], order: int) -> "Sites":
        """With polynomials around z in place of differential equations. They are constants: derivatives go through their argument
        alone."""
        theta, eta = jax.lax.stop_gradient((self.theta, self.root @ z))
        return self.by(self.model.taylor_expanded(theta, eta, self.subject, order))


def log_joint(sites: Sites, z: Float[Array, "q"]) -> Scalar:
    """log p(y, z | theta)."""
    return log_likelihood(sites(z)) + log_prior(z)


class Moments(NamedTuple):
    """All Gaussian observations of a subject in one vector: data, mean, variance, and which rows count."""

    value: Float[Array, "n"]
    mean: Float[Array, "n"]
    variance: Float[Array, "n"]
    mask: Bool[Array, "n"]


def is_gaussian(distribution: Distribution) -> bool:
    """Whether a site is normal (possibly expanded)."""
    return isinstance(unwrapped(distribution), Normal)


def moments(sites: dict[str, Site], method: str) -> Moments:
    """Moments of all sites; MethodError where one is not normal."""
    for name, site in sites.items():
        if isinstance(site.distribution, CensoredNormal):
            raise MethodError(
                f"{method} linearizes normal observations, and some of `{name}` are only known to lie beyond a limit (CENS). Use "
                "nm.Laplace(), nm.SAEM() or another method that reads their probability, or leave them out: "
                "nm.Subjects.from_frame(data, model, blq='M1')."
            )
        if not is_gaussian(site.distribution):
            raise MethodError(
                f"{method} linearizes normal observations; `{name}` is {family(site.distribution)}. Use nm.Laplace() or "
                "nm.Quadrature(), which read the density itself."
            )

    def join(pick: Callable[[Site], Array]) -> Array:
        return jnp.concatenate([jnp.broadcast_to(pick(s), s.value.shape) for s in sites.values()])

    return Moments(
        join(lambda s: s.value),
        join(lambda s: s.distribution.mean),
        join(lambda s: s.distribution.variance),
        join(lambda s: s.mask),
    )


def gaussian_log_likelihood(m: Moments) -> Scalar:
    """log N(value; mean, variance), summed over the rows that count."""
    terms = (m.value - m.mean) ** 2 / m.variance + jnp.log(2 * jnp.pi * m.variance)
    return -0.5 * jnp.sum(jnp.where(m.mask, terms, 0.0))
