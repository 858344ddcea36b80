"""One subject's events in order: doses that arrive, infusions that end, resets, steady states, epochs, and rows to predict.

Arrivals and ends of infusions move with the individual parameters, so that the order is found while computing; times
carry their derivatives. Events at the same time form a group. Between groups the system runs undisturbed, with a constant
input; at a group the amounts A become keep A + add. That is all a solver needs to know of events, whatever solves in between.

Which of those at the same time comes first is said in `ties.py`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nlmefit.solve import ties
from nlmefit.solve.arrivals import MOST_PENDING, Arrivals, on_their_way


class Events(NamedTuple):
    """Events in any order (e,): amounts become keep A + add, inputs keep R + rate (e, c)."""

    segment: Any
    time: Any
    rank: Any
    """Order among events of the same time and segment."""
    keep: Any
    add: Any
    rate: Any


class Timeline(NamedTuple):
    """Groups of simultaneous events (g,), and where each row stands among them (n,)."""

    time: Any
    elapsed: Any
    """Time since the group before, or since the subject's start; 0 from one segment to the next."""
    epoch: Any
    """The epoch of the interval that ends at the group; None where nothing changes."""
    segment: Any
    rate: Any
    """(g, c): input into each compartment during the interval that ends at the group."""
    keep: Any
    add: Any
    last: Any
    """The last group that a row stands in."""
    row_group: Any
    row_keep: Any
    row_add: Any
    """Amounts at a row are row_keep A + row_add, with A the amounts just before the row's group."""

    def at_rows(self, before: Any) -> Any:
        """Amounts at the rows (n, c), from those just before each group (g, c)."""
        return self.row_keep[:, None] * before[self.row_group] + self.row_add


def timeline(
    subject: Any, arrivals: Arrivals | None, initial: Any, steady: tuple[Any, Any] | None, stops: bool = False
) -> Timeline:
    """The subject's timeline. `initial` (c,) holds after resets, `steady` are amounts and inputs (s, c) of `steady_doses`; with
    `stops` there is a group for each record, also for those that are no rows: what is exact in between needs none."""
    size = initial.shape[0]
    rows = _plain(subject.segment, subject.time, subject.order, size)
    parts = [rows]
    if arrivals is not None:
        parts += _dose_events(arrivals, size)
        if steady is not None:
            parts.append(_steady_event(steady_doses(arrivals), *steady))
    if subject.resets is not None:
        parts.append(_reset_events(subject, initial))
    if subject.boundary is not None:
        parts.append(_plain(subject.boundary_segment, subject.boundary, jnp.full(subject.boundary.shape, ties.DIVIDER), size))
    if stops and subject.stop is not None:
        parts.append(_plain(subject.stop_segment, subject.stop, jnp.full(subject.stop.shape, ties.DIVIDER), size))
    events = Events(*(jnp.concatenate(x) for x in zip(*parts, strict=True)))
    never = jnp.isinf(events.time) | jnp.isinf(events.segment) | (events.segment < 0)  # padding, and what a reset cancels
    events = events._replace(segment=jnp.where(never, jnp.inf, events.segment), time=jnp.where(never, subject.start, events.time))
    return grouped(events, subject)


def _plain(segment: Any, time: Any, rank: Any, size: int) -> Events:
    """Events that change nothing."""
    count = time.shape[0]
    nothing = jnp.zeros((count, size))
    return Events(jnp.asarray(segment, float), jnp.asarray(time), rank, jnp.ones(count), nothing, nothing)


def _dose_events(a: Arrivals, size: int) -> list[Events]:
    """Boluses, starts and ends of infusions; for a steady state also of its earlier doses that are still to come or running."""
    into = a.compartment[:, None] == jnp.arange(size)
    at_once = into if a.transit is None else into & (a.transit[0] <= -1)[:, None]
    amount = jnp.where(at_once, a.amount[:, None], 0.0)
    own, rank = a.order + ties.DOSE, ties.of_dose(a.order, a.lagged)
    if a.duration is None:
        nothing = jnp.zeros_like(amount)
        return [_pending(a, a.time, rank, amount, nothing), *_on_their_way(a, own, amount, nothing)]
    running = a.duration > 0
    rate = jnp.where(running[:, None], amount / jnp.where(running, a.duration, 1.0)[:, None], 0.0)
    bolus = jnp.where(running[:, None], 0.0, amount)
    events = [
        _pending(a, a.time, rank, bolus, rate),
        *_on_their_way(a, own, bolus, rate),
        _pending(a, a.time + a.duration, jnp.full(rank.shape, ties.INFUSION_ENDS), jnp.zeros_like(bolus), -rate),
    ]
    if a.steady is None:
        return events
    repeated = (a.steady > 0) & (a.amount > 0)
    for number in range(1, a.overlap + _most_pending(a) + 1):
        ends = a.time + a.duration - number * a.interval
        later = repeated & running & (ends > a.known)
        still = jnp.where(later[:, None], -rate, 0.0)
        ends = jnp.where(later, ends, jnp.inf)
        events.append(_pending(a, ends, jnp.full(rank.shape, ties.INFUSION_ENDS), jnp.zeros_like(bolus), still))
    return events


