"""NUTS against posteriors in closed form and MAP against a penalized likelihood computed by itself."""

import jax
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist
from scipy.optimize import minimize
from scipy.stats import halfnorm, norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.analysis.fit import bind
from nlmefit.estimate.mcmc.mixing import effective_draws, judge_chains, r_hat
from nlmefit.estimate.mcmc.nuts import NUTS
from nlmefit.estimate.modes.map import MAP, penalty
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem

OMEGA, SIGMA = 1.2, 0.6


class KnownVariances(nm.Model):
    """y = a + eta + eps with known variances: the posterior of a and of every eta is normal."""

    a = nm.Normal(5.0, iiv=nm.Fixed(OMEGA), prior=dist.Normal(4.0, 0.8))

    def observe(self, t, A, p):
        return {"y": p.a + 0.0 * t}

    y = nm.Additive(nm.Fixed(SIGMA))


class Mixed(nm.Model):
    """The same with everything unknown."""

    a = nm.Normal(5.0, iiv=1.0, prior=dist.Normal(3.0, 0.5))

    def observe(self, t, A, p):
        return {"y": p.a + 0.0 * t}

    y = nm.Additive(0.5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    rows = [
        (i, t, value)
        for i in range(8)
        for level in [5 + OMEGA * rng.normal()]
        for t, value in enumerate(level + SIGMA * rng.normal(size=rng.integers(2, 6)))
    ]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


def gaussian_posterior(data):
    """Mean and covariance of (a, eta_1, ..., eta_N) given y."""
    subjects = data["ID"].unique()
    design = np.c_[np.ones(len(data)), data["ID"].to_numpy()[:, None] == subjects]
    prior = np.diag([1 / 0.8**2, *[1 / OMEGA**2] * len(subjects)])
    covariance = np.linalg.inv(prior + design.T @ design / SIGMA**2)
    return covariance @ (prior @ np.r_[4.0, np.zeros(len(subjects))] + design.T @ data["DV"] / SIGMA**2), covariance


@pytest.mark.parametrize("centred", [False, True])
def test_posterior_in_closed_form(data, centred):
    fit = nm.fit(KnownVariances(), data, NUTS(draws=1000, centred=centred), key=1, progress=False)
    assert fit.status, fit.status
    assert fit.conventions["chains"].endswith("non-centred random effects") is not centred
    mean, covariance = gaussian_posterior(data)
    sd = np.sqrt(np.diag(covariance))
    draws = fit.found.posterior
    a, eta = draws.theta["a"], draws.eta[..., 0]
    assert a.shape == (4, 1000)
    assert eta.shape == (4, 1000, 8)
    for x, m, s in zip([a, *np.moveaxis(eta, -1, 0)], mean, sd, strict=True):
        error = s / np.sqrt(effective_draws(x))
        assert abs(x.mean() - m) < 4 * error
        assert x.std() == pytest.approx(s, rel=0.1)
    assert fit.estimates["a"] == pytest.approx(a.mean(), abs=1e-12)
    assert fit.standard_errors["a"] == pytest.approx(a.std(), rel=1e-3)
    np.testing.assert_allclose(draws.z * OMEGA, draws.eta, atol=1e-12)
    np.testing.assert_allclose(fit.eta["a"], eta.mean(axis=(0, 1)), atol=1e-12)
    np.testing.assert_allclose(fit.eta_covariance[:, 0, 0], eta.var(axis=(0, 1)), rtol=1e-10)
    np.testing.assert_allclose(np.corrcoef(a.ravel(), eta[..., 0].ravel())[0, 1], covariance[0, 1] / sd[0] / sd[1], atol=0.1)


def test_the_interval_is_of_the_draws(data, tmp_path):
    fit = nm.fit(Mixed(), data, NUTS(warmup=100, draws=200, max_draws=200, chains=2), progress=False)
    table = fit.summary()
    for name, x in fit.found.posterior.report.items():
        np.testing.assert_allclose(table.loc[name, ["lower", "upper"]].astype(float), np.quantile(x, [0.025, 0.975]))
    assert all(title in str(fit) for title in ("mean", "2.5 %", "97.5 %", "R-hat", "ESS"))
    fit.save(tmp_path / "fit")
    assert str(nm.load(tmp_path / "fit")) == str(fit)
    fixed = nm.fit(KnownVariances(), data, NUTS(warmup=50, draws=20, max_draws=20, chains=1), progress=False).summary()
    assert np.isnan(fixed.loc["omega_a", "lower"])
    assert np.isfinite(fixed.loc["a", "lower"])


def marginal(data, a, omega, sigma):
    """log likelihood, from the joint normal of the observations: sigma^2 I + omega^2 11' has the eigenvalues sigma^2 and, once,
    sigma^2 + n omega^2."""
    total = 0.0
    for _, y in data.groupby("ID")["DV"]:
        n, common = len(y), sigma**2 + len(y) * omega**2
        squares = y.var(ddof=0) * n / sigma**2 + n * (y.mean() - a) ** 2 / common
        total += -0.5 * (squares + 2 * (n - 1) * np.log(sigma) + np.log(common) + n * np.log(2 * np.pi))
    return total


def log_prior(a, omega, sigma):
    """The declared prior of a, the default ones of the sds."""
    return norm.logpdf(a, 3.0, 0.5) + halfnorm.logpdf(omega, scale=2.0) + halfnorm.logpdf(sigma, scale=1.5)


@pytest.mark.parametrize("centred", [False, True])
def test_unknown_variances_against_a_grid(data, centred):
    """Jacobians of the variances, those of the centred random effects among them: moments by brute-force integration."""
    fit = nm.fit(Mixed(), data, NUTS(draws=1000, centred=centred, target_accept=0.95), key=2, progress=False)
    assert fit.status.state != "failed"
    grids = np.linspace(0.0, 7.0, 80), np.linspace(0.01, 8.0, 160), np.linspace(0.15, 4.0, 160)
    a, omega, sigma = np.meshgrid(*grids, indexing="ij")
    log_density = marginal(data, a, omega, sigma) + log_prior(a, omega, sigma)
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    for axis, name in enumerate(("a", "omega_a", "y_additive")):
        p = weight.sum(axis=tuple(k for k in range(3) if k != axis))
        mean = p @ grids[axis]
        sd = np.sqrt(p @ grids[axis] ** 2 - mean**2)
        x = fit.found.posterior.report[name]
        assert abs(x.mean() - mean) < 4 * sd / np.sqrt(effective_draws(x)), name
        assert x.std() == pytest.approx(sd, rel=0.12), name


def test_the_same_key_gives_the_same_answer(data):
    first, second, other = (
        nm.fit(Mixed(), data, NUTS(warmup=60, draws=20, max_draws=20, chains=2), key=k, progress=False) for k in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.found.posterior.theta["a"], second.found.posterior.theta["a"])
    assert first.log_likelihood == second.log_likelihood
    assert not np.any(first.found.posterior.theta["a"] == other.found.posterior.theta["a"])
    assert first.status.state == "uncertain"
    assert "wanted" in str(first.status)
    assert len(first.history) == 2 * 20


def test_chains_that_have_not_mixed_draw_on(data):
    """40 draws cannot hold the 100 effective ones that are wanted: up to four times as many."""
    fit = nm.fit(Mixed(), data, NUTS(warmup=60, draws=40, chains=2), progress=False)
    assert fit.found.posterior.theta["a"].shape == (2, 160)
    assert len(fit.history) == 2 * 160
    assert fit.conventions["chains"].startswith("2 of 160 draws")


def test_a_prior_narrower_than_the_parameter_keeps_it_within(data):
    narrow = Mixed(a=nm.Normal(5.0, iiv=1.0, prior=dist.Uniform(4.9, 5.1)))
    fit = nm.fit(narrow, data, NUTS(warmup=100, draws=50, max_draws=50, chains=1), progress=False)
    a = fit.found.posterior.theta["a"]
    assert 4.9 < a.min() < 4.95 < 5.05 < a.max() < 5.1
    with pytest.raises(nm.MethodError, match=r"a starts at 6\.0, where its prior"):
        nm.fit(narrow.at({"a": 6.0}), data, NUTS())
    with pytest.raises(nm.MethodError, match=r"a starts at 6\.0, where its prior"):
        nm.fit(narrow.at({"a": 6.0}), data, MAP(nm.FOCE()))


def test_vector_parameters_and_correlations():
    """PPCA has parameters that are vectors; at its posterior mode the mean's draws are around the data's."""
    X = np.random.default_rng(2).normal(size=(20, 3)) + np.array([1.0, 2.0, 3.0])
    fit = nm.fit(gen.PPCA(latent=1), X, NUTS(warmup=200, draws=100, max_draws=100, chains=2), progress=False)
    assert fit.found.posterior.theta["mean"].shape == (2, 100, 3)
    np.testing.assert_allclose(fit.found.posterior.theta["mean"].mean(axis=(0, 1)), X.mean(axis=0), atol=0.2)


class _Interrupt:
    """Progress that presses Ctrl-C at the first sign of a stage."""

    def __init__(self, stage):
        self.at = stage

    def __call__(self, iteration, point): ...

    def tick(self): ...

    def stage(self, text):
        if text.startswith(self.at):
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "said"), [("warmup", "in the warmup, after 1 of 30"), ("draws", "after 1 of 30 draws per chain")]
)
def test_interrupting_returns_what_there_is(data, stage, said):
    problem = Problem(*bind(Mixed(), data))
    found = NUTS(warmup=30, draws=30, chains=2).find(problem, _Interrupt(stage), jax.random.key(0))
    assert found.status.state == "failed"
    assert said in str(found.status)
    assert found.posterior.theta["a"].shape == (2, 1)
    assert np.all(np.isfinite(found.u))
    assert np.all(np.isfinite(found.value))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"warmup": 0}, "warmup must be a whole number from 1 up, got 0"),
        ({"draws": 2.5}, "draws must be a whole number from 1 up, got 2.5"),
        ({"draws": 50, "max_draws": 49}, "max_draws must be a whole number from 50 up, got 49"),
        ({"chains": True}, "chains must be a whole number from 1 up, got True"),
        ({"max_tree_depth": -1}, "max_tree_depth must be a whole number from 1 up, got -1"),
        ({"target_accept": 1.0}, "target_accept must be a number between 0 and 1, got 1.0"),
        ({"centred": "yes"}, "centred must be True, False or None"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(nm.MethodError, match=said):
        NUTS(**options)


def test_evaluate_is_laplace_at_the_start_values(data):
    fit = nm.evaluate(Mixed(), data, NUTS())
    assert fit.status.state == "evaluated"
    assert fit.log_likelihood == pytest.approx(marginal(data, 5.0, 1.0, 0.5), abs=1e-8)


# ---- whether chains have mixed -----------------------------------------------------------------------------------------------


def test_r_hat_and_effective_draws():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 1000))
    assert 0.999 < r_hat(good) < 1.006
    assert effective_draws(good) == pytest.approx(4000, rel=0.1)
    assert r_hat(np.exp(3 * good)) == pytest.approx(max(r_hat(good), 1.0), abs=5e-3)  # ranks: the scale does not matter
    assert r_hat(good + np.arange(4)[:, None]) > 1.3
    assert r_hat(good * [[1.0], [1.0], [1.0], [3.0]]) > 1.05  # apart in spread alone
    slow = np.cumsum(rng.normal(size=(4, 1000)), axis=1)
    assert effective_draws(slow) < 40
    assert r_hat(np.zeros((4, 100))) == np.inf
    assert np.isnan(r_hat(good[:, :3]))


