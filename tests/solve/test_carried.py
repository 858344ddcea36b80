"""Boluses carried from dose to dose against the sum of their responses at every row: amounts and three derivatives."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.core.backend import compiled
from nlmefit.solve import superposition
from nlmefit.solve.arrivals import Arrivals

LIBRARY = {1: nm.OneCompartment, 2: nm.TwoCompartment, 3: nm.ThreeCompartment}
NAMES = {1: ("CL", "V"), 2: ("CL", "V1", "Q", "V2"), 3: ("CL", "V1", "Q2", "V2", "Q3", "V3")}
TYPICAL = {1: (3.0, 30.0), 2: (3.0, 30.0, 2.0, 50.0), 3: (3.0, 30.0, 2.0, 50.0, 1.0, 90.0)}
MODELS = [(number, absorption) for number in LIBRARY for absorption in (None, "first-order")]
DOSES, ROWS, PADDED = 9, 14, 2
GAPS = (0.0, 1e-12, 1e-6, 1e-1, 8.0)
"""How far ka is from the slowest disposition rate, relative to it."""


def model(number, absorption):
    return LIBRARY[number](absorption)


def size(number, absorption):
    return number + (absorption is not None)


def individual(number, gap, rng):
    values = np.array(TYPICAL[number]) * np.exp(rng.normal(0.0, 0.3, 2 * number))
    p = dict(zip(NAMES[number], values, strict=True))
    slowest = superposition.disposition(model(number, None), p).rates[-1]
    return p | {"ka": float(slowest) * (1 + gap)}


def history(rng, size, only, lag, steady):
    """Doses in any order, as ADDL leaves them, and rows, some at the same times; padded as the data are."""
    time, segment = rng.integers(0, 12, DOSES) * 4.0, np.sort(rng.integers(0, 3, DOSES)).astype(float)
    order = np.where(rng.random(DOSES) < 0.4, -1.0, rng.integers(0, 20, DOSES))
    amount, into = rng.uniform(10, 100, DOSES), rng.integers(0, size, DOSES) if only is None else np.full(DOSES, only)
    time[:PADDED], segment[:PADDED], order[:PADDED], amount[:PADDED] = 0.0, -1.0, 0.0, 0.0
    moved = rng.choice([0.0, 1.0], DOSES) if lag else np.zeros(DOSES)
    seen = np.where(rng.random(ROWS) < 0.5, rng.choice(time, ROWS) + (1.0 if lag else 0.0), rng.uniform(0, 60, ROWS))
    at_rest = np.where(segment < 0, 0.0, rng.integers(0, 3, DOSES).astype(float))
    doses = Arrivals(
        time=jnp.asarray(time + moved),
        amount=jnp.asarray(amount),
        compartment=jnp.asarray(into),
        known=jnp.asarray(time),
        order=jnp.asarray(order),
        segment=jnp.asarray(segment),
        until=None,
        epoch=None,
        duration=None,
        lagged=jnp.asarray(moved > 0) if lag else None,
        steady=jnp.asarray(at_rest) if steady else None,
        interval=jnp.full(DOSES, 8.0) if steady else None,
        endless=None,
        transit=None,
        overlap=0,
        steadies=DOSES,
        only=only,
    )
    rows = np.sort(rng.integers(0, 3, ROWS)).astype(float), rng.integers(0, 20, ROWS).astype(float)
    return doses, {"time": jnp.asarray(seen), "segment": jnp.asarray(rows[0]), "order": jnp.asarray(rows[1])}


def both(number, absorption, only=None):
    """(individual parameters, doses, rows) -> amounts by both ways (2, n, c)."""
    places = range(size(number, absorption))

    def amounts(p, doses, rows):
        d = superposition.disposition(model(number, absorption), p)
        doses, subject = doses._replace(only=only, overlap=0, steadies=0), SimpleNamespace(**rows)
        ways = superposition._carried, superposition._superposed
        return jnp.stack([jnp.stack(way(d, doses, subject, places), axis=-1) for way in ways])

    return amounts


def stacked(histories):
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *histories)


@pytest.mark.parametrize(("lag", "steady"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("number", "absorption"), MODELS)
def test_amounts_are_those_of_superposition(number, absorption, lag, steady):
    """Relative to the largest amount; where only depot or central compartment are dosed, these two relative to themselves."""
    rng, n = np.random.default_rng(number), size(number, absorption)
    for only in (None, *range(n)):
        histories = [history(rng, n, only, lag, steady) for _ in range(40)]
        people = [individual(number, GAPS[k % len(GAPS)], rng) for k in range(40)]
        doses = stacked([d._replace(only=None) for d, _ in histories])
        run = compiled(jax.vmap(both(number, absorption, only)))
        found, expected = np.moveaxis(np.asarray(run(stacked(people), doses, stacked([r for _, r in histories]))), 1, 0)
        assert np.all(np.isfinite(found)) and expected.max() > 10
        scale = expected.max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-13)
        positive = n - number + 1  # depot and central amounts are sums of positive terms, where none comes from a peripheral
        if only is not None and only < positive:
            np.testing.assert_allclose(found[..., :positive], expected[..., :positive], rtol=1e-12)


def thrice(f):
    """Value and derivatives up to the third along the one argument, by dual numbers of dual numbers."""

    def dual(f):
        return lambda e: jax.jvp(f, (e,), (jnp.ones(()),))

    def derivatives(e):
        nested = dual(dual(dual(f)))(e)
        return jnp.stack([nested[0][0][0], nested[0][0][1], nested[0][1][1], nested[1][1][1]])

    return derivatives


@pytest.mark.parametrize(("number", "absorption"), MODELS)
def test_three_derivatives_are_those_of_superposition(number, absorption):
    """In all parameters, the doses' amounts and their times at once; padded doses and rows without a dose are numbers, too."""
    rng, n = np.random.default_rng(7), size(number, absorption)
    amounts = both(number, absorption)
    histories = [history(rng, n, None, True, False) for _ in range(12)]
    people = [individual(number, GAPS[k % len(GAPS)], rng) for k in range(12)]
    direction = [{name: value * rng.normal() for name, value in p.items()} for p in people]

    def along(p, slope, doses, rows):
        def at(e):
            moved = doses._replace(time=doses.time + 0.3 * e * doses.lagged, amount=doses.amount * (1 + 0.5 * e))
            return amounts({name: p[name] + e * slope[name] for name in p}, moved, rows)

        return thrice(at)(jnp.zeros(()))

    doses = stacked([d for d, _ in histories])
    found = compiled(jax.vmap(along))(stacked(people), stacked(direction), doses, stacked([r for _, r in histories]))
    carried, superposed = np.moveaxis(np.asarray(found), 2, 0)
    assert np.all(np.isfinite(carried))
    scale = np.abs(superposed).max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(carried / scale, superposed / scale, rtol=0, atol=1e-9)


