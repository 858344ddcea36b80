"""What the figures of generative models share: the model that is meant, labels, pictures of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from nlmefit.core.errors import DataError, NlmefitError
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.generative.rows import matrix
from nlmefit.generative.trainer import GenerativeFit
from nlmefit.plot import style
from nlmefit.results.fit import Fit

CLASSES = ("#2f6db3", "#d1511b", "#3b8f5a", "#8a3ffc", "#b8860b", "#0e9aa7", "#c2378f", "#6b7782", "#7a4b2a", "#a3b018")
"""Colours of what has no order."""


def model_of(given: Any) -> AbstractGenerative:
    """The generative model itself, or that of a fit. Raises NlmefitError for anything else."""
    model = given.model if isinstance(given, GenerativeFit | Fit) else given
    if not isinstance(model, AbstractGenerative):
        raise NlmefitError(f"the figure is of a generative model or of its fit, got {type(model).__name__}.")
    return model


def name_of(model: AbstractGenerative) -> str:
    return type(model).__name__


def planar(model: AbstractGenerative, X: Any, what: str) -> Float[np.ndarray, "N 2"]:
    """The data of a model of two columns. Raises NlmefitError for other models, DataError for other data."""
    found = matrix("X", X, model.dimension)
    if found.shape[1] != 2:
        raise NlmefitError(
            f"{what} is drawn of models of 2 columns; this {name_of(model)} has {found.shape[1]}. nm.plot.samples is of any."
        )
    return found


def column_names(names: Sequence[str] | None, columns: Sequence[int]) -> list[str]:
    """Labels of these columns: `names` has one for every column of X, or one for each that is drawn."""
    if names is None:
        return [f"$x_{{{k + 1}}}$" for k in columns]
    if len(names) == len(columns):
        return list(map(str, names))
    if max(columns) >= len(names):
        raise DataError(f"names has {len(names)} entries, and column {max(columns)} is drawn.")
    return [str(names[k]) for k in columns]


def frame(X: Float[np.ndarray, "N D"], margin: float = 0.12) -> Float[np.ndarray, "2 D"]:
    """Limits by column around the data, a few strays left out."""
    low, high = np.quantile(X, [0.002, 0.998], axis=0)
    reach = margin * np.where(high > low, high - low, 1.0)
    return np.array([low - reach, high + reach])


def shape_of(limits: Float[np.ndarray, "2 2"]) -> float:
    """Height over width, where a unit is to be as long across as up; 1 where the spreads differ too much for that."""
    width, height = np.diff(limits, axis=0)[0]
    return float(height / width) if 1 / 3 < width / height < 3 else 1.0


def panel_size(limits: Float[np.ndarray, "2 2"], side: float) -> tuple[float, float]:
    """Width and height in inches of a panel of that area's side."""
    root = float(np.sqrt(shape_of(limits)))
    return side / root, side * root


def grid(limits: Float[np.ndarray, "2 2"], points: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "P 2"]]:
    """Coordinates across and up, and the points of their grid row by row."""
    low, high = limits.tolist()
    across, up = (np.linspace(low[k], high[k], points[k]) for k in range(2))
    return across, up, np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)


def plane(ax: Axes, names: Sequence[str], limits: Float[np.ndarray, "2 2"], title: str = "") -> None:
    """Two columns, a unit as long across as up where the spreads allow it."""
    style.tidy(ax, names[0], names[1], title)
    ax.set_xlim(*limits[:, 0])
    ax.set_ylim(*limits[:, 1])
    if shape_of(limits) != 1.0:
        ax.set_aspect("equal")


def images(X: Any, shape: tuple[int, ...]) -> Float[np.ndarray, "N h w *c"]:
    """Rows as images. Raises DataError where rows and shape do not agree."""
    X = matrix("X", X)
    if len(shape) not in (2, 3) or (*shape, 1)[2] not in (1, 3):
        raise DataError(f"shape must be (height, width), or with 1 or 3 channels (height, width, channels), got {shape}.")
    if int(np.prod(shape)) != X.shape[1]:
        raise DataError(f"rows have {X.shape[1]} columns; images of shape {shape} have {int(np.prod(shape))} pixels.")
    return X.reshape(len(X), *shape).squeeze(-1) if shape[2:] == (1,) else X.reshape(len(X), *shape)


def mosaic(ax: Axes, pictures: np.ndarray, columns: int, limits: tuple[float, float], title: str = "") -> np.ndarray:
    """Images beside and below each other, one grey scale (or colours from 0 to 1) for all; what is shown."""
    count, height, width = pictures.shape[:3]
    rows, rest = -(-count // columns), pictures.shape[3:]
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *rest), np.nan)
    for k, picture in enumerate(pictures):
        y, x = divmod(k, columns)
        sheet[y * (height + 1) :, x * (width + 1) :][:height, :width] = picture
    low, high = limits
    shown = np.nan_to_num(np.clip((sheet - low) / (high - low), 0, 1), nan=1.0) if rest else sheet
    ax.imshow(shown, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=style.TEXT, color=style.INK, loc="left")
    return sheet
