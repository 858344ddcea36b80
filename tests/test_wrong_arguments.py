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
WRONG = [3, "x", None, [1], np.nan, True, {}, pd.DataFrame(), pd.Timestamp("2020-01-01")]


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
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_the_wrong_kind(made, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for value in WRONG:
            try:
                CALLS[name](*made, value)
            except nm.NlmefitError as error:
                assert str(error)
