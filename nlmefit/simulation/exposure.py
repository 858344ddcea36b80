"""`nm.exposure`: areas, peaks and troughs of simulated profiles."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.options import check_number, check_numbers, check_word
from nlmefit.core.progress import Progress
from nlmefit.core.shown import whole
from nlmefit.data.regimen import Regimen
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.problem import Problem
from nlmefit.simulation.areas import AREA, AreaModel
from nlmefit.simulation.profiles import Arm, Simulation
from nlmefit.simulation.units import exposure_units


def exposure(
    simulation: Simulation,
    start: float | None = None,
    end: float | None = None,
    *,
    above: float | Sequence[float] = (),
    endpoint: str | None = None,
) -> pd.DataFrame:
    """Exposure of every simulated profile between `start` and `end` (None: the first and the last of the simulation's times).

    A row per regimen, ID, draw and endpoint; residual error does not enter. Endpoints are all that `observe` returns, outputs
    without a residual model among them: of a model of log concentrations let it return the concentration, too, and take
    `endpoint="conc"`. One that is infinite somewhere in the window (the logarithm of 0) has no exposure; it is left out with a
    warning.

    | column | what |
    |---|---|
    | AUC | the integral of the prediction, exact: solved for as a state of the system, whatever the simulation's times |
    | Cmax, Tmax | the largest prediction at the simulation's times in the window and at its end, and when, counted from `start` |
    | Cmin | the smallest of the same |
    | Ctrough | the prediction at `end`, just before a dose that is given then |
    | above_X | for each number X in `above`, the share of the window spent above it (linear between times) |
    | accumulation | AUC over the last dosing interval of a regimen, over that of the first; NaN without repeated doses |

    Units, where the model states them, are in `.attrs["units"]`, by endpoint.

    AUC to infinity is the AUC to a late `end`, after the last dose; a window may reach beyond the simulation's times where the
    drug is gone at its end. Ctrl-C gives the draws made so far, and says so.

    Raises DataError for a window that else reaches beyond the simulation's times, that has none of them, or in a part of which a
    dose is given and nothing is seen; where the system is reset inside of it (EVID 3 and 4, SS), as areas begin again there; and
    where an exposure comes out as no number.
    """
    if not isinstance(simulation, Simulation):
        raise MethodError(f"exposure takes what nm.simulate returns, got {type(simulation).__name__}.")
    levels = _levels(above)
    wanted = simulation.endpoints if endpoint is None else (check_word("endpoint", endpoint, simulation.endpoints, "endpoint"),)
    tables = [_of_arm(simulation, name, start, end, levels, wanted) for name in simulation.arms]
    found = whole(pd.concat(tables, ignore_index=True))
    found.attrs["units"] = exposure_units(simulation.model, wanted)
    return found


def _of_arm(
    simulation: Simulation, name: str, start: Any, end: Any, levels: tuple[float, ...], wanted: tuple[str, ...]
) -> pd.DataFrame:
    arm = simulation.arms[name]
    window = _Window.of(start, end, arm.times)
    _check_resets(simulation, name, window)
    _check_seen(arm, window)
    _check_end(arm, window, levels)
    with Progress(simulation.progress, f"exposure under {name}") as line:
        seen, made = _seen(simulation, _inside(simulation, name, window), window, levels, line)
        finite = _finite(seen, made, wanted, name)
        areas, also = _areas(simulation, name, window, finite, line)
    both = {output: areas[output] | seen[output] for output in finite}
    found = _table(simulation, name, both, min(made, also))
    _check_finite(found)
    _check_gone(arm, window, found)
    return found


def _finite(seen: Mapping[str, Mapping[str, np.ndarray]], made: int, wanted: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The wanted outputs that are finite throughout the window; a warning for others, DataError where there are none."""
    infinite = [output for output in wanted if not all(np.isfinite(v[:made]).all() for v in seen[output].values())]
    finite = tuple(output for output in wanted if output not in infinite)
    if infinite and not finite:
        raise DataError(
            f"under {name}, {', '.join(f'`{output}`' for output in infinite)} is infinite in the window, as the logarithm of 0 "
            "is before a dose, so that it has no exposure. Start the window later, or let `observe` return what the logarithm is "
            'of, too, as in {"logconc": jnp.log(conc), "conc": conc}: outputs without a residual model have an exposure.'
        )
    if infinite:
        warnings.warn(
            f"under {name}, {', '.join(infinite)} is infinite in the window (the logarithm of 0?) and has no exposure; "
            f"endpoint={finite[0]!r} asks for the other.",
            stacklevel=4,
        )
    return finite


def _check_finite(found: pd.DataFrame) -> None:
    """DataError at the first exposure that is no number, of those that every profile has."""
    for metric in found.columns[4:]:
        if metric == "accumulation":
            continue  # of a single dose there is none, nor of an area of 0
        bad = np.flatnonzero(~np.isfinite(found[metric].to_numpy(float)))
        if len(bad):
            row = found.iloc[bad[0]]
            raise DataError(
                f"under {row['regimen']}, {metric} of `{row['endpoint']}` is {row[metric]:g} for {len(bad)} of {len(found)} "
                f"profiles, first subject {row['ID']}, draw {row['draw']}. Look at that subject's profile by .frame()."
            )


HOLE = 10.0
"""Times the usual distance between times: from there on a part of the window counts as not seen."""

GONE = 1e-3
"""Of the peak: what may be left at the end of a window that reaches beyond the times."""


@dataclass(frozen=True)
class _Window:
    start: float
    end: float

    @classmethod
    def of(cls, start: Any, end: Any, times: Float[np.ndarray, "N n"]) -> "_Window":
        first, last = float(np.nanmin(times)), float(np.nanmax(times))
        for name, value in (("start", start), ("end", end)):
            if value is not None:
                check_number(name, value, "a time", DataError)
        found = cls(first if start is None else float(start), last if end is None else float(end))
        if found.end <= found.start:
            raise DataError(f"the window from {found.start:g} to {found.end:g} is empty.")
        if found.start > last or found.end < first:
            raise DataError(
                f"the window {found.start:g} to {found.end:g} has none of the simulation's times, {first:g} to {last:g}."
            )
        if found.start < first:
            raise DataError(f"the window starts at {found.start:g}, before the simulation's times, {first:g} to {last:g}.")
        return found


def _levels(above: Any) -> tuple[float, ...]:
    return () if isinstance(above, list | tuple) and not above else tuple(check_numbers("above", above, kind=DataError))


def _check_seen(arm: Arm, window: _Window) -> None:
    """DataError where a subject is hardly seen in a part of the window in which it gets a dose, but closely elsewhere."""
    doses = arm.scenario.data.subjects.doses
    if doses is None:
        return
    known: dict[bytes, list[tuple[float, float]]] = {}  # most subjects are seen at the same times
    for i, times in enumerate(arm.times):
        at = times.tobytes()
        if at not in known:
            known[at] = _holes(times, window)
        holes = known[at]
        given = np.asarray(doses.time[i])[np.asarray(doses.segment[i]) >= 0] if holes else np.zeros(0)
        for low, high in holes:
            if np.any((given > low) & (given < high)):
                raise DataError(
                    f"under {arm.name}, subject {arm.scenario.data.ids[i]} is not seen between {low:g} and {high:g}, where it "
                    "gets doses: peaks and times above a level would be missed. Simulate with times= there, too, or choose a "
                    "window that is seen."
                )


def _holes(times: Float[np.ndarray, " n"], window: _Window) -> list[tuple[float, float]]:
    """Parts of the window, or of what is seen of it, without times, far longer than the usual distance between them."""
    inside = np.unique(times[(times >= window.start) & (times <= window.end)])
    gap = np.diff(inside)
    return [(inside[k], inside[k + 1]) for k in np.flatnonzero(gap > HOLE * np.median(gap))] if len(gap) else []


def _check_end(arm: Arm, window: _Window, levels: tuple[float, ...]) -> None:
    """DataError where more than a drug's disappearance lies between the last of the times and the window's end."""
    last, doses = float(np.nanmax(arm.times)), arm.scenario.data.subjects.doses
    if window.end <= last:
        return
    given = np.zeros(0) if doses is None else np.asarray(doses.time)[np.asarray(doses.segment) >= 0]
    later = given[(given >= last) & (given < window.end)]
    if len(later) or levels:
        why = f"a dose is given at {later.min():g}" if len(later) else "times above a level are not seen there"
        raise DataError(_beyond(arm, window, last, why))


def _check_gone(arm: Arm, window: _Window, found: pd.DataFrame) -> None:
    """DataError where the window reaches beyond the times while there still is something to be seen."""
    last = float(np.nanmax(arm.times))
    if window.end > last and np.any(np.abs(found["Ctrough"]) > GONE * np.abs(found["Cmax"])):
        raise DataError(_beyond(arm, window, last, "there still is something to be seen"))


def _beyond(arm: Arm, window: _Window, last: float, why: str) -> str:
    return (
        f"under {arm.name} the window {window.start:g} to {window.end:g} reaches beyond the last of the simulation's times, "
        f"{last:g}, and {why}, so that peaks would be missed. Simulate with times= to the window's end, or end it earlier."
    )


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
    if not len(times):
        raise DataError(
            f"the simulation has no time between {window.start:g} and {window.end:g} but the end: peaks and times above a "
            "level are not seen there. Simulate with times= in the window."
        )
    return simulation.arm(name, times, before=[window.end])


def _seen(
    simulation: Simulation, arm: Arm, window: _Window, levels: tuple[float, ...], line: Any
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """By endpoint and metric (D, N): what is read off the profiles; and of how many draws."""
    problem, times = arm.problem, arm.times
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

    return found, simulation.visit(arm, problem, read, line)


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


def _areas(
    simulation: Simulation, name: str, window: _Window, outputs: tuple[str, ...], line: Any
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """By endpoint and metric (D, N): AUC, Ctrough and accumulation; and of how many draws."""
    intervals = _intervals(simulation.regimens[name])
    times = np.unique([window.start, window.end, *(t for pair in intervals for t in pair)])
    arm = simulation.arm(name, times, before=[window.end])
    problem = Problem(AreaModel(arm.latent, outputs), arm.scenario.data)
    trough = int(np.searchsorted(times, window.end))
    rows = {t: k + (k >= trough) for k, t in enumerate(times)}  # the row just before a dose at the end stands before that time's
    shape = (simulation.draws, problem.size)
    found = {e: {n: np.full(shape, np.nan) for n in ("AUC", "Ctrough", "accumulation")} for e in outputs}

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

    return found, simulation.visit(arm, problem, read, line)


def _intervals(regimen: Regimen) -> list[tuple[float, float]]:
    """The first and the last dosing interval of a regimen with repeated doses, each from a dose to the next; else none."""
    if regimen.own or not regimen.series or any(s.steady_state for s in regimen.series):
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
    for endpoint, of in found.items():
        metrics = {metric: values[:made].T.ravel() for metric, values in of.items()}
        head = {
            "regimen": name,
            "ID": np.repeat(simulation.ids, made),
            "draw": np.tile(np.arange(made), size),
            "endpoint": endpoint,
        }
        tables.append(pd.DataFrame(head | metrics))
    return pd.concat(tables, ignore_index=True)
