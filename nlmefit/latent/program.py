"""Any latent model as NumPyro programs, written once; the density that every method uses.

The random effects enter whitened: eta = L z with z ~ N(0, I) and Omega = L L'. Methods therefore never invert Omega,
and an omega that goes to zero stays harmless.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Float
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import transforms
from numpyro.infer.reparam import TransformReparam

from nlmefit.core.typing import Scalar, Theta
from nlmefit.latent.model import AbstractLatentModel


def subject_program(model: AbstractLatentModel, theta: Theta, subject: Any, root: Any = None) -> None:
    """One subject: the site `eta` ~ N(0, Omega) and the observed sites. `root` is Omega's Cholesky factor, if known."""
    root = model.omega(theta) if root is None else root
    white = dist.Normal(jnp.zeros(root.shape[0]), 1.0).to_event(1)
    affine = transforms.LowerCholeskyAffine(jnp.zeros(root.shape[0]), root)
    eta = numpyro.sample("eta", dist.TransformedDistribution(white, affine))
    for name, distribution in model.observe(theta, eta, subject).items():
        with handlers.mask(mask=subject.mask[name]):
            numpyro.sample(name, distribution, obs=observation(distribution, subject.observed[name]))


def population_program(model: AbstractLatentModel, subjects: Any, size: int) -> Callable[[], None]:
    """All subjects: theta sites with their priors, a plate of subjects with eta sites, the observed sites.

    The etas are sampled whitened ("eta_base") and `eta` is deterministic, (N, q). `observe` is vmapped outside of any
    `sample`, because a `numpyro.sample` under `vmap` silently shares one draw between subjects.
    """

    @handlers.reparam(config={"eta": TransformReparam()})
    def program() -> None:
        theta = {}
        for name, parameter in model.parameters().items():
            value = jnp.asarray(parameter.start)
            theta[name] = value if parameter.fixed else numpyro.sample(name, parameter.prior)
        root = model.omega(theta)
        q = root.shape[0]
        white = dist.Normal(jnp.zeros((size, q)), 1.0).to_event(1)
        with numpyro.plate("subject", size):
            affine = transforms.LowerCholeskyAffine(jnp.zeros(q), root)
            eta = numpyro.sample("eta", dist.TransformedDistribution(white, affine))
        sites = jax.vmap(lambda e, s: model.observe(theta, e, s))(eta, subjects)
        for name, distribution in sites.items():
            rows = BySubject(distribution, subjects.mask[name])
            with numpyro.plate("subject", size):
                numpyro.sample(name, rows, obs=observation(distribution, subjects.observed[name]))

    return program


class BySubject(dist.Distribution):
    """The rows (n,) of each of N subjects, those that count. `by_subject` is a distribution that was vectorised over subjects.

    It is used as it was made, one subject at a time under `vmap`, so that its parameters may be of any shapes: a scalar that all
    rows have in common stays one.
    """

    pytree_data_fields = ("by_subject", "rows")

    def __init__(self, by_subject: Any, rows: Bool[Array, "N n"]):
        self.by_subject, self.rows = by_subject, jnp.asarray(rows)
        super().__init__(self.rows.shape[:1], self.rows.shape[1:], validate_args=False)

    @property
    def support(self) -> Any:
        return dist.constraints.independent(self.by_subject.support, 1)

    def log_prob(self, value: Any) -> Any:
        terms = jax.vmap(lambda one, value: jnp.broadcast_to(one.log_prob(value), value.shape))(self.by_subject, value)
        return jnp.sum(jnp.where(self.rows, terms, 0.0), axis=-1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        keys = jax.random.split(key, len(self.rows))
        drawn = jax.vmap(lambda one, key: one.sample(key, sample_shape))(self.by_subject, keys)
        return jnp.moveaxis(drawn, 0, len(sample_shape))


class Site(NamedTuple):
    """An observed site at given theta and z: its distribution, the data, and which rows count."""

    distribution: dist.Distribution
    value: Float[Array, "n"]
    mask: Bool[Array, "n"]


def observed_sites(
    model: AbstractLatentModel, theta: Theta, root: Float[Array, "q q"], z: Float[Array, "q"], subject: Any
) -> dict[str, Site]:
    """The observed sites of the one-subject program at eta = root @ z."""
    sites = model.observe(theta, root @ z, subject)
    return {name: Site(d, observation(d, subject.observed[name]), subject.mask[name]) for name, d in sites.items()}


def observation(distribution: dist.Distribution, value: Float[Array, "*n"]) -> Array:
    """The data as the distribution wants them: counts and categories as integers."""
    return jnp.asarray(value).astype(int) if distribution.is_discrete else value


def log_likelihood(sites: dict[str, Site]) -> Scalar:
    """log p(y | theta, z): the observed sites' log densities, masked rows left out."""
    terms = [jnp.where(s.mask, s.distribution.log_prob(s.value), 0.0).sum() for s in sites.values()]
    return jnp.sum(jnp.stack(terms))


def log_prior(z: Float[Array, "q"]) -> Scalar:
    """log N(z; 0, I)."""
    return -0.5 * (z @ z) - 0.5 * z.shape[0] * jnp.log(2 * jnp.pi)


def log_joint(model: AbstractLatentModel, theta: Theta, root: Float[Array, "q q"], z: Float[Array, "q"], subject: Any) -> Scalar:
    """log p(y, z | theta): NumPyro's log density of the one-subject program, reparameterized to z.

    Computed from the sites themselves rather than by a handler stack, which keeps tracing short; a test holds the two
    equal on every example model.
    """
    return log_likelihood(observed_sites(model, theta, root, z, subject)) + log_prior(z)
