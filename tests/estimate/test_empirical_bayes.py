"""Modes: deterministic, converged, robust; what fails is found, retried and named."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from models import examples
from scipy.optimize import brentq, minimize

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.core.progress import Progress
from nlmefit.estimate.factor import factorize, is_positive, log_determinant, solve
from nlmefit.estimate.modes.empirical_bayes import bounded_step, find_mode
from nlmefit.estimate.modes.objective import Contributions, Near, Objective, _better
from nlmefit.estimate.modes.search import _verified
from nlmefit.estimate.optimize import Point, Search
from nlmefit.estimate.problem import Problem
from nlmefit.latent.program import log_joint


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


@pytest.mark.parametrize("name", ["theophylline", "turnover"])
@pytest.mark.parametrize("method", [nm.FOCE(interaction=True), nm.FOCE(), nm.Laplace()], ids=["FOCEI", "FOCE", "Laplace"])
def test_modes_followed_from_a_point_near_by_are_those_found_from_zero(name, method):
    """Values and modes @1e-8; the gradient has the error of second derivatives a step away from where they were taken."""
    example = examples()[name]
    latent, data = bind(example.model, example.data)
    objective = Objective(Problem(latent, data), method)
    u = objective.coordinates.start()
    here = objective.contributions(u)
    there = u + 0.02 * np.cos(np.arange(len(u)))
    cold, warm = objective.contributions(there), objective.contributions(there, Near(u, here))
    assert np.all(warm.converged)
    np.testing.assert_allclose(warm.z, cold.z, atol=1e-7)
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-8)
    np.testing.assert_allclose(warm.gradient, cold.gradient, atol=1e-5 * np.abs(cold.gradient).max())
    assert warm.iterations.mean() < 0.7 * cold.iterations.mean()


def test_modes_move_as_predicted():
    """dz/du against central differences of the modes."""
    example = examples()["theophylline"]
    latent, data = bind(example.model, example.data)
    for method in (nm.FOCE(interaction=True), nm.Laplace(), nm.Quadrature(nodes=3)):
        objective = Objective(Problem(latent, data), method)
        u = objective.coordinates.start()
        moves = objective.contributions(u).moves
        for k in range(len(u)):
            h = 1e-4 * np.eye(len(u))[k]
            change = (objective.contributions(u + h).z - objective.contributions(u - h).z) / 2e-4
            np.testing.assert_allclose(moves[:, :, k], change, atol=2e-5)


def test_a_fit_ends_with_the_modes_found_from_zero():
    """A search that started in a worse valley of one subject goes on from the mode that is found from 0."""
    rng = np.random.default_rng(0)
    rows = [(i, t, 4.0 + 0.1 * rng.normal()) for i in range(4) for t in (0.0, 1.0)]
    data = pd.DataFrame(rows, columns=["ID", "TIME", "DV"])
    latent, subjects = bind(TwoModes(tilt=nm.Theta(0.1, fixed=True)), data)
    objective = Objective(Problem(latent, subjects), nm.Laplace())
    u = objective.coordinates.start()
    cold = objective.contributions(u)
    other = objective.contributions(u, Near(u, cold._replace(z=-cold.z, moves=np.zeros_like(cold.moves))))
    assert np.all(np.sign(other.z) == -np.sign(cold.z)) and np.all(other.converged)  # it stays in the valley that it started in
    start = Point(u, float(other.value.sum()), other.gradient.sum(axis=0), other.gradient, other)
    found = _verified(objective, Search(start, None, np.inf, 0), Progress(False, ""))
    assert not found.stopped
    np.testing.assert_array_equal(found.point.extra.z, objective.contributions(found.point.u).z)
    assert np.all(np.sign(found.point.extra.z) == np.sign(cold.z))


def test_other_modes_are_found():
    """From 0 the search falls into the mode on the tilt's side; where the data say otherwise the other one is found."""
    rng = np.random.default_rng(0)
    rows = [(i, t, 4.0 + 0.1 * rng.normal()) for i in range(4) for t in (0.0, 1.0)]
    data = pd.DataFrame(rows, columns=["ID", "TIME", "DV"])
    latent, subjects = bind(TwoModes().at({"tilt": 0.1}), data)
    nearest, everywhere = (Objective(Problem(latent, subjects), nm.Laplace(all_modes=wide)) for wide in (False, True))
    u = nearest.coordinates.start()
    assert np.all(nearest.contributions(u).converged)
    best = everywhere.contributions(u)
    grid = np.linspace(-3, 3, 60001)
    for i in range(4):
        y = subjects.subjects.observed["y"][i]
        density = 0.5 * np.sum((y[:, None] - grid**2 - 0.1 * grid) ** 2, axis=0) / 0.25 + 0.5 * grid**2
        assert best.z[i, 0] == pytest.approx(grid[np.argmin(density)], abs=2e-4)


