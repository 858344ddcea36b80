"""A model's methods run once on abstract numbers, when its class is defined: every name checked, what they read learnt."""

import re
from collections.abc import Mapping
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
    cls, spec = type(model), model.specification
    covariates: dict[str, None] = dict.fromkeys(spec.effect_columns)
    outputs: list[str] = []
    distributions: list[str] = []
    joint: list[str] = []
    wrong: list[str] = []
    dosing: set[tuple[str, str]] = set()
    read: set[str] = set()
    entering: set[str] = set()
    routed: list[str] = []
    initial: list[str] = []

    def record(name: str, known: tuple[str, ...]) -> None:
        if name in covariates:
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
        covariates[name] = None

    def record_plain(name: str, known: tuple[str, ...]) -> None:
        if any(c.column == name and c.text for c in spec.categories):
            raise ModelError(
                f"{cls.__name__}: a method reads `{name}`, whose values are text for nm.Category: text is no number to compute "
                "with. Code the column as numbers, or let the Category alone read it."
            )
        record(name, known)

    def when_bound(check: Any, *args: Any) -> None:
        try:
            check(*args)
        except ModelError as error:
            wrong.append(str(error))

    def run(number: Any) -> None:
        theta = dict.fromkeys(model.population(), number)
        x = Recorder({}, "covariate", number, record)
        p = model.parameters_of(theta, dict.fromkeys(spec.effects, number), x)
        for name, value in p.items():
            _check_scalar(cls, "individual", name, value)
        p_reader = Recorder(p, "parameter or covariate", number, record_plain, model.specification.networks)
        watched = Watched(p_reader, entering)
        if hasattr(cls, "dynamics") and spec.dynamics is None:
            _complete(model, number, watched)
        _check_needs(cls, model.specification, p)
        compartments = model.specification.compartments
        A = dict.fromkeys(compartments, number)
        if model.specification.dynamics is not None:
            _check_derivatives(model, number, A, watched)
            routed.extend(
                n
                for n, own_routes in model.specification.dynamics.routes(watched).items()
                for r in own_routes
                if r.duration is not None
            )
            initial.extend(_initial(model, watched))
        doses = model.dosing_of(p_reader)
        _check_dosing(cls, model.specification, doses)
        for place, given in doses.items():
            for field, value in vars(given).items():
                if value is not None:
                    when_bound(_check_scalar, cls, f"dosing of `{place}`", field, value)
        dosing.update((place, name) for place, d in doses.items() for name, value in vars(d).items() if value is not None)
        seen = model.predictions(number, Watched(Namespace(A, "compartment"), read), p_reader)
        for name, value in seen.items():
            when_bound(_check_output, cls, name, value)
        outputs.extend(seen)
        joint.extend(name for name, value in seen.items() if getattr(value, "event_shape", ()))
        distributions.extend(name for name, value in seen.items() if hasattr(value, "log_prob"))

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
    endpoints = tuple(name for name in outputs if name in distributions or name in spec.residuals)
    _check_endpoints(cls, spec, outputs, endpoints, distributions)
    amounts = tuple(name for name in model.specification.compartments if name in read)
    return Reads(
        tuple(outputs),
        endpoints,
        tuple(covariates),
        tuple(distributions),
        bool(joint),
        amounts,
        frozenset(dosing),
        tuple(sorted(entering)),
        tuple(routed),
        bool(initial),
        tuple(wrong),
    )


def _complete(model: DeclaredModel, number: Any, p: Namespace) -> None:
    """The compartments of dynamics written as a method: the keys of what it returns."""
    used: set[str] = set()
    anything = Recorder({}, "compartment", number, lambda name, known: used.add(name))
    compartments = tuple(written_derivatives(model, number, anything, p))
    check_compartments(model, used, compartments)
    spec = replace(model.specification, dynamics=Written(model, compartments))
    check_distinct(type(model), spec)
    model._spec = spec


def _check_derivatives(model: DeclaredModel, number: Any, A: Mapping[str, Any], p: Namespace) -> None:
    """ModelError where a derivative is no number (an array, None)."""
    dynamics = model.specification.dynamics
    assert dynamics is not None
    for name, value in dynamics.derivatives(number, A, p).items():
        _check_scalar(type(model), "dynamics", name, value)


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
    cls: type, spec: Specification, outputs: list[str], endpoints: tuple[str, ...], distributions: list[str]
) -> None:
    """ModelError unless one output at least can be observed; the others are predictions only."""
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
