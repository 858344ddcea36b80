"""Ragged panel data as padded arrays, one row per subject.

Padded observation rows repeat the subject's last real one, so that they are finite wherever real ones are, and are
masked out of every likelihood. Prepared in NumPy: nothing here is traced or compiled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd

from nlmefit.data.checks import endpoint_index, findings
from nlmefit.data.findings import Finding, raise_errors
from nlmefit.data.needs import Needs, needs_of
from nlmefit.data.records import Records, event_types, observation_rows, read_records


class Doses(eqx.Module):
    """Doses of one subject, padded with amount 0 (batched: a leading axis N).

    ADDL is written out. `order` is the position among the subject's records, -1 for a dose that ADDL made (NONMEM gives
    those before any record at the same time); `segment` counts the resets before the dose. Fields that no dose of the data
    uses are None, so that a bolus-only data set compiles to bolus-only code.
    """

    time: Any
    amount: Any
    compartment: Any
    order: Any
    segment: Any
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


class Subject(eqx.Module):
    """One subject's records as the engine sees them (batched: a leading axis N)."""

    time: Any
    order: Any
    segment: Any
    observed: dict[str, Any]
    mask: dict[str, Any]
    covariates: dict[str, Any]
    """Scalars: at the subject's first record."""
    varying: dict[str, Any]
    """By observation row (n,): the covariates that change within some subject."""
    doses: Doses | None


@dataclass(frozen=True)
class Subjects:
    """A data set bound to a model: padded arrays, the subjects' labels, and the user's records."""

    subjects: Subject
    ids: np.ndarray
    rows: np.ndarray
    """Position in the user's frame of every (subject, row), -1 where padded."""
    records: Records
    findings: tuple[Finding, ...]
    frame: pd.DataFrame
    """The user's data, a copy."""
    columns: Mapping[str, str]
    needs: Needs
    """What the model asked for that these were laid out for."""
    every_record: bool

    @classmethod
    def of(cls, data: "pd.DataFrame | Subjects", model: Any) -> "Subjects":
        """`data` laid out for `model`, ready for its likelihood; anew if it was laid out for a model with other needs."""
        if not isinstance(data, Subjects):
            return cls.from_frame(data, model)
        if data.needs == needs_of(model) and not data.every_record:
            return data
        return cls.from_frame(data.frame, model, data.columns)

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        model: Any,
        columns: Mapping[str, str] | None = None,
        *,
        every_record: bool = False,
    ) -> "Subjects":
        """Check `df` against `model` and lay it out.

        **Arguments:** `columns` maps your names to standard ones, `{"CONC": "DV"}`. `every_record`: lay out all records
        as rows to predict, with no likelihood (DV is not needed).

        Raises DataError listing every error found; `nm.check(df, model)` gives them as a table.
        """
        needs = needs_of(model)
        records = read_records(df, needs.covariates, columns)
        found = findings(records, needs, observations=not every_record)
        raise_errors(found)
        laid_out = _lay_out(records, needs, every_record)
        return cls(*laid_out, records, tuple(found), df.copy(), dict(columns or {}), needs, every_record)

    @property
    def observations(self) -> np.ndarray:
        """Number of observations by subject (N,)."""
        return sum(mask.sum(axis=1) for mask in self.subjects.mask.values())

    def __len__(self) -> int:
        return len(self.ids)


def _lay_out(records: Records, needs: Needs, every_record: bool) -> tuple[Subject, np.ndarray, np.ndarray]:
    """The padded arrays, the subjects' labels, and the position of every row in the user's frame."""
    frame = records.frame
    evid = event_types(records)
    codes, ids = pd.factorize(frame["ID"])
    size = len(ids)
    counted = np.ones(len(frame), bool) if every_record else observation_rows(records, evid)
    first = np.searchsorted(codes, np.arange(size))
    order = np.arange(len(frame)) - first[codes]
    segment = _segments(records, evid, codes)
    index, real = _index(codes, counted, size, first)
    endpoint = endpoint_index(records, needs.endpoints)
    value = frame["DV"].to_numpy(float) if records.has("DV") and not every_record else np.zeros(len(frame))
    masks = {name: real & (not every_record) & (endpoint[index] == i) for i, name in enumerate(needs.endpoints)}
    observed = {name: np.where(mask, value[index], 0.0) for name, mask in masks.items()}
    constant, varying = _covariates(frame, needs.covariates, codes, first, index)
    subjects = Subject(
        time=frame["TIME"].to_numpy(float)[index],
        order=order[index].astype(float),
        segment=segment[index].astype(float),
        observed=observed,
        mask=masks,
        covariates=constant,
        varying=varying,
        doses=_doses(records, evid, codes, order, segment, size) if needs.compartments else None,
    )
    return subjects, np.asarray(ids), np.where(real, index, -1)