def test_status_names_what_is_wrong():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 1000))
    assert judge_chains({"CL": good}, 0).state == "converged"
    assert "3 divergent" in str(judge_chains({"CL": good}, 3))
    bad = judge_chains({"CL": good, "V": good + np.arange(4)[:, None]}, 0)
    assert bad.state == "uncertain"
    assert "(V)" in str(bad)
    assert "(CL)" not in str(bad)
    assert "too few to judge" in str(judge_chains({"CL": good[:, :3]}, 0))
    assert judge_chains({"CL": good}, 0, "Interrupted.").state == "failed"


# ---- MAP ---------------------------------------------------------------------------------------------------------------------


def test_map_is_the_maximum_of_the_penalized_likelihood(data):
    fit = nm.fit(Mixed(), data, MAP(nm.FOCE(interaction=True, covariance="R")), progress=False)
    assert fit.status, fit.status
    best = minimize(lambda x: -2 * marginal(data, *x) - 2 * log_prior(*x), [5.0, 1.0, 0.5], method="Nelder-Mead",
                    options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000})  # fmt: skip
    np.testing.assert_allclose(fit.estimates, best.x, rtol=1e-4)
    at = fit.estimates.to_numpy()
    assert -2 * marginal(data, *at) - 2 * log_prior(*at) <= best.fun + 1e-8
    assert fit.log_likelihood == pytest.approx(marginal(data, *at), abs=1e-8)  # the likelihood's own, without the prior
    maximum = nm.fit(Mixed(a=nm.Normal(5.0, iiv=1.0)), data, nm.FOCE(interaction=True), progress=False)
    assert maximum.log_likelihood > fit.log_likelihood + 0.1
    assert fit.estimates["a"] < maximum.estimates["a"]  # drawn towards its prior


