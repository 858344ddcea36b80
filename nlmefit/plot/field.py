"""`nm.plot.field`: where a generative model of two columns sends its points: velocities, or scores."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import DataError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.generative.capability import in_blocks
from nlmefit.generative.diffusion.diffusion import AbstractDiffusion
from nlmefit.generative.diffusion.noising import noise, signal
from nlmefit.generative.transport.velocity import AbstractVelocity
from nlmefit.plot import style
from nlmefit.plot.generative import column_names, frame, grid, model_of, name_of, panel_size, planar, plane, shape_of
from nlmefit.plot.legend import legend_below

STOPS = 41
MOST_DOTS = 400
LETTER = 0.092
"""Inches that one of the title takes."""


def field(
    of: Any,
    X: Any,
    *,
    times: Sequence[float] = (1.0, 0.5, 0.0),
    given: Any = None,
    names: Sequence[str] | None = None,
    paths: int = 60,
    points: int = 17,
    key: Key = 0,
) -> Figure:
    """Arrows on a grid, whose length is relative within a panel (the longest tenth are cut to the same length).

    Of models with a velocity field: dx/dt towards the data (that is, -v, as t falls from 1, the source, to 0, the data) at each
    of the times, with points on their way, and the paths that `paths` of them take. Of diffusions: the score of the noised data
    at each of the times, with the data so noised. Of others with a `stein_score`: that, with the data.

    **Arguments:** `of` a model of two columns, or its fit; `X` the data; `times`; `given` one row of conditions for all;
    `names` of the columns; `paths` how many; `points` of the grid each way, about; `key` decides where points start.

    Raises NotTractableError for models with neither field, NlmefitError for other dimensions, DataError for times outside of
    [0, 1].
    """
    model = model_of(of)
    if not isinstance(model, AbstractVelocity):
        model.stein_score  # type: ignore[attr-defined]  # noqa: B018  what it cannot do, it says
    X = planar(model, X, "A field")
    check_whole("paths", paths, 1)
    check_whole("points", points, 3)
    if not times or not all(0 <= t <= 1 for t in times):
        raise DataError(f"times must be between 0 (data) and 1 (source), got {times!r}.")
    X = X[np.random.default_rng(0).permutation(len(X))[:MOST_DOTS]]
    labels = column_names(names, (0, 1))
    if isinstance(model, AbstractVelocity):
        return _velocities(model, X, sorted(map(float, times), reverse=True), given, labels, paths, points, key)
    if isinstance(model, AbstractDiffusion):
        return _noised_scores(model, X, sorted(map(float, times), reverse=True), given, labels, points, key)
    options = {} if given is None else {"given": given}
    limits = frame(X)
    made, (ax,) = _panels(1, limits, f"Score of {name_of(model)}, d log p(x) / dx")
    across = grid(limits, _spread(limits, points))[2]
    _arrows(ax, across, model.stein_score(across, **options), limits, points)  # type: ignore[attr-defined]
    style.dots(ax, *X.T, label="Data", markersize=2.5, alpha=0.5)
    plane(ax, labels, limits)
    legend_below(made, [ax])
    return made


def _velocities(
    model: AbstractVelocity, X: np.ndarray, times: list[float], given: Any, names: list[str], paths: int, points: int, key: Key
) -> Figure:
    Z = sources(model, MOST_DOTS, given, key)
    stops = np.unique(np.r_[np.linspace(0, 1, STOPS), times])[::-1]
    on_the_way = model.paths(Z, stops, given=given)
    limits = frame(np.concatenate([X, Z]))
    made, axes = _panels(len(times) + 1, limits, f"Velocity of {name_of(model)}, from the source (t = 1) to the data (t = 0)")
    for ax, t in zip(axes, times, strict=False):
        across = grid(limits, _spread(limits, points))[2]
        _arrows(ax, across, -model.velocity_at(across, t, given=given), limits, points)
        here = on_the_way[int(np.flatnonzero(stops == t)[0])]
        style.dots(ax, *here.T, label="points on their way", markersize=2.5, alpha=0.5)
        plane(ax, names, limits, f"t = {t:g}")
    last = axes[-1]
    for k in range(min(paths, len(Z))):
        last.plot(*on_the_way[:, k].T, color=style.INK, linewidth=0.6, alpha=0.5, label="paths")
    style.dots(last, *Z[:paths].T, color=style.SECOND, markersize=3.5, alpha=0.9, label="source (t = 1)")
    style.dots(last, *on_the_way[-1, :paths].T, color=style.FIT, markersize=3.5, alpha=0.9, label="data (t = 0)")
    plane(last, names, limits, "Paths")
    _one_column_of_labels(axes)
    legend_below(made, axes)
    return made


def _noised_scores(
    model: AbstractDiffusion, X: np.ndarray, times: list[float], given: Any, names: list[str], points: int, key: Key
) -> Figure:
    eps = np.asarray(jax.random.normal(jax_key(key), X.shape))
    limits = frame(np.concatenate([X, _noised(model, X, eps, 1.0)]))
    made, axes = _panels(len(times), limits, f"Score of {name_of(model)} for data with the noise of time t")
    for ax, t in zip(axes, times, strict=True):
        across = grid(limits, _spread(limits, points))[2]
        _arrows(ax, across, model.stein_score(across, t, given=given), limits, points)
        style.dots(ax, *_noised(model, X, eps, t).T, label="data with that noise", markersize=2.5, alpha=0.5)
        plane(ax, names, limits, f"t = {t:g}")
    _one_column_of_labels(axes)
    legend_below(made, axes)
    return made


def sources(model: AbstractVelocity, n: int, given: Any, key: Key) -> Float[np.ndarray, "n D"]:
    """Draws of the model's source (t = 1), in the data's units."""
    return in_blocks(_source, model, jax.random.split(jax_key(key), n), model._given(given, n))


def _source(model: AbstractVelocity, key: Array, given: Array) -> Array:
    assert model.dynamics is not None
    return model.dynamics.outer(model.draw_source(key, given))


def _noised(model: AbstractDiffusion, X: np.ndarray, eps: np.ndarray, t: float) -> np.ndarray:
    """x_t of the rows, in the data's units."""
    log_snr, units = model.schedule.log_snr(jnp.asarray(t)), model.units
    return np.asarray(units.back(signal(log_snr) * units.x(jnp.asarray(X)) + noise(log_snr) * eps))


