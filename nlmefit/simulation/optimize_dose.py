"""`nm.optimize_dose`: the dose that reaches a target, found by the model's own derivative in the dose.

Each profile's metric M(f), with all amounts of the regimen times a factor f, comes with dM/df by forward mode through the solver.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from scipy.optimize import brentq, minimize_scalar

from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_number, check_numbers, check_word, is_number
from nlmefit.core.progress import Progress
from nlmefit.core.shown import html
from nlmefit.core.typing import Theta
from nlmefit.data.regimen import Regimen
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import generator
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.simulation.areas import AREA, AreaModel
from nlmefit.simulation.outputs import showing
from nlmefit.simulation.profiles import Arm, Simulation
from nlmefit.simulation.simulate import simulate

Metric = Literal["AUC", "Cavg", "Cmax", "Ctrough"]
BLOCK = 256
"""Profiles computed at once."""
SMOOTH = 0.02
"""Width, in log(metric), over which a profile at the edge of a window counts by part while the dose is sought."""


@dataclass(frozen=True)
class Target:
    """What a dose should reach between `start` and `end`.

    `metric` is "AUC", "Cavg" (AUC over the window's length), "Cmax" (at the times of `optimize_dose`) or "Ctrough" (at `end`,
    just before a dose given then). One of:

    | arguments | the dose sought |
    |---|---|
    | `value=v` | has the smallest mean of (log M - log v)^2: the metric is v, up to how subjects differ |
    | `between=(a, b)` | has the largest share of profiles with a <= M <= b |
    | `at_least=a, probability=p` | is the smallest for which the share with M >= a is p |
    | `at_most=b, probability=p` | is the largest for which the share with M <= b is p |

    `endpoint` is needed where the model has several. Raises MethodError for anything else.
    """

    metric: Metric
    value: float | None = None
    between: tuple[float, float] | None = None
    at_least: float | None = None
    at_most: float | None = None
    probability: float | None = None
    start: float | None = None
    end: float | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        check_word("Target: metric", self.metric, get_args(Metric), "metric")
        given = [name for name in ("value", "between", "at_least", "at_most") if getattr(self, name) is not None]
        if len(given) != 1:
            raise MethodError(f"a target says one of value=, between=, at_least=, at_most=; got {', '.join(given) or 'none'}.")
        numbers: tuple[Any, ...] = (getattr(self, given[0]),)
        if self.between is not None:
            numbers = tuple(self.between) if isinstance(self.between, tuple | list) else ()
            if len(numbers) != 2:
                raise MethodError(f"between must be a lower and an upper end, got {self.between!r}.")
        if not all(is_number(x) and x > 0 for x in numbers):
            raise MethodError(f"the target's {given[0]} must be above 0, got {getattr(self, given[0])!r}.")
        if self.between is not None and numbers[0] >= numbers[1]:
            raise MethodError(f"between must be a lower and an upper end, got {self.between!r}.")
        asks, share = given[0] in ("at_least", "at_most"), self.probability
        if asks != (share is not None) or (share is not None and not (is_number(share) and 0 < share < 1)):
            raise MethodError(f"at_least and at_most, and only they, go with a probability between 0 and 1: {self!r}.")
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                check_number(f"the target's {name}", getattr(self, name), "a time")

    @property
    def window(self) -> tuple[float, float]:
        """What counts as attained."""
        if self.between is not None:
            return self.between
        return (self.at_least or 0.0, np.inf if self.at_most is None else self.at_most)


@dataclass(frozen=True)
class OptimalDose:
    """The regimen found, and what it does."""

    regimen: Regimen
    factor: float
    """Of the regimen's amounts."""
    target: Target
    metrics: pd.DataFrame
    """By ID and draw: the metric at the optimum."""
    attained: float
    """The share of profiles that attain the target (of a `value`: within 20 % of it)."""
    status: str
    """"found", or which bound the dose is at, or that no dose within the bounds attains the target."""

    def __str__(self) -> str:
        median = self.metrics[self.target.metric].median()
        return (
            f"{self.regimen}   ({self.status}; {self.factor:g} times the given amounts)\n"
            f"  median {self.target.metric} {median:.5g}, target attained by {100 * self.attained:.1f} % of profiles"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)


