"""Covariate effects: each multiplies the typical value (LogNormal, Normal) or the odds (LogitNormal).

An effect returns the log of its factor, so that for LogNormal parameters Power, Exponential and Category are
linear in their coefficient on the scale of mu ("mu-referenced").
"""

import abc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final
from zlib import crc32

import jax.numpy as jnp

from nlmefit.core.errors import ModelError
from nlmefit.declare.values import check_fixed, number


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


Level = float | str
"""A value of a category, as the data column holds it."""


def level_name(level: Level) -> str:
    """A level as it stands in a name: 1.0 as 1, 1234567.0 in full, text by its letters and digits."""
    if isinstance(level, str):
        return re.sub(r"\W+", "_", level)
    return str(int(level)) if float(level).is_integer() else repr(float(level))


def code(level: Level) -> float:
    """The number that stands for a level in a program: itself, or of a text its CRC-32, whatever other levels there are."""
    return float(crc32(level.encode())) if isinstance(level, str) else float(level)


@final
@dataclass(frozen=True)
class Power(AbstractEffect):
    """(x / reference)^beta; allometric scaling is `Power("WT", reference=70, exponent=0.75, fixed=True)`."""

    column: str
    reference: float = 1.0
    exponent: float = 0.0
    fixed: bool = False

    def __post_init__(self) -> None:
        check_fixed(self)
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
        check_fixed(self)
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
        check_fixed(self)
        _checked(self, "reference", "value")

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {"": (self.value, self.fixed)}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return jnp.log1p(beta[""] * (x - self.reference))


@final
@dataclass(frozen=True)
class Category(AbstractEffect):
    """exp(beta_level) for each level other than the reference level.

    Levels are what the data column holds, numbers or text: `nm.Category("SEX", reference="M")`. `levels` lists the others, or
    maps each to its start; without it they are those of the data that the model is fitted to. Coefficients are named
    `beta_PARAMETER_COLUMN_LEVEL`. A value in the data that is neither the reference nor a level is an error.
    """

    column: str
    reference: float | str
    levels: dict[Level, float] | Sequence[Level] = ()
    fixed: bool = False
    found: tuple[Level, ...] = field(default=(), repr=False)
    """The levels that the data held, where none are named."""

    def __post_init__(self) -> None:
        check_fixed(self)
        _checked(self)
        levels = {self.levels: 0.0} if isinstance(self.levels, str) else self.levels
        starts = dict(levels) if isinstance(levels, dict) else {level: 0.0 for level in levels}
        self._check_level(self.reference, "reference")
        for level, start in starts.items():
            self._check_level(level, "a level (as in the data column)")
            number(start, f"Category('{self.column}'): the start of level {level}")
        if self.reference in starts:
            raise ModelError(f"Category('{self.column}'): {self.reference} is both reference and level.")
        names = [level_name(level) for level in starts]
        if len(set(names)) < len(names):
            raise ModelError(f"Category('{self.column}'): two levels would have the same name: {', '.join(sorted(names))}.")
        object.__setattr__(self, "levels", starts)

    def _check_level(self, level: Any, what: str) -> None:
        what = f"Category('{self.column}'): {what}"
        if isinstance(level, str) != isinstance(self.reference, str):
            raise ModelError(f"{what} must be {'text' if self.text else 'a number'} as the reference is, got {level!r}.")
        if not isinstance(level, str):
            number(level, what)
        elif not level.strip() or level != level.strip():
            raise ModelError(f"{what} must be a text without blanks around it, got {level!r}.")

    def __hash__(self) -> int:
        return hash((self.column, self.reference, tuple(self.starts.items()), self.fixed))

    @property
    def text(self) -> bool:
        """Whether the levels are text."""
        return isinstance(self.reference, str)

    @property
    def open(self) -> bool:
        """Whether the levels are those of the data."""
        return not self.levels

    @property
    def starts(self) -> dict[Level, float]:
        """Each level's start."""
        return dict(self.levels) or {level: 0.0 for level in self.found}  # type: ignore[arg-type]

    def holding(self, levels: Sequence[Level]) -> "Category":
        """The same with the levels that the data holds, where none are named."""
        others = tuple(level for level in levels if level != self.reference)
        return replace(self, found=others) if self.open else self

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {level_name(level): (float(start), self.fixed) for level, start in self.starts.items()}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return sum((jnp.where(x == code(level), beta[level_name(level)], 0.0) for level in self.starts), 0.0)


@final
@dataclass(frozen=True)
class Effect(AbstractEffect):
    """Your own effect: `function(beta, x)` is the factor that multiplies the typical value (> 0)."""

    column: str
    function: Callable[[Any, Any], Any]
    value: float = 0.0
    fixed: bool = False

    def __post_init__(self) -> None:
        check_fixed(self)
        _checked(self, "value")
        if not callable(self.function):
            raise ModelError(f"Effect('{self.column}'): function must be callable as function(beta, x).")

    def coefficients(self) -> dict[str, tuple[float, bool]]:
        return {"": (self.value, self.fixed)}

    def log_factor(self, beta: dict[str, Any], x: Any) -> Any:
        return jnp.log(self.function(beta[""], x))