def _panels(count: int, limits: np.ndarray, title: str) -> tuple[Figure, list[Axes]]:
    width, height = panel_size(limits, 2.2 if count > 1 else 3.8)
    made = style.figure(max((width + 0.15) * count + 0.7, LETTER * len(title)), height + 1.25, title)
    return made, list(made.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0])


def _spread(limits: np.ndarray, points: int) -> tuple[int, int]:
    """Points across and up, as far apart one way as the other."""
    root = np.sqrt(shape_of(limits))
    return max(3, round(points / root)), max(3, round(points * root))


def _arrows(ax: Axes, at: np.ndarray, along: np.ndarray, limits: np.ndarray, points: int) -> None:
    """The longest a little longer than the grid is wide."""
    length = np.linalg.norm(along, axis=1)
    most = np.quantile(length, 0.9) or 1.0
    along = along * np.minimum(1.0, most / np.maximum(length, 1e-300))[:, None]
    scale = most / 1.3 * _spread(limits, points)[0] / float(np.diff(limits[:, 0])[0])
    ax.quiver(*at.T, *along.T, color=style.INK, alpha=0.75, angles="xy", scale_units="xy", scale=scale, width=0.0035)


def _one_column_of_labels(axes: list[Axes]) -> None:
    for ax in axes[1:]:
        ax.set_ylabel("")
