"""A DataFrame as NONMEM records: names in any case, numbers parsed, EVID and MDV derived where absent.

Nothing is guessed silently: text where a number belongs is a finding, never zero.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError, nearest, unknown
from nlmefit.data.clock import ORDERS, moments
from nlmefit.data.findings import Finding
from nlmefit.data.frames import as_pandas, plain
from nlmefit.data.needs import Needs
from nlmefit.declare.covariates import level_name

STANDARD = ("ID", "TIME", "DV", "AMT", "EVID", "CMT", "RATE", "DUR", "II", "ADDL", "SS", "MDV", "CENS", "LIMIT", "DVID", "OCC")
_LABELS = ("ID", "DVID", "OCC")
_MISSING = {"", ".", "NA", "NaN", "nan", "NAN", "<NA>", "None"}
NOTHING = Needs((), (), (), {}, frozenset(), frozenset())


@dataclass(frozen=True)
class Text:
    """Text where a number belongs."""

    name: str
    """The standard or covariate name of its column."""
    rows: tuple[int, ...]
    first: str
    """What the first of those rows holds."""


@dataclass(frozen=True)
class Records:
    """The data in standard columns, one row per record of the user's frame, in the same order.

    `frame` holds floats (NaN is missing), and labels as the user has them (None is missing) of ID, DVID, occasions and text
    categories; TIME is in hours where it was no number, CMT a number where it was a name. `text` lists where a number was
    expected and text found; `source` maps a standard or covariate name to the user's column.
    """

    frame: pd.DataFrame
    text: tuple[Text, ...]
    source: dict[str, str]
    given: tuple[str, ...]
    """All columns of the user's frame."""
    index: tuple[str, ...] = ()
    """The names of its index."""
    clock: str = ""
    """What TIME was read from, where it held no numbers."""
    dates: tuple[Finding, ...] = ()
    """What is to be said of the dates among that."""

    def has(self, name: str) -> bool:
        return name in self.frame

    def column(self, name: str, default: float) -> np.ndarray:
        """A column of floats with missing values replaced by `default`, or all `default` where there is none."""
        if name not in self.frame:
            return np.full(len(self.frame), default)
        return self.frame[name].fillna(default).to_numpy(float)

    def like(self, name: str) -> str | None:
        """The column that may be meant: of that name within marks that a file puts around it, or of one spelt much alike."""
        return next((c for c in self.given if _letters(c) == name.upper()), None) or nearest(name, self.given)


def _letters(name: str) -> str:
    """A name without the marks that files put around it: a byte-order mark (also one misread), #, quotes, blanks."""
    return name.removeprefix("\ufeff").removeprefix("ï»¿").strip("#'\" \t\ufeff;@").upper()


def read_records(df: Any, needs: Needs = NOTHING, columns: Mapping[str, str] | None = None) -> Records:
    """Standard columns, and those that the model needs, from `df`.

    `columns` maps the user's names to standard ones or to the model's covariates, `{"CONC": "DV"}`. Raises DataError if `df`
    is no table, if a mapped column does not exist, or if two columns claim the same name.
    """
    check_columns(columns)
    df = as_pandas(df)
    source = _sources(df, needs.columns, dict(columns or {}))
    frame: dict[str, Any] = {}
    text: list[Text] = []
    for name, original in source.items():
        series = plain(df[original].reset_index(drop=True))
        if name in (*_LABELS, *needs.labels) and name not in needs.numbers:
            _check_labels(original, series)
            frame[name] = _labels(series, as_text=name in needs.texts, exact=name == "ID")
            continue
        frame[name], bad = _numbers(series if name != "CMT" else _numbered(series, needs.compartments))
        if bad:
            text.append(Text(name, tuple(bad), str(series.iloc[bad[0]])))
    index = tuple(str(name) for name in df.index.names if name is not None)
    read = Records(pd.DataFrame(frame, index=range(len(df))), tuple(text), source, tuple(map(str, df.columns)), index)
    return _with_hours(read, df)


def check_columns(columns: Any) -> None:
    """DataError for what does not map names to names."""
    if columns is not None and not isinstance(columns, Mapping):
        raise DataError(f"columns= maps your names to standard ones, {{'CONC': 'DV'}}, got {columns!r}.")


def _sources(df: pd.DataFrame, covariates: Sequence[str], columns: dict[str, str]) -> dict[str, str]:
    for original, standard in columns.items():
        if original not in df:
            raise DataError("columns=: " + unknown("column", str(original), map(str, df.columns)))
        if not isinstance(standard, str):
            raise DataError(f"columns=: {original!r} must map to the name of a standard column or covariate, got {standard!r}.")
        if standard.upper() not in STANDARD and standard not in covariates:
            raise DataError("columns=: " + unknown("standard column or covariate", standard, [*STANDARD, *covariates]))
    twice = df.columns[df.columns.duplicated()]
    if len(twice):
        raise DataError(f"the data has two columns called `{twice[0]}`; drop or rename one.")
    result: dict[str, str] = {}
    for original, standard in columns.items():
        name = standard if standard in covariates else standard.upper()
        if name in result:
            raise DataError(f"columns=: {result[name]} and {original} both map to {name}; keep one.")
        result[name] = original
    for standard in STANDARD:
        matches = [c for c in df.columns if str(c).upper() == standard and c not in columns]
        if standard in result:
            continue
        if len(matches) > 1:
            raise DataError(f"columns {', '.join(map(str, matches))} all mean {standard}; drop or rename all but one.")
        if matches:
            result[standard] = matches[0]
    for name in (name for name in covariates if name not in result):
        exact = [c for c in df.columns if c == name]
        loose = [c for c in df.columns if str(c).lower() == name.lower()]
        if exact or len(loose) == 1:
            result[name] = (exact or loose)[0]
    return result


