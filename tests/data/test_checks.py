"""What is wrong with a data set is found with its code, its rows and a remedy, and `nm.fit` refuses it with the same words."""

import io

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from models import PKPD, Fraction, Theophylline, examples
from numpyro import distributions as dist

import nlmefit as nm


class Covariates(Theophylline):
    """A weight, a category and the shipped structure."""

    CL = nm.LogNormal(2.8, iiv=0.3, covariates=[nm.Power("WT", reference=70), nm.Category("SEX", reference=0, levels=[1, 2])])
    V = nm.LogNormal(32.0, iiv=0.15, covariates=[nm.Category("SEX", reference=0, levels=[1])])


class Modelled(Theophylline):
    """A modelled duration into the central compartment, a modelled rate into the depot."""

    def dosing(self, p):
        return {"central": nm.Dosing(duration=2.0), "depot": nm.Dosing(rate=50.0)}


class Visits(Theophylline):
    """Occasions in a column of their own."""

    CL = nm.LogNormal(2.8, iiv=0.3, iov=0.1)
    occasion = "VISIT"


OCCASIONS = Visits()
ORAL, TWO, COVARIATES, MODELLED, FRACTION = Theophylline(), PKPD(), Covariates(), Modelled(), Fraction()
FOCE = nm.FOCE(interaction=True)

CLEAN = pd.read_csv(
    io.StringIO("""\
ID,TIME,DV,AMT,EVID,CMT,RATE,DUR,II,ADDL,SS,MDV,WT,SEX
1,0,,100,1,1,0,0,0,0,0,1,70,0
1,1,5.0,0,0,2,0,0,0,0,0,0,70,0
1,2,4.0,0,0,2,0,0,0,0,0,0,70,0
4,0,,100,1,1,0,0,0,0,0,1,82,1
4,1,6.0,0,0,2,0,0,0,0,0,0,82,1
4,2,4.5,0,0,2,0,0,0,0,0,0,82,1
""")
)


def changed(rows=None, value=None, column=None, **columns):
    """The clean data with other values in some rows of a column, or with whole columns set."""
    df = CLEAN.assign(**columns)
    if column is not None:
        df[column] = df[column].astype(object)
        df.loc[rows, column] = value
    return df


