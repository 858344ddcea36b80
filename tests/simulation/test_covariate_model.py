"""Covariates of new subjects from a generative model."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit import generative as gen

QUIET = {"progress": False}
BRIEF = gen.MaximumLikelihood(training=gen.Training(steps=400, batch=128, rate=3e-3))


class Weighed(nm.Model):
    CL = nm.LogNormal(4.0, iiv=0.3, covariates=[nm.Power("WT", reference=70, exponent=0.75)])
    V = nm.LogNormal(30.0, covariates=[nm.Category("SEX", reference=0, levels={1: 0.2})])
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


@cache
def people() -> pd.DataFrame:
    """Men heavier than women, weight and age correlated."""
    rng = np.random.default_rng(5)
    sex = (rng.random(600) < 0.4).astype(float)
    age = rng.normal(50, 12, 600)
    weight = np.exp(4.2 + 0.2 * sex + 0.004 * (age - 50) + 0.1 * rng.normal(size=600))
    return pd.DataFrame({"ID": np.arange(600), "WT": weight, "AGE": age, "SEX": sex})


@cache
def model() -> nm.CovariateModel:
    flow = gen.NormalizingFlow(layers=3, coupling=gen.AffineCoupling(gen.MLP(16, 1)))
    return nm.covariate_model(people(), flow, BRIEF, categories=["SEX"], **QUIET)


def test_draws_are_like_the_table() -> None:
    drawn, table = model().sample(20_000, key=1), people().drop(columns="ID")
    assert list(drawn) == ["WT", "AGE", "SEX"]
    assert set(drawn["SEX"]) == {0.0, 1.0}
    assert drawn["SEX"].mean() == pytest.approx(table["SEX"].mean(), abs=0.015)
    assert np.all(drawn["WT"] > 0)
    for sex in (0.0, 1.0):  # conditional on the category
        own, new = table[table["SEX"] == sex], drawn[drawn["SEX"] == sex]
        assert np.log(new["WT"]).mean() == pytest.approx(np.log(own["WT"]).mean(), abs=0.02)
        assert np.log(new["WT"]).std() == pytest.approx(np.log(own["WT"]).std(), rel=0.12)
        assert new[["WT", "AGE"]].corr().iloc[0, 1] == pytest.approx(own[["WT", "AGE"]].corr().iloc[0, 1], abs=0.12)
    assert model().logs == ("WT", "AGE") and "WT (log)" in str(model())
    assert not set(drawn["WT"]) & set(table["WT"])  # new people


def test_the_same_key_draws_the_same() -> None:
    pd.testing.assert_frame_equal(model().sample(50, key=3), model().sample(50, key=3))
    assert not model().sample(50, key=3).equals(model().sample(50, key=4))


def test_it_feeds_simulate() -> None:
    found = nm.simulate(
        Weighed(), nm.Regimen(100.0), times=[1.0, 8.0], subjects=400, covariates=model(), eta="typical", key=2, **QUIET
    ).frame()
    assert found["ID"].nunique() == 400
    at_8 = found[found["TIME"] == 8.0]["conc"]
    weight, sex = model().sample(4000, key=9)["WT"], model().sample(4000, key=9)["SEX"]
    volume = 30 * np.exp(0.2 * sex)
    expected = 100 / volume * np.exp(-4 * (weight / 70) ** 0.75 / volume * 8)
    assert at_8.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / np.sqrt(400))
    assert at_8.std() == pytest.approx(expected.std(), rel=0.2)


def test_wrong_tables() -> None:
    flow, table = gen.NormalizingFlow(layers=2), people()
    missing = table.assign(WT=table["WT"].where(table["ID"] != 7))
    for wrong, options, message in (
        (missing, {}, "WT of row 7 is 'nan', not a number"),
        (table.assign(RACE=1.0), {}, "RACE is the same for all 600 subjects"),
        (table, {"columns": ["WT", "AGGE"]}, "did you mean `AGE`"),
        (table, {"categories": ["SEXX"]}, "did you mean `SEX`"),
        (table, {"categories": ["WT"]}, "WT has 600 values, too many for a category"),
        (table, {"columns": ["SEX"], "categories": ["SEX"]}, "all columns are categories"),
        (table.iloc[:1], {}, "two subjects at least"),
    ):
        with pytest.raises(nm.DataError, match=message):
            nm.covariate_model(wrong, flow, BRIEF, **options, **QUIET)
    with pytest.raises(nm.MethodError, match="that can draw samples, got EnergyModel"):
        nm.covariate_model(table, gen.EnergyModel(), BRIEF, **QUIET)
    with pytest.raises(nm.DataError, match="how many subjects"):
        nm.simulate(Weighed(), nm.Regimen(100.0), times=[1.0], covariates=model(), **QUIET)
