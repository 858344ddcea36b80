"""A DataFrame as NONMEM records: names in any case, numbers parsed, EVID and MDV derived where absent.

Nothing is guessed silently: text where a number belongs is a finding, never zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nlmefit.errors import DataError, unknown

STANDARD = ("ID", "TIME", "DV", "AMT", "EVID", "CMT", "RATE", "DUR", "II", "ADDL", "SS", "MDV", "CENS", "LIMIT", "DVID", "OCC")
_MISSING = {"", ".", "NA", "NaN", "nan", "NAN", "<NA>", "None"}


@dataclass(frozen=True)
class Records:
    """The data in standard columns, one row per record of the user's frame, in the same order.

    `frame` holds floats (NaN is missing) and, untouched, ID and DVID; `text` lists (column, rows, first text) where a number
    was expected and text found; `source` maps a standard or covariate name to the user's column.
    """

    frame: pd.DataFrame
    text: list[tuple[str, list[int], str]]
    source: dict[str, str]
    given: tuple[str, ...]
    """All columns of the user's frame."""

    def has(self, name: str) -> bool:
        return name in self.frame

    def column(self, name: str, default: float) -> np.ndarray:
        """A column of floats with missing values replaced by `default`, or all `default` where there is none."""
        if name not in self.frame:
            return np.full(len(self.frame), default)
        return self.frame[name].fillna(default).to_numpy(float)


def read_records(df: pd.DataFrame, covariates: Sequence[str] = (), columns: Mapping[str, str] | None = None) -> Records:
    """Standard columns and the named covariates from `df`.

    `columns` maps the user's names to standard ones or to the model's covariates, `{"CONC": "DV"}`. Raises DataError if `df`
    is not a DataFrame, if a mapped column does not exist, or if two columns claim the same name.
    """
    if not isinstance(df, pd.DataFrame):
        raise DataError(f"data must be a pandas DataFrame, got {type(df).__name__}; read a file with pandas.read_csv.")
    source = _sources(df, covariates, dict(columns or {}))
    frame: dict[str, object] = {}
    text: list[tuple[str, list[int], str]] = []
    for name, original in source.items():
        series = df[original].reset_index(drop=True)
        if name in ("ID", "DVID"):
            frame[name] = _label(series)
            continue
        numbers, bad = _numbers(series)
        frame[name] = numbers
        if bad:
            text.append((name, bad, str(series.iloc[bad[0]])))
    return Records(pd.DataFrame(frame, index=range(len(df))), text, source, tuple(map(str, df.columns)))


def _sources(df: pd.DataFrame, covariates: Sequence[str], columns: dict[str, str]) -> dict[str, str]:
    for original, standard in columns.items():
        if original not in df:
            raise DataError("columns=: " + unknown("column", original, map(str, df.columns)))
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


def _label(series: pd.Series) -> pd.Series:
    """IDs and DVIDs as they are, but 1.0 and "1" both as 1 (not "001"); missing stays missing."""
    if not pd.api.types.is_numeric_dtype(series):
        stripped = series.astype("string").str.strip()
        series = stripped.mask(stripped.isin(_MISSING)).astype(object)
        if not series.dropna().str.match(r"^-?(0|[1-9]\d*)(\.0*)?$").all():
            return series.where(series.notna(), None)
    numbers = pd.to_numeric(series, errors="coerce")
    if numbers.notna().equals(series.notna()) and (numbers.dropna() % 1 == 0).all():
        return numbers.astype("Int64").astype(object).where(numbers.notna(), None)
    return series.astype(object).where(series.notna(), None)


def all_missing(series: pd.Series) -> bool:
    """Whether there is neither a number nor a text."""
    numbers, texts = _numbers(series)
    return not texts and bool(numbers.isna().all())


def _numbers(series: pd.Series) -> tuple[pd.Series, list[int]]:
    """The series as floats, and the rows that hold text."""
    if pd.api.types.is_bool_dtype(series):
        return series.astype(float), []
    if pd.api.types.is_numeric_dtype(series):
        return series.astype(float), []
    stripped = series.astype("string").str.strip()
    missing = stripped.isna() | stripped.isin(_MISSING)
    numbers = pd.to_numeric(stripped.where(~missing), errors="coerce").astype(float)
    bad = numbers.isna() & ~missing
    return numbers, [int(i) for i in np.flatnonzero(bad.to_numpy())]


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
