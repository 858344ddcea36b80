"""`nm.plot.individuals`: each subject's observations and predictions over time."""

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import NlmefitError
from nlmefit.core.options import check_truth
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.diagnose import Diagnostics
from nlmefit.plot import style
from nlmefit.plot.dense import dense
from nlmefit.plot.gof import limits
from nlmefit.plot.subject import diagnostics_of, title_of
from nlmefit.results.fit import Fit

Data = pd.DataFrame | Subjects | None

MOST = 80
"""Panels of a figure that is not divided in pages."""
COLUMNS = 4


@overload
def individuals(
    of: Diagnostics | Fit, *, per_page: None = None, subjects: Sequence[Any] | None = None, log: bool = False, data: Data = None
) -> Figure: ...


@overload
def individuals(
    of: Diagnostics | Fit, *, per_page: int, subjects: Sequence[Any] | None = None, log: bool = False, data: Data = None
) -> list[Figure]: ...


def individuals(
    of: Diagnostics | Fit,
    *,
    per_page: int | None = None,
    subjects: Sequence[Any] | None = None,
    log: bool = False,
    data: Data = None,
) -> Figure | list[Figure]:
    """A panel for each subject (and endpoint): observations, the individual prediction and the population's (eta = 0, the
    subject's covariates and doses), computed between the observations too. Doses are ticks at the bottom, infusions bars;
    observations known by a limit (CENS) triangles at that limit.

    **Arguments:** `of` a fit, of its own data or of `data`, or `nm.diagnose(fit)`; `per_page` subjects on a
    figure, the answer then being a list of figures; `subjects` the IDs to show, all where None; `log` a log axis for values
    above 0.

    Raises NlmefitError for unknown subjects, a `per_page` that is no whole number from 1 up, more than 80 panels on a single
    figure, and where no endpoint has predictions.
    """
    check_truth("log", log)
    found = diagnostics_of(of, data)
    chosen = _chosen(found, subjects)
    if per_page is not None and (isinstance(per_page, bool) or not isinstance(per_page, int | np.integer) or per_page < 1):
        raise NlmefitError(f"per_page must be a whole number from 1 up, got {per_page!r}.")
    table = found.residuals
    endpoints = [n for n in found.problem.families if np.isfinite(table.loc[table["endpoint"] == n, "IPRED"]).any()]
    if not endpoints:
        raise NlmefitError("no endpoint has a prediction that is a number.")
    if per_page is None and len(chosen) * len(endpoints) > MOST:
        raise NlmefitError(
            f"{len(chosen) * len(endpoints)} panels are too many for one figure; give per_page=12, or subjects=[...]."
        )
    curves = dense(found.fit.model, found.data, found.eta)
    if per_page is None:
        return _page(found, curves, chosen, endpoints, log, "")
    pages = [chosen[k : k + per_page] for k in range(0, len(chosen), per_page)]
    return [_page(found, curves, p, endpoints, log, f", page {k} of {len(pages)}") for k, p in enumerate(pages, 1)]


def _chosen(found: Diagnostics, subjects: Sequence[Any] | None) -> list[Any]:
    known = list(found.problem.ids)
    if subjects is None:
        return known
    if isinstance(subjects, str) or not isinstance(subjects, Iterable):
        raise NlmefitError(f"subjects must be a list of IDs, got {subjects!r}.")
    for who in subjects:
        if who not in known:
            raise NlmefitError(f"there is no subject {who!r}; the first are {', '.join(map(str, known[:5]))}.")
    if not len(subjects):
        raise NlmefitError("subjects=[] leaves nobody to show.")
    return list(subjects)


