"""Areas, peaks and troughs against closed forms; target attainment."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad

import nlmefit as nm

K = 4.0 / 50.0


class Bolus(nm.Model):
    CL = nm.LogNormal(4.0, iiv=0.3)
    V = nm.LogNormal(50.0, iiv=0.2)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Oral(nm.Model):
    """Two compartments with lag and bioavailability."""

    ka = nm.LogNormal(1.0, iiv=0.4)
    CL = nm.LogNormal(4.0, iiv=0.3)
    V1 = nm.LogNormal(50.0, iiv=0.2)
    Q = nm.LogNormal(5.0, iiv=0.2)
    V2 = nm.LogNormal(80.0, iiv=0.2)
    F = nm.LogitNormal(0.6, iiv=0.3)
    dynamics = nm.TwoCompartment(absorption="first-order")

    def dosing(self, p):
        return {"depot": nm.Dosing(lag=0.7, bioavailability=p.F)}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Proportional(0.1)


class Saturable(nm.Model):
    """Michaelis-Menten elimination and an effect: solved by steps."""

    Vmax = nm.LogNormal(8.0, iiv=0.2)
    Km = nm.LogNormal(0.5, iiv=0.2)
    V = nm.LogNormal(50.0, iiv=0.2)
    dynamics = nm.MichaelisMenten()

    def observe(self, t, A, p):
        conc = A.central / p.V
        return {"conc": conc, "effect": 10 * conc / (1 + conc)}

    conc = nm.Proportional(0.1)
    effect = nm.Additive(1.0)


def simulated(model, regimen, times, **options):
    return nm.simulate(model, regimen, times=times, **{"subjects": 20, "draws": 3, "progress": False} | options)


def test_auc_to_a_late_end_is_dose_over_clearance():
    rng = np.random.default_rng(0)
    etas = pd.DataFrame(rng.normal(size=(6, 6)) * [0.4, 0.3, 0.2, 0.2, 0.2, 0.3], range(1, 7), ["ka", "CL", "V1", "Q", "V2", "F"])
    found = nm.exposure(simulated(Oral(), nm.Regimen(100), [0.0, 1.0], subjects=6, draws=1, eta=etas), 0.0, 5000.0)
    F = 1 / (1 + np.exp(-(np.log(0.6 / 0.4) + etas["F"])))
    np.testing.assert_allclose(found["AUC"], 100 * F / (4.0 * np.exp(etas["CL"])), rtol=1e-8)


@pytest.mark.parametrize("regimen", [nm.Regimen(100), nm.Regimen(100, duration=3), nm.Regimen(100, every=6, doses=4)])
def test_auc_of_a_window_against_quadrature(regimen):
    simulation = simulated(Oral(), regimen, np.arange(0.0, 24.5, 0.5), subjects=1, draws=1, eta="typical")
    found = nm.exposure(simulation, 2.0, 20.0)["AUC"].item()

    def conc(t):
        return simulated(Oral(), regimen, [t], subjects=1, draws=1, eta="typical").frame()["conc"].item()

    grid = simulated(Oral(), regimen, np.linspace(2.0, 20.0, 20001), subjects=1, draws=1, eta="typical").frame()
    assert found == pytest.approx(np.trapezoid(grid["conc"], grid["TIME"]), rel=1e-6)
    assert conc(2.0) == pytest.approx(grid["conc"].iloc[0], rel=1e-12)


def test_auc_does_not_depend_on_the_times():
    few, many = (simulated(Bolus(), nm.Regimen(100, every=8, doses=3), t) for t in ([0.0, 24.0], np.linspace(0, 24, 50)))
    np.testing.assert_allclose(nm.exposure(few)["AUC"], nm.exposure(many)["AUC"], rtol=1e-12)


def test_auc_over_an_interval_at_steady_state():
    regimen = nm.Regimen(100, every=12, steady_state=True)
    found = nm.exposure(simulated(Bolus(), regimen, np.linspace(0, 12, 5), eta="typical", subjects=1, draws=1))
    assert found["AUC"].item() == pytest.approx(100 / 4.0, rel=1e-10)
    peak = 2.0 / (1 - np.exp(-K * 12))
    assert found["Cmax"].item() == pytest.approx(peak, rel=1e-10) and found["Tmax"].item() == 0
    assert found["Ctrough"].item() == pytest.approx(peak * np.exp(-K * 12), rel=1e-10)


def test_peaks_troughs_and_accumulation():
    regimen = nm.Regimen(100, every=12, doses=4)
    found = nm.exposure(simulated(Bolus(), regimen, np.linspace(24, 36, 13), eta="typical", subjects=1, draws=1), 24.0, 36.0)
    decay = np.exp(-12 * K)
    peak = 2 * (1 + decay + decay**2)
    assert found["Cmax"].item() == pytest.approx(peak, rel=1e-10)
    assert found["Ctrough"].item() == pytest.approx(peak * decay, rel=1e-10)  # before the dose at 36
    assert found["accumulation"].item() == pytest.approx(1 + decay + decay**2 + decay**3, rel=1e-8)


def test_time_above():
    found = nm.exposure(
        simulated(Bolus(), nm.Regimen(100), np.linspace(0, 40, 40001), eta="typical", subjects=1, draws=1), above=[1.0, 5.0]
    )
    assert found["above_1"].item() == pytest.approx(np.log(2) / K / 40, abs=1e-6)
    assert found["above_5"].item() == 0


def test_areas_along_with_a_differential_equation():
    simulation = simulated(Saturable(), nm.Regimen(100), np.linspace(0, 30, 3001), eta="typical", subjects=1, draws=1)
    found, frame = nm.exposure(simulation).set_index("endpoint")["AUC"], simulation.frame()
    for endpoint in ("conc", "effect"):
        assert found[endpoint] == pytest.approx(np.trapezoid(frame[endpoint], frame["TIME"]), rel=1e-5)
    # the integrated equation: Vm c / (Km + c) has removed what is no longer there
    removed = quad(lambda t: np.interp(t, frame["TIME"], 8.0 * frame["conc"] / (0.5 + frame["conc"])), 0, 30, limit=500)[0]
    assert removed == pytest.approx(100 - 50 * frame["conc"].iloc[-1], rel=1e-4)


@pytest.mark.slow
def test_steady_state_of_a_differential_equation_has_no_steady_area():
    regimen = nm.Regimen(50, every=24, steady_state=True)
    found = nm.exposure(simulated(Saturable(), regimen, [0.0, 24.0], eta="typical", subjects=1, draws=1)).set_index("endpoint")
    frame = simulated(Saturable(), regimen, np.linspace(0, 24, 4001), eta="typical", subjects=1, draws=1).frame()
    assert found.loc["conc", "AUC"] == pytest.approx(np.trapezoid(frame["conc"], frame["TIME"]), rel=1e-5)
    assert found.loc["conc", "Ctrough"] * 50 + 50 == pytest.approx(frame["conc"].iloc[0] * 50, rel=1e-6)


def test_a_model_without_compartments():
    class Growth(nm.Model):
        r = nm.LogNormal(0.1, iiv=0.2)

        def observe(self, t, A, p):
            return {"y": jnp.exp(p.r * t)}

        y = nm.Additive(0.1)

    data = pd.DataFrame({"ID": 1, "TIME": [0.0, 5.0, 10.0], "DV": 1.0})
    found = nm.exposure(nm.simulate(Growth(), subjects=data, eta="typical", progress=False))
    assert found["AUC"].item() == pytest.approx((np.e - 1) / 0.1, rel=1e-6)


def test_the_observed_regimen_and_the_same_written_out(theophylline):
    class Theo(Bolus):
        CL = nm.LogNormal(2.8, iiv=0.3)
        ka = nm.LogNormal(1.5, iiv=0.5)
        V = nm.LogNormal(32.0, iiv=0.2)
        dynamics = nm.OneCompartment(absorption="first-order")

    one = theophylline[theophylline["ID"] == 1]
    regimens = {"own": nm.Regimen.observed(), "written": nm.Regimen(one["AMT"].iloc[0])}
    found = nm.exposure(nm.simulate(Theo(), regimens, times=[0.0, 5.0, 24.0], subjects=one, eta="typical", progress=False))
    assert found["AUC"].iloc[0] == pytest.approx(found["AUC"].iloc[1], rel=1e-12)


def test_target_attainment_counts():
    found = nm.exposure(simulated(Bolus(), {"a": nm.Regimen(100), "b": nm.Regimen(200)}, [0.0, 24.0], subjects=200, draws=10))
    table = nm.target_attainment(found, "AUC", at_least=[15, 20])
    for row in table.itertuples():
        values = found[found["regimen"] == row.regimen]["AUC"]
        assert row.probability == (values >= row.at_least).mean()
        assert row.lower <= row.probability <= row.upper
    window = nm.target_attainment(found, "AUC", at_least=15, at_most=20)
    assert window["probability"].iloc[0] == pytest.approx(table["probability"].iloc[0] - table["probability"].iloc[1], abs=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: nm.exposure(s, 30.0, 20.0), "is empty"),
        (lambda s: nm.exposure(s, 50.0, 60.0), "has none of the simulation's times, 0 to 24"),
        (lambda s: nm.exposure(s, "a"), "start must be a time"),
        (lambda s: nm.exposure(s, above=["x"]), "above must be"),
        (lambda s: nm.target_attainment(nm.exposure(s), "AUCC", at_least=1), "did you mean `AUC`"),
        (lambda s: nm.target_attainment(nm.exposure(s), "AUC"), "give a threshold"),
        (lambda s: nm.target_attainment(nm.exposure(s), "AUC", at_least=[1, 2], at_most=3), "come in pairs"),
    ],
)
def test_errors(call, words):
    with pytest.raises((nm.DataError, nm.MethodError), match=words):
        call(simulated(Bolus(), nm.Regimen(100), [0.0, 24.0], subjects=1, draws=1))


def test_a_reset_inside_the_window_is_refused():
    regimen = nm.Regimen(100) + nm.Regimen(100, every=12, steady_state=True).after(12)
    simulation = simulated(Bolus(), regimen, [0.0, 12.0, 24.0], subjects=1, draws=1)
    with pytest.raises(nm.DataError, match="the system is reset at 12, inside of the window 0 to 24"):
        nm.exposure(simulation)
    assert nm.exposure(simulation, 12.0, 24.0)["AUC"].notna().all()


@pytest.mark.parametrize("compartments", [nm.OneCompartment, nm.TwoCompartment, nm.ThreeCompartment])
def test_areas_by_mass_balance_are_those_of_an_added_state(compartments):
    """Boluses, infusions and oral doses into one system whose prediction has a baseline."""

    class Infused(nm.Model):
        ka, CL, V, V1, Q, V2 = nm.Theta(0.8), nm.Theta(3.0), nm.Theta(20.0), nm.Theta(20.0), nm.Theta(4.0), nm.Theta(50.0)
        Q2, Q3, V3 = nm.Theta(4.0), nm.Theta(1.0), nm.Theta(90.0)
        base = nm.LogNormal(0.3, iiv=0.2)
        dynamics = compartments(absorption="first-order")

        def observe(self, t, A, p):
            return {"conc": A.central / 20 + p.base}

        conc = nm.Additive(0.1)

    class BySteps(Infused):
        solver = nm.MatrixExponential()

    regimen = (
        nm.Regimen(100, every=12, doses=6, compartment="depot")
        + nm.Regimen(300, every=24, doses=3, duration=5, compartment="central").after(2)
        + nm.Regimen(50, compartment="central").after(31)
    )
    found = [
        nm.exposure(nm.simulate(model(), regimen, times=[0, 1, 30, 50, 100], subjects=3, progress=False), 1, 50)
        for model in (Infused, BySteps)
    ]
    np.testing.assert_allclose(found[0]["AUC"], found[1]["AUC"], rtol=1e-9)
    np.testing.assert_allclose(found[0]["accumulation"], found[1]["accumulation"], rtol=1e-9)


@pytest.mark.parametrize(
    ("times", "window", "words"),
    [
        (np.linspace(0, 168, 337), (144.0, 200.0), "reaches beyond the last of the simulation's times, 168, and"),
        (np.linspace(0, 168, 337), (-1.0, 100.0), "starts at -1, before the simulation's times"),
        (np.r_[np.linspace(0, 24, 25), np.linspace(144, 168, 25)], (0.0, 168.0), "not seen between 24 and 144"),
        (np.r_[np.linspace(0, 24, 25), np.linspace(144, 168, 25)], (30.0, 140.0), "no time between 30 and 140"),
    ],
)
@pytest.mark.parametrize("doses", [7, 14])
def test_a_window_of_which_a_part_is_not_seen(times, window, words, doses):
    simulation = simulated(Bolus(), nm.Regimen(100, every=24, doses=doses), times, subjects=2, draws=1)
    with pytest.raises(nm.DataError, match=words):
        nm.exposure(simulation, *window)


def test_a_table_of_exposures_prints_whole():
    found = nm.exposure(simulated(Bolus(), nm.Regimen(100), [0.0, 24.0], subjects=2, draws=1), above=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert "..." not in repr(found) and "above_0.5" in repr(found) and "accumulation" in found._repr_html_()


def test_a_model_without_compartments_has_exposure_too():
    class Flat(nm.Model):
        b = nm.Normal(10.0, iiv=2.0)

        def observe(self, t, A, p):
            return {"y": p.b + 0 * t}

        y = nm.Additive(0.5)

    simulation = nm.simulate(Flat(), times=[0.0, 1, 2], subjects=2, progress=False)
    values = simulation.frame().groupby("ID")["y"].first().to_numpy()
    for found in (nm.exposure(simulation), nm.exposure(simulation, 0, 2)):
        np.testing.assert_allclose(found["Cmax"], values)
        np.testing.assert_allclose(found["AUC"], 2 * values, rtol=1e-6)
