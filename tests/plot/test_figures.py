"""Figures: what they contain. How they look was judged by eye."""

import sys
from importlib import import_module

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from models import PKPD, Counts, Theophylline, examples

import nlmefit as nm
from nlmefit.plot import style
from nlmefit.plot.dense import dense
from nlmefit.plot.trend import trend


@pytest.fixture(scope="module")
def theo():
    fit = nm.fit(Theophylline(), examples()["theophylline"].data, nm.FOCE(interaction=True), progress=False)
    return nm.diagnose(fit, progress=False)


@pytest.fixture(scope="module")
def pkpd():
    return nm.diagnose(nm.evaluate(PKPD(), examples()["pkpd"].data, nm.FOCE(interaction=True)), progress=False)


@pytest.fixture(scope="module")
def below():
    data = examples()["theophylline"].data
    low = (data["DV"] < 2) & (data["EVID"] == 0)
    marked = data.assign(CENS=low * 1, DV=data["DV"].where(~low, 2.0))
    return nm.diagnose(nm.evaluate(Theophylline(), marked, nm.Laplace()), progress=False)


def drawn(ax, label):
    """x and y of the line of that label."""
    return next(line for line in ax.get_lines() if line.get_label() == label).get_data()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def saved(figure, tmp_path):
    """It can be written, which lays it out."""
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    return figure


def test_goodness_of_fit(theo, tmp_path):
    figure = saved(nm.plot.gof(theo), tmp_path)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "Population prediction (mg/L)", "Individual prediction (mg/L)", "Individual prediction (mg/L)",
        "Time (h)", "Population prediction (mg/L)", "Standard normal quantile",
    ]  # fmt: skip
    assert [ax.get_ylabel() for ax in figure.axes] == ["Observed (mg/L)"] * 2 + ["|IWRES|"] + ["CWRES"] * 3
    table = theo.residuals
    for ax, column in zip(figure.axes, ("PRED", "IPRED")):
        x, y = drawn(ax, "observation")
        np.testing.assert_array_equal(x, table[column])
        np.testing.assert_array_equal(y, table["DV"])
    np.testing.assert_array_equal(figure.axes[3].get_lines()[0].get_ydata(), table["CWRES"])
    assert legend(figure) == ["observation", "identity", "trend", "95 % limits"]
    assert "Theophylline, FOCE with interaction" in figure.get_suptitle()


def test_goodness_of_fit_on_log_axes(theo, tmp_path):
    """Without what is not above 0."""
    figure = saved(nm.plot.gof(theo, log=True), tmp_path)
    shown = (theo.residuals["DV"] > 0) & (theo.residuals["PRED"] > 0)
    assert 0 < shown.sum() < len(shown)
    assert len(drawn(figure.axes[0], "observation")[0]) == shown.sum()
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


def test_two_endpoints_have_a_part_each(pkpd, tmp_path):
    for figure, panels in ((nm.plot.gof(pkpd), 6), (nm.plot.npde(pkpd), 4)):
        parts = saved(figure, tmp_path).subfigs
        assert [part.get_suptitle().split(", ")[-1] for part in parts] == ["cp", "effect"]
        assert [len(part.axes) for part in parts] == [panels, panels]
    x, y = drawn(nm.plot.gof(pkpd).subfigs[1].axes[1], "observation")
    own = pkpd.residuals[pkpd.residuals["endpoint"] == "effect"]
    np.testing.assert_array_equal(x, own["IPRED"])
    np.testing.assert_array_equal(y, own["DV"])


def test_limits_are_marked(below, tmp_path):
    count = int((below.residuals["CENS"] == 1).sum())
    figure = saved(nm.plot.gof(below), tmp_path)
    assert "below limit" in legend(figure)
    assert len(drawn(figure.axes[0], "below limit")[0]) == count
    assert len(drawn(figure.axes[0], "observation")[0]) == len(below.residuals) - count
    figure = saved(nm.plot.individuals(below, log=True), tmp_path)
    marked = [line for ax in figure.axes for line in ax.get_lines() if line.get_label() == "below limit"]
    assert sum(len(line.get_xdata()) for line in marked) == count
    assert {y for line in marked for y in line.get_ydata()} == {2.0}


def test_counts(tmp_path):
    diagnostics = nm.diagnose(nm.evaluate(Counts(), examples()["counts"].data, nm.Laplace()), progress=False)
    assert saved(nm.plot.gof(diagnostics), tmp_path).axes[3].get_ylabel() == "IWRES"
    assert saved(nm.plot.npde(diagnostics), tmp_path).axes[0].get_ylabel() == "NPD"
    saved(nm.plot.individuals(diagnostics), tmp_path)


