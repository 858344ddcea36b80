"""Linear models of Gaussian latent variables, of which PPCA and factor analysis are two:

    x_i = W z_i + mu + eps_i,   z_i ~ N(0, I_q),   eps_i ~ N(0, Psi),  Psi diagonal

Linear and Gaussian, so that FO, FOCE, Laplace and quadrature are all exact, and closed forms hold each of them to account.
"""

import abc
import dataclasses
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from nlmefit.core import gaussian
from nlmefit.core.errors import DataError, ModelError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar, Theta
from nlmefit.generative.capability import AbstractDensity
from nlmefit.generative.inference import AbstractInference
from nlmefit.generative.rows import Samples, matrix
from nlmefit.latent.model import AbstractExact, Maximum, Parameter, Rows, scalars


class Moments(NamedTuple):
    """What a normal likelihood knows of N rows."""

    rows: float
    mean: Float[np.ndarray, "D"]
    covariance: Float[np.ndarray, "D D"]
    """With N in the denominator."""

    @classmethod
    def of(cls, X: Float[np.ndarray, "N D"]) -> "Moments":
        off = X - X.mean(axis=0)
        return cls(float(len(X)), X.mean(axis=0), off.T @ off / len(X))


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

    def statistics(self, subjects: Any) -> "Moments":
        return Moments.of(subjects.observed["x"])

    def log_likelihood(self, theta: Theta, statistics: "Moments") -> Float[Array, ""]:
        """-N/2 [ D log(2 pi) + log|C| + tr C^-1 S + (m - mu)' C^-1 (m - mu) ],  C = W W' + Psi, by way of I + W' Psi^-1 W."""
        rows, mean, covariance = statistics
        scale = jnp.broadcast_to(theta["noise"], mean.shape)
        white, error = self._loadings(theta) / scale[:, None], (mean - theta["mean"]) / scale
        second = covariance / (scale[:, None] * scale) + error[:, None] * error
        root = jnp.linalg.cholesky(white.T @ white + jnp.eye(self.latent))
        inside = solve_triangular(root, white.T, lower=True)
        square = jnp.trace(second) - jnp.sum((inside @ second) * inside)
        logs = 2 * jnp.sum(jnp.log(jnp.diag(root))) + 2 * jnp.sum(jnp.log(scale))
        return -0.5 * rows * (square + logs + mean.shape[0] * jnp.log(2 * jnp.pi))

    def maximum(self, subjects: Any) -> Maximum:
        best, doubts = self._best(np.asarray(subjects.observed["x"]))
        return Maximum({name: p.start for name, p in best.parameters().items()}, doubts)

    def conditional(self, theta: Theta, subjects: Any) -> tuple[Float[np.ndarray, "N q"], Float[np.ndarray, "N q q"]]:
        """N(M^-1 W' Psi^-1 (x - mu), M^-1),  M = I + W' Psi^-1 W."""
        x = np.asarray(subjects.observed["x"])
        scale = np.broadcast_to(theta["noise"], x.shape[1])
        white = np.asarray(self._loadings(theta)) / scale[:, None]
        M = np.eye(self.latent) + white.T @ white
        z = np.linalg.solve(M, white.T @ ((x - np.asarray(theta["mean"])) / scale).T).T
        return z, np.broadcast_to(M, (len(x), *M.shape))

    def maximum_likelihood(self, X: Any) -> Self:
        """The model at the maximum of the likelihood, as `nm.fit` finds it.

        Raises DataError unless X is a finite matrix (N, D) with D > latent, and where the likelihood has no maximum: in PPCA if
        the rows vary in no more than `latent` directions, in factor analysis if a column is constant.
        """
        return self._best(tall(X, self.latent))[0]

    @abc.abstractmethod
    def _best(self, X: Float[np.ndarray, "N D"]) -> tuple[Self, tuple[str, ...]]:
        """The model at the maximum, and what there is to doubt about it."""

    def reported(self, theta: Theta) -> Float[Array, "k"]:
        return jnp.concatenate([theta["mean"], theta["loadings"], jnp.atleast_1d(theta["noise"])])

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
    root = jnp.linalg.cholesky(white.T @ white + jnp.eye(weights.shape[1]))
    inside = solve_triangular(root, white.T @ error, lower=True)
    square = error @ error - inside @ inside
    logs = jnp.sum(jnp.log(jnp.diag(root))) + jnp.sum(jnp.log(scale))
    return -0.5 * (square + size * jnp.log(2 * jnp.pi)) - logs


def trapezoidal(weights: Float[np.ndarray, "D q"]) -> Float[np.ndarray, "D q"]:
    """The loadings rotated until those above the diagonal are 0 and none on it is negative."""
    rotation, _ = np.linalg.qr(weights[: weights.shape[1]].T)
    found = np.tril(weights @ rotation)
    return found * np.where(np.diag(found) < 0, -1.0, 1.0)


def check_latent(model: Any) -> None:
    """ModelError unless the model's number of components is one."""
    check_whole(f"{type(model).__name__}(latent=...)", model.latent, 1, ModelError)


def tall(X: Any, latent: int) -> Float[np.ndarray, "N D"]:
    """X as a finite matrix of two rows or more and more columns than components. DataError otherwise."""
    found = matrix("X", X)
    if np.ndim(X) != 2 or found.shape[0] < 2 or found.shape[1] <= latent:
        raise DataError(f"X must be a matrix with 2 rows or more and over {latent} columns, got shape {np.shape(X)}.")
    return found
