"""What a declared model asks of its data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nlmefit.core.errors import ModelError
from nlmefit.declare.covariates import Level, Power


@dataclass(frozen=True)
class Needs:
    """What a model asks of its data."""

    endpoints: tuple[str, ...]
    covariates: tuple[str, ...]
    compartments: tuple[str, ...]
    levels: dict[str, tuple[Level, ...]]
    """Values of a categorical covariate for which every Category has a coefficient; the first is the reference."""
    positive: frozenset[str]
    """Covariates whose logarithm is taken."""
    modelled: frozenset[tuple[str, str]]
    """(compartment, "rate" or "duration"): what RATE -1 and -2 may ask for."""
    texts: frozenset[str] = frozenset()
    """Categorical covariates whose values are text."""
    references: tuple[tuple[str, Level], ...] = ()
    """Of the categorical covariates whose levels are those of the data: column and reference."""
    occasion: str | None = None
    """The column of occasions, of a model with inter-occasion variability."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data beyond the standard ones: covariates and the occasion."""
        return tuple(dict.fromkeys((*self.covariates, *([self.occasion] if self.occasion else []))))

    @property
    def labels(self) -> frozenset[str]:
        """Columns beyond the standard ones whose values need not be numbers: text categories and the occasion."""
        return (self.texts | ({self.occasion} if self.occasion else set())) - self.numbers

    @property
    def numbers(self) -> frozenset[str]:
        """Covariates that are numbers."""
        return frozenset(self.covariates) - self.texts

    def holding(self, levels: Mapping[str, Sequence[Level]]) -> "Needs":
        """The same once the levels that the data hold are known, by column."""
        references = dict(self.references)
        found = {
            name: tuple(v for v in held if v in self.levels.get(name, held))
            for name, held in levels.items()
            if name in references
        }
        return replace(self, levels=self.levels | found, references=())


def needs_of(model: Any) -> Needs:
    """What the declared model asks of its data. Raises ModelError for anything but an instance of a model class."""
    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class; pass an instance: {model.__name__}().")
    if not hasattr(model, "specification"):
        raise ModelError(f"model must be an instance of an nm.Model class, got {type(model).__name__}.")
    spec = model.current().specification
    model.check_returns()
    effects = [effect for parameter in spec.individuals.values() for effect in parameter.covariates]
    levels: dict[str, tuple[Level, ...]] = {}
    for category in spec.categories:
        if not category.open or category.found:
            named = (category.reference, *category.starts)
            levels[category.column] = tuple(v for v in levels.get(category.column, named) if v in named)
    return Needs(
        endpoints=model.endpoints,
        covariates=model.covariates,
        compartments=spec.compartments,
        levels=levels,
        positive=frozenset(effect.column for effect in effects if isinstance(effect, Power)),
        modelled=model.dosing_fields | {(name, "duration") for name in model.routed_durations},
        texts=frozenset(c.column for c in spec.categories if c.text),
        references=tuple((c.column, c.reference) for c in spec.categories if c.open and not c.found),
        occasion=spec.occasion,
    )
