"""Ticks of a logarithmic axis: at round numbers, few enough to read, and never none."""

from typing import Any

import numpy as np
from matplotlib.ticker import Locator, MaxNLocator

WITHIN = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
"""Within a decade, from coarse to fine."""
LEAST, MOST = 3, 6


class LogTicks(Locator):
    """The coarsest round numbers of which at least three are seen; of a narrow axis those of a linear one."""

    def __call__(self) -> Any:
        low, high = sorted(self.axis.get_view_interval())  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Any:
        if not (np.isfinite(vmin) and np.isfinite(vmax) and 0 < vmin < vmax):
            return np.array([])
        decades = np.arange(np.floor(np.log10(vmin)), np.ceil(np.log10(vmax)) + 1)
        stride = max(1, -(-len(decades) // (MOST + 1)))
        for within in WITHIN:
            step = stride if within == (1,) else 1
            ticks = np.unique(np.outer(10.0 ** decades[::step], within))
            ticks = ticks[(ticks >= vmin * (1 - 1e-9)) & (ticks <= vmax * (1 + 1e-9))]
            if len(ticks) >= LEAST:
                return ticks
        even = np.asarray(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(vmin, vmax))
        return even[(even >= vmin) & (even <= vmax)]
