"""The modes of p(z | y_i, theta) by themselves, with Laplace's approximation of log p(y_i | theta) there."""

from dataclasses import dataclass
from typing import Any, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites, log_joint
from nlmefit.estimate.factor import factorize, log_determinant
from nlmefit.estimate.method import Kind
from nlmefit.estimate.modes.at_mode import two_log_integral
from nlmefit.estimate.modes.empirical_bayes import Mode, Start, find_mode, find_mode_by_expansion
from nlmefit.estimate.modes.objective import Contributions, Objective
from nlmefit.estimate.posterior import AbstractPosterior, Gaussian
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.latent.model import AbstractLatentModel


def modes(problem: Problem, u: np.ndarray) -> Contributions:
    """Every subject's mode and Hessian at u (its gradient is 0: no derivative in u is taken)."""
    return Objective(problem, _Modes()).contributions(u)


def posterior_mode(sites: Sites, start: Start) -> Mode:
    """The mode of p(z | y, theta) from `start`, with the Hessian of -log p(y, z) there."""
    if not sites.model.solves_ode or start.z.shape[0] == 0:
        return find_mode(lambda z: -log_joint(sites, z), start.z)

    def objective(local: AbstractLatentModel, z: Array) -> Scalar:
        return -log_joint(sites.by(local), z)

    return find_mode_by_expansion(lambda z, order: sites.taylor_expanded(z, order).model, objective, start, 2)[0]


@final
@dataclass(frozen=True)
class _Modes:
    kind: Kind = "approximation"
    has_modes: bool = True
    all_modes: bool = False
    covariance: Covariance = "none"

    @property
    def notes(self) -> dict[str, str]:
        return {}

    def posterior(self, found: Contributions) -> AbstractPosterior:
        return Gaussian.at_mode(found.z, found.hessian)

    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Start, subject: Any
    ) -> Contributions:
        theta = coordinates.theta(u, fixed)
        sites = Sites(model, theta, model.omega(theta), subject)
        mode = posterior_mode(sites, start)
        value = two_log_integral(mode.value, log_determinant(factorize(mode.hessian)), start.z.shape[0])
        return Contributions.at_mode(mode, value, jnp.zeros_like(u), jnp.zeros((start.z.shape[0], u.shape[0])))
