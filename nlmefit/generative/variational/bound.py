"""Lower bounds of log p(x) from weights w = p(x, z) / q(z | x), z ~ q, whose mean is p(x):

    E[ log w ]  <=  E[ log (w_1 + ... + w_K) / K ]  <=  log p(x)

the evidence lower bound (Kingma and Welling 2014) and the importance-weighted one (Burda, Grosse and Salakhutdinov 2016).
"""

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.estimate.referee.importance import Weights
from nlmefit.estimate.referee.marginal import Marginal
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractBounded, in_blocks
from nlmefit.generative.trainer import AbstractTrainer
from nlmefit.generative.training import Training

ROWS = 256
"""Rows whose weights are computed at once."""


class AbstractWeighted(AbstractBounded):
    """Can draw weights whose mean is p(x)."""

    @abc.abstractmethod
    def log_weight(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        """log p(x, z | c) - log q(z | x, c) at a draw z ~ q(z | x, c)."""

    def log_marginal(self, X: Any, *, draws: int = 500, key: Key = 0, given: Any = None) -> Marginal:
        """The importance-weighted bound of sum_i log p(x_i), of that many draws of each row: `.value`, `.mc_se`, and
        `.per_subject` with its effective number of draws and k-hat by row. Its kind is "bound": on the average over draws it is
        below log p(X), by less the more draws there are. `nm.log_marginal` does not depend on the encoder.

        Raises DataError for another number of columns or values that are not finite, MethodError for another number of draws.
        """
        check_whole("draws", draws, 2)
        X = self._rows(X)
        c, keys = self._given(given, len(X)), jax.random.split(jax_key(key), len(X))
        blocks = [slice(k, k + ROWS) for k in range(0, len(X), ROWS)]
        log = np.concatenate([in_blocks(_log_weights, self, X[b], c[b], keys[b], count=draws) for b in blocks])
        weights = Weights(np.zeros((draws, len(X), 0)), log.T)
        columns = {"log_likelihood": weights.log_likelihood, "mc_se": weights.mc_se, "ess": weights.ess, "khat": weights.khat}
        table = pd.DataFrame(columns, pd.RangeIndex(len(X), name="row"))
        error = float(np.sqrt(np.sum(weights.mc_se**2)))
        return Marginal(float(table["log_likelihood"].sum()), error, "bound", table, f"{draws} importance-weighted draws", "")


class AbstractStratified(AbstractBounded):
    """Has a bound that is a mean over a uniform number, beside all that is drawn: a time. Rows of a batch take different ones."""

    @abc.abstractmethod
    def bound_at(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array, uniform: Scalar) -> Scalar:
        """`bound` at this number of [0, 1)."""


class AbstractUnconditional(AbstractBounded):
    """Takes conditions that are NaN for none (the null token), so that one model serves p(x | c) and p(x)."""


@final
@dataclass(frozen=True)
class VariationalBound(AbstractTrainer):
    """The largest lower bound of log p(x), for models with an encoder or a fixed noising process: `gen.VAE`,
    `gen.HierarchicalVAE`, `gen.Diffusion`.

    **Arguments:** `draws` of each row in a step; `weighted=K` raises the tighter bound of K importance-weighted draws (Burda,
    Grosse and Salakhutdinov 2016; models with an encoder only); `unconditioned` the share of rows that are trained on without
    their condition, for classifier-free guidance (Ho and Salimans 2022; `gen.Diffusion` only); `training`, a `gen.Training`.

    Raises MethodError for values out of range, and for models without such a bound.
    """

    draws: int = 1
    weighted: int = 1
    unconditioned: float = 0.0
    training: Training | None = None
    needs: ClassVar[type] = AbstractBounded
    ability: ClassVar[str] = "a lower bound of log p(x)"
    objective: ClassVar[str] = "minus a lower bound of log p(x), the mean over rows"

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("draws", self.draws, 1)
        check_whole("weighted", self.weighted, 1)
        if isinstance(self.unconditioned, bool) or not 0 <= self.unconditioned < 1:
            raise MethodError(f"unconditioned must be a share from 0 to below 1, got {self.unconditioned!r}.")

    @property
    def name(self) -> str:
        return "variational bound" + (f" of {self.weighted} weighted draws" if self.weighted > 1 else "")

    def check(self, model: Any) -> None:
        super().check(model)
        kind = type(model).__name__
        if self.weighted > 1 and not isinstance(model, AbstractWeighted):
            raise MethodError(f"weighted={self.weighted} needs a model with an encoder; {kind} has none: leave weighted out.")
        if self.unconditioned and not isinstance(model, AbstractUnconditional):
            raise MethodError(f"unconditioned={self.unconditioned:g} is for diffusion models; {kind} always takes its condition.")

    def loss(self, model: Any, x: Array, given: Array, key: Array) -> Scalar:
        drop, draw = jax.random.split(key)
        given = dropped(given, self.unconditioned, drop)
        keys = jax.random.split(draw, (len(x), self.draws))
        if self.weighted > 1:
            tighter = jax.vmap(lambda x, c, k: importance_weighted(model, x, c, k, self.weighted), in_axes=(None, None, 0))
            return -jnp.mean(jax.vmap(tighter)(x, given, keys))
        if isinstance(model, AbstractStratified):
            uniform = stratified(draw, keys.shape)
            timed = jax.vmap(model.bound_at, in_axes=(None, None, 0, 0))
            return -jnp.mean(jax.vmap(timed)(x, given, keys, uniform))
        plain = jax.vmap(model.bound, in_axes=(None, None, 0))
        return -jnp.mean(jax.vmap(plain)(x, given, keys))


def importance_weighted(model: AbstractWeighted, x: Array, given: Array, key: Array, count: int) -> Scalar:
    """log of the mean of that many weights."""
    return jax.nn.logsumexp(_log_weights(model, x, given, key, count=count)) - math.log(count)


def stratified(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Numbers of [0, 1), each uniform, evenly spread among all of them (Kingma, Salimans, Poole and Ho 2021, appendix I.1)."""
    count = int(np.prod(shape))
    return ((jax.random.uniform(key) + jnp.arange(count) / count) % 1.0).reshape(shape)


def dropped(given: Float[Array, "B C"], share: float, key: Array) -> Float[Array, "B C"]:
    """The conditions with that share of the rows without theirs (NaN)."""
    if share == 0:
        return given
    return jnp.where(jax.random.bernoulli(key, share, (len(given), 1)), jnp.nan, given)


def _log_weights(model: AbstractWeighted, x: Array, given: Array, key: Array, *, count: int) -> Float[Array, " K"]:
    return jax.vmap(lambda k: model.log_weight(x, given, k))(jax.random.split(key, count))
