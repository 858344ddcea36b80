"""A smooth trend through scattered points: locally weighted straight lines (Cleveland 1979, without the robustness steps)."""

import numpy as np
from jaxtyping import Float

SPAN = 2 / 3
"""Share of the points that a line is fitted to."""
LEAST, LEAST_PLACES = 10, 5
"""Points, and different places among them."""


def trend(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], most: int = 80
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]] | None:
    """Places along x (of points, `most` of them) and the trend there; None of too few points to have one."""
    places = np.unique(x)
    if len(x) < LEAST or len(places) < LEAST_PLACES:
        return None
    at = places if len(places) <= most else np.quantile(places, np.linspace(0, 1, most))
    return at, np.array([_line(x, y, place) for place in at])


def _line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], place: float) -> float:
    """The value at `place` of a line fitted with tricube weights."""
    distance = np.abs(x - place)
    reach = max(np.quantile(distance, SPAN), (x.max() - x.min()) / 10)
    weight = np.clip(1 - (distance / reach) ** 3, 0.0, None) ** 3
    total = weight.sum()
    center, height = weight @ x / total, weight @ y / total
    spread = weight @ (x - center) ** 2
    if spread <= 1e-12 * total * (x.max() - x.min()) ** 2:
        return float(height)
    return float(height + (place - center) * (weight @ ((x - center) * (y - height))) / spread)
