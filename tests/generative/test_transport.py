"""Optimal transport against SciPy, POT's network simplex and closed forms."""

import numpy as np
import ot
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import norm, wasserstein_distance

import nlmefit as nm
from nlmefit.generative.transport.optimal_transport import normalized_path_energy, pairing, path_energy, sinkhorn, wasserstein

SHIFT = np.array([3.0, -4.0])
"""Of length 5."""


def clouds(n, m, size=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, size)), rng.normal(size=(m, size)) @ np.diag(np.linspace(0.5, 1.5, size)) + 1.0


def linear_program(x, y, order):
    return ot.emd2(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), ot.dist(x, y, "euclidean") ** order) ** (1 / order)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (40, 40), (40, 61), (7, 100), (12, 18)])
def test_a3_on_the_line(n, m):
    """A3: W_1 is SciPy's to 1e-9, and any order the linear program's."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.normal(size=m) * 0.7 + 1
    assert wasserstein(x, y, order=1) == pytest.approx(wasserstein_distance(x, y), abs=1e-9)
    for order in (1.5, 2, 3):
        assert wasserstein(x, y[:, None], order) == pytest.approx(linear_program(x[:, None], y[:, None], order), abs=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_a3_assignment_is_the_linear_program(order):
    """A3: on 512 points of three dimensions to 1e-9; of unequal sizes too, where repeating points makes them equal."""
    x, y = clouds(512, 512, 3)
    assert wasserstein(x, y, order) == pytest.approx(linear_program(x, y, order), abs=1e-9)
    few, many = x[:30], y[:45]
    repeated = wasserstein(np.repeat(few, 3, axis=0), np.repeat(many, 2, axis=0), order)
    assert wasserstein(few, many, order) == pytest.approx(repeated, abs=1e-9)


def test_a3_shift_and_symmetry():
    """A3: W_r of a shifted sample is the shift's length; the distance is symmetric, 0 for a permutation, and rises with r."""
    x, y = clouds(80, 80)
    assert wasserstein(x, x + SHIFT, order=1) == pytest.approx(5.0, abs=1e-12)
    assert wasserstein(x, x[::-1]) == pytest.approx(0.0, abs=1e-7)
    assert wasserstein(x, y) == pytest.approx(wasserstein(y, x), abs=1e-12)
    assert wasserstein(x, y, 1) < wasserstein(x, y, 2) < wasserstein(x, y, 4)


def test_a3_sinkhorn_converges():
    """A3: as the regularization e falls to 0 the plain value falls to W_2 from above, its square by less than e log N."""
    x, y = clouds(60, 60)
    exact = wasserstein(x, y)
    levels = (1.0, 0.2, 0.05)
    values = [sinkhorn(x, y, e, debiased=False) for e in levels]
    assert values[0] > values[1] > values[2] > exact
    for e, value in zip(levels, values, strict=True):
        assert value**2 - exact**2 < e * np.log(60)
    biases = [abs(sinkhorn(x, y, e) - exact) for e in levels]
    assert biases[0] > biases[1] > biases[2]
    assert biases[2] < 0.01 * exact


def test_a3_sinkhorn_is_pots():
    """A3: cost and relative entropy of the plan that POT's other iterations find."""
    x, y = clouds(30, 50)
    a, b, cost = np.full(30, 1 / 30), np.full(50, 1 / 50), ot.dist(x, y)
    plan = ot.bregman.sinkhorn_log(a, b, cost, 0.5, stopThr=1e-12, numItermax=2000)
    value = np.sum(plan * cost) + 0.5 * np.sum(plan * np.log(plan / np.outer(a, b)))
    assert sinkhorn(x, y, 0.5, debiased=False) ** 2 == pytest.approx(value, abs=1e-9)


def test_a3_debiased_sinkhorn():
    """A3: 0 for a sample and itself, and |shift| for a shift, at any regularization; the plain one is neither."""
    x, _ = clouds(50, 50)
    assert sinkhorn(x, x, 1.0) == pytest.approx(0.0, abs=1e-6)
    assert sinkhorn(x, x, 1.0, debiased=False) > 0.5
    assert sinkhorn(x, x + SHIFT, 1.0, tolerance=1e-9) == pytest.approx(5.0, abs=1e-6)
    one, other = clouds(40, 50)
    values = [sinkhorn(a, b, 1.0, debiased=False) ** 2 for a, b in ((one, other), (one, one), (other, other))]
    assert sinkhorn(one, other, 1.0) ** 2 == pytest.approx(values[0] - values[1] / 2 - values[2] / 2, abs=1e-9)
    far = sinkhorn(x, x + 1000.0, 1.0, tolerance=1e-9)  # exp(-cost / regularization) underflows everywhere
    assert far == pytest.approx(1000 * np.sqrt(2), rel=1e-9)


