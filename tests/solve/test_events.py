"""Random dosing histories: every solver gives the same amounts, those of an event-by-event simulation that shares no code with
it, and the same history told in another way gives the same amounts again.

All histories come in batches of the same shape, with one `fullest` subject first, so that each model is compiled once.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from brute_force import Dose, simulate
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import nlmefit as nm
from nlmefit.core.backend import compiled
from nlmefit.population.latent import PopulationModel

LIBRARY = {1: nm.OneCompartment, 2: nm.TwoCompartment, 3: nm.ThreeCompartment}
STRUCTURES = [(number, absorption) for number in LIBRARY for absorption in (None, "first-order", "zero-order")]

SUBJECTS = 25
RECORDS = 16
DOSES = 24
"""Doses of a subject at most, with those that ADDL makes."""
STEADY = 3
RESETS = 2
CASES = 600
"""Random histories at least, solved in every way."""
EXAMPLES = -(-CASES // (len(STRUCTURES) * (SUBJECTS - 1)))
KINDS = [(*structure, True) for structure in STRUCTURES] + [(1, None, False), (2, "first-order", False)]
"""With infusions longer than the interval of a steady state, and without: responses of doses are then added up in closed form."""

COMPARTMENTS = {
    (number, absorption): (["depot"] if absorption == "first-order" else [])
    + ["central"]
    + [[], ["peripheral"], ["peripheral1", "peripheral2"]][number - 1]
    for number, absorption in STRUCTURES
}


# ---- models: everything individual is a column of the data ------------------------------------------------------------


class Columns(nm.Model, abstract=True):
    """Individual parameters and the properties of doses from columns; the latter differ from compartment to compartment."""

    y = nm.Additive(1.0)

    def individual(self, theta, eta, x):
        return {
            "ka": x.KA,
            "CL": x.C0,
            "V": x.V0,
            "V1": x.V0,
            "Q": x.C1,
            "Q2": x.C1,
            "V2": x.VP1,
            "Q3": x.C2,
            "V3": x.VP2,
            "Tk0": x.T0,
        }

    def observe(self, t, A, p):
        return {"y": A.central}


def properties(names, p):
    """What `brute_force` computes by `dose_of`."""
    return {
        name: nm.Dosing(lag=k * p.LAG, bioavailability=p.F + 0.1 * k, rate=p.R * (k + 1), duration=p.D + k)
        for k, name in enumerate(names)
    }


@cache
def closed(number, absorption):
    class Closed(Columns):
        dynamics = LIBRARY[number](absorption)
        solver = nm.ClosedForm()

        def dosing(self, p):
            return properties(COMPARTMENTS[number, absorption], p)

    return Closed()


@cache
def written(number, absorption, how=None):
    """The same as equations; its solver is `how`, or the automatic choice."""

    class Written(Columns):
        def dosing(self, p):
            return properties(COMPARTMENTS[number, absorption], p)

        def dynamics(self, t, A, p):
            rates = {"depot": -p.ka * A.depot} if absorption == "first-order" else {}
            central = -p.CL / p.V * A.central + (p.ka * A.depot if rates else 0.0)
            if number == 1:
                return rates | {"central": central}
            if number == 2:
                exchange = p.Q / p.V1 * A.central - p.Q / p.V2 * A.peripheral
                return rates | {"central": central - exchange, "peripheral": exchange}
            first = p.Q2 / p.V1 * A.central - p.Q2 / p.V2 * A.peripheral1
            second = p.Q3 / p.V1 * A.central - p.Q3 / p.V3 * A.peripheral2
            return rates | {"central": central - first - second, "peripheral1": first, "peripheral2": second}

    if how is None:
        return Written()

    class Solved(Written):
        solver = how

    return Solved()


STEPS = nm.RungeKutta(rtol=1e-9, atol=1e-11)
TWO_ORAL = (2, "first-order")
SOLVED = {"closed form": closed(*TWO_ORAL), "matrix exponential": written(*TWO_ORAL), "Runge-Kutta": written(*TWO_ORAL, STEPS)}
TOLERANCE = {"closed form": 1e-10, "matrix exponential": 1e-10, "Runge-Kutta": 1e-7}

# ---- from records to amounts -----------------------------------------------------------------------------------------

_programs: dict[Any, Any] = {}


def amounts(model, frame, rule="nocb", eta=None):
    """Amounts (subjects, records, compartments): what `nm.predict` gives, by a program that is compiled once for each model."""
    subjects = nm.Subjects.from_frame(frame, model, every_record=True, covariates=rule)
    latent = PopulationModel.of(model, subjects)
    theta = {name: jnp.asarray(p.start, float) for name, p in latent.parameters().items()}
    wanted = model.specification.compartments
    if latent.structure() not in _programs:
        _programs[latent.structure()] = compiled(jax.vmap(lambda eta, s: latent.predict(theta, eta, s, wanted)[1]))
    eta = np.zeros((len(subjects), len(latent.eta_names()))) if eta is None else eta
    found = _programs[latent.structure()](eta, subjects.subjects)
    return np.stack([np.asarray(found[name]) for name in wanted], axis=-1)


def agree(found, expected, tolerance):
    """Relative to each subject's largest amount."""
    largest = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=tolerance)


