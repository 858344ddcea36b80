"""The outer optimizer: BFGS that starts from the cross-product of the subjects' gradients, finished by Newton steps.

The starting metric B = 1/2 sum_i g_i g_i' (Berndt, Hall, Hall and Hausman 1974) makes the first step right in scale and
direction. Convergence is judged by the predicted gain of one more Newton step with the Hessian itself (finite
differences of the exact gradient), not by the optimizer's own opinion.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from nlmefit.estimate.spectrum import smallest, spectrum

Vector = Float[np.ndarray, "p"]

Evaluate = Callable[[Vector, "Point"], "Point"]
"""The point at u, and one near by at which everything is known already: whatever has to be searched for begins there."""

NOTHING = 1e-4
"""A fall of the objective over a whole large step that is not worth the step."""


@dataclass
class Point:
    """The objective at u: value, gradient, the subjects' gradients (N, p), and whatever else the evaluation gave."""

    u: Vector
    value: float
    gradient: Vector
    by_subject: Float[np.ndarray, "N p"]
    extra: Any = None

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.all(np.isfinite(self.gradient)))


@dataclass
class Search:
    """What the optimizer found."""

    point: Point
    hessian: Float[np.ndarray, "p p"] | None
    """R at the point, None where the search was cut short."""
    decrement: float
    """Predicted fall of the objective by one more Newton step; NaN where R is not positive definite."""
    iterations: int
    stopped: str = ""
    """Why it ended early; empty if it ended by itself."""
    history: list[dict[str, Any]] = field(default_factory=list)

    def among(self, chosen: Bool[np.ndarray, "p"]) -> "Search":
        """The same of some coordinates, the others held where they are."""
        point = self.point
        gradient = point.gradient[chosen]
        own = replace(point, u=point.u[chosen], gradient=gradient, by_subject=point.by_subject[:, chosen])
        if self.hessian is None:
            return replace(self, point=own)
        R = self.hessian[np.ix_(chosen, chosen)]
        gain = 0.5 * float(gradient @ np.linalg.solve(R, gradient)) if smallest(R) > 0 else np.nan
        return replace(self, point=own, hessian=R, decrement=gain)


@dataclass(frozen=True)
class Control:
    """Tolerances: `gain` is the predicted fall of the objective below which BFGS stops, `limit` the most iterations."""

    gain: float = 1e-8
    limit: int = 300


def minimize(
    evaluate: Evaluate,
    start: Point,
    large: Vector,
    report: Callable[[int, Point], None],
    control: Control = Control(),
) -> Search:
    """Minimize from `start`. `large` says per coordinate which change is large (a step never exceeds it).

    Interrupting (Ctrl-C) ends the search with the best point so far.
    """
    search = Search(start, None, np.inf, 0)
    try:
        for _ in range(4):
            _bfgs(evaluate, search, large, report, control)
            if search.stopped or _newton(evaluate, search, large, control):
                break
    except KeyboardInterrupt:
        search.stopped = "interrupted"
    except np.linalg.LinAlgError:
        search.stopped = "the curvature of the objective is beyond what numbers can hold"
    return search


def _bfgs(evaluate: Evaluate, search: Search, large: Vector, report: Callable[[int, Point], None], control: Control) -> None:
    inverse = np.linalg.inv(_metric(search))
    while True:
        point = search.point
        report(search.iterations, point)
        search.history.append({"iteration": search.iterations, "objective": point.value})
        step = -inverse @ point.gradient
        if -0.5 * (point.gradient @ step) < control.gain:
            return
        if search.iterations >= control.limit:
            search.stopped = f"no optimum after {control.limit} iterations"
            return
        new = _line_search(evaluate, point, _limited(step, inverse, point.gradient, large))
        if new is None:
            return
        search.iterations += 1
        inverse = _update(inverse, new.u - point.u, new.gradient - point.gradient)
        search.point = new


def _metric(search: Search) -> np.ndarray:
    """A positive definite curvature to start from: the Hessian if known, else the gradients' cross-product."""
    if search.hessian is not None:
        known = spectrum(search.hessian)
        values = np.abs(known.values)
        return known.with_values(np.maximum(values, 1e-6 * max(np.max(values), 1e-300)))
    gradients = search.point.by_subject
    with np.errstate(over="ignore", invalid="ignore"):
        crossed = spectrum(0.5 * gradients.T @ gradients)
    return crossed.with_values(np.maximum(crossed.values, 1e-3))


