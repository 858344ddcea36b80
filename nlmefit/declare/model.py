"""The class that a modeller subclasses: declarations and plain JAX methods.

Everything that can be checked without data is checked when the class is defined.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp

from nlmefit.declare import equations
from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.namespace import Namespace, Recorder, Watched
from nlmefit.declare.omega import Blocks
from nlmefit.declare.parameters import AbstractIndividual, Theta
from nlmefit.declare.population import PopulationParameter, correlation_matrix, population_parameters
from nlmefit.declare.residual import AbstractResidual
from nlmefit.declare.values import Fixed
from nlmefit.errors import ModelError, nearest, unknown

Declaration = AbstractIndividual | Theta | AbstractResidual


class _Body(dict):
    """A class body in which no declaration is overwritten unnoticed."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and isinstance(self[name], Declaration | Blocks | AbstractCompartments):
            raise ModelError(f"`{name}` is declared twice in {self.get('__qualname__', 'the model')}.")
        super().__setitem__(name, value)


class _ModelType(type):
    """Only there so that a name declared twice is an error; Python itself would keep the last silently."""

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], **kwargs: Any) -> Mapping[str, object]:
        return _Body()


@dataclass(frozen=True)
class Specification:
    """What a model declares, as one plain record (the core under the class)."""

    individuals: dict[str, AbstractIndividual]
    thetas: dict[str, Theta]
    residuals: dict[str, AbstractResidual]
    dynamics: AbstractCompartments | None
    blocks: tuple[tuple[str, ...], ...]

    @property
    def typical(self) -> tuple[str, ...]:
        """Names with a typical value: individual parameters, then fixed effects."""
        return (*self.individuals, *self.thetas)

    @property
    def etas(self) -> tuple[str, ...]:
        """Names of the random effects, in order of declaration."""
        return tuple(name for name, parameter in self.individuals.items() if parameter.iiv is not None)

    @property
    def compartments(self) -> tuple[str, ...]:
        return self.dynamics.compartments if self.dynamics is not None else ()

    @property
    def effect_columns(self) -> tuple[str, ...]:
        columns = [effect.column for p in self.individuals.values() for effect in p.covariates]
        return tuple(dict.fromkeys(columns))


