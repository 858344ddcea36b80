"""Normalizing flows: densities that integrate to 1, exact maximum likelihood, conditions, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.rows import Samples

FAST = gen.Training(steps=500, batch=128, rate=1e-2)
KINDS = [gen.AffineCoupling(gen.MLP(8, 1)), gen.SplineCoupling(gen.MLP(8, 1), bins=5), gen.MixtureCoupling(gen.MLP(8, 1), 3)]


def banana(n, seed=0):
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    return np.column_stack([a, 0.5 * b + a**2])


def banana_log_density(x):
    a, b = x[:, 0], (x[:, 1] - x[:, 0] ** 2) / 0.5
    return -0.5 * (a**2 + b**2) - np.log(2 * np.pi) - np.log(0.5)


@pytest.fixture(scope="module", params=KINDS, ids=["affine", "spline", "mixture"])
def fit(request):
    return nm.fit(gen.NormalizingFlow(3, request.param), banana(2000), gen.MaximumLikelihood(training=FAST), progress=False)


def grid(low, high, count):
    axes = [np.linspace(a, b, count) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return points, np.prod([axis[1] - axis[0] for axis in axes])


def test_g1_c3_the_density_integrates_to_one(fit):
    """@1e-3 on a grid; log p by T^-1 and its Jacobian = slogdet of the Jacobian @1e-9."""
    points, cell = grid((-4, -3), (4, 17), 151)
    assert abs(np.sum(np.exp(fit.model.log_prob(points))) * cell - 1) < 1e-3
    x, none = jnp.array([0.4, -0.2]), jnp.zeros(0)
    to_noise = jax.jit(lambda x: fit.model.to_noise(x, none)[0])
    jacobian, z = jax.jit(jax.jacfwd(to_noise))(x), to_noise(x)
    exact = jnp.sum(jax.scipy.stats.norm.logpdf(z)) + jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(fit.model.log_prob(np.asarray(x)[None]), [exact], atol=1e-9)


def test_g1_maximum_likelihood_finds_the_law(fit):
    """The forward KL of the fit, by Monte Carlo, is small; its samples have the law's moments."""
    test = banana(4000, seed=1)
    assert 0 <= np.mean(banana_log_density(test)) - fit.model.score(test) + 0.01 < 0.08
    drawn = fit.model.sample(8000, key=2)
    np.testing.assert_allclose(drawn.mean(0), [0.0, 1.0], atol=0.12)
    assert -0.05 < np.mean(fit.model.log_prob(drawn) - banana_log_density(drawn)) < 0.25  # the reverse KL


def test_a_conditional_flow_follows_what_is_given():
    """x | c ~ N((c, -c), diag(1, exp(c))^2), c in [-1, 1]."""
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, 4000)
    X = np.column_stack([c, -c]) + rng.normal(size=(4000, 2)) * np.column_stack([np.ones(4000), np.exp(c)])
    model = gen.NormalizingFlow(2, gen.AffineCoupling(gen.MLP(16, 1)))
    fit = nm.fit(model, (X, c), gen.MaximumLikelihood(training=FAST), progress=False)
    assert fit.model.conditions == 1
    for value in (-0.8, 0.8):
        drawn = fit.model.sample(4000, given=value, key=1)
        np.testing.assert_allclose(drawn.mean(0), [value, -value], atol=0.2)
        np.testing.assert_allclose(drawn.std(0), [1, np.exp(value)], rtol=0.15)
    with pytest.raises(nm.DataError, match="this model is conditional"):
        fit.model.sample(3)


def test_one_column_and_reversals():
    X = np.random.default_rng(0).gamma(3.0, size=(500, 1))
    fit = nm.fit(gen.NormalizingFlow(2, KINDS[1], mixing=False), X, gen.MaximumLikelihood(training=FAST), progress=False)
    points = np.linspace(-10, 30, 4001)
    assert abs(np.sum(np.exp(fit.model.log_prob(points))) * 0.01 - 1) < 1e-3


def test_single_precision_trains_in_single_precision():
    """NumPy's constants do not make a float32 training one in float64."""
    seen = []

    class Spy:
        def __call__(self, model, x, given, key):
            value = gen.MaximumLikelihood().loss(model, x, given, key)
            seen.append(value.dtype)
            return value

    from nlmefit.generative.training import train

    data = Samples.of(banana(100))
    model = gen.NormalizingFlow(2, KINDS[1]).started(data, jax.random.key(0))
    quiet = type("Quiet", (), {"stage": lambda self, text: None})()
    training = gen.Training(steps=3, batch=10, precision="float32")
    found = train(Spy(), model, data, training, quiet, jax.random.key(1))
    assert set(seen) == {jnp.dtype("float32")}
    np.testing.assert_array_equal(found.model.map.parts[0].shift, model.map.parts[0].shift)  # a constant
    assert isinstance(found.model.map.parts[0].shift, np.ndarray)


def test_what_it_refuses(fit):
    with pytest.raises(gen.NotTractableError, match="NormalizingFlow cannot compute elbo"):
        fit.model.elbo(banana(3))
    with pytest.raises(nm.ModelError, match=r"layers=\.\.\.\) must be a whole number from 1 up, got 0"):
        gen.NormalizingFlow(0)
    with pytest.raises(nm.ModelError, match=r"must be .*gen\.SplineCoupling"):
        gen.NormalizingFlow(2, coupling="spline")
    with pytest.raises(nm.ModelError, match="has not been fitted"):
        gen.NormalizingFlow().log_prob(banana(3))
    with pytest.raises(nm.MethodError, match="bins must be"):
        gen.SplineCoupling(bins=1)
    with pytest.raises(nm.MethodError, match="components must be a whole number from 2 up"):
        gen.MixtureCoupling(components=1)
    with pytest.raises(nm.ModelError, match=r"limit=\.\.\.\) must be positive"):
        gen.AffineCoupling(limit=0)
    with pytest.raises(nm.MethodError, match=r"NormalizingFlow is fitted by gen\.MaximumLikelihood"):
        nm.fit(gen.NormalizingFlow(), banana(10), nm.Laplace(), progress=False)
