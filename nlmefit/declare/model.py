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
from nlmefit.declare.declared import DeclaredModel
from nlmefit.declare.dry_run import dry_run
from nlmefit.declare.population import correlation_matrix, population_parameters
from nlmefit.declare.specification import Declaration, declarations, specification
from nlmefit.declare.written import Written


class AbstractModel(DeclaredModel):
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
        self._spec = specification(type(self), self._declared, {*vars(AbstractModel), *vars(DeclaredModel)})
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

    @property
    def values(self) -> dict[str, float]:
        """All population parameters by name, on their natural scale."""
        self.current()
        return self._at()

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


_INTERNAL = frozenset({"_changes", "_declared", "_class", "_spec", "_values", "_population", "_reads"})


def _class_content(cls: type) -> Content:
    """Of a model class and its bases: methods with all that they read, constants, declarations."""
    return content([body(base) for base in cls.__mro__ if base is not object])
