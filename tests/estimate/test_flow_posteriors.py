"""Posteriors of subjects as invertible maps of normal draws: their densities, and what a curved one gains."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.flows.bijections import Affine, Chain, Linear
from nlmefit.generative.rows import Samples
from nlmefit.generative.training import is_weight

FLOW = nm.TriangularFlow()
FAMILIES = [nm.FullRank(), nm.MeanField(), FLOW]


def curved(family, scale=0.25):
    """phi of two random effects, some way from 0."""
    return jnp.asarray(scale * np.random.default_rng(1).normal(size=family.size(2)))


def shaken(module, by=0.4):
    leaves, tree = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [w + by * jax.random.normal(k, w.shape) if is_weight(w) else w for w, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def inverse_of_a_triangular_map(family, phi, t):
    """xi of t (P, 2), coordinate by coordinate by bisection: each rises in its own xi."""
    forward = jax.jit(jax.vmap(lambda xi: family.transform(phi, xi)[0]))
    xi = np.zeros_like(t)
    for k in range(2):
        low, high = np.full(len(t), -40.0), np.full(len(t), 40.0)
        for _ in range(60):
            xi[:, k] = (low + high) / 2
            below = np.asarray(forward(xi))[:, k] < t[:, k]
            low, high = np.where(below, xi[:, k], low), np.where(below, high, xi[:, k])
    return xi


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_c3_densities_of_the_families_of_vi(family):
    """log|det dT/dxi| = slogdet of jax.jacfwd @1e-10; log q(z) = log N(T^-1(z)) - log|det dT/dxi| integrates to 1 @1e-3."""
    phi = curved(family)
    xi = jax.random.normal(jax.random.key(0), (50, 2))
    jacobians = jax.vmap(jax.jacfwd(lambda x: family.transform(phi, x)[0]))(xi)
    told = jax.vmap(lambda x: family.transform(phi, x)[1])(xi)
    np.testing.assert_allclose(told, np.linalg.slogdet(jacobians)[1], rtol=0, atol=1e-10)
    assert np.all(np.diff(np.sort(told)) > 0) == (family is FLOW)  # the others' are constant

    across = np.linspace(-7, 7, 141)
    places = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
    back = inverse_of_a_triangular_map(family, phi, places)
    log_q = -0.5 * np.sum(back**2, axis=1) - np.log(2 * np.pi) - jax.vmap(lambda x: family.transform(phi, x)[1])(back)
    assert abs(np.exp(log_q).sum() * (across[1] - across[0]) ** 2 - 1) < 1e-3


MIXING = Linear.of(np.array([[1.2, 0.4], [-0.3, 0.8]]))


def layers(kind, by):
    layer = shaken(kind.build(2, 0, jax.random.key(1)), by)
    return Chain.of([layer, MIXING, layer])


BIJECTIONS = {
    "affine": lambda: Chain.of([Affine(np.array([1.0, 2.0]), np.array([0.3, -0.5])), MIXING]),
    "coupling": lambda: layers(gen.AffineCoupling(gen.MLP(6, 1)), 0.4),
    "spline": lambda: layers(gen.SplineCoupling(gen.MLP(6, 1), bins=4), 0.5),
}


def map_and_log_determinant(name):
    """Functions of one x."""
    if name != "cnf":
        bijection = BIJECTIONS[name]()
        return (lambda x: bijection.forward(x, jnp.zeros(0))[0]), (lambda x: bijection.forward(x, jnp.zeros(0))[1])
    data = Samples.of(np.random.default_rng(0).normal([1.0, -2.0], [0.5, 2.0], (50, 2)))
    cnf = shaken(gen.CNF(gen.MLP(6, 1), gen.RungeKutta(100)).built(data, jax.random.key(3)), 0.2)

    def flow(u):  # from standardised data to the source
        return cnf.solver.solve(lambda t, z, theta: cnf.dynamics.slope(t, z, jnp.zeros(0)), u, None, 0.0, 1.0)

    def log_determinant(u):
        log_p = cnf.log_density(cnf.dynamics.outer(u), jnp.zeros(0)) + jnp.sum(cnf.dynamics.frame.log_scale)
        return log_p + 0.5 * flow(u) @ flow(u) + jnp.log(2 * jnp.pi)

    return flow, log_determinant


@pytest.mark.parametrize("name", ["affine", "coupling", "spline", "cnf"])
def test_c3_log_determinants_of_flows(name):
    """= slogdet of jax.jacfwd @1e-10, of flows that are not the identity."""
    forward, log_determinant = map_and_log_determinant(name)
    x = jax.random.normal(jax.random.key(4), (20, 2))
    y, told, jacobians = jax.jit(jax.vmap(lambda x: (forward(x), log_determinant(x), jax.jacfwd(forward)(x))))(x)
    np.testing.assert_allclose(told, np.linalg.slogdet(jacobians)[1], rtol=0, atol=1e-10)
    assert not np.allclose(y, x, atol=0.1)


class Banana(nm.Model):
    """y = b + a^2 + eps: given y, (a, b) lies along a parabola."""

    a = nm.Normal(nm.Fixed(0.0), iiv=1.0)
    b = nm.Normal(nm.Fixed(0.0), iiv=1.0)
    y = nm.Additive(0.4)

    def observe(self, t, A, p):
        return {"y": p.b + p.a**2 + 0.0 * t}


def test_c3_a_flow_bends_to_a_banana():
    """ELBO of the normal q < ELBO of the flow q <= log p(y) by quadrature."""
    values = np.array([-0.5, 0.7, 1.5])
    data = pd.DataFrame({"ID": [1, 2, 3], "TIME": 0.0, "DV": values})
    across = np.linspace(-7, 7, 701)
    a, b = np.meshgrid(across, across)
    prior = -0.5 * (a**2 + b**2) - np.log(2 * np.pi) + 2 * np.log(across[1] - across[0])
    seen = [-0.5 * ((y - b - a**2) / 0.4) ** 2 - 0.5 * np.log(2 * np.pi * 0.4**2) for y in values]
    exact = np.array([logsumexp(prior + s) for s in seen])
    bound = {f: nm.evaluate(Banana(), data, nm.VI(family=f)).contributions for f in (nm.FullRank(), FLOW)}
    normal, flow = (bound[f]["log_likelihood"].to_numpy() for f in bound)
    error = np.hypot(*(c["mc_se"].to_numpy() for c in bound.values()))
    assert np.all(flow <= exact + 4 * error) and np.all(normal <= exact + 4 * error)
    assert np.all(flow - normal > 4 * error) and np.all(flow - normal > 0.5 * (exact - normal))
