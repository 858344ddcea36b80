"""The visual predictive check's numbers: against NumPy, theory, and the formula of the prediction correction."""

import sys

import jax
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.diagnostics.percentiles import quantiles
from nlmefit.estimate.problem import Problem
from nlmefit.simulation.replicates import replicates

TIMES = np.array([0.0, 1.0, 2.0, 4.0, 8.0])


class Line(nm.Model):
    """Linear and normal."""

    a = nm.Normal(10.0, iiv=2.0)
    b = nm.Normal(1.0, iiv=0.3)

    def observe(self, t, A, p):
        return {"y": p.SCALE * (p.a + p.b * t)}

    y = nm.Additive(1.0, unit="mg/L")


def data(seed=0, subjects=30, limit=None):
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(1, subjects + 1), len(TIMES))
    time, scale = np.tile(TIMES, subjects), np.where(ids % 2, 1.0, 2.0)
    a, b = (np.repeat(m + s * rng.normal(size=subjects), len(TIMES)) for m, s in ((10.0, 2.0), (1.0, 0.3)))
    y = scale * (a + b * time) + rng.normal(size=len(ids))
    frame = pd.DataFrame({"ID": ids, "TIME": time, "DV": y, "SCALE": scale, "ARM": np.where(ids % 2, "low", "high")})
    return frame if limit is None else frame.assign(CENS=(y < limit) * 1, DV=np.maximum(y, limit))


@pytest.fixture(scope="module")
def fit():
    return nm.evaluate(Line(), data(), nm.FO())


def simulated(check_of, draws, key=0):
    """The data sets that the check is made from, in the order of the records."""
    latent, laid_out = bind(check_of.model, check_of.data)
    problem = Problem(latent, laid_out)
    found = replicates(problem, problem.coordinates.start(), draws, jax.random.key(key))["y"]
    return found.reshape(draws, -1)


def test_percentiles_are_those_of_numpy(fit):
    found = nm.vpc(fit, draws=60, bins=[0, 0.5, 3, 8])
    frame, sets = data(), simulated(fit, 60)
    bins = {0: TIMES[:1], 1: TIMES[1:3], 2: TIMES[3:]}
    for b, times in bins.items():
        here = np.isin(frame["TIME"], times)
        expected = np.quantile(sets[:, here], (0.05, 0.5, 0.95), axis=1)
        own = found.percentiles[found.percentiles["bin"] == b]
        assert own["observed"].to_numpy() == pytest.approx(np.quantile(frame["DV"][here], (0.05, 0.5, 0.95)), rel=1e-12)
        assert own["simulated"].to_numpy() == pytest.approx(np.median(expected, axis=1), rel=1e-12)
        assert own["lower"].to_numpy() == pytest.approx(np.quantile(expected, 0.05, axis=1), rel=1e-12)
        assert own["upper"].to_numpy() == pytest.approx(np.quantile(expected, 0.95, axis=1), rel=1e-12)
        assert (own["count"] == here.sum()).all()
        assert (own["TIME"] == np.median(frame["TIME"][here])).all()
    assert found.beyond.empty
    assert found.proportions.empty


def test_prediction_correction_is_the_formula(fit):
    found = nm.vpc(fit, draws=40, bins=[0, 3, 8], corrected=True)
    frame, sets = data(), simulated(fit, 40)
    pred = (frame["SCALE"] * (10.0 + frame["TIME"])).to_numpy()
    for b, here in enumerate((frame["TIME"].to_numpy() < 3, frame["TIME"].to_numpy() >= 3)):
        factor = np.median(pred[here]) / pred[here]
        own = found.percentiles[found.percentiles["bin"] == b]
        expected = np.quantile(frame["DV"].to_numpy()[here] * factor, (0.05, 0.5, 0.95))
        assert own["observed"].to_numpy() == pytest.approx(expected, rel=1e-12)
        middles = np.median(np.quantile(sets[:, here] * factor, (0.05, 0.5, 0.95), axis=1), axis=1)
        assert own["simulated"].to_numpy() == pytest.approx(middles, rel=1e-12)


def test_correction_narrows_what_differs_by_design(fit):
    """Two arms, one with twice the response: corrected, their percentiles are no further apart than in one arm."""

    def width(table):
        wide = table.pivot(index="bin", columns="probability", values="simulated")
        return (wide[0.95] - wide[0.05]).mean()

    plain, corrected = (nm.vpc(fit, draws=100, corrected=c).percentiles for c in (False, True))
    assert width(corrected) < 0.6 * width(plain)


