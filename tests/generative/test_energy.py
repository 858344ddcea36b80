"""Energy-based models: score matching, Langevin-like sampling, log Z (claims E1 to E4, E8)."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.energy.energy import AbstractEnergy
from nlmefit.generative.energy.score_matching import exact, sliced

QUIET = {"progress": False}


class Quadratic(AbstractEnergy):
    """E(x) = (x - mean)' P (x - mean) / 2 + constant, P = R R'."""

    mean: jax.Array | None = None
    root: jax.Array | None = None
    constant: float = 0.0
    fitted_by: ClassVar[tuple[str, ...]] = ("ScoreMatching",)

    @property
    def dimension(self):
        return None if self.mean is None else len(self.mean)

    def built(self, data, key):
        size = data.x.shape[1]
        return Quadratic(jnp.zeros(size), jnp.eye(size)) if self.mean is None else self

    def energy(self, x):
        off = jnp.tril(self.root).T @ (x - self.mean)
        return 0.5 * off @ off + self.constant


class Grid(AbstractEnergy):
    """Two ridges, far from normal; a density that quadrature knows."""

    @property
    def dimension(self):
        return 2

    def built(self, data, key):
        return self

    def energy(self, x):
        return 2.0 * (x[0] ** 2 + 0.5 * x[1] - 1.0) ** 2 + 0.5 * x[1] ** 2 + 1.3


@pytest.fixture(scope="module")
def X():
    root = np.array([[0.8, 0.0], [0.5, 0.4]])
    return [1.0, -0.5] + np.random.default_rng(2).standard_normal((400, 2)) @ root.T


def test_e1_normal_models_are_matched_at_the_sample_moments(X):
    """Score matching of normal models is maximum likelihood; with the sign of the misprint it would have no minimum."""
    training = gen.Training(steps=6000, batch=400, rate=2e-2)
    fit = nm.fit(Quadratic(), X, gen.ScoreMatching(training=training), **QUIET)
    root = np.tril(fit.model.root)
    np.testing.assert_allclose(fit.model.mean, X.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.inv(root @ root.T), np.cov(X.T, bias=True), atol=1e-5)


def test_e2_hutchinson_is_exact_over_all_signs():
    """E r' A r = tr A, and its variance is 2 (|A|^2 - sum A_ii^2), for a symmetric A."""
    A = np.random.default_rng(0).standard_normal((6, 6))
    A = A + A.T
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))
    values = np.einsum("ki,ij,kj->k", signs, A, signs)
    assert abs(values.mean() - np.trace(A)) < 1e-12
    assert abs(values.var() - 2 * (np.sum(A**2) - np.sum(np.diag(A) ** 2))) < 1e-10


def test_e3_sliced_is_exact_in_expectation():
    """Over all signs both sliced forms are the exact objective; the one with |s|^2 varies less."""
    network = gen.MLP(16, 2, "tanh").build(4, 1, jax.random.key(0))

    def score(u):
        return -jax.grad(lambda u: 0.5 * u @ u + network(u)[0])(u)

    u = jnp.array([0.3, -1.0, 0.7, 1.5])
    signs = jnp.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    reduced, plain = (jax.jit(jax.vmap(lambda v, how=how: sliced(score, u, v, how)))(signs) for how in (True, False))
    np.testing.assert_allclose([reduced.mean(), plain.mean()], jax.jit(lambda u: exact(score, u))(u), rtol=1e-10)
    assert reduced.var() < plain.var()


def test_e4_the_score_does_not_know_the_normalizer(X):
    one, other = Quadratic(jnp.ones(2), jnp.eye(2)), Quadratic(jnp.ones(2), jnp.eye(2), 5.0)
    np.testing.assert_array_equal(one.stein_score(X), other.stein_score(X))
    np.testing.assert_allclose(one.unnormalized_log_prob(X) - other.unnormalized_log_prob(X), 5.0, rtol=1e-12)


def test_e8_log_normalizer_is_that_of_quadrature():
    grid = np.linspace(-6, 6, 1201)
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    truth = np.log(np.sum(np.exp(Grid().unnormalized_log_prob(x)))) + 2 * np.log(grid[1] - grid[0])
    found = Grid().log_normalizer(draws=2000)
    assert 0 < found.mc_se < 0.02
    assert abs(found.value - truth) < 4 * found.mc_se


def test_e8_samples_have_the_density():
    """Kolmogorov and Smirnov of both coordinates against the marginals by quadrature."""
    draws = Grid().sample(1500, key=1)
    grid = np.linspace(-6, 6, 1201)
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(Grid().unnormalized_log_prob(x)).reshape(1201, 1201)
    for axis in (0, 1):
        cumulated = np.cumsum(p.sum(axis=1 - axis))
        cumulated /= cumulated[-1]
        assert stats.kstest(draws[:, axis], lambda v, c=cumulated: np.interp(v, grid, c)).pvalue > 0.01


@pytest.mark.optimized
@pytest.mark.parametrize(("way", "steps"), [("exact", 1000), ("sliced", 1000), ("denoising", 3000)])
def test_a_network_finds_a_mixture(way, steps):
    """Two normals; the trained score against that of the mixture, and Z against quadrature."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((4000, 1)) < 0.3, rng.normal(-2.0, 0.6, (4000, 1)), rng.normal(1.5, 0.8, (4000, 1)))
    training = gen.Training(steps=steps, batch=128, rate=5e-3)
    model = nm.fit(gen.EnergyModel(gen.MLP(24, 2, "softplus")), x, gen.ScoreMatching(way, training=training), **QUIET).model
    grid = np.linspace(-4, 4.5, 801)[:, None]
    parts = np.array([0.3, 0.7]) * stats.norm.pdf(grid, [-2.0, 1.5], [0.6, 0.8])
    truth = np.sum(parts * -(grid - [-2.0, 1.5]) / [0.36, 0.64], axis=1) / parts.sum(1)
    error = np.sum(parts.sum(1) * (model.stein_score(grid)[:, 0] - truth) ** 2) / np.sum(parts.sum(1) * truth**2)
    assert error < 0.05
    log_z = model.log_normalizer()
    density = np.exp(model.unnormalized_log_prob(grid) - log_z.value)
    assert abs(np.sum(density) * (grid[1, 0] - grid[0, 0]) - 1) < 0.01 + 4 * log_z.mc_se


def test_errors_say_what_is_wrong(X):
    with pytest.raises(gen.NotTractableError, match="EnergyModel cannot compute log_prob"):
        gen.EnergyModel().log_prob(X)
    with pytest.raises(nm.ModelError, match="has not been fitted"):
        gen.EnergyModel().sample(10)
    with pytest.raises(nm.MethodError, match=r"way=...\) must be one of 'exact', 'sliced', 'denoising'"):
        gen.ScoreMatching("fuzzy")
    with pytest.raises(nm.MethodError, match=r"EnergyModel is fitted by gen\.ScoreMatching"):
        nm.fit(gen.EnergyModel(), X, gen.MaximumLikelihood(), **QUIET)
    with pytest.raises(nm.DataError, match="of x alone"):
        nm.fit(gen.EnergyModel(), (X, X), gen.ScoreMatching(), **QUIET)
