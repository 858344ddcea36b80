"""The outer optimizer on problems with known minima, and what it says of its own end."""

from itertools import pairwise

import numpy as np
import pytest

from nlmefit.estimate.optimize import Control, Point, Search, hessian, minimize
from nlmefit.estimate.standard_errors import different


def quadratic(u):
    A = np.diag([1.0, 1e2, 1e4])
    return 0.5 * u @ A @ u, A @ u


def rosenbrock(u):
    value = (1 - u[0]) ** 2 + 100 * (u[1] - u[0] ** 2) ** 2
    return value, np.array([-2 * (1 - u[0]) - 400 * u[0] * (u[1] - u[0] ** 2), 200 * (u[1] - u[0] ** 2)])


def logarithmic(u):
    """Not a number left of 0, as likelihoods are in places."""
    with np.errstate(invalid="ignore"):
        return u[0] - np.log(u[0]), np.array([1 - 1 / u[0]])


def flat(u):
    """Does not depend on its second coordinate."""
    return (u[0] - 1) ** 2, np.array([2 * (u[0] - 1), 0.0])


def saddle(u):
    return u[0] ** 2 - u[1] ** 2 + u[1] ** 4, np.array([2 * u[0], -2 * u[1] + 4 * u[1] ** 3])


def run(function, start, **control) -> Search:
    def evaluate(u, near=None):
        value, gradient = function(u)
        rows = np.outer([0.7, 0.3], gradient) + np.outer([1, -1], np.ones(len(u)))
        return Point(u, float(value), gradient, rows)

    start = np.asarray(start, float)
    return minimize(evaluate, evaluate(start), np.full(len(start), 2.0), lambda i, p: None, Control(**control))


@pytest.mark.parametrize(
    ("function", "start", "minimum"),
    [
        (quadratic, [3.0, -2.0, 1.0], [0, 0, 0]),
        (rosenbrock, [-1.2, 1.0], [1, 1]),
        (rosenbrock, [8.0, -9.0], [1, 1]),
        (logarithmic, [5.0], [1]),
        (logarithmic, [0.01], [1]),
        (saddle, [1.0, 1e-3], [0, 0.5**0.5]),
    ],
)
def test_known_minima(function, start, minimum):
    search = run(function, start)
    assert not search.stopped
    np.testing.assert_allclose(search.point.u, minimum, atol=1e-4)
    assert search.decrement < 1e-6
    values = [row["objective"] for row in search.history]
    assert all(b <= a for a, b in pairwise(values))  # never uphill


def test_a_saddle_is_left():
    """Started on the ridge exactly, the Hessian's negative curvature shows; the end is a minimum or is not called one."""
    search = run(saddle, [1.0, 0.0])
    assert np.isnan(search.decrement) or search.point.value < -0.24


def test_what_the_data_do_not_determine_shows():
    search = run(flat, [3.0, 0.5])
    assert np.linalg.eigvalsh(search.hessian)[0] < 1e-6
    assert np.isnan(search.decrement) or np.linalg.cond(search.hessian) > 1e10


def test_limit_is_told():
    search = run(rosenbrock, [-1.2, 1.0], limit=3)
    assert search.stopped == "no optimum after 3 iterations"


def test_hessian_by_differences():
    u = np.array([0.3, 0.2])
    value, gradient = rosenbrock(u)
    point = Point(u, value, gradient, np.outer([2.0, -1.0], np.full(2, 30.0)))

    def evaluate(u, near=None):
        value, gradient = rosenbrock(u)
        return Point(u, value, gradient, np.outer([1], gradient))

    exact = np.array([[2 - 400 * (0.2 - 3 * 0.09), -120.0], [-120.0, 200.0]])
    np.testing.assert_allclose(hessian(evaluate, point, np.ones(2)), exact, rtol=1e-5)


def test_a_coordinate_that_fades_away_does_not_hold_up_the_others():
    """An omega that has collapsed: its gradient is nearly 0, and so is its curvature, which asks for an endless step of it."""
    A = np.diag([1.0, 30.0, 300.0, 3000.0]) + 0.3
    noise = np.random.default_rng(0).standard_normal((12, 5))
    noise -= noise.mean(axis=0)

    def evaluate(u, near=None):
        v, fading = u[:4], np.exp(2 * u[4])
        gradient = np.r_[A @ v + np.tanh(v), 2 * fading]
        scale = np.r_[np.sqrt(np.diag(A)) / 2.4, 2 * fading]
        return Point(u, float(0.5 * v @ A @ v + np.sum(np.log(np.cosh(v))) + fading), gradient, gradient / 12 + noise * scale)

    search = minimize(evaluate, evaluate(np.array([3.0, -2.0, 1.0, -1.0, -9.0])), np.ones(5), lambda i, p: None)
    np.testing.assert_allclose(search.point.u[:4], 0, atol=1e-4)
    assert search.iterations < 15


def test_no_search_ends_in_a_linear_algebra_error():
    """A curvature beyond numbers, as from data of 1e150, is an end with a reason."""
    search = run(lambda u: (float(u @ u), np.array([np.inf if abs(u[0]) > 1 else 2 * u[0], 2 * u[1]])), [0.5, 3.0])
    assert search.point.finite
    point = Point(np.zeros(2), 1.0, np.full(2, 1e200), np.full((3, 2), 1e300))
    found = minimize(lambda u, near: point, point, np.ones(2), lambda i, p: None)
    assert "curvature" in found.stopped


def test_subjects_that_repeat_make_no_saddle():
    """S has the rank of the different subjects: with fewer of them than parameters it says nothing of the data."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(5, 7))
    assert different(few[[0, 0, 1, 2, 3, 4, 4, 1, 2]]) == 5
    assert different(np.r_[few, few * (1 + 1e-12)]) == 5
    assert different(rng.normal(size=(9, 7))) == 9