def test_individuals(theo, tmp_path):
    figure = saved(nm.plot.individuals(theo), tmp_path)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"ID {k}" for k in range(1, 13)]
    assert legend(figure) == ["population prediction", "individual prediction", "observation", "dose"]
    own = theo.residuals[theo.residuals["ID"] == 2]
    ax = figure.axes[1]
    np.testing.assert_array_equal(drawn(ax, "observation"), [own["TIME"], own["DV"]])
    for label, column in (("population prediction", "PRED"), ("individual prediction", "IPRED")):
        x, y = drawn(ax, label)
        assert len(x) > 190
        np.testing.assert_allclose(np.interp(own["TIME"], x, y), own[column], atol=1e-9)
    np.testing.assert_array_equal(drawn(ax, "dose")[0], [0.0])
    assert ax.get_ylabel() == "" and figure.axes[4].get_ylabel() == "conc (mg/L)"


def test_individuals_in_pages(theo, tmp_path):
    pages = nm.plot.individuals(theo, per_page=5)
    assert [sum(bool(ax.get_title(loc="left")) for ax in page.axes) for page in pages] == [5, 5, 2]
    assert pages[1].get_suptitle().endswith("page 2 of 3")
    saved(pages[2], tmp_path)
    assert len(nm.plot.individuals(theo, subjects=[3, 7]).axes) == 2


def test_individuals_of_two_endpoints(pkpd, tmp_path):
    figure = saved(nm.plot.individuals(pkpd), tmp_path)
    assert [ax.get_title(loc="left") for ax in figure.axes[:4]] == ["ID 1, cp", "ID 1, effect", "ID 2, cp", "ID 2, effect"]


class Bolus(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3, unit="L/h")
    V = nm.LogNormal(20.0, iiv=0.2, unit="L")
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.2, unit="mg/L")


def doses(**columns):
    frame = pd.DataFrame(
        {"ID": "a", "TIME": [0.0, 2.0, 10.0, 30.0], "DV": [np.nan, 4.0, np.nan, 3.0], "AMT": [100.0, 0, 50.0, 0]}
    )
    return frame.assign(EVID=[1, 0, 1, 0], **columns)


def test_dense_predictions_jump_at_doses():
    """Just before and at a dose's record, at the doses that ADDL makes, in closed form."""
    data = doses(ADDL=[0, 0, 2, 0], II=[0, 0, 6.0, 0])
    fit = nm.evaluate(Bolus(), data, nm.FOCE(interaction=True))
    found = dense(fit.model, fit.data, fit.eta)
    time, value = found["TIME"].to_numpy(), found[("conc", "PRED")].to_numpy()
    assert np.all(np.diff(time) >= 0)

    def amount(t, upto):
        given = [(0.0, 100.0), (10.0, 50.0), (16.0, 50.0), (22.0, 50.0)]
        return sum(a * np.exp(-0.25 * (t - s)) for s, a in given if s <= upto) / 20

    for at in (10.0, 16.0, 22.0):
        near = np.flatnonzero(np.abs(time - at) < 1e-6)
        np.testing.assert_allclose(value[near], [amount(at, at - 1), amount(at, at)], rtol=1e-6)
    after = np.searchsorted(time, 12.3)
    np.testing.assert_allclose(value[after], amount(time[after], 10.0), rtol=1e-9)


def test_infusions_are_bars():
    data = doses(RATE=[0.0, 0, 10.0, 0])
    figure = nm.plot.individuals(nm.evaluate(Bolus(), data, nm.FOCE(interaction=True)))
    (bar,) = figure.axes[0].patches
    np.testing.assert_allclose([bar.get_x(), bar.get_x() + bar.get_width()], [10.0, 15.0])


@pytest.mark.parametrize("rule", ["nocb", "locf", "linear"])
def test_dense_predictions_follow_the_rule_of_covariates(rule):
    class Growing(nm.Model):
        a = nm.LogNormal(1.0, iiv=0.3)

        def observe(self, t, A, p):
            return {"y": p.a * p.W + 0.0 * t}

        y = nm.Additive(1.0)

    data = pd.DataFrame({"ID": 1, "TIME": [0.0, 4.0, 10.0], "DV": [1.0, 3.0, 9.0], "W": [1.0, 3.0, 9.0]})
    model = Growing()
    subjects = nm.Subjects.from_frame(data, model, covariates=rule)
    found = dense(model, subjects, pd.DataFrame({"a": [0.0]}, pd.Index([1], name="ID")))
    time, value = found["TIME"].to_numpy(), found[("y", "PRED")].to_numpy()
    inside = (time > 4) & (time < 10)
    expected = {"nocb": 9.0 + 0 * time, "locf": 3.0 + 0 * time, "linear": np.interp(time, data["TIME"], data["W"])}[rule]
    assert inside.sum() > 100
    np.testing.assert_allclose(value[inside], expected[inside], atol=1e-9)


def test_prediction_errors(theo, tmp_path):
    figure = saved(nm.plot.npde(theo), tmp_path)
    errors = theo.prediction_errors["NPDE"]
    assert figure.axes[0].get_title(loc="left") == f"mean {errors.mean():.2f}, sd {errors.std(ddof=0):.2f}, n = 132"
    np.testing.assert_array_equal(figure.axes[2].get_lines()[0].get_ydata(), errors)
    heights = np.array([bar.get_height() * bar.get_width() for bar in figure.axes[1].patches])
    np.testing.assert_allclose(heights.sum(), 1.0)


