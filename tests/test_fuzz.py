"""Data sets, options and models corrupted at random: each answer is right by an independent rule, or an error or finding says
what is wrong; never a traceback from inside.

The short run is part of the default suite; `pytest -m slow tests/test_fuzz.py -s` runs thousands and prints the counts by class.
"""

import math
from collections import Counter
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nlmefit as nm

SHORT = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
LONG = settings(SHORT, max_examples=1200)
COUNTS: Counter[str] = Counter()
LONGEST = 3000
"""Letters of a message."""


def counted(kind, outcome):
    COUNTS[f"{kind}: {outcome}"] += 1


@pytest.fixture(scope="module", autouse=True)
def printed():
    yield
    for name, count in sorted(COUNTS.items()):
        print(f"  {name:44s} {count}")


def answered(call):
    """(answer, None), or (None, message) of a proper refusal."""
    try:
        return call(), None
    except nm.NlmefitError as error:
        message = str(error)
        assert 0 < len(message) < LONGEST, message[:LONGEST]
        assert "Traceback" not in message and "Tracer" not in message, message
        return None, message


# ---- records: bolus doses and infusions into one compartment -----------------------------------------------------------


class Bolus(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3, covariates=[nm.Power("WT", reference=70, exponent=0.75)])
    V = nm.LogNormal(40.0)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.2) + nm.Additive(0.1)


