"""Divergences between two laws p and q, given by their log densities.

Each is made of expectations under p and under q, and `over` says how those are taken: by quadrature on an `Interval`, as sums
over the `Atoms` of discrete laws, or as averages over `Draws`, then with a Monte Carlo standard error. Log densities are
functions of an array of points, (N,) or (N, D), with values (N,).

    import scipy.stats
    from nlmefit.generative.divergence import Draws, Interval, kl

    p, q = scipy.stats.norm(0, 1), scipy.stats.norm(1, 0.8)
    kl(p.logpdf, q.logpdf, Interval(-12, 12))                        # 0.8394
    kl(p.logpdf, q.logpdf, Draws(p=p.rvs(10_000, random_state=1)))   # the same but for a standard error
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import expit, roots_legendre

from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.options import check_whole

LogDensity = Callable[[Any], Any]
Which = Literal["p", "q"]

NODES = 16
"""Gauss-Legendre nodes in a panel of an interval."""
MASS = 1e-6
"""How far from 1 a law may sum on an interval or over atoms."""


class Estimate(NamedTuple):
    """A divergence in nats, and its Monte Carlo standard error: 0 but for `Draws`."""

    value: float
    mc_se: float


class Law(NamedTuple):
    """E[f(x)] = sum_k weights_k f(points_k)."""

    name: Which
    points: Float[np.ndarray, "N *D"]
    weights: Float[np.ndarray, "N"]
    drawn: bool

    def mean(self, terms: Float[np.ndarray, "N"]) -> Estimate:
        value = float(self.weights @ terms)
        if not self.drawn or not np.isfinite(value):  # one infinite term makes the divergence infinite, without error
            return Estimate(value, 0.0)
        return Estimate(value, float(np.std(terms, ddof=1) / np.sqrt(len(terms))))


class AbstractExpectation(abc.ABC):
    """How expectations under p and q are taken."""

    @abc.abstractmethod
    def law(self, name: Which, log_density: LogDensity) -> Law:
        """Where the law has mass, and how much. Raises DataError where that is not 1."""

    @abc.abstractmethod
    def check(self, name: Which, log_density: LogDensity) -> None:
        """DataError for mass over 1. Less may be right: a law that nothing is averaged over may reach beyond where the other
        lives."""


@final
@dataclass(frozen=True)
class Interval(AbstractExpectation):
    """Laws on the line, by Gauss-Legendre quadrature: `panels` panels of 16 nodes on each stretch of [lower, upper] between
    `breaks`, the places where a density jumps.

    Raises MethodError unless lower < breaks < upper are finite and panels is a whole number from 1 up, and later DataError where
    a law averaged over has mass other than 1 there.
    """

    lower: float
    upper: float
    breaks: tuple[float, ...] = ()
    panels: int = 100

    def __post_init__(self) -> None:
        edges = self._edges
        if not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
            raise MethodError(
                f"an Interval needs finite lower < breaks < upper, in order; got {', '.join(f'{x:g}' for x in edges)}. "
                "For a law on the whole line take limits that leave out less than 1e-6 of it."
            )
        check_whole("panels", self.panels, 1)

    def law(self, name: Which, log_density: LogDensity) -> Law:
        remedy = (
            f"Widen the interval, raise panels (now {self.panels}), name the density's jumps in breaks, or normalize log_{name}."
        )
        return _normalized(name, *self._weighted(name, log_density), self._place, remedy)

    def check(self, name: Which, log_density: LogDensity) -> None:
        _check_mass(name, self._weighted(name, log_density)[1], self._place)

    def _weighted(self, name: Which, log_density: LogDensity) -> tuple[np.ndarray, np.ndarray]:
        nodes, weights = roots_legendre(NODES)
        stretches = zip(self._edges[:-1], self._edges[1:], strict=True)
        edges = np.unique(np.concatenate([np.linspace(a, b, self.panels + 1) for a, b in stretches]))
        middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
        points = (middle[:, None] + half[:, None] * nodes).ravel()
        return points, (half[:, None] * weights).ravel() * np.exp(_values(f"log_{name}", log_density, points))

    @property
    def _edges(self) -> np.ndarray:
        return np.array([self.lower, *self.breaks, self.upper], float)

    @property
    def _place(self) -> str:
        return f"on [{self.lower:g}, {self.upper:g}]"


@final
@dataclass(frozen=True)
class Atoms(AbstractExpectation):
    """Discrete laws on `points`, (N,) or (N, D): log densities are log masses. Raises DataError where masses don't sum to 1."""

    points: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_sample("points", self.points))

    def law(self, name: Which, log_density: LogDensity) -> Law:
        remedy = f"Add the points that are missing, or normalize log_{name}."
        return _normalized(name, self.points, self._masses(name, log_density), self._place, remedy)

    def check(self, name: Which, log_density: LogDensity) -> None:
        _check_mass(name, self._masses(name, log_density), self._place)

    def _masses(self, name: Which, log_density: LogDensity) -> np.ndarray:
        return np.exp(_values(f"log_{name}", log_density, self.points))

    @property
    def _place(self) -> str:
        return f"over {len(self.points)} atoms"


