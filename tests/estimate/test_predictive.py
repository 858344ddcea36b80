"""One step ahead: exact conditionals of linear-Gaussian models, the chain rule, counts by brute force, and honest errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from models import PKPD, Counts, Theophylline, Turnover, examples
from numpyro import distributions as dist
from scipy import stats

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.analysis.fit import bind
from nlmefit.analysis.one_step_ahead import one_step_ahead
from nlmefit.estimate.observations import Order, cdf, through
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee import sequential_importance
from nlmefit.estimate.referee.predictive import SequentialImportance
from nlmefit.latent.program import Site

COLUMNS = ["ID", "TIME", "endpoint", "observed", "log_predictive", "mean", "sd", "pit", "mc_se", "ess"]


class RandomSlopes(nm.Model):
    """y = (a + eta_a) + (b + eta_b) t + eps, correlated intercepts and slopes; w = intercept + eps."""

    a = nm.Normal(5.2, iiv=1.1)
    b = nm.Normal(-0.5, iiv=0.25)
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t, "w": p.a + 0 * t}

    y = nm.Additive(0.6)
    w = nm.Additive(1.5)


MODEL = RandomSlopes().at({"corr_a_b": -0.4})
OMEGA = np.array([[1.1**2, -0.4 * 1.1 * 0.25], [-0.4 * 1.1 * 0.25, 0.25**2]])


def slopes():
    """Subjects with 1 to 9 observations; w is seen at some times, before or after y."""
    rng = np.random.default_rng(11)
    rows = []
    for i in range(15):
        eta = np.linalg.cholesky(OMEGA) @ rng.normal(size=2)
        for t in np.sort(rng.uniform(0, 8, size=rng.integers(1, 7))):
            y = (f"p{i}", t, 5.2 + eta[0] + (-0.5 + eta[1]) * t + 0.6 * rng.normal(), 1)
            w = (f"p{i}", t, 5.2 + eta[0] + 1.5 * rng.normal(), 2)
            rows += [[y], [w, y], [y, w]][rng.integers(3)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "DVID"]).set_index(pd.Index(np.arange(len(rows)) * 10))


def sequential(y, m, V):
    """log density, mean and sd of each of y given those before: with V = L L', the mean is y - L_jj e_j, e = L^-1 (y - m)."""
    L = np.linalg.cholesky(V)
    e = np.linalg.solve(L, y - m)
    return pd.DataFrame({"log_predictive": stats.norm.logpdf(e) - np.log(np.diag(L)), "mean": y - np.diag(L) * e,
                         "sd": np.diag(L), "pit": stats.norm.cdf(e)})  # fmt: skip


def exact(data):
    found = []
    for _, rows in data.groupby("ID", sort=False):
        Z = np.c_[np.ones(len(rows)), np.where(rows["DVID"] == 1, rows["TIME"], 0.0)]
        V = Z @ OMEGA @ Z.T + np.diag(np.where(rows["DVID"] == 1, 0.6, 1.5) ** 2)
        found.append(sequential(rows["DV"].to_numpy(), Z @ [5.2, -0.5], V))
    return pd.concat(found).set_index(data.index)


def run(model, data, *args, **options):
    return one_step_ahead(model, data, *args, progress=False, **options)


def check_sampled(found, expected):
    error = found["log_predictive"] - expected["log_predictive"]
    assert np.all(np.abs(error) < 5 * found["mc_se"] + 1e-9)
    assert np.max(np.abs(found["mean"] - expected["mean"]) / expected["sd"]) < 0.12
    np.testing.assert_allclose(found["sd"] / expected["sd"], 1.0, atol=0.12)
    np.testing.assert_allclose(found["pit"], expected["pit"], atol=0.05)


# ---- linear and Gaussian ---------------------------------------------------------------------------------------------


def test_laplace_is_exact_in_a_linear_model():
    data = slopes()
    found, expected = run(MODEL, data, nm.Laplace()), exact(data)
    assert list(found.columns) == COLUMNS
    for column in expected:
        np.testing.assert_allclose(found[column], expected[column], atol=1e-8, rtol=0)


