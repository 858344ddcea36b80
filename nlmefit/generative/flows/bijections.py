"""Bijections: invertible maps of R^D whose Jacobian determinant is cheap, the parts that normalizing flows are made of.

    y = T(x; c),    log p_x(x) = log p_y(T(x; c)) + log|det dT/dx|

Each is a function of one point x (D,) and of what it is conditioned on, c (C,); `jax.vmap` makes it one of many. Weights are JAX
arrays; what stays as it is (permutations, signs, scales of data) are NumPy arrays.
"""

import abc
from collections.abc import Sequence
from typing import Any, Self, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from nlmefit.core.errors import ModelError
from nlmefit.core.typing import Scalar

Mapped = tuple[Float[Array, "D"], Scalar]
"""A point, and the log absolute determinant of the map's Jacobian there."""


class AbstractBijection(eqx.Module):
    """An invertible map. A new one needs `forward` and `inverse`; `Permutation` is the simplest example."""

    @abc.abstractmethod
    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        """y = T(x; c) and log|det dy/dx|."""

    @abc.abstractmethod
    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        """x = T^-1(y; c) and log|det dx/dy|."""


@final
class Affine(AbstractBijection):
    """y = (x - shift) exp(-log_scale), column by column. With NumPy arrays it standardises; with JAX arrays it is learned (the
    actnorm of Kingma and Dhariwal 2018)."""

    shift: Any
    log_scale: Any

    @classmethod
    def standardizing(cls, x: Float[np.ndarray, "N D"], common: bool = False) -> "Affine":
        """That gives the columns of x mean 0 and sd 1; a `common` sd for all keeps angles. A constant column is only shifted."""
        sd = np.std(x, axis=0)
        if common:
            sd = np.full(x.shape[1], np.sqrt(np.mean(sd**2)))
        return cls(np.mean(x, axis=0), np.log(np.where(sd > 0, sd, 1.0)))

    @classmethod
    def identity(cls, size: int) -> "Affine":
        return cls(np.zeros(size), np.zeros(size))

    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        return (x - self.shift) * jnp.exp(-self.log_scale), -jnp.sum(self.log_scale)

    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        return y * jnp.exp(self.log_scale) + self.shift, jnp.sum(self.log_scale)


@final
class Permutation(AbstractBijection):
    """y_k = x_{order_k}."""

    order: Int[np.ndarray, "D"]

    @classmethod
    def reversing(cls, size: int) -> "Permutation":
        return cls(np.arange(size)[::-1].copy())

    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        return x[self.order], jnp.zeros((), x.dtype)

    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        return y[jnp.argsort(self.order)], jnp.zeros((), y.dtype)


@final
class Linear(AbstractBijection):
    """y = W x with W = P L U: P a permutation, which stays, L unit lower and U upper triangular, which are learned (Kingma and
    Dhariwal 2018, section 3.2).

        log|det W| = sum_i log|u_ii|          the sign of det P does not enter

    P is needed: W = [[0, 1], [1, 0]] is no product L U. The signs of u_ii stay, so that W stays invertible.
    """

    order: Int[np.ndarray, "D"]
    sign: Float[np.ndarray, "D"]
    lower: Float[Array, "D D"]
    upper: Float[Array, "D D"]
    log_diagonal: Float[Array, "D"]

    @classmethod
    def of(cls, W: Float[np.ndarray, "D D"]) -> "Linear":
        """That of an invertible matrix. Raises ModelError for one that is singular, or not square."""
        W = np.asarray(W, float)
        if W.ndim != 2 or W.shape[0] != W.shape[1]:
            raise ModelError(f"a linear bijection needs a square matrix, got shape {W.shape}.")
        P, L, U = scipy.linalg.lu(W)
        diagonal = np.diag(U)
        if np.any(np.abs(diagonal) <= np.finfo(float).eps * len(W) * np.max(np.abs(W), initial=0.0)):
            raise ModelError(f"a linear bijection needs an invertible matrix; the {len(W)} x {len(W)} matrix given is singular.")
        log_diagonal = jnp.asarray(np.log(np.abs(diagonal)))
        below, above = jnp.asarray(np.tril(L, -1)), jnp.asarray(np.triu(U, 1))
        return cls(np.argmax(P, axis=1), np.sign(diagonal), below, above, log_diagonal)

    @classmethod
    def rotating(cls, size: int, generator: np.random.Generator) -> "Linear":
        """A random rotation."""
        return cls.of(np.linalg.qr(generator.normal(size=(size, size)))[0])

    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        lower, upper = self._factors()
        return (lower @ (upper @ x))[self.order], jnp.sum(self.log_diagonal)

    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        lower, upper = self._factors()
        middle = solve_triangular(lower, y[jnp.argsort(self.order)], lower=True, unit_diagonal=True)
        return solve_triangular(upper, middle), -jnp.sum(self.log_diagonal)

    @property
    def matrix(self) -> Float[Array, "D D"]:
        """W."""
        lower, upper = self._factors()
        return (lower @ upper)[self.order]

    def _factors(self) -> tuple[Array, Array]:
        size = len(self.order)
        lower = jnp.tril(self.lower, -1) + jnp.eye(size, dtype=self.lower.dtype)
        return lower, jnp.triu(self.upper, 1) + jnp.diag(self.sign * jnp.exp(self.log_diagonal))


@final
class Chain(AbstractBijection):
    """One bijection after the other: T = T_n ... T_2 T_1; log determinants add."""

    parts: tuple[AbstractBijection, ...]

    @classmethod
    def of(cls, parts: Sequence[AbstractBijection]) -> Self:
        return cls(tuple(parts))

    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        total = jnp.zeros((), x.dtype)
        for part in self.parts:
            x, log_determinant = part.forward(x, given)
            total += log_determinant
        return x, total

    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        total = jnp.zeros((), y.dtype)
        for part in reversed(self.parts):
            y, log_determinant = part.inverse(y, given)
            total += log_determinant
        return y, total


@final
class Repeated(AbstractBijection):
    """A chain of bijections alike in structure, compiled once whatever their number: their arrays are stacked."""

    stack: AbstractBijection

    @classmethod
    def of(cls, parts: Sequence[AbstractBijection]) -> Self:
        def stacked(*leaves: Any) -> Any:
            if not eqx.is_array(leaves[0]):  # an activation
                return leaves[0]
            return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)

        return cls(jax.tree.map(stacked, *parts))

    def forward(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        return self._scanned(x, lambda part, x: part.forward(x, given), reverse=False)

    def inverse(self, y: Float[Array, "D"], given: Float[Array, "C"]) -> Mapped:
        return self._scanned(y, lambda part, y: part.inverse(y, given), reverse=True)

    def _scanned(self, x: Float[Array, "D"], move: Any, reverse: bool) -> Mapped:
        arrays, rest = eqx.partition(self.stack, eqx.is_array)
        moved, terms = jax.lax.scan(lambda x, part: move(eqx.combine(part, rest), x), x, arrays, reverse=reverse)
        return moved, jnp.sum(terms)