def test_what_only_the_prior_determines_is_converged_and_named(data):
    """A parameter without effect on the observations is at its prior's mode, with its prior's standard deviation; without a
    prior the same model is not called converged."""

    class Idle(nm.Model):
        a = nm.Normal(5.0, iiv=1.0)
        idle = nm.Theta(0.5, prior=dist.Normal(1.0, 0.3))

        def observe(self, t, A, p):
            return {"y": p.a + 0.0 * t * p.idle}

        y = nm.Additive(0.5)

    fit = nm.fit(Idle(), data, MAP(nm.FOCE(interaction=True)), progress=False)
    assert fit.status, fit.status
    assert "The data say nothing along idle, only the prior does." in str(fit.status)
    assert fit.estimates["idle"] == pytest.approx(1.0, abs=1e-4)
    assert fit.standard_errors["idle"] == pytest.approx(0.3, rel=1e-3)
    assert "with the prior" in fit.uncertainty.note
    without = nm.fit(Idle(idle=nm.Theta(0.5)), data, nm.FOCE(interaction=True), progress=False)
    assert without.status.state == "uncertain"


def test_map_standard_errors_are_the_curvature_with_the_prior(data):
    fit = nm.fit(Mixed(), data, MAP(nm.Laplace(covariance="R")), progress=False)
    x, H = fit.estimates.to_numpy(), np.zeros((3, 3))

    def density(v):  # in the coordinates of the search
        y = np.r_[v[0], np.exp(v[1:])]
        return -marginal(data, *y) - log_prior(*y)

    v, h = np.r_[x[0], np.log(x[1:])], 1e-3
    for i in range(3):
        for j in range(3):
            e, f = h * np.eye(3)[i], h * np.eye(3)[j]
            H[i, j] = (density(v + e + f) - density(v + e - f) - density(v - e + f) + density(v - e - f)) / (4 * h * h)
    slope = np.r_[1.0, x[1:]]
    np.testing.assert_allclose(fit.standard_errors, slope * np.sqrt(np.diag(np.linalg.inv(H))), rtol=1e-3)


