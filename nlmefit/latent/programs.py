"""Compiled programs of latent models, each built once for all models that differ in values only."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from nlmefit.core.content import content
from nlmefit.latent.model import AbstractLatentModel

KEPT = 512
"""Programs that are kept, the ones used last."""


class _Request:
    """A program to be built, equal to another for which the same would come out."""

    def __init__(self, build: Callable[..., Any], model: AbstractLatentModel, others: tuple[Any, ...]):
        self.build, self.model, self.others = build, model, others
        self._key = (build, type(model), model.structure(), content(others))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Request) and self._key == other._key


@lru_cache(maxsize=KEPT)
def _built(request: _Request) -> Any:
    return request.build(request.model, *request.others)


def program(build: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function that builds a compiled program of a model and of what else the program depends on: it is called once
    for all models of one structure (the same code, constants and layout, whatever the values of the parameters)."""

    @wraps(build)
    def kept(model: AbstractLatentModel, *others: Any) -> Any:
        return _built(_Request(build, model, others))

    return kept
