"""The noising process of a variance-preserving diffusion, step by step, in terms of log SNR (Kingma et al. 2021, appendix A).

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I),    abar_t = sigmoid(log SNR_t)

Its variance stays that of the data where that is 1: data are standardised. A time s comes before a time t, with more signal.
Differences of log SNR in place of products of alphas lose no digits where steps are small.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar

Form = Literal["data", "noise", "score", "velocity"]


def signal(log_snr: Scalar) -> Scalar:
    """sqrt(abar_t)."""
    return jnp.sqrt(jax.nn.sigmoid(log_snr))


def noise(log_snr: Scalar) -> Scalar:
    """sqrt(1 - abar_t)."""
    return jnp.sqrt(jax.nn.sigmoid(-log_snr))


class Step(NamedTuple):
    """N(factor x, variance I) of one x, or N(factor x_t + data_factor x_0, variance I) of two."""

    factor: Scalar
    variance: Scalar
    data_factor: Scalar | float = 0.0


def transition(earlier: Scalar, later: Scalar) -> Step:
    """q(x_t | x_s) = N(sqrt(abar_t / abar_s) x_s, (1 - abar_t / abar_s) I)."""
    return Step(signal(later) / signal(earlier), -jnp.expm1(later - earlier) * jax.nn.sigmoid(-later))


def reverse(earlier: Scalar, later: Scalar) -> Step:
    """q(x_s | x_t, x_0), by Bayes' theorem: with alpha = abar_t / abar_s

    mean ( sqrt(alpha) (1 - abar_s) x_t + sqrt(abar_s) (1 - alpha) x_0 ) / (1 - abar_t)
    variance (1 - alpha) (1 - abar_s) / (1 - abar_t)      (Ho, Jain and Abbeel 2020, eq. 7)
    """
    fresh = -jnp.expm1(later - earlier)  # (1 - alpha) / (1 - abar_t)
    factor = jnp.exp(later - earlier) * signal(earlier) / signal(later)
    return Step(factor, fresh * jax.nn.sigmoid(-earlier), fresh * signal(earlier))


def step_divergence(form: Form, error: Float[Array, "D"], earlier: Scalar, later: Scalar) -> Scalar:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)), p the same with a prediction in the place of x_0, whose `error` in that form is

    data      (SNR_s - SNR_t) |x_0 - prediction|^2 / 2
    noise     (SNR_s / SNR_t - 1) |eps - prediction|^2 / 2
    score     (SNR_s / SNR_t - 1) (1 - abar_t) |score - prediction|^2 / 2
    velocity  (SNR_s - SNR_t) (1 - abar_t) |v - prediction|^2 / 2
    """
    square, gain = jnp.sum(error**2), jnp.expm1(earlier - later)
    weight = {
        "data": gain * jnp.exp(later),
        "noise": gain,
        "score": gain * jax.nn.sigmoid(-later),
        "velocity": gain * jax.nn.sigmoid(later),
    }[form]
    return 0.5 * weight * square


class Prediction(NamedTuple):
    """What is said of x_0 at x_t, in four forms of which each gives the others.

    x_t = sqrt(abar) data + sqrt(1 - abar) noise
    score = -noise / sqrt(1 - abar)
    velocity = sqrt(abar) noise - sqrt(1 - abar) data       (Salimans and Ho 2022)
    """

    data: Float[Array, "D"]
    noise: Float[Array, "D"]
    score: Float[Array, "D"]
    velocity: Float[Array, "D"]

    @classmethod
    def of(cls, form: Form, value: Float[Array, "D"], x: Float[Array, "D"], log_snr: Scalar) -> "Prediction":
        """From the one of that form, at x = x_t."""
        a, s = signal(log_snr), noise(log_snr)
        if form == "data":
            data, eps = value, (x - a * value) / s
        elif form == "velocity":
            data, eps = a * x - s * value, s * x + a * value
        else:
            eps = -s * value if form == "score" else value
            data = (x - s * eps) / a
        return cls(data, eps, -eps / s, a * eps - s * data)
