"""From a DataFrame in NONMEM's columns to padded arrays."""

import dataclasses
import io

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import PKPD, Counts, Theophylline

import nlmefit as nm


class Weighted(Theophylline):
    """Reads one covariate."""

    def observe(self, t, A, p):
        return {"conc": A.central / p.V + 0 * p.WT}


ORAL, TWO, COUNTS, WEIGHTED = Theophylline(), PKPD(), Counts(), Weighted()


def frame(text):
    """A DataFrame from a table written as text."""
    return pd.read_csv(io.StringIO(text.strip()), sep=r"\s+", na_values=["-"])


RAGGED = frame("""
ID TIME DV  AMT EVID
1  0    -   100 1
1  1    5.0 0   0
1  2    4.0 0   0
7  0    -   50  1
7  3    2.0 0   0
3  0    -   80  1
3  1    3.0 0   0
3  2    2.5 0   0
3  4    1.5 0   0
""")


def test_ragged_subjects_are_padded_by_their_last_row():
    data = nm.Subjects.from_frame(RAGGED, ORAL)
    s = data.subjects
    assert data.ids.tolist() == [1, 7, 3] and len(data) == 3
    np.testing.assert_array_equal(s.mask["conc"], [[True, True, False], [True, False, False], [True, True, True]])
    np.testing.assert_array_equal(s.time, [[1, 2, 2], [3, 3, 3], [1, 2, 4]])
    np.testing.assert_array_equal(s.observed["conc"], [[5, 4, 0], [2, 0, 0], [3, 2.5, 1.5]])
    np.testing.assert_array_equal(data.rows, [[1, 2, -1], [4, -1, -1], [6, 7, 8]])
    np.testing.assert_array_equal(data.observations, [2, 1, 3])
    np.testing.assert_array_equal(s.doses.amount, [[100], [50], [80]])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), st.integers(0, 2**16))
