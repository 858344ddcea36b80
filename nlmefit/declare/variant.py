"""What makes a model a variant of its class: other declarations, other values."""

from dataclasses import fields, is_dataclass
from typing import Any

from nlmefit.declare.declared import DeclaredModel
from nlmefit.declare.specification import declarations

MOST = 4
"""Differences that a title names."""
LONGEST = 60
"""Letters of a declaration in a title."""


def declared(model: DeclaredModel) -> str:
    """The declarations that differ from the class's: "with CL = LogNormal(...)"; empty where none does."""
    spec = model.specification
    own = {**spec.individuals, **spec.thetas, **spec.networks, **spec.residuals}
    known = declarations(type(model))
    changed = [
        name for name, value in own.items() if name in known and value is not known[name] and repr(value) != repr(known[name])
    ]
    return f"with {_some([f'{name} = {_brief(own[name])}' for name in changed])}" if changed else ""


def moved(model: DeclaredModel) -> str:
    """The values that differ from the declared ones: "at CL = 3, V = 30"; empty where none does."""
    start = {name: p.value for name, p in model._population.items()}
    other = {name: p.value for name, p in model.population().items() if p.value != start[name]}
    return f"at {_some([f'{name} = {value:.4g}' for name, value in other.items()])}" if other else ""


def variant(model: DeclaredModel) -> str:
    """Both, in words."""
    return " ".join(filter(None, [declared(model), moved(model)]))


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:MOST]) + (f" and {len(texts) - MOST} more" if len(texts) > MOST else "")


def _brief(declaration: Any) -> str:
    """As a modeller writes it: the value, and what is not as by default."""
    if not is_dataclass(declaration):
        return repr(declaration)
    first, *others = fields(declaration)
    said = [repr(getattr(declaration, first.name))]
    said += [
        f"{f.name}={getattr(declaration, f.name)!r}" for f in others if repr(getattr(declaration, f.name)) != repr(f.default)
    ]
    text = f"{type(declaration).__name__}({', '.join(said)})"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
