"""`nm.plot.vpc`: the visual predictive check, drawn."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import PercentFormatter

from nlmefit.core.errors import NlmefitError
from nlmefit.core.keys import Key
from nlmefit.core.options import check_truth
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics import vpc as numbers
from nlmefit.diagnostics.vpc import ALL, VPC
from nlmefit.plot import style
from nlmefit.plot.legend import legend_below
from nlmefit.plot.subject import title_of
from nlmefit.results.fit import Fit

COLUMNS = 3
"""Strata side by side."""


def vpc(
    of: VPC | Fit,
    data: pd.DataFrame | Subjects | None = None,
    bins: Literal["auto"] | int | Sequence[float] = "auto",
    strata: str | None = None,
    corrected: bool = False,
    probabilities: Sequence[float] = (0.05, 0.5, 0.95),
    draws: int = 500,
    endpoint: str | None = None,
    key: Key = 0,
    *,
    log: bool = False,
    after_dose: bool = False,
) -> Figure:
    """Visual predictive check: lines are percentiles of the observations, bands hold 90 % of the same percentiles of simulated
    data sets; the ticks at the top are the bins' ends. A panel for each stratum, and each endpoint in a part of its own.

    Where observations are censored (CENS), percentiles are drawn where they are known, and a panel below shows the share beyond
    the limit; of counts and categories each value's proportion over time.

    **Arguments:** `of` a fit, with the other arguments of `nm.vpc`, or what `nm.vpc` returned; `log` a log axis for values
    above 0; `after_dose` the time after the last dose along x. Raises as `nm.vpc` does.
    """
    check_truth("log", log)
    if isinstance(of, VPC):
        given = (data, strata, endpoint)
        if any(x is not None for x in given) or corrected or after_dose:
            raise NlmefitError(
                "this VPC is computed already; give data=, strata=, corrected=, endpoint= and after_dose= to nm.vpc."
            )
        found = of
    else:
        found = numbers.vpc(of, data, bins, strata, corrected, probabilities, draws, endpoint, key, after_dose=after_dose)
    names = list(dict.fromkeys(found.observations["endpoint"]))
    heights = [_height(found, name) for name in names]
    widest = max(_columns(found, name) for name in names)
    title = title_of("Prediction-corrected VPC" if found.corrected else "Visual predictive check", found.fit)
    made = style.figure(max(6.4, 3.6 * widest + 0.6), sum(heights), title if len(names) == 1 else "")
    for part, name in zip(_parts(made, title, names, heights), names, strict=True):
        _endpoint(part, found, name, log)
    return made


def _parts(made: Figure, title: str, names: list[str], heights: list[float]) -> list[Figure | SubFigure]:
    if len(names) == 1:
        return [made]
    parts = list(made.subfigures(len(names), 1, squeeze=False, hspace=0.03, height_ratios=heights)[:, 0])
    for part, name in zip(parts, names, strict=True):
        style.heading(part, f"{title}, {name}")
    return parts


def _of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["endpoint"] == name]


def _columns(found: VPC, name: str) -> int:
    if len(_of(found.proportions, name)):
        return min(COLUMNS, _of(found.proportions, name)["category"].nunique())
    return min(COLUMNS, _of(found.observations, name)["stratum"].nunique())


def _rows(found: VPC, name: str) -> int:
    """Of panels, without those of shares beyond limits."""
    strata = _of(found.observations, name)["stratum"].nunique()
    categories = _of(found.proportions, name)["category"].nunique()
    return strata * -(-categories // COLUMNS) if categories else -(-strata // COLUMNS)


def _height(found: VPC, name: str) -> float:
    low = 2.0 * _of(found.beyond, name)["side"].nunique()
    tall = 2.4 if len(_of(found.proportions, name)) else (3.0 if _columns(found, name) > 1 else 3.6)
    return _rows(found, name) * (tall + low) + 0.9


def _endpoint(on: Figure | SubFigure, found: VPC, name: str, log: bool) -> None:
    strata = list(dict.fromkeys(_of(found.observations, name)["stratum"]))
    axes = (
        _proportions(on, found, name, strata) if len(_of(found.proportions, name)) else _percentiles(on, found, name, strata, log)
    )
    legend_below(on, axes)


def _titled(found: VPC, stratum: Any) -> str:
    if stratum == ALL and found.strata is None:
        return ""
    return f"{found.strata} {stratum:g}" if isinstance(stratum, int | float | np.number) else f"{found.strata} {stratum}"


# ---- percentiles -----------------------------------------------------------------------------------------------------


def _percentiles(on: Figure | SubFigure, found: VPC, name: str, strata: list[Any], log: bool) -> list[Axes]:
    beyond, model = _of(found.beyond, name), found.fit.model
    sides = list(dict.fromkeys(beyond["side"]))
    unit = style.endpoint_unit(model, name)
    columns, rows = _columns(found, name), _rows(found, name)
    each = 1 + len(sides)
    tall = ([3.0] + [1.3] * len(sides)) * rows
    grid = on.subplots(rows * each, columns, squeeze=False, sharex=True, sharey="row" if rows == 1 else False, height_ratios=tall)
    label = style.with_unit(name, unit) + (", prediction-corrected" if found.corrected else "")
    for k, stratum in enumerate(strata):
        row, column = each * (k // columns), k % columns
        own = {part: table[table["stratum"] == stratum] for part, table in _tables(found, name).items()}
        bottom = k + columns >= len(strata)
        _one(grid[row, column], own, found.corrected, log)
        time = style.time_label(model, found.after_dose) if bottom else ""
        style.tidy(grid[row, column], "" if sides else time, label if column == 0 else "", _titled(found, stratum))
        for below, side in enumerate(sides, 1):
            ax = grid[row + below, column]
            _share(ax, own["beyond"][own["beyond"]["side"] == side])
            limit = float(own["beyond"].loc[own["beyond"]["side"] == side, "limit"].iloc[0])
            words = f"{side.capitalize()} {limit:g} {unit}".strip()
            style.tidy(ax, time if below == len(sides) else "", words if column == 0 else "")
            ax.set_ylim(-0.02, max(0.1, 1.06 * float(beyond.loc[beyond["side"] == side, ["observed", "upper"]].to_numpy().max())))
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for row_below in range(row, row + each):
            grid[row_below, column].tick_params(labelbottom=bottom and row_below == row + each - 1)
    for k in range(len(strata), rows * columns):
        for row in range(each * (k // columns), each * (k // columns) + each):
            grid[row, k % columns].set_axis_off()
    return list(grid.ravel())


def _tables(found: VPC, name: str) -> dict[str, pd.DataFrame]:
    tables = {"percentiles": found.percentiles, "beyond": found.beyond, "observations": found.observations}
    return {part: _of(table, name) for part, table in tables.items()}


def _one(ax: Axes, own: dict[str, pd.DataFrame], corrected: bool, log: bool) -> None:
    if log:
        ax.set_yscale("log", nonpositive="mask")
    seen = own["observations"]
    shown = seen[(seen["CENS"] == 0) & ((seen["DV"] > 0) | (not log))]
    style.dots(ax, shown["TIME"], shown["DV"], color=style.MUTED, label="observation", zorder=1)
    # A percentile beyond a limit is drawn up to that limit: to the axis' end where correction gives each bin its own.
    limits = {} if corrected else dict(zip(own["beyond"]["side"], own["beyond"]["limit"], strict=True))
    table = own["percentiles"]
    levels = list(dict.fromkeys(table["probability"]))
    middle = min(levels, key=lambda p: abs(p - 0.5))
    for level in levels:
        of = table[table["probability"] == level]
        central = level == middle and len(levels) != 2
        name = "median" if central and level == 0.5 else _percent(levels, middle)
        _band(ax, of, style.FIT if central else style.DATA, f"simulated {name}", limits, log)
        dashes = "-" if central else (0, (5, 2.5))
        observed = np.where(np.isfinite(of["observed"]), of["observed"], np.nan)
        ax.plot(
            of["TIME"],
            observed,
            color=style.INK,
            linestyle=dashes,
            linewidth=1.5,
            marker=".",
            markersize=5,
            label=f"observed {name}",
            zorder=4,
        )
    if log:
        bounds = [table["observed"], table["simulated"], table["upper"], list(limits.values())]
        style.log_limits(ax, np.concatenate([shown["DV"], *bounds]))
    for limit in limits.values():
        ax.axhline(limit, color=style.LIMIT, linewidth=1.0, linestyle=(0, (2, 2)), label="limit", zorder=3)
    edges = np.r_[table["start"], table["end"]]
    ax.plot(
        np.unique(edges),
        np.ones(len(np.unique(edges))),
        "|",
        color=style.MUTED,
        markersize=6,
        transform=ax.get_xaxis_transform(),
        clip_on=False,
    )


def _percent(levels: list[float], middle: float) -> str:
    """The outer percentiles in words."""
    outer = [f"{100 * p:g}" for p in levels if p != middle or len(levels) == 2]
    return " and ".join(filter(None, [", ".join(outer[:-1]), outer[-1]])) + " %"


def _band(ax: Axes, of: pd.DataFrame, color: str, label: str, limits: dict[str, float], log: bool) -> None:
    """Through the bins' median times; across the bin where there is but one."""
    low, high, middle = (of[name].to_numpy(float) for name in ("lower", "upper", "simulated"))
    bottom, top = limits.get("below", np.nan), limits.get("above", np.nan)
    low, high = np.where(np.isneginf(low), bottom, low), np.where(np.isposinf(high), top, high)
    low = np.where(low > 0, low, np.nan_to_num(bottom) or np.finfo(float).tiny) if log else low  # the axis ends before
    x = of["TIME"].to_numpy(float)
    single = len(of) == 1
    if single:
        x, low, high, middle = of[["start", "end"]].to_numpy(float)[0], *(np.repeat(v, 2) for v in (low, high, middle))
    known = np.isfinite(low) & np.isfinite(high)
    ax.fill_between(x, low, high, where=known, color=color, alpha=0.25, linewidth=0, label=label, zorder=2)
    ax.plot(x, np.where(np.isfinite(middle), middle, np.nan), color=color, linewidth=1.0, zorder=3)


