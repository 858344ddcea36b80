"""Amounts of one subject in a linear system, event by event and by nothing but exp(K t): slow, and plain enough to be right.

A steady state is what is there after so many earlier doses; the records are NONMEM's, one dictionary each.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.linalg import expm

EARLIER_DOSES = 200


class Dose(NamedTuple):
    """A dose as the model sees it: amount times bioavailability, and when it arrives."""

    amount: np.ndarray
    lag: float
    duration: float


class System:
    """dA/dt = K A + b + inputs."""

    def __init__(self, amounts: np.ndarray, time: float):
        self.amounts, self.time = np.array(amounts, float), time
        self.coming: list[tuple[float, Dose]] = []
        self.running: list[tuple[float, np.ndarray]] = []

    def advance(self, to: float, K: np.ndarray, b: np.ndarray | float = 0.0) -> None:
        """Up to and including everything that happens by itself at that time."""
        while True:
            times = [to, *(t for t, _ in self.coming), *(t for t, _ in self.running)]
            self._flow(min(times) - self.time, K, b)
            self.time = min(times)
            self.running = [(end, rate) for end, rate in self.running if end > self.time]
            arrived = [dose for t, dose in self.coming if t <= self.time]
            self.coming = [(t, dose) for t, dose in self.coming if t > self.time]
            for dose in arrived:
                self.give(dose)
            if self.time == to and not arrived:
                return

    def give(self, dose: Dose) -> None:
        if dose.duration > 0:
            self.running.append((self.time + dose.duration, dose.amount / dose.duration))
        else:
            self.amounts = self.amounts + dose.amount

    def _flow(self, time: float, K: np.ndarray, b: np.ndarray | float) -> None:
        transition, response = flow(K.tobytes(), len(K), round(time, 12))
        self.amounts = transition @ self.amounts + response @ sum((rate for _, rate in self.running), start=b + np.zeros(len(K)))


@lru_cache(maxsize=100_000)
def flow(K: bytes, size: int, time: float) -> tuple[np.ndarray, np.ndarray]:
    """exp(K t) and its integral from 0 to t, the upper blocks of the exponential of [[K, I], [0, 0]] t."""
    blocks = np.zeros((2 * size, 2 * size))
    blocks[:size, :size], blocks[:size, size:] = np.frombuffer(K).reshape(size, size), np.eye(size)
    found = expm(blocks * time)
    return found[:size, :size], found[:size, size:]


def steady(record: Mapping, K: np.ndarray, dose: Dose, constant: np.ndarray) -> System:
    """What there is at the record: doses at the interval II since long ago, or an input that began long ago and ends now."""
    time, interval = record["TIME"], record["II"]
    system = System(np.zeros(len(K)), time - EARLIER_DOSES * (interval or 24.0))
    if record["AMT"] == 0:
        system.running = [(time, constant)]
    else:
        system.coming = [(time - k * interval + dose.lag, dose) for k in range(1, EARLIER_DOSES + 1)]
    system.advance(time, K)
    return system


def simulate(
    records: Iterable[Mapping],
    matrix: Callable[[Mapping], np.ndarray],
    dose_of: Callable[[Mapping], Dose],
    rule: str = "nocb",
    initial: Callable[[Mapping], np.ndarray] | None = None,
) -> np.ndarray:
    """Amounts just after each record (n, c). `matrix` and `dose_of` read a record with its covariates."""
    records = list(records)
    size = len(matrix(records[0]))

    def at_first(record: Mapping) -> np.ndarray:
        return np.zeros(size) if initial is None else initial(records[0])

    system, result, before = System(at_first(records[0]), records[0]["TIME"]), [], records[0]
    for record in records:
        time, dosed, reset = record["TIME"], record["EVID"] in (1, 4), record["EVID"] in (3, 4)
        if not reset or time >= system.time:
            system.advance(time, matrix(record if rule == "nocb" else before))
        if reset:
            system = System(at_first(record), time)
        if dosed:
            dose = dose_of(record)
            if record["SS"] > 0:
                into = np.eye(size)[record["CMT"] - 1]
                found = steady(record, matrix(record), dose, record["RATE"] * into)
                if record["SS"] == 1:
                    system = System(np.zeros(size), time)
                system.amounts = system.amounts + found.amounts
                system.running += found.running
            for k in range(record["ADDL"] + 1):
                if k == 0 and dose.lag == 0:
                    system.give(dose)
                else:
                    system.coming.append((time + k * record["II"] + dose.lag, dose))
        result.append(system.amounts)
        before = record
    return np.array(result)
