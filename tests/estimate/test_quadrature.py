"""Quadrature: one node is Laplace; more nodes converge to the integral that SciPy computes."""

import numpy as np
import pytest
from models import examples
from scipy.integrate import quad
from scipy.stats import norm, poisson

import nlmefit as nm


@pytest.mark.parametrize("name", ["theophylline", "phenobarbital", "fraction", "counts", "zero-order"])
def test_one_node_is_laplace(name):
    example = examples()[name]
    laplace = nm.evaluate(example.model, example.data, nm.Laplace())
    one = nm.evaluate(example.model, example.data, nm.Quadrature(nodes=1))
    np.testing.assert_allclose(one.contributions["ofv"], laplace.contributions["ofv"], atol=1e-9)


@pytest.mark.parametrize("name", ["theophylline", pytest.param("phenobarbital", marks=pytest.mark.slow)])
def test_nodes_converge(name):
    example = examples()[name]
    values = [nm.evaluate(example.model, example.data, nm.Quadrature(nodes=n)).ofv for n in (3, 5, 7, 9)]
    steps = np.abs(np.diff(values))
    assert np.all(steps[1:] < 0.7 * steps[:-1]), values
    assert steps[-1] < 2e-3, values


def test_counts_against_scipy():
    """-2 log of the integral over eta, subject by subject, by scipy.integrate.quad."""
    example = examples()["counts"]
    fit = nm.evaluate(example.model, example.data, nm.Quadrature(nodes=25))
    for who, rows in list(example.data.groupby("ID"))[:4]:
        mean = 3.0 * (1 - rows["DOSE"] / (rows["DOSE"] + 0.5)).to_numpy()

        def integrand(e, counts=rows["DV"], mean=mean):
            return np.prod(poisson.pmf(counts, mean * np.exp(e))) * norm.pdf(e, 0, 0.5)

        integral, _ = quad(integrand, -5, 5, epsabs=0, epsrel=1e-11)
        assert fit.contributions.loc[who, "log_likelihood"] == pytest.approx(np.log(integral), abs=1e-6)


def test_counts_ofv_keeps_the_full_density():
    """n log(2 pi) is left out for normal observations only."""
    example = examples()["counts"]
    fit = nm.evaluate(example.model, example.data, nm.Laplace())
    assert fit.ofv == -2 * fit.log_likelihood


def test_too_many_points_are_refused():
    with pytest.raises(nm.MethodError, match="points per subject"):
        nm.evaluate(examples()["theophylline"].model, examples()["theophylline"].data, nm.Quadrature(nodes=50))