NOTHING = {"EVID": 2, "AMT": 0.0, "CMT": 1, "RATE": 0.0, "DUR": 0.0, "II": 0.0, "ADDL": 0, "SS": 0}


def record(time, evid=0, amount=0.0, **fields):
    return NOTHING | {"TIME": float(time), "EVID": evid, "AMT": amount} | fields


def individual(rng):
    """Individual parameters, and the properties of doses, in quarters of an hour so that times meet."""
    spans = {"KA": (0.4, 2), "C0": (3, 9), "V0": (10, 40), "C1": (2, 8), "VP1": (10, 40), "C2": (2, 8), "VP2": (20, 50)}
    spans |= {"T0": (0.5, 6), "F": (0.5, 1.2), "R": (15, 60), "D": (0.5, 9)}
    return {name: rng.uniform(*span) for name, span in spans.items()} | {
        "LAG": rng.choice([0.0, 0.0, 0.25, 0.5, 1.0]),
    }


def history(rng, size, long=True, lagged=False):
    """Records of one subject. Only `long` ones have infusions beyond the interval of a steady state; `lagged` ones have no input
    since ever, whose end a lag leaves open (see below)."""
    records, time, left, steady, resets = [], 0.0, DOSES, STEADY, RESETS
    while len(records) < RECORDS:
        time += rng.choice([0.0, 0.25, 1.5, 4.0, 9.75])
        evid = int(rng.choice([0, 1, 2, 3, 4], p=[0.4, 0.46, 0.04, 0.04, 0.06]))
        if evid in (1, 4) and left == 0:
            evid = 0
        if evid in (3, 4):
            evid, resets = (evid, resets - 1) if resets else (0, 0)
        if evid in (3, 4) and rng.random() < 0.3:
            time = float(rng.choice([0.0, 2.0]))
        if evid in (0, 2, 3):
            records.append(record(time, evid))
            continue
        ss = int(rng.choice([0, 1, 2])) if steady else 0
        steady -= ss > 0
        fields = dose(rng, size, ss, long, lagged)
        fields["ADDL"] = int(min(fields["ADDL"], left - 1))
        left -= fields["ADDL"] + 1
        records.append(record(time, evid, **fields))
    return records


