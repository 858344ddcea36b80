"""Predictions against formulas written by hand and against an ODE solver that knows nothing of the package."""

import io

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import PKPD, Counts, Theophylline, TheophyllineZeroOrder
from scipy.integrate import solve_ivp

import nlmefit as nm

KA, CL, V = 1.5, 2.8, 32.0
K = CL / V


class Bolus(nm.Model):
    """One compartment, doses into it."""

    CL = nm.LogNormal(CL, iiv=0.3)
    V = nm.LogNormal(V, iiv=0.15)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7)


class TwoOral(nm.Model):
    """Two compartments and a depot."""

    ka = nm.LogNormal(KA, iiv=0.6)
    CL = nm.LogNormal(CL, iiv=0.3)
    V1 = nm.LogNormal(V)
    Q = nm.LogNormal(4.0)
    V2 = nm.LogNormal(50.0)
    dynamics = nm.TwoCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Additive(0.7)


class Dosed(Bolus):
    """Lag, bioavailability, rate and duration are modelled."""

    lag = nm.Theta(0.5, lower=0)
    F = nm.Theta(0.8, lower=0)
    R = nm.Theta(20.0, lower=0)
    D = nm.Theta(3.0, lower=0)

    def dosing(self, p):
        return {"central": nm.Dosing(lag=p.lag, bioavailability=p.F, rate=p.R, duration=p.D)}


ORAL, BOLUS, TWO_ORAL, DOSED, TWO_ENDPOINTS = Theophylline(), Bolus(), TwoOral(), Dosed(), PKPD()


def frame(text):
    """Records from a table written as text."""
    return pd.read_csv(io.StringIO(text.strip()), sep=r"\s+")


def records(times, **dose):
    """One subject: a dose record at time 0, then records at the times."""
    first = pd.DataFrame([{"ID": 1, "TIME": 0.0, "EVID": 1, "AMT": 100.0, **dose}])
    rest = pd.DataFrame({"ID": 1, "TIME": np.asarray(times, float), "EVID": 0, "AMT": 0.0})
    return pd.concat([first, rest], ignore_index=True).fillna(0.0)


def bateman(t, amount=100.0, ka=KA, k=K):
    """Amount in the central compartment at t after an oral dose."""
    return np.where(t >= 0, amount * ka / (ka - k) * (np.exp(-k * t) - np.exp(-ka * t)), 0.0)


def infused(t, amount, duration, k=K):
    """Amount in the central compartment at t after the start of an infusion."""
    inside = np.clip(t, 0, duration)
    return amount / duration / k * (1 - np.exp(-k * inside)) * np.exp(-k * np.maximum(t - duration, 0))


T = np.array([0.0, 0.25, 1.0, 2.0, 3.5, 8.0, 24.0])


def test_oral_dose():
    found = nm.predict(ORAL, records(T))
    np.testing.assert_allclose(found["conc"][1:], bateman(T) / V, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found["A_central"][1:], bateman(T), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found["A_depot"][1:], 100 * np.exp(-KA * T), rtol=1e-13)


def test_a_dose_record_shows_the_system_just_after_its_dose():
    found = nm.predict(ORAL, records([1.0]))
    assert found["A_depot"][0] == 100.0 and found["A_central"][0] == 0.0
    infusion = nm.predict(BOLUS, records([1.0], DUR=2.0))
    assert infusion["A_central"][0] == 0.0
    assert nm.predict(BOLUS, records([1.0]))["A_central"][0] == pytest.approx(100.0)


@pytest.mark.parametrize("how", [{"RATE": 25.0}, {"DUR": 4.0}])
def test_infusion(how):
    found = nm.predict(BOLUS, records(T, **how))
    np.testing.assert_allclose(found["A_central"][1:], infused(T, 100.0, 4.0), rtol=1e-12, atol=1e-14)


def test_a_dose_into_the_central_compartment_passes_the_depot_by():
    found = nm.predict(ORAL, records(T, CMT=2))
    np.testing.assert_allclose(found["A_central"][1:], 100 * np.exp(-K * T), rtol=1e-13)
    assert not found["A_depot"].any()


def test_additional_doses_are_doses_written_out():
    addl = nm.predict(ORAL, records([1.0, 12.0, 30.0, 60.0], II=12.0, ADDL=3))
    t = addl["TIME"].to_numpy()[1:]
    expected = sum(bateman(t - start) for start in (0, 12, 24, 36))
    np.testing.assert_allclose(addl["A_central"][1:], expected, rtol=1e-12)


