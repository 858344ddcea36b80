"""What a value is, as a key: equal only for values of the same content.

A compiled program is found again by the content of all that went into it: the code of the model's methods, the globals, closures
and defaults that they read, and constants to the last bit. `repr` will not do, which shortens arrays and shows the shapes of
networks; nor will names, under which a notebook puts new code.
"""

import dis
import functools
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, MethodWrapperType, ModuleType, WrapperDescriptorType
from typing import Any

import jax
import numpy as np

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range)
"""Types that their `repr` states in full."""


@dataclass(frozen=True)
class Content:
    """The content of a value, as a digest."""

    digest: bytes
    kept: tuple[Any, ...] = field(compare=False, repr=False, default=())
    """What could only be told by its identity, which must not be given to another object."""


def content(value: Any) -> Content:
    """The content of anything: numbers, arrays, containers, functions, classes, objects of any kind."""
    walk = _Walk()
    walk.read(value)
    return Content(walk.hash.digest(), tuple(walk.kept))


class _Walk:
    """One walk through a value; what is met again, also in a circle, is named by the place where it was met first."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=16)
        self.met: dict[int, tuple[int, Any]] = {}
        self.kept: list[Any] = []

    def say(self, *texts: str | bytes) -> None:
        for text in texts:
            data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            self.hash.update(b"%d:" % len(data) + data)

    def read(self, value: Any) -> None:
        if type(value) in PLAIN:
            self.say(repr(value))
        elif id(value) in self.met:
            self.say("again", str(self.met[id(value)][0]))
        else:
            self.met[id(value)] = len(self.met), value  # held, so that its id is nobody else's
            self.say(f"{type(value).__module__}.{type(value).__qualname__}")
            self._read_kind(value)

    def each(self, values: Iterable[Any]) -> None:
        for value in values:
            self.read(value)
        self.say("end")

    def named(self, values: Mapping[Any, Any]) -> None:
        for name in sorted(values, key=str):
            self.read(name)
            self.read(values[name])
        self.say("end")

    def _read_kind(self, value: Any) -> None:
        match value:
            case Content():
                self.say(value.digest)
            case FunctionType():
                self._function(value)
            case MethodType():
                self.each([value.__func__, value.__self__])
            case staticmethod() | classmethod():
                self.read(value.__func__)
            case property():
                self.each([value.fget, value.fset])
            case functools.partial():
                self.each([value.func, value.args, value.keywords])
            case ModuleType():
                self.say(value.__name__)
            case BuiltinFunctionType() | WrapperDescriptorType() | MethodWrapperType():
                self.say(value.__qualname__)
                self.read(getattr(value, "__self__", None))
            case type():
                self._class(value)
            case tuple() | list():
                self.each(value)
            case set() | frozenset():
                self.say(*sorted(content(member).digest for member in value))
            case dict():
                self.each([*value])  # their order can matter: compartments are numbered by it
                self.each(value.values())
            case _ if hasattr(value, "__array__"):
                self._array(value)
            case _ if hasattr(value, "tree_flatten"):  # NumPyro's distributions, whose attributes fill as they are used
                self.read(value.tree_flatten())
            case _ if isinstance(getattr(value, "__wrapped__", None), FunctionType):
                self.read(value.__wrapped__)
            case _:
                self._object(value)

    def _array(self, value: Any) -> None:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        for labels in ("columns", "index"):  # of a table
            self.read(getattr(value, labels, None) if type(value).__module__.startswith("pandas") else None)
        array = np.asarray(value)
        self.say(str(array.dtype), str(array.shape))
        if array.dtype == object:
            self.each(array.ravel().tolist())
        else:
            self.say(array.tobytes())

    def _function(self, function: Any) -> None:
        code = function.__code__
        self.say(_written(code))
        self.each([function.__defaults__, function.__kwdefaults__])
        self.read({name: value for name, value in sorted(vars(function).items()) if name != "__wrapped__"})
        for cell in function.__closure__ or ():
            try:
                self.read(cell.cell_contents)
            except ValueError:  # not filled yet
                self.say("empty")
        if is_settled(function.__globals__.get("__name__", "")):
            return
        seen, imported, names = _reads(code)
        for name in seen:
            if name in function.__globals__:
                self.say(name)
                self._global(function.__globals__[name], names)
        for name in imported:
            self._global(sys.modules.get(name), names)
        self.say("end")

    def _global(self, value: Any, names: tuple[str, ...]) -> None:
        """A global; of a module of the user's those of its contents whose names are read."""
        if not isinstance(value, ModuleType) or is_settled(value.__name__) or id(value) in self.met:
            self.read(value)
            return
        self.read(value)
        for name in names:
            if name in vars(value):
                self.say(name)
                self._global(vars(value)[name], names)

    def _class(self, cls: type) -> None:
        self.say(f"{cls.__module__}.{cls.__qualname__}")
        for base in cls.__mro__:
            if not is_settled(base.__module__):
                self.named(body(base))

    def _object(self, value: Any) -> None:
        attributes = _attributes(value)
        self.read(type(value))
        if attributes is not None and not _of_python_itself(type(value)):
            self.named(attributes)
            return
        try:
            self.say(pickle.dumps(value))
        except Exception:  # whatever a foreign class raises: it is told by its identity
            self.kept.append(value)
            self.say(str(id(value)))


def body(cls: type) -> dict[str, Any]:
    """What stands in a class's body, without what Python itself puts there."""
    return {k: v for k, v in vars(cls).items() if not _of_python(k) or isinstance(v, FunctionType)}


@functools.lru_cache(maxsize=4096)
def _written(code: CodeType) -> bytes:
    """The content of compiled code, wherever it stands."""
    walk = _Walk()
    walk.say(code.co_code, code.co_exceptiontable, str((code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount)))
    walk.each([code.co_flags, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars])
    for constant in code.co_consts:
        walk.say(_written(constant)) if isinstance(constant, CodeType) else walk.read(constant)
    return walk.hash.digest()


@functools.lru_cache(maxsize=4096)
def _reads(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the globals that code reads, of the modules that it imports, and all names in it, functions inside included."""
    steps = [*dis.get_instructions(code)]
    seen = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    imported = {step.argval for step in steps if step.opname == "IMPORT_NAME"}
    names = {*code.co_names}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _reads(constant)
            seen, imported, names = seen | {*inner[0]}, imported | {*inner[1]}, names | {*inner[2]}
    return tuple(sorted(seen)), tuple(sorted(imported)), tuple(sorted(names))


@functools.lru_cache(maxsize=1024)
def is_settled(module: str) -> bool:
    """Whether a module is installed, so that its code stays as it is while the process runs."""
    top = module.partition(".")[0]
    if top == "__main__":  # whoever started it
        return False
    if top == __name__.partition(".")[0] or top in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(top), "__file__", None)
    return path is not None and any(Path(path).is_relative_to(folder) for folder in _installed())


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return paths["purelib"], paths["platlib"]


def _attributes(value: Any) -> dict[str, Any] | None:
    """What an object holds, in `__dict__` or in slots; None for those made of neither."""
    slots = [name for base in type(value).__mro__ for name in _names(vars(base).get("__slots__", ()))]
    found = {name: getattr(value, name) for name in slots if not _of_python(name) and hasattr(value, name)}
    return {**found, **vars(value)} if hasattr(value, "__dict__") else found or None


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _of_python(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") or name == "_abc_impl"


def _of_python_itself(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in sys.stdlib_module_names and cls.__module__ not in ("__main__", "types")
