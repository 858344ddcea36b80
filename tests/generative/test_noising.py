"""The noising process, forms of prediction and schedules, against Bayes' theorem and products of alphas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.diffusion.noising import Prediction, noise, reverse, signal, step_divergence, transition

ALPHA = 1 - np.linspace(0.1, 0.4, 5)
ABAR = np.cumprod(ALPHA)
LOG_SNR = np.log(ABAR / (1 - ABAR))
SCHEDULES = [
    gen.LinearLogSNR(8.0, -6.0),
    gen.Cosine(8.0, -6.0),
    gen.LinearBeta(),
    gen.LearnedSchedule(8.0, -6.0).built(jax.random.key(0)),
]


def test_d1_steps_compose():
    """q(x_t | x_0) = N(sqrt(abar) x_0, (1 - abar) I), and variance 1 stays 1, to 1e-14."""
    factor, variance = 1.0, 0.0
    for alpha, earlier, later in zip(ALPHA[1:], LOG_SNR[:-1], LOG_SNR[1:], strict=True):
        step = transition(earlier, later)
        np.testing.assert_allclose([step.factor, step.variance], [np.sqrt(alpha), 1 - alpha], rtol=1e-13)
        assert step.factor**2 + step.variance == pytest.approx(1.0, abs=1e-14)
        factor, variance = factor * step.factor, step.factor**2 * variance + step.variance
    mean, spread = factor * np.sqrt(ABAR[0]), variance + factor**2 * (1 - ABAR[0])
    np.testing.assert_allclose([mean, spread], [signal(LOG_SNR[-1]), noise(LOG_SNR[-1]) ** 2], rtol=1e-14)


@pytest.mark.parametrize("t", [1, 3])
def test_d2_d4_the_posterior_is_that_of_bayes(t):
    x0, x = 0.7, -0.4
    precision = ALPHA[t] / (1 - ALPHA[t]) + 1 / (1 - ABAR[t - 1])
    mean = (np.sqrt(ALPHA[t]) * x / (1 - ALPHA[t]) + np.sqrt(ABAR[t - 1]) * x0 / (1 - ABAR[t - 1])) / precision
    step = reverse(LOG_SNR[t - 1], LOG_SNR[t])
    assert step.factor * x + step.data_factor * x0 == pytest.approx(mean, abs=1e-14)
    assert step.variance == pytest.approx(1 / precision, abs=1e-14)
    eps = (x - np.sqrt(ABAR[t]) * x0) / np.sqrt(1 - ABAR[t])  # the same mean from the noise
    by_noise = (x - (1 - ALPHA[t]) / np.sqrt(1 - ABAR[t]) * eps) / np.sqrt(ALPHA[t])
    assert by_noise == pytest.approx(mean, abs=1e-14)


def test_d3_the_divergence_of_a_step_in_four_forms():
    """0.0954545454 (t = 2 of 5, the noise wrong by 0.3) however it is said, and by the two normals themselves."""
    earlier, later, x0, x = LOG_SNR[0], LOG_SNR[1], jnp.array([0.7]), jnp.array([-0.4])
    truth = Prediction.of("data", x0, x, later)
    said = Prediction.of("noise", truth.noise + 0.3, x, later)
    values = [step_divergence(form, getattr(truth, form) - getattr(said, form), earlier, later) for form in Prediction._fields]
    step = reverse(earlier, later)
    direct = 0.5 * (step.data_factor * (said.data - x0))[0] ** 2 / step.variance
    np.testing.assert_allclose([*values, direct], direct, rtol=1e-12)
    assert float(direct) == pytest.approx(0.0954545454, abs=1e-9)


@pytest.mark.parametrize("form", Prediction._fields)
def test_d3_forms_give_each_other(form):
    rng = np.random.default_rng(0)
    x0, eps, log_snr = rng.normal(size=4), rng.normal(size=4), 0.3
    x = signal(log_snr) * x0 + noise(log_snr) * eps
    truth = Prediction.of("data", x0, x, log_snr)
    np.testing.assert_allclose(truth.noise, eps, atol=1e-14)
    again = Prediction.of(form, getattr(truth, form), x, log_snr)
    for one, other in zip(again, truth, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_d6_signal_falls_with_time(schedule):
    """d SNR / dt < 0 on 10^4 times; abar = sigmoid(log SNR); the ends are as asked; beta is -d log abar / dt."""
    t = jnp.linspace(0.0, 1.0, 10_001)
    log_snr = jax.jit(jax.vmap(schedule.log_snr))(t)
    assert np.all(np.diff(log_snr) < 0)
    assert log_snr[0] == pytest.approx(schedule.highest, abs=1e-9)
    if not isinstance(schedule, gen.LinearBeta):
        assert log_snr[-1] == pytest.approx(schedule.lowest, abs=1e-9)
    abar = signal(log_snr) ** 2
    np.testing.assert_allclose(abar / noise(log_snr) ** 2, np.exp(log_snr), rtol=1e-13)
    slope = jax.vmap(jax.grad(lambda t: jax.nn.log_sigmoid(schedule.log_snr(t))))(t[1:-1:100])
    np.testing.assert_allclose(jax.vmap(schedule.beta)(t[1:-1:100]), -slope, rtol=1e-9)


def test_d6_whatever_the_weights():
    for seed in range(5):
        schedule = gen.LearnedSchedule(8.0, -6.0).built(jax.random.key(0))
        weights = 4 * jax.random.normal(jax.random.key(seed), schedule.weights.shape)
        schedule = gen.LearnedSchedule(8.0, -6.0, 16, weights, jnp.array(-3.0))
        assert np.all(np.diff(jax.vmap(schedule.log_snr)(jnp.linspace(0, 1, 10_001))) < 0)


def test_linear_beta_is_the_published_one():
    """Between its ends beta is linear from 0.1 to 20; Song et al.'s abar at time 1 is exp(-10.05)."""
    schedule = gen.LinearBeta(highest=20.7)
    t = jnp.array([0.25, 0.5, 1.0])
    np.testing.assert_allclose(jax.vmap(schedule.beta)(t), 0.1 + 19.9 * t, rtol=1e-6)
    assert signal(schedule.log_snr(1.0)) ** 2 == pytest.approx(np.exp(-10.05), rel=1e-6)


@pytest.mark.parametrize(("steps", "beta", "posterior"), [(100, 0.994, 1.0021), (1000, 0.9994, 1.0002)])
def test_d9_the_variance_backwards(steps, beta, posterior):
    """Of data N(0, 0.25), in the middle of T steps: over that of the step, and over that of q(x_s | x_t, x_0)."""
    rates = np.linspace(1e-4, 0.02, steps) * 1000 / steps
    abar, k = np.cumprod(1 - rates), steps // 2
    earlier, later = (np.log(a / (1 - a)) for a in abar[[k - 1, k]])
    step = transition(earlier, later)
    before = abar[k - 1] * 0.25 + 1 - abar[k - 1]
    true = 1 / (1 / before + step.factor**2 / step.variance)
    assert true / step.variance == pytest.approx(beta, abs=1e-4)
    assert true / reverse(earlier, later).variance == pytest.approx(posterior, abs=6e-5)


def test_errors():
    with pytest.raises(nm.ModelError, match="lowest < highest"):
        gen.LinearLogSNR(-5.0, 5.0)
    with pytest.raises(nm.ModelError, match="0 < least < most"):
        gen.LinearBeta(20.0, 0.1)
    with pytest.raises(nm.ModelError, match="has no values yet"):
        gen.LearnedSchedule().log_snr(0.5)
