"""Forward derivatives of amounts in individual parameters, first and second order, against central differences: through lag,
bioavailability, modelled duration and rate, the end of an infusion, initial amounts and steady states, by every solver.

Each individual parameter is its typical value plus its eta, so that derivatives in the etas are those in the parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.core.backend import compiled
from nlmefit.population.latent import PopulationModel

STEPS = nm.RungeKutta(rtol=1e-10, atol=1e-12)


class Given(nm.Model, abstract=True):
    """Doses into the depot lag; those into the central compartment may have a modelled rate or duration."""

    lag = nm.Normal(0.6, iiv=1.0)
    F = nm.Normal(0.8, iiv=1.0)
    D = nm.Normal(5.0, iiv=1.0)
    R = nm.Normal(20.0, iiv=1.0)
    V = nm.Normal(12.0, iiv=1.0)
    ka = nm.Normal(0.9, iiv=1.0)

    def dosing(self, p):
        return {
            "depot": nm.Dosing(lag=p.lag, bioavailability=p.F),
            "central": nm.Dosing(lag=p.lag / 2, bioavailability=p.F + 0.1, rate=p.R, duration=p.D),
        }

    def observe(self, t, A, p):
        return {"y": A.central / p.V + 0.1 * A.depot}

    y = nm.Additive(1.0)


class Summed(Given):
    """Responses of the doses added up."""

    CL = nm.Normal(3.0, iiv=1.0)
    dynamics = nm.OneCompartment("first-order")


class Closed(Summed):
    """With initial amounts: solved from event to event."""

    base = nm.Normal(30.0, iiv=1.0)

    def initial(self, p):
        return {"central": p.base, "depot": p.base / 4}


class Exponential(Closed):
    solver = nm.MatrixExponential()


class Steps(Closed):
    solver = STEPS


class ImplicitSteps(Closed):
    solver = nm.Rosenbrock(rtol=1e-10, atol=1e-12)


class Saturable(Given):
    """Michaelis-Menten elimination."""

    Vm = nm.Normal(25.0, iiv=1.0)
    Km = nm.Normal(2.0, iiv=1.0)
    base = nm.Normal(30.0, iiv=1.0)
    solver = STEPS

    def initial(self, p):
        return {"central": p.base}

    def dynamics(self, t, A, p):
        c = A.central / p.V
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.Vm * c / (p.Km + c)}


DOSE = {"EVID": 1, "AMT": 60.0, "CMT": 1, "RATE": 0.0, "II": 0.0, "SS": 0, "ADDL": 0}
PLAIN = {
    "doses of every kind": [
        {"TIME": 0.0, "ADDL": 1, "II": 10.0},
        {"TIME": 2.0, "CMT": 2, "RATE": -2},
        {"TIME": 8.0, "CMT": 2, "RATE": -1},
        {"TIME": 9.0, "CMT": 2, "RATE": 15.0},
    ],
    "a reset": [{"TIME": 0.0}, {"TIME": 1.0, "EVID": 4, "CMT": 2, "RATE": -1}],
}
SHORT = {
    "a bolus at steady state": [{"TIME": 0.0, "SS": 1, "II": 4.0, "AMT": 20.0}],
    "an infusion of given rate at steady state": [{"TIME": 0.0, "SS": 1, "II": 4.0, "CMT": 2, "RATE": 10.0, "AMT": 20.0}],
}
LONG = {
    "a modelled duration beyond the interval at steady state": [
        {"TIME": 0.0, "SS": 1, "II": 4.0, "CMT": 2, "RATE": -2, "AMT": 20.0},
        {"TIME": 1.5, "SS": 2, "II": 4.0, "AMT": 10.0},
    ],
}
"""Not a sum of responses in closed form."""
TIMES = [0.1, 1.1, 2.7, 3.3, 5.1, 7.0, 8.7, 9.9, 11.3, 14.2]
CASES = {
    "closed form, responses added up": (Summed(), PLAIN | SHORT),
    "closed form, from event to event": (Closed(), PLAIN | SHORT | LONG),
    "matrix exponential": (Exponential(), PLAIN | SHORT | LONG),
    "steps": (Steps(), PLAIN),
    "implicit steps": (ImplicitSteps(), PLAIN),
    "steps of a nonlinear system": (Saturable(), PLAIN | SHORT | LONG),
}


def function(model, histories):
    """eta -> the endpoint at the observations of a subject for each history."""
    rows = [
        {"ID": who} | DOSE | dose
        for who, doses in enumerate(histories.values())
        for dose in [*doses, *({"TIME": t, "EVID": 0, "AMT": 0.0} for t in TIMES)]
    ]
    frame = pd.DataFrame(rows).assign(DV=1.0).sort_values(["ID", "TIME"], kind="stable")
    subjects = nm.Subjects.from_frame(frame, model)
    latent = PopulationModel.of(model, subjects)
    theta = {name: jnp.asarray(p.start, float) for name, p in latent.parameters().items()}
    everyone = jax.tree.map(jnp.asarray, subjects.subjects)
    return lambda eta: jax.vmap(lambda subject: latent.predict(theta, eta, subject, model.amounts_read)[0]["y"])(everyone)


WEIGHTS = np.array([-1, 9, -45, 45, -9, 1]) / 60
PLACES = np.array([-3, -2, -1, 1, 2, 3])


@pytest.mark.parametrize("case", CASES)
def test_derivatives_against_central_differences_of_the_sixth_order(case):
    model, histories = CASES[case]
    f = function(model, histories)
    both = compiled(jax.vmap(lambda eta: (f(eta), jax.jacfwd(f)(eta))))
    typical = np.array([model.values[name] for name in model.specification.etas])
    size = len(typical)
    h = 5e-3 * typical
    points = (PLACES[:, None, None] * np.diag(h)[None]).reshape(-1, size)
    value, jacobian = map(np.asarray, both(np.concatenate([np.zeros((1, size)), points])))
    second = np.asarray(compiled(jax.jacfwd(jax.jacfwd(f)))(np.zeros(size)))
    assert np.all(np.isfinite(value))
    for exact, below in ((jacobian[0], value), (second, jacobian)):
        differences = np.tensordot(WEIGHTS, below[1:].reshape(6, size, *below.shape[1:]), axes=1)
        differences = np.moveaxis(differences, 0, -1) / h
        scaled = exact * typical  # d / d log p, by subject
        largest = np.abs(scaled).max(axis=tuple(range(1, scaled.ndim)), keepdims=True)
        assert np.all(largest > 0)
        np.testing.assert_allclose(scaled / largest, differences * typical / largest, rtol=0, atol=1e-5)
