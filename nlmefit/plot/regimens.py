"""`nm.plot.regimens`: simulated profiles under several regimens, side by side."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import NlmefitError, unknown
from nlmefit.core.options import check_truth, check_word
from nlmefit.data.reading import Reading
from nlmefit.data.subjects import Subjects
from nlmefit.plot import style
from nlmefit.plot.legend import legend_below
from nlmefit.results.saved import model_name
from nlmefit.simulation.profiles import Simulation

COLUMNS = 3
TAILS = (0.05, 0.5, 0.95)


def regimens(
    simulation: Simulation,
    observed: pd.DataFrame | Subjects | None = None,
    *,
    endpoint: str | None = None,
    log: bool = False,
) -> Figure:
    """A panel for each regimen (a row of them for each endpoint): the median over the subjects and the band that holds 90 % of
    them, and thin lines for the medians under the other regimens.

    With several draws the lines are medians over the draws, and the darker bands around them hold 90 % of the draws: the
    uncertainty of the quantiles. Of a single subject the bands are over its draws.

    **Arguments:** `observed` a data set whose observations are shown; with a column `regimen` each in the panel of that name;
    `endpoint` one of several; `log` a log axis. Raises NlmefitError for what is no simulation, for unknown endpoints and
    regimens; as `Simulation.bands` where the subjects have times of their own.
    """
    if not isinstance(simulation, Simulation):
        raise NlmefitError(f"the figure is of what nm.simulate returned, got {type(simulation).__name__}.")
    if endpoint is not None:
        check_word("endpoint", endpoint, simulation.endpoints, "endpoint", NlmefitError)
    check_truth("log", log)
    shown = list(simulation.endpoints) if endpoint is None else [endpoint]
    single = len(simulation.ids) == 1
    bands = simulation.bands(TAILS, by="ID" if single else "draw")
    seen = None if observed is None else _observed(simulation, observed)
    names = list(simulation.regimens)
    columns = 2 if len(names) == 4 else min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    made = style.figure(max(6.4, 3.4 * columns + 0.6), 2.9 * lines * len(shown) + 0.9, _title(simulation, single))
    grid = made.subplots(lines * len(shown), columns, squeeze=False, sharex=True)
    for e, name in enumerate(shown):
        own = bands[bands["endpoint"] == name]
        axes = grid[e * lines : (e + 1) * lines].ravel()
        label = style.with_unit(name, style.endpoint_unit(simulation.model, name))
        for ax in axes[1 : len(names)]:
            ax.sharey(axes[0])
        for k, regimen in enumerate(names):
            if log:
                axes[k].set_yscale("log", nonpositive="mask")
            _panel(axes[k], own, regimen, not single and simulation.draws > 1)
            if seen is not None:
                _dots(axes[k], seen[seen["endpoint"] == name], regimen, log)
            bottom = k + columns >= len(names)
            time = style.time_label(simulation.model) if bottom and e == len(shown) - 1 else ""
            style.tidy(axes[k], time, label if k % columns == 0 else "", regimen)
            axes[k].tick_params(labelbottom=bool(time))
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    legend_below(made, list(grid.ravel()))
    return made


def _title(simulation: Simulation, single: bool) -> str:
    draws = f", {simulation.draws} draws" if simulation.draws > 1 else ""
    who = f"subject {simulation.ids[0]}" if single else f"{len(simulation.ids)} subjects"
    return f"Regimens: {model_name(simulation.model)}, {who}{draws}"


def _panel(ax: Axes, own: pd.DataFrame, regimen: str, uncertain: bool) -> None:
    for other, table in own.groupby("regimen", sort=False):
        if other != regimen:
            median = table[table["probability"] == 0.5]
            ax.plot(median["TIME"], median["value"], color=style.MUTED, linewidth=0.9, label="median, others", zorder=2)
    table = own[own["regimen"] == regimen]
    low, middle, high = (table[table["probability"] == p] for p in TAILS)
    ax.fill_between(
        low["TIME"], low["value"], high["value"], color=style.DATA, alpha=0.2, linewidth=0, label="90 % band", zorder=1
    )
    ax.plot(middle["TIME"], middle["value"], color=style.FIT, linewidth=1.6, label="median", zorder=3)
    if uncertain:
        for quantile in (low, middle, high):
            color = style.FIT if quantile is middle else style.DATA
            ax.fill_between(
                quantile["TIME"],
                quantile["lower"],
                quantile["upper"],
                color=color,
                alpha=0.28,
                linewidth=0,
                zorder=2,
                label="uncertainty of the median" if quantile is middle else "uncertainty of the ends",
            )


def _observed(simulation: Simulation, observed: Any) -> pd.DataFrame:
    """By observation: TIME, DV, endpoint, CENS, and the regimen where the data says so."""
    data = Subjects.of(observed, simulation.model, Reading(covariates=simulation.rule))
    tables = []
    for name, mask in data.subjects.mask.items():
        at = np.nonzero(mask)
        flag = data.subjects.censoring[name].flag[at] if name in data.subjects.censoring else np.zeros(len(at[0]))
        values = {"TIME": data.subjects.time[at], "DV": data.subjects.observed[name][at], "endpoint": name, "CENS": flag}
        if "regimen" in data.frame:
            values["regimen"] = data.frame["regimen"].astype(str).to_numpy()[data.rows[at]]
        tables.append(pd.DataFrame(values))
    found = pd.concat(tables, ignore_index=True)
    for regimen in found["regimen"].unique() if "regimen" in found else ():
        if regimen not in simulation.regimens:
            raise NlmefitError("observed=: " + unknown("regimen", regimen, simulation.regimens))
    return found


def _dots(ax: Axes, seen: pd.DataFrame, regimen: str, log: bool) -> None:
    own = seen[seen["regimen"] == regimen] if "regimen" in seen else seen
    own = own[(own["CENS"] == 0) & ((own["DV"] > 0) | (not log))]
    style.dots(ax, own["TIME"], own["DV"], color=style.INK, markersize=2.8, alpha=0.5, label="observation", zorder=4)
