"""Every structural model of the library has the same FOCEI objective by every solver that can do it, over random boluses,
infusions, lags and steady states; and the models that have no closed form give the truth back from data simulated by them.
"""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm

VALUES = {"ka": 1.1, "ka2": 0.3, "Tk0": 3.0, "Fr": 0.4, "tlag2": 1.5, "mtt": 1.2, "n": 3.0, "CL": 4.0, "V": 30.0, "V1": 30.0}
VALUES |= {"Q": 5.0, "V2": 50.0, "Q2": 5.0, "Q3": 1.0, "V3": 80.0, "Vmax": 20.0, "Km": 2.0, "kin": 4.0, "kout": 0.2, "Imax": 0.7}
VALUES |= {"IC50": 1.0, "Emax": 1.5, "EC50": 1.0, "keo": 0.5, "ke0": 0.5, "R0": 2.0, "kdeg": 0.1, "kint": 0.2, "kon": 1.0}
VALUES |= {"koff": 0.2, "KSS": 0.4, "Circ0": 5.0, "MTT": 40.0, "slope": 0.2, "gamma": 0.2, "W0": 3.0, "kg": 0.05, "kkill": 0.02}
VALUES |= {
    "base": 8.0,
    "w0": 3.0,
    "wmax": 30.0,
    "kgrow": 0.05,
    "lambda0": 0.1,
    "lambda1": 0.3,
    "kkill": 0.02,
    "k2": 0.02,
    "kgex": 0.05,
    "kglin": 0.3,
    "psi": 20.0,
    "k1": 0.2,
    "hill": 1.5,
}

ORAL = nm.OneCompartment("first-order")
STEPS = (nm.RungeKutta(), nm.Rosenbrock())
LINEAR = (nm.ClosedForm(), nm.MatrixExponential(), *STEPS)
CHAINED = LINEAR[1:]
CASES = {
    "one compartment": (nm.OneCompartment(), LINEAR),
    "one, oral": (ORAL, LINEAR),
    "one, zero order": (nm.OneCompartment("zero-order"), LINEAR),
    "two, oral": (nm.TwoCompartment("first-order"), LINEAR),
    "three": (nm.ThreeCompartment(), LINEAR),
    "three, oral": (nm.ThreeCompartment("first-order"), LINEAR),
    "transit, any number": (nm.OneCompartment(nm.Transit()), STEPS),
    "transit, three": (nm.OneCompartment(nm.Transit(compartments=3)), CHAINED),
    "parallel": (nm.OneCompartment(nm.ParallelAbsorption()), CHAINED),
    "parallel, zero order, lag": (nm.OneCompartment(nm.ParallelAbsorption("zero-order", lag=True)), CHAINED),
    "effect compartment": (nm.EffectCompartment(ORAL), CHAINED),
    "Michaelis-Menten": (nm.MichaelisMenten("first-order", linear=True), STEPS),
    **{f"indirect response {kind}": (nm.IndirectResponse(kind, ORAL), STEPS) for kind in (1, 2, 3, 4)},
    "TMDD": (nm.TMDD(), STEPS),
    "TMDD, quasi-steady": (nm.TMDD("QSS"), STEPS),
    "Friberg": (nm.Friberg(nm.OneCompartment()), STEPS),
    **{f"tumour, {law}": (nm.TumourGrowth(law, ORAL), STEPS) for law in ("exponential", "logistic", "gompertz", "simeoni")},
}
QUICK = ("transit, any number",)


def built(dynamics, solver):
    """The model of a structural model: random effects on its first three parameters, central's concentration observed and, where
    there is one, the last compartment."""
    names = dynamics.parameters
    last = dynamics.compartments[-1]
    body = {name: nm.LogNormal(VALUES[name], iiv=0.3 if place < 3 else None) for place, name in enumerate(names)}
    response = last not in ("central", "peripheral", "peripheral2", "depot", "depot2", "absorption")

    def observe(self, t, A, p):
        found = {"conc": A.central / 30.0}
        return found | {"response": getattr(A, last)} if response else found

    body |= {"dynamics": dynamics, "solver": solver, "observe": observe, "conc": nm.Proportional(0.1) + nm.Additive(0.05)}
    if response:
        body["response"] = nm.Proportional(0.1) + nm.Additive(0.05)
    return type("Built", (nm.Model,), body)()


def records(dynamics, seed=4):
    """Four subjects: boluses, infusions unless doses take a time of their own, and a steady state where a model has one."""
    rng = np.random.default_rng(seed)
    own_time = "Tk0" in dynamics.parameters
    steady = "n" not in dynamics.parameters and not isinstance(dynamics, nm.TumourGrowth)
    rows = []
    for who in range(4):
        amount = float(rng.uniform(50, 150))
        rows.append((who, 0.0, amount, 1, 0.0, 12.0 if steady and who % 2 else 0.0, int(steady and who % 2)))
        rows.append((who, float(rng.uniform(8, 12)), amount, 1, 0.0 if own_time else float(rng.uniform(1, 4)), 0.0, 0))
        rows.append((who, 24.0, amount / 2, 1, 0.0, 0.0, 0))
        rows += [(who, float(t), 0.0, 0, 0.0, 0.0, 0) for t in np.sort(rng.uniform(0.3, 48.0, size=8))]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "AMT", "EVID", "DUR", "II", "SS"])
    return frame.sort_values(["ID", "TIME"], kind="stable")


