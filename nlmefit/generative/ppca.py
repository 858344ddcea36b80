"""Probabilistic principal component analysis (Tipping and Bishop 1999).

    x_i = W z_i + mu + eps_i,   z_i ~ N(0, I_q),  eps_i ~ N(0, sigma^2 I_D)

The second client of the seam: linear and Gaussian, so that FO, FOCE, Laplace and quadrature are all exact, and the closed
form holds each of them to account.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from nlmefit.errors import DataError, ModelError
from nlmefit.estimate.factor import factorize, log_determinant, solve
from nlmefit.generative.maximum_likelihood import AbstractExact
from nlmefit.latent import Parameter, Rows, scalars
from nlmefit.typing import Theta


@dataclass(frozen=True)
class Matrix:
    """A data set whose subjects are the rows of a matrix."""

    subjects: Rows
    ids: np.ndarray

    @property
    def observations(self) -> np.ndarray:
        """Number of observations by row (N,)."""
        return self.subjects.mask["x"].sum(axis=1)


class PPCA(AbstractExact):
    """PPCA with `latent` components.

    W is determined up to a rotation of z only; it is taken lower trapezoidal (W[i, j] = 0 for j > i), which leaves out
    nothing and makes the maximum unique but for signs. Values are those of the last `bind`, `at` or `maximum_likelihood`.
    """

    latent: int = eqx.field(static=True)
    weights: Any = None
    mean: Any = None
    noise: Any = None

    def __check_init__(self) -> None:
        if isinstance(self.latent, bool) or not isinstance(self.latent, int) or self.latent < 1:
            raise ModelError(f"PPCA(latent=...) must be a whole number from 1 up, got {self.latent!r}.")

    # ---- the seam --------------------------------------------------------------------------------------------------

    def structure(self) -> Hashable:
        return self.latent, np.shape(self.weights)

    def parameters(self) -> dict[str, Parameter]:
        size = np.shape(self.mean)[0]
        lower = np.tril_indices(size, 0, self.latent)
        spread = dist.Normal(0.0, 10.0)
        return {
            "mean": Parameter("mean", constraints.real, np.asarray(self.mean), spread.expand([size])),
            "loadings": Parameter("loadings", constraints.real, np.asarray(self.weights)[lower], spread.expand([len(lower[0])])),
            "noise": Parameter("noise", constraints.positive, np.asarray(self.noise), dist.HalfNormal(10.0)),
        }

    def eta_names(self) -> tuple[str, ...]:
        return tuple(f"z{k + 1}" for k in range(self.latent))

    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        return jnp.eye(self.latent)

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        return {"x": dist.Normal(theta["mean"] + self._weights(theta) @ eta, theta["noise"])}

    def log_marginal(self, theta: Theta, subject: Any) -> Float[Array, ""]:
        """log N(x_i; mu, W W' + sigma^2 I), by way of the q x q matrix M = W' W + sigma^2 I."""
        weights, variance = self._weights(theta), theta["noise"] ** 2
        size, error = theta["mean"].shape[0], subject.observed["x"] - theta["mean"]
        M = factorize(weights.T @ weights + variance * jnp.eye(self.latent))
        inside = weights.T @ error
        square = (error @ error - inside @ solve(M, inside)) / variance
        log_det = log_determinant(M) + (size - self.latent) * jnp.log(variance)
        return -0.5 * (square + log_det + size * jnp.log(2 * jnp.pi))

    def report(self, theta: Theta) -> dict[str, Array]:
        lower = zip(*np.tril_indices(theta["mean"].shape[0], 0, self.latent), strict=True)
        weights = {f"W[{i},{j}]": theta["loadings"][k] for k, (i, j) in enumerate(lower)}
        return {**scalars({"mean": theta["mean"]}), **weights, "noise": theta["noise"]}

    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        return {}

    def conventions(self) -> dict[str, str]:
        return {}

    def at(self, theta: Mapping[str, np.ndarray]) -> "PPCA":
        return PPCA(self.latent, np.asarray(self._weights(theta)), np.asarray(theta["mean"]), np.asarray(theta["noise"]))

    def _weights(self, theta: Theta) -> Float[Array, "D q"]:
        size = theta["mean"].shape[0]
        return jnp.zeros((size, self.latent)).at[np.tril_indices(size, 0, self.latent)].set(theta["loadings"])

    # ---- data and closed forms ---------------------------------------------------------------------------------------

    def bind(self, X: Any) -> tuple["PPCA", Matrix]:
        """The model for the columns of X (started from its column means and spread unless it has values) and the rows.

        Raises DataError unless X is a finite matrix (N, D) with D > latent.
        """
        X = _matrix(X, self.latent)
        data = Matrix(Rows.of("x", X), np.arange(len(X)))
        if self.weights is not None:
            if np.shape(self.weights)[0] != X.shape[1]:
                raise DataError(f"X has {X.shape[1]} columns, the model {np.shape(self.weights)[0]}.")
            return self, data
        spread = X.std(axis=0)
        decay = 0.5 ** np.abs(np.arange(X.shape[1])[:, None] - np.arange(self.latent))
        return PPCA(self.latent, np.tril(0.5 * spread[:, None] * decay), X.mean(axis=0), np.asarray(spread.mean())), data

    def maximum_likelihood(self, X: Any) -> "PPCA":
        """The model at the closed-form maximum (Tipping and Bishop 1999, eq. 7, 8 and appendix A):

        sigma^2 the mean of the D - q smallest eigenvalues of the sample covariance, W = U (Lambda - sigma^2 I)^1/2 rotated.
        """
        X = _matrix(X, self.latent)
        values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
        noise = values[: -self.latent].mean()
        weights = vectors[:, -self.latent :] * np.sqrt(np.maximum(values[-self.latent :] - noise, 0.0))
        rotation, _ = np.linalg.qr(weights[: self.latent].T)
        return PPCA(self.latent, np.tril(weights @ rotation), X.mean(axis=0), np.asarray(np.sqrt(noise)))

    def log_prob(self, X: Any) -> Float[np.ndarray, "N"]:
        """log p(x_i) = log N(x_i; mu, W W' + sigma^2 I) by row, at the model's values."""
        if self.weights is None:
            raise ModelError("this PPCA has no values yet; fit it, or use maximum_likelihood(X).")
        X = _matrix(X, self.latent)
        covariance = self.weights @ self.weights.T + self.noise**2 * np.eye(X.shape[1])
        root = np.linalg.cholesky(covariance)
        white = np.linalg.solve(root, (X - self.mean).T)
        return -0.5 * (np.sum(white**2, axis=0) + X.shape[1] * np.log(2 * np.pi)) - np.sum(np.log(np.diag(root)))


def _matrix(X: Any, latent: int) -> np.ndarray:
    try:
        X = np.asarray(X, float)
    except (TypeError, ValueError) as error:
        raise DataError(f"X must be a matrix of numbers, got {type(X).__name__}.") from error
    if X.ndim != 2 or X.shape[0] < 2 or X.shape[1] <= latent:
        raise DataError(f"X must be a matrix with 2 rows or more and over {latent} columns, got shape {X.shape}.")
    if not np.all(np.isfinite(X)):
        raise DataError(f"X holds {np.sum(~np.isfinite(X))} values that are not finite.")
    return X
