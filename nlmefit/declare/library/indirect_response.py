"""Drugs that change the production or the loss of a response."""

from dataclasses import dataclass
from typing import Any, Literal, final

import jax
import jax.numpy as jnp

from nlmefit.declare.library.checks import check_flag, check_one_of
from nlmefit.declare.library.pharmacodynamics import AbstractPharmacodynamics, check_pk
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values


@final
@dataclass(frozen=True)
class IndirectResponse(AbstractPharmacodynamics):
    """The four basic indirect responses (Dayneka, Garg and Jusko 1993; Jusko and Ko 1994).

    | kind | the drug | dR/dt | parameters |
    |---|---|---|---|
    | 1 | inhibits production | kin (1 - H) - kout R | Imax, IC50 |
    | 2 | inhibits loss | kin - kout (1 - H) R | Imax, IC50 |
    | 3 | stimulates production | kin (1 + H) - kout R | Emax, EC50 |
    | 4 | stimulates loss | kin - kout (1 + H) R | Emax, EC50 |

        H = Imax C/(IC50 + C), or with `sigmoid` H = Imax C^gamma/(IC50^gamma + C^gamma); Emax and EC50 in their place
        kin = base kout,  R(0) = base, the response without drug

    The compartment `response` holds R. Reads base (unit of the response), kout (per time), Imax (no unit, up to 1) and IC50, or
    Emax (no unit) and EC50 (unit of C), gamma if `sigmoid`, and the parameters of `pk`. Raises ModelError for any other kind,
    and if `pk` is no pharmacokinetic model.
    """

    kind: Literal[1, 2, 3, 4]
    pk: AbstractPharmacokinetics
    sigmoid: bool = False
    states = ("response",)

    def __post_init__(self) -> None:
        check_one_of(self, "kind", self.kind, (1, 2, 3, 4))
        check_pk(self, self.pk)
        check_flag(self, "sigmoid", self.sigmoid)

    @property
    def effect_parameters(self) -> tuple[str, ...]:
        return ("base", "kout", *self._largest_and_half, *(("gamma",) if self.sigmoid else ()))

    @property
    def _largest_and_half(self) -> tuple[str, str]:
        return ("Imax", "IC50") if self.kind in (1, 2) else ("Emax", "EC50")

    def effect_rates(self, C: Any, A: Values, p: Values) -> dict[str, Any]:
        largest, half = (p[name] for name in self._largest_and_half)
        H = largest * (hill(C, half, p["gamma"]) if self.sigmoid else C / (half + C))
        change = 1 - H if self.kind in (1, 2) else 1 + H
        kin, loss = p["base"] * p["kout"], p["kout"] * A["response"]
        return {"response": kin * change - loss if self.kind in (1, 3) else kin - change * loss}

    def baseline(self, p: Values) -> dict[str, Any]:
        return {"response": p["base"]}


def hill(C: Any, half: Any, gamma: Any) -> Any:
    """C^gamma/(half^gamma + C^gamma) (Hill 1910); 0, as are its derivatives, for C <= 0.

    By the logistic function of gamma log(C/half), which neither overflows nor has a power's infinite derivatives at 0. Below
    C/half = 1e-100 it is 0: there the derivatives of the logarithm are near overflow, and any effect is lost in rounding.
    """
    ratio = C / half
    present = ratio > 1e-100
    return jnp.where(present, jax.nn.sigmoid(gamma * jnp.log(jnp.where(present, ratio, 1.0))), 0.0)