def dose(rng, size, ss, long, lagged):
    fields = {"CMT": int(rng.integers(1, size + 1)), "SS": ss}
    if ss and not lagged and rng.random() < 0.15:
        return fields | {"amount": 0.0, "RATE": rng.uniform(1, 20), "ADDL": 0}  # an input since ever
    interval = float(rng.choice([4.0, 8.5, 12.0, 24.0]))
    repeated = bool(ss or rng.random() < 0.4)
    fields |= {
        "amount": rng.uniform(10, 100),
        "II": interval if repeated else 0.0,
        "ADDL": int(rng.integers(0, 4)) if repeated else 0,
    }
    duration = interval * rng.uniform(0.1, 3.0 if long else 0.7)
    how = rng.choice(["bolus", "RATE", "DUR", "modelled"])
    if how == "RATE":
        return fields | {"RATE": fields["amount"] / duration}
    if how == "DUR":
        return fields | {"DUR": duration}
    return fields | {"RATE": float(rng.choice([-1, -2])) if how == "modelled" and (long or not ss) else 0.0}


def fullest(size, long=True):
    """A subject with as many doses, steady states and resets as any may have, and doses of every kind."""
    kinds = [{"RATE": 20.0}, {"DUR": 2.0}, {"RATE": -1.0}, {"RATE": -2.0}, {}]
    doses = [record(0, 3), record(0, 3), *(record(k, 1, 50.0, CMT=k % size + 1, **kind) for k, kind in enumerate(kinds))]
    doses += [record(5 + k, 1, 50.0, II=12.0, SS=k + 1 if k < 2 else 2, RATE=-1.0 if long else 0.0) for k in range(STEADY)]
    doses += [record(9, 1, 10.0, II=12.0, ADDL=DOSES - len(kinds) - STEADY - 1)]
    return [*doses, *(record(30 + k) for k in range(RECORDS - len(doses)))]


def batch(histories, parameters, size=3, long=True):
    """A frame in which the fullest subject comes first and the histories follow, filled up with records that do nothing."""
    rows = []
    everyone = [(fullest(size, long), individual(np.random.default_rng(0))), *zip(histories, parameters, strict=True)]
    everyone += [everyone[-1]] * (SUBJECTS - len(everyone))
    for who, (records, p) in enumerate(everyone):
        filled = records + [record(records[-1]["TIME"], 2)] * (RECORDS - len(records))
        assert len(filled) == RECORDS
        rows += [{"ID": who, **p, **r} for r in filled]
    return pd.DataFrame(rows)


def random_batch(seed, size, long=True):
    rng = np.random.default_rng(seed)
    count = SUBJECTS - 1
    parameters = [individual(rng) for _ in range(count)]
    return batch([history(rng, size, long, p["LAG"] > 0) for p in parameters], parameters, size, long)


def zero_order_written_out(frame):
    """Boluses into the central compartment as infusions over T0."""
    bolus = frame["EVID"].isin([1, 4]) & (frame["CMT"] == 1) & (frame["RATE"] == 0) & (frame["DUR"] == 0)
    return frame.assign(DUR=np.where(bolus, frame["T0"], frame["DUR"]))


def seeds(examples):
    """A property of random batches; what fails is a seed, which nothing can shrink."""
    return lambda test: settings(max_examples=examples, deadline=None, phases=[Phase.generate])(given(SEEDS)(test))


SEEDS = st.integers(0, 2**32 - 1)

# ---- all solvers give the same, and the truth ------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "absorption", "long"), KINDS)
@seeds(EXAMPLES)
def test_closed_form_and_matrix_exponential_agree(number, absorption, long, seed):
    frame = random_batch(seed, len(COMPARTMENTS[number, absorption]), long)
    same = zero_order_written_out(frame) if absorption == "zero-order" else frame
    agree(amounts(closed(number, absorption), frame), amounts(written(number, absorption), same), 1e-8)


@pytest.mark.parametrize("structure", [TWO_ORAL, (1, "zero-order")])
@seeds(EXAMPLES)
def test_steps_agree_with_the_closed_form(structure, seed):
    frame = random_batch(seed, len(COMPARTMENTS[structure]))
    same = zero_order_written_out(frame) if structure[1] == "zero-order" else frame
    agree(amounts(written(*structure, STEPS), same), amounts(closed(*structure), frame), 1e-6)


