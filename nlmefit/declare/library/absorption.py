"""How a drug given outside the circulation comes into the central compartment, as values to pass as `absorption=`.

| absorption | compartments in front of central | parameters |
|---|---|---|
| None | | |
| "first-order" | depot | ka |
| "zero-order" | | Tk0 |
| Transit() | depot | mtt, n, ka |
| Transit(compartments=3) | depot, transit1, transit2, transit3, absorption | mtt, ka |
| ParallelAbsorption() | depot, depot2 | Fr, ka, ka2 |
| ParallelAbsorption(second="zero-order") | depot | Fr, ka, Tk0 |

Rate constants are per unit of time, mtt, Tk0 and tlag2 are times, n and Fr have no unit.
"""

import abc
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, final

from nlmefit.core.errors import ModelError
from nlmefit.declare.dynamics import Route
from nlmefit.declare.library.checks import check_flag, check_one_of
from nlmefit.declare.namespace import Values


class AbstractAbsorption(abc.ABC):
    """What stands between a dose and `central`."""

    @property
    @abc.abstractmethod
    def front(self) -> tuple[str, ...]:
        """Names of the compartments in front of `central`; the first is where doses go by default."""

    @property
    @abc.abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the individual parameters that it reads."""

    @abc.abstractmethod
    def derivatives(self, A: Values, p: Values) -> dict[str, Any]:
        """dA/dt of the compartments in front, and under "central" the rate at which they release drug into it."""

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        """The routes of doses, by the compartment that they are given to; a dose goes straight there where none is given."""
        return {}


@final
@dataclass(frozen=True)
class NoAbsorption(AbstractAbsorption):
    """Doses go into `central`."""

    front = ()
    parameters = ()

    def derivatives(self, A: Values, p: Values) -> dict[str, Any]:
        return {}


@final
@dataclass(frozen=True)
class FirstOrder(AbstractAbsorption):
    """d depot/dt = -ka depot; `central` receives ka depot."""

    front = ("depot",)
    parameters = ("ka",)

    def derivatives(self, A: Values, p: Values) -> dict[str, Any]:
        absorbed = p["ka"] * A["depot"]
        return {"depot": -absorbed, "central": absorbed}


@final
@dataclass(frozen=True)
class ZeroOrder(AbstractAbsorption):
    """A bolus into `central` enters at the constant rate dose/Tk0 over the time Tk0."""

    front = ()
    parameters = ("Tk0",)

    def derivatives(self, A: Values, p: Values) -> dict[str, Any]:
        return {}

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        return {"central": (Route("central", duration=p["Tk0"]),)}


@final
@dataclass(frozen=True)
class Transit(AbstractAbsorption):
    """Absorption delayed by a chain of n transit compartments (Savic, Jonker, Kerbusch and Karlsson 2007).

    Drug passes n + 1 compartments a_0 ... a_n at the rate ktr = (n + 1)/mtt each, mtt being the mean transit time, and is
    then absorbed at the rate ka:

        da_0/dt = -ktr a_0,  da_j/dt = ktr (a_j-1 - a_j),  dabsorption/dt = ktr a_n - ka absorption,

    and `central` receives ka absorption. The dose is given into a_0.

    `Transit()` estimates n, any number from 0 up: a dose into `depot` arrives there as the gamma density
    ktr (ktr t)^n exp(-ktr t)/Gamma(n + 1) of the time t since the dose, which is the chain's output for whole n, and `depot`
    is the absorption compartment: ddepot/dt = input - ka depot.

    `Transit(compartments=5)` fixes n = 5 and writes the chain out: `depot` is a_0, `transit1` ... `transit5` are a_1 ... a_5,
    and `absorption` follows. It is linear in the amounts. Raises ModelError unless `compartments` is a whole number from 1 up.
    """

    compartments: int | None = None

    def __post_init__(self) -> None:
        n = self.compartments
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ModelError(
                f"Transit: compartments must be a whole number from 1 up, or None for a parameter `n` to be estimated, got {n!r}."
            )

    @property
    def front(self) -> tuple[str, ...]:
        if self.compartments is None:
            return ("depot",)
        return ("depot", *(f"transit{j}" for j in range(1, self.compartments + 1)), "absorption")

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("mtt", "n", "ka") if self.compartments is None else ("mtt", "ka")

    def derivatives(self, A: Values, p: Values) -> dict[str, Any]:
        if self.compartments is None:
            return FirstOrder().derivatives(A, p)
        *chain, last = self.front
        ktr = (self.compartments + 1) / p["mtt"]
        leaving = {name: ktr * A[name] for name in chain} | {last: p["ka"] * A[last]}
        rates = {chain[0]: -leaving[chain[0]]}
        rates |= {name: leaving[before] - leaving[name] for before, name in pairwise(self.front)}
        return rates | {"central": leaving[last]}

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        if self.compartments is not None:
            return {}
        return {"depot": (Route("depot", transit=(p["n"], (p["n"] + 1) / p["mtt"])),)}


@final
@dataclass(frozen=True)
class ParallelAbsorption(AbstractAbsorption):
    """Two absorptions at once of a dose into `depot`: the share Fr by one way, 1 - Fr by another.

    Fr enters `depot`, ddepot/dt = -ka depot. The rest, with `second`

    - "first-order", enters `depot2`, ddepot2/dt = -ka2 depot2, and `central` receives ka depot + ka2 depot2;
    - "zero-order", enters `central` at a constant rate over the time Tk0.

    With `lag` the rest starts a time tlag2 later. Keep 0 < Fr < 1, for example by nm.LogitNormal; two first-order ways without
    a lag can be exchanged for one another, so let ka2 = ka k with k in (0, 1) or the like tell them apart.
    Raises ModelError for any other `second`.
    """

    second: Literal["first-order", "zero-order"] = "first-order"
    lag: bool = False

    def __post_init__(self) -> None:
        check_one_of(self, "second", self.second, ("first-order", "zero-order"))
        check_flag(self, "lag", self.lag)

    @property
    def front(self) -> tuple[str, ...]:
        return ("depot", "depot2") if self.second == "first-order" else ("depot",)

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("Fr", "ka", "ka2" if self.second == "first-order" else "Tk0", *(("tlag2",) if self.lag else ()))

    def derivatives(self, A: Values, p: Values) -> dict[str, Any]:
        first = p["ka"] * A["depot"]
        if self.second == "zero-order":
            return {"depot": -first, "central": first}
        second = p["ka2"] * A["depot2"]
        return {"depot": -first, "depot2": -second, "central": first + second}

    def routes(self, p: Values) -> dict[str, tuple[Route, ...]]:
        rest, lag = 1 - p["Fr"], p["tlag2"] if self.lag else None
        if self.second == "first-order":
            second = Route("depot2", share=rest, lag=lag)
        else:
            second = Route("central", share=rest, lag=lag, duration=p["Tk0"])
        return {"depot": (Route("depot", share=p["Fr"]), second)}


Absorption = AbstractAbsorption | Literal["first-order", "zero-order"] | None

_NAMED: dict[object, AbstractAbsorption] = {None: NoAbsorption(), "first-order": FirstOrder(), "zero-order": ZeroOrder()}


def absorption_value(absorption: Absorption) -> AbstractAbsorption:
    """The value that stands for what was passed as `absorption=`; ModelError if there is none."""
    if isinstance(absorption, AbstractAbsorption):
        return absorption
    if absorption is None or isinstance(absorption, str) and absorption in _NAMED:
        return _NAMED[absorption]
    raise ModelError(
        "absorption must be None, 'first-order', 'zero-order', nm.Transit(...) or nm.ParallelAbsorption(...), "
        f"got {absorption!r}."
    )
