"""`nm.plot.npde`: normalised prediction distribution errors."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from nlmefit.core.errors import NlmefitError
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.diagnose import Diagnostics
from nlmefit.plot import style
from nlmefit.plot.gof import quantiles
from nlmefit.plot.subject import diagnostics_of, title_of
from nlmefit.results.fit import Fit


def npde(of: Diagnostics | Fit, data: pd.DataFrame | Subjects | None = None) -> Figure:
    """NPDE's quantiles and histogram against the standard normal distribution, and NPDE against time and PRED: four panels for
    each endpoint (NPD where it has no NPDE, such as counts).

    **Arguments:** `of` a fit, of its own data or of `data`, or `nm.diagnose(fit, draws=...)`. Raises NlmefitError where no
    endpoint has any.
    """
    found = diagnostics_of(of, data)
    errors = found.prediction_errors
    table = found.residuals.assign(**{str(name): errors[name].to_numpy() for name in errors})
    shown = [name for name in found.problem.families if np.isfinite(table.loc[table["endpoint"] == name, "NPD"]).any()]
    if not shown:
        raise NlmefitError("no endpoint has prediction distribution errors: its simulations are no numbers.")
    made = style.figure(8.4, 6.4 * len(shown), title_of("Prediction errors", found.fit) if len(shown) == 1 else "")
    titles = [f"{title_of('Prediction errors', found.fit)}, {name}" for name in shown]
    for part, name in zip(style.parts(made, titles), shown, strict=True):
        _panels(part, table[table["endpoint"] == name], found.fit.model, name)
    return made


def _panels(on: Figure | SubFigure, own: pd.DataFrame, model: Any, name: str) -> None:
    kind = "NPDE" if np.isfinite(own["NPDE"]).any() else "NPD"
    values, axes = own[kind].to_numpy(), on.subplots(2, 2)
    known = values[np.isfinite(values)]
    quantiles(axes[0, 0], known)
    style.tidy(axes[0, 0], "Standard normal quantile", kind, f"mean {known.mean():.2f}, sd {known.std():.2f}, n = {len(known)}")
    ax = axes[0, 1]
    ax.hist(known, bins=_bins(known).tolist(), density=True, color=style.DATA, alpha=0.55, edgecolor="white", linewidth=0.6)
    grid = np.linspace(-3.5, 3.5, 200)
    ax.plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), color=style.INK, linewidth=1.2, label="N(0, 1)")
    style.tidy(ax, kind, "Density")
    places = (
        ("TIME", style.time_label(model)),
        ("PRED", style.with_unit("Population prediction", style.endpoint_unit(model, name))),
    )
    for ax, (column, label) in zip(axes[1], places, strict=True):
        x = own[column].to_numpy()
        if np.isfinite(x).any():
            style.dots(ax, x, values)
            style.smooth(ax, x, values)
            style.normal_limits(ax)
            style.tidy(ax, label, kind)
        else:  # categories have no prediction
            ax.set_axis_off()
    style.legend(on, axes.ravel())


def _bins(values: np.ndarray) -> np.ndarray:
    """Of equal width, symmetric around 0, about as many as the square root of the values."""
    reach = max(3.0, float(np.abs(values).max(initial=0.0)) + 1e-9)
    return np.linspace(-reach, reach, 2 * int(np.clip(np.sqrt(len(values)) / 2, 4, 20)) + 1)
