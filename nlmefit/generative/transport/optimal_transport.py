"""Optimal transport between samples: Wasserstein distances, pairings, and how straight a flow's paths are.

    W_r(x, y) = ( min over couplings of E[ |X - Y|^r ] )^(1/r)

X and Y with the empirical laws of x and y, |.| Euclidean (Villani 2009, chapter 6). Every distance here is W_r itself; papers on
flow matching often print its square under the name of W_2. A sample has shape (N,) or (N, D).
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.options import check_whole
from nlmefit.generative.divergence import as_sample

EMD_ITERATIONS = 100_000_000
"""Pivots of the network simplex; it needs far fewer, POT's own limit of 100 000 is too few for thousands of points."""

FEW = 300
"""Points up to which the assignment algorithm is the faster."""


def wasserstein(x: Any, y: Any, order: float = 2.0) -> float:
    """W_r(x, y), exact, r = order >= 1.

    Numbers by their quantiles (any sizes, in n log n); points of D dimensions by the assignment problem for equal sizes and by
    linear programming (POT's network simplex) else, which take memory n m and seconds from a few thousand points on.
    Raises DataError for samples that are not finite or differ in their number of columns, MethodError for an order below 1.
    """
    x, y = _samples(x, y)
    _check_order(order)
    if x.shape[1] == 1:
        return _on_the_line(x[:, 0], y[:, 0], order)
    cost = _cost(x, y, order)
    if len(x) == len(y):
        return float(np.mean(cost[np.arange(len(cost)), _assigned(cost)]) ** (1 / order))
    return float(_network_simplex(cost) ** (1 / order))


def sinkhorn(
    x: Any,
    y: Any,
    regularization: float,
    order: float = 2.0,
    debiased: bool = True,
    iterations: int = 10_000,
    tolerance: float = 1e-6,
) -> float:
    """The r-th root of entropic transport (Cuturi 2013), by Sinkhorn's stabilized iterations (POT):

        OT(x, y) = min over couplings P of  sum_ij P_ij |x_i - y_j|^r + regularization KL(P || product of the marginals)
        debiased:  OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2     (Feydy et al. 2019)

    The regularization has the units of |x - y|^r; as it falls to 0 both tend to W_r, the plain one from above, and the iterations
    become many. Only the debiased one is 0 for x = y. In many dimensions it varies less between samples than `wasserstein`
    does (Genevay et al. 2019).
    Raises MethodError where couplings' marginals are not within `tolerance` of the samples' after `iterations`.
    """
    x, y = _samples(x, y)
    _check_order(order)
    check_whole("iterations", iterations, 1)
    if not (np.isfinite(regularization) and regularization > 0):
        raise MethodError(f"regularization must be positive, got {regularization!r}; for none use wasserstein(x, y).")

    def entropic(a: np.ndarray, b: np.ndarray) -> float:
        return _entropic(_cost(a, b, order), regularization, iterations, tolerance)

    value = entropic(x, y)
    if debiased:
        value -= (entropic(x, x) + entropic(y, y)) / 2
    return float(max(value, 0.0) ** (1 / order))


def pairing(x: Any, y: Any, order: float = 2.0) -> Int[np.ndarray, "N"]:
    """The permutation with which x_i and y[permutation_i] are nearest: it minimizes sum_i |x_i - y[permutation_i]|^r.

    Every index is used once, so that both samples stay as they are: within a minibatch this is the coupling of optimal-transport
    flow matching (Pooladian et al. 2023; Tong et al. 2024). Raises DataError for samples of different size.
    """
    x, y = _samples(x, y)
    _check_order(order)
    if len(x) != len(y):
        raise DataError(
            f"a pairing needs samples of the same size, got {len(x)} and {len(y)} rows: leave out some of the larger."
        )
    return _assigned(_cost(x, y, order))


def path_energy(velocities: Any, times: Any) -> float:
    """E[ int |v(t, x_t)|^2 dt ] of paths whose velocities at `times` (T,), rising or falling, are (T, N) or (T, N, D), by the
    trapezoidal rule. At least W_2^2 of where the paths begin and end, and that for straight paths along the optimal
    coupling only (Benamou and Brenier 2000).
    """
    v, t = np.asarray(velocities, float), as_sample("times", times, least=2)
    if t.ndim != 1 or v.ndim not in (2, 3) or len(v) != len(t) or v.size == 0:
        raise DataError(f"velocities must have shape (T, N) or (T, N, D) and times (T,); got {v.shape} and {t.shape}.")
    steps = np.diff(t)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise DataError("times must rise, or fall, from each to the next.")
    if not np.all(np.isfinite(v)):
        raise DataError(f"velocities hold {np.sum(~np.isfinite(v))} values that are not finite: the flow was not solved there.")
    squares = np.mean(np.sum(v.reshape(len(t), v.shape[1], -1) ** 2, axis=2), axis=1)
    return float(abs(np.trapezoid(squares, t)))


