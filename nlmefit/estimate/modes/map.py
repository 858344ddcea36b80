"""The maximum of the posterior density of theta, random effects integrated out (maximum a posteriori; penalized likelihood).

    theta* = argmin  -2 log L(theta) - 2 log p(theta)

log L is a marginal-likelihood method's, p(theta) the product of the free parameters' priors. As in Pumas' MAP and Stan's
`optimize` without Jacobian, p(theta) is the density on the natural scale: the maximum is that of the posterior density of CL, not
of log CL (Gelman et al. 2013, Bayesian Data Analysis, ch. 13).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import jax
import numpy as np
from jaxtyping import Array

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar
from nlmefit.estimate.method import AbstractMethod, Found, Reporter
from nlmefit.estimate.modes import search
from nlmefit.estimate.modes.marginal_likelihood import AbstractMarginalLikelihood
from nlmefit.estimate.prior import check_prior, log_prior_density, prior_note
from nlmefit.estimate.problem import Problem


@final
@dataclass(frozen=True)
class MAP(AbstractMethod):
    """Maximum a posteriori by a marginal-likelihood method: `nm.MAP(nm.FOCE(interaction=True))`.

    Priors are those declared in the model (`prior=`), weakly informative ones for the rest. Log-likelihood, OFV and contributions
    are reported without the prior. R of the standard errors (the method's `covariance` option) is the curvature with the prior,
    S that of the likelihood alone, so that "R" approximates the posterior's covariance.

    Raises MethodError for what is no such method, and where a parameter starts outside its prior's support.
    """

    method: AbstractMarginalLikelihood

    def __post_init__(self) -> None:
        if not isinstance(self.method, AbstractMarginalLikelihood):
            raise MethodError(
                "MAP wraps a method that maximizes a marginal likelihood, for example nm.MAP(nm.FOCE(interaction=True)); "
                f"got {self.method!r}."
            )

    @property
    def name(self) -> str:
        return f"MAP by {self.method.name}"

    @property
    def uses_priors(self) -> bool:
        return True

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        check_prior(problem.model.parameters())
        return _noted(problem, search.maximize(problem, self.method, progress, penalty(problem)))

    def evaluate(self, problem: Problem, key: Array) -> Found:
        return _noted(problem, search.evaluate(problem, self.method))


def _noted(problem: Problem, found: Found) -> Found:
    found.notes = {**found.notes, **prior_note(problem.model.parameters())}
    return found


def penalty(problem: Problem) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """-2 log p(theta(u)) and its gradient in u."""
    parameters, coordinates = problem.model.parameters(), problem.coordinates

    def value(u: Array) -> Scalar:
        return -2.0 * log_prior_density(parameters, coordinates.theta(u, problem.fixed))

    run = compiled(jax.value_and_grad(value))

    def at(u: np.ndarray) -> tuple[float, np.ndarray]:
        found, slope = run(np.asarray(u))
        return float(found), np.asarray(slope)

    return at