def test_about_nine_in_ten_observed_percentiles_lie_inside(fit):
    inside = []
    for seed in range(60):
        table = nm.vpc(fit, data(seed + 1), draws=200, bins=[0, 0.5, 1.5, 3, 6, 8], key=seed).percentiles
        inside.append(((table["observed"] >= table["lower"]) & (table["observed"] <= table["upper"])).mean())
    # 900 percentiles, correlated within a data set: the mean's standard error is that between data sets
    error = np.std(inside) / np.sqrt(len(inside))
    assert abs(np.mean(inside) - 0.9) < 4 * error
    assert error < 0.03


def test_a_wrong_model_is_seen(fit):
    wrong = nm.evaluate(Line().at({"a": 18.0}), data(), nm.FO())
    table = nm.vpc(wrong, draws=100).percentiles
    median = table[table["probability"] == 0.5]
    assert (median["observed"] < median["lower"]).all()


def test_strata_are_checked_by_themselves(fit):
    found = nm.vpc(fit, draws=40, bins=1, strata="ARM")
    frame, sets = data(), simulated(fit, 40)
    assert list(found.percentiles["stratum"].unique()) == ["high", "low"]
    for arm in ("high", "low"):
        here = (frame["ARM"] == arm).to_numpy()
        own = found.percentiles[found.percentiles["stratum"] == arm]
        assert own["observed"].to_numpy() == pytest.approx(np.quantile(frame["DV"][here], (0.05, 0.5, 0.95)), rel=1e-12)
        assert own["simulated"].iloc[1] == pytest.approx(np.median(np.median(sets[:, here], axis=1)), rel=1e-12)


def test_the_same_key_gives_the_same_and_memory_is_bounded(fit, monkeypatch):
    whole = nm.vpc(fit, draws=30, key=4)
    monkeypatch.setattr(sys.modules["nlmefit.diagnostics.vpc"], "NUMBERS", 1000)  # a few data sets at a time
    pd.testing.assert_frame_equal(nm.vpc(fit, draws=30, key=4).percentiles, whole.percentiles)
    assert not nm.vpc(fit, draws=30, key=5).percentiles["simulated"].equals(whole.percentiles["simulated"])


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited():
    return nm.evaluate(Line(), data(limit=12.0), nm.Laplace())


def test_shares_below_the_limit(limited):
    found = nm.vpc(limited, draws=50, bins=[0, 0.5, 3, 8])
    frame, sets = data(limit=12.0), simulated(limited, 50)
    assert (found.beyond["limit"] == 12.0).all()
    for b, (low, high) in enumerate(((0, 0), (1, 2), (4, 8))):
        here = frame["TIME"].between(low, high).to_numpy()
        own = found.beyond[found.beyond["bin"] == b].iloc[0]
        assert own["observed"] == pytest.approx(frame["CENS"][here].mean())
        shares = (sets[:, here] < 12.0).mean(axis=1)
        ends = own[["simulated", "lower", "upper"]].to_numpy(float)
        assert ends == pytest.approx(np.quantile(shares, (0.5, 0.05, 0.95)), rel=1e-12)


def test_percentiles_are_shown_where_they_are_known(limited):
    table = nm.vpc(limited, draws=50, bins=[0, 0.5, 3, 8]).percentiles
    uncensored, frame = data(), data(limit=12.0)
    for row in table.to_dict("records"):
        here = frame["TIME"].between(row["start"], row["end"], inclusive="left" if row["bin"] < 2 else "both").to_numpy()
        truth = np.quantile(uncensored["DV"][here], row["probability"])
        if np.isfinite(row["observed"]):
            assert row["observed"] == pytest.approx(truth, rel=1e-12)
        else:
            assert row["observed"] == -np.inf
            assert truth < frame["DV"][here & (frame["CENS"] == 0)].min()
    assert np.isneginf(table["observed"]).any()
    assert np.isfinite(table["observed"]).any()


def test_what_was_left_out_of_the_fit_is_checked_too():
    frame = data(limit=12.0)
    left_out = nm.evaluate(Line(), nm.Subjects.from_frame(frame, Line(), blq="M1"), nm.Laplace())
    found = nm.vpc(left_out, draws=20)
    assert len(found.observations) == len(frame) > left_out.observations
    assert not found.beyond.empty


