"""`fit.to_arviz()`: draws that are what they say, log-likelihoods against scipy and quadrature, ArviZ's own functions."""

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from models import examples
from scipy.stats import norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.interop import arviz as interop
from nlmefit.interop.arviz import az

FOCEI = nm.FOCE(interaction=True, covariance="R")


@pytest.fixture(scope="module")
def data():
    """Subjects of unequal length, so that rows are padded."""
    frame = examples()["theophylline"].data
    return frame[~((frame["ID"] == 3) & (frame["TIME"] > 4))]


@pytest.fixture(scope="module")
def fit(data):
    return nm.fit(examples()["theophylline"].model, data, FOCEI)


@pytest.fixture(scope="module")
def idata(fit):
    return fit.to_arviz(600, key=1)


def at_draw(fit, idata, chain, draw):
    """The model at a draw's parameters, and its random effects."""
    one = idata.posterior.isel(chain=chain, draw=draw)
    return fit.model.at({name: float(one[name]) for name in fit.estimates.index}), one["eta"].to_pandas()


def test_groups_and_dimensions(fit, idata):
    assert set(idata) == {"posterior", "log_likelihood", "observed_data"}
    assert list(idata.posterior.data_vars) == [*fit.estimates.index, "eta"]
    assert idata.posterior["eta"].dims == ("chain", "draw", "ID", "effect")
    assert idata.posterior["eta"].shape == (1, 600, 12, 3)
    assert list(idata.posterior["effect"].values) == ["ka", "CL", "V"]
    assert idata.log_likelihood["conc"].shape == (1, 600, fit.observations)
    assert idata.log_likelihood["subject"].dims == ("chain", "draw", "ID")
    assert "normal in unconstrained coordinates" in idata.posterior.attrs["approximation"]
    assert idata.posterior.attrs["method"] == "FOCE with interaction"
    assert idata.posterior.attrs["nlmefit_version"] == nm.__version__


def test_parameters_are_normal_around_the_estimates(fit, idata):
    logs = np.log(np.stack([idata.posterior[name].values[0] for name in fit.estimates.index]))
    spread = fit.uncertainty.unconstrained
    sd = np.sqrt(np.diag(spread))
    np.testing.assert_allclose(logs.mean(axis=1), np.log(fit.estimates), atol=4 * sd.max() / np.sqrt(600))
    np.testing.assert_allclose(np.corrcoef(logs), spread / np.outer(sd, sd), atol=0.16)
    np.testing.assert_allclose(logs.std(axis=1), sd, rtol=0.12)


def test_random_effects_move_with_the_parameters(fit, idata):
    """log CL_i is known almost as well as at known parameters; independent draws would have nearly twice that spread."""
    name = "CL"
    individual = np.log(idata.posterior[name]) + idata.posterior["eta"].sel(effect=name)
    conditional = np.sqrt(fit.eta_covariance[:, 1, 1])
    ratio = individual.std(("chain", "draw")).values / conditional
    apart = np.sqrt(conditional**2 + np.log(idata.posterior[name]).values.var()) / conditional
    assert np.median(ratio) < 1.15 < np.median(apart)
    np.testing.assert_allclose(individual.mean(("chain", "draw")), np.log(fit.individual[name]), atol=0.05)


def test_observations_against_scipy(fit, idata, data):
    model, eta = at_draw(fit, idata, 0, 7)
    real = data[data["EVID"] == 0] if "EVID" in data else data[data["AMT"].fillna(0) == 0]
    predicted = nm.predict(model, data, eta=eta).loc[real.index, "conc"]
    truth = norm.logpdf(real["DV"], predicted, model.values["conc_additive"])
    found = idata.log_likelihood["conc"].isel(chain=0, draw=7)
    np.testing.assert_allclose(found, truth, rtol=1e-9)
    np.testing.assert_array_equal(found["conc_ID"], real["ID"])
    np.testing.assert_array_equal(found["conc_TIME"], real["TIME"])
    np.testing.assert_array_equal(idata.observed_data["conc"], real["DV"])


def test_subjects_against_quadrature(fit, idata, data):
    model, _ = at_draw(fit, idata, 0, 3)
    truth = nm.evaluate(model, data, nm.Quadrature(nodes=7)).contributions["log_likelihood"]
    np.testing.assert_allclose(idata.log_likelihood["subject"][0, 3], truth, atol=0.4)
    repeated = replace(fit, uncertainty=None).to_arviz(2, inner=4000)
    truth = nm.evaluate(fit.model, data, nm.Quadrature(nodes=7)).contributions["log_likelihood"]
    np.testing.assert_allclose(repeated.log_likelihood["subject"][0, 1], truth, atol=0.03)


def test_without_a_covariance_it_says_so(fit):
    idata = replace(fit, uncertainty=None).to_arviz(400, inner=0)
    assert "the estimates repeated" in idata.posterior.attrs["approximation"]
    assert np.ptp(idata.posterior["CL"].values) == 0
    assert "subject" not in idata.log_likelihood
    sd = idata.posterior["eta"].std(("chain", "draw")).values
    np.testing.assert_allclose(sd, np.sqrt(np.diagonal(fit.eta_covariance, axis1=1, axis2=2)), rtol=0.15)


