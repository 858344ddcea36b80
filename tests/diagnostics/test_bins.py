"""Automatic bins of time."""

import numpy as np
import pytest

from nlmefit.diagnostics.bins import bin_edges, places


def counts(time, edges):
    return np.bincount(places(time, edges), minlength=len(edges) - 1)


def test_nominal_times_are_bins():
    time, who = np.tile([0.0, 0.5, 1, 2, 4, 8, 12, 24], 50), np.repeat(np.arange(50), 8)
    edges = bin_edges(time, who, "auto")
    assert counts(time, edges).tolist() == [50] * 8
    assert edges[[0, -1]].tolist() == [0.0, 24.0]


@pytest.mark.parametrize("seed", range(5))
def test_samples_around_nominal_times_stay_together(seed):
    rng = np.random.default_rng(seed)
    nominal = np.tile([0.5, 1, 2, 4, 8, 12, 18, 24, 36], 60)
    time = nominal * (1 + 0.04 * rng.normal(size=nominal.size))
    kept = rng.uniform(size=time.size) > 0.05  # some samples are missing
    time, nominal, who = time[kept], nominal[kept], np.repeat(np.arange(60), 9)[kept]
    bins = places(time, bin_edges(time, who, "auto"))
    assert [len(np.unique(bins[nominal == t])) for t in np.unique(nominal)] == [1] * 9


def test_random_times_have_about_equal_counts():
    time = np.random.default_rng(0).uniform(0, 24, 600)
    found = counts(time, bin_edges(time, np.arange(600) // 2, "auto"))
    assert len(found) == 17  # Rice: 2 * 600^(1/3)
    assert found.min() > 600 / 17 / 3
    assert found.max() < 2 * 600 / 17


def test_a_rare_time_joins_its_neighbour():
    time = np.r_[np.zeros(40), np.full(40, 10.0), 10.5, np.full(40, 30.0)]
    assert counts(time, bin_edges(time, np.arange(len(time)), 3)).tolist() == [40, 41, 40]


@pytest.mark.parametrize("time", [np.zeros(7), np.array([1.0, 2.0]), np.array([5.0])])
def test_few_observations(time):
    edges = bin_edges(time, np.arange(len(time)), "auto")
    assert counts(time, edges).sum() == len(time)
    assert np.all(np.diff(edges) > 0)


def test_ends_belong_to_bins():
    assert places(np.array([0.0, 1.0, 1.5, 2.0]), np.array([0.0, 1.0, 2.0])).tolist() == [0, 1, 1, 1]
