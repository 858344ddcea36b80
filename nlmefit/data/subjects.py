"""Ragged panel data as padded arrays, one row per subject.

Padded observation rows repeat the subject's last real one, so that they are finite wherever real ones are, and are
masked out of every likelihood. Prepared in NumPy: nothing here is traced or compiled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError
from nlmefit.core.options import check_truth, check_word
from nlmefit.data.censoring import Blq, Censoring, censoring, is_censored
from nlmefit.data.checks import findings
from nlmefit.data.covariate_checks import held_levels
from nlmefit.data.doses import Doses, doses, segments
from nlmefit.data.epochs import Course, Rule, course, epochs
from nlmefit.data.findings import Finding, raise_errors
from nlmefit.data.frames import as_pandas
from nlmefit.data.needs import Needs, needs_of
from nlmefit.data.observation_checks import endpoint_index
from nlmefit.data.reading import Reading
from nlmefit.data.records import Records, event_types, observation_rows, read_records
from nlmefit.declare.covariates import code


class Subject(eqx.Module):
    """One subject's records as the engine sees them (batched: a leading axis N)."""

    time: Any
    order: Any
    segment: Any
    observed: dict[str, Any]
    mask: dict[str, Any]
    covariates: dict[str, Any]
    """Scalars: at the subject's first record."""
    doses: Doses | None
    start: Any
    """Time of the subject's first record, where initial amounts hold."""
    varying: dict[str, Any] = eqx.field(default_factory=dict)
    """By epoch (E,): the covariates that change within some subject. (This and what follows is None or empty if nothing does.)"""
    epoch: Any = None
    """(n,): the epoch that a row lies in."""
    boundary: Any = None
    """(E - 1,): when an epoch ends, inf where the subject has no further one."""
    boundary_segment: Any = None
    occasion: Any = None
    """(E,): the number of the occasion, from 0; None for a model without."""
    resets: Any = None
    """(r,): times of EVID 3 and 4, inf where padded; `reset_segment` is the segment that they begin."""
    reset_segment: Any = None
    course: Course | None = None
    """Covariates that run linearly between records."""
    censoring: dict[str, Censoring] = eqx.field(default_factory=dict)
    """By endpoint that has them: which observations are below or above a limit."""
    stop: Any = None
    """(s,): times of the records that are no rows, inf where padded: steps of a solver end there as they end at rows, so that the
    amounts are the same whichever records are asked for. `stop_segment` is the segment that they lie in."""
    stop_segment: Any = None

    def lengths(self) -> np.ndarray:
        """Rows and doses that each subject needs (N, 2)."""
        rows = _needed(np.any(list(self.mask.values()), axis=0))
        doses = np.ones_like(rows) if self.doses is None else _needed(self.doses.segment >= 0)
        return np.stack([rows, doses], axis=1)

    def subset(self, members: np.ndarray) -> "Subject":
        """Those subjects, padded no further than the longest of them needs."""
        rows, doses = self.lengths()[members].max(axis=0)
        found: Subject = jax.tree.map(lambda x: x[members], self)

        def cut(where: Callable[[Subject], Any], length: int) -> Subject:
            return eqx.tree_at(where, found, jax.tree.map(lambda x: x[:, :length], where(found)), is_leaf=lambda x: x is None)

        found = cut(lambda s: (s.time, s.order, s.segment, s.observed, s.mask, s.epoch, s.censoring), rows)
        return found if found.doses is None else cut(lambda s: s.doses, doses)


