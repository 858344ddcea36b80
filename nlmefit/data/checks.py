"""Checks of a data set against what a model needs: columns, subjects, times, observations, covariates, doses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.data.censoring import Blq, censoring_findings
from nlmefit.data.dose_checks import dose_findings
from nlmefit.data.findings import Finding, some, where
from nlmefit.data.needs import Needs
from nlmefit.data.records import Records, event_types, observation_rows
from nlmefit.errors import nearest

Check = Callable[[Records, Needs, bool], Iterator[Finding]]


def findings(records: Records, needs: Needs, blq: Blq = "M3", *, observations: bool = True) -> list[Finding]:
    """All findings, errors first. `observations` False: the data is for prediction, DV is not needed."""
    structural = [*_columns(records, needs, observations), *_text(records), *_missing_ids(records)]
    if structural:
        return structural
    found = [f for check in _CHECKS for f in check(records, needs, observations)]
    if observations:
        found += censoring_findings(records, observation_rows(records, event_types(records)), blq)
    ids = records.frame["ID"]
    placed = [replace(f, subject=ids.iloc[f.rows[0]]) if f.rows and f.subject is None else f for f in found]
    return sorted(placed, key=lambda f: f.severity != "error")


def _columns(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    frame, given = records.frame, ", ".join(records.given)
    required = ["ID", "TIME"] + (["DV"] if observations else [])
    for name in required:
        if name not in frame:
            yield Finding(
                "E101",
                f"there is no column {name}; the data has {given or 'no columns'}.",
                f"Add it, or name yours: columns={{'YOURS': '{name}'}}.",
            )
    for name in needs.covariates:
        if name not in frame:
            close = nearest(name, records.given)
            hint = f" Did you mean `{close}`?" if close else ""
            yield Finding(
                "E102",
                f"the model reads `{name}`, which is neither one of its parameters nor a column of the data ({given}).{hint}",
                f"Add the column, name yours (columns={{'YOURS': '{name}'}}), or correct the name in the model.",
            )
    if len(frame) == 0:
        yield Finding("E103", "the data has no rows.", "Check the file or the filter that made it.")


def _text(records: Records) -> Iterator[Finding]:
    for name, rows, first in records.text:
        source = str(records.source[name])
        column = name if source == name else f"{source} ({name})"
        yield Finding(
            "E104",
            f"column {column} holds text where a number belongs, first {first!r}.",
            "Recode it as a number; `.`, empty and NA mean missing.",
            tuple(rows),
        )


def _missing_ids(records: Records) -> Iterator[Finding]:
    if records.has("ID"):
        missing = records.frame["ID"].isna().to_numpy()
        yield from where(missing, "E105", "ID is missing.", "Give every record the ID of its subject.")


def _subjects(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    codes, ids = pd.factorize(records.frame["ID"])
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    returning = starts[pd.Series(codes[starts]).duplicated().to_numpy()]
    if len(returning):
        who = ids[codes[returning[0]]]
        yield Finding(
            "E106",
            f"subject {who} comes back after other subjects.",
            "Keep a subject's records together (df.sort_values(['ID', 'TIME'], kind='stable')), or give the later ones another "
            "ID.",
            tuple(map(int, returning)),
            who,
        )


def _times(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    time = records.frame["TIME"].to_numpy(float)
    yield from where(np.isnan(time), "E107", "TIME is missing.", "Give every record its time.")
    yield from where(np.isinf(time), "E108", "TIME is infinite.", "Give every record a finite time.")
    if not np.isfinite(time).all():
        return
    evid, codes = event_types(records), pd.factorize(records.frame["ID"])[0]
    back = np.r_[False, (codes[1:] == codes[:-1]) & (np.diff(time) < 0) & ~np.isin(evid[1:], (3, 4))]
    if back.any():
        i = int(np.flatnonzero(back)[0])
        yield from where(
            back,
            "E109",
            f"TIME goes back within a subject, first from {time[i - 1]:g} to {time[i]:g}.",
            "Sort by time within each subject (df.sort_values(['ID', 'TIME'], kind='stable')); only EVID 3 and 4 may "
            "restart the clock.",
        )
    yield from where(
        time < 0,
        "W201",
        f"TIME is negative ({some(time[time < 0])}).",
        "Leave it if it is meant; before the first dose all amounts are 0.",
    )


def _observations(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    if not observations:
        return
    evid, mdv = event_types(records), records.column("MDV", 0.0)
    strange = ~np.isin(mdv, (0, 1))
    yield from where(strange, "E134", f"MDV must be 0 or 1, got {some(mdv[strange])}.", "Correct it.")
    counted = observation_rows(records, evid)
    value = records.frame["DV"].to_numpy(float)
    if not counted.any():
        with_dv = evid[~np.isnan(value)]
        doses = ": every record with a DV is a dose" if len(with_dv) and np.isin(with_dv, (1, 4)).all() else ""
        fix = "An observation has EVID 0 (or no AMT, where there is no EVID), MDV not 1, and a DV."
        yield Finding("E110", f"there is no observation{doses}.", fix)
        return
    yield from where(counted & np.isinf(value), "E111", "DV is infinite.", "Correct the value or set MDV to 1.")
    yield from where(
        (evid == 0) & (mdv != 1) & np.isnan(value),
        "W202",
        "DV is missing on a record that is not a dose; the record is not an observation.",
        "Set MDV to 1 there to say so.",
    )
    yield from _sparse(records, counted)


def _sparse(records: Records, counted: np.ndarray) -> Iterator[Finding]:
    """Subjects without observations, and observations given twice."""
    ids = records.frame["ID"]
    empty = [who for who, any_ in pd.Series(counted).groupby(ids.to_numpy(), sort=False).any().items() if not any_]
    if empty:
        yield Finding(
            "W203",
            f"{len(empty)} subject(s) have no observation (first: {empty[0]}); they add nothing.",
            "Drop them, or check why.",
            subject=empty[0],
        )
    key = pd.DataFrame({"ID": ids, "TIME": records.frame["TIME"], "DVID": records.frame.get("DVID", 1)})[counted]
    twice = np.zeros(len(ids), bool)
    twice[np.flatnonzero(counted)] = key.astype(str).duplicated().to_numpy()
    yield from where(twice, "W204", "two observations of the same endpoint at the same time.", "Both are used, as replicates.")


def _endpoints(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    if not observations:
        return
    if not records.has("DVID"):
        if len(needs.endpoints) > 1:
            yield Finding(
                "E113",
                f"the model has the endpoints {', '.join(needs.endpoints)}, and the data no DVID.",
                f"Add DVID: 1 to {len(needs.endpoints)} in that order, or the endpoints' names.",
            )
        return
    bad = observation_rows(records, event_types(records)) & (endpoint_index(records, needs.endpoints) < 0)
    seen = some("missing" if v is None else v for v in records.frame["DVID"][bad])
    yield from where(
        bad,
        "E114",
        f"DVID on observations matches no endpoint of the model: {seen}.",
        f"Endpoints: {', '.join(f'{i} = {name}' for i, name in enumerate(needs.endpoints, 1))}. Drop those rows, or add the "
        "endpoint to the model.",
    )


def endpoint_index(records: Records, endpoints: Sequence[str]) -> np.ndarray:
    """Position of each record's endpoint, -1 where DVID matches none."""
    if not records.has("DVID"):
        return np.zeros(len(records.frame), int)
    lookup: dict[Any, int] = {name: i for i, name in enumerate(endpoints)}
    lookup |= {i + 1: i for i in range(len(endpoints))} | {str(i + 1): i for i in range(len(endpoints))}
    missing = 0 if len(endpoints) == 1 else -1
    return np.array([missing if v is None else lookup.get(v, -1) for v in records.frame["DVID"]], int)


