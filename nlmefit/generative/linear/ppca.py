"""Probabilistic principal component analysis (Tipping and Bishop 1999).

x_i = W z_i + mu + eps_i,   z_i ~ N(0, I_q),  eps_i ~ N(0, sigma^2 I_D)
"""

from typing import Any, ClassVar, Self

import equinox as eqx
import numpy as np
from jaxtyping import Float

from nlmefit.core.errors import DataError, ModelError
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.linear.linear_gaussian import AbstractLinearGaussian, Moments, check_latent, trapezoidal


class PPCA(AbstractLinearGaussian):
    """PPCA with `latent` components: noise of one standard deviation in all columns.

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
        return columns.mean()

    def _best(self, X: Float[np.ndarray, "N D"]) -> tuple[Self, tuple[str, ...]]:
        """In closed form (Tipping and Bishop 1999, eq. 7, 8 and appendix A):

        sigma^2 the mean of the D - q smallest eigenvalues of the sample covariance, W = U (Lambda - sigma^2 I)^1/2 rotated.
        """
        _, mean, covariance = Moments.of(X)
        values, vectors = np.linalg.eigh(covariance)
        noise = values[: -self.latent].mean()
        if noise <= 1e-13 * values[-1]:
            raise DataError(
                f"the rows of X vary in no more than {self.latent} direction(s), so that PPCA(latent={self.latent}) leaves no "
                "noise and the likelihood has no maximum; take fewer components."
            )
        weights = vectors[:, -self.latent :] * np.sqrt(np.maximum(values[-self.latent :] - noise, 0.0))
        return self._with(trapezoidal(weights), mean, np.sqrt(noise)), ()
