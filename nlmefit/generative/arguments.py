"""Arguments of the wrong kind, refused as the fields of a model or a method declare them."""

import types
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jax
import numpy as np

from nlmefit.core.errors import MethodError, NlmefitError
from nlmefit.core.options import brief, is_number


def check_kinds(made: Any, error: type[NlmefitError] = MethodError) -> None:
    """An error of that type where a field declared as truth, number, word, network, solver ... holds something else.

    Whole numbers, arrays, functions and what is declared `Any` are left to the checks of the class, as ranges are.
    """
    kind = type(made)
    for name, (what, suits) in _declared(kind).items():  # type: ignore[arg-type]
        value = getattr(made, name)
        if not any(suit(value) for suit in suits):
            raise error(f"{kind.__name__}({name}=...) must be {what}, got {brief(value)}.")


@cache
def _declared(kind: type) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """By field that can be checked: what it must be, in words, and the tests of which one must hold."""
    hints, found = get_type_hints(kind), {}
    for field in fields(kind):
        hint = hints[field.name]
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        tests = [_test(option) for option in options]
        if all(tests):
            words, suits = zip(*tests, strict=True)  # type: ignore[arg-type]
            found[field.name] = (" or ".join(words), suits)
    return found


def _test(hint: Any) -> tuple[str, Any] | None:
    """What a value of that type is called, and whether one is; None where that cannot be told."""
    if hint is type(None):
        return "None", lambda value: value is None
    if hint is bool:
        return "True or False", lambda value: isinstance(value, bool | np.bool)
    if hint is float:
        return "a number", lambda value: is_number(value) or (isinstance(value, jax.Array) and value.ndim == 0)
    if get_origin(hint) is Literal:
        words = get_args(hint)
        return "one of " + ", ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words
    if isinstance(hint, type) and hint.__module__.startswith("nlmefit."):
        return _called(hint), lambda value: isinstance(value, hint)
    return None


def _called(kind: type) -> str:
    """A class as users know it; of an abstract one, the ones that there are."""
    from nlmefit import generative

    public = [name for name in dir(generative) if isinstance(getattr(generative, name), type)]
    able = [name for name in public if issubclass(getattr(generative, name), kind)]
    return " or ".join(f"gen.{name}(...)" for name in able) or kind.__name__.removeprefix("Abstract")
