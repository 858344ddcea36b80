"""Random effects of one data set given to another: by subject, and by what occasions are called."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.analysis.eta_tables import at_occasions, by_id


class Occasions(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3, iov=0.5)
    V = nm.LogNormal(40.0)
    occasion = "OCC"
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


def records():
    rng, rows = np.random.default_rng(1), []
    for who in (1, 2, 3, 4):
        for occasion in (1, 2):
            cl, start = 5 * np.exp(0.5 * rng.normal()), 100.0 * (occasion - 1)
            rows.append((who, start, 4, 100.0, np.nan, occasion))  # nothing is left of the first dose
            rows += [(who, start + t, 0, 0.0, 2.5 * np.exp(-cl / 40 * t), occasion) for t in (1.0, 4, 12)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "EVID", "AMT", "DV", "OCC"])


@pytest.fixture(scope="module")
def fit():
    return nm.evaluate(Occasions(), records(), nm.FOCE(interaction=True))


def conc(table, who, after=100.0):
    return table[(table["ID"] == who) & (table["TIME"] > after)]["conc"].to_numpy()


SECOND = records()[lambda d: d["OCC"] == 2]
MIXED = pd.concat([SECOND[SECOND["ID"] == 1], records()[lambda d: d["ID"] == 2]])


@pytest.mark.parametrize("data", [SECOND, MIXED], ids=["second occasion only", "of one subject both"])
def test_an_occasion_keeps_its_effect_whatever_stands_beside_it(fit, data, tmp_path):
    whole = nm.predict(fit, records(), eta=fit)
    loaded_from = tmp_path / "fit.nlmefit"
    fit.save(loaded_from)
    loaded = nm.load(loaded_from, model=Occasions())
    for who in (1, 2):
        for source in (fit, loaded):
            np.testing.assert_allclose(conc(nm.predict(source, data, eta=source), who), conc(whole, who), rtol=1e-12)
    simulated = nm.simulate(fit, subjects=data, eta="mode", progress=False).frame()
    np.testing.assert_allclose(conc(simulated, 1), conc(whole, 1), rtol=1e-12)
    drawn = nm.simulate(fit, subjects=SECOND, eta=nm.posterior(fit, records(), 50), progress=False).frame()
    assert abs(np.log(drawn[drawn["ID"] == 1].groupby("TIME")["conc"].mean().to_numpy() / conc(whole, 1))).max() < 0.3


def test_an_occasion_that_the_fit_has_not_seen_has_effect_0(fit):
    seen = nm.predict(fit, SECOND.assign(OCC=7), eta=fit)
    own = fit.eta.assign(kappa_CL_1=0.0)[["CL", "kappa_CL_1"]]
    np.testing.assert_allclose(seen["conc"], nm.predict(fit, SECOND.assign(OCC=7), eta=own)["conc"], rtol=1e-12)


def test_labels_are_carried_of_any_kind():
    eta = pd.DataFrame(
        {"CL": [0.1, 0.2], "kappa_CL_1": [1.0, 2.0], "kappa_CL_2": [3.0, np.nan]}, index=pd.Index(["a", "b"], name="ID")
    )
    known = pd.DataFrame({1: ["day 1", "day 2"], 2: ["day 2", None]}, index=eta.index)
    wanted = pd.DataFrame({1: ["day 2", "day 1"]}, index=eta.index)
    found = at_occasions(eta, known, wanted, ["CL", "kappa_CL_1"])
    assert found["kappa_CL_1"].tolist() == [3.0, 0.0] and list(found) == ["CL", "kappa_CL_1"]


def test_rows_that_belong_to_nobody_are_refused(fit):
    ids = fit.eta.index.to_numpy()
    with pytest.raises(nm.DataError, match="neither a column ID nor an index of IDs"):
        by_id(fit.eta.reset_index(drop=True), ids, "eta")
    draws = nm.posterior(fit, records(), 5).draws
    with pytest.raises(nm.DataError, match="neither a column ID nor an index of IDs"):
        nm.simulate(fit, nm.Regimen(100), times=[1.0], eta=draws.reset_index(drop=True), progress=False)
    with pytest.raises(nm.DataError, match="neither a column ID nor an index of IDs"):
        nm.predict(fit, records(), eta=fit.eta.reset_index(drop=True))
    assert by_id(fit.eta.reset_index(), ids, "eta").equals(fit.eta)
