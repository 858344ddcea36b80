"""`nm.plot.comparison`: methods compared by the marginal likelihood."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nlmefit.core.errors import NlmefitError
from nlmefit.plot import style
from nlmefit.plot.legend import legend_below

NEEDED = ("log_marginal", "mc_se", "kind", "objective", "objective_kind", "status")
TWO_SIDED = 1.959963984540054
MARKERS = {"bound": ("<", "own bound"), "approximation": ("s", "own approximation"), "estimate": ("o", "own estimate")}


def comparison(table: pd.DataFrame) -> Figure:
    """Fits by the log marginal likelihood that the referee finds, best on top, with its 95 % Monte Carlo interval; hollow marks
    are log p(y) as the methods have it themselves: a bound, an approximation or an estimate. A fit whose own number lies so far
    off that the others could not be told apart has it written at the axis' end.

    **Arguments:** `table` what `nm.compare` returned. Raises NlmefitError for another one.
    """
    if not isinstance(table, pd.DataFrame) or not set(NEEDED) <= {*table} or table.empty:
        raise NlmefitError("the figure is of what nm.compare returned.")
    table = table.sort_values("log_marginal", ascending=False)
    value, own, error = (table[name].to_numpy(float) for name in ("log_marginal", "objective", "mc_se"))
    half = TWO_SIDED * error
    made = style.figure(7.8, 0.42 * len(table) + 1.7, "Methods compared")
    ax = made.subplots()
    low, high = _limits(value, half, own)
    for k, kind in enumerate(table["objective_kind"]):
        marker, label = MARKERS.get(kind, ("d", f"own {kind}"))
        if low <= own[k] <= high:
            ax.plot([own[k]], [k], marker, color=style.DATA, fillstyle="none", markersize=7, label=label, zorder=2)
        elif np.isfinite(own[k]):
            left = own[k] < low
            text = f"◂ {own[k]:.1f}" if left else f"{own[k]:.1f} ▸"
            place = (0.005 if left else 0.995, k)
            look: dict[str, Any] = {
                "ha": "left" if left else "right",
                "va": "center",
                "fontsize": style.SMALL,
                "color": style.DATA,
            }
            ax.annotate(text, place, xycoords=("axes fraction", "data"), **look)
    kinds = sorted(set(table["kind"]))
    ax.errorbar(value, np.arange(len(table)), xerr=half, fmt="none", ecolor=style.INK, elinewidth=1.4, capsize=3, zorder=3)
    ax.plot(
        value,
        np.arange(len(table)),
        "o",
        color=style.FIT,
        markersize=6,
        zorder=4,
        label=f"log p(y) by the referee ({', '.join(kinds)})",
    )
    style.tidy(ax, "log p(y)", "")
    ax.set_xlim(low, high)
    ax.set_ylim(len(table) - 0.5, -0.5)
    states = [
        name if state == "converged" else f"{name} ({state})" for name, state in zip(table.index, table["status"], strict=True)
    ]
    ax.set_yticks(range(len(table)), [str(name) for name in states])
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(7))
    for k in range(len(table)):
        text = f"{value[k]:.2f}" + (f" ± {error[k]:.2g}" if error[k] > 0 else "")
        ax.annotate(text, (1.01, k), xycoords=("axes fraction", "data"), va="center", fontsize=style.SMALL, color=style.INK)
    legend_below(made, [ax])
    return made


def _limits(value: np.ndarray, half: np.ndarray, own: np.ndarray) -> tuple[float, float]:
    """Around the referee's numbers, and around the methods' own as far as four times their spread."""
    ends = np.r_[value - half, value + half]
    ends = ends[np.isfinite(ends)]
    spread = max(float(np.ptp(ends)), 0.5)
    near = own[np.isfinite(own) & (own > ends.min() - 4 * spread) & (own < ends.max() + 4 * spread)]
    everything = np.r_[ends, near]
    margin = 0.08 * max(float(np.ptp(everything)), 0.5)
    return float(everything.min() - margin), float(everything.max() + margin)
