"""Tables of other libraries and types, and times that are no plain numbers."""

import datetime
import io

import numpy as np
import pandas as pd
import pytest
from models import Theophylline

import nlmefit as nm
from nlmefit.data.needs import needs_of
from nlmefit.data.records import read_records

MODEL = Theophylline()
CSV = "ID,TIME,EVID,AMT,DV\n1,0,1,100,\n1,1,0,0,2.0\n"
ONE = pd.read_csv(io.StringIO(CSV))


def hours(df):
    read = read_records(df, needs_of(MODEL))
    assert not read.text
    return read.frame["TIME"].tolist(), read.clock


def arrow():
    pytest.importorskip("pyarrow")
    return pd.read_csv(io.StringIO(CSV), dtype_backend="pyarrow")


def polars():
    return pytest.importorskip("polars").read_csv(io.StringIO(CSV))


TABLES = {
    "nullable": lambda: ONE.convert_dtypes(),
    "text": lambda: ONE.astype("string"),
    "arrow in pandas": arrow,
    "polars": polars,
    "polars, lazy": lambda: polars().lazy(),
    "arrow": lambda: (pytest.importorskip("pyarrow"), polars().to_arrow())[1],
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_library_is_read_alike(kind):
    table = TABLES[kind]()
    assert nm.check(table, MODEL).empty
    found, wanted = nm.predict(MODEL, table), nm.predict(MODEL, ONE)
    assert type(found) is pd.DataFrame
    np.testing.assert_array_equal(found["conc"], wanted["conc"])
    assert nm.Regimen.from_frame(table) == nm.Regimen(100)
    simulated = nm.simulate(MODEL, subjects=table, eta="typical", progress=False).frame()
    np.testing.assert_allclose(simulated["conc"], wanted["conc"][1:], rtol=1e-12)


def test_covariates_come_from_a_table_of_any_library():
    table = pytest.importorskip("polars").DataFrame({"WT": [50.0, 90.0]})

    class Weighted(Theophylline):
        CL = nm.LogNormal(2.8, covariates=[nm.Power("WT", reference=70, exponent=0.75)])

    found = nm.simulate(Weighted(), nm.Regimen(100), times=[1.0], covariates=table, eta="typical", progress=False).frame()
    assert found["conc"].iloc[0] > found["conc"].iloc[1]


def test_random_effects_and_exposures_come_from_a_table_of_any_library():
    pl = pytest.importorskip("polars")
    df = pd.concat([ONE, ONE.assign(ID=2)])
    eta = pd.DataFrame({"ID": [2, 1], "ka": [0.1, 0.2], "CL": [0.3, -0.4], "V": [0.0, 0.1]})
    for given in (eta, pl.from_pandas(eta), pl.from_pandas(eta).lazy()):
        wanted = nm.predict(MODEL, df, eta=eta.set_index("ID"))["conc"]
        np.testing.assert_array_equal(nm.predict(MODEL, df, eta=given)["conc"], wanted)
        found = nm.simulate(MODEL, subjects=df, eta=given, progress=False).frame()
        np.testing.assert_allclose(found["conc"], wanted.iloc[[1, 3]], rtol=1e-12)
    arms = {"a": nm.Regimen(100), "b": nm.Regimen(200)}
    exposed = nm.exposure(nm.simulate(MODEL, arms, times=[1.0, 2.0], subjects=4, progress=False))
    wanted = nm.target_attainment(exposed, "Cmax", at_least=3.0)
    pd.testing.assert_frame_equal(nm.target_attainment(pl.DataFrame(dict(exposed)), "Cmax", at_least=3.0), wanted)


def test_a_row_of_covariates_is_a_subject_in_a_table_of_any_library():
    class Weighted(Theophylline):
        CL = nm.LogNormal(2.8, covariates=[nm.Power("WT", reference=70, exponent=0.75)])

    table = pytest.importorskip("polars").DataFrame({"WT": [50.0, 60.0, 70.0, 90.0]})
    found = nm.simulate(Weighted(), nm.Regimen(100), times=[6.0], subjects=4, covariates=table, eta="typical", progress=False)
    assert (np.diff(found.frame()["conc"]) < 0).all()


TIMES = {
    "datetimes": (pd.to_datetime(["2024-01-01 08:00", "2024-01-01 09:30"]), 1.5, "from dates"),
    "objects": (pd.Series([datetime.datetime(2024, 1, 1, 8), datetime.datetime(2024, 1, 2, 8)], dtype=object), 24.0, "dates"),
    "a night when clocks change": (
        pd.to_datetime(["2024-03-31 01:30", "2024-03-31 03:30"]).tz_localize("Europe/Berlin"),
        1.0,
        "from dates",
    ),
    "dates in text": (["2024-01-01 08:00", "2024-01-01T09:00:30"], 1 + 30 / 3600, "from dates"),
    "month first": (["1/31/2024 08:00", "2/1/2024 08:00"], 24.0, "dates, read as month/day/year"),
    "times of day": (["08:00", "9:30:36"], 1.51, "times of day, all of one day"),
    "times of day, objects": (pd.Series([datetime.time(8), datetime.time(9)], dtype=object), 1.0, "times of day"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_become_hours_since_the_first_record(kind):
    time, last, words = TIMES[kind]
    df = pd.concat([ONE.assign(TIME=time), ONE.assign(ID=2, TIME=time)])
    found, clock = hours(df)
    assert found == pytest.approx([0.0, last] * 2, abs=1e-12)
    assert clock.startswith("hours since the subject's first record") and words in clock
    np.testing.assert_allclose(nm.predict(MODEL, df)["conc"], nm.predict(MODEL, df.assign(TIME=[0, last] * 2))["conc"])


def test_durations_keep_their_origin():
    for time in (pd.to_timedelta([2, 3], unit="h"), pd.Series([datetime.timedelta(hours=h) for h in (2, 3)], dtype=object)):
        assert hours(ONE.assign(TIME=time)) == ([2.0, 3.0], "hours, from durations")


DATES = {
    "DATE": (["01/02/2024", "01/03/2024"], 2.0, "DATE, read as month/day/year"),
    "DATE ": (["2024-02-01", "2024-02-02"], 2.0, "DATE"),
    "DAT1": (["01/02/2024", "02/02/2024"], 2.0, "DAT1, read as day/month/year"),
    "DAT2": (["24/02/01", "24/02/02"], 2.0, "DAT2, read as year/month/day"),
    "DAT3": (["2024/01/02", "2024/02/02"], 2.0, "DAT3"),
    "DATE  ": ([7, 8], 2.0, "DATE"),
    "DATE   ": (pd.to_datetime(["2024-02-01", "2024-02-02"]), 2.0, "DATE"),
}


@pytest.mark.parametrize("name", DATES)
def test_times_of_day_lie_on_the_days_of_the_date_column(name):
    dates, last, words = DATES[name]
    found, clock = hours(ONE.assign(TIME=["23:00", "01:00"], **{name.strip(): dates}))
    assert found == pytest.approx([0.0, last]) and clock.endswith(f"with the dates in {words}")


ORDERED = {
    "dots": (["01.02.2024 08:00", "02.02.2024 8:00"], 24.0, "day/month/year", []),
    "dots, two digits": (["1.2.24 08:00", "2.2.24 08:00"], 24.0, "day/month/year", []),
    "a day above 12 in the column": (["01/02/2024 08:00", "13/02/2024 08:00"], 288.0, "day/month/year", []),
    "dots in the column": (["01/02/2024 08:00", "02.02.2024 08:00"], 24.0, "day/month/year", []),
    "a second part above 12": (["01-02-2024 08:00", "01-13-2024 08:00"], 264.0, "month/day/year", []),
    "nothing settles it": (["01/02/2024 08:00", "01/03/2024 8:00 PM"], 36.0, "month/day/year", ["W219"]),
    "either order is the same": (["01/01/2024 08:00", "02/02/2024 08:00"], 768.0, "month/day/year", []),
}


@pytest.mark.parametrize("kind", ORDERED)
def test_day_and_month_have_one_order_in_the_whole_column(kind):
    time, last, words, codes = ORDERED[kind]
    df = ONE.assign(TIME=time)
    assert hours(df) == (pytest.approx([0.0, last]), f"hours since the subject's first record, from dates, read as {words}")
    found = nm.check(df, MODEL)
    assert list(found["code"]) == codes
    for text in found["what"]:
        assert "TIME are read as month/day/year, first '01/02/2024 08:00'" in text
    # an order is the column's, whoever else is in it: the same dates of another subject do not change by a third one's
    other = pd.concat([df, df.assign(ID=2, TIME=["2024-02-01", "2024-02-02"])])
    assert hours(other)[0][:2] == pytest.approx([0.0, last])


@pytest.mark.parametrize("dates", [["13/02/2024", "02/13/2024"], ["01.02.2024", "01/31/2024"], ["01.31.2024", "01.02.2024"]])
@pytest.mark.parametrize("column", ["TIME", "DATE"])
def test_dates_in_two_orders_are_an_error(dates, column):
    found = nm.check(ONE.assign(**{"TIME": "08:00", column: dates}), MODEL)
    assert list(found["code"]) == ["E149"]
    assert "have the day first in" in found["what"][0] and "the month first in" in found["what"][0] and column in found["what"][0]


def test_a_date_column_of_stated_order_holds_no_other():
    assert hours(ONE.assign(TIME="08:00", DAT1=["01/02/2024", "02/02/2024"]))[0] == [0.0, 24.0]
    found = nm.check(ONE.assign(TIME="08:00", DAT1=["01/02/2024", "01/31/2024"]), MODEL)
    assert list(found["code"]) == ["E104"] and "first '01/31/2024'" in found["what"][0]


def test_a_date_beside_numbers_is_left_alone():
    assert hours(ONE.assign(DATE="whenever")) == ([0.0, 1.0], "")


def test_what_is_no_time_is_named_and_midnight_needs_a_date():
    bad = {
        "first 'noon'": ONE.assign(TIME=["08:00", "noon"]),
        "first '2024-13-01'": ONE.assign(TIME=["2024-01-01", "2024-13-01"]),
        "column DATE holds text where a number belongs, first 'xx'": ONE.assign(TIME="08:00", DATE=["2024-01-01", "xx"]),
        "Times of day after midnight need a column DATE.": ONE.assign(TIME=["23:00", "01:00"]),
    }
    for words, df in bad.items():
        with pytest.raises(nm.DataError) as caught:
            nm.predict(MODEL, df)
        assert words in str(caught.value)


def test_the_head_of_a_fit_says_how_times_were_read():
    df = ONE.assign(TIME=pd.to_datetime(["2024-01-01 08:00", "2024-01-01 09:00"]))
    fit = nm.evaluate(MODEL, df, nm.FO())
    assert "hours since the subject's first record, from dates" in str(fit)
    assert fit.ofv == pytest.approx(nm.evaluate(MODEL, ONE, nm.FO()).ofv, abs=1e-9)
