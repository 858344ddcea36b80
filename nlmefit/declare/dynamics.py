"""What every structural model says of itself: compartments, parameters, derivatives, routes of its doses."""

import abc
from dataclasses import dataclass
from typing import Any, final

from nlmefit.declare.namespace import Values


@final
@dataclass(frozen=True)
class Route:
    """A way that a dose into a compartment takes.

    `into` names the compartment that the drug arrives in, `share` the part of the dose that goes this way, `lag` a delay
    beyond the dose's own. `duration` makes a bolus a zero-order input of that length. `transit = (n, ktr)` lets the dose
    arrive as a gamma density of time since the dose, ktr (ktr t)^n exp(-ktr t) / Gamma(n + 1) (Savic 2007).
    """

    into: str
    share: Any = None
    lag: Any = None
    duration: Any = None
    transit: tuple[Any, Any] | None = None


class AbstractDynamics(abc.ABC):
    """A structural model as a value: dA/dt = derivatives(t, A, p) + input of doses, A(0) = initial(p)."""

    @property
    @abc.abstractmethod
    def compartments(self) -> tuple[str, ...]:
        """Names in order of CMT number; CMT 1 is where doses go by default."""

    @property
    @abc.abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the individual parameters that the model reads."""

    @abc.abstractmethod
    def derivatives(self, t: Any, A: Values, p: Values) -> dict[str, Any]:
        """dA/dt by compartment between doses, from amounts and individual parameters by name."""

    @property
    def integrals(self) -> int:
        """How many of the compartments, the last ones, only add up what they see of the others: they have no steady state."""
        return 0

    def initial(self, p: Values) -> dict[str, Any]:
        """Amounts at the first record and after a reset, by compartment; 0 where none is given."""
        return {}

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        """The routes of doses, by the compartment that they are given to; a dose goes straight there where none is given."""
        return {}
