"""Subjects of unequal length: grouped by shape where that saves enough, with the same objective by subject."""

import numpy as np
import pandas as pd
import pytest
from models import examples

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate import batches


def unequal():
    """Nine subjects with one to twenty observations and doses, in no order."""
    rng = np.random.default_rng(2)
    rows = []
    for who, size in enumerate([2, 20, 1, 5, 1, 19, 3, 2, 18]):
        rows += [(who, 10.0 * k, np.nan, 100.0, 1) for k in range(size)]
        rows += [(who, t, np.exp(rng.normal()), 0.0, 0) for t in rng.uniform(0.2, 10.0 * size, size)]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT", "EVID"])
    return frame.sort_values(["ID", "TIME"], kind="stable")


def test_objective_by_subject_does_not_depend_on_the_grouping(monkeypatch):
    model = examples()["theophylline"].model
    together = nm.evaluate(model, unequal(), nm.FOCE(interaction=True))
    monkeypatch.setattr(batches, "WORTH_A_SHAPE", 50.0)
    subjects = bind(model, unequal())[1].subjects
    shapes = {b.time.shape + b.doses.time.shape[1:] for b in batches.Batches(subjects, 9, solves_ode=False)._subjects}
    assert len(shapes) == 3
    apart = nm.evaluate(model, unequal(), nm.FOCE(interaction=True))
    pd.testing.assert_frame_equal(
        apart.contributions.drop(columns="iterations"), together.contributions.drop(columns="iterations")
    )
    pd.testing.assert_frame_equal(apart.eta, together.eta, atol=1e-9)


@pytest.mark.parametrize("solves_ode", [True, False])
def test_every_subject_is_in_one_group(solves_ode):
    lengths = np.random.default_rng(1).integers(1, 200, size=(300, 2))
    groups = batches.bucketed(lengths, solves_ode)
    assert sorted(np.concatenate(groups)) == list(range(300))
    assert len(groups) == (1 if solves_ode else batches.MOST_SHAPES)


def test_groups_are_the_cheapest_that_one_cut_makes():
    lengths = np.array([[2, 1], [30, 4], [3, 2], [28, 4], [2, 2]]) * 100
    first, second = sorted(batches.bucketed(lengths, solves_ode=False)[:2], key=len)[::-1]
    assert {*first, *second} >= {0, 2, 4}


def test_equal_lengths_keep_one_shape():
    assert len(batches.bucketed(np.full((10_000, 2), 30), solves_ode=False)) == 1