def optimize_dose(
    model: Model | Fit,
    regimen: Regimen,
    target: Target,
    *,
    times: Any = None,
    bounds: tuple[float, float] = (0.01, 100.0),
    subjects: int | pd.DataFrame | Subjects | None = None,
    covariates: pd.DataFrame | Mapping[str, float] | None = None,
    eta: Any = "typical",
    draws: int | None = None,
    uncertainty: Any = None,
    key: Key = 0,
    progress: bool = True,
) -> OptimalDose:
    """The factor of a regimen's amounts (own doses of the subjects left as they are) with which a target is reached.

    **Everyday arguments:** `regimen` and `target`; `subjects`, `covariates`, `eta`, `draws`, `uncertainty` and `key` say for
    whom, as in `nm.simulate`: `eta="typical"` one typical profile each, `eta="population"` a population, `eta="individual"`
    subjects with observations (therapeutic drug monitoring: the next dose is `nm.Regimen.observed() + nm.Regimen(100,
    ...).after(48)`).

    **Others:** `times` of the profiles, needed for Cmax, and for the target's window where it has none; `bounds` of the factor.

    The dose is sought between the bounds on the logarithmic scale: by the derivative of the mean squared logarithmic distance for
    a `value`, by the share itself (of one and the same draws) for the others. Raises as `nm.simulate`, and MethodError for bounds
    that are none, a target without a window, and a metric that the dose does not move.
    """
    low, high = _bounds(bounds)
    if not isinstance(target, Target):
        raise MethodError(f"target must be an nm.Target, got {target!r}.")
    if not isinstance(regimen, Regimen) or not regimen.series:
        raise DataError(f"regimen must be an nm.Regimen with doses to choose, got {regimen!r}.")
    if all(not callable(s.amount) and s.amount == 0 and not is_number(s.rate or None) for s in regimen.series):
        raise DataError(f"every multiple of {regimen} is the same: give amounts above 0, which the search scales.")
    grid, window = _window(target, times)
    simulation = simulate(
        model,
        {"regimen": regimen},
        times=grid,
        subjects=1 if subjects is None and not isinstance(model, Fit) else subjects,
        covariates=covariates,
        eta=eta,
        draws=draws,
        uncertainty=uncertainty,
        key=key,
        progress=progress,
    )
    endpoint = _endpoint(simulation, target)
    with Progress(progress, "optimizing the dose") as line:
        metric = _Metric(simulation, regimen, target, endpoint, window, jax_key(key), line)
        factor, status = _sought(metric, target, low, high)
        values = metric(factor)[0]
    head = {"ID": np.repeat(simulation.ids, simulation.draws), "draw": np.tile(np.arange(simulation.draws), len(simulation.ids))}
    table = pd.DataFrame(head | {target.metric: values.T.ravel()})
    inside = (target.value / 1.2, target.value * 1.2) if target.value is not None else target.window
    attained = float(np.mean((values >= inside[0]) & (values <= inside[1])))
    return OptimalDose(regimen.scaled(factor), factor, target, table, attained, status)


# ---- the search --------------------------------------------------------------------------------------------------------


def _sought(metric: "_Metric", target: Target, low: float, high: float) -> tuple[float, str]:
    """The factor, and how the search ended."""
    if target.value is not None:
        return _nearest(metric, float(target.value), low, high)
    if target.between is not None:
        return _most_inside(metric, target.between, low, high)
    asked = float(target.probability or 0.0)
    level, most = (target.at_least, False) if target.at_least is not None else (target.at_most, True)
    assert level is not None

    def lacking(log_factor: float) -> float:
        """log of the quantile that must be at the level, over the level; it rises with the dose."""
        values = metric(np.exp(log_factor))[0].ravel()
        return float(np.log(np.quantile(values, asked if most else 1.0 - asked) / level))

    ends = lacking(np.log(low)), lacking(np.log(high))
    if ends[0] >= 0 or ends[1] <= 0:
        every = (ends[1] <= 0) if most else (ends[0] >= 0)
        at = (high if most else low) if every else (low if most else high)
        return at, "every dose within the bounds attains it" if every else "no dose within the bounds attains it"
    found = brentq(lacking, np.log(low), np.log(high), xtol=1e-12, rtol=1e-14)
    return float(np.exp(found)), "found"


