"""LDL' factorization of small symmetric matrices, unrolled.

For the q x q Hessians of one subject: unrolled rank-one updates compile to a handful of fused operations under `vmap`
and differentiate in forward mode, where LAPACK calls would be made one by one.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from nlmefit.core.typing import Scalar


class Factor(NamedTuple):
    """A = L diag(pivots) L' with unit lower triangular L."""

    lower: Float[Array, "q q"]
    pivots: Float[Array, "q"]


def factorize(matrix: Float[Array, "q q"], floor: float | None = None) -> Factor:
    """Factor a symmetric matrix. With `floor`, each pivot d becomes max(|d|, floor), so that the factor is that of a
    positive definite matrix (a descent metric where the Hessian is not convex)."""
    q = matrix.shape[0]
    rest, columns, pivots = matrix, [], []
    for k in range(q):
        pivot = rest[k, k]
        if floor is not None:
            pivot = jnp.maximum(jnp.abs(pivot), floor)
        column = jnp.where(jnp.arange(q) > k, rest[:, k] / pivot, 0.0)
        rest = rest - pivot * jnp.outer(column, column)
        columns.append(column.at[k].set(1.0))
        pivots.append(pivot)
    if q == 0:
        return Factor(matrix, jnp.zeros(0))
    return Factor(jnp.stack(columns, axis=1), jnp.stack(pivots))


def solve_lower(factor: Factor, right: Float[Array, "q *k"]) -> Float[Array, "q *k"]:
    """L^-1 right."""
    result = right
    for k in range(right.shape[0]):
        below = jnp.where(jnp.arange(right.shape[0]) > k, factor.lower[:, k], 0.0)
        result = result - jnp.tensordot(below, result[k], 0)
    return result


def solve_upper(factor: Factor, right: Float[Array, "q *k"]) -> Float[Array, "q *k"]:
    """L'^-1 right."""
    result = right
    for k in reversed(range(right.shape[0])):
        above = jnp.where(jnp.arange(right.shape[0]) < k, factor.lower[k, :], 0.0)
        result = result - jnp.tensordot(above, result[k], 0)
    return result


def solve(factor: Factor, right: Float[Array, "q *k"]) -> Float[Array, "q *k"]:
    """A^-1 right."""
    middle = solve_lower(factor, right)
    pivots = factor.pivots.reshape(factor.pivots.shape + (1,) * (right.ndim - 1))
    return solve_upper(factor, middle / pivots)


def log_determinant(factor: Factor) -> Scalar:
    """log |A|; NaN where A is not positive definite, so that it is never taken for a number."""
    return jnp.sum(jnp.log(factor.pivots))


def is_positive(factor: Factor) -> Bool[Array, ""]:
    """Whether A is positive definite."""
    return jnp.all(factor.pivots > 0)
