"""Target-mediated drug disposition."""

from dataclasses import dataclass
from typing import Any, Literal, final

import jax.numpy as jnp

from nlmefit.declare.library.absorption import Absorption, absorption_value
from nlmefit.declare.library.checks import check_flag, check_one_of
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values


@final
@dataclass(frozen=True)
class TMDD(AbstractPharmacokinetics):
    """A drug that binds to its target in the central volume, where the bound drug is internalized with the target.

    "full" (Mager and Jusko 2001): C = central/V is free drug, R free target, RC their complex, as concentrations,

        dcentral/dt = input - CL C - V (kon C R - koff RC)
        dR/dt = kdeg (R0 - R) - kon C R + koff RC
        dRC/dt = kon C R - (koff + kint) RC.

    "QSS", the complex in a quasi-steady state (Gibiansky, Gibiansky, Kakkar and Ma 2008), KSS = (koff + kint)/kon: `central` is
    the amount of free and bound drug, R the free and bound target, Ctot = central/V,

        C = ((Ctot - R - KSS) + sqrt((Ctot - R - KSS)^2 + 4 KSS Ctot))/2,  RC = R C/(KSS + C)
        dcentral/dt = input - CL C - V kint RC
        dR/dt = kdeg (R0 - R) - (kint - kdeg) RC.

    The compartments are `central` (amount), `target` (R) and, in "full", `complex` (RC); at first R = R0, so that the target is
    made at the rate ksyn = kdeg R0. With `peripheral`, which follows `central`, free drug is exchanged at the flow Q and the
    volumes are V1 and V2 as in nm.TwoCompartment. `concentration(A, p)` is that of free drug, for `observe`.

    Amounts of drug and target are counted in the same unit (nmol). Reads CL, V (or V1, Q, V2), R0, kdeg, kint, and kon (per
    concentration and time) and koff, or KSS (a concentration), and the parameters of `absorption`. Raises ModelError for any
    other argument.
    """

    approximation: Literal["full", "QSS"] = "full"
    absorption: Absorption = None
    peripheral: bool = False

    def __post_init__(self) -> None:
        check_one_of(self, "approximation", self.approximation, ("full", "QSS"))
        absorption_value(self.absorption)
        check_flag(self, "peripheral", self.peripheral)

    @property
    def body(self) -> tuple[str, ...]:
        bound = ("target", "complex") if self.approximation == "full" else ("target",)
        return ("central", *(("peripheral",) if self.peripheral else ()), *bound)

    @property
    def disposition(self) -> tuple[str, ...]:
        volumes = ("V1", "Q", "V2") if self.peripheral else ("V",)
        binding = ("kon", "koff") if self.approximation == "full" else ("KSS",)
        return ("CL", *volumes, "R0", "kdeg", "kint", *binding)

    def concentration(self, A: Values, p: Values) -> Any:
        C = A["central"] / self._volume(p)
        return C if self.approximation == "full" else free_concentration(C, A["target"], p["KSS"])

    def disposition_rates(self, A: Values, p: Values) -> dict[str, Any]:
        C, R = self.concentration(A, p), A["target"]
        made = p["kdeg"] * (p["R0"] - R)
        if self.approximation == "full":
            bound = p["kon"] * C * R - p["koff"] * A["complex"]
            rates = {"target": made - bound, "complex": bound - p["kint"] * A["complex"]}
        else:
            RC = R * C / (p["KSS"] + C)
            bound = p["kint"] * RC
            rates = {"target": made - (p["kint"] - p["kdeg"]) * RC}
        rates["central"] = -p["CL"] * C - self._volume(p) * bound
        if self.peripheral:
            rates["peripheral"] = p["Q"] * (C - A["peripheral"] / p["V2"])
            rates["central"] = rates["central"] - rates["peripheral"]
        return rates

    def initial(self, p: Values) -> dict[str, Any]:
        return {"target": p["R0"]}

    def _volume(self, p: Values) -> Any:
        return p["V1" if self.peripheral else "V"]


def free_concentration(total: Any, target: Any, KSS: Any) -> Any:
    """Free drug of a total concentration: the positive root C of C^2 + b C - KSS total = 0, b = target + KSS - total.

    The root is (-b + s)/2 or, which is the same, 2 KSS total/(b + s): the one is taken where nothing cancels. The square of s,
    b^2 + 4 KSS total, is written as a sum of positive terms, so that rounding never makes it negative.
    """
    b = (target - total) + KSS  # in this order: where the target is just saturated, a small KSS would be rounded away
    s = jnp.sqrt(((total - target) + KSS) ** 2 + 4 * KSS * target)
    scarce = b > 0
    q = jnp.where(scarce, b, -b) + s
    return jnp.where(scarce, 2 * KSS * total / q, q / 2)