def _needed(real: np.ndarray) -> np.ndarray:
    """Length (N,), at least 1, up to the last entry (N, n) that is real."""
    return (np.arange(1, real.shape[1] + 1) * real).max(axis=1, initial=1)


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
    rule: Rule = "nocb"
    """How covariates run between records."""
    blq: Blq = "M3"
    """What is made of observations below a limit."""

    @classmethod
    def of(cls, data: Any, model: Any, reading: Reading | None = None, *, every_record: bool = False) -> "Subjects":
        """`data` laid out for `model`: a table read by the rules of `reading`, `Subjects` by their own, anew if they were
        laid out for a model with other needs. With `every_record` for prediction, else ready for its likelihood."""
        if isinstance(data, Subjects):
            needs = needs_of(model)
            if data.needs == needs.holding(data.needs.levels) and data.every_record == every_record:
                return data
            reading = data.reading
        reading = reading or Reading()
        return cls.from_frame(
            data.frame if isinstance(data, Subjects) else data,
            model,
            reading.columns,
            covariates=reading.covariates,
            blq=reading.blq,
            every_record=every_record,
        )

    @property
    def reading(self) -> Reading:
        """The rules by which the records were read."""
        return Reading(self.columns, self.rule, self.blq)

    @classmethod
    def from_frame(
        cls,
        df: Any,
        model: Any,
        columns: Mapping[str, str] | None = None,
        *,
        covariates: Rule = "nocb",
        blq: Blq = "M3",
        every_record: bool = False,
    ) -> "Subjects":
        """Check `df` against `model` and lay it out.

        **Arguments:** `df` a table of pandas, polars, pyarrow or another library that narwhals knows. TIME holds numbers; or
        dates, times of day (with the dates in a column DATE) or durations, which become hours. `columns` maps your names to
        standard ones, `{"CONC": "DV"}`. `covariates` says how those that change in time run between records: "nocb", a record's
        value holds since the record before (next observation carried backward, as in NONMEM); "locf", it holds until the next
        record; "linear" in between. `blq` says what becomes of observations with CENS 1, below the limit in DV (and above LIMIT,
        if that is given), or CENS -1, above it: "M3", their probability counts; "M1", they are left out; "M4", as M3, with all
        observations of that endpoint known to be above 0. `every_record`: lay out all records as rows to predict, with no
        likelihood (DV is not needed).

        Raises DataError listing every error found; `nm.check(df, model)` gives them as a table.
        """
        check_word("covariates", covariates, get_args(Rule), "rule", DataError)
        check_word("blq", blq, get_args(Blq), "rule", DataError)
        check_truth("every_record", every_record, DataError)
        needs = needs_of(model)
        df = as_pandas(df)
        records = read_records(df, needs, columns)
        found = findings(records, needs, blq, observations=not every_record)
        raise_errors(found)
        needs = needs.holding(held_levels(records, needs))
        laid_out = _lay_out(records, needs, every_record, covariates, blq)
        return cls(*laid_out, records, tuple(found), df.copy(), dict(columns or {}), needs, every_record, covariates, blq)

    @property
    def observations(self) -> np.ndarray:
        """Number of observations by subject (N,)."""
        return sum(mask.sum(axis=1) for mask in self.subjects.mask.values())

    @property
    def occasions(self) -> pd.DataFrame | None:
        """What each subject's 1st, 2nd, ... occasion is called, a row by ID; None where the model has no occasions."""
        if self.needs.occasion is None:
            return None
        codes, ids = pd.factorize(self.records.frame["ID"])
        labels = _filled(self.records.frame[self.needs.occasion], codes)
        first = pd.DataFrame({"who": codes, "label": labels.to_numpy()}).drop_duplicates()
        first["number"] = first.groupby("who").cumcount() + 1
        return first.pivot(index="who", columns="number", values="label").set_axis(pd.Index(ids, name="ID"))

    @property
    def conventions(self) -> dict[str, str]:
        """How covariates and observations beyond a limit are read, where the data has such, in words."""
        lines = {"time": self.records.clock} if self.records.clock else {}
        if self.subjects.varying or self.subjects.course is not None:
            lines["covariates"] = _RULES[self.rule]
        evid = event_types(self.records)
        marked = int((observation_rows(self.records, evid) & is_censored(self.records)).sum())
        if marked:
            what = "left out" if self.blq == "M1" else "count by their probability"
            lines["BLQ"] = f"{self.blq}: {marked} observations with CENS {what}"
        return lines

    def __len__(self) -> int:
        return len(self.ids)


