"""Prediction errors: of simulated data uniform, of a wrong model not; in a linear model the innovations themselves.

Replicates of a study are so many groups of subjects in one data set, so that one call serves all.
"""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist
from scipy import stats

import nlmefit as nm
from nlmefit.diagnostics import npde as module

SUBJECTS = 10
TIMES = np.array([0.5, 2.0, 4.0, 7.0])


class Lines(nm.Model):
    """y = a + eta_a + (b + eta_b) t + eps."""

    a = nm.Normal(5.0, iiv=1.0)
    b = nm.Normal(-0.5, iiv=0.2)

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


class Decay(nm.Model):
    """y = C exp(-k t) (1 + eps): nonlinear, with proportional error."""

    C = nm.LogNormal(10.0, iiv=0.4)
    k = nm.LogNormal(0.3, iiv=0.4)

    def observe(self, t, A, p):
        return {"y": p.C * jnp.exp(-p.k * t)}

    y = nm.Proportional(0.2)


class Counts(nm.Model):
    rate = nm.LogNormal(2.0, iiv=0.5)

    def observe(self, t, A, p):
        return {"n": dist.Poisson(p.rate + 0.0 * t)}


def panel(draw, replicates, seed):
    """`draw(rng)` the observations of one subject at TIMES."""
    rng = np.random.default_rng(seed)
    size = replicates * SUBJECTS
    values = np.concatenate([draw(rng) for _ in range(size)])
    return pd.DataFrame({"ID": np.repeat(np.arange(size), len(TIMES)), "TIME": np.tile(TIMES, size), "DV": values})


def line(rng):
    return 5 + rng.normal() + (-0.5 + 0.2 * rng.normal()) * TIMES + 0.5 * rng.normal(size=len(TIMES))


def decay(rng):
    C, k = 10 * np.exp(0.4 * rng.normal()), 0.3 * np.exp(0.4 * rng.normal())
    return C * np.exp(-k * TIMES) * (1 + 0.2 * rng.normal(size=len(TIMES)))


def counts(rng):
    return rng.poisson(2 * np.exp(0.5 * rng.normal()), size=len(TIMES)).astype(float)


def diagnosed(model, data, method=None, **options):
    return nm.diagnose(nm.evaluate(model, data, method or nm.FOCE(interaction=True)), progress=False, **options)