def _covariates(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    ids = records.frame["ID"].to_numpy()
    for name in needs.covariates:
        value = records.frame[name].to_numpy(float)
        missing = np.isnan(value)
        yield from where(np.isinf(value), "E115", f"covariate {name} is infinite.", "Correct the value.")
        everywhere = pd.Series(missing).groupby(ids, sort=False).transform("all").to_numpy()
        yield from where(
            everywhere,
            "E116",
            f"covariate {name} is missing on all records of {len(set(ids[everywhere]))} subject(s).",
            "Fill it in (for example by the median) or leave those subjects out.",
        )
        yield from where(
            missing & ~everywhere,
            "W205",
            f"covariate {name} is missing on some records; the subject's next value is used, or the last.",
            "Fill it in to choose otherwise.",
        )
        if name in needs.levels:
            strange = ~missing & ~np.isin(value, needs.levels[name])
            named = ", ".join(f"{v:g}" for v in needs.levels[name])
            yield from where(
                strange,
                "E117",
                f"covariate {name} has values that the model's Category does not name: {some(value[strange])}.",
                f"Named: {named}. Add the level or recode the data.",
            )
        if name in needs.positive:
            yield from where(
                value <= 0,
                "E135",
                f"covariate {name} must be above 0 for nm.Power, got {some(value[value <= 0])}.",
                "Correct the value; a missing one is `.`, empty or NA.",
            )


_CHECKS: tuple[Check, ...] = (_subjects, _times, _observations, _endpoints, _covariates, dose_findings)
