"""The observations of each subject in their order: where they lie, what the model says of each, and the data up to one of them.

A subject's observations go by the order of its rows; of several sites at one row, in the model's order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import Distribution, ExpandedDistribution

from nlmefit.estimate.problem import Problem
from nlmefit.latent.distribution import mean_of, variance_of
from nlmefit.latent.program import Site


class Order(NamedTuple):
    """The M observations of all N subjects, each subject's in the order of its rows (sites at one row in the model's order)."""

    sites: tuple[str, ...]
    subject: Int[np.ndarray, " M"]
    row: Int[np.ndarray, " M"]
    site: Int[np.ndarray, " M"]
    place: Int[np.ndarray, " M"]
    """How many observations of the subject come before."""
    observed: Float[np.ndarray, " M"]

    @classmethod
    def of(cls, problem: Problem) -> "Order":
        sites = tuple(problem.families)
        real = np.stack([np.asarray(problem.subjects.mask[name], bool) for name in sites], axis=-1)
        value = np.stack([np.asarray(problem.subjects.observed[name], float) for name in sites], axis=-1)
        subject, row, site = np.nonzero(real)
        place = np.cumsum(real.reshape(len(real), -1), axis=1).reshape(real.shape) - 1
        return cls(sites, subject, row, site, place[real], value[real])

    @property
    def most(self) -> int:
        """Observations of the subject that has most."""
        return int(self.place.max()) + 1


class Steps(NamedTuple):
    """What is found of each subject's 1st, 2nd, ... observation, given those before."""

    log_predictive: Any
    mean: Any
    sd: Any
    pit: Any
    """P(Y <= y)."""
    mc_se: Any
    ess: Any


@dataclass
class Part:
    """A data set with some of its observations masked."""

    subjects: Any
    ids: np.ndarray
    observations: np.ndarray


def through(problem: Problem, order: Order, count: int | Int[np.ndarray, " N"]) -> Problem:
    """The problem with the first `count` observations of each subject; the others are masked.

    The union of all masks stays as the mask of a site that no model has, so that `lengths` and with it every padded shape is
    that of the whole data: all prefixes run in one compiled program.
    """
    subjects, counts = problem.subjects, np.broadcast_to(count, problem.size)
    kept = order.place < counts[order.subject]
    masks = {name: np.zeros(np.shape(subjects.mask[name]), bool) for name in order.sites}
    for i, name in enumerate(order.sites):
        here = kept & (order.site == i)
        masks[name][order.subject[here], order.row[here]] = True
    masks[""] = np.any([np.asarray(subjects.mask[name], bool) for name in order.sites], axis=0)
    cut = eqx.tree_at(lambda s: s.mask, subjects, masks)
    return Problem(problem.model, Part(cut, problem.ids, np.bincount(order.subject[kept], minlength=problem.size)))


# ---- what the model says of an observation ---------------------------------------------------------------------------


def places(sites: dict[str, Site], most: int) -> tuple[Int[Array, "J"], Bool[Array, "J"]]:
    """Where the subject's 1st, 2nd, ... observation lies in a vector of all rows, and which of these `most` it has."""
    mask = rows(sites, lambda site: site.mask)
    return jnp.nonzero(mask, size=most, fill_value=0)[0], jnp.arange(most) < mask.sum()


def rows(sites: dict[str, Site], read: Callable[[Site], Any]) -> Array:
    """What is read of every site in one vector, row after row (as in `Order`)."""
    return jnp.stack([jnp.broadcast_to(read(s), s.value.shape) for s in sites.values()], axis=-1).ravel()


def log_prob(site: Site) -> Array:
    return site.distribution.log_prob(site.value)


def mean(site: Site) -> Any:
    return mean_of(site.distribution)


def variance(site: Site) -> Any:
    return variance_of(site.distribution)


def cdf(site: Site) -> Any:
    return _distribution_function(site.distribution, site.value)


def _distribution_function(distribution: Distribution, value: Array) -> Any:
    """P(Y <= value); summed up where a discrete distribution has no formula, NaN where a continuous one has none."""
    if isinstance(distribution, ExpandedDistribution):
        return _distribution_function(distribution.base_dist, value)
    try:
        return distribution.cdf(value)
    except NotImplementedError:
        return _summed(distribution, value) if distribution.is_discrete else jnp.nan


def _summed(distribution: Distribution, value: Array) -> Array:
    """p(0) + ... + p(value); NaN for a distribution that has negative values too."""

    def supported(k: Any) -> Array:
        return distribution.support(jnp.full(value.shape, k))

    def add(k: Any, total: Array) -> Array:
        term = jnp.exp(distribution.log_prob(jnp.full(value.shape, k)))
        return total + jnp.where((k <= value) & supported(k), term, 0.0)

    total = jax.lax.fori_loop(0, jnp.max(value).astype(int) + 1, add, jnp.zeros(value.shape))
    return jnp.where(supported(-1), jnp.nan, total)
