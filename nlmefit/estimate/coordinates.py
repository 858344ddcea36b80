"""Free population parameters as one vector without bounds, and back.

Positive parameters by their log, bounded ones by their logit, correlation factors by NumPyro's Cholesky coordinates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints

from nlmefit.core.typing import Theta
from nlmefit.latent.model import Parameter


@dataclass(frozen=True)
class Coordinates:
    """The map between a vector u (p,) of free coordinates and theta by name."""

    parameters: Mapping[str, Parameter]

    @cached_property
    def free(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters.values() if not p.fixed)

    @cached_property
    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(biject_to(p.support).inverse_shape(p.shape) for p in self.free)

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(shape, dtype=int)) for shape in self._shapes)

    @property
    def size(self) -> int:
        return sum(self._sizes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A label per coordinate: the parameter's name, with the position inside it where it has several."""
        return tuple(
            p.name if size == 1 else f"{p.name}[{k}]" for p, size in zip(self.free, self._sizes, strict=True) for k in range(size)
        )

    @cached_property
    def transformed(self) -> np.ndarray:
        """Whether each coordinate is a log, logit or the like (p,): differences of 1 are then large."""
        return np.concatenate(
            [np.full(size, p.support is not constraints.real) for p, size in zip(self.free, self._sizes, strict=True)]
            or [np.zeros(0, bool)]
        )

    @cached_property
    def positive(self) -> np.ndarray:
        """Whether each coordinate is the log of a positive parameter (p,)."""
        return np.concatenate(
            [np.full(size, p.support is constraints.positive) for p, size in zip(self.free, self._sizes, strict=True)]
            or [np.zeros(0, bool)]
        )

    def of_kind(self, kind: str) -> np.ndarray:
        """Whether each coordinate is one of a parameter of that kind (p,)."""
        return np.concatenate(
            [np.full(size, p.kind == kind) for p, size in zip(self.free, self._sizes, strict=True)] or [np.zeros(0, bool)]
        )

    def start(self) -> np.ndarray:
        """The vector at the parameters' starts (p,)."""
        return self.vector({p.name: p.start for p in self.free})

    def vector(self, theta: Mapping[str, Any]) -> np.ndarray:
        """theta as a vector (p,)."""
        parts = [np.ravel(biject_to(p.support)._inverse(jnp.asarray(theta[p.name], float))) for p in self.free]
        return np.concatenate(parts) if parts else np.zeros(0)

    def fixed(self) -> dict[str, np.ndarray]:
        """The fixed parameters' values by name."""
        return {p.name: np.asarray(p.start, float) for p in self.parameters.values() if p.fixed}

    def theta(self, u: Float[Array, "p"], fixed: Theta) -> dict[str, Array]:
        """theta by name, on the natural scale."""
        result, place = dict(fixed), 0
        for parameter, shape, size in zip(self.free, self._shapes, self._sizes, strict=True):
            part = u[place : place + size].reshape(shape)
            result[parameter.name] = biject_to(parameter.support)(part)
            place += size
        return {name: result[name] for name in self.parameters}
