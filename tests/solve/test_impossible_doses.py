"""A dose whose lag or duration is no number makes amounts that are none: it is never left out silently."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm


class Lagged(nm.Model):
    CL = nm.LogNormal(4.0)
    V = nm.LogNormal(30.0)
    late = nm.Theta(1.0)
    dynamics = nm.OneCompartment()

    def dosing(self, p):
        return {"central": nm.Dosing(lag=p.late**0.5)}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.1)


DATA = pd.DataFrame({"ID": 1, "TIME": [0.0, 2.0], "AMT": [100.0, 0.0], "EVID": [1, 0], "DV": [0.0, 2.0]})


def test_a_lag_that_is_no_number() -> None:
    found = nm.predict(Lagged(), DATA)["conc"].iloc[1]
    assert found == pytest.approx(100 / 30 * np.exp(-4 / 30 * 1.0))
    with pytest.raises(nm.DataError, match=r"the prediction of `conc` is not a finite number.*a lag of nan"):
        nm.predict(Lagged().at({"late": -1.0}), DATA)