def _normalized(name: Which, points: np.ndarray, weights: np.ndarray, place: str, remedy: str) -> Law:
    mass = weights.sum()
    if abs(mass - 1) > MASS:
        raise DataError(f"{name} has mass {mass:.7g} {place}, not 1. {remedy}")
    kept = weights > 0  # 0 log 0 = 0
    return Law(name, points[kept], weights[kept], False)


def _check_mass(name: Which, weights: np.ndarray, place: str) -> None:
    mass = weights.sum()
    if mass > 1 + MASS:
        raise DataError(f"{name} has mass {mass:.7g} {place}, more than 1: normalize log_{name}.")


@final
@dataclass(frozen=True)
class Draws(AbstractExpectation):
    """Independent draws, (N,) or (N, D), of p and of q; each divergence says which it needs. Log densities must be normalized.

    Raises DataError for fewer than two draws, values that are not finite, or log densities of -inf at a law's own draws.
    """

    p: np.ndarray | None = None
    q: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("p", "q"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_sample(f"the sample of {name}", getattr(self, name), least=2))

    def law(self, name: Which, log_density: LogDensity) -> Law:
        points = self.points(name)
        outside = np.sum(_values(f"log_{name}", log_density, points) == -np.inf)
        if outside:
            raise DataError(
                f"log_{name} is -inf at {outside} of the {len(points)} draws of {name}, which are then not draws of it. "
                "Are p and q exchanged?"
            )
        return self.uniform(name)

    def check(self, name: Which, log_density: LogDensity) -> None:
        """Draws do not show a law's mass."""

    def uniform(self, name: Which) -> Law:
        """The sample itself, of which no density is known."""
        points = self.points(name)
        return Law(name, points, np.full(len(points), 1 / len(points)), True)

    def points(self, name: Which) -> np.ndarray:
        points = self.p if name == "p" else self.q
        if points is None:
            raise MethodError(f"this needs draws of {name}: Draws({name}=...).")
        return points


# ---- divergences -------------------------------------------------------------------------------------------------------


def entropy(log_p: LogDensity, over: AbstractExpectation) -> Estimate:
    """H(p) = -E_p[log p(x)], in nats (Shannon 1948); differential on an Interval. Draws: of p."""
    law = over.law("p", log_p)
    return law.mean(-_values("log_p", log_p, law.points))


def cross_entropy(log_p: LogDensity, log_q: LogDensity, over: AbstractExpectation) -> Estimate:
    """H(p, q) = -E_p[log q(x)] = H(p) + KL(p || q). Draws: of p.

    Averaged over data it is minus the mean log-likelihood of q, so that maximum likelihood minimizes KL(data || q).
    """
    over.check("q", log_q)
    law = over.law("p", log_p)
    return law.mean(-_values("log_q", log_q, law.points))


def kl(log_p: LogDensity, log_q: LogDensity, over: AbstractExpectation) -> Estimate:
    """KL(p || q) = E_p[log p(x) - log q(x)] >= 0 (Kullback and Leibler 1951). Draws: of p.

    Infinite where q is 0 and p is not.
    """
    over.check("q", log_q)
    law = over.law("p", log_p)
    return law.mean(_values("log_p", log_p, law.points) - _values("log_q", log_q, law.points))


def reverse_kl(log_p: LogDensity, log_q: LogDensity, over: AbstractExpectation) -> Estimate:
    """KL(q || p) = E_q[log q(x) - log p(x)]: of p the data and q the model, the one that variational inference minimizes and
    that forgives modes left out. Draws: of q.
    """
    over.check("p", log_p)
    law = over.law("q", log_q)
    return law.mean(_values("log_q", log_q, law.points) - _values("log_p", log_p, law.points))


def jensen_shannon(log_p: LogDensity, log_q: LogDensity, over: AbstractExpectation) -> Estimate:
    """JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2: symmetric, between 0 and log 2 (Lin 1991). Draws: of both.

    It is log 2 for all laws of disjoint supports, however far apart; `transport.wasserstein` is not.
    """
    value, error = _discriminated(log_p, log_q, over, _log_ratio(log_p, log_q), np.log(2))
    return Estimate(value / 2, error / 2)


def fisher(log_p: LogDensity, log_q: LogDensity, over: AbstractExpectation) -> Estimate:
    """D_F(p || q) = E_p[ |grad log p(x) - grad log q(x)|^2 ] (Hyvarinen 2005, without his factor 1/2). Draws: of p.

    0 only where p = q. The log densities are written in JAX; q need not be normalized, nor with Draws p: minus an energy will
    do. Raises MethodError for Atoms, which have no gradients, and for functions that JAX cannot differentiate.
    """
    if isinstance(over, Atoms):
        raise MethodError("the Fisher divergence is of densities; laws on Atoms have no gradient. Use kl or jensen_shannon.")
    law = over.law("p", log_p)
    difference = _score("log_p", log_p, law.points) - _score("log_q", log_q, law.points)
    return law.mean(np.sum(difference.reshape(len(difference), -1) ** 2, axis=1))


