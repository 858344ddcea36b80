"""One contract over every parameter distribution, covariate effect and residual model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit.declare.residual import Combined
from nlmefit.population.latent import PopulationModel

ETA, WT = 0.4, 82.0

# kind -> the declaration at typical value v, and h^-1 with the link on which eta adds
DISTRIBUTIONS = {
    "LogNormal": (lambda **k: nm.LogNormal(2.5, iiv=0.3, **k), np.log),
    "Normal": (lambda **k: nm.Normal(2.5, iiv=0.3, **k), lambda v: v),
    "LogitNormal": (lambda **k: nm.LogitNormal(2.5, iiv=0.3, lower=1.0, upper=5.0, **k), lambda v: np.log((v - 1) / (5 - v))),
}

# effect -> (value of its coefficients, log of its factor at x)
EFFECTS = {
    "Power": (nm.Power("WT", reference=70, exponent=0.75), {"beta_P_WT": 0.6}, lambda x: 0.6 * np.log(x / 70)),
    "Exponential": (nm.Exponential("WT", reference=70, value=0.01), {"beta_P_WT": 0.02}, lambda x: 0.02 * (x - 70)),
    "Linear": (nm.Linear("WT", reference=70), {"beta_P_WT": 0.02}, lambda x: np.log(1 + 0.02 * (x - 70))),
    "Category": (
        nm.Category("WT", reference=70, levels={82: 0.1, 95.5: 0.0}),
        {"beta_P_WT_82": 0.3, "beta_P_WT_95.5": -0.2},
        lambda x: {70: 0.0, 82: 0.3, 95.5: -0.2}[x],
    ),
    "Effect": (
        nm.Effect("WT", lambda beta, x: 1 + x**2 * beta / 7e4, value=1.0),
        {"beta_P_WT": 2.0},
        lambda x: np.log(1 + x**2 / 3.5e4),
    ),
}


def model_of(parameter):
    class Single(nm.Model):
        P = parameter

        def observe(self, t, A, p):
            return {"y": p.P + 0 * t}

        y = nm.Additive(1.0)

    return Single()


def at(model, eta, **x):
    return float(model.parameters_of(model.values, {"P": eta}, x)["P"])


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_at_eta_zero_the_parameter_is_its_typical_value(kind):
    make, _ = DISTRIBUTIONS[kind]
    np.testing.assert_allclose(at(model_of(make()), 0.0), 2.5, rtol=1e-15)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_eta_adds_on_the_link_scale(kind):
    make, link = DISTRIBUTIONS[kind]
    np.testing.assert_allclose(link(at(model_of(make()), ETA)) - link(2.5), ETA, rtol=1e-13)
    assert model_of(make()).values == {"P": 2.5, "omega_P": 0.3, "y_additive": 1.0}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_covariate_effects_multiply_the_typical_value_or_the_odds(kind, name):
    make, link = DISTRIBUTIONS[kind]
    effect, values, log_factor = EFFECTS[name]
    model = model_of(make(covariates=[effect])).at(values)
    assert model.covariates == ("WT",)
    for x in (70.0, WT, 95.5):
        expected = 2.5 * np.exp(log_factor(x)) if kind == "Normal" else link(2.5) + log_factor(x)
        found = at(model, ETA, WT=x)
        np.testing.assert_allclose((found if kind == "Normal" else link(found)) - ETA, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", EFFECTS)
def test_coefficients_have_the_starts_and_names_that_are_declared(name):
    effect, values, _ = EFFECTS[name]
    starts = {"Power": [0.75], "Exponential": [0.01], "Linear": [0.0], "Category": [0.1, 0.0], "Effect": [1.0]}[name]
    found = model_of(nm.LogNormal(2.5, covariates=[effect])).values
    assert {n: v for n, v in found.items() if n.startswith("beta")} == dict(zip(values, starts, strict=True))


def test_effects_of_several_covariates_multiply():
    model = model_of(
        nm.LogNormal(2.0, covariates=[nm.Power("WT", reference=70, exponent=0.75), nm.Category("SEX", 0, {1: 0.2, 2: 0.5})])
    )
    np.testing.assert_allclose(at(model, 0.1, WT=82.0, SEX=2.0), 2.0 * (82 / 70) ** 0.75 * np.exp(0.5 + 0.1), rtol=1e-14)
    np.testing.assert_allclose(at(model, 0.1, WT=70.0, SEX=0.0), 2.0 * np.exp(0.1), rtol=1e-14)
    assert list(model.values)[1:4] == ["beta_P_WT", "beta_P_SEX_1", "beta_P_SEX_2"]


@pytest.mark.parametrize("kind", ["fixed=True", "nm.Fixed"])
def test_fixed_values_are_marked_whichever_way_they_are_written(kind):
    short = kind == "nm.Fixed"
    first = nm.LogNormal(nm.Fixed(2.0), iiv=nm.Fixed(0.3)) if short else nm.LogNormal(2.0, iiv=nm.Fixed(0.3), fixed=True)
    parameters = PopulationModel(model_of(first)).parameters()
    assert {name: p.fixed for name, p in parameters.items()} == {"P": True, "omega_P": True, "y_additive": False}


# residual model -> (its parameters by name, the variance at f)
A, B, C = 0.5, 0.2, 0.8
RESIDUALS = {
    "additive": (nm.Additive(A), {"additive": A}, lambda f: A**2 + 0 * f),
    "proportional": (nm.Proportional(B), {"proportional": B}, lambda f: B**2 * f**2),
    "power": (nm.PowerError(B, exponent=C), {"power": B, "exponent": C}, lambda f: B**2 * f ** (2 * C)),
    "sds add": (nm.CombinedSD(A, B), {"additive": A, "proportional": B}, lambda f: (A + B * np.abs(f)) ** 2),
    "variances add": (
        nm.Proportional(B) + nm.Additive(A),
        {"proportional": B, "additive": A},
        lambda f: A**2 + B**2 * f**2,
    ),
    "power and additive": (
        nm.PowerError(B, exponent=C) + nm.Additive(A),
        {"power": B, "exponent": C, "additive": A},
        lambda f: A**2 + B**2 * f ** (2 * C),
    ),
    "all three": (
        nm.Additive(A) + nm.Proportional(B) + nm.PowerError(B, exponent=C),
        {"additive": A, "proportional": B, "power": B, "exponent": C},
        lambda f: A**2 + B**2 * f**2 + B**2 * f ** (2 * C),
    ),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_residual_variances(name):
    residual, parameters, variance = RESIDUALS[name]
    assert residual.parameters() == parameters
    f = np.array([0.25, 1.0, 7.0])
    np.testing.assert_allclose(residual.variance(f, parameters), variance(f), rtol=1e-14)
    # other values of the parameters than those declared enter
    doubled = residual.variance(f, {n: v * (2 if n != "exponent" else 1) for n, v in parameters.items()})
    np.testing.assert_allclose(doubled, 4 * variance(f), rtol=1e-14)


@pytest.mark.parametrize("name", RESIDUALS)
def test_residual_parameters_are_named_after_the_endpoint_and_have_finite_derivatives(name):
    residual, parameters, _ = RESIDUALS[name]

    class Endpoint(nm.Model):
        P = nm.LogNormal(1.0, iiv=0.3)
        cp = residual

        def observe(self, t, A, p):
            return {"cp": p.P * jnp.exp(-t)}

    values = Endpoint().values
    assert {n: v for n, v in values.items() if n.startswith("cp_")} == {f"cp_{n}": v for n, v in parameters.items()}
    slopes = jax.grad(lambda v: residual.variance(1.7, v))(parameters)
    assert all(np.isfinite(s) and s != 0 for s in slopes.values())


def test_sds_add_for_negative_predictions_too():
    assert nm.CombinedSD(A, B).variance(-3.0, {"additive": A, "proportional": B}) == pytest.approx((A + 3 * B) ** 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nm.Additive(1.0) + nm.Additive(2.0), "two parts of the same kind: additive, additive."),
        (
            lambda: nm.CombinedSD(1.0, 0.1) + nm.Proportional(0.2),
            "two parts of the same kind: additive, proportional, proportional.",
        ),
        (lambda: nm.Proportional(0.1) + nm.Additive(1.0) + nm.Proportional(0.1), "proportional, additive, proportional."),
        (lambda: nm.Additive(1.0) + 0.1, "A residual model can only be added to another one, got 0.1."),
        (lambda: nm.Additive(0.0), "Additive's sd must be above 0, got 0.0."),
        (lambda: nm.Additive(-1.0), "Additive's sd must be above 0, got -1.0."),
        (lambda: nm.Additive("0.5"), "Additive's sd must be a number, got '0.5'."),
        (lambda: nm.Proportional(np.nan), "Proportional's coefficient must be finite, got nan."),
        (lambda: nm.PowerError(0.1, exponent=0), "PowerError's exponent must be above 0, got 0.0."),
        (lambda: nm.CombinedSD(0.0, 0.1), "CombinedSD's additive part must be above 0, got 0.0."),
        (lambda: nm.CombinedSD(1.0, nm.Fixed(-0.1)), "CombinedSD's proportional part must be above 0, got -0.1."),
    ],
)
def test_wrong_residual_models_are_refused(make, message):
    with pytest.raises(nm.ModelError) as caught:
        make()
    assert message in str(caught.value)


def test_a_part_may_be_fixed_at_zero():
    assert nm.CombinedSD(nm.Fixed(0.0), 0.1).parameters()["additive"] == nm.Fixed(0.0)


def test_the_order_of_a_sum_does_not_change_its_variance():
    left, right = nm.Additive(A) + nm.Proportional(B), nm.Proportional(B) + nm.Additive(A)
    values = {"additive": A, "proportional": B}
    assert isinstance(left, Combined) and left.variance(3.0, values) == right.variance(3.0, values)


def test_units_go_to_the_parameters_that_have_them():
    class Units(nm.Model):
        P = nm.LogNormal(1.0, iiv=0.3, unit="L")
        N = nm.Normal(1.0, iiv=0.3, unit="mg")
        y = nm.Proportional(0.1) + nm.Additive(0.5, unit="mg/L")

        def observe(self, t, A, p):
            return {"y": p.P * t + p.N}

    units = {name: p.unit for name, p in Units().population().items()}
    assert units == {
        "P": "L", "N": "mg", "omega_P": "", "omega_N": "mg", "y_proportional": "", "y_additive": "mg/L",
    }  # fmt: skip
