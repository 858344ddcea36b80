"""SAEM, importance-sampling EM, variational inference and the referee against NONMEM's and Monolix's estimates.

SAEM's are estimates with noise of their own: within 3 % or one recorded standard error. A full-rank normal posterior is a rough
one for phenobarbital's two or three observations per subject: VI's omega_CL is 1.2 standard errors low there, at a bound 1.5
below the marginal likelihood (nm.TriangularFlow() gives the omega_CL of SAEM).
"""

import numpy as np
import pandas as pd
import pytest
from models import Bauer504, PhenoBase

import nlmefit as nm


class MonolixTheophylline(nm.Model):
    """Oral theophylline, dose per kg."""

    ka = nm.LogNormal(1.0, iiv=0.5)
    V = nm.LogNormal(0.5, iiv=0.2)
    CL = nm.LogNormal(0.04, iiv=0.3)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.CombinedSD(0.3, 0.1)


def monolix_theophylline(reference):
    return reference.data("mlx_theophylline").rename(columns={"CONC": "DV"}).drop(columns="SEX")


def nonmem(run, names, omegas):
    """NONMEM's numbers and standard errors by our names: typical values from logarithms where marked, sds from variances."""
    found = {}
    for theirs, ours in names.items():
        value, se = run["estimates"][theirs], run["se"][theirs]
        log, _, name = ours.rpartition(":")
        found[name] = (np.exp(value), np.exp(value) * se) if log == "exp" else (value, se)
    for theirs, ours in omegas.items():
        sd = run["estimates"][theirs] ** 0.5
        found[ours] = (sd, run["se"][theirs] / (2 * sd))
    return pd.DataFrame(found, index=["value", "se"]).T


def monolix(run, names):
    return pd.DataFrame({ours: (run["estimates"][t], run["se"][t]) for t, ours in names.items()}, index=["value", "se"]).T


PHENO = ({"THETA1": "CL", "THETA2": "V"}, {"OMEGA(1,1)": "omega_CL", "OMEGA(2,2)": "omega_V", "SIGMA(1,1)": "conc_proportional"})
BAUER = (
    {"THETA1": "exp:CL", "THETA2": "exp:V", "THETA3": "beta_CL_WT", "THETA4": "beta_V_WT", "THETA5": "beta_CL_AGE"}
    | {"THETA6": "beta_V_AGE", "THETA7": "beta_CL_SEX", "THETA8": "beta_V_SEX"},
    PHENO[1],
)
THEOPHYLLINE = {
    "ka_pop": "ka",
    "V_pop": "V",
    "Cl_pop": "CL",
    "omega_ka": "omega_ka",
    "omega_V": "omega_V",
    "omega_Cl": "omega_CL",
}
THEOPHYLLINE |= {"a": "conc_additive", "b": "conc_proportional"}


def recorded(name, reference):
    """Model, data and the recorded estimates of SAEM."""
    if name == "pheno_base":
        return PhenoBase(), reference.data(name), nonmem(reference.run(name, "SAEM"), *PHENO)
    if name == "bauer504_1cmt_cov":
        return Bauer504(), reference.data(name), nonmem(reference.run(name, "SAEM"), *BAUER)
    run = reference.run("mlx_theophylline", "SAEM + linearised -2LL")
    return MonolixTheophylline(), monolix_theophylline(reference), monolix(run, THEOPHYLLINE)


METHODS = {"SAEM": (nm.SAEM(), 1.0), "importance EM": (nm.ImportanceEM(), 1.0), "VI": (nm.VI(), 1.25)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["pheno_base", "bauer504_1cmt_cov", "mlx_theophylline"])
def test_estimates_agree_with_recorded_saem(name, method, reference):
    model, data, table = recorded(name, reference)
    method, errors = METHODS[method]
    fit = nm.fit(model, data, method, progress=False)
    assert fit.status, fit.status
    error = (fit.estimates[table.index] - table["value"]).abs()
    assert np.all(error < np.maximum(0.03 * table["value"].abs(), errors * table["se"])), (error / table["se"]).round(2).to_dict()


def test_importance_sampling_at_given_estimates(reference):
    """NONMEM's IMP at its SAEM estimates; the recorded value has several tenths of noise."""
    run = reference.run("bauer504_1cmt_cov", "IMP at SAEM estimates")
    table = nonmem(run, *BAUER)["value"].to_dict()
    e = run["estimates"]
    table["corr_CL_V"] = e["OMEGA(2,1)"] / (e["OMEGA(1,1)"] * e["OMEGA(2,2)"]) ** 0.5
    data = reference.data("bauer504_1cmt_cov")
    model = Bauer504().at(table)
    found = nm.log_marginal(model, data, nm.ImportanceSampling(error=0.05))
    exact = nm.log_marginal(model, data, nm.Quadrature(nodes=15))
    assert found.value == pytest.approx(exact.value, abs=4 * found.mc_se)
    observations = nm.evaluate(model, data, nm.FO()).observations
    assert -2 * found.value - observations * np.log(2 * np.pi) == pytest.approx(run["objective"], abs=2.0)


def test_marginal_likelihood_of_phenobarbital(reference):
    """An independent Gauss-Hermite integral at NONMEM's FOCEI estimates gave 729.5703153320773, before its nodes had converged:
    with 15, 25, 45 and 75 nodes it is 729.5710, 729.5687, 729.56841 and 729.56840."""
    e = reference.run("pheno_base", "FOCEI")["estimates"]
    values = {"CL": e["THETA1"], "V": e["THETA2"], "omega_CL": e["OMEGA(1,1)"] ** 0.5, "omega_V": e["OMEGA(2,2)"] ** 0.5}
    model = PhenoBase().at(values | {"conc_proportional": e["SIGMA(1,1)"] ** 0.5})
    data = reference.data("pheno_base")
    constant = nm.evaluate(model, data, nm.FO()).observations * np.log(2 * np.pi)
    exact = nm.log_marginal(model, data, nm.Quadrature(nodes=45))
    assert -2 * exact.value - constant == pytest.approx(729.5684, abs=1e-4)
    found = nm.log_marginal(model, data, nm.ImportanceSampling(draws=4000))
    assert found.value == pytest.approx(exact.value, abs=4 * found.mc_se)
