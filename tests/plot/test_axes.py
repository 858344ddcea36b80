"""Axes that can be read: ticks of logarithmic ones, units, time after dose, bins; and which data a figure is of."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.diagnostics.bins import bin_edges
from nlmefit.plot.log_ticks import LogTicks


class Oral(nm.Model):
    ka = nm.LogNormal(1.0, iiv=0.3, unit="1/h")
    CL = nm.LogNormal(5.0, iiv=0.3, unit="L/h")
    V = nm.LogNormal(40.0, iiv=0.2, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.15, unit="mg/L") + nm.Additive(0.05)


REGIMEN = nm.Regimen(100, every=24, doses=8)
TIMES = [0.5, 1, 2, 4, 8, 12, 24, 168, 170, 174, 192]


@pytest.fixture(scope="module")
def data():
    seen = nm.simulate(Oral(), REGIMEN, times=TIMES, subjects=30, residual=True, progress=False).records()
    return seen[(seen["EVID"] == 1) | (seen["TIME"] <= 24) | (seen["ID"] <= 8)]


@pytest.fixture(scope="module")
def fit(data):
    return nm.evaluate(Oral(), data, nm.FOCE(interaction=True))


@pytest.mark.parametrize("low", [1e-12, 0.03, 0.11, 1.0, 2.2, 4.2, 730.0])
@pytest.mark.parametrize("ratio", [1.05, 1.4, 2.0, 4.0, 9.0, 30.0, 1e3, 1e8])
def test_a_log_axis_has_ticks_whatever_it_shows(low, ratio):
    ticks = LogTicks().tick_values(low, low * ratio)
    assert 2 <= len(ticks) <= 12 and np.all((ticks >= low * 0.999) & (ticks <= low * ratio * 1.001))


def test_a_vpc_on_a_log_axis_ends_where_the_data_end(fit, data):
    figure = nm.plot.vpc(fit, draws=50, log=True)
    low, high = figure.axes[0].get_ylim()
    seen = data.loc[(data["EVID"] == 0) & (data["DV"] > 0), "DV"]
    assert low > seen.min() / 10 and high < seen.max() * 10
    assert len(ticks_seen(figure.axes[0])) >= 3


def ticks_seen(ax):
    low, high = ax.get_ylim()
    return [t for t in ax.yaxis.get_majorticklocs() if low <= t <= high]


def test_every_individual_panel_on_a_log_axis_has_ticks(fit):
    figure = nm.plot.individuals(fit, log=True, subjects=list(range(1, 13)))
    assert min(len(ticks_seen(ax)) for ax in figure.axes if ax.axison) >= 2


def test_figures_take_what_diagnose_takes(fit, data):
    part = data[data["ID"] <= 10]
    for draw in (nm.plot.gof, nm.plot.npde):
        assert len(draw(fit, part).axes) == len(draw(nm.diagnose(fit, part)).axes)
    assert len(nm.plot.etas(fit, data=part).axes) == len(nm.plot.etas(nm.diagnose(fit, part)).axes)
    count = len(nm.plot.gof(fit, part).axes[0].lines[0].get_xdata())
    assert count == (part["EVID"] == 0).sum()
    with pytest.raises(nm.NlmefitError, match="these diagnostics are of their own data"):
        nm.plot.gof(nm.diagnose(fit, part), part)


def test_time_after_dose(fit, data):
    found = nm.diagnose(fit)
    time = found.residuals["TIME"].to_numpy()
    np.testing.assert_allclose(found.time_after_dose, np.where(time < 168, time % 24, time - 168))  # doses come first
    figure = nm.plot.gof(fit, after_dose=True)
    assert figure.axes[3].get_xlabel() == "Time after dose (h)"
    vpc = nm.vpc(fit, draws=20, after_dose=True)
    assert vpc.observations["TIME"].max() == 24 and vpc.percentiles["end"].max() == 24
    assert nm.plot.vpc(vpc).axes[0].get_xlabel() == "Time after dose (h)"


def test_a_sample_before_the_first_dose_and_one_just_before_the_next():
    records = pd.DataFrame(
        {"ID": 1, "TIME": [-1.0, 0, 3, 12, 12, 15], "EVID": [0, 1, 0, 0, 1, 0], "AMT": [0, 100.0, 0, 0, 100, 0], "DV": 1.0}
    )
    found = nm.diagnose(nm.evaluate(Oral(), records, nm.FOCE())).time_after_dose
    assert found.tolist() == [-1.0, 3.0, 12.0, 3.0]


def test_the_time_after_no_dose_is_refused():
    class Flat(nm.Model):
        b = nm.Normal(1.0, iiv=0.5)

        def observe(self, t, A, p):
            return {"y": p.b + 0 * t}

        y = nm.Additive(0.3)

    fit = nm.evaluate(Flat(), pd.DataFrame({"ID": 1, "TIME": [0.0, 1.0], "DV": [1.0, 2.0]}), nm.FOCE())
    with pytest.raises(nm.DataError, match="after_dose=True needs doses, and subject 1 has none"):
        nm.plot.gof(fit, after_dose=True)


def test_units_of_exposures_are_on_the_axes():
    regimens = {"a": REGIMEN, "b": REGIMEN * 2}
    exposures = nm.exposure(nm.simulate(Oral(), regimens, times=np.linspace(0, 48, 49), subjects=10, progress=False))
    table = nm.target_attainment(exposures, "AUC", at_least=[20, 30])
    assert nm.plot.attainment(table).axes[0].get_xlabel() == "AUC at least (mg/L·h)"
    differences = nm.plot.differences(exposures, "a", "Cmax", "difference")
    assert differences.axes[0].get_xlabel() == "Cmax - Cmax under a (mg/L)"


@pytest.mark.parametrize("late", [168.0, 96.0])
def test_times_far_apart_are_never_in_one_bin(late):
    nominal = [0.5, 1, 2, 4, 8, 12, 24]
    time = np.r_[np.tile(nominal, 12), np.full(6, late)]
    subject = np.r_[np.repeat(np.arange(12), 7), np.arange(6)]
    edges = bin_edges(time, subject, "auto")
    assert np.any((edges > 24) & (edges <= late) & (edges < edges[-1]))


@pytest.mark.parametrize("option", ["log", "after_dose"])
@pytest.mark.parametrize("draw", [nm.plot.gof, nm.plot.vpc])
def test_options_of_truth(fit, draw, option):
    with pytest.raises(nm.MethodError, match=f"{option} must be True or False"):
        draw(fit, **{option: "no"})


def test_a_simulated_observation_that_is_no_number_is_told(data):
    class Wild(Oral):
        CL = nm.Normal(5.0, iiv=20.0, unit="L/h")

        def observe(self, t, A, p):
            return {"conc": A.central / p.V + 0 * p.CL**0.5}

    few = data[data["ID"] <= 3]
    with pytest.raises(nm.DataError, match=r"`conc` of subject .* is simulated as no number"):
        nm.vpc(nm.evaluate(Wild(), few, nm.FO()), draws=20)