def test_an_impossible_dose_is_no_number_until_the_next_reset():
    doses, rows = history(np.random.default_rng(0), 2, 0, False, False)
    segment, time = np.repeat([0.0, 1.0], [5, 4]), 8.0 * np.arange(DOSES)
    doses = doses._replace(segment=jnp.asarray(segment), time=jnp.asarray(time), amount=jnp.full(DOSES, 10.0).at[2].set(jnp.nan))
    seen = jnp.asarray([9.0, 17.0, 33.0, 41.0, 70.0])
    rows = {"time": seen, "segment": jnp.asarray([0.0, 0.0, 0.0, 1.0, 1.0]), "order": jnp.full(5, 30.0)}
    found = both(1, "first-order", 0)(individual(1, 1.0, np.random.default_rng(1)), doses, rows)
    for amounts in found:
        assert np.isnan(amounts[:, 1]).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize(("count", "absorption", "change", "expected"), [
    (5, "first-order", {}, True),
    (4, "first-order", {}, False),
    (9, None, {}, False),
    (9, "first-order", {"only": 1}, False),
    (9, "first-order", {"duration": 0.0}, False),
    (9, "first-order", {"lagged": True}, True),
    (9, "first-order", {"steady": 1.0}, True),
    (9, "first-order", {"steady": 1.0, "lagged": True}, False),
])  # fmt: skip
def test_which_doses_are_carried(count, absorption, change, expected):
    doses = history(np.random.default_rng(0), 2, None, False, False)[0]
    doses = doses._replace(time=doses.time[:count], **change)
    assert superposition._is_carried(doses, absorption is not None) is expected


def test_a_regimen_is_carried_and_a_single_dose_is_not(monkeypatch):
    """The rule is asked with what data look like when they are laid out."""
    asked = []
    original = superposition._is_carried
    monkeypatch.setattr(superposition, "_is_carried", lambda *x: asked.append(original(*x)) or asked[-1])

    class Oral(nm.Model):
        ka, CL, V = nm.LogNormal(1.0), nm.LogNormal(4.0, iiv=0.3), nm.LogNormal(40.0)
        dynamics = nm.OneCompartment("first-order")

        def observe(self, t, A, p):
            return {"y": A.central / p.V}

        y = nm.Additive(1.0)

    for doses in (7, 1):
        dose = {"TIME": 0.0, "AMT": 100.0, "EVID": 1, "II": 12.0, "ADDL": doses - 1}
        nm.predict(Oral(), pd.DataFrame([{"ID": 1} | dose, {"ID": 1} | dict.fromkeys(dose, 0.0) | {"TIME": 90.0}]))
    assert asked[0] and not asked[-1]
