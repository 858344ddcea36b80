"""Checks of what must hold before anything else: the columns, text among numbers, and whose record each is."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from nlmefit.core.errors import nearest
from nlmefit.data.findings import Finding, some, where
from nlmefit.data.needs import Needs
from nlmefit.data.records import Records, Text

_CENSORED = ("<", ">", "≤", "≥", "BLQ", "BQL", "BLOQ", "LLOQ", "LLQ", "BLD", "ND", "ALQ", "ULOQ")
_COMMENTS = ("#", "@", ";", "C ")
OTHER_NAMES = "nm.Subjects.from_frame(df, model, columns={{{yours!r}: {name!r}}})"


def column_findings(records: Records, needs: Needs, observations: bool) -> Iterator[Finding]:
    """All findings about columns, text and missing IDs. `observations` False: DV is not needed."""
    yield from _standard(records, observations)
    yield from _of_model(records, needs)
    if len(records.frame) == 0:
        yield Finding("E103", "the data has no rows.", "Check the file or the filter that made it.")
        return
    yield from _comments(records)
    for text in records.text:
        if observations or text.name != "DV":
            yield _text(records, needs, text)
    yield from records.dates
    if records.has("ID"):
        missing = records.frame["ID"].isna().to_numpy()
        yield from where(missing, "E105", "ID is missing.", "Give every record the ID of its subject.")
        yield from _mixed_ids(records)
        yield from _spaced_ids(records)


def _standard(records: Records, observations: bool) -> Iterator[Finding]:
    given = ", ".join(map(_shown, records.given)) or "no columns"
    for name in ["ID", "TIME"] + (["DV"] if observations else []):
        if records.has(name):
            continue
        close = records.like(name)
        hint = f" Did you mean {close!r}?" if close else ""
        fix = f"Add it, or name yours: {OTHER_NAMES.format(yours=close or 'YOURS', name=name)}."
        if name in (index.upper() for index in records.index):
            hint, fix = f" Its index is called {name}.", "Make that a column: df.reset_index()."
        yield Finding("E101", f"there is no column {name}; the data has {given}.{hint}", fix)


def _shown(name: str) -> str:
    """A column's name; in quotes where what cannot be seen is part of it."""
    return name if name == name.strip() and name.isprintable() else repr(name)


def _of_model(records: Records, needs: Needs) -> Iterator[Finding]:
    given = ", ".join(records.given)
    for name in needs.covariates:
        if not records.has(name):
            close = nearest(name, records.given)
            hint = f" Did you mean `{close}`?" if close else ""
            yield Finding(
                "E102",
                f"the model reads `{name}`, which is neither one of its parameters nor a column of the data ({given}).{hint}",
                f"Add the column, name yours ({OTHER_NAMES.format(yours=close or 'YOURS', name=name)}), or correct the name in "
                "the model.",
            )
    if needs.occasion and needs.occasion not in needs.covariates and not records.has(needs.occasion):
        close = nearest(needs.occasion, records.given)
        hint = f" Did you mean `{close}`?" if close else ""
        yield Finding(
            "E139",
            f"the model's occasions stand in a column `{needs.occasion}`, which the data lacks ({given}).{hint}",
            f'Add the column, correct occasion = "{needs.occasion}" in the model, or leave iov= out.',
        )


def _comments(records: Records) -> Iterator[Finding]:
    """Rows that NONMEM would ignore (IGNORE=C, IGNORE=@): comments, and the head of the table once more."""
    if not records.has("ID"):
        return
    ids = records.frame["ID"]
    head = str(records.source["ID"])
    marked = np.array([isinstance(v, str) and (v.strip() in ("C", head) or v.lstrip().startswith(_COMMENTS)) for v in ids])
    if marked.any() and not marked.all():
        first = ids[marked].iloc[0]
        yield from where(
            marked,
            "E140",
            f"ID is {first!r}: that looks like a comment or a second head of the table, not like a subject.",
            "NONMEM leaves such rows out (IGNORE); leave them out too, for example by pandas.read_csv(file, comment='#') or "
            f"df = df[df[{head!r}] != {first!r}].apply(pandas.to_numeric).",
        )


def _text(records: Records, needs: Needs, text: Text) -> Finding:
    source = str(records.source.get(text.name, text.name))
    column = text.name if source == text.name else f"{source} ({text.name})"
    return Finding(
        "E104", f"column {column} holds text where a number belongs, first {text.first!r}.", _remedy(needs, text), text.rows
    )


def _remedy(needs: Needs, text: Text) -> str:
    first = text.first.strip().upper()
    if text.name == "DV" and first.startswith(_CENSORED):
        above = first.startswith((">", "≥", "ALQ", "ULOQ"))
        return (
            f"An observation {'above' if above else 'below'} a limit of quantification has CENS {-1 if above else 1} and that "
            f"limit ({'ULOQ' if above else 'LLOQ'}) in DV; LIMIT holds the other end, if there is one."
        )
    if text.name == "TIME" or text.name.startswith(("DATE", "DAT1", "DAT2", "DAT3")):
        return "Times are numbers, dates (2024-01-31 08:30) or times of day (08:30) with the dates in a column DATE."
    if text.name == "CMT":
        return f"Compartments: {', '.join(f'{i} = {name}' for i, name in enumerate(needs.compartments, 1)) or 'none'}."
    if text.name in needs.covariates:
        return (
            f'Text is taken where the model gives it a meaning, nm.Category("{text.name}", reference="{text.first.strip()}"); '
            "else recode it as a number. `.`, empty and NA mean missing."
        )
    return "Recode it as a number; `.`, empty and NA mean missing."


def _mixed_ids(records: Records) -> Iterator[Finding]:
    ids = records.frame["ID"]
    texts = {v.strip() for v in ids if isinstance(v, str)}
    both = np.array([v is not None and not isinstance(v, str) and str(v) in texts for v in ids])
    yield from where(
        both,
        "E141",
        f"ID holds both numbers and the same as text: {some(ids[both])}.",
        "Make them one kind: df['ID'] = df['ID'].astype(str), or pandas.read_csv(file, dtype={'ID': str}).",
    )


def _spaced_ids(records: Records) -> Iterator[Finding]:
    """Labels that look alike; results carry them as they are, so that they are not made one here."""
    ids = records.frame["ID"]
    labels = pd.Series([v for v in ids.unique() if isinstance(v, str)], dtype=object)
    alike = labels[labels.str.strip().duplicated(keep=False)] if len(labels) else labels
    yield from where(
        ids.isin(alike).to_numpy(bool),
        "W220",
        f"ID has labels that differ by white space only ({', '.join(map(repr, alike[:5]))}): they are different subjects.",
        f"If they are not: df[{records.source['ID']!r}] = df[{records.source['ID']!r}].str.strip().",
    )
