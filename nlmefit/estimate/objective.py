"""The population objective -2 log L(theta) of a method and its gradient by the implicit function theorem.

For one subject, with mode z*(u) where g(u, z*) = d inner / dz = 0 and contribution F(u, z):

    dF/du = F_u - F_z  (g_z)^-1  g_u

F_u, F_z, g_u, g_z come from one forward pass over (u, z) at the mode; nothing differentiates through the inner search.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.backend import compiled
from nlmefit.estimate.batches import Batches
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites, family, is_gaussian
from nlmefit.estimate.empirical_bayes import find_costly_mode, find_mode
from nlmefit.estimate.factor import factorize, solve
from nlmefit.estimate.method import AbstractMarginalMethod
from nlmefit.latent import AbstractLatentModel
from nlmefit.typing import Theta


class Contributions(NamedTuple):
    """Per subject (leading axis N): -2 log L_i, its gradient in u, and the mode."""

    value: Any
    gradient: Any
    z: Any
    inner: Any
    """-log p(y, z) at the mode: the lower, the better the mode."""
    hessian: Any
    converged: Any
    iterations: Any
    failures: Any
    """Points on the way to the mode at which the density could not be computed."""


def subject_contribution(
    model: AbstractLatentModel,
    coordinates: Coordinates,
    method: AbstractMarginalMethod,
    u: Float[Array, "p"],
    fixed: Theta,
    start: Float[Array, "q"],
    subject: Any,
) -> Contributions:
    """One subject's contribution, its gradient in u, and the mode found from `start`."""

    def sites_at(u: Array, local: Any = None, center: Any = None) -> Sites:
        theta = coordinates.theta(u, fixed)
        return Sites(model, theta, model.omega(theta), subject, local, center)

    sites, local, center = sites_at(u), None, None
    if model.costly and method.at_origin:
        center = sites.near(jnp.zeros_like(start), method.order).local
        sites = sites_at(u, None, center)
    if model.costly and start.shape[0] > 0:
        mode, local = find_costly_mode(
            lambda z, order: sites.near(z, order).local,
            lambda local, z: method.inner(sites_at(u, local, center), z),
            start,
            method.order if method.has_modes else 1,
        )
    else:
        if model.costly:
            local = sites.near(start, method.order).local
        mode = find_mode(lambda z: method.inner(sites, z), start)
    at = mode.z if method.has_modes else jnp.zeros_like(start)
    value, gradient = _implicit_gradient(lambda u: sites_at(u, local, center), method, u, at)
    return Contributions(value, gradient, mode.z, mode.value, mode.hessian, mode.converged, mode.iterations, mode.failures)


def _implicit_gradient(
    sites_at: Callable[[Array], Sites], method: AbstractMarginalMethod, u: Array, z: Array
) -> tuple[Array, Array]:
    p = u.shape[0]

    def both(w: Array) -> tuple[tuple[Array, Array], Array]:
        value, slope = method.contribution(sites_at(w[:p]), w[p:])
        return (value, slope), value

    if not method.has_modes or z.shape[0] == 0:
        change, value = jax.jacfwd(lambda u: 2 * (method.contribution(sites_at(u), z)[0],), has_aux=True)(u)
        return value, change
    (change, curvature), value = jax.jacfwd(both, has_aux=True)(jnp.concatenate([u, z]))
    return value, change[:p] - change[p:] @ solve(factorize(curvature[:, p:]), curvature[:, :p])


class _Structure:
    """A latent model and a method as a key: equal when the compiled program is the same, whatever the start values."""

    def __init__(self, model: AbstractLatentModel, method: AbstractMarginalMethod):
        self.model, self.method = model, method
        self._key = (type(model), model.structure(), method)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self._key == other._key


@lru_cache(maxsize=64)
def _batch(structure: _Structure) -> Any:
    coordinates = Coordinates(structure.model.parameters())

    def one(u: Array, fixed: Theta, start: Array, subject: Any) -> Contributions:
        return subject_contribution(structure.model, coordinates, structure.method, u, fixed, start, subject)

    def batch(u: Array, fixed: Theta, starts: Array, subjects: Any) -> Contributions:
        return jax.vmap(lambda start, subject: one(u, fixed, start, subject))(starts, subjects)

    return compiled(batch)


