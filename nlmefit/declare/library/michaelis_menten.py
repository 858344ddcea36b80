"""Saturable elimination."""

from dataclasses import dataclass
from typing import Any, final

from nlmefit.declare.library.absorption import Absorption, absorption_value
from nlmefit.declare.library.checks import check_flag
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values


@final
@dataclass(frozen=True)
class MichaelisMenten(AbstractPharmacokinetics):
    """Elimination by a process that saturates (Michaelis and Menten 1913; in pharmacokinetics Lundquist and Wolthers 1958).

        dcentral/dt = input - Vmax C/(Km + C),  C = central/V,

    with Vmax in amount per time, Km and C in amount per volume. With `linear`, a clearance CL stands beside it: - CL C. With
    `peripheral`, a second compartment exchanges drug at the flow Q, and the volumes are V1 and V2 as in nm.TwoCompartment:

        dperipheral/dt = Q (C - peripheral/V2),  and the same subtracted from central.

    Reads Vmax, Km, CL if `linear`, V (or V1, Q, V2), and the parameters of `absorption`. Raises ModelError for any other
    argument.
    """

    absorption: Absorption = None
    linear: bool = False
    peripheral: bool = False

    def __post_init__(self) -> None:
        absorption_value(self.absorption)
        check_flag(self, "linear", self.linear)
        check_flag(self, "peripheral", self.peripheral)

    @property
    def body(self) -> tuple[str, ...]:
        return ("central", "peripheral") if self.peripheral else ("central",)

    @property
    def disposition(self) -> tuple[str, ...]:
        return ("Vmax", "Km", *(("CL",) if self.linear else ()), *(("V1", "Q", "V2") if self.peripheral else ("V",)))

    def concentration(self, A: Values, p: Values) -> Any:
        return A["central"] / p["V1" if self.peripheral else "V"]

    def disposition_rates(self, A: Values, p: Values) -> dict[str, Any]:
        C = self.concentration(A, p)
        rate = -p["Vmax"] * C / (p["Km"] + C)
        if self.linear:
            rate = rate - p["CL"] * C
        if not self.peripheral:
            return {"central": rate}
        exchange = p["Q"] * (C - A["peripheral"] / p["V2"])
        return {"central": rate - exchange, "peripheral": exchange}
