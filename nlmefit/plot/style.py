"""How figures look: colours, axes, labels. Set figure by figure; matplotlib's global settings stay as the user has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from nlmefit.plot.log_ticks import LogTicks
from nlmefit.plot.trend import trend
from nlmefit.simulation.units import endpoint_unit as endpoint_unit
from nlmefit.simulation.units import time_unit

INK, MUTED, PALE = "#24292f", "#8a929b", "#e4e7eb"
DATA, FIT, SECOND = "#2f6db3", "#d1511b", "#6b7782"
"""Observations and what is computed of them; individual predictions and trends; the population's."""
LETTER, ENTRY = 0.0083, 0.55
"""About how wide, in inches, a letter is (per point of its size), and an entry of a legend without its text."""
BOLD = 1.1
"""How much wider bold letters are."""
LIMIT = "#8a3ffc"
"""Observations known by a limit only."""
TEXT, SMALL = 9.0, 8.0


def figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of that size in inches."""
    made = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07), facecolor="white", dpi=120)
    heading(made, title, width)
    return made


def heading(on: Figure | SubFigure, title: str, width: float = np.inf) -> None:
    """Above a figure that is so wide, in smaller letters where it needs them to fit."""
    size = min(TEXT + 2, 0.96 * width / max(BOLD * LETTER * len(title), 1e-9))
    on.suptitle(title, x=0.01, ha="left", fontsize=size, color=INK, fontweight="bold")


def parts(of: Figure, titles: Sequence[str]) -> list[Figure | SubFigure]:
    """One part below the other, with a heading each; the figure itself where there is but one."""
    if len(titles) == 1:
        return [of]
    made = list(of.subfigures(len(titles), 1, squeeze=False, hspace=0.03).ravel())
    for part, title in zip(made, titles, strict=True):
        heading(part, title)
    return made


def tidy(ax: Axes, x: str = "", y: str = "", title: str = "") -> Axes:
    """Two spines, a pale grid, labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.grid(True, color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=SMALL, color=MUTED)
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    if title:
        ax.set_title(title, fontsize=TEXT, color=INK, loc="left")
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogTicks())
            axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        elif not isinstance(axis.get_major_locator(), FixedLocator):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return ax


def dots(ax: Axes, x: Any, y: Any, **options: Any) -> None:
    """Points, the paler the more there are."""
    count = max(len(x), 1)
    look = {"color": DATA, "marker": "o", "linestyle": "none", "markersize": 4.0 if count < 500 else 2.5, "markeredgewidth": 0.0}
    ax.plot(x, y, **{**look, "alpha": float(np.clip(8 / np.sqrt(count), 0.15, 0.75)), **options})


def smooth(ax: Axes, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
    """The trend of y along x, where there is enough to see one; of their logarithms where an axis has those."""
    logs = ax.get_xscale() == "log", ax.get_yscale() == "log"
    known = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not logs[0])) & ((y > 0) | (not logs[1]))
    found = trend(*(np.log(v[known]) if log else v[known] for v, log in zip((x, y), logs, strict=True)))
    if found is not None:
        across, up = (np.exp(v) if log else v for v, log in zip(found, logs, strict=True))
        ax.plot(across, up, color=FIT, linewidth=1.6, label="trend")


def normal_limits(ax: Axes) -> None:
    """Lines at 0 and at the 95 % limits of a standard normal."""
    ax.axhline(0.0, color=INK, linewidth=0.8)
    for level in (-1.96, 1.96):
        ax.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    low, high = ax.get_ylim()
    reach = max(abs(low), abs(high), 2.5)
    ax.set_ylim(-reach, reach)


def legend(on: Figure | SubFigure, axes: Sequence[Axes]) -> None:
    """One legend for what is drawn in the axes: top right, or below where the heading leaves no room there."""
    seen: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    if not seen:
        return
    width = on.bbox.width / on.dpi
    entries = [ENTRY + LETTER * SMALL * len(label) for label in seen]
    fits = width > LETTER * (TEXT + 2) * len(on.get_suptitle()) + sum(entries)
    columns = len(seen) if fits else max(1, int(width / max(entries)))
    look: dict[str, Any] = {"ncols": columns, "fontsize": SMALL, "frameon": False, "labelcolor": INK}
    on.legend(list(seen.values()), list(seen), loc="upper right" if fits else "outside lower center", **look)


def with_unit(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label


def time_label(model: Any, after_dose: bool = False) -> str:
    """Time, or time after dose, with its unit where that is known."""
    return with_unit("Time after dose" if after_dose else "Time", time_unit(model))


def log_limits(ax: Axes, values: Any) -> None:
    """The range of a logarithmic y axis: what is above 0 among the values, with a margin, whatever is drawn far below."""
    shown = np.asarray(values, float)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown):
        ax.set_ylim(shown.min() / 1.6, shown.max() * 1.6)