class AbstractModel(metaclass=_ModelType):
    """A declared population model without an engine: names, values, checks. Users subclass `nm.Model`, which adds one."""

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        if not abstract:
            cls()

    def __init__(self, **changes: Declaration):
        declared = _declarations(type(self))
        for name, declaration in changes.items():
            if name not in declared:
                raise ModelError(unknown(f"{type(self).__name__}: parameter", name, declared))
            if not isinstance(declaration, Declaration):
                raise ModelError(f"{name} must be a declaration such as nm.LogNormal(...), got {declaration!r}.")
            declared[name] = declaration
        self._spec = _specification(type(self), declared)
        self._values: dict[str, float] = {}
        self._population = population_parameters(self._spec)
        self._reads = _dry_run(self)

    # ---- what users read ----------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, float]:
        """All population parameters by name, on their natural scale."""
        return {name: self._values.get(name, p.value) for name, p in self._population.items()}

    def at(self, values: Mapping[str, float]) -> Self:
        """The same model at other parameter values. Raises ModelError for an unknown name or a value out of range."""
        result = object.__new__(type(self))
        result.__dict__.update(self.__dict__)
        result._values = dict(self._values)
        for name, value in values.items():
            if name not in self._population:
                raise ModelError(unknown(f"{type(self).__name__}: parameter", name, self._population))
            result._values[name] = self._population[name].checked(value)
        for block in self._spec.blocks:
            correlation_matrix(block, result.values)
        return result

    def population(self) -> dict[str, PopulationParameter]:
        """The population parameters at the model's values, with bounds, units and priors."""
        return {name: replace(p, value=self.values[name]) for name, p in self._population.items()}

    def equations(self) -> str:
        """The model as equations, in plain text."""
        return equations.text(self)

    def latex(self) -> str:
        """The model as equations, in LaTeX."""
        return equations.latex(self)

    def __repr__(self) -> str:
        return self.equations()

    def _repr_latex_(self) -> str:
        return self.latex()

    # ---- what the engine reads -----------------------------------------------------------------------------------

    @property
    def specification(self) -> Specification:
        return self._spec

    def structure(self) -> Hashable:
        """Equal for models whose programs are the same: the class and its declarations, whatever `at` changed."""
        spec = self._spec
        return type(self), tuple(spec.individuals.items()), tuple(spec.thetas.items()), tuple(spec.residuals.items())

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Names of the observed endpoints, in the order in which `observe` returns them (DVID 1, 2, ...)."""
        return self._reads.endpoints

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the data columns that the model reads."""
        return self._reads.covariates

    @property
    def amounts_read(self) -> tuple[str, ...]:
        """Compartments whose amounts `observe` reads."""
        return self._reads.amounts

    @property
    def dosing_fields(self) -> frozenset[tuple[str, str]]:
        """(compartment, property) of the doses that the model gives: lag, bioavailability, rate, duration."""
        return self._reads.dosing

    def parameters_of(self, theta: Mapping[str, Any], eta: Mapping[str, Any], x: Mapping[str, Any]) -> dict[str, Any]:
        """Individual parameters by name, from population parameters, random effects and covariates."""
        spec = self._spec
        if hasattr(type(self), "individual"):
            typical = Namespace({name: theta[name] for name in spec.typical}, "typical value")
            values = type(self).individual(self, typical, Namespace(eta, "eta"), _as_namespace(x, "covariate"))
            return {name: theta[name] for name in spec.thetas} | _returned(self, "individual", "parameter", values)
        result = {name: theta[name] for name in spec.thetas}
        for name, parameter in spec.individuals.items():
            factor: Any = 0.0
            for effect in parameter.covariates:
                beta = {suffix: theta[_beta(name, effect.column, suffix)] for suffix in effect.coefficients()}
                factor = factor + effect.log_factor(beta, x[effect.column])
            result[name] = parameter.individual(theta[name], factor, eta.get(name, 0.0))
        return {name: result[name] for name in spec.typical}

    def predictions(self, t: Any, amounts: Mapping[str, Any] | Namespace, p: Mapping[str, Any] | Namespace) -> dict[str, Any]:
        """What the user's `observe` returns, at one time."""
        p = _as_namespace(p, "parameter or covariate")
        seen = type(self).observe(self, t, _as_namespace(amounts, "compartment"), p)  # type: ignore[attr-defined]
        return _returned(self, "observe", "endpoint", seen)

    def dosing_of(self, p: Mapping[str, Any]) -> dict[str, Dosing]:
        """Modelled lag, bioavailability, rate and duration by compartment."""
        if not hasattr(type(self), "dosing"):
            return {}
        given = type(self).dosing(self, _as_namespace(p, "parameter or covariate"))
        return _returned(self, "dosing", "compartment", given)


def _as_namespace(values: Any, what: str) -> Namespace:
    return values if isinstance(values, Namespace) else Namespace(values, what)


