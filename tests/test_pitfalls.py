"""Ways in which a fit could go wrong without a word; each of these once did."""

import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist

import nlmefit as nm
from nlmefit.results.tables import wald

FOCEI = nm.FOCE(interaction=True)


class Line(nm.Model):
    a = nm.Normal(9.0, iiv=1.5)
    b = nm.Normal(0.8, iiv=0.4)

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.6)


class Level(nm.Model):
    """With one observation by subject, omega and the residual sd cannot be told apart."""

    a = nm.Normal(9.0, iiv=1.5)

    def observe(self, t, A, p):
        return {"y": p.a + 0 * t}

    y = nm.Additive(0.6)


class Fixed(nm.Model):
    a = nm.Normal(9.0)
    b = nm.Theta(0.8)

    def observe(self, t, A, p):
        return {"y": p.a + p.b * t}

    y = nm.Additive(0.6)


def line(subjects=25, each=5, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(subjects):
        a, b = 9 + 1.5 * rng.normal(), 1.0 + 0.4 * rng.normal()
        rows += [(i + 1, t, scale * (a + b * t + 0.6 * rng.normal())) for t in np.linspace(0, 4, each)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


@pytest.mark.parametrize("seed", range(4))
def test_a_flat_ridge_is_not_an_optimum(seed):
    fit = nm.fit(Level(), line(each=1, seed=seed), nm.FOCE())
    assert fit.status.state == "uncertain"
    assert "do not determine" in str(fit.status)


def test_standard_errors_of_few_subjects_are_not_those_of_a_singular_S():
    data = line(subjects=1, each=9)
    fit = nm.fit(Fixed(), data, nm.Laplace())
    R = nm.fit(Fixed(), data, nm.Laplace(covariance="R"))
    np.testing.assert_allclose(fit.standard_errors, R.standard_errors)
    assert "S is singular (1 subjects, 3 parameters)" in str(fit)
    assert "standard errors from R^-1;" in str(fit)


def test_one_observation_is_no_crash():
    assert nm.fit(Line(), line().iloc[:1], nm.FOCE()).status.state != "converged"


def test_a_singular_correlation_matrix_returns_the_fit():
    class Three(nm.Model):
        a = nm.Normal(9.0, iiv=1.5)
        b = nm.Normal(0.8, iiv=0.4)
        c = nm.Normal(0.1, iiv=0.3)
        omega = nm.Blocks("a b c")

        def observe(self, t, A, p):
            return {"y": p.a + p.b * t + p.c * t}

        y = nm.Additive(0.6)

    fit = nm.fit(Three(), line(), nm.FOCE())
    assert fit.status.state == "uncertain"
    assert nm.evaluate(fit.model, line(), nm.FOCE()).ofv == pytest.approx(fit.ofv, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e6])
def test_units_do_not_matter(scale):
    plain = nm.fit(Line(), line(), nm.FOCE())
    model = Line(a=nm.Normal(9 * scale, iiv=1.5 * scale), b=nm.Normal(0.8 * scale, iiv=0.4 * scale), y=nm.Additive(0.6 * scale))
    scaled = nm.fit(model, line(scale=scale), nm.FOCE())
    assert scaled.status, scaled.status
    np.testing.assert_allclose(scaled.estimates, scale * plain.estimates, rtol=1e-4)
    np.testing.assert_allclose(scaled.standard_errors, scale * plain.standard_errors, rtol=1e-3)
    assert scaled.ofv == pytest.approx(plain.ofv + 2 * 125 * np.log(scale), abs=1e-5)


def test_constants_read_through_self_are_part_of_the_program():
    class Shifted(nm.Model):
        shift = 0.0
        a = nm.Normal(9.0, iiv=1.5)
        b = nm.Theta(0.8)

        def observe(self, t, A, p):
            return {"y": p.a + p.b * (t - self.shift)}

        y = nm.Additive(0.6)

    here, there = Shifted(), Shifted()
    there.shift = 3.0
    data = line()
    first, second = (nm.evaluate(m, data, nm.FO()).ofv for m in (here, there))
    assert first != second
    moved = data.assign(TIME=data["TIME"] - 3.0)
    assert second == pytest.approx(nm.evaluate(here, moved, nm.FO()).ofv, abs=1e-9)


def test_long_category_levels_stay_apart():
    data = line()
    data["SITE"] = 1234566 + data["ID"] % 3
    category = nm.Category("SITE", reference=1234566, levels=[1234567, 1234568])
    model = Line(a=nm.Normal(9.0, iiv=1.5, covariates=[category]))
    assert {"beta_a_SITE_1234567", "beta_a_SITE_1234568"} <= set(model.values)


def test_a_fit_as_start_leaves_fixed_values_alone():
    free = nm.fit(Line(), line(), nm.FOCE())
    model = Line(b=nm.Normal(5.0, iiv=0.4, fixed=True))
    assert nm.fit(model, line(), nm.FOCE(), start=free).estimates["b"] == 5.0
    with pytest.raises(nm.ModelError, match="which the model fixes"):
        nm.fit(model, line(), nm.FOCE(), start={"b": 4.0})


def test_doses_that_miss_a_record_by_rounding_come_before_it():
    """3 * 0.1 is above 0.3 in binary."""

    class Bolus(nm.Model):
        k = nm.Theta(0.5, lower=0)
        dynamics = nm.OneCompartment()

        def individual(self, theta, eta, x):
            return {"CL": theta.k, "V": 1.0}

        def observe(self, t, A, p):
            return {"y": A.central}

        y = nm.Additive(1.0)

    many = pd.DataFrame({"ID": 1, "TIME": [0, 0.3], "AMT": [100.0, 0], "EVID": [1, 0], "ADDL": [5, 0], "II": [0.1, 0]})
    predicted = nm.predict(Bolus(), many)["y"].iloc[-1]
    assert predicted == pytest.approx(sum(100 * np.exp(-0.5 * (0.3 - s)) for s in (0, 0.1, 0.2, 0.3)))


def test_nothing_to_estimate():
    model = Line(
        a=nm.Normal(nm.Fixed(9.0), iiv=nm.Fixed(1.5)), b=nm.Normal(nm.Fixed(0.8), iiv=nm.Fixed(0.4)), y=nm.Additive(nm.Fixed(0.6))
    )
    fit = nm.fit(model, line(), FOCEI)
    assert fit.ofv == nm.evaluate(model, line(), FOCEI).ofv
    assert fit.standard_errors.isna().all()


def test_no_random_effects_by_quadrature_and_in_chunks():
    fit = nm.fit(Fixed(), line(subjects=70), nm.Quadrature(nodes=3))
    slope, intercept = np.polyfit(line(subjects=70)["TIME"], line(subjects=70)["DV"], 1)
    assert fit.status
    np.testing.assert_allclose(fit.estimates[["a", "b"]], [intercept, slope], rtol=1e-4)


def test_large_grids_agree_with_small_ones():
    """Above 512 points the grid is taken in blocks."""
    small, large = (nm.evaluate(Line(), line(), nm.Quadrature(nodes=n)).ofv for n in (5, 25))
    assert large == pytest.approx(small, abs=1e-9)


class Grades(nm.Model):
    shift = nm.Normal(0.0, iiv=1.0)

    def observe(self, t, A, p):
        import jax.numpy as jnp

        logits = jnp.stack([0.0 * t, p.shift + 0.0 * t, 2 * p.shift + 0.0 * t], axis=-1)
        return {"grade": dist.Categorical(logits=logits)}


def test_categories():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"ID": np.repeat(np.arange(20), 4), "TIME": np.tile(np.arange(4.0), 20), "DV": rng.integers(0, 3, 80)})
    fit = nm.evaluate(Grades(), data, nm.Quadrature(nodes=31))
    eta = np.linspace(-9, 9, 20001)
    logits = np.stack([0 * eta, eta, 2 * eta])
    log_p = logits - np.log(np.exp(logits).sum(axis=0))
    density = np.exp(log_p[data["DV"][:4].to_numpy()].sum(axis=0) - 0.5 * eta**2) / np.sqrt(2 * np.pi)
    assert fit.contributions["log_likelihood"].iloc[0] == pytest.approx(np.log(np.trapezoid(density, eta)), abs=1e-5)
    with pytest.raises(nm.DataError, match="DV 3, which Categorical"):
        nm.evaluate(Grades(), data.assign(DV=data["DV"] + 1), nm.Laplace())


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_impossible_counts_are_named(value):
    class Counts(nm.Model):
        rate = nm.LogNormal(3.0, iiv=0.5)

        def observe(self, t, A, p):
            return {"n": dist.Poisson(p.rate + 0 * t)}

    data = pd.DataFrame({"ID": [1, 1, 2, 2], "TIME": [0.0, 1, 0, 1], "DV": [1, 2, value, 3]})
    with pytest.raises(nm.DataError, match=f"subject 2 has DV {value:g}, which Poisson cannot give"):
        nm.fit(Counts(), data, nm.Laplace())


def test_text_ids_are_not_numbers_by_accident():
    data = line(subjects=2)
    data["ID"] = np.where(data["ID"] == 1, "1e3", "1000")
    assert list(nm.evaluate(Line(), data, nm.FO()).contributions.index) == ["1e3", "1000"]


def test_intervals_stay_inside_the_bounds():
    lower, upper = wald(0.94, 0.2, 0.0, 1.0)
    assert 0 < lower < 0.94 < upper < 1
    assert wald(2.0, 0.5, 0.0)[0] == pytest.approx(2 * np.exp(-1.959963984540054 * 0.25))
    assert wald(-2.0, 0.5, -np.inf, 0.0)[1] < 0
    z = np.arctanh(0.9) + 1.959963984540054 * 0.05 / (1 - 0.81)
    assert wald(0.9, 0.05, -1.0, 1.0)[1] == pytest.approx(np.tanh(z))
    assert wald(0.3, 0.1) == pytest.approx((0.3 - 0.1959963984540054, 0.3 + 0.1959963984540054))
