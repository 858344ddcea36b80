"""A population model that shows all its outputs: the endpoints, and the predictions that nobody observes."""

from collections.abc import Hashable, Mapping
from typing import Any, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution

from nlmefit.core.typing import Theta
from nlmefit.latent.distribution import mean_of
from nlmefit.latent.model import AbstractLatentModel, Parameter
from nlmefit.population.latent import PopulationModel


class AbstractShowing(AbstractLatentModel):
    """A population model seen in another way: all is its own but what is observed."""

    own: PopulationModel

    def parameters(self) -> dict[str, Parameter]:
        return self.own.parameters()

    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        return self.own.omega(theta)

    def eta_names(self) -> tuple[str, ...]:
        return self.own.eta_names()

    def report(self, theta: Theta) -> dict[str, Array]:
        return self.own.report(theta)

    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        return self.own.individual(theta, eta, subject)

    def at(self, theta: Mapping[str, np.ndarray]) -> Any:
        return self.own.at(theta)

    def conventions(self) -> dict[str, str]:
        return self.own.conventions()


@final
class OutputModel(AbstractShowing):
    """The endpoints with their distributions; the other outputs are what they are predicted to be."""

    def structure(self) -> Hashable:
        return self.own.structure(), "outputs"

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        predicted = self.own.predict(theta, eta, subject, self.own.model.amounts_read)[0]
        only = {name: certain(v, subject) for name, v in predicted.items() if name not in self.own.model.endpoints}
        seen = self.own.observe(theta, eta, subject) | only
        return {name: seen[name] for name in self.own.model.outputs}

    @property
    def solves_ode(self) -> bool:
        return self.own.solves_ode


def showing(latent: PopulationModel) -> AbstractLatentModel:
    """The model with all its outputs; itself where all are endpoints."""
    return latent if latent.model.outputs == latent.model.endpoints else OutputModel(latent)


def certain(predicted: Any, subject: Any) -> Distribution:
    """The prediction as a distribution without spread, at the subject's rows."""
    return dist.Delta(jnp.broadcast_to(mean_of(predicted), subject.time.shape))
