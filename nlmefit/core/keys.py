"""Random keys as users give them."""

from typing import Any

import jax
import numpy as np

from nlmefit.core.backend import check_process
from nlmefit.core.errors import MethodError

Key = int | jax.Array


def jax_key(key: Any) -> jax.Array:
    """A JAX key from what a user gives as one. Raises MethodError for anything else, ProcessError where JAX cannot work."""
    check_process()
    if isinstance(key, int | np.integer) and not isinstance(key, bool) and -(2**63) <= key < 2**64:
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    if isinstance(key, jax.Array) and key.dtype == np.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(key)
    raise MethodError(f"key must be a whole number or a JAX key, got {key!r}.")
