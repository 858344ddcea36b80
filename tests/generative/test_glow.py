"""Glow: inverse and log determinant (G1), images learned and drawn, conditions, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.rows import Samples
from nlmefit.generative.training import is_weight


def images(n, seed=0):
    """4 x 4, neighbours correlated: a common level, a slope across, and noise."""
    rng = np.random.default_rng(seed)
    level, slope = rng.normal(size=(2, n, 1, 1))
    across = np.linspace(-1, 1, 4)
    return (level + slope * across + 0.3 * rng.normal(size=(n, 4, 4))).reshape(n, 16)


def exact(X):
    across = np.tile(np.linspace(-1, 1, 4), 4)
    covariance = 1 + np.outer(across, across) + 0.09 * np.eye(16)
    return -0.5 * (np.sum(X @ np.linalg.inv(covariance) * X, axis=1) + np.linalg.slogdet(2 * np.pi * covariance)[1])


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 2)])
def test_g1_inverse_and_log_determinant(shape):
    """x back @1e-10, slogdet of the Jacobian @1e-9, with random weights."""
    levels = 2 if shape == (4, 4) else 1
    X = images(30)
    given = np.random.default_rng(1).normal(size=(30, 1))
    model = gen.Glow(shape, levels=levels, steps=2, width=4).built(Samples.of((X, given)), jax.random.key(0))
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    model = jax.tree.unflatten(
        tree, [w + 0.2 * jax.random.normal(k, w.shape) if is_weight(w) else w for w, k in zip(leaves, keys, strict=True)]
    )
    x, c = jnp.asarray(X[0]), jnp.asarray(given[0])

    @jax.jit
    def computed(x, c):
        z, log_determinant = model.to_noise(x, c)
        jacobian = jax.jacfwd(lambda x: model.to_noise(x, c)[0])(x)
        return z, log_determinant, model.from_noise(z, c), jnp.linalg.slogdet(jacobian)[1]

    z, log_determinant, again, exact = computed(x, c)
    np.testing.assert_allclose(again, x, atol=1e-10)
    np.testing.assert_allclose(log_determinant, exact, atol=1e-9)
    assert not np.allclose(z, computed(x, c + 1)[0], atol=1e-3)


def test_it_learns_correlated_pixels():
    """Held-out log density between that of independent pixels and the exact one, within 2 nats of the latter in 16 dimensions."""
    X, test = images(4000), images(2000, seed=1)
    training = gen.Training(steps=400, batch=64, rate=1e-2, precision="float32")
    fit = nm.fit(gen.Glow((4, 4), levels=1, steps=3, width=8), X, gen.MaximumLikelihood(training=training), progress=False)
    independent = np.mean(np.sum(-0.5 * ((test / X.std(0)) ** 2 + np.log(2 * np.pi * X.var(0))), axis=1))
    assert independent + 5 < exact(test).mean() - 2 < fit.model.score(test) < exact(test).mean()
    drawn = fit.model.sample(2000, key=1)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(X.T), atol=0.25)


def test_what_it_refuses():
    with pytest.raises(nm.ModelError, match=r"sides divisible by 8 for 3 levels; got \(4, 4\)"):
        gen.Glow((4, 4), levels=3)
    with pytest.raises(nm.ModelError, match=r"Glow\(steps=\.\.\.\) must be a whole number"):
        gen.Glow((4, 4), steps=0)
    with pytest.raises(nm.DataError, match=r"rows have 16 columns; images of shape \(8, 8\) have 64 pixels"):
        nm.fit(gen.Glow((8, 8)), images(5), gen.MaximumLikelihood(), progress=False)
