"""The seam between models and methods.

    y_i | eta_i ~ p(y_i | theta, eta_i),    eta_i ~ N(0, Omega(theta)),    i = 1..N independent

Every method in `estimate/` sees a model only through this class; a PK model and a PPCA differ in `observe`.
"""

import abc
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import Distribution, constraints

from nlmefit.core.typing import Theta

Kind = Literal["theta", "omega", "correlation"]


@dataclass(frozen=True)
class Parameter:
    """A population parameter of a latent model: an array with its support, start and prior."""

    name: str
    support: constraints.Constraint
    start: np.ndarray
    prior: Distribution
    """Proper; used by Bayesian methods, never by maximum likelihood."""
    declared_prior: bool = False
    """Whether the modeller wrote the prior (methods that ignore priors refuse such a model)."""
    fixed: bool = False
    unit: str = ""
    kind: Kind = "theta"
    """omega: a standard deviation of random effects, which may collapse to 0; correlation: the factor of a correlation matrix."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.start.shape


class Subject(Protocol):
    """What the engine reads of one subject: a PyTree with the observed values per site, padded, and their masks.

    All subjects of a data set are one such PyTree with a leading axis N; what it says of its lengths is for that one.
    """

    observed: dict[str, Float[Array, "n"]]
    mask: dict[str, Bool[Array, "n"]]

    def lengths(self) -> Int[np.ndarray, "N k"]:
        """How long each subject's padded axes need be: observations first."""

    def subset(self, members: Int[np.ndarray, " m"]) -> Any:
        """Those subjects, padded no further than the longest of them needs."""


class Dataset(Protocol):
    """All subjects: a batched `Subject` (leading axis N), their labels, and the number of observations."""

    @property
    def subjects(self) -> Any: ...

    @property
    def ids(self) -> np.ndarray: ...

    @property
    def observations(self) -> np.ndarray:
        """Number of observations by subject (N,)."""


class Rows(eqx.Module):
    """Subjects that are rows of a matrix, fully observed, at one site."""

    observed: dict[str, Any]
    mask: dict[str, Any]
    given: Any = None
    """What each row is conditioned on (N, C), if anything."""

    @classmethod
    def of(cls, site: str, matrix: Any, given: Any = None) -> "Rows":
        matrix = np.asarray(matrix, float)
        return cls({site: matrix}, {site: np.ones(matrix.shape, bool)}, given)

    def lengths(self) -> Int[np.ndarray, "N 1"]:
        rows, columns = next(iter(self.mask.values())).shape
        return np.full((rows, 1), columns)

    def subset(self, members: Int[np.ndarray, " m"]) -> "Rows":
        return jax.tree.map(lambda x: x[members], self)


class AbstractLatentModel(eqx.Module):
    """y_i | eta_i ~ p(y_i | theta, eta_i),  eta_i ~ N(0, Omega(theta))."""

    @abc.abstractmethod
    def parameters(self) -> dict[str, Parameter]:
        """The population parameters by name."""

    @abc.abstractmethod
    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        """Lower Cholesky factor of Omega."""

    @abc.abstractmethod
    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        """Distribution of every observed site, batch shape (n,)."""

    def taylor_expanded(self, theta: Theta, eta: Float[Array, "q"], subject: Any, order: int) -> "AbstractLatentModel":
        """The model for this subject, with the differential equations of `observe` replaced by their Taylor polynomial of that
        order around (theta, eta).

        There `observe` is exact in value and in as many derivatives; a model without differential equations is its own. The
        polynomial is itself differentiable, in forward mode, in the point that it is made around.
        """
        return self

    @property
    def solves_ode(self) -> bool:
        """Whether amounts are computed by more than a closed form, so that `taylor_expanded` replaces them."""
        return False

    def stiff_fallback(self) -> "AbstractLatentModel | None":
        """The same model by a stiff solver, slower, for the subjects that this one cannot solve."""
        return None

    def reasons(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> str:
        """Why a subject's computation may end without a number, beside the values of parameters and covariates: the end of a
        sentence, or nothing."""
        return ""

    @abc.abstractmethod
    def eta_names(self) -> tuple[str, ...]:
        """Names of the q random effects."""

    def used(self, subjects: Any, size: int) -> Bool[np.ndarray, "N q"]:
        """Which of the random effects each of the subjects has."""
        return np.ones((size, len(self.eta_names())), bool)

    def centre(self, theta: Theta, subject: Any) -> Float[Array, "q"]:
        """mu_i (q,): what stands beside eta in mu_i + eta, where the model is mu-referenced; 0 elsewhere."""
        return jnp.zeros(len(self.eta_names()))

    def centred(self, subjects: Any) -> tuple[str, ...]:
        """The parameters that observations depend on through mu_i + eta alone, and those of Omega: given mu_i + eta of every
        subject, they are estimated without looking at the observations."""
        return ()

    def scores(self) -> tuple[str, ...]:
        """Names of random effects that are normal scores, of which a flow with parameters of its own makes the effect."""
        return ()

    @abc.abstractmethod
    def structure(self) -> Hashable:
        """What the compiled program depends on: equal for models that differ in values only."""

    @abc.abstractmethod
    def report(self, theta: Theta) -> dict[str, Array]:
        """theta as named scalars, for tables; smooth in theta (the delta method differentiates it)."""

    def reported(self, theta: Theta) -> Float[Array, "k"]:
        """The values of `report` as one vector. A model with very many computes it at once: a scalar each is slow to compile."""
        return jnp.stack([jnp.asarray(value, float) for value in self.report(theta).values()])

    @abc.abstractmethod
    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        """One subject's individual parameters by name; empty where the model has none."""

    @abc.abstractmethod
    def at(self, theta: Mapping[str, np.ndarray]) -> Any:
        """The model (as the modeller knows it) at these values of its parameters."""

    @abc.abstractmethod
    def conventions(self) -> dict[str, str]:
        """How this model reads its data, in words, for the head of a printed fit."""


class Maximum(NamedTuple):
    """theta at the maximum of sum_i log p(y_i | theta)."""

    theta: dict[str, np.ndarray]
    doubts: tuple[str, ...] = ()
    """Sentences on why it may not be the maximum."""


class AbstractExact(AbstractLatentModel):
    """A latent model with all in closed form: log p(y_i | theta), its maximum, and the normal p(eta | y_i, theta)."""

    @abc.abstractmethod
    def log_marginal(self, theta: Theta, subject: Any) -> Float[Array, ""]:
        """log p(y_i | theta)."""

    @abc.abstractmethod
    def statistics(self, subjects: Any) -> Any:
        """What is left of all subjects in sum_i log p(y_i | theta): its sufficient statistics."""

    @abc.abstractmethod
    def log_likelihood(self, theta: Theta, statistics: Any) -> Float[Array, ""]:
        """sum_i log p(y_i | theta), from those."""

    @abc.abstractmethod
    def maximum(self, subjects: Any) -> Maximum:
        """The maximum of that. DataError where there is none."""

    @abc.abstractmethod
    def conditional(self, theta: Theta, subjects: Any) -> tuple[Float[np.ndarray, "N q"], Float[np.ndarray, "N q q"]]:
        """Means and precisions of p(eta_i | y_i, theta)."""


def scalars(theta: Theta) -> dict[str, Array]:
    """The default report: scalars by name, array elements as `W[0,1]`."""
    result = {}
    for name, value in theta.items():
        value = jnp.asarray(value)
        if value.ndim == 0:
            result[name] = value
        else:
            for index in np.ndindex(value.shape):
                result[f"{name}[{','.join(map(str, index))}]"] = value[index]
    return result
