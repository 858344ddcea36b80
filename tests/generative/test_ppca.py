"""PPCA: every method against the closed-form maximum likelihood (Tipping and Bishop 1999)."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import nlmefit as nm
from nlmefit import generative as gen

METHODS = [nm.FO(), nm.FOCE(), nm.FOCE(interaction=True), nm.Laplace(), nm.Quadrature(nodes=1), nm.Quadrature(nodes=4)]


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(3)
    W = rng.normal(size=(5, 2))
    return rng.normal(size=(60, 2)) @ W.T + 0.5 * rng.normal(size=(60, 5)) + 1.0


def truth(X, latent=2):
    """log p(X) at the maximum, straight from the eigenvalues (their eq. 7 and 8)."""
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    noise = values[:-latent].mean()
    C = (vectors[:, -latent:] * (values[-latent:] - noise)) @ vectors[:, -latent:].T + noise * np.eye(X.shape[1])
    return multivariate_normal(X.mean(0), C).logpdf(X).sum()


def test_closed_form(X):
    model = gen.PPCA(latent=2).maximum_likelihood(X)
    assert model.log_prob(X).sum() == pytest.approx(truth(X), abs=1e-9)
    assert np.all(np.triu(model.weights, 1) == 0)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_is_exact(method, X):
    best = gen.PPCA(latent=2).maximum_likelihood(X)
    at_best = nm.evaluate(best, X, method)
    np.testing.assert_allclose(at_best.contributions["log_likelihood"], best.log_prob(X), atol=1e-8, rtol=0)
    fit = nm.fit(gen.PPCA(latent=2), X, method)
    assert fit.status, fit.status
    assert fit.log_likelihood == pytest.approx(truth(X), abs=1e-8)
    assert fit.model.log_prob(X).sum() == pytest.approx(truth(X), abs=1e-8)
    covariance = fit.model.weights @ fit.model.weights.T
    np.testing.assert_allclose(covariance, best.weights @ best.weights.T, atol=2e-5)
    assert fit.estimates["noise"] == pytest.approx(float(best.noise), rel=1e-5)


def test_random_effects_are_the_posterior_means(X):
    best = gen.PPCA(latent=2).maximum_likelihood(X)
    fit = nm.evaluate(best, X, nm.Laplace())
    M = best.weights.T @ best.weights + best.noise**2 * np.eye(2)
    np.testing.assert_allclose(fit.eta, np.linalg.solve(M, best.weights.T @ (X - best.mean).T).T, atol=1e-9)
    np.testing.assert_allclose(fit.eta_covariance[0], best.noise**2 * np.linalg.inv(M), atol=1e-9)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.ones(5), "matrix with 2 rows"),
        (np.ones((5, 2)), "over 2 columns"),
        (np.array([[1.0, 2, np.nan], [1, 2, 3]]), "1 values that are not finite"),
        ([["a", "b", "c"], ["a", "b", "c"]], "matrix of numbers"),
    ],
)
def test_bad_matrices(X, match):
    with pytest.raises(nm.DataError, match=match):
        nm.fit(gen.PPCA(latent=2), X, nm.Laplace())


def test_bad_number_of_components():
    with pytest.raises(nm.ModelError, match="whole number"):
        gen.PPCA(latent=0)


def test_values_before_any():
    with pytest.raises(nm.ModelError, match="no values yet"):
        gen.PPCA(latent=1).log_prob(np.eye(3))
