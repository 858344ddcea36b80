"""`nm.plot.latent`: data in the latent space of a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from nlmefit.core.errors import DataError
from nlmefit.plot import style
from nlmefit.plot.generative import CLASSES, model_of, name_of
from nlmefit.plot.legend import legend_below


def latent(
    of: Any, X: Any, labels: Any = None, *, given: Any = None, components: Sequence[int] | None = None, name: str = "label"
) -> Figure:
    """The posterior means E[z | x] of the rows, with circles at 1 and 2 standard deviations of the prior N(0, I); of one latent
    variable, histograms.

    **Arguments:** `of` a model with a posterior (PPCA, factor analysis, VAEs), or its fit; `X` the data; `labels` by row: up to
    ten different ones are classes, with a legend, more are numbers, with a colour bar called `name`; `given` the conditions;
    `components` the two to draw, counted from 0: by default those whose means vary most.

    Raises NotTractableError for models without latent variables, DataError for labels or components that do not agree.
    """
    model = model_of(of)
    means = np.asarray(model.transform(X, given=given))  # type: ignore[attr-defined]
    chosen = chosen_components(means, components)
    labels = np.zeros(len(means)) if labels is None else np.asarray(labels)
    if labels.shape != (len(means),):
        raise DataError(f"labels has shape {labels.shape}; give one for each of the {len(means)} rows.")
    kinds = np.unique(labels)
    if len(kinds) > len(CLASSES) and not np.issubdtype(labels.dtype, np.number):
        raise DataError(f"labels has {len(kinds)} different texts; up to {len(CLASSES)} can be told apart by colour.")
    made = style.figure(5.8, 5.4 if len(chosen) == 2 else 3.4, f"{name_of(model)}: posterior means of the latent variables")
    ax = made.subplots()
    if len(chosen) == 1:
        _histograms(ax, means[:, chosen[0]], labels, kinds, f"$z_{{{chosen[0] + 1}}}$")
    else:
        _scatter(made, ax, means[:, chosen], labels, kinds, [f"$z_{{{k + 1}}}$" for k in chosen], name)
    if 1 < len(kinds) <= len(CLASSES):
        legend_below(made, [ax])
    return made


def chosen_components(means: Float[np.ndarray, "N q"], components: Sequence[int] | None) -> list[int]:
    """Those asked for, or the two (or one) whose means vary most."""
    size = means.shape[1]
    if components is None:
        return sorted(int(k) for k in np.argsort(-means.var(axis=0), kind="stable")[:2])
    wrong = [k for k in components if not 0 <= k < size]
    if wrong or len(components) not in (1, 2):
        raise DataError(f"components must be one or two of 0 to {size - 1}, got {list(components)}.")
    return list(components)


def _scatter(
    made: Figure, ax: Axes, at: np.ndarray, labels: np.ndarray, kinds: np.ndarray, axis_names: list[str], name: str
) -> None:
    style.tidy(ax, *axis_names)
    for radius in (1.0, 2.0):
        ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=style.INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
        place = radius * np.sqrt(0.5) * np.array([1, 1])
        ax.annotate(f"{radius:g} sd", place, ha="center", va="center", fontsize=style.SMALL - 1, color=style.INK, bbox=box)
    if len(kinds) <= len(CLASSES):
        for k, kind in enumerate(kinds):
            style.dots(ax, *at[labels == kind].T, color=CLASSES[k], label=f"{kind:g}" if _number(kind) else str(kind))
    else:
        shown = ax.scatter(at[:, 0], at[:, 1], c=labels.astype(float), s=9, cmap="viridis", linewidths=0, alpha=0.8)
        bar = made.colorbar(shown, ax=ax, shrink=0.8)
        bar.set_label(name, fontsize=style.TEXT, color=style.INK)
        bar.ax.tick_params(labelsize=style.SMALL, colors=style.INK)
        if bar.solids is not None:
            bar.solids.set_alpha(1.0)
        bar.outline.set_visible(False)  # type: ignore[operator]
    reach = 1.08 * max(float(np.abs(at).max()), 2.2)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")


def _histograms(ax: Axes, at: np.ndarray, labels: np.ndarray, kinds: np.ndarray, axis_name: str) -> None:
    if len(kinds) > len(CLASSES):
        raise DataError("of one latent variable, labels must be up to ten classes.")
    edges = np.linspace(at.min(), at.max() + 1e-12, 31).tolist()
    for k, kind in enumerate(kinds):
        label = f"{kind:g}" if _number(kind) else str(kind)
        ax.hist(at[labels == kind], edges, histtype="stepfilled", color=CLASSES[k], alpha=0.45, label=label)
    style.tidy(ax, axis_name, "Rows")


def _number(kind: Any) -> bool:
    return bool(np.issubdtype(np.asarray(kind).dtype, np.number))