def test_steady_state_of_boluses():
    found = nm.predict(BOLUS, records(T, SS=1, II=12.0))
    expected = 100 * np.exp(-K * T) / (1 - np.exp(-K * 12))
    np.testing.assert_allclose(found["A_central"][1:], expected, rtol=1e-12)


def many(times, interval, amount_at):
    """Amounts at the times after the last of very many doses."""
    starts = -interval * np.arange(400)
    return sum(amount_at(np.asarray(times) - start) for start in starts)


def test_steady_state_of_oral_doses_and_of_infusions_is_that_of_very_many_doses():
    oral = nm.predict(ORAL, records(T, SS=1, II=12.0))
    np.testing.assert_allclose(oral["A_central"][1:], many(T, 12.0, bateman), rtol=1e-11)
    infusion = nm.predict(BOLUS, records(T, SS=1, II=12.0, RATE=25.0))
    np.testing.assert_allclose(infusion["A_central"][1:], many(T, 12.0, lambda t: infused(t, 100.0, 4.0)), rtol=1e-11)


def test_steady_state_empties_the_system_first_with_1_and_adds_with_2():
    df = frame("""
    ID TIME AMT EVID SS II
    1  0    500 1    0  0
    1  6    100 1    1  12
    1  9    0   0    0  0
    2  0    500 1    0  0
    2  6    100 1    2  12
    2  9    0   0    0  0
    """)
    steady = 100 * np.exp(-K * 3) / (1 - np.exp(-K * 12))
    found = nm.predict(BOLUS, df)["A_central"].to_numpy()
    np.testing.assert_allclose(found[[2, 5]], [steady, steady + 500 * np.exp(-K * 9)], rtol=1e-12)


def test_an_endless_infusion_at_steady_state():
    found = nm.predict(BOLUS, records([0.0, 5.0], AMT=0.0, RATE=10.0, SS=1))
    np.testing.assert_allclose(found["A_central"][1:], 10 / K * np.exp(-K * np.array([0.0, 5.0])), rtol=1e-12)