def matrix(structure):
    """K from a record's columns."""
    names, (number, _) = COMPARTMENTS[structure], structure

    def build(r):
        K, central = np.zeros((len(names), len(names))), names.index("central")
        K[central, central] = -r["C0"] / r["V0"]
        for place, (flow, volume) in enumerate([("C1", "VP1"), ("C2", "VP2")][: number - 1], central + 1):
            K[[central, place], central] += np.array([-1, 1]) * r[flow] / r["V0"]
            K[[central, place], place] += np.array([1, -1]) * r[flow] / r[volume]
        if central:
            K[:2, 0] = -r["KA"], r["KA"]
        return K

    return build


def dose_of(structure):
    """A record's dose, with everything that `properties` says of it and the zero-order absorption."""
    size = len(COMPARTMENTS[structure])

    def build(r):
        k = r["CMT"] - 1
        amount, duration = r["AMT"] * (r["F"] + 0.1 * k), r["DUR"]
        if r["RATE"] != 0:
            duration = {-1: amount / (r["R"] * (k + 1)), -2: r["D"] + k}.get(r["RATE"], amount / r["RATE"])
        elif structure[1] == "zero-order" and k == 0 and duration == 0:
            duration = r["T0"]
        return Dose(amount * np.eye(size)[k], k * r["LAG"], duration)

    return build


def truth(frame, structure, rule="nocb"):
    people = [rows.to_dict("records") for _, rows in frame.groupby("ID")]
    return np.array([simulate(rows, matrix(structure), dose_of(structure), rule) for rows in people])


@pytest.mark.parametrize(
    ("number", "absorption", "long"), [(2, "first-order", True), (2, "first-order", False), (1, "zero-order", True)]
)
def test_all_solvers_agree_with_an_event_by_event_simulation(number, absorption, long):
    structure = number, absorption
    frame = random_batch(7, len(COMPARTMENTS[structure]), long)
    expected = truth(frame, structure)
    agree(amounts(closed(*structure), frame), expected, 1e-7)
    same = zero_order_written_out(frame) if absorption == "zero-order" else frame
    agree(amounts(written(*structure), same), expected, 1e-7)
    if long:
        agree(amounts(written(*structure, STEPS), same), expected, 1e-6)


@pytest.mark.parametrize(("number", "absorption"), [(1, None), (2, "first-order"), (3, "first-order")])
def test_boluses_alone_agree_with_an_event_by_event_simulation(number, absorption):
    """Many, lagged, some just before a reset: the closed form then carries them from dose to dose."""
    structure = number, absorption
    frame = random_batch(11, len(COMPARTMENTS[structure])).assign(RATE=0.0, DUR=0.0, SS=0)
    dosed = frame["EVID"].isin([1, 4])
    frame["AMT"] = np.where(dosed & (frame["AMT"] == 0), 10.0, frame["AMT"])
    agree(amounts(closed(*structure), frame), truth(frame, structure), 1e-12)


def test_predict_gives_the_same_amounts():
    frame = random_batch(3, 3)
    found = nm.predict(SOLVED["closed form"], frame)
    compiled_once = amounts(SOLVED["closed form"], frame)
    np.testing.assert_allclose(found[["A_depot", "A_central", "A_peripheral"]], compiled_once.reshape(-1, 3), rtol=1e-12)
    np.testing.assert_array_equal(found["y"], found["A_central"])


@pytest.mark.parametrize("rule", ["nocb", "locf"])
def test_parameters_that_change_from_record_to_record(rule):
    """Doses too: each has the lag, bioavailability, rate and duration of its own record."""
    frame, rng = random_batch(11, 3), np.random.default_rng(12)
    changing = pd.DataFrame([individual(rng) | {"LAG": lag} for lag in frame["LAG"]], index=frame.index)
    frame = frame.assign(**changing)
    expected = truth(frame, TWO_ORAL, rule)
    for how, model in SOLVED.items():
        agree(amounts(model, frame, rule), expected, 10 * TOLERANCE[how] + 1e-7)