def _most_pending(a: Arrivals) -> int:
    return 0 if a.steady is None or a.lagged is None else MOST_PENDING


def _on_their_way(a: Arrivals, own: Any, add: Any, rate: Any) -> list[Events]:
    """Doses of a steady state that were given before its record and arrive at it or after."""
    events = []
    for number in range(1, _most_pending(a) + 1):
        begins = jnp.maximum(a.time - number * a.interval, a.known)
        coming = (a.steady > 0) & (a.amount > 0) & (number <= on_their_way(a))
        rank = jnp.where(begins > a.known, ties.UNRECORDED, own)
        events.append(_pending(a, jnp.where(coming, begins, jnp.inf), rank, add, rate))
    return events


def _pending(a: Arrivals, time: Any, rank: Any, add: Any, rate: Any) -> Events:
    """Events of doses, dropped where a reset comes first."""
    if a.until is not None:
        time = jnp.where(time <= a.until, time, jnp.inf)
    return Events(a.segment, time, rank, jnp.ones(time.shape), add, rate)


def steady_doses(a: Arrivals) -> Arrivals:
    """Those doses (s,) that come at steady state, filled up with others."""
    chosen = jnp.argsort(a.steady <= 0, stable=True)[: a.steadies]
    return jax.tree.map(lambda x: x if isinstance(x, int) else x[chosen], a)


def _steady_event(a: Arrivals, amounts: Any, inputs: Any) -> Events:
    """The steady state is there at the dose's record, just before it: SS 1 replaces what was in the system, SS 2 adds to it."""
    steady = a.steady > 0
    keep = jnp.where(a.steady == 1, 0.0, 1.0)
    amounts, inputs = (jnp.where(steady[:, None], x, 0.0) for x in (amounts, inputs))
    return Events(a.segment, jnp.where(steady, a.known, jnp.inf), a.order + ties.STEADY_STATE, keep, amounts, inputs)


def _reset_events(subject: Any, initial: Any) -> Events:
    count = subject.resets.shape[0]
    again = jnp.broadcast_to(initial, (count, initial.shape[0]))
    nothing = jnp.zeros_like(again)
    return Events(subject.reset_segment, subject.resets, jnp.full(count, ties.RESET), jnp.zeros(count), again, nothing)


def grouped(events: Events, subject: Any) -> Timeline:
    """The events in order; the first are the subject's rows."""
    order = jnp.lexsort(lax.stop_gradient((events.rank, events.time, events.segment)))
    e = Events(*(x[order] for x in events))
    count = order.shape[0]
    begins = jnp.concatenate([jnp.ones(1, bool), (e.time[1:] != e.time[:-1]) | (e.segment[1:] != e.segment[:-1])])
    keep, add, rate = _composed(e, begins)
    group = jnp.cumsum(begins) - 1
    final = jnp.searchsorted(group, jnp.arange(count), side="right") - 1  # each group's last event
    time, segment, after = e.time[final], e.segment[final], rate[final]
    same = jnp.concatenate([jnp.ones(1, bool), segment[1:] == segment[:-1]])
    before = jnp.concatenate([jnp.reshape(jnp.asarray(subject.start, float), 1), time[:-1]])
    place = jnp.argsort(order)[: subject.time.shape[0]]
    return Timeline(
        time=time,
        elapsed=jnp.where(same, jnp.maximum(time - before, 0.0), 0.0),
        epoch=None if subject.boundary is None else _epoch(subject, segment, time),
        segment=segment,
        rate=jnp.concatenate([jnp.zeros_like(after[:1]), after[:-1]]),
        keep=keep[final],
        add=add[final],
        last=jnp.max(group[place]),
        row_group=group[place],
        row_keep=keep[place],
        row_add=add[place],
    )


def _composed(e: Events, begins: Any) -> tuple[Any, Any, Any]:
    """What the events of a group have done to the amounts up to each event, and the inputs after it."""

    def step(carry: tuple[Any, Any, Any], event: tuple[Any, Events]) -> tuple[Any, Any]:
        keep, add, rate = carry
        begins, e = event
        keep, add = jnp.where(begins, 1.0, keep), jnp.where(begins, 0.0, add)
        after = (keep * e.keep, add * e.keep + e.add, rate * e.keep + e.rate)
        return after, after

    nothing = jnp.zeros(e.add.shape[1])
    return lax.scan(step, (jnp.ones(()), nothing, nothing), (begins, e))[1]


def _epoch(subject: Any, segment: Any, time: Any) -> Any:
    """The epoch of the interval that ends at each time: how many boundaries lie strictly before it."""
    earlier = (subject.boundary_segment < segment[:, None]) | (
        (subject.boundary_segment == segment[:, None]) & (subject.boundary < time[:, None])
    )
    return jnp.sum(earlier, axis=1)
