"""`nm.plot.gof`: goodness of fit, predictions and residuals."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from scipy.special import ndtri
from scipy.stats import beta

from nlmefit.core.errors import NlmefitError
from nlmefit.core.options import check_truth
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.diagnose import Diagnostics
from nlmefit.plot import style
from nlmefit.plot.subject import diagnostics_of, title_of
from nlmefit.results.fit import Fit


def gof(
    of: Diagnostics | Fit,
    data: pd.DataFrame | Subjects | None = None,
    *,
    log: bool = False,
    after_dose: bool = False,
) -> Figure:
    """Observations against PRED and IPRED, |IWRES| against IPRED, CWRES against time and PRED, and CWRES' quantiles against the
    normal distribution's: six panels for each endpoint, with a smooth trend (IWRES where it has no CWRES, such as counts).

    **Arguments:** `of` a fit, of its own data or of `data`, or `nm.diagnose(fit)`; `log` shows observations and predictions on
    log axes, without those that are not above 0; `after_dose` the time after the last dose in place of the time.
    Observations known by a limit (CENS) are triangles at that limit and have no residuals; trends are of the others.

    Raises NlmefitError where no endpoint has predictions (categories: see `nm.plot.npde`).
    """
    check_truth("log", log)
    found = diagnostics_of(of, data)
    table, model = found.residuals, found.fit.model
    shown = [name for name in found.problem.families if np.isfinite(table.loc[table["endpoint"] == name, "IPRED"]).any()]
    if not shown:
        raise NlmefitError("no endpoint has a prediction that is a number; see nm.plot.npde.")
    made = style.figure(10.5, 6.4 * len(shown), title_of("Goodness of fit", found.fit) if len(shown) == 1 else "")
    titles = [f"{title_of('Goodness of fit', found.fit)}, {name}" for name in shown]
    if check_truth("after_dose", after_dose):
        table = table.assign(TIME=found.time_after_dose.to_numpy())
    for part, name in zip(style.parts(made, titles), shown, strict=True):
        _panels(part, table[table["endpoint"] == name], model, name, log, after_dose)
    return made


def _panels(on: Figure | SubFigure, own: pd.DataFrame, model: Any, name: str, log: bool, after_dose: bool) -> None:
    unit, axes = style.endpoint_unit(model, name), on.subplots(2, 3)
    columns: dict[str, np.ndarray] = {str(c): own[c].to_numpy() for c in own}
    weighted = "CWRES" if np.isfinite(columns["CWRES"]).any() else "IWRES"
    observed = style.with_unit("Observed", unit)
    for ax, against, label in ((axes[0, 0], "PRED", "Population prediction"), (axes[0, 1], "IPRED", "Individual prediction")):
        _observed(ax, columns, against, log)
        style.tidy(ax, style.with_unit(label, unit), observed)
    _residuals(axes[0, 2], columns["IPRED"], np.abs(columns["IWRES"]), log)
    axes[0, 2].set_ylim(bottom=0)
    style.tidy(axes[0, 2], style.with_unit("Individual prediction", unit), "|IWRES|")
    for ax, x, label in (
        (axes[1, 0], "TIME", style.time_label(model, after_dose)),
        (axes[1, 1], "PRED", style.with_unit("Population prediction", unit)),
    ):
        _residuals(ax, columns[x], columns[weighted], log and x == "PRED")
        style.normal_limits(ax)
        style.tidy(ax, label, weighted)
    quantiles(axes[1, 2], columns[weighted])
    style.tidy(axes[1, 2], "Standard normal quantile", weighted)
    style.legend(on, axes.ravel())


def _observed(ax: Axes, columns: dict[str, np.ndarray], against: str, log: bool) -> None:
    x, y = columns[against], columns["DV"]
    censored = columns.get("CENS", np.zeros(len(y)))
    shown = (np.minimum(x, y) > 0) | (not log)
    seen = shown & (censored == 0)
    if log:
        ax.set_xscale("log")
        ax.set_yscale("log")
    style.dots(ax, x[seen], y[seen], label="observation")
    limits(ax, x[shown], y[shown], censored[shown])
    both = np.concatenate([x[shown], y[shown]])
    both = both[np.isfinite(both)]
    if len(both):
        ends = [both.min(), both.max()]
        ax.plot(ends, ends, color=style.INK, linewidth=0.8, label="identity")
    style.smooth(ax, x[seen], y[seen])


def limits(ax: Axes, x: Any, y: Any, censored: Any) -> None:
    """Observations known by a limit, at that limit."""
    for flag, marker, label in ((1, "v", "below limit"), (-1, "^", "above limit")):
        here = np.asarray(censored) == flag
        if here.any():
            ax.plot(
                np.asarray(x)[here], np.asarray(y)[here], marker, color=style.LIMIT, markersize=5, fillstyle="none", label=label
            )


def _residuals(ax: Axes, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], log: bool) -> None:
    known = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not log))
    if log:
        ax.set_xscale("log")
    style.dots(ax, x[known], y[known])
    style.smooth(ax, x[known], y[known])


def quantiles(ax: Axes, values: Float[np.ndarray, " n"]) -> None:
    """Sorted values against standard normal quantiles, with each one's 95 % limits if they are independent and normal."""
    ordered = np.sort(values[np.isfinite(values)])
    count = len(ordered)
    if not count:
        return
    rank = np.arange(1, count + 1)
    expected = ndtri((rank - 0.5) / count)
    low, high = (ndtri(beta.ppf(p, rank, count + 1 - rank)) for p in (0.025, 0.975))
    ax.fill_between(expected, low, high, color=style.PALE, linewidth=0, label="95 % limits")
    ax.plot(expected[[0, -1]], expected[[0, -1]], color=style.INK, linewidth=0.8)
    style.dots(ax, expected, ordered)
