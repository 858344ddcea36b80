"""`nm.plot.reconstruction`: images, and what a model's latent variables keep of them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nlmefit.core.errors import DataError
from nlmefit.core.options import check_whole
from nlmefit.generative.rows import matrix
from nlmefit.plot import style
from nlmefit.plot.generative import images, model_of, mosaic, name_of


def reconstruction(of: Any, X: Any, shape: tuple[int, ...], *, given: Any = None, n: int = 10) -> Figure:
    """The first `n` rows as images, E[x | z] at the posterior mean of z below each, and the difference (white where the
    reconstruction is too dark, black where it is too bright).

    **Arguments:** `of` a model with a posterior (PPCA, factor analysis, VAEs), or its fit; `X` the data; `shape` (height,
    width) or (height, width, channels); `given` the conditions, a row for each of X or one for all; `n` images.

    Raises NotTractableError for models without latent variables, DataError for shapes that do not agree.
    """
    model = model_of(of)
    reconstruct = model.reconstruct  # type: ignore[attr-defined]
    check_whole("n", n, 1)
    X = matrix("X", X, model.dimension)[:n]
    c = None if given is None else matrix("given", given)
    if c is not None and len(c) > 1:
        c = c[:n]
    pictures = [images(part, shape) for part in (X, np.asarray(reconstruct(X, given=c)))]
    difference = pictures[0] - pictures[1]
    largest = float(np.abs(difference).max()) or 1.0
    colour = len(shape) == 3 and shape[2] == 3
    limits = (0.0, 1.0) if colour else (float(X.min()), float(X.max()))
    if limits[0] == limits[1]:
        raise DataError("the images are of one grey throughout: there is nothing to see.")
    made = style.figure(7.6, 3 * (7.2 / len(X) * shape[0] / shape[1] + 0.25) + 0.6, f"Reconstruction by {name_of(model)}")
    parts = (*pictures, difference / (2 * largest) + 0.5)
    labels = ("Data", "Reconstruction", f"Difference, black -{largest:.2g} to white {largest:.2g}")
    for ax, part, span, label in zip(made.subplots(3, 1), parts, (limits, limits, (0.0, 1.0)), labels, strict=True):
        mosaic(ax, part, len(X), span, label)
    return made
