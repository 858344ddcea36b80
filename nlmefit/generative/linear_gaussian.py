"""Linear models of Gaussian latent variables, of which PPCA and factor analysis are two:

    x_i = W z_i + mu + eps_i,   z_i ~ N(0, I_q),   eps_i ~ N(0, Psi),  Psi diagonal

Linear and Gaussian, so that FO, FOCE, Laplace and quadrature are all exact, and closed forms hold each of them to account.
"""

import abc
import dataclasses
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from nlmefit import gaussian
from nlmefit.errors import DataError, ModelError
from nlmefit.estimate.factor import factorize, log_determinant, solve
from nlmefit.generative.capability import AbstractDensity
from nlmefit.generative.inference import AbstractInference
from nlmefit.generative.maximum_likelihood import AbstractExact
from nlmefit.generative.rows import Samples, matrix
from nlmefit.latent import Parameter, Rows, scalars
from nlmefit.typing import Scalar, Theta


@dataclass(frozen=True)
class Matrix:
    """A data set whose subjects are the rows of a matrix."""

    subjects: Rows
    ids: np.ndarray

    @classmethod
    def of(cls, X: Float[np.ndarray, "N D"], given: Any = None) -> "Matrix":
        return cls(Rows.of("x", X, given), np.arange(len(X)))

    @property
    def observations(self) -> np.ndarray:
        """Number of observations by row (N,)."""
        return self.subjects.mask["x"].sum(axis=1)


