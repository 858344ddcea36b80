"""Amounts of one subject as the sum of its doses' responses, in closed form: added up at every row, or from dose to dose.

Holds while the individual parameters stay constant in time; resets (EVID 3, 4) and steady state (SS) included.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.solve import closed_form, ties
from nlmefit.solve.arrivals import Arrivals
from nlmefit.solve.closed_form import Disposition

MANY_ABSORBED, MANY = 5, 12
"""Boluses from which on carrying pays for its longer compilation: with a depot among their compartments, and without."""


def disposition(model: AbstractCompartments, p: Mapping[str, Any]) -> Disposition:
    """The model's rate matrix and rates from the individual parameters."""
    by_parameters: dict[int, Callable[..., Disposition]] = {
        2: closed_form.one_compartment,
        4: closed_form.two_compartment,
        6: closed_form.three_compartment,
    }
    ka = p["ka"] if model.absorption == "first-order" else None
    return by_parameters[len(model.disposition)](*(p[name] for name in model.disposition), ka=ka)


def amounts(
    model: AbstractCompartments, p: Mapping[str, Any], doses: Arrivals | None, subject: Any, places: Sequence[int]
) -> Float[Array, "n w"]:
    """A(t) of the compartments at those places, at the subject's rows.

    A dose counts at a row of the same segment (no reset between) when it comes earlier in time, or at the same time and
    earlier in the file, or when the row is its own record; a lagged dose that arrives at the very time of a row counts there.

    Many boluses are carried from dose to dose (exponentials at doses + rows); a few, infusions, and lagged doses where some come
    at steady state are superposed (at doses x rows).
    """
    if doses is None:
        return jnp.zeros((*subject.time.shape, len(places)))
    d = disposition(model, p)
    found = (_carried if _is_carried(doses, model.absorption == "first-order") else _superposed)(d, doses, subject, places)
    return jnp.stack(found, axis=-1)


def _is_carried(doses: Arrivals, depot: bool) -> bool:
    """Whether to carry: decided by shapes and by which fields are there, before anything is computed."""
    absorbed = depot and doses.only in (None, 0)
    boluses = doses.duration is None and (doses.steady is None or doses.lagged is None)
    return boluses and doses.time.shape[0] >= (MANY_ABSORBED if absorbed else MANY)


def _carried(d: Disposition, doses: Arrivals, subject: Any, places: Sequence[int]) -> list[Float[Array, " n"]]:
    """From dose to dose in the order of arrival, and from the last one to each row. A reset begins anew."""
    order = jnp.lexsort(lax.stop_gradient((ties.of_dose(doses.order, doses.lagged), doses.time, doses.segment)))
    doses = jax.tree.map(lambda x: x if isinstance(x, int) else x[order], doses)
    phases = closed_form.Phases.of(d, doses.only)
    count, given = len(order), _given(d, phases, doses)
    same = jnp.concatenate([jnp.zeros(1, bool), doses.segment[1:] == doses.segment[:-1]])
    gap = jnp.where(same, doses.time - jnp.concatenate([doses.time[:1], doses.time[:-1]]), 0.0)
    last = jnp.max(jnp.where(active(doses, subject), jnp.arange(count)[:, None], -1), axis=0)
    since = jnp.where(last < 0, 0.0, subject.time - doses.time[last])
    # one exponential for gaps and rows: it is most of what there is to compile
    own, fed = phases.weights(d, closed_form.exponential(d, jnp.concatenate([gap, since])))

    def step(before: Any, dose: Any) -> tuple[Any, Any]:
        own, fed, same, given = dose
        after = jnp.where(same, closed_form.carried(own, fed, before), 0.0) + given
        return after, after

    gaps = own[:count], None if fed is None else fed[:count], same, given
    after = lax.scan(step, jnp.zeros_like(given[0]), gaps)[1]
    kept = jnp.where((last < 0)[:, None], 0.0, after[last])
    now = closed_form.carried(own[count:], None if fed is None else fed[count:], kept)
    return phases.amounts(d, now, places)


