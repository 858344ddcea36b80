"""Guidance, on two classes N(-1, 0.7^2) and N(1, 0.7^2) whose scores are known with any noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.diffusion.noising import noise, signal
from nlmefit.generative.rows import Samples

SD = 0.7
MEANS = jnp.array([-1.0, 1.0])


def log_densities(x, log_snr):
    """log p(x_t | c) of both classes."""
    a, s = signal(log_snr), noise(log_snr)
    return jax.scipy.stats.norm.logpdf(x[0], a * MEANS, jnp.sqrt(a**2 * SD**2 + s**2))


def log_of(x, log_snr, given):
    """log p(x_t | c), and log p(x_t) where c is NaN or not there at all."""
    both = log_densities(x, log_snr)
    mixed = jax.nn.logsumexp(both) - jnp.log(2)
    if not len(given):
        return mixed
    return jnp.where(jnp.isnan(given[0]), mixed, jnp.where(given[0] > 0.5, both[1], both[0]))


def classifier(x, log_snr, given):
    both = log_densities(x, log_snr)
    return jnp.where(given[0] > 0.5, both[1], both[0]) - jax.nn.logsumexp(both)


class Score(eqx.Module):
    def __call__(self, x, log_snr, given):
        return jax.grad(log_of)(x, log_snr, given)


SCHEDULE = gen.LinearLogSNR(30.0, -8.0)


@pytest.fixture(scope="module")
def plain():
    model = gen.Diffusion(Score(), SCHEDULE, "score", standardised=False)
    return model.built(Samples.of(np.zeros((2, 1))), jax.random.key(0))


@pytest.fixture(scope="module")
def conditional():
    model = gen.Diffusion(Score(), SCHEDULE, "score", standardised=False)
    return model.built(Samples.of((np.zeros((2, 1)), np.zeros((2, 1)))), jax.random.key(0))


def test_d14_classifier_guidance_is_bayes_rule(plain):
    """d log p(x | c) = d log p(x) + d log p(c | x): 1.428571428 at x = 0.3."""
    guided = gen.ClassifierGuidance(plain, classifier)
    assert guided.stein_score([[0.3]], given=[1.0])[0, 0] == pytest.approx(0.7 / SD**2, abs=1e-9)
    assert 0.7 / SD**2 == pytest.approx(1.428571428, abs=1e-9)
    x = np.random.default_rng(0).normal(size=(50, 1))
    assert np.abs(plain.stein_score(x) - guided.stein_score(x, given=[1.0])).max() > 0.5


@pytest.mark.parametrize("t", [0.0, 0.5])
def test_d15_mixing_the_two_scores(plain, conditional, t):
    """Strength 0 leaves the condition out, 1 is the conditional model, both exactly; 1 is also the classifier's."""
    x = np.random.default_rng(0).normal(size=(20, 1))
    score = {w: gen.ClassifierFreeGuidance(conditional, w).stein_score(x, t, given=[1.0]) for w in (0.0, 1.0, 3.0)}
    with_it, without = conditional.stein_score(x, t, given=[1.0]), plain.stein_score(x, t)
    np.testing.assert_allclose(score[0.0], without, rtol=1e-12)
    np.testing.assert_allclose(score[1.0], with_it, rtol=1e-12)
    np.testing.assert_allclose(score[3.0], 3 * with_it - 2 * without, rtol=1e-9, atol=1e-12)
    by_classifier = gen.ClassifierGuidance(plain, classifier).stein_score(x, t, given=[1.0])
    np.testing.assert_allclose(score[1.0], by_classifier, atol=1e-8)


def test_d13_samples_given_a_class(plain, conditional):
    for model in (conditional, gen.ClassifierGuidance(plain, classifier)):
        drawn = gen.DDIM(model, 300, 1.0).sample(2000, given=[1.0], key=2)
        assert abs(drawn.mean() - 1) < 4.5 * SD / np.sqrt(2000) + 0.02
        assert abs(drawn.std() / SD - 1) < 0.08
    strong = gen.DDIM(gen.ClassifierFreeGuidance(conditional, 3.0), 100).sample(1000, given=[1.0])
    assert strong.mean() > 1.2 and strong.std() < SD
    density = gen.ProbabilityFlow(gen.ClassifierGuidance(plain, classifier)).log_prob([[0.3]], given=[1.0])
    assert density[0] == pytest.approx(norm.logpdf(0.3, 1, SD), abs=0.03)  # N(0, 1) for the law at t = 1


@pytest.mark.slow
def test_d15_one_network_for_both():
    """Trained with a fifth of the conditions left out, the network has the scores of both classes and of their mixture."""
    rng = np.random.default_rng(0)
    c = rng.integers(0, 2, (2000, 1)).astype(float)
    X = 2 * c - 1 + SD * rng.normal(size=(2000, 1))
    training = gen.Training(steps=2500, batch=500, rate=5e-3, precision="float32")
    model = gen.Diffusion(gen.MLP(32, 2), gen.LinearLogSNR(6.0, -6.0))
    fit = nm.fit(model, (X, c), gen.VariationalBound(unconditioned=0.2, training=training), progress=False)
    units, log_snr = fit.model.standard, fit.model.schedule.log_snr(0.5)
    x = np.linspace(-2.0, 2.0, 41)[:, None]

    def truth(x, given):
        a, s = signal(log_snr), noise(log_snr)
        means, sd = (MEANS - units.center) / units.scale, SD / units.scale
        both = jax.scipy.stats.norm.logpdf((x[0] - units.center) / units.scale, a * means, jnp.sqrt(a**2 * sd**2 + s**2))
        return (jax.nn.logsumexp(both) if given is None else both[given]).squeeze()

    for given, strength in ((None, 0.0), (1, 1.0)):
        exact = jax.vmap(jax.grad(lambda x, g=given: truth(x, g)))(x)
        found = gen.ClassifierFreeGuidance(fit.model, strength).stein_score(x, 0.5, given=[1.0])
        assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < 0.12


def test_errors(plain, conditional):
    with pytest.raises(nm.ModelError, match="ClassifierFreeGuidance takes a conditional diffusion"):
        gen.ClassifierFreeGuidance(plain)
    with pytest.raises(nm.ModelError, match="takes a diffusion without conditions"):
        gen.ClassifierGuidance(conditional, classifier)
    with pytest.raises(nm.ModelError, match="classifier must be a function"):
        gen.ClassifierGuidance(plain, 3)
    with pytest.raises(nm.ModelError, match=r"model=...\) must be .*gen.Diffusion"):
        gen.ClassifierFreeGuidance(gen.PPCA(1))
    with pytest.raises(nm.DataError, match=r"conditional: give its 1 condition"):
        gen.ClassifierGuidance(plain, classifier).sample(2)
    with pytest.raises(nm.MethodError, match="unconditioned must be a share"):
        gen.VariationalBound(unconditioned=1.0)
