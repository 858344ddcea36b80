"""Gaussian algebra against quadrature, SciPy and Bayes' rule on covariances and precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy.linalg import sqrtm
from scipy.stats import multivariate_normal, norm

from nlmefit.core import gaussian
from nlmefit.core.gaussian import Gaussian
from nlmefit.generative.transport.optimal_transport import wasserstein


def draw(size, seed):
    """A Gaussian with its mean and covariance in NumPy."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(size, size))
    mean, covariance = rng.normal(size=size), A @ A.T + np.eye(size)
    return Gaussian.of(mean, covariance), mean, covariance


def test_density_and_entropy():
    p, mean, covariance = draw(4, 0)
    law = multivariate_normal(mean, covariance)
    x = np.random.default_rng(1).normal(size=(7, 4))
    np.testing.assert_allclose(jax.vmap(lambda x: gaussian.log_density(p, x))(x), law.logpdf(x), rtol=1e-13)
    assert gaussian.entropy(p) == pytest.approx(law.entropy(), rel=1e-13)
    np.testing.assert_allclose(p.covariance, covariance, rtol=1e-13)


def kl_by_quadrature(m, s, m0, s0):
    def integrand(x):
        return norm.pdf(x, m, s) * (norm.logpdf(x, m, s) - norm.logpdf(x, m0, s0))

    return integrate.quad(integrand, m - 15 * s, m + 15 * s, epsabs=1e-13, epsrel=1e-13, limit=400)[0]


def test_c2_kl_to_the_standard_normal():
    """C2: sum (m^2 + s^2 - 1 - log s^2) / 2 is quadrature's sum over coordinates to 1e-12."""
    mean, sd = np.array([0.3, -1.2, 0.0]), np.array([0.5, 1.7, 1.0])
    exact = sum(kl_by_quadrature(m, s, 0.0, 1.0) for m, s in zip(mean, sd))
    assert gaussian.kl_diagonal(mean, sd) == pytest.approx(exact, abs=1e-12)
    assert gaussian.kl_diagonal(jnp.zeros(3), jnp.ones(3)) == 0.0


def test_c2_kl_of_two_gaussians():
    """C2: in one dimension quadrature's, for independent coordinates the diagonal form, in general the textbook trace."""
    p, q = Gaussian.of([0.4], [[0.49]]), Gaussian.of([-0.2], [[1.44]])
    assert gaussian.kl(p, q) == pytest.approx(kl_by_quadrature(0.4, 0.7, -0.2, 1.2), abs=1e-12)
    mean, sd, m0, s0 = np.array([0.3, -1.2]), np.array([0.5, 1.7]), np.array([1.0, 0.2]), np.array([0.8, 2.0])
    full = float(gaussian.kl(Gaussian(mean, np.diag(sd)), Gaussian(m0, np.diag(s0))))
    assert gaussian.kl_diagonal(mean, sd, m0, s0) == pytest.approx(full, rel=1e-14)
    (p, m, S), (q, n, T) = draw(4, 2), draw(4, 3)
    logs = np.linalg.slogdet(T)[1] - np.linalg.slogdet(S)[1]
    textbook = 0.5 * (np.trace(np.linalg.solve(T, S)) + (n - m) @ np.linalg.solve(T, n - m) - 4 + logs)
    assert gaussian.kl(p, q) == pytest.approx(textbook, rel=1e-13)
    assert gaussian.kl(p, p) == pytest.approx(0.0, abs=1e-14)


def test_d2_diffusion_posterior():
    """D2: q(x_{t-1} | x_t, x_0) of a diffusion has mean (sqrt(a)(1 - A1) x_t + sqrt(A1)(1 - a) x_0) / (1 - A) and variance
    (1 - a)(1 - A1) / (1 - A), to 1e-14, by the posterior and by conditioning the joint Gaussian alike."""
    a, A1, x0, xt = 0.825, 0.7335, 0.7, -0.4
    A = a * A1
    mean, variance = (np.sqrt(a) * (1 - A1) * xt + np.sqrt(A1) * (1 - a) * x0) / (1 - A), (1 - a) * (1 - A1) / (1 - A)
    prior = Gaussian.of([np.sqrt(A1) * x0], [[1 - A1]])
    Z, noise = np.array([[np.sqrt(a)]]), np.array([[np.sqrt(1 - a)]])
    found = gaussian.posterior(prior, Z, noise, np.array([xt]))
    again = gaussian.condition(gaussian.observed(prior, Z, noise), [0], np.array([xt]))
    for p in (found, again):
        assert p.mean[0] == pytest.approx(mean, abs=1e-14)
        assert p.covariance[0, 0] == pytest.approx(variance, abs=1e-14)


