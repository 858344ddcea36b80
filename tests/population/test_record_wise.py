"""A model's methods mean one record: whatever they add up, sort or normalize is never over the records."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist

import nlmefit as nm
from nlmefit.population.record_wise import by_record

TIMES = [0.0, 1.0, 2.0, 3.0]
DATA = pd.DataFrame({"ID": 1, "TIME": TIMES, "DV": [9, 11, 10.0, 2], "WT": [70, 80, 90, 100.0]})

REDUCTIONS = {
    "sum": jnp.sum,
    "max": jnp.max,
    "mean": jnp.mean,
    "cumsum": lambda x: jnp.atleast_1d(jnp.cumsum(x))[-1],
    "norm": lambda x: jnp.linalg.norm(jnp.atleast_1d(x)),
    "sort": lambda x: jnp.sort(jnp.atleast_1d(x))[0],
    "of two": lambda x: jnp.sum(jnp.stack([x, x])),
}


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
def test_reductions_are_over_what_they_name(reduce):
    class Reducing(nm.Model):
        a = nm.Normal(10.0, iiv=2.0)

        def individual(self, theta, eta, x):
            return {"a": theta.a + eta.a + reduce(x.WT)}

        def observe(self, t, A, p):
            return {"y": p.a + reduce(t), "free": reduce(p.WT), "n": dist.Poisson(reduce(p.a))}

        y = nm.Additive(1.0)

    shown = nm.predict(Reducing(), DATA.assign(DVID=1))
    one = [float(10 + reduce(jnp.asarray(w)) + reduce(jnp.asarray(t))) for w, t in zip(DATA["WT"], TIMES)]
    np.testing.assert_allclose(shown["y"], one)
    np.testing.assert_allclose(shown["free"], [float(reduce(jnp.asarray(w))) for w in DATA["WT"]])
    np.testing.assert_allclose(shown["n"], [float(reduce(10 + reduce(jnp.asarray(w)))) for w in DATA["WT"]])


def test_dosing_is_of_one_dose():
    class Dosed(nm.Model):
        CL = nm.LogNormal(5.0, iiv=0.3)
        V = nm.LogNormal(40.0)
        dynamics = nm.OneCompartment()

        def dosing(self, p):
            return {"central": nm.Dosing(bioavailability=jnp.sum(p.F1))}

        def observe(self, t, A, p):
            return {"conc": jnp.max(A.central) / p.V}

        conc = nm.Additive(1.0)

    frame = pd.DataFrame({"ID": 1, "TIME": TIMES, "EVID": [1, 0, 1, 0], "AMT": [100, 0, 100, 0.0], "F1": [0.5, 0.5, 1.0, 1.0]})
    k = 5 / 40
    wanted = [50 * np.exp(-k) / 40, (50 * np.exp(-3 * k) + 100 * np.exp(-k)) / 40]
    np.testing.assert_allclose(nm.predict(Dosed(), frame).query("EVID == 0")["conc"], wanted)


def test_what_depends_on_no_vector_stays_a_number():
    found = by_record(
        lambda v: {"z": v["a"] + 1, "both": v["a"] * jnp.sum(v["x"]), "no": 3.0}, {"x": jnp.arange(3.0), "a": jnp.asarray(2.0)}
    )
    assert jnp.shape(found["z"]) == jnp.shape(found["no"]) == ()
    np.testing.assert_allclose(found["both"], [0, 2, 4])


WRONG = {
    "a vector": lambda p: jnp.stack([p.a, p.a]),
    "nothing": lambda p: None,
    "text": lambda p: "ten",
    "a list": lambda p: [p.a],
    "a complex number": lambda p: p.a + 1j,
    "a vector of distributions": lambda p: dist.Normal(jnp.stack([p.a, p.a]), 1.0),
}


def made(**own):
    body = {
        "a": nm.Normal(1.0, iiv=0.1),
        "y": nm.Additive(1.0),
        "dynamics": lambda self, t, A, p: {"central": -p.a * A.central},
        "observe": lambda self, t, A, p: {"y": A.central * p.a},
    }
    return type(nm.Model)("Wrong", (nm.Model,), body | own)()


METHODS = {
    "observe": lambda value: {"observe": lambda self, t, A, p: {"y": A.central, "n": value(p)}},
    "dosing": lambda value: {"dosing": lambda self, p: {"central": nm.Dosing(lag=value(p))}},
    "initial": lambda value: {"initial": lambda self, p: {"central": value(p)}},
    "individual": lambda value: {"individual": lambda self, theta, eta, x: {"a": value(theta)}},
}


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_number_of_one_record(method, value):
    """Refused when the class is bound to data, or when it is defined."""
    if (method, value) == ("dosing", "nothing"):
        return  # says that there is no lag
    with pytest.raises(nm.ModelError, match=rf"{method}.*(must be|fails)"):
        nm.predict(made(**METHODS[method](WRONG[value])), DATA)
