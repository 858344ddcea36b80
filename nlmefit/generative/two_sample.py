"""Whether two samples are of one law: the energy distance, and how large it is by chance."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from nlmefit.core.errors import DataError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.generative.divergence import as_sample

SHARE = 0.95
"""Of random divisions, that stay below the limit."""


class TwoSampleTest(NamedTuple):
    """A permutation test of one law behind both samples."""

    distance: float
    """The energy distance."""
    limit: float
    """What it stays below in 95 of 100 random divisions of all rows into two such samples."""
    p_value: float
    """The share of divisions, this one among them, whose distance is as large."""


def energy_distance(x: Any, y: Any) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| >= 0 between the empirical laws of two samples, (N,) or (N, D): 0 in the limit only for
    samples of one law (Szekely and Rizzo 2004). It is in the units of x: bring columns to one scale before.

    Raises DataError for samples that are not finite or differ in their number of columns.
    """
    return float(_distances(*_pooled(x, y)))


def two_sample_test(x: Any, y: Any, *, permutations: int = 200, key: Key = 0) -> TwoSampleTest:
    """The energy distance beside those of random divisions of the pooled rows (Szekely and Rizzo 2004); memory (N + M)^2.

    Raises DataError as `energy_distance`, MethodError for fewer than 20 permutations.
    """
    check_whole("permutations", permutations, 20)
    pooled, signs = _pooled(x, y)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(jax_key(key))))
    divided = np.stack([signs, *(generator.permutation(signs) for _ in range(permutations))])
    found = _distances(pooled, divided)
    return TwoSampleTest(float(found[0]), float(np.quantile(found[1:], SHARE)), float(np.mean(found >= found[0])))


def _pooled(x: Any, y: Any) -> tuple[Float[np.ndarray, "n D"], Float[np.ndarray, "n"]]:
    """All rows, and weights that sum to 1 over those of x and to -1 over those of y."""
    x, y = as_sample("x", x), as_sample("y", y)
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"x has {x.shape[1]} columns and y {y.shape[1]}: samples of the same space have the same.")
    return np.concatenate([x, y]), np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])


def _distances(pooled: Float[np.ndarray, "n D"], signs: Float[np.ndarray, "*k n"]) -> Float[np.ndarray, "*k"]:
    """-s' |x_i - x_j| s, for each row of signs."""
    return -np.sum((signs @ cdist(pooled, pooled)) * signs, axis=-1)
