"""The doses of one subject as they arrive in compartments: lag, bioavailability, modelled rate and duration, routes applied.

What a dose's own record says of covariates decides its lag, bioavailability, rate and duration, also for the doses that
ADDL makes of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nlmefit.data.doses import UNKNOWN_OVERLAP
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.dynamics import Route
from nlmefit.solve.epochs import at_epoch

Routes = Mapping[str, Sequence[Route]]


MOST_PENDING = 4
"""How many doses of a steady state at most are on their way, given before its record and to arrive after it (a lag of that many
intervals); NaN beyond."""


class Arrivals(NamedTuple):
    """Doses as inputs (d,). `known` is the time of the record, `time` that of the arrival."""

    time: Any
    amount: Any
    compartment: Any
    known: Any
    order: Any
    segment: Any
    until: Any
    epoch: Any
    duration: Any
    """0 for a bolus; None where all doses are."""
    lagged: Any
    """Whether the dose arrives after its record; None where none does."""
    steady: Any
    interval: Any
    endless: Any
    """Rate of an infusion that went on for ever until its record (SS with a rate and no amount); None where there is none."""
    transit: tuple[Any, Any] | None
    """(n, ktr) of each dose's gamma input, n = -1 where it arrives at once; None where no route asks for it."""
    overlap: int
    """How many earlier infusions of a steady state at most still run at its record."""
    steadies: int
    """How many doses at most come at steady state."""
    only: int | None
    """The compartment into which all doses go, None where there are several."""


def arrivals(compartments: Sequence[str], dosing: Mapping[str, Dosing], routes: Routes, doses: Any) -> Arrivals:
    """The subject's doses with everything applied that the model says of them; one per route where a dose takes several."""
    count = max((len(routes[name]) for name in routes), default=1)
    parts = [_along(compartments, dosing, routes, number, doses) for number in range(count)]
    if count == 1:
        return parts[0]
    joined = _joined(parts)
    if joined.steady is None:
        return joined
    first = jnp.arange(joined.steady.shape[0]) < doses.time.shape[0]  # the others add to what the first has replaced
    steady = jnp.where(first, joined.steady, jnp.minimum(2 * joined.steady, 2.0))
    return joined._replace(steady=steady, steadies=count * doses.steadies)


def _joined(parts: Sequence[Arrivals]) -> Arrivals:
    """The doses of all routes as one list; what only some routes have is neutral in the others."""
    count = parts[0].time.shape[0]
    neutral = {"duration": jnp.zeros(count), "lagged": jnp.zeros(count, bool), "transit": (-jnp.ones(count), jnp.ones(count))}

    def join(field: str) -> Any:
        values = [getattr(part, field) for part in parts]
        if isinstance(values[0], int) or all(v is None for v in values):
            return max(values) if isinstance(values[0], int) else None
        filled = [neutral[field] if v is None else v for v in values]
        return jax.tree.map(lambda *x: jnp.concatenate(x), *filled)

    return Arrivals._make(None if field == "only" else join(field) for field in Arrivals._fields)


def _along(compartments: Sequence[str], dosing: Mapping[str, Dosing], routes: Routes, number: int, doses: Any) -> Arrivals:
    """The doses along each compartment's route of that number (a share of 0 where it has no such route)."""
    none = Route(compartments[0], share=0.0)
    own = {name: (routes.get(name) or (Route(name),)) for name in compartments}
    route = {name: own[name][number] if number < len(own[name]) else none for name in compartments}

    def of(field: str, source: Mapping[str, Any], neutral: float) -> Any:
        values = [getattr(source[name], field) if name in source else None for name in compartments]
        return _by_dose(values, neutral, doses)

    factors = [of("bioavailability", dosing, 1.0), of("share", route, 1.0)]
    lags = [lag for lag in (of("lag", dosing, 0.0), of("lag", route, 0.0)) if lag is not None]
    given = doses.amount if factors[0] is None else doses.amount * factors[0]
    duration = _duration(of, dosing, route, compartments, given, doses)
    lag = sum(lags) if lags else None
    given = _possible(given, factors[0], lag, duration)
    time = doses.time if lag is None else doses.time + jnp.where(jnp.isnan(lag), 0.0, lag)  # so that its amount, NaN, arrives
    into = [compartments.index(route[name].into) for name in compartments]
    straight = into == list(range(len(into)))
    only = None if doses.only is None else into[doses.only]
    return Arrivals(
        time=time,
        amount=given if factors[1] is None else given * factors[1],
        compartment=doses.compartment if straight else jnp.asarray(into)[doses.compartment],
        known=doses.time,
        order=doses.order,
        segment=doses.segment,
        until=doses.until,
        epoch=doses.epoch,
        duration=duration,
        lagged=time > doses.time if lags else None,
        steady=doses.steady,
        interval=None if doses.interval is None else jnp.where(doses.interval > 0, doses.interval, 1.0),
        endless=None if doses.steady is None or doses.rate is None else jnp.where(doses.amount == 0, doses.rate, 0.0),
        transit=_transit(route, compartments, doses),
        overlap=_overlap(doses, route, dosing),
        steadies=doses.steadies,
        only=only,
    )


