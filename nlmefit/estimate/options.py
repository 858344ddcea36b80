"""Checks of methods' options."""

from typing import Any

import numpy as np

from nlmefit.errors import MethodError


def check_count(name: str, value: Any, least: int) -> None:
    """MethodError unless `value` is a whole number (NumPy's, too) from `least` up."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise MethodError(f"{name} must be a whole number from {least} up, got {value!r}.")