def test_d2_conditioning_is_bayes_rule():
    """D2: conditional and posterior against the precision form of Bayes' rule, and p(y) p(eta | y) = p(eta) p(y | eta)."""
    prior, m, S = draw(3, 4)
    rng = np.random.default_rng(5)
    Z, y, noise = rng.normal(size=(5, 3)), rng.normal(size=5), np.diag([0.5, 0.7, 1.0, 0.4, 0.6])
    V = np.linalg.inv(np.linalg.inv(S) + Z.T @ np.diag(np.diag(noise) ** -2) @ Z)
    found = gaussian.posterior(prior, Z, noise, y)
    np.testing.assert_allclose(found.covariance, V, atol=1e-14)
    np.testing.assert_allclose(found.mean, V @ (np.linalg.solve(S, m) + Z.T @ (y / np.diag(noise) ** 2)), atol=1e-14)
    joint = gaussian.observed(prior, Z, noise)
    again = gaussian.condition(joint, range(5), y)
    np.testing.assert_allclose(again.mean, found.mean, atol=1e-14)
    eta, predictive = jnp.array([0.2, -0.5, 1.0]), gaussian.marginal(joint, range(5))
    np.testing.assert_allclose(predictive.covariance, Z @ S @ Z.T + noise**2, atol=1e-13)
    both = gaussian.log_density(predictive, y) + gaussian.log_density(found, eta)
    likelihood = gaussian.log_density(Gaussian(Z @ eta, noise), y)
    assert both == pytest.approx(float(gaussian.log_density(prior, eta) + likelihood), abs=1e-12)


def test_condition_on_scattered_coordinates():
    p, mean, S = draw(5, 6)
    given, rest, values = [3, 1], [0, 2, 4], np.array([0.5, -1.0])
    gain = S[np.ix_(rest, given)] @ np.linalg.inv(S[np.ix_(given, given)])
    found = gaussian.condition(p, given, values)
    np.testing.assert_allclose(found.mean, mean[rest] + gain @ (values - mean[given]), atol=1e-13)
    np.testing.assert_allclose(found.covariance, S[np.ix_(rest, rest)] - gain @ S[np.ix_(given, rest)], atol=1e-13)
    np.testing.assert_allclose(gaussian.marginal(p, [4, 0]).covariance, S[np.ix_([4, 0], [4, 0])], atol=1e-13)
    assert np.all(np.diag(found.root) > 0) and np.all(np.triu(found.root, 1) == 0)


def test_a_sharp_posterior_keeps_its_digits():
    """Noise of 1e-9 after a unit prior: subtracting S Z' (Z S Z' + R)^-1 Z S from S would leave a variance of 0."""
    found = gaussian.posterior(Gaussian.of([0.0], [[1.0]]), np.ones((1, 1)), np.array([[1e-9]]), np.ones(1))
    assert found.root[0, 0] == pytest.approx(1e-9 / np.sqrt(1 + 1e-18), rel=1e-6)


def test_a3_wasserstein_is_the_closed_form():
    """A3: W_2^2 = |m - n|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)."""
    (p, m, A), (q, n, B) = draw(4, 7), draw(4, 8)
    root = sqrtm(A)
    expected = np.sum((m - n) ** 2) + np.trace(A + B - 2 * np.real(sqrtm(root @ B @ root)))
    assert gaussian.wasserstein_squared(p, q) == pytest.approx(expected, rel=1e-12)
    assert 0 <= gaussian.wasserstein_squared(p, p) < 1e-13
    one = gaussian.wasserstein_squared(Gaussian.of([1.0], [[4.0]]), Gaussian.of([0.0], [[0.25]]))
    assert one == pytest.approx(1 + (2 - 0.5) ** 2, abs=1e-14)


