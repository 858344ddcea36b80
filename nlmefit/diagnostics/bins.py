"""Bins of time for a visual predictive check.

Automatic bins have about equal counts. Of M observations at times t_(1) <= ... <= t_(M) they are K, as many as Rice's rule for a
histogram says, but with ten observations each at least, twenty at most, and no more than a subject's median number of
observations V where that is five or more, as subjects are then mostly seen on the same occasions:

    K = min(ceil(2 M^(1/3)), M / 10, 20, V), rounded down, at least 1

The k-th cut belongs after the observation k M / K; it is moved to the widest gap between times among those up to a third of a bin
to either side, or else to the nearest place between different times. Nominal times, and samples drawn around them, so stay
together, and times that many share are bins of their own. A bin with less than a third of M / K observations joins the neighbour
whose times are nearer. Automatic bins are divided where times lie far apart in them, as 24 h and 168 h: by more than a fifth of
all the time, or by a twentieth where the later time is five times the earlier, and with five observations on either side. A given
number of bins is K, without that division; nothing else differs.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nlmefit.core.errors import DataError

MOST = 20
LEAST_COUNT = 10
SEEN_OFTEN = 5
"""Observations of a subject from which on its number of them limits that of the bins."""
APART, APART_LATE, LATE = 1 / 5, 1 / 20, 5.0
"""Of all the time: from there on times lie far apart; with the second where the later time is that many times the earlier."""
LEAST_APART = 5
REACH = 1 / 3
"""Of a bin's count: how far a cut is moved, and below which a bin is not left alone."""


def bin_edges(time: Float[np.ndarray, " m"], subject: Int[np.ndarray, " m"], bins: Any) -> Float[np.ndarray, " e"]:
    """Edges that hold all the times, each of a `subject`. Raises DataError for `bins` that are none or leave times out."""
    if isinstance(bins, str):
        if bins != "auto":
            raise DataError(f'bins must be "auto", a number, or edges, got {bins!r}.')
        count, visits = len(time), np.median(np.unique(subject, return_counts=True)[1])
        most = visits if visits >= SEEN_OFTEN else MOST
        edges = _cut(time, int(max(1, min(np.ceil(2 * count ** (1 / 3)), count // LEAST_COUNT, MOST, most))))
        return _divided(np.sort(time), edges)
    if np.ndim(bins) == 0:
        if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
            raise DataError(f"bins must be a whole number from 1 up, edges, or 'auto', got {bins!r}.")
        return _cut(time, int(bins))
    return _given(time, bins)


def places(time: Float[np.ndarray, " m"], edges: Float[np.ndarray, " e"]) -> Int[np.ndarray, " m"]:
    """The bin of every time, from 0: start <= time < end, in the last one also time = end."""
    return np.clip(np.searchsorted(edges, time, side="right") - 1, 0, len(edges) - 2)


def _given(time: Float[np.ndarray, " m"], bins: Any) -> Float[np.ndarray, " e"]:
    try:
        edges = np.asarray(bins, float)
    except (TypeError, ValueError):
        raise DataError(f"bins: edges must be numbers, got {bins!r}.") from None
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
        raise DataError(f"bins: edges must be two or more numbers that increase, got {bins!r}.")
    outside = int(np.sum((time < edges[0]) | (time > edges[-1])))
    if outside:
        raise DataError(
            f"bins from {edges[0]:g} to {edges[-1]:g} leave out {outside} observations, which lie between {time.min():g} and "
            f"{time.max():g}; widen them, or leave these records out of data=."
        )
    return edges


def _cut(time: Float[np.ndarray, " m"], wanted: int) -> Float[np.ndarray, " e"]:
    ordered, even = np.sort(time), len(time) / wanted
    gap = np.diff(ordered)
    possible = np.flatnonzero(gap > 0) + 1  # how many observations lie before a place where one may cut
    if not len(possible) or wanted == 1:
        return _between(ordered, np.array([0, len(time)]))
    cuts = {0, len(time)}
    for k in range(1, wanted):
        near = possible[np.abs(possible - k * even) <= REACH * even]
        if len(near):
            cuts.add(int(near[np.argmax(gap[near - 1])]))
        else:
            cuts.add(int(possible[np.argmin(np.abs(possible - k * even))]))
    return _between(ordered, _merged(ordered, np.array(sorted(cuts)), REACH * even))


def _divided(ordered: Float[np.ndarray, " m"], edges: Float[np.ndarray, " e"]) -> Float[np.ndarray, " e"]:
    """With a cut in every gap within a bin that keeps times apart which do not belong together."""
    cuts, gap, span = set(edges), np.diff(ordered), ordered[-1] - ordered[0]
    late = ordered[1:] > LATE * np.maximum(ordered[:-1], 0.0)
    for k in np.flatnonzero((gap > APART * span) | ((gap > APART_LATE * span) & late & (ordered[:-1] > 0))):
        middle = (ordered[k] + ordered[k + 1]) / 2
        low, high = max(e for e in cuts if e < middle), min(e for e in cuts if e > middle)
        before, after = np.sum((ordered >= low) & (ordered < middle)), np.sum((ordered > middle) & (ordered <= high))
        if min(before, after) >= LEAST_APART and not np.any([ordered[k] < e <= ordered[k + 1] and e < edges[-1] for e in cuts]):
            cuts.add(middle)
    return np.array(sorted(cuts))


def _merged(ordered: Float[np.ndarray, " m"], cuts: Int[np.ndarray, " c"], least: float) -> Int[np.ndarray, " c"]:
    """Without bins of fewer than `least` observations."""
    while len(cuts) > 2 and np.diff(cuts).min() < least:
        small = int(np.argmin(np.diff(cuts)))
        # the two cuts at its ends, and how far its times are from those beyond; the outermost cuts stay
        gaps = {c: ordered[cuts[c]] - ordered[cuts[c] - 1] for c in (small, small + 1) if 0 < c < len(cuts) - 1}
        cuts = np.delete(cuts, min(gaps, key=lambda c: gaps[c]))
    return cuts


def _between(ordered: Float[np.ndarray, " m"], cuts: Int[np.ndarray, " c"]) -> Float[np.ndarray, " e"]:
    """Edges half way between the times on either side of each cut."""
    inner = (ordered[cuts[1:-1] - 1] + ordered[cuts[1:-1]]) / 2
    last = ordered[-1] if ordered[-1] > ordered[0] else ordered[0] + 1.0  # a single time
    return np.r_[ordered[0], inner, last]
