"""log p(y) = sum Q - sum KL in a linear mixed model, where all of it can be written down or summed on a grid."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import nlmefit as nm

TIMES = np.array([0.5, 1.0, 2.0, 4.0])
Z = np.c_[np.ones(4), TIMES]
B, OMEGA, VARIANCE = np.array([1.0, -0.3]), np.array([[0.4, 0.1], [0.1, 0.2]]), 0.25


class Lines(nm.Model):
    """y = a + eta_a + (b + eta_b) t + eps."""

    a = nm.Normal(1.0, iiv=0.4**0.5)
    b = nm.Normal(-0.3, iiv=0.2**0.5)
    omega = nm.Blocks("a b")

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.5)


def responses():
    r = np.random.default_rng(0)
    return (Z @ (B[:, None] + np.linalg.cholesky(OMEGA) @ r.normal(size=(2, 6))) + 0.5 * r.normal(size=(4, 6))).T


def test_parts_of_the_marginal_likelihood():
    Y = responses()
    data = pd.DataFrame(
        [(i, t, y) for i, row in enumerate(Y) for t, y in zip(TIMES, row, strict=True)], columns=["ID", "TIME", "DV"]
    )
    spread = np.linalg.inv(Z.T @ Z / VARIANCE + np.linalg.inv(OMEGA))
    means = [spread @ Z.T @ (y - Z @ B) / VARIANCE for y in Y]
    inverse, ratio = np.linalg.inv(OMEGA), np.linalg.slogdet(OMEGA)[1] - np.linalg.slogdet(spread)[1]
    kl = np.array([0.5 * (np.trace(inverse @ spread) + m @ inverse @ m - 2 + ratio) for m in means])
    marginal = [multivariate_normal(Z @ B, Z @ OMEGA @ Z.T + VARIANCE * np.eye(4)).logpdf(y) for y in Y]
    grid = np.linspace(-5, 5, 401)
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1)
    mixture = np.mean([multivariate_normal(m, spread).pdf(points) for m in means], axis=0)
    prior = multivariate_normal(np.zeros(2), OMEGA).logpdf(points)
    to_prior = np.sum(mixture * (np.log(np.maximum(mixture, 1e-300)) - prior)) * (grid[1] - grid[0]) ** 2
    parts = (kl.mean(), to_prior, kl.mean() - to_prior)
    assert parts == pytest.approx((1.6103427600, 0.4424207816, 1.1679219784), abs=1e-9)  # the excess is the mutual information

    found = nm.fit_quality(Lines().at({"corr_a_b": 0.1 / 0.08**0.5}), data, draws=20_000)
    table = found.per_subject
    np.testing.assert_allclose(table["log_likelihood"], marginal, atol=0.02)
    np.testing.assert_allclose(table["quality"] - table["kl"], table["log_likelihood"], atol=1e-12)
    np.testing.assert_allclose(table["kl"], kl, atol=4 * table["mc_se"].max() + 0.01)
    assert found.mutual_information == pytest.approx(kl.mean() - to_prior, abs=4 * found.mutual_information_se + 0.01)
    assert found.mixture_kl == pytest.approx(to_prior, abs=4 * found.mutual_information_se + 0.02)
    assert 0 < found.mutual_information < np.log(6)


def test_draws_are_checked():
    with pytest.raises(nm.MethodError, match="draws must be"):
        nm.fit_quality(Lines(), pd.DataFrame({"ID": [1], "TIME": [0.0], "DV": [1.0]}), draws=5)
