"""The energy distance and its permutation test."""

import numpy as np
import pytest
from scipy import stats

import nlmefit as nm
from nlmefit import generative as gen


def test_energy_distance_in_one_dimension():
    """2 int (F - G)^2 dx (Szekely and Rizzo 2013): scipy's is its root."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=70), rng.normal(1.0, 2.0, 90)
    assert gen.energy_distance(x, y) == pytest.approx(stats.energy_distance(x, y) ** 2, abs=1e-12)
    assert gen.energy_distance([0.0], [3.0]) == 6.0
    assert gen.energy_distance(x, x) == pytest.approx(0.0, abs=1e-12)


def test_the_test_rejects_as_often_as_it_says():
    """Under one law its p-value is below 0.1 in a tenth of all cases; a shift of one sd of 50 rows is seen."""
    rng = np.random.default_rng(1)
    values = [gen.two_sample_test(*rng.normal(size=(2, 30, 2)), permutations=99, key=k).p_value for k in range(200)]
    assert abs(np.mean(np.array(values) <= 0.1) - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 200)
    seen = gen.two_sample_test(rng.normal(size=(50, 2)), rng.normal(size=(40, 2)) + 1.0)
    assert seen.p_value < 0.01 and seen.distance > 2 * seen.limit


def test_errors():
    with pytest.raises(nm.DataError, match="x has 2 columns and y 3: samples of the same space"):
        gen.energy_distance(np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(nm.DataError, match="y holds 1 values that are not finite"):
        gen.two_sample_test([1.0], [np.nan])
    with pytest.raises(nm.MethodError, match="permutations must be a whole number from 20 up, got 3"):
        gen.two_sample_test([1.0], [2.0], permutations=3)
