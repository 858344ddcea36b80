"""Checks of what a structural model is made with."""

from collections.abc import Sequence

from nlmefit.core.errors import ModelError


def check_one_of(owner: object, argument: str, value: object, known: Sequence[object]) -> None:
    """ModelError unless `value` is one of those `known`."""
    if not any(type(value) is type(choice) and value == choice for choice in known):
        *others, last = (repr(choice) for choice in known)
        raise ModelError(f"{type(owner).__name__}: {argument} must be {', '.join(others)} or {last}, got {value!r}.")


def check_flag(owner: object, argument: str, value: object) -> None:
    """ModelError unless `value` is True or False."""
    check_one_of(owner, argument, value, (True, False))