def test_weighted_draws_in_a_linear_model():
    data = slopes()
    found = run(MODEL, data)
    check_sampled(found, exact(data))
    assert found["mc_se"].max() < 0.05 and found["ess"].min() > 100
    # one row per record, in its order and under its label
    assert list(found.index) == list(data.index)
    np.testing.assert_array_equal(found["observed"], data["DV"])
    np.testing.assert_array_equal(found["TIME"], data["TIME"])
    assert list(found["ID"]) == list(data["ID"])
    assert list(found["endpoint"]) == ["y" if k == 1 else "w" for k in data["DVID"]]


def test_monte_carlo_errors_are_what_they_say():
    data = slopes()
    expected = exact(data)["log_predictive"]
    runs = [run(MODEL, data, SequentialImportance(500), key=k) for k in range(12)]
    error = np.array([r["log_predictive"] - expected for r in runs])
    claimed = np.array([r["mc_se"] for r in runs])
    assert 0.85 < np.sqrt(np.mean(error**2) / np.mean(claimed**2)) < 1.15


def test_components_that_are_added_leave_the_answer_as_it_is(monkeypatch):
    monkeypatch.setattr(sequential_importance, "ENOUGH", 0.5)
    data = slopes()
    check_sampled(run(MODEL, data), exact(data))


def test_principal_components():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 5)) + 0.4 * rng.normal(size=(12, 5)) + np.arange(5)
    model = gen.PPCA(latent=2).maximum_likelihood(X)
    V = model.weights @ model.weights.T + model.noise**2 * np.eye(5)
    expected = pd.concat([sequential(x, model.mean, V) for x in X], ignore_index=True)
    laplace, sampled = run(model, X, nm.Laplace()), run(model, X)
    for column in expected:
        np.testing.assert_allclose(laplace[column], expected[column], atol=1e-8, rtol=0)
    check_sampled(sampled, expected)
    np.testing.assert_allclose(laplace.groupby("ID")["log_predictive"].sum(), model.log_prob(X), atol=1e-8)
    assert list(sampled["TIME"][:5]) == [0, 1, 2, 3, 4] and set(sampled["endpoint"]) == {"x"}


# ---- the chain rule --------------------------------------------------------------------------------------------------


class SlopesInX(nm.Model):
    """A line in the covariate X, which is given at every record: time is but the order of the observations."""

    a = nm.Normal(5.2, iiv=1.1)
    b = nm.Normal(-0.5, iiv=0.25)

    def observe(self, t, A, p):
        return {"y": p.a + p.b * p.X}

    y = nm.Additive(0.6)


