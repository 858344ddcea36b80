"""`nm.plot.differences`: what a change of regimen does to an exposure, subject by subject."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import NlmefitError
from nlmefit.core.options import check_word
from nlmefit.data.frames import if_table
from nlmefit.plot import style
from nlmefit.plot.legend import legend_below
from nlmefit.simulation.exposure import exposure
from nlmefit.simulation.profiles import Simulation

PAIRED = ["ID", "draw", "endpoint"]
MOST_DOTS = 400
EQUIVALENCE = (0.8, 1.25)
FINE = (1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
"""Ticks of a ratio within a decade, times powers of ten."""


def differences(
    of: Simulation | pd.DataFrame, reference: str, metric: str = "AUC", kind: Literal["ratio", "difference"] = "ratio"
) -> Figure:
    """A row for each other regimen: its metric over (or minus) that under the `reference`, of the same subject and draw. Dots are
    profiles (400 at most, evenly chosen), the bar holds 90 % of all and its mark is their median, which the text gives too.

    **Arguments:** `of` what `nm.exposure` returned, or a simulation, of which it is computed; `reference` a regimen; `metric` a
    column of the exposures; `kind` "ratio" (a log axis, with 0.8 to 1.25 shaded) or "difference".

    Raises NlmefitError for unknown names, a single regimen, and ratios of what is not above 0.
    """
    exposures = exposure(of) if isinstance(of, Simulation) else of
    table = paired(exposures, reference, metric, kind)
    units = exposures.attrs.get("units", {})
    endpoints, others = (list(dict.fromkeys(table[name])) for name in ("endpoint", "regimen"))
    made = style.figure(7.6, (0.55 * len(others) + 1.0) * len(endpoints) + 0.8, f"{metric} against {reference}, paired")
    axes = made.subplots(len(endpoints), 1, squeeze=False)[:, 0]
    for ax, endpoint in zip(axes, endpoints, strict=True):
        own = table[table["endpoint"] == endpoint]
        ax.axvline(1.0 if kind == "ratio" else 0.0, color=style.INK, linewidth=0.9)
        for k, name in enumerate(others):
            _row(ax, k, own.loc[own["regimen"] == name, kind].to_numpy())
        label = f"{metric} / {metric} under {reference}" if kind == "ratio" else f"{metric} - {metric} under {reference}"
        label = label if kind == "ratio" else style.with_unit(label, units.get(endpoint, {}).get(metric, ""))
        style.tidy(ax, label, "", endpoint if len(endpoints) > 1 else "")
        if kind == "ratio":
            ax.axvspan(*EQUIVALENCE, color=style.PALE, linewidth=0, label="0.8 to 1.25", zorder=0)
            ratio_axis(ax, [*own[kind], *EQUIVALENCE])
        ax.set_yticks(range(len(others)), others)
        ax.set_ylim(len(others) - 0.4, -0.6)
        ax.grid(False, axis="y")
    legend_below(made, list(axes))
    return made


def paired(exposures: pd.DataFrame, reference: str, metric: str, kind: str = "ratio") -> pd.DataFrame:
    """By ID, draw, endpoint and regimen other than the `reference`: the `ratio` or `difference` of the metric."""
    check_word("kind", kind, ("ratio", "difference"), "comparison", NlmefitError)
    exposures = if_table(exposures)
    if not isinstance(exposures, pd.DataFrame) or not {"regimen", *PAIRED} <= {*exposures}:
        raise NlmefitError("the figure is of a simulation, or of what nm.exposure returned.")
    metrics = [str(name) for name in exposures if name not in ("regimen", *PAIRED)]
    names = [str(name) for name in dict.fromkeys(exposures["regimen"])]
    check_word("metric", metric, metrics, "metric", NlmefitError)
    check_word("reference", reference, names, "regimen", NlmefitError)
    if len(names) < 2:
        raise NlmefitError(f"{reference} is the only regimen; there is nothing to compare it with.")
    base = exposures.loc[exposures["regimen"] == reference, [*PAIRED, metric]].rename(columns={metric: "base"})
    table = exposures[exposures["regimen"] != reference].merge(base, on=PAIRED, validate="many_to_one")
    if kind == "difference":
        return table.assign(difference=table[metric] - table["base"])[[*PAIRED, "regimen", kind]]
    if not ((table[metric] > 0) & (table["base"] > 0)).all():
        raise NlmefitError(f'{metric} is not above 0 throughout, so that it has no ratios; take kind="difference".')
    return table.assign(ratio=table[metric] / table["base"])[[*PAIRED, "regimen", kind]]


def ratio_axis(ax: Axes, values: Any) -> None:
    """A log axis for ratios, with plain numbers at places that people read."""
    low, high = np.log(np.min(values)), np.log(np.max(values))
    margin = 0.06 * (high - low)
    ax.set_xscale("log")
    steps = (1, 2, 5) if high - low > np.log(100) else (1, 1.5, 2, 3, 5, 7) if high - low > np.log(5) else FINE
    nice = np.unique([m * 10.0**k for k in range(-9, 10) for m in steps])
    inside = nice[(np.log(nice) >= low - margin) & (np.log(nice) <= high + margin)]
    ax.set_xticks(inside, [f"{x:g}" for x in inside])
    ax.set_xticks([], minor=True)
    ax.set_xlim(np.exp(low - margin), np.exp(high + margin))


def _row(ax: Axes, place: int, values: Float[np.ndarray, " n"]) -> None:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    shown = values[np.linspace(0, len(values) - 1, min(len(values), MOST_DOTS)).round().astype(int)]
    # spread evenly to either side, in an order that has nothing to do with the values
    height = place + 0.18 * (2 * ((np.arange(len(shown)) * 0.6180339887) % 1) - 1)
    style.dots(ax, shown, height, label="profile")
    ax.plot(
        [low, high], [place, place], color=style.INK, linewidth=2.0, solid_capstyle="butt", label="90 % of profiles", zorder=3
    )
    ax.plot([middle], [place], "D", color=style.FIT, markersize=6, label="median", zorder=4)
    text = f"{middle:.3g} ({low:.3g} to {high:.3g})"
    ax.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=style.SMALL, color=style.INK)