def test_values_above_a_limit():
    frame = data()
    frame = frame.assign(CENS=-1 * (frame["DV"] > 25), DV=frame["DV"].clip(upper=25.0))
    found = nm.vpc(nm.evaluate(Line(), frame, nm.Laplace()), draws=20, bins=1)
    assert found.beyond["side"].tolist() == ["above"]
    assert found.beyond["observed"].iloc[0] == pytest.approx((frame["CENS"] == -1).mean())
    assert np.isposinf(found.percentiles["observed"].iloc[-1])


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_quantiles_are_numpys_and_know_infinity(size):
    rng = np.random.default_rng(size)
    values, p = rng.normal(size=(5, size)), np.array([0.05, 0.3, 0.5, 0.95])
    assert quantiles(values, p) == pytest.approx(np.quantile(values, p, axis=1).T, rel=1e-12)
    hidden = np.where(values < 0, -np.inf, values)
    found, truth = quantiles(hidden, p), np.quantile(values, p, axis=1).T
    known = np.isfinite(found)
    assert found[known] == pytest.approx(truth[known], rel=1e-12)
    assert np.isneginf(found[~known]).all()
    assert np.isnan(quantiles(np.array([[1.0, np.nan]]), p)).all()


# ---- counts ----------------------------------------------------------------------------------------------------------


class Counts(nm.Model):
    rate = nm.LogNormal(1.0, iiv=0.4)

    def observe(self, t, A, p):
        return {"count": dist.Poisson(p.rate * (1 + t))}


@pytest.mark.parametrize("most", [3, 40])
def test_proportions_of_counts(most):
    rng = np.random.default_rng(1)
    time = np.tile([0.0, 1.0, 9.0], 40)
    value = np.minimum(rng.poisson(np.repeat(np.exp(0.4 * rng.normal(size=40)), 3) * (1 + time)), most)
    frame = pd.DataFrame({"ID": np.repeat(np.arange(40), 3), "TIME": time, "DV": value})
    found = nm.vpc(nm.evaluate(Counts(), frame, nm.Laplace()), draws=100).proportions
    assert found["category"].nunique() <= 6
    if most == 3:
        expected = [(value[time == t] == k).mean() for t in (0, 1, 9) for k in range(4)]
        assert found["observed"].to_numpy() == pytest.approx(expected)
    else:  # ranges of values hold everything
        assert found.groupby("bin")["observed"].sum().to_numpy() == pytest.approx(1.0)
        inside = (found["observed"] >= found["lower"]) & (found["observed"] <= found["upper"])
        assert inside.mean() > 0.8


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bins": "many"}, nm.DataError, '"auto"'),
        ({"bins": 0}, nm.DataError, "from 1 up"),
        ({"bins": [0, 4]}, nm.DataError, "leave out 30 observations"),
        ({"bins": [4, 0]}, nm.DataError, "increase"),
        ({"strata": "ARMS"}, nm.DataError, "did you mean `ARM`"),
        ({"strata": "DV"}, nm.DataError, "150 values"),
        ({"probabilities": (0.5, 0.1)}, nm.MethodError, "increase"),
        ({"probabilities": (0, 0.5)}, nm.MethodError, "between 0 and 1"),
        ({"draws": 3}, nm.MethodError, "from 20 up"),
        ({"endpoint": "z"}, nm.MethodError, "Known: y"),
        ({"key": "x"}, nm.MethodError, "key"),
    ],
)
def test_errors(fit, options, error, message):
    with pytest.raises(error, match=message):
        nm.vpc(fit, **options)


def test_what_is_no_fit(fit, tmp_path):
    with pytest.raises(nm.NlmefitError, match="of a fit"):
        nm.vpc(Line())
    fit.save(tmp_path / "fit.nlmefit")
    with pytest.raises(nm.ModelError, match="without its model"):
        nm.vpc(nm.load(tmp_path / "fit.nlmefit"))
    with pytest.raises(nm.NlmefitError, match="give the data"):
        nm.vpc(nm.load(tmp_path / "fit.nlmefit", model=Line()))


def test_correction_needs_predictions_that_are_not_negative():
    model = Line().at({"a": -10.0})
    with pytest.raises(nm.DataError, match="PRED"):
        nm.vpc(nm.evaluate(model, data(), nm.FO()), corrected=True)
