"""What a generative model can compute, and so how it can be fitted and used.

A model is a value (an equinox module): its weights are JAX arrays, what it is built for (sizes, standardisation) is not. Each
capability is one pure function of one x, which methods differentiate and vectorise, and the calls for users that follow from it.
A call that a model cannot honour is a `NotTractableError`, which says what it can do instead.
"""

import abc
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled_module
from nlmefit.core.errors import DataError, ModelError, NlmefitError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.rows import Samples, matrix

BLOCK = 4096
"""Rows that are computed at once."""

CALLS = {
    "log_prob": "the density of x",
    "score": "the density of x",
    "elbo": "a bound of log p(x)",
    "sample": "samples",
    "stein_score": "the gradient of log p(x)",
    "unnormalized_log_prob": "an energy",
    "velocity_at": "a velocity field",
    "paths": "a velocity field",
    "to_source": "a velocity field",
    "from_source": "a velocity field",
    "posterior": "a posterior of latent variables",
    "transform": "a posterior of latent variables",
    "reconstruct": "a posterior of latent variables",
    "critic_distance": "a critic",
}
"""What users call, and what it takes."""


class NotTractableError(NlmefitError, AttributeError):
    """This model cannot compute what was asked for."""


class AbstractGenerative(eqx.Module):
    """A generative model of vectors x in R^D, maybe given c in R^C."""

    fitted_by: ClassVar[tuple[str, ...]] = ()
    """The methods that this model is fitted by, for messages."""

    @property
    @abc.abstractmethod
    def dimension(self) -> int | None:
        """D; None as long as no data have been seen."""

    @property
    def conditions(self) -> int:
        """C."""
        return 0

    @abc.abstractmethod
    def built(self, data: Samples, key: Array) -> Self:
        """With networks for data of this kind, as training starts; itself where it has been built before."""

    def __getattr__(self, name: str) -> Any:
        if name in CALLS:
            able = [call for call in CALLS if hasattr(type(self), call)]
            raise NotTractableError(
                f"{type(self).__name__} cannot compute {name}: it does not have {CALLS[name]}. It has: {', '.join(able)}."
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

    def started(self, data: Samples, key: Array) -> Self:
        """`built`, once it is certain that a built model fits the data. DataError where it does not."""
        if self.dimension is not None:
            self._rows(data.x)
            self._given(data.given, len(data))
        return self.built(data, key)

    def _rows(self, X: Any) -> Float[np.ndarray, "N D"]:
        if self.dimension is None:
            raise ModelError(f"this {type(self).__name__} has not been fitted: fit it with nm.fit, and use the fit's .model.")
        return matrix("X", X, self.dimension)

    def _given(self, given: Any, rows: int) -> Float[np.ndarray, "N C"]:
        if given is None:
            if self.conditions:
                raise DataError(f"this model is conditional: give its {self.conditions} condition(s) as given=.")
            return np.zeros((rows, 0))
        c = matrix("given", given if np.ndim(given) > 1 else np.reshape(given, (-1, max(self.conditions, 1))))
        if c.shape[1] != self.conditions:
            raise DataError(f"given has {c.shape[1]} columns, the model {self.conditions} condition(s).")
        if len(c) not in (1, rows):
            raise DataError(f"given has {len(c)} rows for {rows} of X; give one for each, or one for all.")
        return np.broadcast_to(c, (rows, c.shape[1]))


class AbstractSampler(AbstractGenerative):
    """Can draw x."""

    @abc.abstractmethod
    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        """One x."""

    def sample(self, n: int, *, key: Key = 0, given: Any = None) -> Float[np.ndarray, "n D"]:
        """n draws of x; conditional models take what they are `given`, a row for each or one for all.

        Raises MethodError, DataError for wrong arguments, ModelError where the model has no values yet.
        """
        check_whole("n", n, 1)
        if self.dimension is None:
            self._rows(None)
        c = self._given(given, n)
        return in_blocks(_draw, self, jax.random.split(jax_key(key), n), c)


class AbstractDensity(AbstractSampler):
    """Can compute log p(x), exactly."""

    def started(self, data: Samples, key: Array) -> Self:
        """As for any model. DataError for a column without spread, where log p(x) can grow beyond every number."""
        flat = np.flatnonzero(np.ptp(data.x, axis=0) <= 1e-12 * (1 + np.abs(data.x).max(axis=0)))
        if len(flat) and len(data) > 1:
            raise DataError(
                f"{len(flat)} column(s) of X are constant, the first of them column {flat[0]}: their density is infinite. Leave "
                "them out, or add noise of the width that the values are rounded to."
            )
        return super().started(data, key)

    @abc.abstractmethod
    def log_density(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Scalar:
        """log p(x | c)."""

    def noisy_log_density(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        """A random number whose mean is log p(x | c), to train by: itself, unless a model has what is cheaper."""
        return self.log_density(x, given)

    def log_prob(self, X: Any, *, given: Any = None) -> Float[np.ndarray, "N"]:
        """log p(x_i) by row, exact. Raises DataError for another number of columns or values that are not finite."""
        X = self._rows(X)
        return in_blocks(_log_density, self, X, self._given(given, len(X)))

    def score(self, X: Any, *, given: Any = None) -> float:
        """The mean of log p(x_i), as scikit-learn's `score` (not a score function: that is `stein_score`)."""
        return float(np.mean(self.log_prob(X, given=given)))

    def stein_score(self, X: Any, *, given: Any = None) -> Float[np.ndarray, "N D"]:
        """d log p(x) / dx by row."""
        X = self._rows(X)
        return in_blocks(_slope, self, X, self._given(given, len(X)))


class AbstractBounded(AbstractSampler):
    """Can estimate a lower bound of log p(x), without bias, from random draws."""

    @abc.abstractmethod
    def bound(self, x: Float[Array, "D"], given: Float[Array, "C"], key: Array) -> Scalar:
        """A draw of a random number whose mean is at most log p(x | c)."""

    def elbo(self, X: Any, *, draws: int = 100, key: Key = 0, given: Any = None) -> Float[np.ndarray, "N"]:
        """The bound of log p(x_i) by row, the mean of that many draws."""
        check_whole("draws", draws, 1)
        X = self._rows(X)
        keys = jax.random.split(jax_key(key), len(X))
        return in_blocks(_bounds, self, X, self._given(given, len(X)), keys, count=draws)


def _draw(model: AbstractSampler, key: Array, given: Array) -> Array:
    return model.draw(key, given)


def _log_density(model: AbstractDensity, x: Array, given: Array) -> Array:
    return model.log_density(x, given)


def _slope(model: AbstractDensity, x: Array, given: Array) -> Array:
    return jax.grad(model.log_density)(x, given)


def _bounds(model: AbstractBounded, x: Array, given: Array, key: Array, *, count: int) -> Array:
    return jnp.mean(jax.lax.map(lambda k: model.bound(x, given, k), jax.random.split(key, count), batch_size=16))


@compiled_module
def _vectorised(function: Any, model: Any, arrays: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    return jax.vmap(lambda *one: function(model, *one, **dict(options)))(*arrays)


def in_blocks(function: Any, model: Any, *arrays: Any, **options: Any) -> Any:
    """function(model, *row) of every row of the arrays, in blocks of bounded memory; results stacked, as NumPy arrays."""
    found = []
    for begin in range(0, len(arrays[0]), BLOCK):
        rows = [a[begin : begin + BLOCK] for a in arrays]
        found.append(jax.tree.map(np.asarray, _vectorised(function, model, tuple(rows), tuple(options.items()))))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
