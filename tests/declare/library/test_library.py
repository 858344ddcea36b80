"""What every structural model of the library must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit.declare.equations import expressions
from nlmefit.declare.library.absorption import ParallelAbsorption, Transit
from nlmefit.declare.library.effect_compartment import EffectCompartment
from nlmefit.declare.library.friberg import Friberg
from nlmefit.declare.library.indirect_response import IndirectResponse
from nlmefit.declare.library.michaelis_menten import MichaelisMenten
from nlmefit.declare.library.tmdd import TMDD
from nlmefit.declare.library.tumour_growth import TumourGrowth
from nlmefit.declare.namespace import Namespace

ABSORPTIONS = [None, "first-order", "zero-order", Transit(), Transit(compartments=3)]
ABSORPTIONS += [ParallelAbsorption(second, lag) for second in ("first-order", "zero-order") for lag in (False, True)]
PHARMACOKINETICS = [
    *[nm.OneCompartment(absorption) for absorption in ABSORPTIONS],
    nm.TwoCompartment(Transit()),
    nm.ThreeCompartment(ParallelAbsorption()),
    MichaelisMenten(),
    MichaelisMenten(linear=True),
    MichaelisMenten(Transit(compartments=2), linear=True, peripheral=True),
    TMDD(),
    TMDD("full", "first-order", peripheral=True),
    TMDD("QSS"),
    TMDD("QSS", ParallelAbsorption("zero-order"), peripheral=True),
]
PK = nm.OneCompartment("first-order")
BOUND = TMDD("QSS", ParallelAbsorption())
PHARMACODYNAMICS = [
    *[IndirectResponse(kind, PK, sigmoid) for kind, sigmoid in ((1, False), (2, True), (3, True), (4, False))],
    *[TumourGrowth(law, pk) for law in ("exponential", "logistic", "gompertz", "simeoni") for pk in (None, PK)],
    *[Friberg(PK, effect) for effect in ("linear", "emax")],
    EffectCompartment(PK),
    IndirectResponse(4, BOUND, sigmoid=True),
    Friberg(BOUND),
    TumourGrowth("simeoni", BOUND),
]
MODELS = [*PHARMACOKINETICS, *PHARMACODYNAMICS]
NONLINEAR = [  # one of each equation; the others are linear or made of the same
    MichaelisMenten(linear=True),
    TMDD("full", "first-order", peripheral=True),
    TMDD("QSS"),
    *[IndirectResponse(kind, PK) for kind in (1, 4)],
    IndirectResponse(2, PK, sigmoid=True),
    IndirectResponse(4, BOUND, sigmoid=True),
    *[Friberg(PK, effect) for effect in ("linear", "emax")],
    *[TumourGrowth(law, PK) for law in ("logistic", "gompertz", "simeoni")],
]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS, ids=repr)


class Recorded(dict):
    """A dictionary that notes which of its names are read."""

    def __init__(self, values):
        super().__init__(values)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


@EVERY_MODEL
def test_names_are_those_that_are_read_and_returned(model):
    p = Recorded(dict.fromkeys(model.parameters, 0.7))
    rates = model.derivatives(0.0, dict.fromkeys(model.compartments, 1.0), p)
    assert tuple(rates) == model.compartments
    assert len(set(model.compartments)) == len(model.compartments)
    given = {*model.initial(p)} | {r.into for routes in model.routes(p).values() for r in routes} | {*model.routes(p)}
    assert given <= {*model.compartments}
    assert p.read == {*model.parameters}
    assert len(set(model.parameters)) == len(model.parameters)


@EVERY_MODEL
def test_a_model_is_a_value(model):
    again = eval(repr(model), {name: getattr(nm, name) for name in nm.__all__})
    assert again == model
    assert hash(again) == hash(model)
    assert sum(model == other for other in MODELS) == 1


@EVERY_MODEL
def test_namespaces_serve_as_well_as_dictionaries(model):
    A, p = dict.fromkeys(model.compartments, 0.4), dict.fromkeys(model.parameters, 0.7)
    by_name = model.derivatives(0.0, Namespace(A, "compartment"), Namespace(p, "parameter"))
    assert by_name == model.derivatives(0.0, A, p)
    assert model.initial(Namespace(p, "parameter")) == model.initial(p)


@EVERY_MODEL
def test_a_model_is_shown_as_equations(model):
    names = [*model.compartments, *model.parameters]
    shown = expressions(lambda **v: model.derivatives(0.0, v, v), names)
    assert tuple(shown) == model.compartments
    assert all(e.head != "0" for e in shown.values())


@pytest.mark.parametrize("model", NONLINEAR, ids=repr)
def test_values_and_two_derivatives_are_finite_where_powers_logarithms_and_roots_are_not(model):
    """At zero, without drug at the start, at amounts near underflow, a little below zero, and very large."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.3, 0.9, len(model.parameters))
    initial = model.initial(dict(zip(model.parameters, p)))
    start = np.array([initial.get(name, 0.0) for name in model.compartments])
    n = len(start)
    points = [np.zeros(n), start, start + 1e-12, start + 1e-120, start + 1e-300, start - 1e-9, start * 1e-15, 1e6 + start]
    points += [np.where(start > 0, start, drug) for drug in (1e-300, 1e-20, 1e8)]

    def rates(x):
        A, q = (dict(zip(names, v)) for names, v in ((model.compartments, x[:n]), (model.parameters, x[n:])))
        return jnp.stack(list(model.derivatives(0.0, A, q).values()))

    x = jnp.array([np.concatenate([point, p]) for point in points])
    first = jax.jacfwd(lambda x: (rates(x), rates(x)), has_aux=True)
    orders = jax.jacfwd(lambda x: (first(x)[0], first(x)), has_aux=True)
    compiled = jax.jit(
        jax.vmap(lambda x: (orders(x), jax.jacrev(rates)(x))), compiler_options={"xla_backend_optimization_level": 0}
    )
    (second, (forward, values)), reverse = compiled(x)
    for kind, value in {"value": values, "forward": forward, "reverse": reverse, "second": second}.items():
        bad = [tuple(int(i) for i in row) for row in np.argwhere(~np.isfinite(value))]
        assert not bad, f"{kind}: not finite at {bad[:3]}"


