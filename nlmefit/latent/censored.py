"""Normal observations of which some are known only to lie below (or above) a limit: M3 and M4 (Beal 2001).

An observation Y ~ N(f, sd^2) that was reported as "below L" contributes P(Y < L), or P(l < Y < L) where it is known to lie
above l; one "above L" contributes P(Y > L). With `positive` (M4) all of the endpoint's observations are known to be above 0:
their densities and probabilities are divided by P(Y > 0).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution, constraints

from nlmefit.data.censoring import Censoring


class CensoredNormal(Distribution):
    """N(loc, scale^2) of which some values were only seen to lie in an interval; `mean`, `variance` and `cdf` are the normal's.

    `cdf` of a censored observation is that of its interval's upper end.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    reparametrized_params = ["loc", "scale"]
    pytree_data_fields = ("loc", "scale", "censoring")

    def __init__(self, loc: Array, scale: Array, censoring: Censoring):
        self.loc, self.scale, self.censoring = loc, scale, censoring
        super().__init__(jnp.shape(loc), validate_args=False)

    @property
    def censored(self) -> Bool[Array, "n"]:
        return self.censoring.flag != 0

    def log_prob(self, value: Array) -> Array:
        error = (value - self.loc) / self.scale
        seen = -0.5 * error**2 - jnp.log(self.scale) - 0.5 * jnp.log(2 * jnp.pi)
        low, high = (self._standardized(end) for end in self.censoring.ends(value))
        hidden = log_probability(low, high)
        found = jnp.where(self.censored, hidden, seen)
        return found - log_ndtr(self.loc / self.scale) if self.censoring.positive else found

    def _standardized(self, end: Array) -> Array:
        """An end of the interval in units of the sd; an infinite one stays out of the arithmetic (and of its derivatives)."""
        finite = jnp.isfinite(end)
        return jnp.where(finite, (jnp.where(finite, end, self.loc) - self.loc) / self.scale, end)

    def cdf(self, value: Array) -> Array:
        upper = jnp.where(self.censored, self.censoring.ends(value)[1], value)
        below = jax.scipy.stats.norm.cdf((upper - self.loc) / self.scale)
        if not self.censoring.positive:
            return below
        negative = jax.scipy.stats.norm.cdf(-self.loc / self.scale)
        return jnp.maximum(below - negative, 0.0) / (1.0 - negative)

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def variance(self) -> Array:
        return self.scale**2

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """What was measured, before the limits were applied."""
        return self.loc + self.scale * jax.random.normal(key, sample_shape + self.batch_shape)


def log_probability(low: Float[Array, "n"], high: Float[Array, "n"]) -> Float[Array, "n"]:
    """log P(low < Z < high) of a standard normal Z, accurate in both tails; either end may be infinite."""
    flipped = jnp.isfinite(low) & (~jnp.isfinite(high) | (low > 0))  # the same interval seen from the other tail
    low, high = jnp.where(flipped, -high, low), jnp.where(flipped, -low, high)
    open_ended = ~jnp.isfinite(low)
    whole = open_ended & ~jnp.isfinite(high)
    top = log_ndtr(jnp.where(whole, 0.0, high))
    width = log_ndtr(jnp.where(open_ended, jnp.where(whole, 0.0, high) - 1.0, low)) - top
    inside = top + jnp.log(-jnp.expm1(width))
    return jnp.where(whole, 0.0, jnp.where(open_ended, top, inside))
