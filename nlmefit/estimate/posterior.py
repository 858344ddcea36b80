"""p(z | y_i, theta) at the estimates, as a method knows it: what simulation, diagnostics and ArviZ draw from."""

import abc
from dataclasses import dataclass
from typing import final

import jax
import numpy as np
from jaxtyping import Array, Float


class AbstractPosterior(abc.ABC):
    """The posterior of the whitened random effects of N subjects."""

    @property
    @abc.abstractmethod
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        """By subject; NaN where it is not known."""

    @abc.abstractmethod
    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        """Draws by subject."""


@final
@dataclass(frozen=True)
class Gaussian(AbstractPosterior):
    """Normal around the modes, with the inverse of the inner Hessian."""

    mean: Float[np.ndarray, "N q"]
    spread: Float[np.ndarray, "N q q"]

    @classmethod
    def at_mode(cls, mode: Float[np.ndarray, "N q"], hessian: Float[np.ndarray, "N q q"]) -> "Gaussian":
        """H^-1 by subject; NaN where H is not positive definite."""
        q = mode.shape[1]
        if q == 0:
            return cls(mode, np.zeros((len(mode), 0, 0)))
        usable = np.all(np.isfinite(hessian), axis=(1, 2))
        safe = np.where(usable[:, None, None], hessian, np.eye(q))
        usable &= np.linalg.eigvalsh(safe)[:, 0] > 0
        inverse = np.linalg.inv(np.where(usable[:, None, None], safe, np.eye(q)))
        return cls(mode, np.where(usable[:, None, None], inverse, np.nan))

    @property
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        return self.spread

    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        known = np.all(np.isfinite(self.spread), axis=(1, 2))
        root = np.linalg.cholesky(np.where(known[:, None, None], self.spread, np.eye(self.mean.shape[1])))
        white = np.asarray(jax.random.normal(key, (count, *self.mean.shape)))
        found = self.mean + np.einsum("nij,knj->kni", root, white)
        return np.where(known[:, None], found, np.nan)


@final
@dataclass(frozen=True)
class Weighted(AbstractPosterior):
    """Draws with weights, by subject."""

    points: Float[np.ndarray, "K N q"]
    weights: Float[np.ndarray, "K N"]
    """Of sum 1 by subject."""

    @property
    def mean(self) -> Float[np.ndarray, "N q"]:
        return np.einsum("kn,kni->ni", self.weights, self.points)

    @property
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        off = self.points - self.mean
        return np.einsum("kn,kni,knj->nij", self.weights, off, off)

    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        """By systematic resampling, each subject's draws in random order."""
        size = self.points.shape[1]
        offset, shuffle = jax.random.split(key)
        grid = (np.arange(count)[:, None] + np.asarray(jax.random.uniform(offset, (1, size)))) / count
        cumulated = np.cumsum(self.weights, axis=0)
        order = np.argsort(np.asarray(jax.random.uniform(shuffle, (count, size))), axis=0)
        chosen = np.stack([np.searchsorted(cumulated[:, i], grid[order[:, i], i]) for i in range(size)], axis=1)
        return self.points[np.minimum(chosen, len(self.points) - 1), np.arange(size)]
