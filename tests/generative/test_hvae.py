"""Hierarchical VAEs: a chain of five linear-Gaussian levels, whose bound and marginal likelihood are known, and training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.estimate.random_numbers import matched
from nlmefit.generative.rows import Samples
from nlmefit.generative.variational.decoder import Networks

ALPHA = 1 - np.linspace(0.1, 0.4, 5)  # q(z_t | z_{t-1}) = N(sqrt(alpha_t) z_{t-1}, 1 - alpha_t), z_0 = x
FACTOR, VARIANCE = np.array([0.9, 0.8, 0.85, 0.7, 0.9]), np.array([0.3, 0.25, 0.2, 0.3, 0.4])  # p(z_{t-1} | z_t)
X0 = 0.8
NONE = jnp.zeros(0)


class Linear(eqx.Module):
    """N(factor z, sd^2)."""

    factor: float
    sd: float

    def __call__(self, z):
        return self.factor * z, jnp.full_like(z, self.sd)


class Times(eqx.Module):
    factor: float

    def __call__(self, z):
        return self.factor * z


def chain(encoder):
    units = gen.HierarchicalVAE((1,)).built(Samples.of([[-1.0], [1.0]]), jax.random.key(0)).standard  # center 0, scale 1
    decoder = (Times(FACTOR[0]), *(Linear(f, np.sqrt(v)) for f, v in zip(FACTOR[1:], VARIANCE[1:], strict=True)))
    own = jnp.log(jnp.sqrt(VARIANCE[:1]) - 1e-3)  # the likelihood's least standard deviation
    return gen.HierarchicalVAE((1,) * 5, networks=Networks(decoder, encoder, own), standard=units)


@pytest.fixture(scope="module")
def noising():
    return chain(tuple(Linear(np.sqrt(a), np.sqrt(1 - a)) for a in ALPHA))


@pytest.fixture(scope="module")
def variances():
    """Of z_0 = x, z_1 .. z_5 under p."""
    found = [1.0]
    for f, v in zip(FACTOR[::-1], VARIANCE[::-1], strict=True):
        found.insert(0, f**2 * found[0] + v)
    return np.array(found)


@pytest.fixture(scope="module")
def smoothing(variances):
    """q the posterior: z_t | z_{t-1} by Bayes' theorem in the chain."""
    gain = FACTOR * variances[1:] / variances[:-1]
    return chain(tuple(Linear(g, s) for g, s in zip(gain, np.sqrt(variances[1:] * (1 - gain * FACTOR)), strict=True)))


def expected(model, function):
    eps = jnp.asarray(matched(64, 5))  # exact for quadratic functions
    return float(jnp.mean(jax.jit(jax.vmap(lambda e: function(model)(jnp.array([X0]), NONE, e)))(eps)))


def test_c5_d5_the_bound_of_the_chain(noising):
    """-1.526456055, with the entropies of q in closed form or drawn."""
    assert expected(noising, lambda m: m.bound_along) == pytest.approx(-1.526456055, abs=1e-9)
    assert expected(noising, lambda m: m.log_weight_along) == pytest.approx(-1.526456055, abs=1e-9)


def test_d5_one_variable_at_a_time(noising):
    """The bound rearranged, every step against q(z_{t-1} | z_t, x): the same number. KL(p || q) in its place is not."""
    direct = expected(noising, lambda m: m.bound_along)
    abar = np.cumprod(ALPHA)
    mean, variance = np.sqrt(abar) * X0, 1 - abar

    def divergence(m, v, other_m, other_v, spread=0.0):
        return 0.5 * (v / other_v + ((m - other_m) ** 2 + spread) / other_v - 1 + np.log(other_v / v))

    def one_variable(swapped):
        error = (X0 - FACTOR[0] * mean[0]) ** 2 + FACTOR[0] ** 2 * variance[0]
        total = -0.5 * (np.log(2 * np.pi * VARIANCE[0]) + error / VARIANCE[0]) - divergence(mean[-1], variance[-1], 0, 1)
        for t in range(1, 5):
            v = (1 - ALPHA[t]) * variance[t - 1] / variance[t]
            c = np.sqrt(ALPHA[t]) * variance[t - 1] / variance[t]
            off = (c - FACTOR[t]) * mean[t] + np.sqrt(abar[t - 1]) * (1 - ALPHA[t]) / variance[t] * X0
            pair = (off, VARIANCE[t], 0, v) if swapped else (off, v, 0, VARIANCE[t])
            total -= divergence(*pair, spread=(c - FACTOR[t]) ** 2 * variance[t])
        return total

    assert one_variable(swapped=False) == pytest.approx(direct, abs=1e-12)
    assert one_variable(swapped=True) == pytest.approx(-2.586165, abs=1e-6)


def test_c5_the_bound_is_log_p_where_q_is_the_posterior(smoothing, noising, variances):
    truth = norm.logpdf(X0, 0, np.sqrt(variances[0]))
    assert expected(smoothing, lambda m: m.bound_along) == pytest.approx(truth, abs=1e-10)
    found = smoothing.log_marginal([[X0]], draws=5)
    assert found.value == pytest.approx(truth, abs=1e-10) and found.mc_se < 1e-10
    weighted = noising.log_marginal([[X0]], draws=20_000)
    assert weighted.value == pytest.approx(truth, abs=4 * weighted.mc_se)
    assert weighted.kind == "bound" and noising.elbo([[X0]], draws=1000)[0] < truth - 0.1


def test_c6_samples_are_of_the_marginal(noising, variances):
    drawn = noising.sample(20_000, key=1)
    assert abs(drawn.var() / variances[0] - 1) < 4.5 * np.sqrt(2 / 20_000)


def test_training_and_the_seam():
    """A trained hierarchy: its encoder's bound is below what the referee finds without the encoder."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 1))
    X = np.concatenate([z, z**2, np.sin(2 * z)], axis=1) + 0.2 * rng.normal(size=(150, 3))
    model = gen.HierarchicalVAE((2, 1), gen.MLP(12, 1), gen.MLP(12, 1))
    fit = nm.fit(model, X, gen.VariationalBound(training=gen.Training(steps=1000, batch=75, rate=1e-2)), progress=False)
    referee = nm.log_marginal(fit.model, X, nm.ImportanceSampling(draws=200), progress=False)
    weighted = fit.model.log_marginal(X, draws=500)
    assert fit.model.elbo(X, draws=50).sum() < weighted.value < referee.value + 5
    assert weighted.value > gen.FactorAnalysis(1).maximum_likelihood(X).log_prob(X).sum() + 20
    assert fit.model.transform(X).shape == (150, 2)
    assert np.mean((fit.model.reconstruct(X) - X) ** 2) < 0.5 * X.var()


def test_errors():
    for wrong in ((), (2, 0), 3, (1.5,)):
        with pytest.raises(nm.ModelError, match=r"HierarchicalVAE\(latents=...\) must be whole numbers"):
            gen.HierarchicalVAE(wrong)
    with pytest.raises(nm.ModelError, match="this HierarchicalVAE has not been fitted"):
        gen.HierarchicalVAE((2, 1)).sample(1)
