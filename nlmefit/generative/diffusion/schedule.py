"""Noise schedules of diffusions: the signal-to-noise ratio by time, from t = 0 (data) to t = 1 (noise).

log SNR(t) = log( abar_t / (1 - abar_t) ),    abar_t = sigmoid(log SNR(t)),    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps
"""

import abc
import math
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import ModelError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds


class AbstractSchedule(eqx.Module):
    """log SNR as a decreasing function of t."""

    @abc.abstractmethod
    def log_snr(self, t: Scalar) -> Scalar:
        """At a time of [0, 1]."""

    def built(self, key: Array) -> "AbstractSchedule":
        """With weights, where it is learned."""
        return self

    def slope(self, t: Scalar) -> Scalar:
        """d log SNR / dt, below 0."""
        return jax.grad(self.log_snr)(t)

    def beta(self, t: Scalar) -> Scalar:
        """-d log abar / dt, the rate of the stochastic differential equation dx = -beta x dt / 2 + sqrt(beta) dw."""
        return -jax.nn.sigmoid(-self.log_snr(t)) * self.slope(t)


class AbstractEnds(AbstractSchedule):
    """With log SNR `highest` at t = 0 and `lowest` at t = 1."""

    highest: eqx.AbstractVar[float]
    lowest: eqx.AbstractVar[float]

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if not -60 < self.lowest < self.highest < 60:
            raise ModelError(
                f"{type(self).__name__} needs log signal-to-noise ratios lowest < highest between -60 and 60, got lowest="
                f"{self.lowest!r}, highest={self.highest!r}."
            )


@final
class LinearLogSNR(AbstractEnds):
    """log SNR linear in t (Kingma, Salimans, Poole and Ho 2021)."""

    highest: float = 10.0
    lowest: float = -8.0

    def log_snr(self, t: Scalar) -> Scalar:
        return self.highest + (self.lowest - self.highest) * t


@final
class Cosine(AbstractEnds):
    """sqrt(abar) = cos(pi u / 2), u linear in t (Nichol and Dhariwal 2021), log SNR = -2 log tan(pi u / 2) between its ends."""

    highest: float = 10.0
    lowest: float = -8.0

    def log_snr(self, t: Scalar) -> Scalar:
        first, last = math.atan(math.exp(-self.highest / 2)), math.atan(math.exp(-self.lowest / 2))
        return -2 * jnp.log(jnp.tan(first + (last - first) * t))


@final
class LinearBeta(AbstractSchedule):
    """beta linear in time, from `least` to `most` (Ho, Jain and Abbeel 2020; Song et al. 2021, "VP").

    Its log SNR is infinite at time 0: t = 0 is where it is `highest`. Raises ModelError unless 0 < least < most.
    """

    least: float = 0.1
    most: float = 20.0
    highest: float = 10.0

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if not (0 < self.least < self.most and self.highest < 40):
            raise ModelError(f"LinearBeta needs 0 < least < most and highest below 40, got {self!r}.")

    def log_snr(self, t: Scalar) -> Scalar:
        rise, total = self.most - self.least, math.log1p(math.exp(-self.highest))
        first = 2 * total / (self.least + math.sqrt(self.least**2 + 2 * rise * total))  # beta's integral is `total` there
        time = first + (1 - first) * t
        return -jnp.log(jnp.expm1(self.least * time + 0.5 * rise * time**2))


@final
class LearnedSchedule(AbstractEnds):
    """log SNR between its ends by a network that decreases in t (Kingma et al. 2021, appendix H),

        f(t) = a t + sum_k b_k sigmoid(c_k t + d_k),   a, b_k, c_k > 0,

    of `units` terms, scaled to the ends. In continuous time the bound does not depend on what is between the ends: the
    network is trained to lower the variance of its estimate (section 5.2), which is what learning it is for.
    """

    highest: float = 10.0
    lowest: float = -8.0
    units: int = eqx.field(static=True, default=16)
    weights: Float[Array, "3 k"] | None = None
    straight: Float[Array, ""] | None = None

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        check_whole("units", self.units, 1)

    def built(self, key: Array) -> "AbstractSchedule":
        if self.weights is not None:
            return self
        size = jnp.full(self.units, -4.0)
        steep = jnp.full(self.units, 10.0)
        places = -steep * (jnp.arange(self.units) + 0.5) / self.units
        return LearnedSchedule(self.highest, self.lowest, self.units, jnp.stack([size, steep, places]), jnp.zeros(()))

    def log_snr(self, t: Scalar) -> Scalar:
        if self.weights is None or self.straight is None:
            raise ModelError("this LearnedSchedule has no values yet: fit the diffusion that it is part of.")
        straight, (size, steep, place) = jax.nn.softplus(self.straight), self.weights

        def raw(t: Scalar) -> Scalar:
            return straight * t + jax.nn.softplus(size) @ jax.nn.sigmoid(jax.nn.softplus(steep) * t + place)

        share = (raw(t) - raw(jnp.zeros_like(t))) / (raw(jnp.ones_like(t)) - raw(jnp.zeros_like(t)))
        return self.highest + (self.lowest - self.highest) * share
