"""An effect site that equilibrates with plasma."""

from dataclasses import dataclass
from typing import Any, final

from nlmefit.declare.library.pharmacodynamics import AbstractPharmacodynamics, check_pk
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values


@final
@dataclass(frozen=True)
class EffectCompartment(AbstractPharmacodynamics):
    """A hypothetical effect site whose concentration Ce follows that in plasma (Sheiner, Stanski, Vozeh, Miller and Ham 1979).

        dCe/dt = ke0 (C - Ce),  Ce(0) = 0

    The compartment `effect` holds Ce, a concentration in the unit of C; it takes no drug from `pk`. Linear where `pk` is.
    Reads ke0 (per time) and the parameters of `pk`. Raises ModelError if `pk` is no pharmacokinetic model.
    """

    pk: AbstractPharmacokinetics
    states = ("effect",)
    effect_parameters = ("ke0",)

    def __post_init__(self) -> None:
        check_pk(self, self.pk)

    def effect_rates(self, C: Any, A: Values, p: Values) -> dict[str, Any]:
        return {"effect": p["ke0"] * (C - A["effect"])}

    def baseline(self, p: Values) -> dict[str, Any]:
        return {}