def _nearest(metric: "_Metric", value: float, low: float, high: float) -> tuple[float, str]:
    """Where the mean squared logarithmic distance has derivative 0, which it has once where the metric rises with the dose."""

    def slope(log_factor: float) -> float:
        m, change = metric(np.exp(log_factor))
        return float(np.mean(np.log(m / value) * change / m)) * np.exp(log_factor)

    ends = slope(np.log(low)), slope(np.log(high))
    if ends[0] >= 0:
        return low, "at the lower bound"
    if ends[1] <= 0:
        return high, "at the upper bound"
    return float(np.exp(brentq(slope, np.log(low), np.log(high), xtol=1e-14, rtol=1e-14))), "found"


def _most_inside(metric: "_Metric", window: tuple[float, float], low: float, high: float) -> tuple[float, str]:
    """Where most profiles lie inside, those near an edge counted by part; begun around where the median meets the middle."""

    def outside(log_factor: float) -> float:
        x = np.log(metric(np.exp(log_factor))[0])
        below, above = ((np.log(end) - x) / SMOOTH for end in window)
        return -float(np.mean(1 / (1 + np.exp(np.clip(below, -50, 50))) / (1 + np.exp(np.clip(-above, -50, 50)))))

    middle, how = _nearest(metric, float(np.sqrt(window[0] * window[1])), low, high)
    reach = np.log(window[1] / window[0]) + 1.0
    ends = max(np.log(low), np.log(middle) - reach), min(np.log(high), np.log(middle) + reach)
    found = minimize_scalar(outside, bounds=ends, method="bounded", options={"xatol": 1e-6})
    best = found.x if found.fun < outside(np.log(middle)) else np.log(middle)
    if -outside(best) < 1e-6:
        return float(np.exp(best)), "no dose within the bounds attains it"
    at_bound = min(abs(best - np.log(low)), abs(best - np.log(high))) < 1e-5
    return float(np.exp(best)), (how if how != "found" else "at a bound") if at_bound else "found"


# ---- the metric and its derivative -------------------------------------------------------------------------------------


class _Metric:
    """M and dM/df (D, N) of all profiles at a factor f of the regimen's amounts."""

    def __init__(
        self,
        simulation: Simulation,
        regimen: Regimen,
        target: Target,
        endpoint: str,
        window: tuple[float, float],
        key: Array,
        line: Progress,
    ):
        start, end = window
        inside = () if simulation.times is None else simulation.times[(simulation.times >= start) & (simulation.times <= end)]
        times = np.unique([start, end, *inside]) if target.metric == "Cmax" else np.array([start, end])
        arm = simulation.arm("regimen", times, before=[end])
        self.line, self.target, self.length = line, target, end - start
        model = AreaModel(arm.latent, (endpoint,)) if target.metric in ("AUC", "Cavg") else showing(arm.latent)
        self.problem = Problem(model, arm.scenario.data)
        self.rates = _rates_of_change(simulation, regimen, arm, times, end)
        trough = int(np.searchsorted(times, end))
        self.run = _compiled(model, target.metric, endpoint, trough)
        self.u = simulation.u
        self.eta = _effects(simulation, self.problem, key)

    def __call__(self, factor: float) -> tuple[Float[np.ndarray, "D N"], Float[np.ndarray, "D N"]]:
        count, size = len(self.u), self.problem.size
        flat = np.arange(count * size)
        width = min(BLOCK, len(flat))
        values, changes = [], []
        for first in range(0, len(flat), width):
            place = np.minimum(np.arange(first, first + width), len(flat) - 1)
            draw, who = place // size, place % size
            part, rate = (jax.tree.map(lambda x, at=who: np.asarray(x)[at], tree) for tree in (self.problem.subjects, self.rates))
            found = self.run(factor, self.u[draw], self.problem.fixed, self.eta[draw, who], part, rate)
            own = min(width, len(flat) - first)
            values.append(np.asarray(found[0])[:own])
            changes.append(np.asarray(found[1])[:own])
            self.line.tick()
        scale = self.length if self.target.metric == "Cavg" else 1.0
        m, change = (np.concatenate(x).reshape(count, size) / scale for x in (values, changes))
        if not np.all(np.isfinite(m)) or np.any(m <= 0):
            raise MethodError(f"{self.target.metric} is not above 0 for every profile at {factor:g} times the regimen's amounts.")
        if not np.any(change != 0):
            raise MethodError(
                f"{self.target.metric} does not depend on the regimen's amounts; are its doses before the window's end?"
            )
        return m, change


