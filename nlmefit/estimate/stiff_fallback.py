"""What explicit steps could not solve, by the stiff solver."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nlmefit.latent.model import AbstractLatentModel


def with_stiff_fallback(model: AbstractLatentModel, compute: Callable[[AbstractLatentModel], Any], axes: int = 1) -> Any:
    """`compute(model)`, a PyTree of arrays whose leading `axes` count subjects (or draws and subjects); those with NaN in any of
    them come from the model's stiff fallback, where it has one."""
    found = jax.tree.map(np.asarray, compute(model))
    spoilt = [np.isnan(x).any(axis=tuple(range(axes, x.ndim))) for x in jax.tree.leaves(found) if np.size(x)]
    lost, other = np.any(spoilt, axis=0) if spoilt else np.zeros(1, bool), model.stiff_fallback()
    if other is None or not lost.any():
        return found

    def either(first: np.ndarray, again: Any) -> np.ndarray:
        return np.where(lost.reshape(*lost.shape, *[1] * (first.ndim - axes)), again, first)

    return jax.tree.map(either, found, compute(other))
