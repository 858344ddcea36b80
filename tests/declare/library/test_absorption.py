"""Absorption against sums of exponentials, matrix exponentials and the published integral equations."""

import numpy as np
import pytest
from scipy.linalg import expm
from solutions import amounts, gamma_density, published

import nlmefit as nm
from nlmefit.declare.library.absorption import FirstOrder, NoAbsorption, ParallelAbsorption, Transit, ZeroOrder, absorption_value
from nlmefit.declare.library.michaelis_menten import MichaelisMenten

TIMES = np.linspace(0.0, 24.0, 49)
P = {
    "CL": 3.0,
    "V": 20.0,
    "ka": 0.8,
    "ka2": 0.25,
    "Tk0": 5.3,
    "tlag2": 2.1,
    "Fr": 0.35,
    "mtt": 1.7,
    "n": 4.6,
    "Vmax": 9.0,
    "Km": 2.0,
}
K = P["CL"] / P["V"]


def bateman(ka, t):
    """Amount in the central compartment of a unit in a depot at time 0."""
    return np.where(t > 0, ka / (ka - K) * (np.exp(-K * t) - np.exp(-ka * t)), 0.0)


def infused(T, t):
    """Amount in the central compartment of a unit infused from time 0 to T."""
    return np.where(t > 0, (np.exp(-K * np.clip(t - T, 0, None)) - np.exp(-K * t)) / (K * T), 0.0)


@pytest.mark.parametrize("lag", [False, True])
@pytest.mark.parametrize("second", ["first-order", "zero-order"])
def test_parallel_absorption_is_the_sum_of_its_ways(second, lag):
    found = amounts(nm.OneCompartment(ParallelAbsorption(second, lag)), P, TIMES, {"depot": 100.0})
    later = TIMES - (P["tlag2"] if lag else 0.0)
    rest = bateman(P["ka2"], later) if second == "first-order" else infused(P["Tk0"], later)
    truth = 100 * (P["Fr"] * bateman(P["ka"], TIMES) + (1 - P["Fr"]) * rest)
    np.testing.assert_allclose(found["central"], truth, rtol=1e-7, atol=1e-9)


def test_a_dose_elsewhere_is_not_split():
    found = amounts(nm.OneCompartment(ParallelAbsorption()), P, TIMES, {"depot2": 100.0})
    np.testing.assert_allclose(found["central"], 100 * bateman(P["ka2"], TIMES), rtol=1e-7, atol=1e-9)


def test_zero_order_and_first_order_by_their_names():
    oral = amounts(nm.OneCompartment("first-order"), P, TIMES, {"depot": 100.0})
    np.testing.assert_allclose(oral["central"], 100 * bateman(P["ka"], TIMES), rtol=1e-7, atol=1e-9)
    constant = amounts(nm.OneCompartment("zero-order"), P, TIMES, {"central": 100.0})
    np.testing.assert_allclose(constant["central"], 100 * infused(P["Tk0"], TIMES), rtol=1e-7, atol=1e-9)
    named = [absorption_value(name) for name in (None, "first-order", "zero-order")]
    assert named == [NoAbsorption(), FirstOrder(), ZeroOrder()]


def test_transit_of_any_number_is_savics_equation():
    """d abs/dt = Dose ktr (ktr t)^n exp(-ktr t)/n! - ka abs, ktr = (n + 1)/MTT (Savic 2007, equations 4 to 6)."""
    ktr = (P["n"] + 1) / P["mtt"]

    def rates(t, absorption, central):
        return 100 * gamma_density(t, P["n"], ktr) - P["ka"] * absorption, P["ka"] * absorption - K * central

    truth = published(rates, (0.0, 0.0), TIMES)
    found = amounts(nm.OneCompartment(Transit()), P, TIMES, {"depot": 100.0})
    np.testing.assert_allclose([found["depot"], found["central"]], truth, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [1, 5])
def test_a_chain_is_the_matrix_exponential_and_equals_the_gamma_input(n):
    ktr = (n + 1) / P["mtt"]
    matrix = np.diag([-ktr] * (n + 1) + [-P["ka"], -K]) + np.diag([ktr] * (n + 1) + [P["ka"]], -1)
    truth = np.array([100 * expm(matrix * t)[:, 0] for t in TIMES]).T
    model = nm.OneCompartment(Transit(compartments=n))
    assert model.compartments == ("depot", *(f"transit{j}" for j in range(1, n + 1)), "absorption", "central")
    chain = amounts(model, P, TIMES, {"depot": 100.0})
    np.testing.assert_allclose(list(chain.values()), truth, rtol=1e-7, atol=1e-9)
    gamma = amounts(nm.OneCompartment(Transit()), P | {"n": float(n)}, TIMES, {"depot": 100.0})
    np.testing.assert_allclose(gamma["central"], chain["central"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("absorption", [Transit(), Transit(compartments=4)], ids=repr)
def test_the_mean_transit_time_is_mtt(absorption):
    """Mean time to absorption is mtt + 1/ka: with a central compartment that keeps all, the area above it by the dose."""
    times = np.linspace(0.0, 60.0, 2001)
    found = amounts(nm.OneCompartment(absorption), P | {"CL": 0.0}, times, {"depot": 1.0})
    np.testing.assert_allclose(found["central"][-1], 1.0, rtol=1e-8)
    np.testing.assert_allclose(np.trapezoid(1 - found["central"], times), P["mtt"] + 1 / P["ka"], rtol=1e-4)


def test_absorption_feeds_other_disposition_just_as_well():
    def rates(t, depot, depot2, central):
        C = central / P["V"]
        eliminated = P["Vmax"] * C / (P["Km"] + C)
        return -P["ka"] * depot, -P["ka2"] * depot2, P["ka"] * depot + P["ka2"] * depot2 - eliminated

    truth = published(rates, (100 * P["Fr"], 100 * (1 - P["Fr"]), 0.0), TIMES)
    found = amounts(MichaelisMenten(ParallelAbsorption()), P, TIMES, {"depot": 100.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-7, atol=1e-9)
