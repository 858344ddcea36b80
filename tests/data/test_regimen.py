"""Regimens as values, to and from records."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm

LOADING = nm.Regimen(200) + nm.Regimen(100, every=12, doses=9).after(12)


def test_records_of_loading_and_maintenance():
    table = LOADING.frame()
    assert table["TIME"].tolist() == [0, 12] and table["AMT"].tolist() == [200, 100]
    assert table["II"].tolist() == [0, 12] and table["ADDL"].tolist() == [0, 8]


@pytest.mark.parametrize(
    "regimen",
    [
        LOADING,
        nm.Regimen(100, duration=2, compartment=2),
        nm.Regimen(100, rate=50),
        nm.Regimen(100, every=24, steady_state=True),
        nm.Regimen(0, rate=5, steady_state=True),
        nm.Regimen(100, duration="modelled") + nm.Regimen(100, rate="modelled").after(3),
    ],
)
def test_there_and_back(regimen):
    again = nm.Regimen.from_frame(regimen.frame().assign(ID=1))
    pd.testing.assert_frame_equal(again.frame(), regimen.frame())
    assert nm.Regimen.from_frame(again.frame()) == again  # without an ID, too


def test_amounts_by_covariate():
    by_weight, by_formula = nm.Regimen(5, per="WT"), nm.Regimen(lambda x: 5 * x.WT**0.75)
    assert by_weight.frame({"WT": 70.0})["AMT"].item() == 350
    assert by_formula.frame({"WT": 16.0})["AMT"].item() == 40
    assert (0.5 * by_formula).frame({"WT": 16.0})["AMT"].item() == 20
    with pytest.raises(nm.DataError, match=r"amount: covariate `WT` does not exist; did you mean `wt`"):
        by_weight.frame({"wt": 70.0})
    with pytest.raises(nm.DataError, match=r"comes to -5"):
        nm.Regimen(lambda x: x.WT).frame({"WT": -5.0})


def test_scaling_keeps_an_infusions_length():
    table = (2 * nm.Regimen(100, rate=50)).frame()
    assert table["AMT"].item() / table["RATE"].item() == 2


def test_named_compartments():
    assert nm.Regimen(1, compartment="central").frame({}, ("depot", "central"))["CMT"].item() == 2
    with pytest.raises(nm.DataError, match="compartment `centrl` does not exist; did you mean `central`"):
        nm.Regimen(1, compartment="centrl").frame({}, ("depot", "central"))


def test_prints_itself():
    assert repr(LOADING) == "200 + 100 x 9 every 12 from 12"
    assert repr(nm.Regimen.observed() + nm.Regimen(5, per="WT", duration=1)) == "own doses + 5 per WT over 1"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: nm.Regimen(-1), "amount must be a number from 0 up"),
        (lambda: nm.Regimen(np.nan), "amount must be"),
        (lambda: nm.Regimen(1, doses=3), "doses=3 need the interval"),
        (lambda: nm.Regimen(1, doses=0, every=1), "doses must be a whole number"),
        (lambda: nm.Regimen(1, every=0, doses=2), "every must be a time above 0"),
        (lambda: nm.Regimen(1, steady_state=True), "a steady state needs the interval"),
        (lambda: nm.Regimen(1, rate=1, duration=1), "not both"),
        (lambda: nm.Regimen(0, steady_state=True), "infusion without end"),
        (lambda: nm.Regimen(1, compartment=0), "compartment must be"),
        (lambda: nm.Regimen(1, rate="model"), "rate must be a number from 0 up or 'modelled'"),
        (lambda: nm.Regimen(lambda x: 1, per="WT"), "per= goes with a number"),
        (lambda: nm.Regimen(1).after("noon"), r"after\(\) takes a time"),
        (lambda: nm.Regimen.observed().after(3), "own doses are where they are"),
        (lambda: nm.Regimen.from_frame(pd.DataFrame({"TIME": [0], "DV": [1]})), "no dose"),
        (lambda: nm.Regimen.from_frame(pd.DataFrame({"ID": [1, 2], "TIME": 0, "AMT": 1})), "one subject's records"),
        (lambda: nm.Regimen.from_frame(pd.DataFrame({"ID": 1, "TIME": [0, 1], "AMT": 1, "EVID": [1, 4]})), "EVID 4"),
    ],
)
def test_errors(made, words):
    with pytest.raises(nm.DataError, match=words):
        made()