def test_f5_gradient_of_wasserstein():
    """F5: W_1 between point masses at 0 and theta is |theta|, of slope 1 however far apart they are."""
    for theta in (-3.0, 0.2, 50.0):
        assert wasserstein([0.0], [theta], order=1) == abs(theta)
        slope = (wasserstein([0.0], [theta + 1e-4], 1) - wasserstein([0.0], [theta - 1e-4], 1)) / 2e-4
        assert slope == pytest.approx(np.sign(theta), abs=1e-9)


def test_g9_pairing():
    """G9: each index once, so that marginals are the samples; its cost is the linear program's, below other permutations'."""
    x, y = clouds(128, 128, 2, seed=4)
    order = pairing(x, y)
    np.testing.assert_array_equal(np.sort(order), np.arange(128))
    cost = np.mean(np.sum((x - y[order]) ** 2, axis=1))
    assert cost == pytest.approx(linear_program(x, y, 2) ** 2, abs=1e-9)
    rng = np.random.default_rng(5)
    assert all(cost < np.mean(np.sum((x - y[rng.permutation(128)]) ** 2, axis=1)) for _ in range(50))


def test_g9_pairing_undoes_a_permutation():
    """G9: of a sample and itself in another order; on the line the order statistics' pairing."""
    x, _ = clouds(64, 64, 3, seed=6)
    shuffled = np.random.default_rng(7).permutation(64)
    np.testing.assert_array_equal(x[shuffled][pairing(x, x[shuffled])], x)
    y = np.random.default_rng(8).exponential(size=64)
    np.testing.assert_array_equal(np.argsort(y[pairing(x[:, 0], y)]), np.argsort(x[:, 0]))


def test_g8_path_energy_of_flow_matching():
    """G8: N(1.5, 0.4^2) from N(0, 1). Of independent pairs the marginal field has path energy 2.78134 over W_2^2 = 2.61, so that
    NPE = 0.0656; of the optimal pairs the paths are straight and NPE = 0."""
    m, s = 1.5, 0.4

    def field(t, x):
        return -m + ((t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2)) * (x - (1 - t) * m)

    start, times = norm.ppf((np.arange(2000) + 0.5) / 2000), np.linspace(1.0, 0.0, 401)
    paths = solve_ivp(field, [1, 0], start, rtol=1e-8, atol=1e-10, t_eval=times).y.T
    velocities = np.array([field(t, x) for t, x in zip(times, paths, strict=True)])
    squared = m**2 + (1 - s) ** 2
    energy = path_energy(velocities, times)
    assert energy == pytest.approx(2.78134, abs=5e-6)
    assert normalized_path_energy(energy, squared) == pytest.approx(0.0656, abs=5e-5)
    assert path_energy(velocities[::-1, :, None], times[::-1]) == pytest.approx(energy, abs=1e-14)
    end = m + s * start
    straight = path_energy(np.tile(end - start, (2, 1)), [0.0, 1.0])
    assert normalized_path_energy(straight, wasserstein(start, end) ** 2) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: wasserstein(np.ones((3, 2)), np.ones((3, 4))), nm.DataError, "x has 2 columns and y 4"),
        (lambda: wasserstein([1.0, np.nan], [1.0]), nm.DataError, "x holds 1 values that are not finite"),
        (lambda: wasserstein([1.0], []), nm.DataError, "y must have 1 rows or more, got 0"),
        (lambda: wasserstein(1.0, [1.0]), nm.DataError, r"x must have shape \(N,\) or \(N, D\).*got \(\)"),
        (lambda: wasserstein(np.ones((2, 0)), np.ones((2, 0))), nm.DataError, r"got \(2, 0\)"),
        (lambda: wasserstein([1.0], [1.0], order=0.5), nm.MethodError, "order must be a number from 1 up, got 0.5"),
        (lambda: pairing(np.ones((3, 2)), np.ones((4, 2))), nm.DataError, "same size, got 3 and 4 rows"),
        (
            lambda: sinkhorn([1.0], [2.0], 0.0),
            nm.MethodError,
            r"regularization must be positive, got 0.0; for none use wasserstein",
        ),
        (lambda: sinkhorn([1.0], [2.0], 0.1, iterations=0), nm.MethodError, "iterations must be a whole number"),
        (
            lambda: sinkhorn(*clouds(20, 20), 1e-3, iterations=20),
            nm.MethodError,
            "marginals are off by .* after 20 iterations at regularization 0.001, .* of the mean cost. Raise",
        ),
        (lambda: path_energy(np.ones((3, 4)), [0.0, 1.0]), nm.DataError, r"got \(3, 4\) and \(2,\)"),
        (lambda: path_energy(np.ones((3, 4)), [0.0, 1.0, 0.5]), nm.DataError, "must rise, or fall"),
        (lambda: path_energy(np.full((2, 4), np.nan), [0.0, 1.0]), nm.DataError, "8 values that are not finite"),
        (lambda: normalized_path_energy(1.0, 0.0), nm.DataError, "must be positive, got 0.0"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