@pytest.mark.parametrize("model", [m for m in MODELS if not isinstance(m, TumourGrowth)], ids=repr)
def test_without_drug_the_start_is_stationary(model):
    rng = np.random.default_rng(2)
    p = dict(zip(model.parameters, rng.uniform(0.2, 3.0, len(model.parameters))))
    A = dict.fromkeys(model.compartments, 0.0) | model.initial(p)
    np.testing.assert_allclose([float(rate) for rate in model.derivatives(0.0, A, p).values()], 0.0, atol=1e-15)


@pytest.mark.parametrize("model", PHARMACODYNAMICS, ids=repr)
def test_an_effect_leaves_the_drug_as_its_own_model_has_it(model):
    if model.pk is None:
        return
    first = len(model.pk.compartments)
    assert model.compartments[:first] == model.pk.compartments
    assert model.parameters[: len(model.pk.parameters)] == model.pk.parameters
    A, p = dict.fromkeys(model.compartments, 0.4), dict.fromkeys(model.parameters, 0.7)
    rates = model.derivatives(0.0, A, p)
    assert {name: rates[name] for name in model.pk.compartments} == model.pk.derivatives(0.0, A, p)
    assert model.routes(p) == model.pk.routes(p)


WRONG = {
    "absorption": (lambda: MichaelisMenten("oral"), "absorption must be None, 'first-order', 'zero-order', nm.Transit(...) or"),
    "absorption of TMDD": (lambda: TMDD(absorption=["first-order"]), "got ['first-order']"),
    "a class as absorption": (lambda: nm.OneCompartment(Transit), "got <class"),
    "no flag": (lambda: MichaelisMenten(linear=1), "MichaelisMenten: linear must be True or False, got 1."),
    "no flag of TMDD": (lambda: TMDD(peripheral="yes"), "TMDD: peripheral must be True or False, got 'yes'."),
    "approximation": (lambda: TMDD("qss"), "TMDD: approximation must be 'full' or 'QSS', got 'qss'."),
    "kind": (lambda: IndirectResponse(5, PK), "IndirectResponse: kind must be 1, 2, 3 or 4, got 5."),
    "a flag as kind": (lambda: IndirectResponse(True, PK), "kind must be 1, 2, 3 or 4, got True."),
    "pk in place of kind": (lambda: IndirectResponse(PK, 1), "kind must be 1, 2, 3 or 4, got OneCompartment"),
    "no pk": (lambda: IndirectResponse(1, None), "pk must be a pharmacokinetic model, nm.OneCompartment(...)"),
    "a class as pk": (lambda: EffectCompartment(nm.OneCompartment), "EffectCompartment: pk must be a pharmacokinetic model"),
    "an effect as pk": (lambda: Friberg(EffectCompartment(PK)), "Friberg: pk must be a pharmacokinetic model"),
    "effect": (lambda: Friberg(PK, "Emax"), "Friberg: effect must be 'linear' or 'emax', got 'Emax'."),
    "law": (
        lambda: TumourGrowth("simeoni2004"),
        "TumourGrowth: law must be 'exponential', 'logistic', 'gompertz' or 'simeoni', got 'simeoni2004'.",
    ),
    "pk of a tumour": (lambda: TumourGrowth("simeoni", "first-order"), "TumourGrowth: pk must be a pharmacokinetic model"),
    "no transit compartment": (lambda: Transit(compartments=0), "Transit: compartments must be a whole number from 1 up"),
    "part of a compartment": (lambda: Transit(compartments=2.5), "or None for a parameter `n` to be estimated, got 2.5."),
    "a flag as compartments": (lambda: Transit(compartments=True), "got True."),
    "second": (lambda: ParallelAbsorption("zero"), "second must be 'first-order' or 'zero-order', got 'zero'."),
    "lag": (lambda: ParallelAbsorption(lag=0.5), "ParallelAbsorption: lag must be True or False, got 0.5."),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_refused(case):
    make, message = WRONG[case]
    with pytest.raises(nm.ModelError) as caught:
        make()
    assert message in str(caught.value)