class Final(NamedTuple):
    """The parts of a result that the model computes from the estimates."""

    names: tuple[str, ...]
    report: np.ndarray
    """Named natural-scale scalars (k,)."""
    slope: np.ndarray
    """Their Jacobian in u (k, p)."""
    theta: dict[str, np.ndarray]
    root: np.ndarray
    """Omega's Cholesky factor (q, q)."""
    individual: dict[str, np.ndarray]
    """Individual parameters by name (N,)."""


@lru_cache(maxsize=64)
def _finish(structure: _Structure) -> Any:
    model = structure.model
    coordinates = Coordinates(model.parameters())

    def finish(u: Array, fixed: Theta, z: Array, subjects: Any) -> Any:
        def report(u: Array) -> tuple[Array, Array]:
            values = jnp.stack([jnp.asarray(v, float) for v in model.report(coordinates.theta(u, fixed)).values()])
            return values, values

        slope, values = jax.jacfwd(report, has_aux=True)(u)
        theta = coordinates.theta(u, fixed)
        root = model.omega(theta)
        individual = jax.vmap(lambda z, s: model.individual(theta, root @ z, s))(z, subjects)
        return values, slope, theta, root, individual

    return compiled(finish)


class Objective:
    """-2 log L and its gradient for one model, data set and method. A function of u alone: modes are searched from the
    same starts at every call."""

    def __init__(self, model: AbstractLatentModel, subjects: Any, size: int, method: AbstractMarginalMethod):
        self.model, self.method, self.size = model, method, size
        self.coordinates = Coordinates(model.parameters())
        self.fixed = self.coordinates.fixed()
        self.q = len(model.eta_names())
        self.subjects = subjects
        self._batches = Batches(subjects, size, model.costly)
        self._run = _batch(_Structure(model, method))
        self.starts: tuple[np.ndarray, ...] = (np.zeros((size, self.q)),)
        self.evaluations = 0
        self.failures = 0
        """Points at which a subject's density could not be computed; they were passed over."""
        self.rescued = 0
        """Searches for a mode that the sturdier form of the model had to do."""

    def contributions(self, u: Float[np.ndarray, "p"]) -> Contributions:
        """Every subject's contribution at u; where a search fails or several starts are set, the best mode counts."""
        result = self._from(u, self.starts[0])
        for start in self.starts[1:]:
            result = _better(result, self._from(u, start))
        if not np.all(result.converged):
            for start in retry_starts(self.size, self.q):
                result = _better(result, self._from(u, start, ~result.converged))
                if np.all(result.converged):
                    break
        return self._rescued(u, result)

    def _rescued(self, u: np.ndarray, found: Contributions) -> Contributions:
        """Subjects that could not be computed, by the sturdier form of the model if it has one."""
        lost = ~found.converged & (found.failures > 0)
        if not lost.any() or self._sturdier is None:
            return found
        other = self._sturdier._from(u, self.starts[0], lost)
        better = _better(found, other)
        self.rescued += int(np.sum(better.converged & lost))
        return better

    @cached_property
    def _sturdier(self) -> "Objective | None":
        model = self.model.sturdier()
        return None if model is None else Objective(model, self.subjects, self.size, self.method)

    def other_modes(self, u: Float[np.ndarray, "p"], found: Contributions) -> np.ndarray:
        """Which subjects (N,) have a better mode than `found`: one of the nearer other starts leads there."""
        best = found
        for start in retry_starts(self.size, self.q)[: 2 * self.q]:
            best = _better(best, self._from(u, start))
        return best.inner < found.inner - 1e-6

    def search_widely(self) -> None:
        """From now on search every subject's mode from all starts."""
        self.starts = (np.zeros((self.size, self.q)), *retry_starts(self.size, self.q))

    def final(self, u: Float[np.ndarray, "p"], z: Float[np.ndarray, "N q"]) -> Final:
        """Everything that the model computes once at the end, in one compiled call."""
        run = _finish(_Structure(self.model, self.method))
        values = jax.tree.map(np.asarray, run(np.asarray(u), self.fixed, z, self.subjects))
        names, individual = self._names
        report, slope, theta, root, parameters = values
        return Final(names, report, slope, theta, root, {name: parameters[name] for name in individual})

    def outside_support(self, u: Float[np.ndarray, "p"]) -> dict[str, tuple[str, Bool[np.ndarray, "N n"]]]:
        """By site that is not normal: the distribution's family, and which observations (N, n) lie outside its support."""
        others = {name: kind for name, (kind, gaussian) in self._families.items() if not gaussian}
        if not others:
            return {}

        def outside(u: Array, subject: Any) -> dict[str, Array]:
            sites = self.model.observe(self.coordinates.theta(u, self.fixed), jnp.zeros(self.q), subject)
            return {n: subject.mask[n] & ~jnp.asarray(sites[n].support(subject.observed[n])) for n in others}

        found = compiled(jax.vmap(outside, in_axes=(None, 0)))(np.asarray(u), self.subjects)
        return {name: (kind, np.asarray(found[name])) for name, kind in others.items()}

    @cached_property
    def _families(self) -> dict[str, tuple[str, bool]]:
        """By site: the family of its distribution, and whether it is normal."""
        found: dict[str, tuple[str, bool]] = {}

        def look(u: Array, subject: Any) -> None:
            sites = self.model.observe(self.coordinates.theta(u, self.fixed), jnp.zeros(self.q), subject)
            found.update({name: (family(d), is_gaussian(d)) for name, d in sites.items()})

        jax.eval_shape(look, np.zeros(self.coordinates.size), jax.tree.map(lambda x: x[0], self.subjects))
        return found

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the reported scalars and of the individual parameters, in the model's order (a PyTree would sort them)."""
        found: list[tuple[str, ...]] = []

        def look(u: Array, subject: Any) -> None:
            theta = self.coordinates.theta(u, self.fixed)
            found.append(tuple(self.model.report(theta)))
            found.append(tuple(self.model.individual(theta, jnp.zeros(self.q), subject)))

        jax.eval_shape(look, np.zeros(self.coordinates.size), jax.tree.map(lambda x: x[0], self.subjects))
        return found[0], found[1]

    def gaussian_observations(self) -> Float[np.ndarray, "N"]:
        """Number of normal observations by subject: those whose log(2 pi) NONMEM leaves out."""
        masks = [self.subjects.mask[name] for name, (_, gaussian) in self._families.items() if gaussian]
        return np.sum([np.asarray(mask).sum(axis=1) for mask in masks], axis=0) if masks else np.zeros(self.size)

    def _from(self, u: np.ndarray, starts: np.ndarray, only: np.ndarray | None = None) -> Contributions:
        self.evaluations += 1
        u = np.asarray(u)
        found = Contributions(*self._batches.evaluate(lambda z, subjects: self._run(u, self.fixed, z, subjects), starts, only))
        self.failures += int(found.failures.sum())
        return found


def retry_starts(size: int, q: int) -> list[np.ndarray]:
    """Fixed other starts for the modes: near and far to either side of each random effect, in prior standard deviations."""
    offsets = [sign * length * np.eye(q)[k] for length in (1.5, 3.0) for k in range(q) for sign in (1, -1)]
    return [np.broadcast_to(offset, (size, q)).copy() for offset in offsets]


def _better(a: Contributions, b: Contributions) -> Contributions:
    """By subject, the converged one, and of two converged ones the lower mode."""
    finite_a, finite_b = np.isfinite(a.inner) & np.isfinite(a.value), np.isfinite(b.inner) & np.isfinite(b.value)
    lower = finite_b & (~finite_a | (b.inner < a.inner - 1e-9))
    take = (b.converged & finite_b & ~a.converged) | (lower & (b.converged | ~a.converged))

    def pick(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(take.reshape(-1, *([1] * (x.ndim - 1))), y, x)

    return Contributions(*(pick(x, y) for x, y in zip(a, b, strict=True)))