BASE = pd.DataFrame(
    {
        "ID": [1, 1, 1, 1, 1, 2, 2, 2, 2, 2],
        "TIME": [0, 1, 6, 12, 20.0] * 2,
        "EVID": [1, 0, 0, 1, 0] * 2,
        "AMT": [100.0, 0, 0, 50, 0] * 2,
        "RATE": [0.0, 0, 0, 0, 0, 25, 0, 0, 0, 0],
        "II": [12.0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "ADDL": [0, 0, 0, 0, 0] * 2,
        "SS": [0, 0, 0, 0, 0] * 2,
        "CMT": 1,
        "DV": [np.nan, 2.0, 1.1, np.nan, 0.9, np.nan, 1.4, 1.0, np.nan, 1.2],
        "WT": [70.0] * 5 + [60.0] * 5,
    }
).astype(object)
BASE.loc[0, "II"] = 0.0

CELLS = [
    np.nan, None, "", ".", "NA", "abc", "<0.5", "1", "2.5", " 3 ", "1e2", "1,5", -1, 0, 1, 2, 3, 4, 5, -2, 0.5, 7, 12.0, 100, 1e6,
    1e30, -1e30, math.inf, -math.inf, True, False, pd.NaT, datetime(2024, 1, 1, 8), pd.Timedelta(hours=3), b"1", 10**20, 1 + 2j,
    [1], (1, 2), {"a": 1}, np.int8(1), np.float32(2.5), "2024-01-01", "08:30",
]  # fmt: skip


def number(cell):
    """A cell as NONMEM reads it: a number, None where missing; ValueError for anything else."""
    if isinstance(cell, str | bytes):
        cell = (cell if isinstance(cell, str) else cell.decode()).strip()
        if cell in ("", ".", "NA"):
            return None
        return float(cell)
    if cell is None or cell is pd.NaT or isinstance(cell, float | np.floating) and math.isnan(cell):
        return None
    if isinstance(cell, int | float | np.integer | np.floating) and not isinstance(cell, bool):
        return float(cell)
    raise ValueError(cell)


class Wrong(Exception):
    """The independent rule: these records mean nothing."""


def wrong_unless(condition):
    if not condition:
        raise Wrong


def predicted(frame):
    """The concentrations by row, from the records alone, in plain Python; Wrong where they mean nothing, None where only
    numerical integration would tell."""
    found = []
    rows = frame.to_dict("records")
    seen = []
    for i, row in enumerate(rows):
        try:
            r = {name: number(cell) for name, cell in row.items() if name != "ID"}
        except ValueError:
            raise Wrong from None
        who = row["ID"]
        wrong_unless(isinstance(who, int | float | str | np.integer | np.floating) and not isinstance(who, bool) and who == who)
        wrong_unless(str(who).strip() not in ("", ".", "NA") and str(who) not in ("inf", "-inf"))
        new = i == 0 or str(rows[i - 1]["ID"]) != str(who)
        if new:
            wrong_unless(str(who) not in seen)
            seen.append(str(who))
            doses, amount_at = [], -math.inf
        t = r["TIME"]
        wrong_unless(t is not None and math.isfinite(t) and t >= amount_at)
        amount_at = t
        evid = float(bool(r["AMT"])) if r["EVID"] is None else r["EVID"]
        wrong_unless(evid in (0, 1, 2, 3, 4))
        amount, rate, ii, addl, ss = (r[name] or 0.0 for name in ("AMT", "RATE", "II", "ADDL", "SS"))
        wrong_unless(all(math.isfinite(x) and x >= 0 for x in (amount, rate, ii, addl)) and ss in (0, 1))
        wrong_unless(r["CMT"] in (None, 0, 1) and addl == int(addl))
        wrong_unless(r["DV"] is None or math.isfinite(r["DV"]))
        if evid in (1, 4):
            wrong_unless(amount > 0 and (not addl or ii > 0) and (not ss or ii > 0) and not (ii and not addl and not ss))
            wrong_unless(not (ss and rate and amount / rate > ii))
        else:
            wrong_unless(not (amount or rate or ii or addl or ss))
        wrong_unless(r["WT"] is None or r["WT"] > 0 and math.isfinite(r["WT"]))
        if evid in (3, 4):
            doses = []
        if evid in (1, 4):
            if ss:
                doses = []
            count = 1 + int(min(addl, 10000))
            past = range(-400, 0) if ss else range(0)
            doses += [(t + k * ii, amount, amount / rate if rate else 0.0) for k in (*past, *range(count))]
        found.append((who, t, evid, list(doses), r["WT"]))
    return [concentration(found, i) for i in range(len(found))]


def concentration(found, i):
    """Weights are the next that is known, else the last (nocb); they change the rate of elimination between records."""
    who, t, _, doses, _ = found[i]
    own = [(time, wt) for other, time, _, _, wt in found if str(other) == str(who)]
    known = [(time, wt) for time, wt in own if wt is not None]
    wrong_unless(known)
    if len({wt for _, wt in known}) > 1:
        return None
    k = 5.0 * (known[0][1] / 70) ** 0.75 / 40.0
    total = 0.0
    for at, amount, duration in doses:
        since = t - at
        if since < 0:
            continue
        if not duration:
            total += amount * math.exp(-k * since)
        else:
            into = min(since, duration)
            total += -amount / duration / k * math.expm1(-k * into) * math.exp(-k * (since - into))
    return total / 40.0


def test_the_rule_itself():
    np.testing.assert_allclose(nm.predict(Bolus(), BASE)["conc"].astype(float), predicted(BASE), rtol=1e-9)


@st.composite
def corrupted(draw):
    frame = BASE.copy()
    for _ in range(draw(st.integers(1, 2))):
        column = draw(st.sampled_from(list(BASE.columns)))
        cell = draw(st.sampled_from(CELLS))
        if draw(st.booleans()):
            frame.at[draw(st.integers(0, len(BASE) - 1)), column] = cell
        else:
            frame[column] = pd.Series([cell] * len(frame), dtype=object)
    return frame


def check_records(frame):
    """Right by the rule, refused, or told by a finding that the base has not."""
    answer, refused = answered(lambda: nm.predict(Bolus(), frame))
    told = len(answered(lambda: nm.check(frame, Bolus()))[0] if refused is None else [])
    if refused is not None:
        counted("records", "refused")
        return
    try:
        right = predicted(frame)
    except Wrong:
        assert told or is_told_by_time(frame), f"accepted without a word:\n{frame.to_string()}"
        counted("records", "told")
        return
    shown = answer["conc"].astype(float).to_numpy()
    for i, value in enumerate(right):
        assert value is None or shown[i] == pytest.approx(value, rel=1e-6, abs=1e-12), (
            f"row {i}: {shown[i]}, not {value}:\n{frame.to_string()}"
        )
    counted("records", "told, and right" if told else "right")


def is_told_by_time(frame):
    """Dates and times of day become hours, which the head of a fit says."""
    return any(isinstance(cell, datetime | pd.Timedelta) for cell in frame["TIME"]) or any(
        isinstance(cell, str) and (":" in cell or "-" in cell[1:]) for cell in frame["TIME"]
    )


@given(corrupted())
@SHORT
def test_corrupted_records(frame):
    check_records(frame)


@pytest.mark.slow
@given(corrupted())
@LONG
def test_many_corrupted_records(frame):
    check_records(frame)


# ---- frames -----------------------------------------------------------------------------------------------------------

FRAMES = {
    "not a table": lambda draw: draw(
        st.sampled_from([None, 3, "data.csv", [1, 2], {"ID": [1]}, np.zeros((3, 3)), pd.Series([1.0])])
    ),
    "no rows": lambda draw: BASE[:0],
    "no column": lambda draw: BASE.drop(columns=draw(st.sampled_from(list(BASE.columns)))),
    "a column twice": lambda draw: pd.concat([BASE, BASE[[draw(st.sampled_from(list(BASE.columns)))]]], axis=1),
    "another case": lambda draw: BASE.rename(columns=str.lower),
    "rows in any order": lambda draw: BASE.iloc[draw(st.permutations(range(len(BASE))))],
    "rows twice": lambda draw: pd.concat([BASE, BASE]),
    "an index that is not unique": lambda draw: BASE.set_index(pd.Index([0] * len(BASE))),
    "ID in the index": lambda draw: BASE.set_index("ID"),
    "several levels": lambda draw: BASE.set_index(["ID", "TIME"]),
    "numbers for names": lambda draw: BASE.set_axis(range(BASE.shape[1]), axis=1),
    "other names": lambda draw: BASE.rename(columns={draw(st.sampled_from(list(BASE.columns))): draw(st.text(max_size=5))}),
    "text": lambda draw: BASE.astype(str),
    "numbers": lambda draw: BASE.astype(float),
    "categories": lambda draw: BASE.astype("category"),
    "transposed": lambda draw: BASE.T,
}


def check_frame(kind, frame):
    answer, refused = answered(lambda: nm.predict(Bolus(), frame))
    if refused is not None:
        counted("frames", "refused")
        return
    upper = frame.rename(columns=lambda name: str(name).strip().upper())
    try:
        whole = upper[[c for c in BASE.columns if c in upper]].reindex(columns=BASE.columns)
        right = predicted(whole)
    except Wrong:
        assert len(nm.check(frame, Bolus())), f"{kind} accepted without a word"
        counted("frames", "told")
        return
    np.testing.assert_allclose(answer["conc"].astype(float), right, rtol=1e-6, err_msg=kind)
    counted("frames", "right")


@pytest.mark.parametrize("kind", FRAMES)
def test_frames(kind):
    @given(st.data())
    @settings(SHORT, max_examples=4)
    def run(data):
        check_frame(kind, FRAMES[kind](data.draw))

    run()


# ---- options ----------------------------------------------------------------------------------------------------------


class Flat(nm.Model):
    b = nm.Normal(10.0, iiv=2.0)

    def observe(self, t, A, p):
        return {"y": p.b}

    y = nm.Additive(0.5)


LEVELS = pd.DataFrame({"ID": [1, 1, 2, 2], "TIME": [0, 1.0] * 2, "DV": [9, 10, 12.0, 11]})
FIT = None


def fit():
    global FIT
    FIT = FIT or nm.evaluate(Flat(), LEVELS, nm.Laplace())
    return FIT


VALUES = [
    None, "no", "yes", "", True, False, 0, 1, 3, -1, 2.5, math.nan, math.inf, np.int64(3), np.float64(2.5), np.bool_(True), [],
    [1.0], (1, 2), {}, {"b": 1.0}, {"nothing": 1.0}, {"b": "x"}, {1: 2}, np.zeros(2), np.zeros((2, 2)), object(), len, nm.FOCE,
    nm.FOCE(), Flat, LEVELS, b"x", 1j, datetime(2024, 1, 1), "M3", "locf", "b",
]  # fmt: skip


def is_whole(least):
    return lambda v: isinstance(v, int | np.integer) and not isinstance(v, bool | np.bool_) and v >= least


def is_truth(v):
    return isinstance(v, bool | np.bool_)


def is_positive(v):
    return isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_ | complex) and 0 < v < math.inf