def test_gradient_of_the_prior(data):
    problem = Problem(*bind(Mixed(), data))
    at = penalty(problem)
    u = problem.coordinates.start() + np.array([0.3, -0.2, 0.1])
    value, gradient = at(u)
    assert value == pytest.approx(-2 * log_prior(u[0], np.exp(u[1]), np.exp(u[2])), abs=1e-10)
    numerical = [(at(u + 1e-5 * e)[0] - at(u - 1e-5 * e)[0]) / 2e-5 for e in np.eye(3)]
    np.testing.assert_allclose(gradient, numerical, atol=1e-7)
    assert Objective(problem, nm.FOCE()).penalty(u)[0] == 0.0


def test_map_wraps_methods_only():
    with pytest.raises(nm.MethodError, match="MAP wraps a method that maximizes a marginal likelihood"):
        MAP(NUTS())
    assert MAP(nm.FOCE(interaction=True)).name == "MAP by FOCE with interaction"


# ---- a real model ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_theophylline_stays_in_its_mode_and_agrees_between_forms(theophylline):
    from models import Theophylline

    fits = [nm.fit(Theophylline(), theophylline, NUTS(draws=2000, target_accept=0.95, centred=c), progress=False)
            for c in (False, True)]  # fmt: skip
    for name in fits[0].estimates.index:
        a, b = (fit.found.posterior.report[name] for fit in fits)
        error = np.hypot(*(x.std() / np.sqrt(effective_draws(x)) for x in (a, b)))
        assert abs(a.mean() - b.mean()) < 4 * error, name
    assert all(fit.estimates["ka"] > 1.0 for fit in fits)
