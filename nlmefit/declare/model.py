"""The class that a modeller subclasses: declarations and plain JAX methods.

Everything that can be checked without data is checked when the class is defined.
"""

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

from nlmefit.core.content import Content, body, content
from nlmefit.core.errors import ModelError, unknown
from nlmefit.core.shown import html
from nlmefit.declare import equations
from nlmefit.declare.covariates import Category, Level
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.dry_run import dry_run
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.flow import Flow
from nlmefit.declare.namespace import Namespace, in_words
from nlmefit.declare.omega import Blocks
from nlmefit.declare.population import PopulationParameter, correlation_matrix, population_parameters
from nlmefit.declare.specification import Declaration, Specification, declarations, specification
from nlmefit.declare.written import Written


class _Body(dict):
    """A class body in which no declaration is overwritten unnoticed."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and isinstance(self[name], Declaration | Blocks | Flow | AbstractDynamics):
            raise ModelError(f"`{name}` is declared twice in {self.get('__qualname__', 'the model')}.")
        super().__setitem__(name, value)


class _ModelType(type):
    """Only there so that a name declared twice is an error; Python itself would keep the last silently."""

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], **kwargs: Any) -> Mapping[str, object]:
        return _Body()


class AbstractModel(metaclass=_ModelType):
    """A declared population model without an engine: names, values, checks. Users subclass `nm.Model`, which adds one."""

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        if not abstract:
            cls()

    def __init__(self, **changes: Declaration):
        self._changes = changes
        declared = declarations(type(self))
        for name, declaration in changes.items():
            if name not in declared:
                raise ModelError(unknown(f"{type(self).__name__}: parameter", name, declared))
            if not isinstance(declaration, Declaration):
                raise ModelError(f"{name} must be a declaration such as nm.LogNormal(...), got {declaration!r}.")
            declared[name] = declaration
        self._declared = declared
        self._values: dict[str, float] = {}
        self._read()

    def _read(self) -> None:
        """What the class says, as it is now."""
        self._class = _class_content(type(self))
        self._spec = specification(type(self), self._declared, vars(AbstractModel))
        self._population = population_parameters(self._spec)
        self._reads = dry_run(self)

    def current(self) -> Self:
        """This model, read anew if a method, a declaration or what they read was replaced since: in a notebook, or by IPython's
        autoreload. Values given by `at` stay where their parameters do. Raises ModelError as at the class's definition."""
        if self._class != _class_content(type(self)):
            anew = object.__new__(type(self))
            anew.__dict__.update(self.__dict__)
            anew._declared = declarations(type(self)) | self._changes
            anew._read()
            anew._values = {name: value for name, value in self._values.items() if name in anew._population}
            self.__dict__.update(anew.__dict__)
        return self

    # ---- what users read ----------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, float]:
        """All population parameters by name, on their natural scale."""
        self.current()
        return self._at()

    def _at(self) -> dict[str, float]:
        return {name: self._values.get(name, p.value) for name, p in self._population.items()}

    def at(self, values: Mapping[str, float]) -> Self:
        """The same model at other parameter values. Raises ModelError for an unknown name or a value out of range."""
        if not isinstance(values, Mapping):
            raise ModelError(f"{type(self).__name__}: at() takes values by name, {{'CL': 0.14}}, got {values!r}.")
        result = self._copy()
        result._values = dict(self._values)
        for name, value in values.items():
            if name not in self._population:
                raise ModelError(unknown(f"{type(self).__name__}: parameter", str(name), self._population))
            result._values[name] = self._population[name].checked(value)
        for block in self._spec.blocks:
            correlation_matrix(block, result._at())
        return result

    def with_levels(self, levels: Mapping[str, Sequence[Level]]) -> Self:
        """The same model, at the same values, in which a category that names no levels has those of the data, by column."""
        open_ = {c.column for c in self._spec.categories if c.open and not c.found} & {*levels}
        if not open_:
            return self

        def holding(effect: Any) -> Any:
            given = isinstance(effect, Category) and effect.column in open_
            return effect.holding(levels[effect.column]) if given else effect

        held = {
            name: replace(p, covariates=tuple(map(holding, p.covariates)))  # type: ignore[type-var]
            for name, p in self._spec.individuals.items()
            if any(effect.column in open_ for effect in p.covariates)
        }
        result = self._copy()
        AbstractModel.__init__(result, **{**self._changes, **held})
        result._values = dict(self._values)
        return result

    def population(self) -> dict[str, PopulationParameter]:
        """The population parameters at the model's values, with bounds, units and priors."""
        values = self._at()
        return {name: replace(p, value=values[name]) for name, p in self._population.items()}

    def equations(self) -> str:
        """The model as equations, in plain text."""
        self.current().check_returns()
        return equations.text(self)

    def latex(self) -> str:
        """The model as equations, in LaTeX."""
        self.current().check_returns()
        return equations.latex(self)

    def __repr__(self) -> str:
        return self.equations()

    def _repr_html_(self) -> str:
        return html(self)

    def _repr_latex_(self) -> str:
        return self.latex()

    # ---- what the engine reads -----------------------------------------------------------------------------------

    @property
    def specification(self) -> Specification:
        return self._spec

    def check_returns(self) -> None:
        """ModelError where a method returns what is no number of one record."""
        if self._reads.wrong:
            raise ModelError(self._reads.wrong[0])

    def structure(self) -> Hashable:
        """Equal for models whose programs are the same: the class, the code of its methods and all that they read, constants to
        the last bit, and the declarations, whatever `at` changed."""
        spec = self._spec
        return type(self), content([self._class, self._own(), spec.individuals, spec.thetas, spec.networks, spec.residuals])

    def _own(self) -> dict[str, Any]:
        """Plain attributes of the instance, which methods may read as `self.name`."""
        return {name: value for name, value in vars(self).items() if name not in _INTERNAL}

    def snapshot(self) -> Self:
        """A copy whose plain attributes later assignments do not reach: what a program is compiled from."""
        result = self._copy()
        result.__dict__.update(deepcopy(self._own()))
        return result

    def _copy(self) -> Self:
        result = object.__new__(type(self))
        result.__dict__.update(self.current().__dict__)
        if isinstance(self._spec.dynamics, Written):  # which reads `self.name` of its model
            result._spec = replace(self._spec, dynamics=self._spec.dynamics.of(result))
        return result

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Names of the observed endpoints, in the order in which `observe` returns them (DVID 1, 2, ...)."""
        return self._reads.endpoints

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that `observe` returns, in that order: the endpoints, and predictions without a residual model, which have no
        observations but are predicted, simulated and plotted, and whose exposure is taken."""
        return self._reads.outputs

    @property
    def joint(self) -> bool:
        """Whether `observe` gives a distribution of several numbers at once, as of all records of a subject."""
        return self._reads.joint

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

    @property
    def dynamics_reads(self) -> tuple[str, ...]:
        """Individual parameters and covariates that enter the amounts, doses' properties aside."""
        return self._reads.dynamics

    @property
    def routed_durations(self) -> tuple[str, ...]:
        """Compartments into which a bolus becomes an input of some duration."""
        return self._reads.routed

    @property
    def has_individual(self) -> bool:
        """Whether a method `individual` gives the individual parameters."""
        return hasattr(type(self), "individual")

    @property
    def has_initial(self) -> bool:
        """Whether the model gives initial amounts."""
        return self._reads.initial

    def parameters_of(self, theta: Mapping[str, Any], eta: Mapping[str, Any], x: Mapping[str, Any]) -> dict[str, Any]:
        """Individual parameters by name, from population parameters, random effects and covariates."""
        spec = self._spec
        if self.has_individual:
            typical = Namespace({name: theta[name] for name in spec.typical}, "typical value", spec.networks)
            covariates = x if isinstance(x, Namespace) else Namespace(x, "covariate")
            values = type(self).individual(self, typical, Namespace(eta, "eta"), covariates)
            return {name: theta[name] for name in spec.thetas} | _returned(self, "individual", "parameter", values)
        result = {name: theta[name] for name in spec.thetas}
        for name, parameter in spec.individuals.items():
            result[name] = parameter.individual(theta[name], self._log_factor(name, theta, x), eta.get(name, 0.0))
        return {name: result[name] for name in spec.typical}

    @property
    def mu_referenced(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """By parameter with an eta, its covariate columns and the names of their coefficients; empty where the user's
        `individual` may do anything with them."""
        if self.has_individual:
            return {}
        return {
            name: {e.column: tuple(_beta(name, e.column, suffix) for suffix in e.coefficients()) for e in parameter.covariates}
            for name, parameter in self._spec.individuals.items()
            if name in self._spec.etas and name not in self._spec.scores
        }

    def mu_of(self, name: str, theta: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
        """mu of an individual parameter h(mu + eta)."""
        return self._spec.individuals[name].mu(theta[name], self._log_factor(name, theta, x))

    def _log_factor(self, name: str, theta: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
        """The sum of a parameter's covariate effects."""
        factor: Any = 0.0
        for effect in self._spec.individuals[name].covariates:
            beta = {suffix: theta[_beta(name, effect.column, suffix)] for suffix in effect.coefficients()}
            factor = factor + effect.log_factor(beta, x[effect.column])
        return factor

    def namespace(self, p: Mapping[str, Any] | Namespace) -> Namespace:
        """Individual parameters and covariates as the model's methods read them, networks among them."""
        return p if isinstance(p, Namespace) else Namespace(p, "parameter or covariate", self._spec.networks)

    def predictions(self, t: Any, amounts: Mapping[str, Any] | Namespace, p: Mapping[str, Any] | Namespace) -> dict[str, Any]:
        """What the user's `observe` returns, at one time."""
        A = amounts if isinstance(amounts, Namespace) else Namespace(amounts, "compartment")
        seen = type(self).observe(self, t, A, self.namespace(p))  # type: ignore[attr-defined]
        return _returned(self, "observe", "endpoint", seen)

    def dosing_of(self, p: Mapping[str, Any]) -> dict[str, Dosing]:
        """Modelled lag, bioavailability, rate and duration by compartment."""
        if not hasattr(type(self), "dosing"):
            return {}
        given = type(self).dosing(self, self.namespace(p))
        return _returned(self, "dosing", "compartment", given)

    def initial_of(self, p: Mapping[str, Any]) -> dict[str, Any]:
        """Initial amounts by compartment, 0 where none is given: the dynamics' own, and those of the user's method `initial`."""
        dynamics = self._spec.dynamics
        own = {} if dynamics is None else dynamics.initial(self.namespace(p))
        if not hasattr(type(self), "initial"):
            return own
        return own | _returned(self, "initial", "compartment", type(self).initial(self, self.namespace(p)))


_INTERNAL = frozenset({"_changes", "_declared", "_class", "_spec", "_values", "_population", "_reads"})


def _class_content(cls: type) -> Content:
    """Of a model class and its bases: methods with all that they read, constants, declarations."""
    return content([body(base) for base in cls.__mro__ if base is not object])


def _returned(model: AbstractModel, method: str, what: str, value: Any) -> dict[str, Any]:
    """What a method of the user's returned, as a dictionary; ModelError if it returned something else."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ModelError(
            f"{type(model).__name__}: `{method}` must return a dictionary with a value per {what}, got {in_words(value)}."
        )
    return dict(value)


def _beta(parameter: str, column: str, suffix: str) -> str:
    return f"beta_{parameter}_{column}" + (f"_{suffix}" if suffix else "")
