"""Records to simulate: whom, under which doses, seen when.

Subjects come from a data set (their covariates change in time as they do there) or are new. Where a regimen replaces a subject's
own doses, its records stay as carriers of covariates and occasions; at equal times doses come before what is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError
from nlmefit.data.censoring import Blq
from nlmefit.data.epochs import Rule
from nlmefit.data.needs import needs_of
from nlmefit.data.records import event_types, observation_rows
from nlmefit.data.regimen import COLUMNS, Regimen
from nlmefit.data.subjects import Subjects

_EARLY, _DOSE, _SEEN = 0, 1, 2
"""Order at equal times: what is seen before the doses, doses, what is seen after them."""


@dataclass(frozen=True)
class Scenario:
    """Subjects laid out for a model with only the rows that are seen."""

    data: Subjects
    times: np.ndarray
    """Of the rows (N, n), NaN where padded."""


def scenario(
    model: Any,
    people: pd.DataFrame | Subjects,
    regimen: Regimen,
    times: Sequence[float] | np.ndarray | None,
    *,
    before: Sequence[float] = (),
    rule: Rule = "nocb",
) -> Scenario:
    """Those subjects under the regimen, seen at `times` (None: at their own observations).

    `people` is a data set, or a table with a row per new subject: ID and covariates. Of `before` the values just before doses at
    that time are seen, too; these rows come first. Raises DataError as `Subjects.from_frame` does.
    """
    own = people.records.frame if isinstance(people, Subjects) else None
    if own is None:
        assert isinstance(people, pd.DataFrame) and times is not None and not regimen.own
        base = people.assign(TIME=0.0, EVID=2.0, rank=_EARLY, seen=False)[:0]
        covariates = people
        blq: Blq = "M3"
    else:
        assert isinstance(people, Subjects)
        rule, blq = people.rule, people.blq
        base = _carriers(people, regimen, times)
        covariates = own[~own["ID"].duplicated()]
    parts = [base]
    if regimen.series:
        last = max(base["TIME"].max() if len(base) else -np.inf, -np.inf if times is None else np.max(times))
        parts.append(_doses(model, regimen, covariates, float(last)))
    if times is not None:
        parts.append(_grid(covariates["ID"].to_numpy(), np.asarray(before, float), _EARLY))
        parts.append(_grid(covariates["ID"].to_numpy(), np.asarray(times, float), _SEEN))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    order = pd.Index(covariates["ID"]).get_indexer(frame["ID"])
    # own records stay in their order, also where the clock restarts
    keys = [frame["rank"], frame["TIME"], order] if regimen != Regimen.observed() or times is not None else [order]
    frame = frame.iloc[np.lexsort(keys)].reset_index(drop=True)
    frame = _with_covariates(frame, covariates, model, rule)
    laid_out = Subjects.from_frame(frame, model, covariates=rule, blq=blq, every_record=True)
    return _seen_only(laid_out, frame)


def _carriers(people: Subjects, regimen: Regimen, times: Any) -> pd.DataFrame:
    """The subjects' own records: all of them where the doses are their own, else without doses and resets."""
    frame, evid = people.records.frame.copy(), event_types(people.records)
    own = observation_rows(people.records, evid) if people.records.has("DV") else evid == 0  # a design without data yet
    if times is None and not own.any():
        raise DataError("these subjects have no observations, so no times of their own to be seen at: give times=.")
    frame["seen"] = (own if times is None else False) & np.ones(len(frame), bool)
    frame["EVID"], frame["rank"] = np.where(evid == 0, 2.0, evid), np.where(frame["seen"], _SEEN, _DOSE)
    if regimen == Regimen.observed() and times is None:
        return frame
    restarted = np.r_[False, (np.diff(frame["TIME"]) < 0) & (frame["ID"].to_numpy()[1:] == frame["ID"].to_numpy()[:-1])]
    if restarted.any():
        raise DataError(
            f"subject {frame['ID'][restarted].iloc[0]} restarts the clock, so that neither other times nor another regimen "
            "can be placed among its records. Simulate it at its own records, or make each period a subject of its own."
        )
    if regimen.own:
        return frame.assign(rank=np.where(frame["seen"], _SEEN, _DOSE))
    dropped = [name for name in (*COLUMNS[2:], "MDV", "DV", "CENS", "LIMIT") if name in frame]
    return frame.assign(EVID=2.0, rank=np.where(frame["seen"], _SEEN, _EARLY)).drop(columns=dropped)


