"""Categories and occasions in text: levels by name, those of the data where the model names none."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.plot.forest import covariate_effects

FOCE = nm.FOCE(interaction=True)


class Open(nm.Model):
    b = nm.Normal(10.0, iiv=2.0, covariates=[nm.Category("SEX", reference="M")])

    def observe(self, t, A, p):
        return {"y": p.b + 0 * t}

    y = nm.Additive(0.5)


class Named(Open):
    b = nm.Normal(10.0, iiv=2.0, covariates=[nm.Category("SEX", reference="M", levels=["F"])])


class Coded(Open):
    b = nm.Normal(10.0, iiv=2.0, covariates=[nm.Category("SEX", reference=0, levels=[1])])


class OpenCoded(Open):
    b = nm.Normal(10.0, iiv=2.0, covariates=[nm.Category("SEX", reference=0)])


DATA = pd.DataFrame({"ID": np.repeat(range(6), 2), "TIME": [0, 1.0] * 6, "DV": [10, 11, 9, 8, 12, 13.0, 10, 9, 11, 10, 7, 8]})
TEXT = DATA.assign(SEX=np.repeat(["M", "F", "M", "F", "M", "F"], 2))
CODES = TEXT.assign(SEX=(TEXT["SEX"] == "F").astype(int))


@pytest.fixture(scope="module")
def fit():
    return nm.fit(Open(), TEXT, FOCE, progress=False)


def test_text_codes_and_levels_of_the_data_fit_alike(fit):
    assert list(fit.estimates.index) == ["b", "beta_b_SEX_F", "omega_b", "y_additive"]
    for model, data in ((Named(), TEXT), (Coded(), CODES), (OpenCoded(), CODES)):
        at = model.with_levels({"SEX": (0, 1)}).at(
            dict(zip(model.with_levels({"SEX": (0, 1)}).values, fit.estimates, strict=True))
        )
        assert nm.evaluate(at, data, FOCE).ofv == pytest.approx(fit.ofv, abs=1e-9)


def test_levels_are_the_fits_and_not_the_new_tables(fit, tmp_path):
    fit.save(tmp_path / "fit.nlmefit")
    women = TEXT[TEXT["SEX"] == "F"]
    wanted = fit.estimates["b"] * np.exp(fit.estimates["beta_b_SEX_F"])
    for one in (fit, nm.load(tmp_path / "fit.nlmefit", model=Open())):
        np.testing.assert_allclose(nm.predict(one, women)["y"], wanted)
        assert nm.evaluate(one, TEXT, FOCE).ofv == pytest.approx(fit.ofv, abs=1e-6)
        with pytest.raises(nm.DataError, match=r"does not name: X\. .*Named: M, F\."):
            nm.predict(one, TEXT.assign(SEX="X"))


def test_a_start_may_name_the_coefficients_of_the_data():
    started = nm.fit(Open(), TEXT, FOCE, start={"beta_b_SEX_F": -0.3}, progress=False)
    again = nm.fit(Open(), TEXT, FOCE, start=started, progress=False)
    assert again.ofv == pytest.approx(started.ofv, abs=1e-4)
    with pytest.raises(nm.ModelError, match="parameter `beta_b_SEX_X` does not exist"):
        nm.fit(Open(), TEXT, FOCE, start={"beta_b_SEX_X": -0.3}, progress=False)


def test_new_subjects_have_their_category(fit):
    class Dosed(nm.Model):
        CL = nm.LogNormal(5.0, covariates=[nm.Category("SEX", reference="M", levels={"F": 0.5})])
        V = nm.LogNormal(40.0)
        dynamics = nm.OneCompartment()

        def observe(self, t, A, p):
            return {"conc": A.central / p.V}

        conc = nm.Proportional(0.1)

    people = pd.DataFrame({"SEX": ["M", "F"]})
    found = nm.simulate(
        Dosed(), nm.Regimen(lambda x: 100 if x.SEX == "M" else 50), times=[0.0], covariates=people, progress=False
    )
    np.testing.assert_allclose(found.frame()["conc"], [2.5, 1.25])
    with pytest.raises(nm.DataError, match="does not name: X"):
        nm.simulate(Dosed(), nm.Regimen(100), times=[0.0], covariates={"SEX": "X"}, subjects=2, progress=False)


def test_equations_and_effects_name_levels(fit):
    assert '[SEX = "F"]' in str(fit.model) and r"\text{\"F\"}".replace('\\"', '"') in fit.model.latex()
    assert "for each level of SEX in the data but 'M'" in str(Open())
    table = covariate_effects(fit, draws=100)
    assert table["value"].tolist() == ["F"] and table.attrs["reference"] == {"SEX": "M"}
    assert table["ratio"].item() == pytest.approx(np.exp(fit.estimates["beta_b_SEX_F"]))


def test_a_reference_that_nobody_has_is_told():
    with pytest.raises(nm.DataError, match=r"E144 no record has SEX 'M', the reference .*; the data has f, m\."):
        nm.evaluate(Open(), TEXT.assign(SEX=TEXT["SEX"].str.lower()), FOCE)


def test_text_that_a_method_reads_is_refused_where_the_model_is_defined():
    with pytest.raises(nm.ModelError, match=r"a method reads `SEX`, whose values are text for nm\.Category"):

        class Reads(Named):
            def observe(self, t, A, p):
                return {"y": p.b * (1 + 0.1 * p.SEX)}


def test_a_category_does_not_run_linearly():
    df = CODES.assign(SEX=[0, 1] * 6)
    nm.Subjects.from_frame(df, Coded(), covariates="locf")
    with pytest.raises(nm.DataError, match='covariates="linear": SEX is a category and changes within a subject'):
        nm.Subjects.from_frame(df, Coded(), covariates="linear")


def test_occasions_go_by_any_label():
    class Visits(nm.Model):
        b = nm.Normal(10.0, iiv=2.0, iov=1.0)
        occasion = "VISIT"

        def observe(self, t, A, p):
            return {"y": p.b}

        y = nm.Additive(0.5)

    text, number = DATA.assign(VISIT=["first", "second"] * 6), DATA.assign(VISIT=[1, 2] * 6)
    ofv = [nm.evaluate(Visits(), df, FOCE).ofv for df in (text, number, text.assign(VISIT=pd.Categorical(text["VISIT"])))]
    assert ofv == pytest.approx([ofv[0]] * 3, abs=1e-12)
