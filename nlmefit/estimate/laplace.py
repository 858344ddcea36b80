"""Laplace's approximation (Tierney and Kadane 1986; NONMEM's LAPLACE).

    -2 log L_i = 2 l_i(z*) + log|l_i''(z*)| ,  l_i(z) = -log p(y_i, z | theta)

with the exact Hessian of l_i. Reads the density only, so that any observation with a `log_prob` will do.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Array, Float

from nlmefit.estimate import foce
from nlmefit.estimate.at_mode import AbstractAtMode, two_log_integral
from nlmefit.estimate.density import Sites, log_joint
from nlmefit.estimate.empirical_bayes import expand
from nlmefit.estimate.factor import factorize, log_determinant
from nlmefit.estimate.marginal_likelihood import check_covariance
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.typing import Scalar


@final
@dataclass(frozen=True)
class Laplace(AbstractAtMode):
    """Laplace's approximation. `interaction=False` takes the residual variance at eta = 0 (normal observations only).

    `covariance` as for `FOCE`.
    """

    interaction: bool = True
    covariance: Covariance = "sandwich"

    def __post_init__(self) -> None:
        check_covariance(self.covariance)

    @property
    def order(self) -> int:
        return 3

    @property
    def at_origin(self) -> bool:
        return not self.interaction

    @property
    def name(self) -> str:
        return "Laplace" if self.interaction else "Laplace without interaction"

    @property
    def notes(self) -> dict[str, str]:
        return foce.interaction_note(self.interaction)

    def inner(self, sites: Sites, z: Float[Array, "q"]) -> Scalar:
        if self.interaction:
            return -log_joint(sites, z)
        return foce.inner(sites, z, False, "Laplace without interaction")

    def contribution(self, sites: Sites, z: Float[Array, "q"]) -> tuple[Scalar, Float[Array, "q"]]:
        value, gradient, hessian = expand(lambda z: self.inner(sites, z), z)
        return two_log_integral(value, log_determinant(factorize(hessian)), z.shape[0]), gradient