def normalized_path_energy(energy: float, squared_distance: float) -> float:
    """NPE = |energy - W_2^2| / W_2^2 of a flow from its `path_energy` and the squared distance of its source and target: 0 for
    optimal transport (Tong et al. 2024). Raises DataError unless the squared distance is positive.
    """
    if not squared_distance > 0:
        raise DataError(f"squared_distance must be positive, got {squared_distance!r}: source and target are the same.")
    return float(abs(energy - squared_distance) / squared_distance)


def _on_the_line(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "m"], order: float) -> float:
    """( int_0^1 |F^-1(u) - G^-1(u)|^r du )^(1/r): both quantile functions are constant between levels i/n and j/m.

    Levels are counted in units of 1/(n m), whole numbers, so that equal ones are found equal.
    """
    n, m = len(x), len(y)
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    shares = np.diff(levels, prepend=0) / (n * m)
    apart = np.abs(np.sort(x)[(levels - 1) // m] - np.sort(y)[(levels - 1) // n])
    return float((shares @ apart**order) ** (1 / order))


def _assigned(cost: Float[np.ndarray, "n n"]) -> Int[np.ndarray, "n"]:
    """Which column each row has in the least sum. Of many the network simplex is the faster; its solution for equal masses is a
    permutation."""
    if len(cost) > FEW:
        import ot

        masses = np.ones(len(cost))
        columns = np.argmax(ot.emd(masses, masses, cost, numItermax=EMD_ITERATIONS), axis=1)
        if len(np.unique(columns)) == len(cost):
            return columns
    return linear_sum_assignment(cost)[1]


def _network_simplex(cost: Float[np.ndarray, "n m"]) -> float:
    import ot  # takes two seconds, which `import nlmefit` need not

    value, found = ot.emd2(_uniform(len(cost)), _uniform(cost.shape[1]), cost, numItermax=EMD_ITERATIONS, log=True)
    if found["warning"]:
        raise MethodError(f"linear programming did not solve the {cost.shape} transport problem: {found['warning']}.")
    return float(value)


def _entropic(cost: Float[np.ndarray, "n m"], regularization: float, iterations: int, tolerance: float) -> float:
    """OT by its dual, mean f + mean g over the potentials f and g of x and y: its error is of second order in the marginals'.

    Taking each row's and then each column's least cost off first leaves no row of exp(-cost / regularization) to underflow.
    """
    import ot

    f = cost.min(axis=1)
    g = (cost - f[:, None]).min(axis=0)
    options = {"numItermax": iterations, "stopThr": tolerance, "warn": False, "log": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iterations that break down have not converged, which is an error below
        marginals = _uniform(len(f)), _uniform(len(g))
        _, found = ot.bregman.sinkhorn_stabilized(*marginals, cost - f[:, None] - g, regularization, **options)
    error = found["err"][-1]
    if not error <= tolerance:
        raise MethodError(
            f"Sinkhorn's marginals are off by {error:.2g} after {iterations} iterations at regularization {regularization:g}, "
            f"{regularization / cost.mean():.2g} of the mean cost. Raise regularization, iterations or tolerance ({tolerance:g})."
        )
    scaled = np.mean(found["logu"]) + np.mean(found["logv"]) + np.log(cost.size)
    return float(np.mean(f) + np.mean(g) + regularization * scaled)


def _uniform(size: int) -> Float[np.ndarray, "n"]:
    return np.full(size, 1 / size)


def _cost(x: Float[np.ndarray, "n D"], y: Float[np.ndarray, "m D"], order: float) -> Float[np.ndarray, "n m"]:
    return cdist(x, y, "sqeuclidean") if order == 2 else cdist(x, y) ** order


def _samples(x: Any, y: Any) -> tuple[Float[np.ndarray, "n D"], Float[np.ndarray, "m D"]]:
    x, y = as_sample("x", x), as_sample("y", y)
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"x has {x.shape[1]} columns and y {y.shape[1]}: samples of the same space have the same.")
    return x, y


def _check_order(order: float) -> None:
    if not (np.isfinite(order) and order >= 1):
        raise MethodError(f"order must be a number from 1 up, got {order!r}: for less than 1, W_r is no distance.")
