"""Models as values: names are checked when the class is defined, variants, values, and equations."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from models import PKPD, PhenobarbitalCovariates, Theophylline, TheophyllineZeroOrder, examples
from numpyro import distributions as dist

import nlmefit as nm
from nlmefit.declare.specification import Specification
from nlmefit.population.latent import PopulationModel


def oral(**changes):
    """A class made from the oral one-compartment model with some of its body changed; None leaves an entry out."""
    body = {
        "ka": nm.LogNormal(1.5, iiv=0.6),
        "CL": nm.LogNormal(2.8, iiv=0.3),
        "V": nm.LogNormal(32.0, iiv=0.15),
        "dynamics": nm.OneCompartment(absorption="first-order"),
        "observe": lambda self, t, A, p: {"conc": A.central / p.V},
        "conc": nm.Additive(0.7),
    } | changes
    return type("Oral", (nm.Model,), {name: value for name, value in body.items() if value is not None})


WRONG = {
    "a misspelt compartment": (
        {"observe": lambda self, t, A, p: {"conc": A.centrl / p.V}},
        "compartment `centrl` does not exist; did you mean `central`? Known: depot, central.",
    ),
    "a parameter in another case": (
        {"observe": lambda self, t, A, p: {"conc": A.central / p.v}},
        "parameter `v` does not exist; did you mean `V`? Known: ka, CL, V.",
    ),
    "a misspelt theta": (
        {"individual": lambda self, theta, eta, x: {"ka": theta.kA, "CL": 1.0, "V": 1.0}},
        "typical value `kA` does not exist; did you mean `ka`? Known: ka, CL, V.",
    ),
    "a misspelt eta": (
        {"individual": lambda self, theta, eta, x: {"ka": theta.ka * jnp.exp(eta.Ka), "CL": 1.0, "V": 1.0}},
        "eta `Ka` does not exist; did you mean `ka`? Known: ka, CL, V.",
    ),
    "an eta that no iiv gives": (
        {"V": nm.LogNormal(32.0), "individual": lambda self, theta, eta, x: {"ka": 1.0, "CL": 1.0, "V": jnp.exp(eta.V)}},
        "eta `V` does not exist. Known: ka, CL.",
    ),
    "a parameter read as a covariate": (
        {"individual": lambda self, theta, eta, x: {"ka": 1.0, "CL": x.CL, "V": 1.0}},
        "`CL` is a parameter of the model, not a covariate: read theta.CL or eta.CL.",
    ),
    "a parameter that `individual` forgets": (
        {"individual": lambda self, theta, eta, x: {"ka": 1.0, "CL": 1.0}},
        "OneCompartment needs the individual parameters CL, V, ka; `V` is missing.",
    ),
    "a residual model without endpoint": (
        {
            "cnc": nm.Additive(0.7),
            "conc": None,
            "observe": lambda self, t, A, p: {"cnc": A.central, "conc": dist.Normal(A.central, 1)},
        }
        | {"effect": nm.Additive(1.0)},
        "residual model: endpoint `effect` does not exist. Known: cnc, conc.",
    ),
    "an endpoint without residual model": (
        {"conc": None},
        "endpoint `conc` has no residual model; declare for example conc = nm.Additive(1.0)",
    ),
    "a distribution and a residual model": (
        {"observe": lambda self, t, A, p: {"conc": dist.Normal(A.central, 1.0)}},
        "endpoint `conc` returns a distribution and has a residual model: keep one.",
    ),
    "an endpoint called as a parameter": (
        {"observe": lambda self, t, A, p: {"conc": A.central, "CL": dist.Normal(A.central, 1.0)}},
        "`observe` returns the endpoint `CL`, which is a parameter.",
    ),
    "no observe": ({"observe": None}, "needs a method `observe(self, t, A, p)`"),
    "an observe that forgets to return": (
        {"observe": lambda self, t, A, p: None},
        "`observe` must return a dictionary with a value per endpoint, got None.",
    ),
    "an observe that returns no endpoint": ({"observe": lambda self, t, A, p: {}}, "`observe` returns no endpoint."),
    "a missing ka": (
        {"ka": None},
        "OneCompartment needs the individual parameters CL, V, ka; `ka` is missing. Known: CL, V.",
    ),
    "Ka for ka": (
        {"ka": None, "Ka": nm.LogNormal(1.0)},
        "`ka` is missing. Did you mean it by `Ka`? Known: CL, V, Ka.",
    ),
    "a name that follows from another declaration": (
        {"omega_CL": nm.Theta(1.0)},
        "Two population parameters are called `omega_CL`",
    ),
    "a residual name that is taken": ({"conc_additive": nm.Theta(1.0)}, "Two population parameters are called `conc_additive`"),
    "a name of an amount": ({"A_central": nm.Theta(1.0)}, "`A_central` is declared and is also the amount in `central`."),
    "a name of a random effect": ({"eta_CL": nm.Theta(1.0)}, "`eta_CL` is declared and is also the random effect of `CL`."),
    "a covariate called as a parameter": (
        {"WT": nm.Theta(1.0), "CL": nm.LogNormal(1.0, covariates=[nm.Power("WT")])},
        "`WT` is declared and is also a covariate.",
    ),
    "the reserved name t": ({"t": nm.Theta(1.0)}, "`t` cannot be a parameter's name"),
    "the reserved name values": ({"values": nm.Theta(1.0)}, "`values` cannot be a parameter's name"),
    "the reserved name program": ({"program": nm.Theta(1.0)}, "`program` cannot be a parameter's name"),
    "an underscore": ({"_CL": nm.Theta(1.0)}, "`_CL` cannot be a parameter's name: it begins with an underscore."),
    "an occasion's effect": ({"kappa_CL": nm.LogNormal(1.0, iiv=0.3)}, "what begins with kappa_ is an occasion's random effect"),
    "Blocks of unknown etas": ({"omega": nm.Blocks("CL Vc")}, "omega: eta `Vc` does not exist. Known: ka, CL, V."),
    "Blocks of a parameter without eta": (
        {"V": nm.LogNormal(32.0), "omega": nm.Blocks("CL V")},
        "omega: eta `V` does not exist. Known: ka, CL.",
    ),
    "omega that is no Blocks": ({"omega": "CL V"}, "`omega` must be nm.Blocks(...), got 'CL V'."),
    "Blocks under another name": (
        {"Omega": nm.Blocks("CL V")},
        """`Omega = Blocks("CL V")` would be ignored; write `omega = ...`.""",
    ),
    "compartments under another name": (
        {"dynamic": nm.OneCompartment()},
        "`dynamic = OneCompartment(absorption=None)` would be ignored; write `dynamics = ...`.",
    ),
    "a method that nothing calls": (
        {"dosings": lambda self, p: {}},
        "method `dosings` would be ignored; did you mean `dosing`?",
    ),
    "individual and covariates=": (
        {
            "individual": lambda self, theta, eta, x: {"ka": theta.ka, "CL": theta.CL, "V": theta.V},
            "CL": nm.LogNormal(1.0, covariates=[nm.Power("WT")]),
        },
        "`individual` replaces the declared form, so covariates=[...] would be ignored",
    ),
    "a class attribute read from p": (
        {"scale": 1000.0, "observe": lambda self, t, A, p: {"conc": p.scale * A.central / p.V}},
        "`scale` is a plain attribute, not a parameter: read it as self.scale",
    ),
    "Python's if": (
        {"observe": lambda self, t, A, p: {"conc": A.central if p.CL > 1 else A.depot}},
        "use jnp.where(condition, a, b)",
    ),
    "math.exp": (
        {"observe": lambda self, t, A, p: {"conc": math.exp(p.CL) * A.central}},
        "use jax.numpy (jnp.exp, jnp.log, ...)",
    ),
    "numpy.exp": ({"observe": lambda self, t, A, p: {"conc": np.exp(A.central)}}, "use jax.numpy (jnp.exp, jnp.log, ...)"),
    "an assignment to p": (
        {"observe": lambda self, t, A, p: {"conc": setattr(p, "CL", 1.0)}},
        "`CL` cannot be assigned: models are pure functions.",
    ),
    "dynamics as a class": (
        {"dynamics": nm.TwoCompartment},
        "`dynamics` must be a structural model such as nm.OneCompartment(...)",
    ),
    "dynamics as a number": ({"dynamics": 3}, "or a method `dynamics(self, t, A, p)` that returns dA/dt by compartment, got 3."),
    "dynamics that read an unknown compartment": (
        {"dynamics": lambda self, t, A, p: {"depot": -p.ka * A.depot, "central": p.ka * A.dept - p.CL / p.V * A.central}},
        "dynamics: compartment `dept` does not exist; did you mean `depot`?",
    ),
    "dynamics that return a number": (
        {"dynamics": lambda self, t, A, p: -p.CL},
        "`dynamics` must return a dictionary with dA/dt",
    ),
    "dynamics that return an array": (
        {"dynamics": lambda self, t, A, p: {"depot": -p.ka * A.depot, "central": jnp.ones(2)}},
        "dynamics: `central` must be a number (of one record), got an array of shape (2,).",
    ),
    "dynamics without compartments": ({"dynamics": lambda self, t, A, p: {}}, "`dynamics` returns no compartment."),
    "initial of an unknown compartment": (
        {"initial": lambda self, p: {"centrl": p.V}},
        "initial: compartment `centrl` does not exist; did you mean `central`?",
    ),
    "initial without dynamics": (
        {"dynamics": None, "initial": lambda self, p: {}, "observe": lambda self, t, A, p: {"conc": p.V * t}},
        "`initial` needs `dynamics`",
    ),
    "occasion without iov": ({"occasion": "OCC"}, "`occasion` would be ignored: no parameter has iov=. Give one, or remove it."),
    "iov without occasion": ({"CL": nm.LogNormal(1.0, iov=0.2)}, "iov= of CL needs the column that says which occasion a record"),
    "occasion that is no name": (
        {"CL": nm.LogNormal(1.0, iov=0.2), "occasion": 3},
        "`occasion` names a column of the data",
    ),
    "solver that is none": ({"solver": "stiff"}, "`solver` must be a solver such as nm.RungeKutta(...), got 'stiff'."),
    "solver under another name": ({"method": nm.RungeKutta()}, "would be ignored; write `solver = ...`."),
    "dosing without dynamics": (
        {"dynamics": None, "dosing": lambda self, p: {}, "observe": lambda self, t, A, p: {"conc": p.V * t}},
        "`dosing` needs `dynamics`",
    ),
    "dosing into an unknown compartment": (
        {"dosing": lambda self, p: {"depo": nm.Dosing(lag=1.0)}},
        "dosing: compartment `depo` does not exist; did you mean `depot`?",
    ),
    "dosing that returns numbers": (
        {"dosing": lambda self, p: {"depot": 1.0}},
        "dosing must return nm.Dosing(...) per compartment, got",
    ),
    "a declaration without value": ({"CL": nm.LogNormal}, "`CL = LogNormal` lacks its value: write LogNormal(...)."),
    "a residual without value": ({"conc": nm.Additive}, "`conc = Additive` lacks its value: write Additive(...)."),
    "Fixed as a declaration": ({"CL": nm.Fixed(2.0)}, "write nm.Theta(2.0, fixed=True)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_class_is_refused_when_it_is_defined(case):
    body, message = WRONG[case]
    with pytest.raises(nm.ModelError) as caught:
        oral(**body)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_declared_twice_in_the_class_body_is_refused():
    with pytest.raises(nm.ModelError, match="`CL` is declared twice in test_a_name_declared"):

        class Twice(nm.Model):
            CL = nm.LogNormal(1.0)
            CL = nm.LogNormal(2.0)

    with pytest.raises(nm.ModelError, match="`omega` is declared twice"):

        class TwoOmegas(nm.Model):
            omega = nm.Blocks("CL V")
            omega = nm.Blocks("CL ka")


def test_a_subclass_overrides_declarations_and_nothing_hides_one():
    class Slower(Theophylline):
        """Slower absorption."""

        ka = nm.LogNormal(0.5, iiv=0.4)

    assert Slower().values == Theophylline().values | {"ka": 0.5, "omega_ka": 0.4}
    with pytest.raises(nm.ModelError, match=r"`CL = 3.0` would hide the declaration of `CL`"):
        type("Hidden", (Theophylline,), {"CL": 3.0})


WRONG_VALUES = {
    "LogNormal at 0": (lambda: nm.LogNormal(0.0), "LogNormal's typical value must be above 0, got 0.0."),
    "LogNormal below 0": (lambda: nm.LogNormal(nm.Fixed(-1)), "LogNormal's typical value must be above 0, got -1.0."),
    "LogNormal NaN": (lambda: nm.LogNormal(math.nan), "LogNormal's typical value must be finite, got nan."),
    "LogNormal text": (lambda: nm.LogNormal("1.5"), "LogNormal's typical value must be a number, got '1.5'."),
    "LogNormal True": (lambda: nm.LogNormal(True), "must be a number, got True."),
    "LogNormal array": (lambda: nm.LogNormal(np.ones(2)), "must be a number, got array([1., 1.])."),
    "iiv 0": (lambda: nm.LogNormal(1.0, iiv=0), "LogNormal's iiv (sd of eta) must be above 0, got 0.0; leave it out for none."),
    "iiv below 0": (lambda: nm.Normal(1.0, iiv=nm.Fixed(-0.1)), "Normal's iiv (sd of eta) must be above 0, got -0.1"),
    "iiv infinite": (lambda: nm.Normal(1.0, iiv=math.inf), "Normal's iiv (sd of eta) must be finite, got inf."),
    "covariates not a list": (lambda: nm.LogNormal(1.0, covariates=nm.Power("WT")), "LogNormal's covariates must be a list"),
    "covariates as names": (lambda: nm.LogNormal(1.0, covariates=["WT"]), "must be nm.Power, nm.Exponential"),
    "the same covariate twice": (
        lambda: nm.LogNormal(1.0, covariates=[nm.Power("WT"), nm.Linear("WT")]),
        "two effects of the same covariate: WT, WT.",
    ),
    "a prior that is no distribution": (
        lambda: nm.LogNormal(1.0, prior=2.0),
        "LogNormal's prior must be a NumPyro distribution, got 2.0.",
    ),
    "LogitNormal outside": (lambda: nm.LogitNormal(1.5), "LogitNormal's typical value must lie in (0.0, 1.0), got 1.5."),
    "LogitNormal turned round": (
        lambda: nm.LogitNormal(0.5, lower=1, upper=0),
        "lower bound 1.0 must be below its upper bound 0.0.",
    ),
    "Theta outside": (lambda: nm.Theta(-1.0, lower=0), "Theta's value -1.0 must lie strictly inside its bounds (0.0, inf)."),
    "Theta at its bound": (lambda: nm.Theta(1.0, upper=1), "Theta's value 1.0 must lie strictly inside its bounds (-inf, 1.0)."),
    "Theta turned round": (lambda: nm.Theta(1.0, lower=2, upper=0), "lower bound 2.0 must be below its upper bound 0.0."),
    "Theta with text": (lambda: nm.Theta(1.0, lower="0"), "Theta's lower bound must be a number, got '0'."),
    "Theta infinite": (lambda: nm.Theta(math.inf), "Theta's value must be finite, got inf."),
    "Power at 0": (lambda: nm.Power("WT", reference=0), "Power('WT'): the reference must be above 0, got 0."),
    "Power with text": (lambda: nm.Power("WT", reference="70"), "Power('WT'): reference must be a number, got '70'."),
    "an effect of no column": (
        lambda: nm.Exponential(70.0),
        "the first argument is the name of a data column, for example 'WT', got 70.0.",
    ),
    "Linear NaN": (lambda: nm.Linear("WT", value=math.nan), "Linear('WT'): value must be finite, got nan."),
    "Category's reference as level": (lambda: nm.Category("SEX", reference=0, levels=[0, 1]), "0 is both reference and level."),
    "Category's level as text": (
        lambda: nm.Category("SEX", reference=0, levels=["F"]),
        "a level (as in the data column) must be a number as the reference is, got 'F'.",
    ),
    "Category's level as a number": (lambda: nm.Category("SEX", "M", levels=[1]), "must be text as the reference is, got 1."),
    "Category's reference empty": (lambda: nm.Category("SEX", ""), "must be a text without blanks around it, got ''."),
    "Category's levels alike": (
        lambda: nm.Category("RACE", "w", ["a b", "a/b"]),
        "two levels would have the same name: a_b, a_b.",
    ),
    "Effect without function": (lambda: nm.Effect("WT", 2.0), "Effect('WT'): function must be callable as function(beta, x)."),
    "a block of one": (lambda: nm.Blocks("CL"), "A block of Omega needs two etas or more, got `CL`."),
    "an eta in two blocks": (lambda: nm.Blocks("CL V", "V ka"), "An eta can be in one block of Omega only, found twice: V."),
    "a block as a tuple": (lambda: nm.Blocks(("CL", "V")), 'written as one string, for example nm.Blocks("CL V")'),
    "an unknown absorption": (
        lambda: nm.OneCompartment(absorption="oral"),
        "must be None, 'first-order', 'zero-order', nm.Transit(...) or nm.ParallelAbsorption(...), got 'oral'.",
    ),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_a_wrong_value_is_refused_where_it_is_written(case):
    make, message = WRONG_VALUES[case]
    with pytest.raises(nm.ModelError) as caught:
        make()
    assert message in str(caught.value)


def test_bounds_may_be_touched_by_a_fixed_theta():
    assert nm.Theta(nm.Fixed(0.0), lower=0).value == nm.Fixed(0.0)
    assert nm.Theta(1.0, upper=1, fixed=True).fixed


def test_values_by_name_in_the_order_of_tables():
    assert list(PhenobarbitalCovariates().values.items()) == [
        ("CL", 0.007),
        ("beta_CL_WT", 0.9),
        ("V", 1.4),
        ("beta_V_WT", 1.0),
        ("beta_V_APGAR", -0.02),
        ("omega_CL", 0.2),
        ("omega_V", 0.2),
        ("corr_CL_V", 0.0),
        ("conc_additive", 0.5),
        ("conc_proportional", 0.1),
    ]


def test_at_is_another_value_of_the_same_model():
    model = Theophylline()
    moved = model.at({"CL": 3.5, "omega_V": np.float64(0.2)}).at({"conc_additive": jnp.asarray(0.1)})
    assert moved.values == model.values | {"CL": 3.5, "omega_V": 0.2, "conc_additive": 0.1}
    assert model.values["CL"] == 2.8
    assert moved.structure() == model.structure()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Cl": 3.0}, "parameter `Cl` does not exist; did you mean `CL`? Known: CL, V, Tk0, tlag, omega_CL"),
        ({"omega_Tk0": 0.1}, "parameter `omega_Tk0` does not exist; did you mean `omega_V`?"),
        ({"CL": 0.0}, "`CL` must lie in (0, inf), got 0."),
        ({"tlag": 0.3}, "`tlag` must lie in (0, 0.24), got 0.3."),
        ({"omega_CL": -0.1}, "`omega_CL` must lie in (0, inf), got -0.1."),
        ({"corr_CL_V": 1.0}, "`corr_CL_V` must lie in (-1, 1), got 1."),
        ({"conc_additive": math.nan}, "`conc_additive` must be finite, got nan."),
        ({"V": "32"}, "`V` must be a number, got '32'."),
    ],
)
def test_at_refuses_unknown_names_and_values_out_of_range(values, message):
    with pytest.raises(nm.ModelError) as caught:
        TheophyllineZeroOrder().at(values)
    assert message in str(caught.value)


def test_correlations_are_named_as_the_etas_are_declared_and_must_exist_together():
    model = oral(omega=nm.Blocks("V ka CL"))()
    assert [name for name in model.values if name.startswith("corr")] == ["corr_ka_CL", "corr_ka_V", "corr_CL_V"]
    model.at({"corr_ka_CL": 0.9, "corr_ka_V": 0.9, "corr_CL_V": 0.7})
    with pytest.raises(nm.ModelError, match="no random effects have these correlations together: corr_ka_CL"):
        model.at({"corr_ka_CL": 0.9, "corr_ka_V": 0.9, "corr_CL_V": -0.9})


def test_omega_has_every_correlation_in_its_place_whatever_the_order_of_the_block():
    values = {"corr_ka_CL": 0.1, "corr_ka_V": 0.5, "corr_CL_V": -0.3}
    latent = PopulationModel(oral(omega=nm.Blocks("V ka CL"))().at(values))
    root = latent.omega({name: jnp.asarray(p.start) for name, p in latent.parameters().items()})
    sd = np.array([0.6, 0.3, 0.15])
    correlation = np.array([[1, 0.1, 0.5], [0.1, 1, -0.3], [0.5, -0.3, 1]])
    np.testing.assert_allclose(root @ root.T, sd[:, None] * correlation * sd, rtol=1e-14)
    np.testing.assert_array_equal(root, jnp.tril(root))


def test_a_variant_by_keyword():
    variant = Theophylline(CL=nm.LogNormal(3.0, covariates=[nm.Power("WT", reference=70, exponent=0.75)]))
    assert variant.covariates == ("WT",)
    assert variant.specification.etas == ("ka", "V")
    assert list(variant.values) == ["ka", "CL", "beta_CL_WT", "V", "omega_ka", "omega_V", "conc_additive"]
    assert variant.structure() != Theophylline().structure()
    assert Theophylline().covariates == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CLs": nm.LogNormal(3.0)}, "Theophylline: parameter `CLs` does not exist; did you mean `CL`? Known: ka, CL, V, conc."),
        ({"CL": 3.0}, "CL must be a declaration such as nm.LogNormal(...), got 3.0."),
        ({"ka": nm.Additive(1.0)}, "`ka` is missing"),
    ],
)
def test_a_wrong_variant_is_refused(changes, message):
    with pytest.raises(nm.ModelError) as caught:
        Theophylline(**changes)
    assert message in str(caught.value)


def test_etas_compartments_and_endpoints_come_in_the_order_of_declaration():
    class Order(nm.Model):
        V2 = nm.LogNormal(1.0, iiv=0.1)
        ka = nm.LogNormal(1.0)
        CL = nm.LogNormal(1.0, iiv=0.1)
        Q = nm.Normal(1.0, iiv=0.1)
        V1 = nm.Theta(1.0)
        dynamics = nm.TwoCompartment(absorption="first-order")

        def observe(self, t, A, p):
            return {"z": A.central, "a": A.peripheral}

        a = nm.Additive(1.0)
        z = nm.Additive(1.0)

    spec: Specification = Order().specification
    assert spec.etas == ("V2", "CL", "Q")
    assert spec.compartments == ("depot", "central", "peripheral")
    assert Order().endpoints == ("z", "a")


def test_covariates_are_found_wherever_they_are_read():
    class Covariates(nm.Model):
        CL = nm.LogNormal(1.0, iiv=0.1)
        V = nm.LogNormal(1.0)
        AGE50 = nm.Theta(40.0)
        dynamics = nm.OneCompartment()

        def individual(self, theta, eta, x):
            return {"CL": theta.CL * x.WT * jnp.exp(eta.CL), "V": theta.V, "AGE50": theta.AGE50 + 0 * x.AGE}

        def dosing(self, p):
            return {"central": nm.Dosing(lag=p.LAGT)}

        def observe(self, t, A, p):
            return {"conc": A.central / p.V * jnp.where(p.FED == 1, 1.0, p.AGE / p.AGE50)}

        conc = nm.Additive(1.0)

    model = Covariates()
    assert model.covariates == ("WT", "AGE", "LAGT", "FED")
    assert model.dosing_fields == {("central", "lag")}


TWO_EFFECTS = """\
Pkpd: A drug.