def test_a10_the_sum_does_not_depend_on_the_order_of_the_observations():
    """Of a linear-Gaussian model to 1e-10, though every term but a few is another one."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"ID": np.repeat(range(6), 5), "TIME": np.tile(np.arange(5.0), 6), "X": rng.uniform(0, 8, 30)})
    data["DV"] = 5.2 + np.repeat(1.1 * rng.normal(size=6), 5) - 0.5 * data["X"] + 0.6 * rng.normal(size=30)
    order = np.concatenate([5 * i + rng.permutation(5) for i in range(6)])
    other = data.assign(X=data["X"].to_numpy()[order], DV=data["DV"].to_numpy()[order])
    first, second = (nm.one_step_ahead(SlopesInX(), d, nm.Laplace(), progress=False) for d in (data, other))
    sums = [found.groupby("ID")["log_predictive"].sum() for found in (first, second)]
    np.testing.assert_allclose(*sums, atol=1e-10)
    assert np.max(np.abs(first["log_predictive"].to_numpy()[order] - second["log_predictive"].to_numpy())) > 0.1


@pytest.mark.parametrize("name", ["theophylline", "counts", "pkpd", pytest.param("turnover", marks=pytest.mark.slow)])
def test_the_sum_is_the_log_marginal(name):
    example = examples()[name]
    found = run(example.model, example.data)
    total = found.groupby("ID", sort=False)["log_predictive"].sum()
    referee = nm.log_marginal(example.model, example.data, nm.ImportanceSampling(draws=4000), progress=False).per_subject
    bound = np.sqrt((found["mc_se"] ** 2).groupby(found["ID"], sort=False).sum() + referee["mc_se"] ** 2)
    assert np.all(np.abs(total - referee["log_likelihood"]) < 4 * bound)
    assert bound.max() < 0.3 and found["ess"].min() >= 90
    assert found["pit"].between(0, 1).all()


@pytest.mark.parametrize("name", ["theophylline", "counts"])
def test_the_sum_by_laplace_is_laplaces(name):
    example = examples()[name]
    total = run(example.model, example.data, nm.Laplace()).groupby("ID", sort=False)["log_predictive"].sum()
    expected = nm.evaluate(example.model, example.data, nm.Laplace()).contributions["log_likelihood"]
    np.testing.assert_allclose(total, expected, atol=1e-7)


class Stepped(Theophylline):
    """The same amounts by differential equations in steps."""

    solver = nm.RungeKutta(rtol=1e-8, atol=1e-10)

    def dynamics(self, t, A, p):
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.CL / p.V * A.central}


@pytest.mark.parametrize("method", [nm.Laplace(), SequentialImportance(250)], ids=["Laplace", "draws"])
def test_a_model_solved_in_steps_gives_what_its_closed_form_does(method):
    data = examples()["theophylline"].data.query("ID < 3").assign(CMT=1)
    stepped, closed = run(Stepped(), data, method), run(Theophylline(), data, method)
    pd.testing.assert_frame_equal(stepped.drop(columns="ess"), closed.drop(columns="ess"), rtol=0, atol=1e-4)


# ---- observations held out -------------------------------------------------------------------------------------------


def test_after_a_time():
    data = slopes()
    expected = exact(data)
    late = data["TIME"] > 4.0
    for method in (nm.Laplace(), SequentialImportance()):
        found = run(MODEL, data, method, after_time=4.0)
        assert list(found.index) == list(data.index[late])
        assert np.all(np.abs(found["log_predictive"] - expected["log_predictive"][late]) < 5 * found["mc_se"] + 1e-8)
    given = {"progress": False, "key": 3}
    left = nm.log_marginal(MODEL, data, nm.Quadrature(nodes=1), **given).per_subject["log_likelihood"]
    first = nm.log_marginal(MODEL, data[~late], nm.Quadrature(nodes=1), **given).per_subject["log_likelihood"]
    by_laplace = run(MODEL, data, nm.Laplace(), after_time=4.0).groupby("ID")["log_predictive"].sum()
    both = by_laplace.index.intersection(first.index)
    assert len(both) > 5
    np.testing.assert_allclose(by_laplace[both], (left - first)[both], atol=1e-8)


def test_after_some_observations():
    example = examples()["theophylline"]
    found = run(Theophylline(), example.data, after_observations=5)
    whole = run(Theophylline(), example.data, SequentialImportance(8000))
    rest = whole[whole.groupby("ID").cumcount() >= 5]
    assert list(found.index) == list(rest.index)
    assert np.all(np.abs(found["log_predictive"] - rest["log_predictive"]) < 5 * np.hypot(found["mc_se"], rest["mc_se"]))
    pd.testing.assert_frame_equal(
        run(Theophylline(), example.data, nm.Laplace(), after_observations=5),
        run(Theophylline(), example.data, nm.Laplace()).loc[rest.index],
        atol=1e-8,
    )


# ---- counts, endpoints, failures -------------------------------------------------------------------------------------


def test_counts_against_brute_force():
    """One random effect: every average over p(z | y before) on a fine grid."""
    data = examples()["counts"].data
    found = run(Counts(), data, SequentialImportance(4000))
    z = np.linspace(-8, 8, 4001)
    for _, rows in data.groupby("ID"):
        weight = stats.norm.pdf(z)
        weight /= weight.sum()
        for label, row in rows.iterrows():
            rate = 3 * np.exp(0.5 * z) * (1 - row["DOSE"] / (row["DOSE"] + 0.5))
            p = stats.poisson.pmf(row["DV"], rate)
            mean, at_most, exactly = weight @ rate, weight @ stats.poisson.cdf(row["DV"], rate), weight @ p
            sd = np.sqrt(weight @ (rate + rate**2) - mean**2)
            got = found.loc[label]
            assert abs(got["log_predictive"] - np.log(exactly)) < 5 * got["mc_se"] + 1e-6
            assert got["mean"] == pytest.approx(mean, abs=0.05 * sd) and got["sd"] == pytest.approx(sd, rel=0.05)
            assert at_most - exactly - 0.02 < got["pit"] < at_most + 0.02
            weight = weight * p / exactly


def test_distribution_functions_without_a_formula_are_summed():
    value = jnp.array([0, 2, 5])
    everywhere = jnp.ones(3, bool)
    binomial = Site(dist.Binomial(6, jnp.array([0.1, 0.4, 0.7])), value, everywhere)
    np.testing.assert_allclose(cdf(binomial), stats.binom.cdf(value, 6, [0.1, 0.4, 0.7]), atol=1e-12)
    wide = Site(dist.NegativeBinomial2(3.0, 2.0).expand((3,)), value, everywhere)
    np.testing.assert_allclose(cdf(wide), stats.nbinom.cdf(value, 2.0, 2.0 / 5.0), atol=1e-6)
    category = Site(dist.Categorical(jnp.array([[0.2, 0.3, 0.5]] * 3)), jnp.array([0, 1, 2]), everywhere)
    np.testing.assert_allclose(cdf(category), [0.2, 0.5, 1.0], atol=1e-12)


def test_a_draw_that_fails_counts_for_nothing():
    rng = np.random.default_rng(0)
    log_density = rng.normal(size=(200, 3))
    given = (np.zeros(200), np.zeros((200, 2)), np.zeros(200, int), np.ones(3, bool))
    weigh = jax.jit(sequential_importance.weigh)
    good = weigh(*given, log_density, log_density, np.ones((200, 3)), np.ones((200, 3)))
    extended = [np.concatenate([x, np.full((50, 3), np.nan)]) for x in (log_density, log_density, np.ones((200, 3)))]
    given = (np.zeros(250), np.zeros((250, 2)), np.zeros(250, int), np.ones(3, bool))
    found = weigh(*given, *extended, extended[2])
    np.testing.assert_allclose(found.mean, good.mean)
    np.testing.assert_allclose(found.sd, good.sd)
    np.testing.assert_allclose(found.log_predictive, good.log_predictive + np.array([np.log(200 / 250), 0, 0]))


def test_prefixes_have_the_shape_of_the_whole_data():
    example = examples()["pkpd"]
    problem = Problem(*bind(PKPD(), example.data))
    order = Order.of(problem)
    cut = through(problem, order, 3)
    assert np.all(cut.data.observations == 3)
    np.testing.assert_array_equal(cut.subjects.lengths(), problem.subjects.lengths())
    assert sum(int(cut.subjects.mask[name].sum()) for name in order.sites) == 3 * problem.size


def test_a_fit_and_its_model_give_the_same_numbers_and_the_key_decides():
    example = examples()["theophylline"]
    fit = nm.evaluate(Theophylline(), example.data, nm.FO())
    first = run(fit, example.data, key=1)
    pd.testing.assert_frame_equal(first, run(Theophylline(), example.data, key=1))
    assert not np.allclose(first["log_predictive"], run(Theophylline(), example.data, key=2)["log_predictive"], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": nm.FOCE()}, nm.MethodError, r"must be nm.SequentialImportance\(draws=...\) or nm.Laplace\(\), got FOCE"),
        ({"method": nm.Laplace}, nm.MethodError, "Laplace is a class; pass a value"),
        ({"method": nm.Laplace(interaction=False)}, nm.MethodError, "reads the density"),
        ({"model": Turnover}, nm.ModelError, r"Turnover is a class; pass an instance: Turnover\(\)"),
        ({"after_time": 1e3}, nm.DataError, "after_time=1000.0 leaves no observation to score: the last is at TIME 24.65"),
        ({"after_observations": 11}, nm.DataError, "leaves no observation to score: no subject has more than 11"),
        ({"after_time": 1.0, "after_observations": 1}, nm.MethodError, "not both"),
        ({"after_time": "soon"}, nm.MethodError, "after_time must be a number, got 'soon'"),
        ({"after_observations": 1.5}, nm.MethodError, "after_observations must be a whole number from 0 up, got 1.5"),
        ({"data": examples()["theophylline"].data.query("EVID == 1")}, nm.DataError, "there is no observation"),
    ],
)
def test_errors(change, error, message):
    arguments = {"model": Theophylline(), "data": examples()["theophylline"].data} | change
    with pytest.raises(error, match=message):
        run(**arguments)


def test_errors_of_matrices_and_options():
    with pytest.raises(nm.DataError, match="the rows of a matrix have no times; use after_observations="):
        run(gen.PPCA(latent=1), np.random.default_rng(0).normal(size=(5, 3)), after_time=1.0)
    with pytest.raises(nm.MethodError, match="draws must be a whole number from 100 up, got 10"):
        SequentialImportance(10)
