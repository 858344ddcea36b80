"""One step of an explicit Runge-Kutta method. The coefficients are diffrax's; unrolled, a step costs half of its driver's."""

from collections.abc import Callable
from typing import Any

import diffrax
import numpy as np

Step = Callable[[Callable[[Any, Any], Any], Any, Any, Any], tuple[Any, Any]]
"""(f, t, A, h) -> A after the step h, and the estimate of its error."""

ORDER = 5
_TABLEAU = diffrax.Tsit5.tableau
_NODES = (0.0, *map(float, _TABLEAU.c))


def tsit5(f: Callable[[Any, Any], Any], t: Any, A: Any, h: Any) -> tuple[Any, Any]:
    """Tsitouras' 5(4) pair (2011)."""
    slopes = [f(t, A)]
    for node, row in zip(_NODES[1:], _TABLEAU.a_lower, strict=True):
        slopes.append(f(t + node * h, A + h * _combined(row, slopes)))
    return A + h * _combined(_TABLEAU.b_sol, slopes), h * _combined(_TABLEAU.b_error, slopes)


def _combined(weights: np.ndarray, slopes: list[Any]) -> Any:
    terms = [float(w) * k for w, k in zip(weights, slopes, strict=True) if w != 0]
    return sum(terms[1:], terms[0])