def test_the_key_decides_and_chunks_do_not(fit, idata, monkeypatch):
    monkeypatch.setattr(interop, "ROWS", 20_000)
    again = fit.to_arviz(600, key=1, inner=0)
    np.testing.assert_allclose(again.log_likelihood["conc"], idata.log_likelihood["conc"], rtol=1e-9)
    np.testing.assert_array_equal(again.posterior["CL"], idata.posterior["CL"])
    np.testing.assert_array_equal(again.posterior["eta"], idata.posterior["eta"])
    assert np.all(fit.to_arviz(600, key=2, inner=0).posterior["CL"] != idata.posterior["CL"])


@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
def test_arviz_reads_it(idata, tmp_path):
    table = az.summary(idata, var_names=["CL", "eta"], kind="stats")
    assert len(table) == 1 + 36
    for name in ("conc", "subject"):
        loo = az.loo(idata, var_name=name)
        assert np.isfinite(loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo)  # `elpd` since 1.0
    idata.to_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf")
    back = az.from_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf")
    np.testing.assert_array_equal(back.log_likelihood["conc"], idata.log_likelihood["conc"])
    assert back.posterior.attrs["approximation"] == idata.posterior.attrs["approximation"]


# ---- chains ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chains:
    """What a sampler's posterior has."""

    theta: dict[str, np.ndarray]
    z: np.ndarray


def sampled(fit, chains=2, draws=5):
    rng = np.random.default_rng(2)
    theta = {name: value * np.exp(0.1 * rng.normal(size=(chains, draws))) for name, value in fit.estimates.items()}
    posterior = Chains(theta, rng.normal(size=(chains, draws, 12, 3)))
    return replace(fit, found=replace(fit.found, posterior=posterior)), posterior


def test_chains_are_kept_as_they_are(fit):
    nuts, posterior = sampled(fit)
    idata = nuts.to_arviz(inner=0)
    assert idata.posterior.attrs["approximation"].startswith("none: draws from p(")
    for name in fit.estimates.index:
        np.testing.assert_allclose(idata.posterior[name], posterior.theta[name], rtol=1e-12)
    sds = np.stack([posterior.theta[f"omega_{name}"] for name in ("ka", "CL", "V")], axis=-1)
    np.testing.assert_allclose(idata.posterior["eta"], posterior.z * sds[:, :, None], rtol=1e-12)
    some = nuts.to_arviz(3, inner=10)
    np.testing.assert_allclose(some.posterior["CL"], posterior.theta["CL"][:, [0, 2, 4]], rtol=1e-12)
    assert some.log_likelihood["subject"].shape == (2, 3, 12)
    with pytest.raises(nm.MethodError, match="5 draws in each chain, draws=6"):
        nuts.to_arviz(6)


# ---- other models ----------------------------------------------------------------------------------------------------


def test_two_endpoints():
    example = examples()["pkpd"]
    idata = nm.evaluate(example.model, example.data, nm.FO()).to_arviz(2, inner=0)
    rows = example.data[example.data["EVID"] == 0]
    for number, name in enumerate(("cp", "effect"), start=1):
        np.testing.assert_array_equal(idata.observed_data[name], rows.loc[rows["DVID"] == number, "DV"])
        assert idata.log_likelihood[name].dims == ("chain", "draw", f"{name}_observation")


def test_counts_covariates_and_fixed_parameters():
    example = examples()["counts"]
    model = type(example.model)(ed50=nm.Theta(nm.Fixed(0.5), lower=0))
    idata = nm.evaluate(model, example.data, nm.Laplace()).to_arviz(2, inner=10)
    assert "ed50" not in idata.posterior
    assert float(idata.constant_data["ed50"]) == 0.5
    np.testing.assert_array_equal(idata.constant_data["DOSE"], example.data.groupby("ID")["DOSE"].first())
    assert np.all(np.isfinite(idata.log_likelihood["count"]))


def test_a_generative_model():
    X = np.random.default_rng(0).normal(size=(30, 4)) @ np.diag([1.0, 2.0, 1.0, 0.5])
    fit = nm.fit(gen.PPCA(latent=2), X, nm.Laplace())
    idata = replace(fit, uncertainty=None).to_arviz(2, inner=2000)
    np.testing.assert_allclose(idata.log_likelihood["subject"][0, 0], fit.model.log_prob(X), atol=0.05)
    np.testing.assert_array_equal(idata.observed_data["x"], X.ravel())


def test_no_random_effects(data):
    class Flat(nm.Model):
        a = nm.Theta(5.0, lower=0)
        conc = nm.Additive(2.0)

        def observe(self, t, A, p):
            return {"conc": p.a + 0.0 * t}

    fit = nm.fit(Flat(), data, nm.Laplace())
    idata = fit.to_arviz(3, inner=5)
    assert "eta" not in idata.posterior
    by_subject = idata.log_likelihood["conc"].groupby("conc_ID").sum()
    np.testing.assert_allclose(idata.log_likelihood["subject"], by_subject, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "match"), [({"draws": 0}, "draws must be"), ({"inner": 1.5}, "inner must be"), ({"key": "x"}, "key")]
)
def test_options_out_of_range(options, match, fit):
    with pytest.raises(nm.MethodError, match=match):
        fit.to_arviz(**options)


def test_without_arviz_it_says_what_to_install(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    monkeypatch.delitem(sys.modules, "nlmefit.interop.arviz")
    with pytest.raises(nm.NlmefitError, match="pip install arviz"):
        fit.to_arviz()