def _index(codes: np.ndarray, counted: np.ndarray, size: int, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row positions by subject (N, n), padded by the last real one, and which of them are real."""
    rows = np.flatnonzero(counted)
    counts = np.bincount(codes[rows], minlength=size)
    place = np.arange(len(rows)) - np.r_[0, np.cumsum(counts)][codes[rows]]
    width = max(int(counts.max(initial=0)), 1)
    index = np.repeat(first[:, None], width, axis=1)
    index[codes[rows], place] = rows
    last = index[np.arange(size), np.maximum(counts - 1, 0)]
    real = np.arange(width) < counts[:, None]
    return np.where(real, index, last[:, None]), real


def _segments(records: Records, evid: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How often the system was emptied before or at each record: EVID 3 and 4, and doses with SS 1."""
    reset = np.isin(evid, (3, 4)) | ((evid == 1) & (records.column("SS", 0.0) == 1))
    return pd.Series(reset.astype(int)).groupby(codes).cumsum().to_numpy()


def _covariates(
    frame: pd.DataFrame, names: tuple[str, ...], codes: np.ndarray, first: np.ndarray, index: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    constant, varying = {}, {}
    for name in names:
        filled = frame[name].groupby(codes).bfill().groupby(codes).ffill()
        constant[name] = filled.to_numpy(float)[first]
        if (filled.groupby(codes).nunique() > 1).any():
            varying[name] = filled.to_numpy(float)[index]
    return constant, varying


def _repeated(time: np.ndarray, codes: np.ndarray, row: np.ndarray, count: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """Times of the doses that ADDL makes; one that misses a record's time by rounding only (3 * 0.1 and 0.3) is put on it."""
    result, owner = time[row] + count * interval, codes[row]
    for who in np.unique(owner[count > 0]):  # records and doses of a subject stand together, in the order of codes
        records = np.sort(time[np.searchsorted(codes, who) : np.searchsorted(codes, who, "right")])
        own = slice(np.searchsorted(owner, who), np.searchsorted(owner, who, "right"))
        after = np.minimum(np.searchsorted(records, result[own]), len(records) - 1)
        for nearest in (records[after], records[np.maximum(after - 1, 0)]):
            close = (count[own] > 0) & (np.abs(nearest - result[own]) <= 1e-9 * np.maximum(1.0, np.abs(result[own])))
            result[own] = np.where(close, nearest, result[own])
    return result


def _doses(
    records: Records, evid: np.ndarray, codes: np.ndarray, order: np.ndarray, segment: np.ndarray, size: int
) -> Doses | None:
    rows = np.flatnonzero(np.isin(evid, (1, 4)))
    if len(rows) == 0:
        return None
    repeats = records.column("ADDL", 0.0)[rows].astype(int) + 1
    row = np.repeat(rows, repeats)
    count = np.arange(len(row)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    interval = records.column("II", 0.0)[row]
    amount, rate = records.column("AMT", 0.0)[row], records.column("RATE", 0.0)[row]
    steady = np.where(count == 0, records.column("SS", 0.0)[row], 0.0)
    modelled = np.where(rate < 0, rate, 0.0)
    fixed_rate = np.where(rate > 0, rate, 0.0)
    duration = records.column("DUR", 0.0)[row]
    columns = {
        "time": _repeated(records.frame["TIME"].to_numpy(float), codes, row, count, interval),
        "amount": amount,
        "compartment": np.maximum(records.column("CMT", 1.0)[row], 1) - 1,
        "order": np.where(count == 0, order[row], -1).astype(float),
        "segment": segment[row].astype(float),
        "duration": duration if (duration > 0).any() or (fixed_rate > 0).any() or modelled.any() else None,
        "rate": fixed_rate if (fixed_rate > 0).any() else None,
        "modelled": modelled if modelled.any() else None,
        "steady": steady if steady.any() else None,
        "interval": interval if steady.any() else None,
    }
    place = pd.Series(codes[row]).groupby(codes[row]).cumcount().to_numpy()
    width = int(place.max()) + 1
    padding = {"segment": -1.0, "interval": 1.0}

    def pad(name: str, values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        result = np.full((size, width), padding.get(name, 0.0))
        result[codes[row], place] = values
        return result.astype(int) if name == "compartment" else result

    places = set(columns["compartment"].astype(int))
    return Doses(
        **{name: pad(name, values) for name, values in columns.items()}, only=int(places.pop()) if len(places) == 1 else None
    )
