"""`nm.plot.etas`: the random effects' distributions, pairs, and relations to covariates."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import NlmefitError, unknown
from nlmefit.data.records import STANDARD
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.diagnose import Diagnostics
from nlmefit.plot import style
from nlmefit.plot.subject import diagnostics_of, title_of
from nlmefit.results.fit import Fit

FEW = 5
"""Values of a covariate that is shown as a category."""
MOST_COVARIATES = 6


def etas(
    of: Diagnostics | Fit, covariates: Sequence[str] | None = None, *, data: pd.DataFrame | Subjects | None = None
) -> Figure:
    """A row for each random effect: against those before it, its distribution with the N(0, omega^2) density and its shrinkage
    (by sd), and against covariates (boxes where these have up to five values). Those of occasions are shown together.

    **Arguments:** `of` a fit, of its own data or of `data`, or `nm.diagnose(fit)`; `covariates` columns of the
    data, None for all (six at most) that do not change within a subject and are not NONMEM's own, in the model or not.

    Raises NlmefitError for unknown columns, for those that are not numbers or text, and for a model without random effects.
    """
    found = diagnostics_of(of, data)
    effects = _effects(found)
    if not effects:
        raise NlmefitError("the model has no random effects.")
    columns = _covariates(found, covariates)
    names = list(effects)
    paired = max(1, sum(kind == "eta" for kind, _ in names))
    made = style.figure(2.3 * (paired + columns.shape[1]) + 0.6, 2.1 * len(names) + 0.7, title_of("Random effects", found.fit))
    axes = made.subplots(len(names), paired + columns.shape[1], squeeze=False)
    for i, name in enumerate(names):
        own = i if name[0] == "eta" else 0  # the effects of occasions have no pairs
        for j in range(paired):
            if j == own:
                _distribution(axes[i, j], found, effects[name], name)
            elif name[0] == "kappa":
                axes[i, j].set_axis_off()
            else:
                _pair(axes[i, j], effects[names[j]], effects[name], j < i)
                style.tidy(axes[i, j], _label(names[j]) if i == paired - 1 else "", _label(name) if j == 0 else "")
        for k, column in enumerate(columns, start=paired):
            _against(axes[i, k], columns[column], effects[name])
            style.tidy(axes[i, k], str(column) if i == len(names) - 1 else "", _label(name) if k == paired else "")
    return made


def _effects(found: Diagnostics) -> dict[tuple[str, str], pd.DataFrame]:
    """By kind and name: columns of the etas, several for those of occasions."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for column in found.eta.columns:
        name = str(column)
        of_occasion = name.startswith("kappa_")
        key = ("kappa", name.removeprefix("kappa_").rpartition("_")[0]) if of_occasion else ("eta", name)
        groups.setdefault(key, []).append(column)
    return {key: found.eta[columns] for key, columns in groups.items()}


def _label(key: tuple[str, str]) -> str:
    return f"{'η' if key[0] == 'eta' else 'κ'} {key[1]}"


def _distribution(ax: Axes, found: Diagnostics, own: pd.DataFrame, key: tuple[str, str]) -> None:
    values = own.to_numpy(float).ravel()
    values = values[np.isfinite(values)]
    place = found.problem.model.eta_names().index(str(own.columns[0]))
    sd = float(np.sqrt(found.fit.omega.to_numpy()[place, place]))
    reach = max(3.2 * sd, 1.05 * np.abs(values).max(initial=0.0))
    bins = 2 * int(np.clip(np.sqrt(len(values)) / 1.5, 4, 15)) + 1
    ax.hist(
        values,
        bins=np.linspace(-reach, reach, bins).tolist(),
        density=True,
        color=style.DATA,
        alpha=0.55,
        edgecolor="white",
        linewidth=0.6,
    )
    grid = np.linspace(-reach, reach, 200)
    ax.plot(grid, np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2 * np.pi)), color=style.INK, linewidth=1.2)
    shrunk = float(found.shrinkage["sd"].loc[key])
    style.tidy(ax, _label(key), "", f"{'ω' if key[0] == 'eta' else 'γ'} {sd:.3g}, shrinkage {shrunk:.0f} %")
    ax.set_yticks([])


def _pair(ax: Axes, across: pd.DataFrame, up: pd.DataFrame, below: bool) -> None:
    """Below the diagonal the points, above it their correlation."""
    x, y = (effect.to_numpy(float).ravel() for effect in (across, up))
    if not below:
        ax.set_axis_off()
        r = np.corrcoef(x, y)[0, 1] if len(x) > 2 and x.std() > 0 and y.std() > 0 else np.nan
        if np.isfinite(r):
            ax.text(
                0.5,
                0.5,
                f"r = {r:.2f}",
                ha="center",
                va="center",
                transform=ax.transAxes,
                fontsize=9 + 4 * abs(r),
                color=style.INK,
            )
        return
    style.dots(ax, x, y)
    ax.axhline(0.0, color=style.MUTED, linewidth=0.8)
    ax.axvline(0.0, color=style.MUTED, linewidth=0.8)


# ---- covariates ------------------------------------------------------------------------------------------------------


def _covariates(found: Diagnostics, wanted: Sequence[str] | None) -> pd.DataFrame:
    """Columns of the user's data by subject: the first value that is there."""
    frame, records = found.data.frame, found.data.records
    ids = records.frame["ID"].to_numpy()
    if wanted is not None:
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            raise NlmefitError(f"covariates must be a list of columns, got {wanted!r}.")
        for name in wanted:
            if name not in frame:
                raise NlmefitError("covariates=: " + unknown("column", str(name), map(str, frame.columns)))
        chosen = list(wanted)
    else:
        own = {original for name, original in records.source.items() if name in STANDARD}
        candidates = [c for c in frame.columns if c not in own]
        constant = [c for c in candidates if frame[c].groupby(ids).nunique().max() <= 1 and frame[c].nunique() > 1]
        chosen = constant[:MOST_COVARIATES]
    table = frame[chosen].groupby(ids, sort=False).first()
    return table.loc[list(found.eta.index)]


def _against(ax: Axes, covariate: pd.Series, own: pd.DataFrame) -> None:
    ax.axhline(0.0, color=style.MUTED, linewidth=0.8)
    x, y = covariate.repeat(own.shape[1]), own.to_numpy(float).ravel()
    known = np.isfinite(y) & x.notna().to_numpy()
    x, y = x[known], y[known]
    if pd.api.types.is_numeric_dtype(x) and x.nunique() > FEW:
        style.dots(ax, x.to_numpy(float), y)
        style.smooth(ax, x.to_numpy(float), y)
        return
    levels = sorted(x.unique(), key=lambda v: (str(type(v)), v))
    parts: list[Float[np.ndarray, " n"]] = [y[(x == level).to_numpy()] for level in levels]
    look = {"color": style.INK, "linewidth": 0.9}
    ax.boxplot(
        parts,
        showfliers=False,
        widths=0.5,
        boxprops=look,
        whiskerprops=look,
        capprops=look,
        medianprops={**look, "color": style.FIT},
    )
    for k, values in enumerate(parts, 1):
        style.dots(ax, k + np.linspace(-0.12, 0.12, len(values)), values)
    ax.set_xticks(range(1, len(levels) + 1), [f"{v:g}" if isinstance(v, int | float | np.number) else str(v) for v in levels])