def simulated(model, frame, seed=5):
    """Those records with a DV of every endpoint: random effects and residual errors drawn."""
    rng = np.random.default_rng(seed)
    ids = frame["ID"].unique()
    sds = [model.values[f"omega_{name}"] for name in model.specification.etas]
    eta = pd.DataFrame(rng.normal(size=(len(ids), len(sds))) * sds, ids, model.specification.etas)
    predicted = nm.predict(model, frame, eta)
    doses, seen = frame[frame["EVID"] == 1].assign(DV=np.nan, DVID=1), frame["EVID"] == 0
    parts = [doses]
    for number, name in enumerate(model.endpoints, 1):
        f = predicted.loc[seen, name]
        proportional, additive = (model.values.get(f"{name}_{kind}", 0.0) for kind in ("proportional", "additive"))
        sd = np.sqrt((proportional * f) ** 2 + additive**2)
        parts.append(frame[seen].assign(DV=f + sd * rng.normal(size=len(f)), DVID=number))
    data = pd.concat(parts).sort_values(["ID", "TIME", "EVID"], ascending=[True, True, False], kind="stable")
    return data if len(model.endpoints) > 1 else data.drop(columns="DVID")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in CASES])
def test_every_solver_gives_the_same_objective(name):
    dynamics, solvers = CASES[name]
    data = simulated(built(dynamics, solvers[0]), records(dynamics))
    fits = [nm.evaluate(built(dynamics, solver), data, nm.FOCE(interaction=True)) for solver in solvers]
    assert all(fit.contributions["converged"].all() for fit in fits)
    np.testing.assert_allclose([fit.ofv for fit in fits], fits[0].ofv, rtol=0, atol=1e-4)


class TransitAbsorption(nm.Model):
    """Savic's gamma input."""

    n = nm.LogNormal(4.0, iiv=0.2)
    mtt = nm.LogNormal(1.5, iiv=0.3)
    ka = nm.LogNormal(1.2, iiv=0.2)
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0, iiv=0.2)
    dynamics = nm.OneCompartment(absorption=nm.Transit())

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Target(nm.Model):
    """Full TMDD; the rates of binding are known, as in practice."""

    CL = nm.LogNormal(0.2, iiv=0.3)
    V = nm.LogNormal(3.0, iiv=0.2)
    R0 = nm.LogNormal(10.0, iiv=0.3)
    kdeg = nm.LogNormal(0.05)
    kint = nm.LogNormal(0.1)
    kon = nm.LogNormal(10.0, fixed=True)
    koff = nm.LogNormal(1.0, fixed=True)
    dynamics = nm.TMDD()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1) + nm.Additive(0.02)


class Neutrophils(nm.Model):
    """Friberg's model under a known concentration."""

    CL = nm.LogNormal(5.0, fixed=True)
    V = nm.LogNormal(50.0, fixed=True)
    Circ0 = nm.LogNormal(5.0, iiv=0.3)
    MTT = nm.LogNormal(90.0, iiv=0.15)
    gamma = nm.LogNormal(0.17)
    slope = nm.LogNormal(0.3, iiv=0.4)
    dynamics = nm.Friberg(nm.OneCompartment())

    def observe(self, t, A, p):
        return {"anc": A.circulating}

    anc = nm.Proportional(0.15)


TRIALS = {
    "transit": (TransitAbsorption(), 30, (100.0,), (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 9, 12, 18, 24)),
    "TMDD": (Target(), 30, (30.0, 100.0, 300.0), (1, 4, 12, 24, 48, 72, 96, 168, 240, 336, 504)),
    "Friberg": (Neutrophils(), 60, (100.0, 200.0), (0.5, 24, 72, 120, 168, 240, 336, 432, 504, 600)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_a_fit_to_simulated_data_recovers_the_truth(name):
    truth, subjects, doses, times = TRIALS[name]
    rows = [(who, 0.0, doses[who % len(doses)], 1) for who in range(subjects)]
    rows += [(who, float(t), 0.0, 0) for who in range(subjects) for t in times]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "AMT", "EVID"]).sort_values(["ID", "TIME"], kind="stable")
    data = simulated(truth, frame, seed=3)
    free = {n: v for n, v in truth.values.items() if not truth.population()[n].fixed and not n.startswith("omega")}
    fit = nm.fit(truth.at({n: 1.3 * v for n, v in free.items()}), data, nm.FOCE(interaction=True))
    assert fit.status, fit.status
    error = (fit.estimates - pd.Series(truth.values)) / fit.standard_errors
    assert error.drop(list(fit.fixed)).abs().max() < 3, error
