"""Amortized variational inference against closed forms, and what it says of itself."""

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest
from models import examples

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.analysis.fit import bind
from nlmefit.core.errors import MethodError
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.variational.amortized import AmortizedVI
from nlmefit.estimate.variational.encoder import Reader, SetEncoder
from nlmefit.estimate.variational.wake_sleep import Trainer

SMALL = SetEncoder(width=16, depth=1)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(1)
    return rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=5) + 0.5 * rng.normal(size=(200, 5))


@pytest.fixture(scope="module")
def trained(matrix):
    return nm.fit(gen.PPCA(2), matrix, AmortizedVI(SMALL, steps=1500, batch=200, refine=False), progress=False)


def posterior(model, rows):
    """Exact mean and covariance of z."""
    M = model.weights.T @ model.weights + model.noise**2 * np.eye(model.latent)
    return np.linalg.solve(M, model.weights.T @ (rows - model.mean).T).T, model.noise**2 * np.linalg.inv(M)


def covariance(model):
    return model.weights @ model.weights.T + model.noise**2 * np.eye(len(model.mean))


def at(fit, data):
    return Problem(*bind(fit.model, data))


@pytest.mark.optimized
def test_near_the_closed_form_without_refinement(trained, matrix):
    exact = gen.PPCA(2).maximum_likelihood(matrix)
    best = exact.log_prob(matrix).sum()
    assert trained.status, trained.status
    assert trained.kind == "bound"
    assert best - 0.2 < trained.model.log_prob(matrix).sum() <= best + 1e-9
    assert best - 1.0 < trained.log_likelihood < best + 3 * trained.mc_se
    np.testing.assert_allclose(covariance(trained.model), covariance(exact), rtol=0, atol=0.05 * covariance(exact).max())
    assert list(trained.history.columns) == ["iteration", "bound", "draws"]
    assert len(trained.history) == 1500
    assert "not refined" in trained.conventions["bound"]


@pytest.mark.optimized
def test_refinement_ends_at_the_closed_form(matrix):
    """q holds the posterior here: the refined bound is log p(y) itself, each draw alike."""
    fit = nm.fit(gen.PPCA(2), matrix, AmortizedVI(SMALL, steps=200), progress=False)
    exact = gen.PPCA(2).maximum_likelihood(matrix)
    np.testing.assert_allclose(covariance(fit.model), covariance(exact), atol=1e-3)
    assert fit.log_likelihood == pytest.approx(exact.log_prob(matrix).sum(), abs=1e-5)
    mean, spread = posterior(fit.model, matrix)
    np.testing.assert_allclose(fit.eta, mean, atol=1e-5)
    np.testing.assert_allclose(fit.eta_covariance, np.tile(spread, (200, 1, 1)), atol=1e-5)
    assert fit.found.posterior.refined
    assert "amortization gap" in fit.conventions["bound"]
    assert fit.standard_errors.notna().all()


def test_posterior_of_new_subjects(trained, matrix):
    rng = np.random.default_rng(2)
    model = trained.model
    rows = rng.normal(size=(20, 2)) @ model.weights.T + model.mean + model.noise * rng.normal(size=(20, 5))
    encoded = trained.found.posterior.of(at(trained, rows))
    mean, spread = posterior(model, rows)
    sd = np.sqrt(np.diag(spread))
    assert np.all(np.abs(encoded.mean - mean) < 0.3 * sd)
    np.testing.assert_allclose(encoded.covariance, np.tile(spread, (20, 1, 1)), atol=0.2 * spread.max())
    assert not encoded.outside.any()
    assert encoded.warning == ""
    draws = encoded.draws(KEY, 4000)
    np.testing.assert_allclose(draws.mean(axis=0), encoded.mean, atol=5 * sd.max() / np.sqrt(4000))
    corrected = encoded.corrected(KEY)
    assert np.all(np.abs(corrected.log_likelihood - model.log_prob(rows)) < 5 * corrected.mc_se + 1e-3)
    np.testing.assert_allclose(corrected.posterior.mean, mean, atol=5 * sd.max() / np.sqrt(700))
    assert np.all(corrected.ess > 500)
    assert np.all(corrected.khat < 0.7)


