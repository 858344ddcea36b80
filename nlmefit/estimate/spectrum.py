"""Eigenvalues of symmetric matrices on the correlation scale, where they do not depend on the parameters' units."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Spectrum(NamedTuple):
    """matrix = diag(scale) V diag(values) V' diag(scale), values ascending."""

    scale: Float[np.ndarray, "p"]
    values: Float[np.ndarray, "p"]
    vectors: Float[np.ndarray, "p p"]

    def with_values(self, values: Float[np.ndarray, "p"]) -> Float[np.ndarray, "p p"]:
        """The matrix with these eigenvalues in place of its own."""
        return self.scale[:, None] * ((self.vectors * values) @ self.vectors.T) * self.scale


def spectrum(matrix: Float[np.ndarray, "p p"]) -> Spectrum:
    """The spectrum of a finite symmetric matrix, scaled by sqrt |diagonal| (1 where that is 0)."""
    scale = _scale(matrix)
    return Spectrum(scale, *np.linalg.eigh(matrix / np.outer(scale, scale)))


def eigenvalues(matrix: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p"]:
    """Those of the spectrum, without the vectors."""
    scale = _scale(matrix)
    return np.linalg.eigvalsh(matrix / np.outer(scale, scale))


def _scale(matrix: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "p"]:
    size = np.abs(np.diag(matrix))
    return np.sqrt(np.where(size > 0, size, 1.0))


def smallest(matrix: Float[np.ndarray, "p p"]) -> float:
    """The smallest eigenvalue; minus infinity where the matrix is not finite or has a diagonal that is not positive."""
    if not np.all(np.isfinite(matrix)) or np.any(np.diag(matrix) <= 0):
        return -np.inf
    return float(eigenvalues(matrix)[0])
