"""Variational diffusion models (Sohl-Dickstein et al. 2015; Ho, Jain and Abbeel 2020; Kingma, Salimans, Poole and Ho 2021).

A hierarchical VAE whose latent variables x_t are the data with ever more noise, and whose encoder q(x_t | x_0) is therefore
fixed. The bound is one over a time t, uniform in [0, 1]:

    log p(x_0) >= E[log p(x_0 | x at t=0)] - KL(q(x at t=1 | x_0) || N(0, I)) - E_t[ -SNR'(t) |x_0 - prediction(x_t, t)|^2 / 2 ]

or, with T steps, T (SNR(s) - SNR(t)) in the place of -SNR'(t). In continuous time it depends on the schedule's ends only.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Self, final, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError, ModelError
from nlmefit.core.networks import MLP
from nlmefit.core.options import brief
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractSampler, in_blocks
from nlmefit.generative.diffusion.noising import Form, Prediction, noise, reverse, signal, step_divergence
from nlmefit.generative.diffusion.schedule import AbstractSchedule, LearnedSchedule, LinearLogSNR
from nlmefit.generative.rows import Samples
from nlmefit.generative.standard import AbstractStandardized, Standard
from nlmefit.generative.variational.bound import AbstractStratified, AbstractUnconditional

STEPS = 250
"""Of ancestral sampling, where time is continuous."""
FREQUENCIES = 4
"""Of the sines and cosines of log SNR that a network reads."""


class AbstractDiffusion(AbstractStandardized, AbstractSampler):
    """A noising process, and a prediction of the data from the noised data."""

    @property
    @abc.abstractmethod
    def schedule(self) -> AbstractSchedule:
        """The noise by time."""

    @property
    @abc.abstractmethod
    def steps(self) -> int | None:
        """None where time is continuous."""

    @abc.abstractmethod
    def predicted(self, x: Float[Array, "D"], log_snr: Scalar, given: Float[Array, "C"]) -> Prediction:
        """At x_t, in standardised units; conditions in the data's, NaN for none."""

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        """By ancestral sampling (Ho, Jain and Abbeel 2020, algorithm 2), in `steps` steps or 250."""
        return ancestral(self, key, given, self.steps or STEPS, 1.0)

    def score_at(self, x: Float[Array, "D"], t: Scalar, given: Float[Array, "C"]) -> Float[Array, "D"]:
        """The prediction of d log p_t(x) / dx, p_t the law of the data with the noise of time t, in the data's units."""
        predicted = self.predicted(self.units.x(x), self.schedule.log_snr(t), given)
        return predicted.score / jnp.asarray(self.units.scale, x.dtype)

    def stein_score(self, X: Any, t: float = 0.0, *, given: Any = None) -> Float[np.ndarray, "N D"]:
        """d log p_t(x) / dx by row, of the data with the noise of time t: t = 0 the data (but for the schedule's least noise),
        t = 1 noise.

        Raises MethodError for a time outside [0, 1], DataError for another number of columns or values that are not finite.
        """
        if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t <= 1:
            raise MethodError(f"t must be a time from 0 (data) to 1 (noise), got {t!r}.")
        X = self._rows(X)
        return in_blocks(_score_at, self, X, np.full(len(X), float(t)), self._given(given, len(X)))


class TimeNetwork(eqx.Module):
    """A network of x_t, of log SNR through itself and sines and cosines, and of conditions, whose absence (NaN) it is told."""

    layers: eqx.nn.MLP

    def __call__(self, x: Float[Array, "D"], log_snr: Scalar, given: Float[Array, "C"]) -> Float[Array, "D"]:
        log_snr = jnp.asarray(log_snr, x.dtype)
        angles = log_snr * jnp.pi / 16 * (1 + jnp.arange(FREQUENCIES, dtype=x.dtype))
        parts = [x, log_snr[None] / 8, jnp.sin(angles), jnp.cos(angles)]
        if len(given):
            absent = jnp.any(jnp.isnan(given))
            parts += [jnp.where(absent, 0.0, given), jnp.where(absent, 1.0, 0.0)[None].astype(x.dtype)]
        return self.layers(jnp.concatenate(parts))


