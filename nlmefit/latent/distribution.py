"""What `observe` may give for an endpoint: a NumPyro distribution by record, and what the family is called."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.special import gammaln
from numpyro import distributions as dist
from numpyro.distributions import Distribution
from numpyro.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)

from nlmefit.core.errors import ModelError

TRUNCATED = LeftTruncatedDistribution | RightTruncatedDistribution | TwoSidedTruncatedDistribution


class ByRecord(Distribution):
    """The distributions (n,) of a subject's records, vectorised. Each is used as it was made, one record at a time under `vmap`:
    what is inside of it (the normal distribution of a log-normal one, the parts of a mixture) knows nothing of the others.
    """

    pytree_data_fields = ("base_dist",)

    def __init__(self, base_dist: Any, rows: int):
        self.base_dist = base_dist
        super().__init__((rows,), (), validate_args=False)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    @property
    def mean(self) -> Any:
        return jax.vmap(lambda one: one.mean)(self.base_dist)

    @property
    def variance(self) -> Any:
        return jax.vmap(lambda one: one.variance)(self.base_dist)

    def log_prob(self, value: Any) -> Any:
        return jax.vmap(_log_prob)(self.base_dist, value)

    def cdf(self, value: Any) -> Any:
        return jax.vmap(lambda one, value: one.cdf(value))(self.base_dist, value)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        keys = jax.random.split(key, self.batch_shape)
        drawn = jax.vmap(lambda one, key: one.sample(key, sample_shape))(self.base_dist, keys)
        return jnp.moveaxis(drawn, 0, -1)


def _log_prob(one: Distribution, value: Any) -> Any:
    """NumPyro's, but for Student's t: that one squares by a power of 2.0, whose third derivative is no number where y is 0."""
    if type(one) is not dist.StudentT:
        return one.log_prob(value)
    y, df = (value - one.loc) / one.scale, one.df
    constant = gammaln(df / 2) - gammaln((df + 1) / 2) + 0.5 * jnp.log(df * jnp.pi)
    return -0.5 * (df + 1) * jnp.log1p(y * y / df) - jnp.log(one.scale) - constant


WRAPPED = ByRecord | dist.ExpandedDistribution | dist.MaskedDistribution | dist.Independent


def mean_of(value: Any) -> Any:
    """The mean of a distribution, NaN of one that has none; a number itself."""
    return _or_nan(value, "mean") if isinstance(value, Distribution) else value


def variance_of(distribution: Distribution) -> Any:
    """The variance of a distribution, NaN of one that has none."""
    return _or_nan(distribution, "variance")


def _or_nan(distribution: Distribution, moment: str) -> Any:
    try:
        return getattr(distribution, moment)
    except NotImplementedError:
        return jnp.full(distribution.batch_shape, jnp.nan)


def family(distribution: Distribution) -> str:
    """The name of a distribution's family as the modeller wrote it: "TruncatedNormal", "Bernoulli"."""
    own = unwrapped(distribution)
    if isinstance(own, TRUNCATED):
        return f"Truncated{family(own.base_dist)}"
    name = type(own).__name__.removesuffix("Logits").removesuffix("Probs")
    return f"ZeroInflated{family(own.base_dist)}" if name == "ZeroInflated" else name


def unwrapped(distribution: Distribution) -> Distribution:
    """Without expansions, masks and independent dimensions around it."""
    while isinstance(distribution, WRAPPED):
        distribution = distribution.base_dist
    return distribution


def of_records(model: str, name: str, distribution: Distribution, shape: tuple[int, ...]) -> Distribution:
    """A distribution for each record, of which there are as many as the shape says.

    Records are independent given the random effects. A joint distribution of them is taken apart where it is a product of theirs
    (`to_event`, a normal one without covariances). ModelError for any other, and for vectors.
    """
    given = f"{model}: `observe` gives `{name}` a {family(distribution)}"
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    if isinstance(distribution, dist.MultivariateNormal):
        distribution = _apart(given, distribution)
    if distribution.event_shape:
        raise ModelError(
            f"{given}, a distribution of vectors; a record has one DV. Give a distribution of numbers, and each part of "
            "the vector its own endpoint (DVID)."
        )
    if distribution.batch_shape == shape:
        return distribution
    try:
        return distribution.expand(shape)
    except ValueError:
        raise ModelError(
            f"{given} with parameters of shape {distribution.batch_shape}; a record has one DV: give it one number of each."
        ) from None


def _apart(given: str, joint: dist.MultivariateNormal) -> Distribution:
    """The marginals of a normal distribution whose covariances are 0.

    Where they are not, ModelError, or in a compiled program, which cannot look at values, no numbers: whoever finds those calls
    `observe` by itself to say why, and has the error then.
    """
    root: Any = joint.scale_tril
    variance = jnp.sum(root**2, axis=-1)
    covariance = root @ jnp.swapaxes(root, -1, -2)
    rest = covariance - variance[..., None] * jnp.eye(variance.shape[-1])
    correlated = jnp.any(jnp.abs(rest) > 1e-12 * jnp.max(variance))
    if not isinstance(correlated, Tracer) and correlated:
        raise ModelError(
            f"{given} with covariances between records; `observe` means one record at a time, and records are independent given "
            "the random effects. Write what records share as a random effect (iiv, iov), and each record's own error as "
            "numpyro.distributions.Normal or a residual model."
        )
    return dist.Normal(joint.loc, jnp.where(correlated, jnp.nan, jnp.sqrt(variance)), validate_args=False)