_RULES = {
    "nocb": "next observation carried backward",
    "locf": "last observation carried forward",
    "linear": "linear between records",
}


def _lay_out(records: Records, needs: Needs, every_record: bool, rule: Rule, blq: Blq) -> tuple[Subject, np.ndarray, np.ndarray]:
    """The padded arrays, the subjects' labels, and the position of every row in the user's frame."""
    frame = records.frame
    evid = event_types(records)
    codes, ids = pd.factorize(frame["ID"])
    size = len(ids)
    counted = np.ones(len(frame), bool) if every_record else observation_rows(records, evid)
    if blq == "M1" and not every_record:
        counted &= ~is_censored(records)
    first = np.searchsorted(codes, np.arange(size))
    order = np.arange(len(frame)) - first[codes]
    time = frame["TIME"].to_numpy(float)
    segment = segments(records, evid, codes)
    index, real = _index(codes, counted, size, first)
    endpoint = endpoint_index(records, needs.endpoints)
    value = frame["DV"].to_numpy(float) if records.has("DV") and not every_record else np.zeros(len(frame))
    masks = {name: real & (not every_record) & (endpoint[index] == i) for i, name in enumerate(needs.endpoints)}
    filled = {name: _filled(frame[name], codes) for name in needs.columns}
    filled |= {name: filled[name].map(code) for name in needs.texts}
    varying = pd.DataFrame({n: filled[n] for n in needs.covariates if (filled[n].groupby(codes).nunique() > 1).any()})
    occasion = None if needs.occasion is None else filled[needs.occasion]
    linear = rule == "linear"
    if linear:
        _check_running(varying, needs)
    found = epochs(time, codes, segment, varying.iloc[:, :0] if linear else varying, occasion, rule)
    resets = _by_subject(np.isin(evid, (3, 4)), time, codes, segment, size)
    stops = _by_subject(~counted, time, codes, segment, size) if needs.compartments else (None, None)
    subjects = Subject(
        time=time[index],
        order=order[index].astype(float),
        segment=segment[index].astype(float),
        observed={name: np.where(mask, value[index], 0.0) for name, mask in masks.items()},
        mask=masks,
        covariates={name: filled[name].to_numpy(float)[first] for name in needs.covariates},
        doses=doses(records, evid, codes, order, segment, found and found.of_record) if needs.compartments else None,
        start=time[first],
        varying={} if found is None else found.values,
        epoch=None if found is None else found.of_record[index],
        boundary=None if found is None else found.boundary,
        boundary_segment=None if found is None else found.segment,
        occasion=None if found is None else found.occasion,
        resets=resets[0],
        reset_segment=resets[1],
        course=course(time, codes, varying) if linear else None,
        stop=stops[0],
        stop_segment=stops[1],
        censoring={} if every_record else censoring(records, index, masks, blq),
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


def _filled(column: pd.Series, codes: np.ndarray) -> pd.Series:
    """A covariate with gaps filled by the subject's next value, or the last."""
    return column.groupby(codes).bfill().groupby(codes).ffill()


def _check_running(varying: pd.DataFrame, needs: Needs) -> None:
    for name in varying:
        if name in needs.levels:
            raise DataError(
                f'covariates="linear": {name} is a category and changes within a subject; between two levels there is none. Use '
                '"nocb" or "locf".'
            )


def _by_subject(
    among: np.ndarray, time: np.ndarray, codes: np.ndarray, segment: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Times and segments of the records `among`, by subject (N, r); None where there are none."""
    rows = np.flatnonzero(among)
    if len(rows) == 0:
        return None, None
    place = pd.Series(codes[rows]).groupby(codes[rows]).cumcount().to_numpy()
    times = np.full((size, int(place.max()) + 1), np.inf)
    begun = times.copy()
    times[codes[rows], place], begun[codes[rows], place] = time[rows], segment[rows]
    return times, begun
