"""Checks of the observations: missing, infinite, twice, of which endpoint, and in which compartment."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.data.findings import Finding, some, where
from nlmefit.data.needs import Needs
from nlmefit.data.records import Records, event_types, observation_rows


def observation_findings(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    """All findings about observations; where they are not needed, only about the compartments that records name."""
    yield from _compartments(records, needs)
    if observations:
        yield from _values(records)
        yield from _endpoints(records, needs)


def _values(records: Records) -> Iterator[Finding]:
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
        (evid == 0) & (mdv != 1) & np.isnan(value) & (records.column("CENS", 0.0) == 0),
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
    twice = repeated(records, counted, ("DVID",))
    yield from where(twice, "W204", "two observations of the same endpoint at the same time.", "Both are used, as replicates.")


def repeated(records: Records, among: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """Which of the records `among` say the same as an earlier one of their subject's, in TIME and those columns."""
    names = [name for name in ("ID", "TIME", *columns) if records.has(name)]
    result = np.zeros(len(records.frame), bool)
    result[among] = records.frame.loc[among, names].astype(str).duplicated().to_numpy()
    return result


def _endpoints(records: Records, needs: Needs) -> Iterator[Finding]:
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
    lookup: dict[Any, int] = {i + 1: i for i in range(len(endpoints))} | {name: i for i, name in enumerate(endpoints)}
    missing = 0 if len(endpoints) == 1 else -1

    def place(label: Any) -> int:
        if label is None:
            return missing
        number = label if label in lookup else pd.to_numeric(label, errors="coerce")
        return lookup.get(number, -1)

    places = {label: place(label) for label in records.frame["DVID"].unique()}
    return np.array([places[label] for label in records.frame["DVID"]], int)


def _compartments(records: Records, needs: Needs) -> Iterator[Finding]:
    """CMT on records that are no doses: NONMEM switches a compartment off by its negative number."""
    evid, compartment = event_types(records), records.column("CMT", 1.0)
    other = ~np.isin(evid, (1, 4))
    off = other & (compartment < 0)
    yield from where(
        off,
        "E142",
        f"CMT is {some(compartment[off])} on a record that is no dose: in NONMEM that switches the compartment off, which "
        "nlmefit does not.",
        "Leave CMT empty where the record is a plain observation. EVID 3 and 4 empty all compartments; an amount collected since "
        "the last record is a difference of two amounts in a compartment of its own.",
    )
    if needs.compartments:
        strange = other & (compartment >= 0) & ~np.isin(compartment, np.arange(len(needs.compartments) + 1))
        yield from where(
            strange,
            "W210",
            f"CMT is {some(compartment[strange])} on records that are no doses, and the model has no such compartment; it is not "
            "used there.",
            f"What an observation is of follows from DVID: {', '.join(f'{i} = {n}' for i, n in enumerate(needs.endpoints, 1))}.",
        )
