"""The effect site against its closed form."""

import numpy as np
from solutions import amounts

import nlmefit as nm
from nlmefit.declare.library.effect_compartment import EffectCompartment

TIMES = np.linspace(0.0, 24.0, 25)


def test_the_effect_site_follows_a_bolus_as_a_difference_of_exponentials():
    """Ce = C0 ke0/(ke0 - k) (exp(-k t) - exp(-ke0 t)) (Sheiner 1979)."""
    p = {"CL": 2.0, "V": 20.0, "ke0": 0.7}
    found = amounts(EffectCompartment(nm.OneCompartment()), p, TIMES, {"central": 100.0})
    truth = 5.0 * 0.7 / 0.6 * (np.exp(-0.1 * TIMES) - np.exp(-0.7 * TIMES))
    np.testing.assert_allclose(found["effect"], truth, rtol=1e-7, atol=1e-10)


def test_equilibrium_has_the_concentration_of_plasma():
    p = {"CL": 0.0, "V1": 20.0, "Q": 3.0, "V2": 30.0, "ke0": 0.7}
    found = amounts(EffectCompartment(nm.TwoCompartment()), p, np.array([0.0, 300.0]), {"central": 100.0})
    np.testing.assert_allclose(found["effect"][-1], 100.0 / 50.0, rtol=1e-8)
