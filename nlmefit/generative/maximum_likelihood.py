"""Maximum likelihood of models whose log p(y_i | theta) is exact: the forward KL divergence from the data, minimized."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array

from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites
from nlmefit.estimate.method import Found, Kind, Reporter
from nlmefit.estimate.modes import exact as closed_form
from nlmefit.estimate.modes.empirical_bayes import Start
from nlmefit.estimate.modes.marginal_likelihood import AbstractMarginalLikelihood, check_covariance
from nlmefit.estimate.modes.objective import Contributions
from nlmefit.estimate.modes.subject_modes import posterior_mode
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractDensity
from nlmefit.generative.trainer import AbstractTrainer, methods_of
from nlmefit.generative.training import Training
from nlmefit.latent.model import AbstractExact, AbstractLatentModel


@final
@dataclass(frozen=True)
class MaximumLikelihood(AbstractMarginalLikelihood, AbstractTrainer):
    """The maximum of sum_i log p(y_i | theta), for models that compute it exactly.

    Named parameters (PPCA, factor analysis) have it in closed form, with standard errors: `covariance` as for `nm.FOCE`.
    Networks (normalizing flows) are trained by stochastic gradients: `training`, a `gen.Training`.

    Raises MethodError for any other model.
    """

    covariance: Covariance = "sandwich"
    training: Training | None = None
    needs: ClassVar[type] = AbstractDensity
    ability: ClassVar[str] = "log p(x)"
    objective: ClassVar[str] = "-log p(x), the mean over rows"

    def __post_init__(self) -> None:
        check_kinds(self)
        check_covariance(self.covariance)

    @property
    def name(self) -> str:
        return "maximum likelihood"

    @property
    def kind(self) -> Kind:
        return "exact"

    def loss(self, model: Any, x: Array, given: Array, key: Array) -> Scalar:
        return -jnp.mean(jax.vmap(model.noisy_log_density)(x, given, jax.random.split(key, len(x))))

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        _check_exact(problem)
        if self.training is not None:
            raise MethodError("training= is for networks; this model has its maximum in closed form: leave it out.")
        return closed_form.maximize(problem, self)

    def evaluate(self, problem: Problem, key: Array) -> Found:
        _check_exact(problem)
        return closed_form.evaluate(problem, self)

    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Start, subject: Any
    ) -> Contributions:
        assert isinstance(model, AbstractExact)
        theta = coordinates.theta(u, fixed)
        sites = Sites(model, theta, model.omega(theta), subject)
        mode = posterior_mode(sites, start)

        def objective(u: Array) -> tuple[Scalar, Scalar]:
            value = -2.0 * model.log_marginal(coordinates.theta(u, fixed), subject)
            return value, value

        gradient, value = jax.jacfwd(objective, has_aux=True)(u)
        return Contributions.at_mode(mode, value, gradient, jnp.zeros((start.z.shape[0], u.shape[0])))


def _check_exact(problem: Problem) -> None:
    if not isinstance(problem.model, AbstractExact):
        raise MethodError(
            "MaximumLikelihood needs a model that computes log p(y) exactly, which this one does not: its random effects have "
            f"to be integrated out. It is fitted by {methods_of(problem.model)}."
        )
