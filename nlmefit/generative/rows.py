"""Data of generative models: rows of a matrix, with or without what each row is conditioned on."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from nlmefit.core.errors import DataError


@dataclass(frozen=True)
class Samples:
    """N rows x_i in R^D, and the conditions c_i in R^C that they were seen under (C = 0: none)."""

    x: Float[np.ndarray, "N D"]
    given: Float[np.ndarray, "N C"]

    @classmethod
    def of(cls, data: Any) -> "Samples":
        """From a matrix, or from a pair (X, given). Raises DataError unless both are finite matrices with as many rows."""
        X, given = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
        x = matrix("X", X)
        c = np.zeros((len(x), 0)) if given is None else matrix("given", given)
        if len(c) != len(x):
            raise DataError(f"X has {len(x)} rows and given {len(c)}; each row of X needs the condition that it was seen under.")
        return cls(x, c)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sha256(self) -> str:
        """Of the numbers."""
        return hashlib.sha256(np.ascontiguousarray(self.x).tobytes() + np.ascontiguousarray(self.given).tobytes()).hexdigest()

    def split(self, share: float, order: np.ndarray) -> tuple["Samples", "Samples"]:
        """All but a share of the rows, and that share, the rows taken in that order."""
        cut = len(self) - round(share * len(self))
        first, rest = np.sort(order[:cut]), np.sort(order[cut:])
        return Samples(self.x[first], self.given[first]), Samples(self.x[rest], self.given[rest])


def matrix(name: str, X: Any, columns: int | None = None) -> Float[np.ndarray, "N D"]:
    """X as a finite matrix; a vector is one column. DataError otherwise, or with another number of columns than wanted."""
    try:
        found = np.asarray(X, float)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be a matrix of numbers, got {type(X).__name__}.") from None
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[0] == 0:
        raise DataError(f"{name} must be a matrix with a row per sample, got shape {found.shape}.")
    if columns is not None and found.shape[1] != columns:
        raise DataError(f"{name} has {found.shape[1]} columns, the model {columns}.")
    wrong = ~np.isfinite(found)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{name} holds {wrong.sum()} values that are not finite, the first in row {row}, column {column}; leave them out."
        )
    return found
