"""Growth of a tumour, and its inhibition by a drug."""

from dataclasses import dataclass
from typing import Any, Literal, final

import jax.numpy as jnp

from nlmefit.declare.library.checks import check_one_of
from nlmefit.declare.library.pharmacodynamics import AbstractPharmacodynamics, check_pk
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values

PSI = 20
"""How sharply Simeoni's growth changes from exponential to linear; the value that the paper fixes."""
_PARAMETERS = {
    "exponential": ("kgrow",),
    "logistic": ("kgrow", "wmax"),
    "gompertz": ("kgrow", "wmax"),
    "simeoni": ("lambda0", "lambda1"),
}


@final
@dataclass(frozen=True)
class TumourGrowth(AbstractPharmacodynamics):
    """Size w of a tumour over time; without `pk`, its growth without drug.

    | law | growth g(w) | source |
    |---|---|---|
    | exponential | kgrow w | Skipper, Schabel and Wilcox 1964 |
    | logistic | kgrow w (1 - w/wmax) | Verhulst 1838 |
    | gompertz | kgrow w log(wmax/w) | Laird 1964 |
    | simeoni | lambda0 x1/(1 + (lambda0 w/lambda1)^psi)^(1/psi), psi = 20 | Simeoni et al. 2004 |

    In the first three the drug kills in proportion to its concentration C (Skipper, Schabel and Wilcox 1964) and the compartment
    is `tumour`:

        dw/dt = g(w) - kkill C w,  w(0) = w0.

    In Simeoni's, exponential growth at the rate lambda0 becomes linear growth of lambda1 per time, and damaged cells pass three
    more stages before they die; w = x1 + x2 + x3 + x4 is `size(A)`, for `observe`:

        dx1/dt = g(w) - k2 C x1,  x1(0) = w0
        dx2/dt = k2 C x1 - k1 x2,  dx3/dt = k1 (x2 - x3),  dx4/dt = k1 (x3 - x4).

    Its compartments are `x1` to `x4`, or `x1` without `pk`. Reads w0 and wmax (size), kgrow and lambda0 (per time), lambda1
    (size per time), with `pk` kkill or k2 (per time and unit of C) and k1 (per time), and the parameters of `pk`. Raises
    ModelError for any other law, and if `pk` is neither None nor a pharmacokinetic model.
    """

    law: Literal["exponential", "logistic", "gompertz", "simeoni"] = "exponential"
    pk: AbstractPharmacokinetics | None = None

    def __post_init__(self) -> None:
        check_one_of(self, "law", self.law, tuple(_PARAMETERS))
        if self.pk is not None:
            check_pk(self, self.pk)

    @property
    def states(self) -> tuple[str, ...]:
        if self.law != "simeoni":
            return ("tumour",)
        return ("x1",) if self.pk is None else ("x1", "x2", "x3", "x4")

    @property
    def effect_parameters(self) -> tuple[str, ...]:
        killing = ("k1", "k2") if self.law == "simeoni" else ("kkill",)
        return ("w0", *_PARAMETERS[self.law], *(killing if self.pk else ()))

    def size(self, A: Values) -> Any:
        """Size of the whole tumour, dying cells included."""
        return sum((A[name] for name in self.states[1:]), A[self.states[0]])

    def effect_rates(self, C: Any, A: Values, p: Values) -> dict[str, Any]:
        first, *dying = self.states
        alive = A[first]
        growth = alive * self._relative_growth(self.size(A), p)
        if self.pk is None:
            return {first: growth}
        killed = p["k2" if dying else "kkill"] * C * alive
        rates, arriving = {first: growth - killed}, killed
        for name in dying:
            leaving = p["k1"] * A[name]
            rates[name], arriving = arriving - leaving, leaving
        return rates

    def _relative_growth(self, w: Any, p: Values) -> Any:
        """Growth of a unit of living tumour."""
        if self.law == "exponential":
            return p["kgrow"]
        if self.law == "logistic":
            return p["kgrow"] * (1 - w / p["wmax"])
        if self.law == "gompertz":  # w log w is 0 at w = 0, its logarithm is not
            return -p["kgrow"] * jnp.log(jnp.maximum(w / p["wmax"], 1e-30))
        return p["lambda0"] * slowing(p["lambda0"] * w / p["lambda1"])

    def baseline(self, p: Values) -> dict[str, Any]:
        return {self.states[0]: p["w0"]}


def slowing(r: Any) -> Any:
    """(1 + r^psi)^(-1/psi): 1 for small r, 1/r for large. For r > 1 as (1 + r^-psi)^(-1/psi)/r, which does not overflow."""
    large = r > 1
    inverse = 1 / jnp.where(large, r, 1.0)
    return jnp.where(large, inverse, 1.0) * (1 + jnp.where(large, inverse, r) ** PSI) ** (-1 / PSI)
