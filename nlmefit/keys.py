"""Random keys as users give them."""

from typing import Any

import jax

from nlmefit.errors import MethodError

Key = int | jax.Array


def jax_key(key: Any) -> jax.Array:
    """A JAX key from what a user gives as one. Raises MethodError for anything else."""
    if isinstance(key, int) and not isinstance(key, bool):
        return jax.random.key(key)
    if isinstance(key, jax.Array):
        return key if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    raise MethodError(f"key must be a whole number or a JAX key, got {key!r}.")
