"""Columns in units of their own spread, which networks are built for."""

import abc
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import ModelError
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.generative.rows import Samples


class Standard(eqx.Module):
    """Center and scale of the columns of x and of the conditions, their means and standard deviations: constants, not trained."""

    center: Float[np.ndarray, "D"]
    scale: Float[np.ndarray, "D"]
    given_center: Float[np.ndarray, "C"]
    given_scale: Float[np.ndarray, "C"]

    @classmethod
    def of(cls, data: Samples) -> Self:
        return cls(*_standardisation(data.x), *_standardisation(data.given))

    @classmethod
    def none(cls, data: Samples) -> Self:
        """The data's own units."""
        columns, conditions = data.x.shape[1], data.given.shape[1]
        return cls(np.zeros(columns), np.ones(columns), np.zeros(conditions), np.ones(conditions))

    def x(self, x: Float[Array, "D"]) -> Float[Array, "D"]:
        return (x - like(self.center, x)) / like(self.scale, x)

    def back(self, x: Float[Array, "D"]) -> Float[Array, "D"]:
        """In the data's units again."""
        return like(self.center, x) + like(self.scale, x) * x

    def given(self, given: Float[Array, "C"]) -> Float[Array, "C"]:
        return (given - like(self.given_center, given)) / like(self.given_scale, given)

    @property
    def log_volume(self) -> Any:
        """log|dx / dstandardised x|."""
        return jnp.sum(jnp.log(self.scale))


class AbstractStandardized(AbstractGenerative):
    """A model whose networks read columns in units of their own spread."""

    @property
    @abc.abstractmethod
    def standard(self) -> Standard | None:
        """What it is built for; None before a fit."""

    @property
    def dimension(self) -> int | None:
        return None if self.standard is None else len(self.standard.center)

    @property
    def conditions(self) -> int:
        return 0 if self.standard is None else len(self.standard.given_center)

    @property
    def units(self) -> Standard:
        """Center and scale. ModelError before a fit."""
        if self.standard is None:
            raise ModelError(f"this {type(self).__name__} has not been fitted: fit it with nm.fit, and use the fit's .model.")
        return self.standard


def like(constant: Any, array: Array) -> Array:
    """In the precision that is computed in: a constant in double precision would make everything double."""
    return jnp.asarray(constant, array.dtype)


def _standardisation(x: Float[np.ndarray, "N D"]) -> tuple[Float[np.ndarray, "D"], Float[np.ndarray, "D"]]:
    """Means and standard deviations; a constant column's scale is that of the others."""
    if x.shape[1] == 0:
        return np.zeros(0), np.ones(0)
    scale = x.std(axis=0)
    typical = float(np.sqrt(np.mean(scale**2))) or 1.0
    return x.mean(axis=0), np.where(scale > 1e-6 * typical, scale, typical)
