"""Methods that maximize a deterministic function of theta in place of the marginal likelihood, with its exact gradient.

    -2 log L = sum_i contribution_i(theta)

A method says what a subject contributes; search, status and standard errors are written once, in `search.py`.
"""

import abc
from typing import Any

from jaxtyping import Array

from nlmefit.core.errors import MethodError
from nlmefit.core.options import brief
from nlmefit.core.typing import Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.method import AbstractMethod, Found, Kind, Reporter
from nlmefit.estimate.modes import search
from nlmefit.estimate.modes.empirical_bayes import Start
from nlmefit.estimate.modes.objective import Contributions
from nlmefit.estimate.posterior import AbstractPosterior, Gaussian
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.latent.model import AbstractLatentModel


class AbstractMarginalLikelihood(AbstractMethod):
    """FO, FOCE, Laplace, quadrature and variational bounds."""

    covariance: Covariance

    @property
    def has_modes(self) -> bool:
        """Whether a search for each subject's random effects is part of the method (else it looks at z = 0 only)."""
        return True

    @property
    def all_modes(self) -> bool:
        """Whether modes are searched for everywhere rather than from 0 alone."""
        return False

    @property
    def kind(self) -> Kind:
        """What the objective says of -2 log p(y | theta)."""
        return "approximation"

    @property
    def notes(self) -> dict[str, str]:
        """What the printed fit says of the method's options."""
        return {}

    def posterior(self, found: Contributions) -> AbstractPosterior:
        """p(z | y_i, theta) as the method knows it, from what it found of the subjects."""
        return Gaussian.at_mode(found.z, found.hessian)

    @abc.abstractmethod
    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Start, subject: Any
    ) -> Contributions:
        """One subject's contribution and its gradient in u, its random effects sought from `start`."""

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        return search.maximize(problem, self, progress)

    def evaluate(self, problem: Problem, key: Array) -> Found:
        return search.evaluate(problem, self)


def check_covariance(value: Any) -> None:
    """MethodError where `covariance` is none of the known kinds."""
    if not isinstance(value, str) or value not in ("sandwich", "R", "S", "none"):
        raise MethodError(
            f"covariance must be 'sandwich' (R^-1 S R^-1), 'R' (inverse Hessian), 'S' (inverse cross-product of "
            f"gradients) or 'none', got {brief(value)}."
        )
