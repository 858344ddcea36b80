"""Pareto-smoothed importance sampling's diagnostic: the tail index k-hat of the weights.

The largest min(0.2 K, 3 sqrt(K)) weights are fitted by a generalized Pareto distribution (Zhang and Stephens 2009). Below 0.7 the
importance-sampling estimate and its standard error can be believed (Vehtari, Simpson, Gelman, Yao and Gabry 2024).
"""

import numpy as np
from jaxtyping import Float

BELIEVABLE = 0.7


def khat(log_weights: Float[np.ndarray, "K N"]) -> Float[np.ndarray, "N"]:
    """The tail index by column; -inf where the weights do not vary, NaN for fewer than 25 draws."""
    draws = len(log_weights)
    tail = int(np.ceil(min(0.2 * draws, 3 * np.sqrt(draws))))
    if tail < 5:
        return np.full(log_weights.shape[1], np.nan)
    ordered = np.sort(log_weights - log_weights.max(axis=0), axis=0)
    cutoff = np.exp(np.maximum(ordered[-tail - 1], np.log(np.finfo(float).tiny)))
    return np.array([_tail_index(x) for x in np.maximum(np.exp(ordered[-tail:]) - cutoff, 0.0).T])


def _tail_index(x: Float[np.ndarray, "n"]) -> float:
    """k of a generalized Pareto distribution from a sorted sample of exceedances, with the weak prior of PSIS."""
    n = len(x)
    if x[-1] <= 1e-12:
        return -np.inf
    positive = np.maximum(x, np.finfo(float).tiny)
    count = 30 + int(np.sqrt(n))
    quartile = positive[int(n / 4 + 0.5) - 1]
    b = (1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))) / (3 * quartile) + 1 / positive[-1]
    k = np.mean(np.log1p(-b[:, None] * positive), axis=1)
    profile = n * (np.log(-b / k) - k - 1)
    with np.errstate(over="ignore"):  # a weight of 0
        weights = 1 / np.exp(profile - profile[:, None]).sum(axis=1)
    weights = np.where(weights < 10 * np.finfo(float).eps, 0.0, weights)
    best = np.sum(b * weights) / weights.sum()
    k_best = np.mean(np.log1p(-best * positive))
    return float((n * k_best + 10 * 0.5) / (n + 10))
