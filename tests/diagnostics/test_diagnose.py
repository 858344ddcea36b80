"""`nm.diagnose` on fits of every kind, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
from models import Theophylline, examples

import nlmefit as nm
from nlmefit import generative as gen

COLUMNS = [
    "ID",
    "TIME",
    "endpoint",
    "DV",
    "PRED",
    "IPRED",
    "RES",
    "WRES",
    "CWRES",
    "IRES",
    "IWRES",
    "NPDE",
    "NPDE_inverse",
    "NPD",
    "PIT",
]


def short():
    data = examples()["theophylline"].data
    return data[data["ID"] <= 4]


@pytest.fixture(scope="module")
def fitted():
    return nm.evaluate(Theophylline(), short(), nm.FOCE(interaction=True))


def test_a_row_per_observation_under_its_own_label():
    data = short()
    data = data.set_index(pd.Index([f"row {k}" for k in range(len(data))])).rename(columns={"DV": "conc_seen"})
    subjects = nm.Subjects.from_frame(data, Theophylline(), {"conc_seen": "DV"})
    fit = nm.evaluate(Theophylline(), subjects, nm.FOCE(interaction=True))
    found = nm.diagnose(fit, progress=False).frame
    observed = data["EVID"] == 0
    assert list(found.columns) == COLUMNS
    assert list(found.index) == list(data.index[observed])
    np.testing.assert_array_equal(found["DV"], data.loc[observed, "conc_seen"])
    np.testing.assert_array_equal(found["ID"].to_numpy(int), data.loc[observed, "ID"])
    np.testing.assert_array_equal(found["TIME"], data.loc[observed, "TIME"])
    assert found.notna().all(axis=None)


def test_pit_is_that_of_one_step_ahead(fitted):
    own = nm.diagnose(fitted, progress=False).pit
    other = nm.one_step_ahead(fitted, short(), key=7, progress=False)["pit"]
    np.testing.assert_allclose(own, other, atol=0.06)
    assert list(own.index) == list(other.index)


def test_a_loaded_fit_needs_data_and_model(fitted, tmp_path):
    fitted.save(tmp_path / "fit")
    with pytest.raises(nm.ModelError, match=r"loaded without its model; load it by nm.load\(path, model=Theophylline"):
        nm.diagnose(nm.load(tmp_path / "fit"), short())
    loaded = nm.load(tmp_path / "fit", model=Theophylline())
    with pytest.raises(nm.NlmefitError, match="holds no data; give the data"):
        nm.diagnose(loaded)
    one, other = nm.diagnose(fitted, progress=False), nm.diagnose(loaded, short(), progress=False)
    pd.testing.assert_frame_equal(one.residuals, other.residuals)
    pd.testing.assert_frame_equal(one.influence, other.influence)


def test_a_loaded_fit_without_interaction(tmp_path):
    example = examples()["pkpd"]
    fit = nm.evaluate(example.model, example.data, nm.MAP(nm.FOCE()))
    fit.save(tmp_path / "fit")
    loaded = nm.load(tmp_path / "fit", model=example.model)
    one, other = nm.diagnose(fit, progress=False), nm.diagnose(loaded, example.data, progress=False)
    pd.testing.assert_frame_equal(one.residuals, other.residuals)


def test_other_data(fitted):
    """External validation: random effects are the modes given the new data, at the fit's estimates."""
    data = examples()["theophylline"].data
    new = data[data["ID"] > 8]
    found = nm.diagnose(fitted, new, progress=False)
    expected = nm.evaluate(fitted.model, new, nm.Laplace()).eta
    pd.testing.assert_frame_equal(found.eta, expected, atol=1e-6)
    np.testing.assert_allclose(found.residuals["IPRED"], nm.predict(fitted, new, expected)["conc"][new["EVID"] == 0], atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        nm.SAEM(burn_in=100, smooth=50, draws=100),
        pytest.param(nm.NUTS(warmup=50, draws=50, max_draws=50, chains=1), marks=pytest.mark.slow),
        pytest.param(nm.VI(), marks=pytest.mark.slow),
    ],
    ids=["SAEM", "NUTS", "VI"],
)
def test_every_kind_of_fit(method):
    fit = nm.fit(Theophylline(), short(), method, progress=False)
    found = nm.diagnose(fit, draws=100, progress=False)
    assert found.frame.notna().all(axis=None)
    expected = nm.predict(fit, short(), fit)["conc"][short()["EVID"] == 0]
    np.testing.assert_allclose(found.frame["IPRED"], expected, atol=1e-8)
    assert found.influence["ofv"].notna().all() or fit.kind == "bound"


def test_printing_says_what_matters(fitted):
    text = str(nm.diagnose(fitted, progress=False))
    assert "Theophylline by FOCE with interaction: 4 subjects, 44 observations" in text
    for word in ("CWRES", "shrinkage", "epsilon", "variance"):
        assert word in text


def test_wrong_input(fitted):
    with pytest.raises(nm.NlmefitError, match="diagnose is of a fit"):
        nm.diagnose(Theophylline())
    with pytest.raises(nm.MethodError, match="draws must be a whole number from 100 up"):
        nm.diagnose(fitted, draws=10)
    with pytest.raises(nm.MethodError, match="key must be"):
        nm.diagnose(fitted, key="one")
    with pytest.raises(nm.DataError):
        nm.diagnose(fitted, short().drop(columns="TIME"))
    many = pd.DataFrame({"ID": 1, "TIME": np.arange(80.0), "DV": 1.0})
    with pytest.raises(nm.MethodError, match="too few for a subject with 80 observations: give at least 160"):
        nm.diagnose(fitted, many, draws=100)


def test_generative_models_are_refused():
    X = np.random.default_rng(1).normal(size=(20, 4))
    fit = nm.evaluate(gen.PPCA(latent=1).maximum_likelihood(X), X, nm.Laplace())
    with pytest.raises(nm.ModelError, match=r"of fits of an nm.Model; this is one of PPCA"):
        nm.diagnose(fit)
