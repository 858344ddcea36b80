"""Records as people have them: labels kept, names beside the right one, designs without DV, doses that nobody sees."""

import jax
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.population.latent import PopulationModel


class Bolus(nm.Model):
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Stepped(nm.Model):
    """A narrow input at 50, which steps pass over unless a record stops them."""

    rate = nm.LogNormal(1.0, iiv=0.1)
    solver = nm.RungeKutta()

    def initial(self, p):
        return {"x": 1.0}

    def dynamics(self, t, A, p):
        return {"x": p.rate * np.e ** (-0.5 * ((t - 50) / 0.3) ** 2) * (1 + 0 * A.x)}

    def observe(self, t, A, p):
        return {"y": A.x}

    y = nm.Additive(0.1)


BOLUS = Bolus()
ONE = pd.DataFrame({"ID": 1, "TIME": [0, 1.0], "EVID": [1, 0], "AMT": [100.0, 0], "DV": [None, 2.0]})
RIGHT = [2.5, 2.5 * np.exp(-5 / 40)]


def codes(df, model=BOLUS):
    return nm.check(df, model)["code"].tolist()


def message(df, model=BOLUS):
    with pytest.raises(nm.DataError) as caught:
        nm.Subjects.from_frame(df, model)
    return str(caught.value)


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [["2", "3"], ["2A", "x"]])
def test_the_users_own_ids_find_the_fits_rows(others):
    df = pd.concat([ONE.assign(ID=who) for who in ("001", *others)])
    fit = nm.evaluate(BOLUS, df, nm.FOCE())
    assert list(fit.eta.index) == ["001", *others]
    first = df[df["ID"] == "001"]
    assert len(nm.predict(fit, first, eta=fit)) == 2
    assert len(first.merge(fit.individual, left_on="ID", right_index=True)) == 2
    with pytest.raises(nm.DataError, match="There 2 is text, in the data a number" if others[0] == "2" else "no row for subject"):
        nm.predict(fit, ONE.assign(ID=2), eta=fit)


def test_white_space_around_ids_is_the_users():
    df = pd.concat([ONE.assign(ID=who) for who in (" 1 ", "2 ", "10")])
    fit = nm.evaluate(BOLUS, df, nm.FOCE())
    assert list(fit.eta.index) == [" 1 ", "2 ", "10"]
    assert len(df.merge(fit.individual, left_on="ID", right_index=True)) == len(df)


@pytest.mark.parametrize("who", [2**63 + 1, "12345678901234567890", 10**20])
def test_ids_of_many_digits_are_labels(who, tmp_path):
    df = ONE.assign(ID=pd.Series([who] * 2, dtype="uint64" if who == 2**63 + 1 else object))
    assert codes(df) == []
    fit = nm.evaluate(BOLUS, df, nm.FOCE())
    assert list(fit.eta.index) == [who] and nm.predict(fit, df, eta=fit)["conc"].notna().all()
    fit.save(tmp_path / "fit.nlmefit")
    assert list(map(str, nm.load(tmp_path / "fit.nlmefit").eta.index)) == [str(who)]


# ---- names beside the right one --------------------------------------------------------------------------------------

LIKE = {
    "a byte-order mark": (ONE.rename(columns={"ID": "\ufeffID"}), "Did you mean '\\ufeffID'?"),
    "a misread one": (ONE.rename(columns={"ID": "ï»¿ID"}), "Did you mean 'ï»¿ID'?"),
    "a head that is a comment": (ONE.rename(columns={"ID": "#ID"}), "columns={'#ID': 'ID'}"),
    "a blank": (ONE.rename(columns={"TIME": " TIME"}), "columns={' TIME': 'TIME'}"),
    "a near name": (ONE.rename(columns={"TIME": "TIMES"}), "Did you mean 'TIMES'?"),
    "the index": (ONE.set_index("ID"), "Its index is called ID. Make that a column: df.reset_index()."),
    "none": (ONE.rename(columns={"ID": "Subject"}), "nm.Subjects.from_frame(df, model, columns={'YOURS': 'ID'})."),
}


@pytest.mark.parametrize("case", LIKE)
def test_the_column_that_is_meant_is_named_and_the_remedy_works(case):
    df, words = LIKE[case]
    assert words in message(df)
    wrong = [c for c in df if c not in ONE]
    if wrong:
        missing = next(c for c in ONE if c not in df)
        assert nm.Subjects.from_frame(df, BOLUS, columns={wrong[0]: missing}).ids == [1]


def test_no_advice_merges_subjects():
    returning = pd.concat([ONE, ONE.assign(ID=2), ONE])
    for df in (returning, pd.concat([ONE, ONE])):
        assert "sort" not in message(df)
    renumbered = returning.assign(ID=(returning["ID"] != returning["ID"].shift()).cumsum())
    assert len(nm.Subjects.from_frame(renumbered, BOLUS)) == 3


# ---- without DV ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "design", [ONE.drop(columns="DV"), ONE.assign(DV=None), ONE.assign(DV=".")], ids=["no DV", "empty", "dots"]
)
def test_a_design_without_dv_is_predicted_and_simulated_and_not_fitted(design):
    table = nm.check(design, BOLUS)
    assert table["code"].tolist() == ["W212"] and "simulated, not fitted" in table["what"].item()
    np.testing.assert_allclose(nm.predict(BOLUS, design)["conc"], RIGHT)
    simulated = nm.simulate(BOLUS, subjects=design, eta="typical", progress=False).frame()
    np.testing.assert_allclose(simulated["conc"], RIGHT[1:])
    with pytest.raises(nm.DataError, match=r"E101 there is no column DV|E110 there is no observation"):
        nm.evaluate(BOLUS, design, nm.FOCE())


