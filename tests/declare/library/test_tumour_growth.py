"""Tumours against closed forms and equations written out."""

import jax
import mpmath as mp
import numpy as np
import pytest
from solutions import amounts, published

import nlmefit as nm
from nlmefit.declare.library.tumour_growth import TumourGrowth, slowing

TIMES = np.linspace(0.0, 30.0, 31)
PK = nm.OneCompartment()
P = {"CL": 4.0, "V": 8.0, "w0": 0.05, "kgrow": 0.25, "wmax": 6.0, "kkill": 0.04}
P |= {"lambda0": 0.3, "lambda1": 0.7, "k1": 0.6, "k2": 0.05}


def test_growth_without_drug_has_its_closed_form():
    grown = np.exp(0.25 * TIMES)
    truths = {
        "exponential": 0.05 * grown,
        "logistic": 6.0 / (1 + (6.0 / 0.05 - 1) / grown),
        "gompertz": 6.0 * (0.05 / 6.0) ** (1 / grown),
    }
    for law, truth in truths.items():
        np.testing.assert_allclose(amounts(TumourGrowth(law), P, TIMES, {})["tumour"], truth, rtol=1e-7)


@pytest.mark.parametrize("law", ["exponential", "logistic", "gompertz"])
def test_the_drug_kills_in_proportion_to_its_concentration(law):
    def rates(t, central, w):
        growth = {"exponential": w, "logistic": w * (1 - w / 6.0), "gompertz": w * np.log(6.0 / w)}[law]
        return -4.0 / 8.0 * central, 0.25 * growth - 0.04 * central / 8.0 * w

    truth = published(rates, (300.0, 0.05), TIMES)
    found = amounts(TumourGrowth(law, PK), P, TIMES, {"central": 300.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-7, atol=1e-10)


def test_simeonis_tumour_is_that_of_the_equations():
    def rates(t, central, x1, x2, x3, x4):
        C, w = central / 8.0, x1 + x2 + x3 + x4
        return (
            -4.0 / 8.0 * central,
            0.3 * x1 / (1 + (0.3 / 0.7 * w) ** 20) ** (1 / 20) - 0.05 * C * x1,
            0.05 * C * x1 - 0.6 * x2,
            0.6 * (x2 - x3),
            0.6 * (x3 - x4),
        )

    truth = published(rates, (300.0, 0.05, 0.0, 0.0, 0.0), TIMES)
    model = TumourGrowth("simeoni", PK)
    found = amounts(model, P, TIMES, {"central": 300.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.size(found), truth[1:].sum(0), rtol=1e-6)


def test_simeonis_growth_is_exponential_then_linear():
    model = TumourGrowth("simeoni")
    w = model.size(amounts(model, P, TIMES, {}))
    early, late = w < 1.5, w > 3.5  # growth changes at lambda1/lambda0 = 2.33
    np.testing.assert_allclose(w[early], 0.05 * np.exp(0.3 * TIMES[early]), rtol=1e-4)
    np.testing.assert_allclose(np.diff(w[late]), 0.7, rtol=1e-3)
    assert early.sum() > 5 and late.sum() > 5


def test_killed_cells_pass_three_stages_and_are_lost():
    """Without growth, x1 + x2 + x3 + x4 changes by what leaves x4."""
    model = TumourGrowth("simeoni", PK)
    A = dict(zip(model.compartments, (40.0, 0.9, 0.4, 0.3, 0.2)))
    rates = model.derivatives(0.0, A, P | {"lambda0": 0.0})
    np.testing.assert_allclose(sum(rates[name] for name in model.states), -0.6 * 0.2, rtol=1e-14)


def test_the_change_of_growth_is_exact_and_smooth_at_any_size():
    for r in (0.0, 1e-30, 0.5, 0.999999, 1.0, 1.000001, 3.0, 1e30):
        with mp.workdps(60):
            base = 1 + mp.mpf(r) ** 20
            truth = base ** (-mp.mpf(1) / 20)
            first = -(mp.mpf(r) ** 19) * truth / base
            second = (-19 * mp.mpf(r) ** 18 * base + 21 * mp.mpf(r) ** 38) * truth / base**2
        np.testing.assert_allclose(slowing(r), float(truth), rtol=1e-14)
        np.testing.assert_allclose(jax.jacfwd(slowing)(r), float(first), rtol=1e-12)
        np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(slowing))(r), float(second), rtol=1e-9, atol=1e-12)
