"""Residual models: the variance of an observation around its prediction f.

All parameters are standard deviations (or coefficients of variation), never variances.
"""

import abc
from dataclasses import dataclass
from typing import Any, final

from nlmefit.core.errors import ModelError
from nlmefit.declare.values import check_unit, is_fixed, number


class AbstractResidual(abc.ABC):
    """y = f + eps,  eps ~ N(0, variance(f))."""

    @property
    @abc.abstractmethod
    def unit(self) -> str:
        """Of the observation."""

    @abc.abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Name (without the endpoint) -> start or Fixed."""

    @abc.abstractmethod
    def variance(self, f: Any, values: dict[str, Any]) -> Any:
        """Variance at prediction f, same shape."""

    def __add__(self, other: "AbstractResidual") -> "Combined":
        if not isinstance(other, AbstractResidual):
            raise ModelError(f"A residual model can only be added to another one, got {other!r}.")
        return Combined(_parts(self) + _parts(other))


def _parts(residual: AbstractResidual) -> tuple[AbstractResidual, ...]:
    return residual.terms if isinstance(residual, Combined) else (residual,)


def _positive(value: Any, what: str) -> None:
    lowest = number(value, what)
    if lowest < 0 or (lowest == 0 and not is_fixed(value)):
        raise ModelError(f"{what} must be above 0, got {lowest}.")


@final
@dataclass(frozen=True)
class Additive(AbstractResidual):
    """Var(eps) = a^2; parameter `ENDPOINT_additive`, in the unit of the observation."""

    value: Any
    unit: str = ""

    def __post_init__(self) -> None:
        check_unit(self)
        _positive(self.value, "Additive's sd")

    def parameters(self) -> dict[str, Any]:
        return {"additive": self.value}

    def variance(self, f: Any, values: dict[str, Any]) -> Any:
        return values["additive"] ** 2 + 0.0 * f


@final
@dataclass(frozen=True)
class Proportional(AbstractResidual):
    """Var(eps) = (b f)^2; parameter `ENDPOINT_proportional`, dimensionless."""

    value: Any
    unit: str = ""

    def __post_init__(self) -> None:
        check_unit(self)
        _positive(self.value, "Proportional's coefficient")

    def parameters(self) -> dict[str, Any]:
        return {"proportional": self.value}

    def variance(self, f: Any, values: dict[str, Any]) -> Any:
        return (values["proportional"] * f) ** 2


@final
@dataclass(frozen=True)
class PowerError(AbstractResidual):
    """Var(eps) = (b f^c)^2 with f > 0; parameters `ENDPOINT_power` (b) and `ENDPOINT_exponent` (c)."""

    value: Any
    exponent: Any = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        check_unit(self)
        _positive(self.value, "PowerError's coefficient")
        _positive(self.exponent, "PowerError's exponent")

    def parameters(self) -> dict[str, Any]:
        return {"power": self.value, "exponent": self.exponent}

    def variance(self, f: Any, values: dict[str, Any]) -> Any:
        return (values["power"] * f ** values["exponent"]) ** 2


@final
@dataclass(frozen=True)
class CombinedSD(AbstractResidual):
    """Var(eps) = (a + b |f|)^2: the standard deviations add (Monolix's combined1).

    `Additive(a) + Proportional(b)` is the model whose variances add.
    """

    additive: Any
    proportional: Any
    unit: str = ""

    def __post_init__(self) -> None:
        check_unit(self)
        _positive(self.additive, "CombinedSD's additive part")
        _positive(self.proportional, "CombinedSD's proportional part")

    def parameters(self) -> dict[str, Any]:
        return {"additive": self.additive, "proportional": self.proportional}

    def variance(self, f: Any, values: dict[str, Any]) -> Any:
        return (values["additive"] + values["proportional"] * abs(f)) ** 2


@final
@dataclass(frozen=True)
class Combined(AbstractResidual):
    """A sum of residual models: the variances add."""

    terms: tuple[AbstractResidual, ...]

    def __post_init__(self) -> None:
        names = [name for term in self.terms for name in term.parameters()]
        if len(set(names)) < len(names):
            raise ModelError(f"A residual model has two parts of the same kind: {', '.join(names)}.")

    @property
    def unit(self) -> str:
        return next((term.unit for term in self.terms if term.unit), "")

    def parameters(self) -> dict[str, Any]:
        return {name: value for term in self.terms for name, value in term.parameters().items()}

    def variance(self, f: Any, values: dict[str, Any]) -> Any:
        return sum(term.variance(f, values) for term in self.terms)
