"""What a model's class says, and its methods run on namespaces: parameters, amounts, predictions and doses by name."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from nlmefit.core.errors import ModelError
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.flow import Flow
from nlmefit.declare.namespace import Namespace, Values, in_words
from nlmefit.declare.omega import Blocks
from nlmefit.declare.population import PopulationParameter
from nlmefit.declare.specification import Declaration, Specification


@dataclass(frozen=True)
class Reads:
    """What the methods of a model read and return."""

    outputs: tuple[str, ...]
    """What `observe` returns: the endpoints, and predictions that nobody observes."""
    endpoints: tuple[str, ...]
    """The outputs with a residual model or a distribution of their own."""
    covariates: tuple[str, ...]
    distributions: tuple[str, ...]
    """Endpoints for which `observe` returns a distribution of its own."""
    joint: bool
    """Whether one of these is of several numbers at once."""
    amounts: tuple[str, ...]
    """Compartments whose amounts `observe` reads."""
    dosing: frozenset[tuple[str, str]]
    """(compartment, property) of the doses that are modelled: lag, bioavailability, rate, duration."""
    dynamics: tuple[str, ...]
    """Individual parameters and covariates that enter the amounts: the dynamics, the initial amounts and the routes of doses."""
    routed: tuple[str, ...]
    """Compartments into which a bolus becomes an input of some duration."""
    initial: bool
    """Whether the model gives initial amounts."""
    wrong: tuple[str, ...] = ()
    """What the methods return that is no number of one record, in words."""


class _Body(dict):
    """A class body in which no declaration is overwritten unnoticed."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and isinstance(self[name], Declaration | Blocks | Flow | AbstractDynamics):
            raise ModelError(f"`{name}` is declared twice in {self.get('__qualname__', 'the model')}.")
        super().__setitem__(name, value)


class _ModelType(type):
    """Only there so that a name declared twice is an error; Python itself would keep the last silently."""

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **kwargs: Any) -> MutableMapping[str, object]:
        return _Body()


class DeclaredModel(metaclass=_ModelType):
    """The base of every model: its specification, its population parameters and their values, and its methods' results.

    `declare.model.AbstractModel` makes one of a class; what checks and prints it needs no more than this.
    """

    _spec: Specification
    _population: Mapping[str, PopulationParameter]
    _values: dict[str, float]
    _reads: Reads

    @property
    def specification(self) -> Specification:
        return self._spec

    def _at(self) -> dict[str, float]:
        return {name: self._values.get(name, p.value) for name, p in self._population.items()}

    def population(self) -> dict[str, PopulationParameter]:
        """The population parameters at the model's values, with bounds, units and priors."""
        values = self._at()
        return {name: replace(p, value=values[name]) for name, p in self._population.items()}

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
        return method_of(self, "individual") is not None

    @property
    def has_initial(self) -> bool:
        """Whether the model gives initial amounts."""
        return self._reads.initial

    def parameters_of(self, theta: Mapping[str, Any], eta: Mapping[str, Any], x: Values) -> dict[str, Any]:
        """Individual parameters by name, from population parameters, random effects and covariates."""
        spec = self._spec
        individual = method_of(self, "individual")
        if individual is not None:
            typical = Namespace({name: theta[name] for name in spec.typical}, "typical value", spec.networks)
            covariates = x if isinstance(x, Namespace) else Namespace(x, "covariate")
            values = individual(self, typical, Namespace(eta, "eta"), covariates)
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

    def mu_of(self, name: str, theta: Mapping[str, Any], x: Values) -> Any:
        """mu of an individual parameter h(mu + eta)."""
        return self._spec.individuals[name].mu(theta[name], self._log_factor(name, theta, x))

    def _log_factor(self, name: str, theta: Mapping[str, Any], x: Values) -> Any:
        """The sum of a parameter's covariate effects."""
        factor: Any = 0.0
        for effect in self._spec.individuals[name].covariates:
            beta = {suffix: theta[_beta(name, effect.column, suffix)] for suffix in effect.coefficients()}
            factor = factor + effect.log_factor(beta, x[effect.column])
        return factor

    def namespace(self, p: Values) -> Namespace:
        """Individual parameters and covariates as the model's methods read them, networks among them."""
        return p if isinstance(p, Namespace) else Namespace(p, "parameter or covariate", self._spec.networks)

    def predictions(self, t: Any, amounts: Values, p: Values) -> dict[str, Any]:
        """What the user's `observe` returns, at one time."""
        A = amounts if isinstance(amounts, Namespace) else Namespace(amounts, "compartment")
        observe = method_of(self, "observe")
        assert observe is not None  # which is seen to when the class is defined
        return _returned(self, "observe", "endpoint", observe(self, t, A, self.namespace(p)))

    def dosing_of(self, p: Values) -> dict[str, Dosing]:
        """Modelled lag, bioavailability, rate and duration by compartment."""
        dosing = method_of(self, "dosing")
        return {} if dosing is None else _returned(self, "dosing", "compartment", dosing(self, self.namespace(p)))

    def initial_of(self, p: Values) -> dict[str, Any]:
        """Initial amounts by compartment, 0 where none is given: the dynamics' own, and those of the user's method `initial`."""
        dynamics = self._spec.dynamics
        own = {} if dynamics is None else dynamics.initial(self.namespace(p))
        initial = method_of(self, "initial")
        return own if initial is None else own | _returned(self, "initial", "compartment", initial(self, self.namespace(p)))


def method_of(model: DeclaredModel, name: str) -> Callable[..., Any] | None:
    """A method that the model's class may have, to be called with the model."""
    return getattr(type(model), name, None)


def _returned(model: DeclaredModel, method: str, what: str, value: Any) -> dict[str, Any]:
    """What a method of the user's returned, as a dictionary; ModelError if it returned something else."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ModelError(
            f"{type(model).__name__}: `{method}` must return a dictionary with a value per {what}, got {in_words(value)}."
        )
    return dict(value)


def _beta(parameter: str, column: str, suffix: str) -> str:
    return f"beta_{parameter}_{column}" + (f"_{suffix}" if suffix else "")
