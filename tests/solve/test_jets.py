"""Jets against nested forward mode: their arithmetic, functions of them, and whole solutions of differential equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from models import Turnover

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.population.latent import PopulationModel, _flat
from nlmefit.solve import jets
from nlmefit.solve.jets import Jet

X = jnp.array([0.7, -0.4, 1.3])


def variables(order):
    k = len(X)
    return Jet(X, jnp.eye(k), jnp.zeros((k, k * (k + 1) // 2)) if order == 2 else None)


def check(jet, function, order=2):
    np.testing.assert_allclose(jet.value, function(X), rtol=1e-13)
    np.testing.assert_allclose(jet.first, jax.jacfwd(function)(X), rtol=1e-12, atol=1e-13)
    if order == 2:
        np.testing.assert_allclose(jets.full(jet.second, len(X)), jax.jacfwd(jax.jacfwd(function))(X), rtol=1e-11, atol=1e-12)
    else:
        assert jet.second is None


@pytest.mark.parametrize("order", [1, 2])
def test_arithmetic(order):
    x = variables(order)
    check(2.0 * x[0] * x + x[1] * jnp.arange(3.0) - x * x, lambda x: 2 * x[0] * x + x[1] * jnp.arange(3.0) - x * x, order)
    assert (jets.constant(1.5) * jnp.ones(2) + 1.0).first is None


@pytest.mark.parametrize("order", [1, 2])
def test_functions(order):
    def f(x):
        return jnp.stack([jnp.exp(x[0] * x[1]) / x[2], jnp.sin(x[2]) ** 3, x[0]])

    x = variables(order)
    found = jets.apply(lambda parts, c: tuple(c * f(parts)), tuple(x[i] for i in range(3)), jets.constant(1.0))
    check(jets.stack(found), f, order)
    check(jets.expanded(f, X, order), f, order)


def test_what_does_not_move_has_no_derivatives():
    made = jets.expanded(lambda x: {"moves": x**2, "stays": jnp.ones(2), "number": jnp.arange(3)}, X, 2)
    assert made["stays"].first is None and made["moves"].second is not None
    np.testing.assert_array_equal(made["number"], np.arange(3))


def test_a_choice_between_jets():
    x = variables(2)
    chosen = jets.where(jnp.array(False), x, 2.0)
    np.testing.assert_array_equal(chosen.value, np.full(3, 2.0))
    assert not np.any(chosen.first) and not np.any(chosen.second)


def test_a_linear_system():
    def matrix(x):
        return jnp.array([[3.0, 0.2], [0.1, 2.0]]) + jnp.outer(x[:2], x[1:]) * x[0]

    def right(x):
        return jnp.stack([x[0] * x[2], jnp.cos(x[1])])

    M, b = jets.expanded(matrix, X, 2), jets.expanded(right, X, 2)
    check(jets.solve(jnp.linalg.inv(M.value), M, b), lambda x: jnp.linalg.solve(matrix(x), right(x)))


@pytest.mark.parametrize("solver", [nm.RungeKutta(rtol=1e-6), nm.Rosenbrock(rtol=1e-5)], ids=lambda s: type(s).__name__)
def test_a_solution_and_its_derivatives_take_the_same_steps(solver):
    """A lag moves the doses' times, and the initial amount is a parameter."""
    data = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0.0, 0.0, 1.0, 3.0, 12.0, 12.5, 30.0],
            "AMT": [100.0, 0, 0, 0, 80.0, 0, 0],
            "RATE": [0.0, 0, 0, 0, 20.0, 0, 0],
            "CMT": ["depot", "depot", "depot", "depot", "central", "depot", "depot"],
            "EVID": [1, 0, 0, 0, 1, 0, 0],
            "DVID": ["conc", "pca", "conc", "pca", "conc", "conc", "pca"],
            "DV": 1.0,
        }
    )
    latent, laid_out = bind(Turnover(), data)
    latent = PopulationModel(latent.model, latent.occasions, solver, latent.in_steps, latent.written)
    subject = jax.tree.map(lambda x: x[0], laid_out.subjects)
    theta = {name: p.start for name, p in latent.parameters().items()}
    center, rebuild = _flat(latent._inputs(theta, jnp.full(len(latent.eta_names()), 0.1), subject))
    wanted = latent.model.amounts_read
    found = jax.jit(lambda x: latent._expanded(rebuild, x, subject, wanted, 2))(center)

    def plain(x):
        return latent._amounts(rebuild(x), subject, wanted)

    np.testing.assert_array_equal(found.value, jax.jit(plain)(center))
    first, second = jax.jit(jax.jacfwd(plain))(center), jax.jit(jax.jacfwd(jax.jacfwd(plain)))(center)
    np.testing.assert_allclose(found.first, first, atol=1e-10 * np.abs(first).max())
    np.testing.assert_allclose(jets.full(found.second, len(center)), second, atol=1e-10 * np.abs(second).max())