def rejected(uniform, ids, subjects=SUBJECTS):
    """The share of replicates whose Kolmogorov-Smirnov test of uniformity has p < 0.05."""
    groups = pd.Series(np.asarray(uniform)).groupby(np.asarray(ids) // subjects)
    return np.mean([stats.kstest(own, "uniform").pvalue < 0.05 for _, own in groups])


MANY = pytest.mark.parametrize("replicates", [40, pytest.param(200, marks=pytest.mark.slow)])


def all_uniform(diagnostics, columns, replicates):
    """3 to 7 % of 200 replicates rejected; of fewer, no more than happens once in a thousand times."""
    low, high = (0.03, 0.07) if replicates == 200 else (0.0, stats.binom.ppf(0.999, replicates, 0.05) / replicates)
    ids = diagnostics.residuals["ID"]
    for name in columns:
        values = diagnostics.pit if name == "PIT" else stats.norm.cdf(diagnostics.prediction_errors[name])
        assert low <= rejected(values, ids) <= high, (name, rejected(values, ids))


@MANY
def test_uniform_in_a_linear_model(replicates):
    """NPDE and PIT of one subject are independent there. NPD are not: of each time by itself they are."""
    diagnostics = diagnosed(Lines(), panel(line, replicates, 1))
    all_uniform(diagnostics, ["NPDE", "NPDE_inverse", "PIT"], replicates)
    errors, time = diagnostics.prediction_errors, diagnostics.residuals["TIME"]
    for t in TIMES:
        assert stats.kstest(stats.norm.cdf(errors["NPD"][time == t]), "uniform").pvalue > 0.01
    within = errors["NPD"].to_numpy().reshape(-1, len(TIMES))
    assert np.corrcoef(within.T)[0, 1] > 0.5
    for name in ("NPDE", "NPDE_inverse"):
        correlation = np.corrcoef(errors[name].to_numpy().reshape(-1, len(TIMES)).T)
        assert np.abs(correlation - np.eye(len(TIMES))).max() < 4 / np.sqrt(replicates * SUBJECTS)


@MANY
def test_uniform_in_a_nonlinear_model(replicates):
    all_uniform(diagnosed(Decay(), panel(decay, replicates, 2)), ["NPDE", "PIT"], replicates)


@pytest.mark.parametrize(
    "wrong", [{"omega_a": 0.4}, {"y_additive": 0.9}, {"a": 4.2}], ids=["small omega", "large residual error", "wrong mean"]
)
def test_a_wrong_model_is_rejected(wrong):
    """In studies of 50 subjects, and beyond doubt in all together. (A wrong omega shows in the first NPDE of a subject only.)"""
    diagnostics = diagnosed(Lines().at(wrong), panel(line, 100, 3), draws=300)
    for uniform in (stats.norm.cdf(diagnostics.prediction_errors["NPDE"]), diagnostics.pit):
        assert rejected(uniform, diagnostics.residuals["ID"], 50) >= 0.3
        assert stats.kstest(uniform, "uniform").pvalue < 1e-6


def test_innovations_of_a_linear_model():
    """With many draws NPDE is L^-1 (y - m), Cov = L L', and with the symmetric root WRES, to Monte Carlo error."""
    data = panel(line, 1, 4)
    diagnostics = diagnosed(Lines(), data, draws=40_000)
    found = diagnostics.prediction_errors
    Z = np.c_[np.ones(len(TIMES)), TIMES]
    covariance = Z @ np.diag([1.0, 0.04]) @ Z.T + 0.25 * np.eye(len(TIMES))
    off = data["DV"].to_numpy().reshape(-1, len(TIMES)) - Z @ [5.0, -0.5]
    expected = np.linalg.solve(np.linalg.cholesky(covariance), off.T).T.ravel()
    near = np.abs(expected) < 2
    np.testing.assert_allclose(found["NPDE"][near], expected[near], atol=0.06)
    wres = diagnostics.residuals["WRES"].to_numpy()
    near = np.abs(wres) < 2
    np.testing.assert_allclose(found["NPDE_inverse"][near], wres[near], atol=0.06)
    npd = (off / np.sqrt(np.diag(covariance))).ravel()
    near = np.abs(npd) < 2
    np.testing.assert_allclose(found["NPD"][near], npd[near], atol=0.06)


def censored(data, limit):
    low = data["DV"] < limit
    return data.assign(CENS=low * 1, DV=data["DV"].where(~low, limit))


@MANY
def test_uniform_with_observations_below_a_limit(replicates):
    """A third of them: by the interval's probabilities, and exchanged in the simulations alike."""
    data = censored(panel(line, replicates, 5), 2.5)
    assert 0.2 < data["CENS"].mean() < 0.4
    diagnostics = diagnosed(Lines(), data, nm.Laplace())
    all_uniform(diagnostics, ["NPDE", "PIT"], replicates)
    frame = diagnostics.residuals.assign(**diagnostics.prediction_errors)
    for t in TIMES:
        own = frame[frame["TIME"] == t]
        assert stats.kstest(stats.norm.cdf(own["NPD"]), "uniform").pvalue > 0.01
        # pd of a censored observation is at most P(Y < limit), here known
        top = stats.norm.cdf((2.5 - (5 - 0.5 * t)) / np.sqrt(1 + 0.04 * t**2 + 0.25))
        assert stats.norm.cdf(own.loc[own["CENS"] == 1, "NPD"]).max() < top + 0.06


def test_intervals_above_a_limit_and_between_two():
    """CENS -1, and LIMIT below: each observation's place lies between those of its interval's ends."""
    data = panel(line, 10, 6)
    high = data["DV"] > 5.5
    between = (data["DV"] < 3) & (data["DV"] > 1)
    data = data.assign(
        CENS=np.select([high, between], [-1, 1], 0),
        LIMIT=np.where(between, 1.0, np.nan),
        DV=data["DV"].mask(high, 5.5).mask(between, 3.0),
    )
    diagnostics = diagnosed(Lines(), data, nm.Laplace(), draws=2000)
    place = stats.norm.cdf(diagnostics.prediction_errors["NPD"])
    time = data["TIME"].to_numpy()
    sd = np.sqrt(1 + 0.04 * time**2 + 0.25)
    below = {end: stats.norm.cdf((end - (5 - 0.5 * time)) / sd) for end in (1.0, 3.0, 5.5)}
    assert np.all(place[high] > below[5.5][high] - 0.05)
    assert np.all((place > below[1.0] - 0.05)[between] & (place < below[3.0] + 0.05)[between])
    assert diagnostics.prediction_errors["NPDE"].notna().all()


def test_counts_are_placed_and_not_decorrelated():
    diagnostics = diagnosed(Counts(), panel(counts, 40, 7), nm.Laplace())
    errors, time = diagnostics.prediction_errors, diagnostics.residuals["TIME"]
    for t in TIMES:
        assert stats.kstest(stats.norm.cdf(errors["NPD"][time == t]), "uniform").pvalue > 0.01
    assert errors[["NPDE", "NPDE_inverse"]].isna().all(axis=None)


def test_blocks_of_subjects(monkeypatch):
    """Bounded memory: subjects in blocks, each observation placed among simulations of its own subject."""
    data = panel(line, 2, 8)
    whole = diagnosed(Lines(), data, draws=2000).prediction_errors
    monkeypatch.setattr(module, "NUMBERS", 2000 * len(TIMES) * 3)
    parts = diagnosed(Lines(), data, draws=2000).prediction_errors
    assert not np.array_equal(whole["NPD"], parts["NPD"])
    assert np.corrcoef(whole["NPD"], parts["NPD"])[0, 1] > 0.995


def test_one_key_one_answer():
    data = panel(line, 1, 9)
    one, again, other = (diagnosed(Lines(), data, key=key).frame for key in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert not np.array_equal(one["NPDE"], other["NPDE"])