OPTIONS = {  # a call with the option, and what may be accepted
    "FOCE(interaction=)": (lambda v: nm.FOCE(interaction=v), is_truth),
    "FOCE(all_modes=)": (lambda v: nm.FOCE(all_modes=v), is_truth),
    "Quadrature(nodes=)": (lambda v: nm.Quadrature(nodes=v), is_whole(1)),
    "ImportanceSampling(draws=)": (lambda v: nm.ImportanceSampling(draws=v), is_whole(1)),
    "VI(draws=)": (lambda v: nm.VI(draws=v), lambda v: v is None or is_whole(1)(v)),
    "NUTS(draws=)": (lambda v: nm.NUTS(draws=v), is_whole(1)),
    "NUTS(chains=)": (lambda v: nm.NUTS(chains=v), is_whole(1)),
    "LogNormal(value)": (lambda v: nm.LogNormal(v), is_positive),
    "LogNormal(fixed=)": (lambda v: nm.LogNormal(1.0, fixed=v), is_truth),
    "LogNormal(iiv=)": (lambda v: nm.LogNormal(1.0, iiv=v), lambda v: v is None or is_positive(v)),
    "Additive(value)": (lambda v: nm.Additive(v), is_positive),
    "Theta(lower=)": (lambda v: nm.Theta(1.0, lower=v), lambda v: v is None or isinstance(v, int | float | np.number) and v < 1),
    "Regimen(amount)": (lambda v: nm.Regimen(v), lambda v: callable(v) or is_positive(v) or is_whole(0)(v)),
    "Regimen(every=)": (lambda v: nm.Regimen(1.0, every=v, doses=2), is_positive),
    "Regimen(doses=)": (lambda v: nm.Regimen(1.0, every=12, doses=v), is_whole(1)),
    "model.at": (lambda v: Flat().at(v), lambda v: isinstance(v, dict) and all(k == "b" and v[k] == 1.0 for k in v)),
    "fit(method)": (lambda v: nm.evaluate(Flat(), LEVELS, v), lambda v: isinstance(v, nm.FOCE)),
    "fit(model)": (lambda v: nm.evaluate(v, LEVELS, nm.Laplace()), lambda v: False),
    "fit(start=)": (
        lambda v: nm.fit(Flat(), LEVELS, nm.Laplace(), start=v, progress=False),
        lambda v: v is None or isinstance(v, dict) and all(k == "b" and v[k] == 1.0 for k in v),
    ),
    "evaluate(key=)": (lambda v: nm.evaluate(Flat(), LEVELS, nm.Laplace(), key=v), is_whole(-1)),
    "predict(eta=)": (lambda v: nm.predict(Flat(), LEVELS, eta=v), lambda v: v is None),
    "predict(columns=)": (lambda v: nm.predict(Flat(), LEVELS, columns=v), lambda v: v is None or v == {}),
    "simulate(eta=)": (lambda v: nm.simulate(Flat(), subjects=LEVELS, eta=v, progress=False).frame(), lambda v: v is None),
    "simulate(times=)": (lambda v: nm.simulate(Flat(), subjects=2, times=v, progress=False).frame(), lambda v: np.ndim(v) == 1),
    "simulate(subjects=)": (
        lambda v: nm.simulate(Flat(), subjects=v, times=[1.0], progress=False).frame(),
        lambda v: is_whole(1)(v) or v is LEVELS,
    ),
    "simulate(draws=)": (
        lambda v: nm.simulate(Flat(), subjects=2, times=[1.0], draws=v, progress=False).frame(),
        lambda v: v is None or is_whole(1)(v),
    ),
    "simulate(residual=)": (
        lambda v: nm.simulate(Flat(), subjects=2, times=[1.0], residual=v, progress=False).frame(),
        is_truth,
    ),
    "from_frame(blq=)": (lambda v: nm.Subjects.from_frame(LEVELS, Flat(), blq=v), lambda v: v == "M3"),
    "from_frame(covariates=)": (lambda v: nm.Subjects.from_frame(LEVELS, Flat(), covariates=v), lambda v: v == "locf"),
    "posterior(draws=)": (lambda v: nm.posterior(fit(), LEVELS, v), is_whole(1)),
    "compare": (lambda v: nm.compare(v, progress=False), lambda v: False),
    "load": (lambda v: nm.load(v), lambda v: False),
    "save": (lambda v: fit().save(v), lambda v: isinstance(v, str) and v),
    "diagnose": (lambda v: nm.diagnose(v), lambda v: False),
    "exposure": (lambda v: nm.exposure(v), lambda v: False),
}
FAST = [name for name in OPTIONS if name.split("(")[0] not in ("fit", "simulate", "posterior", "evaluate", "compare")]