def test_every_observation_lands_in_one_unmasked_place(counts, seed):
    rng = np.random.default_rng(seed)
    rows = [(i, 0.0, np.nan, 100.0) for i in range(len(counts))]
    rows += [(i, float(t), rng.normal(), 0.0) for i, n in enumerate(counts) for t in np.sort(rng.uniform(0, 9, n))]
    df = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT"]).sort_values("ID", kind="stable")
    data = nm.Subjects.from_frame(df, ORAL)
    mask = data.subjects.mask["conc"]
    np.testing.assert_array_equal(mask.sum(axis=1), counts)
    seen = df.reset_index(drop=True).iloc[data.rows[mask]]
    np.testing.assert_array_equal(data.subjects.observed["conc"][mask], seen["DV"])
    np.testing.assert_array_equal(data.subjects.time[mask], seen["TIME"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(data.subjects))


def test_evid_is_derived_where_it_is_not_given():
    df = frame("""
    ID TIME DV  AMT MDV
    1  0    -   100 1
    1  1    5.0 -   0
    1  2    9.9 0   1
    1  3    4.0 0   0
    """)
    data = nm.Subjects.from_frame(df, ORAL)
    np.testing.assert_array_equal(data.subjects.time[0], [1, 3])
    np.testing.assert_array_equal(data.subjects.doses.time[0], [0])
    partly = df.assign(EVID=[np.nan, 2, np.nan, 0])
    np.testing.assert_array_equal(nm.Subjects.from_frame(partly, ORAL).subjects.time[0], [3])


def test_a_missing_dv_or_mdv_1_is_no_observation_and_says_so():
    df = RAGGED.assign(MDV=[1, 1, 0, 1, 0, 1, 0, 0, 0], DV=[np.nan, 5, 4, np.nan, 2, np.nan, np.nan, 2.5, 1.5])
    data = nm.Subjects.from_frame(df, ORAL)
    assert sorted(data.rows[data.rows >= 0]) == [2, 4, 7, 8]
    assert [f.code for f in data.findings] == ["W202"]


def test_addl_is_written_out_before_any_record_at_its_time():
    df = frame("""
    ID TIME DV AMT EVID II ADDL
    1  0    -  100 1    12 3
    1  24   1  0   0    0  0
    1  40   -  50  1    0  0
    2  5    -  80  1    0  0
    2  6    1  0   0    0  0
    """)
    doses = nm.Subjects.from_frame(df, ORAL).subjects.doses
    np.testing.assert_array_equal(doses.time, [[0, 12, 24, 36, 40], [5, 0, 0, 0, 0]])
    np.testing.assert_array_equal(doses.amount, [[100, 100, 100, 100, 50], [80, 0, 0, 0, 0]])
    np.testing.assert_array_equal(doses.order, [[0, -1, -1, -1, 2], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(doses.segment, [[0, 0, 0, 0, 0], [0, -1, -1, -1, -1]])


def test_rate_and_duration_make_infusions_and_boluses_need_neither():
    base = RAGGED[RAGGED["ID"] == 1]
    bolus = nm.Subjects.from_frame(base, ORAL).subjects.doses
    assert bolus.duration is None and bolus.rate is None and bolus.steady is None and bolus.modelled is None
    rate = nm.Subjects.from_frame(base.assign(RATE=[25, 0, 0]), ORAL).subjects.doses
    assert rate.rate.tolist() == [[25]] and rate.duration.tolist() == [[0]]
    duration = nm.Subjects.from_frame(base.assign(DUR=[4, 0, 0]), ORAL).subjects.doses
    assert duration.rate is None and duration.duration.tolist() == [[4]]


def test_compartment_0_and_a_missing_one_are_the_first():
    df = RAGGED.assign(CMT=[0, 2, 2, np.nan, 2, 2, 2, 2, 2])
    assert nm.Subjects.from_frame(df, ORAL).subjects.doses.compartment.tolist() == [[0], [0], [1]]


TWO_ENDPOINTS = frame("""
ID TIME DV  AMT DVID
1  0    -   100 -
1  1    5.0 0   1
1  1    9.0 0   2
1  2    8.0 0   2
""")


@pytest.mark.parametrize(
    "dvid", [[np.nan, 1, 2, 2], [None, "cp", "effect", "effect"], [".", "1", "2", " 2"], [0.0, 1.0, 2.0, 2.0]]
)
def test_dvid_by_number_or_name(dvid):
    s = nm.Subjects.from_frame(TWO_ENDPOINTS.assign(DVID=dvid), TWO).subjects
    np.testing.assert_array_equal(s.mask["cp"], [[True, False, False]])
    np.testing.assert_array_equal(s.mask["effect"], [[False, True, True]])
    np.testing.assert_array_equal(s.observed["effect"], [[0, 9, 8]])


def test_names_in_any_case_and_columns_that_map_yours():
    expected = nm.Subjects.from_frame(RAGGED.assign(WT=70.0), WEIGHTED)
    lower = RAGGED.rename(columns=str.lower).assign(wt=70.0)
    renamed = RAGGED.rename(columns={"DV": "CONC", "ID": "Subject"}).assign(WEIGHT=70.0, DV="not this one")
    mapped = nm.Subjects.from_frame(renamed, WEIGHTED, columns={"CONC": "dv", "Subject": "ID", "WEIGHT": "WT"})
    for found in (nm.Subjects.from_frame(lower, WEIGHTED), mapped):
        jax.tree.map(np.testing.assert_array_equal, found.subjects, expected.subjects)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"CONC": "DV"}, "columns=: column `CONC` does not exist. Known: ID, TIME, DV, AMT, EVID."),
        ({"DV": "DVV"}, "columns=: standard column or covariate `DVV` does not exist; did you mean `DV`?"),
        ({"TIME": "DV", "AMT": "DV"}, "columns=: TIME and AMT both map to DV; keep one."),
    ],
)
def test_wrong_mappings_are_refused(columns, message):
    with pytest.raises(nm.DataError) as caught:
        nm.Subjects.from_frame(RAGGED, ORAL, columns=columns)
    assert message in str(caught.value)


def test_covariates_constant_or_by_record_with_gaps_filled_from_the_next_then_the_last():
    df = RAGGED.assign(WT=[np.nan, 60, 60, 71, np.nan, 82, np.nan, 84, np.nan])
    s = nm.Subjects.from_frame(df, WEIGHTED).subjects
    np.testing.assert_array_equal(s.covariates["WT"], [60, 71, 82])
    np.testing.assert_array_equal(s.varying["WT"], [[60, 60], [71, 71], [82, 84]])  # by epoch
    np.testing.assert_array_equal(s.boundary, [[np.inf], [np.inf], [df["TIME"][5]]])  # the last record before the change
    constant = nm.Subjects.from_frame(df.assign(WT=[60, np.nan, 60, 71, np.nan, 82, np.nan, 82, np.nan]), WEIGHTED).subjects
    assert constant.varying == {} and constant.covariates["WT"].tolist() == [60, 71, 82]