# ---- the discriminator of a GAN ----------------------------------------------------------------------------------------


def optimal_discriminator(log_p: LogDensity, log_q: LogDensity) -> Callable[[Any], np.ndarray]:
    """D*(x) = p(x) / (p(x) + q(x)), the discriminator of p (real) and q (generated) with the largest `gan_value`, as a function
    of points (Goodfellow et al. 2014, proposition 1). NaN where both densities are 0.
    """

    def discriminator(x: Any) -> np.ndarray:
        real, generated = _values("log_p", log_p, np.asarray(x)), _values("log_q", log_q, np.asarray(x))
        with np.errstate(invalid="ignore"):
            return expit(real - generated)

    return discriminator


def gan_value(
    log_p: LogDensity | None, log_q: LogDensity | None, over: AbstractExpectation, logit: LogDensity | None = None
) -> Estimate:
    """V(D) = E_p[log D(x)] + E_q[log(1 - D(x))] (Goodfellow et al. 2014, eq. 1), log D = -log(1 + exp(-logit)). Draws: of both.

    Without `logit` at the optimal discriminator, of logit log p - log q, where it is 2 JS(p, q) - 2 log 2; any other's is less:
    V(D) / 2 + log 2 is a lower bound of JS. With `logit` and Draws the log densities may be None.
    """
    if logit is None:
        if log_p is None or log_q is None:
            raise MethodError("the optimal discriminator needs log_p and log_q; give a discriminator's logit otherwise.")
        logit = _log_ratio(log_p, log_q)
    return _discriminated(log_p, log_q, over, logit, 0.0)


def _discriminated(
    log_p: LogDensity | None, log_q: LogDensity | None, over: AbstractExpectation, logit: LogDensity, shift: float
) -> Estimate:
    """E_p[shift + log D] + E_q[shift + log(1 - D)]. With a shift of log 2 both terms are 0, without rounding, where p = q."""
    real, generated = _law(over, "p", log_p), _law(over, "q", log_q)
    first = real.mean(shift - np.logaddexp(0.0, -_values("logit", logit, real.points)))
    second = generated.mean(shift - np.logaddexp(0.0, _values("logit", logit, generated.points)))
    return Estimate(first.value + second.value, float(np.hypot(first.mc_se, second.mc_se)))


def _law(over: AbstractExpectation, name: Which, log_density: LogDensity | None) -> Law:
    if log_density is not None:
        return over.law(name, log_density)
    if not isinstance(over, Draws):
        raise MethodError(f"log_{name} may be left out with Draws only, not with {type(over).__name__}.")
    return over.uniform(name)


def _log_ratio(log_p: LogDensity, log_q: LogDensity) -> LogDensity:
    return lambda x: _values("log_p", log_p, x) - _values("log_q", log_q, x)


# ---- points and values -------------------------------------------------------------------------------------------------


def as_sample(name: str, values: Any, least: int = 1) -> Float[np.ndarray, "N *D"]:
    """`values` as an array of numbers (N,) or (N, D). Raises DataError, naming what is wrong, unless it is one of `least` rows or
    more, all finite."""
    try:
        x = np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be an array of numbers, got {type(values).__name__}.") from error
    if x.ndim not in (1, 2) or 0 in x.shape[1:]:
        raise DataError(f"{name} must have shape (N,) or (N, D), a row per point; got {x.shape}.")
    if len(x) < least:
        raise DataError(f"{name} must have {least} rows or more, got {len(x)}.")
    bad = np.sum(~np.isfinite(x))
    if bad:
        raise DataError(f"{name} holds {bad} values that are not finite: leave those rows out, or find where they come from.")
    return x


def _values(name: str, function: LogDensity, points: Float[np.ndarray, "N *D"]) -> Float[np.ndarray, "N"]:
    """The function at the points. Raises DataError unless it is a number for each (-inf included)."""
    values = np.asarray(function(points), float)
    if values.shape != points.shape[:1]:
        raise DataError(
            f"{name} of points of shape {points.shape} has shape {values.shape}, not {points.shape[:1]}: it must be a function "
            "of many points at a time (jax.vmap makes it one)."
        )
    bad = np.isnan(values) | ((values == np.inf) & (name != "logit"))
    if bad.any():
        raise DataError(f"{name} is NaN or infinite at {bad.sum()} of {len(points)} points, the first of them {points[bad][0]}.")
    return values


def _score(name: str, log_density: LogDensity, points: Float[np.ndarray, "N *D"]) -> Float[np.ndarray, "N *D"]:
    """grad log p at each point: as each value is that of its own point, the gradient of their sum."""
    try:
        score = np.asarray(jax.grad(lambda x: jnp.sum(log_density(x)))(jnp.asarray(points)))
    except (jax.errors.JAXTypeError, TypeError) as error:
        raise MethodError(
            f"JAX cannot differentiate {name}: write it with jax.numpy, or with the log densities of jax.scipy.stats or NumPyro."
        ) from error
    if not np.all(np.isfinite(score)):
        raise DataError(f"the gradient of {name} is not finite at {np.sum(~np.isfinite(score))} of {score.size} coordinates.")
    return score
