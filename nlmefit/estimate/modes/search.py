"""The search for the maximum of a method's deterministic objective, how far to trust it, and its standard errors."""

import time
from typing import Any

import numpy as np

from nlmefit.estimate.method import Found, Reporter
from nlmefit.estimate.modes.objective import Contributions, MarginalMethod, Near, Objective, Penalty
from nlmefit.estimate.optimize import Point, Search, minimize
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Uncertainty, covariance
from nlmefit.estimate.start import check_start, check_support
from nlmefit.estimate.status import Status, collapsed, judge, lost

VERIFIED = 3
"""How often at most a search goes on from the modes found from 0."""
SAME = 1e-9
"""A relative difference of -2 log L that is none."""


def maximize(problem: Problem, method: MarginalMethod, progress: Reporter, penalty: Penalty | None = None) -> Found:
    """The maximum (of what is left after the penalty), found by `minimize` from the start values; Ctrl-C ends with the best
    values so far."""
    began = time.perf_counter()
    objective, first = _started(problem, method, penalty)
    compiled = time.perf_counter()
    search = _search(objective, first, progress)
    elsewhere = _other_modes(objective, search, progress)
    searched = time.perf_counter()
    found = search.point.extra
    final = problem.final(search.point.u, found.z)
    status = judge(
        search,
        problem.coordinates,
        final.theta,
        failing=problem.labels(~found.converged),
        elsewhere=elsewhere,
        prior=penalty is not None,
    )
    answer = _answer(objective, search.point, status)
    answer.uncertainty = _uncertainty(problem, search, method, final.slope, penalty is not None)
    answer.history = search.history
    answer.seconds = {"prepare and compile": compiled - began, "fit": searched - compiled}
    return answer


def evaluate(problem: Problem, method: MarginalMethod) -> Found:
    """The objective at the start values."""
    objective, point = _started(problem, method)
    failing = problem.labels(~point.extra.converged)
    status = Status("evaluated", (lost(failing) if failing else "at the given values, nothing estimated.",))
    return _answer(objective, point, status)


def _started(problem: Problem, method: MarginalMethod, penalty: Penalty | None = None) -> tuple[Objective, Point]:
    """The objective and its first point. Raises DataError where that is not a number."""
    objective = Objective(problem, method, penalty)
    check_support(problem, problem.coordinates.start())
    point = _point(objective, problem.coordinates.start())
    bad = ~np.isfinite(point.extra.value)
    if not bad.any() and not point.finite:
        bad = ~np.all(np.isfinite(point.by_subject), axis=1)
    check_start(problem, bad)
    return objective, point


def _answer(objective: Objective, point: Point, status: Status) -> Found:
    found: Contributions = point.extra
    return Found(
        u=point.u,
        z=found.z,
        posterior=objective.method.posterior(found),
        value=found.value,
        status=status,
        kind=objective.method.kind,
        converged=found.converged,
        iterations=found.iterations,
        notes={**_notes(objective), **_passed_over(objective)},
    )


def _point(objective: Objective, u: np.ndarray, near: Point | None = None) -> Point:
    found = objective.contributions(u, None if near is None else Near(near.u, near.extra))
    value, gradient = objective.penalty(u)
    return Point(u, float(np.sum(found.value)) + value, np.sum(found.gradient, axis=0) + gradient, found.gradient, found)


def _other_modes(objective: Objective, search: Search, progress: Reporter) -> dict[Any, float]:
    """By subject that has a better mode than the one found: what -2 log L would change by with that one."""
    if search.stopped or not objective.method.has_modes or objective.method.all_modes:
        return {}
    try:
        progress.stage("looking for other modes")
        found: Contributions = search.point.extra
        best = objective.best_modes(search.point.u, found)
    except KeyboardInterrupt:
        search.stopped = "interrupted"
        return {}
    better = best.inner < found.inner - 1e-6
    return dict(zip(objective.problem.labels(better), (best.value - found.value)[better].tolist(), strict=True))


def _search(objective: Objective, first: Point, progress: Reporter) -> Search:
    """Minimize from `first`; where an omega collapses to 0 on the way, once more from there with that omega as it started."""
    search = _verified(objective, _descend(objective, first, progress), progress)
    gone = collapsed(objective.coordinates, search.point.u)
    if search.stopped or not gone.any():
        return search
    try:
        again = _point(objective, np.where(gone, first.u, search.point.u))
        second = _verified(objective, _descend(objective, again, progress), progress) if again.finite else search
    except KeyboardInterrupt:
        search.stopped = "interrupted"
        return search
    if second.point.value < search.point.value - 1e-6:
        return second
    search.stopped = second.stopped
    return search


def _verified(objective: Objective, search: Search, progress: Reporter) -> Search:
    """The search with the modes of its last point sought from 0. The search itself followed each mode from point to point, and
    may have left the one that is found from 0; then it goes on from that one."""
    for _ in range(VERIFIED):
        if search.stopped:
            break
        try:
            cold = _point(objective, search.point.u)
            if not cold.finite or abs(cold.value - search.point.value) <= SAME * (1.0 + abs(cold.value)):
                search.point = cold if cold.finite else search.point
                break
            again = _descend(objective, cold, progress)
        except KeyboardInterrupt:
            search.stopped = "interrupted"
            break
        again.history = search.history + [{**row, "iteration": row["iteration"] + search.iterations} for row in again.history]
        again.iterations += search.iterations
        search = again
    else:
        search.stopped = "the search follows other modes than those found from 0, each time it goes on from these"
    return search


def _descend(objective: Objective, first: Point, progress: Reporter) -> Search:
    coordinates = objective.coordinates
    curvature = 0.5 * np.sum(first.by_subject**2, axis=0)
    spread = np.sqrt(2.0 / np.where(curvature > 0, curvature, 2.0))  # about a standard error
    large = np.where(coordinates.transformed, 1.0, np.maximum(np.abs(first.u), 10 * spread))

    def evaluate(u: np.ndarray, near: Point) -> Point:
        progress.tick()
        return _point(objective, u, near)

    return minimize(evaluate, first, large, progress)


def _notes(objective: Objective) -> dict[str, str]:
    """What the method says of itself; where there is no residual variance, nothing of where that is taken."""
    normal = any(gaussian or kind == "CensoredNormal" for kind, gaussian in objective.problem.families.values())
    return {name: said for name, said in objective.method.notes.items() if normal or name != "interaction"}


def _passed_over(objective: Objective) -> dict[str, str]:
    """What could not be solved on the way, in words; nothing where all could."""
    said = {}
    if objective.failures:
        said["not solved"] = f"{objective.failures} trial points of random effects, which were passed over"
    if objective.rescued:
        said["solved again"] = f"{objective.rescued} searches for a mode, by the stiff solver"
    return said


def _uncertainty(problem: Problem, search: Search, method: MarginalMethod, slope: np.ndarray, prior: bool) -> Uncertainty | None:
    if method.covariance == "none" or problem.coordinates.size == 0:
        return None
    return covariance(method.covariance, search.hessian, search.point.by_subject, slope, problem.coordinates.names, prior)
