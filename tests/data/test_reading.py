"""A fit remembers how its data were read: its rules hold for every further table, and others must be asked for."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm


class Renal(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3, covariates=[nm.Power("CRCL", reference=100, exponent=1.0, fixed=True)])
    V = nm.LogNormal(40.0, iiv=0.2)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


FRAME = pd.DataFrame(
    {
        "ID": [1, 1, 1, 2, 2, 2],
        "HOURS": [0, 4, 12.0] * 2,
        "EVID": [1, 0, 0] * 2,
        "AMT": [100.0, 0, 0] * 2,
        "CONC": [None, 1.5, 1.3, None, 1.6, 0.4],
        "CRCL": [100.0, 20, 60, 80, 40, 30],
        "CENS": [0, 0, 0, 0, 0, 1],
    }
)
COLUMNS = {"CONC": "DV", "HOURS": "TIME"}
RULES = [("locf", "M4"), ("nocb", "M1")]
LAPLACE = nm.Laplace()


def pair(rule, blq, tmp_path):
    """An evaluated fit by those rules and its data, then the same from a file."""
    laid = nm.Subjects.from_frame(FRAME, Renal(), COLUMNS, covariates=rule, blq=blq)
    fit = nm.evaluate(Renal(), laid, LAPLACE)
    fit.save(tmp_path / "fit.nlmefit")
    return laid, (fit, nm.load(tmp_path / "fit.nlmefit", model=Renal()))


CALLS = {
    "evaluate": lambda fit, data: nm.evaluate(fit, data, LAPLACE).contributions["ofv"],
    "predict": lambda fit, data: nm.predict(fit, data, eta=fit)["conc"],
    "diagnose": lambda fit, data: nm.diagnose(fit, data).frame["IPRED"],
    "simulate": lambda fit, data: nm.simulate(fit, subjects=data, eta="mode", progress=False).frame()["conc"],
    "posterior": lambda fit, data: nm.posterior(fit, data, 50).mean.to_numpy().ravel(),
    "log_marginal": lambda fit, data: nm.log_marginal(fit, data, nm.Quadrature(nodes=3), progress=False).value,
    "one_step_ahead": lambda fit, data: nm.one_step_ahead(fit, data, nm.Laplace(), progress=False)["log_predictive"],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("rule", "blq"), RULES, ids=["-".join(r) for r in RULES])
def test_a_frame_is_read_by_the_fits_rules(call, rule, blq, tmp_path):
    assert_frames_read_alike(call, *pair(rule, blq, tmp_path))


def assert_frames_read_alike(call, laid, fits):
    wanted = np.asarray(CALLS[call](fits[0], laid), float)
    for fit in fits:
        np.testing.assert_allclose(np.asarray(CALLS[call](fit, FRAME), float), wanted, rtol=1e-9)


def test_linear_covariates_are_remembered():
    """One call: each is a differential equation to compile."""
    laid = nm.Subjects.from_frame(FRAME, Renal(), COLUMNS, covariates="linear")
    fit = dataclasses.replace(nm.evaluate(Renal(), FRAME.rename(columns=COLUMNS), LAPLACE), data=laid)
    np.testing.assert_allclose(nm.predict(fit, FRAME)["conc"], nm.predict(Renal(), laid)["conc"], rtol=1e-9)


def test_other_rules_are_asked_for(tmp_path):
    laid, (fit, loaded) = pair("locf", "M3", tmp_path)
    assert loaded.reading == fit.reading == laid.reading
    other = nm.Subjects.from_frame(FRAME, Renal(), COLUMNS, covariates="nocb")
    assert nm.evaluate(fit, other, LAPLACE).ofv == pytest.approx(nm.evaluate(Renal(), other, LAPLACE).ofv, abs=1e-9)
    assert abs(nm.evaluate(fit, other, LAPLACE).ofv - fit.ofv) > 0.1


def test_a_column_that_is_not_needed_may_be_missing(tmp_path):
    """Of the remembered columns, DV need not be there for prediction; a name given in the call must be."""
    _, (fit, _) = pair("locf", "M3", tmp_path)
    design = FRAME.drop(columns="CONC")
    np.testing.assert_allclose(nm.predict(fit, design)["conc"], nm.predict(fit, FRAME)["conc"])
    with pytest.raises(nm.DataError, match="CNC"):
        nm.predict(fit, FRAME, columns={**COLUMNS, "CNC": "DV"})


def test_m1_predicts_every_record(tmp_path):
    laid, (fit, _) = pair("nocb", "M1", tmp_path)
    assert len(nm.predict(fit, laid)) == len(FRAME)


class Logarithm(Renal):
    def observe(self, t, A, p):
        return {"conc": jnp.log(A.central / p.V)}

    conc = nm.Additive(0.1)


def test_an_infinite_prediction_is_refused_where_it_is_observed():
    early = FRAME.rename(columns=COLUMNS).query("ID == 1").assign(TIME=[1.0, 0.0, 2.0]).sort_values("TIME")
    with pytest.raises(nm.DataError, match="finite"):
        nm.predict(Logarithm(), early)


@pytest.mark.parametrize("eta", [[0.1, 0.2], 3, "mode", {1: 0.3}])
def test_what_is_no_eta(eta):
    with pytest.raises(nm.DataError, match="eta must be"):
        nm.predict(Renal(), FRAME, eta=eta, columns=COLUMNS)


class Occasions(nm.Model):
    b = nm.Normal(10.0, iiv=2.0, iov=1.0)
    occasion = "OCC"

    def observe(self, t, A, p):
        return {"y": p.b}

    y = nm.Additive(0.5)


def test_an_occasion_beyond_the_fits_has_the_effect_0():
    seen = pd.DataFrame({"ID": [1, 1, 2], "TIME": [0, 1.0, 0], "DV": [9, 12.0, 11], "OCC": [1, 2, 1]})
    fit = nm.evaluate(Occasions(), seen, LAPLACE)
    more = pd.DataFrame({"ID": [1, 1, 1, 2, 2], "TIME": [0, 1, 2.0, 0, 1], "OCC": [1, 2, 3, 1, 2]})
    eta = fit.eta
    wanted = [
        10 + eta.loc[1, "b"] + eta.loc[1, "kappa_b_1"],
        10 + eta.loc[1, "b"] + eta.loc[1, "kappa_b_2"],
        10 + eta.loc[1, "b"],
        10 + eta.loc[2, "b"] + eta.loc[2, "kappa_b_1"],
        10 + eta.loc[2, "b"],
    ]
    np.testing.assert_allclose(nm.predict(fit, more, eta=fit)["y"], wanted)