def _doses(model: Any, regimen: Regimen, covariates: pd.DataFrame, last: float) -> pd.DataFrame:
    """The regimen's doses, of each subject, as far as they are seen: up to the time `last`."""
    compartments = model.specification.compartments
    if not compartments:
        raise DataError("the model has no compartments, so that there is nothing to dose; leave the regimen out.")
    names = [name for name in covariates.columns if name != "ID"]
    if not regimen.by_covariate:
        once = regimen.frame(
            {}, compartments, written_out=True, until=last
        )  # a dose that ADDL makes comes before all records of its time
        repeated = pd.concat([once] * len(covariates), ignore_index=True)
        return _given(repeated.assign(ID=np.repeat(covariates["ID"].to_numpy(), len(once)), rank=_DOSE, seen=False))
    tables = [
        regimen.frame(dict(zip(names, row[1:], strict=True)), compartments, written_out=True, until=last).assign(ID=row[0])
        for row in covariates[["ID", *names]].itertuples(index=False)
    ]
    return _given(pd.concat(tables, ignore_index=True).assign(rank=_DOSE, seen=False))


def _given(doses: pd.DataFrame) -> pd.DataFrame:
    """Without doses of nothing (a placebo): they leave no record, but where a steady state of nothing empties the system."""
    nothing = (doses["AMT"] == 0) & ~((doses["SS"] == 1) & (doses["RATE"] > 0))
    emptied = nothing & (doses["SS"] == 1)
    kept = doses.assign(EVID=np.where(emptied, 3, doses["EVID"]), SS=np.where(emptied, 0, doses["SS"]))
    kept[["RATE", "DUR", "II"]] = kept[["RATE", "DUR", "II"]].where(~emptied, 0.0)
    return kept[~nothing | emptied]


def _grid(ids: np.ndarray, times: np.ndarray, rank: int) -> pd.DataFrame:
    shown = pd.DataFrame({"ID": np.repeat(ids, len(times)), "TIME": np.tile(times, len(ids))})
    return shown.assign(EVID=2.0, rank=rank, seen=True)


def _with_covariates(frame: pd.DataFrame, covariates: pd.DataFrame, model: Any, rule: Rule) -> pd.DataFrame:
    """The values of covariates and occasion on the records that were added, by the rule by which they run between records."""
    first, needs = covariates.set_index("ID"), needs_of(model)
    for name in needs.columns:
        if name not in frame:
            frame[name] = np.nan
        if name in needs.labels:
            frame[name] = frame[name].astype(object)
        if name not in first:
            continue
        groups = frame.groupby("ID", sort=False)[name]
        if rule == "linear" and name not in needs.labels:
            filled = frame.groupby("ID", sort=False, group_keys=False)[["TIME", name]].apply(_interpolated)
            frame[name] = filled.to_numpy() if len(filled) == len(frame) else frame[name]
        else:
            frame[name] = groups.ffill() if rule == "locf" else groups.bfill()
        again = frame.groupby("ID", sort=False)[name]
        frame[name] = again.bfill() if rule == "locf" else again.ffill()
        frame[name] = frame[name].where(frame[name].notna(), frame["ID"].map(first[name]))
    return frame


def _interpolated(records: pd.DataFrame) -> pd.Series:
    time, value = records["TIME"].to_numpy(float), records.iloc[:, 1]
    known = value.notna().to_numpy()
    return pd.Series(np.interp(time, time[known], value[known]) if known.any() else np.nan, records.index)


def _seen_only(laid_out: Subjects, frame: pd.DataFrame) -> Scenario:
    """The layout with only the rows that are seen, all of which every endpoint is predicted at; solvers stop at the others."""
    rows = laid_out.rows
    seen = (rows >= 0) & frame["seen"].to_numpy(bool)[rows]
    passed = (rows >= 0) & ~seen
    counts = seen.sum(axis=1)
    width = max(int(counts.max(initial=0)), 1)
    index = np.argsort(~seen, axis=1, kind="stable")[:, :width]
    real = np.arange(width) < counts[:, None]
    index = np.where(real, index, index[np.arange(len(index)), np.maximum(counts - 1, 0)][:, None])

    def take(x: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, index, axis=1)

    s = laid_out.subjects
    if passed.any() and laid_out.needs.compartments:
        stops = (np.where(passed, s.time, np.inf), np.where(passed, s.segment, np.inf))
        s = eqx.tree_at(lambda s: (s.stop, s.stop_segment), s, stops, is_leaf=lambda x: x is None)
    s = eqx.tree_at(lambda s: (s.time, s.order, s.segment), s, (take(s.time), take(s.order), take(s.segment)))
    s = eqx.tree_at(lambda s: s.mask, s, {name: real for name in s.mask})
    s = eqx.tree_at(lambda s: s.observed, s, {name: np.zeros(real.shape) for name in s.observed})
    if s.epoch is not None:
        s = eqx.tree_at(lambda s: s.epoch, s, take(s.epoch))
    return Scenario(replace(laid_out, subjects=s), np.where(real, s.time, np.nan))
