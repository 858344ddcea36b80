"""The outer gradient, by the implicit function theorem, against central differences: every example, every method."""

import numpy as np
import pytest
from examples import examples

import nlmefit as nm
from nlmefit.estimate.objective import Objective
from nlmefit.fit import bind

METHODS = {
    "FO": nm.FO(),
    "FOCE": nm.FOCE(),
    "FOCEI": nm.FOCE(interaction=True),
    "Laplace": nm.Laplace(),
    "Laplace without interaction": nm.Laplace(interaction=False),
    "quadrature": nm.Quadrature(nodes=2),
}
DENSITY_ONLY = {"Laplace", "quadrature"}
PAIRS = [(e, m) for e, x in examples().items() for m in METHODS if x.gaussian or m in DENSITY_ONLY]


@pytest.mark.parametrize(("example", "method"), PAIRS)
def test_gradient_against_central_differences(example, method):
    example = examples()[example]
    latent, data = bind(example.model, example.data)
    objective = Objective(latent, data.subjects, len(data.ids), METHODS[method])
    # away from the start, where covariate coefficients and correlations are 0
    u = objective.coordinates.start() + 0.1 * np.random.default_rng(1).normal(size=objective.coordinates.size)
    found = objective.contributions(u)
    assert np.all(found.converged)
    gradient = found.gradient.sum(axis=0)
    differences = np.array([_richardson(objective, u, k) for k in range(len(u))])
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-5 * np.max(np.abs(gradient)) * 1e-1)


def _richardson(objective, u, k):
    """d(-2 log L)/du_k by central differences of two widths, extrapolated to the fourth order."""

    def central(h):
        step = h * np.eye(len(u))[k]
        return (objective.contributions(u + step).value.sum() - objective.contributions(u - step).value.sum()) / (2 * h)

    return (4 * central(1e-3) - central(2e-3)) / 3
