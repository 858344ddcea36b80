"""What a declared model asks of its data."""

from dataclasses import dataclass
from typing import Any

from nlmefit.declare.covariates import Category, Power
from nlmefit.errors import ModelError


@dataclass(frozen=True)
class Needs:
    """What a model asks of its data."""

    endpoints: tuple[str, ...]
    covariates: tuple[str, ...]
    compartments: tuple[str, ...]
    levels: dict[str, tuple[float, ...]]
    """Values of a categorical covariate for which every Category has a coefficient."""
    positive: frozenset[str]
    """Covariates whose logarithm is taken."""
    modelled: frozenset[tuple[str, str]]
    """(compartment, "rate" or "duration"): what RATE -1 and -2 may ask for."""
    occasion: str | None = None
    """The column of occasions, of a model with inter-occasion variability."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data beyond the standard ones: covariates and the occasion."""
        return tuple(dict.fromkeys((*self.covariates, *([self.occasion] if self.occasion else []))))


def needs_of(model: Any) -> Needs:
    """What the declared model asks of its data. Raises ModelError for anything but an instance of a model class."""
    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class; pass an instance: {model.__name__}().")
    if not hasattr(model, "specification"):
        raise ModelError(f"model must be an instance of an nm.Model class, got {type(model).__name__}.")
    spec = model.current().specification
    effects = [effect for parameter in spec.individuals.values() for effect in parameter.covariates]
    levels: dict[str, tuple[float, ...]] = {}
    for effect in effects:
        if isinstance(effect, Category):
            named = (effect.reference, *effect.levels)
            levels[effect.column] = tuple(v for v in levels.get(effect.column, named) if v in named)
    positive = frozenset(effect.column for effect in effects if isinstance(effect, Power))
    modelled = model.dosing_fields | {(name, "duration") for name in model.routed_durations}
    return Needs(model.endpoints, model.covariates, spec.compartments, levels, positive, modelled, spec.occasion)