def _rates_of_change(simulation: Simulation, regimen: Regimen, arm: Arm, times: np.ndarray, end: float) -> Any:
    """Amounts and rates of the doses per unit of the factor: those of the regimen itself, 0 for the subjects' own."""
    doubled = Simulation(
        simulation.model,
        {"regimen": regimen.scaled(2.0)},
        simulation.people,
        simulation.rule,
        simulation.times,
        simulation.u,
        simulation.eta,
        simulation.residual,
        simulation.key,
        simulation.progress,
    )
    once, twice = (a.scenario.data.subjects.doses for a in (arm, doubled.arm("regimen", times, before=[end])))
    assert once is not None and twice is not None
    return twice.amount - once.amount, None if once.rate is None else twice.rate - once.rate


def _effects(simulation: Simulation, problem: Problem, key: Array) -> Float[np.ndarray, "D N q"]:
    """The random effects of the simulation; new ones where it has none yet."""
    if simulation.eta is not None:
        return np.asarray(simulation.eta)
    z = generator(key).standard_normal((simulation.draws, problem.size, problem.q))
    coordinates = problem.coordinates
    roots = jax.vmap(lambda u: problem.model.omega(coordinates.theta(u, problem.fixed)))(simulation.u)
    return np.einsum("dqr,dnr->dnq", np.asarray(roots), z)


@program
def _compiled(model: AbstractLatentModel, metric: Any, endpoint: Any, trough: Any) -> Callable[..., Any]:
    coordinates = Coordinates(model.parameters())

    def one(factor: Array, u: Array, fixed: Theta, eta: Array, subject: Any, rate: Any) -> Array:
        theta = coordinates.theta(u, fixed)
        doses = subject.doses
        doses = eqx.tree_at(lambda d: d.amount, doses, doses.amount + (factor - 1.0) * rate[0])
        if rate[1] is not None:
            doses = eqx.tree_at(lambda d: d.rate, doses, doses.rate + (factor - 1.0) * rate[1])
        sites = model.observe(theta, eta, eqx.tree_at(lambda s: s.doses, subject, doses))
        if metric in ("AUC", "Cavg"):
            area = sites[AREA + endpoint].mean
            return area[trough] - area[0]
        value = jnp.broadcast_to(sites[endpoint].mean, subject.time.shape)
        return value[trough] if metric == "Ctrough" else jnp.max(value)

    def both(factor: Array, u: Array, fixed: Theta, eta: Array, subjects: Any, rates: Any) -> tuple[Array, Array]:
        def along(u: Array, eta: Array, subject: Any, rate: Any) -> tuple[Array, Array]:
            return jax.jvp(lambda f: one(f, u, fixed, eta, subject, rate), (factor,), (jnp.ones(()),))

        return jax.vmap(along)(u, eta, subjects, rates)

    return jax.jit(lambda factor, *rest: both(jnp.asarray(factor, float), *rest))


# ---- arguments ---------------------------------------------------------------------------------------------------------


def _bounds(bounds: Any) -> tuple[float, float]:
    low, high = bounds if isinstance(bounds, tuple | list) and len(bounds) == 2 else (None, None)
    numbers = all(is_number(x) for x in (low, high))
    if not numbers or not 0 < low < high:  # type: ignore[operator]
        raise MethodError(f"bounds must be a smaller and a larger factor above 0, got {bounds!r}.")
    return float(low), float(high)  # type: ignore[arg-type]


def _window(target: Target, times: Any) -> tuple[np.ndarray, tuple[float, float]]:
    """The times to simulate, and the target's window."""
    if times is None and (target.start is None or target.end is None):
        raise MethodError("when? Give the target start= and end=, or times=.")
    if times is None and target.metric == "Cmax":
        raise MethodError("Cmax is sought among times=...; give them.")
    given = np.array([target.start, target.end], float) if times is None else check_numbers("times", times, kind=DataError)
    window = (
        float(given.min() if target.start is None else target.start),
        float(given.max() if target.end is None else target.end),
    )
    if window[1] <= window[0]:
        raise MethodError(f"the target's window from {window[0]:g} to {window[1]:g} is empty.")
    return given, window


def _endpoint(simulation: Simulation, target: Target) -> str:
    known = simulation.endpoints
    if target.endpoint is None and len(known) > 1:
        raise MethodError(f"which endpoint? The model has {', '.join(known)}: Target(..., endpoint={known[0]!r}).")
    return known[0] if target.endpoint is None else check_word("Target: endpoint", target.endpoint, known, "endpoint")
