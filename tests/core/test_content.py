"""The program that runs is the model that is written: keys by content, and models read anew where their code changed."""

import functools
import sys
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist

import nlmefit as nm
from nlmefit.core.content import content

LONG = np.arange(5000.0)


def changed(array, place, value):
    found = np.array(array)
    found[place] = value
    return found


def mlp(seed):
    return eqx.nn.MLP(1, 1, 3, 1, key=jax.random.key(seed))


def power(n):
    return lambda x: x**n


class Holder:
    def __init__(self, value):
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


PAIRS = {
    "whole and real numbers": (1, 1.0),
    "truth and number": (True, 1),
    "the last bit": (0.1, np.nextafter(0.1, 1)),
    "signed zeros": (0.0, -0.0),
    "an element of a long array": (LONG, changed(LONG, 2500, -7)),
    "an element of a JAX array": (jnp.asarray(LONG), jnp.asarray(changed(LONG, 2500, -7))),
    "beyond printed digits": (np.array([1.0]), np.array([1.0 + 1e-15])),
    "types of arrays": (np.zeros(2), np.zeros(2, int)),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "arrays of objects": (np.array(["a", None]), np.array(["b", None])),
    "keys": (jax.random.key(0), jax.random.key(1)),
    "networks": (mlp(0), mlp(1)),
    "tables": (pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [2.0]})),
    "columns of tables": (pd.DataFrame({"x": [1.0]}), pd.DataFrame({"z": [1.0]})),
    "inside containers": ({"a": [(LONG, 1)]}, {"a": [(changed(LONG, 9, 0), 1)]}),
    "order of dictionaries": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "closures": (power(2), power(3)),
    "code": (lambda x: x + 1, lambda x: x - 1),
    "constants in code": (lambda x: x + 1, lambda x: x + 1.0),
    "defaults": (lambda x, k=1: k * x, lambda x, k=2: k * x),
    "defaults by name": (lambda x, *, k=1: k * x, lambda x, *, k=2: k * x),
    "functions inside": (lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)),
    "partial": (functools.partial(pow, 2), functools.partial(pow, 3)),
    "jitted": (jax.jit(power(2)), jax.jit(power(3))),
    "vectorized": (jnp.vectorize(power(2)), jnp.vectorize(power(3))),
    "objects": (Holder(1), Holder(2)),
    "slots": (Slotted(1), Slotted(2)),
    "methods": (Holder(power(2)).value, Holder(power(3)).value),
    "distributions": (dist.Normal(0.0, 1.0), dist.Normal(0.0, 2.0)),
    "built-in functions": (len, sum),
    "ufuncs": (np.exp, np.log),
    "sets": ({1, 2}, {1, 3}),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_differs_has_different_keys(pair):
    one, other = pair
    assert content(one) == content(one)
    assert content(one) != content(other)