def check_option(name, place):
    call, accepts = OPTIONS[name]
    value = VALUES[place]
    try:
        _, refused = answered(lambda: call(value))
    except Exception as error:
        return f"{name} of {value!r}: {type(error).__name__}: {error}"
    if refused is not None:
        counted("options", "refused")
        return None
    try:
        good = bool(accepts(value))
    except (TypeError, ValueError):
        good = False
    counted("options", "taken")
    return None if good else f"{name} takes {value!r}"


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, tmp_path, monkeypatch):
    """All values for what is quick; for the others some in the default suite, all in the slow one."""
    monkeypatch.chdir(tmp_path)
    places = range(len(VALUES)) if name in FAST else range(0, len(VALUES), 5)
    assert [*filter(None, (check_option(name, place) for place in places))] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in FAST])
def test_all_options(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [*filter(None, (check_option(name, place) for place in range(len(VALUES))))] == []


# ---- models -----------------------------------------------------------------------------------------------------------

BODY = {
    "CL": nm.LogNormal(5.0, iiv=0.3),
    "V": nm.LogNormal(40.0),
    "conc": nm.Additive(1.0),
    "dynamics": nm.OneCompartment(),
    "observe": lambda self, t, A, p: {"conc": A.central / p.V},
}
PARTS = [
    None, 3, "text", [1], nm.LogNormal, nm.LogNormal(1.0), nm.Additive(1.0), nm.OneCompartment(absorption="first-order"),
    nm.TwoCompartment(), nm.Blocks("CL V"), nm.RungeKutta(), nm.ClosedForm(), lambda self: 1,
    lambda self, t, A, p: None, lambda self, t, A, p: {}, lambda self, t, A, p: {"conc": p.nothing * A.central},
    lambda self, t, A, p: {"conc": A.nothing}, lambda self, t, A, p: {"conc": float(A.central)},
    lambda self, t, A, p: {"conc": A.central if p.V > 1 else 0.0}, lambda self, t, A, p: {"conc": "text"},
    lambda self, t, A, p: {"conc": np.ones(2) * p.V}, lambda self, t, A, p: {"conc": p.V * 1j}, lambda self, t, A, p: {1: p.V},
    lambda self, t, A, p: {"conc": p.V / 0}, lambda self, t, A, p: {"conc": 1 / 0},
    lambda self, p: {"central": nm.Dosing(lag="x")},
    lambda self, p: {"central": nm.Dosing(lag=None)}, lambda self, p: {"nowhere": nm.Dosing(lag=1.0)},
    lambda self, p: {"central": nm.Dosing(bioavailability=np.ones(3))}, lambda self, p: {"central": 1.0}, lambda self, p: 7,
    lambda self, theta, eta, x: {"CL": theta.CL, "V": theta.V}, lambda self, theta, eta, x: {"CL": theta.nothing},
    lambda self, theta, eta, x: None, "OCC",
]  # fmt: skip
PLACES = ["CL", "V", "conc", "dynamics", "observe", "dosing", "initial", "individual", "omega", "solver", "occasion", "extra"]
DOSED = pd.DataFrame({"ID": 1, "TIME": [0, 1.0], "EVID": [1, 0], "AMT": [100.0, 0], "DV": [np.nan, 2.0]})


@st.composite
def bodies(draw):
    body = dict(BODY)
    for _ in range(draw(st.integers(1, 2))):
        body[draw(st.sampled_from(PLACES))] = draw(st.sampled_from(PARTS))
    if draw(st.booleans()):
        body.pop(draw(st.sampled_from(list(body))))
    return body


def check_model(body):
    """A class is refused when it is defined or used, or predicts numbers for its own observations."""

    def made():
        model = type(nm.Model)("Made", (nm.Model,), dict(body))()
        assert model.equations()
        return nm.predict(model, DOSED)

    answer, refused = answered(made)
    if refused is not None:
        counted("models", "refused")
        return
    shown = [c for c in answer.columns if c not in DOSED and not c.startswith("A_")]
    assert shown and np.isfinite(answer.query("EVID == 0")[shown].to_numpy(float)).all(), answer
    counted("models", "predicts")


@given(bodies())
@SHORT
def test_corrupted_models(body):
    check_model(body)


@pytest.mark.slow
@given(bodies())
@LONG
def test_many_corrupted_models(body):
    check_model(body)