def test_text_in_dv_is_no_matter_where_dv_is_not_needed():
    np.testing.assert_allclose(nm.predict(BOLUS, ONE.assign(DV=[None, "<0.5"]))["conc"], RIGHT)


# ---- compartments and endpoints by name ------------------------------------------------------------------------------


class Oral(Bolus):
    ka = nm.LogNormal(1.0)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V, "gut": A.depot}

    gut = nm.Additive(1.0)


def test_compartments_and_endpoints_go_by_name_or_number():
    rows = pd.concat([ONE, ONE[1:]])
    named = rows.assign(CMT=["central", "2", 2.0], DVID=[".", "conc", "gut"])
    numbered = rows.assign(CMT=[2, 2, 2], DVID=[0, 1, 2])
    laid = [nm.Subjects.from_frame(df, Oral()).subjects for df in (named, numbered)]
    assert laid[0].doses.only == laid[1].doses.only == 1
    for name in ("conc", "gut"):
        np.testing.assert_array_equal(laid[0].mask[name], laid[1].mask[name])
    assert nm.Regimen.from_frame(ONE) == nm.Regimen(100)
    with pytest.raises(nm.DataError, match="column CMT holds text"):
        nm.Regimen.from_frame(ONE.assign(CMT="central"))


# ---- doses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [1, 10**7, 10**12])
def test_doses_after_the_last_record_do_not_count(more):
    df = pd.concat([ONE, ONE.assign(ID=2, TIME=[0, 24.0])]).assign(II=12.0 * (np.arange(4) % 2 == 0), ADDL=[more, 0] * 2)
    doses = nm.Subjects.from_frame(df, BOLUS).subjects.doses
    np.testing.assert_array_equal(doses.time[0][doses.segment[0] >= 0], [0.0])
    np.testing.assert_array_equal(doses.time[1][doses.segment[1] >= 0], [0.0, 12.0, 24.0][: more + 1])


def test_a_regimen_is_written_out_as_far_as_it_is_seen():
    regimen = nm.Regimen(100, every=12, doses=10**9) + nm.Regimen(50).after(20)
    assert regimen.frame(written_out=True, until=24.0)["TIME"].tolist() == [0.0, 12.0, 20.0, 24.0]
    assert len(regimen.frame()) == 2


@pytest.mark.parametrize(
    ("start", "every", "seen", "given"),
    [
        (0.0, 0.1, 0.3, [0.0, 0.1, 0.2, 0.3]),  # 3 * 0.1 is 0.30000000000000004
        (988.0, 12.0, 1000.0000005, [988.0, 1000.0]),
        (1e9, 12.0, 1e9 + 12.5, [1e9, 1e9 + 12.0]),
    ],
)
def test_additional_doses_stay_at_their_times(start, every, seen, given):
    df = ONE.assign(TIME=[start, seen], II=[every, 0], ADDL=[3, 0])
    assert nm.Subjects.from_frame(df, BOLUS).subjects.doses.time[0].tolist() == pytest.approx(given, rel=1e-15)
    assert seen != 0.3 or 0.3 in nm.Subjects.from_frame(df, BOLUS).subjects.doses.time[0]


def test_a_placebo_is_a_dose_of_nothing():
    for more in ({}, {"SS": [1, 0], "II": [12.0, 0]}, {"DUR": [2.0, 0]}):
        placebo = ONE.assign(AMT=0.0, **more)
        assert codes(placebo) == ["W218"]
        np.testing.assert_array_equal(nm.predict(BOLUS, placebo)["conc"], [0.0, 0.0])
    assert "E120" in codes(ONE.assign(AMT=[None, 0])) and "E120" in codes(ONE.assign(AMT=0.0, RATE=[10.0, 0]))


# ---- one set of rows -------------------------------------------------------------------------------------------------


def in_the_fit(model, df):
    """The last prediction of the likelihood's own rows, at eta = 0."""
    laid = nm.Subjects.from_frame(df, model)
    latent = PopulationModel.of(model, laid)
    one = jax.tree.map(lambda x: x[0], laid.subjects)
    theta = {name: p.start for name, p in latent.parameters().items()}
    return float(latent.predict(theta, np.zeros(1), one, ("x",))[0]["y"][-1])


def test_records_stop_the_solver_in_every_call():
    df = pd.DataFrame({"ID": 1, "TIME": [0, 1.0, 49.9, 100, 120], "EVID": [0, 0, 2, 0, 2], "DV": [1.0, 1, None, 1.75, None]})
    wanted = 1 + 0.3 * np.sqrt(2 * np.pi)
    model = Stepped()
    seen = nm.predict(model, df)["y"].iloc[3]
    assert seen == pytest.approx(wanted, rel=1e-5)
    assert in_the_fit(model, df) == pytest.approx(seen, rel=1e-12)
    assert in_the_fit(model, df.assign(MDV=[0, 0, 1, 0, 1], EVID=0)) == pytest.approx(seen, rel=1e-12)
    for times in (None, [0.0, 1.0, 100.0]):
        frame = nm.simulate(model, subjects=df, times=times, eta="typical", progress=False).frame()
        assert frame["y"].iloc[2] == pytest.approx(seen, rel=1e-12)
    alone = nm.predict(model, df[df["EVID"] == 0])["y"].iloc[2]  # without the record in between the input is passed over
    assert alone == pytest.approx(1.0)
