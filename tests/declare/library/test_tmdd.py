"""Target-mediated disposition against equations written out and arithmetic of 60 digits."""

import jax
import mpmath as mp
import numpy as np
import pytest
from solutions import amounts, published

import nlmefit as nm
from nlmefit.declare.library.tmdd import TMDD, free_concentration

TIMES = np.linspace(0.0, 30.0, 31)
P = {"CL": 0.3, "V": 3.0, "V1": 3.0, "Q": 0.5, "V2": 4.0, "ka": 0.7}
P |= {"R0": 8.0, "kdeg": 0.4, "kint": 0.1, "kon": 2.0, "koff": 0.6, "KSS": 0.35}


def between(peripheral, C, outer):
    return 0.5 * (C - outer / 4.0) if peripheral else 0.0


@pytest.mark.parametrize("peripheral", [False, True])
def test_the_full_model_is_mager_and_juskos(peripheral):
    def rates(t, depot, central, outer, R, RC):
        C = central / 3.0
        flow = between(peripheral, C, outer)
        ksyn = 8.0 * 0.4
        return (
            -0.7 * depot,
            0.7 * depot - 0.3 * C - flow - 2.0 * central * R + 0.6 * RC * 3.0,
            flow,
            ksyn - 0.4 * R - 2.0 * C * R + 0.6 * RC,
            2.0 * C * R - (0.6 + 0.1) * RC,
        )

    truth = published(rates, (60.0, 0.0, 0.0, 8.0, 0.0), TIMES)
    truth = truth if peripheral else np.delete(truth, 2, axis=0)
    found = amounts(TMDD("full", "first-order", peripheral), P, TIMES, {"depot": 60.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("peripheral", [False, True])
def test_the_quasi_steady_state_is_gibianskys(peripheral):
    def free(total, R):
        b = total - R - 0.35
        return (b + np.sqrt(b**2 + 4 * 0.35 * total)) / 2

    def rates(t, depot, central, outer, R):
        C = free(central / 3.0, R)
        flow = between(peripheral, C, outer)
        bound = R * C / (0.35 + C)
        into = 0.7 * depot / 3.0
        dCtot = into - 0.3 / 3.0 * C - flow / 3.0 - 0.1 * bound
        return -0.7 * depot, 3.0 * dCtot, flow, 8.0 * 0.4 - 0.4 * R - (0.1 - 0.4) * bound

    truth = published(rates, (60.0, 0.0, 0.0, 8.0), TIMES)
    truth = truth if peripheral else np.delete(truth, 2, axis=0)
    found = amounts(TMDD("QSS", "first-order", peripheral), P, TIMES, {"depot": 60.0})
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-6, atol=1e-8)


def test_the_quasi_steady_state_is_the_limit_of_fast_binding():
    errors = []
    for fast in (1e2, 1e3, 1e4):
        p = P | {"kon": fast, "koff": fast * P["KSS"] - P["kint"]}
        full = amounts(TMDD("full", "first-order", True), p, TIMES, {"depot": 60.0})
        steady = amounts(TMDD("QSS", "first-order", True), p, TIMES, {"depot": 60.0})
        total = full["central"] + P["V1"] * full["complex"]
        errors.append(np.max(np.abs(steady["central"] - total)) / np.max(total))
        assert np.max(np.abs(steady["target"] - full["target"] - full["complex"])) < 30 / fast
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 8
    assert errors[2] < errors[1] / 8


@pytest.mark.parametrize("approximation", ["full", "QSS"])
def test_drug_and_target_are_conserved_without_loss(approximation):
    p = P | {"CL": 0.0, "kint": 0.0, "kdeg": 0.0}
    found = amounts(TMDD(approximation, peripheral=True), p, TIMES, {"central": 60.0})
    bound = found.get("complex", 0.0)
    np.testing.assert_allclose(found["central"] + found["peripheral"] + P["V1"] * bound, 60.0, rtol=1e-8)
    np.testing.assert_allclose(found["target"] + bound, P["R0"], rtol=1e-8)


def test_without_target_the_drug_is_linear():
    linear = amounts(nm.TwoCompartment(), P, TIMES, {"central": 60.0})
    for approximation in ("full", "QSS"):
        found = amounts(TMDD(approximation, peripheral=True), P | {"R0": 0.0}, TIMES, {"central": 60.0})
        for name in linear:
            np.testing.assert_allclose(found[name], linear[name], rtol=1e-7)


TOTALS = (0.0, 1e-30, 1e-12, 1e-3, 1.0, 7.9, 8.0, 8.35, 8.4, 1e3, 1e12)


@pytest.mark.parametrize("KSS", [1e-9, 0.35, 1e6])
def test_free_concentration_has_all_its_digits(KSS):
    with mp.workdps(60):
        for total in TOTALS:
            for target in (0.0, 8.0):
                b = mp.mpf(total) - mp.mpf(target) - mp.mpf(KSS)
                truth = (b + mp.sqrt(b**2 + 4 * mp.mpf(KSS) * mp.mpf(total))) / 2
                found = mp.mpf(float(free_concentration(total, target, KSS)))
                assert abs(found - truth) <= 1e-14 * truth, (total, target)


@pytest.mark.parametrize("total", [*TOTALS, 9.0])
def test_derivatives_of_free_concentration_are_the_implicit_functions(total):
    """C^2 + b C = KSS Ctot differentiated: dC/dCtot = (C + KSS)/(2 C + b). At Ctot = 9 both forms meet, b = 0."""
    target, KSS = 8.0, 1.0
    C = float(free_concentration(total, target, KSS))
    slope, steeper = jax.grad(free_concentration), jax.jacfwd(jax.jacfwd(free_concentration))
    width = 2 * C + target + KSS - total
    first = (C + KSS) / width
    np.testing.assert_allclose(slope(total, target, KSS), first, rtol=1e-12)
    second = 2 * first * (1 - first) / width
    np.testing.assert_allclose(steeper(total, target, KSS), second, rtol=1e-6, atol=1e-12)


def test_concentration_is_that_of_free_drug():
    A = {"central": 30.0, "target": 8.0, "complex": 1.0}
    assert TMDD("full").concentration(A, P) == 10.0
    C = float(TMDD("QSS").concentration(A, P))
    np.testing.assert_allclose(C + 8.0 * C / (0.35 + C), 10.0, rtol=1e-14)
