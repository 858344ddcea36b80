"""Myelosuppression against equations written out."""

import numpy as np
import pytest
from solutions import amounts, published

import nlmefit as nm
from nlmefit.declare.library.friberg import Friberg

TIMES = np.linspace(0.0, 900.0, 46)
P = {"CL": 10.0, "V": 40.0, "Circ0": 5.2, "MTT": 90.0, "gamma": 0.16, "slope": 0.4, "Emax": 3.0, "EC50": 1.5}


@pytest.mark.parametrize("effect", ["linear", "emax"])
def test_cells_are_those_of_the_equations(effect):
    def rates(t, central, prol, transit1, transit2, transit3, circ):
        C = central / 40.0
        drug = 0.4 * C if effect == "linear" else 3.0 * C / (1.5 + C)
        kprol = ktr = kcirc = 4 / 90.0
        return (
            -10.0 / 40.0 * central,
            kprol * prol * (1 - drug) * (5.2 / circ) ** 0.16 - ktr * prol,
            ktr * prol - ktr * transit1,
            ktr * transit1 - ktr * transit2,
            ktr * transit2 - ktr * transit3,
            ktr * transit3 - kcirc * circ,
        )

    truth = published(rates, (400.0, *[5.2] * 5), TIMES)
    found = amounts(Friberg(nm.OneCompartment(), effect), P, TIMES, {"central": 400.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-6, atol=1e-8)


def test_a_nadir_is_followed_by_an_overshoot_and_recovery():
    cells = amounts(Friberg(nm.OneCompartment()), P, np.linspace(0.0, 4000.0, 801), {"central": 400.0})["circulating"]
    lowest = int(np.argmin(cells))
    assert 0.3 * P["MTT"] < 5 * lowest < 4 * P["MTT"]
    assert cells[lowest] < 0.8 * P["Circ0"]
    assert cells[lowest:].max() > 1.01 * P["Circ0"]
    np.testing.assert_allclose(cells[-1], P["Circ0"], rtol=1e-3)


def test_the_feedback_is_bounded_only_far_below_any_count():
    model = Friberg(nm.OneCompartment())
    A = dict.fromkeys(model.compartments, 1.0) | {"central": 0.0}
    for part, held in ((1e-6, 1e-6), (1e-9, 1e-9), (1e-12, 1e-10), (0.0, 1e-10)):
        rate = model.derivatives(0.0, A | {"circulating": part * P["Circ0"]}, P)["proliferating"]
        np.testing.assert_allclose(rate, 4 / 90.0 * (held**-0.16 - 1), rtol=1e-12)