individual parameters
  CL_i   = CL·exp(beta_CL_WT·log(WT/70) + eta_CL)
  V_i    = V·exp((beta_V_SEX_1 if [SEX = 1] else 0) + eta_V)
  E0_i   = E0 + eta_E0
  EC50_i = EC50

random effects
  eta_E0 ~ N(0, omega_E0^2)
  (eta_CL, eta_V) ~ N(0, Omega),  sds omega_CL, omega_V,  correlations corr_CL_V

dynamics (OneCompartment)
  dA_central/dt = -CL/V·A_central

observations
  cp = f + eps,  f = A_central/V,  Var(eps) = (cp_proportional·f)^2 + cp_additive^2
  effect = f + eps,  f = E0 - A_central/V/(EC50 + A_central/V),  Var(eps) = (effect_power·f^effect_exponent)^2

values
  CL              = 4 L/h
  beta_CL_WT      = 0.75 (fixed)
  V               = 70 L
  beta_V_SEX_1    = 0.2
  E0              = 20
  EC50            = 0.5 mg/L (fixed)
  omega_CL        = 0.3
  omega_V         = 0.2
  omega_E0        = 2 (fixed)
  corr_CL_V       = 0
  cp_proportional = 0.2
  cp_additive     = 0.01
  effect_power    = 1
  effect_exponent = 0.5"""


def test_equations_of_covariates_blocks_and_residual_models():
    class Pkpd(nm.Model):
        """A drug.

        With more to say about it."""

        CL = nm.LogNormal(4.0, iiv=0.3, covariates=[nm.Power("WT", reference=70, exponent=0.75, fixed=True)], unit="L/h")
        V = nm.LogNormal(70.0, iiv=0.2, covariates=[nm.Category("SEX", reference=0, levels={1: 0.2})], unit="L")
        E0 = nm.Normal(20.0, iiv=nm.Fixed(2.0))
        EC50 = nm.Theta(0.5, lower=0, unit="mg/L", fixed=True)
        omega = nm.Blocks("V CL")
        dynamics = nm.OneCompartment()

        def observe(self, t, A, p):
            conc = A.central / p.V
            return {"cp": conc, "effect": p.E0 - conc / (p.EC50 + conc)}

        cp = nm.Proportional(0.2) + nm.Additive(0.01)
        effect = nm.PowerError(1.0, exponent=0.5)

    model = Pkpd()
    assert model.equations().splitlines() == TWO_EFFECTS.splitlines()
    assert repr(model) == model.equations()


COUNTS = """\
Counts

