"""`nm.plot.convergence`: how the search went."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nlmefit.core.errors import NlmefitError
from nlmefit.estimate.mcmc.nuts import Draws
from nlmefit.plot import style
from nlmefit.plot.subject import title_of
from nlmefit.results.fit import Fit

MOST_COLUMNS = 4
CHAINS = (style.DATA, style.FIT, style.LIMIT, style.SECOND)


def convergence(fit: Fit) -> Figure:
    """A panel for each column of `fit.history` along the iterations: the objective, or the parameters, those as the search has
    them (logs of positive ones, logits of bounded ones). Of NUTS a panel for each parameter, a line for each chain.

    Raises NlmefitError for what is no fit, or one without a history (an evaluation).
    """
    if not isinstance(fit, Fit):
        raise NlmefitError(f"the figure is of a fit, got {type(fit).__name__}.")
    posterior = None if fit.found is None else fit.found.posterior
    if isinstance(posterior, Draws):
        traced = {name: values for name, values in posterior.report.items() if name not in fit.fixed}
        return _panels(traced, np.arange(next(iter(traced.values())).shape[1]), title_of("Chains", fit), "Draw")
    history = fit.history.select_dtypes("number")
    traced = {str(c): history[c].to_numpy(float)[None] for c in history if c != "iteration"}
    if history.empty or not traced:
        raise NlmefitError(f"{fit.method.name} left no history: fit.history is empty.")
    steps = history["iteration"].to_numpy() if "iteration" in history else np.arange(len(history))
    scale = ", parameters as searched (logs, logits)" if len(traced) > 1 else ""
    return _panels(traced, steps, title_of("Convergence", fit) + scale, "Iteration")


def _panels(traced: dict[str, Float[np.ndarray, "lines s"]], steps: np.ndarray, title: str, along: str) -> Figure:
    columns = min(MOST_COLUMNS, len(traced))
    rows = -(-len(traced) // columns)
    made = style.figure(max(2.9 * columns, 5.5), 2.2 * rows + 0.5, title)
    axes = made.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for ax, (name, lines) in zip(axes, traced.items(), strict=False):
        several = len(lines) > 1
        for k, values in enumerate(lines):
            color, width = (CHAINS[k % len(CHAINS)], 0.6) if several else (style.DATA, 1.2)
            ax.plot(steps, values, color=color, linewidth=width, marker="o" if len(steps) < 40 else "", markersize=3)
        style.tidy(ax, title=name)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[len(traced) :]:
        ax.set_axis_off()
    for ax in axes[: len(traced)][-columns:]:
        ax.set_xlabel(along, fontsize=style.TEXT, color=style.INK)
        ax.tick_params(labelbottom=True)
    return made