def _limited(step: Vector, inverse: Float[np.ndarray, "p p"], gradient: Vector, large: Vector) -> Vector:
    """The step, shortened so that it is nowhere larger than `large`.

    A coordinate along which there is nothing to gain (the log of an omega that has collapsed) asks for an endless step, and
    shortening all of them with it would bring the search to a crawl: it goes so far and no further, and the others take the
    model's best step beside it.
    """
    endless = (np.abs(step) > large) & (np.abs(gradient) * large < NOTHING)
    if endless.any() and not endless.all():
        free, beside = ~endless, step.copy()
        beside[endless] = np.sign(step[endless]) * large[endless]
        try:
            curvature = np.linalg.inv(inverse)
            pull = gradient[free] + curvature[np.ix_(free, endless)] @ beside[endless]
            beside[free] = -np.linalg.solve(curvature[np.ix_(free, free)], pull)
        except np.linalg.LinAlgError:  # a metric that is singular to rounding: all are shortened alike
            beside = step
        step = beside
    return step * min(1.0, 1.0 / np.max(np.abs(step) / large))


def _line_search(evaluate: Evaluate, point: Point, step: Vector) -> Point | None:
    """A point that lowers the objective enough along `step`: shorter where needed, longer where the slope stays steep."""
    slope, length, best = point.gradient @ step, 1.0, None
    for _ in range(30):
        trial = evaluate(point.u + length * step, point)
        good = trial.finite and trial.value <= point.value + 1e-4 * length * slope
        if good and best is not None and trial.value >= best.value:
            return best
        if good:
            best = trial
            steep = trial.gradient @ step < 0.7 * slope
            if not steep or length >= 4.0:
                return best
            length *= 2.0
            continue
        if best is not None:
            return best
        if trial.finite:
            fitted = -slope * length / (2 * ((trial.value - point.value) / length - slope))
            length *= float(np.clip(fitted / length, 0.1, 0.5))
        else:
            length *= 0.2
        if length < 1e-8:
            return None
    return best


def _update(inverse: np.ndarray, s: Vector, y: Vector) -> np.ndarray:
    """The BFGS update of the inverse Hessian; left as it is where the curvature along s is not positive."""
    sy = s @ y
    if sy <= 1e-10 * np.linalg.norm(s) * np.linalg.norm(y):
        return inverse
    left = np.eye(len(s)) - np.outer(s, y) / sy
    return left @ inverse @ left.T + np.outer(s, s) / sy


def _newton(evaluate: Evaluate, search: Search, large: Vector, control: Control) -> bool:
    """Take up to three Newton steps with the true Hessian while they pay; True where the search is finished."""
    for remaining in (3, 2, 1, 0):
        point = search.point
        found = _newton_step(evaluate, search, large)
        if found is None:
            return True
        step, gain = found
        if gain < 100 * control.gain or not remaining:
            return True
        new = _line_search(evaluate, point, step * min(1.0, 1.0 / np.max(np.abs(step) / large)))
        if new is None:
            return True
        search.iterations += 1
        search.history.append({"iteration": search.iterations, "objective": new.value})
        search.point = new
        if point.value - new.value > 1e-3:
            return False
    return True


def _newton_step(evaluate: Evaluate, search: Search, large: Vector) -> tuple[Vector, float] | None:
    """Note R and the decrement at the search's point; the Newton step from there and its predicted gain, None for none."""
    point = search.point
    if len(point.u) == 0:
        search.hessian, search.decrement = np.zeros((0, 0)), 0.0
        return None
    search.hessian = hessian(evaluate, point, large)
    if not np.all(np.isfinite(search.hessian)):
        search.decrement = np.nan
        return None
    R = spectrum(search.hessian)
    sizes = np.abs(R.values)
    along = R.vectors.T @ (point.gradient / R.scale)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of gradients beyond numbers: no gain to compare
        gain = float(0.5 * np.sum(along**2 / np.maximum(sizes, 1e-12 * np.max(sizes))))
    if not np.isfinite(gain):
        raise np.linalg.LinAlgError("a gain beyond numbers")
    search.decrement = gain if R.values[0] > 0 else np.nan
    return -R.vectors @ (along / np.maximum(sizes, 1e-8 * np.max(sizes))) / R.scale, gain


def hessian(evaluate: Evaluate, point: Point, large: Vector) -> Float[np.ndarray, "p p"]:
    """R: central differences of the gradient, with steps of a small part of a standard error in each coordinate."""
    with np.errstate(divide="ignore", over="ignore"):
        curvature = 0.5 * np.sum(point.by_subject**2, axis=0)
        h = np.clip(3e-3 * np.sqrt(2.0 / curvature), 1e-300, 1e-2 * large)
    rows = []
    for k in range(len(point.u)):
        step = np.zeros_like(point.u)
        step[k] = h[k]
        ahead, behind = evaluate(point.u + step, point), evaluate(point.u - step, point)
        rows.append((ahead.gradient - behind.gradient) / (2 * h[k]))
    return 0.5 * (np.array(rows).reshape(len(h), len(h)) + np.array(rows).reshape(len(h), len(h)).T)
