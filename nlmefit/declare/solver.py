"""How the amounts of a model are computed, as values to assign to `solver`. Without one, the choice is automatic:

1. one, two and three compartments in closed form (`ClosedForm`);
2. other dynamics that are linear in the amounts, seen by their Jacobian, by the `MatrixExponential`;
3. all others by an explicit `RungeKutta` method, or by `Rosenbrock`'s where that takes too many steps (a stiff system).
"""

import math
from dataclasses import dataclass
from typing import Any, final

from nlmefit.core.errors import ModelError


class AbstractSolver:
    """A way to compute amounts over time."""


@final
@dataclass(frozen=True)
class Automatic(AbstractSolver):
    """The first of the above that the model allows."""


@final
@dataclass(frozen=True)
class ClosedForm(AbstractSolver):
    """Exact: sums of exponentials. For nm.OneCompartment, nm.TwoCompartment and nm.ThreeCompartment."""


@final
@dataclass(frozen=True)
class MatrixExponential(AbstractSolver):
    """Exact: exp(K t) between events. For dynamics that are linear in the amounts, with coefficients that do not change in
    time but from record to record."""


class AbstractStepping(AbstractSolver):
    """Solvers of differential equations by steps of controlled error."""

    rtol: float
    atol: float
    max_steps: int

    def __post_init__(self) -> None:
        name = type(self).__name__
        for field in ("rtol", "atol"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not math.isfinite(value) or not 0 < value < 1:
                raise ModelError(f"{name}'s {field} must lie between 0 and 1, got {value!r}.")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ModelError(f"{name}'s max_steps must be a whole number from 1 up, got {self.max_steps!r}.")


@final
@dataclass(frozen=True)
class RungeKutta(AbstractStepping):
    """Explicit Runge-Kutta 5(4) (Tsitouras 2011), for systems that are not stiff.

    The error of each step is kept below rtol |A| + atol max |A| by compartment, the maximum being over the time so far:
    the tolerance does not depend on units. A subject that needs more than `max_steps` steps gives NaN, which is counted.
    """

    rtol: float = 1e-7
    atol: float = 1e-12
    max_steps: int = 5000


@final
@dataclass(frozen=True)
class Rosenbrock(AbstractStepping):
    """Rosenbrock 5(4), stiffly accurate (Rodas5P, Steinebach 2023), for stiff systems. Tolerances as for `RungeKutta`."""

    rtol: float = 1e-6
    atol: float = 1e-12
    max_steps: int = 5000


@final
@dataclass(frozen=True)
class Diffrax(AbstractStepping):
    """diffrax's own driver from event to event, with any of its solvers (None: Tsit5). Slower; a reference."""

    solver: Any = None
    rtol: float = 1e-7
    atol: float = 1e-12
    max_steps: int = 5000
