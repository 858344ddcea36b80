"""Random effects that are not normal: a flow of normal ones."""

from dataclasses import dataclass
from typing import final

from nlmefit.core.errors import ModelError

EDGE = 2.25
"""How far the polynomial of a log slope goes in eta, to either side."""


@final
@dataclass(frozen=True, init=False)
class Flow:
    """Random effects as a normalizing flow of normal ones, for populations that are skewed, heavy-tailed or mixed:

        P_i = h(mu(x_i) + omega T(eta_i)),    eta_i ~ N(0, 1),    E T(eta) = 0, Var T(eta) = 1

    `flow = nm.Flow("CL", "ka")` gives each of these parameters a distribution of its own: T is a smooth monotone spline whose log
    slope is a polynomial of degree `order`, without constant, in eta from -2.25 to 2.25, and constant beyond. Its weights are the
    coefficients of Chebyshev's polynomials: `flow_CL_1` makes it skewed (to the right if positive), `flow_CL_2` heavy-tailed
    (positive) or two-peaked (negative); where all are 0, T is the identity and the distribution normal. A group
    `nm.Flow("CL V")` has a joint distribution (Knothe and Rosenblatt's map): to the spline of V's eta is added a curve in CL's
    whose slope is such a polynomial, with weights `flow_V_CL_0` (a straight line), ...

    T is standardised exactly: the typical value stays at the mean of mu + omega T, and omega is the sd. What methods, tables and
    plots show as eta of these parameters are the normal scores eta_i, of variance 1; `nm.plot.random_effects` shows the
    distributions. Its likelihood can have several maxima (compare starts and methods by `nm.compare`); EM methods, SAEM among
    them, refuse such a model. (Davidian and Gallant 1993 estimate the density of random effects by maximum likelihood; as a flow:
    Rezende and Mohamed 2015; splines: Ramsay 1988.)

    Raises ModelError for names that are no etas of the model, one named twice, and an order that is no whole number from 1 up.
    """

    groups: tuple[tuple[str, ...], ...]
    order: int

    def __init__(self, *groups: str, order: int = 6):
        for group in groups:
            if not isinstance(group, str):
                raise ModelError(f'Parameters with a flow are written as text, for example nm.Flow("CL V", "ka"), got {group!r}.')
        names = tuple(tuple(group.split()) for group in groups)
        flat = [name for group in names for name in group]
        if not flat or not all(names):
            raise ModelError('nm.Flow needs the parameters whose random effects it is for: nm.Flow("CL V").')
        twice = {name for name in flat if flat.count(name) > 1}
        if twice:
            raise ModelError(f"A random effect has one flow, found twice: {', '.join(sorted(twice))}.")
        if isinstance(order, bool) or not isinstance(order, int) or order < 1:
            raise ModelError(f"Flow(order=...) must be a whole number from 1 up, got {order!r}.")
        object.__setattr__(self, "groups", names)
        object.__setattr__(self, "order", order)

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters with a flow."""
        return tuple(name for group in self.groups for name in group)

    def before(self, name: str) -> tuple[str, ...]:
        """Those of its group that a parameter's T depends on besides its own eta."""
        group = next(group for group in self.groups if name in group)
        return group[: group.index(name)]

    def own_weights(self, name: str) -> tuple[str, ...]:
        """Names of the weights of a parameter's spline."""
        return tuple(f"flow_{name}_{k}" for k in range(1, self.order + 1))

    def shared_weights(self, name: str, other: str) -> tuple[str, ...]:
        """Names of the weights of what another eta adds to a parameter's T."""
        return tuple(f"flow_{name}_{other}_{k}" for k in range(self.order + 1))

    def weights(self) -> tuple[str, ...]:
        """Names of all weights."""
        found: list[str] = []
        for name in self.names:
            found += self.own_weights(name)
            for other in self.before(name):
                found += self.shared_weights(name, other)
        return tuple(found)

    def __repr__(self) -> str:
        groups = ", ".join(f'"{" ".join(group)}"' for group in self.groups)
        return f"Flow({groups}, order={self.order})"
