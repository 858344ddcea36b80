"""An encoder's answers: the posterior of subjects inside and outside of the data it was trained on, and whether to rely on it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.core.errors import MethodError
from nlmefit.estimate import random_numbers
from nlmefit.estimate.posterior import AbstractPosterior, Gaussian
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import DEGREES, Proposal, Weights, sample
from nlmefit.estimate.variational.encoder import Reader
from nlmefit.estimate.variational.wake_sleep import gaussian

FRESH = 1000
"""Draws of each subject, where their number is not given."""
FURTHER = 1.5
"""A record with a number this many times as far from the mean in training as any there lies outside."""


class Seen(NamedTuple):
    """Where the records that an encoder was trained on lie: by number of their summaries, mean and largest distance from it."""

    mean: Float[np.ndarray, "s"]
    largest: Float[np.ndarray, "s"]

    @classmethod
    def of(cls, summaries: Float[np.ndarray, "k s"]) -> "Seen":
        """Numbers that were the same in all records (one dose for everybody, say) may be off by 0.05, in standardised units."""
        mean = summaries.mean(axis=0)
        return cls(mean, np.maximum(np.abs(summaries - mean).max(axis=0), 0.05))

    def distance(self, summaries: Float[np.ndarray, "n s"]) -> Float[np.ndarray, "n"]:
        """As a multiple of the largest in training, of the number that is furthest out."""
        return np.max(np.abs(summaries - self.mean) / self.largest, axis=1, initial=0.0)


@final
@dataclass(frozen=True)
class Encoded(AbstractPosterior):
    """q(z | y_i) of subjects as an encoder sees them, at the fit's theta."""

    mean: Float[np.ndarray, "N q"]
    scale: Float[np.ndarray, "N q q"]
    """S_i: lower triangular, of positive diagonal."""
    root: Float[np.ndarray, "q q"]
    """Omega's Cholesky factor: eta = root z."""
    distance: Float[np.ndarray, "N"]
    """From the mean of the records in training, as a multiple of the largest there, of the number that is furthest out: what is
    compared are means and sds of times, values and doses by endpoint and compartment, counts, covariates."""
    problem: Problem = field(repr=False)
    u: Float[np.ndarray, "p"] = field(repr=False)

    @property
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        return self.scale @ np.swapaxes(self.scale, 1, 2)

    @property
    def eta(self) -> Float[np.ndarray, "N q"]:
        """Means of the random effects."""
        return self.mean @ self.root.T

    @property
    def outside(self) -> Bool[np.ndarray, "N"]:
        """Who lies outside of what the encoder was trained on: in some number over 1.5 times as far out as any record there."""
        return ~(self.distance <= FURTHER)

    @property
    def warning(self) -> str:
        """A sentence that names them; empty where all lie inside."""
        who = self.problem.labels(self.outside)
        if not who:
            return ""
        shown = ", ".join(map(str, who[:8])) + (", ..." if len(who) > 8 else "")
        return (
            f"{len(who)} subject(s) are unlike any that the encoder was trained on (in some number over {FURTHER:g} times as far "
            f"from their mean as any of them): {shown}. Do not rely on their means and covariances; `corrected` says how far off."
        )

    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        return Proposal(self.mean, self.scale, np.inf).draw(random_numbers.generator(key), count).points

    def corrected(self, key: Array, count: int = FRESH, df: float = DEGREES) -> Weights:
        """Importance sampling with a multivariate t around q as the proposal: `.posterior` is p(z | y_i, theta) but for Monte
        Carlo error, `.log_likelihood` with `.mc_se` its normalising constant; `.ess` and `.khat` say whether to believe them."""
        return sample(self.problem, self.u, Proposal(self.mean, self.scale, df), random_numbers.generator(key), count)


@final
@dataclass(frozen=True)
class Amortized(AbstractPosterior):
    """The posterior of the subjects of a fit, and the encoder that gives that of any others (`of`)."""

    mean: Float[np.ndarray, "N q"]
    spread: Float[np.ndarray, "N q q"]
    network: Any = field(repr=False)
    reader: Reader = field(repr=False)
    seen: Seen = field(repr=False)
    u: Float[np.ndarray, "p"] = field(repr=False)
    refined: bool = False
    """Whether mean and spread are the subjects' own optima, and not the encoder's answers."""

    @property
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        return self.spread

    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        return Gaussian(self.mean, self.spread).draws(key, count)

    def reads(self, problem: Problem) -> bool:
        """Whether the encoder can answer for a problem's subjects."""
        return problem.q == self.mean.shape[1] and tuple(problem.subjects.observed) == self.reader.sites

    def of(self, problem: Problem) -> Encoded:
        """The encoder's answer for the subjects of a problem, made of the fit's model and any data.

        Raises MethodError where they have another number of random effects (more occasions, say) or other observations.
        """
        if not self.reads(problem):
            raise MethodError(
                f"the encoder gives {self.mean.shape[1]} random effects from {', '.join(self.reader.sites)}; these data have "
                f"{problem.q}, from {', '.join(problem.subjects.observed)}. Fit the model to data laid out like these."
            )
        mean, scale, summary = (np.asarray(x) for x in read(self.network, self.reader, problem.subjects))
        root = problem.model.omega(problem.coordinates.theta(jnp.asarray(self.u), problem.fixed))
        return Encoded(mean, scale, np.asarray(root), self.seen.distance(summary), problem, self.u)


@eqx.filter_jit
def read(network: Any, reader: Reader, subjects: Any) -> tuple[Array, Array, Array]:
    """m_i, S_i and the summary of every subject's record."""
    mean, scale = gaussian(network, reader, subjects)
    return mean, scale, jax.vmap(lambda s: reader.summary(reader(s)))(subjects)
