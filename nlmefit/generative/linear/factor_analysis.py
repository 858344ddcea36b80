"""Factor analysis (Lawley 1940; Joreskog 1967): PPCA with noise of its own in every column.

x_i = W z_i + mu + eps_i,   z_i ~ N(0, I_q),  eps_i ~ N(0, diag(psi))
"""

from typing import Any, ClassVar, Self

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from nlmefit.core.errors import DataError, ModelError
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.linear.linear_gaussian import AbstractLinearGaussian, Moments, check_latent, trapezoidal

LEAST = 1e-6
"""Share of a column's variance that is noise, at the least: the likelihood may have its maximum at none (a Heywood case)."""


class FactorAnalysis(AbstractLinearGaussian):
    """Factor analysis with `latent` factors: noise of its own standard deviation in every column.

    Values are those of the last fit, `at` or `maximum_likelihood`. Raises ModelError unless latent is a whole number from 1 up.
    """

    latent: int = eqx.field(static=True)
    weights: Any = None
    mean: Any = None
    noise: Any = None
    fitted_by: ClassVar[tuple[str, ...]] = ("MaximumLikelihood",)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        check_latent(self)

    @staticmethod
    def spread(columns: Float[np.ndarray, "D"]) -> Any:
        return columns

    def _best(self, X: Float[np.ndarray, "N D"]) -> tuple[Self, tuple[str, ...]]:
        """W is known in closed form where psi is (Joreskog 1967, eq. 20), and psi is searched for."""
        _, mean, covariance = Moments.of(X)
        scale = np.sqrt(np.diag(covariance))
        flat = np.flatnonzero(scale <= 1e-12 * (1 + np.abs(mean)))
        if len(flat):
            raise DataError(
                f"{len(flat)} column(s) of X are constant, the first of them column {flat[0]}: its noise would go to 0 and the "
                "likelihood to infinity; leave them out."
            )
        correlation = covariance / np.outer(scale, scale)
        noise = _uniquenesses(correlation, self.latent)
        weights = scale[:, None] * _loadings(correlation, noise, self.latent)
        return self._with(trapezoidal(weights), mean, scale * np.sqrt(noise)), _heywood(noise)


def _heywood(noise: Float[np.ndarray, "D"]) -> tuple[str, ...]:
    """What there is to say of columns whose noise has gone to its least."""
    at_least = np.flatnonzero(noise < 1.01 * LEAST)
    if not len(at_least):
        return ()
    return (
        f"The noise of {len(at_least)} column(s), the first of them column {at_least[0]}, is at its least, {LEAST:g} of the "
        "variance (a Heywood case: the likelihood has its maximum at none); take fewer factors.",
    )


def _uniquenesses(correlation: Float[np.ndarray, "D D"], latent: int) -> Float[np.ndarray, "D"]:
    """psi at the maximum, for columns of unit variance."""
    size = len(correlation)
    ridge = correlation + 1e-6 * np.eye(size)
    start = np.clip((1 - 0.5 * latent / size) / np.diag(np.linalg.inv(ridge)), 1e-3, 0.95)
    bounds = [(np.log(LEAST), 0.0)] * size
    options = {"maxiter": 1000, "maxfun": 5000, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30}
    found = minimize(_profile, np.log(start), (correlation, latent), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.exp(found.x)


def _profile(
    log_noise: Float[np.ndarray, "D"], correlation: Float[np.ndarray, "D D"], latent: int
) -> tuple[float, Float[np.ndarray, "D"]]:
    """-2 log p(x) / N but for a constant, the largest in W, and its derivative in log psi.

    With the eigenvalues t_k of Psi^-1/2 S Psi^-1/2, those of the fitted covariance are the q largest of them and 1.
    """
    values, vectors = _spectrum(correlation, np.exp(log_noise))
    fitted = np.ones_like(values)
    fitted[-latent:] = np.maximum(values[-latent:], 1.0)
    value = np.sum(log_noise) + np.sum(np.log(fitted) + values / fitted)
    return float(value), vectors**2 @ ((fitted - values) / fitted**2)


def _loadings(correlation: Float[np.ndarray, "D D"], noise: Float[np.ndarray, "D"], latent: int) -> Float[np.ndarray, "D q"]:
    """W at the maximum given psi."""
    values, vectors = _spectrum(correlation, noise)
    return np.sqrt(noise)[:, None] * vectors[:, -latent:] * np.sqrt(np.maximum(values[-latent:] - 1, 0.0))


def _spectrum(correlation: Float[np.ndarray, "D D"], noise: Float[np.ndarray, "D"]) -> tuple[np.ndarray, np.ndarray]:
    scale = 1 / np.sqrt(noise)
    values, vectors = np.linalg.eigh(scale[:, None] * correlation * scale)
    return values, vectors
