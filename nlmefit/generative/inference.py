"""Latent variables given what is observed: what models with a (nearly) Gaussian p(z | x) can tell of it."""

import abc
from typing import Any

from jaxtyping import Array, Float

from nlmefit.core import gaussian
from nlmefit.generative.capability import AbstractGenerative, in_blocks


class AbstractInference(AbstractGenerative):
    """Can compute a Gaussian q(z | x): the posterior itself, or an encoder's approximation of it."""

    @abc.abstractmethod
    def encoded(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> gaussian.Gaussian:
        """q(z | x, c)."""

    @abc.abstractmethod
    def decoded(self, z: Float[Array, "q"], given: Float[Array, "C"]) -> Float[Array, "D"]:
        """E[x | z, c]."""

    def posterior(self, X: Any, *, given: Any = None) -> gaussian.Gaussian:
        """q(z_i | x_i) by row: `.mean` (N, q) and `.root` (N, q, q), the lower Cholesky factors of the covariances.

        Raises DataError for another number of columns or values that are not finite, ModelError before a fit.
        """
        X = self._rows(X)
        return in_blocks(_encoded, self, X, self._given(given, len(X)))

    def transform(self, X: Any, *, given: Any = None) -> Float[Array, "N q"]:
        """The mean of q(z_i | x_i) by row: coordinates of the data in the latent space."""
        return self.posterior(X, given=given).mean

    def reconstruct(self, X: Any, *, given: Any = None) -> Float[Array, "N D"]:
        """E[x | z] by row, at z the mean of q(z_i | x_i)."""
        X = self._rows(X)
        return in_blocks(_reconstructed, self, X, self._given(given, len(X)))


def _encoded(model: AbstractInference, x: Array, given: Array) -> gaussian.Gaussian:
    return model.encoded(x, given)


def _reconstructed(model: AbstractInference, x: Array, given: Array) -> Array:
    return model.decoded(model.encoded(x, given).mean, given)