def test_a_fit_and_its_evaluation_are_one_objective():
    """The fit's objective is that of the mode found from eta = 0, as NONMEM's is, or, where all modes are asked for, of the best
    one: by both calls."""
    rng = np.random.default_rng(0)
    rows = [(i, t, 4.0 + 0.1 * i + 0.1 * rng.normal()) for i in range(4) for t in (0.0, 1.0)]
    data = pd.DataFrame(rows, columns=["ID", "TIME", "DV"])
    start = TwoModes(tilt=nm.Theta(0.1, fixed=True))
    for method in (nm.Laplace(), nm.Laplace(all_modes=True)):
        fit = nm.fit(start, data, method, progress=False)
        again = nm.evaluate(fit, data, method)
        np.testing.assert_allclose(again.contributions["ofv"], fit.contributions["ofv"], rtol=1e-6)
    for tilt in (0.1, -0.1):  # from eta = 0 the tilt decides to which side the search goes, the prior which one is better
        other = start.at({"tilt": tilt})
        one, best = (nm.evaluate(other, data, nm.Laplace(all_modes=wide)) for wide in (False, True))
        assert best.ofv <= one.ofv + 1e-9


class Mirrored(nm.Model):
    """A bowl around 0 and a steeper one to its left, in which large observations have their better mode."""

    shift = nm.Normal(0.0, iiv=1.0, fixed=True)

    def observe(self, t, A, p):
        return {"y": jnp.where(p.shift < -0.5, 4.0 * (p.shift + 0.5) ** 2, 0.3 * p.shift**2 + 0.1 * p.shift) + 0.0 * t}

    y = nm.Additive(0.5)


def test_a_better_mode_is_told_by_subject():
    data = pd.DataFrame({"ID": [7, 7, 8, 8], "TIME": [0.0, 1.0] * 2, "DV": [3.6, 3.7, 0.0, 0.1]})
    fit = nm.fit(Mirrored(), data, nm.Laplace(), progress=False)
    assert not fit.status
    told = next(reason for reason in fit.status.reasons if "better mode" in reason)
    best = nm.evaluate(fit, data, nm.Laplace(all_modes=True)).contributions["ofv"]
    own = nm.evaluate(fit, data, nm.Laplace()).contributions["ofv"]
    assert f"7 ({best[7] - own[7]:+.2g})" in told and "8 (" not in told
    np.testing.assert_allclose(own, fit.contributions["ofv"], rtol=1e-6)


class Oral(nm.Model):
    ka = nm.LogNormal(3.07, iiv=0.295)
    V = nm.LogNormal(29.6, iiv=0.273)
    CL = nm.LogNormal(11.4, iiv=0.292)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": 1000 * A.central / p.V}

    conc = nm.Proportional(0.151)


@pytest.mark.parametrize("last", [24.4, 30.0, 36.0])
def test_a_steep_start_leads_to_the_near_mode(last):
    """A residual sd that vanishes with the prediction makes the density at eta = 0 steep and not convex: a step along pivots
    turned positive went over the ridge, to a mode 8 prior sds away and 70 log units down."""
    times = [0, 0.25, 0.57, 1.12, 2.02, 3.82, 5.1, 7.03, 9.05, 12.1, last]
    values = [0, 82.4, 112, 154, 115, 85.2, 72.1, 37.8, 29.9, 14.9, 1.04]
    data = pd.DataFrame({"ID": 1, "TIME": times, "AMT": [4.02] + [0] * 10, "DV": values})
    for method in (nm.FOCE(interaction=True), nm.Laplace()):
        own, best = (nm.evaluate(Oral(), data, replace(method, all_modes=wide)) for wide in (False, True))
        assert own.ofv == pytest.approx(best.ofv, abs=1e-6)
        assert own.contributions["converged"].all()


@pytest.mark.parametrize("q", [1, 2, 3, 6])
def test_bounded_step(q):
    """Against the minimum of the quadratic over the ball by its eigenvalues (More and Sorensen 1983)."""
    rng = np.random.default_rng(q)
    for trial in range(40):
        A = rng.normal(size=(q, q)) * 10 ** rng.uniform(-2, 3)
        H, g, radius = A + A.T, rng.normal(size=q) * 10 ** rng.uniform(-2, 4), 10 ** rng.uniform(-2, 1)
        if trial % 3 == 0:
            H = H @ H.T
        step, gain, _ = bounded_step(jnp.asarray(g), jnp.asarray(H), jnp.asarray(radius))
        values, vectors = np.linalg.eigh(H)
        b = vectors.T @ g
        damping = 0.0
        if values[0] <= 0 or np.linalg.norm(b / values) > radius:
            low = max(0.0, -values[0])
            damping = brentq(lambda d: np.linalg.norm(b / (values + d)) - radius, low + 1e-13 * abs(values).max(), low + 1e9)
        best = -vectors @ (b / (values + damping))
        assert np.linalg.norm(step) <= radius * (1 + 1e-9)
        assert float(gain) >= 0.8 * -(g @ best + 0.5 * best @ H @ best)


def test_a_rescue_is_of_those_searched_for_alone():
    """What a batch left out holds is not an answer: an unconverged subject of it once counted 0 with gradient 0."""

    def of(converged, inner, value):
        n = len(inner)
        fields = {name: np.zeros(n) for name in Contributions._fields} | {"gradient": np.ones((n, 2))}
        return Contributions(**fields | {"converged": np.array(converged), "inner": np.array(inner), "value": np.array(value)})

    first = of([False, False], [5.0, 6.0], [10.0, 12.0])
    again = of([True, False], [4.0, 0.0], [8.0, 0.0])
    found = _better(first, again, np.array([True, False]))
    np.testing.assert_array_equal(found.value, [8.0, 12.0])
    np.testing.assert_array_equal(found.converged, [True, False])


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