individual parameters
  base_i  = 1/(1 + exp(-(log(base) - log(1 - base) + eta_base)))
  slope_i = slope

random effects
  eta_base ~ N(0, omega_base^2)

observations
  count ~ Poisson, mean (base if [t > 2] else -slope) - 0.5

values
  base       = 0.7
  slope      = 0.5
  omega_base = 0.8"""


def test_equations_of_a_count_model_with_limits():
    class Counts(nm.Model):
        base = nm.LogitNormal(0.7, iiv=0.8)
        slope = nm.Theta(0.5)

        def observe(self, t, A, p):
            return {"count": dist.Poisson(jnp.where(t > 2, p.base, -p.slope) - 0.5)}

    assert Counts().equations().splitlines() == COUNTS.splitlines()


def test_dynamics_are_printed_with_their_signs():
    lines = [line.strip() for line in PKPD().equations().splitlines() if "/dt" in line]
    assert lines == ["dA_depot/dt   = -ka·A_depot", "dA_central/dt = ka·A_depot - CL/V·A_central"]


def test_a_distribution_without_a_mean_can_be_printed():
    class Own(dist.Distribution):
        support = dist.constraints.real

        def __init__(self, rate):
            self.rate = rate
            super().__init__(jnp.shape(rate), ())

        def log_prob(self, value):
            return -self.rate * value

    model = oral(conc=None, observe=lambda self, t, A, p: {"conc": Own(A.central / p.V)})()
    assert "  conc ~ Own\n" in model.equations()
    assert r"\mathrm{conc} &\sim \mathrm{Own}" + "\n" in model.latex()


@pytest.mark.parametrize("name", examples())
def test_latex_balances_and_names_every_parameter(name):
    model = examples()[name].model
    text = model._repr_latex_()
    assert text.startswith(r"\begin{aligned}") and text.endswith(r"\end{aligned}")
    assert text.count("{") == text.count("}") and text.count("(") == text.count(")")
    assert text.count(r"\left") == text.count(r"\right")
    rows = text.splitlines()[1:-1]
    assert all(row.count("&") >= 1 for row in rows) and all(row.endswith(r"\\") for row in rows[:-1])
    for typical in model.specification.typical:
        assert typical in text
    for eta in model.specification.etas:
        assert rf"\eta_{{\mathrm{{{eta}}}}}" in text


def test_latex_of_theophylline_line_by_line():
    rows = [row.removesuffix(r" \\") for row in Theophylline().latex().splitlines()]
    assert rows[1] == r"{\mathrm{ka}}_i &= \mathrm{ka} \, e^{\eta_{\mathrm{ka}}}"
    assert rows[4] == r"\eta_{\mathrm{ka}} &\sim N(0, \omega_{\mathrm{ka}}^2)"
    assert rows[8] == (
        r"\frac{dA_{\mathrm{central}}}{dt} &= \mathrm{ka} \, A_{\mathrm{depot}} - \frac{\mathrm{CL}}{V} \, A_{\mathrm{central}}"
    )
    assert rows[9] == r"f_{\mathrm{conc}} &= \frac{A_{\mathrm{central}}}{V}"
    assert rows[10] == r"\mathrm{conc} &\sim N\left(f_{\mathrm{conc}}, \mathrm{conc}_{\mathrm{additive}}^{2}\right)"


def test_modelled_doses_are_part_of_the_equations():
    class Delayed(nm.Model):
        """Zero-order input after a lag."""

        CL = nm.LogNormal(2.8)
        V = nm.LogNormal(32.0)
        Tk0 = nm.Theta(1.0, lower=0)
        tlag = nm.Theta(0.5, lower=0)
        dynamics = nm.OneCompartment(absorption="zero-order")

        def dosing(self, p):
            return {"central": nm.Dosing(lag=p.tlag, bioavailability=0.8 * p.FED)}

        def observe(self, t, A, p):
            return {"conc": A.central / p.V}

        conc = nm.Additive(0.7)

    lines = str(Delayed()).splitlines()
    start = lines.index("doses")
    assert lines[start + 1 : start + 4] == [
        "  duration into central        = Tk0",
        "  lag into central             = tlag",
        "  bioavailability into central = 0.8·FED",
    ]
    assert r"\text{lag into central} &= \mathrm{tlag}" in Delayed().latex()
