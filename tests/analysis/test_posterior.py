"""`nm.posterior` against the closed form of linear-Gaussian models, for fits of every kind."""

import jax
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.analysis.fit import bind
from nlmefit.analysis.posterior import random_effects
from nlmefit.estimate.problem import Problem


class Lines(nm.Model):
    """y = a + eta_a + (b + eta_b) t + eps."""

    a = nm.Normal(4.0, iiv=1.0)
    b = nm.Normal(-0.3, iiv=0.3)
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


def lines(seed, subjects):
    rng = np.random.default_rng(seed)
    rows = []
    for who in range(subjects):
        a, b = 4 + rng.normal(), -0.3 + 0.3 * rng.normal()
        rows += [(f"s{who}", float(t), a + b * t + 0.5 * rng.normal()) for t in range(1 + who % 4, 6)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


def closed_form(model, data):
    """By subject: E[eta | y], Cov[eta | y] and log p(y), from the joint normal distribution."""
    v = model.values
    a, b = v["omega_a"], v["omega_b"]
    omega = np.array([[a**2, v["corr_a_b"] * a * b], [v["corr_a_b"] * a * b, b**2]])
    mean, covariance, value = [], [], []
    for _, own in data.groupby("ID", sort=False):
        Z = np.c_[np.ones(len(own)), own["TIME"]]
        r = own["DV"].to_numpy() - Z @ [v["a"], v["b"]]
        V = Z @ omega @ Z.T + v["y_additive"] ** 2 * np.eye(len(own))
        gain = omega @ Z.T @ np.linalg.inv(V)
        mean.append(gain @ r)
        covariance.append(omega - gain @ Z @ omega)
        value.append(-0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(V)[1] + len(own) * np.log(2 * np.pi)))
    return np.array(mean), np.array(covariance), np.array(value)


def assert_closed_form(found, model, data):
    """Mean, covariance and log p(y) within Monte Carlo error: standard errors are those of `ess` independent draws, with the
    normal distribution's fourth moments."""
    mean, covariance, value = closed_form(model, data)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    error = 1 / np.sqrt(found.ess.to_numpy())
    assert np.all(np.abs(found.mean - mean) < 4.5 * sd * error[:, None])
    product = sd[:, :, None] * sd[:, None, :]
    fourth = np.sqrt(product**2 + covariance**2) * error[:, None, None]
    assert np.all(np.abs(found.arrays.covariance - covariance) < 4.5 * fourth)
    assert np.all(np.abs(found.log_likelihood - value) < 4.5 * found.mc_se)
    np.testing.assert_allclose(found.mode, mean, atol=1e-6)
    np.testing.assert_allclose(found.sd**2, np.diagonal(found.arrays.covariance, axis1=1, axis2=2))
    assert found.warning == ""


@pytest.fixture(scope="module")
def fitted():
    return nm.fit(Lines(), lines(1, 30), nm.FOCE(interaction=True), progress=False)


def test_the_fits_own_subjects_and_new_ones(fitted):
    for data in (lines(1, 30), lines(2, 8)):
        found = nm.posterior(fitted, data, draws=2000)
        assert_closed_form(found, fitted.model, data)
        assert (found.ess > 3000).all()
        assert (found.khat < 0.5).all()


def test_draws_have_the_posteriors_moments(fitted):
    data = lines(2, 8)
    found = nm.posterior(fitted, data, draws=4000)
    assert found.draws.index.names == ["ID", "draw"]
    assert list(found.draws.columns) == ["a", "b"]
    mean, covariance, _ = closed_form(fitted.model, data)
    for i, (who, own) in enumerate(found.draws.groupby(level="ID", sort=False)):
        assert who == f"s{i}"
        sd = np.sqrt(np.diag(covariance[i]))
        assert np.all(np.abs(own.mean() - mean[i]) < 4.5 * sd / np.sqrt(found.ess.iloc[i]))
        np.testing.assert_allclose(own.cov(), covariance[i], atol=0.1 * sd.max() ** 2)
        assert len(own.drop_duplicates()) > 0.7 * len(own)


def test_one_key_one_answer(fitted):
    data = lines(2, 3)
    one, again, other = (nm.posterior(fitted, data, draws=5, key=key) for key in (3, 3, 4))
    pd.testing.assert_frame_equal(one.draws, again.draws)
    assert not np.array_equal(one.draws, other.draws)


def test_a_model_and_arrays(fitted):
    """At a model's own values; the array-level function gives the same numbers."""
    data = lines(2, 3)
    found = nm.posterior(fitted.model, data, draws=7)
    arrays = random_effects(fitted, Problem(*bind(fitted.model, data)), 7, jax.random.key(0))
    assert arrays.eta.shape == (7, 3, 2)
    np.testing.assert_array_equal(arrays.eta[:, 1], found.draws.loc["s1"])


def test_own_draws_of_nuts(fitted):
    """Its own subjects' draws hold theta's uncertainty; of new subjects the posterior is that at the estimates."""
    data = lines(1, 30)
    fit = nm.fit(fitted.model, data, nm.NUTS(warmup=300, draws=300, max_draws=300, chains=2), progress=False)
    own = nm.posterior(fit, data, draws=200)
    np.testing.assert_allclose(own.mean, fit.eta, atol=1e-12)
    drawn = fit.found.posterior.eta.reshape(-1, 30, 2)
    assert all(np.any(np.isclose(drawn[:, 4, 0], x, atol=1e-12)) for x in own.draws.loc["s4", "a"])
    at_estimates = nm.posterior(fit.model, data)
    assert own.sd["a"].mean() > at_estimates.sd["a"].mean()
    assert 50 < own.ess.min() < own.ess.max()
    pd.testing.assert_series_equal(own.mode["a"], at_estimates.mode["a"])
    changed = data.assign(DV=data["DV"] + (data["ID"] == "s0"))
    assert_closed_form(nm.posterior(fit, changed), fit.model, changed)


