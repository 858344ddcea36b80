"""`nm.plot.denoising`: samples of a diffusion on their way from noise to data."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from nlmefit.core.errors import DataError, NlmefitError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.generative.capability import in_blocks
from nlmefit.generative.diffusion.diffusion import AbstractDiffusion, ancestral_path
from nlmefit.plot import style
from nlmefit.plot.generative import column_names, frame, images, model_of, mosaic, name_of, panel_size, plane

ROWS = ("noised, $x_t$", "$E[x_0\\,|\\,x_t]$")
PICTURES = 6


def denoising(
    of: Any,
    *,
    times: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.0),
    given: Any = None,
    shape: tuple[int, ...] | None = None,
    names: Sequence[str] | None = None,
    n: int | None = None,
    steps: int = 200,
    key: Key = 0,
) -> Figure:
    """Ancestral samples at each of the times, from noise (t = 1) to data (t = 0), and below them what the model then predicts of
    the data. Points of two columns, or images.

    **Arguments:** `of` a diffusion, or its fit; `times`; `given` the conditions, a row for all or one for each of `n` samples
    (600 points, or 6 images); `shape` of images; `names` of the columns; `steps` of the sampling; `key` decides it.

    Raises NlmefitError for other models and, without a shape, for other than two columns; DataError for times outside of [0, 1].
    """
    model = model_of(of)
    if not isinstance(model, AbstractDiffusion):
        raise NlmefitError(f"denoising is drawn of diffusions; {name_of(model)} adds no noise to the data. See nm.plot.samples.")
    check_whole("steps", steps, 1)
    count = n or (600 if shape is None else PICTURES)
    check_whole("n", count, 1)
    if not times or not all(0 <= t <= 1 for t in times):
        raise DataError(f"times must be between 0 (data) and 1 (noise), got {times!r}.")
    if shape is None and model.dimension not in (None, 2):
        raise NlmefitError(
            f"denoising is drawn of models of 2 columns, this one has {model.dimension}: of images give their shape=."
        )
    if model.dimension is None:
        model._rows(None)
    ordered = sorted(map(float, times), reverse=True)
    places = tuple(round((1 - t) * steps) for t in ordered)
    c = model._given(given, count)
    found = in_blocks(_snapshots, model, jax.random.split(jax_key(key), count), c, steps=steps, places=places)
    both = [np.moveaxis(part, 1, 0) for part in found]
    shown = [1 - place / steps for place in places]
    title = f"{name_of(model)}: from noise to data"
    if shape is not None:
        return _pictures(both, shown, shape, title)
    return _points(both, shown, column_names(names, (0, 1)), title)


def _snapshots(
    model: AbstractDiffusion, key: Array, given: Array, *, steps: int, places: tuple[int, ...]
) -> tuple[Float[Array, "T D"], Float[Array, "T D"]]:
    """x_t at those steps, and what is predicted of x_0 there, in the data's units."""
    x = ancestral_path(model, key, given, steps)[np.array(places)]
    log_snr = jax.vmap(model.schedule.log_snr)(1 - jnp.array(places) / steps)
    data = jax.vmap(lambda x, at: model.predicted(x, at, given).data)(x, log_snr)
    return jax.vmap(model.units.back)(x), jax.vmap(model.units.back)(data)


def _points(both: list[np.ndarray], times: list[float], names: list[str], title: str) -> Figure:
    limits = frame(both[0].reshape(-1, 2))
    width, height = panel_size(limits, 1.5)
    made = style.figure((width + 0.15) * len(times) + 0.9, 2 * (height + 0.1) + 1.0, title)
    axes = made.subplots(2, len(times), squeeze=False, sharex=True, sharey=True)
    for i, (label, part, color) in enumerate(zip(ROWS, both, (style.DATA, style.FIT), strict=True)):
        for j, t in enumerate(times):
            ax = axes[i, j]
            style.dots(ax, *part[j].T, color=color, markersize=2.2)
            plane(ax, (names[0] if i else "", f"{label}\n{names[1]}" if not j else ""), limits, "" if i else f"t = {t:.3g}")
            ax.locator_params(nbins=3)
    return made


def _pictures(both: list[np.ndarray], times: list[float], shape: tuple[int, ...], title: str) -> Figure:
    """A column for each time: samples one below the other, then the predictions."""
    count = both[0].shape[1]
    made = style.figure(2 * 0.75 * len(times) + 0.8, 0.75 * count * shape[0] / shape[1] + 0.9, title)
    last = both[1][-1]
    limits = (0.0, 1.0) if len(shape) == 3 and shape[2] == 3 else (float(np.quantile(last, 0.01)), float(np.quantile(last, 0.99)))
    axes = made.subplots(1, 2)
    for ax, part, label in zip(axes, both, ROWS, strict=True):
        pictures = images(np.moveaxis(part, 1, 0).reshape(-1, part.shape[2]), shape)
        mosaic(ax, pictures, len(times), limits, label)
        ax.set_axis_on()
        ax.spines[:].set_visible(False)
        ax.set_yticks([])
        ax.set_xticks([(k + 0.5) * (shape[1] + 1) - 1 for k in range(len(times))], [f"{t:.3g}" for t in times])
        ax.tick_params(length=0, labelsize=style.SMALL, colors=style.INK)
        ax.set_xlabel("t", fontsize=style.TEXT, color=style.INK)
    return made