# ---- the same history told in another way -----------------------------------------------------------------------------

OBSERVED = [0.0, 6.25, 18.0, 24.0, 31.5, 48.0, 75.25]


def observed(model, histories, parameters):
    """Amounts at the observations (histories, observations, compartments) of doses told before the observations of equal time."""
    told = [sorted(doses + [record(t) for t in OBSERVED], key=lambda r: r["TIME"]) for doses in histories]
    frame = batch(told, parameters)
    seen = (frame["EVID"] == 0).to_numpy().reshape(SUBJECTS, RECORDS)
    found = amounts(model, frame)
    return np.array([found[who, seen[who]] for who in range(1, len(histories) + 1)])


def regimen(rng, count=3, **fixed):
    """Doses of all kinds into all compartments, the last at steady state on top of what is there."""
    times = np.sort(rng.choice([0.0, 3.0, 6.25, 12.0, 20.5, 24.0], count, replace=False))
    return [record(t, 1, **dose(rng, 3, 2 if place == count - 1 else 0, True, True) | fixed) for place, t in enumerate(times)]


def same_amounts(how, tell, examples=8, tolerance=None, **parameters):
    """`tell(rng)` gives two histories of the same amounts; their individual parameters are random but for `parameters`."""
    rng = np.random.default_rng(21)
    people = [individual(rng) | parameters for _ in range(examples)]
    first, second = zip(*(tell(rng) for _ in range(examples)), strict=True)
    agree(observed(SOLVED[how], list(second), people), observed(SOLVED[how], list(first), people), tolerance or TOLERANCE[how])


@pytest.mark.parametrize("how", SOLVED)
def test_doses_add_up(how):
    rng = np.random.default_rng(20)
    people = [individual(rng) for _ in range(8)]
    first, second = ([regimen(rng) for _ in people] for _ in range(2))
    parts = [observed(SOLVED[how], histories, people) for histories in (first, second)]
    together = observed(SOLVED[how], [a + b for a, b in zip(first, second, strict=True)], people)
    agree(together, parts[0] + parts[1], TOLERANCE[how])


@pytest.mark.parametrize("how", SOLVED)
def test_a_later_start_changes_nothing(how):
    frame = random_batch(22, 3)
    agree(amounts(SOLVED[how], frame.assign(TIME=frame["TIME"] + 7.25)), amounts(SOLVED[how], frame), TOLERANCE[how])


@pytest.mark.parametrize("how", SOLVED)
def test_additional_doses_are_doses(how):
    def tell(rng):
        first = record(3.0, 1, **dose(rng, 3, 0, True, True) | {"ADDL": 3, "II": 12.0})
        return [first], [first | {"ADDL": 0, "TIME": 3.0 + 12 * k} for k in range(4)]

    same_amounts(how, tell)


@pytest.mark.parametrize("how", SOLVED)
def test_a_steady_state_is_what_many_doses_come_to(how):
    """With lag, and with infusions longer than the interval, which go on after the record of the steady state."""
    interval = 12.0

    def tell(rng):
        one = record(0.0, 1, **dose(rng, 3, 1, True, True) | {"ADDL": 0, "II": interval})
        many = one | {"TIME": -interval * (DOSES - 1), "SS": 0, "ADDL": DOSES - 1}
        return [one], [many]

    same_amounts(how, tell, C0=9.0, V0=10.0, C1=9.0, VP1=10.0, KA=1.0, LAG=0.5, tolerance=1e-6)