SAME = {
    "closures": lambda: power(2),
    "networks": lambda: mlp(3),
    "arrays": lambda: np.arange(9.0),
    "objects": lambda: Holder([1, {"a": np.ones(3)}]),
    "distributions, used and unused": lambda: dist.TruncatedNormal(0.0, 1.0, low=0.0),
    "vectorized": lambda: jnp.vectorize(power(2)),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_what_is_made_alike_has_one_key(make):
    one, other = make(), make()
    if hasattr(other, "log_prob"):
        other.log_prob(1.0)  # fills the distribution's attributes
    assert content(one) == content(other)


def test_circles_end():
    a: list = [1]
    a.append(a)
    holder = Holder(a)
    holder.own = holder
    assert content(holder) == content(holder)


# ---- models: a notebook in which things change ------------------------------------------------------------------------

DATA = pd.DataFrame({"ID": [1, 1, 2], "TIME": [0, 1.0, 0], "DV": [9, 11, 10.0]})


class Plain(nm.Model):
    a = nm.Normal(10.0, iiv=2.0)

    def observe(self, t, A, p):
        return {"y": p.a}

    y = nm.Additive(1.0)


def notebook(source, **names):
    """A module in which `source` ran, as in a notebook's cells."""
    module = types.ModuleType("cells")
    vars(module).update({"nm": nm, "jnp": jnp, "np": np, **names})
    exec(source, vars(module))
    return module


CELLS = """
scale = 1.0
table = np.arange(2000.0)
class Settings:
    scale = 1.0
def helper(x):
    return scale * x
def outer(x):
    return helper(x) + 0 * settings.offset
class M(nm.Model):
    a = nm.Normal(10.0, iiv=2.0)
    def observe(self, t, A, p):
        return {"y": EXPRESSION}
    y = nm.Additive(1.0)
"""


def prediction(model):
    found = nm.predict(model, DATA)["y"].iloc[0]
    assert -2 * nm.evaluate(model, DATA, nm.Laplace()).log_likelihood == pytest.approx(expected(found), rel=1e-9)
    return found


def expected(mean):
    """-2 log L of DATA when each y is normal around `mean`, omega 2, and sigma 1, with slopes d y / d a of mean / 10."""
    slope, total = mean / 10, 0.0
    for y in ([9.0, 11.0], [10.0]):
        cov = np.eye(len(y)) + (2.0 * slope) ** 2
        r = np.array(y) - mean
        total += np.linalg.slogdet(2 * np.pi * cov)[1] + r @ np.linalg.solve(cov, r)
    return total


CHANGES = {
    "a method": ("p.a", lambda c: setattr(c.M, "observe", lambda self, t, A, p: {"y": 3 * p.a})),
    "a method's code, as autoreload does": ("p.a", lambda c: recode(c.M.observe, lambda self, t, A, p: {"y": 3 * p.a})),
    "a global": ("scale * p.a", lambda c: setattr(c, "scale", 3.0)),
    "a helper's global": ("helper(p.a)", lambda c: setattr(c, "scale", 3.0)),
    "a helper": ("helper(p.a)", lambda c: setattr(c, "helper", lambda x: 3 * x)),
    "a helper's helper": ("outer(p.a)", lambda c: setattr(c, "scale", 3.0)),
    "a class's attribute": ("Settings.scale * p.a", lambda c: setattr(c.Settings, "scale", 3.0)),
    "an element of an array": ("(table[1000] - 999) * p.a", lambda c: c.table.__setitem__(1000, 1002.0)),
    "a module's attribute": ("settings.scale * p.a", lambda c: setattr(c.settings, "scale", 3.0)),
    "a global in a function inside": ("(lambda x: scale * x)(p.a)", lambda c: setattr(c, "scale", 3.0)),
}


def recode(function, other):
    function.__code__ = other.__code__


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_computed(change):
    expression, act = change
    settings = types.ModuleType("my_settings")
    settings.scale, settings.offset = 1.0, 0.0
    cells = notebook(CELLS.replace("EXPRESSION", expression), settings=settings)
    model = cells.M()
    assert prediction(model) == pytest.approx(10.0)
    act(cells)
    assert prediction(model) == pytest.approx(30.0)
    assert prediction(cells.M()) == pytest.approx(30.0)


def test_a_module_imported_inside_of_a_method(monkeypatch):
    module = types.ModuleType("my_constants")
    module.scale = 1.0
    monkeypatch.setitem(sys.modules, "my_constants", module)
    cells = notebook(
        "class M(nm.Model):\n a = nm.Normal(10.0, iiv=2.0)\n y = nm.Additive(1.0)\n def observe(self, t, A, p):\n"
        "  import my_constants\n  return {'y': my_constants.scale * p.a}"
    )
    assert prediction(cells.M()) == pytest.approx(10.0)
    module.scale = 3.0
    assert prediction(cells.M()) == pytest.approx(30.0)


def test_declarations_that_are_replaced():
    class Own(Plain):
        pass

    model = Own().at({"omega_a": 3.0})
    Own.a = nm.Normal(20.0, iiv=2.0)
    assert model.values == {"a": 20.0, "omega_a": 3.0, "y_additive": 1.0}
    assert "20" in model.equations()
    assert nm.predict(model, DATA)["y"].iloc[0] == 20
    Own.observe = lambda self, t, A, p: {"z": p.a}
    with pytest.raises(nm.ModelError, match="endpoint"):
        nm.predict(model, DATA)


def test_attributes_of_instances():
    class Scaled(Plain):
        def __init__(self, k=(1.0,), **changes):
            self.k = k
            super().__init__(**changes)

        def observe(self, t, A, p):
            return {"y": self.k[0] * p.a}

    one, other = Scaled([1.0]), Scaled([3.0])
    assert (prediction(one), prediction(other), prediction(one)) == pytest.approx((10.0, 30.0, 10.0))
    fit = nm.evaluate(one, DATA, nm.Laplace())
    one.k[0] = 3.0
    assert prediction(one) == pytest.approx(30.0)
    assert prediction(fit.model) == pytest.approx(10.0)
    longer = pd.concat([DATA, DATA.assign(ID=DATA["ID"] + 2)])  # compiles anew what was kept for k = 1
    assert nm.predict(Scaled([1.0]), longer)["y"].iloc[0] == pytest.approx(10.0)


def test_dynamics_read_their_own_instance():
    class Decay(nm.Model):
        k = 1.0
        V = nm.Normal(10.0, iiv=1.0)

        def dynamics(self, t, A, p):
            return {"central": -self.k * A.central}

        def observe(self, t, A, p):
            return {"y": A.central / p.V}

        y = nm.Additive(1.0)

    design = pd.DataFrame({"ID": 1, "TIME": [0, 1.0], "AMT": [100, 0], "EVID": [1, 0]})
    slow = Decay().at({"V": 20.0})
    slow.k = 0.1
    assert nm.predict(slow, design)["y"].iloc[-1] == pytest.approx(5 * np.exp(-0.1))
    assert nm.predict(Decay(), design)["y"].iloc[-1] == pytest.approx(10 * np.exp(-1))


def test_attributes_of_functions_count():
    def scaled(x):
        return scaled.by * x

    scaled.by = 1.0
    before = content(scaled)
    scaled.by = 7.0
    assert content(scaled) != before
    scaled.by = 1.0
    assert content(scaled) == before
