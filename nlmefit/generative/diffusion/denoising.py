"""Denoising score matching (Vincent 2011; Song and Ermon 2019): diffusions trained on their prediction at all times."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.diffusion.diffusion import Diffusion, held
from nlmefit.generative.diffusion.noising import noise, signal
from nlmefit.generative.trainer import AbstractTrainer
from nlmefit.generative.training import Training
from nlmefit.generative.variational.bound import dropped, stratified

Weighting = Literal["simple", "likelihood", "snr", "velocity"]
MOST_SNR = 5.0


@final
@dataclass(frozen=True)
class DenoisingScoreMatching(AbstractTrainer):
    """The least E_t[ w(t) |score(x_t, t) - d log q(x_t | x_0)|^2 ], t uniform, x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps. But for
    a constant it is E_t[ w(t) Fisher divergence from the noised data ] (Vincent 2011).

    **Arguments:** `weighting`, which makes it

    | | w(t) | |
    |---|---|---|
    | "simple" | 1 - abar | the error of the noise (Ho, Jain and Abbeel 2020) |
    | "likelihood" | beta / 2 | the variational bound in continuous time (Song, Durkan, Murray and Ermon 2021) |
    | "snr" | (1 - abar) min(1, 5 / SNR) | less weight where there is little noise (Hang et al. 2023) |
    | "velocity" | (1 - abar) / abar | the error of the velocity (Salimans and Ho 2022) |

    `draws` of each row in a step; `unconditioned` as in `gen.VariationalBound`; `training`, a `gen.Training`. A learned
    schedule stays as it is: weighted otherwise, the error is least where there is nothing to predict. Raises MethodError for
    values out of range, and for models other than `gen.Diffusion`.
    """

    weighting: Weighting = "simple"
    draws: int = 1
    unconditioned: float = 0.0
    training: Training | None = None
    needs: ClassVar[type] = Diffusion
    ability: ClassVar[str] = "the score of noised data"
    objective: ClassVar[str] = "the weighted squared error of the score, the mean over rows"

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("draws", self.draws, 1)
        if self.weighting not in get_args(Weighting):
            raise MethodError(f"weighting must be one of {', '.join(get_args(Weighting))}, got {self.weighting!r}.")
        if isinstance(self.unconditioned, bool) or not 0 <= self.unconditioned < 1:
            raise MethodError(f"unconditioned must be a share from 0 to below 1, got {self.unconditioned!r}.")

    @property
    def name(self) -> str:
        return f"denoising score matching, {self.weighting} weighting"

    def loss(self, model: Any, x: Array, given: Array, key: Array) -> Scalar:
        drop, place, draw = jax.random.split(key, 3)
        model = dataclasses.replace(model, schedule=held(model.schedule))
        given = dropped(given, self.unconditioned, drop)
        t = stratified(place, (len(x), self.draws)).astype(x.dtype)
        eps = jax.random.normal(draw, (*t.shape, x.shape[1]), x.dtype)
        one = jax.vmap(lambda x, c, t, eps: denoising_error(model, x, c, t, eps, self.weighting), in_axes=(None, None, 0, 0))
        return jnp.mean(jax.vmap(one)(x, given, t, eps))


def denoising_error(
    model: Diffusion, x: Float[Array, "D"], given: Float[Array, "C"], t: Scalar, eps: Float[Array, "D"], weighting: Weighting
) -> Scalar:
    """The weighted squared error of one prediction, at the time t and with the noise eps."""
    schedule, x = model.schedule, model.units.x(x)
    log_snr = schedule.log_snr(t)
    error = eps - model.predicted(signal(log_snr) * x + noise(log_snr) * eps, log_snr, given).noise
    weight = {
        "simple": jnp.ones_like(log_snr),
        "likelihood": -0.5 * schedule.slope(t),
        "snr": jnp.minimum(1.0, MOST_SNR * jnp.exp(-log_snr)),
        "velocity": 1 / jax.nn.sigmoid(log_snr),
    }[weighting]
    return weight * jnp.sum(error**2)
