"""Modelled properties of the doses into one compartment."""

from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Dosing:
    """What happens to doses into a compartment, as functions of the individual parameters.

    `lag` delays every dose; `bioavailability` multiplies every amount (for an infusion of given rate it stretches
    the duration, as in NONMEM); `rate` is used where RATE is -1; `duration` where RATE is -2.
    """

    lag: Any = None
    bioavailability: Any = None
    rate: Any = None
    duration: Any = None
