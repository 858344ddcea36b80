"""Fisher's identity: the score of the data is the posterior mean of that of data and latent variables."""

import jax
import jax.numpy as jnp
import numpy as np

from nlmefit import generative as gen

RNG = np.random.default_rng(0)
Y = 2 + RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 6)) + 0.7 * RNG.normal(size=(60, 6))


def joint_scores(model, y, z):
    """d log p(y, z) / dy by automatic differentiation of what the model says of its observations, on the seam."""
    theta = {name: jnp.asarray(p.start) for name, p in model.parameters().items()}

    def log_joint(y, z):
        (site,) = model.observe(theta, z, None).values()
        return jnp.sum(site.log_prob(y)) - 0.5 * z @ z

    return jax.jit(jax.vmap(jax.vmap(jax.grad(log_joint), in_axes=(None, 0))))(y, z)


def test_a13_fishers_identity():
    """E_post d_y log p(y, z) = -C^-1 (y - mu): at 1e-10 in the linear-Gaussian model, where the integrand is linear in z and its
    mean that at the posterior mean; over draws of the posterior within 4 standard errors."""
    model = gen.FactorAnalysis(2).maximum_likelihood(Y)
    C = model.weights @ model.weights.T + np.diag(model.noise**2)
    exact = -np.linalg.solve(C, (Y - model.mean).T).T
    posterior = model.posterior(Y)
    at_mean = joint_scores(model, jnp.asarray(Y), jnp.asarray(posterior.mean)[:, None])[:, 0]
    np.testing.assert_allclose(at_mean, exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.stein_score(Y), exact, rtol=0, atol=1e-10)

    eps = jax.random.normal(jax.random.key(0), (len(Y), 1000, 2))
    draws = posterior.mean[:, None] + jnp.einsum("nij,nkj->nki", posterior.root, eps)
    scores = np.asarray(joint_scores(model, jnp.asarray(Y), draws))
    error = scores.std(axis=1) / np.sqrt(scores.shape[1])
    deviations = (scores.mean(axis=1) - exact) / error
    assert np.all(error > 1e-4)
    assert np.mean(np.abs(deviations) < 4) > 0.995  # of 360 means, 0.02 are expected outside
    assert np.mean(deviations**2) < 1.3