def test_resets_with_and_without_a_dose():
    df = frame("""
    ID TIME AMT EVID
    1  0    100 1
    1  2    0   0
    1  3    0   3
    1  4    0   0
    1  5    50  1
    1  6    0   0
    1  0    80  4
    1  2    0   0
    """)
    found = nm.predict(ORAL, df)["A_central"].to_numpy()
    expected = [0, bateman(2.0), 0, 0, 0, bateman(1.0, 50.0), 0, bateman(2.0, 80.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_a_reset_cancels_what_is_still_to_come():
    df = frame("""
    ID TIME AMT EVID II ADDL DUR
    1  0    100 1    12 5    4
    1  2    0   3    0  0    0
    1  3    0   0    0  0    0
    1  13   0   0    0  0    0
    """)
    assert not nm.predict(BOLUS, df)["A_central"][2:].any()


def test_other_events_are_predicted_and_change_nothing():
    df = records(T)
    other = df.copy()
    other.loc[3, "EVID"] = 2
    np.testing.assert_array_equal(nm.predict(ORAL, df)["conc"], nm.predict(ORAL, other)["conc"])


def test_modelled_lag_bioavailability_rate_and_duration():
    bolus = nm.predict(DOSED, records(T))
    np.testing.assert_allclose(bolus["A_central"][1:], np.where(T >= 0.5, 80 * np.exp(-K * (T - 0.5)), 0.0), rtol=1e-12)
    # a given rate is kept: bioavailability shortens the infusion; with a given duration it lowers the rate
    for how, duration in (({"RATE": 25.0}, 80 / 25), ({"DUR": 4.0}, 4.0), ({"RATE": -1}, 80 / 20), ({"RATE": -2}, 3.0)):
        found = nm.predict(DOSED, records(T, **how))
        np.testing.assert_allclose(
            found["A_central"][1:], infused(T - 0.5, 80.0, duration), rtol=1e-12, atol=1e-14, err_msg=str(how)
        )


def test_a_lagged_dose_counts_at_the_very_time_of_its_arrival():
    found = nm.predict(DOSED, records([0.25, 0.5]))
    np.testing.assert_allclose(found["A_central"], [0, 0, 80.0], rtol=1e-12)


def test_a_lagged_dose_at_steady_state_follows_those_of_the_interval_before():
    found = nm.predict(DOSED, records(T, SS=1, II=12.0))
    since = np.where(T >= 0.5, T - 0.5, T - 0.5 + 12.0)
    np.testing.assert_allclose(found["A_central"][1:], 80 * np.exp(-K * since) / (1 - np.exp(-K * 12)), rtol=1e-12)


def test_zero_order_absorption_is_an_infusion_of_duration_tk0():
    model = TheophyllineZeroOrder()
    found = nm.predict(model, records(T))
    np.testing.assert_allclose(found["A_central"][1:], infused(T - 0.1, 100.0, 1.8), rtol=1e-12, atol=1e-14)
    # an infusion that the record gives is kept
    np.testing.assert_allclose(
        nm.predict(model, records(T, DUR=4.0))["A_central"][1:], infused(T - 0.1, 100.0, 4.0), rtol=1e-12, atol=1e-14
    )


def test_a_modelled_duration_of_another_compartment_leaves_zero_order_absorption_alone():
    class Both(nm.Model):
        CL, V1, Q, V2, Tk0 = nm.LogNormal(1.0), nm.LogNormal(10.0), nm.LogNormal(1.0), nm.LogNormal(5.0), nm.Theta(2.0)
        dynamics = nm.TwoCompartment(absorption="zero-order")

        def dosing(self, p):
            return {"peripheral": nm.Dosing(duration=5.0)}

        def observe(self, t, A, p):
            return {"conc": A.central}

        conc = nm.Additive(1.0)

    asked, plain = (nm.predict(Both(), records([1.0, 3.0], RATE=rate))["conc"] for rate in (-2, 0))
    np.testing.assert_array_equal(asked, plain)


def ode(system, doses, times):
    """Amounts at the times; doses are (time, amount, compartment, duration); the solver stops at every event."""
    events = np.unique([0.0, *[t for d in doses for t in (d[0], d[0] + d[3])], *times])
    A, result = np.zeros(len(system)), {}
    for start, end in zip(events, [*events[1:], events[-1]], strict=True):
        for time, amount, place, duration in doses:
            A[place] += amount if duration == 0 and time == start else 0.0
        result[start] = A.copy()
        inflow = np.zeros(len(system))
        for time, amount, place, duration in doses:
            inflow[place] += amount / duration if duration > 0 and time <= start < time + duration else 0.0
        if end > start:
            A = solve_ivp(lambda t, a, u=inflow: system @ a + u, (start, end), A, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return np.array([result[t] for t in times])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_regimens_against_an_ode_solver(seed):
    rng = np.random.default_rng(seed)
    doses = [
        (t, rng.uniform(50, 200), rng.integers(3), rng.choice([0.0, 3.0, 9.0])) for t in np.sort(rng.integers(0, 30, 5)) + 0.5
    ]
    times = np.sort(rng.uniform(0, 48, 12))
    rows = [(t, amount, 1, place + 1, duration) for t, amount, place, duration in doses] + [(t, 0, 0, 1, 0) for t in times]
    df = pd.DataFrame(rows, columns=["TIME", "AMT", "EVID", "CMT", "DUR"]).assign(ID=1).sort_values("TIME", kind="stable")
    found = nm.predict(TWO_ORAL, df)
    k10, k12, k21 = CL / V, 4.0 / V, 4.0 / 50.0
    system = np.array([[-KA, 0, 0], [KA, -k10 - k12, k21], [0, k12, -k21]])
    seen = found["EVID"] == 0
    amounts = found.loc[seen, ["A_depot", "A_central", "A_peripheral"]].to_numpy()
    np.testing.assert_allclose(amounts, ode(system, doses, times), rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(found["conc"], found["A_central"] / V, rtol=1e-14)


@settings(max_examples=8, deadline=None)
@given(
    first=st.floats(1, 500), second=st.floats(1, 500), when=st.floats(0, 20), duration=st.sampled_from([0.0, 1.0, 30.0]),
    place=st.sampled_from([1, 2, 3]), scale=st.floats(0.1, 10),
)  # fmt: skip
def test_predictions_are_linear_in_the_dose_and_two_doses_add(first, second, when, duration, place, scale):
    doses = {1: (first, 0.0), 2: (0.0, second), 3: (first, second), 4: (scale * first, scale * second)}
    rows = []
    for who, (a, b) in doses.items():
        rows.append((who, 0.0, a, 1 if a else 2, 1, 0.0))
        rows.append((who, when, b, 1 if b else 2, place, duration))
        rows += [(who, t, 0.0, 0, 1, 0.0) for t in (20.0, 21.0, 24.0, 60.0)]
    df = pd.DataFrame(rows, columns=["ID", "TIME", "AMT", "EVID", "CMT", "DUR"])
    found = nm.predict(TWO_ORAL, df)["conc"].to_numpy().reshape(4, -1)
    np.testing.assert_allclose(found[2], found[0] + found[1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found[3], scale * found[2], rtol=1e-12, atol=1e-15)


def test_at_equal_times_the_order_of_the_file_decides():
    df = frame("""
    ID TIME AMT EVID
    1  0    0   0
    1  0    100 1
    1  0    0   0
    1  12   0   0
    1  12   100 1
    1  12   0   0
    """)
    found = nm.predict(BOLUS, df)["A_central"].to_numpy()
    left = 100 * np.exp(-K * 12)
    np.testing.assert_allclose(found, [0, 100, 100, left, left + 100, left + 100], rtol=1e-13)


def test_records_come_back_as_they_were_with_the_predictions_beside_them():
    df = pd.concat([records(T).assign(ID=name, NOTE=f"of {name}") for name in ("B", "A")])
    df = df.assign(WT=70).set_index(pd.Index(np.arange(len(df)) * 3 + 5, name="line"))
    found = nm.predict(TWO_ENDPOINTS, df)
    pd.testing.assert_frame_equal(found[df.columns], df)
    assert list(found.columns[len(df.columns) :]) == ["cp", "effect", "A_depot", "A_central"]
    np.testing.assert_array_equal(found["cp"][:8].to_numpy(), found["cp"][8:].to_numpy())
    conc = found["A_central"] / 70
    np.testing.assert_allclose(found["effect"], 20 * (1 - conc / (0.5 + conc)), rtol=1e-13)


def test_subjects_of_different_length_do_not_disturb_each_other():
    long, short = records(T).assign(ID=1), records(T[:2]).assign(ID=2)
    together = nm.predict(ORAL, pd.concat([short, long]))["conc"].to_numpy()
    alone = [nm.predict(ORAL, df)["conc"].to_numpy() for df in (short, long)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-14)


def test_columns_maps_your_names():
    df = records(T).rename(columns={"TIME": "HOURS", "AMT": "DOSE"})
    found = nm.predict(ORAL, df, columns={"HOURS": "TIME", "DOSE": "AMT"})
    np.testing.assert_array_equal(found["conc"], nm.predict(ORAL, records(T))["conc"])
    assert list(found.columns[:4]) == list(df.columns[:4])


def test_etas_by_subject_in_any_order():
    df = pd.concat([records(T).assign(ID=who) for who in (3, 8)])
    eta = {8: {"V": 0.0, "ka": 0.2, "CL": 0.1}, 3: {"ka": -0.4, "CL": 0.3, "V": 0.5}, 99: {"ka": 9, "CL": 9, "V": 9}}
    found = nm.predict(ORAL, df, eta)["A_central"].to_numpy().reshape(2, -1)[:, 1:]
    for row, who in zip(found, (3, 8), strict=True):
        e = eta[who]
        expected = bateman(T, ka=KA * np.exp(e["ka"]), k=K * np.exp(e["CL"] - e["V"]))
        np.testing.assert_allclose(row, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(nm.predict(ORAL, df, pd.DataFrame(eta).T)["A_central"].to_numpy().reshape(2, -1)[:, 1:], found)


def test_the_etas_of_a_fit_give_its_individual_predictions(theophylline):
    fit = nm.evaluate(ORAL, theophylline, nm.FOCE(interaction=True))
    found = nm.predict(fit, theophylline, fit.eta)
    assert fit.eta.abs().to_numpy().max() > 0.1
    p = fit.individual.loc[found["ID"]].reset_index(drop=True)
    dose = theophylline.groupby("ID")["AMT"].transform("max").to_numpy()
    expected = bateman(found["TIME"].to_numpy(), dose, p["ka"].to_numpy(), (p["CL"] / p["V"]).to_numpy()) / p["V"].to_numpy()
    np.testing.assert_allclose(found["conc"], expected, rtol=1e-10, atol=1e-12)
    pd.testing.assert_frame_equal(nm.predict(fit, theophylline, fit), found)
    pd.testing.assert_frame_equal(nm.predict(fit, theophylline), nm.predict(ORAL, theophylline))


def test_the_mean_of_a_distribution_is_predicted():
    df = pd.DataFrame({"ID": 1, "TIME": [0.0, 1.0], "DOSE": [0.0, 0.5]})
    np.testing.assert_allclose(nm.predict(Counts(), df)["count"], [3.0, 1.5])


def test_other_values_of_the_parameters_enter():
    found = nm.predict(ORAL.at({"CL": 5.6, "ka": 0.9}), records(T))["A_central"][1:]
    np.testing.assert_allclose(found, bateman(T, ka=0.9, k=2 * K), rtol=1e-12, atol=1e-13)


class Fed(Theophylline):
    """A covariate that scales the observation only."""

    def observe(self, t, A, p):
        return {"conc": A.central / p.V * p.SCALE}


class Weighed(Theophylline):
    """A covariate of CL."""

    CL = nm.LogNormal(2.8, iiv=0.3, covariates=[nm.Power("WT", reference=70, exponent=1.0)])


class Meal(Bolus):
    """Covariates of the doses, directly and through a parameter."""

    F = nm.Theta(0.5)

    def dosing(self, p):
        return {"central": nm.Dosing(bioavailability=jnp.where(p.FED == 1, 1.0, p.F), lag=p.DELAY)}


def test_a_covariate_that_changes_in_time_may_enter_observe():
    df = records(T).assign(SCALE=1.0 + np.arange(len(T) + 1))
    found = nm.predict(Fed(), df)
    np.testing.assert_allclose(found["conc"], found["A_central"] / V * df["SCALE"], rtol=1e-13)


def test_a_covariate_that_changes_in_time_is_carried_backward():
    """CL is that of WT at the record at the end of each interval, as in NONMEM."""
    df = records(T).assign(WT=np.linspace(40.0, 100.0, len(T) + 1))
    found = nm.predict(Weighed(), df)["A_central"].to_numpy()
    depot, central, expected = 100.0, 0.0, []
    for elapsed, weight in zip(np.diff(df["TIME"]), df["WT"][1:], strict=True):
        k = K * weight / 70
        gone = bateman(elapsed, depot, k=k)
        depot, central = depot * np.exp(-KA * elapsed), central * np.exp(-k * elapsed) + gone
        expected.append(central)
    np.testing.assert_allclose(found[1:], expected, rtol=1e-12)


def test_what_a_dose_record_says_of_lag_and_bioavailability_holds_for_the_dose():
    """Covariates of later records change nothing for it, nor those of doses that ADDL made."""
    df = records(T).assign(FED=0.0, DELAY=0.25)
    df.loc[1:, "FED"], df.loc[1:, "DELAY"] = 1.0, 3.0
    found, constant = nm.predict(Meal(), df), nm.predict(Meal(), df.assign(FED=0.0, DELAY=0.25))
    np.testing.assert_allclose(found["conc"], constant["conc"], rtol=1e-14)


@pytest.mark.parametrize(
    ("eta", "words"),
    [
        ({1: {"CL": 0.1, "V": 0.0}}, "eta lacks ka: it needs ka, CL, V and has CL, V."),
        ({}, "eta lacks ka, CL, V: it needs ka, CL, V and has none."),
        ({2: {"CL": 0.1, "V": 0.0, "ka": 0.0}}, "eta has no row for subject 1; its index (or column ID) must hold"),
        ({1: {"CL": 0.1, "V": 0.0, "ka": 0.0, "Q": 1.0}}, "eta: random effect `Q` does not exist. Known: ka, CL, V."),
        (pd.DataFrame({"ka": [0.0, 0], "CL": [0.0, 0], "V": [0.0, 0]}, index=[1, 1]), "eta has two rows for subject 1."),
        ({1: {"CL": np.nan, "V": 0.0, "ka": 0.0}}, "the prediction of `conc` is not a finite number on 8 record(s), first "),
    ],
)  # fmt: skip
def test_unusable_etas_are_refused(eta, words):
    with pytest.raises(nm.DataError) as caught:
        nm.predict(ORAL, records(T), eta)
    assert words in str(caught.value)


def test_a_column_that_is_in_the_way_is_not_overwritten():
    with pytest.raises(nm.DataError, match="the data has a column `conc`, where the prediction would go; rename it, or drop it"):
        nm.predict(ORAL, nm.predict(ORAL, records(T)))


def test_a_prediction_that_is_not_a_number_names_its_record():
    class Linear(Theophylline):
        CL = nm.LogNormal(2.8, covariates=[nm.Linear("WT", reference=70, value=0.1)])

    df = pd.concat([records(T).assign(ID=who, WT=wt) for who, wt in ((1, 70.0), (2, 40.0))])
    with pytest.raises(
        nm.DataError, match=r"not a finite number on 8 record\(s\), first row 8, subject 2, TIME 0\. Check the model's values"
    ):
        nm.predict(Linear(), df)
