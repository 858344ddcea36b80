"""What every method must do: agree with the closed form where there is one, give the same answer for a key, stop if asked."""

import jax
import numpy as np
import pandas as pd
import pytest
from models import examples

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.analysis.fit import bind
from nlmefit.estimate.em import em
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem

DETERMINISTIC = {
    "VI": nm.VI(),
    "Laplace": nm.Laplace(),
    "quadrature": nm.Quadrature(nodes=3),
}
STOCHASTIC = {
    "SAEM": nm.SAEM(),
    "importance EM": nm.ImportanceEM(),
    "importance EM without modes": nm.ImportanceEM(modes=None, sequence="quasi", df=np.inf),
    "iterative two-stage": nm.ITS(),
}


class Lines(nm.Model):
    """y = a + eta_a + (b + eta_b) t + eps, a linear mixed model: its marginal likelihood is Gaussian."""

    a = nm.Normal(4.0, iiv=1.0)
    b = nm.Normal(-0.3, iiv=0.3, covariates=[nm.Linear("X", value=0.1)])
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


def lines():
    rng = np.random.default_rng(1)
    rows = []
    for who in range(40):
        x = rng.uniform(0, 2)
        a, b = 5 + rng.normal(), -0.5 * (1 + 0.3 * x) + 0.2 * rng.normal()
        rows += [(who, float(t), a + b * t + 0.4 * rng.normal(), x) for t in range(1 + who % 5, 8)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "X"])


