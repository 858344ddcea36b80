"""Simulation from prior and observation, and inference back: the posteriors of simulated data mix to the prior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nlmefit import generative as gen

RNG = np.random.default_rng(0)
MODEL = gen.FactorAnalysis(2).maximum_likelihood(
    RNG.normal(size=(300, 2)) @ RNG.normal(size=(2, 5)) + 0.8 * RNG.normal(size=(300, 5))
)


def posterior_draws(model, X, key):
    q = model.posterior(X)
    eps = jax.random.normal(jax.random.key(key), q.mean.shape)
    return np.asarray(q.mean + jnp.einsum("nij,nj->ni", jnp.asarray(q.root), eps))


def test_a14_posteriors_of_simulated_data_mix_to_the_prior():
    """One draw of each posterior against as many of the prior: not told apart; with loadings that are too small they are."""
    X = MODEL.sample(1000, key=1)
    prior = np.random.default_rng(2).normal(size=(1000, 2))
    drawn = posterior_draws(MODEL, X, 3)
    assert gen.two_sample_test(drawn, prior, permutations=200).p_value > 0.05
    for k in range(2):
        assert abs(drawn[:, k].mean()) < 4 / np.sqrt(1000) and abs(np.mean(drawn[:, k] ** 2) - 1) < 4 * np.sqrt(2 / 1000)
    wrong = dataclasses.replace(MODEL, weights=0.6 * MODEL.weights)
    assert gen.two_sample_test(posterior_draws(wrong, X, 3), prior, permutations=200).p_value < 0.05


def test_a14_simulated_moments():
    """Mean mu and covariance W W' + Psi within 4 standard errors."""
    X = MODEL.sample(20_000, key=4)
    C = MODEL.weights @ MODEL.weights.T + np.diag(MODEL.noise**2)
    assert np.all(np.abs(X.mean(axis=0) - MODEL.mean) < 4 * np.sqrt(np.diag(C) / len(X)))
    error = np.sqrt((C**2 + np.outer(np.diag(C), np.diag(C))) / len(X))
    assert np.all(np.abs(np.cov(X.T) - C) < 4 * error)
