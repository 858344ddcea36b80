"""Optimum doses against closed forms."""

import numpy as np
import pytest
from scipy import stats

import nlmefit as nm


class Bolus(nm.Model):
    CL = nm.LogNormal(4.0, iiv=0.3)
    V = nm.LogNormal(50.0, iiv=0.2)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


K = 4.0 / 50.0
FIVE = nm.Regimen(100, every=12, doses=5)


def optimum(regimen, target, **options):
    return nm.optimize_dose(Bolus(), regimen, target, progress=False, **options)


def test_dose_for_an_area():
    found = optimum(nm.Regimen(100, every=12, steady_state=True), nm.Target("AUC", value=30.0, start=0, end=12))
    assert found.regimen.series[0].amount == pytest.approx(30.0 * 4.0, rel=1e-9) and found.status == "found"


def test_dose_for_an_average():
    found = optimum(nm.Regimen(100, every=12, steady_state=True), nm.Target("Cavg", value=2.0, start=0, end=12))
    assert found.regimen.series[0].amount == pytest.approx(2.0 * 12 * 4.0, rel=1e-9)


def test_dose_for_a_trough():
    found = optimum(FIVE, nm.Target("Ctrough", value=1.5, start=48, end=60))
    trough = sum(np.exp(-K * (60 - 12 * j)) for j in range(5)) / 50
    assert found.regimen.series[0].amount == pytest.approx(1.5 / trough, rel=1e-9)


def test_rate_for_a_peak():
    times = np.linspace(0, 12, 25)
    found = optimum(nm.Regimen(100, rate=50), nm.Target("Cmax", value=3.0, start=0, end=12), times=times)
    peak = 50 / 4.0 * (1 - np.exp(-2 * K))  # at the end of 2 h, which scaling leaves as it is
    series = found.regimen.series[0]
    assert series.amount == pytest.approx(100 * 3.0 / peak, rel=1e-9)
    assert series.amount / series.rate == pytest.approx(2.0, rel=1e-12)


def test_population_value_is_the_geometric_mean():
    found = optimum(FIVE, nm.Target("AUC", value=25.0, start=0, end=5000), subjects=400, eta="population")
    assert np.exp(np.log(found.metrics["AUC"]).mean()) == pytest.approx(25.0, rel=1e-9)


def test_smallest_dose_that_reaches_a_probability():
    """AUC = dose / CL is log-normal: P(AUC >= a) = p at dose = a CL exp(omega z_p)."""
    target = nm.Target("AUC", at_least=20.0, probability=0.9, start=0, end=5000)
    found = optimum(nm.Regimen(100), target, subjects=4000, eta="population")
    assert found.attained == pytest.approx(0.9, abs=1e-3)
    truth = 20.0 * 4.0 * np.exp(0.3 * stats.norm.ppf(0.9))
    assert found.regimen.series[0].amount == pytest.approx(truth, rel=0.03)


def test_largest_dose_that_keeps_below():
    target = nm.Target("AUC", at_most=20.0, probability=0.9, start=0, end=5000)
    found = optimum(nm.Regimen(100), target, subjects=4000, eta="population")
    assert found.attained == pytest.approx(0.9, abs=1e-3)
    assert found.regimen.series[0].amount == pytest.approx(80.0 * np.exp(-0.3 * stats.norm.ppf(0.9)), rel=0.03)


def test_window():
    """The share inside (a, b) of a log-normal exposure is largest where its median is sqrt(a b)."""
    target = nm.Target("AUC", between=(15.0, 30.0), start=0, end=5000)
    found = optimum(nm.Regimen(100), target, subjects=4000, eta="population")
    assert found.regimen.series[0].amount == pytest.approx(np.sqrt(15.0 * 30.0) * 4.0, rel=0.04)
    half = np.log(30 / 15) / 2 / 0.3
    assert found.attained == pytest.approx(stats.norm.cdf(half) - stats.norm.cdf(-half), abs=0.02)


def test_the_next_dose_of_one_subject(theophylline):
    """The own dose stays: only what comes after it is scaled."""

    class Theo(Bolus):
        ka = nm.LogNormal(1.5, iiv=0.5)
        CL = nm.LogNormal(2.8, iiv=0.3)
        V = nm.LogNormal(32.0, iiv=0.2)
        dynamics = nm.OneCompartment(absorption="first-order")
        conc = nm.Additive(0.7)

    one = theophylline[theophylline["ID"] == 3]
    regimen = nm.Regimen.observed() + nm.Regimen(200).after(24)
    target = nm.Target("AUC", value=120.0, start=24, end=5000)
    found = nm.optimize_dose(Theo(), regimen, target, subjects=one, eta="individual", draws=400, progress=False)
    draws = nm.simulate(Theo(), regimen, subjects=one, times=[24.0, 25.0], eta="individual", draws=400, progress=False)
    CL = 2.8 * np.exp(draws.eta[:, 0, Theo().specification.etas.index("CL")])
    left = nm.exposure(
        nm.simulate(Theo(), subjects=one, times=[24.0, 25.0], eta="individual", draws=400, progress=False), 24.0, 5000.0
    )["AUC"].to_numpy()
    np.testing.assert_allclose(found.metrics["AUC"], left + found.factor * 200 / CL, rtol=1e-6)


def test_bounds_are_told():
    target = nm.Target("AUC", value=1000.0, start=0, end=100)
    assert optimum(nm.Regimen(100), target, bounds=(0.5, 2)).status == "at the upper bound"
    none = nm.Target("AUC", at_least=1000.0, probability=0.9, start=0, end=100)
    found = optimum(nm.Regimen(100), none, bounds=(0.5, 2))
    assert found.status == "no dose within the bounds attains it" and found.factor == 2 and found.attained == 0
    assert "no dose within the bounds" in str(found)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nm.Target("AUC"), "one of value=, between="),
        (lambda: nm.Target("Auc", value=1), "did you mean `AUC`"),
        (lambda: nm.Target("AUC", value=-1), "must be above 0"),
        (lambda: nm.Target("AUC", between=(3, 2)), "a lower and an upper end"),
        (lambda: nm.Target("AUC", at_least=3), "go with a probability"),
        (lambda: optimum(nm.Regimen(1), nm.Target("AUC", value=1)), "when"),
        (lambda: optimum(nm.Regimen(1), nm.Target("Cmax", value=1, start=0, end=1)), "Cmax is sought among times"),
        (lambda: optimum(nm.Regimen(1), nm.Target("AUC", value=1, start=0, end=1), bounds=(2, 1)), "bounds must be"),
        (lambda: optimum(nm.Regimen.observed(), nm.Target("AUC", value=1, start=0, end=1)), "with doses to choose"),
        (lambda: optimum(nm.Regimen(1), nm.Target("AUC", value=1, start=0, end=1, endpoint="cp")), "endpoint `cp`"),
        (lambda: optimum(nm.Regimen(1).after(5), nm.Target("AUC", value=1, start=0, end=1)), "not above 0"),
    ],
)
def test_errors(call, words):
    with pytest.raises((nm.DataError, nm.MethodError), match=words):
        call()
