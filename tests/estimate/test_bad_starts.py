"""Fits from bad starts: whatever says converged has found the optimum."""

import pytest
from benchmarks.bad_starts import MODELS, study
from models import examples

import nlmefit as nm


def _check(name: str, number: int) -> None:
    ends = study(examples()[name], number)
    converged = [end for end in ends if isinstance(end, nm.Fit) and end.status]
    assert len(converged) >= 0.7 * number
    best = min(end.ofv for end in converged)
    assert all(end.ofv <= best + 0.01 for end in converged)


@pytest.mark.parametrize("name", ["theophylline", "fraction"])
def test_few_bad_starts(name):
    _check(name, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_twenty_bad_starts(name):
    _check(name, 20)
