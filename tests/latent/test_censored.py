"""Observations beyond a limit of quantification: their density, what each rule makes of them, and what methods say to them."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist
from scipy import integrate, stats

import nlmefit as nm
from nlmefit.data.censoring import Censoring
from nlmefit.latent.censored import CensoredNormal, log_probability


class Decay(nm.Model):
    """One random effect, so that its integral can be computed independently."""

    k = nm.LogNormal(0.3, iiv=0.4, unit="1/h")

    def observe(self, t, A, p):
        return {"y": 10.0 * jnp.exp(-p.k * t)}

    y = nm.Additive(0.8)


TIMES, VALUES = [1.0, 3.0, 6.0, 9.0, 12.0], [7.0, 4.5, 2.0, 1.5, 20.0]
FLAGS, LIMITS = [0, 0, 1, 1, -1], [np.nan, np.nan, np.nan, 0.2, np.nan]
"""Two observed, one below 2, one between 0.2 and 1.5, one above 20 (absurdly, far in the tail)."""


def data(**columns):
    frame = {"ID": 1, "TIME": TIMES, "DV": VALUES, "CENS": FLAGS, "LIMIT": LIMITS}
    return pd.DataFrame({**frame, **columns})


def subjects(blq, frame=None):
    return nm.Subjects.from_frame(data() if frame is None else frame, Decay(), blq=blq)


def likelihood(eta, rule, model):
    """p(y | eta) by scipy, observation by observation."""
    f = 10.0 * np.exp(-model.values["k"] * np.exp(eta) * np.array(TIMES))
    sd = model.values["y_additive"]
    terms = [stats.norm.pdf(y, m, sd) for y, m in zip(VALUES[:2], f[:2], strict=True)]
    if rule == "M1":
        return np.prod(terms)
    low = 0.0 if rule == "M4" else -np.inf
    terms += [stats.norm.cdf(2.0, f[2], sd) - stats.norm.cdf(low, f[2], sd)]
    terms += [stats.norm.cdf(1.5, f[3], sd) - stats.norm.cdf(0.2, f[3], sd), stats.norm.sf(20.0, f[4], sd)]
    return np.prod(terms) / (np.prod(stats.norm.sf(0.0, f, sd)) if rule == "M4" else 1.0)


@pytest.mark.parametrize("rule", ["M3", "M1", "M4"])
def test_the_marginal_likelihood_is_that_of_the_rule(rule):
    model = Decay().at({"y_additive": 3.0})

    def integrand(eta):
        return likelihood(eta, rule, model) * stats.norm.pdf(eta, 0, model.values["omega_k"])

    truth = np.log(integrate.quad(integrand, -3.2, 3.2, epsabs=0, epsrel=1e-11, limit=200)[0])
    fit = nm.evaluate(model, subjects(rule), nm.Quadrature(nodes=60))
    assert fit.log_likelihood == pytest.approx(truth, abs=1e-8)
    assert fit.observations == (2 if rule == "M1" else 5)
    # NONMEM's constant n log(2 pi) belongs to observed values only
    assert fit.ofv == pytest.approx(-2 * fit.log_likelihood - 2 * np.log(2 * np.pi), abs=1e-10)
    assert fit.conventions["BLQ"].startswith(f"{rule}: 3 observations")


def test_m3_is_what_a_data_frame_gets():
    assert nm.evaluate(Decay(), data(), nm.Laplace()).ofv == nm.evaluate(Decay(), subjects("M3"), nm.Laplace()).ofv


def test_a_model_with_other_needs_keeps_the_rule():
    class Slower(Decay):
        k = nm.LogNormal(0.3, iiv=0.4, covariates=[nm.Power("WT", reference=70, exponent=0.75)])

    laid_out = subjects("M1", data(WT=70.0))
    assert nm.evaluate(Slower(), laid_out, nm.FO()).observations == 2


def test_the_outer_gradient_goes_through_the_probabilities():
    model = Decay()
    frame = pd.concat([data(ID=i, DV=np.array(VALUES) * s) for i, s in enumerate((0.8, 1.0, 1.2))])
    frame = frame[frame["CENS"] >= 0]
    for method in (nm.Laplace(), nm.VI(), nm.SAEM(burn_in=150, smooth=50)):
        fit = nm.fit(model, frame, method, progress=False)
        reference = nm.evaluate(fit, frame, nm.Quadrature(nodes=30)).log_likelihood
        for name in ("k", "y_additive"):  # no step from the optimum goes up
            for factor in (0.9, 1.1):
                moved = model.at({**fit.parameters_at(), name: fit.estimates[name] * factor})
                assert nm.evaluate(moved, frame, nm.Quadrature(nodes=30)).log_likelihood < reference + 0.02, (method, name)


def test_one_step_ahead_adds_up_and_places_the_censored_within_their_interval():
    model = Decay().at({"y_additive": 3.0})
    ahead = nm.one_step_ahead(model, data(), nm.SequentialImportance(draws=20000), progress=False)
    whole = nm.evaluate(model, data(), nm.Quadrature(nodes=60)).log_likelihood
    assert ahead["log_predictive"].sum() == pytest.approx(whole, abs=4 * np.sqrt((ahead["mc_se"] ** 2).sum()) + 1e-3)
    drawn = [nm.one_step_ahead(model, data(), key=k, progress=False)["pit"].iloc[2] for k in range(8)]
    top = nm.one_step_ahead(model, data(CENS=0, LIMIT=np.nan), progress=False)["pit"].iloc[2]
    assert 0 < min(drawn) < max(drawn) < top + 0.02


@pytest.mark.parametrize("method", [nm.FO(), nm.FOCE(), nm.FOCE(interaction=True)])
def test_methods_that_linearize_refuse(method):
    with pytest.raises(nm.MethodError, match=r"some of `y` are only known to lie beyond a limit .* blq='M1'"):
        nm.fit(Decay(), data(), method)


def test_an_endpoint_with_a_distribution_of_its_own_refuses():
    class Count(nm.Model):
        rate = nm.LogNormal(3.0, iiv=0.2)

        def observe(self, t, A, p):
            return {"n": dist.Poisson(p.rate)}

    with pytest.raises(nm.DataError, match="`n`, for which `observe` gives a distribution of its own"):
        nm.fit(Count(), data(DV=[1, 2, 3, 4, 5], CENS=[0, 0, 1, 0, 0], LIMIT=np.nan), nm.Laplace())


def test_unusable_limits_are_findings():
    found = nm.check(data(DV=[7.0, 4.5, 0.0, 1.5, 20.0]), Decay(), blq="M4")
    assert list(found["code"]) == ["E138", "W214"] and found["rows"].iloc[0] == [2]
    assert list(nm.check(data(), Decay(), blq="M1")["code"]) == ["W209"]
    assert nm.check(data(), Decay()).empty
    logs = data(DV=[0.7, 0.4, -1.5, 0.1, 2.0], LIMIT=np.nan)
    assert list(nm.check(logs, Decay())["code"]) == ["W214"]
    assert nm.check(logs.assign(DV=[-0.7, 0.4, -1.5, 0.1, 2.0]), Decay()).empty
    with pytest.raises(nm.DataError, match=r"blq=: .*M2.*M3"):
        subjects("M2")


ENDS = [(-np.inf, -3.0), (-np.inf, -40.0), (2.0, np.inf), (40.0, np.inf), (-1.0, 2.0), (5.0, 5.1), (30.0, 31.0), (-31.0, -30.0)]


@pytest.mark.parametrize(("low", "high"), ENDS)
def test_log_probability_in_the_tails(low, high):
    mpmath.mp.dps = 60

    def truth(shift):
        a, b = (low + shift, high + shift) if high < 0 else (-high - shift, -low - shift)
        return mpmath.log(mpmath.ncdf(b) - mpmath.ncdf(a))

    def value(shift):
        return log_probability(jnp.asarray(low) + shift, jnp.asarray(high) + shift)

    assert jax.jit(value)(0.0) == pytest.approx(float(truth(mpmath.mpf(0))), rel=1e-9)
    for order, derivative in enumerate(
        (jax.jacfwd(value), jax.jacfwd(jax.jacfwd(value)), jax.jacfwd(jax.jacfwd(jax.jacfwd(value)))), 1
    ):
        assert jax.jit(derivative)(0.0) == pytest.approx(
            float(mpmath.diff(truth, 0, order)), rel=1e-5, abs=1e-5
        )  # log_ndtr is a series there


@pytest.mark.parametrize("positive", [False, True])
def test_no_derivative_is_nan(positive):
    """By both modes, on observed, censored and far-off rows alike."""
    value = jnp.array([1.0, 2.0, 2.0, 5.0, 1.0])
    censoring = Censoring(jnp.array([0.0, 1.0, 1.0, -1.0, 1.0]), jnp.array([jnp.nan, jnp.nan, 0.5, 9.0, jnp.nan]), positive)

    def total(x):
        loc = x[0] * jnp.array([1.0, 1.0, 1.0, 1.0, 30.0])
        return CensoredNormal(loc, jnp.exp(x[1]) * jnp.ones(5), censoring).log_prob(value).sum()

    at = jnp.array([1.2, 0.3])
    forward, backward = (jax.jit(twice(twice(total)))(at) for twice in (jax.jacfwd, jax.jacrev))
    assert np.isfinite(forward).all()
    np.testing.assert_allclose(forward, backward, rtol=1e-9)
