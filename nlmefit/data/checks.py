"""Checks of a data set against what a model needs: columns, subjects, times, observations, covariates, doses."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from nlmefit.data.censoring import Blq, censoring_findings
from nlmefit.data.column_checks import column_findings
from nlmefit.data.covariate_checks import covariate_findings
from nlmefit.data.dose_checks import dose_findings
from nlmefit.data.findings import Finding, some, where
from nlmefit.data.needs import Needs
from nlmefit.data.observation_checks import observation_findings
from nlmefit.data.records import Records, event_types

Check = Callable[[Records, Needs, bool], Iterator[Finding]]


def findings(records: Records, needs: Needs, blq: Blq = "M3", *, observations: bool = True) -> list[Finding]:
    """All findings, errors first. `observations` False: the data is for prediction, DV is not needed."""
    structural = list(column_findings(records, needs, observations))
    if any(f.severity == "error" for f in structural):
        return structural
    found = structural + [f for check in _CHECKS for f in check(records, needs, observations)]
    if observations:
        found += censoring_findings(records, event_types(records), blq)
    ids = records.frame["ID"]
    placed = [replace(f, subject=ids.iloc[f.rows[0]]) if f.rows and f.subject is None else f for f in found]
    return sorted(placed, key=lambda f: f.severity != "error")


def is_design(records: Records) -> bool:
    """Whether the data has no DV at all: doses and times to predict or simulate at."""
    return not any(text.name == "DV" for text in records.text) and (
        not records.has("DV") or bool(records.frame["DV"].isna().all())
    )


def design_findings(records: Records) -> Iterator[Finding]:
    """What a data set without DV is good for."""
    if len(records.frame):
        close = None if records.has("DV") else records.like("DV")
        hint = f" Did you mean {close!r}?" if close else ""
        yield Finding(
            "W212",
            f"there is no DV: the data can be predicted and simulated, not fitted.{hint}",
            f"To fit them add it, or name yours: nm.Subjects.from_frame(df, model, columns={{{close or 'YOURS'!r}: 'DV'}}).",
        )


def _subjects(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    codes, ids = pd.factorize(records.frame["ID"])
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    returning = starts[pd.Series(codes[starts]).duplicated().to_numpy()]
    if len(returning):
        who = ids[codes[returning[0]]]
        yield Finding(
            "E106",
            f"subject {who} comes back after other subjects.",
            "If the later records are another subject's (of a second study, say), give that one an ID of its own, for example "
            "df['ID'] = (df['ID'] != df['ID'].shift()).cumsum(); if they are the same one's, put its records together in the "
            "order of time.",
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
        days = " Times of day after midnight need a column DATE." if "one day" in records.clock else ""
        yield from where(
            back,
            "E109",
            f"TIME goes back within a subject, first from {time[i - 1]:g} to {time[i]:g}.",
            "Put the subject's records in the order of time; if another subject begins there, give it an ID of its own; only "
            f"EVID 3 and 4 may restart the clock.{days}",
        )
    yield from where(
        time < 0,
        "W201",
        f"TIME is negative ({some(time[time < 0])}).",
        "Leave it if it is meant; before the first dose all amounts are 0.",
    )


_CHECKS: tuple[Check, ...] = (_subjects, _times, observation_findings, covariate_findings, dose_findings)