@pytest.fixture(scope="module")
def encoder():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=5) + 0.5 * rng.normal(size=(200, 5))
    method = nm.AmortizedVI(nm.SetEncoder(width=16, depth=1), steps=600, batch=200, refine=False)
    return nm.fit(gen.PPCA(2), X, method, progress=False)


def of_ppca(model, rows):
    M = model.weights.T @ model.weights + model.noise**2 * np.eye(model.latent)
    return np.linalg.solve(M, model.weights.T @ (rows - model.mean).T).T, model.noise**2 * np.linalg.inv(M)


def rows_of(model, count):
    rng = np.random.default_rng(5)
    return rng.normal(size=(count, 2)) @ model.weights.T + model.mean + model.noise * rng.normal(size=(count, 5))


def test_an_encoder_proposes_without_a_search(encoder, monkeypatch):
    model = encoder.model
    rows = rows_of(model, 20)
    with monkeypatch.context() as m:
        m.setattr("nlmefit.analysis.conditional.modes", pytest.fail)
        found = nm.posterior(encoder, rows)
    mean, covariance = of_ppca(model, rows)
    error = np.sqrt(np.diag(covariance)) / np.sqrt(found.ess.to_numpy()[:, None])
    assert np.all(np.abs(found.mean - mean) < 4.5 * error)
    assert np.all(np.abs(found.log_likelihood - model.log_prob(rows)) < 4.5 * found.mc_se + 1e-9)
    np.testing.assert_allclose(found.mode, mean, atol=1e-6)
    assert found.warning == ""


def test_a_stranger_is_named_and_answered_for(encoder):
    """The proposal is then around the mode, and right here."""
    rows = rows_of(encoder.model, 4)
    rows[2] *= 20
    found = nm.posterior(encoder, rows)
    assert "1 subject(s) are unlike any that the encoder was trained on" in found.warning
    assert found.warning in str(found)
    mean, covariance = of_ppca(encoder.model, rows)
    assert np.all(np.abs(found.mean - mean) < 4.5 * np.sqrt(np.diag(covariance)) / np.sqrt(found.ess.to_numpy()[:, None]))
    assert found.khat.iloc[2] < 0.7


def test_occasions_that_a_subject_lacks_are_missing():
    class Visits(nm.Model):
        base = nm.Normal(10.0, iiv=1.0, iov=0.5)
        occasion = "VISIT"

        def observe(self, t, A, p):
            return {"y": p.base + 0.0 * t}

        y = nm.Additive(0.5)

    data = pd.DataFrame({"ID": [1, 1, 2, 3, 3], "VISIT": [1, 2, 2, 1, 3], "TIME": [0.0, 1, 0, 0, 1], "DV": [9.0, 11, 10, 12, 9]})
    found = nm.posterior(Visits(), data, draws=3)
    reference = nm.evaluate(Visits(), data, nm.FO()).eta
    assert reference.isna().to_numpy().sum() == 1  # one subject has a single visit, the others two
    for table in (found.mean, found.sd, found.mode):
        pd.testing.assert_frame_equal(table.isna(), reference.isna())
    assert found.draws.groupby(level="ID", sort=False).count().eq(0).equals(reference.isna())


@pytest.mark.parametrize("draws", [0, 2.5, True])
def test_refused(fitted, draws):
    with pytest.raises(nm.MethodError, match="draws must be a whole number from 1 up"):
        nm.posterior(fitted, lines(2, 2), draws=draws)


def test_no_random_effects():
    class Flat(nm.Model):
        a = nm.Theta(1.0)
        y = nm.Additive(1.0)

        def observe(self, t, A, p):
            return {"y": p.a + 0.0 * t}

    with pytest.raises(nm.MethodError, match="has no random effects"):
        nm.posterior(Flat(), lines(2, 2))


def test_a_loaded_fit(fitted, tmp_path):
    fitted.save(tmp_path / "fit")
    data = lines(2, 3)
    with pytest.raises(nm.ModelError, match="loaded without its model"):
        nm.posterior(nm.load(tmp_path / "fit"), data)
    loaded = nm.load(tmp_path / "fit", model=Lines())
    pd.testing.assert_frame_equal(nm.posterior(loaded, data).draws, nm.posterior(fitted, data).draws)


def test_a_patient_before_the_first_sample_has_the_prior():
    class Bolus(nm.Model):
        CL = nm.LogNormal(5.0, iiv=0.3)
        V = nm.LogNormal(40.0)
        dynamics = nm.OneCompartment()

        def observe(self, t, A, p):
            return {"conc": A.central / p.V}

        conc = nm.Proportional(0.1)

    new = pd.DataFrame({"ID": 1, "TIME": [0, 12.0], "EVID": [1, 0], "AMT": [100.0, 0], "DV": [None, None]})
    for data in (new, new.drop(columns="DV")):
        found = nm.posterior(Bolus(), data, 4000)
        assert found.mean.loc[1, "CL"] == pytest.approx(0, abs=0.02)
        assert found.sd.loc[1, "CL"] == pytest.approx(0.3, rel=0.05)
        assert found.log_likelihood[1] == pytest.approx(0, abs=0.01)
    with pytest.raises(nm.DataError, match="E110"):
        nm.evaluate(Bolus(), new, nm.Laplace())
