"""A model's methods run once on abstract numbers, when its class is defined: every name checked, what they read learnt."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from nlmefit.core.backend import check_process
from nlmefit.core.errors import ModelError, nearest, unknown
from nlmefit.declare.declared import DeclaredModel, Reads
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.namespace import Namespace, Recorder, Watched
from nlmefit.declare.specification import Specification, check_distinct
from nlmefit.declare.written import Written, check_compartments, written_derivatives


def dry_run(model: DeclaredModel) -> Reads:
    """Run the model's methods once on abstract numbers: check every name, learn what they read, and complete
    `model.specification` by the compartments of dynamics written as a method."""
    check_process()
    found = _DryRun(model)
    _on_abstract_numbers(type(model), found.run)
    return found.reads()


def _on_abstract_numbers(cls: type, run: Callable[[Any], None]) -> None:
    """ModelError in the modeller's words for whatever goes wrong."""
    try:
        jax.eval_shape(run, jax.ShapeDtypeStruct((), jnp.float64))
    except jax.errors.TracerBoolConversionError as error:
        raise ModelError(
            f"{cls.__name__}: a method decides with Python's `if`, `and` or `or` on a value that is not known "
            "yet; use jnp.where(condition, a, b), `&` and `|`."
        ) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ModelError(
            f"{cls.__name__}: a method passes a value that is not known yet to NumPy, `math`, `float` or `int`; use jax.numpy "
            "(jnp.exp, jnp.log, ...)."
        ) from error
    except ModelError as error:  # without what JAX adds to it
        raise ModelError(str(error)) from None
    except Exception as error:  # whatever the modeller's code raises; its place is in the error that this one comes from
        words = re.sub(r"'?\w*(Tracer|ShapedArray)\w*'?( object)?", "a number", str(error))
        raise ModelError(f"{cls.__name__}: a method fails: {type(error).__name__}: {words.splitlines()[0]}") from error


class _DryRun:
    """One run of a model's methods, and what it has seen of them."""

    def __init__(self, model: DeclaredModel):
        self.model, self.cls = model, type(model)
        self.covariates: dict[str, None] = dict.fromkeys(model.specification.effect_columns)
        self.entering: set[str] = set()
        """Parameters and covariates that the dynamics read."""
        self.routed: list[str] = []
        self.initial: list[str] = []
        self.dosing: set[tuple[str, str]] = set()
        self.amounts: set[str] = set()
        self.seen: dict[str, Any] = {}
        self.wrong: list[str] = []
        """What is wrong only once data are there: it is said then."""

    def run(self, number: Any) -> None:
        model, spec = self.model, self.model.specification
        theta = dict.fromkeys(model.population(), number)
        x = Recorder({}, "covariate", number, self._covariate)
        p = model.parameters_of(theta, dict.fromkeys(spec.effects, number), x)
        for name, value in p.items():
            _check_scalar(self.cls, "individual", name, value)
        reader = Recorder(p, "parameter or covariate", number, self._column, spec.networks)
        watched = Watched(reader, self.entering)
        if hasattr(self.cls, "dynamics") and spec.dynamics is None:
            _complete(model, number, watched)
        _check_needs(self.cls, model.specification, p)
        A = dict.fromkeys(model.specification.compartments, number)
        self._dynamics(number, A, watched)
        self._doses(reader)
        self.seen = dict(model.predictions(number, Watched(Namespace(A, "compartment"), self.amounts), reader))
        for name, value in self.seen.items():
            self._when_bound(_check_output, self.cls, name, value)

    def reads(self) -> Reads:
        """ModelError unless one output at least can be observed; the others are predictions only."""
        spec, outputs = self.model.specification, tuple(self.seen)
        distributions = tuple(name for name, value in self.seen.items() if hasattr(value, "log_prob"))
        endpoints = tuple(name for name in outputs if name in distributions or name in spec.residuals)
        _check_endpoints(self.cls, spec, outputs, endpoints, distributions)
        return Reads(
            outputs,
            endpoints,
            tuple(self.covariates),
            distributions,
            any(getattr(value, "event_shape", ()) for value in self.seen.values()),
            tuple(name for name in spec.compartments if name in self.amounts),
            frozenset(self.dosing),
            tuple(sorted(self.entering)),
            tuple(self.routed),
            bool(self.initial),
            tuple(self.wrong),
        )

    def _dynamics(self, number: Any, A: Mapping[str, Any], p: Namespace) -> None:
        dynamics = self.model.specification.dynamics
        if dynamics is None:
            return
        for name, value in dynamics.derivatives(number, A, p).items():
            _check_scalar(self.cls, "dynamics", name, value)
        self.routed = [n for n, routes in dynamics.routes(p).items() for route in routes if route.duration is not None]
        self.initial = _initial(self.model, p)

    def _doses(self, p: Namespace) -> None:
        given = self.model.dosing_of(p)
        _check_dosing(self.cls, self.model.specification, given)
        for place, dosing in given.items():
            for field, value in vars(dosing).items():
                if value is not None:
                    self._when_bound(_check_scalar, self.cls, f"dosing of `{place}`", field, value)
                    self.dosing.add((place, field))

    def _when_bound(self, check: Callable[..., None], *args: Any) -> None:
        try:
            check(*args)
        except ModelError as error:
            self.wrong.append(str(error))

    def _column(self, name: str, known: tuple[str, ...]) -> None:
        """A column of the data that a method reads as numbers."""
        if any(c.column == name and c.text for c in self.model.specification.categories):
            raise ModelError(
                f"{self.cls.__name__}: a method reads `{name}`, whose values are text for nm.Category: text is no number to "
                "compute with. Code the column as numbers, or let the Category alone read it."
            )
        self._covariate(name, known)

    def _covariate(self, name: str, known: tuple[str, ...]) -> None:
        """A name that is no parameter: a column of the data, unless it looks like a mistake."""
        cls, spec = self.cls, self.model.specification
        if name in self.covariates:
            return
        if name in spec.typical or name in spec.networks:
            fix = f"return `{name}` from `individual`" if known else f"read theta.{name} or eta.{name}"
            raise ModelError(f"{cls.__name__}: `{name}` is a parameter of the model, not a covariate: {fix}.")
        likely = nearest(name, known)
        if likely is not None:
            raise ModelError(
                f"{cls.__name__}: parameter `{name}` does not exist; did you mean `{likely}`? "
                f"Known: {', '.join(known)}. (Another name would be read as a column of the data.)"
            )
        if hasattr(cls, name):
            raise ModelError(
                f"{cls.__name__}: `{name}` is a plain attribute, not a parameter: read it as self.{name}, or "
                f"declare nm.Theta(...)."
            )
        self.covariates[name] = None


