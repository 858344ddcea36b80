"""Standard draws for importance sampling and variational bounds, from a key alone."""

from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gammaln, ndtri

Sequence = Literal["random", "quasi"]


def generator(key: Array) -> np.random.Generator:
    """NumPy's generator for a JAX key: drawing in NumPy compiles nothing."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().astype(np.uint32))


def normal(
    rng: np.random.Generator, count: int, subjects: int, q: int, sequence: Sequence = "random"
) -> Float[np.ndarray, "K N q"]:
    """Independent standard normal draws; "quasi": by subject a Sobol sequence, scrambled anew."""
    if sequence == "random" or q == 0:
        return rng.standard_normal((count, subjects, q))
    return np.stack([ndtri(_sobol(rng, count, q)) for _ in range(subjects)], axis=1)


def student(rng: np.random.Generator, x: Float[np.ndarray, "K N q"], df: float) -> Float[np.ndarray, "K N q"]:
    """Multivariate t draws from normal ones."""
    return x * np.sqrt(df / rng.chisquare(df, x.shape[:2]))[..., None]


def log_density(x: Float[np.ndarray, "K N q"], df: float) -> Float[np.ndarray, "K N"]:
    """log density of a standard multivariate t with `df` degrees of freedom; normal where df is infinite."""
    q, square = x.shape[-1], np.sum(x**2, axis=-1)
    if np.isinf(df):
        return -0.5 * (square + q * np.log(2 * np.pi))
    constant = gammaln((df + q) / 2) - gammaln(df / 2) - 0.5 * q * np.log(df * np.pi)
    return constant - 0.5 * (df + q) * np.log1p(square / df)


def matched(count: int, q: int, seed: int = 0) -> Float[np.ndarray, "K q"]:
    """Points whose mean is 0 and whose covariance is I to rounding, in pairs x and -x: averages of quadratic functions over them
    are exact, and of odd ones 0. Half of them a scrambled Sobol sequence."""
    if q == 0:
        return np.zeros((count, 0))
    half = ndtri(_sobol(np.random.default_rng(seed), max(count // 2, 2 * q), q))
    values, vectors = np.linalg.eigh(half.T @ half / len(half))
    half = half @ (vectors / np.sqrt(values)) @ vectors.T
    return np.concatenate([half, -half])


def _sobol(rng: np.random.Generator, count: int, q: int) -> Float[np.ndarray, "count q"]:
    """`count` scrambled points inside the unit cube."""
    from scipy.stats import qmc  # takes most of a second, which `import nlmefit` need not

    points = qmc.Sobol(q, rng=rng).random(1 << (count - 1).bit_length())[:count]
    return np.clip(points, 1e-12, 1 - 1e-12)
