"""What a simulation refuses: values that are no numbers, arguments of the wrong kind; and draws that stay with their subjects."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm


class Bolus(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Linear(nm.Model):
    """Clearance falls below 0 for a light subject."""

    CL = nm.LogNormal(2.8, covariates=[nm.Linear("WT", reference=70, value=0.03)])
    V = nm.LogNormal(32.0)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7)


FOUR = pd.concat(
    pd.DataFrame({"ID": i, "TIME": [0, 1.0], "EVID": [1, 0], "AMT": [100.0, 0], "DV": [np.nan, v]})
    for i, v in ((7, 2.0), (3, 1.5), (5, 3.0), (1, 2.4))
)


def simulated(**options):
    return nm.simulate(Bolus(), nm.Regimen(100), **{"times": [1.0, 4.0], "subjects": 2, "progress": False} | options)


# ---- values that are no numbers ----------------------------------------------------------------------------------------


def light():
    table = pd.DataFrame({"WT": [70.0, 70.0, 70.0, 20.0]})
    return nm.simulate(Linear(), nm.Regimen(100), times=[1.0, 12, 24], subjects=4, covariates=table, progress=False)


@pytest.mark.parametrize("call", [lambda s: s.frame(), lambda s: s.bands(), nm.exposure, lambda s: s.records(), nm.plot.regimens])
def test_a_profile_that_is_no_number_is_refused_by_whatever_computes_it(call):
    words = r"`(area of )?conc` of subject 4 in draw 0 is not a number at TIME .*CL = nan, V = 32, with WT = 20; CL is not above"
    with pytest.raises(nm.DataError, match=words):
        call(light())


def test_the_parameters_told_are_those_of_the_draw():
    class Wild(Bolus):
        CL = nm.Normal(5.0, iiv=20.0)

        def observe(self, t, A, p):
            return {"conc": p.CL**0.5 + 0 * A.central}

    with pytest.raises(nm.DataError, match=r"CL = -.*CL is not above 0"):
        nm.simulate(Wild(), nm.Regimen(1), times=[1.0], subjects=50, progress=False).frame()


def test_target_attainment_counts_no_missing_value():
    exposures = nm.exposure(simulated(times=[0.0, 4.0]))
    exposures.loc[1, "AUC"] = np.nan
    with pytest.raises(nm.DataError, match="AUC is missing for 1 of 2 profiles, first under regimen, subject 2"):
        nm.target_attainment(exposures, "AUC", at_least=1.0)


# ---- draws stay with their subjects ------------------------------------------------------------------------------------


def test_posterior_draws_stay_with_their_subjects():
    fit = nm.evaluate(Bolus(), FOUR, nm.FOCE(interaction=True))
    posterior = nm.posterior(fit, FOUR, 20)
    for given in (posterior, posterior.draws, posterior.draws.reset_index(), posterior.draws.sample(frac=1, random_state=1)):
        simulation = nm.simulate(fit, nm.Regimen(100), times=[1.0], eta=given, progress=False)
        frame = simulation.frame().set_index(["ID", "draw"])["conc"]
        own = given.draws if given is posterior else given
        if given is posterior or list(own.index) == list(posterior.draws.index):
            drawn = posterior.draws["CL"].loc[list(frame.index)]
            np.testing.assert_allclose(frame, 2.5 * np.exp(-5 * np.exp(drawn) / 40), rtol=1e-9)
        assert simulation.draws == 20
    assert nm.simulate(fit, nm.Regimen(100), times=[1.0], eta=posterior.draws, draws=3, progress=False).draws == 3
    with pytest.raises(nm.MethodError, match="draws=30, but eta= has 20"):
        nm.simulate(fit, nm.Regimen(100), times=[1.0], eta=posterior.draws, draws=30, progress=False)
    with pytest.raises(nm.DataError, match=r"several draws of each subject; nm\.predict takes a row per ID"):
        nm.predict(fit, FOUR, eta=posterior.draws)


@pytest.mark.parametrize(
    ("eta", "words"),
    [
        (pd.DataFrame({"CL": [0.1, 0.2, 0.3]}, [1, 2, 2]), "two rows for subject 2"),
        (pd.DataFrame({"CL": [0.1]}, [1]), "has no subject 2"),
        (pd.DataFrame({"CL": [0.1, np.nan]}, [1, 2]), "of subject 2 has no number for CL"),
        (pd.DataFrame({"CL": ["a", "b"]}, [1, 2]), "CL must be numbers, got 'a'"),
        (pd.DataFrame({"CL": 0.1, "V": 0.1}, [1, 2]), "random effect `V` does not exist"),
        (pd.DataFrame({"ID": [1, 1, 2], "draw": [0, 1, 0], "CL": 0.1}), "2 draws of subject 1 and 1 of subject 2"),
        ([0.1, 0.2], "eta must be one of the words"),
        (None, "eta must be one of the words"),
        ("modes", "did you mean `mode`"),
    ],
)
def test_random_effects_that_are_none(eta, words):
    with pytest.raises(nm.NlmefitError, match=words):
        simulated(eta=eta)


def test_a_mode_that_is_not_known_does_not_become_zero():
    fit = nm.evaluate(Bolus(), FOUR, nm.FOCE())
    fit.eta.loc[3, "CL"] = np.nan
    with pytest.raises(nm.DataError, match="the fit's eta of subject 3 has no number for CL"):
        nm.simulate(fit, eta="mode", progress=False)


# ---- arguments ---------------------------------------------------------------------------------------------------------

DATES = pd.date_range("2020-01-01", periods=2)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("times", [DATES, [pd.Timedelta("1h")], ["a"], "ab", [np.nan], [np.inf], [], [True, False], 5, [[1, 2]], [2, 1]]),
        ("subjects", ["a", 2.5, True, -1, 0, np.nan, [1, 2]]),
        ("covariates", [3, [1], pd.DataFrame(), "WT"]),
        ("residual", ["no", 1, None]),
        ("draws", [0, -1, True, 1.5, "a"]),
        ("uncertainty", ["x", 3, True, pd.DataFrame({"CL": ["a"]}), pd.DataFrame({"CL": [np.nan]}), pd.DataFrame()]),
        ("regimens", [3, "a", {}, {"a": 3}, [nm.Regimen(1)], {1: nm.Regimen(1), "1": nm.Regimen(2)}]),
        ("key", ["a", 1.5, True, 2**70]),
        ("progress", ["no", 1]),
    ],
)
def test_arguments_of_the_wrong_kind(name, values):
    for value in values:
        arguments = {"regimens": nm.Regimen(100), "times": [1.0, 4.0], "subjects": 2} | {name: value}
        with pytest.raises(nm.NlmefitError, match=name if name != "uncertainty" else "uncertainty|CL"):
            nm.simulate(Bolus(), **arguments)


@pytest.mark.parametrize("value", ["a", np.nan, True, [True], DATES, np.datetime64("2020-01-01")])
def test_covariates_that_are_no_numbers(value):
    with pytest.raises(nm.DataError, match="covariates"):
        nm.simulate(Linear(), nm.Regimen(100), times=[1.0], subjects=2, covariates={"WT": value})


@pytest.mark.parametrize("name", ["at_least", "at_most"])
@pytest.mark.parametrize("value", ["a", True, [], np.nan, [1, "b"], DATES])
def test_thresholds_that_are_none(name, value):
    with pytest.raises(nm.DataError, match=name):
        nm.target_attainment(nm.exposure(simulated(times=[0.0, 4.0])), "AUC", **{name: value})


def test_numpy_numbers_are_taken():
    assert simulated(draws=np.int64(2), key=np.int64(3), residual=np.True_, subjects=np.int32(2)).draws == 2


# ---- a placebo arm -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placebo", [nm.Regimen(0), nm.Regimen(50, every=12, doses=3) * 0, nm.Regimen(50, duration=2).scaled(0)])
def test_a_placebo_arm(placebo):
    regimens = {"placebo": placebo, "drug": nm.Regimen(100)}
    simulation = nm.simulate(Bolus(), regimens, times=[0.0, 1.0, 30.0], subjects=2, progress=False)
    frame = simulation.frame().set_index("regimen")["conc"]
    assert (frame["placebo"] == 0).all() and (frame["drug"] > 0).all()
    assert (nm.exposure(simulation).set_index("regimen").loc["placebo", ["AUC", "Cmax"]] == 0).all().all()


def test_a_steady_state_of_nothing_empties_the_system():
    regimen = nm.Regimen(100) + (nm.Regimen(100, every=12, steady_state=True) * 0).after(12)
    frame = nm.simulate(Bolus(), regimen, times=[1.0, 13.0], subjects=1, progress=False).frame()
    assert frame["conc"].iloc[0] > 0 and frame["conc"].iloc[1] == 0


# ---- written back ------------------------------------------------------------------------------------------------------


def test_records_are_a_data_set_that_gives_the_same_predictions(tmp_path):
    regimen = nm.Regimen(100, every=12, doses=2) + nm.Regimen(50, duration=2).after(30)
    simulation = nm.simulate(Bolus(), regimen, times=[0.0, 12.0, 31.0, 40.0], subjects=3, eta="typical", progress=False)
    records = simulation.records()
    records.to_csv(tmp_path / "data.csv", index=False, na_rep=".")
    read = pd.read_csv(tmp_path / "data.csv")
    assert nm.check(read, Bolus()).query("severity == 'error'").empty
    seen = nm.predict(Bolus(), read).query("EVID == 0")
    np.testing.assert_allclose(seen["conc"], pd.to_numeric(seen["DV"]), rtol=1e-9)
    np.testing.assert_allclose(seen["conc"], simulation.frame()["conc"], rtol=1e-9)


def test_records_tell_regimens_and_draws_apart():
    regimens = {"a": nm.Regimen(1), "none": nm.Regimen(0)}
    table = nm.simulate(Bolus(), regimens, times=[1.0], subjects=2, draws=3, residual=True, progress=False).records()
    assert list(table.columns) == ["regimen", "draw", "ID", "TIME", "EVID", "MDV", "DV", "AMT"]
    assert len(table) == 2 * 3 + 2 * 2 * 3 and (table.loc[table["EVID"] == 0, "DV"].notna()).all()
