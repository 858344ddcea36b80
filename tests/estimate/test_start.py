"""Why a search cannot begin, in words that are true."""

import jax.numpy as jnp
import pandas as pd
import pytest

import nlmefit as nm

FOCE = nm.FOCE(interaction=True)
TIMES = [0.0, 1.0, 4.0]
ONE = pd.DataFrame({"ID": 1, "TIME": TIMES, "EVID": [1, 0, 0], "AMT": [100.0, 0, 0], "DV": [None, 2.0, 1.5]})
DATA = pd.concat([ONE, ONE.assign(ID=2)])


class Bolus(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Logs(Bolus):
    def observe(self, t, A, p):
        return {"conc": jnp.log(A.central / p.V)}


def message(model, data=DATA, **options):
    with pytest.raises(nm.DataError) as caught:
        nm.fit(model, data, FOCE, progress=False, **options)
    return str(caught.value)


@pytest.mark.parametrize("sd", [1e-300, 1e-160])
@pytest.mark.parametrize("part", ["additive", "proportional"])
def test_a_residual_sd_that_is_too_small_is_named(part, sd):
    model = Bolus(conc=nm.Additive(1.0) if part == "additive" else nm.Proportional(1.0))
    found = message(model, start={f"conc_{part}": sd})
    assert f"the residual sd is too small (conc_{part} is {sd:g}). Start with a larger one." in found
    assert "predicted as 0" not in found and "Add an additive part" not in found


def test_a_prediction_that_is_too_small_is_named():
    found = message(Bolus(V=nm.LogNormal(1e300)))
    assert "is predicted as 1e-298, too little for a residual variance. Check the start values" in found


def test_a_prediction_of_0_may_come_from_the_start_values():
    found = message(Bolus(V=nm.LogNormal(1e-30)))
    assert "is predicted as 0 and has residual variance 0." in found and found.endswith("check the start values.")


@pytest.mark.parametrize("model", [Bolus(), Logs()])
@pytest.mark.parametrize("name", ["DOSE", "Amount", "GIVEN", "AMT"])
def test_that_the_data_have_no_dose_is_said_first(model, name):
    data = DATA.drop(columns="EVID").rename(columns={"AMT": name}).assign(**({"AMT": 0.0} if name == "AMT" else {}))
    found = message(model, data)
    assert "W207 the model has compartments and the data no dose; all amounts are 0." in found
    assert "Add an additive part" not in found
    yours = "YOURS" if name == "GIVEN" else name
    assert found.endswith("Check AMT and EVID." if name == "AMT" else f"columns={{'{yours}': 'AMT'}}).")
