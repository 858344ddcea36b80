"""Compartment models whose amounts have a closed form, as values to assign to `dynamics`.

Parameters are read by name from the individual parameters (NONMEM's TRANS4 names):

| model | disposition | absorption |
|---|---|---|
| OneCompartment | CL, V | ka (first-order) or Tk0 (zero-order) |
| TwoCompartment | CL, V1, Q, V2 | the same |
| ThreeCompartment | CL, V1, Q2, V2, Q3, V3 | the same |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from nlmefit.errors import ModelError

Absorption = Literal["first-order", "zero-order"] | None


class AbstractCompartments:
    """A mammillary model: a central compartment, peripheral ones around it, a depot in front if absorbed."""

    absorption: Absorption
    disposition: tuple[str, ...]
    peripherals: tuple[str, ...]

    @property
    def compartments(self) -> tuple[str, ...]:
        """Names in order of CMT number: depot (if any), central, peripherals."""
        depot = ("depot",) if self.absorption == "first-order" else ()
        return (*depot, "central", *self.peripherals)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the individual parameters that the model reads."""
        extra = {"first-order": ("ka",), "zero-order": ("Tk0",), None: ()}[self.absorption]
        return (*self.disposition, *extra)

    def derivatives(self, A: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        """dA/dt by compartment between doses, from amounts and individual parameters by name."""
        clearance, volume = self.disposition[:2]
        rates = {"central": -p[clearance] / p[volume] * A["central"]}
        for flow, size, name in zip(self.disposition[2::2], self.disposition[3::2], self.peripherals, strict=True):
            out, back = p[flow] / p[volume] * A["central"], p[flow] / p[size] * A[name]
            rates["central"] = rates["central"] - out + back
            rates[name] = out - back
        if self.absorption == "first-order":
            rates["depot"] = -p["ka"] * A["depot"]
            rates["central"] = p["ka"] * A["depot"] + rates["central"]
        return {name: rates[name] for name in self.compartments}


def _check_absorption(absorption: Absorption) -> None:
    if absorption not in (None, "first-order", "zero-order"):
        raise ModelError(f"absorption must be None, 'first-order' or 'zero-order', got {absorption!r}.")


@final
@dataclass(frozen=True)
class OneCompartment(AbstractCompartments):
    """dA/dt = input - CL/V A. Doses go to `depot` (first-order) or `central`, unless CMT says otherwise."""

    absorption: Absorption = None
    disposition = ("CL", "V")
    peripherals = ()

    def __post_init__(self) -> None:
        _check_absorption(self.absorption)


@final
@dataclass(frozen=True)
class TwoCompartment(AbstractCompartments):
    """Central and one peripheral compartment, exchange flow Q."""

    absorption: Absorption = None
    disposition = ("CL", "V1", "Q", "V2")
    peripherals = ("peripheral",)

    def __post_init__(self) -> None:
        _check_absorption(self.absorption)


@final
@dataclass(frozen=True)
class ThreeCompartment(AbstractCompartments):
    """Central and two peripheral compartments, exchange flows Q2 and Q3."""

    absorption: Absorption = None
    disposition = ("CL", "V1", "Q2", "V2", "Q3", "V3")
    peripherals = ("peripheral1", "peripheral2")

    def __post_init__(self) -> None:
        _check_absorption(self.absorption)
