"""NONMEM's M3 run of Bauer's tutorial (2019): two compartments, log-transformed data, 104 of 500 observations below the limit."""

import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm

ETAS = ("CL", "V1", "Q", "V2")
LIMIT = -3.5


class TwoCompartments(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.4)
    V1 = nm.LogNormal(5.0, iiv=0.3)
    Q = nm.LogNormal(2.0, iiv=0.25)
    V2 = nm.LogNormal(11.0, iiv=0.4)
    omega = nm.Blocks("CL V1 Q V2")
    dynamics = nm.TwoCompartment()

    def observe(self, t, A, p):
        return {"lc": jnp.log(A.central / p.V1)}

    lc = nm.Additive(0.3)


def model(recorded):
    sd = [recorded[f"OMEGA({i},{i})"] ** 0.5 for i in range(1, 5)]
    values = {name: float(np.exp(recorded[f"THETA{i}"])) for i, name in enumerate(ETAS, 1)}
    values |= {f"omega_{name}": s for name, s in zip(ETAS, sd, strict=True)} | {"lc_additive": recorded["THETA5"]}
    for i in range(4):
        for j in range(i):
            values[f"corr_{ETAS[j]}_{ETAS[i]}"] = recorded[f"OMEGA({i + 1},{j + 1})"] / (sd[i] * sd[j])
    return TwoCompartments().at(values)


@pytest.fixture
def data(reference):
    found = reference.data("bauer_blq_m3").rename(columns={"CONC": "natural"})
    below = (found["EVID"] == 0) & (found["DV"] < LIMIT)
    return found.assign(CENS=below.astype(int), DV=found["DV"].mask(below, LIMIT))


def test_laplace_subject_by_subject(reference, data):
    """Subject 10 has two modes of equal height (-log p(y, eta) = 6.4915 at both) along a flat valley, of different curvature:
    NONMEM printed one, this search ends in the other. All others agree."""
    run = reference.run("bauer_blq_m3", "LAPLACE INTERACTION")
    fit = nm.evaluate(model(run["estimates"]), data, nm.Laplace())
    recorded = reference.file(run["per_subject_file"]).set_index("ID")["OBJ"]
    difference = (fit.contributions["ofv"] - recorded).abs()
    assert difference.drop(10).max() < 3e-4
    assert fit.conventions["BLQ"].startswith("M3: 104 observations")


@pytest.mark.slow
def test_importance_sampling(reference, data):
    """The recorded total is a Monte Carlo value: an independent quadrature is 0.48 off it."""
    run = reference.run("bauer_blq_m3", "IMP")
    at = model(run["estimates"])
    found = nm.log_marginal(at, data, nm.ImportanceSampling(draws=20000), progress=False)
    assert -2 * found.value - 396 * np.log(2 * np.pi) == pytest.approx(run["objective"], abs=0.75 + 2 * found.mc_se)