def test_a3_wasserstein_of_samples_tends_to_it():
    """A3: of draws with exactly their law's mean and covariance the optimal assignment is never below the closed form (Gelbrich
    1990), and for 1000 draws within 2% of it."""
    laws = Gaussian.of([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]]), Gaussian.of([2.0, 1.0], [[0.5, -0.2], [-0.2, 1.5]])
    exact = float(gaussian.wasserstein_squared(*laws))
    rng = np.random.default_rng(9)

    def exactly(law, size):
        x = rng.normal(size=(size, 2))
        white = np.linalg.solve(np.linalg.cholesky(np.cov(x.T, bias=True)), (x - x.mean(axis=0)).T)
        return (np.asarray(law.root) @ white).T + np.asarray(law.mean)

    for size, above in ((30, 0.2), (1000, 0.02)):
        value = wasserstein(*(exactly(law, size) for law in laws)) ** 2
        assert exact < value < (1 + above) * exact


def test_mixture_moments():
    """Mean and covariance of the mixture by sums, and no other Gaussian is nearer in KL(mixture || .)."""
    weights = np.array([0.2, 0.5, 0.3])
    laws = [draw(2, seed) for seed in (10, 11, 12)]
    parts = Gaussian(jnp.stack([p.mean for p, _, _ in laws]), jnp.stack([p.root for p, _, _ in laws]))
    found = gaussian.mixture_moments(weights, parts)
    mean = sum(w * m for w, (_, m, _) in zip(weights, laws))
    second = sum(w * (S + np.outer(m, m)) for w, (_, m, S) in zip(weights, laws))
    np.testing.assert_allclose(found.mean, mean, atol=1e-14)
    np.testing.assert_allclose(found.covariance, second - np.outer(mean, mean), atol=1e-13)

    def cross_entropy(flat):
        """-E_mixture[log q], q with mean and root from `flat`: E of a quadratic, exact by KL and entropy of each part."""
        q = Gaussian(flat[:2], flat[2:].reshape(2, 2))
        each = jax.vmap(lambda m, r: gaussian.kl(Gaussian(m, r), q) + gaussian.entropy(Gaussian(m, r)))(*parts)
        return jnp.asarray(weights) @ each

    flat = np.concatenate([found.mean, np.asarray(found.root).ravel()])
    near = jax.jit(cross_entropy)
    for k in (0, 1, 2, 4, 5):  # the mean and the lower triangle
        moved = [near(flat + h * np.eye(6)[k]) for h in (-1e-3, 0.0, 1e-3)]
        assert moved[0] > moved[1] < moved[2]
        assert moved[2] - moved[0] == pytest.approx(0.0, abs=1e-8)


def test_derivatives():
    """Through the triangularization, forward and reverse, against central differences."""

    @jax.jit
    def f(s):
        prior = Gaussian(jnp.array([0.1, -0.3]), jnp.array([[s, 0.0], [0.4, 1.0 + s]]))
        found = gaussian.posterior(prior, jnp.array([[1.0, 0.5], [s, 2.0]]), 0.3 * jnp.eye(2), jnp.array([1.0, 2.0]))
        return gaussian.kl(found, prior) + gaussian.wasserstein_squared(found, prior)

    difference = (f(1.3 + 1e-5) - f(1.3 - 1e-5)) / 2e-5
    assert jax.jacfwd(f)(1.3) == pytest.approx(float(difference), rel=1e-8)
    assert jax.grad(f)(1.3) == pytest.approx(float(jax.jacfwd(f)(1.3)), rel=1e-12)


def test_no_dimension():
    """A model without random effects: densities of nothing are 1."""
    p = Gaussian.of(jnp.zeros(0), jnp.zeros((0, 0)))
    assert gaussian.log_density(p, jnp.zeros(0)) == gaussian.kl(p, p) == gaussian.wasserstein_squared(p, p) == 0.0


def test_not_positive_definite_is_not_a_number():
    assert np.isnan(gaussian.entropy(Gaussian.of([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])))
