"""Doses of a steady state that are given before its record and arrive after it: a lag at or beyond the interval."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm

TAU = 12.0
TIMES = [0.0, 0.5, 2, 6, 11, 13, 14, 26, 40]


class Lagged(nm.Model):
    ka = nm.LogNormal(1.2)
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0)
    tlag = nm.Theta(13.0, lower=0)
    F = nm.Theta(1.0, lower=0)

    def dosing(self, p):
        return {"depot": nm.Dosing(lag=p.tlag, bioavailability=p.F)}

    def dynamics(self, t, A, p):
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.CL / p.V * A.central}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Closed(Lagged):
    dynamics = nm.OneCompartment(absorption="first-order")


WAYS = {
    "closed form": Closed,
    **{
        type(solver).__name__: type(type(solver).__name__, (Lagged,), {"solver": solver})
        for solver in (nm.MatrixExponential(), nm.RungeKutta(rtol=1e-9, atol=1e-9), nm.Rosenbrock(rtol=1e-9, atol=1e-9))
    },
}


def frame(duration, ss=1, **more):
    """One dose at steady state, then rows; `more` columns."""
    rows = len(TIMES)
    table = {"ID": 1, "TIME": [0.0, *TIMES], "EVID": [1] + [0] * rows, "AMT": [100.0] + [0] * rows, "CMT": [1] + [2] * rows}
    table |= {"RATE": [100 / duration if duration else 0] + [0] * rows, "SS": [ss] + [0] * rows, "II": [TAU] + [0] * rows}
    return pd.DataFrame(table | more)


def written_out(duration, count=60):
    """The same doses one by one, from so far back that the first of them are forgotten."""
    doses = pd.DataFrame({"ID": 1, "TIME": -TAU * np.arange(count, -1, -1), "EVID": 1, "AMT": 100.0, "CMT": 1})
    doses["RATE"] = 100 / duration if duration else 0.0
    rows = frame(duration).iloc[1:].drop(columns=["SS", "II"])
    return pd.concat([doses, rows], ignore_index=True)


def observed(model, table):
    return nm.predict(model, table).query("EVID == 0")["conc"].to_numpy()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("duration", [0, 20.0])
def test_any_lag_against_doses_written_out(way, duration):
    for lag, F in [(5.0, 1.0), (12.0, 1.0), (13.0, 1.0), (30.0, 1.0), (13.0, 0.4)]:
        at = {"tlag": lag, "F": F}
        exact = observed(Lagged().at(at), written_out(duration))
        np.testing.assert_allclose(observed(WAYS[way]().at(at), frame(duration)), exact, rtol=1e-6)


def test_other_subjects_stay_as_they_are():
    """A subject whose infusions outlast the interval beside one whose lag does."""
    both = pd.concat([frame(0), frame(20.0).assign(ID=2)])
    model = Closed()
    alone = np.concatenate([observed(model, frame(0)), observed(model, frame(20.0))])
    np.testing.assert_allclose(observed(model, both), alone, rtol=1e-9)


def test_beyond_what_is_followed_is_refused():
    with pytest.raises(nm.DataError, match="finite"):
        observed(Closed().at({"tlag": 100.0}), frame(3.0, F=1))


@pytest.mark.parametrize(
    "wrong", [{"bioavailability": "F"}, {"lag": "F"}, {"duration": "F"}, {"rate": "F"}], ids=lambda w: next(iter(w))
)
def test_what_no_dose_can_have(wrong):
    """Negative properties of a dose make no prediction, never a finite one."""
    field = next(iter(wrong))

    class Wrong(nm.Model):
        CL = nm.LogNormal(5.0, iiv=0.3)
        V = nm.LogNormal(40.0)
        F = nm.Theta(-0.5)
        dynamics = nm.OneCompartment()

        def dosing(self, p):
            return {"central": nm.Dosing(**{field: p.F})}

        def observe(self, t, A, p):
            return {"conc": A.central / p.V}

        conc = nm.Additive(0.1)

    rate = {"rate": -1, "duration": -2}.get(field, 0)
    table = pd.DataFrame({"ID": 1, "TIME": [0, 2.0], "EVID": [1, 0], "AMT": [100.0, 0], "RATE": [rate, 0], "DV": [np.nan, 2.0]})
    with pytest.raises(nm.DataError, match=f"a {field} of -0.5"):
        nm.predict(Wrong(), table)
    with pytest.raises(nm.DataError, match=f"a {field} of -0.5"):
        nm.evaluate(Wrong(), table, nm.Laplace())
