"""Saturable elimination against equations written out, and against its two limits."""

import numpy as np
import pytest
from scipy.special import lambertw
from solutions import amounts, published

import nlmefit as nm
from nlmefit.declare.library.michaelis_menten import MichaelisMenten

TIMES = np.linspace(0.0, 48.0, 33)
P = {"Vmax": 12.0, "Km": 1.5, "CL": 0.7, "V": 10.0, "V1": 10.0, "Q": 2.0, "V2": 25.0, "ka": 0.6}


@pytest.mark.parametrize("peripheral", [False, True])
@pytest.mark.parametrize("linear", [False, True])
def test_amounts_are_those_of_the_equations(linear, peripheral):
    def rates(t, depot, central, outer):
        C, C2 = central / 10.0, outer / 25.0
        out = 12.0 * C / (1.5 + C) + (0.7 * C if linear else 0.0)
        between = 2.0 * (C - C2) if peripheral else 0.0
        return -0.6 * depot, 0.6 * depot - out - between, between

    truth = published(rates, (200.0, 0.0, 0.0), TIMES)
    found = amounts(MichaelisMenten("first-order", linear, peripheral), P, TIMES, {"depot": 200.0})
    np.testing.assert_allclose(list(found.values()), truth[: 2 + peripheral], rtol=1e-7, atol=1e-9)


def test_a_bolus_declines_by_lamberts_function():
    """C/Km = W(C0/Km exp((C0 - Vmax/V t)/Km)) (Beal 1983)."""
    C0, Km, rate = 20.0, P["Km"], P["Vmax"] / P["V"]
    truth = P["V"] * Km * lambertw(C0 / Km * np.exp((C0 - rate * TIMES) / Km)).real
    found = amounts(MichaelisMenten(), P, TIMES, {"central": 200.0})["central"]
    np.testing.assert_allclose(found, truth, rtol=1e-7, atol=1e-9)


def test_a_large_km_is_linear_elimination():
    linear = amounts(nm.TwoCompartment("first-order"), P, TIMES, {"depot": 200.0})
    slow = P | {"Km": 1e9, "Vmax": P["CL"] * 1e9}
    found = amounts(MichaelisMenten("first-order", peripheral=True), slow, TIMES, {"depot": 200.0})
    for name in linear:
        np.testing.assert_allclose(found[name], linear[name], rtol=1e-6, atol=1e-9)
