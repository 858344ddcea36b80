"""What a model class declares, read into one plain record and checked."""

import inspect
from collections.abc import Collection
from dataclasses import dataclass

from nlmefit.core.errors import ModelError, nearest, unknown
from nlmefit.declare.covariates import Category
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.flow import Flow
from nlmefit.declare.network import Network
from nlmefit.declare.omega import Blocks
from nlmefit.declare.parameters import AbstractIndividual, Theta
from nlmefit.declare.residual import AbstractResidual
from nlmefit.declare.solver import AbstractSolver, Automatic
from nlmefit.declare.values import Fixed

Declaration = AbstractIndividual | Theta | Network | AbstractResidual


@dataclass(frozen=True)
class Specification:
    """What a model declares, as one plain record (the core under the class)."""

    individuals: dict[str, AbstractIndividual]
    thetas: dict[str, Theta]
    """Fixed effects, the weights of networks among them."""
    networks: dict[str, Network]
    residuals: dict[str, AbstractResidual]
    dynamics: AbstractDynamics | None
    """None where there is none, and until `dry_run` has read the compartments of one written as a method."""
    blocks: tuple[tuple[str, ...], ...]
    flow: Flow | None
    occasion: str | None
    solver: AbstractSolver

    @property
    def weights(self) -> frozenset[str]:
        """Names of the weights of all networks."""
        return frozenset(weight for name, network in self.networks.items() for weight in network.weights(name))

    @property
    def typical(self) -> tuple[str, ...]:
        """Names with a typical value: individual parameters, then fixed effects."""
        return (*self.individuals, *self.thetas)

    @property
    def etas(self) -> tuple[str, ...]:
        """Names of the random effects, in order of declaration."""
        return tuple(name for name, parameter in self.individuals.items() if parameter.iiv is not None)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the random effects that a flow is made of: their etas are normal scores."""
        return () if self.flow is None else self.flow.names

    @property
    def occasion_effects(self) -> tuple[str, ...]:
        """Names of the parameters that vary between occasions."""
        return tuple(name for name, parameter in self.individuals.items() if parameter.iov is not None)

    @property
    def effects(self) -> tuple[str, ...]:
        """Names of the parameters with a random effect of any kind, in order of declaration."""
        return tuple(n for n, parameter in self.individuals.items() if parameter.iiv is not None or parameter.iov is not None)

    @property
    def compartments(self) -> tuple[str, ...]:
        return self.dynamics.compartments if self.dynamics is not None else ()

    @property
    def effect_columns(self) -> tuple[str, ...]:
        columns = [effect.column for p in self.individuals.values() for effect in p.covariates]
        return tuple(dict.fromkeys(columns))

    @property
    def categories(self) -> tuple[Category, ...]:
        """The effects of categories, of all parameters."""
        return tuple(e for p in self.individuals.values() for e in p.covariates if isinstance(e, Category))

    @property
    def text_levels(self) -> tuple[str, ...]:
        """The levels that are text, of all categories."""
        levels = (level for c in self.categories for level in (c.reference, *c.starts))
        return tuple(dict.fromkeys(level for level in levels if isinstance(level, str)))


def declarations(cls: type) -> dict[str, Declaration]:
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


_METHODS = ("individual", "observe", "dosing", "dynamics", "initial")
_ARGUMENTS = {
    "individual": ("theta", "eta", "x"),
    "observe": ("t", "A", "p"),
    "dosing": ("p",),
    "dynamics": ("t", "A", "p"),
    "initial": ("p",),
}
_RESERVED = frozenset({*_METHODS, "omega", "flow", "occasion", "solver", "program", "eta", "eta_base", "t"})


def specification(cls: type, declared: dict[str, Declaration], reserved: Collection[str]) -> Specification:
    for name in declared:
        if name.startswith("_"):
            raise ModelError(f"{cls.__name__}: `{name}` cannot be a parameter's name: it begins with an underscore.")
        if name in _RESERVED or name in reserved:
            raise ModelError(f"{cls.__name__}: `{name}` cannot be a parameter's name, it has another meaning in a model.")
        if name.startswith("kappa_"):
            raise ModelError(
                f"{cls.__name__}: `{name}` cannot be a parameter's name: what begins with kappa_ is an occasion's random effect."
            )
    _check_methods(cls)
    _check_places(cls)
    dynamics = getattr(cls, "dynamics", None)
    _check_solver(cls, dynamics)
    blocks = _blocks(cls, declared)
    spec = Specification(
        individuals={n: d for n, d in declared.items() if isinstance(d, AbstractIndividual)},
        thetas=_thetas(cls, declared),
        networks={n: d for n, d in declared.items() if isinstance(d, Network)},
        residuals={n: d for n, d in declared.items() if isinstance(d, AbstractResidual)},
        dynamics=dynamics if isinstance(dynamics, AbstractDynamics) else None,
        blocks=blocks,
        flow=_flow(cls, declared, blocks),
        occasion=getattr(cls, "occasion", None),
        solver=getattr(cls, "solver", Automatic()),
    )
    _check_occasion(cls, spec)
    check_distinct(cls, spec)
    if hasattr(cls, "individual") and spec.effect_columns:
        raise ModelError(
            f"{cls.__name__}: `individual` replaces the declared form, so covariates=[...] would be "
            "ignored; write the covariate effects inside `individual`, or delete it."
        )
    return spec


def _thetas(cls: type, declared: dict[str, Declaration]) -> dict[str, Theta]:
    """Fixed effects by name, in order of declaration."""
    found: dict[str, Theta] = {}
    for name, declaration in declared.items():
        weights = declaration.weights(name) if isinstance(declaration, Network) else {}
        for weight in weights:
            if weight in declared:
                raise ModelError(
                    f"{cls.__name__}: `{weight}` is declared and is also a weight of the network `{name}`. Rename it."
                )
        found |= {name: declaration} if isinstance(declaration, Theta) else weights
    return found


def _check_methods(cls: type) -> None:
    if not callable(getattr(cls, "observe", None)):
        raise ModelError(f"{cls.__name__} needs a method `observe(self, t, A, p)` that returns a prediction per endpoint.")
    dynamics = getattr(cls, "dynamics", None)
    if (
        isinstance(dynamics, type)
        or hasattr(cls, "dynamics")
        and not isinstance(dynamics, AbstractDynamics)
        and not callable(dynamics)
    ):
        raise ModelError(
            f"{cls.__name__}: `dynamics` must be a structural model such as nm.OneCompartment(...), or a method "
            f"`dynamics(self, t, A, p)` that returns dA/dt by compartment, got {dynamics!r}."
        )
    for name, arguments in _ARGUMENTS.items():
        if hasattr(cls, name) and not isinstance(getattr(cls, name), AbstractDynamics):
            _check_method(cls, name, arguments)
    for name in ("dosing", "initial"):
        if hasattr(cls, name) and dynamics is None:
            raise ModelError(f"{cls.__name__}: `{name}` needs `dynamics`: there is no compartment.")


def _check_method(cls: type, name: str, arguments: tuple[str, ...]) -> None:
    """ModelError for what is no method, or takes other arguments."""
    method, call = getattr(cls, name), f"{name}(self, {', '.join(arguments)})"
    if not callable(method) or isinstance(method, type):
        raise ModelError(f"{cls.__name__}: `{name}` must be a method `{call}`, got {method!r}.")
    try:
        inspect.signature(method).bind(None, *arguments)
    except TypeError:
        raise ModelError(f"{cls.__name__}: `{name}` must take the arguments of `{call}`, in that order.") from None
    except ValueError:  # Python cannot tell the arguments of some built-in functions
        return


def _check_solver(cls: type, dynamics: object) -> None:
    solver = getattr(cls, "solver", None)
    if not hasattr(cls, "solver"):
        return
    if not isinstance(solver, AbstractSolver):
        raise ModelError(f"{cls.__name__}: `solver` must be a solver such as nm.RungeKutta(...), got {solver!r}.")
    if dynamics is None:
        raise ModelError(f"{cls.__name__}: `solver` needs `dynamics`: there is nothing to solve.")


def _check_occasion(cls: type, spec: Specification) -> None:
    occasion, varying = spec.occasion, spec.occasion_effects
    if occasion is not None and not isinstance(occasion, str):
        raise ModelError(
            f'{cls.__name__}: `occasion` names a column of the data, for example occasion = "OCC", got {occasion!r}.'
        )
    if varying and occasion is None:
        raise ModelError(
            f"{cls.__name__}: iov= of {', '.join(varying)} needs the column that says which occasion a record belongs to: "
            'write occasion = "OCC".'
        )
    if occasion is not None and not varying:
        raise ModelError(f"{cls.__name__}: `occasion` would be ignored: no parameter has iov=. Give one, or remove it.")


def _check_places(cls: type) -> None:
    """Values and methods that would be ignored because they stand under a name that has no meaning."""
    for name, value in vars(cls).items():
        kinds = {"omega": Blocks, "flow": Flow, "dynamics": AbstractDynamics, "solver": AbstractSolver}
        place = next((place for place, kind in kinds.items() if isinstance(value, kind)), name)
        if place != name:
            raise ModelError(f"{cls.__name__}: `{name} = {value!r}` would be ignored; write `{place} = ...`.")
        likely = nearest(name, _METHODS) if callable(value) else None
        if likely not in (None, name):
            raise ModelError(
                f"{cls.__name__}: method `{name}` would be ignored; did you mean `{likely}`? (A helper of your own needs a "
                "name less alike.)"
            )


def check_distinct(cls: type, spec: Specification) -> None:
    """Names that would stand for two things in tables and equations."""
    derived = {f"A_{name}": f"the amount in `{name}`" for name in spec.compartments}
    derived |= {f"eta_{name}": f"the random effect of `{name}`" for name in spec.etas}
    derived |= {f"kappa_{name}": f"the occasions' random effect of `{name}`" for name in spec.occasion_effects}
    derived |= {name: "a covariate" for name in spec.effect_columns}
    for name in (*spec.typical, *spec.networks, *spec.residuals):
        if name in derived:
            raise ModelError(f"{cls.__name__}: `{name}` is declared and is also {derived[name]}. Rename the declared one.")


def _blocks(cls: type, declared: dict[str, Declaration]) -> tuple[tuple[str, ...], ...]:
    omega = getattr(cls, "omega", None)
    if omega is None:
        return ()
    if not isinstance(omega, Blocks):
        raise ModelError(f"{cls.__name__}: `omega` must be nm.Blocks(...), got {omega!r}.")
    etas = _with_eta(declared)
    for name in (name for block in omega.names for name in block):
        if name not in etas:
            raise ModelError(f"{cls.__name__}: omega: " + unknown("eta", name, etas))
    return tuple(tuple(sorted(block, key=etas.index)) for block in omega.names)


def _flow(cls: type, declared: dict[str, Declaration], blocks: tuple[tuple[str, ...], ...]) -> Flow | None:
    flow = getattr(cls, "flow", None)
    if flow is None:
        return None
    if not isinstance(flow, Flow):
        raise ModelError(f"{cls.__name__}: `flow` must be nm.Flow(...), got {flow!r}.")
    etas, joint = _with_eta(declared), {name for group in flow.groups if len(group) > 1 for name in group}
    for name in flow.names:
        if name not in etas:
            raise ModelError(f"{cls.__name__}: flow: " + unknown("eta", name, etas))
    for block in blocks:
        both = joint & {*block}
        if both:
            raise ModelError(
                f"{cls.__name__}: {', '.join(sorted(both))} have a joint flow, which says how they depend on each other, and "
                "are in a block of omega too; take them out of one."
            )
    return flow


def _with_eta(declared: dict[str, Declaration]) -> list[str]:
    return [n for n, d in declared.items() if isinstance(d, AbstractIndividual) and d.iiv is not None]
