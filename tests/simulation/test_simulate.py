"""Simulated profiles: their moments, common random numbers, and who is simulated."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.simulation import replicates


class Line(nm.Model):
    """y = a + b t + e, linear in everything: its moments are known."""

    a = nm.Normal(2.0, iiv=0.5)
    b = nm.Normal(0.3, iiv=0.2)
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.4)


class Oral(nm.Model):
    ka = nm.LogNormal(1.5, iiv=0.6)
    CL = nm.LogNormal(2.8, iiv=0.3, covariates=[nm.Power("WT", reference=70, exponent=0.75)])
    V = nm.LogNormal(32.0, iiv=0.15)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7)


TIMES = np.array([0.0, 1.0, 4.0])
WEIGHTS = {"WT": 70.0}
LINES = pd.DataFrame({"ID": 1, "TIME": TIMES, "DV": 0.0})


@pytest.fixture(scope="module")
def oral_fit(root):
    return nm.fit(Oral(), pd.read_csv(root / "datasets" / "theophylline.csv"), nm.FOCE(interaction=True), progress=False)


@pytest.fixture(scope="module")
def line_fit():
    rng = np.random.default_rng(3)
    eta = rng.normal(size=(60, 2)) * [0.5, 0.2]
    y = 2.0 + eta[:, :1] + (0.3 + eta[:, 1:]) * TIMES + 0.4 * rng.normal(size=(60, 3))
    frame = pd.DataFrame({"ID": np.repeat(np.arange(60), 3), "TIME": np.tile(TIMES, 60), "DV": y.ravel()})
    return nm.fit(Line(), frame, nm.FOCE(), progress=False)


def values(simulation):
    """(draws, N, T) of the only endpoint."""
    frame = simulation.frame()
    found = frame[simulation.endpoints[0]].to_numpy().reshape(len(simulation.ids), simulation.draws, -1)
    return np.swapaxes(found, 0, 1)


@pytest.mark.parametrize("residual", [False, True])
def test_moments_of_a_linear_gaussian_model(residual):
    model = Line().at({"corr_a_b": 0.6})
    found = values(nm.simulate(model, times=TIMES, subjects=LINES, draws=20000, residual=residual, progress=False))[:, 0]
    design = np.stack([np.ones(3), TIMES], axis=1)
    omega = np.array([[0.25, 0.06], [0.06, 0.04]])
    truth = design @ omega @ design.T + 0.16 * residual * np.eye(3)
    error = np.sqrt(np.diag(truth) / len(found))
    assert np.all(np.abs(found.mean(axis=0) - design @ [2.0, 0.3]) < 4 * error)
    covariance = np.cov(found.T)
    spread = np.sqrt((truth**2 + np.outer(np.diag(truth), np.diag(truth))) / len(found))
    assert np.all(np.abs(covariance - truth) < 4 * spread)


def test_parameter_uncertainty_adds_its_covariance(line_fit):
    simulation = nm.simulate(line_fit, times=TIMES, eta="typical", uncertainty="covariance", draws=20000, progress=False)
    found = values(simulation)[:, 0]
    design = np.stack([np.ones(3), TIMES], axis=1)
    truth = design @ line_fit.covariance.loc[["a", "b"], ["a", "b"]].to_numpy() @ design.T
    np.testing.assert_allclose(np.cov(found.T), truth, rtol=0.06)
    np.testing.assert_allclose(found.mean(axis=0), design @ line_fit.estimates[["a", "b"]], atol=4 * np.sqrt(truth.max() / 20000))


def test_a_regimen_compared_with_itself_differs_by_nothing():
    same = {"one": nm.Regimen(320), "two": nm.Regimen(320), "half": nm.Regimen(160)}
    simulation = nm.simulate(Oral(), same, times=TIMES, subjects=7, covariates=WEIGHTS, draws=5, residual=True, progress=False)
    frame = simulation.frame().pivot_table(index=["ID", "draw", "TIME"], columns="regimen", values="conc")
    assert (frame["one"] == frame["two"]).all()
    noise = (
        simulation.frame().conc
        - nm.simulate(Oral(), same, times=TIMES, subjects=7, covariates=WEIGHTS, draws=5, progress=False).frame().conc
    )
    by = noise.to_numpy().reshape(3, -1)
    np.testing.assert_allclose(by[0], by[2], atol=1e-12)  # the same noise, too


def test_the_answer_does_not_depend_on_the_pieces(monkeypatch):
    def run():
        simulation = nm.simulate(
            Oral(), nm.Regimen(320), times=TIMES, subjects=9, covariates=WEIGHTS, draws=11, residual=True, key=5, progress=False
        )
        return values(simulation), simulation.bands(), nm.exposure(simulation)

    whole = run()
    monkeypatch.setattr(replicates, "CLOSED_FORM_BUDGET", 12)
    monkeypatch.setattr(replicates, "ODE_BUDGET", 12)
    small = run()
    np.testing.assert_allclose(small[0], whole[0], rtol=1e-12)
    for a, b in zip(small[1:], whole[1:], strict=True):
        pd.testing.assert_frame_equal(a, b, rtol=1e-11)


def test_draws_do_not_depend_on_what_else_is_simulated():
    few = nm.simulate(Oral(), nm.Regimen(1), times=TIMES, subjects=3, covariates=WEIGHTS, draws=2, progress=False)
    many = nm.simulate(Oral(), nm.Regimen(1), times=TIMES, subjects=5, covariates=WEIGHTS, draws=4, progress=False)
    np.testing.assert_allclose(values(many)[:2, :3], values(few), rtol=1e-12)


def test_the_key_decides():
    def run(key):
        return values(nm.simulate(Oral(), nm.Regimen(1), times=TIMES, subjects=3, covariates=WEIGHTS, key=key, progress=False))

    assert (run(1) == run(1)).all() and (run(1) != run(2)).any()


def test_own_doses_at_the_modes_are_the_individual_predictions(oral_fit, theophylline):
    found = nm.simulate(oral_fit, eta="mode", progress=False).frame()
    expected = nm.predict(oral_fit, theophylline, oral_fit)
    np.testing.assert_allclose(found["conc"], expected.loc[expected["EVID"] == 0, "conc"], atol=1e-12)


def test_own_doses_seen_at_other_times(oral_fit, theophylline):
    found = nm.simulate(oral_fit, times=[0.0, 3.0, 30.0], eta="mode", progress=False).frame()
    extra = [
        theophylline[theophylline["ID"] == i].iloc[[0]].assign(TIME=t, EVID=2, AMT=0.0) for i in (1, 12) for t in (3.0, 30.0)
    ]
    records = pd.concat([theophylline, *extra]).sort_values(["ID", "TIME"], kind="stable")
    expected = nm.predict(oral_fit, records, oral_fit)
    chosen = found[found["ID"].isin([1, 12]) & (found["TIME"] > 0)]
    np.testing.assert_allclose(chosen["conc"], expected.loc[expected["EVID"] == 2, "conc"], atol=1e-12)


def test_individual_draws_are_those_of_the_posterior(oral_fit, theophylline):
    simulation = nm.simulate(oral_fit, times=[0.0, 2.0], eta="individual", draws=2000, progress=False)
    found = nm.posterior(oral_fit, theophylline, 2000)
    error = 4 * found.sd / np.sqrt(400)
    assert np.all(np.abs(simulation.eta.mean(axis=0) - found.mean) < error)


def test_individual_draws_with_uncertain_parameters(oral_fit):
    certain = nm.simulate(oral_fit, times=[0.0, 2.0], eta="individual", draws=300, progress=False)
    uncertain = nm.simulate(oral_fit, times=[0.0, 2.0], eta="individual", uncertainty="covariance", draws=300, progress=False)
    assert len(np.unique(uncertain.u[:, 0])) == 300
    ratio = values(uncertain)[:, :, 1].std(axis=0) / values(certain)[:, :, 1].std(axis=0)
    assert 0.8 < np.median(ratio) < 1.5  # random effects follow the parameters, so that the data still hold the profile


def test_steady_state_repeats_itself():
    regimen = nm.Regimen(100, every=12, steady_state=True) + nm.Regimen(100, every=12, doses=4).after(12)
    frame = nm.simulate(
        Oral(), regimen, times=[1.0, 13.0, 37.0], eta="typical", covariates=WEIGHTS, subjects=1, progress=False
    ).frame()
    np.testing.assert_allclose(frame["conc"], frame["conc"][0], rtol=1e-10)


def test_a_dose_after_the_own_ones(oral_fit, theophylline):
    more = nm.Regimen.observed() + nm.Regimen(100).after(24)
    found = nm.simulate(oral_fit, more, times=[30.0], eta="mode", progress=False).frame()
    dose = theophylline.groupby("ID").head(1).assign(TIME=24.0, AMT=100.0)
    later = dose.assign(TIME=30.0, AMT=0.0, EVID=2)
    records = pd.concat([theophylline[theophylline["TIME"] < 24], dose, later]).sort_values(["ID", "TIME"], kind="stable")
    expected = nm.predict(oral_fit, records, oral_fit)
    np.testing.assert_allclose(found["conc"], expected.loc[expected["TIME"] == 30, "conc"], atol=1e-12)


class Turning(nm.Model):
    """Clearance changes with a covariate in time, and between occasions."""

    CL = nm.LogNormal(3.0, iiv=0.2, iov=0.3, covariates=[nm.Power("CRCL", reference=100, exponent=1.0)])
    V = nm.LogNormal(30.0, iiv=0.2)
    occasion = "OCC"
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


def changing():
    one = pd.DataFrame({"TIME": [0.0, 5, 12, 20], "AMT": [100.0, 0, 100, 0], "EVID": [1, 0, 1, 0], "DV": 1.0})
    one = one.assign(CRCL=[100.0, 80, 60, 60], OCC=[1, 1, 2, 2])
    return pd.concat([one.assign(ID=1), one.assign(ID=2, CRCL=[50.0, 50, 90, 90])])


@pytest.mark.parametrize("rule", ["nocb", pytest.param("locf", marks=pytest.mark.slow), "linear"])
def test_covariates_and_occasions_run_as_in_the_data(rule):
    data = nm.Subjects.from_frame(changing(), Turning(), covariates=rule)
    etas = pd.DataFrame({"CL": [0.1, -0.2], "V": [0.3, 0.0], "kappa_CL_1": [0.2, 0.1], "kappa_CL_2": [-0.3, 0.4]}, [1, 2])
    own = nm.simulate(Turning(), subjects=data, eta=etas, progress=False).frame()
    regimen = nm.Regimen(100, every=12, doses=2)
    other = nm.simulate(Turning(), regimen, subjects=data, eta=etas, progress=False).frame()
    denser = nm.simulate(Turning(), regimen, subjects=data, times=[2.0, 5.0, 9.0, 20.0], eta=etas, progress=False).frame()
    solved = 1e-6 if rule == "linear" else 1e-10  # steps of a differential equation stop at rows, too
    np.testing.assert_allclose(other["conc"], own["conc"], rtol=solved)
    np.testing.assert_allclose(denser.loc[denser["TIME"].isin([5, 20]), "conc"], own["conc"], rtol=solved)


def test_new_subjects_get_covariates_from_the_data_or_a_table(oral_fit):
    drawn = nm.simulate(oral_fit, nm.Regimen(5, per="WT"), times=TIMES, subjects=40, progress=False)
    assert set(drawn.people["WT"]) <= set(oral_fit.data.frame["WT"]) and len(drawn.ids) == 40
    table = pd.DataFrame({"ID": [7, 9], "WT": [50.0, 100.0]})
    given = nm.simulate(oral_fit, nm.Regimen(5, per="WT"), times=TIMES, covariates=table, eta="typical", progress=False)
    frame = given.frame()
    assert frame["ID"].unique().tolist() == [7, 9]
    # dose by weight, CL by weight^0.75: at time 0 nothing, later alike but not equal
    assert (frame.groupby("ID")["conc"].first() == 0).all()


def test_bands_are_quantiles_over_subjects():
    simulation = nm.simulate(Oral(), nm.Regimen(320), times=TIMES, subjects=50, covariates=WEIGHTS, draws=30, progress=False)
    bands = simulation.bands([0.1, 0.5], level=0.8)
    found = np.quantile(values(simulation), [0.1, 0.5], axis=1)
    np.testing.assert_allclose(bands["value"], np.median(found, axis=1).ravel(), rtol=1e-12)
    np.testing.assert_allclose(bands["lower"], np.quantile(found, 0.1, axis=1).ravel(), rtol=1e-12)
    by = simulation.bands([0.5], by="ID")
    np.testing.assert_allclose(by["value"], np.median(values(simulation), axis=0).ravel(), rtol=1e-12)


def test_bootstrap_feeds_a_simulation(line_fit):
    table = nm.bootstrap(line_fit, 3, key=2, progress=False)
    assert list(table) == list(line_fit.estimates.index) and len(table) == 3 and all(table.attrs["converged"])
    pd.testing.assert_frame_equal(table, nm.bootstrap(line_fit, 3, key=2, progress=False))
    simulation = nm.simulate(line_fit, times=TIMES, eta="typical", uncertainty=table, draws=3, progress=False)
    expected = table["a"].to_numpy()[:, None] + table["b"].to_numpy()[:, None] * TIMES
    np.testing.assert_allclose(values(simulation)[:, 0], expected, rtol=1e-12)


def test_bootstrap_errors_agree_with_the_sandwich(line_fit):
    with pytest.warns(UserWarning, match="1 of 100 refits did not converge"):
        table = nm.bootstrap(line_fit, 100, progress=False)
    names = ["a", "b", "y_additive"]
    good = table.loc[table.attrs["converged"], names]
    np.testing.assert_allclose(good.std(), line_fit.standard_errors[names], rtol=0.3)


ERRORS = [
    (lambda f: nm.simulate(Oral(), nm.Regimen(1), times=[1, 1, 2], subjects=1), nm.DataError, "times must increase"),
    (lambda f: nm.simulate(Oral(), nm.Regimen(1), times=["a"], subjects=1), nm.DataError, "times must be numbers"),
    (lambda f: nm.simulate(Oral(), nm.Regimen(1), times=[1]), nm.DataError, "whom to simulate"),
    (lambda f: nm.simulate(Oral(), nm.Regimen(1), times=[1], subjects=2), nm.DataError, "the model reads WT: give covariates="),
    (lambda f: nm.simulate(Oral(), nm.Regimen(1), times=[1], covariates={"WGT": 1}), nm.DataError, "did you mean `WGT`"),
    (lambda f: nm.simulate(Oral(), times=[1], subjects=2, covariates=WEIGHTS), nm.DataError, "new subjects have no doses"),
    (lambda f: nm.simulate(Oral(), 5, times=[1], subjects=2, covariates=WEIGHTS), nm.DataError, "regimens must be"),
    (lambda f: nm.simulate(Oral(), {"a": 5}, times=[1], subjects=2, covariates=WEIGHTS), nm.DataError, "regimen 'a' must be"),
    (lambda f: nm.simulate(Line(), nm.Regimen(1), times=[1], subjects=2), nm.DataError, "no compartments"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], eta="indivdual"), nm.MethodError, "did you mean `individual`"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], uncertainty="cov"), nm.MethodError, "kind `cov` does not exist"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], uncertainty="posterior"), nm.MethodError, "needs draws of NUTS"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], draws=0), nm.MethodError, "draws must be a whole number"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], key="a"), nm.MethodError, "key must be"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], eta=f.eta[["ka"]]), nm.DataError, "random effect CL"),
    (lambda f: nm.simulate(Line(), times=[1], subjects=LINES, eta="mode"), nm.MethodError, "needs a fit"),
    (lambda f: nm.simulate(f, nm.Regimen(1), times=[1], subjects=2, eta="individual"), nm.MethodError, "with observations"),
    (lambda f: nm.simulate(f, nm.Regimen(1)).bands(), nm.MethodError, "bands need common times"),
    (lambda f: nm.simulate(Oral, nm.Regimen(1), times=[1], subjects=2), nm.ModelError, "is a class"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), ERRORS, ids=[words for *_, words in ERRORS])
def test_errors(oral_fit, call, error, words):
    with pytest.raises(error, match=words):
        call(oral_fit)


def test_too_many_rows_for_a_frame():
    simulation = nm.simulate(
        Oral(), nm.Regimen(1), times=np.arange(200.0), subjects=1000, covariates=WEIGHTS, draws=1000, progress=False
    )
    with pytest.raises(nm.MethodError, match=r"200,000,000 rows.*bands"):
        simulation.frame()


def test_an_interrupted_simulation_gives_what_it_has(monkeypatch):
    simulation = nm.simulate(Oral(), nm.Regimen(1), times=TIMES, subjects=4, covariates=WEIGHTS, draws=20, progress=False)
    monkeypatch.setattr(replicates, "CLOSED_FORM_BUDGET", 12)
    whole, real = simulation.frame(), replicates.pieces

    def interrupted(*args, **options):
        for count, piece in enumerate(real(*args, **options)):
            if count == 7:
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr("nlmefit.simulation.profiles.pieces", interrupted)
    with pytest.warns(UserWarning, match="interrupted: these are 7 of 20 draws"):
        part = simulation.frame()
    pd.testing.assert_frame_equal(part, whole[whole["draw"] < 7].reset_index(drop=True))


def test_a_design_without_data_is_seen_at_its_own_times():
    """EVID 0 rows without DV; where there are none, times= is asked for."""
    design = pd.DataFrame({"ID": 1, "TIME": [0.0, 1.0, 4.0], "AMT": [320.0, np.nan, np.nan], "EVID": [1, 0, 0], "WT": 70.0})
    found = nm.simulate(Oral(), subjects=design, eta="typical", progress=False).frame()
    given = nm.simulate(Oral(), subjects=design, times=[1.0, 4.0], eta="typical", progress=False).frame()
    np.testing.assert_allclose(found["conc"], given["conc"])
    with pytest.raises(nm.DataError, match="no observations, so no times of their own"):
        nm.simulate(Oral(), subjects=design[design["EVID"] == 1], eta="typical", progress=False).frame()
