"""Covariate effects: each multiplies the typical value (LogNormal, Normal) or the odds (LogitNormal).

An effect returns the log of its factor, so that for LogNormal parameters Power, Exponential and Category are
linear in their coefficient on the scale of mu ("mu-referenced").
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax.numpy as jnp

from nlmefit.declare.values import number
from nlmefit.errors import ModelError


class AbstractEffect(abc.ABC):
    """An effect of one data column on one parameter."""

    column: str

    @abc.abstractmethod
    def coefficients(self) -> dict[str, tuple[float, bool]]:
        """Name suffix -> (start, fixed). An empty suffix stands for `beta_PARAMETER_COLUMN` itself."""

    @abc.abstractmethod
    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        """log of the factor at covariate value x, beta by suffix."""


def _checked(effect: AbstractEffect, *fields: str) -> dict[str, float]:
    """The named fields as finite numbers, where `column` names a column; else ModelError."""
    kind = type(effect).__name__
    if not isinstance(effect.column, str) or not effect.column:
        raise ModelError(f"{kind}: the first argument is the name of a data column, for example 'WT', got {effect.column!r}.")
    return {field: number(getattr(effect, field), f"{kind}('{effect.column}'): {field}") for field in fields}


def _name(level: float) -> str:
    """A level as it stands in a name: 1.0 as 1, 1234567.0 in full."""
    return str(int(level)) if float(level).is_integer() else repr(float(level))


@final
@dataclass(frozen=True)
class Power(AbstractEffect):
    """(x / reference)^beta; allometric scaling is `Power("WT", reference=70, exponent=0.75, fixed=True)`."""

    column: str
    reference: float = 1.0
    exponent: float = 0.0
    fixed: bool = False

    def __post_init__(self) -> None:
        if _checked(self, "reference", "exponent")["reference"] <= 0:
            raise ModelError(f"Power('{self.column}'): the reference must be above 0, got {self.reference}.")

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {"": (self.exponent, self.fixed)}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return beta[""] * jnp.log(x / self.reference)


@final
@dataclass(frozen=True)
class Exponential(AbstractEffect):
    """exp(beta * (x - reference))."""

    column: str
    reference: float = 0.0
    value: float = 0.0
    fixed: bool = False

    def __post_init__(self) -> None:
        _checked(self, "reference", "value")

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {"": (self.value, self.fixed)}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return beta[""] * (x - self.reference)


@final
@dataclass(frozen=True)
class Linear(AbstractEffect):
    """1 + beta * (x - reference); where that is not positive the likelihood is undefined, and said so."""

    column: str
    reference: float = 0.0
    value: float = 0.0
    fixed: bool = False

    def __post_init__(self) -> None:
        _checked(self, "reference", "value")

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {"": (self.value, self.fixed)}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return jnp.log1p(beta[""] * (x - self.reference))


@final
@dataclass(frozen=True)
class Category(AbstractEffect):
    """exp(beta_level) for each level other than the reference level.

    `levels` maps every other level (a number in the data column) to its start; coefficients are named
    `beta_PARAMETER_COLUMN_LEVEL`. A value in the data that is neither the reference nor a level is an error.
    """

    column: str
    reference: float
    levels: dict[float, float] | Sequence[float] = ()
    fixed: bool = False

    def __post_init__(self) -> None:
        _checked(self, "reference")
        levels = self.levels
        starts = levels if isinstance(levels, dict) else {level: 0.0 for level in levels}
        if not starts:
            raise ModelError(f"Category('{self.column}'): name the levels other than the reference, for example levels=[1].")
        for level, start in starts.items():
            number(level, f"Category('{self.column}'): a level (as in the data column)")
            number(start, f"Category('{self.column}'): the start of level {level}")
        if self.reference in starts:
            raise ModelError(f"Category('{self.column}'): {self.reference} is both reference and level.")
        object.__setattr__(self, "levels", dict(starts))

    def __hash__(self) -> int:
        return hash((self.column, self.reference, tuple(self.levels.items()), self.fixed))

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {_name(level): (float(start), self.fixed) for level, start in self.levels.items()}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return sum(jnp.where(x == level, beta[_name(level)], 0.0) for level in self.levels)


@final
@dataclass(frozen=True)
class Effect(AbstractEffect):
    """Your own effect: `function(beta, x)` is the factor that multiplies the typical value (> 0)."""

    column: str
    function: Callable[[Any, Any], Any]
    value: float = 0.0
    fixed: bool = False

    def __post_init__(self) -> None:
        _checked(self, "value")
        if not callable(self.function):
            raise ModelError(f"Effect('{self.column}'): function must be callable as function(beta, x).")

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {"": (self.value, self.fixed)}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return jnp.log(self.function(beta[""], x))
