"""Dosing records and differential equations against NONMEM and nlmixr2.

NONMEM solved the warfarin model with a loose tolerance; an independent computation of its objectives is 0.06 and 0.07 lower.
"""

import time

import numpy as np
import pytest

import nlmefit as nm


class Oral(nm.Model):
    """One compartment, first-order absorption; the properties of doses into the central compartment are columns of the data."""

    ka = nm.Theta(1.5, lower=0)
    CL = nm.Theta(1.1, lower=0)
    V = nm.Theta(20.0, lower=0)
    dynamics = nm.OneCompartment(absorption="first-order")

    def dosing(self, p):
        return {"central": nm.Dosing(lag=p.LAGT, bioavailability=p.BIOAV, rate=p.RAT2, duration=p.DUR2)}

    def observe(self, t, A, p):
        return {"conc": A.central / (p.V / 1000)}

    conc = nm.Additive(1.0)


class OralMatrix(Oral):
    """The same by the matrix exponential."""

    solver = nm.MatrixExponential()


class OralWritten(Oral):
    """The same as equations."""

    def dynamics(self, t, A, p):
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.CL / p.V * A.central}


class OralRungeKutta(OralWritten):
    """The same, step by step."""

    solver = nm.RungeKutta()


class OralRosenbrock(OralWritten):
    """The same, by implicit steps."""

    solver = nm.Rosenbrock()


class OralDiffrax(OralWritten):
    """The same, by diffrax."""

    solver = nm.Diffrax()


@pytest.mark.parametrize(
    "model", (Oral, OralMatrix, OralWritten, OralRungeKutta, OralRosenbrock, pytest.param(OralDiffrax, marks=pytest.mark.slow))
)
def test_29_dosing_scenarios_of_nonmem(model, reference):
    """NONMEM prints five digits."""
    records = reference.file("data/events_nm751.csv")
    predicted, published = nm.predict(model(), records)["conc"], records["CP_NONMEM"]
    observed = records["EVID"] == 0
    error = (predicted - published).abs() / np.maximum(published.abs(), 1e-3 * published.max())
    worst = error[observed].groupby(records["ID"][observed]).max()
    assert len(worst) == 29
    assert worst.max() < 6e-5, worst[worst >= 6e-5]


class Warfarin(nm.Model):
    """Warfarin through two absorption compartments, and an indirect response on prothrombin complex activity."""

    ktr = nm.LogNormal(1.0, iiv=1.0)
    ka = nm.LogNormal(1.0, iiv=1.0)
    CL = nm.LogNormal(0.1, iiv=1.4)
    V = nm.LogNormal(10.0, iiv=1.0)
    emax = nm.LogitNormal(0.8, iiv=0.7)
    EC50 = nm.LogNormal(0.5, iiv=0.7)
    kout = nm.LogNormal(0.05, iiv=0.7)
    base = nm.LogNormal(100.0, iiv=0.7)

    def initial(self, p):
        return {"effect": p.base}

    def dynamics(self, t, A, p):
        conc = A.central / p.V
        return {
            "depot": -p.ktr * A.depot,
            "gut": p.ktr * A.depot - p.ka * A.gut,
            "central": p.ka * A.gut - p.CL * conc,
            "effect": p.kout * (p.base * (1 - p.emax * conc / (p.EC50 + conc)) - A.effect),
        }

    def observe(self, t, A, p):
        return {"cp": A.central / p.V, "pca": A.effect}

    cp = nm.Proportional(0.1) + nm.Additive(0.1)
    pca = nm.Additive(10.0)


EIGHT = ("ktr", "ka", "CL", "V", "emax", "EC50", "kout", "base")
FIVE = ("CL", "V", "EC50", "kout", "base")
RUNS = {
    "FOCEI (emax4)": (Warfarin(ktr=nm.LogNormal(1.0), ka=nm.LogNormal(1.0), emax=nm.LogitNormal(0.8)), FIVE),
    "FOCEI (emax3, 8 ETAs)": (Warfarin(), EIGHT),
}


def warfarin(name, values):
    """The model at NONMEM's parameters: logarithms of typical values, the logit of emax, variances."""
    model, etas = RUNS[name]
    thetas = dict(zip(EIGHT, (f"THETA{k}" for k in (1, 2, 3, 4, 7, 8, 9, 10)), strict=True))
    typical = {p: 1 / (1 + np.exp(-values[t])) if p == "emax" else np.exp(values[t]) for p, t in thetas.items()}
    omegas = {f"omega_{eta}": values[f"OMEGA({k},{k})"] ** 0.5 for k, eta in enumerate(etas, 1)}
    errors = {"cp_proportional": values["THETA5"], "cp_additive": values["THETA6"], "pca_additive": values["THETA11"]}
    return model.at(typical | omegas | errors)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("values", "objective"),
    [
        ("estimates", "objective"),
        pytest.param("initial_parameters", "objective_at_initial", marks=pytest.mark.slow),
    ],
)
def test_warfarin_objective_at_given_parameters(name, values, objective, reference):
    run = reference.run("warfarin_pkpd", name)
    fit = nm.evaluate(warfarin(name, run[values]), reference.data("warfarin_pkpd"), nm.FOCE(interaction=True))
    assert fit.contributions["converged"].all()
    assert fit.ofv == pytest.approx(run[objective], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_warfarin_fit_ends_at_or_below_nonmem(name, reference):
    """NONMEM's starting values of emax4 are another run's estimates; both of its runs stopped at starting values of ka."""
    run = reference.run("warfarin_pkpd", name)
    start = warfarin(name, run["initial_parameters"])
    fit = nm.fit(start, reference.data("warfarin_pkpd"), nm.FOCE(interaction=True, covariance="none"))
    assert fit.ofv <= run["objective"] + 0.01, fit


class MichaelisMenten(nm.Model):
    """Saturable elimination, bolus."""

    Vmax = nm.LogNormal(np.exp(7.0), iiv=0.3**0.5)
    Km = nm.LogNormal(np.exp(6.0), iiv=0.3**0.5)
    V = nm.LogNormal(np.exp(4.0), iiv=0.3**0.5)

    def dynamics(self, t, A, p):
        return {"central": -p.Vmax * A.central / (p.Km * p.V + A.central)}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.2)


def test_michaelis_menten_panel_ends_at_or_below_nlmixr2(reference):
    peer = reference.peers["nlmixr2_Bolus_1CPTMM_SD_ode_focei"]
    began = time.process_time()
    fit = nm.fit(
        MichaelisMenten(), reference.file("data/panel120_bolus_1cptmm.csv"), nm.FOCE(interaction=True, covariance="none")
    )
    assert fit.status, fit.status
    assert fit.ofv <= peer["objective"] + 0.01
    print(f"{time.process_time() - began:.1f} CPU s, nlmixr2 {peer['cpu_s_with_compile']}")
