"""Attribute access to named values (`p.CL`, `A.central`, `x.WT`) with errors that help."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nlmefit.core.errors import ModelError, unknown
from nlmefit.declare.network import Network


class Namespace:
    """Read-only values by name.

    `what` names the kind of thing held ("compartment"), for the error when a name does not exist; `networks` are functions of
    values that it holds.
    """

    def __init__(self, values: Mapping[str, Any], what: str, networks: Mapping[str, Network] = MappingProxyType({})):
        self.__dict__.update(values)
        self.__dict__["_values"] = dict(values)
        self.__dict__["_what"] = what
        self.__dict__["_networks"] = networks

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._networks:
            return self._networks[name].bound(name, self.__getitem__)
        return self._missing(name)

    def _missing(self, name: str) -> Any:
        raise ModelError(unknown(self._what, name, self._values))

    def __setattr__(self, name: str, value: Any) -> None:
        raise ModelError(f"{self._what} `{name}` cannot be assigned: models are pure functions.")

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self):
        return iter(self._values)


Values = Mapping[str, Any] | Namespace
"""Values that are read by `values["name"]`."""


class Recorder(Namespace):
    """A namespace that also answers names it does not hold, and reports them to `record`.

    Used once, when a model class is defined, to find the covariates that its methods read.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        what: str,
        default: Any,
        record: Callable[[str, tuple[str, ...]], None],
        networks: Mapping[str, Network] = MappingProxyType({}),
    ):
        super().__init__(values, what, networks)
        self.__dict__["_default"] = default
        self.__dict__["_record"] = record

    def _missing(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._record(name, tuple(self._values))
        return self._default


class Watched(Namespace):
    """A namespace that notes in `read` which names of another are read."""

    def __init__(self, inside: Namespace, read: set[str]):
        super().__init__({}, inside._what, inside._networks)
        self.__dict__["_values"] = inside._values
        self.__dict__["_inside"] = inside
        self.__dict__["_read"] = read

    def _missing(self, name: str) -> Any:
        value = getattr(self._inside, name)
        self._read.add(name)
        return value

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def in_words(value: Any) -> str:
    """What a method returned, for a message: numbers that are not known yet have no other name."""
    if isinstance(value, Mapping):
        return f"one with the names {', '.join(map(repr, value))}"
    return "a number" if hasattr(value, "aval") else repr(value)
