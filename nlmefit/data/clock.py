"""Dates, times of day and durations as hours: since the subject's first record, as in NONMEM."""

import datetime
import re
from typing import NamedTuple

import numpy as np
import pandas as pd

HOUR = np.timedelta64(3600 * 10**9, "ns")
_OF_DAY = re.compile(r"(\d{1,3}):([0-5]?\d)(?::([0-5]?\d(?:\.\d*)?))?")
_DAY = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
ORDERS = {"DATE": "month/day/year", "DAT1": "day/month/year", "DAT2": "year/month/day", "DAT3": "year/day/month"}
"""NONMEM's date columns, and how the parts of a date stand in them; a year of four digits in front is year/month/day."""


class Moments(NamedTuple):
    """TIME by record where it holds no plain numbers."""

    elapsed: np.ndarray
    """(n,): time since whatever origin, to the nanosecond; NaT where missing."""
    words: str
    """What it was read from."""
    relative: bool
    """Whether hours count from the subject's first record; a duration has an origin of its own."""
    unread: tuple[tuple[str, np.ndarray], ...] = ()
    """Columns, and in which rows of theirs stands no date or time of day."""

    def hours(self, first: np.ndarray) -> np.ndarray:
        """In hours; `first` (n,) is the position of the subject's first record."""
        return (self.elapsed - self.elapsed[first] if self.relative else self.elapsed) / HOUR


def moments(time: pd.Series, missing: np.ndarray, date: pd.Series | None) -> Moments | None:
    """TIME where it holds dates, times of day or durations, with the column of dates beside it; None where it holds numbers."""
    if pd.api.types.is_timedelta64_dtype(time):
        return Moments(_elapsed(time), "durations", False)
    if pd.api.types.is_datetime64_any_dtype(time):
        return Moments(_since_1970(time), "dates", True)
    if pd.api.types.is_numeric_dtype(time) or missing.all():
        return None
    if time[~missing].map(lambda v: isinstance(v, datetime.timedelta)).all():
        return Moments(_elapsed(pd.to_timedelta(time.where(~missing))), "durations", False)
    text = time.astype("string").str.strip().where(~missing)
    if text.str.match(_DAY).any():
        found = _since_1970(_dates(text, "DATE"))
        return Moments(found, f"dates{_order(text, 'DATE')}", True, _unread("TIME", found, missing))
    return _on_days(text, missing, date) if text.str.fullmatch(_OF_DAY).any() else None


def _on_days(text: pd.Series, missing: np.ndarray, date: pd.Series | None) -> Moments:
    """Times of day, on the days that the other column names."""
    of_day = _elapsed(pd.to_timedelta([_of_day(v) if isinstance(v, str) else np.nan for v in text], unit="h"))
    unread = _unread("TIME", of_day, missing)
    if date is None:
        return Moments(of_day, "times of day, all of one day", True, unread)
    name, order = str(date.name).upper(), ""
    if pd.api.types.is_numeric_dtype(date):
        day = _elapsed(pd.to_timedelta(date.to_numpy(float, na_value=np.nan), unit="D"))
    elif pd.api.types.is_datetime64_any_dtype(date):
        day = _since_1970(date)
    else:
        written = date.astype("string").str.strip()
        day = _since_1970(_dates(written, name))
        order = _order(written, name)
    unread += _unread(str(date.name), day, np.zeros(len(day), bool))
    return Moments(of_day + day, f"times of day, with the dates in {date.name}{order}", True, unread)


def _order(text: pd.Series, name: str) -> str:
    """How dates are read whose year of four digits does not come first, in words."""
    return "" if text.dropna().str.match(r"\d{4}").all() else f", read as {ORDERS.get(name, ORDERS['DATE'])}"


def _of_day(text: str) -> float:
    """Hours of "8:30" or "08:30:15"; of a plain number that many."""
    found = _OF_DAY.fullmatch(text)
    if found:
        hour, minute, second = found.groups()
        return int(hour) + int(minute) / 60 + float(second or 0.0) / 3600
    return float(pd.to_numeric(text, errors="coerce"))


def _dates(text: pd.Series, name: str) -> pd.Series:
    """Dates (and times) in ISO's order where the year of four digits comes first, else in the order of NONMEM's column."""
    swapped = name == "DAT3"
    text = text.str.replace(r"^(\d+)[-/.](\d+)[-/.](\d+)", r"\1-\3-\2" if swapped else r"\1-\2-\3", regex=True)
    iso = text.str.match(r"\d{4}-").fillna(False).to_numpy(bool)
    found = pd.Series(pd.NaT, text.index, dtype="datetime64[ns, UTC]")
    found[iso] = pd.to_datetime(text[iso], format="ISO8601", errors="coerce", utc=True).astype(found.dtype)
    options = {"dayfirst": name == "DAT1", "yearfirst": name in ("DAT2", "DAT3")}
    rest = pd.to_datetime(text[~iso], format="mixed", errors="coerce", utc=True, **options)  # type: ignore[call-overload]
    found[~iso] = rest.astype(found.dtype)
    return found


def _since_1970(time: pd.Series) -> np.ndarray:
    """Time elapsed, also across a change of the clocks where a time zone is known."""
    return _elapsed(pd.to_datetime(time, utc=True) - pd.Timestamp(0, tz="UTC"))


def _elapsed(time: pd.Series | pd.TimedeltaIndex) -> np.ndarray:
    return np.asarray(time, "timedelta64[ns]")


def _unread(name: str, found: np.ndarray, missing: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    bad = np.isnat(found) & ~missing
    return ((name, bad),) if bad.any() else ()
