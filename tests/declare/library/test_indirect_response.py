"""Indirect responses against equations written out."""

import mpmath as mp
import numpy as np
import pytest
from solutions import amounts, published

import nlmefit as nm
from nlmefit.declare.library.indirect_response import IndirectResponse, hill

TIMES = np.linspace(0.0, 48.0, 33)
PK = nm.OneCompartment("first-order")
P = {"ka": 0.9, "CL": 1.5, "V": 12.0, "base": 30.0, "kout": 0.25, "gamma": 1.7}
P |= {"Imax": 0.9, "IC50": 1.2, "Emax": 2.5, "EC50": 0.8}


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_responses_are_those_of_the_equations(kind, sigmoid):
    power = 1.7 if sigmoid else 1.0

    def rates(t, depot, central, R):
        C = max(central / 12.0, 0.0) ** power
        inhibited, stimulated = 0.9 * C / (1.2**power + C), 2.5 * C / (0.8**power + C)
        kin, kout = 30.0 * 0.25, 0.25
        response = {
            1: kin * (1 - inhibited) - kout * R,
            2: kin - kout * (1 - inhibited) * R,
            3: kin * (1 + stimulated) - kout * R,
            4: kin - kout * (1 + stimulated) * R,
        }[kind]
        return -0.9 * depot, 0.9 * depot - 1.5 / 12.0 * central, response

    truth = published(rates, (100.0, 0.0, 30.0), TIMES)
    found = amounts(IndirectResponse(kind, PK, sigmoid), P, TIMES, {"depot": 100.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("kind", "direction"), [(1, -1), (2, 1), (3, 1), (4, -1)])
def test_responses_move_the_right_way_and_come_back(kind, direction):
    times = np.array([0.0, 6.0, 400.0])
    for sigmoid in (False, True):
        response = amounts(IndirectResponse(kind, PK, sigmoid), P, times, {"depot": 100.0})["response"]
        assert direction * (response[1] - response[0]) > 5.0
        np.testing.assert_allclose(response[2], P["base"], rtol=1e-6)


def test_hill_is_exact_from_tiny_to_huge_concentrations():
    for C in (1e-30, 1e-3, 0.8, 5.0, 1e12):
        for gamma in (0.4, 1.0, 3.0, 60.0):
            with mp.workdps(40):
                truth = 1 / (1 + (mp.mpf(0.8) / mp.mpf(C)) ** mp.mpf(gamma))
            np.testing.assert_allclose(float(hill(C, 0.8, gamma)), float(truth), rtol=1e-12 if gamma < 10 else 1e-10)
    assert hill(0.0, 0.8, 0.4) == 0.0 == hill(-1e-9, 0.8, 0.4)


def test_the_response_is_driven_by_the_free_concentration_of_any_disposition():
    model = IndirectResponse(3, nm.TwoCompartment())
    p = {"CL": 1.0, "V1": 5.0, "Q": 1.0, "V2": 9.0, "base": 2.0, "kout": 0.5, "Emax": 3.0, "EC50": 2.0}
    rates = model.derivatives(0.0, {"central": 10.0, "peripheral": 7.0, "response": 2.0}, p)
    np.testing.assert_allclose(rates["response"], 0.5 * 2.0 * 3.0 * 2.0 / (2.0 + 2.0))
