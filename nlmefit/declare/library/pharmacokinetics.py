"""What all pharmacokinetic models share: absorption, disposition, and the concentration in the central compartment."""

import abc
from typing import Any

from nlmefit.declare.dynamics import AbstractDynamics, Route
from nlmefit.declare.library.absorption import Absorption, AbstractAbsorption, absorption_value
from nlmefit.declare.namespace import Values


class AbstractPharmacokinetics(AbstractDynamics):
    """Absorption in front of `central`, and the disposition of the drug from there on.

    Subclasses have the field `absorption`; `central` is the first compartment of their `body`.
    """

    absorption: Absorption

    @property
    @abc.abstractmethod
    def disposition(self) -> tuple[str, ...]:
        """Names of the parameters beyond those of absorption."""

    @property
    @abc.abstractmethod
    def body(self) -> tuple[str, ...]:
        """Names of the compartments after those of absorption."""

    @abc.abstractmethod
    def disposition_rates(self, A: Values, p: Values) -> dict[str, Any]:
        """dA/dt of the compartments of `body`, without what is absorbed."""

    @abc.abstractmethod
    def concentration(self, A: Values, p: Values) -> Any:
        """Concentration of (free) drug in the central compartment, unit of amount by unit of volume."""

    @property
    def absorbing(self) -> AbstractAbsorption:
        """`absorption` as a value, also where it was given by its name."""
        return absorption_value(self.absorption)

    @property
    def compartments(self) -> tuple[str, ...]:
        return (*self.absorbing.front, *self.body)

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.disposition, *self.absorbing.parameters)

    def derivatives(self, t: Any, A: Values, p: Values) -> dict[str, Any]:
        absorbed, rates = self.absorbing.derivatives(A, p), self.disposition_rates(A, p)
        if "central" in absorbed:
            rates["central"] = absorbed["central"] + rates["central"]
        return {name: rates[name] if name in rates else absorbed[name] for name in self.compartments}

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        return self.absorbing.routes(p)
