"""Dates, times of day and durations as hours: since the subject's first record, as in NONMEM.

Whether a date begins with its day or its month is settled once for the whole column, never date by date.
"""

import datetime
import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from nlmefit.data.findings import Finding

HOUR = np.timedelta64(3600 * 10**9, "ns")
_OF_DAY = re.compile(r"(\d{1,3}):([0-5]?\d)(?::([0-5]?\d(?:\.\d*)?))?")
_DAY = re.compile(r"(?P<first>\d{1,4})(?P<mark>[-/.])(?P<second>\d{1,2})[-/.](?P<third>\d{1,4})(?P<rest>.*)")
_NAMED_MONTH = re.compile(r"[A-Za-z]{3}")
ORDERS = {"DATE": "month/day/year", "DAT1": "day/month/year", "DAT2": "year/month/day", "DAT3": "year/day/month"}
"""NONMEM's date columns, and how the parts of a date stand in them; a year of four digits in front is year/month/day."""
_LAST_20 = 50
"""Years of two digits up to this one are of this century, as in NONMEM (LAST20)."""


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
    findings: tuple[Finding, ...] = ()
    """What is to be said of the order of day and month."""

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
        found = _dates(text, "TIME", missing)
        return found._replace(words=f"dates{found.words}")
    return _on_days(text, missing, date) if text.str.fullmatch(_OF_DAY).any() else None


def _on_days(text: pd.Series, missing: np.ndarray, date: pd.Series | None) -> Moments:
    """Times of day, on the days that the other column names."""
    of_day = _elapsed(pd.to_timedelta([_of_day(v) if isinstance(v, str) else np.nan for v in text], unit="h"))
    unread = _unread("TIME", of_day, missing)
    if date is None:
        return Moments(of_day, "times of day, all of one day", True, unread)
    nowhere = np.zeros(len(date), bool)
    if pd.api.types.is_numeric_dtype(date):
        day = _elapsed(pd.to_timedelta(date.to_numpy(float, na_value=np.nan), unit="D"))
        days = Moments(day, "", True, _unread(str(date.name), day, nowhere))
    elif pd.api.types.is_datetime64_any_dtype(date):
        day = _since_1970(date)
        days = Moments(day, "", True, _unread(str(date.name), day, nowhere))
    else:
        days = _dates(date.astype("string").str.strip(), str(date.name), nowhere)
    words = f"times of day, with the dates in {date.name}{days.words}"
    return Moments(of_day + days.elapsed, words, True, (*unread, *days.unread), days.findings)


def _of_day(text: str) -> float:
    """Hours of "8:30" or "08:30:15"; of a plain number that many."""
    found = _OF_DAY.fullmatch(text)
    if found:
        hour, minute, second = found.groups()
        return int(hour) + int(minute) / 60 + float(second or 0.0) / 3600
    return float(pd.to_numeric(text, errors="coerce"))


def _dates(text: pd.Series, name: str, missing: np.ndarray) -> Moments:
    """Dates (and times) by year, month and day where the year of four digits comes first, else in one order for the column;
    its words are that order."""
    parts = text.str.extract(_DAY)
    led = parts["first"].str.len().eq(4).fillna(False)
    order, findings = _order(text, parts[~led].dropna(), name)
    written = _iso(parts, order).where(~led, _iso(parts, ORDERS["DAT3" if name.upper() == "DAT3" else "DAT2"]))
    written = written.where(parts["first"].notna(), text.where(text.str.contains(_NAMED_MONTH)))
    found = _elapsed(pd.to_datetime(written, format="mixed", errors="coerce", utc=True) - pd.Timestamp(0, tz="UTC"))
    words = "" if (led | text.isna()).all() else f", read as {order}"
    contradictory = any(finding.severity == "error" for finding in findings)
    return Moments(found, words, True, () if contradictory else _unread(name, found, missing), findings)


def _order(text: pd.Series, parts: pd.DataFrame, name: str) -> tuple[str, tuple[Finding, ...]]:
    """The order of day, month and year in a column, from all its dates (their `parts`) whose year of four digits is not first."""
    if name.upper() in ORDERS and name.upper() != "DATE":
        return ORDERS[name.upper()], ()
    first, second, dots = parts["first"].astype(int), parts["second"].astype(int), parts["mark"] == "."
    remedy = "Write dates as year-month-day (2024-02-01)"
    day_first, month_first = dots | (first > 12) & (second <= 12), (second > 12) & (first <= 12)
    if day_first.any() and month_first.any():
        one, other = (parts.index[settled][0] for settled in (day_first, month_first))
        dotted = " (as all with dots)" if dots[one] else ""
        what = f"dates in {name} have the day first in {text[one]!r}{dotted} and the month first in {text[other]!r}."
        return ORDERS["DATE"], (Finding("E149", what, f"{remedy}, all in one order.", tuple(sorted((one, other)))),)
    if day_first.any():
        return ORDERS["DAT1"], ()
    rows = tuple(map(int, parts.index[first != second]))
    if month_first.any() or not rows:
        return ORDERS["DATE"], ()
    what = f"dates in {name} are read as {ORDERS['DATE']}, first {text[rows[0]]!r}; no date settles that order."
    return ORDERS["DATE"], (
        Finding("W219", what, f"{remedy}, or put dates with the day first into a column DAT1 beside times of day in TIME.", rows),
    )


def _iso(parts: pd.DataFrame, order: str) -> pd.Series:
    """Dates and what follows them as text, year-month-day; missing where there is no date."""
    year, month, day = (parts[("first", "second", "third")[order.split("/").index(word)]] for word in ("year", "month", "day"))
    century = np.where(pd.to_numeric(year).fillna(0) > _LAST_20, "19", "20")
    full = year.where(year.str.len() != 2, century + year).where(year.str.len().isin((2, 4)))
    return full + "-" + month.str.zfill(2) + "-" + day.str.zfill(2) + parts["rest"]


def _since_1970(time: pd.Series) -> np.ndarray:
    """Time elapsed, also across a change of the clocks where a time zone is known."""
    return _elapsed(pd.to_datetime(time, utc=True) - pd.Timestamp(0, tz="UTC"))


def _elapsed(time: pd.Series | pd.TimedeltaIndex) -> np.ndarray:
    return np.asarray(time, "timedelta64[ns]")


def _unread(name: str, found: np.ndarray, missing: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    bad = np.isnat(found) & ~missing
    return ((name, bad),) if bad.any() else ()
