"""PPCA: every method against the closed-form maximum likelihood (Tipping and Bishop 1999)."""

import numpy as np
import pytest
from scipy.stats import halfnorm, multivariate_normal, multivariate_t, norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.estimate.mcmc.mixing import effective_draws

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


@pytest.mark.optimized
@pytest.mark.parametrize("method", [nm.SAEM(), nm.ImportanceEM()], ids=lambda m: m.name)
def test_stochastic_methods_know_their_error(method, X):
    """log p(X) at their estimates is what they report, within 4 of its Monte Carlo errors, and the maximum but for less than
    their status calls worthwhile; at the maximum itself, row by row too."""
    X = X[:, :4]
    fit = nm.fit(gen.PPCA(latent=1), X, method, key=2, progress=False)
    assert fit.status, fit.status
    assert 0 < fit.mc_se < 0.5
    reached = fit.model.log_prob(X).sum()
    assert fit.log_likelihood == pytest.approx(reached, abs=4 * fit.mc_se)
    assert truth(X, latent=1) - 0.05 < reached <= truth(X, latent=1) + 1e-9
    best = gen.PPCA(latent=1).maximum_likelihood(X)
    found = nm.evaluate(best, X, method).contributions
    assert np.all(np.abs(found["log_likelihood"] - best.log_prob(X)) < 4.5 * found["mc_se"])


def test_nuts_against_the_closed_form_posterior():
    """p(theta | X) is known but for a constant, the random effects being integrated out in closed form: the posterior means of
    mu, of the variances W W' + sigma^2 and of sigma by importance sampling of that, and by NUTS, within 4 Monte Carlo errors."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(40, 1)) @ np.array([[1.0, -0.8, 0.6]]) + 0.5 * rng.normal(size=(40, 3)) + [1.0, 2.0, 3.0]
    fit = nm.fit(gen.PPCA(latent=1), X, nm.NUTS(warmup=400, draws=1000), progress=False)
    drawn = fit.found.posterior.theta

    def of_interest(mean, loadings, noise):
        return np.concatenate([mean, loadings**2 + noise[..., None] ** 2, noise[..., None]], axis=-1)

    by_nuts = of_interest(drawn["mean"], drawn["loadings"], drawn["noise"])
    u = np.concatenate([drawn["mean"], drawn["loadings"], np.log(drawn["noise"])[..., None]], axis=-1).reshape(-1, 7)
    proposal = multivariate_t(u.mean(axis=0), 1.3 * np.cov(u.T), df=6, seed=5)
    points = proposal.rvs(20_000)
    mean, loadings, noise = points[:, :3], points[:, 3:6], np.exp(points[:, 6])
    covariance = loadings[:, :, None] * loadings[:, None, :] + noise[:, None, None] ** 2 * np.eye(3)
    off = X - mean[:, None]
    square = np.einsum("kni,knj->kij", off, off)
    log_likelihood = -0.5 * (
        np.trace(np.linalg.solve(covariance, square), axis1=1, axis2=2) + len(X) * np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    log_prior = norm.logpdf(points[:, :6], 0, 10).sum(axis=1) + halfnorm.logpdf(noise, scale=10) + np.log(noise)
    log_weight = log_likelihood + log_prior - proposal.logpdf(points)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    assert 1 / np.sum(weight**2) > 5000
    values = of_interest(mean, loadings, noise)
    exact = weight @ values
    error = np.sqrt(weight**2 @ (values - exact) ** 2)
    for k in range(7):
        x = by_nuts[..., k]
        own = x.std() / np.sqrt(effective_draws(x))
        assert abs(x.mean() - exact[k]) < 4 * np.hypot(own, error[k]), k


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
        ([["a", "b", "c"], ["a", "b", "c"]], "must be a matrix of numbers"),
    ],
)
def test_bad_matrices(X, match):
    with pytest.raises(nm.DataError, match=match):
        nm.fit(gen.PPCA(latent=2), X, nm.Laplace())


def test_bad_number_of_components():
    with pytest.raises(nm.ModelError, match="whole number"):
        gen.PPCA(latent=0)


def test_values_before_any():
    with pytest.raises(nm.ModelError, match="has not been fitted"):
        gen.PPCA(latent=1).log_prob(np.eye(3))


@pytest.mark.parametrize("model", [gen.PPCA(latent=2), gen.FactorAnalysis(latent=2)], ids=lambda m: type(m).__name__)
def test_standard_errors_are_of_the_likelihood_s_own_curvature(model):
    """R^-1 and the sandwich from second and first differences of log p(x_i), which is written anew from SciPy's density."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=(150, 5)) * [0.5, 0.7, 0.9, 0.6, 0.8]
    lower = np.tril_indices(5, 0, 2)

    def terms(v):
        weights = np.zeros((5, 2))
        weights[lower] = v[5:14]
        noise = np.broadcast_to(v[14:], 5)
        return multivariate_normal(v[:5], weights @ weights.T + np.diag(noise**2)).logpdf(X)

    by_r, by_both = (nm.fit(model, X, gen.MaximumLikelihood(covariance=kind)) for kind in ("R", "sandwich"))
    v, h = by_r.estimates.to_numpy(), 1e-3
    step = h * np.eye(len(v))
    slopes = np.array([terms(v + s) - terms(v - s) for s in step]) / (2 * h)
    curvature = np.array(
        [[sum(a * b * terms(v + a * s + b * t).sum() for a in (1, -1) for b in (1, -1)) for s in step] for t in step]
    )
    R = -curvature / (4 * h**2)
    np.testing.assert_allclose(by_r.standard_errors, np.sqrt(np.diag(np.linalg.inv(R))), rtol=1e-3)
    sandwich = np.linalg.inv(R) @ slopes @ slopes.T @ np.linalg.inv(R)
    np.testing.assert_allclose(by_both.standard_errors, np.sqrt(np.diag(sandwich)), rtol=1e-3)
    assert by_r.status and "closed form" in str(by_r)


def test_columns_that_do_not_vary_and_rows_without_noise():
    """Constant columns leave the rotation of W open, and the status says so; rows in a plane have no maximum."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 6))
    fit = nm.fit(gen.PPCA(latent=2), np.c_[np.ones(40), X], nm.Laplace())
    assert fit.status and "do not determine" in str(fit.status)
    with pytest.raises(nm.DataError, match=r"no more than 2 direction\(s\).*take fewer components"):
        nm.fit(gen.PPCA(latent=2), X[:, :2] @ rng.normal(size=(2, 6)), gen.MaximumLikelihood())
    with pytest.raises(nm.DataError, match=r"column 0.*leave them out"):
        nm.fit(gen.FactorAnalysis(latent=2), np.c_[np.ones(40), X], gen.MaximumLikelihood())


def test_many_columns():
    """513 parameters: the maximum is that of the eigenvalues, with standard errors."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(600, 60)) * rng.uniform(0.5, 2, 60)
    fit = nm.fit(gen.PPCA(latent=8), X, nm.FOCE())
    assert fit.log_likelihood == pytest.approx(truth(X, 8), rel=1e-12)
    assert fit.status and np.all(fit.standard_errors > 0)