@pytest.mark.parametrize("how", SOLVED)
def test_a_rate_says_the_same_as_a_duration(how):
    def tell(rng):
        amount, duration, time = rng.uniform(10, 100), rng.uniform(1, 20), rng.choice([0.0, 3.0])
        by_rate = record(time, 1, amount, CMT=2, RATE=amount / duration, ADDL=1, II=12.0)
        return [by_rate], [by_rate | {"RATE": 0.0, "DUR": duration}]

    same_amounts(how, tell, F=0.9)  # that is 1 for compartment 2: else one has another rate, the other another duration


@pytest.mark.parametrize("how", SOLVED)
def test_evid_4_is_a_reset_and_a_dose(how):
    def tell(rng):
        before = regimen(rng)
        new = record(24.0, 1, **dose(rng, 3, 0, True, True))
        return [*before, new | {"EVID": 4}], [*before, record(24.0, 3), new]

    same_amounts(how, tell)


@pytest.mark.parametrize("how", SOLVED)
def test_two_halves_of_a_bolus_are_one(how):
    def tell(rng):
        before = regimen(rng)
        whole = record(6.25, 1, rng.uniform(10, 100), CMT=int(rng.integers(1, 4)), ADDL=1, II=12.0)
        half = whole | {"AMT": whole["AMT"] / 2}
        return [*before, whole], [*before, half, half]

    same_amounts(how, tell)


@pytest.mark.parametrize("how", SOLVED)
def test_amounts_in_other_units(how):
    """Milligrams or micrograms: the steps are the same."""
    frame = random_batch(23, 3)
    rate = frame["RATE"] * np.where(frame["RATE"] > 0, 1000, 1)
    micro = frame.assign(AMT=frame["AMT"] * 1000, RATE=rate, R=frame["R"] * 1000)
    agree(amounts(SOLVED[how], micro) / 1000, amounts(SOLVED[how], frame), 1e-9)


# ---- what needs a case of its own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SOLVED)
@pytest.mark.parametrize("long", [True, False])
def test_an_input_since_ever_ends_at_its_record_also_with_a_lag(how, long):
    """AMT 0, RATE and SS 1 (NONMEM: it ends at the time of the record), into compartments of all lags, 1 h and 2 h too."""
    people = [individual(np.random.default_rng(1)) | {"LAG": lag} for lag in (0.0, 0.5, 1.0) for _ in range(3)]
    told = [
        [record(4.0, 1, SS=1, RATE=10.0, CMT=k % 3 + 1), *(record(t) for t in (4.0, 4.25, 6.0, 9.0))] for k in range(len(people))
    ]
    frame = batch(told, people, 3, long)
    agree(amounts(SOLVED[how], frame), truth(frame, TWO_ORAL), 1e-6)


@pytest.mark.parametrize("how", SOLVED)
def test_bioavailability_may_stretch_an_infusion_beyond_the_interval_of_its_steady_state(how):
    """A rate is given, so that more drug takes longer: 0.9 intervals become 1.35 or 2.7."""
    p = individual(np.random.default_rng(2))
    rows = [record(0.0, 1, 90.0, RATE=10.0, II=10.0, SS=1), *(record(t) for t in (0.0, 1.0, 3.0, 5.0, 14.0, 20.0))]
    frame = pd.DataFrame([{"ID": who, **p, "F": F, **r} for who, F in enumerate((1.0, 1.5, 3.0)) for r in rows])
    agree(amounts(SOLVED[how], frame), truth(frame, TWO_ORAL), 1e-6)


