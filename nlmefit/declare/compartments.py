"""Compartment models whose amounts have a closed form, as values to assign to `dynamics`.

Parameters are read by name from the individual parameters (NONMEM's TRANS4 names), those of absorption beside them:

| model | parameters of disposition |
|---|---|
| OneCompartment | CL, V |
| TwoCompartment | CL, V1, Q, V2 |
| ThreeCompartment | CL, V1, Q2, V2, Q3, V3 |
"""

from dataclasses import dataclass
from typing import Any, final

from nlmefit.declare.library.absorption import Absorption, absorption_value
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values


class AbstractCompartments(AbstractPharmacokinetics):
    """A mammillary model: a central compartment, peripheral ones around it, and what is in front of it for absorption."""

    peripherals: tuple[str, ...]

    @property
    def body(self) -> tuple[str, ...]:
        return ("central", *self.peripherals)

    @property
    def closed_form(self) -> bool:
        """Whether the amounts have a closed form, which they have unless `absorption` is a value of its own."""
        return self.absorption in (None, "first-order", "zero-order")

    def concentration(self, A: Values, p: Values) -> Any:
        return A["central"] / p[self.disposition[1]]

    def disposition_rates(self, A: Values, p: Values) -> dict[str, Any]:
        clearance, volume = self.disposition[:2]
        rates = {"central": -p[clearance] / p[volume] * A["central"]}
        for flow, size, name in zip(self.disposition[2::2], self.disposition[3::2], self.peripherals, strict=True):
            out, back = p[flow] / p[volume] * A["central"], p[flow] / p[size] * A[name]
            rates["central"] = rates["central"] - out + back
            rates[name] = out - back
        return rates


@final
@dataclass(frozen=True)
class OneCompartment(AbstractCompartments):
    """dA/dt = input - CL/V A. Doses go to the first compartment unless CMT says otherwise."""

    absorption: Absorption = None
    disposition = ("CL", "V")
    peripherals = ()

    def __post_init__(self) -> None:
        absorption_value(self.absorption)


@final
@dataclass(frozen=True)
class TwoCompartment(AbstractCompartments):
    """Central and one peripheral compartment, exchange flow Q."""

    absorption: Absorption = None
    disposition = ("CL", "V1", "Q", "V2")
    peripherals = ("peripheral",)

    def __post_init__(self) -> None:
        absorption_value(self.absorption)


@final
@dataclass(frozen=True)
class ThreeCompartment(AbstractCompartments):
    """Central and two peripheral compartments, exchange flows Q2 and Q3."""

    absorption: Absorption = None
    disposition = ("CL", "V1", "Q2", "V2", "Q3", "V3")
    peripherals = ("peripheral1", "peripheral2")

    def __post_init__(self) -> None:
        absorption_value(self.absorption)
