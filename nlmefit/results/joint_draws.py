"""Draws of parameters and random effects together, from any fit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

from nlmefit.core.errors import MethodError
from nlmefit.estimate import random_numbers
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import DEGREES, Proposal
from nlmefit.estimate.spectrum import spectrum
from nlmefit.results.record import FitRecord


class Sample(NamedTuple):
    """Draws of free coordinates and whitened random effects, and what they are draws of."""

    u: Float[np.ndarray, "c d p"]
    z: Float[np.ndarray, "c d N q"]
    approximation: str
    proposals: list[Proposal] | None = None
    """The normal approximation of p(z | y_i, theta) at every draw of theta, where it was needed to make them."""


def of_chains(problem: Problem, fit: FitRecord, draws: int | None) -> Sample | None:
    """The chains' draws, `draws` of each chain evenly spaced; None of a method without chains."""
    posterior: Any = fit.found and fit.found.posterior
    if not (hasattr(posterior, "theta") and hasattr(posterior, "z")):
        return None
    chains, made = posterior.z.shape[:2]
    if draws is not None and draws > made:
        raise MethodError(f"the fit has {made} draws in each chain, draws={draws} were asked for.")
    chosen = np.linspace(0, made - 1, made if draws is None else draws).round().astype(int)
    parts = [
        np.reshape(biject_to(p.support).inv(jnp.asarray(posterior.theta[p.name])), (chains, made, -1))
        for p in problem.coordinates.free
    ]
    u = np.concatenate(parts, axis=-1) if parts else np.zeros((chains, made, 0))
    return Sample(u[:, chosen], np.asarray(posterior.z)[:, chosen], "none: draws from p(parameters, random effects | data)")


def approximated(problem: Problem, fit: FitRecord, draws: int, key: Array) -> Sample:
    """One chain of the normal approximation of the estimates, and of p(z | y_i, estimates) as the method has it."""
    assert fit.found is not None
    at, effects = jax.random.split(key)
    center = np.asarray(fit.found.u, float)
    z = np.asarray(fit.found.posterior.draws(effects, draws))
    if not has_covariance(fit):
        u, proposals = np.tile(center, (draws, 1)), None
        text = "parameters: the estimates repeated, for there is no covariance of them; eta from p(eta | data, estimates)"
    else:
        u = parameters(fit, draws, at)
        proposals = proposals_at(problem, u)
        z = _moved(z, proposals_at(problem, center[None])[0], proposals)
        text = "parameters: normal in unconstrained coordinates (logs, logits), around the estimates with their covariance; "
        text += "eta from p(eta | data, estimates), moved and scaled to the mode and the curvature at each draw of the parameters"
    lost = problem.labels(~np.all(np.isfinite(z), axis=(0, 2)))
    text += f"; no eta of {len(lost)} subject(s), whose posterior is not known: {', '.join(map(str, lost[:8]))}" if lost else ""
    return Sample(u[None], z[None], text, proposals)


def has_covariance(fit: FitRecord) -> bool:
    """Whether the uncertainty of the fit's estimates is known."""
    return fit.found is not None and fit.uncertainty is not None and bool(np.all(np.isfinite(fit.uncertainty.unconstrained)))


def parameters(fit: FitRecord, draws: int, key: Array) -> Float[np.ndarray, "d p"]:
    """Free coordinates from the normal approximation of the estimates."""
    assert fit.found is not None and fit.uncertainty is not None
    center = np.asarray(fit.found.u, float)
    spread = spectrum(fit.uncertainty.unconstrained)
    root = spread.scale[:, None] * spread.vectors * np.sqrt(np.maximum(spread.values, 0.0))
    return center + random_numbers.generator(key).standard_normal((draws, len(center))) @ root.T


def proposals_at(problem: Problem, u: Float[np.ndarray, "K p"]) -> list[Proposal]:
    """Every subject's mode and the root of its inverse Hessian, at each u."""
    found: list[Proposal] = []
    for k, point in enumerate(u):
        if k and np.array_equal(point, u[k - 1]):  # the estimates repeated
            found.append(found[-1])
            continue
        at = modes(problem, point)
        found.append(Proposal.at_modes(at.z, at.hessian, DEGREES))
    return found


def _moved(z: Float[np.ndarray, "K N q"], center: Proposal, there: list[Proposal]) -> Float[np.ndarray, "K N q"]:
    """Draws at the estimates carried to other parameters, mode to mode and spread to spread.

    Without this, typical values and random effects would vary independently, and individual parameters more than the data allow.
    """
    white = np.linalg.solve(center.scale, (z - center.center)[..., None])
    return np.stack([p.center + (p.scale @ w)[..., 0] for p, w in zip(there, white, strict=True)])
