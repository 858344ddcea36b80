"""`nm.plot.training`: how the training of a generative model went."""

import textwrap

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nlmefit.core.errors import NlmefitError
from nlmefit.generative.trainer import GenerativeFit
from nlmefit.plot import style
from nlmefit.plot.generative import name_of
from nlmefit.plot.legend import legend_below

WINDOW = 0.02
"""Share of the steps that a running mean is over."""


def training(fit: GenerativeFit) -> Figure:
    """The loss by step (a batch's), its running mean over 2 % of the steps, and the loss on rows held out with its least, where
    some were. Methods with more than one loss have a panel for each. The status is written above.

    Raises NlmefitError for what is no `gen.GenerativeFit`, or has no steps.
    """
    if not isinstance(fit, GenerativeFit):
        raise NlmefitError(
            f"the figure is of a gen.GenerativeFit, got {type(fit).__name__}; see nm.plot.convergence for other fits."
        )
    losses = [str(name) for name in fit.history if name not in ("step", "held_out")]
    if fit.history.empty:
        raise NlmefitError("the training ended before its first step: there is nothing to draw.")
    made = style.figure(7.0, 2.6 * len(losses) + 1.0, f"Training: {name_of(fit.model)} by {fit.method.name}")
    axes = made.subplots(len(losses), 1, squeeze=False, sharex=True)[:, 0]
    step = fit.history["step"].to_numpy()
    for ax, name in zip(axes, losses, strict=True):
        values = fit.history[name].to_numpy(float)
        mean = running_mean(values, max(1, round(WINDOW * len(values))))
        ax.plot(step, values, color=style.DATA, alpha=0.25, linewidth=0.5, label="loss of a batch")
        ax.plot(step, mean, color=style.DATA, linewidth=1.6, label="running mean")
        style.tidy(ax, "", name.replace("_", " "))
        low, high = np.quantile(np.r_[mean[len(mean) // 50 :], np.quantile(values, [0.02, 0.9])], [0.0, 1.0])
        ax.set_ylim(low - 0.06 * (high - low or 1), high + 0.06 * (high - low or 1))
    if "held_out" in fit.history:
        seen = fit.history.dropna(subset="held_out")
        axes[0].plot(seen["step"], seen["held_out"], "o-", color=style.FIT, linewidth=1.2, markersize=3, label="rows held out")
        best = seen.iloc[int(np.argmin(seen["held_out"]))]
        axes[0].plot(best["step"], best["held_out"], "o", color=style.FIT, markersize=8, fillstyle="none", label="kept weights")
        _include(axes[0], seen["held_out"].to_numpy()[len(seen) // 10 :])
    axes[0].set_title("\n".join(textwrap.wrap(str(fit.status), 105)), fontsize=style.SMALL, color=style.INK, loc="left")
    axes[-1].set_xlabel("Step", fontsize=style.TEXT, color=style.INK)
    axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_below(made, list(axes))
    return made


def running_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """The mean over the last `window` values, or over those that there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(1, len(values) + 1) - window, 0)
    return (total[1:] - total[first]) / (np.arange(1, len(values) + 1) - first)


def _include(ax: object, values: Float[np.ndarray, " n"]) -> None:
    low, high = ax.get_ylim()  # type: ignore[attr-defined]
    margin = 0.06 * (high - low)
    ax.set_ylim(min(low, values.min() - margin), max(high, values.max() + margin))  # type: ignore[attr-defined]