# code -> the data, the model, the rows and the subject it names, words of the message
ERRORS = {
    "E101 ID": (CLEAN.drop(columns="ID"), ORAL, [], None, "there is no column ID; the data has TIME, DV, AMT"),
    "E101 TIME": (CLEAN.drop(columns="TIME"), ORAL, [], None, "there is no column TIME"),
    "E102": (
        CLEAN.rename(columns={"WT": "WGT"}),
        COVARIATES,
        [],
        None,
        "SS, MDV, WGT, SEX). Did you mean `WGT`? Add the column",
    ),
    "E103": (CLEAN[:0], ORAL, [], None, "the data has no rows."),
    "E104 DV": (changed(2, "BLQ", "DV"), ORAL, [2], None, "column DV holds text where a number belongs, first 'BLQ'."),
    "E104 AMT": (changed([0, 3], "100 mg", "AMT"), ORAL, [0, 3], None, "column AMT holds text"),
    "E105": (changed([3, 4], None, "ID"), ORAL, [3, 4], None, "ID is missing."),
    "E106": (CLEAN.iloc[[0, 1, 3, 4, 5, 2]], ORAL, [5], 1, "subject 1 comes back after other subjects."),
    "E107": (changed(4, np.nan, "TIME"), ORAL, [4], 4, "TIME is missing."),
    "E108": (changed(4, np.inf, "TIME"), ORAL, [4], 4, "TIME is infinite."),
    "E109": (CLEAN.iloc[[0, 1, 2, 3, 5, 4]], ORAL, [5], 4, "TIME goes back within a subject, first from 2 to 1."),
    "E110": (changed(MDV=1), ORAL, [], None, "there is no observation."),
    "E110 every row a dose": (
        changed(AMT=100).drop(columns="EVID"),
        ORAL,
        [],
        None,
        "there is no observation: every record with a DV is a dose.",
    ),
    "E111": (changed(5, -np.inf, "DV"), ORAL, [5], 4, "DV is infinite."),
    "E112": (
        changed(CENS=[0, 0, 2, 0, 0, 0]),
        ORAL,
        [2],
        1,
        "CENS must be 1 (below the limit in DV), -1 (above it) or 0, got 2.",
    ),
    "E137": (changed(CENS=[0, 0, 1, 0, 0, 0], LIMIT=4.5), ORAL, [2], 1, "LIMIT must be below DV where CENS is 1"),
    "E113": (CLEAN, TWO, [], None, "the model has the endpoints cp, effect, and the data no DVID."),
    "E114 number": (changed(DVID=[0, 1, 3, 0, 2, 1]), TWO, [2], 1, "DVID on observations matches no endpoint of the model: 3."),
    "E114 name": (changed(DVID=["", "cp", "effct", "", "cp", "effct"]), TWO, [2, 5], 1, "1 = cp, 2 = effect"),
    "E114 missing": (changed(DVID=[np.nan, 1, 2, np.nan, np.nan, 2]), TWO, [4], 4, "of the model: missing."),
    "E115": (changed(1, np.inf, "WT"), COVARIATES, [1], 1, "covariate WT is infinite."),
    "E116": (
        changed([3, 4, 5], np.nan, "WT"),
        COVARIATES,
        [3, 4, 5],
        4,
        "covariate WT is missing on all records of 1 subject(s).",
    ),
    "E117": (
        changed(SEX=[0, 0, 0, 2, 2, 2]),
        COVARIATES,
        [3, 4, 5],
        4,
        "covariate SEX has values that the model's Category does not name: 2. [rows 3, 4, 5, first subject 4] Named: 0, 1.",
    ),
    "E118": (changed(1, 7, "EVID"), ORAL, [1], 1, "EVID must be 0, 1, 2, 3 or 4, got 7."),
    "E118 fraction": (changed(1, 0.5, "EVID"), ORAL, [1], 1, "got 0.5."),
    "E118 infinite": (changed(1, np.inf, "EVID"), ORAL, [1], 1, "got inf."),
    "E119": (changed(0, -100, "AMT"), ORAL, [0], 1, "a dose has a negative amount: -100."),
    "E120": (changed(3, np.nan, "AMT"), ORAL, [3], 4, "a dose record (EVID 1 or 4) has no amount."),
    "E121": (changed(4, 50, "AMT"), ORAL, [4], 4, "AMT is given on a record that is not a dose (EVID 0, 2 or 3)."),
    "E122": (changed(0, -3, "RATE"), ORAL, [0], 1, "RATE is negative (-3); only -1 (modelled rate) and -2 (modelled duration)"),
    "E123": (changed(0, -1, "RATE"), ORAL, [0], 1, "RATE -1 asks for a modelled rate into `depot`, and the model gives none."),
    "E123 elsewhere": (
        changed(RATE=[-1, 0, 0, 0, 0, 0], CMT=2),
        MODELLED,
        [0],
        1,
        'Return {"central": nm.Dosing(rate=...)} from `dosing`',
    ),
    "E124": (
        changed(0, -2, "RATE"),
        MODELLED,
        [0],
        1,
        "RATE -2 asks for a modelled duration into `depot`, and the model gives none.",
    ),
    "E125": (changed(RATE=[10, 0, 0, 10, 0, 0], DUR=[5, 0, 0, 0, 0, 0]), ORAL, [0], 1, "both RATE and DUR are given."),
    "E125 modelled": (
        changed(RATE=[-1, 0, 0, 0, 0, 0], DUR=[5, 0, 0, 0, 0, 0]),
        MODELLED,
        [0],
        1,
        "both RATE and DUR are given.",
    ),
    "E126": (changed(0, -5, "DUR"), ORAL, [0], 1, "DUR is negative: -5."),
    "E127": (changed(0, 3, "ADDL"), ORAL, [0], 1, "ADDL asks for additional doses without an interval."),
    "E128": (changed(0, -1, "ADDL"), ORAL, [0], 1, "ADDL must be a whole number from 0 up, got -1."),
    "E128 fraction": (changed(ADDL=2.5, II=12), ORAL, [0, 3], 1, "ADDL must be a whole number from 0 up, got 2.5."),
    "E129": (changed(SS=[3, 0, 0, 0, 0, 0], II=12), ORAL, [0], 1, "SS must be 0, 1 or 2, got 3."),
    "E130": (changed(0, 1, "SS"), ORAL, [0], 1, "SS asks for steady state without an interval."),
    "E132": (
        changed(3, 3, "CMT"),
        ORAL,
        [3],
        4,
        "a dose goes to compartment 3, which the model does not have. [row 3, subject 4] Compartments: ",
    ),
    "E132 fraction": (changed(3, 1.5, "CMT"), ORAL, [3], 4, "1 = depot, 2 = central."),
    "E133": (changed(0, np.inf, "AMT"), ORAL, [0], 1, "AMT is infinite."),
    "E134": (changed(2, 2, "MDV"), ORAL, [2], 1, "MDV must be 0 or 1, got 2."),
    "E135": (
        changed(WT=[70, 70, 70, -99, -99, -99]),
        COVARIATES,
        [3, 4, 5],
        4,
        "covariate WT must be above 0 for nm.Power, got -99.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_found_in_its_place_and_refuses_the_fit(name):
    df, model, rows, subject, words = ERRORS[name]
    code = name.split()[0]
    table = nm.check(df, model)
    found = table[table["code"] == code]
    assert len(found) == 1
    assert found["severity"].item() == "error"
    assert found["rows"].item() == rows
    assert found["subject"].item() == subject or subject is None
    assert set(table["code"][table["severity"] == "error"]) == {code}
    with pytest.raises(nm.DataError) as caught:
        nm.fit(model, df, FOCE)
    message = str(caught.value)
    assert message.startswith("the data cannot be used:\n  " + code + " ")
    assert words in message
    assert message.rstrip().endswith(found["fix"].item())


ERRORS |= {
    "E139": (CLEAN, OCCASIONS, [], None, "the model's occasions stand in a column `VISIT`, which the data lacks (ID, TIME, DV"),
    "E143": (CLEAN.assign(VISIT=[1, 1, 2, None, None, None]), OCCASIONS, [3, 4, 5], 4, "the occasion VISIT is missing on all"),
    "E140": (changed(3, "C", "ID"), ORAL, [3], None, "ID is 'C': that looks like a comment or a second head of the table"),
    "E140 head": (changed(3, "ID", "ID"), ORAL, [3], None, "ID is 'ID': that looks like a comment"),
    "E140 hash": (changed(3, "#4", "ID"), ORAL, [3], None, "df = df[df['ID'] != '#4']"),
    "E141": (changed(4, "1", "ID"), ORAL, [0, 1, 2], None, "ID holds both numbers and the same as text: 1."),
    "E142": (changed(2, -2, "CMT"), ORAL, [2], 1, "CMT is -2 on a record that is no dose: in NONMEM that switches the"),
    "E145": (changed(2, np.nan, "DV").assign(CENS=[0, 0, 1, 0, 0, 0]), ORAL, [2], 1, "Write the limit (LLOQ) in DV"),
    "E145 above": (changed(2, np.nan, "DV").assign(CENS=[0, 0, -1, 0, 0, 0]), ORAL, [2], 1, "beyond a limit, and DV is empty."),
    "E147": (changed(ADDL=[9e6, 0, 0, 0, 0, 0], II=[1e-7, 0, 0, 0, 0, 0]), ORAL, [0], 1, "ADDL makes 9000001 doses up to the"),
    "E148": (changed(SS=[1, 0, 0, 0, 0, 0], II=1, RATE=0.01), ORAL, [0], 1, "for more than 50 intervals II, so that as many run"),
    "E104 <": (changed(2, "<0.5", "DV"), ORAL, [2], None, "has CENS 1 and that limit (LLOQ) in DV; LIMIT holds the other end"),
    "E104 >": (changed(2, "> 50", "DV"), ORAL, [2], None, "has CENS -1 and that limit (ULOQ) in DV"),
    "E104 covariate": (changed(WT="heavy"), COVARIATES, [0, 1, 2, 3, 4, 5], None, 'nm.Category("WT", reference="heavy")'),
    "E104 CMT": (changed(0, "gut", "CMT"), ORAL, [0], None, "Compartments: 1 = depot, 2 = central."),
}

WARNINGS = {
    "W201": (changed(TIME=[-2, 1, 2, 0, 1, 2]), ORAL, [0], 1, "TIME is negative (-2)."),
    "W202": (changed(2, np.nan, "DV"), ORAL, [2], 1, "DV is missing on a record that is not a dose"),
    "W203": (changed([4, 5], 1, "MDV"), ORAL, [], 4, "1 subject(s) have no observation (first: 4); they add nothing."),
    "W204": (changed(TIME=[0, 1, 1, 0, 1, 2]), ORAL, [2], 1, "two observations of the same endpoint at the same time."),
    "W205": (changed(4, np.nan, "WT"), COVARIATES, [4], 4, "covariate WT is missing on some records"),
    "W206": (CLEAN, FRACTION, [0, 3], 1, "the model has no compartments; doses have no effect on its predictions."),
    "W207": (CLEAN[CLEAN["EVID"] == 0], ORAL, [], None, "the model has compartments and the data no dose; all amounts are 0."),
    "W208 reset": (
        changed(EVID=[1, 0, 3, 1, 0, 0]),
        ORAL,
        [2],
        1,
        "DV is given on records with EVID 2 or 3 (4) and is not used there.",
    ),
    "W210": (changed(1, 7, "CMT"), ORAL, [1], 1, "CMT is 7 on records that are no doses, and the model has no such compartment"),
    "W211": (CLEAN.assign(VISIT=[1, None, 2, 1, 1, 1]), OCCASIONS, [1], 1, "the occasion VISIT is missing on some records; the"),
    "W213": (changed(2, 1, "MDV").assign(CENS=[0, 0, 1, 0, 0, 0]), ORAL, [2], 1, "CENS says that the observation lies beyond a"),
    "W214": (changed(2, 0.0, "DV").assign(CENS=[0, 0, 1, 0, 0, 0]), ORAL, [2], 1, "CENS is 1 and DV is 0: DV holds the limit"),
    "W214 code": (changed(2, -99.0, "DV").assign(CENS=[0, 0, 1, 0, 0, 0]), ORAL, [2], 1, "CENS is 1 and DV is -99"),
    "W214 negative": (changed(2, -0.5, "DV").assign(CENS=[0, 0, 1, 0, 0, 0]), ORAL, [2], 1, "as below that"),
    "W214 above": (changed(2, 0.0, "DV").assign(CENS=[0, 0, -1, 0, 0, 0]), ORAL, [2], 1, "holds the limit (ULOQ)"),
    "W220": (changed(ID=["A", "A", "A", "A ", "A ", "A "]), ORAL, [0, 1, 2, 3, 4, 5], "A", "white space only ('A', 'A ')"),
    "W215": (CLEAN.iloc[[0, 0, 1, 2, 3, 4]], ORAL, [1], 1, "two equal doses at the same time."),
    "W216": (
        changed(II=[0, 12, 0, 0, 0, 0], ADDL=[0, 3, 0, 0, 0, 0]),
        ORAL,
        [1],
        1,
        "II, ADDL given on records that are no",
    ),
    "W216 rate": (changed(5, 10, "RATE"), ORAL, [5], 4, "RATE given on records that are no doses (EVID 0, 2 or 3): no effect"),
    "W217": (changed(0, 12, "II"), ORAL, [0], 1, "II is given on a dose without ADDL or SS: it is given once."),
    "W218": (changed(3, 0, "AMT"), ORAL, [3], 4, "a dose record (EVID 1 or 4) has the amount 0."),
    "W208": (changed(DV=[0.7, 5, 4, 0, 6, 4], MDV=0), ORAL, [0], 1, "DV is given on dose records (0.7) and is not used there."),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_is_reported_and_lets_the_data_through(name):
    df, model, rows, subject, words = WARNINGS[name]
    code = name.split()[0]
    found = nm.check(df, model)
    assert found["code"].tolist() == [code]
    assert found["severity"].item() == "warning"
    assert found["rows"].item() == rows
    assert found["subject"].item() == subject or subject is None
    assert words in found["what"].item()
    assert [f.code for f in nm.Subjects.from_frame(df, model).findings] == [code]


@pytest.mark.parametrize("name", examples())
def test_clean_data_give_an_empty_table(name):
    example = examples()[name]
    table = nm.check(example.data, example.model)
    if name == "zero-order":  # the file says compartment 2 on observations, and this model has one
        assert table["code"].tolist() == ["W210"]
        table = nm.check(example.data.drop(columns="CMT"), example.model)
    assert table.empty and list(table) == ["code", "severity", "rows", "subject", "what", "fix"]


def test_all_errors_are_listed_at_once_before_the_warnings():
    df = changed(EVID=[1, 0, 7, 1, 0, 0], CMT=9, TIME=[-1, 1, 2, 0, 1, np.nan])
    table = nm.check(df, ORAL)
    assert table["code"].tolist() == ["E107", "E118", "E132", "W210"]
    with pytest.raises(nm.DataError) as caught:
        nm.fit(ORAL, df, FOCE)
    assert [line.split()[0] for line in str(caught.value).splitlines()[1:]] == ["E107", "E118", "E132"]
    mixed = nm.check(changed(CMT=9, TIME=[-1, 1, 2, 0, 1, 2]), ORAL)
    assert mixed["code"].tolist() == ["E132", "W201", "W210"]


def test_many_rows_are_counted_and_the_first_shown():
    df = pd.concat([CLEAN.assign(ID=i) for i in range(8)])
    with pytest.raises(nm.DataError, match=r"E119 .*\[rows 0, 3, 6, 9, 12, \.\.\. \(16 rows\), first subject 0\] Correct AMT\."):
        nm.fit(ORAL, df.assign(AMT=-df["AMT"]), FOCE)


FRAMES = {
    "a list": ([1, 2], "library that narwhals knows), got list; read a file with pandas.read_csv."),
    "a file name": ("theophylline.csv", "data must be a DataFrame (of pandas, polars, pyarrow or another"),
    "two DV columns": (pd.concat([CLEAN, CLEAN[["DV"]]], axis=1), "the data has two columns called `DV`; drop or rename one."),
    "DV and dv": (CLEAN.assign(dv=1.0), "columns DV, dv all mean DV; drop or rename all but one."),
}


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_no_table_of_records_is_refused(name):
    df, words = FRAMES[name]
    for attempt in (lambda: nm.check(df, ORAL), lambda: nm.fit(ORAL, df, FOCE), lambda: nm.predict(ORAL, df)):
        with pytest.raises(nm.DataError) as caught:
            attempt()
        assert words in str(caught.value)


def test_prediction_needs_no_dv_and_no_observation():
    df = CLEAN.drop(columns="DV")
    assert len(nm.Subjects.from_frame(df, ORAL, every_record=True)) == 2
    with pytest.raises(nm.DataError, match="E132"):
        nm.predict(ORAL, df.assign(CMT=9))


def priors():
    return Theophylline(CL=nm.LogNormal(2.8, iiv=0.3, prior=dist.LogNormal(1.0, 1.0)))


REFUSED = {
    "a class for a model": (
        lambda: nm.fit(Theophylline, CLEAN, FOCE),
        nm.ModelError,
        "Theophylline is a class; pass an instance: Theophylline().",
    ),
    "a class for a model, checked": (
        lambda: nm.check(CLEAN, Theophylline),
        nm.ModelError,
        "Theophylline is a class; pass an instance",
    ),
    "a class for a model, predicted": (
        lambda: nm.predict(Theophylline, CLEAN),
        nm.ModelError,
        "Theophylline is a class; pass an instance",
    ),
    "no model": (lambda: nm.fit("Theophylline", CLEAN, FOCE), nm.ModelError, "model must be an instance of an nm.Model class"),
    "no model, predicted": (
        lambda: nm.predict(None, CLEAN),
        nm.ModelError,
        "model must be an instance of an nm.Model class, got NoneType.",
    ),
    "a class for a method": (lambda: nm.fit(ORAL, CLEAN, nm.FOCE), nm.MethodError, "FOCE is a class; pass a value: nm.FOCE()."),
    "a name for a method": (
        lambda: nm.fit(ORAL, CLEAN, "FOCE"),
        nm.MethodError,
        "method must be a value such as nm.FOCE(interaction=True)",
    ),
    "an unknown covariance": (lambda: nm.FOCE(covariance="hessian"), nm.MethodError, "got 'hessian'."),
    "no nodes": (lambda: nm.Quadrature(nodes=0), nm.MethodError, "nodes must be a whole number from 1 up, got 0."),
    "half a node": (lambda: nm.Quadrature(nodes=1.5), nm.MethodError, "got 1.5."),
    "a prior under FOCE": (
        lambda: nm.fit(priors(), CLEAN, FOCE),
        nm.MethodError,
        "FOCE with interaction maximizes the likelihood and would ignore the prior of CL",
    ),
    "an unknown start": (
        lambda: nm.fit(ORAL, CLEAN, FOCE, start={"Cl": 2.0}),
        nm.ModelError,
        "parameter `Cl` does not exist; did you mean `CL`?",
    ),
    "a start out of range": (
        lambda: nm.fit(ORAL, CLEAN, FOCE, start={"CL": -2.0}),
        nm.ModelError,
        "`CL` must lie in (0, inf), got -2.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_models_methods_and_starts_are_refused(name):
    attempt, error, words = REFUSED[name]
    with pytest.raises(error) as caught:
        attempt()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proportional_error_at_a_prediction_of_0_names_the_record_and_the_remedy(theophylline):
    model = Theophylline(conc=nm.Proportional(0.2))
    with pytest.raises(nm.DataError) as caught:
        nm.fit(model, theophylline, FOCE, progress=False)
    message = str(caught.value)
    assert message.startswith("the objective is not a number at the start for 12 subject(s): 1, 2, 3, 4, 5, 6, 7, 8")
    assert "`conc` of subject 1 at TIME 0 is predicted as 0 and has residual variance 0." in message
    assert "Add an additive part to the residual model, or leave those records out (MDV 1)." in message


def test_a_start_without_finite_prediction_names_the_record():
    class Log(Theophylline):
        def observe(self, t, A, p):
            return {"conc": jnp.log(A.central / p.V)}

    df = changed(TIME=[0, 0, 2, 0, 1, 2], DV=[np.nan, 0.1, 1.0, np.nan, 1.0, 1.0])
    with pytest.raises(nm.DataError) as caught:
        nm.evaluate(Log(), df, FOCE)
    assert "for 1 subject(s): 1. `conc` of subject 1 at TIME 0 has no finite prediction." in str(caught.value)
