"""Error types and nearest-name hints.

Every error says what is wrong with its value and place, what exists, and what to do.
"""

import difflib
from collections.abc import Iterable


class NlmefitError(Exception):
    """Base of every error that nlmefit raises on purpose."""


class ModelError(NlmefitError):
    """The model's declaration is wrong: a name, a value, or a combination that cannot be honoured."""


class DataError(NlmefitError):
    """The data cannot be used as they are; the message lists the findings with rows and remedies."""


class ProcessError(NlmefitError):
    """This process cannot compute: it was forked from one in which JAX's threads were running."""


class MethodError(NlmefitError):
    """The method cannot be used with this model, or one of its options is out of range."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    known = list(known)
    for candidate in known:
        if candidate.lower() == name.lower():
            return candidate
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return close[0] if close else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """'compartment `centrl` does not exist; did you mean `central`? Known: depot, central.'"""
    known = list(known)
    match = nearest(name, known)
    hint = f"; did you mean `{match}`?" if match else "."
    listing = ", ".join(known) if known else "none"
    return f"{what} `{name}` does not exist{hint} Known: {listing}."