class AbstractLinearGaussian(AbstractExact, AbstractDensity, AbstractInference):
    """`latent` components with loadings W (D, q), `weights`; `noise` are the standard deviations of eps, one or one by column.

    W is determined up to a rotation of z only; it is taken lower trapezoidal (W[i, j] = 0 for j > i), which leaves out nothing
    and makes the maximum unique but for signs.
    """

    latent: eqx.AbstractVar[int]
    weights: eqx.AbstractVar[Any]
    mean: eqx.AbstractVar[Any]
    noise: eqx.AbstractVar[Any]

    # ---- the seam --------------------------------------------------------------------------------------------------

    def structure(self) -> Hashable:
        return self.latent, np.shape(self.weights)

    def parameters(self) -> dict[str, Parameter]:
        size = np.shape(self.mean)[0]
        lower = np.tril_indices(size, 0, self.latent)
        spread, noise = dist.Normal(0.0, 10.0), np.asarray(self.noise)
        return {
            "mean": Parameter("mean", constraints.real, np.asarray(self.mean), spread.expand([size])),
            "loadings": Parameter("loadings", constraints.real, np.asarray(self.weights)[lower], spread.expand([len(lower[0])])),
            "noise": Parameter("noise", constraints.positive, noise, dist.HalfNormal(10.0).expand(noise.shape)),
        }

    def eta_names(self) -> tuple[str, ...]:
        return tuple(f"z{k + 1}" for k in range(self.latent))

    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        return jnp.eye(self.latent)

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        return {"x": dist.Normal(theta["mean"] + self._loadings(theta) @ eta, theta["noise"])}

    def log_marginal(self, theta: Theta, subject: Any) -> Float[Array, ""]:
        """log N(x_i; mu, W W' + Psi), by way of the q x q matrix I + W' Psi^-1 W."""
        return _log_density(self._loadings(theta), theta["mean"], theta["noise"], subject.observed["x"])

    def report(self, theta: Theta) -> dict[str, Array]:
        lower = zip(*np.tril_indices(theta["mean"].shape[0], 0, self.latent), strict=True)
        weights = {f"W[{i},{j}]": theta["loadings"][k] for k, (i, j) in enumerate(lower)}
        return {**scalars({"mean": theta["mean"]}), **weights, **scalars({"noise": theta["noise"]})}

    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        return {}

    def conventions(self) -> dict[str, str]:
        return {}

    def at(self, theta: Mapping[str, np.ndarray]) -> Self:
        return self._with(self._loadings(theta), theta["mean"], theta["noise"])

    def _with(self, weights: Any, mean: Any, noise: Any) -> Self:
        return dataclasses.replace(self, weights=np.asarray(weights), mean=np.asarray(mean), noise=np.asarray(noise))  # type: ignore[type-var]

    def _loadings(self, theta: Mapping[str, Any]) -> Float[Array, "D q"]:
        size = theta["mean"].shape[0]
        return jnp.zeros((size, self.latent)).at[np.tril_indices(size, 0, self.latent)].set(theta["loadings"])

    # ---- what it can compute ---------------------------------------------------------------------------------------

    @property
    def dimension(self) -> int | None:
        return None if self.mean is None else len(self.mean)

    def built(self, data: Samples, key: Array) -> Self:
        return self.bind(data.x)[0]

    def log_density(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Scalar:
        return _log_density(jnp.asarray(self.weights), jnp.asarray(self.mean), jnp.asarray(self.noise), x)

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        first, second = jax.random.split(key)
        z = jax.random.normal(first, (self.latent,))
        return self.decoded(z, given) + self.noise * jax.random.normal(second, (len(self.mean),))

    def decoded(self, z: Float[Array, "q"], given: Float[Array, "C"]) -> Float[Array, "D"]:
        return self.mean + self.weights @ z

    def encoded(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> gaussian.Gaussian:
        """N(V W' Psi^-1 (x - mu), V),  V = (I + W' Psi^-1 W)^-1."""
        prior = gaussian.Gaussian(jnp.zeros(self.latent), jnp.eye(self.latent))
        noise = jnp.diag(jnp.broadcast_to(self.noise, x.shape))
        return gaussian.posterior(prior, jnp.asarray(self.weights), noise, x - self.mean)

    # ---- data --------------------------------------------------------------------------------------------------------

    def bind(self, X: Any) -> tuple[Self, Matrix]:
        """The model for the columns of X (started from its column means and spread unless it has values) and the rows.

        Raises DataError unless X is a finite matrix (N, D) with D > latent.
        """
        X = tall(X, self.latent)
        data = Matrix.of(X)
        if self.weights is not None:
            if np.shape(self.weights)[0] != X.shape[1]:
                raise DataError(f"X has {X.shape[1]} columns, the model {np.shape(self.weights)[0]}.")
            return self, data
        spread = X.std(axis=0)
        decay = 0.5 ** np.abs(np.arange(X.shape[1])[:, None] - np.arange(self.latent))
        return self._with(np.tril(0.5 * spread[:, None] * decay), X.mean(axis=0), self.spread(spread)), data

    @staticmethod
    @abc.abstractmethod
    def spread(columns: Float[np.ndarray, "D"]) -> Any:
        """The noise to start from, where the columns have these standard deviations."""


def _log_density(weights: Array, mean: Array, noise: Array, x: Float[Array, "D"]) -> Scalar:
    size, scale = x.shape[0], jnp.broadcast_to(noise, x.shape)
    white, error = weights / scale[:, None], (x - mean) / scale
    M = factorize(white.T @ white + jnp.eye(weights.shape[1]))
    inside = white.T @ error
    square = error @ error - inside @ solve(M, inside)
    return -0.5 * (square + log_determinant(M) + size * jnp.log(2 * jnp.pi)) - jnp.sum(jnp.log(scale))


def trapezoidal(weights: Float[np.ndarray, "D q"]) -> Float[np.ndarray, "D q"]:
    """The loadings rotated until those above the diagonal are 0."""
    rotation, _ = np.linalg.qr(weights[: weights.shape[1]].T)
    return np.tril(weights @ rotation)


def check_latent(model: Any) -> None:
    """ModelError unless the model's number of components is one."""
    if isinstance(model.latent, bool) or not isinstance(model.latent, int) or model.latent < 1:
        raise ModelError(f"{type(model).__name__}(latent=...) must be a whole number from 1 up, got {model.latent!r}.")


def tall(X: Any, latent: int) -> Float[np.ndarray, "N D"]:
    """X as a finite matrix of two rows or more and more columns than components. DataError otherwise."""
    found = matrix("X", X)
    if np.ndim(X) != 2 or found.shape[0] < 2 or found.shape[1] <= latent:
        raise DataError(f"X must be a matrix with 2 rows or more and over {latent} columns, got shape {np.shape(X)}.")
    return found
