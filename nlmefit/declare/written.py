"""Dynamics that the modeller writes as a method, as the same kind of value as those of the library."""

from collections.abc import Mapping
from typing import Any, final

from nlmefit.core.errors import ModelError, unknown
from nlmefit.declare.declared import DeclaredModel, method_of
from nlmefit.declare.dynamics import AbstractDynamics
from nlmefit.declare.namespace import Namespace, Values, in_words


@final
class Written(AbstractDynamics):
    """`dynamics(self, t, A, p)` of a model; compartments are numbered in the order of the dictionary that it returns."""

    def __init__(self, model: DeclaredModel, compartments: tuple[str, ...], parameters: tuple[str, ...] = ()):
        self._model, self._compartments, self._parameters = model, compartments, parameters

    def of(self, model: DeclaredModel) -> "Written":
        """The same dynamics as another instance's."""
        return Written(model, self._compartments, self._parameters)

    def __repr__(self) -> str:
        return "differential equations"

    @property
    def compartments(self) -> tuple[str, ...]:
        return self._compartments

    @property
    def parameters(self) -> tuple[str, ...]:
        return self._parameters

    def derivatives(self, t: Any, A: Values, p: Values) -> dict[str, Any]:
        amounts = A if isinstance(A, Namespace) else Namespace(A, "compartment")
        return written_derivatives(self._model, t, amounts, p)


def written_derivatives(model: DeclaredModel, t: Any, A: Namespace, p: Any) -> dict[str, Any]:
    """What the user's method returns, as a dictionary."""
    dynamics = method_of(model, "dynamics")
    assert dynamics is not None
    returned = dynamics(model, t, A, model.namespace(p))
    if not isinstance(returned, Mapping) or not all(isinstance(name, str) for name in returned):
        raise ModelError(
            f"{type(model).__name__}: `dynamics` must return a dictionary with dA/dt per compartment, got {in_words(returned)}."
        )
    return dict(returned)


def check_compartments(model: DeclaredModel, read: set[str], compartments: tuple[str, ...]) -> None:
    """ModelError for an amount that is read and has no derivative."""
    if not compartments:
        raise ModelError(f"{type(model).__name__}: `dynamics` returns no compartment.")
    for name in sorted(read - set(compartments)):
        raise ModelError(f"{type(model).__name__}: dynamics: " + unknown("compartment", name, compartments))