def test_covariates_that_run_linearly_between_records():
    """Clearance and volume run; a dose has the properties of its own record."""
    rng = np.random.default_rng(31)
    p = individual(rng) | {"LAG": 0.5}
    times = np.array([0.0, 2.0, 5.0, 9.0, 12.0, 12.0, 20.0, 30.0])
    given = {0.0: {"amount": 50.0}, 5.0: {"amount": 40.0, "CMT": 2, "DUR": 6.0}}
    rows = [record(t, int(t in given), **given.get(t, {})) for t in times]
    C0, V0 = rng.uniform(3, 9, len(times)), rng.uniform(10, 40, len(times))
    C0[5], V0[5] = C0[4], V0[4]
    frame = pd.DataFrame([{"ID": 1, **p, **r, "C0": c, "V0": v} for r, c, v in zip(rows, C0, V0, strict=True)])
    found = amounts(SOLVED["Runge-Kutta"], frame, "linear")[0]

    def rates(t, A):
        now = p | {"C0": np.interp(t, times, C0), "V0": np.interp(t, times, V0)}
        infused = (p["F"] + 0.1) * 40.0 / 6.0 if 5.5 < t < 11.5 else 0.0
        return matrix(TWO_ORAL)(now) @ A + np.array([0.0, infused, 0.0])

    A, expected, now = np.array([p["F"] * 50.0, 0, 0]), {0.0: np.array([p["F"] * 50.0, 0, 0])}, 0.0
    for t in sorted({*times[1:], 5.5, 11.5}):
        A = solve_ivp(rates, (now, t), A, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        expected[t], now = A, t
    np.testing.assert_allclose(found, [expected[t] for t in times], rtol=0, atol=1e-6 * found.max())
    with pytest.raises(nm.DataError, match="runs linearly between records"):
        amounts(SOLVED["closed form"], frame, "linear")


class Visits(nm.Model):
    """Clearance differs between occasions."""

    CL = nm.LogNormal(4.0, iiv=0.3, iov=0.4)
    V = nm.LogNormal(20.0, iiv=0.2, iov=0.1)
    occasion = "OCC"
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"y": A.central / p.V}

    y = nm.Additive(1.0)


class VisitsWritten(Visits):
    def dynamics(self, t, A, p):
        return {"central": -p.CL / p.V * A.central}


class VisitsInSteps(VisitsWritten):
    solver = STEPS


@pytest.mark.parametrize("model", [Visits(), VisitsWritten(), VisitsInSteps()], ids=lambda m: type(m).__name__)
def test_an_occasion_may_begin_inside_a_dosing_interval(model):
    """Between two records the later one's occasion holds, as for a covariate; the second subject has one occasion only."""
    rng = np.random.default_rng(41)
    records = [record(0, 1, 50.0, ADDL=3, II=12.0), *(record(t) for t in (1.0, 8.0, 15.0, 24.0, 30.0, 40.0))]
    occasions = {1: [7, 7, 7, 3, 3, 9, 9], 2: [1] * 7}
    frame = pd.DataFrame(
        [{"ID": i, "OCC": k, **r} for i, those in occasions.items() for k, r in zip(those, records, strict=True)]
    )
    names = ["CL", "V", *(f"kappa_{name}_{k}" for k in (1, 2, 3) for name in ("CL", "V"))]
    eta = pd.DataFrame(0.4 * rng.normal(size=(2, len(names))), index=[1, 2], columns=names)
    found = nm.predict(model, frame, eta)
    for who, those in occasions.items():
        number = {k: place for place, k in enumerate(dict.fromkeys(those), 1)}
        e = eta.loc[who]
        value = {
            k: (4 * np.exp(e["CL"] + e[f"kappa_CL_{n}"]), 20 * np.exp(e["V"] + e[f"kappa_V_{n}"])) for k, n in number.items()
        }
        rows = frame[frame["ID"] == who].to_dict("records")
        A = simulate(
            rows,
            lambda r, value=value: np.array([[-value[r["OCC"]][0] / value[r["OCC"]][1]]]),
            lambda r: Dose(np.array([r["AMT"]]), 0.0, 0.0),
        )[:, 0]
        own = found[found["ID"] == who]
        np.testing.assert_allclose(own["A_central"], A, rtol=1e-7)
        np.testing.assert_allclose(own["y"], A / [value[k][1] for k in those], rtol=1e-7)