@pytest.mark.parametrize("missing", [".", "", "NA", "NaN", None, np.nan, "<NA>", " . "])
def test_missing_is_written_in_many_ways(missing):
    df = RAGGED.astype(object)
    df.loc[[0, 3, 5], "DV"] = missing
    df.loc[[1, 2], "AMT"] = missing
    jax.tree.map(
        np.testing.assert_array_equal,
        nm.Subjects.from_frame(df, ORAL).subjects,
        nm.Subjects.from_frame(RAGGED, ORAL).subjects,
    )


def test_numbers_may_come_as_text_integers_or_nullable_columns():
    expected = nm.Subjects.from_frame(RAGGED, ORAL).subjects
    for kind in ("string", "category", "Float64"):
        found = nm.Subjects.from_frame(RAGGED.astype({name: kind for name in RAGGED if name != "ID"}), ORAL).subjects
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ([1, 7, 3], [1, 7, 3]),
        ([1.0, 7.0, 3.0], [1, 7, 3]),
        (["1", "7", "3"], ["1", "7", "3"]),
        (["001", "7", "10A"], ["001", "7", "10A"]),
        (["12345678901234567890", "7", "3"], ["12345678901234567890", "7", "3"]),
        ([2**63 + 1, 7, 3], [2**63 + 1, 7, 3]),
        ([1, "7", "B"], [1, "7", "B"]),
        (["a", "B", "001x"], ["a", "B", "001x"]),
        ([1.5, 2.5, 0.5], [1.5, 2.5, 0.5]),
    ],
)
def test_ids_are_numbers_or_text(given, label):
    ids = RAGGED["ID"].map(dict(zip([1, 7, 3], given, strict=True)))
    data = nm.Subjects.from_frame(RAGGED.assign(ID=ids), ORAL)
    assert data.ids.tolist() == label
    assert all(type(found) is type(wanted) for found, wanted in zip(data.ids.tolist(), label, strict=True))


def test_the_order_of_rows_is_kept_at_equal_times_and_whatever_the_index():
    df = frame("""
    ID TIME DV  AMT
    1  0    0.1 0
    1  0    -   100
    1  0    0.2 0
    """)
    df.index = [9, 4, 4]
    data = nm.Subjects.from_frame(df, ORAL)
    np.testing.assert_array_equal(data.subjects.order, [[0, 2]])
    np.testing.assert_array_equal(data.subjects.doses.order, [[1]])
    np.testing.assert_array_equal(data.subjects.observed["conc"], [[0.1, 0.2]])


def test_resets_count_segments():
    df = frame("""
    ID TIME DV  AMT EVID SS II
    1  0    -   100 1    0  0
    1  1    5.0 0   0    0  0
    1  2    -   0   3    0  0
    1  3    0.1 0   0    0  0
    1  0    -   100 4    0  0
    1  1    5.0 0   0    0  0
    1  9    -   100 1    1  12
    1  10   5.0 0   0    0  0
    """)
    s = nm.Subjects.from_frame(df, ORAL).subjects
    np.testing.assert_array_equal(s.segment, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(s.doses.segment, [[0, 2, 3]])
    np.testing.assert_array_equal(s.doses.steady, [[0, 0, 1]])


def test_a_model_without_compartments_has_no_doses():
    df = RAGGED.assign(DOSE=1.0, DV=RAGGED["DV"].round())
    data = nm.Subjects.from_frame(df, COUNTS)
    assert data.subjects.doses is None
    assert [f.code for f in data.findings] == ["W206"]


def test_every_record_is_a_row_to_predict_and_carries_no_likelihood():
    data = nm.Subjects.from_frame(RAGGED.drop(columns="DV"), ORAL, every_record=True)
    np.testing.assert_array_equal(data.rows, [[0, 1, 2, -1], [3, 4, -1, -1], [5, 6, 7, 8]])
    assert not data.subjects.mask["conc"].any() and not data.observations.any()


def test_the_users_frame_is_left_alone_and_twice_gives_the_same():
    df = RAGGED.assign(WT=[np.nan, 60, 60, 71, np.nan, 82, np.nan, 84, np.nan])
    before = df.copy()
    first, second = nm.Subjects.from_frame(df, WEIGHTED), nm.Subjects.from_frame(df, WEIGHTED)
    pd.testing.assert_frame_equal(df, before)
    jax.tree.map(np.testing.assert_array_equal, first.subjects, second.subjects)
    assert first.findings == second.findings
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.ids = second.ids
