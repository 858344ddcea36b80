"""Conditional draws: the random effects of subjects given their data, at some theta, by importance sampling.

    p(z_i | y_i, theta)  ~  sum_k w_ik delta(z - z_ik),    w_ik  proportional to  p(y_i, z_ik | theta) / q_i(z_ik),    z_ik ~ q_i

Means are weighted ones (Geweke 1989); draws are points resampled with the weights (Rubin 1988; Smith and Gelfand 1992), out of
several times as many, so that few appear twice.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.diagnostics import effective_sample_size

from nlmefit.estimate.mcmc.nuts import Draws
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.posterior import AbstractPosterior
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import generator
from nlmefit.estimate.referee.importance import BLOCK, DEGREES, Proposal, Weights, sample, sample_around
from nlmefit.estimate.referee.psis import BELIEVABLE
from nlmefit.estimate.start import check_start
from nlmefit.estimate.variational.encoded import Amortized

LEAST = 1000
"""Weighted points of each subject, at least."""
SPARE = 4
"""As many points as draws, where that is more."""


@dataclass(frozen=True)
class Conditional:
    """p(eta_i | y_i, theta) of N subjects: K draws, moments, and how well they are known. NaN for random effects that a subject
    does not have."""

    eta: Float[np.ndarray, "K N q"]
    mean: Float[np.ndarray, "N q"]
    covariance: Float[np.ndarray, "N q q"]
    log_likelihood: Float[np.ndarray, " N"]
    """log p(y_i | theta)."""
    mc_se: Float[np.ndarray, " N"]
    """Its Monte Carlo standard error."""
    ess: Float[np.ndarray, " N"]
    """Effective number of the draws that means and covariances are taken over."""
    khat: Float[np.ndarray, " N"]
    """Tail index of the weights: above 0.7, believe neither."""
    warning: str
    """Whose numbers not to rely on; empty where there is nobody."""


def conditional(
    problem: Problem, u: Float[np.ndarray, " p"], known: AbstractPosterior | None, draws: int, key: Array
) -> Conditional:
    """`draws` of every subject of the problem at theta(u). `known` is the posterior of a fit at the same u, whose encoder, where
    it has one, proposes in place of a t around the mode.

    Raises DataError where the likelihood of a subject is not a number around its mode.
    """
    sampling, resampling = jax.random.split(key)
    count = BLOCK * -(-max(LEAST, SPARE * draws) // BLOCK)
    weights, warning = _weighted(problem, u, known, count, sampling)
    root, used = omega_root(problem, u), problem.model.used(problem.subjects, problem.size)
    found = weights.posterior
    return Conditional(
        np.where(used, found.draws(resampling, draws) @ root.T, np.nan),
        np.where(used, found.mean @ root.T, np.nan),
        np.where(used[:, :, None] & used[:, None, :], root @ found.covariance @ root.T, np.nan),
        weights.log_likelihood,
        weights.mc_se,
        weights.ess,
        weights.khat,
        " ".join(filter(None, [warning, _doubt(problem, weights.khat)])),
    )


def of_chains(problem: Problem, found: Conditional, chains: Draws, draws: int, key: Array) -> Conditional:
    """`found` with the draws and moments of p(eta_i | y), theta uncertain too, from the chains of a fit to the same data."""
    used = problem.model.used(problem.subjects, problem.size)
    lengths = np.where(used, effective_sample_size(chains.eta), np.inf)
    return Conditional(
        np.where(used, chains.draws(key, draws) @ chains.root.T, np.nan),
        np.where(used, chains.mean @ chains.root.T, np.nan),
        np.where(used[:, :, None] & used[:, None, :], chains.root @ chains.covariance @ chains.root.T, np.nan),
        found.log_likelihood,
        found.mc_se,
        lengths.min(axis=1, initial=np.inf),
        found.khat,
        found.warning,
    )


def _weighted(
    problem: Problem, u: Float[np.ndarray, " p"], known: AbstractPosterior | None, count: int, key: Array
) -> tuple[Weights, str]:
    """Weighted points, and what the encoder says of subjects unlike those that it knows: they get proposals around their modes,
    and so do those for whom its own turn out wrong."""
    if not isinstance(known, Amortized) or not known.reads(problem):
        return sample_around(problem, u, _around_modes(problem, u), generator(key), count), ""
    encoded = known.of(problem)
    proposal = Proposal(encoded.mean, encoded.scale, DEGREES)
    weights = sample(problem, u, proposal, generator(key), count)
    poor = encoded.outside | ~(weights.khat <= BELIEVABLE)
    if not poor.any():
        return weights, ""
    other = _around_modes(problem, u)
    center = np.where(poor[:, None], other.center, proposal.center)
    scale = np.where(poor[:, None, None], other.scale, proposal.scale)
    return sample_around(problem, u, Proposal(center, scale, DEGREES), generator(key), count), encoded.warning


def _around_modes(problem: Problem, u: Float[np.ndarray, " p"]) -> Proposal:
    found = modes(problem, u)
    check_start(problem, ~np.isfinite(found.value))
    return Proposal.at_modes(found.z, found.hessian, DEGREES)


def omega_root(problem: Problem, u: Float[np.ndarray, " p"]) -> Float[np.ndarray, "q q"]:
    """Omega's lower Cholesky factor: eta = root z."""
    return np.asarray(problem.model.omega(problem.coordinates.theta(jnp.asarray(u), problem.fixed)))


def _doubt(problem: Problem, khat: Float[np.ndarray, " N"]) -> str:
    who = problem.labels(khat > BELIEVABLE)
    if not who:
        return ""
    shown = ", ".join(map(str, who[:8])) + (", ..." if len(who) > 8 else "")
    return f"k-hat is above {BELIEVABLE} for {len(who)} subject(s), whose draws are not to be relied on: {shown}."
