"""The doses of a data set as padded arrays: ADDL written out, resets that cut them short, overlapping steady states."""

from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd

from nlmefit.data.records import Records

UNKNOWN_OVERLAP = 8
"""Earlier doses of a steady state that may still be running where their duration is modelled; more give NaN."""
MOST_OVERLAP = 50
"""Earlier infusions of a steady state that may still be running: each is an event of its own."""
MOST_DOSES = 100_000
"""Doses that one record may make by ADDL up to the last record that sees them."""
SAME = 1e-14
"""Times that differ relatively by no more than this differ by rounding only."""


class Doses(eqx.Module):
    """Doses of one subject, padded with amount 0 (batched: a leading axis N).

    ADDL is written out. `order` is the position among the subject's records, -1 for a dose that ADDL made (NONMEM gives
    those before any record at the same time); `segment` counts the resets before the dose, and `until` is the time of the next
    one, which cancels what is still to come. Fields that no dose of the data uses are None, so that a bolus-only data set
    compiles to bolus-only code.
    """

    time: Any
    amount: Any
    compartment: Any
    order: Any
    segment: Any
    until: Any = None
    epoch: Any = None
    """Which of the subject's epochs the dose's own record lies in: lag, bioavailability, rate and duration are taken there."""
    duration: Any = None
    """Known duration of the infusion, 0 for a bolus."""
    rate: Any = None
    """Known rate, 0 where the duration counts; bioavailability then stretches the duration."""
    modelled: Any = None
    """0, or -1 for a modelled rate, -2 for a modelled duration."""
    steady: Any = None
    interval: Any = None
    only: int | None = eqx.field(static=True, default=None)
    """The compartment to which all doses of the data go, None where there are several."""
    steadies: int = eqx.field(static=True, default=0)
    """How many doses at most of one subject come at steady state."""
    overlap: int = eqx.field(static=True, default=0)
    """How many earlier doses of a steady state may still be running when its record comes."""


def doses(
    records: Records, evid: np.ndarray, codes: np.ndarray, order: np.ndarray, segment: np.ndarray, epoch: np.ndarray | None
) -> Doses | None:
    """All doses, batched by subject; None where the data has none. The last four arguments are by record."""
    rows = np.flatnonzero(np.isin(evid, (1, 4)))
    if len(rows) == 0:
        return None
    made = repeats(records, codes, segment)[rows]
    row = np.repeat(rows, made)
    count = np.arange(len(row)) - np.repeat(np.cumsum(made) - made, made)
    interval = records.column("II", 0.0)[row]
    amount, rate = records.column("AMT", 0.0)[row], records.column("RATE", 0.0)[row]
    steady = np.where(count == 0, records.column("SS", 0.0)[row], 0.0)
    modelled = np.where(rate < 0, rate, 0.0)
    fixed_rate = np.where(rate > 0, rate, 0.0)
    duration = records.column("DUR", 0.0)[row]
    time = records.frame["TIME"].to_numpy(float)
    infusions = (duration > 0).any() or (fixed_rate > 0).any() or modelled.any()
    columns = {
        "time": _repeated(time, codes, row, count, interval),
        "amount": amount,
        "compartment": np.maximum(records.column("CMT", 1.0)[row], 1) - 1,
        "order": np.where(count == 0, order[row], -1).astype(float),
        "segment": segment[row].astype(float),
        "until": _next_reset(time, codes, segment)[row] if segment.any() else None,
        "epoch": None if epoch is None else epoch[row],
        "duration": duration if infusions else None,
        "rate": fixed_rate if (fixed_rate > 0).any() else None,
        "modelled": modelled if modelled.any() else None,
        "steady": steady if steady.any() else None,
        "interval": interval if steady.any() else None,
    }
    places = set(columns["compartment"].astype(int))
    return Doses(
        **_padded(columns, codes[row], int(codes.max()) + 1),
        only=int(places.pop()) if len(places) == 1 else None,
        steadies=int(np.bincount(codes[row], steady > 0).max()),
        overlap=int(overlap(records)[rows].max()),
    )


