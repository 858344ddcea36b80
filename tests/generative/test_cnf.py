"""Continuous normalizing flows: densities of known fields (G5, G1), traces, training by likelihood, and refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.rows import Samples
from nlmefit.generative.training import is_weight

A = np.array([[0.3, -0.5], [0.8, -0.2]])


def built(X, network=None, **options):
    network = gen.MLP(8, 1) if network is None else network
    return gen.CNF(network, **options).built(Samples.of(X), jax.random.key(0))


def linear_model(**options):
    """dx/dt = A x + 0.1: the affine layer of depth 0, with weights put in."""
    model = built(np.zeros((3, 2)), gen.MLP(depth=0), standardize=False, **options)
    values = jnp.asarray(np.column_stack([A, np.zeros(2)])), jnp.full(2, 0.1)
    return eqx.tree_at(lambda m: (m.dynamics.network.layers[0].weight, m.dynamics.network.layers[0].bias), model, values)


def exact_log_density(X):
    """x(1) = e^A x + b, so that log p(x) = log N(e^A x + b) + tr A."""
    flow = np.asarray(jax.scipy.linalg.expm(A))
    shift = np.linalg.solve(A, (flow - np.eye(2)) @ np.full(2, 0.1))
    z = X @ flow.T + shift
    return -0.5 * np.sum(z**2, axis=1) - np.log(2 * np.pi) + np.trace(A), z


@pytest.mark.parametrize("solver", [gen.Adaptive(1e-10), gen.RungeKutta(40)], ids=["adaptive", "Runge-Kutta"])
def test_g5_a_linear_field_is_exact(solver):
    """= G1 for the affine map e^A x + b."""
    X = np.random.default_rng(0).normal(size=(5, 2))
    model = linear_model(solver=solver)
    value, z = exact_log_density(X)
    np.testing.assert_allclose(model.log_prob(X), value, atol=1e-7)
    np.testing.assert_allclose(model.to_source(X), z, atol=1e-7)
    if isinstance(solver, gen.RungeKutta):  # each call compiles
        np.testing.assert_allclose(model.from_source(z), X, atol=1e-7)
    np.testing.assert_allclose(model.velocity_at(X, 0.3), X @ A.T + 0.1, atol=1e-12)


@pytest.mark.parametrize("law", ["rademacher", "normal"])
def test_g5_e2_hutchinson(law):
    """Unbiased; variance 2 |S|^2 (normal) or 2 (|S|^2 - sum S_ii^2) (signs), S the symmetric part of A, within 4 SE."""
    S = (A + A.T) / 2
    expected = 2 * np.sum(S**2) - (2 * np.sum(np.diag(S) ** 2) if law == "rademacher" else 0)
    probes = jax.vmap(lambda k: gen.Hutchinson(1, law).draw(k, 2))(jax.random.split(jax.random.key(1), 20_000))
    draws = jax.vmap(lambda e: gen.Hutchinson.trace(lambda u: A @ u, jnp.ones(2), e)[1])(probes)
    assert abs(np.mean(draws) - np.trace(A)) < 4 * np.std(draws) / np.sqrt(len(draws))
    squares = (draws - np.trace(A)) ** 2
    assert abs(np.mean(squares) - expected) <= 4 * np.std(squares) / np.sqrt(len(draws)) + 1e-12
    if law == "rademacher":  # over all 2^D signs the mean is the trace
        signs = jnp.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])
        np.testing.assert_allclose(gen.Hutchinson.trace(lambda u: A @ u, jnp.ones(2), signs)[1], np.trace(A), atol=1e-15)


def test_g5_the_noisy_log_density_is_unbiased():
    model = linear_model(solver=gen.RungeKutta(10), trace=gen.Hutchinson(2))
    x, none = jnp.array([0.5, -1.0]), jnp.zeros(0)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.jit(jax.vmap(lambda k: model.noisy_log_density(x, none, k)))(keys)
    assert np.std(draws) > 0.01
    assert abs(np.mean(draws) - model.log_density(x, none)) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_c3_a_cnf_integrates_to_one():
    """@1e-3, and log p = log N(z) + slogdet of the Jacobian of the flow @1e-6."""
    X = np.random.default_rng(0).normal([1.0, -1.0], [0.5, 2.0], (50, 2))
    model = built(X, solver=gen.RungeKutta(12))
    leaves, tree = jax.tree.flatten(model)
    model = jax.tree.unflatten(tree, [1.5 * x if is_weight(x) else x for x in leaves])
    axes = np.linspace(-5, 7, 121), np.linspace(-26, 24, 121)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    cell = np.prod([a[1] - a[0] for a in axes])
    assert abs(np.sum(np.exp(model.log_prob(grid))) * cell - 1) < 1e-3
    theta = (model.dynamics, jnp.zeros(0))

    def there(x):
        field = lambda t, u, theta: theta[0].slope(t, u, theta[1])  # noqa: E731
        return model.solver.solve(field, model.dynamics.inner(x), theta, 0.0, 1.0)

    x = jnp.array([0.5, -1.0])
    exact = jnp.sum(jax.scipy.stats.norm.logpdf(there(x))) + jnp.linalg.slogdet(jax.jacfwd(there)(x))[1]
    np.testing.assert_allclose(model.log_prob(np.asarray(x)[None]), [exact], atol=1e-4)


@pytest.mark.parametrize("trace", [None, gen.Hutchinson()], ids=["exact", "Hutchinson"])
def test_maximum_likelihood_trains_a_cnf(trace):
    """To within 0.05 nats of the entropy of a correlated normal."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
    model = gen.CNF(gen.MLP(8, 1), solver=gen.RungeKutta(3), trace=trace)
    training = gen.Training(steps=250, batch=64, rate=2e-2)
    fit = nm.fit(model, X, gen.MaximumLikelihood(training=training), progress=False)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(X.T))[1]
    assert -0.02 < -fit.model.score(X) - entropy < 0.05
    drawn = fit.model.sample(4000, key=1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.15)


def test_what_it_refuses():
    with pytest.raises(nm.ModelError, match=r"solver=...\) must be gen\.Adaptive"):
        gen.CNF(solver="dopri5")
    with pytest.raises(nm.ModelError, match="has not been fitted"):
        gen.CNF().log_prob(np.zeros((2, 2)))
    model = built(np.zeros((3, 2)))
    with pytest.raises(nm.DataError, match=r"times must rise or fall between 0 \(data\) and 1 \(source\), got \[0, 2\]"):
        model.paths(np.zeros((3, 2)), [0, 2])
    with pytest.raises(nm.DataError, match="t must rise or fall between 0"):
        model.velocity_at(np.zeros((3, 2)), 1.5)
    with pytest.raises(nm.MethodError, match=r"law=.* must be one of 'rademacher', 'normal'"):
        gen.Hutchinson(law="uniform")
    with pytest.raises(nm.MethodError, match="probes must be"):
        gen.Hutchinson(0)
