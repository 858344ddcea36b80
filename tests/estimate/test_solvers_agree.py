"""The objectives of a model and its data do not depend on how the amounts are solved for, nor do their gradients; and occasions
in a model that is linear in its random effects give the Gaussian likelihood that can be written down.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import Theophylline, TheophyllineZeroOrder

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem

DATASETS = Path(__file__).parents[2] / "datasets"
METHODS = {"FO": nm.FO(), "FOCEI": nm.FOCE(interaction=True), "Laplace": nm.Laplace()}


class Written(Theophylline):
    """Linear, so solved by the matrix exponential."""

    def dynamics(self, t, A, p):
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.CL / p.V * A.central}


class InSteps(Written):
    solver = nm.RungeKutta()


class Infusion(nm.Model):
    """Two compartments."""

    CL = nm.LogNormal(0.25, iiv=0.4)
    V1 = nm.LogNormal(5.0, iiv=0.3)
    Q = nm.LogNormal(0.5)
    V2 = nm.LogNormal(8.0, iiv=0.3)
    dynamics = nm.TwoCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Proportional(0.2) + nm.Additive(0.05)


class InfusionWritten(Infusion):
    def dynamics(self, t, A, p):
        flow = p.Q * (A.central / p.V1 - A.peripheral / p.V2)
        return {"central": -p.CL / p.V1 * A.central - flow, "peripheral": flow}


class InfusionInSteps(InfusionWritten):
    solver = nm.RungeKutta()


class ZeroOrderWritten(TheophyllineZeroOrder):
    """All doses with RATE -2."""

    def dosing(self, p):
        return {"central": nm.Dosing(lag=p.tlag, duration=p.Tk0)}

    def dynamics(self, t, A, p):
        return {"central": -p.CL / p.V * A.central}


class ZeroOrderInSteps(ZeroOrderWritten):
    solver = nm.RungeKutta()


def theophylline():
    return pd.read_csv(DATASETS / "theophylline.csv")


def infusions():
    """Twelve subjects, two infusions of different length and a bolus."""
    rng = np.random.default_rng(3)
    doses = [(0.0, 100.0, 2.0), (12.0, 60.0, 6.0), (24.0, 30.0, 0.0)]
    rows = [(i, t, np.nan, amount, 1, duration) for i in range(12) for t, amount, duration in doses]
    rows += [(i, t, 0.0, 0.0, 0, 0.0) for i in range(12) for t in (1.0, 3.0, 8.0, 13.0, 20.0, 26.0, 36.0, 60.0)]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT", "EVID", "DUR"]).sort_values(["ID", "TIME"], kind="stable")
    eta = pd.DataFrame(0.3 * rng.normal(size=(12, 3)), columns=["CL", "V1", "V2"])
    seen = frame["EVID"] == 0
    conc = nm.predict(Infusion(), frame, eta)["conc"]
    return frame.assign(DV=np.where(seen, conc * (1 + 0.2 * rng.normal(size=len(frame))), np.nan))


FAMILIES = {
    "oral": (theophylline, Theophylline(), (Written(), InSteps())),
    "infusions": (infusions, Infusion(), (InfusionWritten(), InfusionInSteps())),
    "zero order": (theophylline, TheophyllineZeroOrder(), (ZeroOrderWritten(), ZeroOrderInSteps())),
}


def modelled(data):
    """Boluses as doses of a modelled duration."""
    return data.assign(RATE=np.where(data["EVID"] == 1, -2.0, 0.0), CMT=1)


def cases(kinds, quick):
    """All pairs of a kind and a method; those that are not quick are left to the long suite."""
    pairs = [(kind, method) for kind in kinds for method in METHODS]
    return [pytest.param(*pair, marks=[] if pair in quick else [pytest.mark.slow]) for pair in pairs]


@pytest.mark.parametrize(
    ("family", "method"),
    cases(FAMILIES, [("oral", "FO"), ("oral", "FOCEI"), ("infusions", "FOCEI")]),
)
def test_objectives_agree(family, method):
    read, closed, others = FAMILIES[family]
    data = read()
    expected = nm.evaluate(closed, data, METHODS[method])
    for model in others:
        found = nm.evaluate(model, modelled(data) if family == "zero order" else data, METHODS[method])
        assert found.ofv == pytest.approx(expected.ofv, abs=1e-4)
        np.testing.assert_allclose(found.contributions["log_likelihood"], expected.contributions["log_likelihood"], atol=1e-5)
        np.testing.assert_allclose(found.eta, expected.eta, atol=1e-5)


@pytest.mark.parametrize(("family", "method"), cases(["oral", "infusions"], [("oral", "Laplace"), ("infusions", "FOCEI")]))
def test_gradients_of_stepped_models_against_central_differences(family, method):
    read, _, (_, model) = FAMILIES[family]
    data = read()
    latent, laid_out = bind(model, data[data["ID"].isin(data["ID"].unique()[:4])])
    objective = Objective(Problem(latent, laid_out), METHODS[method])
    u = objective.coordinates.start() + 0.1 * np.random.default_rng(1).normal(size=objective.coordinates.size)
    found = objective.contributions(u)
    assert np.all(found.converged)
    gradient = found.gradient.sum(axis=0)

    def central(k, h):
        step = h * np.eye(len(u))[k]
        return (objective.contributions(u + step).value.sum() - objective.contributions(u - step).value.sum()) / (2 * h)

    differences = np.array([(4 * central(k, 2e-3) - central(k, 4e-3)) / 3 for k in range(len(u))])
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


class Visits(nm.Model):
    """y = a + eta_a + kappa_a + (b + eta_b + kappa_b) t + eps: a new kappa on each occasion."""

    a = nm.Normal(5.0, iiv=1.0, iov=0.6)
    b = nm.Normal(-0.4, iiv=0.3, iov=0.2)
    omega = nm.Blocks("a b")
    occasion = "OCC"

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


VALUES = {
    "a": 5.2,
    "b": -0.5,
    "omega_a": 1.1,
    "omega_b": 0.25,
    "corr_a_b": -0.4,
    "gamma_a": 0.7,
    "gamma_b": 0.15,
    "y_additive": 0.6,
}


def visits():
    """One to three occasions by subject, under labels of any kind; some come back."""
    rng = np.random.default_rng(13)
    rows = []
    for i in range(20):
        labels = rng.choice([1, 2, 5, 9], size=rng.integers(1, 4), replace=False)
        times = np.sort(rng.uniform(0, 8, size=rng.integers(3, 9)))
        rows += [(i, t, rng.choice(labels), 5 - 0.4 * t + rng.normal()) for t in times]
    return pd.DataFrame(rows, columns=["ID", "TIME", "OCC", "DV"])


def gaussian(data, v):
    """log likelihood by subject: V = Z Omega Z' + Z Gamma Z' within an occasion + sigma^2 I."""
    covariance = v["corr_a_b"] * v["omega_a"] * v["omega_b"]
    Omega = np.array([[v["omega_a"] ** 2, covariance], [covariance, v["omega_b"] ** 2]])
    Gamma = np.diag([v["gamma_a"] ** 2, v["gamma_b"] ** 2])
    result = []
    for _, rows in data.groupby("ID", sort=False):
        Z, occasion = np.c_[np.ones(len(rows)), rows["TIME"]], rows["OCC"].to_numpy()
        V = Z @ Omega @ Z.T + (Z @ Gamma @ Z.T) * (occasion[:, None] == occasion) + v["y_additive"] ** 2 * np.eye(len(rows))
        r = rows["DV"].to_numpy() - Z @ [v["a"], v["b"]]
        result.append(-0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(2 * np.pi * V)[1]))
    return np.array(result)


@pytest.mark.parametrize("method", METHODS)
def test_occasions_in_a_linear_model_give_the_gaussian_likelihood(method):
    data = visits()
    fit = nm.evaluate(Visits().at(VALUES), data, METHODS[method])
    np.testing.assert_allclose(fit.contributions["log_likelihood"], gaussian(data, VALUES), rtol=0, atol=1e-8)


class Visited(nm.Model):
    """An infusion at a constant clearance, whose rate differs between occasions: amounts are linear in the random effects."""

    F = nm.Normal(1.0, iiv=0.2, iov=0.3)
    occasion = "OCC"

    def dosing(self, p):
        return {"central": nm.Dosing(bioavailability=p.F)}

    def dynamics(self, t, A, p):
        return {"central": -0.2 * A.central}

    def observe(self, t, A, p):
        return {"y": A.central}

    y = nm.Additive(0.5)


class VisitedInSteps(Visited):
    solver = nm.RungeKutta(rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("model", [Visited(), VisitedInSteps()], ids=["matrix exponential", "steps"])
def test_doses_of_several_occasions_give_the_gaussian_likelihood(model):
    """Each dose has the bioavailability of its own occasion, also while the drug of the last one is still there."""
    rng = np.random.default_rng(14)
    given, times = {0.0: 10.0, 7.0: 14.0, 12.0: 6.0}, np.array([1.0, 3.0, 6.0, 8.0, 11.0, 13.0, 18.0])
    rows = [(i, t, amount, 1, k, np.nan) for i in range(6) for k, (t, amount) in enumerate(given.items())]
    rows += [(i, t, 0.0, 0, int(np.searchsorted(list(given), t) - 1), rng.normal() + 5) for i in range(6) for t in times]
    data = pd.DataFrame(rows, columns=["ID", "TIME", "AMT", "EVID", "OCC", "DV"]).sort_values(["ID", "TIME"], kind="stable")
    since = times[:, None] - np.array(list(given))
    Z = np.where(since > 0, np.array(list(given.values())) * np.exp(-0.2 * np.maximum(since, 0)), 0.0)
    V = 0.2**2 * np.outer(Z.sum(axis=1), Z.sum(axis=1)) + 0.3**2 * Z @ Z.T + 0.25 * np.eye(len(times))
    expected = [
        -0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(2 * np.pi * V)[1])
        for r in data[data["EVID"] == 0].groupby("ID")["DV"].apply(np.array) - [Z.sum(axis=1)] * 6
    ]
    fit = nm.evaluate(model, data, nm.FOCE(interaction=True))
    np.testing.assert_allclose(fit.contributions["log_likelihood"], expected, rtol=0, atol=1e-8)
