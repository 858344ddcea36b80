"""`nm.plot.forest`: the effects of covariates on parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from nlmefit.core.errors import MethodError, ModelError, NlmefitError, unknown
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Theta
from nlmefit.declare.covariates import Category, Level, code
from nlmefit.estimate.problem import Problem
from nlmefit.plot import style
from nlmefit.plot.differences import EQUIVALENCE, ratio_axis
from nlmefit.plot.legend import legend_below
from nlmefit.plot.subject import title_of
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.results.joint_draws import has_covariance, parameters

FEW = 5
"""Values of a covariate that are each shown."""
NO_EFFECT = 1e-12


def forest(
    fit: Fit,
    parameters: Sequence[str] | None = None,
    covariates: Sequence[str] | None = None,
    *,
    reference: Mapping[str, Level] | None = None,
    percentiles: tuple[float, float] = (5, 95),
    draws: int = 2000,
    key: Key = 0,
) -> Figure:
    """A row for each covariate's low and high value (or category) and each parameter that it acts on: the parameter of a typical
    subject with that value over that of a reference subject, all else equal, with its 90 % interval. 0.8 to 1.25 is shaded.

    **Arguments:** as for `covariate_effects`, which gives the numbers. Raises as it does.
    """
    table = covariate_effects(fit, parameters, covariates, reference=reference, percentiles=percentiles, draws=draws, key=key)
    made = style.figure(8.4, 0.3 * len(table) + 0.45 * table["parameter"].nunique() + 1.4, title_of("Covariate effects", fit))
    ax = made.subplots()
    ax.axvspan(*EQUIVALENCE, color=style.PALE, linewidth=0, label="0.8 to 1.25", zorder=0)
    ax.axvline(1.0, color=style.INK, linewidth=0.9, label="reference subject")
    place, labels = 0.0, []
    for name, own in table.groupby("parameter", sort=False):
        labels.append((place, str(name), True))
        for row in own.to_dict("records"):
            place += 1
            known = np.isfinite(row["lower"])
            if known:
                ax.plot(
                    [row["lower"], row["upper"]], [place, place], color=style.INK, linewidth=1.6, label="90 % interval", zorder=2
                )
            ax.plot([row["ratio"]], [place], "s", color=style.FIT, markersize=6, label="estimate", zorder=3)
            labels.append((place, f"{row['covariate']} {_shown(row['value'])}", False))
            text = f"{row['ratio']:.2f}" + (f"  ({row['lower']:.2f} to {row['upper']:.2f})" if known else "  (fixed)")
            look: dict[str, Any] = {"va": "center", "fontsize": style.SMALL, "color": style.INK}
            ax.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), **look)
        place += 1.5
    given = ", ".join(f"{name} {_shown(value)}" for name, value in table.attrs["reference"].items())
    style.tidy(ax, f"Parameter over that of a subject with {given}", "")
    drawn = table[["ratio", "lower", "upper"]].to_numpy()
    ratio_axis(ax, [*EQUIVALENCE, *drawn[np.isfinite(drawn)]])
    ax.set_yticks([p for p, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, head) in zip(ax.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if head else "normal")
    ax.set_ylim(place - 0.8, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    legend_below(made, [ax])
    return made


def covariate_effects(
    fit: Fit,
    parameters: Sequence[str] | None = None,
    covariates: Sequence[str] | None = None,
    *,
    reference: Mapping[str, Level] | None = None,
    percentiles: tuple[float, float] = (5, 95),
    draws: int = 2000,
    key: Key = 0,
) -> pd.DataFrame:
    """The numbers of `forest`: columns parameter, covariate, value, ratio, lower, upper; the ends are NaN where nothing of the
    effect was estimated.

        ratio = P(theta, eta = 0, x with one covariate at the value) / P(theta, eta = 0, x at the reference)

    at the estimates, and its 5 % and 95 % quantiles with theta from the normal distribution of the free coordinates with the
    fit's covariance.

    **Arguments:** `parameters` and `covariates` by name, all where None; `reference` values of the reference subject, by default
    those that the effects declare, else the median of the subjects' first records (the most frequent value of a category);
    `percentiles` of the subjects, where a covariate has more than five values; a category's levels are each shown.

    Raises NlmefitError for a fit without data, unknown names, and a model in which no covariate acts; MethodError for a fit
    without the covariance of its estimates; ModelError for a fit that was loaded without its model.
    """
    check_whole("draws", draws, 100)
    model, problem = _bound(fit)
    if not model.covariates:
        raise NlmefitError("the model has no covariates.")
    names = _chosen("covariates", covariates, model.covariates)
    kept = _chosen("parameters", parameters, model.specification.typical)
    by_subject = fit.data.records.frame.groupby("ID", sort=False)[list(model.covariates)].first()
    base = _reference(model, by_subject, reference or {})
    if not has_covariance(fit):
        raise MethodError(
            "the fit has no covariance of its estimates, so that the effects have no intervals; fit with covariance=."
        )
    points = [(name, value) for name in names for value in _values(model, by_subject[name], name, base[name], percentiles)]
    at = {
        name: np.array([code(v) for v in (base[name], *(v if n == name else base[name] for n, v in points))])
        for name in model.covariates
    }
    u = np.vstack([np.asarray(fit.found.u)[None], _drawn(fit, draws, key)])  # type: ignore[union-attr]
    found = _individual(problem, model, u, at)
    rows = []
    for name in kept:
        ratio = found[name][:, 1:] / found[name][:, :1]
        for k, (covariate, value) in enumerate(points):
            own = ratio[:, k]
            if np.all(np.abs(own - 1) < NO_EFFECT):
                continue
            ends = np.quantile(own[1:], (0.05, 0.95)) if np.ptp(own) > NO_EFFECT else (np.nan, np.nan)
            rows.append((name, covariate, value, own[0], *ends))
    if not rows:
        raise NlmefitError("none of these covariates acts on any of these parameters.")
    table = pd.DataFrame(rows, columns=["parameter", "covariate", "value", "ratio", "lower", "upper"])
    table.attrs["reference"] = {name: base[name] for name in dict.fromkeys(table["covariate"])}
    return table


def _bound(fit: Any) -> tuple[Model, Problem]:
    if not isinstance(fit, Fit):
        raise NlmefitError(f"the figure is of a fit, got {type(fit).__name__}.")
    if not isinstance(fit.model, Model):
        raise ModelError("the figure needs a fit of an nm.Model, with its model: nm.load(path, model=...).")
    if fit.data is None or fit.latent is None:
        raise NlmefitError("this fit was loaded from a file, which holds no data, and so no covariates.")
    return fit.model, Problem(fit.latent, fit.data)


def _chosen(what: str, wanted: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    for name in wanted or ():
        if name not in known:
            raise NlmefitError(f"{what}=: " + unknown(what.removesuffix("s"), str(name), known))
    return list(known if wanted is None else wanted)


def _shown(value: Level) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _value(value: Any) -> Level:
    return value if isinstance(value, str) else float(value)


def _reference(model: Model, by_subject: pd.DataFrame, given: Mapping[str, Level]) -> dict[str, Level]:
    declared: dict[str, Any] = {
        e.column: getattr(e, "reference", None) for p in model.specification.individuals.values() for e in p.covariates
    }
    _chosen("reference", list(given), model.covariates)
    found = {}
    for name in model.covariates:
        values = by_subject[name].dropna()
        usual = values.median() if values.nunique() > FEW and values.dtype != object else values.mode().iloc[0]
        own = declared.get(name)
        found[name] = _value(given.get(name, usual if own is None else own))
        if name in given and isinstance(found[name], str) != (values.dtype == object):
            raise NlmefitError(
                f"reference=: {name} must be {'a text' if values.dtype == object else 'a number'}, got {given[name]!r}."
            )
    return found


def _values(model: Model, column: pd.Series, name: str, reference: Level, percentiles: tuple[float, float]) -> list[Level]:
    effects = [e for p in model.specification.individuals.values() for e in p.covariates if e.column == name]
    if any(isinstance(e, Category) for e in effects) or column.nunique() <= FEW:
        return [_value(v) for v in sorted(column.dropna().unique()) if v != reference]
    return [float(v) for v in np.nanpercentile(column.to_numpy(float), percentiles)]


def _drawn(fit: Fit, draws: int, key: Key) -> Float[np.ndarray, "d p"]:
    return parameters(fit, draws, jax_key(key))


def _individual(
    problem: Problem, model: Model, u: Float[np.ndarray, "d p"], at: Mapping[str, Float[np.ndarray, " k"]]
) -> dict[str, Float[np.ndarray, "d k"]]:
    """Individual parameters at eta = 0, by draw and covariates."""
    none = dict.fromkeys(model.specification.effects, 0.0)

    def one(u: Array, x: Theta) -> dict[str, Array]:
        found = model.parameters_of(problem.coordinates.theta(u, problem.fixed), none, x)
        return {name: jnp.asarray(value, float) for name, value in found.items()}

    run = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None)))
    return {name: np.asarray(values) for name, values in run(u, dict(at)).items()}
