"""Figures of checks, regimens, effects and comparisons: what they contain, not how they look."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpyro import distributions as dist

import nlmefit as nm
from nlmefit.plot.differences import paired
from nlmefit.plot.forest import covariate_effects


class Decline(nm.Model):
    """A response that falls with time, of two endpoints; covariates of both kinds."""

    a = nm.LogNormal(
        10.0,
        iiv=0.2,
        covariates=[nm.Power("WT", reference=70, exponent=0.75), nm.Category("SEX", reference=0, levels={1: 0.1})],
    )
    k = nm.LogNormal(0.2, iiv=0.3, unit="1/h", covariates=[nm.Exponential("WT", reference=70, value=0.01, fixed=True)])

    def observe(self, t, A, p):
        return {"y": p.a * 2.718281828459045 ** (-p.k * t), "n": dist.Poisson(p.a + 0.0 * t)}

    y = nm.Additive(0.5, unit="mg/L")


def data():
    rng = np.random.default_rng(2)
    rows = []
    for i in range(1, 25):
        wt, sex = rng.normal(70, 12), i % 2
        a = 10 * (wt / 70) ** 0.75 * np.exp(0.1 * sex + 0.2 * rng.normal())
        k = 0.2 * np.exp(0.01 * (wt - 70) + 0.3 * rng.normal())
        for t in (0.0, 1.0, 3.0, 6.0, 12.0):
            y = a * np.exp(-k * t) + 0.5 * rng.normal()
            rows += [(i, t, max(y, 1.5), int(y < 1.5), 1, wt, sex), (i, t, rng.poisson(a), 0, 2, wt, sex)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "CENS", "DVID", "WT", "SEX"])


@pytest.fixture(scope="module")
def fit():
    return nm.fit(Decline(), data(), nm.Laplace(), progress=False)


class Bolus(nm.Model):
    CL = nm.LogNormal(2.0, iiv=0.3, unit="L/h")
    V = nm.LogNormal(20.0, iiv=0.2, unit="L")
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


@pytest.fixture(scope="module")
def simulation():
    regimens = {"low": nm.Regimen(100, every=12, doses=4), "high": nm.Regimen(200, every=12, doses=4)}
    return nm.simulate(Bolus(), regimens, times=np.linspace(0, 48, 25), subjects=20, draws=3, progress=False)


def panels(figure):
    """Axes that are shown, subfigures' too."""
    assert isinstance(figure, Figure)
    return [ax for ax in figure.get_axes() if ax.axison]


def texts(figure):
    found = [
        text.get_text() for legend in [*figure.legends, *(e for s in figure.subfigs for e in s.legends)] for text in legend.texts
    ]
    for ax in figure.get_axes():
        found += [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel(), *(t.get_text() for t in ax.texts)]
        found += [t.get_text() for t in ax.get_yticklabels()]
    return found


def line(ax, label):
    return next(x for x in ax.lines if x.get_label() == label)


def test_vpc_has_a_part_for_each_endpoint(fit):
    figure = nm.plot.vpc(fit, draws=50)
    assert len(figure.subfigs) == 2
    shown = texts(figure)
    assert {"y (mg/L)", "Below 1.5 mg/L", "Time (h)", "observed median", "Proportion"} <= set(shown)
    assert sum(title.startswith("n ") for title in shown) == 6
    figure.draw_without_rendering()


def test_vpc_draws_its_numbers(fit):
    found = nm.vpc(fit, draws=50, endpoint="y", bins=[0, 2, 5, 12])
    top, below = panels(nm.plot.vpc(found))
    own = found.percentiles
    median = own[own["probability"] == 0.5]
    assert line(top, "observed median").get_ydata() == pytest.approx(median["observed"].to_numpy())
    assert line(top, "observed median").get_xdata() == pytest.approx(median["TIME"].to_numpy())
    assert any(np.allclose(x.get_ydata(), found.beyond["observed"]) for x in below.lines)
    hidden = own[~np.isfinite(own["observed"])]
    assert len(hidden)  # undetermined percentiles are gaps
    assert np.isnan(line(top, "observed 5 and 95 %").get_ydata()).any()


def test_vpc_by_stratum(fit):
    figure = nm.plot.vpc(fit, draws=50, endpoint="y", strata="SEX", bins=1, log=True)
    assert len(panels(figure)) == 4
    assert {"SEX 0", "SEX 1"} <= set(texts(figure))
    figure.draw_without_rendering()


def test_vpc_refuses_what_is_computed_already(fit):
    found = nm.vpc(fit, draws=20, endpoint="y")
    with pytest.raises(nm.NlmefitError, match="computed already"):
        nm.plot.vpc(found, strata="SEX")
    with pytest.raises(nm.NlmefitError, match="of a fit"):
        nm.plot.vpc("fit")


def test_regimens(simulation):
    figure = nm.plot.regimens(simulation)
    low, high = panels(figure)
    bands = simulation.bands((0.5,))
    for ax, name in ((low, "low"), (high, "high")):
        expected = bands.loc[bands["regimen"] == name, "value"]
        assert ax.get_title(loc="left") == name
        assert line(ax, "median").get_ydata() == pytest.approx(expected.to_numpy())
    assert "uncertainty of the median" in texts(figure)
    assert low.get_ylim() == high.get_ylim()


def test_regimens_with_observations_of_their_own(simulation):
    seen = pd.DataFrame({"ID": 1, "TIME": [0.0, 5.0, 6.0], "DV": [np.nan, 3.0, 2.0], "AMT": [100.0, 0, 0], "EVID": [1, 0, 0]})
    low, high = panels(nm.plot.regimens(simulation, seen.assign(regimen="low"), log=True))
    assert line(low, "observation").get_ydata().tolist() == [3.0, 2.0]
    assert len(line(high, "observation").get_ydata()) == 0
    with pytest.raises(nm.NlmefitError, match="did you mean `low`"):
        nm.plot.regimens(simulation, seen.assign(regimen="Low"))
    with pytest.raises(nm.NlmefitError, match="Known: conc"):
        nm.plot.regimens(simulation, endpoint="cp")


