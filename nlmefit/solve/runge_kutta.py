"""One step of an explicit Runge-Kutta method. The coefficients are diffrax's; unrolled, a step costs half of its driver's."""

from typing import Any

import diffrax
import numpy as np

from nlmefit.solve.jets import Jet
from nlmefit.solve.ode import Field

ORDER = 5
_TABLEAU = diffrax.Tsit5.tableau
_NODES = (0.0, *map(float, _TABLEAU.c))


def tsit5(f: Field, t: Jet, A: Jet, h: Jet) -> tuple[Jet, Any]:
    """Tsitouras' 5(4) pair (2011)."""
    slopes = [f(t, A)]
    for node, row in zip(_NODES[1:], _TABLEAU.a_lower, strict=True):
        slopes.append(f(t + node * h, A + h * _combined(row, slopes)))
    error = _combined(_TABLEAU.b_error, [k.value for k in slopes])
    return A + h * _combined(_TABLEAU.b_sol, slopes), h.value * error


def _combined(weights: np.ndarray, slopes: list[Any]) -> Any:
    terms = [float(w) * k for w, k in zip(weights, slopes, strict=True) if w != 0]
    return sum(terms[1:], terms[0])