def on_their_way(a: Arrivals) -> Any:
    """How many of a steady state's doses (d,) were given before its record and arrive at it or after: the whole intervals in the
    lag."""
    return jnp.floor(lax.stop_gradient((a.time - a.known) / a.interval))


def _possible(amount: Any, bioavailability: Any, lag: Any, duration: Any) -> Any:
    """Amounts, NaN where the model gives their dose no lag, a negative one or such a bioavailability or duration, or a rate that
    is not above 0."""
    wrong = [~(given >= 0) for given in (bioavailability, lag) if given is not None]
    wrong += [] if duration is None else [~(duration >= 0) | ~jnp.isfinite(duration)]
    for bad in wrong:
        amount = jnp.where(bad, jnp.nan, amount)
    return amount


def _by_dose(values: Sequence[Any], neutral: float, doses: Any) -> Any:
    """What holds for each dose (d,), from values by compartment (numbers, or by epoch); None where no compartment has one."""
    if all(value is None for value in values):
        return None
    filled = [jnp.asarray(neutral if value is None else value, float) for value in values]
    table = jnp.stack(jnp.broadcast_arrays(*filled))
    mine = (
        table[doses.compartment]
        if doses.only is None
        else jnp.broadcast_to(table[doses.only], doses.time.shape + table.shape[1:])
    )
    return mine if table.ndim == 1 else at_epoch(mine, doses.epoch)


def _duration(
    of: Any, dosing: Mapping[str, Dosing], route: Mapping[str, Route], compartments: Sequence[str], amount: Any, doses: Any
) -> Any:
    """Duration of every dose (d,), 0 for a bolus; None when all are boluses."""
    routed = of("duration", route, 0.0)
    if doses.duration is None and routed is None:
        return None
    duration = jnp.zeros_like(amount) if doses.duration is None else doses.duration
    if doses.rate is not None:
        given = doses.rate > 0
        duration = jnp.where(given, amount / jnp.where(given, doses.rate, 1.0), duration)
    modelled = jnp.zeros_like(amount) if doses.modelled is None else doses.modelled
    rates, durations = of("rate", dosing, 1.0), of("duration", dosing, 0.0)
    if rates is not None:
        duration = jnp.where(modelled == -1, amount / rates, duration)
    if durations is not None:
        duration = jnp.where(modelled == -2, durations, duration)
    if routed is not None:
        asked = [name in dosing and dosing[name].duration is not None for name in compartments]
        own = jnp.asarray(asked)[doses.compartment] & (modelled == -2)
        through = jnp.asarray([route[name].duration is not None for name in compartments])[doses.compartment]
        duration = jnp.where(through & (duration == 0) & ~own, routed, duration)
    return duration


def _transit(route: Mapping[str, Route], compartments: Sequence[str], doses: Any) -> tuple[Any, Any] | None:
    if all(one.transit is None for one in route.values()):
        return None
    pairs = [route[name].transit or (None, None) for name in compartments]
    return _by_dose([n for n, _ in pairs], -1.0, doses), _by_dose([k for _, k in pairs], 1.0, doses)


def _overlap(doses: Any, route: Mapping[str, Route], dosing: Mapping[str, Dosing]) -> int:
    """How many earlier doses of a steady state may still run: not known where a route or bioavailability makes them longer."""
    routed = any(one.duration is not None for one in route.values())
    stretched = doses.rate is not None and any(d.bioavailability is not None for d in dosing.values())
    unknown = doses.steady is not None and (routed or stretched)
    return max(doses.overlap, UNKNOWN_OVERLAP if unknown else 0)