def test_one_subject_has_bands_over_its_draws():
    found = nm.simulate(Bolus(), nm.Regimen(100), times=[0, 1, 2], subjects=1, draws=20, progress=False)
    figure = nm.plot.regimens(found)
    assert "subject 1, 20 draws" in figure.get_suptitle()
    assert "uncertainty of the median" not in texts(figure)


def test_differences_are_paired(simulation):
    exposures = nm.exposure(simulation)
    table = paired(exposures, "low", "AUC")
    assert len(table) == 60
    assert table["ratio"].to_numpy() == pytest.approx(2.0, rel=1e-9)  # linear: twice the dose, for every subject and draw
    wide = exposures.pivot(index=["ID", "draw"], columns="regimen", values="Cmax")
    found = paired(exposures, "high", "Cmax", "difference").set_index(["ID", "draw"])["difference"]
    assert found.loc[wide.index].to_numpy() == pytest.approx((wide["low"] - wide["high"]).to_numpy())
    figure = nm.plot.differences(exposures, "low")
    assert "2 (2 to 2)" in texts(figure)
    figure.draw_without_rendering()
    nm.plot.differences(simulation, "low", "Ctrough", "difference").draw_without_rendering()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Low",), "did you mean `low`"),
        (("low", "AUCC"), "did you mean `AUC`"),
        (("low", "AUC", "quotient"), "Known: ratio, difference"),
    ],
)
def test_differences_of_wrong_names(simulation, arguments, message):
    with pytest.raises(nm.NlmefitError, match=message):
        nm.plot.differences(nm.exposure(simulation), *arguments)


def test_ratios_need_positive_numbers(simulation):
    exposures = nm.exposure(simulation).assign(AUC=0.0)
    with pytest.raises(nm.NlmefitError, match='kind="difference"'):
        nm.plot.differences(exposures, "low")
    with pytest.raises(nm.NlmefitError, match="only regimen"):
        nm.plot.differences(exposures[exposures["regimen"] == "low"], "low")


def test_forest_by_hand(fit):
    table = covariate_effects(fit, draws=4000).set_index(["parameter", "covariate", "value"])
    e = fit.estimates
    low, high = np.percentile(data().groupby("ID")["WT"].first(), (5, 95))
    assert table.loc[("a", "WT", low), "ratio"] == pytest.approx((low / 70) ** e["beta_a_WT"], rel=1e-9)
    sex = table.loc[("a", "SEX", 1.0)]
    assert sex["ratio"] == pytest.approx(np.exp(e["beta_a_SEX_1"]), rel=1e-9)
    ends = np.exp(e["beta_a_SEX_1"] + np.array([-1, 1]) * 1.645 * fit.standard_errors["beta_a_SEX_1"])
    assert sex[["lower", "upper"]].to_numpy(float) == pytest.approx(ends, rel=0.02)
    fixed = table.loc[("k", "WT", high)]
    assert fixed["ratio"] == pytest.approx(np.exp(0.01 * (high - 70)), rel=1e-9)
    assert np.isnan(fixed["lower"])
    assert ("k", "SEX", 1.0) not in table.index


def test_forest(fit):
    figure = nm.plot.forest(fit, ["a"], ["SEX"])
    shown = texts(figure)
    assert {"a", "SEX 1", "0.8 to 1.25", "Parameter over that of a subject with SEX 0"} <= set(shown)
    figure.draw_without_rendering()
    with pytest.raises(nm.NlmefitError, match="did you mean `SEX`"):
        nm.plot.forest(fit, covariates=["sex"])
    with pytest.raises(nm.NlmefitError, match="none of these"):
        nm.plot.forest(fit, ["k"], ["SEX"])
    with pytest.raises(nm.MethodError, match="covariance"):
        nm.plot.forest(nm.evaluate(Decline(), data(), nm.Laplace()))


def test_comparison():
    table = pd.DataFrame(
        {
            "log_marginal": [-180.3, -186.1],
            "mc_se": [0.05, 0.0],
            "kind": "estimate",
            "objective": [-180.6, -900.0],
            "objective_kind": ["bound", "approximation"],
            "status": ["converged", "uncertain"],
        },
        ["VI", "FO"],
    )
    figure = nm.plot.comparison(table)
    shown = texts(figure)
    assert {"VI", "FO (uncertain)", "own bound", "-180.30 ± 0.05", "◂ -900.0"} <= set(shown)
    with pytest.raises(nm.NlmefitError, match=r"nm\.compare"):
        nm.plot.comparison(table.drop(columns="kind"))


def test_attainment(simulation):
    exposures = nm.exposure(simulation, 36, 48)
    table = nm.target_attainment(exposures, "Ctrough", at_least=[1, 2, 4])
    (ax,) = panels(nm.plot.attainment(table))
    low = table[table["regimen"] == "low"]
    assert line(ax, "low").get_ydata() == pytest.approx(low["probability"].to_numpy())
    assert ax.get_xlabel() == "Ctrough at least"
    windows = nm.target_attainment(exposures, "Cmax", at_least=[5, 8], at_most=[15, 20])
    (ax,) = panels(nm.plot.attainment(windows, target=None))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["5 to 15", "8 to 20"]
    with pytest.raises(nm.NlmefitError, match="share"):
        nm.plot.attainment(table, target=90)
    with pytest.raises(nm.NlmefitError, match="target_attainment"):
        nm.plot.attainment(exposures)
