"""The population objective -2 log L(u) of a method, its gradient, and what every subject adds to them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Theta
from nlmefit.estimate.batches import by_subject
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.method import Kind
from nlmefit.estimate.modes.empirical_bayes import Mode, Start
from nlmefit.estimate.posterior import AbstractPosterior
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program


class Contributions(NamedTuple):
    """Per subject (leading axis N): -2 log L_i, its gradient in u, and the mode."""

    value: Any
    gradient: Any
    z: Any
    moves: Any
    """dz/du (q, p), where the method knows how its mode moves with u; 0 elsewhere."""
    inner: Any
    """-log p(y, z) at the mode: the lower, the better the mode."""
    hessian: Any
    converged: Any
    iterations: Any
    failures: Any
    """Points on the way to the mode at which the density could not be computed."""
    learned: Any
    """What else the method learned of the subject, as one vector."""

    @classmethod
    def at_mode(cls, mode: Mode, value: Any, gradient: Any, moves: Any) -> "Contributions":
        """What a method says of one subject at its mode."""
        found = (mode.value, mode.hessian, mode.converged, mode.iterations, mode.failures)
        return cls(value, gradient, mode.z, moves, *found, jnp.zeros(0))


class Near(NamedTuple):
    """A point at which everything is known already, from which the modes of others close by are sought."""

    u: Float[np.ndarray, "p"]
    found: Contributions


class MarginalMethod(Protocol):
    """What the objective and its search read of a method; a hashable value."""

    @property
    def kind(self) -> Kind: ...

    @property
    def has_modes(self) -> bool: ...

    @property
    def all_modes(self) -> bool: ...

    @property
    def covariance(self) -> Covariance: ...

    @property
    def notes(self) -> dict[str, str]: ...

    def posterior(self, found: Contributions) -> AbstractPosterior: ...

    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Start, subject: Any
    ) -> Contributions: ...


Penalty = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""What a search adds to -2 log L at u, once for all subjects, and its gradient."""


@program
def _contributions(model: AbstractLatentModel, method: MarginalMethod) -> Any:
    coordinates = Coordinates(model.parameters())

    def contributions(u: Array, fixed: Theta, starts: Start, subjects: Any) -> Contributions:
        def one(start: Start, subject: Any) -> Contributions:
            return method.subject_contribution(model, coordinates, u, fixed, start, subject)

        return by_subject(model, one, starts, subjects)

    return compiled(contributions)


class Objective:
    """-2 log L and its gradient for one model, data set and method.

    Modes are sought from z = 0, or, where the caller gives a point near by, from where those of that point have moved to: to the
    first order, z + dz/du (u' - u). Both find them to the last digits, so that what is found is a function of u as long as a
    subject has one mode. Where it has several, a search stays in the valley that it started in, whatever u does.
    """

    def __init__(self, problem: Problem, method: MarginalMethod, penalty: Penalty | None = None):
        self.problem, self.method = problem, method
        self.penalty: Penalty = penalty or (lambda u: (0.0, np.zeros_like(u)))
        self.coordinates, self.size, self.q = problem.coordinates, problem.size, problem.q
        self._run = _contributions(problem.model, method)
        others = retry_starts(self.size, self.q) if method.has_modes and method.all_modes else []
        self.starts: tuple[np.ndarray, ...] = (np.zeros((self.size, self.q)), *others)
        self.evaluations = 0
        self.failures = 0
        """Points at which a subject's density could not be computed; they were passed over."""
        self.rescued = 0
        """Searches for a mode that took the stiff solver."""

    def contributions(self, u: Float[np.ndarray, "p"], near: Near | None = None) -> Contributions:
        """Every subject's contribution at u, its mode sought from what is known `near` by, else from 0 or the best of all that
        the method asks for. A subject whose search fails is sought from other starts."""
        if near is None:
            result = self._from(u, Start.cold(self.starts[0]))
            for start in self.starts[1:]:
                result = _better(result, self._from(u, Start.cold(start)))
        else:
            result = self._from(u, moved(near, u))
        if not np.all(result.converged):
            for start in self._others(near):
                lost = ~result.converged
                result = _better(result, self._from(u, Start.cold(start), lost), lost)
                if np.all(result.converged):
                    break
        return self._rescued(u, result)

    def _others(self, near: Near | None) -> list[np.ndarray]:
        """Starts for what was not found from the first."""
        return [*([] if near is None else self.starts[:1]), *retry_starts(self.size, self.q)]

    def _rescued(self, u: np.ndarray, found: Contributions) -> Contributions:
        """Subjects that could not be computed, by the stiff solver if the model has one."""
        lost = ~found.converged & (found.failures > 0)
        if not lost.any() or self._fallback is None:
            return found
        other = self._fallback._from(u, Start.cold(self.starts[0]), lost)
        better = _better(found, other, lost)
        self.rescued += int(np.sum(better.converged & lost))
        return better

    @cached_property
    def _fallback(self) -> "Objective | None":
        model = self.problem.model.stiff_fallback()
        return None if model is None else Objective(Problem(model, self.problem.data), self.method)

    def best_modes(self, u: Float[np.ndarray, "p"], found: Contributions) -> Contributions:
        """`found`, with a better mode where one of the nearer other starts leads to one."""
        best = found
        for start in retry_starts(self.size, self.q)[: 2 * self.q]:
            best = _better(best, self._from(u, Start.cold(start)))
        return best

    def _from(self, u: np.ndarray, starts: Start, only: np.ndarray | None = None) -> Contributions:
        self.evaluations += 1
        u = np.asarray(u)
        fixed = self.problem.fixed
        found = Contributions(*self.problem.batches.map(lambda start, s: self._run(u, fixed, start, s), starts, only))
        self.failures += int(found.failures.sum())
        return found


FAR = 1.0
"""A move of a mode, in prior standard deviations, that a first-order prediction is not trusted with."""


def moved(near: Near, u: Float[np.ndarray, "p"]) -> Start:
    """Where modes found near by have moved to at u. One that would have moved far, or was not found there, is sought from where
    it was, or from 0."""
    z, converged = near.found.z, near.found.converged
    shift = near.found.moves @ (u - near.u)
    usable = np.all(np.abs(shift) < FAR, axis=1) & converged
    start = np.where(converged[:, None] & np.isfinite(z), z, 0.0) + np.where(usable[:, None], shift, 0.0)
    return Start(start, near.found.hessian, usable)


def retry_starts(size: int, q: int) -> list[np.ndarray]:
    """Fixed other starts for the modes: near and far to either side of each random effect, in prior standard deviations."""
    offsets = [sign * length * np.eye(q)[k] for length in (1.5, 3.0) for k in range(q) for sign in (1, -1)]
    return [np.broadcast_to(offset, (size, q)).copy() for offset in offsets]


def _better(a: Contributions, b: Contributions, only: Bool[np.ndarray, "N"] | None = None) -> Contributions:
    """By subject, the converged one, and of two converged ones the lower mode. With `only`, b is of those subjects alone (what it
    holds of others was not searched for)."""
    finite_a, finite_b = np.isfinite(a.inner) & np.isfinite(a.value), np.isfinite(b.inner) & np.isfinite(b.value)
    lower = finite_b & (~finite_a | (b.inner < a.inner - 1e-9))
    take = (b.converged & finite_b & ~a.converged) | (lower & (b.converged | ~a.converged))
    take &= True if only is None else only

    def pick(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(take.reshape(-1, *([1] * (x.ndim - 1))), y, x)

    return Contributions(*(pick(x, y) for x, y in zip(a, b, strict=True)))
