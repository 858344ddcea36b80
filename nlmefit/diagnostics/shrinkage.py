"""Shrinkage: how far individual estimates are drawn to the population's (Savic and Karlsson 2009).

    eta shrinkage      sd: 100 (1 - sd_i(eta_i*) / omega)     variance: 100 (1 - var_i(eta_i*) / omega^2)
    epsilon shrinkage  sd: 100 (1 - sd_ij(IWRES_ij))          variance: 100 (1 - var_ij(IWRES_ij))

in percent, sd and var about the mean, with denominator n (the first kind is `fit.shrinkage`, and NONMEM's ETASHRINKSD and
EPSSHRINKSD; the second NONMEM's ETASHRINKVR and EPSSHRINKVR). The random effects of all occasions have one omega and count
together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float


def shrinkage(
    effects: Mapping[tuple[str, str], tuple[Float[np.ndarray, "..."], float]], iwres: Mapping[str, Float[np.ndarray, "..."]]
) -> pd.DataFrame:
    """Columns sd and variance (percent) and count, a row by kind ("eta", "kappa", "epsilon") and name.

    `effects` gives by (kind, name) the individual values and omega; `iwres` the weighted residuals by endpoint. NaN values are
    left out; nothing but them gives NaN.
    """
    rows: dict[Any, tuple[float, float, int]] = {key: _of(values, omega) for key, (values, omega) in effects.items()}
    rows |= {("epsilon", name): _of(values, 1.0) for name, values in iwres.items()}
    index = pd.MultiIndex.from_tuples(rows, names=["kind", "name"])
    return pd.DataFrame(rows.values(), index, ["sd", "variance", "count"])


def _of(values: Float[np.ndarray, "..."], scale: float) -> tuple[float, float, int]:
    known = values[np.isfinite(values)]
    if not len(known) or not scale > 0:
        return np.nan, np.nan, len(known)
    share = np.std(known) / scale
    return float(100 * (1 - share)), float(100 * (1 - share**2)), len(known)
