"""Checks of covariates and occasions: missing, infinite, of a level that the model does not know."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.data.findings import Finding, some, where
from nlmefit.data.needs import Needs
from nlmefit.data.records import Records
from nlmefit.declare.covariates import Level, level_name


def covariate_findings(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    """All findings about the columns that the model reads beyond the standard ones."""
    for name in needs.covariates:
        value = records.frame[name]
        yield from _missing(records, name, f"covariate {name}", "E116", "W205")
        if name not in needs.texts:
            yield from where(np.isinf(value.to_numpy(float)), "E115", f"covariate {name} is infinite.", "Correct the value.")
        if name in needs.levels:
            yield from _levels(name, value, needs.levels[name])
        if name in needs.positive:
            yield from where(
                value.to_numpy(float) <= 0,
                "E135",
                f"covariate {name} must be above 0 for nm.Power, got {some(value[value <= 0])}.",
                "Correct the value; a missing one is `.`, empty or NA.",
            )
    if observations:
        yield from _references(records, needs)
    if needs.occasion and needs.occasion not in needs.covariates:
        yield from _missing(records, needs.occasion, f"the occasion {needs.occasion}", "E143", "W211")


def _missing(records: Records, name: str, what: str, everywhere: str, somewhere: str) -> Iterator[Finding]:
    ids = records.frame["ID"].to_numpy()
    missing = records.frame[name].isna().to_numpy()
    throughout = pd.Series(missing).groupby(ids, sort=False).transform("all").to_numpy()
    yield from where(
        throughout,
        everywhere,
        f"{what} is missing on all records of {len(set(ids[throughout]))} subject(s).",
        "Fill it in (for example by the median) or leave those subjects out."
        if everywhere == "E116"
        else "Give every record its occasion.",
    )
    yield from where(
        missing & ~throughout,
        somewhere,
        f"{what} is missing on some records; the subject's next value is used, or the last.",
        "Fill it in to choose otherwise.",
    )


def _levels(name: str, value: pd.Series, levels: tuple[Level, ...]) -> Iterator[Finding]:
    strange = (value.notna() & ~value.isin(levels)).to_numpy(bool)
    named = ", ".join(map(level_name, levels)) if not any(isinstance(v, str) for v in levels) else ", ".join(map(str, levels))
    yield from where(
        strange,
        "E117",
        f"covariate {name} has values that the model's Category does not name: {some(value[strange])}.",
        f"Named: {named}. Add the level or recode the data.",
    )


def _references(records: Records, needs: Needs) -> Iterator[Finding]:
    """A reference that nobody has, where the levels are those of the data: most likely it is misspelt."""
    for name, reference in needs.references:
        held: list[Any] = [v for v in records.frame[name].unique() if v is not None and v == v]
        if reference not in held:
            yield Finding(
                "E144",
                f"no record has {name} {reference!r}, the reference of the model's Category; the data has {some(held)}.",
                f"Name one of them as the reference, or the levels: nm.Category({name!r}, reference=..., levels=[...]).",
            )


def held_levels(records: Records, needs: Needs) -> dict[str, tuple[Level, ...]]:
    """By column whose levels are those of the data: the reference, then what else there is, in order."""
    found: dict[str, tuple[Level, ...]] = {}
    for name, reference in needs.references:
        values = [v for v in records.frame[name].unique() if v is not None and v == v and v != reference]
        found[name] = (reference, *sorted(values))
    return found
