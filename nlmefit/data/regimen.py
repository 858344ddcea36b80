"""Dosing regimens as values: doses, infusions, loading and maintenance, steady state, by weight or any covariate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError, unknown
from nlmefit.core.options import check_truth, is_number
from nlmefit.data.column_checks import column_findings
from nlmefit.data.findings import raise_errors
from nlmefit.data.frames import as_pandas
from nlmefit.data.records import NOTHING, Records, event_types, read_records

Amount = float | Callable[[Any], float]
COLUMNS = ("TIME", "EVID", "AMT", "CMT", "RATE", "DUR", "II", "ADDL", "SS")
"""The columns of `Regimen.frame`."""


@dataclass(frozen=True)
class Series:
    """Doses of one kind: `doses` of them from `start` on, at the interval `every`."""

    amount: Amount
    per: str | None
    start: float
    every: float
    doses: int
    duration: float | Literal["modelled"]
    rate: float | Literal["modelled"]
    compartment: int | str
    steady_state: bool

    def amount_for(self, covariates: Mapping[str, float]) -> float:
        """The amount that a subject with these covariates gets. Raises DataError where it is no number from 0 up."""
        if callable(self.amount):
            value = self.amount(_Given(covariates))
        elif self.per is None:
            value = self.amount
        else:
            value = self.amount * _Given(covariates)[self.per]
        if not _is_number(value, above=None):
            raise DataError(f"the regimen's amount comes to {value!r} for a subject with {dict(covariates)}.")
        return float(value)


class _Given(dict):
    """A subject's covariates, by name or as attributes, with an error that helps."""

    def __missing__(self, name: str) -> Any:
        raise DataError("the regimen's amount: " + unknown("covariate", name, self))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self[name]
        return value if isinstance(value, str) else float(value)