def _complete(model: DeclaredModel, number: Any, p: Namespace) -> None:
    """The compartments of dynamics written as a method: the keys of what it returns."""
    used: set[str] = set()
    anything = Recorder({}, "compartment", number, lambda name, known: used.add(name))
    compartments = tuple(written_derivatives(model, number, anything, p))
    check_compartments(model, used, compartments)
    spec = replace(model.specification, dynamics=Written(model, compartments))
    check_distinct(type(model), spec)
    model._spec = spec


def _initial(model: DeclaredModel, p: Namespace) -> list[str]:
    """Compartments with an initial amount, checked."""
    given = model.initial_of(p)
    for name, value in given.items():
        if name not in model.specification.compartments:
            raise ModelError(
                f"{type(model).__name__}: initial: " + unknown("compartment", name, model.specification.compartments)
            )
        _check_scalar(type(model), "initial", name, value)
    return list(given)


def _check_output(cls: type, name: str, value: Any) -> None:
    """A number, or a distribution of one."""
    if not hasattr(value, "log_prob"):
        _check_scalar(cls, "observe", name, value)
    elif value.batch_shape != ():
        raise ModelError(
            f"{cls.__name__}: observe: the distribution of `{name}` must be of one record's observation, got one of shape "
            f"{value.batch_shape}."
        )


def _check_scalar(cls: type, method: str, name: str, value: Any) -> None:
    """ModelError for what is no real number of one record."""
    if not hasattr(value, "dtype") and not isinstance(value, int | float):
        raise ModelError(f"{cls.__name__}: {method}: `{name}` must be a number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ModelError(
            f"{cls.__name__}: {method}: `{name}` must be a number (of one record), got an array of shape {jnp.shape(value)}."
        )
    if hasattr(value, "dtype") and not (jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool):
        raise ModelError(f"{cls.__name__}: {method}: `{name}` must be a number, got a {value.dtype}.")
    if jnp.iscomplexobj(value):
        raise ModelError(f"{cls.__name__}: {method}: `{name}` must be a real number, got a complex one.")


def _check_needs(cls: type, spec: Specification, p: Mapping[str, Any]) -> None:
    if spec.dynamics is None:
        return
    for name in spec.dynamics.parameters:
        if name not in p:
            likely = nearest(name, p)
            hint = f" Did you mean it by `{likely}`?" if likely else ""
            raise ModelError(
                f"{cls.__name__}: {type(spec.dynamics).__name__} needs the individual parameters "
                f"{', '.join(spec.dynamics.parameters)}; `{name}` is missing.{hint} Known: {', '.join(p)}."
            )


def _check_dosing(cls: type, spec: Specification, dosing: Mapping[str, Any]) -> None:
    for name, value in dosing.items():
        if name not in spec.compartments:
            raise ModelError(f"{cls.__name__}: dosing: " + unknown("compartment", name, spec.compartments))
        if not isinstance(value, Dosing):
            raise ModelError(f"{cls.__name__}: dosing must return nm.Dosing(...) per compartment, got {value!r}.")


def _check_endpoints(
    cls: type, spec: Specification, outputs: tuple[str, ...], endpoints: tuple[str, ...], distributions: tuple[str, ...]
) -> None:
    if not outputs:
        raise ModelError(f"{cls.__name__}: `observe` returns no endpoint.")
    for name in outputs:
        if name in spec.typical or name in spec.networks:
            raise ModelError(
                f"{cls.__name__}: `observe` returns the endpoint `{name}`, which is a parameter. Rename one of them."
            )
        if name in distributions and name in spec.residuals:
            raise ModelError(f"{cls.__name__}: endpoint `{name}` returns a distribution and has a residual model: keep one.")
    for name in spec.residuals:
        if name not in outputs:
            raise ModelError(f"{cls.__name__}: residual model: " + unknown("endpoint", name, outputs))
    if not endpoints:
        raise ModelError(
            f"{cls.__name__}: endpoint `{outputs[0]}` has no residual model; declare for example "
            f"{outputs[0]} = nm.Additive(1.0), or let `observe` return a distribution. Declared: none. "
            "(One output at least must be observed; others may be predictions only.)"
        )
