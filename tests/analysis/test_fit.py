"""`nm.fit` and its result: honest status, tables that agree with each other, one compilation."""

import numpy as np
import pandas as pd
import pytest
from models import Theophylline, examples

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate import optimize
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem

FOCEI = nm.FOCE(interaction=True)


@pytest.fixture(scope="module")
def fit() -> nm.Fit:
    example = examples()["theophylline"]
    return nm.fit(example.model, example.data, FOCEI)


def test_theophylline(fit):
    assert fit.status
    assert fit.ofv == pytest.approx(116.803413, abs=1e-4)
    assert fit.log_likelihood == pytest.approx(-0.5 * (fit.ofv + 132 * np.log(2 * np.pi)), abs=1e-9)


def test_tables_agree(fit):
    summary = fit.summary()
    assert list(summary.index) == ["ka", "CL", "V", "omega_ka", "omega_CL", "omega_V", "conc_additive"]
    assert summary.loc["ka", "unit"] == "1/h"
    np.testing.assert_allclose(summary["se"] ** 2, np.diag(fit.covariance))
    np.testing.assert_allclose(np.diag(fit.correlation), 1.0)
    assert (summary["lower"] < summary["estimate"]).all()
    assert (summary["estimate"] < summary["upper"]).all()
    assert fit.contributions["ofv"].sum() == pytest.approx(fit.ofv, abs=1e-9)
    assert fit.contributions["observations"].sum() == fit.observations == 132
    np.testing.assert_allclose(np.diag(fit.omega), fit.estimates[["omega_ka", "omega_CL", "omega_V"]] ** 2)
    typical, eta = fit.estimates[["ka", "CL", "V"]], fit.eta[["ka", "CL", "V"]]
    np.testing.assert_allclose(fit.individual[["ka", "CL", "V"]], typical.to_numpy() * np.exp(eta))
    assert fit.omega_table().loc["ka", "cv"] == pytest.approx(100 * np.sqrt(np.expm1(fit.estimates["omega_ka"] ** 2)))
    assert fit.shrinkage["V"] == pytest.approx(100 * (1 - fit.eta["V"].std(ddof=0) / fit.estimates["omega_V"]))
    assert fit.aic == pytest.approx(-2 * fit.log_likelihood + 14)


def test_the_fits_model_is_the_model_at_the_estimates(fit):
    example = examples()["theophylline"]
    again = nm.evaluate(fit.model, example.data, FOCEI)
    assert again.ofv == pytest.approx(fit.ofv, abs=1e-9)
    assert again.status.state == "evaluated"
    assert not again.status
    assert again.standard_errors.isna().all()


def test_print_says_first_what_decides_its_meaning(fit):
    lines = str(fit).splitlines()
    assert lines[0] == "Theophylline by FOCE with interaction"
    assert lines[1].startswith("  status          converged")
    assert "12 subjects, 132 observations" in lines[2]
    assert "OFV             116.803413" in lines[3]
    assert any("residual variance at the individual prediction" in line for line in lines)
    assert "NaN" not in str(fit)
    assert "nan" not in str(fit)


def test_start_from_values_and_from_a_fit(fit):
    example = examples()["theophylline"]
    elsewhere = nm.fit(example.model, example.data, FOCEI, start={"CL": 4.0, "omega_ka": 1.0})
    assert elsewhere.ofv == pytest.approx(fit.ofv, abs=1e-6)
    onward = nm.fit(example.model, example.data, FOCEI, start=fit)
    assert len(onward.history) <= 3
    with pytest.raises(nm.ModelError, match="did you mean `CL`"):
        nm.fit(example.model, example.data, FOCEI, start={"cl": 4.0})