@final
class Diffusion(AbstractDiffusion, AbstractStratified, AbstractUnconditional):
    """A diffusion model; conditional where it is fitted to (X, given).

    **Everyday arguments:** `network`, a `gen.MLP(...)` (or an equinox module of your own, called as network(x_t, log_snr, given)
    in standardised units); `schedule` of the noise: `gen.LinearLogSNR()`, `gen.Cosine()`, `gen.LinearBeta()` or
    `gen.LearnedSchedule()`.

    **Others:** `predicts` what the network gives: "velocity", "noise", "data" or "score"; `steps`, None for continuous time;
    `standardised`, whether columns are brought to mean 0 and variance 1, which a variance-preserving process needs.

    Fitted by `gen.VariationalBound()` or `gen.DenoisingScoreMatching()`. `sample` is ancestral; `gen.DDIM`, `gen.ReverseSDE` and
    `gen.ProbabilityFlow` sample in other ways, the last with a density. Raises ModelError for other arguments.
    """

    network: Any = MLP(128, 3)
    schedule: AbstractSchedule = LinearLogSNR()
    predicts: Form = eqx.field(static=True, default="velocity")
    steps: int | None = eqx.field(static=True, default=None)
    standardised: bool = eqx.field(static=True, default=True)
    standard: Standard | None = None
    fitted_by: ClassVar[tuple[str, ...]] = ("VariationalBound", "DenoisingScoreMatching")

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if isinstance(self.network, type) or not (isinstance(self.network, MLP) or callable(self.network)):
            raise ModelError(f"Diffusion(network=...) must be a gen.MLP(...) or a module to call, got {brief(self.network)}.")
        if not isinstance(self.schedule, AbstractSchedule):
            raise ModelError(f"Diffusion(schedule=...) must be one such as gen.LinearLogSNR(), got {self.schedule!r}.")
        if self.predicts not in get_args(Form):
            raise ModelError(f"Diffusion(predicts=...) must be one of {', '.join(get_args(Form))}, got {self.predicts!r}.")
        if self.steps is not None and (isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1):
            raise ModelError(f"Diffusion(steps=...) must be a whole number from 1 up, or None, got {self.steps!r}.")

    def built(self, data: Samples, key: Array) -> Self:
        if self.standard is not None:
            return self
        columns, conditions = data.x.shape[1], data.given.shape[1]
        first, second = jax.random.split(key)
        network = self.network
        if isinstance(network, MLP):
            inputs = columns + 1 + 2 * FREQUENCIES + (conditions + 1 if conditions else 0)
            network = TimeNetwork(_still(network.build(inputs, columns, first)))
        standard = Standard.of(data) if self.standardised else Standard.none(data)
        return dataclasses.replace(self, network=network, schedule=self.schedule.built(second), standard=standard)

    def predicted(self, x: Float[Array, "D"], log_snr: Scalar, given: Float[Array, "C"]) -> Prediction:
        return Prediction.of(self.predicts, self.network(x, log_snr, self.units.given(given)), x, log_snr)

    def bound(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        first, second = jax.random.split(key)
        return self.bound_at(x, given, first, jax.random.uniform(second))

    def bound_at(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array, uniform: Scalar) -> Scalar:
        """The bound with its term of time at that time, and one draw of x_t."""
        x, uniform = self.units.x(x), uniform.astype(x.dtype)
        eps = jax.random.normal(key, x.shape, x.dtype)
        ends = self._reconstruction(len(x)) - self._prior_divergence(x)
        bound = ends - self.units.log_volume.astype(x.dtype)
        if self.steps is not None or not isinstance(self.schedule, LearnedSchedule):
            return bound - self._through_noise(x, given, eps, uniform)
        # the network lowers the mean, in which the schedule is not seen; the schedule lowers the square
        bound = bound - dataclasses.replace(self, schedule=held(self.schedule))._through_noise(x, given, eps, uniform)
        square = dataclasses.replace(self, network=held(self.network))._through_noise(x, given, eps, uniform) ** 2
        return bound - 1e-3 / len(x) ** 2 * (square - jax.lax.stop_gradient(square))  # 0 but for its derivative

    def _through_noise(self, x: Array, given: Array, eps: Array, uniform: Scalar) -> Scalar:
        """The divergences of all steps, from one time."""
        schedule = self.schedule
        if self.steps is None:
            log_snr, slope = jax.value_and_grad(schedule.log_snr)(uniform)
        else:
            place = jnp.floor(uniform * self.steps)
            earlier, log_snr = schedule.log_snr(place / self.steps), schedule.log_snr((place + 1) / self.steps)
        error = eps - self.predicted(signal(log_snr) * x + noise(log_snr) * eps, log_snr, given).noise
        if self.steps is None:
            return -0.5 * slope * jnp.sum(error**2)
        return self.steps * step_divergence("noise", error, earlier, log_snr)

    def _reconstruction(self, size: int) -> Scalar:
        """E[log N(x_0; x / sqrt(abar), (1 - abar) / abar I)], x the data with the noise of time 0."""
        return 0.5 * size * (self.schedule.log_snr(jnp.zeros(())) - 1 - jnp.log(2 * jnp.pi))

    def _prior_divergence(self, x: Array) -> Scalar:
        """KL(q(x at t=1 | x_0) || N(0, I))."""
        log_snr = self.schedule.log_snr(jnp.ones((), x.dtype))
        return 0.5 * jnp.sum(jax.nn.sigmoid(log_snr) * (x**2 - 1) - jax.nn.log_sigmoid(-log_snr))


def ancestral(model: AbstractDiffusion, key: Array, given: Array, steps: int, stochastic: float) -> Float[Array, "D"]:
    """From noise back to data in equal steps of t, each to N(mean, stochastic^2 v), v the variance of q(x_s | x_t, x_0):

        mean = sqrt(abar_s) data + sqrt(1 - abar_s - stochastic^2 v) noise,    data and noise as predicted at x_t

    (Song, Meng and Ermon 2021, eq. 12): 1 is ancestral sampling, 0 deterministic.
    """
    first, last, rest = jax.random.split(key, 3)
    size = len(model.units.center)
    step = _backward(model, given, steps, stochastic)
    x, _ = jax.lax.scan(lambda x, at: (step(x, at), None), jax.random.normal(first, (size,)), _course(rest, steps))
    log_snr = model.schedule.log_snr(jnp.zeros(()))
    return model.units.back((x + stochastic * noise(log_snr) * jax.random.normal(last, (size,))) / signal(log_snr))


def ancestral_path(model: AbstractDiffusion, key: Array, given: Array, steps: int) -> Float[Array, "steps+1 D"]:
    """x_t at t = 1, 1 - 1/steps ... 0 on the way of one sample of `ancestral`, in standardised units."""
    first, _, rest = jax.random.split(key, 3)
    start = jax.random.normal(first, (len(model.units.center),))
    step = _backward(model, given, steps, 1.0)
    _, later = jax.lax.scan(lambda x, at: (step(x, at),) * 2, start, _course(rest, steps))
    return jnp.concatenate([start[None], later])


def _backward(model: AbstractDiffusion, given: Array, steps: int, stochastic: float) -> Any:
    """A draw of x at (k - 1) / steps given x at k / steps."""

    def step(x: Array, at: tuple[Array, Array]) -> Array:
        k, key = at
        earlier, later = model.schedule.log_snr((k - 1) / steps), model.schedule.log_snr(k / steps)
        said = model.predicted(x, later, given)
        variance = stochastic**2 * reverse(earlier, later).variance
        kept = jnp.sqrt(jnp.maximum(jax.nn.sigmoid(-earlier) - variance, 0.0))
        return signal(earlier) * said.data + kept * said.noise + jnp.sqrt(variance) * jax.random.normal(key, x.shape)

    return step


def _course(key: Array, steps: int) -> tuple[Array, Array]:
    return jnp.arange(steps, 0, -1, dtype=float), jax.random.split(key, steps)


def _still(network: eqx.nn.MLP) -> eqx.nn.MLP:
    """With a last layer of zeros: training starts from the prediction 0."""
    return eqx.tree_at(lambda n: n.layers[-1], network, replace_fn=lambda layer: jax.tree.map(jnp.zeros_like, layer))


def held(part: Any) -> Any:
    """With weights that are not differentiated."""
    return jax.tree.map(lambda w: jax.lax.stop_gradient(w) if eqx.is_inexact_array(w) else w, part)


def _score_at(model: AbstractDiffusion, x: Array, t: Array, given: Array) -> Array:
    return model.score_at(x, t, given)
