"""Score matching: models that know their density but for a constant, fitted by the Fisher divergence (Hyvarinen 2005).

    E |s(x) - d log p_data(x)|^2 / 2  =  E[ |s(x)|^2 / 2 + tr ds/dx ] + constant,      s = -dE/dx

in units of each column's spread. The trace in directions, and noise in place of it, are the two ways around its cost.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.energy.energy import AbstractEnergy
from nlmefit.generative.trainer import AbstractTrainer
from nlmefit.generative.training import Training

Way = Literal["exact", "sliced", "denoising"]


@final
@dataclass(frozen=True)
class ScoreMatching(AbstractTrainer):
    """The least Fisher divergence from the data.

    **Arguments:** `way`:

    | way | what is averaged over rows |
    |---|---|
    | "exact" | |s|^2 / 2 + tr ds/dx (Hyvarinen 2005); as many derivatives as columns |
    | "sliced" | |s|^2 / 2 + v' (ds/dx) v, v random signs, `directions` of them (Song, Garg, Shi and Ermon 2019) |
    | "denoising" | |s(x + noise e) + e / noise|^2 / 2, e normal: of the data with that noise added (Vincent 2011) |

    `noise` is in units of the columns' standard deviations. Raises MethodError for values out of range.
    """

    way: Way = "exact"
    directions: int = 1
    noise: float = 0.1
    training: Training | None = None
    needs: ClassVar[type] = AbstractEnergy
    ability: ClassVar[str] = "an energy"
    objective: ClassVar[str] = "the Fisher divergence from the data but for a constant, the mean over rows"

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.way not in get_args(Way):
            raise MethodError(f"way must be one of {', '.join(get_args(Way))}, got {self.way!r}.")
        check_whole("directions", self.directions, 1)
        if isinstance(self.noise, bool) or not isinstance(self.noise, int | float) or not 0 < self.noise < 10:
            raise MethodError(f"noise must be a number above 0 and below 10, got {self.noise!r}.")

    @property
    def name(self) -> str:
        return f"{self.way} score matching"

    def loss(self, model: Any, x: Array, given: Array, key: Array) -> Scalar:
        return jnp.mean(jax.vmap(lambda x, key: self.row(model, x, key))(x, jax.random.split(key, len(x))))

    def row(self, model: AbstractEnergy, x: Float[Array, "D"], key: Array) -> Scalar:
        """The term of one x."""
        units = model._scaled()
        u = units.x(x)

        def score(u: Array) -> Array:
            return -jax.grad(lambda u: model.energy(units.back(u)))(u)

        if self.way == "denoising":
            e = jax.random.normal(key, u.shape, u.dtype)
            return 0.5 * jnp.sum((score(u + self.noise * e) + e / self.noise) ** 2)
        if self.way == "exact":
            return exact(score, u)
        signs = jax.random.rademacher(key, (self.directions, len(u)), u.dtype)
        return jnp.mean(jax.vmap(lambda v: sliced(score, u, v))(signs))


def exact(score: Any, u: Float[Array, "D"]) -> Scalar:
    """|s|^2 / 2 + tr ds/du."""
    s = score(u)
    return 0.5 * s @ s + jnp.trace(jax.jacfwd(score)(u))


def sliced(score: Any, u: Float[Array, "D"], v: Float[Array, "D"], reduced: bool = True) -> Scalar:
    """|s|^2 / 2 + v' (ds/du) v; not `reduced`, (v' s)^2 / 2 for the first term, which has the same mean."""
    s, along = jax.jvp(score, (u,), (v,))
    return 0.5 * (s @ s if reduced else (v @ s) ** 2) + v @ along
