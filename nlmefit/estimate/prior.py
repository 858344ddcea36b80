"""Priors of the population parameters: their density on the natural scale, and the region where it is positive."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar, Theta
from nlmefit.latent.distribution import family
from nlmefit.latent.model import Parameter


def log_prior_density(parameters: Mapping[str, Parameter], theta: Theta) -> Scalar:
    """log p(theta) of the free parameters on the natural scale (no Jacobian); -inf outside a prior's support."""
    terms = [_log_density(p, theta[p.name]) for p in parameters.values() if not p.fixed]
    return jnp.sum(jnp.stack(terms)) if terms else jnp.zeros(())


def _log_density(p: Parameter, value: Any) -> Scalar:
    density = p.prior.log_prob(value)
    lower, upper = _bounds(p.prior.support)
    # NumPyro's densities do not look at their support: a uniform one is the same constant everywhere.
    if np.ndim(density) == np.ndim(value) and (lower, upper) != _bounds(p.support):
        density = jnp.where((value > lower) & (value < upper), density, -jnp.inf)
    return jnp.sum(density)


def within_prior(p: Parameter) -> Parameter:
    """The parameter on its prior's support too: a uniform prior on (1, 5) keeps a positive parameter within (1, 5)."""
    own, prior = _bounds(p.support), _bounds(p.prior.support)
    lower, upper = max(own[0], prior[0]), min(own[1], prior[1])
    if (lower, upper) == own:
        return p
    if np.isfinite(upper):
        support = constraints.interval(lower, upper) if np.isfinite(lower) else constraints.less_than(upper)
    else:
        support = constraints.positive if lower == 0 else constraints.greater_than(lower)
    return replace(p, support=support)


def _bounds(support: constraints.Constraint) -> tuple[float, float]:
    """Lower and upper bound of a support, of all elements the same."""
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    return float(np.max(-np.inf if lower is None else lower)), float(np.min(np.inf if upper is None else upper))


def check_prior(parameters: Mapping[str, Parameter]) -> None:
    """MethodError where a parameter starts outside its prior's support."""
    for p in parameters.values():
        lower, upper = _bounds(p.prior.support)
        if not p.fixed and not np.all((p.start > lower) & (p.start < upper)):
            raise MethodError(
                f"{p.name} starts at {p.start}, where its prior ({family(p.prior)} on {lower:g} to {upper:g}) has no density; "
                "choose a start value within it, or another prior."
            )


def prior_note(parameters: Mapping[str, Parameter]) -> dict[str, str]:
    """Which priors are the modeller's, in words."""
    free = [p for p in parameters.values() if not p.fixed]
    declared = [p.name for p in free if p.declared_prior]
    if not declared:
        return {"priors": "the weakly informative defaults"}
    return {"priors": f"declared for {', '.join(declared)}" + ("; defaults for the others" if len(declared) < len(free) else "")}
