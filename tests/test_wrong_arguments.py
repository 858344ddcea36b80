"""Arguments of the wrong kind, in every call that shows or simulates: nlmefit's own errors, or an answer; never another error."""

import warnings

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm


class Oral(nm.Model):
    ka = nm.LogNormal(1.0, iiv=0.3)
    CL = nm.LogNormal(5.0, iiv=0.3)
    V = nm.LogNormal(40.0, iiv=0.2)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.15)


R = nm.Regimen(100)
T = nm.Target("AUC", value=20.0, start=0, end=8)
ARMS = {"a": R, "b": nm.Regimen(200)}
WRONG = [3, "x", None, [1], np.nan, True, {}, pd.DataFrame(), pd.Timestamp("2020-01-01"), np.arange(2.0)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    seen = nm.simulate(Oral(), R, times=[1, 2, 4, 8.0], subjects=8, residual=True, progress=False).records()
    simulation = nm.simulate(Oral(), ARMS, times=[1, 2, 4.0], subjects=3, progress=False)
    exposures = nm.exposure(simulation)
    page = tmp_path_factory.mktemp("page") / "r.html"
    return nm.evaluate(Oral(), seen, nm.FOCE()), simulation, exposures, nm.target_attainment(exposures, "AUC", at_least=1), page


CALLS = {
    "attainment.target": lambda fit, sim, exposed, share, page, v: nm.plot.attainment(share, target=v),
    "attainment": lambda fit, sim, exposed, share, page, v: nm.plot.attainment(v),
    "comparison": lambda fit, sim, exposed, share, page, v: nm.plot.comparison(v),
    "differences.ref": lambda fit, sim, exposed, share, page, v: nm.plot.differences(exposed, v),
    "differences.metric": lambda fit, sim, exposed, share, page, v: nm.plot.differences(exposed, "a", v),
    "differences.kind": lambda fit, sim, exposed, share, page, v: nm.plot.differences(exposed, "a", kind=v),
    "differences": lambda fit, sim, exposed, share, page, v: nm.plot.differences(v, "a"),
    "regimens": lambda fit, sim, exposed, share, page, v: nm.plot.regimens(v),
    "regimens.obs": lambda fit, sim, exposed, share, page, v: nm.plot.regimens(sim, v),
    "regimens.endpoint": lambda fit, sim, exposed, share, page, v: nm.plot.regimens(sim, endpoint=v),
    "regimens.log": lambda fit, sim, exposed, share, page, v: nm.plot.regimens(sim, log=v),
    "gof": lambda fit, sim, exposed, share, page, v: nm.plot.gof(v),
    "gof.data": lambda fit, sim, exposed, share, page, v: nm.plot.gof(fit, v),
    "individuals.subjects": lambda fit, sim, exposed, share, page, v: nm.plot.individuals(fit, subjects=v),
    "individuals.per_page": lambda fit, sim, exposed, share, page, v: nm.plot.individuals(fit, per_page=v),
    "etas.cov": lambda fit, sim, exposed, share, page, v: nm.plot.etas(fit, covariates=v),
    "npde": lambda fit, sim, exposed, share, page, v: nm.plot.npde(v),
    "convergence": lambda fit, sim, exposed, share, page, v: nm.plot.convergence(v),
    "random_effects": lambda fit, sim, exposed, share, page, v: nm.plot.random_effects(v),
    "forest": lambda fit, sim, exposed, share, page, v: nm.plot.forest(v, "WT"),
    "forest2": lambda fit, sim, exposed, share, page, v: nm.plot.forest(fit, v),
    "vpc": lambda fit, sim, exposed, share, page, v: nm.vpc(v),
    "vpc.bins": lambda fit, sim, exposed, share, page, v: nm.vpc(fit, bins=v, draws=20),
    "vpc.strata": lambda fit, sim, exposed, share, page, v: nm.vpc(fit, strata=v, draws=20),
    "vpc.prob": lambda fit, sim, exposed, share, page, v: nm.vpc(fit, probabilities=v, draws=20),
    "vpc.endpoint": lambda fit, sim, exposed, share, page, v: nm.vpc(fit, endpoint=v, draws=20),
    "vpc.draws": lambda fit, sim, exposed, share, page, v: nm.vpc(fit, draws=v),
    "vpc.key": lambda fit, sim, exposed, share, page, v: nm.vpc(fit, draws=20, key=v),
    "bands.p": lambda fit, sim, exposed, share, page, v: sim.bands(v),
    "bands.level": lambda fit, sim, exposed, share, page, v: sim.bands(level=v),
    "bands.by": lambda fit, sim, exposed, share, page, v: sim.bands(by=v),
    "opt.target": lambda fit, sim, exposed, share, page, v: nm.optimize_dose(Oral(), R, v, progress=False),
    "opt.reg": lambda fit, sim, exposed, share, page, v: nm.optimize_dose(Oral(), v, T, progress=False),
    "opt.bounds": lambda fit, sim, exposed, share, page, v: nm.optimize_dose(Oral(), R, T, bounds=v, progress=False),
    "opt.times": lambda fit, sim, exposed, share, page, v: nm.optimize_dose(
        Oral(), R, nm.Target("Cmax", value=1.0, start=0, end=8), times=v, progress=False
    ),
    "opt.eta": lambda fit, sim, exposed, share, page, v: nm.optimize_dose(Oral(), R, T, eta=v, progress=False),
    "target.metric": lambda fit, sim, exposed, share, page, v: nm.Target(v, value=1.0),
    "target.value": lambda fit, sim, exposed, share, page, v: nm.Target("AUC", value=v),
    "target.between": lambda fit, sim, exposed, share, page, v: nm.Target("AUC", between=v),
    "target.prob": lambda fit, sim, exposed, share, page, v: nm.Target("AUC", at_least=1, probability=v),
    "target.start": lambda fit, sim, exposed, share, page, v: nm.Target("AUC", value=1, start=v),
    "target.endpoint": lambda fit, sim, exposed, share, page, v: nm.optimize_dose(
        Oral(), R, nm.Target("AUC", value=20.0, start=0, end=8, endpoint=v), progress=False
    ),
    "report.strata": lambda fit, sim, exposed, share, page, v: (
        nm.report(fit, page, strata=v, draws=100, progress=False) if v is not None else 0
    ),
    "report.title": lambda fit, sim, exposed, share, page, v: (
        nm.report(fit, page, title=v) if not isinstance(v, str | None) else 0
    ),
    "report.fit": lambda fit, sim, exposed, share, page, v: nm.report(v, page),
    "diagnose": lambda fit, sim, exposed, share, page, v: nm.diagnose(v),
    "diagnose.draws": lambda fit, sim, exposed, share, page, v: nm.diagnose(fit, draws=v),
    "diagnose.progress": lambda fit, sim, exposed, share, page, v: nm.diagnose(fit, progress=v),
    "from_frame": lambda fit, sim, exposed, share, page, v: nm.Regimen.from_frame(v),
    "R.doses": lambda fit, sim, exposed, share, page, v: nm.Regimen(1, every=12, doses=v),
    "R.per": lambda fit, sim, exposed, share, page, v: nm.Regimen(1, per=v),
    "R.frame": lambda fit, sim, exposed, share, page, v: R.frame(v),
    "arviz.draws": lambda fit, sim, exposed, share, page, v: fit.to_arviz(v, inner=0),
    "arviz.inner": lambda fit, sim, exposed, share, page, v: fit.to_arviz(3, inner=v),
    "fit.subject": lambda fit, sim, exposed, share, page, v: fit.subject(v),
    "predict.eta": lambda fit, sim, exposed, share, page, v: nm.predict(fit, eta=v),
    "check.blq": lambda fit, sim, exposed, share, page, v: nm.check(fit.data.frame, Oral(), blq=v),
    "compare.data": lambda fit, sim, exposed, share, page, v: nm.compare([fit], nm.Quadrature(), data=v, progress=False),
}
"""Each of these may take some of the values."""

TRUTHS = {
    "VI.alternating": lambda fit, v: nm.VI(alternating=v),
    "AmortizedVI.refine": lambda fit, v: nm.AmortizedVI(refine=v),
    "FOCE.interaction": lambda fit, v: nm.FOCE(interaction=v),
    "Laplace.all_modes": lambda fit, v: nm.Laplace(all_modes=v),
    "steady_state": lambda fit, v: nm.Regimen(1, every=12, steady_state=v),
    "fixed": lambda fit, v: nm.LogNormal(1.0, fixed=v),
    "every_record": lambda fit, v: nm.Subjects.from_frame(fit.data.frame, Oral(), every_record=v),
    "fit.progress": lambda fit, v: nm.fit(Oral(), fit.data, nm.FO(), progress=v),
    "log_marginal.progress": lambda fit, v: nm.log_marginal(fit, progress=v),
    "compare.progress": lambda fit, v: nm.compare([fit], progress=v),
    "fit_quality.progress": lambda fit, v: nm.fit_quality(fit, progress=v),
    "bootstrap.progress": lambda fit, v: nm.bootstrap(fit, 10, progress=v),
    "one_step_ahead.progress": lambda fit, v: nm.one_step_ahead(fit, progress=v),
    "diagnose.progress": lambda fit, v: nm.diagnose(fit, progress=v),
    "vpc.progress": lambda fit, v: nm.vpc(fit, draws=20, progress=v),
    "simulate.progress": lambda fit, v: nm.simulate(fit, progress=v),
    "optimize_dose.progress": lambda fit, v: nm.optimize_dose(Oral(), R, T, progress=v),
    "report.progress": lambda fit, v: nm.report(fit, "never written.html", progress=v),
}

OTHERS = {
    "error": (lambda v: nm.ImportanceSampling(error=v), [3, None]),
    "df": (lambda v: nm.ImportanceSampling(df=v), [3]),
    "EM.df": (lambda v: nm.ImportanceEM(df=v), [3]),
    "EM.sequence": (lambda v: nm.ImportanceEM(sequence=v), []),
    "blq": (lambda v: nm.Subjects.from_frame(pd.DataFrame(), Oral(), blq=v), []),
    "covariates": (lambda v: nm.Subjects.from_frame(pd.DataFrame(), Oral(), covariates=v), []),
    **{
        f"{m.__name__}.covariance": (lambda v, m=m: m(covariance=v), [])
        for m in (nm.FO, nm.FOCE, nm.SAEM, nm.ImportanceEM, nm.VI)
    },
    **{f"{p.__name__}.unit": (lambda v, p=p: p(0.5, unit=v), ["x"]) for p in (nm.LogNormal, nm.Normal, nm.LogitNormal, nm.Theta)},
    **{f"{r.__name__}.unit": (lambda v, r=r: r(0.5, unit=v), ["x"]) for r in (nm.Additive, nm.Proportional, nm.PowerError)},
    "CombinedSD.unit": (lambda v: nm.CombinedSD(0.5, 0.1, unit=v), ["x"]),
}
"""An option, and which of the values it takes."""


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_the_wrong_kind(made, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for value in WRONG:
            try:
                CALLS[name](*made, value)
            except nm.NlmefitError as error:
                assert str(error)


@pytest.mark.parametrize("name", TRUTHS)
def test_what_is_true_or_false_takes_nothing_else(made, name):
    for value in ["no", 1, 0, None, [], np.arange(2), pd.DataFrame()]:
        with pytest.raises(nm.NlmefitError, match="must be True or False, got") as caught:
            TRUTHS[name](made[0], value)
        assert name.split(".")[-1] in str(caught.value)


@pytest.mark.parametrize("name", OTHERS)
def test_options_of_the_wrong_kind_are_named(name):
    make, taken = OTHERS[name]
    for value in WRONG:
        if any(type(value) is type(good) and value == good for good in taken):
            make(value)
            continue
        with pytest.raises(nm.NlmefitError) as caught:
            make(value)
        assert name.split(".")[-1] in str(caught.value)