def test_random_effects(theo, tmp_path):
    figure = saved(nm.plot.etas(theo), tmp_path)
    axes = np.reshape(figure.axes, (3, 4))
    assert axes[1, 1].get_title(loc="left") == f"ω {np.sqrt(theo.fit.omega.loc['CL', 'CL']):.3g}, shrinkage 8 %"
    np.testing.assert_array_equal(axes[2, 1].get_lines()[0].get_data(), theo.eta[["CL", "V"]].to_numpy().T)
    weight = examples()["theophylline"].data.groupby("ID")["WT"].first()
    points = next(line for line in axes[0, 3].get_lines() if line.get_marker() == "o")
    np.testing.assert_array_equal(points.get_data(), [weight, theo.eta["ka"]])
    assert axes[2, 3].get_xlabel() == "WT"
    assert len(nm.plot.etas(theo, covariates=[]).axes) == 9


def test_random_effects_of_occasions_and_categories(tmp_path):
    example = examples()["occasions"]
    data = example.data.assign(SEX=np.where(example.data["ID"] % 2, "f", "m"))
    figure = saved(nm.plot.etas(nm.evaluate(example.model, data, nm.FO()), covariates=["SEX"]), tmp_path)
    axes = np.reshape(figure.axes, (5, 4))
    assert axes[3, 0].get_xlabel() == "κ ka" and "γ 0.2" in axes[3, 0].get_title(loc="left")
    assert [text.get_text() for text in axes[0, 3].get_xticklabels()] == ["f", "m"]


def test_convergence(theo, tmp_path):
    figure = saved(nm.plot.convergence(theo.fit), tmp_path)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["objective"]
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_ydata(), theo.fit.history["objective"])
    figure = saved(nm.plot.convergence(nm.fit(Bolus(), doses(), nm.ITS(), progress=False)), tmp_path)
    assert {"CL", "V"} <= {ax.get_title(loc="left") for ax in figure.axes}


def test_chains(tmp_path):
    fit = nm.fit(Bolus(), doses(), nm.NUTS(warmup=20, draws=30, max_draws=30, chains=2), progress=False)
    figure = saved(nm.plot.convergence(fit), tmp_path)
    panels = {ax.get_title(loc="left"): ax.get_lines() for ax in figure.axes if ax.get_lines()}
    assert set(panels) == set(fit.estimates.index)
    np.testing.assert_array_equal([line.get_ydata() for line in panels["CL"]], fit.found.posterior.report["CL"])


def test_a_trend_is_locally_straight():
    x = np.sort(np.random.default_rng(1).uniform(0, 5, 200))
    at, found = trend(x, 2 - 3 * x)
    np.testing.assert_allclose(found, 2 - 3 * at, atol=1e-9)
    assert trend(x[:5], x[:5]) is None and trend(np.repeat([1.0, 2.0], 20), np.ones(40)) is None


def test_labels_read_the_models_units():
    assert style.time_label(Theophylline()) == "Time (h)"
    assert style.time_label(PKPD()) == "Time"
    assert style.endpoint_unit(Theophylline(), "conc") == "mg/L"


def test_matplotlib_stays_as_the_user_has_it(theo):
    before = dict(matplotlib.rcParams)
    nm.plot.gof(theo)
    nm.plot.etas(theo)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_wrong_input(theo):
    for figure in (nm.plot.gof, nm.plot.individuals, nm.plot.npde, nm.plot.etas):
        with pytest.raises(nm.NlmefitError, match=r"the figure is of a fit or of nm\.diagnose"):
            figure(Theophylline())
    with pytest.raises(nm.NlmefitError, match="the figure is of a fit, got Diagnostics"):
        nm.plot.convergence(theo)
    with pytest.raises(nm.NlmefitError, match="left no history"):
        nm.plot.convergence(nm.evaluate(Bolus(), doses(), nm.FO()))
    with pytest.raises(nm.NlmefitError, match="there is no subject 99; the first are 1, 2"):
        nm.plot.individuals(theo, subjects=[99])
    with pytest.raises(nm.NlmefitError, match="leaves nobody"):
        nm.plot.individuals(theo, subjects=[])
    with pytest.raises(nm.NlmefitError, match="per_page must be a whole number from 1 up, got 0"):
        nm.plot.individuals(theo, per_page=0)
    with pytest.raises(nm.NlmefitError, match="covariates=: column `WEIGHT` does not exist"):
        nm.plot.etas(theo, covariates=["WEIGHT"])
    with pytest.raises(AttributeError, match="No nlmefit attribute plots"):
        _ = nm.plots


def test_too_many_panels(theo, monkeypatch):
    monkeypatch.setattr(import_module("nlmefit.plot.individuals"), "MOST", 10)
    with pytest.raises(nm.NlmefitError, match="12 panels are too many for one figure; give per_page=12"):
        nm.plot.individuals(theo)
