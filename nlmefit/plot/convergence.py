"""`nm.plot.convergence`: how the search went."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nlmefit.errors import NlmefitError
from nlmefit.plot import style
from nlmefit.plot.subject import title_of
from nlmefit.results import Fit

MOST_COLUMNS = 4


def convergence(fit: Fit) -> Figure:
    """A panel for each column of `fit.history` along the iterations: the objective, or the parameters, those as the search has
    them (logs of positive ones, logits of bounded ones).

    Raises NlmefitError for what is no fit, or one without a history (an evaluation).
    """
    if not isinstance(fit, Fit):
        raise NlmefitError(f"the figure is of a fit, got {type(fit).__name__}.")
    history = fit.history.select_dtypes("number")
    traced = [str(c) for c in history if c != "iteration"]
    if history.empty or not traced:
        raise NlmefitError(f"{fit.method.name} left no history: fit.history is empty.")
    steps = history["iteration"].to_numpy() if "iteration" in history else np.arange(len(history))
    columns = min(MOST_COLUMNS, len(traced))
    rows = -(-len(traced) // columns)
    scale = ", parameters as searched (logs, logits)" if len(traced) > 1 else ""
    made = style.figure(max(2.9 * columns, 5.5), 2.2 * rows + 0.5, title_of("Convergence", fit) + scale)
    axes = made.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for ax, name in zip(axes, traced, strict=False):
        values = history[name].to_numpy(float)
        ax.plot(steps, values, color=style.DATA, linewidth=1.2, marker="o" if len(steps) < 40 else "", markersize=3)
        style.tidy(ax, title=name)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[len(traced) :]:
        ax.set_axis_off()
    for ax in axes[: len(traced)][-columns:]:
        ax.set_xlabel("Iteration", fontsize=style.TEXT, color=style.INK)
        ax.tick_params(labelbottom=True)
    return made
