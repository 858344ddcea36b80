"""Residuals against NumPy: finite differences of `nm.predict`, NONMEM's definitions; linear models in closed form."""

import numpy as np
import pandas as pd
import pytest
from models import PKPD, examples
from scipy.linalg import sqrtm

import nlmefit as nm


def inverse_root(matrix):
    return np.linalg.inv(np.real(sqrtm(matrix)))


def by_finite_differences(fit, data, residual_variance, interaction):
    """PRED, IPRED, WRES, CWRES and IWRES of all observations, from predictions alone; `residual_variance(endpoint, f)`."""
    model, eta = fit.model, fit.eta
    names, endpoints = list(eta.columns), model.endpoints
    observed = data["EVID"] == 0
    which = np.ones(len(data), int) if "DVID" not in data else data["DVID"].to_numpy()

    def f(at):
        table = nm.predict(model, data, at)
        return np.choose(which - 1, [table[name] for name in endpoints])[observed]

    def slope(at, h=1e-5):
        columns = []
        for name in names:
            up, down = at.copy(), at.copy()
            up[name] += h
            down[name] -= h
            columns.append((f(up) - f(down)) / (2 * h))
        return np.stack(columns, axis=1)

    zero = eta * 0.0
    own = which[observed] - 1
    f0, fi, F0, Fi = f(zero), f(eta), slope(zero), slope(eta)
    V0, Vi = (np.array([residual_variance(endpoints[k], x) for k, x in zip(own, values)]) for values in (f0, fi))
    y, ids, omega = data.loc[observed, "DV"].to_numpy(), data.loc[observed, "ID"].to_numpy(), fit.omega.to_numpy()
    wres, cwres = np.empty(len(y)), np.empty(len(y))
    for who in eta.index:
        k = ids == who
        wres[k] = inverse_root(F0[k] @ omega @ F0[k].T + np.diag(V0[k])) @ (y[k] - f0[k])
        expected = fi[k] - Fi[k] @ eta.loc[who].to_numpy()
        spread = Fi[k] @ omega @ Fi[k].T + np.diag((Vi if interaction else V0)[k])
        cwres[k] = inverse_root(spread) @ (y[k] - expected)
    return {"PRED": f0, "IPRED": fi, "RES": y - f0, "WRES": wres, "CWRES": cwres, "IRES": y - fi, "IWRES": (y - fi) / np.sqrt(Vi)}


@pytest.mark.parametrize("interaction", [True, False])
def test_two_endpoints_by_finite_differences(interaction):
    data = examples()["pkpd"].data
    fit = nm.evaluate(PKPD(), data, nm.FOCE(interaction=interaction))
    v = fit.model.values

    def variance(endpoint, f):
        return (v["cp_proportional"] * f) ** 2 if endpoint == "cp" else v["effect_additive"] ** 2

    expected = by_finite_differences(fit, data, variance, interaction)
    found = nm.diagnose(fit, progress=False).residuals
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=2e-6, err_msg=name)
    assert list(found["endpoint"][:4]) == ["cp", "effect", "cp", "effect"]
    assert list(found.index) == list(data.index[data["EVID"] == 0])


@pytest.mark.parametrize("name", ["written", pytest.param("turnover", marks=pytest.mark.slow)])
def test_differential_equations_by_finite_differences(name):
    """The polynomials that stand for a costly model give the same derivatives; FO takes the variance at eta = 0."""
    example = examples()[name]
    data = example.data[example.data["ID"] <= 2]
    fit = nm.evaluate(example.model, data, nm.FO())
    v = fit.model.values

    def variance(endpoint, f):
        return v[f"{endpoint}_additive"] ** 2 + (v.get(f"{endpoint}_proportional", 0.0) * f) ** 2

    expected = by_finite_differences(fit, data, variance, False)
    found = nm.diagnose(fit, progress=False).residuals
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", ["occasions", "growing"])
def test_predictions_of_occasions_and_growing_covariates(name):
    example = examples()[name]
    fit = nm.evaluate(example.model, example.data, nm.FOCE(interaction=True))
    found = nm.diagnose(fit, progress=False).residuals
    observed = example.data["EVID"] == 0
    for column, eta in (("PRED", None), ("IPRED", fit.eta.fillna(0.0))):
        expected = nm.predict(fit, example.data, eta)["conc"][observed]
        np.testing.assert_allclose(found[column], expected, rtol=1e-8, atol=1e-8)
        assert list(found.index) == list(expected.index)


class Lines(nm.Model):
    """y = a + eta_a + (b + eta_b) t + eps."""

    a = nm.Normal(4.0, iiv=1.0)
    b = nm.Normal(-0.3, iiv=0.3)
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


