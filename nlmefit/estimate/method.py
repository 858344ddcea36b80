"""What the methods that maximize an approximate marginal likelihood have in common.

A method says, for one subject at given theta, which function of z its inner problem minimizes and what it then takes for
-2 log p(y_i | theta). Everything else (modes, gradients, optimizer, standard errors) is written once.
"""

import abc
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.errors import MethodError
from nlmefit.estimate.density import Sites
from nlmefit.typing import Scalar

Covariance = Literal["sandwich", "R", "S", "none"]


class AbstractMarginalMethod(abc.ABC):
    """FO, FOCE, Laplace and quadrature: -2 log L = sum_i contribution_i(theta, mode_i(theta))."""

    covariance: Covariance

    @property
    def has_modes(self) -> bool:
        """Whether the contribution is taken at the mode of p(z | y, theta) (else at z = 0)."""
        return True

    @property
    @abc.abstractmethod
    def order(self) -> int:
        """How often the contribution and its gradient differentiate the model."""

    @property
    def at_origin(self) -> bool:
        """Whether the method looks at the model at z = 0 besides the mode."""
        return False

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As users read it: "FOCE with interaction"."""

    @abc.abstractmethod
    def inner(self, sites: Sites, z: Float[Array, "q"]) -> Scalar:
        """What the inner problem minimizes: -log p(y, z | theta), or the method's version of it."""

    @abc.abstractmethod
    def contribution(self, sites: Sites, z: Float[Array, "q"]) -> tuple[Scalar, Float[Array, "q"]]:
        """-2 log p(y | theta) as the method approximates it, n log(2 pi) included, at the mode z; and the gradient of `inner`
        there, from the same evaluation of the model (their common derivatives are what the outer gradient needs)."""


def check_covariance(value: str) -> None:
    """MethodError where `covariance` is none of the known kinds."""
    if value not in ("sandwich", "R", "S", "none"):
        raise MethodError(
            f"covariance must be 'sandwich' (R^-1 S R^-1), 'R' (inverse Hessian), 'S' (inverse cross-product of "
            f"gradients) or 'none', got {value!r}."
        )


def two_log_integral(value: Scalar, log_determinant: Scalar, q: int) -> Scalar:
    """-2 log of Laplace's integral of exp(-value(z)) with Hessian H: 2 value + log|H| - q log(2 pi)."""
    return 2.0 * value + log_determinant - q * jnp.log(2 * jnp.pi)
