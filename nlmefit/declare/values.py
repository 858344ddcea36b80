"""Numbers that a modeller writes: plain ones, and those kept by `nm.Fixed`."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

from nlmefit.core.errors import ModelError
from nlmefit.core.options import brief, check_truth


@final
@dataclass(frozen=True)
class Fixed:
    """A value that is kept, not estimated: `nm.LogNormal(1.5, iiv=nm.Fixed(0.3))`."""

    value: float


def is_fixed(value: Any) -> bool:
    return isinstance(value, Fixed)


def number(value: Any, what: str) -> float:
    """The plain number behind a start or a Fixed, checked to be finite."""
    result = real(value.value if isinstance(value, Fixed) else value, what)
    if not math.isfinite(result):
        raise ModelError(f"{what} must be finite, got {result}.")
    return result


def real(value: Any, what: str) -> float:
    """A number that may be infinite, as a bound is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ModelError(f"{what} must be a number, got {value!r}.")
    return float(value)


def check_unit(declaration: Any) -> None:
    """ModelError where `unit` is no text."""
    if not isinstance(declaration.unit, str):
        raise ModelError(f"{type(declaration).__name__}(unit=...) must be text, such as 'L/h', got {brief(declaration.unit)}.")


def check_fixed(declaration: Any) -> None:
    """ModelError where `fixed` is not True or False."""
    check_truth(f"{type(declaration).__name__}(fixed=...)", declaration.fixed, ModelError)
