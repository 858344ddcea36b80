"""`nm.exposure`: areas, peaks and troughs of simulated profiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from nlmefit.data.regimen import Regimen
from nlmefit.data.subjects import Subjects
from nlmefit.errors import DataError, MethodError
from nlmefit.estimate.problem import Problem
from nlmefit.progress import Progress
from nlmefit.simulation.areas import AREA, AreaModel
from nlmefit.simulation.profiles import Arm, Simulation


def exposure(
    simulation: Simulation,
    start: float | None = None,
    end: float | None = None,
    *,
    above: float | Sequence[float] = (),
) -> pd.DataFrame:
    """Exposure of every simulated profile between `start` and `end` (None: the first and the last of the simulation's times).

    A row per regimen, ID, draw and endpoint; residual error does not enter:

    | column | what |
    |---|---|
    | AUC | the integral of the prediction, exact: solved for as a state of the system, whatever the simulation's times |
    | Cmax, Tmax | the largest prediction at the simulation's times in the window and at its end, and when, counted from `start` |
    | Cmin | the smallest of the same |
    | Ctrough | the prediction at `end`, just before a dose that is given then |
    | above_X | for each number X in `above`, the share of the window spent above it (linear between times) |
    | accumulation | AUC over the last dosing interval of a regimen, over that of the first; NaN without repeated doses |

    AUC to infinity is the AUC to a late `end`, after the last dose. Ctrl-C gives the draws made so far, and says so.

    Raises DataError for a window that lies outside of the times, and where the system is reset inside of it (EVID 3 and 4, SS):
    areas begin again there.
    """
    if not isinstance(simulation, Simulation):
        raise MethodError(f"exposure takes what nm.simulate returns, got {type(simulation).__name__}.")
    levels = _levels(above)
    tables = []
    for name, arm in simulation.arms.items():
        window = _Window.of(start, end, arm.scenario.times)
        _check_resets(simulation, name, window)
        with Progress(simulation.progress, f"exposure under {name}") as line:
            seen, made = _seen(simulation, _inside(simulation, name, window), window, levels, line)
            areas, also = _areas(simulation, name, window, line)
        both = {endpoint: areas[endpoint] | seen[endpoint] for endpoint in simulation.endpoints}
        tables.append(_table(simulation, name, both, min(made, also)))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class _Window:
    start: float
    end: float

    @classmethod
    def of(cls, start: Any, end: Any, times: Float[np.ndarray, "N n"]) -> "_Window":
        first, last = float(np.nanmin(times)), float(np.nanmax(times))
        for name, value in (("start", start), ("end", end)):
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
            if value is not None and not number:
                raise DataError(f"{name} must be a time, got {value!r}.")
        found = cls(first if start is None else float(start), last if end is None else float(end))
        if found.end <= found.start:
            raise DataError(f"the window from {found.start:g} to {found.end:g} is empty.")
        if found.start > last or found.end < first:
            raise DataError(
                f"the window {found.start:g} to {found.end:g} has none of the simulation's times, {first:g} to {last:g}."
            )
        return found


def _levels(above: Any) -> tuple[float, ...]:
    values = (above,) if np.isscalar(above) else tuple(above)
    if not all(isinstance(v, int | float | np.number) and np.isfinite(v) for v in values):
        raise DataError(f"above must be one or several numbers, got {above!r}.")
    return tuple(float(v) for v in values)


def _check_resets(simulation: Simulation, name: str, window: _Window) -> None:
    regimen = simulation.regimens[name]
    times = [s.start for s in regimen.series if s.steady_state]
    if regimen.own:
        assert isinstance(simulation.people, Subjects)
        s = simulation.people.subjects
        times += [] if s.resets is None else list(s.resets[np.isfinite(s.resets)])
        if s.doses is not None and s.doses.steady is not None:
            times += list(s.doses.time[s.doses.steady == 1])
    inside = [t for t in times if window.start < t <= window.end]
    if inside:
        raise DataError(
            f"under {name} the system is reset at {min(inside):g}, inside of the window {window.start:g} to {window.end:g}; "
            "areas begin again there. Choose a window that starts at the reset, or one that ends before it."
        )


# ---- from the profiles -----------------------------------------------------------------------------------------------


def _inside(simulation: Simulation, name: str, window: _Window) -> Arm:
    """The subjects at the simulation's times in the window, at its end just before a dose that is given then."""
    if simulation.times is None:
        return simulation.arms[name]
    times = simulation.times[(simulation.times >= window.start) & (simulation.times < window.end)]
    return simulation.arm(name, times, before=[window.end])


def _seen(
    simulation: Simulation, arm: Arm, window: _Window, levels: tuple[float, ...], line: Any
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """By endpoint and metric (D, N): what is read off the profiles; and of how many draws."""
    problem, times = arm.problem, arm.scenario.times
    inside = (times >= window.start) & (times <= window.end)
    if not inside.any(axis=1).all():
        who = simulation.ids[~inside.any(axis=1)][0]
        raise DataError(f"subject {who} is not seen between {window.start:g} and {window.end:g}; give more times.")
    names = ["Cmax", "Tmax", "Cmin", *(f"above_{x:g}" for x in levels)]
    found = {e: {n: np.full((simulation.draws, problem.size), np.nan) for n in names} for e in simulation.endpoints}

    def read(piece: Any) -> None:
        here = inside[piece.subjects]
        for endpoint, metrics in found.items():
            values = piece.values[endpoint]
            top = np.where(here, values, -np.inf)
            at = (piece.draws, piece.subjects)
            where = np.argmax(top, axis=-1)
            metrics["Cmax"][at] = np.take_along_axis(top, where[..., None], axis=-1)[..., 0]
            metrics["Tmax"][at] = np.take_along_axis(times[piece.subjects], where.T, axis=1).T - window.start
            metrics["Cmin"][at] = np.where(here, values, np.inf).min(axis=-1)
            for level in levels:
                metrics[f"above_{level:g}"][at] = _share_above(values, times[piece.subjects], here, level)

    return found, simulation.visit(problem, read, line)


def _share_above(
    values: Float[np.ndarray, "d b T"], times: Float[np.ndarray, "b T"], inside: Bool[np.ndarray, "b T"], level: float
) -> Float[np.ndarray, "d b"]:
    """Share of the time above the level, profiles linear between times."""
    step = np.where(inside[:, 1:] & inside[:, :-1], np.diff(times, axis=1), 0.0)
    left, right = values[..., :-1] - level, values[..., 1:] - level
    crossing = (left > 0) != (right > 0)
    gap = np.where(crossing, np.abs(left) + np.abs(right), 1.0)
    share = np.where(crossing, np.maximum(left, right) / gap, left > 0)
    total = step.sum(axis=1)
    return np.where(total > 0, (np.where(step > 0, share, 0.0) * step).sum(axis=-1) / np.where(total > 0, total, 1.0), np.nan)


# ---- solved for ------------------------------------------------------------------------------------------------------


def _areas(simulation: Simulation, name: str, window: _Window, line: Any) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """By endpoint and metric (D, N): AUC, Ctrough and accumulation; and of how many draws."""
    intervals = _intervals(simulation.regimens[name])
    times = np.unique([window.start, window.end, *(t for pair in intervals for t in pair)])
    arm = simulation.arm(name, times, before=[window.end])
    problem = Problem(AreaModel(arm.latent), arm.scenario.data)
    trough = int(np.searchsorted(times, window.end))
    rows = {t: k + (k >= trough) for k, t in enumerate(times)}  # the row just before a dose at the end stands before that time's
    shape = (simulation.draws, problem.size)
    found = {e: {n: np.full(shape, np.nan) for n in ("AUC", "Ctrough", "accumulation")} for e in simulation.endpoints}

    def read(piece: Any) -> None:
        at = (piece.draws, piece.subjects)
        for endpoint, metrics in found.items():
            area, value = piece.values[AREA + endpoint], piece.values[endpoint]

            def between(a: float, b: float, area: np.ndarray = area) -> np.ndarray:
                return area[..., rows[b]] - area[..., rows[a]]

            metrics["AUC"][at] = between(window.start, window.end)
            metrics["Ctrough"][at] = value[..., trough]
            if intervals:
                with np.errstate(divide="ignore", invalid="ignore"):
                    metrics["accumulation"][at] = between(*intervals[1]) / between(*intervals[0])

    return found, simulation.visit(problem, read, line)


def _intervals(regimen: Regimen) -> list[tuple[float, float]]:
    """The first and the last dosing interval of a regimen with repeated doses, each from a dose to the next; else none."""
    if regimen.own or any(s.steady_state for s in regimen.series):
        return []
    starts = np.unique([s.start + k * s.every for s in regimen.series for k in range(s.doses)])
    last = max(regimen.series, key=lambda s: s.start + (s.doses - 1) * s.every)
    if len(starts) < 2 or last.every == 0:
        return []
    return [(starts[0], starts[1]), (starts[-1], starts[-1] + last.every)]


# ---- the table -------------------------------------------------------------------------------------------------------


def _table(simulation: Simulation, name: str, found: dict[str, dict[str, np.ndarray]], made: int) -> pd.DataFrame:
    size = len(simulation.ids)
    tables = []
    for endpoint in simulation.endpoints:
        metrics = {metric: values[:made].T.ravel() for metric, values in found[endpoint].items()}
        head = {
            "regimen": name,
            "ID": np.repeat(simulation.ids, made),
            "draw": np.tile(np.arange(made), size),
            "endpoint": endpoint,
        }
        tables.append(pd.DataFrame(head | metrics))
    return pd.concat(tables, ignore_index=True)
