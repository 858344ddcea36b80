"""The outer gradient, by the implicit function theorem, against central differences: every example, every method."""

import numpy as np
import pytest
from models import examples

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem

METHODS = {
    "FO": nm.FO(),
    "FOCE": nm.FOCE(),
    "FOCEI": nm.FOCE(interaction=True),
    "Laplace": nm.Laplace(),
    "Laplace without interaction": nm.Laplace(interaction=False),
    "quadrature": nm.Quadrature(nodes=2),
}
DENSITY_ONLY = {"Laplace", "quadrature"}
EVERY_METHOD = {"theophylline", "fraction", "counts"}
"""Examples whose gradients are compared by every method; those of others by two, one with second derivatives of the density."""
OTHERS = {"FOCEI", "Laplace"}
LONG = {("turnover", "Laplace"), ("occasions", "Laplace")}


def is_quick(example: str, method: str) -> bool:
    return example in EVERY_METHOD or method in OTHERS and (example, method) not in LONG


PAIRS = [
    pytest.param(e, m, marks=[] if is_quick(e, m) else [pytest.mark.slow])
    for e, x in examples().items()
    for m in METHODS
    if x.gaussian or m in DENSITY_ONLY
]


@pytest.mark.parametrize(("example", "method"), PAIRS)
def test_gradient_against_central_differences(example, method):
    example = examples()[example]
    latent, data = bind(example.model, example.data)
    objective = Objective(Problem(latent, data), METHODS[method])
    # away from the start, where covariate coefficients and correlations are 0
    u = objective.coordinates.start() + 0.1 * np.random.default_rng(1).normal(size=objective.coordinates.size)
    found = objective.contributions(u)
    assert np.all(found.converged)
    gradient = found.gradient.sum(axis=0)
    directions = _directions(latent, len(u))
    differences = np.array([_richardson(objective, u, direction) for direction in directions])
    np.testing.assert_allclose(directions @ gradient, differences, rtol=1e-5, atol=1e-5 * np.max(np.abs(gradient)) * 1e-1)


def _directions(latent, size):
    """Every parameter; three directions through all of them where an evaluation is costly."""
    if not latent.solves_ode:
        return np.eye(size)
    return np.random.default_rng(2).normal(size=(3, size))


def _richardson(objective, u, direction):
    """d(-2 log L)/du along a direction by central differences of two widths, extrapolated to the fourth order."""

    def central(h):
        ahead, behind = (objective.contributions(u + side * h * direction).value.sum() for side in (1, -1))
        return (ahead - behind) / (2 * h)

    return (4 * central(1e-3) - central(2e-3)) / 3
