"""The steady state of repeated doses in a linear system, solved for: with d the dose and tau its interval,

    A(0+) = (I - exp(K tau))^-1 d        (bolus)
    A(0-) = (I - exp(K tau))^-1 (response to what is infused in one interval)

An infusion of duration T = m tau + rest overlaps with the next m: in each interval m of them run throughout and one more until
the rest has passed. A lagged dose's record sees the interval before, at the phase tau - lag; of a lag beyond the interval only
what exceeds whole intervals matters, and the doses that are on their way are events (`timeline.py`).
"""

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from nlmefit.solve.arrivals import MOST_PENDING, Arrivals, on_their_way


class Repeated(NamedTuple):
    """One dose, or many (d,), of a steady state."""

    amount: Any
    """(c,) into each compartment."""
    lag: Any
    """Without whole intervals."""
    interval: Any
    duration: Any
    endless: Any
    """(c,): an input that went on for ever until the record, in place of doses."""


def repeated(a: Arrivals, size: int) -> Repeated:
    """What the steady states of the doses depend on."""
    steady = a.steady > 0  # the other doses get harmless values
    endless = jnp.zeros_like(a.time) if a.endless is None else jnp.where(steady, a.endless, 0.0)
    into = jnp.asarray((a.compartment[:, None] == jnp.arange(size)) & steady[:, None], float)
    none = jnp.zeros_like(a.time)
    whole = none if a.lagged is None else on_their_way(a)
    amount = jnp.where(whole > MOST_PENDING, jnp.nan, a.amount)
    lag = a.time - a.known - whole * a.interval
    return Repeated(
        into * amount[:, None],
        jnp.where(steady & (endless == 0), lag, 0.0),  # what was always there ends at the record
        a.interval,
        none if a.duration is None else jnp.where(steady, a.duration, 0.0),
        into * endless[:, None],
    )


class Linear(Protocol):
    def flow(self, rate: Any, time: Any) -> Any: ...
    def periodic(self, amounts: Any, interval: Any) -> Any: ...
    def stationary(self, rate: Any) -> Any: ...
    def constant(self) -> Any: ...


def steady_state(system: Linear, dose: Repeated, overlap: int) -> tuple[Any, Any]:
    """Amounts and inputs (c,) just before the record of a steady-state dose; NaN where more than `overlap` earlier
    infusions run."""
    phase = dose.interval - dose.lag
    running = dose.duration > 0
    bolus = system.flow(dose.amount, phase).transition @ system.periodic(dose.amount, dose.interval)
    rate = jnp.where(running, dose.amount / jnp.where(running, dose.duration, 1.0), 0.0)
    infusion = _infusion(system, rate, dose, phase) if overlap else bolus
    amounts = jnp.where(running, infusion, bolus)
    amounts = jnp.where(jnp.any(dose.endless > 0), system.stationary(dose.endless), amounts)
    own = system.constant()
    if own is not None:
        amounts = amounts + jnp.where(jnp.any(own != 0), system.stationary(own), 0.0)
    ends = [dose.lag + dose.duration - number * dose.interval for number in range(1, overlap + 2)]
    inputs = rate * sum(end > 0 for end in ends[:-1]) if overlap else jnp.zeros_like(rate)
    known = ~running | (ends[-1] <= 0)
    return jnp.where(known, amounts, jnp.nan), jnp.where(known, inputs, jnp.nan)


def _infusion(system: Linear, rate: Any, dose: Repeated, phase: Any) -> Any:
    """Amounts at the phase of an interval at whose beginning an infusion starts."""
    tau = dose.interval
    whole = jnp.floor(dose.duration / tau)
    rest = dose.duration - whole * tau
    one = system.flow(rate, rest).response
    filled = whole * system.flow(rate, tau).response + system.flow(rate, tau - rest).transition @ one
    at_start = system.periodic(filled, tau)
    inside = jnp.minimum(phase, rest)
    extra = system.flow(rate, phase - inside).transition @ system.flow(rate, inside).response
    throughout = system.flow(whole * rate, phase)
    return throughout.transition @ at_start + throughout.response + extra