def test_fixed_values_stay(fit):
    example = examples()["theophylline"]
    model = type(example.model)(ka=nm.LogNormal(nm.Fixed(1.4), iiv=nm.Fixed(0.5)), conc=nm.Additive(nm.Fixed(0.7)))
    fixed = nm.fit(model, example.data, FOCEI)
    assert fixed.status
    assert set(fixed.fixed) == {"ka", "omega_ka", "conc_additive"}
    assert fixed.estimates["ka"] == 1.4
    assert fixed.standard_errors[["ka", "omega_ka", "conc_additive"]].isna().all()
    assert fixed.standard_errors[["CL", "V"]].notna().all()
    assert fixed.ofv > fit.ofv
    assert "fixed" in str(fixed)


def test_interrupting_returns_the_best_so_far(monkeypatch):
    example = examples()["theophylline"]
    search = optimize._line_search
    calls = []

    def impatient(*arguments):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return search(*arguments)

    monkeypatch.setattr(optimize, "_line_search", impatient)
    stopped = nm.fit(example.model, example.data, FOCEI)
    assert stopped.status.state == "failed"
    assert "Interrupted" in str(stopped.status)
    assert stopped.ofv < stopped.history["objective"].iloc[0] - 132 * np.log(2 * np.pi) + 1e-9


class Overparameterized(nm.Model):
    """Only the product a b is determined."""

    a = nm.LogNormal(2.0, iiv=0.3)
    b = nm.Theta(1.5, lower=0)

    def observe(self, t, A, p):
        return {"y": p.a * p.b + 0.0 * t}

    y = nm.Additive(0.3)


class NeedlessEffect(nm.Model):
    """No variability between subjects in the data."""

    a = nm.Normal(2.0, iiv=0.5)

    def observe(self, t, A, p):
        return {"y": p.a + 0.0 * t}

    y = nm.Additive(0.3)


