"""Values that may change from epoch to epoch: a number, or a vector with an entry per epoch."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp


def at_epoch(values: Any, epoch: Any) -> Any:
    """The entries (..., m) of values (..., m, E) at their epochs (m,)."""
    picked = jnp.take_along_axis(values, jnp.expand_dims(epoch, -1), axis=-1)
    return picked[..., 0]


def chosen(values: Mapping[str, Any], epoch: Any) -> dict[str, Any]:
    """Each value at the given epochs (any shape); numbers stay numbers."""
    return {name: jnp.asarray(v)[epoch] if jnp.ndim(v) == 1 else v for name, v in values.items()}


def constant(values: Mapping[str, Any]) -> bool:
    """Whether no value changes from epoch to epoch."""
    return all(jnp.ndim(v) == 0 for v in values.values())