def _missing(series: pd.Series) -> np.ndarray:
    """Which cells are missing: empty, or one of the words for it."""
    stripped = series.astype("string").str.strip()
    return (stripped.isna() | stripped.isin(_MISSING)).to_numpy(bool)


def _check_labels(name: str, series: pd.Series) -> None:
    """DataError for what can name nothing: a list, a dictionary, a complex number, a truth value among others."""
    if series.dtype.kind in "iufbM":
        return
    for row, value in enumerate(series.astype(object)):
        if not isinstance(value, Hashable) or isinstance(value, tuple | complex | bool):
            raise DataError(f"column {name} holds {value!r} in row {row}; it must hold numbers or text.")


def _labels(series: pd.Series, as_text: bool = False, exact: bool = False) -> pd.Series:
    """Labels as the user has them: text stays text ("001" too), a whole number is one (1.0 is 1); missing is None. White space
    around them is kept where they are `exact`, for they come back in results; else a model names them, and it does not count."""
    numeric = pd.api.types.is_numeric_dtype(series)
    missing = series.isna().to_numpy() if numeric else _missing(series)

    def label(value: Any) -> Any:
        if isinstance(value, str):
            return value if exact else value.strip()
        if isinstance(value, float | np.floating) and float(value).is_integer():
            value = int(value)
        value = value.item() if isinstance(value, np.generic) else value
        return (level_name(value) if isinstance(value, int | float) else str(value)) if as_text else value

    found = [None if absent else label(value) for value, absent in zip(series.astype(object), missing, strict=True)]
    labels = pd.Series(found, dtype=object)
    return labels.infer_objects() if numeric and not missing.any() and not as_text else labels


def all_missing(series: pd.Series) -> bool:
    """Whether there is neither a number nor a text."""
    numbers, texts = _numbers(plain(series))
    return not texts and bool(numbers.isna().all())


def _numbers(series: pd.Series) -> tuple[pd.Series, list[int]]:
    """The series as floats, and the rows that hold text."""
    if pd.api.types.is_bool_dtype(series) or pd.api.types.is_numeric_dtype(series) and series.dtype.kind != "c":
        return pd.Series(series.to_numpy(float, na_value=np.nan)), []
    missing = _missing(series)
    stripped = series.astype("string").str.strip()
    numbers = pd.to_numeric(stripped.where(~missing), errors="coerce").astype(float)
    bad = numbers.isna() & ~missing
    return pd.Series(numbers.to_numpy(float, na_value=np.nan)), [int(i) for i in np.flatnonzero(bad.to_numpy(bool))]


def _numbered(series: pd.Series, compartments: Sequence[str]) -> pd.Series:
    """Compartments' names as their numbers, all else as it is."""
    numbers = {name: number for number, name in enumerate(compartments, 1)}
    if not compartments or pd.api.types.is_numeric_dtype(series):
        return series
    return series.astype(object).map(lambda v: numbers.get(v.strip(), v) if isinstance(v, str) else v)


def _with_hours(records: Records, df: pd.DataFrame) -> Records:
    """The records with TIME in hours, where it holds dates, times of day or durations."""
    if not records.has("TIME") or not records.has("ID") or len(df) == 0:
        return records
    series = plain(df[records.source["TIME"]].reset_index(drop=True))
    dates = [c for c in df if str(c).upper() in ORDERS and c != records.source["TIME"]]
    date = plain(df[dates[0]].reset_index(drop=True)) if dates else None
    found = moments(series, _missing(series), date)
    if found is None:
        return records
    codes = pd.factorize(records.frame["ID"])[0]
    starts = pd.Series(np.arange(len(codes))).groupby(codes).transform("first").to_numpy()
    columns = {"TIME": series, **({} if date is None else {str(date.name): date})}
    unread = [Text(name, tuple(map(int, np.flatnonzero(bad))), str(columns[name][bad].iloc[0])) for name, bad in found.unread]
    text = (*(t for t in records.text if t.name != "TIME"), *unread)
    since = " since the subject's first record" if found.relative else ""
    frame = records.frame.assign(TIME=found.hours(starts))
    return replace(records, frame=frame, text=text, clock=f"hours{since}, from {found.words}", dates=found.findings)


def event_types(records: Records) -> np.ndarray:
    """EVID by record: as given; where it is not, 1 if AMT > 0 (or a rate is infused), 2 if MDV says that the record is no
    observation, else 0."""
    amount, rate = records.column("AMT", 0.0), records.column("RATE", 0.0)
    no_observation = records.column("MDV", 0.0) == 1
    derived = np.where((amount > 0) | (rate > 0), 1, np.where(no_observation, 2, 0))
    if not records.has("EVID"):
        return derived
    given = records.frame["EVID"].to_numpy(float)
    return np.where(np.isnan(given), derived, given)


def observation_rows(records: Records, evid: np.ndarray) -> np.ndarray:
    """Which records are observations: EVID 0, MDV not 1, DV present."""
    present = records.frame["DV"].notna().to_numpy() if records.has("DV") else np.zeros(len(evid), bool)
    return (evid == 0) & (records.column("MDV", 0.0) != 1) & present
