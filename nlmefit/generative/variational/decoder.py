"""Latent models whose p(x | z) is a network's: decoders on the seam.

    x_i | eta_i ~ p(x | f(eta_i, c_i)),   eta_i ~ N(0, I_q)

A decoder and its prior are a latent model as any other: every method that reads p(y, eta) reads them, and `nm.log_marginal`
judges them without their encoder. Their parameters are the network's weights, in one array, and the likelihood's own.
"""

import abc
from collections.abc import Hashable, Mapping
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from nlmefit.core.content import content
from nlmefit.core.errors import ModelError
from nlmefit.core.networks import MLP
from nlmefit.core.options import brief
from nlmefit.core.typing import Scalar, Theta
from nlmefit.generative.inference import AbstractInference
from nlmefit.generative.linear.linear_gaussian import Matrix
from nlmefit.generative.rows import Samples
from nlmefit.generative.standard import AbstractStandardized, like
from nlmefit.generative.variational.bound import AbstractWeighted
from nlmefit.generative.variational.likelihood import AbstractLikelihood
from nlmefit.latent.model import AbstractLatentModel, Parameter, scalars


class Networks(eqx.Module):
    """What is trained."""

    decoder: Any
    encoder: Any
    own: Float[Array, " s"]
    """The likelihood's own parameters."""


class AbstractDecoder(AbstractStandardized, AbstractWeighted, AbstractInference, AbstractLatentModel):
    """A decoder, and an encoder beside it."""

    @property
    @abc.abstractmethod
    def likelihood(self) -> AbstractLikelihood:
        """p(x | the decoder's outputs)."""

    @property
    @abc.abstractmethod
    def networks(self) -> Networks | None:
        """What is trained; None before a fit."""

    @property
    @abc.abstractmethod
    def architecture(self) -> Hashable:
        """What the networks look like."""

    @abc.abstractmethod
    def emission(self, eta: Float[Array, "q"], given: Float[Array, "C"]) -> Distribution:
        """p(x | eta, c), a distribution by column."""

    @abc.abstractmethod
    def bound_along(self, x: Float[Array, "D"], given: Float[Array, "C"], eps: Float[Array, "q"]) -> Scalar:
        """The bound at latent variables that q makes of standard normal eps."""

    @abc.abstractmethod
    def log_weight_along(self, x: Float[Array, "D"], given: Float[Array, "C"], eps: Float[Array, "q"]) -> Scalar:
        """log p(x, z | c) - log q(z | x, c) there."""

    def bound(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        return self.bound_along(x, given, self._noise(x, key))

    def log_weight(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        return self.log_weight_along(x, given, self._noise(x, key))

    def _noise(self, x: Array, key: Array) -> Float[Array, "q"]:
        return jax.random.normal(key, (len(self.eta_names()),), x.dtype)

    @property
    def parts(self) -> Networks:
        """The networks. ModelError before a fit."""
        if self.networks is None:
            raise ModelError(f"this {type(self).__name__} has not been fitted: fit it with nm.fit, and use the fit's .model.")
        return self.networks

    def from_outputs(self, outputs: Array) -> Distribution:
        """p(x | the decoder's outputs)."""
        own, units = self.parts.own, self.units
        return self.likelihood.distribution(outputs, own, like(units.center, outputs), like(units.scale, outputs))

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        first, second = jax.random.split(key)
        eta = jax.random.normal(first, (len(self.eta_names()),))
        return jnp.asarray(self.emission(eta, given).sample(second), float)

    # ---- the seam --------------------------------------------------------------------------------------------------

    def bind(self, data: Any) -> tuple[Self, Matrix]:
        """The model for the columns of X (its networks as `key=0` draws them, unless it has some) and the rows.

        Raises DataError as a fit does.
        """
        samples = Samples.of(data)
        return self.started(samples, jax.random.key(0)), Matrix.of(samples.x, samples.given)

    def structure(self) -> Hashable:
        return content([self.architecture, self.likelihood, self.units])

    def parameters(self) -> dict[str, Parameter]:
        weights, own = np.asarray(ravel_pytree(self._weights)[0]), np.asarray(self.parts.own)
        spread = dist.Normal(0.0, 10.0)
        found = {"decoder": Parameter("decoder", constraints.real, weights, spread.expand(weights.shape))}
        if len(own):
            found["log_sd"] = Parameter("log_sd", constraints.real, own, spread.expand(own.shape))
        return found

    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        return jnp.eye(len(self.eta_names()))

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        return {"x": self.at(theta).emission(eta, subject.given)}

    def report(self, theta: Theta) -> dict[str, Array]:
        return scalars(theta)

    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        return {}

    def conventions(self) -> dict[str, str]:
        return {}

    def at(self, theta: Mapping[str, Any]) -> Self:
        """With these decoder weights and noise, and the encoder that it has."""
        unflatten = ravel_pytree(self._weights)[1]
        rest = eqx.filter(self.parts.decoder, eqx.is_inexact_array, inverse=True)
        decoder = eqx.combine(unflatten(jnp.asarray(theta["decoder"])), rest)
        own = jnp.asarray(theta.get("log_sd", self.parts.own))
        return eqx.tree_at(lambda model: model.networks, self, Networks(decoder, self.parts.encoder, own))

    @property
    def _weights(self) -> Any:
        return eqx.filter(self.parts.decoder, eqx.is_inexact_array)


def check_architecture(model: Any) -> None:
    """ModelError unless decoder, encoder and likelihood are such."""
    kind = type(model).__name__
    for name in ("decoder", "encoder"):
        if not isinstance(getattr(model, name), MLP):
            raise ModelError(f"{kind}({name}=...) must be a gen.MLP(...), got {brief(getattr(model, name))}.")
    if not isinstance(model.likelihood, AbstractLikelihood):
        raise ModelError(f"{kind}(likelihood=...) must be one such as gen.GaussianLikelihood(), got {model.likelihood!r}.")