def lines():
    rng = np.random.default_rng(3)
    rows = []
    for who in range(12):
        a, b = 4 + rng.normal(), -0.3 + 0.3 * rng.normal()
        rows += [(f"s{who}", float(t), a + b * t + 0.5 * rng.normal()) for t in range(1 + who % 4, 6)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


def test_a_linear_model_has_standardised_innovations():
    """There WRES = CWRES = (Z Omega Z' + sigma^2 I)^(-1/2) (y - Z beta), whatever the mode; their squares sum to the
    quadratic form of the log-likelihood."""
    data = lines()
    fit = nm.evaluate(Lines().at({"corr_a_b": 0.3}), data, nm.FOCE())
    found = nm.diagnose(fit, progress=False).residuals
    omega = np.array([[1.0, 0.09], [0.09, 0.09]])
    for _, own in data.groupby("ID", sort=False):
        Z = np.c_[np.ones(len(own)), own["TIME"]]
        residual = own["DV"].to_numpy() - Z @ [4.0, -0.3]
        spread = Z @ omega @ Z.T + 0.25 * np.eye(len(own))
        expected = inverse_root(spread) @ residual
        for name in ("WRES", "CWRES"):
            np.testing.assert_allclose(found.loc[own.index, name], expected, atol=1e-9)
        quadratic = residual @ np.linalg.solve(spread, residual)
        np.testing.assert_allclose(np.sum(found.loc[own.index, "CWRES"] ** 2), quadratic, rtol=1e-9)


def test_no_random_effects():
    class Flat(nm.Model):
        a = nm.Theta(4.0)

        def observe(self, t, A, p):
            return {"y": p.a + 0.0 * t}

        y = nm.Additive(0.5)

    data = lines()
    diagnostics = nm.diagnose(nm.evaluate(Flat(), data, nm.FOCE()), progress=False)
    for name in ("WRES", "CWRES", "IWRES"):
        np.testing.assert_allclose(diagnostics.residuals[name], (data["DV"] - 4.0) / 0.5, atol=1e-12)
    assert list(diagnostics.shrinkage.index) == [("epsilon", "y")]


def test_counts_have_predictions_and_no_weighted_residuals():
    example = examples()["counts"]
    fit = nm.evaluate(example.model, example.data, nm.Laplace())
    found = nm.diagnose(fit, progress=False).residuals
    rate = nm.predict(fit, example.data, fit)["count"]
    np.testing.assert_allclose(found["IPRED"], rate, rtol=1e-9)
    np.testing.assert_allclose(found["IWRES"], (example.data["DV"] - rate) / np.sqrt(rate), rtol=1e-8)
    assert found[["WRES", "CWRES"]].isna().all(axis=None)


def test_observations_below_a_limit_have_predictions_only(theophylline):
    """The residuals of the others are those of the data without them, at the same random effects."""
    low = (theophylline["DV"] < 2) & (theophylline["EVID"] == 0)
    marked = theophylline.assign(CENS=low * 1, DV=theophylline["DV"].where(~low, 2.0))
    model = examples()["theophylline"].model
    fit = nm.evaluate(model, marked, nm.Laplace())
    found = nm.diagnose(fit, progress=False).residuals
    assert list(found["CENS"]) == list(low[found.index] * 1)
    censored = found["CENS"] == 1
    assert found.loc[censored, ["RES", "WRES", "CWRES", "IRES", "IWRES"]].isna().all(axis=None)
    np.testing.assert_allclose(found["IPRED"], nm.predict(fit, marked, fit)["conc"][found.index], rtol=1e-9, atol=1e-12)
    kept = marked[~low]
    expected = by_finite_differences(fit, kept, lambda name, f: fit.model.values["conc_additive"] ** 2, True)
    for name in ("WRES", "CWRES", "IWRES"):
        np.testing.assert_allclose(found.loc[~censored, name], expected[name], atol=2e-6)


def test_left_out_below_the_limit(theophylline):
    """M1: such records are no observations."""
    low = (theophylline["DV"] < 2) & (theophylline["EVID"] == 0)
    marked = theophylline.assign(CENS=low * 1)
    model = examples()["theophylline"].model
    data = nm.Subjects.from_frame(marked, model, blq="M1")
    found = nm.diagnose(nm.evaluate(model, data, nm.FOCE()), progress=False).residuals
    assert list(found.index) == list(marked.index[(marked["EVID"] == 0) & ~low])
    assert "CENS" not in found


def test_shrinkage_by_hand():
    example = examples()["occasions"]
    fit = nm.evaluate(example.model, example.data, nm.FOCE(interaction=True))
    diagnostics = nm.diagnose(fit, progress=False)
    found = diagnostics.shrinkage
    assert list(found.index) == [("eta", n) for n in ("ka", "CL", "V")] + [("kappa", n) for n in ("ka", "CL")] + [
        ("epsilon", "conc")
    ]
    for name, omega in (("ka", 0.6), ("CL", 0.3), ("V", 0.15)):
        sd = fit.eta[name].std(ddof=0)
        np.testing.assert_allclose(found.loc[("eta", name), "sd"], 100 * (1 - sd / omega))
        np.testing.assert_allclose(found.loc[("eta", name), "variance"], 100 * (1 - (sd / omega) ** 2))
        np.testing.assert_allclose(found.loc[("eta", name), "sd"], fit.shrinkage[name])
    both = fit.eta[["kappa_CL_1", "kappa_CL_2"]].to_numpy().ravel()
    np.testing.assert_allclose(found.loc[("kappa", "CL"), "sd"], 100 * (1 - np.nanstd(both) / 0.15))
    residual = (diagnostics.residuals["DV"] - diagnostics.residuals["IPRED"]) / 0.7
    np.testing.assert_allclose(found.loc[("epsilon", "conc"), "sd"], 100 * (1 - residual.std(ddof=0)))
    np.testing.assert_allclose(found.loc[("epsilon", "conc"), "variance"], 100 * (1 - residual.var(ddof=0)))
    assert found.loc[("epsilon", "conc"), "count"] == len(residual)
