"""Modes: deterministic, converged, robust; what fails is found, retried and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from examples import examples
from scipy.optimize import minimize

import nlmefit as nm
from nlmefit.estimate.empirical_bayes import find_mode
from nlmefit.estimate.factor import factorize, is_positive, log_determinant, solve
from nlmefit.estimate.objective import Objective
from nlmefit.estimate.problem import Problem
from nlmefit.fit import bind
from nlmefit.program import log_joint


@pytest.mark.parametrize("name", ["theophylline", pytest.param("phenobarbital", marks=pytest.mark.slow), "counts", "pkpd"])
def test_modes_against_scipy(name):
    example = examples()[name]
    latent, data = bind(example.model, example.data)
    theta = {n: jnp.asarray(p.start, float) for n, p in latent.parameters().items()}
    root = latent.omega(theta)
    fit = nm.evaluate(example.model, example.data, nm.Laplace())
    for i in (0, 3):
        subject = _one(data.subjects, i)

        def objective(z, subject=subject):
            return -float(log_joint(latent, theta, root, z, subject))

        found = minimize(objective, np.zeros(root.shape[0]), method="BFGS", options={"gtol": 1e-7})
        np.testing.assert_allclose(fit.eta.iloc[i], np.asarray(root) @ found.x, atol=2e-5)


def _one(subjects, i):
    return jax.tree.map(lambda x: x[i], subjects)


def test_the_objective_has_no_history():
    example = examples()["theophylline"]
    latent, data = bind(example.model, example.data)
    objective = Objective(Problem(latent, data), nm.FOCE(interaction=True))
    u = objective.coordinates.start()
    first = objective.contributions(u)
    for k in range(3):
        objective.contributions(u + 0.5 * (k + 1))
    again = objective.contributions(u)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("objective", "start", "mode"),
    [
        (lambda z: 0.5 * z @ z + 100 * (jnp.exp(z[0]) - 2) ** 2, np.zeros(1), None),
        (lambda z: jnp.log(1 + z @ z) + 1e-3 * z @ z, np.array([3.0, -5.0]), np.zeros(2)),  # not convex away from 0
        (lambda z: (1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2, np.array([-1.2, 1.0]), np.ones(2)),  # Rosenbrock
        (lambda z: jnp.where(z[0] > -1, -jnp.log(1 + z[0]) + z[0] ** 2, jnp.nan), np.array([5.0]), None),  # NaN over the edge
    ],
)
def test_hard_objectives(objective, start, mode):
    found = find_mode(objective, jnp.asarray(start))
    assert found.converged
    if mode is not None:
        np.testing.assert_allclose(found.z, mode, atol=1e-7)
    reference = minimize(lambda z: float(objective(jnp.asarray(z))), np.asarray(found.z), method="Nelder-Mead", tol=1e-12)
    assert float(found.value) <= reference.fun + 1e-10


def test_a_saddle_is_not_a_mode():
    found = find_mode(lambda z: z[0] ** 2 - z[1] ** 2 + 0.25 * z[1] ** 4, jnp.zeros(2))
    assert not found.converged  # started on the saddle itself, where the gradient is 0


class TwoModes(nm.Model):
    """y = eta^2 + eps: two modes of equal height but for a slight tilt, the start at 0 between them."""

    shift = nm.Normal(0.0, iiv=1.0, fixed=True)
    tilt = nm.Theta(0.1)

    def observe(self, t, A, p):
        return {"y": p.shift**2 + p.tilt * p.shift + 0.0 * t}

    y = nm.Additive(0.5)


def test_other_modes_are_found():
    """From 0 the search falls into the mode on the tilt's side; where the data say otherwise the other one is found."""
    rng = np.random.default_rng(0)
    rows = [(i, t, 4.0 + 0.1 * rng.normal()) for i in range(4) for t in (0.0, 1.0)]
    data = pd.DataFrame(rows, columns=["ID", "TIME", "DV"])
    latent, subjects = bind(TwoModes().at({"tilt": 0.1}), data)
    objective = Objective(Problem(latent, subjects), nm.Laplace())
    u = objective.coordinates.start()
    found = objective.contributions(u)
    assert np.all(found.converged)
    objective.search_widely()
    best = objective.contributions(u)
    grid = np.linspace(-3, 3, 60001)
    for i in range(4):
        y = subjects.subjects.observed["y"][i]
        density = 0.5 * np.sum((y[:, None] - grid**2 - 0.1 * grid) ** 2, axis=0) / 0.25 + 0.5 * grid**2
        assert best.z[i, 0] == pytest.approx(grid[np.argmin(density)], abs=2e-4)


@pytest.mark.parametrize("q", [1, 2, 5, 9])
def test_factor(q):
    rng = np.random.default_rng(q)
    A = rng.normal(size=(q, q))
    A = A @ A.T + 0.1 * np.eye(q)
    b = rng.normal(size=(q, 3))
    factor = factorize(jnp.asarray(A))
    np.testing.assert_allclose(solve(factor, jnp.asarray(b)), np.linalg.solve(A, b), rtol=1e-8)
    np.testing.assert_allclose(solve(factor, jnp.asarray(b[:, 0])), np.linalg.solve(A, b[:, 0]), rtol=1e-8)
    assert float(log_determinant(factor)) == pytest.approx(np.linalg.slogdet(A)[1], abs=1e-9)
    assert is_positive(factor)
    assert not is_positive(factorize(jnp.asarray(A - 2 * np.linalg.eigvalsh(A)[-1] * np.eye(q))))
    assert np.isnan(log_determinant(factorize(jnp.asarray(-A[:1, :1]))))
