"""What all models of an effect share: the pharmacokinetic model whose concentration drives them."""

import abc
from typing import Any

from nlmefit.core.errors import ModelError
from nlmefit.declare.dynamics import AbstractDynamics, Route
from nlmefit.declare.library.pharmacokinetics import AbstractPharmacokinetics
from nlmefit.declare.namespace import Values


class AbstractPharmacodynamics(AbstractDynamics):
    """A system that the concentration in `central` acts on; the compartments of `pk` come first, then its own.

    Subclasses have the field `pk`, None where they may stand without a drug.
    """

    pk: AbstractPharmacokinetics | None

    @property
    @abc.abstractmethod
    def states(self) -> tuple[str, ...]:
        """Names of its own compartments."""

    @property
    @abc.abstractmethod
    def effect_parameters(self) -> tuple[str, ...]:
        """Names of its own parameters."""

    @abc.abstractmethod
    def effect_rates(self, C: Any, A: Values, p: Values) -> dict[str, Any]:
        """d/dt of `states` at the concentration C; C is 0 without a drug."""

    @abc.abstractmethod
    def baseline(self, p: Values) -> dict[str, Any]:
        """Initial values of `states`; 0 where none is given."""

    @property
    def compartments(self) -> tuple[str, ...]:
        return (*(self.pk.compartments if self.pk else ()), *self.states)

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*(self.pk.parameters if self.pk else ()), *self.effect_parameters)

    def derivatives(self, t: Any, A: Values, p: Values) -> dict[str, Any]:
        if self.pk is None:
            return self.effect_rates(0.0, A, p)
        return {**self.pk.derivatives(t, A, p), **self.effect_rates(self.pk.concentration(A, p), A, p)}

    def initial(self, p: Values) -> dict[str, Any]:
        return {**(self.pk.initial(p) if self.pk else {}), **self.baseline(p)}

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        return self.pk.routes(p) if self.pk else {}


def check_pk(owner: object, pk: object) -> None:
    """ModelError unless `pk` is a pharmacokinetic model."""
    if not isinstance(pk, AbstractPharmacokinetics):
        raise ModelError(
            f"{type(owner).__name__}: pk must be a pharmacokinetic model, nm.OneCompartment(...), nm.TwoCompartment(...), "
            f"nm.ThreeCompartment(...), nm.MichaelisMenten(...) or nm.TMDD(...), got {pk!r}."
        )
