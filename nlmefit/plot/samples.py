"""`nm.plot.samples`: draws of a generative model beside the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import DataError
from nlmefit.core.keys import Key
from nlmefit.core.options import check_whole
from nlmefit.generative.rows import matrix
from nlmefit.plot import style
from nlmefit.plot.generative import column_names, frame, images, model_of, mosaic, name_of, panel_size, plane
from nlmefit.plot.legend import legend_below

MOST_ROWS, MOST_COLUMNS = 2000, 6
PICTURES = 50
LOOK = (("Data", style.DATA), ("Samples", style.FIT))


def samples(
    of: Any,
    X: Any,
    *,
    given: Any = None,
    columns: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    shape: tuple[int, ...] | None = None,
    n: int | None = None,
    key: Key = 0,
) -> Figure:
    """As many draws of the model as rows of X, side by side with them: histograms of one column, points of two, every pair of up
    to six (the data below the diagonal, samples above), or pictures of images.

    **Arguments:** `of` a generative model that can sample, or its fit; `X` the data; `given` conditional models' conditions, a
    row for each row of X or one for all; `columns` which to draw, of more than six; `names` of the columns; `shape` of images,
    (height, width) or (height, width, channels); `n` rows at the most, of each: 2000, or 50 images; `key` decides which.

    Raises NotTractableError for models that cannot sample, DataError for shapes that do not agree.
    """
    model = model_of(of)
    draw = model.sample  # type: ignore[attr-defined]
    X = matrix("X", X, model.dimension)
    check_whole("n", 1 if n is None else n, 1)
    most = n or (MOST_ROWS if shape is None else PICTURES)
    rows = np.sort(np.random.default_rng(0).permutation(len(X))[:most])
    options = {} if given is None else {"given": matrix("given", given)}
    if given is not None and len(options["given"]) > 1:
        options["given"] = options["given"][rows]
    both = X[rows], np.asarray(draw(len(rows), key=key, **options))
    if shape is not None:
        return _pictures(*both, shape, name_of(model))
    columns = list(range(X.shape[1]) if columns is None else columns)
    if not columns or len(columns) > MOST_COLUMNS or min(columns) < 0 or max(columns) >= X.shape[1]:
        raise DataError(
            f"columns must be up to {MOST_COLUMNS} of the {X.shape[1]} columns, 0 to {X.shape[1] - 1}, got {columns}; "
            "of images give their shape=."
        )
    labels = column_names(names, columns)
    parts = both[0][:, columns], both[1][:, columns]
    title = f"Samples of {name_of(model)} beside the data"
    if len(columns) == 1:
        return _histogram(*parts, labels[0], title)
    return (_pair if len(columns) == 2 else _pairs)(*parts, labels, title)


def _pictures(data: np.ndarray, drawn: np.ndarray, shape: tuple[int, ...], name: str) -> Figure:
    pictures = [images(X, shape) for X in (data, drawn)]
    across = min(10, len(data))
    rows = -(-len(data) // across)
    tall = 3.6 * rows * shape[0] / (across * shape[1])
    made = style.figure(7.6, max(tall, 0.5) + 0.8, f"Samples of {name} beside the data")
    limits = (0.0, 1.0) if len(shape) == 3 and shape[2] == 3 else (float(data.min()), float(data.max()))
    for ax, part, (label, _) in zip(made.subplots(1, 2), pictures, LOOK, strict=True):
        mosaic(ax, part, across, limits, label)
    return made


def _histogram(data: np.ndarray, drawn: np.ndarray, name: str, title: str) -> Figure:
    made = style.figure(5.6, 3.4, title)
    ax = made.subplots()
    _bars(ax, data[:, 0], drawn[:, 0])
    style.tidy(ax, name, "Density")
    legend_below(made, [ax])
    return made


def _bars(ax: Axes, data: np.ndarray, drawn: np.ndarray) -> None:
    low, high = frame(np.concatenate([data, drawn])[:, None], 0.02)[:, 0].tolist()
    edges = np.linspace(low, high, int(np.clip(np.sqrt(len(data)), 10, 50)) + 1).tolist()
    ax.hist(data, edges, density=True, color=style.DATA, alpha=0.35, label="Data")
    ax.hist(drawn, edges, density=True, histtype="step", color=style.FIT, linewidth=1.4, label="Samples")


def _pair(data: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str) -> Figure:
    limits = frame(np.concatenate([data, drawn]))
    width, height = panel_size(limits, 3.0)
    made = style.figure(2 * width + 1.0, height + 0.9, title)
    for ax, part, (label, color) in zip(made.subplots(1, 2, sharex=True, sharey=True), (data, drawn), LOOK, strict=True):
        style.dots(ax, *part.T, color=color)
        plane(ax, names, limits, label)
    made.axes[1].set_ylabel("")
    return made


def _pairs(data: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str) -> Figure:
    size = len(names)
    limits = frame(np.concatenate([data, drawn]))
    made = style.figure(1.5 * size + 1.2, 1.5 * size + 1.2, title)
    axes = made.subplots(size, size, squeeze=False, sharex="col").tolist()
    for i, j in np.ndindex(size, size):
        ax: Axes = axes[i][j]
        if i == j:
            _bars(ax, data[:, i], drawn[:, i])
        else:
            part, color = (data, style.DATA) if i > j else (drawn, style.FIT)
            style.dots(ax, part[:, j], part[:, i], color=color, markersize=2.0)
            ax.set_ylim(*limits[:, i])
        style.tidy(ax, names[j] if i == size - 1 else "", names[i] if j == 0 else "")
        ax.set_xlim(*limits[:, j])
        ax.tick_params(labelleft=j == 0 and i > 0, labelbottom=i == size - 1)
        ax.locator_params(nbins=3)
    legend_below(made, [axes[0][0]])
    return made
