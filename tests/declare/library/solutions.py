"""Amounts over time by SciPy: of a structural model with its doses, and of equations written out in a test."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import jax
import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import gammaln

from nlmefit.declare.dynamics import AbstractDynamics, Route


def published(rates: Callable, start: Sequence[float], times: np.ndarray) -> np.ndarray:
    """Solution (state, time) of dy/dt = rates(t, *y), y(0) = start; `rates` is NumPy written out in the test."""
    return _solve(lambda t, y: rates(t, *y), np.array(start, float), 0.0, times[-1]).sol(times)


def amounts(
    model: AbstractDynamics, p: Mapping[str, float], times: np.ndarray, doses: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Amounts by compartment of a model that receives `doses` (by compartment) at time 0, by the routes that it gives them."""
    names = model.compartments
    y = np.array([float(model.initial(p).get(name, 0.0)) for name in names])
    vector = jax.jit(lambda t, y: list(model.derivatives(t, dict(zip(names, y, strict=True)), p).values()))
    taken = [(d, r) for place, d in doses.items() for r in model.routes(p).get(place, (Route(place),))]
    starts = [0.0 if r.lag is None else r.lag for _, r in taken]
    ends = [s + r.duration for s, (_, r) in zip(starts, taken) if r.duration is not None]
    events = sorted({0.0, *starts, *ends, times[-1]})
    found = np.full((len(names), len(times)), np.nan)
    for begin, end in pairwise(events):
        constant = np.zeros(len(names))
        gammas = []
        for start, (dose, route) in zip(starts, taken):
            into, amount = names.index(route.into), dose * (1.0 if route.share is None else route.share)
            if route.transit is not None:
                gammas.append((into, amount, *route.transit))
            elif route.duration is not None:
                constant[into] += amount / route.duration if start <= begin < start + route.duration else 0.0
            elif start == begin:
                y[into] += amount

        def rates(t, y, constant=constant, gammas=gammas):
            rate = np.array(vector(t, y)) + constant
            for into, amount, n, ktr in gammas:
                rate[into] += amount * gamma_density(t, n, ktr)
            return rate

        solution = _solve(rates, y, begin, end)
        inside = (times >= begin) & (times <= end)
        found[:, inside] = solution.sol(times[inside])
        y = solution.y[:, -1]
    return dict(zip(names, found, strict=True))


def gamma_density(t: float, n: float, ktr: float) -> float:
    """ktr (ktr t)^n exp(-ktr t)/Gamma(n + 1)."""
    return 0.0 if t <= 0 else float(ktr * np.exp(n * np.log(ktr * t) - ktr * t - gammaln(n + 1)))


def _solve(rates: Callable, y: np.ndarray, begin: float, end: float):
    solution = solve_ivp(rates, (begin, end), y, method="LSODA", rtol=1e-10, atol=1e-12, dense_output=True, first_step=1e-6)
    assert solution.success, solution.message
    return solution
