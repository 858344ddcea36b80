"""Models and methods as plain content for an archive, and back: every value by the name of its class and of its fields.

    gen.MLP(64)   {"class": "MLP", "fields": {"width": 64, "depth": 2, "activation": "silu"}}

Arrays that are trained and constants stay apart. A file names classes, and holds none: the names are looked up among those of
this package, of equinox' layers, and of a model that the reader passes, never imported.
"""

import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nlmefit.core.errors import ModelError, NlmefitError
from nlmefit.core.gaussian import Gaussian
from nlmefit.core.networks import MLP, Activation
from nlmefit.estimate.status import Status

LAYERS = (eqx.nn.MLP, eqx.nn.Linear, eqx.nn.Conv2d, eqx.nn.Sequential, eqx.nn.Lambda)
"""Of equinox, that the package's networks are made of."""
FUNCTIONS = {name: getattr(jax.nn, name) for name in get_args(Activation)} | {
    "identity": inspect.signature(eqx.nn.MLP.__init__).parameters["final_activation"].default
}
Names = Mapping[str, Any]


def content(value: Any, where: str) -> Any:
    """A model, a method or a part of one as text, numbers, arrays, lists and dictionaries; `where` is its place, for errors.

    Raises ModelError for what is none of those, and for a class or a function of the user's named as one of this package.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, jax.Array):
        return {"weights": np.asarray(value)}
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if _is_value(type(value)):
        parts = {name: getattr(value, name) for name in _fields(type(value))}
        packed = {name: content(part, f"{where}.{name}") for name, part in parts.items()}
        return {"class": _checked(_name(type(value)), type(value), _classes()), "fields": packed}
    if type(value) is tuple:
        return [content(part, f"{where}[{k}]") for k, part in enumerate(value)]
    if _is_function(value):
        return {"function": _checked(_function_name(value), value, FUNCTIONS)}
    raise ModelError(f"{where} cannot be saved: {type(value).__name__} is no array, no number, and no module with fields.")


def restored(packed: Any, own: Names) -> Any:
    """What `content` was given; `own` are the user's classes and functions by name.

    Raises NlmefitError for names that are not known.
    """
    if isinstance(packed, list):
        return tuple(restored(part, own) for part in packed)
    if not isinstance(packed, dict):
        return packed
    if "weights" in packed:
        return jnp.asarray(packed["weights"])
    if "function" in packed:
        return _known(packed["function"], {**own, **FUNCTIONS})
    made = _known(packed["class"], {**own, **_classes()})
    return _made(made, {name: restored(part, own) for name, part in packed["fields"].items()})


def own_names(model: Any) -> dict[str, Any]:
    """The classes and functions that a model is made of, by the names that files have for them."""
    found: dict[str, Any] = {}
    for value in _walked(model):
        name, named = (_function_name(value), value) if _is_function(value) else (_name(type(value)), type(value))
        if found.setdefault(name, named) is not named:
            raise ModelError(f"the model holds two different things named {name}; give them names of their own.")
    return found


def _walked(value: Any) -> Iterator[Any]:
    """Values with fields and functions, in a model and its parts."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        for part in value:
            yield from _walked(part)
    elif _is_value(type(value)):
        yield value
        for name in _fields(type(value)):
            yield from _walked(getattr(value, name))
    elif _is_function(value):
        yield value


def _is_value(kind: type) -> bool:
    """Whether it is made of named fields."""
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _is_function(value: Any) -> bool:
    return callable(value) and hasattr(value, "__name__")


def _fields(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else kind._fields  # type: ignore[attr-defined]


def _name(kind: type) -> str:
    return f"equinox.{kind.__name__}" if kind in LAYERS else kind.__name__


def _function_name(function: Any) -> str:
    known = [name for name, f in FUNCTIONS.items() if f is function]
    return known[0] if known else str(function.__name__)


def _checked(name: str, named: Any, known: Names) -> str:
    if known.get(name, named) is not named:
        raise ModelError(
            f"the model holds a {name} which is not nlmefit's: give it a name of its own, or it would not come back."
        )
    return name


def _classes() -> dict[str, type]:
    """Those of this package and of equinox' layers, by name."""
    found: dict[str, type] = {_name(kind): kind for kind in (Gaussian, Status, MLP, *LAYERS)}
    for name in [name for name in sys.modules if name.startswith(f"{__package__}.")]:
        members = vars(sys.modules[name]).values()
        found |= {c.__name__: c for c in members if isinstance(c, type) and c.__module__ == name and dataclasses.is_dataclass(c)}
    return found


def _known(name: str, names: Names) -> Any:
    if name not in names:
        raise NlmefitError(
            f"the file holds a {name}, which this nlmefit does not know. If it is a class or a function of yours, pass the model "
            "that was fitted, untrained: nm.load(path, model=...); or else update nlmefit."
        )
    return names[name]


def _made(kind: type, fields: dict[str, Any]) -> Any:
    """A value with these fields; one that the file lacks has its default."""
    names = _fields(kind)
    added = [name for name in fields if name not in names]
    lacking = [name for name in names if name not in fields and not _has_default(kind, name)]
    if added or lacking:
        differences = [*(f"{name} only in the file" for name in added), *(f"{name} not in the file" for name in lacking)]
        raise NlmefitError(
            f"{kind.__name__} has other fields here than in the file ({', '.join(differences)}): load it with the versions of "
            "nlmefit and equinox that wrote it."
        )
    if not issubclass(kind, eqx.Module):
        return kind(**fields)
    # As JAX does when it puts a module together again: initialisers take sizes and keys, not fields.
    made = object.__new__(kind)
    for name, value in {**_defaults(kind), **fields}.items():
        object.__setattr__(made, name, value)
    return made


def _has_default(kind: type, name: str) -> bool:
    return name in _defaults(kind) or name in getattr(kind, "_field_defaults", {})


def _defaults(kind: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return {}
    given = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    made = {f.name: f.default_factory() for f in dataclasses.fields(kind) if f.default_factory is not dataclasses.MISSING}
    return given | made