def test_a_stranger_is_named(trained, matrix):
    rows = matrix[:4].copy()
    rows[2] *= 20
    encoded = trained.found.posterior.of(at(trained, rows))
    assert list(np.flatnonzero(encoded.outside)) == [2]
    assert encoded.warning.startswith("1 subject(s) are unlike any")
    assert ": 2." in encoded.warning


def test_same_key_same_answer(matrix):
    def fitted(key):
        return nm.fit(gen.PPCA(2), matrix[:40], AmortizedVI(SMALL, steps=60, batch=16, refine=False), key=key, progress=False)

    first, second, other = fitted(3), fitted(3), fitted(4)
    pd.testing.assert_series_equal(first.estimates, second.estimates, check_exact=True)
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)
    assert first.log_likelihood == second.log_likelihood
    assert first.log_likelihood != other.log_likelihood
    assert first.status.state == "uncertain"  # 60 steps are too few, and it says so


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("encoder", "mlp"),
        ("steps", 0),
        ("steps", 1e3),
        ("draws", 3),
        ("draws", 0),
        ("batch", True),
        ("rate", 0.0),
        ("rate", "fast"),
        ("refine", 1),
        ("simulated", -1.0),
        ("simulated", np.nan),
    ],
)
def test_options_are_refused(option, value):
    with pytest.raises(MethodError, match=f"{option} must be .*{value}"):
        AmortizedVI(**{option: value})


@pytest.mark.parametrize(("option", "value"), [("width", 0), ("depth", 1.5)])
def test_encoders_are_refused(option, value):
    with pytest.raises(MethodError, match=f"{option} must be .*{value}"):
        SetEncoder(**{option: value})


def test_no_random_effects_is_refused():
    class Line(nm.Model):
        slope = nm.Theta(1.0)

        def observe(self, t, A, p):
            return {"y": p.slope * t}

        y = nm.Additive(1.0)

    data = pd.DataFrame({"ID": [1, 1], "TIME": [1.0, 2.0], "DV": [1.0, 2.5]})
    with pytest.raises(MethodError, match="the model has none"):
        nm.fit(Line(), data, AmortizedVI(), progress=False)


def test_interrupted(matrix, monkeypatch):
    """Ctrl-C between two blocks of steps: what there is, and the truth about it."""
    run, blocks = Trainer.run, []

    def impatient(self, *arguments):
        for block in run(self, *arguments):
            yield block
            blocks.append(1)
            if len(blocks) == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", impatient)
    fit = nm.fit(gen.PPCA(2), matrix[:40], AmortizedVI(SMALL, steps=400, batch=16), progress=False)
    assert fit.status.state == "failed"
    assert fit.status.reasons[0].startswith("Interrupted")
    assert 0 < len(fit.history) < 400
    assert np.isfinite(fit.log_likelihood)
    assert np.isfinite(fit.found.posterior.draws(KEY, 3)).all()


def test_evaluate_estimates_nothing(matrix):
    exact = gen.PPCA(2).maximum_likelihood(matrix)
    fit = nm.evaluate(exact, matrix, AmortizedVI(SMALL, steps=200))
    assert fit.status.state == "evaluated"
    np.testing.assert_allclose(covariance(fit.model), covariance(exact), atol=1e-12)
    assert fit.log_likelihood == pytest.approx(exact.log_prob(matrix).sum(), abs=1e-6)


# ---- records ---------------------------------------------------------------------------------------------------------------


def encoder_and_problem(name):
    example = examples()[name]
    problem = Problem(*bind(example.model, example.data))
    reader = Reader.of(problem.subjects)
    one = jax.tree.map(lambda x: x[0], problem.subjects)
    network = SMALL.build(jax.eval_shape(reader, one), problem.q, KEY)
    noisy = jax.tree.map(lambda w: w + 0.1 * jax.random.normal(KEY, w.shape) if hasattr(w, "shape") else w, network)
    return reader, network, noisy, problem


