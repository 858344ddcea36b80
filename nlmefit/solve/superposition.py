"""Amounts of one subject as the sum of its doses' responses, each in closed form.

Holds while the individual parameters stay constant in time; resets (EVID 3, 4) and steady state (SS) included.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.declare.dosing import Dosing
from nlmefit.solve import closed_form
from nlmefit.solve.closed_form import Disposition


def disposition(model: AbstractCompartments, p: Mapping[str, Any]) -> Disposition:
    """The model's rate matrix and rates from the individual parameters."""
    build = {
        2: closed_form.one_compartment,
        4: closed_form.two_compartment,
        6: closed_form.three_compartment,
    }[len(model.disposition)]
    ka = p["ka"] if model.absorption == "first-order" else None
    return build(*(p[name] for name in model.disposition), ka=ka)


def amounts(
    model: AbstractCompartments, p: Mapping[str, Any], dosing: Mapping[str, Dosing], subject: Any, wanted: Sequence[str]
) -> dict[str, Float[Array, "n"]]:
    """A(t) of the wanted compartments at the subject's observation rows.

    A dose counts at a row of the same segment (no reset between) when it comes earlier in time, or at the same time and
    earlier in the file, or when the row is its own record; a lagged dose that arrives at the very time of a row counts there.
    """
    doses, places = subject.doses, [model.compartments.index(name) for name in wanted]
    if doses is None or not wanted:
        return {name: jnp.zeros(subject.time.shape) for name in wanted}
    lag, bioavailability = (_by_compartment(model, dosing, doses, field) for field in ("lag", "bioavailability"))
    amount = doses.amount if bioavailability is None else doses.amount * bioavailability
    arrival = doses.time if lag is None else doses.time + lag
    elapsed = subject.time - arrival[:, None]
    sooner = (elapsed > 0) | ((elapsed == 0) & _first_at_tie(doses, lag, subject))
    active = sooner & (doses.segment[:, None] == subject.segment)
    duration = _duration(model, p, dosing, doses, amount)
    d = disposition(model, p)
    single = _responses(d, doses, amount, duration, jnp.where(active, elapsed, 0.0), places)
    if doses.steady is None:
        responses = [jnp.where(active, r, 0.0) for r in single]
    else:
        known = (subject.time > doses.time[:, None]) | (
            (subject.time == doses.time[:, None]) & (doses.order[:, None] <= subject.order)
        )
        steady = (doses.steady > 0)[:, None] & known & (doses.segment[:, None] == subject.segment)
        past = _steady_responses(d, amount, duration, doses, elapsed)
        responses = [
            jnp.where(steady, past[..., place], jnp.where(active, r, 0.0)) for place, r in zip(places, single, strict=True)
        ]
    return {name: jnp.sum(r, axis=0) for name, r in zip(wanted, responses, strict=True)}


def _first_at_tie(doses: Any, lag: Any, subject: Any) -> Any:
    earlier = doses.order[:, None] <= subject.order
    return earlier if lag is None else earlier | (lag[:, None] > 0)


def _by_compartment(model: AbstractCompartments, dosing: Mapping[str, Dosing], doses: Any, field: str) -> Any:
    """A modelled property of every dose (d,), by the compartment that it goes to; None where none is modelled."""
    neutral = {"lag": 0.0, "bioavailability": 1.0, "rate": 1.0, "duration": 0.0}[field]
    values = [getattr(dosing.get(name, Dosing()), field) for name in model.compartments]
    if all(value is None for value in values):
        return None
    filled = [jnp.asarray(neutral if value is None else value) for value in values]
    return jnp.stack(jnp.broadcast_arrays(*filled))[doses.compartment]


def _duration(model: AbstractCompartments, p: Mapping[str, Any], dosing: Mapping[str, Dosing], doses: Any, amount: Any) -> Any:
    """Duration of every dose (d,), 0 for a bolus; None when all are boluses."""
    zero_order = model.absorption == "zero-order"
    if doses.duration is None and not zero_order:
        return None
    duration = jnp.zeros_like(amount) if doses.duration is None else doses.duration
    if doses.rate is not None:
        given = doses.rate > 0
        duration = jnp.where(given, amount / jnp.where(given, doses.rate, 1.0), duration)
    modelled = jnp.zeros_like(amount) if doses.modelled is None else doses.modelled
    rates, durations = (_by_compartment(model, dosing, doses, field) for field in ("rate", "duration"))
    if rates is not None:
        duration = jnp.where(modelled == -1, amount / rates, duration)
    if durations is not None:
        duration = jnp.where(modelled == -2, durations, duration)
    if zero_order:
        central = doses.compartment == model.compartments.index("central")
        own = dosing.get("central", Dosing()).duration is not None
        bolus = (duration == 0) & (modelled != -2) if own else duration == 0
        duration = jnp.where(central & bolus, p["Tk0"], duration)
    return duration


def _responses(
    d: Disposition, doses: Any, amount: Any, duration: Any, elapsed: Float[Array, "d n"], places: Sequence[int]
) -> list[Float[Array, "d n"]]:
    """Amounts of the wanted compartments `elapsed` after each dose: a bolus decays; an infusion builds up, then decays."""
    into = range(d.rates.shape[0])
    if doses.only is not None:
        given = [amount[:, None] if c == doses.only else None for c in into]
    else:
        given = [jnp.where(doses.compartment == c, amount, 0.0)[:, None] for c in into]
    return closed_form.dose_response(d, given, None if duration is None else duration[:, None], elapsed, places)


def _steady_responses(
    d: Disposition, amount: Any, duration: Any, doses: Any, elapsed: Float[Array, "d n"]
) -> Float[Array, "d n c"]:
    """Amounts of doses at steady state; before a lagged dose arrives, those of the interval before.

    A rate without an amount (and without an interval) is an infusion that lasted until the record, as in NONMEM. An infusion
    longer than its interval gives NaN: the data check refuses it where the duration is known.
    """
    size = d.rates.shape[0]
    into = jnp.asarray(doses.compartment[:, None] == jnp.arange(size), float)
    interval = jnp.where(doses.interval > 0, doses.interval, 1.0)
    since = jnp.where(elapsed < 0, elapsed + interval[:, None] * jnp.ceil(-elapsed / interval[:, None]), elapsed)
    start = closed_form.steady_bolus(d, amount[:, None] * into, interval)
    if duration is None:
        return closed_form.propagate(d, start[:, None, :], since)
    running = duration > 0
    rate = jnp.where(running, amount / jnp.where(running, duration, 1.0), 0.0)
    before = closed_form.steady_infusion(d, rate[:, None] * into, jnp.minimum(duration, interval), interval)
    earlier = closed_form.propagate(d, jnp.where(running[:, None], before, start)[:, None, :], since)
    current = jnp.stack(_responses(d, doses, amount, duration, since, range(size)), axis=-1)
    response = jnp.where(running[:, None, None], earlier + current, earlier)
    response = jnp.where((duration > interval)[:, None, None], jnp.nan, response)
    if doses.rate is None:
        return response
    endless = (doses.amount == 0) & (doses.rate > 0)
    constant = closed_form.steady_constant(d, doses.rate[:, None] * into)
    after = closed_form.propagate(d, constant[:, None, :], jnp.maximum(elapsed, 0.0))
    return jnp.where(endless[:, None, None], after, response)