def _given(d: Disposition, phases: closed_form.Phases, doses: Arrivals) -> Float[Array, "d k"]:
    """What each dose brings, or where it comes at steady state what there is then, by phase and source."""
    into = doses.compartment[:, None] == jnp.asarray(phases.source)
    given = jnp.where(into, doses.amount[:, None], 0.0)
    if doses.steady is None:
        return given
    series = closed_form.carried(*phases.weights(d, closed_form.repeated(d, doses.interval)), given)
    return jnp.where((doses.steady > 0)[:, None], series, given)


def _superposed(d: Disposition, doses: Arrivals, subject: Any, places: Sequence[int]) -> list[Float[Array, " n"]]:
    """The sum over all doses at every row."""
    elapsed, there = subject.time - doses.time[:, None], active(doses, subject)
    responses = [jnp.where(there, r, 0.0) for r in _responses(d, doses, jnp.where(there, elapsed, 0.0), places)]
    if doses.steady is not None:
        known = (subject.time > doses.known[:, None]) | (
            (subject.time == doses.known[:, None]) & (doses.order[:, None] <= subject.order)
        )
        steady = (doses.steady > 0)[:, None] & known & (doses.segment[:, None] == subject.segment)
        past = _steady_responses(d, doses, elapsed)
        responses = [jnp.where(steady, past[..., place], r) for place, r in zip(places, responses, strict=True)]
    return [jnp.sum(r, axis=0) for r in responses]


def active(doses: Arrivals, subject: Any) -> Any:
    """Which doses are there at which rows (d, n)."""
    elapsed = subject.time - doses.time[:, None]
    sooner = (elapsed > 0) | ((elapsed == 0) & _first_at_tie(doses, subject))
    return sooner & (doses.segment[:, None] == subject.segment)


def _first_at_tie(doses: Arrivals, subject: Any) -> Any:
    earlier = doses.order[:, None] <= subject.order
    return earlier if doses.lagged is None else earlier | doses.lagged[:, None]


def _responses(d: Disposition, doses: Arrivals, elapsed: Float[Array, "d n"], places: Sequence[int]) -> list[Float[Array, "d n"]]:
    """Amounts of the wanted compartments `elapsed` after each dose: a bolus decays; an infusion builds up, then decays."""
    into, amount, duration = range(d.rates.shape[0]), doses.amount, doses.duration
    if doses.only is not None:
        given = [amount[:, None] if c == doses.only else None for c in into]
    else:
        given = [jnp.where(doses.compartment == c, amount, 0.0)[:, None] for c in into]
    return closed_form.dose_response(d, given, None if duration is None else duration[:, None], elapsed, places)


def _steady_responses(d: Disposition, doses: Arrivals, elapsed: Float[Array, "d n"]) -> Float[Array, "d n c"]:
    """Amounts of doses at steady state; before a lagged dose arrives, those of the interval before.

    A rate without an amount (and without an interval) is an infusion that lasted until the record, as in NONMEM. Infusions
    longer than their interval are not for here: NaN.
    """
    size = d.rates.shape[0]
    into = jnp.asarray(doses.compartment[:, None] == jnp.arange(size), float)
    amount, duration, interval = doses.amount, doses.duration, doses.interval
    since = jnp.where(elapsed < 0, elapsed + interval[:, None] * jnp.ceil(-elapsed / interval[:, None]), elapsed)
    start = closed_form.steady_bolus(d, amount[:, None] * into, interval)
    if duration is None:
        response = closed_form.propagate(d, start[:, None, :], since)
    else:
        running = duration > 0
        rate = jnp.where(running, amount / jnp.where(running, duration, 1.0), 0.0)
        before = closed_form.steady_infusion(d, rate[:, None] * into, jnp.minimum(duration, interval), interval)
        earlier = closed_form.propagate(d, jnp.where(running[:, None], before, start)[:, None, :], since)
        current = jnp.stack(_responses(d, doses, since, range(size)), axis=-1)
        response = jnp.where(running[:, None, None], earlier + current, earlier)
        response = jnp.where((duration > interval)[:, None, None], jnp.nan, response)
    if doses.endless is None:
        return response
    constant = closed_form.steady_constant(d, doses.endless[:, None] * into)
    after = closed_form.propagate(d, constant[:, None, :], jnp.maximum(elapsed, 0.0))
    return jnp.where((doses.endless > 0)[:, None, None], after, response)
