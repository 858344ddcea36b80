"""Linear-Gaussian models: every method must give the closed form, -2 log N(y; X b, Z Omega Z' + sigma^2 I)."""

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm

METHODS = [nm.FO(), nm.FOCE(), nm.FOCE(interaction=True), nm.Laplace(), nm.Laplace(interaction=False), nm.Quadrature(nodes=1),
           nm.Quadrature(nodes=5)]  # fmt: skip


class RandomSlopes(nm.Model):
    """y = (a + eta_a) + (b + eta_b) t + eps, correlated intercepts and slopes."""

    a = nm.Normal(5.0, iiv=1.0)
    b = nm.Normal(-0.4, iiv=0.3)
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


AT = {"a": 5.2, "b": -0.5, "omega_a": 1.1, "omega_b": 0.25, "corr_a_b": -0.4, "y_additive": 0.6}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(11)
    rows = []
    for i in range(30):
        eta = np.linalg.cholesky([[1.2, -0.15], [-0.15, 0.09]]) @ rng.normal(size=2)
        for t in np.sort(rng.uniform(0, 8, size=rng.integers(1, 7))):
            rows.append((i, t, 5 + eta[0] + (-0.4 + eta[1]) * t + 0.5 * rng.normal()))
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


def closed_form(data, v):
    """log likelihood by subject, from the joint normal of the observations."""
    Omega = np.array([[v["omega_a"] ** 2, 0], [0, v["omega_b"] ** 2]])
    Omega[0, 1] = Omega[1, 0] = v["corr_a_b"] * v["omega_a"] * v["omega_b"]
    result = []
    for _, rows in data.groupby("ID", sort=False):
        Z = np.c_[np.ones(len(rows)), rows["TIME"]]
        V = Z @ Omega @ Z.T + v["y_additive"] ** 2 * np.eye(len(rows))
        r = rows["DV"].to_numpy() - Z @ [v["a"], v["b"]]
        result.append(-0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(2 * np.pi * V)[1]))
    return np.array(result)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_log_likelihood_by_subject(method, data):
    fit = nm.evaluate(RandomSlopes().at(AT), data, method)
    np.testing.assert_allclose(fit.contributions["log_likelihood"], closed_form(data, AT), atol=1e-8, rtol=0)
    n = len(data)
    assert fit.ofv == pytest.approx(-2 * fit.log_likelihood - n * np.log(2 * np.pi), abs=1e-8)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_optimum_and_random_effects(method, data):
    fit = nm.fit(RandomSlopes(), data, method)
    assert fit.status, fit.status
    at = fit.parameters_at()
    assert fit.log_likelihood == pytest.approx(closed_form(data, at).sum(), abs=1e-8)
    # stationary: no parameter's change improves the closed form
    for name, value in at.items():
        for factor in (1 - 1e-3, 1 + 1e-3):
            assert closed_form(data, {**at, name: value * factor}).sum() <= fit.log_likelihood + 1e-8
    first = data[data["ID"] == 0]
    Z = np.c_[np.ones(len(first)), first["TIME"]]
    Omega = fit.omega.to_numpy()
    V = Z @ Omega @ Z.T + at["y_additive"] ** 2 * np.eye(len(first))
    blup = Omega @ Z.T @ np.linalg.solve(V, first["DV"].to_numpy() - Z @ [at["a"], at["b"]])
    np.testing.assert_allclose(fit.eta.loc[0], blup, atol=1e-8)
    posterior = Omega - Omega @ Z.T @ np.linalg.solve(V, Z @ Omega)
    np.testing.assert_allclose(fit.eta_covariance[0], posterior, atol=1e-8)


def test_standard_errors_against_the_observed_information(data):
    """R^-1 is the inverse of the closed form's numerical Hessian."""
    fit = nm.fit(RandomSlopes(), data, nm.Laplace(covariance="R"))
    names, x = list(fit.estimates.index), fit.estimates.to_numpy()
    H = np.zeros((len(x), len(x)))
    h = 1e-4 * np.abs(x)
    for i in range(len(x)):
        for j in range(len(x)):
            total = 0.0
            for si, sj in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                y = x.copy()
                y[i] += si * h[i]
                y[j] += sj * h[j]
                total += si * sj * closed_form(data, dict(zip(names, y, strict=True))).sum()
            H[i, j] = -total / (4 * h[i] * h[j])
    np.testing.assert_allclose(fit.standard_errors, np.sqrt(np.diag(np.linalg.inv(H))), rtol=2e-4)
    S = nm.fit(RandomSlopes(), data, nm.Laplace(covariance="S"))
    sandwich = nm.fit(RandomSlopes(), data, nm.Laplace())
    R_inverse, S_inverse = fit.covariance.to_numpy(), S.covariance.to_numpy()
    np.testing.assert_allclose(sandwich.covariance, R_inverse @ np.linalg.inv(S_inverse) @ R_inverse, rtol=1e-4, atol=1e-8)
