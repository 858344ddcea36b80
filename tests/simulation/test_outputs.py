"""Outputs without a residual model: predicted, simulated, exposed, never observed."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm


class Logarithm(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0)
    ka = nm.LogNormal(1.0)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        conc = A.central / p.V
        return {"conc": conc, "logconc": jnp.log(conc)}

    logconc = nm.Additive(0.1)


class OnlyLogarithm(Logarithm):
    def observe(self, t, A, p):
        return {"logconc": jnp.log(A.central / p.V)}


class Plain(Logarithm):
    def observe(self, t, A, p):
        return {"logconc": A.central / p.V}


TIMES = np.linspace(0.0, 24.0, 49)


def simulated(model, times=TIMES, **options):
    return nm.simulate(model, nm.Regimen(100), times=times, subjects=4, progress=False, **options)


def test_an_output_without_residual_model_needs_no_observations():
    assert Logarithm().endpoints == ("logconc",) and Logarithm().outputs == ("conc", "logconc")
    data = simulated(Logarithm(), TIMES[1:], residual=True).records()
    assert "DVID" not in data
    found = nm.predict(Logarithm(), data)
    np.testing.assert_allclose(np.exp(found["logconc"][1:48]), found["conc"][1:48])
    assert nm.evaluate(Logarithm(), data, nm.FOCE()).ofv == pytest.approx(
        nm.evaluate(OnlyLogarithm(), data, nm.FOCE()).ofv, abs=1e-9
    )
    assert "conc = A_central/V  (a prediction only)" in Logarithm().equations()
    assert "conc" in Logarithm().latex()


def test_simulated_without_residual_error():
    found, bare = (simulated(Logarithm(), [1.0, 4.0], residual=residual).frame() for residual in (True, False))
    np.testing.assert_array_equal(found["conc"], bare["conc"])
    assert np.all(found["logconc"] != bare["logconc"])


def test_the_exposure_of_a_log_endpoint_is_taken_of_what_it_is_the_logarithm_of():
    right = nm.exposure(simulated(Plain()))
    with pytest.warns(UserWarning, match="logconc is infinite in the window"):
        both = nm.exposure(simulated(Logarithm()))
    asked = nm.exposure(simulated(Logarithm()), endpoint="conc")
    for found in (both, asked):
        assert set(found["endpoint"]) == {"conc"}
        np.testing.assert_allclose(found[["AUC", "Cmax", "Ctrough"]], right[["AUC", "Cmax", "Ctrough"]], rtol=1e-8)


def test_an_infinite_exposure_is_told():
    with pytest.raises(nm.DataError, match="`logconc` is infinite in the window, as the logarithm of 0"):
        nm.exposure(simulated(OnlyLogarithm()))
    with pytest.raises(nm.DataError, match="`area of logconc` of subject 1 in draw 0 is not a number"):
        nm.exposure(simulated(OnlyLogarithm()), 1.0, 24.0)  # areas begin at the first record, where it is infinite


def test_bands_of_a_logarithm_before_the_dose():
    bands = simulated(OnlyLogarithm()).bands()
    assert not bands[["value", "lower", "upper"]].isna().any().any()
    assert (bands.loc[bands["TIME"] == 0, "value"] == -np.inf).all()


def test_a_figure_shows_them():
    figure = nm.plot.regimens(simulated(Logarithm()), log=True)
    assert {ax.get_ylabel() for ax in figure.axes} >= {"conc", "logconc"}


def test_a_model_without_any_endpoint_says_what_to_declare():
    with pytest.raises(nm.ModelError, match=r"endpoint `conc` has no residual model; declare for example conc = nm\.Additive"):

        class Nothing(nm.Model):
            a = nm.Normal(1.0, iiv=1.0)

            def observe(self, t, A, p):
                return {"conc": p.a, "other": p.a}


def test_an_endpoint_of_the_data_that_is_a_prediction_only_is_refused():
    data = pd.DataFrame({"ID": 1, "TIME": [0.0, 1.0], "DVID": ["dose", "conc"], "AMT": [100.0, 0.0], "EVID": [1, 0], "DV": 1.0})
    with pytest.raises(nm.DataError, match="logconc"):
        nm.evaluate(Logarithm(), data, nm.FOCE())


def test_new_subjects_of_a_model_without_compartments_need_times_only():
    class Flat(nm.Model):
        b = nm.Normal(10.0, iiv=2.0)

        def observe(self, t, A, p):
            return {"y": p.b}

        y = nm.Additive(0.5)

    assert len(nm.simulate(Flat(), subjects=5, times=[0, 1], progress=False).frame()) == 10
    with pytest.raises(nm.DataError, match=r"no times of their own: give times=\."):
        nm.simulate(Flat(), subjects=5)
