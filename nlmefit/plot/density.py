"""`nm.plot.density`: the density of a generative model of two columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from nlmefit.core.options import check_whole
from nlmefit.plot import style
from nlmefit.plot.generative import column_names, frame, grid, model_of, name_of, panel_size, planar, plane
from nlmefit.plot.legend import legend_below

SHARES = (0.5, 0.9)
"""Of the probability, that the lines enclose."""
SHADES = LinearSegmentedColormap.from_list("density", ["white", "#f6d7c4", "#e08a52", style.FIT, "#7d2a08"])
MOST_DOTS = 1000


def density(of: Any, X: Any, *, given: Any = None, names: Sequence[str] | None = None, points: int = 120) -> Figure:
    """p(x) in shades on a grid around the data, with the smallest regions that hold 50 and 90 % of the probability there, and
    the data over it. Energy-based models, which know p(x) but for a constant, are normalised over the grid.

    **Arguments:** `of` a model of two columns that has `log_prob` (or `unnormalized_log_prob`), or its fit; `X` the data, at most
    1000 rows of which are drawn; `given` one row of conditions for all; `names` of the columns; `points` of the grid each way.

    Raises NotTractableError for models without a density, NlmefitError for other dimensions.
    """
    model = model_of(of)
    exact = not hasattr(type(model), "unnormalized_log_prob")
    evaluate = model.log_prob if exact else model.unnormalized_log_prob  # type: ignore[attr-defined]
    X = planar(model, X, "The density")
    check_whole("points", points, 10)
    limits = frame(X)
    across, up, places = grid(limits, (points, points))
    cell = (across[1] - across[0]) * (up[1] - up[0])
    log_p = np.asarray(evaluate(places) if given is None else evaluate(places, given=given)).reshape(points, points)
    p = np.exp(log_p) if exact else np.exp(log_p - log_p.max())
    if not exact:
        p = p / (p.sum() * cell)
    width, height = panel_size(limits, 3.9)
    made = style.figure(max(width + 1.6, 6.2), height + 1.0, f"Density of {name_of(model)}")
    ax = made.subplots()
    shaded = ax.pcolormesh(across, up, p, cmap=SHADES, vmin=0.0, shading="gouraud", rasterized=True)
    rows = np.random.default_rng(0).permutation(len(X))[:MOST_DOTS]
    style.dots(ax, *X[rows].T, color=style.DATA, markersize=2.2, label="Data")
    for share, line in zip(SHARES, ("-", "--"), strict=True):
        level = height_that_holds(p, share)
        ax.contour(across, up, p, levels=[level], colors=style.INK, linewidths=0.9, linestyles=line)
        ax.plot([], [], color=style.INK, linewidth=0.9, linestyle=line, label=f"{100 * share:.0f} % of the probability")
    plane(ax, column_names(names, (0, 1)), limits)
    ax.grid(False)
    bar = made.colorbar(shaded, ax=ax, shrink=0.8)
    bar.set_label("p(x)" if exact else "p(x), normalised over the grid", fontsize=style.TEXT, color=style.INK)
    bar.ax.tick_params(labelsize=style.SMALL, colors=style.INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    legend_below(made, [ax])
    return made


def height_that_holds(p: Float[np.ndarray, "n n"], share: float) -> float:
    """The density above which that share of the probability on the grid lies."""
    ordered = np.sort(p.ravel())[::-1]
    total = np.cumsum(ordered)
    return float(ordered[min(np.searchsorted(total, share * total[-1]), len(ordered) - 1)])
