"""p(x | z) of decoders: what a network's outputs mean for the columns of x."""

import abc
from dataclasses import dataclass
from typing import Literal, final, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution

from nlmefit.core.errors import DataError, ModelError
from nlmefit.generative.arguments import check_kinds

Sd = Literal["shared", "column", "decoded"]
LEAST_SD = 1e-3
"""Standard deviation of a column, in units of its spread in the data, at the least: the likelihood has no maximum without."""


class AbstractLikelihood(abc.ABC):
    """A family of distributions of x in R^D; a hashable value. `center` and `scale` are the data's, by column."""

    @abc.abstractmethod
    def outputs(self, columns: int) -> int:
        """How many numbers the decoder's network gives."""

    @abc.abstractmethod
    def start(self, columns: int) -> Float[np.ndarray, " s"]:
        """Parameters of its own beside the network's, where training starts: logs of standard deviations."""

    @abc.abstractmethod
    def check(self, x: Float[np.ndarray, "N D"]) -> None:
        """DataError where the data cannot have come from it."""

    @abc.abstractmethod
    def distribution(self, outputs: Array, own: Float[Array, " s"], center: Array, scale: Array) -> Distribution:
        """p(x | outputs), a distribution by column."""


@final
@dataclass(frozen=True)
class GaussianLikelihood(AbstractLikelihood):
    """x_j ~ N(center_j + scale_j f_j(z), s_j^2), the standard deviation s_j

    "shared": one for all columns (as PPCA); "column": one for each (as factor analysis); "decoded": a function of z too, from the
    same network (Nix and Weigend 1994). Raises ModelError for another `sd`.
    """

    sd: Sd = "column"

    def __post_init__(self) -> None:
        check_kinds(self, ModelError)
        if self.sd not in get_args(Sd):
            raise ModelError(f"GaussianLikelihood(sd=...) must be one of {', '.join(get_args(Sd))}, got {self.sd!r}.")

    def outputs(self, columns: int) -> int:
        return 2 * columns if self.sd == "decoded" else columns

    def start(self, columns: int) -> Float[np.ndarray, " s"]:
        return np.zeros({"shared": 1, "column": columns, "decoded": columns}[self.sd])

    def check(self, x: Float[np.ndarray, "N D"]) -> None:
        """Any numbers will do."""

    def distribution(self, outputs: Array, own: Float[Array, " s"], center: Array, scale: Array) -> Distribution:
        size = len(center)
        if self.sd == "shared":  # in the data's own units, in which the columns' noise is alike
            sd = jnp.exp(own) * jnp.sqrt(jnp.mean(jnp.square(scale)))
        else:
            log_sd = own + outputs[size:] if self.sd == "decoded" else own
            sd = scale * (LEAST_SD + jnp.exp(log_sd))
        return dist.Normal(center + scale * outputs[:size], jnp.broadcast_to(sd, (size,)))


@final
@dataclass(frozen=True)
class BernoulliLikelihood(AbstractLikelihood):
    """x_j is 0 or 1, with log odds f_j(z) and those of the column's mean."""

    def outputs(self, columns: int) -> int:
        return columns

    def start(self, columns: int) -> Float[np.ndarray, " s"]:
        return np.zeros(0)

    def check(self, x: Float[np.ndarray, "N D"]) -> None:
        wrong = (x != 0) & (x != 1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                f"BernoulliLikelihood is of zeros and ones; X holds {wrong.sum()} other values, the first {x[row, column]:g} in "
                f"row {row}, column {column}. Use GaussianLikelihood for numbers."
            )

    def distribution(self, outputs: Array, own: Float[Array, " s"], center: Array, scale: Array) -> Distribution:
        share = jnp.clip(center, 0.01, 0.99)
        return dist.Bernoulli(logits=outputs + jnp.log(share / (1 - share)))