class Regimen:
    """A dosing regimen.

    **Arguments:** `amount` of a dose: a number, in the unit of the model's amounts; a function of a subject's covariates,
    `lambda x: 5 * x.WT**0.75`; or a number `per` covariate, `nm.Regimen(5, per="WT")` for 5 mg/kg. `every` the interval between
    doses and `doses` their number; `duration` or `rate` of an infusion, "modelled" where the model gives it (RATE -2 and -1);
    `compartment` by name or number, from 1; `steady_state` the first dose comes as the last of infinitely many (SS 1), or, with a
    `rate` and the amount 0, of an infusion that never stopped.

    `a + b` gives both, on one clock; `a.after(t)` gives all of `a` a time t later: loading and maintenance doses are

        nm.Regimen(200) + nm.Regimen(100, every=12, doses=9).after(12)

    `nm.Regimen.from_frame(records)` reads one subject's dose records, `regimen.frame(covariates)` writes them.

    Raises DataError for values that make no regimen.
    """

    def __init__(
        self,
        amount: Amount,
        *,
        every: float | None = None,
        doses: int = 1,
        duration: float | Literal["modelled"] = 0.0,
        rate: float | Literal["modelled"] = 0.0,
        per: str | None = None,
        compartment: int | str = 1,
        steady_state: bool = False,
    ):
        _check_amount(amount, per)
        check_truth("steady_state", steady_state, DataError)
        if isinstance(doses, bool) or not isinstance(doses, int | np.integer) or doses < 1:
            raise DataError(f"doses must be a whole number from 1 up, got {doses!r}.")
        if every is not None and not _is_number(every, above=0):
            raise DataError(f"every must be a time above 0, got {every!r}.")
        if every is None and doses > 1:
            raise DataError(f"doses={doses} need the interval between them: every=....")
        endless = steady_state and not callable(amount) and amount == 0
        if steady_state and every is None and not endless:
            raise DataError("a steady state needs the interval between its doses: every=....")
        for name, value in (("duration", duration), ("rate", rate)):
            if not (isinstance(value, str) and value == "modelled") and not _is_number(value, above=None):
                raise DataError(f"{name} must be a number from 0 up or 'modelled', got {value!r}.")
        if duration not in (0, 0.0) and rate not in (0, 0.0):
            raise DataError("give the duration or the rate of an infusion, not both.")
        if endless and (rate in (0, 0.0, "modelled") or doses > 1):
            raise DataError("steady_state with the amount 0 is an infusion without end: it needs rate=... and one dose.")
        whole = isinstance(compartment, int | np.integer) and not isinstance(compartment, bool)
        if not isinstance(compartment, str) and (not whole or compartment < 1):  # type: ignore[operator]
            raise DataError(f"compartment must be a name or a number from 1 up, got {compartment!r}.")
        series = Series(amount, per, 0.0, float(every or 0.0), int(doses), duration, rate, compartment, bool(steady_state))
        self._series: tuple[Series, ...] = (series,)
        self._own = False

    @property
    def series(self) -> tuple[Series, ...]:
        """Its doses, of one kind each."""
        return self._series

    @property
    def by_covariate(self) -> bool:
        """Whether subjects get different amounts."""
        return any(callable(s.amount) or s.per is not None for s in self._series)

    @property
    def own(self) -> bool:
        """Whether the subjects' own doses are part of it."""
        return self._own

    @classmethod
    def of(cls, series: tuple[Series, ...], own: bool = False) -> "Regimen":
        """The regimen of these doses."""
        made = object.__new__(cls)
        made._series, made._own = series, own
        return made

    @classmethod
    def observed(cls) -> "Regimen":
        """The subjects' own doses, as recorded. `nm.Regimen.observed() + nm.Regimen(100).after(48)` adds one."""
        return cls.of((), own=True)

    def __add__(self, other: "Regimen") -> "Regimen":
        if not isinstance(other, Regimen):
            raise DataError(f"a regimen is added to another one, got {other!r}; later doses are regimen.after(time).")
        return Regimen.of(self._series + other._series, self._own or other._own)

    def after(self, time: float) -> "Regimen":
        """The same doses a time later. Raises DataError for a time that is no number."""
        if not _is_number(time, above=None, negative=True):
            raise DataError(f"after() takes a time, got {time!r}.")
        if self._own:
            raise DataError("the subjects' own doses are where they are; shift the others before adding them.")
        return Regimen.of(tuple(replace(s, start=s.start + float(time)) for s in self._series))

    def scaled(self, factor: float) -> "Regimen":
        """The same regimen with all amounts (and rates) times a factor, for example 0.5; own doses stay."""
        if not _is_number(factor, above=None):
            raise DataError(f"a regimen is scaled by a number from 0 up, got {factor!r}.")
        return Regimen.of(tuple(_scaled(s, float(factor)) for s in self._series), self._own)

    def __mul__(self, factor: float) -> "Regimen":
        return self.scaled(factor)

    __rmul__ = __mul__

    def frame(
        self,
        covariates: Mapping[str, float] | None = None,
        compartments: tuple[str, ...] = (),
        *,
        written_out: bool = False,
        until: float = np.inf,
    ) -> pd.DataFrame:
        """The dose records, in the order of time: TIME EVID AMT CMT RATE DUR II ADDL SS.

        **Arguments:** `covariates` of the subject, for amounts by covariate; `compartments` the model's, for those given by name;
        `written_out` a record for each dose, without ADDL, up to the time `until`.
        """
        if covariates is not None and not isinstance(covariates, Mapping):
            raise DataError(f"covariates must be values by name, got {covariates!r}.")
        series = [s for whole in self._series for s in (_single(whole, until) if written_out else [whole])]
        rows = [_record(s, covariates or {}, compartments) for s in series]
        return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("TIME", kind="stable", ignore_index=True)

    @classmethod
    def from_frame(cls, records: pd.DataFrame, columns: Mapping[str, str] | None = None) -> "Regimen":
        """The regimen in one subject's records: those with EVID 1 (or AMT above 0 where there is no EVID). Times are kept.

        Raises DataError where there is no dose, where a reset (EVID 3 or 4, SS 2) stands among them, or several subjects.
        """
        records = as_pandas(records, "records")
        named = [str(c).upper() for c in records] + [str(c).upper() for c in (columns or {}).values()]
        read = read_records(records if "ID" in named else records.assign(ID=1), columns=columns)
        raise_errors(list(column_findings(read, NOTHING, observations=False)))
        if read.frame["ID"].nunique() > 1:
            raise DataError("Regimen.from_frame reads one subject's records; choose one: df[df['ID'] == ...].")
        evid = event_types(read)
        rows = np.flatnonzero(evid == 1)
        if len(rows) == 0:
            raise DataError("the records have no dose (EVID 1, or AMT above 0).")
        if np.isin(evid, (3, 4)).any() or (read.column("SS", 0.0)[rows] == 2).any():
            raise DataError("a regimen cannot say EVID 3, EVID 4 or SS 2; simulate those from the records themselves.")
        return cls.of(tuple(_series_of(read, int(i)) for i in rows))

    def __repr__(self) -> str:
        return " + ".join([*(["own doses"] if self._own else []), *(_in_words(s) for s in self._series)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regimen) and (self._series, self._own) == (other._series, other._own)

    def __hash__(self) -> int:
        return hash((self._series, self._own))


def _check_amount(amount: Any, per: Any) -> None:
    if callable(amount):
        if per is not None:
            raise DataError("per= goes with a number; a function of the covariates says all by itself.")
        return
    if not _is_number(amount, above=None):
        raise DataError(f"amount must be a number from 0 up or a function of the covariates, got {amount!r}.")
    if per is not None and not isinstance(per, str):
        raise DataError(f"per must name a covariate, got {per!r}.")


def _is_number(value: Any, above: float | None, negative: bool = False) -> bool:
    if not is_number(value):
        return False
    return bool(negative or (value >= 0 if above is None else value > above))


def _scaled(series: Series, factor: float) -> Series:
    amount = series.amount
    scaled = (lambda x: factor * amount(x)) if callable(amount) else factor * amount
    rate = series.rate if series.rate == "modelled" else factor * series.rate
    return replace(series, amount=scaled, rate=rate)


def _single(series: Series, until: float) -> list[Series]:
    """Its doses one by one, up to that time (the first in any case); a steady state is there at the first."""
    seen = (until - series.start) / series.every if series.every > 0 else np.inf
    doses = series.doses if seen >= series.doses else max(int(np.floor(seen + 1e-6)) + 1, 1)
    each = [replace(series, start=series.start + k * series.every, doses=1, steady_state=False) for k in range(doses)]
    return [replace(each[0], steady_state=series.steady_state), *each[1:]]


def _record(series: Series, covariates: Mapping[str, float], compartments: tuple[str, ...]) -> tuple[float, ...]:
    rate = {"modelled": -1.0}.get(series.rate, series.rate)  # type: ignore[call-overload, arg-type]
    duration = series.duration
    if duration == "modelled":
        rate, duration = -2.0, 0.0
    place = series.compartment
    if isinstance(place, str):
        if place not in compartments:
            raise DataError("the regimen: " + unknown("compartment", place, compartments))
        place = compartments.index(place) + 1
    amount, interval = series.amount_for(covariates), series.every if series.doses > 1 or series.steady_state else 0.0
    return series.start, 1, amount, int(place), float(rate), float(duration), interval, series.doses - 1, int(series.steady_state)


def _series_of(read: Records, row: int) -> Series:
    def value(name: str, default: float = 0.0) -> float:
        return float(read.column(name, default)[row])

    rate, duration = value("RATE"), value("DUR")
    return Series(
        amount=value("AMT"),
        per=None,
        start=value("TIME"),
        every=value("II"),
        doses=int(value("ADDL")) + 1,
        duration="modelled" if rate == -2 else duration,
        rate="modelled" if rate == -1 else max(rate, 0.0),
        compartment=max(int(value("CMT", 1.0)), 1),
        steady_state=value("SS") == 1,
    )


def _in_words(s: Series) -> str:
    amount = "f(covariates)" if callable(s.amount) else f"{s.amount:g}" + (f" per {s.per}" if s.per else "")
    parts = [amount]
    if s.doses > 1:
        parts.append(f"x {s.doses} every {s.every:g}")
    elif s.steady_state and s.every:
        parts.append(f"every {s.every:g}")
    if s.steady_state:
        parts.append("at steady state")
    if s.duration:
        parts.append("over a modelled time" if s.duration == "modelled" else f"over {s.duration:g}")
    if s.rate:
        parts.append("at a modelled rate" if s.rate == "modelled" else f"at {s.rate:g} per unit of time")
    if s.compartment != 1:
        parts.append(f"into {s.compartment}")
    if s.start:
        parts.append(f"from {s.start:g}")
    return " ".join(parts)
