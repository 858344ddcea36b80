"""Influence: against refits without a subject, closed forms of a normal mean, and ArviZ's smoothing."""

import importlib

import numpy as np
import pandas as pd
import pytest
from models import Theophylline, examples
from scipy import stats

import nlmefit as nm
from nlmefit.diagnostics.influence import _step, leave_one_out, smoothed
from nlmefit.estimate.referee.psis import khat


@pytest.fixture(scope="module")
def fitted():
    return nm.fit(Theophylline(), examples()["theophylline"].data, nm.FOCE(interaction=True), progress=False)


def test_against_refits(fitted):
    """The estimates without a subject: of one with much influence (9), of one with some (1), of one with little (8)."""
    data = examples()["theophylline"].data
    found = nm.diagnose(fitted, progress=False).influence
    assert {*found["cook"].nlargest(2).index} == {5, 9} and found["cook"].idxmin() == 8
    np.testing.assert_allclose(found["ofv"].sum(), fitted.ofv)
    se = fitted.standard_errors
    for who in (1, 8, 9):
        without = nm.fit(fitted.model, data[data["ID"] != who], nm.FOCE(interaction=True), progress=False)
        real = (without.estimates - fitted.estimates) / se
        told = found.loc[who, [f"change_{name}" for name in se.index]].to_numpy(float) / se.to_numpy()
        assert np.corrcoef(real, told)[0, 1] > 0.98
        large = np.abs(real) > 0.3
        assert np.all(np.sign(told[large]) == np.sign(real[large]))
        np.testing.assert_allclose(told, real, atol=0.2 * np.abs(real).max())


class Mean(nm.Model):
    """y = a + eta + eps with known variances: the mean's posterior is normal, and so is the likelihood."""

    a = nm.Normal(2.0, iiv=nm.Fixed(1.0))
    y = nm.Additive(nm.Fixed(0.5))

    def observe(self, t, A, p):
        return {"y": p.a + 0.0 * t}


def test_a_normal_mean_in_closed_form():
    rng = np.random.default_rng(2)
    size, times = 15, 3
    data = pd.DataFrame({"ID": np.repeat(np.arange(size), times), "TIME": np.tile(np.arange(times), size)})
    data["DV"] = 2 + np.repeat(rng.normal(size=size), times) + 0.5 * rng.normal(size=len(data))
    fit = nm.fit(Mean(), data, nm.FOCE(covariance="none"), progress=False)
    found = nm.diagnose(fit, progress=False).influence
    means, spread = data.groupby("ID")["DV"].mean().to_numpy(), 1 + 0.25 / times
    others = (means.sum() - means) / (size - 1)
    # of n equal curvatures half a one too few was taken away
    told = (others - fit.estimates["a"]) * (size - 1) / (size - 0.5)
    np.testing.assert_allclose(found["change_a"], told, atol=1e-6)
    np.testing.assert_allclose(found["cook"], np.abs(told) / np.sqrt(spread / size), atol=1e-5)
    # y_i given the others: N(mean of the others, Z Omega Z' + sigma^2 I + variance of that mean)
    covariance = (1 + spread / (size - 1)) * np.ones((times, times)) + 0.25 * np.eye(times)
    values = data["DV"].to_numpy().reshape(size, times)
    exact = [stats.multivariate_normal(np.full(times, m), covariance).logpdf(y) for m, y in zip(others, values)]
    np.testing.assert_allclose(found["log_predictive"], exact, atol=0.1)
    assert (found["khat"] < 0.7).all()


def psis_of_arviz(log_weights):
    """ArviZ's smoothed log weights and Pareto index; since 1.0 it takes log likelihoods left out, and turns their sign itself."""
    arviz = pytest.importorskip("arviz")
    if "psislw" in vars(arviz):
        return arviz.psislw(log_weights)
    return importlib.import_module("arviz_stats.base").array_stats.psislw(-log_weights)


def test_smoothing_is_that_of_arviz():
    rng = np.random.default_rng(4)
    for k in (0.2, 0.6, 0.9):
        log_weights = k * rng.exponential(size=1000)
        theirs, index = psis_of_arviz(log_weights)
        own = khat(log_weights[:, None])[0]
        ours = smoothed(log_weights, own)
        np.testing.assert_allclose(own, index, atol=0.02)
        ours = ours - np.logaddexp.reduce(ours)
        order = np.argsort(log_weights)
        np.testing.assert_allclose(ours[order], theirs[order], atol=0.1)


def test_weights_that_do_not_vary():
    found = leave_one_out(np.tile([-1.0, -3.0], (200, 1)))
    np.testing.assert_allclose(found.log_predictive, [-1.0, -3.0])


def test_a_draw_without_a_likelihood_counts_for_nothing():
    rng = np.random.default_rng(5)
    log_density = -1 + 0.3 * rng.normal(size=(400, 2))
    spoiled = np.vstack([log_density, [[np.nan, -1.0]]])
    np.testing.assert_allclose(leave_one_out(spoiled).log_predictive, leave_one_out(log_density).log_predictive)


def test_other_methods_take_laplace():
    """A fit by EM has no gradients of its own: those of Laplace's approximation, which is exact here."""
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"ID": np.repeat(np.arange(12), 2), "TIME": np.tile([0.0, 1.0], 12)})
    data["DV"] = 2 + np.repeat(rng.normal(size=12), 2) + 0.5 * rng.normal(size=24)
    one = nm.diagnose(nm.fit(Mean(), data, nm.FOCE(), progress=False), progress=False).influence
    other = nm.diagnose(nm.fit(Mean(), data, nm.ImportanceEM(), progress=False), progress=False).influence
    np.testing.assert_allclose(other["change_a"], one["change_a"], atol=0.02)


def test_of_other_data(fitted):
    data = examples()["theophylline"].data
    with pytest.raises(nm.NlmefitError, match="influence is that of the fit's own subjects"):
        _ = nm.diagnose(fitted, data[data["ID"] < 5], progress=False).influence


def test_a_direction_without_curvature_gives_no_number():

    step = _step(np.diag([1.0, -1.0]), np.ones(2))
    assert np.isnan(step).all()
    np.testing.assert_allclose(_step(np.diag([2.0, 4.0]), np.ones(2)), [0.5, 0.25])