@eqx.filter_jit
def read_all(reader, subjects):
    return jax.vmap(reader)(subjects)


@eqx.filter_jit
def encoded(network, record):
    return network(record)


@pytest.mark.parametrize("name", ["pkpd", "occasions", "turnover"])
def test_records_of_every_kind(name):
    """q starts as N(0, I); the answer for a subject does not depend on the order of its rows, nor on padding."""
    reader, network, noisy, problem = encoder_and_problem(name)
    record = read_all(reader, problem.subjects)
    assert np.isfinite(record.elements).all()
    assert np.isfinite(record.whole).all()
    real = np.asarray(record.real)
    numbers = np.asarray(record.elements)[real]
    assert np.abs(numbers.mean(axis=0)).max() < 1.5
    first = jax.tree.map(lambda x: x[0], record)
    mean, scale = encoded(network, first)
    np.testing.assert_array_equal(mean, np.zeros(problem.q))
    np.testing.assert_array_equal(scale, np.eye(problem.q))
    order = np.random.default_rng(0).permutation(len(first.real))
    shuffled = first._replace(elements=first.elements[order], real=first.real[order], kind=first.kind[order])
    longer = jax.tree.map(lambda x: np.concatenate([x, x[:1]]), (first.elements, first.real, first.kind))
    longer = first._replace(elements=longer[0], real=longer[1], kind=longer[2])
    longer = longer._replace(real=np.r_[np.asarray(first.real), False])
    for other in (shuffled, longer):
        for a, b in zip(encoded(noisy, first), encoded(noisy, other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["counts", *(pytest.param(n, marks=pytest.mark.slow) for n in ("turnover", "occasions"))])
def test_few_steps_of_other_models(name):
    """Differential equations, occasions, counts: training goes on, and raises the bound."""
    example = examples()[name]
    fit = nm.fit(example.model, example.data, AmortizedVI(SMALL, steps=40, draws=2, batch=4, refine=False), progress=False)
    assert np.isfinite(fit.history["bound"]).all()
    assert np.isfinite(fit.log_likelihood)
    assert "steps left out" not in fit.conventions


def test_restarted_at_other_values():
    example = examples()["theophylline"]
    problem = Problem(*bind(example.model, example.data))
    u = problem.coordinates.start() + 0.1
    np.testing.assert_allclose(problem.restarted(u).coordinates.start(), u, atol=1e-12)
    assert not np.allclose(problem.coordinates.start(), u)


# ---- theophylline ----------------------------------------------------------------------------------------------------------

BEST = {"log_likelihood": -180.3509, "omega_ka": 0.6363, "omega_CL": 0.2652, "omega_V": 0.13596}
"""By quadrature with 9 nodes."""


@pytest.mark.slow
@pytest.mark.parametrize("refine", [False, True])
def test_theophylline(refine):
    example = examples()["theophylline"]
    fit = nm.fit(example.model, example.data, AmortizedVI(refine=refine), progress=False)
    assert fit.status, fit.status
    referee = nm.log_marginal(fit, example.data, nm.Quadrature(nodes=9)).value
    assert abs(-2 * referee + 2 * BEST["log_likelihood"]) < 0.5
    for name in ("omega_ka", "omega_CL", "omega_V"):
        assert fit.estimates[name] == pytest.approx(BEST[name], rel=0.05)
    assert fit.log_likelihood < referee + 3 * fit.mc_se
    found = fit.found.posterior
    for what in ({"DV": 5.0}, {"TIME": 10.0}, {"AMT": 2.0}):
        (column, factor), *_ = what.items()
        assert found.of(at(fit, example.data.assign(**{column: example.data[column] * factor}))).outside.all()
    assert not found.of(at(fit, example.data)).outside.any()
    sparse = example.data.groupby("ID").nth([0, 3, 6, 9])
    few = found.of(at(fit, sparse))
    assert not few.outside.any()
    assert np.median(few.corrected(KEY).ess) > 500