@pytest.fixture(scope="module")
def exact():
    """FOCE is exact here, to the last digit."""
    return nm.fit(Lines(), lines(), nm.FOCE(interaction=True))


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_deterministic_methods_end_at_the_closed_form(method, exact):
    fit = nm.fit(Lines(), lines(), DETERMINISTIC[method])
    assert fit.status
    assert fit.log_likelihood == pytest.approx(exact.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(fit.estimates, exact.estimates, rtol=1e-4)
    assert nm.log_marginal(fit, lines(), nm.Quadrature(nodes=3)).value == pytest.approx(exact.log_likelihood, abs=1e-8)


def test_a_mean_field_bound_is_below(exact):
    """The best independent normals miss the posterior correlation, and know by how much."""
    fit = nm.fit(Lines(), lines(), nm.VI(family=nm.MeanField()))
    table = nm.compare({"mean field": fit, "exact": exact}, nm.Quadrature(nodes=3))
    assert table.loc["exact", "log_marginal"] == pytest.approx(exact.log_likelihood, abs=1e-8)
    gap = table.loc["mean field", "bound_gap"]
    assert gap > 0.5
    assert gap == pytest.approx(table.loc["mean field", "log_marginal"] - fit.log_likelihood)
    assert fit.kind == "bound"
    assert np.isnan(fit.ofv)
    assert "at least" in str(fit)
    tighter = nm.fit(Lines(), lines(), nm.VI(family=nm.MeanField(), weighted=50))
    assert fit.log_likelihood < tighter.log_likelihood < exact.log_likelihood


def test_a_flow_finds_a_normal_posterior(exact):
    """But for what its bends make of the points that it is fitted to."""
    fit = nm.fit(Lines(), lines(), nm.VI(family=nm.TriangularFlow(units=1), draws=256))
    assert exact.log_likelihood - 0.1 < fit.log_likelihood < exact.log_likelihood + 4 * fit.mc_se


@pytest.mark.parametrize("method", STOCHASTIC)
def test_stochastic_methods_end_within_their_error(method, exact):
    """The distance to the maximum in -2 log L, which is exact here, is less than what their status calls worthwhile (0.1)."""
    fit = nm.fit(Lines(), lines(), STOCHASTIC[method], key=3)
    assert fit.status, fit.status
    assert fit.log_likelihood == pytest.approx(exact.log_likelihood, abs=4 * fit.mc_se + 0.05)
    at = nm.log_marginal(fit, lines(), nm.Quadrature(nodes=3)).value
    assert exact.log_likelihood - 0.05 < at <= exact.log_likelihood + 1e-8
    np.testing.assert_allclose(fit.standard_errors, exact.standard_errors, rtol=0.2)


def test_louis_information_is_the_hessian(exact):
    """The information from complete-data derivatives against differences of the exact gradient."""
    problem = Problem(*bind(exact.model, lines()))
    u = problem.coordinates.start()
    points = exact.found.posterior.draws(jax.random.key(0), 4000)
    means = em.expected(problem, u, points, np.full(points.shape[:2], 1 / len(points)))
    objective = Objective(problem, nm.FOCE(interaction=True))

    def gradient(k, h):
        step = h * np.eye(len(u))[k]
        return (objective.contributions(u + step).gradient - objective.contributions(u - step).gradient).sum(axis=0) / (4 * h)

    hessian = np.array([gradient(k, 1e-4) for k in range(len(u))])
    scale = np.sqrt(np.diag(hessian))
    difference = (means.information.sum(axis=0) - hessian) / np.outer(scale, scale)
    assert np.abs(difference).max() < 0.15
    by_subject = objective.contributions(u).gradient
    np.testing.assert_allclose(-2 * means.score, by_subject, atol=0.25 * np.abs(by_subject).max())


@pytest.mark.parametrize("method", [nm.SAEM(burn_in=100, smooth=20), nm.ImportanceEM(draws=100, limit=20)], ids=lambda m: m.name)
def test_the_same_key_gives_the_same_answer(method):
    one, again = (nm.fit(Lines(), lines(), method, key=5) for _ in range(2))
    pd.testing.assert_series_equal(one.estimates, again.estimates)
    assert one.log_likelihood == again.log_likelihood
    other = nm.fit(Lines(), lines(), method, key=6)
    assert not np.array_equal(one.estimates, other.estimates)


def test_importance_sampling_of_ppca():
    X = np.random.default_rng(3).normal(size=(60, 5)) @ np.random.default_rng(4).normal(size=(5, 5))
    model = gen.PPCA(latent=2).maximum_likelihood(X)
    exact = model.log_prob(X)
    found = nm.log_marginal(model, X, nm.ImportanceSampling(error=0.05))
    assert found.kind == "estimate"
    assert found.mc_se <= 0.05
    assert found.value == pytest.approx(exact.sum(), abs=4 * found.mc_se)
    error = (found.per_subject["log_likelihood"] - exact) / found.per_subject["mc_se"]
    assert error.abs().max() < 5
    assert (found.per_subject["khat"] < 0.7).all()
    by_likelihood = nm.fit(gen.PPCA(latent=2), X, gen.MaximumLikelihood())
    assert by_likelihood.kind == "exact"
    assert by_likelihood.log_likelihood == pytest.approx(exact.sum(), abs=1e-6)


@pytest.mark.parametrize("method", [nm.SAEM(), nm.ImportanceEM(), nm.ITS()], ids=lambda m: m.name)
def test_interrupting_keeps_what_was_found(method, monkeypatch):
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr("nlmefit.core.progress.Progress.stage", stop)
    fit = nm.fit(Lines(), lines(), method)
    assert fit.status.state == "failed"
    assert "Interrupted" in str(fit.status)
    assert len(fit.history) >= 20


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nm.VI(family="full"), "family must be nm.FullRank"),
        (lambda: nm.VI(draws=7), "even whole number"),
        (lambda: nm.VI(weighted=0), "weighted must be"),
        (lambda: nm.SAEM(burn_in=3), "burn_in must be a whole number from 100 up, got 3"),
        (lambda: nm.ImportanceEM(df=1), "df must be above 2, got 1"),
        (lambda: nm.ImportanceEM(sequence="sobol"), "'random' or 'quasi'"),
        (lambda: nm.ITS(limit=0), "limit"),
        (lambda: nm.ImportanceSampling(draws=2), "draws"),
        (lambda: nm.TriangularFlow(units=0), "units"),
        (lambda: nm.log_marginal(Lines(), lines(), nm.FO()), "the method of log p\\(y\\) must be"),
        (lambda: nm.fit(Lines(), lines(), nm.FO(), key="a"), "key must be a whole number"),
        (lambda: nm.compare([]), "compare takes fits"),
        (lambda: nm.fit(Lines(), lines(), gen.MaximumLikelihood()), "computes log p.y. exactly"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(make, said):
    with pytest.raises(nm.NlmefitError, match=said):
        make()


def test_comparing_fits_of_different_data_is_refused():
    one = nm.evaluate(Lines(), lines(), nm.FO())
    other = nm.evaluate(Lines(), lines()[lambda d: d["ID"] > 3], nm.FO())
    with pytest.raises(nm.NlmefitError, match="different data"):
        nm.compare([one, other])


@pytest.mark.parametrize(
    "name", ["counts", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pkpd", "occasions", "turnover"))]
)
def test_saem_and_laplace_agree_on_other_models(name):
    """Counts, occasions, parameters without random effect and two endpoints: at SAEM's estimates the marginal likelihood is close
    to the best that Laplace's approximation finds."""
    example = examples()[name]
    fit = nm.fit(example.model, example.data, nm.SAEM(), key=1)
    other = nm.fit(example.model, example.data, nm.Laplace(covariance="none"))
    table = nm.compare({"saem": fit, "laplace": other})
    difference = table.loc["saem", "log_marginal"] - table.loc["laplace", "log_marginal"]
    assert difference > -0.5 - 3 * table["mc_se"].max(), (fit, other)


def test_a_posterior_fitted_to_its_points_is_told():
    fit = nm.fit(Lines(), lines(), nm.VI(family=nm.TriangularFlow(units=2), draws=8, covariance="none"))
    assert fit.status.state == "uncertain"
    assert "over the 8 points that the q_i were fitted to: give more, draws=32" in str(fit.status)


def test_more_points_are_taken_where_few_were_fitted_too_closely(monkeypatch):
    monkeypatch.setattr(nm.TriangularFlow, "draws", 8)
    fit = nm.fit(Lines(), lines(), nm.VI(family=nm.TriangularFlow(units=2), covariance="none"))
    assert fit.status, fit.status
    points = int(fit.conventions["points"].split()[0])
    assert points in (32, 128, 512)
    assert fit.conventions["points"].endswith("per subject: fewer were fitted too closely")
    assert fit.history["iteration"].is_monotonic_increasing and fit.history["iteration"].is_unique
    given = nm.fit(Lines(), lines(), nm.VI(family=nm.TriangularFlow(units=2), draws=points, covariance="none"))
    assert fit.log_likelihood == pytest.approx(given.log_likelihood, abs=1e-4)


def test_variational_omegas_are_not_shrunk():
    """Theophylline: the marginal likelihood of VI's estimates is quadrature's, and so are its omegas. Independent normals, on as
    few points as there can be, shrink omega_V by 15 % and omega_ka by 3 %."""
    example = examples()["theophylline"]
    best = nm.fit(example.model, example.data, nm.Quadrature(nodes=9, covariance="none"))
    fit = nm.fit(example.model, example.data, nm.VI(covariance="none"))
    found = nm.log_marginal(fit, example.data, nm.Quadrature(nodes=9))
    assert best.log_likelihood - 0.005 < found.value <= best.log_likelihood + 1e-4
    omegas = [name for name in best.estimates.index if name.startswith("omega")]
    np.testing.assert_allclose(fit.estimates[omegas], best.estimates[omegas], rtol=0.01)
    assert fit.log_likelihood + 3 * fit.mc_se < found.value
    independent = nm.fit(example.model, example.data, nm.VI(family=nm.MeanField(), draws=4, covariance="none"))
    shrunk = independent.estimates[omegas] / best.estimates[omegas] - 1
    assert shrunk["omega_V"] < -0.1
    assert shrunk["omega_ka"] < -0.02
    assert independent.log_likelihood < fit.log_likelihood - 2


@pytest.mark.slow
def test_a_flow_is_no_worse_than_the_normal_that_it_contains():
    """Theophylline: on independent draws too, that it was not fitted to."""
    example = examples()["theophylline"]
    normal, flow = (
        nm.fit(example.model, example.data, nm.VI(family=family, covariance="none"))
        for family in (nm.FullRank(), nm.TriangularFlow())
    )
    assert flow.log_likelihood > normal.log_likelihood - 3 * np.hypot(flow.mc_se, normal.mc_se)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["theophylline", "phenobarbital"])
def test_closing_steps_end_at_the_maximum(name):
    """Sparse data too: SAEM's stochastic approximation alone ends up to 0.24 in -2 log L short on phenobarbital."""
    example = examples()[name]
    best = nm.fit(example.model, example.data, nm.Quadrature(nodes=11, covariance="none"))
    for key in range(3):
        fit = nm.fit(example.model, example.data, nm.SAEM(covariance="none"), key=key)
        reached = nm.log_marginal(fit, example.data, nm.Quadrature(nodes=11)).value
        assert 2 * (best.log_likelihood - reached) < 0.03


def test_alternating_steps_never_lower_the_bound():
    """And lead to the optimum of the joint search."""
    example = examples()["theophylline"]
    method = nm.VI(alternating=True, covariance="none")
    fit = nm.fit(example.model, example.data, method, start={"CL": 5.0, "omega_ka": 0.2, "conc_additive": 2.0})
    joint = nm.fit(example.model, example.data, nm.VI(covariance="none"))
    assert fit.status, fit.status
    objective = fit.history["objective"].to_numpy()
    assert len(objective) > 10
    assert np.all(np.diff(objective) < 1e-9)
    assert objective[0] - objective[-1] > 50
    np.testing.assert_allclose(fit.estimates, joint.estimates, rtol=1e-4)


@pytest.mark.parametrize("family", [nm.FullRank(), nm.MeanField(), nm.TriangularFlow(units=1)], ids=lambda f: f.name)
def test_gradient_of_the_bound_against_central_differences(family):
    """The partial derivative at the best q_i is the whole one."""
    example = examples()["theophylline"]
    problem = Problem(*bind(example.model, example.data))
    objective = Objective(problem, nm.VI(family=family, draws=32))
    u = problem.coordinates.start() + 0.1 * np.random.default_rng(2).normal(size=problem.coordinates.size)
    gradient = objective.contributions(u).gradient.sum(axis=0)

    def central(k, h):
        step = h * np.eye(len(u))[k]
        return (objective.contributions(u + step).value.sum() - objective.contributions(u - step).value.sum()) / (2 * h)

    differences = np.array([(4 * central(k, 1e-3) - central(k, 2e-3)) / 3 for k in range(len(u))])
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())