def _flat_data(between: float) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = [(i, t, (3 + 0.3 * rng.normal()) * np.exp(between * b)) for i, b in enumerate(rng.normal(size=20)) for t in range(4)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


def test_what_is_not_determined_is_not_called_converged():
    fit = nm.fit(Overparameterized(), _flat_data(0.3), FOCEI)
    assert fit.status.state == "uncertain"
    assert "do not determine" in str(fit.status)
    assert "R is not positive definite" in fit.uncertainty.note
    assert "a" in fit.uncertainty.note
    assert "b" in fit.uncertainty.note


def test_an_omega_at_zero_is_told():
    data = _flat_data(0.0)
    data["DV"] -= data.groupby("ID")["DV"].transform("mean") - 3
    fit = nm.fit(NeedlessEffect(), data, FOCEI)
    assert fit.status.state == "uncertain"
    assert "omega_a has collapsed to 0" in str(fit.status)


def test_no_random_effects():
    data = _flat_data(0.0)
    fit = nm.fit(NeedlessEffect(a=nm.Normal(2.0)), data, FOCEI)
    assert fit.status
    assert fit.estimates["a"] == pytest.approx(data["DV"].mean(), abs=1e-5)
    assert fit.estimates["y_additive"] == pytest.approx(data["DV"].std(ddof=0), rel=1e-4)
    assert fit.eta.shape == (20, 0)
    str(fit)


def test_other_values_reuse_the_compiled_program():
    example = examples()["theophylline"]
    nm.fit(example.model, example.data, FOCEI, start={"CL": 3.3})
    latent, data = bind(example.model.at({"V": 40.0}), example.data)
    run = Objective(Problem(latent, data), FOCEI)._run
    before = run._cache_size()
    nm.fit(example.model, example.data, FOCEI, start={"V": 29.0})
    assert run._cache_size() == before


def test_subject_order_does_not_matter():
    example = examples()["theophylline"]
    parts = [rows for _, rows in example.data.groupby("ID")]
    reversed_data = pd.concat(parts[::-1])
    a = nm.evaluate(example.model, example.data, FOCEI)
    b = nm.evaluate(example.model, reversed_data, FOCEI)
    np.testing.assert_allclose(b.contributions["ofv"].loc[a.contributions.index], a.contributions["ofv"], rtol=1e-12)


def test_many_subjects_in_chunks():
    """More subjects than one chunk holds: the same contributions as alone."""
    example = examples()["fraction"]
    copies = pd.concat([example.data.assign(ID=example.data["ID"] + 100 * k) for k in range(9)])
    few, many = (nm.evaluate(example.model, d, FOCEI) for d in (example.data, copies))
    assert len(many.contributions) == 135
    np.testing.assert_allclose(many.contributions["ofv"], np.tile(few.contributions["ofv"], 9), rtol=1e-11)
    np.testing.assert_allclose(many.eta.to_numpy(), np.tile(few.eta.to_numpy(), (9, 1)), atol=1e-10)
    fit = nm.fit(example.model, copies, FOCEI)
    single = nm.fit(example.model, example.data, FOCEI)
    assert fit.ofv == pytest.approx(9 * single.ofv, abs=1e-4)
    np.testing.assert_allclose(fit.standard_errors, single.standard_errors / 3, rtol=1e-3)


def test_subjects_laid_out_for_another_model_are_laid_out_anew():
    example = examples()["covariates"]
    plain = examples()["phenobarbital"].model
    subjects = nm.Subjects.from_frame(example.data, example.model)
    again = nm.evaluate(plain, subjects, FOCEI)
    assert again.ofv == nm.evaluate(plain, example.data, FOCEI).ofv
    everything = nm.Subjects.from_frame(example.data, plain, every_record=True)
    assert nm.evaluate(plain, everything, FOCEI).ofv == again.ofv


def test_labels_with_leading_zeros_stay_apart():
    data = _flat_data(0.2)
    data["ID"] = np.where(data["ID"] == 0, "001", data["ID"].astype(str))
    fit = nm.evaluate(NeedlessEffect(), data, FOCEI)
    assert list(fit.eta.index[:2]) == ["001", "1"]


class Spare(Theophylline):
    """A parameter that nothing uses, with and without a random effect."""

    spare = nm.LogNormal(1.0, iiv=0.3)
    spare_too = nm.Theta(2.0)


def test_a_parameter_without_effect_is_named_and_takes_nobody_elses_standard_error(theophylline):
    plain, spare = (nm.fit(model, theophylline, nm.FOCE(interaction=True)) for model in (Theophylline(), Spare()))
    assert spare.status.state == "uncertain" and len(spare.status.reasons) == 1
    assert "does not depend on spare, spare_too, omega_spare: the model makes no use of it" in str(spare.status)
    assert spare.ofv == pytest.approx(plain.ofv, abs=1e-6)
    se, own = (np.sqrt(np.diag(fit.covariance)) for fit in (spare, plain))
    unused = spare.estimates.index.isin(["spare", "spare_too", "omega_spare"])
    assert np.isnan(se[unused]).all()
    np.testing.assert_allclose(se[~unused], own, rtol=1e-3)


def test_a_parameter_without_effect_is_named_by_em_too(theophylline):
    class Unused(Theophylline):
        spare = nm.Theta(2.0)

    fit = nm.fit(Unused(), theophylline, nm.SAEM(burn_in=100, smooth=50, draws=200))
    assert "does not depend on spare: " in str(fit.status) and "not positive definite" not in str(fit.status)
    assert np.isnan(np.diag(fit.covariance)[3]) and np.isfinite(np.diag(fit.covariance)).sum() == 7


@pytest.mark.parametrize("call", [nm.log_marginal, nm.one_step_ahead, nm.fit_quality, nm.posterior, nm.predict])
def test_what_follows_from_a_fit_takes_its_own_data(fit, call):
    given, own = (call(fit, data) for data in (examples()["theophylline"].data, None))
    numbers = {nm.log_marginal: lambda x: x.value, nm.fit_quality: lambda x: x.per_subject, nm.posterior: lambda x: x.draws}
    of = numbers.get(call, lambda x: x.select_dtypes("number"))
    np.testing.assert_array_equal(of(own), of(given))


def test_data_that_nobody_holds_are_asked_for(fit):
    with pytest.raises(nm.DataError, match=r"data= is needed: a model holds no data of its own\."):
        nm.log_marginal(fit.model)
