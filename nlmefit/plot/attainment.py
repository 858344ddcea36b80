"""`nm.plot.attainment`: the probability of target attainment."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nlmefit.core.errors import NlmefitError
from nlmefit.core.options import is_number
from nlmefit.data.frames import if_table
from nlmefit.plot import style
from nlmefit.plot.legend import legend_below

NEEDED = ("regimen", "endpoint", "metric", "at_least", "at_most", "probability", "lower", "upper")
LOOKS = (("#2f6db3", "o"), ("#d1511b", "s"), ("#2e8540", "^"), ("#8a3ffc", "D"), ("#6b7782", "v"), ("#b8860b", "P"))


def attainment(table: pd.DataFrame, *, target: float | None = 0.9) -> Figure:
    """The share of profiles that attain the target along the thresholds, a line for each regimen, with the middle 90 % of the
    draws' own shares where there are several. Windows stand side by side.

    **Arguments:** `table` what `nm.target_attainment` returned; `target` a share that is marked by a line, None for none.
    Raises NlmefitError for another table, and a target that is no share.
    """
    table = if_table(table)
    if not isinstance(table, pd.DataFrame) or not set(NEEDED) <= {*table} or table.empty:
        raise NlmefitError("the figure is of what nm.target_attainment returned.")
    if target is not None and not (is_number(target) and 0 <= target <= 1):
        raise NlmefitError(f"target must be a share between 0 and 1, got {target!r}.")
    panels = list(table.groupby(["endpoint", "metric"], sort=False))
    names = list(dict.fromkeys(table["regimen"]))
    made = style.figure(max(6.4, 4.4 * len(panels)), 4.3, "Probability of target attainment")
    axes = made.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for k, (ax, ((endpoint, metric), own)) in enumerate(zip(axes, panels, strict=True)):
        windows = np.isfinite(own["at_least"]).all() and np.isfinite(own["at_most"]).all()
        labels = list(dict.fromkeys(f"{a:g} to {b:g}" for a, b in zip(own["at_least"], own["at_most"], strict=True)))
        for j, name in enumerate(names):
            _line(ax, own[own["regimen"] == name], name, j, len(names) if windows else 0)
        if target is not None:
            ax.axhline(target, color=style.MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=f"{100 * target:g} %")
        sides = {"at least": np.isfinite(own["at_least"]).all(), "at most": np.isfinite(own["at_most"]).all()}
        how = "within" if windows else next((side for side, given in sides.items() if given), "threshold")
        unit = table.attrs.get("units", {}).get(endpoint, {}).get(metric, "")
        style.tidy(
            ax,
            style.with_unit(f"{metric} {how}", unit),
            "Profiles that attain it" if k == 0 else "",
            str(endpoint) if len(panels) > 1 else "",
        )
        if windows:
            ax.set_xticks(range(len(labels)), labels)
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend_below(made, list(axes))
    return made


def _line(ax: Axes, own: pd.DataFrame, name: str, number: int, side_by_side: int) -> None:
    """One regimen's; of windows points beside those of the others."""
    color, marker = LOOKS[number % len(LOOKS)]
    share, low, high = (own[column].to_numpy(float) for column in ("probability", "lower", "upper"))
    if side_by_side:
        place = np.arange(len(own)) + 0.12 * (number - (side_by_side - 1) / 2)
        ax.plot(place, share, marker, color=color, markersize=6, label=name, zorder=3)
        ax.vlines(place, low, high, color=color, linewidth=1.5)
        return
    own_side = own["at_least"] if np.isfinite(own["at_least"]).all() else own["at_most"]
    order = np.argsort(own_side.to_numpy(float))
    x = own_side.to_numpy(float)[order]
    ax.fill_between(x, low[order], high[order], color=color, alpha=0.2, linewidth=0)
    ax.plot(x, share[order], marker=marker, markersize=4.5, color=color, linewidth=1.4, label=name, zorder=3)
