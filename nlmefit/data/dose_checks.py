"""Checks of the dose records: what is impossible in them, or not answered by the model."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from nlmefit.data.column_checks import OTHER_NAMES
from nlmefit.data.doses import MOST_DOSES, MOST_OVERLAP, overlap, repeats, segments
from nlmefit.data.findings import Finding, some, where
from nlmefit.data.needs import Needs
from nlmefit.data.observation_checks import repeated
from nlmefit.data.records import Records, event_types

_FIELDS = {"AMT": 0.0, "RATE": 0.0, "DUR": 0.0, "II": 0.0, "ADDL": 0.0, "SS": 0.0, "CMT": 1.0}
_DOSES = ("DOSE", "DOSES", "AMOUNT")
"""Names that other programs give to AMT."""


def dose_findings(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    """All findings about EVID and the columns of doses."""
    evid = event_types(records)
    fields = {name: records.column(name, default) for name, default in _FIELDS.items()}
    amount = records.frame["AMT"] if records.has("AMT") else pd.Series(np.nan, records.frame.index)
    fields["AMT missing"] = amount.isna().to_numpy(float)
    yield from where(
        ~np.isin(evid, (0, 1, 2, 3, 4)), "E118", f"EVID must be 0, 1, 2, 3 or 4, got {some(_strange(evid))}.", "Correct it."
    )
    for name, value in fields.items():
        yield from where(np.isinf(value), "E133", f"{name} is infinite.", "Correct the value.")
    dose = np.isin(evid, (1, 4))
    yield from _amounts(dose, fields)
    yield from _infusions(dose, fields)
    yield from _repeats(dose, fields)
    yield from _too_many(records, evid, dose)
    yield from _compartments(records, dose, fields, needs)
    yield from _modelled(dose, fields, needs)
    yield from _unused(records, evid, fields)
    yield from where(
        repeated(records, dose, tuple(_FIELDS)),
        "W215",
        "two equal doses at the same time.",
        "Both are given; drop the one that is a copy.",
    )


def _unused(records: Records, evid: np.ndarray, fields: dict[str, np.ndarray]) -> Iterator[Finding]:
    """What records say that has no meaning there: DV on doses and resets, properties of doses elsewhere."""
    if records.has("DV"):
        value = records.column("DV", 0.0)
        for kinds, words in (((1, 4), "dose records"), ((2, 3), "records with EVID 2 or 3")):
            kept = np.isin(evid, kinds) & (value != 0) & (records.column("MDV", 0.0) != 1)
            yield from where(
                kept,
                "W208",
                f"DV is given on {words} ({some(value[kept])}) and is not used there.",
                "Give each observation a record of its own if it counts (EVID 0, AMT 0), or set MDV to 1.",
            )
    no_dose = np.isin(evid, (0, 2, 3))
    given = {name: no_dose & (fields[name] != 0) for name in ("RATE", "DUR", "II", "ADDL", "SS")}
    named = ", ".join(name for name, rows in given.items() if rows.any())
    yield from where(
        np.any(list(given.values()), axis=0),
        "W216",
        f"{named} given on records that are no doses (EVID 0, 2 or 3): no effect there.",
        "They belong on the dose's own record; set them to 0 elsewhere.",
    )
    once = np.isin(evid, (1, 4)) & (fields["II"] != 0) & (fields["ADDL"] == 0) & (fields["SS"] == 0)
    yield from where(
        once,
        "W217",
        "II is given on a dose without ADDL or SS: it is given once.",
        "Give the number of additional doses in ADDL (or SS 1) if it is repeated, else set II to 0.",
    )


def _strange(evid: np.ndarray) -> np.ndarray:
    return evid[~np.isin(evid, (0, 1, 2, 3, 4))]


def _amounts(dose: np.ndarray, fields: dict[str, np.ndarray]) -> Iterator[Finding]:
    amount = fields["AMT"]
    missing, infused = fields["AMT missing"] > 0, (fields["RATE"] > 0) & (fields["SS"] < 1)
    yield from where(
        dose & (amount < 0), "E119", f"a dose has a negative amount: {some(amount[dose & (amount < 0)])}.", "Correct AMT."
    )
    endless = (fields["SS"] >= 1) & (fields["RATE"] > 0)
    yield from where(
        dose & (amount == 0) & (missing & ~endless | infused),
        "E120",
        "a dose record (EVID 1 or 4) has no amount.",
        "Give AMT (0 for a placebo), or EVID 0 (observation) or 2 (other).",
    )
    yield from where(
        dose & (amount == 0) & ~missing & ~infused & ~endless,
        "W218",
        "a dose record (EVID 1 or 4) has the amount 0.",
        "Leave it if it is a placebo; else correct AMT.",
    )
    yield from where(
        ~dose & (amount != 0),
        "E121",
        "AMT is given on a record that is not a dose (EVID 0, 2 or 3).",
        "Set EVID to 1, or AMT to 0.",
    )


def _infusions(dose: np.ndarray, fields: dict[str, np.ndarray]) -> Iterator[Finding]:
    rate, duration = fields["RATE"], fields["DUR"]
    strange = dose & (rate < 0) & ~np.isin(rate, (-1, -2))
    yield from where(
        strange,
        "E122",
        f"RATE is negative ({some(rate[strange])}); only -1 (modelled rate) and -2 (modelled duration) have a meaning.",
        "Correct RATE.",
    )
    yield from where(dose & (rate != 0) & (duration > 0), "E125", "both RATE and DUR are given.", "Give one of them.")
    yield from where(dose & (duration < 0), "E126", f"DUR is negative: {some(duration[dose & (duration < 0)])}.", "Correct DUR.")


def _repeats(dose: np.ndarray, fields: dict[str, np.ndarray]) -> Iterator[Finding]:
    additional, interval, steady = fields["ADDL"], fields["II"], fields["SS"]
    partial = dose & np.isfinite(additional) & ((additional < 0) | (additional != np.round(additional)))
    yield from where(
        dose & (additional > 0) & (interval <= 0),
        "E127",
        "ADDL asks for additional doses without an interval.",
        "Give II, above 0.",
    )
    yield from where(
        partial,
        "E128",
        f"ADDL must be a whole number from 0 up, got {some(additional[partial])}.",
        "Give the number of additional doses.",
    )
    yield from where(
        dose & ~np.isin(steady, (0, 1, 2)),
        "E129",
        f"SS must be 0, 1 or 2, got {some(steady[~np.isin(steady, (0, 1, 2))])}.",
        "Correct it.",
    )
    yield from where(
        dose & (steady >= 1) & (interval <= 0) & (fields["AMT"] > 0),
        "E130",
        "SS asks for steady state without an interval.",
        "Give II, above 0.",
    )


def _too_many(records: Records, evid: np.ndarray, dose: np.ndarray) -> Iterator[Finding]:
    """Doses and running infusions in such numbers that they stand for a constant input."""
    codes = pd.factorize(records.frame["ID"])[0]
    made = repeats(records, codes, segments(records, evid, codes))
    yield from where(
        dose & (made > MOST_DOSES),
        "E147",
        f"ADDL makes {made.max()} doses up to the subject's last record; at most {MOST_DOSES} are followed.",
        "Begin at steady state (SS 1 and II) at a later record, with ADDL for the doses since.",
    )
    running = dose & (overlap(records) > MOST_OVERLAP)
    yield from where(
        running,
        "E148",
        f"an infusion at steady state lasts for more than {MOST_OVERLAP} intervals II, so that as many run at once.",
        "That is close to one infusion without end: AMT 0, SS 1 and RATE = AMT / II. Or correct RATE, DUR or II.",
    )


def _compartments(records: Records, dose: np.ndarray, fields: dict[str, np.ndarray], needs: Needs) -> Iterator[Finding]:
    if not needs.compartments:
        yield from where(
            dose,
            "W206",
            "the model has no compartments; doses have no effect on its predictions.",
            "Give the model `dynamics` if they should.",
        )
        return
    if not dose.any():
        yours = next((name for name in records.given if name.upper() in _DOSES), "YOURS")
        absent = f"There is no column AMT: add it, or name yours: {OTHER_NAMES.format(yours=yours, name='AMT')}."
        fix = "Check AMT and EVID." if records.has("AMT") else absent
        yield Finding("W207", "the model has compartments and the data no dose; all amounts are 0.", fix)
    numbers = np.arange(len(needs.compartments) + 1)  # 0 is the default compartment
    unknown = dose & ~np.isin(fields["CMT"], numbers)
    yield from where(
        unknown,
        "E132",
        f"a dose goes to compartment {some(fields['CMT'][unknown])}, which the model does not have.",
        f"Compartments: {', '.join(f'{i} = {name}' for i, name in enumerate(needs.compartments, 1))}.",
    )


def _modelled(dose: np.ndarray, fields: dict[str, np.ndarray], needs: Needs) -> Iterator[Finding]:
    """RATE -1 and -2 into a compartment for which the model gives no rate or duration."""
    for sign, field, code in ((-1, "rate", "E123"), (-2, "duration", "E124")):
        for number, name in enumerate(needs.compartments, 1):
            here = dose & (fields["RATE"] == sign) & (np.maximum(fields["CMT"], 1) == number)
            if (name, field) not in needs.modelled:
                yield from where(
                    here,
                    code,
                    f"RATE {sign} asks for a modelled {field} into `{name}`, and the model gives none.",
                    f'Return {{"{name}": nm.Dosing({field}=...)}} from `dosing`, or give RATE or DUR.',
                )