def _page(found: Diagnostics, curves: pd.DataFrame, chosen: list[Any], endpoints: list[str], log: bool, page: str) -> Figure:
    columns = _columns(len(chosen), len(endpoints))
    count = len(chosen) * len(endpoints)
    rows, model = -(-count // columns), found.fit.model
    made = style.figure(2.75 * columns + 0.4, 2.15 * rows + 0.75, title_of("Individual fits", found.fit) + page)
    axes = made.subplots(rows, columns, squeeze=False).ravel()
    observed = dict(tuple(found.residuals.groupby(["ID", "endpoint"], sort=False)))
    lines = dict(tuple(curves.groupby("ID", sort=False)))
    for k, (who, name) in enumerate((who, name) for who in chosen for name in endpoints):
        ax = axes[k]
        _panel(ax, observed.get((who, name)), lines[who], name, log)
        _doses(ax, found, who)
        label = style.with_unit(name, style.endpoint_unit(model, name)) if k % columns == 0 or len(endpoints) > 1 else ""
        below = style.time_label(model) if k + columns >= count else ""
        style.tidy(ax, below, label, f"ID {who}" if len(endpoints) == 1 else f"ID {who}, {name}")
    for ax in axes[count:]:
        ax.set_axis_off()
    style.legend(made, list(axes[:count]))
    return made


def _columns(subjects: int, endpoints: int) -> int:
    """Panels side by side: all endpoints of a subject in one row."""
    return min(subjects, max(1, COLUMNS // endpoints)) * endpoints


def _panel(ax: Axes, own: pd.DataFrame | None, lines: pd.DataFrame, name: str, log: bool) -> None:
    if log:
        ax.set_yscale("log", nonpositive="mask")
    looks = (("PRED", style.SECOND, (0, (4, 2)), "population prediction"), ("IPRED", style.FIT, "-", "individual prediction"))
    for kind, colour, dashes, label in looks:
        x, y = _unbroken(lines["TIME"].to_numpy(float), lines[(name, kind)].to_numpy(float))
        ax.plot(x, np.where((y > 0) | (not log), y, np.nan), color=colour, linestyle=dashes, linewidth=1.3, label=label)
    if own is None:
        return
    time, value = own["TIME"].to_numpy(float), own["DV"].to_numpy(float)
    censored = own["CENS"].to_numpy() if "CENS" in own else np.zeros(len(own))
    shown = (value > 0) | (not log)
    seen = shown & (censored == 0)
    ax.plot(time[seen], value[seen], "o", color=style.DATA, markersize=4, markeredgewidth=0, label="observation", zorder=3)
    limits(ax, time[shown], value[shown], censored[shown])


def _unbroken(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """With a gap where the clock restarts."""
    back = np.flatnonzero(np.diff(x) < 0) + 1
    return np.insert(x, back, np.nan), np.insert(y, back, np.nan)


def _doses(ax: Axes, found: Diagnostics, who: Any) -> None:
    """Ticks along the bottom at a subject's doses, bars over infusions of known duration."""
    doses = found.data.subjects.doses
    if doses is None:
        return
    i = list(found.problem.ids).index(who)
    real = (np.asarray(doses.segment)[i] >= 0) & (np.asarray(doses.amount)[i] != 0)
    time = np.asarray(doses.time)[i][real]
    ax.plot(
        time,
        np.full(len(time), 0.0),
        "|",
        color=style.INK,
        markersize=9,
        transform=ax.get_xaxis_transform(),
        clip_on=False,
        label="dose",
    )
    for start, end in zip(time, time + _durations(doses, i, real), strict=True):
        if end > start:
            ax.axvspan(start, end, ymax=0.03, color=style.INK, alpha=0.5, linewidth=0)


def _durations(doses: Any, i: int, real: np.ndarray) -> Float[np.ndarray, " d"]:
    """How long each dose is infused, 0 of a bolus and where the model decides it."""
    amount = np.asarray(doses.amount)[i][real]
    length = np.zeros(len(amount)) if doses.duration is None else np.asarray(doses.duration)[i][real]
    if doses.rate is None:
        return length
    rate = np.asarray(doses.rate)[i][real]
    return np.where(rate > 0, amount / np.where(rate > 0, rate, 1.0), length)