def segments(records: Records, evid: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How often the system was emptied before or at each record: EVID 3 and 4, and doses with SS 1."""
    reset = np.isin(evid, (3, 4)) | ((evid == 1) & (records.column("SS", 0.0) == 1))
    return pd.Series(reset.astype(int)).groupby(codes).cumsum().to_numpy()


def repeats(records: Records, codes: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """By record: how many doses it makes, itself and those of ADDL up to the last record before the next reset; what comes later
    nobody sees."""
    time, interval, more = (  # what is infinite is told by the checks
        np.nan_to_num(column, posinf=0.0, neginf=0.0)
        for column in (records.frame["TIME"].to_numpy(float), records.column("II", 0.0), records.column("ADDL", 0.0))
    )
    last = pd.Series(time).groupby([codes, segment]).transform("max").to_numpy()
    seen = np.floor(np.divide(last - time, interval, out=np.zeros_like(time), where=interval > 0) + 1e-6)
    return np.minimum(more, seen).astype(int) + 1


def _padded(columns: dict[str, np.ndarray | None], owner: np.ndarray, size: int) -> dict[str, np.ndarray | None]:
    place = pd.Series(owner).groupby(owner).cumcount().to_numpy()
    width = int(place.max()) + 1
    filler = {"segment": -1.0, "interval": 1.0, "until": -np.inf}

    def pad(name: str, values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        result = np.full((size, width), filler.get(name, 0.0))
        result[owner, place] = values
        return result.astype(int) if name in ("compartment", "epoch") else result

    return {name: pad(name, values) for name, values in columns.items()}


def _repeated(time: np.ndarray, codes: np.ndarray, row: np.ndarray, count: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """Times of the doses that ADDL makes; one that misses a record's time by rounding only (3 * 0.1 and 0.3) is put on it."""
    result, owner = time[row] + count * interval, codes[row]
    for who in np.unique(owner[count > 0]):  # records and doses of a subject stand together, in the order of codes
        records = np.sort(time[np.searchsorted(codes, who) : np.searchsorted(codes, who, "right")])
        own = slice(np.searchsorted(owner, who), np.searchsorted(owner, who, "right"))
        after = np.minimum(np.searchsorted(records, result[own]), len(records) - 1)
        for nearest in (records[after], records[np.maximum(after - 1, 0)]):
            close = (count[own] > 0) & (np.abs(nearest - result[own]) <= SAME * np.abs(result[own]))
            result[own] = np.where(close, nearest, result[own])
    return result


def _next_reset(time: np.ndarray, codes: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """By record: the time of the reset that ends its segment, inf where none does.

    Where that reset restarts the clock, the time of the segment's last record: what comes later is never seen."""
    ends = np.r_[(codes[1:] == codes[:-1]) & (segment[1:] > segment[:-1]), False]
    after = np.r_[time[1:], np.inf]
    frame = pd.DataFrame({"who": codes, "segment": segment, "end": np.where(ends, np.maximum(after, time), np.inf)})
    return frame.groupby(["who", "segment"], sort=False)["end"].transform("min").to_numpy()


def overlap(records: Records) -> np.ndarray:
    """By record: earlier doses of its steady state that may still run when it comes, with one to spare for lag and
    bioavailability."""
    amount, rate, interval = (records.column(name, 0.0) for name in ("AMT", "RATE", "II"))
    known = np.where(rate > 0, amount / np.where(rate > 0, rate, 1.0), records.column("DUR", 0.0))
    repeated = (records.column("SS", 0.0) > 0) & (interval > 0)
    count = np.floor(np.divide(known, interval, out=np.zeros_like(known), where=repeated)) + 1
    return np.where(repeated, np.where(rate < 0, UNKNOWN_OVERLAP, count), 0.0)