def _returned(model: AbstractModel, method: str, what: str, value: Any) -> dict[str, Any]:
    """What a method of the user's returned, as a dictionary; ModelError if it returned something else."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ModelError(f"{type(model).__name__}: `{method}` must return a dictionary with a value per {what}, got {value!r}.")
    return dict(value)


def _beta(parameter: str, column: str, suffix: str) -> str:
    return f"beta_{parameter}_{column}" + (f"_{suffix}" if suffix else "")


@dataclass(frozen=True)
class _Reads:
    endpoints: tuple[str, ...]
    covariates: tuple[str, ...]
    distributions: tuple[str, ...]
    """Endpoints for which `observe` returns a distribution of its own."""
    amounts: tuple[str, ...]
    """Compartments whose amounts `observe` reads."""
    dosing: frozenset[tuple[str, str]]
    """(compartment, property) of the doses that are modelled: lag, bioavailability, rate, duration."""


def _declarations(cls: type) -> dict[str, Declaration]:
    found: dict[str, Declaration] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Declaration):
                found[name] = value
            elif name in found:
                raise ModelError(
                    f"{base.__name__}: `{name} = {value!r}` would hide the declaration of `{name}`; write a declaration "
                    f"such as nm.Theta(...)."
                )
            elif isinstance(value, type) and issubclass(value, Declaration):
                raise ModelError(f"`{name} = {value.__name__}` lacks its value: write {value.__name__}(...).")
            elif isinstance(value, Fixed):
                raise ModelError(f"`{name} = Fixed(...)` says no distribution: write nm.Theta({value.value}, fixed=True).")
    return found


_METHODS = ("individual", "observe", "dosing")
_RESERVED = frozenset({*_METHODS, "dynamics", "omega", "occasion", "initial", "program", "eta", "eta_base", "t"})


def _specification(cls: type, declared: dict[str, Declaration]) -> Specification:
    for name in declared:
        if name.startswith("_"):
            raise ModelError(f"{cls.__name__}: `{name}` cannot be a parameter's name: it begins with an underscore.")
        if name in _RESERVED or name in vars(AbstractModel):
            raise ModelError(f"{cls.__name__}: `{name}` cannot be a parameter's name, it has another meaning in a model.")
    _check_methods(cls)
    _check_places(cls)
    dynamics = getattr(cls, "dynamics", None)
    spec = Specification(
        individuals={n: d for n, d in declared.items() if isinstance(d, AbstractIndividual)},
        thetas={n: d for n, d in declared.items() if isinstance(d, Theta)},
        residuals={n: d for n, d in declared.items() if isinstance(d, AbstractResidual)},
        dynamics=dynamics,
        blocks=_blocks(cls, declared),
    )
    _check_distinct(cls, spec)
    if hasattr(cls, "individual") and spec.effect_columns:
        raise ModelError(
            f"{cls.__name__}: `individual` replaces the declared form, so covariates=[...] would be "
            "ignored; write the covariate effects inside `individual`, or delete it."
        )
    return spec


def _check_methods(cls: type) -> None:
    if not callable(getattr(cls, "observe", None)):
        raise ModelError(f"{cls.__name__} needs a method `observe(self, t, A, p)` that returns a prediction per endpoint.")
    dynamics = getattr(cls, "dynamics", None)
    if dynamics is not None and not isinstance(dynamics, AbstractCompartments):
        method = callable(dynamics) and not isinstance(dynamics, type)
        got = "a method: this version does not solve differential equations" if method else repr(dynamics)
        raise ModelError(
            f"{cls.__name__}: `dynamics` must be nm.OneCompartment(...), nm.TwoCompartment(...) or nm.ThreeCompartment(...), "
            f"got {got}."
        )
    for name in ("initial", "occasion"):
        if hasattr(cls, name):
            raise ModelError(f"{cls.__name__}: `{name}` is not available in this version; it would be ignored. Remove it.")
    if hasattr(cls, "dosing") and dynamics is None:
        raise ModelError(f"{cls.__name__}: `dosing` needs `dynamics`: there is no compartment to dose.")


def _check_places(cls: type) -> None:
    """Values and methods that would be ignored because they stand under a name that has no meaning."""
    for name, value in vars(cls).items():
        place = "omega" if isinstance(value, Blocks) else "dynamics" if isinstance(value, AbstractCompartments) else name
        if place != name:
            raise ModelError(f"{cls.__name__}: `{name} = {value!r}` would be ignored; write `{place} = ...`.")
        likely = nearest(name, _METHODS) if callable(value) else None
        if likely not in (None, name):
            raise ModelError(
                f"{cls.__name__}: method `{name}` would be ignored; did you mean `{likely}`? (A helper of your own needs a "
                "name less alike.)"
            )


def _check_distinct(cls: type, spec: Specification) -> None:
    """Names that would stand for two things in tables and equations."""
    derived = {f"A_{name}": f"the amount in `{name}`" for name in spec.compartments}
    derived |= {f"eta_{name}": f"the random effect of `{name}`" for name in spec.etas}
    derived |= {name: "a covariate" for name in spec.effect_columns}
    for name in (*spec.typical, *spec.residuals):
        if name in derived:
            raise ModelError(f"{cls.__name__}: `{name}` is declared and is also {derived[name]}. Rename the declared one.")


def _blocks(cls: type, declared: dict[str, Declaration]) -> tuple[tuple[str, ...], ...]:
    omega = getattr(cls, "omega", None)
    if omega is None:
        return ()
    if not isinstance(omega, Blocks):
        raise ModelError(f"{cls.__name__}: `omega` must be nm.Blocks(...), got {omega!r}.")
    etas = [n for n, d in declared.items() if isinstance(d, AbstractIndividual) and d.iiv is not None]
    for name in (name for block in omega.names for name in block):
        if name not in etas:
            raise ModelError(f"{cls.__name__}: omega: " + unknown("eta", name, etas))
    return tuple(tuple(sorted(block, key=etas.index)) for block in omega.names)


def _dry_run(model: AbstractModel) -> _Reads:
    """Run the model's methods once on abstract numbers, to check every name and learn which covariates they read."""
    cls, spec = type(model), model.specification
    covariates: dict[str, None] = dict.fromkeys(spec.effect_columns)
    endpoints: list[str] = []
    distributions: list[str] = []
    dosing: set[tuple[str, str]] = set()
    read: set[str] = set()

    def record(name: str, known: tuple[str, ...]) -> None:
        if name in covariates:
            return
        if name in spec.typical:
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

    def run(number: Any) -> None:
        theta = {name: number for name in model._population}
        x = Recorder({}, "covariate", number, record)
        p = model.parameters_of(theta, dict.fromkeys(spec.etas, number), x)
        _check_needs(cls, spec, p)
        p_reader = Recorder(p, "parameter or covariate", number, record)
        doses = model.dosing_of(p_reader)
        _check_dosing(cls, spec, doses)
        dosing.update((place, name) for place, d in doses.items() for name, value in vars(d).items() if value is not None)
        seen = model.predictions(number, Watched(dict.fromkeys(spec.compartments, number), "compartment", read), p_reader)
        endpoints.extend(seen)
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
    _check_endpoints(cls, spec, endpoints, distributions)
    amounts = tuple(name for name in spec.compartments if name in read)
    return _Reads(tuple(endpoints), tuple(covariates), tuple(distributions), amounts, frozenset(dosing))


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


def _check_endpoints(cls: type, spec: Specification, endpoints: list[str], distributions: list[str]) -> None:
    if not endpoints:
        raise ModelError(f"{cls.__name__}: `observe` returns no endpoint.")
    for name in endpoints:
        if name in spec.typical:
            raise ModelError(
                f"{cls.__name__}: `observe` returns the endpoint `{name}`, which is a parameter. Rename one of them."
            )
        if name in distributions and name in spec.residuals:
            raise ModelError(f"{cls.__name__}: endpoint `{name}` returns a distribution and has a residual model: keep one.")
        if name not in distributions and name not in spec.residuals:
            raise ModelError(
                f"{cls.__name__}: endpoint `{name}` has no residual model; declare for example "
                f"{name} = nm.Additive(1.0), or let `observe` return a distribution. "
                f"Declared: {', '.join(spec.residuals) or 'none'}."
            )
    for name in spec.residuals:
        if name not in endpoints:
            raise ModelError(f"{cls.__name__}: residual model: " + unknown("endpoint", name, endpoints))
