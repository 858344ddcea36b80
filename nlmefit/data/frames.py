"""Tables of any kind as pandas DataFrames: polars, pyarrow and whatever else narwhals knows."""

from typing import Any

import narwhals as nw
import pandas as pd

from nlmefit.core.errors import DataError


def as_pandas(table: Any, what: str = "data") -> pd.DataFrame:
    """The table as a pandas DataFrame, itself if it is one. Raises DataError for what is no table."""
    if isinstance(table, pd.DataFrame):
        return table
    try:
        given: Any = nw.from_native(table)
    except TypeError:
        raise DataError(
            f"{what} must be a DataFrame (of pandas, polars, pyarrow or another library that narwhals knows), got "
            f"{type(table).__name__}; read a file with pandas.read_csv."
        ) from None
    if isinstance(given, nw.LazyFrame):
        given = given.collect()
    return pd.DataFrame({name: given[name].to_numpy() for name in given.columns})


def if_table(value: Any) -> Any:
    """A table as `as_pandas` has it, all else as it is."""
    return as_pandas(value) if is_table(value) else value


def is_table(value: Any) -> bool:
    """Whether `as_pandas` takes it."""
    return isinstance(nw.from_native(value, pass_through=True), nw.DataFrame | nw.LazyFrame)


def plain(column: pd.Series) -> pd.Series:
    """The column in NumPy's types where pandas holds it in Arrow's: times as such, all else as objects, missing as None."""
    if not isinstance(column.dtype, pd.ArrowDtype):
        return column
    kind = column.dtype.kind
    if kind in "iufb" and not column.isna().any():
        return pd.Series(column.to_numpy(), column.index, name=column.name)
    objects = column.astype(object).where(column.notna(), None)
    if kind == "M":
        return pd.to_datetime(objects, utc=True)
    return pd.to_timedelta(objects) if kind == "m" else objects
