"""A legend below the axes, with as many columns as its longest entry leaves room for."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from nlmefit.plot import style

LETTER, SAMPLE = 0.06, 0.55
"""Inches that a letter takes, and the sample line with the space around it."""


def legend_below(on: Figure | SubFigure, axes: Sequence[Axes]) -> None:
    """One legend for what is drawn in the axes; entries of one name appear once."""
    seen: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    if not seen:
        return
    width = on.bbox.width / on.dpi
    most = max(1, int(width / (LETTER * max(map(len, seen)) + SAMPLE)))
    lines = -(-len(seen) // most)
    columns = -(-len(seen) // lines)
    look: dict[str, Any] = {"fontsize": style.SMALL, "frameon": False, "labelcolor": style.INK}
    on.legend(list(seen.values()), list(seen), loc="outside lower center", ncols=columns, **look)
