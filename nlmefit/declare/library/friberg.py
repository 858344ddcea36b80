"""Myelosuppression by chemotherapy."""

from dataclasses import dataclass
from typing import Any, Literal, final

import jax.numpy as jnp

from nlmefit.declare.library.checks import check_one_of
from nlmefit.declare.library.pharmacodynamics import AbstractPharmacodynamics, check_pk
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values

SMALLEST = 1e-10
"""Circulating cells as a part of Circ0, below which the feedback grows no more."""


@final
@dataclass(frozen=True)
class Friberg(AbstractPharmacodynamics):
    """Proliferating cells P that a drug acts on, three stages of maturation M1 to M3, circulating cells N, and a feedback from
    these to proliferation (Friberg, Henningsson, Maas, Nguyen and Karlsson 2002).

        dP/dt = ktr P (1 - E) (Circ0/N)^gamma - ktr P,  ktr = 4/MTT
        dM1/dt = ktr (P - M1),  dM2/dt = ktr (M1 - M2),  dM3/dt = ktr (M2 - M3)
        dN/dt = ktr (M3 - N)
        E = slope C, or with effect "emax" E = Emax C/(EC50 + C)

    All start at Circ0. The compartments are `proliferating`, `maturing1`, `maturing2`, `maturing3` and `circulating`. Below
    1e-10 Circ0 the feedback stays as it is there. Reads Circ0 (cells per volume), MTT (time), gamma (no unit), slope (inverse
    of C's unit) or Emax (no unit) and EC50, and the parameters of `pk`. Raises ModelError for any other effect, and if `pk` is
    no pharmacokinetic model.
    """

    pk: AbstractPharmacokinetics
    effect: Literal["linear", "emax"] = "linear"
    states = ("proliferating", "maturing1", "maturing2", "maturing3", "circulating")

    def __post_init__(self) -> None:
        check_pk(self, self.pk)
        check_one_of(self, "effect", self.effect, ("linear", "emax"))

    @property
    def effect_parameters(self) -> tuple[str, ...]:
        return ("Circ0", "MTT", "gamma", *(("slope",) if self.effect == "linear" else ("Emax", "EC50")))

    def effect_rates(self, C: Any, A: Values, p: Values) -> dict[str, Any]:
        effect = p["slope"] * C if self.effect == "linear" else p["Emax"] * C / (p["EC50"] + C)
        ktr = 4 / p["MTT"]
        feedback = jnp.maximum(A["circulating"] / p["Circ0"], SMALLEST) ** -p["gamma"]
        first, *later = self.states
        rates = {first: ktr * A[first] * ((1 - effect) * feedback - 1)}
        return rates | {name: ktr * (A[before] - A[name]) for before, name in zip(self.states, later)}

    def baseline(self, p: Values) -> dict[str, Any]:
        return dict.fromkeys(self.states, p["Circ0"])
