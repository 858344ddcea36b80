"""Checks of what callers pass: truth, numbers, words. One place, so that every call refuses the same things in the same words."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nlmefit.core.errors import MethodError, NlmefitError, unknown

Kind = type[NlmefitError]


def check_truth(name: str, value: Any, kind: Kind = MethodError) -> bool:
    """`value` where it is True or False (NumPy's, too); an error of that kind for anything else, "no" and 1 among it."""
    if not isinstance(value, bool | np.bool):
        raise kind(f"{name} must be True or False, got {brief(value)}.")
    return bool(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number: no truth value, no text, no date, not NaN."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_number(name: str, value: Any, what: str = "a number", kind: Kind = MethodError) -> float:
    """`value` as a float; an error of that kind where it is not a finite number."""
    if not is_number(value):
        raise kind(f"{name} must be {what}, got {brief(value)}.")
    return float(value)


def check_whole(name: str, value: Any, least: int, kind: Kind = MethodError) -> int:
    """`value` as an int; an error of that kind unless it is a whole number (NumPy's, too) from `least` up."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise kind(f"{name} must be a whole number from {least} up, got {brief(value)}.")
    return int(value)


def check_word(name: str, value: Any, known: Iterable[str], what: str = "kind", kind: Kind = MethodError) -> str:
    """`value` where it is one of the known words; an error of that kind that names them for anything else."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise kind(f"{name}=: " + unknown(what, value if isinstance(value, str) else brief(value), known))
    return value


def check_numbers(name: str, values: Any, what: str = "one or several numbers", kind: Kind = MethodError) -> np.ndarray:
    """One or several finite numbers as a vector; an error of that kind for text, truth, dates, NaN, tables and nested lists."""
    if isinstance(values, str | bytes | dict) or values is None:
        raise kind(f"{name} must be {what}, got {values!r}.")
    given = np.asarray(values, object) if isinstance(values, list | tuple) else np.asarray(values)
    flat = np.atleast_1d(given)
    numbers = flat.dtype.kind in "iuf" or (flat.dtype.kind == "O" and all(is_number(v) for v in flat.ravel()))
    if flat.ndim != 1 or not len(flat) or not numbers or not np.all(np.isfinite(flat.astype(float))):
        raise kind(f"{name} must be {what}, got {brief(values)}.")
    return flat.astype(float)


def check_path(value: Any, name: str = "path") -> Path:
    """`value` as a path; NlmefitError where it is none."""
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise NlmefitError(f"{name} must be the path of a file, got {value!r}.")
    return Path(value)


def brief(value: Any) -> str:
    """A value in a message: as it prints where that is short, else what it is."""
    if hasattr(value, "__dataclass_fields__") and len(repr(value)) > 80:
        return f"this {type(value).__name__}" if not isinstance(value, type) else f"the class {value.__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