def _share(ax: Axes, of: pd.DataFrame) -> None:
    _band(ax, of, style.LIMIT, "simulated share beyond it", {}, False)
    ax.plot(of["TIME"], of["observed"], color=style.INK, linewidth=1.3, marker=".", markersize=5, zorder=4)


# ---- proportions -----------------------------------------------------------------------------------------------------


def _proportions(on: Figure | SubFigure, found: VPC, name: str, strata: list[Any]) -> list[Axes]:
    table = _of(found.proportions, name)
    categories = list(dict.fromkeys(table["category"]))
    columns = _columns(found, name)
    lines = -(-len(categories) // columns)
    grid = on.subplots(lines * len(strata), columns, squeeze=False, sharex=True, sharey=True)
    for s, stratum in enumerate(strata):
        for k in range(lines * columns):
            ax = grid[s * lines + k // columns, k % columns]
            if k >= len(categories):
                ax.set_axis_off()
                continue
            of = table[(table["stratum"] == stratum) & (table["category"] == categories[k])]
            _band(ax, of, style.FIT, "simulated", {}, False)
            ax.plot(
                of["TIME"], of["observed"], color=style.INK, linewidth=1.5, marker=".", markersize=5, label="observed", zorder=4
            )
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            bottom = k + columns >= len(categories) and s == len(strata) - 1
            title = f"{name} {categories[k]}" + (f", {_titled(found, stratum)}" if _titled(found, stratum) else "")
            style.tidy(
                ax,
                style.time_label(found.fit.model, found.after_dose) if bottom else "",
                "Proportion" if k % columns == 0 else "",
                title,
            )
            ax.tick_params(labelbottom=bottom)
    return list(grid.ravel())
